//! Tests that run once for each engine of the index.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::postgres::server;

thread_local! {
    /// The database of each directory. `None` where indexes are files.
    static DATABASES: RefCell<Option<HashMap<PathBuf, PathBuf>>> = const { RefCell::new(None) };
}

/// Makes two tests of a function: one in which [`index_at`] gives files, and one in which it gives
/// databases of PostgreSQL.
macro_rules! with_each_index {
    ($($test:ident),* $(,)?) => {
        mod in_a_file {
            $(
                #[test]
                fn $test() {
                    super::$test();
                }
            )*
        }

        mod in_a_database {
            $(
                #[test]
                fn $test() {
                    crate::util::engine::with_databases(super::$test);
                }
            )*
        }
    };
}
pub(crate) use with_each_index;

/// Runs a test with databases in place of index files.
pub(crate) fn with_databases(test: impl FnOnce()) {
    DATABASES.set(Some(HashMap::new()));
    test();
    DATABASES.set(None);
}

/// The index that belongs to a directory: a file in it, or a database.
pub(crate) fn index_at(directory: &Path) -> PathBuf {
    DATABASES.with_borrow_mut(|databases| match databases {
        None => directory.join("index.db"),
        Some(known) => known.entry(directory.to_owned()).or_insert_with(|| server().database()).clone(),
    })
}
