//! The repository itself: imports, documents, examples, fixtures, and inputs that fuzzing found.

mod architecture;
mod documents;
mod examples;
mod fixtures;
mod fuzzed;
mod monitoring;
