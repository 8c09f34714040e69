//! The processes of one run.
//!
//! Data-parallel: each has the whole model, takes its part of every batch, and gets the sum of all gradients, so that
//! all take the same step (Li et al. 2020, <https://arxiv.org/abs/2006.15704>). The sum waits for the end of the
//! backward pass: Burn hands out gradients only then.
//!
//! Tensor-parallel: some hold one model together, as [`firebrick_core::layers::split`] says, and see the same rows.

use std::sync::Arc;

use burn::{
    module::{Module, ModuleVisitor, Param},
    prelude::*,
};
use firebrick_core::{
    layers::split::Split,
    parallel::{Alone, Collective, Lost},
};
use firebrick_kernels::reduce::sum_of_squares;

use crate::optim::{self, Grads};

/// Numbers that are summed at a time: 25 MB, as in PyTorch's `DistributedDataParallel`.
const BUCKET: usize = 25 * 1024 * 1024 / 4;

/// Where this process stands in a run.
#[derive(Debug, Clone)]
pub struct Team {
    /// All processes of the run; the first one writes.
    pub world: Arc<dyn Collective>,
    /// Those that share a batch, and have the same part of the model.
    pub data: Arc<dyn Collective>,
    /// Those that hold a model together.
    pub model: Split,
}

impl Team {
    /// A run in one process.
    pub fn alone() -> Self {
        Self::data_parallel(Arc::new(Alone))
    }

    /// Every process has the whole model.
    pub fn data_parallel(world: Arc<dyn Collective>) -> Self {
        Self { data: world.clone(), world, model: Split::default() }
    }

    /// Whether this process writes the run folder.
    pub fn is_first(&self) -> bool {
        self.world.rank() == 0
    }

    /// Whether this process evaluates: the first one, and those that it needs for that.
    pub fn evaluates(&self) -> bool {
        self.data.rank() == 0
    }

    /// Whether `bytes` are those of the first process.
    pub fn agrees(&self, bytes: &[u8]) -> Result<bool, Lost> {
        let floats = bytes.iter().map(|byte| f32::from(*byte));
        let first = match self.is_first() {
            true => floats.clone().collect(),
            false => vec![0.0; bytes.len()],
        };
        Ok(self.world.sum(first)?.into_iter().eq(floats))
    }

    /// The lowest rank for which `failed` is true.
    pub fn first_failure(&self, failed: bool) -> Result<Option<usize>, Lost> {
        let mut flags = vec![0.0; self.world.size()];
        flags[self.world.rank()] = f32::from(u8::from(failed));
        Ok(self.world.sum(flags)?.iter().position(|flag| *flag > 0.0))
    }

    /// Sums the shares of a loss and of the gradients of `model` over the processes that share a batch.
    pub fn sum_gradients<M: Module>(
        &self,
        model: &M,
        loss: &mut f64,
        grads: &mut Grads,
    ) -> Result<(), Lost> {
        if self.data.size() == 1 {
            return Ok(());
        }
        let fields = shapes(model);
        // A process without rows has no gradients, and one that no process has must stay away.
        let mut bucket = vec![*loss as f32];
        bucket.extend(fields.iter().map(|(name, _)| f32::from(u8::from(grads.contains_key(name)))));
        let sums = self.data.sum(bucket)?;
        *loss = f64::from(sums[0]);
        let fields = fields.into_iter().zip(&sums[1..]);
        let fields = fields.filter(|(_, have)| **have > 0.0).map(|(field, _)| field);

        let mut waiting: Vec<(String, usize)> = vec![];
        let numbers: usize = grads.values().map(Vec::len).sum();
        let mut bucket: Vec<f32> = Vec::with_capacity(numbers.min(BUCKET));
        for (name, shape) in fields {
            let count: usize = shape.iter().product();
            if !bucket.is_empty() && bucket.len() + count > BUCKET {
                bucket = self.flush(bucket, &mut waiting, grads)?;
            }
            match grads.get(&name) {
                Some(grad) => bucket.extend_from_slice(grad),
                None => bucket.resize(bucket.len() + count, 0.0),
            }
            waiting.push((name, count));
        }
        self.flush(bucket, &mut waiting, grads)?;
        Ok(())
    }

    /// Euclidean length of all gradients of the whole model together.
    pub fn global_norm(&self, grads: &Grads) -> Result<f64, Lost> {
        if self.model.is_whole() {
            return Ok(optim::global_norm(grads));
        }
        let (cut, whole): (Vec<_>, Vec<_>) =
            grads.iter().partition(|(field, _)| self.model.axis(field).is_some());
        let squares = |grads: Vec<(&String, &Vec<f32>)>| -> f64 {
            grads.into_iter().map(|(_, grad)| sum_of_squares(grad)).sum()
        };
        let cut = self.model.members().sum(vec![squares(cut) as f32])?[0];
        Ok((f64::from(cut) + squares(whole)).sqrt())
    }

    /// Sums a bucket into the gradients that lie in it; gives it back empty.
    fn flush(
        &self,
        bucket: Vec<f32>,
        waiting: &mut Vec<(String, usize)>,
        grads: &mut Grads,
    ) -> Result<Vec<f32>, Lost> {
        let mut bucket = self.data.sum(bucket)?;
        let mut rest = bucket.as_slice();
        for (name, count) in waiting.drain(..) {
            let (sum, others) = rest.split_at(count);
            rest = others;
            match grads.get_mut(&name) {
                Some(grad) => grad.copy_from_slice(sum),
                None => {
                    grads.insert(name, sum.to_vec());
                }
            }
        }
        bucket.clear();
        Ok(bucket)
    }
}

/// The parameters of a model and their shapes, in order.
pub fn shapes<M: Module>(model: &M) -> Vec<(String, Vec<usize>)> {
    let mut walk = Shapes::default();
    model.visit(&mut walk);
    walk.fields
}

#[derive(Default)]
struct Shapes {
    path: Vec<String>,
    fields: Vec<(String, Vec<usize>)>,
}

impl ModuleVisitor for Shapes {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.fields.push((self.path.join("."), param.lazy_shape().to_vec()));
    }
}
