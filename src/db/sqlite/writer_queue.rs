//! The queue of the writer: what it is asked to do, and how it takes several requests at once.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError, Sender, TryRecvError, bounded};

use super::write::Batch;
use crate::db::{
    Backlog, Error, JournalEntryId, Mounted, OnStored, Received, ScannedDirectory, Stored, Tally, WorklistWork,
};

/// Rows of a scan that the writer waits for before it begins a transaction.
const SCAN_GROUP_ROWS: usize = 4096;

/// Most rows of a scan that wait for the writer. Without a limit, memory would fill with them if
/// the disk of the index is slow.
const SCAN_WAITING_ROWS: usize = 4096;

/// Least rows for which a unit of a scan counts in the queue. With it, at most a quarter of the
/// queue of a node is units of scans.
const LEAST_WEIGHT: usize = SCAN_WAITING_ROWS / 256;

/// Longest wait for the rows of a scan transaction.
const SCAN_BATCH_WAIT: Duration = Duration::from_secs(1);

/// Most received instances in a transaction, which takes all that are queued. From 100 on, a commit
/// that survives a power cut costs nothing per row.
const STORE_BATCH_ROWS: usize = 1024;

/// A request to the writer.
pub(super) enum WriterCommand {
    Store(QueuedArrival),
    Scanned(ScannedDirectory),
    BeginScan { roots: String, reply: Sender<Result<i64, Error>> },
    BeginPass { roots: String, scan: Option<i64>, reply: Sender<Result<i64, Error>> },
    NoteWatch { roots: String, state: Option<String>, reply: Sender<Result<(), Error>> },
    MountPoint { path: PathBuf, mounted: Mounted },
    EndScan { scan: i64, summary: String, reply: Sender<Result<(), Error>> },
    ResolveMissing { roots: Vec<PathBuf>, except: Vec<PathBuf>, prune: bool, reply: Sender<Result<u64, Error>> },
    Flush { reply: Sender<Result<Tally, Error>> },
    Worklist { work: WorklistWork, reply: Sender<Result<(), Error>> },
    Name { id: Option<String>, reply: Sender<Result<String, Error>> },
    StorageMoved { from: PathBuf, to: PathBuf, reply: Sender<Result<u64, Error>> },
    Maintain { work: MaintenanceWork, reply: Sender<Result<(), Error>> },
    EntryRefused { entry: JournalEntryId, on_noted: Option<OnNoted> },
    Stop,
}

/// Work of an operator's command, in a transaction of its own.
pub(super) type MaintenanceWork = Box<dyn FnOnce(&mut Batch<'_>) -> rusqlite::Result<()> + Send>;

/// Is called when the index says that an entry of the journal was refused, or cannot say so.
pub(in crate::db) type OnNoted = Box<dyn FnOnce() + Send>;

/// A received instance in the queue.
pub(super) struct QueuedArrival {
    pub(super) received: Received,
    pub(super) on_done: OnStored,
    /// Whether an earlier attempt may be in the index.
    pub(super) is_in_doubt: bool,
}

impl QueuedArrival {
    /// Answers the sender.
    pub(super) fn answer(self, result: Result<Stored, Error>) {
        let is_in_doubt = self.is_in_doubt;
        (self.on_done)(result.map_err(|error| match error {
            error if is_in_doubt && !error.may_be_in_the_index() => {
                Error::InDoubt { committed: false, source: Box::new(error) }
            }
            error => error,
        }));
    }
}

/// Rows that a unit of a scan gives.
pub(super) fn rows_of(directory: &ScannedDirectory) -> usize {
    directory.files.len() + directory.vanished.len() + directory.missing.len()
}

/// Share of the backlog of scans that a unit takes. A small unit counts for more rows than it has.
/// Otherwise units of one file would fill the queue, and an object that arrives would be refused.
pub(super) fn weight_of(directory: &ScannedDirectory) -> usize {
    rows_of(directory).max(LEAST_WEIGHT)
}

/// Takes the next command if it is an object that arrived.
pub(super) fn take_arrival(next: &mut Option<WriterCommand>) -> Option<QueuedArrival> {
    match next.take() {
        Some(WriterCommand::Store(arrival)) => Some(arrival),
        other => {
            *next = other;
            None
        }
    }
}

/// The writer's end of the queue.
pub(super) struct CommandQueue {
    commands: Receiver<WriterCommand>,
    backlog: Arc<Backlog>,
}

impl CommandQueue {
    /// Makes a queue of at most `length` commands. The other parts are the sender's end of it, and
    /// the backlog that a scan waits for before it sends a unit.
    pub(super) fn new(length: usize) -> (Sender<WriterCommand>, Arc<Backlog>, Self) {
        let (sender, commands) = bounded(length.max(1));
        let backlog = Arc::new(Backlog::new(SCAN_WAITING_ROWS));
        (sender, Arc::clone(&backlog), Self { commands, backlog })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    fn taken(&self, command: &WriterCommand) {
        if let WriterCommand::Scanned(directory) = command {
            self.backlog.end(weight_of(directory));
        }
    }

    pub(super) fn recv(&self) -> Result<WriterCommand, RecvError> {
        self.commands.recv().inspect(|command| self.taken(command))
    }

    pub(super) fn recv_deadline(&self, deadline: Instant) -> Result<WriterCommand, RecvTimeoutError> {
        self.commands.recv_deadline(deadline).inspect(|command| self.taken(command))
    }

    pub(super) fn try_recv(&self) -> Result<WriterCommand, TryRecvError> {
        self.commands.try_recv().inspect(|command| self.taken(command))
    }

    /// Begins a group of units with one that was taken.
    pub(super) fn group_of(&self, directory: ScannedDirectory) -> ScanUnits<'_> {
        ScanUnits { units: VecDeque::from([(directory, 0)]), queue: self }
    }
}

impl Drop for CommandQueue {
    fn drop(&mut self) {
        self.backlog.close();
    }
}

/// Takes what is queued, without waiting for more. A group forms by itself while the one before it
/// commits.
pub(super) fn gather_arrivals(queue: &CommandQueue, group: &mut Vec<QueuedArrival>) -> Option<WriterCommand> {
    while group.len() < STORE_BATCH_ROWS {
        match queue.try_recv() {
            Ok(WriterCommand::Store(arrival)) => group.push(arrival),
            Ok(other) => return Some(other),
            Err(_empty_or_gone) => return None,
        }
    }
    None
}

/// Units of scans that were taken from the queue and are not written yet.
///
/// A unit that was taken ahead of its turn goes on counting for the backlog. Otherwise a scan that
/// is faster than the writer would fill the memory with such units.
pub(super) struct ScanUnits<'a> {
    /// Each with its share of the backlog.
    units: VecDeque<(ScannedDirectory, usize)>,
    queue: &'a CommandQueue,
}

impl ScanUnits<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The next unit to be written.
    pub(super) fn pop(&mut self) -> Option<ScannedDirectory> {
        let (directory, share) = self.units.pop_front()?;
        self.queue.backlog.end(share);
        Some(directory)
    }

    /// Waits for a number of rows, so that the write lock is held only while there is something to
    /// write. Returns a command of another kind that came first.
    pub(super) fn gather(&mut self) -> Option<WriterCommand> {
        let deadline = Instant::now() + SCAN_BATCH_WAIT;
        let mut rows: usize = self.units.iter().map(|(directory, _)| rows_of(directory)).sum();
        while rows < SCAN_GROUP_ROWS {
            match self.queue.recv_deadline(deadline) {
                Ok(WriterCommand::Scanned(directory)) => {
                    rows += rows_of(&directory);
                    self.units.push_back((directory, 0));
                }
                Ok(other) => return Some(other),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }

    /// Takes one unit if it is queued. Returns a command of another kind that is queued instead.
    pub(super) fn take_next(&mut self) -> Option<WriterCommand> {
        match self.queue.try_recv() {
            Ok(WriterCommand::Scanned(directory)) => self.units.push_back((directory, 0)),
            Ok(other) => return Some(other),
            Err(_empty_or_gone) => {}
        }
        None
    }

    /// Takes all that is queued ahead of its turn, up to a command of another kind. Returns that.
    pub(super) fn look_ahead(&mut self) -> Option<WriterCommand> {
        while let Ok(command) = self.queue.commands.try_recv() {
            match command {
                WriterCommand::Scanned(directory) => {
                    let share = weight_of(&directory);
                    self.units.push_back((directory, share));
                }
                other => return Some(other),
            }
        }
        None
    }
}

impl Drop for ScanUnits<'_> {
    fn drop(&mut self) {
        self.queue.backlog.end(self.units.iter().map(|(_, share)| share).sum());
    }
}
