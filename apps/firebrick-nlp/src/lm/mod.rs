//! Language modelling: text as one stream of tokens, models that guess the next of them, and what a
//! stream costs in nats, bits and perplexity.

pub mod causal;
pub mod corpus;
pub mod evaluate;
pub mod ladder;
pub mod prune;
pub mod recipe;
pub mod train;
pub mod verse;
