//! A limit to what is under way at a time.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, PoisonError};

/// Limits the files that are handed over and not yet taken. Senders wait while there are too many.
///
/// It counts files and not units, because units vary so much in size. A limit on units that holds
/// for the largest would starve the receiver of small ones.
#[derive(Debug)]
pub struct Backlog {
    limit: AtomicUsize,
    files: Mutex<Option<usize>>,
    fewer: Condvar,
}

impl Backlog {
    /// A backlog of at most so many files.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.into(), files: Mutex::new(Some(0)), fewer: Condvar::new() }
    }

    /// Waits until so many more files may be under way. A single unit may always be.
    pub fn begin(&self, files: usize) {
        let begun = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |begun: &mut Option<usize>| {
            begun.is_some_and(|begun| begun > 0 && begun + files > self.limit.load(Relaxed))
        };
        let mut begun = self.fewer.wait_while(begun, is_full).unwrap_or_else(PoisonError::into_inner);
        if let Some(begun) = begun.as_mut() {
            *begun += files;
        }
    }

    /// Notes that so many files were taken.
    pub fn end(&self, files: usize) {
        let mut begun = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(begun) = begun.as_mut() {
            *begun = begun.saturating_sub(files);
        }
        drop(begun);
        self.fewer.notify_one();
    }

    /// Lets so many more files be under way.
    pub fn raise_limit(&self, more: usize) {
        // Under the lock, so that nobody begins to wait meanwhile.
        let begun = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        self.limit.fetch_add(more, Relaxed);
        drop(begun);
        self.fewer.notify_all();
    }

    /// Lets so many fewer files be under way. Those that are go on.
    pub fn lower_limit(&self, fewer: usize) {
        self.limit.fetch_sub(fewer, Relaxed);
    }

    /// Ends all waiting, because nobody takes files any more.
    pub fn close(&self) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.fewer.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{TryRecvError, channel};

    use super::*;

    /// Begins with so many files on another thread. The receiver gets a message when that may go
    /// on.
    fn begin(backlog: &Arc<Backlog>, files: usize) -> std::sync::mpsc::Receiver<()> {
        let (begun, receiver) = channel();
        let backlog = Arc::clone(backlog);
        std::thread::spawn(move || {
            backlog.begin(files);
            begun.send(()).unwrap();
        });
        receiver
    }

    #[test]
    fn what_is_too_much_waits_for_the_rest() {
        let backlog = Arc::new(Backlog::new(10));
        backlog.begin(6);
        backlog.begin(4);
        let third = begin(&backlog, 5);
        backlog.end(4);
        // 6 and 5 files are still too many.
        assert_eq!(third.try_recv(), Err(TryRecvError::Empty));
        backlog.end(6);
        third.recv().unwrap();
        // A unit that is larger than the limit may be alone.
        let large = begin(&backlog, 100);
        backlog.end(5);
        large.recv().unwrap();
    }

    #[test]
    fn a_limit_that_changes_holds_for_who_waits() {
        let backlog = Arc::new(Backlog::new(10));
        backlog.begin(10);
        let second = begin(&backlog, 10);
        assert_eq!(second.try_recv(), Err(TryRecvError::Empty));
        backlog.raise_limit(10);
        second.recv().unwrap();
        backlog.lower_limit(10);
        let third = begin(&backlog, 5);
        backlog.end(10);
        assert_eq!(third.try_recv(), Err(TryRecvError::Empty));
        backlog.end(10);
        third.recv().unwrap();
    }

    #[test]
    fn at_the_end_nobody_waits() {
        let backlog = Arc::new(Backlog::new(1));
        backlog.begin(1);
        let waiting = begin(&backlog, 1);
        backlog.close();
        waiting.recv().unwrap();
        backlog.begin(1);
    }
}
