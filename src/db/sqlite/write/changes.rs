//! What a transaction has changed and has yet to write.

use std::collections::{BTreeSet, HashMap, HashSet};

use rusqlite::Connection;

use super::rows::{ParentRows, Result};
use crate::db::Tally;

/// What a transaction has changed of the descriptions under one Patient ID and identity.
#[derive(Default)]
pub(super) struct Touched {
    pub(super) added: HashSet<i64>,
    pub(super) has_removed: bool,
    /// Issuers of those added and removed.
    pub(super) issuers: BTreeSet<String>,
}

/// Patient ID and identity, with what has changed there.
pub(super) type TouchedPatients = HashMap<(String, String), Touched>;

/// When a study's patients are worked out anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recompute {
    /// Where the objects that made its patients what they are may be gone.
    IfLeft,
    /// In any case.
    Always,
}

/// What the transaction has changed and has yet to write: the counters, and the rows of `uid_lookup`, which go in sorted.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) tally: Tally,
    /// Whether a scan has written in this transaction.
    pub(super) scanned: bool,
    /// The number of the change, once it is known.
    pub(super) change: Option<i64>,
    /// Instance groups with an instance that is not as it was.
    pub(super) touched: HashSet<i64>,
    pub(super) instances_per_instance_group: HashMap<i64, i64>,
    pub(super) instances_per_series: HashMap<i64, i64>,
    pub(super) instances_per_study: HashMap<i64, i64>,
    pub(super) series_per_study: HashMap<i64, i64>,
    /// Studies whose ModalitiesInStudy, SOPClassesInStudy and AnatomicRegionsInStudyCodeSequence have to be worked out again.
    pub(super) studies_to_summarise: HashSet<i64>,
    /// Instance groups that may have become empty, with their series and study.
    pub(super) shrunk: HashSet<(i64, i64, i64)>,
    /// Entities whose values may have to be worked out anew.
    pub(super) series_to_recompute: HashMap<i64, Recompute>,
    pub(super) studies_to_recompute: HashMap<i64, Recompute>,
    /// Descriptions to which no study may lead any more.
    pub(super) patients_left: HashSet<i64>,
    /// Where descriptions of patients were added and dropped.
    pub(super) touched_patients: TouchedPatients,
    pub(super) lookups: Vec<(i32, i64)>,
    pub(super) lookup_hashes: HashMap<i32, i64>,
    /// Look-ups of instances that are gone.
    pub(super) stale_lookups: HashSet<(i32, i64)>,
}

impl Changes {
    /// Counts new instances of an instance group.
    pub(super) fn count(&mut self, instance_group: i64, parents: &ParentRows, instances: i64) {
        *self.instances_per_instance_group.entry(instance_group).or_default() += instances;
        *self.instances_per_series.entry(parents.series).or_default() += instances;
        *self.instances_per_study.entry(parents.study).or_default() += instances;
    }

    pub(super) fn note_lookup(&mut self, hash: i32, instance_group: i64) {
        self.lookups.push((hash, instance_group));
        self.lookup_hashes.entry(hash).or_insert(instance_group);
    }
}

/// How the look-ups are spread over their two tables. Hashes come in random order: put straight into a table of the size of
/// the archive, each would dirty a page of its own, some 2,700 pages for a transaction of 4,096 rows at 1.6 million
/// instances; with a small table in front it is some 300 (docs/adr/0009).
pub(super) struct Lookups {
    /// In both tables, more or less: another process may have added some.
    pub(super) all: i64,
    /// In the small one.
    pub(super) recent: i64,
    /// Where the next range to move begins.
    pub(super) next_hash: i64,
}

impl Lookups {
    pub(super) fn read(connection: &Connection) -> Result<Self> {
        Ok(Self {
            all: connection.query_row("SELECT ifnull(sum(instance_count), 0) FROM study", [], |row| row.get(0))?,
            recent: connection.query_row("SELECT count(*) FROM uid_lookup_recent", [], |row| row.get(0))?,
            next_hash: i64::from(i32::MIN),
        })
    }

    /// The size of the small table from which it is emptied. A transaction dirties about as many of its pages as it has, and
    /// as many of the large one as lie in the range moved: the sum is least where this grows with the root of the whole.
    pub(super) fn most_recent(&self) -> i64 {
        const PER_ROOT: i64 = 64;
        const LEAST: i64 = 65_536;
        (self.all.max(0).isqrt() * PER_ROOT).max(LEAST)
    }
}

/// What says of most hashes that no look-up has them. Only of an index that this writer has filled from its beginning, alone:
/// then there is nothing to be read for it. That is a first scan, in which nearly every UID is new and two searches for each would
/// find nothing.
pub(super) struct HashFilter(Vec<u64>);

impl HashFilter {
    /// Bits, two for each hash: of a hash that is not there one of 500 seems to be at 1.6 million, one of seven at 16 million.
    const BITS: u32 = 1 << 26;

    /// One for an index without look-ups.
    pub(super) fn of(connection: &Connection) -> Result<Option<Self>> {
        let is_empty: bool = connection.query_row(
            "SELECT NOT EXISTS (SELECT 1 FROM uid_lookup) AND NOT EXISTS (SELECT 1 FROM uid_lookup_recent)",
            [],
            |row| row.get(0),
        )?;
        Ok(is_empty.then(|| Self(vec![0; Self::BITS as usize / 64])))
    }

    /// The words and bits of a hash, whose own bits are as good as random.
    fn places(hash: i32) -> [(usize, u64); 2] {
        let hash = hash as u32;
        [hash, hash.rotate_left(16).wrapping_mul(0x9E37_79B1)].map(|number| {
            let bit = number % Self::BITS;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    pub(super) fn add(&mut self, hash: i32) {
        for (word, bit) in Self::places(hash) {
            if let Some(word) = self.0.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// Whether there may be look-ups with this hash.
    pub(super) fn may_have(&self, hash: i32) -> bool {
        Self::places(hash).into_iter().all(|(word, bit)| self.0.get(word).is_none_or(|word| word & bit != 0))
    }
}

/// The look-ups of the last hash that was asked for, and what is known of others without asking.
#[derive(Default)]
pub(super) struct LookupCache {
    /// What the look-ups hold, where that is known.
    pub(super) filter: Option<HashFilter>,
    /// The hash that was last looked up.
    pub(super) hash: i32,
    /// The instance groups where an instance of this hash may be.
    pub(super) groups: Vec<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_every_hash_that_was_added_and_few_others() {
        let connection = Connection::open_in_memory().unwrap();
        for table in ["uid_lookup", "uid_lookup_recent"] {
            connection.execute_batch(&format!("CREATE TABLE {table} (hash INTEGER, instance_group INTEGER)")).unwrap();
        }
        let mut filter = HashFilter::of(&connection).unwrap().unwrap();
        let hash_of = |n: i32| n.wrapping_mul(0x61C8_8647).rotate_left(7);
        (0..100_000).for_each(|n| filter.add(hash_of(n)));
        assert!((0..100_000).all(|n| filter.may_have(hash_of(n))));
        assert!((100_000..200_000).filter(|&n| filter.may_have(hash_of(n))).count() < 100);
        connection.execute_batch("INSERT INTO uid_lookup_recent VALUES (1, 1)").unwrap();
        assert!(HashFilter::of(&connection).unwrap().is_none());
    }
}
