//! Weights of eight and four bits as tensors.
//!
//! A packed weight has the shape of the parameter that it stands for and a quantised type, and its bytes are those of
//! [`Packed`], which say the rest; those of a convolution lie as [`firebrick_kernels::conv::levels`] has them. Only a linear
//! layer, a look-up and a convolution take it: any other operation panics, as it must not read such bytes as numbers.

use burn::{
    backend::{
        Backend, Dispatch, Flex, TensorMetadata, backend_extension,
        tensor::{FloatTensor, IntTensor},
    },
    prelude::*,
    tensor::{
        DType, TensorData,
        quantization::{QuantScheme, QuantValue},
    },
};
use burn_flex::{FlexTensor, Layout};
use firebrick_kernels::{
    conv::levels,
    quantised::{self, Format, Packed},
};

use super::flex::fresh;

/// What a backend must bring for the functions below.
#[backend_extension(Flex)]
pub trait PackedOps: Backend {
    fn packed_tensor(bytes: IntTensor<Self>, shape: Shape, format: Format) -> FloatTensor<Self>;

    fn packed_floats(weight: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl PackedOps for Flex {
    fn packed_tensor(bytes: FlexTensor, shape: Shape, format: Format) -> FlexTensor {
        let value = match format {
            Format::Int8 => QuantValue::Q8S,
            Format::Int4 { .. } => QuantValue::Q4S,
        };
        let scheme = QuantScheme::default().with_value(value);
        FlexTensor::from_arc(bytes.data_arc(), Layout::contiguous(shape), DType::QFloat(scheme))
    }

    fn packed_floats(weight: FlexTensor) -> FlexTensor {
        let packed = Packed::new(weight.bytes());
        let (floats, inputs) = match &weight.shape()[..] {
            [_, channels, taps @ ..] if !taps.is_empty() => {
                let taps = taps.iter().product();
                (levels::floats(packed, [*channels, taps]), channels * taps)
            }
            _ => (packed.floats(), packed.inputs()),
        };
        FlexTensor::from_data(TensorData::new(floats, [packed.outputs(), inputs]))
    }
}

/// Are packed weights read on this device? Where a model trains, its weights are f32.
pub fn reads_packed(device: &Device) -> bool {
    *device == Device::flex() && !device.is_autodiff()
}

/// As [`reads_packed`], of the weight of a convolution: where that is faster than one of floats.
pub fn convolves_packed(device: &Device) -> bool {
    reads_packed(device) && levels::pays()
}

/// A parameter of this shape from what [`Packed::pack`] made: `[I, O]` of a linear layer, `[V, C]` of a table; or
/// [`levels::pack`]: `[O, I, ..]` of a convolution.
pub fn packed<const D: usize>(bytes: Vec<u8>, shape: [usize; D], device: &Device) -> Tensor<D> {
    let format = Packed::new(&bytes).format();
    let count = bytes.len();
    let bytes = TensorData::new(bytes, [count]);
    let bytes = Tensor::<1, Int>::from_data(bytes, (device, DType::U8));
    let shape = Shape::new(shape);
    Tensor::from_dispatch(Dispatch::packed_tensor(bytes.into_dispatch(), shape, format))
}

pub fn is_packed<const D: usize>(weight: &Tensor<D>) -> bool {
    matches!(weight.dtype(), DType::QFloat(_))
}

/// The numbers of a packed weight: `[O, I]` of a linear layer, `[V, C]` of a table; of a convolution, all that an output is
/// made of is one axis.
pub fn unpacked<const D: usize>(weight: Tensor<D>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::packed_floats(weight.into_dispatch()))
}

/// The weight of a convolution, as numbers if it is packed.
pub fn plain<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    match is_packed(&weight) {
        true => {
            let shape = weight.shape();
            unpacked(weight).reshape(shape)
        }
        false => weight,
    }
}

/// `x` as rows times a packed weight, in `x`'s shape but for the last axis.
pub(super) fn product(x: &FlexTensor, weight: &FlexTensor, bias: Option<&[f32]>) -> FlexTensor {
    let packed = Packed::new(weight.bytes());
    let mut shape = x.shape();
    let last = shape.num_dims() - 1;
    assert_eq!(shape[last], packed.inputs(), "a linear layer of {} channels", packed.inputs());
    shape[last] = packed.outputs();
    let mut y = fresh(shape);
    quantised::matmul(super::flex::floats(x), packed, bias, y.storage_mut());
    y
}

/// `[V, C]` and `[B, T]` -> `[B, T, C]`
pub(super) fn embedding(table: &FlexTensor, ids: &[i32], [b, t]: [usize; 2]) -> FlexTensor {
    let packed = Packed::new(table.bytes());
    let mut y = fresh(Shape::new([b, t, packed.inputs()]));
    quantised::rows(packed, ids, y.storage_mut());
    y
}
