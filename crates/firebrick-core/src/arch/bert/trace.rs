//! What lies between an encoder's tokens and its output, for a student to learn from.

use burn::prelude::*;

use super::Encoder;

/// Of every layer, from the first to the last.
pub struct Trace {
    /// What comes out, `[B, T, C]`; the last is the encoder's output.
    pub hidden: Vec<Tensor<3>>,
    /// How the tokens look at each other, before mask and softmax, `[B, H, T, T]`.
    pub attention: Vec<Tensor<4>>,
}

impl Encoder {
    /// As [`Encoder::forward`], with all that lies between. Layers run once, whatever `recompute` says.
    pub fn trace(&self, ids: Tensor<2, Int>, pad: Option<Tensor<2, Bool>>) -> Trace {
        let (mut x, mask) = self.embed(self.words(ids.clone()), ids, None, pad);
        let mut trace = Trace { hidden: vec![], attention: vec![] };
        for layer in &self.layers {
            trace.attention.push(layer.attention.scores(x.clone()));
            x = layer.forward(x, &mask);
            trace.hidden.push(x.clone());
        }
        trace
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tolerance, activation::softmax};

    use super::*;
    use crate::arch::bert::BertConfig;

    #[test]
    fn a_trace_ends_in_the_output_and_its_maps_make_the_attention() {
        let device = Device::flex();
        device.seed(1);
        let config = BertConfig { initializer_range: 0.3, ..BertConfig::tiny() };
        let model = config.init_classifier(2, &device);
        let ids = Tensor::<2, Int>::from_data([[2, 9, 4, 7, 3]], &device);
        let trace = model.encoder.trace(ids.clone(), None);
        assert_eq!([trace.hidden.len(), trace.attention.len()], [config.num_hidden_layers; 2]);
        let output = model.encoder.forward(ids, None, None).into_data();
        let last = trace.hidden.last().unwrap().clone().into_data();
        last.assert_approx_eq::<f32>(&output, Tolerance::absolute(1e-6));

        // The second layer's, put together by hand from its map.
        let (layer, x) = (&model.encoder.layers[1].attention, trace.hidden[0].clone());
        let [b, t, c] = x.dims();
        let h = config.num_attention_heads;
        let value = layer.value.forward(x.clone()).reshape([b, t, h, c / h]).swap_dims(1, 2);
        let mixed = softmax(trace.attention[1].clone(), 3).matmul(value).swap_dims(1, 2);
        let attended = layer.output.forward(mixed.reshape([b, t, c])).into_data();
        let expected = layer.forward(x, &Default::default()).into_data();
        attended.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
    }
}
