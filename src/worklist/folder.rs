//! The folder of items: files that lie in it are items, and a deleted file removes its item.
//!
//! The folder is read again and again. That works on every file system, and misses nothing. A file
//! is taken when it has not changed between two looks, so that a half-written one waits. Folders in
//! the folder are read too, as those that wlmscpfs has for each AE title.
//!
//! Several files may have one item. It is removed with the last of them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::complete::{Draft, IntakeError, OrderFacts, complete};
use super::intake::{Intake, put, remove_file_items};
use super::read::{MAX_ITEM_LENGTH, ReadItemError, read_items};
use crate::db::{self, WorklistProblem, WorklistSource, WorklistTables};
use crate::model::clock::Clock;

/// Pause between two looks.
pub const LOOK_AFTER: Duration = Duration::from_secs(2);

/// Pause before the next look while a file waits.
pub const LOOK_SOON_AFTER: Duration = Duration::from_millis(500);

/// Maximum number of files. A folder with more is one that was named by mistake.
const MAX_FILES: usize = 100_000;

/// Age from which a file counts as whole at the first look. A file that was renamed into the folder
/// has the time of when it was written.
const OLD_ENOUGH: Duration = Duration::from_secs(2);

/// Reason why a file is no item.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Read(#[from] ReadItemError),
    #[error(transparent)]
    Intake(#[from] IntakeError),
}

/// Size and time of a file.
type Version = (u64, Option<SystemTime>);

/// Known state of a file.
#[derive(Debug)]
struct SeenItemFile {
    version: Version,
    /// Whether it was read in this version.
    taken: bool,
    /// Numbers of the items that it had when it was read last.
    items: Vec<i64>,
}

/// Files by the numbers of the items that they have.
type FilesOfItems = HashMap<i64, Vec<PathBuf>>;

/// The folder, and what was seen in it.
#[derive(Debug)]
pub struct WorklistFolder {
    path: PathBuf,
    intake: Arc<Intake>,
    /// The node, if others feed the worklist from folders of their own.
    node: Option<String>,
    assumed_character_set: String,
    clock: Clock,
    seen: HashMap<PathBuf, SeenItemFile>,
    /// Whether the files that the index knows were compared with the folder.
    compared: bool,
    /// Device and inode of the directory in which files were looked for last.
    directory: Option<(u64, u64)>,
    /// Whether the operator was told that the folder cannot be read.
    told: bool,
}

/// The content of the folder.
struct FolderContent {
    /// Device and inode of the directory.
    directory: (u64, u64),
    /// The files that may be items, with their sizes and times.
    files: HashMap<PathBuf, Version>,
    /// Whether nothing at all lies in it.
    is_bare: bool,
}

impl WorklistFolder {
    /// Describes the folder at `path`. Nothing is read before [`WorklistFolder::look`].
    /// `node` names this node among others of one index. `assumed_character_set` is that of items
    /// without a Specific Character Set (0008,0005).
    #[must_use]
    pub fn new(path: PathBuf, intake: Arc<Intake>, node: String, assumed_character_set: String, clock: Clock) -> Self {
        let node = intake.has_other_folders().then_some(node);
        let seen = HashMap::new();
        let (compared, directory, told) = (false, None, false);
        Self { path, intake, node, assumed_character_set, clock, seen, compared, directory, told }
    }

    /// Looks once. Returns how long to wait before the next look.
    ///
    /// # Errors
    /// Fails if the index does not take what was found. The next look tries again.
    pub fn look(&mut self) -> Result<Duration, db::Error> {
        let FolderContent { directory, files: found, is_bare } = match self.content() {
            Ok(content) => content,
            Err(error) => {
                // Its items stay: a share that is gone for a moment cancels no examination.
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(%error, folder = %self.path.display(), "the folder of the worklist cannot be read");
                }
                return Ok(LOOK_AFTER);
            }
        };
        let lost = self.lost(&found)?;
        if is_bare && !lost.is_empty() && self.directory != Some(directory) {
            // So looks the mount point of a share that is not mounted.
            if !std::mem::replace(&mut self.told, true) {
                tracing::warn!(
                    folder = %self.path.display(),
                    files = lost.len(),
                    "the folder of the worklist is another one, with nothing in it; the items of its files stay; \
                     hint: is its share mounted?"
                );
            }
            return Ok(LOOK_AFTER);
        }
        (self.told, self.directory) = (false, Some(directory));
        if self.compared && lost.is_empty() && found.iter().all(|(path, version)| self.has_taken(path, *version)) {
            return Ok(LOOK_AFTER);
        }
        let of_items = self.files_of_items(&found);
        self.forget(lost, &found, &of_items)?;
        let mut waits = false;
        for (path, version) in found {
            if self.has_taken(&path, version) {
                continue;
            }
            let seen = self.seen.get(&path);
            let is_whole = seen.is_some_and(|seen| seen.version == version) || is_old(version, self.clock);
            let mut items = seen.map(|seen| seen.items.clone()).unwrap_or_default();
            if is_whole {
                items = self.take(&path, &items, &of_items)?;
            }
            waits |= !is_whole;
            self.seen.insert(path, SeenItemFile { version, taken: is_whole, items });
        }
        Ok(if waits { LOOK_SOON_AFTER } else { LOOK_AFTER })
    }

    fn content(&self) -> io::Result<FolderContent> {
        let metadata = fs::metadata(&self.path)?;
        let mut files = HashMap::new();
        let mut folders = Vec::new();
        let is_bare = list(&self.path, &mut files, Some(&mut folders))? == 0;
        for folder in folders {
            // One that goes meanwhile has no files.
            let _gone = list(&folder, &mut files, None);
        }
        Ok(FolderContent { directory: (metadata.dev(), metadata.ino()), files, is_bare })
    }

    /// Whether a file was read in this version.
    fn has_taken(&self, path: &Path, version: Version) -> bool {
        self.seen.get(path).is_some_and(|seen| seen.version == version && seen.taken)
    }

    /// The files that are still there, by their items.
    fn files_of_items(&self, found: &HashMap<PathBuf, Version>) -> FilesOfItems {
        let mut files = FilesOfItems::new();
        for (path, seen) in self.seen.iter().filter(|(path, _)| found.contains_key(*path)) {
            for item in &seen.items {
                files.entry(*item).or_default().push(path.clone());
            }
        }
        files
    }

    /// The origins of files that are gone, with the numbers of the items that they had.
    fn lost(&self, found: &HashMap<PathBuf, Version>) -> Result<Vec<(String, Vec<i64>)>, db::Error> {
        let gone = self.seen.iter().filter(|(path, _)| !found.contains_key(*path));
        let mut lost: Vec<_> = gone.map(|(path, seen)| (self.origin(path), seen.items.clone())).collect();
        if !self.compared {
            // Files may have gone while no node ran.
            let known = self.intake.change(|tables| tables.file_origins())?;
            let here: HashSet<String> = found.keys().map(|path| self.origin(path)).collect();
            // What another node took is not lost because this one does not have it. Its folder may
            // have the same path on another machine.
            let folder = self.origin(&self.path);
            let is_ours = |origin: &String| self.node.is_none() || Path::new(origin).starts_with(&folder);
            let known = known.into_iter().filter(|origin| is_ours(origin) && !here.contains(origin));
            lost.extend(known.map(|origin| (origin, Vec::new())));
        }
        Ok(lost)
    }

    /// Removes the items of files that are gone.
    fn forget(
        &mut self,
        lost: Vec<(String, Vec<i64>)>,
        found: &HashMap<PathBuf, Version>,
        of_items: &FilesOfItems,
    ) -> Result<(), db::Error> {
        for (origin, items) in lost {
            let heirs = self.heirs(&origin, &items, of_items);
            let inherited = self.intake.change(move |tables| {
                tables.clear_problems(WorklistSource::File, &origin)?;
                remove_file_items(tables, &origin, &[], &heirs)
            })?;
            self.take_again(&inherited, of_items);
        }
        self.seen.retain(|path, _| found.contains_key(path));
        self.compared = true;
        Ok(())
    }

    /// A file as the origin of items. Where other nodes have folders, it names the node too.
    fn origin(&self, path: &Path) -> String {
        match &self.node {
            Some(node) => format!("{node}:{}", path.display()),
            None => path.to_string_lossy().into_owned(),
        }
    }

    /// For each of these items of a file, the origin of another file that has it.
    fn heirs(&self, origin: &str, items: &[i64], of_items: &FilesOfItems) -> HashMap<i64, String> {
        let heir = |item: &i64| {
            let mut origins = of_items.get(item)?.iter().map(|path| self.origin(path));
            Some((*item, origins.find(|other| other != origin)?))
        };
        items.iter().filter_map(heir).collect()
    }

    /// Has the files of these items taken again.
    fn take_again(&mut self, items: &[i64], of_items: &FilesOfItems) {
        for path in items.iter().filter_map(|item| of_items.get(item)).flatten() {
            if let Some(seen) = self.seen.get_mut(path) {
                seen.taken = false;
            }
        }
    }

    /// Takes a file: its items, or the reason why it has none. `before` are the numbers of the
    /// items that it had. Returns those that it has.
    fn take(&mut self, path: &Path, before: &[i64], of_items: &FilesOfItems) -> Result<Vec<i64>, db::Error> {
        let (origin, now_ms) = (self.origin(path), self.clock.now_ms());
        let heirs = self.heirs(&origin, before, of_items);
        let (kept, inherited) = match self.drafts(path, &origin, now_ms) {
            Ok(drafts) => {
                let options = self.intake.options();
                self.intake.change(move |tables: &mut dyn WorklistTables| {
                    let mut kept = Vec::new();
                    for draft in drafts {
                        kept.push(put(tables, draft, &options)?.1);
                    }
                    // What the file had before and has no more.
                    let inherited = remove_file_items(tables, &origin, &kept, &heirs)?;
                    tables.clear_problems(WorklistSource::File, &origin)?;
                    Ok((kept, inherited))
                })?
            }
            // The next look sees that it is gone.
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => (before.to_vec(), Vec::new()),
            Err(error) => {
                let problem = WorklistProblem {
                    source: WorklistSource::File,
                    origin,
                    reason: error.to_string(),
                    noted_ms: now_ms,
                };
                self.intake.change(move |tables| {
                    let inherited = remove_file_items(tables, &problem.origin, &[], &heirs)?;
                    tables.note_problem(&problem)?;
                    Ok((Vec::new(), inherited))
                })?
            }
        };
        self.take_again(&inherited, of_items);
        Ok(kept)
    }

    fn drafts(&self, path: &Path, origin: &str, now_ms: i64) -> Result<Vec<Draft>, FileError> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(MAX_ITEM_LENGTH as u64 + 1).read_to_end(&mut bytes)?;
        let facts = OrderFacts {
            source: WorklistSource::File,
            origin: origin.to_owned(),
            order_keys: Vec::new(),
            message_time: String::new(),
            now_ms,
        };
        let items = read_items(&bytes, &self.assumed_character_set)?;
        let options = self.intake.options();
        let drafts = items.into_iter().map(|item| complete(item, facts.clone(), &options));
        Ok(drafts.collect::<Result<_, _>>()?)
    }
}

/// Lists files of a folder that may be items, and the folders in it. Returns how many entries of
/// any kind it has.
fn list(
    path: &Path,
    files: &mut HashMap<PathBuf, Version>,
    mut folders: Option<&mut Vec<PathBuf>>,
) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        count += 1;
        // It follows links. A file that goes meanwhile is none.
        let Ok(metadata) = fs::metadata(entry.path()) else { continue };
        if metadata.is_dir() {
            if let Some(folders) = &mut folders {
                folders.push(entry.path());
            }
        } else if metadata.is_file() && may_be_item(&entry.path()) {
            if files.len() == MAX_FILES {
                return Err(io::Error::other(format!("it has more than {MAX_FILES} files")));
            }
            files.insert(entry.path(), (metadata.len(), metadata.modified().ok()));
        }
    }
    Ok(count)
}

/// `*.wl`, `*.dcm` and `*.json`. Hidden files and the `lockfile` of wlmscpfs are none.
fn may_be_item(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    !is_hidden && matches!(ending.as_str(), "wl" | "dcm" | "json")
}

/// Whether a file has not changed for a while.
fn is_old(version: Version, clock: Clock) -> bool {
    let Some(modified) = version.1 else { return false };
    let age = clock.now_ms() - crate::model::clock::unix_ms(modified);
    age >= i64::try_from(OLD_ENOUGH.as_millis()).unwrap_or(i64::MAX)
}
