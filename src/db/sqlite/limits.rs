//! Limits that several parts of the engine use.

use std::time::Duration;

/// Time that a connection waits for the transaction of another process before it gives up. Batches
/// hold the write lock for well under a second. A longer wait means that another program holds it.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// Pages in the write-ahead log after which it is checkpointed: 32 MiB. Larger: the commit that
/// checkpoints is slower. Smaller: a sync is necessary more often.
pub(super) const WAL_AUTOCHECKPOINT_PAGES: u32 = 4096;

/// Numbers of changes in a block. Larger: a search for changes since a number reads more unchanged
/// groups. Smaller: the index of blocks is written more often.
pub(super) const CHANGES_IN_BLOCK: i64 = 64;
