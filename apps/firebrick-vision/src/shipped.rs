//! Small trained models inside the program: they answer on a new machine at once.

use firebrick_core::{checkpoint::Shipped, shipped};

#[rustfmt::skip]
pub const MODELS: Shipped = Shipped(&[
    shipped!("gtsrb": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json"),
    shipped!("pneumonia": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json"),
    shipped!("brain-mri": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json"),
    shipped!("bccd": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json"),
    shipped!("street": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json"),
    shipped!("inria": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json"),
    shipped!("faces": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json"),
    shipped!("ped2": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json"),
    shipped!("fir-action": "config.json" "model.safetensors" "preprocessor_config.json" "firebrick.json"),
]);
