//! One training loop: task, optimiser, schedule, run folder, exact resume, report.
//!
//! An application brings a [`task::Task`] and its [`task::Examples`]; [`fit::fit`] does the rest and
//! reports through a callback. [`job::Recipe`] is what makes them a task that a recipe can name. Nothing here prints.
#![recursion_limit = "256"]

pub mod checkpoint;
pub mod fit;
pub mod job;
pub mod lora;
pub mod optim;
pub mod origin;
pub mod recipe;
pub mod report;
pub mod run;
pub mod sampler;
pub mod schedule;
pub mod sweep;
pub mod task;
pub mod team;
pub mod tensorboard;
pub mod track;
