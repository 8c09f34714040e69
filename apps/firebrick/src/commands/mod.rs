//! One function a subcommand.

/// A line to stdout, as `println!`, which panics where the reader has gone.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::commands::tell(format_args!("{}\n", format_args!($($text)*)))
    };
}

mod ask;
mod bench;
mod compress;
mod data;
mod detect;
mod doctor;
mod eval;
mod faces;
mod forward;
mod inspect;
mod ladder;
mod media;
mod models;
mod ngram;
mod nlp;
mod recipe;
mod runs;
mod search;
mod sentiment;
mod speech;
mod speed;
mod start;
mod sweep;
mod train;
mod transcribe;
mod translate;
mod video;
mod vision;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::CommandFactory;
use firebrick_core::checkpoint::tensors::write_atomically;
use firebrick_data::{audio::read::is_recording, error::DataError, image::decode::is_picture};
use firebrick_vision::video::read::is_video;

use crate::{
    cli::{Cli, Command, Global},
    failure::{Failure, USAGE},
    progress::be_quiet,
};

/// What a command answers with: nothing, or why not and the exit code.
pub type Outcome = Result<(), Failure>;

pub fn run(cli: Cli) -> Outcome {
    if cli.global.quiet {
        be_quiet();
    }
    let threads = match cli.command {
        Command::Bench(_) if cli.global.threads == 0 => bench::threads(),
        _ => cli.global.threads,
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.context("setting the number of threads")?;
    // On a thread of the pool: from outside it, every kernel would wait for a worker to wake.
    rayon::scope(|_| dispatch(cli))
}

fn dispatch(cli: Cli) -> Outcome {
    let global = &cli.global;
    match cli.command {
        Command::Start(args) => start::run(&args, global),
        Command::Doctor => doctor::run(global),
        Command::Completions { shell } => {
            let mut script = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "firebrick", &mut script);
            tell(format_args!("{}", String::from_utf8_lossy(&script)));
            Ok(())
        }
        Command::Recipe(command) => recipe::run(command, global),
        Command::Data(command) => data::run(command, global),
        Command::Train(args) => train::run(&args, global),
        Command::Sweep(args) => sweep::run(&args, global),
        Command::Compress(args) => compress::run(&args, global),
        Command::Eval(args) => eval::run(&args, global),
        Command::Predict(args) => ask::predict(&args, global),
        Command::Forward(args) => forward::run(&args, global),
        Command::Generate(args) => forward::generate(&args, global),
        Command::Models(command) => models::run(command, global),
        Command::Runs(command) => runs::run(command, global),
        Command::Bench(args) => bench::run(&args, global),
        Command::Nlp(command) => nlp::run(command, global),
        Command::Speech(command) => speech::run(command, global),
        Command::Vision(command) => vision::run(command, global),
    }
}

/// Prints a JSON document with `--json`, else the text.
fn print(global: &Global, json: &serde_json::Value, text: &str) {
    match global.json {
        true => say!("{json}"),
        false => say!("{}", text.trim_end()),
    }
}

/// Text to stdout, at once. A reader that has seen enough, as `head` has, ends the command.
fn tell(text: std::fmt::Arguments) {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            stderr!("firebrick: writing to stdout: {error}");
            std::process::exit(1)
        }
    }
}

/// Refuses to write an answer over what it is an answer to, alone or in a folder.
fn apart(inputs: &[PathBuf], output: Option<&Path>) -> Outcome {
    let Some(output) = output else { return Ok(()) };
    let Ok(place) = output.canonicalize() else { return Ok(()) }; // nothing is there yet
    let is_media = is_picture(&place) || is_recording(&place) || is_video(&place);
    let is_read = |input: &PathBuf| {
        let input = input.canonicalize();
        input.is_ok_and(|input| input == place || is_media && place.starts_with(input))
    };
    match inputs.iter().any(is_read) {
        true => {
            let message = format!("{} is what is read: write to another file", output.display());
            Err(Failure::text(USAGE, message))
        }
        false => Ok(()),
    }
}

/// A file that was asked for.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    write_atomically(path, bytes)
        .map_err(|source| DataError::Write { path: path.to_owned(), source })
}
