use std::path::PathBuf;

use super::json::quoted;

/// What can go wrong between a checkpoint on disk and a model in memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    #[error("cannot read {path}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },

    #[error("cannot write {path}", path = path.display())]
    Write { path: PathBuf, source: std::io::Error },

    #[error("{path}: {problem}", path = path.display())]
    Config { path: PathBuf, problem: String },

    #[error("{path}: {problem}", path = path.display())]
    Checkpoint { path: PathBuf, problem: String },

    #[error("{path}: tensor {tensor} is {found:?}, the model needs {expected:?}", path = path.display())]
    Shape { path: PathBuf, tensor: String, found: Vec<usize>, expected: Vec<usize> },

    /// The file was read, but its tensors and the model's parameters do not pair up.
    #[error("{path}: {} parameters have no tensor ({}), {} tensors have no parameter ({})",
        missing.len(), some(missing), unused.len(), some(unused), path = path.display())]
    Unmatched { path: PathBuf, missing: Vec<String>, unused: Vec<String> },
}

/// The first few names, for a message of one line.
fn some(names: &[String]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    let mut text = names.iter().take(4).map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    if names.len() > 4 {
        text.push_str(", ..");
    }
    text
}
