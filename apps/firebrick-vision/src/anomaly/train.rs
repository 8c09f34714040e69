//! From a recipe to a model folder, through the one training loop.

use std::path::Path;

use burn::module::Module;
use firebrick_core::arch::motion::{FirebrickMotion, Motion};
use firebrick_data::image::{Colour, Picture, resize::Filter, sheet::sheet};
use firebrick_metrics::roc::Roc;
use firebrick_train::{
    fit::{End, Fitted, Metrics, Plan, fit},
    job::{self, Outcome, Places, Scores, Session, Shown, chart, curve, page},
    origin::{Origin, Threshold},
    report::{Report, plots},
    sampler::{Coins, mix},
};
use serde_json::json;

use super::{
    corpus::{self, Clip, Corpus},
    detector::{Detector, levels, watch},
    recipe::{METRICS, Recipe},
    synthetic::{Stack, made},
    task::{ClipExamples, Levels, Watch, maps},
};
use crate::{
    classification::processor::Processor,
    heatmap::HeatMap,
    page::{pictured, spread},
    video::frames::FrameProcessor,
};

/// Of the validation's frames, every so many are looked at while training.
const EVERY: usize = 2;

/// Frames of the sheet that shows what the model learns from, and in a row of it.
const SHEET: (usize, usize) = (24, 6);

/// A trained model and what was measured of it.
pub struct Trained {
    pub outcome: Outcome,
    pub corpus: Corpus,
    pub threshold: Option<Threshold>,
    /// Of the test clips, once, when the run finished: each clip's scores.
    pub test: Option<Vec<Vec<f64>>>,
    /// What the model learned from, with what is wrong there.
    pub shown: Picture,
}

impl job::Recipe for Recipe {
    const TASK: &'static str = "anomaly-detection";
    const UNIT: &'static str = "pictures";
    type Prepared = Corpus;
    type Trained = Trained;

    firebrick_train::recipe_fields!(METRICS);

    fn prepare(&self, places: &Places) -> anyhow::Result<Corpus> {
        corpus::load(&self.data, places)
    }

    fn train(&self, prepared: Corpus, session: Session) -> anyhow::Result<Option<Trained>> {
        train(self, prepared, session)
    }
}

impl job::Prepared for Corpus {
    fn data_sha256(&self) -> &str {
        &self.sha256
    }

    fn remarks(&self) -> Vec<String> {
        self.remarks()
    }

    fn ledger(&self) -> String {
        self.ledger.json_lines("test")
    }
}

/// Validation frames as they are and with an anomaly made in them, the same at every evaluation.
struct Trial {
    normal: Vec<Stack>,
    wrong: Vec<Stack>,
}

impl Trial {
    fn new(recipe: &Recipe, clips: &[Clip]) -> Self {
        let (mut normal, mut wrong) = (vec![], vec![]);
        for (clip, of) in clips.iter().enumerate() {
            for at in (0..of.frames.len()).step_by(EVERY) {
                let stack = |is_wrong: bool| {
                    let seed = mix(recipe.seed ^ 0x7a11, (clip << 32 | at << 1) as u64);
                    let mut coins = Coins::new(seed ^ u64::from(is_wrong));
                    let count = recipe.model.num_frames;
                    made(clips, (clip, at), count, &recipe.anomaly, is_wrong, &mut coins)
                };
                normal.push(stack(false));
                wrong.push(stack(true));
            }
        }
        // Nothing moved where it was to be made.
        wrong.retain(|stack| stack.wrong.contains(&true));
        Self { normal, wrong }
    }

    fn judge(&self, model: &Motion, levels: Levels, batch_size: usize) -> Metrics {
        let mut roc = Roc::default();
        for (stacks, wrong) in [(&self.normal, false), (&self.wrong, true)] {
            for map in maps(model, levels, stacks, batch_size) {
                roc.add(map.score(), wrong);
            }
        }
        Metrics::from([("synthetic_auc".to_string(), roc.auc().unwrap_or(0.5))])
    }
}

/// Scores of clips whose frames are known to be anomalous or not.
pub fn scores(clips: &[Clip], found: &[Vec<f64>]) -> Roc {
    let mut roc = Roc::default();
    for (clip, scores) in clips.iter().zip(found) {
        for (score, anomalous) in scores.iter().zip(&clip.anomalous) {
            roc.add(*score, *anomalous);
        }
    }
    roc
}

/// A line for each frame: its clip and number, its score, and the truth.
fn answers(clips: &[Clip], found: &[Vec<f64>]) -> String {
    let of_clip = |(clip, scores): (&Clip, &Vec<f64>)| -> String {
        let frames = scores.iter().zip(&clip.anomalous).enumerate();
        let line = |(at, (score, anomalous)): (usize, (&f64, &bool))| {
            let id = format!("{}/{at}", clip.name);
            format!("{}\n", json!({"id": id, "score": score, "truth": anomalous}))
        };
        frames.map(line).collect()
    };
    clips.iter().zip(found).map(of_clip).collect()
}

/// `auc` and `eer` of frames, and at the threshold the shares of anomalous frames that are found and of normal ones that
/// are called anomalous.
pub fn metrics(roc: &Roc, threshold: Option<Threshold>) -> Metrics {
    let counts = threshold.map(|threshold| roc.at(threshold.value));
    let scores = [
        ("auc", roc.auc()),
        ("eer", roc.eer()),
        ("found", counts.and_then(|c| c.sensitivity())),
        ("false_alarms", counts.and_then(|c| Some(1.0 - c.specificity()?))),
    ];
    scores.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))).collect()
}

fn train(recipe: &Recipe, corpus: Corpus, session: Session) -> anyhow::Result<Option<Trained>> {
    session.needs_whole_model()?;
    let Session { device, run, team, max_time, stop, report } = session;
    let device = device.clone().autodiff();
    device.seed(recipe.seed);
    let frames = processor(recipe, &corpus);
    let levels = levels(&frames);
    let config = recipe.config();
    let model = Watch { model: config.init(&device).materialize() };
    let count = config.num_frames;
    let examples = ClipExamples::new(&corpus.train, count, &recipe.anomaly, levels);
    let batch_size = recipe.eval.batch_size;
    let plan = Plan {
        train: &recipe.train,
        checkpoint: &recipe.checkpoint,
        metric: recipe.eval.metric(METRICS)?,
        seed: recipe.seed,
        max_time,
        stop,
        team,
    };
    let trial = Trial::new(recipe, &corpus.valid);
    let evaluate = |model: &Watch| trial.judge(&model.model, levels, batch_size);
    let Fitted { best, end, counters } = fit(model, &examples, &plan, run, evaluate, report)?;
    if !team.is_first() {
        return Ok(None);
    }

    let model = best.model;
    let watched = |clips: &[Clip]| -> Vec<Vec<f64>> {
        let of_clip = |clip| watch(&model, levels, count, clip, batch_size);
        let scores = |clip| of_clip(clip).iter().map(|seen| seen.score).collect();
        clips.iter().map(scores).collect()
    };
    let normal = Roc { positives: vec![], negatives: watched(&corpus.valid).concat() };
    let false_alarms = recipe.threshold.false_alarms;
    let threshold = normal.threshold_of_false_alarms(false_alarms);
    let threshold = threshold.map(|value| Threshold { value, false_alarms });
    let mut all = Scores::from([("valid".into(), trial.judge(&model, levels, batch_size))]);
    let mut test = None;
    if matches!(end, End::Finished | End::EarlyStop) && !corpus.test.is_empty() {
        let found = watched(&corpus.test);
        all.insert("test".into(), metrics(&scores(&corpus.test, &found), threshold));
        test = Some(found);
    }
    let shown = shown(recipe, &examples);
    let task = <Recipe as job::Recipe>::TASK;
    let origin = Origin { threshold, ..Origin::new(task, &recipe.name, &run.info, all.clone()) };
    let network = FirebrickMotion { config, model };
    let detector = Detector { network, frames, threshold };
    detector.save(&run.dir().join("model"), &origin, &about(&corpus, threshold))?;
    let outcome = Outcome { end, counters, scores: all };
    Ok(Some(Trained { outcome, corpus, threshold, test, shown }))
}

fn processor(recipe: &Recipe, corpus: &Corpus) -> FrameProcessor {
    let frames = corpus.train.iter().flat_map(|clip| &clip.frames);
    let frame = Processor::measured(frames, recipe.data.size, Colour::Grey, Filter::Bilinear);
    FrameProcessor { frame, rate: recipe.data.rate }
}

/// Some frames as the first step saw them, with what is wrong there.
fn shown(recipe: &Recipe, examples: &ClipExamples) -> Picture {
    let (count, columns) = SHEET;
    let indices = spread(count, examples.places.len());
    let picture = |stack: &Stack| {
        let [height, width] = stack.size;
        let middle = &stack.frames[stack.frames.len() / 2];
        let pixels = middle.iter().map(|level| (level + 0.5) as u8).collect(); // a cast saturates
        let frame = Picture { width, height, colour: Colour::Grey, pixels };
        let [rows, columns] = super::synthetic::places(stack.size);
        let values = stack.wrong.iter().map(|wrong| f32::from(u8::from(*wrong))).collect();
        HeatMap { rows, columns, values }.over(&frame)
    };
    let stacks = examples.stacks(&indices, mix(recipe.seed, 0));
    sheet(&stacks.iter().map(picture).collect::<Vec<_>>(), columns, 160)
}

/// What the card says.
fn about(corpus: &Corpus, threshold: Option<Threshold>) -> String {
    let mut text = format!(
        "How likely something on a frame moves unusually, for the frames of one camera that does not move. It has seen \
         recordings of what is normal, and anomalies that were made of them: parts that go on too fast or are too large. {}.",
        corpus.remarks().join("; ")
    );
    if let Some(threshold) = threshold {
        text.push_str(&format!(
            " A frame is called anomalous from a score of {:.4} on, which {} % of the validation's normal frames reach. \
             The score of a frame is the mean over it and the three before and after.",
            threshold.value,
            100.0 * threshold.false_alarms,
        ));
    }
    text + "\n\nFor another camera, train it on recordings of that camera.\n\n"
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
        facts.push(("seconds".into(), format!("{:.0}", self.outcome.counters.seconds)));
        let mut curves = vec![
            chart("Loss", "loss", vec![curve(dir, "training", "loss")?]),
            chart(
                "Validation frames with and without a made anomaly",
                "area under the curve",
                vec![curve(dir, "synthetic_auc", "valid/synthetic_auc")?],
            ),
        ];
        let mut verdict = "The test clips were not watched yet.".to_string();
        let mut files = vec![];
        if let Some(found) = &self.test {
            files.push(("eval/test.jsonl", answers(&self.corpus.test, found)));
            let roc = scores(&self.corpus.test, found);
            let points = plots::Curve { name: "test".into(), points: roc.curve() };
            let axes = ("share of false alarms".to_string(), "share found".to_string());
            curves.push(("Frames of the test clips".into(), axes.0, axes.1, vec![points]));
            if let (Some(auc), Some((low, high))) = (roc.auc(), roc.auc_interval()) {
                verdict = format!(
                    "Area under the curve of the test clips' frames: {auc:.4} (95 % between {low:.4} and {high:.4}, if \
                     frames were independent, which neighbours are not)."
                );
            }
        }
        let report = Report {
            facts,
            verdict,
            curves,
            pictures: vec![pictured(
                "batch",
                "Training frames as the first step saw them; what is wrong is red.",
                &self.shown,
            )],
            data_notes: self.corpus.remarks().into_iter().map(|r| (r, String::new())).collect(),
            next_steps: vec![(
                format!("firebrick vision anomaly VIDEO --model {}", dir.display()),
                "watch a video".into(),
            )],
            ..page(dir)?
        };
        Ok(Shown { report, files })
    }
}
