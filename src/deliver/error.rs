//! Reasons why an object is not sent.

use super::object::ObjectError;

/// The reason why an object is not sent. The peer gets the text, so it names no path and no value.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// None of its locations has it.
    #[error(transparent)]
    Object(ObjectError),
    /// The peer accepts it in no form that it can be sent in.
    #[error("the peer accepts no transfer syntax in which it can be sent")]
    NotAccepted,
    /// The index cannot be asked for its location.
    #[error("the index could not be queried for its location")]
    Index,
}
