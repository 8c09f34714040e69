//! The encoder layer of ViT and its kin, with a norm before each half (Xiong et al. 2020,
//! <https://arxiv.org/abs/2002.04745>).

use burn::{module::Module, prelude::*};

use super::{
    activation::Activation,
    attention::{AttentionConfig, Mask, MultiHeadAttention},
    dropout::Dropout,
    mlp::FeedForward,
    norm::LayerNorm,
};

/// Sizes of a [`PreNormLayer`].
#[derive(Debug, Clone, PartialEq)]
pub struct PreNormConfig {
    /// Its `width` and `std` are those of the whole layer.
    pub attention: AttentionConfig,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    pub layer_norm_eps: f64,
    /// Of what each half adds.
    pub dropout: f64,
}

impl PreNormConfig {
    pub fn init(&self, device: &Device) -> PreNormLayer {
        let AttentionConfig { width: c, std, .. } = self.attention;
        PreNormLayer {
            attention_norm: LayerNorm::new(c, self.layer_norm_eps, device),
            attention: self.attention.init(device),
            feed_forward_norm: LayerNorm::new(c, self.layer_norm_eps, device),
            feed_forward: FeedForward::new(c, self.intermediate_size, self.hidden_act, std, device),
            dropout: Dropout::new(self.dropout),
        }
    }
}

/// Self-attention, then feed-forward; each added to the residual stream, with a norm before it.
#[derive(Module, Debug)]
pub struct PreNormLayer {
    attention_norm: LayerNorm,
    attention: MultiHeadAttention,
    feed_forward_norm: LayerNorm,
    feed_forward: FeedForward,
    dropout: Dropout,
}

impl PreNormLayer {
    /// `[B, T, C]` -> `[B, T, C]`
    pub fn forward(&self, x: Tensor<3>, mask: &Mask) -> Tensor<3> {
        let attended = self.attention.forward(self.attention_norm.forward(x.clone()), mask);
        let x = x + self.dropout.forward(attended);
        let fed = self.feed_forward.forward(self.feed_forward_norm.forward(x.clone()));
        x + self.dropout.forward(fed)
    }
}
