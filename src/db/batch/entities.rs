//! Patients, studies and series: found or made for a record, and whose value counts there (docs/adr/0008).

use std::sync::OnceLock;

use rusqlite::{OptionalExtension, params, params_from_iter};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::super::names;
use super::files::File;
use super::{Batch, Result};
use crate::model::attribute::{ATTRIBUTES, AttributeId};
use crate::model::level::QueryRetrieveLevel;
use crate::model::person_name;
use crate::model::record::InstanceRecord;

pub(super) struct SeriesEntry {
    pub(super) series: i64,
    pub(super) study: i64,
    /// Hashes of what records said of patient, study and series that their rows take account of.
    pub(super) merged: Vec<u64>,
}

/// Different sets of values in one series whose hashes are remembered. Real series have one, or a few.
const REMEMBERED_SETS: usize = 16;

/// How the values of a record meet those that an entity has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// The more complete one counts, whichever came first: see [`is_more_complete`].
    MostComplete,
    /// The new one counts: its object was corrected.
    Overwrite,
}

impl Batch<'_> {
    /// The rows of the record's series and study, with all that it says of them.
    pub(super) fn series(&mut self, record: &InstanceRecord, file: &File<'_>, values: Values) -> Result<(i64, i64)> {
        let study_uid = record.value(AttributeId::StudyInstanceUID);
        let series_uid = record.value(AttributeId::SeriesInstanceUID);
        self.scratch.clear();
        for part in [study_uid, "\0", series_uid] {
            self.scratch.push_str(part);
        }
        let key = xxh3_128(self.scratch.as_bytes());
        let said = self.hash_of_upper_values(record);
        if let Some(entry) = self.series.get(&key)
            && values == Values::MostComplete
            && entry.merged.contains(&said)
        {
            return Ok((entry.series, entry.study));
        }
        let patient = self.patient(record, values)?;
        let (study, is_own) = self.study(record, file, patient, values)?;
        let series = self.series_row(record, file, study, values)?;
        if values == Values::Overwrite {
            // What records of other series said of this patient and study may no longer be taken account of.
            self.series.clear();
        }
        let entry = self.series.entry(key).or_insert_with(|| SeriesEntry { series, study, merged: Vec::new() });
        if entry.merged.len() >= REMEMBERED_SETS {
            entry.merged.clear();
        }
        // Where two patients share a study, each file of the further one is noted as a conflict: it never takes the short
        // way.
        if is_own {
            entry.merged.push(said);
        }
        Ok((series, study))
    }

    fn hash_of_upper_values(&mut self, record: &InstanceRecord) -> u64 {
        // Slices of a series share these values as one: then they are not looked at again.
        let common = record.common().and_then(|(common, mut own)| (!own.any(is_stored_above)).then_some(common));
        if let Some((known, hash)) = &self.upper_values
            && common.is_some_and(|common| common.is(known))
        {
            return *hash;
        }
        self.scratch.clear();
        for &id in stored_above() {
            self.scratch.push_str(record.value(id));
            self.scratch.push('\0');
        }
        let hash = xxh3_64(self.scratch.as_bytes());
        if let Some(common) = common {
            self.upper_values = Some((common.clone(), hash));
        }
        hash
    }

    /// The row of the record's patient.
    fn patient(&mut self, record: &InstanceRecord, values: Values) -> Result<i64> {
        let id = record.value(AttributeId::PatientID);
        let issuer = record.value(AttributeId::IssuerOfPatientID);
        let identity = identity_without_id(record);
        let known: Vec<(i64, String)> = self
            .statement(
                "SELECT id, issuer_of_patient_id FROM patient WHERE patient_id = ?1 AND identity = ?2 ORDER BY id",
            )?
            .query_map([id, &identity], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_>>()?;
        let same_issuer = known.iter().find(|(_, known_issuer)| known_issuer == issuer);
        // An object that does not name the issuer is taken to mean the one patient of that ID; a patient whose issuer was
        // not known so far is the one that it is named for now.
        let unnamed = known.iter().find(|(_, known_issuer)| known_issuer.is_empty());
        let row = match (same_issuer, issuer.is_empty()) {
            (Some((row, _)), _) => Some(*row),
            (None, true) => known.first().map(|(row, _)| *row),
            (None, false) => unnamed.map(|(row, _)| *row),
        };
        match row {
            Some(row) => {
                self.merge(QueryRetrieveLevel::Patient, row, record, values)?;
                Ok(row)
            }
            None => self.insert_entity(QueryRetrieveLevel::Patient, record, &[("identity", &identity)]),
        }
    }

    /// The row of the record's study, and whether that lies under its patient rather than under another.
    fn study(&mut self, record: &InstanceRecord, file: &File<'_>, patient: i64, values: Values) -> Result<(i64, bool)> {
        let found: Option<(i64, i64)> = self
            .statement("SELECT id, patient FROM study WHERE study_instance_uid = ?1")?
            .query_row([record.value(AttributeId::StudyInstanceUID)], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((row, known_patient)) = found else {
            return Ok((self.insert_entity(QueryRetrieveLevel::Study, record, &[("patient", &patient)])?, true));
        };
        let mut is_own = true;
        if known_patient != patient {
            match values {
                Values::Overwrite => self.move_study(row, known_patient, patient)?,
                Values::MostComplete => {
                    is_own = self.share_study(row, known_patient, patient)?;
                    self.note_conflict("study-under-two-patients", record, file)?;
                }
            }
        }
        self.merge(QueryRetrieveLevel::Study, row, record, values)?;
        Ok((row, is_own))
    }

    /// Keeps a study under two patients: under the one whose Patient ID sorts first, and linked to the other, whichever
    /// came first. Whether that is the other.
    fn share_study(&mut self, study: i64, known: i64, other: i64) -> Result<bool> {
        let key = |batch: &Self, patient: i64| -> Result<(String, String, String)> {
            batch
                .statement("SELECT patient_id, issuer_of_patient_id, identity FROM patient WHERE id = ?1")?
                .query_row([patient], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        };
        let other_is_first = key(self, other)? < key(self, known)?;
        let linked = if other_is_first {
            self.statement("DELETE FROM study_patient WHERE study = ?1 AND patient = ?2")?.execute([study, other])?;
            self.statement("UPDATE study SET patient = ?2 WHERE id = ?1")?.execute([study, other])?;
            // The series of the study were remembered as those of the known one.
            self.series.clear();
            known
        } else {
            other
        };
        self.statement("INSERT OR IGNORE INTO study_patient (study, patient) VALUES (?1, ?2)")?
            .execute([study, linked])?;
        Ok(other_is_first)
    }

    /// A corrected object says that its study belongs to another patient: the newest word counts for the whole study.
    fn move_study(&mut self, study: i64, from: i64, to: i64) -> Result<()> {
        self.statement("DELETE FROM study_patient WHERE study = ?1 AND patient = ?2")?.execute([study, to])?;
        self.statement("UPDATE study SET patient = ?2 WHERE id = ?1")?.execute([study, to])?;
        self.changes.patients_left.insert(from);
        Ok(())
    }

    fn series_row(&mut self, record: &InstanceRecord, file: &File<'_>, study: i64, values: Values) -> Result<i64> {
        let series_uid = record.value(AttributeId::SeriesInstanceUID);
        let found: Option<i64> = self
            .statement("SELECT id FROM study_series WHERE series_instance_uid = ?1 AND study = ?2")?
            .query_row(params![series_uid, study], |row| row.get(0))
            .optional()?;
        if let Some(row) = found {
            let changed = self.merge(QueryRetrieveLevel::Series, row, record, values)?;
            if changed.contains(&AttributeId::Modality) {
                self.changes.studies_to_summarise.insert(study);
            }
            return Ok(row);
        }
        let elsewhere: bool = self
            .statement("SELECT EXISTS (SELECT 1 FROM study_series WHERE series_instance_uid = ?1)")?
            .query_row([series_uid], |row| row.get(0))?;
        if elsewhere {
            self.note_conflict("series-under-two-studies", record, file)?;
        }
        *self.changes.series_per_study.entry(study).or_default() += 1;
        self.changes.studies_to_summarise.insert(study);
        self.insert_entity(QueryRetrieveLevel::Series, record, &[("study", &study)])
    }

    /// Inserts the row of an entity with all that the record says of it.
    fn insert_entity(
        &mut self,
        level: QueryRetrieveLevel,
        record: &InstanceRecord,
        extra: &[(&str, &dyn rusqlite::ToSql)],
    ) -> Result<i64> {
        let names = name_forms(level, record);
        let character_set = record.value(AttributeId::SpecificCharacterSet);
        let mut columns = vec!["character_set"];
        let mut values: Vec<&dyn rusqlite::ToSql> = vec![&character_set];
        for &(column, value) in extra {
            columns.push(column);
            values.push(value);
        }
        let texts: Vec<&str> = stored_at(level).iter().map(|&id| record.value(id)).collect();
        for (id, text) in stored_at(level).iter().zip(&texts) {
            columns.push(id.attribute().column);
            values.push(text);
        }
        for (column, form) in &names {
            columns.push(column);
            values.push(form);
        }
        let marks = vec!["?"; columns.len()].join(", ");
        self.statement(&format!("INSERT INTO {} ({}) VALUES ({marks})", table_of(level), columns.join(", ")))?
            .execute(params_from_iter(values))?;
        let row = self.connection.last_insert_rowid();
        if level == QueryRetrieveLevel::Patient {
            names::add(self.connection, row, &names.iter().map(|(_, form)| form.as_str()).collect::<Vec<_>>())?;
        }
        Ok(row)
    }

    /// The words of a patient's name are to be those of another one; the row still has the old one.
    fn rename_patient(&self, row: i64, names: &[(&str, String)]) -> Result<()> {
        let old: [String; 3] = self
            .statement(
                "SELECT patient_name_norm, patient_name_ideographic_norm, patient_name_phonetic_norm FROM patient \
                 WHERE id = ?1",
            )?
            .query_row([row], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?;
        names::remove(self.connection, row, &old.each_ref().map(String::as_str))?;
        names::add(self.connection, row, &names.iter().map(|(_, form)| form.as_str()).collect::<Vec<_>>())
    }

    /// Lets an entity take account of what a record says of it; returns the attributes that have changed.
    fn merge(
        &mut self,
        level: QueryRetrieveLevel,
        row: i64,
        record: &InstanceRecord,
        values: Values,
    ) -> Result<Vec<AttributeId>> {
        let table = table_of(level);
        let mut changed = Vec::new();
        let mut columns = Vec::new();
        let mut texts: Vec<&str> = Vec::new();
        let mut known = self.statement(select_all(level))?;
        let mut rows = known.query([row])?;
        let current = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        for (at, &id) in stored_at(level).iter().enumerate() {
            let (said, known) = (record.value(id), current.get_ref(at)?.as_str().unwrap_or_default());
            let counts = match values {
                Values::Overwrite => !said.is_empty() && said != known,
                Values::MostComplete => is_more_complete(said, known),
            };
            if counts {
                changed.push(id);
                columns.push(id.attribute().column);
                texts.push(said);
            }
        }
        drop(rows);
        if columns.is_empty() {
            return Ok(changed);
        }
        let names = name_forms(level, record);
        if changed.contains(&AttributeId::PatientName) {
            for (column, form) in &names {
                columns.push(column);
                texts.push(form);
            }
            self.rename_patient(row, &names)?;
        }
        columns.push("character_set");
        texts.push(record.value(AttributeId::SpecificCharacterSet));
        let settings: Vec<_> = columns.iter().enumerate().map(|(at, c)| format!("{c} = ?{}", at + 2)).collect();
        let parameters =
            std::iter::once(&row as &dyn rusqlite::ToSql).chain(texts.iter().map(|text| text as &dyn rusqlite::ToSql));
        self.statement(&format!("UPDATE {table} SET {} WHERE id = ?1", settings.join(", ")))?
            .execute(params_from_iter(parameters))?;
        Ok(changed)
    }
}

fn stored_at(level: QueryRetrieveLevel) -> &'static [AttributeId] {
    static STORED: OnceLock<[Vec<AttributeId>; 4]> = OnceLock::new();
    let by_level = STORED.get_or_init(|| {
        QueryRetrieveLevel::ALL
            .map(|level| ATTRIBUTES.iter().filter(|a| a.level == level && a.is_stored()).map(|a| a.id).collect())
    });
    &by_level[level as usize]
}

/// The attributes of patient, study and series that are kept.
fn stored_above() -> &'static [AttributeId] {
    static STORED: OnceLock<Vec<AttributeId>> = OnceLock::new();
    STORED.get_or_init(|| {
        let upper = [QueryRetrieveLevel::Patient, QueryRetrieveLevel::Study, QueryRetrieveLevel::Series];
        upper.into_iter().flat_map(|level| stored_at(level).iter().copied()).collect()
    })
}

fn is_stored_above(id: AttributeId) -> bool {
    let attribute = id.attribute();
    attribute.level != QueryRetrieveLevel::Image && attribute.is_stored()
}

pub(super) const fn table_of(level: QueryRetrieveLevel) -> &'static str {
    match level {
        QueryRetrieveLevel::Patient => "patient",
        QueryRetrieveLevel::Study => "study",
        QueryRetrieveLevel::Series => "study_series",
        QueryRetrieveLevel::Image => "shelf",
    }
}

/// Whether `said` counts before `known` where two objects disagree about their patient, study or series: the longer text,
/// of two as long the one that sorts first. Any order of arrival comes to the same.
fn is_more_complete(said: &str, known: &str) -> bool {
    said.len() > known.len() || (said.len() == known.len() && said < known)
}

/// All kept attributes of an entity, in the order of [`stored_at`].
fn select_all(level: QueryRetrieveLevel) -> &'static str {
    static SQL: OnceLock<[String; 4]> = OnceLock::new();
    let all = SQL.get_or_init(|| {
        QueryRetrieveLevel::ALL.map(|level| {
            let columns: Vec<_> = stored_at(level).iter().map(|id| format!("\"{}\"", id.attribute().column)).collect();
            format!("SELECT {} FROM {} WHERE id = ?1", columns.join(", "), table_of(level))
        })
    });
    &all[level as usize]
}

/// What keeps patients apart who have no Patient ID: name and birth date. Empty where there is an ID.
fn identity_without_id(record: &InstanceRecord) -> String {
    if !record.value(AttributeId::PatientID).is_empty() {
        return String::new();
    }
    let [name, ideographic, phonetic] = person_name::normal_groups(record.value(AttributeId::PatientName));
    format!("{name}={ideographic}={phonetic}|{}", record.value(AttributeId::PatientBirthDate))
}

/// The columns of a patient that hold the normal form of the name, with their values.
fn name_forms(level: QueryRetrieveLevel, record: &InstanceRecord) -> Vec<(&'static str, String)> {
    if level != QueryRetrieveLevel::Patient {
        return Vec::new();
    }
    let [alphabetic, ideographic, phonetic] = person_name::normal_groups(record.value(AttributeId::PatientName));
    vec![
        ("patient_name_norm", alphabetic),
        ("patient_name_ideographic_norm", ideographic),
        ("patient_name_phonetic_norm", phonetic),
    ]
}
