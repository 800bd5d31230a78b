//! Removals from an index in memory.

use std::collections::HashMap;
use std::path::Path;

use crate::db::contents::{FileKey, FileOfRemoved};
use crate::db::memory::MemoryIndex;
use crate::db::removals::{FOR_TRASH, IN_TRASH, RemovalChanges, RemovalSearch};
use crate::db::{Error, Removal, RemovedCounts, RemovedFile};
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

impl MemoryIndex {
    /// The files of removed instances that `wanted` accepts, by their keys.
    fn removed_files(&self, wanted: impl Fn(&FileKey, &FileOfRemoved) -> bool) -> Vec<RemovedFile> {
        let contents = self.contents();
        let found = contents.removed_files.iter().filter(|(key, file)| wanted(key, file));
        found
            .map(|(_, removed)| RemovedFile {
                directory: 0,
                location: removed.file.location.clone(),
                sop_instance_uid: removed.uid().to_owned(),
                removal: removed.removal,
                begun_ms: contents.removals.get(&removed.removal).map_or(0, |removal| removal.begun_ms),
                checksum: removed.file.checksum,
                differs: removed.file.differs,
                is_in_trash: removed.state == IN_TRASH,
            })
            .collect()
    }
}

fn key_of(file: &RemovedFile) -> FileKey {
    FileKey::of(file.location.place, &file.location.directory, &file.location.file_name)
}

impl RemovalSearch for MemoryIndex {
    fn removals(&mut self) -> Result<Vec<Removal>, Error> {
        let contents = self.contents();
        let files = |removal: i64, state: i64| {
            contents.removed_files.values().filter(|file| (file.removal, file.state) == (removal, state)).count() as u64
        };
        let told = contents.removals.values().rev().map(|removal| Removal {
            instances: contents.removed_counts.get(&removal.id).copied().unwrap_or(0),
            still_removed: contents.removed.values().filter(|removed| removed.removal == removal.id).count() as u64,
            for_trash: files(removal.id, FOR_TRASH),
            in_trash: files(removal.id, IN_TRASH),
            ..*removal
        });
        Ok(told.collect())
    }

    fn removed_among(&mut self, sop_instance_uids: Vec<String>) -> Result<HashMap<String, i64>, Error> {
        let contents = self.contents();
        let begun_ms = |uid: &String| Some(contents.removals.get(&contents.removed.get(uid)?.removal)?.begun_ms);
        Ok(sop_instance_uids.into_iter().filter_map(|uid| begun_ms(&uid).map(|begun_ms| (uid, begun_ms))).collect())
    }

    fn files_for_trash(&mut self, after: Option<&RemovedFile>, limit: usize) -> Result<Vec<RemovedFile>, Error> {
        let after = after.map(key_of);
        let is_after = |key: &FileKey| after.as_ref().is_none_or(|after| key > after);
        let mut found = self.removed_files(|key, file| file.state == FOR_TRASH && is_after(key));
        found.truncate(limit);
        Ok(found)
    }

    fn files_of_removal(&mut self, removal: i64, after: &str, limit: usize) -> Result<Vec<RemovedFile>, Error> {
        let mut found = self.removed_files(|_, file| file.removal == removal && file.uid() > after);
        found.sort_by_key(|file| (file.sop_instance_uid.clone(), file.differs, file.location.place != Place::Managed));
        let mut uids: Vec<&String> = found.iter().map(|file| &file.sop_instance_uid).collect();
        uids.dedup();
        if let Some(end) = uids.get(limit).map(|uid| (*uid).clone()) {
            found.retain(|file| file.sop_instance_uid < end);
        }
        Ok(found)
    }

    fn instances_of_removal(
        &mut self,
        removal: i64,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Option<InstanceRecord>)>, Error> {
        let contents = self.contents();
        let found = contents.removed.iter().filter(|(uid, removed)| removed.removal == removal && uid.as_str() > after);
        Ok(found.take(limit).map(|(uid, removed)| (uid.clone(), removed.record.clone())).collect())
    }
}

impl RemovalChanges for MemoryIndex {
    fn begin_removal(&self, begun_ms: i64, takes_objects: bool) -> Result<i64, Error> {
        let mut contents = self.to_change();
        let last = contents.removals.last_key_value().map_or(0, |(last, _)| *last);
        let id = last.max(contents.undone_removal).saturating_add(1);
        contents.removals.insert(id, Removal::begun(id, begun_ms, takes_objects));
        Ok(id)
    }

    fn remove(&self, removal: i64, takes_objects: bool, uids: Vec<String>) -> Result<RemovedCounts, Error> {
        let mut contents = self.to_change();
        let mut counts = RemovedCounts::default();
        for uid in &uids {
            counts.add(contents.remove_instance(uid, removal, takes_objects));
        }
        Ok(counts)
    }

    fn note_removed(&self, removal: i64, uids: Vec<String>) -> Result<(), Error> {
        let mut contents = self.to_change();
        uids.iter().for_each(|uid| contents.note_removed(uid, removal));
        Ok(())
    }

    fn trashed(&self, files: Vec<RemovedFile>) -> Result<(), Error> {
        let mut contents = self.to_change();
        for key in files.iter().map(key_of) {
            if let Some(file) = contents.removed_files.get_mut(&key) {
                file.state = IN_TRASH;
            }
            contents.forget_note_of_removed(&key);
        }
        Ok(())
    }

    fn forget_removed(&self, files: Vec<RemovedFile>) -> Result<(), Error> {
        let mut contents = self.to_change();
        files.iter().for_each(|file| contents.forget_removed(&key_of(file)));
        Ok(())
    }

    fn lift_removed(&self, uids: Vec<String>) -> Result<(), Error> {
        let mut contents = self.to_change();
        uids.iter().for_each(|uid| contents.lift_removed(uid, None));
        Ok(())
    }

    fn end_removal(&self, removal: i64) -> Result<(), Error> {
        let mut contents = self.to_change();
        contents.removals.remove(&removal);
        contents.undone_removal = contents.undone_removal.max(removal);
        contents.removed_counts.remove(&removal);
        contents.removed.retain(|_, removed| removed.removal != removal);
        contents.removed_files.retain(|_, file| file.removal != removal);
        Ok(())
    }

    fn emptied(&self, removal: i64, _: &Path, now_ms: i64) -> Result<u64, Error> {
        let mut contents = self.to_change();
        contents.removed_files.retain(|_, file| (file.removal, file.state) != (removal, IN_TRASH));
        if let Some(removal) = contents.removals.get_mut(&removal) {
            removal.emptied_ms = Some(now_ms);
        }
        Ok(0)
    }

    fn removal_of(&self, begun_ms: i64) -> Result<i64, Error> {
        let known =
            self.contents().removals.values().find(|removal| removal.begun_ms == begun_ms).map(|known| known.id);
        known.map_or_else(|| self.begin_removal(begun_ms, true), Ok)
    }
}
