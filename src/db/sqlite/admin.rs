//! Questions of an operator to an SQLite index.

use std::ops::ControlFlow;

use rusqlite::OptionalExtension as _;

use super::reader::SqliteReader;
use super::write::last_change;
use super::{check, report, start_check, status};
use crate::db::{Admin, CheckReport, ConflictEntry, Error, FailureEntry, IndexStatus, StudyReport, WatchEntry};

impl Admin for SqliteReader {
    fn status(&mut self) -> Result<IndexStatus, Error> {
        status::read(&self.connection, &self.path).map_err(Error::from)
    }

    fn last_change(&mut self) -> Result<u64, Error> {
        Ok(u64::try_from(last_change(&self.connection)?).unwrap_or(0))
    }

    fn check(&mut self) -> Result<CheckReport, Error> {
        check::run(&self.connection).map_err(Error::from)
    }

    fn watches(&mut self) -> Result<Vec<WatchEntry>, Error> {
        status::watches(&self.connection).map_err(Error::from)
    }

    fn index_id(&mut self) -> Result<Option<String>, Error> {
        self.connection.query_row("SELECT id FROM index_identity", [], |row| row.get(0)).optional().map_err(Error::from)
    }

    fn failures(&mut self, mut on_failure: impl FnMut(FailureEntry) -> ControlFlow<()>) -> Result<(), Error> {
        Ok(status::failures(&self.connection, &mut on_failure)?)
    }

    fn conflicts(&mut self, mut on_conflict: impl FnMut(ConflictEntry) -> ControlFlow<()>) -> Result<(), Error> {
        Ok(status::conflicts(&self.connection, &mut on_conflict)?)
    }

    fn studies_with_problems(&mut self, mut on_study: impl FnMut(StudyReport) -> ControlFlow<()>) -> Result<(), Error> {
        Ok(report::studies(&self.connection, &mut on_study)?)
    }

    fn start_check(&mut self) -> Result<CheckReport, Error> {
        start_check::run(&mut self.connection)
    }
}
