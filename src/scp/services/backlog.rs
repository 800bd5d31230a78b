//! Answers of a query that wait for a slow peer, in a file beside the index (ADR 0021).

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};
use tracing::debug;

use crate::db::open::directory_beside;
use crate::shares::{CountedPeer, Share, Shares, Turns};
use crate::store::{Spool, SpoolDirectory};
use crate::telemetry::metrics;

/// Maximum bytes of answers in files beside the index, for all queries together. A million answers
/// of a study are some 300 MB. A query that finds no room ends with A700 if its peer does not take
/// answers.
const SPOOLED_BYTES: usize = 1 << 30;

/// Default for the bytes that received objects leave free on their disk (`store.min_free_mib`).
const MIN_FREE_BYTES: u64 = 256 << 20;

/// Maximum threads that read answers back from files. Each reads one piece.
const READING_THREADS: usize = 16;

/// The files for answers of all queries.
#[derive(Debug)]
pub(super) struct AnswerSpools {
    directory: SpoolDirectory,
    room: Arc<Shares>,
    threads: Arc<Turns>,
}

impl AnswerSpools {
    /// Creates the files beside an index.
    pub(super) fn beside(index: &Path) -> Self {
        Self::leaving(index, MIN_FREE_BYTES)
    }

    /// Creates the files beside an index. They leave twice as many bytes free as received objects
    /// do.
    pub(super) fn leaving(index: &Path, min_free_bytes: u64) -> Self {
        Self {
            directory: SpoolDirectory::new(directory_beside(index), min_free_bytes.saturating_mul(2)),
            room: Shares::new(SPOOLED_BYTES, 0, &metrics::SPOOL_REFUSED),
            threads: Turns::new(READING_THREADS),
        }
    }
}

/// Encoded answers.
#[derive(Debug, Default)]
pub(in crate::scp) struct Answers {
    /// P-DATA-TF PDUs.
    pub(in crate::scp) bytes: Vec<u8>,
    /// Number of answers.
    pub(in crate::scp) count: u64,
}

/// The answers of one query that wait.
#[derive(Debug)]
pub(super) struct AnswerBacklog {
    spools: Arc<AnswerSpools>,
    peer: CountedPeer,
    /// The answers on disk, and the room that is counted for them.
    spool: Option<(Spool, Share)>,
    /// Number of answers in each piece of the spool.
    counts: VecDeque<u64>,
    /// The last answers. They come after those on disk.
    last: Option<Answers>,
    /// The memory that is counted until the query is over.
    _memory: Option<Share>,
}

impl AnswerBacklog {
    /// Creates an empty backlog.
    pub(super) fn new(spools: &Arc<AnswerSpools>, peer: &CountedPeer) -> Self {
        let (spools, peer) = (Arc::clone(spools), Arc::clone(peer));
        Self { spools, peer, spool: None, counts: VecDeque::new(), last: None, _memory: None }
    }

    /// Whether no answers wait on disk.
    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Whether no answers wait, on disk or in memory.
    pub(super) fn is_spent(&self) -> bool {
        self.is_empty() && self.last.is_none()
    }

    /// Appends answers to those on disk. Returns them if there is no room.
    pub(super) fn keep(&mut self, answers: Answers) -> Result<(), Answers> {
        match self.push(&answers) {
            Ok(()) => Ok(()),
            Err(error) => {
                debug!("answers for a slow peer cannot be kept beside the index: {error}");
                Err(answers)
            }
        }
    }

    fn push(&mut self, answers: &Answers) -> io::Result<()> {
        let length = answers.bytes.len();
        let no_room = || io::Error::new(io::ErrorKind::StorageFull, "too many answers wait already");
        let (spool, room) = match &mut self.spool {
            Some(it) => it,
            none => {
                let share = self.spools.room.take(&self.peer, 0).ok_or_else(no_room)?;
                none.insert((self.spools.directory.spool()?, share))
            }
        };
        if !room.grow(length) {
            return Err(no_room());
        }
        spool.push(&answers.bytes)?;
        self.counts.push_back(answers.count);
        Ok(())
    }

    /// Takes the oldest answers from the disk. With the last of them the file is removed.
    pub(super) fn next(&mut self) -> io::Result<Option<Answers>> {
        let Some((spool, _)) = &mut self.spool else { return Ok(None) };
        match (spool.pop()?, self.counts.pop_front()) {
            (Some(bytes), Some(count)) => Ok(Some(Answers { bytes, count })),
            _ => {
                self.spool = None;
                self.counts.clear();
                Ok(None)
            }
        }
    }

    /// Adds the last answers of the query.
    pub(super) fn end_with(&mut self, answers: Answers, memory: Option<Share>) {
        self.last = (answers.count > 0).then_some(answers);
        self._memory = memory;
    }

    /// Takes the last answers, once none are left on disk.
    pub(super) fn in_memory(&mut self) -> Option<Answers> {
        if self.is_empty() { self.last.take() } else { None }
    }

    /// Takes the oldest answers from the disk, on a thread that may block.
    pub(super) fn read(mut self) -> JoinHandle<(Self, io::Result<Option<Answers>>)> {
        tokio::spawn(async move {
            let turn = self.spools.threads.take(&self.peer).await;
            let reading = spawn_blocking(move || {
                let _until_its_end = turn;
                let answers = self.next();
                (self, answers)
            });
            match reading.await {
                Ok(read) => read,
                Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                // The node is stopping, so nobody waits for the answers.
                Err(_) => std::future::pending().await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::peer::CountedAs;

    fn answers(bytes: usize) -> Answers {
        Answers { bytes: vec![7; bytes], count: 1 }
    }

    #[test]
    fn one_peer_does_not_take_all_room_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let mut spools = AnswerSpools::leaving(&directory.path().join("index.db"), 0);
        spools.room = Shares::new(1000, 0, &metrics::SPOOL_REFUSED);
        let spools = Arc::new(spools);
        let peer = |number| -> CountedPeer { Arc::new(CountedAs::address([10, 0, 0, number].into())) };
        let (mut first, mut again) = (AnswerBacklog::new(&spools, &peer(1)), AnswerBacklog::new(&spools, &peer(1)));
        first.keep(answers(400)).unwrap();
        assert_eq!(again.keep(answers(200)).unwrap_err().bytes.len(), 200);
        let mut other = AnswerBacklog::new(&spools, &peer(2));
        other.keep(answers(200)).unwrap();
        assert_eq!(first.next().unwrap().unwrap().bytes.len(), 400);
        assert!(first.next().unwrap().is_none() && first.is_empty());
        again.keep(answers(200)).unwrap();
    }

    #[test]
    fn nothing_is_kept_where_the_disk_has_to_stay_free() {
        let directory = tempfile::tempdir().unwrap();
        let spools = AnswerSpools::leaving(&directory.path().join("index.db"), 0);
        spools.directory.use_up();
        let mut backlog = AnswerBacklog::new(&Arc::new(spools), &Arc::new(CountedAs::address([10, 0, 0, 1].into())));
        assert_eq!(backlog.keep(answers(10)).unwrap_err().count, 1);
        assert!(backlog.is_empty());
    }
}
