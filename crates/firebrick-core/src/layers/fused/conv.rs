//! Convolutions and pooling on flex, with their gradients.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, unary},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    prelude::*,
    tensor::{DType, ops::ConvOptions},
};
use burn_flex::FlexTensor;
use firebrick_kernels::{
    affine::{Activation, Affine, Finish},
    conv::{self, Conv2d},
    pool::{self, MaxPool},
    quantised::Packed,
};

use super::{
    Optional,
    autodiff::{record, register},
    flex::{dense, floats, fresh, like},
};

/// What a backend must bring for the functions below.
#[backend_extension(Flex, Autodiff)]
pub trait ConvOps: Backend {
    fn fused_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        conv: Conv2d,
    ) -> FloatTensor<Self>;

    fn fused_conv_with_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: Conv2d,
    ) -> FloatTensor<Self>;

    fn fused_max_pool(x: FloatTensor<Self>, pool: MaxPool) -> FloatTensor<Self>;

    fn fused_global_average(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// As [`ConvOps`], but not for training.
#[backend_extension(Flex)]
pub trait InferenceOps: Backend {
    fn fused_batch_norm(
        x: FloatTensor<Self>,
        #[extension_type] residual: Optional<Self>,
        norm: NormForm,
    ) -> FloatTensor<Self>;

    fn fused_conv_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] residual: Optional<Self>,
        conv: Conv2d,
        norm: NormForm,
    ) -> FloatTensor<Self>;
}

/// `x`: `[B, I, H, W]`, `weight`: `[O, I / groups, rows, columns]` -> `[B, O, H', W']`; or `[B, I, T]` and
/// `[O, I / groups, kernel]` -> `[B, O, T']`. The weight may be packed.
pub fn convolution<const D: usize, const N: usize>(
    x: Tensor<D>,
    weight: Tensor<D>,
    bias: Option<Tensor<1>>,
    options: &ConvOptions<N>,
) -> Tensor<D> {
    let conv = sizes(&x, &weight, options);
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => Dispatch::fused_conv_with_bias(x, weight, bias.into_dispatch(), conv),
        None => Dispatch::fused_conv(x, weight, conv),
    })
}

fn sizes<const D: usize, const N: usize>(
    x: &Tensor<D>,
    weight: &Tensor<D>,
    options: &ConvOptions<N>,
) -> Conv2d {
    const { assert!(D == N + 2) }
    let ([batch, channels], [outputs, _]) = (pair(&x.dims(), 0), pair(&weight.dims(), 0));
    Conv2d {
        batch,
        channels: [channels, outputs],
        size: pair(&x.dims()[2..], 1),
        kernel: pair(&weight.dims()[2..], 1),
        stride: pair(&options.stride, 1),
        dilation: pair(&options.dilation, 1),
        padding: pair(&options.padding.map(|(before, after)| [before, after]), [0, 0]),
        groups: options.groups,
    }
}

/// The first two; a sequence has `rows` for its one row.
fn pair<T: Copy>(of: &[T], rows: T) -> [T; 2] {
    match of {
        [columns] => [rows, *columns],
        [first, second, ..] => [*first, *second],
        [] => unreachable!("a convolution has an axis"),
    }
}

/// The largest number of every window of `kernel` rows and columns, `[B, C, H, W]` -> `[B, C, H', W']`.
pub fn max_pool(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    let pool = MaxPool {
        planes: b * c,
        size: [h, w],
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [[padding; 2]; 2],
    };
    Tensor::from_dispatch(Dispatch::fused_max_pool(x.into_dispatch(), pool))
}

/// The mean of every channel, `[B, C, H, W]` -> `[B, C]`.
pub fn global_average(x: Tensor<4>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::fused_global_average(x.into_dispatch()))
}

/// A batch norm by what it has learned, and what follows it.
#[derive(Debug, Clone)]
pub struct NormForm {
    affine: Affine,
    activation: Activation,
}

impl NormForm {
    /// By weight, bias, mean and variance of each channel, `[C]`.
    pub fn new(learned: [Tensor<1>; 4], eps: f64, activation: Activation) -> Self {
        let numbers = learned.map(|x| x.into_data().try_into_vec::<f32>().expect("f32"));
        let [weight, bias, mean, variance] = &numbers;
        let affine = Affine::of_batch_norm(weight, bias, mean, variance, eps as f32);
        Self { affine, activation }
    }
}

/// `activation(norm(x) + residual)`: `[B, C, ..]` -> `[B, C, ..]`.
pub fn batch_norm<const D: usize>(
    x: Tensor<D>,
    residual: Option<Tensor<D>>,
    norm: NormForm,
) -> Tensor<D> {
    let residual = residual.map_or(Optional::Absent, |x| Optional::Float(x.into_dispatch()));
    Tensor::from_dispatch(Dispatch::fused_batch_norm(x.into_dispatch(), residual, norm))
}

/// [`convolution`] without a bias, then [`batch_norm`], in one pass over memory. `weight` is not packed.
pub fn convolution_norm(
    x: Tensor<4>,
    weight: Tensor<4>,
    options: &ConvOptions<2>,
    residual: Option<Tensor<4>>,
    norm: NormForm,
) -> Tensor<4> {
    let conv = sizes(&x, &weight, options);
    let residual = residual.map_or(Optional::Absent, |x| Optional::Float(x.into_dispatch()));
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_conv_norm(x, weight, residual, conv, norm))
}

impl ConvOps for Flex {
    fn fused_conv(x: FlexTensor, weight: FlexTensor, conv: Conv2d) -> FlexTensor {
        ConvInputs::new(x, weight, conv).forward(Finish::default())
    }

    fn fused_conv_with_bias(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        conv: Conv2d,
    ) -> FlexTensor {
        ConvInputs::new(x, weight, conv).with_bias(bias)
    }

    fn fused_max_pool(x: FlexTensor, pool: MaxPool) -> FlexTensor {
        Largest::of(x, pool).0
    }

    fn fused_global_average(x: FlexTensor) -> FlexTensor {
        let x = dense(x);
        let [b, c, h, w] = x.shape().dims();
        let mut y = fresh(Shape::new([b, c]));
        pool::mean(floats(&x), h * w, y.storage_mut());
        y
    }
}

impl InferenceOps for Flex {
    fn fused_batch_norm(x: FlexTensor, residual: Optional<Self>, norm: NormForm) -> FlexTensor {
        let x = dense(x);
        let area = x.shape()[2..].iter().product();
        let residual = residual.tensor().map(dense);
        let residual = residual.as_ref().map(floats);
        let mut y = like(&x);
        norm.affine.apply(floats(&x), residual, norm.activation, area, y.storage_mut());
        y
    }

    fn fused_conv_norm(
        x: FlexTensor,
        weight: FlexTensor,
        residual: Optional<Self>,
        conv: Conv2d,
        norm: NormForm,
    ) -> FlexTensor {
        let residual = residual.tensor().map(dense);
        let finish = norm.affine.finish(residual.as_ref().map(floats), norm.activation);
        ConvInputs::new(x, weight, conv).forward(finish)
    }
}

impl<C: CheckpointStrategy> ConvOps for Autodiff<Flex, C> {
    fn fused_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        conv: Conv2d,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let [x, weight] = [x, weight].map(|x| x.primitive().clone());
        let inputs = ConvInputs::new(x, weight, conv);
        let y = inputs.forward(Finish::default());
        record::<C, _, 2>(Convolution, nodes, inputs, y)
    }

    fn fused_conv_with_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: Conv2d,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|x| x.primitive().clone());
        let inputs = ConvInputs::new(x, weight, conv);
        let y = inputs.with_bias(bias);
        record::<C, _, 3>(Convolution, nodes, inputs, y)
    }

    fn fused_max_pool(x: FloatTensor<Self>, pool: MaxPool) -> FloatTensor<Self> {
        let (node, x) = (x.node(), x.primitive().clone());
        let (y, largest) = Largest::of(x, pool);
        record::<C, _, 1>(Pool, [node], largest, y)
    }

    fn fused_global_average(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (node, x) = (x.node(), x.primitive().clone());
        let shape = x.shape();
        let y = Flex::fused_global_average(x);
        record::<C, _, 1>(Average, [node], shape, y)
    }
}

/// What both passes of a convolution read.
#[derive(Debug, Clone)]
struct ConvInputs {
    x: FlexTensor,
    weight: FlexTensor,
    conv: Conv2d,
}

impl ConvInputs {
    fn new(x: FlexTensor, weight: FlexTensor, conv: Conv2d) -> Self {
        Self { x: dense(x), weight: dense(weight), conv }
    }

    fn with_bias(&self, bias: FlexTensor) -> FlexTensor {
        let bias = dense(bias);
        self.forward(Finish::bias(Some(floats(&bias))))
    }

    fn forward(&self, finish: Finish) -> FlexTensor {
        let mut shape = self.x.shape();
        shape[1] = self.conv.channels[1];
        let [rows, columns] = self.conv.out_size();
        let last = shape.num_dims() - 1;
        if last == 3 {
            shape[2] = rows;
        }
        shape[last] = columns;
        let mut y = fresh(shape);
        let (x, out) = (floats(&self.x), y.storage_mut());
        match self.weight.dtype() {
            DType::QFloat(_) => {
                assert!(finish.scale.is_none() && finish.residual.is_none(), "a bias at most");
                let weight = Packed::new(self.weight.bytes());
                conv::levels::forward(x, weight, finish.shift, &self.conv, out);
            }
            _ => conv::forward(x, floats(&self.weight), finish, &self.conv, out),
        }
        y
    }

    fn x_gradient(&self, dy: &FlexTensor) -> FlexTensor {
        let mut dx = like(&self.x);
        conv::input_gradient(floats(dy), floats(&self.weight), &self.conv, dx.storage_mut());
        dx
    }

    fn weight_gradient(&self, dy: &FlexTensor) -> FlexTensor {
        let mut dw = like(&self.weight);
        conv::weight_gradient(floats(&self.x), floats(dy), &self.conv, dw.storage_mut());
        dw
    }

    fn bias_gradient(&self, dy: &FlexTensor) -> FlexTensor {
        let mut db = fresh(Shape::new([self.conv.channels[1]]));
        conv::bias_gradient(floats(dy), &self.conv, db.storage_mut());
        db
    }
}

#[derive(Debug)]
struct Convolution;

impl Backward<Flex, 2> for Convolution {
    type State = ConvInputs;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([node_x, node_weight], inputs) = (ops.parents, ops.state);
        let dy = dense(grads.consume::<Flex>(&ops.node));
        register!(grads,
            node_x <- inputs.x_gradient(&dy),
            node_weight <- inputs.weight_gradient(&dy),
        );
    }
}

/// With a bias.
impl Backward<Flex, 3> for Convolution {
    type State = ConvInputs;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([node_x, node_weight, node_bias], inputs) = (ops.parents, ops.state);
        let dy = dense(grads.consume::<Flex>(&ops.node));
        register!(grads,
            node_x <- inputs.x_gradient(&dy),
            node_weight <- inputs.weight_gradient(&dy),
            node_bias <- inputs.bias_gradient(&dy),
        );
    }
}

/// Where the largest number of each window was found.
#[derive(Debug, Clone)]
struct Largest {
    pool: MaxPool,
    shape: Shape,
    indices: Vec<u32>,
}

impl Largest {
    fn of(x: FlexTensor, pool: MaxPool) -> (FlexTensor, Self) {
        let x = dense(x);
        let shape = x.shape();
        let [b, c, _, _] = shape.dims();
        let [rows, columns] = pool.out_size();
        let mut y = fresh(Shape::new([b, c, rows, columns]));
        let mut indices = vec![0; b * c * rows * columns];
        pool.forward(floats(&x), y.storage_mut(), &mut indices);
        (y, Self { pool, shape, indices })
    }
}

#[derive(Debug)]
struct Pool;

impl Backward<Flex, 1> for Pool {
    type State = Largest;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Largest { pool, shape, indices } = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| {
            let mut dx = fresh(shape);
            pool.backward(floats(&dense(dy)), &indices, dx.storage_mut());
            dx
        });
    }
}

#[derive(Debug)]
struct Average;

impl Backward<Flex, 1> for Average {
    /// Of what was averaged.
    type State = Shape;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let shape = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| {
            let area = shape[2] * shape[3];
            let mut dx = fresh(shape);
            pool::mean_backward(floats(&dense(dy)), area, dx.storage_mut());
            dx
        });
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{
        module::{conv1d, conv2d, max_pool2d},
        ops::MaxPoolOptions,
    };

    use super::{
        super::tests::{device, random, same},
        *,
    };

    #[test]
    fn convolutions_of_images_are_burns() {
        let device = device();
        let strided =
            ConvOptions { stride: [2, 1], padding: [(1, 2), (0, 1)], dilation: [1, 2], groups: 3 };
        let plain = ConvOptions { stride: [1; 2], dilation: [1; 2], groups: 1, ..strided.clone() };
        for (options, inner) in [(strided, 2), (plain, 6)] {
            let (x, w) = ([2, 6, 7, 8], [9, inner, 3, 2]);
            same(
                [random([672], &device), random([54 * inner], &device), random([9], &device)],
                |[a, b, c]| {
                    let (a, b) = (a.clone().reshape(x), b.clone().reshape(w));
                    convolution(a, b, Some(c.clone()), &options)
                },
                |[a, b, c]| {
                    let (a, b) = (a.clone().reshape(x), b.clone().reshape(w));
                    conv2d(a, b, Some(c.clone()), options.clone())
                },
            );
        }
    }

    /// Of a view, which the kernels do not read where it lies.
    #[test]
    fn convolutions_of_sequences_are_burns() {
        let device = device();
        let options = ConvOptions { stride: [2], padding: [(3, 1)], dilation: [2], groups: 2 };
        let w = [6, 2, 3];
        let view = |x: &Tensor<1>| x.clone().reshape([2, 11, 4]).swap_dims(1, 2);
        same(
            [random([88], &device), random([36], &device)],
            |[a, b]| convolution(view(a), b.clone().reshape(w), None, &options),
            |[a, b]| conv1d(view(a), b.clone().reshape(w), None, options.clone()),
        );
    }

    #[test]
    fn pools_are_burns() {
        let device = device();
        let x = [2, 3, 7, 8];
        let options =
            MaxPoolOptions { stride: [2; 2], padding: [(1, 1); 2], ..MaxPoolOptions::new([3; 2]) };
        same(
            [random([336], &device)],
            |[a]| max_pool(a.clone().reshape(x), 3, 2, 1),
            |[a]| max_pool2d(a.clone().reshape(x), options.clone()),
        );
        same(
            [random([336], &device)],
            |[a]| global_average(a.clone().reshape(x)),
            |[a]| a.clone().reshape([2, 3, 56]).mean_dim(2).reshape([2, 3]),
        );
    }
}
