//! firebrick-data
