//! A change of the rules of corrections: the instance groups that it is meant for, and what it does
//! to their studies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::connection::ServerConnection;
use super::corrections::{all_rules, lock_rules, write_rule};
use super::error::ServerFailure;
use super::flight::SqlParameter;
use super::keys::{RowKey, leading, to_u64};
use super::load;
use super::reader::PostgresReader;
use super::shelves::GroupRow;
use super::studies::{self, StudyChange, StudySummary};
use super::writer::PostgresWriterHandle;
use crate::db::view::description_of;
use crate::db::{Correction, CorrectionChange, CorrectionEffect, Corrections, Error};
use crate::model::attribute::AttributeId::{self, SeriesInstanceUID, StudyInstanceUID};

/// Studies whose instance groups are read at once.
const STUDIES_AT_ONCE: usize = 64;

impl PostgresReader {
    /// All rules in the order of their numbers, those that were undone included.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn corrections(&mut self) -> Result<Vec<Correction>, Error> {
        self.ask(all_rules)
    }

    /// Whether any correction holds.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn has_corrections(&mut self) -> Result<bool, Error> {
        Ok(!Corrections::new(self.corrections()?).is_empty())
    }

    /// Says what [`PostgresWriterHandle::correct`] would do.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn plan_correction(&mut self, change: &CorrectionChange) -> Result<CorrectionEffect, Error> {
        self.ask_at_once(|connection| {
            let rules = all_rules(connection)?;
            let after = Corrections::new(change.applied_to(rules.clone()));
            effect_of(connection, (&Corrections::new(rules), &after), change, |_, _| Ok(()))
        })
    }
}

impl PostgresWriterHandle {
    /// Changes the rules, and all answers with them. Returns the number of the rule.
    ///
    /// *Durability*: the change is committed when this returns, in one transaction.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    pub fn correct(&self, change: CorrectionChange) -> Result<(i64, CorrectionEffect), Error> {
        let mut made: Option<(i64, CorrectionEffect)> = None;
        self.change_index(move |changer, _| {
            // The answer of the server to a commit may have been lost. It is not made twice.
            let is_in_doubt = changer.is_in_doubt;
            let found = made.clone().filter(|_| is_in_doubt);
            changer.transaction(|connection, _| {
                lock_rules(connection)?;
                if let Some((number, effect)) = &found
                    && is_in_force(connection, *number, &change)?
                {
                    return Ok((*number, effect.clone()));
                }
                let done = correct(connection, &change)?;
                made = Some(done.clone());
                Ok(done)
            })
        })
    }
}

/// Whether the rules are as a change with this number leaves them.
fn is_in_force(
    connection: &mut ServerConnection,
    number: i64,
    change: &CorrectionChange,
) -> Result<bool, ServerFailure> {
    let rule = all_rules(connection)?.into_iter().find(|rule| rule.number == number);
    Ok(rule.is_some_and(|rule| match change {
        CorrectionChange::Make(made) => Correction { number, ..made.clone() } == rule,
        CorrectionChange::Undo { undone_ms, .. } => rule.undone_ms == Some(*undone_ms),
    }))
}

fn correct(
    connection: &mut ServerConnection,
    change: &CorrectionChange,
) -> Result<(i64, CorrectionEffect), ServerFailure> {
    let before = Corrections::new(all_rules(connection)?);
    let number = write_rule(connection, change)?;
    let after = Arc::new(Corrections::new(all_rules(connection)?));
    connection.corrections = Arc::clone(&after);
    let effect = effect_of(connection, (&before, &after), change, |connection, studies| {
        let mut changes = Vec::new();
        for (id, (groups, _)) in &studies {
            let uid = groups.first().map_or("", |group| group.record.value(StudyInstanceUID));
            changes.push(StudyChange {
                id: *id,
                instances: groups.iter().map(|group| group.instances).sum(),
                offline: groups.iter().map(|group| group.offline).sum(),
                summary: Some(StudySummary::of(uid, groups.iter(), &after)),
            });
        }
        studies::save(connection, &changes)?;
        let touched: Vec<i64> = studies.into_values().flat_map(|(_, touched)| touched).collect();
        let sql = "UPDATE shelf SET change = c.number, changed_ms = c.now_ms, \
                   change_block = c.number - c.number % 4096 FROM change_number c WHERE shelf.id = ANY($1)";
        connection.execute(sql, &[&touched]).map(drop)
    })?;
    Ok((number, effect))
}

/// The instance groups of studies, and the numbers of those that a change is meant for.
type ChangedStudies = BTreeMap<i64, (Vec<GroupRow>, Vec<i64>)>;

/// Adds up what a change of the rules does. Calls `on_studies` with the studies that it is meant
/// for, some at a time.
fn effect_of(
    connection: &mut ServerConnection,
    (before, after): (&Corrections, &Corrections),
    change: &CorrectionChange,
    mut on_studies: impl FnMut(&mut ServerConnection, ChangedStudies) -> Result<(), ServerFailure>,
) -> Result<CorrectionEffect, ServerFailure> {
    let mut effect = CorrectionEffect::default();
    let Some(key) = change.correction().leading() else { return Ok(effect) };
    let ids: Vec<i64> = studies_of_key(connection, key)?.into_iter().collect();
    for some in ids.chunks(STUDIES_AT_ONCE) {
        let mut studies = ChangedStudies::new();
        for group in load::groups(connection, "s.study", some)? {
            studies.entry(group.study).or_default().0.push(group);
        }
        for (groups, touched) in studies.values_mut() {
            // A study of several patients is told with that of the last group.
            groups.sort_by_key(|group| group.id);
            for group in groups.iter() {
                let said = description_of(&group.record);
                let study = group.record.value(StudyInstanceUID);
                let of = (study, group.record.value(SeriesInstanceUID));
                let [was, now] = [before, after].map(|rules| rules.corrected(of, &said).map(|(now, _)| now));
                if was != now {
                    let [was, now] = [&was, &now].map(|corrected| corrected.as_ref().unwrap_or(&said));
                    effect.add(study, to_u64(group.instances), was, now);
                    touched.push(group.id);
                }
            }
        }
        studies.retain(|_, (_, touched)| !touched.is_empty());
        if !studies.is_empty() {
            on_studies(connection, studies)?;
        }
    }
    Ok(effect)
}

/// The studies that a rule with this key may be meant for, or was meant for until now.
fn studies_of_key(
    connection: &mut ServerConnection,
    (id, value): (AttributeId, &str),
) -> Result<BTreeSet<i64>, ServerFailure> {
    let (key, text) = (RowKey::of_uid(value), leading(value));
    let (sql, parameter): (&str, SqlParameter<'_>) = match id {
        StudyInstanceUID => ("SELECT id FROM study WHERE uid_key = $1", &key),
        SeriesInstanceUID => ("SELECT study FROM shelf WHERE series_key = $1", &key),
        // What objects of a corrected study say is not what its row says.
        _ => ("SELECT study FROM study_patient WHERE patient_id = $1 UNION SELECT study FROM corrected_study", &text),
    };
    connection.query(sql, &[parameter])?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
