//! From a recipe to a model folder, through the one training loop.

use std::path::Path;

use anyhow::bail;
use burn::{module::Module, tensor::Device};
use firebrick_core::{
    arch::{
        image::{ImageClassifier, ImageConfig, ImageModel},
        resnet::{ResNet, ResNetConfig},
    },
    checkpoint::{Source, tensors::SaveType},
};
use firebrick_data::audio::mel::Mel;
use firebrick_train::{
    fit::{End, Fitted, Plan, fit},
    job::{self, Outcome, Places, Scores, Session, Shown},
    origin::Origin,
    recipe::RecipeError,
};

use super::{
    classifier::SoundClassifier,
    corpus::{self, Corpus},
    recipe::{METRICS, Recipe},
    report,
    task::{Classify, Judged, SoundExamples},
};
use crate::features::Preprocessor;

/// Everything before step 0.
pub struct Prepared {
    pub corpus: Corpus,
    pretrained: Option<Source>,
}

/// A trained model and what was measured of it.
pub struct Trained {
    pub outcome: Outcome,
    pub classifier: SoundClassifier,
    pub corpus: Corpus,
    pub valid: Judged,
    /// On the test part, once, when the run finished.
    pub test: Option<Judged>,
}

impl job::Recipe for Recipe {
    const TASK: &'static str = "audio-classification";
    const UNIT: &'static str = "frames";
    type Prepared = Prepared;
    type Trained = Trained;

    firebrick_train::recipe_fields!(METRICS);

    fn prepare(&self, places: &Places) -> anyhow::Result<Prepared> {
        let pretrained = places.checkpoint(self.model.pretrained.as_ref())?;
        let corpus = corpus::load(&self.data, self.features.sample_rate, self.seed, places)?;
        Ok(Prepared { corpus, pretrained })
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
        let mut remarks = vec![
            format!("recordings: {}", parts.join(", ")),
            format!("{} classes: {}", corpus.labels.len(), corpus.labels.join(", ")),
        ];
        if corpus.leaking > 0 {
            let count = corpus.leaking;
            remarks.push(format!("dropped {count} recordings that another part has, too"));
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

/// The model that the recipe begins with: with fresh weights, or those of the checkpoint to go on from.
fn begin(
    recipe: &Recipe,
    prepared: &Prepared,
    device: &Device,
) -> anyhow::Result<(ResNetConfig, ResNet)> {
    let labels = &prepared.corpus.labels;
    let Some(source) = &prepared.pretrained else {
        let config = recipe.network();
        let model = config.init(labels.len(), device).materialize();
        return Ok((config, model));
    };
    let (own, theirs) = (recipe.preprocessor(), Preprocessor::open(source)?);
    if (&own.mel, own.normalize) != (&theirs.mel, theirs.normalize) {
        bail!(RecipeError::value("model.pretrained", "learned with other `[features]`"));
    }
    let found = ImageClassifier::pretrained(source, labels, device)?;
    match (found.config, found.model) {
        (ImageConfig::ResNet(config), ImageModel::ResNet(model)) if config.num_channels == 1 => {
            Ok((config, model.materialize()))
        }
        _ => bail!(RecipeError::value("model.pretrained", "is no ResNet over spectrograms")),
    }
}

fn train(recipe: &Recipe, prepared: Prepared, session: Session) -> anyhow::Result<Option<Trained>> {
    session.needs_whole_model()?;
    let Session { device, run, team, max_time, stop, report } = session;
    let device = device.clone().autodiff();
    device.seed(recipe.seed);
    let (config, model) = begin(recipe, &prepared, &device)?;
    let corpus = prepared.corpus;
    let preprocessor = recipe.preprocessor();
    let mel = Mel::new(&preprocessor.mel);
    let model = Classify { model, label_smoothing: recipe.train.label_smoothing };
    let examples = SoundExamples {
        recordings: &corpus.train,
        labels: &corpus.labels,
        augment: &recipe.augment,
        preprocessor: &preprocessor,
        mel: mel.clone(),
    };
    let classifier = |model: &Classify| SoundClassifier {
        config: config.clone(),
        model: model.model.clone(),
        preprocessor: preprocessor.clone(),
        mel: mel.clone(),
        labels: corpus.labels.clone(),
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
    let evaluate = |model: &Classify| classifier(model).judge(&corpus.valid, rows).0.metrics();
    let Fitted { best, end, counters } = fit(model, &examples, &plan, run, evaluate, report)?;
    if !team.is_first() {
        return Ok(None);
    }

    let classifier = classifier(&best);
    let (valid, _) = classifier.judge(&corpus.valid, rows);
    let mut scores = Scores::from([("valid".to_string(), valid.metrics())]);
    let test = match (&corpus.test, end) {
        (Some(recordings), End::Finished | End::EarlyStop) => {
            let (judged, _) = classifier.judge(recordings, rows);
            scores.insert("test".into(), judged.metrics());
            Some(judged)
        }
        _ => None,
    };
    let task = <Recipe as job::Recipe>::TASK;
    let origin = Origin {
        labels: corpus.labels.clone(),
        ..Origin::new(task, &recipe.name, &run.info, scores.clone())
    };
    classifier.save(&run.dir().join("model"), &origin, SaveType::F32)?;
    let outcome = Outcome { end, counters, scores };
    Ok(Some(Trained { outcome, classifier, corpus, valid, test }))
}
