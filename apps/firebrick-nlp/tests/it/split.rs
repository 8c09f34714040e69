//! A model that several processes hold together; here they are threads.

use std::{path::Path, sync::Arc, sync::atomic::AtomicBool};

use burn::module::{ModuleVisitor, Param};
use firebrick_core::{
    layers::split::Split,
    parallel::{Alone, Threads},
};
use firebrick_train::{
    fit::{Counters, Event, FitError, Metrics, Plan, fit},
    recipe::CheckpointRecipe,
    run::{Run, RunInfo, Status, curve},
    team::Team,
};

use super::*;

/// Draws the fresh weights here and now: threads share one generator.
struct Draw;

impl ModuleVisitor for Draw {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        param.val();
    }
}

fn info() -> RunInfo {
    RunInfo {
        name: "split".into(),
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

/// `data` times `model` processes, one thread each.
fn teams(data: usize, model: usize) -> Vec<Team> {
    let world = Threads::group(data * model);
    let mut rows: Vec<_> = (0..model).map(|_| Threads::group(data).into_iter()).collect();
    let mut columns: Vec<_> = (0..data).map(|_| Threads::group(model).into_iter()).collect();
    let team = |(rank, world): (usize, Threads)| Team {
        world: Arc::new(world),
        data: match data {
            1 => Arc::new(Alone),
            _ => Arc::new(rows[rank % model].next().unwrap()),
        },
        model: match model {
            1 => Split::default(),
            _ => Split::over(Arc::new(columns[rank / model].next().unwrap())),
        },
    };
    world.into_iter().enumerate().map(team).collect()
}

/// Trains until the recipe's end, or until `stop_at` steps.
fn train(dir: &Path, teams: Vec<Team>, stop_at: Option<usize>) {
    let device = Device::flex().autodiff();
    let started: Vec<(Team, Classify)> = teams
        .into_iter()
        .map(|team| {
            device.seed(11);
            let model = fresh(&device).split(&team.model);
            model.visit(&mut Draw);
            (team, Classify { model, r_drop: 0.0, imitated: None })
        })
        .collect();
    let recipe = TrainRecipe {
        max_steps: 10,
        epochs: 10.0,
        batch_size: 4,
        warmup_steps: Some(2),
        max_grad_norm: Some(0.5),
        ema_decay: 0.9,
        ..TrainRecipe::default()
    };
    std::fs::create_dir_all(dir).unwrap();
    std::thread::scope(|scope| {
        for (team, model) in started {
            let recipe = &recipe;
            scope.spawn(move || {
                let stop = AtomicBool::new(false);
                let plan = Plan {
                    train: recipe,
                    checkpoint: &CheckpointRecipe::default(),
                    metric: "loss",
                    seed: 5,
                    max_time: None,
                    stop: &stop,
                    team: &team,
                };
                let mut folder = match team.is_first() {
                    true => Run::open(dir, info(), "", "").unwrap(),
                    false => Run::follow(dir, info()),
                };
                let data = TextExamples::new(examples(), 2, 0.1);
                let judged = |model: &Classify| {
                    let judged = judge(&model.model, &examples(), 2, 0, 8);
                    Metrics::from([("loss".to_string(), judged.loss)])
                };
                let fitted = fit(model, &data, &plan, &mut folder, judged, |event| {
                    if let Event::Step(step) = event
                        && Some(step.step) == stop_at
                    {
                        stop.store(true, std::sync::atomic::Ordering::Relaxed);
                    }
                });
                let best = match fitted {
                    Err(FitError::Interrupted { .. }) if stop_at.is_some() => return,
                    fitted => fitted.unwrap().best,
                };
                let joined = best.model.join(&team.model).unwrap();
                let texts = examples();
                let texts: Vec<&[u32]> = texts.iter().map(|e| e.ids.as_slice()).collect();
                scores(&joined, &texts, 0, 8); // by itself, without the others
            });
        }
    });
}

#[track_caller]
fn check(dir: &Path, expected: &Path) {
    for key in ["loss", "grad_norm", "valid/loss"] {
        let [ours, theirs] = [dir, expected].map(|dir| curve(dir, key).unwrap());
        assert_eq!(ours.len(), theirs.len(), "{key}");
        for ((step, a), (_, b)) in ours.into_iter().zip(theirs) {
            // Measured: 2e-6 of the gradients' norms, which are near 10.
            assert!((a - b).abs() < 1e-5 * b.max(1.0), "{key} at step {step}: {a}, not {b}");
        }
    }
}

#[test]
fn parts_take_the_steps_of_the_whole() {
    let home = tempfile::tempdir().unwrap();
    let whole = home.path().join("whole");
    train(&whole, teams(1, 1), None);
    let losses = curve(&whole, "loss").unwrap();
    assert!(losses.len() == 10 && losses[9].1 < losses[0].1, "it learns: {losses:?}");
    for (data, model) in [(1, 2), (2, 2)] {
        let dir = home.path().join(format!("{data}x{model}"));
        train(&dir, teams(data, model), None);
        check(&dir, &whole);
    }
}

#[test]
fn a_checkpoint_is_whole_and_goes_on_in_parts() {
    let home = tempfile::tempdir().unwrap();
    let (whole, other) = (home.path().join("whole"), home.path().join("other"));
    train(&whole, teams(1, 1), None);
    train(&other, teams(1, 2), Some(3));
    train(&other, teams(1, 1), Some(6));
    train(&other, teams(1, 2), None);
    check(&other, &whole);
    let files = |dir: &Path, file: &str| {
        let folder = firebrick_train::checkpoint::latest(dir).unwrap().unwrap();
        std::fs::metadata(folder.join(file)).unwrap().len()
    };
    for file in ["model.safetensors", "best.safetensors", "optimizer.safetensors"] {
        assert_eq!(files(&whole, file), files(&other, file), "{file}");
    }
}

/// Half of the heads and of the inner channels, and all of the rest.
#[test]
fn a_member_has_its_part_only() {
    let device = Device::flex().autodiff();
    let members = Threads::group(2).into_iter();
    let config = config();
    let whole = config.init_classifier(2, &device).num_params();
    let (c, f) = (config.hidden_size, config.intermediate_size);
    // Four matrices and three biases of attention, two matrices and a bias of the feed-forward half.
    let cut = config.num_hidden_layers * (4 * c * c + 3 * c + 2 * c * f + f);
    for member in members {
        let model = config.init_classifier(2, &device).split(&Split::over(Arc::new(member)));
        assert_eq!(model.num_params(), whole - cut / 2);
    }
}
