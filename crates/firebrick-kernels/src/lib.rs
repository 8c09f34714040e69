//! firebrick-kernels
