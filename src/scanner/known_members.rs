//! Reads from the index what it has of the members of archive files.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::db::{self, KnownFile, NotIndexed, Note, ScanLedger};

/// Summary of what the index knows of the members of an archive file.
#[derive(Debug, Default)]
pub(super) struct MemberSummary {
    /// Members that are indexed and not missing.
    pub(super) unchanged: u64,
    /// Members that are not indexed or missing.
    pub(super) others: Vec<(OsString, KnownFile)>,
}

impl MemberSummary {
    /// Whether members that an earlier scan missed may be back, because an archive of this time is
    /// back. Members that an archive lost when it was changed have an older time.
    pub(super) fn may_be_back(&self, mtime_ms: i64) -> bool {
        self.others.iter().any(|(_, file)| file.missing && file.mtime_ms == mtime_ms)
    }
}

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

    /// Summary of what the index knows of the members of an archive file.
    pub(super) fn summary(&self, archive: &Path) -> Result<MemberSummary, db::Error> {
        let (unchanged, others) = self.ask(|reader| reader.archive_summary(archive))?;
        Ok(MemberSummary { unchanged, others })
    }

    /// Whether the file is an archive with a member that was read before an attribute was declared.
    pub(super) fn lack_declared(&self, directory: &Path, name: &OsStr, note: &Note) -> bool {
        note.kind == NotIndexed::Container
            && self.ask(|reader| reader.archive_is_without_declared(&directory.join(name))).unwrap_or(false)
    }
}
