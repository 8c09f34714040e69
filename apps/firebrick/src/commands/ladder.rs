//! `firebrick nlp ladder`: the history of language models on one text, from counting to BERT and GPT.
//!
//! The neural ones are runs like any other: the same command again goes on with them.

use std::{path::Path, time::Instant};

use anyhow::Context;
use burn::module::Module;
use firebrick_core::{arch::bert::load_masked_lm, checkpoint::Source};
use firebrick_nlp::{
    lm::{
        self,
        causal::LanguageModel,
        corpus::{self, Corpus},
        evaluate::Judged,
        ladder::{hidden_markov, ngram},
    },
    pretraining,
};
use firebrick_train::{
    job::{Recipe, Trained, chart, curve, put},
    report::{Report, plots::Curve, render},
    run,
};
use serde_json::{Value, json};

use super::{
    Outcome,
    recipe::Opened,
    train::{self, Job},
};
use crate::{
    cli::{Global, LadderArgs},
    failure::{Failure, USAGE},
    places,
    progress::{Progress, Style},
};

/// Watts of a core at work that energy is estimated with where the machine does not measure it.
const WATTS: f64 = 8.0;

/// One model of the ladder.
struct Rung {
    name: String,
    parameters: usize,
    valid: f64,
    test: f64,
    bits: f64,
    seconds: f64,
    energy: Energy,
    curve: Option<Curve>,
    /// It guesses a token from both of its sides: what it costs is not comparable with the others'.
    both_sides: bool,
}

struct Energy {
    watt_hours: f64,
    /// By the processor, and not estimated.
    measured: bool,
}

pub fn run(args: &LadderArgs, global: &Global) -> Outcome {
    if !(args.epochs > 0.0 && args.epochs <= 1000.0) {
        return Err(Failure::text(
            USAGE,
            format!("--epochs {} is not within 0 and 1000", args.epochs),
        ));
    }
    let corpus = open(&args.data)?;
    let progress = Progress::new(if global.quiet { Style::None } else { global.progress });
    let own = args.run.as_deref().unwrap_or("ladder");
    let dir = global.runs.join(own);
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let by_word = corpus.vocab_size > 1000;
    let mut rungs = vec![];
    let mut add = |rung: Rung| {
        progress.line(&format!(
            "{:12} perplexity {:9.3}  {:.4} bits a character  {:.0} s",
            rung.name, rung.test, rung.bits, rung.seconds
        ));
        rungs.push(rung);
    };
    let meter = Meter::begin();
    let cores = rayon::current_num_threads() as f64;
    let orders: &[usize] = if by_word { &[1, 2, 3, 5] } else { &[1, 3, 5, 7] };
    for order in orders {
        let begun = (Instant::now(), meter.joules());
        let (model, judged) = ngram(&corpus, *order)?;
        let parameters = (1..=*order).map(|n| model.ngrams(n)).sum();
        add(counted(&format!("{order}-gram"), parameters, judged, begun, &meter));
    }
    let begun = (Instant::now(), meter.joules());
    let (model, judged) =
        hidden_markov(&corpus, args.states, args.rounds, global.seed.unwrap_or(7))?;
    let parameters = model.transitions().len() + model.emissions().len();
    add(counted("HMM", parameters, judged, begun, &meter));
    for (name, model) in neural(by_word) {
        let used = meter.joules();
        let both_sides = name == "bert";
        let text = recipe(&args.data, name, model, args.epochs, by_word);
        let opened = Opened::text(&format!("ladder-{name}"), text);
        let folder = dir.join(name);
        let earlier = run::read(&folder).is_ok();
        let run = format!("{own}/{name}");
        match both_sides {
            true => learn::<pretraining::recipe::Recipe>(&opened, &run, &folder, global)?,
            false => learn::<lm::recipe::Recipe>(&opened, &run, &folder, global)?,
        }
        let info = run::read(&folder)?;
        let kind = if both_sides { "pseudo_" } else { "" };
        let score = |part: &str, key: &str| {
            let key = format!("{kind}{key}");
            info.metrics.get(part).and_then(|m| m.get(&key)).copied().unwrap_or(f64::NAN)
        };
        let source = Source::folder(folder.join("model"));
        let device = global.device.open()?;
        let parameters = match both_sides {
            true => load_masked_lm(&source, &device)?.1.num_params(),
            false => LanguageModel::open(&source, &device)?.num_params(),
        };
        let seconds = info.counters.seconds;
        // What earlier sittings took was not measured here.
        let used = used.filter(|_| !earlier);
        add(Rung {
            name: name.to_uppercase(),
            parameters,
            valid: score("valid", "perplexity"),
            test: score("test", "perplexity"),
            bits: score("test", "bits_per_character"),
            seconds,
            energy: energy(&meter, used, seconds * cores),
            curve: Some(curve(&folder, &name.to_uppercase(), "valid/loss")?),
            both_sides,
        });
    }
    finish(&args.data, &dir, &rungs, &corpus, global)
}

/// A run of its own, which goes on if it was stopped.
fn learn<R: Recipe>(
    opened: &Opened,
    run: &str,
    folder: &Path,
    global: &Global,
) -> Result<(), Failure> {
    let overrides: Vec<String> =
        global.seed.map(|seed| format!("seed={seed}")).into_iter().collect();
    let (max_time, watch, track) = (None, None, None);
    let job = Job { opened, overrides: &overrides, run: Some(run), max_time, watch, track };
    match train::train::<R>(&job, global) {
        Ok((_, trained)) => {
            trained.show(folder)?.write(folder)?;
            Ok(())
        }
        Err(failure) if train::is_done(&failure) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Vocabulary of a text that is read by pieces.
const PIECES: usize = 4000;

/// A known set, or a text file by pieces.
fn open(data: &str) -> Result<Corpus, Failure> {
    let path = Path::new(data);
    if path.is_file() {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {data}"))?;
        return Ok(corpus::pieces(&text, PIECES).with_context(|| data.to_string())?);
    }
    Ok(corpus::load(data, &places::data_set(data)?, PIECES)?)
}

fn counted(
    name: &str,
    parameters: usize,
    [valid, test]: [Judged; 2],
    (begun, used): (Instant, Option<f64>),
    meter: &Meter,
) -> Rung {
    let seconds = begun.elapsed().as_secs_f64();
    Rung {
        name: name.into(),
        parameters,
        valid: valid.perplexity(),
        test: test.perplexity(),
        bits: test.bits_per_character(),
        seconds,
        energy: energy(meter, used, seconds),
        curve: None,
        both_sides: false,
    }
}

/// Neural rungs: their name, and `[model]`.
fn neural(by_word: bool) -> [(&'static str, String); 5] {
    let recurrent = |family: &str| {
        let dropout = if by_word { 0.3 } else { 0.1 };
        format!(
            "family = \"{family}\"\nhidden_size = 256\nnum_hidden_layers = 1\ndropout = {dropout}"
        )
    };
    let dropout = if by_word { 0.3 } else { 0.1 };
    let transformer = "hidden_size = 192\nnum_hidden_layers = 4\nnum_attention_heads = 4";
    let bert = format!(
        "{transformer}\nintermediate_size = 768\nhidden_dropout_prob = {dropout}\n\
         attention_probs_dropout_prob = {dropout}"
    );
    let gpt = format!("family = \"gpt2\"\n{transformer}\ndropout = {dropout}");
    [
        ("rnn", recurrent("rnn")),
        ("gru", recurrent("gru")),
        ("lstm", recurrent("lstm")),
        ("bert", bert),
        ("gpt", gpt),
    ]
}

fn recipe(data: &str, name: &str, model: String, epochs: f64, by_word: bool) -> String {
    let file = Path::new(data).is_file();
    let path = std::path::absolute(data).unwrap_or_default();
    let window = if by_word { 35 } else { 128 };
    let (task, source, rate) = match name {
        "bert" => {
            let stream = if file { path.display().to_string() } else { data.to_string() };
            let tokenizer = format!("[tokenizer]\nvocab_size = {PIECES}\nmax_len = {window}");
            ("masked-language-modelling", format!("stream = {stream:?}\n{tokenizer}"), 1e-3)
        }
        _ => {
            let source = match file {
                true => format!("train = {path:?}"),
                false => format!("dataset = {data:?}"),
            };
            let (warm_up, rate) = if name == "gpt" { (0, 2e-3) } else { (window, 3e-3) };
            let windows = format!("window = {window}\nwarm_up = {warm_up}\nvocab_size = {PIECES}");
            ("language-modelling", format!("{source}\n{windows}"), rate)
        }
    };
    format!(
        "version = 1\ntask = \"{task}\"\nname = \"ladder-{name}\"\nseed = 7\n\
         [data]\n{source}\n\
         [model]\n{model}\n\
         [train]\nepochs = {epochs}\nbatch_size = 32\nlearning_rate = {rate}\nwarmup_steps = 50\n\
         [eval]\nbatch_size = 16\n"
    )
}

/// The processor's own meter (RAPL), where it can be read.
struct Meter {
    path: Option<&'static Path>,
}

impl Meter {
    fn begin() -> Self {
        let path = Path::new("/sys/class/powercap/intel-rapl:0/energy_uj");
        let readable = std::fs::read_to_string(path).is_ok();
        Self { path: readable.then_some(path) }
    }

    fn joules(&self) -> Option<f64> {
        let text = std::fs::read_to_string(self.path?).ok()?;
        Some(text.trim().parse::<f64>().ok()? / 1e6)
    }
}

/// Since the meter was at `before`; else as much as cores at work would have taken.
fn energy(meter: &Meter, before: Option<f64>, core_seconds: f64) -> Energy {
    let measured = meter.joules().zip(before).map(|(now, before)| now - before);
    // The meter runs over every few minutes to hours.
    let measured = measured.filter(|joules| *joules > 0.0);
    let joules = measured.unwrap_or(core_seconds * WATTS);
    Energy { watt_hours: joules / 3600.0, measured: measured.is_some() }
}

fn finish(data: &str, dir: &Path, rungs: &[Rung], corpus: &Corpus, global: &Global) -> Outcome {
    let energy = match rungs.iter().all(|rung| rung.energy.measured) {
        true => "Wh",
        false => "Wh (~ estimated)",
    };
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "model",
        "parameters",
        "valid ppl",
        "test ppl",
        "bits/char",
        "seconds",
        energy,
    ]);
    let mut comparison = vec![];
    for rung in rungs {
        let sign = if rung.energy.measured { "" } else { "~" };
        let used = format!("{sign}{:.2}", rung.energy.watt_hours);
        let star = if rung.both_sides { "*" } else { "" };
        let cells = [
            format!("{}{star}", rung.name),
            rung.parameters.to_string(),
            format!("{:.3}", rung.valid),
            format!("{:.3}", rung.test),
            format!("{:.4}", rung.bits),
            format!("{:.0}", rung.seconds),
            used.clone(),
        ];
        let kind = if rung.both_sides { "pseudo-perplexity; " } else { "" };
        let detail = format!(
            "{kind}{} parameters, {:.4} bits a character, {:.0} s, {used} Wh",
            rung.parameters, rung.bits, rung.seconds
        );
        comparison.push((rung.name.clone(), format!("{:.3}", rung.test), detail));
        table.add_row(cells);
    }
    let curves: Vec<Curve> = rungs.iter().filter_map(|rung| rung.curve.clone()).collect();
    let comparable = rungs.iter().filter(|rung| !rung.both_sides);
    let best = comparable.min_by(|a, b| a.test.total_cmp(&b.test));
    let report = Report {
        title: format!("Ladder on {data}"),
        subtitle: "Every number on this page was measured in this run.".into(),
        facts: vec![
            ("training tokens".into(), corpus.train.ids.len().to_string()),
            ("test tokens".into(), corpus.test.ids.len().to_string()),
            ("vocabulary".into(), corpus.vocab_size.to_string()),
        ],
        verdict: best.map_or_else(String::new, |best| {
            format!(
                "Lowest perplexity a token on the test part: {:.3}, of {}.",
                best.test, best.name
            )
        }),
        comparison,
        curves: vec![chart("Validation loss", "nats a token", curves)],
        ..Report::default()
    };
    let page = dir.join("report.html");
    put(&page, render(&report))?;
    let list: Vec<Value> = rungs
        .iter()
        .map(|rung| {
            json!({
                "model": rung.name, "parameters": rung.parameters, "valid_perplexity": rung.valid,
                "test_perplexity": rung.test, "bits_per_character": rung.bits, "seconds": rung.seconds,
                "watt_hours": rung.energy.watt_hours, "energy_measured": rung.energy.measured,
                "both_sides": rung.both_sides,
            })
        })
        .collect();
    let note = "* pseudo-perplexity: each token guessed from both sides, the others' from what stands before it";
    super::print(global, &json!(list), &format!("{table}\n{note}\n{}", page.display()));
    Ok(())
}
