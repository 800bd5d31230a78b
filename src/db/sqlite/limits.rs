//! Numbers that several parts of the engine go by.

use std::time::Duration;

/// How long a connection waits for another process to finish its transaction before it gives up. Batches hold the write
/// lock for well under a second; longer means that somebody holds it by hand.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// Pages in the write-ahead log after which it is copied back: 32 MiB. Smaller costs a sync more often, larger makes
/// the one commit that copies slower.
pub(super) const WAL_AUTOCHECKPOINT_PAGES: u32 = 4096;

/// Numbers of changes in a block. More: a search for what has changed since a number reads more groups that have not. Fewer: the
/// index of blocks is written more often.
pub(super) const CHANGES_IN_BLOCK: i64 = 64;
