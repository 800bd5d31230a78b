//! Rows of events (docs/adr/0051).

use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::keys::{RowKey, to_column, to_i64};
use crate::db::event_notes::NewEvent;
use crate::db::{EventProgress, IndexEvent, WaitingEvent};

/// Change that events tell of.
pub(super) enum ToldChange {
    /// Change of their transaction.
    Own,
    /// None.
    None,
    /// One for each event.
    Each(Vec<i64>),
}

/// Inserts the events of a transaction, all at once: their numbers follow from it.
pub(super) fn insert_events(
    connection: &mut ServerConnection,
    events: &[NewEvent],
    change: &ToldChange,
    now_ms: i64,
) -> Result<(), ServerFailure> {
    if events.is_empty() {
        return Ok(());
    }
    let changes: Vec<Option<i64>> = match change {
        ToldChange::Own => vec![None; events.len()],
        ToldChange::None => vec![Some(0); events.len()],
        ToldChange::Each(changes) => changes.iter().copied().map(Some).collect(),
    };
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    let uids: Vec<String> = events.iter().map(|event| to_column(&event.study_instance_uid)).collect();
    let keys: Vec<RowKey> = events.iter().map(|event| RowKey::of_uid(&event.study_instance_uid)).collect();
    let contents: Vec<&str> = events.iter().map(|event| event.content.as_str()).collect();
    connection.later(
        "INSERT INTO event (id, at_ms, kind, study_key, study_instance_uid, change, content) \
         SELECT c.number * 16384 + u.at, $1::bigint, u.kind, u.key, u.uid, coalesce(u.change, c.number), u.content \
         FROM change_number c, unnest($2::text[], $3::uuid[], $4::text[], $5::bigint[], $6::text[]) \
         WITH ORDINALITY AS u(kind, key, uid, change, content, at)",
        &[&now_ms, &kinds, &keys, &uids, &changes, &contents],
    )?;
    Ok(())
}

/// Writes an event that waits for a receiver.
pub(super) fn put_waiting(
    connection: &mut ServerConnection,
    receiver: &str,
    waiting: &WaitingEvent,
) -> Result<(), ServerFailure> {
    let WaitingEvent { event, attempts, next_ms, until_ms, failure, is_dead, .. } = waiting;
    let (key, attempts, failure) =
        (RowKey::of_uid(&event.study_instance_uid), i64::from(*attempts), to_column(failure));
    connection.later(
        "INSERT INTO event_waiting (receiver, event, study_key, attempts, next_ms, until_ms, failure, is_dead) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (receiver, event) DO UPDATE SET \
         attempts = excluded.attempts, next_ms = excluded.next_ms, until_ms = excluded.until_ms, \
         failure = excluded.failure, is_dead = excluded.is_dead",
        &[&receiver, &event.id, &key, &attempts, next_ms, until_ms, &failure, is_dead],
    )?;
    Ok(())
}

/// Writes events of another index, with their numbers.
pub(super) fn put_events(connection: &mut ServerConnection, events: &[IndexEvent]) -> Result<(), ServerFailure> {
    for IndexEvent { id, at_ms, kind, study_instance_uid, change, content } in events {
        let key = RowKey::of_uid(study_instance_uid);
        connection.later(
            "INSERT INTO event (id, at_ms, kind, study_key, study_instance_uid, change, content) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[id, at_ms, kind, &key, &to_column(study_instance_uid), &to_i64(*change), content],
        )?;
    }
    Ok(())
}

/// Writes what receivers have got of those events.
pub(super) fn put_progress(connection: &mut ServerConnection, progress: &EventProgress) -> Result<(), ServerFailure> {
    for (name, position) in &progress.receivers {
        connection.later("INSERT INTO event_receiver (name, position) VALUES ($1, $2)", &[name, position])?;
    }
    progress.waiting.iter().try_for_each(|waiting| put_waiting(connection, &waiting.receiver, waiting))
}
