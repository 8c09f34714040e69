//! `tokenizer.json` as llama.cpp's vocabulary.

use anyhow::{Context, bail};
use firebrick_core::checkpoint::Source;
use serde_json::Value;

use super::Header;

/// Longest `tokenizer.json`.
const LIMIT: u64 = 256 << 20;

/// What a token is, by ggml's number.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Parts of the patterns that known tokenizers split by, and llama.cpp's name of each.
const SPLITTERS: &[(&str, &str)] =
    &[(r"\p{N}{1,3}", "llama-bpe"), (r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]", "qwen2")];

/// Tokens, merges and special tokens of a BPE; without `tokenizer.json` a model of ids alone.
pub fn write(header: &mut Header, source: &Source, size: usize) -> anyhow::Result<()> {
    let Some(bytes) = source.optional("tokenizer.json", LIMIT)? else {
        header.string("tokenizer.ggml.model", "none");
        return Ok(());
    };
    let path = source.path("tokenizer.json");
    let tokenizer: Value =
        serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
    let model = &tokenizer["model"];
    if model["type"] != "BPE" {
        bail!(
            "{}: the tokenizer is {}, and GGUF's form of this family has a BPE",
            path.display(),
            model["type"]
        );
    }
    let vocabulary =
        model["vocab"].as_object().with_context(|| format!("{}: no vocab", path.display()))?;
    let mut tokens: Vec<String> = (0..size).map(|id| format!("[PAD{id}]")).collect();
    let mut kinds = vec![UNUSED; size];
    let mut put = |id: &Value, text: &str, kind: i32| -> anyhow::Result<()> {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < size);
        let id = id.with_context(|| {
            format!("{}: token `{text}` is outside the model's {size}", path.display())
        })?;
        tokens[id] = text.to_string();
        kinds[id] = kind;
        Ok(())
    };
    let falls_back = model["byte_fallback"] == true;
    for (text, id) in vocabulary {
        let byte = falls_back && text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
        let kind = match text {
            text if model["unk_token"] == text.as_str() => UNKNOWN,
            _ if byte => BYTE,
            _ => NORMAL,
        };
        put(id, text, kind)?;
    }
    for token in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let text = token["content"].as_str().unwrap_or_default();
        let kind = match token["special"] == true {
            true if model["unk_token"] == text => UNKNOWN,
            true => CONTROL,
            false => USER_DEFINED,
        };
        put(&token["id"], text, kind)?;
    }
    if falls_back {
        // SentencePiece: the earlier a token was merged, the sooner it is merged again.
        header.string("tokenizer.ggml.model", "llama");
        header
            .floats("tokenizer.ggml.scores", &(0..size).map(|id| -(id as f32)).collect::<Vec<_>>());
    } else {
        header.string("tokenizer.ggml.model", "gpt2");
        let splits = tokenizer["pre_tokenizer"].to_string();
        let splits = splits.replace(r"\\", r"\");
        let known = SPLITTERS.iter().find(|(part, _)| splits.contains(part));
        header.string("tokenizer.ggml.pre", known.map_or("gpt-2", |(_, name)| name));
    }
    header.strings("tokenizer.ggml.tokens", &tokens);
    header.integers("tokenizer.ggml.token_type", &kinds);
    if !falls_back {
        header.strings("tokenizer.ggml.merges", &merges(model));
    }
    special(header, source, &tokens)
}

/// `"a b"`, also where the file has `["a", "b"]`.
fn merges(model: &Value) -> Vec<String> {
    let text = |merge: &Value| match merge {
        Value::Array(pair) => pair.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.as_str().unwrap_or_default().to_string(),
    };
    model["merges"].as_array().into_iter().flatten().map(text).collect()
}

/// Tokens that begin and end, and the template of a chat, from the files beside the tokenizer.
fn special(header: &mut Header, source: &Source, tokens: &[String]) -> anyhow::Result<()> {
    let config = source.config()?;
    let beside = source.json("tokenizer_config.json")?.unwrap_or_default();
    for (key, name) in [
        ("bos", "bos_token"),
        ("eos", "eos_token"),
        ("padding", "pad_token"),
        ("unknown", "unk_token"),
    ] {
        let text = beside[name].as_str().or_else(|| beside[name]["content"].as_str());
        let id = text.and_then(|text| tokens.iter().position(|token| token == text));
        let id = id.or_else(|| config[format!("{name}_id")].as_u64().map(|id| id as usize));
        if let Some(id) = id.filter(|id| *id < tokens.len()) {
            header.number(&format!("tokenizer.ggml.{key}_token_id"), id as u32);
        }
    }
    for (key, name) in [("add_bos_token", "add_bos_token"), ("add_eos_token", "add_eos_token")] {
        if let Some(add) = beside[name].as_bool() {
            header.truth(&format!("tokenizer.ggml.{key}"), add);
        }
    }
    let template = source.optional("chat_template.jinja", 1 << 20)?;
    let template = template.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if let Some(template) =
        template.or_else(|| beside["chat_template"].as_str().map(str::to_string))
    {
        header.string("tokenizer.chat_template", &template);
    }
    Ok(())
}
