//! DIMSE messages (PS3.7): command sets, status codes, typed requests and responses, and how messages are cut into
//! P-DATA fragments and put together again. No sockets here: bytes in, values out, so that every rule can be tested
//! without a peer. Who talks to a socket is [`crate::scp`].
//!
//! What the Standard says, and where it is held here:
//!
//! - PS3.7 6.3.1: a Command Set is the elements of group 0000, "encoded using Implicit VR, Little Endian", in every
//!   presentation context: [`command_set`].
//! - PS3.7 9.3 and 10.3: the fields of each request and response: [`message`]. Dictionary of the fields: PS3.7 annex E.
//! - PS3.7 annex C: status codes and their classes: [`status`]. The service classes of PS3.4 add their own.
//! - PS3.8 annex E: a message is cut into fragments, "the command information and the data set information are not in the
//!   same fragment", each marked by a Message Control Header with "last fragment" in bit 1; PS3.7 6.3 and annex F: fragments
//!   of one message are not interleaved with those of another: [`pdata`].
//!
//! Memory: a command set is gathered up to [`pdata::MAX_COMMAND_SET_LENGTH`]; a data set is never gathered here, its
//! fragments are handed on as they come.

pub mod command_set;
pub mod message;
pub mod pdata;
pub mod status;

pub use command_set::{CommandField, CommandSet};
pub use message::{DimseRequest, Response};
pub use status::Status;
