//! Source of instances, time of their arrival, and number of the change (docs/adr/0015).
//!
//! An instance group has all of it, so that an instance costs nothing.

use foldhash::{HashMap, HashSet};
use rusqlite::{Connection, params};

use super::super::limits::CHANGES_IN_BLOCK;
use super::rows::Result;
use crate::db::arrival::{ArrivalSource, OpenArrivals, SourceOfInstances};
use crate::model::clock::Clock;

/// Most groups that enter one block. Larger: the last change takes longer to find. Smaller: shorter
/// blocks for scans.
const GROUPS_IN_BLOCK: usize = 4096;

/// The numbers that this writer gives to its changes.
///
/// One writer alone gives the numbers of a block. Another writer begins a new one, so that a later
/// change has a higher number.
#[derive(Default)]
struct ChangeBlock {
    /// 0 while no block has begun, because numbers begin with 1.
    first: i64,
    /// The number that was given last.
    last: i64,
    /// Groups whose row has this block.
    groups: HashSet<i64>,
}

impl ChangeBlock {
    /// A block whose first number is given.
    fn beginning_with(first: i64) -> Self {
        Self { first, last: first, groups: HashSet::default() }
    }

    /// The next number. `None` if a new block has to begin.
    fn next(&self) -> Option<i64> {
        let next = self.last + 1;
        (self.first > 0 && next - self.first < CHANGES_IN_BLOCK && self.groups.len() < GROUPS_IN_BLOCK).then_some(next)
    }
}

/// The source of what is being written, its arrival, and the number of the change.
pub(super) struct Origins<'c> {
    connection: &'c Connection,
    clock: Clock,
    source: SourceOfInstances,
    /// The arrival of the source, once it is known.
    current: Option<Option<i64>>,
    /// Arrivals that may go on.
    open: OpenArrivals,
    /// Whether an instance that replaces another one is an arrival of its own.
    renews: bool,
    block: ChangeBlock,
    /// The number of the change that the transaction makes, once it is known.
    change: Option<i64>,
    /// Instance groups with an instance that has changed.
    touched: HashSet<i64>,
}

impl<'c> Origins<'c> {
    pub(super) fn new(connection: &'c Connection, clock: Clock) -> Self {
        Self {
            connection,
            clock,
            source: SourceOfInstances::Unknown,
            current: None,
            open: OpenArrivals::default(),
            renews: false,
            block: ChangeBlock::default(),
            change: None,
            touched: HashSet::default(),
        }
    }

    /// Sets the source of what follows.
    pub(super) fn set(&mut self, source: SourceOfInstances) {
        self.current = None;
        if self.source != source {
            self.source = source;
        }
    }

    /// Sets the arrival of what follows.
    pub(super) fn set_arrival(&mut self, arrival: Option<i64>) {
        self.current = Some(arrival);
    }

    /// Says whether an instance that replaces another one is an arrival of its own. Otherwise it is
    /// a correction, and keeps the arrival of the former one.
    pub(super) fn renew(&mut self, renews: bool) {
        self.renews = renews;
    }

    /// Forgets what a transaction that was rolled back has changed. That includes rows of arrivals.
    pub(super) fn roll_back(&mut self) {
        self.open.clear();
        self.current = None;
        self.renews = false;
        self.change = None;
        self.touched.clear();
        self.end_block();
    }

    /// Ends the block of numbers, because another writer may have given higher ones.
    pub(super) fn end_block(&mut self) {
        self.block = ChangeBlock::default();
    }

    /// The arrival of what is being written. Its row is made with its first instance.
    pub(super) fn arrival(&mut self) -> Result<Option<i64>> {
        if let Some(known) = self.current {
            return Ok(known);
        }
        let now_ms = self.clock.now_ms();
        let id = match self.open.going_on(&self.source, now_ms) {
            Some(id) => Some(id),
            None => self.new_arrival(now_ms)?,
        };
        self.current = Some(id);
        Ok(id)
    }

    fn new_arrival(&mut self, now_ms: i64) -> Result<Option<i64>> {
        let Some(ArrivalSource { kind, calling_ae_title, address, scan }) = self.source.told() else { return Ok(None) };
        self.connection
            .prepare_cached(
                "INSERT INTO arrival (kind, calling_ae_title, address, scan, first_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![kind, calling_ae_title, address, scan, now_ms])?;
        let id = self.connection.last_insert_rowid();
        self.open.begin(self.source.clone(), id, now_ms);
        Ok(Some(id))
    }

    /// Has what follows belong to the arrival of an instance that replaces one of the arrival
    /// `former`. Returns what it belonged to before.
    pub(super) fn begin_replacing(&mut self, former: Option<i64>) -> Result<Option<Option<i64>>> {
        let arrival = if self.renews { self.arrival()? } else { former };
        Ok(self.current.replace(arrival))
    }

    /// Goes back to the arrival that [`Self::begin_replacing`] returned.
    pub(super) fn end_replacing(&mut self, current: Option<Option<i64>>) {
        self.current = current;
    }

    /// The number of the change that this transaction is, and the first number of its block.
    pub(super) fn change(&mut self) -> Result<(i64, i64)> {
        if let Some(change) = self.change {
            return Ok((change, self.block.first));
        }
        let change = match self.block.next() {
            Some(change) => change,
            None => {
                let first = first_of_next_block(self.connection)?;
                self.block = ChangeBlock::beginning_with(first);
                first
            }
        };
        self.block.last = change;
        self.change = Some(change);
        Ok((change, self.block.first))
    }

    /// The number of the change that this transaction is, and its time.
    pub(super) fn change_and_time(&mut self) -> Result<(i64, i64)> {
        Ok((self.change()?.0, self.clock.now_ms()))
    }

    /// The number of the change that this transaction is. It is 0 if it changes no instance group.
    pub(super) fn change_so_far(&self) -> i64 {
        self.change.unwrap_or(0)
    }

    /// Ends the change of this transaction.
    pub(super) fn end_change(&mut self) {
        self.change = None;
    }

    /// Notes that the row of an instance group was written with the block of the change.
    pub(super) fn note_new_group(&mut self, instance_group: i64) {
        self.block.groups.insert(instance_group);
    }

    /// Notes that an instance of a group has changed.
    pub(super) fn touch(&mut self, instance_group: i64) {
        self.touched.insert(instance_group);
    }

    /// Writes the numbers of instances of the groups that have changed, and the number of the
    /// change.
    pub(super) fn write_groups(&mut self, counts: &mut HashMap<i64, i64>) -> Result<()> {
        for touched in self.touched.drain() {
            counts.entry(touched).or_default();
        }
        if counts.is_empty() {
            return Ok(());
        }
        let ((change, block), now_ms) = (self.change()?, self.clock.now_ms());
        let mut update = self.connection.prepare_cached(
            "UPDATE instance_group SET instance_count = instance_count + ?2, change = ?3, changed_ms = ?4 WHERE id = ?1",
        )?;
        let mut enter = self.connection.prepare_cached(
            "UPDATE instance_group SET instance_count = instance_count + ?2, change = ?3, changed_ms = ?4, \
             change_block = ?5 WHERE id = ?1",
        )?;
        for (id, count) in counts.drain() {
            if self.block.groups.insert(id) {
                enter.execute(params![id, count, change, now_ms, block])?;
            } else {
                update.execute(params![id, count, change, now_ms])?;
            }
        }
        Ok(())
    }

    /// Leaves out so many numbers.
    pub(super) fn skip_changes(&mut self, numbers: i64) -> Result<()> {
        let floor = last_change(self.connection)?.saturating_add(numbers);
        self.connection.prepare_cached("UPDATE change_floor SET change = ?1")?.execute([floor])?;
        self.end_block();
        Ok(())
    }

    /// Keeps the numbers of instance groups that are gone from being used again.
    pub(super) fn raise_change_floor(&mut self) -> Result<()> {
        let (change, _) = self.change()?;
        self.connection.prepare_cached("UPDATE change_floor SET change = ?1")?.execute([change])?;
        Ok(())
    }
}

/// The number of the last change.
pub(in super::super) fn last_change(connection: &Connection) -> Result<i64> {
    let sql = "SELECT max(ifnull((SELECT max(change) FROM instance_group \
               WHERE change_block = (SELECT max(change_block) FROM instance_group)), 0), \
               ifnull((SELECT change FROM change_floor), 0))";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// The first number of a block that begins after every number that was given.
fn first_of_next_block(connection: &Connection) -> Result<i64> {
    let sql = "SELECT max(ifnull((SELECT max(change_block) FROM instance_group) + ?1, 1), \
               ifnull((SELECT change FROM change_floor), 0) + 1)";
    connection.prepare_cached(sql)?.query_row([CHANGES_IN_BLOCK], |row| row.get(0))
}
