//! From a recipe to a model folder, through the one training loop.

use std::path::Path;

use burn::{module::Module, tensor::Device};
use firebrick_core::{arch::image::ImageClassifier, checkpoint::Source};
use firebrick_data::image::{Picture, sheet::sheet};
use firebrick_metrics::calibration::temperature;
use firebrick_train::{
    fit::{End, Fitted, Plan, fit},
    job::{self, Outcome, Places, Scores, Session, Shown},
    lora,
    origin::Origin,
    recipe::RecipeError,
    sampler::mix,
};

use super::{
    classifier::PictureClassifier,
    corpus::{self, Corpus},
    decision,
    processor::Processor,
    recipe::{METRICS, Recipe},
    report,
    task::{Classify, Judged, PictureExamples, logits},
};
use crate::page::spread;

/// Pictures of the sheet that shows what the model learns from, and in a row of it.
const SHEET: (usize, usize) = (64, 16);

/// Everything before step 0.
pub struct Prepared {
    pub corpus: Corpus,
    pub processor: Processor,
    pretrained: Option<Source>,
}

/// A trained model and what was measured of it.
pub struct Trained {
    pub outcome: Outcome,
    pub corpus: Corpus,
    pub classifier: PictureClassifier,
    pub valid: Judged,
    /// On the test part, once, when the run finished.
    pub test: Option<Judged>,
    /// What the model learned from: some pictures as a step saw them.
    pub shown: Picture,
    /// What logits were divided by, where probabilities were calibrated.
    pub temperature: Option<f64>,
}

impl job::Recipe for Recipe {
    const TASK: &'static str = "image-classification";
    const UNIT: &'static str = "pictures";
    type Prepared = Prepared;
    type Trained = Trained;

    firebrick_train::recipe_fields!(METRICS);

    fn prepare(&self, places: &Places) -> anyhow::Result<Prepared> {
        let pretrained = places.checkpoint(self.model.pretrained.as_ref())?;
        let corpus = corpus::load(&self.data, self.seed, places)?;
        if let Some(positive) = &self.decision.positive
            && !(corpus.labels.len() == 2 && corpus.labels.contains(positive))
        {
            let problem =
                format!("is {positive:?}, none of two labels: {}", corpus.labels.join(", "));
            return Err(RecipeError::value("decision.positive", problem).into());
        }
        if self.eval.metric(METRICS)? == "auc" && corpus.labels.len() != 2 {
            let problem =
                format!("is auc, which is for two labels; there are {}", corpus.labels.len());
            return Err(RecipeError::value("eval.metric", problem).into());
        }
        let processor = self.processor(&corpus, pretrained.as_ref())?;
        Ok(Prepared { corpus, processor, pretrained })
    }

    fn train(&self, prepared: Prepared, session: Session) -> anyhow::Result<Option<Trained>> {
        train(self, prepared, session)
    }
}

impl Recipe {
    /// Training pictures as the first step sees them.
    pub fn sheet(&self, prepared: &Prepared) -> Picture {
        self.shown(&self.examples(&prepared.corpus, &prepared.processor))
    }

    fn shown(&self, examples: &PictureExamples) -> Picture {
        let (count, columns) = SHEET;
        let indices = spread(count, examples.pictures.len());
        sheet(&examples.augmented(&indices, mix(self.seed, 0)), columns, 64)
    }

    fn examples(&self, corpus: &Corpus, processor: &Processor) -> PictureExamples {
        PictureExamples {
            augment: self.augment,
            smoothing: self.train.label_smoothing as f32,
            ..PictureExamples::new(&corpus.train, &corpus.labels, processor)
        }
    }

    /// Mean and deviation are the recipe's, else those of the checkpoint to go on from, else measured.
    fn processor(&self, corpus: &Corpus, pretrained: Option<&Source>) -> anyhow::Result<Processor> {
        let (size, colour, filter) = (self.data.size, self.data.colour(), self.data.filter);
        let floats = |numbers: Vec<f64>| numbers.into_iter().map(|x| x as f32).collect::<Vec<_>>();
        let Processor { mean, std, .. } = match pretrained {
            Some(source) => Processor::open(source, colour.channels())?,
            None => {
                let pictures = corpus.train.iter().map(|sample| &sample.picture);
                Processor::measured(pictures, size, colour, filter)
            }
        };
        Ok(Processor {
            size,
            shortest_edge: None,
            colour,
            filter,
            mean: self.data.mean.clone().map_or(mean, floats),
            std: self.data.std.clone().map_or(std, floats),
        })
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

/// The model that the recipe begins with.
fn begin(recipe: &Recipe, prepared: &Prepared, device: &Device) -> anyhow::Result<ImageClassifier> {
    let labels = &prepared.corpus.labels;
    let Some(source) = &prepared.pretrained else {
        let config = recipe.config();
        let model = config.init(labels.len(), device).materialize();
        return Ok(ImageClassifier { config, model });
    };
    let ImageClassifier { config, model } = ImageClassifier::pretrained(source, labels, device)?;
    let channels = recipe.data.colour().channels();
    let fits = config.check_size(recipe.data.size);
    let fits = fits.map_err(|problem| RecipeError::value("data.size", problem));
    fits.and_then(|()| match config.num_channels() == channels {
        true => Ok(()),
        false => {
            Err(RecipeError::value("data.grey", "is not as `model.pretrained` takes pictures"))
        }
    })?;
    Ok(ImageClassifier { config, model: model.materialize() })
}

fn train(recipe: &Recipe, prepared: Prepared, session: Session) -> anyhow::Result<Option<Trained>> {
    session.needs_whole_model()?;
    let Session { device, run, team, max_time, stop, report } = session;
    let device = device.clone().autodiff();
    device.seed(recipe.seed);
    let ImageClassifier { config, model } = begin(recipe, &prepared, &device)?;
    let Prepared { corpus, processor, pretrained } = prepared;
    let (targets, head) = (config.lora_targets(), config.head_modules());
    let lora = pretrained.and_then(|base| recipe.model.lora.config(&base, targets, head));
    let model = lora::attach(model, lora.as_ref(), |field| config.checkpoint_name(field))?;
    let labels = corpus.labels.clone();
    let examples = recipe.examples(&corpus, &processor);
    let valid = PictureExamples::new(&corpus.valid, &labels, &processor);
    let batch_size = recipe.eval.batch_size;
    let said = |model: &Classify| logits(&model.model, &processor, &valid.pictures, batch_size);
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
    let evaluate =
        |model: &Classify| Judged::new(&said(model), &valid.classes, &labels, None).metrics();
    let Fitted { best, end, counters } =
        fit(Classify { model }, &examples, &plan, run, evaluate, report)?;
    if !team.is_first() {
        return Ok(None);
    }

    let looks_for = recipe.decision.positive.is_some();
    let temperature = looks_for.then(|| {
        let p: Vec<Vec<f32>> =
            said(&best).iter().map(|logits| super::task::softmax(logits)).collect();
        temperature(p.iter().map(Vec::as_slice).zip(valid.classes.iter().copied()))
    });
    let model = match temperature {
        Some(temperature) => best.model.tempered(temperature),
        None => best.model,
    };
    let mut classifier = PictureClassifier {
        classifier: ImageClassifier { config, model },
        processor: processor.clone(),
        labels: labels.clone(),
        decision: None,
    };
    if let Some(positive) = &recipe.decision.positive {
        let said = logits(&classifier.classifier.model, &processor, &valid.pictures, batch_size);
        let place = labels.iter().position(|label| label == positive);
        let mut roc = firebrick_metrics::roc::Roc::default();
        for (logits, class) in said.iter().zip(&valid.classes) {
            let p = super::task::softmax(logits)[place.unwrap_or(1)];
            roc.add(f64::from(p), Some(*class) == place);
        }
        classifier.decision = decision::choose(&recipe.decision, &roc);
    }
    let valid = classifier.judge(&corpus.valid, batch_size);
    let test = match (&corpus.test, end) {
        (Some(samples), End::Finished | End::EarlyStop) => {
            Some(classifier.judge(samples, batch_size))
        }
        _ => None,
    };
    let mut scores = Scores::from([("valid".to_string(), valid.metrics())]);
    scores.extend(test.as_ref().map(|test| ("test".to_string(), test.metrics())));
    let task = <Recipe as job::Recipe>::TASK;
    let origin = Origin {
        labels,
        decision: classifier.decision.clone(),
        ..Origin::new(task, &recipe.name, &run.info, scores.clone())
    };
    if let Some(lora) = &lora {
        classifier.save_adapter(lora, &run.dir().join("adapter"), &origin)?;
    }
    let network = &mut classifier.classifier;
    network.model = network.model.clone().materialize(); // an adapter is merged
    classifier.save(&run.dir().join("model"), &origin, &about(recipe, &classifier))?;

    let shown = recipe.shown(&examples);
    let outcome = Outcome { end, counters, scores };
    Ok(Some(Trained { outcome, corpus, classifier, valid, test, shown, temperature }))
}

/// What the card says.
fn about(recipe: &Recipe, classifier: &PictureClassifier) -> String {
    let [rows, columns] = classifier.processor.size;
    let mut text = format!(
        "An image classifier of {} labels for pictures scaled to {rows} x {columns}.",
        classifier.labels.len()
    );
    if let Some(decision) = &classifier.decision {
        text.push_str(&format!(
            " It looks for `{}`: probabilities are calibrated, and the threshold {:.4} is the highest that finds {} % \
             of such pictures in the validation part; between {:.4} and {:.4} it abstains.",
            decision.positive,
            decision.threshold,
            100.0 * decision.sensitivity,
            decision.abstain[0],
            decision.abstain[1],
        ));
    }
    if matches!(recipe.data.dataset.as_deref(), Some("pneumoniamnist" | "brain-mri")) {
        text.push_str(
            "\n\n**This is no medical device.** It was trained on a small public data set of one origin, was checked by \
             no clinician, and must not be used to diagnose or treat anyone.\n\n",
        );
    }
    text
}
