//! firebrick-nlp
