//! From the bytes of a message to text, by MSH-18 (HL7 table 0211).

use std::borrow::Cow;

use super::error::MessageError;
use crate::encoding::charset::{CharacterSets, TextForm};

/// A message as text, and its character set as Specific Character Set (0008,0005).
pub(super) struct DecodedMessage {
    pub(super) text: String,
    pub(super) character_set: String,
}

/// Unicode in UTF-8.
const UTF_8: &str = "ISO_IR 192";

/// Decodes a message.
///
/// A message in UTF-16 is recognised by its first bytes, because its header can be read in no other
/// way. Without MSH-18, bytes that are valid UTF-8 are that, and others are Latin-1.
pub(super) fn decoded(bytes: &[u8]) -> Result<DecodedMessage, MessageError> {
    if let Some(encoding) = utf_16(bytes) {
        let (text, _) = encoding.decode_with_bom_removal(bytes);
        return Ok(DecodedMessage { text: text.into_owned(), character_set: UTF_8.to_owned() });
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let named = named(bytes);
    if matches!(named.as_slice(), [one] if matches!(one.as_str(), "BIG-5" | "BIG5")) {
        let (text, _) = encoding_rs::BIG5.decode_without_bom_handling(bytes);
        return Ok(DecodedMessage { text: text.into_owned(), character_set: UTF_8.to_owned() });
    }
    let character_set = specific_character_set(&named)?;
    let text = match std::str::from_utf8(bytes) {
        // Whatever else MSH-18 says, ASCII is ASCII. An escape sequence is not.
        Ok(text) if character_set.is_empty() || character_set == UTF_8 || text.is_ascii() && !bytes.contains(&0x1B) => {
            Cow::Borrowed(text)
        }
        _ if character_set.is_empty() => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0,
        _ => Cow::Owned(CharacterSets::new(&character_set).decode(bytes, TextForm::Text).text.into_owned()),
    };
    let character_set = match character_set {
        unnamed if unnamed.is_empty() && !text.is_ascii() => UTF_8.to_owned(),
        named => named,
    };
    Ok(DecodedMessage { text: text.into_owned(), character_set })
}

/// UTF-16 begins with a mark, or with `M` and a zero byte.
fn utf_16(bytes: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    match bytes {
        [0xFF, 0xFE, ..] | [b'M', 0, b'S', 0, ..] => Some(encoding_rs::UTF_16LE),
        [0xFE, 0xFF, ..] | [0, b'M', 0, b'S', ..] => Some(encoding_rs::UTF_16BE),
        _ => None,
    }
}

/// The values of MSH-18, in capitals.
fn named(bytes: &[u8]) -> Vec<String> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n' | b' ')).unwrap_or(0);
    let header = bytes.get(start..).unwrap_or_default();
    let header = header.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let Some(&field) = header.get(3) else { return Vec::new() };
    let repetition = header.get(5).copied().unwrap_or(b'~');
    // MSH-1 is the delimiter itself, so MSH-18 is behind the 17th.
    let value = header.split(|byte| *byte == field).nth(17).unwrap_or_default();
    let names = value.split(|byte| *byte == repetition).map(|name| String::from_utf8_lossy(name).trim().to_uppercase());
    let names: Vec<_> = names.collect();
    if names.iter().all(String::is_empty) { Vec::new() } else { names }
}

/// Converts the names of HL7 to Specific Character Set.
fn specific_character_set(named: &[String]) -> Result<String, MessageError> {
    let mut terms = Vec::new();
    for name in named {
        let term = match name.as_str() {
            "" | "ASCII" | "ISO IR6" | "US-ASCII" => "",
            "8859/1" | "ISO-8859-1" | "ISO8859-1" => "ISO_IR 100",
            "8859/2" => "ISO_IR 101",
            "8859/3" => "ISO_IR 109",
            "8859/4" => "ISO_IR 110",
            "8859/5" => "ISO_IR 144",
            "8859/6" => "ISO_IR 127",
            "8859/7" => "ISO_IR 126",
            "8859/8" => "ISO_IR 138",
            "8859/9" => "ISO_IR 148",
            "8859/15" => "ISO_IR 203",
            "UNICODE" | "UNICODE UTF-8" | "UTF-8" | "UTF8" => UTF_8,
            "ISO IR14" => "ISO_IR 13",
            "ISO IR87" => "ISO 2022 IR 87",
            "ISO IR159" => "ISO 2022 IR 159",
            "KS X 1001" => "ISO 2022 IR 149",
            "GB 18030-2000" | "GB18030" => "GB18030",
            _ => return Err(MessageError::CharacterSet),
        };
        terms.push(term);
    }
    if terms.len() == 1 && terms.iter().all(|term| !term.starts_with("ISO 2022")) {
        return Ok(terms.concat());
    }
    // Several sets are those with code extensions. In place of the first, the default repertoire
    // may stand (PS3.3 C.12.1.1.2).
    let mut extended: Vec<_> = terms.iter().map(|term| term.replace("ISO_IR", "ISO 2022 IR")).collect();
    if extended.len() == 1 {
        extended.insert(0, String::new());
    }
    Ok(extended.join("\\"))
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;

    fn name(set: &str, bytes: &[u8]) -> (String, String) {
        let header = format!("MSH|^~\\&|A|||||||||||||||{set}\rPID|||1||");
        let read = Message::parse(&[header.as_bytes(), bytes, b"|x\r"].concat()).unwrap();
        let pid = read.segment("PID").unwrap();
        assert_eq!(pid.text(6, Some(1), None, read.delimiters), "x", "the next field is where it was");
        (pid.text(5, Some(1), None, read.delimiters), read.character_set.clone())
    }

    #[test]
    fn names_are_read_in_the_set_that_the_header_names() {
        for (set, bytes, text, term) in [
            ("", b"M\xC3\xBCller".as_slice(), "Müller", "ISO_IR 192"),
            ("", b"M\xFCller", "Müller", "ISO_IR 192"),
            ("8859/1", b"M\xFCller", "Müller", "ISO_IR 100"),
            ("8859/2", b"\xA3ukasz", "Łukasz", "ISO_IR 101"),
            ("8859/5", b"\xBB", "Л", "ISO_IR 144"),
            ("UNICODE UTF-8", "山田".as_bytes(), "山田", "ISO_IR 192"),
            // Bytes of these characters are those of delimiters.
            ("ASCII~ISO IR87", b"\x1B$B;3ED\x1B(B", "山田", "\\ISO 2022 IR 87"),
            ("ISO IR87", b"\x1B$B;~\x1B(B", "時", "\\ISO 2022 IR 87"),
            ("GB 18030-2000", b"\xCD\xF5", "王", "GB18030"),
            ("BIG-5", b"\xB3\x5C", "許", "ISO_IR 192"),
        ] {
            let (found, known_as) = name(set, bytes);
            assert!(found.starts_with(text), "{set}: {found}");
            assert_eq!(known_as, term, "{set}");
        }
    }

    #[test]
    fn utf_16_is_recognised_by_its_first_bytes() {
        let text = "MSH|^~\\&|A||||||||||||||||UNICODE UTF-16\rPID|||1||山田^太郎\r";
        for with_mark in [false, true] {
            for big in [false, true] {
                let units = with_mark.then_some(0xFEFF).into_iter().chain(text.encode_utf16());
                let bytes: Vec<u8> =
                    units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect();
                let read = Message::parse(&bytes).unwrap();
                assert_eq!(read.segment("PID").unwrap().text(5, Some(2), None, read.delimiters), "太郎");
            }
        }
    }
}
