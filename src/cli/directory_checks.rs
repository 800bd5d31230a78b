//! Checks of the index, the storage directory and that of the audit trail before a node starts.
//! This user must be able to write them. The paths in the index must be those of the objects.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::config::Config;
use crate::db::open::{Reader, WriterHandle, files_of, frozen, is_on_server};
use crate::db::{Arrivals, ScanLedger};
use crate::model::location::Place;

/// Directories of the index that one query returns.
const PAGE: usize = 1000;

/// Returns everything that keeps a node from working with these settings.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(options) = config.store_options() {
        let storage = &options.directory;
        problems.extend(no_writable_directory("the storage directory", storage));
        problems.extend(not_to_be_made(config, storage));
        let incoming = storage.join(".incoming");
        if incoming.exists() {
            problems.extend(not_writable("the directory for arriving objects", &incoming));
        }
    }
    if let Some(audit) = &config.audit {
        problems.extend(no_writable_directory("the directory of the audit trail", &audit.directory));
    }
    let index = &config.index;
    let files = match files_of(index) {
        Ok(files) => files,
        Err(error) => {
            problems.push(error.to_string());
            return problems;
        }
    };
    for file in files.iter().filter(|file| matches!(frozen(file), Ok(None))) {
        problems.extend(not_writable("the index", file));
    }
    if let Some(directory) = files.first().and_then(|file| file.parent()).filter(|_| index.exists()) {
        problems.extend(not_writable("the directory of the index", directory));
    }
    problems
}

/// Says that a storage directory below a root is missing. If a node made one where the disk of the
/// root is not mounted, the root would seem to be there.
fn not_to_be_made(config: &Config, storage: &Path) -> Option<String> {
    let storage = std::path::absolute(storage).ok().filter(|storage| !storage.exists())?;
    let (name, _) = config.roots.iter().find(|(_, root)| storage.starts_with(root))?;
    Some(format!(
        "the storage directory {} is not there; hint: if the disk of the root {name} is not mounted, mount it. Otherwise \
         make the directory, because a node makes none below a root",
        storage.display()
    ))
}

/// Says that a path cannot be a directory with new files.
fn no_writable_directory(what: &str, path: &Path) -> Option<String> {
    if path.exists() && !path.is_dir() {
        return Some(format!("{what} {} is a file, not a directory", path.display()));
    }
    not_writable(what, path)
}

/// Says that a file or directory cannot be written, or cannot be made where it does not exist.
fn not_writable(what: &str, path: &Path) -> Option<String> {
    let user = rustix::process::geteuid().as_raw();
    let Some(existing) = path.ancestors().find(|path| path.as_os_str().is_empty() || path.exists()) else {
        return Some(format!("{what} {} cannot be made", path.display()));
    };
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    if existing != path && existing.is_file() {
        return Some(format!("{what} {} cannot be made: {} is a file", path.display(), existing.display()));
    }
    if accessat(CWD, existing, Access::WRITE_OK, AtFlags::EACCESS).is_ok() {
        return None;
    }
    Some(if existing == path {
        format!("{what} {} is not writable for this user (uid {user})", path.display())
    } else {
        format!(
            "{what} {} cannot be made: {} is not writable for this user (uid {user})",
            path.display(),
            existing.display()
        )
    })
}

/// Gives received objects their new paths in the index after the storage directory has moved.
///
/// The index holds absolute paths, so that every program can use them. A directory of the node has
/// moved if it is gone from its path, and is found below the storage directory of today. In a
/// database it may be the directory of another node. So there all directories that lay beside it
/// have to be found as well.
///
/// # Errors
/// If the index cannot be asked or written.
pub(super) fn follow_storage(index: &Path, root: &Path, writer: &WriterHandle) -> anyhow::Result<()> {
    let on_server = is_on_server(index);
    let mut reader = Reader::open(index)?;
    let mut after = PathBuf::from("/");
    // Former storage directories.
    let mut moved: BTreeSet<PathBuf> = BTreeSet::new();
    // Those of which a directory is not found again.
    let mut part_lost: BTreeSet<PathBuf> = BTreeSet::new();
    let mut lost = 0_u64;
    loop {
        let page = reader.directories_below(Place::Managed, Path::new("/"), &after, PAGE)?;
        let Some(last) = page.last() else { break };
        after.clone_from(last);
        for directory in page.iter().filter(|directory| !directory.starts_with(root)) {
            // Objects lie in a directory for their series, in one for their study.
            let Some(former) = directory.parent().and_then(Path::parent) else { continue };
            if (moved.contains(former) && !on_server) || directory.exists() {
                continue;
            }
            let now = directory.strip_prefix(former).map(|below| root.join(below));
            if now.is_ok_and(|now| now.is_dir()) {
                moved.insert(former.to_owned());
            } else {
                lost += 1;
                part_lost.insert(former.to_owned());
            }
        }
    }
    if on_server {
        moved.retain(|former| !part_lost.contains(former));
    }
    for former in moved {
        let directories = writer.storage_moved(former.clone(), root.to_owned())?;
        tracing::info!(
            from = %former.display(),
            to = %root.display(),
            directories,
            "the storage directory has moved, and the index follows it"
        );
    }
    if lost > 0 {
        tracing::warn!(
            directories = lost,
            "the index names directories of received objects outside of the storage directory, and they are not there; \
             `dcmdex check --files` lists their objects"
        );
    }
    Ok(())
}
