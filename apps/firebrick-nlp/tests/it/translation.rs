//! A translator from random weights: what it says is nonsense, but always the same.

use burn::prelude::*;
use firebrick_core::arch::bart::{BartConfig, ModelType};
use firebrick_nlp::{
    tokenizer::train_byte_bpe,
    translation::{recipe::Recipe, translator::Translator},
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
