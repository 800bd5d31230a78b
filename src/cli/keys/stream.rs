//! Answers of a query, with the places of their objects, from one thread to another.

use std::ops::ControlFlow;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use super::columns::FoundRow;
use super::query::locate;
use crate::db::Search;
use crate::db::open::Reader;
use crate::qr;

/// Rows that one thread hands to the other at once.
const BATCH: usize = 256;

/// Batches that may wait.
const WAITING_BATCHES: usize = 4;

/// Asks the index in one thread, and calls `take` with batches of rows in this one. Returns the
/// number of rows. `located_by` is the place of the SOP Instance UID in an answer, if locations are
/// wanted.
///
/// # Errors
/// That of `take`, which ends the query, or that of the query.
pub(in crate::cli) fn each_batch<E: Into<anyhow::Error>>(
    reader: Reader,
    query: &qr::Query,
    located_by: Option<usize>,
    mut take: impl FnMut(&mut Vec<FoundRow>) -> Result<(), E>,
) -> anyhow::Result<u64> {
    thread::scope(|scope| {
        let (sender, batches) = mpsc::sync_channel(WAITING_BATCHES);
        let asking = scope.spawn(move || ask(reader, query, located_by, &sender));
        let mut rows = 0;
        let mut failure = None;
        for mut batch in batches {
            rows += batch.len() as u64;
            if let Err(error) = take(&mut batch) {
                failure = Some(error);
                break;
            }
        }
        // The asking thread ends when nobody takes its batches.
        let asked = asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match failure {
            Some(error) => Err(error.into()),
            None => asked.map(|()| rows),
        }
    })
}

/// Sends all answers in batches. It ends early if nobody takes them.
fn ask(
    mut reader: Reader,
    query: &qr::Query,
    located_by: Option<usize>,
    batches: &SyncSender<Vec<FoundRow>>,
) -> anyhow::Result<()> {
    // The reader of the query is busy while answers come.
    let mut locator = located_by.map(|_| reader.another()).transpose()?;
    let stop = qr::QueryStop::new(&reader);
    let mut batch = Vec::with_capacity(BATCH);
    let found = qr::try_run::<anyhow::Error>(&mut reader, query, &stop, |mut answer| {
        let location = locate(locator.as_mut(), located_by, &mut answer)?;
        batch.push(FoundRow { answer, location });
        if batch.len() < BATCH {
            return Ok(ControlFlow::Continue(()));
        }
        Ok(match batches.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_nobody) => ControlFlow::Break(()),
        })
    });
    // Otherwise the one who takes the rows has failed, and says why.
    if found?.is_some() {
        // Nobody takes the last rows if the other thread has failed.
        let _ = batches.send(batch);
    }
    Ok(())
}
