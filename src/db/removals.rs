//! Removals by operators, behind traits (docs/adr/0032).
//!
//! The life of a removal:
//!
//! 1. `begin_removal` gives it a number. `remove` takes its instances out, in any number of calls.
//! 2. Who holds the storage directory asks for `files_for_trash`, moves them, and notes them as
//!    `trashed`. A file that was received again meanwhile is left, and goes by `forget_removed`.
//! 3. Either `lift_removed` lets the instances come back, and `end_removal` forgets the removal. Or
//!    the trash is deleted, and `emptied` notes it: the instances stay removed.
//!
//! An index that is built anew learns removals from the trash: `removal_of` makes the row, and
//! `note_removed` the instances.

use std::collections::HashMap;
use std::path::Path;

use super::{Error, Removal, RemovedCounts, RemovedFile};
use crate::model::record::InstanceRecord;

/// State of a removed file that stays where it is.
pub(in crate::db) const STAYS: i64 = 0;
/// State of a removed file that is to go to the trash.
pub(in crate::db) const FOR_TRASH: i64 = 1;
/// State of a removed file that is in the trash.
pub(in crate::db) const IN_TRASH: i64 = 2;

/// Tells what was removed.
pub trait RemovalSearch {
    /// All removals, the newest first.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn removals(&mut self) -> Result<Vec<Removal>, Error>;

    /// Removed instances among these, with the time when the removal began (milliseconds since 1970
    /// UTC).
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn removed_among(&mut self, sop_instance_uids: Vec<String>) -> Result<HashMap<String, i64>, Error>;

    /// A page of the removed files that are to go to the trash. They come after `after`, in an
    /// order of the engine that does not change. `None` begins.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn files_for_trash(&mut self, after: Option<&RemovedFile>, limit: usize) -> Result<Vec<RemovedFile>, Error>;

    /// A page of the files of a removal, those of instances after this UID in an order of the
    /// engine. The files of an instance come together, and the first of them is the one that was
    /// its first location. Begin with an empty UID.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn files_of_removal(&mut self, removal: i64, after: &str, limit: usize) -> Result<Vec<RemovedFile>, Error>;

    /// A page of the instances of a removal after this UID, in an order of the engine. An instance
    /// that no object can bring back has its record. Begin with an empty UID.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn instances_of_removal(
        &mut self,
        removal: i64,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Option<InstanceRecord>)>, Error>;
}

/// Removes, and brings back. Each call is one transaction, and is committed when it returns.
pub trait RemovalChanges {
    /// Begins a removal, and returns its number. `begun_ms` is in milliseconds since 1970 UTC. If
    /// `takes_objects`, received objects are to go to the trash. Otherwise all files stay.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn begin_removal(&self, begun_ms: i64, takes_objects: bool) -> Result<i64, Error>;

    /// Removes instances, and returns what was removed. Scans do not bring them back.
    /// `takes_objects` decides for these instances. It must be that of [`Self::begin_removal`],
    /// which [`RemovalSearch::removals`] shows. An instance that the index does not know is passed
    /// over.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn remove(&self, removal: i64, takes_objects: bool, uids: Vec<String>) -> Result<RemovedCounts, Error>;

    /// Notes instances as removed that the index does not know. The index was lost, and the trash
    /// says what was removed.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn note_removed(&self, removal: i64, uids: Vec<String>) -> Result<(), Error>;

    /// Notes files as being in the trash.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn trashed(&self, files: Vec<RemovedFile>) -> Result<(), Error>;

    /// Forgets removed files, because they were received again.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn forget_removed(&self, files: Vec<RemovedFile>) -> Result<(), Error>;

    /// Lets removed instances come back.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn lift_removed(&self, uids: Vec<String>) -> Result<(), Error>;

    /// Forgets a removal that was undone. The files that it still has rows of stay where they are.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn end_removal(&self, removal: i64) -> Result<(), Error>;

    /// Notes that the trash of a removal below this storage directory was emptied, at `now_ms` in
    /// milliseconds since 1970 UTC. Its instances stay removed. Returns how many of its objects are
    /// in the trash of other storage directories, of which an engine of one machine knows none.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn emptied(&self, removal: i64, storage: &Path, now_ms: i64) -> Result<u64, Error>;

    /// The number of the removal that began at this moment, in milliseconds since 1970 UTC. It is
    /// made if there is none.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn removal_of(&self, begun_ms: i64) -> Result<i64, Error>;
}
