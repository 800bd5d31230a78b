//! Shares of what peers have in common, so that no peer and no group of peers starves another (ADR
//! 0021).
//!
//! One rule holds for all of it: a peer gets a unit if it then holds at most what is left. One
//! greedy peer gets half. `k` greedy peers leave one part in `k + 1` to whoever comes next. Nothing
//! has to be set for that.
//!
//! [`Shares`] counts things that are refused when there are none: associations, bytes, instances.
//! [`Turns`] counts things that are waited for: threads, and readers of the index. Peers that wait
//! get their turns one after the other. So a hundred requests of one peer delay a single request of
//! another by one turn.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::model::peer::CountedAs;
use crate::telemetry::metrics::Counter;

/// The peer that something is counted for.
pub(crate) type CountedPeer = Arc<CountedAs>;

/// Maximum memory of all peers together for arriving and outgoing objects, in bytes. The few
/// kilobytes that each association always has are not counted. Larger: busy senders and retrievals
/// keep large buffers. Smaller: they work with small ones.
pub(crate) const MEMORY_BYTES: usize = 64 << 20;

/// The memory of the node for messages, as one peer sees it.
#[derive(Clone, Debug)]
pub(crate) struct PeerMemory {
    all: Arc<Shares>,
    peer: CountedPeer,
}

impl PeerMemory {
    /// The memory of a node, for this peer.
    pub(crate) fn new(all: &Arc<Shares>, peer: &CountedPeer) -> Self {
        Self { all: Arc::clone(all), peer: Arc::clone(peer) }
    }

    /// The peer that is charged.
    pub(crate) fn peer(&self) -> &CountedPeer {
        &self.peer
    }

    /// So many bytes, if the peer may have them.
    pub(crate) fn take(&self, bytes: usize) -> Option<Share> {
        self.all.take(&self.peer, bytes)
    }
}

/// A pool of units (bytes, threads, associations) shared by peers: no peer holds more than is left.
#[derive(Debug)]
pub(crate) struct Shares {
    /// Units that a peer may hold in any case, while some are free.
    least: usize,
    refused: &'static Counter,
    held: Mutex<HeldCount>,
}

/// Units held, in all and by peer.
#[derive(Debug, Default)]
struct HeldCount {
    total: usize,
    free: usize,
    by_peer: HashMap<CountedPeer, usize>,
}

impl HeldCount {
    fn of(&self, peer: &CountedPeer) -> usize {
        self.by_peer.get(peer).copied().unwrap_or(0)
    }

    /// Takes so many for a peer, if it then has no more than `least` or than is left.
    fn take(&mut self, peer: &CountedPeer, count: usize, least: usize) -> bool {
        let Some(left) = self.free.checked_sub(count) else { return false };
        match self.by_peer.entry(Arc::clone(peer)) {
            Entry::Occupied(mut held) if held.get().saturating_add(count) <= left.max(least) => {
                *held.get_mut() += count
            }
            Entry::Vacant(none) if count <= left.max(least) => {
                none.insert(count);
            }
            Entry::Occupied(_) | Entry::Vacant(_) => return false,
        }
        self.free = left;
        true
    }

    fn give_back(&mut self, peer: &CountedPeer, count: usize) {
        self.free = self.free.saturating_add(count);
        if let Entry::Occupied(mut held) = self.by_peer.entry(Arc::clone(peer)) {
            match held.get().saturating_sub(count) {
                0 => {
                    held.remove();
                }
                left => *held.get_mut() = left,
            }
        }
    }
}

impl Shares {
    /// A pool of `total` units. Each peer may hold `least` of them while any are free. `refused`
    /// counts refusals.
    pub(crate) fn new(total: usize, least: usize, refused: &'static Counter) -> Arc<Self> {
        let held = Mutex::new(HeldCount { total, free: total, by_peer: HashMap::new() });
        Arc::new(Self { least, refused, held })
    }

    /// Takes `count` units for this peer. `None` if that is more than it may hold now.
    pub(crate) fn take(self: &Arc<Self>, peer: &CountedPeer, count: usize) -> Option<Share> {
        let mut share = Share { all: Arc::clone(self), peer: Arc::clone(peer), count: 0 };
        share.grow(count).then_some(share)
    }

    /// The same with a limit for this peer.
    pub(crate) fn take_below(self: &Arc<Self>, peer: &CountedPeer, count: usize, maximum: usize) -> Option<Share> {
        if self.lock().of(peer).saturating_add(count) > maximum {
            self.refused.increment();
            return None;
        }
        self.take(peer, count)
    }

    /// Number of units that all peers together have.
    pub(crate) fn taken(&self) -> usize {
        let held = self.lock();
        held.total.saturating_sub(held.free)
    }

    fn lock(&self) -> MutexGuard<'_, HeldCount> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Units of [`Shares`] that one peer holds. Dropping it returns them.
#[derive(Debug)]
pub(crate) struct Share {
    all: Arc<Shares>,
    peer: CountedPeer,
    count: usize,
}

impl Share {
    /// Number of these units.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Takes more; `false`, and as before, when the peer may not have them.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let taken = self.all.lock().take(&self.peer, more, self.all.least);
        if taken {
            self.count += more;
        } else {
            self.all.refused.increment();
        }
        taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.lock().give_back(&self.peer, self.count);
    }
}

/// Turns that are waited for.
#[derive(Debug)]
pub(crate) struct Turns {
    queue: Mutex<WaitingPeers>,
    /// Told when somebody begins to wait.
    wanted: Notify,
}

#[derive(Debug)]
struct WaitingPeers {
    held: HeldCount,
    /// Of each peer, those who wait, oldest first.
    waiting: HashMap<CountedPeer, VecDeque<oneshot::Sender<Turn>>>,
    /// The peers that wait, in the order in which they get their next turns.
    order: VecDeque<CountedPeer>,
}

/// One turn, given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    peer: CountedPeer,
}

impl Turns {
    /// So many at a time.
    pub(crate) fn new(total: usize) -> Arc<Self> {
        let held = HeldCount { total, free: total, by_peer: HashMap::new() };
        let queue = Mutex::new(WaitingPeers { held, waiting: HashMap::new(), order: VecDeque::new() });
        Arc::new(Self { queue, wanted: Notify::new() })
    }

    /// A turn at once, if there is one and nobody waits for it.
    pub(crate) fn try_take(self: &Arc<Self>, peer: &CountedPeer) -> Option<Turn> {
        let mut queue = self.lock();
        let free = queue.order.is_empty() && queue.held.take(peer, 1, 1);
        free.then(|| Turn { turns: Arc::clone(self), peer: Arc::clone(peer) })
    }

    /// Waits for a turn.
    pub(crate) async fn take(self: &Arc<Self>, peer: &CountedPeer) -> Turn {
        loop {
            if let Some(turn) = self.try_take(peer) {
                return turn;
            }
            let (sender, turn) = oneshot::channel();
            self.lock().wait(peer, sender);
            self.wanted.notify_waiters();
            // One may have been given back in between.
            self.hand_out();
            // The channel closes without a turn only when the process ends.
            if let Ok(turn) = turn.await {
                return turn;
            }
        }
    }

    /// Waits until somebody waits for a turn.
    pub(crate) async fn are_wanted(&self) {
        let wanted = self.wanted.notified();
        if self.lock().order.is_empty() {
            wanted.await;
        }
    }

    /// Gives what is free to those who wait, one peer after the other.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let mut queue = self.lock();
            let Some((peer, waiting)) = queue.next() else { return };
            drop(queue);
            // Who does not wait any more drops it, which gives it back.
            let _ = waiting.send(Turn { turns: Arc::clone(self), peer });
        }
    }

    fn lock(&self) -> MutexGuard<'_, WaitingPeers> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WaitingPeers {
    fn wait(&mut self, peer: &CountedPeer, sender: oneshot::Sender<Turn>) {
        let waiting = self.waiting.entry(Arc::clone(peer)).or_default();
        if waiting.is_empty() {
            self.order.push_back(Arc::clone(peer));
        }
        waiting.push_back(sender);
    }

    /// Takes a turn for the first peer that may have one.
    fn next(&mut self) -> Option<(CountedPeer, oneshot::Sender<Turn>)> {
        let mut at = 0;
        while let Some(peer) = self.order.get(at).cloned() {
            let waiting = self.waiting.entry(Arc::clone(&peer)).or_default();
            while waiting.front().is_some_and(oneshot::Sender::is_closed) {
                waiting.pop_front();
            }
            if waiting.is_empty() {
                self.waiting.remove(&peer);
                self.order.remove(at);
                continue;
            }
            if self.held.take(&peer, 1, 1) {
                let sender = waiting.pop_front()?;
                self.order.remove(at);
                if waiting.is_empty() {
                    self.waiting.remove(&peer);
                } else {
                    // Behind all others.
                    self.order.push_back(Arc::clone(&peer));
                }
                return Some((peer, sender));
            }
            if self.held.free == 0 {
                return None;
            }
            at += 1;
        }
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().held.give_back(&self.peer, 1);
        self.turns.hand_out();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use proptest::prelude::*;

    use super::*;

    static REFUSED: Counter = Counter::new();

    fn peer(number: u8) -> CountedPeer {
        Arc::new(CountedAs::Address([10, 0, 0, number].into()))
    }

    /// Takes one after the other until it is refused.
    fn all_it_can(shares: &Arc<Shares>, peer: &CountedPeer) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(peer, 1)).collect()
    }

    #[test]
    fn whoever_comes_next_finds_as_much_as_each_before_it_has() {
        let shares = Shares::new(1000, 1, &REFUSED);
        let first = all_it_can(&shares, &peer(1));
        assert_eq!(first.len(), 500);
        let second = all_it_can(&shares, &peer(2));
        assert_eq!(second.len(), 250);
        drop(first);
        assert_eq!(all_it_can(&shares, &peer(2)).len() + second.len(), 500);
    }

    #[test]
    fn the_last_of_them_goes_to_whoever_has_none() {
        let shares = Shares::new(3, 1, &REFUSED);
        let first = all_it_can(&shares, &peer(1));
        let (second, third) = (shares.take(&peer(2), 1), shares.take(&peer(3), 1));
        assert_eq!((first.len(), second.is_some(), third.is_some()), (1, true, true));
        assert!(shares.take(&peer(4), 1).is_none());
        drop(first);
        assert!(shares.take(&peer(4), 1).is_some());
    }

    #[test]
    fn a_share_that_cannot_grow_stays_as_it_is() {
        let shares = Shares::new(100, 0, &REFUSED);
        let mut share = shares.take(&peer(1), 30).unwrap();
        assert!(!share.grow(30) && share.grow(20));
        assert_eq!(share.count(), 50);
        assert!(shares.take_below(&peer(2), 11, 10).is_none());
        drop(share);
        assert!(shares.take(&peer(2), 50).is_some());
    }

    proptest! {
        #[test]
        fn no_peer_ever_has_more_than_it_left_when_it_took(
            steps in prop::collection::vec((0..6_u8, 1..40_usize, any::<bool>()), 1..200),
        ) {
            let shares = Shares::new(300, 1, &REFUSED);
            let mut held: Vec<Share> = Vec::new();
            for (number, count, gives_back) in steps {
                if gives_back {
                    if !held.is_empty() {
                        held.swap_remove(count % held.len());
                    }
                } else if let Some(share) = shares.take(&peer(number), count) {
                    held.push(share);
                    let has: usize = held.iter().filter(|it| it.peer == peer(number)).map(Share::count).sum();
                    let left = 300 - held.iter().map(Share::count).sum::<usize>();
                    prop_assert!(has <= left.max(1));
                }
                let taken: usize = held.iter().map(Share::count).sum();
                prop_assert_eq!(shares.lock().free, 300 - taken);
            }
            held.clear();
            prop_assert!(shares.lock().by_peer.is_empty());
        }
    }

    #[tokio::test]
    async fn a_hundred_that_wait_hold_up_another_peer_by_one_turn() {
        let turns = Turns::new(1);
        let (greedy, honest) = (peer(1), peer(2));
        let first = turns.take(&greedy).await;
        let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(turns.take(&greedy))).collect();
        for one in &mut waiting {
            assert!(futures_pending(one.as_mut()).await);
        }
        let mut mine = pin!(turns.take(&honest));
        assert!(futures_pending(mine.as_mut()).await);
        // The oldest of the others comes first, then it is our turn.
        drop(first);
        let second = waiting.remove(0).await;
        drop(second);
        drop(mine.await);
        for one in waiting {
            drop(one.await);
        }
    }

    #[tokio::test]
    async fn who_no_longer_waits_is_passed_over() {
        let turns = Turns::new(1);
        let first = turns.take(&peer(1)).await;
        for number in 2..100 {
            let one = peer(number);
            let mut given_up = Box::pin(turns.take(&one));
            assert!(futures_pending(given_up.as_mut()).await);
        }
        let me = peer(100);
        let mut mine = pin!(turns.take(&me));
        assert!(futures_pending(mine.as_mut()).await);
        drop(first);
        drop(mine.await);
        assert!(turns.try_take(&peer(1)).is_some());
        assert!(turns.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn who_holds_a_turn_learns_that_it_is_wanted() {
        let turns = Turns::new(1);
        let first = turns.take(&peer(1)).await;
        let mut wanted = pin!(turns.are_wanted());
        assert!(futures_pending(wanted.as_mut()).await);
        let other = peer(2);
        let mut second = pin!(turns.take(&other));
        assert!(futures_pending(second.as_mut()).await);
        wanted.await;
        drop(first);
        drop(second.await);
    }

    /// Whether a future is not ready when it is polled.
    async fn futures_pending<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = std::future::ready(()) => true,
        }
    }
}
