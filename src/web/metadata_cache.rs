//! Cache of finished metadata: bodies of whole responses in memory, limited in bytes.
//!
//! Compressed and plain bodies are kept apart, each when it is asked for. The key is a hash of
//! everything that the index knows of the objects. A change of the index makes another key. A
//! change of a file that the index has not seen yet is found by one `stat` for each file. There is
//! no cache on disk, which would be a second truth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Bytes;

use super::weighted_cache::WeightedCache;

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
pub(super) struct MetadataCache {
    bodies: WeightedCache<BodyKey, Bytes>,
    /// One lock for each response that is being made.
    under_way: Mutex<HashMap<BodyKey, Arc<tokio::sync::Mutex<()>>>>,
}

impl MetadataCache {
    /// Returns a cache with this maximum size in bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { bodies: WeightedCache::new(most), under_way: Mutex::default() }
    }

    /// Returns a kept body.
    pub(super) fn get(&self, key: BodyKey) -> Option<Bytes> {
        self.bodies.get(&key)
    }

    /// Drops a body.
    pub(super) fn remove(&self, key: BodyKey) {
        self.bodies.remove(&key);
    }

    /// Keeps a body.
    pub(super) fn put(&self, key: BodyKey, body: Bytes) {
        let cost = body.len() + ENTRY_BYTES;
        self.bodies.put(key, body, cost, PART);
    }

    /// Returns the lock of a response. Its holder makes the response, and others wait for it.
    pub(super) fn lock_of(&self, key: BodyKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // Locks that nobody holds or waits for belong to responses that were made.
        under_way.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(under_way.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(hash: u128) -> BodyKey {
        BodyKey { hash, is_compressed: true }
    }

    #[test]
    fn a_body_is_kept_if_it_is_not_too_long() {
        let cache = MetadataCache::new(4 * (1000 + ENTRY_BYTES));
        let body = |bytes| Bytes::from(vec![0; bytes]);
        cache.put(key(1), body(1000));
        cache.put(key(2), body(1001));
        assert_eq!((cache.get(key(1)), cache.get(key(2))), (Some(body(1000)), None));
        assert_eq!(cache.get(BodyKey { is_compressed: false, ..key(1) }), None, "the plain one is another");
        cache.remove(key(1));
        assert_eq!(cache.get(key(1)), None);
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
