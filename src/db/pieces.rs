//! A whole index in pieces, by which it is copied from one engine to another.
//!
//! A piece is a [`Contents`] with some thousand entries. Arrivals and directories come first, then
//! instances with their files. What is known of files besides follows, and last what belongs to the
//! index as a whole.

use super::arrival::{ArrivalEntry, ArrivalSource};
use super::contents::{Contents, FileKey, StoredFile, kind};
use super::sums::{EntryHash, SetSum};
use super::{Error, IndexEvent, ScanEntry};
use crate::model::attribute::{ATTRIBUTES, AttributeId};
use crate::model::location::Location;
use crate::model::record::InstanceRecord;

/// Entries of a piece. Larger: more memory, some 2 KB for each instance. Smaller: more
/// transactions.
const PIECE: usize = 4096;

/// The kinds of conflicts that are noted, because the locations of instances do not show them.
pub(in crate::db) const NOTED_CONFLICTS: [&str; 2] = ["instance-with-other-content", "invalid-uid"];

/// Part that a copy lacks if studies have changed since the last one was told: `study-complete` of
/// them.
pub(in crate::db) const UNTOLD_STUDIES: &str = "that studies have changed whose events are still to come";

/// Takes the pieces of an index.
pub(in crate::db) type OnPiece<'p> = &'p mut dyn FnMut(Contents) -> Result<(), Error>;

/// Gathers entries, and gives them away as pieces.
pub(in crate::db) struct PieceOutlet<'p> {
    /// The piece that is being gathered.
    pub(in crate::db) piece: Contents,
    entries: usize,
    on_piece: OnPiece<'p>,
}

impl<'p> PieceOutlet<'p> {
    pub(in crate::db) fn new(on_piece: OnPiece<'p>) -> Self {
        Self { piece: Contents::default(), entries: 0, on_piece }
    }

    /// Counts an entry that was added, and gives the piece away if it is large.
    pub(in crate::db) fn added(&mut self) -> Result<(), Error> {
        self.entries += 1;
        if self.entries < PIECE { Ok(()) } else { self.flush() }
    }

    /// Gives the piece away.
    pub(in crate::db) fn flush(&mut self) -> Result<(), Error> {
        self.entries = 0;
        (self.on_piece)(std::mem::take(&mut self.piece))
    }
}

impl Contents {
    /// Adds a piece of another index.
    pub(in crate::db) fn add_piece(&mut self, piece: &Self) {
        let Self { instances, unindexed, missing, faults, conflicts, directories, .. } = piece;
        self.instances.extend(instances.iter().map(|(uid, held)| (uid.clone(), held.clone())));
        self.unindexed.extend(unindexed.iter().map(|(key, file)| (key.clone(), file.clone())));
        self.missing.extend(missing.iter().cloned());
        self.faults.extend(faults.iter().map(|(key, fault)| (key.clone(), fault.clone())));
        self.conflicts.extend(conflicts.iter().map(|(key, object)| (key.clone(), object.clone())));
        self.directories.extend(directories.iter().cloned());
    }
}

/// The object of a conflict, of which only the UIDs of study, series and instance are known.
pub(in crate::db) fn conflicting(location: Location, [study, series, instance]: [&str; 3]) -> StoredFile {
    let mut record = InstanceRecord::new();
    record.set(AttributeId::StudyInstanceUID, study);
    record.set(AttributeId::SeriesInstanceUID, series);
    record.set(AttributeId::SOPInstanceUID, instance);
    StoredFile { location, record, checksum: None, differs: false, declared: String::new(), arrival: 0 }
}

/// Sum of all pieces of an index, in whatever order they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::db) struct ContentsSum {
    instances: SetSum,
    others: SetSum,
}

impl std::fmt::Display for ContentsSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { instances, others } = self;
        write!(
            f,
            "{} instances ({instances:032x}) and {} other entries ({others:032x})",
            instances.entries(),
            others.entries()
        )
    }
}

impl ContentsSum {
    /// Adds a piece. Missing files count in pieces without instances, which have all of them.
    pub(in crate::db) fn add(&mut self, piece: &Contents) {
        for (uid, held) in &piece.instances {
            let (first, copies) = held.split_at(held.len().min(1));
            let mut copies: Vec<&StoredFile> = copies.iter().collect();
            copies.sort_by_key(|copy| copy.key());
            let arrival = held.first().map_or(0, |first| first.arrival);
            let entry = EntryHash::of("instance").text(uid).number(arrival);
            self.instances.add(&first.iter().chain(copies).fold(entry, with_file));
        }
        for (place, path) in &piece.directories {
            let entry = EntryHash::of("directory").number(i64::from(*place));
            self.others.add(&entry.bytes(path.as_os_str().as_encoded_bytes()));
        }
        for (key, file) in &piece.unindexed {
            let entry = with_size(with_key(EntryHash::of("unindexed"), key), file.size, file.mtime_ms);
            let note = &file.note;
            self.others.add(&entry.text(note.kind.as_str()).text(&note.reason).text(&note.detail));
        }
        if piece.instances.is_empty() {
            piece.missing.iter().for_each(|key| self.others.add(&with_key(EntryHash::of("missing"), key)));
        }
        for (key, fault) in &piece.faults {
            self.others.add(&with_key(EntryHash::of("fault"), key).text(fault));
        }
        for ((kind, uid, key), object) in &piece.conflicts {
            let entry = with_key(EntryHash::of("conflict").text(kind).text(uid), key);
            self.others.add(&entry.text(object.record.value(AttributeId::StudyInstanceUID)));
        }
        for (number, ArrivalEntry { source, first_ms }) in &piece.arrival_entries {
            let ArrivalSource { kind, calling_ae_title, address, scan } = source;
            let entry = EntryHash::of("arrival").number(*number).number(*first_ms).number(scan.unwrap_or(0));
            self.others.add(&entry.text(kind).text(calling_ae_title).text(address));
        }
        for (what, paths) in [("mount point", &piece.mount_points), ("exchanged disk", &piece.exchanged_disks)] {
            for path in paths {
                self.others.add(&EntryHash::of(what).bytes(path.as_os_str().as_encoded_bytes()));
            }
        }
        for ScanEntry { scan, started_ms, finished_ms, roots, summary } in &piece.scans {
            let entry = EntryHash::of("scan").number(*scan).number(*started_ms).number(finished_ms.unwrap_or(-1));
            self.others.add(&entry.text(roots).text(summary.as_deref().unwrap_or_default()));
        }
        for (roots, state) in &piece.watches {
            self.others.add(&EntryHash::of("watch").text(roots).text(state));
        }
        if let Some(id) = &piece.id {
            self.others.add(&EntryHash::of("id").text(id));
        }
    }

    /// Adds events.
    pub(in crate::db) fn add_events(&mut self, events: &[IndexEvent]) {
        for IndexEvent { id, at_ms, kind, study_instance_uid, change, content } in events {
            let entry = EntryHash::of("event").number(*id).number(*at_ms).number(change.cast_signed());
            self.others.add(&entry.text(kind).text(study_instance_uid).text(content));
        }
    }
}

fn with_size(entry: EntryHash, size: u64, mtime_ms: i64) -> EntryHash {
    entry.bytes(&size.to_le_bytes()).number(mtime_ms)
}

fn with_key(entry: EntryHash, key: &FileKey) -> EntryHash {
    let FileKey { is_archive, directory, name } = key;
    let path = directory.as_os_str().as_encoded_bytes();
    entry.number(i64::from(*is_archive)).bytes(path).bytes(name.as_encoded_bytes())
}

fn with_file(entry: EntryHash, file: &StoredFile) -> EntryHash {
    let StoredFile { location, record, checksum, differs, .. } = file;
    let entry = with_size(with_key(entry, &file.key()), location.size, location.mtime_ms);
    let entry = entry.number(i64::from(kind(location.place))).number(i64::from(*differs));
    let entry = entry.bytes(&checksum.map(|sum| sum.to_bytes()).unwrap_or_default());
    let stored = ATTRIBUTES.iter().filter(|attribute| attribute.is_stored());
    let values = stored.map(|attribute| (attribute.column, record.value(attribute.id)));
    let present = values.filter(|(_, value)| !value.is_empty());
    present.fold(entry, |entry, (column, value)| entry.text(column).text(value))
}
