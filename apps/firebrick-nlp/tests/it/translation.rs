//! A translator from random weights: what it says is nonsense, but always the same.

use burn::prelude::*;
use firebrick_core::arch::bart::{BartConfig, ModelType};
use firebrick_nlp::{
    shipped::MODELS,
    tokenizer::train_byte_bpe,
    translation::{copies::Terms, recipe::Recipe, translator::Translator},
};
use firebrick_train::recipe::parse;

fn translator(device: &Device) -> Translator {
    let texts = ["ein Hund läuft über die Wiese", "a dog runs across the meadow", "你好，世界。"];
    let tokenizer = train_byte_bpe(texts.into_iter(), 300, 1, true).unwrap();
    let config = BartConfig {
        model_type: ModelType::Marian,
        vocab_size: tokenizer.vocab_size(),
        init_std: 0.5,
        max_position_embeddings: 48,
        scale_embedding: true,
        decoder_start_token_id: Some(0),
        ..BartConfig::tiny()
    };
    device.seed(3);
    let text = "version = 1\ntask = \"translation\"\nname = \"t\"\n[tokenizer]\nkind = \"byte-bpe\"\nmax_len = 48\n\
                [data]\ntrain = \"x.csv\"";
    let recipe: Recipe = parse(text.as_bytes(), &[]).unwrap();
    let model = config.init(device);
    Translator::new(&config, model, tokenizer, recipe.generation(), None, device)
}

#[test]
fn a_translation_does_not_depend_on_its_batch() {
    let device = Device::flex();
    let translator = translator(&device);
    let sentences =
        ["a dog", "", "ein Hund läuft über die Wiese, und noch einer", "世界", "🙂 \u{0} x"];
    for beams in [1, 3] {
        let mut config = translator.config().clone();
        config.num_beams = beams;
        let together = translator.sentences(&sentences, &config, 8).unwrap();
        let apart = translator.sentences(&sentences, &config, 1).unwrap();
        assert_eq!(together, apart, "{beams} beams");
        assert!(
            together[1].is_empty() && together.iter().filter(|text| !text.is_empty()).count() > 2
        );
    }
}

#[test]
fn long_texts_are_cut_and_joined() {
    let device = Device::flex();
    let translator = translator(&device);
    let config = translator.config().clone();
    let long = "a dog runs across the meadow and over the hill ".repeat(20);
    let text = format!("a dog.\n\n{long}\n世界");
    let answers = translator.translate(&[&text, ""], &config, 4).unwrap();
    assert_eq!(answers[0].matches('\n').count(), 3);
    assert_eq!(answers[1], "");
}

/// Sentences of the test parts with words that the models do not know.
#[test]
fn no_placeholder_is_left_in_a_translation() {
    let device = Device::flex();
    for (model, sentences) in [
        (
            "multi30k-en-de",
            [
                "A group of people standing in front of an igloo.",
                "A man in a red shirt entering an establishment.",
                "A man—a woman",
                "A  dog  runs.",
            ],
        ),
        (
            "multi30k-de-en",
            [
                "Ein Mann mit einem grünen Schutzhelm und Sicherheitsweste blickt ernst.",
                "Zbigniew, 31, und Wolodymyr, 27, um 10:45 im Bus 417B.",
                "Ein Mann—eine Frau",
                "",
            ],
        ),
        (
            "tatoeba-zh-en",
            ["我在一家工廠工作。", "蒸餾水是水平的。", "我忘了這張地圖。", "瑪麗下樓到廚房。"],
        ),
    ] {
        let translator = Translator::open(&MODELS.model(model).unwrap(), &device).unwrap();
        for answer in translator.translate(&sentences, translator.config(), 2).unwrap() {
            assert!(!answer.contains(['\u{1}', '\u{2}', '\u{3}', '\u{4}']), "{model}: {answer:?}");
        }
    }
}

#[test]
fn traditional_characters_are_read_as_simplified_ones() {
    let source = MODELS.model("tatoeba-zh-en").unwrap();
    let translator = Translator::open(&source, &Device::flex()).unwrap();
    let texts = ["我們在圖書館讀書。", "我们在图书馆读书。"];
    let answers = translator.translate(&texts, translator.config(), 2).unwrap();
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].contains("library"), "{answers:?}");

    // And a glossary may be written in either.
    let terms = Terms::parse("圖書館\tathenaeum").unwrap();
    let translator = translator.with_terms(terms).unwrap();
    let answers = translator.translate(&texts, translator.config(), 2).unwrap();
    assert!(answers.iter().all(|answer| answer.contains("athenaeum")), "{answers:?}");
}

/// Of seven numbers four have a placeholder; the others may be lost, but not in silence.
#[test]
fn what_is_lost_beyond_the_placeholders_is_named() {
    let source = MODELS.model("multi30k-en-de").unwrap();
    let translator = Translator::open(&source, &Device::flex()).unwrap();
    let text = "11, 22, 33, 44, 55, 66 and 77 men.";
    assert_eq!(translator.lost(text, "11, 22, 33, 44 und 66 Männer."), ["55", "77"]);
}
