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
const MODELS: &[(&str, Source)] = &[
    shipped!("sst2": "config.json" "model.safetensors" "tokenizer.json" "firebrick.json"),
    shipped!("waimai": "config.json" "model.safetensors" "tokenizer.json" "firebrick.json"),
    shipped!("hotel": "config.json" "model.safetensors" "tokenizer.json" "firebrick.json"),
    shipped!("multi30k-en-de": "config.json" "model.safetensors" "tokenizer.json" "generation_config.json" "firebrick.json"),
    shipped!("ud-pos": "config.json" "model.safetensors" "features.json" "firebrick.json"),
    shipped!("snips": "config.json" "model.safetensors" "features.json" "firebrick.json"),
    shipped!("atis": "config.json" "model.safetensors" "features.json" "firebrick.json"),
    shipped!("hwu64": "config.json" "model.safetensors" "features.json" "firebrick.json"),
    shipped!("smp2019-zh": "config.json" "model.safetensors" "features.json" "firebrick.json"),
    shipped!("ud-hmm": "config.json" "hmm.json" "firebrick.json"),
];

/// Names of the shipped models.
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

/// A shipped model by name.
pub fn model(name: &str) -> Option<Source> {
    MODELS.iter().find(|(known, _)| *known == name).map(|(_, source)| source.clone())
}
