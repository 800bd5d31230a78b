//! The directories that a walk has yet to send, in its order. Some are asked for before their turn,
//! so that a file server answers several questions at a time.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::file_system::FileSystemMark;
use super::listing::Opened;
use super::watchdog::StartedCall;
use super::work::{EntryReport, WorkEntry};
use crate::db::KnownFile;

/// Files that the directories before their turn may hold together, if all are as large as the
/// largest one of late. Larger: more memory, some 300 bytes for each file. Smaller: directories of
/// some hundred files wait for the file server one after the other.
const FILES_AHEAD: usize = 4096;

/// The content of a directory.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) files: Vec<WorkEntry>,
    /// Shared with the list of what comes next.
    pub(super) directories: Rc<Vec<OsString>>,
    pub(super) reports: Vec<EntryReport>,
    /// The error that ended the listing early.
    pub(super) error: Option<io::Error>,
}

impl Listing {
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.directories.is_empty() && self.reports.is_empty()
    }
}

/// A directory that the file system was asked for.
pub(super) struct AskedDirectory {
    pub(super) path: PathBuf,
    /// The files that the index had before.
    pub(super) known: HashMap<OsString, KnownFile>,
    pub(super) call: StartedCall<io::Result<Opened>>,
}

/// A directory with its entries.
pub(super) struct SortedDirectory {
    pub(super) path: PathBuf,
    pub(super) known: HashMap<OsString, KnownFile>,
    /// `None` if it could not be opened.
    pub(super) handle: Option<OwnedFd>,
    pub(super) listing: Listing,
    pub(super) file_system: Option<FileSystemMark>,
}

/// A directory that is asked for, or listed.
pub(super) enum UpcomingDirectory {
    Asked(Box<AskedDirectory>),
    Listed(Box<SortedDirectory>),
}

/// Subdirectories that nobody has asked for yet. Memory holds their names only, and only along one
/// path.
struct UnaskedNames {
    parent: PathBuf,
    names: Rc<Vec<OsString>>,
    next: usize,
}

enum UpcomingItem {
    Directory(UpcomingDirectory),
    /// A directory that is too large to be listed before its turn.
    Large(PathBuf),
    Unasked(UnaskedNames),
}

/// State of a directory of [`Upcoming`].
pub(super) enum UpcomingState<'u> {
    /// Nobody has asked for it yet. Whoever does inserts it.
    Unasked(PathBuf),
    Asked(&'u mut AskedDirectory),
    /// It is listed, or waits for its turn.
    Rests,
}

/// The directories that come next.
pub(super) struct Upcoming {
    items: VecDeque<UpcomingItem>,
    /// Most directories that may be asked for or listed.
    most: usize,
    /// Directories that were listed.
    listed: usize,
    /// Files of the largest directory of late.
    largest: usize,
}

impl Upcoming {
    /// The walk of a root that asks for at most so many directories at a time.
    pub(super) fn new(root: &Path, most: usize) -> Self {
        // A path joined with an absolute one is that one.
        let names = Rc::new(vec![root.as_os_str().to_owned()]);
        let unasked = UnaskedNames { parent: root.to_owned(), names, next: 0 };
        Self { items: [UpcomingItem::Unasked(unasked)].into(), most, listed: 0, largest: 0 }
    }

    /// Number of directories that may be asked for or listed now. It grows from one, so that an
    /// archive of huge directories does not begin with many of them.
    pub(super) fn depth(&self) -> usize {
        self.most.min(self.listed + 1).min(FILES_AHEAD / self.largest.max(1)).max(1)
    }

    /// Number of entries of a directory that may be listed before its turn. All such directories
    /// together then have a limited number.
    pub(super) fn entries_ahead(&self) -> usize {
        2 * FILES_AHEAD / self.depth()
    }

    /// State of the directory with this number. `None` if there are not so many.
    pub(super) fn state_of(&mut self, at: usize) -> Option<UpcomingState<'_>> {
        while let Some(UpcomingItem::Unasked(unasked)) = self.items.get(at)
            && unasked.next == unasked.names.len()
        {
            self.items.remove(at);
        }
        if at == 0
            && let Some(UpcomingItem::Large(path)) = self.items.front_mut()
        {
            let path = std::mem::take(path);
            self.items.pop_front();
            return Some(UpcomingState::Unasked(path));
        }
        match self.items.get_mut(at)? {
            UpcomingItem::Directory(UpcomingDirectory::Listed(_)) | UpcomingItem::Large(_) => {
                Some(UpcomingState::Rests)
            }
            UpcomingItem::Directory(UpcomingDirectory::Asked(asked)) => Some(UpcomingState::Asked(asked)),
            UpcomingItem::Unasked(UnaskedNames { parent, names, next }) => {
                let name = names.get(*next)?;
                *next += 1;
                Some(UpcomingState::Unasked(parent.join(name)))
            }
        }
    }

    pub(super) fn insert_asked(&mut self, at: usize, asked: AskedDirectory) {
        self.largest = self.largest.max(asked.known.len());
        self.items.insert(at, UpcomingItem::Directory(UpcomingDirectory::Asked(Box::new(asked))));
    }

    /// Sets the entries of the directory with this number.
    pub(super) fn set_listed(&mut self, at: usize, listed: SortedDirectory) {
        self.insert_below(at + 1, &listed);
        if let Some(item) = self.items.get_mut(at) {
            *item = UpcomingItem::Directory(UpcomingDirectory::Listed(Box::new(listed)));
        }
    }

    /// Lets the directory with this number wait for its turn, because it has more than so many
    /// entries.
    pub(super) fn set_large(&mut self, at: usize, path: PathBuf, entries: usize) {
        self.largest = self.largest.max(entries);
        if let Some(item) = self.items.get_mut(at) {
            *item = UpcomingItem::Large(path);
        }
    }

    /// Inserts the subdirectories of a directory, which come after it.
    pub(super) fn insert_below(&mut self, at: usize, above: &SortedDirectory) {
        self.listed += 1;
        let files = above.listing.files.len().max(above.known.len());
        self.largest = files.max(self.largest / 8 * 7);
        let names = Rc::clone(&above.listing.directories);
        if !names.is_empty() {
            self.items.insert(at, UpcomingItem::Unasked(UnaskedNames { parent: above.path.clone(), names, next: 0 }));
        }
    }

    /// Takes the first directory out. `None` if there are no more.
    pub(super) fn take_first(&mut self) -> Option<UpcomingDirectory> {
        match self.items.pop_front()? {
            UpcomingItem::Directory(directory) => Some(directory),
            UpcomingItem::Unasked(_) | UpcomingItem::Large(_) => None,
        }
    }
}
