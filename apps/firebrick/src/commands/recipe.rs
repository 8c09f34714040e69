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
    Err(Failure::text(USAGE, format!("no recipe `{name}`{guess} (`firebrick recipe ls` lists them)")))
}

/// A recipe by file or shipped name: parsed, its text, and the folder that its paths are relative to.
pub fn open(name: &str, overrides: &[String]) -> Result<(Recipe, String, std::path::PathBuf), Failure> {
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
