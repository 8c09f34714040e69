//! The training loop. It exists once.
//!
//! Everything random is a function of the recipe's seed and the step, and everything else that a step
//! reads is in the checkpoint; hence N steps straight and N/2 + resume + N/2 give the same bytes on
//! the CPU.
//!
//! Several processes run it side by side, each on its part of every batch ([`crate::team`]). The first one evaluates,
//! writes, and says when to stop.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Tensor},
};
use firebrick_core::{
    checkpoint::{rounded::rounded, sparse::pruned},
    parallel::Lost,
};
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::{self, CheckpointError},
    optim::{self, Grads, OptimState},
    recipe::{CheckpointRecipe, Method, TrainRecipe},
    run::Run,
    sampler,
    schedule::lr_at,
    task::{Examples, Task},
    team::Team,
};

/// What the loop counts; saved with every checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Optimiser steps taken.
    pub step: usize,
    /// Best validation score so far and the step it was reached at.
    pub best: Option<(usize, f64)>,
    /// Evaluations since the best.
    pub stale: usize,
    /// Seconds spent in steps, over all sessions of the run.
    pub seconds: f64,
    /// Tokens trained on, without padding.
    pub tokens: u64,
    /// The weights of this step are still to be evaluated: the run was interrupted before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub due: bool,
}

/// One optimiser step, as reported.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Step {
    /// Counted from 1.
    pub step: usize,
    pub of: usize,
    pub epoch: usize,
    pub loss: f64,
    pub learning_rate: f64,
    pub grad_norm: f64,
    /// Of this step, without padding.
    pub tokens_per_second: f64,
}

/// What the loop tells its caller.
#[derive(Debug)]
pub enum Event<'a> {
    Resumed {
        step: usize,
    },
    Step(&'a Step),
    Evaluated {
        step: usize,
        metrics: &'a Metrics,
        best: bool,
    },
    Saved {
        step: usize,
    },
    /// Before its last step; the checkpoint is saved.
    Stopped {
        step: usize,
        end: End,
    },
}

/// Scores by name.
pub type Metrics = BTreeMap<String, f64>;

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    Finished,
    /// No better score for `patience` evaluations.
    EarlyStop,
    OutOfTime,
    Interrupted,
}

#[derive(Debug, thiserror::Error)]
pub enum FitError {
    #[error(
        "the loss is {loss} at step {step}: lower `train.learning_rate`, or set `train.max_grad_norm`"
    )]
    Diverged { step: usize, loss: f64 },
    /// From outside, after this step; a checkpoint is saved.
    #[error("interrupted after step {}", counters.step)]
    Interrupted { counters: Counters },
    #[error("no training examples")]
    NoExamples,
    #[error("the evaluation gave no `{0}`")]
    NoMetric(String),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("cannot write the run's log")]
    Log(#[source] std::io::Error),
    #[error("the processes of the run have come apart")]
    Lost(#[from] Lost),
    #[error(
        "this process is at step {step} and the first one is not: all need one folder of runs, \
         on a file system that every machine sees"
    )]
    Apart { step: usize },
    #[error("{0} is for a run in one process")]
    Alone(&'static str),
}

/// The recipe's parts that the loop reads.
pub struct Plan<'a> {
    pub train: &'a TrainRecipe,
    pub checkpoint: &'a CheckpointRecipe,
    /// Score that picks the best weights.
    pub metric: &'a str,
    pub seed: u64,
    pub max_time: Option<Duration>,
    /// Set from outside (Ctrl-C): the loop saves a checkpoint and returns.
    pub stop: &'a AtomicBool,
    pub team: &'a Team,
}

/// A trained model.
pub struct Fitted<T> {
    /// The best weights by validation score, on the device without autodiff.
    pub best: T,
    pub end: End,
    pub counters: Counters,
}

/// Number of optimiser steps that the recipe asks for.
pub fn total_steps(examples: usize, train: &TrainRecipe) -> usize {
    let per_epoch = examples.div_ceil(train.rows_per_step(examples));
    let steps = ((per_epoch as f64 * train.epochs).ceil() as usize).max(1);
    match train.max_steps {
        0 => steps,
        limit => steps.min(limit),
    }
}

/// Trains `model` (on an autodiff device) from where `run` stands until the plan ends; one that is interrupted is an error.
///
/// `evaluate` gets the model without autodiff, with averaged weights if the recipe averages, pruned and rounded if it does so; only the
/// processes that evaluate call it, and the others give back their last weights as the best.
pub fn fit<T, E>(
    mut model: T,
    examples: &E,
    plan: &Plan,
    run: &mut Run,
    mut evaluate: impl FnMut(&T) -> Metrics,
    mut report: impl FnMut(Event),
) -> Result<Fitted<T>, FitError>
where
    T: Task<Batch = E::Batch>,
    E: Examples,
{
    if examples.is_empty() {
        return Err(FitError::NoExamples);
    }
    let (train, team) = (plan.train, plan.team);
    let searches = matches!(train.settings().method, Method::Lbfgs { line_search: true, .. });
    if searches && team.world.size() > 1 {
        return Err(FitError::Alone("`train.line_search` of lbfgs"));
    }
    let sizes: Vec<usize> = (0..examples.len()).map(|i| examples.size(i)).collect();
    let batch_size = train.rows_per_step(sizes.len());
    let per_epoch = sizes.len().div_ceil(batch_size);
    let steps = total_steps(sizes.len(), train);
    let eval_every = if train.eval_every == 0 { per_epoch } else { train.eval_every };
    let save_every =
        if plan.checkpoint.every_steps == 0 { eval_every } else { plan.checkpoint.every_steps };

    let mut optim = OptimState::default();
    let mut counters = Counters::default();
    let mut best = None;
    draw(&model, plan.seed);
    if team.is_first() {
        checkpoint::recover(run.dir())?;
    }
    if let Some(saved) = checkpoint::latest(run.dir())? {
        let restored = checkpoint::load(&saved, model, &team.model)?;
        (model, optim, counters, best) =
            (restored.model, restored.optim, restored.counters, restored.best);
        report(Event::Resumed { step: counters.step });
    }
    let at = [(counters.step as u64).to_le_bytes(), u64::from(counters.due).to_le_bytes()];
    if !team.agrees(&at.concat())? {
        return Err(FitError::Apart { step: counters.step });
    }
    run.rewind(counters.step, counters.due).map_err(FitError::Log)?;

    let started = Instant::now();
    let earlier = counters.seconds;
    let mut end = End::Finished;
    let mut epoch = (usize::MAX, vec![]);
    while counters.step < steps || counters.due {
        if !counters.due {
            let index = counters.step;
            if epoch.0 != index / per_epoch {
                let number = index / per_epoch;
                epoch = (number, sampler::epoch(&sizes, batch_size, plan.seed, number));
            }
            let batch = &epoch.1[index % per_epoch];
            let begun = Instant::now();
            let (taught, loss, grad_norm) =
                taught(model, &mut optim, examples, batch, plan, [index, steps])?;
            model = taught;

            let tokens: usize = batch.iter().map(|i| sizes[*i]).sum();
            counters.step += 1;
            counters.tokens += tokens as u64;
            let step = Step {
                step: counters.step,
                of: steps,
                epoch: epoch.0,
                loss,
                learning_rate: lr_at(index, steps, train),
                grad_norm,
                tokens_per_second: tokens as f64 / begun.elapsed().as_secs_f64(),
            };
            run.log_step(&step).map_err(FitError::Log)?;
            report(Event::Step(&step));
            counters.due = counters.step.is_multiple_of(eval_every) || counters.step == steps;
        }

        let last = counters.step == steps;
        // Who waits for the end of the process does not wait for a score.
        let stops = |end| decided(team, end, plan.stop.load(Ordering::Relaxed));
        let evaluates = counters.due && stops(End::Finished)? != End::Interrupted;
        if evaluates {
            counters.due = false;
        }
        if evaluates && team.evaluates() {
            let candidate = seen(&optim.averaged(model.valid()), train, train.sparsity);
            let metrics = evaluate(&candidate);
            let score = score(&metrics, plan.metric)?;
            let better = counters.best.is_none_or(|(_, best)| score > best);
            if better {
                counters.best = Some((counters.step, score));
                counters.stale = 0;
                best = Some(candidate);
            } else {
                counters.stale += 1;
            }
            run.log_eval(counters.step, &metrics).map_err(FitError::Log)?;
            report(Event::Evaluated { step: counters.step, metrics: &metrics, best: better });
        }
        counters.seconds = earlier + started.elapsed().as_secs_f64();

        if plan.max_time.is_some_and(|limit| started.elapsed() >= limit) {
            end = End::OutOfTime;
        } else if train.patience > 0 && counters.stale >= train.patience {
            end = End::EarlyStop;
        }
        end = stops(end)?;
        let saves = counters.step.is_multiple_of(save_every) || last || end != End::Finished;
        if saves && team.evaluates() {
            run.flush().map_err(FitError::Log)?;
            checkpoint::save(
                run.dir(),
                &model,
                &team.model,
                &optim,
                &counters,
                best.as_ref(),
                plan.checkpoint.keep,
            )?;
            report(Event::Saved { step: counters.step });
        }
        if end != End::Finished {
            report(Event::Stopped { step: counters.step, end });
            break;
        }
    }
    if end == End::Interrupted {
        return Err(FitError::Interrupted { counters });
    }
    let best = match best {
        Some(best) => best,
        None => seen(&optim.averaged(model.valid()), train, train.sparsity), // stopped before the first evaluation
    };
    Ok(Fitted { best, end, counters })
}

/// The weights that steps and scores are of; what learns are the floats behind them.
fn seen<T: Task>(model: &T, train: &TrainRecipe, sparsity: f64) -> T {
    let model = if sparsity > 0.0 { pruned(model.clone(), sparsity) } else { model.clone() };
    match train.quantize.format() {
        Some(format) => rounded(model, format),
        None => model,
    }
}

/// The model after step `index` of `steps`, its loss on the batch before, and the length of the gradient.
fn taught<T, E>(
    model: T,
    optim: &mut OptimState,
    examples: &E,
    batch: &[usize],
    plan: &Plan,
    [index, steps]: [usize; 2],
) -> Result<(T, f64, f64), FitError>
where
    T: Task<Batch = E::Batch>,
    E: Examples,
{
    let (train, team) = (plan.train, plan.team);
    let mine = |part: usize| part % team.data.size() == team.data.rank();
    let seed = sampler::mix(plan.seed ^ 0x5eed, index as u64);
    // As many micro-batches as the recipe says, or one for each process.
    let parts = batch.len().div_ceil(train.batch_size) * train.accumulation;
    let parts = parts.max(team.data.size());
    let precision = train.precision();
    let sparsity = sparsity_at(index, steps, train.sparsity);
    let again = |model: &T| {
        precision.during(|| gradients(&seen(model, train, sparsity), examples, batch, parts, seed))
    };
    let (mut loss, mut grads) = precision.during(|| {
        share_of_gradients(&seen(&model, train, sparsity), examples, batch, parts, seed, mine)
    });
    team.sum_gradients(&model, &mut loss, &mut grads)?;
    if !loss.is_finite() {
        return Err(FitError::Diverged { step: index + 1, loss });
    }
    let norm = team.global_norm(&grads)?;
    let learning_rate = lr_at(index, steps, train);
    let model = match train.settings().method {
        Method::Lbfgs { line_search: true, .. } => {
            optim.search(model, (loss, &grads), learning_rate, train, again)
        }
        _ => precision.during(|| optim.step(model, &grads, norm, learning_rate, train)),
    };
    Ok((model, loss, norm))
}

/// Share of zeros among the weights that step `index` is computed with: that of Zhu and Gupta 2017,
/// <https://arxiv.org/abs/1710.01878>, over the first half of the steps.
fn sparsity_at(index: usize, steps: usize, last: f64) -> f64 {
    let done = (2.0 * index as f64 / steps as f64).min(1.0);
    last * (1.0 - (1.0 - done).powi(3))
}

/// Whether a score is a loss.
pub fn lower_is_better(metric: &str) -> bool {
    ["loss", "perplexity", "bits_per_char", "cer", "wer", "eer"].contains(&metric)
}

/// Draws the fresh weights, which Burn would draw when they are first read: in the order of a forward pass, and from
/// the seed of its dropout, which differs between processes.
fn draw<M: Module>(model: &M, seed: u64) {
    struct Reader;
    impl ModuleVisitor for Reader {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            param.val();
        }
    }
    model.devices().into_iter().for_each(|device| device.seed(seed));
    model.visit(&mut Reader);
}

/// Interrupted if any process was, else what the first one says.
fn decided(team: &Team, end: End, stop: bool) -> Result<End, Lost> {
    const ENDS: [End; 3] = [End::Finished, End::EarlyStop, End::OutOfTime];
    let said = if team.is_first() { ENDS.iter().position(|other| *other == end) } else { None };
    let sums = team.world.sum(vec![said.unwrap_or(0) as f32, f32::from(u8::from(stop))])?;
    Ok(if sums[1] > 0.0 { End::Interrupted } else { ENDS[sums[0] as usize] })
}

/// Higher is better, whatever the metric.
fn score(metrics: &Metrics, name: &str) -> Result<f64, FitError> {
    let value = *metrics.get(name).ok_or_else(|| FitError::NoMetric(name.to_string()))?;
    Ok(if lower_is_better(name) { -value } else { value })
}

/// Mean loss over `batch` and its gradients, summed over `parts` micro-batches.
pub fn gradients<T, E>(
    model: &T,
    examples: &E,
    batch: &[usize],
    parts: usize,
    seed: u64,
) -> (f64, Grads)
where
    T: Task<Batch = E::Batch>,
    E: Examples,
{
    share_of_gradients(model, examples, batch, parts, seed, |_| true)
}

/// The shares of the micro-batches that are `mine` in [`gradients`]: they add up to it. A micro-batch is the same,
/// dropout included, whoever computes it.
fn share_of_gradients<T, E>(
    model: &T,
    examples: &E,
    batch: &[usize],
    parts: usize,
    seed: u64,
    mine: impl Fn(usize) -> bool,
) -> (f64, Grads)
where
    T: Task<Batch = E::Batch>,
    E: Examples,
{
    let device: Device = model.devices().into_iter().next().expect("a model has parameters");
    let mut grads = Grads::new();
    let mut total = 0.0;
    let micro_batches = batch.chunks(batch.len().div_ceil(parts)).enumerate();
    for (index, part) in micro_batches.filter(|(index, _)| mine(*index)) {
        let seed = sampler::mix(seed, index as u64);
        device.seed(seed); // dropout
        let weight = part.len() as f64 / batch.len() as f64;
        let loss = model.loss(examples.batch(part, seed, &device));
        total += weight * loss.clone().into_scalar::<f64>();
        let mut backward = loss.backward();
        optim::add_gradients(&mut grads, model, &mut backward, weight as f32);
    }
    (total, grads)
}
