//! Gradients of the kernels. Only flex has kernels, so only `Autodiff<Flex>` is taught them.

use burn::backend::{
    Autodiff, Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind, unary},
    },
    tensor::{BoolTensor, FloatTensor},
};
use burn_flex::FlexTensor;
use firebrick_kernels::dropout::Dropout;

use super::{
    FusedOps,
    flex::{
        AttentionInputs, gelu_gradient, linear_bias_gradient, linear_weight_gradient,
        linear_x_gradient, norm_gradients,
    },
};

impl<C: CheckpointStrategy> FusedOps for Autodiff<Flex, C> {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (node, x) = (x.node(), x.primitive().clone());
        match Gelu.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x.clone(), Flex::fused_gelu(x)),
            OpsKind::UnTracked(prep) => prep.finish(Flex::fused_gelu(x)),
        }
    }

    fn fused_dropout(x: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self> {
        let (node, x) = (x.node(), x.primitive().clone());
        let y = Flex::fused_dropout(x, dropout);
        match Drop.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(dropout, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|x| x.primitive().clone());
        let y = Flex::fused_linear(x.clone(), weight.clone(), bias);
        match Linear.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, weight), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn fused_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let [x, weight] = [x, weight].map(|x| x.primitive().clone());
        let y = Flex::fused_product(x.clone(), weight.clone());
        match Product.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, weight), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn fused_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|x| x.primitive().clone());
        let y = Flex::fused_norm(x.clone(), weight.clone(), bias, eps);
        match Norm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, weight, eps), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
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
        let y = Flex::fused_residual_norm(
            x.clone(),
            branch.clone(),
            weight.clone(),
            bias,
            eps,
            dropout,
        );
        match ResidualNorm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, (branch, dropout), weight, eps), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        pad: BoolTensor<Self>,
        heads: usize,
        dropout: Dropout,
    ) -> FloatTensor<Self> {
        let nodes = [query.node(), key.node(), value.node()];
        let [query, key, value] = [query, key, value].map(|x| x.primitive().clone());
        let inputs = AttentionInputs::new(query, key, value, pad, heads, dropout);
        let y = inputs.forward();
        match Attend.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(inputs, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
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

#[derive(Debug)]
struct Gelu;

impl Backward<Flex, 1> for Gelu {
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let x = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| gelu_gradient(&x, dy));
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
struct Linear;

impl Backward<Flex, 3> for Linear {
    /// Input and weight.
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([node_x, node_weight, node_bias], (x, weight)) = (ops.parents, ops.state);
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        register!(grads,
            node_x <- linear_x_gradient(&weight, &dy),
            node_weight <- linear_weight_gradient(&x, &dy),
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
            node_weight <- linear_weight_gradient(&x, &dy),
        );
    }
}

#[derive(Debug)]
struct Norm;

impl Backward<Flex, 3> for Norm {
    type State = (FlexTensor, FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([node_x, node_weight, node_bias], (x, weight, eps)) = (ops.parents, ops.state);
        let dy = grads.consume::<Flex>(&ops.node);
        let (dx, _, dweight, dbias) = norm_gradients(&x, None, &weight, eps, dy);
        register!(grads, node_x <- dx, node_weight <- dweight, node_bias <- dbias);
    }
}

#[derive(Debug)]
struct ResidualNorm;

impl Backward<Flex, 4> for ResidualNorm {
    type State = (FlexTensor, (FlexTensor, Dropout), FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [node_x, node_branch, node_weight, node_bias] = ops.parents;
        let (x, branch, weight, eps) = ops.state;
        let dy = grads.consume::<Flex>(&ops.node);
        let (dx, dbranch, dweight, dbias) = norm_gradients(&x, Some(&branch), &weight, eps, dy);
        register!(grads,
            node_x <- dx,
            node_branch <- dbranch.expect("asked for"),
            node_weight <- dweight,
            node_bias <- dbias,
        );
    }
}

#[derive(Debug)]
struct Attend;

impl Backward<Flex, 3> for Attend {
    type State = AttentionInputs;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [node_query, node_key, node_value] = ops.parents;
        let dy = grads.consume::<Flex>(&ops.node);
        let [dq, dk, dv] = ops.state.gradients(dy);
        register!(grads, node_query <- dq, node_key <- dk, node_value <- dv);
    }
}
