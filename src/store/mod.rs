//! Bytes at rest: the objects that the node keeps.
//!
//! [`Objects`] is the storage directory. An object arrives in a file of `.incoming/` ([`Incoming`]), gets its
//! place `<study>/<series>/<instance>.dcm` as a second name, and is synchronised ([`Placed`]). The first name goes when the index
//! has its row; what a killed process left with both is recovered at the next start ([`Objects::recover`]), so that nothing under
//! a final name is half written or unknown to the index. Names come from UIDs that follow PS3.5 9.1, or from a
//! hash where a UID does not: never from text that a peer chose. [`open`] opens any location that the index names, members of
//! archives included. [`Spool`] is for answers that wait for a slow peer.

mod directories;
mod meta;
mod modes;
mod objects;
mod ownership;
mod source;
mod space;
mod spool;
mod verified;

use std::io;
use std::path::PathBuf;

pub use meta::FileMeta;
pub use objects::{
    Contents, Incoming, Objects, Options, Placed, Recovered, Sync, checksum, make_durable, open, remove,
};
pub use source::Source;
pub use space::FreeSpace;
pub use spool::Spool;
pub use verified::{DEFAULT_HOLDS, FileMark, Soundness, Verified};

/// What goes wrong with stored objects.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process stores there.
    #[error("the storage directory {} is in use by another process", path.display())]
    InUse {
        /// The storage directory.
        path: PathBuf,
    },
    /// The storage directory cannot be used.
    #[error("cannot use the storage directory {}", path.display())]
    Unusable {
        /// The storage directory, or what in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Less space is left than [`Options::min_free_bytes`], or none.
    #[error("not enough space left for objects")]
    NoSpace,
    /// An object could not be written. The text leaves the path out: it ends in the answer to the peer.
    #[error("an object could not be {step}")]
    Object {
        /// What could not be done, as in "could not be written".
        step: &'static str,
        /// Why.
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
