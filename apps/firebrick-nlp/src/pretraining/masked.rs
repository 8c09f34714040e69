//! Guessing masked words, and which pieces of text belong together (Devlin et al. 2018, section 3.1), as a training task.

use anyhow::ensure;
use burn::{module::Module, prelude::*, tensor::TensorData};
use firebrick_core::{arch::bert::BertPreTraining, layers::loss::cross_entropy};
use firebrick_train::{
    fit::Metrics,
    sampler::{Coins, mix},
    task::{Examples, Task},
};

use crate::{
    batch::pad,
    lm::{corpus::Stream, evaluate::EvalSettings},
};

/// How texts are masked.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskSettings {
    pub mask_id: u32,
    pub pad_id: u32,
    pub vocab_size: usize,
    /// Tokens that stay: those that begin, end and fill up a text.
    pub special: Vec<u32>,
    /// Share of the other tokens that is to be guessed; 0.15 in the paper.
    pub probability: f64,
    pub pairs: Option<Pairs>,
}

/// How texts are cut in two, of which half get the second piece of another text.
#[derive(Debug, Clone, PartialEq)]
pub struct Pairs {
    /// Tokens behind which a text is cut, where it has one: marks of punctuation.
    pub ends: Vec<u32>,
    /// Tokens of a pair, with the three special ones.
    pub max_len: usize,
}

/// Texts with some tokens to be guessed.
#[derive(Debug, Clone)]
pub struct MaskedBatch {
    /// `[B, T]`; masked
    pub ids: Tensor<2, Int>,
    /// `[B, T]`; true where padding
    pub pad: Tensor<2, Bool>,
    /// `[N]`: which of the `B T` tokens are guessed; at least one.
    pub places: Tensor<1, Int>,
    /// `[N]`: what they were.
    pub targets: Tensor<1, Int>,
    pub pairs: Option<PairBatch>,
}

/// Of texts that are pairs of pieces.
#[derive(Debug, Clone)]
pub struct PairBatch {
    /// `[B, T]`; 1 in the second piece
    pub segments: Tensor<2, Int>,
    /// `[B]`; 0 where the second piece followed the first, 1 where it is of another text
    pub strange: Tensor<1, Int>,
}

/// Texts, masked anew each time.
#[derive(Debug)]
pub struct MaskedTexts {
    texts: Vec<Vec<u32>>,
    settings: MaskSettings,
}

impl MaskedTexts {
    /// Each text must hold a token that is not special; two, if texts are cut in two.
    pub fn new(texts: Vec<Vec<u32>>, settings: MaskSettings) -> anyhow::Result<Self> {
        let p = settings.probability;
        ensure!(p > 0.0 && p < 1.0, "a share of {p} of masked tokens, not within 0 and 1");
        let empty = texts.iter().position(|text| !settings.takes(text));
        let needed = if settings.pairs.is_some() { "two tokens" } else { "token to mask" };
        ensure!(empty.is_none(), "text {} has no {needed}", empty.unwrap_or(0));
        Ok(Self { texts, settings })
    }

    /// Where the second piece of a text begins: behind a mark of punctuation, or anywhere.
    fn cut(&self, text: &[u32], pairs: &Pairs, coins: &mut Coins) -> usize {
        // Both pieces have a token besides what begins and ends the text.
        let places = 2..text.len() - 1;
        let marks: Vec<usize> =
            places.clone().filter(|at| pairs.ends.contains(&text[at - 1])).collect();
        match marks.len() {
            0 => places.start + coins.below(places.len()),
            count => marks[coins.below(count)],
        }
    }

    /// A text in two pieces, or with the second piece of another one; where that begins, and whether it is another's.
    fn pair(&self, index: usize, pairs: &Pairs, coins: &mut Coins) -> (Vec<u32>, usize, bool) {
        let text = &self.texts[index];
        let end = text[text.len() - 1];
        let cut = self.cut(text, pairs, coins);
        let strange = coins.toss(0.5);
        let rest = match strange {
            false => &text[cut..],
            true => {
                let other = &self.texts[coins.below(self.texts.len())];
                &other[self.cut(other, pairs, coins)..]
            }
        };
        // A first piece that is too long leaves a third to the second.
        let first = cut.min(pairs.max_len - pairs.max_len / 3);
        let rest = &rest[..(rest.len() - 1).min(pairs.max_len - first - 2)];
        let pair = [&text[..first], &[end], rest, &[end]].concat();
        (pair, first + 1, strange)
    }

    /// Of every text: the tokens that are guessed, by place; 80 % of them become the mask, 10 % any token, and 10 % stay.
    fn mask(&self, text: &mut [u32], coins: &mut Coins) -> Vec<(usize, u32)> {
        let MaskSettings { mask_id, vocab_size, probability, .. } = self.settings;
        let ordinary: Vec<usize> =
            (0..text.len()).filter(|i| !self.settings.special.contains(&text[*i])).collect();
        let mut chosen: Vec<usize> =
            ordinary.iter().copied().filter(|_| coins.toss(probability)).collect();
        if chosen.is_empty() {
            chosen.push(ordinary[coins.below(ordinary.len())]); // a short text learns too
        }
        let guess = |i: usize| {
            let was = text[i];
            text[i] = match coins.below(10) {
                0..8 => mask_id,
                8 => coins.below(vocab_size) as u32,
                _ => was,
            };
            (i, was)
        };
        chosen.into_iter().map(guess).collect()
    }
}

impl MaskSettings {
    /// Whether a text has enough tokens that are not special.
    pub fn takes(&self, text: &[u32]) -> bool {
        let ordinary = text.iter().filter(|id| !self.special.contains(id)).count();
        ordinary > usize::from(self.pairs.is_some())
    }
}

impl Examples for MaskedTexts {
    type Batch = MaskedBatch;

    fn len(&self) -> usize {
        self.texts.len()
    }

    fn size(&self, index: usize) -> usize {
        self.texts[index].len()
    }

    fn batch(&self, indices: &[usize], seed: u64, device: &Device) -> MaskedBatch {
        let mut coins = Coins::new(seed);
        let (mut texts, mut second, mut strange) = (vec![], vec![], vec![]);
        for index in indices {
            let (text, at, other) = match &self.settings.pairs {
                Some(pairs) => self.pair(*index, pairs, &mut coins),
                None => (self.texts[*index].clone(), 0, false),
            };
            texts.push(text);
            second.push(at);
            strange.push(i32::from(other));
        }
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let (mut places, mut targets) = (vec![], vec![]);
        for (row, text) in texts.iter_mut().enumerate() {
            for (i, was) in self.mask(text, &mut coins) {
                places.push((row * longest + i) as i32);
                targets.push(was as i32);
            }
        }
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let (ids, pad) = pad(&texts, self.settings.pad_id, device);
        let row = |values: Vec<i32>| {
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), device)
        };
        let pairs = self.settings.pairs.as_ref().map(|_| {
            let shape = [texts.len(), longest];
            let segments = texts.iter().zip(&second).flat_map(|(text, second)| {
                (0..longest).map(|i| i32::from((*second..text.len()).contains(&i)))
            });
            let segments = TensorData::new(segments.collect(), shape);
            PairBatch { segments: Tensor::from_data(segments, device), strange: row(strange) }
        });
        MaskedBatch { ids, pad, places: row(places), targets: row(targets), pairs }
    }
}

/// An encoder in pre-training.
#[derive(Module, Debug)]
pub struct PreTraining {
    pub model: BertPreTraining,
}

impl PreTraining {
    /// Logits of the guessed tokens, `[N, V]`, and of whether pieces belong together, `[B, 2]`.
    fn logits(&self, batch: &MaskedBatch) -> (Tensor<2>, Option<Tensor<2>>) {
        let MaskedBatch { ids, pad, places, pairs, .. } = batch.clone();
        let segments = pairs.map(|pairs| pairs.segments);
        let words = &self.model.words;
        let hidden = words.encoder.forward(ids, segments, Some(pad));
        let relation = self.model.next.as_ref().map(|next| next.forward(hidden.clone()));
        let [b, t, c] = hidden.dims();
        (words.logits(hidden.reshape([b * t, c]).select(0, places)), relation)
    }
}

impl Task for PreTraining {
    type Batch = MaskedBatch;

    /// The sum of both tasks' means, as in the paper.
    fn loss(&self, batch: MaskedBatch) -> Tensor<1> {
        let (words, relation) = self.logits(&batch);
        let loss = cross_entropy(words, batch.targets, None, 0.0);
        match relation.zip(batch.pairs) {
            Some((relation, pairs)) => loss + cross_entropy(relation, pairs.strange, None, 0.0),
            None => loss,
        }
    }
}

/// Mean nats and accuracy over the guessed tokens, and `next_accuracy` over pairs, of which half belong together; the masks and
/// pairs are those of `seed`. `model` lies on a device without autodiff.
pub fn evaluate(model: &PreTraining, texts: &MaskedTexts, batch_size: usize, seed: u64) -> Metrics {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let all: Vec<usize> = (0..texts.len()).collect();
    let (mut nats, mut right, mut count, mut together) = (0.0, 0, 0, 0);
    for (index, part) in all.chunks(batch_size.max(1)).enumerate() {
        let batch = texts.batch(part, mix(seed, index as u64), &device);
        let (logits, relation) = model.logits(&batch);
        let MaskedBatch { targets, pairs, .. } = batch;
        let [n, _] = logits.dims();
        right += matches(logits.clone(), targets.clone());
        nats += cross_entropy(logits, targets, None, 0.0).into_scalar::<f64>() * n as f64;
        count += n;
        if let Some((relation, pairs)) = relation.zip(pairs) {
            together += matches(relation, pairs.strange);
        }
    }
    let count = count.max(1) as f64;
    let loss = nats / count;
    let mut metrics = Metrics::from([
        ("loss".into(), loss),
        ("perplexity".into(), loss.exp()),
        ("accuracy".into(), right as f64 / count),
    ]);
    if model.model.next.is_some() {
        metrics.insert("next_accuracy".into(), together as f64 / texts.len().max(1) as f64);
    }
    metrics
}

/// Tokens of a stream that [`pseudo`] has guessed.
const GUESSED: usize = 4096;

/// What a token of a stream costs when it is guessed from `window` tokens around it, it alone masked: a "pseudo-perplexity"
/// (Salazar et al. 2020, <https://arxiv.org/abs/1910.14659>). Of a long stream `GUESSED` tokens at equal distances are guessed.
pub fn pseudo(
    model: &PreTraining,
    stream: &Stream,
    mask_id: u32,
    EvalSettings { window, batch_size }: EvalSettings,
) -> Metrics {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let ids = &stream.ids;
    let (count, window) = (ids.len().min(GUESSED), window.min(ids.len()));
    let places: Vec<usize> = (0..count).map(|i| (2 * i + 1) * ids.len() / (2 * count)).collect();
    let mut nats = 0.0;
    for places in places.chunks(batch_size.max(1)) {
        let (mut rows, mut at, mut targets) = (vec![], vec![], vec![]);
        for (row, place) in places.iter().enumerate() {
            let begin = place.saturating_sub(window / 2).min(ids.len() - window);
            rows.extend(ids[begin..][..window].iter().map(|id| *id as i32));
            at.push((row * window + place - begin) as i32);
            targets.push(ids[*place] as i32);
            rows[at[row] as usize] = mask_id as i32;
        }
        let n = places.len();
        let row = |values: Vec<i32>| Tensor::from_data(TensorData::new(values, [n]), &device);
        let batch = MaskedBatch {
            ids: Tensor::from_data(TensorData::new(rows, [n, window]), &device),
            pad: Tensor::from_data(TensorData::new(vec![false; n * window], [n, window]), &device),
            places: row(at),
            targets: row(targets),
            pairs: None,
        };
        let (logits, _) = model.logits(&batch);
        nats += cross_entropy(logits, batch.targets, None, 0.0).into_scalar::<f64>() * n as f64;
    }
    // As many characters as are the guessed tokens' share of the text.
    let characters = stream.characters as f64 * count as f64 / ids.len().max(1) as f64;
    Metrics::from([
        ("pseudo_perplexity".into(), (nats / count.max(1) as f64).exp()),
        ("pseudo_bits_per_character".into(), nats / std::f64::consts::LN_2 / characters.max(1.0)),
    ])
}

/// How many rows of logits are largest at their target.
fn matches(logits: Tensor<2>, targets: Tensor<1, Int>) -> usize {
    let [n, _] = logits.dims();
    let best = logits.argmax(1).reshape([n]);
    best.equal(targets).int().sum().into_scalar::<i64>() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> MaskedTexts {
        let settings = MaskSettings {
            mask_id: 4,
            pad_id: 0,
            vocab_size: 1000,
            special: vec![0, 2, 3],
            probability: 0.15,
            pairs: None,
        };
        let text = |i: u32| [2].into_iter().chain((0..i % 40 + 1).map(|t| 100 + t)).chain([3]);
        MaskedTexts::new((0..400).map(|i| text(i).collect()).collect(), settings).unwrap()
    }

    #[test]
    fn eighty_ten_ten() {
        let texts = texts();
        let all: Vec<usize> = (0..400).collect();
        let batch = texts.batch(&all, 7, &Device::flex());
        let ids: Vec<i64> = batch.ids.into_data().iter::<i64>().collect();
        let places: Vec<i64> = batch.places.into_data().iter::<i64>().collect();
        let targets: Vec<i64> = batch.targets.into_data().iter::<i64>().collect();
        let n = places.len() as f64;
        // 8,200 ordinary tokens; a text of which none is drawn gives one.
        assert!((1230.0..1500.0).contains(&n), "{n} are guessed");
        let (mut masked, mut same) = (0.0, 0.0);
        for (place, target) in places.iter().zip(&targets) {
            let (row, column) = (*place as usize / 42, *place as usize % 42);
            assert_eq!(texts.texts[row][column], *target as u32);
            assert!(*target >= 100);
            masked += f64::from(u8::from(ids[*place as usize] == 4));
            same += f64::from(u8::from(ids[*place as usize] == *target));
        }
        assert!((0.77..0.83).contains(&(masked / n)), "{masked} of {n}");
        assert!((0.08..0.13).contains(&(same / n)), "{same} of {n}");
        // What is not guessed is as it was.
        let changed = ids.iter().enumerate().filter(|(i, id)| {
            let was = texts.texts[i / 42].get(i % 42).copied().unwrap_or(0);
            **id as u32 != was && !places.contains(&(*i as i64))
        });
        assert_eq!(changed.count(), 0);
    }

    /// Pieces of one text, or of two, of which the first ends behind a mark.
    #[test]
    fn half_of_the_pairs_are_strange() {
        const MARK: u32 = 7;
        let mut texts = texts();
        for (i, text) in texts.texts.iter_mut().enumerate() {
            let own = 100 + i as u32; // every token says which text it is of
            *text = vec![2, own, own, own, MARK, own, own, 3];
        }
        texts.settings.pairs = Some(Pairs { ends: vec![MARK], max_len: 9 });
        let mut strange = 0;
        for index in 0..400 {
            let pairs = texts.settings.pairs.clone().unwrap();
            let (pair, second, is_strange) =
                texts.pair(index, &pairs, &mut Coins::new(index as u64));
            let own = 100 + index as u32;
            assert_eq!(pair[..second], [2, own, own, own, MARK, 3]);
            assert_eq!((pair.len(), pair[8]), (9, 3));
            assert_eq!(pair[6..8] == [own, own], !is_strange);
            strange += usize::from(is_strange);
        }
        assert!((170..230).contains(&strange), "{strange} of 400");
        let batch = texts.batch(&[3, 4], 1, &Device::flex());
        let segments: Vec<i64> = batch.pairs.unwrap().segments.into_data().iter().collect();
        assert_eq!(segments, [0, 0, 0, 0, 0, 0, 1, 1, 1].repeat(2));
    }

    #[test]
    fn long_pieces_share_what_there_is() {
        let mut texts = texts();
        texts.texts = vec![[vec![2], vec![50; 98], vec![3]].concat(); 3];
        let pairs = Pairs { ends: vec![], max_len: 30 };
        for seed in 0..200 {
            let (pair, second, _) = texts.pair(1, &pairs, &mut Coins::new(seed));
            assert!(pair.len() <= 30 && (3..=21).contains(&second), "{second} of {}", pair.len());
            assert!(pair.len() - second >= 2, "{second} of {}", pair.len());
            assert_eq!((pair[second - 1], pair[pair.len() - 1]), (3, 3));
        }
    }

    #[test]
    fn a_text_of_special_tokens_is_an_error() {
        let settings = texts().settings;
        let error = MaskedTexts::new(vec![vec![2, 9, 3], vec![2, 3]], settings).unwrap_err();
        assert_eq!(error.to_string(), "text 1 has no token to mask");
    }
}
