//! Recurrent layers on flex, with their gradients.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    prelude::*,
};
use burn_flex::FlexTensor;
use firebrick_kernels::recurrence::{self, Cell, Memory, Recurrence};

use super::{
    Optional,
    autodiff::record,
    flex::{bools, dense, floats, fresh, like},
};

/// What a backend must bring for `recurrence`.
#[backend_extension(Flex, Autodiff)]
pub trait RecurrenceOps: Backend {
    fn fused_recurrence(
        x: FloatTensor<Self>,
        weight_ih: FloatTensor<Self>,
        weight_hh: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        state: FloatTensor<Self>,
        #[extension_type] pad: Optional<Self>,
        form: RecurrenceForm,
    ) -> FloatTensor<Self>;
}

/// What a recurrence is told beside its tensors.
#[derive(Debug, Clone, Copy)]
pub struct RecurrenceForm {
    pub cell: Cell,
    /// From the last step to the first.
    pub reverse: bool,
}

/// One direction of one layer.
///
/// - `x`: `[B, T, C]`; `weight_ih`: `[G H, C]`; `weight_hh`: `[G H, H]`; `bias`: `[2 G H]`, of inputs and of the state
/// - `state`: `[S, B, H]`; `pad`: `[B, T]`, true where padding
/// - returns `[B, T, H]`, and the state after the last step
pub fn recurrence(
    x: Tensor<3>,
    [weight_ih, weight_hh]: [Tensor<2>; 2],
    bias: Tensor<1>,
    state: Tensor<3>,
    pad: Option<Tensor<2, Bool>>,
    form: RecurrenceForm,
) -> (Tensor<3>, Tensor<3>) {
    let ([b, t, _], [s, _, h]) = (x.dims(), state.dims());
    let pad = pad.map_or(Optional::Absent, |pad| Optional::Bool(pad.into_dispatch()));
    // An operation has one result: both lie in it, one behind the other.
    let both = Tensor::<1>::from_dispatch(Dispatch::fused_recurrence(
        x.into_dispatch(),
        weight_ih.into_dispatch(),
        weight_hh.into_dispatch(),
        bias.into_dispatch(),
        state.into_dispatch(),
        pad,
        form,
    ));
    let y = both.clone().narrow(0, 0, b * t * h).reshape([b, t, h]);
    (y, both.narrow(0, b * t * h, s * b * h).reshape([s, b, h]))
}

impl RecurrenceOps for Flex {
    fn fused_recurrence(
        x: FlexTensor,
        weight_ih: FlexTensor,
        weight_hh: FlexTensor,
        bias: FlexTensor,
        state: FlexTensor,
        pad: Optional<Self>,
        form: RecurrenceForm,
    ) -> FlexTensor {
        RecurrenceInputs::new([x, weight_ih, weight_hh, bias, state], pad.tensor(), form)
            .forward()
            .0
    }
}

impl<C: CheckpointStrategy> RecurrenceOps for Autodiff<Flex, C> {
    fn fused_recurrence(
        x: FloatTensor<Self>,
        weight_ih: FloatTensor<Self>,
        weight_hh: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        state: FloatTensor<Self>,
        pad: Optional<Self>,
        form: RecurrenceForm,
    ) -> FloatTensor<Self> {
        let inputs = [x, weight_ih, weight_hh, bias, state];
        let nodes = inputs.each_ref().map(|x| x.node());
        let inputs = inputs.map(|x| x.primitive().clone());
        let pad = match pad {
            Optional::Bool(pad) => Some(pad),
            _ => None,
        };
        let inputs = RecurrenceInputs::new(inputs, pad, form);
        let (y, memory) = inputs.forward();
        record::<C, _, 5>(Recur, nodes, (inputs, memory), y)
    }
}

#[derive(Debug)]
struct Recur;

impl Backward<Flex, 5> for Recur {
    type State = (RecurrenceInputs, Memory);

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x, weight_ih, weight_hh, bias, state] = ops.parents;
        let wanted = [&x, &weight_ih, &weight_hh, &bias, &state].map(Option::is_some);
        let (inputs, memory) = ops.state;
        let d = inputs.gradients(memory, grads.consume::<Flex>(&ops.node), wanted);
        for (node, d) in [x, weight_ih, weight_hh, bias, state].into_iter().zip(d) {
            if let (Some(node), Some(d)) = (node, d) {
                grads.register::<Flex>(node.id, d);
            }
        }
    }
}

/// What both passes read.
#[derive(Debug, Clone)]
struct RecurrenceInputs {
    /// Inputs, their weight, the state's weight, biases, state.
    tensors: [FlexTensor; 5],
    pad: Option<FlexTensor>,
    form: RecurrenceForm,
}

impl RecurrenceInputs {
    fn new(tensors: [FlexTensor; 5], pad: Option<FlexTensor>, form: RecurrenceForm) -> Self {
        Self { tensors: tensors.map(dense), pad: pad.map(dense), form }
    }

    fn view(&self) -> Recurrence<'_> {
        let [batch, steps, _] = self.tensors[0].shape().dims();
        let [_, _, hidden] = self.tensors[4].shape().dims();
        let [x, weight_ih, weight_hh, bias, state] = self.tensors.each_ref().map(floats);
        let RecurrenceForm { cell, reverse } = self.form;
        let pad = self.pad.as_ref().map(bools);
        Recurrence {
            cell,
            reverse,
            batch,
            steps,
            hidden,
            x,
            weight_ih,
            weight_hh,
            bias,
            state,
            pad,
        }
    }

    /// Numbers of the output; behind them comes the last state.
    fn outputs(&self) -> usize {
        let view = self.view();
        view.batch * view.steps * view.hidden
    }

    fn forward(&self) -> (FlexTensor, Memory) {
        let view = self.view();
        let mut both = fresh(Shape::new([self.outputs() + view.state.len()]));
        let (y, last) = both.storage_mut().split_at_mut(self.outputs());
        let memory = recurrence::forward(&view, y, last);
        (both, memory)
    }

    /// Of the tensors that are wanted.
    fn gradients(
        &self,
        memory: Memory,
        dy: FlexTensor,
        wanted: [bool; 5],
    ) -> [Option<FlexTensor>; 5] {
        let dy = dense(dy);
        let (dy, dlast) = floats(&dy).split_at(self.outputs());
        let mut index = 0;
        let mut grads = self.tensors.each_ref().map(|x| {
            index += 1;
            wanted[index - 1].then(|| like(x))
        });
        let [x, weight_ih, weight_hh, bias, state] =
            grads.each_mut().map(|x| x.as_mut().map(FlexTensor::storage_mut));
        let out = recurrence::Gradients { x, weight_ih, weight_hh, bias, state };
        recurrence::backward(&self.view(), memory, dy, dlast, out);
        grads
    }
}
