//! The keys of `dcmdex find` on arrivals: arrival time, sender and change number.

use anyhow::{Context as _, bail};

use crate::model::find::ArrivalKeys;
use crate::model::written_time::span_ms;

/// Separates the arrival keys from the DICOM keys.
///
/// # Errors
/// If a value cannot be parsed.
pub(super) fn take(keys: &[String], now_ms: i64) -> anyhow::Result<(ArrivalKeys, Vec<&str>)> {
    let mut arrival = ArrivalKeys::default();
    let mut rest = Vec::new();
    for key in keys {
        let named = key.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        let is_given = match named {
            Some(("received", value)) => {
                let range = span_ms(value, now_ms).with_context(|| {
                    format!(
                        "cannot parse `received={value}`; hint: use today, yesterday, 24h, 7d, 2w, 2026-11-01, \
                         2026-11-01..2026-11-30, 2026-11-01T08:00.. (UTC; days are exact, times within a day to an \
                         hour)"
                    )
                });
                arrival.received_ms.replace(range?).is_some()
            }
            Some(("since", value)) => {
                let since = value.parse().with_context(|| {
                    format!("`since={value}` is not a change number; hint: `dcmdex status` shows the last one")
                });
                arrival.since.replace(since?).is_some()
            }
            Some(("sender", value)) => arrival.sender.replace(value.to_owned()).is_some(),
            _ => {
                rest.push(key.as_str());
                false
            }
        };
        if let Some((name, _)) = named.filter(|_| is_given) {
            bail!("`{name}` is given twice");
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

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-29T01:00:00Z.
    const NOW: i64 = 1_795_914_000_000;

    #[test]
    fn keys_of_arrivals_are_told_from_those_of_dicom() {
        let keys = ["received=today", "PatientID=1", "since=7", "sender=CT*", "StudyDate"].map(str::to_owned);
        let (arrival, rest) = take(&keys, NOW).unwrap();
        assert_eq!(rest, ["PatientID=1", "StudyDate"]);
        assert_eq!((arrival.since, arrival.sender.as_deref()), (Some(7), Some("CT*")));
        assert!(arrival.received_ms.is_some());
        assert!(take(&["since=x".to_owned()], NOW).is_err());
        assert!(take(&["sender=A", "sender=B"].map(str::to_owned), NOW).is_err());
    }
}
