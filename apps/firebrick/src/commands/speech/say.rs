//! `firebrick speech say`.

use std::{io::Read, path::Path};

use anyhow::Context;
use firebrick_core::checkpoint::tensors::write_atomically;
use firebrick_data::audio::wav;
use firebrick_speech::speaker::{Espeak, LONGEST, Speaker, play};
use serde_json::json;

use super::super::Outcome;
use crate::cli::{Global, speech::SayArgs};

/// Of what is written, in Hz: espeak-ng's own.
pub const RATE: u32 = 22_050;

pub fn run(args: SayArgs, global: &Global) -> Outcome {
    let text = match args.texts.is_empty() {
        false => args.texts.join("\n"),
        true => {
            let mut bytes = vec![];
            // One byte more than the longest text can have is refused by its length.
            let limited = std::io::stdin().lock().take(4 * LONGEST as u64 + 4);
            { limited }.read_to_end(&mut bytes).context("reading stdin")?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    let samples = Espeak { speed: args.speed }.speak(&text, &args.language, RATE)?;
    match &args.output {
        Some(path) => write(path, &samples, RATE)?,
        None => sound(&samples, RATE)?,
    }
    let seconds = samples.len() as f64 / f64::from(RATE);
    if args.output.is_some() || global.json {
        let text = format!("{seconds:.2} s");
        super::super::print(global, &json!({"seconds": seconds, "output": args.output}), &text);
    }
    Ok(())
}

/// Writes a WAV file.
pub fn write(path: &Path, samples: &[f32], rate: u32) -> anyhow::Result<()> {
    write_atomically(path, &wav::encode(samples, rate))
        .with_context(|| format!("writing {}", path.display()))
}

/// Plays samples, if there is a player.
pub fn sound(samples: &[f32], rate: u32) -> anyhow::Result<()> {
    let name = format!("firebrick-{}.wav", std::process::id());
    let path = std::env::temp_dir().join(name);
    write(&path, samples, rate)?;
    let played = play(&path);
    let _ = std::fs::remove_file(&path);
    Ok(played?)
}
