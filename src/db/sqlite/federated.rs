//! An SQLite index as one file of several.

use std::ops::ControlFlow;

use rusqlite::{OptionalExtension as _, params};

use super::reader::SqliteReader;
use crate::db::Error;
use crate::db::federated::{DescribedPatient, FederatedPart};

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

    fn each_described(&mut self, on_patient: &mut dyn FnMut(DescribedPatient) -> ControlFlow<()>) -> Result<(), Error> {
        let sql = "SELECT patient_id, issuer_of_patient_id, patient_name_norm, patient_name_ideographic_norm, \
                   patient_name_phonetic_norm, patient_birth_date, id FROM patient WHERE patient_id > '' \
                   ORDER BY patient_id";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let patient = DescribedPatient {
                patient_id: row.get(0)?,
                issuer: row.get(1)?,
                names: [row.get(2)?, row.get(3)?, row.get(4)?],
                birth_date: row.get(5)?,
                row: row.get(6)?,
            };
            if on_patient(patient).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn study_of_description(&mut self, row: i64) -> Result<Option<String>, Error> {
        let sql = "SELECT min(study_instance_uid) FROM study WHERE patient = ?1 \
                   OR id IN (SELECT study FROM study_patient WHERE patient = ?1)";
        Ok(self.connection.prepare_cached(sql)?.query_row([row], |row| row.get(0))?)
    }

    fn each_series(&mut self, on_series: &mut dyn FnMut(String, i64) -> ControlFlow<()>) -> Result<(), Error> {
        let sql = "SELECT series_instance_uid, study FROM study_series ORDER BY series_instance_uid, study";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if on_series(row.get(0)?, row.get(1)?).is_break() {
                break;
            }
        }
        Ok(())
    }
}
