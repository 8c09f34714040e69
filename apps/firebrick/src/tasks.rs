//! The tasks that a recipe can name, over all applications.

use firebrick_nlp::{classification, lm, pretraining, tagging, translation};
use firebrick_speech as speech;
use firebrick_train::job::Recipe;
use firebrick_vision::{anomaly, classification as pictures, detection, faces, video};

/// Runs `$body` with `$R` for the type that reads recipes of `$task`, which is one of [`TASKS`].
macro_rules! with_task {
    ($task:expr, $R:ident => $body:expr) => {
        match $task {
            <firebrick_nlp::classification::recipe::Recipe as firebrick_train::job::Recipe>::TASK => {
                type $R = firebrick_nlp::classification::recipe::Recipe;
                $body
            }
            <firebrick_nlp::translation::recipe::Recipe as firebrick_train::job::Recipe>::TASK => {
                type $R = firebrick_nlp::translation::recipe::Recipe;
                $body
            }
            <firebrick_nlp::tagging::recipe::Recipe as firebrick_train::job::Recipe>::TASK => {
                type $R = firebrick_nlp::tagging::recipe::Recipe;
                $body
            }
            <firebrick_nlp::lm::recipe::Recipe as firebrick_train::job::Recipe>::TASK => {
                type $R = firebrick_nlp::lm::recipe::Recipe;
                $body
            }
            <firebrick_nlp::pretraining::recipe::Recipe as firebrick_train::job::Recipe>::TASK => {
                type $R = firebrick_nlp::pretraining::recipe::Recipe;
                $body
            }
            <firebrick_speech::classification::recipe::Recipe as firebrick_train::job::Recipe>::TASK => {
                type $R = firebrick_speech::classification::recipe::Recipe;
                $body
            }
            <firebrick_speech::recognition::recipe::Recipe as firebrick_train::job::Recipe>::TASK => {
                type $R = firebrick_speech::recognition::recipe::Recipe;
                $body
            }
            <firebrick_vision::classification::recipe::Recipe as firebrick_train::job::Recipe>::TASK => {
                type $R = firebrick_vision::classification::recipe::Recipe;
                $body
            }
            <firebrick_vision::faces::recipe::Recipe as firebrick_train::job::Recipe>::TASK => {
                type $R = firebrick_vision::faces::recipe::Recipe;
                $body
            }
            <firebrick_vision::anomaly::recipe::Recipe as firebrick_train::job::Recipe>::TASK => {
                type $R = firebrick_vision::anomaly::recipe::Recipe;
                $body
            }
            <firebrick_vision::video::recipe::Recipe as firebrick_train::job::Recipe>::TASK => {
                type $R = firebrick_vision::video::recipe::Recipe;
                $body
            }
            <firebrick_vision::detection::recipe::Recipe as firebrick_train::job::Recipe>::TASK => {
                type $R = firebrick_vision::detection::recipe::Recipe;
                $body
            }
            other => unreachable!("`TASKS` has {other}"),
        }
    };
}
pub(crate) use with_task;

/// As recipes name them.
pub const TASKS: &[&str] = &[
    classification::recipe::Recipe::TASK,
    translation::recipe::Recipe::TASK,
    tagging::recipe::Recipe::TASK,
    lm::recipe::Recipe::TASK,
    pretraining::recipe::Recipe::TASK,
    speech::classification::recipe::Recipe::TASK,
    speech::recognition::recipe::Recipe::TASK,
    pictures::recipe::Recipe::TASK,
    faces::recipe::Recipe::TASK,
    anomaly::recipe::Recipe::TASK,
    video::recipe::Recipe::TASK,
    detection::recipe::Recipe::TASK,
];

/// Shipped recipes of all applications: name and text.
pub fn shipped() -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = [
        firebrick_nlp::recipes::SHIPPED,
        firebrick_vision::recipes::SHIPPED,
        firebrick_speech::recipes::SHIPPED,
    ];
    all.into_iter().flatten().copied()
}

#[cfg(test)]
mod tests {
    use firebrick_train::recipe::{parse, task};

    use super::*;

    /// Every recipe in the tree parses: a renamed key breaks the build, not a run at night.
    #[test]
    fn all_recipes_parse() {
        for (name, text) in shipped() {
            let kind = task(text.as_bytes(), TASKS).unwrap_or_else(|e| panic!("{name}: {e}"));
            with_task!(kind, R => {
                let recipe: R =
                    parse(text.as_bytes(), &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(recipe.name(), name);
            });
            assert!(text.starts_with('#'), "{name} has no opening comment");
        }
    }
}
