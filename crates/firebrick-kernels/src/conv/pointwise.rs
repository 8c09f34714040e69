//! Convolutions of single pixels: a product of the weight with the image, which has a row a channel.

use rayon::prelude::*;

use super::Conv2d;
use crate::{
    affine::Finish,
    matmul::{self, Matrix, MatrixMut, Plus, Rows},
};

pub(super) fn takes(conv: &Conv2d) -> bool {
    let Conv2d { kernel, stride, padding, groups, .. } = conv;
    [*kernel, *stride, [*groups, 1]] == [[1; 2]; 3] && *padding == [[0; 2]; 2]
}

pub(super) fn forward(x: &[f32], weight: &[f32], finish: Finish, conv: &Conv2d, out: &mut [f32]) {
    let [read, written] = conv.channels;
    multiply(x, Matrix::new(weight, written, read), finish, conv, out);
}

pub(super) fn input_gradient(dy: &[f32], weight: &[f32], conv: &Conv2d, dx: &mut [f32]) {
    let [read, written] = conv.channels;
    let weight = Matrix::new(weight, written, read).transposed();
    multiply(dy, weight, Finish::default(), conv, dx);
}

/// `out = weight x`, for every image.
fn multiply(x: &[f32], weight: Matrix, finish: Finish, conv: &Conv2d, out: &mut [f32]) {
    let (written, read, area) = (weight.rows(), weight.cols(), conv.size[0] * conv.size[1]);
    if out.is_empty() {
        return;
    }
    let Finish { scale, shift, residual, activation } = finish;
    let rows = |image| {
        let residual = residual.map(|residual| matrix(residual, image, [written, area]));
        Plus::Rows(Rows { scale, shift, residual, activation })
    };
    if conv.batch < rayon::current_num_threads() {
        for (image, out) in out.chunks_exact_mut(written * area).enumerate() {
            let out = MatrixMut::new(out, written, area);
            matmul::shared_product(out, rows(image), weight, matrix(x, image, [read, area]));
        }
        return;
    }
    out.par_chunks_exact_mut(written * area).enumerate().for_each(|(image, out)| {
        let out = MatrixMut::new(out, written, area);
        matmul::product(out, rows(image), weight, matrix(x, image, [read, area]));
    });
}

/// One of several matrices that follow one another.
fn matrix(of: &[f32], index: usize, [rows, cols]: [usize; 2]) -> Matrix<'_> {
    Matrix::new(&of[index * rows * cols..][..rows * cols], rows, cols)
}
