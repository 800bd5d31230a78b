//! DIMSE messages (PS3.7): command sets, typed requests and responses, and messages
//! in P-DATA fragments. The module takes bytes and returns values, without sockets, so that every
//! rule can be tested without a peer. [`crate::scp`] has the sockets.
//!
//! Where each rule of the Standard is:
//!
//! - PS3.7 6.3.1: a command set has the elements of group 0000, "encoded using Implicit VR, Little
//!   Endian", in every presentation context: [`command_set`].
//! - PS3.7 9.3 and 10.3: the fields of each request and response: [`message`]. The dictionary of
//!   the fields is PS3.7 annex E.
//! - PS3.7 annex C: status codes and their classes: [`crate::model::status`]. The service classes
//!   of PS3.4 add their own.
//! - PS3.8 annex E: a message is cut into fragments, "the command information and the data set
//!   information are not in the same fragment". A Message Control Header marks each fragment, with
//!   "last fragment" in bit 1. PS3.7 6.3 and annex F: fragments of two messages are not
//!   interleaved: [`pdata`].
//!
//! A command set is gathered up to [`pdata::MAX_COMMAND_SET_LENGTH`]. A data set is never gathered
//! here. Its fragments are handed on as they come.

pub mod command_set;
pub mod message;
pub mod pdata;

pub use command_set::{CommandField, CommandSet};
pub use message::{DimseRequest, Response};
