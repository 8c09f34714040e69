//! Which words made the answer: integrated gradients.
//!
//! Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks", <https://arxiv.org/abs/1703.01365>. The word
//! vectors go in a straight line from those of a text that says nothing to those of the text; each word gets the
//! integral of the answer's gradient along its way. The parts add up to the difference between the two answers, and
//! how far they miss it says how good the integral is.

use std::ops::Range;

use burn::{
    module::Module,
    prelude::*,
    tensor::{TensorData, activation::log_softmax},
};

use firebrick_metrics::confusion::argmax;

use super::classifier::{Prediction, TextClassifier};

/// Why a text got its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    pub prediction: Prediction,
    /// In the order of the text; what lies between them are spaces.
    pub words: Vec<Attribution>,
    /// What the parts miss of the difference that they explain.
    pub gap: f64,
    /// Log-odds of the label for the text that says nothing.
    pub baseline: f64,
}

/// What one piece of the text adds to the log-odds of the label; in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribution {
    /// Bytes of the text.
    pub span: Range<usize>,
    pub value: f64,
}

/// Points on the way from nothing to the text; the midpoint rule.
const STEPS: usize = 64;
/// Tokens that are computed at a time, padding included.
const TOKENS: usize = 4096;

/// Explains the answers of a classifier. Gradients cost memory: it is a copy of its own, on a device with autodiff.
pub struct Explainer {
    classifier: TextClassifier,
}

impl Explainer {
    /// `classifier` was opened on a device with autodiff.
    pub fn new(classifier: TextClassifier) -> Self {
        let model = classifier.model.freeze(); // without dropout
        Self { classifier: TextClassifier { model, ..classifier } }
    }

    pub fn labels(&self) -> &[String] {
        &self.classifier.labels
    }

    /// In the text that says nothing, the unknown token stands for every word: recipes with `token_dropout` teach a
    /// model that it says nothing.
    pub fn explain(&self, text: &str) -> Explanation {
        let TextClassifier { model, tokenizer, max_len, .. } = &self.classifier;
        let device = model.devices().into_iter().next().expect("a model has parameters");
        let spans = tokenizer.encode_spans(text, *max_len);
        let nothing = |(id, span): &(u32, Range<usize>)| match span.is_empty() {
            true => *id, // special tokens say where a text begins and ends
            false => tokenizer.unknown_id(),
        };
        let row = |ids: Vec<u32>| {
            let t = ids.len();
            let ids: Vec<i32> = ids.into_iter().map(|id| id as i32).collect();
            Tensor::<2, Int>::from_data(TensorData::new(ids, [1, t]), &device)
        };
        let ids = row(spans.iter().map(|(id, _)| *id).collect()); // [1, T]
        let said = model.words(ids.clone()).detach(); // [1, T, C]
        let unsaid = model.words(row(spans.iter().map(nothing).collect())).detach();
        let way = said.clone() - unsaid.clone();

        // The text itself, to know what there is to explain; then the text that says nothing.
        let both = Tensor::cat(vec![said, unsaid.clone()], 0);
        let answers = self.log_p(both, &ids).into_data().convert_dtype(burn::tensor::DType::F32);
        let answers = answers.try_into_vec::<f32>().expect("just converted to f32");
        let (of_text, of_nothing) = answers.split_at(answers.len() / 2);
        let label = argmax(of_text);
        let scores: Vec<f32> = of_text.iter().map(|log_p| log_p.exp()).collect();
        let odds = |log_p: &[f32]| {
            let others = log_p.iter().enumerate().filter(|(class, _)| *class != label);
            f64::from(log_p[label]) - others.map(|(_, p)| f64::from(*p).exp()).sum::<f64>().ln()
        };
        let (reached, baseline) = (odds(of_text), odds(of_nothing));

        let at_once = (TOKENS / spans.len().max(1)).clamp(1, STEPS);
        let points: Vec<f32> = (0..STEPS).map(|k| (k as f32 + 0.5) / STEPS as f32).collect();
        let mut slope = way.zeros_like(); // [1, T, C]
        for points in points.chunks(at_once) {
            let n = points.len();
            let share = Tensor::<1>::from_data(TensorData::new(points.to_vec(), [n]), &device);
            let words = unsaid.clone() + way.clone() * share.reshape([n, 1, 1]); // [N, T, C]
            let words = words.require_grad();
            let log_p = self.log_p(words.clone(), &ids); // [N, L]
            let grads = log_odds(log_p, label).sum().backward();
            if let Some(grad) = words.grad(&grads) {
                slope = slope + Tensor::from_inner(grad).sum_dim(0);
            }
        }
        let parts = (slope * way).sum_dim(2) / STEPS as f32; // [1, T, 1]
        let parts: Vec<f64> = parts.into_data().iter::<f64>().collect();

        let explained: f64 = parts.iter().sum();
        Explanation {
            prediction: Prediction { label, scores },
            words: words(&spans, &parts),
            gap: (reached - baseline - explained).abs(),
            baseline,
        }
    }

    /// Log-probabilities `[N, L]` of `N` versions of the words' vectors, `[N, T, C]`.
    fn log_p(&self, words: Tensor<3>, ids: &Tensor<2, Int>) -> Tensor<2> {
        let [n, t, _] = words.dims();
        let ids = ids.clone().expand([n, t]);
        let model = &self.classifier.model;
        log_softmax(model.forward_words(words, ids, None), 1)
    }
}

/// Of one class against all others, `[N]`.
fn log_odds(log_p: Tensor<2>, class: usize) -> Tensor<1> {
    let [n, l] = log_p.dims();
    let others: Vec<i32> = (0..l as i32).filter(|other| *other != class as i32).collect();
    let others = Tensor::<1, Int>::from_data(TensorData::new(others, [l - 1]), &log_p.device());
    let others = log_p.clone().select(1, others).exp().sum_dim(1).log(); // [N, 1]
    (log_p.narrow(1, class, 1) - others).reshape([n])
}

/// Tokens that share a character are one piece.
fn words(spans: &[(u32, Range<usize>)], parts: &[f64]) -> Vec<Attribution> {
    let mut words: Vec<Attribution> = vec![];
    for ((_, span), value) in spans.iter().zip(parts).filter(|((_, span), _)| !span.is_empty()) {
        match words.last_mut() {
            Some(last) if span.start < last.span.end => {
                last.span.end = last.span.end.max(span.end);
                last.value += value;
            }
            _ => words.push(Attribution { span: span.clone(), value: *value }),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explainer(model: &str) -> Explainer {
        let source = crate::shipped::MODELS.model(model).unwrap();
        Explainer::new(TextClassifier::open(&source, &Device::flex().autodiff()).unwrap())
    }

    /// The completeness axiom: the parts add up to what there is to explain.
    #[test]
    fn the_parts_add_up_and_the_answer_is_the_model_s() {
        // The second's weights are int8: an answer also rounds activations, an explanation does not.
        for (model, text, tolerance) in
            [("sst2", "a touching , beautiful film .", 1e-5), ("hotel", "房间很脏，服务也差", 1e-3)]
        {
            let explained = explainer(model).explain(text);
            assert!(explained.gap < 0.005, "{model}: {explained:?}");
            let source = crate::shipped::MODELS.model(model).unwrap();
            let plain = TextClassifier::open(&source, &Device::flex()).unwrap();
            let answer = plain.predict(&[text], 1).remove(0);
            assert_eq!(answer.label, explained.prediction.label);
            for (a, b) in answer.scores.iter().zip(&explained.prediction.scores) {
                assert!((a - b).abs() < tolerance, "{answer:?} {explained:?}");
            }
        }
    }

    #[test]
    fn the_word_that_decides_has_the_largest_part() {
        let text = "the film is dull and it is on at noon";
        let explained = explainer("sst2").explain(text);
        let largest = explained.words.iter().max_by(|a, b| a.value.total_cmp(&b.value)).unwrap();
        let span = text.find("dull").unwrap();
        assert!((span..span + 4).contains(&largest.span.start), "{explained:?}");
    }

    #[test]
    fn pieces_are_whole_characters_of_the_text() {
        let explainer = explainer("hotel");
        for text in ["", "好", "👍🏽 ok\u{0}\u{200f}שלום", "a  b"] {
            let explained = explainer.explain(text);
            let mut end = 0;
            for word in &explained.words {
                assert!(
                    word.span.start >= end && text.get(word.span.clone()).is_some(),
                    "{text:?}"
                );
                end = word.span.end;
            }
        }
    }
}
