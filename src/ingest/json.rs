//! Wanted sequences: from events of the tokenizer to the DICOM JSON Model (PS3.18 annex F).
//!
//! While a wanted sequence is walked, its items and values are noted in a flat form that no longer depends on the
//! transfer syntax. The text is made at the end, with the character set of the data set and of each item known.

use dicom_core::{Tag, VR};

use crate::model::charset::{CharacterSets, TextForm};
use crate::model::declared::{Node, Step, canonical_tag, creator_tag, is_private_creator};
use crate::model::value::{for_each_number, for_each_tag, push_one};

use crate::encoding::tag::{tag_number, tag_of};
use crate::encoding::vr;

/// An item starts.
pub(super) const ITEM: u8 = 1;
/// The innermost item or nested sequence ends.
pub(super) const END: u8 = 2;
const SEQUENCE: u8 = 3;
const VALUE: u8 = 4;

const SPECIFIC_CHARACTER_SET: u32 = 0x0008_0005;

/// Notes the start of a nested sequence.
pub(super) fn push_sequence(raw: &mut Vec<u8>, tag: u32) {
    raw.push(SEQUENCE);
    raw.extend(tag.to_le_bytes());
}

/// Notes an element; its `length` bytes follow.
pub(super) fn push_value(raw: &mut Vec<u8>, tag: u32, vr: VR, big: bool, length: usize) {
    raw.push(VALUE);
    raw.extend(tag.to_le_bytes());
    raw.extend(vr.to_string().as_bytes());
    raw.push(u8::from(big));
    raw.extend((length as u32).to_le_bytes());
}

enum Event<'a> {
    Item,
    End,
    Sequence(u32),
    Value { tag: u32, vr: VR, big: bool, bytes: &'a [u8] },
}

struct Events<'a>(&'a [u8]);

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        let (kind, rest) = self.0.split_first()?;
        let (event, rest) = match *kind {
            ITEM => (Event::Item, rest),
            END => (Event::End, rest),
            SEQUENCE => {
                let (tag, rest) = rest.split_first_chunk()?;
                (Event::Sequence(u32::from_le_bytes(*tag)), rest)
            }
            _ => {
                let (tag, rest) = rest.split_first_chunk()?;
                let (vr, rest) = rest.split_first_chunk()?;
                let (big, rest) = rest.split_first()?;
                let (length, rest) = rest.split_first_chunk()?;
                let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                let vr = vr::of(*vr).unwrap_or(VR::UN);
                (Event::Value { tag: u32::from_le_bytes(*tag), vr, big: *big != 0, bytes }, rest)
            }
        };
        self.0 = rest;
        Some(event)
    }
}

/// What [`END`] closes.
enum Open {
    Item,
    Sequence,
    EmptySequence,
}

/// Copies of the items of a wanted sequence what is declared in them. Private elements are moved to the blocks of
/// [`canonical_tag`], with their creators.
pub(super) fn cut_down(raw: &[u8], wanted: &[Node], sets: &CharacterSets, out: &mut Vec<u8>) {
    /// An open item or sequence: what is wanted in it, all where there is nothing; of an item, who reserves which block.
    struct Level<'w> {
        wanted: &'w [Node],
        creators: Vec<(Tag, String)>,
        /// Canonical creators that the item has got already.
        written: Vec<Tag>,
    }
    let mut levels: Vec<Level<'_>> = Vec::new();
    let sequence = |wanted| Level { wanted, creators: Vec::new(), written: Vec::new() };
    // Sequences and items that are open inside of one that is not wanted.
    let mut unwanted = 0_usize;
    for event in Events(raw) {
        if unwanted > 0 {
            match event {
                Event::Item | Event::Sequence(_) => unwanted += 1,
                Event::End => unwanted -= 1,
                Event::Value { .. } => {}
            }
            continue;
        }
        match event {
            Event::Item => {
                out.push(ITEM);
                levels.push(sequence(levels.last().map_or(wanted, |level| level.wanted)));
            }
            Event::End => {
                out.push(END);
                levels.pop();
            }
            Event::Sequence(number) => {
                let Some(level) = levels.last_mut() else { continue };
                match find(level.wanted, &level.creators, number) {
                    None => unwanted = 1,
                    Some((number, creator, node)) => {
                        push_creator(out, &mut level.written, creator);
                        push_sequence(out, number);
                        levels.push(sequence(node.map_or(&[], |node| node.items.as_slice())));
                    }
                }
            }
            Event::Value { tag: number, vr, big, bytes } => {
                let Some(level) = levels.last_mut() else { continue };
                let tag = tag_of(number);
                if is_private_creator(tag) && !level.wanted.is_empty() {
                    let mut creator = String::new();
                    crate::model::value::push_text(&mut creator, VR::LO, big, bytes, sets);
                    level.creators.push((tag, creator));
                    continue;
                }
                if number == SPECIFIC_CHARACTER_SET {
                    push_value(out, number, vr, big, bytes.len());
                    out.extend_from_slice(bytes);
                } else if let Some((number, creator, node)) = find(level.wanted, &level.creators, number) {
                    push_creator(out, &mut level.written, creator);
                    let vr = node.filter(|node| vr == VR::UN && node.vr != VR::SQ).map_or(vr, |node| node.vr);
                    push_value(out, number, vr, big, bytes.len());
                    out.extend_from_slice(bytes);
                }
            }
        }
    }
}

/// The tag under which an element of an item is kept, with the creator of its block, and what it is wanted as; `None` where
/// it is not.
type Found<'w> = (u32, Option<(Tag, &'w str)>, Option<&'w Node>);

fn find<'w>(wanted: &'w [Node], creators: &[(Tag, String)], number: u32) -> Option<Found<'w>> {
    if wanted.is_empty() {
        return Some((number, None, None));
    }
    let tag = tag_of(number);
    let creator = creator_tag(tag).and_then(|tag| creators.iter().find(|(known, _)| *known == tag));
    let node = wanted.iter().find(|node| node.step.is(tag, creator.map(|(_, creator)| creator.as_str())))?;
    let (kept, block) = canonical_tag(wanted, &node.step);
    let creator = match &node.step {
        Step::Private { creator, .. } => block.map(|block| (block, creator.as_str())),
        Step::Public(_) => None,
    };
    Some((tag_number(kept), creator, Some(node)))
}

/// Notes the creator of a block, once in each item.
fn push_creator(out: &mut Vec<u8>, written: &mut Vec<Tag>, creator: Option<(Tag, &str)>) {
    let Some((tag, creator)) = creator.filter(|(tag, _)| !written.contains(tag)) else { return };
    written.push(tag);
    push_value(out, tag_number(tag), VR::LO, false, creator.len());
    out.extend_from_slice(creator.as_bytes());
}

/// Appends the items of a wanted sequence as a JSON array; false when some text was not in its character set.
pub(super) fn push_items(out: &mut String, raw: &[u8], root: &CharacterSets) -> bool {
    let mut faithful = true;
    // One entry for each open item: the character sets that it inherited (PS3.3 C.12.1.1.2), to go back to.
    let mut inherited: Vec<CharacterSets> = Vec::new();
    let mut sets = root.clone();
    let mut open = Vec::new();
    let mut comma = false;
    out.push('[');
    let mut events = Events(raw).peekable();
    while let Some(event) = events.next() {
        if comma && !matches!(event, Event::End) {
            out.push(',');
        }
        comma = true;
        match event {
            Event::Item => {
                out.push('{');
                inherited.push(sets.clone());
                open.push(Open::Item);
                comma = false;
            }
            Event::Sequence(tag) => {
                push_key(out, tag, VR::SQ);
                // PS3.18 F.2.5: no Value member for a sequence without items.
                let is_empty = matches!(events.peek(), Some(Event::End));
                out.push_str(if is_empty { "" } else { ",\"Value\":[" });
                open.push(if is_empty { Open::EmptySequence } else { Open::Sequence });
                comma = false;
            }
            Event::End => match open.pop() {
                Some(Open::Item) => {
                    out.push('}');
                    sets = inherited.pop().unwrap_or_else(|| root.clone());
                }
                Some(Open::Sequence) => out.push_str("]}"),
                Some(Open::EmptySequence) => out.push('}'),
                None => {}
            },
            Event::Value { tag, vr, big, bytes } => {
                if tag == SPECIFIC_CHARACTER_SET {
                    sets = CharacterSets::new(&String::from_utf8_lossy(bytes));
                    faithful &= sets.recognised();
                }
                faithful &= push_element(out, tag, vr, big, bytes, &sets);
            }
        }
    }
    out.push(']');
    faithful
}

/// Appends the start of a member: `"GGGGEEEE":{"vr":"..."`.
fn push_key(out: &mut String, tag: u32, vr: VR) {
    out.push('"');
    for shift in (0..8).rev() {
        let digit = tag >> (shift * 4) & 15;
        out.push(char::from_digit(digit, 16).unwrap_or('0').to_ascii_uppercase());
    }
    out.push_str("\":{\"vr\":\"");
    out.push_str(vr.to_string());
    out.push('"');
}

/// Appends one member of an item: `"GGGGEEEE":{"vr":...,"Value":[...]}`.
fn push_element(out: &mut String, tag: u32, vr: VR, big: bool, bytes: &[u8], sets: &CharacterSets) -> bool {
    push_key(out, tag, vr);
    let mut values = Values { out, empty: true };
    let mut faithful = true;
    match vr {
        VR::US => for_each_number(bytes, big, u16::from_le_bytes, |n| values.push(|out| out.push_str(&n.to_string()))),
        VR::SS => for_each_number(bytes, big, i16::from_le_bytes, |n| values.push(|out| out.push_str(&n.to_string()))),
        VR::UL => for_each_number(bytes, big, u32::from_le_bytes, |n| values.push(|out| out.push_str(&n.to_string()))),
        VR::SL => for_each_number(bytes, big, i32::from_le_bytes, |n| values.push(|out| out.push_str(&n.to_string()))),
        VR::UV => for_each_number(bytes, big, u64::from_le_bytes, |n| values.push(|out| out.push_str(&n.to_string()))),
        VR::SV => for_each_number(bytes, big, i64::from_le_bytes, |n| values.push(|out| out.push_str(&n.to_string()))),
        VR::FL => for_each_number(bytes, big, f32::from_le_bytes, |n| {
            values.push(|out| push_float(out, &n.to_string(), |read| read as f32 == n));
        }),
        VR::FD => {
            for_each_number(bytes, big, f64::from_le_bytes, |n| {
                values.push(|out| push_float(out, &n.to_string(), |read| read == n))
            });
        }
        VR::AT => for_each_tag(bytes, big, |_, group, element| {
            values.push(|out| out.push_str(&format!("\"{group:04X}{element:04X}\"")));
        }),
        VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW | VR::UN | VR::SQ => {
            if !bytes.is_empty() {
                out.push_str(",\"InlineBinary\":\"");
                push_base64(out, bytes);
                out.push('"');
            }
            out.push('}');
            return true;
        }
        _ => {
            let form = TextForm::of(vr);
            let decoded = sets.decode(bytes, form);
            faithful = decoded.faithful;
            let text = decoded.text.trim_end_matches([' ', '\0']);
            if !text.is_empty() {
                let mut one = String::new();
                let mut push = |value| {
                    one.clear();
                    push_one(&mut one, vr, value);
                    values.push(|out| push_text_value(out, vr, &one));
                };
                match form {
                    TextForm::Text => push(text),
                    _ => text.split('\\').for_each(push),
                }
            }
        }
    }
    if !values.empty {
        out.push(']');
    }
    out.push('}');
    faithful
}

/// The array of values; it only appears with the first one (PS3.18 F.2.5: no member for an empty element).
struct Values<'o> {
    out: &'o mut String,
    empty: bool,
}

impl Values<'_> {
    fn push(&mut self, write: impl FnOnce(&mut String)) {
        self.out.push_str(if self.empty { ",\"Value\":[" } else { "," });
        self.empty = false;
        write(self.out);
    }
}

/// PS3.18 F.2.3: IS and DS as numbers where a reader makes the same text of the number, else as strings, which it allows;
/// PN as an object, an empty value as null.
fn push_text_value(out: &mut String, vr: VR, text: &str) {
    match vr {
        _ if text.is_empty() => out.push_str("null"),
        VR::IS | VR::DS if survives_as_number(text) => out.push_str(text),
        VR::PN => {
            let mut separator = '{';
            for (group, name) in text.split('=').zip(["Alphabetic", "Ideographic", "Phonetic"]) {
                if !group.is_empty() {
                    out.push(separator);
                    separator = ',';
                    out.push('"');
                    out.push_str(name);
                    out.push_str("\":");
                    push_string(out, group);
                }
            }
            if separator == '{' { out.push_str("null") } else { out.push('}') }
        }
        _ => push_string(out, text),
    }
}

/// Whether a text is the same again after it was a number: `1.50`, `-0` and `1E400` are not.
fn survives_as_number(text: &str) -> bool {
    // Nearly all are short integers.
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    if matches!(digits, [b'1'..=b'9', rest @ ..] if rest.len() < 15 && rest.iter().all(u8::is_ascii_digit)) {
        return true;
    }
    is_json_number(text)
        && serde_json::from_str::<serde_json::Number>(text).is_ok_and(|number| number.to_string() == text)
}

/// RFC 8259, section 6.
fn is_json_number(text: &str) -> bool {
    fn digits(text: &[u8]) -> &[u8] {
        let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
        text.split_at(end).1
    }
    let text = text.as_bytes();
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let mut rest = match text {
        [b'0', rest @ ..] => rest,
        [b'1'..=b'9', rest @ ..] => digits(rest),
        _ => return false,
    };
    if let [b'.', b'0'..=b'9', after @ ..] = rest {
        rest = digits(after);
    }
    if let [b'e' | b'E', after @ ..] = rest {
        let after = after.strip_prefix(b"+").or(after.strip_prefix(b"-")).unwrap_or(after);
        let [b'0'..=b'9', after @ ..] = after else { return false };
        rest = digits(after);
    }
    rest.is_empty()
}

/// PS3.18 F.2.2: what JSON has no number for is a string, and so is what a reader would make another number of.
fn push_float(out: &mut String, text: &str, is_same: impl Fn(f64) -> bool) {
    if serde_json::from_str(text).is_ok_and(is_same) {
        out.push_str(text);
    } else {
        push_string(out, text);
    }
}

fn push_string(out: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        out.push_str(&serde_json::Value::from(text).to_string());
        return;
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// RFC 4648, section 4.
fn push_base64(out: &mut String, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                let sextet = bits >> (18 - 6 * place) & 63;
                out.push(ALPHABET.get(sextet as usize).map_or('=', |c| char::from(*c)));
            } else {
                out.push('=');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u32, vr: VR, bytes: &[u8], sets: &str) -> String {
        let mut out = String::new();
        assert!(push_element(&mut out, tag, vr, false, bytes, &CharacterSets::new(sets)));
        out
    }

    // PS3.18 F.2.3 and F.4
    #[test]
    fn elements_look_as_in_the_standard() {
        assert_eq!(element(0x0008_0060, VR::CS, b"CT", ""), r#""00080060":{"vr":"CS","Value":["CT"]}"#);
        assert_eq!(element(0x0008_0060, VR::CS, b"", ""), r#""00080060":{"vr":"CS"}"#);
        assert_eq!(element(0x0008_0061, VR::CS, b"CT\\\\MR", ""), r#""00080061":{"vr":"CS","Value":["CT",null,"MR"]}"#);
        assert_eq!(element(0x0020_0013, VR::IS, b"12", ""), r#""00200013":{"vr":"IS","Value":[12]}"#);
        assert_eq!(
            element(0x0010_1020, VR::DS, b"+1.5\\.5\\2", ""),
            r#""00101020":{"vr":"DS","Value":["+1.5",".5",2]}"#
        );
        assert_eq!(
            element(0x0010_0010, VR::PN, b"Wang^XiaoDong=\xE7\x8E\x8B^\xE5\xB0\x8F=", "ISO_IR 192"),
            r#""00100010":{"vr":"PN","Value":[{"Alphabetic":"Wang^XiaoDong","Ideographic":"王^小"}]}"#
        );
        assert_eq!(element(0x0040_A160, VR::UT, b"\"a\\b\"\n", ""), r#""0040A160":{"vr":"UT","Value":["\"a\\b\"\n"]}"#);
        assert_eq!(element(0x0028_0010, VR::US, b"\x00\x02", ""), r#""00280010":{"vr":"US","Value":[512]}"#);
        assert_eq!(
            element(0x0028_0009, VR::AT, b"\x18\0\x63\x10", ""),
            r#""00280009":{"vr":"AT","Value":["00181063"]}"#
        );
        assert_eq!(
            element(0x0018_9073, VR::FD, &f64::NAN.to_le_bytes(), ""),
            r#""00189073":{"vr":"FD","Value":["NaN"]}"#
        );
        let odd = r"1.50\-0\1E400\1e5\007\12345678901234567890123\0.1\-7\0";
        assert_eq!(
            element(0x0010_1020, VR::DS, odd.as_bytes(), ""),
            concat!(
                r#""00101020":{"vr":"DS","Value":["1.50","-0","1E400","1e5","007","#,
                r#""12345678901234567890123",0.1,-7,0]}"#
            )
        );
        for text in ["0", "-1", "10.5", "1e5", "1.0E-10", "-0.1"] {
            assert!(is_json_number(text) && serde_json::from_str::<serde_json::Number>(text).is_ok(), "{text}");
        }
        for text in ["", "-", "+1", "01", "1.", ".5", "1e", "1e+", "0x1", "1 2", "NaN", "--1"] {
            assert!(!is_json_number(text) && serde_json::from_str::<serde_json::Number>(text).is_err(), "{text}");
        }
        for (bytes, text) in [(&b"f"[..], "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"foobar", "Zm9vYmFy")] {
            assert_eq!(
                element(0x0009_1001, VR::UN, bytes, ""),
                format!(r#""00091001":{{"vr":"UN","InlineBinary":"{text}"}}"#)
            );
        }
    }

    #[test]
    fn every_number_is_read_as_it_was_written() {
        let seeds = (1..2_000_u64).map(|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for number in seeds.map(f64::from_bits).chain([f64::MAX, f64::MIN_POSITIVE, 5e-324, 0.1, -0.0]) {
            let json = format!("{{{}}}", element(0x0018_9073, VR::FD, &number.to_le_bytes(), ""));
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            let text = crate::model::matching::joined_values(json["00189073"]["Value"].as_array().unwrap());
            let read: f64 = text.parse().unwrap();
            assert!(read == number || read.is_nan() && number.is_nan(), "{number} became {text}");
        }
    }

    #[test]
    fn an_item_has_its_own_character_set_and_only_it() {
        let mut raw = Vec::new();
        let value = |raw: &mut Vec<u8>, tag, vr, bytes: &[u8]| {
            push_value(raw, tag, vr, false, bytes.len());
            raw.extend(bytes);
        };
        raw.push(ITEM);
        value(&mut raw, SPECIFIC_CHARACTER_SET, VR::CS, b"ISO_IR 144");
        value(&mut raw, 0x0008_0104, VR::LO, b"\xbb");
        push_sequence(&mut raw, 0x0040_A730);
        raw.push(ITEM);
        value(&mut raw, 0x0008_0104, VR::LO, b"\xbb");
        raw.extend([END, END, END, ITEM]);
        value(&mut raw, 0x0008_0104, VR::LO, b"\xe9");
        raw.push(END);
        let mut out = String::new();
        assert!(push_items(&mut out, &raw, &CharacterSets::new("ISO_IR 100")));
        assert_eq!(
            out,
            concat!(
                r#"[{"00080005":{"vr":"CS","Value":["ISO_IR 144"]},"00080104":{"vr":"LO","Value":["Л"]},"#,
                r#""0040A730":{"vr":"SQ","Value":[{"00080104":{"vr":"LO","Value":["Л"]}}]}},"#,
                r#"{"00080104":{"vr":"LO","Value":["é"]}}]"#
            )
        );
    }
}
