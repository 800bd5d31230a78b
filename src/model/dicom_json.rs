//! Elements in the DICOM JSON Model (PS3.18 annex F).

use data_encoding::BASE64;
use dicom_core::VR;
use serde::Deserialize;
use serde_json::Value;

use super::value::{for_each_number, for_each_tag, push_one};
use crate::encoding::charset::{CharacterSets, TextForm};
use crate::encoding::padding::without_trailing_padding;
use crate::encoding::vr::{can_be_encoded, is_binary};

/// Reads the items of a sequence that is stored as a JSON array.
///
/// # Errors
/// If the text is no JSON array.
pub(crate) fn read_items(text: &str) -> serde_json::Result<Vec<Value>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // The default limit of `serde_json` is less than `MAX_DEPTH` of ingest allows. One deep item
    // would then hide all items.
    deserializer.disable_recursion_limit();
    let items = Vec::deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(items)
}

/// Appends the start of an element: `"GGGGEEEE":{"vr":"..."`.
pub(crate) fn push_key(out: &mut String, tag: u32, vr: VR) {
    out.push('"');
    for shift in (0..8).rev() {
        let digit = tag >> (shift * 4) & 15;
        out.push(char::from_digit(digit, 16).unwrap_or('0').to_ascii_uppercase());
    }
    out.push_str("\":{\"vr\":\"");
    out.push_str(vr.to_string());
    out.push('"');
}

/// Appends one element: `"GGGGEEEE":{"vr":...,"Value":[...]}`. Returns false if its character set
/// cannot decode it.
pub(crate) fn push_element(
    out: &mut String,
    tag: u32,
    vr: VR,
    big_endian: bool,
    bytes: &[u8],
    sets: &CharacterSets,
) -> bool {
    push_key(out, tag, vr);
    let mut values = Values { out, empty: true };
    let mut faithful = true;
    match vr {
        VR::US => values.push_integers(bytes, big_endian, u16::from_le_bytes),
        VR::SS => values.push_integers(bytes, big_endian, i16::from_le_bytes),
        VR::UL => values.push_integers(bytes, big_endian, u32::from_le_bytes),
        VR::SL => values.push_integers(bytes, big_endian, i32::from_le_bytes),
        VR::UV => values.push_integers(bytes, big_endian, u64::from_le_bytes),
        VR::SV => values.push_integers(bytes, big_endian, i64::from_le_bytes),
        VR::FL => for_each_number(bytes, big_endian, f32::from_le_bytes, |n| {
            values.push(|out| push_float(out, &n.to_string(), |read| read as f32 == n));
        }),
        VR::FD => {
            for_each_number(bytes, big_endian, f64::from_le_bytes, |n| {
                values.push(|out| push_float(out, &n.to_string(), |read| read == n))
            });
        }
        VR::AT => for_each_tag(bytes, big_endian, |_, group, element| {
            values.push(|out| out.push_str(&format!("\"{group:04X}{element:04X}\"")));
        }),
        vr if is_binary(vr) || vr == VR::SQ => {
            if !bytes.is_empty() {
                out.push_str(",\"InlineBinary\":\"");
                BASE64.encode_append(bytes, out);
                out.push('"');
            }
            out.push('}');
            return true;
        }
        _ => {
            let form = TextForm::of(vr);
            let decoded = sets.decode(bytes, form);
            faithful = decoded.faithful;
            let text = without_trailing_padding(&decoded.text);
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

/// The array of values. It is opened with the first value, because an empty element has no `Value`
/// member (PS3.18 F.2.5).
struct Values<'o> {
    out: &'o mut String,
    empty: bool,
}

impl Values<'_> {
    fn push_integers<const N: usize, T: ToString>(
        &mut self,
        bytes: &[u8],
        big_endian: bool,
        from_le: fn([u8; N]) -> T,
    ) {
        for_each_number(bytes, big_endian, from_le, |number| self.push(|out| out.push_str(&number.to_string())));
    }

    fn push(&mut self, write: impl FnOnce(&mut String)) {
        self.out.push_str(if self.empty { ",\"Value\":[" } else { "," });
        self.empty = false;
        write(self.out);
    }
}

/// Appends one value that is text (PS3.18 F.2.3).
///
/// IS and DS become numbers if a reader turns the number back into the same text. Otherwise they
/// are strings, which PS3.18 F.2.3 allows. A person name becomes an object, and an empty value
/// becomes null.
pub(crate) fn push_text_value(out: &mut String, vr: VR, text: &str) {
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

/// Whether a number has the same text again after parsing. `1.50`, `-0` and `1E400` do not.
fn survives_as_number(text: &str) -> bool {
    // Fast path: nearly all values are short integers.
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    if matches!(digits, [b'1'..=b'9', rest @ ..] if rest.len() < 15 && rest.iter().all(u8::is_ascii_digit)) {
        return true;
    }
    is_json_number(text)
        && serde_json::from_str::<serde_json::Number>(text).is_ok_and(|number| number.to_string() == text)
}

/// Whether the text is a number in JSON (RFC 8259, section 6).
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

/// Appends a floating point number (PS3.18 F.2.2). It is a string if JSON cannot express it, or if
/// a reader would get another number.
pub(crate) fn push_float(out: &mut String, text: &str, is_same: impl Fn(f64) -> bool) {
    if serde_json::from_str(text).is_ok_and(is_same) {
        out.push_str(text);
    } else {
        push_string(out, text);
    }
}

pub(crate) fn push_string(out: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        out.push_str(&serde_json::Value::from(text).to_string());
        return;
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// Appends an element whose value is text in the form of [`super::record::InstanceRecord`].
/// Sequences are not supported. Text that its VR cannot hold as numbers or tags has no values, as
/// in an encoded data set.
pub(crate) fn push_stored(out: &mut String, tag: u32, vr: VR, text: &str) {
    push_key(out, tag, vr);
    if !text.is_empty() && text.split('\\').all(|one| can_be_encoded(vr, one.trim())) {
        let mut values = Values { out, empty: true };
        let push = |one: &str| values.push(|out| push_stored_value(out, vr, one));
        match TextForm::of(vr) {
            TextForm::Text => [text].into_iter().for_each(push),
            _ => text.split('\\').for_each(push),
        }
        out.push(']');
    }
    out.push('}');
}

fn push_stored_value(out: &mut String, vr: VR, text: &str) {
    match vr {
        VR::US | VR::SS | VR::UL | VR::SL | VR::UV | VR::SV if survives_as_number(text) => out.push_str(text),
        VR::FL | VR::FD => match text.parse::<f64>() {
            Ok(number) => push_float(out, text, |read| read == number),
            Err(_) => push_string(out, text),
        },
        _ => push_text_value(out, vr, text),
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

    fn stored(tag: u32, vr: VR, text: &str) -> String {
        let mut out = String::new();
        push_stored(&mut out, tag, vr, text);
        out
    }

    #[test]
    fn kept_values_look_like_those_that_were_read() {
        let same = |tag, vr, bytes: &[u8], text: &str| {
            assert_eq!(stored(tag, vr, text), element(tag, vr, bytes, "ISO_IR 192"), "{text}");
        };
        same(0x0008_0061, VR::CS, b"CT\\\\MR", "CT\\\\MR");
        same(0x0020_0013, VR::IS, b"12", "12");
        same(0x0010_0010, VR::PN, b"A^B=\xE7\x8E\x8B", "A^B=\u{738b}");
        same(0x0032_4000, VR::LT, b"a\\b", "a\\b");
        same(0x0028_0010, VR::US, b"\x00\x02", "512");
        same(0x0028_0009, VR::AT, b"\x18\0\x63\x10", "00181063");
        same(0x0018_9073, VR::FD, &1.5_f64.to_le_bytes(), "1.5");
        same(0x0018_9073, VR::FD, &f64::NAN.to_le_bytes(), "NaN");
        same(0x0008_0020, VR::DA, b"", "");
        for odd in ["x", "70000", "-1", "1.5", "1\\70000"] {
            assert_eq!(stored(0x0028_0010, VR::US, odd), r#""00280010":{"vr":"US"}"#, "{odd}");
        }
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
}
