//! HTTP/2 frames (RFC 9113) as a test wants them, over TCP with prior knowledge.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::http;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Settings by their number.
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;

/// Error codes.
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame that came.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM, or of GOAWAY.
    pub(crate) fn error_code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// A value of SETTINGS.
    pub(crate) fn setting(&self, number: u16) -> Option<u32> {
        let mut settings = self.payload.chunks(6).filter(|setting| setting[..2] == number.to_be_bytes());
        settings.next().map(|setting| u32::from_be_bytes(setting[2..].try_into().unwrap()))
    }
}

/// A connection of HTTP/2.
pub(crate) struct Connection(pub(crate) TcpStream);

impl Connection {
    /// Opens it with these settings of the client.
    pub(crate) fn open(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut connection = Self(http::connect(address));
        connection.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let pairs = settings.iter().flat_map(|(number, value)| {
            number.to_be_bytes().into_iter().chain(value.to_be_bytes()).collect::<Vec<_>>()
        });
        connection.send(&frame(SETTINGS, 0, 0, &pairs.collect::<Vec<_>>())).unwrap();
        connection
    }

    /// Sends bytes, which may be several frames.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Receives the next frame; `None` at the end of the connection. Panics if nothing comes for
    /// long.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        if let Err(error) = self.0.read_exact(&mut head) {
            assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "the connection is still open");
            return None;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some(Frame { kind: head[3], stream, payload })
    }

    /// Receives until a frame of this kind. Panics if the connection ends before it.
    #[track_caller]
    pub(crate) fn receive_kind(&mut self, kind: u8) -> Frame {
        std::iter::from_fn(|| self.receive()).find(|frame| frame.kind == kind).expect("a frame of this kind")
    }
}

/// Writes a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Writes the fields of a request, each a literal that is not indexed (RFC 7541 6.2.2).
pub(crate) fn fields(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let own = [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path)];
    let mut bytes = Vec::new();
    for (name, value) in own.iter().chain(more) {
        bytes.push(0);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// Writes a length in seven bits and more (RFC 7541 5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        return bytes.push(u8::try_from(length).unwrap());
    };
    bytes.push(127);
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// Writes the head of a request.
pub(crate) fn head(stream: u32, flags: u8, method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &fields(method, path, more))
}
