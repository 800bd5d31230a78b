//! Compact forms of UIDs, times and numbers in instance rows, and the SQL that reads them back in the views.
//!
//! An archive has a billion instance rows and everything else is small beside them: 20 digits of a UID are 10 bytes
//! here, a time of day with microseconds is 6, and `hex()`, `replace()` and `printf()` of any sqlite3 shell read them.

use rusqlite::types::{ToSqlOutput, ValueRef};

/// What stands in `instance.uid_suffix`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum UidSuffix {
    /// Digits and full stops, two to the byte.
    Packed(Vec<u8>),
    /// The whole UID, which has other characters.
    Text(String),
}

const FULL_STOP: u8 = 0xA;
const WHOLE_UID: u8 = 0xB;
const PADDING: u8 = 0xF;

impl UidSuffix {
    /// The form of `uid` in a shelf whose UIDs begin with `prefix`. Each UID has exactly one form for each prefix.
    pub(super) fn pack(uid: &str, prefix: &str) -> Self {
        let rest = uid.strip_prefix(prefix);
        let marker = rest.is_none().then_some(WHOLE_UID);
        let mut packed = Vec::with_capacity(rest.unwrap_or(uid).len().div_ceil(2) + 1);
        let mut high = None;
        let nibbles = rest.unwrap_or(uid).bytes().map(|byte| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'.' => Some(FULL_STOP),
            _ => None,
        });
        for nibble in marker.map(Some).into_iter().chain(nibbles) {
            let Some(nibble) = nibble else { return Self::Text(uid.to_owned()) };
            match high.take() {
                None => high = Some(nibble << 4),
                Some(high) => packed.push(high | nibble),
            }
        }
        if let Some(high) = high {
            packed.push(high | PADDING);
        }
        Self::Packed(packed)
    }

    /// Appends the UID to `into`.
    pub(super) fn unpack(stored: ValueRef<'_>, prefix: &str, into: &mut String) {
        match stored {
            ValueRef::Text(text) => into.push_str(&String::from_utf8_lossy(text)),
            ValueRef::Blob(packed) => {
                let mut nibbles = packed.iter().flat_map(|byte| [byte >> 4, byte & 0xF]).peekable();
                if nibbles.next_if_eq(&WHOLE_UID).is_none() {
                    into.push_str(prefix);
                }
                into.extend(nibbles.filter_map(|nibble| match nibble {
                    0..=9 => Some(char::from(b'0' + nibble)),
                    FULL_STOP => Some('.'),
                    _ => None,
                }));
            }
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => {}
        }
    }
}

impl rusqlite::ToSql for UidSuffix {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Packed(packed) => ValueRef::Blob(packed),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// The 32 bits by which `uid_lookup` finds a SOP Instance UID.
pub(super) fn uid_hash(uid: &str) -> i32 {
    // The low half of the hash, sign included: four bytes in the b-tree.
    xxhash_rust::xxh3::xxh3_64(uid.as_bytes()) as u32 as i32
}

/// Text, or the number that stands for exactly this text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Packed<'a> {
    Number(i64),
    Text(&'a str),
}

impl rusqlite::ToSql for Packed<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Number(number) => ToSqlOutput::Owned(rusqlite::types::Value::Integer(*number)),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}

/// A decimal number in its plain form (no sign but minus, no leading zeros) as a number, all else as text.
pub(super) fn pack_number(text: &str) -> Packed<'_> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = matches!(digits.as_bytes(), [b'0'] | [b'1'..=b'9', ..]) && text != "-0";
    match text.parse() {
        Ok(number) if plain => Packed::Number(number),
        _ => Packed::Text(text),
    }
}

/// A time `HHMMSS` or `HHMMSS.F`, one to six digits after the point: its digits times 8 plus how many follow the point.
pub(super) fn pack_time(text: &str) -> Packed<'_> {
    let packed = || {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() != 6 || fraction.len() > 6 || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        if fraction.is_empty() && text.contains('.') {
            return None;
        }
        let scale = 10_i64.pow(u32::try_from(fraction.len()).ok()?);
        let digits =
            whole.parse::<i64>().ok()? * scale + if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        Some(digits * 8 + i64::try_from(fraction.len()).ok()?)
    };
    packed().map_or(Packed::Text(text), Packed::Number)
}

/// Appends the text of a packed time to `into`.
pub(super) fn unpack_time(number: i64, into: &mut String) {
    use std::fmt::Write;
    let decimals = usize::try_from(number & 7).unwrap_or(0);
    let start = into.len();
    let _infallible = write!(into, "{:0width$}", number >> 3, width = 6 + decimals);
    if decimals > 0 && into.len() >= start + 6 {
        into.insert(start + 6, '.');
    }
}

/// SQL for the text of a packed time in `column`, or of `otherwise` where it is NULL.
pub(super) fn time_sql(column: &str, otherwise: &str) -> String {
    format!(
        "CASE typeof({column}) WHEN 'null' THEN {otherwise} WHEN 'integer' THEN \
         substr(printf('%0*d', 6 + ({column} & 7), {column} >> 3), 1, 6) || CASE WHEN {column} & 7 THEN \
         '.' || substr(printf('%0*d', 6 + ({column} & 7), {column} >> 3), 7) ELSE '' END ELSE {column} END"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unpacked(suffix: &UidSuffix, prefix: &str) -> String {
        let mut uid = String::new();
        let stored = match suffix {
            UidSuffix::Packed(packed) => ValueRef::Blob(packed),
            UidSuffix::Text(text) => ValueRef::Text(text.as_bytes()),
        };
        UidSuffix::unpack(stored, prefix, &mut uid);
        uid
    }

    fn time_text(packed: Packed<'_>) -> String {
        match packed {
            Packed::Text(text) => text.to_owned(),
            Packed::Number(number) => {
                let mut text = String::new();
                unpack_time(number, &mut text);
                text
            }
        }
    }

    #[test]
    fn twenty_digits_take_ten_bytes() {
        let UidSuffix::Packed(packed) = UidSuffix::pack("1.2.12345678901234567890", "1.2.") else { panic!() };
        assert_eq!(packed.len(), 10);
    }

    #[test]
    fn a_plain_number_is_a_number_and_nothing_else_is() {
        assert_eq!(pack_number("12"), Packed::Number(12));
        assert_eq!(pack_number("-3"), Packed::Number(-3));
        for text in ["", "012", "+1", "-0", "1.0", "99999999999999999999", " 1"] {
            assert_eq!(pack_number(text), Packed::Text(text));
        }
    }

    #[test]
    fn a_time_comes_back_digit_by_digit() {
        for text in ["000000", "101112", "101112.1", "101112.000", "235959.999999", "1011", "101112.", "10:11", ""] {
            assert_eq!(time_text(pack_time(text)), text);
        }
        assert!(matches!(pack_time("101112.123000"), Packed::Number(_)));
    }

    #[test]
    fn the_sql_of_the_views_reads_times_as_the_program_does() {
        let memory = rusqlite::Connection::open_in_memory().unwrap();
        for text in ["000001.5", "101112", "235959.999999", "about noon"] {
            let sql = format!("SELECT {} FROM (SELECT ?1 AS t)", time_sql("t", "'none'"));
            let read: String = memory.query_row(&sql, [pack_time(text)], |row| row.get(0)).unwrap();
            assert_eq!(read, text);
        }
    }

    proptest! {
        #[test]
        fn every_uid_comes_back(uid in "[0-9.]{1,64}|\\PC{1,64}", cut in 0_usize..64) {
            let prefix: String = uid.chars().take(cut).collect();
            for prefix in [prefix.as_str(), "", "9.9.9"] {
                prop_assert_eq!(unpacked(&UidSuffix::pack(&uid, prefix), prefix), uid.clone());
            }
        }

        #[test]
        fn every_time_comes_back(text in "[0-9]{6}(\\.[0-9]{1,7})?|\\PC{0,16}") {
            prop_assert_eq!(time_text(pack_time(&text)), text);
        }
    }
}
