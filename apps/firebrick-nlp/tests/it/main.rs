//! A text classifier on every backend, and as a learner.
#![recursion_limit = "256"]

mod search;
mod split;
mod translation;

use burn::{module::Module, prelude::*};
use firebrick_core::{
    arch::{
        bert::BertConfig,
        text::{TextClassifierModel, TextModel},
    },
    device::DeviceSpec,
};
use firebrick_nlp::{
    classification::{
        batch::{Example, TextExamples},
        task::{Classify, judge, scores},
    },
    tokenizer::{train_byte_bpe, train_wordpiece},
};
use firebrick_train::{
    fit::gradients,
    optim::{OptimState, global_norm},
    recipe::TrainRecipe,
};
use proptest::prelude::*;

fn examples() -> Vec<Example> {
    let text = |i: usize| (0..4 + i % 5).map(|t| (5 + (i * 31 + t * 7) % 59) as u32).collect();
    (0..8).map(|i| Example { ids: text(i), label: i % 2 }).collect()
}

/// Weights large enough that a wrong mask or a swapped layer shows.
fn config() -> BertConfig {
    BertConfig {
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        initializer_range: 0.3,
        ..BertConfig::tiny()
    }
}

fn fresh(device: &Device) -> TextModel {
    TextModel::Bert(config().init_classifier(2, device))
}

/// Logits before, and after one optimiser step, on `spec`; weights come from a file made on flex.
fn outputs(spec: &str) -> (Vec<f32>, Vec<f32>) {
    let home = tempfile::tempdir().unwrap();
    let flex = Device::flex();
    flex.seed(11);
    let fresh = config().init_classifier(2, &flex);
    let mut config = config();
    config.set_labels(&["0".into(), "1".into()]);
    firebrick_core::arch::bert::save_classifier(
        &fresh,
        &config,
        &home.path().join("model.safetensors"),
        Default::default(),
    )
    .unwrap();
    std::fs::write(home.path().join("config.json"), config.to_json().to_string()).unwrap();

    let spec: DeviceSpec = spec.parse().unwrap();
    let device = spec.open().unwrap_or_else(|e| panic!("{e}")).autodiff();
    let source = firebrick_core::checkpoint::Source::folder(home.path());
    let model = TextClassifierModel::load(&source, &device).unwrap().model;
    let model = Classify { model, r_drop: 0.0, imitated: None };
    let examples = examples();
    let texts: Vec<&[u32]> = examples.iter().map(|e| e.ids.as_slice()).collect();
    let ask = |model: &Classify| scores(&model.valid().model, &texts, 0, 8).concat();
    let before = ask(&model);
    let rows: Vec<usize> = (0..8).collect();
    let (_, grads) = gradients(&model, &TextExamples::new(examples.clone(), 2, 0.1), &rows, 1, 1);
    let norm = global_norm(&grads);
    let model = OptimState::default().step(model, &grads, norm, 1e-3, &TrainRecipe::default());
    (before, ask(&model))
}

#[track_caller]
fn check_device(spec: &str) {
    let (flex, other) = (outputs("flex"), outputs(spec));
    let apart =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (forward, step) = (apart(&flex.0, &other.0), apart(&flex.1, &other.1));
    assert!(forward < 1e-4, "{spec}: forward differs by {forward}");
    assert!(step < 1e-3, "{spec}: one training step differs by {step}");
    assert!(apart(&flex.0, &flex.1) > 1e-3, "the step moved nothing");
}

#[test]
fn ndarray_agrees_with_flex() {
    check_device("ndarray");
}

/// On a machine without a GPU: Mesa's software Vulkan, which `cargo xtask test` installs.
#[test]
fn wgpu_agrees_with_flex() {
    check_device("wgpu");
}

#[test]
fn overfits_one_batch() {
    let device = Device::flex().autodiff();
    device.seed(7);
    let mut model = Classify { model: fresh(&device), r_drop: 0.0, imitated: None };
    let rows: Vec<usize> = (0..8).collect();
    let data = TextExamples::new(examples(), 2, 0.0);
    let (mut optim, recipe) = (OptimState::default(), TrainRecipe::default());
    for step in 0..60 {
        let (_, grads) = gradients(&model, &data, &rows, 1, step);
        let norm = global_norm(&grads);
        model = optim.step(model, &grads, norm, 1e-2, &recipe);
    }
    let judged = judge(&model.valid().model, &examples(), 2, 0, 8);
    assert_eq!(judged.confusion.accuracy(), Some(1.0));
    assert!(judged.loss < 0.05, "{}", judged.loss);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What a text is batched with must not change what the model says of it.
    #[test]
    fn padding_is_invisible(text in prop::collection::vec(5u32..64, 1..12), extra in 1usize..12) {
        let device = Device::flex();
        device.seed(1);
        let model = fresh(&device);
        let long = vec![9; text.len() + extra];
        let alone = scores(&model, &[&text], 0, 2).remove(0);
        let together = scores(&model, &[&text, &long], 0, 2).remove(0);
        for (a, b) in alone.iter().zip(&together) {
            prop_assert!((a - b).abs() < 1e-5);
        }
    }
}

const TEXTS: &[&str] = &[
    "a moving and funny film",
    "这家酒店很干净，下次还会来",
    "the film is not funny , it is slow",
    "送餐很慢，味道一般",
    "funny , moving , funny",
];

#[test]
fn wordpiece_is_the_same_every_time() {
    let train = || train_wordpiece(TEXTS.iter().copied(), 120, true, 1).unwrap();
    let saved = || {
        let dir = tempfile::tempdir().unwrap();
        train().save(dir.path(), Some(64)).unwrap();
        ["tokenizer.json", "tokenizer_config.json"]
            .map(|file| std::fs::read(dir.path().join(file)).unwrap())
    };
    assert_eq!(saved(), saved());
    let tokenizer = train();
    assert_eq!(tokenizer.tokens("酒店很干净")[1..6], ["酒", "店", "很", "干", "净"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode("A Funny film", 64)), "a funny film");
    let cut = tokenizer.encode("a moving and funny film", 4);
    assert_eq!((cut.len(), cut[0], cut[3]), (4, 2, 3), "[CLS] .. [SEP]");
}

#[test]
fn byte_bpe_reads_back_every_text() {
    let tokenizer = train_byte_bpe(TEXTS.iter().copied(), 300, 1, true).unwrap();
    for text in TEXTS.iter().chain(&["never seen: ß 🎬 \u{7}"]) {
        let ids = tokenizer.encode(text, 200);
        assert_eq!(tokenizer.decode(&ids).trim_start(), *text);
        assert_eq!((ids[0], ids[ids.len() - 1]), (0, 2), "<s> .. </s>");
    }
    assert_eq!((tokenizer.pad_id(), tokenizer.unknown_id()), (1, 3));
}
