//! Small trained models inside the program: they answer on a new machine at once.

use firebrick_core::{checkpoint::Shipped, shipped};

#[rustfmt::skip]
pub const MODELS: Shipped = Shipped(&[
    shipped!("an4": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json" "vocab.json" "lexicon.txt" "lm.arpa" "decode.json"),
    shipped!("yesno": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json" "vocab.json" "lexicon.txt" "decode.json"),
    shipped!("digits": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json"),
    shipped!("commands": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json"),
]);
