//! `firebrick recipe`: shipped recipes, and checks of your own.

use std::path::{Path, PathBuf};

use firebrick_train::{
    job::Recipe,
    recipe::{self, RecipeError, nearest, parse},
    sweep::SweepRecipe,
};
use serde_json::{Map, Value, json};

use super::{Outcome, print, sweep};
use crate::{
    cli::{Global, RecipeCommand},
    failure::{Failure, USAGE},
    tasks::{self, TASKS, with_task},
};

pub fn run(command: RecipeCommand, global: &Global) -> Outcome {
    match command {
        RecipeCommand::Ls => {
            let all: Vec<(&str, &str)> = tasks::shipped()
                .map(|(name, text)| (name, text.lines().next().unwrap_or_default()))
                .map(|(name, first)| (name, first.trim_start_matches("# ")))
                .collect();
            let list = all.iter().map(|(name, about)| json!({"name": name, "about": about}));
            let lines: Vec<String> =
                all.iter().map(|(name, about)| format!("{name:14} {about}")).collect();
            print(global, &Value::Array(list.collect()), &lines.join("\n"));
        }
        RecipeCommand::Show { name } => {
            let text = shipped(&name)?;
            print(global, &json!({"name": name, "toml": text}), text);
        }
        RecipeCommand::Cp { name, file } => {
            let text = shipped(&name)?;
            if file.exists() {
                let message = format!("{} exists; it was left as it is", file.display());
                return Err(Failure::text(USAGE, message));
            }
            super::write(&file, text.as_bytes())?;
            print(global, &json!({"name": name, "file": file}), &file.display().to_string());
        }
        RecipeCommand::Check { recipe } => {
            let opened = Opened::named(&recipe)?;
            with_task!(opened.task()?, R => {
                let name = opened.parse::<R>(&[])?.name().to_string();
                if let Some(space) = opened.sweep()? {
                    sweep::check_space::<R>(&opened, &space, &[])?;
                }
                let text = format!("{recipe}: sound; task {}, name {name}", R::TASK);
                print(global, &json!({"recipe": recipe, "task": R::TASK, "name": name}), &text);
            })
        }
        RecipeCommand::Schema => {
            let mut all = vec![];
            for task in TASKS {
                with_task!(*task, R => all.push(schemars::schema_for!(R).to_value()));
            }
            say!("{}", serde_json::to_string_pretty(&either(all))?);
        }
        RecipeCommand::Reference => {
            say!(
                "# Recipe keys\n\nPrinted by `firebrick recipe reference` from the types; do not edit.\n\n\
                 `--set table.key=value` changes a key for one run."
            );
            for task in TASKS {
                with_task!(*task, R => say!("{}", reference::<R>().trim_end_matches('\n')));
            }
        }
    }
    Ok(())
}

/// One schema for the recipes of all tasks; `task` tells which one holds.
fn either(schemas: Vec<Value>) -> Value {
    let mut definitions = Map::new();
    let mut any = vec![];
    for (mut schema, task) in schemas.into_iter().zip(TASKS) {
        // Tables of like name in different tasks differ.
        let prefixed = |name: &str| format!("{task}.{name}");
        let table = schema.as_object_mut().expect("a schema is an object");
        if let Some(Value::Object(own)) = table.remove("$defs") {
            definitions.extend(own.into_iter().map(|(name, node)| (prefixed(&name), node)));
        }
        table.remove("$schema");
        any.push(schema);
    }
    let mut all = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Firebrick recipe",
        "$defs": definitions,
        "anyOf": any,
    });
    for (index, task) in TASKS.iter().enumerate() {
        rename(&mut all["anyOf"][index], task);
    }
    for (name, node) in all["$defs"].as_object_mut().into_iter().flatten() {
        let task = name.split('.').next().unwrap_or_default().to_string();
        rename(node, &task);
    }
    all
}

/// Lets `$ref`s point at the definitions under `task`.
fn rename(node: &mut Value, task: &str) {
    match node {
        Value::Object(table) => {
            for (key, value) in table {
                match value {
                    Value::String(path) if key == "$ref" => {
                        *path = path.replace("#/$defs/", &format!("#/$defs/{task}."));
                    }
                    value => rename(value, task),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| rename(value, task)),
        _ => {}
    }
}

fn shipped(name: &str) -> Result<&'static str, Failure> {
    if let Some((_, text)) = tasks::shipped().find(|(known, _)| *known == name) {
        return Ok(text);
    }
    let guess = nearest(name, tasks::shipped().map(|(name, _)| name));
    let guess = guess.map_or(String::new(), |guess| format!("; did you mean `{guess}`?"));
    Err(Failure::text(
        USAGE,
        format!("no recipe `{name}`{guess} (`firebrick recipe ls` lists them)"),
    ))
}

/// A recipe's bytes, before it is known what task it is for.
pub struct Opened {
    /// What errors call it.
    name: String,
    bytes: Vec<u8>,
    /// The folder that its paths are relative to.
    pub base: PathBuf,
}

impl Opened {
    pub fn file(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let bytes = recipe::read(path).map_err(|error| in_file(&name, error))?;
        let base = path.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Self { name, bytes, base })
    }

    /// One that this program wrote.
    pub fn text(name: &str, text: String) -> Self {
        Self { name: name.into(), bytes: text.into_bytes(), base: PathBuf::new() }
    }

    /// By file or shipped name. The repository's runner knows them by application, too: `nlp/sst2`.
    pub fn named(name: &str) -> Result<Self, Failure> {
        let path = Path::new(name);
        let plain = name.rsplit_once('/').map_or(name, |(_, name)| name);
        // A folder may have the name of a shipped recipe: its model's.
        let folder = path.is_dir() && shipped(plain).is_ok();
        if path.exists() && !folder || name.ends_with(".toml") {
            return Self::file(path);
        }
        let bytes = shipped(plain)?.as_bytes().to_vec();
        Ok(Self { name: name.into(), bytes, base: PathBuf::new() })
    }

    pub fn relative_to(self, base: PathBuf) -> Self {
        Self { base, ..self }
    }

    pub fn task(&self) -> Result<&'static str, Failure> {
        recipe::task(&self.bytes, TASKS).map_err(|error| in_file(&self.name, error))
    }

    pub fn parse<R: Recipe>(&self, overrides: &[String]) -> Result<R, Failure> {
        parse(&self.bytes, overrides).map_err(|error| in_file(&self.name, error))
    }

    pub fn sweep(&self) -> Result<Option<SweepRecipe>, Failure> {
        recipe::sweep(&self.bytes).map_err(|error| in_file(&self.name, error))
    }

    /// As it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn error(&self, error: RecipeError) -> Failure {
        in_file(&self.name, error)
    }

    /// As it was written.
    pub fn as_text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

fn in_file(file: &str, error: RecipeError) -> Failure {
    Failure::new(USAGE, anyhow::Error::new(error).context(file.to_string()))
}

/// A task's recipe as a part of a page: a table of keys for each table of the recipe.
fn reference<R: Recipe>() -> String {
    let schema = schemars::schema_for!(R).to_value();
    let mut page = format!("\n## `task = \"{}\"`\n", R::TASK);
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
fn resolve<'a>(schema: &'a Value, mut node: &'a Value) -> &'a Value {
    if let Some(inner) = node["allOf"].get(0).or_else(|| node["anyOf"].get(0)) {
        node = inner;
    }
    match node["$ref"].as_str() {
        Some(path) => schema.pointer(path.trim_start_matches('#')).unwrap_or(node),
        None => node,
    }
}

fn keys(schema: &Value, table: &Value, title: &str) -> String {
    let mut text = format!("\n### {title}\n\n");
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
            Value::Null => "-".to_string(),
            value => format!("`{value}`"),
        };
        text.push_str(&format!(
            "| `{key}` | {default} | {} |\n",
            (about.to_string() + &choices).replace('\n', " ")
        ));
    }
    text
}
