//! HL7 version 2 messages over TCP: the Minimal Lower Layer Protocol (HL7 2.3.1 appendix C).
//!
//! A message stands between the bytes 0B and 1C 0D. Its acknowledgment goes back on the same
//! connection, after the index has committed what the message wants. The next message is read after
//! that, so a sender that does not wait is not answered out of order.

mod frame;
mod listener;

pub use listener::{Error, MllpListener, Options, SharedSenders};
