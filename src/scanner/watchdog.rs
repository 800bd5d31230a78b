//! The watchdog. If a file or directory does not answer (its server is gone), it costs one failure
//! and not the scan.
//!
//! Each reader writes its current entry into its [`ReaderSlot`]. That is one atomic store, without
//! a clock. The watchdog checks the slots at intervals. If an entry stays the same for too long,
//! the watchdog gives the reader up. A new reader reports the entry as failed and does the rest of
//! the unit. If the old thread comes back, it finds its unit gone and ends. The system cannot
//! interrupt a thread that hangs in a call. So the number of such threads is limited
//! ([`HangingThreads`]).

use std::cell::RefCell;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::depth::{Depth, DepthChange, DepthSample, Jobs};
use super::work::{UnitResult, WorkEntry, WorkUnit};
use super::{Error, Stop};

/// Threads that may hang, however few readers there are. Each such thread keeps its stack (a few
/// pages).
pub const MAX_GIVEN_UP: usize = 64;

/// Number of times that all readers may hang at the same time. A file server that takes over from
/// another stops them all, and each of them costs one file only.
const MAX_STALLS: usize = 4;

/// Maximum time for a read after a stop request.
const LIMIT_WHEN_STOPPING: Duration = Duration::from_secs(2);

/// Longest wait between two checks for a stop request.
const NAP: Duration = Duration::from_millis(100);

/// A file or directory that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hang {
    /// The file or directory.
    pub path: PathBuf,
    /// Time that the scan waited for it.
    pub waited: Duration,
}

/// The current work of a reader.
#[derive(Debug, Default)]
pub(super) struct ReaderSlot {
    /// The upper half counts steps and changes with each one. The lower half is the number of the
    /// current entry, from 1. If it is 0, there is no entry.
    at: AtomicU64,
    /// The current unit. `None` after the reader was given up.
    in_hand: Mutex<Option<InHand>>,
}

#[derive(Debug)]
struct InHand {
    /// The unit, without its entries and without what was handed over.
    unit: WorkUnit,
    entries: Arc<Vec<WorkEntry>>,
    /// Number of entries whose results were handed over.
    handed_over: usize,
    results: Sender<UnitResult>,
}

/// Extent of the results of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpTo {
    /// To just before this entry.
    Entry(usize),
    /// To the end of the unit.
    End,
}

/// Whether a reader continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReaderState {
    /// It continues.
    Working,
    /// Another reader has its work.
    GivenUp,
}

thread_local! {
    /// The slot of this thread, if it is a reader. A wait for the rate is deep below it, in code
    /// that also runs without readers.
    static OWN: RefCell<Option<Arc<ReaderSlot>>> = const { RefCell::new(None) };
}

impl ReaderSlot {
    /// Makes this the slot of the calling thread.
    pub(super) fn own(self: &Arc<Self>) {
        OWN.set(Some(Arc::clone(self)));
    }

    /// Stores a unit in the slot. Returns its entries.
    pub(super) fn begin(&self, mut unit: WorkUnit, results: Sender<UnitResult>) -> Arc<Vec<WorkEntry>> {
        let entries = Arc::new(std::mem::take(&mut unit.entries));
        let in_hand = InHand { unit, entries: Arc::clone(&entries), handed_over: 0, results };
        *self.in_hand.lock().unwrap_or_else(PoisonError::into_inner) = Some(in_hand);
        entries
    }

    /// Marks an entry as the current one.
    pub(super) fn turns_to(&self, entry: usize) {
        self.step(entry as u64 + 1);
    }

    /// Marks progress in the current entry. A helper thread of the reader calls this when it gets
    /// bytes.
    pub(super) fn goes_on(&self) {
        let at = self.at.load(Relaxed);
        let entry = at & u64::from(u32::MAX);
        if entry != 0 {
            let next = (at >> 32).wrapping_add(1) << 32 | entry;
            // If the exchange fails, the reader itself made a step, which is progress too.
            let _stepped = self.at.compare_exchange(at, next, Relaxed, Relaxed);
        }
    }

    /// Marks that the reader waits for no file.
    pub(super) fn rests(&self) {
        self.step(0);
    }

    fn step(&self, entry: u64) {
        let count = self.steps().wrapping_add(1);
        self.at.store(count << 32 | entry, Relaxed);
    }

    /// The steps of the reader. Each file is one. So is the end of a unit.
    fn steps(&self) -> u64 {
        self.at.load(Relaxed) >> 32
    }

    /// Hands over the result of the entries since the last call.
    pub(super) fn hand_over(&self, mut result: UnitResult, up_to: UpTo) -> ReaderState {
        self.rests();
        let mut in_hand = self.in_hand.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(InHand { unit, handed_over, results, .. }) = in_hand.as_mut() else { return ReaderState::GivenUp };
        result.begin(unit);
        match up_to {
            UpTo::Entry(entry) => {
                *handed_over = entry;
                // If the scan has failed, nobody takes the result.
                let _unwanted = results.send(result);
            }
            UpTo::End => {
                result.end(unit);
                let _unwanted = results.send(result);
                *in_hand = None;
            }
        }
        ReaderState::Working
    }

    /// Hands over the partial result after a stop request.
    pub(super) fn break_off(&self, mut result: UnitResult) -> ReaderState {
        self.rests();
        let mut in_hand = self.in_hand.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut taken) = in_hand.take() else { return ReaderState::GivenUp };
        result.begin(&mut taken.unit);
        let _unwanted = taken.results.send(result);
        ReaderState::Working
    }
}

/// Runs a wait that involves no file. The watchdog ignores the reader meanwhile.
pub(super) fn while_resting(wait: impl FnOnce()) {
    OWN.with_borrow(|own| {
        let entry = own.as_ref().map(|slot| slot.at.load(Relaxed) & u64::from(u32::MAX));
        if let Some(slot) = own {
            slot.rests();
        }
        wait();
        if let (Some(slot), Some(entry)) = (own, entry) {
            slot.step(entry);
        }
    });
}

/// The limit that the watchdog and [`TimedFs`] share.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    /// Maximum time for one answer.
    pub(super) time: Duration,
    pub(super) stop: Stop,
    pub(super) hanging: Arc<HangingThreads>,
    pub(super) told: Sender<Hang>,
}

/// Counts the threads that were given up and have not come back.
#[derive(Debug, Default)]
pub(super) struct HangingThreads {
    /// Less than none, if a thread comes back before it is counted.
    now: AtomicIsize,
    /// Readers that work at the same time.
    readers: AtomicUsize,
    /// Number of hanging threads when they were too many. The storage is gone then, not only one
    /// file.
    too_many: AtomicUsize,
}

impl HangingThreads {
    /// Counts one more. Returns whether so many may hang.
    fn add(&self) -> bool {
        let most = MAX_GIVEN_UP.max(MAX_STALLS * self.readers.load(Relaxed));
        let now = usize::try_from(self.now.fetch_add(1, Relaxed) + 1).unwrap_or(0);
        if now > most {
            self.too_many.fetch_max(now, Relaxed);
        }
        now <= most
    }

    fn came_back(&self) {
        self.now.fetch_sub(1, Relaxed);
    }
}

impl Limit {
    fn now(&self) -> Duration {
        if self.stop.is_asked() { self.time.min(LIMIT_WHEN_STOPPING) } else { self.time }
    }

    /// Reports what hangs. Returns whether a new thread may replace the one that hangs.
    fn give_up(&self, path: PathBuf, waited: Duration) -> bool {
        // If the scan has failed, nobody reads this.
        let _told = self.told.send(Hang { path, waited });
        let may_replace = self.hanging.add();
        if !may_replace {
            self.stop.ask();
        }
        may_replace
    }

    /// Fails if too many threads hang.
    pub(super) fn check(&self) -> Result<(), Error> {
        let reads = self.hanging.too_many.load(Relaxed);
        if reads > 0 { Err(Error::NotAnswering { reads }) } else { Ok(()) }
    }
}

/// The first unit of a reader, and where its results go.
pub(super) type First = (WorkUnit, Sender<UnitResult>);

/// The readers that the watchdog watches.
pub(super) trait ReaderPool: Clone + Send + 'static {
    /// Works on units until there are no more, or until this thread is given up.
    fn run(&self, slot: &Arc<ReaderSlot>, first: Option<First>) -> ReaderState;

    /// Drops the units in the queue, since there may be no readers left.
    fn drop_waiting(&self);

    /// Whether units wait in the queue.
    fn has_waiting(&self) -> bool;

    /// Takes note that there are so many more readers.
    fn grown_by(&self, readers: usize);

    /// Lets so many readers end, each after its unit.
    fn shrink_by(&self, readers: usize);
}

/// Watches the readers of a scan.
pub(super) struct Watchdog<R> {
    readers_of_scan: R,
    limit: Limit,
    depth: Depth,
    /// Readers that were started, given up ones included.
    started: usize,
    /// Readers that the last growth has brought.
    grown: usize,
    /// Steps of readers that are no longer watched.
    former_steps: u64,
    readers: Vec<(Arc<ReaderSlot>, u64, Instant)>,
}

impl<R: ReaderPool> Watchdog<R> {
    pub(super) fn new(readers_of_scan: R, limit: Limit, jobs: Jobs) -> Self {
        let depth = Depth::new(jobs);
        Self { readers_of_scan, limit, depth, started: 0, grown: 0, former_steps: 0, readers: Vec::new() }
    }

    /// Starts a reader. `first` is its first unit, if it takes over one.
    pub(super) fn start_reader(&mut self, first: Option<First>) -> std::io::Result<()> {
        let slot = Arc::<ReaderSlot>::default();
        let (readers, own) = (self.readers_of_scan.clone(), Arc::clone(&slot));
        let hanging = Arc::clone(&self.limit.hanging);
        let is_further = first.is_none();
        std::thread::Builder::new().name(format!("scan reader {}", self.started)).spawn(move || {
            if readers.run(&own, first) == ReaderState::GivenUp {
                hanging.came_back();
            }
        })?;
        self.limit.hanging.readers.fetch_add(usize::from(is_further), Relaxed);
        self.started += 1;
        self.readers.push((slot, 0, Instant::now()));
        Ok(())
    }

    /// Watches until the other end of `done` is dropped.
    pub(super) fn run(mut self, done: &Receiver<()>) {
        let tick = (self.limit.time / 8).clamp(Duration::from_millis(5), NAP);
        while done.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
            let limit = self.limit.now();
            let now = Instant::now();
            let mut hanging = Vec::new();
            for (number, (slot, seen, since)) in self.readers.iter_mut().enumerate() {
                let at = slot.at.load(Relaxed);
                if at != *seen || at & u64::from(u32::MAX) == 0 {
                    (*seen, *since) = (at, now);
                } else if now - *since >= limit {
                    hanging.push(number);
                }
            }
            for number in hanging.into_iter().rev() {
                self.replace(number);
            }
            if self.depth.is_due(now) {
                self.adapt(now);
            }
            if self.limit.check().is_err() {
                // There may be no readers left. The collector waits for the units, so drop them.
                self.readers_of_scan.drop_waiting();
            }
        }
    }

    /// Starts more readers if the storage needs them, and ends those that were in vain.
    fn adapt(&mut self, now: Instant) {
        // The thread of a reader that has ended holds its slot no more.
        let ended = self.readers.extract_if(.., |(slot, ..)| Arc::strong_count(slot) == 1);
        self.former_steps += ended.map(|(slot, ..)| slot.steps()).sum::<u64>();
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let change = self.depth.take(DepthSample {
            at: now,
            processor: Duration::try_from(time).unwrap_or_default().div_f64(processors as f64),
            // The ends of units change no decision.
            files: self.former_steps + self.readers.iter().map(|(slot, ..)| slot.steps()).sum::<u64>(),
            some_wait: self.readers_of_scan.has_waiting(),
        });
        match change {
            DepthChange::None => {}
            DepthChange::More(more) => {
                // If no thread can start, the others go on.
                self.grown = (0..more).take_while(|_| self.start_reader(None).is_ok()).count();
                self.readers_of_scan.grown_by(self.grown);
            }
            DepthChange::Fewer(surplus) => {
                let surplus = surplus.min(self.grown);
                self.limit.hanging.readers.fetch_sub(surplus, Relaxed);
                self.readers_of_scan.shrink_by(surplus);
            }
        }
    }

    fn replace(&mut self, number: usize) {
        let Some((slot, seen, since)) = self.readers.get(number) else { return };
        let mut in_hand = match slot.in_hand.try_lock() {
            Ok(in_hand) => in_hand,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // The reader is just handing over a result.
            Err(TryLockError::WouldBlock) => return,
        };
        if slot.at.load(Relaxed) != *seen {
            return;
        }
        let Some(InHand { unit, entries, handed_over, results }) = in_hand.take() else { return };
        drop(in_hand);
        let (entry, waited) = ((*seen & u64::from(u32::MAX)) as usize - 1, since.elapsed());
        self.former_steps += slot.steps();
        self.readers.swap_remove(number);
        let path = entries
            .get(entry)
            .map_or_else(|| unit.directory.path.clone(), |entry| unit.directory.path.join(&entry.name));
        let may_replace = self.limit.give_up(path, waited);
        let mut left = entries.get(handed_over..).unwrap_or_default().to_vec();
        if let Some(hangs) = entry.checked_sub(handed_over).and_then(|entry| left.get_mut(entry)) {
            hangs.waited_for = Some(waited);
        }
        if may_replace {
            // If no thread can start, the next scan does the rest of the unit.
            let _none = self.start_reader(Some((WorkUnit { entries: left, ..unit }, results)));
        }
    }
}

type FsJob = Box<dyn FnOnce() + Send>;

/// Calls the file system on other threads, and gives a thread up if it hangs.
pub(super) struct TimedFs {
    limit: Limit,
    /// Threads with nothing to do.
    idle: Vec<Sender<FsJob>>,
}

/// A call of the file system that was started.
pub(super) struct StartedCall<T> {
    path: PathBuf,
    begun: Instant,
    answered: Receiver<T>,
    worker: Sender<FsJob>,
}

impl TimedFs {
    pub(super) const fn new(limit: Limit) -> Self {
        Self { limit, idle: Vec::new() }
    }

    /// Runs `work`, which accesses `path`. Returns `None` if it hangs or a stop was requested
    /// meanwhile.
    pub(super) fn run<T: Send + 'static>(
        &mut self,
        path: &Path,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let call = self.start(path, work)?;
        Ok(self.wait(call))
    }

    /// Starts `work`, which accesses `path`, on a thread of its own.
    pub(super) fn start<T: Send + 'static>(
        &mut self,
        path: &Path,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<StartedCall<T>, Error> {
        let (answer, answered) = bounded(1);
        let hanging = Arc::clone(&self.limit.hanging);
        let job: FsJob = Box::new(move || {
            // If this thread was given up, nobody reads the answer.
            if answer.send(work()).is_err() {
                hanging.came_back();
            }
        });
        let worker = match self.idle.pop() {
            Some(worker) => worker,
            None => start_worker()?,
        };
        let _lost = worker.send(job);
        Ok(StartedCall { path: path.to_owned(), begun: Instant::now(), answered, worker })
    }

    /// The answer to a call, if it is there.
    pub(super) fn take<T>(&mut self, call: &StartedCall<T>) -> Option<T> {
        let answer = call.answered.try_recv().ok()?;
        self.idle.push(call.worker.clone());
        Some(answer)
    }

    /// Waits for the answer to a call. Returns `None` as [`Self::run`] does.
    pub(super) fn wait<T>(&mut self, call: StartedCall<T>) -> Option<T> {
        loop {
            match call.answered.recv_timeout(NAP) {
                Ok(answer) => {
                    self.idle.push(call.worker);
                    return Some(answer);
                }
                // The thread panicked. Treat it like a hang.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if call.begun.elapsed() >= self.limit.now() => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.limit.give_up(call.path, call.begun.elapsed());
        None
    }
}

fn start_worker() -> Result<Sender<FsJob>, Error> {
    let (jobs, to_do) = bounded::<FsJob>(1);
    std::thread::Builder::new()
        .name("scan lister".into())
        .spawn(move || to_do.iter().for_each(|job| job()))
        .map_err(Error::Thread)?;
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readers that have always more to do.
    #[derive(Clone, Default)]
    struct BusyReaders(Arc<AtomicUsize>);

    impl ReaderPool for BusyReaders {
        fn run(&self, _slot: &Arc<ReaderSlot>, _first: Option<First>) -> ReaderState {
            ReaderState::Working
        }

        fn drop_waiting(&self) {}

        fn has_waiting(&self) -> bool {
            true
        }

        fn grown_by(&self, readers: usize) {
            self.0.fetch_add(readers, Relaxed);
        }

        fn shrink_by(&self, readers: usize) {
            self.0.fetch_sub(readers, Relaxed);
        }
    }

    /// The readers after each of some samples, if a storage gives `files(readers)` in each.
    fn readers_after(files: impl Fn(usize) -> usize) -> Vec<usize> {
        let pool = BusyReaders(Arc::new(AtomicUsize::new(16)));
        let (told, _hangs) = crossbeam_channel::unbounded();
        let time = Duration::from_secs(60);
        let limit = Limit { time, stop: Stop::default(), hanging: Arc::default(), told };
        let mut watch = Watchdog::new(pool.clone(), limit.clone(), Jobs::growing_from(16));
        (0..16).for_each(|_| watch.start_reader(None).unwrap());
        // A slot that is held here belongs to a reader that works.
        let working = Arc::clone(&watch.readers[0].0);
        let begun = Instant::now();
        (0..12_u32)
            .map(|sample| {
                let readers = pool.0.load(Relaxed);
                (0..files(readers)).for_each(|_| working.rests());
                // Far apart, so that the processor time of this test does not count.
                let now = begun + Duration::from_secs(20) * sample;
                if watch.depth.is_due(now) {
                    watch.adapt(now);
                }
                assert_eq!(limit.hanging.readers.load(Relaxed), pool.0.load(Relaxed));
                pool.0.load(Relaxed)
            })
            .collect()
    }

    #[test]
    fn readers_come_while_they_help_and_go_when_they_do_not() {
        assert_eq!(readers_after(|readers| readers)[..5], [16, 32, 64, 128, 128]);
        // Twice as many bring nothing. Some time later they get another chance.
        assert_eq!(readers_after(|_| 100), [16, 32, 32, 32, 32, 16, 16, 16, 16, 32, 32, 32]);
    }

    #[test]
    fn as_many_threads_may_hang_as_there_are_readers_several_times() {
        for (readers, most) in [(4, MAX_GIVEN_UP), (128, 4 * 128)] {
            let hanging = HangingThreads { readers: AtomicUsize::new(readers), ..Default::default() };
            assert_eq!((0..1000).take_while(|_| hanging.add()).count(), most);
            assert_eq!(hanging.too_many.load(Relaxed), most + 1);
        }
    }

    #[test]
    fn a_thread_that_came_back_does_not_hang_any_more() {
        let hanging = HangingThreads::default();
        hanging.came_back();
        for _ in 0..1000 {
            assert!(hanging.add());
            hanging.came_back();
        }
        assert_eq!(hanging.too_many.load(Relaxed), 0);
    }
}
