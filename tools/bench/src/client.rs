//! A DIMSE client that costs little beside the node that it measures.
//!
//! dicom-ul opens the association. Whole messages are encoded beforehand and go out in one write.
//! Of a response the client reads the status and nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use clap::Args;
use dicom_ul::association::client::{ClientAssociation, ClientAssociationOptions};

use crate::header::element;

/// The largest PDU that we offer to receive.
pub const MAX_PDU: u32 = 128 * 1024;
/// A benchmark whose peer is silent for so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);
const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";

/// Which node is measured.
#[derive(Clone, Debug, Args)]
pub struct Node {
    /// Host and port of the node.
    #[arg(long, default_value = "127.0.0.1:11112")]
    pub to: String,
    /// AE title of the node.
    #[arg(long, default_value = "DCMDEX")]
    pub called: String,
}

/// An open association.
pub struct Client {
    association: ClientAssociation<TcpStream>,
    received: Vec<u8>,
    consumed: usize,
    quick_ack: bool,
}

/// What a response message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// (0000,0900) Status.
    pub status: u16,
}

impl Response {
    /// FF00 and FF01: a match, more to come (PS3.4 C.4.1.1.4).
    pub fn is_pending(self) -> bool {
        matches!(self.status, 0xFF00 | 0xFF01)
    }
}

impl Client {
    /// Associates with a node, one presentation context for each of `abstract_syntaxes`.
    ///
    /// With `quick_ack` it acknowledges each segment at once. Common senders do not. A node that
    /// writes a response in two pieces under Nagle's algorithm then waits 40 ms for each response.
    /// So both ways are measured.
    pub fn open(Node { to, called }: &Node, abstract_syntaxes: &[&str], quick_ack: bool) -> Self {
        let mut options = ClientAssociationOptions::new()
            .calling_ae_title("BENCH")
            .called_ae_title(called.as_str())
            .max_pdu_length(MAX_PDU)
            .read_timeout(PATIENCE)
            .write_timeout(PATIENCE);
        for &syntax in abstract_syntaxes {
            options = options.with_presentation_context(syntax.to_owned(), vec![EXPLICIT_LE.to_owned()]);
        }
        let mut association =
            options.establish(to).unwrap_or_else(|error| panic!("no association with {called} at {to}: {error}"));
        association.inner_stream().set_nodelay(true).expect("a connected socket takes TCP_NODELAY");
        Self { association, received: Vec::new(), consumed: 0, quick_ack }
    }

    /// The identifier of the presentation context number `index`, in the order of [`Client::open`].
    pub fn context(&self, index: usize) -> u8 {
        let id = u8::try_from(index * 2 + 1).expect("at most 128 presentation contexts");
        assert!(
            self.association.presentation_contexts().iter().any(|context| context.id == id),
            "the node refused presentation context {id}"
        );
        id
    }

    /// The length that the variable field of a PDU to the node may have.
    pub fn max_pdu(&self) -> usize {
        match self.association.acceptor_max_pdu_length() as usize {
            0 => MAX_PDU as usize, // no limit
            most => most.min(1 << 20),
        }
    }

    /// Sends PDUs as they are.
    pub fn send(&mut self, pdus: &[u8]) {
        self.association.inner_stream().write_all(pdus).expect("the node takes the message");
    }

    /// Waits for the next response message and passes over its data set.
    pub fn receive(&mut self) -> Response {
        let mut command = Vec::new();
        let mut response = None;
        loop {
            let pdu = self.pdu();
            let mut rest = pdu.as_slice();
            while let Some((length, after)) = rest.split_first_chunk() {
                let length = u32::from_be_bytes(*length) as usize;
                let (pdv, after) = after.split_at(length);
                rest = after;
                let (control, fragment) = (pdv[1], &pdv[2..]);
                let (is_command, is_last) = (control & 1 == 1, control & 2 == 2);
                if is_command {
                    command.extend_from_slice(fragment);
                }
                if !is_last {
                    continue;
                }
                if !is_command {
                    return response.expect("a command comes before its data set");
                }
                let status = number(&command, 0x0900).expect("a response has a status");
                response = Some(Response { status });
                if number(&command, 0x0800) == Some(0x0101) {
                    return Response { status };
                }
            }
        }
    }

    /// Ends the association as it should end.
    pub fn release(self) {
        self.association.release().expect("the node answers the release");
    }

    /// The variable field of the next P-DATA-TF PDU.
    fn pdu(&mut self) -> Vec<u8> {
        loop {
            let rest = &self.received[self.consumed..];
            if let Some(header) = rest.first_chunk::<6>() {
                assert_eq!(header[0], 0x04, "the node sent a PDU that is not P-DATA-TF");
                let length = u32::from_be_bytes([header[2], header[3], header[4], header[5]]) as usize;
                if let Some(body) = rest.get(6..6 + length) {
                    let body = body.to_vec();
                    self.consumed += 6 + length;
                    return body;
                }
            }
            self.received.drain(..self.consumed);
            self.consumed = 0;
            if self.quick_ack {
                // The kernel forgets it after a while: set again before each read.
                rustix::net::sockopt::set_tcp_quickack(self.association.inner_stream(), true)
                    .expect("a connected socket takes TCP_QUICKACK");
            }
            let filled = self.received.len();
            self.received.resize(filled + 64 * 1024, 0);
            let count = self.association.inner_stream().read(&mut self.received[filled..]).expect("the node answers");
            assert!(count > 0, "the node closed the connection");
            self.received.truncate(filled + count);
        }
    }
}

/// The unsigned short (0000,`wanted`) of a command set (PS3.7 6.3.1: implicit little endian).
pub fn number(command: &[u8], wanted: u16) -> Option<u16> {
    let mut rest = command;
    loop {
        let (header, after) = rest.split_first_chunk::<8>()?;
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let (value, after) = after.split_at_checked(length)?;
        if u16::from_le_bytes([header[2], header[3]]) == wanted {
            return value.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
        }
        rest = after;
    }
}

/// A command set with its group length; `elements` in ascending order.
pub fn command(elements: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for &(number, value) in elements {
        // Only UIDs are odd in length here, and "UI" pads with a zero byte.
        element(&mut body, false, u32::from(number), "UI", value);
    }
    let mut whole = Vec::new();
    element(&mut whole, false, 0, "UL", &(body.len() as u32).to_le_bytes());
    whole.extend_from_slice(&body);
    whole
}

/// Appends a command or a data set (or a part of one) as PDUs of one PDV each.
pub fn pdus(out: &mut Vec<u8>, context: u8, max_pdu: usize, kind: Kind, bytes: &[u8]) {
    let mut chunks = bytes.chunks(max_pdu - 6).peekable();
    while let Some(chunk) = chunks.next() {
        let last = kind.ends_message && chunks.peek().is_none();
        out.extend_from_slice(&[0x04, 0]);
        out.extend_from_slice(&(chunk.len() as u32 + 6).to_be_bytes());
        out.extend_from_slice(&(chunk.len() as u32 + 2).to_be_bytes());
        out.extend_from_slice(&[context, u8::from(kind.is_command) | u8::from(last) << 1]);
        out.extend_from_slice(chunk);
    }
}

/// The message control header of [`pdus`] (PS3.8 E.2).
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The PDVs hold a command set, not a data set.
    pub is_command: bool,
    /// The last PDV is marked as the last of its command or data set.
    pub ends_message: bool,
}

/// A whole command set.
pub const COMMAND: Kind = Kind { is_command: true, ends_message: true };
/// A data set to its end.
pub const DATA_SET: Kind = Kind { is_command: false, ends_message: true };

/// The value at `percent` of the sorted `times`, in milliseconds.
pub fn percentile(times: &[Duration], percent: usize) -> f64 {
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}
