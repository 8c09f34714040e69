//! Language models before neural networks on the streams of a [`Corpus`]: counted n-grams, and a hidden Markov model.

use firebrick_classic::{
    hmm::Hmm,
    ngram::{self, Ngram, vocabulary},
};

use super::{
    corpus::{Corpus, END, Stream},
    evaluate::Judged,
};

/// Sentences of a stream of words, or all of a stream without ends.
fn sentences(corpus: &Corpus, stream: &Stream) -> Vec<Vec<u32>> {
    let end = corpus.tokenizer.token_id(END);
    let mut parts: Vec<Vec<u32>> =
        stream.ids.split(|id| Some(*id) == end).map(<[u32]>::to_vec).collect();
    if end.is_some() && parts.last().is_some_and(Vec::is_empty) {
        parts.pop(); // behind the last end
    }
    parts
}

/// An interpolated modified Kneser-Ney model of the training part, and what the two other parts cost it.
///
/// A sentence's end counts as a token, as it does in a stream of words.
pub fn ngram(corpus: &Corpus, order: usize) -> anyhow::Result<(Ngram, [Judged; 2])> {
    // 0 is `<unk>` on both sides; the model has two tokens of its own behind it.
    let number = |id: &u32| if *id == 0 { vocabulary::UNK } else { id + 2 };
    let numbers = |stream: &Stream| -> Vec<Vec<u32>> {
        sentences(corpus, stream).iter().map(|s| s.iter().map(number).collect()).collect()
    };
    let options = ngram::Options { order, ..ngram::Options::default() };
    let (model, _) = Ngram::fit(&numbers(&corpus.train), corpus.vocab_size + 2, &options)?;
    let judge = |stream: &Stream| {
        let sentences = numbers(stream);
        Judged {
            nats: -sentences.iter().map(|s| model.log_prob(s)).sum::<f64>(),
            tokens: sentences.iter().map(|s| s.len() + 1).sum(),
            characters: stream.characters,
        }
    };
    let judged = [judge(&corpus.valid), judge(&corpus.test)];
    Ok((model, judged))
}

/// Tokens of a piece of a stream without ends.
const PIECE: usize = 1000;

/// Share of probability that every state gives to all tokens alike: the training part may not have one of them.
const SMOOTHING: f64 = 1e-4;

/// A hidden Markov model of `states` states after `rounds` rounds of Baum-Welch, and what the two other parts cost it.
pub fn hidden_markov(
    corpus: &Corpus,
    states: usize,
    rounds: usize,
    seed: u64,
) -> anyhow::Result<(Hmm, [Judged; 2])> {
    let end = corpus.tokenizer.token_id(END);
    let sequences = |stream: &Stream| -> Vec<Vec<usize>> {
        let symbols: Vec<usize> = stream.ids.iter().map(|id| *id as usize).collect();
        match end {
            Some(end) => symbols
                .split_inclusive(|symbol| *symbol == end as usize)
                .map(<[usize]>::to_vec)
                .collect(),
            None => symbols.chunks(PIECE).map(<[usize]>::to_vec).collect(),
        }
    };
    let mut model = Hmm::random(states, corpus.vocab_size, seed);
    let failed = |number| anyhow::anyhow!("sequence {number} is impossible under the model");
    model.baum_welch(&sequences(&corpus.train), rounds, 0.0).map_err(failed)?;
    let even = SMOOTHING / corpus.vocab_size as f64;
    let emissions = model.emissions().iter().map(|p| p * (1.0 - SMOOTHING) + even).collect();
    let model = Hmm::new(model.start().to_vec(), model.transitions().to_vec(), emissions)
        .map_err(anyhow::Error::msg)?;
    let judge = |stream: &Stream| Judged {
        nats: -sequences(stream).iter().map(|s| model.log_likelihood(s)).sum::<f64>(),
        tokens: stream.ids.len(),
        characters: stream.characters,
    };
    let judged = [judge(&corpus.valid), judge(&corpus.test)];
    Ok((model, judged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::corpus::words;

    #[test]
    fn a_repeated_text_costs_little() {
        let text = "the cat sat on the mat\nthe dog ran\n".repeat(30);
        let corpus = words([&text, &text, "the cat ran\n"]).unwrap();
        let (_, [same, other]) = ngram(&corpus, 3).unwrap();
        assert_eq!((same.tokens, other.tokens), (corpus.valid.ids.len(), 4));
        assert!(same.perplexity() < 1.5, "{}", same.perplexity());
        assert!(other.perplexity() > same.perplexity());
        let (_, [markov, _]) = hidden_markov(&corpus, 6, 60, 5).unwrap();
        let (_, [unigram, _]) = ngram(&corpus, 1).unwrap();
        assert_eq!(markov.tokens, corpus.valid.ids.len());
        assert!(markov.perplexity() < unigram.perplexity(), "{}", markov.perplexity());
    }
}
