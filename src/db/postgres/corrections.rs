//! The rules of corrections (docs/adr/0033), as a database has them.
//!
//! Instance groups keep what objects say. Questions see them as the rules have it, and the rows of
//! studies follow from that too. A transaction that changes anything holds a lock that it shares
//! with others of its kind. A change of the rules holds it alone, so nobody writes by rules that
//! are over.

use std::sync::Arc;

use tokio_postgres::Row;

use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::schema::note_corrections;
use crate::db::{Correction, CorrectionChange, Corrections, Error};
use crate::model::attribute::{Attribute, AttributeId};

/// Number of the lock: "dcmdex" in ASCII, and 768.
const RULES_LOCK: i64 = 0x6463_6D64_6578 + 0x300;

/// Begins a transaction that changes something, with its first question.
pub(super) fn begin_change(connection: &mut ServerConnection) -> Result<(), ServerFailure> {
    connection.run_later("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE");
    connection.later("SELECT pg_advisory_xact_lock_shared($1)", &[&RULES_LOCK])
}

/// Has all other changes wait until the end of the transaction.
pub(super) fn lock_rules(connection: &mut ServerConnection) -> Result<(), ServerFailure> {
    connection.execute("SELECT pg_advisory_xact_lock($1)", &[&RULES_LOCK]).map(drop)
}

/// Has the connection see instance groups by the rules that hold now.
pub(super) fn read_rules(connection: &mut ServerConnection) -> Result<(), ServerFailure> {
    let question = rules_question(connection)?;
    let rows = connection.query(question, &[])?;
    note_rules(connection, &rows)
}

/// Asks for all rules in the order of their numbers, those that were undone included.
pub(super) fn rules_question(connection: &mut ServerConnection) -> Result<&'static str, ServerFailure> {
    let sql = "SELECT id, made_ms, system, keys, new_values, undone_ms FROM correction ORDER BY id";
    Ok(if connection.has_table("correction")? { sql } else { "SELECT 1 WHERE false" })
}

/// Has the connection see instance groups by the rules of these rows.
pub(super) fn note_rules(connection: &mut ServerConnection, rows: &[Row]) -> Result<(), ServerFailure> {
    let rules = rows.iter().map(rule_of).collect::<Result<_, _>>()?;
    connection.corrections = Arc::new(Corrections::new(rules));
    Ok(())
}

/// All rules in the order of their numbers, those that were undone included.
pub(super) fn all_rules(connection: &mut ServerConnection) -> Result<Vec<Correction>, ServerFailure> {
    let question = rules_question(connection)?;
    connection.query(question, &[])?.iter().map(rule_of).collect()
}

fn rule_of(row: &Row) -> Result<Correction, ServerFailure> {
    Ok(Correction {
        number: row.try_get(0)?,
        made_ms: row.try_get(1)?,
        system: row.try_get(2)?,
        keys: values_in(row.try_get(3)?)?,
        values: values_in(row.try_get(4)?)?,
        undone_ms: row.try_get(5)?,
    })
}

/// Values from a JSON array of pairs of column and text.
fn values_in(text: &str) -> Result<Vec<(AttributeId, String)>, ServerFailure> {
    let broken = || ServerFailure::from(Error::Malformed("the values of a correction cannot be read".into()));
    let pairs: Vec<(String, String)> = serde_json::from_str(text).map_err(|_| broken())?;
    let value = |(column, value): (String, String)| Ok((Attribute::by_column(&column).ok_or_else(broken)?.id, value));
    pairs.into_iter().map(value).collect()
}

fn text_of_values(values: &[(AttributeId, String)]) -> String {
    let pairs: Vec<(&str, &str)> = values.iter().map(|(id, value)| (id.attribute().column, value.as_str())).collect();
    serde_json::json!(pairs).to_string()
}

/// Writes a change of the rules. Returns the number of the rule.
pub(super) fn write_rule(connection: &mut ServerConnection, change: &CorrectionChange) -> Result<i64, ServerFailure> {
    let number = match change {
        CorrectionChange::Make(rule) => {
            let (keys, values) = (text_of_values(&rule.keys), text_of_values(&rule.values));
            let sql = "INSERT INTO correction (made_ms, system, keys, new_values, undone_ms) \
                       VALUES ($1, $2, $3, $4, $5) RETURNING id";
            let row = connection.query_one(sql, &[&rule.made_ms, &rule.system, &keys, &values, &rule.undone_ms])?;
            row.try_get(0)?
        }
        CorrectionChange::Undo { correction, undone_ms } => {
            let sql = "UPDATE correction SET undone_ms = $2 WHERE id = $1 AND undone_ms IS NULL";
            connection.execute(sql, &[&correction.number, undone_ms])?;
            correction.number
        }
    };
    note_corrections(connection)?;
    Ok(number)
}
