//! Named arrays from outside, checked before they become tensors: a tensor operation would panic.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use burn::{prelude::*, tensor::TensorData};

use crate::checkpoint::json::quoted;

/// An array as a file holds it, row by row.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    Ints { shape: Vec<usize>, values: Vec<i64> },
    Floats { shape: Vec<usize>, values: Vec<f32> },
}

/// What a model is asked with: arrays under the names that `transformers` gives them.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub arrays: BTreeMap<String, Array>,
    pub device: Device,
    /// Names that a model asked for.
    asked: Arc<Mutex<BTreeSet<String>>>,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    #[error("the inputs have no `{name}`; they have {}", list(have))]
    Missing { name: String, have: Vec<String> },

    #[error("`{name}` holds {found}, {expected} are needed")]
    Kind { name: String, found: &'static str, expected: &'static str },

    #[error("`{name}` has shape {found:?}, {expected} is needed")]
    Shape { name: String, found: Vec<usize>, expected: String },

    #[error("`{name}` holds {value}, outside 0..{below}")]
    Range { name: String, value: i64, below: usize },

    #[error("`{name}` holds {value}")]
    NotFinite { name: String, value: f32 },

    #[error("{tokens} tokens, the model reads {longest}")]
    TooLong { tokens: usize, longest: usize },

    #[error("{0}")]
    Unsupported(String),
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".into(),
        names => names.iter().take(8).map(|name| quoted(name)).collect::<Vec<_>>().join(", "),
    }
}

impl Inputs {
    pub fn new(arrays: BTreeMap<String, Array>, device: &Device) -> Self {
        Self { arrays, device: device.clone(), asked: Arc::default() }
    }

    pub fn has(&self, name: &str) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into());
        self.arrays.contains_key(name)
    }

    /// Arrays that no model has asked for: a mask under another name hides nothing.
    pub fn unread(&self) -> Vec<&str> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.arrays.keys().filter(|name| !asked.contains(*name)).map(String::as_str).collect()
    }

    /// Token ids, `[B, T]`, each below `vocabulary`; at least one.
    pub fn ids(&self, name: &str, vocabulary: usize) -> Result<Tensor<2, Int>, InputError> {
        let (shape, values) = self.ints(name)?;
        let &[b, t] = shape else { return Err(wrong_shape(name, shape, "[batch, tokens]")) };
        if b == 0 || t == 0 {
            return Err(wrong_shape(name, shape, "[batch, tokens] with at least one of each"));
        }
        if let Some(value) = values.iter().find(|v| **v < 0 || **v >= vocabulary as i64) {
            return Err(InputError::Range { name: name.into(), value: *value, below: vocabulary });
        }
        let values: Vec<i32> = values.iter().map(|v| *v as i32).collect();
        Ok(Tensor::from_data(TensorData::new(values, [b, t]), &self.device))
    }

    /// `attention_mask`: `[B, T]`, 0 where padding. `None` when it is absent or hides nothing; else true
    /// where padding.
    pub fn padding(
        &self,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Option<Tensor<2, Bool>>, InputError> {
        let hidden = self.hidden(name, shape)?;
        Ok(hidden.map(|hidden| Tensor::from_data(TensorData::new(hidden, shape), &self.device)))
    }

    /// [`Self::padding`] as plain values, row by row.
    pub fn hidden(&self, name: &str, shape: [usize; 2]) -> Result<Option<Vec<bool>>, InputError> {
        if !self.has(name) {
            return Ok(None);
        }
        let (found, values) = self.ints(name)?;
        if found != shape {
            return Err(wrong_shape(name, found, &format!("{shape:?}")));
        }
        if let Some(value) = values.iter().find(|value| !matches!(value, 0 | 1)) {
            return Err(InputError::Range { name: name.into(), value: *value, below: 2 });
        }
        let hidden: Vec<bool> = values.iter().map(|v| *v == 0).collect();
        Ok(hidden.contains(&true).then_some(hidden))
    }

    /// `decoder_input_ids`, `[rows, T]`: the target of a model that has a source.
    pub fn decoder_ids(
        &self,
        rows: usize,
        vocabulary: usize,
    ) -> Result<Tensor<2, Int>, InputError> {
        let (name, mask) = ("decoder_input_ids", "decoder_attention_mask");
        let ids = self.ids(name, vocabulary)?;
        let [found, t] = ids.dims();
        if found != rows {
            return Err(wrong_shape(name, &[found, t], &format!("[{rows}, any]")));
        }
        // A target's padding is on its right, where no token sees it.
        match self.hidden(mask, [rows, t])? {
            None => Ok(ids),
            Some(_) => Err(InputError::Unsupported(format!("`{mask}` hides tokens of the target"))),
        }
    }

    /// Finite numbers of `D` axes; `expected` says which, `None` in it is any size but zero.
    pub fn floats<const D: usize>(
        &self,
        name: &str,
        expected: [Option<usize>; D],
    ) -> Result<Tensor<D>, InputError> {
        let Array::Floats { shape, values } = self.array(name)? else {
            let (found, expected) = ("whole numbers", "floats");
            return Err(InputError::Kind { name: name.into(), found, expected });
        };
        let fits = |(found, expected): (&usize, &Option<usize>)| match expected {
            Some(expected) => found == expected,
            None => *found > 0,
        };
        if shape.len() != D || !shape.iter().zip(&expected).all(fits) {
            let axes = expected.map(|n| n.map_or("any".into(), |n| n.to_string()));
            return Err(wrong_shape(name, shape, &format!("[{}]", axes.join(", "))));
        }
        if let Some(value) = values.iter().find(|v| !v.is_finite()) {
            return Err(InputError::NotFinite { name: name.into(), value: *value });
        }
        let shape: [usize; D] = shape.as_slice().try_into().expect("its length was checked");
        Ok(Tensor::from_data(TensorData::new(values.clone(), shape), &self.device))
    }

    fn ints(&self, name: &str) -> Result<(&[usize], &[i64]), InputError> {
        match self.array(name)? {
            Array::Ints { shape, values } => Ok((shape, values)),
            Array::Floats { .. } => {
                let (found, expected) = ("floats", "whole numbers");
                Err(InputError::Kind { name: name.into(), found, expected })
            }
        }
    }

    fn array(&self, name: &str) -> Result<&Array, InputError> {
        let missing = || InputError::Missing {
            name: name.into(),
            have: self.arrays.keys().cloned().collect(),
        };
        if self.has(name) { Ok(&self.arrays[name]) } else { Err(missing()) }
    }
}

/// `tokens` must fit a model that reads `longest`.
pub fn check_length(tokens: usize, longest: usize) -> Result<(), InputError> {
    match tokens <= longest {
        true => Ok(()),
        false => Err(InputError::TooLong { tokens, longest }),
    }
}

fn wrong_shape(name: &str, found: &[usize], expected: &str) -> InputError {
    InputError::Shape { name: name.into(), found: found.to_vec(), expected: expected.into() }
}
