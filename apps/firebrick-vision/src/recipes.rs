//! Recipes inside the program.

/// Name and text.
pub const SHIPPED: &[(&str, &str)] = &[
    ("gtsrb", include_str!("../recipes/gtsrb.toml")),
    ("pneumonia", include_str!("../recipes/pneumonia.toml")),
    ("brain-mri", include_str!("../recipes/brain-mri.toml")),
    ("faces", include_str!("../recipes/faces.toml")),
    ("ped2", include_str!("../recipes/ped2.toml")),
    ("fir-action", include_str!("../recipes/fir-action.toml")),
    ("inria", include_str!("../recipes/inria.toml")),
    ("bccd", include_str!("../recipes/bccd.toml")),
    ("street", include_str!("../recipes/street.toml")),
];
