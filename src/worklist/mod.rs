//! The modality worklist (PS3.4 annex K): scheduled procedure steps come in, live, and are found.
//!
//! It has no sockets and no SQL. In reading order:
//!
//! - [`WorklistItem`]: an item as elements. [`read_items`] reads it from a file.
//! - [`Draft`]: an item that is complete. What an order lacks is made here.
//! - [`put`], [`cancel`]: a draft becomes a row of the index.
//! - [`WorklistQuery`]: an Identifier becomes a question, and rows become answers.

mod complete;
mod intake;
mod item;
mod query;
mod read;
mod tags;

pub use complete::{Draft, IntakeError, IntakeOptions, OrderFacts, complete};
pub use intake::{Intake, PutOutcome, cancel, put, remove_origin};
pub use item::{JsonItemError, WorklistItem};
pub use query::{WorklistAnswer, WorklistOptions, WorklistQuery, WorklistView};
pub use read::{MAX_ITEM_LENGTH, ReadItemError, read_items};
