//! Recipes inside the program.

/// Name and text.
pub const SHIPPED: &[(&str, &str)] = &[
    ("sst2", include_str!("../recipes/sst2.toml")),
    ("waimai", include_str!("../recipes/waimai.toml")),
    ("hotel", include_str!("../recipes/hotel.toml")),
    ("sst2-minilm", include_str!("../recipes/sst2-minilm.toml")),
    ("multi30k-en-de", include_str!("../recipes/multi30k-en-de.toml")),
];
