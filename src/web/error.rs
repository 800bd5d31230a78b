//! Errors of the HTTP side.

use std::io;
use std::net::SocketAddr;

/// Errors of the HTTP side.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node cannot listen on the address.
    #[error("cannot listen on {address} for HTTP")]
    Bind {
        /// Configured address and port.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The address for supervisors cannot be listened on.
    #[error("cannot listen on {address} for monitoring")]
    Monitor {
        /// Address and port asked for.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The configured user header is not a valid name of a header.
    #[error("`{0}` cannot be the name of a header")]
    HeaderName(String),
}
