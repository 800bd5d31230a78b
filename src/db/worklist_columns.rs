//! The columns of the tables of the worklist, which all engines have alike.

use super::worklist::{WorklistColumn, WorklistSource, WorklistState};

/// The columns of an item, in the order in which engines read and write them.
pub(in crate::db) const COLUMNS: &str = "id, study_instance_uid, step_id, station_ae_title, start_date, start_time, \
     modality, performing_physician_name, patient_name, patient_id, accession_number, item, character_set, order_key, \
     source, origin, generated, warnings, state, received_ms, changed_ms, expires_ms, message_time";

/// The number of columns before `item`.
pub(in crate::db) const ITEM: usize = 1 + WorklistColumn::ALL.len();

/// The columns of a performed step, in the order in which engines read and write them.
pub(in crate::db) const STEP_COLUMNS: &str =
    "sop_instance_uid, status, station_ae_title, attributes, sender, created_ms, changed_ms";

/// The name of a column in SQL.
pub(in crate::db) const fn column_name(column: WorklistColumn) -> &'static str {
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
pub(in crate::db) fn state_number(state: WorklistState) -> i64 {
    state as i64
}

/// The number of a source in `worklist_item.source`.
pub(in crate::db) fn source_number(source: WorklistSource) -> i64 {
    source as i64
}

/// The state with a number.
pub(in crate::db) fn state_of(number: i64) -> Option<WorklistState> {
    usize::try_from(number).ok().and_then(|place| WorklistState::ALL.get(place)).copied()
}

/// The source with a number.
pub(in crate::db) fn source_of(number: i64) -> Option<WorklistSource> {
    usize::try_from(number).ok().and_then(|place| WorklistSource::ALL.get(place)).copied()
}

/// A list of texts for a column.
pub(in crate::db) fn texts_column(texts: &[String]) -> String {
    serde_json::Value::from(texts.to_vec()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_index_stand_for_the_words_in_their_order() {
        for (number, word) in [(0, "scheduled"), (1, "started"), (2, "done"), (3, "discontinued"), (4, "cancelled")] {
            assert_eq!(state_of(number).unwrap().as_str(), word);
            assert_eq!(state_number(state_of(number).unwrap()), number);
        }
        for (number, word) in [(0, "file"), (1, "hl7"), (2, "command")] {
            assert_eq!(source_of(number).unwrap().as_str(), word);
        }
        assert!(state_of(5).is_none() && source_of(-1).is_none());
        // The statements read the columns in the order of the type.
        let mut columns = COLUMNS.split(", ").skip(1);
        assert!(WorklistColumn::ALL.into_iter().all(|column| columns.next() == Some(column_name(column))));
    }
}
