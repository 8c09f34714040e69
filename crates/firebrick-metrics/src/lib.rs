//! firebrick-metrics
