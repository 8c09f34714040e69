//! Recipes inside the program.

/// Name and text.
pub const SHIPPED: &[(&str, &str)] = &[
    ("sst2", include_str!("../recipes/sst2.toml")),
    ("waimai", include_str!("../recipes/waimai.toml")),
    ("hotel", include_str!("../recipes/hotel.toml")),
    ("sst2-minilm", include_str!("../recipes/sst2-minilm.toml")),
    ("sst2-distilled", include_str!("../recipes/sst2-distilled.toml")),
    ("reviews-zh", include_str!("../recipes/reviews-zh.toml")),
    ("hotel-few", include_str!("../recipes/hotel-few.toml")),
    ("reviews-gpt", include_str!("../recipes/reviews-gpt.toml")),
    ("hotel-few-gpt", include_str!("../recipes/hotel-few-gpt.toml")),
    ("multi30k-en-de", include_str!("../recipes/multi30k-en-de.toml")),
    ("multi30k-de-en", include_str!("../recipes/multi30k-de-en.toml")),
    ("multi30k-en-fr", include_str!("../recipes/multi30k-en-fr.toml")),
    ("tatoeba-zh-en", include_str!("../recipes/tatoeba-zh-en.toml")),
    ("tatoeba-en-zh", include_str!("../recipes/tatoeba-en-zh.toml")),
    ("ud-hmm", include_str!("../recipes/ud-hmm.toml")),
    ("ud-pos", include_str!("../recipes/ud-pos.toml")),
    ("snips", include_str!("../recipes/snips.toml")),
    ("atis", include_str!("../recipes/atis.toml")),
    ("hwu64", include_str!("../recipes/hwu64.toml")),
    ("smp2019-zh", include_str!("../recipes/smp2019-zh.toml")),
    ("shakespeare", include_str!("../recipes/shakespeare.toml")),
    ("poetry", include_str!("../recipes/poetry.toml")),
    ("ptb-lstm", include_str!("../recipes/ptb-lstm.toml")),
    ("ptb-gpt", include_str!("../recipes/ptb-gpt.toml")),
];
