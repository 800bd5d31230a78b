//! The functions that statements of queries call, and the data that they use.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::ToSql;
use rusqlite::ffi;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{FromSqlError, ToSqlOutput, Value, ValueRef};

use super::super::packing::{Naming, UidSuffix, stored_time, uid_hash, unpack_time};
use super::super::sql_values::PathValue;
use super::parameters::InstanceKey;
use crate::db::name_words;
use crate::model::find::MomentCondition;
use crate::model::matching::Matching;

/// The conditions of the query that runs on a connection. `dcm_matches(n, value)` tests the n-th.
pub(in crate::db::sqlite) type Matchers = Arc<Mutex<Vec<Matcher>>>;

/// A condition that SQL cannot express.
#[derive(Debug)]
pub(in crate::db::sqlite) enum Matcher {
    One(Matching),
    /// `dcm_sample(n, row)` holds for so many rows. It then ends the statement and notes that.
    Sample {
        left: u32,
        is_over: bool,
    },
    /// `dcm_matches(n, date, time)`.
    Moment(MomentCondition),
    /// `dcm_has(n, row)`.
    Rows(Arc<RowSet>),
}

/// Largest distance of the first and last row of a set. No index has so many patients, and it takes
/// 8 MB.
const MAX_SPAN: usize = 1 << 26;

/// Row numbers, with a bit for each from the first to the last.
pub(in crate::db::sqlite) struct RowSet {
    first: i64,
    bits: Vec<u64>,
}

impl RowSet {
    /// Makes a set of rows in ascending order. `None` if they are too far apart: see [`MAX_SPAN`].
    pub(super) fn new(rows: &[i64]) -> Option<Self> {
        let (first, last) = (*rows.first()?, *rows.last()?);
        let span = usize::try_from(last.checked_sub(first)?).ok().filter(|span| *span < MAX_SPAN)?;
        let mut set = Self { first, bits: vec![0; span / 64 + 1] };
        for row in rows {
            let at = usize::try_from(row - first).ok()?;
            *set.bits.get_mut(at / 64)? |= 1 << (at % 64);
        }
        Some(set)
    }

    fn contains(&self, row: i64) -> bool {
        let at = row.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.bits.get(at / 64).map(|bits| bits >> (at % 64) & 1 == 1)).unwrap_or(false)
    }
}

impl std::fmt::Debug for RowSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowSet").field("first", &self.first).finish_non_exhaustive()
    }
}

const FLAGS: FunctionFlags = FunctionFlags::SQLITE_UTF8.union(FunctionFlags::SQLITE_DIRECTONLY);

/// Adds a function whose first argument is the number of a matcher. It is false for a number
/// without a matcher.
///
/// It is not deterministic for SQLite, because the same number means another key in the next query.
fn register_matcher(
    connection: &Connection,
    name: &str,
    arguments: i32,
    matchers: &Matchers,
    ask: impl Fn(&mut Matcher, &Context<'_>) -> rusqlite::Result<bool> + Send + 'static,
) -> rusqlite::Result<()> {
    let matchers = Arc::clone(matchers);
    connection.create_scalar_function(name, arguments, FLAGS, move |context| {
        let number = usize::try_from(context.get::<i64>(0)?).unwrap_or(usize::MAX);
        let mut matchers = matchers.lock().unwrap_or_else(PoisonError::into_inner);
        matchers.get_mut(number).map_or(Ok(false), |matcher| ask(matcher, context))
    })
}

/// Adds the functions that the statements of queries use.
pub(in crate::db::sqlite) fn register_functions(connection: &Connection, matchers: &Matchers) -> rusqlite::Result<()> {
    register_matchers(connection, matchers)?;
    register_unpacking(connection)?;
    register_keys(connection)
}

/// Adds the functions that ask a matcher of the query.
fn register_matchers(connection: &Connection, matchers: &Matchers) -> rusqlite::Result<()> {
    register_matcher(connection, "dcm_matches", 3, matchers, |matcher, context| {
        let Matcher::Moment(condition) = matcher else { return Ok(false) };
        let text = |at| context.get_raw(at).as_str_or_null().map(Option::unwrap_or_default);
        Ok(condition.matches(text(1)?, text(2)?))
    })?;
    register_matcher(connection, "dcm_has", 2, matchers, |matcher, context| {
        let Matcher::Rows(rows) = matcher else { return Ok(false) };
        Ok(rows.contains(context.get(1)?))
    })?;
    register_matcher(connection, "dcm_sample", 2, matchers, |matcher, _| {
        let Matcher::Sample { left, is_over } = matcher else { return Ok(false) };
        match left.checked_sub(1) {
            Some(fewer) => *left = fewer,
            None => *is_over = true,
        }
        if *is_over { Err(end_of_sample()) } else { Ok(true) }
    })?;
    register_matcher(connection, "dcm_matches", 2, matchers, |matcher, context| {
        let Matcher::One(matching) = matcher else { return Ok(false) };
        Ok(match context.get_raw(1) {
            ValueRef::Integer(number) => matching.matches(&number.to_string()),
            ValueRef::Null => matching.matches(""),
            value => matching.matches(value.as_str()?),
        })
    })
}

/// The error that ends the statement of a sample. SQLite has no other way to end a statement from
/// within (docs/adr/0053). `SQLITE_ABORT` means that a callback asked for the end.
fn end_of_sample() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ABORT), None)
}

/// Whether a statement ended because it had visited the rows of its sample. Both must say so, the
/// error and the matcher: any other error is one of the query.
pub(super) fn is_end_of_sample(error: &rusqlite::Error, matchers: &Matchers) -> bool {
    let is_abort = error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_ABORT);
    let matchers = matchers.lock().unwrap_or_else(PoisonError::into_inner);
    is_abort && matchers.iter().any(|matcher| matches!(matcher, Matcher::Sample { is_over: true, .. }))
}

/// Adds the functions that unpack what columns keep in a short form.
fn register_unpacking(connection: &Connection) -> rusqlite::Result<()> {
    let pure = FLAGS | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("dcm_uid", 2, pure, |context| {
        let prefix = context.get_raw(1).as_str()?;
        let mut uid = String::with_capacity(64);
        UidSuffix::unpack(context.get_raw(0), prefix, &mut uid)?;
        Ok(uid)
    })?;
    connection.create_scalar_function("dcm_uid_hash", 1, pure, |context| Ok(uid_hash(context.get_raw(0).as_str()?)))?;
    // dcm_file_name(file_name, uid_suffix, uid_prefix, file_prefix, file_suffix, file_digits): the
    // name of a file.
    connection.create_scalar_function("dcm_file_name", 6, pure, |context| {
        let digits: Option<i64> = context.get(5)?;
        let naming = Naming {
            prefix: context.get(3)?,
            suffix: context.get(4)?,
            digits: digits.and_then(|digits| usize::try_from(digits).ok()),
        };
        let (stored, mut uid) = (context.get_raw(0), String::new());
        if naming.needs_uid(stored) {
            UidSuffix::unpack(context.get_raw(1), context.get_raw(2).as_str()?, &mut uid)?;
        }
        let name = naming.unpack(stored, &uid)?;
        Ok(match PathValue(&name).to_sql()? {
            ToSqlOutput::Borrowed(value) => Value::try_from(value).unwrap_or(Value::Null),
            ToSqlOutput::Owned(value) => value,
            _ => Value::Null,
        })
    })?;
    // dcm_name_words(group, group, group): the words of a name, as a JSON array.
    connection.create_scalar_function("dcm_name_words", 3, pure, |context| {
        let forms = [context.get_raw(0).as_str()?, context.get_raw(1).as_str()?, context.get_raw(2).as_str()?];
        Ok(serde_json::Value::from_iter(name_words::words(&forms)).to_string())
    })?;
    // dcm_time(own, shared, acquisition): the text of a time that may be packed.
    connection.create_scalar_function("dcm_time", 3, pure, |context| {
        let mut text = String::with_capacity(16);
        let shared = context.get_raw(1).as_str()?;
        match stored_time(context.get_raw(0), context.get_raw(2)) {
            ValueRef::Integer(packed) => unpack_time(packed, shared, &mut text),
            ValueRef::Text(own) => text.push_str(&String::from_utf8_lossy(own)),
            ValueRef::Null => text.push_str(shared),
            ValueRef::Real(_) | ValueRef::Blob(_) => return Err(FromSqlError::InvalidType.into()),
        }
        Ok(text)
    })
}

/// Adds the functions that take the key of an instance apart, which `Parameters::add_keys` packs.
fn register_keys(connection: &Connection) -> rusqlite::Result<()> {
    let pure = FLAGS | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("dcm_key_group", 1, pure, |context| {
        Ok(InstanceKey::from_bytes(context.get_raw(0).as_blob()?).map(|key| key.instance_group))
    })?;
    connection.create_scalar_function("dcm_key_suffix", 1, pure, |context| {
        Ok(InstanceKey::from_bytes(context.get_raw(0).as_blob()?).map(|key| key.suffix.to_value()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_sample_is_taken_for_it() {
        let connection = Connection::open_in_memory().unwrap();
        let matchers = Matchers::default();
        register_functions(&connection, &matchers).unwrap();
        let failed = |sql: &str| {
            *matchers.lock().unwrap() = vec![Matcher::Sample { left: 2, is_over: false }];
            let mut statement = connection.prepare(&format!("WITH r(n) AS (VALUES (1), (2), (3), (4)) {sql}")).unwrap();
            let found: rusqlite::Result<Vec<i64>> = statement.query_map([], |row| row.get(0)).unwrap().collect();
            found.unwrap_err()
        };
        let end = failed("SELECT n FROM r WHERE dcm_sample(0, n)");
        assert!(is_end_of_sample(&end, &matchers), "{end:?}");
        // A second row with damage ends the statement before the sample is over.
        let damage = failed("SELECT json(iif(n = 2, 'no JSON', n)) FROM r WHERE dcm_sample(0, n)");
        assert!(!is_end_of_sample(&damage, &matchers), "{damage:?}");
        // Nor is another error taken for it after the sample is over.
        failed("SELECT n FROM r WHERE dcm_sample(0, n)");
        assert!(!is_end_of_sample(&damage, &matchers), "{damage:?}");
    }
}
