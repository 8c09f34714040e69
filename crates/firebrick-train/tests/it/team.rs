//! Several processes in one run; here they are threads. `apps/firebrick/tests/mpi.rs` has real ones.

use std::sync::Arc;

use firebrick_core::parallel::{Collective, Lost, Threads};

use super::*;

/// Runs the loop on `ranks` threads until its end, or until `stop_at` steps.
fn run_on(ranks: usize, dir: &Path, train: &TrainRecipe, stop_at: Option<usize>) {
    let device = Device::flex().autodiff();
    let members = Threads::group(ranks).into_iter();
    let fresh = || {
        let model = Corners::new(0.0, &device);
        // All weights are drawn here: threads would draw from one stream of random numbers.
        model.loss(Points(1).batch(&[0], 0, &device));
        model
    };
    let started: Vec<_> = members.map(|member| (member, fresh())).collect();
    fs::create_dir_all(dir).unwrap();
    std::thread::scope(|scope| {
        for (member, model) in started {
            scope.spawn(move || {
                let stop = AtomicBool::new(false);
                let team = Team::data_parallel(Arc::new(member));
                let plan = Plan {
                    train,
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
                let evaluate = |_: &Corners| Metrics::from([("loss".to_string(), 1.0)]);
                let fitted = fit(model, &Points(43), &plan, &mut folder, evaluate, |event| {
                    if let Event::Step(step) = event
                        && Some(step.step) == stop_at
                        && !team.is_first()
                    {
                        stop.store(true, std::sync::atomic::Ordering::Relaxed);
                    }
                });
                match fitted {
                    Err(FitError::Interrupted { .. }) => assert!(stop_at.is_some()),
                    fitted => {
                        assert_eq!(fitted.unwrap().end, End::Finished);
                        assert!(stop_at.is_none());
                    }
                }
            });
        }
    });
}

fn losses(dir: &Path) -> Vec<f64> {
    let losses = firebrick_train::run::curve(dir, "loss").unwrap();
    losses.into_iter().map(|(_, loss)| loss).collect()
}

#[track_caller]
fn check_losses(dir: &Path, expected: &[f64]) {
    let losses = losses(dir);
    assert_eq!(losses.len(), expected.len());
    for (step, (loss, expected)) in losses.iter().zip(expected).enumerate() {
        assert!((loss - expected).abs() < 1e-6, "step {step}: {loss}, not {expected}"); // measured 1.2e-7
    }
}

/// The last batch of an epoch has 3 rows: fewer than some of the groups have members.
#[test]
fn ranks_give_the_losses_of_one() {
    let home = tempfile::tempdir().unwrap();
    let one = home.path().join("1");
    run_on(1, &one, &recipe(), None);
    let expected = losses(&one);
    for ranks in [2, 3, 5] {
        let dir = home.path().join(ranks.to_string());
        run_on(ranks, &dir, &recipe(), None);
        check_losses(&dir, &expected);
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let home = tempfile::tempdir().unwrap();
    let (one, other) = (home.path().join("one"), home.path().join("other"));
    run_on(1, &one, &recipe(), None);
    // A process that is not the first is told to stop, and all do.
    run_on(2, &other, &recipe(), Some(6)); // before an evaluation
    run_on(2, &other, &recipe(), Some(7));
    run_on(3, &other, &recipe(), Some(13));
    run_on(1, &other, &recipe(), None);
    check_losses(&other, &losses(&one));
}

/// Sums as a group whose other member gives nothing, or is gone.
#[derive(Debug)]
struct Half(bool);

impl Collective for Half {
    fn rank(&self) -> usize {
        1
    }

    fn size(&self) -> usize {
        2
    }

    fn sum(&self, x: Vec<f32>) -> Result<Vec<f32>, Lost> {
        if self.0 { Err(Lost("rank 0 is gone".into())) } else { Ok(x) }
    }
}

#[test]
fn what_no_process_has_a_gradient_of_gets_none() {
    let model = Corners::new(0.0, &Device::flex());
    let team = Team::data_parallel(Arc::new(Half(false)));
    let (mut loss, mut grads) = (0.25, Grads::from([("hidden.bias".to_string(), vec![1.0; 16])]));
    team.sum_gradients(&model, &mut loss, &mut grads).unwrap();
    assert_eq!(loss, 0.25);
    assert_eq!(grads.into_iter().collect::<Vec<_>>(), [("hidden.bias".into(), vec![1.0; 16])]);
}

#[test]
fn a_lost_process_ends_the_run_with_its_reason() {
    let home = tempfile::tempdir().unwrap();
    let team = Team::data_parallel(Arc::new(Half(true)));
    let stop = AtomicBool::new(false);
    let plan = Plan {
        train: &recipe(),
        checkpoint: &CheckpointRecipe::default(),
        metric: "accuracy",
        seed: 5,
        max_time: None,
        stop: &stop,
        team: &team,
    };
    let model = Corners::new(0.0, &Device::flex().autodiff());
    let mut folder = Run::follow(home.path(), info());
    let ended = fit(model, &Points(40), &plan, &mut folder, |_| Metrics::new(), |_| ());
    let error = ended.map(|fitted| fitted.end).unwrap_err();
    assert!(matches!(&error, FitError::Lost(Lost(why)) if why == "rank 0 is gone"), "{error}");
}
