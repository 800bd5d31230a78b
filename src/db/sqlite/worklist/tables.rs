//! Changes of the worklist, inside a transaction of the writer.

use rusqlite::{Connection, OptionalExtension as _, ToSql, params};

use super::super::schema::WORKLIST;
use super::rows::{performed_step, row};
use super::search::{HAS_ARRIVED, counts_of_items};
use crate::db::WorklistColumn;
use crate::db::worklist_columns::{COLUMNS, STEP_COLUMNS, source_number, state_number, texts_column};
use crate::db::{
    Error, PerformedStep, WorklistAsked, WorklistBy, WorklistProblem, WorklistRow, WorklistSource, WorklistState,
    WorklistTables, WorklistWork,
};

/// The tables of the worklist. A transaction is open on the connection.
pub(in super::super) struct WorklistTransaction<'c>(&'c Connection);

impl<'c> WorklistTransaction<'c> {
    pub(in super::super) fn new(connection: &'c Connection) -> Self {
        Self(connection)
    }

    /// Does the work. Its error goes to `failure`, and the error that is returned rolls the
    /// transaction back.
    pub(in super::super) fn run(mut self, work: WorklistWork, failure: &mut Option<Error>) -> rusqlite::Result<()> {
        WORKLIST.make(self.0)?;
        work(&mut self).map_err(|error| {
            *failure = Some(error);
            rusqlite::Error::ExecuteReturnedResults
        })
    }

    fn execute(&self, sql: &str, parameters: &[&dyn ToSql]) -> Result<usize, Error> {
        self.0.prepare_cached(sql)?.execute(parameters).map_err(Error::from)
    }

    fn rows(&self, condition: &str, parameters: &[&dyn ToSql]) -> Result<Vec<WorklistRow>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM worklist_item WHERE {condition} ORDER BY id");
        let mut statement = self.0.prepare_cached(&sql)?;
        let rows = statement.query_map(parameters, row)?;
        rows.collect::<rusqlite::Result<_>>().map_err(Error::from)
    }
}

/// Open items for which nothing has come.
pub(in super::super) fn waiting_items(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    if !WORKLIST.are_in(connection)? {
        return Ok(Vec::new());
    }
    let arrived = counts_of_items("true", HAS_ARRIVED);
    let sql = format!(
        "SELECT id FROM worklist_item WHERE state <= 1 AND instances_ms = 0 AND id NOT IN (SELECT id FROM ({arrived}))"
    );
    connection.prepare(&sql)?.query_map([], |row| row.get(0))?.collect()
}

/// Notes the instances that are there as none that came for this item.
pub(in super::super) fn note_present(connection: &Connection, item: i64) -> rusqlite::Result<()> {
    let present = counts_of_items("w.id = ?1", "true");
    let sql = format!(
        "UPDATE worklist_item SET instances = ifnull((SELECT sum(counted) FROM ({present})), 0) \
         WHERE id = ?1 AND instances_ms = 0"
    );
    connection.prepare_cached(&sql)?.execute([item]).map(drop)
}

impl WorklistTables for WorklistTransaction<'_> {
    fn find(&mut self, by: WorklistBy<'_>) -> Result<Vec<WorklistRow>, Error> {
        match by {
            WorklistBy::Id(id) => self.rows("id = ?1", params![id]),
            WorklistBy::Step(study, step) => {
                self.rows("study_instance_uid = ?1 AND step_id = ?2", params![study, step])
            }
            WorklistBy::Order(order) => self.rows("order_key = ?1 AND order_key <> ''", params![order]),
            WorklistBy::Accession(number) => self.rows("accession_number = ?1", params![number]),
            WorklistBy::Study(study) => self.rows("study_instance_uid = ?1", params![study]),
            WorklistBy::Origin(source, origin) => {
                self.rows("source = ?1 AND origin = ?2", params![source_number(source), origin])
            }
            WorklistBy::OpenOfPatient(patient) => self.rows("patient_id = ?1 AND state <= 1", params![patient]),
        }
    }

    fn put(&mut self, row: &WorklistRow) -> Result<i64, Error> {
        let id = (row.id != 0).then_some(row.id);
        let has_same_study = id.is_some() && self.find(WorklistBy::Id(row.id))?.iter().any(|it| row.has_study_of(it));
        let [study, step, station, date, time, modality, performer, name, patient, accession] = &row.values;
        let _all_columns: [(); 10] = [(); WorklistColumn::ALL.len()];
        let sql = format!(
            "INSERT INTO worklist_item ({COLUMNS}) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, \
             ?22, ?23) ON CONFLICT (id) DO UPDATE SET ({COLUMNS}) = (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, \
             ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)"
        );
        self.execute(
            &sql,
            params![
                id,
                study,
                step,
                station,
                date,
                time,
                modality,
                performer,
                name,
                patient,
                accession,
                row.item,
                row.character_set,
                row.order_key,
                source_number(row.source),
                row.origin,
                texts_column(&row.generated),
                texts_column(&row.warnings),
                state_number(row.state),
                row.received_ms,
                row.changed_ms,
                row.expires_ms,
                row.message_time,
            ],
        )?;
        let id = id.unwrap_or_else(|| self.0.last_insert_rowid());
        if !has_same_study {
            note_present(self.0, id)?;
        }
        Ok(id)
    }

    fn remove(&mut self, id: i64) -> Result<bool, Error> {
        self.execute("DELETE FROM worklist_asked WHERE item = ?1", params![id])?;
        Ok(self.execute("DELETE FROM worklist_item WHERE id = ?1", params![id])? > 0)
    }

    fn note_problem(&mut self, problem: &WorklistProblem) -> Result<(), Error> {
        let WorklistProblem { source, origin, reason, noted_ms } = problem;
        if *source == WorklistSource::File {
            self.clear_problems(*source, origin)?;
        }
        let sql = "INSERT INTO worklist_problem (source, origin, reason, noted_ms) VALUES (?1, ?2, ?3, ?4)";
        self.execute(sql, params![source_number(*source), origin, reason, noted_ms]).map(drop)
    }

    fn clear_problems(&mut self, source: WorklistSource, origin: &str) -> Result<(), Error> {
        let sql = "DELETE FROM worklist_problem WHERE source = ?1 AND origin = ?2";
        self.execute(sql, params![source_number(source), origin]).map(drop)
    }

    fn note_asked(&mut self, asked: &[WorklistAsked]) -> Result<(), Error> {
        // An item that is gone meanwhile gets no row.
        let sql = "INSERT INTO worklist_asked (item, ae_title, asked_ms) SELECT ?1, ?2, ?3 \
             WHERE EXISTS (SELECT 1 FROM worklist_item WHERE id = ?1) \
             ON CONFLICT (item) DO UPDATE SET ae_title = ?2, asked_ms = ?3 WHERE asked_ms <= ?3";
        for WorklistAsked { item, ae_title, asked_ms } in asked {
            self.execute(sql, params![item, ae_title, asked_ms])?;
        }
        Ok(())
    }

    fn performed_step(&mut self, sop_instance_uid: &str) -> Result<Option<PerformedStep>, Error> {
        let sql = format!("SELECT {STEP_COLUMNS} FROM performed_step WHERE sop_instance_uid = ?1");
        let mut statement = self.0.prepare_cached(&sql)?;
        statement.query_row([sop_instance_uid], performed_step).optional().map_err(Error::from)
    }

    fn steps_in_progress(&mut self) -> Result<Vec<PerformedStep>, Error> {
        let sql = format!("SELECT {STEP_COLUMNS} FROM performed_step WHERE status = 'IN PROGRESS'");
        let mut statement = self.0.prepare_cached(&sql)?;
        let steps = statement.query_map([], performed_step)?.collect::<rusqlite::Result<_>>()?;
        Ok(steps)
    }

    fn put_performed_step(&mut self, step: &PerformedStep) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO performed_step ({STEP_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
             ON CONFLICT (sop_instance_uid) DO UPDATE SET ({STEP_COLUMNS}) = (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
        );
        let PerformedStep { sop_instance_uid, status, station_ae_title, attributes, sender, created_ms, changed_ms } =
            step;
        let values = params![sop_instance_uid, status, station_ae_title, attributes, sender, created_ms, changed_ms];
        self.execute(&sql, values).map(drop)
    }

    fn note_arrival(&mut self, item: i64, instances: u64, now_ms: i64) -> Result<(), Error> {
        let instances = i64::try_from(instances).unwrap_or(i64::MAX);
        let sql = "UPDATE worklist_item SET instances = ?2, instances_ms = ?3 WHERE id = ?1";
        self.execute(sql, params![item, instances, now_ms]).map(drop)
    }

    fn set_state(&mut self, item: i64, state: WorklistState, now_ms: i64) -> Result<(), Error> {
        let sql = "UPDATE worklist_item SET state = ?2, changed_ms = ?3 WHERE id = ?1 AND state <= 1 AND state <> ?2";
        self.execute(sql, params![item, state_number(state), now_ms]).map(drop)
    }

    fn file_origins(&mut self) -> Result<Vec<String>, Error> {
        let sql = "SELECT origin FROM worklist_item WHERE source = 0 UNION SELECT origin FROM worklist_problem WHERE source = 0";
        let mut statement = self.0.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        rows.collect::<rusqlite::Result<_>>().map_err(Error::from)
    }

    fn forget_before(&mut self, before_ms: i64) -> Result<u64, Error> {
        let over = "changed_ms < ?1 AND (state > 1 OR expires_ms < ?1)";
        let asked = format!("DELETE FROM worklist_asked WHERE item IN (SELECT id FROM worklist_item WHERE {over})");
        self.execute(&asked, params![before_ms])?;
        let count = self.execute(&format!("DELETE FROM worklist_item WHERE {over}"), params![before_ms])?;
        self.execute("DELETE FROM worklist_problem WHERE noted_ms < ?1 AND source <> 0", params![before_ms])?;
        self.execute("DELETE FROM performed_step WHERE changed_ms < ?1", params![before_ms])?;
        Ok(count as u64)
    }
}
