//! How much of a text says the same again.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};

/// Bytes of `text` over bytes of it compressed by zlib: some 1.5 for a sentence, and more the more it repeats itself.
/// Whisper's measure of a decoder that goes round in circles; 0 of an empty text.
///
/// ```
/// use firebrick_data::redundancy::compression_ratio;
///
/// assert!(compression_ratio("Ask what you can do for your country.") < 1.5);
/// assert!(compression_ratio(&"for your country ".repeat(20)) > 5.0);
/// ```
pub fn compression_ratio(text: &str) -> f64 {
    let mut encoder = ZlibEncoder::new(vec![], Compression::default());
    let written = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    let compressed = written.expect("memory can be written to");
    text.len() as f64 / compressed.len() as f64
}
