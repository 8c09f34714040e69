//! Gradients of the kernels. Only flex has kernels, so only `Autodiff<Flex>` is taught them.

use burn::backend::{
    Autodiff, Flex, TensorMetadata,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, NodeGuard, Ops, OpsKind, unary},
    },
    ops::FloatTensorOps,
    tensor::{FloatTensor, IntTensor},
};
use burn_flex::FlexTensor;
use firebrick_kernels::{activation::Activation, dropout::Dropout, norm::Kind};

use super::{
    AttentionForm, FusedOps, Optional, Split,
    flex::{
        AttentionInputs, NormInputs, RotationInputs, activation_gradient,
        cross_entropy_with_gradient, embedding_gradient, gated_gradients, linear_bias_gradient,
        linear_weight_gradient, linear_x_gradient, log_softmax_gradient, softmax_gradient,
    },
};

impl<C: CheckpointStrategy> FusedOps for Autodiff<Flex, C> {
    fn fused_activation(x: FloatTensor<Self>, f: Activation) -> FloatTensor<Self> {
        let (node, x) = (x.node(), x.primitive().clone());
        let y = Flex::fused_activation(x.clone(), f);
        record::<C, _, 1>(Activate, [node], (f, x), y)
    }

    fn fused_gated(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        f: Activation,
    ) -> FloatTensor<Self> {
        let nodes = [gate.node(), up.node()];
        let [gate, up] = [gate, up].map(|x| x.primitive().clone());
        let y = Flex::fused_gated(gate.clone(), up.clone(), f);
        record::<C, _, 2>(Gate, nodes, (f, [gate, up]), y)
    }

    fn fused_dropout(x: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self> {
        let (node, x) = (x.node(), x.primitive().clone());
        record::<C, _, 1>(Drop, [node], dropout, Flex::fused_dropout(x, dropout))
    }

    fn fused_enter(x: FloatTensor<Self>, split: Split) -> FloatTensor<Self> {
        let (node, x) = (x.node(), x.primitive().clone());
        record::<C, _, 1>(Enter, [node], split, x)
    }

    fn fused_leave(x: FloatTensor<Self>, split: Split) -> FloatTensor<Self> {
        let (node, x) = (x.node(), x.primitive().clone());
        record::<C, _, 1>(Leave, [node], (), Flex::fused_leave(x, split))
    }

    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|x| x.primitive().clone());
        let y = Flex::fused_linear(x.clone(), weight.clone(), bias);
        record::<C, _, 3>(Linear, nodes, (x, weight), y)
    }

    fn fused_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let [x, weight] = [x, weight].map(|x| x.primitive().clone());
        let y = Flex::fused_product(x.clone(), weight.clone());
        record::<C, _, 2>(Product, nodes, (x, weight), y)
    }

    fn fused_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|x| x.primitive().clone());
        let inputs = NormInputs::new(Kind::Layer, x, None, weight, eps);
        let y = inputs.forward(Some(bias));
        record::<C, _, 3>(LayerNorm, nodes, inputs, y)
    }

    fn fused_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let [x, weight] = [x, weight].map(|x| x.primitive().clone());
        let inputs = NormInputs::new(Kind::Rms, x, None, weight, eps);
        let y = inputs.forward(None);
        record::<C, _, 2>(RmsNorm, nodes, inputs, y)
    }

    fn fused_residual_norm(
        x: FloatTensor<Self>,
        branch: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
        dropout: Dropout,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), branch.node(), weight.node(), bias.node()];
        let [x, branch, weight, bias] = [x, branch, weight, bias].map(|x| x.primitive().clone());
        let inputs = NormInputs::new(Kind::Layer, x, Some((branch, dropout)), weight, eps);
        let y = inputs.forward(Some(bias));
        record::<C, _, 4>(ResidualNorm, nodes, inputs, y)
    }

    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        pad: Optional<Self>,
        bias: Optional<Self>,
        form: AttentionForm,
    ) -> FloatTensor<Self> {
        let nodes = [query.node(), key.node(), value.node()];
        let [query, key, value] = [query, key, value].map(|x| x.primitive().clone());
        let pad = match pad {
            Optional::Bool(pad) => Some(pad),
            _ => None,
        };
        let (bias_node, bias) = match bias {
            Optional::Float(bias) => (Some(bias.node()), Some(bias.primitive().clone())),
            _ => (None, None),
        };
        let inputs = AttentionInputs::new(query, [key, value], pad, bias, form);
        let y = inputs.forward();
        match bias_node {
            None => record::<C, _, 3>(Attend, nodes, inputs, y),
            Some(bias) => {
                let [query, key, value] = nodes;
                record::<C, _, 4>(Attend, [query, key, value, bias], inputs, y)
            }
        }
    }

    fn fused_packed_attention(
        all: FloatTensor<Self>,
        pad: Optional<Self>,
        form: AttentionForm,
    ) -> FloatTensor<Self> {
        let (node, all) = (all.node(), all.primitive().clone());
        let pad = match pad {
            Optional::Bool(pad) => Some(pad),
            _ => None,
        };
        let inputs = AttentionInputs::packed(all, pad, form);
        let y = inputs.forward();
        record::<C, _, 1>(Attend, [node], inputs, y)
    }

    fn fused_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (node, x) = (x.node(), x.primitive().clone());
        let y = Flex::fused_softmax(x);
        record::<C, _, 1>(Softmax, [node], y.clone(), y)
    }

    fn fused_log_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (node, x) = (x.node(), x.primitive().clone());
        let y = Flex::fused_log_softmax(x);
        record::<C, _, 1>(LogSoftmax, [node], y.clone(), y)
    }

    fn fused_cross_entropy(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        ignore: Option<i32>,
        smoothing: f32,
    ) -> FloatTensor<Self> {
        let (logits, node) = logits.into_parts();
        match CrossEntropy.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let [loss, grad] = cross_entropy_with_gradient(logits, targets, ignore, smoothing);
                prep.finish(grad, loss)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(Flex::fused_cross_entropy(logits, targets, ignore, smoothing))
            }
        }
    }

    fn fused_embedding(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        let (node, table) = (table.node(), table.primitive().clone());
        let [rows, _] = table.shape().dims();
        let y = Flex::fused_embedding(table, ids.clone());
        record::<C, _, 1>(Embedding, [node], (rows, ids), y)
    }

    fn fused_rotation(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (node, x) = (x.node(), x.primitive().clone());
        let [cos, sin] = [cos, sin].map(|x| x.primitive().clone());
        let inputs = RotationInputs::new(cos, sin);
        let y = inputs.forward(x);
        record::<C, _, 1>(Rotation, [node], inputs, y)
    }
}

/// `y` as the result of `op`, whose backward pass will read `state`.
pub(super) fn record<C: CheckpointStrategy, O: Backward<Flex, N>, const N: usize>(
    op: O,
    nodes: [NodeGuard; N],
    state: O::State,
    y: FlexTensor,
) -> FloatTensor<Autodiff<Flex, C>> {
    match op.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

/// Hands `value` to an input that wants its gradient.
macro_rules! register {
    ($grads:ident, $($node:ident <- $value:expr),+ $(,)?) => {
        $(if let Some(node) = $node {
            $grads.register::<Flex>(node.id, $value);
        })+
    };
}
pub(super) use register;

#[derive(Debug)]
struct Activate;

impl Backward<Flex, 1> for Activate {
    type State = (Activation, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (f, x) = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| activation_gradient(f, &x, dy));
    }
}

#[derive(Debug)]
struct Gate;

impl Backward<Flex, 2> for Gate {
    /// The gate, and what it gates.
    type State = (Activation, [FlexTensor; 2]);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([node_gate, node_up], (f, inputs)) = (ops.parents, ops.state);
        let [dgate, dup] = gated_gradients(f, inputs, grads.consume::<Flex>(&ops.node));
        register!(grads, node_gate <- dgate, node_up <- dup);
    }
}

#[derive(Debug)]
struct Drop;

impl Backward<Flex, 1> for Drop {
    type State = Dropout;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dropout = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| Flex::fused_dropout(dy, dropout));
    }
}

#[derive(Debug)]
struct Enter;

impl Backward<Flex, 1> for Enter {
    type State = Split;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let split = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| Flex::fused_leave(dy, split));
    }
}

#[derive(Debug)]
struct Leave;

impl Backward<Flex, 1> for Leave {
    type State = ();

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| dy);
    }
}

#[derive(Debug)]
struct Linear;

impl Backward<Flex, 3> for Linear {
    /// Input and weight.
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([node_x, node_weight, node_bias], (x, weight)) = (ops.parents, ops.state);
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        register!(grads,
            node_x <- linear_x_gradient(&weight, &dy),
            node_weight <- linear_weight_gradient(&x, &weight, &dy),
            node_bias <- linear_bias_gradient(&dy),
        );
    }
}

#[derive(Debug)]
struct Product;

impl Backward<Flex, 2> for Product {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([node_x, node_weight], (x, weight)) = (ops.parents, ops.state);
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        register!(grads,
            node_x <- linear_x_gradient(&weight, &dy),
            node_weight <- linear_weight_gradient(&x, &weight, &dy),
        );
    }
}

#[derive(Debug)]
struct LayerNorm;

impl Backward<Flex, 3> for LayerNorm {
    type State = NormInputs;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [node_x, node_weight, node_bias] = ops.parents;
        let d = ops.state.gradients(grads.consume::<Flex>(&ops.node));
        register!(grads, node_x <- d.x, node_weight <- d.weight, node_bias <- d.bias);
    }
}

#[derive(Debug)]
struct RmsNorm;

impl Backward<Flex, 2> for RmsNorm {
    type State = NormInputs;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [node_x, node_weight] = ops.parents;
        let d = ops.state.gradients(grads.consume::<Flex>(&ops.node));
        register!(grads, node_x <- d.x, node_weight <- d.weight);
    }
}

#[derive(Debug)]
struct ResidualNorm;

impl Backward<Flex, 4> for ResidualNorm {
    type State = NormInputs;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [node_x, node_branch, node_weight, node_bias] = ops.parents;
        let d = ops.state.gradients(grads.consume::<Flex>(&ops.node));
        register!(grads,
            node_x <- d.x,
            node_branch <- d.branch.expect("there is a branch"),
            node_weight <- d.weight,
            node_bias <- d.bias,
        );
    }
}

#[derive(Debug)]
struct Attend;

/// Packed.
impl Backward<Flex, 1> for Attend {
    type State = AttentionInputs;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let inputs = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| inputs.packed_gradient(dy));
    }
}

impl Backward<Flex, 3> for Attend {
    type State = AttentionInputs;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [node_query, node_key, node_value] = ops.parents;
        let dy = grads.consume::<Flex>(&ops.node);
        let ([dq, dk, dv], _) = ops.state.gradients(dy, false);
        register!(grads, node_query <- dq, node_key <- dk, node_value <- dv);
    }
}

/// With a bias.
impl Backward<Flex, 4> for Attend {
    type State = AttentionInputs;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [node_query, node_key, node_value, node_bias] = ops.parents;
        let dy = grads.consume::<Flex>(&ops.node);
        let ([dq, dk, dv], dbias) = ops.state.gradients(dy, node_bias.is_some());
        register!(grads,
            node_query <- dq,
            node_key <- dk,
            node_value <- dv,
            node_bias <- dbias.expect("asked for"),
        );
    }
}

#[derive(Debug)]
struct Softmax;

impl Backward<Flex, 1> for Softmax {
    /// The result.
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let y = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| softmax_gradient(&y, dy));
    }
}

#[derive(Debug)]
struct LogSoftmax;

impl Backward<Flex, 1> for LogSoftmax {
    /// The result.
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let y = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| log_softmax_gradient(&y, dy));
    }
}

#[derive(Debug)]
struct CrossEntropy;

impl Backward<Flex, 1> for CrossEntropy {
    /// The gradient of the loss.
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| {
            let factor = dy.into_data().iter::<f32>().next().expect("the loss is a number");
            if factor == 1.0 { grad } else { Flex::float_mul_scalar(grad, factor.into()) }
        });
    }
}

#[derive(Debug)]
struct Embedding;

impl Backward<Flex, 1> for Embedding {
    /// Rows of the table, and which of them were looked up.
    type State = (usize, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (rows, ids) = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| embedding_gradient(rows, &ids, dy));
    }
}

#[derive(Debug)]
struct Rotation;

impl Backward<Flex, 1> for Rotation {
    type State = RotationInputs;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let angles = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| angles.gradient(dy));
    }
}
