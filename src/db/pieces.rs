//! A whole index in pieces, by which it is copied from one engine to another.
//!
//! A piece is a [`Contents`] with some thousand entries. Arrivals and directories come first, then
//! instances with their files. What is known of files besides follows, and last what belongs to the index as
//! a whole.

use xxhash_rust::xxh3::Xxh3;

use super::arrival::{ArrivalEntry, ArrivalSource};
use super::contents::{Contents, FileKey, StoredFile, kind};
use super::{Error, ScanEntry};
use crate::model::attribute::{ATTRIBUTES, AttributeId};
use crate::model::location::Location;
use crate::model::record::InstanceRecord;

/// Entries of a piece. Larger: more memory, some 2 KB for each instance. Smaller: more
/// transactions.
const PIECE: usize = 4096;

/// The kinds of conflicts that are noted, because the locations of instances do not show them.
pub(in crate::db) const NOTED_CONFLICTS: [&str; 2] = ["instance-with-other-content", "invalid-uid"];

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

/// What all pieces of an index add up to, in whatever order they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::db) struct ContentsSum {
    instances: u64,
    others: u64,
    sum: u128,
}

impl std::fmt::Display for ContentsSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} instances and {} other entries with the checksum {:032x}", self.instances, self.others, self.sum)
    }
}

impl ContentsSum {
    /// Adds a piece. Missing files count in pieces without instances, which have all of them.
    pub(in crate::db) fn add(&mut self, piece: &Contents) {
        self.instances += piece.instances.len() as u64;
        for (uid, held) in &piece.instances {
            let (first, copies) = held.split_at(held.len().min(1));
            let mut copies: Vec<&StoredFile> = copies.iter().collect();
            copies.sort_by_key(|copy| copy.key());
            let arrival = held.first().map_or(0, |first| first.arrival);
            let mut entry = EntryHash::of("instance").text(uid).number(arrival);
            for file in first.iter().chain(copies) {
                entry = entry.file(file);
            }
            self.sum = self.sum.wrapping_add(entry.0.digest128());
        }
        for (place, path) in &piece.directories {
            self.entry(
                &EntryHash::of("directory").number(i64::from(*place)).bytes(path.as_os_str().as_encoded_bytes()),
            );
        }
        for (key, file) in &piece.unindexed {
            let entry = EntryHash::of("unindexed").key(key).size(file.size, file.mtime_ms);
            let note = &file.note;
            self.entry(&entry.text(note.kind.as_str()).text(&note.reason).text(&note.detail));
        }
        if piece.instances.is_empty() {
            piece.missing.iter().for_each(|key| self.entry(&EntryHash::of("missing").key(key)));
        }
        for (key, fault) in &piece.faults {
            self.entry(&EntryHash::of("fault").key(key).text(fault));
        }
        for ((kind, uid, key), object) in &piece.conflicts {
            let entry = EntryHash::of("conflict").text(kind).text(uid).key(key);
            self.entry(&entry.text(object.record.value(AttributeId::StudyInstanceUID)));
        }
        for (number, ArrivalEntry { source, first_ms }) in &piece.arrival_entries {
            let ArrivalSource { kind, calling_ae_title, address, scan } = source;
            let entry = EntryHash::of("arrival").number(*number).number(*first_ms).number(scan.unwrap_or(0));
            self.entry(&entry.text(kind).text(calling_ae_title).text(address));
        }
        for path in &piece.mount_points {
            self.entry(&EntryHash::of("mount point").bytes(path.as_os_str().as_encoded_bytes()));
        }
        for ScanEntry { scan, started_ms, finished_ms, roots, summary } in &piece.scans {
            let entry = EntryHash::of("scan").number(*scan).number(*started_ms).number(finished_ms.unwrap_or(-1));
            self.entry(&entry.text(roots).text(summary.as_deref().unwrap_or_default()));
        }
        for (roots, state) in &piece.watches {
            self.entry(&EntryHash::of("watch").text(roots).text(state));
        }
        if let Some(id) = &piece.id {
            self.entry(&EntryHash::of("id").text(id));
        }
    }

    fn entry(&mut self, entry: &EntryHash) {
        self.others += 1;
        self.sum = self.sum.wrapping_add(entry.0.digest128());
    }
}

/// The hash of an entry, part by part.
struct EntryHash(Xxh3);

impl EntryHash {
    fn of(kind: &str) -> Self {
        Self(Xxh3::new()).text(kind)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    fn number(self, number: i64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    fn size(self, size: u64, mtime_ms: i64) -> Self {
        self.bytes(&size.to_le_bytes()).number(mtime_ms)
    }

    fn key(self, key: &FileKey) -> Self {
        let FileKey { is_archive, directory, name } = key;
        let path = directory.as_os_str().as_encoded_bytes();
        self.number(i64::from(*is_archive)).bytes(path).bytes(name.as_encoded_bytes())
    }

    fn file(self, file: &StoredFile) -> Self {
        let StoredFile { location, record, checksum, differs, .. } = file;
        let place = i64::from(kind(location.place));
        let mut entry = self.key(&file.key()).size(location.size, location.mtime_ms).number(place);
        entry = entry.number(i64::from(*differs)).bytes(&checksum.map(|sum| sum.to_bytes()).unwrap_or_default());
        for attribute in ATTRIBUTES.iter().filter(|attribute| attribute.is_stored()) {
            let value = record.value(attribute.id);
            if !value.is_empty() {
                entry = entry.text(attribute.column).text(value);
            }
        }
        entry
    }
}
