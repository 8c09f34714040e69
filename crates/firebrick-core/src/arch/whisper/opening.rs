//! What a text of Whisper begins with: tokens that name the language, the task, and whether there are times.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::checkpoint::{LoadError, Source, config, json::quoted};

/// Keys of `generation_config.json`. A model of one language has none of them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Opening {
    /// `en` or `<|en|>`; what the model hears where there is none.
    language: Option<String>,
    /// `transcribe` or `translate`
    task: Option<String>,
    lang_to_id: BTreeMap<String, i64>,
    task_to_id: BTreeMap<String, i64>,
    no_timestamps_token_id: Option<i64>,
    pub return_timestamps: bool,
    /// What older files have in place of `language` and `task`: places behind the start token, and what stands there;
    /// `null` is for the language that is heard.
    forced_decoder_ids: Option<Vec<(usize, Option<i64>)>>,
}

impl Opening {
    pub fn read(source: &Source) -> Result<Self, LoadError> {
        const FILE: &str = "generation_config.json";
        let Some(value) = source.json(FILE)? else { return Ok(Self::default()) };
        config::parse(&value)
            .map_err(|problem| LoadError::Config { path: source.path(FILE), problem })
    }

    /// Places behind the start token, as the older files give them.
    fn forced(&self) -> Vec<Option<i64>> {
        let newer = self.language.is_some() || self.task.is_some();
        let forced = self.forced_decoder_ids.iter().flatten().filter(|_| !newer);
        forced.zip(1..).take_while(|((at, _), i)| at == i).map(|((_, token), _)| *token).collect()
    }

    /// Tokens that name a language.
    pub fn languages(&self) -> impl Iterator<Item = i64> {
        self.lang_to_id.values().copied()
    }

    /// Whether the language is left to the model.
    pub fn listens(&self) -> bool {
        let forced = self.forced().first().is_some_and(Option::is_some);
        self.language.is_none() && !self.lang_to_id.is_empty() && !forced
    }

    /// The tokens of a text, from `start` on; `heard` is its language where [`Self::listens`]. The rules are those of
    /// `_retrieve_init_tokens` in `generation_whisper.py`.
    pub fn tokens(&self, start: i64, heard: Option<i64>) -> Result<Vec<i64>, String> {
        let forced = self.forced();
        let newer = self.language.is_some() || self.task.is_some();
        if !newer && forced.len() < self.forced_decoder_ids.as_ref().map_or(0, Vec::len) {
            return Err("forced_decoder_ids leaves out a place behind the start".into());
        }
        let mut tokens = [vec![Some(start)], forced].concat();
        let language = match &self.language {
            None => heard,
            Some(name) => {
                let name = name.to_lowercase();
                let found = [name.clone(), format!("<|{name}|>")];
                let found = found.iter().find_map(|token| self.lang_to_id.get(token));
                Some(*found.ok_or_else(|| {
                    let known: Vec<&str> = self.lang_to_id.keys().map(String::as_str).collect();
                    format!("language {} is none of {}", quoted(&name), known.join(", "))
                })?)
            }
        };
        match tokens.get_mut(1) {
            Some(second) => *second = language.or(*second),
            None => tokens.extend(language.map(Some)),
        }
        let unsaid = self.language.as_ref().filter(|_| !self.task_to_id.is_empty());
        if let Some(task) = self.task.as_deref().or(unsaid.map(|_| "transcribe")) {
            let found = self.task_to_id.get(task);
            let found = found.ok_or_else(|| format!("task_to_id has no task {}", quoted(task)))?;
            tokens.push(Some(*found));
        }
        if self.no_timestamps_token_id.is_some()
            && tokens.last() != Some(&self.no_timestamps_token_id)
        {
            tokens.push(self.no_timestamps_token_id);
        }
        Ok(tokens.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn opening(own: Value) -> Opening {
        let mut file = json!({
            "lang_to_id": {"<|en|>": 11, "<|de|>": 12}, "task_to_id": {"transcribe": 21, "translate": 22},
            "no_timestamps_token_id": 30,
        });
        file.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        serde_json::from_value(file).unwrap()
    }

    /// Expected tokens are those of `_retrieve_init_tokens`, with 12 as the language that is heard.
    #[track_caller]
    fn check(own: Value, expected: &[i64]) {
        let opening = opening(own);
        let heard = opening.listens().then_some(12);
        assert_eq!(opening.tokens(1, heard).unwrap(), expected);
    }

    #[test]
    fn language_and_task_come_first() {
        check(json!({}), &[1, 12, 30]);
        check(json!({"language": "en"}), &[1, 11, 21, 30]);
        check(json!({"language": "<|de|>", "task": "translate"}), &[1, 12, 22, 30]);
        check(json!({"task": "transcribe"}), &[1, 12, 21, 30]);
        check(json!({"forced_decoder_ids": [[1, null], [2, 21]]}), &[1, 12, 21, 30]);
        check(json!({"forced_decoder_ids": [[1, 11], [2, 22], [3, 30]]}), &[1, 11, 22, 30]);
        check(json!({"lang_to_id": {}, "forced_decoder_ids": [[1, 30]]}), &[1, 30]);
        let none = Opening::default();
        assert!(!none.listens());
        assert_eq!(none.tokens(1, None).unwrap(), [1]);
    }

    #[test]
    fn what_the_file_does_not_know_is_said() {
        let refused = |own| opening(own).tokens(1, None).unwrap_err();
        assert_eq!(refused(json!({"language": "fr"})), "language \"fr\" is none of <|de|>, <|en|>");
        assert_eq!(refused(json!({"task": "sing"})), "task_to_id has no task \"sing\"");
        assert!(refused(json!({"forced_decoder_ids": [[1, 11], [3, 30]]})).contains("a place"));
    }
}
