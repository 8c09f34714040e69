//! A result whose gradients come from running what made it once more.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    prelude::*,
    tensor::TensorData,
};
use burn_flex::FlexTensor;

use super::autodiff::{record, register};

/// From the result's gradient to those of the two inputs.
type Gradient = dyn FnMut(TensorData) -> [TensorData; 2] + Send;

/// The second run.
#[derive(Clone)]
pub struct Rerun(Arc<Mutex<Box<Gradient>>>);

impl Rerun {
    pub fn new(run: impl FnMut(TensorData) -> [TensorData; 2] + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(run))))
    }
}

impl fmt::Debug for Rerun {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Rerun")
    }
}

/// What a backend must bring for [`rerun`].
#[backend_extension(Flex, Autodiff)]
pub trait RerunOps: Backend {
    fn rerun(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        y: FloatTensor<Self>,
        again: Rerun,
    ) -> FloatTensor<Self>;
}

/// `y`, which has no graph of its own, as the result of `x` and `weights`.
pub fn rerun<const D: usize>(
    x: Tensor<D>,
    weights: Tensor<1>,
    y: Tensor<D>,
    again: Rerun,
) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::rerun(
        x.into_dispatch(),
        weights.into_dispatch(),
        y.into_dispatch(),
        again,
    ))
}

impl RerunOps for Flex {
    fn rerun(_: FlexTensor, _: FlexTensor, y: FlexTensor, _: Rerun) -> FlexTensor {
        y
    }
}

impl<C: CheckpointStrategy> RerunOps for Autodiff<Flex, C> {
    fn rerun(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        y: FloatTensor<Self>,
        again: Rerun,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weights.node()];
        record::<C, _, 2>(Again, nodes, again, y.primitive().clone())
    }
}

#[derive(Debug)]
struct Again;

impl Backward<Flex, 2> for Again {
    type State = Rerun;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([node_x, node_weights], Rerun(run)) = (ops.parents, ops.state);
        let dy = grads.consume::<Flex>(&ops.node).into_data();
        let mut run = run.lock().expect("a run that panics ends the program");
        let [dx, dweights] = run(dy).map(FlexTensor::from_data);
        register!(grads, node_x <- dx, node_weights <- dweights);
    }
}
