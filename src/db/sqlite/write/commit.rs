//! The end of a transaction: counters, look-ups, summaries, and what has become empty.

use rusqlite::OptionalExtension;

use super::batch::Batch;
use super::changes::Recompute;
use super::rows::Result;
use crate::model::level::QueryRetrieveLevel;

impl Batch<'_> {
    /// Notes that an instance is found through this entry from now on.
    pub(super) fn add_lookup(&mut self, hash: i32, instance_group: i64) -> Result<()> {
        if self.changes.stale_lookups.remove(&(hash, instance_group)) {
            return Ok(());
        }
        if self.lookup_cache.hash != hash {
            self.look_up(hash)?;
        }
        // Another instance of the instance group has the same hash.
        if self.lookup_cache.groups.contains(&instance_group) {
            self.statement("INSERT OR IGNORE INTO uid_lookup_shared (hash, instance_group) VALUES (?1, ?2)")?
                .execute([i64::from(hash), instance_group])?;
            return Ok(());
        }
        if let Some(filter) = &mut self.lookup_cache.filter {
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
            self.prepared.insert_lookup.execute([i64::from(hash), instance_group])?;
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
                self.changes.series_to_recompute.entry(series).or_insert(Recompute::IfLeft);
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
                self.changes.studies_to_recompute.entry(study).or_insert(Recompute::IfLeft);
            }
        }
        self.recompute_all()?;
        for patient in std::mem::take(&mut self.changes.patients_left) {
            dropped |= self.drop_description(patient)?;
        }
        self.recompute_touched_patients()?;
        if dropped {
            self.raise_change_floor()?;
            self.forget();
        }
        Ok(())
    }

    fn recompute_all(&mut self) -> Result<()> {
        for (series, recompute) in std::mem::take(&mut self.changes.series_to_recompute) {
            self.recompute(QueryRetrieveLevel::Series, series, recompute)?;
        }
        for (study, recompute) in std::mem::take(&mut self.changes.studies_to_recompute) {
            self.recompute_patients_of(study, recompute)?;
            self.recompute(QueryRetrieveLevel::Study, study, recompute)?;
        }
        Ok(())
    }
}
