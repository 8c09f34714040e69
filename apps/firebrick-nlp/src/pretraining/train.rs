//! From a recipe to a masked language model's folder, through the one training loop.

use std::{collections::HashSet, fs, path::Path};

use anyhow::{Context, ensure};
use burn::module::Module;
use firebrick_core::{
    arch::bert::{BertConfig, ModelType, save_pretraining},
    checkpoint::tensors::{SaveType, write_atomically},
};
use firebrick_data::{hash, table::Row};
use firebrick_train::{
    fit::{End, Fitted, Plan, fit},
    job::{self, Outcome, Places, Scores, Session, Shown, chart, curve, page},
    origin::Origin,
    report::Report,
    sampler::{Coins, mix},
};

use super::{
    masked::{MaskSettings, MaskedTexts, Pairs, PreTraining, evaluate, pseudo},
    recipe::{METRICS, Recipe},
};
use crate::{
    classification::corpus::read_split,
    lm::{
        corpus::{self, Corpus, Stream},
        evaluate::EvalSettings,
    },
    tokenizer::{TextTokenizer, recipe::TokenizerRecipe},
};

/// Everything before step 0.
pub struct Prepared {
    train: Vec<Vec<u32>>,
    valid: Vec<Vec<u32>>,
    /// Of `data.stream`: the validation and the test part, whole.
    streams: Option<[Stream; 2]>,
    tokenizer: TextTokenizer,
    sha256: String,
}

/// A pre-trained encoder and what was measured of it.
pub struct Trained {
    outcome: Outcome,
    parameters: usize,
    texts: [usize; 2],
}

impl job::Recipe for Recipe {
    const TASK: &'static str = "masked-language-modelling";
    type Prepared = Prepared;
    type Trained = Trained;

    firebrick_train::recipe_fields!(METRICS);

    fn prepare(&self, places: &Places) -> anyhow::Result<Prepared> {
        match &self.data.stream {
            Some(stream) => self.windows(stream, places),
            None => self.texts(places),
        }
    }

    fn train(&self, prepared: Prepared, session: Session) -> anyhow::Result<Option<Trained>> {
        train(self, prepared, session)
    }
}

impl Recipe {
    /// Texts that occur twice are read once.
    fn texts(&self, places: &Places) -> anyhow::Result<Prepared> {
        let mut texts = vec![];
        for id in &self.data.datasets {
            let table = read_split(&(places.data)(id)?, id, "train")?;
            texts.extend(table.rows.into_iter().map(|row| row.text));
        }
        for file in &self.data.files {
            texts.extend(read(&places.base.join(file))?.lines().map(str::to_string));
        }
        let mut seen = HashSet::new();
        texts.retain(|text| !text.trim().is_empty() && seen.insert(text.clone()));
        let count = (texts.len() as f64 * self.data.valid_fraction).round() as usize;
        ensure!(count > 0 && count < texts.len(), "{} texts: too few to be split", texts.len());
        let mut coins = Coins::new(mix(self.seed, 0x9e7_7a1)); // which texts are set aside
        let valid: Vec<String> =
            (0..count).map(|_| texts.swap_remove(coins.below(texts.len()))).collect();
        let tokenizer = self.tokenizer.make(texts.iter().map(String::as_str), None)?;
        let sha256 = hashed(texts.iter().chain(&valid).cloned());
        let ids = |text: &String| tokenizer.encode(text, self.tokenizer.max_len);
        let [train, valid] = [texts, valid].map(|texts| texts.iter().map(ids).collect());
        Ok(Prepared { train, valid, streams: None, tokenizer, sha256 })
    }

    /// A set to model language on, or a text file.
    fn windows(&self, stream: &str, places: &Places) -> anyhow::Result<Prepared> {
        let TokenizerRecipe { vocab_size, max_len, .. } = self.tokenizer;
        let file = places.base.join(stream);
        let corpus = match file.is_file() {
            true => corpus::pieces(&read(&file)?, vocab_size)
                .with_context(|| file.display().to_string())?,
            false => corpus::load(stream, &(places.data)(stream)?, vocab_size)?,
        };
        let Corpus { train, valid, test, tokenizer, .. } = corpus;
        let windows = |part: &Stream| part.ids.chunks(max_len).map(<[u32]>::to_vec).collect();
        let [train, windows]: [Vec<Vec<u32>>; 2] = [&train, &valid].map(windows);
        let text = |ids: &Vec<u32>| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let sha256 = hashed(train.iter().chain(&windows).map(text));
        let (tokenizer, _) = tokenizer.with_mask();
        Ok(Prepared { train, valid: windows, streams: Some([valid, test]), tokenizer, sha256 })
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn hashed(texts: impl Iterator<Item = String>) -> String {
    let row = |(row, text)| Row { row, text, label: None };
    hash::sha256_rows(&texts.enumerate().map(row).collect::<Vec<Row>>())
}

impl job::Prepared for Prepared {
    fn data_sha256(&self) -> &str {
        &self.sha256
    }

    fn remarks(&self) -> Vec<String> {
        vec![format!("texts: train {}, valid {}", self.train.len(), self.valid.len())]
    }
}

impl job::Trained for Trained {
    fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    fn show(&self, dir: &Path) -> anyhow::Result<Shown> {
        let losses = vec![curve(dir, "training", "loss")?, curve(dir, "validation", "valid/loss")?];
        let valid = &self.outcome.scores["valid"];
        let model = dir.join("model");
        let share = |key: &str| valid.get(key).map(|share| format!("{share:.4}"));
        let pseudo = |part: &str| {
            let score = self.outcome.scores.get(part)?.get("pseudo_perplexity")?;
            Some(format!("{score:.3}"))
        };
        let facts = [
            ("validation accuracy", share("accuracy")),
            ("validation perplexity", Some(format!("{:.2}", valid["perplexity"]))),
            ("validation pairs told apart", share("next_accuracy")),
            ("validation pseudo-perplexity", pseudo("valid")),
            ("test pseudo-perplexity", pseudo("test")),
            ("parameters", Some(self.parameters.to_string())),
            ("training texts", Some(self.texts[0].to_string())),
            ("validation texts", Some(self.texts[1].to_string())),
            ("seconds", Some(format!("{:.0}", self.outcome.counters.seconds))),
        ];
        let facts = facts.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?)));
        let report = Report {
            facts: facts.collect(),
            verdict: format!(
                "Guesses {:.1} % of the masked tokens of texts that it has not seen.",
                100.0 * valid["accuracy"]
            ),
            curves: vec![chart("Loss", "nats a masked token", losses)],
            next_steps: vec![(
                format!("firebrick train RECIPE --set model.pretrained={}", model.display()),
                "fine-tune it on texts with labels".into(),
            )],
            ..page(dir)?
        };
        Ok(Shown { report, files: vec![] })
    }
}

fn train(recipe: &Recipe, prepared: Prepared, session: Session) -> anyhow::Result<Option<Trained>> {
    session.needs_whole_model()?;
    let Prepared { train, valid, streams, tokenizer, .. } = prepared;
    let Session { device, run, team, max_time, stop, report } = session;
    let device = device.clone().autodiff();
    device.seed(recipe.seed);
    let config = recipe.model.bert(&recipe.tokenizer, tokenizer.vocab_size())?;
    let settings = mask_settings(recipe, &config, &tokenizer)?;
    let masked = |mut texts: Vec<Vec<u32>>| {
        texts.retain(|ids| settings.takes(ids));
        MaskedTexts::new(texts, settings.clone())
    };
    let [train, valid] = [masked(train)?, masked(valid)?];
    let texts = [&train, &valid].map(firebrick_train::task::Examples::len);
    let model = config.init_pretraining(recipe.data.next_sentence, &device).materialize();
    let model = PreTraining { model };
    let parameters = model.num_params();
    let plan = Plan {
        train: &recipe.train,
        checkpoint: &recipe.checkpoint,
        metric: recipe.eval.metric(METRICS)?,
        seed: recipe.seed,
        max_time,
        stop,
        team,
    };
    // The same masks and pairs each time: what changes is the model.
    let judge = |model: &PreTraining| evaluate(model, &valid, recipe.eval.batch_size, recipe.seed);
    let Fitted { best, end, counters } = fit(model, &train, &plan, run, judge, report)?;
    if !team.is_first() {
        return Ok(None);
    }
    let mut scores = Scores::from([("valid".to_string(), judge(&best))]);
    if let Some([valid, test]) = &streams {
        let reading =
            EvalSettings { window: recipe.tokenizer.max_len, batch_size: recipe.eval.batch_size };
        let pseudo = |stream| pseudo(&best, stream, settings.mask_id, reading);
        scores.entry("valid".into()).or_default().extend(pseudo(valid));
        if matches!(end, End::Finished | End::EarlyStop) {
            scores.insert("test".into(), pseudo(test));
        }
    }
    let task = <Recipe as job::Recipe>::TASK;
    let origin = Origin {
        max_len: Some(recipe.tokenizer.max_len),
        ..Origin::new(task, &recipe.name, &run.info, scores.clone())
    };
    save(&best, &config, &tokenizer, &origin, &run.dir().join("model"))?;
    Ok(Some(Trained { outcome: Outcome { end, counters, scores }, parameters, texts }))
}

/// Behind them a text is cut in two.
const MARKS: &[&str] =
    &[".", ",", ";", ":", "!", "?", "。", "，", "；", "：", "！", "？", "、", "…", "~", "～"];

fn mask_settings(
    recipe: &Recipe,
    config: &BertConfig,
    tokenizer: &TextTokenizer,
) -> anyhow::Result<MaskSettings> {
    if recipe.data.stream.is_some() {
        let (_, mask_id) = tokenizer.clone().with_mask();
        return Ok(MaskSettings {
            mask_id,
            pad_id: tokenizer.pad_id(),
            vocab_size: config.vocab_size,
            special: vec![],
            probability: recipe.data.masked,
            pairs: None,
        });
    }
    let names: &[&str] = match config.model_type {
        ModelType::Roberta => &["<s>", "<pad>", "</s>", "<mask>"],
        ModelType::Bert | ModelType::Distilbert => &["[CLS]", "[PAD]", "[SEP]", "[MASK]"],
    };
    let ids = names.iter().map(|name| {
        tokenizer.token_id(name).with_context(|| format!("the tokenizer has no {name}"))
    });
    let special = ids.collect::<anyhow::Result<Vec<u32>>>()?;
    Ok(MaskSettings {
        mask_id: special[3],
        pad_id: tokenizer.pad_id(),
        vocab_size: config.vocab_size,
        probability: recipe.data.masked,
        pairs: recipe.data.next_sentence.then(|| Pairs {
            ends: MARKS.iter().filter_map(|mark| tokenizer.token_id(mark)).collect(),
            max_len: recipe.tokenizer.max_len,
        }),
        special,
    })
}

/// A folder that `transformers` opens as a masked language model, and that a classification recipe begins from.
fn save(
    model: &PreTraining,
    config: &BertConfig,
    tokenizer: &TextTokenizer,
    origin: &Origin,
    dir: &Path,
) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    save_pretraining(&model.model, config, &dir.join("model.safetensors"), SaveType::F32)?;
    tokenizer.save(dir, origin.max_len)?;
    let path = dir.join("config.json");
    let json = serde_json::to_string_pretty(&config.pretraining_json(model.model.next.is_some()))?;
    write_atomically(&path, json.as_bytes())
        .with_context(|| format!("writing {}", path.display()))?;
    origin.save(dir, "fill-mask", "An encoder that guesses masked tokens; made to be fine-tuned.")
}
