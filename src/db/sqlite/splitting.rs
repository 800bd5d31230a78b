//! Split: copies of an index that each keep a part of its studies.

use std::collections::BTreeSet;
use std::path::Path;

use super::reader::SqliteReader;
use super::writer::{SqliteWriter, SqliteWriterHandle, WriterOptions};
use crate::db::federated::FederatedPart as _;
use crate::db::{Durability, Error};

/// Studies that are dropped in one transaction. Larger: the log grows, and the caches with it.
/// Smaller: more transactions.
const STUDIES_IN_BATCH: usize = 200;

/// Tables whose rows belong to no study. They stay with the file that is parted. A removal holds
/// for its instances wherever a scan finds them, so both parts have its notes of instances.
const OF_NO_STUDY: &[&str] = &[
    "unindexed_file",
    "removed_file",
    "index_identity",
    "watch",
    "worklist_item",
    "worklist_asked",
    "worklist_problem",
    "performed_step",
    "arrival_journal",
    "event",
    "event_cursor",
    "event_receiver",
    "event_waiting",
];

/// Tables that have files of a directory.
const OF_DIRECTORIES: &[&str] =
    &["instance_group", "copy", "missing_file", "unindexed_file", "file_fault", "conflict", "removed_file"];

/// Part of an index that a copy of it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptStudies {
    /// These studies, and nothing that belongs to no study.
    These,
    /// All other studies, and all that belongs to no study.
    Others,
}

/// Has a copy of an index keep only some of its studies. Nobody else may have it open.
///
/// *Durability*: the copy is not durable, and after a kill it is incomplete.
///
/// # Errors
/// Fails if the copy cannot be opened or written.
pub fn keep_studies(copy: &Path, kept: KeptStudies, studies: &BTreeSet<String>) -> Result<(), Error> {
    let options = WriterOptions { durability: Durability::Os, ..WriterOptions::default() };
    let writer = SqliteWriter::open(copy, options)?;
    let mut dropped = Vec::new();
    SqliteReader::open(copy)?.each_study(None, &mut |_, uid| {
        if studies.contains(uid) != (kept == KeptStudies::These) {
            dropped.push(uid.to_owned());
        }
    })?;
    let handle = writer.handle();
    for some in dropped.chunks(STUDIES_IN_BATCH) {
        handle.drop_studies(some.to_vec())?;
    }
    handle.tidy(kept)?;
    drop(handle);
    writer.close()
}

impl SqliteWriterHandle {
    /// Drops studies in one transaction. No note of it stays.
    fn drop_studies(&self, uids: Vec<String>) -> Result<(), Error> {
        self.maintain(move |batch| uids.iter().try_for_each(|uid| batch.drop_study(uid)))
    }

    /// Drops what belongs to no study, if that is to go, and directories without files.
    fn tidy(&self, kept: KeptStudies) -> Result<(), Error> {
        self.maintain(move |batch| {
            let gone = if kept == KeptStudies::These { OF_NO_STUDY } else { &[] };
            for table in gone {
                // Features that were never used have no tables.
                if batch.connection().table_exists(None, *table)? {
                    batch.connection().execute(&format!("DELETE FROM {table}"), [])?;
                }
            }
            let used: Vec<_> = OF_DIRECTORIES.iter().map(|table| format!("SELECT directory FROM {table}")).collect();
            let sql = format!("DELETE FROM directory WHERE id NOT IN ({})", used.join(" UNION "));
            batch.connection().execute(&sql, [])?;
            batch.forget_directories();
            Ok(())
        })
    }
}
