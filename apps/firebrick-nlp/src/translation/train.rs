//! From a recipe to a model folder, through the one training loop.

use std::path::Path;

use anyhow::bail;
use burn::module::Module;
use firebrick_core::{
    arch::bart::BartForConditionalGeneration,
    checkpoint::{Source, lora::LoraConfig},
};
use firebrick_data::error::DataError;
use firebrick_train::{
    fit::{End, Fitted, Metrics, Plan, fit},
    job::{self, Outcome, Places, Scores, Session, Shown},
    lora,
    origin::{Copies, Origin},
};

use super::{
    corpus::{self, Changed, Corpus, Pair},
    formats, lexicon,
    recipe::{METRICS, Recipe},
    report,
    task::{PairExamples, Translate, loss},
    translator::{Judged, Translator},
};
use crate::tokenizer::TextTokenizer;

/// Everything before step 0.
pub struct Prepared {
    pub corpus: Corpus,
    pub tokenizer: TextTokenizer,
    /// Training pairs whose tokens are too many.
    pub too_long: usize,
    /// Training pairs that are read once more with placeholders.
    pub masked: usize,
    pretrained: Option<Source>,
    examples: PairExamples,
}

/// A trained translator and what was measured of it.
pub struct Trained {
    pub outcome: Outcome,
    pub corpus: Corpus,
    /// By the search that the recipe asks for.
    pub valid: Judged,
    /// On the test part, once, when the run finished.
    pub test: Option<Judged>,
}

impl job::Recipe for Recipe {
    const TASK: &'static str = "translation";
    type Prepared = Prepared;
    type Trained = Trained;

    firebrick_train::recipe_fields!(METRICS);

    fn prepare(&self, places: &Places) -> anyhow::Result<Prepared> {
        let corpus = corpus::load(&self.data, self.seed, places)?;
        let texts = corpus.train.iter().flat_map(|pair| [pair.source.as_str(), &pair.target]);
        let pretrained = places.checkpoint(self.model.pretrained.as_ref())?;
        let tokenizer = self.tokenizer.make(texts, pretrained.as_ref())?;
        let masked = match self.data.copies {
            0.0 => vec![],
            share => lexicon::with_placeholders(&corpus.train, share, self.seed),
        };
        if self.data.copies > 0.0 && masked.is_empty() {
            let problem = "data.copies: no words of the training pairs are surely partners, so that none can be replaced by \
                           placeholders: give more pairs, or leave it out";
            bail!(DataError::TooLittle(problem.into()));
        }
        let all = [corpus.train.as_slice(), &masked].concat();
        let (examples, too_long) = PairExamples::new(&all, &tokenizer, self.tokenizer.max_len);
        Ok(Prepared { corpus, tokenizer, too_long, masked: masked.len(), pretrained, examples })
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
        parts.extend(corpus.test.as_ref().map(|pairs| format!("test {}", pairs.len())));
        let mut remarks = vec![format!("pairs: {}", parts.join(", "))];
        for (part, count) in report::dropped(corpus) {
            remarks.push(format!("{part}: {count} (data.ledger.jsonl says why)"));
        }
        for Changed { part, rows, detail } in &corpus.changed {
            remarks.push(format!("{part}: {detail} in {rows} rows"));
        }
        if self.too_long > 0 {
            remarks.push(format!("train: {} pairs have too many tokens", self.too_long));
        }
        if self.masked > 0 {
            remarks.push(format!("train: {} pairs once more, with placeholders", self.masked));
        }
        remarks.push(format!("vocabulary: {} tokens", self.tokenizer.vocab_size()));
        remarks
    }

    fn ledger(&self) -> String {
        let corpus = &self.corpus;
        let dropped = corpus.ledgers.iter().map(|(part, ledger)| ledger.json_lines(part));
        dropped.chain(corpus.changed.iter().map(Changed::json_line)).collect()
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
    let Prepared { corpus, tokenizer, pretrained, examples, .. } = prepared;
    session.needs_whole_model()?;
    let Session { device, run, team, max_time, stop, report } = session;
    let autodiff = device.clone().autodiff();
    autodiff.seed(recipe.seed);
    let (config, model) = match &pretrained {
        None => {
            let config = recipe.marian(tokenizer.vocab_size())?;
            let model = config.init(&autodiff).materialize();
            (config, model)
        }
        Some(source) => {
            recipe.check_tokens(&tokenizer, source)?;
            let BartForConditionalGeneration { config, model } =
                BartForConditionalGeneration::load(source, &autodiff)?;
            (config, model)
        }
    };
    let lora = pretrained.as_ref().and_then(|source| adapter(recipe, source));
    let checkpoint_name = |field: &str| config.checkpoint_name(field);
    let model = lora::attach(model, lora.as_ref(), checkpoint_name)?;
    let model = Translate { model, label_smoothing: recipe.train.label_smoothing };
    let copies = (recipe.data.copies > 0.0).then(|| Copies { names: recipe.data.source != "de" });
    let metric = recipe.eval.metric(METRICS)?;
    let (valid, _) = PairExamples::new(&corpus.valid, &tokenizer, recipe.tokenizer.max_len);
    let translator = |model: &Translate| {
        // An adapter is merged.
        let (model, tokenizer) = (model.model.clone().materialize(), tokenizer.clone());
        Translator::new(&config, model, tokenizer, recipe.generation(), copies, device)
    };
    let translate = |translator: &Translator, pairs: &[Pair], beams: usize| {
        let sources: Vec<&str> = pairs.iter().map(|pair| pair.source.as_str()).collect();
        let mut search = translator.config().clone();
        search.num_beams = beams;
        // Beams are rows of a batch, too.
        let rows = (recipe.eval.batch_size / beams).max(1);
        Ok::<_, anyhow::Error>(Judged::new(translator.sentences(&sources, &search, rows)?, pairs))
    };
    let mut broken = None;
    let evaluate = |model: &Translate| {
        let mut metrics =
            Metrics::from([("loss".to_string(), loss(model, &valid, recipe.eval.batch_size))]);
        if metric != "loss" {
            match translate(&translator(model), &corpus.valid, 1) {
                Ok(judged) => metrics.extend(judged.metrics()),
                Err(error) => broken = Some(error),
            }
        }
        metrics
    };
    let plan = Plan {
        train: &recipe.train,
        checkpoint: &recipe.checkpoint,
        metric,
        seed: recipe.seed,
        max_time,
        stop,
        team,
    };
    let fitted = fit(model, &examples, &plan, run, evaluate, report);
    if let Some(error) = broken {
        return Err(error);
    }
    let Fitted { best, end, counters } = fitted?;
    if !team.is_first() {
        return Ok(None);
    }

    let translator = translator(&best);
    let beams = recipe.generate.num_beams;
    let judged = translate(&translator, &corpus.valid, beams)?;
    let mut metrics = judged.metrics();
    metrics.insert("loss".into(), loss(&best, &valid, recipe.eval.batch_size));
    let mut scores = Scores::from([("valid".to_string(), metrics)]);
    let test = match (&corpus.test, end) {
        (Some(pairs), End::Finished | End::EarlyStop) => {
            let judged = translate(&translator, pairs, beams)?;
            scores.insert("test".into(), judged.metrics());
            Some(judged)
        }
        _ => None,
    };
    let kept = formats::check(&translator, &recipe.data.source, &recipe.data.target)?;
    if !kept.is_empty() {
        scores.insert("kept".into(), kept);
    }
    let task = <Recipe as job::Recipe>::TASK;
    let origin = Origin {
        copies,
        simplify: recipe.data.simplify,
        max_len: Some(recipe.tokenizer.max_len),
        ..Origin::new(task, &recipe.name, &run.info, scores.clone())
    };
    let about = format!(
        "Translates {} to {}; BLEU {}, chrF {}.",
        recipe.data.source,
        recipe.data.target,
        judged.bleu.signature(),
        judged.chrf.signature()
    );
    if let Some(lora) = &lora {
        let dir = run.dir().join("adapter");
        lora::save(&best.model, lora, checkpoint_name, &origin, &dir)?;
        tokenizer.save(&dir, origin.max_len)?;
    }
    translator.save(&run.dir().join("model"), &config, &origin, &about)?;
    let outcome = Outcome { end, counters, scores };
    Ok(Some(Trained { outcome, corpus, valid: judged, test }))
}

/// What `[model.lora]` asks for.
fn adapter(recipe: &Recipe, base: &Source) -> Option<LoraConfig> {
    let lora = recipe.model.lora.config(base, &["q_proj", "v_proj"], &[])?;
    Some(LoraConfig { task_type: Some("SEQ_2_SEQ_LM".into()), ..lora })
}
