//! Look-up of keys before their statement is compiled.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, ToSql, params};

use super::super::packing::UidSuffix;
use super::functions::RowSet;
use super::parameters::InstanceKey;
use crate::db::plan::{self, LookUp, NameLookUp, PlanEffort, after_prefix};
use crate::model::attribute::AttributeId;
use crate::model::matching::{Matching, NamePart};

/// Way to find the entities that a key may match.
pub(super) enum KeyLookup {
    /// Few rows match: these.
    Rows(Arc<[i64]>),
    /// Many rows match: each row number is tested against this set, in the order of the answers and
    /// before its row is read.
    Among(Arc<RowSet>),
    /// Few rows match, and the index on the column finds them.
    Index,
    /// Very many rows match, or another key leads to fewer: rows are tested as they come.
    None,
    /// It is not known yet how many rows match: rows are tested as they come.
    Unknown,
}

/// Looks up a key.
pub(super) fn look_up(
    connection: &Connection,
    effort: PlanEffort,
    look_up: &LookUp,
    matching: &Matching,
) -> rusqlite::Result<KeyLookup> {
    match look_up {
        LookUp::Scan => Ok(KeyLookup::None),
        LookUp::Names(names) => patients(connection, effort, names, matching),
        LookUp::Range { attribute, from, to } => index(connection, *attribute, from, to.as_deref()),
    }
}

/// Finds patients with a component group from ?1 up to before ?2, at most ?3 of each kind. Patients
/// with any word have no group in the result.
const NAMES_WITH_PREFIX: &str = "\
    SELECT * FROM (SELECT id, patient_name_norm FROM patient WHERE patient_name_norm <> '' AND patient_name_norm >= ?1 \
     AND patient_name_norm < ifnull(?2, x'') LIMIT ?3) \
    UNION ALL SELECT * FROM (SELECT id, patient_name_ideographic_norm FROM patient WHERE patient_name_ideographic_norm <> '' \
     AND patient_name_ideographic_norm >= ?1 AND patient_name_ideographic_norm < ifnull(?2, x'') LIMIT ?3) \
    UNION ALL SELECT * FROM (SELECT id, patient_name_phonetic_norm FROM patient WHERE patient_name_phonetic_norm <> '' \
     AND patient_name_phonetic_norm >= ?1 AND patient_name_phonetic_norm < ifnull(?2, x'') LIMIT ?3) \
    UNION ALL SELECT * FROM (SELECT patient, NULL FROM patient_name_word \
     WHERE word = (SELECT id FROM name_word WHERE word = '') LIMIT ?3)";

/// Finds at most ?3 patients with a word that contains ?1, begins with it (and lies before ?2),
/// ends with it, or equals it.
fn names_with_part(part: &NamePart) -> &'static str {
    match (part.starts, part.ends) {
        (false, false) => {
            "SELECT patient FROM patient_name_word WHERE word IN \
             (SELECT id FROM name_word WHERE instr(word, ?1) OR word = '') LIMIT ?3"
        }
        (true, false) => {
            "SELECT patient FROM patient_name_word WHERE word IN \
             (SELECT id FROM name_word WHERE word >= ?1 AND word < ifnull(?2, x'') \
             UNION ALL SELECT id FROM name_word WHERE word = '') LIMIT ?3"
        }
        (false, true) => {
            "SELECT patient FROM patient_name_word WHERE word IN \
             (SELECT id FROM name_word WHERE substr(word, -length(?1)) = ?1 OR word = '') LIMIT ?3"
        }
        (true, true) => {
            "SELECT patient FROM patient_name_word WHERE word IN \
             (SELECT id FROM name_word WHERE word IN (?1, '')) LIMIT ?3"
        }
    }
}

/// Finds at most ?3 patients with a word from ?1 up to before ?2, or with the code ?4 or ?5.
const NAMES_WITH_WORD: &str = "\
    SELECT patient FROM patient_name_word WHERE word IN (\
     SELECT id FROM name_word WHERE word >= ?1 AND word < ifnull(?2, x'') \
     UNION ALL SELECT id FROM name_word WHERE sound <> '' AND sound IN (?4, ?5) \
     UNION ALL SELECT id FROM name_word WHERE other_sound <> '' AND other_sound IN (?4, ?5) \
     UNION ALL SELECT id FROM name_word WHERE word = '') LIMIT ?3";

/// The patients with such names, unless there are too many. If the statement gives the group of the
/// name that it found, `matching` may already exclude it.
fn patients(
    connection: &Connection,
    effort: PlanEffort,
    names: &NameLookUp,
    matching: &Matching,
) -> rusqlite::Result<KeyLookup> {
    let patients = rows_of(connection, "patient")?;
    let few = plan::few_of(patients);
    let Some(most) = plan::most_names(effort, names, patients) else { return Ok(KeyLookup::Unknown) };
    let (sql, text, sounds) = statement(names);
    let mut statement = connection.prepare_cached(sql)?;
    let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
    let mut sounds = sounds.iter().map(String::as_str);
    let (one, other) = (sounds.next(), sounds.next());
    let after = after_prefix(text);
    let parameters: [&dyn ToSql; 5] = [&text, &after, &limit, &one, &other];
    let used = statement.parameter_count().min(parameters.len());
    let gives_group = statement.column_count() > 1;
    let mut found = statement.query(&parameters[..used])?;
    let (mut rows, mut seen) = (Vec::new(), 0_usize);
    while let Some(row) = found.next()? {
        seen += 1;
        if seen > most {
            return Ok(match effort {
                PlanEffort::Little => KeyLookup::Unknown,
                PlanEffort::All => KeyLookup::None,
            });
        }
        // A name that stands for any word has no group.
        let group = if gives_group { row.get_ref(1)?.as_str_or_null()? } else { None };
        if group.is_none_or(|group| matching.may_match_name_group(group)) {
            rows.push(row.get::<_, i64>(0)?);
        }
    }
    rows.sort_unstable();
    rows.dedup();
    Ok(if rows.len() > few {
        RowSet::new(&rows).map_or(KeyLookup::None, |rows| KeyLookup::Among(Arc::new(rows)))
    } else {
        KeyLookup::Rows(rows.into())
    })
}

/// The statement for a look-up of names, with its first text and its codes.
fn statement(names: &NameLookUp) -> (&'static str, &str, &[String]) {
    match names {
        NameLookUp::Prefix(prefix) => (NAMES_WITH_PREFIX, prefix, &[]),
        NameLookUp::Part(part) => (names_with_part(part), &part.text, &[]),
        NameLookUp::Word { prefix, sounds } => (NAMES_WITH_WORD, prefix, sounds),
    }
}

/// The statement for a look-up of names.
pub(super) fn statement_of(look_up: &LookUp) -> Option<&'static str> {
    match look_up {
        LookUp::Names(names) => Some(statement(names).0),
        LookUp::Scan | LookUp::Range { .. } => None,
    }
}

/// Whether the values between these texts belong to few rows.
fn index(connection: &Connection, id: AttributeId, from: &str, to: Option<&str>) -> rusqlite::Result<KeyLookup> {
    let (table, column) =
        if id == AttributeId::PatientID { ("patient", "patient_id") } else { ("study", "accession_number") };
    let few = plan::few_of(rows_of(connection, table)?);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {column} >= ?1 AND {column} < ifnull(?2, x'') LIMIT ?3)"
    ))?;
    let limit = i64::try_from(few).unwrap_or(i64::MAX).saturating_add(1);
    let count: i64 = statement.query_row(params![from, to, limit], |row| row.get(0))?;
    Ok(if count < limit { KeyLookup::Index } else { KeyLookup::None })
}

/// The approximate number of rows of a table.
fn rows_of(connection: &Connection, table: &str) -> rusqlite::Result<usize> {
    // Row numbers are given one after the other.
    let mut statement = connection.prepare_cached(&format!("SELECT ifnull(max(id), 0) FROM {table}"))?;
    let last: i64 = statement.query_row([], |row| row.get(0))?;
    Ok(usize::try_from(last).unwrap_or(0))
}

/// The key of the row of an instance: its group, and the suffix of its UID there.
pub(in crate::db::sqlite) fn instance_key(
    connection: &Connection,
    uid: &str,
    hash: i32,
) -> rusqlite::Result<Option<InstanceKey>> {
    let mut instance_groups = connection.prepare_cached(
        "SELECT h.id, h.uid_prefix FROM (SELECT instance_group FROM uid_lookup WHERE hash = ?1 UNION ALL \
         SELECT instance_group FROM uid_lookup_recent WHERE hash = ?1) u JOIN instance_group h ON h.id = u.instance_group",
    )?;
    let mut rows = instance_groups.query([hash])?;
    while let Some(row) = rows.next()? {
        let instance_group: i64 = row.get(0)?;
        let suffix = UidSuffix::pack(uid, row.get_ref(1)?.as_str()?);
        let exists = connection
            .prepare_cached("SELECT 1 FROM instance WHERE instance_group = ?1 AND uid_suffix = ?2")?
            .query_row(params![instance_group, suffix], |_| Ok(()))
            .optional()?;
        if exists.is_some() {
            return Ok(Some(InstanceKey { instance_group, suffix }));
        }
    }
    Ok(None)
}
