//! Objects go out. They are found at the location in the index, compared with the index, and read
//! ahead of the peer. C-GET, C-MOVE and WADO-RS use this module. It knows no DIMSE type and no HTTP
//! type.
//!
//! In reading order: [`object`] (one object, opened and verified), [`rewrite`] (another transfer
//! syntax), [`delivery`] (what all retrievals share), `framing` (what a protocol writes around a
//! data set), `sending` (a list of objects to send), `order` (their order), `read_ahead` (reading
//! ahead of the peer), [`scrub`] (the round that reads all kept objects).

pub(crate) mod buffer;
pub mod delivery;
pub mod error;
pub(crate) mod framing;
pub mod object;
mod order;
pub(crate) mod read_ahead;
pub mod rewrite;
pub mod scrub;
pub(crate) mod sending;
