//! The arrival journal: a file of fixed size that makes small objects durable with one flush for
//! all that wait ([ADR 0039](../../../docs/adr/0039-arrival-journal.md)).
//!
//! The file begins with a head. Behind it lies a ring of groups. A [`JournalGroup`]
//! holds the objects that one flush makes durable. [`ArrivalJournal`] writes groups, says which of
//! them are still needed, and reads those again after a crash.
//!
//! This module knows neither the index nor the storage directory. `receive` decides what goes into
//! the journal and when it is no longer needed.

mod file;
mod format;

use std::io;
use std::path::PathBuf;

pub use file::{ArrivalJournal, GroupPosition};
pub use format::{JournalEntry, JournalGroup, JournalId, entries_of};

/// Errors of a journal. Each names the file, and says what an operator can do.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be read or written.
    #[error("cannot use the arrival journal {}", path.display())]
    Unusable {
        /// The journal.
        path: PathBuf,
        /// Reason why it cannot be read or written.
        source: io::Error,
    },
    /// Another version of this program has written the file.
    #[error(
        "the arrival journal {} has version {found}, and this program knows version {known}; hint: start the version of \
         dcmdex that wrote it and stop it in order. It then leaves nothing in the journal, and the file can be removed",
        path.display()
    )]
    OtherVersion {
        /// The journal.
        path: PathBuf,
        /// The version of the file.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// The file belongs to the objects of another index.
    #[error(
        "the arrival journal {} belongs to another index; hint: move it away, back to the storage directory that it \
         came from",
        path.display()
    )]
    Foreign {
        /// The journal.
        path: PathBuf,
    },
    /// The file does not hold what was written to it.
    #[error(
        "the arrival journal {} is damaged ({detail}). It holds objects that were acknowledged in the last seconds before \
         the node ended; hint: restore the file; or move it away, start the node, and have these objects sent again",
        path.display()
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Description of the damage, without values of objects.
        detail: String,
    },
}
