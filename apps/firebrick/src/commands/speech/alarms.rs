//! `firebrick speech false-alarms`: what a word spotter hears where nobody says its words.

use std::{collections::BTreeMap, path::Path};

use firebrick_speech::{
    alarms::{self, Background, Counted},
    background::SETS,
    classification::{classifier::SoundClassifier, corpus, recipe::Recipe},
    keyword::Trigger,
};
use serde_json::json;

use super::super::{Outcome, eval::recipe_of, print};
use crate::{
    cli::{Global, speech::FalseAlarmsArgs},
    failure::{Failure, GATE},
    places,
};

pub fn run(args: &FalseAlarmsArgs, global: &Global) -> Outcome {
    let source = places::model(&args.model, &global.runs)?;
    let classifier = SoundClassifier::open(&source, &global.device.open()?)?;
    let mut background = Background::default();
    let all: Vec<String> = SETS.iter().map(|name| name.to_string()).collect();
    for name in if args.recordings.is_empty() { &all } else { &args.recordings } {
        background.add(name, &classifier, &places::of_recipe(Path::new("")))?;
    }
    if let Some(first) = background.unreadable.first() {
        let count = background.unreadable.len();
        stderr!("{count} recordings could not be read; the first: {first}");
    }
    let trigger = Trigger::new(&classifier);
    let measured = alarms::measure(&classifier, trigger, &background, args.at_most)?;

    // The words themselves: of people whom the model has not heard, where its recipe says who they are.
    let opened = recipe_of(&args.model, &source, global)?;
    let recipe: Recipe = opened.parse(&[])?;
    let rate = classifier.sample_rate();
    let corpus = corpus::load(&recipe.data, rate, recipe.seed, &places::of_recipe(&opened.base))?;
    let (part, words) = match &corpus.test {
        Some(test) => ("test", test),
        None => ("valid", &corpus.valid),
    };
    let trigger = Trigger { threshold: measured.threshold, ..trigger };
    let (heard, of) = alarms::heard(&classifier, trigger, words);

    let mut by_word: BTreeMap<&str, usize> = BTreeMap::new();
    for alarm in &measured.counted.alarms {
        *by_word.entry(&alarm.label).or_default() += 1;
    }
    let list: Vec<String> = by_word.iter().map(|(word, count)| format!("{word} {count}")).collect();
    let list = if list.is_empty() { String::new() } else { format!(" ({})", list.join(", ")) };
    let text = format!(
        "threshold {:.2}, chosen on other recordings: {}\n{}{list}\n\
         heard {heard} of {of} recordings of its words ({part} part)\n\
         {} recordings were left out: its words are said in them\n",
        measured.threshold,
        told(&measured.chosen_on),
        told(&measured.counted),
        background.left_out
    );
    let (low, high) = measured.counted.interval();
    let report = json!({
        "model": args.model, "threshold": measured.threshold,
        "false_alarms": measured.counted.alarms.len(), "hours": measured.counted.hours,
        "per_hour": measured.counted.an_hour(), "interval": [low, high], "by_word": by_word,
        "chosen_on": {
            "false_alarms": measured.chosen_on.alarms.len(), "hours": measured.chosen_on.hours,
        },
        "heard": heard, "of": of, "part": part, "left_out": background.left_out,
    });
    print(global, &report, &text);
    match measured.chosen_on.an_hour() <= args.at_most {
        true => Ok(()),
        false => {
            let problem = format!("more than {} an hour at every threshold", args.at_most);
            Err(Failure::text(GATE, problem))
        }
    }
}

fn told(counted: &Counted) -> String {
    let (low, high) = counted.interval();
    format!(
        "{} false alarms in {:.2} hours, {:.1} an hour (95 % between {low:.1} and {high:.1})",
        counted.alarms.len(),
        counted.hours,
        counted.an_hour()
    )
}
