//! A model folder that names what is on a picture: opened, asked, saved.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use burn::tensor::Device;
use firebrick_core::{
    arch::image::{Head, ImageClassifier},
    checkpoint::{LoadError, Source, lora::LoraConfig, tensors::SaveType},
};
use firebrick_data::image::{Colour, Picture};
use firebrick_train::{
    job, lora,
    origin::{Decision, Origin},
};
use rayon::prelude::*;
use serde_json::Value;

use super::{
    decision::{Answer, decide},
    layouts::Sample,
    processor::Processor,
    recipe::{DataRecipe, Recipe},
    task::{Judged, logits, softmax, with_known_label},
};
use crate::settings;

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

/// Names of so many classes by `config.json`; one that it leaves out has the name that `transformers` gives it.
pub fn named(config: &Value, count: usize) -> Vec<String> {
    let names = &config["id2label"];
    let name = |i: usize| names[i.to_string()].as_str().map(str::to_string);
    (0..count).map(|i| name(i).unwrap_or_else(|| format!("LABEL_{i}"))).collect()
}

impl PictureClassifier {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let origin = Origin::read_for(<Recipe as job::Recipe>::TASK, source)?;
        let config = source.config()?;
        let classifier = ImageClassifier::load(source, Head::Own, device)?;
        let processor = Processor::open(source, classifier.config.num_channels())?;
        classifier.config.check_size(processor.size).map_err(|problem| LoadError::Config {
            path: source.path("preprocessor_config.json"),
            problem,
        })?;
        let labels = named(&config, classifier.model.labels());
        let decision = origin.and_then(|origin| origin.decision);
        if let Some(positive) = decision.as_ref().map(|d| &d.positive)
            && !(labels.len() == 2 && labels.contains(positive))
        {
            let problem = format!("decides for `{positive}`, which is none of two labels");
            bail!(LoadError::Config { path: source.path("firebrick.json"), problem });
        }
        Ok(Self { classifier, processor, labels, decision })
    }

    /// `data` with its pictures as [`Self::processor`] sizes them.
    pub fn reading(&self, data: DataRecipe) -> DataRecipe {
        let Processor { size, shortest_edge, colour, filter, .. } = self.processor;
        DataRecipe { size, shortest_edge, filter, grey: colour == Colour::Grey, ..data }
    }

    /// Answers in the order of the pictures, which may have any size and colours.
    pub fn predict(&self, pictures: &[Picture], batch_size: usize) -> Vec<Prediction> {
        let sized: Vec<Picture> = pictures.par_iter().map(|p| self.processor.size(p)).collect();
        self.predict_sized(&sized, batch_size)
    }

    /// As [`Self::predict`] of pictures that [`Self::processor`] has sized.
    pub fn predict_sized(&self, pictures: &[Picture], batch_size: usize) -> Vec<Prediction> {
        let logits = logits(&self.classifier.model, &self.processor, pictures, batch_size);
        let answer = |logits: &Vec<f32>| {
            let scores = softmax(logits);
            Prediction { answer: decide(self.decision.as_ref(), &self.labels, &scores), scores }
        };
        logits.iter().map(answer).collect()
    }

    /// Judges on samples that were read as [`Self::reading`] says; those with an unknown label are left out.
    pub fn judge(&self, samples: &[Sample], batch_size: usize) -> Judged {
        let known: Vec<_> = with_known_label(samples, &self.labels).collect();
        let pictures: Vec<Picture> = known.iter().map(|(s, _)| s.picture.clone()).collect();
        let truths: Vec<usize> = known.iter().map(|(_, class)| *class).collect();
        let logits = logits(&self.classifier.model, &self.processor, &pictures, batch_size);
        Judged::new(&logits, &truths, &self.labels, self.decision.as_ref())
    }

    /// Writes a folder that `transformers` opens: config, weights, preprocessor, card, origin.
    pub fn save(&self, dir: &Path, origin: &Origin, about: &str) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        self.classifier.save(&dir.join("model.safetensors"), SaveType::F32)?;
        self.save_settings(dir)?;
        origin.save(dir, "image-classification", about)
    }

    /// Writes a folder with the adapter that the model was trained with, and with what is not as in its base.
    pub fn save_adapter(
        &self,
        lora: &LoraConfig,
        dir: &Path,
        origin: &Origin,
    ) -> anyhow::Result<()> {
        let ImageClassifier { config, model } = &self.classifier;
        lora::save(model, lora, |field| config.checkpoint_name(field), origin, dir)?;
        self.save_settings(dir)
    }

    fn save_settings(&self, dir: &Path) -> anyhow::Result<()> {
        settings::save(
            dir,
            &self.classifier.config.to_json(&self.labels),
            &self.processor.to_json(),
        )
    }
}

#[cfg(test)]
mod tests {
    use firebrick_core::arch::{image::ImageConfig, resnet::ResNetConfig};
    use firebrick_data::image::resize::Filter;
    use serde_json::json;

    use super::*;

    fn saved(dir: &Path, task: &str) {
        let config = ImageConfig::ResNet(ResNetConfig::tiny());
        let model = config.init(5, &Device::flex());
        let processor = Processor {
            size: [32, 32],
            shortest_edge: None,
            colour: Colour::Rgb,
            filter: Filter::Bilinear,
            mean: vec![0.5; 3],
            std: vec![0.5; 3],
        };
        let labels: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_string).to_vec();
        let origin = json!({
            "task": task, "labels": labels, "recipe": "mine", "recipe_sha256": "", "data_sha256": "", "metrics": {},
        });
        let origin: Origin = serde_json::from_value(origin).unwrap();
        let classifier = ImageClassifier { config, model };
        let classifier = PictureClassifier { classifier, processor, labels, decision: None };
        classifier.save(dir, &origin, "").unwrap();
    }

    /// As many labels as logits, whatever `config.json` names; and no vector of a face is a label.
    #[test]
    fn as_many_labels_as_logits() {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path(), "image-classification");
        let open = || PictureClassifier::open(&Source::folder(dir.path()), &Device::flex());
        assert_eq!(open().unwrap().labels, ["a", "b", "c", "d", "e"]);
        let mut config = Source::folder(dir.path()).config().unwrap().clone();
        config["id2label"] = Value::Null;
        config["num_labels"] = json!(5);
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let opened = open().unwrap();
        assert_eq!(opened.labels[4], "LABEL_4");
        let picture = Picture::filled(40, 32, Colour::Grey, 9);
        assert_eq!(opened.predict(&[picture], 1)[0].scores.len(), 5);

        saved(dir.path(), "face-embedding");
        let error = open().err().unwrap().to_string();
        assert!(error.contains("is for `face-embedding`"), "{error}");
    }
}
