//! Knowledge of an index file about mounts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::types::FromSqlError;

use super::sql_values::path_from_sql;
use crate::db::mounts::{LOOKED_AT_SETS, MountLook, roots_of};

/// The mounts as of a moment, and the scans that were read for it.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    look: MountLook,
    roots: ScannedRoots,
}

impl Mounts {
    /// Looks again if the last look is old: see [`MountLook::found`].
    pub(super) fn current(&mut self, connection: &Connection) -> rusqlite::Result<(&[PathBuf], &[PathBuf])> {
        let Self { look, roots } = self;
        look.again(|| {
            let mut statement = connection.prepare_cached("SELECT path FROM mount_point ORDER BY path")?;
            let rows = statement.query_map([], |row| Ok(PathBuf::from(path_from_sql(row.get_ref(0)?)?)))?;
            Ok::<_, rusqlite::Error>((rows.collect::<rusqlite::Result<_>>()?, roots.current(connection)?.clone()))
        })?;
        Ok(self.look.found())
    }

    /// Looks at the mounts: see [`MountLook::changes`].
    pub(super) fn changes(&mut self, connection: &Connection) -> rusqlite::Result<i64> {
        self.current(connection)?;
        Ok(self.look.changes())
    }
}

/// The paths that the last scans were told to scan.
#[derive(Debug, Default)]
struct ScannedRoots {
    /// The last scan that was read.
    newest: i64,
    /// The paths of scans as the index has them, each with the last scan of them, the newest first.
    sets: Vec<(i64, String)>,
    roots: BTreeSet<PathBuf>,
}

impl ScannedRoots {
    /// Reads the scans since the last call. The first call may read all of them, and so does one
    /// after a relocation.
    fn current(&mut self, connection: &Connection) -> rusqlite::Result<&BTreeSet<PathBuf>> {
        if self.have_changed(connection)? {
            *self = Self::default();
        }
        let mut statement = connection.prepare_cached("SELECT id, roots FROM scan WHERE id > ?1 ORDER BY id DESC")?;
        let mut rows = statement.query([self.newest])?;
        let mut sets = Vec::<(i64, String)>::new();
        while sets.len() < LOOKED_AT_SETS
            && let Some(row) = rows.next()?
        {
            let set = row.get_ref(1)?.as_str()?;
            if !sets.iter().any(|(_, other)| other == set) {
                sets.push((row.get(0)?, set.to_owned()));
            }
        }
        if let Some((newest, _)) = sets.first() {
            let newest = *newest;
            let is_former = |(_, former): &&(i64, String)| !sets.iter().any(|(_, set)| set == former);
            let former: Vec<_> = self.sets.iter().filter(is_former).cloned().collect();
            sets.extend(former);
            sets.truncate(LOOKED_AT_SETS);
            let mut roots = BTreeSet::new();
            for (_, set) in &sets {
                roots.extend(roots_of(set).map_err(|error| FromSqlError::Other(Box::new(error)))?);
            }
            *self = Self { newest, sets, roots };
        }
        Ok(&self.roots)
    }

    /// Whether a scan that was read has other paths now.
    fn have_changed(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let mut statement = connection.prepare_cached("SELECT 1 FROM scan WHERE id = ?1 AND roots = ?2")?;
        for set in &self.sets {
            if !statement.exists(rusqlite::params![set.0, set.1])? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_look_that_finds_other_mounts_is_counted() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE scan (id, roots); CREATE TABLE mount_point (path); \
                 INSERT INTO mount_point VALUES ('/proc')",
            )
            .unwrap();
        let mut mounts = Mounts::default();
        let look = |mounts: &mut Mounts, sql: &str| {
            connection.execute_batch(sql).unwrap();
            mounts.look.expire();
            mounts.changes(&connection).unwrap()
        };
        assert_eq!((look(&mut mounts, ""), look(&mut mounts, "")), (0, 0));
        let gone = "INSERT INTO mount_point VALUES ('/proc/no such mount')";
        assert_eq!((look(&mut mounts, gone), look(&mut mounts, "")), (1, 1));
        assert_eq!(look(&mut mounts, "DELETE FROM mount_point WHERE path <> '/proc'"), 2);
        assert_eq!(
            look(&mut mounts, r#"INSERT INTO scan VALUES (1, '["/no such root", "/proc/no such root", "/"]')"#),
            3
        );
        assert_eq!(mounts.look.found().0, [Path::new("/no such root")]);
    }

    #[test]
    fn the_paths_of_scans_follow_new_scans_and_relocations() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE scan (id INTEGER PRIMARY KEY, roots TEXT NOT NULL)").unwrap();
        let mut roots = ScannedRoots::default();
        let mut after = |sql: &str| {
            connection.execute_batch(sql).unwrap();
            let found = roots.current(&connection).unwrap();
            found.iter().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert!(after("").is_empty());
        let two = r#"INSERT INTO scan (roots) VALUES ('["/a", "/b"]'), ('["/c"]'), ('["/a", "/b"]'), ('["/\ufffd"]')"#;
        assert_eq!(after(two), ["/a", "/b", "/c"]);
        assert_eq!(after(r#"INSERT INTO scan (roots) VALUES ('["/d"]')"#), ["/a", "/b", "/c", "/d"]);
        let relocated = r#"UPDATE scan SET roots = '["/moved"]' WHERE roots = '["/c"]'"#;
        assert_eq!(after(relocated), ["/a", "/b", "/d", "/moved"]);
        // A path that was last scanned long ago makes room for others, and comes back.
        let mut many = String::new();
        for number in 0..LOOKED_AT_SETS {
            many += &format!(r#"INSERT INTO scan (roots) VALUES ('["/many/{number:02}"]');"#);
        }
        let last = after(&many);
        assert_eq!((last.len(), last[0].as_str()), (LOOKED_AT_SETS, "/many/00"));
        assert_eq!(after(r#"INSERT INTO scan (roots) VALUES ('["/d"]')"#)[..2], ["/d", "/many/01"]);
    }

    #[test]
    fn paths_of_a_scan_that_cannot_be_read_are_an_error() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE scan (id INTEGER PRIMARY KEY, roots TEXT NOT NULL); \
                 INSERT INTO scan (roots) VALUES ('[\"/a\"]'), ('no JSON')",
            )
            .unwrap();
        let mut roots = ScannedRoots::default();
        assert!(roots.current(&connection).is_err());
        assert!(roots.current(&connection).is_err(), "it was forgotten");
    }
}
