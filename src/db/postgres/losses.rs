//! Losses of entities that stay (docs/adr/0061).
//!
//! An instance group that changes has the number of the change. One that goes takes its number with
//! it, so what stays of its series, study and patient has a row of `loss`.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::keys::RowKey;
use super::shelves::GroupRow;
use crate::model::attribute::AttributeId::SeriesInstanceUID;
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};

/// Clause for a row of a loss that follows another one. A writer that waited for another one may
/// have the lower number.
const REPLACES: &str = "ON CONFLICT (study, key, level) DO UPDATE SET change = greatest(loss.change, excluded.change), \
     changed_ms = greatest(loss.changed_ms, excluded.changed_ms)";

/// Losses of studies and series in a transaction.
pub(super) struct LostGroups {
    /// Study, key, and level.
    rows: BTreeSet<(i64, RowKey, &'static str)>,
}

impl LostGroups {
    /// Losses by instance groups that are gone, given by their studies and series. `left` has those
    /// that their studies still have, and `changed` those of them with the number of this change.
    pub(super) fn of(gone: &[(i64, RowKey)], left: &HashMap<i64, Vec<GroupRow>>, changed: &BTreeSet<i64>) -> Self {
        let shows = |group: &GroupRow| changed.contains(&group.id);
        let mut rows = BTreeSet::new();
        for (study, series) in gone {
            let Some(of_study) = left.get(study) else { continue };
            if !of_study.iter().any(shows) {
                rows.insert((*study, study_itself(), Study.as_str()));
            }
            let of_series = || of_study.iter().filter(|group| series_key(group) == *series);
            if of_series().next().is_some() && !of_series().any(shows) {
                rows.insert((*study, *series, Series.as_str()));
            }
        }
        Self { rows }
    }

    /// Writes what was lost, with the number of the change.
    pub(super) fn write(self, connection: &mut ServerConnection) -> Result<(), ServerFailure> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let studies: Vec<i64> = self.rows.iter().map(|(study, ..)| *study).collect();
        let keys: Vec<RowKey> = self.rows.iter().map(|(_, key, _)| *key).collect();
        let levels: Vec<&str> = self.rows.iter().map(|(.., level)| *level).collect();
        let sql = format!(
            "INSERT INTO loss SELECT u.level, u.study, u.key, c.number, c.now_ms FROM change_number c, \
             unnest($1::bigint[], $2::uuid[], $3::text[]) AS u(study, key, level) {REPLACES}"
        );
        connection.later(&sql, &[&studies, &keys, &levels])
    }
}

/// Forgets which patients studies have. `named` are studies and patients that stay together. Other
/// patients lost a study, and have a row of that if they have another one. Rows are locked in the
/// order of their keys.
pub(super) fn forget_patients(
    connection: &mut ServerConnection,
    studies: &[i64],
    named: (&[i64], &[RowKey]),
) -> Result<(), ServerFailure> {
    let sql = format!(
        "WITH former AS (DELETE FROM study_patient WHERE study = ANY($1) RETURNING study, person_key), \
         gone AS (SELECT DISTINCT f.person_key FROM former f WHERE NOT EXISTS (SELECT \
         FROM unnest($2::bigint[], $3::uuid[]) AS n(study, key) WHERE n.study = f.study AND n.key = f.person_key)) \
         INSERT INTO loss SELECT 'PATIENT', 0, g.person_key, c.number, c.now_ms FROM gone g, change_number c \
         WHERE EXISTS (SELECT FROM study_patient p WHERE p.person_key = g.person_key AND p.study <> ALL($1)) \
         ORDER BY g.person_key {REPLACES}"
    );
    connection.later(&sql, &[&studies, &named.0, &named.1])
}

/// The key of a loss of the study itself.
fn study_itself() -> RowKey {
    RowKey::of(&[])
}

/// The key of the series of an instance group.
pub(super) fn series_key(group: &GroupRow) -> RowKey {
    RowKey::of_uid(group.record.value(SeriesInstanceUID))
}

/// Forgets what studies lost that are gone.
pub(super) fn forget(connection: &mut ServerConnection, studies: &[i64]) -> Result<(), ServerFailure> {
    connection.later("DELETE FROM loss WHERE study = ANY($1)", &[&studies])
}

/// The instance groups of studies whose entity of this level came or changed after a change.
/// `None` if a query does not ask. Of a patient, any study may have them.
pub(super) fn changed_groups(
    connection: &mut ServerConnection,
    since: Option<i64>,
    level: QueryRetrieveLevel,
    studies: &[i64],
) -> Result<Option<HashSet<i64>>, ServerFailure> {
    let Some(since) = since else { return Ok(None) };
    let mut sql = "SELECT h.id FROM shelf h WHERE h.study = ANY($2) AND h.change > $1".to_owned();
    let lost: &[&str] = match level {
        Image => &[],
        Series => &["l.study = h.study AND l.key = h.series_key AND l.level = 'SERIES'"],
        Study => &["l.study = h.study AND l.level = 'STUDY'"],
        Patient => &[
            "l.study = h.study AND l.level = 'STUDY'",
            "l.level = 'PATIENT' AND l.key IN (SELECT p.person_key FROM study_patient p WHERE p.study = h.study)",
        ],
    };
    if connection.has_table("loss")? {
        for of_entity in lost {
            sql.push_str(" UNION ALL SELECT h.id FROM shelf h JOIN loss l ON ");
            sql.push_str(of_entity);
            sql.push_str(" WHERE h.study = ANY($2) AND l.change > $1");
        }
    }
    let rows = connection.query(&sql, &[&since, &studies])?;
    Ok(Some(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?))
}
