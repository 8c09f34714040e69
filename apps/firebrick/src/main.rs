//! The `firebrick` command: arguments in, a result on stdout, progress on stderr, an exit code.
//!
//! Only this crate prints, exits and reads the environment.
#![recursion_limit = "256"]
#![warn(clippy::print_stderr)]

/// A line to stderr, as `eprintln!`, which panics where the reader has gone: what was to be told there must not end the work.
macro_rules! stderr {
    ($($text:tt)*) => {
        $crate::to_stderr(format_args!("{}\n", format_args!($($text)*)))
    };
}

mod cli;
mod commands;
mod failure;
#[cfg(feature = "mpi")]
mod mpi;
mod npz;
mod places;
mod progress;
mod tasks;
mod world;

use std::{io::Write, process::ExitCode};

use clap::Parser;
use firebrick_kernels::allocator::{self, CacheLines};

#[global_allocator]
static ALLOCATOR: CacheLines = CacheLines;

fn to_stderr(text: std::fmt::Arguments) {
    let _ = std::io::stderr().write_fmt(text);
}

fn main() -> ExitCode {
    allocator::keep_memory();
    if let Some(word) = std::env::args_os().find(|word| word.to_str().is_none()) {
        let word = word.display();
        stderr!("firebrick: {word}: names of files are read as UTF-8, and this is none: rename it");
        return ExitCode::from(failure::USAGE);
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(error) = failure.error {
                stderr!("firebrick: {}", failure::one_line(&error));
            }
            ExitCode::from(failure.code)
        }
    }
}
