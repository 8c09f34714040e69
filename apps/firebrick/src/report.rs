//! stub
pub fn html(_: &std::path::Path, _: &firebrick_nlp::train::Trained, _: &firebrick_nlp::baseline::Baseline) -> anyhow::Result<String> { Ok(String::new()) }
