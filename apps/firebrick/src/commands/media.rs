//! What commands share that answer recordings.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Context;
use firebrick_data::{
    audio::{
        read::{Limits, from_stream, read, recordings},
        resample::Resampler,
    },
    error::DataError,
};
use firebrick_vision::classification::layouts;
use serde_json::{Value, json};

use super::{Outcome, ask};
use crate::{
    cli::Global,
    failure::{BAD_FILE, Failure, USAGE, with_causes},
};

/// The recordings of a file or a folder with their ids: paths relative to the folder, or the file's name.
pub fn find(input: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let id = |path: &Path| {
        let inner = match input.is_dir() {
            true => path.strip_prefix(input).unwrap_or(path).as_os_str(),
            false => path.file_name().unwrap_or_default(),
        };
        inner.to_string_lossy().into_owned()
    };
    Ok(recordings(input)?.into_iter().map(|path| (id(&path), path)).collect())
}

/// The pictures of a file or a folder with their ids, as [`find`] has them of recordings.
pub fn pictures(input: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    if !input.is_dir() {
        let name = input.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(vec![(name, input.to_owned())]);
    }
    let files = layouts::pictures(input)?;
    if files.is_empty() {
        let message = format!("{}: no picture in this folder", input.display());
        return Err(Failure::text(BAD_FILE, message));
    }
    Ok(files.into_iter().map(|file| (layouts::relative(&file, input), file)).collect())
}

/// A recording's samples at `rate` Hz; `-` is standard input.
pub fn samples(path: &Path, rate: u32) -> Result<Vec<f32>, DataError> {
    match path.as_os_str() == "-" {
        true => from_stream(std::io::stdin(), Path::new("stdin"), rate, &Limits::default()),
        false => read(path, rate, &Limits::default()),
    }
}

/// Has `hear` answer recordings one after the other, and prints all answers with `--json`. One that cannot be read has its
/// error in their place, and makes the command fail at its end.
pub fn each(
    files: &[PathBuf],
    rate: u32,
    global: &Global,
    mut hear: impl FnMut(&Path, &[f32]) -> Result<Vec<Value>, Failure>,
) -> Outcome {
    let (mut all, mut bad) = (vec![], 0);
    for file in files {
        match samples(file, rate) {
            Ok(samples) => all.extend(hear(file, &samples)?),
            Err(problem) if files.len() == 1 && !global.json => return Err(problem.into()),
            Err(problem) => {
                bad += 1;
                all.push(json!({"file": file, "error": with_causes(&problem)}));
                if !global.json {
                    stderr!("{}", with_causes(&problem));
                }
            }
        }
    }
    if global.json {
        say!("{}", Value::Array(all));
    }
    match bad {
        0 => Ok(()),
        _ => {
            let message = format!("{bad} of {} files could not be read", files.len());
            Err(Failure::text(BAD_FILE, message))
        }
    }
}

/// Rates of samples without a header, in Hz.
const RAW: std::ops::RangeInclusive<u32> = 1000..=384_000;

/// Whether `--raw` can have this rate.
pub fn check_raw(rate: u32) -> Outcome {
    match RAW.contains(&rate) {
        true => Ok(()),
        false => Err(Failure::text(USAGE, format!("--raw {rate} is not within {RAW:?} Hz"))),
    }
}

/// Mono samples of 16 bits from standard input, for as long as they come, handed on at `wanted` Hz.
pub fn raw(
    rate: u32,
    wanted: u32,
    told: &mut dyn FnMut(Vec<f32>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut resampler = (rate != wanted).then(|| Resampler::new(rate, wanted));
    let mut stdin = std::io::stdin().lock();
    let (mut bytes, mut held) = (vec![0; rate as usize / 10 * 2], 0);
    loop {
        let read = stdin.read(&mut bytes[held..]).context("reading stdin")?;
        if read == 0 {
            return Ok(());
        }
        held += read;
        let whole = held - held % 2;
        let samples: Vec<f32> = bytes[..whole]
            .chunks_exact(2)
            .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0)
            .collect();
        bytes.copy_within(whole..held, 0);
        held -= whole;
        told(match &mut resampler {
            None => samples,
            Some(resampler) => {
                let mut output = vec![];
                resampler.push(&samples, &mut output);
                output
            }
        })?;
    }
}

/// Writes an answer or an error for each id, JSON lines in order, to `output` or stdout. Errors make the command fail at
/// its end.
pub fn write_answers(
    input: &Path,
    answers: Vec<(String, Result<Value, String>)>,
    output: Option<&Path>,
    global: &Global,
) -> Outcome {
    let bad = answers.iter().filter(|(_, answer)| answer.is_err()).count();
    let line = |(id, answer): (String, Result<Value, String>)| {
        let mut line = answer.unwrap_or_else(|problem| json!({"error": problem}));
        line["id"] = id.into();
        line
    };
    let lines: Vec<Value> = answers.into_iter().map(line).collect();
    ask::write_lines(input, &lines, bad, output, global)
}
