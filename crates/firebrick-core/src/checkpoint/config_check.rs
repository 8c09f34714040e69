//! stub
pub fn check_config(_: &serde_json::Value) -> Result<(), String> { Ok(()) }
