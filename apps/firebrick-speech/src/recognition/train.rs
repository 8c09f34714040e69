//! From a recipe to a model folder, through the one training loop.

use std::path::Path;

use burn::module::Module;
use firebrick_core::{arch::deep_speech::steps, checkpoint::tensors::SaveType};
use firebrick_data::audio::mel::Mel;
use firebrick_train::{
    fit::{End, Fitted, Plan, fit},
    job::{self, Outcome, Places, Scores, Session, Shown},
    origin::Origin,
};

use super::{
    corpus::{self, Corpus},
    recipe::{METRICS, Recipe},
    recognizer::{Judged, Language, Recognizer},
    report,
    task::{Recognize, SpeechExamples},
};

/// Everything before step 0.
pub struct Prepared {
    pub corpus: Corpus,
    pub language: Language,
    /// Training recordings that have too few frames for their words.
    pub short: usize,
}

/// A trained model and what was measured of it.
pub struct Trained {
    pub outcome: Outcome,
    pub recognizer: Recognizer,
    pub corpus: Corpus,
    pub valid: Judged,
    /// On the test part, once, when the run finished.
    pub test: Option<Judged>,
}

impl job::Recipe for Recipe {
    const TASK: &'static str = "speech-recognition";
    const UNIT: &'static str = "frames";
    type Prepared = Prepared;
    type Trained = Trained;

    firebrick_train::recipe_fields!(METRICS);

    /// Reads the data, counts the language model.
    fn prepare(&self, places: &Places) -> anyhow::Result<Prepared> {
        let mut corpus = corpus::load(&self.data, self.features.sample_rate, self.seed, places)?;
        let language = Language::learn(corpus.lexicon.clone(), &corpus.train, &self.decode)?;
        // A blank must fit between two labels that are the same.
        let mel = self.features.mel();
        let before = corpus.train.len();
        corpus.train.retain(|recording| {
            let labels = corpus.lexicon.say(&recording.label, |_| 0).unwrap_or_default();
            let twice = labels.windows(2).filter(|pair| pair[0] == pair[1]).count();
            steps(mel.frames(recording.samples.len())) >= labels.len() + twice
        });
        let short = before - corpus.train.len();
        Ok(Prepared { corpus, language, short })
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
        let corpus = &self.corpus;
        let mut parts =
            vec![format!("train {}", corpus.train.len()), format!("valid {}", corpus.valid.len())];
        parts.extend(corpus.test.as_ref().map(|test| format!("test {}", test.len())));
        let (labels, words) = (corpus.lexicon.labels.len() - 1, corpus.lexicon.words.len());
        let mut remarks = vec![
            format!("recordings: {}", parts.join(", ")),
            format!("{labels} labels, {words} words in the lexicon"),
        ];
        for (count, what) in [
            (corpus.leaking, "that another part has, too"),
            (self.short, "that are too short for their words"),
        ] {
            if count > 0 {
                remarks.push(format!("train: dropped {count} recordings {what}"));
            }
        }
        if let Some(first) = corpus.unreadable.first() {
            let count = corpus.unreadable.len();
            remarks.push(format!("{count} recordings could not be read; the first: {first}"));
        }
        remarks
    }

    fn ledger(&self) -> String {
        let line = |problem: &String| format!("{}\n", serde_json::json!({"unreadable": problem}));
        self.corpus.unreadable.iter().map(line).collect()
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
    let Prepared { corpus, language, .. } = prepared;
    session.needs_whole_model()?;
    let Session { device, run, team, max_time, stop, report } = session;
    let device = device.clone().autodiff();
    device.seed(recipe.seed);
    let config = recipe.network(corpus.lexicon.labels.len());
    let preprocessor = recipe.preprocessor();
    let mel = Mel::new(&preprocessor.mel);
    let model = Recognize { model: config.init(&device).materialize() };
    let examples = SpeechExamples {
        recordings: &corpus.train,
        lexicon: &corpus.lexicon,
        augment: &recipe.augment,
        preprocessor: &preprocessor,
        mel: mel.clone(),
    };
    let recognizer = |model: &Recognize| Recognizer {
        config: config.clone(),
        model: model.model.clone(),
        preprocessor: preprocessor.clone(),
        mel: mel.clone(),
        language: language.clone(),
    };
    let plan = Plan {
        train: &recipe.train,
        checkpoint: &recipe.checkpoint,
        metric: recipe.eval.metric(METRICS)?,
        seed: recipe.seed,
        max_time,
        stop,
        team,
    };
    let rows = recipe.eval.batch_size;
    let evaluate = |model: &Recognize| recognizer(model).judge(&corpus.valid, rows).metrics();
    let Fitted { best, end, counters } = fit(model, &examples, &plan, run, evaluate, report)?;
    if !team.is_first() {
        return Ok(None);
    }

    let recognizer = recognizer(&best);
    let valid = recognizer.judge(&corpus.valid, rows);
    let mut scores = Scores::from([("valid".to_string(), valid.metrics())]);
    let test = match (&corpus.test, end) {
        (Some(recordings), End::Finished | End::EarlyStop) => {
            let judged = recognizer.judge(recordings, rows);
            scores.insert("test".into(), judged.metrics());
            Some(judged)
        }
        _ => None,
    };
    let task = <Recipe as job::Recipe>::TASK;
    let origin = Origin::new(task, &recipe.name, &run.info, scores.clone());
    recognizer.save(&run.dir().join("model"), &origin, SaveType::F32)?;
    let outcome = Outcome { end, counters, scores };
    Ok(Some(Trained { outcome, recognizer, corpus, valid, test }))
}
