//! Small trained models inside the program: they answer on a new machine at once.

use firebrick_core::{checkpoint::Shipped, shipped};

#[rustfmt::skip]
pub const MODELS: Shipped = Shipped(&[
    shipped!("sst2": "config.json" "model.safetensors" "tokenizer.json" "firebrick.json"),
    shipped!("sst2-distilled": "config.json" "model.safetensors" "tokenizer.json" "firebrick.json"),
    shipped!("waimai": "config.json" "model.safetensors" "tokenizer.json" "firebrick.json"),
    shipped!("hotel": "config.json" "model.safetensors" "tokenizer.json" "firebrick.json"),
    shipped!("multi30k-en-de": "config.json" "model.safetensors" "tokenizer.json" "generation_config.json" "firebrick.json"),
    shipped!("multi30k-de-en": "config.json" "model.safetensors" "tokenizer.json" "generation_config.json" "firebrick.json"),
    shipped!("multi30k-en-fr": "config.json" "model.safetensors" "tokenizer.json" "generation_config.json" "firebrick.json"),
    shipped!("tatoeba-zh-en": "config.json" "model.safetensors" "tokenizer.json" "generation_config.json" "firebrick.json"),
    shipped!("tatoeba-en-zh": "config.json" "model.safetensors" "tokenizer.json" "generation_config.json" "firebrick.json"),
    shipped!("shakespeare": "config.json" "model.safetensors" "tokenizer.json" "generation_config.json" "firebrick.json"),
    shipped!("poetry": "config.json" "model.safetensors" "tokenizer.json" "generation_config.json" "firebrick.json"),
    shipped!("ud-pos": "config.json" "model.safetensors" "features.json" "firebrick.json"),
    shipped!("snips": "config.json" "model.safetensors" "features.json" "firebrick.json"),
    shipped!("atis": "config.json" "model.safetensors" "features.json" "firebrick.json"),
    shipped!("hwu64": "config.json" "model.safetensors" "features.json" "firebrick.json"),
    shipped!("smp2019-zh": "config.json" "model.safetensors" "features.json" "firebrick.json"),
    shipped!("ud-hmm": "config.json" "hmm.json" "firebrick.json"),
]);
