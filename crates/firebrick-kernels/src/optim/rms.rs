//! Gradients over the root of their squares: RMSProp (Hinton 2012,
//! <https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf>) averages the squares, AdaGrad (Duchi et al.
//! 2011, <https://jmlr.org/papers/v12/duchi11a.html>) adds them up. What follows is a step of [`super::sgd`].
//!
//! Agrees with `torch.optim.RMSprop` and `torch.optim.Adagrad`.

use rayon::prelude::*;

use crate::BLOCK;

/// How squares are remembered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Squares {
    /// What is kept of the earlier ones.
    pub keep: f32,
    /// What is taken of the new one.
    pub add: f32,
    /// Is added to the root.
    pub epsilon: f32,
    pub scale: f32,
}

/// `scale * grads / (sqrt(squares) + epsilon)`, after the gradient's own squares were taken in.
pub fn normalized(grads: &[f32], squares: &mut [f32], s: &Squares) -> Vec<f32> {
    assert_eq!(grads.len(), squares.len());
    let mut out = vec![0.0; grads.len()];
    out.par_chunks_mut(BLOCK)
        .zip(grads.par_chunks(BLOCK))
        .zip(squares.par_chunks_mut(BLOCK))
        .for_each(|((out, g), v)| dispatch(s, out, g, v));
    out
}

#[inline(always)]
fn block(s: &Squares, out: &mut [f32], g: &[f32], v: &mut [f32]) {
    for ((out, g), v) in out.iter_mut().zip(g).zip(v) {
        let g = g * s.scale;
        *v = s.keep * *v + s.add * g * g;
        *out = g / (v.sqrt() + s.epsilon);
    }
}

crate::for_this_cpu!(dispatch = block(s: &Squares, out: &mut [f32], g: &[f32], v: &mut [f32]));

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 3 and 4 have squares that add up to 25.
    #[test]
    fn squares_add_up() {
        let s = Squares { keep: 1.0, add: 1.0, epsilon: 0.0, scale: 1.0 };
        let mut squares = [0.0];
        assert_eq!(normalized(&[3.0], &mut squares, &s), [1.0]);
        assert_eq!(normalized(&[4.0], &mut squares, &s), [0.8]);
    }
}
