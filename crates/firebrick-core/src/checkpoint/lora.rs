//! Low-rank adapters (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>) in the files of PEFT:
//! `adapter_config.json` and `adapter_model.safetensors`.
//!
//! An adapter adds `scale * B A` to a weight that stays as it is. In training, Burn's reparameterisation of a
//! parameter carries the two factors ([`attach`]); to use an adapter, its product is added while the weights of
//! its base are read ([`Overlay`]), so that every family takes one without knowing of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::{
    module::{Lora, Module, ModuleVisitor, Param, ParamGroup},
    prelude::*,
};
use firebrick_kernels::matmul::{Matrix, matmul};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    LoadError, Source, config,
    json::quoted,
    tensors::{self, Place, SaveType, Weights, write_atomically},
};

pub const CONFIG: &str = "adapter_config.json";
pub const MODEL: &str = "adapter_model.safetensors";

/// What PEFT puts before every name.
const PREFIX: &str = "base_model.model.";

/// How many numbers an adapter has and where it sits. Field names are PEFT's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank: columns of one factor, rows of the other.
    pub r: usize,
    /// The product is scaled by `lora_alpha / r`, or by `lora_alpha / sqrt(r)` with `use_rslora`.
    pub lora_alpha: f64,
    #[serde(default)]
    pub use_rslora: bool,
    /// Ends of the names of linear layers (`query`, `attn.c_attn`), or `all-linear`. To read an adapter takes none.
    pub target_modules: Targets,
    /// Other ranks than `r`, by the end of a layer's name. What is read has its rank in its tensors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other values than `lora_alpha`, by the end of a layer's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Modules that are trained whole and kept with the adapter: a new head.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub modules_to_save: Vec<String>,
    /// Whether the base's weights are `[input, output]`, as GPT-2's are.
    #[serde(default)]
    pub fan_in_fan_out: bool,
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    #[serde(default)]
    pub task_type: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    Names(Vec<String>),
    /// `all-linear`, or a regular expression of PEFT's
    Word(String),
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

impl LoraConfig {
    /// Rank `r` on the layers whose names end so, scaled by `alpha / r`.
    pub fn new(r: usize, alpha: f64, targets: &[String]) -> Self {
        Self {
            r,
            lora_alpha: alpha,
            use_rslora: false,
            target_modules: Targets::Names(targets.to_vec()),
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            modules_to_save: vec![],
            fan_in_fan_out: false,
            base_model_name_or_path: None,
            task_type: None,
        }
    }

    fn parse(value: &Value) -> Result<Self, String> {
        config::only(
            value,
            &[
                ("peft_type", json!("LORA")),
                ("use_dora", json!(false)),
                ("lora_bias", json!(false)),
                ("megatron_config", Value::Null),
                ("layer_replication", Value::Null),
                ("alora_invocation_tokens", Value::Null),
                ("use_qalora", json!(false)),
            ],
        )?;
        let lora: Self = config::parse(value)?;
        lora.check()?;
        Ok(lora)
    }

    fn check(&self) -> Result<(), String> {
        config::size("r", self.r, 4096)?;
        config::positive("lora_alpha", self.lora_alpha)
    }

    fn check_targets(&self) -> Result<(), String> {
        match &self.target_modules {
            Targets::Names(names) if names.is_empty() => Err("target_modules is empty".into()),
            Targets::Word(word) if word != "all-linear" => Err(format!(
                "target_modules is {}; a list of names or \"all-linear\" is needed",
                quoted(word)
            )),
            _ => Ok(()),
        }
    }

    /// Of an adapter of rank `r` on the layer of this name.
    fn scale(&self, module: &str, r: usize) -> Result<f64, String> {
        let mut alpha = None;
        for (pattern, own) in &self.alpha_pattern {
            // `^` is for whole names. A dot stands for itself in them, whatever it means in a regular expression.
            let name = pattern.strip_prefix('^').unwrap_or(pattern);
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')) {
                let (key, text) = ("alpha_pattern", quoted(pattern));
                return Err(format!("{key} has {text}; names and their ends are supported"));
            }
            let whole = pattern != name && module != name;
            if whole || !ends_with_part(module, name) {
                continue;
            }
            // PEFT takes the first in the file.
            if alpha.replace(own).is_some_and(|other| other != own) {
                return Err(format!("alpha_pattern has two values for {}", quoted(module)));
            }
        }
        let alpha = alpha.copied().unwrap_or(self.lora_alpha);
        Ok(alpha / if self.use_rslora { (r as f64).sqrt() } else { r as f64 })
    }

    /// Whether the linear layer of this name, which is not trained whole, gets an adapter.
    fn targets(&self, module: &str) -> bool {
        match &self.target_modules {
            Targets::Names(names) => names.iter().any(|name| ends_with_part(module, name)),
            Targets::Word(_) => true,
        }
    }

    /// Whether the parameter belongs to a module that is trained whole.
    fn saves(&self, name: &str) -> bool {
        let parts: Vec<&str> = name.split('.').collect();
        self.modules_to_save.iter().any(|module| {
            let wanted: Vec<&str> = module.split('.').collect();
            parts.windows(wanted.len()).any(|window| window == wanted)
        })
    }

    fn to_json(&self) -> Value {
        let mut value = json!(self);
        value["peft_type"] = json!("LORA");
        value["bias"] = json!("none");
        value["lora_dropout"] = json!(0.0);
        value["inference_mode"] = json!(true);
        value
    }
}

/// `name` is the whole of `module` or its last parts.
fn ends_with_part(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Freezes `model` but for the modules to save, and gives an adapter to every other linear layer that the configuration
/// names; to convolutions none. `name_of` gives a field's name in the checkpoint, which is what the patterns look at.
pub fn attach<M: Module>(
    model: M,
    lora: &LoraConfig,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<M, String> {
    lora.check()?;
    let mut walk = Walk::default();
    model.visit(&mut walk);
    let layer = |field: &String| {
        let module = name_of(field)?.strip_suffix(".weight")?.to_string();
        (!lora.saves(&module)).then(|| (field.clone(), module))
    };
    let layers: Vec<(String, String)> = walk.linear.iter().filter_map(layer).collect();
    if layers.is_empty() {
        return Err("the model has no linear layer beside its head: convolutions and recurrent layers take no adapter, so \
             train all weights (`r` 0)"
            .into());
    }
    lora.check_targets()?;
    let adapted = layers.iter().filter(|(_, module)| lora.targets(module));
    let adapted: Vec<String> = adapted.map(|(field, _)| field.clone()).collect();
    if adapted.is_empty() {
        let some: Vec<&str> = layers.iter().take(8).map(|(_, module)| module.as_str()).collect();
        return Err(format!("target_modules names no linear layer; there are {}", some.join(", ")));
    }
    let saved = walk.all.iter().filter(|field| name_of(field).is_some_and(|n| lora.saves(&n)));
    let saved: Vec<String> = saved.cloned().collect();
    let scale = lora.scale("", lora.r)?;
    let burn = Lora {
        // PEFT draws from a uniform distribution of this deviation (Kaiming with a = sqrt(5)).
        init_std: Some(1.0 / (3.0 * lora.r as f64).sqrt()),
        ..Lora::new(lora.r, scale * lora.r as f64)
    };
    let model = model.apply_lora(burn.set_param_group(ParamGroup::from_paths(adapted)));
    Ok(model.set_require_grad_group(ParamGroup::from_paths(saved), true))
}

/// The parameters of a module by field path.
#[derive(Default)]
struct Walk {
    at: Place,
    all: Vec<String>,
    /// Weights of linear layers.
    linear: Vec<String>,
}

impl ModuleVisitor for Walk {
    fn enter_module(&mut self, name: &str, kind: &str) {
        self.at.enter(name, kind);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
        if self.at.factor::<D>() {
            self.linear.push(self.at.field());
        }
        self.all.push(self.at.field());
    }
}

/// Writes the factors of `model`'s adapters, and the modules that were trained whole, as PEFT names them.
pub fn save<M: Module>(
    model: &M,
    lora: &LoraConfig,
    dir: &Path,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<(), LoadError> {
    let peft_name = |field: &str| {
        for (ours, theirs) in [(".lora.a", "lora_A"), (".lora.b", "lora_B")] {
            if let Some(weight) = field.strip_suffix(ours) {
                let name = name_of(weight)?;
                return Some(format!("{PREFIX}{}.{theirs}.weight", name.strip_suffix(".weight")?));
            }
        }
        let name = name_of(field)?;
        lora.saves(&name).then(|| format!("{PREFIX}{name}"))
    };
    tensors::save_named(model, &dir.join(MODEL), SaveType::F32, peft_name)?;
    let path = dir.join(CONFIG);
    let text = serde_json::to_string_pretty(&lora.to_json()).expect("plain values");
    write_atomically(&path, text.as_bytes()).map_err(|source| LoadError::Write { path, source })
}

/// The folder of the model that the adapter in this folder belongs to; `None` when there is no adapter.
pub fn base(source: &Source) -> Result<Option<PathBuf>, LoadError> {
    Ok(read_config(source)?.map(|(_, base)| base))
}

/// The head that an adapter was trained with stands in the adapter's file, not in its base's.
pub(super) fn set_architecture(source: &Source, config: &mut Value) -> Result<(), LoadError> {
    let task = read_config(source)?.and_then(|(lora, _)| lora.task_type);
    let name = config.pointer("/architectures/0").and_then(Value::as_str);
    if let (Some("SEQ_CLS"), Some(name)) = (task.as_deref(), name) {
        // `BertModel`, `BertForMaskedLM`, `GPT2LMHeadModel`: what they end in is the head.
        let head = ["For", "LMHeadModel", "Model"].into_iter().filter_map(|head| name.find(head));
        let family = &name[..head.min().unwrap_or(name.len())];
        config["architectures"] = json!([format!("{family}ForSequenceClassification")]);
    }
    Ok(())
}

fn read_config(source: &Source) -> Result<Option<(LoraConfig, PathBuf)>, LoadError> {
    let Source::Folder(dir) = source else { return Ok(None) };
    let Some(value) = source.json(CONFIG)? else { return Ok(None) };
    let problem = |problem: String| LoadError::Config { path: source.path(CONFIG), problem };
    let lora = LoraConfig::parse(&value).map_err(problem)?;
    let base = lora.base_model_name_or_path.as_deref().unwrap_or_default();
    let candidates = [dir.join(base), PathBuf::from(base)];
    // Not an adapter again: a chain of them could be a circle.
    let found = candidates
        .into_iter()
        .find(|dir| dir.join("config.json").exists() && !dir.join(CONFIG).exists());
    let base = found.ok_or_else(|| {
        problem(format!("base_model_name_or_path {} is no model folder here", quoted(base)))
    })?;
    Ok(Some((lora, base)))
}

/// An adapter as it is laid over the weights of its base.
pub struct Overlay {
    path: PathBuf,
    transposed: bool,
    /// By the base's name.
    products: BTreeMap<String, Product>,
    /// Tensors in place of the base's, or beside them.
    pub whole: BTreeMap<String, Factor>,
}

/// `scale * B A`, which is added to a weight.
struct Product {
    scale: f32,
    /// `[r, input]`
    a: Factor,
    /// `[output, r]`
    b: Factor,
}

/// A tensor of an adapter; they are small enough to be kept.
pub struct Factor {
    pub shape: Vec<usize>,
    pub floats: Vec<f32>,
}

impl Overlay {
    /// The adapter of a folder, and the folder of its base; `None` when the folder holds none.
    pub fn open(source: &Source) -> Result<Option<(Self, PathBuf)>, LoadError> {
        let Some((lora, base)) = read_config(source)? else { return Ok(None) };
        Ok(Some((Self::read(&lora, &source.path(MODEL))?, base)))
    }

    fn read(lora: &LoraConfig, path: &Path) -> Result<Self, LoadError> {
        let problem = |problem: String| LoadError::Checkpoint { path: path.to_path_buf(), problem };
        let weights = Weights::open_file(path)?;
        let (mut a, mut b, mut whole) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for name in weights.names() {
            let shape = weights.shape(name).unwrap_or_default().to_vec();
            let factor = Factor { shape, floats: weights.floats(name)? };
            let Some(own) = name.strip_prefix(PREFIX) else {
                return Err(problem(format!(
                    "tensor {} does not begin with {PREFIX}",
                    quoted(name)
                )));
            };
            if let Some(module) = own.strip_suffix(".lora_A.weight") {
                a.insert(format!("{module}.weight"), factor);
            } else if let Some(module) = own.strip_suffix(".lora_B.weight") {
                b.insert(format!("{module}.weight"), factor);
            } else if own.contains("lora_") {
                return Err(problem(format!(
                    "tensor {} is of a kind that is not read",
                    quoted(name)
                )));
            } else if own.contains(".original_module.") {
                // The base's own, in place of which the adapter has another: `bias` "all" writes it too.
            } else {
                // A bias that was trained with `bias` "lora_only" or "all" stands beside the factors.
                let name = own.replace(".modules_to_save", "").replace(".base_layer", "");
                whole.insert(name, factor);
            }
        }
        let mut products = BTreeMap::new();
        for (name, a) in a {
            let Some(b) = b.remove(&name) else {
                return Err(problem(format!("{} has lora_A but no lora_B", quoted(&name))));
            };
            let (&[r, _], &[_, columns]) = (&a.shape[..], &b.shape[..]) else {
                return Err(problem(format!("{} has factors that are no matrices", quoted(&name))));
            };
            if r != columns || r == 0 || (lora.rank_pattern.is_empty() && r != lora.r) {
                let (a, b, r) = (&a.shape, &b.shape, lora.r);
                return Err(problem(format!(
                    "{}: factors {a:?} and {b:?}, not of rank {r}",
                    quoted(&name)
                )));
            }
            let module = name.trim_end_matches(".weight");
            let scale = lora.scale(module, r).map_err(|problem| LoadError::Config {
                path: path.with_file_name(CONFIG),
                problem,
            })?;
            products.insert(name, Product { scale: scale as f32, a, b });
        }
        if let Some(name) = b.keys().next() {
            return Err(problem(format!("{} has lora_B but no lora_A", quoted(name))));
        }
        Ok(Self { path: path.to_path_buf(), transposed: lora.fan_in_fan_out, products, whole })
    }

    /// The model's name before its parts (`bert.`), where the base is the bare model without it.
    pub fn prefix(&self, base: &Weights) -> Option<String> {
        let name = self.products.keys().next()?;
        let (prefix, bare) = name.split_once('.')?;
        (base.shape(name).is_none() && base.shape(bare).is_some()).then(|| format!("{prefix}."))
    }

    /// Every factor must have a weight of `base` of its size.
    pub fn check(&self, base: &Weights) -> Result<(), LoadError> {
        for (name, Product { a, b, .. }) in &self.products {
            let mut expected = vec![b.shape[0], a.shape[1]];
            if self.transposed {
                expected.reverse();
            }
            match base.shape(name) {
                Some(found) if found == expected => {}
                Some(found) => {
                    let (path, tensor, found) = (self.path.clone(), name.clone(), found.to_vec());
                    return Err(LoadError::Shape { path, tensor, found, expected });
                }
                None => {
                    let problem = format!("the base has no tensor {}", quoted(name));
                    return Err(LoadError::Checkpoint { path: self.path.clone(), problem });
                }
            }
        }
        Ok(())
    }

    /// Adds the product of a weight's factors, if it has any. `floats` in the order of the base's file.
    pub fn apply(&self, name: &str, floats: &mut [f32]) {
        let Some(Product { scale, a, b }) = self.products.get(name) else { return };
        let [a, b] = [a, b].map(|x| Matrix::new(&x.floats, x.shape[0], x.shape[1]));
        let mut product = vec![0.0; floats.len()];
        match self.transposed {
            true => matmul(a.transposed(), b.transposed(), None, &mut product),
            false => matmul(b, a, None, &mut product),
        }
        floats.iter_mut().zip(product).for_each(|(x, p)| *x += scale * p);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(own: Value) -> Result<LoraConfig, String> {
        let mut value =
            json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query"]});
        value.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        LoraConfig::parse(&value)
    }

    /// What is read needs no pattern; what is trained needs a list.
    #[test]
    fn targets_may_be_a_regular_expression() {
        let lora = config(json!({"target_modules": r".*\.(query|value)"})).unwrap();
        assert!(lora.check_targets().unwrap_err().starts_with("target_modules is"));
    }

    #[test]
    fn patterns_scale_by_the_end_of_a_name() {
        let patterns = json!({
            "rank_pattern": {"0.value": 2},
            "alpha_pattern": {"value": 32, "^a.query": 1.5},
        });
        let lora = config(patterns).unwrap();
        assert_eq!(lora.scale("a.query", 4), Ok(1.5 / 4.0));
        assert_eq!(lora.scale("b.a.query", 4), Ok(2.0));
        assert_eq!(lora.scale("layer.0.value", 2), Ok(16.0));
        let two = config(json!({"alpha_pattern": {"value": 32, "0.value": 1}})).unwrap();
        assert!(two.scale("0.value", 2).unwrap_err().contains("two values"));
        let regex = config(json!({"alpha_pattern": {".*value": 32}})).unwrap();
        assert!(regex.scale("value", 2).unwrap_err().contains(".*value"));
    }

    /// A base's head is not the adapter's.
    #[test]
    fn an_adapter_brings_the_head_of_its_task() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("adapter");
        std::fs::create_dir_all(home.path().join("base")).unwrap();
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(home.path().join("base/config.json"), "{}").unwrap();
        let settings = json!({
            "r": 4, "lora_alpha": 8, "target_modules": ["query"], "task_type": "SEQ_CLS",
            "base_model_name_or_path": "../base",
        });
        std::fs::write(dir.join(CONFIG), settings.to_string()).unwrap();
        for (base, expected) in [
            ("BertModel", "BertForSequenceClassification"),
            ("BertForMaskedLM", "BertForSequenceClassification"),
            ("BertForPreTraining", "BertForSequenceClassification"),
            ("GPT2LMHeadModel", "GPT2ForSequenceClassification"),
            ("RobertaForSequenceClassification", "RobertaForSequenceClassification"),
        ] {
            let mut config = json!({"architectures": [base]});
            set_architecture(&Source::folder(&dir), &mut config).unwrap();
            assert_eq!(config["architectures"][0], expected);
        }
    }
}
