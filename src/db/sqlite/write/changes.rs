//! What a transaction has changed and writes at its end: counters, look-ups, summaries, and what has become empty.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension};

use super::parents::Belonging;
use super::patients::{Settle, TouchedPatients};
use super::{Batch, Result};
use crate::db::Tally;
use crate::model::level::QueryRetrieveLevel;

/// What the transaction has changed and has yet to write: the counters, and the rows of `uid_lookup`, which go in sorted.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) tally: Tally,
    /// Whether a scan has written in this transaction.
    pub(super) scanned: bool,
    /// The number of the change, once it is known.
    pub(super) change: Option<i64>,
    /// Instance groups with an instance that is not as it was.
    pub(super) touched: HashSet<i64>,
    pub(super) instances_per_instance_group: HashMap<i64, i64>,
    pub(super) instances_per_series: HashMap<i64, i64>,
    pub(super) instances_per_study: HashMap<i64, i64>,
    pub(super) series_per_study: HashMap<i64, i64>,
    /// Studies whose ModalitiesInStudy, SOPClassesInStudy and AnatomicRegionsInStudyCodeSequence have to be worked out again.
    pub(super) studies_to_summarise: HashSet<i64>,
    /// Instance groups that may have become empty, with their series and study.
    pub(super) shrunk: HashSet<(i64, i64, i64)>,
    /// Entities whose values may have to be worked out anew.
    pub(super) series_to_settle: HashMap<i64, Settle>,
    pub(super) studies_to_settle: HashMap<i64, Settle>,
    /// Descriptions to which no study may lead any more.
    pub(super) patients_left: HashSet<i64>,
    /// Where descriptions of patients were added and dropped.
    pub(super) touched_patients: TouchedPatients,
    pub(super) lookups: Vec<(i32, i64)>,
    pub(super) lookup_hashes: HashMap<i32, i64>,
    /// Look-ups of instances that are gone.
    pub(super) stale_lookups: HashSet<(i32, i64)>,
}

impl Changes {
    /// Counts new instances of an instance group.
    pub(super) fn count(&mut self, instance_group: i64, belonging: &Belonging, instances: i64) {
        *self.instances_per_instance_group.entry(instance_group).or_default() += instances;
        *self.instances_per_series.entry(belonging.series).or_default() += instances;
        *self.instances_per_study.entry(belonging.study).or_default() += instances;
    }

    fn note_lookup(&mut self, hash: i32, instance_group: i64) {
        self.lookups.push((hash, instance_group));
        self.lookup_hashes.entry(hash).or_insert(instance_group);
    }
}

/// How the look-ups are spread over their two tables. Hashes come in random order: put straight into a table of the size of
/// the archive, each would dirty a page of its own, some 2,700 pages for a transaction of 4,096 rows at 1.6 million
/// instances; with a small table in front it is some 300 (docs/adr/0009).
pub(super) struct Lookups {
    /// In both tables, more or less: another process may have added some.
    pub(super) all: i64,
    /// In the small one.
    pub(super) recent: i64,
    /// Where the next range to move begins.
    pub(super) next_hash: i64,
}

impl Lookups {
    pub(super) fn read(connection: &Connection) -> Result<Self> {
        Ok(Self {
            all: connection.query_row("SELECT ifnull(sum(instance_count), 0) FROM study", [], |row| row.get(0))?,
            recent: connection.query_row("SELECT count(*) FROM uid_lookup_recent", [], |row| row.get(0))?,
            next_hash: i64::from(i32::MIN),
        })
    }

    /// The size of the small table from which it is emptied. A transaction dirties about as many of its pages as it has, and
    /// as many of the large one as lie in the range moved: the sum is least where this grows with the root of the whole.
    fn most_recent(&self) -> i64 {
        const PER_ROOT: i64 = 64;
        const LEAST: i64 = 65_536;
        (self.all.max(0).isqrt() * PER_ROOT).max(LEAST)
    }
}

/// What says of most hashes that no look-up has them. Only of an index that this writer has filled from its beginning, alone:
/// then there is nothing to be read for it. That is a first scan, in which nearly every UID is new and two searches for each would
/// find nothing.
pub(super) struct HashFilter(Vec<u64>);

impl HashFilter {
    /// Bits, two for each hash: of a hash that is not there one of 500 seems to be at 1.6 million, one of seven at 16 million.
    const BITS: u32 = 1 << 26;

    /// One for an index without look-ups.
    pub(super) fn of(connection: &Connection) -> Result<Option<Self>> {
        let is_empty: bool = connection.query_row(
            "SELECT NOT EXISTS (SELECT 1 FROM uid_lookup) AND NOT EXISTS (SELECT 1 FROM uid_lookup_recent)",
            [],
            |row| row.get(0),
        )?;
        Ok(is_empty.then(|| Self(vec![0; Self::BITS as usize / 64])))
    }

    /// The words and bits of a hash, whose own bits are as good as random.
    fn places(hash: i32) -> [(usize, u64); 2] {
        let hash = hash as u32;
        [hash, hash.rotate_left(16).wrapping_mul(0x9E37_79B1)].map(|number| {
            let bit = number % Self::BITS;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    fn add(&mut self, hash: i32) {
        for (word, bit) in Self::places(hash) {
            if let Some(word) = self.0.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// Whether there may be look-ups with this hash.
    pub(super) fn may_have(&self, hash: i32) -> bool {
        Self::places(hash).into_iter().all(|(word, bit)| self.0.get(word).is_none_or(|word| word & bit != 0))
    }
}

impl Batch<'_> {
    /// Notes that an instance is found through this entry from now on.
    pub(super) fn add_lookup(&mut self, hash: i32, instance_group: i64) -> Result<()> {
        if self.changes.stale_lookups.remove(&(hash, instance_group)) {
            return Ok(());
        }
        if self.candidates.0 != hash {
            self.look_up(hash)?;
        }
        // Another instance of the instance group has the same hash.
        if self.candidates.1.contains(&instance_group) {
            self.statement("INSERT OR IGNORE INTO uid_lookup_shared (hash, instance_group) VALUES (?1, ?2)")?
                .execute([i64::from(hash), instance_group])?;
            return Ok(());
        }
        if let Some(filter) = &mut self.filter {
            filter.add(hash);
        }
        self.changes.note_lookup(hash, instance_group);
        Ok(())
    }

    /// Notes that an instance is no longer found through this entry.
    pub(super) fn drop_lookup(&mut self, hash: i32, instance_group: i64) {
        self.changes.stale_lookups.insert((hash, instance_group));
    }

    pub(super) fn write_changes(&mut self) -> Result<()> {
        self.changes.scanned = false;
        self.count_run();
        self.drop_stale_lookups()?;
        let mut lookups = std::mem::take(&mut self.changes.lookups);
        self.changes.lookup_hashes.clear();
        // In order of the hash: neighbours go into the same page.
        lookups.sort_unstable();
        for &(hash, instance_group) in &lookups {
            self.hot.insert_lookup.execute([i64::from(hash), instance_group])?;
        }
        self.move_lookups(lookups.len())?;
        self.write_instance_groups()?;
        for (table, column, changes) in [
            ("study_series", "instance_count", &mut self.changes.instances_per_series),
            ("study", "instance_count", &mut self.changes.instances_per_study),
            ("study", "series_count", &mut self.changes.series_per_study),
        ] {
            let sql = format!("UPDATE {table} SET {column} = {column} + ?2 WHERE id = ?1");
            let mut update = self.connection.prepare_cached(&sql)?;
            for (id, change) in changes.drain().filter(|(_, change)| *change != 0) {
                update.execute([id, change])?;
            }
        }
        self.remove_empty()?;
        self.changes.change = None;
        let studies: Vec<i64> = self.changes.studies_to_summarise.drain().collect();
        for study in studies {
            self.statement(
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

    fn drop_stale_lookups(&mut self) -> Result<()> {
        for (hash, instance_group) in std::mem::take(&mut self.changes.stale_lookups) {
            let entry = [i64::from(hash), instance_group];
            let is_shared: bool = self
                .statement("SELECT EXISTS (SELECT 1 FROM uid_lookup_shared WHERE hash = ?1 AND instance_group = ?2)")?
                .query_row(entry, |row| row.get(0))?;
            if is_shared {
                continue;
            }
            if self.changes.lookup_hashes.contains_key(&hash) {
                let others = self.changes.lookups.len();
                self.changes.lookups.retain(|pending| *pending != (hash, instance_group));
                if self.changes.lookups.len() < others {
                    continue;
                }
            }
            let recent = self
                .statement("DELETE FROM uid_lookup_recent WHERE hash = ?1 AND instance_group = ?2")?
                .execute(entry)?;
            let large =
                self.statement("DELETE FROM uid_lookup WHERE hash = ?1 AND instance_group = ?2")?.execute(entry)?;
            self.lookups.recent -= i64::try_from(recent).unwrap_or(0);
            self.lookups.all -= i64::try_from(recent + large).unwrap_or(0);
        }
        Ok(())
    }

    /// Moves a range of the recent look-ups into the large table, when there are many.
    fn move_lookups(&mut self, added: usize) -> Result<()> {
        let added = i64::try_from(added).unwrap_or(i64::MAX);
        self.lookups.recent += added;
        self.lookups.all += added;
        if self.lookups.recent <= self.lookups.most_recent() {
            return Ok(());
        }
        let from = self.lookups.next_hash;
        let end: Option<i64> = self
            .statement("SELECT hash FROM uid_lookup_recent WHERE hash >= ?1 ORDER BY hash LIMIT 1 OFFSET ?2")?
            .query_row([from, added.saturating_mul(2).max(64)], |row| row.get(0))
            .optional()?;
        // Past every hash where the range is the last one; the next begins anew.
        let to = end.unwrap_or(i64::from(i32::MAX) + 1);
        self.statement(
            "INSERT OR IGNORE INTO uid_lookup SELECT hash, instance_group FROM uid_lookup_recent WHERE hash >= ?1 AND hash < ?2 \
             ORDER BY hash, instance_group",
        )?
        .execute([from, to])?;
        let moved =
            self.statement("DELETE FROM uid_lookup_recent WHERE hash >= ?1 AND hash < ?2")?.execute([from, to])?;
        self.lookups.recent -= i64::try_from(moved).unwrap_or(0);
        self.lookups.next_hash = end.unwrap_or(i64::from(i32::MIN));
        Ok(())
    }

    /// Drops entities that have lost their last instance, and lets those that have lost others follow.
    fn remove_empty(&mut self) -> Result<()> {
        let shrunk: Vec<_> = self.changes.shrunk.drain().collect();
        let mut dropped = false;
        for (instance_group, series, study) in shrunk {
            let was: Option<[Option<i64>; 3]> = self
                .statement(
                    "DELETE FROM instance_group WHERE id = ?1 AND instance_count = 0 \
                     RETURNING patient_values, study_values, series_values",
                )?
                .query_row([instance_group], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
                .optional()?;
            let Some(said) = was else { continue };
            dropped = true;
            for said in said.into_iter().flatten() {
                self.drop_unused(said)?;
            }
            self.statement("DELETE FROM uid_lookup_shared WHERE instance_group = ?1")?.execute([instance_group])?;
            self.changes.studies_to_summarise.insert(study);
            if self.statement("DELETE FROM study_series WHERE id = ?1 AND instance_count = 0")?.execute([series])? > 0 {
                self.statement("UPDATE study SET series_count = series_count - 1 WHERE id = ?1")?.execute([study])?;
            } else {
                self.changes.series_to_settle.entry(series).or_insert(Settle::IfLeft);
            }
            let patients: Vec<i64> = self
                .statement(
                    "SELECT patient FROM study WHERE id = ?1 UNION SELECT patient FROM study_patient WHERE study = ?1",
                )?
                .query_map([study], |row| row.get(0))?
                .collect::<Result<_>>()?;
            if self.statement("DELETE FROM study WHERE id = ?1 AND instance_count = 0")?.execute([study])? > 0 {
                self.statement("DELETE FROM study_patient WHERE study = ?1")?.execute([study])?;
                self.changes.patients_left.extend(patients);
            } else {
                self.changes.studies_to_settle.entry(study).or_insert(Settle::IfLeft);
            }
        }
        self.settle_all()?;
        for patient in std::mem::take(&mut self.changes.patients_left) {
            dropped |= self.drop_description(patient)?;
        }
        self.settle_touched_patients()?;
        if dropped {
            self.raise_change_floor()?;
            self.forget();
        }
        Ok(())
    }

    fn settle_all(&mut self) -> Result<()> {
        for (series, settle) in std::mem::take(&mut self.changes.series_to_settle) {
            self.settle(QueryRetrieveLevel::Series, series, settle)?;
        }
        for (study, settle) in std::mem::take(&mut self.changes.studies_to_settle) {
            self.settle_patients_of(study, settle)?;
            self.settle(QueryRetrieveLevel::Study, study, settle)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_every_hash_that_was_added_and_few_others() {
        let connection = Connection::open_in_memory().unwrap();
        for table in ["uid_lookup", "uid_lookup_recent"] {
            connection.execute_batch(&format!("CREATE TABLE {table} (hash INTEGER, instance_group INTEGER)")).unwrap();
        }
        let mut filter = HashFilter::of(&connection).unwrap().unwrap();
        let hash_of = |n: i32| n.wrapping_mul(0x61C8_8647).rotate_left(7);
        (0..100_000).for_each(|n| filter.add(hash_of(n)));
        assert!((0..100_000).all(|n| filter.may_have(hash_of(n))));
        assert!((100_000..200_000).filter(|&n| filter.may_have(hash_of(n))).count() < 100);
        connection.execute_batch("INSERT INTO uid_lookup_recent VALUES (1, 1)").unwrap();
        assert!(HashFilter::of(&connection).unwrap().is_none());
    }
}
