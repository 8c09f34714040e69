//! Limited-memory BFGS (Liu and Nocedal 1989, <https://doi.org/10.1007/BF01589116>): a step along the gradient times an
//! inverse Hessian that the last steps tell of, as long as the strong Wolfe conditions want it.
//!
//! Agrees with `torch.optim.LBFGS` with `max_iter = 1`, which is one iteration a step.

use burn::module::Module;
use firebrick_kernels::reduce::dot;

use super::{Grads, OptimState, edit};
use crate::{
    recipe::{Method, TrainRecipe},
    task::Task,
};

/// Slots: the last step, the gradient before it, and of up to `history_size` steps, the oldest first, the step and the
/// gradient's change.
const STEP: &str = "step";
const GRADIENT: &str = "gradient";
const PAIR: [&str; 2] = ["step", "change"];

/// A gradient whose largest number is below this is zero.
const FLAT: f32 = 1e-7;
/// A slope, or a bracket of lengths, that is below this is zero.
const TINY: f64 = 1e-9;
/// Curvature below which a step tells nothing.
const CURVED: f64 = 1e-10;

impl OptimState {
    /// A step of LBFGS whose length is found by evaluating the loss and its gradients `again`.
    pub fn search<M: Task>(
        &mut self,
        model: M,
        (loss, grads): (f64, &Grads),
        learning_rate: f64,
        recipe: &TrainRecipe,
        mut again: impl FnMut(&M) -> (f64, Grads),
    ) -> M {
        self.time += 1;
        let Some((direction, length)) = self.direction(grads, learning_rate, recipe) else {
            return self.average(model, grads, recipe);
        };
        let try_length = |length: f64| {
            let (loss, grads) = again(&walk(model.clone(), &scaled(&direction, length)));
            let slope = inner(&grads, &direction);
            // What is no number is too high: the search turns back.
            if loss.is_finite() && slope.is_finite() { (loss, slope) } else { (f64::INFINITY, 1.0) }
        };
        let start = Point { length: 0.0, loss, slope: inner(grads, &direction) };
        let length = strong_wolfe(start, length, f64::from(largest(&direction)), try_length);
        self.walk(model, &direction, length, grads, recipe)
    }

    /// A step of LBFGS as long as the learning rate says.
    pub(super) fn lbfgs_step<M: Module>(
        &mut self,
        model: M,
        grads: &Grads,
        learning_rate: f64,
        recipe: &TrainRecipe,
    ) -> M {
        match self.direction(grads, learning_rate, recipe) {
            Some((direction, length)) => self.walk(model, &direction, length, grads, recipe),
            None => self.average(model, grads, recipe),
        }
    }

    fn walk<M: Module>(
        &mut self,
        model: M,
        direction: &Grads,
        length: f64,
        grads: &Grads,
        recipe: &TrainRecipe,
    ) -> M {
        let step = scaled(direction, length);
        let model = walk(model, &step);
        self.slots.insert(STEP.into(), step);
        self.average(model, grads, recipe)
    }

    /// Where to go and how far at first; nowhere from where the loss is flat.
    fn direction(
        &mut self,
        grads: &Grads,
        learning_rate: f64,
        recipe: &TrainRecipe,
    ) -> Option<(Grads, f64)> {
        if largest(grads) <= FLAT {
            return None;
        }
        let last = self.slots.remove(STEP).zip(self.slots.remove(GRADIENT));
        let length = match last {
            Some(_) => learning_rate,
            None => {
                let sum: f64 = grads.values().flatten().map(|g| f64::from(g.abs())).sum();
                learning_rate * (1.0 / sum).min(1.0)
            }
        };
        if let Some((step, before)) = last {
            let mut change = grads.clone();
            add(&mut change, -1.0, &before);
            if inner(&change, &step) > CURVED {
                self.push([step, change], recipe);
            }
        }
        self.slots.insert(GRADIENT.into(), grads.clone());

        let pairs: Vec<[&Grads; 2]> = (0..).map_while(|index| self.pair(index)).collect();
        let mut direction = scaled(grads, -1.0);
        let mut along = vec![];
        for [step, change] in pairs.iter().rev() {
            let share = inner(step, &direction) / inner(step, change);
            add(&mut direction, -share, change);
            along.push(share);
        }
        if let Some([step, change]) = pairs.last() {
            direction = scaled(&direction, inner(step, change) / inner(change, change));
        }
        for ([step, change], share) in pairs.iter().zip(along.iter().rev()) {
            let against = inner(change, &direction) / inner(step, change);
            add(&mut direction, share - against, step);
        }
        if inner(grads, &direction) > -TINY {
            // The memory misleads; the next step starts afresh.
            self.slots.retain(|slot, _| !is_memory(slot));
            return None;
        }
        Some((direction, length))
    }

    fn pair(&self, index: usize) -> Option<[&Grads; 2]> {
        let [step, change] = PAIR.map(|kind| self.slots.get(&slot(kind, index)));
        Some([step?, change?])
    }

    fn push(&mut self, pair: [Grads; 2], recipe: &TrainRecipe) {
        let Method::Lbfgs { history_size, .. } = recipe.settings().method else {
            unreachable!("only LBFGS has a direction");
        };
        let mut count = (0..).take_while(|index| self.pair(*index).is_some()).count();
        while count >= history_size {
            for kind in PAIR {
                for index in 1..count {
                    let moved = self.slots.remove(&slot(kind, index)).expect("it was counted");
                    self.slots.insert(slot(kind, index - 1), moved);
                }
                if count == 1 {
                    self.slots.remove(&slot(kind, 0));
                }
            }
            count -= 1;
        }
        for (kind, vectors) in PAIR.into_iter().zip(pair) {
            self.slots.insert(slot(kind, count), vectors);
        }
    }
}

fn slot(kind: &str, index: usize) -> String {
    format!("{kind}_{index:03}")
}

fn is_memory(slot: &str) -> bool {
    PAIR.iter().any(|kind| slot.starts_with(kind)) || slot == GRADIENT
}

fn inner(x: &Grads, y: &Grads) -> f64 {
    x.values().zip(y.values()).map(|(x, y)| dot(x, y)).sum()
}

fn largest(x: &Grads) -> f32 {
    x.values().flatten().fold(0.0, |most, x| most.max(x.abs()))
}

fn scaled(x: &Grads, by: f64) -> Grads {
    let times = |x: &Vec<f32>| x.iter().map(|x| (f64::from(*x) * by) as f32).collect();
    x.iter().map(|(name, x)| (name.clone(), times(x))).collect()
}

/// `x += by * y`
fn add(x: &mut Grads, by: f64, y: &Grads) {
    for (x, y) in x.values_mut().zip(y.values()) {
        let pairs = x.iter_mut().zip(y);
        pairs.for_each(|(x, y)| *x = (f64::from(*x) + by * f64::from(*y)) as f32);
    }
}

fn walk<M: Module>(model: M, step: &Grads) -> M {
    edit(model, step, |_, step, w| w.iter_mut().zip(step).for_each(|(w, step)| *w += step))
}

/// The loss at some length along the direction.
#[derive(Debug, Clone, Copy)]
struct Point {
    length: f64,
    loss: f64,
    slope: f64,
}

/// Share of the slope at the start that the loss must fall by.
const DECREASE: f64 = 1e-4;
/// Share of the slope at the start that may be left.
const CURVATURE: f64 = 0.9;
const EVALUATIONS: usize = 25;

/// A length that lowers the loss enough and leaves little slope (Nocedal and Wright 2006, algorithms 3.5 and 3.6), or
/// the best one that was seen. `largest` is the direction's largest number.
fn strong_wolfe(
    start: Point,
    first: f64,
    largest: f64,
    mut try_length: impl FnMut(f64) -> (f64, f64),
) -> f64 {
    let mut at = |length: f64| {
        let (loss, slope) = try_length(length);
        Point { length, loss, slope }
    };
    let high_above =
        |point: &Point| point.loss > start.loss + DECREASE * point.length * start.slope;
    let flat_enough = |point: &Point| point.slope.abs() <= -CURVATURE * start.slope;

    // Longer and longer, until the minimum lies behind.
    let (mut before, mut now) = (start, at(first));
    let mut tries = 0;
    let mut bracket = loop {
        if high_above(&now) || (tries > 1 && now.loss >= before.loss) {
            break [before, now];
        }
        if flat_enough(&now) {
            return now.length;
        }
        if now.slope >= 0.0 {
            break [before, now];
        }
        let shortest = now.length + 0.01 * (now.length - before.length);
        let next = cubic_minimum(before, now, Some((shortest, now.length * 10.0)));
        (before, now) = (now, at(next));
        tries += 1;
        if tries == EVALUATIONS {
            break [start, now];
        }
    };

    // Between two lengths, of which the lower is kept.
    let mut close = false;
    let low_of = |bracket: &[Point; 2]| usize::from(bracket[0].loss > bracket[1].loss);
    let mut low = low_of(&bracket);
    while tries < EVALUATIONS {
        let [left, right] = match bracket[0].length <= bracket[1].length {
            true => [bracket[0].length, bracket[1].length],
            false => [bracket[1].length, bracket[0].length],
        };
        if (right - left) * largest < TINY {
            break;
        }
        let mut length = cubic_minimum(bracket[0], bracket[1], None);
        // Twice near an end, or beyond it: a tenth of the bracket inwards.
        let margin = 0.1 * (right - left);
        if (right - length).min(length - left) < margin {
            if close || length >= right || length <= left {
                let nearer_right = (length - right).abs() < (length - left).abs();
                length = if nearer_right { right - margin } else { left + margin };
                close = false;
            } else {
                close = true;
            }
        } else {
            close = false;
        }
        let new = at(length);
        tries += 1;
        let high = 1 - low;
        if high_above(&new) || new.loss >= bracket[low].loss {
            bracket[high] = new;
            low = low_of(&bracket);
            continue;
        }
        if flat_enough(&new) {
            return new.length;
        }
        if new.slope * (bracket[high].length - bracket[low].length) >= 0.0 {
            bracket[high] = bracket[low];
        }
        bracket[low] = new;
    }
    bracket[low].length
}

/// Where the cubic through two points with their slopes is lowest, within `bounds` (the points', when there are none);
/// the middle where there is no such cubic.
fn cubic_minimum(one: Point, other: Point, bounds: Option<(f64, f64)>) -> f64 {
    let [left, right] = if one.length <= other.length { [one, other] } else { [other, one] };
    let (low, high) = bounds.unwrap_or((left.length, right.length));
    let bend =
        left.slope + right.slope - 3.0 * (left.loss - right.loss) / (left.length - right.length);
    let square = bend * bend - left.slope * right.slope;
    let root = square.sqrt();
    let share = (right.slope + root - bend) / (right.slope - left.slope + 2.0 * root);
    let length = right.length - (right.length - left.length) * share;
    if length.is_finite() { length.clamp(low, high) } else { (low + high) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the first length, the loss falls and the slope that is left is small.
    #[test]
    fn lengths_fulfil_the_strong_wolfe_conditions() {
        let curves: [fn(f64) -> (f64, f64); 3] = [
            |x| ((x - 3.0).powi(2), 2.0 * (x - 3.0)),
            |x| (-x / (x * x + 2.0), (x * x - 2.0) / (x * x + 2.0).powi(2)),
            // Ends at 2.
            |x| (-(2.0 - x).ln() * 0.1 - x, 0.1 / (2.0 - x) - 1.0),
        ];
        for curve in curves {
            let (loss, slope) = curve(0.0);
            for first in [1e-3, 1.0, 30.0] {
                let tried = |length| {
                    let (loss, slope) = curve(length);
                    if loss.is_finite() { (loss, slope) } else { (f64::INFINITY, 1.0) }
                };
                let length = strong_wolfe(Point { length: 0.0, loss, slope }, first, 1.0, tried);
                let (found, left) = curve(length);
                assert!(found <= loss + DECREASE * length * slope, "{first}: {length}");
                assert!(left.abs() <= -CURVATURE * slope, "{first}: {length}");
            }
        }
    }
}
