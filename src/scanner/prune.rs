//! Decides which entries the scan deletes from the index: those of deleted files, never those of
//! files on a disk that is not mounted.
//!
//! A disk that is not mounted looks like a directory whose files were all deleted. So the scan
//! deletes no entries below such a directory ([`Why`]), unless the user asked for it
//! ([`Vanished::PruneEmptied`]). One case differs: if a file has moved from there to another place,
//! the scan deletes its old entry.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::{Stop, Vanished};
use crate::db::open::Reader;
use crate::db::{self, LocatedInstance, Mounted, ScanLedger, Search};
use crate::model::location::{Location, Place};

/// If the index has at least this many files in and below an empty directory, its disk may be
/// unmounted. The scan reads fewer files again in no time. A user who did delete so many files can
/// use `--prune-emptied`.
const EMPTIED_FILES: usize = 10;

/// Directories of the index that one query returns.
const PAGE_DIRECTORIES: usize = 1000;

/// Why the scan did not delete the entries of missing files below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The directory is empty, and the index has files in or below it.
    Empty,
    /// The directory holds other files. The index has files below it, and none of their names
    /// exists now.
    NothingKnown,
    /// An earlier scan saw a mounted file system there, and it is not mounted now.
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
            Self::NotMounted => "the file system that an earlier scan saw there is not mounted",
        }
    }
}

/// A directory below which the scan deletes no entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    path: PathBuf,
    why: Why,
}

/// A directory below which the scan deleted no entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotPruned {
    /// The directory.
    pub path: PathBuf,
    /// Why not.
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
    suspects: Vec<Suspect>,
}

/// What the walk found in a directory.
pub(super) struct ListedDirectory<'a> {
    pub(super) path: &'a Path,
    /// Whether it is a root of the scan.
    pub(super) is_root: bool,
    /// Whether a file system is mounted there.
    pub(super) is_mount_point: bool,
    /// Whether it has no entry at all.
    pub(super) is_empty: bool,
    /// Whether a file that the index has there still exists.
    pub(super) has_known_file: bool,
    /// Its subdirectories.
    pub(super) directories: &'a [OsString],
}

impl Guard {
    pub(super) fn new(known: Option<&mut Reader>, vanished: Vanished) -> Result<Self, db::Error> {
        let mount_points = known.map_or(Ok(BTreeSet::new()), Reader::mount_points)?;
        Ok(Self { vanished, mount_points, suspects: Vec::new() })
    }

    /// Checks the mount points above a root. Returns the changes for the index.
    pub(super) fn root(&mut self, root: &Path) -> Vec<(PathBuf, Mounted)> {
        let mut news = Vec::new();
        for above in root.ancestors().skip(1).filter(|path| path.parent().is_some()) {
            let is_mounted = rustix::fs::openat(
                rustix::fs::CWD,
                above,
                rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )
            .is_ok_and(is_mount_point);
            if let Some(new) = self.mounted(above, is_mounted) {
                news.push(new);
            }
            if !is_mounted && self.mount_points.contains(above) {
                self.suspect(root, Why::NotMounted);
            }
        }
        news
    }

    /// Checks a directory. Returns a change of its mount point for the index.
    pub(super) fn directory(
        &mut self,
        listed: &ListedDirectory<'_>,
        known: Option<&mut Reader>,
    ) -> Result<Option<(PathBuf, Mounted)>, db::Error> {
        let news = self.mounted(listed.path, listed.is_mount_point);
        if self.covers(listed.path) {
            return Ok(news);
        }
        let why = match (self.vanished, known) {
            (Vanished::Prune, Some(known)) => self.why(listed, known)?,
            // Nothing is deleted, but what lies on a disk that is not mounted is not missing.
            (Vanished::Keep, Some(_)) => self.is_unmounted(listed).then_some(Why::NotMounted),
            (Vanished::Prune | Vanished::Keep, None) | (Vanished::PruneEmptied, _) => None,
        };
        if let Some(why) = why {
            self.suspect(listed.path, why);
        }
        Ok(news)
    }

    /// Checks a directory that the index has and that is gone.
    pub(super) fn gone(&mut self, path: &Path) -> Option<(PathBuf, Mounted)> {
        // A mount point above it may be gone too, even if the index has no files directly in it.
        let above = path.ancestors().find(|above| self.mount_points.contains(*above))?.to_owned();
        if above.is_dir() {
            return None;
        }
        self.suspect(&above, Why::NotMounted);
        self.mounted(&above, false)
    }

    /// Whether the entries of a directory must stay.
    pub(super) fn covers(&self, path: &Path) -> bool {
        self.suspects.iter().any(|suspect| path.starts_with(&suspect.path))
    }

    pub(super) fn into_suspects(self) -> Vec<Suspect> {
        self.suspects
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
        self.mount_points.contains(listed.path) && !listed.is_mount_point
    }

    fn why(&self, listed: &ListedDirectory<'_>, known: &mut Reader) -> Result<Option<Why>, db::Error> {
        if self.is_unmounted(listed) {
            return Ok(Some(Why::NotMounted));
        }
        let is_root = listed.is_root || listed.is_mount_point;
        if listed.is_empty {
            let enough = if is_root { 1 } else { EMPTIED_FILES };
            return Ok(has_files(known, listed.path, enough)?.then_some(Why::Empty));
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
    /// Those that now exist elsewhere.
    pub(super) moved: Vec<OsString>,
    /// Those that the index takes for accessible, and that are not on a disk that is not mounted.
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
                    gone.moved.push(name);
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

/// Whether an open directory is a mount point. False if the system cannot tell.
#[cfg(target_os = "linux")]
pub(super) fn is_mount_point(directory: impl AsFd) -> bool {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Always false: this system cannot tell.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_mount_point(_directory: impl AsFd) -> bool {
    false
}
