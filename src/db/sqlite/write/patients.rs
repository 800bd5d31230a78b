//! The patients of studies (docs/adr/0014).
//!
//! A row of `patient` is a description: all that the objects of a study together state of one
//! patient. Studies with the same description share its row. A row never changes. When the objects
//! of a study come to another description, the study leads to another row. A row to which no study
//! leads goes at the end of the transaction.
//!
//! Rules of an operator may correct what objects state (docs/adr/0033). Then a study leads to the
//! corrected description, and its instance groups keep what their objects state.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use xxhash_rust::xxh3::Xxh3;

use super::super::columns::stored_at;
use super::super::names;
use super::asserted_values::AssertedValues;
use super::changes::{Changes, Recompute, Touched};
use super::corrections;
use super::entities::{values_of, values_unless};
use super::rows::{NamedPatient, Result};
use crate::db::{Corrections, rules};
use crate::model::attribute::AttributeId;
use crate::model::level::QueryRetrieveLevel::Patient;
use crate::model::person_name;
use crate::model::record::InstanceRecord;

/// Most descriptions under one Patient ID among which those of a study are looked for. If there are
/// more, they are looked for among the patients of the study. Either can be very many, but hardly
/// ever both.
const FEW_DESCRIPTIONS: i64 = 64;

/// The kind of conflict in which objects of one study name two patients.
const STUDY_UNDER_TWO_PATIENTS: &str = "study-under-two-patients";

/// The kind of conflict in which descriptions under one Patient ID cannot be of one person.
const PATIENT_ID_OF_TWO_PEOPLE: &str = "patient-id-of-two-people";

/// A hash of the values of a description.
pub(in super::super) fn values_hash<'v>(values: impl Iterator<Item = &'v str>) -> i64 {
    let mut hash = Xxh3::new();
    for value in values {
        hash.update(value.as_bytes());
        hash.update(b"\0");
    }
    i64::from_ne_bytes(hash.digest().to_ne_bytes())
}

/// Description that a record gives of its patient.
fn said_by(record: &InstanceRecord) -> rules::Description {
    stored_at(Patient).iter().map(|&id| record.value(id).to_owned()).collect()
}

/// `patient.person` for the patient of this Patient ID, identity and issuer. Negative, so that it
/// is no row number.
fn person_number(patient_id: &str, identity: &str, issuer: &str) -> i64 {
    -1 - (values_hash([patient_id, identity, issuer].into_iter()) & (i64::MAX >> 1))
}

/// Statement of the objects of an instance group about their patient.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PatientStatement {
    /// The row of the patient that they name.
    row: i64,
    /// The asserted values, if the row says something else.
    values: Option<i64>,
    /// The series. 0 while no rule asks for it.
    series: i64,
}

/// The statements of a study.
struct StudyStatements {
    said: Vec<PatientStatement>,
    /// Description that each gives by itself.
    own: Vec<rules::Description>,
    /// Description that each gives with the rules.
    corrected: Vec<rules::Description>,
}

/// The rows of `patient`.
pub(super) struct Patients<'c> {
    connection: &'c Connection,
    asserted: AssertedValues<'c>,
    /// The rules that hold, once somebody has asked for them.
    corrections: OnceCell<Corrections>,
}

impl<'c> Patients<'c> {
    pub(super) const fn new(connection: &'c Connection) -> Self {
        Self { connection, asserted: AssertedValues::new(connection), corrections: OnceCell::new() }
    }

    /// Forgets the rules, because they may have changed.
    pub(super) fn forget_corrections(&mut self) {
        self.corrections.take();
    }

    fn corrections(&self) -> Result<&Corrections> {
        if let Some(known) = self.corrections.get() {
            return Ok(known);
        }
        let rules = Corrections::new(corrections::load(self.connection)?);
        Ok(self.corrections.get_or_init(|| rules))
    }

    /// Description that a record gives of its patient with the rules. `None` if no rule changes it.
    fn corrected(&self, record: &InstanceRecord) -> Result<Option<rules::Description>> {
        let rules = self.corrections()?;
        if rules.is_empty() {
            return Ok(None);
        }
        let uids = (record.value(AttributeId::StudyInstanceUID), record.value(AttributeId::SeriesInstanceUID));
        Ok(rules.corrected(uids, &said_by(record)).map(|(corrected, _)| corrected))
    }

    /// The asserted values for objects that state this, if their row says something else.
    fn said_unless(&self, row_says: &[String], own: &[String]) -> Result<Option<i64>> {
        if row_says == own { Ok(None) } else { self.asserted.row(Patient, own).map(Some) }
    }

    /// The patient that a record names, for a new study.
    pub(super) fn of_new_study(&self, record: &InstanceRecord, changes: &mut Changes) -> Result<NamedPatient> {
        let own = said_by(record);
        let corrected = self.corrected(record)?;
        let values = corrected.as_ref().unwrap_or(&own);
        let row = self.description(values, record.value(AttributeId::SpecificCharacterSet), changes)?;
        Ok(NamedPatient { first: row, own: row, said: self.said_unless(values, &own)? })
    }

    /// Merges what a record states of its patient into its study.
    pub(super) fn of_record(
        &self,
        study: i64,
        first: i64,
        record: &InstanceRecord,
        changes: &mut Changes,
    ) -> Result<NamedPatient> {
        let corrected = self.corrected(record)?;
        let is_known = |id, known: &str| corrected.is_none() && record.value(id) == known;
        let Some(of_first) = values_unless(self.connection, Patient, first, is_known)? else {
            return Ok(NamedPatient { first, own: first, said: None });
        };
        let own = said_by(record);
        let said = corrected.as_ref().unwrap_or(&own);
        let (id, identity, issuer) = rules::key_of(said);
        let mut of_same_id = self.further_patients(study, &id, &identity)?;
        let key_of_first = rules::key_of(&of_first);
        if (&key_of_first.0, &key_of_first.1) == (&id, &identity) {
            of_same_id.push((first, of_first));
        }
        of_same_id.sort_by_cached_key(|(_, values)| rules::key_of(values));
        let issuer_of = |(_, values): &(i64, rules::Description)| {
            rules::value_of(values, AttributeId::IssuerOfPatientID).to_owned()
        };
        let first_issuer = of_same_id.first().map(issuer_of);
        // As rules::patients_of_study: who names no issuer means the first one, and who was named
        // without one is that one.
        let means_first = issuer.is_empty() || first_issuer.as_deref() == Some("");
        let named = of_same_id.iter().position(|known| issuer_of(known) == issuer);
        let chosen = named.or_else(|| (means_first && !of_same_id.is_empty()).then_some(0));
        if let Some((row, values)) = chosen.map(|at| of_same_id.swap_remove(at)) {
            return self.join((study, first), (row, values), (said, &own), record, changes);
        }
        if first_issuer.is_some_and(|first| issuer < first) {
            // Objects without an issuer mean this one from now on.
            changes.studies_to_recompute.insert(study, Recompute::Always);
        }
        let row = self.description(said, record.value(AttributeId::SpecificCharacterSet), changes)?;
        changes.note_conflict(STUDY_UNDER_TWO_PATIENTS, Some(record));
        let now_first = if rules::key_of(said) < key_of_first {
            self.keep_under(study, first, row, changes)?;
            row
        } else {
            first
        };
        let further = if now_first == row { first } else { row };
        self.connection
            .prepare_cached("INSERT OR IGNORE INTO study_patient (study, patient) VALUES (?1, ?2)")?
            .execute([study, further])?;
        Ok(NamedPatient { first: now_first, own: row, said: self.said_unless(said, &own)? })
    }

    /// Merges what a record states of a patient into what its study says of that patient. `own` is
    /// what the record states without the rules.
    fn join(
        &self,
        (study, first): (i64, i64),
        (row, known): (i64, rules::Description),
        (said, own): (&[String], &[String]),
        record: &InstanceRecord,
        changes: &mut Changes,
    ) -> Result<NamedPatient> {
        let mut values = known.clone();
        let mut row_now = row;
        if rules::merge(&mut values, said) {
            row_now = self.description(&values, record.value(AttributeId::SpecificCharacterSet), changes)?;
            self.freeze_patient(study, first, row, &known)?;
            self.lead_to((study, first), row, row_now, changes)?;
            self.forget_agreed(study, row_now, &values)?;
        }
        let first_now = if row == first { row_now } else { first };
        Ok(NamedPatient { first: first_now, own: row_now, said: self.said_unless(&values, own)? })
    }

    /// The further patients of a study that have this Patient ID and identity, with their
    /// descriptions.
    fn further_patients(&self, study: i64, id: &str, identity: &str) -> Result<Vec<(i64, rules::Description)>> {
        let is_shared: bool = self
            .connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM study_patient WHERE study = ?1)")?
            .query_row([study], |row| row.get(0))?;
        if !is_shared {
            return Ok(Vec::new());
        }
        let of_id: i64 = self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM patient WHERE patient_id = ?1 AND identity = ?2 LIMIT ?3)",
            )?
            .query_row(params![id, identity, FEW_DESCRIPTIONS + 1], |row| row.get(0))?;
        let sql = if of_id <= FEW_DESCRIPTIONS {
            "SELECT p.id FROM patient p CROSS JOIN study_patient x ON x.study = ?1 AND x.patient = p.id \
             WHERE p.patient_id = ?2 AND p.identity = ?3"
        } else {
            "SELECT p.id FROM study_patient x CROSS JOIN patient p ON p.id = x.patient \
             WHERE x.study = ?1 AND p.patient_id = ?2 AND p.identity = ?3"
        };
        let rows: Vec<i64> = self
            .connection
            .prepare_cached(sql)?
            .query_map(params![study, id, identity], |row| row.get(0))?
            .collect::<Result<_>>()?;
        rows.into_iter().map(|row| Ok((row, values_of(self.connection, Patient, row)?))).collect()
    }

    /// The row with exactly these values. It is made if there is none.
    fn description(&self, values: &[String], character_set: &str, changes: &mut Changes) -> Result<i64> {
        let (id, identity, issuer) = rules::key_of(values);
        let birth_date = rules::value_of(values, AttributeId::PatientBirthDate);
        let hash = values_hash(values.iter().map(String::as_str));
        let found: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT id FROM patient WHERE patient_id = ?1 AND identity = ?2 AND issuer_of_patient_id = ?3 \
                 AND patient_birth_date = ?4 AND values_hash = ?5",
            )?
            .query_map(params![id, identity, issuer, birth_date, hash], |row| row.get(0))?
            .collect::<Result<_>>()?;
        for row in found {
            if values_of(self.connection, Patient, row)? == values {
                return Ok(row);
            }
        }
        let forms = person_name::normal_groups(rules::value_of(values, AttributeId::PatientName));
        let mut columns: Vec<&str> = stored_at(Patient).iter().map(|id| id.attribute().column).collect();
        columns.extend([
            "patient_name_norm",
            "patient_name_ideographic_norm",
            "patient_name_phonetic_norm",
            "identity",
            "character_set",
            "values_hash",
        ]);
        let own = values.iter().map(|value| value as &dyn rusqlite::ToSql);
        let names = forms.iter().map(|form| form as &dyn rusqlite::ToSql);
        let rest: [&dyn rusqlite::ToSql; 3] = [&identity, &character_set, &hash];
        let marks = vec!["?"; columns.len()].join(", ");
        self.connection
            .prepare_cached(&format!("INSERT INTO patient ({}) VALUES ({marks})", columns.join(", ")))?
            .execute(params_from_iter(own.chain(names).chain(rest)))?;
        let row = self.connection.last_insert_rowid();
        names::add(self.connection, row, &forms.each_ref().map(String::as_str))?;
        let touched = changes.touched_patients.entry((id, identity)).or_default();
        touched.added.insert(row);
        touched.issuers.insert(issuer);
        Ok(row)
    }

    /// Keeps a description, from which the study is about to turn to another one, for the instance
    /// groups that agreed with it.
    fn freeze_patient(&self, study: i64, first: i64, row: i64, values: &[String]) -> Result<()> {
        let said = self.asserted.row(Patient, values)?;
        self.connection.prepare_cached(
            "UPDATE instance_group SET patient_values = ?4 WHERE patient_values IS NULL AND ifnull(patient, ?2) = ?3 \
             AND series IN (SELECT id FROM study_series WHERE study = ?1)",
        )?
        .execute([study, first, row, said])?;
        self.asserted.drop_unused(said)
    }

    /// Sets the asserted values of the instance groups that agree with a new description to NULL.
    /// Only with rules there can be such: they took away a value that objects of another series
    /// state.
    fn forget_agreed(&self, study: i64, row: i64, values: &[String]) -> Result<()> {
        if self.corrections()?.is_empty() {
            return Ok(());
        }
        let Some(same) = self.asserted.find_row(Patient, values)? else { return Ok(()) };
        self.connection
            .prepare_cached(
                "UPDATE instance_group SET patient_values = NULL WHERE patient_values = ?3 \
                 AND ifnull(patient, (SELECT patient FROM study WHERE id = ?1)) = ?2 \
                 AND series IN (SELECT id FROM study_series WHERE study = ?1)",
            )?
            .execute([study, row, same])?;
        self.asserted.drop_unused(same)
    }

    /// Leads a study to another row for one of its patients.
    fn lead_to(&self, (study, first): (i64, i64), from: i64, to: i64, changes: &mut Changes) -> Result<()> {
        if from == first {
            self.connection.prepare_cached("UPDATE study SET patient = ?2 WHERE id = ?1")?.execute([study, to])?;
        } else {
            self.connection
                .prepare_cached(
                    "UPDATE instance_group SET patient = ?3 WHERE patient = ?2 \
                 AND series IN (SELECT id FROM study_series WHERE study = ?1)",
                )?
                .execute([study, from, to])?;
            self.connection
                .prepare_cached("UPDATE study_patient SET patient = ?3 WHERE study = ?1 AND patient = ?2")?
                .execute([study, from, to])?;
        }
        changes.patients_left.insert(from);
        changes.parents_changed = true;
        Ok(())
    }

    /// Keeps a study under another of its patients.
    fn keep_under(&self, study: i64, from: i64, to: i64, changes: &mut Changes) -> Result<()> {
        self.connection
            .prepare_cached(
                "UPDATE instance_group SET patient = CASE WHEN patient IS NULL THEN ?2 WHEN patient = ?3 THEN NULL \
             ELSE patient END WHERE series IN (SELECT id FROM study_series WHERE study = ?1)",
            )?
            .execute([study, from, to])?;
        self.connection.prepare_cached("UPDATE study SET patient = ?2 WHERE id = ?1")?.execute([study, to])?;
        self.connection
            .prepare_cached("DELETE FROM study_patient WHERE study = ?1 AND patient = ?2")?
            .execute([study, to])?;
        changes.parents_changed = true;
        Ok(())
    }

    /// Computes anew which patients the objects of a study name, and what they together state of
    /// each.
    pub(super) fn recompute_of_study(&self, study: i64, recompute: Recompute, changes: &mut Changes) -> Result<()> {
        let first: Option<i64> = self
            .connection
            .prepare_cached("SELECT patient FROM study WHERE id = ?1")?
            .query_row([study], |row| row.get(0))
            .optional()?;
        let Some(first) = first else { return Ok(()) };
        let further: Vec<i64> = self
            .connection
            .prepare_cached("SELECT patient FROM study_patient WHERE study = ?1")?
            .query_map([study], |row| row.get(0))?
            .collect::<Result<_>>()?;
        let has_rules = !self.corrections()?.is_empty();
        let groups: Vec<(i64, PatientStatement)> = self
            .connection
            .prepare_cached(
                "SELECT id, ifnull(patient, ?2), patient_values, iif(?3, series, 0) FROM instance_group \
                 WHERE series IN (SELECT id FROM study_series WHERE study = ?1)",
            )?
            .query_map(params![study, first, has_rules], |row| {
                Ok((row.get(0)?, PatientStatement { row: row.get(1)?, values: row.get(2)?, series: row.get(3)? }))
            })?
            .collect::<Result<_>>()?;
        let said: BTreeSet<PatientStatement> = groups.iter().map(|(_, said)| *said).collect();
        let current: BTreeSet<i64> = further.iter().copied().chain([first]).collect();
        // While an instance group agrees with a row, the others are less complete.
        let agreed: BTreeSet<i64> = said.iter().filter(|said| said.values.is_none()).map(|said| said.row).collect();
        let named: BTreeSet<i64> = said.iter().map(|said| said.row).collect();
        let can_be_left = recompute == Recompute::IfLeft && !has_rules;
        if said.is_empty() || (can_be_left && agreed == current && named == current) {
            return Ok(());
        }
        let statements = self.statements(study, said)?;
        self.lead_study_to(study, (first, &current), &groups, &statements, changes)
    }

    /// Statements of the objects of a study, by themselves and with the rules.
    fn statements(&self, study: i64, said: BTreeSet<PatientStatement>) -> Result<StudyStatements> {
        let rules = self.corrections()?;
        let mut statements = StudyStatements { said: Vec::new(), own: Vec::new(), corrected: Vec::new() };
        for statement in said {
            let own = corrections::description_of(self.connection, (statement.row, statement.values))?;
            let mut corrected = None;
            if !rules.is_empty() {
                let uids: (String, String) = self
                    .connection
                    .prepare_cached(
                        "SELECT s.study_instance_uid, e.series_instance_uid FROM study s, study_series e \
                         WHERE s.id = ?1 AND e.id = ?2",
                    )?
                    .query_row([study, statement.series], |row| Ok((row.get(0)?, row.get(1)?)))?;
                corrected = rules.corrected((&uids.0, &uids.1), &own).map(|(corrected, _)| corrected);
            }
            statements.said.push(statement);
            statements.corrected.push(corrected.unwrap_or_else(|| own.clone()));
            statements.own.push(own);
        }
        Ok(statements)
    }

    /// Leads a study and its instance groups to the patients that these descriptions come to.
    fn lead_study_to(
        &self,
        study: i64,
        (first, current): (i64, &BTreeSet<i64>),
        groups: &[(i64, PatientStatement)],
        StudyStatements { said, own, corrected }: &StudyStatements,
        changes: &mut Changes,
    ) -> Result<()> {
        let mut now = HashMap::new();
        let mut rows = Vec::new();
        for (place, patient) in rules::patients_of_study(corrected).into_iter().enumerate() {
            let of_member = patient.members.first().and_then(|&member| said.get(member)).map_or(first, |said| said.row);
            let character_set: String = self
                .connection
                .prepare_cached("SELECT character_set FROM patient WHERE id = ?1")?
                .query_row([of_member], |row| row.get(0))?;
            let row = self.description(&patient.values, &character_set, changes)?;
            rows.push(row);
            for &member in &patient.members {
                let (Some(key), Some(own)) = (said.get(member), own.get(member)) else { continue };
                let values = self.said_unless(&patient.values, own)?;
                now.insert(*key, (row, (place > 0).then_some(row), values));
            }
        }
        let Some(&first_now) = rows.first() else { return Ok(()) };
        let mut changed = false;
        for (group, was) in groups {
            let Some((row, patient, values)) = now.get(was) else { continue };
            let is_as_was = (was.row, was.values) == (*row, *values) && (was.row == first) == patient.is_none();
            if !is_as_was {
                self.connection
                    .prepare_cached("UPDATE instance_group SET patient = ?2, patient_values = ?3 WHERE id = ?1")?
                    .execute(params![group, patient, values])?;
                changed = true;
            }
        }
        for &left in current.iter().filter(|row| **row != first_now && !rows.contains(row)) {
            changes.losses.note_patient(self.connection, left)?;
            changes.patients_left.insert(left);
        }
        changed |= self.write_patients_of(study, (first, current), &rows)?;
        for values in said.iter().filter_map(|said| said.values) {
            self.asserted.drop_unused(values)?;
        }
        if changed || current.len() != rows.len() {
            changes.parents_changed = true;
        }
        Ok(())
    }

    /// Writes which patients a study has, the first one first. Returns whether there are other ones
    /// than before.
    fn write_patients_of(&self, study: i64, (first, current): (i64, &BTreeSet<i64>), rows: &[i64]) -> Result<bool> {
        let mut changed = false;
        if let Some(&first_now) = rows.first()
            && first_now != first
        {
            self.connection
                .prepare_cached("UPDATE study SET patient = ?2 WHERE id = ?1")?
                .execute([study, first_now])?;
            changed = true;
        }
        let further: BTreeSet<i64> = rows.iter().skip(1).copied().collect();
        for row in current.difference(&further) {
            self.connection
                .prepare_cached("DELETE FROM study_patient WHERE study = ?1 AND patient = ?2")?
                .execute([study, *row])?;
        }
        for row in further.difference(current).copied().chain(further.contains(&first).then_some(first)) {
            self.connection
                .prepare_cached("INSERT OR IGNORE INTO study_patient (study, patient) VALUES (?1, ?2)")?
                .execute([study, row])?;
            changed = true;
        }
        Ok(changed)
    }

    /// Drops a description if no study leads to it. Returns whether it did.
    pub(super) fn drop_unused(&self, row: i64, changes: &mut Changes) -> Result<bool> {
        let gone: Option<([String; 3], (String, String), String)> = self
            .connection
            .prepare_cached(
                "DELETE FROM patient WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM study WHERE patient = ?1) \
                 AND NOT EXISTS (SELECT 1 FROM study_patient WHERE patient = ?1) \
                 RETURNING patient_name_norm, patient_name_ideographic_norm, patient_name_phonetic_norm, \
                 patient_id, identity, issuer_of_patient_id",
            )?
            .query_row([row], |row| {
                Ok(([row.get(0)?, row.get(1)?, row.get(2)?], (row.get(3)?, row.get(4)?), row.get(5)?))
            })
            .optional()?;
        let Some((name, key, issuer)) = gone else { return Ok(false) };
        names::remove(self.connection, row, &name.each_ref().map(String::as_str))?;
        let touched = changes.touched_patients.entry(key).or_default();
        touched.added.remove(&row);
        touched.has_removed = true;
        touched.issuers.insert(issuer);
        Ok(true)
    }

    /// Computes anew which descriptions are of one person, and which of two people, under each
    /// Patient ID whose descriptions have changed.
    pub(super) fn recompute_touched(&self, changes: &mut Changes) -> Result<()> {
        for ((id, identity), touched) in std::mem::take(&mut changes.touched_patients) {
            self.recompute_persons(&id, &identity, &touched, changes)?;
        }
        Ok(())
    }

    fn recompute_persons(&self, id: &str, identity: &str, touched: &Touched, changes: &mut Changes) -> Result<()> {
        // All that are new, and two that are not.
        let some = i64::try_from(touched.added.len()).unwrap_or(i64::MAX).saturating_add(2);
        let rows: Vec<(i64, Option<i64>)> = self
            .connection
            .prepare_cached("SELECT id, person FROM patient WHERE patient_id = ?1 AND identity = ?2 LIMIT ?3")?
            .query_map(params![id, identity, some], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_>>()?;
        let set = "UPDATE patient SET person = ?2 WHERE id = ?1";
        if rows.len() < 2 {
            for (row, _) in rows.iter().filter(|(_, person)| person.is_some()) {
                self.connection.prepare_cached(set)?.execute(params![row, None::<i64>])?;
            }
            if touched.has_removed {
                self.connection
                    .prepare_cached("DELETE FROM two_people WHERE patient_id = ?1 AND ?2 = ''")?
                    .execute([id, identity])?;
            }
            return Ok(());
        }
        let first_issuer = self.issuer_after(id, identity, "")?;
        let whose = |issuer: &str| match (issuer, &first_issuer) {
            ("", Some(first)) => person_number(id, identity, first),
            _ => person_number(id, identity, issuer),
        };
        let alone_so_far = rows.iter().filter(|(_, person)| person.is_none()).map(|(row, _)| *row);
        let unnumbered: BTreeSet<i64> = touched.added.iter().copied().chain(alone_so_far).collect();
        for row in unnumbered {
            let issuer: String = self
                .connection
                .prepare_cached("SELECT issuer_of_patient_id FROM patient WHERE id = ?1")?
                .query_row([row], |row| row.get(0))?;
            self.connection.prepare_cached(set)?.execute(params![row, whose(&issuer)])?;
        }
        self.move_without_issuer(id, identity, touched, whose(""))?;
        if identity.is_empty() {
            for _ in 0..self.note_two_people(id, first_issuer.as_deref(), &touched.issuers)? {
                changes.note_conflict(PATIENT_ID_OF_TWO_PEOPLE, None);
            }
        }
        Ok(())
    }

    /// Gives the descriptions without an issuer to the person of the first issuer, if that is
    /// another one than before.
    fn move_without_issuer(&self, id: &str, identity: &str, touched: &Touched, whose: i64) -> Result<()> {
        let some = i64::try_from(touched.added.len()).unwrap_or(i64::MAX).saturating_add(1);
        let persons: Vec<Option<i64>> = self
            .connection
            .prepare_cached(
                "SELECT person FROM patient WHERE patient_id = ?1 AND identity = ?2 AND issuer_of_patient_id = '' LIMIT ?3",
            )?
            .query_map(params![id, identity, some], |row| row.get(0))?
            .collect::<Result<_>>()?;
        if persons.iter().any(|person| *person != Some(whose)) {
            self.connection.prepare_cached(
                "UPDATE patient SET person = ?3 WHERE patient_id = ?1 AND identity = ?2 AND issuer_of_patient_id = ''",
            )?
            .execute(params![id, identity, whose])?;
        }
        Ok(())
    }

    fn issuer_after(&self, id: &str, identity: &str, issuer: &str) -> Result<Option<String>> {
        self.connection
            .prepare_cached(
                "SELECT issuer_of_patient_id FROM patient WHERE patient_id = ?1 AND identity = ?2 \
             AND issuer_of_patient_id > ?3 ORDER BY issuer_of_patient_id LIMIT 1",
            )?
            .query_row([id, identity, issuer], |row| row.get(0))
            .optional()
    }

    /// Notes which patients with this ID seem to be two people. Looks at those with these issuers,
    /// and at those that descriptions without an issuer may have joined or left. Returns how many
    /// more there are.
    fn note_two_people(&self, id: &str, first_issuer: Option<&str>, issuers: &BTreeSet<String>) -> Result<u64> {
        let mut patients: BTreeSet<String> = issuers.clone();
        patients.insert(String::new());
        if let Some(first) = first_issuer {
            patients.insert(first.to_owned());
            patients.extend(self.issuer_after(id, "", first)?);
        }
        let (mut before, mut after) = (0_u64, 0_u64);
        for issuer in &patients {
            let noted = self
                .connection
                .prepare_cached("DELETE FROM two_people WHERE patient_id = ?1 AND issuer_of_patient_id = ?2")?
                .execute([id, issuer])?;
            before += u64::from(noted > 0);
            let with: Vec<&str> = match first_issuer {
                Some(_) if issuer.is_empty() => continue,
                Some(first) if issuer == first => vec!["", first],
                Some(_) | None => vec![issuer],
            };
            if let Some((one, other)) = self.two_people_among(id, &with)? {
                self.connection
                    .prepare_cached(
                        "INSERT INTO two_people (patient_id, issuer_of_patient_id, one, other) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute(params![id, issuer, one, other])?;
                after += 1;
            }
        }
        Ok(after.saturating_sub(before))
    }

    fn two_people_among(&self, id: &str, issuers: &[&str]) -> Result<Option<(i64, i64)>> {
        let most = i64::try_from(rules::COMPARED_FROM_EACH_END).unwrap_or(i64::MAX);
        let mut found: Vec<((String, i64, i64), rules::NameAndBirth)> = Vec::new();
        for issuer in issuers {
            for (birth_dates, order) in [
                ("= ''", "values_hash"),
                ("> ''", "patient_birth_date, values_hash"),
                ("> ''", "patient_birth_date DESC, values_hash DESC"),
            ] {
                let mut statement = self.connection.prepare_cached(&format!(
                    "SELECT patient_birth_date, values_hash, id, patient_name_norm, patient_name_ideographic_norm, \
                     patient_name_phonetic_norm FROM patient WHERE patient_id = ?1 AND identity = '' \
                     AND issuer_of_patient_id = ?2 AND patient_birth_date {birth_dates} ORDER BY {order} LIMIT ?3"
                ))?;
                let rows = statement.query_map(params![id, issuer, most], |row| {
                    let birth_date: String = row.get(0)?;
                    let names = [row.get(3)?, row.get(4)?, row.get(5)?];
                    let place = (birth_date.clone(), row.get(1)?, row.get(2)?);
                    Ok((place, rules::NameAndBirth { names, birth_date }))
                })?;
                for row in rows {
                    found.push(row?);
                }
            }
        }
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        found.dedup_by(|(one, _), (other, _)| one.2 == other.2);
        let (places, told): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let row = |at: usize| places.get(at).map(|place| place.2);
        Ok(rules::two_people(&told).and_then(|(one, other)| Some((row(one)?, row(other)?))))
    }
}
