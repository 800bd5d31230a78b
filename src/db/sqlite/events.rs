//! Events, as the index has them: asked by a [`SqliteReader`], changed by the writer
//! (docs/adr/0042).

use std::time::Duration;

use rusqlite::vtab::array::Array;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::limits::CHANGES_IN_BLOCK;
use super::losses::losses;
use super::reader::SqliteReader;
use super::schema::EVENTS;
use super::sql_values::to_u64;
use super::write::{Batch, insert_events, last_change};
use super::writer::SqliteWriterHandle;
use crate::db::event_notes::{CompleteStudy, NewEvent, damaged, index_restored};
use crate::db::events::{DROPPED_AT_ONCE, EVENT_COLUMNS};
use crate::db::{
    ChangedStudy, DeliveryChanges, DeliveryCounts, Error, EventChanges, EventLimits, EventProgress, EventSearch,
    GivenNumbers, IndexEvent, StudyIdentifiers, WaitingEvent,
};
use crate::model::clock::Clock;

/// Forgets receivers that are not named and that nobody has served for a week: an event of that age
/// is still before them.
const FORGET_RECEIVERS: &str = "DELETE FROM event_receiver WHERE name NOT IN rarray(?1) AND EXISTS \
     (SELECT 1 FROM event v WHERE v.id > event_receiver.position AND v.at_ms < (unixepoch() - 7 * 86400) * 1000)";

impl SqliteReader {
    /// Whether the index has the tables of events. One for which none were recorded has none.
    fn knows_events(&self) -> Result<bool, Error> {
        Ok(EVENTS.are_in(&self.connection)?)
    }

    fn waiting(&self, condition: &str, parameters: impl rusqlite::Params) -> Result<Vec<WaitingEvent>, Error> {
        let sql = format!(
            "SELECT {EVENT_COLUMNS}, w.receiver, w.attempts, w.next_ms, w.until_ms, w.failure, w.is_dead FROM event_waiting w \
             JOIN event v ON v.id = w.event WHERE {condition}"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(parameters, |row| {
            Ok(WaitingEvent {
                event: event(row)?,
                receiver: row.get(6)?,
                attempts: row.get(7)?,
                next_ms: row.get(8)?,
                until_ms: row.get(9)?,
                failure: row.get(10)?,
                is_dead: row.get(11)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl EventSearch for SqliteReader {
    fn events_after(&mut self, after: i64, limit: usize) -> Result<Vec<IndexEvent>, Error> {
        if !self.knows_events()? {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT {EVENT_COLUMNS} FROM event v WHERE v.id > ?1 ORDER BY v.id LIMIT ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map([after, i64::try_from(limit).unwrap_or(i64::MAX)], event)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn last_event(&mut self) -> Result<i64, Error> {
        if !self.knows_events()? {
            return Ok(0);
        }
        let sql = "SELECT ifnull(max(id), 0) FROM event";
        Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    fn event_position(&mut self, receiver: &str) -> Result<Option<i64>, Error> {
        let sql = "SELECT position FROM event_receiver WHERE name = ?1";
        Ok(self.connection.prepare_cached(sql)?.query_row([receiver], |row| row.get(0)).optional()?)
    }

    fn due_events(&mut self, receiver: &str, now_ms: i64, limit: usize) -> Result<Vec<WaitingEvent>, Error> {
        self.waiting(
            "w.receiver = ?1 AND NOT w.is_dead AND w.next_ms <= ?2 AND (w.study_instance_uid = '' OR NOT EXISTS \
             (SELECT 1 FROM event_waiting o WHERE o.receiver = w.receiver AND NOT o.is_dead \
             AND o.study_instance_uid = w.study_instance_uid AND o.event < w.event)) ORDER BY w.event LIMIT ?3",
            params![receiver, now_ms, i64::try_from(limit).unwrap_or(i64::MAX)],
        )
    }

    fn event_waits(&mut self, receiver: &str, study_instance_uid: &str) -> Result<bool, Error> {
        let sql = "SELECT EXISTS (SELECT 1 FROM event_waiting WHERE receiver = ?1 AND is_dead = 0 \
                   AND study_instance_uid = ?2)";
        Ok(self.connection.prepare_cached(sql)?.query_row([receiver, study_instance_uid], |row| row.get(0))?)
    }

    fn failed_events(&mut self) -> Result<Vec<WaitingEvent>, Error> {
        if !self.knows_events()? {
            return Ok(Vec::new());
        }
        self.waiting("w.attempts > 0 OR w.is_dead ORDER BY w.receiver, w.event", [])
    }

    fn event_progress(&mut self) -> Result<EventProgress, Error> {
        if !self.knows_events()? {
            return Ok(EventProgress::default());
        }
        let mut statement =
            self.connection.prepare_cached("SELECT name, position FROM event_receiver ORDER BY name")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let receivers = rows.collect::<rusqlite::Result<_>>()?;
        Ok(EventProgress { receivers, waiting: self.waiting("1 ORDER BY w.receiver, w.event", [])? })
    }

    fn delivery_counts(&mut self, receiver: &str) -> Result<DeliveryCounts, Error> {
        let sql = "SELECT ifnull((SELECT max(id) FROM event), 0) - ifnull((SELECT position FROM event_receiver \
                   WHERE name = ?1), 0) + (SELECT count(*) FROM event_waiting WHERE receiver = ?1 AND is_dead = 0), \
                   (SELECT count(*) FROM event_waiting WHERE receiver = ?1 AND is_dead = 1)";
        let counts = |row: &Row<'_>| Ok(DeliveryCounts { waiting: to_u64(row.get(0)?), dead: to_u64(row.get(1)?) });
        Ok(self.connection.prepare_cached(sql)?.query_row([receiver], counts)?)
    }

    fn told_change(&mut self) -> Result<Option<u64>, Error> {
        let sql = "SELECT change FROM event_cursor WHERE id = 0";
        let change: Option<i64> = self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
        Ok(change.map(to_u64))
    }

    fn studies_changed_after(&mut self, change: u64) -> Result<Vec<ChangedStudy>, Error> {
        let sql = format!(
            "SELECT study, max(change), max(changed_ms) FROM (\
             SELECT e.study, h.change, ifnull(h.changed_ms, 0) AS changed_ms FROM instance_group h \
             JOIN study_series e ON e.id = h.series WHERE h.change_block > ?2 AND h.change > ?1 \
             UNION ALL SELECT id, change, changed_ms FROM {} WHERE level = 'STUDY' AND change > ?1) GROUP BY study",
            losses(&self.connection)?
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let after = i64::try_from(change).unwrap_or(i64::MAX);
        let rows = statement.query_map([after, after.saturating_sub(CHANGES_IN_BLOCK)], |row| {
            Ok(ChangedStudy { study: row.get(0)?, change: to_u64(row.get(1)?), changed_ms: row.get(2)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn identifiers_of_study(&mut self, study_instance_uid: &str) -> Result<Option<StudyIdentifiers>, Error> {
        let sql = "SELECT p.patient_id, p.issuer_of_patient_id, s.accession_number FROM study s \
                   JOIN patient p ON p.id = s.patient WHERE s.study_instance_uid = ?1";
        let read = |row: &Row<'_>| {
            Ok(StudyIdentifiers {
                patient_id: row.get(0)?,
                issuer_of_patient_id: row.get(1)?,
                accession_number: row.get(2)?,
            })
        };
        Ok(self.connection.prepare_cached(sql)?.query_row([study_instance_uid], read).optional()?)
    }
}

impl SqliteWriterHandle {
    /// Runs `work` in a transaction, with the tables of events.
    fn change_events<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.maintain(move |batch| {
            EVENTS.make(batch.connection())?;
            work(batch)
        })
    }

    /// Gives no number again that may have been given before the index was restored or built anew.
    /// An event says so, and keeps the numbers of events.
    ///
    /// # Errors
    /// That of the writer.
    pub fn raise_numbers(&self, cause: &'static str, given: GivenNumbers, now_ms: i64) -> Result<(), Error> {
        self.change_events(move |batch| {
            let last = last_change(batch.connection())?;
            let given_change = i64::try_from(given.change).unwrap_or(i64::MAX);
            batch.skip_changes(given_change.saturating_sub(last).max(0))?;
            let last_event: i64 =
                batch.connection().query_row("SELECT ifnull(max(id), 0) FROM event", [], |row| row.get(0))?;
            let NewEvent { kind, study_instance_uid, content } = index_restored(cause, last);
            let id = last_event.max(given.event).saturating_add(1);
            let kind = kind.as_str().to_owned();
            put_events(
                batch.connection(),
                &[IndexEvent { id, at_ms: now_ms, kind, study_instance_uid, change: 0, content }],
            )
        })
    }

    /// Writes events of another index, with their numbers.
    pub(super) fn put_events(&self, events: Vec<IndexEvent>) -> Result<(), Error> {
        self.change_events(move |batch| put_events(batch.connection(), &events))
    }

    /// Writes what receivers have got of those events.
    pub(super) fn put_progress(&self, progress: EventProgress) -> Result<(), Error> {
        match progress == EventProgress::default() {
            true => Ok(()),
            false => self.change_events(move |batch| put_progress(batch.connection(), &progress)),
        }
    }
}

impl EventChanges for SqliteWriterHandle {
    fn begin_telling(&self) -> Result<(), Error> {
        self.change_events(|batch| {
            let last = last_change(batch.connection())?;
            let sql = "INSERT OR IGNORE INTO event_cursor (id, change) VALUES (0, ?1)";
            batch.connection().prepare_cached(sql)?.execute([last])?;
            Ok(())
        })
    }

    fn tell_studies(&self, studies: Vec<ChangedStudy>, told: u64, clock: Clock) -> Result<(), Error> {
        self.change_events(move |batch| {
            let connection = batch.connection();
            for study in &studies {
                tell_study(connection, study, clock.now_ms())?;
            }
            let told = i64::try_from(told).unwrap_or(i64::MAX);
            let sql = "UPDATE event_cursor SET change = max(change, ?1) WHERE id = 0";
            connection.prepare_cached(sql)?.execute([told])?;
            Ok(())
        })
    }

    fn tell_damaged(&self, sop_instance_uids: Vec<String>, clock: Clock) -> Result<Vec<String>, Error> {
        self.change_events(move |batch| {
            let mut unknown = Vec::new();
            for uid in sop_instance_uids {
                let Some((study, series)) = batch.parents_of(&uid)? else {
                    unknown.push(uid);
                    continue;
                };
                insert_events(batch.connection(), (0, clock.now_ms()), &[damaged(study, &series, &uid)])?;
            }
            Ok(unknown)
        })
    }

    /// Another node on the index may have receivers of its own.
    fn keep_receivers(&self, names: Vec<String>) -> Result<u64, Error> {
        self.change_events(move |batch| {
            let connection = batch.connection();
            let list = Array::new(names.into_iter().map(Into::into).collect());
            let forgotten = connection.prepare_cached(FORGET_RECEIVERS)?.execute([&list])?;
            for sql in [
                "DELETE FROM event_waiting WHERE receiver NOT IN rarray(?1) \
                 AND receiver NOT IN (SELECT name FROM event_receiver)",
                "INSERT OR IGNORE INTO event_receiver (name, position) \
                 SELECT value, ifnull((SELECT max(id) FROM event), 0) FROM rarray(?1)",
            ] {
                connection.prepare_cached(sql)?.execute([&list])?;
            }
            Ok(u64::try_from(forgotten).unwrap_or(u64::MAX))
        })
    }

    /// An index file has one node.
    fn hold_receiver(&self, _receiver: &str, _holder: &str, _lease: Duration) -> Result<bool, Error> {
        Ok(true)
    }

    fn note_deliveries(&self, receiver: String, _holder: &str, changes: DeliveryChanges) -> Result<bool, Error> {
        self.change_events(move |batch| {
            let connection = batch.connection();
            for event in &changes.delivered {
                connection
                    .prepare_cached("DELETE FROM event_waiting WHERE receiver = ?1 AND event = ?2")?
                    .execute(params![receiver, event])?;
            }
            for waiting in &changes.waiting {
                put_waiting(connection, &receiver, waiting)?;
            }
            if let Some(position) = changes.position {
                connection
                    .prepare_cached("UPDATE event_receiver SET position = max(position, ?2) WHERE name = ?1")?
                    .execute(params![receiver, position])?;
            }
            Ok(true)
        })
    }

    fn retry_events(
        &self,
        receiver: Option<String>,
        events: Vec<i64>,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<u64, Error> {
        self.change_events(move |batch| {
            let all = events.is_empty();
            let list = Array::new(events.into_iter().map(Into::into).collect());
            let revived = batch
                .connection()
                .prepare_cached(
                    "UPDATE event_waiting SET is_dead = 0, attempts = 0, next_ms = ?3, until_ms = ?4 WHERE is_dead = 1 \
                     AND (?1 IS NULL OR receiver = ?1) \
                     AND (?5 OR event IN rarray(?2))",
                )?
                .execute(params![receiver, list, now_ms, until_ms, all])?;
            Ok(u64::try_from(revived).unwrap_or(u64::MAX))
        })
    }

    fn drop_events(&self, limits: EventLimits) -> Result<u64, Error> {
        let mut lost = 0;
        loop {
            let (dropped, unsettled) = self.change_events(move |batch| drop_some(batch.connection(), limits))?;
            lost += to_u64(unsettled);
            if dropped < DROPPED_AT_ONCE {
                return Ok(lost);
            }
        }
    }
}

/// Records that a study is complete, unless it is gone, has changed again, or was told already.
fn tell_study(connection: &Connection, told: &ChangedStudy, now_ms: i64) -> rusqlite::Result<()> {
    let change = i64::try_from(told.change).unwrap_or(i64::MAX);
    let sql = format!(
        "SELECT study_instance_uid, series_count, instance_count, modalities_in_study FROM study WHERE id = ?1 \
         AND max((SELECT max(h.change) FROM study_series e JOIN instance_group h ON h.series = e.id WHERE e.study = ?1), \
         ifnull((SELECT change FROM {} WHERE level = 'STUDY' AND id = ?1), 0)) = ?2 \
         AND NOT EXISTS (SELECT 1 FROM event v WHERE v.kind = 'study-complete' \
         AND v.study_instance_uid = study.study_instance_uid AND v.change >= ?2)",
        losses(connection)?
    );
    let found = connection
        .prepare_cached(&sql)?
        .query_row([told.study, change], |row| {
            let [series, instances]: [i64; 2] = [row.get(1)?, row.get(2)?];
            Ok((row.get::<_, String>(0)?, series, instances, row.get::<_, String>(3)?))
        })
        .optional()?;
    let Some((study_instance_uid, series, instances, modalities)) = found else { return Ok(()) };
    let mut senders = connection.prepare_cached(
        "SELECT DISTINCT a.kind, a.calling_ae_title FROM study_series e JOIN instance_group h ON h.series = e.id \
         JOIN arrival a ON a.id = h.arrival WHERE e.study = ?1 ORDER BY 1, 2",
    )?;
    let senders =
        senders.query_map([told.study], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let modalities = modalities.split('\\').filter(|text| !text.is_empty()).map(str::to_owned).collect();
    let complete = CompleteStudy { study_instance_uid, series, instances, modalities, senders };
    insert_events(connection, (change, now_ms), &[complete.event()])
}

fn put_waiting(connection: &Connection, receiver: &str, waiting: &WaitingEvent) -> rusqlite::Result<()> {
    let WaitingEvent { event, attempts, next_ms, until_ms, failure, is_dead, .. } = waiting;
    let study = &event.study_instance_uid;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO event_waiting (receiver, event, study_instance_uid, attempts, next_ms, \
             until_ms, failure, is_dead) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![receiver, event.id, study, attempts, next_ms, until_ms, failure, is_dead])?;
    Ok(())
}

fn put_events(connection: &Connection, events: &[IndexEvent]) -> rusqlite::Result<()> {
    for IndexEvent { id, at_ms, kind, study_instance_uid, change, content } in events {
        let change = i64::try_from(*change).unwrap_or(i64::MAX);
        connection
            .prepare_cached(
                "INSERT INTO event (id, at_ms, kind, study_instance_uid, change, content) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![id, at_ms, kind, study_instance_uid, change, content])?;
    }
    Ok(())
}

fn put_progress(connection: &Connection, progress: &EventProgress) -> rusqlite::Result<()> {
    for (name, position) in &progress.receivers {
        connection
            .prepare_cached("INSERT INTO event_receiver (name, position) VALUES (?1, ?2)")?
            .execute(params![name, position])?;
    }
    progress.waiting.iter().try_for_each(|waiting| put_waiting(connection, &waiting.receiver, waiting))
}

/// Drops some events that may go. Returns how many, and how many of them were not settled.
fn drop_some(connection: &Connection, limits: EventLimits) -> rusqlite::Result<(i64, i64)> {
    let max = i64::try_from(limits.max_events).unwrap_or(i64::MAX);
    // Only the oldest are looked at: a look at all of them would read the whole table. Numbers may
    // be left out, so the events are counted where the numbers say that there may be too many.
    let list: Vec<(i64, bool)> = connection
        .prepare_cached(
            "SELECT v.id, v.id > ifnull((SELECT min(position) FROM event_receiver), v.id) \
             OR EXISTS (SELECT 1 FROM event_waiting w WHERE w.event = v.id AND w.is_dead = 0) AS unsettled \
             FROM (SELECT id, at_ms FROM event ORDER BY id LIMIT ?3) v WHERE v.id < (SELECT max(id) FROM event) \
             AND ((v.id <= (SELECT max(id) FROM event) - ?2 \
             AND v.id <= (SELECT id FROM event ORDER BY id DESC LIMIT 1 OFFSET ?2)) \
             OR (v.at_ms < ?1 AND NOT unsettled))",
        )?
        .query_map([limits.keep_after_ms, max, DROPPED_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (id, _) in &list {
        connection.prepare_cached("DELETE FROM event WHERE id = ?1")?.execute([id])?;
    }
    if !list.is_empty() {
        let sql = "DELETE FROM event_waiting WHERE event NOT IN (SELECT id FROM event)";
        connection.prepare_cached(sql)?.execute([])?;
    }
    let count = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    Ok((count(list.len()), count(list.iter().filter(|(_, unsettled)| *unsettled).count())))
}

fn event(row: &Row<'_>) -> rusqlite::Result<IndexEvent> {
    Ok(IndexEvent {
        id: row.get(0)?,
        at_ms: row.get(1)?,
        kind: row.get(2)?,
        study_instance_uid: row.get(3)?,
        change: to_u64(row.get(4)?),
        content: row.get(5)?,
    })
}
