//! From a recipe to a model folder, through the one training loop.

use std::path::Path;

use anyhow::bail;
use burn::{module::Module, tensor::Device};
use firebrick_core::{
    arch::text::{TextClassifierModel, TextConfig, TextModel},
    checkpoint::{Source, lora::LoraConfig, tensors::SaveType},
};
use firebrick_data::table::Row;
use firebrick_metrics::calibration::temperature;
use firebrick_train::{
    fit::{End, Fitted, Metrics, Plan, fit},
    job::{self, Outcome, Places, Scores, Session, Shown},
    lora,
    origin::Origin,
    recipe::RecipeError,
};

use super::{
    batch::{Example, TextExamples},
    classifier::{TextClassifier, encode},
    corpus::{self, Corpus},
    distill::{self, Taught},
    imitate::Imitated,
    recipe::{METRICS, Recipe},
    report,
    task::{Classify, Judged, judge},
};
use crate::tokenizer::TextTokenizer;

/// Everything before step 0, so that the run's description can be written first.
pub struct Prepared {
    pub corpus: Corpus,
    pub tokenizer: TextTokenizer,
    /// What the teacher said, if the recipe has one.
    pub taught: Option<Taught<String>>,
    /// Where the teacher lies whose layers are imitated.
    imitated: Option<Source>,
    pretrained: Option<Source>,
}

/// A trained model and what was measured of it.
pub struct Trained {
    pub outcome: Outcome,
    pub classifier: TextClassifier,
    pub corpus: Corpus,
    pub valid: Judged,
    /// On the test part, once, when the run finished.
    pub test: Option<Judged>,
}

impl job::Recipe for Recipe {
    const TASK: &'static str = "text-classification";
    type Prepared = Prepared;
    type Trained = Trained;

    firebrick_train::recipe_fields!(METRICS);

    /// Reads the data, trains (or reads) the tokenizer, asks the teacher.
    fn prepare(&self, places: &Places) -> anyhow::Result<Prepared> {
        let pretrained = places.checkpoint(self.model.pretrained.as_ref())?;
        let mut corpus = corpus::load(&self.data, self.seed, places)?;
        let texts = corpus.train.iter().map(|row| row.text.as_str());
        let tokenizer = self.tokenizer.make(texts, pretrained.as_ref())?;
        let distill = &self.distill;
        let texts = distill.texts.as_ref();
        let texts = texts.map(|file| corpus.unlabelled(&places.base.join(file), &self.data));
        let texts = texts.transpose()?.unwrap_or_default();
        let taught = match distill.asks() {
            false => None,
            true => {
                let teacher = distill::named(distill.teacher.as_ref(), places)?;
                let count = distill.texts_per_row;
                Some(distill::of_rows(&corpus, &texts, count, self.seed, teacher.as_ref())?)
            }
        };
        let imitates = self.distill.hidden > 0.0 || self.distill.attention > 0.0;
        let imitated = self.distill.teacher.as_ref().filter(|_| imitates);
        let imitated = places.checkpoint(imitated)?;
        Ok(Prepared { corpus, tokenizer, taught, imitated, pretrained })
    }

    fn train(&self, prepared: Prepared, session: Session) -> anyhow::Result<Option<Trained>> {
        train(self, prepared, session)
    }
}

impl job::Prepared for Prepared {
    fn data_sha256(&self) -> &str {
        &self.corpus.sha256
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks = self.corpus.remarks();
        remarks.extend(self.taught.as_ref().map(Taught::remark));
        remarks
    }

    fn ledger(&self) -> String {
        self.corpus.ledger()
    }
}

impl job::Trained for Trained {
    fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    fn show(&self, dir: &Path) -> anyhow::Result<Shown> {
        report::show(dir, self, None)
    }
}

fn train(recipe: &Recipe, prepared: Prepared, session: Session) -> anyhow::Result<Option<Trained>> {
    let Prepared { corpus, tokenizer, taught, imitated, pretrained } = prepared;
    let Session { device, run, team, max_time, stop, report } = session;
    let labels = corpus.labels.clone();
    let flex = *device == Device::flex();
    if recipe.train.activation_checkpointing && !flex {
        let problem = "has an effect on the CPU only: choose --device flex, or leave it out";
        bail!(RecipeError::value("train.activation_checkpointing", problem));
    }
    let imitated = imitated.map(|source| TextClassifier::open(&source, device)).transpose()?;
    let device = device.clone().autodiff();
    device.seed(recipe.seed);
    let (mut config, model) = match &pretrained {
        Some(source) => {
            let loaded = TextClassifierModel::pretrained(source, &labels, &device)?;
            let TextClassifierModel { config, model } = loaded;
            let model = match recipe.model.fresh_weights {
                true => config.init(labels.len(), &device),
                false => model,
            };
            (config, model)
        }
        None => {
            let mut config = recipe.model.config(&recipe.tokenizer, tokenizer.vocab_size())?;
            config.set_labels(&labels);
            let model = config.init(labels.len(), &device);
            (config, model)
        }
    };
    let model = model.materialize();
    config.set_pad_token(tokenizer.pad_id());
    let lora = pretrained.as_ref().and_then(|source| adapter(recipe, &config, source));
    let checkpoint_name = |field: &str| config.checkpoint_name(field);
    let model = lora::attach(model, lora.as_ref(), checkpoint_name)?;
    let split = &team.model;
    let mut model = match split.is_whole() {
        true => model,
        false => {
            let fit = config.check_split(split.size());
            let fit =
                fit.and(lora.as_ref().map_or(Ok(()), |_| Err("does not go with adapters".into())));
            let fit = fit.and(match flex {
                true => Ok(()),
                false => Err("needs the device flex".into()),
            });
            fit.map_err(|problem| RecipeError::value("train.tensor_parallel", problem))?;
            model.split(split)
        }
    };
    match &mut model {
        TextModel::Bert(model) => model.encoder.recompute = recipe.train.activation_checkpointing,
        TextModel::Gpt2(_) | TextModel::Bilstm(_) if recipe.train.activation_checkpointing => {
            let problem = "is for encoders, not for GPT-2 or a BiLSTM";
            bail!(RecipeError::value("train.activation_checkpointing", problem));
        }
        TextModel::Gpt2(_) | TextModel::Bilstm(_) => {}
    }
    let max_len = recipe.tokenizer.max_len.min(config.longest());
    let examples = |rows: &[Row]| examples(rows, &labels, &tokenizer, max_len);
    let valid = examples(&corpus.valid);
    let smoothing = recipe.train.label_smoothing;
    let mut data = TextExamples::new(examples(&corpus.train), labels.len(), smoothing);
    data.pad_id = tokenizer.pad_id();
    data.unknown_id = tokenizer.unknown_id();
    data.token_dropout = recipe.data.token_dropout;
    for (text, target) in taught.map_or_else(Vec::new, |taught| taught.texts) {
        data.push(encode(&tokenizer, &text, max_len), target);
    }
    let judge = |model: &Classify, examples: &[Example]| {
        judge(&model.model, examples, labels.len(), tokenizer.pad_id(), recipe.eval.batch_size)
    };

    let texts = corpus.train.iter().map(|row| row.text.as_str());
    let imitated = imitated
        .map(|teacher| Imitated::new(teacher, (&config, &tokenizer), texts, &recipe.distill))
        .transpose()
        .map_err(|problem| RecipeError::value("distill.teacher", problem))?;
    let model = Classify { model, r_drop: recipe.train.r_drop, imitated };
    let plan = Plan {
        train: &recipe.train,
        checkpoint: &recipe.checkpoint,
        metric: recipe.eval.metric(METRICS)?,
        seed: recipe.seed,
        max_time,
        stop,
        team,
    };
    let Fitted { best, end, counters } =
        fit(model, &data, &plan, run, |model| judge(model, &valid).metrics(), report)?;

    if !team.evaluates() {
        return Ok(None);
    }
    let best = match split.is_whole() {
        true => best,
        false => Classify { model: best.model.join(split)?, ..best },
    };
    if !team.is_first() {
        return Ok(None);
    }
    let said = judge(&best, &valid).scores;
    let answers = said.iter().zip(&valid).map(|(p, row)| (p.as_slice(), row.label));
    let best = Classify { model: best.model.tempered(temperature(answers)), ..best };
    let valid = judge(&best, &valid);
    let test = match (&corpus.test, end) {
        (Some(rows), End::Finished | End::EarlyStop) => Some(judge(&best, &examples(rows))),
        _ => None,
    };
    let mut metrics = Scores::from([("valid".to_string(), valid.metrics())]);
    metrics.extend(test.as_ref().map(|test| ("test".to_string(), test.metrics())));
    let task = <Recipe as job::Recipe>::TASK;
    let origin = Origin {
        labels: labels.clone(),
        max_len: Some(max_len),
        ..Origin::new(task, &recipe.name, &run.info, metrics.clone())
    };
    if let Some(lora) = &lora {
        let dir = run.dir().join("adapter");
        lora::save(&best.model, lora, checkpoint_name, &origin, &dir)?;
        tokenizer.save(&dir, origin.max_len)?;
    }
    let model = best.model.materialize(); // an adapter is merged
    let classifier = TextClassifier { config, model, tokenizer, labels, max_len };
    classifier.save(&run.dir().join("model"), &origin, SaveType::F32)?;
    let outcome = Outcome { end, counters, scores: metrics };
    Ok(Some(Trained { outcome, classifier, corpus, valid, test }))
}

/// What `[model.lora]` asks for.
fn adapter(recipe: &Recipe, config: &TextConfig, base: &Source) -> Option<LoraConfig> {
    let lora = recipe.model.lora.config(base, config.lora_targets(), config.head_modules())?;
    Some(LoraConfig { task_type: Some("SEQ_CLS".into()), ..lora })
}

/// Rows whose label is among `labels`, with its place there.
pub fn with_known_label<'a>(
    rows: &'a [Row],
    labels: &'a [String],
) -> impl Iterator<Item = (&'a Row, usize)> {
    let place = |row: &Row| labels.iter().position(|label| Some(label) == row.label.as_ref());
    rows.iter().filter_map(move |row| Some((row, place(row)?)))
}

/// Rows whose label the model knows, as token ids.
pub fn examples(
    rows: &[Row],
    labels: &[String],
    tokenizer: &TextTokenizer,
    max_len: usize,
) -> Vec<Example> {
    with_known_label(rows, labels)
        .map(|(row, label)| Example { ids: encode(tokenizer, &row.text, max_len), label })
        .collect()
}

/// Scores of a finished model on rows with labels; rows with unknown labels are counted in the second place.
pub fn evaluate(
    classifier: &TextClassifier,
    rows: &[Row],
    batch_size: usize,
) -> (Judged, Metrics, usize) {
    let examples = examples(rows, &classifier.labels, &classifier.tokenizer, classifier.max_len);
    let skipped = rows.len() - examples.len();
    let pad = classifier.tokenizer.pad_id();
    let judged = judge(&classifier.model, &examples, classifier.labels.len(), pad, batch_size);
    let metrics = judged.metrics();
    (judged, metrics, skipped)
}
