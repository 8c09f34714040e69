//! Errors and the exit codes that they end in.

use std::io::ErrorKind;

use firebrick_compress::export::NoForm;
use firebrick_core::{arch::inputs::InputError, checkpoint::LoadError, device::DeviceError};
use firebrick_data::error::DataError;
use firebrick_nlp::{chat::ChatError, tokenizer::TokenizerError};
use firebrick_speech::{home::HomeError, speaker::SpeakError};
use firebrick_train::{
    checkpoint::CheckpointError, recipe::RecipeError, run::RunError, sweep::study::StudyError,
};
use firebrick_vision::video::read::VideoError;

use crate::places::Missing;

/// The command did not do what was asked.
pub struct Failure {
    pub code: u8,
    /// `None` when the command has said it already.
    pub error: Option<anyhow::Error>,
}

/// Usage or recipe.
pub const USAGE: u8 = 2;
/// An optional part is missing; the message names the command that installs it.
pub const MISSING: u8 = 3;
/// A gate was not met.
pub const GATE: u8 = 4;
/// Bad data or model file.
pub const BAD_FILE: u8 = 5;
/// Interrupted, checkpoint saved.
pub const INTERRUPTED: u8 = 130;

impl Failure {
    pub fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: Some(error.into()) }
    }

    pub fn text(code: u8, message: impl std::fmt::Display) -> Self {
        Self { code, error: Some(anyhow::anyhow!("{message}")) }
    }

    /// The error, for a caller that adds to it.
    pub fn into_error(self) -> anyhow::Error {
        self.error.unwrap_or_else(|| anyhow::anyhow!("exit code {}", self.code))
    }

    pub fn quiet(code: u8) -> Self {
        Self { code, error: None }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { code: code_of(&error), error: Some(error) }
    }
}

/// One conversion for each error that a command passes on with `?`.
macro_rules! from {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                anyhow::Error::new(error).into()
            }
        }
    )*};
}

from!(
    LoadError,
    DataError,
    VideoError,
    CheckpointError,
    RunError,
    StudyError,
    DeviceError,
    TokenizerError,
    HomeError,
    SpeakError,
    std::io::Error,
    serde_json::Error
);

fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<RecipeError>() || cause.is::<NoForm>() {
            return USAGE;
        }
        if cause.is::<Missing>() {
            return MISSING;
        }
        match cause.downcast_ref::<DeviceError>() {
            Some(DeviceError::Unknown(_)) => return USAGE,
            Some(DeviceError::Absent { .. }) => return MISSING,
            None => {}
        }
        match cause.downcast_ref::<DataError>() {
            Some(DataError::NotHere { .. }) => return MISSING,
            Some(DataError::UnknownSet { .. } | DataError::WrongSet(_)) => return USAGE,
            Some(_) => return BAD_FILE,
            None => {}
        }
        match cause.downcast_ref::<VideoError>() {
            Some(VideoError::NoProgram) => return MISSING,
            Some(VideoError::Data(_)) => return BAD_FILE,
            None => {}
        }
        match cause.downcast_ref::<InputError>() {
            Some(InputError::TooLong { .. }) => return USAGE,
            Some(_) => return BAD_FILE,
            None => {}
        }
        if cause.is::<LoadError>() || cause.is::<TokenizerError>() || cause.is::<ChatError>() {
            return BAD_FILE;
        }
        match cause.downcast_ref::<HomeError>() {
            Some(HomeError::Broker { .. } | HomeError::NotApplied { .. }) => return 1,
            Some(_) => return USAGE,
            None => {}
        }
        match cause.downcast_ref::<SpeakError>() {
            Some(SpeakError::Missing { .. }) => return MISSING,
            Some(SpeakError::Failed { .. }) => return 1,
            Some(SpeakError::Answer(_)) => return BAD_FILE,
            Some(_) => return USAGE,
            None => {}
        }
        match cause.downcast_ref::<StudyError>() {
            Some(StudyError::Other { .. }) => return USAGE,
            Some(StudyError::Line { .. }) => return BAD_FILE,
            _ => {}
        }
        if let Some(RunError::Other { .. } | RunError::Done { .. } | RunError::NotARun { .. }) =
            cause.downcast_ref::<RunError>()
        {
            return USAGE;
        }
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if kind.is_some_and(|kind| PLACES.contains(&kind)) {
            return BAD_FILE;
        }
    }
    1
}

/// A file is not there, is none, may not be read or written, or is no text.
const PLACES: [ErrorKind; 5] = [
    ErrorKind::NotFound,
    ErrorKind::PermissionDenied,
    ErrorKind::IsADirectory,
    ErrorKind::NotADirectory,
    ErrorKind::InvalidData,
];

/// The error and its causes, for a list of answers.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The error and its causes on one line, without control characters, of bounded length.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for c in format!("{error:#}").chars().take(4000) {
        match c {
            '\n' | '\r' | '\t' => text.push(' '),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text
}
