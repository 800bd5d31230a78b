//! One object to an instance record.
