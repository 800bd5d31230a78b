//! Keys and columns of a command line: what they ask of the index, and what an answer has in each.

mod arrival;
pub(in crate::cli) mod asked;
pub(in crate::cli) mod columns;
pub(in crate::cli) mod hints;
pub(in crate::cli) mod lists;
pub(in crate::cli) mod query;
pub(in crate::cli) mod stream;
