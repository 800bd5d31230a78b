//! Opens members of archives for reading from start to end.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::BufReader;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::{Arc, Mutex, PoisonError};

use super::adapters::{Peeked, Streamed};
use super::found::{BUFFER, FoundMember, MemberData, Passed, Reached};
use super::gzip::GzipContent;
use super::inflate::{Budget, Metered};
use super::limits::{MAX_NESTING, inflated_limit};
use super::look_up::{in_tar, in_zip};
use super::name::{self, PathStep};
use super::object::Object;
use super::problem::ArchiveProblem;
use super::range::{FileRange, OnRead, RangeReader, SkipRead};
use super::stream::{StreamArchive, StreamKind};
use super::tar;
use super::wanted::WantedMembers;
use super::zip::CentralDirectory;
use super::{ArchiveKind, KIND_BYTES};
use crate::files::FileMark;

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
/// A zip or tar archive costs one read of its central directory or of its headers, in any order of
/// members. In a compressed stream, all bytes before a member must be inflated. Members
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
        Self::with_read_callback(Arc::new(|_| ()))
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
    pub fn with_read_callback(on_read: OnRead) -> Self {
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
        let range = FileRange::whole(file, Arc::clone(&self.on_read))?;
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let archive = match remembered.as_mut() {
            Some(archive) if archive.identity == identity => archive,
            Some(_) | None => remembered.insert(Remembered { identity, range: range.clone(), levels: Vec::new() }),
        };
        let goes_on = !archive.levels.is_empty();
        let mut reached = archive.reach(&steps);
        if goes_on && matches!(reached, Ok(Reached::Unknown) | Err(_)) {
            // An error counts only if it also occurs when reading from the start.
            *archive = Remembered { identity, range, levels: Vec::new() };
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
    pub fn is_forward_only(&self) -> bool {
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
        if wanted.paths.is_empty() || !archive.has_an_order() {
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

/// An archive file, with the nested archives that the last member lay in.
struct Remembered {
    identity: FileMark,
    range: FileRange,
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
        let budget = Budget::new(inflated_limit(self.range.length()));
        let archive = Archive::enter(MemberData::Range(self.range.clone()), Some(ArchiveKind::Zip), budget)?;
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
                        // `!/` here marks the second of two members with one name
                        // (archive/name.rs).
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
            let met = stream.look_for(&mut |step| wanted.paths.contains_key(&step.below(&path)));
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
        let limit = inflated_limit(self.range.length());
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

/// An opened archive.
enum Archive {
    Zip {
        directory: CentralDirectory,
        passed: Passed,
    },
    /// A tar archive that lies uncompressed in the file.
    Tar {
        headers: RangeReader,
        /// Bytes from the position of `headers` to the next header.
        data: u64,
        passed: Passed,
    },
    Stream(StreamArchive),
    /// The only file in a gzip file. `None` after somebody has opened it.
    SingleFile(Option<Box<dyn SkipRead>>, Budget),
}

impl Archive {
    /// Opens an archive. If its first bytes do not tell the kind, it is `default_kind`. `budget`
    /// limits the bytes that one pass may inflate.
    fn enter(bytes: MemberData, default_kind: Option<ArchiveKind>, budget: Budget) -> Result<Self, ArchiveProblem> {
        match bytes {
            MemberData::Range(range) => {
                let mut start = [0; KIND_BYTES];
                let read = range.read_at(&mut start, 0)?;
                match ArchiveKind::of(start.get(..read).unwrap_or_default())?.or(default_kind) {
                    Some(ArchiveKind::Zip) => Ok(match CentralDirectory::find(&range)? {
                        Some(directory) => Self::Zip { directory, passed: Passed::default() },
                        None => Self::stream(StreamKind::Zip, Box::new(RangeReader::new(range)), budget),
                    }),
                    Some(ArchiveKind::Tar) => {
                        Ok(Self::Tar { headers: RangeReader::new(range), data: 0, passed: Passed::default() })
                    }
                    Some(ArchiveKind::Gzip) => Self::gzip(Box::new(RangeReader::new(range)), budget),
                    None => Err(ArchiveProblem::Missing),
                }
            }
            MemberData::Stream(stream) => {
                let ahead = Peeked::fill(stream, KIND_BYTES)?;
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
        let metered = Metered { inner: GzipContent::new(source), budget: budget.clone() };
        let ahead = Peeked::fill(Streamed(BufReader::with_capacity(BUFFER, metered)), KIND_BYTES)?;
        let is_tar = tar::is_header(ahead.head());
        let ahead = Box::new(ahead);
        Ok(if is_tar { Self::stream(StreamKind::Tar, ahead, budget) } else { Self::SingleFile(Some(ahead), budget) })
    }

    fn stream(kind: StreamKind, source: Box<dyn SkipRead>, budget: Budget) -> Self {
        Self::Stream(StreamArchive::new(kind, source, budget))
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
