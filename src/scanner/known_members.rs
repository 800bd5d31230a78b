//! Reads from the index what it has of the members of archive files.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::db::{self, NotIndexed, Note, ScanLedger};

/// Reads the members that the index already has. All readers share it: each archive needs one or
/// two queries.
#[derive(Debug)]
pub(super) struct KnownMembers(Option<Mutex<db::open::Reader>>);

impl KnownMembers {
    pub(super) fn new(reader: Option<db::open::Reader>) -> Self {
        Self(reader.map(Mutex::new))
    }

    pub(super) fn ask<T: Default>(
        &self,
        ask: impl FnOnce(&mut db::open::Reader) -> Result<T, db::Error>,
    ) -> Result<T, db::Error> {
        match &self.0 {
            // A panic leaves the index reader usable.
            Some(reader) => ask(&mut reader.lock().unwrap_or_else(PoisonError::into_inner)),
            None => Ok(T::default()),
        }
    }

    /// Whether the file is an archive with a member that was read before an attribute was declared.
    pub(super) fn lack_declared(&self, directory: &Path, name: &OsStr, note: &Note) -> bool {
        note.kind == NotIndexed::Container
            && self.ask(|reader| reader.archive_is_without_declared(&directory.join(name))).unwrap_or(false)
    }
}
