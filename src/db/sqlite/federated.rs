//! An SQLite index as one file of several.

use rusqlite::{OptionalExtension as _, params};

use super::reader::SqliteReader;
use crate::db::Error;
use crate::db::federated::FederatedPart;

impl FederatedPart for SqliteReader {
    fn each_study(&mut self, after: Option<i64>, on_study: &mut dyn FnMut(i64, &str)) -> Result<(), Error> {
        // Without a row number, the index on the UID has all that is asked for.
        let sql = match after {
            Some(_) => "SELECT id, study_instance_uid FROM study WHERE id > ?1",
            None => "SELECT id, study_instance_uid FROM study WHERE ?1 IS NULL",
        };
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![after])?;
        while let Some(row) = rows.next()? {
            on_study(row.get(0)?, row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?);
        }
        Ok(())
    }

    fn study_at(&mut self, row: i64) -> Result<Option<String>, Error> {
        let sql = "SELECT study_instance_uid FROM study WHERE id = ?1";
        Ok(self.connection.prepare_cached(sql)?.query_row([row], |row| row.get(0)).optional()?)
    }

    fn last_study(&mut self) -> Result<Option<(i64, String)>, Error> {
        let sql = "SELECT id, study_instance_uid FROM study ORDER BY id DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
    }

    fn has_study(&mut self, study_instance_uid: &str) -> Result<bool, Error> {
        let sql = "SELECT EXISTS (SELECT 1 FROM study WHERE study_instance_uid = ?1)";
        Ok(self.connection.prepare_cached(sql)?.query_row([study_instance_uid], |row| row.get(0))?)
    }
}
