//! Model folders that are made from others.

use std::{fs, path::Path};

use anyhow::Context;
use burn::tensor::Device;
use firebrick_core::{
    arch,
    checkpoint::{
        LoadError, Source, folder,
        quantise::set_config,
        tensors::{SaveType, write_atomically},
        tokenizer,
    },
};
use firebrick_train::origin::Origin;
use serde_json::Value;

/// What a model folder holds beside its configuration and weights, and one that is made from it as well.
const COMPANIONS: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "source.spm",
    "target.spm",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "normalizer.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "features.json",
    "transitions.json",
    "lexicon.txt",
    "lm.arpa",
    "decode.json",
    "preprocessor_config.json",
    "processor_config.json",
    "firebrick.json",
    "README.md",
];

/// Longest of them.
const LIMIT: u64 = 256 << 20;

/// What the floats of a checkpoint with this configuration are written as.
pub fn float_type(config: &Value) -> SaveType {
    match config.get("dtype").or(config.get("torch_dtype")).and_then(Value::as_str) {
        Some("float16") => SaveType::F16,
        Some("bfloat16") => SaveType::Bf16,
        _ => SaveType::F32,
    }
}

/// Writes `source` with its weights as `dtype`, and says so in `config.json`.
pub fn stored_as(
    dtype: SaveType,
    source: &Source,
    target: &Path,
    device: &Device,
) -> anyhow::Result<()> {
    // Everything is read before anything is written.
    let mut config = source.config()?;
    let model = arch::open(source, device)?;
    let floats = match &dtype {
        SaveType::Sparse(_, floats) => floats,
        other => other,
    };
    let name = match floats {
        SaveType::F16 => "float16",
        SaveType::Bf16 => "bfloat16",
        _ => "float32",
    };
    let object = config.as_object_mut().context("config.json is not an object")?;
    let key = if object.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    object.insert(key.into(), name.into());
    write(source, target, &config, |file| model.save(file, dtype))
}

/// A folder with the weights that `save` writes, this configuration, which is told what they are, and the other files of
/// `source`.
pub fn write(
    source: &Source,
    target: &Path,
    config: &Value,
    save: impl FnOnce(&Path) -> Result<(), LoadError>,
) -> anyhow::Result<()> {
    fs::create_dir_all(target).with_context(|| format!("creating {}", target.display()))?;
    save(&target.join("model.safetensors"))?;
    let mut config = config.clone();
    set_config(&mut config, target)?;
    let text = serde_json::to_string_pretty(&config).context("printing a configuration")?;
    put(target, "config.json", text.as_bytes())?;
    for file in COMPANIONS {
        if let Some(bytes) = source.optional(file, LIMIT)? {
            put(target, file, &bytes)?;
        }
    }
    let (words, config) = ("tokenizer.json", "tokenizer_config.json");
    if target.join(words).exists() && !target.join(config).exists() {
        let words = serde_json::from_slice(&source.read(words, LIMIT)?).context(words)?;
        let longest = Origin::read(source).and_then(|origin| origin.max_len);
        put(target, config, format!("{:#}", tokenizer::config(&words, longest)).as_bytes())?;
    }
    Ok(())
}

pub(crate) fn put(folder: &Path, file: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = folder.join(file);
    write_atomically(&path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// Bytes of a model's weights as they lie there.
pub fn weight_bytes(source: &Source) -> anyhow::Result<u64> {
    let Source::Folder(dir) = source else {
        return Ok(source.read("model.safetensors", LIMIT)?.len() as u64);
    };
    let files = folder::weight_files(dir).with_context(|| dir.display().to_string())?;
    let sizes = files.iter().map(|file| Ok(fs::metadata(file)?.len()));
    sizes.sum::<std::io::Result<u64>>().with_context(|| dir.display().to_string())
}
