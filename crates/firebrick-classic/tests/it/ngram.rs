//! N-gram models: equal to KenLM's on golden files, and nothing that a file can hold breaks the reader.
//!
//! `tests/golden/kenlm*` are written by `tests/golden/make_kenlm.py` with KenLM 0.3.0. Re-make them, never edit them.

use std::collections::BTreeMap;

use firebrick_classic::{
    error::ReadError,
    ngram::{
        Ngram, Options,
        arpa::{self, Limits},
        vocabulary::{Unit, Vocabulary},
    },
};
use proptest::prelude::*;

const TEXT: &str = include_str!("../golden/ngram.txt");
const ARPA_3: &str = include_str!("../golden/kenlm-3.arpa");
const ARPA_4_PRUNED: &str = include_str!("../golden/kenlm-4-pruned.arpa");

fn fit(options: &Options) -> (Ngram, Vocabulary) {
    let mut words = Vocabulary::new();
    let sentences: Vec<_> = TEXT.lines().map(|line| words.learn(line, Unit::Word)).collect();
    let (model, _) = Ngram::fit(&sentences, words.len(), options).unwrap();
    (model, words)
}

fn written(model: &Ngram, words: &Vocabulary) -> String {
    let mut out = vec![];
    arpa::write(model, words, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// N-gram -> (log10 p, log10 back-off).
fn entries(arpa: &str) -> BTreeMap<&str, (f64, f64)> {
    arpa.lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let p = fields.next()?.parse().ok()?;
            let gram = fields.next()?;
            Some((gram, (p, fields.next().map_or(0.0, |backoff| backoff.parse().unwrap()))))
        })
        .collect()
}

/// Measured 3.1e-7 of log10 p: KenLM adds in single precision.
const LOG10: f64 = 2e-6;

#[track_caller]
fn check_lmplz(golden: &str, options: &Options) {
    let (model, words) = fit(options);
    let ours = written(&model, &words);
    let (mut ours, mut theirs) = (entries(&ours), entries(golden));
    // KenLM gives `<s>`, which is never asked for, a probability of 1.
    let (begin, their_begin) = (ours.remove("<s>").unwrap(), theirs.remove("<s>").unwrap());
    assert!((begin.1 - their_begin.1).abs() < LOG10);
    assert!(ours.keys().eq(theirs.keys()), "other n-grams");
    for ((gram, ours), theirs) in ours.iter().zip(theirs.values()) {
        assert!((ours.0 - theirs.0).abs() < LOG10, "{gram}: p {} {}", ours.0, theirs.0);
        assert!((ours.1 - theirs.1).abs() < LOG10, "{gram}: back-off {} {}", ours.1, theirs.1);
    }
}

#[test]
fn estimates_as_lmplz() {
    check_lmplz(ARPA_3, &Options { order: 3, prune: vec![] });
    check_lmplz(ARPA_4_PRUNED, &Options { order: 4, prune: vec![0, 0, 1] });
}

/// KenLM's files under our reader score as under KenLM's, and so do ours.
#[test]
fn scores_as_kenlm() {
    let golden = include_str!("../golden/kenlm.json");
    let golden: BTreeMap<String, Vec<(String, f64)>> = serde_json::from_str(golden).unwrap();
    for (name, text, options) in [
        ("3", ARPA_3, Options { order: 3, prune: vec![] }),
        ("4-pruned", ARPA_4_PRUNED, Options { order: 4, prune: vec![0, 0, 1] }),
    ] {
        let read = arpa::read(text.as_bytes(), Limits::default()).unwrap();
        for (model, words) in [read, fit(&options)] {
            for (sentence, expected) in &golden[name] {
                let found = model.log_prob(&words.encode(sentence, Unit::Word));
                let found = found / std::f64::consts::LN_10;
                // The golden numbers have five digits.
                assert!((found - expected).abs() < 2e-5, "{name} {sentence}: {found} {expected}");
            }
        }
    }
}

#[test]
fn survives_a_file() {
    for prune in [vec![], vec![0, 1]] {
        let (model, words) = fit(&Options { order: 4, prune });
        let text = written(&model, &words);
        let (read, read_words) = arpa::read(text.as_bytes(), Limits::default()).unwrap();
        assert!(read == model && read_words == words);
    }
}

const SMALL: &str = "\\data\\\nngram 1=4\nngram 2=2\n\n\\1-grams:\n-1\t<unk>\n-99\t<s>\t-0.3\n-0.5\t</s>\n\
    -0.7\tyes\t-0.2\n\n\\2-grams:\n-0.1\t<s> yes\n-0.2\tyes </s>\n\n\\end\\\n";

/// `SMALL` with `from` replaced by `to` is refused with `message`.
#[track_caller]
fn check_refused(from: &str, to: &str, message: &str) {
    assert!(SMALL.contains(from));
    let text = SMALL.replacen(from, to, 1);
    let error = arpa::read(text.as_bytes(), Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), message);
}

#[test]
fn says_which_line_is_wrong() {
    arpa::read(SMALL.as_bytes(), Limits::default()).unwrap();
    check_refused("\\data\\", "data", "line 15: the file ends here, where `\\data\\` is still due");
    check_refused("ngram 1=4", "ngram 1=x", "line 2: `ngram 1=x` is no `ngram N=COUNT`");
    check_refused("ngram 1=4", "ngram 7=4", "line 2: length 7, where 1 is due");
    check_refused("ngram 1=4", "ngrams", "line 1: no `ngram 1=COUNT` after `\\data\\`");
    check_refused(
        "2=2",
        "2=999999999999",
        "line 3: 999999999999 n-grams of length 2, where at most 100000000 in all are taken",
    );
    check_refused(
        "2=2",
        "2=3",
        "line 15: the section of 2-grams ends after 2, but the header announces 3",
    );
    check_refused("2=2", "2=1", "line 13: more than the 1 n-grams that the header announces");
    check_refused("\\2-grams:", "\\3-grams:", "line 11: `\\3-grams:`, where `\\2-grams:` is due");
    check_refused("\\end\\", "", "line 15: the file ends here, where `\\end\\` is still due");
    check_refused("-0.7\tyes", "nan\tyes", "line 9: `nan` is no logarithm of a probability");
    check_refused("-0.7\tyes", "-inf\tyes", "line 9: `-inf` is no logarithm of a probability");
    check_refused("-0.7\tyes", "0.1\tyes", "line 9: `0.1` is no logarithm of a probability");
    check_refused("yes\t-0.2", "yes\tinf", "line 9: the back-off `inf` is no number");
    check_refused("yes\t-0.2", "<s>\t-0.2", "line 9: the n-gram of line 7 again");
    check_refused("<s> yes", "<s> \u{1b}no", "line 12: `\\u{1b}no` is not among the 1-grams");
    check_refused("<s> yes", "<s>", "line 12: `-0.1\\t<s>` is not a number, 2 words");
    check_refused("<s> yes", "yes </s>", "line 13: the n-gram of line 12 again");
    let three = SMALL.replace("2=2\n", "2=2\nngram 3=1\n");
    let three = three.replace("\\end\\", "\\3-grams:\n-0.1\t</s> yes yes\n\n\\end\\");
    let error = arpa::read(three.as_bytes(), Limits::default()).unwrap_err().to_string();
    let expected =
        "line 17: the n-gram without its last word, `</s> yes`, is not in the section before";
    assert_eq!(error, expected);
}

#[test]
fn limits_are_kept() {
    let refused = |text: &[u8], limits| arpa::read(text, limits).unwrap_err().to_string();
    let limits = Limits { order: 1, ..Limits::default() };
    assert_eq!(
        refused(SMALL.as_bytes(), limits),
        "line 3: n-grams of length 2, where at most 1 is taken"
    );
    let limits = Limits { line_bytes: 9, ..Limits::default() };
    assert_eq!(refused(SMALL.as_bytes(), limits), "line 7: more than 9 bytes in one line");
    assert_eq!(refused(b"\\data\\\n\xff\n", Limits::default()), "line 2: not UTF-8 text");
}

/// The end of an n-gram need not be one itself: pruned models of other programs lack some.
#[test]
fn a_gap_is_bridged() {
    let text = "\\data\\\nngram 1=5\nngram 2=1\nngram 3=1\n\\1-grams:\n-1\ta\t-0.5\n-1\tb\t-0.25\n-99\t<s>\n\
        -1\t</s>\n-1\t<unk>\n\\2-grams:\n-0.1\ta b\t-0.125\n\\3-grams:\n-0.01\ta b a\n\\end\\";
    let (model, words) = arpa::read(text.as_bytes(), Limits::default()).unwrap();
    let [a, b] = ["a", "b"].map(|word| words.id(word).unwrap());
    let mut state = model.empty();
    // p(a), p(b | a), p(a | a b); then `b a` is no bigram, so only `a` is remembered: p(b | a).
    for (token, expected) in [(a, -1.0), (b, -0.1), (a, -0.01), (b, -0.1), (b, -0.125 - 0.25 - 1.0)]
    {
        let (log_prob, next) = model.next(state, token);
        assert!((log_prob / std::f64::consts::LN_10 - expected).abs() < 1e-6, "{log_prob}");
        state = next;
    }
}

proptest! {
    /// A file with some bytes overwritten is a model or an error; a model that was read can be asked and written.
    #[test]
    fn whatever_the_bytes(at in 0..SMALL.len(), bytes in prop::collection::vec(
        prop_oneof![prop::sample::select(b"\\\n\t -0123456789=grams</>.e".to_vec()), any::<u8>()], 1..8)) {
        let mut text = SMALL.as_bytes().to_vec();
        let end = (at + bytes.len()).min(text.len());
        text.splice(at..end, bytes);
        match arpa::read(&text[..], Limits::default()) {
            Ok((model, words)) => {
                prop_assert!(!model.log_prob(&words.encode("yes no", Unit::Word)).is_nan());
                let again = written(&model, &words);
                prop_assert!(arpa::read(again.as_bytes(), Limits::default()).unwrap().0 == model);
            }
            Err(ReadError::Line { problem, .. }) => prop_assert!(!problem.contains(char::is_control)),
            Err(error) => prop_assert!(false, "{error:?}"),
        }
    }
}
