//! firebrick-classic
