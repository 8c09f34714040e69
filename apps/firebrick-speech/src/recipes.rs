//! Recipes inside the program.

/// Name and text.
pub const SHIPPED: &[(&str, &str)] = &[
    ("digits", include_str!("../recipes/digits.toml")),
    ("commands", include_str!("../recipes/commands.toml")),
    ("yesno", include_str!("../recipes/yesno.toml")),
    ("an4", include_str!("../recipes/an4.toml")),
];
