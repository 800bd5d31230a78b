//! Merge: everything of one index file is taken into another one.

use std::path::Path;

use super::open::ReadConnection;
use super::pieces::{CHANGED_STUDIES, STUDIES_WITH_LOSSES, SoughtRows};
use super::reader::SqliteReader;
use super::schema::EVENTS;
use super::worklist::{note_present, waiting_items};
use super::write::{has_removed_of, last_change};
use super::writer::{SqliteWriter, SqliteWriterHandle, WriterOptions};
use crate::db::federated::FederatedPart as _;
use crate::db::{Durability, Error, EventRecording};

/// Studies that are taken in one transaction. Larger: the log grows, and the caches with it.
/// Smaller: more transactions.
const STUDIES_IN_BATCH: usize = 200;

/// Memory for pages of the file that is read, in bytes.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// Content that neither file may have. It would be lost, or tell programs of studies that did not
/// change. Each entry has its words, its tables, and the condition for its rows.
const NOT_IN_EITHER: [SoughtRows; 2] = [
    ("studies whose events are still to come", "event_cursor", CHANGED_STUDIES),
    ("studies whose events are still to come", "event_cursor, loss", STUDIES_WITH_LOSSES),
];

/// Content that the file that goes into the other one may not have.
const NOT_IN_OTHER: [SoughtRows; 5] = [
    ("items of a worklist", "worklist_item", "true"),
    ("performed procedure steps that have not ended", "performed_step", "status = 'IN PROGRESS'"),
    ("events that a receiver waits for", "event_waiting", "is_dead = 0"),
    ("events that a receiver waits for", "event", "id > (SELECT min(position) FROM event_receiver)"),
    ("the mark of an arrival journal", "arrival_journal", "true"),
];

/// Content that a merge leaves in the file that goes into the other one. No query is answered with
/// it.
const LEFT_BEHIND: [SoughtRows; 7] = [
    ("events that were told", "event", "true"),
    ("events that no receiver took", "event_waiting", "is_dead = 1"),
    ("what watched directories had last", "watch", "true"),
    ("corrections that were undone", "correction", "undone_ms IS NOT NULL"),
    ("what could not become an item of a worklist", "worklist_problem", "true"),
    ("performed procedure steps that have ended", "performed_step", "status <> 'IN PROGRESS'"),
    ("scans without an instance", "scan", "NOT EXISTS (SELECT 1 FROM arrival a WHERE a.scan = scan.id)"),
];

/// Refuses to merge two files if something would be lost that is not only history. Returns what the
/// other file keeps for itself, in words.
///
/// # Errors
/// [`Error::NotMergeable`], and that of the files.
pub fn check_mergeable(into: &Path, other: &Path, options: &WriterOptions) -> Result<Vec<&'static str>, Error> {
    let mut readers = [SqliteReader::open(into)?, SqliteReader::open(other)?];
    let refuse = |what: &'static str| Err(Error::NotMergeable { what });
    for reader in &mut readers {
        if let Some(what) = reader.found(&NOT_IN_EITHER)?.first() {
            return refuse(what);
        }
        let sql = "SELECT EXISTS (SELECT 1 FROM instance_group WHERE declared_set NOT IN ('', ?1))";
        if reader.connection.query_row(sql, [options.declared.mark()], |row| row.get(0))? {
            return refuse("values of other declared attributes than the configuration has");
        }
    }
    let [ours, theirs] = &mut readers;
    if let Some(what) = theirs.found(&NOT_IN_OTHER)?.first() {
        return refuse(what);
    }
    if rules_of(ours)? != rules_of(theirs)? {
        return refuse("corrections that the other file does not have");
    }
    if has_removed_of(&ours.connection, &theirs.connection)? || has_removed_of(&theirs.connection, &ours.connection)? {
        return refuse("instances that were removed from the other file");
    }
    theirs.found(&LEFT_BEHIND)
}

/// The corrections that hold.
fn rules_of(reader: &mut SqliteReader) -> Result<Vec<impl PartialEq + use<>>, Error> {
    let held = reader.corrections()?.into_iter().filter(|rule| rule.undone_ms.is_none());
    Ok(held.map(|rule| (rule.keys, rule.values)).collect())
}

/// Has a copy of an index take in all that a copy of another one has, apart from what
/// [`check_mergeable`] names. Nobody else may have them open.
///
/// Instances keep their arrivals. Their change numbers are new, as the numbers of the other file
/// mean nothing here. No event tells of them, and no item of a worklist starts with them.
///
/// *Durability*: the copy is not durable, and after a kill it is incomplete.
///
/// # Errors
/// That of the files.
pub fn take_in(copy: &Path, other: &Path, options: WriterOptions) -> Result<(), Error> {
    let options = WriterOptions { durability: Durability::Os, recording: EventRecording::Off, ..options };
    // It gets the tables that came after it was made.
    SqliteWriter::open(other, options.clone())?.close()?;
    let mut studies = Vec::new();
    SqliteReader::open(other)?.each_study(None, &mut |row, uid| studies.push((row, uid.to_owned())))?;
    // In the order of their arrival, which is that of answers of one day.
    studies.sort();
    let writer = SqliteWriter::open(copy, options)?;
    let handle = writer.handle();
    let waiting = handle.maintain(|batch| waiting_items(batch.connection()))?;
    for some in studies.chunks(STUDIES_IN_BATCH) {
        handle.take_studies(other, some.iter().map(|(_, uid)| uid.clone()).collect())?;
    }
    handle.take_notes(other)?;
    handle.maintain(move |batch| waiting.iter().try_for_each(|item| note_present(batch.connection(), *item)))?;
    drop(handle);
    writer.close()
}

impl SqliteWriterHandle {
    /// Takes studies of another file in, in one transaction.
    fn take_studies(&self, other: &Path, uids: Vec<String>) -> Result<(), Error> {
        let connection = ReadConnection::open_copy(other, CACHE_BYTES)?;
        self.maintain(move |batch| {
            let mut other = batch.other(&connection)?;
            uids.iter().try_for_each(|uid| batch.take_study(&mut other, uid))
        })
    }

    /// Takes in what another file has besides studies.
    fn take_notes(&self, other: &Path) -> Result<(), Error> {
        let connection = ReadConnection::open_copy(other, CACHE_BYTES)?;
        self.maintain(move |batch| {
            let mut other = batch.other(&connection)?;
            batch.take_notes(&mut other)?;
            if EVENTS.are_in(batch.connection())? {
                let told = last_change(batch.connection())?;
                batch.connection().execute("UPDATE event_cursor SET change = ?1", [told])?;
            }
            Ok(())
        })
    }
}
