//! Reasons why events cannot be told.

use std::io;

use super::signing::SigningKeyError;
use crate::db;
use crate::ul::tls;

/// The reason why a node cannot tell events.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates for a receiver cannot be used.
    #[error("events: receiver `{receiver}` cannot be called with TLS")]
    Certificates {
        /// Name of the receiver.
        receiver: String,
        /// The cause.
        source: tls::Error,
    },
    /// The key for a receiver cannot be used.
    #[error("events: receiver `{receiver}` has no key")]
    Key {
        /// Name of the receiver.
        receiver: String,
        /// The cause.
        source: SigningKeyError,
    },
    /// A thread cannot be started.
    #[error("events: a thread cannot be started")]
    Thread(#[source] io::Error),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] db::Error),
}
