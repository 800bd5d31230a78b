//! Arrivals and changes as rows of what is written.

use rusqlite::params;

use super::batch::Batch;
use super::origins::{ChangeBlock, OpenArrival, REMEMBERED_SOURCES, SourceOfInstances, first_of_next_block};
use super::rows::Result;

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
                self.origin.block = ChangeBlock::beginning_with(first);
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
