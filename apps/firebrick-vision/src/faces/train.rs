//! From a recipe to a model folder, through the one training loop.

use std::path::Path;

use burn::module::Module;
use firebrick_core::arch::image::ImageClassifier;
use firebrick_data::image::{Picture, sheet::sheet};
use firebrick_metrics::roc::Roc;
use firebrick_train::{
    fit::{End, Fitted, Plan, fit},
    job::{self, Outcome, Places, Scores, Session, Shown, chart, curve, page},
    origin::{Origin, Threshold},
    recipe::TrainRecipe,
    report::{Report, plots},
    sampler::mix,
};
use serde_json::json;

use super::{
    corpus::{self, Corpus},
    embedder::{FaceEmbedder, embed},
    index::cosine,
    judge,
    recipe::{METRICS, Recipe, Split},
    task::Embed,
};
use crate::{
    classification::{layouts::Sample, processor::Processor, task::PictureExamples},
    page::{pictured, spread},
};

/// Pictures of the sheet that shows what the model learns from, and in a row of it.
const SHEET: (usize, usize) = (64, 16);

/// Everything before step 0.
pub struct Prepared {
    pub corpus: Corpus,
    pub processor: Processor,
}

/// A trained model and what was measured of it.
pub struct Trained {
    pub outcome: Outcome,
    pub corpus: Corpus,
    pub threshold: Option<Threshold>,
    /// Pairs of the test pictures, once, when the run finished.
    pub test: Option<Roc>,
    /// Of each test picture whose other one is nearest, and the cosine to it; as [`Self::test`].
    nearest: Vec<(String, f64)>,
    /// What the model learned from: some pictures as a step saw them.
    pub shown: Picture,
}

impl job::Recipe for Recipe {
    const TASK: &'static str = "face-embedding";
    const UNIT: &'static str = "pictures";
    type Prepared = Prepared;
    type Trained = Trained;

    firebrick_train::recipe_fields!(METRICS);

    fn prepare(&self, places: &Places) -> anyhow::Result<Prepared> {
        let corpus = corpus::load(&self.data, self.seed, places)?;
        let colour = self.data.pictures().colour();
        let pictures = corpus.train.iter().map(|sample| &sample.picture);
        let processor = Processor::measured(pictures, self.data.size, colour, self.data.filter);
        Ok(Prepared { corpus, processor })
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
        self.corpus.ledger.json_lines("pictures")
    }
}

fn train(recipe: &Recipe, prepared: Prepared, session: Session) -> anyhow::Result<Option<Trained>> {
    session.needs_whole_model()?;
    let Session { device, run, team, max_time, stop, report } = session;
    let device = device.clone().autodiff();
    device.seed(recipe.seed);
    let Prepared { corpus, processor } = prepared;
    let config = recipe.config();
    let dimensions = recipe.model.dimensions;
    let numbers = [recipe.model.margin, recipe.model.scale];
    let model = config.init(dimensions, &device);
    let model = Embed::new(model, corpus.people.len(), dimensions, numbers, &device).materialize();
    let mut examples = PictureExamples::new(&corpus.train, &corpus.people, &processor);
    examples.augment = recipe.augment;
    let batch_size = recipe.eval.batch_size;
    let vectors = |model: &Embed, samples: &[Sample]| {
        let pictures: Vec<Picture> = samples.iter().map(|s| s.picture.clone()).collect();
        embed(&model.model, &processor, &pictures, batch_size)
    };
    let pairs =
        |model: &Embed, samples: &[Sample]| judge::pairs(&vectors(model, samples), &names(samples));
    // Without pictures that choose, the last weights are kept.
    let last = TrainRecipe { eval_every: usize::MAX, ..recipe.train.clone() };
    let plan = Plan {
        train: if recipe.data.split == Split::People { &recipe.train } else { &last },
        checkpoint: &recipe.checkpoint,
        metric: recipe.eval.metric(METRICS)?,
        seed: recipe.seed,
        max_time,
        stop,
        team,
    };
    let evaluate = |model: &Embed| judge::verification(&pairs(model, &corpus.valid), None);
    let Fitted { best, end, counters } = fit(model, &examples, &plan, run, evaluate, report)?;
    if !team.is_first() {
        return Ok(None);
    }

    let valid = pairs(&best, &corpus.valid);
    let false_alarms = recipe.threshold.false_accept;
    let threshold = valid.threshold_of_false_alarms(false_alarms);
    let threshold = threshold.map(|value| Threshold { value, false_alarms });
    let mut scores = Scores::new();
    if recipe.data.split == Split::People {
        scores.insert("valid".into(), judge::verification(&valid, threshold));
    }
    let (mut test, mut nearest) = (None, vec![]);
    if matches!(end, End::Finished | End::EarlyStop) && !corpus.test.is_empty() {
        let found = vectors(&best, &corpus.test);
        let people = names(&corpus.test);
        let roc = judge::pairs(&found, &people);
        let mut metrics = judge::verification(&roc, threshold);
        match recipe.data.split {
            Split::People => {
                metrics.extend(judge::identification(&found, &people, threshold, recipe.seed));
            }
            Split::Pictures => {
                let enrolled = vectors(&best, &corpus.train);
                let enrolled = entries(&enrolled, &names(&corpus.train));
                let accuracy = judge::accuracy(&enrolled, &entries(&found, &people));
                metrics.extend(accuracy.map(|accuracy| ("accuracy".to_string(), accuracy)));
            }
        }
        scores.insert("test".into(), metrics);
        test = Some(roc);
        nearest = nearest_others(&found, &people);
    }
    let task = <Recipe as job::Recipe>::TASK;
    let origin = Origin { threshold, ..Origin::new(task, &recipe.name, &run.info, scores.clone()) };
    let network = ImageClassifier { config, model: best.model };
    let embedder = FaceEmbedder { network, processor, threshold };
    embedder.save(&run.dir().join("model"), &origin, &about(recipe, &corpus, threshold))?;

    let (count, columns) = SHEET;
    let indices = spread(count, examples.pictures.len());
    let shown = sheet(&examples.augmented(&indices, mix(recipe.seed, 0)), columns, 64);
    let outcome = Outcome { end, counters, scores };
    Ok(Some(Trained { outcome, corpus, threshold, test, nearest, shown }))
}

fn names(samples: &[Sample]) -> Vec<&str> {
    samples.iter().map(|sample| sample.label.as_str()).collect()
}

/// For each vector whose other one is nearest, and the cosine to it.
fn nearest_others(vectors: &[Vec<f32>], names: &[&str]) -> Vec<(String, f64)> {
    let nearest = |(at, vector): (usize, &Vec<f32>)| {
        let others = vectors.iter().zip(names).enumerate().filter(|(other, _)| *other != at);
        let cosines = others.map(|(_, (other, name))| (*name, cosine(vector, other)));
        let nearest = cosines.max_by(|a, b| a.1.total_cmp(&b.1));
        nearest.map_or((String::new(), -1.0), |(name, cosine)| (name.to_string(), cosine))
    };
    vectors.iter().enumerate().map(nearest).collect()
}

/// Vectors with whose they are.
fn entries<'a>(vectors: &'a [Vec<f32>], names: &[&'a str]) -> Vec<(&'a str, &'a [f32])> {
    names.iter().copied().zip(vectors.iter().map(Vec::as_slice)).collect()
}

/// What the card says.
fn about(recipe: &Recipe, corpus: &Corpus, threshold: Option<Threshold>) -> String {
    let [rows, columns] = recipe.data.size;
    let learned = corpus.remarks().join("; ");
    let mut text = format!(
        "A vector of {} numbers for a picture of a face, scaled to {rows} x {columns}: the sum of the picture's and its \
         mirror image's, of length 1. People: {learned}.",
        recipe.model.dimensions
    );
    if let Some(threshold) = threshold {
        text.push_str(&format!(
            " Two pictures are called one person's from a cosine of {:.4} on, which {} % of the validation's pairs of \
             different people reach.",
            threshold.value,
            100.0 * threshold.false_alarms,
        ));
    }
    text + "\n\nLearned from few people of one place and time, in front of one background: measure it on pictures of \
            your own before you rely on it, and enrol nobody without their consent.\n\n"
}

impl job::Trained for Trained {
    fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    fn show(&self, dir: &Path) -> anyhow::Result<Shown> {
        let mut facts = self.outcome.facts();
        if let Some(threshold) = self.threshold {
            facts.push(("threshold".into(), format!("{:.4}", threshold.value)));
        }
        facts.push(("training pictures".into(), self.corpus.train.len().to_string()));
        facts.push(("seconds".into(), format!("{:.0}", self.outcome.counters.seconds)));
        let mut curves = vec![
            chart("Loss", "loss", vec![curve(dir, "training", "loss")?]),
            chart("Validation pairs", "equal error rate", vec![curve(dir, "eer", "valid/eer")?]),
        ];
        if let Some(roc) = &self.test {
            let curve = plots::Curve { name: "test".into(), points: roc.curve() };
            let axes = ("share falsely accepted".to_string(), "share accepted".to_string());
            let title = "Pairs of test pictures".to_string();
            curves.push((title, axes.0, axes.1, vec![curve]));
        }
        let part = if self.test.is_some() { "test" } else { "valid" };
        let score = |name: &str| self.outcome.scores.get(part).and_then(|m| m.get(name)).copied();
        let verdict = match (score("eer"), score("accuracy")) {
            (Some(eer), Some(accuracy)) => format!(
                "Pairs of {part} pictures: equal error rate {:.2} %. Named right: {:.2} %.",
                100.0 * eer,
                100.0 * accuracy
            ),
            (Some(eer), None) => {
                format!("Pairs of {part} pictures: equal error rate {:.2} %.", 100.0 * eer)
            }
            _ => "Nothing was measured yet.".into(),
        };
        let report = Report {
            facts,
            verdict,
            curves,
            pictures: vec![pictured(
                "batch",
                "Training pictures as the first step saw them.",
                &self.shown,
            )],
            data_notes: self.corpus.remarks().into_iter().map(|r| (r, String::new())).collect(),
            next_steps: vec![(
                format!("firebrick vision faces verify A B --model {}", dir.display()),
                "are these one person?".into(),
            )],
            ..page(dir)?
        };
        let mut files = vec![];
        if self.test.is_some() {
            // No vectors: a page is handed on more lightly than an index.
            let line = |(sample, (name, cosine)): (&Sample, &(String, f64))| {
                let (id, truth) = (&sample.id, &sample.label);
                let value = json!({"id": id, "nearest": name, "cosine": cosine, "truth": truth});
                format!("{value}\n")
            };
            let lines = self.corpus.test.iter().zip(&self.nearest).map(line).collect();
            files.push(("eval/test.jsonl", lines));
        }
        Ok(Shown { report, files })
    }
}
