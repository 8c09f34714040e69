//! Sentence embeddings: the mean of a BERT encoder's vectors, or its first one, as sentence-transformers has them.
//!
//! Paper: Reimers & Gurevych 2019, <https://arxiv.org/abs/1908.10084>. Reference code: `Transformer`, `Pooling` and
//! `SentenceTransformer` of sentence-transformers 6.2, whose folders and those of versions before it are read.

use std::{borrow::Cow, io::ErrorKind};

use burn::prelude::*;
use firebrick_core::{
    arch::bert,
    checkpoint::{LoadError, Source},
};
use serde_json::Value;

use crate::{
    batch::pad,
    tokenizer::{TextTokenizer, longest_of},
};

/// How the vectors of a sentence's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    FirstToken,
}

/// What stands before a text, by what the text is for; nothing before most models'.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompts {
    /// Before any text: that of `default_prompt_name`, as of `encode`.
    pub default: String,
    /// Before what is looked for: `query`.
    pub query: String,
    /// Before what is found: `document`, or else `passage` or `corpus`, which `encode_document` of sentence-transformers 6.2
    /// finds in no folder.
    pub document: String,
}

/// A model folder of sentence-transformers, or a bare encoder (mean, not normalised).
pub struct Embedder {
    pub prompts: Prompts,
    model: bert::BertModel,
    tokenizer: TextTokenizer,
    /// `do_lower_case`, whatever the tokenizer does.
    lowercase: bool,
    max_len: usize,
    pooling: Pooling,
    /// To length 1.
    normalise: bool,
    /// Numbers of a vector that are kept, the first ones.
    truncate_dim: Option<usize>,
    device: Device,
}

const MODULES: &str = "modules.json";
const SETTINGS: &str = "config_sentence_transformers.json";
/// A Transformer's own file, by what it was called for each family.
const TRANSFORMER: [&str; 3] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
];

impl Embedder {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let stages = Stages::read(source)?;
        let encoder = match stages.encoder.as_str() {
            "" => source.clone(),
            folder => Source::folder(source.path(folder)),
        };
        let (config, model) = bert::load_model(&encoder, device)?;
        let tokenizer = TextTokenizer::open(&encoder)?;
        if tokenizer.vocab_size() > config.vocab_size {
            let (tokens, rows) = (tokenizer.vocab_size(), config.vocab_size);
            let problem = format!("{tokens} tokens, but the model has embeddings for {rows}");
            return Err(wrong(&encoder, "tokenizer.json", problem).into());
        }
        let mut own = Value::Null;
        for file in TRANSFORMER {
            if own.is_null() {
                own = encoder.json(file)?.unwrap_or_default();
            }
        }
        let tokens = encoder.json("tokenizer_config.json")?.unwrap_or_default();
        let max_len = config.longest().min(longest(&own, &tokens)).max(2);
        // Without a list of stages it is no folder of sentence-transformers, whatever else lies in it.
        let settings = match stages.listed {
            true => source.json(SETTINGS)?.unwrap_or_default(),
            false => Value::Null,
        };
        let prompts = Prompts::read(&settings).map_err(|e| wrong(source, SETTINGS, e))?;
        if !stages.include_prompt && prompts != Prompts::default() {
            let problem = "prompts that are not pooled (include_prompt) are not supported";
            return Err(wrong(source, SETTINGS, problem.into()).into());
        }
        let truncate_dim = read_dimensions(&settings).map_err(|e| wrong(source, SETTINGS, e))?;
        Ok(Self {
            prompts,
            model,
            tokenizer,
            lowercase: own["do_lower_case"] == true,
            max_len,
            pooling: stages.pooling,
            normalise: stages.normalise,
            truncate_dim,
            device: device.clone(),
        })
    }

    /// One vector a text, in their order; texts of like length share a batch.
    pub fn embed(&self, texts: &[&str], batch_size: usize) -> Vec<Vec<f32>> {
        self.embed_after(&self.prompts.default, texts, batch_size)
    }

    /// As [`Self::embed`], with one of [`Self::prompts`] before each text.
    pub fn embed_after(&self, prompt: &str, texts: &[&str], batch_size: usize) -> Vec<Vec<f32>> {
        let encode = |text: &&str| self.tokenizer.encode(&self.asked(prompt, text), self.max_len);
        let ids: Vec<Vec<u32>> = texts.iter().map(encode).collect();
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|i| ids[*i].len());
        let mut vectors = vec![vec![]; texts.len()];
        for part in order.chunks(batch_size.max(1)) {
            let batch: Vec<&[u32]> = part.iter().map(|i| ids[*i].as_slice()).collect();
            let (ids, pad) = pad(&batch, self.tokenizer.pad_id(), &self.device);
            let hidden = self.model.encoder.forward(ids, None, Some(pad.clone())); // [B, T, C]
            let pooled = self.pool(hidden, pad); // [B, C]
            let [_, c] = pooled.dims();
            let kept = self.truncate_dim.unwrap_or(c).min(c);
            let flat = pooled.into_data().try_into_vec::<f32>().expect("models compute in f32");
            for (i, vector) in part.iter().zip(flat.chunks(c)) {
                vectors[*i] = vector[..kept].to_vec();
            }
        }
        vectors
    }

    /// A text as the tokenizer gets it.
    fn asked<'t>(&self, prompt: &str, text: &'t str) -> Cow<'t, str> {
        let lower = |c: char| c.to_lowercase();
        match (prompt, self.lowercase) {
            ("", false) => text.into(),
            (_, false) => format!("{prompt}{text}").into(),
            (_, true) => prompt.chars().chain(text.chars()).flat_map(lower).collect(),
        }
    }

    /// Tokens of a passage that are looked at; those after them are not in its vector.
    pub fn passage_tokens(&self) -> usize {
        let around = self.asked(&self.prompts.document, "");
        self.max_len.saturating_sub(self.tokenizer.encode(&around, usize::MAX).len()).max(1)
    }

    /// Where each token of a text ends, in bytes.
    pub fn token_ends(&self, text: &str) -> Vec<usize> {
        let spans = self.tokenizer.encode_spans(text, usize::MAX).into_iter();
        spans.filter(|(_, span)| !span.is_empty()).map(|(_, span)| span.end).collect()
    }

    /// `hidden`: `[B, T, C]`, `pad`: `[B, T]` -> `[B, C]`
    fn pool(&self, hidden: Tensor<3>, pad: Tensor<2, Bool>) -> Tensor<2> {
        let pooled: Tensor<2> = match self.pooling {
            Pooling::FirstToken => hidden.narrow(1, 0, 1).squeeze_dim(1),
            Pooling::Mean => {
                let seen = pad.bool_not().float(); // [B, T]
                let count = seen.clone().sum_dim(1); // [B, 1]
                let sum: Tensor<2> = (hidden * seen.unsqueeze_dim(2)).sum_dim(1).squeeze_dim(1);
                sum / count
            }
        };
        match self.normalise {
            true => {
                let length = pooled.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
                pooled / length
            }
            false => pooled,
        }
    }
}

/// What is wrong with a file of a model folder.
fn wrong(source: &Source, file: &str, problem: String) -> LoadError {
    LoadError::Config { path: source.path(file), problem }
}

/// Most tokens of a text, special ones included: `max_seq_length` of the Transformer's own file, else what its tokenizer says.
fn longest(own: &Value, tokenizer: &Value) -> usize {
    match own["max_seq_length"].as_u64() {
        Some(longest) => longest as usize,
        None => longest_of(tokenizer),
    }
}

fn read_dimensions(settings: &Value) -> Result<Option<usize>, String> {
    match &settings["truncate_dim"] {
        Value::Null => Ok(None),
        value => match value.as_u64() {
            Some(n @ 1..) => Ok(Some(n as usize)),
            _ => Err(format!("truncate_dim is {value}; a number from 1 is needed")),
        },
    }
}

impl Prompts {
    fn read(settings: &Value) -> Result<Self, String> {
        let prompt = |name: &str| match settings["prompts"].get(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(String::new())),
            Some(Value::String(prompt)) => Ok(Some(prompt.clone())),
            Some(other) => Err(format!("the prompt {name:?} is {other}, not a text")),
        };
        let default = match &settings["default_prompt_name"] {
            Value::Null => String::new(),
            Value::String(name) => match prompt(name)? {
                Some(prompt) => prompt,
                // These two are always there.
                None if name == "query" || name == "document" => String::new(),
                None => {
                    return Err(format!("default_prompt_name is {name:?}, not one of its prompts"));
                }
            },
            other => return Err(format!("default_prompt_name is {other}, not a text")),
        };
        let mut document = None;
        for name in ["document", "passage", "corpus"] {
            document = document.or(prompt(name)?);
        }
        let query = prompt("query")?.unwrap_or_default();
        Ok(Self { default, query, document: document.unwrap_or_default() })
    }
}

/// What `modules.json` lists: an encoder, a pooling and a normalisation are known.
struct Stages {
    /// Whether there is such a file.
    listed: bool,
    /// Folder of the encoder's files; empty where they lie beside the list.
    encoder: String,
    pooling: Pooling,
    /// Whether a prompt's tokens are pooled too.
    include_prompt: bool,
    normalise: bool,
}

impl Stages {
    fn read(source: &Source) -> Result<Self, LoadError> {
        let mut stages = Self {
            listed: false,
            encoder: String::new(),
            pooling: Pooling::Mean,
            include_prompt: true,
            normalise: false,
        };
        let Some(modules) = source.json(MODULES)? else { return Ok(stages) };
        stages.listed = true;
        let wrong_list = |problem: String| wrong(source, MODULES, problem);
        for module in modules.as_array().ok_or_else(|| wrong_list("is not a list".into()))? {
            let [kind, folder] =
                ["type", "path"].map(|key| module[key].as_str().unwrap_or_default());
            if !folder.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(wrong_list(format!("{folder:?} leads out of the folder")));
            }
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => stages.encoder = folder.to_string(),
                "Pooling" => {
                    let file = format!("{folder}/config.json");
                    let file = file.trim_start_matches('/');
                    let config = source.json(file)?.ok_or_else(|| LoadError::Read {
                        path: source.path(file),
                        source: ErrorKind::NotFound.into(),
                    })?;
                    stages.pooling = read_pooling(&config).map_err(|e| wrong(source, file, e))?;
                    stages.include_prompt = config["include_prompt"] != false;
                }
                "Normalize" => stages.normalise = true,
                _ => {
                    let known = "Transformer, Pooling and Normalize are";
                    let problem = format!("the stage {kind:?} is not supported: {known}");
                    return Err(wrong_list(problem));
                }
            }
        }
        Ok(stages)
    }
}

/// Keys of older folders, one of which is true, and the `pooling_mode` that took their place.
#[rustfmt::skip]
const OLDER_MODES: [(&str, &str); 6] = [
    ("pooling_mode_cls_token",            "cls"),
    ("pooling_mode_max_tokens",           "max"),
    ("pooling_mode_mean_tokens",          "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_weightedmean_tokens",  "weightedmean"),
    ("pooling_mode_lasttoken",            "lasttoken"),
];

fn read_pooling(config: &Value) -> Result<Pooling, String> {
    let newer = |key: &str| OLDER_MODES.iter().find(|(old, _)| *old == key).map(|(_, new)| *new);
    let mut modes: Vec<&str> = match &config["pooling_mode"] {
        Value::Null => {
            let fields = config.as_object().into_iter().flatten();
            let on = fields.filter(|(key, on)| key.starts_with("pooling_mode_") && **on == true);
            on.map(|(key, _)| newer(key).unwrap_or(key)).collect()
        }
        Value::String(mode) => vec![mode],
        Value::Array(modes) if modes.iter().all(Value::is_string) && !modes.is_empty() => {
            modes.iter().filter_map(Value::as_str).collect()
        }
        other => return Err(format!("pooling_mode is {other}, not a name or names")),
    };
    if modes.is_empty() {
        modes.push("mean");
    }
    match modes.as_slice() {
        ["mean"] => Ok(Pooling::Mean),
        ["cls"] => Ok(Pooling::FirstToken),
        other => Err(format!("the pooling {other:?} is not supported: mean and cls are")),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use firebrick_core::{arch::bert::BertConfig, checkpoint::tensors::SaveType};
    use serde_json::json;

    use super::*;
    use crate::tokenizer::train_wordpiece;

    #[test]
    fn poolings_of_older_and_newer_folders() {
        let check = |config: Value, expected: Result<Pooling, &str>| {
            let found = read_pooling(&config);
            match expected {
                Ok(pooling) => assert_eq!(found, Ok(pooling), "{config}"),
                Err(part) => assert!(found.as_ref().is_err_and(|e| e.contains(part)), "{found:?}"),
            }
        };
        check(json!({"pooling_mode": "mean"}), Ok(Pooling::Mean));
        check(json!({"pooling_mode": ["cls"]}), Ok(Pooling::FirstToken));
        check(json!({"pooling_mode_mean_tokens": true}), Ok(Pooling::Mean));
        let older = json!({"pooling_mode_mean_tokens": false, "pooling_mode_cls_token": true});
        check(older, Ok(Pooling::FirstToken));
        let both = json!({"pooling_mode": "mean", "pooling_mode_cls_token": true});
        check(both, Ok(Pooling::Mean));
        check(json!({"word_embedding_dimension": 384}), Ok(Pooling::Mean));
        check(json!({"pooling_mode": "lasttoken"}), Err("[\"lasttoken\"] is not supported"));
        check(json!({"pooling_mode": ["mean", "max"]}), Err("[\"mean\", \"max\"]"));
        check(json!({"pooling_mode_max_tokens": true}), Err("[\"max\"]"));
        check(json!({"pooling_mode_new_tokens": true}), Err("pooling_mode_new_tokens"));
        check(json!({"pooling_mode": 3}), Err("pooling_mode is 3"));
    }

    #[test]
    fn the_default_prompt_is_one_of_the_prompts() {
        let prompts = json!({"query": "query: ", "passage": "passage: ", "none": null});
        let read =
            |name: Value| Prompts::read(&json!({"default_prompt_name": name, "prompts": prompts}));
        let of = |text: &str| Prompts {
            default: text.into(),
            query: "query: ".into(),
            document: "passage: ".into(),
        };
        assert_eq!(read(Value::Null), Ok(of("")));
        assert_eq!(read("query".into()), Ok(of("query: ")));
        assert_eq!(read("none".into()), Ok(of("")));
        assert_eq!(read("document".into()), Ok(of("")), "it is always there");
        assert!(read("typo".into()).is_err_and(|e| e.contains("\"typo\"")));
        assert_eq!(Prompts::read(&Value::Null), Ok(Prompts::default()));
    }

    #[test]
    fn a_text_is_as_long_as_the_first_that_says_so() {
        let check = |own: Value, tokenizer: Value, expected| {
            assert_eq!(longest(&own, &tokenizer), expected, "{own} {tokenizer}");
        };
        check(json!({"max_seq_length": 256}), json!({"model_max_length": 512}), 256);
        check(json!({"max_seq_length": null}), json!({"model_max_length": 512}), 512);
        check(Value::Null, json!({"max_len": 128}), 128);
        check(Value::Null, json!({"model_max_length": 1e30}), usize::MAX);
        check(Value::Null, Value::Null, usize::MAX);
    }

    fn write(dir: &Path, file: &str, value: &Value) {
        fs::write(dir.join(file), value.to_string()).unwrap();
    }

    /// A folder as sentence-transformers writes it, the encoder in a folder of its own.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for inner in ["0_Transformer", "1_Pooling"] {
            fs::create_dir(dir.path().join(inner)).unwrap();
        }
        let encoder = dir.path().join("0_Transformer");
        let tokenizer = train_wordpiece(["a film that is good"].into_iter(), 60, true, 1).unwrap();
        let config = BertConfig::tiny();
        let model = config.init(false, &Device::flex());
        let mut about = config.to_json();
        about["architectures"] = json!(["BertModel"]);
        write(&encoder, "config.json", &about);
        let weights = encoder.join("model.safetensors");
        bert::save_model(&model, &config, &weights, SaveType::F32).unwrap();
        tokenizer.save(&encoder, Some(32)).unwrap();
        let modules = json!([
            {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]);
        write(dir.path(), MODULES, &modules);
        write(dir.path(), "1_Pooling/config.json", &json!({"pooling_mode": "mean"}));
        dir
    }

    fn open(dir: &Path) -> anyhow::Result<Embedder> {
        Embedder::open(&Source::folder(dir), &Device::flex())
    }

    #[test]
    fn a_folder_is_read_with_its_prompt_its_length_and_its_size() {
        let dir = folder();
        let plain = open(dir.path()).unwrap();
        let settings = json!({
            "prompts": {"query": "a good "}, "default_prompt_name": "query", "truncate_dim": 5,
        });
        write(dir.path(), SETTINGS, &settings);
        let asked = open(dir.path()).unwrap();
        let expected = plain.embed(&["a good film"], 1).remove(0);
        assert_eq!(asked.embed(&["film"], 1).remove(0), expected[..5]);
        write(dir.path(), SETTINGS, &json!({}));
        let tokenizer = json!({"model_max_length": 6});
        write(dir.path(), "0_Transformer/tokenizer_config.json", &tokenizer);
        let short = open(dir.path()).unwrap();
        assert_eq!(short.embed(&["a a a a good film"], 1), plain.embed(&["a a a a"], 1));
        assert_eq!((short.passage_tokens(), plain.passage_tokens()), (4, 30));
        assert_eq!(plain.token_ends("a Good"), [1, 6]);
    }

    /// The kind of error decides on the exit code.
    #[test]
    fn what_is_wrong_with_a_folder_is_said_of_its_file() {
        let check = |settings: Value, pooling: Value, file: &str| {
            let dir = folder();
            write(dir.path(), SETTINGS, &settings);
            write(dir.path(), "1_Pooling/config.json", &pooling);
            let error = open(dir.path()).err().expect("it does not open");
            let error = error.downcast_ref::<LoadError>().expect("as of other model files");
            assert!(error.to_string().contains(file), "{error}");
        };
        let mean = json!({"pooling_mode": "mean"});
        check(json!({}), json!({"pooling_mode": "max"}), "1_Pooling/config.json");
        check(json!({"truncate_dim": -1}), mean.clone(), SETTINGS);
        check(json!({"default_prompt_name": "typo"}), mean, SETTINGS);
        let left_out = json!({"pooling_mode": "mean", "include_prompt": false});
        check(json!({"prompts": {"query": "q: "}}), left_out, "include_prompt");
    }
}
