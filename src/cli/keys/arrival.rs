//! The keys of `dcmdex find` on arrivals: arrival time, sender and change number.

use anyhow::{Context as _, bail};

use crate::model::calendar::{DAY_MS, HOUR_MS, days_before, days_in};
use crate::model::find::ArrivalKeys;

/// Separates the arrival keys from the DICOM keys.
///
/// # Errors
/// If a value cannot be parsed.
pub(super) fn take(keys: &[String], now_ms: i64) -> anyhow::Result<(ArrivalKeys, Vec<&str>)> {
    let mut arrival = ArrivalKeys::default();
    let mut rest = Vec::new();
    for key in keys {
        match key.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
            Some(("received", value)) => {
                let range = received(value, now_ms).with_context(|| {
                    format!(
                        "cannot parse `received={value}`; hint: use today, yesterday, 24h, 7d, 2026-11-01, \
                         2026-11-01..2026-11-30, 2026-11-01T08:00.. (UTC; days are exact, times within a day to an \
                         hour)"
                    )
                });
                arrival.received_ms = Some(range?);
            }
            Some(("since", value)) => {
                arrival.since = Some(value.parse().with_context(|| {
                    format!("`since={value}` is not a change number; hint: `dcmdex status` shows the last one")
                })?);
            }
            Some(("sender", value)) => arrival.sender = Some(value.to_owned()),
            _ => rest.push(key.as_str()),
        }
    }
    Ok((arrival, rest))
}

/// An example of a key of arrivals, if this is the name of one.
pub(super) fn example(name: &str) -> Option<&'static str> {
    match name {
        "received" => Some("received=today"),
        "since" => Some("since=4711"),
        "sender" => Some("sender=CT*"),
        _ => None,
    }
}

/// Parses a time range: from the first value to before the second, in milliseconds since 1970 UTC.
fn received(text: &str, now_ms: i64) -> anyhow::Result<(i64, i64)> {
    let today = now_ms.div_euclid(DAY_MS) * DAY_MS;
    let last = |unit: char, length_ms: i64| -> Option<(i64, i64)> {
        let count: i64 = text.strip_suffix(unit)?.parse().ok().filter(|count| (1..=1_000_000).contains(count))?;
        Some((now_ms - count * length_ms, i64::MAX))
    };
    if let Some(range) = last('h', HOUR_MS).or_else(|| last('d', DAY_MS)) {
        return Ok(range);
    }
    Ok(match text {
        "today" => (today, today + DAY_MS),
        "yesterday" => (today - DAY_MS, today),
        _ => match text.split_once("..") {
            None => moment(text)?,
            Some((from, to)) => {
                let from = if from.is_empty() { i64::MIN } else { moment(from)?.0 };
                let to = if to.is_empty() { i64::MAX } else { moment(to)?.1 };
                (from, to)
            }
        },
    })
}

/// Start and end of a day `2026-11-01`, or of a minute or second of it, such as `2026-11-01T08:00`.
/// A time within a day finds what [`ArrivalKeys::received_ms`] says.
fn moment(text: &str) -> anyhow::Result<(i64, i64)> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time.trim_end_matches('Z'))),
        None => (text, None),
    };
    let number = |text: &str, digits: usize| -> anyhow::Result<i64> {
        if text.len() != digits || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            bail!("`{text}` is not a number with {digits} digits");
        }
        Ok(text.parse()?)
    };
    let parts: Vec<&str> = date.split('-').collect();
    let [year, month, day] = parts[..] else { bail!("`{date}` is not a date") };
    let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        bail!("the day {date} does not exist");
    }
    let start = days_before(year, month, day) * DAY_MS;
    let Some(time) = time else { return Ok((start, start + DAY_MS)) };
    let parts: Vec<&str> = time.split(':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] => (number(hour, 2)?, number(minute, 2)?, None),
        [hour, minute, second] => (number(hour, 2)?, number(minute, 2)?, Some(number(second, 2)?)),
        _ => bail!("`{time}` is not a time"),
    };
    if hour > 23 || minute > 59 || second.is_some_and(|second| second > 59) {
        bail!("the time {time} does not exist");
    }
    let start = start + hour * HOUR_MS + minute * 60_000 + second.unwrap_or(0) * 1000;
    Ok((start, start + if second.is_some() { 1000 } else { 60_000 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-29T01:00:00Z.
    const NOW: i64 = 1_795_914_000_000;

    #[test]
    fn times_are_understood_as_people_write_them() {
        let today = NOW - HOUR_MS;
        for (text, range) in [
            ("today", (today, today + DAY_MS)),
            ("yesterday", (today - DAY_MS, today)),
            ("2026-11-29", (today, today + DAY_MS)),
            ("2026-11-28..2026-11-29", (today - DAY_MS, today + DAY_MS)),
            ("2026-11-29..", (today, i64::MAX)),
            ("..2026-11-28", (i64::MIN, today)),
            ("2026-11-29T01:00", (NOW, NOW + 60_000)),
            ("2026-11-29T01:00:00Z..", (NOW, i64::MAX)),
            ("2h", (NOW - 2 * HOUR_MS, i64::MAX)),
            ("7d", (NOW - 7 * DAY_MS, i64::MAX)),
        ] {
            assert_eq!(received(text, NOW).ok(), Some(range), "{text}");
        }
        for text in ["", "tomorrow", "2026-02-29", "2026-13-01", "26-1-1", "2026-11-29T25:00", "-1d", "0h", "20261129"]
        {
            assert!(received(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_of_arrivals_are_told_from_those_of_dicom() {
        let keys = ["received=today", "PatientID=1", "since=7", "sender=CT*", "StudyDate"].map(str::to_owned);
        let (arrival, rest) = take(&keys, NOW).unwrap();
        assert_eq!(rest, ["PatientID=1", "StudyDate"]);
        assert_eq!((arrival.since, arrival.sender.as_deref()), (Some(7), Some("CT*")));
        assert!(arrival.received_ms.is_some());
        assert!(take(&["since=x".to_owned()], NOW).is_err());
    }
}
