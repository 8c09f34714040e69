//! The encoder layer: of ViT and its kin, Whisper, BART and Wav2Vec2.
//!
//! Its norms stand after each half (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>) or before it
//! (Xiong et al. 2020, <https://arxiv.org/abs/2002.04745>).

use burn::{module::Module, prelude::*};

use super::{
    activation::Activation,
    attention::{AttentionConfig, Mask, MultiHeadAttention},
    dropout::Dropout,
    mlp::FeedForward,
    norm::LayerNorm,
};

/// Sizes of a [`EncoderLayer`].
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderLayerConfig {
    /// Its `width` and `std` are those of the whole layer.
    pub attention: AttentionConfig,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    pub layer_norm_eps: f64,
    /// Of what each half adds.
    pub dropout: f64,
    /// Of the inner channels of the feed-forward block.
    pub activation_dropout: f64,
    /// Norms before the halves, not after.
    pub norm_first: bool,
}

impl EncoderLayerConfig {
    pub fn init(&self, device: &Device) -> EncoderLayer {
        let AttentionConfig { width: c, std, .. } = self.attention;
        EncoderLayer {
            attention_norm: LayerNorm::new(c, self.layer_norm_eps, device),
            attention: self.attention.init(device),
            feed_forward_norm: LayerNorm::new(c, self.layer_norm_eps, device),
            feed_forward: FeedForward {
                dropout: Dropout::new(self.activation_dropout),
                ..FeedForward::new(c, self.intermediate_size, self.hidden_act, std, device)
            },
            dropout: Dropout::new(self.dropout),
            norm_first: self.norm_first,
        }
    }
}

/// Self-attention, then feed-forward; each added to the residual stream, with a norm before it or after the sum.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    attention_norm: LayerNorm,
    attention: MultiHeadAttention,
    feed_forward_norm: LayerNorm,
    feed_forward: FeedForward,
    dropout: Dropout,
    #[module(skip)]
    norm_first: bool,
}

impl EncoderLayer {
    /// `[B, T, C]` -> `[B, T, C]`
    pub fn forward(&self, x: Tensor<3>, mask: &Mask) -> Tensor<3> {
        if self.norm_first {
            let attended = self.attention.forward(self.attention_norm.forward(x.clone()), mask);
            let x = x + self.dropout.forward(attended);
            let fed = self.feed_forward.forward(self.feed_forward_norm.forward(x.clone()));
            x + self.dropout.forward(fed)
        } else {
            let attended = self.attention.forward(x.clone(), mask);
            let x = self.attention_norm.residual(x, attended, &self.dropout);
            let fed = self.feed_forward.forward(x.clone());
            self.feed_forward_norm.residual(x, fed, &self.dropout)
        }
    }
}
