//! Cache of finished metadata: bodies of whole responses in memory, limited in bytes.
//!
//! Compressed and plain bodies are kept apart, each when it is asked for. The key is a hash of
//! everything that the index knows of the objects. A change of the index makes another key. A
//! change of a file that the index has not seen yet is found by one `stat` for each file. There is
//! no cache on disk, which would be a second truth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Bytes;

/// Divisor for the longest body that is kept, as a part of the cache.
const PART: usize = 4;

/// Number of bytes that an entry takes besides its body.
const ENTRY_BYTES: usize = 128;

/// Name of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BodyKey {
    /// Hash of everything that may change the metadata.
    pub(super) hash: u128,
    pub(super) is_compressed: bool,
}

/// The bodies that were requested last.
#[derive(Debug)]
pub(super) struct MetadataCache {
    most: usize,
    kept: Mutex<KeptBodies>,
    /// One lock for each response that is being made.
    under_way: Mutex<HashMap<BodyKey, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug, Default)]
struct KeptBodies {
    bodies: HashMap<BodyKey, (Bytes, u64)>,
    bytes: usize,
    clock: u64,
}

impl MetadataCache {
    /// Returns a cache with this maximum size in bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default(), under_way: Mutex::default() }
    }

    /// Returns the length of the longest body that is kept. 0 means that none is kept.
    pub(super) fn longest(&self) -> usize {
        self.most / PART
    }

    /// Returns a kept body.
    pub(super) fn get(&self, key: BodyKey) -> Option<Bytes> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let now = kept.clock;
        let (body, used) = kept.bodies.get_mut(&key)?;
        *used = now;
        Some(body.clone())
    }

    /// Drops a body.
    pub(super) fn remove(&self, key: BodyKey) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((gone, _)) = kept.bodies.remove(&key) {
            kept.bytes -= cost(&gone);
        }
    }

    /// Keeps a body. Bodies that were not requested for the longest time make room.
    pub(super) fn put(&self, key: BodyKey, body: Bytes) {
        if body.len() > self.longest() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let now = kept.clock;
        kept.bytes += cost(&body);
        if let Some((before, _)) = kept.bodies.insert(key, (body, now)) {
            kept.bytes -= cost(&before);
        }
        while kept.bytes > self.most {
            let oldest = kept.bodies.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            let Some((gone, _)) = oldest.and_then(|key| kept.bodies.remove(&key)) else { return };
            kept.bytes -= cost(&gone);
        }
    }

    /// Returns the lock of a response. Its holder makes the response, and others wait for it.
    pub(super) fn lock_of(&self, key: BodyKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // Locks that nobody holds or waits for belong to responses that were made.
        under_way.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(under_way.entry(key).or_default())
    }
}

/// Returns the number of bytes that a body takes.
fn cost(body: &Bytes) -> usize {
    body.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(hash: u128) -> BodyKey {
        BodyKey { hash, is_compressed: true }
    }

    #[test]
    fn bodies_that_were_not_asked_for_longest_make_room() {
        let cache = MetadataCache::new(4 * (1000 + ENTRY_BYTES));
        let body = |byte| Bytes::from(vec![byte; 1000]);
        (1..=4).for_each(|number| cache.put(key(number), body(number as u8)));
        assert_eq!(cache.get(key(1)), Some(body(1)));
        cache.put(key(5), body(5));
        assert_eq!([1, 2, 3, 4, 5].map(|number| cache.get(key(number)).is_some()), [true, false, true, true, true]);
        cache.put(key(6), Bytes::from(vec![0; 2000]));
        assert_eq!(cache.get(key(6)), None, "longer than a quarter");
        cache.put(key(5), body(9));
        assert_eq!(cache.get(key(5)), Some(body(9)));
        assert_eq!(cache.get(BodyKey { is_compressed: false, ..key(5) }), None, "the plain one is another");
        cache.remove(key(5));
        assert_eq!(cache.get(key(5)), None);
        MetadataCache::new(0).put(key(1), body(1));
    }

    #[tokio::test]
    async fn a_response_is_made_once_at_a_time() {
        let cache = MetadataCache::new(1000);
        let (first, second) = (cache.lock_of(key(1)), cache.lock_of(key(1)));
        let held = first.lock().await;
        assert!(second.try_lock().is_err() && cache.lock_of(key(2)).try_lock().is_ok());
        drop(held);
        assert!(second.try_lock().is_ok());
    }
}
