//! Whose turn it is, where several processes write one index.
//!
//! SQLite lets one write at a time and makes the others try again after a while: who writes often gets in often, and a node
//! whose peers wait for an answer can be kept out for seconds by a scan that goes from transaction to transaction. So who is
//! in a hurry and was kept out takes a lock on a file beside the index (`index.db-turn`), until it writes; and a scan looks
//! for that lock before each transaction, and now and then in it. It is advice: where the file cannot be locked, all is as
//! SQLite does it.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::files;

/// Pause between attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(1);

/// How long a scan gives way at most: who asked may have been stopped in the middle.
const LONGEST_WAY: Duration = Duration::from_secs(1);

/// How a transaction takes its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// Somebody waits for it.
    Waiting,
    /// It can wait for those for whom somebody does.
    None,
}

/// How long a transaction that somebody waits for is kept out by another process before it is given up. Larger: a peer waits
/// in vain for longer when a writer was stopped in the middle. Smaller: a slow disk makes a node refuse what it could store.
const LONGEST_WAIT_OF_A_PEER: Duration = Duration::from_secs(10);

impl Priority {
    /// How long such a transaction waits for another process.
    pub(super) const fn patience(self) -> Duration {
        match self {
            Self::Waiting => LONGEST_WAIT_OF_A_PEER,
            Self::None => super::limits::BUSY_TIMEOUT,
        }
    }
}

/// The lock beside an index.
#[derive(Debug)]
pub(super) struct PriorityLock(Option<File>);

/// That somebody is in a hurry, until dropped.
#[derive(Debug)]
pub(super) struct PriorityRequest<'t>(&'t File);

impl PriorityLock {
    /// That of an index which nobody else can write, because it is being migrated in one transaction.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    pub(super) fn beside(index: &Path) -> Self {
        // Without it all works, with more waiting.
        Self(files::open_lock_file(index).ok())
    }

    /// Asks all scans to give way; `None` while somebody else does or looks.
    pub(super) fn ask(&self) -> Option<PriorityRequest<'_>> {
        let file = self.0.as_ref()?;
        flock(file, FlockOperation::NonBlockingLockExclusive).ok().map(|()| PriorityRequest(file))
    }

    /// Whether somebody has asked.
    pub(super) fn is_asked(&self) -> bool {
        self.0.is_some() && self.ask().is_none()
    }

    /// Waits while somebody asks, for a while.
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
