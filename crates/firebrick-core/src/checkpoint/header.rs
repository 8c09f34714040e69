//! stub
use std::{collections::BTreeMap, io::Read, path::Path};
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype { F64, F32, F16, BF16, I64, I32, Other }
pub struct TensorInfo { pub name: String, pub dtype: Dtype, pub shape: Vec<usize>, pub begin: u64, pub end: u64 }
pub struct Header { pub tensors: Vec<TensorInfo>, pub metadata: BTreeMap<String, String>, pub data_start: u64 }
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HeaderProblem(String);
pub fn read_header(path: &Path) -> Result<Header, HeaderProblem> {
    let mut b = vec![]; std::fs::File::open(path).and_then(|mut f| f.read_to_end(&mut b)).map_err(|e| HeaderProblem(e.to_string()))?;
    parse_header(&b, b.len() as u64)
}
pub fn parse_header(b: &[u8], _len: u64) -> Result<Header, HeaderProblem> {
    let (n, m) = safetensors::SafeTensors::read_metadata(b).map_err(|e| HeaderProblem(e.to_string()))?;
    let tensors = m.tensors().into_iter().map(|(name, t)| TensorInfo { name, dtype: match t.dtype { safetensors::Dtype::F32 => Dtype::F32, safetensors::Dtype::F16 => Dtype::F16, safetensors::Dtype::BF16 => Dtype::BF16, safetensors::Dtype::F64 => Dtype::F64, safetensors::Dtype::I64 => Dtype::I64, _ => Dtype::Other }, shape: t.shape.clone(), begin: t.data_offsets.0 as u64, end: t.data_offsets.1 as u64 }).collect();
    Ok(Header { tensors, metadata: Default::default(), data_start: n as u64 + 8 })
}
pub fn scan(_: &Path, _: &Header) -> Result<Vec<String>, HeaderProblem> { Ok(vec![]) }
