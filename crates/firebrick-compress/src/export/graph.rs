//! An ONNX graph as it grows: a call adds a node and returns the name of what comes out of it.

use anyhow::{Context, anyhow, bail};
use firebrick_core::{checkpoint::tensors::Weights, layers::activation::Activation};
use prost::Message;

use super::onnx::{
    self, Attribute, Dim, Extent, FLOAT, INT64, Model, Node, OperatorSet, Shape, StringEntry,
    TensorType, ValueInfo, ValueType,
};

/// The first operator set with `Gelu`; that with `LayerNormalization` is 17.
const OPERATOR_SET: i64 = 20;
/// Of the release of ONNX with that operator set.
const IR_VERSION: i64 = 9;
/// A protocol buffer is no longer than this.
const LONGEST: usize = i32::MAX as usize;

pub struct Graph<'a> {
    weights: &'a Weights,
    graph: onnx::Graph,
}

impl<'a> Graph<'a> {
    pub fn new(weights: &'a Weights) -> Self {
        Self { weights, graph: onnx::Graph { name: "model".into(), ..Default::default() } }
    }

    /// An input of whole numbers, `[batch, tokens]`.
    pub fn ids(&mut self, name: &str) -> String {
        let axes = [Extent::Name("batch".into()), Extent::Name("tokens".into())];
        self.graph.input.push(value(name, INT64, &axes));
        name.into()
    }

    /// `pixel_values`, `[batch, channels, rows, columns]`.
    pub fn pixels(&mut self, channels: usize, size: Option<[usize; 2]>) -> String {
        let axis = |name: &str, index: usize| match size {
            Some(size) => Extent::Value(size[index] as i64),
            None => Extent::Name(name.into()),
        };
        let batch = Extent::Name("batch".into());
        let axes = [batch, Extent::Value(channels as i64), axis("rows", 0), axis("columns", 1)];
        self.graph.input.push(value("pixel_values", FLOAT, &axes));
        "pixel_values".into()
    }

    /// The node whose only output is returned.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: &[Attribute]) -> String {
        let name = format!("{}_{}", op.to_lowercase(), self.graph.node.len());
        self.graph.node.push(Node {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: op.into(),
            attribute: attributes.to_vec(),
        });
        name
    }

    fn shape(&self, name: &str) -> anyhow::Result<&'a [usize]> {
        self.weights.shape(name).with_context(|| format!("there is no tensor {name} in the model"))
    }

    fn constant(
        &mut self,
        name: &str,
        data_type: i32,
        dims: Vec<i64>,
        raw_data: Vec<u8>,
    ) -> String {
        if !self.graph.initializer.iter().any(|known| known.name == name) {
            self.graph.initializer.push(onnx::Tensor {
                dims,
                data_type,
                name: name.into(),
                raw_data,
            });
        }
        name.into()
    }

    /// A tensor of the checkpoint, as it is.
    pub fn weight(&mut self, name: &str) -> anyhow::Result<String> {
        let dims = self.shape(name)?.iter().map(|axis| *axis as i64).collect();
        let bytes =
            self.weights.floats(name)?.iter().flat_map(|float| float.to_le_bytes()).collect();
        Ok(self.constant(name, FLOAT, dims, bytes))
    }

    /// Whole numbers, `[n]`, or one with no axis.
    pub fn integers(&mut self, values: &[i64], scalar: bool) -> String {
        let name = format!("integers_{}{}", if scalar { "scalar_" } else { "" }, join(values));
        let dims = if scalar { vec![] } else { vec![values.len() as i64] };
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(&name, INT64, dims, bytes)
    }

    /// A number with no axis.
    pub fn float(&mut self, value: f32) -> String {
        self.constant(&format!("float_{value}"), FLOAT, vec![], value.to_le_bytes().to_vec())
    }

    /// `[.., I]` -> `[.., O]`
    pub fn linear(&mut self, x: &str, prefix: &str) -> anyhow::Result<String> {
        let name = format!("{prefix}.weight");
        let &[outputs, inputs] = self.shape(&name)? else { bail!("{name} is no matrix") };
        let floats = self.weights.floats(&name)?;
        let column =
            |i: usize| floats.iter().skip(i).step_by(inputs).flat_map(|float| float.to_le_bytes());
        let transposed = (0..inputs).flat_map(column).collect();
        let weight = self.constant(&name, FLOAT, vec![inputs as i64, outputs as i64], transposed);
        let x = self.node("MatMul", &[x, &weight], &[]);
        let bias = format!("{prefix}.bias");
        match self.weights.shape(&bias) {
            Some(_) => {
                let bias = self.weight(&bias)?;
                Ok(self.node("Add", &[&x, &bias], &[]))
            }
            None => Ok(x),
        }
    }

    /// Over the last axis.
    pub fn layer_norm(&mut self, x: &str, prefix: &str, eps: f64) -> anyhow::Result<String> {
        let [weight, bias] =
            [self.weight(&format!("{prefix}.weight"))?, self.weight(&format!("{prefix}.bias"))?];
        let attributes = [Attribute::int("axis", -1), Attribute::float("epsilon", eps as f32)];
        Ok(self.node("LayerNormalization", &[x, &weight, &bias], &attributes))
    }

    pub fn activation(&mut self, x: &str, activation: Activation) -> String {
        match activation {
            Activation::Gelu => self.node("Gelu", &[x], &[]),
            Activation::GeluNew => {
                self.node("Gelu", &[x], &[Attribute::string("approximate", "tanh")])
            }
            Activation::Relu => self.node("Relu", &[x], &[]),
            Activation::Tanh => self.node("Tanh", &[x], &[]),
            Activation::Relu6 => {
                let [low, high] = [self.float(0.0), self.float(6.0)];
                self.node("Clip", &[x, &low, &high], &[])
            }
            Activation::Silu => {
                let gate = self.node("Sigmoid", &[x], &[]);
                self.node("Mul", &[x, &gate], &[])
            }
            Activation::QuickGelu => {
                let scale = self.float(1.702);
                let scaled = self.node("Mul", &[x, &scale], &[]);
                let gate = self.node("Sigmoid", &[&scaled], &[]);
                self.node("Mul", &[x, &gate], &[])
            }
        }
    }

    /// Scaled dot-product attention of queries, keys and values `[B, T, heads * d]` -> `[B, T, heads * d]`; `mask` is
    /// added to the scores `[B, heads, T, T]`.
    pub fn attention(
        &mut self,
        [q, k, v]: [&str; 3],
        heads: usize,
        head_dim: usize,
        mask: Option<&str>,
    ) -> String {
        let split = self.integers(&[0, 0, heads as i64, head_dim as i64], false);
        let mut part = |x: &str, order: &[i64]| {
            let x = self.node("Reshape", &[x, &split], &[]);
            self.node("Transpose", &[&x], &[Attribute::ints("perm", order)])
        };
        let [q, k, v] = [part(q, &[0, 2, 1, 3]), part(k, &[0, 2, 3, 1]), part(v, &[0, 2, 1, 3])];
        let scores = self.node("MatMul", &[&q, &k], &[]);
        let scale = self.float((head_dim as f32).sqrt().recip());
        let mut scores = self.node("Mul", &[&scores, &scale], &[]);
        if let Some(mask) = mask {
            scores = self.node("Add", &[&scores, mask], &[]);
        }
        let weights = self.node("Softmax", &[&scores], &[Attribute::int("axis", -1)]);
        let mixed = self.node("MatMul", &[&weights, &v], &[]);
        let mixed = self.node("Transpose", &[&mixed], &[Attribute::ints("perm", &[0, 2, 1, 3])]);
        let joined = self.integers(&[0, 0, (heads * head_dim) as i64], false);
        self.node("Reshape", &[&mixed, &joined], &[])
    }

    /// The vector of the first token, `[B, T, C]` -> `[B, C]`.
    pub fn first_token(&mut self, x: &str) -> String {
        let first = self.integers(&[0], true);
        self.node("Gather", &[x, &first], &[Attribute::int("axis", 1)])
    }

    /// What the last node gives becomes `logits`, `[batch, labels]`.
    pub fn logits(&mut self, x: &str) {
        self.graph.node.push(Node {
            input: vec![x.into()],
            output: vec!["logits".into()],
            name: "logits".into(),
            op_type: "Identity".into(),
            attribute: vec![],
        });
        let axes = [Extent::Name("batch".into()), Extent::Name("labels".into())];
        self.graph.output.push(value("logits", FLOAT, &axes));
    }

    /// The file's bytes.
    pub fn finish(self, labels: Option<&str>) -> anyhow::Result<Vec<u8>> {
        let metadata =
            labels.map(|labels| StringEntry { key: "id2label".into(), value: labels.into() });
        let model = Model {
            ir_version: IR_VERSION,
            producer_name: "firebrick".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.graph),
            opset_import: vec![OperatorSet { domain: String::new(), version: OPERATOR_SET }],
            metadata_props: metadata.into_iter().collect(),
        };
        match model.encoded_len() {
            length if length > LONGEST => Err(anyhow!(
                "the model has {length} bytes in f32, and an ONNX file holds at most {LONGEST}"
            )),
            _ => Ok(model.encode_to_vec()),
        }
    }
}

fn join(values: &[i64]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join("_")
}

fn value(name: &str, element: i32, axes: &[Extent]) -> ValueInfo {
    let dim = axes.iter().map(|extent| Dim { extent: Some(extent.clone()) }).collect();
    let tensor = TensorType { element, shape: Some(Shape { dim }) };
    ValueInfo { name: name.into(), kind: Some(ValueType { tensor: Some(tensor) }) }
}
