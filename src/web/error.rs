//! Why there is no HTTP side.

use std::io;
use std::net::SocketAddr;

/// Why there is no HTTP side.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for HTTP")]
    Bind {
        /// Address and port asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The name of the user header is no name of a header.
    #[error("`{0}` cannot be the name of a header")]
    HeaderName(String),
}
