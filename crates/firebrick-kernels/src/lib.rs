//! Number-crunching loops on the CPU behind safe slices.
//!
//! Every function works on plain slices, so it is tested without a tensor library. Loops are
//! written so that the compiler vectorises them; large slices are shared among rayon's threads in
//! blocks of fixed size, so the result does not depend on the number of threads.

pub mod activation;
pub mod affine;
pub mod allocator;
pub mod attention;
mod awake;
pub mod conv;
mod cpu;
pub mod cross_entropy;
pub mod ctc;
pub mod dropout;
pub mod embedding;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod math;
pub mod matmul;
mod matvec;
pub mod norm;
pub mod optim;
pub mod pool;
pub mod quantised;
pub mod recurrence;
pub mod reduce;
pub mod rope;
pub mod softmax;
pub mod transpose;

/// Elements per block of parallel work: large enough to hide rayon's cost, small enough for L1.
pub(crate) const BLOCK: usize = 16 * 1024;
