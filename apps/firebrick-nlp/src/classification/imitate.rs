//! A student whose layers become like a teacher's: TinyBERT (Jiao et al. 2020, <https://arxiv.org/abs/1909.10351>).
//!
//! Without the paper's projection between widths, which no student has that is a teacher with fewer layers.

use std::sync::Arc;

use burn::prelude::*;
use firebrick_core::arch::{
    bert::{BertClassifier, BertConfig, trace::Trace},
    text::{TextConfig, TextModel},
};

use super::{classifier::TextClassifier, recipe::DistillRecipe};
use crate::tokenizer::TextTokenizer;

/// The teacher, and how much its layers count.
#[derive(Debug, Clone)]
pub struct Imitated {
    teacher: Arc<BertClassifier>,
    hidden: f64,
    attention: f64,
}

impl Imitated {
    /// `student` reads the same `texts` as the teacher, token by token, or it is said what differs.
    pub fn new<'a>(
        teacher: TextClassifier,
        (config, tokenizer): (&TextConfig, &TextTokenizer),
        mut texts: impl Iterator<Item = &'a str>,
        recipe: &DistillRecipe,
    ) -> Result<Self, String> {
        let (
            TextConfig::Bert(config),
            TextClassifier {
                config: TextConfig::Bert(theirs), model: TextModel::Bert(model), ..
            },
        ) = (config, &teacher)
        else {
            return Err("and its student have to be encoders: BERT, RoBERTa or DistilBERT".into());
        };
        let sizes = |config: &BertConfig| [config.hidden_size, config.num_attention_heads];
        let [own, other] = [config, theirs].map(sizes);
        if own != other {
            return Err(format!(
                "needs a student with the teacher's channels and heads, {other:?}, not {own:?}: `compress --prune layers` \
                 leaves them"
            ));
        }
        let [own, other] = [config, theirs].map(|config| config.num_hidden_layers);
        if own > other {
            return Err(format!(
                "needs a teacher with more layers than {other}: the student has {own}"
            ));
        }
        let max_len = config.longest().min(theirs.longest());
        let cut = |known: &TextTokenizer, text: &str| known.encode(text, max_len);
        if let Some(text) = texts.find(|text| cut(tokenizer, text) != cut(&teacher.tokenizer, text))
        {
            return Err(format!(
                "needs the teacher's tokenizer; the student's cuts {text:?} otherwise"
            ));
        }
        let DistillRecipe { hidden, attention, .. } = *recipe;
        Ok(Self { teacher: Arc::new(model.clone()), hidden, attention })
    }

    /// How far the student's layers are from the teacher's: mean squared distances of what comes out of them and of
    /// their attention, over tokens that are no padding, by their weights. `[1]`
    ///
    /// Layer `m` of `M` is to be like `m * N / M` of the teacher's `N`, counted from one.
    pub fn distance(
        &self,
        student: &Trace,
        ids: Tensor<2, Int>,
        pad: Tensor<2, Bool>,
    ) -> Tensor<1> {
        let teacher = self.teacher.encoder.trace(ids.inner(), Some(pad.clone().inner()));
        let [b, t] = pad.dims();
        let seen = pad.bool_not().float(); // [B, T]
        let count = seen.clone().sum();
        let tokens = seen.clone().reshape([b, t, 1]);
        let pairs = seen.clone().reshape([b, 1, t, 1]) * seen.clone().reshape([b, 1, 1, t]);
        let pair_count = seen.sum_dim(1).square().sum();
        let (own, whole) = (student.hidden.len(), teacher.hidden.len());
        let mut total = Tensor::zeros([1], &count.device());
        for layer in 0..own {
            let like = (layer + 1) * whole / own - 1;
            if self.hidden > 0.0 {
                let apart = &student.hidden[layer];
                let apart = apart.clone() - Tensor::from_inner(teacher.hidden[like].clone());
                let [_, _, c] = apart.dims();
                let mean = (apart.square() * tokens.clone()).sum() / (count.clone() * c as f64);
                total = total + mean * (self.hidden / own as f64);
            }
            if self.attention > 0.0 {
                let apart = &student.attention[layer];
                let apart = apart.clone() - Tensor::from_inner(teacher.attention[like].clone());
                let [_, h, _, _] = apart.dims();
                let mean = (apart.square() * pairs.clone()).sum() / (pair_count.clone() * h as f64);
                total = total + mean * (self.attention / own as f64);
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;

    use super::*;

    fn model(layers: usize, device: &Device) -> BertClassifier {
        let config = BertConfig {
            num_hidden_layers: layers,
            initializer_range: 0.3,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            ..BertConfig::tiny()
        };
        config.init_classifier(2, device)
    }

    /// A model is like itself; padding does not count; another model is not, and what it is off by has a gradient.
    #[test]
    fn distances_are_of_what_is_read() {
        let device = Device::flex().autodiff();
        device.seed(1);
        let student = model(2, &device);
        let imitated = |teacher: BertClassifier| Imitated {
            teacher: Arc::new(teacher.valid()),
            hidden: 1.0,
            attention: 0.5,
        };
        let ids = Tensor::<2, Int>::from_data([[2, 9, 4, 0], [2, 8, 7, 3]], &device);
        let pad = ids.clone().equal_elem(0);
        let trace = |ids: Tensor<2, Int>| student.encoder.trace(ids, Some(pad.clone()));
        let of = |imitated: &Imitated, ids: Tensor<2, Int>| {
            imitated.distance(&trace(ids.clone()), ids, pad.clone())
        };
        let itself = imitated(student.clone());
        assert!(of(&itself, ids.clone()).into_scalar::<f32>() < 1e-9);

        let other = imitated(model(4, &device));
        let distance = of(&other, ids.clone());
        let elsewhere = Tensor::<2, Int>::from_data([[2, 9, 4, 5], [2, 8, 7, 3]], &device);
        let under_padding = of(&other, elsewhere).into_scalar::<f32>();
        assert!((under_padding - distance.clone().into_scalar::<f32>()).abs() < 1e-5);
        let grads = distance.clone().backward();
        assert!(distance.into_scalar::<f32>() > 0.1);
        assert!(student.neuron_effects(&grads).iter().flatten().any(|effect| *effect > 0.0));
    }
}
