//! The schema, its version, and the migration from older versions.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::columns::{has_own_column, is_packed_time, shared_columns};
use super::packing::{stored_time_sql, time_sql};
use super::write;
use crate::db::{Error, rules};

/// Marks an SQLite file as an index of this program (`PRAGMA application_id`): "DCMX".
const APPLICATION_ID: i32 = 0x4443_4D58;

/// The tables of a new index.
const TABLES: &str = include_str!("schema/schema.sql");

/// The views of every index except `patients` and `instances`: see [`patients_view`] and
/// [`instances_view`].
const VIEWS: &str = include_str!("schema/views.sql");

/// Views that an index of the current schema may lack: see [`add_missing`].
const MORE_VIEWS: &str = include_str!("schema/more_views.sql");

/// The names of [`MORE_VIEWS`].
const MORE_VIEW_NAMES: &[&str] = &["files", "copies", "failed_files", "conflicts", "arrivals", "declared_values"];

/// Tables that an index of the current schema may lack. A feature with tables of its own has a file
/// here, in place of a new schema version. See [`add_missing`].
const MORE_TABLES: &[FeatureTables] = &[
    FeatureTables { names: &["watch"], statements: include_str!("schema/watch.sql") },
    FeatureTables {
        names: &["removal", "removed_instance", "removed_file"],
        statements: include_str!("schema/removal.sql"),
    },
    FeatureTables { names: &["correction"], statements: include_str!("schema/correction.sql") },
    FeatureTables { names: &["arrival_journal"], statements: include_str!("schema/journal.sql") },
];

/// The tables of the worklist. They are made before the first change of it.
pub(super) const WORKLIST: FeatureTables = FeatureTables {
    names: &["worklist_item", "worklist_asked", "worklist_problem", "performed_step"],
    statements: include_str!("schema/worklist.sql"),
};

/// The tables of events. They are made when events are first recorded.
pub(super) const EVENTS: FeatureTables = FeatureTables {
    names: &["event", "event_cursor", "event_receiver", "event_waiting"],
    statements: include_str!("schema/events.sql"),
};

/// Losses of entities that stay. The table is made with its first row.
pub(super) const LOSSES: FeatureTables =
    FeatureTables { names: &["loss"], statements: include_str!("schema/loss.sql") };

/// Directories where scans found another disk. The table is made with its first row.
pub(super) const EXCHANGED_DISKS: FeatureTables =
    FeatureTables { names: &["exchanged_disk"], statements: include_str!("schema/exchanged.sql") };

/// The last removal that was undone. The table is made with its row.
pub(super) const UNDONE_REMOVALS: FeatureTables =
    FeatureTables { names: &["undone_removal"], statements: include_str!("schema/undone.sql") };

/// The tables of a feature, and the statements that make them (`CREATE … IF NOT EXISTS`).
///
/// Each table and each index on it takes a page, also without rows. [`WORKLIST`] and [`EVENTS`]
/// have 19 of them, which were 1.6 bytes per instance in an index of 100,000 files. Most indexes
/// never need them, so they are not made with the index.
#[derive(Debug)]
pub(super) struct FeatureTables {
    names: &'static [&'static str],
    statements: &'static str,
}

impl FeatureTables {
    /// Whether an index has all of them.
    pub(super) fn are_in(&self, connection: &Connection) -> rusqlite::Result<bool> {
        has_all(connection, self.names)
    }

    /// Makes those that are missing, in the transaction that is open.
    pub(super) fn make(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.are_in(connection)? { Ok(()) } else { connection.execute_batch(self.statements) }
    }

    /// Makes those that are missing, in a transaction of their own.
    pub(super) fn make_alone(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.are_in(connection)? { Ok(()) } else { make_in_transaction(connection, self.statements) }
    }
}

/// Whether an index has all these tables and views.
pub(super) fn has_all(connection: &Connection, names: &[&str]) -> rusqlite::Result<bool> {
    let list = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT count(*) FROM sqlite_schema WHERE type IN ('table', 'view') AND name IN ({list})");
    let known: i64 = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
    Ok(usize::try_from(known) == Ok(names.len()))
}

fn make_in_transaction(connection: &Connection, statements: &str) -> rusqlite::Result<()> {
    let transaction = rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    transaction.execute_batch(statements)?;
    transaction.commit()
}

/// The steps from each released schema version to the next. A released step is never edited. Each
/// step drops the views first.
const STEPS: &[&str] = &[include_str!("schema/v1_to_v2.sql")];

/// The schema version that this program reads and writes (`PRAGMA user_version`).
pub const SCHEMA_VERSION: u32 = STEPS.len() as u32 + 1;

/// Whether the file is a database of another program.
pub(super) fn is_foreign(connection: &Connection) -> rusqlite::Result<bool> {
    // In this order, because an index that another process is making gets its tables and mark in
    // one moment.
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    Ok(tables > 0 && application != APPLICATION_ID)
}

/// Checks that the file is an index with the current schema. A writer creates or migrates it.
pub(super) fn check(connection: &Connection, path: &Path, writer: bool) -> Result<(), Error> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(Error::from)?;
    if found > SCHEMA_VERSION {
        return Err(Error::NewerSchema { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    if found == SCHEMA_VERSION {
        return if writer { add_missing(connection).map_err(Error::from) } else { Ok(()) };
    }
    if !writer {
        return if found == 0 {
            Err(Error::Missing { path: path.to_owned() })
        } else {
            Err(Error::OlderSchema { path: path.to_owned(), found, known: SCHEMA_VERSION })
        };
    }
    migrate(connection).map_err(|source| Error::Migration { path: path.to_owned(), source: Box::new(source) })
}

fn migrate(connection: &Connection) -> rusqlite::Result<()> {
    // Immediate: if two processes open a new index at once, one creates it and the other finds it.
    let transaction = rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == SCHEMA_VERSION {
        return Ok(());
    }
    match found.checked_sub(1) {
        None => transaction.execute_batch(TABLES)?,
        Some(done) => {
            for step in STEPS.get(done as usize..).unwrap_or_default() {
                transaction.execute_batch(step)?;
            }
            if done == 0 {
                write::from_version_1(&transaction)?;
            }
        }
    }
    transaction.execute_batch(&patients_view())?;
    transaction.execute_batch(VIEWS)?;
    transaction.execute_batch(&instances_view())?;
    transaction.execute_batch(&additions())?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// Adds the tables and views that came after an index was made. For a program that reads or writes
/// the other tables they do not change the schema. So older programs of the same schema version go
/// on with the index.
fn add_missing(connection: &Connection) -> rusqlite::Result<()> {
    let names: Vec<_> = MORE_TABLES.iter().flat_map(|tables| tables.names).chain(MORE_VIEW_NAMES).copied().collect();
    if has_all(connection, &names)? { Ok(()) } else { make_in_transaction(connection, &additions()) }
}

fn additions() -> String {
    let tables: String = MORE_TABLES.iter().map(|tables| tables.statements).collect();
    tables + &more_views()
}

fn more_views() -> String {
    // As in the view `instances`.
    const UID: &str = "CASE typeof(c.uid_suffix) WHEN 'text' THEN c.uid_suffix \
         ELSE CASE WHEN substr(hex(c.uid_suffix), 1, 1) = 'B' \
         THEN replace(replace(substr(hex(c.uid_suffix), 2), 'A', '.'), 'F', '') \
         ELSE h.uid_prefix || replace(replace(hex(c.uid_suffix), 'A', '.'), 'F', '') END END";
    MORE_VIEWS.replace("{uid}", UID)
}

fn patients_view() -> String {
    let columns: Vec<_> = rules::patient_attributes().map(|id| format!("p.{}", id.attribute().column)).collect();
    let counts: Vec<_> = columns.iter().map(|column| format!("CASE WHEN {column} <> '' THEN 1 ELSE 0 END")).collect();
    // It has the order of rules::compare_descriptions.
    include_str!("schema/patients_view.sql")
        .replace("{completeness}", &format!("({})", counts.join(" + ")))
        .replace("{values}", &columns.join(", "))
        .replace("{columns}", &columns.join(", "))
}

fn instances_view() -> String {
    let columns: Vec<_> = shared_columns()
        .map(|id| {
            let column = id.attribute().column;
            let value = if is_packed_time(id) {
                time_sql(&format!("x.own_{column}"), &format!("h.\"{column}\""))
            } else if has_own_column(id) {
                format!("CAST(ifnull(x.{column}, h.\"{column}\") AS TEXT)")
            } else {
                format!("ifnull(x.diff ->> '$.{column}', h.\"{column}\")")
            };
            format!("{value} AS \"{column}\"")
        })
        .collect();
    let times: Vec<_> = shared_columns()
        .filter(|id| is_packed_time(*id))
        .map(|id| {
            let column = id.attribute().column;
            format!("{} AS own_{column}", stored_time_sql(&format!("i.{column}"), "i.acquisition_time"))
        })
        .collect();
    include_str!("schema/instances_view.sql")
        .replace("{times}", &times.join(", "))
        .replace("{columns}", &columns.join(",\n       "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::attribute::{ATTRIBUTES, AttributeId};
    use crate::model::level::QueryRetrieveLevel;

    fn columns(connection: &Connection, table: &str) -> BTreeSet<String> {
        let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)").unwrap();
        statement.query_map([table], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn every_kept_attribute_has_its_column() {
        let memory = Connection::open_in_memory().unwrap();
        migrate(&memory).unwrap();
        for attribute in ATTRIBUTES.iter().filter(|attribute| attribute.is_stored()) {
            let (table, view) = match attribute.level {
                QueryRetrieveLevel::Patient => ("patient", "patients"),
                QueryRetrieveLevel::Study => ("study", "studies"),
                QueryRetrieveLevel::Series => ("study_series", "series"),
                QueryRetrieveLevel::Image => ("instance_group", "instances"),
            };
            assert!(columns(&memory, view).contains(attribute.column), "{} in {view}", attribute.column);
            let elsewhere = matches!(attribute.id, AttributeId::SOPInstanceUID | AttributeId::InstanceNumber);
            assert!(elsewhere || columns(&memory, table).contains(attribute.column), "{} in {table}", attribute.column);
        }
    }

    /// The statements of a schema by name, without what a renaming writes differently: comments,
    /// quotes and white space.
    fn statements(connection: &Connection) -> Vec<(String, String)> {
        let sql = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).unwrap();
        let plain = |sql: String| {
            let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
            let text = lines.collect::<Vec<_>>().join(" ").replace('"', "");
            // An added column stands after the white space behind the one before.
            text.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ,", ",").replace(" )", ")")
        };
        rows.map(|row| row.map(|(name, sql)| (name, plain(sql)))).collect::<Result<_, _>>().unwrap()
    }

    fn fresh() -> Connection {
        let memory = Connection::open_in_memory().unwrap();
        migrate(&memory).unwrap();
        memory
    }

    /// An index of a released version. `fixtures/schema/vN.sql` is the output of `.schema` of the
    /// sqlite3 shell, with `application_id` and `user_version`.
    fn released(dump: &str) -> Connection {
        let memory = Connection::open_in_memory().unwrap();
        memory.execute_batch(dump).unwrap();
        memory
    }

    #[test]
    fn every_released_schema_comes_to_the_current_one() {
        const RELEASED: &[&str] = &[include_str!("../../../fixtures/schema/v1.sql")];
        for dump in RELEASED {
            let old = released(dump);
            migrate(&old).unwrap();
            assert_eq!(statements(&old), statements(&fresh()));
        }
    }

    #[test]
    fn an_index_of_the_current_schema_gets_the_views_that_it_lacks() {
        let index = fresh();
        let whole = statements(&index);
        index.execute_batch("DROP VIEW conflicts; DROP VIEW copies").unwrap();
        check(&index, Path::new("index.db"), false).unwrap();
        assert_eq!(statements(&index).len(), whole.len() - 2, "a reader writes nothing");
        check(&index, Path::new("index.db"), true).unwrap();
        assert_eq!(statements(&index), whole);
        for name in MORE_VIEW_NAMES {
            assert!(whole.iter().any(|(known, _)| known == name), "{name}");
        }
    }

    #[test]
    fn tables_of_features_are_made_when_they_are_needed() {
        let index = fresh();
        let before = statements(&index).len();
        for tables in [WORKLIST, EVENTS, LOSSES, EXCHANGED_DISKS, UNDONE_REMOVALS] {
            assert!(!tables.are_in(&index).unwrap());
            tables.make_alone(&index).unwrap();
            assert!(tables.are_in(&index).unwrap());
        }
        let whole = statements(&index);
        assert_eq!(whole.len(), before + 8 + 10 + 2 + 1 + 1, "tables and indexes");
        // An index of an older program has an older set of them.
        index.execute_batch("DROP TABLE worklist_asked").unwrap();
        assert!(!WORKLIST.are_in(&index).unwrap());
        WORKLIST.make(&index).unwrap();
        assert_eq!(statements(&index), whole);
    }

    #[test]
    fn a_newer_schema_is_left_alone() {
        let newer = fresh();
        newer.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        let refused = check(&newer, Path::new("index.db"), true);
        assert!(matches!(refused, Err(Error::NewerSchema { found, .. }) if found == SCHEMA_VERSION + 1));
    }
}
