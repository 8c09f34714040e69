//! Weights as whole numbers in a file: which become so, and under which names.
//!
//! The names and layouts are those of compressed-tensors, <https://github.com/vllm-project/compressed-tensors>: a
//! matrix `[O, I]` is `weight` (I8) and `weight_scale` (`[O, 1]`), or for four bits `weight_packed` (I32, eight
//! numbers each, `level + 8`, the first in the lowest bits), `weight_scale` (`[O, G]`, BF16) and `weight_shape`. Matrices are
//! always `[O, I]`, GPT-2's too. The weights of a convolution, `[O, I, ..]`, are eight bits. Where the CPU multiplies words of
//! eight bits and there are enough channels for it, they are computed with as they are, else they become floats when they are
//! read.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use burn::tensor::bf16;
use firebrick_kernels::quantised::{Format, Levels, Range, gptq, levels};
use serde_json::{Value, json};

use super::{
    LoadError, folder,
    header::{Dtype, TensorInfo, read_header},
    write::Planned,
};
use crate::layers::moments::Moments;

/// Numbers below which a matrix stays as it is: its scales and names would be most of what is saved.
const SMALL: usize = 1024;

/// Input channels of a convolution (of one of its groups) from which on its levels are computed with. Depthwise convolutions
/// stay below: they would be slower, as three of four channels of a word are empty.
pub(super) const CONVOLVED: usize = 3;

/// Which weights become whole numbers, and how. What does not is written as f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Of linear layers, where the inputs are whole groups; other weights, as tables of words, become int8.
    pub linear: Format,
    pub range: Range,
    /// Names of weights that become int8 whatever `linear` is.
    pub int8: BTreeSet<String>,
    /// Names of weights that stay floats.
    pub floats: BTreeSet<String>,
    /// Linear layers whose inputs are known here are rounded by GPTQ.
    pub moments: Moments,
}

/// What becomes of one weight.
pub(super) struct Rounding {
    pub format: Format,
    range: Range,
    moments: Option<Arc<[f32]>>,
}

impl Plan {
    /// All weights, with the scales that cut nothing off.
    pub fn new(linear: Format) -> Self {
        let range = match linear {
            Format::Int8 => Range::MinMax,
            // With fifteen levels the best range is some tenths smaller than the largest weight.
            Format::Int4 { .. } => Range::Mse,
        };
        let (int8, floats, moments) = Default::default();
        Self { linear, range, int8, floats, moments }
    }

    /// What becomes of the matrix of this name, `[O, inputs]`; `None` leaves it.
    pub(super) fn rounding(
        &self,
        name: &str,
        linear: bool,
        [outputs, inputs]: [usize; 2],
    ) -> Option<Rounding> {
        let format = self.format(name, linear, [outputs, inputs])?;
        let moments = self.moments.get(name).filter(|h| linear && h.len() == inputs * inputs);
        Some(Rounding { format, range: self.range, moments: moments.cloned() })
    }

    /// As [`Self::rounding`], but only what it is rounded to.
    pub(super) fn format(
        &self,
        name: &str,
        linear: bool,
        [outputs, inputs]: [usize; 2],
    ) -> Option<Format> {
        if outputs * inputs < SMALL || self.floats.contains(name) {
            return None;
        }
        let fits = match self.linear {
            Format::Int8 => true,
            Format::Int4 { group } => inputs.is_multiple_of(group),
        };
        let format = if linear && fits { self.linear } else { Format::Int8 };
        Some(if self.int8.contains(name) { Format::Int8 } else { format })
    }
}

const METHOD: &str = "compressed-tensors";

/// Writes into a `config.json` what the weights beside it in `dir` were written as; of floats it says nothing.
pub fn set_config(config: &mut Value, dir: &Path) -> Result<(), LoadError> {
    let bad = |path: &Path, problem: String| {
        let path = path.to_path_buf();
        LoadError::Checkpoint { path, problem }
    };
    let mut tensors = vec![];
    for file in folder::weight_files(dir).map_err(|e| bad(dir, e.to_string()))? {
        tensors.extend(read_header(&file).map_err(|e| bad(&file, e.to_string()))?.tensors);
    }
    let tied = config["tie_word_embeddings"] == true;
    if let Some(object) = config.as_object_mut() {
        object.remove("quantization_config");
        let found = described(&tensors, tied);
        object.extend(found.map(|found| ("quantization_config".into(), found)));
    }
    Ok(())
}

/// `quantization_config` of these tensors, `None` of floats. What reads it goes by kinds of modules unless it is told names:
/// those that are not like the others of their kind have to be named.
///
/// compressed-tensors has modules of whole numbers for linear layers and tables alone. Where there are convolutions, or the
/// table of words is the last layer too (`tied`), `dequantize` has `transformers` make floats of all that it reads; it
/// can do so where every weight has the same format.
fn described(tensors: &[TensorInfo], tied: bool) -> Option<Value> {
    let modules = |wanted: fn(&TensorInfo) -> bool| -> Vec<&str> {
        let tensors = tensors.iter().filter(|tensor| wanted(tensor));
        tensors.filter_map(|tensor| tensor.name.strip_suffix(".weight")).collect()
    };
    let shape = |name: String| tensors.iter().find(|t| t.name == name).map(|t| &t.shape);
    let mut packed = tensors.iter().filter_map(|t| Some((t, t.name.strip_suffix("_packed")?)));
    let group = packed.find_map(|(tensor, name)| {
        let groups = *shape(format!("{name}_scale"))?.get(1)?;
        (8 * *tensor.shape.get(1)?).checked_div(groups)
    });
    if group.is_none() && !tensors.iter().any(|tensor| tensor.dtype == Dtype::I8) {
        return None;
    }
    let token = json!({
        "num_bits": 8, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true,
    });
    let int8 = json!({
        "num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel", "dynamic": false,
    });
    // Tables, convolutions, and linear layers whose inputs are not whole groups of four bits.
    let convolutions = modules(|tensor| tensor.dtype == Dtype::I8 && tensor.shape.len() > 2);
    let dequantize = group.is_none() && (tied || !convolutions.is_empty());
    let (whole, linear, others) = match group {
        None => {
            let linear = json!({"weights": int8, "format": "int-quantized"});
            ("int-quantized", linear, [&["Embedding"][..], &convolutions].concat())
        }
        Some(group) => {
            let weights = json!({
                "num_bits": 4, "type": "int", "symmetric": true, "strategy": "group",
                "group_size": group, "dynamic": false,
            });
            let linear = json!({"weights": weights, "format": "pack-quantized"});
            ("mixed-precision", linear, modules(|tensor| tensor.dtype == Dtype::I8))
        }
    };
    let mut groups = json!({"group_1": linear});
    groups["group_1"]["targets"] = json!(["Linear"]);
    groups["group_1"]["input_activations"] = token;
    // What has names comes first.
    if !others.is_empty() {
        groups["group_0"] = json!({"targets": others, "weights": int8, "format": "int-quantized"});
    }
    let floats = modules(|tensor| tensor.dtype != Dtype::I8 && tensor.shape.len() > 1);
    let mut found = json!({
        "quant_method": METHOD,
        "format": whole,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": floats,
    });
    if dequantize {
        found["dequantize"] = true.into();
    }
    Some(found)
}

/// Refuses the layouts of others, whose tensors would only be told to fit nothing.
pub(super) fn check_config(config: &Value) -> Result<(), String> {
    match config.pointer("/quantization_config/quant_method").and_then(Value::as_str) {
        None | Some(METHOD) => Ok(()),
        Some(other) => Err(format!(
            "quantization_config.quant_method is {}; only {METHOD} is supported",
            super::json::quoted(other)
        )),
    }
}

/// The tensors of a quantised weight `[O, I, ..]`, in the order of [`Rounding::encode`]; four bits are for matrices.
pub(super) fn planned(name: &str, format: Format, shape: &[usize]) -> Vec<Planned> {
    let [outputs, inputs] = [shape[0], shape[1]];
    let tensor = |suffix, dtype, shape: &[usize]| Planned {
        name: format!("{name}{suffix}"),
        shape: shape.to_vec(),
        dtype: Some(dtype),
    };
    match format {
        Format::Int8 => vec![
            tensor("", Dtype::I8, shape),
            tensor("_scale", Dtype::F32, &[&[outputs], &[1].repeat(shape.len() - 1)[..]].concat()),
        ],
        Format::Int4 { .. } => vec![
            tensor("_packed", Dtype::I32, &[outputs, inputs.div_ceil(8)]),
            tensor("_scale", Dtype::BF16, &[outputs, format.groups(inputs)]),
            tensor("_shape", Dtype::I64, &[2]),
        ],
    }
}

impl Rounding {
    /// The bytes of the tensors of [`planned`].
    pub(super) fn encode(&self, weights: &[f32], inputs: usize) -> Vec<Vec<u8>> {
        let Self { format, range, moments } = self;
        let Levels { levels, scales } = match moments {
            Some(moments) => gptq(weights, moments, inputs, *format, *range),
            None => levels(weights, inputs, *format, *range),
        };
        match format {
            Format::Int8 => {
                let scales = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
                vec![bytemuck::cast_slice(&levels).to_vec(), scales]
            }
            Format::Int4 { .. } => {
                let shape = [weights.len() / inputs, inputs].map(|size| size as i64);
                let shape = shape.iter().flat_map(|size| size.to_le_bytes()).collect();
                // They are chosen so that this is exact.
                let scales = scales.iter().flat_map(|scale| bf16::from_f32(*scale).to_le_bytes());
                vec![pack_halves(&levels, inputs), scales.collect(), shape]
            }
        }
    }
}

/// Levels `[O, I]` two a byte, each row filled up to whole words of 32 bits.
fn pack_halves(levels: &[i8], inputs: usize) -> Vec<u8> {
    let stride = 4 * inputs.div_ceil(8);
    let mut bytes = vec![0; levels.len() / inputs * stride];
    for (levels, bytes) in levels.chunks_exact(inputs).zip(bytes.chunks_exact_mut(stride)) {
        for (i, level) in levels.iter().enumerate() {
            bytes[i / 2] |= ((*level + 8) as u8) << (i % 2 * 4);
        }
    }
    bytes
}

/// The opposite of [`pack_halves`].
pub(super) fn unpack_halves(bytes: &[u8], [outputs, inputs]: [usize; 2]) -> Vec<i8> {
    let stride = 4 * inputs.div_ceil(8);
    let rows = bytes.chunks_exact(stride.max(1)).take(outputs);
    let level = |row: &[u8], i: usize| (row[i / 2] >> (i % 2 * 4) & 15) as i8 - 8;
    rows.flat_map(|row| (0..inputs).map(move |i| level(row, i))).collect()
}

#[cfg(test)]
mod tests {
    use burn::{
        module::{Module, Param},
        prelude::*,
        tensor::{Distribution, Tolerance},
    };

    use super::*;
    use crate::{
        checkpoint::tensors::{Coverage, SaveType, Weights, fill, save},
        layers::{embedding::Embedding, fused, linear::Linear, moments},
    };

    /// One of each kind of matrix.
    #[derive(Module, Debug)]
    struct Model {
        tokens: Embedding,
        up: Linear,
        /// Read as it lies, by no kernel of ours.
        table: Table,
    }

    #[derive(Module, Debug)]
    struct Table {
        weight_ih: Param<Tensor<2>>,
    }

    impl Model {
        fn new(device: &Device) -> Self {
            let table = Tensor::random([40, 64], Distribution::Normal(0.0, 1.0), device);
            Self {
                tokens: Embedding::new(70, 64, 1.0, device),
                up: Linear::new(64, 48, 0.1, device),
                table: Table { weight_ih: Param::from_tensor(table) },
            }
        }

        fn forward(&self, device: &Device) -> Tensor<3> {
            let ids = Tensor::<1, Int>::arange(0..70, device).reshape([2, 35]);
            let x = self.tokens.forward(ids);
            let y = self.up.forward(x.clone()).matmul(Tensor::ones([1, 48, 64], device)) * 0.02;
            let y = self.tokens.scores(x + y, None);
            y + self.table.weight_ih.val().sum().reshape([1, 1, 1]) * 0.01
        }
    }

    fn name(field: &str) -> Option<String> {
        Some(field.to_string())
    }

    fn load(path: &Path, device: &Device) -> Result<Model, LoadError> {
        let all = Coverage { ignored: &[], fresh: &[] };
        fill(Model::new(device), &Weights::open_file(path)?, &all, name)
    }

    /// A model read back says nearly what it said before, on a device with kernels and on one without; and saved
    /// once more it is the same file.
    #[track_caller]
    fn check(format: Format, tolerance: f32) {
        let device = Device::flex();
        device.seed(1);
        let model = Model::new(&device);
        let dir = tempfile::tempdir().unwrap();
        let [path, again, floats] = ["one", "two", "three"].map(|name| dir.path().join(name));
        let plan = Plan { range: Range::MinMax, ..Plan::new(format) };
        save(&model, &path, SaveType::Quantised(plan.clone()), name).unwrap();
        let read = load(&path, &device).unwrap();
        let expected = model.forward(&device).into_data();
        let scale = 64f32; // what the scores' largest are, about
        let close = Tolerance::absolute(scale * tolerance);
        read.forward(&device).into_data().assert_approx_eq::<f32>(&expected, close);

        let trained = load(&path, &device.clone().autodiff()).unwrap().valid();
        trained.forward(&device).into_data().assert_approx_eq::<f32>(&expected, close);

        save(&read, &again, SaveType::Quantised(plan), name).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
        save(&read, &floats, SaveType::F32, name).unwrap();
        let unpacked = load(&floats, &device).unwrap().forward(&device).into_data();
        trained
            .forward(&device)
            .into_data()
            .assert_approx_eq::<f32>(&unpacked, Tolerance::absolute(1e-3));
    }

    #[test]
    fn what_is_saved_as_levels_is_read_back() {
        check(Format::Int8, 0.02);
        check(Format::Int4 { group: 32 }, 0.02);
    }

    /// What a layer says of inputs that go together, as activations do, is nearer with their moments known.
    #[test]
    fn moments_make_for_better_levels() {
        let device = Device::flex();
        device.seed(1);
        let normal = |sizes: [usize; 2]| -> Tensor<2> {
            Tensor::random(sizes, Distribution::Normal(0.0, 1.0), &device)
        };
        let x = normal([200, 16]).matmul(normal([16, 64]));
        let layer = Linear::new(64, 48, 0.1, &device);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        save(&layer, &path, SaveType::F32, name).unwrap();
        let all = Coverage { ignored: &[], fresh: &[] };
        let load = || {
            fill(Linear::new(64, 48, 0.1, &device), &Weights::open_file(&path).unwrap(), &all, name)
                .unwrap()
        };
        let (expected, recorded) = moments::record(|| load().forward(x.clone()));
        for format in [Format::Int8, Format::Int4 { group: 32 }] {
            let [nearest, found] = [Moments::new(), recorded.moments.clone()].map(|moments| {
                let plan = Plan { moments, ..Plan::new(format) };
                save(&layer, &path, SaveType::Quantised(plan), name).unwrap();
                // Floats of the levels: what rounds the activations is no matter here.
                let weights = Weights::open_file(&path).unwrap().floats("weight").unwrap();
                let weights = TensorData::new(weights, [48, 64]);
                let weights = Tensor::<2>::from_data(weights, &device).transpose();
                (x.clone().matmul(weights) - expected.clone()).square().mean().into_scalar::<f32>()
            });
            assert!(found < 0.5 * nearest, "{format:?}: {found}, nearest {nearest}");
        }
    }

    #[test]
    fn gpt2_has_its_weights_by_output_too() {
        use crate::arch::AnyModel;
        use crate::arch::gpt2::{Gpt2Config, Gpt2LmHead};
        let device = Device::flex();
        device.seed(1);
        let config = Gpt2Config { n_embd: 64, ..Gpt2Config::tiny() };
        let model = Gpt2LmHead { model: config.init(&device), config: config.clone() };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.safetensors");
        let text = config.to_json().to_string();
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        let ids = || Tensor::<1, Int>::arange(0..20, &device).reshape([2, 10]);
        let expected = model.model.forward(ids(), None).into_data();
        for format in [Format::Int8, Format::Int4 { group: 32 }] {
            model.save(&file, SaveType::Quantised(Plan::new(format))).unwrap();
            let weights = Weights::open_file(&file).unwrap();
            assert_eq!(weights.shape("transformer.h.0.attn.c_attn.weight"), Some(&[192, 64][..]));
            let source = crate::checkpoint::Source::folder(dir.path());
            let read = Gpt2LmHead::load(&source, &device).unwrap();
            let found = read.model.forward(ids(), None).into_data();
            found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(0.1)); // measured 0.05 (int4)
        }
    }

    #[test]
    fn convolutions_are_levels_in_the_file() {
        use crate::arch::AnyModel;
        use crate::arch::resnet::{ResNetConfig, ResNetForImageClassification};
        let device = Device::flex();
        device.seed(1);
        let config = ResNetConfig { hidden_sizes: vec![64, 64], ..ResNetConfig::tiny() };
        let model = config.init(3, &device);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.safetensors");
        let saved = ResNetForImageClassification { config: config.clone(), model: model.clone() };
        saved.save(&file, SaveType::Quantised(Plan::new(Format::Int8))).unwrap();
        let text = crate::arch::image::ImageConfig::ResNet(config);
        let labels = ["a", "b", "c"].map(str::to_string);
        std::fs::write(dir.path().join("config.json"), text.to_json(&labels).to_string()).unwrap();
        let header = read_header(&file).unwrap();
        let shape = |name: &str| {
            let found = header.tensors.iter().find(|tensor| tensor.name.ends_with(name)).unwrap();
            (found.dtype, found.shape.clone())
        };
        let layer = "stages.1.layers.0.layer.1.convolution.weight";
        assert_eq!(shape(layer), (Dtype::I8, vec![16, 16, 3, 3]));
        assert_eq!(shape(&format!("{layer}_scale")), (Dtype::F32, vec![16, 1, 1, 1]));
        let source = crate::checkpoint::Source::folder(dir.path());
        let read =
            ResNetForImageClassification::load(&source, crate::arch::image::Head::Own, &device);
        let read = read.unwrap();
        let x = Tensor::<4>::random([1, 3, 32, 32], Distribution::Default, &device);
        let [found, expected] = [&read.model, &model].map(|m| m.forward(x.clone()).into_data());
        found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(0.05));
        let again = dir.path().join("again");
        read.save(&again, SaveType::Quantised(Plan::new(Format::Int8))).unwrap();
        assert_eq!(std::fs::read(file).unwrap(), std::fs::read(again).unwrap());
    }

    #[test]
    fn tensors_that_do_not_fit_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let device = Device::flex();
        for format in [Format::Int8, Format::Int4 { group: 32 }] {
            save(&Model::new(&device), &path, SaveType::Quantised(Plan::new(format)), name)
                .unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes[8..2000]).into_owned();
            // Another name for the scales; other shapes of the same size; a scale that is not finite.
            for (from, to) in [
                ("up.weight_scale", "up.weight_scold"),
                ("[70,64]", "[64,70]"),
                ("[48,1]", "[1,48]"),
                ("[48,2]", "[2,48]"),
            ] {
                if let Some(at) = text.find(from) {
                    let mut bytes = bytes.clone();
                    bytes[8 + at..][..from.len()].copy_from_slice(to.as_bytes());
                    std::fs::write(&path, bytes).unwrap();
                    let error = load(&path, &device).unwrap_err().to_string();
                    assert!(error.contains("weight"), "{from}: {error}");
                }
            }
        }
        assert!(fused::reads_packed(&device));
    }

    /// By hand: `level + 8`, the first of eight in the lowest bits of its word.
    #[test]
    fn halves_lie_as_compressed_tensors_packs_them() {
        let levels = [-8, 7, 0, 1, 2, 3, 4, 5, -1, 6];
        let bytes = pack_halves(&levels, 10);
        let words: Vec<u32> =
            bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        assert_eq!(words, [0xdcba_98f0, 0x0000_00e7]);
        assert_eq!(unpack_halves(&bytes, [1, 10]), levels);
    }

    #[test]
    fn a_plan_names_what_becomes_of_a_weight() {
        let mut plan = Plan::new(Format::Int4 { group: 64 });
        let big = [64, 128];
        assert_eq!(plan.format("w", true, big), Some(Format::Int4 { group: 64 }));
        assert_eq!(plan.format("w", true, [128, 96]), Some(Format::Int8)); // no whole groups
        assert_eq!(plan.format("table", false, big), Some(Format::Int8));
        assert_eq!(plan.format("w", true, [2, 64]), None); // small
        plan.int8.insert("w".into());
        assert_eq!(plan.format("w", true, big), Some(Format::Int8));
        plan.floats.insert("w".into());
        assert_eq!(plan.format("w", true, big), None);
    }

    /// What a `config.json` says of this model stored by `plan`; whether its table is tied, as it is.
    fn described_as(plan: Option<Plan>, tied: bool) -> Value {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let dtype = plan.map_or(SaveType::F32, SaveType::Quantised);
        save(&Model::new(&Device::flex()), &path, dtype, name).unwrap();
        let before = json!({"format": "of before"});
        let mut config = json!({"quantization_config": before, "tie_word_embeddings": tied});
        set_config(&mut config, dir.path()).unwrap();
        assert_eq!(check_config(&config), Ok(()));
        config["quantization_config"].take()
    }

    #[test]
    fn a_configuration_says_what_was_written() {
        assert_eq!(described_as(None, true), Value::Null);
        let int8 = described_as(Some(Plan::new(Format::Int8)), false);
        assert_eq!(int8["format"], "int-quantized");
        assert_eq!(int8["config_groups"]["group_0"]["targets"], json!(["Embedding"]));
        assert_eq!(int8["config_groups"]["group_0"]["format"], "int-quantized");
        assert_eq!(int8["config_groups"]["group_1"]["targets"], json!(["Linear"]));
        assert_eq!(int8["config_groups"]["group_1"]["format"], "int-quantized");
        assert_eq!((&int8["ignore"], &int8["dequantize"]), (&json!([]), &Value::Null));
        let tied = described_as(Some(Plan::new(Format::Int8)), true);
        assert_eq!(tied["dequantize"], true);

        let mut plan = Plan::new(Format::Int4 { group: 32 });
        let int4 = described_as(Some(plan.clone()), true);
        assert_eq!(int4["dequantize"], Value::Null); // there are two formats
        let groups = &int4["config_groups"];
        assert_eq!(int4["format"], "mixed-precision");
        assert_eq!(groups["group_0"]["targets"], json!(["tokens"]));
        assert_eq!(groups["group_1"]["format"], "pack-quantized");
        assert_eq!(groups["group_1"]["weights"]["group_size"], 32);

        plan.int8.insert("up.weight".into());
        plan.floats.insert("tokens.weight".into());
        let mixed = described_as(Some(plan), false);
        // No four bits are left.
        assert_eq!(mixed["config_groups"]["group_1"]["weights"]["num_bits"], 8);
        assert_eq!(mixed["ignore"], json!(["tokens"]));
    }

    #[test]
    fn other_methods_are_named() {
        let method = |name: &str| json!({"quantization_config": {"quant_method": name}});
        assert!(check_config(&method("gptq")).unwrap_err().contains("\"gptq\""));
        // Without a format for each group, as folders of before have it.
        assert_eq!(check_config(&method(METHOD)), Ok(()));
    }
}
