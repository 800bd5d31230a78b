//! Visits all members of an archive file.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;

use crossbeam_channel::{Receiver, Sender, bounded};
use flate2::Decompress;

use super::adapters::{Limited, Peeked, Streamed};
use super::gzip::GzipContent;
use super::inflate::{Budget, Inflate, Metered};
use super::limits::{MAX_MEMBERS, MAX_NAME, MAX_NESTING, inflated_limit};
use super::problem::ArchiveProblem;
use super::range::{FileRange, OnRead, RangeReader, SkipRead};
use super::tar::{self, EntryKind};
use super::zip::{self, CentralDirectory, MemberArea};
use super::{ArchiveKind, KIND_BYTES, MemberBytes, name};

/// Members of a zip archive that one thread reads at a time.
const CHUNK: usize = 256;

/// Bytes of the first read of a member, with its local header. The same as for a file.
const FIRST_READ: usize = (8 << 10) + 256;

/// Bytes to inflate at a time when only the header of a member is needed.
const INFLATE_STEP: usize = 4 << 10;

/// Bytes to inflate at a time when all of a member is needed.
const STREAM_BUFFER: usize = 64 << 10;

/// The maximum ratio of inflated to deflated bytes.
const MAX_DEFLATION: u64 = 1_032;

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path in the archive file: the names of the archives and its own, joined by `!/`. If
    /// several members have this name, the path ends in a number, `!/!/2` for the second.
    pub path: Vec<u8>,
    /// Its number among the members of its name, from 1. The last of them is the file that
    /// unpacking would leave.
    pub occurrence: u32,
    /// Its size as the archive states it. In [`MemberSink::action_for`] it is `None` if the size
    /// follows the data. In [`MemberSink::read`] it is `None` only if it is unknown and not needed.
    pub size: Option<u64>,
    /// Its type.
    pub kind: MemberKind,
    /// Length of its path without the number.
    plain: usize,
}

impl Member {
    /// Its path without the number that separates members of the same name.
    #[must_use]
    pub fn plain_path(&self) -> &[u8] {
        self.path.get(..self.plain).unwrap_or(&self.path)
    }
}

/// The type of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A file.
    File,
    /// The content of the archive file itself, a gzip file around one file.
    SingleFile,
    /// A hard or symbolic link.
    Link,
    /// A device or a FIFO.
    Special,
}

/// Action of the walk for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberAction {
    /// Reads it.
    Read,
    /// Skips it.
    Skip,
    /// Ends the walk.
    Stop,
}

/// Receives the members. Their order depends only on the archive.
pub trait MemberSink<T> {
    /// Decides what to do with a member that can be read.
    fn action_for(&mut self, member: &Member) -> MemberAction;

    /// Whether a member with this value replaces earlier members of the same name.
    fn replaces(&self, value: &T) -> bool;

    /// Whether the size of a member with this value is needed. The walk may have to inflate all of
    /// the member for it.
    fn needs_size(&self, value: &T) -> bool;

    /// Receives a file that a later member of the same name replaces. Nested archives and their
    /// members stay. [`ControlFlow::Break`] ends the walk.
    fn replaced(&mut self, path: Vec<u8>) -> ControlFlow<()>;

    /// Receives the value that reading a member gave. [`ControlFlow::Break`] ends the walk.
    fn read(&mut self, member: Member, value: T) -> ControlFlow<()>;

    /// Receives a member or a nested archive that cannot be read. [`ControlFlow::Break`] ends the
    /// walk.
    fn refused(&mut self, path: Vec<u8>, problem: ArchiveProblem) -> ControlFlow<()>;
}

/// Reads as much of a member as it needs, and gets its size where the archive says it. Several
/// threads call it.
pub type ReadMember<'a, T> = &'a (dyn Fn(&mut dyn MemberBytes, Option<u64>) -> T + Sync);

/// Visits the members of an archive file. `threads` threads read a large zip archive. `on_read` is
/// called after each read of the file.
///
/// A member that could be either an object or a nested archive is treated as an object.
///
/// # Errors
/// A fault of the archive as a whole. The sink has received the members before it.
pub fn walk<T: Send>(
    file: File,
    file_name: &OsStr,
    kind: ArchiveKind,
    threads: usize,
    on_read: OnRead,
    read: ReadMember<'_, T>,
    sink: &mut dyn MemberSink<T>,
) -> Result<(), ArchiveProblem> {
    let range = FileRange::whole(file, on_read)?;
    let budget = Budget::new(inflated_limit(range.length()));
    let mut walk = ArchiveWalk {
        sink,
        read,
        budget,
        threads,
        members: 0,
        seen: HashSet::new(),
        again: HashMap::new(),
        no_files: HashSet::new(),
        hasher: RandomState::new(),
        scratch: Scratch::default(),
    };
    match walk.archive(ArchiveBytes::Range(range), kind, &[], file_name.as_bytes(), 1) {
        Ok(()) | Err(Halt::Stopped) => Ok(()),
        Err(Halt::Problem(problem) | Halt::Everything(problem)) => Err(problem),
    }
}

/// Reason why the walk left an archive before its end.
enum Halt {
    /// The sink ended the walk.
    Stopped,
    /// This archive cannot be read further. The archive around it can.
    Problem(ArchiveProblem),
    /// The archive file as a whole reached a limit.
    Everything(ArchiveProblem),
}

impl From<ArchiveProblem> for Halt {
    fn from(problem: ArchiveProblem) -> Self {
        match problem {
            ArchiveProblem::Inflation | ArchiveProblem::TooManyMembers => Self::Everything(problem),
            problem => Self::Problem(problem),
        }
    }
}

impl From<std::io::Error> for Halt {
    fn from(error: std::io::Error) -> Self {
        ArchiveProblem::of(error).into()
    }
}

/// The bytes of an archive.
enum ArchiveBytes<'a> {
    Range(FileRange),
    Stream(&'a mut (dyn SkipRead + 'a)),
}

/// Contents of a member.
enum Leaf<T> {
    Read(T),
    Archive(ArchiveKind),
}

/// A member to read, or a member that cannot be read according to its archive.
enum Planned {
    Read(Member, zip::ZipEntry),
    Refused(Vec<u8>, ArchiveProblem),
}

/// The members of a name that occurs more than once.
struct Again {
    /// Number of members met.
    met: u32,
    /// Number of the member that counts: the last that could be read.
    stands: u32,
}

/// A member's name, checked and counted.
struct Met {
    path: Vec<u8>,
    /// Length of the path without the number of the occurrence.
    plain: usize,
    occurrence: u32,
    problem: Option<ArchiveProblem>,
}

impl Met {
    /// Makes the member. An error has its path and the problem with its name, or else `problem`.
    fn member(
        self,
        problem: Option<ArchiveProblem>,
        size: Option<u64>,
        kind: MemberKind,
    ) -> Result<Member, (Vec<u8>, ArchiveProblem)> {
        match self.problem.or(problem) {
            Some(problem) => Err((self.path, problem)),
            None => Ok(Member { path: self.path, occurrence: self.occurrence, size, kind, plain: self.plain }),
        }
    }
}

/// Buffers that a thread reuses for each member.
#[derive(Default)]
struct Scratch {
    buffer: Vec<u8>,
    inflater: Option<Decompress>,
}

struct ArchiveWalk<'a, T> {
    sink: &'a mut dyn MemberSink<T>,
    read: ReadMember<'a, T>,
    budget: Budget,
    threads: usize,
    members: u64,
    /// Hashes of the paths of the members met. Each archive gets a new random hasher, so nobody can
    /// prepare collisions.
    seen: HashSet<u64>,
    /// Names that were met more than once, by the hash of the path.
    again: HashMap<u64, Again>,
    /// Hashes of the paths of members that are archives, directories, links or devices.
    no_files: HashSet<u64>,
    hasher: RandomState,
    scratch: Scratch,
}

impl<T: Send> ArchiveWalk<'_, T> {
    /// Visits an archive. `path` is its path in the archive file, and empty for the file itself.
    /// `own_name` is the last name in the path.
    fn archive(
        &mut self,
        bytes: ArchiveBytes<'_>,
        kind: ArchiveKind,
        path: &[u8],
        own_name: &[u8],
        depth: usize,
    ) -> Result<(), Halt> {
        if depth > MAX_NESTING {
            return Err(ArchiveProblem::NestedTooDeep.into());
        }
        match (kind, bytes) {
            (ArchiveKind::Zip, ArchiveBytes::Range(range)) => match CentralDirectory::find(&range)? {
                Some(directory) => self.zip(directory, path, depth),
                None => {
                    // The archive is cut off, so its members are read from the start.
                    self.zip_stream(&mut RangeReader::new(range), path, depth)?;
                    Err(ArchiveProblem::Truncated.into())
                }
            },
            (ArchiveKind::Zip, ArchiveBytes::Stream(stream)) => self.zip_stream(stream, path, depth),
            (ArchiveKind::Tar, ArchiveBytes::Range(range)) => self.tar(&mut RangeReader::new(range), path, depth),
            (ArchiveKind::Tar, ArchiveBytes::Stream(stream)) => self.tar(stream, path, depth),
            (ArchiveKind::Gzip, ArchiveBytes::Range(range)) => {
                let size = gzip_size(&range);
                self.gzip(RangeReader::new(range), size, path, own_name, depth)
            }
            (ArchiveKind::Gzip, ArchiveBytes::Stream(stream)) => self.gzip(stream, None, path, own_name, depth),
        }
    }

    // --- members ---

    /// Counts a member of the archive at `archive`. Returns its path and its number among the
    /// members of its name.
    fn meet(&mut self, archive: &[u8], own_name: &[u8]) -> Result<Met, Halt> {
        self.members += 1;
        if self.members > MAX_MEMBERS {
            return Err(ArchiveProblem::TooManyMembers.into());
        }
        let path = name::join(archive, own_name);
        let plain = path.len();
        if own_name.is_empty() || plain > MAX_NAME || path.contains(&0) {
            return Ok(Met { path, plain, occurrence: 1, problem: Some(ArchiveProblem::Name) });
        }
        let hash = self.hasher.hash_one(path.as_slice());
        if self.seen.insert(hash) {
            return Ok(Met { path, plain, occurrence: 1, problem: None });
        }
        let again = self.again.entry(hash).or_insert(Again { met: 1, stands: 1 });
        again.met += 1;
        let path = name::again(&path, again.met);
        let problem = (path.len() > MAX_NAME).then_some(ArchiveProblem::Name);
        Ok(Met { path, plain, occurrence: again.met, problem })
    }

    /// Records that a member is no file.
    fn no_file(&mut self, path: &[u8]) {
        self.no_files.insert(self.hasher.hash_one(path));
    }

    fn action(&mut self, member: &Member) -> Result<MemberAction, Halt> {
        match self.sink.action_for(member) {
            MemberAction::Stop => Err(Halt::Stopped),
            action => Ok(action),
        }
    }

    fn refused(&mut self, path: Vec<u8>, problem: ArchiveProblem) -> Result<(), Halt> {
        match self.sink.refused(path, problem) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Halt::Stopped),
        }
    }

    fn done(&mut self, member: Member, value: T) -> Result<(), Halt> {
        if member.occurrence > 1 && self.sink.replaces(&value) {
            let hash = self.hasher.hash_one(member.plain_path());
            let stands = self.again.get_mut(&hash).map(|again| std::mem::replace(&mut again.stands, member.occurrence));
            for earlier in stands.unwrap_or(1)..member.occurrence {
                let path = name::again(member.plain_path(), earlier);
                if !self.no_files.contains(&self.hasher.hash_one(path.as_slice()))
                    && self.sink.replaced(path).is_break()
                {
                    return Err(Halt::Stopped);
                }
            }
        }
        match self.sink.read(member, value) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Halt::Stopped),
        }
    }

    /// Visits a nested archive. If it has a fault, the walk reports it and skips the rest of it.
    fn nested(
        &mut self,
        bytes: ArchiveBytes<'_>,
        kind: ArchiveKind,
        member: &Member,
        depth: usize,
    ) -> Result<(), Halt> {
        let path = member.path.as_slice();
        self.no_file(path);
        let own_name = member.plain_path().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        match self.archive(bytes, kind, path, own_name, depth + 1) {
            Err(Halt::Problem(problem)) => self.refused(path.to_vec(), problem),
            result => result,
        }
    }

    /// Reads a member of a tar archive that lies uncompressed in the file.
    fn leaf_in_range(&mut self, member: Member, range: FileRange, depth: usize) -> Result<(), Halt> {
        let mut buffer = std::mem::take(&mut self.scratch.buffer);
        let length = FIRST_READ.min(usize::try_from(range.length()).unwrap_or(usize::MAX));
        buffer.resize(length, 0);
        let held = range.read_at(&mut buffer, 0)?;
        buffer.truncate(held);
        let mut reader = RangeReader::begun(range.clone(), buffer, 0);
        match ArchiveKind::of(reader.held().get(..KIND_BYTES).unwrap_or(reader.held())) {
            Ok(None) => {
                let value = (self.read)(&mut reader, member.size);
                self.scratch.buffer = reader.into_buffer();
                self.done(member, value)
            }
            Ok(Some(kind)) => self.nested(ArchiveBytes::Range(range), kind, &member, depth),
            Err(problem) => self.refused(member.path, problem),
        }
    }

    /// Reads a member from a stream, to its end. Its value counts only if all its bytes are there.
    fn leaf_in_stream(
        &mut self,
        mut member: Member,
        source: &mut (dyn SkipRead + '_),
        depth: usize,
    ) -> Result<(), Halt> {
        let mut counted = CountingReader { source, bytes: 0 };
        let mut ahead = Peeked::fill(&mut counted, KIND_BYTES)?;
        match ArchiveKind::of(ahead.head()) {
            Ok(None) => {
                let value = (self.read)(&mut ahead, member.size);
                SkipRead::skip(&mut ahead, u64::MAX)?;
                match member.size {
                    Some(size) if counted.bytes < size => return Err(ArchiveProblem::Truncated.into()),
                    Some(_) => {}
                    None => member.size = Some(counted.bytes),
                }
                self.done(member, value)
            }
            Ok(Some(kind)) => {
                self.nested(ArchiveBytes::Stream(&mut ahead), kind, &member, depth)?;
                SkipRead::skip(&mut ahead, u64::MAX)?;
                match member.size {
                    Some(size) if counted.bytes < size => Err(ArchiveProblem::Truncated.into()),
                    Some(_) | None => Ok(()),
                }
            }
            Err(problem) => {
                SkipRead::skip(&mut ahead, u64::MAX)?;
                self.refused(member.path, problem)
            }
        }
    }

    // --- zip ---

    fn zip(&mut self, mut directory: CentralDirectory, path: &[u8], depth: usize) -> Result<(), Halt> {
        let mut budget = directory.members.bytes();
        let (first, ended) = self.plan(&mut directory, path, &mut budget)?;
        let members = directory.members.clone();
        if ended || self.threads < 2 {
            let mut chunk = (first, ended);
            loop {
                let (read, limit) = (self.read, self.budget.clone());
                let mut scratch = std::mem::take(&mut self.scratch);
                let leaves = read_chunk(&members, chunk.0, &mut scratch, read, &limit);
                self.scratch = scratch;
                self.take_chunk(leaves, &members, depth)?;
                if chunk.1 {
                    return Ok(());
                }
                chunk = self.plan(&mut directory, path, &mut budget)?;
            }
        }
        let (threads, read, limit) = (self.threads, self.read, self.budget.clone());
        std::thread::scope(|scope| {
            let (work, to_do) = bounded::<Work<T>>(2 * threads);
            for _ in 0..threads {
                let (to_do, members, limit) = (to_do.clone(), members.clone(), limit.clone());
                let reader = std::thread::Builder::new().name("archive reader".into());
                reader
                    .spawn_scoped(scope, move || {
                        let mut scratch = Scratch::default();
                        for (planned, done) in to_do {
                            // If the walk has ended, nobody takes the result.
                            let _unwanted = done.send(read_chunk(&members, planned, &mut scratch, read, &limit));
                        }
                    })
                    .map_err(|error| Halt::Problem(ArchiveProblem::Io(error)))?;
            }
            drop(to_do);
            let mut under_way: VecDeque<Receiver<Leaves<T>>> = VecDeque::new();
            let mut chunk = Some((first, ended));
            let mut result = Ok(());
            loop {
                if let Some((planned, ended)) = chunk.take() {
                    let (done, leaves) = bounded(1);
                    if work.send((planned, done)).is_err() {
                        return Err(Halt::Problem(ArchiveProblem::Damaged("its readers have ended")));
                    }
                    under_way.push_back(leaves);
                    if !ended {
                        // A fault in the directory is reported after the members before it.
                        match self.plan(&mut directory, path, &mut budget) {
                            Ok(next) => chunk = Some(next),
                            Err(halt) => result = Err(halt),
                        }
                    }
                }
                if under_way.len() > 2 * threads || chunk.is_none() {
                    let Some(leaves) = under_way.pop_front() else { return result };
                    let Ok(leaves) = leaves.recv() else {
                        return Err(Halt::Problem(ArchiveProblem::Damaged("its readers have ended")));
                    };
                    self.take_chunk(leaves, &members, depth)?;
                }
            }
        })
    }

    /// Plans the next members of a zip archive. The flag says that there are no more. `budget` is
    /// the number of bytes that all members together may still have.
    fn plan(
        &mut self,
        directory: &mut CentralDirectory,
        path: &[u8],
        budget: &mut u64,
    ) -> Result<(Vec<Planned>, bool), Halt> {
        let mut planned = Vec::with_capacity(CHUNK);
        let mut looked_at = 0;
        while looked_at < CHUNK {
            looked_at += 1;
            let entry = match directory.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok((planned, true)),
                // The members before the fault are read first. The directory then returns the fault
                // again.
                Err(problem) if !planned.is_empty() => {
                    directory.put_back(problem);
                    return Ok((planned, false));
                }
                Err(problem) => return Err(problem.into()),
            };
            let bytes = entry.compressed.saturating_add(zip::LOCAL_HEADER as u64);
            *budget = budget.checked_sub(bytes).ok_or(ArchiveProblem::Overlapping)?;
            let met = self.meet(path, &entry.name)?;
            if entry.is_directory() {
                self.no_file(&met.path);
                continue;
            }
            let member = match met.member(entry.check().err(), Some(entry.size), MemberKind::File) {
                Ok(member) => member,
                Err((path, problem)) => {
                    planned.push(Planned::Refused(path, problem));
                    continue;
                }
            };
            if self.action(&member)? == MemberAction::Read {
                planned.push(Planned::Read(member, entry));
            }
        }
        Ok((planned, false))
    }

    fn take_chunk(&mut self, leaves: Leaves<T>, members: &MemberArea, depth: usize) -> Result<(), Halt> {
        for (planned, leaf) in leaves {
            match (planned, leaf) {
                (Planned::Read(member, _), Some(Leaf::Read(value))) => self.done(member, value)?,
                (Planned::Read(member, entry), Some(Leaf::Archive(kind))) => {
                    self.nested_in_zip(&member, &entry, kind, members, depth)?;
                }
                (Planned::Refused(_, problem @ ArchiveProblem::Inflation), _) => return Err(problem.into()),
                (Planned::Refused(path, problem), _) => self.refused(path, problem)?,
                (Planned::Read(member, _), None) => self.refused(member.path, ArchiveProblem::Damaged("not read"))?,
            }
        }
        if self.budget.is_spent() { Err(ArchiveProblem::Inflation.into()) } else { Ok(()) }
    }

    fn nested_in_zip(
        &mut self,
        member: &Member,
        entry: &zip::ZipEntry,
        kind: ArchiveKind,
        members: &MemberArea,
        depth: usize,
    ) -> Result<(), Halt> {
        let mut header = [0; zip::LOCAL_HEADER];
        let range = match members.data(entry, &mut header) {
            Ok((range, ..)) => range,
            Err(problem) => return self.refused(member.path.clone(), problem),
        };
        if entry.method == zip::STORED {
            return self.nested(ArchiveBytes::Range(range), kind, member, depth);
        }
        let inflate = Inflate::new(RangeReader::new(range), None, self.budget.clone());
        let mut stream = Streamed(BufReader::with_capacity(STREAM_BUFFER, inflate));
        self.nested(ArchiveBytes::Stream(&mut stream), kind, member, depth)
    }

    /// Reads a zip archive from its start, by its local headers.
    fn zip_stream(&mut self, source: &mut (dyn SkipRead + '_), path: &[u8], depth: usize) -> Result<(), Halt> {
        while let Some(entry) = zip::next_local(source)? {
            let met = self.meet(path, &entry.name)?;
            let after = entry.is_described_after();
            // Only a deflate stream marks its own end.
            if after && entry.method != zip::DEFLATED {
                return Err(ArchiveProblem::NoSize.into());
            }
            let mut wanted = None;
            if entry.is_directory() {
                self.no_file(&met.path);
            } else {
                match met.member(entry.check().err(), (!after).then_some(entry.size), MemberKind::File) {
                    Ok(member) => wanted = (self.action(&member)? == MemberAction::Read).then_some(member),
                    Err((path, problem)) => self.refused(path, problem)?,
                }
            }
            let mut data = Limited::new(&mut *source, if after { u64::MAX } else { entry.compressed });
            if entry.method == zip::DEFLATED && (wanted.is_some() || after) {
                let inflate = Inflate::new(&mut data, None, self.budget.clone());
                let mut inflated = Streamed(BufReader::with_capacity(STREAM_BUFFER, inflate));
                match wanted {
                    Some(member) => self.leaf_in_stream(member, &mut inflated, depth)?,
                    None => {
                        SkipRead::skip(&mut inflated, u64::MAX)?;
                    }
                }
            } else if let Some(member) = wanted {
                self.leaf_in_stream(member, &mut data, depth)?;
            }
            let left = data.left();
            if !after && SkipRead::skip(&mut data, left)? < left {
                return Err(ArchiveProblem::Truncated.into());
            }
            if entry.has_descriptor() {
                zip::pass_descriptor(source)?;
            }
        }
        Ok(())
    }

    // --- tar, gzip ---

    fn tar(&mut self, source: &mut (dyn SkipRead + '_), path: &[u8], depth: usize) -> Result<(), Halt> {
        while let Some(entry) = tar::next(source)? {
            let met = self.meet(path, &entry.name)?;
            let mut left = entry.padded();
            if matches!(entry.kind, EntryKind::Directory | EntryKind::Link | EntryKind::Special) {
                self.no_file(&met.path);
            }
            let (kind, problem) = match entry.kind {
                EntryKind::Directory | EntryKind::File => (MemberKind::File, None),
                EntryKind::Sparse => (MemberKind::File, Some(ArchiveProblem::Sparse)),
                EntryKind::Continued => (MemberKind::File, Some(ArchiveProblem::MultiVolume)),
                EntryKind::Link => (MemberKind::Link, None),
                EntryKind::Special => (MemberKind::Special, None),
            };
            match met.member(problem, Some(entry.size), kind) {
                _ if entry.kind == EntryKind::Directory => {}
                Err((path, problem)) => self.refused(path, problem)?,
                Ok(member) => {
                    if self.action(&member)? == MemberAction::Read && kind == MemberKind::File {
                        match source.as_range(entry.size) {
                            Some(range) => self.leaf_in_range(member, range, depth)?,
                            None => {
                                let mut data = Limited::new(&mut *source, entry.size);
                                self.leaf_in_stream(member, &mut data, depth)?;
                                left -= entry.size;
                            }
                        }
                    }
                }
            }
            let passed = source.skip(left)?;
            // The padding of the last member may be missing.
            if left - passed > entry.padded() - entry.size {
                return Err(ArchiveProblem::Truncated.into());
            }
        }
        Ok(())
    }

    fn gzip<S: SkipRead>(
        &mut self,
        source: S,
        size: Option<u64>,
        path: &[u8],
        own_name: &[u8],
        depth: usize,
    ) -> Result<(), Halt> {
        let metered = Metered { inner: GzipContent::new(source), budget: self.budget.clone() };
        let mut content = Streamed(BufReader::with_capacity(STREAM_BUFFER, metered));
        let mut counted = CountingReader { source: &mut content, bytes: 0 };
        let mut ahead = Peeked::fill(&mut counted, KIND_BYTES)?;
        if tar::is_header(ahead.head()) {
            return self.tar(&mut ahead, path, depth);
        }
        let kind = if path.is_empty() { MemberKind::SingleFile } else { MemberKind::File };
        let met = self.meet(path, &name_in_gzip(own_name))?;
        let mut member = match met.member(None, size, kind) {
            Ok(member) => member,
            Err((path, problem)) => return self.refused(path, problem),
        };
        if self.action(&member)? == MemberAction::Skip {
            return Ok(());
        }
        match ArchiveKind::of(ahead.head()) {
            Ok(None) => {
                let value = (self.read)(&mut ahead, size);
                if size.is_none() && self.sink.needs_size(&value) {
                    SkipRead::skip(&mut ahead, u64::MAX)?;
                    member.size = Some(counted.bytes);
                }
                self.done(member, value)
            }
            Ok(Some(kind)) => self.nested(ArchiveBytes::Stream(&mut ahead), kind, &member, depth),
            Err(problem) => self.refused(member.path, problem),
        }
    }
}

/// The results of planned members.
type Leaves<T> = Vec<(Planned, Option<Leaf<T>>)>;

/// Members to read, and the channel for their results.
type Work<T> = (Vec<Planned>, Sender<Leaves<T>>);

fn read_chunk<T>(
    members: &MemberArea,
    planned: Vec<Planned>,
    scratch: &mut Scratch,
    read: ReadMember<'_, T>,
    budget: &Budget,
) -> Leaves<T> {
    planned
        .into_iter()
        .map(|planned| match planned {
            Planned::Read(member, entry) => match read_in_zip(members, &entry, scratch, read, budget) {
                Ok(leaf) => (Planned::Read(member, entry), Some(leaf)),
                Err(problem) => (Planned::Refused(member.path, problem), None),
            },
            refused @ Planned::Refused(..) => (refused, None),
        })
        .collect()
}

fn read_in_zip<T>(
    members: &MemberArea,
    entry: &zip::ZipEntry,
    scratch: &mut Scratch,
    read: ReadMember<'_, T>,
    budget: &Budget,
) -> Result<Leaf<T>, ArchiveProblem> {
    let mut buffer = std::mem::take(&mut scratch.buffer);
    buffer.resize(FIRST_READ, 0);
    let (range, at, held) = members.data(entry, &mut buffer)?;
    buffer.truncate(held);
    let mut reader = RangeReader::begun(range, buffer, at);
    if entry.method == zip::STORED {
        let leaf = match ArchiveKind::of(reader.held().get(..KIND_BYTES).unwrap_or(reader.held()))? {
            None => Leaf::Read(read(&mut reader, Some(entry.size))),
            Some(kind) => Leaf::Archive(kind),
        };
        scratch.buffer = reader.into_buffer();
        return Ok(leaf);
    }
    let inflate = Inflate::new(reader, scratch.inflater.take(), budget.clone());
    let mut inflated = BufReader::with_capacity(INFLATE_STEP, inflate);
    let leaf = {
        let mut ahead = Peeked::fill(Streamed(&mut inflated), KIND_BYTES)?;
        match ArchiveKind::of(ahead.head())? {
            None => Leaf::Read(read(&mut ahead, Some(entry.size))),
            Some(kind) => Leaf::Archive(kind),
        }
    };
    let (reader, inflater) = inflated.into_inner().into_parts();
    scratch.inflater = Some(inflater);
    scratch.buffer = reader.into_buffer();
    Ok(leaf)
}

/// Counts the bytes that pass through.
struct CountingReader<'a> {
    source: &'a mut (dyn SkipRead + 'a),
    bytes: u64,
}

impl std::io::Read for CountingReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.source.read(out)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

impl BufRead for CountingReader<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.source.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.bytes += count as u64;
        self.source.consume(count);
    }
}

impl SkipRead for CountingReader<'_> {
    fn skip(&mut self, count: u64) -> std::io::Result<u64> {
        let passed = self.source.skip(count)?;
        self.bytes += passed;
        Ok(passed)
    }

    fn as_range(&self, length: u64) -> Option<FileRange> {
        self.source.as_range(length)
    }
}

/// The size of the content of a gzip file, from the end of the file. That is the size of the last
/// part, modulo 2³² (RFC 1952 2.3.1). `None` if it cannot be that of the whole content: the file
/// may have several parts, be cut, or have other bytes at its end.
fn gzip_size(range: &FileRange) -> Option<u64> {
    let at = range.length().checked_sub(4)?;
    let size = range.exact::<4>(at).ok().map(|bytes| u64::from(u32::from_le_bytes(bytes)))?;
    // Bytes that cannot be compressed grow by less than this, with header and trailer.
    let most_compressed = size + size / 32 + 256;
    (most_compressed >= range.length() && size / MAX_DEFLATION <= range.length()).then_some(size)
}

/// The name of the file in a gzip file.
pub(super) fn name_in_gzip(name: &[u8]) -> Vec<u8> {
    match name.len().checked_sub(3).and_then(|at| name.split_at_checked(at)) {
        Some((stem, extension)) if extension.eq_ignore_ascii_case(b".gz") && !stem.is_empty() => stem.to_vec(),
        _ => name.to_vec(),
    }
}
