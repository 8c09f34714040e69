//! What goes into linear layers while a model runs, as sums of `x x^T`: what a rounding of their weights is to spare.
//!
//! A model is opened and asked within [`record`], by whatever code asks such models; loading tells the names.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use burn::{module::ParamId, prelude::*, tensor::DType};

/// `[I, I]` row by row, by the weight's name in the checkpoint.
pub type Moments = BTreeMap<String, Arc<[f32]>>;

/// Bytes of moments that are kept; layers that are first asked after that have none.
const MOST: usize = 4 << 30;

/// What [`record`] saw.
#[derive(Debug, Default)]
pub struct Recorded {
    pub moments: Moments,
    /// Names of weights whose moments found no room.
    pub left: BTreeSet<String>,
}

thread_local! {
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Record {
    /// Of weights that were loaded.
    names: HashMap<ParamId, String>,
    /// `[I, I]`
    sums: HashMap<ParamId, Tensor<2>>,
    left: HashSet<ParamId>,
    bytes: usize,
    most: usize,
}

/// What `run` returns, and the moments of all linear layers that were loaded and asked in it, on this thread.
pub fn record<T>(run: impl FnOnce() -> T) -> (T, Recorded) {
    record_within(MOST, run)
}

/// As [`record`], with at most so many bytes of moments.
fn record_within<T>(most: usize, run: impl FnOnce() -> T) -> (T, Recorded) {
    RECORD.with(|record| *record.borrow_mut() = Some(Record { most, ..Record::default() }));
    let result = run();
    let record = RECORD.with(|record| record.borrow_mut().take()).unwrap_or_default();
    let Record { mut names, sums, left, .. } = record;
    let left = left.iter().filter_map(|id| names.get(id).cloned()).collect();
    let moments = sums.into_iter().filter_map(|(id, sum)| {
        let data = sum.into_data().convert_dtype(DType::F32);
        Some((names.remove(&id)?, data.as_slice::<f32>().ok()?.into()))
    });
    (result, Recorded { moments: moments.collect(), left })
}

/// The parameter `id` was loaded from the tensor `name`.
pub(crate) fn loaded(id: ParamId, name: &str) {
    RECORD.with(|record| {
        if let Some(record) = record.borrow_mut().as_mut() {
            record.names.insert(id, name.to_string());
        }
    });
}

/// `x`, `[.., I]`, goes into the layer with the weight `id`.
pub(crate) fn seen<const D: usize>(id: ParamId, x: &Tensor<D>) {
    RECORD.with(|record| {
        if let Some(record) = record.borrow_mut().as_mut() {
            record.add(id, x);
        }
    });
}

impl Record {
    fn add<const D: usize>(&mut self, id: ParamId, x: &Tensor<D>) {
        let inputs = x.dims()[D - 1];
        let bytes = inputs * inputs * size_of::<f32>();
        let known = self.sums.contains_key(&id);
        if x.shape().num_elements() == 0 {
            return;
        }
        if !known && self.bytes + bytes > self.most {
            self.left.insert(id);
            return;
        }
        let rows: Tensor<2> = x.clone().detach().reshape([-1, inputs as i64]);
        let new = rows.clone().transpose().matmul(rows);
        match self.sums.remove(&id) {
            Some(sum) => self.sums.insert(id, sum + new),
            None => {
                self.bytes += bytes;
                self.sums.insert(id, new)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tolerance;

    use super::*;
    use crate::{
        checkpoint::tensors::{Coverage, SaveType, Weights, fill, save},
        layers::linear::Linear,
    };

    /// By hand: `[1, 2]` and `[3, 4]` in one call, `[0, 1]` in another.
    #[test]
    fn the_products_of_all_rows_are_added() {
        let device = Device::flex();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let name = |field: &str| Some(format!("layer.{field}"));
        save(&Linear::new(2, 3, 1.0, &device), &path, SaveType::F32, name).unwrap();
        let all = Coverage { ignored: &[], fresh: &[] };
        let rows = |rows: &[[f32; 2]]| {
            let rows: Vec<f32> = rows.iter().flatten().copied().collect();
            let count = rows.len() / 2;
            Tensor::<2>::from_data(TensorData::new(rows, [count, 2]), &device)
        };
        let fresh = Linear::new(2, 3, 1.0, &device);
        let ask = || {
            let weights = Weights::open_file(&path).unwrap();
            let layer = fill(Linear::new(2, 3, 1.0, &device), &weights, &all, name).unwrap();
            layer.forward(rows(&[[1.0, 2.0], [3.0, 4.0]]).unsqueeze::<3>());
            layer.forward(rows(&[[0.0, 1.0]]));
            fresh.forward(rows(&[[5.0, 5.0]])); // has no name
        };
        let (_, Recorded { moments, left }) = record(ask);
        assert!(moments.keys().eq(["layer.weight"]) && left.is_empty(), "{moments:?}, {left:?}");
        let found = TensorData::from(&moments["layer.weight"][..]);
        let expected = TensorData::from([10.0f32, 14.0, 14.0, 21.0]);
        found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));

        fresh.forward(rows(&[[1.0, 1.0]]));
        assert!(record(|| ()).1.moments.is_empty(), "what runs outside is not recorded");

        let (_, Recorded { moments, left }) = record_within(15, ask);
        assert!(moments.is_empty() && left.iter().eq(["layer.weight"]), "{moments:?}, {left:?}");
    }
}
