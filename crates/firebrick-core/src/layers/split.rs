//! Layers that several processes hold together (Shoeybi et al. 2019, Megatron-LM, <https://arxiv.org/abs/1909.08053>).
//!
//! The first matrix of a pair is cut by columns, the second by rows: each member has some of the heads, or of the inner
//! channels, and computes a summand of the output. All else is whole in every member, and stays the same in all.

use std::{ops::Range, sync::Arc};

use burn::{
    module::{Module, ModuleMapper, Param},
    prelude::*,
    tensor::TensorData,
};

use super::fused;
use crate::parallel::{Alone, Collective, Lost};

/// Ends of the field paths of what is cut, and along which axis.
#[rustfmt::skip]
const CUT: &[(&str, usize)] = &[
    (".attention.query.weight",  1), (".attention.query.bias", 0),
    (".attention.key.weight",    1), (".attention.key.bias",   0),
    (".attention.value.weight",  1), (".attention.value.bias", 0),
    (".attention.output.weight", 0),
    (".up.weight",               1), (".up.bias",              0),
    (".down.weight",             0),
];

/// The members that hold a model together, of which this is one. The default holds all of it.
#[derive(Debug, Clone)]
pub struct Split(Arc<dyn Collective>);

impl Default for Split {
    fn default() -> Self {
        Self(Arc::new(Alone))
    }
}

impl Split {
    pub fn over(members: Arc<dyn Collective>) -> Self {
        Self(members)
    }

    pub fn members(&self) -> &Arc<dyn Collective> {
        &self.0
    }

    pub fn size(&self) -> usize {
        self.0.size()
    }

    pub fn rank(&self) -> usize {
        self.0.rank()
    }

    pub fn is_whole(&self) -> bool {
        self.size() == 1
    }

    /// `n` of which each member has as many; the sizes are checked before the model is built.
    pub fn share(&self, n: usize) -> usize {
        assert!(n.is_multiple_of(self.size()), "{n} cannot be shared by {}", self.size());
        n / self.size()
    }

    /// Into the cut part of a layer: the same numbers, and the sum of the members' gradients.
    pub fn enter<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if self.is_whole() { x } else { fused::enter(x, self.clone()) }
    }

    /// Out of it: the sum of the members' numbers, and each its gradient. Where a member is lost they stay as they
    /// are; whoever asks the group next is told.
    pub fn leave<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if self.is_whole() { x } else { fused::leave(x, self.clone()) }
    }

    /// Along which axis the parameter at this path is cut.
    pub fn axis(&self, field: &str) -> Option<usize> {
        let cut = CUT.iter().find(|(end, _)| field.ends_with(end))?;
        (!self.is_whole()).then_some(cut.1)
    }

    /// Shape of the whole parameter of which a member has `shape`.
    pub fn whole_shape(&self, field: &str, mut shape: Vec<usize>) -> Vec<usize> {
        if let Some(axis) = self.axis(field) {
            shape[axis] *= self.size();
        }
        shape
    }

    /// This member's part of the whole numbers of a parameter, row by row.
    pub fn part(&self, field: &str, whole: Vec<f32>, whole_shape: &[usize]) -> Vec<f32> {
        match self.axis(field) {
            None => whole,
            Some(axis) => {
                self.runs(axis, whole_shape).flat_map(|run| &whole[run]).copied().collect()
            }
        }
    }

    /// The whole numbers of a parameter from the members' parts. All of them call it.
    pub fn whole(
        &self,
        field: &str,
        part: Vec<f32>,
        whole_shape: &[usize],
    ) -> Result<Vec<f32>, Lost> {
        let Some(axis) = self.axis(field) else { return Ok(part) };
        let mut whole = vec![0.0; whole_shape.iter().product()];
        let mut rest = part.as_slice();
        for run in self.runs(axis, whole_shape) {
            let (here, others) = rest.split_at(run.len());
            whole[run].copy_from_slice(here);
            rest = others;
        }
        // Zeros elsewhere: the sum is the numbers themselves.
        self.0.sum(whole)
    }

    /// [`Self::whole`] as a tensor.
    pub fn join_tensor<const D: usize>(
        &self,
        field: &str,
        tensor: Tensor<D>,
    ) -> Result<Tensor<D>, Lost> {
        let (device, shape) = (tensor.device(), tensor.shape().to_vec());
        let shape = self.whole_shape(field, shape);
        let part = tensor.detach().into_data().try_into_vec::<f32>().expect("weights are f32");
        let whole = self.whole(field, part, &shape)?;
        Ok(Tensor::from_data(TensorData::new(whole, shape), &device))
    }

    /// Where this member's numbers lie among the whole.
    fn runs(
        &self,
        axis: usize,
        whole_shape: &[usize],
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let after: usize = whole_shape[axis + 1..].iter().product();
        let (all, mine) = (whole_shape[axis] * after, self.share(whole_shape[axis]) * after);
        let (before, first) = (whole_shape[..axis].iter().product::<usize>(), self.rank() * mine);
        (0..before).map(move |row| row * all + first..row * all + first + mine)
    }

    /// A model whose cut parameters are this member's part. One that is still to be drawn is drawn whole, so that the
    /// members together have what one would have, and let go. All of them are trained.
    pub fn cut<M: Module>(&self, model: M) -> M {
        model.map(&mut Cutter { path: vec![], split: self })
    }

    /// The opposite of [`Self::cut`], on every member. All of them call it.
    pub fn join<M: Module>(&self, model: M) -> Result<M, Lost> {
        let mut joiner = Joiner { path: vec![], split: self, lost: None };
        let model = model.map(&mut joiner);
        joiner.lost.map_or(Ok(model), Err)
    }
}

struct Cutter<'a> {
    path: Vec<String>,
    split: &'a Split,
}

impl ModuleMapper for Cutter<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(axis) = self.split.axis(&self.path.join(".")) else { return param };
        let mut shape = param.lazy_shape();
        let mine = self.split.share(shape[axis]);
        shape[axis] = mine;
        let first = self.split.rank() * mine;
        let (id, device) = (param.id, param.lazy_device());
        let draw = move |device: &Device, trained: bool| {
            let whole = param.val().detach();
            let part = whole.slice_dim(axis, first..first + mine);
            // A copy: a view would keep the whole.
            let data = part.into_data();
            Tensor::<D>::from_data(data, device).set_require_grad(trained)
        };
        Param::uninitialized(id, draw, device, true, shape)
    }
}

struct Joiner<'a> {
    path: Vec<String>,
    split: &'a Split,
    lost: Option<Lost>,
}

impl ModuleMapper for Joiner<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let field = self.path.join(".");
        if self.split.axis(&field).is_none() {
            return param;
        }
        match self.split.join_tensor(&field, param.val()) {
            Ok(whole) => param.map(|_| whole),
            Err(lost) => {
                self.lost = Some(lost);
                param
            }
        }
    }
}
