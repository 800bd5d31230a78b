//! Events, as the index has them: asked by a [`PostgresReader`], changed by the writer
//! (docs/adr/0051).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_postgres::Row;

use super::admin::LAST_CHANGE;
use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::event_rows::{ToldChange, insert_events, put_waiting};
use super::flight::SqlParameter;
use super::keys::{RowKey, from_column, limit_of, to_i64, to_u64};
use super::load;
use super::nodes::ahead_ms;
use super::reader::PostgresReader;
use super::writer::PostgresWriterHandle;
use crate::db::event_notes::{CompleteStudy, NewEvent, damaged, index_restored};
use crate::db::events::{DROPPED_AT_ONCE, EVENT_COLUMNS};
use crate::db::{
    ChangedStudy, DeliveryChanges, DeliveryCounts, Error, EventChanges, EventLimits, EventProgress, EventSearch,
    GivenNumbers, IndexEvent, StudyIdentifiers, WaitingEvent,
};
use crate::model::attribute::AttributeId::{Modality, SeriesInstanceUID, StudyInstanceUID};
use crate::model::clock::Clock;

/// The last event that no earlier one can follow. Transactions that still run have higher numbers.
const SETTLED: &str = "(SELECT (change_base + pg_snapshot_xmin(pg_current_snapshot())::text::bigint) * 16384 - 1 \
     FROM dcmdex_index)";

/// Studies that one transaction tells. Their instance groups are read for it.
const TOLD_AT_ONCE: usize = 200;

/// Number of the lock under which events are recorded that no single change makes: "dcmdex" in
/// ASCII, and 256. Without it, two nodes would tell some twice.
const TELLING_LOCK: i64 = 0x6463_6D64_6578 + 0x100;

impl PostgresReader {
    fn ask_of_events<T: Default>(
        &mut self,
        question: impl FnMut(&mut ServerConnection) -> Result<T, ServerFailure>,
    ) -> Result<T, Error> {
        self.ask_of_table("event_waiting", question)
    }

    fn events_up_to(&mut self, last: &str, after: i64, limit: usize) -> Result<Vec<IndexEvent>, Error> {
        let sql =
            format!("SELECT {EVENT_COLUMNS} FROM event v WHERE v.id > $1 AND v.id <= {last} ORDER BY v.id LIMIT $2");
        self.ask_of_events(|connection| {
            connection.query(&sql, &[&after, &limit_of(limit)])?.iter().map(event_of).collect()
        })
    }

    /// A page of all events after a number, also of those that an earlier one may follow.
    pub(in crate::db) fn copied_events_after(&mut self, after: i64, limit: usize) -> Result<Vec<IndexEvent>, Error> {
        self.events_up_to("(SELECT max(id) FROM event)", after, limit)
    }

    fn waiting(&mut self, condition: &str, parameters: &[SqlParameter<'_>]) -> Result<Vec<WaitingEvent>, Error> {
        let sql = format!(
            "SELECT {EVENT_COLUMNS}, w.receiver, w.attempts, w.next_ms, w.until_ms, w.failure, w.is_dead FROM event_waiting w \
             JOIN event v ON v.id = w.event WHERE {condition}"
        );
        let waiting_of = |row: &Row| {
            Ok(WaitingEvent {
                event: event_of(row)?,
                receiver: row.try_get(6)?,
                attempts: u32::try_from(row.try_get::<_, i64>(7)?).unwrap_or(u32::MAX),
                next_ms: row.try_get(8)?,
                until_ms: row.try_get(9)?,
                failure: from_column(row.try_get(10)?),
                is_dead: row.try_get(11)?,
            })
        };
        self.ask_of_events(|connection| connection.query(&sql, parameters)?.iter().map(waiting_of).collect())
    }
}

impl EventSearch for PostgresReader {
    fn events_after(&mut self, after: i64, limit: usize) -> Result<Vec<IndexEvent>, Error> {
        self.events_up_to(SETTLED, after, limit)
    }

    fn last_event(&mut self) -> Result<i64, Error> {
        let sql = format!("SELECT coalesce(max(id), 0) FROM event WHERE id <= {SETTLED}");
        self.ask_of_events(|connection| Ok(connection.query_one(&sql, &[])?.try_get(0)?))
    }

    fn event_position(&mut self, receiver: &str) -> Result<Option<i64>, Error> {
        self.ask_of_events(|connection| {
            let row = connection.query_opt("SELECT position FROM event_receiver WHERE name = $1", &[&receiver])?;
            Ok(row.map(|row| row.try_get(0)).transpose()?)
        })
    }

    fn due_events(&mut self, receiver: &str, now_ms: i64, limit: usize) -> Result<Vec<WaitingEvent>, Error> {
        self.waiting(
            "w.receiver = $1 AND NOT w.is_dead AND w.next_ms <= $2 AND (v.study_instance_uid = '' OR NOT EXISTS \
             (SELECT FROM event_waiting o WHERE o.receiver = w.receiver AND NOT o.is_dead \
             AND o.study_key = w.study_key AND o.event < w.event)) ORDER BY w.event LIMIT $3",
            &[&receiver, &now_ms, &limit_of(limit)],
        )
    }

    fn event_waits(&mut self, receiver: &str, study_instance_uid: &str) -> Result<bool, Error> {
        let sql = "SELECT EXISTS (SELECT FROM event_waiting WHERE receiver = $1 AND NOT is_dead AND study_key = $2)";
        let key = RowKey::of_uid(study_instance_uid);
        self.ask_of_events(|connection| Ok(connection.query_one(sql, &[&receiver, &key])?.try_get(0)?))
    }

    fn failed_events(&mut self) -> Result<Vec<WaitingEvent>, Error> {
        self.waiting("w.attempts > 0 OR w.is_dead ORDER BY w.receiver, w.event", &[])
    }

    fn event_progress(&mut self) -> Result<EventProgress, Error> {
        let receivers = self.ask_of_events(|connection| {
            let rows =
                connection.query("SELECT name, position FROM event_receiver ORDER BY name COLLATE \"C\"", &[])?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
        })?;
        Ok(EventProgress { receivers, waiting: self.waiting("true ORDER BY w.receiver COLLATE \"C\", w.event", &[])? })
    }

    fn delivery_counts(&mut self, receiver: &str) -> Result<DeliveryCounts, Error> {
        let sql = "SELECT (SELECT count(*) FROM event v JOIN event_receiver r ON r.name = $1 AND v.id > r.position) \
                   + count(*) FILTER (WHERE NOT is_dead), count(*) FILTER (WHERE is_dead) \
                   FROM event_waiting WHERE receiver = $1";
        self.ask_of_events(|connection| {
            let row = connection.query_one(sql, &[&receiver])?;
            Ok(DeliveryCounts { waiting: to_u64(row.try_get(0)?), dead: to_u64(row.try_get(1)?) })
        })
    }

    fn told_change(&mut self) -> Result<Option<u64>, Error> {
        self.ask_of_events(|connection| {
            let row = connection.query_opt("SELECT change FROM event_cursor", &[])?;
            Ok(row.map(|row| row.try_get(0)).transpose()?.map(to_u64))
        })
    }

    fn studies_changed_after(&mut self, change: u64) -> Result<Vec<ChangedStudy>, Error> {
        // Times of the server tell how long ago it was, whatever the clock of this node says.
        self.ask(|connection| {
            let lost = match connection.has_table("loss")? {
                true => "UNION ALL SELECT study, change, changed_ms FROM loss WHERE level = 'STUDY' AND change > $1",
                false => "",
            };
            let sql = format!(
                "SELECT study, max(change), (extract(epoch FROM clock_timestamp()) * 1000)::bigint - max(changed_ms) \
                 FROM (SELECT study, change, changed_ms FROM shelf WHERE change > $1 \
                 AND change_block >= $1 - $1 % 4096 {lost}) h WHERE change <= ({LAST_CHANGE}) GROUP BY study"
            );
            let now_ms = Clock::System.now_ms();
            let changed_of = |row: &Row| {
                let changed_ms = now_ms - row.try_get::<_, i64>(2)?;
                Ok(ChangedStudy { study: row.try_get(0)?, change: to_u64(row.try_get(1)?), changed_ms })
            };
            connection.query(&sql, &[&to_i64(change)])?.iter().map(changed_of).collect()
        })
    }

    fn identifiers_of_study(&mut self, study_instance_uid: &str) -> Result<Option<StudyIdentifiers>, Error> {
        let sql = "SELECT p.patient_id, p.issuer, s.accession_number FROM study s \
                   JOIN study_patient p ON p.study = s.id AND p.position = 0 WHERE s.uid_key = $1";
        let key = RowKey::of_uid(study_instance_uid);
        let identifiers_of = |row: Row| {
            Ok(StudyIdentifiers {
                patient_id: from_column(row.try_get(0)?),
                issuer_of_patient_id: from_column(row.try_get(1)?),
                accession_number: from_column(row.try_get(2)?),
            })
        };
        self.ask(|connection| connection.query_opt(sql, &[&key])?.map(identifiers_of).transpose())
    }
}

fn event_of(row: &Row) -> Result<IndexEvent, ServerFailure> {
    Ok(IndexEvent {
        id: row.try_get(0)?,
        at_ms: row.try_get(1)?,
        kind: row.try_get(2)?,
        study_instance_uid: from_column(row.try_get(3)?),
        change: to_u64(row.try_get(4)?),
        content: row.try_get(5)?,
    })
}

/// The event of an object that is damaged. `None` if the index does not know it.
fn damaged_event(connection: &mut ServerConnection, uid: &str) -> Result<Option<NewEvent>, ServerFailure> {
    let loaded = load::instances(connection, &BTreeSet::from([uid.to_owned()]), Default::default())?;
    let first = loaded.files.get(uid).and_then(|held| held.first());
    Ok(first.map(|first| {
        damaged(first.record.value(StudyInstanceUID).to_owned(), first.record.value(SeriesInstanceUID), uid)
    }))
}

/// Records studies as complete: not those that are gone, have changed again, or were told already.
fn tell_complete(
    connection: &mut ServerConnection,
    studies: &[ChangedStudy],
    now_ms: i64,
) -> Result<(), ServerFailure> {
    let (ids, changes): (Vec<i64>, Vec<i64>) = studies.iter().map(|study| (study.study, to_i64(study.change))).unzip();
    let rows = connection.query(
        "SELECT s.id, t.change, s.study_instance_uid, s.series_count, s.instance_count \
         FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS t(study, change, at) \
         JOIN study s ON s.id = t.study WHERE greatest((SELECT max(h.change) FROM shelf h WHERE h.study = s.id), \
         (SELECT max(l.change) FROM loss l WHERE l.study = s.id AND l.level = 'STUDY')) = t.change \
         AND NOT EXISTS (SELECT FROM event v WHERE v.kind = 'study-complete' AND v.study_key = s.uid_key \
         AND v.change >= t.change) ORDER BY t.at",
        &[&ids, &changes],
    )?;
    let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
    let mut modalities: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for group in load::groups(connection, "s.study", &ids)? {
        let of_study = modalities.entry(group.study).or_default();
        of_study.extend(group.record.value(Modality).split('\\').filter(|text| !text.is_empty()).map(str::to_owned));
    }
    let mut senders: BTreeMap<i64, Vec<(String, String)>> = BTreeMap::new();
    let sql = "SELECT DISTINCT h.study, a.kind, a.calling_ae_title FROM shelf h JOIN arrival a ON a.id = h.arrival \
               WHERE h.study = ANY($1) ORDER BY 1, 2, 3";
    for row in connection.query(sql, &[&ids])? {
        let title = from_column(row.try_get(2)?);
        senders.entry(row.try_get(0)?).or_default().push((row.try_get(1)?, title));
    }
    let (mut events, mut told) = (Vec::new(), Vec::new());
    for row in &rows {
        let id: i64 = row.try_get(0)?;
        let complete = CompleteStudy {
            study_instance_uid: from_column(row.try_get(2)?),
            series: row.try_get(3)?,
            instances: row.try_get(4)?,
            modalities: modalities.remove(&id).unwrap_or_default().into_iter().collect(),
            senders: senders.remove(&id).unwrap_or_default(),
        };
        events.push(complete.event());
        told.push(row.try_get(1)?);
    }
    insert_events(connection, &events, &ToldChange::Each(told), now_ms)
}

/// Has other nodes that tell wait until the end of the transaction.
fn lock_telling(connection: &mut ServerConnection) -> Result<(), ServerFailure> {
    connection.execute("SELECT pg_advisory_xact_lock($1)", &[&TELLING_LOCK]).map(drop)
}

impl PostgresWriterHandle {
    /// Changes the tables of events in a transaction that other nodes wait for.
    fn tell<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut ServerConnection) -> Result<T, ServerFailure> + Send + 'static,
    ) -> Result<T, Error> {
        self.change_index(move |changer, _| {
            changer.transaction(|connection, _| {
                lock_telling(connection)?;
                work(connection)
            })
        })
    }
}

impl PostgresWriterHandle {
    /// Gives no number again that may have been given before the index was built anew. The numbers
    /// of events follow from those of changes.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    pub fn raise_numbers(&self, cause: &'static str, given: GivenNumbers, now_ms: i64) -> Result<(), Error> {
        let given = to_i64(given.change);
        let sql = "UPDATE dcmdex_index SET change_base = greatest(change_base, $1)";
        self.tell(move |connection| connection.execute(sql, &[&given]).map(drop))?;
        let restored = index_restored(cause, 0);
        self.tell(move |connection| {
            insert_events(connection, std::slice::from_ref(&restored), &ToldChange::None, now_ms)
        })
    }
}

impl EventChanges for PostgresWriterHandle {
    fn begin_telling(&self) -> Result<(), Error> {
        let sql = format!("INSERT INTO event_cursor (change) {LAST_CHANGE} ON CONFLICT DO NOTHING");
        self.tell(move |connection| connection.execute(&sql, &[]).map(drop))
    }

    fn tell_studies(&self, studies: Vec<ChangedStudy>, told: u64, clock: Clock) -> Result<(), Error> {
        for some in studies.chunks(TOLD_AT_ONCE) {
            let some = some.to_vec();
            self.tell(move |connection| tell_complete(connection, &some, clock.now_ms()))?;
        }
        let sql = "UPDATE event_cursor SET change = greatest(change, $1)";
        self.tell(move |connection| connection.execute(sql, &[&to_i64(told)]).map(drop))
    }

    fn tell_damaged(&self, sop_instance_uids: Vec<String>, clock: Clock) -> Result<Vec<String>, Error> {
        self.tell(move |connection| {
            let (mut events, mut unknown) = (Vec::new(), Vec::new());
            for uid in &sop_instance_uids {
                match damaged_event(connection, uid)? {
                    Some(event) => events.push(event),
                    None => unknown.push(uid.clone()),
                }
            }
            insert_events(connection, &events, &ToldChange::None, clock.now_ms())?;
            Ok(unknown)
        })
    }

    /// Keeps receivers that only other nodes have for a week after they were served last.
    fn keep_receivers(&self, names: Vec<String>) -> Result<u64, Error> {
        let add = format!(
            "INSERT INTO event_receiver (name, position) SELECT name, {SETTLED} FROM unnest($1::text[]) AS n(name) \
             ON CONFLICT DO NOTHING"
        );
        self.tell(move |connection| {
            let forget = "DELETE FROM event_receiver WHERE name <> ALL($1) AND held_until < now() - interval '7 days'";
            let forgotten = connection.execute(forget, &[&names])?;
            for sql in [
                "DELETE FROM event_waiting WHERE receiver <> ALL($1) \
                 AND receiver NOT IN (SELECT name FROM event_receiver)",
                &add,
            ] {
                connection.execute(sql, &[&names])?;
            }
            Ok(forgotten)
        })
    }

    /// It is no change of the index, so nobody looks at the index again because of it.
    fn hold_receiver(&self, receiver: &str, holder: &str, lease: Duration) -> Result<bool, Error> {
        let (receiver, holder, seconds) = (receiver.to_owned(), holder.to_owned(), lease.as_secs_f64());
        let sql = "UPDATE event_receiver SET holder = $2, held_until = clock_timestamp() + make_interval(secs => $3) \
                   WHERE name = $1 AND (holder = $2 OR held_until <= clock_timestamp()) RETURNING name";
        self.change_index(move |changer, _| {
            Ok(changer.connection()?.query_opt(sql, &[&receiver, &holder, &seconds])?.is_some())
        })
    }

    fn note_deliveries(&self, receiver: String, holder: &str, changes: DeliveryChanges) -> Result<bool, Error> {
        let holder = holder.to_owned();
        self.change_index(move |changer, _| {
            changer.transaction(|connection, _| note_deliveries(connection, (&receiver, &holder), &changes))
        })
    }

    fn retry_events(
        &self,
        receiver: Option<String>,
        events: Vec<i64>,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<u64, Error> {
        let sql = "UPDATE event_waiting SET is_dead = false, attempts = 0, next_ms = $3, until_ms = $4 WHERE is_dead \
                   AND ($1::text IS NULL OR receiver = $1) AND (cardinality($2::bigint[]) = 0 OR event = ANY($2))";
        self.tell(move |connection| connection.execute(sql, &[&receiver, &events, &now_ms, &until_ms]))
    }

    fn drop_events(&self, limits: EventLimits) -> Result<u64, Error> {
        let mut lost = 0;
        loop {
            let (dropped, unsettled) = self.change_index(move |changer, now_ms| {
                changer.transaction(|connection, _| {
                    lock_telling(connection)?;
                    drop_some(connection, limits, now_ms)
                })
            })?;
            lost += to_u64(unsettled);
            if dropped < DROPPED_AT_ONCE {
                return Ok(lost);
            }
        }
    }
}

fn note_deliveries(
    connection: &mut ServerConnection,
    (receiver, holder): (&str, &str),
    changes: &DeliveryChanges,
) -> Result<bool, ServerFailure> {
    let held = connection.query_opt(
        "SELECT name FROM event_receiver WHERE name = $1 AND holder = $2 FOR UPDATE",
        &[&receiver, &holder],
    )?;
    if held.is_none() {
        return Ok(false);
    }
    let sql = "DELETE FROM event_waiting WHERE receiver = $1 AND event = ANY($2)";
    connection.execute(sql, &[&receiver, &changes.delivered])?;
    for waiting in &changes.waiting {
        put_waiting(connection, receiver, waiting)?;
    }
    if let Some(position) = changes.position {
        let sql = "UPDATE event_receiver SET position = greatest(position, $2) WHERE name = $1";
        connection.execute(sql, &[&receiver, &position])?;
    }
    Ok(true)
}

/// Drops some events that may go. Returns how many, and how many of them were not settled.
fn drop_some(connection: &mut ServerConnection, limits: EventLimits, now_ms: i64) -> Result<(i64, i64), ServerFailure> {
    let keep_after_ms = limits.keep_after_ms.saturating_sub(ahead_ms(connection, now_ms)?);
    // Only the oldest are looked at: a look at all of them would read the whole table.
    let row = connection.query_one(
        "WITH oldest AS (SELECT v.id, v.at_ms, v.id > coalesce((SELECT min(position) FROM event_receiver), v.id) \
         OR EXISTS (SELECT FROM event_waiting w WHERE w.event = v.id AND NOT w.is_dead) AS unsettled \
         FROM event v ORDER BY v.id LIMIT $3), \
         dropped AS (SELECT id, unsettled FROM oldest WHERE id < (SELECT max(id) FROM event) \
         AND (id <= coalesce((SELECT id FROM event ORDER BY id DESC OFFSET $2 LIMIT 1), 0) \
         OR (at_ms < $1 AND NOT unsettled))), \
         gone AS (DELETE FROM event WHERE id IN (SELECT id FROM dropped)), \
         letters AS (DELETE FROM event_waiting WHERE event IN (SELECT id FROM dropped)) \
         SELECT count(*), count(*) FILTER (WHERE unsettled) FROM dropped",
        &[&keep_after_ms, &to_i64(limits.max_events), &DROPPED_AT_ONCE],
    )?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}
