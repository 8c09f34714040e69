//! Bytes to rows: manifest, archives, tables, cleaning, leak check, splits.
//!
//! The order of use is the order of the modules: [`manifest`] knows the data sets, [`locate`] finds and unpacks them,
//! [`table`] reads rows from a file, [`conllu`] reads tagged sentences, [`clean`] drops what cannot be learned from,
//! [`leaks`] compares the parts, [`split`] makes parts where there are none, [`hash`] names what was read. [`image`] and
//! [`npz`] read pictures, [`audio`] reads recordings and makes frames of them. [`sheet`] writes answers as a table.
//!
//! Everything from outside is hostile until read: each reader has limits, and refuses or sets aside with the line and
//! the reason. Nothing here prints, reads the environment or touches the network. No Burn.

pub mod archive;
pub mod audio;
pub mod clean;
pub mod conllu;
pub mod error;
pub mod hash;
pub mod image;
pub mod leaks;
pub mod ledger;
pub mod locate;
pub mod manifest;
pub mod normalise;
pub mod npz;
pub mod quote;
pub mod redundancy;
pub mod sheet;
pub mod split;
pub mod table;

mod contained;
mod delimited;
mod jsonl;
mod line_starts;
mod lines;
mod parquet;
pub mod stream;
