//! Synchronises directories, with one `fsync` for all threads that wait for the same directory.
//!
//! An object survives a power cut only if its name is durable. Several associations that fill one
//! series at a time wait for the same directory. A thread that comes during an `fsync` waits for
//! the next one. The next one serves all threads that came meanwhile.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

/// The directories that a thread is synchronising.
#[derive(Debug, Default)]
pub(super) struct Directories {
    groups: Mutex<HashMap<PathBuf, SyncGroup>>,
    /// Signalled at the end of each round.
    ended: Condvar,
}

/// The threads that wait for one directory.
#[derive(Debug, Default)]
struct SyncGroup {
    /// Whether a thread is synchronising the directory now. A thread that comes then belongs to the
    /// next round.
    running: bool,
    /// Number of threads in the group, running or waiting.
    members: usize,
    next: Arc<SyncRound>,
}

/// One `fsync` and its result.
type SyncRound = OnceLock<Result<(), io::ErrorKind>>;

impl Directories {
    /// Makes durable all names that the directory has at the time of the call.
    ///
    /// # Errors
    /// If the `fsync` failed. All threads of the same round get the error.
    pub(super) fn synchronise(&self, directory: &Path) -> io::Result<()> {
        self.synchronise_by(directory, || File::open(directory)?.sync_all())
    }

    fn synchronise_by(&self, directory: &Path, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let group = groups.entry(directory.to_owned()).or_default();
        group.members += 1;
        let round = Arc::clone(&group.next);
        let ended = loop {
            if let Some(ended) = round.get() {
                break *ended;
            }
            let Some(group) = groups.get_mut(directory).filter(|group| !group.running) else {
                groups = self.ended.wait(groups).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            group.running = true;
            group.next = Arc::default();
            drop(groups);
            let ended = sync().map_err(|error| error.kind());
            groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            // Only this thread runs this round.
            let _ = round.set(ended);
            if let Some(group) = groups.get_mut(directory) {
                group.running = false;
                if group.members > 1 {
                    self.ended.notify_all();
                }
            }
            break ended;
        };
        if let Some(group) = groups.get_mut(directory) {
            group.members -= 1;
            if group.members == 0 {
                groups.remove(directory);
            }
        }
        ended.map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn who_comes_during_a_round_shares_the_next_one_and_its_result() {
        const WAITING: usize = 8;
        let directories = Directories::default();
        let path = Path::new("/series");
        let rounds = AtomicUsize::new(0);
        let (go, gate) = mpsc::channel::<()>();
        let (begun, first_runs) = mpsc::channel();
        thread::scope(|scope| {
            let (directories, rounds) = (&directories, &rounds);
            let first = scope.spawn(move || {
                directories.synchronise_by(path, || {
                    begun.send(()).unwrap();
                    gate.recv().unwrap();
                    rounds.fetch_add(1, SeqCst);
                    Ok(())
                })
            });
            first_runs.recv().unwrap();
            let others: Vec<_> = (0..WAITING)
                .map(|_| {
                    scope.spawn(move || {
                        directories.synchronise_by(path, || {
                            rounds.fetch_add(1, SeqCst);
                            Err(io::ErrorKind::StorageFull.into())
                        })
                    })
                })
                .collect();
            while directories.groups.lock().unwrap()[path].members < 1 + WAITING {
                thread::yield_now();
            }
            go.send(()).unwrap();
            assert!(first.join().unwrap().is_ok());
            for other in others {
                assert_eq!(other.join().unwrap().unwrap_err().kind(), io::ErrorKind::StorageFull);
            }
        });
        assert_eq!(rounds.load(SeqCst), 2);
        assert!(directories.groups.lock().unwrap().is_empty());
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(Directories::default().synchronise(Path::new("/nowhere/at/all")).is_err());
    }
}
