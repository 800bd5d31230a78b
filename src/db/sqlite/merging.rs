//! Index files that become one: all that one of them has is taken into another one.

use std::path::Path;

use super::open::ReadConnection;
use super::reader::SqliteReader;
use super::writer::{SqliteWriter, SqliteWriterHandle, WriterOptions};
use crate::db::federated::FederatedPart as _;
use crate::db::{Durability, Error};

/// Studies that are taken in one transaction. Larger: the log grows, and the caches with it.
/// Smaller: more transactions.
const STUDIES_IN_BATCH: usize = 200;

/// Memory for pages of the file that is read, in bytes.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// Has a copy of an index take in all that a copy of another one has. Nobody else may have them
/// open.
///
/// Instances keep their arrivals. Their change numbers are new, as the numbers of the other file
/// mean nothing here.
///
/// *Durability*: the copy is not durable, and after a kill it is incomplete.
///
/// # Errors
/// [`Error::NotMergeable`] if the other file has what cannot be taken in, and that of the files.
pub fn take_in(copy: &Path, other: &Path, options: WriterOptions) -> Result<(), Error> {
    let options = WriterOptions { durability: Durability::Normal, ..options };
    // It gets the tables that came after it was made.
    SqliteWriter::open(other, options.clone())?.close()?;
    let mut reader = SqliteReader::open(other)?;
    refuse_what_stays(&mut reader, &mut SqliteReader::open(copy)?)?;
    let mut studies = Vec::new();
    reader.each_study(None, &mut |row, uid| studies.push((row, uid.to_owned())))?;
    drop(reader);
    // In the order of their arrival, which is that of answers of one day.
    studies.sort();
    let writer = SqliteWriter::open(copy, options)?;
    let handle = writer.handle();
    for some in studies.chunks(STUDIES_IN_BATCH) {
        handle.take_studies(other, some.iter().map(|(_, uid)| uid.clone()).collect())?;
    }
    handle.take_notes(other)?;
    drop(handle);
    writer.close()
}

/// Refuses corrections that only one of the files has, because they would change answers, and items
/// of a worklist.
fn refuse_what_stays(other: &mut SqliteReader, ours: &mut SqliteReader) -> Result<(), Error> {
    let rules = |reader: &mut SqliteReader| -> Result<Vec<_>, Error> {
        let held = reader.corrections()?.into_iter().filter(|rule| rule.undone_ms.is_none());
        Ok(held.map(|rule| (rule.keys, rule.values)).collect())
    };
    if rules(other)? != rules(ours)? {
        return Err(Error::NotMergeable { what: "corrections that the other file does not have" });
    }
    let has_items: bool =
        other.connection.query_row("SELECT EXISTS (SELECT 1 FROM worklist_item)", [], |row| row.get(0))?;
    match has_items {
        true => Err(Error::NotMergeable { what: "items of a worklist" }),
        false => Ok(()),
    }
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
            batch.take_notes(&mut other)
        })
    }
}
