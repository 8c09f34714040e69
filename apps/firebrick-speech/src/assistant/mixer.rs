//! The volume, by the mixer of ALSA.

use std::{
    io::ErrorKind,
    process::{Command, Stdio},
};

use super::{Language, pick};

/// What becomes of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Up,
    Down,
    Mute,
}

/// Turns it, and tells what came of it.
pub fn turn(turn: Turn, language: Language) -> String {
    let (change, done, done_zh) = match turn {
        Turn::Up => ("10%+", "Louder.", "大声一点了。"),
        Turn::Down => ("10%-", "Quieter.", "小声一点了。"),
        Turn::Mute => ("mute", "Muted.", "静音了。"),
    };
    let mut command = Command::new("amixer");
    command.args(["-q", "sset", "Master", change]).stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.success() => pick(language, done, done_zh).into(),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            format!("The mixer did not do it: {}", text.lines().next().unwrap_or_default())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            "There is no mixer here: apt-get install alsa-utils".into()
        }
        Err(error) => format!("The mixer did not do it: {error}"),
    }
}
