//! `tokenizer_config.json`: what lets `transformers` cut texts as `tokenizer.json` says.
//!
//! Where a folder has none, it takes the tokenizer of the model's family, with that family's own rules in place of the file's.

use serde_json::{Value, json};

/// Tokens by what they are for, as the folders of different families name them.
const SPECIAL: &[(&str, &[&str])] = &[
    ("bos_token", &["<s>"]),
    ("cls_token", &["[CLS]"]),
    ("eos_token", &["</s>"]),
    ("mask_token", &["[MASK]", "<mask>"]),
    ("pad_token", &["[PAD]", "<pad>", "<|endoftext|>"]),
    ("sep_token", &["[SEP]"]),
    ("unk_token", &["[UNK]", "<unk>"]),
];

/// For a parsed `tokenizer.json`, and a model that reads texts of so many tokens.
pub fn config(tokenizer: &Value, longest: Option<usize>) -> Value {
    let mut config = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
    if let Some(longest) = longest {
        config["model_max_length"] = longest.into();
    }
    // One that is only in the vocabulary would become special: a text that has it would be cut around it.
    let added = tokenizer["added_tokens"].as_array();
    let added: Vec<&str> =
        added.into_iter().flatten().filter_map(|token| token["content"].as_str()).collect();
    for (role, names) in SPECIAL {
        if let Some(name) = names.iter().find(|name| added.contains(name)) {
            config[*role] = (*name).into();
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_are_those_that_the_file_calls_so() {
        let file = json!({
            "added_tokens": [{"id": 0, "content": "<s>"}, {"id": 1, "content": "<pad>"}],
            "model": {"unk_token": "<unk>", "vocab": {"<unk>": 2}},
        });
        let expected = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 9, "bos_token": "<s>", "pad_token": "<pad>",
        });
        assert_eq!(config(&file, Some(9)), expected);
        assert_eq!(config(&json!(7), None), json!({"tokenizer_class": "PreTrainedTokenizerFast"}));
    }
}
