//! Lights, sockets, thermostats and scenes of a home over MQTT.
//!
//! A [`mod@file`] says what there is; [`order`] what may be asked of it; [`grammar`] finds orders in what somebody said;
//! [`command`] sends them and waits until they were carried out; [`simulated`] devices answer where there are no others.
//! [`discovery`] has the topics and the announcements that Home Assistant understands, [`link`] the connection.
//!
//! Topics: a device takes JSON at `firebrick/HOME/DEVICE/set` and keeps its state, retained, at
//! `firebrick/HOME/DEVICE`. A command may carry an `id`. A device applies an id once, and answers it, each time that it
//! comes, at `firebrick/HOME/DEVICE/applied`: so whoever commands can repeat until it hears that, and neither a broker that
//! dies nor a line that breaks loses a command or doubles it.

pub mod command;
pub mod discovery;
pub mod file;
pub mod grammar;
pub mod link;
pub mod order;
pub mod simulated;

use std::path::PathBuf;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },

    #[error("{path}: {problem}")]
    File { path: PathBuf, problem: String },

    #[error("no device or scene {name:?}: {known}")]
    Unknown { name: String, known: String },

    /// The device could not do it, or should not.
    #[error("{device}: {problem}")]
    Refused { device: String, problem: String },

    #[error("{0}")]
    NotUnderstood(String),

    #[error("no answer from the MQTT broker at {address}: {problem}")]
    Broker { address: String, problem: String },

    /// The broker has it.
    #[error("{device} did not carry it out within {seconds} s: {problem}")]
    NotApplied { device: String, seconds: f64, problem: &'static str },
}
