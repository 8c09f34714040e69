//! What `firebrick compress` takes out of a model, and the training of what is left.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use firebrick_compress::{
    layers::{self, Layer},
    measured::badness,
    prune::{with_zeros, without_channels},
};
use firebrick_core::checkpoint::Source;
use firebrick_nlp::{
    classification::{corpus, prune::without_neurons, recipe::Recipe},
    lm::{
        self,
        causal::{WindowSettings, Windows},
        prune::without_heads,
    },
    translation,
};
use firebrick_speech::{background, classification as sounds};
use firebrick_train::{job::Recipe as _, origin::Origin, run};
use firebrick_vision::{classification as pictures, video as clips};
use serde_json::Value as Json;
use toml::{Table, Value};

use super::{Job, Training, program};
use crate::{
    commands::{Outcome, ask, eval},
    failure::{Failure, USAGE},
    places,
};

/// Training rows that tell which layers are missed least.
const ROWS: usize = 256;

/// Texts that the original is asked, for each row that it was trained on, when it teaches.
const TEXTS_PER_ROW: i64 = 8;

/// Those whose recipes have `model.pretrained`, so that a training can begin with a model that is there.
pub(super) const TRAINABLE: [&str; 6] = [
    Recipe::TASK,
    translation::recipe::Recipe::TASK,
    lm::recipe::Recipe::TASK,
    sounds::recipe::Recipe::TASK,
    pictures::recipe::Recipe::TASK,
    clips::recipe::Recipe::TASK,
];

/// Tables and keys of recipes that name files or folders, or lists of them, relative to the recipe.
const PATHS: [(&str, &str); 6] = [
    ("data", "train"),
    ("data", "valid"),
    ("data", "test"),
    ("data", "dictionary"),
    ("data", "background"),
    ("distill", "texts"),
];

/// What goes: a share of the feed-forward neurons of every layer, of its attention heads, or of the channels of every stage; whole
/// layers; or single weights of all layers together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Prune {
    Neurons(f64),
    Heads(f64),
    Channels(f64),
    /// A share of them below 1, else so many.
    Layers(f64),
    /// Become zeros.
    Weights(f64),
}

impl Prune {
    /// `neurons=0.5`, `heads=0.5`, `channels=0.25`, `layers=0.5`, `layers=2`, `weights=0.5`
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (what, amount) = text.split_once('=').unwrap_or((text, ""));
        // A number without a point counts; `1.0` would be one layer or all of them.
        let count = amount.parse::<u32>().ok().filter(|count| what == "layers" && *count > 0);
        if let Some(count) = count {
            return Ok(Self::Layers(count.into()));
        }
        let share = amount.parse::<f64>().ok().filter(|share| *share > 0.0 && *share < 1.0);
        let parsed = share.and_then(|share| match what {
            "neurons" => Some(Self::Neurons(share)),
            "heads" => Some(Self::Heads(share)),
            "channels" => Some(Self::Channels(share)),
            "weights" => Some(Self::Weights(share)),
            "layers" => Some(Self::Layers(share)),
            _ => None,
        });
        parsed.ok_or_else(|| match what {
            "layers" => format!(
                "--prune `{text}`: a whole number of layers, as in layers=2, or a share of them below 1, as in layers=0.5"
            ),
            _ => format!(
                "--prune `{text}` is not like neurons=0.5, heads=0.5, channels=0.5, layers=0.5, layers=2 or weights=0.5"
            ),
        })
    }

    /// In a file name, and for the card.
    pub(super) fn name(self) -> String {
        match self {
            Self::Neurons(share) => format!("neurons-{share}"),
            Self::Heads(share) => format!("heads-{share}"),
            Self::Channels(share) => format!("channels-{share}"),
            Self::Layers(amount) => format!("layers-{amount}"),
            Self::Weights(share) => format!("weights-{share}"),
        }
    }

    pub(super) fn method(self) -> String {
        let (share, what) = match self {
            Self::Neurons(share) => (share, "feed-forward neurons of each layer"),
            Self::Heads(share) => (share, "attention heads of each layer"),
            Self::Channels(share) => (share, "channels of each stage"),
            Self::Layers(share) if share < 1.0 => (share, "layers"),
            Self::Layers(count) => return format!("taking out {count} layers"),
            Self::Weights(share) => {
                return format!(
                    "setting the smallest {:.0} % of the weights to zero",
                    100.0 * share
                );
            }
        };
        format!("taking out {:.0} % of the {what}", 100.0 * share)
    }
}

/// Families whose text classifiers can lose neurons.
const WITH_NEURONS: [&str; 3] = ["bert", "roberta", "distilbert"];

/// Families whose `config.json` has a place for fewer heads of the same size.
const WITH_HEADS: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

impl Prune {
    /// What a model of this kind can lose without being trained after it, half of it.
    pub(super) fn untrained(config: &Json, task: &str) -> Option<Self> {
        [Self::Neurons(0.5), Self::Channels(0.5)]
            .into_iter()
            .find(|prune| prune.check(config, task).is_ok())
    }

    /// Whether a model of this kind has what is to go.
    pub(super) fn check(self, config: &Json, task: &str) -> Outcome {
        let family = config["model_type"].as_str().unwrap_or_default();
        let problem = match self {
            Self::Neurons(_) if task != Recipe::TASK || !WITH_NEURONS.contains(&family) => {
                format!("neurons is for text classifiers of the BERT family, not for {family}")
            }
            Self::Heads(_) if !WITH_HEADS.contains(&family) => format!(
                "heads is for Llama, Mistral and Qwen; the config.json of a {family} has no place for fewer heads of the same \
                 size, so that transformers would not open the result"
            ),
            Self::Channels(_) if family != "resnet" => {
                format!("channels is for a ResNet, not for {family}")
            }
            Self::Layers(amount) => return going(amount, config).map(drop),
            _ => return Ok(()),
        };
        Err(Failure::text(USAGE, format!("--prune {problem}")))
    }
}

/// How many layers go, and of which.
fn going(amount: f64, config: &Json) -> Result<(usize, Vec<Layer>), Failure> {
    let usage = |problem: String| Failure::text(USAGE, format!("--prune layers: {problem}"));
    let all = layers::all(config).map_err(|error| usage(error.to_string()))?;
    let count = match amount < 1.0 {
        true => (amount * all.len() as f64).round() as usize,
        false => amount as usize,
    };
    // One of each stack stays.
    let most = all.iter().filter(|layer| layer.index > 0).count();
    if count == 0 || count > most {
        return Err(usage(format!("{count} of {}, not 1 to {most}", all.len())));
    }
    Ok((count, all))
}

impl Job<'_> {
    /// What [`Prune::check`] allows.
    pub(super) fn prune(&self, prune: Prune, target: &Path) -> Outcome {
        let share = match prune {
            Prune::Neurons(share) => share,
            Prune::Heads(share) => return self.without_heads(share, target),
            Prune::Channels(share) => {
                let importance = self.channel_effects().unwrap_or_default();
                if importance.is_empty() {
                    self.progress.line(
                        "its training rows are not at hand: channels are chosen by the scales of their norms",
                    );
                }
                return Ok(without_channels(
                    &self.source,
                    share,
                    importance,
                    target,
                    &self.device,
                )?);
            }
            Prune::Layers(amount) => return self.without_layers(amount, target),
            Prune::Weights(share) => {
                return Ok(with_zeros(&self.source, share, target, &self.device)?);
            }
        };
        // Rows that the model was trained on tell what its neurons do; without them their weights must.
        let rows =
            eval::recipe_of(&self.args.model, &self.source, self.global).ok().and_then(|opened| {
                let recipe: Recipe = opened.parse(&[]).ok()?;
                corpus::load(&recipe.data, recipe.seed, &places::of_recipe(&opened.base)).ok()
            });
        let rows = rows.map_or_else(Vec::new, |corpus| corpus.train);
        if rows.is_empty() {
            self.progress
                .line("the training rows are not here: neurons are chosen by their weights");
        }
        Ok(without_neurons(&self.source, share, &rows, &self.device, target)?)
    }

    /// What the training rows of the model's recipe say of its channels; `None` where they are not here, or where the model
    /// is no classifier.
    fn channel_effects(&self) -> Option<Vec<Vec<f32>>> {
        let Self { source, device, .. } = self;
        let opened = eval::recipe_of(&self.args.model, source, self.global).ok()?;
        let places = places::of_recipe(&opened.base);
        match ask::task(source).ok()? {
            pictures::recipe::Recipe::TASK => {
                pictures::prune::channel_effects(source, &opened.parse(&[]).ok()?, &places, device)
                    .ok()
            }
            sounds::recipe::Recipe::TASK => {
                sounds::prune::channel_effects(source, &opened.parse(&[]).ok()?, &places, device)
                    .ok()
            }
            _ => None,
        }
    }

    /// Takes groups of heads out, by what the training text of the model's recipe says of them.
    fn without_heads(&self, share: f64, target: &Path) -> Outcome {
        let opened = eval::recipe_of(&self.args.model, &self.source, self.global)?;
        let recipe: lm::recipe::Recipe = opened.parse(&[])?;
        let corpus = recipe.corpus(&places::of_recipe(&opened.base))?;
        let settings = WindowSettings { tokens: recipe.data.window, warm_up: 0 };
        let windows = Windows::new(corpus.train.ids, settings)?;
        Ok(without_heads(&self.source, share, &windows, &self.device, target)?)
    }

    /// Takes layers out one by one, each time that without which the model does least badly on rows it was trained on.
    fn without_layers(&self, amount: f64, target: &Path) -> Outcome {
        let (count, all) = going(amount, &self.source.config()?)?;
        let asked = self.training_rows(ROWS)?;
        let one = self.scratch("one");
        let (mut gone, mut left): (Vec<Layer>, Vec<Layer>) = (vec![], all);
        while gone.len() < count {
            let of_stack = |stack| left.iter().filter(|layer| layer.stack == stack).count();
            let mut least: Option<(f64, Layer)> = None;
            for layer in left.iter().filter(|layer| of_stack(layer.stack) > 1) {
                let less = [&gone[..], &[*layer]].concat();
                layers::without(&self.source, &less, &one, &self.device)?;
                let scored = eval::score(&asked, &Source::folder(&one), self.global)?;
                let cost = badness(&scored.metrics);
                if least.is_none_or(|(so_far, _)| cost < so_far) {
                    least = Some((cost, *layer));
                }
            }
            let (cost, layer) = least.context("a layer that can go")?;
            let stack = if layer.stack > 0 { " of the decoder" } else { "" };
            self.progress.line(&format!(
                "without layer {}{stack} too: {cost:.4} on training rows",
                layer.index
            ));
            left.retain(|other| *other != layer);
            gone.push(layer);
        }
        Ok(layers::without(&self.source, &gone, target, &self.device)?)
    }

    /// Trains `source`, what is left of the model, on the model's own recipe, in a process of its own and at a third of its
    /// rate; with `keys` in the recipe's `[train]`, and with the model itself as teacher where that is asked for.
    pub(super) fn fine_tune(
        &self,
        source: &Source,
        Training { epochs, distill }: Training,
        keys: &[(&str, Value)],
        target: &Path,
    ) -> Outcome {
        let opened = eval::recipe_of(&self.args.model, &self.source, self.global)?;
        let text = opened.as_text();
        let mut recipe: Table = text.parse().context("reading the model's recipe again")?;
        let model = Table::from_iter([("pretrained".into(), address(source)?)]);
        recipe.insert("model".into(), model.into());
        if let Some(tokenizer) = recipe.get_mut("tokenizer").and_then(Value::as_table_mut) {
            tokenizer.retain(|key, _| key == "max_len");
            tokenizer.insert("kind".into(), "pretrained".into());
        }
        // The checkpoint has its own tokenizer.
        if recipe["task"].as_str() == Some(lm::recipe::Recipe::TASK)
            && let Some(data) = recipe.get_mut("data").and_then(Value::as_table_mut)
        {
            data.remove("vocab_size");
        }
        from_anywhere(&mut recipe, &opened.base)?;
        let train = recipe.entry("train").or_insert_with(|| Table::new().into());
        if let Some(train) = train.as_table_mut() {
            let rate = train.get("learning_rate").and_then(Value::as_float);
            train.insert("learning_rate".into(), (rate.unwrap_or(1e-3) / 3.0).into());
            if let Some(rate) = train.get("head_learning_rate").and_then(Value::as_float) {
                train.insert("head_learning_rate".into(), (rate / 3.0).into());
            }
            train.insert("epochs".into(), i64::from(epochs).into());
            train.remove("max_steps");
            train.extend(keys.iter().map(|(key, value)| (key.to_string(), value.clone())));
        }
        if distill {
            let distill = recipe.entry("distill").or_insert_with(|| Table::new().into());
            let distill = distill.as_table_mut().context("[distill] is a table")?;
            distill.insert("teacher".into(), address(&self.source)?);
            let spliced = distill.get("texts_per_row").and_then(Value::as_integer).unwrap_or(0);
            if spliced == 0 && !distill.contains_key("texts") {
                distill.insert("texts_per_row".into(), TEXTS_PER_ROW.into());
            }
        }
        recipe.remove("sweep");
        let name = recipe["name"].as_str().unwrap_or_default().to_string();
        let file = self.scratch("tuned.toml");
        fs::write(&file, recipe.to_string()).context("writing a recipe")?;
        // Another training may have been there already.
        let mut runs = target.as_os_str().to_os_string();
        runs.push(".runs");
        let runs = PathBuf::from(runs);
        let told: Vec<String> =
            keys.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let how = if keys.is_empty() { "" } else { " with " };
        self.progress.line(&format!("training for {epochs} epochs{how}{}", told.join(", ")));
        let run = runs.join(name);
        let mut command = program("train", self.global)?;
        command.arg(&file).arg("--runs").arg(&runs).args(["--progress", "plain"]);
        self.finish(command, "training on the model's recipe", |line| self.progress.line(line))?;
        self.tell_other_rows(&run::read(&run)?.data_sha256);
        fs::rename(run.join("model"), target).context("moving the trained model")?;
        Ok(())
    }

    /// Says where a training had other rows than those that the original was made from, of which some may be among those that
    /// judge it: by data that changed, or an earlier version.
    fn tell_other_rows(&self, found: &str) {
        let original = Origin::read(&self.source).map(|origin| origin.data_sha256);
        if let Some(original) = original.filter(|hash| !hash.is_empty() && hash != found) {
            let model = &self.args.model;
            self.progress.line(&format!(
                "its rows are not those that {model} was made from (SHA-256 {found}, not {original})"
            ));
        }
    }
}

/// Lets the files that a recipe in `base` names be found from wherever it lies, and so a teacher.
fn from_anywhere(recipe: &mut Table, base: &Path) -> anyhow::Result<()> {
    let absolute = |value: &mut Value| -> anyhow::Result<()> {
        if let Some(file) = value.as_str() {
            let path = std::path::absolute(base.join(file)).context("a data file")?;
            *value = Value::String(path.display().to_string());
        }
        Ok(())
    };
    for (table, key) in PATHS {
        match recipe.get_mut(table).and_then(|table| table.get_mut(key)) {
            Some(Value::Array(list)) => {
                let set = |value: &Value| {
                    value.as_str().is_some_and(|name| background::SETS.contains(&name))
                };
                list.iter_mut().filter(|value| !set(value)).try_for_each(absolute)?;
            }
            Some(value) => absolute(value)?,
            None => {}
        }
    }
    // What is not here is told by the training.
    if let Some(teacher) = recipe.get_mut("distill").and_then(|table| table.get_mut("teacher"))
        && let Some(Ok(source)) = teacher.as_str().map(|name| places::pretrained(name, base))
    {
        *teacher = address(&source)?;
    }
    Ok(())
}

/// A model as a recipe names it, wherever the recipe lies.
fn address(source: &Source) -> anyhow::Result<Value> {
    Ok(Value::String(match source {
        Source::Folder(folder) => {
            std::path::absolute(folder).context("the model's folder")?.display().to_string()
        }
        Source::Embedded { name, .. } => name.to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use firebrick_nlp::pretraining;

    use super::*;
    use crate::tasks::{TASKS, with_task};

    #[test]
    fn what_goes_is_a_share_below_one_or_a_whole_number_of_layers() {
        assert_eq!(Prune::parse("neurons=0.5"), Ok(Prune::Neurons(0.5)));
        assert_eq!(Prune::parse("layers=0.5"), Ok(Prune::Layers(0.5)));
        assert_eq!(Prune::parse("layers=1"), Ok(Prune::Layers(1.0)));
        for wrong in ["layers=1.0", "layers=0", "layers=1.5", "layers=2.0", "layers=nan", "layers"]
        {
            let problem = Prune::parse(wrong).unwrap_err();
            assert!(problem.contains("a whole number of layers, as in layers=2"), "{problem}");
        }
        for wrong in ["neurons=1.0", "neurons=2", "heads=0", "weights=nan", "rows=0.5", "0.5"] {
            let problem = Prune::parse(wrong).unwrap_err();
            assert!(problem.contains("is not like neurons=0.5"), "{problem}");
        }
    }
    /// Whatever else has their name where the recipe lies.
    #[test]
    fn only_what_names_files_becomes_a_path() {
        let home = tempfile::tempdir().unwrap();
        for folder in ["en", "fsdd", "text", "bg"] {
            fs::create_dir(home.path().join(folder)).unwrap();
        }
        let text = "[data]\ndataset = 'fsdd'\nsource = 'en'\ntext_column = 'text'\ntrain = 'rows.csv'\nvalid = '/v.csv'\n\
                    background = ['an4', 'bg', '/far']\n[distill]\ntexts = 'texts.txt'\nteacher = 'sst2'\n";
        let mut recipe: Table = text.parse().unwrap();
        from_anywhere(&mut recipe, home.path()).unwrap();
        let at = |name: &str| Value::from(home.path().join(name).display().to_string());
        let (data, distill) = (&recipe["data"], &recipe["distill"]);
        for (key, name) in [("dataset", "fsdd"), ("source", "en"), ("text_column", "text")] {
            assert_eq!(data[key].as_str(), Some(name));
        }
        assert_eq!((&data["train"], data["valid"].as_str()), (&at("rows.csv"), Some("/v.csv")));
        assert_eq!(data["background"], Value::from(vec!["an4".into(), at("bg"), "/far".into()]));
        assert_eq!(
            (&distill["texts"], distill["teacher"].as_str()),
            (&at("texts.txt"), Some("sst2"))
        );
    }

    #[test]
    fn what_can_be_trained_on_has_a_place_for_a_checkpoint_in_its_recipes() {
        for task in TASKS {
            let schema = with_task!(*task, R => schemars::schema_for!(R).to_value());
            let has = schema.pointer("/$defs/ModelRecipe/properties/pretrained").is_some();
            // No command takes a model that is only pretrained.
            let expected = has && *task != pretraining::recipe::Recipe::TASK;
            assert_eq!(TRAINABLE.contains(task), expected, "{task}");
        }
    }
}
