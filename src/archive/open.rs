//! Opening members.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::bufread::MultiGzDecoder;

use super::limits::{MAX_MEMBERS, MAX_NESTING, MAX_REMEMBERED, inflated_limit};
use super::name::{self, Step};
use super::problem::Problem;
use super::source::{
    Ahead, Budget, Checked, Inflate, Limited, Metered, OnRead, SkipRead, Streamed, Window, WindowReader,
};
use super::tar::{self, EntryKind};
use super::zip::{self, Directory};
use super::{Kind, LOOK};

const BUFFER: usize = 64 << 10;

/// The bytes of a member, from the first to the last.
///
/// Reading fails at the end where the archive states another size or checksum.
pub struct Object {
    reader: Box<dyn Read + Send>,
    length: Option<u64>,
}

impl Object {
    /// A file as it is.
    ///
    /// # Errors
    /// When the system does not say how long it is.
    pub fn of_file(file: File) -> io::Result<Self> {
        let window = Window::whole(file, Arc::new(|_| ()))?;
        let length = window.length();
        let reader = Checked::new(WindowReader::new(window), length, None);
        Ok(Self { reader: Box::new(reader), length: Some(length) })
    }

    /// Nothing: takes the place of one that is given back.
    pub(crate) fn nothing() -> Self {
        Self { reader: Box::new(io::empty()), length: Some(0) }
    }

    /// How many bytes there are, where the archive says so before them.
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

/// Opens a member of an archive file by its path, as [`walk`](super::walk()) has given it. For several of one archive there is
/// [`Archives`].
///
/// # Errors
/// [`Problem::Missing`] where there is no such member (any more), and whatever else prevents it.
pub fn open(file: File, member: &OsStr) -> Result<Object, Problem> {
    Archives::default().open(file, member)
}

/// Opens members of archives, many of them one after the other, and remembers the archive file that the last one was in: where
/// members lie that were passed, and the stream behind the last one where bytes can only be had in their order.
///
/// What it costs: for a zip or tar archive, reading the central directory or the headers once, whatever is opened in which
/// order. Of what lies in something compressed, all that precedes a member is inflated; members that are opened in the
/// order in which they lie take one pass together, and each step back begins from the start.
///
/// An archive file that is not the one it was, by its inode, size or times, is a new one. Clones share what is remembered.
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
    /// `on_read` is told of each read of an archive file.
    #[must_use]
    pub fn telling(on_read: OnRead) -> Self {
        Self { remembered: Arc::default(), on_read }
    }

    /// Opens a member of an archive file by its path, as [`walk`](super::walk()) has given it.
    ///
    /// # Errors
    /// [`Problem::Missing`] where there is no such member (any more), and whatever else prevents it.
    pub fn open(&self, file: File, member: &OsStr) -> Result<Object, Problem> {
        let steps = name::steps(member.as_bytes());
        if steps.len() > MAX_NESTING {
            return Err(Problem::NestedTooDeep);
        }
        let identity = FileIdentity::of(&file)?;
        let window = Window::whole(file, Arc::clone(&self.on_read))?;
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let archive = match remembered.as_mut() {
            Some(archive) if archive.identity == identity => archive,
            Some(_) | None => remembered.insert(Remembered { identity, window: window.clone(), levels: Vec::new() }),
        };
        let goes_on = !archive.levels.is_empty();
        let mut reached = archive.reach(&steps);
        if goes_on && matches!(reached, Ok(Reached::Unknown) | Err(_)) {
            // What is wrong counts only when it is so from the start.
            *archive = Remembered { identity, window, levels: Vec::new() };
            reached = archive.reach(&steps);
        }
        match reached {
            Ok(Reached::Member(found)) => Ok(found.into_object()),
            Ok(Reached::Refused(problem)) => Err(problem),
            Ok(Reached::Missing | Reached::Unknown) => Err(Problem::Missing),
            Err(problem) => {
                *remembered = None;
                Err(problem)
            }
        }
    }

    /// Whether the last member lay where bytes can only be had in their order.
    #[must_use]
    pub fn have_an_order(&self) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.as_ref().is_some_and(Remembered::has_an_order)
    }

    /// Which of these members of the last archive file is the next to lie where bytes can only be had in their order: opened in
    /// this order they take two passes at most. `None` where the order makes no difference, or none of them is met.
    #[must_use]
    pub fn next_of(&self, wanted: &Wanted) -> Option<OsString> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let archive = remembered.as_mut()?;
        if wanted.ways.is_empty() || !archive.has_an_order() {
            return None;
        }
        let met = archive.next_of(wanted).or_else(|| {
            // Those that lie before the one that was opened first.
            archive.levels.clear();
            archive.enter_file().ok()?;
            archive.next_of(wanted)
        });
        met.map(OsString::from_vec)
    }
}

/// Members of one archive file that are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    members: HashSet<Vec<u8>>,
    /// Their paths, and those of the archives on the way to them, with how many are wanted of each.
    ways: HashMap<Vec<u8>, usize>,
}

impl Wanted {
    /// One more.
    pub fn add(&mut self, member: &OsStr) {
        if !self.members.insert(member.as_bytes().to_vec()) {
            return;
        }
        for way in ways(member) {
            *self.ways.entry(way).or_default() += 1;
        }
    }

    /// One that was added is not wanted any more.
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

/// The paths of the archives that a member lies in, and its own.
fn ways(member: &OsStr) -> impl Iterator<Item = Vec<u8>> {
    name::steps(member.as_bytes()).into_iter().scan(Vec::new(), |path, step| {
        *path = step.below(path);
        Some(path.clone())
    })
}

/// What tells one archive file from another, or from itself after a change.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// An archive file, and the way into it that was taken last.
struct Remembered {
    identity: FileIdentity,
    window: Window,
    /// Archives that lie in each other, the file itself first.
    levels: Vec<Level>,
}

struct Level {
    /// Which member of the level above it is; of the file itself none.
    step: Option<Step>,
    archive: Archive,
}

impl Remembered {
    fn enter_file(&mut self) -> Result<(), Problem> {
        // The file itself is an archive, or was one when it was indexed: one that nothing at its start tells is a zip archive
        // behind a program that unpacks it.
        let budget = Budget::new(inflated_limit(self.window.length()));
        let archive = Archive::enter(Bytes::Window(self.window.clone()), Some(Kind::Zip), budget)?;
        self.levels.push(Level { step: None, archive });
        Ok(())
    }

    fn has_an_order(&self) -> bool {
        self.levels.iter().any(|level| matches!(level.archive, Archive::Stream(_)))
    }

    /// Goes forward in the innermost archive, then in those around it.
    fn next_of(&mut self, wanted: &Wanted) -> Option<Vec<u8>> {
        loop {
            let steps = self.levels.iter().filter_map(|level| level.step.as_ref());
            let path = steps.fold(Vec::new(), |path, step| step.below(&path));
            let depth = self.levels.len();
            let level = self.levels.last_mut()?;
            let stream = match &mut level.archive {
                Archive::Stream(stream) => stream,
                Archive::SingleFile(Some(_), _) => {
                    // It is called as the archive is, more or less: what is wanted of it has its name.
                    let inside = name::join(&path, b"");
                    let is_inside = |member: &&Vec<u8>| {
                        // What begins so is another member of the archive's name.
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
            // What is wrong with it is said when it is opened.
            if depth < MAX_NESTING
                && let Ok(Reached::Member(found)) = stream.member(&step)
                && let Ok(archive) = Archive::enter(found.bytes, None, found.budget)
            {
                self.levels.push(Level { step: Some(step), archive });
            }
        }
    }

    /// Goes to a member, from the last archive on that the way to it and the way to the one before have in common.
    fn reach(&mut self, steps: &[Step]) -> Result<Reached, Problem> {
        let limit = inflated_limit(self.window.length());
        let [archives @ .., _] = steps else { return Ok(Reached::Missing) };
        let levels = self.levels.iter().skip(1).zip(archives);
        let common = levels.take_while(|(level, step)| level.step.as_ref() == Some(step)).count();
        // What they took of the levels above goes back there.
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
            self.levels.push(Level { step: Some(step.clone()), archive });
        }
    }
}

enum Bytes {
    Window(Window),
    Stream(Box<dyn SkipRead>),
}

struct Found {
    bytes: Bytes,
    length: Option<u64>,
    checksum: Option<u32>,
    /// What may be inflated of it, if it is an archive itself.
    budget: Budget,
}

impl Found {
    fn into_object(self) -> Object {
        let reader: Box<dyn Read + Send> = match self.bytes {
            Bytes::Window(window) => Box::new(WindowReader::new(window)),
            Bytes::Stream(stream) => stream,
        };
        match self.length {
            Some(length) => {
                Object { reader: Box::new(Checked::new(reader, length, self.checksum)), length: Some(length) }
            }
            None => Object { reader, length: None },
        }
    }
}

/// Where the search for a member ended.
enum Reached {
    Member(Found),
    /// It is there, and cannot be read.
    Refused(Problem),
    /// It is not there.
    Missing,
    /// It can only be found from the start.
    Unknown,
}

impl From<Result<Found, Problem>> for Reached {
    fn from(found: Result<Found, Problem>) -> Self {
        found.map_or_else(Self::Refused, Self::Member)
    }
}

/// The members that were passed, by the hashes of their names and of which of their name they are.
#[derive(Default)]
struct Passed {
    places: HashMap<u64, u64>,
    /// How many there were of a name, by its hash, where there was more than one.
    again: HashMap<u64, u32>,
    hasher: RandomState,
    count: u64,
    ended: bool,
}

impl Passed {
    fn place(&self, step: &Step) -> Option<u64> {
        self.places.get(&self.hash(&step.name, step.occurrence)).copied()
    }

    fn hash(&self, name: &[u8], occurrence: u32) -> u64 {
        self.hasher.hash_one((name, occurrence))
    }

    /// How many of a name were passed.
    fn met(&self, name: &[u8]) -> u32 {
        let first = self.hash(name, 1);
        if !self.places.contains_key(&first) { 0 } else { self.again.get(&first).copied().unwrap_or(1) }
    }

    /// Remembers a member: which of its name it is, as far as is remembered.
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

    /// Whether each member that was passed is remembered.
    fn is_whole(&self) -> bool {
        self.count <= MAX_REMEMBERED as u64
    }

    fn goes_on(&self) -> bool {
        !self.ended && self.count <= MAX_MEMBERS
    }

    /// What it means that a member was not met up to the end.
    fn not_met(&self) -> Reached {
        if self.is_whole() { Reached::Missing } else { Reached::Unknown }
    }
}

/// An archive that was entered.
enum Archive {
    Zip {
        directory: Directory,
        passed: Passed,
    },
    /// tar, in a range of the file.
    Tar {
        headers: WindowReader,
        /// Bytes from where `headers` stands to the next header.
        data: u64,
        passed: Passed,
    },
    Stream(StreamArchive),
    /// The only file in a gzip file, while nobody has begun to read it.
    SingleFile(Option<Box<dyn SkipRead>>, Budget),
}

impl Archive {
    /// `otherwise` is what it is if its first bytes do not tell; `budget` what may be inflated of it in one pass.
    fn enter(bytes: Bytes, otherwise: Option<Kind>, budget: Budget) -> Result<Self, Problem> {
        match bytes {
            Bytes::Window(window) => {
                let mut start = [0; LOOK];
                let read = window.read_at(&mut start, 0)?;
                match Kind::of(start.get(..read).unwrap_or_default())?.or(otherwise) {
                    Some(Kind::Zip) => Ok(match Directory::find(&window)? {
                        Some(directory) => Self::Zip { directory, passed: Passed::default() },
                        None => Self::stream(StreamKind::Zip, Box::new(WindowReader::new(window)), budget),
                    }),
                    Some(Kind::Tar) => {
                        Ok(Self::Tar { headers: WindowReader::new(window), data: 0, passed: Passed::default() })
                    }
                    Some(Kind::Gzip) => Self::gzip(Box::new(WindowReader::new(window)), budget),
                    None => Err(Problem::Missing),
                }
            }
            Bytes::Stream(stream) => {
                let ahead = Ahead::look(stream, LOOK)?;
                match Kind::of(ahead.head())? {
                    Some(Kind::Zip) => Ok(Self::stream(StreamKind::Zip, Box::new(ahead), budget)),
                    Some(Kind::Tar) => Ok(Self::stream(StreamKind::Tar, Box::new(ahead), budget)),
                    Some(Kind::Gzip) => Self::gzip(Box::new(ahead), budget),
                    None => Err(Problem::Missing),
                }
            }
        }
    }

    fn gzip(source: Box<dyn SkipRead>, budget: Budget) -> Result<Self, Problem> {
        let metered = Metered { inner: MultiGzDecoder::new(source), budget: budget.clone() };
        let ahead = Ahead::look(Streamed(BufReader::with_capacity(BUFFER, metered)), LOOK)?;
        let is_tar = tar::is_header(ahead.head());
        let ahead = Box::new(ahead);
        Ok(if is_tar { Self::stream(StreamKind::Tar, ahead, budget) } else { Self::SingleFile(Some(ahead), budget) })
    }

    fn stream(kind: StreamKind, source: Box<dyn SkipRead>, budget: Budget) -> Self {
        let place = Arc::new(Mutex::new(Some(Standing::AtHeader(source))));
        Self::Stream(StreamArchive { kind, place, passed: Passed::default(), budget })
    }

    /// Goes to a member. `limit` is what may be inflated of one that can be had without the others.
    fn member(&mut self, step: &Step, limit: u64) -> Result<Reached, Problem> {
        match self {
            Self::Zip { directory, passed } => in_zip(directory, passed, step, limit),
            Self::Tar { headers, data, passed } => in_tar(headers, data, passed, step, limit),
            Self::Stream(stream) => stream.member(step),
            Self::SingleFile(stream, budget) => Ok(match stream.take() {
                Some(stream) => {
                    let (bytes, budget) = (Bytes::Stream(stream), budget.clone());
                    Reached::Member(Found { bytes, length: None, checksum: None, budget })
                }
                None => Reached::Unknown,
            }),
        }
    }
}

fn in_zip(directory: &mut Directory, passed: &mut Passed, step: &Step, limit: u64) -> Result<Reached, Problem> {
    if !passed.is_whole() {
        return Ok(Reached::Unknown);
    }
    if let Some(place) = passed.place(step) {
        let entry = directory.at(place)?;
        // Another one with the same hash.
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

fn member_of_zip(directory: &Directory, entry: &zip::Entry, limit: u64) -> Result<Found, Problem> {
    entry.check()?;
    let mut header = [0; zip::LOCAL_HEADER];
    let (window, ..) = directory.data(entry, &mut header)?;
    let budget = Budget::new(limit);
    let bytes = match entry.method {
        zip::STORED => Bytes::Window(window),
        _ => Bytes::Stream(Box::new(inflated(WindowReader::new(window), &budget))),
    };
    Ok(Found { bytes, length: Some(entry.size), checksum: Some(entry.checksum), budget })
}

fn inflated<S: SkipRead>(source: S, budget: &Budget) -> Inflated<S> {
    Streamed(BufReader::with_capacity(BUFFER, Inflate::new(source, None, budget.clone())))
}

type Inflated<S> = Streamed<BufReader<Inflate<S>>>;

fn in_tar(
    headers: &mut WindowReader,
    data: &mut u64,
    passed: &mut Passed,
    step: &Step,
    limit: u64,
) -> Result<Reached, Problem> {
    if !passed.is_whole() {
        return Ok(Reached::Unknown);
    }
    if let Some(place) = passed.place(step) {
        let mut header = WindowReader::at(headers.whole(), place, 2 * tar::BLOCK)?;
        let entry = tar::next(&mut header)?;
        return Ok(match entry.filter(|entry| entry.kind == EntryKind::File && entry.name == step.name) {
            Some(entry) => Reached::Member(member_of_tar(header, &entry, limit)),
            // Another one with the same hash.
            None => Reached::Unknown,
        });
    }
    let mut met = passed.met(&step.name);
    while passed.goes_on() {
        if headers.pass(*data)? < *data {
            return Err(Problem::Truncated);
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

fn member_of_tar(source: WindowReader, entry: &tar::Entry, limit: u64) -> Found {
    let bytes = match source.window(entry.size) {
        Some(window) => Bytes::Window(window),
        // Cut off: what is there of it, and then an error.
        None => Bytes::Stream(Box::new(Limited::new(source, entry.size))),
    };
    Found { bytes, length: Some(entry.size), checksum: None, budget: Budget::new(limit) }
}

#[derive(Clone, Copy)]
enum StreamKind {
    Zip,
    Tar,
}

/// An archive that goes forward only.
struct StreamArchive {
    kind: StreamKind,
    /// Where it stands; empty while somebody reads a member.
    place: Place,
    passed: Passed,
    budget: Budget,
}

type Place = Arc<Mutex<Option<Standing>>>;

enum Standing {
    AtHeader(Box<dyn SkipRead>),
    /// Behind the header of a member, which was looked at and is still to be had, and which of its name it is.
    AtData(Header, u32, Box<dyn SkipRead>),
    /// In or behind the data of a member.
    InMember(Box<dyn MemberStream>),
}

/// A header, which of its name the member is, and the stream behind the header.
type AtData = (Header, u32, Box<dyn SkipRead>);

enum Header {
    Zip(zip::Entry),
    Tar(tar::Entry),
}

impl Header {
    fn name(&self) -> &[u8] {
        match self {
            Self::Zip(entry) => &entry.name,
            Self::Tar(entry) => &entry.name,
        }
    }
}

impl StreamArchive {
    fn member(&mut self, step: &Step) -> Result<Reached, Problem> {
        if !self.passed.is_whole() {
            return Ok(Reached::Unknown);
        }
        let mut standing = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Standing::AtData(header, occurrence, source)) = standing {
            if header.name() == step.name && occurrence == step.occurrence {
                return Ok(self.member_here(header, source));
            }
            standing = Some(Standing::AtData(header, occurrence, source));
        }
        if self.passed.place(step).is_some() {
            return Ok(Reached::Unknown);
        }
        if !self.passed.goes_on() {
            return Ok(Reached::Missing);
        }
        let Some(standing) = standing else { return Ok(Reached::Unknown) };
        let mut met = self.passed.met(&step.name);
        let mut is_it = |other: &Step| {
            met += u32::from(other.name == step.name);
            other.name == step.name && met == step.occurrence
        };
        Ok(match self.go_to(standing, &mut is_it)? {
            Some((header, _, source)) => self.member_here(header, source),
            None => self.passed.not_met(),
        })
    }

    /// Goes forward to the next member that is wanted, and stays in front of its data.
    fn look_for(&mut self, is_wanted: &mut dyn FnMut(&Step) -> bool) -> Result<Option<Step>, Problem> {
        let standing = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(standing) = standing else { return Ok(None) };
        let Some((header, occurrence, source)) = self.go_to(standing, is_wanted)? else { return Ok(None) };
        let name = header.name().to_vec();
        self.put(Standing::AtData(header, occurrence, source));
        Ok(Some(Step { name, occurrence }))
    }

    /// Goes to the data of the next member of which this says that it is wanted; `None` at the end. It is asked about every
    /// member, in their order.
    fn go_to(
        &mut self,
        standing: Standing,
        is_wanted: &mut dyn FnMut(&Step) -> bool,
    ) -> Result<Option<AtData>, Problem> {
        let mut source = match standing {
            Standing::AtHeader(source) => source,
            Standing::AtData(header, _, source) => self.pass(&header, source)?,
            Standing::InMember(data) => data.leave()?,
        };
        while self.passed.goes_on() {
            let header = match self.kind {
                StreamKind::Zip => zip::next_local(&mut source)?.map(Header::Zip),
                StreamKind::Tar => tar::next(&mut source)?.map(Header::Tar),
            };
            let Some(header) = header else {
                self.passed.ended = true;
                break;
            };
            let is_file = match &header {
                Header::Tar(entry) => entry.kind == EntryKind::File,
                Header::Zip(entry) if entry.is_described_after() && entry.method != zip::DEFLATED => {
                    return Err(Problem::NoSize);
                }
                Header::Zip(_) => true,
            };
            let occurrence = self.passed.pass(header.name(), 0);
            let step = Step { name: header.name().to_vec(), occurrence };
            if is_wanted(&step) && is_file {
                return Ok(Some((header, step.occurrence, source)));
            }
            source = self.pass(&header, source)?;
        }
        Ok(None)
    }

    /// Goes to where the next member begins.
    fn pass(&self, header: &Header, mut source: Box<dyn SkipRead>) -> Result<Box<dyn SkipRead>, Problem> {
        match header {
            Header::Tar(entry) => {
                let padded = entry.padded();
                if source.pass(padded)? < padded { Err(Problem::Truncated) } else { Ok(source) }
            }
            // Only a deflate stream tells by itself where it ends.
            Header::Zip(entry) => self.in_zip(entry, source, entry.is_described_after()).leave(),
        }
    }

    /// The member in front of whose data the stream stands.
    fn member_here(&self, header: Header, source: Box<dyn SkipRead>) -> Reached {
        match header {
            Header::Tar(entry) => self.member_of_tar(&entry, source),
            Header::Zip(entry) => self.member_of_zip(&entry, source),
        }
    }

    fn member_of_tar(&self, entry: &tar::Entry, source: Box<dyn SkipRead>) -> Reached {
        let window = source.window(entry.size);
        let padding = entry.padded() - entry.size;
        let data = Member {
            data: Limited::new(source, entry.size),
            leave: move |data: Limited<Box<dyn SkipRead>>| {
                let left = data.left().saturating_add(padding);
                let mut source = data.into_inner();
                if source.pass(left)? < left { Err(Problem::Truncated) } else { Ok(source) }
            },
        };
        let bytes = match window {
            Some(window) => {
                self.put(Standing::InMember(Box::new(data)));
                Bytes::Window(window)
            }
            None => self.lend(Box::new(data)),
        };
        Reached::Member(Found { bytes, length: Some(entry.size), checksum: None, budget: self.budget.clone() })
    }

    fn member_of_zip(&self, entry: &zip::Entry, source: Box<dyn SkipRead>) -> Reached {
        let data = self.in_zip(entry, source, entry.method == zip::DEFLATED);
        if let Err(problem) = entry.check() {
            self.put(Standing::InMember(data));
            return Reached::Refused(problem);
        }
        let known = (!entry.is_described_after()).then_some(());
        Reached::Member(Found {
            bytes: self.lend(data),
            length: known.map(|()| entry.size),
            checksum: known.map(|()| entry.checksum),
            budget: self.budget.clone(),
        })
    }

    /// The data of a member, inflated or as they lie.
    fn in_zip(&self, entry: &zip::Entry, source: Box<dyn SkipRead>, inflate: bool) -> Box<dyn MemberStream> {
        let (after, described) = (entry.is_described_after(), entry.has_descriptor());
        let limited = Limited::new(source, if after { u64::MAX } else { entry.compressed });
        if !inflate {
            return Box::new(Member {
                data: limited,
                leave: move |limited: Limited<Box<dyn SkipRead>>| leave_zip_member(limited, after, described),
            });
        }
        Box::new(Member {
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

    fn put(&self, standing: Standing) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(standing);
    }

    /// Gives away the data of a member; when they are dropped, what is behind them can be read.
    fn lend(&self, data: Box<dyn MemberStream>) -> Bytes {
        Bytes::Stream(Box::new(Borrowed { data: Some(data), home: Arc::clone(&self.place) }))
    }
}

/// Passes over what is left of a member, and what describes it behind its data.
fn leave_zip_member(
    limited: Limited<Box<dyn SkipRead>>,
    after: bool,
    described: bool,
) -> Result<Box<dyn SkipRead>, Problem> {
    let left = if after { 0 } else { limited.left() };
    let mut source = limited.into_inner();
    if source.pass(left)? < left {
        return Err(Problem::Truncated);
    }
    if described {
        zip::pass_descriptor(&mut source)?;
    }
    Ok(source)
}

/// The data of a member, and the way out of them.
trait MemberStream: SkipRead {
    /// Goes to where the next member begins.
    fn leave(self: Box<Self>) -> Result<Box<dyn SkipRead>, Problem>;
}

struct Member<S, L> {
    data: S,
    leave: L,
}

impl<S: SkipRead, L: FnOnce(S) -> Result<Box<dyn SkipRead>, Problem> + Send> MemberStream for Member<S, L> {
    fn leave(self: Box<Self>) -> Result<Box<dyn SkipRead>, Problem> {
        (self.leave)(self.data)
    }
}

impl<S: SkipRead, L: Send> Read for Member<S, L> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.data.read(out)
    }
}

impl<S: SkipRead, L: Send> BufRead for Member<S, L> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.data.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.data.consume(count);
    }
}

impl<S: SkipRead, L: Send> SkipRead for Member<S, L> {
    fn pass(&mut self, count: u64) -> io::Result<u64> {
        self.data.pass(count)
    }

    fn window(&self, length: u64) -> Option<Window> {
        self.data.window(length)
    }
}

/// The data of a member that somebody reads. They go home when he is done.
struct Borrowed {
    /// There until it is dropped.
    data: Option<Box<dyn MemberStream>>,
    home: Place,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.data.take().map(Standing::InMember);
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

    fn window(&self, length: u64) -> Option<Window> {
        self.data.as_ref().and_then(|data| data.window(length))
    }
}
