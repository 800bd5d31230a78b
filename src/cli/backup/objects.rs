//! Received objects in a backup: each is linked or copied once, and goes when no backup names it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use super::manifest::{BackedUpObjects, open_copy};
use super::target::{BackupTarget, OldBackup, backups_in};
use crate::cli::unindexed::series_directories;
use crate::config::Config;
use crate::db::ScanLedger as _;
use crate::db::open::Reader;
use crate::files::{FILE_MODE, make_directory, remove_if_there};

/// Beginning of the name of a file that is being copied.
const PART: &str = ".part-";

/// Method by which received objects are backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ObjectsInBackup {
    /// Only the index is copied
    None,
    /// Each object gets a second name below the backup directory, on the same file system
    HardLinks,
    /// Objects that the backup directory lacks are copied there
    Copy,
}

/// Links or copies the objects that the backup directory lacks. Without a storage directory there
/// are none.
pub(super) fn back_up(storage: Option<&Path>, to: &Path, how: ObjectsInBackup) -> anyhow::Result<BackedUpObjects> {
    let mut counts = BackedUpObjects { files: 0, added: 0, bytes: 0 };
    make(to)?;
    let Some(storage) = storage else { return Ok(counts) };
    let series = series_directories(storage).with_context(|| format!("cannot list {}", storage.display()))?;
    for series in series {
        let below = series.strip_prefix(storage).context("a directory outside of the storage directory")?;
        let to = to.join(below);
        let mut present = None;
        for (name, object) in files_in(&series)? {
            let present = match &mut present {
                Some(present) => present,
                None => {
                    make(&to)?;
                    present.insert(files_in(&to)?.into_iter().collect::<HashMap<_, _>>())
                }
            };
            counts.files += 1;
            counts.bytes += object.len();
            if present.get(&name).is_some_and(|known| is_same(known, &object)) {
                continue;
            }
            let added = add(&series.join(&name), &object, &to, &name, how);
            counts.added += u64::from(added.with_context(|| {
                let from = series.join(&name);
                format!("cannot back up {} to {}", from.display(), to.display())
            })?);
        }
    }
    synchronise(to)?;
    Ok(counts)
}

/// Makes copies and names of all directories durable at once.
pub(super) fn synchronise(to: &Path) -> anyhow::Result<()> {
    let directory = File::open(to).with_context(|| format!("cannot open {}", to.display()))?;
    rustix::fs::syncfs(&directory).with_context(|| format!("cannot synchronise {}", to.display()))
}

pub(super) fn make(directory: &Path) -> anyhow::Result<()> {
    make_directory(directory).with_context(|| format!("cannot make {}", directory.display()))
}

/// The regular files in a directory. Names with a dot at the beginning are none of them.
pub(super) fn files_in(directory: &Path) -> anyhow::Result<Vec<(OsString, Metadata)>> {
    let list = || -> io::Result<Vec<(OsString, Metadata)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().first() == Some(&b'.') || !entry.file_type()?.is_file() {
                continue;
            }
            match entry.metadata() {
                Ok(metadata) => files.push((entry.file_name(), metadata)),
                // It was removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    };
    match list() {
        // A study that is removed meanwhile has no series.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.with_context(|| format!("cannot list {}", directory.display())),
    }
}

/// Whether a file of the backup is this object: the same file, or a copy with its size and time.
fn is_same(known: &Metadata, object: &Metadata) -> bool {
    (known.dev() == object.dev() && known.ino() == object.ino())
        || (known.len() == object.len() && known.mtime() == object.mtime() && known.mtime_nsec() == object.mtime_nsec())
}

/// Adds an object. Returns false if it is gone.
pub(super) fn add(
    from: &Path,
    object: &Metadata,
    to: &Path,
    name: &OsString,
    how: ObjectsInBackup,
) -> anyhow::Result<bool> {
    let mut part = OsString::from(PART);
    part.push(name);
    let part = to.join(part);
    remove_if_there(&part)?;
    let made = match how {
        ObjectsInBackup::HardLinks => fs::hard_link(from, &part),
        ObjectsInBackup::Copy | ObjectsInBackup::None => copy(from, object, &part),
    };
    match made {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && !from.exists() => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            bail!("it is on another file system, which cannot have hard links to it; hint: --objects copy")
        }
        Err(error) => {
            // Half a copy is of no use, and takes room where none may be left.
            let _the_next_one_removes_it = fs::remove_file(&part);
            return Err(error.into());
        }
    }
    fs::rename(&part, to.join(name))?;
    // rename() does nothing if both names are those of one file.
    let _mostly_gone = fs::remove_file(&part);
    Ok(true)
}

fn copy(from: &Path, object: &Metadata, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut file = OpenOptions::new().create_new(true).write(true).mode(FILE_MODE).open(to)?;
    io::copy(&mut source, &mut file)?;
    file.set_modified(object.modified()?)
}

/// Removes objects that neither the storage directory nor an index in a backup names any more.
pub(super) fn remove_unused(config: &Config, target: &BackupTarget, removed: &[OldBackup]) -> anyhow::Result<()> {
    let (Some(options), objects) = (config.kept_store_options(), target.objects()) else { return Ok(()) };
    if removed.is_empty() || !objects.is_dir() {
        return Ok(());
    }
    let storage = options.directory.canonicalize().unwrap_or(options.directory);
    let directory = target.database().parent().unwrap_or(Path::new("."));
    let mut kept: Option<Vec<Reader>> = None;
    for series in series_directories(&objects).with_context(|| format!("cannot list {}", objects.display()))? {
        let below = series.strip_prefix(&objects).context("a directory outside of the backup")?;
        let in_storage = storage.join(below);
        for (name, _) in files_in(&series)? {
            if in_storage.join(&name).exists() {
                continue;
            }
            let readers = match &mut kept {
                Some(readers) => readers,
                None => {
                    let backups = backups_in(directory)?;
                    let opened: anyhow::Result<Vec<Reader>> = backups.iter().map(|backup| open_copy(backup)).collect();
                    kept.insert(opened.unwrap_or_default())
                }
            };
            // A backup that cannot be read may name any object.
            let unknown = readers.is_empty();
            let mut is_named = unknown;
            for reader in readers {
                is_named |= reader.directory_files(&in_storage)?.contains_key(&name);
            }
            if !is_named {
                let path = series.join(&name);
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        // They stay if they hold something.
        for directory in [Some(series.as_path()), series.parent()].into_iter().flatten() {
            let _holds_something = fs::remove_dir(directory);
        }
    }
    Ok(())
}
