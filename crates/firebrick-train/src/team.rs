//! The processes of one run.
//!
//! Data-parallel: each has the whole model, takes its part of every batch, and gets the sum of all gradients, so that
//! all take the same step (Li et al. 2020, <https://arxiv.org/abs/2006.15704>). The sum waits for the end of the
//! backward pass: Burn hands out gradients only then.

use std::sync::Arc;

use burn::{
    module::{Module, ModuleVisitor, Param},
    prelude::*,
};
use firebrick_core::parallel::{Alone, Collective, Lost};

use crate::optim::Grads;

/// Numbers that are summed at a time: 25 MB, as in PyTorch's `DistributedDataParallel`.
const BUCKET: usize = 25 * 1024 * 1024 / 4;

/// Where this process stands in a run.
#[derive(Debug, Clone)]
pub struct Team {
    /// All processes of the run; the first one writes.
    pub world: Arc<dyn Collective>,
    /// Those that share a batch.
    pub data: Arc<dyn Collective>,
}

impl Team {
    /// A run in one process.
    pub fn alone() -> Self {
        Self { world: Arc::new(Alone), data: Arc::new(Alone) }
    }

    /// Every process has the whole model.
    pub fn data_parallel(world: Arc<dyn Collective>) -> Self {
        Self { data: world.clone(), world }
    }

    /// Whether this process writes the run folder.
    pub fn is_first(&self) -> bool {
        self.world.rank() == 0
    }

    /// Whether this process evaluates.
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
        let mut trained = Trained::default();
        model.visit(&mut trained);
        // A process without rows has no gradients, and one that no process has must stay away.
        let mut bucket = vec![*loss as f32];
        bucket.extend(trained.fields.iter().map(|(name, _)| match grads.contains_key(name) {
            true => 1.0,
            false => 0.0,
        }));
        let sums = self.data.sum(bucket)?;
        *loss = f64::from(sums[0]);
        let mut fields = trained.fields.into_iter().zip(&sums[1..]);
        let fields = fields.by_ref().filter(|(_, have)| **have > 0.0).map(|(field, _)| field);

        let mut waiting: Vec<(String, usize)> = vec![];
        let mut bucket: Vec<f32> = vec![];
        for (name, count) in fields {
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

/// Fields that get gradients, with their numbers of numbers.
#[derive(Default)]
struct Trained {
    path: Vec<String>,
    fields: Vec<(String, usize)>,
}

impl ModuleVisitor for Trained {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.fields.push((self.path.join("."), param.lazy_shape().num_elements()));
    }
}
