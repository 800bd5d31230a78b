//! Looks at paths of file systems that may not answer.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Longest wait for a path. A server that is gone does not answer at all.
const TIME_LIMIT: Duration = Duration::from_millis(500);

/// Looks at paths. To follow a link may wait for a server forever, and the waiting thread cannot be
/// ended. So there is at most one such thread.
pub(in crate::db) struct PathProbe {
    /// The thread that did not answer in time.
    unanswered: Mutex<Option<Receiver<Vec<PathBuf>>>>,
}

impl PathProbe {
    pub(in crate::db) const fn new() -> Self {
        Self { unanswered: Mutex::new(None) }
    }

    /// The paths that are not there. `None` if one of them does not answer.
    pub(in crate::db) fn not_there(
        &self,
        paths: Vec<PathBuf>,
        is_there: impl Fn(&Path) -> bool + Send + 'static,
    ) -> Option<Vec<PathBuf>> {
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        if unanswered.as_ref().is_some_and(|before| matches!(before.try_recv(), Err(TryRecvError::Empty))) {
            return None;
        }
        *unanswered = None;
        let (sender, looked) = mpsc::channel();
        let started = std::thread::Builder::new().name("mounts".into()).spawn(move || {
            let found: Vec<PathBuf> = paths.into_iter().filter(|path| !is_there(path)).collect();
            // Nobody may wait any more.
            let _ = sender.send(found);
        });
        started.ok()?;
        let found = looked.recv_timeout(TIME_LIMIT).ok();
        if found.is_none() {
            *unanswered = Some(looked);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_answer_holds_one_thread() {
        let look = PathProbe::new();
        let path = || vec![PathBuf::from("/link")];
        let (begun, looks) = mpsc::channel();
        let (answer, server) = mpsc::channel::<()>();
        let begin = begun.clone();
        let waits = move |_: &Path| begin.send(()).is_ok() && server.recv().is_ok();
        assert_eq!(look.not_there(path(), waits), None);
        looks.recv().unwrap();
        for _ in 0..3 {
            let begin = begun.clone();
            assert_eq!(look.not_there(path(), move |_| begin.send(()).is_ok()), None);
        }
        assert!(looks.try_recv().is_err(), "another thread was begun");
        // It answers at last, and the next look starts again.
        answer.send(()).unwrap();
        drop((begun, answer));
        assert!(looks.recv().is_err());
        let is_there = std::iter::from_fn(|| Some(look.not_there(path(), |_| true)));
        assert!(is_there.take(100_000).any(|found| found == Some(Vec::new())));
    }
}
