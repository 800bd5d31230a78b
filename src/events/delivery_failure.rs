//! Reasons why an event was not delivered.

/// Reason why a receiver did not take an event.
///
/// The texts hold nothing that the receiver said, because it may have said something of a patient.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DeliveryFailure {
    /// It does not want this event. Others may go on.
    #[error("{0}")]
    Refused(String),
    /// It took the event and did not answer in time.
    #[error("{0}")]
    Silent(String),
    /// It cannot be reached, so it would take no other event either.
    #[error("{0}")]
    Unreachable(String),
}
