//! The places of the frames of the objects that were requested last.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::location::Location;
use crate::pixels::frames::Pixels;

/// Maximum size of all kept offset tables, in bytes. A frame takes 40.
const KEPT_BYTES: usize = 16 << 20;

/// Offset tables of the objects that were requested last.
#[derive(Default)]
pub(super) struct PixelCache(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    tables: HashMap<PixelsKey, (Arc<Pixels>, u64)>,
    bytes: usize,
    clock: u64,
}

/// An object at its place, as it was when it was examined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PixelsKey(PathBuf, std::ffi::OsString, u64, i64);

impl PixelsKey {
    pub(super) fn of(location: &Location) -> Self {
        Self(location.directory.clone(), location.file_name.clone(), location.size, location.mtime_ms)
    }
}

impl PixelCache {
    pub(super) fn get(&self, key: &PixelsKey) -> Option<Arc<Pixels>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let now = kept.clock;
        let (pixels, used) = kept.tables.get_mut(key)?;
        *used = now;
        Some(Arc::clone(pixels))
    }

    pub(super) fn put(&self, key: PixelsKey, pixels: Arc<Pixels>) {
        let cost = pixels.cost();
        if cost > KEPT_BYTES / 2 {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.bytes + cost > KEPT_BYTES {
            let oldest = kept.tables.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            let Some((gone, _)) = oldest.and_then(|key| kept.tables.remove(&key)) else { break };
            kept.bytes -= gone.cost();
        }
        kept.clock += 1;
        let now = kept.clock;
        kept.bytes += cost;
        if let Some((before, _)) = kept.tables.insert(key, (pixels, now)) {
            kept.bytes -= before.cost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::frames::RANGE_BYTES;

    #[test]
    fn what_was_not_asked_for_longest_goes_first() {
        let cache = PixelCache::default();
        let table = |frames: usize| Arc::new(Pixels::of_fragments(vec![vec![(0, 1)]; frames]));
        let key = |name: &str| PixelsKey("/a".into(), name.into(), 1, 1);
        // Each a third of the room.
        let frames = KEPT_BYTES / 3 / (2 * RANGE_BYTES);
        for name in ["a", "b"] {
            cache.put(key(name), table(frames));
        }
        assert!(cache.get(&key("a")).is_some());
        for name in ["c", "d"] {
            cache.put(key(name), table(frames));
        }
        assert!(cache.get(&key("b")).is_none() && cache.get(&key("d")).is_some());
        cache.put(key("e"), table(10 * frames));
        assert!(cache.get(&key("e")).is_none());
    }
}
