//! PDUs over a TCP connection (PS3.8 9.1, 9.3). Every length is compared with a limit before memory
//! is taken, every wait has an end, and small answers go out at once.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use dicom_ul::pdu::{Pdu, write_pdu};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsStream;

use crate::dimse::pdata::{P_DATA_TF, PDU_HEADER_LENGTH, PDV_HEADER_LENGTH, PDataError, Pdv, PdvHeader};
use crate::shares::{PeerMemory, Share};
use crate::ul::stream::AcknowledgesAtOnce;
use crate::ul::stream::Stream;
use crate::ul::stream::acknowledge_at_once;

/// The Maximum Length that this node offers, in bytes (PS3.8 D.1). Larger PDUs save nothing
/// measurable, and each association buffers one.
pub const OFFERED_MAX_LENGTH: u32 = 128 * 1024;

/// Maximum length of an A-ASSOCIATE-RQ after the PDU header, in bytes. 128 presentation contexts
/// with ten transfer syntaxes each take some 50 KiB.
pub const MAX_ASSOCIATE_RQ_LENGTH: u32 = 256 * 1024;

const A_ASSOCIATE_RQ: u8 = 0x01;
const A_ASSOCIATE_AC: u8 = 0x02;
const A_ASSOCIATE_RJ: u8 = 0x03;
const A_RELEASE_RQ: u8 = 0x05;
const A_RELEASE_RP: u8 = 0x06;
const A_ABORT: u8 = 0x07;

/// Length of the body of A-ASSOCIATE-RJ, A-RELEASE-RQ, A-RELEASE-RP and A-ABORT, in bytes (PS3.8
/// 9.3.4, 9.3.6 to 9.3.8).
const SHORT_BODY_LENGTH: u32 = 4;

/// Initial buffer of a connection. It suffices for a usual A-ASSOCIATE-RQ or command. Silent
/// connections cost no more than this. A declared length alone takes no memory.
const FIRST_BUFFER_LENGTH: usize = 8 * 1024;

/// Bytes of a buffer that are not counted. A larger one is counted for its peer. Commands and
/// queries have some hundreds.
pub(crate) const UNASKED_LENGTH: usize = 16 * 1024;

/// Maximum buffer for P-DATA-TF. Its content is handed on as it comes, so it only holds what comes
/// meanwhile. Larger: fewer system calls. Smaller: less memory for each sender.
const MAX_BUFFER_LENGTH: usize = OFFERED_MAX_LENGTH as usize + PDU_HEADER_LENGTH;

/// Time for which a connection keeps a buffer that has grown while nothing arrives. Peers stay
/// associated for hours between two objects.
const KEEP_BUFFER: Duration = Duration::from_secs(1);

/// Interval of the moments at which such buffers are released. All connections share these moments.
/// A wait that would end before all others wakes the thread that keeps the time. With an end of its
/// own, each object did that, which cost a tenth of the rate of small objects.
fn keep_until() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    const TICK: Duration = Duration::from_millis(250);
    let start = *START.get_or_init(Instant::now);
    let ticks = (start.elapsed() + KEEP_BUFFER).as_millis() / TICK.as_millis() + 1;
    start + TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// Maximum bytes that are read and dropped before closing (see [`PduReader::drain`]).
const MAX_DRAINED: usize = 1024 * 1024;

/// PDU, or part of one, that arrived from the peer.
#[derive(Debug)]
pub(crate) enum IncomingPdu<'a> {
    /// The body of an A-ASSOCIATE-RQ.
    AssociateRequest(&'a [u8]),
    /// A presentation data value of a P-DATA-TF, or the next part of one. It has as much as has
    /// arrived.
    Pdv(Pdv<'a>),
    /// An A-RELEASE-RQ.
    ReleaseRequest,
    /// An A-RELEASE-RP.
    ReleaseResponse,
    /// An A-ABORT.
    Abort {
        /// 0 service user, 2 service provider (PS3.8 table 9-26).
        source: u8,
        /// The reason. It is significant for source 2.
        reason: u8,
    },
    /// The body of an A-ASSOCIATE-AC.
    AssociateAccept(&'a [u8]),
    /// The body of an A-ASSOCIATE-RJ.
    AssociateReject(&'a [u8]),
}

/// The reason why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The peer closed the connection between two PDUs.
    #[error("connection closed by the peer")]
    Closed,
    /// The peer closed the connection inside a PDU.
    #[error("connection closed by the peer inside a PDU")]
    ClosedInsidePdu,
    /// The connection broke.
    #[error("connection lost")]
    Connection(#[source] io::Error),
    /// Nothing arrived in time.
    #[error("nothing received in time")]
    Silence,
    /// A PDU began and did not end in time.
    #[error("PDU not complete in time")]
    SlowPdu,
    /// There is no memory for a PDU that must be complete: its peer has all that it may have.
    #[error("not enough memory for a PDU of this length at the moment")]
    NoMemory,
    /// PS3.8 9.3.1 has no such PDU type.
    #[error("PDU of unknown type {:02X}H{}", .0, other_protocol(*.0))]
    UnknownPdu(u8),
    /// It is longer than its type allows. A PDU of fixed length has another length.
    #[error("PDU of type {kind:02X}H with length {length}")]
    BadLength {
        /// PDU type.
        kind: u8,
        /// The length in its header.
        length: u32,
    },
    /// The lengths of the presentation data values do not fit the P-DATA-TF.
    #[error(transparent)]
    PData(#[from] PDataError),
}

/// Whether a record of TLS begins with this byte: an alert or a handshake (RFC 8446 5.1).
pub(crate) const fn begins_tls(first: u8) -> bool {
    matches!(first, 0x15 | 0x16)
}

/// Returns the protocol that begins with this byte, if it is a well-known one.
fn other_protocol(first: u8) -> &'static str {
    match first {
        first if begins_tls(first) => ": the other side speaks TLS, and this side does not",
        b'G' | b'H' | b'P' => ": the other side speaks HTTP",
        _ => "",
    }
}

/// Time limits of one wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// Time for the first byte of the next PDU. `None` means no limit.
    pub(crate) first_byte: Option<Duration>,
    /// Time for the rest of the PDU, and for the peer to take what is sent.
    pub(crate) rest: Duration,
}

#[derive(Debug)]
enum PduReadHalf {
    Plain(OwnedReadHalf),
    Tls(ReadHalf<TlsStream<AcknowledgesAtOnce>>),
}

#[derive(Debug)]
enum PduWriteHalf {
    Plain(OwnedWriteHalf),
    Tls(WriteHalf<TlsStream<AcknowledgesAtOnce>>),
}

impl PduReadHalf {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => {
                acknowledge_at_once(socket.as_ref());
                socket.read(buffer).await
            }
            Self::Tls(stream) => match stream.read(buffer).await {
                // The TLS closing message is not required. A message has its own end, so nothing
                // can be cut off unnoticed.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                read => read,
            },
        }
    }
}

impl PduWriteHalf {
    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                // Encrypted data may still wait to be sent.
                stream.flush().await
            }
        }
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
        }
    }
}

/// The reading half of a connection.
#[derive(Debug)]
pub(crate) struct PduReader {
    socket: PduReadHalf,
    buffer: Vec<u8>,
    /// Received and not consumed: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Rest of the current P-DATA-TF in bytes, received or not.
    pdata_left: usize,
    /// The current presentation data value, with the length of its rest.
    pdv: Option<PdvHeader>,
    /// Deadline of the current PDU.
    deadline: Option<Instant>,
    /// Start of the time in which this node works on a part of it. That time is not the peer's.
    handed_over: Option<Instant>,
    /// Whether the last read filled the buffer. More bytes may be waiting then.
    was_filled: bool,
    /// The memory of the peer. Without it, the buffer does not grow beyond what is necessary.
    memory: Option<PeerMemory>,
    /// The part of that memory that the buffer has.
    share: Option<Share>,
    bytes_received: u64,
}

/// The writing half of a connection.
#[derive(Debug)]
pub(crate) struct PduWriter {
    socket: PduWriteHalf,
    time_limit: Duration,
    bytes_sent: u64,
}

/// Splits a connection into a reader and a writer of PDUs.
pub(crate) fn split(stream: Stream, write_time_limit: Duration) -> (PduReader, PduWriter) {
    let socket = match &stream {
        Stream::Plain(socket) => socket,
        Stream::Tls(stream) => &stream.get_ref().0.0,
    };
    // A response is one write, and waiting for a full segment would only delay it. Without this,
    // DCMTK senders see 11 instances/s on loopback.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    let (reader, writer) = match stream {
        Stream::Plain(socket) => {
            let (reader, writer) = socket.into_split();
            (PduReadHalf::Plain(reader), PduWriteHalf::Plain(writer))
        }
        Stream::Tls(stream) => {
            let (reader, writer) = tokio::io::split(*stream);
            (PduReadHalf::Tls(reader), PduWriteHalf::Tls(writer))
        }
    };
    let reader = PduReader {
        socket: reader,
        buffer: Vec::new(),
        start: 0,
        end: 0,
        pdata_left: 0,
        pdv: None,
        deadline: None,
        handed_over: None,
        was_filled: false,
        memory: None,
        share: None,
        bytes_received: 0,
    };
    (reader, PduWriter { socket: writer, time_limit: write_time_limit, bytes_sent: 0 })
}

impl PduReader {
    /// Returns the number of bytes received so far, headers included.
    pub(crate) fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    /// Counts larger buffers for this peer from now on.
    pub(crate) fn count_for(&mut self, memory: PeerMemory) {
        // The present share belongs to somebody else.
        self.share = None;
        self.memory = Some(memory);
    }

    /// Returns the next PDU, or the next part of the current P-DATA-TF.
    ///
    /// Nothing is lost if the future is dropped before it is ready: received bytes stay in the
    /// buffer.
    pub(crate) async fn next(&mut self, timeouts: Timeouts) -> Result<IncomingPdu<'_>, ReadError> {
        if let (Some(since), Some(deadline)) = (self.handed_over.take(), &mut self.deadline) {
            *deadline += since.elapsed();
        }
        loop {
            if self.pdata_left > 0 {
                return self.next_part().await;
            }
            let (kind, length) = self.header(timeouts).await?;
            self.start += PDU_HEADER_LENGTH;
            if kind == P_DATA_TF {
                // An empty P-DATA-TF carries nothing, so the next PDU follows.
                self.pdata_left = length;
                continue;
            }
            let body = self.start..self.start + length;
            self.start = body.end;
            let body = &self.buffer[body];
            return Ok(match (kind, body) {
                (A_ASSOCIATE_RQ, body) => IncomingPdu::AssociateRequest(body),
                (A_RELEASE_RQ, _) => IncomingPdu::ReleaseRequest,
                (A_RELEASE_RP, _) => IncomingPdu::ReleaseResponse,
                (A_ABORT, &[_, _, source, reason]) => IncomingPdu::Abort { source, reason },
                (A_ASSOCIATE_AC, body) => IncomingPdu::AssociateAccept(body),
                (A_ASSOCIATE_RJ, body) => IncomingPdu::AssociateReject(body),
                // The header was checked, so there are no other types.
                (kind, _) => return Err(ReadError::UnknownPdu(kind)),
            });
        }
    }

    /// Returns what has arrived of the current presentation data value, or of the next one. The
    /// length of a P-DATA-TF takes no memory, because it need not be complete.
    async fn next_part(&mut self) -> Result<IncomingPdu<'_>, ReadError> {
        let header = match self.pdv {
            Some(header) => header,
            None => {
                if self.pdata_left < PDV_HEADER_LENGTH {
                    return Err(PDataError::TruncatedPdv.into());
                }
                let header = loop {
                    if let Some(header) = self.buffer[self.start..self.end].first_chunk::<PDV_HEADER_LENGTH>() {
                        break PdvHeader::parse(*header, self.pdata_left)?;
                    }
                    self.fill(PDV_HEADER_LENGTH, self.deadline, true).await?;
                };
                self.start += PDV_HEADER_LENGTH;
                self.pdata_left -= PDV_HEADER_LENGTH;
                *self.pdv.insert(header)
            }
        };
        if header.length > 0 && self.start == self.end {
            self.fill(1, self.deadline, true).await?;
        }
        let part = self.start..self.start + header.length.min(self.end - self.start);
        self.start = part.end;
        self.pdata_left -= part.len();
        // The peer must not pay for a disk that is slow while the peer waits.
        self.handed_over = (self.pdata_left > 0).then(Instant::now);
        let is_whole = part.len() == header.length;
        self.pdv = (!is_whole).then_some(PdvHeader { length: header.length - part.len(), ..header });
        let PdvHeader { context_id, kind, is_last, .. } = header;
        Ok(IncomingPdu::Pdv(Pdv { context_id, kind, is_last: is_last && is_whole, fragment: &self.buffer[part] }))
    }

    /// Waits until the buffer has a complete PDU, or the header of a P-DATA-TF. Returns its type
    /// and the length of its body.
    async fn header(&mut self, timeouts: Timeouts) -> Result<(u8, usize), ReadError> {
        let mut wanted = PDU_HEADER_LENGTH;
        let mut deadline = timeouts.first_byte.map(|time_limit| Instant::now() + time_limit);
        let mut begun = false;
        loop {
            let received = &self.buffer[self.start..self.end];
            if !begun && !received.is_empty() {
                begun = true;
                deadline = Some(Instant::now() + timeouts.rest);
                self.deadline = deadline;
            }
            if let Some(header) = received.first_chunk::<PDU_HEADER_LENGTH>() {
                let (kind, length) = checked_header(*header)?;
                wanted = PDU_HEADER_LENGTH + if kind == P_DATA_TF { 0 } else { length };
                if received.len() >= wanted {
                    return Ok((kind, length));
                }
            } else if let Some(&kind) = received.first() {
                // An unknown type is refused at once. Another protocol may never send the rest of a
                // header.
                max_length(kind)?;
            }
            self.fill(wanted, deadline, begun).await?;
        }
    }

    /// Receives more bytes. `wanted` bytes have to be in the buffer at once, and some of them are
    /// missing.
    async fn fill(&mut self, wanted: usize, deadline: Option<Instant>, begun: bool) -> Result<(), ReadError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start > 0 && self.buffer.len() - self.start < wanted {
            self.move_to_front();
        }
        self.give_up_what_is_not_counted();
        self.make_room(wanted)?;
        let is_loose = self.buffer.len() > FIRST_BUFFER_LENGTH.max(2 * (self.end - self.start));
        let keep_until = is_loose.then(keep_until);
        let keep_until = keep_until.filter(|until| deadline.is_none_or(|deadline| *until < deadline));
        let read = self.socket.read(&mut self.buffer[self.end..]);
        let result = match keep_until.or(deadline) {
            Some(until) => match timeout_at(until, read).await {
                Ok(result) => result,
                Err(_) if keep_until.is_some() => {
                    self.move_to_front();
                    // The buffer gets room for what has arrived, and for as much again. It gets
                    // none if nothing has arrived.
                    let length = if self.end == 0 { 0 } else { FIRST_BUFFER_LENGTH.max(2 * self.end) };
                    self.buffer.truncate(length);
                    self.buffer.shrink_to_fit();
                    if length <= UNASKED_LENGTH {
                        self.share = None;
                    }
                    return Ok(());
                }
                Err(_) => return Err(if begun { ReadError::SlowPdu } else { ReadError::Silence }),
            },
            None => read.await,
        };
        match result {
            Ok(0) if begun => Err(ReadError::ClosedInsidePdu),
            Ok(0) => Err(ReadError::Closed),
            Ok(count) => {
                self.end += count;
                self.was_filled = self.end == self.buffer.len();
                self.bytes_received += count as u64;
                Ok(())
            }
            Err(error) => Err(ReadError::Connection(error)),
        }
    }

    /// Makes room in the buffer. For bytes that must be complete, the buffer doubles whenever it is
    /// full. It grows further if the peer sends faster than this node reads and may have the
    /// memory.
    fn make_room(&mut self, wanted: usize) -> Result<(), ReadError> {
        let length = self.buffer.len();
        if self.end == length {
            let needed = wanted.min(2 * self.end).max(FIRST_BUFFER_LENGTH);
            if needed > length {
                if !self.may_have(needed) {
                    return Err(ReadError::NoMemory);
                }
                self.resize(needed);
            }
        } else if self.was_filled && self.end == 0 && self.memory.is_some() {
            let wished = (2 * length).clamp(FIRST_BUFFER_LENGTH, MAX_BUFFER_LENGTH);
            if wished > length && self.may_have(wished) {
                self.resize(wished);
            }
        }
        self.was_filled = false;
        Ok(())
    }

    /// Shrinks a buffer that was counted for somebody else, even if its peer sends without a pause.
    fn give_up_what_is_not_counted(&mut self) {
        let length = FIRST_BUFFER_LENGTH.max(2 * (self.end - self.start));
        let is_counted = self.share.is_some() || self.memory.is_none();
        if !is_counted && self.buffer.len() > UNASKED_LENGTH.max(length) {
            self.move_to_front();
            self.buffer.truncate(length);
            self.buffer.shrink_to_fit();
        }
    }

    fn resize(&mut self, length: usize) {
        self.buffer.reserve_exact(length.saturating_sub(self.buffer.len()));
        self.buffer.resize(length, 0);
    }

    /// Whether the peer may have a buffer of this length.
    fn may_have(&mut self, length: usize) -> bool {
        let asked = length.saturating_sub(UNASKED_LENGTH);
        let Some(memory) = &self.memory else { return true };
        match &mut self.share {
            _ if asked == 0 => true,
            Some(share) => share.grow(asked.saturating_sub(share.count())),
            none => {
                *none = memory.take(asked);
                none.is_some()
            }
        }
    }

    fn move_to_front(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
    }

    /// After the last PDU of this node, reads and drops what the peer still sends. Ends when the
    /// peer closes the connection or the time is over (PS3.8 9.2.3, Sta13). If unread bytes were
    /// left at closing, TCP would discard the PDU just sent.
    pub(crate) async fn drain(&mut self, time_limit: Duration) {
        self.buffer.resize(FIRST_BUFFER_LENGTH, 0);
        let mut drained = 0;
        let drain = async {
            while drained < MAX_DRAINED {
                match self.socket.read(&mut self.buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => drained += count,
                }
            }
        };
        // Whether or not the peer closed in time, the connection is closed next.
        let _ = timeout(time_limit, drain).await;
    }
}

impl PduWriter {
    /// Returns the number of bytes sent so far, headers included.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Sends bytes as one write.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes_sent += bytes.len() as u64;
        match timeout(self.time_limit, self.socket.write_all(bytes)).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")),
        }
    }

    /// From now on, drops what the kernel does not take at once.
    pub(crate) fn wait_no_more(&mut self) {
        self.time_limit = Duration::ZERO;
    }

    /// Sends a PDU of dicom-ul.
    pub(crate) async fn send_pdu(&mut self, pdu: &Pdu) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(64);
        write_pdu(&mut bytes, pdu).map_err(io::Error::other)?;
        self.send(&bytes).await
    }

    /// Ends sending.
    pub(crate) async fn close(&mut self) {
        // The peer may have closed already, or may not take the TLS closing message in time. Both
        // do no harm.
        let _ = timeout(self.time_limit, self.socket.shutdown()).await;
    }
}

fn checked_header(header: [u8; PDU_HEADER_LENGTH]) -> Result<(u8, usize), ReadError> {
    let [kind, _reserved, l0, l1, l2, l3] = header;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    let error = ReadError::BadLength { kind, length };
    let short = matches!(kind, A_ASSOCIATE_RJ | A_RELEASE_RQ | A_RELEASE_RP | A_ABORT);
    if length > max_length(kind)? || (short && length != SHORT_BODY_LENGTH) {
        return Err(error);
    }
    usize::try_from(length).map(|length| (kind, length)).map_err(|_| error)
}

/// Returns the maximum length of the body of a PDU of this type.
fn max_length(kind: u8) -> Result<u32, ReadError> {
    match kind {
        A_ASSOCIATE_RQ | A_ASSOCIATE_AC => Ok(MAX_ASSOCIATE_RQ_LENGTH),
        P_DATA_TF => Ok(OFFERED_MAX_LENGTH),
        A_ASSOCIATE_RJ | A_RELEASE_RQ | A_RELEASE_RP | A_ABORT => Ok(SHORT_BODY_LENGTH),
        _ => Err(ReadError::UnknownPdu(kind)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;

    use super::*;
    use crate::model::peer::CountedAs;
    use crate::shares::Shares;
    use tokio::net::TcpStream;

    /// A peer, and our side of its connection.
    async fn connected(time_limit: Duration) -> (TcpStream, PduReader, PduWriter) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let (reader, writer) = split(Stream::Plain(accepted), time_limit);
        (peer, reader, writer)
    }

    /// A P-DATA-TF of one fragment, the last of a data set.
    fn data_pdu(fragment: &[u8]) -> Vec<u8> {
        let length = u32::try_from(fragment.len()).unwrap();
        let mut pdu = vec![P_DATA_TF, 0];
        pdu.extend((length + 6).to_be_bytes());
        pdu.extend((length + 2).to_be_bytes());
        pdu.extend([1, 2]);
        pdu.extend(fragment);
        pdu
    }

    #[tokio::test]
    async fn what_we_do_with_a_part_is_not_counted_as_time_of_the_peer() {
        let (mut peer, mut reader, _writer) = connected(Duration::from_secs(60)).await;
        let timeouts = Timeouts { first_byte: Some(Duration::from_secs(60)), rest: Duration::from_secs(60) };
        let pdu = data_pdu(&[7; 100]);
        let (first, second) = pdu.split_at(50);
        peer.write_all(first).await.unwrap();
        assert!(matches!(reader.next(timeouts).await, Ok(IncomingPdu::Pdv(_))));
        // A disk that answers after two minutes. The peer can send the rest once there is room for
        // it.
        reader.handed_over = reader.handed_over.and_then(|since| since.checked_sub(Duration::from_secs(120)));
        reader.deadline = reader.deadline.and_then(|deadline| deadline.checked_sub(Duration::from_secs(120)));
        let mut rest = Box::pin(reader.next(timeouts));
        tokio::select! {
            biased;
            early = &mut rest => panic!("{early:?}"),
            () = std::future::ready(()) => {}
        }
        peer.write_all(second).await.unwrap();
        assert!(matches!(rest.await, Ok(IncomingPdu::Pdv(Pdv { is_last: true, .. }))));
    }

    /// Bytes that a peer declares for its A-ASSOCIATE-RQ are counted for its address, and
    /// afterwards for nobody.
    #[tokio::test]
    async fn what_a_long_request_took_is_given_back_with_the_association() {
        let (mut peer, mut reader, _writer) = connected(Duration::from_secs(60)).await;
        let memory = Shares::new(1 << 20, 0, &crate::telemetry::metrics::MEMORY_REFUSED);
        let of = |number| PeerMemory::new(&memory, &Arc::new(CountedAs::address([127, 0, 0, number].into())));
        reader.count_for(of(1));
        let timeouts = Timeouts { first_byte: Some(Duration::from_secs(60)), rest: Duration::from_secs(60) };
        let length = MAX_ASSOCIATE_RQ_LENGTH;
        let request = [&[A_ASSOCIATE_RQ, 0], &length.to_be_bytes()[..], &vec![0; length as usize]].concat();
        let sending = tokio::spawn(async move {
            peer.write_all(&request).await.unwrap();
            peer
        });
        assert!(matches!(reader.next(timeouts).await, Ok(IncomingPdu::AssociateRequest(_))));
        let mut peer = sending.await.unwrap();
        assert!(reader.buffer.len() >= length as usize);
        reader.count_for(of(2));
        // A peer that goes on sending, a little each time.
        for _ in 0..3 {
            peer.write_all(&data_pdu(b"ab")).await.unwrap();
            assert!(matches!(reader.next(timeouts).await, Ok(IncomingPdu::Pdv(_))));
            assert!(reader.buffer.capacity() <= UNASKED_LENGTH, "{}", reader.buffer.capacity());
        }
    }

    #[test]
    fn a_buffer_that_has_grown_is_given_back_when_nothing_comes_any_more() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut peer, mut reader, _writer) = connected(Duration::from_secs(60)).await;
            let memory = Shares::new(1 << 20, 0, &crate::telemetry::metrics::MEMORY_REFUSED);
            reader.count_for(PeerMemory::new(&memory, &Arc::new(CountedAs::address([127, 0, 0, 1].into()))));
            let timeouts = |first_byte| Timeouts { first_byte: Some(first_byte), rest: Duration::from_secs(60) };
            let fragment = vec![7; 100_000];
            let pdu = data_pdu(&fragment);
            for _ in 0..2 {
                let send = async { peer.write_all(&pdu).await.unwrap() };
                let receive =
                    async { assert!(whole(&mut reader, timeouts(Duration::from_secs(60))).await == fragment) };
                tokio::join!(send, receive);
                assert!(reader.buffer.len() > FIRST_BUFFER_LENGTH);
                // The wait for the next message goes on with a small one, and has the end that it
                // should.
                assert!(matches!(reader.next(timeouts(KEEP_BUFFER * 3 / 2)).await, Err(ReadError::Silence)));
                assert!(reader.buffer.len() <= FIRST_BUFFER_LENGTH && reader.share.is_none());
            }
        });
    }

    #[test]
    fn a_peer_that_takes_nothing_is_not_waited_for_where_there_is_no_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // A test that waited as long would never end.
            let (mut peer, _reader, mut writer) = connected(Duration::from_hours(24)).await;
            writer.wait_no_more();
            // What the kernel takes goes out all the same.
            writer.send_pdu(&Pdu::ReleaseRP).await.unwrap();
            assert_eq!(peer.read_u8().await.unwrap(), A_RELEASE_RP);
            let error = loop {
                if let Err(error) = writer.send(&[0; 64 << 10]).await {
                    break error;
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            writer.close().await;
        });
    }

    #[test]
    fn a_length_that_was_only_declared_takes_no_memory() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut peer, mut reader, _writer) = connected(Duration::from_secs(60)).await;
            let timeouts = Timeouts { first_byte: Some(Duration::from_secs(60)), rest: Duration::from_secs(60) };
            let content: Vec<u8> = (0..OFFERED_MAX_LENGTH - 6).map(|at| at as u8).collect();
            let pdu = data_pdu(&content);
            assert_eq!(pdu.len(), 6 + OFFERED_MAX_LENGTH as usize);
            // A few bytes at a time: each part comes as it is sent, and the buffer stays as it was.
            let mut received = Vec::new();
            let mut sent = 0;
            for part in pdu.chunks(3_000) {
                peer.write_all(part).await.unwrap();
                sent += part.len();
                while received.len() + PDU_HEADER_LENGTH + PDV_HEADER_LENGTH < sent {
                    match reader.next(timeouts).await {
                        Ok(IncomingPdu::Pdv(pdv)) => received.extend_from_slice(pdv.fragment),
                        other => panic!("{other:?}"),
                    }
                }
                assert!(reader.buffer.capacity() <= UNASKED_LENGTH, "{}", reader.buffer.capacity());
            }
            assert!(received == content);
            // The beginning of the next one, and then nothing.
            peer.write_all(&pdu[..6]).await.unwrap();
            let short = Timeouts { first_byte: Some(Duration::from_secs(60)), rest: KEEP_BUFFER / 4 };
            assert!(matches!(reader.next(short).await, Err(ReadError::SlowPdu)));
        });
    }

    #[test]
    fn what_the_peer_may_not_have_is_received_with_a_small_buffer() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let timeouts = Timeouts { first_byte: Some(Duration::from_secs(60)), rest: Duration::from_secs(60) };
            for (memory, most) in [(0, UNASKED_LENGTH), (1 << 20, MAX_BUFFER_LENGTH)] {
                let (mut peer, mut reader, _writer) = connected(Duration::from_secs(60)).await;
                let memory = Shares::new(memory, 0, &crate::telemetry::metrics::MEMORY_REFUSED);
                reader.count_for(PeerMemory::new(&memory, &Arc::new(CountedAs::address([127, 0, 0, 1].into()))));
                let fragment = vec![7; 100_000];
                let pdu = data_pdu(&fragment);
                let send = async {
                    for _ in 0..20 {
                        peer.write_all(&pdu).await.unwrap();
                    }
                    // What has to be there whole is refused, where there is no memory for it.
                    peer.write_all(&[A_ASSOCIATE_RQ, 0, 0, 1, 0, 0]).await.unwrap();
                    peer.write_all(&[0; 1 << 16]).await.unwrap();
                };
                let receive = async {
                    for _ in 0..20 {
                        assert!(whole(&mut reader, timeouts).await == fragment);
                        assert!(reader.buffer.capacity() <= most, "{}", reader.buffer.capacity());
                    }
                    match reader.next(timeouts).await {
                        Ok(IncomingPdu::AssociateRequest(body)) => {
                            assert!(most > UNASKED_LENGTH && body.len() == 1 << 16)
                        }
                        Err(ReadError::NoMemory) => assert_eq!(most, UNASKED_LENGTH),
                        other => panic!("{other:?}"),
                    }
                };
                tokio::join!(send, receive);
                drop(reader);
                assert_eq!(
                    memory.take(&Arc::new(CountedAs::address([127, 0, 0, 2].into())), 1).is_some(),
                    most > UNASKED_LENGTH
                );
            }
        });
    }

    /// The fragment that the next parts make up.
    async fn whole(reader: &mut PduReader, timeouts: Timeouts) -> Vec<u8> {
        let mut fragment = Vec::new();
        loop {
            match reader.next(timeouts).await {
                Ok(IncomingPdu::Pdv(pdv)) => {
                    fragment.extend_from_slice(pdv.fragment);
                    if pdv.is_last {
                        return fragment;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
