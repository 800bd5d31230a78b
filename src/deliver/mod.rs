//! Objects go out: they are found where the index says, compared with what the index says, and read
//! ahead of the peer that gets them. C-GET, C-MOVE and WADO-RS all use this; nothing in this module
//! knows a DIMSE or HTTP type.
//!
//! In reading order: [`object`] (one object, opened and verified), [`rewrite`] (another transfer
//! syntax), [`delivery`] (what all retrievals have in common), `framing` (what a protocol writes around
//! a data set), `sending` (what is to be sent), `order` (in which order), `read_ahead` (reading runs
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
