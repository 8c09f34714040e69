//! Small trained models inside the program: they answer on a new machine at once.

use firebrick_core::checkpoint::Source;

macro_rules! file {
    ($name:literal, $file:literal) => {
        ($file, include_bytes!(concat!("../models/", $name, "/", $file)))
    };
}

macro_rules! shipped {
    ($name:literal) => {
        (
            $name,
            Source::Embedded {
                name: $name,
                files: &[
                    file!($name, "config.json"),
                    file!($name, "model.safetensors"),
                    file!($name, "preprocessor_config.json"),
                    file!($name, "firebrick.json"),
                ],
            },
        )
    };
}

/// All of them.
const MODELS: &[(&str, Source)] = &[
    shipped!("gtsrb"),
    shipped!("pneumonia"),
    shipped!("brain-mri"),
    shipped!("inria"),
    shipped!("bccd"),
    shipped!("street"),
];

/// Names of the shipped models.
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

/// A shipped model by name.
pub fn model(name: &str) -> Option<Source> {
    MODELS.iter().find(|(known, _)| *known == name).map(|(_, source)| source.clone())
}
