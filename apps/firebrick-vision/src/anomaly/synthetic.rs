//! Anomalies made of what is normal: a part of a frame that goes on too fast, or that is too large.
//!
//! After the irregular motion of Georgescu et al. 2021, <https://arxiv.org/abs/2011.07491>, here for every place of a
//! frame instead of whole objects. What is pasted unchanged from another time is normal, so that a seam tells nothing.

use firebrick_data::image::Picture;
use firebrick_train::sampler::Coins;

use super::{corpus::Clip, recipe::AnomalyRecipe};

/// Side of a place, in pixels: what the network tells is one number for so many rows and columns.
pub const PLACE: usize = 4;

/// Times that a part is drawn until something moves in it.
const TRIES: usize = 6;

/// Neighbouring grey frames, row by row, and what is wrong in them.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    /// Of each frame `rows * columns` levels out of 255.
    pub frames: Vec<Vec<f32>>,
    /// Rows and columns.
    pub size: [usize; 2],
    /// For each place, row by row, whether what moves there is an anomaly.
    pub wrong: Vec<bool>,
}

/// Rows and columns of places.
pub fn places([rows, columns]: [usize; 2]) -> [usize; 2] {
    // As two convolutions halve them.
    [rows, columns].map(|side| side.div_ceil(2).div_ceil(2))
}

impl Stack {
    /// `count` frames around frame `at` of `clip`, every `step`th; at a clip's ends those that are there.
    pub fn around(clip: &Clip, at: usize, step: usize, count: usize) -> Self {
        let reach = count / 2 * step;
        let last = clip.frames.len() - 1;
        let middle = at.clamp(reach.min(last), last.saturating_sub(reach).max(reach.min(last)));
        let frame = |i: usize| {
            let index = (middle + i * step).saturating_sub(reach).min(last);
            clip.frames[index].pixels.iter().map(|p| f32::from(*p)).collect()
        };
        let Picture { width, height, .. } = clip.frames[0];
        let [rows, columns] = places([height, width]);
        Self {
            frames: (0..count).map(frame).collect(),
            size: [height, width],
            wrong: vec![false; rows * columns],
        }
    }

    /// Mean difference of neighbouring frames in each place, row by row.
    pub fn motion(&self) -> Vec<f32> {
        let [h, w] = self.size;
        let [rows, columns] = places(self.size);
        let mut sums = vec![(0.0f32, 0.0f32); rows * columns];
        for pair in self.frames.windows(2) {
            for y in 0..h {
                for x in 0..w {
                    let sum = &mut sums
                        [(y / PLACE).min(rows - 1) * columns + (x / PLACE).min(columns - 1)];
                    sum.0 += (pair[1][y * w + x] - pair[0][y * w + x]).abs();
                    sum.1 += 1.0;
                }
            }
        }
        sums.into_iter().map(|(sum, count)| sum / count.max(1.0)).collect()
    }

    /// Puts a part of `other`, enlarged by `zoom`, in the same place of this one.
    fn paste(&mut self, other: &Self, part: Part, zoom: f64, wrong: bool) {
        let [h, w] = self.size;
        let (middle_y, middle_x) = (
            part.top as f64 + part.rows as f64 / 2.0,
            part.left as f64 + part.columns as f64 / 2.0,
        );
        for (mine, theirs) in self.frames.iter_mut().zip(&other.frames) {
            for y in part.top..part.top + part.rows {
                for x in part.left..part.left + part.columns {
                    let from = |at: usize, middle: f64, side: usize| {
                        ((at as f64 + 0.5 - middle) / zoom + middle - 0.5)
                            .clamp(0.0, side as f64 - 1.0)
                    };
                    let (from_y, from_x) = (from(y, middle_y, h), from(x, middle_x, w));
                    mine[y * w + x] = between(theirs, [h, w], from_y, from_x);
                }
            }
        }
        let [rows, columns] = places(self.size);
        let (bottom, right) = (part.top + part.rows, part.left + part.columns);
        for row in part.top / PLACE..bottom.div_ceil(PLACE).min(rows) {
            for column in part.left / PLACE..right.div_ceil(PLACE).min(columns) {
                self.wrong[row * columns + column] = wrong;
            }
        }
    }
}

/// The level between four pixels.
fn between(frame: &[f32], [h, w]: [usize; 2], y: f64, x: f64) -> f32 {
    let (y0, x0) = (y as usize, x as usize);
    let (y1, x1) = ((y0 + 1).min(h - 1), (x0 + 1).min(w - 1));
    let (fy, fx) = ((y - y0 as f64) as f32, (x - x0 as f64) as f32);
    let upper = frame[y0 * w + x0] * (1.0 - fx) + frame[y0 * w + x1] * fx;
    let lower = frame[y1 * w + x0] * (1.0 - fx) + frame[y1 * w + x1] * fx;
    upper * (1.0 - fy) + lower * fy
}

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy)]
struct Part {
    top: usize,
    left: usize,
    rows: usize,
    columns: usize,
}

/// The frames around `at` of a clip. With `wrong`, one part of them is an anomaly; so may others be, where `recipe` says how
/// and chance says whether. Parts of other times that are normal are pasted, too.
pub fn made(
    clips: &[Clip],
    (clip, at): (usize, usize),
    count: usize,
    recipe: &AnomalyRecipe,
    wrong: bool,
    coins: &mut Coins,
) -> Stack {
    let mut stack = Stack::around(&clips[clip], at, 1, count);
    let normal = coins.below(2);
    for _ in 0..normal {
        let other = coins.below(clips.len());
        let at = coins.below(clips[other].frames.len());
        let source = Stack::around(&clips[other], at, 1, count);
        let zoom = coins.within(0.9, 1.15);
        if let Some(part) = moving_part(&source, recipe, coins) {
            stack.paste(&source, part, zoom, false);
        }
    }
    let parts = if wrong { 1 + coins.below(2) } else { 0 };
    for _ in 0..parts {
        let other = coins.below(clips.len());
        let at = coins.below(clips[other].frames.len());
        let large = coins.toss(0.35);
        let [slow, fast] = recipe.speed;
        let step = if large { 1 } else { slow + coins.below(fast - slow + 1) };
        let [low, high] = recipe.zoom;
        let zoom = if large {
            low + coins.within(0.0, 1.0) * (high - low)
        } else {
            coins.within(0.9, 1.15)
        };
        let source = Stack::around(&clips[other], at, step, count);
        if let Some(part) = moving_part(&source, recipe, coins) {
            stack.paste(&source, part, zoom, true);
        }
    }
    // What stands still is no anomaly, wherever it comes from.
    let motion = stack.motion();
    for (wrong, motion) in stack.wrong.iter_mut().zip(motion) {
        *wrong &= f64::from(motion) >= recipe.moves;
    }
    stack
}

/// A rectangle in which something moves; `None` where none was found.
fn moving_part(source: &Stack, recipe: &AnomalyRecipe, coins: &mut Coins) -> Option<Part> {
    let [h, w] = source.size;
    let [_, columns] = places(source.size);
    let motion = source.motion();
    let [low, high] = recipe.side;
    (0..TRIES).find_map(|_| {
        let mut side = |limit: usize| (low + coins.below(high - low + 1)).min(limit);
        let (rows, wide) = (side(h), side(w));
        let (top, left) = (coins.below(h - rows + 1), coins.below(w - wide + 1));
        let (y, x) = ((top + rows / 2) / PLACE, (left + wide / 2) / PLACE);
        let near = |dy: usize, dx: usize| {
            let place = (y + dy).saturating_sub(1) * columns + (x + dx).saturating_sub(1);
            motion.get(place).is_some_and(|m| f64::from(*m) >= recipe.moves)
        };
        let moves = (0..9).any(|i| near(i / 3, i % 3));
        moves.then_some(Part { top, left, rows, columns: wide })
    })
}

#[cfg(test)]
mod tests {
    use firebrick_data::image::Colour;

    use super::*;

    /// A light square that goes two pixels to the right with every frame.
    fn clip() -> Clip {
        let frame = |t: usize| {
            let mut frame = Picture::filled(64, 32, Colour::Grey, 50);
            for y in 12..20 {
                for x in 2 * t..2 * t + 8 {
                    if x < 64 {
                        frame.pixels[y * 64 + x] = 250;
                    }
                }
            }
            frame
        };
        Clip { name: "a".into(), frames: (0..28).map(frame).collect(), anomalous: vec![] }
    }

    #[test]
    fn neighbours_at_a_step() {
        let clip = clip();
        let first = |stack: &Stack| -> Vec<usize> {
            let place = |frame: &Vec<f32>| frame[16 * 64..17 * 64].iter().position(|p| *p > 200.0);
            stack.frames.iter().map(|frame| place(frame).unwrap()).collect()
        };
        assert_eq!(first(&Stack::around(&clip, 10, 1, 5)), [16, 18, 20, 22, 24]);
        assert_eq!(first(&Stack::around(&clip, 10, 3, 5)), [8, 14, 20, 26, 32]);
        assert_eq!(first(&Stack::around(&clip, 0, 1, 5)), [0, 2, 4, 6, 8]);
        assert_eq!(first(&Stack::around(&clip, 27, 1, 5))[4], 54);
        let motion = Stack::around(&clip, 10, 1, 5).motion();
        assert!(motion[4 * 16 + 4] > 10.0 && motion[0] == 0.0, "{motion:?}");
    }

    #[test]
    fn anomalies_are_where_something_moves() {
        let clips = [clip()];
        let recipe = AnomalyRecipe { side: [12, 24], ..AnomalyRecipe::default() };
        let stack = |wrong: bool, seed: u64| {
            made(&clips, (0, 12), 5, &recipe, wrong, &mut Coins::new(seed))
        };
        let mut found = 0;
        for seed in 0..20 {
            assert!(stack(false, seed).wrong.iter().all(|wrong| !wrong));
            let made = stack(true, seed);
            assert_eq!(made, stack(true, seed));
            for (wrong, motion) in made.wrong.iter().zip(made.motion()) {
                assert!(!wrong || motion >= 6.0);
            }
            found += usize::from(made.wrong.contains(&true));
        }
        assert!(found > 10, "{found} of 20 have one");
    }
}
