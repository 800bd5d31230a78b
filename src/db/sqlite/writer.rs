//! The one writer of a process: a thread that takes records from all others, groups them and
//! commits.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvError, RecvTimeoutError, SendError, Sender, TrySendError, bounded};
use fail::fail_point;
use rusqlite::Connection;

use super::files::DatabaseFiles;
use super::guard::{IndexGuard, IndexState};
use super::open::{self, Access};
use super::schema::EVENTS;
use super::worklist;
use super::write::{Batch, JournalMark};
use super::write_priority::{Priority, PriorityLock};
use super::writer_queue::{
    CommandQueue, MaintenanceWork, OnNoted, QueuedArrival, ScanUnits, WriterCommand, gather_arrivals, rows_of,
    take_arrival, weight_of,
};
use crate::db::{
    Arrivals, Backlog, Committed, Durability, Error, EventRecording, JournalEntryId, KnownLocation, Mounted, OnStored,
    Received, ScannedDirectory, StoreOutcome, Stored, Suspension, Tally, WorklistChanges, WorklistWork,
};
use crate::model::clock::Clock;
use crate::model::declared::DeclaredSet;

/// Most rows in one scan transaction. It starts with the queued rows, and also takes rows that
/// arrive while it runs.
///
/// New look-ups fall on every page of their table, and every transaction writes those pages to the
/// log. So a few large transactions write half as much as many small ones. A node that asks for the
/// priority lock does not wait for the end of one, but another scan does.
const SCAN_BATCH_ROWS: usize = 8192;

/// Rows of a scan after which the writer checks the priority lock. They take a millisecond or two.
const ROWS_BETWEEN_LOOKS: usize = 128;

/// Most files that one transaction drops.
const PRUNED_FILES: usize = 1000;

/// Pause between two checks of the files of an index while nothing is written.
const LOOK_AT_FILES: Duration = Duration::from_secs(1);

/// Settings of a [`SqliteWriter`].
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Guarantee of a commit.
    pub durability: Durability,
    /// Memory for pages of the index, in bytes.
    pub cache_bytes: u64,
    /// Length of the queue in units: received instances, or parts of a directory. A received
    /// instance is refused when the queue is full, and a scan waits.
    pub queue_length: usize,
    /// Source of the time of day.
    pub clock: Clock,
    /// Declared attributes, which records have besides those of the table.
    pub declared: Arc<DeclaredSet>,
    /// Events that are recorded with their changes.
    pub recording: EventRecording,
    /// Has a stop of the process wait for the end of a transaction.
    pub suspension: Suspension,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            cache_bytes: 32 * 1024 * 1024,
            queue_length: 1024,
            clock: Clock::System,
            declared: Arc::clone(DeclaredSet::none()),
            recording: EventRecording::Off,
            suspension: Suspension::default(),
        }
    }
}

/// The writer of an index. If it is dropped, it commits what is queued and stops the thread.
/// Handles that are left then get [`Error::WriterStopped`].
#[derive(Debug)]
pub struct SqliteWriter {
    handle: SqliteWriterHandle,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// Access to the writer for any thread.
#[derive(Clone, Debug)]
pub struct SqliteWriterHandle {
    commands: Sender<WriterCommand>,
    backlog: Arc<Backlog>,
    state: IndexState,
    files: Arc<DatabaseFiles>,
}

impl SqliteWriter {
    /// Opens the index and starts the writer. The index is created or migrated if necessary.
    ///
    /// # Errors
    /// Fails if the index cannot be opened for writing: see [`Error`].
    pub fn open(path: &Path, options: WriterOptions) -> Result<Self, Error> {
        let (commands, backlog, queue) = CommandQueue::new(options.queue_length);
        let connection = connect(path, &options)?;
        let guard = IndexGuard::of(path);
        let (state, files) = (guard.state(), Arc::new(guard.files()));
        let writer = WriterThread { path: path.to_owned(), lock: PriorityLock::beside(path), options, queue, guard };
        let thread = std::thread::Builder::new()
            .name("index writer".into())
            .spawn(move || writer.run(connection))
            .map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Ok(Self { handle: SqliteWriterHandle { commands, backlog, state, files }, thread: Some(thread) })
    }

    /// Returns a handle to this writer.
    #[must_use]
    pub fn handle(&self) -> SqliteWriterHandle {
        self.handle.clone()
    }

    /// Commits what is queued, checkpoints the write-ahead log and stops.
    ///
    /// # Errors
    /// Fails with the error of a scan transaction that nobody has asked for yet, or with that of
    /// the last commit.
    pub fn close(mut self) -> Result<(), Error> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), Error> {
        if self.thread.is_some() {
            // If the thread has already ended, nobody receives this.
            let _ended = self.handle.commands.send(WriterCommand::Stop);
        }
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_panic)) => Err(Error::WriterStopped("it panicked".into())),
        }
    }
}

impl Drop for SqliteWriter {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::error!(%error, "the writer of the index ended with an error");
        }
    }
}

impl Arrivals for SqliteWriterHandle {
    fn store(&self, received: Received, on_done: OnStored) {
        let is_journaled = received.journaled.is_some();
        let command = WriterCommand::Store(QueuedArrival { received, on_done, is_in_doubt: false });
        let sent = match is_journaled {
            // The writer must meet each entry in its turn, so the journal waits for it.
            true => self.commands.send(command).map_err(|gone| TrySendError::Disconnected(gone.0)),
            false => self.commands.try_send(command),
        };
        let (command, error) = match sent {
            Ok(()) => return,
            Err(TrySendError::Full(command)) => (command, Error::Busy),
            Err(TrySendError::Disconnected(command)) => (command, stopped()),
        };
        if let WriterCommand::Store(arrival) = command {
            arrival.answer(Err(error));
        }
    }

    fn scanned(&self, directory: ScannedDirectory) -> Result<(), Error> {
        if !self.index_is_in_place() {
            return Err(Error::WriterStopped("the index was removed or replaced".into()));
        }
        self.backlog.begin(weight_of(&directory));
        self.commands.send(WriterCommand::Scanned(directory)).map_err(|_| stopped())
    }

    fn begin_scan(&self, roots: String) -> Result<i64, Error> {
        self.ask(|reply| WriterCommand::BeginScan { roots, reply })
    }

    fn begin_pass(&self, roots: String, scan: Option<i64>) -> Result<i64, Error> {
        self.ask(|reply| WriterCommand::BeginPass { roots, scan, reply })
    }

    fn note_watch(&self, roots: String, state: Option<String>) -> Result<(), Error> {
        self.ask(|reply| WriterCommand::NoteWatch { roots, state, reply })
    }

    fn mount_point(&self, path: PathBuf, mounted: Mounted) -> Result<(), Error> {
        self.commands.send(WriterCommand::MountPoint { path, mounted }).map_err(|_| stopped())
    }

    fn end_scan(&self, scan: i64, summary: String) -> Result<(), Error> {
        self.ask(|reply| WriterCommand::EndScan { scan, summary, reply })
    }

    fn resolve_missing(&self, roots: Vec<PathBuf>, except: Vec<PathBuf>, prune: bool) -> Result<u64, Error> {
        self.ask(|reply| WriterCommand::ResolveMissing { roots, except, prune, reply })
    }

    fn name_index(&self, id: Option<String>) -> Result<String, Error> {
        self.ask(|reply| WriterCommand::Name { id, reply })
    }

    fn storage_moved(&self, from: PathBuf, to: PathBuf) -> Result<u64, Error> {
        self.ask(|reply| WriterCommand::StorageMoved { from, to, reply })
    }

    fn index_is_in_place(&self) -> bool {
        self.state.is_in_place()
    }

    fn flush(&self) -> Result<Tally, Error> {
        self.ask(|reply| WriterCommand::Flush { reply })
    }
}

impl WorklistChanges for SqliteWriterHandle {
    fn change_worklist(&self, work: WorklistWork) -> Result<(), Error> {
        self.ask(|reply| WriterCommand::Worklist { work, reply })
    }
}

impl SqliteWriterHandle {
    /// Runs the work of an operator's command in one transaction, and returns its result when that
    /// is committed.
    pub(super) fn maintain<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (done, result) = bounded(1);
        let work: MaintenanceWork = Box::new(move |batch| {
            let value = work(batch)?;
            // The receiver is there until the transaction has ended.
            let _there = done.send(value);
            Ok(())
        });
        self.ask(|reply| WriterCommand::Maintain { work, reply })?;
        result.recv().map_err(|_| stopped())
    }

    /// The path of the index.
    pub(in crate::db) fn index(&self) -> &Path {
        self.files.index()
    }

    /// The files that the writer has opened.
    pub(super) fn files(&self) -> &DatabaseFiles {
        &self.files
    }

    pub(super) fn note_refused(&self, entry: JournalEntryId, on_noted: Option<OnNoted>) {
        let refused = WriterCommand::EntryRefused { entry, on_noted };
        // A writer that has ended enters nothing that could be replaced.
        if let Err(SendError(WriterCommand::EntryRefused { on_noted: Some(on_noted), .. })) =
            self.commands.send(refused)
        {
            on_noted();
        }
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<Result<T, Error>>) -> WriterCommand) -> Result<T, Error> {
        let (reply, answer) = bounded(1);
        self.commands.send(command(reply)).map_err(|_| stopped())?;
        answer.recv().map_err(|_| stopped())?
    }
}

fn stopped() -> Error {
    Error::WriterStopped("its thread has ended".into())
}

/// State of the writer thread.
struct WriterThread {
    path: PathBuf,
    lock: PriorityLock,
    options: WriterOptions,
    queue: CommandQueue,
    guard: IndexGuard,
}

fn connect(path: &Path, options: &WriterOptions) -> Result<Connection, Error> {
    let _under_way = options.suspension.begin();
    let WriterOptions { durability, cache_bytes, recording, .. } = *options;
    let connection = open::open(path, Access::Writer { durability, cache_bytes })?;
    if recording != EventRecording::Off {
        EVENTS.make_alone(&connection)?;
    }
    Ok(connection)
}

/// State that outlives a connection.
#[derive(Default)]
struct WriterState {
    /// The next command, if it was already taken from the queue.
    next: Option<WriterCommand>,
    /// Received instances whose group failed. Each is tried alone, before anything else.
    retry_singly: VecDeque<QueuedArrival>,
    tally: Tally,
    /// Entries that it has met of the journal of the node.
    journal: JournalMark,
    /// The first error of a scan that nobody has asked for.
    failure: Option<Error>,
    /// The scan that is being done.
    scan: Option<i64>,
}

/// Reason why the writer stops using a connection.
enum Done {
    /// Nobody has anything to write any more.
    Stop,
    /// A defect. Neither the connection nor the caches of its batch can be trusted.
    Defect,
}

impl WriterThread {
    fn batch<'c>(&'c self, connection: &'c Connection) -> Result<Batch<'c>, Error> {
        let WriterOptions { clock, declared, recording, durability, .. } = &self.options;
        let settings = (Arc::clone(declared), *recording, *durability);
        Batch::new(connection, &self.lock, *clock, settings).map_err(Error::from)
    }

    /// Works until nobody has anything to write any more. A defect costs the transaction that met
    /// it. The writer then goes on with a new connection.
    fn run(self, mut connection: Connection) -> Result<(), Error> {
        let mut state = WriterState::default();
        let mut batch = self.batch(&connection)?;
        loop {
            let done = catch_unwind(AssertUnwindSafe(|| self.work(&connection, &mut batch, &mut state)))
                .unwrap_or(Done::Defect);
            state.scan = batch.scan();
            drop(batch);
            if matches!(done, Done::Stop) {
                break;
            }
            tracing::error!("a defect of this program ended a transaction of the index; it goes on with the next");
            match self.connect_again(&mut state) {
                Some(again) => connection = again,
                None => return Err(state.failure.unwrap_or_else(stopped)),
            }
            batch = self.batch(&connection)?;
            batch.go_on_with(state.scan);
        }
        let under_way = self.options.suspension.begin();
        let closed = self.guard.close(connection);
        drop(under_way);
        state.failure.map_or(closed, Err)
    }

    /// Opens a new connection that works. Until there is one, each command is refused and leads to
    /// another attempt. `None` if nobody has anything to write any more.
    fn connect_again(&self, state: &mut WriterState) -> Option<Connection> {
        let mut told = false;
        loop {
            let error = match self.reconnect() {
                Ok(connection) => return Some(connection),
                Err(error) => error,
            };
            if !std::mem::replace(&mut told, true) {
                tracing::error!(%error, "the index cannot be opened again; what arrives is refused until it can");
            }
            let refused = state.retry_singly.drain(..).map(WriterCommand::Store).collect::<Vec<_>>();
            for command in refused.into_iter().chain(state.next.take()) {
                command.refuse(state);
            }
            match self.queue.recv() {
                Ok(WriterCommand::Stop) | Err(_) => return None,
                Ok(command) => state.next = Some(command),
            }
        }
    }

    fn reconnect(&self) -> Result<Connection, Error> {
        // If somebody has taken the index away, no new one must be made in its place.
        self.guard.check()?;
        let connection = connect(&self.path, &self.options)?;
        self.guard.check()?;
        self.batch(&connection).map(drop)?;
        Ok(connection)
    }

    /// Waits for the next command. Meanwhile it checks that the index is still in place.
    fn next_command(&self, connection: &Connection) -> Result<WriterCommand, RecvError> {
        if self.queue.is_empty() {
            self.guard.keep_look(false);
        }
        loop {
            match self.queue.recv_deadline(Instant::now() + LOOK_AT_FILES) {
                Ok(command) => return Ok(command),
                Err(RecvTimeoutError::Timeout) => self.guard.while_idle(connection),
                Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
            }
        }
    }

    /// Runs `work` in one transaction of the index that was opened.
    fn run_in<T>(
        &self,
        connection: &Connection,
        batch: &mut Batch<'_>,
        priority: Priority,
        work: impl FnOnce(&mut Batch<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        if priority != Priority::Waiting {
            self.guard.keep_look(false);
        }
        self.guard.before_transaction(connection)?;
        let under_way = self.options.suspension.begin();
        let done = batch.run(priority, |batch| work(batch))?;
        drop(under_way);
        // The look after this commit is later than the commands that wait now.
        let others_wait = !self.queue.is_empty();
        let checked = self.guard.after_commit(connection);
        self.guard.keep_look(others_wait && checked.is_ok());
        checked.map_err(|error| Error::InDoubt { committed: true, source: Box::new(error) })?;
        Ok(done)
    }

    /// Handles one command after the other, until there are no more or a defect breaks the batch.
    fn work(&self, connection: &Connection, batch: &mut Batch<'_>, state: &mut WriterState) -> Done {
        loop {
            if batch.is_broken() {
                return Done::Defect;
            }
            if let Some(arrival) = state.retry_singly.pop_front() {
                let result = self.arrived(connection, batch, std::slice::from_ref(&arrival), &mut state.journal);
                arrival.answer(result.and_then(|mut outcomes| outcomes.pop().ok_or(Error::WriterPanicked)).map(stored));
                continue;
            }
            let command = match state.next.take() {
                Some(command) => command,
                None => match self.next_command(connection) {
                    Ok(command) => command,
                    Err(_nobody_left) => return Done::Stop,
                },
            };
            if matches!(command, WriterCommand::Stop) {
                return Done::Stop;
            }
            self.handle(command, connection, batch, state);
        }
    }

    fn handle(&self, command: WriterCommand, connection: &Connection, batch: &mut Batch<'_>, state: &mut WriterState) {
        // A caller that no longer waits for its answer is no fault of ours.
        match command {
            WriterCommand::Store(arrival) => {
                let mut group = vec![arrival];
                state.next = gather_arrivals(&self.queue, &mut group);
                self.store(connection, batch, group, state);
            }
            WriterCommand::Scanned(directory) => {
                let mut units = self.queue.group_of(directory);
                state.next = units.gather();
                self.write_scanned(connection, batch, units, state);
            }
            WriterCommand::BeginScan { roots, reply } => {
                let begun = self.run_in(connection, batch, Priority::None, |batch| batch.begin_scan(&roots));
                let _gone = reply.send(begun);
            }
            WriterCommand::BeginPass { roots, scan, reply } => {
                let begun = self.run_in(connection, batch, Priority::None, |batch| batch.begin_pass(&roots, scan));
                let _gone = reply.send(begun);
            }
            WriterCommand::NoteWatch { roots, state, reply } => {
                let noted =
                    self.run_in(connection, batch, Priority::None, |batch| batch.note_watch(&roots, state.as_deref()));
                let _gone = reply.send(noted);
            }
            WriterCommand::MountPoint { path, mounted } => {
                let noted = self.run_in(connection, batch, Priority::None, |batch| batch.mount_point(&path, mounted));
                if let Err(error) = noted {
                    state.failed(error);
                }
            }
            WriterCommand::EndScan { scan, summary, reply } => {
                let ended = self.run_in(connection, batch, Priority::None, |batch| batch.end_scan(scan, &summary));
                let _gone = reply.send(ended);
            }
            WriterCommand::ResolveMissing { roots, except, prune, reply } => {
                let result = self.resolve_missing(connection, batch, &MissingFiles { roots, except, prune });
                state.tally.add(batch.take_tally());
                let _gone = reply.send(result);
            }
            WriterCommand::Worklist { work, reply } => {
                let _gone = reply.send(self.change_worklist(connection, batch, work));
            }
            WriterCommand::Flush { reply } => state.flush(&reply),
            WriterCommand::Name { id, reply } => {
                let _gone = reply.send(self.name_index(connection, batch, id));
            }
            WriterCommand::StorageMoved { from, to, reply } => {
                let moved = self.run_in(connection, batch, Priority::None, |batch| batch.storage_moved(&from, &to));
                let _gone = reply.send(moved);
            }
            WriterCommand::Maintain { work, reply } => {
                let _gone = reply.send(self.run_in(connection, batch, Priority::None, work));
            }
            WriterCommand::EntryRefused { entry, on_noted } => {
                state.journal.refuse(entry);
                if let Some(on_noted) = on_noted {
                    self.note_refused(connection, batch, &mut state.journal);
                    on_noted();
                }
            }
            WriterCommand::Stop => {}
        }
    }

    /// Writes what scans found, in as many transactions as it takes. Objects that arrive meanwhile
    /// go between them.
    fn write_scanned(
        &self,
        connection: &Connection,
        batch: &mut Batch<'_>,
        mut units: ScanUnits<'_>,
        state: &mut WriterState,
    ) {
        while !units.is_empty() {
            let next = &mut state.next;
            match self.run_in(connection, batch, Priority::None, |batch| self.scanned(batch, &mut units, next)) {
                Ok(()) => state.tally.add(batch.take_tally()),
                Err(error) => return state.failed(error),
            }
            if batch.is_broken() || units.is_empty() {
                return;
            }
            if let Some(arrival) = take_arrival(&mut state.next) {
                let mut arrivals = vec![arrival];
                state.next = gather_arrivals(&self.queue, &mut arrivals);
                self.store(connection, batch, arrivals, state);
            }
        }
    }

    /// Commits a group of received instances, and answers each sender. If the group fails, each
    /// instance is tried alone, so that one bad instance does not harm the others.
    fn store(
        &self,
        connection: &Connection,
        batch: &mut Batch<'_>,
        group: Vec<QueuedArrival>,
        state: &mut WriterState,
    ) {
        match self.arrived(connection, batch, &group, &mut state.journal) {
            Ok(outcomes) => {
                for (arrival, outcome) in group.into_iter().zip(outcomes) {
                    arrival.answer(Ok(stored(outcome)));
                }
            }
            Err(error) if error.is_of_the_index() => {
                self.refuse_waiting(&error, state);
                for arrival in group {
                    arrival.answer(Err(error.again()));
                }
            }
            Err(error) if group.len() == 1 => {
                if let Some(arrival) = group.into_iter().next() {
                    arrival.answer(Err(error));
                }
            }
            // The index has them, and another attempt would find them there.
            Err(Error::InDoubt { committed: true, source }) => {
                let failure = source.to_string();
                for arrival in group {
                    arrival.answer(Err(Error::InDoubt { committed: true, source: failure.clone().into() }));
                }
            }
            Err(error) => {
                tracing::warn!(%error, rows = group.len(), "a group commit failed; trying its instances one by one");
                let is_in_doubt = error.may_be_in_the_index();
                state.retry_singly.extend(group.into_iter().map(|arrival| QueuedArrival { is_in_doubt, ..arrival }));
            }
        }
    }

    /// Refuses what arrived while a transaction waited in vain, because it has waited as long as it
    /// may.
    fn refuse_waiting(&self, error: &Error, state: &mut WriterState) {
        for _ in 0..self.options.queue_length {
            let command = match state.next.take() {
                Some(command) => command,
                None => match self.queue.try_recv() {
                    Ok(command) => command,
                    Err(_empty_or_gone) => return,
                },
            };
            match command {
                WriterCommand::Store(arrival) => {
                    state.meet(&arrival);
                    arrival.answer(Err(error.again()));
                }
                other => {
                    state.next = Some(other);
                    return;
                }
            }
        }
    }

    fn arrived(
        &self,
        connection: &Connection,
        batch: &mut Batch<'_>,
        group: &[QueuedArrival],
        journal: &mut JournalMark,
    ) -> Result<Vec<(StoreOutcome, Option<KnownLocation>)>, Error> {
        group.iter().filter_map(|one| one.received.journaled).for_each(|number| journal.meet(number));
        // Who follows events may act on what was committed, so it must not go away again.
        let is_flushed = self.options.recording != EventRecording::Off
            || journal.has_refused()
            || group.iter().any(|one| one.received.journaled.is_none());
        if !is_flushed {
            batch.leave_flush_to_journal();
        }
        let (outcomes, decided) = self.run_in(connection, batch, Priority::Waiting, |batch| {
            let arrived = group.iter().map(|one| {
                // Tests let an instance meet a defect here.
                fail_point!(&format!(
                    "arrive {} {}",
                    self.path.display(),
                    one.received.record.value(crate::model::attribute::AttributeId::SOPInstanceUID),
                ));
                batch.arrived(&one.received)
            });
            let outcomes = arrived.collect::<rusqlite::Result<_>>()?;
            Ok((outcomes, journal.write(connection)?))
        })?;
        journal.committed(decided, is_flushed);
        Ok(outcomes)
    }

    /// Commits that entries were refused. If that fails, the next commit says so.
    fn note_refused(&self, connection: &Connection, batch: &mut Batch<'_>, journal: &mut JournalMark) {
        match self.run_in(connection, batch, Priority::Waiting, |_| journal.write(connection)) {
            Ok(decided) => journal.committed(decided, true),
            Err(error) => tracing::warn!(%error, "the index cannot note that an object of the journal was refused"),
        }
    }

    fn resolve_missing(
        &self,
        connection: &Connection,
        batch: &mut Batch<'_>,
        missing: &MissingFiles,
    ) -> Result<u64, Error> {
        let mut count = 0;
        for root in &missing.roots {
            for of in batch.missing_below(root, &missing.except)? {
                let mut prune =
                    || self.run_in(connection, batch, Priority::None, |batch| batch.prune(&of, PRUNED_FILES));
                while missing.prune && prune()? > 0 {}
                count += batch.count_missing(&of)?;
            }
        }
        Ok(count)
    }

    /// Changes the worklist in a transaction. A sender waits for it, so it has the priority of an
    /// arrival.
    fn change_worklist(&self, connection: &Connection, batch: &mut Batch<'_>, work: WorklistWork) -> Result<(), Error> {
        let mut failure = None;
        let done = self.run_in(connection, batch, Priority::Waiting, |_| {
            worklist::WorklistTransaction::new(connection).run(work, &mut failure)
        });
        failure.map_or(done, Err)
    }

    fn name_index(&self, connection: &Connection, batch: &mut Batch<'_>, id: Option<String>) -> Result<String, Error> {
        self.run_in(connection, batch, Priority::None, |_| {
            connection.execute(
                "INSERT INTO index_identity SELECT ifnull(?1, lower(hex(randomblob(16)))) \
                 WHERE NOT EXISTS (SELECT 1 FROM index_identity)",
                [id],
            )?;
            connection.query_row("SELECT id FROM index_identity", [], |row| row.get(0))
        })
    }

    /// Takes what scans found, and then what other scan units came meanwhile. It stops after some
    /// thousand rows. It also stops if an object has arrived, if somebody asks for the priority
    /// lock, or if the process is to stop.
    fn scanned(
        &self,
        batch: &mut Batch<'_>,
        units: &mut ScanUnits<'_>,
        next: &mut Option<WriterCommand>,
    ) -> rusqlite::Result<()> {
        let (mut rows, mut since_look) = (0, 0);
        while rows < SCAN_BATCH_ROWS {
            if units.is_empty() && next.is_none() {
                *next = units.take_next();
            }
            let Some(directory) = units.pop() else { return Ok(()) };
            batch.scanned(&directory)?;
            rows += rows_of(&directory);
            since_look += rows_of(&directory);
            if since_look >= ROWS_BETWEEN_LOOKS {
                since_look = 0;
                if next.is_none() {
                    *next = units.look_ahead();
                }
                if matches!(next, Some(WriterCommand::Store(_)))
                    || batch.should_give_way()
                    || self.options.suspension.is_asked()
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The arguments of [`Arrivals::resolve_missing`].
struct MissingFiles {
    roots: Vec<PathBuf>,
    except: Vec<PathBuf>,
    prune: bool,
}

impl WriterState {
    /// Notes an arrival that is refused. It must not be entered later, if it is in the journal.
    fn meet(&mut self, arrival: &QueuedArrival) {
        if let Some(number) = arrival.received.journaled {
            self.journal.refuse(number);
        }
    }

    fn failed(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    fn flush(&mut self, reply: &Sender<Result<Tally, Error>>) {
        let _gone = reply.send(match self.failure.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut self.tally)),
        });
    }
}

impl WriterCommand {
    /// Refuses the command, because there is no connection.
    fn refuse(self, state: &mut WriterState) {
        let error = Error::WriterPanicked;
        match self {
            Self::Store(arrival) => {
                state.meet(&arrival);
                arrival.answer(Err(error));
            }
            Self::Scanned(_) | Self::MountPoint { .. } => state.failed(error),
            Self::BeginScan { reply, .. } | Self::BeginPass { reply, .. } => drop(reply.send(Err(error))),
            Self::NoteWatch { reply, .. } => drop(reply.send(Err(error))),
            Self::EndScan { reply, .. } => drop(reply.send(Err(error))),
            Self::ResolveMissing { reply, .. } => drop(reply.send(Err(error))),
            Self::StorageMoved { reply, .. } => drop(reply.send(Err(error))),
            Self::Maintain { reply, .. } => drop(reply.send(Err(error))),
            Self::Worklist { reply, .. } => drop(reply.send(Err(error))),
            Self::Flush { reply } => state.flush(&reply),
            Self::Name { reply, .. } => drop(reply.send(Err(error))),
            Self::EntryRefused { entry, on_noted } => {
                state.journal.refuse(entry);
                on_noted.into_iter().for_each(|on_noted| on_noted());
            }
            Self::Stop => {}
        }
    }
}

fn stored((outcome, first): (StoreOutcome, Option<KnownLocation>)) -> Stored {
    Stored { committed: Committed(()), outcome, first }
}
