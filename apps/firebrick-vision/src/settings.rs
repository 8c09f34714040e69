//! What lies beside a model's weights, as `transformers` names it.

use std::path::Path;

use anyhow::Context;
use firebrick_core::checkpoint::tensors::write_atomically;
use serde_json::Value;

/// Writes `config.json` and `preprocessor_config.json`.
pub fn save(dir: &Path, config: &Value, preprocessor: &Value) -> anyhow::Result<()> {
    for (file, value) in [("config.json", config), ("preprocessor_config.json", preprocessor)] {
        let path = dir.join(file);
        write_atomically(&path, serde_json::to_string_pretty(value)?.as_bytes())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
