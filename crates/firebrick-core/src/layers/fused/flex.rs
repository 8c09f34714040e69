//! Kernels over flex tensors: shapes checked, views made contiguous where a kernel cannot read them.

use std::borrow::Cow;

use burn::{
    backend::{Flex, TensorMetadata, ops::ModuleOps},
    prelude::*,
    tensor::{DType, TensorData, bf16},
};
use burn_flex::FlexTensor;
use firebrick_kernels::{
    activation::{self, Activation},
    allocator::unwritten,
    attention::{self, Attention},
    cross_entropy::{self, CrossEntropy},
    dropout::Dropout,
    embedding,
    matmul::{Matrix, MatrixMut, matmul, matmul_bf16, sum_rows},
    norm::{self, Kind, Norm},
    rope::{self, Angles},
    softmax,
};

use super::{AttentionForm, FusedOps, Optional, Split, packed};

impl FusedOps for Flex {
    fn fused_activation(x: FlexTensor, f: Activation) -> FlexTensor {
        let x = dense(x);
        let mut y = like(&x);
        activation::forward(f, floats(&x), y.storage_mut());
        y
    }

    fn fused_gated(gate: FlexTensor, up: FlexTensor, f: Activation) -> FlexTensor {
        let (gate, up) = (dense(gate), dense(up));
        let mut y = like(&gate);
        activation::gated(f, floats(&gate), floats(&up), y.storage_mut());
        y
    }

    fn fused_dropout(x: FlexTensor, dropout: Dropout) -> FlexTensor {
        let x = dense(x);
        let mut y = like(&x);
        dropout.apply(floats(&x), y.storage_mut());
        y
    }

    fn fused_enter(x: FlexTensor, _: Split) -> FlexTensor {
        x
    }

    fn fused_leave(x: FlexTensor, split: Split) -> FlexTensor {
        let x = dense(x);
        match split.members().sum(floats(&x).to_vec()) {
            Ok(sum) => FlexTensor::from_data(TensorData::new(sum, x.shape())),
            Err(_) => x,
        }
    }

    fn fused_linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        product(&dense(x), &weight, Some(floats(&dense(bias))))
    }

    fn fused_product(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        product(&dense(x), &weight, None)
    }

    fn fused_norm(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, eps: f32) -> FlexTensor {
        NormInputs::new(Kind::Layer, x, None, weight, eps).forward(Some(bias))
    }

    fn fused_rms_norm(x: FlexTensor, weight: FlexTensor, eps: f32) -> FlexTensor {
        NormInputs::new(Kind::Rms, x, None, weight, eps).forward(None)
    }

    fn fused_residual_norm(
        x: FlexTensor,
        branch: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        eps: f32,
        dropout: Dropout,
    ) -> FlexTensor {
        NormInputs::new(Kind::Layer, x, Some((branch, dropout)), weight, eps).forward(Some(bias))
    }

    fn fused_attention(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        pad: Optional<Self>,
        bias: Optional<Self>,
        form: AttentionForm,
    ) -> FlexTensor {
        let (pad, bias) = (pad.tensor(), bias.tensor());
        AttentionInputs::new(query, [key, value], pad, bias, form).forward()
    }

    fn fused_packed_attention(
        all: FlexTensor,
        pad: Optional<Self>,
        form: AttentionForm,
    ) -> FlexTensor {
        AttentionInputs::packed(all, pad.tensor(), form).forward()
    }

    fn fused_softmax(x: FlexTensor) -> FlexTensor {
        let x = dense(x);
        let mut y = like(&x);
        softmax::forward(floats(&x), width(&x), y.storage_mut());
        y
    }

    fn fused_log_softmax(x: FlexTensor) -> FlexTensor {
        let mut x = owned(dense(x));
        let width = width(&x);
        softmax::log_in_place(x.storage_mut(), width);
        x
    }

    fn fused_cross_entropy(
        logits: FlexTensor,
        targets: FlexTensor,
        ignore: Option<i32>,
        smoothing: f32,
    ) -> FlexTensor {
        let (logits, targets) = (dense(logits), dense(targets));
        let all = CrossEntropy { targets: &ints(&targets), ignore, smoothing };
        scalar(cross_entropy::loss(&all, floats(&logits)))
    }

    fn fused_embedding(table: FlexTensor, ids: FlexTensor) -> FlexTensor {
        if matches!(table.dtype(), DType::QFloat(_)) {
            let ids = dense(ids);
            let shape = ids.shape().dims();
            return packed::embedding(&table, &ints(&ids), shape);
        }
        Flex::embedding(table, ids)
    }

    fn fused_rotation(x: FlexTensor, cos: FlexTensor, sin: FlexTensor) -> FlexTensor {
        RotationInputs::new(cos, sin).forward(x)
    }
}

/// Gradient of `fused_activation`.
pub(super) fn activation_gradient(f: Activation, x: &FlexTensor, dy: FlexTensor) -> FlexTensor {
    let (x, dy) = (dense(x.clone()), dense(dy));
    let mut dx = like(&x);
    activation::backward(f, floats(&x), floats(&dy), dx.storage_mut());
    dx
}

/// Gradients of `fused_gated`: of the gate and of what it gates.
pub(super) fn gated_gradients(
    f: Activation,
    [gate, up]: [FlexTensor; 2],
    dy: FlexTensor,
) -> [FlexTensor; 2] {
    let [gate, up, dy] = [gate, up, dy].map(dense);
    let (mut dgate, mut dup) = (like(&gate), like(&up));
    activation::gated_backward(
        f,
        floats(&gate),
        floats(&up),
        floats(&dy),
        dgate.storage_mut(),
        dup.storage_mut(),
    );
    [dgate, dup]
}

/// Gradient of `fused_linear` and `fused_product` with respect to `x`.
pub(super) fn linear_x_gradient(weight: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
    product(dy, &weight.transpose(0, 1), None)
}

/// Gradient of `fused_linear` and `fused_product` with respect to the weight, laid out as it: that of a token table which is
/// also the output layer is added up with that of its other use.
pub(super) fn linear_weight_gradient(
    x: &FlexTensor,
    weight: &FlexTensor,
    dy: &FlexTensor,
) -> FlexTensor {
    let x = dense(x.clone());
    let (i, o) = (width(&x), width(dy));
    let rows = x.shape().num_elements() / i;
    let (x, dy) = (Matrix::new(floats(&x), rows, i), Matrix::new(floats(dy), rows, o));
    if weight.layout().strides()[0] == 1 && i > 1 {
        let mut turned = fresh(Shape::new([o, i]));
        matmul(dy.transposed(), x, None, turned.storage_mut());
        return turned.transpose(0, 1);
    }
    let mut dw = fresh(Shape::new([i, o]));
    matmul(x.transposed(), dy, None, dw.storage_mut());
    dw
}

/// Gradient of `fused_linear` with respect to the bias.
pub(super) fn linear_bias_gradient(dy: &FlexTensor) -> FlexTensor {
    let mut db = fresh(Shape::new([width(dy)]));
    sum_rows(floats(dy), db.storage_mut());
    db
}

/// What both passes of a norm read; the bias does not enter its gradients.
#[derive(Debug, Clone)]
pub(super) struct NormInputs {
    kind: Kind,
    x: FlexTensor,
    branch: Option<(FlexTensor, Dropout)>,
    weight: FlexTensor,
    eps: f32,
}

/// Of all inputs of a norm; of its branch where it has one.
pub(super) struct NormGradients {
    pub x: FlexTensor,
    pub branch: Option<FlexTensor>,
    pub weight: FlexTensor,
    pub bias: FlexTensor,
}

impl NormInputs {
    pub(super) fn new(
        kind: Kind,
        x: FlexTensor,
        branch: Option<(FlexTensor, Dropout)>,
        weight: FlexTensor,
        eps: f32,
    ) -> Self {
        let branch = branch.map(|(branch, dropout)| (dense(branch), dropout));
        Self { kind, x: dense(x), branch, weight: dense(weight), eps }
    }

    fn branch(&self) -> norm::Branch<'_> {
        self.branch.as_ref().map(|(branch, dropout)| (floats(branch), *dropout))
    }

    fn norm<'a>(&'a self, bias: Option<&'a [f32]>) -> Norm<'a> {
        Norm { kind: self.kind, weight: floats(&self.weight), bias, eps: self.eps }
    }

    pub(super) fn forward(&self, bias: Option<FlexTensor>) -> FlexTensor {
        let bias = bias.map(dense);
        let norm = self.norm(bias.as_ref().map(floats));
        let mut y = like(&self.x);
        norm::forward(floats(&self.x), self.branch(), norm, y.storage_mut());
        y
    }

    pub(super) fn gradients(&self, dy: FlexTensor) -> NormGradients {
        let dy = dense(dy);
        let (mut dx, mut dw, mut db) = (like(&self.x), like(&self.weight), like(&self.weight));
        // Without dropout the branch's gradient is that of `x`.
        let dropped = self.branch.as_ref().is_some_and(|(_, dropout)| *dropout != Dropout::NONE);
        let mut dbranch = dropped.then(|| like(&self.x));
        norm::backward(
            floats(&self.x),
            self.branch(),
            self.norm(None),
            floats(&dy),
            None,
            norm::Gradients {
                x: dx.storage_mut(),
                branch: dbranch.as_mut().map(FlexTensor::storage_mut),
                weight: dw.storage_mut(),
                bias: Some(db.storage_mut()),
            },
        );
        let branch = dbranch.or_else(|| self.branch.as_ref().map(|_| dx.clone()));
        NormGradients { x: dx, branch, weight: dw, bias: db }
    }
}

/// What both passes of attention read.
#[derive(Debug, Clone)]
pub(super) struct AttentionInputs {
    query: FlexTensor,
    /// The first rows of buffers, of equally many.
    key: FlexTensor,
    value: FlexTensor,
    pad: Option<FlexTensor>,
    bias: Option<FlexTensor>,
    form: AttentionForm,
}

impl AttentionInputs {
    pub(super) fn new(
        query: FlexTensor,
        memory: [FlexTensor; 2],
        pad: Option<FlexTensor>,
        bias: Option<FlexTensor>,
        form: AttentionForm,
    ) -> Self {
        let capacity = |x: &FlexTensor| Rows::of(x).map(|rows| rows.capacity);
        let [keys, values] = memory.each_ref().map(capacity);
        let [key, value] = match keys.is_some() && keys == values {
            true => memory,
            false => memory.map(|x| x.to_contiguous()),
        };
        let [_, queries, _] = query.shape().dims();
        let query = match capacity(&query) == Some(queries) {
            true => query,
            false => query.to_contiguous(),
        };
        Self { query, key, value, pad: pad.map(dense), bias: bias.map(dense), form }
    }

    /// Of query, key and value side by side.
    pub(super) fn packed(all: FlexTensor, pad: Option<FlexTensor>, form: AttentionForm) -> Self {
        let all = dense(all);
        let c = width(&all) / 3;
        let [query, key, value] = [0, 1, 2].map(|part| all.narrow(2, part * c, c));
        Self::new(query, [key, value], pad, None, form)
    }

    fn view(&self) -> Attention<'_> {
        let [batch, queries, _] = self.query.shape().dims();
        let [_, keys, _] = self.key.shape().dims();
        let rows = |x| Rows::of(x).expect("made so");
        let capacity = rows(&self.key).capacity;
        let AttentionForm { heads, causal, window, dropout } = self.form;
        Attention {
            query: rows(&self.query).matrix(&self.query),
            key: rows(&self.key).matrix(&self.key),
            value: rows(&self.value).matrix(&self.value),
            batch,
            queries,
            keys,
            capacity,
            heads: heads.query,
            kv_heads: heads.key_value,
            scale: heads.scale as f32,
            pad: self.pad.as_ref().map(bools),
            causal,
            window,
            bias: self.bias.as_ref().map(floats),
            dropout,
        }
    }

    pub(super) fn forward(&self) -> FlexTensor {
        let mut y = like(&self.query);
        attention::forward(&self.view(), y.storage_mut());
        y
    }

    /// Of query, key and value, and of the bias if somebody asks and there is one.
    pub(super) fn gradients(
        &self,
        dy: FlexTensor,
        of_bias: bool,
    ) -> ([FlexTensor; 3], Option<FlexTensor>) {
        let dy = dense(dy);
        let mut grads = [like(&self.query), like(&self.key), like(&self.value)];
        let mut bias = self.bias.as_ref().filter(|_| of_bias).map(like);
        let [query, key, value] = grads.each_mut().map(|grad| {
            let [batch, rows, width] = grad.shape().dims();
            MatrixMut::new(grad.storage_mut(), batch * rows, width)
        });
        let bias_out = bias.as_mut().map(FlexTensor::storage_mut);
        let out = attention::Gradients { query, key, value, bias: bias_out };
        attention::backward(&self.view(), floats(&dy), out);
        (grads, bias)
    }

    /// Of query, key and value side by side.
    pub(super) fn packed_gradient(&self, dy: FlexTensor) -> FlexTensor {
        let dy = dense(dy);
        let [batch, rows, c] = dy.shape().dims();
        let mut grad = fresh(Shape::new([batch, rows, 3 * c]));
        let all = MatrixMut::new(grad.storage_mut(), batch * rows, 3 * c);
        let parts: Vec<_> = all.into_blocks_of_cols(c).collect();
        let [query, key, value] = parts.try_into().expect("three of them");
        let out = attention::Gradients { query, key, value, bias: None };
        attention::backward(&self.view(), floats(&dy), out);
        grad
    }
}

/// How the rows of a `[B, T, C]` lie in a buffer of `[B, capacity, stride]`: `x` is the first ones of every batch row
/// and the first numbers of each, counted from where it starts.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rows {
    capacity: usize,
    stride: usize,
}

impl Rows {
    /// `None` if they lie otherwise.
    fn of(x: &FlexTensor) -> Option<Self> {
        let [batch, rows, width] = x.shape().dims();
        let layout = x.layout();
        let stride = |axis: usize| usize::try_from(layout.strides()[axis]).ok();
        let (stride, capacity) = match (batch, rows) {
            (1, 1) => (width, 1),
            (_, 1) => (stride(0)?, 1),
            (1, _) => (stride(1)?, rows),
            _ if stride(1)? > 0 && stride(0)? % stride(1)? == 0 => {
                (stride(1)?, stride(0)? / stride(1)?)
            }
            _ => return None,
        };
        let in_pieces = width == 1 || layout.strides()[2] == 1;
        let apart = capacity >= rows && stride >= width;
        let end = layout.start_offset() + (batch * capacity).saturating_sub(1) * stride + width;
        let inside = end <= x.storage::<f32>().len();
        (in_pieces && apart && inside).then_some(Self { capacity, stride })
    }

    /// `[B * capacity, C]`
    fn matrix(self, x: &FlexTensor) -> Matrix<'_> {
        let [batch, _, width] = x.shape().dims();
        let data = &x.storage()[x.layout().start_offset()..];
        Matrix::strided(data, batch * self.capacity, width, self.stride, 1)
    }
}

/// Gradient of `fused_softmax` from its result.
pub(super) fn softmax_gradient(y: &FlexTensor, dy: FlexTensor) -> FlexTensor {
    let (dy, mut dx) = (dense(dy), like(y));
    softmax::backward(floats(y), floats(&dy), width(y), dx.storage_mut());
    dx
}

/// Gradient of `fused_log_softmax` from its result.
pub(super) fn log_softmax_gradient(y: &FlexTensor, dy: FlexTensor) -> FlexTensor {
    let (dy, mut dx) = (dense(dy), like(y));
    softmax::log_backward(floats(y), floats(&dy), width(y), dx.storage_mut());
    dx
}

/// `fused_cross_entropy` with its gradient, which takes the place of the logits where nobody else has them.
pub(super) fn cross_entropy_with_gradient(
    logits: FlexTensor,
    targets: FlexTensor,
    ignore: Option<i32>,
    smoothing: f32,
) -> [FlexTensor; 2] {
    let (mut grad, targets) = (owned(dense(logits)), dense(targets));
    let all = CrossEntropy { targets: &ints(&targets), ignore, smoothing };
    let loss = cross_entropy::loss_and_gradient(&all, grad.storage_mut());
    [scalar(loss), grad]
}

/// Gradient of `fused_embedding` with respect to a table of `rows` rows.
pub(super) fn embedding_gradient(rows: usize, ids: &FlexTensor, dy: FlexTensor) -> FlexTensor {
    let (ids, dy) = (dense(ids.clone()), dense(dy));
    let c = width(&dy);
    let mut dtable = fresh(Shape::new([rows, c]));
    embedding::gradient(&ints(&ids), floats(&dy), c, dtable.storage_mut());
    dtable
}

/// What both passes of a rotation read.
#[derive(Debug, Clone)]
pub(super) struct RotationInputs {
    cos: FlexTensor,
    sin: FlexTensor,
}

impl RotationInputs {
    pub(super) fn new(cos: FlexTensor, sin: FlexTensor) -> Self {
        Self { cos: dense(cos), sin: dense(sin) }
    }

    fn angles(&self) -> Angles<'_> {
        Angles { cos: floats(&self.cos), sin: floats(&self.sin), half: width(&self.cos) }
    }

    pub(super) fn forward(&self, x: FlexTensor) -> FlexTensor {
        let x = dense(x);
        let mut y = like(&x);
        rope::forward(floats(&x), width(&x), self.angles(), y.storage_mut());
        y
    }

    pub(super) fn gradient(&self, dy: FlexTensor) -> FlexTensor {
        let dy = dense(dy);
        let mut dx = like(&dy);
        rope::backward(floats(&dy), width(&dy), self.angles(), dx.storage_mut());
        dx
    }
}

impl Optional<Flex> {
    pub(super) fn tensor(self) -> Option<FlexTensor> {
        match self {
            Self::Absent => None,
            Self::Bool(x) | Self::Float(x) => Some(x),
        }
    }
}

/// `x` as rows times `weight`, in `x`'s shape but for the last axis.
fn product(x: &FlexTensor, weight: &FlexTensor, bias: Option<&[f32]>) -> FlexTensor {
    if matches!(weight.dtype(), DType::QFloat(_)) {
        return packed::product(x, weight, bias);
    }
    let [i, o] = weight.shape().dims();
    let mut shape = x.shape();
    let last = shape.num_dims() - 1;
    assert_eq!(shape[last], i, "a linear layer of {i} channels");
    let rows = shape.num_elements() / i;
    shape[last] = o;
    let mut y = fresh(shape);
    let x = Matrix::new(floats(x), rows, i);
    match weight.dtype() {
        DType::BF16 => {
            let bits = bytemuck::cast_slice(weight.storage::<bf16>());
            matmul_bf16(x, matrix(weight, bits), bias, y.storage_mut());
        }
        _ => matmul(x, matrix(weight, weight.storage()), bias, y.storage_mut()),
    }
    y
}

/// A view of a `[rows, cols]` tensor, transposed or not, over what it is stored in.
fn matrix<'a, T>(x: &FlexTensor, storage: &'a [T]) -> Matrix<'a, T> {
    let [rows, cols] = x.shape().dims();
    let layout = x.layout();
    let stride = |axis: usize| usize::try_from(layout.strides()[axis]).expect("not flipped");
    Matrix::strided(&storage[layout.start_offset()..], rows, cols, stride(0), stride(1))
}

/// In one piece, if only a piece of a larger buffer (which Burn's `to_contiguous` would copy).
pub(super) fn dense(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// `x` if nobody else has it, else a copy.
fn owned(x: FlexTensor) -> FlexTensor {
    let whole = x.storage::<f32>().len() == x.shape().num_elements();
    if x.is_unique() && whole {
        return x;
    }
    let mut copy = like(&x);
    copy.storage_mut().copy_from_slice(floats(&x));
    copy
}

fn width(x: &FlexTensor) -> usize {
    let shape = x.shape();
    shape[shape.num_dims() - 1]
}

pub(super) fn like(x: &FlexTensor) -> FlexTensor {
    fresh(x.shape())
}

/// To be written; it holds anything. Burn's `empty` is zeroed, and allocates bytes, which do not become a `Vec<f32>`
/// without a copy.
pub(super) fn fresh(shape: Shape) -> FlexTensor {
    let numbers = unwritten(shape.num_elements());
    FlexTensor::from_data(TensorData::new(numbers, shape))
}

fn scalar(x: f32) -> FlexTensor {
    FlexTensor::filled_typed(Shape::new([1]), DType::F32, x)
}

pub(super) fn floats(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("contiguous, and f32 as `applies` checks")
}

/// A byte a bool, whichever of Burn's two layouts.
pub(super) fn bools(x: &FlexTensor) -> &[u8] {
    let (start, end) = x.layout().contiguous_offsets().expect("made contiguous");
    &x.bytes()[start..end]
}

/// Class numbers and token ids.
pub(super) fn ints(x: &FlexTensor) -> Cow<'_, [i32]> {
    match x.dtype() {
        DType::I64 => {
            let x: &[i64] = x.as_slice().expect("made contiguous");
            let small = |x: &i64| i32::try_from(*x).expect("an index of 32 bits");
            Cow::Owned(x.iter().map(small).collect())
        }
        _ => Cow::Borrowed(x.as_slice().expect("contiguous, of 32 or 64 bits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_rows_are_read_where_they_lie() {
        let buffer = FlexTensor::from_data(TensorData::new(vec![0.0f32; 2 * 7 * 3], [2, 7, 3]));
        let view = |axis: usize, start: usize, len: usize| buffer.narrow(axis, start, len);
        let rows = |capacity, stride| Some(Rows { capacity, stride });
        assert_eq!(Rows::of(&buffer), rows(7, 3));
        assert_eq!(Rows::of(&view(1, 0, 5)), rows(7, 3));
        assert_eq!(Rows::of(&view(1, 6, 1)), rows(1, 21));
        assert_eq!(Rows::of(&view(0, 1, 1)), rows(7, 3));
        assert_eq!(Rows::of(&view(2, 1, 2)), rows(7, 3));
        // Its last rows of the batch would end beyond the buffer.
        assert_eq!(Rows::of(&view(1, 2, 5)), None);
        assert_eq!(Rows::of(&buffer.transpose(1, 2)), None);
    }
}
