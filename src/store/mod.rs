//! Stores the objects that the node receives, and opens every object that the index names.
//!
//! [`Objects`] is the storage directory. An object arrives in a file of `.incoming/`
//! ([`Incoming`]). It then gets its place `<study>/<series>/<instance>.dcm` as a second hard link,
//! and is synchronised ([`Placed`]). When the index has committed its row, the node removes the
//! incoming link. If the process was killed before, the file still has both links at the next start
//! ([`Objects::recover`]). So no file under a final name is half written or missing from the index.
//! File names come from UIDs that follow PS3.5 9.1, and from a hash for other UIDs. They never come
//! from text that a peer chose. [`open`] opens any location of the index, also members of archives.
//! [`Spool`] holds answers that wait for a slow peer, and [`Trash`] objects that were removed.

mod compare;
mod directories;
mod journal;
mod known;
mod meta;
mod modes;
mod names;
mod objects;
mod ownership;
mod source;
mod space;
mod spool;
mod temporary;
mod trash;
mod verified;
mod whole;

use std::io;
use std::path::PathBuf;

pub use journal::{ArrivalJournal, GroupPosition, JournalEntry, JournalError, JournalGroup, JournalId, entries_of};
pub use known::{change_of, is_unchanged};
pub use meta::{FileMeta, data_set_of};
pub use names::{other_names, stem_of};
pub use objects::{
    Incoming, NameOutcome, Objects, Options, PART_FREE, Placed, Recovered, Sync, checksum, make_durable, open, remove,
};
pub use ownership::{has_objects_in, index_id_in, storage_id_in};
pub use source::Source;
use space::FreeSpace;
pub use spool::{Spool, SpoolDirectory, SpoolFile};
pub use trash::Trash;
pub use verified::{DEFAULT_HOLDS, Soundness, Verified};

/// Errors of the storage directory and of objects.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process uses the storage directory.
    #[error(
        "the storage directory {} is in use by another process; hint: stop the node, or the `dcmdex rebuild`, that runs \
         with it",
        path.display()
    )]
    InUse {
        /// The storage directory.
        path: PathBuf,
    },
    /// The storage directory cannot be used.
    #[error("cannot use the storage directory {}", path.display())]
    Unusable {
        /// The storage directory, or a path in it.
        path: PathBuf,
        /// Reason why it cannot be used.
        source: io::Error,
    },
    /// Less space is left than [`Options::min_free_bytes`], or none.
    #[error("not enough space left for objects (store.min_free_mib)")]
    NoSpace,
    /// The same for the disk of the index.
    #[error("not enough space left on the disk of the index (store.min_free_mib)")]
    NoSpaceForIndex,
    /// The path of the storage directory leads to another directory now.
    #[error("the storage directory is not in its place: its disk is not mounted, or it was moved")]
    NotInPlace,
    /// An operation on an object failed. The message does not contain the path, because the peer
    /// receives it.
    #[error("an object could not be {step}")]
    Object {
        /// The operation that failed, such as "written" in "an object could not be written".
        step: &'static str,
        /// Reason why the operation failed.
        source: io::Error,
    },
}

impl Error {
    fn object(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Object { step, source },
        }
    }
}
