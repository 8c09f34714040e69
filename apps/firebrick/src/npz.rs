//! Named arrays in `.npz` files.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Cursor},
    path::Path,
};

use anyhow::{Context, bail, ensure};
use burn::tensor::{DType, TensorData};
use firebrick_core::arch::inputs::Array;
use npyz::{TypeChar, WriterBuilder};

use crate::commands::write;

/// Numbers in one array.
const ARRAY_LIMIT: u64 = 1 << 26;

pub fn read(path: &Path) -> anyhow::Result<BTreeMap<String, Array>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file))
        .with_context(|| format!("{} is not an .npz file", path.display()))?;
    let mut arrays = BTreeMap::new();
    for index in 0..archive.len().min(64) {
        let member = archive.by_index(index).with_context(|| path.display().to_string())?;
        let name = member.name().trim_end_matches(".npy").to_string();
        let at = || format!("{}: {name}", path.display());
        let array = npyz::NpyFile::new(member).with_context(at)?;
        let shape: Vec<usize> = array.shape().iter().map(|n| *n as usize).collect();
        let by_rows = array.order() == npyz::Order::C || shape.len() < 2;
        ensure!(by_rows, "{} is stored column by column; save it with order=\"C\"", at());
        ensure!(array.len() <= ARRAY_LIMIT, "{}: {} numbers", at(), array.len());
        let npyz::DType::Plain(kind) = array.dtype() else { bail!("{}: a record array", at()) };
        let array = match (kind.type_char(), kind.num_bytes()) {
            (TypeChar::Int, Some(8)) => {
                Array::Ints { shape, values: array.into_vec().with_context(at)? }
            }
            (TypeChar::Int, Some(4)) => {
                let values = array.into_vec::<i32>().with_context(at)?;
                Array::Ints { shape, values: values.into_iter().map(i64::from).collect() }
            }
            (TypeChar::Bool, _) => {
                let values = array.into_vec::<bool>().with_context(at)?;
                Array::Ints { shape, values: values.into_iter().map(i64::from).collect() }
            }
            (TypeChar::Float, Some(4)) => {
                Array::Floats { shape, values: array.into_vec().with_context(at)? }
            }
            (TypeChar::Float, Some(8)) => {
                let values = array.into_vec::<f64>().with_context(at)?;
                Array::Floats { shape, values: values.into_iter().map(|x| x as f32).collect() }
            }
            _ => {
                bail!("{} has type {kind}; int32, int64, bool, float32 or float64 is needed", at())
            }
        };
        arrays.insert(name, array);
    }
    Ok(arrays)
}

pub fn write_floats(path: &Path, outputs: Vec<(&str, TensorData)>) -> anyhow::Result<()> {
    let mut bytes = Cursor::new(vec![]);
    let mut archive = npyz::npz::NpzWriter::new(&mut bytes);
    for (name, data) in outputs {
        let shape: Vec<u64> = data.shape().iter().map(|n| *n as u64).collect();
        let values = data.convert_dtype(DType::F32);
        let values = values.try_into_vec::<f32>().expect("just converted to f32");
        let writer = archive.array(name, Default::default())?;
        let mut writer = writer.default_dtype().shape(&shape).begin_nd()?;
        writer.extend(values)?;
        writer.finish()?;
    }
    drop(archive);
    Ok(write(path, bytes.get_ref())?)
}

/// One array of rows of equal length.
pub fn write_rows(path: &Path, name: &str, rows: &[Vec<i64>]) -> anyhow::Result<()> {
    let mut bytes = Cursor::new(vec![]);
    let mut archive = npyz::npz::NpzWriter::new(&mut bytes);
    let shape = [rows.len() as u64, rows.first().map_or(0, Vec::len) as u64];
    let writer = archive.array(name, Default::default())?;
    let mut writer = writer.default_dtype().shape(&shape).begin_nd()?;
    writer.extend(rows.iter().flatten())?;
    writer.finish()?;
    drop(archive);
    Ok(write(path, bytes.get_ref())?)
}
