//! Where instances come from, when, and the number of the change (docs/adr/0015).
//!
//! All of it stands at the instance group: an instance costs nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::Connection;

use super::super::limits::CHANGES_IN_BLOCK;
use super::rows::Result;
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
pub(super) const REMEMBERED_SOURCES: usize = 4096;

/// Groups that enter one block at most. More: the last change takes longer to find. Fewer: shorter blocks for scans.
const GROUPS_IN_BLOCK: usize = 4096;

/// The numbers that this writer gives its changes. Only one writer gives numbers of a block, without another in between, so that
/// a later change has a higher number.
#[derive(Default)]
pub(super) struct ChangeBlock {
    /// 0 where no block has begun: numbers begin with 1.
    pub(super) first: i64,
    /// The number that was given last.
    pub(super) last: i64,
    /// Groups whose row has this block.
    pub(super) groups: HashSet<i64>,
}

impl ChangeBlock {
    /// A block of which the first number has been given.
    pub(super) fn beginning_with(first: i64) -> Self {
        Self { first, last: first, groups: HashSet::new() }
    }

    /// The next number; `None` where a new block has to begin.
    pub(super) fn next(&self) -> Option<i64> {
        let next = self.last + 1;
        (self.first > 0 && next - self.first < CHANGES_IN_BLOCK && self.groups.len() < GROUPS_IN_BLOCK).then_some(next)
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
pub(super) struct OpenArrival {
    pub(super) id: i64,
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
}

impl OpenArrival {
    pub(super) fn goes_on(&self, now_ms: i64) -> bool {
        (0..LONGEST_PAUSE_MS).contains(&(now_ms - self.last_ms))
            && now_ms - self.first_ms < LONGEST_ARRIVAL_MS
            && now_ms.div_euclid(DAY_MS) == self.first_ms.div_euclid(DAY_MS)
    }
}

/// The source of what is being written, and the arrivals that may go on.
pub(super) struct Origins {
    pub(super) source: SourceOfInstances,
    /// The arrival of the source, once it is known.
    pub(super) current: Option<Option<i64>>,
    pub(super) open: HashMap<SourceOfInstances, OpenArrival>,
    /// Whether what replaces an instance is an arrival of its own.
    pub(super) renews: bool,
    pub(super) block: ChangeBlock,
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

/// The number of the last change.
pub(in super::super) fn last_change(connection: &Connection) -> Result<i64> {
    let sql = "SELECT max(ifnull((SELECT max(change) FROM instance_group \
               WHERE change_block = (SELECT max(change_block) FROM instance_group)), 0), \
               ifnull((SELECT change FROM change_floor), 0))";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// The first number of a block that begins after every number that was given out.
pub(super) fn first_of_next_block(connection: &Connection) -> Result<i64> {
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
