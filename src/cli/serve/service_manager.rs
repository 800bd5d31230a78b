//! Notifies the service manager: sd_notify(3), a datagram to the socket that systemd names.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;

/// The environment variable with the path of the socket.
pub(super) const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// The socket of the service manager, if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceManager(Option<Vec<u8>>);

impl ServiceManager {
    /// Uses this socket: a path, or `@` and an abstract name.
    pub(super) fn at(socket: Option<&OsStr>) -> Self {
        Self(socket.filter(|name| !name.is_empty()).map(|name| name.as_bytes().to_vec()))
    }

    /// Sends a state. If the service manager does not listen, the node goes on.
    pub(super) fn tell(&self, state: &str) {
        if let Some(name) = &self.0
            && let Err(error) = send(name, state)
        {
            tracing::warn!(%error, "cannot notify the service manager");
        }
    }
}

fn send(name: &[u8], state: &str) -> io::Result<()> {
    let address = match name {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        path => SocketAddr::from_pathname(PathBuf::from(OsStr::from_bytes(path)))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}
