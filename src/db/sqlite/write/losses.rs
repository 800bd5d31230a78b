//! Losses of entities that stay (docs/adr/0061).
//!
//! An instance group that changes has the number of the change. One that goes takes its number with
//! it, so what stays of its series, study and patient has a row of `loss`.

use foldhash::HashSet;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::columns::table_of;
use super::super::schema::LOSSES;
use super::origins::Origins;
use super::rows::Result;
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};

/// Losses of entities by a transaction.
#[derive(Default)]
pub(super) struct Losses {
    /// Rows that lost something, or are gone themselves.
    rows: HashSet<(QueryRetrieveLevel, i64)>,
    /// Patient ID and identity of patients that lost a study.
    patients: HashSet<(String, String)>,
}

impl Losses {
    /// Notes that the row of an entity lost something, or is gone.
    pub(super) fn note(&mut self, level: QueryRetrieveLevel, row: i64) {
        self.rows.insert((level, row));
    }

    /// Notes that a study left a patient. Its description may go too, but is still there.
    pub(super) fn note_patient(&mut self, connection: &Connection, description: i64) -> Result<()> {
        let patient = connection
            .prepare_cached("SELECT patient_id, identity FROM patient WHERE id = ?1")?
            .query_row([description], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        self.patients.extend(patient);
        Ok(())
    }

    /// Writes what was lost, with the number of the change.
    pub(super) fn write(mut self, connection: &Connection, origins: &mut Origins<'_>) -> Result<()> {
        for patient in &self.patients {
            let some: Option<i64> = connection
                .prepare_cached("SELECT min(id) FROM patient WHERE patient_id = ?1 AND identity = ?2")?
                .query_row([&patient.0, &patient.1], |row| row.get(0))?;
            self.rows.extend(some.map(|row| (Patient, row)));
        }
        if self.rows.is_empty() {
            return Ok(());
        }
        LOSSES.make(connection)?;
        let (change, now_ms) = origins.change_and_time()?;
        for (level, row) in self.rows {
            let is_there: bool = connection
                .prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM {} WHERE id = ?1)", table_of(level)))?
                .query_row([row], |found| found.get(0))?;
            if !is_there {
                connection
                    .prepare_cached("DELETE FROM loss WHERE level = ?1 AND id = ?2")?
                    .execute(params![level.as_str(), row])?;
            } else if !shows(connection, level, row, change)? {
                connection
                    .prepare_cached(
                        "INSERT OR REPLACE INTO loss (level, id, change, changed_ms) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute(params![level.as_str(), row, change, now_ms])?;
            }
        }
        Ok(())
    }
}

/// Whether an instance group of an entity has the number of the change, as when a file has moved
/// to another directory. The entity then needs no row of its own.
fn shows(connection: &Connection, level: QueryRetrieveLevel, row: i64, change: i64) -> Result<bool> {
    let groups = match level {
        Series | Image => "instance_group WHERE series = ?1 AND change = ?2",
        Study => "study_series e JOIN instance_group h ON h.series = e.id WHERE e.study = ?1 AND h.change = ?2",
        // It may have thousands of studies.
        Patient => return Ok(false),
    };
    connection
        .prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM {groups})"))?
        .query_row([row, change], |found| found.get(0))
}
