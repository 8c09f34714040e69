//! From a recipe to a model folder, through the one training loop.

use std::path::Path;

use firebrick_core::arch::detector::FirebrickDetector;
use firebrick_data::image::{Colour, Picture};
use firebrick_train::{
    fit::{End, Fitted, Metrics, Plan, fit},
    job::{self, Outcome, Places, Scores, Session, Shown},
    origin::Origin,
    sampler::mix,
};

use super::{
    corpus::{self, Corpus},
    detector::{ObjectDetector, judge},
    draw::{Mark, colour, draw},
    recipe::{METRICS, Recipe},
    report,
    score::Judged,
    task::{Detect, SceneExamples},
};
use crate::{classification::processor::Processor, page::spread};

/// Pictures that show what the model learns from.
const SHOWN: usize = 6;

/// Everything before step 0.
pub struct Prepared {
    pub corpus: Corpus,
    pub processor: Processor,
}

/// A trained model and what was measured of it.
pub struct Trained {
    pub outcome: Outcome,
    pub corpus: Corpus,
    pub detector: ObjectDetector,
    pub valid: Judged,
    /// On the test part, once, when the run finished.
    pub test: Option<Judged>,
    /// What the model learned from: some pictures as a step saw them, with their boxes.
    pub shown: Vec<Picture>,
}

impl job::Recipe for Recipe {
    const TASK: &'static str = "object-detection";
    const UNIT: &'static str = "pictures";
    type Prepared = Prepared;
    type Trained = Trained;

    firebrick_train::recipe_fields!(METRICS);

    fn prepare(&self, places: &Places) -> anyhow::Result<Prepared> {
        let corpus = corpus::load(&self.data, self.seed, places)?;
        corpus::check_labels(&corpus, &self.data)?;
        let pictures = corpus.train.iter().map(|scene| &scene.picture);
        let processor =
            Processor::measured(pictures, self.data.size, Colour::Rgb, self.data.filter);
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
        self.corpus.ledger()
    }
}

impl job::Trained for Trained {
    fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    fn show(&self, dir: &Path) -> anyhow::Result<Shown> {
        report::show(dir, self)
    }
}

fn train(recipe: &Recipe, prepared: Prepared, session: Session) -> anyhow::Result<Option<Trained>> {
    session.needs_whole_model()?;
    let Session { device, run, team, max_time, stop, report } = session;
    let device = device.clone().autodiff();
    device.seed(recipe.seed);
    let Prepared { corpus, processor } = prepared;
    let labels = corpus.labels.clone();
    let config = recipe.config(labels.len());
    let model = Detect { model: config.init(&device) };
    let places = config.places(processor.size);
    let examples =
        SceneExamples::new(&corpus.train, &labels, places.clone(), &processor, recipe.augment);
    let batch_size = recipe.eval.batch_size;
    let metric = recipe.eval.metric(METRICS)?;
    let plan = Plan {
        train: &recipe.train,
        checkpoint: &recipe.checkpoint,
        metric,
        seed: recipe.seed,
        max_time,
        stop,
        team,
    };
    let mut failure = None;
    let evaluate = |model: &Detect| {
        let judged = judge(&model.model, &places, &processor, &labels, &corpus.valid, batch_size);
        match judged {
            Ok(judged) => judged.metrics(),
            Err(error) => {
                failure = Some(error);
                Metrics::new()
            }
        }
    };
    let fitted = fit(model, &examples, &plan, run, evaluate, report);
    if let Some(failure) = failure {
        return Err(failure);
    }
    let Fitted { best, end, counters } = fitted?;
    if !team.is_first() {
        return Ok(None);
    }

    let mut detector = ObjectDetector {
        detector: FirebrickDetector { config, model: best.model },
        processor,
        labels: labels.clone(),
        threshold: 0.0,
    };
    let valid = detector.judge(&corpus.valid, batch_size)?;
    detector.threshold = valid.threshold;
    let test = match (&corpus.test, end) {
        (Some(scenes), End::Finished | End::EarlyStop) => Some(detector.judge(scenes, batch_size)?),
        _ => None,
    };
    let mut scores = Scores::from([("valid".to_string(), valid.metrics())]);
    scores.extend(test.as_ref().map(|test| ("test".to_string(), test.metrics())));
    let task = <Recipe as job::Recipe>::TASK;
    let origin = Origin {
        labels,
        box_threshold: Some(detector.threshold),
        ..Origin::new(task, &recipe.name, &run.info, scores.clone())
    };
    detector.save(&run.dir().join("model"), &origin, &about(recipe, &detector))?;
    let shown = shown(&examples, recipe.seed);
    let outcome = Outcome { end, counters, scores };
    Ok(Some(Trained { outcome, corpus, detector, valid, test, shown }))
}

/// Training pictures as the first step could see them.
fn shown(examples: &SceneExamples, seed: u64) -> Vec<Picture> {
    let indices = spread(SHOWN, examples.pictures.len());
    let pictures = examples.augmented(&indices, mix(seed, 0)).into_iter();
    let marked = pictures.map(|(picture, objects)| {
        let mark = |(label, rect)| Mark { rect, text: String::new(), colour: colour(label) };
        draw(&picture, &objects.into_iter().map(mark).collect::<Vec<_>>())
    });
    marked.collect()
}

/// What the card says.
fn about(recipe: &Recipe, detector: &ObjectDetector) -> String {
    let [rows, columns] = detector.processor.size;
    let mut text = format!(
        "A detector of {} on pictures that are fitted into {rows} x {columns} pixels. Boxes are shown from the score \
         {:.2} on, which has the best F1 on the validation part.",
        detector.labels.join(", "),
        detector.threshold
    );
    if recipe.data.dataset.as_deref() == Some("bccd") {
        text.push_str(
            "\n\n**This is no medical device.** It was trained on a small public data set of one origin, was checked by \
             no clinician, and must not be used to diagnose or treat anyone.\n\n",
        );
    }
    text
}
