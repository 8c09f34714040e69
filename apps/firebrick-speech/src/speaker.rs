//! Text to speech, by a program beside this one: espeak-ng, which is under the GPL and stays a process of its own.

use std::{
    io::{self, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use firebrick_data::{
    audio::read::{Limits, from_stream},
    error::DataError,
};

/// Longest text that is said at a time, in characters: some 25 minutes.
pub const LONGEST: usize = 20_000;
/// Bytes of the longest answer: an hour.
const MOST: u64 = 3600 * 2 * 22_050;

/// Why nothing was said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpeakError {
    #[error("{program} is not here: {mend}")]
    Missing { program: &'static str, mend: &'static str },

    #[error("no language {0:?}: there are {known}", known = LANGUAGES.join(", "))]
    Language(String),

    #[error("{length} characters are more than {LONGEST}: say them in parts")]
    TooLong { length: usize },

    #[error("there is nothing to say: not one letter or digit")]
    Empty,

    #[error("{program} failed: {problem}")]
    Failed { program: &'static str, problem: String },

    #[error(transparent)]
    Answer(#[from] DataError),
}

/// Languages that are spoken.
pub const LANGUAGES: [&str; 4] = ["en", "zh", "de", "fr"];

/// Something that speaks.
pub trait Speaker {
    /// What `text` sounds like: mono samples at `rate` Hz.
    fn speak(&self, text: &str, language: &str, rate: u32) -> Result<Vec<f32>, SpeakError>;
}

/// <https://github.com/espeak-ng/espeak-ng>
#[derive(Debug, Clone, Copy, Default)]
pub struct Espeak {
    /// Words a minute; 0 is its own 175.
    pub speed: u32,
}

const MISSING: SpeakError =
    SpeakError::Missing { program: "espeak-ng", mend: "apt-get install espeak-ng" };

impl Speaker for Espeak {
    fn speak(&self, text: &str, language: &str, rate: u32) -> Result<Vec<f32>, SpeakError> {
        let voice = match language {
            "zh" => "cmn",
            "en" | "de" | "fr" => language,
            other => return Err(SpeakError::Language(other.chars().take(50).collect())),
        };
        let text = speakable(text)?;
        let mut command = Command::new("espeak-ng");
        // The text goes in by a pipe: it cannot be an option, and no shell sees it. `-b 1`: UTF-8.
        command.args(["--stdin", "--stdout", "-b", "1", "-v", voice]);
        if self.speed > 0 {
            command.args(["-s", &self.speed.to_string()]);
        }
        let bytes = answer(command, "espeak-ng", text.into_bytes())?;
        let limits = Limits::default();
        Ok(from_stream(io::Cursor::new(bytes), Path::new("espeak-ng"), rate, &limits)?)
    }
}

/// Text without what is no text: control characters become spaces, and `[[`, which would begin espeak-ng's own phonemes,
/// two words.
fn speakable(text: &str) -> Result<String, SpeakError> {
    let length = text.chars().count();
    if length > LONGEST {
        return Err(SpeakError::TooLong { length });
    }
    if !text.chars().any(char::is_alphanumeric) {
        return Err(SpeakError::Empty);
    }
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    Ok(text.chars().map(plain).collect::<String>().replace("[[", "[ ["))
}

/// What a program writes that is given `input`.
fn answer(
    mut command: Command,
    program: &'static str,
    input: Vec<u8>,
) -> Result<Vec<u8>, SpeakError> {
    let failed = |problem: String| SpeakError::Failed { program, problem };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child: Child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MISSING,
        _ => failed(error.to_string()),
    })?;
    let mut stdin = child.stdin.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    // Threads: a pipe that nobody reads stops the program.
    let writer = thread::spawn(move || stdin.write_all(&input));
    let complaint = thread::spawn(move || {
        let mut text = vec![];
        let _ = stderr.by_ref().take(4096).read_to_end(&mut text);
        let _ = io::copy(&mut stderr, &mut io::sink());
        String::from_utf8_lossy(&text).trim().to_string()
    });
    let mut bytes = vec![];
    let stdout = child.stdout.take().expect("piped");
    let read = stdout.take(MOST).read_to_end(&mut bytes);
    // What goes on beyond the limit ends at the closed pipe.
    let status = child.wait();
    let _ = writer.join();
    let complaint = complaint.join().unwrap_or_default();
    read.map_err(|error| failed(error.to_string()))?;
    match status {
        Ok(status) if status.success() => Ok(bytes),
        Ok(status) => Err(failed(format!("{status}: {complaint}"))),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Programs that play a WAV file, with their arguments before its path.
const PLAYERS: &[(&str, &[&str])] = &[
    ("paplay", &[]),
    ("aplay", &["-q"]),
    ("afplay", &[]),
    ("ffplay", &["-nodisp", "-autoexit", "-loglevel", "error"]),
];

/// Plays a WAV file by the first player that is there, and waits for its end.
pub fn play(wav: &Path) -> Result<(), SpeakError> {
    for (program, args) in PLAYERS {
        let mut command = Command::new(program);
        command.args(*args).arg(wav).stdin(Stdio::null()).stdout(Stdio::null());
        match command.stderr(Stdio::piped()).output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(SpeakError::Failed { program, problem: error.to_string() });
            }
            // ffplay that finds no sound card complains, but succeeds.
            Ok(output) if output.status.success() && output.stderr.is_empty() => return Ok(()),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                let problem: String =
                    text.lines().next().unwrap_or("no reason").chars().take(300).collect();
                return Err(SpeakError::Failed { program, problem });
            }
        }
    }
    Err(SpeakError::Missing { program: "a player", mend: "apt-get install alsa-utils" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_texts_are_made_plain() {
        assert_eq!(speakable("a\0b\u{1b}[[x]]").unwrap(), "a b [ [x]]");
        assert!(matches!(speakable("\0 ...\n"), Err(SpeakError::Empty)));
        assert!(matches!(speakable(&"a".repeat(20_001)), Err(SpeakError::TooLong { .. })));
    }
}
