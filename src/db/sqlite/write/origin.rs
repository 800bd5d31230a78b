//! Where instances come from, when, and the number of the change (docs/adr/0015).
//!
//! All of it stands at the instance group: an instance costs nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::super::schema::CHANGES_IN_BLOCK;
use super::{Batch, Result};
use crate::db::ReceivedFrom;

/// A source that was silent for longer begins a new arrival. Longer: arrivals of different reasons are one. Shorter: more
/// instance groups, of some 500 bytes each.
const LONGEST_PAUSE_MS: i64 = 10 * 60 * 1000;

/// An arrival ends after this time even if its source goes on. Longer: the time of an arrival says less. Shorter: more
/// instance groups.
const LONGEST_ARRIVAL_MS: i64 = 60 * 60 * 1000;

/// An arrival ends with its day, so that a search by day is exact.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Sources whose arrivals are remembered. A source takes some 100 bytes.
const REMEMBERED_SOURCES: usize = 4096;

/// Groups that enter one block at most. More: the last change takes longer to find. Fewer: shorter blocks for scans.
const GROUPS_IN_BLOCK: usize = 4096;

/// The numbers that this writer gives its changes. Only one writer gives numbers of a block, without another in between, so that
/// a later change has a higher number.
#[derive(Default)]
struct ChangeBlock {
    first: i64,
    /// The number that was given last.
    last: i64,
    /// Groups whose row has this block.
    groups: HashSet<i64>,
    is_open: bool,
}

impl ChangeBlock {
    /// The next number; `None` where a new block has to begin.
    fn next(&self) -> Option<i64> {
        let next = self.last + 1;
        (self.is_open && next - self.first < CHANGES_IN_BLOCK && self.groups.len() < GROUPS_IN_BLOCK).then_some(next)
    }
}

/// Who brings instances.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum SourceOfInstances {
    /// Nobody that is known.
    Unknown,
    /// A scan of this number.
    Scan(i64),
    /// A sender.
    Received(Arc<ReceivedFrom>),
}

/// An arrival that may go on.
struct OpenArrival {
    id: i64,
    first_ms: i64,
    last_ms: i64,
}

impl OpenArrival {
    fn goes_on(&self, now_ms: i64) -> bool {
        (0..LONGEST_PAUSE_MS).contains(&(now_ms - self.last_ms))
            && now_ms - self.first_ms < LONGEST_ARRIVAL_MS
            && now_ms.div_euclid(DAY_MS) == self.first_ms.div_euclid(DAY_MS)
    }
}

/// The source of what is being written, and the arrivals that may go on.
pub(super) struct Origins {
    source: SourceOfInstances,
    /// The arrival of the source, once it is known.
    current: Option<Option<i64>>,
    open: HashMap<SourceOfInstances, OpenArrival>,
    /// Whether what replaces an instance is an arrival of its own.
    renews: bool,
    block: ChangeBlock,
}

impl Default for Origins {
    fn default() -> Self {
        Self {
            source: SourceOfInstances::Unknown,
            current: None,
            open: HashMap::new(),
            renews: false,
            block: ChangeBlock::default(),
        }
    }
}

impl Origins {
    /// What follows comes from this source.
    pub(super) fn set(&mut self, source: SourceOfInstances) {
        self.current = None;
        if self.source != source {
            self.source = source;
        }
    }

    /// Says whether what replaces an instance is an arrival of its own. Otherwise it is a correction, and the instance came
    /// when it came.
    pub(super) fn renew(&mut self, renews: bool) {
        self.renews = renews;
    }

    /// Forgets arrivals: their rows may have been rolled back.
    pub(super) fn forget(&mut self) {
        self.open.clear();
        self.current = None;
        self.renews = false;
        self.end_block();
    }

    /// Notes that the row of an instance group has the block of the last change.
    pub(super) fn has_block_of_change(&mut self, instance_group: i64) {
        self.block.groups.insert(instance_group);
    }

    /// Another writer may have given numbers: those of this block must not follow them.
    pub(super) fn end_block(&mut self) {
        self.block = ChangeBlock::default();
    }
}

impl Batch<'_> {
    /// The arrival of what is being written. Its row is made when the first instance of it comes.
    pub(super) fn arrival(&mut self) -> Result<Option<i64>> {
        if let Some(known) = self.origin.current {
            return Ok(known);
        }
        let now_ms = self.clock.now_ms();
        if let Some(open) = self.origin.open.get_mut(&self.origin.source)
            && open.goes_on(now_ms)
        {
            open.last_ms = now_ms;
            self.origin.current = Some(Some(open.id));
            return Ok(Some(open.id));
        }
        let id = self.new_arrival(now_ms)?;
        if let Some(id) = id {
            if self.origin.open.len() >= REMEMBERED_SOURCES {
                self.origin.open.retain(|_, open| open.goes_on(now_ms));
            }
            if self.origin.open.len() >= REMEMBERED_SOURCES {
                self.origin.open.clear();
            }
            let arrival = OpenArrival { id, first_ms: now_ms, last_ms: now_ms };
            self.origin.open.insert(self.origin.source.clone(), arrival);
        }
        self.origin.current = Some(id);
        Ok(id)
    }

    fn new_arrival(&self, now_ms: i64) -> Result<Option<i64>> {
        const SQL: &str =
            "INSERT INTO arrival (kind, calling_ae_title, address, scan, first_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
        match &self.origin.source {
            SourceOfInstances::Unknown => return Ok(None),
            SourceOfInstances::Scan(scan) => self.statement(SQL)?.execute(params!["scan", "", "", scan, now_ms])?,
            SourceOfInstances::Received(from) => {
                let address = from.address.map(|address| address.to_string()).unwrap_or_default();
                let title = from.calling_ae_title.as_str();
                self.statement(SQL)?.execute(params!["c-store", title, address, None::<i64>, now_ms])?
            }
        };
        Ok(Some(self.connection.last_insert_rowid()))
    }

    /// The arrival of an instance that takes the place of one of this arrival.
    pub(super) fn arrival_in_place_of(&mut self, former: Option<i64>) -> Result<Option<i64>> {
        if self.origin.renews { self.arrival() } else { Ok(former) }
    }

    /// Has what is written until the next call belong to this arrival; which it belonged to before.
    pub(super) fn set_arrival(&mut self, arrival: Option<Option<i64>>) -> Option<Option<i64>> {
        std::mem::replace(&mut self.origin.current, arrival)
    }

    /// The number of the change that this transaction is.
    pub(super) fn change(&mut self) -> Result<i64> {
        if let Some(change) = self.changes.change {
            return Ok(change);
        }
        let change = match self.origin.block.next() {
            Some(change) => change,
            None => {
                let first = first_of_next_block(self.connection)?;
                self.origin.block = ChangeBlock { first, last: first, groups: HashSet::new(), is_open: true };
                first
            }
        };
        self.origin.block.last = change;
        self.changes.change = Some(change);
        Ok(change)
    }

    /// The first number of the block that [`Self::change`] is of.
    pub(super) fn change_block(&mut self) -> Result<i64> {
        self.change()?;
        Ok(self.origin.block.first)
    }

    /// Notes that an instance of a group is not as it was.
    pub(super) fn touch(&mut self, instance_group: i64) {
        self.changes.touched.insert(instance_group);
    }

    /// Counts the instances of the groups that have changed, and writes the number of the change.
    pub(super) fn write_instance_groups(&mut self) -> Result<()> {
        let mut counts = std::mem::take(&mut self.changes.instances_per_instance_group);
        for touched in self.changes.touched.drain() {
            counts.entry(touched).or_default();
        }
        if counts.is_empty() {
            return Ok(());
        }
        let (change, now_ms) = (self.change()?, self.clock.now_ms());
        let mut update = self.statement(
            "UPDATE instance_group SET instance_count = instance_count + ?2, change = ?3, changed_ms = ?4 WHERE id = ?1",
        )?;
        let mut enter = self.statement(
            "UPDATE instance_group SET instance_count = instance_count + ?2, change = ?3, changed_ms = ?4, \
             change_block = ?5 WHERE id = ?1",
        )?;
        for (id, count) in counts {
            if self.origin.block.groups.insert(id) {
                enter.execute(params![id, count, change, now_ms, self.origin.block.first])?;
            } else {
                update.execute(params![id, count, change, now_ms])?;
            }
        }
        Ok(())
    }

    /// Instance groups have gone: their numbers are not used again.
    pub(super) fn raise_change_floor(&mut self) -> Result<()> {
        let change = self.change()?;
        self.statement("UPDATE change_floor SET change = ?1")?.execute([change])?;
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

/// The first number of a block that begins after every number that was given out.
fn first_of_next_block(connection: &Connection) -> Result<i64> {
    let sql = "SELECT max(ifnull((SELECT max(change_block) FROM instance_group) + ?1, 1), \
               ifnull((SELECT change FROM change_floor), 0) + 1)";
    connection.prepare_cached(sql)?.query_row([CHANGES_IN_BLOCK], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrival_goes_on_within_its_day_and_hour_and_without_a_pause() {
        let noon = 12 * LONGEST_ARRIVAL_MS;
        let open = |first_ms, last_ms| OpenArrival { id: 1, first_ms, last_ms };
        assert!(open(noon, noon).goes_on(noon));
        assert!(open(noon, noon).goes_on(noon + LONGEST_PAUSE_MS - 1));
        assert!(!open(noon, noon).goes_on(noon + LONGEST_PAUSE_MS));
        assert!(!open(noon, noon + LONGEST_ARRIVAL_MS - 1).goes_on(noon + LONGEST_ARRIVAL_MS));
        assert!(!open(DAY_MS - 1, DAY_MS - 1).goes_on(DAY_MS));
        // A clock that was set back.
        assert!(!open(noon, noon).goes_on(noon - 1));
    }
}
