//! Types that go into an index and come out of it. They are the same for each engine.

mod known;
mod received;
mod removed;
mod scanned;
mod status;

use std::sync::Arc;

pub use known::{DeclaredCoverage, DirectorySnapshot, KnownFile, LocatedInstance, Note};
pub use received::{
    Committed, Compared, CorrectedValues, DuplicatePolicy, Durability, JournalEntryId, KnownLocation, KnownPolicy,
    OnStored, ReceivePolicy, Received, ReceivedFrom, StoreOutcome, Stored,
};
pub use removed::{REMOVED, Relocation, Removal, RemovedCounts, RemovedFile};
pub use scanned::{FileOutcome, Mounted, NotIndexed, ScannedDirectory, ScannedFile, Tally};
pub use status::{CheckReport, ConflictEntry, FailureEntry, Finding, IndexStatus, ScanEntry, WatchEntry};

/// Interrupts a question that another thread asks.
#[derive(Clone)]
pub struct Interrupt(Arc<dyn Fn() + Send + Sync>);

impl Interrupt {
    /// Makes an interrupt that calls this function.
    pub fn new(interrupt: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(interrupt))
    }

    /// Interrupts the question, if there is one.
    pub fn interrupt(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupt")
    }
}
