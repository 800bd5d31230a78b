//! Changes of the contents of an index by removals: see `removals`.

use std::path::Path;

use crate::db::contents::{Contents, FileKey, FileOfRemoved, RemovedInstance, StoredFile, Unindexed};
use crate::db::removals::{FOR_TRASH, IN_TRASH, STAYS};
use crate::db::{NotIndexed, Note, REMOVED, RemovedCounts};
use crate::model::attribute::AttributeId;
use crate::model::location::Place;

impl FileOfRemoved {
    pub(in crate::db) fn uid(&self) -> &str {
        self.file.record.value(AttributeId::SOPInstanceUID)
    }
}

impl Contents {
    /// Removes an instance with all its locations. Returns what was removed, or nothing if there is
    /// no such instance.
    pub(in crate::db) fn remove_instance(&mut self, uid: &str, removal: i64, takes_objects: bool) -> RemovedCounts {
        let mut counts = RemovedCounts::default();
        let Some(held) = self.instances.remove(uid) else { return counts };
        counts.instances = 1;
        let without_object = held.first().filter(|first| !first.has_object());
        let record = without_object.map(|first| first.record.clone());
        for file in held.into_iter().filter(StoredFile::has_object) {
            let is_own = file.location.place == Place::Managed;
            if is_own {
                counts.objects += 1;
                counts.object_bytes += file.location.size;
            } else {
                counts.in_place += 1;
            }
            let state = if is_own && takes_objects { FOR_TRASH } else { STAYS };
            self.note_removed_file(FileOfRemoved { file, removal, state });
        }
        self.conflicts.retain(|(kind, of, at), _| {
            *of != uid || (*kind != "instance-with-other-content" && !at.directory.as_os_str().is_empty())
        });
        self.removed.insert(uid.to_owned(), RemovedInstance { removal, record });
        *self.removed_counts.entry(removal).or_default() += 1;
        counts
    }

    fn note_removed_file(&mut self, removed: FileOfRemoved) {
        let key = removed.file.key();
        self.forget_marks(&key);
        let note = Note { kind: NotIndexed::Skipped, reason: REMOVED.to_owned(), detail: String::new() };
        let (size, mtime_ms) = (removed.file.location.size, removed.file.location.mtime_ms);
        self.unindexed.insert(key.clone(), Unindexed { size, mtime_ms, note });
        self.removed_files.insert(key, removed);
    }

    /// Notes an instance as removed that the index does not know.
    pub(in crate::db) fn note_removed(&mut self, uid: &str, removal: i64) {
        if !self.instances.contains_key(uid) {
            self.removed.insert(uid.to_owned(), RemovedInstance { removal, record: None });
        }
    }

    /// Takes a file that a scan found if its instance is removed. Returns whether it is.
    pub(in crate::db) fn withhold(&mut self, new: &StoredFile, known: bool, reread: bool) -> bool {
        let removed = self.removed.get(new.record.value(AttributeId::SOPInstanceUID));
        let Some(&RemovedInstance { removal, .. }) = removed else { return false };
        let was_location = known && self.remove_file(&new.key());
        self.note_removed_file(FileOfRemoved { file: new.clone(), removal, state: STAYS });
        self.tally.corrected += u64::from(reread);
        *(if was_location || reread { &mut self.tally.withheld_updated } else { &mut self.tally.withheld }) += 1;
        true
    }

    /// Lets an instance come back, because it was received or an operator asks for it.
    ///
    /// The next scan finds its files in place again. Files of the node stay removed, apart from the
    /// one that was received.
    pub(in crate::db) fn lift_removed(&mut self, uid: &str, received: Option<&StoredFile>) {
        let received = received.filter(|file| file.location.place == Place::Managed).map(StoredFile::key);
        let comes_back = |(key, file): &(&FileKey, &FileOfRemoved)| {
            let is_own = file.file.location.place == Place::Managed;
            file.uid() == uid && file.state != IN_TRASH && (!is_own || received.as_ref() == Some(key))
        };
        let keys: Vec<FileKey> = self.removed_files.iter().filter(comes_back).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.forget_removed(&key);
            if key.is_archive {
                self.have_archive_read(&key.directory);
            }
        }
        self.removed.remove(uid);
    }

    /// Drops what is noted of a removed file.
    pub(in crate::db) fn forget_removed(&mut self, key: &FileKey) {
        self.removed_files.remove(key);
        self.forget_note_of_removed(key);
    }

    /// Drops the note that a scan passes over the file.
    pub(in crate::db) fn forget_note_of_removed(&mut self, key: &FileKey) {
        if self.unindexed.get(key).is_some_and(|file| file.note.reason == REMOVED) {
            self.unindexed.remove(key);
        }
    }

    /// Has the next scan read an archive file again.
    fn have_archive_read(&mut self, archive: &Path) {
        let Some(key) = FileKey::of_archive(archive) else { return };
        if self.unindexed.get(&key).is_some_and(|file| file.note.kind == NotIndexed::Container) {
            self.unindexed.remove(&key);
        }
    }
}

impl FileKey {
    /// The key of an archive file among the files of its directory.
    pub(in crate::db) fn of_archive(archive: &Path) -> Option<Self> {
        let (directory, name) = (archive.parent()?.to_owned(), archive.file_name()?.to_owned());
        Some(Self { is_archive: false, directory, name })
    }
}
