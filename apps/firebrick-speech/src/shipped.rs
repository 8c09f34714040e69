//! Small trained models inside the program: they answer on a new machine at once.

use firebrick_core::checkpoint::Source;

macro_rules! shipped {
    ($name:literal: $($file:literal)*) => {
        ($name, Source::Embedded {
            name: $name,
            files: &[$(($file, include_bytes!(concat!("../models/", $name, "/", $file)))),*],
        })
    };
}

/// All of them.
#[rustfmt::skip]
const MODELS: &[(&str, Source)] = &[
    shipped!("commands": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json"),
];

/// Names of the shipped models.
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

/// A shipped model by name.
pub fn model(name: &str) -> Option<Source> {
    MODELS.iter().find(|(known, _)| *known == name).map(|(_, source)| source.clone())
}
