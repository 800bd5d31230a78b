//! Caches of the writer from one record to the next, and from one transaction to the next.

use std::path::{Path, PathBuf};

use foldhash::HashMap;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::super::columns::{is_stored_above, stored_above};
use super::rows::ParentRows;
use crate::model::attribute::AttributeId;
use crate::model::record::{Common, InstanceRecord};

/// Series and directories that are remembered between transactions. A cache that grows past this
/// starts anew. Scans go from series to series, and there are fewer associations than this.
const CACHE_ENTRIES: usize = 1024;

/// Sets of values that are remembered of one series. Real series have one, or a few.
const REMEMBERED_SETS: usize = 16;

/// The rows above the records of a series.
#[derive(Default)]
pub(super) struct ParentCache {
    /// By a hash of Study and Series Instance UID.
    series: HashMap<u128, Vec<ParentRows>>,
    /// The values that the last record shares with others, and the hash of those of patient, study
    /// and series.
    upper_values: Option<(Common, u64)>,
    scratch: String,
}

/// The series of a record, and a hash of all that it states of patient, study and series.
#[derive(Clone, Copy)]
pub(super) struct ParentKey {
    series: u128,
    pub(super) values: u64,
}

impl ParentCache {
    pub(super) fn key_of(&mut self, record: &InstanceRecord) -> ParentKey {
        self.scratch.clear();
        for part in [record.value(AttributeId::StudyInstanceUID), "\0", record.value(AttributeId::SeriesInstanceUID)] {
            self.scratch.push_str(part);
        }
        let series = xxh3_128(self.scratch.as_bytes());
        ParentKey { series, values: self.hash_of_upper_values(record) }
    }

    fn hash_of_upper_values(&mut self, record: &InstanceRecord) -> u64 {
        // The slices of a series share one set of these values, which is hashed once.
        let common = record.common().and_then(|(common, mut own)| (!own.any(is_stored_above)).then_some(common));
        if let Some((known, hash)) = &self.upper_values
            && common.is_some_and(|common| common.shares_memory_with(known))
        {
            return *hash;
        }
        self.scratch.clear();
        for &id in stored_above() {
            self.scratch.push_str(record.value(id));
            self.scratch.push('\0');
        }
        let hash = xxh3_64(self.scratch.as_bytes());
        if let Some(common) = common {
            self.upper_values = Some((common.clone(), hash));
        }
        hash
    }

    pub(super) fn get(&self, key: ParentKey) -> Option<ParentRows> {
        self.series.get(&key.series)?.iter().find(|parents| parents.values == key.values).copied()
    }

    pub(super) fn insert(&mut self, key: ParentKey, parents: ParentRows) {
        let known = self.series.entry(key.series).or_default();
        if known.len() >= REMEMBERED_SETS {
            known.clear();
        }
        known.push(parents);
    }

    pub(super) fn is_large(&self) -> bool {
        self.series.len() > CACHE_ENTRIES
    }

    pub(super) fn clear(&mut self) {
        self.series.clear();
    }
}

/// Rows of directories and of archive files. An archive file may have had the path of a directory.
#[derive(Default)]
pub(super) struct DirectoryCache {
    directories: HashMap<PathBuf, i64>,
    archives: HashMap<PathBuf, i64>,
}

impl DirectoryCache {
    pub(super) fn get(&self, path: &Path, is_archive: bool) -> Option<i64> {
        if is_archive { &self.archives } else { &self.directories }.get(path).copied()
    }

    pub(super) fn insert(&mut self, path: &Path, is_archive: bool, row: i64) {
        if is_archive { &mut self.archives } else { &mut self.directories }.insert(path.to_owned(), row);
    }

    pub(super) fn is_large(&self) -> bool {
        self.directories.len() + self.archives.len() > CACHE_ENTRIES
    }

    pub(super) fn clear(&mut self) {
        self.directories.clear();
        self.archives.clear();
    }
}
