//! The modality worklist (PS3.4 annex K): scheduled procedure steps come in, live, and are found.
//!
//! It has no sockets and no SQL. In reading order:
//!
//! - [`WorklistItem`]: an item as elements. [`read_items`] reads it from a file.
//! - [`Draft`]: an item that is complete. What an order lacks is made here.
//! - [`put`], [`cancel`]: a draft becomes a row of the index.
//! - [`WorklistQuery`]: an Identifier becomes a question, and rows become answers.
//! - [`WorklistFolder`] and [`Hl7Intake`]: orders come as files and as HL7 messages.
//! - [`live`], [`create_step`] and [`set_step`]: what becomes of an item.

mod attributes;
mod complete;
mod folder;
mod hl7;
mod intake;
mod item;
mod life;
mod message_times;
mod mpps;
mod query;
mod read;

pub use complete::{Draft, IntakeError, IntakeOptions, OrderFacts, complete};
pub use folder::{LOOK_AFTER, LOOK_SOON_AFTER, WorklistFolder};
pub use hl7::{
    AckCode, Acknowledgment, FieldPath, FieldPathError, Hl7Error, Hl7Intake, Hl7Map, Hl7MapError, MAX_MESSAGE_LENGTH,
    Message, MessageError, RefusedMessage,
};
pub use intake::{CancelScope, Intake, PutOutcome, cancel, cancel_dropped, put, remove_file_items};
pub use item::{JsonItemError, WorklistItem};
pub use life::{LifeOptions, ROUND_AFTER, live};
pub use mpps::{StepRefusal, create_step, new_step_uid, set_step};
pub use query::{WorklistAnswer, WorklistOptions, WorklistQuery, WorklistView};
pub use read::{MAX_ITEM_LENGTH, ReadItemError, read_items};
