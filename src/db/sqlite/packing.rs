//! Compact forms of UIDs, times and numbers in instance rows, and the SQL with which views read
//! them.
//!
//! An archive can have a billion instance rows, and all else is small beside them. 20 digits of a
//! UID take 10 bytes here, and a time of day with microseconds takes 4. `hex()`, `replace()` and
//! `printf()` of any sqlite3 shell can read them.

use std::ffi::OsString;

use rusqlite::types::{FromSqlError, FromSqlResult, ToSqlOutput, Value, ValueRef};

/// A value of `instance.uid_suffix`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum UidSuffix {
    /// Digits and full stops, two in each byte.
    Packed(Vec<u8>),
    /// The whole UID, because it has other characters.
    Text(String),
}

const FULL_STOP: u8 = 0xA;
const WHOLE_UID: u8 = 0xB;
const PADDING: u8 = 0xF;

impl UidSuffix {
    /// Packs a UID for an instance group whose UIDs begin with `prefix`. Each UID has exactly one
    /// form for each prefix.
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

    /// Reads the form that a row has.
    pub(super) fn from_sql(stored: ValueRef<'_>) -> FromSqlResult<Self> {
        match stored {
            ValueRef::Blob(packed) => Ok(Self::Packed(packed.to_vec())),
            ValueRef::Text(text) => Ok(Self::Text(String::from_utf8_lossy(text).into_owned())),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Err(FromSqlError::InvalidType),
        }
    }

    /// The UID, in an instance group whose UIDs begin with `prefix`.
    pub(super) fn uid(&self, prefix: &str) -> String {
        match self {
            Self::Packed(packed) => {
                let mut uid = String::new();
                unpack_digits(packed, prefix, &mut uid);
                uid
            }
            Self::Text(text) => text.clone(),
        }
    }

    /// The form as a value of SQL.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Packed(packed) => Value::Blob(packed.clone()),
            Self::Text(text) => Value::Text(text.clone()),
        }
    }

    /// Appends the UID of a row to `into`.
    pub(super) fn unpack(stored: ValueRef<'_>, prefix: &str, into: &mut String) -> FromSqlResult<()> {
        match stored {
            ValueRef::Text(text) => into.push_str(&String::from_utf8_lossy(text)),
            ValueRef::Blob(packed) => unpack_digits(packed, prefix, into),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => return Err(FromSqlError::InvalidType),
        }
        Ok(())
    }
}

/// Appends the UID of [`UidSuffix::Packed`] to `into`.
fn unpack_digits(packed: &[u8], prefix: &str, into: &mut String) {
    let is_whole = packed.first().is_some_and(|byte| byte >> 4 == WHOLE_UID);
    if !is_whole {
        into.push_str(prefix);
    }
    into.reserve(2 * packed.len());
    let nibbles = packed.iter().flat_map(|byte| [byte >> 4, byte & 0xF]).skip(usize::from(is_whole));
    for nibble in nibbles {
        match nibble {
            0..=9 => into.push(char::from(b'0' + nibble)),
            FULL_STOP => into.push('.'),
            _ => {}
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

/// The 32-bit hash by which `uid_lookup` finds a SOP Instance UID.
pub(super) fn uid_hash(uid: &str) -> i32 {
    // The low half of the hash with its sign takes four bytes in the b-tree.
    xxhash_rust::xxh3::xxh3_64(uid.as_bytes()) as u32 as i32
}

/// A text, or the number that stands for exactly this text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Packed<'a> {
    Number(i64),
    Text(&'a str),
    /// A time that differs from its base as the acquisition time of the same instance does from its
    /// own.
    AsAcquisition,
}

/// The stored form of [`Packed::AsAcquisition`]. It takes no byte.
const AS_ACQUISITION: &[u8] = &[];

/// The stored form of a time, from what is stored for it and for the acquisition time.
pub(super) fn stored_time<'v>(stored: ValueRef<'v>, acquisition: ValueRef<'v>) -> ValueRef<'v> {
    if stored == ValueRef::Blob(AS_ACQUISITION) { acquisition } else { stored }
}

/// The same in SQL.
pub(super) fn stored_time_sql(stored: &str, acquisition: &str) -> String {
    format!("iif(typeof({stored}) = 'blob', {acquisition}, {stored})")
}

impl rusqlite::ToSql for Packed<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Number(number) => ToSqlOutput::Owned(rusqlite::types::Value::Integer(*number)),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::AsAcquisition => ToSqlOutput::Borrowed(ValueRef::Blob(AS_ACQUISITION)),
        })
    }
}

/// Packs a decimal number in its plain form as a number, and anything else as text. The plain form
/// has no sign but minus, and no leading zeros.
pub(super) fn pack_number(text: &str) -> Packed<'_> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = matches!(digits.as_bytes(), [b'0'] | [b'1'..=b'9', ..]) && text != "-0";
    match text.parse() {
        Ok(number) if plain => Packed::Number(number),
        _ => Packed::Text(text),
    }
}

/// The digits of a time `HHMMSS` or `HHMMSS.F` as one number, and how many follow the point. `F`
/// has one to six digits.
fn time_digits(text: &str) -> Option<(i64, usize)> {
    let (whole, rest) = text.as_bytes().split_first_chunk::<6>()?;
    let fraction = match rest {
        [] => rest,
        [b'.', fraction @ ..] if (1..=6).contains(&fraction.len()) => fraction,
        _ => return None,
    };
    let mut number = 0;
    for digit in whole.iter().chain(fraction) {
        number = number * 10 + i64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
    }
    Some((number, fraction.len()))
}

/// Packs a time for an instance group that has the time `base`. It is the difference of their
/// digits, read as numbers, or text if the two have different forms. The slices of a series are
/// seconds apart, so microseconds take 4 bytes.
pub(super) fn pack_time<'a>(text: &'a str, base: &str) -> Packed<'a> {
    match (time_digits(text), time_digits(base)) {
        (Some((number, decimals)), Some((base, base_decimals))) if decimals == base_decimals => {
            Packed::Number(number - base)
        }
        _ => Packed::Text(text),
    }
}

/// Appends the text of a packed time to `into`.
pub(super) fn unpack_time(packed: i64, base: &str, into: &mut String) {
    use std::fmt::Write;
    let Some((base, decimals)) = time_digits(base) else { return };
    let start = into.len();
    let _infallible = write!(into, "{:0width$}", base.saturating_add(packed), width = 6 + decimals);
    if decimals > 0 && into.is_char_boundary(start + 6) {
        into.insert(start + 6, '.');
    }
}

/// SQL for the text of a time. `own` is the column of the instance, and `base` that of its group.
pub(super) fn time_sql(own: &str, base: &str) -> String {
    let digits = format!("replace({base}, '.', '')");
    let sum = format!("printf('%0*d', length({digits}), CAST({digits} AS INTEGER) + {own})");
    format!(
        "CASE typeof({own}) WHEN 'null' THEN {base} WHEN 'integer' THEN substr({sum}, 1, 6) || \
         CASE WHEN instr({base}, '.') THEN '.' || substr({sum}, 7) ELSE '' END ELSE {own} END"
    )
}

/// Pattern of the file names of an instance group, so that rows need not repeat it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Naming {
    pub(super) prefix: String,
    pub(super) suffix: String,
    /// Minimum digits of the number in the middle. `None`: the SOP Instance UID stands there.
    pub(super) digits: Option<usize>,
}

/// The file name in a row, for the naming of its instance group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum PackedName<'a> {
    /// The SOP Instance UID between prefix and suffix.
    Uid,
    /// This number between prefix and suffix.
    Number(i64),
    /// The name itself.
    Name(&'a std::ffi::OsStr),
}

impl Naming {
    /// The naming that a first file suggests.
    pub(super) fn of(name: &std::ffi::OsStr, uid: &str) -> Self {
        let Some(name) = name.to_str() else {
            return Self { prefix: String::new(), suffix: String::new(), digits: None };
        };
        if let Some((prefix, suffix)) = name.split_once(uid) {
            return Self { prefix: prefix.to_owned(), suffix: suffix.to_owned(), digits: None };
        }
        // The last run of digits counts up: see IM0001.dcm, CT_2_0031 and MR.1.2.7.
        let Some(end) = name.rfind(|c: char| c.is_ascii_digit()).map(|at| at + 1) else {
            return Self { prefix: name.to_owned(), suffix: String::new(), digits: None };
        };
        let (head, suffix) = name.split_at(end);
        let prefix = head.trim_end_matches(|c: char| c.is_ascii_digit());
        Self { prefix: prefix.to_owned(), suffix: suffix.to_owned(), digits: Some(head.len() - prefix.len()) }
    }

    /// Packs a name for a row. Each name has exactly one form.
    pub(super) fn pack<'a>(&self, name: &'a std::ffi::OsStr, uid: &str) -> PackedName<'a> {
        let inner = name
            .to_str()
            .and_then(|text| text.strip_prefix(self.prefix.as_str()))
            .and_then(|text| text.strip_suffix(self.suffix.as_str()));
        match (inner, self.digits) {
            (Some(inner), None) if inner == uid => PackedName::Uid,
            (Some(inner), Some(digits)) if is_padded_number(inner, digits) => {
                inner.parse().map_or(PackedName::Name(name), PackedName::Number)
            }
            _ => PackedName::Name(name),
        }
    }

    /// Whether the name of a row contains the SOP Instance UID.
    pub(super) fn needs_uid(&self, stored: ValueRef<'_>) -> bool {
        stored == ValueRef::Null
    }

    /// The name of a row.
    pub(super) fn unpack(&self, stored: ValueRef<'_>, uid: &str) -> FromSqlResult<OsString> {
        Ok(match (stored, self.digits) {
            (ValueRef::Null, _) => [self.prefix.as_str(), uid, self.suffix.as_str()].concat().into(),
            (ValueRef::Integer(number), digits) => {
                format!("{}{number:0width$}{}", self.prefix, self.suffix, width = digits.unwrap_or(0)).into()
            }
            (other, _) => super::sql_values::path_from_sql(other)?,
        })
    }
}

/// Whether `text` is a number that is padded with zeros to `digits`.
fn is_padded_number(text: &str, digits: usize) -> bool {
    (1..=18).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == digits || (text.len() > digits && !text.starts_with('0')))
}

impl rusqlite::ToSql for PackedName<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Uid => ToSqlOutput::Borrowed(ValueRef::Null),
            Self::Number(number) => ToSqlOutput::Owned(rusqlite::types::Value::Integer(*number)),
            Self::Name(name) => ToSqlOutput::Borrowed(match name.to_str() {
                Some(text) => ValueRef::Text(text.as_bytes()),
                None => ValueRef::Blob(name.as_encoded_bytes()),
            }),
        })
    }
}

/// The naming of an instance group. Its `file_prefix`, `file_suffix` and `file_digits` are the
/// columns from `first` on.
pub(super) fn naming(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Naming> {
    let digits: Option<i64> = row.get(first + 2)?;
    Ok(Naming {
        prefix: row.get(first)?,
        suffix: row.get(first + 1)?,
        digits: digits.and_then(|digits| usize::try_from(digits).ok()),
    })
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
        UidSuffix::unpack(stored, prefix, &mut uid).unwrap();
        uid
    }

    fn time_text(text: &str, base: &str) -> String {
        match pack_time(text, base) {
            Packed::Text(text) => text.to_owned(),
            Packed::Number(number) => {
                let mut text = String::new();
                unpack_time(number, base, &mut text);
                text
            }
            Packed::AsAcquisition => panic!("only an instance knows"),
        }
    }

    fn name_again(name: &str, naming: &Naming, uid: &str) -> OsString {
        let packed = naming.pack(name.as_ref(), uid);
        let ToSqlOutput::Borrowed(value) = rusqlite::ToSql::to_sql(&packed).unwrap() else {
            let PackedName::Number(number) = packed else { panic!() };
            return naming.unpack(ValueRef::Integer(number), uid).unwrap();
        };
        naming.unpack(value, uid).unwrap()
    }

    #[test]
    fn a_suffix_of_the_wrong_type_is_an_error() {
        for stored in [ValueRef::Null, ValueRef::Integer(1), ValueRef::Real(1.0)] {
            assert!(UidSuffix::from_sql(stored).is_err());
            assert!(UidSuffix::unpack(stored, "1.2.", &mut String::new()).is_err());
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
        for text in [
            "000000",
            "101112",
            "101112.1",
            "101112.000",
            "101112.1234567",
            "101112.0000000",
            "235959.999999",
            "1011",
            "101112.",
            "10:11",
            "",
        ] {
            for base in ["101010", "101010.5", "235959.000000", "", "noon"] {
                assert_eq!(time_text(text, base), text);
            }
        }
        let Packed::Number(apart) = pack_time("101512.123000", "101112.000000") else { panic!() };
        assert!(apart < i64::from(i32::MAX));
    }

    #[test]
    fn the_sql_of_the_views_reads_times_as_the_program_does() {
        let memory = rusqlite::Connection::open_in_memory().unwrap();
        let sql = format!("SELECT {} FROM (SELECT ?1 AS t, ?2 AS base)", time_sql("t", "base"));
        for text in ["000001.5", "101112", "235959.999999", "101112.1234567", "about noon", "000000.000000"] {
            for base in ["101112.000001", "101112", "000000.1", ""] {
                let packed = pack_time(text, base);
                let read: String = memory.query_row(&sql, rusqlite::params![packed, base], |row| row.get(0)).unwrap();
                assert_eq!(read, text);
            }
        }
    }

    #[test]
    fn counted_file_names_are_numbers() {
        let naming = Naming::of("IM00012.dcm".as_ref(), "1.2.3");
        assert_eq!(naming.pack("IM00013.dcm".as_ref(), "1.2.4"), PackedName::Number(13));
        assert_eq!(naming.pack("IM123456.dcm".as_ref(), "1.2.4"), PackedName::Number(123_456));
        assert!(matches!(naming.pack("IM0013.dcm".as_ref(), "1.2.4"), PackedName::Name(_)));
        let naming = Naming::of("CT.1.2.3.dcm".as_ref(), "1.2.3");
        assert_eq!(naming.pack("CT.1.2.4.dcm".as_ref(), "1.2.4"), PackedName::Uid);
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
        fn every_time_comes_back(text in TIME, base in TIME) {
            prop_assert_eq!(time_text(&text, &base), text);
        }

        #[test]
        fn every_name_comes_back(first in NAME, name in NAME, uid in "[0-9.]{1,20}") {
            let naming = Naming::of(first.as_ref(), &uid);
            prop_assert_eq!(name_again(&name, &naming, &uid), OsString::from(&name));
            prop_assert_eq!(name_again(&first, &naming, &uid), OsString::from(&first));
        }
    }

    const TIME: &str = "[0-9]{6}(\\.[0-9]{1,7})?|\\PC{0,16}";
    const NAME: &str = "[A-Z]{0,3}[0-9]{0,20}(\\.[a-z0-9]{1,3})?|\\PC{1,16}";
}
