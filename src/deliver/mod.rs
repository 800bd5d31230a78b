//! Objects go out. They are found at the location in the index, compared with the index, and read
//! ahead of the peer. C-GET, C-MOVE and WADO-RS use this module. It knows no DIMSE type and no HTTP
//! type.
//!
//! In reading order:
//!
//! - [`object`] opens one object and verifies it.
//! - [`rewrite`] writes an object in another transfer syntax, and `correcting` with corrected
//!   identifiers of its patient.
//! - [`decompress`] reads a compressed object as one without compression, with `nested` for the
//!   pixels of its items. `decoders` holds the places for that.
//! - [`delivery`] holds what all retrievals share.
//! - `framing` is what a protocol writes around a data set.
//! - `sending` is a list of objects to send, and `order` their order.
//! - `read_ahead` reads ahead of the peer.
//! - [`scrub`] reads all kept objects, round after round.

pub(crate) mod buffer;
pub mod correcting;
pub(crate) mod decoders;
pub mod decompress;
pub mod delivery;
pub mod error;
pub(crate) mod framing;
mod nested;
pub mod object;
mod order;
pub(crate) mod read_ahead;
pub mod rewrite;
pub mod scrub;
pub(crate) mod sending;
