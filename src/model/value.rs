//! Converts the bytes of an element to text. Text is decoded, insignificant padding is removed
//! (PS3.5 6.2), and legacy forms are corrected.

use dicom_core::VR;

use crate::encoding::charset::{CharacterSets, TextForm};
use crate::encoding::padding::without_trailing_padding;

/// Appends the text of a value. Returns false if its character set cannot decode it.
///
/// Several values are joined by `\`. Binary numbers become decimal text.
pub fn push_text(out: &mut String, vr: VR, big_endian: bool, bytes: &[u8], sets: &CharacterSets) -> bool {
    match vr {
        VR::US => push_numbers(out, bytes, big_endian, u16::from_le_bytes),
        VR::SS => push_numbers(out, bytes, big_endian, i16::from_le_bytes),
        VR::UL => push_numbers(out, bytes, big_endian, u32::from_le_bytes),
        VR::SL => push_numbers(out, bytes, big_endian, i32::from_le_bytes),
        VR::UV => push_numbers(out, bytes, big_endian, u64::from_le_bytes),
        VR::SV => push_numbers(out, bytes, big_endian, i64::from_le_bytes),
        VR::FL => push_numbers(out, bytes, big_endian, f32::from_le_bytes),
        VR::FD => push_numbers(out, bytes, big_endian, f64::from_le_bytes),
        VR::AT => {
            for_each_tag(bytes, big_endian, |index, group, element| {
                if index > 0 {
                    out.push('\\');
                }
                out.push_str(&format!("{group:04X}{element:04X}"));
            });
        }
        _ => {
            if let Some(text) = plain(bytes, vr) {
                push_clean(out, vr, text);
                return true;
            }
            if vr == VR::UI && bytes.contains(&0x1B) {
                // A UID has no escape sequences (PS3.5 6.1.2.2). The bytes stay in it: see
                // `push_one`.
                push_trimmed(out, vr, &String::from_utf8_lossy(bytes));
                return false;
            }
            let decoded = sets.decode(bytes, TextForm::of(vr));
            push_trimmed(out, vr, &decoded.text);
            return decoded.faithful;
        }
    }
    true
}

/// Fast path for most values: a single value in ASCII, without an escape sequence and without NUL
/// except as padding.
#[inline]
fn plain(bytes: &[u8], vr: VR) -> Option<&str> {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |last| last + 1);
    let bytes = bytes.get(..end)?;
    let separator = if TextForm::of(vr) == TextForm::Text { 0 } else { b'\\' };
    let odd = |byte: &u8| *byte >= 0x80 || *byte == 0 || *byte == 0x1B || *byte == separator;
    // Checking all bytes is faster than stopping at the first odd one: values are short, and there
    // is no branch for each byte.
    if bytes.iter().fold(false, |any, byte| any | odd(byte)) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// Calls `f` with the index, group and element of each tag of an AT value.
pub(crate) fn for_each_tag(bytes: &[u8], big_endian: bool, mut f: impl FnMut(usize, u16, u16)) {
    for (index, tag) in bytes.chunks_exact(4).enumerate() {
        let [g0, g1, e0, e1] = *tag else { continue };
        let number = |bytes| if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
        f(index, number([g0, g1]), number([e0, e1]));
    }
}

/// Calls `f` with each number of a binary value.
pub(crate) fn for_each_number<const N: usize, T>(
    bytes: &[u8],
    big_endian: bool,
    from_le: fn([u8; N]) -> T,
    mut f: impl FnMut(T),
) {
    for chunk in bytes.chunks_exact(N) {
        let Some(mut number) = chunk.first_chunk::<N>().copied() else { continue };
        if big_endian {
            number.reverse();
        }
        f(from_le(number));
    }
}

fn push_numbers<const N: usize, T: ToString>(
    out: &mut String,
    bytes: &[u8],
    big_endian: bool,
    from_le: fn([u8; N]) -> T,
) {
    let mut first = true;
    for_each_number(bytes, big_endian, from_le, |number| {
        if !std::mem::replace(&mut first, false) {
            out.push('\\');
        }
        out.push_str(&number.to_string());
    });
}

/// Appends decoded text. Each value is trimmed by the rules of its VR.
fn push_trimmed(out: &mut String, vr: VR, text: &str) {
    if TextForm::of(vr) == TextForm::Text {
        push_one(out, vr, text);
        return;
    }
    let mut values = text.split('\\');
    push_one(out, vr, values.next().unwrap_or_default());
    for value in values {
        out.push('\\');
        push_one(out, vr, value);
    }
}

/// Trims and appends one value of an element.
pub(crate) fn push_one(out: &mut String, vr: VR, value: &str) {
    // NUL pads UI. Some writers pad other VRs with it too, against the Standard. A NUL inside a
    // text would end it for C programs.
    let value = without_trailing_padding(value);
    // Invalid characters of a UID are kept, so that it stays invalid. Without them it could be the
    // UID of another entity.
    if value.contains('\0') && vr != VR::UI {
        push_clean(out, vr, &value.replace('\0', ""));
    } else {
        push_clean(out, vr, value);
    }
}

/// Appends one value that has no padding at its end and no NUL.
fn push_clean(out: &mut String, vr: VR, value: &str) {
    let trimmed = || {
        let start = value.bytes().position(|byte| byte != b' ').unwrap_or(0);
        value.get(start..).unwrap_or_default()
    };
    match vr {
        VR::ST | VR::LT | VR::UT | VR::UC | VR::UR => out.push_str(value),
        VR::PN => push_person_name(out, value),
        VR::DA => push_date(out, trimmed()),
        // ACR-NEMA wrote HH:MM:SS.
        VR::TM => trimmed().split(':').for_each(|part| out.push_str(part)),
        _ => out.push_str(trimmed()),
    }
}

/// Appends a person name without empty components and groups at the end, and without their
/// delimiters. They have no meaning (PS3.5 6.2.1.1).
fn push_person_name(out: &mut String, value: &str) {
    let end = value.trim_end_matches(['=', '^', ' ']);
    // After `end` there are only delimiters and padding, so `end` is the whole name.
    if !end.contains('=') {
        out.push_str(end);
        return;
    }
    for (index, group) in end.split('=').enumerate() {
        if index > 0 {
            out.push('=');
        }
        out.push_str(group.trim_end_matches(['^', ' ']));
    }
}

/// Appends a date. ACR-NEMA wrote YYYY.MM.DD, and dashes and slashes occur too.
fn push_date(out: &mut String, value: &str) {
    let legacy = matches!(*value.as_bytes(), [y0, y1, y2, y3, s0 @ (b'.' | b'-' | b'/'), m0, m1, s1, d0, d1]
        if s0 == s1 && [y0, y1, y2, y3, m0, m1, d0, d1].iter().all(u8::is_ascii_digit));
    if legacy {
        out.extend(value.chars().filter(char::is_ascii_digit));
    } else {
        out.push_str(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn text(vr: VR, bytes: &[u8], expected: &str) {
        let mut out = String::new();
        assert!(push_text(&mut out, vr, false, bytes, &CharacterSets::default()));
        assert_eq!(out, expected);
    }

    #[test]
    fn padding_goes_where_the_vr_says_that_it_means_nothing() {
        text(VR::LO, b"  A B \\ C  ", "A B\\C");
        text(VR::CS, b" CT ", "CT");
        text(VR::LT, b"  A \\ B  ", "  A \\ B");
        text(VR::UI, b"1.2.3\0", "1.2.3");
        text(VR::UI, b"1.2\0\\1.3 \0", "1.2\\1.3");
        text(VR::UI, b"1.2\0.3\0", "1.2\0.3");
        text(VR::SH, b"AB\0\0", "AB");
        text(VR::LO, b"A\0B", "AB");
        text(VR::IS, b" 12 ", "12");
        text(VR::LO, b"\\ \\", "\\\\");
    }

    #[test]
    fn person_names_lose_empty_ends() {
        text(VR::PN, b"Doe^John^^ ", "Doe^John");
        text(VR::PN, b"Doe^John^^=^^=^", "Doe^John");
        text(VR::PN, b"Doe ^= ^=A^B^\\X^", "Doe==A^B\\X");
        text(VR::PN, b" Doe^John", " Doe^John");
        text(VR::PN, b"^John", "^John");
        text(VR::PN, b"^^", "");
    }

    #[test]
    fn legacy_dates_and_times() {
        text(VR::DA, b"1997.04.24", "19970424");
        text(VR::DA, b"19970424", "19970424");
        text(VR::DA, b"24.04.1997", "24.04.1997");
        text(VR::TM, b"15:18:59", "151859");
        text(VR::TM, b"15:18:59.123 ", "151859.123");
        text(VR::TM, b"151859.123", "151859.123");
    }

    #[test]
    fn binary_values_are_decimal_text() {
        text(VR::US, b"\x00\x02\x01\x00", "512\\1");
        text(VR::SS, b"\xff\xff", "-1");
        text(VR::UL, b"\x01\x00\x01\x00", "65537");
        text(VR::FD, &1.5_f64.to_le_bytes(), "1.5");
        text(VR::AT, b"\x28\x00\x10\x00\xe0\x7f\x10\x00", "00280010\\7FE00010");
        let mut out = String::new();
        push_text(&mut out, VR::US, true, b"\x02\x00", &CharacterSets::default());
        push_text(&mut out, VR::SL, true, b"\xff\xff\xff\xfe", &CharacterSets::default());
        assert_eq!(out, "512-2");
    }
}
