//! A model into a smaller model, measured after it has been read back.
