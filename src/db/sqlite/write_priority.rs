//! Priority among several processes that write one index.
//!
//! SQLite lets one process write at a time, and has the others try again after a pause. A scan goes
//! from transaction to transaction, and so could keep a node out for seconds while its peers wait.
//! A process that must write soon therefore locks a file beside the index (`index.db-turn`) until
//! it writes. A scan checks this lock before and during its transactions, and pauses. If the file
//! cannot be locked, all works as SQLite does it.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::files;

/// Pause between attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(1);

/// Longest pause of a scan. The process that asked may have been stopped.
const LONGEST_WAY: Duration = Duration::from_secs(1);

/// Urgency of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// Somebody waits for it.
    Waiting,
    /// It can wait for others.
    None,
}

/// Time that an urgent transaction waits for another process before it is given up. Larger: a peer
/// waits longer in vain if a writer was stopped in a transaction. Smaller: a node with a slow disk
/// refuses what it could store.
const LONGEST_WAIT_OF_A_PEER: Duration = Duration::from_secs(10);

impl Priority {
    /// Time that such a transaction waits for another process.
    pub(super) const fn time_limit(self) -> Duration {
        match self {
            Self::Waiting => LONGEST_WAIT_OF_A_PEER,
            Self::None => super::limits::BUSY_TIMEOUT,
        }
    }
}

/// The lock beside an index.
#[derive(Debug)]
pub(super) struct PriorityLock(Option<File>);

/// A request for priority, until it is dropped.
#[derive(Debug)]
pub(super) struct PriorityRequest<'t>(&'t File);

impl PriorityLock {
    pub(super) fn beside(index: &Path) -> Self {
        // Without the lock all works, but with more waiting.
        Self(files::open_lock_file(index).ok())
    }

    /// Asks all scans to pause. `None` while somebody else asks or looks.
    pub(super) fn ask(&self) -> Option<PriorityRequest<'_>> {
        let file = self.0.as_ref()?;
        flock(file, FlockOperation::NonBlockingLockExclusive).ok().map(|()| PriorityRequest(file))
    }

    /// Whether somebody has asked.
    pub(super) fn is_asked(&self) -> bool {
        self.0.is_some() && self.ask().is_none()
    }

    /// Waits while somebody asks, for a limited time.
    pub(super) fn give_way(&self) {
        let deadline = Instant::now() + LONGEST_WAY;
        while self.is_asked() && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for PriorityRequest<'_> {
    fn drop(&mut self) {
        let _closing_would_do = flock(self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_seen_until_it_has_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("index.db");
        let (node, scan) = (PriorityLock::beside(&index), PriorityLock::beside(&index));
        assert!(!scan.is_asked());
        let asked = node.ask().unwrap();
        assert!(scan.is_asked());
        assert!(scan.ask().is_none());
        drop(asked);
        assert!(!scan.is_asked());
        scan.give_way();
    }

    #[test]
    fn without_the_file_nobody_waits() {
        let turn = PriorityLock::beside(Path::new("/nowhere/at/all/index.db"));
        assert!(turn.ask().is_none() && !turn.is_asked());
        turn.give_way();
    }
}
