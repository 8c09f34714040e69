//! Benches lie in `benches/`; the same work on other systems in `peers/`.
