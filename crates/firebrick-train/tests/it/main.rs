//! The loop on a task small enough to check by eye.
#![recursion_limit = "256"]

mod golden;
mod team;

use std::{
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use burn::{
    module::Module,
    prelude::*,
    tensor::{TensorData, activation::log_softmax},
};
use firebrick_core::layers::{
    dropout::Dropout,
    linear::Linear,
    norm::{After, BatchNorm},
};
use firebrick_kernels::matmul::Precision;
use firebrick_train::{
    checkpoint,
    fit::{Counters, End, Event, FitError, Fitted, Metrics, Plan, fit, gradients},
    optim::Grads,
    recipe::{CheckpointRecipe, Optimizer, TrainRecipe},
    run::{Run, RunInfo, Status},
    task::{Examples, Task},
    team::Team,
};

/// Dropout draws from the device's random numbers, which all tests of this process share: a test that draws, or seeds them,
/// holds this.
fn alone() -> MutexGuard<'static, ()> {
    static RANDOM: Mutex<()> = Mutex::new(());
    RANDOM.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which of four corners a noisy point is nearest to.
#[derive(Module, Debug)]
struct Corners {
    hidden: Linear,
    norm: Option<BatchNorm>,
    dropout: Dropout,
    output: Linear,
}

impl Corners {
    fn new(dropout: f64, device: &Device) -> Self {
        device.seed(3);
        Self {
            hidden: Linear::new(2, 16, 0.5, device),
            norm: None,
            dropout: Dropout::new(dropout),
            output: Linear::new(16, 4, 0.5, device),
        }
        .materialize()
    }

    fn normalized(device: &Device) -> Self {
        let norm = Some(BatchNorm::new(16, 1e-5, 0.1, device));
        Self { norm, ..Self::new(0.3, device) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mut x = self.hidden.forward(x);
        if let Some(norm) = &self.norm {
            x = norm.forward(x, After::default());
        }
        self.output.forward(self.dropout.forward(x.tanh()))
    }
}

impl Task for Corners {
    type Batch = (Tensor<2>, Tensor<1, Int>);

    fn loss(&self, (x, y): Self::Batch) -> Tensor<1> {
        -log_softmax(self.forward(x), 1).gather(1, y.unsqueeze_dim(1)).mean()
    }
}

struct Points(usize);

impl Examples for Points {
    type Batch = (Tensor<2>, Tensor<1, Int>);

    fn len(&self) -> usize {
        self.0
    }

    fn size(&self, index: usize) -> usize {
        1 + index % 5
    }

    fn batch(&self, indices: &[usize], _: u64, device: &Device) -> Self::Batch {
        let corner = |i: usize| [((i % 2) as f32) * 2.0 - 1.0, ((i / 2 % 2) as f32) * 2.0 - 1.0];
        let noise = |i: usize| ((i * 7919 % 101) as f32 / 101.0 - 0.5) * 0.8;
        let x: Vec<f32> = indices.iter().flat_map(|i| corner(*i).map(|c| c + noise(*i))).collect();
        let y: Vec<i32> = indices.iter().map(|i| (i % 4) as i32).collect();
        let n = indices.len();
        (
            Tensor::from_data(TensorData::new(x, [n, 2]), device),
            Tensor::from_data(TensorData::new(y, [n]), device),
        )
    }
}

fn info() -> RunInfo {
    RunInfo {
        name: "corners".into(),
        status: Status::Running,
        command: vec![],
        base: None,
        firebrick: "test".into(),
        burn: "0.22.1".into(),
        device: "flex".into(),
        seed: 5,
        recipe_sha256: "r".into(),
        data_sha256: "d".into(),
        started: 0,
        end: None,
        counters: Counters::default(),
        metrics: Default::default(),
    }
}

fn recipe() -> TrainRecipe {
    TrainRecipe {
        epochs: 4.0,
        batch_size: 8,
        learning_rate: Some(0.02),
        warmup_steps: Some(5),
        ema_decay: 0.9,
        ..TrainRecipe::default()
    }
}

/// Runs the loop in `dir` until its end, or until `stop_at` steps.
/// `None` of one that was stopped.
fn run(dir: &Path, train: &TrainRecipe, stop_at: Option<usize>) -> Option<Fitted<Corners>> {
    let device = Device::flex().autodiff();
    train_on(Corners::new(0.3, &device), dir, train, stop_at)
}

fn train_on(
    model: Corners,
    dir: &Path,
    train: &TrainRecipe,
    stop_at: Option<usize>,
) -> Option<Fitted<Corners>> {
    let stop = AtomicBool::new(false);
    let plan = Plan {
        train,
        checkpoint: &CheckpointRecipe::default(),
        metric: "loss",
        seed: 5,
        max_time: None,
        stop: &stop,
        team: &Team::alone(),
    };
    let mut folder = Run::open(dir, info(), "", "").unwrap();
    let evaluate = |model: &Corners| {
        let loss = model.loss(Points(40).batch(&[1, 6, 11, 16, 3], 0, &Device::flex()));
        Metrics::from([("loss".to_string(), loss.into_scalar::<f64>())])
    };
    let fitted = fit(model, &Points(40), &plan, &mut folder, evaluate, |event| {
        if let Event::Step(step) = event
            && Some(step.step) == stop_at
        {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    match fitted {
        Err(FitError::Interrupted { .. }) => None,
        fitted => Some(fitted.unwrap()),
    }
}

fn weights(dir: &Path, file: &str) -> Vec<u8> {
    let folder = checkpoint::latest(dir).unwrap().expect("the run saved a checkpoint");
    fs::read(folder.join(file)).unwrap()
}

#[test]
fn resumed_runs_give_the_same_bytes() {
    let _alone = alone();
    let home = tempfile::tempdir().unwrap();
    let (straight, halved) = (home.path().join("straight"), home.path().join("halved"));
    assert_eq!(run(&straight, &recipe(), None).unwrap().end, End::Finished);
    // In the middle of an epoch, before an evaluation, and before the last one.
    for step in [5, 7, 11, 20] {
        assert!(run(&halved, &recipe(), Some(step)).is_none());
        let due = checkpoint::counters(&halved).unwrap().unwrap().due;
        assert_eq!(due, [5, 20].contains(&step), "step {step}");
    }
    assert_eq!(run(&halved, &recipe(), None).unwrap().end, End::Finished);
    for file in ["model.safetensors", "best.safetensors", "optimizer.safetensors"] {
        assert_eq!(weights(&straight, file), weights(&halved, file), "{file} differs");
    }
    let log = |dir: &Path| {
        let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
        let steps = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        steps.map(|s| (s["step"].clone(), s["loss"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(log(&straight), log(&halved), "each step is logged once");
}

/// With an average of the weights and two micro-batches a step.
#[test]
fn every_optimizer_resumes_exactly() {
    let _alone = alone();
    for optimizer in [
        Optimizer::Gd,
        Optimizer::Sgd,
        Optimizer::Adam,
        Optimizer::AdamW,
        Optimizer::RmsProp,
        Optimizer::AdaGrad,
        Optimizer::Adafactor,
        Optimizer::Lion,
        Optimizer::Muon,
        Optimizer::Lbfgs,
    ] {
        // 12 steps; of `lbfgs` more than it remembers.
        let full = optimizer.full_batch();
        let lbfgs = optimizer == Optimizer::Lbfgs;
        let train = TrainRecipe {
            optimizer,
            epochs: if full { 12.0 } else { 2.4 },
            accumulation: 2,
            learning_rate: None,
            history_size: lbfgs.then_some(3),
            l1: (!lbfgs).then_some(1e-4),
            ..recipe()
        };
        let home = tempfile::tempdir().unwrap();
        let (straight, halved) = (home.path().join("straight"), home.path().join("halved"));
        assert_eq!(run(&straight, &train, None).unwrap().counters.step, 12);
        assert!(run(&halved, &train, Some(6)).is_none());
        assert_eq!(run(&halved, &train, None).unwrap().end, End::Finished);
        for file in ["model.safetensors", "best.safetensors", "optimizer.safetensors"] {
            let same = weights(&straight, file) == weights(&halved, file);
            assert!(same, "{optimizer:?}: {file} differs");
        }
    }
}

/// The running averages of a batch norm are in checkpoints, and those of the last step go with averaged weights.
#[test]
fn batch_norms_keep_their_averages() {
    let _alone = alone();
    let home = tempfile::tempdir().unwrap();
    let device = Device::flex().autodiff();
    let (straight, halved) = (home.path().join("straight"), home.path().join("halved"));
    let start = || Corners::normalized(&device);
    let fitted = train_on(start(), &straight, &recipe(), None).unwrap();
    train_on(start(), &halved, &recipe(), Some(7));
    train_on(start(), &halved, &recipe(), None);
    for file in ["model.safetensors", "best.safetensors"] {
        assert_eq!(weights(&straight, file), weights(&halved, file), "{file} differs");
    }
    // The last step gave the best weights, so both files are of one step.
    assert_eq!(fitted.counters.best.unwrap().0, fitted.counters.step);
    let [last, best] = ["model.safetensors", "best.safetensors"].map(|file| {
        let bytes = weights(&straight, file);
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        ["hidden.weight", "norm.weight", "norm.running_mean", "norm.running_var"]
            .map(|name| tensors.tensor(name).unwrap().data().to_vec())
    });
    assert!(last[0] != best[0] && last[1] != best[1], "weights are averaged");
    assert!(last[2] == best[2] && last[3] == best[3], "running averages are not");
    assert!(last[2].iter().any(|byte| *byte != 0), "they have learned");
}

/// Factors of eight bits change the gradients by little, and what is outside of a step by nothing.
#[test]
fn bf16_gradients_are_near() {
    let _alone = alone();
    let model = Corners::new(0.0, &Device::flex().autodiff());
    let rows: Vec<usize> = (0..32).collect();
    let in_precision =
        |precision: Precision| precision.during(|| gradients(&model, &Points(40), &rows, 1, 9).1);
    let wide = in_precision(Precision::F32);
    let narrow = in_precision(TrainRecipe { bf16: true, ..recipe() }.precision());
    let numbers = |grads: &Grads| grads.values().flatten().copied().collect::<Vec<f32>>();
    let (wide, narrow) = (numbers(&wide), numbers(&narrow));
    let apart: f32 = wide.iter().zip(&narrow).map(|(a, b)| (a - b).powi(2)).sum();
    let length: f32 = wide.iter().map(|x| x * x).sum();
    let error = (apart / length).sqrt();
    assert!(error < 0.01, "{error}");
    assert_eq!(error > 0.0, Precision::Bf16.is_here());
}

/// Without dropout, 2 x 16 rows give the gradients of 32 rows.
#[test]
fn accumulation_changes_nothing() {
    let _alone = alone();
    let device = Device::flex().autodiff();
    let model = Corners::new(0.0, &device);
    let rows: Vec<usize> = (0..32).collect();
    let (loss_1, once) = gradients(&model, &Points(40), &rows, 1, 9);
    let (loss_2, twice) = gradients(&model, &Points(40), &rows, 2, 9);
    assert!((loss_1 - loss_2).abs() < 1e-6);
    assert_eq!(once.keys().collect::<Vec<_>>(), twice.keys().collect::<Vec<_>>());
    for (name, a) in &once {
        for (a, b) in a.iter().zip(&twice[name]) {
            assert!((a - b).abs() < 1e-6, "{name}: {a} {b}"); // measured 6e-8
        }
    }
}

#[test]
fn learns_and_keeps_the_best() {
    let _alone = alone();
    let home = tempfile::tempdir().unwrap();
    let long = TrainRecipe { epochs: 40.0, ..recipe() };
    let fitted = run(home.path(), &long, None).unwrap();
    let (x, y) = Points(40).batch(&(0..40).collect::<Vec<_>>(), 0, &Device::flex());
    let right = fitted.best.forward(x).argmax(1).reshape([40]).equal(y).int().sum();
    assert_eq!(right.into_scalar::<i64>(), 40);
    let (step, score) = fitted.counters.best.expect("it was evaluated");
    assert!(step > 0 && score > -0.2, "{score}");
}

/// What a killed process may leave behind is not taken for a checkpoint.
#[test]
fn torn_checkpoints_are_not_seen() {
    let _alone = alone();
    let home = tempfile::tempdir().unwrap();
    run(home.path(), &recipe(), Some(9));
    let torn = home.path().join("checkpoints/.step-12.tmp");
    fs::create_dir_all(&torn).unwrap();
    fs::write(torn.join("model.safetensors"), b"half").unwrap();
    let latest = checkpoint::latest(home.path()).unwrap().unwrap();
    assert!(latest.ends_with("step-9"), "{}", latest.display());
    // Killed while another was to take its place.
    fs::rename(&latest, home.path().join("checkpoints/.step-9.old")).unwrap();
    checkpoint::recover(home.path()).unwrap();
    assert_eq!(checkpoint::latest(home.path()).unwrap(), Some(latest));
    assert_eq!(run(home.path(), &recipe(), None).unwrap().end, End::Finished);
}

#[test]
fn another_recipe_or_a_finished_run_is_refused() {
    let _alone = alone();
    let home = tempfile::tempdir().unwrap();
    run(home.path(), &recipe(), Some(3));
    let other = RunInfo { recipe_sha256: "another".into(), ..info() };
    let error = Run::open(home.path(), other, "", "").unwrap_err();
    assert!(error.to_string().contains("recipe differs"), "{error}");
}
