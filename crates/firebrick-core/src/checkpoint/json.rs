//! stub
pub fn parse_strict(b: &[u8]) -> Result<serde_json::Value, serde_json::Error> { serde_json::from_slice(b) }
pub fn quoted(s: &str) -> String { format!("{s:?}") }
pub fn read_strict(p: &std::path::Path, _m: u64) -> Result<serde_json::Value, String> { let b=std::fs::read(p).map_err(|e| e.to_string())?; parse_strict(&b).map_err(|e| e.to_string()) }
