//! The writer of a process: a thread that takes changes from all others, groups them and commits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use super::address::PostgresAddress;
use super::changer::IndexChanger;
use super::connection::{ServerSession, waiting_for_server};
use super::error::ServerFailure;
use super::load::PartNeeds;
use super::maintenance;
use super::nodes::{RunningNode, SIGN_OF_LIFE};
use super::root_names::{refuse_second_names, second_names};
use super::roots::NamedRoots;
use crate::db::arrival::SourceOfInstances;
use crate::db::contents::{Contents, FileKey, kind};
use crate::db::event_notes::{EventNotes, has_news};
use crate::db::sqlite::WriterOptions;
use crate::db::{
    Arrivals, Backlog, Committed, Error, FileOutcome, GroupRhythm, Mounted, OnStored, Received, ScannedDirectory,
    StoreOutcome, Stored, Tally,
};
use crate::model::attribute::AttributeId;
use crate::model::location::Place;

/// Most received instances in a transaction, which takes all that are queued.
const MOST_ARRIVALS: usize = 1024;

/// Shortest transaction after which a group waits for instances that are expected. Larger: more
/// transactions where the server is near. Smaller: instances wait although the server is idle.
const WAITS_AFTER: Duration = Duration::from_micros(500);

/// Part of such a transaction for which a group waits at most, as a divisor.
const WAITS_FOR_PART: u32 = 2;

/// Files of a scan in a transaction, after which no further directory is taken.
const SCANNED_FILES: usize = 4096;

/// Most files of a scan that wait for the writer.
const MOST_WAITING: usize = 4096;

/// Least files for which a directory counts in the queue.
const LEAST_WEIGHT: usize = 16;

/// A change that a caller waits for.
type ServerWork = Box<dyn FnOnce(&mut ServerState) + Send>;

enum ServerCommand {
    Store(Box<Received>, OnStored),
    Scanned(ScannedDirectory),
    Work(ServerWork),
    Stop,
}

/// The writer of an index in PostgreSQL. If it is dropped, it commits what is queued and stops the
/// thread.
#[derive(Debug)]
pub struct PostgresWriter {
    handle: PostgresWriterHandle,
    thread: Option<JoinHandle<Option<Error>>>,
}

/// Access to the writer for any thread.
#[derive(Clone, Debug)]
pub struct PostgresWriterHandle {
    commands: Sender<ServerCommand>,
    backlog: Arc<Backlog>,
    roots: Arc<NamedRoots>,
}

impl PostgresWriter {
    /// Connects to the server and starts the writer. The tables are made if there are none.
    ///
    /// # Errors
    /// Fails if the server cannot be reached or used: see [`Error`].
    pub fn open(address: &PostgresAddress, options: WriterOptions) -> Result<Self, Error> {
        let (commands, queue) = bounded(options.queue_length.max(1));
        let backlog = Arc::new(Backlog::new(MOST_WAITING));
        let changer = IndexChanger::open(address, ServerSession::Writes(options.durability), &options.declared)?;
        let state = ServerState {
            changer,
            node: None,
            options,
            rhythm: GroupRhythm::new(WAITS_AFTER, WAITS_FOR_PART),
            scan: None,
            is_further_pass: false,
            tally: Tally::default(),
            failure: None,
        };
        let of_thread = Arc::clone(&backlog);
        let thread = std::thread::Builder::new()
            .name("index writer".into())
            .spawn(move || run(state, &queue, &of_thread))
            .map_err(|source| Error::Io { path: address.path(), source })?;
        let roots = Arc::clone(address.roots());
        Ok(Self { handle: PostgresWriterHandle { commands, backlog, roots }, thread: Some(thread) })
    }

    /// Returns a handle to this writer.
    #[must_use]
    pub fn handle(&self) -> PostgresWriterHandle {
        self.handle.clone()
    }

    /// Commits what is queued and stops.
    ///
    /// # Errors
    /// Fails with the error of a scan transaction that nobody has asked for yet.
    pub fn close(mut self) -> Result<(), Error> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), Error> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // If the thread has already ended, nobody receives this.
        let _ended = self.handle.commands.send(ServerCommand::Stop);
        match thread.join() {
            Ok(failure) => failure.map_or(Ok(()), Err),
            Err(_panic) => Err(Error::WriterStopped("it panicked".into())),
        }
    }
}

impl Drop for PostgresWriter {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::error!(%error, "the writer of the index ended with an error");
        }
    }
}

fn stopped() -> Error {
    Error::WriterStopped("its thread has ended".into())
}

fn weight_of(directory: &ScannedDirectory) -> usize {
    directory.files.len().max(LEAST_WEIGHT)
}

impl PostgresWriterHandle {
    /// Places of the roots of the index on this node.
    pub(super) fn roots(&self) -> &Arc<NamedRoots> {
        &self.roots
    }

    /// See [`WriterHandle::announce`](crate::db::open::WriterHandle::announce).
    pub(in crate::db) fn announce(
        &self,
        ae_title: String,
        host: String,
        storage: Option<&Path>,
    ) -> Result<Vec<String>, Error> {
        let storage = storage.map(|storage| self.roots.kept(storage).into_owned()).unwrap_or_default();
        let (node, roots) = (RunningNode { ae_title, host, storage }, Arc::clone(&self.roots));
        self.ask(move |state| {
            let mut common = state.work(|changer, now_ms| node.announce(changer, now_ms))?;
            common.extend(state.work(|changer, _| second_names(changer, &roots))?);
            state.node = Some((node, Instant::now()));
            Ok(common)
        })
    }

    pub(super) fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut ServerState) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = bounded(1);
        let work: ServerWork = Box::new(move |state| {
            // A caller that no longer waits for its answer is no fault of ours.
            let _gone = reply.send(work(state));
        });
        self.commands.send(ServerCommand::Work(work)).map_err(|_| stopped())?;
        answer.recv().map_err(|_| Error::WriterPanicked)?
    }

    /// Has the writer make a change, with the moment in milliseconds since 1970 UTC.
    pub(super) fn change_index<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut IndexChanger, i64) -> Result<T, ServerFailure> + Send + 'static,
    ) -> Result<T, Error> {
        self.ask(move |state| state.work(work))
    }
}

impl Arrivals for PostgresWriterHandle {
    fn store(&self, mut received: Received, on_done: OnStored) {
        received.location.directory = self.roots.kept(&received.location.directory).into_owned();
        let roots = Arc::clone(&self.roots);
        let on_done: OnStored = Box::new(move |stored| on_done(stored.map(|stored| localized(&roots, stored))));
        let (command, error) = match self.commands.try_send(ServerCommand::Store(Box::new(received), on_done)) {
            Ok(()) => return,
            Err(TrySendError::Full(command)) => (command, Error::Busy),
            Err(TrySendError::Disconnected(command)) => (command, stopped()),
        };
        if let ServerCommand::Store(_, on_done) = command {
            on_done(Err(error));
        }
    }

    fn scanned(&self, mut directory: ScannedDirectory) -> Result<(), Error> {
        directory.directory = self.roots.kept(&directory.directory).into_owned();
        self.backlog.begin(weight_of(&directory));
        self.commands.send(ServerCommand::Scanned(directory)).map_err(|_| stopped())
    }

    fn begin_scan(&self, roots: String) -> Result<i64, Error> {
        self.ask(move |state| state.begin_scan(|changer, now_ms| maintenance::begin_scan(changer, &roots, now_ms)))
    }

    fn begin_pass(&self, roots: String, scan: Option<i64>) -> Result<i64, Error> {
        self.ask(move |state| {
            let number = state.begin_scan(|changer, now_ms| maintenance::begin_pass(changer, &roots, scan, now_ms))?;
            state.is_further_pass = scan == Some(number);
            Ok(number)
        })
    }

    fn note_watch(&self, roots: String, watch: Option<String>) -> Result<(), Error> {
        self.change_index(move |changer, _| maintenance::note_watch(changer, &roots, watch.as_deref()))
    }

    fn end_scan(&self, scan: i64, summary: String) -> Result<(), Error> {
        self.ask(move |state| {
            let mut events = EventNotes::new(state.options.recording);
            let of_json = |error: serde_json::Error| Error::Statement(error.into());
            // A look each minute that finds nothing new is no event.
            if !state.is_further_pass || has_news(&summary).map_err(of_json)? {
                events.note_scan(scan, &summary);
            }
            let events = events.take().map_err(of_json)?;
            state.work(|changer, now_ms| maintenance::end_scan(changer, scan, (&summary, &events), now_ms))
        })
    }

    fn mount_point(&self, path: PathBuf, mounted: Mounted) -> Result<(), Error> {
        let kept = self.roots.kept_mount_point(&path);
        // It may have been noted before its root had a name.
        let is_gone = matches!(mounted, Mounted::NoLonger | Mounted::NotExchanged);
        let former = (is_gone && kept != path).then_some(path);
        let work: ServerWork = Box::new(move |state| {
            for path in former.iter().chain([&kept]) {
                let noted = state.work(|changer, _| maintenance::mount_point(changer, path, mounted));
                state.note_failure(noted);
            }
        });
        self.commands.send(ServerCommand::Work(work)).map_err(|_| stopped())
    }

    fn resolve_missing(&self, roots: Vec<PathBuf>, except: Vec<PathBuf>, prune: bool) -> Result<u64, Error> {
        let (roots, except) = (self.roots.kept_parts(&roots), self.roots.all_kept(&except));
        self.ask(move |state| {
            let missing = maintenance::MissingMarks { roots, except, prune };
            let (left, tally) = state.work(|changer, _| missing.resolve(changer))?;
            state.tally.add(tally);
            Ok(left)
        })
    }

    fn flush(&self) -> Result<Tally, Error> {
        self.ask(|state| match state.failure.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut state.tally)),
        })
    }

    fn name_index(&self, id: Option<String>) -> Result<String, Error> {
        self.change_index(move |changer, _| maintenance::name_index(changer, id.as_deref()))
    }

    fn storage_moved(&self, from: PathBuf, to: PathBuf) -> Result<u64, Error> {
        let (from, to) = (self.roots.kept(&from).into_owned(), self.roots.kept(&to).into_owned());
        self.change_index(move |changer, _| maintenance::storage_moved(changer, &from, &to))
    }

    fn index_is_in_place(&self) -> bool {
        true
    }
}

/// Outcome for an object, with the paths of this node.
fn localized(roots: &NamedRoots, mut stored: Stored) -> Stored {
    stored.first.iter_mut().for_each(|first| roots.localize(&mut first.location));
    if let StoreOutcome::Identical { uncompared: Some(location) } = &mut stored.outcome {
        roots.localize(location);
    }
    if let StoreOutcome::Replaced { previous } = &mut stored.outcome {
        previous.iter_mut().for_each(|path| *path = roots.local(path).into_owned());
    }
    stored
}

/// State that the thread of the writer works with.
pub(super) struct ServerState {
    pub(super) changer: IndexChanger,
    /// The node that this writer is of, and when others heard of it.
    node: Option<(RunningNode, Instant)>,
    options: WriterOptions,
    rhythm: GroupRhythm,
    /// The scan that this process began last.
    scan: Option<i64>,
    /// Whether it is a further pass of one that was there before.
    is_further_pass: bool,
    tally: Tally,
    /// The first error of a scan that nobody has asked for.
    failure: Option<Error>,
}

/// Works until nobody has anything to write any more.
fn run(mut state: ServerState, queue: &Receiver<ServerCommand>, backlog: &Backlog) -> Option<Error> {
    let mut next = None;
    loop {
        let command = match next.take() {
            Some(command) => command,
            None => match queue.recv_timeout(SIGN_OF_LIFE) {
                Ok(command) => command,
                Err(RecvTimeoutError::Timeout) => {
                    state.show_life();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            },
        };
        let go_on = match command {
            ServerCommand::Stop => break,
            ServerCommand::Store(received, on_done) => {
                let mut group = vec![(*received, on_done)];
                next = gather(queue, Some(&state.rhythm), |command| match command {
                    ServerCommand::Store(received, on_done) if group.len() < MOST_ARRIVALS => {
                        group.push((*received, on_done));
                        None
                    }
                    other => Some(other),
                });
                catch_unwind(AssertUnwindSafe(|| state.store(group, queue)))
            }
            ServerCommand::Scanned(directory) => {
                backlog.end(weight_of(&directory));
                let (mut files, mut group) = (directory.files.len(), vec![directory]);
                next = gather(queue, None, |command| match command {
                    ServerCommand::Scanned(directory) if files < SCANNED_FILES => {
                        backlog.end(weight_of(&directory));
                        files += directory.files.len();
                        group.push(directory);
                        None
                    }
                    other => Some(other),
                });
                catch_unwind(AssertUnwindSafe(|| state.scanned(&group)))
            }
            ServerCommand::Work(work) => catch_unwind(AssertUnwindSafe(|| work(&mut state))),
        };
        state.show_life();
        if go_on.is_err() {
            tracing::error!("a defect of this program ended a transaction of the index; it goes on with the next");
            state.changer.disconnect();
            state.failure.get_or_insert(Error::WriterPanicked);
        }
    }
    backlog.close();
    if let Some((node, _)) = &state.node {
        // If the server is gone, the node is forgotten in time.
        let _gone = node.leave(&mut state.changer);
    }
    state.failure
}

/// Takes what waits in the queue, and what is expected, until `take` gives something back.
fn gather(
    queue: &Receiver<ServerCommand>,
    rhythm: Option<&GroupRhythm>,
    mut take: impl FnMut(ServerCommand) -> Option<ServerCommand>,
) -> Option<ServerCommand> {
    let mut gathered = 1;
    loop {
        let next = match rhythm.and_then(|rhythm| rhythm.wait_until(gathered)) {
            Some(until) => queue.recv_deadline(until).ok(),
            None => queue.try_recv().ok(),
        };
        if let Some(other) = take(next?) {
            return Some(other);
        }
        gathered += 1;
    }
}

impl ServerState {
    /// Has other nodes know that this one still runs, if they have not heard of it for a time.
    fn show_life(&mut self) {
        if let Some((node, heard)) = &mut self.node
            && heard.elapsed() >= SIGN_OF_LIFE
        {
            *heard = Instant::now();
            // A server that is gone is told by what has to be written.
            let _gone = node.renew(&mut self.changer);
        }
    }

    fn note_failure<T>(&mut self, done: Result<T, Error>) -> Option<T> {
        match done {
            Ok(done) => Some(done),
            Err(error) => {
                self.failure.get_or_insert(error);
                None
            }
        }
    }

    /// Makes a change. While the server is gone, it is tried again for a time.
    pub(super) fn work<T>(
        &mut self,
        mut work: impl FnMut(&mut IndexChanger, i64) -> Result<T, ServerFailure>,
    ) -> Result<T, Error> {
        let _under_way = self.options.suspension.begin();
        self.changer.is_in_doubt = false;
        let done = waiting_for_server(
            || work(&mut self.changer, self.options.clock.now_ms()),
            |failure| matches!(failure, ServerFailure::Gone(_)),
        );
        done.map_err(|failure| {
            let is_in_doubt = self.changer.is_in_doubt && matches!(failure, ServerFailure::Gone(_));
            let error = failure.of(self.changer.server());
            if is_in_doubt { Error::InDoubt { committed: false, source: Box::new(error) } } else { error }
        })
    }

    pub(super) fn begin_scan(
        &mut self,
        begin: impl FnMut(&mut IndexChanger, i64) -> Result<i64, ServerFailure>,
    ) -> Result<i64, Error> {
        let roots = Arc::clone(self.changer.roots());
        self.work(|changer, _| refuse_second_names(changer, &roots))?;
        let scan = self.work(begin)?;
        (self.scan, self.is_further_pass) = (Some(scan), false);
        Ok(scan)
    }

    /// Changes instances. Returns what `change` did, and the contents that it left.
    fn change<T>(
        &mut self,
        needs: &PartNeeds,
        mut change: impl FnMut(&mut Contents) -> T,
    ) -> Result<(T, Contents), Error> {
        self.work(|changer, _| changer.change(needs, &mut change))
    }

    fn store(&mut self, mut group: Vec<(Received, OnStored)>, queue: &Receiver<ServerCommand>) {
        let begun = Instant::now();
        let error = match self.arrived(&group) {
            Ok(done) => {
                self.rhythm.became_durable((begun.elapsed(), Instant::now()), (group.len(), queue.len()));
                for ((_, on_done), stored) in group.into_iter().zip(done) {
                    on_done(Ok(stored));
                }
                return;
            }
            Err(error) => error,
        };
        if group.len() == 1
            && let Some((_, on_done)) = group.pop()
        {
            return on_done(Err(error));
        }
        let of_server = error.is_of_the_index() || matches!(error, Error::InDoubt { .. });
        for (received, on_done) in group {
            let alone = match of_server {
                true => Err(error.again()),
                false => self.arrived(&[(received, ())]).map(|mut done| done.pop()),
            };
            on_done(alone.and_then(|stored| stored.ok_or(Error::WriterPanicked)));
        }
    }

    fn arrived<D>(&mut self, group: &[(Received, D)]) -> Result<Vec<Stored>, Error> {
        let mut needs = PartNeeds::default();
        for (received, _) in group {
            let Received { record, location, .. } = received;
            needs.uids.insert(record.value(AttributeId::SOPInstanceUID).to_owned());
            needs.studies.insert(record.value(AttributeId::StudyInstanceUID).to_owned());
            needs.directories.insert((kind(location.place), location.directory.clone()));
            needs.locations.insert(FileKey::of(location.place, &location.directory, &location.file_name));
        }
        let sources: Vec<SourceOfInstances> =
            group.iter().map(|(received, _)| SourceOfInstances::Received(Arc::clone(&received.sender))).collect();
        needs.sources.extend(sources.iter().cloned());
        (needs.now_ms, needs.recording) = (self.options.clock.now_ms(), self.options.recording);
        let declared = Arc::clone(&self.options.declared);
        let (done, _) = self.change(&needs, |contents| {
            let entered = group.iter().zip(&sources);
            entered
                .map(|((received, _), source)| contents.arrived_from(received, source, &declared))
                .collect::<Vec<_>>()
        })?;
        let stored = |(outcome, first)| Stored { committed: Committed(()), outcome, first };
        Ok(done.into_iter().map(stored).collect())
    }

    fn scanned(&mut self, group: &[ScannedDirectory]) {
        let mut needs = PartNeeds::default();
        for unit in group {
            add_needs(&mut needs, unit);
        }
        let source = self.scan.map_or(SourceOfInstances::Unknown, SourceOfInstances::Scan);
        if !needs.uids.is_empty() {
            needs.sources.insert(source.clone());
        }
        (needs.now_ms, needs.recording) = (self.options.clock.now_ms(), self.options.recording);
        let declared = Arc::clone(&self.options.declared);
        let done = self.change(&needs, |contents| {
            contents.set_source(&source);
            for unit in group {
                contents.scanned(unit, &declared);
            }
        });
        if let Some((_, contents)) = self.note_failure(done) {
            self.tally.add(contents.tally);
        }
    }
}

/// Adds the needs of the files of a directory.
fn add_needs(needs: &mut PartNeeds, unit: &ScannedDirectory) {
    let ScannedDirectory { place, directory, files, vanished, missing, returned, .. } = unit;
    needs.directories.insert((kind(*place), directory.clone()));
    let key = |name| FileKey { is_archive: *place == Place::Archive, directory: directory.clone(), name };
    for name in vanished.iter().chain(missing).chain(returned) {
        needs.files.insert(key(name.clone()));
    }
    for file in files {
        let key = key(file.file_name.clone());
        if file.known || file.reread {
            needs.files.insert(key);
        } else {
            needs.locations.insert(key);
        }
        if let FileOutcome::Instance(record) = &file.outcome {
            needs.uids.insert(record.value(AttributeId::SOPInstanceUID).to_owned());
            needs.studies.insert(record.value(AttributeId::StudyInstanceUID).to_owned());
        }
    }
}
