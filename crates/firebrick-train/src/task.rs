//! What an application says about its model and its data to have it trained.

use burn::{module::Module, prelude::*};

/// A model that can be trained.
pub trait Task: Module {
    type Batch;

    /// Fields whose path begins with one of these are the head, which `train.head_learning_rate` is for and which Muon leaves
    /// to AdamW.
    const HEAD: &'static [&'static str] = &[];

    /// Mean loss over the batch, `[1]`.
    fn loss(&self, batch: Self::Batch) -> Tensor<1>;
}

/// Training examples by index; the only code that pads.
pub trait Examples {
    type Batch;

    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens (frames, pixels) of one example: what batches are sorted and throughput is counted by.
    fn size(&self, index: usize) -> usize;

    /// The examples as tensors. All randomness (word dropout, augmentation) comes from `seed`.
    fn batch(&self, indices: &[usize], seed: u64, device: &Device) -> Self::Batch;
}
