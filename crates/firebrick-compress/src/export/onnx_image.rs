//! Classifiers of pictures and spectrograms as an ONNX graph. `B` batch, `C` channels, `H` rows, `W` columns.

use anyhow::Context;
use firebrick_core::{
    arch::{
        resnet::{LayerType, ResNetConfig},
        vit::VitConfig,
    },
    layers::activation::Activation,
};
use serde_json::Value;

use super::{graph::Graph, onnx::Attribute};

pub fn vit<'a>(mut graph: Graph<'a>, config: &Value) -> anyhow::Result<Graph<'a>> {
    let config: VitConfig = serde_json::from_value(config.clone()).context("config.json")?;
    let encoder = &config.encoder;
    let (channels, heads, eps) =
        (encoder.hidden_size, encoder.num_attention_heads, encoder.layer_norm_eps);
    let head_dim = encoder.head_dim.unwrap_or(channels / heads);
    let g = &mut graph;
    let pixels = g.pixels(config.num_channels, Some(config.image_size));
    let stride = config.patch_size.map(|side| side as i64);
    let patches =
        convolution(g, &pixels, "vit.embeddings.patch_embeddings.projection", stride, [0, 0])?;
    let flat = g.integers(&[0, channels as i64, -1], false);
    let patches = g.node("Reshape", &[&patches, &flat], &[]);
    let patches = g.node("Transpose", &[&patches], &[Attribute::ints("perm", &[0, 2, 1])]);
    // The class token, as often as there are pictures.
    let class_token = g.weight("vit.embeddings.cls_token")?;
    let shape = g.node("Shape", &[&pixels], &[Attribute::int("end", 1)]);
    let ones = g.integers(&[1, 1], false);
    let shape = g.node("Concat", &[&shape, &ones], &[Attribute::int("axis", 0)]);
    let class_token = g.node("Expand", &[&class_token, &shape], &[]);
    let tokens = g.node("Concat", &[&class_token, &patches], &[Attribute::int("axis", 1)]);
    let positions = g.weight("vit.embeddings.position_embeddings")?;
    let mut x = g.node("Add", &[&tokens, &positions], &[]);
    for layer in 0..encoder.num_hidden_layers {
        let of = |part: &str| format!("vit.encoder.layer.{layer}.{part}");
        let normed = g.layer_norm(&x, &of("layernorm_before"), eps)?;
        let [q, k, v] = ["query", "key", "value"]
            .map(|part| g.linear(&normed, &of(&format!("attention.attention.{part}"))));
        let attended = g.attention([&q?, &k?, &v?], heads, head_dim, None);
        let attended = g.linear(&attended, &of("attention.output.dense"))?;
        x = g.node("Add", &[&x, &attended], &[]);
        let normed = g.layer_norm(&x, &of("layernorm_after"), eps)?;
        let up = g.linear(&normed, &of("intermediate.dense"))?;
        let up = g.activation(&up, encoder.hidden_act);
        let down = g.linear(&up, &of("output.dense"))?;
        x = g.node("Add", &[&x, &down], &[]);
    }
    let first = g.first_token(&x);
    let first = g.layer_norm(&first, "vit.layernorm", eps)?;
    let logits = g.linear(&first, "classifier")?;
    g.logits(&logits);
    Ok(graph)
}

pub fn resnet<'a>(mut graph: Graph<'a>, config: &Value) -> anyhow::Result<Graph<'a>> {
    let config: ResNetConfig = serde_json::from_value(config.clone()).context("config.json")?;
    let g = &mut graph;
    let pixels = g.pixels(config.num_channels, None);
    let x = conv_norm(g, &pixels, "resnet.embedder.embedder", 7, 2)?;
    let x = g.activation(&x, config.hidden_act);
    let square = |name: &str, side: i64| Attribute::ints(name, &[side, side]);
    let pool = [square("kernel_shape", 3), square("strides", 2), Attribute::ints("pads", &[1; 4])];
    let mut x = g.node("MaxPool", &[&x], &pool);
    let mut width = config.embedding_size;
    for (stage, (&out, &depth)) in config.hidden_sizes.iter().zip(&config.depths).enumerate() {
        for layer in 0..depth {
            let halves = layer == 0 && (stage > 0 || config.downsample_in_first_stage);
            let stride = if halves { 2 } else { 1 };
            let of = |part: &str| format!("resnet.encoder.stages.{stage}.layers.{layer}.{part}");
            // Kernel and stride of each convolution.
            let convolutions = match (config.layer_type, config.downsample_in_bottleneck) {
                (LayerType::Basic, _) => vec![(3, stride), (3, 1)],
                (LayerType::Bottleneck, true) => vec![(1, stride), (3, 1), (1, 1)],
                (LayerType::Bottleneck, false) => vec![(1, 1), (3, stride), (1, 1)],
            };
            let mut branch = x.clone();
            for (index, &(kernel, stride)) in convolutions.iter().enumerate() {
                branch = conv_norm(g, &branch, &of(&format!("layer.{index}")), kernel, stride)?;
                if index + 1 < convolutions.len() {
                    branch = g.activation(&branch, Activation::Relu);
                }
            }
            let shortcut = match width != out || stride != 1 {
                true => conv_norm(g, &x, &of("shortcut"), 1, stride)?,
                false => x,
            };
            let sum = g.node("Add", &[&branch, &shortcut], &[]);
            x = g.activation(&sum, config.hidden_act);
            width = out;
        }
    }
    let x = g.node("GlobalAveragePool", &[&x], &[]);
    let x = g.node("Flatten", &[&x], &[]);
    let logits = g.linear(&x, "classifier.1")?;
    g.logits(&logits);
    Ok(graph)
}

/// `[B, I, H, W]` -> `[B, O, H', W']`, with a bias where the checkpoint has one.
fn convolution(
    g: &mut Graph,
    x: &str,
    prefix: &str,
    stride: [i64; 2],
    padding: [i64; 2],
) -> anyhow::Result<String> {
    let weight = g.weight(&format!("{prefix}.weight"))?;
    let bias = g.weight(&format!("{prefix}.bias")).ok();
    let inputs: Vec<&str> = [x, &weight].into_iter().chain(bias.as_deref()).collect();
    let [rows, columns] = padding;
    let attributes = [
        Attribute::ints("strides", &stride),
        Attribute::ints("pads", &[rows, columns, rows, columns]),
    ];
    Ok(g.node("Conv", &inputs, &attributes))
}

/// A square convolution that keeps the size, or divides it by `stride`, and its norm.
fn conv_norm(
    g: &mut Graph,
    x: &str,
    prefix: &str,
    kernel: i64,
    stride: i64,
) -> anyhow::Result<String> {
    let x = convolution(g, x, &format!("{prefix}.convolution"), [stride; 2], [kernel / 2; 2])?;
    let parts = ["weight", "bias", "running_mean", "running_var"];
    let parts = parts.map(|part| g.weight(&format!("{prefix}.normalization.{part}")));
    let parts = parts.into_iter().collect::<anyhow::Result<Vec<String>>>()?;
    let inputs: Vec<&str> = std::iter::once(&x).chain(&parts).map(String::as_str).collect();
    Ok(g.node("BatchNormalization", &inputs, &[Attribute::float("epsilon", 1e-5)]))
}
