//! From a recipe to a model folder, through the one training loop.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use burn::{module::Module, tensor::Device};
use firebrick_core::{arch::video::VideoClassifier, checkpoint::Source};
use firebrick_data::image::{Picture, resize::Filter, sheet::sheet};
use firebrick_metrics::confusion::argmax;
use firebrick_train::{
    fit::{End, Fitted, Plan, fit},
    job::{self, Outcome, Places, Scores, Session, Shown, chart, curve, page},
    lora,
    origin::Origin,
    recipe::{RecipeError, TrainRecipe},
    report::Report,
    sampler::mix,
};

use super::{
    classifier::ClipClassifier,
    corpus::{self, Clip, Corpus},
    frames::FrameProcessor,
    recipe::{METRICS, Recipe},
    task::{Act, ClipExamples, classes, logits, weights},
};
use crate::{
    classification::{
        processor::Processor,
        report::{answer_line, share},
        task::Judged,
    },
    page::{pictured, spread},
};

/// Clips of the sheet that shows what the model learns from; each is a row.
const SHOWN: usize = 8;

/// Everything before step 0.
pub struct Prepared {
    pub corpus: Corpus,
    pub frames: FrameProcessor,
    pretrained: Option<Source>,
}

/// A trained model and what was measured of it.
pub struct Trained {
    pub outcome: Outcome,
    pub corpus: Corpus,
    /// On the test clips, once, when the run finished; else on the validation clips.
    pub judged: Option<(&'static str, Judged)>,
    /// What the model learned from: some clips as a step saw them.
    pub shown: Picture,
}

impl job::Recipe for Recipe {
    const TASK: &'static str = "video-classification";
    const UNIT: &'static str = "frames";
    type Prepared = Prepared;
    type Trained = Trained;

    firebrick_train::recipe_fields!(METRICS);

    fn prepare(&self, places: &Places) -> anyhow::Result<Prepared> {
        let pretrained = places.checkpoint(self.model.pretrained.as_ref())?;
        let corpus = corpus::load(&self.data, places)?;
        let (size, colour) = (self.data.size, self.data.colour());
        let frame = match &pretrained {
            // Its mean and deviation.
            Some(source) => {
                let own = Processor::open(source, colour.channels())?;
                Processor { size, shortest_edge: None, filter: Filter::Bilinear, ..own }
            }
            None => {
                let frames = corpus.train.iter().flat_map(|clip| &clip.frames);
                Processor::measured(frames, size, colour, Filter::Bilinear)
            }
        };
        let frames = FrameProcessor { frame, rate: self.data.rate };
        Ok(Prepared { corpus, frames, pretrained })
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
        self.corpus.remarks()
    }

    fn ledger(&self) -> String {
        self.corpus.ledger()
    }
}

/// The model that the recipe begins with.
fn begin(recipe: &Recipe, prepared: &Prepared, device: &Device) -> anyhow::Result<VideoClassifier> {
    let labels = &prepared.corpus.labels;
    let Some(source) = &prepared.pretrained else {
        return Ok(VideoClassifier::fresh(recipe.config(), labels.len(), device));
    };
    let network = VideoClassifier::pretrained(source, labels, device)?;
    let fits = network.config.check_size(recipe.data.frames, recipe.data.size);
    fits.map_err(|problem| RecipeError::value("data.size", problem))?;
    if network.config.num_channels() != recipe.data.colour().channels() {
        let problem = "is not as `model.pretrained` takes frames";
        return Err(RecipeError::value("data.grey", problem).into());
    }
    Ok(network)
}

fn train(recipe: &Recipe, prepared: Prepared, session: Session) -> anyhow::Result<Option<Trained>> {
    session.needs_whole_model()?;
    let Session { device, run, team, max_time, stop, report } = session;
    let device = device.clone().autodiff();
    device.seed(recipe.seed);
    let VideoClassifier { config, model } = begin(recipe, &prepared, &device)?;
    let Prepared { corpus, frames, pretrained } = prepared;
    let (targets, head) = (config.lora_targets(), config.head_modules());
    let lora = pretrained.and_then(|base| recipe.model.lora.config(&base, targets, head));
    let model = model.materialize();
    let model = lora::attach(model, lora.as_ref(), |field| config.checkpoint_name(field))?;
    let model = Act { model };
    let labels = corpus.labels.clone();
    let of_train = classes(&corpus.train, &labels).expect("labels are those of these clips");
    let backwards = backwards(&recipe.data.backwards, &labels)?;
    let examples = ClipExamples {
        clips: &corpus.train,
        backwards,
        weights: weights(&of_train, labels.len(), recipe.data.balance),
        classes: of_train,
        processor: &frames.frame,
        augment: recipe.augment,
        shift: recipe.data.shift,
        smoothing: recipe.train.label_smoothing as f32,
    };
    let batch_size = recipe.eval.batch_size;
    // Without clips that choose, the last weights are kept.
    let chooses = !corpus.valid.is_empty();
    let last = TrainRecipe { eval_every: usize::MAX, ..recipe.train.clone() };
    let valid: &[Clip] = if chooses { &corpus.valid } else { &corpus.train };
    let of_valid = classes(valid, &labels)
        .context("a validation clip has a label that no training clip has")?;
    let plan = Plan {
        train: if chooses { &recipe.train } else { &last },
        checkpoint: &recipe.checkpoint,
        metric: recipe.eval.metric(METRICS)?,
        seed: recipe.seed,
        max_time,
        stop,
        team,
    };
    let evaluate = |model: &Act| {
        let logits = logits(&model.model, &frames.frame, valid, batch_size);
        Judged::new(&logits, &of_valid, &labels, None).metrics()
    };
    let Fitted { best, end, counters } = fit(model, &examples, &plan, run, evaluate, report)?;
    if !team.is_first() {
        return Ok(None);
    }

    let shown = shown(recipe, &examples);
    let network = VideoClassifier { config, model: best.model };
    let mut classifier = ClipClassifier { network, frames: frames.clone(), labels: labels.clone() };
    let mut scores = Scores::new();
    let mut judged = None;
    if chooses {
        let valid = classifier.judge(&corpus.valid, batch_size);
        scores.insert("valid".into(), valid.metrics());
        judged = Some(("validation", valid));
    }
    if matches!(end, End::Finished | End::EarlyStop) && !corpus.test.is_empty() {
        let test = classifier.judge(&corpus.test, batch_size);
        scores.insert("test".into(), test.metrics());
        judged = Some(("test", test));
    }
    let task = <Recipe as job::Recipe>::TASK;
    let origin = Origin { labels, ..Origin::new(task, &recipe.name, &run.info, scores.clone()) };
    if let Some(lora) = &lora {
        classifier.save_adapter(lora, &run.dir().join("adapter"), &origin)?;
    }
    let network = &mut classifier.network;
    network.model = network.model.clone().materialize(); // an adapter is merged
    classifier.save(&run.dir().join("model"), &origin, &about(recipe, &corpus))?;
    let outcome = Outcome { end, counters, scores };
    Ok(Some(Trained { outcome, corpus, judged, shown }))
}

impl Trained {
    /// What the model says of every clip, as `predict` writes it, with the truth beside it.
    fn answers(&self, clips: &[Clip], judged: &Judged) -> String {
        let labels = &self.corpus.labels;
        let known = clips.iter().filter(|clip| labels.contains(&clip.label)).zip(&judged.scores);
        let line = |(clip, scores): (&Clip, &Vec<f32>)| {
            answer_line(&clip.id, &labels[argmax(scores)], &clip.label, labels, scores)
        };
        known.map(line).collect()
    }
}

/// `data.backwards` by class.
fn backwards(
    names: &BTreeMap<String, String>,
    labels: &[String],
) -> anyhow::Result<Vec<Option<usize>>> {
    let mut backwards = vec![None; labels.len()];
    for (from, to) in names {
        let class = |name: &String| {
            let class = labels.iter().position(|label| label == name);
            class.ok_or_else(|| {
                let problem = format!("names `{name}`, which no clip has: {}", labels.join(", "));
                RecipeError::value("data.backwards", problem)
            })
        };
        backwards[class(from)?] = Some(class(to)?);
    }
    Ok(backwards)
}

/// Some clips as the first step saw them, each a row.
fn shown(recipe: &Recipe, examples: &ClipExamples) -> Picture {
    let clips = spread(SHOWN, examples.clips.len()).into_iter().enumerate();
    let clip = |(row, clip)| examples.augmented(clip, mix(recipe.seed, row as u64));
    let frames: Vec<Picture> = clips.flat_map(|of| clip(of).0).collect();
    sheet(&frames, recipe.data.frames, 64)
}

/// What the card says.
fn about(recipe: &Recipe, corpus: &Corpus) -> String {
    let [rows, columns] = recipe.data.size;
    format!(
        "What is done in a clip of {} frames, {} a second, scaled to {rows} x {columns}: {}. {}.",
        recipe.data.frames,
        recipe.data.rate,
        corpus.labels.join(", "),
        corpus.remarks().join("; ")
    )
}

impl job::Trained for Trained {
    fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    fn show(&self, dir: &Path) -> anyhow::Result<Shown> {
        let mut facts = self.outcome.facts();
        facts.push(("training clips".into(), self.corpus.train.len().to_string()));
        facts.push(("seconds".into(), format!("{:.0}", self.outcome.counters.seconds)));
        let verdict = match &self.judged {
            Some((part, judged)) => {
                let (right, all) = (judged.confusion.correct(), judged.confusion.total());
                format!("{} of {all} {part} clips.", share(right, all))
            }
            None => "Nothing was measured yet.".into(),
        };
        let report = Report {
            facts,
            verdict,
            curves: vec![
                chart("Loss", "loss", vec![curve(dir, "training", "loss")?]),
                chart(
                    "Validation accuracy",
                    "accuracy",
                    vec![curve(dir, "accuracy", "valid/accuracy")?],
                ),
            ],
            confusion: self.judged.as_ref().map(|(_, judged)| {
                let rows = judged.confusion.rows().map(<[u64]>::to_vec).collect();
                (self.corpus.labels.clone(), rows)
            }),
            pictures: vec![pictured(
                "batch",
                "Training clips as the first step saw them, a row each.",
                &self.shown,
            )],
            data_notes: self.corpus.remarks().into_iter().map(|r| (r, String::new())).collect(),
            next_steps: vec![(
                format!("firebrick vision action VIDEO --model {}", dir.display()),
                "what is done there?".into(),
            )],
            ..page(dir)?
        };
        let files = match &self.judged {
            Some(("test", judged)) => {
                vec![("eval/test.jsonl", self.answers(&self.corpus.test, judged))]
            }
            Some((_, judged)) => {
                vec![("eval/valid.jsonl", self.answers(&self.corpus.valid, judged))]
            }
            None => vec![],
        };
        Ok(Shown { report, files })
    }
}
