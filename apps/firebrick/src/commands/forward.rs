//! `firebrick forward`: raw arrays through a model, to compare it with other programs.

use std::{collections::HashMap, fs::File, io::BufReader, path::Path};

use anyhow::{Context, bail, ensure};
use burn::{
    prelude::*,
    tensor::{DType, TensorData},
};
use firebrick_core::{
    arch::bert,
    checkpoint::{LoadError, Source},
};
use npyz::WriterBuilder;

use super::Outcome;
use crate::cli::{ForwardArgs, Global};

/// Numbers in one array of an .npz file.
const ARRAY_LIMIT: u64 = 1 << 26;

pub fn run(args: &ForwardArgs, global: &Global) -> Outcome {
    let device = global.device.open()?;
    let source = Source::folder(&args.model);
    let inputs = read(&args.inputs)?;
    let ids = inputs.get("input_ids").context("the inputs have no `input_ids`")?;
    if ids.shape.len() != 2 {
        return Err(
            anyhow::anyhow!("`input_ids` has shape {:?}, not [batch, tokens]", ids.shape).into()
        );
    }
    for name in ["attention_mask", "token_type_ids"] {
        if let Some(array) = inputs.get(name).filter(|array| array.shape != ids.shape) {
            return Err(anyhow::anyhow!(
                "`{name}` has shape {:?}, `input_ids` {:?}",
                array.shape,
                ids.shape
            )
            .into());
        }
    }
    let config = bert::BertConfig::read(&source)?;
    check_range("input_ids", ids, config.vocab_size)?;
    if ids.shape[1] > config.longest() {
        return Err(anyhow::anyhow!(
            "{} tokens, the model reads {}",
            ids.shape[1],
            config.longest()
        )
        .into());
    }
    let tensor = |array: &Array| -> Tensor<2, Int> {
        let values: Vec<i32> = array.values.iter().map(|v| *v as i32).collect();
        Tensor::from_data(TensorData::new(values, [array.shape[0], array.shape[1]]), &device)
    };
    let pad = match inputs.get("attention_mask") {
        Some(mask) => tensor(mask).equal_elem(0),
        None => Tensor::<2, Int>::ones([ids.shape[0], ids.shape[1]], &device).equal_elem(0),
    };
    let segments = match inputs.get("token_type_ids") {
        Some(array) => {
            check_range("token_type_ids", array, config.type_vocab_size)?;
            Some(tensor(array))
        }
        None => None,
    };
    let ids = tensor(ids);
    let outputs: Vec<(&str, TensorData)> = match classifier(&source, &device)? {
        Some(model) => vec![("logits", model.forward(ids, segments, pad).into_data())],
        None => {
            let (_, model) = bert::load_model(&source, &device)?;
            let hidden = model.encoder.forward(ids, segments, pad);
            let pooled = model.pool(hidden.clone());
            vec![("last_hidden_state", hidden.into_data()), ("pooler_output", pooled.into_data())]
        }
    };
    write(&args.outputs, outputs)?;
    Ok(())
}

/// The classifier in a folder; `None` when it holds a bare encoder.
pub fn classifier(
    source: &Source,
    device: &Device,
) -> Result<Option<bert::BertClassifier>, LoadError> {
    let bare = source
        .config()?
        .pointer("/architectures/0")
        .and_then(|name| name.as_str())
        .is_some_and(|name| name.ends_with("Model"));
    match bare {
        true => Ok(None),
        false => Ok(Some(bert::load_classifier(source, device)?.model)),
    }
}

struct Array {
    shape: Vec<usize>,
    values: Vec<i64>,
}

fn check_range(name: &str, array: &Array, below: usize) -> anyhow::Result<()> {
    match array.values.iter().find(|v| **v < 0 || **v >= below as i64) {
        Some(bad) => bail!("`{name}` holds {bad}, outside 0..{below}"),
        None => Ok(()),
    }
}

fn read(path: &Path) -> anyhow::Result<HashMap<String, Array>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file))
        .with_context(|| format!("{} is not an .npz file", path.display()))?;
    let mut arrays = HashMap::new();
    for index in 0..archive.len().min(64) {
        let member = archive.by_index(index).with_context(|| path.display().to_string())?;
        let name = member.name().trim_end_matches(".npy").to_string();
        let array =
            npyz::NpyFile::new(member).with_context(|| format!("{}: {name}", path.display()))?;
        let shape: Vec<usize> = array.shape().iter().map(|n| *n as usize).collect();
        ensure!(
            array.len() <= ARRAY_LIMIT,
            "{}: {name} has {} numbers",
            path.display(),
            array.len()
        );
        let values: Vec<i64> = array
            .into_vec()
            .with_context(|| format!("{}: {name} does not hold 64-bit integers", path.display()))?;
        arrays.insert(name, Array { shape, values });
    }
    Ok(arrays)
}

fn write(path: &Path, outputs: Vec<(&str, TensorData)>) -> anyhow::Result<()> {
    let mut archive = npyz::npz::NpzWriter::create(path)
        .with_context(|| format!("creating {}", path.display()))?;
    for (name, data) in outputs {
        let shape: Vec<u64> = data.shape().iter().map(|n| *n as u64).collect();
        let values = data.convert_dtype(DType::F32);
        let values = values.try_into_vec::<f32>().expect("just converted to f32");
        let writer = archive.array(name, Default::default())?;
        let mut writer = writer.default_dtype().shape(&shape).begin_nd()?;
        writer.extend(values)?;
        writer.finish()?;
    }
    Ok(())
}
