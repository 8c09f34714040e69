//! One file per family: configuration, structs, forward pass, checkpoint names.

pub mod bert;
