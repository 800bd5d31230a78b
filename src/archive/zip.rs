//! Reads zip archives (PKWARE APPNOTE 6.3). It reads the central directory as a stream of entries.
//! If there is none or it cannot be reached, it reads the local headers.

use std::io::BufRead as _;

use super::problem::ArchiveProblem;
use super::range::{FileRange, RangeReader, SkipRead, fill};

/// Compression methods.
pub(crate) const STORED: u16 = 0;
pub(crate) const DEFLATED: u16 = 8;

const LOCAL: &[u8; 4] = b"PK\x03\x04";
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
const END: &[u8; 4] = b"PK\x05\x06";
const END_64: &[u8; 4] = b"PK\x06\x06";
const END_64_LOCATOR: &[u8; 4] = b"PK\x06\x07";
const DESCRIPTOR: &[u8; 4] = b"PK\x07\x08";

/// Length of a local header without name and extra fields.
pub(crate) const LOCAL_HEADER: usize = 30;

/// Bytes of the first read for one entry of the directory. Most names are short.
const FEW: usize = 512;

/// The longest end-of-central-directory record, with the longest comment.
const MAX_END: u64 = 22 + 65_535;

/// Maximum positions to try for the end of one archive. The comment may hold the signature, but not
/// so often.
const MAX_TRIES: usize = 32;

/// Bytes to search before the zip64 locator for its record, if the record is not where the locator
/// says.
const MAX_END_64: u64 = 4096;

/// Length of a zip64 locator.
const LOCATOR: usize = 20;

/// Length of the zip64 end record without extension, and the part of it that its own length field
/// leaves out.
const END_64_LENGTH: usize = 56;
const END_64_UNCOUNTED: u64 = 12;

/// Flag bit: the member is encrypted.
const ENCRYPTED: u16 = 1;
/// Flag bit: sizes and checksum follow the data.
const DESCRIBED_AFTER: u16 = 1 << 3;

/// A member, from its entry in the central directory or from its local header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ZipEntry {
    pub(crate) name: Vec<u8>,
    flags: u16,
    pub(crate) method: u16,
    pub(crate) checksum: u32,
    pub(crate) compressed: u64,
    pub(crate) size: u64,
    /// Offset of its local header from the start of the archive.
    pub(crate) local: u64,
}

impl ZipEntry {
    pub(crate) fn is_directory(&self) -> bool {
        // Some Windows tools end the names of directories with a backslash.
        matches!(self.name.last(), Some(b'/')) || (self.size == 0 && matches!(self.name.last(), Some(b'\\')))
    }

    /// Fails if the bytes of the member cannot be read at all.
    pub(crate) fn check(&self) -> Result<(), ArchiveProblem> {
        if self.flags & ENCRYPTED != 0 {
            return Err(ArchiveProblem::Encrypted);
        }
        match self.method {
            STORED if self.size != self.compressed && !self.is_described_after() => {
                Err(ArchiveProblem::Damaged("a stored member with two sizes"))
            }
            STORED | DEFLATED => Ok(()),
            method => Err(ArchiveProblem::Method(method)),
        }
    }

    /// Whether a data descriptor with sizes and checksum follows the data. Only for local headers.
    pub(crate) fn has_descriptor(&self) -> bool {
        self.flags & DESCRIBED_AFTER != 0
    }

    /// Whether only the data descriptor has the sizes and the checksum. Only for local headers.
    pub(crate) fn is_described_after(&self) -> bool {
        // A directory has no data, unless a deflate stream marks the end of nothing.
        let has_data = self.method == DEFLATED || !self.is_directory();
        self.flags & DESCRIBED_AFTER != 0 && self.compressed == 0 && self.size == 0 && has_data
    }
}

/// The central directory, read entry by entry. It is never in memory as a whole.
#[derive(Debug)]
pub(crate) struct CentralDirectory {
    /// The part of the archive with its members.
    pub(crate) members: MemberArea,
    entries: RangeReader,
    /// Number of entries that the archive states, and number of entries read.
    declared: u64,
    read: u64,
    /// The fault that the next call of [`Self::next`] returns.
    fault: Option<ArchiveProblem>,
}

impl CentralDirectory {
    /// Finds the central directory of the archive in `range`. `None` if there is none.
    pub(crate) fn find(range: &FileRange) -> Result<Option<Self>, ArchiveProblem> {
        let tail_start = range.length().saturating_sub(MAX_END);
        let mut tail = vec![0; usize::try_from(range.length() - tail_start).unwrap_or(0)];
        let read = range.read_at(&mut tail, tail_start)?;
        tail.truncate(read);
        // The search begins at the end, since the comment could hold the signature. Bytes after the
        // archive are ignored.
        let mut failure = None;
        for at in memchr::memmem::rfind_iter(&tail, END).take(MAX_TRIES) {
            let Some(end) = tail.get(at..).and_then(|end| end.first_chunk::<22>()) else { continue };
            if usize::from(u16_at(end, 20)) + at + 22 > tail.len() {
                continue;
            }
            let ends = tail_start + at as u64;
            let before = at.checked_sub(LOCATOR).and_then(|at| tail.get(at..)).and_then(|tail| tail.first_chunk());
            let locator = match (before, ends.checked_sub(LOCATOR as u64)) {
                (Some(locator), _) => *locator,
                (None, Some(at)) => range.exact(at)?,
                (None, None) => [0; LOCATOR],
            };
            match Self::ending(range, end, ends, &locator) {
                Ok(directory) => return Ok(Some(directory)),
                // A system error says nothing about the archive.
                Err(problem @ ArchiveProblem::Io(_)) => return Err(problem),
                Err(problem) => {
                    failure.get_or_insert(problem);
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Opens the directory that ends at `ends`. A zip64 locator may lie before the end record.
    fn ending(range: &FileRange, end: &[u8; 22], ends: u64, locator: &[u8; LOCATOR]) -> Result<Self, ArchiveProblem> {
        let plain = EndRecord {
            disk: u32::from(u16_at(end, 4)),
            declared: u64::from(u16_at(end, 10)),
            length: u64::from(u32_at(end, 12)),
            offset: u64::from(u32_at(end, 16)),
            ends,
        };
        let is_saturated = plain.declared == 0xFFFF || plain.length == 0xFFFF_FFFF || plain.offset == 0xFFFF_FFFF;
        // APPNOTE 4.3.15: a locator means that there is a zip64 end record. Writers to a pipe add
        // one even if all numbers fit.
        match plain.zip64(range, locator)? {
            Zip64::EndRecord(wide) => {
                let opened = Self::open(range, &wide);
                if is_saturated || opened.is_ok() { opened } else { Self::open(range, &plain).or(opened) }
            }
            Zip64::Lost if is_saturated => {
                Err(ArchiveProblem::Damaged("its zip64 directory is not where it should be"))
            }
            // The locator's signature may be part of something else. The archive may have exactly
            // 65,535 members.
            Zip64::Lost | Zip64::None => Self::open(range, &plain),
        }
    }

    fn open(range: &FileRange, found: &EndRecord) -> Result<Self, ArchiveProblem> {
        if !matches!(found.disk, 0 | 0xFFFF | 0xFFFF_FFFF) {
            return Err(ArchiveProblem::MultiVolume);
        }
        let (begins, moved, entries) = found.place(range)?;
        let archive = range.length().checked_sub(moved).and_then(|length| range.part(moved, length));
        let archive = archive.ok_or(ArchiveProblem::Damaged("its directory of members lies outside of it"))?;
        let members = MemberArea { archive, begins: begins - moved };
        Ok(Self { members, entries, declared: found.declared, read: 0, fault: None })
    }

    /// The next member. `None` after the last one.
    pub(crate) fn next(&mut self) -> Result<Option<ZipEntry>, ArchiveProblem> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let mut fixed = [0; 46];
        match fill(&mut self.entries, &mut fixed)? {
            46 if fixed.starts_with(CENTRAL) => {}
            // Digital signatures may follow the entries.
            _ if self.read >= self.declared => return Ok(None),
            _ => return Err(ArchiveProblem::Damaged("its directory of members ends too early")),
        }
        self.read += 1;
        rest_of_entry(&mut self.entries, &fixed).map(Some)
    }

    /// Makes [`Self::next`] return this fault again. Reading on would be wrong: the bytes after a
    /// fault could look like a member.
    pub(crate) fn put_back(&mut self, fault: ArchiveProblem) {
        self.fault = Some(fault);
    }

    /// Position of the next entry in the directory.
    pub(crate) fn position(&self) -> u64 {
        self.entries.position()
    }

    /// The member whose entry is at `position` in the directory.
    pub(crate) fn at(&self, position: u64) -> Result<ZipEntry, ArchiveProblem> {
        let mut entries = RangeReader::at(self.entries.whole(), position, FEW)?;
        let mut fixed = [0; 46];
        if fill(&mut entries, &mut fixed)? < fixed.len() || !fixed.starts_with(CENTRAL) {
            return Err(ArchiveProblem::Damaged("its directory of members has changed"));
        }
        rest_of_entry(&mut entries, &fixed)
    }
}

/// Reads what follows the first 46 bytes of a directory entry.
fn rest_of_entry(entries: &mut RangeReader, fixed: &[u8; 46]) -> Result<ZipEntry, ArchiveProblem> {
    let mut entry = ZipEntry {
        name: Vec::new(),
        flags: u16_at(fixed, 8),
        method: u16_at(fixed, 10),
        checksum: u32_at(fixed, 16),
        compressed: u64::from(u32_at(fixed, 20)),
        size: u64::from(u32_at(fixed, 24)),
        local: u64::from(u32_at(fixed, 42)),
    };
    // Each length has 16 bits, so all three need at most 192 KiB.
    let lengths = [28, 30, 32].map(|at| usize::from(u16_at(fixed, at)));
    let [name, extra, comment] = lengths.map(|length| vec![0; length]);
    let mut variable = [name, extra, comment];
    for bytes in &mut variable {
        if fill(entries, bytes)? < bytes.len() {
            return Err(ArchiveProblem::Damaged("its directory of members ends too early"));
        }
    }
    let [name, extra, _comment] = variable;
    entry.name = name;
    zip64_extra(&extra, [&mut entry.size, &mut entry.compressed, &mut entry.local]);
    // The flag describes the local header. The directory entry has the sizes.
    entry.flags &= !DESCRIBED_AFTER;
    Ok(entry)
}

/// The part of an archive with its members.
#[derive(Clone, Debug)]
pub(crate) struct MemberArea {
    /// The whole archive. Offsets in the archive count from its first byte.
    archive: FileRange,
    /// Start of the central directory. The members lie before it.
    begins: u64,
}

impl MemberArea {
    /// Number of bytes that the members can occupy.
    pub(crate) fn bytes(&self) -> u64 {
        self.begins
    }

    /// The bytes of a member. One read fills `buffer` with its local header and its first bytes.
    /// The numbers are the bytes in `buffer` and where the member's bytes begin in it.
    pub(crate) fn data(
        &self,
        entry: &ZipEntry,
        buffer: &mut [u8],
    ) -> Result<(FileRange, usize, usize), ArchiveProblem> {
        let outside = ArchiveProblem::Damaged("a member lies outside of it");
        if entry.local >= self.begins {
            return Err(outside);
        }
        let left = usize::try_from(self.begins - entry.local).unwrap_or(usize::MAX);
        // Read no more than the member can have. With many small members, a longer read would read
        // the next one too.
        let wanted = usize::try_from(entry.compressed).unwrap_or(usize::MAX).saturating_add(LOCAL_HEADER + 256);
        let length = buffer.len().min(left).min(wanted);
        let read = self.archive.read_at(buffer.get_mut(..length).unwrap_or_default(), entry.local)?;
        let Some(header) = buffer.get(..read).and_then(|read| read.first_chunk::<LOCAL_HEADER>()) else {
            return Err(ArchiveProblem::Truncated);
        };
        if !header.starts_with(LOCAL) {
            return Err(ArchiveProblem::Damaged("a member is not where the directory says"));
        }
        let skip = LOCAL_HEADER + usize::from(u16_at(header, 26)) + usize::from(u16_at(header, 28));
        let start = entry.local.checked_add(skip as u64);
        let end = start.and_then(|start| start.checked_add(entry.compressed));
        match (start, end) {
            (Some(start), Some(end)) if end <= self.begins => {
                let range = self.archive.part(start, entry.compressed).ok_or(outside)?;
                // Bytes past its end belong to the next member.
                let held = usize::try_from(entry.compressed).unwrap_or(usize::MAX).saturating_add(skip).min(read);
                Ok((range, skip.min(held), held))
            }
            _ => Err(outside),
        }
    }
}

/// The content of an end-of-central-directory record.
struct EndRecord {
    disk: u32,
    declared: u64,
    length: u64,
    offset: u64,
    /// End of the central directory, counted in the range.
    ends: u64,
}

/// The result of following a zip64 locator.
enum Zip64 {
    EndRecord(EndRecord),
    /// There is no locator.
    None,
    /// There is a locator, and no end record where it points.
    Lost,
}

impl EndRecord {
    /// Finds the zip64 end record before this end record.
    fn zip64(&self, range: &FileRange, locator: &[u8; LOCATOR]) -> Result<Zip64, ArchiveProblem> {
        let Some(locator_at) = self.ends.checked_sub(LOCATOR as u64) else { return Ok(Zip64::None) };
        if !locator.starts_with(END_64_LOCATOR) {
            return Ok(Zip64::None);
        }
        if let Some(found) = Self::wide(range, u64_at(locator, 8), locator_at) {
            return Ok(Zip64::EndRecord(found));
        }
        // Bytes before the archive have moved it. The record ends where the locator begins.
        let start = locator_at.saturating_sub(MAX_END_64);
        let mut before = vec![0; usize::try_from(locator_at - start).unwrap_or(0)];
        let read = range.read_at(&mut before, start)?;
        before.truncate(read);
        let mut places = memchr::memmem::rfind_iter(&before, END_64).map(|at| start + at as u64);
        let found = places.find_map(|at| {
            let length = range.exact::<END_64_LENGTH>(at).ok().map(|end| u64_at(&end, 4))?;
            let is_before = at.checked_add(END_64_UNCOUNTED)?.checked_add(length)? == locator_at;
            if is_before { Self::wide(range, at, locator_at) } else { None }
        });
        Ok(found.map_or(Zip64::Lost, Zip64::EndRecord))
    }

    /// The zip64 end record at position `at`, before its locator.
    fn wide(range: &FileRange, at: u64, locator_at: u64) -> Option<Self> {
        if at.checked_add(END_64_LENGTH as u64)? > locator_at {
            return None;
        }
        let end = range.exact::<END_64_LENGTH>(at).ok()?;
        end.starts_with(END_64).then(|| Self {
            disk: u32_at(&end, 16),
            declared: u64_at(&end, 32),
            length: u64_at(&end, 40),
            offset: u64_at(&end, 48),
            ends: at,
        })
    }

    /// Finds the start of the directory. Also returns how many bytes precede the archive (such as a
    /// self-extracting program), and a reader of the entries.
    fn place(&self, range: &FileRange) -> Result<(u64, u64, RangeReader), ArchiveProblem> {
        // The directory usually ends directly before the end record, and other readers look there
        // first. If something lies between, its offset says where it begins.
        let before = self.ends.checked_sub(self.length);
        let before = before.and_then(|begins| Some((begins, begins.checked_sub(self.offset)?)));
        let stated = self.offset.checked_add(self.length).filter(|&after| after <= self.ends).map(|_| (self.offset, 0));
        let mut likely = None;
        for (begins, moved) in [before, stated.filter(|stated| Some(*stated) != before)].into_iter().flatten() {
            let Some(entries) = range.part(begins, self.length) else { continue };
            let mut entries = RangeReader::new(entries);
            let first = entries.fill_buf()?;
            if self.length > 0 && !first.starts_with(CENTRAL) {
                continue;
            }
            let is_sure = moved == 0 || Self::leads_to_member(range, first, moved)?;
            let found = (begins, moved, entries);
            if is_sure {
                return Ok(found);
            }
            likely.get_or_insert(found);
        }
        // A fault of the first member affects only that member.
        likely.ok_or(ArchiveProblem::Damaged("its directory of members is not where it should be"))
    }

    /// Whether a local header lies where the first entry of a directory says.
    fn leads_to_member(range: &FileRange, first: &[u8], moved: u64) -> Result<bool, ArchiveProblem> {
        let Some(local) = first.get(42..46) else { return Ok(false) };
        let Some(at) = moved.checked_add(u64::from(u32_at(local, 0))) else { return Ok(false) };
        let mut header = [0; 4];
        let read = range.read_at(&mut header, at)?;
        Ok(read == header.len() && &header == LOCAL)
    }
}

/// Takes the 64-bit numbers from the zip64 extra field. It holds only those whose 32-bit field is
/// all ones, in this order.
fn zip64_extra(extra: &[u8], numbers: [&mut u64; 3]) {
    let mut rest = extra;
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16_at(head, 2));
        let (field, next) = after.split_at(length.min(after.len()));
        rest = next;
        if u16_at(head, 0) != 1 {
            continue;
        }
        let mut wide = field.chunks_exact(8).filter_map(|chunk| chunk.first_chunk::<8>());
        for number in numbers {
            if *number == 0xFFFF_FFFF
                && let Some(wide) = wide.next()
            {
                *number = u64::from_le_bytes(*wide);
            }
        }
        return;
    }
}

/// The local header at the current position. `None` if no member follows.
pub(crate) fn next_local(source: &mut (dyn SkipRead + '_)) -> Result<Option<ZipEntry>, ArchiveProblem> {
    let mut signature = [0; 4];
    let read = fill(source, &mut signature)?;
    match &signature {
        LOCAL => {}
        CENTRAL | END | END_64 if read == 4 => return Ok(None),
        _ if read < 4 => return Err(ArchiveProblem::Truncated),
        _ => return Err(ArchiveProblem::Damaged("no member where one should be")),
    }
    let mut fixed = [0; LOCAL_HEADER];
    if fill(source, &mut fixed[4..])? < LOCAL_HEADER - 4 {
        return Err(ArchiveProblem::Truncated);
    }
    let mut entry = ZipEntry {
        name: vec![0; usize::from(u16_at(&fixed, 26))],
        flags: u16_at(&fixed, 6),
        method: u16_at(&fixed, 8),
        checksum: u32_at(&fixed, 14),
        compressed: u64::from(u32_at(&fixed, 18)),
        size: u64::from(u32_at(&fixed, 22)),
        local: 0,
    };
    let mut extra = vec![0; usize::from(u16_at(&fixed, 28))];
    if fill(source, &mut entry.name)? < entry.name.len() || fill(source, &mut extra)? < extra.len() {
        return Err(ArchiveProblem::Truncated);
    }
    zip64_extra(&extra, [&mut entry.size, &mut entry.compressed, &mut 0]);
    Ok(Some(entry))
}

/// Skips the data descriptor of a member. It may have a signature or not, and sizes of 4 or 8
/// bytes. The next signature shows which.
pub(crate) fn pass_descriptor(source: &mut (dyn SkipRead + '_)) -> Result<(), ArchiveProblem> {
    let mut bytes = [0; 24];
    let mut length = 0;
    for least in [12, 16, 20, 24] {
        if fill(source, &mut bytes[length..least])? < least - length {
            return Err(ArchiveProblem::Truncated);
        }
        length = least;
        let with_signature = bytes.starts_with(DESCRIPTOR);
        if with_signature == matches!(length, 16 | 24) && begins_signature(source)? {
            return Ok(());
        }
    }
    Err(ArchiveProblem::Damaged("no member where one should be"))
}

fn begins_signature(source: &mut (dyn SkipRead + '_)) -> Result<bool, ArchiveProblem> {
    let next = source.fill_buf()?;
    // The buffer may end within the signature, so a prefix of it is enough.
    Ok([LOCAL, CENTRAL].iter().any(|signature| !next.is_empty() && signature.iter().zip(next).all(|(a, b)| a == b)))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk::<2>()).map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk::<8>()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
