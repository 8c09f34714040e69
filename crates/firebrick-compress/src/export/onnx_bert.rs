//! Sequence classifiers of the BERT family as an ONNX graph. `B` batch, `T` tokens, `C` channels.

use firebrick_core::{
    arch::bert::{BertConfig, ModelType},
    checkpoint::Source,
    layers::activation::Activation,
};

use super::{
    graph::Graph,
    onnx::{Attribute, FLOAT, INT64},
};

/// Names of a layer's parts.
struct Names {
    layer: &'static str,
    query_key_value: [&'static str; 3],
    output: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    norm: &'static str,
    /// Dense layer and classifier.
    head: [&'static str; 2],
}

const BERT: Names = Names {
    layer: "encoder.layer",
    query_key_value: ["attention.self.query", "attention.self.key", "attention.self.value"],
    output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
    head: ["bert.pooler.dense", "classifier"],
};

const ROBERTA: Names = Names { head: ["classifier.dense", "classifier.out_proj"], ..BERT };

const DISTILBERT: Names = Names {
    layer: "transformer.layer",
    query_key_value: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norm: "output_layer_norm",
    head: ["pre_classifier", "classifier"],
};

pub fn build<'a>(mut graph: Graph<'a>, source: &Source) -> anyhow::Result<Graph<'a>> {
    let config = BertConfig::read(source)?;
    let (prefix, names) = match config.model_type {
        ModelType::Bert => ("bert", BERT),
        ModelType::Roberta => ("roberta", ROBERTA),
        ModelType::Distilbert => ("distilbert", DISTILBERT),
    };
    let g = &mut graph;
    let ids = g.ids("input_ids");
    let mask = g.ids("attention_mask");
    let mut x = embeddings(g, &config, &format!("{prefix}.embeddings"), &ids)?;
    let mask = hidden(g, &mask);
    let heads = config.num_attention_heads;
    for layer in 0..config.num_hidden_layers {
        let of = |part: &str| format!("{prefix}.{}.{layer}.{part}", names.layer);
        let mut mixed = [const { String::new() }; 3];
        for (mixed, name) in mixed.iter_mut().zip(names.query_key_value) {
            *mixed = g.linear(&x, &of(name))?;
        }
        let [q, k, v] = &mixed;
        let attended = g.attention([q, k, v], heads, config.hidden_size / heads, Some(&mask));
        let attended = g.linear(&attended, &of(names.output))?;
        let sum = g.node("Add", &[&x, &attended], &[]);
        x = g.layer_norm(&sum, &of(names.attention_norm), config.layer_norm_eps)?;
        let up = g.linear(&x, &of(names.up))?;
        let up = g.activation(&up, config.hidden_act);
        let down = g.linear(&up, &of(names.down))?;
        let sum = g.node("Add", &[&x, &down], &[]);
        x = g.layer_norm(&sum, &of(names.norm), config.layer_norm_eps)?;
    }
    let first = g.first_token(&x);
    let dense = g.linear(&first, names.head[0])?;
    let dense = g.activation(
        &dense,
        match config.model_type {
            ModelType::Distilbert => Activation::Relu,
            ModelType::Bert | ModelType::Roberta => Activation::Tanh,
        },
    );
    let logits = g.linear(&dense, names.head[1])?;
    g.logits(&logits);
    Ok(graph)
}

/// Words, positions and segments, `[B, T]` -> `[B, T, C]`.
fn embeddings(
    g: &mut Graph,
    config: &BertConfig,
    prefix: &str,
    ids: &str,
) -> anyhow::Result<String> {
    let words = g.weight(&format!("{prefix}.word_embeddings.weight"))?;
    let words = g.node("Gather", &[&words, ids], &[]);
    let positions = positions(g, config, ids);
    let table = g.weight(&format!("{prefix}.position_embeddings.weight"))?;
    let positions = g.node("Gather", &[&table, &positions], &[]);
    let mut x = g.node("Add", &[&words, &positions], &[]);
    if config.type_vocab_size > 0 {
        let segments = g.ids("token_type_ids");
        let table = g.weight(&format!("{prefix}.token_type_embeddings.weight"))?;
        let segments = g.node("Gather", &[&table, &segments], &[]);
        x = g.node("Add", &[&x, &segments], &[]);
    }
    g.layer_norm(&x, &format!("{prefix}.LayerNorm"), config.layer_norm_eps)
}

/// `[T]` from 0; RoBERTa's count only what is not padding, from behind its index: `[B, T]`.
fn positions(g: &mut Graph, config: &BertConfig, ids: &str) -> String {
    let to_ids = Attribute::int("to", INT64.into());
    match config.model_type {
        ModelType::Bert | ModelType::Distilbert => {
            let shape = g.node("Shape", &[ids], &[]);
            let [zero, one] = [g.integers(&[0], true), g.integers(&[1], true)];
            let tokens = g.node("Gather", &[&shape, &one], &[Attribute::int("axis", 0)]);
            g.node("Range", &[&zero, &tokens, &one], &[])
        }
        ModelType::Roberta => {
            let padding = g.integers(&[config.pad_token_id.unwrap_or(1) as i64], true);
            let axis = g.integers(&[1], true);
            let unused = g.node("Equal", &[ids, &padding], &[]);
            let used = g.node("Not", &[&unused], &[]);
            let used = g.node("Cast", &[&used], &[to_ids]);
            let count = g.node("CumSum", &[&used, &axis], &[]);
            let count = g.node("Mul", &[&count, &used], &[]);
            g.node("Add", &[&count, &padding], &[])
        }
    }
}

/// What is added to scores: 0 where `mask` is 1, very little where it is 0. `[B, T]` -> `[B, 1, 1, T]`
fn hidden(g: &mut Graph, mask: &str) -> String {
    let mask = g.node("Cast", &[mask], &[Attribute::int("to", FLOAT.into())]);
    let [one, least] = [g.float(1.0), g.float(f32::MIN)];
    let padding = g.node("Sub", &[&one, &mask], &[]);
    let scores = g.node("Mul", &[&padding, &least], &[]);
    let axes = g.integers(&[1, 2], false);
    g.node("Unsqueeze", &[&scores, &axes], &[])
}
