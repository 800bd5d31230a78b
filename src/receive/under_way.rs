//! Objects that are being stored: their limits, and the rule of one object of an instance at a
//! time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::error::ReceiveError;
use crate::db;
use crate::shares::{CountedPeer, Share, Shares, Turns};
use crate::store::Placed;
use crate::telemetry::log_limit::LogLimit;
use crate::telemetry::metrics;

/// Maximum threads that work on object files at a time. The runtime has 512, and queries need some
/// of them while a disk does not answer.
const MAX_THREADS: usize = 256;

/// Maximum objects that wait for a disk or are being stored. It equals the default number of
/// associations. Storing continues after the sender disconnects, so the limit on associations does
/// not bound them. Each may hold a `WRITE_BATCH`.
const MAX_UNDER_WAY: usize = 2_000;

/// Time for which stored objects keep their names in `.incoming/`, so that many names are removed
/// together.
const INCOMING_LINKS_WAIT: Duration = Duration::from_millis(5);

/// The objects that are being stored, for all senders.
#[derive(Debug)]
pub struct UnderWay {
    /// Storing continues when the sender disconnects. An object that has its place gets its row or
    /// is removed.
    pub(super) tasks: TaskTracker,
    /// The SOP Instance UIDs of these objects. At most one object per UID is stored at a time.
    /// Otherwise two tasks could both take the same file for theirs, and one would delete it.
    instances: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// One for each object.
    room: Arc<Shares>,
    /// Threads that work on object files.
    threads: Arc<Turns>,
    /// Objects whose rows are committed. Nobody needs their names in `.incoming/` any more.
    incoming_links: Mutex<Vec<Placed>>,
    /// Limit of log lines about refused objects.
    log_limit: LogLimit,
}

impl Default for UnderWay {
    fn default() -> Self {
        Self {
            tasks: TaskTracker::new(),
            instances: Mutex::default(),
            room: Shares::new(MAX_UNDER_WAY, 2, &metrics::STORING_REFUSED),
            threads: Turns::new(MAX_THREADS),
            incoming_links: Mutex::default(),
            log_limit: LogLimit::default(),
        }
    }
}

impl UnderWay {
    pub(super) fn log_limit(&self) -> &LogLimit {
        &self.log_limit
    }

    /// Waits until every object has its row or is removed.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Takes room for one more object of this peer, until it is dropped.
    ///
    /// # Errors
    /// [`db::Error::Busy`] if this peer has as many under way as it may have.
    pub(super) fn room_for(&self, peer: &CountedPeer) -> Result<Share, ReceiveError> {
        self.room.take(peer, 1).ok_or(ReceiveError::Index(db::Error::Busy))
    }

    /// Waits until no other object of this instance is being stored.
    pub(super) async fn turn(self: &Arc<Self>, sop_instance_uid: &str) -> InstanceTurn {
        let lock = Arc::clone(self.lock_instances().entry(sop_instance_uid.to_owned()).or_default());
        let held = Some(lock.lock_owned().await);
        InstanceTurn { under_way: Arc::clone(self), sop_instance_uid: sop_instance_uid.to_owned(), held }
    }

    /// Does the same on a thread that is none of the runtime.
    pub(crate) fn blocking_turn(self: &Arc<Self>, sop_instance_uid: &str) -> InstanceTurn {
        let lock = Arc::clone(self.lock_instances().entry(sop_instance_uid.to_owned()).or_default());
        let held = Some(lock.blocking_lock_owned());
        InstanceTurn { under_way: Arc::clone(self), sop_instance_uid: sop_instance_uid.to_owned(), held }
    }

    fn lock_instances(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<()>>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs work that waits for a disk on a thread of its own, and waits for it.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        peer: &CountedPeer,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ReceiveError> {
        self.begin(peer, work).await.await.map_err(|_| ReceiveError::ThreadEnded)
    }

    /// Runs such work without waiting for its end.
    pub(super) async fn begin<T: Send + 'static>(
        &self,
        peer: &CountedPeer,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let thread = self.threads.take(peer).await;
        spawn_blocking(move || {
            let _thread = thread;
            work()
        })
    }

    /// Removes the incoming link of an object soon, together with those of all objects that are
    /// stored meanwhile. Waking another thread costs more than the work for one object. If the
    /// process ends before, the next start removes it (`Objects::recover`).
    pub(super) fn let_incoming_link_go(self: &Arc<Self>, placed: Placed) {
        let mut waiting = self.lock_incoming_links();
        waiting.push(placed);
        if waiting.len() > 1 {
            // The first caller does the work.
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            sleep(INCOMING_LINKS_WAIT).await;
            spawn_blocking(move || {
                let placed = std::mem::take(&mut *this.lock_incoming_links());
                drop(placed);
            });
        });
    }

    fn lock_incoming_links(&self) -> MutexGuard<'_, Vec<Placed>> {
        self.incoming_links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to give an object of an instance its place.
pub(crate) struct InstanceTurn {
    under_way: Arc<UnderWay>,
    sop_instance_uid: String,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for InstanceTurn {
    fn drop(&mut self) {
        let mut instances = self.under_way.lock_instances();
        // The entry is removed only now. So the next caller waits for the same lock, or finds none.
        self.held = None;
        if instances.get(&self.sop_instance_uid).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            instances.remove(&self.sop_instance_uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::*;

    fn peer(number: u8) -> CountedPeer {
        Arc::new(crate::model::peer::CountedAs::address([10, 0, 0, number].into()))
    }

    #[tokio::test]
    async fn objects_whose_senders_are_gone_are_limited_all_the_same() {
        let under_way = Arc::new(UnderWay::default());
        // A disk that does not answer.
        let disk = Arc::new(tokio::sync::Semaphore::new(0));
        let mut begun = 0;
        while let Ok(room) = under_way.room_for(&peer(1)) {
            let disk = Arc::clone(&disk);
            drop(under_way.tasks.spawn(async move {
                drop(disk.acquire().await);
                drop(room);
            }));
            begun += 1;
        }
        assert_eq!(begun, MAX_UNDER_WAY / 2);
        // They do not limit another peer.
        assert!(under_way.room_for(&peer(2)).is_ok());
        disk.close();
        under_way.ended().await;
        assert!(under_way.room_for(&peer(1)).is_ok());
    }

    #[tokio::test]
    async fn a_peer_whose_threads_do_not_come_back_leaves_some_to_others() {
        let under_way = UnderWay::default();
        let (release, disk) = std::sync::mpsc::channel::<()>();
        let disk = Arc::new(Mutex::new(disk));
        let mut threads = Vec::new();
        for _ in 0..MAX_THREADS / 2 {
            let disk = Arc::clone(&disk);
            threads.push(under_way.begin(&peer(1), move || disk.lock().map(|disk| disk.recv().is_ok()).ok()).await);
        }
        let one = peer(1);
        let waits = under_way.begin(&one, || ());
        tokio::select! {
            biased;
            _ = waits => panic!("one peer has more than half of the threads"),
            () = yield_now() => {}
        }
        assert_eq!(under_way.blocking(&peer(2), || 7).await.unwrap(), 7);
        drop(release);
        for thread in threads {
            thread.await.unwrap();
        }
    }

    #[tokio::test]
    async fn of_one_instance_one_has_the_turn_and_nothing_is_left_of_it() {
        let under_way = Arc::new(UnderWay::default());
        let first = under_way.turn("1.2.3").await;
        let other = under_way.turn("1.2.4").await;
        let this = Arc::clone(&under_way);
        let mut second = tokio::spawn(async move { this.turn("1.2.3").await });
        tokio::select! {
            biased;
            _ = &mut second => panic!("two at once"),
            () = yield_now() => {}
        }
        drop(first);
        drop(second.await.unwrap());
        drop(other);
        assert!(under_way.lock_instances().is_empty());
    }
}
