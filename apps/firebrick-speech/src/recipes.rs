//! Recipes inside the program.

/// Name and text.
pub const SHIPPED: &[(&str, &str)] = &[
    ("digits", include_str!("../recipes/digits.toml")),
    ("commands", include_str!("../recipes/commands.toml")),
];
