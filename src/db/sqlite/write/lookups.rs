//! From the hash of a SOP Instance UID to the instance groups where its instance may be
//! (docs/adr/0009).

use foldhash::{HashMap, HashSet};
use rusqlite::{Connection, OptionalExtension, Statement};

use super::rows::Result;

/// The look-ups of an index, and what the current transaction changes of them.
pub(super) struct Lookups<'c> {
    connection: &'c Connection,
    /// Prepared once: finding a statement by its text took as long as running it.
    find: Statement<'c>,
    insert: Statement<'c>,
    tables: TableSizes,
    /// A filter of all look-ups, while this writer knows them all.
    filter: Option<HashFilter>,
    /// The hash that was asked for last.
    hash: i32,
    /// The instance groups where an instance of this hash may be.
    groups: Vec<i64>,
    pending: Pending,
}

/// Look-ups that the transaction has yet to write.
#[derive(Default)]
struct Pending {
    new: Vec<(i32, i64)>,
    /// Hashes of `new`, each with its first instance group.
    hashes: HashMap<i32, i64>,
    /// Look-ups of instances that are gone.
    stale: HashSet<(i32, i64)>,
}

impl<'c> Lookups<'c> {
    pub(super) fn new(connection: &'c Connection) -> Result<Self> {
        Ok(Self {
            connection,
            find: connection.prepare(
                "SELECT instance_group FROM uid_lookup WHERE hash = ?1 \
                 UNION ALL SELECT instance_group FROM uid_lookup_recent WHERE hash = ?1",
            )?,
            insert: connection
                .prepare("INSERT OR IGNORE INTO uid_lookup_recent (hash, instance_group) VALUES (?1, ?2)")?,
            tables: TableSizes::read(connection)?,
            filter: None,
            hash: 0,
            groups: Vec::new(),
            pending: Pending::default(),
        })
    }

    /// Forgets what a transaction that was rolled back has changed.
    pub(super) fn roll_back(&mut self) {
        self.pending = Pending::default();
        if let Ok(tables) = TableSizes::read(self.connection) {
            self.tables = tables;
        }
    }

    /// Begins to filter, if the index has no look-ups yet.
    pub(super) fn begin_filter(&mut self) -> Result<()> {
        self.filter = HashFilter::of(self.connection)?;
        Ok(())
    }

    /// Ends the filter, because another process has written look-ups that it does not know.
    pub(super) fn end_filter(&mut self) {
        self.filter = None;
    }

    /// Finds the instance groups where an instance with this hash may be. [`Self::candidate`] gives
    /// them one by one.
    pub(super) fn find(&mut self, hash: i32) -> Result<()> {
        self.hash = hash;
        self.groups.clear();
        if self.filter.as_ref().is_some_and(|filter| !filter.may_have(hash)) {
            return Ok(());
        }
        if let Some(&group) = self.pending.hashes.get(&hash) {
            self.groups.push(group);
            let others = self.pending.new.iter().filter(|(other, of)| *other == hash && *of != group);
            self.groups.extend(others.map(|(_, of)| *of));
        }
        let mut rows = self.find.query([hash])?;
        while let Some(row) = rows.next()? {
            self.groups.push(row.get(0)?);
        }
        Ok(())
    }

    /// The instance group with this number among those that [`Self::find`] found.
    pub(super) fn candidate(&self, at: usize) -> Option<i64> {
        self.groups.get(at).copied()
    }

    /// Adds a look-up.
    pub(super) fn add(&mut self, hash: i32, group: i64) -> Result<()> {
        if self.pending.stale.remove(&(hash, group)) {
            return Ok(());
        }
        if self.hash != hash {
            self.find(hash)?;
        }
        // Another instance of the instance group has the same hash.
        if self.groups.contains(&group) {
            self.connection
                .prepare_cached("INSERT OR IGNORE INTO uid_lookup_shared (hash, instance_group) VALUES (?1, ?2)")?
                .execute([i64::from(hash), group])?;
            return Ok(());
        }
        if let Some(filter) = &mut self.filter {
            filter.add(hash);
        }
        self.pending.new.push((hash, group));
        self.pending.hashes.entry(hash).or_insert(group);
        Ok(())
    }

    /// Removes the look-up of an instance that is gone.
    pub(super) fn remove(&mut self, hash: i32, group: i64) {
        self.pending.stale.insert((hash, group));
    }

    /// Drops what is known of an instance group that is gone.
    pub(super) fn forget_group(&self, group: i64) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM uid_lookup_shared WHERE instance_group = ?1")?
            .execute([group])
            .map(drop)
    }

    /// Writes the changes of the transaction.
    pub(super) fn write(&mut self) -> Result<()> {
        self.remove_stale()?;
        let mut new = std::mem::take(&mut self.pending.new);
        self.pending.hashes.clear();
        // Sorted by hash, so that neighbours go into the same page.
        new.sort_unstable();
        for &(hash, group) in &new {
            self.insert.execute([i64::from(hash), group])?;
        }
        self.move_range(new.len())
    }

    fn remove_stale(&mut self) -> Result<()> {
        for (hash, group) in std::mem::take(&mut self.pending.stale) {
            let entry = [i64::from(hash), group];
            let is_shared: bool = self
                .connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM uid_lookup_shared WHERE hash = ?1 AND instance_group = ?2)",
                )?
                .query_row(entry, |row| row.get(0))?;
            if is_shared || self.drop_pending(hash, group) {
                continue;
            }
            let recent = self
                .connection
                .prepare_cached("DELETE FROM uid_lookup_recent WHERE hash = ?1 AND instance_group = ?2")?
                .execute(entry)?;
            let large = self
                .connection
                .prepare_cached("DELETE FROM uid_lookup WHERE hash = ?1 AND instance_group = ?2")?
                .execute(entry)?;
            self.tables.recent -= i64::try_from(recent).unwrap_or(0);
            self.tables.all -= i64::try_from(recent + large).unwrap_or(0);
        }
        Ok(())
    }

    /// Drops a look-up that is not written yet. Returns whether there was one.
    fn drop_pending(&mut self, hash: i32, group: i64) -> bool {
        if !self.pending.hashes.contains_key(&hash) {
            return false;
        }
        let before = self.pending.new.len();
        self.pending.new.retain(|pending| *pending != (hash, group));
        self.pending.new.len() < before
    }

    /// Moves a range of the recent look-ups into the large table, when there are many.
    fn move_range(&mut self, added: usize) -> Result<()> {
        let added = i64::try_from(added).unwrap_or(i64::MAX);
        self.tables.recent += added;
        self.tables.all += added;
        if self.tables.recent <= self.tables.most_recent() {
            return Ok(());
        }
        let mut left = added.saturating_mul(2).max(64);
        while left > 0 && self.move_some(left.min(MOVED_AT_ONCE))? == HashRangeEnd::Within {
            left -= MOVED_AT_ONCE;
        }
        Ok(())
    }

    /// Moves the next look-ups, up to so many of different hashes.
    fn move_some(&mut self, most: i64) -> Result<HashRangeEnd> {
        let from = self.tables.next_hash;
        let end: Option<i64> = self
            .connection
            .prepare_cached("SELECT hash FROM uid_lookup_recent WHERE hash >= ?1 ORDER BY hash LIMIT 1 OFFSET ?2")?
            .query_row([from, most], |row| row.get(0))
            .optional()?;
        // The last range ends after every hash. The next one begins anew.
        let to = end.unwrap_or(i64::from(i32::MAX) + 1);
        self.connection
            .prepare_cached(
                "INSERT OR IGNORE INTO uid_lookup SELECT hash, instance_group FROM uid_lookup_recent \
                 WHERE hash >= ?1 AND hash < ?2 ORDER BY hash, instance_group",
            )?
            .execute([from, to])?;
        let moved = self
            .connection
            .prepare_cached("DELETE FROM uid_lookup_recent WHERE hash >= ?1 AND hash < ?2")?
            .execute([from, to])?;
        self.tables.recent -= i64::try_from(moved).unwrap_or(0);
        self.tables.next_hash = end.unwrap_or(i64::from(i32::MIN));
        Ok(if end.is_some() { HashRangeEnd::Within } else { HashRangeEnd::Last })
    }
}

/// Look-ups that are moved by one statement. Those that follow use the pages that they leave.
/// Larger: more pages stay free, one for each 600. A scan of 100,000 files left up to 155.
const MOVED_AT_ONCE: i64 = 4096;

/// End of a range of hashes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HashRangeEnd {
    Within,
    /// After all hashes.
    Last,
}

/// Distribution of the look-ups over their two tables.
///
/// Hashes come in random order. In a table of the size of the archive, each new one would dirty a
/// page of its own. At 1.6 million instances, a transaction of 4,096 rows dirtied some 2,700 pages.
/// With a small table in front, it is some 300 (docs/adr/0009).
struct TableSizes {
    /// Rows of both tables. Another process may have added some.
    all: i64,
    /// Rows of the small table.
    recent: i64,
    /// Start of the next range to move.
    next_hash: i64,
}

impl TableSizes {
    fn read(connection: &Connection) -> Result<Self> {
        Ok(Self {
            all: connection.query_row("SELECT ifnull(sum(instance_count), 0) FROM study", [], |row| row.get(0))?,
            recent: connection.query_row("SELECT count(*) FROM uid_lookup_recent", [], |row| row.get(0))?,
            next_hash: i64::from(i32::MIN),
        })
    }

    /// The size of the small table from which on it is emptied.
    ///
    /// A transaction dirties about all pages of the small table. Of the large table it dirties the
    /// pages in the range that is moved. The sum is least where the small table grows with the root
    /// of the whole.
    fn most_recent(&self) -> i64 {
        const PER_ROOT: i64 = 64;
        const LEAST: i64 = 65_536;
        (self.all.max(0).isqrt() * PER_ROOT).max(LEAST)
    }
}

/// A filter without false negatives that rules out most hashes that have no look-up.
///
/// It is valid only while this writer alone fills the index from empty, so that nothing has to be
/// read for it. That is a first scan: nearly every UID is new, and two searches for each would find
/// nothing.
struct HashFilter(Vec<u64>);

impl HashFilter {
    /// Bits. Each hash sets two. At 1.6 million hashes, one of 500 others seems to be there. At 16
    /// million it is one of seven.
    const BITS: u32 = 1 << 26;

    /// A filter for an index without look-ups.
    fn of(connection: &Connection) -> Result<Option<Self>> {
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

    fn add(&mut self, hash: i32) {
        for (word, bit) in Self::places(hash) {
            if let Some(word) = self.0.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// Whether there may be look-ups with this hash.
    fn may_have(&self, hash: i32) -> bool {
        Self::places(hash).into_iter().all(|(word, bit)| self.0.get(word).is_none_or(|word| word & bit != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_look_ups_leave_few_free_pages() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("PRAGMA page_size = 8192; CREATE TABLE study (instance_count)").unwrap();
        for table in ["uid_lookup", "uid_lookup_recent", "uid_lookup_shared"] {
            let columns = "(hash INTEGER, instance_group INTEGER, PRIMARY KEY (hash, instance_group)) WITHOUT ROWID";
            connection.execute_batch(&format!("CREATE TABLE {table} {columns}")).unwrap();
        }
        let mut lookups = Lookups::new(&connection).unwrap();
        let hash_of = |n: i32| n.wrapping_mul(0x61C8_8647).rotate_left(7);
        // Large transactions, as when the disk is slow.
        for transaction in [0..45_000, 45_000..90_000, 90_000..100_000] {
            transaction.into_iter().for_each(|n| lookups.add(hash_of(n), i64::from(n)).unwrap());
            lookups.write().unwrap();
        }
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        let [all, moved] =
            ["uid_lookup_recent", "uid_lookup"].map(|table| count(&format!("SELECT count(*) FROM {table}")));
        assert_eq!(all + moved, 100_000);
        assert!(moved > 80_000, "{moved}");
        assert!(count("PRAGMA freelist_count") < 20);
        for n in [0, 44_999, 45_000, 99_999] {
            lookups.find(hash_of(n)).unwrap();
            assert_eq!(lookups.candidate(0), Some(i64::from(n)));
        }
    }

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
