//! Counts files ahead of a scan, so that a first scan can estimate its end.
//!
//! The thread only lists directories. It opens no file, and knows neither the rules by which files
//! are skipped nor the members of archive files. So the number is an estimate.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Files of a directory after which the thread looks whether it is still wanted.
const CHECK_AFTER: u64 = 1024;

/// A count of the files below directories, on a thread of its own. Dropping it ends the thread. A
/// directory that does not answer holds up nobody, because nobody waits for the thread.
#[derive(Debug)]
pub struct FilesAhead(Arc<Counting>);

#[derive(Debug, Default)]
struct Counting {
    files: AtomicU64,
    is_done: AtomicBool,
    is_stopped: AtomicBool,
}

impl FilesAhead {
    /// Begins to count. Without a thread there is no count.
    #[must_use]
    pub fn below(directories: Vec<PathBuf>) -> Self {
        let counting = Arc::new(Counting::default());
        let of_thread = Arc::clone(&counting);
        let thread = std::thread::Builder::new().name("count".into()).spawn(move || of_thread.count(directories));
        // The thread is not waited for.
        drop(thread);
        Self(counting)
    }

    /// The number of files. `None` while they are still being counted.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.0.is_done.load(Relaxed).then(|| self.0.files.load(Relaxed))
    }
}

impl Drop for FilesAhead {
    fn drop(&mut self) {
        self.0.is_stopped.store(true, Relaxed);
    }
}

impl Counting {
    fn count(&self, mut directories: Vec<PathBuf>) {
        let mut files = 0;
        while let Some(directory) = directories.pop() {
            // A directory that cannot be listed is one entry of the report.
            let Ok(entries) = directory.read_dir() else {
                files += 1;
                continue;
            };
            for entry in entries.flatten() {
                // A scan does not follow links to directories.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    directories.push(entry.path());
                } else {
                    files += 1;
                }
                if files % CHECK_AFTER == 0 && self.is_stopped.load(Relaxed) {
                    return;
                }
            }
            if self.is_stopped.load(Relaxed) {
                return;
            }
        }
        self.files.store(files, Relaxed);
        self.is_done.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_below_all_directories() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a/1", "a/b/2", "a/b/3", "c/4"] {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let ahead = FilesAhead::below(vec![directory.path().join("a"), directory.path().join("c")]);
        while ahead.total().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(ahead.total(), Some(4));
    }
}
