//! The worklist in an SQLite index.

mod rows;
mod search;
mod tables;

pub(super) use tables::{WorklistTransaction, note_present, waiting_items};
