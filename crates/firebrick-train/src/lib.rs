//! firebrick-train
