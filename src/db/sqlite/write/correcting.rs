//! A change of the rules of corrections: the instance groups that it is meant for, and what it does
//! to their studies.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::{Connection, Row};

use super::super::sql_values::to_u64;
use super::changes::Recompute;
use super::corrections::{description_of, load, write};
use super::rows::Result;
use super::tables::Tables;
use crate::db::rules::Description;
use crate::db::{CorrectedValues, CorrectionChange, CorrectionEffect, Corrections};
use crate::model::attribute::AttributeId;

/// An instance group, and what its objects say of their patient.
struct SayingGroup {
    id: i64,
    instances: i64,
    study: i64,
    study_instance_uid: String,
    series_instance_uid: String,
    said: (i64, Option<i64>),
}

const SAYING_GROUPS: &str = "SELECT h.id, h.instance_count, s.id, s.study_instance_uid, e.series_instance_uid, \
     ifnull(h.patient, s.patient), h.patient_values FROM instance_group h JOIN study_series e ON e.id = h.series \
     JOIN study s ON s.id = e.study WHERE ";

impl SayingGroup {
    fn read(row: &Row<'_>) -> Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            instances: row.get(1)?,
            study: row.get(2)?,
            study_instance_uid: row.get(3)?,
            series_instance_uid: row.get(4)?,
            said: (row.get(5)?, row.get(6)?),
        })
    }

    fn uids(&self) -> (&str, &str) {
        (&self.study_instance_uid, &self.series_instance_uid)
    }
}

/// The groups that a rule with this key may be meant for, or was meant for until now.
fn groups_of_key(connection: &Connection, (id, value): (AttributeId, &str)) -> Result<Vec<SayingGroup>> {
    let condition = match id {
        AttributeId::StudyInstanceUID => "s.study_instance_uid = ?1",
        AttributeId::SeriesInstanceUID => "e.series_instance_uid = ?1",
        // What corrected objects say is never what their row says.
        _ => {
            "h.id IN (SELECT g.id FROM patient p JOIN (SELECT id, patient FROM study \
             UNION ALL SELECT study, patient FROM study_patient) t ON t.patient = p.id \
             JOIN study_series x ON x.study = t.id JOIN instance_group g ON g.series = x.id WHERE p.patient_id = ?1 \
             UNION SELECT id FROM instance_group WHERE patient_values IS NOT NULL)"
        }
    };
    let sql = format!("{SAYING_GROUPS}{condition}");
    connection.prepare_cached(&sql)?.query_map([value], SayingGroup::read)?.collect()
}

/// Calls `on_group` for each instance group that a change of the rules is meant for, and adds up
/// what the change does.
fn effect_of(
    connection: &Connection,
    (before, after): (&Corrections, &Corrections),
    key: (AttributeId, &str),
    mut on_group: impl FnMut(&SayingGroup),
) -> Result<CorrectionEffect> {
    let mut effect = CorrectionEffect::default();
    let mut descriptions: HashMap<(i64, Option<i64>), Description> = HashMap::new();
    for group in groups_of_key(connection, key)? {
        let said = match descriptions.entry(group.said) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(description_of(connection, group.said)?),
        };
        let [was, now] = [before, after].map(|rules| rules.corrected(group.uids(), said).map(|(now, _)| now));
        if was != now {
            let [was, now] = [&was, &now].map(|corrected| corrected.as_ref().unwrap_or(said));
            effect.add(&group.study_instance_uid, to_u64(group.instances), was, now);
            on_group(&group);
        }
    }
    Ok(effect)
}

/// Values that the rules replace in the objects of an instance group.
pub(in super::super) fn values_of_group(
    connection: &Connection,
    rules: &Corrections,
    group: i64,
) -> Result<Option<CorrectedValues>> {
    let sql = format!("{SAYING_GROUPS}h.id = ?1");
    let group = connection.prepare_cached(&sql)?.query_row([group], SayingGroup::read)?;
    Ok(rules.values_for(group.uids(), &description_of(connection, group.said)?))
}

/// Effect that a change of the rules would have.
pub(in super::super) fn plan(connection: &Connection, change: &CorrectionChange) -> Result<CorrectionEffect> {
    let rules = load(connection)?;
    let after = Corrections::new(change.applied_to(rules.clone()));
    let Some(key) = change.correction().leading() else { return Ok(CorrectionEffect::default()) };
    effect_of(connection, (&Corrections::new(rules), &after), key, |_| ())
}

impl Tables<'_> {
    /// Changes the rules, and has the studies that they are meant for computed anew. Returns the
    /// number of the rule.
    pub(super) fn change_corrections(&mut self, change: &CorrectionChange) -> Result<(i64, CorrectionEffect)> {
        let before = Corrections::new(load(self.connection)?);
        let number = write(self.connection, change)?;
        let after = Corrections::new(load(self.connection)?);
        self.forget();
        let Some(key) = change.correction().leading() else { return Ok((number, CorrectionEffect::default())) };
        let (changes, origins) = (&mut self.changes, &mut self.origins);
        let effect = effect_of(self.connection, (&before, &after), key, |group| {
            changes.studies_to_recompute.insert(group.study, Recompute::Always);
            origins.touch(group.id);
        })?;
        Ok((number, effect))
    }
}
