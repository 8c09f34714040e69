//! From a recipe to a model folder, through the one training loop.

use std::path::Path;

use anyhow::bail;
use burn::module::Module;
use firebrick_classic::{hmm, viterbi::Transitions};
use firebrick_train::{
    fit::{Counters, End, Fitted, Plan, fit},
    job::{self, Outcome, Places, Scores, Session, Shown},
    origin::Origin,
    recipe::RecipeError,
};

use super::{
    corpus::{self, Corpus, Sentence},
    features::Features,
    recipe::{DistillRecipe, Family, METRICS, Recipe},
    report,
    tagger::{Judged, Model, TextTagger},
    task::{Tag, TagExamples},
};
use crate::{
    classification::distill::{self, Cut, Lessons, Taught},
    language::mostly_chinese,
};

/// Everything before step 0.
pub struct Prepared {
    pub corpus: Corpus,
    pub features: Features,
    /// What the teacher said, if the recipe has one.
    taught: Option<Taught<Vec<String>>>,
}

/// A trained tagger and what was measured of it.
pub struct Trained {
    pub outcome: Outcome,
    pub corpus: Corpus,
    pub valid: Judged,
    /// On the test part, once, when the run finished.
    pub test: Option<Judged>,
    pub labels: Vec<String>,
}

impl job::Recipe for Recipe {
    const TASK: &'static str = "tagging";
    type Prepared = Prepared;
    type Trained = Trained;

    firebrick_train::recipe_fields!(METRICS);

    fn prepare(&self, places: &Places) -> anyhow::Result<Prepared> {
        let corpus = corpus::load(&self.data, places)?;
        let words = corpus.train.iter().flat_map(|s| &s.tokens).map(String::as_str);
        let features = Features::new(words, self.features.min_frequency);
        let taught = match self.distill.texts_per_row {
            0 => None,
            _ => Some(teach(self, &corpus, places)?),
        };
        Ok(Prepared { corpus, features, taught })
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
            format!("sentences: {}", parts.join(", ")),
            format!("{} tags, {} labels", corpus.tags.len(), corpus.labels.len()),
        ];
        for (count, what) in [
            (corpus.repeated, "repeat an earlier one"),
            (corpus.leaking, "are in another part, too"),
        ] {
            if count > 0 {
                remarks.push(format!("train: dropped {count} sentences that {what}"));
            }
        }
        let words = self.features.sizes().first().copied().unwrap_or(0);
        remarks.push(format!("{words} words have a vector of their own"));
        remarks.extend(self.taught.as_ref().map(Taught::remark));
        remarks
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

/// Asks the teacher for sentences' labels.
fn teach(recipe: &Recipe, corpus: &Corpus, places: &Places) -> anyhow::Result<Taught<Vec<String>>> {
    let DistillRecipe { texts_per_row, teacher } = &recipe.distill;
    let Corpus { train, valid, labels, .. } = corpus;
    if labels.len() < 2 {
        let problem =
            "has nothing to ask for: the training sentences have no labels to choose from";
        bail!(RecipeError::value("distill.texts_per_row", problem));
    }
    let teacher = distill::named(teacher.as_ref(), places)?;
    let (train, valid) = (cut(train, labels), cut(valid, labels));
    let chinese = mostly_chinese(train.iter().flat_map(|(words, _)| words).copied());
    let lessons = Lessons { train, valid, chinese, ..Lessons::default() };
    let taught = Taught::new(lessons, labels, *texts_per_row, recipe.seed, teacher.as_ref())?;
    Ok(taught.map(|words| words.into_iter().map(str::to_string).collect()))
}

/// Sentences of a known label, with its place.
fn cut<'a>(sentences: &'a [Sentence], labels: &[String]) -> Vec<Cut<'a>> {
    let place = |s: &Sentence| labels.binary_search(s.label.as_ref()?).ok();
    let words = |s: &'a Sentence| s.tokens.iter().map(String::as_str).collect();
    sentences.iter().filter_map(|s| Some((words(s), place(s)?))).collect()
}

/// How much the training sentences' neighbouring tags may count beside a network's scores; what is best on the validation
/// sentences is taken, of equals the first.
const NEIGHBOURS: [f64; 4] = [0.0, 0.25, 0.5, 1.0];

/// The first of those with the highest score.
fn chosen(weights: &[f64], score: impl Fn(f64) -> f64) -> f64 {
    let scored = weights.iter().map(|weight| (*weight, score(*weight)));
    let best = scored.reduce(|best, other| if other.1 > best.1 { other } else { best });
    best.map_or(0.0, |(weight, _)| weight)
}

/// Tags beside each other in the sentences.
fn neighbours(sentences: &[Sentence], tags: &[String]) -> Transitions {
    let places =
        |s: &Sentence| s.tags.iter().filter_map(|tag| tags.binary_search(tag).ok()).collect();
    let sequences: Vec<Vec<usize>> = sentences.iter().map(places).collect();
    Transitions::counted(&sequences, tags.len())
}

/// Counts a hidden Markov model; there is nothing to repeat.
fn count(corpus: &Corpus) -> anyhow::Result<TextTagger> {
    let sentence = |s: &Sentence| s.tokens.iter().cloned().zip(s.tags.iter().cloned()).collect();
    let sentences: Vec<Vec<(String, String)>> = corpus.train.iter().map(sentence).collect();
    anyhow::ensure!(corpus.tags.len() > 1, "a hidden Markov model needs tags");
    Ok(TextTagger::hidden(hmm::tagger::Tagger::fit(&sentences, &hmm::tagger::Options::default())?))
}

fn train(recipe: &Recipe, prepared: Prepared, session: Session) -> anyhow::Result<Option<Trained>> {
    let Prepared { corpus, features, taught } = prepared;
    session.needs_whole_model()?;
    let Session { device, run, team, max_time, stop, report } = session;
    let rows = recipe.eval.batch_size;
    let (tagger, about, end, counters) = match recipe.model.family {
        Family::Hmm => {
            let about = "A hidden Markov model of tags and words.".to_string();
            (count(&corpus)?, about, End::Finished, Counters::default())
        }
        Family::Lstm => {
            let device = device.clone().autodiff();
            device.seed(recipe.seed);
            // One class is none to choose from.
            let several = |names: &[String]| if names.len() > 1 { names.to_vec() } else { vec![] };
            let (tags, labels) = (several(&corpus.tags), several(&corpus.labels));
            let smoothing = recipe.train.label_smoothing;
            let config = recipe.tagger(&features, tags.len(), labels.len());
            let model =
                Tag { model: config.init(&device).materialize(), label_smoothing: smoothing };
            let mut examples =
                TagExamples::new(&corpus.train, &features, &tags, &labels, smoothing)
                    .with_word_dropout(recipe.data.word_dropout, &features);
            for (words, label) in taught.map_or_else(Vec::new, |taught| taught.texts) {
                examples.push(&words, label, &features);
            }
            let tagger = |model: &Tag, neighbours: Option<Transitions>| {
                let (config, features) = (config.clone(), features.clone());
                let model = Model::Recurrent { config, model: model.model.clone(), features };
                TextTagger::new(model, tags.clone(), labels.clone(), neighbours)
            };
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
            let evaluate = |model: &Tag| tagger(model, None).judge(&corpus.valid, rows).metrics();
            let Fitted { best, end, counters } =
                fit(model, &examples, &plan, run, evaluate, report)?;
            if !team.is_first() {
                return Ok(None);
            }

            let counted = neighbours(&corpus.train, &tags);
            let weighted = |weight: f64| match weight {
                0.0 => tagger(&best, None),
                _ => {
                    let free = Transitions::free(tags.len());
                    tagger(&best, Some(free.plus(weight, &counted)))
                }
            };
            let weight = chosen(&NEIGHBOURS, |weight| {
                let metrics = weighted(weight).judge(&corpus.valid, rows).metrics();
                metrics.get("span_f1").or(metrics.get("tag_accuracy")).copied().unwrap_or_default()
            });
            let tagger = weighted(weight);
            let beside = match tags.is_empty() {
                true => String::new(),
                false => format!("; neighbouring tags count {weight} times"),
            };
            let about = format!(
                "A bidirectional LSTM over words and their parts: {} tags of words, {} labels of sentences{beside}.",
                tags.len(),
                labels.len()
            );
            (tagger, about, end, counters)
        }
    };
    let labels = tagger.labels.clone();
    let valid = tagger.judge(&corpus.valid, rows);
    let mut scores = Scores::from([("valid".to_string(), valid.metrics())]);
    let test = match (&corpus.test, end) {
        (Some(sentences), End::Finished | End::EarlyStop) => {
            let judged = tagger.judge(sentences, rows);
            scores.insert("test".into(), judged.metrics());
            Some(judged)
        }
        _ => None,
    };
    let task = <Recipe as job::Recipe>::TASK;
    let origin = Origin {
        labels: labels.clone(),
        ..Origin::new(task, &recipe.name, &run.info, scores.clone())
    };
    tagger.save(&run.dir().join("model"), &origin, &about)?;
    let outcome = Outcome { end, counters, scores };
    Ok(Some(Trained { outcome, corpus, valid, test, labels }))
}
