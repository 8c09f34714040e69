//! From a recipe to a model folder, through the one training loop.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use burn::{module::Module, tensor::Device};
use firebrick_compress::folder;
use firebrick_core::{
    arch::{
        AnyModel,
        gpt2::{self, Gpt2LmHead},
        llama::{self, LlamaForCausalLm},
        recurrent::{self, RecurrentForCausalLm},
    },
    checkpoint::{
        Source,
        lora::LoraConfig,
        tensors::{SaveType, write_atomically},
    },
    generate::GenerationConfig,
};
use firebrick_data::{hash, table::Row};
use firebrick_train::{
    fit::{End, Fitted, Plan, fit},
    job::{self, Outcome, Places, Scores, Session, Shown, chart, curve, page},
    lora,
    origin::Origin,
    recipe::RecipeError,
    report::Report,
};
use serde_json::json;

use super::{
    causal::{CausalLm, LanguageModel, WindowSettings, Windows},
    corpus::{self, Corpus},
    evaluate::{EvalSettings, Judged, evaluate},
    recipe::{METRICS, ModelConfig, Recipe, Unit},
};
use crate::{
    generate::{Limits, Writer},
    tokenizer::TextTokenizer,
};

/// Everything before step 0.
pub struct Prepared {
    pub corpus: Corpus,
    sha256: String,
    pretrained: Option<Source>,
}

/// A trained language model and what was measured of it.
pub struct Trained {
    pub outcome: Outcome,
    /// What the model writes after the first tokens of the validation part.
    pub samples: Vec<(String, String)>,
    /// Weights and biases.
    pub parameters: usize,
    tokens: [usize; 3],
}

impl job::Recipe for Recipe {
    const TASK: &'static str = "language-modelling";
    type Prepared = Prepared;
    type Trained = Trained;

    firebrick_train::recipe_fields!(METRICS);

    fn prepare(&self, places: &Places) -> anyhow::Result<Prepared> {
        let corpus = self.corpus(places)?;
        let row = |(row, ids): (usize, &Vec<u32>)| Row {
            row,
            text: ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
            label: None,
        };
        let rows: Vec<Row> =
            [&corpus.train.ids, &corpus.valid.ids].into_iter().enumerate().map(row).collect();
        let pretrained = places.checkpoint(self.model.pretrained.as_ref())?;
        Ok(Prepared { sha256: hash::sha256_rows(&rows), corpus, pretrained })
    }

    fn train(&self, prepared: Prepared, session: Session) -> anyhow::Result<Option<Trained>> {
        train(self, prepared, session)
    }
}

impl job::Prepared for Prepared {
    fn data_sha256(&self) -> &str {
        &self.sha256
    }

    fn remarks(&self) -> Vec<String> {
        let Corpus { train, valid, test, vocab_size, .. } = &self.corpus;
        let [train, valid, test] = [train, valid, test].map(|part| part.ids.len());
        vec![
            format!("tokens: train {train}, valid {valid}, test {test}"),
            format!("vocabulary: {vocab_size} tokens"),
        ]
    }
}

impl job::Trained for Trained {
    fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    fn show(&self, dir: &Path) -> anyhow::Result<Shown> {
        let losses = vec![curve(dir, "training", "loss")?, curve(dir, "validation", "valid/loss")?];
        let mut facts = vec![];
        for (part, metrics) in &self.outcome.scores {
            for (name, value) in metrics {
                facts.push((format!("{part} {}", name.replace('_', " ")), format!("{value:.4}")));
            }
        }
        let [train, valid, test] = self.tokens;
        facts.push(("parameters".into(), self.parameters.to_string()));
        facts.push(("seconds".into(), format!("{:.0}", self.outcome.counters.seconds)));
        facts.push(("tokens trained on".into(), self.outcome.counters.tokens.to_string()));
        let part = if self.outcome.scores.contains_key("test") { "test" } else { "valid" };
        let perplexity = self.outcome.scores[part].get("perplexity").copied().unwrap_or_default();
        let why = match part {
            "test" => "the test part, which chose nothing",
            _ => "the validation part, which also chose the weights",
        };
        let report = Report {
            facts,
            verdict: format!("Perplexity {perplexity:.3} a token on {why}."),
            curves: vec![chart("Loss", "nats a token", losses)],
            samples: self.samples.clone(),
            data_notes: vec![
                ("training tokens".into(), train.to_string()),
                ("validation tokens".into(), valid.to_string()),
                ("test tokens".into(), test.to_string()),
            ],
            next_steps: vec![(
                format!("firebrick nlp generate --model {} --sample TEXT", dir.display()),
                "let it write".into(),
            )],
            ..page(dir)?
        };
        Ok(Shown { report, files: vec![] })
    }
}

impl Recipe {
    /// What `[data]` names, as streams.
    pub fn corpus(&self, places: &Places) -> anyhow::Result<Corpus> {
        let read = |file: &PathBuf| {
            let path = places.base.join(file);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        if let Some(source) = places.checkpoint(self.model.pretrained.as_ref())? {
            let tokenizer = TextTokenizer::open(&source)?;
            return match (&self.data.dataset, &self.data.train) {
                (Some(id), _) => corpus::load_with(id, &(places.data)(id)?, tokenizer),
                (None, Some(file)) => corpus::tokens(&read(file)?, self.data.unit, tokenizer),
                (None, None) => bail!("the recipe names no text"),
            };
        }
        match (&self.data.dataset, &self.data.train) {
            (Some(id), _) => corpus::load(id, &(places.data)(id)?, self.data.vocab_size),
            (None, Some(file)) => match self.data.unit {
                Unit::Character => corpus::characters(&read(file)?),
                Unit::Piece => corpus::pieces(&read(file)?, self.data.vocab_size),
            },
            (None, None) => bail!("the recipe names no text"),
        }
    }

    /// How a stream is read to be judged.
    pub fn reading(&self) -> EvalSettings {
        EvalSettings { window: self.data.window, batch_size: self.eval.batch_size }
    }
}

fn train(recipe: &Recipe, prepared: Prepared, session: Session) -> anyhow::Result<Option<Trained>> {
    session.needs_whole_model()?;
    let Session { device, run, team, max_time, stop, report } = session;
    let autodiff = device.clone().autodiff();
    autodiff.seed(recipe.seed);
    let Prepared { corpus, pretrained, .. } = prepared;
    let (config, model) = match &pretrained {
        None => fresh(recipe, &corpus, &autodiff)?,
        Some(source) => go_on(recipe, &corpus, source, &autodiff)?,
    };
    let lora = pretrained.as_ref().and_then(|source| adapter(recipe, &config, source));
    let model = match model {
        LanguageModel::Gpt2(m) => {
            LanguageModel::Gpt2(lora::attach(m, lora.as_ref(), gpt2::checkpoint_name)?)
        }
        LanguageModel::Llama(m) => {
            LanguageModel::Llama(lora::attach(m, lora.as_ref(), llama::checkpoint_name)?)
        }
        recurrent => recurrent,
    };
    let parameters = model.num_params();
    let model = CausalLm { model, label_smoothing: recipe.train.label_smoothing };
    let settings = WindowSettings { tokens: recipe.data.window, warm_up: recipe.data.warm_up };
    let windows = Windows::new(corpus.train.ids.clone(), settings)?;
    let reading = recipe.reading();
    let judge = |model: &CausalLm, stream| -> Judged { evaluate(&model.model, stream, reading) };
    let plan = Plan {
        train: &recipe.train,
        checkpoint: &recipe.checkpoint,
        metric: recipe.eval.metric(METRICS)?,
        seed: recipe.seed,
        max_time,
        stop,
        team,
    };
    let look = |model: &CausalLm| judge(model, &corpus.valid).metrics();
    let Fitted { best, end, counters } = fit(model, &windows, &plan, run, look, report)?;
    if !team.is_first() {
        return Ok(None);
    }

    let mut scores = Scores::from([("valid".to_string(), judge(&best, &corpus.valid).metrics())]);
    if matches!(end, End::Finished | End::EarlyStop) {
        scores.insert("test".into(), judge(&best, &corpus.test).metrics());
    }
    let task = <Recipe as job::Recipe>::TASK;
    let origin = Origin {
        max_len: Some(recipe.data.window),
        ..Origin::new(task, &recipe.name, &run.info, scores.clone())
    };
    if let Some(lora) = &lora {
        let dir = run.dir().join("adapter");
        match &best.model {
            LanguageModel::Gpt2(m) => {
                lora::save(m, lora, gpt2::checkpoint_name, &origin, &dir)?;
            }
            LanguageModel::Llama(m) => {
                lora::save(m, lora, llama::checkpoint_name, &origin, &dir)?;
            }
            LanguageModel::Recurrent(_) => {}
        }
        corpus.tokenizer.save(&dir, origin.max_len)?;
    }
    let (model, json) = named(config, best.model.materialize()); // an adapter is merged
    let dir = run.dir().join("model");
    match &pretrained {
        None => save(&*model, json, &corpus.tokenizer, origin.max_len, &dir)?,
        Some(source) => {
            let json = source.config()?;
            folder::write(source, &dir, &json, |file| model.save(file, SaveType::F32))?;
        }
    }
    origin.save(&dir, "text-generation", "Guesses the next token of a text.")?;
    let tokens = [&corpus.train, &corpus.valid, &corpus.test].map(|part| part.ids.len());
    let writer = Writer::new(model, corpus.tokenizer, GenerationConfig::default(), device);
    let samples = samples(&writer, &corpus.valid.ids, recipe)?;
    let outcome = Outcome { end, counters, scores };
    Ok(Some(Trained { outcome, samples, parameters, tokens }))
}

/// With fresh weights, of the sizes that the recipe names.
fn fresh(
    recipe: &Recipe,
    corpus: &Corpus,
    device: &Device,
) -> anyhow::Result<(ModelConfig, LanguageModel)> {
    let config = recipe.config(corpus.vocab_size)?;
    let model = match &config {
        ModelConfig::Gpt2(config) => LanguageModel::Gpt2(config.init(device).materialize()),
        ModelConfig::Llama(config) => LanguageModel::Llama(config.init(device).materialize()),
        ModelConfig::Recurrent(config) => {
            LanguageModel::Recurrent(config.init(device).materialize())
        }
    };
    Ok((config, model))
}

/// A checkpoint to go on from.
fn go_on(
    recipe: &Recipe,
    corpus: &Corpus,
    source: &Source,
    device: &Device,
) -> anyhow::Result<(ModelConfig, LanguageModel)> {
    let json = source.config()?;
    let family = json["model_type"].as_str().unwrap_or_default();
    let (config, model, longest, vocab_size) = match family {
        "gpt2" => {
            let Gpt2LmHead { config, model } = Gpt2LmHead::load(source, device)?;
            let (longest, size) = (config.n_positions, config.vocab_size);
            (ModelConfig::Gpt2(config), LanguageModel::Gpt2(model.materialize()), longest, size)
        }
        "llama" | "mistral" | "qwen2" | "qwen3" => {
            let LlamaForCausalLm { config, model } = LlamaForCausalLm::load(source, device)?;
            let (longest, size) = (config.max_position_embeddings, config.vocab_size);
            (ModelConfig::Llama(config), LanguageModel::Llama(model.materialize()), longest, size)
        }
        recurrent::MODEL_TYPE => {
            let RecurrentForCausalLm { config, model } =
                RecurrentForCausalLm::load(source, device)?;
            let size = config.vocab_size;
            let model = LanguageModel::Recurrent(model.materialize());
            (ModelConfig::Recurrent(config), model, usize::MAX, size)
        }
        other => {
            let problem = format!(
                "is a {other}; a GPT-2, Llama, Mistral, Qwen or recurrent model can be trained on"
            );
            return Err(RecipeError::value("model.pretrained", problem).into());
        }
    };
    if recipe.data.warm_up > 0 && !model.carries_state() {
        let problem = format!("is for recurrent models, and the checkpoint is a {family}");
        return Err(RecipeError::value("data.warm_up", problem).into());
    }
    if recipe.model.lora.r > 0 && model.carries_state() {
        let problem = "has no linear layers to adapt in a recurrent model";
        return Err(RecipeError::value("model.lora", problem).into());
    }
    if recipe.data.window > longest {
        let problem = format!("is {}, but the checkpoint reads {longest}", recipe.data.window);
        return Err(RecipeError::value("data.window", problem).into());
    }
    if corpus.vocab_size > vocab_size {
        let problem =
            format!("knows {vocab_size} tokens, its tokenizer makes {}", corpus.vocab_size);
        return Err(RecipeError::value("model.pretrained", problem).into());
    }
    Ok((config, model))
}

/// What `[model.lora]` asks for.
fn adapter(recipe: &Recipe, config: &ModelConfig, base: &Source) -> Option<LoraConfig> {
    let gpt2 = matches!(config, ModelConfig::Gpt2(_));
    let targets: &[&str] = if gpt2 { &["c_attn"] } else { &["q_proj", "v_proj"] };
    let lora = recipe.model.lora.config(base, targets, &[])?;
    Some(LoraConfig { fan_in_fan_out: gpt2, task_type: Some("CAUSAL_LM".into()), ..lora })
}

/// The model as its family saves and writes, and its `config.json`.
fn named(config: ModelConfig, model: LanguageModel) -> (Box<dyn AnyModel>, serde_json::Value) {
    match (config, model) {
        (ModelConfig::Gpt2(config), LanguageModel::Gpt2(model)) => {
            let json = config.to_json();
            (Box::new(Gpt2LmHead { config, model }), json)
        }
        (ModelConfig::Llama(config), LanguageModel::Llama(model)) => {
            // Only a checkpoint is one, and it has its own file.
            (Box::new(LlamaForCausalLm { config, model }), serde_json::Value::Null)
        }
        (ModelConfig::Recurrent(config), LanguageModel::Recurrent(model)) => {
            let json = config.to_json();
            (Box::new(RecurrentForCausalLm { config, model }), json)
        }
        _ => unreachable!("a model is made from its configuration"),
    }
}

fn save(
    model: &dyn AnyModel,
    config: serde_json::Value,
    tokenizer: &TextTokenizer,
    longest: Option<usize>,
    dir: &Path,
) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    model.save(&dir.join("model.safetensors"), SaveType::F32)?;
    tokenizer.save(dir, longest)?;
    // A Transformer has as many positions, for the prompt and what it writes together.
    let (length, tokens) = match config["n_positions"].as_u64() {
        Some(positions) => ("max_length", positions),
        None => ("max_new_tokens", 200),
    };
    let generation = json!({"do_sample": true, "temperature": 0.8, "top_k": 0, length: tokens});
    for (file, value) in [("config.json", config), ("generation_config.json", generation)] {
        let path = dir.join(file);
        write_atomically(&path, serde_json::to_string_pretty(&value)?.as_bytes())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// What the model writes after the beginning of the validation part: likeliest tokens, and drawn ones.
fn samples(
    writer: &Writer,
    valid: &[u32],
    recipe: &Recipe,
) -> anyhow::Result<Vec<(String, String)>> {
    const PROMPT: usize = 12;
    const WRITTEN: usize = 160;
    let prompt = writer.tokenizer.decode(&valid[..PROMPT.min(valid.len())]);
    // What the tokenizer does not know is longer when it is read again.
    let read = writer.tokenizer.encode(&prompt, usize::MAX).len();
    let room = recipe.data.window.saturating_sub(read + 1).min(WRITTEN);
    if room == 0 || prompt.trim().is_empty() {
        return Ok(vec![]);
    }
    let mut samples = vec![];
    for (how, do_sample) in [("likeliest", false), ("drawn at temperature 0.8", true)] {
        let config = GenerationConfig {
            max_new_tokens: Some(room),
            do_sample,
            temperature: 0.8,
            seed: recipe.seed,
            ..GenerationConfig::default()
        };
        let written = writer.write(&[&prompt], &config, &Limits::default(), &mut |_, _| {})?;
        let text: String = written.into_iter().collect();
        samples.push((format!("{prompt} ({how})"), text));
    }
    Ok(samples)
}
