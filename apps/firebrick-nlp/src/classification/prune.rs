//! Which feed-forward neurons a classifier can do without, and the classifier without them.

use std::path::Path;

use anyhow::{bail, ensure};
use burn::{module::Module, tensor::Device};
use firebrick_compress::{folder, prune};
use firebrick_core::{
    arch::{
        bert::{self, BertClassifier},
        text::{TextConfig, TextModel},
    },
    checkpoint::Source,
};
use firebrick_data::table::Row;

use super::{batch::TextExamples, classifier::TextClassifier, task::Classify, train::examples};

/// Rows that the neurons are judged by; more do not change which are kept by much.
const ROWS: usize = 1024;
const BATCH: usize = 32;

/// Writes `source` without the share `neurons` of each layer's neurons: those whose loss, on rows that the model was
/// trained on, would be felt least. Without `rows`, those with the smallest weights.
pub fn without_neurons(
    source: &Source,
    neurons: f64,
    rows: &[Row],
    device: &Device,
    target: &Path,
) -> anyhow::Result<()> {
    let device = device.clone().autodiff();
    device.seed(0);
    let classifier = TextClassifier::open(source, &device)?;
    let (TextConfig::Bert(sizes), TextModel::Bert(model)) = (&classifier.config, &classifier.model)
    else {
        bail!("neurons can be taken out of BERT, RoBERTa and DistilBERT only");
    };
    let effects = effects(&classifier, model, rows, &device);
    let kept = prune::most_important(&effects, neurons);
    let width = kept.first().map_or(0, Vec::len);
    ensure!(width > 0, "no neuron would be left of {}", sizes.intermediate_size);
    let model = model.valid().with_neurons(&kept);
    let mut config = source.config()?;
    let key = if config.get("hidden_dim").is_some() { "hidden_dim" } else { "intermediate_size" };
    config[key] = width.into();
    folder::write(source, target, &config, |file| {
        bert::save_classifier(&model, sizes, file, folder::float_type(&config))
    })
}

/// By layer and neuron.
fn effects(
    classifier: &TextClassifier,
    model: &BertClassifier,
    rows: &[Row],
    device: &Device,
) -> Vec<Vec<f32>> {
    let TextClassifier { tokenizer, labels, max_len, .. } = classifier;
    let rows = &rows[..rows.len().min(ROWS)];
    let examples = examples(rows, labels, tokenizer, *max_len);
    if examples.is_empty() {
        return model.neuron_sizes();
    }
    let mut data = TextExamples::new(examples, labels.len(), 0.0);
    data.pad_id = tokenizer.pad_id();
    let task = Classify { model: classifier.model.clone(), r_drop: 0.0, imitated: None };
    prune::importance(&task, &data, [ROWS, BATCH], device, |gradients| {
        model.neuron_effects(gradients)
    })
}
