//! The places of the frames of the objects that were requested last.

use std::path::PathBuf;
use std::sync::Arc;

use super::weighted_cache::WeightedCache;
use crate::model::location::Location;
use crate::pixels::frames::Pixels;

/// Maximum size of all kept offset tables, in bytes. A frame takes 40.
const KEPT_BYTES: usize = 16 << 20;

/// Divisor for the largest table that is kept, as a part of all.
const PART: usize = 2;

/// Offset tables of the objects that were requested last.
pub(super) struct PixelCache(WeightedCache<PixelsKey, Arc<Pixels>>);

/// An object at its place, as it was when it was examined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PixelsKey(PathBuf, std::ffi::OsString, u64, i64);

impl PixelsKey {
    pub(super) fn of(location: &Location) -> Self {
        Self(location.directory.clone(), location.file_name.clone(), location.size, location.mtime_ms)
    }
}

impl Default for PixelCache {
    fn default() -> Self {
        Self(WeightedCache::new(KEPT_BYTES))
    }
}

impl PixelCache {
    pub(super) fn get(&self, key: &PixelsKey) -> Option<Arc<Pixels>> {
        self.0.get(key)
    }

    pub(super) fn put(&self, key: PixelsKey, pixels: Arc<Pixels>) {
        let cost = pixels.cost();
        self.0.put(key, pixels, cost, PART);
    }
}
