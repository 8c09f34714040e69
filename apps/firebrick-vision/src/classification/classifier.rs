//! A model folder that names what is on a picture: opened, asked, saved.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use burn::tensor::Device;
use firebrick_core::{
    arch::image::{Head, ImageClassifier},
    checkpoint::{
        LoadError, Source,
        tensors::{SaveType, write_atomically},
    },
};
use firebrick_data::image::Picture;
use firebrick_train::origin::{Decision, Origin};
use rayon::prelude::*;

use super::{
    decision::{Answer, decide},
    layouts::Sample,
    processor::Processor,
    task::{Judged, logits, softmax, with_known_label},
};

/// A model that looks at pictures.
pub struct PictureClassifier {
    pub classifier: ImageClassifier,
    pub processor: Processor,
    pub labels: Vec<String>,
    pub decision: Option<Decision>,
}

/// One picture's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    pub answer: Answer,
    /// Probabilities by label.
    pub scores: Vec<f32>,
}

impl PictureClassifier {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let config = source.config()?;
        let classifier = ImageClassifier::load(source, Head::Own, device)?;
        let processor = Processor::open(source, classifier.config.num_channels())?;
        classifier.config.check_size(processor.size).map_err(|problem| LoadError::Config {
            path: source.path("preprocessor_config.json"),
            problem,
        })?;
        let names = &config["id2label"];
        let count = names.as_object().map_or(0, serde_json::Map::len);
        let name = |i: usize| names[i.to_string()].as_str().map(str::to_string);
        // `transformers` leaves these out of the file, and reads them so.
        let labels = (0..count.max(2)).map(|i| name(i).unwrap_or_else(|| format!("LABEL_{i}")));
        let labels: Vec<String> = labels.collect();
        let decision = Origin::read(source).and_then(|origin| origin.decision);
        if let Some(positive) = decision.as_ref().map(|d| &d.positive)
            && !(labels.len() == 2 && labels.contains(positive))
        {
            let problem = format!("decides for `{positive}`, which is none of two labels");
            bail!(LoadError::Config { path: source.path("firebrick.json"), problem });
        }
        Ok(Self { classifier, processor, labels, decision })
    }

    /// Answers in the order of the pictures, which may have any size and colours.
    pub fn predict(&self, pictures: &[Picture], batch_size: usize) -> Vec<Prediction> {
        let sized: Vec<Picture> = pictures.par_iter().map(|p| self.processor.size(p)).collect();
        let logits = logits(&self.classifier.model, &self.processor, &sized, batch_size);
        let answer = |logits: &Vec<f32>| {
            let scores = softmax(logits);
            Prediction { answer: decide(self.decision.as_ref(), &self.labels, &scores), scores }
        };
        logits.iter().map(answer).collect()
    }

    /// Judges on samples at any size; those with an unknown label are left out.
    pub fn judge(&self, samples: &[Sample], batch_size: usize) -> Judged {
        let known: Vec<_> = with_known_label(samples, &self.labels).collect();
        let sized = |(sample, _): &(&Sample, usize)| self.processor.size(&sample.picture);
        let pictures: Vec<Picture> = known.par_iter().map(sized).collect();
        let truths: Vec<usize> = known.iter().map(|(_, class)| *class).collect();
        let logits = logits(&self.classifier.model, &self.processor, &pictures, batch_size);
        Judged::new(&logits, &truths, &self.labels, self.decision.as_ref())
    }

    /// Writes a folder that `transformers` opens: config, weights, preprocessor, card, origin.
    pub fn save(&self, dir: &Path, origin: &Origin, about: &str) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        self.classifier.save(&dir.join("model.safetensors"), SaveType::F32)?;
        let config = self.classifier.config.to_json(&self.labels);
        for (file, value) in
            [("config.json", config), ("preprocessor_config.json", self.processor.to_json())]
        {
            let path = dir.join(file);
            write_atomically(&path, serde_json::to_string_pretty(&value)?.as_bytes())
                .with_context(|| format!("writing {}", path.display()))?;
        }
        origin.save(dir, "image-classification", about)
    }
}
