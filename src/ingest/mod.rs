//! One object to an instance record.

pub mod charset;
