//! The walk lists directories depth first, sorted by name. It cuts them into units of work.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use fail::fail_point;
use rustix::fs::{CWD, FileType};

use super::file_system::FileSystemMark;
use super::filter::FilterState;
use super::listing::{Opened, RawEntry, open_directory, time_of, timed_out};
use super::prune::{Guard, ListedDirectory, Suspect};
use super::scan_roots::ScanRoots;
use super::upcoming::{AskedDirectory, Listing, SortedDirectory, Upcoming, UpcomingDirectory, UpcomingState};
use super::watchdog::TimedFs;
use super::work::{EntryReport, KnownAs, SPECIAL_FILE, WorkDirectory, WorkEntry, WorkUnit};
use super::{BeforeListing, Error, Options, Stop, UNIT_FILES, WalkOrder, skip};
use crate::db::{self, KnownFile, Mounted, NotIndexed, PAGE_DIRECTORIES, ScanLedger, is_reserved};
use crate::model::location::Place;

/// The reason for entries that a filter excludes.
const EXCLUDED: &str = "excluded";

/// State that the walk leaves when it is over.
pub(super) struct Walked {
    pub(super) known: Option<db::open::Reader>,
    guard: Guard,
    timed_fs: TimedFs,
}

impl Walked {
    /// Looks at all file systems of these roots again. Returns the directories below which no file
    /// counts as gone.
    pub(super) fn look_again(&mut self, roots: &[PathBuf]) -> Result<&[Suspect], Error> {
        let mut looks = LooksAgain::default();
        for root in roots {
            self.guard.enter(root);
            // The next scan notes changes of mount points.
            looks.take(&mut self.guard, &mut self.timed_fs, root)?;
        }
        Ok(self.guard.suspects())
    }

    /// The directories of which this scan says first that their disk was exchanged.
    pub(super) fn new_doubts(&self) -> &[PathBuf] {
        self.guard.new_doubts()
    }
}

/// Looks at file systems again, at each once. Whoever found files gone takes one afterwards.
#[derive(Default)]
struct LooksAgain {
    found: HashMap<PathBuf, Option<FileSystemMark>>,
}

impl LooksAgain {
    /// Looks at the file systems at, above and below a path. Returns the changes of mount points
    /// for the index.
    fn take(
        &mut self,
        guard: &mut Guard,
        timed_fs: &mut TimedFs,
        path: &Path,
    ) -> Result<Vec<(PathBuf, Mounted)>, Error> {
        let mut news = Vec::new();
        for at in guard.looks_due(path) {
            let found = match self.found.get(&at) {
                Some(found) => *found,
                None => {
                    let asked = at.clone();
                    // One that does not answer is away.
                    let found = timed_fs.run(&at, move || FileSystemMark::at(&asked))?.flatten();
                    self.found.insert(at.clone(), found);
                    found
                }
            };
            news.extend(guard.looked(&at, found));
        }
        Ok(news)
    }
}

/// Walks all roots and gives the units to `send`. It ends when `send` returns `false` or a stop is
/// requested.
pub(super) fn walk(
    scan_roots: &ScanRoots,
    options: &Options,
    mut known: Option<db::open::Reader>,
    stop: &Stop,
    timed_fs: TimedFs,
    send: &mut dyn FnMut(WorkUnit) -> bool,
) -> Result<Walked, Error> {
    let guard = Guard::new(known.as_mut(), options.vanished)?;
    let mut walk =
        ScanWalk { scan_roots, options, root: PathBuf::new(), timed_fs, known, guard, news: Vec::new(), stop, send };
    walk.all()?;
    Ok(Walked { known: walk.known, guard: walk.guard, timed_fs: walk.timed_fs })
}

struct ScanWalk<'a> {
    scan_roots: &'a ScanRoots,
    options: &'a Options,
    /// The current root. Globs with a slash apply to the path below it.
    root: PathBuf,
    timed_fs: TimedFs,
    known: Option<db::open::Reader>,
    guard: Guard,
    /// Changes of mount points, sent with the next unit.
    news: Vec<(PathBuf, Mounted)>,
    stop: &'a Stop,
    send: &'a mut dyn FnMut(WorkUnit) -> bool,
}

impl ScanWalk<'_> {
    fn all(&mut self) -> Result<(), Error> {
        let scan_roots = self.scan_roots;
        let mut roots: Vec<_> = scan_roots.roots_in_order().into_iter().collect();
        if self.options.order == WalkOrder::NewestFirst {
            roots.sort_by_cached_key(|root| Reverse(time_of(CWD, root.as_os_str())));
        }
        for root in roots {
            scan_roots.base_of(root).clone_into(&mut self.root);
            let news = self.guard.root(root);
            self.news.extend(news);
            if let Some(names) = scan_roots.root_files(root)
                && !self.files(root, names)?
            {
                return Ok(());
            }
            if scan_roots.directories.contains(root) && !self.tree(root)? {
                return Ok(());
            }
        }
        for gone in &scan_roots.missing {
            gone.clone_into(&mut self.root);
            if !self.gone_root(gone)? {
                return Ok(());
            }
        }
        self.lacking_objects()
    }

    /// Sends the files that are roots themselves. Returns false if the walk is over.
    fn files(&mut self, directory: &Path, names: &BTreeSet<OsString>) -> Result<bool, Error> {
        let theirs = names.iter().filter(|name| !self.scan_roots.is_own_file(directory, name));
        // Nobody listed their directory, so their type is unknown.
        let entries: Vec<_> =
            theirs.map(|name| WorkEntry { name: name.clone(), is_file: false, waited_for: None }).collect();
        let path = directory.to_owned();
        let opened = self.timed_fs.run(directory, move || open_directory(&path))?;
        let handle = opened.unwrap_or_else(|| Err(timed_out()));
        let known = self.known_files(directory)?;
        let (handle, unlisted) = match handle {
            Ok(handle) => (Some(handle), None),
            Err(error) => (None, Some(error)),
        };
        let directory = Arc::new(WorkDirectory { place: Place::InPlace, path: directory.to_owned(), handle, known });
        if unlisted.is_some() {
            return Ok((self.send)(WorkUnit { unlisted, ..WorkUnit::of(directory) }));
        }
        Ok(entries
            .chunks(UNIT_FILES)
            .all(|entries| (self.send)(WorkUnit { entries: entries.to_vec(), ..WorkUnit::of(Arc::clone(&directory)) })))
    }

    /// Walks a directory and everything below it. Returns false if the walk is over.
    fn tree(&mut self, root: &Path) -> Result<bool, Error> {
        let mut upcoming = Upcoming::new(root, self.options.jobs.first);
        while !self.stop.is_asked() {
            self.ask_ahead(&mut upcoming)?;
            let Some(next) = upcoming.take_first() else {
                return Ok(self.gone_directories(Place::InPlace, root)? && self.gone_directories(Place::Archive, root)?);
            };
            let listed = match next {
                UpcomingDirectory::Listed(listed) => *listed,
                UpcomingDirectory::Asked(asked) => {
                    let AskedDirectory { mut path, mut known, call } = *asked;
                    let mut opened = self.timed_fs.wait(call);
                    if opened.as_ref().is_some_and(is_cut) {
                        // It was asked for before its turn.
                        let asked = self.ask(path, usize::MAX)?;
                        (path, known) = (asked.path, asked.known);
                        opened = self.timed_fs.wait(asked.call);
                    }
                    let listed = self.listed(path, known, opened);
                    upcoming.insert_below(0, &listed);
                    listed
                }
            };
            if !self.send_directory(listed)? {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Asks the file system for the directories that come next. The first one is then asked for or
    /// listed, unless there are no more.
    fn ask_ahead(&mut self, upcoming: &mut Upcoming) -> Result<(), Error> {
        let (mut at, mut begun) = (0, 0);
        while begun < upcoming.depth()
            && let Some(next) = upcoming.state_of(at)
        {
            match next {
                UpcomingState::Unasked(path) => {
                    let most = if at == 0 { usize::MAX } else { upcoming.entries_ahead() };
                    let asked = self.ask(path, most)?;
                    upcoming.insert_asked(at, asked);
                }
                UpcomingState::Asked(asked) => {
                    if let Some(opened) = self.timed_fs.take(&asked.call) {
                        let (path, known) = (std::mem::take(&mut asked.path), std::mem::take(&mut asked.known));
                        if let Ok(Opened { is_cut: true, entries, .. }) = opened {
                            upcoming.set_large(at, path, entries.len());
                            // The first one is asked for again at once.
                            continue;
                        }
                        upcoming.set_listed(at, self.listed(path, known, Some(opened)));
                    }
                }
                UpcomingState::Rests => {}
            }
            at += 1;
            begun += 1;
        }
        Ok(())
    }

    /// Asks the file system for so many entries of a directory, and the index for its files.
    fn ask(&mut self, path: PathBuf, most: usize) -> Result<AskedDirectory, Error> {
        let (whole, order) = (path.clone(), self.options.order);
        let before_listing = self.options.before_listing.clone();
        let list = move || {
            if let BeforeListing(Some(call)) = before_listing {
                call(&whole);
            }
            // Tests make this directory hang.
            fail_point!(&format!("scan {}", whole.display()));
            Opened::read(&whole, order, most)
        };
        // This reads the index as it is before the listing. Otherwise a file that another scan adds
        // meanwhile would look deleted.
        let known = self.known.as_mut().map(|index| index.directory_now(&path)).transpose()?;
        let call = self.timed_fs.start(&path, list)?;
        let known = known.map_or(Ok(HashMap::new()), |known| known.files())?;
        Ok(AskedDirectory { path, known, call })
    }

    /// Sorts the entries of a directory. `None`: it does not answer.
    fn listed(
        &self,
        path: PathBuf,
        known: HashMap<OsString, KnownFile>,
        opened: Option<io::Result<Opened>>,
    ) -> SortedDirectory {
        let mut file_system = None;
        let (handle, listing) = match opened.unwrap_or_else(|| Err(timed_out())) {
            Ok(opened) => {
                file_system = opened.file_system;
                let listing = self.list(&path, self.standing(&path), opened.entries, opened.error);
                (Some(opened.handle), listing)
            }
            Err(error) => (None, Listing { error: Some(error), ..Listing::default() }),
        };
        SortedDirectory { path, known, handle, listing, file_system }
    }

    /// Sends one directory. Returns false if the walk is over.
    fn send_directory(&mut self, listed: SortedDirectory) -> Result<bool, Error> {
        let SortedDirectory { path, known, handle, mut listing, file_system } = listed;
        // Deleted since its parent was listed. The next scan will see that.
        if listing.error.as_ref().is_some_and(|error| handle.is_none() && error.kind() == io::ErrorKind::NotFound) {
            return Ok(true);
        }
        let vanished = self.vanished(&path, self.standing(&path), file_system, (&known, &listing))?;
        let directory = Arc::new(WorkDirectory { place: Place::InPlace, path, handle, known });
        Ok(self.send_units(&directory, &mut listing, vanished))
    }

    /// Returns the files of a directory that are gone, as far as this scan may say so.
    fn vanished(
        &mut self,
        path: &Path,
        standing: FilterState,
        file_system: Option<FileSystemMark>,
        (known, listing): (&HashMap<OsString, KnownFile>, &Listing),
    ) -> Result<Vec<(OsString, KnownAs)>, Error> {
        if listing.error.is_some() {
            return Ok(Vec::new());
        }
        let mut vanished = vanished(known, listing);
        let listed = ListedDirectory {
            path,
            is_root: self.scan_roots.directories.contains(path),
            file_system,
            is_empty: listing.is_empty(),
            // Excluded directories may hold known files too.
            has_known_file: known.len() > vanished.len()
                || listing.reports.iter().any(|report| report.reason == EXCLUDED),
            directories: &listing.directories,
        };
        let news = self.guard.directory(&listed, self.known.as_mut())?;
        self.news.extend(news);
        if !vanished.is_empty() {
            self.look_again(path)?;
        }
        if self.guard.covers(path) {
            return Ok(Vec::new());
        }
        self.pass_over(path, standing, &mut vanished);
        if let Some(roots) = self.scan_roots.root_files(path) {
            // The listing leaves out files that are roots themselves.
            vanished.retain(|(name, _)| !roots.contains(name));
        }
        Ok(vanished)
    }

    /// Looks at the file systems of a path again. What covers the path then says whether its files
    /// may count as gone.
    fn look_again(&mut self, path: &Path) -> Result<(), Error> {
        let news = LooksAgain::default().take(&mut self.guard, &mut self.timed_fs, path)?;
        self.news.extend(news);
        Ok(())
    }

    /// Sends the units of one directory. Returns false if the walk is over.
    fn send_units(
        &mut self,
        directory: &Arc<WorkDirectory>,
        listing: &mut Listing,
        vanished: Vec<(OsString, KnownAs)>,
    ) -> bool {
        let whole = listing.error.is_none();
        let mut files = std::mem::take(&mut listing.files).into_iter();
        let mut first = Some((std::mem::take(&mut listing.reports), listing.error.take()));
        let mut last = Some(vanished);
        loop {
            let entries: Vec<_> = files.by_ref().take(UNIT_FILES).collect();
            let ends = files.len() == 0;
            let begins_directory = first.is_some();
            let (reports, unlisted) = first.take().unwrap_or_default();
            let vanished = if ends { last.take().unwrap_or_default() } else { Vec::new() };
            let unit = WorkUnit {
                directory: Arc::clone(directory),
                entries,
                reports,
                unlisted,
                vanished,
                mounts: std::mem::take(&mut self.news),
                begins_directory,
                ends_directory: ends && whole,
            };
            if !(self.send)(unit) || self.stop.is_asked() {
                return false;
            }
            if ends {
                return true;
            }
        }
    }

    /// State of the filter for a directory.
    fn standing(&self, path: &Path) -> FilterState {
        match path.strip_prefix(&self.root) {
            Ok(inside) if !self.options.filter.is_open() => self.options.filter.directory(inside),
            _ => FilterState::Included,
        }
    }

    /// Removes excluded files from `vanished`, because the scan says nothing about them.
    fn pass_over(&self, path: &Path, standing: FilterState, vanished: &mut Vec<(OsString, KnownAs)>) {
        if !self.options.filter.is_open() {
            vanished.retain(|(name, _)| !self.is_excluded(path, standing, name));
        }
    }

    fn is_excluded(&self, path: &Path, standing: FilterState, file: &OsStr) -> bool {
        let inside = path.strip_prefix(&self.root).unwrap_or(path).join(file);
        self.options.filter.excludes_file(standing, &inside)
    }

    fn list(&self, path: &Path, standing: FilterState, entries: Vec<RawEntry>, error: Option<io::Error>) -> Listing {
        let mut listing = Listing { error, ..Listing::default() };
        let root_files = self.scan_roots.root_files(path);
        // Times of subdirectories, by name.
        let mut times = HashMap::new();
        for RawEntry { name, kind, time } in entries {
            if root_files.is_some_and(|roots| roots.contains(&name)) {
                continue;
            }
            if let Some(time) = time {
                times.insert(name.clone(), time);
            }
            self.sort_in(path, standing, name, kind, &mut listing);
        }
        listing.files.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Rc::make_mut(&mut listing.directories).sort_unstable();
        if !times.is_empty() {
            Rc::make_mut(&mut listing.directories).sort_by_key(|name| Reverse(times.get(name).copied()));
        }
        listing.reports.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        listing
    }

    fn sort_in(&self, path: &Path, standing: FilterState, name: OsString, kind: FileType, listing: &mut Listing) {
        let skipped = match kind {
            FileType::Directory => {
                let whole = path.join(&name);
                if self.scan_roots.is_root_directory(&whole) {
                    return;
                }
                if self.scan_roots.is_own_storage(&whole) {
                    Some("own-files")
                } else if is_reserved(&whole) {
                    Some("reserved-name")
                } else {
                    skip::directory(&name)
                }
            }
            // The scan follows a symbolic link to a file, because archives under git-annex or
            // DataLad consist of them. It does not follow a link to a directory, so there are no
            // loops. The reader finds out which of the two a link is.
            FileType::RegularFile | FileType::Symlink => {
                if self.scan_roots.is_own_file(path, &name) {
                    Some("own-files")
                } else {
                    skip::file(&name)
                }
            }
            // Opening a FIFO would block until a writer comes. Opening a device may do anything.
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Some(SPECIAL_FILE),
        };
        let is_excluded = || match kind {
            _ if self.options.filter.is_open() => false,
            FileType::Directory => {
                let whole = path.join(&name);
                self.options.filter.excludes_directory(whole.strip_prefix(&self.root).unwrap_or(&whole))
            }
            _ => self.is_excluded(path, standing, &name),
        };
        let skipped = skipped.or_else(|| is_excluded().then_some(EXCLUDED));
        match (skipped, kind) {
            (Some(reason), _) => listing.reports.push(EntryReport {
                name,
                kind: NotIndexed::Skipped,
                reason: reason.into(),
                detail: Cow::Borrowed(""),
            }),
            (None, FileType::Directory) => Rc::make_mut(&mut listing.directories).push(name),
            (None, kind) => {
                listing.files.push(WorkEntry { name, is_file: kind == FileType::RegularFile, waited_for: None })
            }
        }
    }

    /// Sends managed objects that were stored before an attribute was declared.
    fn lacking_objects(&mut self) -> Result<(), Error> {
        let Some(known) = &mut self.known else { return Ok(()) };
        for path in known.directories_without_declared(Place::Managed, Path::new("/"))? {
            if self.stop.is_asked() {
                return Ok(());
            }
            let known = self.known_files(&path)?;
            let lacking = known.iter().filter(|(_, file)| file.lacks_declared);
            let mut names: Vec<OsString> = lacking.map(|(name, _)| name.clone()).collect();
            names.sort_unstable();
            let (handle, reports) = match open_directory(&path) {
                Ok(handle) => (Some(handle), Vec::new()),
                Err(error) => {
                    let (reason, detail) = (Cow::Borrowed("unreadable-directory"), Cow::Owned(error.to_string()));
                    (None, vec![EntryReport { name: OsString::new(), kind: NotIndexed::Failed, reason, detail }])
                }
            };
            if handle.is_none() {
                names.clear();
            }
            let directory = Arc::new(WorkDirectory { place: Place::Managed, path, handle, known });
            let mut begins = WorkUnit { reports, begins_directory: true, ..WorkUnit::of(Arc::clone(&directory)) };
            for names in names.chunks(UNIT_FILES) {
                let entries = names
                    .iter()
                    .map(|name| WorkEntry { name: name.clone(), is_file: false, waited_for: None })
                    .collect();
                let unit = std::mem::replace(&mut begins, WorkUnit::of(Arc::clone(&directory)));
                if !(self.send)(WorkUnit { entries, ..unit }) {
                    return Ok(());
                }
            }
            if begins.begins_directory && !(self.send)(begins) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn known_files(&mut self, directory: &Path) -> Result<HashMap<OsString, KnownFile>, Error> {
        match &mut self.known {
            Some(known) => Ok(known.directory_files(directory)?),
            None => Ok(HashMap::new()),
        }
    }

    fn known_members(&mut self, archive: &Path) -> Result<HashMap<OsString, KnownFile>, Error> {
        let mut members = HashMap::new();
        if let Some(known) = &mut self.known {
            known.archive_members(archive, &mut |name, file| {
                members.insert(name, file);
            })?;
        }
        Ok(members)
    }

    /// Sends the directories (or archive files) below `root` that the index has and that no longer
    /// exist. Returns false if the walk is over.
    fn gone_directories(&mut self, place: Place, root: &Path) -> Result<bool, Error> {
        let mut after = root.to_owned();
        loop {
            let Some(known) = &mut self.known else { return Ok(true) };
            let page = known.directories_below(place, root, &after, PAGE_DIRECTORIES)?;
            let Some(last) = page.last() else { return Ok(true) };
            after.clone_from(last);
            // If the file system does not answer, nothing counts as gone.
            let gone = self
                .timed_fs
                .run(root, move || page.into_iter().filter(|path| is_gone(place, path)).collect::<Vec<_>>())?
                .unwrap_or_default();
            if !gone.is_empty() {
                self.look_again(root)?;
            }
            for path in gone {
                if self.stop.is_asked() {
                    return Ok(false);
                }
                if !self.gone_directory(place, path)? {
                    return Ok(false);
                }
            }
        }
    }

    /// Sends one directory (or archive file) of the index that is gone. Returns false if the walk
    /// is over.
    fn gone_directory(&mut self, place: Place, path: PathBuf) -> Result<bool, Error> {
        if self.guard.covers(&path) {
            return Ok(true);
        }
        let known = match place {
            Place::Archive => self.known_members(&path)?,
            Place::InPlace | Place::Managed | Place::MetadataOnly => self.known_files(&path)?,
        };
        if known.is_empty() {
            return Ok(true);
        }
        let mut vanished = vanished(&known, &Listing::default());
        self.pass_over(&path, self.standing(&path), &mut vanished);
        let mounts = std::mem::take(&mut self.news);
        let directory = Arc::new(WorkDirectory { place, path, handle: None, known });
        Ok((self.send)(WorkUnit { vanished, mounts, ends_directory: true, ..WorkUnit::of(directory) }))
    }

    /// Sends a root that no longer exists. Returns false if the walk is over.
    fn gone_root(&mut self, root: &Path) -> Result<bool, Error> {
        self.guard.enter(root);
        self.look_again(root)?;
        self.guard.doubt(root);
        // The root may have been a file.
        if let (Some(parent), Some(name)) = (root.parent(), root.file_name()) {
            let known = self.known_files(parent)?;
            if let Some(file) = known.get(name) {
                let vanished = vec![(name.to_owned(), KnownAs::of(file))];
                let directory =
                    Arc::new(WorkDirectory { place: Place::InPlace, path: parent.to_owned(), handle: None, known });
                if !(self.send)(WorkUnit { vanished, ..WorkUnit::of(directory) }) {
                    return Ok(false);
                }
            }
        }
        for place in [Place::InPlace, Place::Archive] {
            if !self.gone_directory(place, root.to_owned())? || !self.gone_directories(place, root)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a directory has more entries than were asked for.
fn is_cut(opened: &io::Result<Opened>) -> bool {
    opened.as_ref().is_ok_and(|opened| opened.is_cut)
}

/// Whether a path no longer has a directory (or an archive file). If the system gives no clear
/// answer, it still exists.
fn is_gone(place: Place, path: &Path) -> bool {
    let is_archive = place == Place::Archive;
    // The scan follows links to files and not links to directories.
    match if is_archive { path.metadata() } else { path.symlink_metadata() } {
        Ok(metadata) => !(if is_archive { metadata.is_file() } else { metadata.is_dir() }),
        Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

/// The entries that the index has and a complete listing does not have, sorted.
fn vanished(known: &HashMap<OsString, KnownFile>, listing: &Listing) -> Vec<(OsString, KnownAs)> {
    let is_there = |name: &OsString| {
        let report = listing.reports.binary_search_by(|report| report.name.cmp(name)).ok();
        let report = report.and_then(|at| listing.reports.get(at));
        // What is no file any more is as gone as one that is not listed.
        listing.files.binary_search_by(|entry| entry.name.cmp(name)).is_ok()
            || report.is_some_and(|report| report.reason != SPECIAL_FILE)
    };
    let mut vanished: Vec<_> = known
        .iter()
        .filter(|(name, _)| !is_there(name))
        .map(|(name, file)| (name.clone(), KnownAs::of(file)))
        .collect();
    vanished.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    vanished
}
