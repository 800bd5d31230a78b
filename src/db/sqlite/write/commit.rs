//! The end of a transaction: counters, look-ups, summaries, and entities that have become empty.

use rusqlite::OptionalExtension;

use super::asserted_values::AssertedValues;
use super::changes::{GroupOfStudy, Recompute};
use super::event_rows::write_events;
use super::rows::Result;
use super::tables::Tables;
use crate::model::level::QueryRetrieveLevel::{Patient, Series, Study};

/// Writes what the transaction has changed and not written yet.
pub(super) fn write_changes(tables: &mut Tables<'_>) -> Result<()> {
    tables.count_run();
    tables.lookups.write()?;
    tables.origins.write_groups(&mut tables.changes.counts.instance_groups)?;
    tables.changes.counts.write(tables.connection)?;
    remove_empty(tables)?;
    write_events(tables)?;
    tables.origins.end_change();
    summarise_studies(tables)
}

/// Drops entities that have lost their last instance, and computes those anew that have lost
/// others.
fn remove_empty(tables: &mut Tables<'_>) -> Result<()> {
    let shrunk: Vec<_> = tables.changes.shrunk.drain().collect();
    let mut dropped = false;
    for group in shrunk {
        dropped |= drop_empty_group(tables, group)?;
    }
    tables.parents.recompute_all(&mut tables.changes)?;
    for patient in std::mem::take(&mut tables.changes.patients_left) {
        if tables.parents.patients.drop_unused(patient, &mut tables.changes)? {
            tables.changes.losses.note(Patient, patient);
            dropped = true;
        }
    }
    tables.parents.patients.recompute_touched(&mut tables.changes)?;
    std::mem::take(&mut tables.changes.losses).write(tables.connection, &mut tables.origins)?;
    if tables.changes.parents_changed {
        tables.forget_parents();
    }
    if dropped {
        tables.origins.raise_change_floor()?;
        tables.forget();
    }
    Ok(())
}

/// Drops an instance group if it is empty, and with it its series and study if they are. Returns
/// whether the group was empty.
fn drop_empty_group(tables: &mut Tables<'_>, group: GroupOfStudy) -> Result<bool> {
    let GroupOfStudy { instance_group, series, study } = group;
    let connection = tables.connection;
    let was: Option<[Option<i64>; 3]> = connection
        .prepare_cached(
            "DELETE FROM instance_group WHERE id = ?1 AND instance_count = 0 \
             RETURNING patient_values, study_values, series_values",
        )?
        .query_row([instance_group], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
        .optional()?;
    let Some(asserted) = was else { return Ok(false) };
    for row in asserted.into_iter().flatten() {
        AssertedValues::new(connection).drop_unused(row)?;
    }
    tables.lookups.forget_group(instance_group)?;
    let changes = &mut tables.changes;
    changes.studies_to_summarise.insert(study);
    changes.losses.note(Series, series);
    changes.losses.note(Study, study);
    let series_dropped = connection
        .prepare_cached("DELETE FROM study_series WHERE id = ?1 AND instance_count = 0")?
        .execute([series])?;
    if series_dropped > 0 {
        connection
            .prepare_cached("UPDATE study SET series_count = series_count - 1 WHERE id = ?1")?
            .execute([study])?;
    } else {
        changes.series_to_recompute.entry(series).or_insert(Recompute::IfLeft);
    }
    let patients: Vec<i64> = connection
        .prepare_cached(
            "SELECT patient FROM study WHERE id = ?1 UNION SELECT patient FROM study_patient WHERE study = ?1",
        )?
        .query_map([study], |row| row.get(0))?
        .collect::<Result<_>>()?;
    let study_dropped =
        connection.prepare_cached("DELETE FROM study WHERE id = ?1 AND instance_count = 0")?.execute([study])?;
    if study_dropped > 0 {
        connection.prepare_cached("DELETE FROM study_patient WHERE study = ?1")?.execute([study])?;
        for &patient in &patients {
            changes.losses.note_patient(connection, patient)?;
        }
        changes.patients_left.extend(patients);
    } else {
        changes.studies_to_recompute.entry(study).or_insert(Recompute::IfLeft);
    }
    Ok(true)
}

/// Computes the attributes of studies that sum up their series.
fn summarise_studies(tables: &mut Tables<'_>) -> Result<()> {
    let studies: Vec<i64> = tables.changes.studies_to_summarise.drain().collect();
    for study in studies {
        tables
            .connection
            .prepare_cached(
                "UPDATE study SET modalities_in_study = ifnull(dcm_each_once((SELECT group_concat(modality, '\\') FROM \
                 (SELECT DISTINCT modality FROM study_series WHERE study = ?1 AND modality <> '' ORDER BY modality))), ''), \
                 sop_classes_in_study = ifnull((SELECT group_concat(sop_class_uid, '\\') FROM (SELECT DISTINCT h.sop_class_uid \
                 FROM study_series e JOIN instance_group h ON h.series = e.id WHERE e.study = ?1 AND h.sop_class_uid <> '' \
                 ORDER BY h.sop_class_uid)), ''), \
                 anatomic_regions_in_study_code_sequence = ifnull((SELECT json_group_array(json(item)) FROM (SELECT DISTINCT \
                 j.value AS item FROM study_series e, json_each(iif(json_valid(e.anatomic_region_sequence), \
                 e.anatomic_region_sequence, '[]')) j WHERE e.study = ?1 \
                 AND e.anatomic_region_sequence <> '' ORDER BY item) HAVING count(*) > 0), '') WHERE id = ?1",
            )?
            .execute([study])?;
    }
    Ok(())
}
