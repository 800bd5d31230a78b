//! The arrival journal at work: small objects of all senders become durable by one flush
//! ([ADR 0039](../../docs/adr/0039-arrival-journal.md)).
//!
//! An object goes these steps:
//!
//! 1. The *journal thread* appends it to the journal, with all others that wait, and flushes that.
//! 2. Meanwhile the *placing thread* writes its file under its final name, without a flush.
//! 3. When both have ended, the writer of the index commits its row, without a flush. Then its
//!    sender is told.
//! 4. The *settling thread* flushes the file system of the objects and the log of the index, for
//!    all objects since the last time. Then the journal uses their room again.
//!
//! So a row never comes to the disk before its object is in the journal. Nothing leaves the journal
//! before object and row are on the disk.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendError, Sender, bounded, unbounded};
use fail::fail_point;

use crate::db::open::WriterHandle;
use crate::db::{GroupRhythm, JournalEntryId, ReceivedFrom};
use crate::store::{self, ArrivalJournal, JournalEntry, JournalError, JournalGroup, Objects, Placed};
use crate::telemetry::metrics;

/// Bytes of a group from which nothing more is added to it. Larger: a group that many wait for
/// takes longer to write. Smaller: more flushes.
const FULL_GROUP: u64 = 4 << 20;

/// Shortest flush after which a group waits. Larger: more flushes on disks of medium speed.
/// Smaller: objects wait although a flush of their own would cost them less.
const WAITS_AFTER: Duration = Duration::from_millis(2);

/// Part of a flush for which the next group waits at most, as a divisor. A wait in vain then costs
/// no more than the flush that it could have saved.
const WAITS_FOR_PART: u32 = 1;

/// A flush of this length makes a disk slow: three of them take longer than writing a larger object
/// twice.
const SLOW_FLUSH: Duration = Duration::from_millis(2);

/// Factor by which the largest object is larger where flushes are slow.
const LARGER_WHERE_SLOW: usize = 4;

/// Longest time until objects leave the journal. Larger: a start after a crash writes more objects
/// again. Smaller: more flushes of everything.
const SETTLE_AFTER: Duration = Duration::from_secs(1);

/// Pause before the next try, where objects of the oldest group are still on their way to the
/// index.
const SETTLE_AGAIN: Duration = Duration::from_millis(10);

/// Receives what became of an object in the journal.
pub(super) type OnJournaled = Box<dyn FnOnce(Result<(JournalEntryId, JournalHold), store::Error>) + Send>;

/// A journal that takes objects. The threads end when it is dropped.
pub struct Journal {
    commands: Sender<JournalCommand>,
    shared: Arc<SharedJournal>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}

/// An object on its way into the journal.
pub(super) struct Journaling {
    pub(super) name_number: u32,
    pub(super) sender: Arc<ReceivedFrom>,
    pub(super) object: Arc<Vec<u8>>,
    pub(super) room: JournalRoom,
    pub(super) on_journaled: OnJournaled,
}

impl Journaling {
    /// Answers that it does not come into the journal. Nobody waits for its place then.
    fn refuse(self, placing: Option<ObjectPlacing>, error: store::Error) {
        drop(placing);
        (self.on_journaled)(Err(error));
    }
}

/// Gives an object its place, and then to the journal again. Its first name is taken.
pub(super) type PlaceBefore = Box<dyn FnOnce(ObjectPlacing, Journaling) + Send>;

/// An object that gets its place. [`OnJournaled`] of the same object waits for the answer. If this
/// is dropped, the answer is an error.
pub(super) struct ObjectPlacing {
    pub(super) objects: Arc<Objects>,
    /// Study, Series and SOP Instance UID.
    pub(super) uids: [String; 3],
    pub(super) object: Arc<Vec<u8>>,
    pub(super) to_journal: Sender<Result<Placed, store::Error>>,
}

impl ObjectPlacing {
    fn uids(&self) -> [&str; 3] {
        self.uids.each_ref().map(String::as_str)
    }

    /// Places the object under its first name, since its entry says that it has that one. Only
    /// another program can have taken it meanwhile.
    fn place_first(self) {
        let placed = self.store().and_then(|placed| {
            if placed.name_number == 0 {
                return Ok(placed);
            }
            placed.discard()?;
            Err(store::Error::Object { step: "given its name", source: std::io::ErrorKind::AlreadyExists.into() })
        });
        self.answer(placed);
    }

    fn store(&self) -> Result<Placed, store::Error> {
        fail_point!(&format!("place {}", self.objects.root().display()), |_| Err(not_written(
            std::io::ErrorKind::QuotaExceeded.into()
        )));
        let [study, series, instance] = self.uids();
        self.objects.store_for_journal(&self.object, study, series, instance)
    }

    fn answer(self, placed: Result<Placed, store::Error>) {
        if let Err(unheard) = self.to_journal.send(placed) {
            // A defect has ended the thread of the journal.
            drop(unheard.into_inner().and_then(Placed::discard));
        }
    }
}

/// An object without a place, and what gives it one if its first name is taken.
type Unplaced = (ObjectPlacing, PlaceBefore);

enum JournalCommand {
    /// An object, and the work that gives it its place if it has none.
    Append(Option<Unplaced>, Journaling),
    /// No group up to this one is needed any more.
    Release(u64, Sender<()>),
    /// Nothing in the journal is needed any more.
    Reset,
    Stop,
}

/// State that the threads of the journal share with the tasks that store objects.
struct SharedJournal {
    id: [u8; 16],
    /// Room for objects, in bytes. Less than the ring, since a group never lies around its end.
    capacity: u64,
    sizes: ObjectSizes,
    /// Bytes of the largest object that goes into the journal now.
    largest_object: AtomicUsize,
    /// Room that objects have taken.
    taken: AtomicU64,
    is_open: AtomicBool,
    settling: Mutex<UnsettledGroups>,
    changed: Condvar,
}

/// Maximum sizes of objects in the journal, in bytes.
#[derive(Clone, Copy, Debug)]
struct ObjectSizes {
    where_fast: usize,
    where_slow: usize,
}

impl ObjectSizes {
    /// The sizes for a setting and a ring. A small ring could not take two of the largest.
    fn new(largest_object: usize, ring_bytes: u64) -> Self {
        let most = usize::try_from(ring_bytes / 4).unwrap_or(usize::MAX);
        let where_slow = largest_object.saturating_mul(LARGER_WHERE_SLOW);
        Self { where_fast: largest_object.min(most), where_slow: where_slow.min(most) }
    }

    /// The largest object on a disk where a flush of a few bytes takes so long.
    fn after(self, flush: Duration) -> usize {
        if flush < SLOW_FLUSH { self.where_fast } else { self.where_slow }
    }
}

/// Entries that wait to be settled.
#[derive(Default)]
struct UnsettledGroups {
    /// By the number of the group: the objects that are on their way to the index, and the room
    /// that the group has taken.
    groups: BTreeMap<u64, (usize, u64)>,
    /// Whether to begin before the time is over, because room is short.
    is_pressed: bool,
    stops: bool,
}

/// Room in the journal for one object, until it is dropped or its group is settled.
pub(super) struct JournalRoom {
    shared: Arc<SharedJournal>,
    bytes: u64,
}

impl Drop for JournalRoom {
    fn drop(&mut self) {
        self.shared.taken.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// Keeps a group in the journal until one of its objects has come to the index, or to nothing.
pub(crate) struct JournalHold {
    shared: Arc<SharedJournal>,
    group: u64,
}

impl Drop for JournalHold {
    fn drop(&mut self) {
        if let Some((held, _)) = self.shared.lock().groups.get_mut(&self.group) {
            *held = held.saturating_sub(1);
        }
    }
}

impl SharedJournal {
    fn lock(&self) -> MutexGuard<'_, UnsettledGroups> {
        self.settling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more objects. Whatever is in the journal stays there until the next start.
    fn close(&self) {
        self.is_open.store(false, Ordering::SeqCst);
    }
}

impl Journal {
    /// Begins to take objects of at most this length, and larger ones where a flush takes long. The
    /// journal must hold nothing that is needed.
    /// It gets a new id: entries are numbered anew, and the index has decided on those of the
    /// former id.
    ///
    /// # Errors
    /// [`JournalError::Unusable`], also if a thread cannot be started.
    pub fn start(
        mut file: ArrivalJournal,
        largest_object: usize,
        (objects, writer): (&Arc<Objects>, &WriterHandle),
    ) -> Result<Self, JournalError> {
        let begun = Instant::now();
        file.reset()?;
        let path = file.path().to_owned();
        Self::start_threads(file, (largest_object, begun.elapsed()), (objects, writer))
            .map_err(|source| JournalError::Unusable { path, source })
    }

    fn start_threads(
        file: ArrivalJournal,
        (largest_object, flush): (usize, Duration),
        (objects, writer): (&Arc<Objects>, &WriterHandle),
    ) -> std::io::Result<Self> {
        let full_group = FULL_GROUP.min(file.ring_bytes() / 8);
        let sizes = ObjectSizes::new(largest_object, file.ring_bytes());
        // A group may have one more object than it should, and one group's length may stay empty at
        // the end of the ring.
        let largest_group = full_group + JournalEntry::room_of(sizes.where_slow, "");
        let shared = Arc::new(SharedJournal {
            id: file.id().to_bytes(),
            capacity: file.ring_bytes().saturating_sub(2 * largest_group),
            sizes,
            largest_object: AtomicUsize::new(sizes.after(flush)),
            taken: AtomicU64::new(0),
            is_open: AtomicBool::new(true),
            settling: Mutex::default(),
            changed: Condvar::new(),
        });
        let (commands, queue) = unbounded();
        let (placing, work) = unbounded();
        let rhythm = GroupRhythm::new(WAITS_AFTER, WAITS_FOR_PART);
        let (to_settle, to_close) = (Arc::clone(&shared), writer.clone());
        let journal = JournalThread { file, queue, placing, rhythm, full_group, shared: to_settle, writer: to_close };
        let (objects, writer, to_journal) = (Arc::clone(objects), writer.clone(), commands.clone());
        let settling = SettlingThread { objects, writer, commands: to_journal, shared: Arc::clone(&shared) };
        let threads = vec![
            thread::Builder::new().name("journal".into()).spawn(move || journal.run())?,
            thread::Builder::new().name("settling".into()).spawn(move || settling.run())?,
            thread::Builder::new().name("placing".into()).spawn(move || give_places(&work))?,
        ];
        Ok(Self { commands, shared, threads: Mutex::new(threads) })
    }

    /// Bytes of the largest object that it takes now.
    pub(super) fn largest_object(&self) -> usize {
        self.shared.largest_object.load(Ordering::Relaxed)
    }

    /// Takes room for an object. `None` if the object is too large, and while the journal has no
    /// room or takes nothing.
    pub(super) fn room_for(&self, object_bytes: usize, sender: &ReceivedFrom) -> Option<JournalRoom> {
        let shared = &self.shared;
        if object_bytes > self.largest_object() || !shared.is_open.load(Ordering::SeqCst) {
            return None;
        }
        let bytes = JournalEntry::room_of(object_bytes, &sender.calling_ae_title);
        let take = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= shared.capacity);
        let before = shared.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        if before.map_or(true, |before| before > shared.capacity / 2) && !shared.lock().is_pressed {
            shared.lock().is_pressed = true;
            shared.changed.notify_all();
        }
        before.is_ok().then(|| JournalRoom { shared: Arc::clone(shared), bytes })
    }

    /// Queues an object, and returns at once. It gets its place while the journal is flushed, or
    /// before if its first name is taken. `on_journaled` is called once, by the journal thread and
    /// in the order of the numbers. It may wait for the place.
    pub(super) fn append(&self, unplaced: (ObjectPlacing, PlaceBefore), journaling: Journaling) {
        queue(&self.commands, JournalCommand::Append(Some(unplaced), journaling));
    }

    /// Gives an object its place, and queues it then.
    pub(super) fn append_placed(&self, placing: ObjectPlacing, mut journaling: Journaling) {
        match placing.store() {
            Ok(placed) => {
                journaling.name_number = placed.name_number;
                placing.answer(Ok(placed));
                queue(&self.commands, JournalCommand::Append(None, journaling));
            }
            Err(error) => journaling.refuse(Some(placing), error),
        }
    }

    /// Settles everything, empties the journal and ends the threads. Call it when no object is on
    /// its way any more.
    pub fn close(&self) {
        self.shared.lock().stops = true;
        self.shared.changed.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads.into_iter().rev() {
            if thread.join().is_err() {
                tracing::error!("a defect of dcmdex ended a thread of the arrival journal");
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// Adds an object to a group, unless it gets its place before or there is no room for it.
fn add(
    unplaced: Option<Unplaced>,
    mut journaling: Journaling,
    group: &mut JournalGroup,
    waiting: &mut Vec<(Option<ObjectPlacing>, Journaling)>,
) {
    let placing = match unplaced {
        Some((placing, place_before)) if !placing.objects.has_first_name_free(placing.uids()) => {
            return place_before(placing, journaling);
        }
        Some((placing, _)) => match placing.objects.check_space() {
            Ok(()) => Some(placing),
            Err(error) => return journaling.refuse(Some(placing), error),
        },
        None => None,
    };
    group.push(&JournalEntry {
        name_number: journaling.name_number,
        calling_ae_title: &journaling.sender.calling_ae_title,
        address: journaling.sender.address,
        object: &journaling.object,
    });
    // It is in the group now.
    journaling.object = Arc::default();
    waiting.push((placing, journaling));
}

fn give_places(work: &Receiver<ObjectPlacing>) {
    for placing in work {
        if catch_unwind(AssertUnwindSafe(|| placing.place_first())).is_err() {
            tracing::error!("a defect of dcmdex kept an object from its place; it is refused");
        }
    }
}

fn queue(commands: &Sender<JournalCommand>, command: JournalCommand) {
    if let Err(SendError(JournalCommand::Append(unplaced, journaling))) = commands.send(command) {
        let placing = unplaced.map(|(placing, _)| placing);
        journaling.refuse(placing, not_written(std::io::ErrorKind::BrokenPipe.into()));
    }
}

fn not_written(error: std::io::Error) -> store::Error {
    store::Error::Object { step: "written to the arrival journal", source: error }
}

/// Writes the journal. No other thread does.
struct JournalThread {
    file: ArrivalJournal,
    queue: Receiver<JournalCommand>,
    /// To the thread that gives objects their places.
    placing: Sender<ObjectPlacing>,
    rhythm: GroupRhythm,
    full_group: u64,
    shared: Arc<SharedJournal>,
    writer: WriterHandle,
}

impl JournalThread {
    fn run(mut self) {
        let (mut group, mut waiting) = (JournalGroup::default(), Vec::new());
        let mut next = None;
        while let Some(command) = next.take().or_else(|| self.queue.recv().ok()) {
            match command {
                JournalCommand::Append(unplaced, journaling) => {
                    next = self.gather((unplaced, journaling), &mut group, &mut waiting);
                    if !waiting.is_empty() {
                        self.write(&mut group, &mut waiting);
                    }
                }
                JournalCommand::Release(number, done) => {
                    self.file.release(number);
                    let begun = Instant::now();
                    match self.file.flush() {
                        Ok(()) => {
                            // It wrote the head alone, so its time is that of a flush.
                            let largest = self.shared.sizes.after(begun.elapsed());
                            self.shared.largest_object.store(largest, Ordering::Relaxed);
                            let _gone = done.send(());
                        }
                        Err(error) => self.fail(&error),
                    }
                }
                JournalCommand::Reset => {
                    if let Err(error) = self.file.reset() {
                        tracing::warn!(%error, "the arrival journal could not be emptied; the next start does it");
                    }
                }
                JournalCommand::Stop => return,
            }
        }
    }

    /// Adds what is queued, and waits for what is expected ([`GroupRhythm`]).
    fn gather(
        &self,
        first: (Option<Unplaced>, Journaling),
        group: &mut JournalGroup,
        waiting: &mut Vec<(Option<ObjectPlacing>, Journaling)>,
    ) -> Option<JournalCommand> {
        group.clear();
        let mut next = Some(first);
        while let Some((unplaced, journaling)) = next.take() {
            add(unplaced, journaling, group, waiting);
            if group.length() as u64 >= self.full_group {
                return None;
            }
            let command = match self.rhythm.wait_until(waiting.len()) {
                Some(until) => self.queue.recv_deadline(until).ok(),
                None => self.queue.try_recv().ok(),
            };
            match command {
                Some(JournalCommand::Append(unplaced, journaling)) => next = Some((unplaced, journaling)),
                other => return other,
            }
        }
        None
    }

    fn write(&mut self, group: &mut JournalGroup, waiting: &mut Vec<(Option<ObjectPlacing>, Journaling)>) {
        fail_point!(&format!("journal write {}", self.file.path().display()));
        let begun = Instant::now();
        let written = match self.shared.is_open.load(Ordering::SeqCst) {
            true => {
                for placing in waiting.iter_mut().filter_map(|(placing, _)| placing.take()) {
                    // If the thread has ended, it is dropped, and the sender is told.
                    let _ended = self.placing.send(placing);
                }
                self.file.write(group, waiting.len() as u64)
            }
            // What came before a failure was seen.
            false => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        let (number, first_entry) = match written {
            Ok(written) => written,
            Err(error) => {
                // In this order: whoever is told may send another object, which must not be
                // replaced by one of these.
                self.fail(&error);
                for (placing, journaling) in waiting.drain(..) {
                    let again = std::io::Error::new(error.kind(), error.to_string());
                    journaling.refuse(placing, not_written(again));
                }
                return;
            }
        };
        fail_point!(&format!("journal written {}", self.file.path().display()));
        metrics::JOURNAL_FLUSHES.increment();
        let (taken, written, queued) = (begun.elapsed(), waiting.len(), self.queue.len());
        let room = waiting.iter_mut().map(|(_, journaling)| std::mem::take(&mut journaling.room.bytes)).sum();
        let is_first = {
            let groups = &mut self.shared.lock().groups;
            groups.insert(number, (waiting.len(), room));
            groups.len() == 1
        };
        if is_first {
            self.shared.changed.notify_all();
        }
        for (entry, (_, journaling)) in (first_entry..).zip(waiting.drain(..)) {
            metrics::JOURNALED_OBJECTS.increment();
            let hold = JournalHold { shared: Arc::clone(&self.shared), group: number };
            (journaling.on_journaled)(Ok((JournalEntryId { journal: self.shared.id, number: entry }, hold)));
        }
        // From here on their senders can be expected.
        self.rhythm.became_durable((taken, Instant::now()), (written, queued));
    }

    /// Ends the use of the journal until the next start. After a failed flush nobody knows what the
    /// disk has, and a second flush would report success.
    fn fail(&self, error: &std::io::Error) {
        if self.shared.is_open.swap(false, Ordering::SeqCst) {
            tracing::error!(
                %error,
                journal = %self.file.path().display(),
                "the arrival journal cannot be written; until the next start each object is made durable by itself"
            );
            self.writer.close_journal(self.shared.id);
            // What it holds comes to its places at once. It may not be there at the next start.
            self.shared.lock().is_pressed = true;
            self.shared.changed.notify_all();
        }
    }
}

/// Makes objects and rows durable in their places.
struct SettlingThread {
    objects: Arc<Objects>,
    writer: WriterHandle,
    commands: Sender<JournalCommand>,
    shared: Arc<SharedJournal>,
}

impl SettlingThread {
    fn run(self) {
        while self.wait() {
            if !self.settle() {
                // Nothing more leaves the journal.
                self.shared.close();
                self.wait_for_stop();
                let _ended = self.commands.send(JournalCommand::Stop);
                return;
            }
        }
        let is_settled = self.settle() && self.shared.lock().groups.is_empty();
        for last in is_settled.then_some(JournalCommand::Reset).into_iter().chain([JournalCommand::Stop]) {
            // A thread that has ended writes nothing any more.
            let _ended = self.commands.send(last);
        }
    }

    /// Waits until there is something to settle. Returns false at the end.
    fn wait(&self) -> bool {
        let mut settling = self.shared.lock();
        while settling.groups.is_empty() && !settling.stops {
            settling = self.shared.changed.wait(settling).unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + SETTLE_AFTER;
        while !settling.is_pressed && !settling.stops {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            settling = self.shared.changed.wait_timeout(settling, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        settling.is_pressed = false;
        !settling.stops
    }

    fn wait_for_stop(&self) {
        let mut settling = self.shared.lock();
        while !settling.stops {
            settling = self.shared.changed.wait(settling).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Settles the groups whose objects have all come to the index, up to the first one of which
    /// some have not. Returns whether the journal can go on.
    fn settle(&self) -> bool {
        let settled = {
            let settling = self.shared.lock();
            settling.groups.iter().take_while(|(_, (held, _))| *held == 0).last().map(|(number, _)| *number)
        };
        let Some(number) = settled else {
            thread::sleep(SETTLE_AGAIN);
            return true;
        };
        let journal = self.objects.journal();
        fail_point!(&format!("journal settle {}", journal.display()), |_| false);
        let failure = match (self.objects.flush(), self.writer.flush_log()) {
            (Ok(()), Ok(())) => None,
            (Err(error), _) => Some(error.to_string()),
            (_, Err(error)) => Some(error.to_string()),
        };
        if let Some(error) = failure {
            tracing::error!(
                error,
                journal = %journal.display(),
                "stored objects could not be made durable in their places; they stay in the arrival journal, and the \
                 next start writes them again. Until then each object is made durable by itself"
            );
            return false;
        }
        fail_point!(&format!("journal settled {}", journal.display()), |_| false);
        let (done, released) = bounded(1);
        let _ended = self.commands.send(JournalCommand::Release(number, done));
        if released.recv().is_err() {
            return false;
        }
        let mut settling = self.shared.lock();
        let left = settling.groups.split_off(&(number + 1));
        let freed: u64 = std::mem::replace(&mut settling.groups, left).values().map(|(_, room)| room).sum();
        drop(settling);
        self.shared.taken.fetch_sub(freed, Ordering::SeqCst);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_objects_go_into_the_journal_where_flushes_are_slow() {
        let (fast, slow) = (Duration::from_micros(100), Duration::from_millis(5));
        let sizes = ObjectSizes::new(256 << 10, 128 << 20);
        assert_eq!([fast, slow].map(|flush| sizes.after(flush)), [256 << 10, 1 << 20]);
        let small = ObjectSizes::new(256 << 10, 2 << 20);
        assert_eq!([fast, slow].map(|flush| small.after(flush)), [256 << 10, 512 << 10]);
    }
}
