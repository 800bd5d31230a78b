//! An HL7 version 2 message: segments, fields, repetitions, components, subcomponents (HL7 2.5.1
//! chapter 2).
//!
//! The whole message is decoded to text before it is split. In Japanese and Chinese sets, bytes of
//! a two-byte character look like delimiters.

use std::borrow::Cow;
use std::str::FromStr;

use super::character_set::{DecodedMessage, decoded};
use super::error::{MAX_MESSAGE_LENGTH, MAX_SEGMENTS, MessageError};
use crate::encoding::charset::{CharacterSets, TextForm};

/// The characters that divide a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worklist) struct Delimiters {
    pub(super) field: char,
    pub(super) component: char,
    pub(super) repetition: char,
    pub(super) escape: Option<char>,
    pub(super) subcomponent: Option<char>,
}

/// A message that was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub(super) delimiters: Delimiters,
    pub(super) segments: Vec<Hl7Segment>,
    /// Its character set as Specific Character Set (0008,0005).
    pub(super) character_set: String,
}

/// Without the fields, which are of a patient.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.segments.iter().map(|segment| segment.name.as_str()).collect();
        f.debug_struct("Message").field("segments", &names).finish_non_exhaustive()
    }
}

/// A segment: its name and its fields, as they stand in the message.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::worklist) struct Hl7Segment {
    pub(super) name: String,
    fields: Vec<String>,
}

impl std::fmt::Debug for Hl7Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Hl7Segment").field(&self.name).finish()
    }
}

/// Place of a value: `OBR-4.5` is the fifth component of the fourth field of OBR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    pub(super) segment: String,
    pub(super) field: usize,
    /// Without it, the whole field.
    pub(super) component: Option<usize>,
    /// Without it, the first subcomponent.
    pub(super) subcomponent: Option<usize>,
}

/// Reason why a text is no [`FieldPath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not written as in OBR-4 or PID-3.4.1")]
pub struct FieldPathError(String);

impl FromStr for FieldPath {
    type Err = FieldPathError;

    fn from_str(text: &str) -> Result<Self, FieldPathError> {
        let error = || FieldPathError(text.to_owned());
        let (segment, place) = text.trim().split_once('-').ok_or_else(error)?;
        let is_name = segment.len() == 3
            && segment.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
            && segment.as_bytes().first().is_some_and(u8::is_ascii_uppercase);
        let numbers =
            place.split('.').map(|number| number.parse::<usize>().ok().filter(|number| (1..1000).contains(number)));
        let numbers: Vec<usize> = numbers.collect::<Option<_>>().ok_or_else(error)?;
        match (is_name, numbers.as_slice()) {
            (true, &[field, ref rest @ ..]) if rest.len() <= 2 => Ok(Self {
                segment: segment.to_owned(),
                field,
                component: rest.first().copied(),
                subcomponent: rest.get(1).copied(),
            }),
            _ => Err(error()),
        }
    }
}

impl Message {
    /// Reads a message. Segments end with CR. LF and CR LF are accepted too, because many senders
    /// write them.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MAX_MESSAGE_LENGTH {
            return Err(MessageError::TooLong);
        }
        let DecodedMessage { text, character_set } = decoded(bytes)?;
        let sets = CharacterSets::new(&character_set);
        let text = text.trim_start_matches(['\r', '\n', ' ', '\u{FEFF}']);
        let delimiters = Delimiters::of(text)?;
        let mut segments = Vec::new();
        for line in text.split(['\r', '\n']) {
            let line = line.trim_matches(['\u{0}', '\u{1C}', '\u{0B}']);
            if line.trim().is_empty() {
                continue;
            }
            if segments.len() == MAX_SEGMENTS {
                return Err(MessageError::TooManySegments);
            }
            segments.push(Hl7Segment::new(line, delimiters, &sets));
        }
        Ok(Self { delimiters, segments, character_set })
    }

    /// Reads the header alone of a message that cannot be read as a whole. Its acknowledgment needs
    /// it. Values that are not ASCII may be wrong.
    pub(super) fn header_alone(bytes: &[u8]) -> Option<Self> {
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        let line = text.trim_start_matches(|c: char| c != 'M').split(['\r', '\n']).next()?;
        let delimiters = Delimiters::of(line).ok()?;
        let header = Hl7Segment::new(line, delimiters, &CharacterSets::new(""));
        Some(Self { delimiters, segments: vec![header], character_set: String::new() })
    }

    /// Returns the first segment of this name.
    pub(super) fn segment(&self, name: &str) -> Option<&Hl7Segment> {
        self.segments.iter().find(|segment| segment.name == name)
    }

    /// Moves the identifier of the patient that counts to the front of its field, where the mapping
    /// looks. PID-3 and MRG-1 may hold several.
    ///
    /// `authority` is the assigning authority of the settings, or empty. After it counts the type:
    /// a medical record number (MR), then an internal identifier (PI).
    pub(super) fn put_patient_identifier_first(&mut self, authority: &str) {
        let delimiters = self.delimiters;
        for segment in &mut self.segments {
            let field = match segment.name.as_str() {
                "PID" => 3,
                "MRG" => 1,
                _ => continue,
            };
            segment.put_first(field, delimiters.repetition, |identifier| {
                identifier_rank(identifier, authority, delimiters)
            });
        }
    }

    /// Returns a value of the header, with its escape sequences resolved.
    pub(super) fn header(&self, field: usize, component: usize) -> String {
        self.segment("MSH")
            .map_or_else(String::new, |header| header.text(field, Some(component), None, self.delimiters))
    }
}

/// Ranks an identifier of a patient (CX, HL7 2.5.1, 2.A.14). The least rank counts most.
fn identifier_rank(identifier: &str, authority: &str, delimiters: Delimiters) -> (bool, bool, u8) {
    let component = |number| nth(identifier, Some(delimiters.component), number);
    // An authority has a name (HD-1) and a universal ID (HD-2).
    let names = [1, 2].map(|number| unescaped(nth(component(4), delimiters.subcomponent, number), delimiters));
    let is_of_authority = !authority.is_empty() && names.iter().any(|name| name == authority);
    // HL7 table 0203.
    let kind = match component(5) {
        "MR" => 0,
        "PI" => 1,
        _ => 2,
    };
    (component(1).is_empty(), !is_of_authority, kind)
}

impl Delimiters {
    fn of(text: &str) -> Result<Self, MessageError> {
        let rest = text.strip_prefix("MSH").ok_or(MessageError::NoHeader)?;
        let mut characters = rest.chars();
        let field = characters.next().ok_or(MessageError::NoHeader)?;
        let mut others = characters.take_while(|c| *c != field && !matches!(c, '\r' | '\n'));
        let component = others.next().ok_or(MessageError::Delimiters)?;
        let repetition = others.next().unwrap_or('~');
        let (escape, subcomponent) = (others.next(), others.next());
        let all = [Some(field), Some(component), Some(repetition), escape, subcomponent];
        let is_odd = |c: char| c.is_alphanumeric() || c.is_control() || c == ' ';
        for (at, one) in all.iter().enumerate() {
            if one.is_some_and(is_odd) || one.is_some() && all.iter().skip(at + 1).any(|other| other == one) {
                return Err(MessageError::Delimiters);
            }
        }
        Ok(Self { field, component, repetition, escape, subcomponent })
    }
}

impl Delimiters {
    /// The letter of the escape sequence that stands for a delimiter.
    fn sequence_of(&self, c: char) -> Option<char> {
        let letters = [
            (Some(self.field), 'F'),
            (Some(self.component), 'S'),
            (Some(self.repetition), 'R'),
            (self.escape, 'E'),
            (self.subcomponent, 'T'),
        ];
        letters.into_iter().find(|(delimiter, _)| *delimiter == Some(c)).map(|(_, letter)| letter)
    }

    /// Whether they divide a text of a field.
    fn divide(&self, text: &str) -> bool {
        text.contains(|c| c == self.component || c == self.repetition || Some(c) == self.subcomponent)
    }
}

impl Hl7Segment {
    fn new(line: &str, delimiters: Delimiters, sets: &CharacterSets) -> Self {
        let mut parts = line.split(delimiters.field);
        let name = parts.next().unwrap_or_default().trim().to_owned();
        let mut fields: Vec<String> = match delimiters.escape {
            // MSH-2 is the delimiters themselves.
            Some(escape) if name != "MSH" => {
                parts.map(|field| with_hexadecimal(field, escape, delimiters, sets)).collect()
            }
            _ => parts.map(str::to_owned).collect(),
        };
        if name == "MSH" {
            // MSH-1 is the delimiter itself.
            fields.insert(0, delimiters.field.to_string());
        }
        Self { name, fields }
    }

    /// Returns a field as it stands in the message. Empty if it is not there, or if it says that
    /// there is no value (`""`).
    pub(super) fn raw(&self, field: usize) -> &str {
        let text = field.checked_sub(1).and_then(|at| self.fields.get(at)).map_or("", String::as_str);
        if text == "\"\"" { "" } else { text }
    }

    /// Whether a field, or a component of it, has something. That there is no value (`""`) is
    /// something, too.
    pub(super) fn says(&self, field: usize, component: Option<usize>, delimiters: Delimiters) -> bool {
        let text = field.checked_sub(1).and_then(|at| self.fields.get(at)).map_or("", String::as_str);
        let Some(component) = component.filter(|_| text != "\"\"") else {
            return text.chars().any(|c| c != delimiters.repetition && c != delimiters.component);
        };
        let repetition = text.split(delimiters.repetition).next().unwrap_or_default();
        repetition.split(delimiters.component).nth(component - 1).is_some_and(|part| !part.is_empty())
    }

    /// Moves the repetition of a field with the least rank to its front. Of equal ones it is the
    /// first.
    fn put_first<R: Ord>(&mut self, field: usize, delimiter: char, rank: impl Fn(&str) -> R) {
        let Some(text) = field.checked_sub(1).and_then(|at| self.fields.get_mut(at)) else { return };
        let mut repetitions: Vec<&str> = text.split(delimiter).collect();
        if let Some((at, _)) = repetitions.iter().enumerate().min_by_key(|(_, repetition)| rank(repetition)) {
            repetitions[..=at].rotate_right(1);
        }
        *text = repetitions.join(&delimiter.to_string());
    }

    /// Returns the repetitions of a field.
    pub(super) fn repetitions(&self, field: usize, delimiters: Delimiters) -> impl Iterator<Item = &str> {
        self.raw(field).split(delimiters.repetition)
    }

    /// Returns the first repetition of a field.
    fn first(&self, field: usize, delimiters: Delimiters) -> &str {
        self.repetitions(field, delimiters).next().unwrap_or_default()
    }

    /// Returns a component as it stands in the message, or one of its subcomponents.
    pub(super) fn part(
        &self,
        field: usize,
        component: usize,
        subcomponent: Option<usize>,
        delimiters: Delimiters,
    ) -> &str {
        component_of(self.first(field, delimiters), component, subcomponent.unwrap_or(1), delimiters)
    }

    /// Returns a value with its escape sequences resolved. Without a component it is the whole
    /// field, with its delimiters as spaces.
    pub(super) fn text(
        &self,
        field: usize,
        component: Option<usize>,
        subcomponent: Option<usize>,
        delimiters: Delimiters,
    ) -> String {
        text_of(self.first(field, delimiters), component, subcomponent, delimiters)
    }
}

/// Returns a value of a repetition with its escape sequences resolved. Without a component it is
/// the whole repetition, with its delimiters as spaces.
pub(super) fn text_of(
    repetition: &str,
    component: Option<usize>,
    subcomponent: Option<usize>,
    delimiters: Delimiters,
) -> String {
    let Some(component) = component else {
        let whole = repetition.split(delimiters.component);
        let parts: Vec<_> = whole.map(|part| unescaped(part, delimiters)).filter(|part| !part.is_empty()).collect();
        return parts.join(" ");
    };
    unescaped(component_of(repetition, component, subcomponent.unwrap_or(1), delimiters), delimiters)
}

/// Returns the part of a text with this number, beginning with 1.
pub(super) fn nth(text: &str, delimiter: Option<char>, number: usize) -> &str {
    let part = match delimiter {
        Some(delimiter) => text.split(delimiter).nth(number.saturating_sub(1)),
        None => (number == 1).then_some(text),
    };
    part.filter(|part| *part != "\"\"").unwrap_or_default()
}

/// Returns a subcomponent of a repetition as it stands in the message.
pub(super) fn component_of(repetition: &str, component: usize, subcomponent: usize, delimiters: Delimiters) -> &str {
    nth(nth(repetition, Some(delimiters.component), component), delimiters.subcomponent, subcomponent)
}

/// Resolves escape sequences (HL7 2.5.1, 2.7). Formatting becomes space, and a sequence that is
/// unknown is left out. Control characters have no place in a DICOM value and become space.
pub(super) fn unescaped(text: &str, delimiters: Delimiters) -> String {
    let resolved = match delimiters.escape {
        Some(escape) if text.contains(escape) => Cow::Owned(resolve(text, escape, delimiters)),
        _ => Cow::Borrowed(text),
    };
    // A backslash would separate values in DICOM.
    let plain = resolved.chars().map(|c| {
        if c.is_control() {
            ' '
        } else if c == '\\' {
            '/'
        } else {
            c
        }
    });
    plain.collect::<String>().trim().to_owned()
}

fn resolve(text: &str, escape: char, delimiters: Delimiters) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(escape) {
        out.push_str(before);
        let Some((sequence, next)) = after.split_once(escape) else {
            // It never ends, so it is none.
            out.push(escape);
            rest = after;
            continue;
        };
        match sequence {
            "F" => out.push(delimiters.field),
            "S" => out.push(delimiters.component),
            "R" => out.push(delimiters.repetition),
            "E" => out.push(escape),
            "T" => out.extend(delimiters.subcomponent),
            _ if sequence.starts_with('.') => out.push(' '),
            // Others are highlighting (H, N), and changes of the character set, which is decoded
            // already. So are bytes (X).
            _ => {}
        }
        rest = next;
    }
    out.push_str(rest);
    out
}

/// Replaces the escape sequences of bytes (`X`) in a field. These are bytes of the character set of
/// the message (HL7 2.5.1, 2.7.1). What would be a delimiter stays an escape sequence.
fn with_hexadecimal(field: &str, escape: char, delimiters: Delimiters, sets: &CharacterSets) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once(escape) {
        out.push_str(before);
        // An escape sequence lies within a component.
        let sequence = after.split_once(escape).filter(|(sequence, _)| !delimiters.divide(sequence));
        let Some((sequence, next)) = sequence else {
            out.push(escape);
            rest = after;
            continue;
        };
        match sequence.strip_prefix('X').and_then(hexadecimal) {
            Some(bytes) => {
                for c in sets.decode(&bytes, TextForm::Text).text.chars() {
                    match delimiters.sequence_of(c) {
                        Some(letter) => out.extend([escape, letter, escape]),
                        None => out.push(c),
                    }
                }
            }
            None => {
                out.push(escape);
                out.push_str(sequence);
                out.push(escape);
            }
        }
        rest = next;
    }
    out.push_str(rest);
    out
}

fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    data_encoding::HEXUPPER_PERMISSIVE.decode(digits.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(text: &str) -> Message {
        Message::parse(text.as_bytes()).unwrap()
    }

    fn value(message: &Message, path: &str) -> String {
        let path: FieldPath = path.parse().unwrap();
        let segment = message.segment(&path.segment).unwrap();
        segment.text(path.field, path.component, path.subcomponent, message.delimiters)
    }

    #[test]
    fn a_message_is_divided_as_its_header_says() {
        for text in [
            "MSH|^~\\&|RIS|SITE||||||1|P|2.5\rPID|1||P1^^^ISS&1.2&ISO~P2||Doe^Jane\\T\\Mary\r",
            "MSH|^~\\&|RIS|SITE||||||1|P|2.5\nPID|1||P1^^^ISS&1.2&ISO~P2||Doe^Jane\\T\\Mary\n",
            "MSH|^~\\&|RIS|SITE||||||1|P|2.5\r\nPID|1||P1^^^ISS&1.2&ISO~P2||Doe^Jane\\T\\Mary",
            "MSH$*!%#$RIS$SITE$$$$$$1$P$2.5\rPID$1$$P1***ISS#1.2#ISO!P2$$Doe*Jane&Mary\r",
        ] {
            let message = message(text);
            assert_eq!(value(&message, "MSH-3"), "RIS");
            assert_eq!(message.header(10, 1), "1");
            assert_eq!(value(&message, "PID-3.1"), "P1");
            assert_eq!(value(&message, "PID-3.4"), "ISS");
            assert_eq!(value(&message, "PID-3.4.2"), "1.2");
            assert_eq!(value(&message, "PID-5.2"), "Jane&Mary");
            assert_eq!((value(&message, "PID-5"), value(&message, "PID-99")), ("Doe Jane&Mary".into(), String::new()));
        }
    }

    #[test]
    fn escape_sequences_are_resolved() {
        let message = message(
            "MSH|^~\\&|A\rOBX|a\\F\\b\\S\\c\\R\\d\\E\\e|x\\.br\\y\\H\\z\\N\\|\\X41C3A9\\|open\\end|\"\"|\\Zfoo\\k\r",
        );
        let field = |number| value(&message, &format!("OBX-{number}"));
        assert_eq!(field(1), "a|b^c~d/e", "a backslash would separate values in DICOM");
        assert_eq!((field(2), field(3)), ("x yz".into(), "Aé".into()));
        assert_eq!((field(4), field(5), field(6)), ("open/end".into(), String::new(), "k".into()));
    }

    // HL7 2.5.1, 2.7.1.
    #[test]
    fn escaped_bytes_are_of_the_character_set_of_the_message() {
        for (set, bytes, expected) in [
            ("8859/1", "M\\XFC\\ller", "Müller"),
            ("8859/2", "\\XB3\\", "ł"),
            ("UNICODE UTF-8", "M\\XC3BC\\ller", "Müller"),
            // What is wrong is read as text that does not name its set is.
            ("UNICODE UTF-8", "M\\XFC\\ller", "Müller"),
            ("", "M\\XFC\\ller", "Müller"),
            ("", "a\\X7C\\b\\X5E\\c\\X0D\\d", "a|b^c d"),
        ] {
            let message = message(&format!("MSH|^~\\&|A|||||||||||||||{set}\rPID|{bytes}|last\r"));
            assert_eq!(
                (value(&message, "PID-1.1"), value(&message, "PID-2")),
                (expected.into(), "last".into()),
                "{set}"
            );
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (bytes, error) in [
            (b"".as_slice(), MessageError::NoHeader),
            (b"GET / HTTP/1.1\r\n\r\n", MessageError::NoHeader),
            (b"MSH", MessageError::NoHeader),
            (b"MSH|", MessageError::Delimiters),
            (b"MSH|||", MessageError::Delimiters),
            (b"MSH|^^\\&|", MessageError::Delimiters),
            (b"MSHABCDEF", MessageError::Delimiters),
            (b"MSH|^~\\&||||||||||||||||KLINGON\r", MessageError::CharacterSet),
        ] {
            assert_eq!(Message::parse(bytes).unwrap_err(), error, "{}", String::from_utf8_lossy(bytes));
        }
        let long = [b"MSH|^~\\&|".as_slice(), &vec![b'x'; MAX_MESSAGE_LENGTH]].concat();
        assert_eq!(Message::parse(&long).unwrap_err(), MessageError::TooLong);
        let many = [b"MSH|^~\\&|\r".as_slice(), &b"NTE\r".repeat(MAX_SEGMENTS)].concat();
        assert_eq!(Message::parse(&many).unwrap_err(), MessageError::TooManySegments);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(fields in proptest::collection::vec("[a-zA-Z0-9 ÄÖÜé山]{0,8}", 1..20)) {
            let text = format!("MSH|^~\\&|A||||||||||||||||UNICODE UTF-8\rZZZ|{}\r", fields.join("|"));
            let read = message(&text);
            for (at, field) in fields.iter().enumerate() {
                let found = read.segment("ZZZ").unwrap().text(at + 1, Some(1), None, read.delimiters);
                prop_assert_eq!(found.as_str(), field.trim());
            }
        }

        #[test]
        fn a_value_never_holds_what_dicom_would_read_otherwise(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let whole = [b"MSH|^~\\&|A\rPID|".as_slice(), &bytes].concat();
            if let Ok(read) = Message::parse(&whole) {
                for segment in &read.segments {
                    for field in 1..10 {
                        let text = segment.text(field, None, None, read.delimiters);
                        prop_assert!(!text.contains('\\') && !text.contains(char::is_control));
                    }
                }
            }
        }
    }
}
