//! Language modelling: text as one stream of tokens, models that guess the next of them (or masked ones), and what a
//! stream costs in nats, bits and perplexity.

pub mod causal;
pub mod corpus;
pub mod evaluate;
pub mod ladder;
pub mod masked;
pub mod recipe;
pub mod train;
pub mod verse;
