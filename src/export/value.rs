//! Typed values, made of the text that the index keeps.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

use dicom_core::VR;
use serde::de::IgnoredAny;

use crate::model::calendar::{DAY_MS, civil};
use crate::model::datetime;

/// Type of the values of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// Text, UIDs and codes.
    Text,
    /// Whole numbers of 64 bits.
    Integer,
    /// Floating point numbers of 64 bits.
    Double,
    /// Days of the calendar.
    Date,
    /// Times of day in microseconds.
    Time,
    /// Date and time in microseconds, as the clock showed them.
    LocalDateTime,
    /// Moments in UTC, in milliseconds.
    Instant,
    /// JSON.
    Json,
}

impl ColumnType {
    /// The type of the values of a VR.
    #[must_use]
    pub fn of(vr: VR) -> Self {
        match vr {
            VR::IS | VR::US | VR::SS | VR::UL | VR::SL | VR::UV | VR::SV => Self::Integer,
            VR::DS | VR::FL | VR::FD => Self::Double,
            VR::DA => Self::Date,
            VR::TM => Self::Time,
            VR::DT => Self::LocalDateTime,
            VR::SQ => Self::Json,
            _ => Self::Text,
        }
    }
}

/// A value in a row of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum TableValue<'a> {
    /// There is no value, or none that fits.
    Null,
    /// Text, or JSON.
    Text(Cow<'a, str>),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Double(f64),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970-01-01T00:00:00, as the clock showed them.
    LocalDateTime(i64),
    /// Milliseconds since 1970 UTC.
    Instant(i64),
    /// Several values. An empty one is null.
    List(Vec<TableValue<'a>>),
}

impl TableValue<'_> {
    /// The value without a borrow.
    #[must_use]
    pub fn into_owned(self) -> TableValue<'static> {
        match self {
            Self::Null => TableValue::Null,
            Self::Text(text) => TableValue::Text(text.into_owned().into()),
            Self::Integer(number) => TableValue::Integer(number),
            Self::Double(number) => TableValue::Double(number),
            Self::Date(days) => TableValue::Date(days),
            Self::Time(time) => TableValue::Time(time),
            Self::LocalDateTime(moment) => TableValue::LocalDateTime(moment),
            Self::Instant(ms) => TableValue::Instant(ms),
            Self::List(values) => TableValue::List(values.into_iter().map(TableValue::into_owned).collect()),
        }
    }
}

/// Part of a text that its typed value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueFit {
    /// All of it.
    Whole,
    /// A part: a time without seconds, or an offset from UTC that the type has no room for.
    Part,
    /// Nothing. The value is null.
    Not,
}

/// Makes a value of this type of a text of the index. Values of a list are separated by a
/// backslash. An empty text is null.
#[must_use]
pub fn typed(kind: ColumnType, is_list: bool, text: &str) -> (TableValue<'_>, ValueFit) {
    if text.is_empty() {
        return (TableValue::Null, ValueFit::Whole);
    }
    if !is_list {
        return one(kind, text);
    }
    let mut values = Vec::new();
    let mut fit = ValueFit::Whole;
    for part in text.split('\\') {
        if part.is_empty() {
            values.push(TableValue::Null);
            continue;
        }
        match one(kind, part) {
            // One wrong value makes the list doubtful.
            (_, ValueFit::Not) => return (TableValue::Null, ValueFit::Not),
            (value, ValueFit::Part) => {
                values.push(value);
                fit = ValueFit::Part;
            }
            (value, ValueFit::Whole) => values.push(value),
        }
    }
    (TableValue::List(values), fit)
}

fn one(kind: ColumnType, text: &str) -> (TableValue<'_>, ValueFit) {
    let fitting = |value: Option<TableValue<'static>>| match value {
        Some(value) => (value, ValueFit::Whole),
        None => (TableValue::Null, ValueFit::Not),
    };
    match kind {
        ColumnType::Text => (TableValue::Text(text.into()), ValueFit::Whole),
        // The + is part of IS and DS (PS3.5 6.2).
        ColumnType::Integer => fitting(text.parse().ok().map(TableValue::Integer)),
        ColumnType::Double => fitting(double(text).map(TableValue::Double)),
        ColumnType::Date => fitting(day(text).map(TableValue::Date)),
        ColumnType::Time => match time(text) {
            Some((time, fit)) => (TableValue::Time(time), fit),
            None => (TableValue::Null, ValueFit::Not),
        },
        ColumnType::LocalDateTime => match local_date_time(text) {
            Some((moment, fit)) => (TableValue::LocalDateTime(moment), fit),
            None => (TableValue::Null, ValueFit::Not),
        },
        ColumnType::Instant => fitting(text.parse().ok().map(TableValue::Instant)),
        ColumnType::Json => {
            // A line of NDJSON ends at a line feed.
            let is_json = !text.contains(['\n', '\r']) && serde_json::from_str::<IgnoredAny>(text).is_ok();
            if is_json { (TableValue::Text(text.into()), ValueFit::Whole) } else { (TableValue::Null, ValueFit::Not) }
        }
    }
}

/// A number without the words that Rust also reads: `inf`, `nan`.
fn double(text: &str) -> Option<f64> {
    let is_number = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse().ok().filter(|number: &f64| is_number && number.is_finite())
}

/// 0001-01-01 in days since 1970. Programs that read tables know no earlier day.
const FIRST_DAY: i32 = -719_162;

/// Moments of the years 1 to 9999, in milliseconds since 1970 UTC.
const INSTANTS: std::ops::Range<i64> = FIRST_DAY as i64 * DAY_MS..2_932_897 * DAY_MS;

/// Days since 1970 of a DA value that names one day.
fn day(text: &str) -> Option<i32> {
    i32::try_from(datetime::days_since_1970(datetime::one_day(text)?)).ok().filter(|days| *days >= FIRST_DAY)
}

/// Whether an attribute that the index has no column for has several values (PS3.6 VM). These are
/// those that are often declared.
#[must_use]
pub fn has_several_values(keyword: &str) -> bool {
    const SEVERAL: &[&str] = &[
        "PixelSpacing",
        "ImagerPixelSpacing",
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "WindowCenter",
        "WindowWidth",
        "AcquisitionMatrix",
        "ScanOptions",
        "SequenceVariant",
        "ScanningSequence",
        "ConvolutionKernel",
        "FrameType",
    ];
    SEVERAL.contains(&keyword)
}

/// The date `by` days before another. It is null before the first day of tables.
#[must_use]
pub fn earlier(days: i32, by: i32) -> TableValue<'static> {
    days.checked_sub(by).filter(|days| *days >= FIRST_DAY).map_or(TableValue::Null, TableValue::Date)
}

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// Microseconds since midnight of a TM value. A leap second has no place in the type.
fn time(text: &str) -> Option<(i64, ValueFit)> {
    let span = datetime::times(text)?;
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = clock.bytes().filter(u8::is_ascii_digit).count();
    let start = i64::try_from(datetime::clock_microseconds(*span.start())?).ok()?;
    let is_whole = digits >= 6 && fraction.trim_end().len() <= 6;
    Some((start, if is_whole { ValueFit::Whole } else { ValueFit::Part }))
}

/// Microseconds of a DT value that names at least a day, as the clock showed them.
fn local_date_time(text: &str) -> Option<(i64, ValueFit)> {
    datetime::moments(text)?;
    let (date, rest) = text.split_at_checked(8)?;
    let day = i64::from(day(date)?);
    let end = rest.find(['+', '-']).unwrap_or(rest.len());
    let (clock, offset) = rest.split_at_checked(end)?;
    let (time, fit) = if clock.is_empty() { (0, ValueFit::Part) } else { time(clock)? };
    Some((day.checked_mul(DAY_US)?.checked_add(time)?, if offset.is_empty() { fit } else { ValueFit::Part }))
}

/// The moments in UTC of DT values, as far as their time zone is known. `zone` is Timezone Offset
/// From UTC (0008,0201) of the data set, which values without an offset are in (PS3.5 table 6.2-1).
#[must_use]
pub fn in_utc(is_list: bool, text: &str, zone: &str) -> TableValue<'static> {
    let one = |text: &str| {
        let text = datetime::in_zone(text, zone);
        // A day is known. It may be another one in UTC.
        let is_known = datetime::has_offset(&text) && local_date_time(&text).is_some();
        let moment = datetime::moments(&text).filter(|_| is_known).map(|span| datetime::unix_ms(*span.start()));
        moment.filter(|ms| INSTANTS.contains(ms)).map_or(TableValue::Null, TableValue::Instant)
    };
    match is_list {
        true if !text.is_empty() => TableValue::List(text.split('\\').map(one).collect()),
        true | false => one(text),
    }
}

impl TableValue<'_> {
    /// Appends the value as text, without quotes: numbers as they are, dates and times as ISO 8601.
    /// Of null and of a list it appends nothing.
    pub fn put_bare(&self, into: &mut Vec<u8>) {
        match self {
            Self::Null | Self::List(_) => {}
            Self::Text(text) => into.extend_from_slice(text.as_bytes()),
            Self::Integer(number) => put_number(into, number),
            // With a point or an exponent. Programs that find out the types of a table take `70` as
            // an integer, and 39 digits as no number at all.
            Self::Double(number) => put_number(into, format_args!("{number:?}")),
            Self::Date(days) => put_date(into, *days),
            Self::Time(time_us) => put_time(into, *time_us),
            Self::LocalDateTime(moment_us) => put_local(into, *moment_us),
            Self::Instant(ms) => put_instant(into, *ms),
        }
    }
}

fn put_number(into: &mut Vec<u8>, number: impl fmt::Display) {
    // Writing into a vector does not fail.
    let _ = write!(into, "{number}");
}

/// Appends a number with at least so many digits. A million rows have several million of them, and
/// the formatter of the standard library takes three times as long.
fn put_digits(into: &mut Vec<u8>, number: i64, digits: u32) {
    let limit = 10_i64.pow(digits);
    if !(0..limit).contains(&number) {
        return put_number(into, format_args!("{number:0width$}", width = digits as usize));
    }
    let mut unit = limit / 10;
    while unit > 0 {
        into.push(b"0123456789"[(number / unit % 10) as usize]);
        unit /= 10;
    }
}

/// Appends a day as `2024-01-31`.
fn put_date(into: &mut Vec<u8>, days: i32) {
    let (year, month, day) = civil(i64::from(days));
    put_digits(into, year, 4);
    for part in [month, day] {
        into.push(b'-');
        put_digits(into, part, 2);
    }
}

/// Appends a time as `10:30:00`, with the fraction that it has.
fn put_time(into: &mut Vec<u8>, time_us: i64) {
    let (seconds, micros) = (time_us.div_euclid(SECOND_US), time_us.rem_euclid(SECOND_US));
    put_digits(into, seconds / 3600, 2);
    for part in [seconds / 60 % 60, seconds % 60] {
        into.push(b':');
        put_digits(into, part, 2);
    }
    if micros != 0 {
        into.push(b'.');
        put_digits(into, micros, 6);
    }
}

/// Appends a date and a time as `2024-01-31T10:30:00`.
fn put_local(into: &mut Vec<u8>, moment_us: i64) {
    put_date(into, i32::try_from(moment_us.div_euclid(DAY_US)).unwrap_or_default());
    into.push(b'T');
    put_time(into, moment_us.rem_euclid(DAY_US));
}

/// Appends a moment as `2024-01-31T10:30:00.123Z`.
fn put_instant(into: &mut Vec<u8>, ms: i64) {
    let (second, fraction) = (ms.div_euclid(1000), ms.rem_euclid(1000));
    put_local(into, second.saturating_mul(SECOND_US));
    if fraction != 0 {
        into.push(b'.');
        put_digits(into, fraction, 3);
    }
    into.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_get_the_type_of_their_column() {
        use ColumnType::{Date, Double, Integer, LocalDateTime, Time};
        for (kind, text, value, fit) in [
            (Integer, "12", TableValue::Integer(12), ValueFit::Whole),
            (Integer, "+12", TableValue::Integer(12), ValueFit::Whole),
            (Integer, "1.5", TableValue::Null, ValueFit::Not),
            (Integer, r"1\2", TableValue::Null, ValueFit::Not),
            (Double, "1.5E1", TableValue::Double(15.0), ValueFit::Whole),
            (Double, "nan", TableValue::Null, ValueFit::Not),
            (Double, "1e999", TableValue::Null, ValueFit::Not),
            (Date, "19700102", TableValue::Date(1), ValueFit::Whole),
            (Date, "1970.01.02", TableValue::Date(1), ValueFit::Whole),
            (Date, "197001", TableValue::Null, ValueFit::Not),
            (Date, "19700230", TableValue::Null, ValueFit::Not),
            (Date, "00010101", TableValue::Date(FIRST_DAY), ValueFit::Whole),
            (Date, "00000101", TableValue::Null, ValueFit::Not),
            (Time, "000001.5", TableValue::Time(1_500_000), ValueFit::Whole),
            (Time, "000001.123456 ", TableValue::Time(1_123_456), ValueFit::Whole),
            (Time, "000001.1234567", TableValue::Time(1_123_456), ValueFit::Part),
            (Time, "1030", TableValue::Time(37_800_000_000), ValueFit::Part),
            (Time, "235960", TableValue::Null, ValueFit::Not),
            (Time, "105960", TableValue::Null, ValueFit::Not),
            (LocalDateTime, "19700102000001", TableValue::LocalDateTime(86_401_000_000), ValueFit::Whole),
            (LocalDateTime, "19700102000001+0100", TableValue::LocalDateTime(86_401_000_000), ValueFit::Part),
            (LocalDateTime, "19700102000001.1234567", TableValue::LocalDateTime(86_401_123_456), ValueFit::Part),
            (LocalDateTime, "19700102", TableValue::LocalDateTime(86_400_000_000), ValueFit::Part),
            (LocalDateTime, "1970", TableValue::Null, ValueFit::Not),
        ] {
            assert_eq!(typed(kind, false, text), (value, fit), "{kind:?} {text}");
        }
    }

    #[test]
    fn a_moment_is_in_utc_if_its_zone_is_known() {
        for (text, zone, ms) in [
            ("19700102000001+0100", "", Some(86_401_000 - 3_600_000)),
            ("19700102000001+0100", "-0500", Some(86_401_000 - 3_600_000)),
            ("19700102000001", "-0500", Some(86_401_000 + 5 * 3_600_000)),
            ("19700102000001.5", "+0000", Some(86_401_500)),
            ("19700102", "+0100", Some(86_400_000 - 3_600_000)),
            ("19700102000001", "", None),
            ("19700102000001", "CET", None),
            ("1970", "+0100", None),
            ("nonsense", "+0100", None),
            ("", "+0100", None),
            ("00010101000000+0100", "", None),
            ("00010101000000-0100", "", Some(i64::from(FIRST_DAY) * DAY_MS + 3_600_000)),
            ("99991231235959-0100", "", None),
        ] {
            assert_eq!(in_utc(false, text, zone), ms.map_or(TableValue::Null, TableValue::Instant), "{text} {zone}");
        }
        let list = TableValue::List(vec![TableValue::Instant(86_400_000), TableValue::Null]);
        assert_eq!(in_utc(true, r"19700102000000+0000\x", ""), list);
        assert_eq!(in_utc(true, "", ""), TableValue::Null);
    }

    #[test]
    fn a_day_before_the_first_one_is_null() {
        assert_eq!(earlier(10, 3), TableValue::Date(7));
        assert_eq!(earlier(FIRST_DAY + 3, 3), TableValue::Date(FIRST_DAY));
        assert_eq!(earlier(FIRST_DAY, 1), TableValue::Null);
    }

    #[test]
    fn a_list_keeps_the_places_of_its_values() {
        let list = TableValue::List(vec![TableValue::Double(0.5), TableValue::Null, TableValue::Double(1.0)]);
        assert_eq!(typed(ColumnType::Double, true, r"0.5\\1"), (list, ValueFit::Whole));
        assert_eq!(typed(ColumnType::Double, true, r"0.5\x"), (TableValue::Null, ValueFit::Not));
        assert_eq!(typed(ColumnType::Text, true, ""), (TableValue::Null, ValueFit::Whole));
    }

    #[test]
    fn json_that_is_none_does_not_fit() {
        assert_eq!(typed(ColumnType::Json, false, "[{}]").1, ValueFit::Whole);
        assert_eq!(typed(ColumnType::Json, false, "[{]").1, ValueFit::Not);
        assert_eq!(typed(ColumnType::Json, false, "[\n]").1, ValueFit::Not);
    }

    #[test]
    fn values_are_written_as_iso_8601() {
        for (value, text) in [
            (TableValue::Null, ""),
            (TableValue::Integer(-12), "-12"),
            (TableValue::Double(0.5), "0.5"),
            (TableValue::Double(70.0), "70.0"),
            (TableValue::Double(f64::from(f32::MAX)), "3.4028234663852886e38"),
            (TableValue::Date(19_753), "2024-01-31"),
            (TableValue::Date(FIRST_DAY), "0001-01-01"),
            (TableValue::Date(2_932_897), "10000-01-01"),
            (TableValue::Time(37_800_000_001), "10:30:00.000001"),
            (TableValue::LocalDateTime(-1), "1969-12-31T23:59:59.999999"),
            (TableValue::Instant(1500), "1970-01-01T00:00:01.500Z"),
            (TableValue::Instant(2000), "1970-01-01T00:00:02Z"),
        ] {
            let mut written = Vec::new();
            value.put_bare(&mut written);
            assert_eq!(String::from_utf8(written).unwrap(), text);
        }
    }
}
