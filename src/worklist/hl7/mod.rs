//! Orders as HL7 version 2 messages (ORM^O01, OMI^O23, OMG^O19, ADT^A08, ADT^A31 and ADT^A40).
//!
//! [`Hl7Intake`] takes a message and gives its acknowledgment. All that a message wants is done in
//! one transaction, and the acknowledgment comes after its commit.

mod acknowledge;
mod character_set;
mod error;
mod map;
mod message;
mod observation;
mod orders;
mod take;

pub use acknowledge::{AckCode, Acknowledgment};
pub use error::{MAX_MESSAGE_LENGTH, MessageError};
pub use map::{Hl7Map, Hl7MapError};
pub use message::{FieldPath, FieldPathError, Message};
pub use orders::RefusedMessage;
pub use take::{Hl7Error, Hl7Intake};
