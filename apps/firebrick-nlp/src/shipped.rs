//! Small trained models inside the program: they answer on a new machine at once.

use firebrick_core::checkpoint::Source;

macro_rules! shipped {
    ($name:literal) => {
        Source::Embedded {
            name: $name,
            files: &[
                ("config.json", include_bytes!(concat!("../models/", $name, "/config.json"))),
                (
                    "model.safetensors",
                    include_bytes!(concat!("../models/", $name, "/model.safetensors")),
                ),
                ("tokenizer.json", include_bytes!(concat!("../models/", $name, "/tokenizer.json"))),
                ("firebrick.json", include_bytes!(concat!("../models/", $name, "/firebrick.json"))),
            ],
        }
    };
}

/// Names of the shipped models.
pub const NAMES: &[&str] = &["sst2", "waimai", "hotel"];

/// A shipped model by name.
pub fn model(name: &str) -> Option<Source> {
    match name {
        "sst2" => Some(shipped!("sst2")),
        "waimai" => Some(shipped!("waimai")),
        "hotel" => Some(shipped!("hotel")),
        _ => None,
    }
}
