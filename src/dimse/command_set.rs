//! Command sets: the elements of group 0000, in implicit VR little endian (PS3.7 6.3.1, annex E).

use std::fmt;
use std::ops::Range;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use crate::encoding::padding::without_padding;
use crate::encoding::syntax::Encoding;
use crate::encoding::tag::tag_of;

/// The Command Data Set Type without a data set (PS3.7 annex E.1).
pub const NO_DATA_SET: u16 = 0x0101;
/// The Command Data Set Type that this node writes if a data set follows. Any value except
/// [`NO_DATA_SET`] is allowed.
pub const DATA_SET_PRESENT: u16 = 0x0001;

/// Length of the header of an element in Implicit VR Little Endian.
const ELEMENT_HEADER_LENGTH: usize = 8;

/// A Command Field (PS3.7 E.1). Unknown values are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommandField(pub u16);

impl CommandField {
    /// C-STORE-RQ.
    pub const C_STORE_RQ: Self = Self(0x0001);
    /// C-STORE-RSP.
    pub const C_STORE_RSP: Self = Self(0x8001);
    /// C-GET-RQ.
    pub const C_GET_RQ: Self = Self(0x0010);
    /// C-GET-RSP.
    pub const C_GET_RSP: Self = Self(0x8010);
    /// C-FIND-RQ.
    pub const C_FIND_RQ: Self = Self(0x0020);
    /// C-FIND-RSP.
    pub const C_FIND_RSP: Self = Self(0x8020);
    /// C-MOVE-RQ.
    pub const C_MOVE_RQ: Self = Self(0x0021);
    /// C-MOVE-RSP.
    pub const C_MOVE_RSP: Self = Self(0x8021);
    /// C-ECHO-RQ.
    pub const C_ECHO_RQ: Self = Self(0x0030);
    /// C-ECHO-RSP.
    pub const C_ECHO_RSP: Self = Self(0x8030);
    /// N-EVENT-REPORT-RQ.
    pub const N_EVENT_REPORT_RQ: Self = Self(0x0100);
    /// N-EVENT-REPORT-RSP.
    pub const N_EVENT_REPORT_RSP: Self = Self(0x8100);
    /// N-ACTION-RQ.
    pub const N_ACTION_RQ: Self = Self(0x0130);
    /// N-ACTION-RSP.
    pub const N_ACTION_RSP: Self = Self(0x8130);
    /// N-SET-RQ.
    pub const N_SET_RQ: Self = Self(0x0120);
    /// N-SET-RSP.
    pub const N_SET_RSP: Self = Self(0x8120);
    /// N-CREATE-RQ.
    pub const N_CREATE_RQ: Self = Self(0x0140);
    /// N-CREATE-RSP.
    pub const N_CREATE_RSP: Self = Self(0x8140);
    /// C-CANCEL-RQ. C-FIND, C-MOVE and C-GET share it.
    pub const C_CANCEL_RQ: Self = Self(0x0FFF);

    /// Whether it is a response. The most significant bit says so (PS3.7 E.1).
    #[must_use]
    pub const fn is_response(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// Returns the Command Field of the request to which this is the response.
    #[must_use]
    pub const fn request(self) -> Self {
        Self(self.0 & 0x7FFF)
    }

    /// Returns the Command Field of the response to this request.
    #[must_use]
    pub const fn response(self) -> Self {
        Self(self.0 | 0x8000)
    }
}

impl fmt::Display for CommandField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::C_STORE_RQ => f.write_str("C-STORE-RQ"),
            Self::C_STORE_RSP => f.write_str("C-STORE-RSP"),
            Self::C_GET_RQ => f.write_str("C-GET-RQ"),
            Self::C_GET_RSP => f.write_str("C-GET-RSP"),
            Self::C_FIND_RQ => f.write_str("C-FIND-RQ"),
            Self::C_FIND_RSP => f.write_str("C-FIND-RSP"),
            Self::C_MOVE_RQ => f.write_str("C-MOVE-RQ"),
            Self::C_MOVE_RSP => f.write_str("C-MOVE-RSP"),
            Self::C_ECHO_RQ => f.write_str("C-ECHO-RQ"),
            Self::C_ECHO_RSP => f.write_str("C-ECHO-RSP"),
            Self::N_EVENT_REPORT_RQ => f.write_str("N-EVENT-REPORT-RQ"),
            Self::N_EVENT_REPORT_RSP => f.write_str("N-EVENT-REPORT-RSP"),
            Self::N_ACTION_RQ => f.write_str("N-ACTION-RQ"),
            Self::N_ACTION_RSP => f.write_str("N-ACTION-RSP"),
            Self::N_SET_RQ => f.write_str("N-SET-RQ"),
            Self::N_SET_RSP => f.write_str("N-SET-RSP"),
            Self::N_CREATE_RQ => f.write_str("N-CREATE-RQ"),
            Self::N_CREATE_RSP => f.write_str("N-CREATE-RSP"),
            Self::C_CANCEL_RQ => f.write_str("C-CANCEL-RQ"),
            Self(other) => write!(f, "command {other:04X}H"),
        }
    }
}

impl fmt::Debug for CommandField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandField({self})")
    }
}

/// The reason why bytes are not a command set, or why a field of it is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandSetError {
    /// The bytes end inside an element.
    #[error("command set ends inside an element, at byte {offset}")]
    Truncated {
        /// Start of the element.
        offset: usize,
    },
    /// An element belongs to another group than 0000.
    #[error("element {tag} in a command set, at byte {offset}")]
    ForeignElement {
        /// Tag of the element.
        tag: Tag,
        /// Start of the element.
        offset: usize,
    },
    /// An element has undefined length, or a length that passes the end.
    #[error("element {tag} of a command set has length {length}")]
    BadLength {
        /// Tag of the element.
        tag: Tag,
        /// The declared length.
        length: u32,
    },
    /// An element occurs twice, and nobody knows which one counts.
    #[error("element {tag} twice in a command set")]
    Repeated {
        /// Tag of the element.
        tag: Tag,
    },
    /// A required element is missing.
    #[error("element {tag} is missing from the command set")]
    Missing {
        /// Tag of the element.
        tag: Tag,
    },
    /// The value of an element is not allowed by its VR.
    #[error("element {tag} of the command set has a value that its VR does not allow")]
    Mistyped {
        /// Tag of the element.
        tag: Tag,
    },
}

/// A command set: elements of group 0000 with their encoded values. Unknown elements are kept.
#[derive(Clone, Default)]
pub struct CommandSet {
    /// Element numbers in ascending order, and where their values lie in `values`.
    elements: Vec<(u16, Range<usize>)>,
    /// One buffer for all values, because each message has a command set. It may also hold bytes
    /// that belong to no element.
    values: Vec<u8>,
}

impl PartialEq for CommandSet {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for CommandSet {}

impl CommandSet {
    /// Creates a command set without elements.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a command set from its encoding.
    ///
    /// The group length is not checked. The last-fragment mark of PS3.8 E.2 already says where the
    /// command ends, and old senders write a wrong length. The order of the elements is not checked
    /// either.
    ///
    /// # Errors
    /// When an element is cut short, repeated, of another group or of undefined length.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandSetError> {
        let mut elements: Vec<(u16, Range<usize>)> = Vec::with_capacity(12);
        let mut rest = bytes;
        while !rest.is_empty() {
            let offset = bytes.len() - rest.len();
            // PS3.7 6.3.1: a command set is in Implicit VR Little Endian.
            let Ok(header) = Encoding::ImplicitLittle.header(rest) else {
                return Err(CommandSetError::Truncated { offset });
            };
            let (tag, length) = (tag_of(header.tag), header.length);
            if tag.group() != 0 {
                return Err(CommandSetError::ForeignElement { tag, offset });
            }
            let after = rest.get(header.size..).unwrap_or_default();
            let value = usize::try_from(length).ok().and_then(|length| after.split_at_checked(length));
            let Some((value, after)) = value else {
                return Err(CommandSetError::BadLength { tag, length });
            };
            if tag != tags::COMMAND_GROUP_LENGTH {
                let end = bytes.len() - after.len();
                elements.push((tag.element(), end - value.len()..end));
            }
            rest = after;
        }
        elements.sort_by_key(|(element, _)| *element);
        if let Some(pair) = elements.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(CommandSetError::Repeated { tag: Tag(0, pair[0].0) });
        }
        Ok(Self { elements, values: bytes.to_vec() })
    }

    /// Appends the encoding, group length first (PS3.7 E.1), to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let length: usize = self.iter().map(|(_, value)| ELEMENT_HEADER_LENGTH + value.len()).sum();
        put_header(out, tags::COMMAND_GROUP_LENGTH.element(), 4);
        out.extend_from_slice(&length_field(length).to_le_bytes());
        for (element, value) in self.iter() {
            put_header(out, element, value.len());
            out.extend_from_slice(value);
        }
    }

    /// Returns the encoded value of an element.
    #[must_use]
    pub fn value(&self, tag: Tag) -> Option<&[u8]> {
        debug_assert_eq!(tag.group(), 0);
        let index = self.elements.binary_search_by_key(&tag.element(), |(element, _)| *element).ok()?;
        self.elements.get(index).map(|(_, place)| self.at(place))
    }

    fn at(&self, place: &Range<usize>) -> &[u8] {
        self.values.get(place.clone()).unwrap_or_default()
    }

    /// The elements in ascending order.
    fn iter(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.elements.iter().map(|(element, place)| (*element, self.at(place)))
    }

    /// Returns a required element of VR US.
    ///
    /// # Errors
    /// When it is missing or not one unsigned short.
    pub fn unsigned_short(&self, tag: Tag) -> Result<u16, CommandSetError> {
        self.optional_unsigned_short(tag)?.ok_or(CommandSetError::Missing { tag })
    }

    /// Returns an element of VR US that may be absent or empty.
    ///
    /// # Errors
    /// When it has a value that is not one unsigned short.
    pub fn optional_unsigned_short(&self, tag: Tag) -> Result<Option<u16>, CommandSetError> {
        match self.value(tag) {
            None | Some([]) => Ok(None),
            Some(&[low, high]) => Ok(Some(u16::from_le_bytes([low, high]))),
            Some(_) => Err(CommandSetError::Mistyped { tag }),
        }
    }

    /// Returns a required element of a text VR (UI, AE, LO), without its padding.
    ///
    /// # Errors
    /// When it is missing, empty, or not of the default character repertoire.
    pub fn text(&self, tag: Tag) -> Result<&str, CommandSetError> {
        self.optional_text(tag)?.ok_or(CommandSetError::Missing { tag })
    }

    /// Returns an element of a text VR (UI, AE, LO) without its padding. `None` if it is absent or
    /// empty.
    ///
    /// # Errors
    /// When it is not of the default character repertoire. No Specific Character Set applies to a
    /// command set.
    pub fn optional_text(&self, tag: Tag) -> Result<Option<&str>, CommandSetError> {
        let Some(value) = self.value(tag) else { return Ok(None) };
        match std::str::from_utf8(value) {
            Ok(text) if text.is_ascii() => {
                let text = without_padding(text);
                Ok((!text.is_empty()).then_some(text))
            }
            _ => Err(CommandSetError::Mistyped { tag }),
        }
    }

    /// Sets an element of VR US.
    pub fn set_unsigned_short(&mut self, tag: Tag, value: u16) {
        self.set(tag, &value.to_le_bytes());
    }

    /// Sets an element of VR UI, padded to even length with NUL (PS3.5 6.2).
    pub fn set_uid(&mut self, tag: Tag, uid: &str) {
        self.set_padded(tag, uid, 0);
    }

    /// Sets an element of VR AE or LO, padded to even length with a space (PS3.5 6.2).
    pub fn set_text(&mut self, tag: Tag, text: &str) {
        self.set_padded(tag, text, b' ');
    }

    /// Sets an element of VR AT.
    pub fn set_tags(&mut self, tag: Tag, tags: &[Tag]) {
        let halves = tags.iter().flat_map(|tag| [tag.group(), tag.element()]);
        let value: Vec<u8> = halves.flat_map(u16::to_le_bytes).collect();
        self.set(tag, &value);
    }

    /// Whether a data set follows the command (PS3.7 E.1, Command Data Set Type).
    ///
    /// # Errors
    /// When Command Data Set Type is missing or mistyped.
    pub fn has_data_set(&self) -> Result<bool, CommandSetError> {
        Ok(self.unsigned_short(tags::COMMAND_DATA_SET_TYPE)? != NO_DATA_SET)
    }

    fn set_padded(&mut self, tag: Tag, text: &str, padding: u8) {
        self.set(tag, text.as_bytes());
        if !text.len().is_multiple_of(2) {
            // The value that was set last is the end of the buffer.
            self.values.push(padding);
            if let Some((_, place)) = self.elements.iter_mut().find(|(element, _)| *element == tag.element()) {
                place.end = self.values.len();
            }
        }
    }

    fn set(&mut self, tag: Tag, value: &[u8]) {
        debug_assert_eq!(tag.group(), 0);
        let begin = self.values.len();
        self.values.extend_from_slice(value);
        let place = begin..self.values.len();
        match self.elements.binary_search_by_key(&tag.element(), |(element, _)| *element) {
            Ok(index) => self.elements[index].1 = place,
            Err(index) => self.elements.insert(index, (tag.element(), place)),
        }
    }
}

/// Shows tags and lengths, but no values. A C-STORE-RQ names an instance, which must not appear in
/// a log at this level.
impl fmt::Debug for CommandSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(element, value)| (Tag(0, element), value.len()))).finish()
    }
}

fn put_header(out: &mut Vec<u8>, element: u16, length: usize) {
    // PS3.7 6.3.1: command sets are in Implicit VR Little Endian, so no header has a VR.
    Encoding::ImplicitLittle.push_header(out, u32::from(element), [0, 0], length_field(length));
}

fn length_field(length: usize) -> u32 {
    u32::try_from(length).expect("command sets that we build are far smaller than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The C-ECHO-RQ of DCMTK 3.6.7 echoscu, as it was sent.
    const ECHOSCU_C_ECHO_RQ: &[u8] = &[
        0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x38, 0x00, 0x00, 0x00, // group length 56
        0x00, 0x00, 0x02, 0x00, 0x12, 0x00, 0x00, 0x00, b'1', b'.', b'2', b'.', b'8', b'4', b'0', b'.', b'1', b'0',
        b'0', b'0', b'8', b'.', b'1', b'.', b'1', 0x00, // Affected SOP Class UID
        0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x30, 0x00, // Command Field
        0x00, 0x00, 0x10, 0x01, 0x02, 0x00, 0x00, 0x00, 0x01, 0x00, // Message ID
        0x00, 0x00, 0x00, 0x08, 0x02, 0x00, 0x00, 0x00, 0x01, 0x01, // Command Data Set Type
    ];

    #[test]
    fn a_command_of_dcmtk_is_read_and_written_back_byte_for_byte() {
        let command = CommandSet::decode(ECHOSCU_C_ECHO_RQ).unwrap();
        assert_eq!(command.text(tags::AFFECTED_SOP_CLASS_UID), Ok("1.2.840.10008.1.1"));
        assert_eq!(command.unsigned_short(tags::COMMAND_FIELD), Ok(CommandField::C_ECHO_RQ.0));
        assert_eq!(command.unsigned_short(tags::MESSAGE_ID), Ok(1));
        assert_eq!(command.has_data_set(), Ok(false));
        let mut encoded = Vec::new();
        command.encode(&mut encoded);
        assert_eq!(encoded, ECHOSCU_C_ECHO_RQ);
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_command() {
        let whole = CommandSet::decode(ECHOSCU_C_ECHO_RQ).unwrap();
        let boundaries = [0, 12, 38, 48, 58, 68];
        for cut in 0..ECHOSCU_C_ECHO_RQ.len() {
            let read = CommandSet::decode(&ECHOSCU_C_ECHO_RQ[..cut]);
            assert_eq!(read.is_ok(), boundaries.contains(&cut), "cut at {cut}");
            assert_ne!(read.as_ref(), Ok(&whole), "cut at {cut}");
        }
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        for length in [0x13_u32, 0x7FFF_FFFF, 0xFFFF_FFFE, 0xFFFF_FFFF] {
            let mut bytes = ECHOSCU_C_ECHO_RQ[12..38].to_vec();
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            assert_eq!(
                CommandSet::decode(&bytes),
                Err(CommandSetError::BadLength { tag: tags::AFFECTED_SOP_CLASS_UID, length })
            );
        }
    }

    #[test]
    fn a_wrong_group_length_does_not_matter() {
        let mut bytes = ECHOSCU_C_ECHO_RQ.to_vec();
        bytes[8] = 0xFF;
        assert_eq!(CommandSet::decode(&bytes), CommandSet::decode(ECHOSCU_C_ECHO_RQ));
    }

    #[test]
    fn elements_of_other_groups_and_repeated_ones_are_refused() {
        let mut foreign = ECHOSCU_C_ECHO_RQ.to_vec();
        foreign[12] = 0x08;
        assert!(matches!(CommandSet::decode(&foreign), Err(CommandSetError::ForeignElement { offset: 12, .. })));
        let repeated = [&ECHOSCU_C_ECHO_RQ[48..58], &ECHOSCU_C_ECHO_RQ[48..58]].concat();
        assert_eq!(CommandSet::decode(&repeated), Err(CommandSetError::Repeated { tag: tags::MESSAGE_ID }));
    }

    #[test]
    fn unknown_elements_are_kept_and_order_is_restored() {
        let unknown = [0x00, 0x00, 0x99, 0x99, 0x02, 0x00, 0x00, 0x00, 0xAB, 0xCD];
        let shuffled = [&unknown, &ECHOSCU_C_ECHO_RQ[48..58], &ECHOSCU_C_ECHO_RQ[38..48]].concat();
        let command = CommandSet::decode(&shuffled).unwrap();
        assert_eq!(command.value(Tag(0, 0x9999)), Some(&[0xAB, 0xCD][..]));
        let mut encoded = Vec::new();
        command.encode(&mut encoded);
        assert_eq!(encoded[12..], [&ECHOSCU_C_ECHO_RQ[38..58], &unknown].concat());
    }

    #[test]
    fn values_of_the_wrong_kind_are_told_from_missing_ones() {
        let mut command = CommandSet::new();
        assert_eq!(command.unsigned_short(tags::MESSAGE_ID), Err(CommandSetError::Missing { tag: tags::MESSAGE_ID }));
        command.set_text(tags::MESSAGE_ID, "1234");
        assert_eq!(command.unsigned_short(tags::MESSAGE_ID), Err(CommandSetError::Mistyped { tag: tags::MESSAGE_ID }));
        command.set(tags::AFFECTED_SOP_INSTANCE_UID, &[0xC3, 0xA4]);
        assert_eq!(
            command.text(tags::AFFECTED_SOP_INSTANCE_UID),
            Err(CommandSetError::Mistyped { tag: tags::AFFECTED_SOP_INSTANCE_UID })
        );
        command.set_uid(tags::AFFECTED_SOP_INSTANCE_UID, "");
        assert_eq!(
            command.text(tags::AFFECTED_SOP_INSTANCE_UID),
            Err(CommandSetError::Missing { tag: tags::AFFECTED_SOP_INSTANCE_UID })
        );
    }

    #[test]
    fn offending_elements_are_group_and_element_in_little_endian() {
        let mut command = CommandSet::new();
        command.set_tags(tags::OFFENDING_ELEMENT, &[Tag(0x0008, 0x0052), Tag(0x0020, 0x000D)]);
        assert_eq!(command.value(tags::OFFENDING_ELEMENT), Some(&[0x08, 0, 0x52, 0, 0x20, 0, 0x0D, 0][..]));
    }
}
