//! The rows of studies: what leads to a study, orders it and counts it. All of it follows from the
//! instance groups.

use std::collections::BTreeSet;

use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::keys::{RowKey, leading, to_column};
use super::losses;
use super::shelves::GroupRow;
use crate::db::Corrections;
use crate::db::rules::{self, Description, PatientOfStudy};
use crate::db::view::{description_of, most_complete};
use crate::model::attribute::AttributeId::{self, *};
use crate::model::person_name;

/// Contents of the rows of a study.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StudySummary {
    date: String,
    time: String,
    accession_number: String,
    is_separated: bool,
    series: i64,
    patients: Vec<PatientRow>,
    /// Whether a rule corrects some of its instance groups.
    is_corrected: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PatientRow {
    key: RowKey,
    patient_id: String,
    identity: String,
    issuer: String,
    name: String,
    is_separated: bool,
}

/// Stands for a patient, apart from the issuer of the Patient ID.
pub(super) fn person_key(patient_id: &str, identity: &str) -> RowKey {
    RowKey::of(&[patient_id.as_bytes(), identity.as_bytes()])
}

impl StudySummary {
    pub(super) fn of<'s>(
        study_instance_uid: &str,
        groups: impl Iterator<Item = &'s GroupRow>,
        corrections: &Corrections,
    ) -> Self {
        let groups: Vec<&GroupRow> = groups.collect();
        let mut is_corrected = false;
        let mut of_group = |group: &GroupRow| {
            let said = description_of(&group.record);
            match corrections.corrected((study_instance_uid, group.record.value(SeriesInstanceUID)), &said) {
                Some((now, _)) => {
                    is_corrected = true;
                    now
                }
                None => said,
            }
        };
        let said: Vec<Description> = groups.iter().map(|group| of_group(group)).collect();
        let value = |id: AttributeId| {
            most_complete(id.attribute().vr, groups.iter().map(|group| group.record.value(id).to_owned()))
        };
        let (date, time, accession_number) = (value(StudyDate), value(StudyTime), value(AccessionNumber));
        let series: BTreeSet<&str> = groups.iter().map(|group| group.record.value(SeriesInstanceUID)).collect();
        let has_backslash = |text: &str| text.contains('\\');
        let is_separated = [&*date, &time, &accession_number, study_instance_uid]
            .into_iter()
            .chain(series.iter().copied())
            .any(has_backslash);
        Self {
            date: leading(&date),
            time: leading(&time),
            accession_number: leading(&accession_number),
            is_separated,
            series: series.iter().filter(|uid| !uid.is_empty()).count() as i64,
            patients: rules::patients_of_study(&said).iter().map(PatientRow::of).collect(),
            is_corrected,
        }
    }
}

impl PatientRow {
    fn of(patient: &PatientOfStudy) -> Self {
        let (patient_id, identity, issuer) = rules::key_of(&patient.values);
        let name = rules::value_of(&patient.values, PatientName);
        let groups = person_name::normal_groups(name).map(|group| format!("\n{group}"));
        let is_separated = [&*patient_id, name].into_iter().any(|text| text.contains('\\'));
        Self {
            key: person_key(&patient_id, &identity),
            patient_id: leading(&patient_id),
            identity: leading(&identity),
            issuer: to_column(&issuer),
            name: to_column(&groups.concat()),
            is_separated,
        }
    }
}

/// Change of the row of a study.
pub(super) struct StudyChange {
    pub(super) id: i64,
    pub(super) instances: i64,
    pub(super) offline: i64,
    /// `None` if its instance groups are the same, so that only the counts change.
    pub(super) summary: Option<StudySummary>,
}

/// Writes the rows of studies. Each gets another revision, so that what others remember of it is
/// over.
pub(super) fn save(connection: &mut ServerConnection, changes: &[StudyChange]) -> Result<(), ServerFailure> {
    let (counted, new): (Vec<&StudyChange>, Vec<&StudyChange>) =
        changes.iter().partition(|change| change.summary.is_none());
    if !counted.is_empty() {
        let number = |of: fn(&StudyChange) -> i64| counted.iter().map(|change| of(change)).collect::<Vec<i64>>();
        connection.later(
            "UPDATE study SET instance_count = u.instances, offline_count = u.offline, revision = revision + 1 \
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS u(id, instances, offline) WHERE study.id = u.id",
            &[&number(|change| change.id), &number(|change| change.instances), &number(|change| change.offline)],
        )?;
    }
    let new: Vec<(&StudyChange, &StudySummary)> =
        new.into_iter().filter_map(|change| Some((change, change.summary.as_ref()?))).collect();
    if new.is_empty() { Ok(()) } else { save_summaries(connection, &new) }
}

fn save_summaries(
    connection: &mut ServerConnection,
    new: &[(&StudyChange, &StudySummary)],
) -> Result<(), ServerFailure> {
    let number = |of: fn(&StudyChange) -> i64| new.iter().map(|(change, _)| of(change)).collect::<Vec<i64>>();
    let text = |of: fn(&StudySummary) -> &str| new.iter().map(|(_, study)| of(study)).collect::<Vec<&str>>();
    let separated: Vec<bool> = new.iter().map(|(_, study)| study.is_separated).collect();
    let series: Vec<i64> = new.iter().map(|(_, study)| study.series).collect();
    let ids = number(|change| change.id);
    connection.later(
        "UPDATE study SET instance_count = u.instances, offline_count = u.offline, revision = revision + 1, \
         study_date = u.date, study_time = u.time, accession_number = u.accession_number, \
         is_separated = u.is_separated, series_count = u.series \
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::boolean[], \
         $8::bigint[]) AS u(id, instances, offline, date, time, accession_number, is_separated, series) \
         WHERE study.id = u.id",
        &[
            &ids,
            &number(|change| change.instances),
            &number(|change| change.offline),
            &text(|study| &study.date),
            &text(|study| &study.time),
            &text(|study| &study.accession_number),
            &separated,
            &series,
        ],
    )?;
    let corrected: Vec<i64> = new.iter().filter(|(_, study)| study.is_corrected).map(|(change, _)| change.id).collect();
    if !corrected.is_empty() {
        let sql = "INSERT INTO corrected_study SELECT * FROM unnest($1::bigint[]) ON CONFLICT DO NOTHING";
        connection.later(sql, &[&corrected])?;
    }
    let rows: Vec<(i64, i16, &PatientRow)> = new
        .iter()
        .flat_map(|(change, study)| {
            (0..).zip(&study.patients).map(move |(position, patient)| (change.id, position, patient))
        })
        .collect();
    let studies: Vec<i64> = rows.iter().map(|(study, ..)| *study).collect();
    let positions: Vec<i16> = rows.iter().map(|(_, position, _)| *position).collect();
    let keys: Vec<RowKey> = rows.iter().map(|(.., patient)| patient.key).collect();
    let text = |of: fn(&PatientRow) -> &str| rows.iter().map(|(.., patient)| of(patient)).collect::<Vec<&str>>();
    let separated: Vec<bool> = rows.iter().map(|(.., patient)| patient.is_separated).collect();
    losses::forget_patients(connection, &ids, (&studies, &keys))?;
    connection.later(
        "INSERT INTO study_patient SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::uuid[], $4::text[], \
         $5::text[], $6::text[], $7::text[], $8::boolean[])",
        &[
            &studies,
            &positions,
            &keys,
            &text(|patient| &patient.patient_id),
            &text(|patient| &patient.identity),
            &text(|patient| &patient.issuer),
            &text(|patient| &patient.name),
            &separated,
        ],
    )?;
    Ok(())
}

/// Drops studies that have no instance any more.
pub(super) fn drop_empty(connection: &mut ServerConnection, ids: &[i64]) -> Result<(), ServerFailure> {
    if !ids.is_empty() {
        losses::forget_patients(connection, ids, (&[], &[]))?;
        connection.later("DELETE FROM study WHERE id = ANY($1)", &[&ids])?;
        losses::forget(connection, ids)?;
    }
    Ok(())
}
