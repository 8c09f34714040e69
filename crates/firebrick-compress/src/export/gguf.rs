//! Decoders of the Llama kind as a GGUF file, which llama.cpp reads:
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod blocks;
mod vocabulary;

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::Context;
use burn::tensor::Device;
use firebrick_core::{
    arch,
    arch::llama::{LlamaConfig, ModelType},
    checkpoint::{Source, tensors::Weights, write::sync_folder},
    layers::{
        activation::Activation,
        position::{Rope, RopeScaling},
    },
};

pub use blocks::Number;

use super::NoForm;

/// Tensors begin at multiples of this.
const ALIGNMENT: u64 = 32;
const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;

/// Writes a Llama, Mistral, Qwen2 or Qwen3 with its tokenizer; matrices become `number`, vectors stay f32.
pub fn gguf(source: &Source, target: &Path, number: Number, device: &Device) -> anyhow::Result<()> {
    let json = source.config()?;
    let family = json["model_type"].as_str().unwrap_or_default();
    let refused = |problem: String| Err(NoForm(problem).into());
    if !["llama", "mistral", "qwen2", "qwen3"].contains(&family) {
        return refused(format!(
            "{family} has no GGUF form here: it is for Llama, Mistral, Qwen2 and Qwen3"
        ));
    }
    let config = LlamaConfig::read(source)?;
    if config.hidden_act != Activation::Silu {
        return refused(
            "hidden_act is not silu, and llama.cpp knows no other in this family".into(),
        );
    }
    if config.windowed() {
        return refused(
            "sliding_window is shorter than max_position_embeddings, and GGUF's form of this family has no window"
                .into(),
        );
    }
    drop(arch::open(source, device)?);
    let weights = source.weights()?;
    let architecture = match config.model_type {
        ModelType::Llama | ModelType::Mistral => "llama",
        ModelType::Qwen2 => "qwen2",
        ModelType::Qwen3 => "qwen3",
    };
    let mut header = Header::default();
    header.string("general.architecture", architecture);
    let path = source.path("");
    let name = path.file_name().unwrap_or(architecture.as_ref());
    header.string("general.name", &name.to_string_lossy());
    header.number("general.file_type", number.file_type());
    sizes(&mut header, architecture, &config);
    vocabulary::write(&mut header, source, config.vocab_size)?;
    let tensors = tensors(&config, &weights, number)?;
    let mut temporary = target.as_os_str().to_os_string();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let written = write(temporary, &header, &tensors, &weights);
    let written = written.with_context(|| format!("writing {}", target.display()));
    let moved = written.and_then(|()| {
        std::fs::rename(temporary, target)
            .with_context(|| format!("writing {}", target.display()))?;
        sync_folder(target).with_context(|| format!("writing {}", target.display()))
    });
    if moved.is_err() {
        let _ = std::fs::remove_file(temporary);
    }
    moved
}

fn sizes(header: &mut Header, architecture: &str, config: &LlamaConfig) {
    let mut size =
        |key: &str, value: usize| header.number(&format!("{architecture}.{key}"), value as u32);
    size("context_length", config.max_position_embeddings);
    size("embedding_length", config.hidden_size);
    size("block_count", config.num_hidden_layers);
    size("feed_forward_length", config.intermediate_size);
    size("attention.head_count", config.num_attention_heads);
    size("attention.head_count_kv", config.key_value_heads());
    size("attention.key_length", config.head_dim());
    size("attention.value_length", config.head_dim());
    size("rope.dimension_count", config.head_dim());
    size("vocab_size", config.vocab_size);
    let mut float =
        |key: &str, value: f64| header.float(&format!("{architecture}.{key}"), value as f32);
    float("attention.layer_norm_rms_epsilon", config.rms_norm_eps);
    match config.rope {
        RopeScaling::Default { rope_theta } | RopeScaling::Llama3 { rope_theta, .. } => {
            float("rope.freq_base", rope_theta);
        }
        RopeScaling::Linear { rope_theta, factor } => {
            float("rope.freq_base", rope_theta);
            float("rope.scaling.factor", factor);
            header.string(&format!("{architecture}.rope.scaling.type"), "linear");
        }
    }
}

/// A tensor of the file.
struct Planned {
    name: String,
    shape: Vec<usize>,
    number: Number,
    from: From,
}

enum From {
    /// A tensor of the checkpoint.
    Weight(String),
    /// The same, rows of each of so many heads in llama.cpp's order: its rotation turns neighbours, that of
    /// `transformers` the channels `i` and `i + D / 2`.
    Rotated(String, usize),
    Floats(Vec<f32>),
}

impl Planned {
    fn bytes(&self) -> u64 {
        let [rows, columns] =
            [self.shape[..self.shape.len() - 1].iter().product(), self.shape[self.shape.len() - 1]];
        self.number.row_bytes(columns) * rows as u64
    }

    fn floats(&self, weights: &Weights) -> anyhow::Result<Vec<f32>> {
        Ok(match &self.from {
            From::Weight(name) => weights.floats(name)?,
            From::Rotated(name, heads) => {
                let floats = weights.floats(name)?;
                let width = self.shape.get(1).copied().unwrap_or(1);
                let half = self.shape[0] / heads / 2;
                let row = |head: usize, i: usize, part: usize| (2 * head + part) * half + i;
                let order = (0..*heads).flat_map(|head| {
                    (0..half).flat_map(move |i| [row(head, i, 0), row(head, i, 1)])
                });
                order.flat_map(|row| &floats[row * width..][..width]).copied().collect()
            }
            From::Floats(floats) => floats.clone(),
        })
    }
}

#[rustfmt::skip]
const LAYER: &[(&str, &str)] = &[
    // GGUF                  checkpoint
    ("attn_norm.weight",     "input_layernorm.weight"),
    ("attn_q.weight",        "self_attn.q_proj.weight"),
    ("attn_q.bias",          "self_attn.q_proj.bias"),
    ("attn_q_norm.weight",   "self_attn.q_norm.weight"),
    ("attn_k.weight",        "self_attn.k_proj.weight"),
    ("attn_k.bias",          "self_attn.k_proj.bias"),
    ("attn_k_norm.weight",   "self_attn.k_norm.weight"),
    ("attn_v.weight",        "self_attn.v_proj.weight"),
    ("attn_v.bias",          "self_attn.v_proj.bias"),
    ("attn_output.weight",   "self_attn.o_proj.weight"),
    ("ffn_norm.weight",      "post_attention_layernorm.weight"),
    ("ffn_gate.weight",      "mlp.gate_proj.weight"),
    ("ffn_up.weight",        "mlp.up_proj.weight"),
    ("ffn_down.weight",      "mlp.down_proj.weight"),
];

fn tensors(
    config: &LlamaConfig,
    weights: &Weights,
    number: Number,
) -> anyhow::Result<Vec<Planned>> {
    let mut planned = vec![];
    let mut add = |name: String, from: From| -> anyhow::Result<()> {
        let (From::Weight(source) | From::Rotated(source, _)) = &from else { return Ok(()) };
        let shape = weights
            .shape(source)
            .with_context(|| format!("there is no tensor {source} in the model"))?;
        let number = if shape.len() == 1 { Number::F32 } else { number.for_rows_of(shape[1]) };
        planned.push(Planned { name, shape: shape.to_vec(), number, from });
        Ok(())
    };
    let weight = |name: &str| From::Weight(name.into());
    add("token_embd.weight".into(), weight("model.embed_tokens.weight"))?;
    let turned = matches!(config.model_type, ModelType::Llama | ModelType::Mistral);
    for layer in 0..config.num_hidden_layers {
        for (name, part) in LAYER {
            let source = format!("model.layers.{layer}.{part}");
            if weights.shape(&source).is_none()
                && (part.ends_with("bias") || part.contains("_norm."))
            {
                continue; // Qwen's alone
            }
            let from = match *part {
                "self_attn.q_proj.weight" if turned => {
                    From::Rotated(source, config.num_attention_heads)
                }
                "self_attn.k_proj.weight" if turned => {
                    From::Rotated(source, config.key_value_heads())
                }
                _ => From::Weight(source),
            };
            add(format!("blk.{layer}.{name}"), from)?;
        }
    }
    add("output_norm.weight".into(), weight("model.norm.weight"))?;
    if !config.tie_word_embeddings {
        add("output.weight".into(), weight("lm_head.weight"))?;
    }
    if let Some(factors) = slowed(config) {
        let (name, shape) = ("rope_freqs.weight".into(), vec![factors.len()]);
        planned.push(Planned { name, shape, number: Number::F32, from: From::Floats(factors) });
    }
    Ok(planned)
}

/// What the frequencies of a Llama 3.1 are divided by, `[D / 2]`.
fn slowed(config: &LlamaConfig) -> Option<Vec<f32>> {
    let RopeScaling::Llama3 { rope_theta, .. } = config.rope else { return None };
    let plain = Rope::new(config.head_dim(), &RopeScaling::Default { rope_theta });
    let slow = Rope::new(config.head_dim(), &config.rope);
    let divisors = plain.frequencies().iter().zip(slow.frequencies()).map(|(f, slow)| f / slow);
    Some(divisors.collect())
}

/// Keys and values, as they lie in the file.
#[derive(Default)]
struct Header {
    count: u64,
    bytes: Vec<u8>,
}

impl Header {
    fn key(&mut self, key: &str, kind: u32) {
        self.count += 1;
        put_string(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
    }

    fn number(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn float(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.bytes.extend(value.to_le_bytes());
    }

    fn truth(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.bytes.push(value.into());
    }

    fn string(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        put_string(&mut self.bytes, value);
    }

    fn strings(&mut self, key: &str, values: &[String]) {
        self.array(key, 8, values.len());
        values.iter().for_each(|value| put_string(&mut self.bytes, value));
    }

    fn floats(&mut self, key: &str, values: &[f32]) {
        self.array(key, 6, values.len());
        self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    fn integers(&mut self, key: &str, values: &[i32]) {
        self.array(key, 5, values.len());
        self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    fn array(&mut self, key: &str, kind: u32, length: usize) {
        self.key(key, 9);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((length as u64).to_le_bytes());
    }
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn write(
    path: &Path,
    header: &Header,
    tensors: &[Planned],
    weights: &Weights,
) -> anyhow::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend(header.count.to_le_bytes());
    bytes.extend(&header.bytes);
    let mut offset = 0_u64;
    for tensor in tensors {
        put_string(&mut bytes, &tensor.name);
        bytes.extend((tensor.shape.len() as u32).to_le_bytes());
        // The axis that is contiguous comes first.
        bytes.extend(tensor.shape.iter().rev().flat_map(|axis| (*axis as u64).to_le_bytes()));
        bytes.extend(tensor.number.code().to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&bytes)?;
    for tensor in tensors {
        let columns = tensor.shape[tensor.shape.len() - 1];
        let floats = tensor.floats(weights)?;
        let stored = tensor.number.store(&floats, columns);
        file.write_all(&stored)?;
        let padding = tensor.bytes().next_multiple_of(ALIGNMENT) - tensor.bytes();
        file.write_all(&vec![0; padding as usize])?;
    }
    Ok(file.into_inner().map_err(|error| error.into_error())?.sync_all()?)
}
