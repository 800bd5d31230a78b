//! P-DATA-TF bodies and the messages in them (PS3.8 9.3.5 and annex E).
//!
//! Incoming: [`Pdv::split_first`] takes the presentation data values one after the other from the
//! body of a P-DATA-TF PDU. [`MessageAssembler`] gathers command fragments, and says to what each
//! data fragment belongs. Only the command is copied.
//!
//! Outgoing: [`put_message`] cuts a message to the PDU length that the peer accepts.

use super::command_set::{CommandSet, CommandSetError};

/// Maximum length of a command set, in bytes. The longest one that the Standard allows has some 700
/// bytes. More than this is an attack on memory.
pub const MAX_COMMAND_SET_LENGTH: usize = 16 * 1024;

/// PDU type of P-DATA-TF (PS3.8 9.3.5).
pub const P_DATA_TF: u8 = 0x04;

/// Length of PDU type, reserved byte and PDU length.
pub const PDU_HEADER_LENGTH: usize = 6;

/// Length of a presentation data value before its fragment: item length, presentation context ID,
/// message control header.
pub const PDV_HEADER_LENGTH: usize = 6;

/// Minimum Maximum Length of a peer: a PDV header and two bytes, because fragments have even
/// length.
pub const MIN_PEER_MAX_LENGTH: u32 = 8;

/// Maximum length of a PDU to a peer that sets no limit or a larger one. PS3.8 D.1: 0 "indicates
/// that no maximum length is specified".
pub const MAX_SENT_PDU_LENGTH: u32 = 128 * 1024;

const COMMAND_FRAGMENT: u8 = 0b01;
const LAST_FRAGMENT: u8 = 0b10;

/// The kind of message part that a fragment belongs to (PS3.8 E.2, bit 0 of the Message Control
/// Header).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentKind {
    /// A command set.
    Command,
    /// A data set.
    DataSet,
}

/// A presentation data value: one fragment of a message (PS3.8 9.3.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pdv<'a> {
    /// Presentation context ID.
    pub context_id: u8,
    /// The part of the message.
    pub kind: FragmentKind,
    /// Whether it is the last fragment of its command or data set.
    pub is_last: bool,
    /// The bytes.
    pub fragment: &'a [u8],
}

/// Reason why a P-DATA-TF body, or the sequence of its fragments, breaks PS3.8 annex E.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PDataError {
    /// The length of a presentation data value is shorter than its header or passes the end of the
    /// PDU.
    #[error("presentation data value of length {length} where {available} bytes are left")]
    BadPdvLength {
        /// The declared length.
        length: u32,
        /// Bytes left in the PDU.
        available: usize,
    },
    /// The PDU ends inside the header of a presentation data value.
    #[error("P-DATA-TF ends inside the header of a presentation data value")]
    TruncatedPdv,
    /// A command fragment came instead of the data set of the last command.
    #[error("command fragment inside a data set")]
    CommandInsideDataSet,
    /// A data set fragment came without a command that announces it.
    #[error("data set fragment without a command that announces it")]
    UnexpectedDataSet,
    /// A message has fragments in two presentation contexts.
    #[error("message of presentation context {expected} goes on in context {found}")]
    ContextChanged {
        /// The context in which it began.
        expected: u8,
        /// The context of the fragment.
        found: u8,
    },
    /// The command set is longer than [`MAX_COMMAND_SET_LENGTH`].
    #[error("command set longer than {MAX_COMMAND_SET_LENGTH} bytes")]
    CommandTooLong,
    /// The command set cannot be read.
    #[error("command set cannot be read")]
    Command(#[from] CommandSetError),
}

/// The header of a presentation data value (PS3.8 9.3.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PdvHeader {
    /// Presentation context ID.
    pub context_id: u8,
    /// The part of the message.
    pub kind: FragmentKind,
    /// Whether it is the last fragment of its command or data set.
    pub is_last: bool,
    /// Bytes of the fragment.
    pub length: usize,
}

impl PdvHeader {
    /// Reads the header of a presentation data value. `left` is the number of remaining bytes of
    /// the P-DATA-TF, header included.
    ///
    /// # Errors
    /// When its length is too short, or passes the end of the P-DATA-TF.
    pub fn parse(header: [u8; PDV_HEADER_LENGTH], left: usize) -> Result<Self, PDataError> {
        let [l0, l1, l2, l3, context_id, control] = header;
        let declared = u32::from_be_bytes([l0, l1, l2, l3]);
        let available = left.saturating_sub(PDV_HEADER_LENGTH);
        // The item length counts the context ID and the control header (PS3.8 table 9-23).
        let length = declared.checked_sub(2).and_then(|length| usize::try_from(length).ok());
        let length = length
            .filter(|length| *length <= available)
            .ok_or(PDataError::BadPdvLength { length: declared, available: left.saturating_sub(4) })?;
        let kind = if control & COMMAND_FRAGMENT != 0 { FragmentKind::Command } else { FragmentKind::DataSet };
        Ok(Self { context_id, kind, is_last: control & LAST_FRAGMENT != 0, length })
    }
}

impl<'a> Pdv<'a> {
    /// Takes the first presentation data value from the body of a P-DATA-TF PDU. Returns it and the
    /// rest.
    ///
    /// # Errors
    /// When its length is wrong.
    pub fn split_first(body: &'a [u8]) -> Result<(Self, &'a [u8]), PDataError> {
        let (header, rest) = body.split_first_chunk::<PDV_HEADER_LENGTH>().ok_or(PDataError::TruncatedPdv)?;
        let PdvHeader { context_id, kind, is_last, length } = PdvHeader::parse(*header, body.len())?;
        let (fragment, rest) = rest.split_at_checked(length).ok_or(PDataError::TruncatedPdv)?;
        Ok((Self { context_id, kind, is_last, fragment }, rest))
    }
}

/// The meaning of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FragmentOutcome {
    /// A part of a command. More will come.
    CommandFragment,
    /// A complete command.
    Command {
        /// Its presentation context.
        context_id: u8,
        /// The command.
        command: CommandSet,
        /// Whether fragments of a data set follow.
        has_data_set: bool,
    },
    /// The fragment belongs to the data set of the last command.
    DataSetFragment {
        /// Whether it ends the data set.
        is_last: bool,
    },
}

/// Assembles the messages of one association (PS3.8 E.1). It keeps the bytes of an unfinished
/// command, but never of a data set.
#[derive(Debug, Default)]
pub struct MessageAssembler {
    state: MessageState,
}

#[derive(Debug, Default)]
enum MessageState {
    #[default]
    BetweenMessages,
    InCommand {
        context_id: u8,
        bytes: Vec<u8>,
    },
    InDataSet {
        context_id: u8,
    },
}

impl MessageAssembler {
    /// Creates an assembler between two messages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub fn in_message(&self) -> bool {
        !matches!(self.state, MessageState::BetweenMessages)
    }

    /// Takes the next fragment.
    ///
    /// # Errors
    /// When it does not fit the fragments before it, or completes a command that cannot be read.
    /// The association must be aborted, because nobody knows where the next message begins.
    pub fn accept(&mut self, pdv: &Pdv<'_>) -> Result<FragmentOutcome, PDataError> {
        match (&mut self.state, pdv.kind) {
            (MessageState::BetweenMessages, FragmentKind::Command) => {
                if pdv.is_last {
                    // The usual case: the whole command is in one fragment, so nothing is kept.
                    return self.command(pdv.context_id, pdv.fragment);
                }
                let bytes = checked_command(Vec::new(), pdv.fragment)?;
                self.state = MessageState::InCommand { context_id: pdv.context_id, bytes };
                Ok(FragmentOutcome::CommandFragment)
            }
            (MessageState::InCommand { context_id, bytes }, FragmentKind::Command) => {
                let context_id = same_context(*context_id, pdv.context_id)?;
                let bytes = checked_command(std::mem::take(bytes), pdv.fragment)?;
                if pdv.is_last {
                    return self.command(context_id, &bytes);
                }
                self.state = MessageState::InCommand { context_id, bytes };
                Ok(FragmentOutcome::CommandFragment)
            }
            (MessageState::InDataSet { context_id }, FragmentKind::DataSet) => {
                same_context(*context_id, pdv.context_id)?;
                if pdv.is_last {
                    self.state = MessageState::BetweenMessages;
                }
                Ok(FragmentOutcome::DataSetFragment { is_last: pdv.is_last })
            }
            (MessageState::InDataSet { .. }, FragmentKind::Command) => Err(PDataError::CommandInsideDataSet),
            (MessageState::BetweenMessages | MessageState::InCommand { .. }, FragmentKind::DataSet) => {
                Err(PDataError::UnexpectedDataSet)
            }
        }
    }

    fn command(&mut self, context_id: u8, bytes: &[u8]) -> Result<FragmentOutcome, PDataError> {
        if bytes.len() > MAX_COMMAND_SET_LENGTH {
            return Err(PDataError::CommandTooLong);
        }
        let command = CommandSet::decode(bytes)?;
        let has_data_set = command.has_data_set()?;
        self.state = if has_data_set { MessageState::InDataSet { context_id } } else { MessageState::BetweenMessages };
        Ok(FragmentOutcome::Command { context_id, command, has_data_set })
    }
}

fn checked_command(mut bytes: Vec<u8>, fragment: &[u8]) -> Result<Vec<u8>, PDataError> {
    if bytes.len() + fragment.len() > MAX_COMMAND_SET_LENGTH {
        return Err(PDataError::CommandTooLong);
    }
    bytes.extend_from_slice(fragment);
    Ok(bytes)
}

fn same_context(expected: u8, found: u8) -> Result<u8, PDataError> {
    if expected == found { Ok(expected) } else { Err(PDataError::ContextChanged { expected, found }) }
}

/// Appends a message to `out` as P-DATA-TF PDUs. Each has at most `peer_max_length` bytes after the
/// PDU header (0: no limit, PS3.8 D.1). Each has one presentation data value, because old receivers
/// accept no more.
///
/// # Panics
/// When `peer_max_length` is neither 0 nor at least [`MIN_PEER_MAX_LENGTH`]. Negotiation refuses
/// such a peer.
pub fn put_message(
    out: &mut Vec<u8>,
    context_id: u8,
    command: &CommandSet,
    data_set: Option<&[u8]>,
    peer_max_length: u32,
) {
    let mut encoded = Vec::with_capacity(256);
    command.encode(&mut encoded);
    put_fragments(out, context_id, COMMAND_FRAGMENT, &encoded, peer_max_length);
    if let Some(data_set) = data_set {
        put_data_set(out, context_id, data_set, peer_max_length);
    }
}

/// Writes the data set of a message behind its command set, in as many P-DATA-TF PDUs as it takes.
///
/// # Panics
/// As [`put_message`].
pub fn put_data_set(out: &mut Vec<u8>, context_id: u8, data_set: &[u8], peer_max_length: u32) {
    put_fragments(out, context_id, 0, data_set, peer_max_length);
}

/// Returns the length of the longest fragment that a peer accepts in one PDU. It is even (PS3.8
/// 9.3.5.1).
///
/// # Panics
/// As [`put_message`].
#[must_use]
pub fn fragment_limit(peer_max_length: u32) -> usize {
    let limit = match peer_max_length {
        0 => MAX_SENT_PDU_LENGTH,
        length => length.min(MAX_SENT_PDU_LENGTH),
    };
    assert!(limit >= MIN_PEER_MAX_LENGTH, "negotiation refuses a maximum length under {MIN_PEER_MAX_LENGTH}");
    // PS3.8 table 9-23 counts context ID and control header in the item length. Fragments have even
    // length.
    (limit as usize - PDV_HEADER_LENGTH) & !1
}

/// Length of the headers of a fragment that has a PDU of its own.
pub const FRAGMENT_HEADER_LENGTH: usize = PDU_HEADER_LENGTH + PDV_HEADER_LENGTH;

/// Returns the header of a P-DATA-TF with one fragment of a data set of this length. The data set
/// is then read directly into the space after it.
///
/// # Panics
/// When the fragment is longer than [`fragment_limit`] allows.
#[must_use]
pub fn data_fragment_header(context_id: u8, length: usize, is_last: bool) -> [u8; FRAGMENT_HEADER_LENGTH] {
    let pdv_length = u32::try_from(length + 2).expect("a fragment is at most 128 KiB");
    let [a, b, c, d] = (pdv_length + 4).to_be_bytes();
    let [e, f, g, h] = pdv_length.to_be_bytes();
    [P_DATA_TF, 0, a, b, c, d, e, f, g, h, context_id, if is_last { LAST_FRAGMENT } else { 0 }]
}

fn put_fragments(out: &mut Vec<u8>, context_id: u8, kind: u8, bytes: &[u8], peer_max_length: u32) {
    let fragment_limit = fragment_limit(peer_max_length);
    // An empty data set still has one fragment, which is empty and the last.
    let fragments = bytes.len().div_ceil(fragment_limit).max(1);
    for index in 0..fragments {
        let start = index * fragment_limit;
        let fragment = &bytes[start..bytes.len().min(start + fragment_limit)];
        let last = if index + 1 == fragments { LAST_FRAGMENT } else { 0 };
        let pdv_length = u32::try_from(fragment.len() + 2).expect("a fragment is at most 128 KiB");
        out.extend_from_slice(&[P_DATA_TF, 0]);
        out.extend_from_slice(&(pdv_length + 4).to_be_bytes());
        out.extend_from_slice(&pdv_length.to_be_bytes());
        out.extend_from_slice(&[context_id, kind | last]);
        out.extend_from_slice(fragment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_dictionary_std::tags;

    use crate::dimse::command_set::{DATA_SET_PRESENT, NO_DATA_SET};

    fn command(data_set_type: u16) -> CommandSet {
        let mut command = CommandSet::new();
        command.set_unsigned_short(tags::COMMAND_FIELD, 1);
        command.set_unsigned_short(tags::MESSAGE_ID, 1);
        command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, data_set_type);
        command
    }

    /// Returns the bodies of the PDUs in `bytes`. Each must be a P-DATA-TF of at most `max_length`.
    fn bodies(mut bytes: &[u8], max_length: usize) -> Vec<&[u8]> {
        let mut bodies = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(bytes[0], P_DATA_TF);
            let length = u32::from_be_bytes(bytes[2..6].try_into().unwrap()) as usize;
            assert!(length <= max_length, "PDU of {length} bytes");
            bodies.push(&bytes[6..6 + length]);
            bytes = &bytes[6 + length..];
        }
        bodies
    }

    /// Sends the PDUs through an assembler. Returns the commands, and the bytes of all data sets.
    fn received(bytes: &[u8], max_length: usize) -> (Vec<CommandSet>, Vec<u8>) {
        let (mut commands, mut data, mut assembler) = (Vec::new(), Vec::new(), MessageAssembler::new());
        for mut body in bodies(bytes, max_length) {
            while !body.is_empty() {
                let (pdv, rest) = Pdv::split_first(body).unwrap();
                body = rest;
                match assembler.accept(&pdv).unwrap() {
                    FragmentOutcome::CommandFragment => {}
                    FragmentOutcome::Command { command, .. } => commands.push(command),
                    FragmentOutcome::DataSetFragment { .. } => data.extend_from_slice(pdv.fragment),
                }
            }
        }
        assert!(!assembler.in_message());
        (commands, data)
    }

    #[test]
    fn what_is_sent_at_any_pdu_length_is_what_is_received() {
        let data: Vec<u8> = (0..40_000_u32).map(|n| n as u8).collect();
        for max in [0, MIN_PEER_MAX_LENGTH, 9, 127, 128, 4096, 16_384, u32::MAX] {
            let mut bytes = Vec::new();
            put_message(&mut bytes, 3, &command(DATA_SET_PRESENT), Some(&data), max);
            put_message(&mut bytes, 3, &command(NO_DATA_SET), None, max);
            let limit = if max == 0 { MAX_SENT_PDU_LENGTH } else { max.min(MAX_SENT_PDU_LENGTH) };
            let (commands, read) = received(&bytes, limit as usize);
            assert_eq!(commands, [command(DATA_SET_PRESENT), command(NO_DATA_SET)], "max {max}");
            assert!(read == data, "max {max}");
        }
    }

    #[test]
    fn a_fragment_header_made_alone_is_that_of_a_message() {
        let mut bytes = Vec::new();
        put_message(&mut bytes, 7, &command(DATA_SET_PRESENT), Some(&[1, 2, 3, 4, 5]), 0);
        assert_eq!(bytes[bytes.len() - 5 - FRAGMENT_HEADER_LENGTH..bytes.len() - 5], data_fragment_header(7, 5, true));
    }

    #[test]
    fn an_empty_data_set_is_one_empty_last_fragment() {
        let mut bytes = Vec::new();
        put_message(&mut bytes, 1, &command(DATA_SET_PRESENT), Some(&[]), 0);
        let bodies = bodies(&bytes, 200);
        assert_eq!(bodies.len(), 2);
        assert_eq!(bodies[1], [0, 0, 0, 2, 1, LAST_FRAGMENT]);
    }

    #[test]
    fn pdv_lengths_that_lie_are_errors() {
        for length in [0_u32, 1, 6, 0x7FFF_FFFF, 0xFFFF_FFFF] {
            let mut body = length.to_be_bytes().to_vec();
            body.extend([1, 3, 0xAA, 0xBB, 0xCC]);
            assert_eq!(Pdv::split_first(&body), Err(PDataError::BadPdvLength { length, available: 5 }));
        }
        assert_eq!(Pdv::split_first(&[0, 0, 0, 2, 1]), Err(PDataError::TruncatedPdv));
        let (pdv, rest) = Pdv::split_first(&[0, 0, 0, 3, 5, 2, 0xAA, 0xBB]).unwrap();
        assert_eq!(pdv, Pdv { context_id: 5, kind: FragmentKind::DataSet, is_last: true, fragment: &[0xAA] });
        assert_eq!(rest, [0xBB]);
    }

    fn fragment(context_id: u8, kind: FragmentKind, is_last: bool, fragment: &[u8]) -> Pdv<'_> {
        Pdv { context_id, kind, is_last, fragment }
    }

    #[test]
    fn fragments_out_of_place_are_errors() {
        use FragmentKind::{Command, DataSet};
        let mut bytes = Vec::new();
        command(DATA_SET_PRESENT).encode(&mut bytes);

        let mut assembler = MessageAssembler::new();
        assert_eq!(assembler.accept(&fragment(1, DataSet, true, &[0])), Err(PDataError::UnexpectedDataSet));

        let mut assembler = MessageAssembler::new();
        assembler.accept(&fragment(1, Command, false, &bytes[..5])).unwrap();
        assert_eq!(assembler.accept(&fragment(1, DataSet, true, &[0])), Err(PDataError::UnexpectedDataSet));

        let mut assembler = MessageAssembler::new();
        assembler.accept(&fragment(1, Command, false, &bytes[..5])).unwrap();
        assert_eq!(
            assembler.accept(&fragment(3, Command, true, &bytes[5..])),
            Err(PDataError::ContextChanged { expected: 1, found: 3 })
        );

        let mut assembler = MessageAssembler::new();
        assembler.accept(&fragment(1, Command, true, &bytes)).unwrap();
        assert_eq!(assembler.accept(&fragment(1, Command, true, &bytes)), Err(PDataError::CommandInsideDataSet));
        assert_eq!(
            assembler.accept(&fragment(3, DataSet, true, &[0])),
            Err(PDataError::ContextChanged { expected: 1, found: 3 })
        );
    }

    #[test]
    fn a_command_without_end_is_cut_off_at_the_limit() {
        let mut assembler = MessageAssembler::new();
        let piece = [0_u8; 16 * 1024];
        let accepted = (0..100)
            .take_while(|_| assembler.accept(&fragment(1, FragmentKind::Command, false, &piece)).is_ok())
            .count();
        assert_eq!(accepted, MAX_COMMAND_SET_LENGTH / piece.len());
    }
}
