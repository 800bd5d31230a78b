//! Why an object is not sent.

use super::object::ObjectError;

/// Why an object is not sent. The texts are for the peer: they name no path and no value.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// None of its locations has it.
    #[error(transparent)]
    Object(ObjectError),
    /// The peer takes it in no form that it can be sent in.
    #[error("the peer does not take it in a form that it can be sent in")]
    NotAccepted,
    /// The index does not say where it lies.
    #[error("the index could not be asked where it lies")]
    Index,
}
