//! Opens members of archives for reading from start to end.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::bufread::MultiGzDecoder;

use super::limits::{MAX_MEMBERS, MAX_NESTING, MAX_REMEMBERED, inflated_limit};
use super::name::{self, PathStep};
use super::problem::ArchiveProblem;
use super::source::{
    Budget, Checked, FileRange, Inflate, Limited, Metered, OnRead, Peeked, SkipRead, Streamed, WindowReader,
};
use super::tar::{self, EntryKind};
use super::zip::{self, CentralDirectory};
use super::{ArchiveKind, LOOK};
use crate::files::FileMark;

const BUFFER: usize = 64 << 10;

/// The bytes of a member, from first to last.
///
/// The last read fails if the size or the checksum differs from that in the archive.
pub struct Object {
    reader: Box<dyn Read + Send>,
    length: Option<u64>,
}

impl Object {
    /// A plain file.
    ///
    /// # Errors
    /// If the system does not return its length.
    pub fn of_file(file: File) -> io::Result<Self> {
        let window = FileRange::whole(file, Arc::new(|_| ()))?;
        let length = window.length();
        let reader = Checked::new(WindowReader::new(window), length, None);
        Ok(Self { reader: Box::new(reader), length: Some(length) })
    }

    /// An empty object. It takes the place of an object that is handed back.
    pub(crate) fn nothing() -> Self {
        Self { reader: Box::new(io::empty()), length: Some(0) }
    }

    /// The size, if the archive states it before the data.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.length
    }
}

impl Read for Object {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Opens one member of an archive file. `member` is its path from [`walk`](super::walk()). To open
/// several members of one archive, use [`Archives`].
///
/// # Errors
/// [`ArchiveProblem::Missing`] if the archive has no such member, or the reason why it cannot be
/// read.
pub fn open(file: File, member: &OsStr) -> Result<Object, ArchiveProblem> {
    Archives::default().open(file, member)
}

/// Opens members of archives one after the other. It remembers the last archive file: the positions
/// of members already passed, and the stream behind the last member.
///
/// Cost: for a zip or tar archive, one read of the central directory or of the headers, in any
/// order of members. In a compressed stream, all bytes before a member must be inflated. Members
/// opened in stored order take one pass together. Each step back begins again at the start.
///
/// An archive file whose inode, size or times have changed counts as a new one. Clones share what
/// is remembered.
#[derive(Clone)]
pub struct Archives {
    remembered: Arc<Mutex<Option<Remembered>>>,
    on_read: OnRead,
}

impl Default for Archives {
    fn default() -> Self {
        Self::telling(Arc::new(|_| ()))
    }
}

impl std::fmt::Debug for Archives {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archives").finish_non_exhaustive()
    }
}

impl Archives {
    /// Calls `on_read` after each read of an archive file.
    #[must_use]
    pub fn telling(on_read: OnRead) -> Self {
        Self { remembered: Arc::default(), on_read }
    }

    /// Opens one member of an archive file. `member` is its path from [`walk`](super::walk()).
    ///
    /// # Errors
    /// [`ArchiveProblem::Missing`] if the archive has no such member, or the reason why it cannot
    /// be read.
    pub fn open(&self, file: File, member: &OsStr) -> Result<Object, ArchiveProblem> {
        let steps = name::steps(member.as_bytes());
        if steps.len() > MAX_NESTING {
            return Err(ArchiveProblem::NestedTooDeep);
        }
        let identity = FileMark::of(&file.metadata()?);
        let window = FileRange::whole(file, Arc::clone(&self.on_read))?;
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let archive = match remembered.as_mut() {
            Some(archive) if archive.identity == identity => archive,
            Some(_) | None => remembered.insert(Remembered { identity, window: window.clone(), levels: Vec::new() }),
        };
        let goes_on = !archive.levels.is_empty();
        let mut reached = archive.reach(&steps);
        if goes_on && matches!(reached, Ok(Reached::Unknown) | Err(_)) {
            // An error counts only if it also occurs when reading from the start.
            *archive = Remembered { identity, window, levels: Vec::new() };
            reached = archive.reach(&steps);
        }
        match reached {
            Ok(Reached::Member(found)) => Ok(found.into_object()),
            Ok(Reached::Refused(problem)) => Err(problem),
            Ok(Reached::Missing | Reached::Unknown) => Err(ArchiveProblem::Missing),
            Err(problem) => {
                *remembered = None;
                Err(problem)
            }
        }
    }

    /// Whether the last member lies in a stream that only goes forward.
    #[must_use]
    pub fn have_an_order(&self) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.as_ref().is_some_and(Remembered::has_an_order)
    }

    /// The next of these members in a forward-only stream of the last archive file. Opened in this
    /// order, they take at most two passes. `None` if the order makes no difference or none of them
    /// is there.
    #[must_use]
    pub fn next_of(&self, wanted: &WantedMembers) -> Option<OsString> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let archive = remembered.as_mut()?;
        if wanted.ways.is_empty() || !archive.has_an_order() {
            return None;
        }
        let met = archive.next_of(wanted).or_else(|| {
            // Second pass: the members before the first one that was opened.
            archive.levels.clear();
            archive.enter_file().ok()?;
            archive.next_of(wanted)
        });
        met.map(OsString::from_vec)
    }
}

/// The members of one archive file that the caller still needs.
#[derive(Clone, Debug, Default)]
pub struct WantedMembers {
    members: HashSet<Vec<u8>>,
    /// The paths of these members and of the archives around them. The number says how many needed
    /// members each path leads to.
    ways: HashMap<Vec<u8>, usize>,
}

impl WantedMembers {
    /// Adds a member by its path in the archive file (`archive/name.rs`). To add it again changes
    /// nothing.
    pub fn add(&mut self, member: &OsStr) {
        if !self.members.insert(member.as_bytes().to_vec()) {
            return;
        }
        for way in ways(member) {
            *self.ways.entry(way).or_default() += 1;
        }
    }

    /// Removes a member. Nothing changes if it is not wanted.
    pub fn remove(&mut self, member: &OsStr) {
        if !self.members.remove(member.as_bytes()) {
            return;
        }
        for way in ways(member) {
            if let Entry::Occupied(mut number) = self.ways.entry(way) {
                *number.get_mut() = number.get().saturating_sub(1);
                if *number.get() == 0 {
                    number.remove();
                }
            }
        }
    }
}

/// The paths of the archives around a member, and its own path.
fn ways(member: &OsStr) -> impl Iterator<Item = Vec<u8>> {
    name::steps(member.as_bytes()).into_iter().scan(Vec::new(), |path, step| {
        *path = step.below(path);
        Some(path.clone())
    })
}

/// An archive file, with the nested archives that the last member lay in.
struct Remembered {
    identity: FileMark,
    window: FileRange,
    /// The nested archives, beginning with the file itself.
    levels: Vec<NestedArchive>,
}

struct NestedArchive {
    /// Its position in the archive one level up. `None` for the file itself.
    step: Option<PathStep>,
    archive: Archive,
}

impl Remembered {
    fn enter_file(&mut self) -> Result<(), ArchiveProblem> {
        // The file is an archive now, or it was one when it was indexed. If its first bytes do not
        // tell the kind, it is a self-extracting zip archive.
        let budget = Budget::new(inflated_limit(self.window.length()));
        let archive = Archive::enter(MemberData::Window(self.window.clone()), Some(ArchiveKind::Zip), budget)?;
        self.levels.push(NestedArchive { step: None, archive });
        Ok(())
    }

    fn has_an_order(&self) -> bool {
        self.levels.iter().any(|level| matches!(level.archive, Archive::Stream(_)))
    }

    /// Searches forward in the innermost archive, then in the archives around it.
    fn next_of(&mut self, wanted: &WantedMembers) -> Option<Vec<u8>> {
        loop {
            let steps = self.levels.iter().filter_map(|level| level.step.as_ref());
            let path = steps.fold(Vec::new(), |path, step| step.below(&path));
            let depth = self.levels.len();
            let level = self.levels.last_mut()?;
            let stream = match &mut level.archive {
                Archive::Stream(stream) => stream,
                Archive::SingleFile(Some(_), _) => {
                    // The file inside has nearly the same name as the gzip file, so any needed path
                    // below it names it.
                    let inside = name::join(&path, b"");
                    let is_inside = |member: &&Vec<u8>| {
                        // This prefix means another member with the archive's own name.
                        member.strip_prefix(inside.as_slice()).is_some_and(|own| !own.starts_with(b"!/"))
                    };
                    if let Some(member) = wanted.members.iter().find(is_inside) {
                        return Some(member.clone());
                    }
                    self.levels.pop();
                    continue;
                }
                Archive::SingleFile(None, _) | Archive::Zip { .. } | Archive::Tar { .. } => {
                    self.levels.pop();
                    continue;
                }
            };
            let met = stream.look_for(&mut |step| wanted.ways.contains_key(&step.below(&path)));
            let Ok(Some(step)) = met else {
                self.levels.pop();
                continue;
            };
            let path = step.below(&path);
            if wanted.members.contains(&path) {
                return Some(path);
            }
            // An error is reported when somebody opens the nested archive.
            if depth < MAX_NESTING
                && let Ok(Reached::Member(found)) = stream.member(&step)
                && let Ok(archive) = Archive::enter(found.bytes, None, found.budget)
            {
                self.levels.push(NestedArchive { step: Some(step), archive });
            }
        }
    }

    /// Opens a member. It reuses the nested archives that this path shares with the previous one.
    fn reach(&mut self, steps: &[PathStep]) -> Result<Reached, ArchiveProblem> {
        let limit = inflated_limit(self.window.length());
        let [archives @ .., _] = steps else { return Ok(Reached::Missing) };
        let levels = self.levels.iter().skip(1).zip(archives);
        let common = levels.take_while(|(level, step)| level.step.as_ref() == Some(step)).count();
        // Dropping the inner levels returns their streams to the levels above.
        self.levels.truncate(1 + common);
        if self.levels.is_empty() {
            self.enter_file()?;
        }
        loop {
            let depth = self.levels.len();
            let (Some(level), Some(step)) = (self.levels.last_mut(), steps.get(depth - 1)) else {
                return Ok(Reached::Missing);
            };
            let found = match level.archive.member(step, limit)? {
                Reached::Member(found) if depth < steps.len() => found,
                reached => return Ok(reached),
            };
            let archive = Archive::enter(found.bytes, None, found.budget)?;
            self.levels.push(NestedArchive { step: Some(step.clone()), archive });
        }
    }
}

enum MemberData {
    Window(FileRange),
    Stream(Box<dyn SkipRead>),
}

struct FoundMember {
    bytes: MemberData,
    length: Option<u64>,
    checksum: Option<u32>,
    /// Maximum bytes to inflate from it, if it is itself an archive.
    budget: Budget,
}

impl FoundMember {
    fn into_object(self) -> Object {
        let reader: Box<dyn Read + Send> = match self.bytes {
            MemberData::Window(window) => Box::new(WindowReader::new(window)),
            MemberData::Stream(stream) => stream,
        };
        match self.length {
            Some(length) => {
                Object { reader: Box::new(Checked::new(reader, length, self.checksum)), length: Some(length) }
            }
            None => Object { reader, length: None },
        }
    }
}

/// The result of a search for a member.
enum Reached {
    Member(FoundMember),
    /// The member exists and cannot be read.
    Refused(ArchiveProblem),
    /// The member does not exist.
    Missing,
    /// A search from the start is necessary.
    Unknown,
}

impl From<Result<FoundMember, ArchiveProblem>> for Reached {
    fn from(found: Result<FoundMember, ArchiveProblem>) -> Self {
        found.map_or_else(Self::Refused, Self::Member)
    }
}

/// Positions of the members already passed. The key is a hash of the name and the number of the
/// occurrence.
#[derive(Default)]
struct Passed {
    places: HashMap<u64, u64>,
    /// Number of members of one name, by its hash, if there is more than one.
    again: HashMap<u64, u32>,
    hasher: RandomState,
    count: u64,
    ended: bool,
}

impl Passed {
    fn place(&self, step: &PathStep) -> Option<u64> {
        self.places.get(&self.hash(&step.name, step.occurrence)).copied()
    }

    fn hash(&self, name: &[u8], occurrence: u32) -> u64 {
        self.hasher.hash_one((name, occurrence))
    }

    /// Number of members of this name that were passed.
    fn met(&self, name: &[u8]) -> u32 {
        let first = self.hash(name, 1);
        if !self.places.contains_key(&first) { 0 } else { self.again.get(&first).copied().unwrap_or(1) }
    }

    /// Records a member. Returns its number among the members of its name, while that is known.
    fn pass(&mut self, name: &[u8], place: u64) -> u32 {
        self.count += 1;
        if !self.is_whole() {
            (self.places, self.again) = (HashMap::new(), HashMap::new());
            return 1;
        }
        let first = self.hash(name, 1);
        match self.places.entry(first) {
            Entry::Vacant(vacant) => {
                vacant.insert(place);
                1
            }
            Entry::Occupied(_) => {
                let again = self.again.entry(first).or_insert(1);
                *again += 1;
                let occurrence = *again;
                self.places.insert(self.hash(name, occurrence), place);
                occurrence
            }
        }
    }

    /// Whether every passed member is recorded.
    fn is_whole(&self) -> bool {
        self.count <= MAX_REMEMBERED as u64
    }

    fn goes_on(&self) -> bool {
        !self.ended && self.count <= MAX_MEMBERS
    }

    /// The result if the search reached the end without the member.
    fn not_met(&self) -> Reached {
        if self.is_whole() { Reached::Missing } else { Reached::Unknown }
    }
}

/// An opened archive.
enum Archive {
    Zip {
        directory: CentralDirectory,
        passed: Passed,
    },
    /// A tar archive that lies uncompressed in the file.
    Tar {
        headers: WindowReader,
        /// Bytes from the position of `headers` to the next header.
        data: u64,
        passed: Passed,
    },
    Stream(StreamArchive),
    /// The only file in a gzip file. `None` after somebody has opened it.
    SingleFile(Option<Box<dyn SkipRead>>, Budget),
}

impl Archive {
    /// Opens an archive. If its first bytes do not tell the kind, it is `otherwise`. `budget`
    /// limits the bytes that one pass may inflate.
    fn enter(bytes: MemberData, otherwise: Option<ArchiveKind>, budget: Budget) -> Result<Self, ArchiveProblem> {
        match bytes {
            MemberData::Window(window) => {
                let mut start = [0; LOOK];
                let read = window.read_at(&mut start, 0)?;
                match ArchiveKind::of(start.get(..read).unwrap_or_default())?.or(otherwise) {
                    Some(ArchiveKind::Zip) => Ok(match CentralDirectory::find(&window)? {
                        Some(directory) => Self::Zip { directory, passed: Passed::default() },
                        None => Self::stream(StreamKind::Zip, Box::new(WindowReader::new(window)), budget),
                    }),
                    Some(ArchiveKind::Tar) => {
                        Ok(Self::Tar { headers: WindowReader::new(window), data: 0, passed: Passed::default() })
                    }
                    Some(ArchiveKind::Gzip) => Self::gzip(Box::new(WindowReader::new(window)), budget),
                    None => Err(ArchiveProblem::Missing),
                }
            }
            MemberData::Stream(stream) => {
                let ahead = Peeked::look(stream, LOOK)?;
                match ArchiveKind::of(ahead.head())? {
                    Some(ArchiveKind::Zip) => Ok(Self::stream(StreamKind::Zip, Box::new(ahead), budget)),
                    Some(ArchiveKind::Tar) => Ok(Self::stream(StreamKind::Tar, Box::new(ahead), budget)),
                    Some(ArchiveKind::Gzip) => Self::gzip(Box::new(ahead), budget),
                    None => Err(ArchiveProblem::Missing),
                }
            }
        }
    }

    fn gzip(source: Box<dyn SkipRead>, budget: Budget) -> Result<Self, ArchiveProblem> {
        let metered = Metered { inner: MultiGzDecoder::new(source), budget: budget.clone() };
        let ahead = Peeked::look(Streamed(BufReader::with_capacity(BUFFER, metered)), LOOK)?;
        let is_tar = tar::is_header(ahead.head());
        let ahead = Box::new(ahead);
        Ok(if is_tar { Self::stream(StreamKind::Tar, ahead, budget) } else { Self::SingleFile(Some(ahead), budget) })
    }

    fn stream(kind: StreamKind, source: Box<dyn SkipRead>, budget: Budget) -> Self {
        let place = Arc::new(Mutex::new(Some(StreamPosition::AtHeader(source))));
        Self::Stream(StreamArchive { kind, place, passed: Passed::default(), budget })
    }

    /// Finds a member. `limit` is the maximum to inflate from it, if it can be read without the
    /// others.
    fn member(&mut self, step: &PathStep, limit: u64) -> Result<Reached, ArchiveProblem> {
        match self {
            Self::Zip { directory, passed } => in_zip(directory, passed, step, limit),
            Self::Tar { headers, data, passed } => in_tar(headers, data, passed, step, limit),
            Self::Stream(stream) => stream.member(step),
            Self::SingleFile(stream, budget) => Ok(match stream.take() {
                Some(stream) => {
                    let (bytes, budget) = (MemberData::Stream(stream), budget.clone());
                    Reached::Member(FoundMember { bytes, length: None, checksum: None, budget })
                }
                None => Reached::Unknown,
            }),
        }
    }
}

fn in_zip(
    directory: &mut CentralDirectory,
    passed: &mut Passed,
    step: &PathStep,
    limit: u64,
) -> Result<Reached, ArchiveProblem> {
    if !passed.is_whole() {
        return Ok(Reached::Unknown);
    }
    if let Some(place) = passed.place(step) {
        let entry = directory.at(place)?;
        // Another name may have the same hash.
        return Ok(if entry.name == step.name {
            member_of_zip(directory, &entry, limit).into()
        } else {
            Reached::Unknown
        });
    }
    let mut met = passed.met(&step.name);
    while passed.goes_on() {
        let place = directory.position();
        let Some(entry) = directory.next()? else {
            passed.ended = true;
            break;
        };
        passed.pass(&entry.name, place);
        met += u32::from(entry.name == step.name);
        if entry.name == step.name && met == step.occurrence {
            return Ok(member_of_zip(directory, &entry, limit).into());
        }
    }
    Ok(passed.not_met())
}

fn member_of_zip(
    directory: &CentralDirectory,
    entry: &zip::ZipEntry,
    limit: u64,
) -> Result<FoundMember, ArchiveProblem> {
    entry.check()?;
    let mut header = [0; zip::LOCAL_HEADER];
    let (window, ..) = directory.data(entry, &mut header)?;
    let budget = Budget::new(limit);
    let bytes = match entry.method {
        zip::STORED => MemberData::Window(window),
        _ => MemberData::Stream(Box::new(inflated(WindowReader::new(window), &budget))),
    };
    Ok(FoundMember { bytes, length: Some(entry.size), checksum: Some(entry.checksum), budget })
}

fn inflated<S: SkipRead>(source: S, budget: &Budget) -> Inflated<S> {
    Streamed(BufReader::with_capacity(BUFFER, Inflate::new(source, None, budget.clone())))
}

type Inflated<S> = Streamed<BufReader<Inflate<S>>>;

fn in_tar(
    headers: &mut WindowReader,
    data: &mut u64,
    passed: &mut Passed,
    step: &PathStep,
    limit: u64,
) -> Result<Reached, ArchiveProblem> {
    if !passed.is_whole() {
        return Ok(Reached::Unknown);
    }
    if let Some(place) = passed.place(step) {
        let mut header = WindowReader::at(headers.whole(), place, 2 * tar::BLOCK)?;
        let entry = tar::next(&mut header)?;
        return Ok(match entry.filter(|entry| entry.kind == EntryKind::File && entry.name == step.name) {
            Some(entry) => Reached::Member(member_of_tar(header, &entry, limit)),
            // Another name may have the same hash.
            None => Reached::Unknown,
        });
    }
    let mut met = passed.met(&step.name);
    while passed.goes_on() {
        if headers.pass(*data)? < *data {
            return Err(ArchiveProblem::Truncated);
        }
        *data = 0;
        let place = headers.position();
        let Some(entry) = tar::next(headers)? else {
            passed.ended = true;
            break;
        };
        *data = entry.padded();
        passed.pass(&entry.name, place);
        met += u32::from(entry.name == step.name);
        if entry.kind == EntryKind::File && entry.name == step.name && met == step.occurrence {
            let at = WindowReader::at(headers.whole(), headers.position(), 0)?;
            return Ok(Reached::Member(member_of_tar(at, &entry, limit)));
        }
    }
    Ok(passed.not_met())
}

fn member_of_tar(source: WindowReader, entry: &tar::TarEntry, limit: u64) -> FoundMember {
    let bytes = match source.window(entry.size) {
        Some(window) => MemberData::Window(window),
        // The member is cut off. The reader gets the bytes that exist, then an error.
        None => MemberData::Stream(Box::new(Limited::new(source, entry.size))),
    };
    FoundMember { bytes, length: Some(entry.size), checksum: None, budget: Budget::new(limit) }
}

#[derive(Clone, Copy)]
enum StreamKind {
    Zip,
    Tar,
}

/// An archive in a stream that only goes forward.
struct StreamArchive {
    kind: StreamKind,
    /// The current position. `None` while somebody reads a member.
    place: SharedPosition,
    passed: Passed,
    budget: Budget,
}

type SharedPosition = Arc<Mutex<Option<StreamPosition>>>;

enum StreamPosition {
    AtHeader(Box<dyn SkipRead>),
    /// After the header of a member, with its data still unread. The number is that of the
    /// occurrence.
    AtData(StreamHeader, u32, Box<dyn SkipRead>),
    /// Within the data of a member, or directly after it.
    InMember(Box<dyn MemberStream>),
}

/// A header, the number of the occurrence, and the stream after the header.
type AtData = (StreamHeader, u32, Box<dyn SkipRead>);

enum StreamHeader {
    Zip(zip::ZipEntry),
    Tar(tar::TarEntry),
}

impl StreamHeader {
    fn name(&self) -> &[u8] {
        match self {
            Self::Zip(entry) => &entry.name,
            Self::Tar(entry) => &entry.name,
        }
    }
}

impl StreamArchive {
    fn member(&mut self, step: &PathStep) -> Result<Reached, ArchiveProblem> {
        if !self.passed.is_whole() {
            return Ok(Reached::Unknown);
        }
        let mut standing = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(StreamPosition::AtData(header, occurrence, source)) = standing {
            if header.name() == step.name && occurrence == step.occurrence {
                return Ok(self.member_here(header, source));
            }
            standing = Some(StreamPosition::AtData(header, occurrence, source));
        }
        if self.passed.place(step).is_some() {
            return Ok(Reached::Unknown);
        }
        if !self.passed.goes_on() {
            return Ok(Reached::Missing);
        }
        let Some(standing) = standing else { return Ok(Reached::Unknown) };
        let mut met = self.passed.met(&step.name);
        let mut is_it = |other: &PathStep| {
            met += u32::from(other.name == step.name);
            other.name == step.name && met == step.occurrence
        };
        Ok(match self.go_to(standing, &mut is_it)? {
            Some((header, _, source)) => self.member_here(header, source),
            None => self.passed.not_met(),
        })
    }

    /// Searches forward for the next needed member. It stops before the data.
    fn look_for(&mut self, is_wanted: &mut dyn FnMut(&PathStep) -> bool) -> Result<Option<PathStep>, ArchiveProblem> {
        let standing = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(standing) = standing else { return Ok(None) };
        let Some((header, occurrence, source)) = self.go_to(standing, is_wanted)? else { return Ok(None) };
        let name = header.name().to_vec();
        self.put(StreamPosition::AtData(header, occurrence, source));
        Ok(Some(PathStep { name, occurrence }))
    }

    /// Goes to the data of the next member for which `is_wanted` returns true. `None` at the end.
    /// It calls `is_wanted` for every member, in order.
    fn go_to(
        &mut self,
        standing: StreamPosition,
        is_wanted: &mut dyn FnMut(&PathStep) -> bool,
    ) -> Result<Option<AtData>, ArchiveProblem> {
        let mut source = match standing {
            StreamPosition::AtHeader(source) => source,
            StreamPosition::AtData(header, _, source) => self.pass(&header, source)?,
            StreamPosition::InMember(data) => data.leave()?,
        };
        while self.passed.goes_on() {
            let header = match self.kind {
                StreamKind::Zip => zip::next_local(&mut source)?.map(StreamHeader::Zip),
                StreamKind::Tar => tar::next(&mut source)?.map(StreamHeader::Tar),
            };
            let Some(header) = header else {
                self.passed.ended = true;
                break;
            };
            let is_file = match &header {
                StreamHeader::Tar(entry) => entry.kind == EntryKind::File,
                StreamHeader::Zip(entry) if entry.is_described_after() && entry.method != zip::DEFLATED => {
                    return Err(ArchiveProblem::NoSize);
                }
                StreamHeader::Zip(_) => true,
            };
            let occurrence = self.passed.pass(header.name(), 0);
            let step = PathStep { name: header.name().to_vec(), occurrence };
            if is_wanted(&step) && is_file {
                return Ok(Some((header, step.occurrence, source)));
            }
            source = self.pass(&header, source)?;
        }
        Ok(None)
    }

    /// Skips to the next header.
    fn pass(&self, header: &StreamHeader, mut source: Box<dyn SkipRead>) -> Result<Box<dyn SkipRead>, ArchiveProblem> {
        match header {
            StreamHeader::Tar(entry) => {
                let padded = entry.padded();
                if source.pass(padded)? < padded { Err(ArchiveProblem::Truncated) } else { Ok(source) }
            }
            // Only a deflate stream marks its own end.
            StreamHeader::Zip(entry) => self.in_zip(entry, source, entry.is_described_after()).leave(),
        }
    }

    /// The member whose data begins at the current position.
    fn member_here(&self, header: StreamHeader, source: Box<dyn SkipRead>) -> Reached {
        match header {
            StreamHeader::Tar(entry) => self.member_of_tar(&entry, source),
            StreamHeader::Zip(entry) => self.member_of_zip(&entry, source),
        }
    }

    fn member_of_tar(&self, entry: &tar::TarEntry, source: Box<dyn SkipRead>) -> Reached {
        let window = source.window(entry.size);
        let padding = entry.padded() - entry.size;
        let data = LeavableStream {
            data: Limited::new(source, entry.size),
            leave: move |data: Limited<Box<dyn SkipRead>>| {
                let left = data.left().saturating_add(padding);
                let mut source = data.into_inner();
                if source.pass(left)? < left { Err(ArchiveProblem::Truncated) } else { Ok(source) }
            },
        };
        let bytes = match window {
            Some(window) => {
                self.put(StreamPosition::InMember(Box::new(data)));
                MemberData::Window(window)
            }
            None => self.lend(Box::new(data)),
        };
        Reached::Member(FoundMember { bytes, length: Some(entry.size), checksum: None, budget: self.budget.clone() })
    }

    fn member_of_zip(&self, entry: &zip::ZipEntry, source: Box<dyn SkipRead>) -> Reached {
        let data = self.in_zip(entry, source, entry.method == zip::DEFLATED);
        if let Err(problem) = entry.check() {
            self.put(StreamPosition::InMember(data));
            return Reached::Refused(problem);
        }
        let known = (!entry.is_described_after()).then_some(());
        Reached::Member(FoundMember {
            bytes: self.lend(data),
            length: known.map(|()| entry.size),
            checksum: known.map(|()| entry.checksum),
            budget: self.budget.clone(),
        })
    }

    /// The data of a member, inflated or as stored.
    fn in_zip(&self, entry: &zip::ZipEntry, source: Box<dyn SkipRead>, inflate: bool) -> Box<dyn MemberStream> {
        let (after, described) = (entry.is_described_after(), entry.has_descriptor());
        let limited = Limited::new(source, if after { u64::MAX } else { entry.compressed });
        if !inflate {
            return Box::new(LeavableStream {
                data: limited,
                leave: move |limited: Limited<Box<dyn SkipRead>>| leave_zip_member(limited, after, described),
            });
        }
        Box::new(LeavableStream {
            data: inflated(limited, &self.budget),
            leave: move |mut data: Inflated<Limited<Box<dyn SkipRead>>>| {
                if after {
                    data.pass(u64::MAX)?;
                }
                let (limited, _state) = data.0.into_inner().into_parts();
                leave_zip_member(limited, after, described)
            },
        })
    }

    fn put(&self, standing: StreamPosition) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(standing);
    }

    /// Lends out the data of a member. When the borrower drops it, the stream comes back here.
    fn lend(&self, data: Box<dyn MemberStream>) -> MemberData {
        MemberData::Stream(Box::new(Borrowed { data: Some(data), home: Arc::clone(&self.place) }))
    }
}

/// Skips the rest of a member and its data descriptor.
fn leave_zip_member(
    limited: Limited<Box<dyn SkipRead>>,
    after: bool,
    described: bool,
) -> Result<Box<dyn SkipRead>, ArchiveProblem> {
    let left = if after { 0 } else { limited.left() };
    let mut source = limited.into_inner();
    if source.pass(left)? < left {
        return Err(ArchiveProblem::Truncated);
    }
    if described {
        zip::pass_descriptor(&mut source)?;
    }
    Ok(source)
}

/// The data of a member, with a way to leave it.
trait MemberStream: SkipRead {
    /// Skips to the next header.
    fn leave(self: Box<Self>) -> Result<Box<dyn SkipRead>, ArchiveProblem>;
}

struct LeavableStream<S, L> {
    data: S,
    leave: L,
}

impl<S: SkipRead, L: FnOnce(S) -> Result<Box<dyn SkipRead>, ArchiveProblem> + Send> MemberStream
    for LeavableStream<S, L>
{
    fn leave(self: Box<Self>) -> Result<Box<dyn SkipRead>, ArchiveProblem> {
        (self.leave)(self.data)
    }
}

impl<S: SkipRead, L: Send> Read for LeavableStream<S, L> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.data.read(out)
    }
}

impl<S: SkipRead, L: Send> BufRead for LeavableStream<S, L> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.data.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.data.consume(count);
    }
}

impl<S: SkipRead, L: Send> SkipRead for LeavableStream<S, L> {
    fn pass(&mut self, count: u64) -> io::Result<u64> {
        self.data.pass(count)
    }

    fn window(&self, length: u64) -> Option<FileRange> {
        self.data.window(length)
    }
}

/// The data of a member that somebody reads. Dropping it returns the stream to the archive.
struct Borrowed {
    /// `Some` until it is dropped.
    data: Option<Box<dyn MemberStream>>,
    home: SharedPosition,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.data.take().map(StreamPosition::InMember);
    }
}

impl Read for Borrowed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.data.as_mut().map_or(Ok(0), |data| data.read(out))
    }
}

impl BufRead for Borrowed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.data.as_mut().map_or(Ok(&[]), |data| data.fill_buf())
    }

    fn consume(&mut self, count: usize) {
        if let Some(data) = &mut self.data {
            data.consume(count);
        }
    }
}

impl SkipRead for Borrowed {
    fn pass(&mut self, count: u64) -> io::Result<u64> {
        self.data.as_mut().map_or(Ok(0), |data| data.pass(count))
    }

    fn window(&self, length: u64) -> Option<FileRange> {
        self.data.as_ref().and_then(|data| data.window(length))
    }
}
