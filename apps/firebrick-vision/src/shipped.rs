//! Small trained models inside the program: they answer on a new machine at once.

use firebrick_core::checkpoint::Source;

/// All of them.
const MODELS: &[(&str, Source)] = &[];

/// Names of the shipped models.
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

/// A shipped model by name.
pub fn model(name: &str) -> Option<Source> {
    MODELS.iter().find(|(known, _)| *known == name).map(|(_, source)| source.clone())
}
