//! Kernels over flex tensors: shapes checked, views made contiguous.

use burn::{backend::Flex, backend::TensorMetadata, prelude::*, tensor::DType};
use burn_flex::FlexTensor;
use firebrick_kernels::{
    attention::{self, Attention},
    dropout::Dropout,
    gelu,
    matmul::{Matrix, matmul, sum_rows},
    norm::{self, Norm},
};

use super::FusedOps;

impl FusedOps for Flex {
    fn fused_gelu(x: FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        let mut y = like(&x);
        gelu::forward(floats(&x), y.storage_mut());
        y
    }

    fn fused_dropout(x: FlexTensor, dropout: Dropout) -> FlexTensor {
        let x = x.to_contiguous();
        let mut y = like(&x);
        dropout.apply(floats(&x), y.storage_mut());
        y
    }

    fn fused_linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let (x, bias) = (x.to_contiguous(), bias.to_contiguous());
        product(&x, matrix(&weight), Some(floats(&bias)))
    }

    fn fused_product(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        product(&x.to_contiguous(), matrix(&weight), None)
    }

    fn fused_norm(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, eps: f32) -> FlexTensor {
        normalised(x, None, weight, bias, eps)
    }

    fn fused_residual_norm(
        x: FlexTensor,
        branch: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        eps: f32,
        dropout: Dropout,
    ) -> FlexTensor {
        normalised(x, Some((branch, dropout)), weight, bias, eps)
    }

    fn fused_attention(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        pad: FlexTensor,
        heads: usize,
        dropout: Dropout,
    ) -> FlexTensor {
        AttentionInputs::new(query, key, value, pad, heads, dropout).forward()
    }
}

/// Gradient of `fused_gelu`.
pub(super) fn gelu_gradient(x: &FlexTensor, dy: FlexTensor) -> FlexTensor {
    let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
    let mut dx = like(&x);
    gelu::backward(floats(&x), floats(&dy), dx.storage_mut());
    dx
}

/// Gradient of `fused_linear` and `fused_product` with respect to `x`.
pub(super) fn linear_x_gradient(weight: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
    product(dy, matrix(weight).transposed(), None)
}

/// Gradient of `fused_linear` and `fused_product` with respect to the weight.
pub(super) fn linear_weight_gradient(x: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
    let x = x.to_contiguous();
    let (i, o) = (width(&x), width(dy));
    let rows = x.shape().num_elements() / i;
    let mut dw = FlexTensor::empty(Shape::new([i, o]), DType::F32);
    let x = Matrix::new(floats(&x), rows, i).transposed();
    matmul(x, Matrix::new(floats(dy), rows, o), None, dw.storage_mut());
    dw
}

/// Gradient of `fused_linear` with respect to the bias.
pub(super) fn linear_bias_gradient(dy: &FlexTensor) -> FlexTensor {
    let mut db = FlexTensor::empty(Shape::new([width(dy)]), DType::F32);
    sum_rows(floats(dy), db.storage_mut());
    db
}

/// Both norms.
fn normalised(
    x: FlexTensor,
    branch: Option<(FlexTensor, Dropout)>,
    weight: FlexTensor,
    bias: FlexTensor,
    eps: f32,
) -> FlexTensor {
    let [x, weight, bias] = [x, weight, bias].map(|x| x.to_contiguous());
    let branch = branch.map(|(branch, dropout)| (branch.to_contiguous(), dropout));
    let mut y = like(&x);
    let branch = branch.as_ref().map(|(branch, dropout)| (floats(branch), *dropout));
    norm::forward(floats(&x), branch, of(&weight, &bias, eps), y.storage_mut());
    y
}

/// Gradients of both norms: of `x`, of the branch if there is one, of the weight, of the bias.
pub(super) fn norm_gradients(
    x: &FlexTensor,
    branch: Option<&(FlexTensor, Dropout)>,
    weight: &FlexTensor,
    eps: f32,
    dy: FlexTensor,
) -> (FlexTensor, Option<FlexTensor>, FlexTensor, FlexTensor) {
    let (x, weight, dy) = (x.to_contiguous(), weight.to_contiguous(), dy.to_contiguous());
    let branch = branch.map(|(branch, dropout)| (branch.to_contiguous(), *dropout));
    let (mut dx, mut dw, mut db) = (like(&x), like(&weight), like(&weight));
    let mut dbranch = branch.as_ref().map(|_| like(&x));
    norm::backward(
        floats(&x),
        branch.as_ref().map(|(branch, dropout)| (floats(branch), *dropout)),
        of(&weight, &weight, eps), // the bias does not enter its gradients
        floats(&dy),
        norm::Gradients {
            x: dx.storage_mut(),
            branch: dbranch.as_mut().map(FlexTensor::storage_mut),
            weight: dw.storage_mut(),
            bias: db.storage_mut(),
        },
    );
    (dx, dbranch, dw, db)
}

/// What both passes of attention read.
#[derive(Debug, Clone)]
pub(super) struct AttentionInputs {
    query: FlexTensor,
    key: FlexTensor,
    value: FlexTensor,
    pad: FlexTensor,
    heads: usize,
    dropout: Dropout,
}

impl AttentionInputs {
    pub(super) fn new(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        pad: FlexTensor,
        heads: usize,
        dropout: Dropout,
    ) -> Self {
        let [query, key, value, pad] = [query, key, value, pad].map(|x| x.to_contiguous());
        Self { query, key, value, pad, heads, dropout }
    }

    fn view(&self) -> Attention<'_> {
        let (start, end) = self.pad.layout().contiguous_offsets().expect("made contiguous");
        let [batch, tokens, _] = self.query.shape().dims();
        Attention {
            query: floats(&self.query),
            key: floats(&self.key),
            value: floats(&self.value),
            pad: &self.pad.bytes()[start..end], // a byte a bool, whichever of the two layouts
            batch,
            tokens,
            heads: self.heads,
            dropout: self.dropout,
        }
    }

    pub(super) fn forward(&self) -> FlexTensor {
        let mut y = like(&self.query);
        attention::forward(&self.view(), y.storage_mut());
        y
    }

    /// Of query, key and value.
    pub(super) fn gradients(&self, dy: FlexTensor) -> [FlexTensor; 3] {
        let dy = dy.to_contiguous();
        let mut grads = [like(&self.query), like(&self.key), like(&self.value)];
        let [dq, dk, dv] = grads.each_mut().map(|grad| grad.storage_mut());
        attention::backward(&self.view(), floats(&dy), dq, dk, dv);
        grads
    }
}

/// `x` as rows times `weight`, in `x`'s shape but for the last axis.
fn product(x: &FlexTensor, weight: Matrix, bias: Option<&[f32]>) -> FlexTensor {
    let (i, o) = (weight.rows(), weight.cols());
    let mut shape = x.shape();
    let last = shape.num_dims() - 1;
    assert_eq!(shape[last], i, "a linear layer of {i} channels");
    let rows = shape.num_elements() / i;
    shape[last] = o;
    let mut y = FlexTensor::empty(shape, DType::F32);
    matmul(Matrix::new(floats(x), rows, i), weight, bias, y.storage_mut());
    y
}

/// A view of a `[rows, cols]` tensor, transposed or not.
fn matrix(x: &FlexTensor) -> Matrix<'_> {
    let [rows, cols] = x.shape().dims();
    let layout = x.layout();
    let stride = |axis: usize| usize::try_from(layout.strides()[axis]).expect("not flipped");
    let data = &x.storage::<f32>()[layout.start_offset()..];
    Matrix::strided(data, rows, cols, stride(0), stride(1))
}

fn of<'a>(weight: &'a FlexTensor, bias: &'a FlexTensor, eps: f32) -> Norm<'a> {
    Norm { weight: floats(weight), bias: floats(bias), eps }
}

fn width(x: &FlexTensor) -> usize {
    let shape = x.shape();
    shape[shape.num_dims() - 1]
}

pub(super) fn like(x: &FlexTensor) -> FlexTensor {
    FlexTensor::empty(x.shape(), DType::F32)
}

pub(super) fn floats(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("contiguous, and f32 as `applies` checks")
}
