//! Decides which entries the scan deletes from the index: those of deleted files, never those of
//! files on a disk that is not mounted.
//!
//! A disk that is not mounted looks like a directory whose files were all deleted. So the scan
//! deletes no entries below such a directory ([`Why`]), unless the user asked for it
//! ([`Vanished::PruneEmptied`]). One case differs: if a file has moved from an empty directory to
//! another place, the scan deletes its old entry.
//!
//! If another disk is mounted, the files of that disk are soon in the index too. So the index keeps
//! that the disk was exchanged ([`Mounted::Exchanged`]), until no file is missing there any more,
//! or the user asks for the deletion.
//!
//! A disk may also go away while the scan runs. So the scan looks at the disk again after it has
//! found files gone, and before it notes them ([`Guard::looks_due`]).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::file_system::FileSystemMark;
use super::{Stop, Vanished};
use crate::db::open::Reader;
use crate::db::{self, LocatedInstance, Mounted, PAGE_DIRECTORIES, ScanLedger, Search};
use crate::model::location::{Location, Place};

/// If the index has at least this many files in and below an empty directory, its disk may be
/// unmounted. The scan reads fewer files again in no time. A user who did delete so many files can
/// use `--prune-emptied`.
const EMPTIED_FILES: usize = 10;

/// Reason why the scan did not delete the entries of missing files below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The directory is empty, and the index has files in or below it.
    Empty,
    /// The directory holds other files. The index has files below it, and none of their names
    /// exists now, or none did in an earlier scan and some still do not.
    NothingKnown,
    /// A scan saw a mounted file system there, and it is not mounted now.
    NotMounted,
}

impl Why {
    /// A short, stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NothingKnown => "nothing-known",
            Self::NotMounted => "not-mounted",
        }
    }

    /// The reason in words.
    #[must_use]
    pub const fn in_full(self) -> &'static str {
        match self {
            Self::Empty => "the directory is empty, as if its disk were not mounted",
            Self::NothingKnown => "no file of the index is there, as if another disk were mounted",
            Self::NotMounted => "the file system that a scan saw there is not mounted",
        }
    }
}

/// A directory below which the scan deletes no entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) path: PathBuf,
    pub(super) why: Why,
}

/// A directory below which the scan deleted no entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotPruned {
    /// The directory.
    pub path: PathBuf,
    /// Reason why the scan deleted none.
    pub why: Why,
    /// Files of the index that are missing there and exist nowhere else.
    pub files: u64,
}

/// Checks each directory of the walk. It finds those whose entries must stay, and it tracks mount
/// points.
#[derive(Debug)]
pub(super) struct Guard {
    vanished: Vanished,
    /// The mount points that the index has.
    mount_points: BTreeSet<PathBuf>,
    /// The directories at which a scan found another disk than that of the files of the index.
    exchanged: BTreeSet<PathBuf>,
    /// Directories at which this scan is the first to find another disk.
    new_doubts: Vec<PathBuf>,
    /// The directories that count as roots of the scan, because they may be disks.
    named_roots: BTreeSet<PathBuf>,
    /// The file systems of the roots and mount points that this scan has seen.
    seen: BTreeMap<PathBuf, FileSystemMark>,
    /// The current root.
    root: PathBuf,
    suspects: Vec<Suspect>,
}

/// Findings of the walk in a directory.
pub(super) struct ListedDirectory<'a> {
    pub(super) path: &'a Path,
    /// Whether it is a root of the scan.
    pub(super) is_root: bool,
    /// Its file system. `None` if the system cannot tell.
    pub(super) file_system: Option<FileSystemMark>,
    /// Whether it has no entry at all.
    pub(super) is_empty: bool,
    /// Whether a file that the index has there still exists.
    pub(super) has_known_file: bool,
    /// Its subdirectories.
    pub(super) directories: &'a [OsString],
}

impl ListedDirectory<'_> {
    fn is_mount_point(&self) -> bool {
        self.file_system.is_some_and(|mark| mark.is_mount_point)
    }
}

impl Guard {
    pub(super) fn new(known: Option<&mut Reader>, vanished: Vanished) -> Result<Self, db::Error> {
        let (mount_points, exchanged, named_roots) = match known {
            Some(known) => (known.mount_points()?, known.exchanged_disks()?, known.named_roots()),
            None => Default::default(),
        };
        let (new_doubts, seen, root, suspects) = Default::default();
        Ok(Self { vanished, mount_points, exchanged, new_doubts, named_roots, seen, root, suspects })
    }

    /// Turns to a root.
    pub(super) fn enter(&mut self, root: &Path) {
        root.clone_into(&mut self.root);
    }

    /// Turns to a root, and checks the mount points above it. Returns the changes for the index.
    pub(super) fn root(&mut self, root: &Path) -> Vec<(PathBuf, Mounted)> {
        self.enter(root);
        let mut news = Vec::new();
        for above in root.ancestors().skip(1).filter(|path| path.parent().is_some()) {
            let file_system = FileSystemMark::at(above);
            let is_mounted = self.see(above, file_system);
            if let Some(new) = self.mounted(above, is_mounted) {
                news.push(new);
            }
            if !is_mounted && self.mount_points.contains(above) {
                self.suspect(root, Why::NotMounted);
            }
        }
        self.doubt(root);
        news
    }

    /// Lets the entries of a root stay if it lies on a disk that was exchanged.
    pub(super) fn doubt(&mut self, root: &Path) {
        if self.vanished == Vanished::Prune && root.ancestors().skip(1).any(|above| self.exchanged.contains(above)) {
            self.suspect(root, Why::NothingKnown);
        }
    }

    /// Checks a directory. Returns changes of its disk for the index.
    pub(super) fn directory(
        &mut self,
        listed: &ListedDirectory<'_>,
        known: Option<&mut Reader>,
    ) -> Result<Vec<(PathBuf, Mounted)>, db::Error> {
        if self.is_root(listed) {
            self.seen.extend(listed.file_system.map(|mark| (listed.path.to_owned(), mark)));
        }
        let is_mounted = self.see(listed.path, listed.file_system);
        let mut news = Vec::from_iter(self.mounted(listed.path, is_mounted));
        let Some(known) = known.filter(|_| !self.covers(listed.path)) else { return Ok(news) };
        if self.vanished == Vanished::PruneEmptied {
            if self.exchanged.remove(listed.path) {
                news.push((listed.path.to_owned(), Mounted::NotExchanged));
            }
            return Ok(news);
        }
        let why = self.why(listed, known)?;
        if why == Some(Why::NothingKnown) && self.exchanged.insert(listed.path.to_owned()) {
            self.new_doubts.push(listed.path.to_owned());
            news.push((listed.path.to_owned(), Mounted::Exchanged));
        }
        // If nothing is deleted, still nothing on a disk that is not mounted is missing.
        if let Some(why) = why.filter(|why| self.vanished == Vanished::Prune || *why == Why::NotMounted) {
            self.suspect(listed.path, why);
        }
        Ok(news)
    }

    /// Notes a mount point that is there. Returns whether it is one.
    fn see(&mut self, path: &Path, file_system: Option<FileSystemMark>) -> bool {
        let mounted = file_system.filter(|mark| mark.is_mount_point);
        self.seen.extend(mounted.map(|mark| (path.to_owned(), mark)));
        mounted.is_some()
    }

    /// The file systems to look at again before files at or below `path` count as gone. This scan
    /// has seen them, or the index has them.
    pub(super) fn looks_due(&self, path: &Path) -> Vec<PathBuf> {
        let above = path.ancestors().filter(|of| self.seen.contains_key(*of) || self.mount_points.contains(*of));
        let from = (Bound::Included(path), Bound::Unbounded);
        let seen = self.seen.range::<Path, _>(from).map(|(of, _)| of).take_while(|of| of.starts_with(path));
        let known = self.mount_points.range::<Path, _>(from).take_while(|of| of.starts_with(path));
        let due: BTreeSet<&Path> = above.chain(seen.chain(known).map(PathBuf::as_path)).collect();
        due.into_iter().filter(|of| !self.covers(self.part_of_root(of))).map(Path::to_owned).collect()
    }

    /// Compares a file system with what it was. `now` is `None` if it is gone or does not answer.
    /// Returns a change of its mount point for the index.
    pub(super) fn looked(&mut self, at: &Path, now: Option<FileSystemMark>) -> Option<(PathBuf, Mounted)> {
        let was = self.seen.get(at).copied();
        let is_there = now.is_some_and(|now| was.map_or(now.is_mount_point, |was| now == was));
        if is_there {
            return None;
        }
        let path = self.part_of_root(at).to_owned();
        if was.is_some() && !self.covers(&path) {
            // Nobody meant a disk that went away during the scan.
            self.suspects.push(Suspect { path, why: Why::NotMounted });
            return None;
        }
        self.suspect(&path, Why::NotMounted);
        self.mounted(at, false)
    }

    /// Part of the current root that lies in a file system.
    fn part_of_root<'a>(&'a self, file_system: &'a Path) -> &'a Path {
        if self.root.starts_with(file_system) { &self.root } else { file_system }
    }

    /// Whether the entries of a directory must stay.
    pub(super) fn covers(&self, path: &Path) -> bool {
        self.suspects.iter().any(|suspect| path.starts_with(&suspect.path))
    }

    pub(super) fn suspects(&self) -> &[Suspect] {
        &self.suspects
    }

    /// The directories of which this scan says first that their disk was exchanged.
    pub(super) fn new_doubts(&self) -> &[PathBuf] {
        &self.new_doubts
    }

    fn mounted(&mut self, path: &Path, is_mounted: bool) -> Option<(PathBuf, Mounted)> {
        let was_mounted = self.mount_points.contains(path);
        match (was_mounted, is_mounted) {
            // The root directory of the system is always a mount point.
            (false, true) if path.parent().is_some() => {
                self.mount_points.insert(path.to_owned());
                Some((path.to_owned(), Mounted::Yes))
            }
            (true, false) if self.vanished == Vanished::PruneEmptied => {
                self.mount_points.remove(path);
                Some((path.to_owned(), Mounted::NoLonger))
            }
            (true | false, true | false) => None,
        }
    }

    fn suspect(&mut self, path: &Path, why: Why) {
        if self.vanished != Vanished::PruneEmptied && !self.covers(path) {
            self.suspects.push(Suspect { path: path.to_owned(), why });
        }
    }

    /// Whether an earlier scan saw a file system there that is not mounted now.
    fn is_unmounted(&self, listed: &ListedDirectory<'_>) -> bool {
        self.mount_points.contains(listed.path) && !listed.is_mount_point()
    }

    fn is_root(&self, listed: &ListedDirectory<'_>) -> bool {
        listed.is_root || self.named_roots.contains(listed.path)
    }

    fn why(&self, listed: &ListedDirectory<'_>, known: &mut Reader) -> Result<Option<Why>, db::Error> {
        if self.is_unmounted(listed) {
            return Ok(Some(Why::NotMounted));
        }
        let is_root = self.is_root(listed) || listed.is_mount_point();
        if listed.is_empty {
            if self.vanished == Vanished::Keep {
                return Ok(None);
            }
            let enough = if is_root { 1 } else { EMPTIED_FILES };
            return Ok(has_files(known, listed.path, enough)?.then_some(Why::Empty));
        }
        // What is known now may be of the other disk.
        if self.exchanged.contains(listed.path) {
            return Ok(Some(Why::NothingKnown));
        }
        if !is_root || listed.has_known_file || !has_files(known, listed.path, 1)? {
            return Ok(None);
        }
        for name in listed.directories {
            let path = listed.path.join(name);
            // An archive file has its note in the files of its directory.
            if !known.directory_files(&path)?.is_empty()
                || !known.directories_below(Place::InPlace, &path, &path, 1)?.is_empty()
            {
                return Ok(None);
            }
        }
        Ok(Some(Why::NothingKnown))
    }
}

/// Whether the index has at least `enough` files with instances in and below a directory.
fn has_files(known: &mut Reader, root: &Path, enough: usize) -> Result<bool, db::Error> {
    let mut count = 0;
    each_directory(known, root, &mut |known, place, directory| {
        count += match place {
            Place::Archive => usize::try_from(known.archive_summary(directory)?.0).unwrap_or(usize::MAX),
            Place::InPlace | Place::Managed | Place::MetadataOnly => {
                known.directory_files(directory)?.values().filter(|file| file.is_indexed()).count()
            }
        };
        Ok(count < enough)
    })?;
    Ok(count >= enough)
}

/// Whether any file with an instance that the index has in or below a directory is there.
pub(super) fn has_file_there(known: &mut Reader, root: &Path) -> Result<bool, db::Error> {
    let mut is_there = false;
    each_directory(known, root, &mut |known, place, directory| {
        is_there = match place {
            Place::Archive => directory.is_file(),
            Place::InPlace | Place::Managed | Place::MetadataOnly => {
                let files = known.directory_files(directory)?;
                let mut indexed = files.into_iter().filter(|(_, file)| file.is_indexed());
                indexed.any(|(name, _)| directory.join(name).symlink_metadata().is_ok())
            }
        };
        Ok(!is_there)
    })?;
    Ok(is_there)
}

/// Calls `work` for a directory, and for each directory and archive file of the index below it.
/// Ends when `work` returns `false`.
fn each_directory(
    known: &mut Reader,
    root: &Path,
    work: &mut dyn FnMut(&mut Reader, Place, &Path) -> Result<bool, db::Error>,
) -> Result<(), db::Error> {
    for place in [Place::InPlace, Place::Archive] {
        if !work(known, place, root)? {
            return Ok(());
        }
        let mut after = root.to_owned();
        loop {
            let page = known.directories_below(place, root, &after, PAGE_DIRECTORIES)?;
            let Some(last) = page.last() else { break };
            after.clone_from(last);
            for directory in &page {
                if !work(known, place, directory)? {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Whether the file of a location exists. For a member of an archive, whether the archive exists.
fn lies_there(location: &Location) -> bool {
    match location.place {
        Place::Archive => location.directory.exists(),
        Place::InPlace | Place::Managed => location.path().is_some_and(|path| path.exists()),
        Place::MetadataOnly => false,
    }
}

/// Files of a directory or archive file that are not there, below a suspect.
#[derive(Default)]
pub(super) struct GoneFiles {
    /// Files that now exist elsewhere.
    pub(super) moved: Vec<OsString>,
    /// Files that the index takes for accessible, and that are not on a disk that is not mounted.
    pub(super) missing: Vec<OsString>,
}

/// Takes the files of a directory that are not there.
type OnGone<'a> = dyn FnMut(Place, &Path, GoneFiles) -> Result<(), super::Error> + 'a;

/// Checks the files of the index that are missing below the suspects. All other files must be in
/// the index before. Calls `on_gone` for each directory with such files, if it has to change.
/// Returns the suspects that still have missing files.
pub(super) fn find_moved(
    known: &mut Reader,
    suspects: &[Suspect],
    stop: &Stop,
    was_seen: &dyn Fn(&str) -> bool,
    on_gone: &mut OnGone<'_>,
) -> Result<Vec<NotPruned>, super::Error> {
    let is_suspect = |path: &Path| suspects.iter().any(|suspect| path.starts_with(&suspect.path));
    let mut left = Vec::new();
    for suspect in suspects {
        let mut files = 0;
        let mut failure = None;
        each_directory(known, &suspect.path, &mut |known, place, directory| {
            if place == Place::Archive && directory.is_file() {
                return Ok(true);
            }
            let mut gone = GoneFiles::default();
            let noted = noted_as_missing(known, place, directory)?;
            for LocatedInstance { location, sop_instance_uid: uid, .. } in known.located_instances(place, directory)? {
                let name = location.file_name;
                if place == Place::InPlace && directory.join(&name).symlink_metadata().is_ok() {
                    continue;
                }
                let mut elsewhere = known.locations(&uid)?.into_iter();
                if was_seen(&uid) || elsewhere.any(|other| !is_suspect(&other.directory) && lies_there(&other)) {
                    // A disk that is not mounted still has its copy.
                    if suspect.why != Why::NotMounted {
                        gone.moved.push(name);
                    }
                    continue;
                }
                files += 1;
                if suspect.why != Why::NotMounted && !noted.contains(&name) {
                    gone.missing.push(name);
                }
            }
            if !(gone.moved.is_empty() && gone.missing.is_empty())
                && let Err(error) = on_gone(place, directory, gone)
            {
                failure = Some(error);
            }
            Ok(failure.is_none() && !stop.is_asked())
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        if files > 0 {
            left.push(NotPruned { path: suspect.path.clone(), why: suspect.why, files });
        }
    }
    Ok(left)
}

/// The files of a directory or archive file of which the index knows that they are missing.
fn noted_as_missing(known: &mut Reader, place: Place, directory: &Path) -> Result<HashSet<OsString>, db::Error> {
    let mut noted = HashSet::new();
    let mut note = |name: OsString, file: db::KnownFile| {
        if file.missing {
            noted.insert(name);
        }
    };
    match place {
        Place::Archive => known.archive_members(directory, &mut note)?,
        Place::InPlace | Place::Managed | Place::MetadataOnly => {
            known.directory_files(directory)?.into_iter().for_each(|(name, file)| note(name, file));
        }
    }
    Ok(noted)
}
