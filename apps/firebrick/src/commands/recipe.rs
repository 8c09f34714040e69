//! `firebrick recipe`: shipped recipes, and checks of your own.

use std::path::Path;

use firebrick_nlp::recipe::{Recipe, SHIPPED};
use firebrick_train::recipe::{RecipeError, nearest, parse};

use super::Outcome;
use crate::{
    cli::RecipeCommand,
    failure::{Failure, USAGE},
};

pub fn run(command: RecipeCommand) -> Outcome {
    match command {
        RecipeCommand::Ls => {
            for (name, text) in SHIPPED {
                let first = text.lines().next().unwrap_or_default().trim_start_matches("# ");
                println!("{name:14} {first}");
            }
        }
        RecipeCommand::Show { name } => print!("{}", shipped(&name)?),
        RecipeCommand::Cp { name, file } => {
            let text = shipped(&name)?;
            if file.exists() {
                let message = format!("{} exists; it was left as it is", file.display());
                return Err(Failure::text(USAGE, message));
            }
            std::fs::write(&file, text)?;
            println!("{}", file.display());
        }
        RecipeCommand::Check { file } => {
            let (recipe, _) = read(&file, &[])?;
            println!("{}: sound; task text-classification, name {}", file.display(), recipe.name);
        }
        RecipeCommand::Schema => {
            let schema = schemars::schema_for!(Recipe);
            println!("{}", serde_json::to_string_pretty(&schema)?);
        }
        RecipeCommand::Reference => print!("{}", reference()),
    }
    Ok(())
}

/// Reads a recipe; the error names its file.
fn read(file: &Path, overrides: &[String]) -> Result<(Recipe, String), Failure> {
    Recipe::read(file, overrides).map_err(|error| in_file(&file.display().to_string(), error))
}

fn in_file(file: &str, error: RecipeError) -> Failure {
    Failure::new(USAGE, anyhow::Error::new(error).context(file.to_string()))
}

fn shipped(name: &str) -> Result<&'static str, Failure> {
    if let Some((_, text)) = SHIPPED.iter().find(|(known, _)| *known == name) {
        return Ok(text);
    }
    let guess = nearest(name, SHIPPED.iter().map(|(name, _)| *name));
    let guess = guess.map_or(String::new(), |guess| format!("; did you mean `{guess}`?"));
    Err(Failure::text(
        USAGE,
        format!("no recipe `{name}`{guess} (`firebrick recipe ls` lists them)"),
    ))
}

/// A recipe by file or shipped name: parsed, its text, and the folder that its paths are relative to.
pub fn open(
    name: &str,
    overrides: &[String],
) -> Result<(Recipe, String, std::path::PathBuf), Failure> {
    let path = Path::new(name);
    if path.exists() || name.ends_with(".toml") {
        let (recipe, text) = read(path, overrides)?;
        let base = path.parent().map(Path::to_path_buf).unwrap_or_default();
        return Ok((recipe, text, base));
    }
    // The repository's runner knows them by application, too: `nlp/sst2`.
    let text = shipped(name.strip_prefix("nlp/").unwrap_or(name))?;
    let recipe = parse(text.as_bytes(), overrides).map_err(|error| in_file(name, error))?;
    Ok((recipe, text.to_string(), std::path::PathBuf::new()))
}

/// The recipe's types as a page: a table of keys for each table of the recipe.
fn reference() -> String {
    let schema = schemars::schema_for!(Recipe).to_value();
    let mut page = String::from(
        "# Recipe keys\n\nPrinted by `firebrick recipe reference` from the types; do not edit.\n\n\
         `--set table.key=value` changes a key for one run.\n",
    );
    page.push_str(&keys(&schema, &schema, "Top level"));
    for (name, table) in schema["properties"].as_object().into_iter().flatten() {
        let table = resolve(&schema, table);
        if table["properties"].is_object() {
            page.push_str(&keys(&schema, table, &format!("`[{name}]`")));
        }
    }
    page
}

/// Follows a `$ref` into the schema's definitions.
fn resolve<'a>(
    schema: &'a serde_json::Value,
    mut node: &'a serde_json::Value,
) -> &'a serde_json::Value {
    if let Some(inner) = node["allOf"].get(0).or_else(|| node["anyOf"].get(0)) {
        node = inner;
    }
    match node["$ref"].as_str() {
        Some(path) => schema.pointer(path.trim_start_matches('#')).unwrap_or(node),
        None => node,
    }
}

fn keys(schema: &serde_json::Value, table: &serde_json::Value, title: &str) -> String {
    let mut text = format!("\n## {title}\n\n");
    if let Some(about) = table["description"].as_str().filter(|_| title != "Top level") {
        text.push_str(&format!("{}\n\n", about.replace('\n', " ")));
    }
    text.push_str("| key | default | meaning |\n|---|---|---|\n");
    for (key, node) in table["properties"].as_object().into_iter().flatten() {
        let target = resolve(schema, node);
        if target["properties"].is_object() {
            continue; // a table of its own
        }
        let about =
            node["description"].as_str().or(target["description"].as_str()).unwrap_or_default();
        let choices: Vec<String> = target["oneOf"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|choice| {
                let about =
                    choice["description"].as_str().map_or(String::new(), |d| format!(": {d}"));
                Some(format!("`{}`{about}", choice["const"].as_str()?))
            })
            .collect();
        let names = target["enum"].as_array().into_iter().flatten().filter_map(|v| v.as_str());
        let choices: Vec<String> =
            choices.into_iter().chain(names.map(|n| format!("`{n}`"))).collect();
        let choices =
            if choices.is_empty() { String::new() } else { format!(" {}", choices.join("; ")) };
        let default = match &node["default"] {
            serde_json::Value::Null => "-".to_string(),
            value => format!("`{value}`"),
        };
        text.push_str(&format!(
            "| `{key}` | {default} | {} |\n",
            (about.to_string() + &choices).replace('\n', " ")
        ));
    }
    text
}
