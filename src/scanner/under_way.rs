//! How much a scan has under way at a time.

use std::sync::{Condvar, Mutex, PoisonError};

/// Counts the files that have been found and whose results have not been taken yet, and has the walk wait while there are
/// many. Units are of very different size: a limit to their number that holds for the largest leaves the readers idle, while
/// the walk is at a small directory, where most are small.
#[derive(Debug)]
pub(super) struct UnderWay {
    limit: usize,
    files: Mutex<Option<usize>>,
    fewer: Condvar,
}

impl UnderWay {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, files: Mutex::new(Some(0)), fewer: Condvar::new() }
    }

    /// Waits until so many more may be under way; one unit always may.
    pub(super) fn begin(&self, files: usize) {
        let begun = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |begun: &mut Option<usize>| begun.is_some_and(|begun| begun > 0 && begun + files > self.limit);
        let mut begun = self.fewer.wait_while(begun, is_full).unwrap_or_else(PoisonError::into_inner);
        if let Some(begun) = begun.as_mut() {
            *begun += files;
        }
    }

    /// Their results have been taken.
    pub(super) fn end(&self, files: usize) {
        let mut begun = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(begun) = begun.as_mut() {
            *begun = begun.saturating_sub(files);
        }
        drop(begun);
        self.fewer.notify_one();
    }

    /// Nobody takes results any more, and nobody waits for that.
    pub(super) fn close(&self) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.fewer.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{TryRecvError, channel};

    use super::*;

    /// Begins with so many on a thread of its own; the receiver gets a word when that may go on.
    fn begin(under_way: &Arc<UnderWay>, files: usize) -> std::sync::mpsc::Receiver<()> {
        let (begun, receiver) = channel();
        let under_way = Arc::clone(under_way);
        std::thread::spawn(move || {
            under_way.begin(files);
            begun.send(()).unwrap();
        });
        receiver
    }

    #[test]
    fn what_is_too_much_waits_for_the_rest() {
        let under_way = Arc::new(UnderWay::new(10));
        under_way.begin(6);
        under_way.begin(4);
        let third = begin(&under_way, 5);
        under_way.end(4);
        // 6 and 5 are too many still.
        assert_eq!(third.try_recv(), Err(TryRecvError::Empty));
        under_way.end(6);
        third.recv().unwrap();
        // More than all that may be at once may be alone.
        let large = begin(&under_way, 100);
        under_way.end(5);
        large.recv().unwrap();
    }

    #[test]
    fn at_the_end_nobody_waits() {
        let under_way = Arc::new(UnderWay::new(1));
        under_way.begin(1);
        let waiting = begin(&under_way, 1);
        under_way.close();
        waiting.recv().unwrap();
        under_way.begin(1);
    }
}
