//! The file of an arrival journal: where groups lie in it, and which of them are still needed.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::JournalError;
use super::format::{BLOCK, GROUP_HEAD_BYTES, GroupHead, HEAD_BYTES, JournalGroup, JournalHead, JournalId};
use crate::files::{PRIVATE_MODE, UnfinishedFile, with_suffix};

/// Longest group that is read. It is far above the longest that is written.
const MAX_GROUP_BYTES: u64 = 64 << 20;

/// Bytes that are written or searched at a time.
const PIECE: usize = 1 << 20;

/// Position of a group in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPosition {
    /// Its number.
    pub number: u64,
    offset: u64,
    /// Up to the next block.
    length: u64,
}

/// A journal that is open. One thread alone writes it: a failed flush is told once for each open
/// file.
#[derive(Debug)]
pub struct ArrivalJournal {
    path: PathBuf,
    file: File,
    head: JournalHead,
    /// Groups that are needed, or whose release is not durable yet.
    groups: VecDeque<GroupPosition>,
    /// The first group that is needed.
    needed: u64,
    /// Number and place of the next group.
    next: (u64, u64),
    next_entry: u64,
}

impl ArrivalJournal {
    /// Temporary name of a journal that is being made. A kill may leave it behind.
    #[must_use]
    pub fn unfinished(path: &Path) -> PathBuf {
        with_suffix(path, ".new")
    }

    /// Makes an empty journal, in place of another one at this path. All of its ring is written, so
    /// that a later flush changes nothing but data.
    ///
    /// # Errors
    /// [`JournalError::Unusable`], also where the disk has no room for it.
    pub fn create(path: &Path, ring_bytes: u64, index_id: &str) -> Result<Self, JournalError> {
        let unusable = |source| JournalError::Unusable { path: path.to_owned(), source };
        let id = JournalId::random().ok_or_else(|| unusable(io::ErrorKind::Other.into()))?;
        let ring_bytes = ring_bytes / BLOCK * BLOCK;
        let head = JournalHead { id, ring_bytes, first_needed: 1, offset: 0, index_id: index_id.to_owned() };
        let write = || {
            let made = UnfinishedFile::under(Self::unfinished(path), path, PRIVATE_MODE)?;
            let mut file = made.file();
            file.write_all(&head.encode())?;
            let zeros = vec![0; PIECE];
            let mut left = BLOCK - HEAD_BYTES as u64 + ring_bytes;
            while left > 0 {
                let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                file.write_all(&zeros[..piece])?;
                left -= piece as u64;
            }
            made.finish()?;
            open(path)
        };
        let file = write().map_err(unusable)?;
        Ok(Self::at_start(path, file, head))
    }

    fn at_start(path: &Path, file: File, head: JournalHead) -> Self {
        let next = (head.first_needed, head.offset);
        Self { path: path.to_owned(), file, needed: next.0, head, groups: VecDeque::new(), next, next_entry: 1 }
    }

    /// Opens a journal, and finds the groups that are still needed. `None` if there is none.
    ///
    /// The last group may be torn by a power cut: then its flush did not end, and nobody was told
    /// that its objects are kept. A group is written after the flush of the one before it. So a
    /// group that cannot be read although a later one was begun is damage.
    ///
    /// # Errors
    /// [`JournalError`], as its variants say.
    pub fn open(path: &Path, index_id: &str) -> Result<Option<Self>, JournalError> {
        let unusable = |source| JournalError::Unusable { path: path.to_owned(), source };
        let file = match open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(unusable)?,
        };
        let damaged = |detail: &str| JournalError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
        let mut bytes = [0; HEAD_BYTES];
        match file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(damaged("it is too short")),
            read => read.map_err(unusable)?,
        }
        let head = JournalHead::decode(&bytes, path)?;
        if head.index_id != index_id {
            return Err(JournalError::Foreign { path: path.to_owned() });
        }
        let length = file.metadata().map_err(unusable)?.len();
        if Some(length) != head.ring_bytes.checked_add(BLOCK) || head.offset > head.ring_bytes {
            return Err(damaged("its length is not that of its head"));
        }
        let mut this = Self::at_start(path, file, head);
        this.find_groups().map_err(unusable)?;
        if this.has_later_group().map_err(unusable)? {
            return Err(damaged(&format!("group {} cannot be read", this.next.0)));
        }
        Ok(Some(this))
    }

    fn find_groups(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            let (number, offset) = self.next;
            let mut found = None;
            // A group that does not fit before the end of the ring lies at its beginning.
            for offset in [offset, 0] {
                if let Some(head) = self.read_at(offset, &mut bytes)?.filter(|head| head.number == number) {
                    found = Some((offset, head));
                    break;
                }
            }
            let Some((offset, head)) = found else { return Ok(()) };
            let Some(length) = head.padded() else { return Ok(()) };
            self.groups.push_back(GroupPosition { number, offset, length });
            self.next = (number + 1, offset + length);
        }
    }

    /// Reads a group, if a whole one of this journal lies there.
    fn read_at(&self, offset: u64, bytes: &mut Vec<u8>) -> io::Result<Option<GroupHead>> {
        let mut start = [0; GROUP_HEAD_BYTES];
        if offset + BLOCK > self.head.ring_bytes {
            return Ok(None);
        }
        self.file.read_exact_at(&mut start, BLOCK + offset)?;
        let Some(head) = GroupHead::decode(&start).filter(|head| head.id == self.head.id) else { return Ok(None) };
        let fits = |padded: &u64| *padded <= MAX_GROUP_BYTES && offset + padded <= self.head.ring_bytes;
        if head.padded().filter(fits).is_none() {
            return Ok(None);
        }
        bytes.clear();
        bytes.resize(GROUP_HEAD_BYTES + usize::try_from(head.length).unwrap_or_default(), 0);
        self.file.read_exact_at(bytes, BLOCK + offset)?;
        Ok(head.is_whole(bytes).then_some(head))
    }

    /// Whether a group was begun after the one that cannot be read.
    fn has_later_group(&self) -> io::Result<bool> {
        let (mut offset, mut bytes) = (0, vec![0; PIECE]);
        while offset < self.head.ring_bytes {
            let length = (self.head.ring_bytes - offset).min(PIECE as u64);
            let piece = &mut bytes[..usize::try_from(length).unwrap_or_default()];
            self.file.read_exact_at(piece, BLOCK + offset)?;
            let heads = piece.chunks(BLOCK as usize).filter_map(GroupHead::decode);
            if heads.into_iter().any(|head| head.id == self.head.id && head.number > self.next.0) {
                return Ok(true);
            }
            offset += length;
        }
        Ok(false)
    }

    /// The number of the journal.
    #[must_use]
    pub fn id(&self) -> JournalId {
        self.head.id
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the ring in bytes.
    #[must_use]
    pub fn ring_bytes(&self) -> u64 {
        self.head.ring_bytes
    }

    /// The groups that are needed, in their order.
    pub fn groups(&self) -> impl Iterator<Item = GroupPosition> {
        self.groups.iter().copied()
    }

    /// Reads a group for [`entries_of`](super::entries_of).
    ///
    /// # Errors
    /// [`JournalError::Unusable`], and [`JournalError::Damaged`] if it is no longer what it was.
    pub fn read_group(&self, place: GroupPosition) -> Result<Vec<u8>, JournalError> {
        let mut bytes = Vec::new();
        let read = self.read_at(place.offset, &mut bytes);
        let read = read.map_err(|source| JournalError::Unusable { path: self.path.clone(), source })?;
        match read.filter(|head| head.number == place.number) {
            Some(_) => Ok(bytes),
            None => {
                let detail = format!("group {} cannot be read again", place.number);
                Err(JournalError::Damaged { path: self.path.clone(), detail })
            }
        }
    }

    /// Writes a group of this many entries, and makes it durable. Returns its number and that of
    /// its first entry.
    ///
    /// # Errors
    /// If there is no room for it, or a write or the flush fails. The journal must not be written
    /// any more then: nobody knows what is on the disk, and the kernel reports a failed flush once.
    /// The same holds if the file has lost its name, since no start would read it.
    pub fn write(&mut self, group: &mut JournalGroup, entries: u64) -> io::Result<(u64, u64)> {
        let (number, first_entry) = (self.next.0, self.next_entry);
        let bytes = group.finish(self.head.id, number, first_entry);
        let length = bytes.len() as u64;
        let offset = self.room_for(length).ok_or(ErrorKind::StorageFull)?;
        self.file.write_all_at(bytes, BLOCK + offset)?;
        self.groups.push_back(GroupPosition { number, offset, length });
        self.next = (number + 1, offset + length);
        self.next_entry += entries;
        self.flush()?;
        self.check_name()?;
        Ok((number, first_entry))
    }

    fn check_name(&self) -> io::Result<()> {
        let (ours, named) = (self.file.metadata()?, fs::metadata(&self.path)?);
        if (ours.dev(), ours.ino()) != (named.dev(), named.ino()) {
            return Err(io::Error::other("another file has its name"));
        }
        Ok(())
    }

    /// Offset in the ring where a group of this length can lie.
    fn room_for(&self, length: u64) -> Option<u64> {
        let (next, end) = (self.next.1, self.head.ring_bytes);
        let fits = |from: u64, to: u64| (from.checked_add(length)? <= to).then_some(from);
        match self.groups.front() {
            None => fits(next, end).or_else(|| fits(0, end)),
            Some(first) if first.offset < next => fits(next, end).or_else(|| fits(0, first.offset)),
            Some(first) => fits(next, first.offset),
        }
    }

    /// Notes that no group up to this one is needed any more. Their room is used again after the
    /// next flush.
    pub fn release(&mut self, number: u64) {
        self.needed = self.needed.max((number + 1).min(self.next.0));
    }

    /// Makes durable what was written and released.
    ///
    /// # Errors
    /// As [`Self::write`] does.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.needed > self.head.first_needed {
            let first = self.groups.iter().find(|group| group.number == self.needed);
            let offset = first.map_or(self.next.1, |group| group.offset);
            let head = JournalHead { first_needed: self.needed, offset, ..self.head.clone() };
            self.file.write_all_at(&head.encode(), 0)?;
            self.head = head;
        }
        self.file.sync_data()?;
        // Not before: the head on the disk names these groups as needed.
        while self.groups.front().is_some_and(|group| group.number < self.needed) {
            self.groups.pop_front();
        }
        Ok(())
    }

    /// Begins anew with another id, so that nothing in the ring counts any more. Call it when all
    /// objects of the journal are durable in their places, and their rows in the index.
    ///
    /// # Errors
    /// [`JournalError::Unusable`] if that cannot be made durable.
    pub fn reset(&mut self) -> Result<(), JournalError> {
        let unusable = |source| JournalError::Unusable { path: self.path.clone(), source };
        let id = JournalId::random().ok_or_else(|| unusable(ErrorKind::Other.into()))?;
        let head = JournalHead { id, first_needed: 1, offset: 0, ..self.head.clone() };
        let written = self.file.write_all_at(&head.encode(), 0).and_then(|()| self.file.sync_data());
        written.map_err(unusable)?;
        let file = self.file.try_clone().map_err(unusable)?;
        *self = Self::at_start(&self.path, file, head);
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(NO_FOLLOW).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::super::format::{JournalEntry, entries_of};
    use super::*;

    const INDEX: &str = "an index";

    fn group(objects: &[&[u8]]) -> JournalGroup {
        let mut group = JournalGroup::default();
        for object in objects {
            let address = Some([10, 0, 0, 1].into());
            group.push(&JournalEntry { name_number: 1, calling_ae_title: "CT", address, object });
        }
        group
    }

    fn open(path: &Path) -> ArrivalJournal {
        ArrivalJournal::open(path, INDEX).unwrap().unwrap()
    }

    /// The objects that a start finds, with their numbers.
    fn found(path: &Path) -> Vec<(u64, Vec<u8>)> {
        let journal = open(path);
        let groups: Vec<_> = journal.groups().map(|place| journal.read_group(place).unwrap()).collect();
        let entries = groups.iter().flat_map(|group| entries_of(group)).map(Option::unwrap);
        entries.map(|(number, entry)| (number, entry.object.to_vec())).collect()
    }

    fn damage_of(path: &Path) -> String {
        match ArrivalJournal::open(path, INDEX) {
            Err(error @ (JournalError::Damaged { .. } | JournalError::OtherVersion { .. })) => error.to_string(),
            other => panic!("no damage: {other:?}"),
        }
    }

    #[test]
    fn a_start_finds_what_was_written_and_not_released() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join(".journal");
        assert!(ArrivalJournal::open(&path, INDEX).unwrap().is_none());
        let mut journal = ArrivalJournal::create(&path, 1 << 20, INDEX).unwrap();
        assert_eq!(journal.write(&mut group(&[b"one", b"two"]), 2).unwrap(), (1, 1));
        assert_eq!(journal.write(&mut group(&[b"three"]), 1).unwrap(), (2, 3));
        let numbered = |objects: &[(u64, &[u8])]| objects.iter().map(|(n, o)| (*n, o.to_vec())).collect::<Vec<_>>();
        assert_eq!(found(&path), numbered(&[(1, b"one"), (2, b"two"), (3, b"three")]));
        let bytes = journal.read_group(journal.groups().next().unwrap()).unwrap();
        let (_, entry) = entries_of(&bytes).next().unwrap().unwrap();
        assert_eq!((entry.name_number, entry.calling_ae_title), (1, "CT"));
        assert_eq!(entry.address, Some([10, 0, 0, 1].into()));
        journal.release(1);
        journal.flush().unwrap();
        assert_eq!(found(&path), numbered(&[(3, b"three")]));
        let id = journal.id();
        journal.reset().unwrap();
        assert_ne!(journal.id(), id);
        assert_eq!(found(&path), []);
        assert_eq!(journal.write(&mut group(&[b"four"]), 1).unwrap(), (1, 1));
        assert_eq!(found(&path), numbered(&[(1, b"four")]));
    }

    /// Of the blocks that a write changes, a power cut may leave any on the disk.
    #[test]
    fn a_write_that_a_power_cut_tears_was_made_or_not_and_harms_no_other() {
        let directory = TempDir::new().unwrap();
        let (path, torn) = (directory.path().join("whole"), directory.path().join("torn"));
        let mut journal = ArrivalJournal::create(&path, 12 * BLOCK, INDEX).unwrap();
        let mut kept: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
        let (mut seed, mut made) = (7_u64, 0);
        for _ in 0..150 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let object = vec![(seed >> 56) as u8; usize::try_from(seed >> 33).unwrap() % 14_000];
            let before = (fs::read(&path).unwrap(), kept.clone());
            match journal.write(&mut group(&[&object]), 1) {
                Ok((_, number)) => kept.push_back((number, object)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::StorageFull);
                    let (number, _) = kept.pop_front().unwrap();
                    journal.release(number);
                    journal.flush().unwrap();
                }
            }
            // The next write makes this durable.
            if kept.len() > 1 && seed.is_multiple_of(2) {
                let (number, _) = kept.pop_front().unwrap();
                journal.release(number);
            }
            if kept.len() > 2 && seed.is_multiple_of(5) {
                journal.flush().unwrap();
            }
            let after = fs::read(&path).unwrap();
            let block = BLOCK as usize;
            let changed: Vec<usize> = (0..after.len())
                .step_by(block)
                .filter(|&at| before.0[at..at + block] != after[at..at + block])
                .collect();
            made += usize::from(changed.len() > 1);
            for subset in 0..1_usize << changed.len() {
                let mut image = before.0.clone();
                for (_, &at) in changed.iter().enumerate().filter(|(place, _)| subset >> place & 1 == 1) {
                    image[at..at + block].copy_from_slice(&after[at..at + block]);
                }
                fs::write(&torn, image).unwrap();
                let found = found(&torn);
                let last = found.last().map_or(0, |(number, _)| *number);
                // Whatever was acknowledged before and is still needed is there.
                assert!(kept.iter().filter(|(n, _)| *n <= last).all(|entry| found.contains(entry)), "{found:?}");
                let acknowledged = before.1.iter().filter(|entry| kept.contains(entry));
                assert!(acknowledged.into_iter().all(|entry| found.contains(entry)));
            }
        }
        assert!(made > 20, "{made} writes of several blocks");
    }

    #[test]
    fn a_group_that_cannot_be_read_is_damage_unless_it_is_the_last() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join(".journal");
        let mut journal = ArrivalJournal::create(&path, 1 << 20, INDEX).unwrap();
        for object in [b"one", b"two"] {
            journal.write(&mut group(&[object]), 1).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        let with = |at: u64| {
            let mut bytes = whole.clone();
            bytes[usize::try_from(at).unwrap()] ^= 1;
            fs::write(&path, bytes).unwrap();
        };
        with(2 * BLOCK + 70);
        assert_eq!(found(&path), [(1, b"one".to_vec())]);
        for at in [BLOCK, BLOCK + 16, BLOCK + 40, BLOCK + 70] {
            with(at);
            let message = damage_of(&path);
            assert!(message.contains("group 1 cannot be read") && message.contains(".journal"), "{message}");
        }
    }

    #[test]
    fn a_file_that_is_no_journal_of_this_index_is_refused_by_its_name() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join(".journal");
        ArrivalJournal::create(&path, 1 << 20, INDEX).unwrap();
        let whole = fs::read(&path).unwrap();
        assert!(matches!(ArrivalJournal::open(&path, "another"), Err(JournalError::Foreign { .. })));
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = whole.clone();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
            damage_of(&path)
        };
        assert!(with(&|bytes| bytes[8] = 2).contains("has version 2"));
        assert!(with(&|bytes| bytes[0] = 0).contains("does not begin"));
        assert!(with(&|bytes| bytes[30] ^= 1).contains("checksum"));
        assert!(with(&|bytes| bytes.truncate(9000)).contains("length"));
        assert!(with(&|bytes| bytes.truncate(100)).contains("too short"));
    }

    #[test]
    fn room_is_used_again_only_when_its_release_is_durable() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join(".journal");
        let mut journal = ArrivalJournal::create(&path, 4 * BLOCK, INDEX).unwrap();
        let full = |journal: &mut ArrivalJournal| {
            journal.write(&mut group(&[b"x"]), 1).is_err_and(|error| error.kind() == ErrorKind::StorageFull)
        };
        for _ in 0..4 {
            journal.write(&mut group(&[b"x"]), 1).unwrap();
        }
        assert!(full(&mut journal));
        journal.release(2);
        assert!(full(&mut journal));
        journal.flush().unwrap();
        journal.write(&mut group(&[b"y"]), 1).unwrap();
        journal.write(&mut group(&[b"y"]), 1).unwrap();
        assert!(full(&mut journal));
        assert_eq!(found(&path).len(), 4);
    }
}
