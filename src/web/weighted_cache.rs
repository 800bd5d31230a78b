//! A cache in memory with a limit on what its entries cost together.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;

/// Entries that were used last. Those that were not used for the longest time make room.
pub(super) struct WeightedCache<K, V> {
    most: usize,
    kept: Mutex<WeightedEntries<K, V>>,
}

struct WeightedEntries<K, V> {
    /// Each value with its cost.
    entries: LruCache<K, (V, usize)>,
    cost: usize,
}

impl<K: Eq + Hash, V: Clone> WeightedCache<K, V> {
    /// Returns a cache whose entries cost at most this together.
    pub(super) fn new(most: usize) -> Self {
        Self { most, kept: Mutex::new(WeightedEntries { entries: LruCache::new_unbounded(), cost: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, WeightedEntries<K, V>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a value, which counts as used.
    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.lock().entries.get(key).map(|(value, _)| value.clone())
    }

    /// Drops an entry.
    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let mut kept = self.lock();
        if let Some((_, cost)) = kept.entries.remove(key) {
            kept.cost -= cost;
        }
    }

    /// Keeps a value, unless it alone costs more than this part of the cache (4 is a quarter).
    pub(super) fn put(&self, key: K, value: V, cost: usize, part: usize) {
        if cost > self.most / part {
            return;
        }
        let mut kept = self.lock();
        kept.cost += cost;
        if let Some((_, before)) = kept.entries.insert(key, (value, cost)) {
            kept.cost -= before;
        }
        while kept.cost > self.most {
            let Some((_, (_, cost))) = kept.entries.remove_lru() else { return };
            kept.cost -= cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let cache = WeightedCache::new(12);
        (1..=4).for_each(|number| cache.put(number, number, 3, 4));
        assert_eq!(cache.get(&1), Some(1));
        cache.put(5, 5, 3, 4);
        assert_eq!([1, 2, 3, 4, 5].map(|number| cache.get(&number).is_some()), [true, false, true, true, true]);
        cache.put(6, 6, 4, 4);
        assert_eq!(cache.get(&6), None, "more than a quarter");
        cache.put(5, 9, 1, 4);
        cache.put(6, 6, 2, 4);
        assert_eq!([1, 3, 4, 5, 6].map(|number| cache.get(&number)), [Some(1), Some(3), Some(4), Some(9), Some(6)]);
        cache.remove(&5);
        assert_eq!(cache.get(&5), None);
        cache.put(5, 5, 3, 4);
        assert_eq!(cache.get(&1), None);
    }
}
