//! The way to a collector: syslog over TLS (RFC 5425) or plain TCP (RFC 6587, octet counting).

use std::fmt;
use std::io::{self, Read as _, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::record::AuditRecord;
use super::xml;
use crate::ul::tls::client_config;

/// Facility 10 (security), severity 5 (notice): PS3.15 A.6.
const PRIORITY: u8 = 10 * 8 + 5;

/// Time for the collector to accept a connection, or the next bytes.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Time after which the kernel gives up bytes that the collector does not acknowledge.
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// Address of the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditCollector {
    host: String,
    port: u16,
    has_tls: bool,
}

/// A text that names no collector.
#[derive(Debug, thiserror::Error)]
#[error("it is tls://HOST:PORT or tcp://HOST:PORT")]
pub struct CollectorError;

impl AuditCollector {
    /// Whether it is called with TLS.
    #[must_use]
    pub const fn has_tls(&self) -> bool {
        self.has_tls
    }
}

impl FromStr for AuditCollector {
    type Err = CollectorError;

    fn from_str(text: &str) -> Result<Self, CollectorError> {
        let (scheme, rest) = text.split_once("://").ok_or(CollectorError)?;
        let (default_port, has_tls) = match scheme {
            "tls" => (6514, true),
            "tcp" => (601, false),
            _ => return Err(CollectorError),
        };
        // An IPv6 address stands in brackets.
        let after_bracket = rest.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match rest.get(after_bracket..).and_then(|tail| tail.find(':')) {
            Some(at) => {
                let (host, port) = rest.split_at(after_bracket + at);
                (host, port.get(1..).unwrap_or_default().parse().map_err(|_| CollectorError)?)
            }
            None => (rest, default_port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
        if host.is_empty() || !host.chars().all(is_host) || port == 0 {
            return Err(CollectorError);
        }
        Ok(Self { host: host.to_owned(), port, has_tls })
    }
}

impl fmt::Display for AuditCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.has_tls { "tls" } else { "tcp" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// Settings for the connection to the collector.
#[derive(Clone, Debug)]
pub struct CollectorOptions {
    /// Its address.
    pub collector: AuditCollector,
    /// The authorities of its certificate, PEM. Needed for TLS.
    pub authorities: Option<PathBuf>,
    /// The certificate of this node and its key, PEM, if the collector asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A collector that may be called.
pub(super) struct CollectorCaller {
    options: CollectorOptions,
    tls: Option<Arc<ClientConfig>>,
    /// Name of this machine, for the head of a message.
    host: String,
}

impl CollectorCaller {
    /// Reads the certificates.
    pub(super) fn new(options: CollectorOptions) -> io::Result<Self> {
        let identity = options.identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        let authorities = options.authorities.as_deref();
        let tls = options.collector.has_tls.then(|| client_config(authorities, identity)).transpose();
        let tls = tls.map_err(io::Error::other)?;
        let name = rustix::system::uname();
        let host = name.nodename().to_string_lossy();
        let is_printable = !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic());
        let host = if is_printable { host.chars().take(255).collect() } else { "-".to_owned() };
        Ok(Self { options, tls, host })
    }

    /// Calls the collector.
    pub(super) fn call(&self) -> io::Result<CollectorLink> {
        let AuditCollector { host, port, .. } = &self.options.collector;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the collector has no address");
        for address in (host.as_str(), *port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, TIME_LIMIT) {
                Ok(stream) => return self.secured(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn secured(&self, stream: TcpStream) -> io::Result<CollectorLink> {
        stream.set_write_timeout(Some(TIME_LIMIT))?;
        stream.set_read_timeout(Some(TIME_LIMIT))?;
        stream.set_nodelay(true)?;
        rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
        #[cfg(target_os = "linux")]
        rustix::net::sockopt::set_tcp_user_timeout(
            &stream,
            u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX),
        )?;
        let Some(tls) = &self.tls else { return Ok(CollectorLink::Plain(stream)) };
        let name = ServerName::try_from(self.options.collector.host.clone()).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        let mut stream = stream;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(CollectorLink::Tls(Box::new(StreamOwned::new(connection, stream))))
    }

    /// A message with its length before it.
    pub(super) fn frame(&self, record: &AuditRecord) -> Vec<u8> {
        let (time, host, process) = (xml::date_time(record.time_ms), &self.host, std::process::id());
        // The byte order mark says that the message is UTF-8 (RFC 5424 6.4).
        let message =
            format!("<{PRIORITY}>1 {time} {host} dcmdex {process} DICOM+RFC3881 - \u{FEFF}{}", xml::message(record));
        let mut frame = format!("{} ", message.len()).into_bytes();
        frame.extend_from_slice(message.as_bytes());
        frame
    }
}

/// A connection to the collector.
pub(super) enum CollectorLink {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl CollectorLink {
    /// Sends frames.
    pub(super) fn send(&mut self, frames: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(frames),
            Self::Tls(stream) => {
                stream.write_all(frames)?;
                stream.flush()
            }
        }
    }

    /// Fails if the collector has closed the connection. A collector says nothing else.
    pub(super) fn check(&mut self) -> io::Result<()> {
        let socket = match self {
            Self::Plain(stream) => &*stream,
            Self::Tls(stream) => &stream.sock,
        };
        socket.set_nonblocking(true)?;
        let mut byte = [0];
        let read = match self {
            Self::Plain(stream) => stream.read(&mut byte),
            Self::Tls(stream) => stream.read(&mut byte),
        };
        let socket = match self {
            Self::Plain(stream) => &*stream,
            Self::Tls(stream) => &stream.sock,
        };
        socket.set_nonblocking(false)?;
        match read {
            Ok(0) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the collector closed the connection")),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_by_scheme_host_and_port() {
        for (text, shown) in [
            ("tls://siem.example.org", "tls://siem.example.org:6514"),
            ("tcp://10.0.0.1:5140", "tcp://10.0.0.1:5140"),
            ("tls://[2001:db8::1]:6514", "tls://[2001:db8::1]:6514"),
            ("tcp://[::1]", "tcp://[::1]:601"),
        ] {
            assert_eq!(text.parse::<AuditCollector>().unwrap().to_string(), shown);
        }
        for text in ["", "siem:6514", "udp://siem:514", "tls://", "tls://siem:x", "tls://siem:0", "tls://a b:1"] {
            assert!(text.parse::<AuditCollector>().is_err(), "{text}");
        }
    }
}
