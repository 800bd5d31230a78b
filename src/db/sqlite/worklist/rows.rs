//! Rows of the worklist, as SQL has them.

use rusqlite::Row;
use rusqlite::types::FromSqlError;

use crate::db::{PerformedStep, WorklistColumn, WorklistRow, WorklistSource, WorklistState};

/// The columns of a row, in the order in which [`row`] reads them.
pub(super) const COLUMNS: &str = "id, study_instance_uid, step_id, station_ae_title, start_date, start_time, modality, \
     performing_physician_name, patient_name, patient_id, accession_number, item, character_set, order_key, source, \
     origin, generated, warnings, state, received_ms, changed_ms, expires_ms, message_time";

/// The number of columns before `item`.
const ITEM: usize = 1 + WorklistColumn::ALL.len();

/// The columns of a performed step, in the order in which [`performed_step`] reads them.
pub(super) const STEP_COLUMNS: &str =
    "sop_instance_uid, status, station_ae_title, attributes, sender, created_ms, changed_ms";

/// The name of a column in SQL.
pub(super) const fn name(column: WorklistColumn) -> &'static str {
    match column {
        WorklistColumn::StudyInstanceUid => "study_instance_uid",
        WorklistColumn::StepId => "step_id",
        WorklistColumn::StationAeTitle => "station_ae_title",
        WorklistColumn::StartDate => "start_date",
        WorklistColumn::StartTime => "start_time",
        WorklistColumn::Modality => "modality",
        WorklistColumn::PerformingPhysicianName => "performing_physician_name",
        WorklistColumn::PatientName => "patient_name",
        WorklistColumn::PatientId => "patient_id",
        WorklistColumn::AccessionNumber => "accession_number",
    }
}

/// The number of a state in `worklist_item.state`.
pub(super) fn state_number(state: WorklistState) -> i64 {
    state as i64
}

pub(super) fn source_number(source: WorklistSource) -> i64 {
    source as i64
}

pub(super) fn state(number: i64) -> rusqlite::Result<WorklistState> {
    let place = usize::try_from(number).ok();
    let state = place.and_then(|place| WorklistState::ALL.get(place));
    state.copied().ok_or_else(|| FromSqlError::OutOfRange(number).into())
}

pub(super) fn source(number: i64) -> rusqlite::Result<WorklistSource> {
    let place = usize::try_from(number).ok();
    let source = place.and_then(|place| WorklistSource::ALL.get(place));
    source.copied().ok_or_else(|| FromSqlError::OutOfRange(number).into())
}

/// A list of texts for a column.
pub(super) fn json(texts: &[String]) -> String {
    serde_json::Value::from(texts.to_vec()).to_string()
}

fn texts(json: &str) -> rusqlite::Result<Vec<String>> {
    serde_json::from_str(json).map_err(|error| FromSqlError::Other(Box::new(error)).into())
}

/// Reads a row with [`COLUMNS`].
pub(super) fn row(row: &Row<'_>) -> rusqlite::Result<WorklistRow> {
    let mut values: [String; WorklistColumn::ALL.len()] = Default::default();
    for (at, value) in values.iter_mut().enumerate() {
        *value = row.get(1 + at)?;
    }
    Ok(WorklistRow {
        id: row.get(0)?,
        values,
        item: row.get(ITEM)?,
        character_set: row.get(ITEM + 1)?,
        order_key: row.get(ITEM + 2)?,
        source: source(row.get(ITEM + 3)?)?,
        origin: row.get(ITEM + 4)?,
        generated: texts(row.get_ref(ITEM + 5)?.as_str()?)?,
        warnings: texts(row.get_ref(ITEM + 6)?.as_str()?)?,
        state: state(row.get(ITEM + 7)?)?,
        received_ms: row.get(ITEM + 8)?,
        changed_ms: row.get(ITEM + 9)?,
        expires_ms: row.get(ITEM + 10)?,
        message_time: row.get(ITEM + 11)?,
    })
}

/// Reads a row with [`STEP_COLUMNS`].
pub(super) fn performed_step(row: &Row<'_>) -> rusqlite::Result<PerformedStep> {
    Ok(PerformedStep {
        sop_instance_uid: row.get(0)?,
        status: row.get(1)?,
        station_ae_title: row.get(2)?,
        attributes: row.get(3)?,
        sender: row.get(4)?,
        created_ms: row.get(5)?,
        changed_ms: row.get(6)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_index_stand_for_the_words_in_their_order() {
        for (number, word) in [(0, "scheduled"), (1, "started"), (2, "done"), (3, "discontinued"), (4, "cancelled")] {
            assert_eq!(state(number).unwrap().as_str(), word);
            assert_eq!(state_number(state(number).unwrap()), number);
        }
        for (number, word) in [(0, "file"), (1, "hl7"), (2, "command")] {
            assert_eq!(source(number).unwrap().as_str(), word);
        }
        assert!(state(5).is_err() && source(-1).is_err());
        // The statements read the columns in the order of the type.
        let mut columns = COLUMNS.split(", ").skip(1);
        assert!(WorklistColumn::ALL.into_iter().all(|column| columns.next() == Some(name(column))));
    }
}
