//! Destination of a backup: a dated file in a directory, or one file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::manifest::{Manifest, path_beside};
use crate::files::{FILE_MODE, PRIVATE_MODE, UnfinishedFile, make_directory, parent_of, sync_directory};
use crate::model::calendar::moment_text;

/// Beginning of the names of backups in a directory.
const PREFIX: &str = "dcmdex-";

/// Beginning of the names of files that do not count yet. A killed backup leaves them, and the next
/// one removes them.
const PART_PREFIX: &str = ".dcmdex-part-";

/// File that one backup at a time holds a lock on.
const LOCK: &str = ".dcmdex-backup.lock";

/// The files of a backup that is made.
#[derive(Debug)]
pub(super) struct BackupTarget {
    directory: PathBuf,
    database: PathBuf,
    part: PathBuf,
    is_dated: bool,
    /// Holds the lock until it is dropped.
    _lock: File,
}

/// A backup that was removed because newer ones are kept.
#[derive(Debug)]
pub(super) struct OldBackup {
    pub(super) database: PathBuf,
    pub(super) had_objects: bool,
}

impl BackupTarget {
    /// Chooses the files, and removes what a killed backup left. A directory is made only if that
    /// is asked for: a missing one may be that of a disk that is not mounted.
    pub(super) fn of(to: &Path, makes_directory: bool, now_ms: i64) -> anyhow::Result<Self> {
        let is_database = to.extension().is_some_and(|extension| extension == "db");
        if makes_directory && !is_database && !to.exists() {
            make_directory(to).with_context(|| format!("cannot make the directory {}", to.display()))?;
        }
        let is_dated = to.is_dir();
        let (directory, name) = if is_dated {
            let moment = moment_text(now_ms).replace(['-', ':'], "").replace('Z', "");
            let name = format!("{PREFIX}{moment}.{:03}Z.db", now_ms.rem_euclid(1000));
            (to.to_owned(), name.into())
        } else if is_database {
            let directory = parent_of(to);
            (directory.to_owned(), to.file_name().unwrap_or_default().to_owned())
        } else {
            bail!(
                "there is no directory {}: is its disk mounted? hint: --make-directory makes it, and the name of a file \
                 ends in .db",
                to.display()
            );
        };
        let directory =
            directory.canonicalize().with_context(|| format!("there is no directory {}", directory.display()))?;
        let lock = lock(&directory)?;
        let database = directory.join(&name);
        for path in [&database, &path_beside(&database)] {
            if path.symlink_metadata().is_ok() {
                if path != &database && !database.exists() {
                    // A killed backup had no copy under this name yet.
                    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
                    continue;
                }
                bail!("{} exists, and a backup never replaces a file", path.display());
            }
        }
        let part = directory.join(format!("{PART_PREFIX}{}", name.to_string_lossy()));
        remove_parts(&directory)?;
        Ok(Self { directory, database, part, is_dated, _lock: lock })
    }

    /// Whether the name was chosen by date.
    pub(super) const fn is_dated(&self) -> bool {
        self.is_dated
    }

    /// The name of the copy until it is complete.
    pub(super) fn part(&self) -> &Path {
        &self.part
    }

    /// The name of the copy.
    pub(super) fn database(&self) -> &Path {
        &self.database
    }

    /// The directory for received objects.
    pub(super) fn objects(&self) -> PathBuf {
        self.directory.join("objects")
    }

    /// Gives the copy its name, after the manifest has its own. Both are durable when this returns.
    pub(super) fn finish(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let text = format!("{:#}\n", manifest.to_json());
        let written = self.write_manifest(text.as_bytes());
        written.with_context(|| format!("cannot write {}", path_beside(&self.database).display()))?;
        let named = fs::rename(&self.part, &self.database).and_then(|()| sync_directory(&self.directory));
        named.with_context(|| format!("cannot write {}", self.database.display()))
    }

    fn write_manifest(&self, text: &[u8]) -> io::Result<()> {
        let part = self.directory.join(format!("{PART_PREFIX}manifest"));
        let mut file = UnfinishedFile::under(part, &path_beside(&self.database), FILE_MODE)?;
        file.write_all(text)?;
        file.finish()
    }

    /// Removes the oldest backups of the directory, until so many are left.
    pub(super) fn remove_older(&self, keep: u32) -> anyhow::Result<Vec<OldBackup>> {
        let backups = backups_in(&self.directory)?;
        let surplus = backups.len().saturating_sub(keep as usize);
        let mut removed = Vec::new();
        for database in backups.into_iter().take(surplus) {
            let manifest = path_beside(&database);
            let had_objects = fs::read_to_string(&manifest)
                .ok()
                .and_then(|text| serde_json::from_str::<Manifest>(&text).ok())
                .is_none_or(|manifest| manifest.objects.is_some());
            // The copy goes first. A manifest without one is no backup.
            fs::remove_file(&database).with_context(|| format!("cannot remove {}", database.display()))?;
            let _the_next_one_removes_it = fs::remove_file(&manifest);
            removed.push(OldBackup { database, had_objects });
        }
        remove_lone_manifests(&self.directory)?;
        Ok(removed)
    }
}

impl Drop for BackupTarget {
    fn drop(&mut self) {
        // Without an error it is gone already.
        let _gone = fs::remove_file(&self.part);
    }
}

fn lock(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(PRIVATE_MODE).open(&path);
    let file = file.with_context(|| format!("cannot write in {}", directory.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another backup to {} is running", directory.display()),
        // A file system without locks.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

fn names(directory: &Path) -> anyhow::Result<Vec<String>> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    };
    list().with_context(|| format!("cannot list {}", directory.display()))
}

/// The backups in a directory, the oldest first.
pub(super) fn backups_in(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let is_backup = |name: &String| name.starts_with(PREFIX) && name.ends_with("Z.db");
    Ok(names(directory)?.into_iter().filter(is_backup).map(|name| directory.join(name)).collect())
}

fn remove_parts(directory: &Path) -> anyhow::Result<()> {
    for name in names(directory)?.iter().filter(|name| name.starts_with(PART_PREFIX)) {
        let path = directory.join(name);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Removes manifests whose copies never got their names, or are gone.
fn remove_lone_manifests(directory: &Path) -> anyhow::Result<()> {
    for name in names(directory)? {
        let Some(stem) = name.strip_suffix("Z.json").filter(|stem| stem.starts_with(PREFIX)) else { continue };
        if !directory.join(format!("{stem}Z.db")).exists() {
            let path = directory.join(&name);
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
