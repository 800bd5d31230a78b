//! Order of answers by the keys of their records (PS3.4 C.6.4): row numbers, which stay as long as
//! the rows.

use rusqlite::Row;
use rusqlite::types::{Value, ValueRef};

use super::parameters::Parameters;
use crate::model::find::FindRequest;
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};
use crate::model::record_key::{RecordKey, RecordSuffix};

/// The columns of a record key, which are the order of the answers.
pub(super) const fn record_columns(level: QueryRetrieveLevel) -> &'static [&'static str] {
    match level {
        Patient => &["p.id"],
        Study => &["s.id"],
        Series => &["e.id"],
        Image => &["i.instance_group", "i.uid_suffix"],
    }
}

/// The tables from the record up, so that records come in their order and nothing is sorted.
pub(super) fn record_tables(request: &FindRequest) -> Option<String> {
    let above = "CROSS JOIN study s ON s.id = e.study CROSS JOIN patient p ON p.id = s.patient";
    let directory = if request.wants_location { " CROSS JOIN directory d ON d.id = h.directory" } else { "" };
    match request.level {
        Patient => None,
        Study => Some("study s CROSS JOIN patient p ON p.id = s.patient".to_owned()),
        Series => Some(format!("study_series e {above}")),
        Image => Some(format!(
            "instance i CROSS JOIN instance_group h ON h.id = i.instance_group \
             CROSS JOIN study_series e ON e.id = h.series {above}{directory}"
        )),
    }
}

/// The condition that a record comes after another one.
pub(super) fn after_record(parameters: &mut Parameters, after: &RecordKey) -> String {
    let row = parameters.add(after.row);
    let suffix = match &after.suffix {
        None => None,
        Some(RecordSuffix::Bytes(bytes)) => Some(Value::Blob(bytes.clone())),
        Some(RecordSuffix::Text(text)) => Some(Value::Text(text.clone())),
    };
    let columns = record_columns(after.level).join(", ");
    match suffix {
        None => format!("{columns} > {row}"),
        Some(suffix) => format!("({columns}) > ({row}, {})", parameters.add(suffix)),
    }
}

/// Reads a record key, whose columns begin at `at`.
pub(super) fn record_key(row: &Row<'_>, at: usize, level: QueryRetrieveLevel) -> rusqlite::Result<RecordKey> {
    let suffix = match level {
        Image => Some(match row.get_ref(at + 1)? {
            ValueRef::Text(text) => RecordSuffix::Text(String::from_utf8_lossy(text).into_owned()),
            other => RecordSuffix::Bytes(other.as_blob()?.to_vec()),
        }),
        Patient | Study | Series => None,
    };
    Ok(RecordKey { level, row: row.get(at)?, suffix })
}
