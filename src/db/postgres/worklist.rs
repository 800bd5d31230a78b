//! The worklist in a database: see [`WorklistSearch`] and [`WorklistChanges`].
//!
//! The changes of one call are made under a lock of the database. So two nodes that take the same
//! order make one item of it (docs/adr/0052).

use std::ops::ControlFlow;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::flight::SqlParameter;
use super::keys::{RowKey, from_column, to_column, to_i64, to_u64};
use super::nodes::ahead_ms;
use super::question::QuestionState;
use super::reader::PostgresReader;
use super::writer::PostgresWriterHandle;
use crate::db::arrival::LONGEST_ARRIVAL_MS;
use crate::db::plan::after_prefix;
use crate::db::worklist_columns::{
    COLUMNS, ITEM, STEP_COLUMNS, column_name, source_number, source_of, state_number, state_of, texts_column,
};
use crate::db::{
    Error, PerformedStep, WorklistArrival, WorklistAsked, WorklistBy, WorklistChanges, WorklistColumn, WorklistProblem,
    WorklistRequest, WorklistRow, WorklistSearch, WorklistSource, WorklistState, WorklistTables, WorklistWork,
};
use crate::model::matching::Narrowing;

/// Rows that are read at once.
const FETCHED: usize = 200;

/// Number of the lock under which the worklist is changed: "dcmdex" in ASCII, and 512.
const WORKLIST_LOCK: i64 = 0x6463_6D64_6578 + 0x200;

/// The table that tells whether the database has those of the worklist.
const TABLE: &str = "performed_step";

fn unreadable(what: &str) -> ServerFailure {
    Error::Malformed(format!("a row of the worklist has an unknown {what}")).into()
}

fn texts_of(json: &str) -> Result<Vec<String>, ServerFailure> {
    serde_json::from_str(&from_column(json)).map_err(|_| unreadable("list"))
}

fn text(row: &Row, at: usize) -> Result<String, ServerFailure> {
    Ok(from_column(row.try_get(at)?))
}

fn state(row: &Row, at: usize) -> Result<WorklistState, ServerFailure> {
    state_of(row.try_get(at)?).ok_or_else(|| unreadable("state"))
}

fn source(row: &Row, at: usize) -> Result<WorklistSource, ServerFailure> {
    source_of(row.try_get(at)?).ok_or_else(|| unreadable("source"))
}

/// Reads an item.
fn item_of(row: &Row) -> Result<WorklistRow, ServerFailure> {
    let mut values: [String; WorklistColumn::ALL.len()] = Default::default();
    for (at, value) in values.iter_mut().enumerate() {
        *value = text(row, 1 + at)?;
    }
    Ok(WorklistRow {
        id: row.try_get(0)?,
        values,
        item: text(row, ITEM)?,
        character_set: text(row, ITEM + 1)?,
        order_key: text(row, ITEM + 2)?,
        source: source(row, ITEM + 3)?,
        origin: text(row, ITEM + 4)?,
        generated: texts_of(row.try_get(ITEM + 5)?)?,
        warnings: texts_of(row.try_get(ITEM + 6)?)?,
        state: state(row, ITEM + 7)?,
        received_ms: row.try_get(ITEM + 8)?,
        changed_ms: row.try_get(ITEM + 9)?,
        expires_ms: row.try_get(ITEM + 10)?,
        message_time: text(row, ITEM + 11)?,
    })
}

/// Reads a performed step.
fn step_of(row: &Row) -> Result<PerformedStep, ServerFailure> {
    Ok(PerformedStep {
        sop_instance_uid: text(row, 0)?,
        status: text(row, 1)?,
        station_ae_title: text(row, 2)?,
        attributes: text(row, 3)?,
        sender: text(row, 4)?,
        created_ms: row.try_get(5)?,
        changed_ms: row.try_get(6)?,
    })
}

impl PostgresReader {
    fn list<T>(
        &mut self,
        sql: &str,
        parameters: &[SqlParameter<'_>],
        read: impl Fn(&Row) -> Result<T, ServerFailure>,
    ) -> Result<Vec<T>, Error> {
        self.ask_of_table(TABLE, |connection| connection.query(sql, parameters)?.iter().map(&read).collect())
    }
}

impl WorklistSearch for PostgresReader {
    fn worklist(
        &mut self,
        request: &WorklistRequest,
        on_row: &mut dyn FnMut(WorklistRow) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        if !self.ask_of_table(TABLE, |_| Ok(true))? {
            return Ok(());
        }
        self.interruptibly(|connection, state| each_row(connection, request, state, on_row))
    }

    fn worklist_row(&mut self, id: i64) -> Result<Option<WorklistRow>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM worklist_item WHERE id = $1");
        Ok(self.list(&sql, &[&id], item_of)?.pop())
    }

    fn worklist_asked(&mut self) -> Result<Vec<WorklistAsked>, Error> {
        self.list("SELECT item, ae_title, asked_ms FROM worklist_asked ORDER BY item", &[], |row| {
            Ok(WorklistAsked { item: row.try_get(0)?, ae_title: text(row, 1)?, asked_ms: row.try_get(2)? })
        })
    }

    fn worklist_problems(&mut self) -> Result<Vec<WorklistProblem>, Error> {
        let sql = "SELECT source, origin, reason, noted_ms FROM worklist_problem ORDER BY noted_ms DESC, id DESC";
        self.list(sql, &[], |row| {
            let (source, noted_ms) = (source(row, 0)?, row.try_get(3)?);
            Ok(WorklistProblem { source, origin: text(row, 1)?, reason: text(row, 2)?, noted_ms })
        })
    }

    fn worklist_arrivals(&mut self, unexpired_at: i64) -> Result<Vec<WorklistArrival>, Error> {
        let arrived = "w.instances_ms > 0 OR sum(g.instance_count) > w.instances OR max(r.first_ms) > w.received_ms";
        let sql = counts_of_items("w.expires_ms > $1", arrived);
        self.list(&sql, &[&unexpired_at], |row| {
            Ok(WorklistArrival {
                item: row.try_get(0)?,
                state: state(row, 1)?,
                instances: to_u64(row.try_get(2)?),
                noted_instances: to_u64(row.try_get(3)?),
                noted_ms: row.try_get(4)?,
            })
        })
    }

    fn performed_steps(&mut self) -> Result<Vec<PerformedStep>, Error> {
        let sql = format!("SELECT {STEP_COLUMNS} FROM performed_step ORDER BY changed_ms DESC, id DESC");
        self.list(&sql, &[], step_of)
    }

    fn worklist_counts(&mut self) -> Result<Vec<(WorklistState, u64)>, Error> {
        let sql = "SELECT state, count(*) FROM worklist_item WHERE state BETWEEN 0 AND 4 GROUP BY state ORDER BY state";
        self.list(sql, &[], |row| Ok((state(row, 0)?, to_u64(row.try_get(1)?))))
    }
}

/// Reads the rows of a request through a cursor.
fn each_row(
    connection: &mut ServerConnection,
    request: &WorklistRequest,
    state: &QuestionState,
    on_row: &mut dyn FnMut(WorklistRow) -> ControlFlow<()>,
) -> Result<(), ServerFailure> {
    let mut conditions = vec!["true".to_owned()];
    let mut parameters = ConditionParameters::default();
    if request.open_at.is_some() {
        conditions.push("state <= 1 AND expires_ms > $1".to_owned());
    }
    for condition in &request.conditions {
        let column = column_name(condition.column);
        let Some(sql) = parameters.narrowed(column, &condition.narrowing, request.open_at.is_some()) else { continue };
        conditions.push(match condition.passes_several {
            true => format!("({sql} OR position('\\' in {column}) > 0)"),
            false => sql,
        });
    }
    let sql = format!(
        "DECLARE found_items NO SCROLL CURSOR FOR SELECT {COLUMNS} FROM worklist_item WHERE {} \
         ORDER BY start_date, start_time, id",
        conditions.join(" AND ")
    );
    let open_at = request.open_at.iter().map(|now_ms| (now_ms as SqlParameter<'_>, Type::INT8));
    let texts = parameters.0.iter().map(|texts| (texts as SqlParameter<'_>, Type::TEXT_ARRAY));
    connection.open_cursor(&sql, &open_at.chain(texts).collect::<Vec<_>>())?;
    loop {
        let rows = connection.fetch(FETCHED, "found_items")?;
        for row in &rows {
            if state.is_interrupted() {
                return Err(Error::Interrupted.into());
            }
            if on_row(item_of(row)?).is_break() {
                return Ok(());
            }
        }
        if rows.len() < FETCHED {
            return Ok(());
        }
    }
}

/// The parameters of conditions. Each is a list of texts.
#[derive(Default)]
struct ConditionParameters(Vec<Vec<String>>);

impl ConditionParameters {
    /// The condition in SQL. `None` if SQL has none.
    fn narrowed(&mut self, column: &str, narrowing: &Narrowing, has_moment: bool) -> Option<String> {
        let number = self.0.len() + 1 + usize::from(has_moment);
        let (sql, texts) = match narrowing {
            Narrowing::Equals(values) => (format!("{column} = ANY(${number})"), values.clone()),
            Narrowing::Between(first, last) => {
                (format!("{column} BETWEEN ${number}[1] AND ${number}[2]"), vec![first.clone(), last.clone()])
            }
            Narrowing::Prefix(prefix) => match after_prefix(&to_column(prefix)) {
                Some(after) => (
                    format!("({column} >= ${number}[1] AND {column} < ${number}[2])"),
                    vec![prefix.clone(), from_column(&after)],
                ),
                None => (format!("{column} >= ${number}[1]"), vec![prefix.clone()]),
            },
            Narrowing::None | Narrowing::NamePrefix(_) | Narrowing::NamePart(_) | Narrowing::NameWord { .. } => {
                return None;
            }
        };
        self.0.push(texts.iter().map(|text| to_column(text)).collect());
        Some(sql)
    }
}

/// The statement that counts the instances of the steps of these open items, as that of an index
/// file does.
fn counts_of_items(items: &str, having: &str) -> String {
    let of_item = format!(
        "JOIN shelf g ON g.study = s.id LEFT JOIN arrival r ON r.id = g.arrival \
         WHERE {items} AND w.state <= 1 AND coalesce(r.first_ms, w.received_ms) + {LONGEST_ARRIVAL_MS} > w.received_ms \
         AND (NOT EXISTS (SELECT FROM worklist_item o WHERE o.study_key = w.study_key \
         AND o.id <> w.id AND o.state <= 2) OR g.said::json ->> 'modality' = w.modality \
         AND (position('00400009' IN coalesce(g.said::json ->> 'request_attributes_sequence', '')) = 0 \
         OR position('\"' || w.step_id || '\"' IN g.said::json ->> 'request_attributes_sequence') > 0))"
    );
    let columns = "w.id, w.state, sum(g.instance_count)::bigint AS counted, w.instances, w.instances_ms";
    format!(
        "SELECT {columns} \
         FROM worklist_item w JOIN study s ON s.uid_key = w.study_key {of_item} GROUP BY w.id HAVING {having} \
         UNION ALL \
         SELECT {columns} \
         FROM worklist_item w JOIN study s ON s.accession_number = w.accession_number \
         JOIN study_patient p ON p.study = s.id AND p.position = 0 AND p.patient_id = w.patient_id {of_item} \
         AND w.accession_number <> '' AND w.patient_id <> '' \
         AND NOT EXISTS (SELECT FROM study o WHERE o.uid_key = w.study_key) GROUP BY w.id HAVING {having}"
    )
}

/// The tables of the worklist. A transaction is open on the connection.
pub(super) struct PostgresWorklist<'c> {
    connection: &'c mut ServerConnection,
    now_ms: i64,
}

impl<'c> PostgresWorklist<'c> {
    /// Has other nodes wait until the end of the transaction. So no change is made again because of
    /// another one.
    pub(super) fn lock(connection: &'c mut ServerConnection, now_ms: i64) -> Result<Self, ServerFailure> {
        connection.execute("SELECT pg_advisory_xact_lock($1)", &[&WORKLIST_LOCK])?;
        Ok(Self { connection, now_ms })
    }

    /// Has new items get numbers above those that are there.
    pub(super) fn go_on_counting(&mut self) -> Result<(), ServerFailure> {
        self.connection.run(
            "SELECT setval(pg_get_serial_sequence('worklist_item', 'id'), max(id)) FROM worklist_item \
             HAVING count(*) > 0",
        )
    }

    fn execute(&mut self, sql: &str, parameters: &[SqlParameter<'_>]) -> Result<u64, Error> {
        self.connection.execute(sql, parameters).map_err(of_work)
    }

    fn query<T>(
        &mut self,
        sql: &str,
        parameters: &[SqlParameter<'_>],
        read: impl Fn(&Row) -> Result<T, ServerFailure>,
    ) -> Result<Vec<T>, Error> {
        let rows = self.connection.query(sql, parameters).map_err(of_work)?;
        rows.iter().map(read).collect::<Result<_, _>>().map_err(of_work)
    }

    /// Notes the instances that are there as none that came for this item.
    fn note_present(&mut self, item: i64) -> Result<(), Error> {
        let present = counts_of_items("w.id = $1", "true");
        let sql = format!(
            "UPDATE worklist_item SET instances = coalesce((SELECT sum(counted) FROM ({present}) c), 0) \
             WHERE id = $1 AND instances_ms = 0"
        );
        self.execute(&sql, &[&item]).map(drop)
    }

    fn items(&mut self, condition: &str, parameters: &[SqlParameter<'_>]) -> Result<Vec<WorklistRow>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM worklist_item WHERE {condition} ORDER BY id");
        self.query(&sql, parameters, item_of)
    }
}

/// The error of work on the tables.
fn of_work(failure: ServerFailure) -> Error {
    failure.of("the database")
}

fn step_key(study_instance_uid: &str, step_id: &str) -> RowKey {
    RowKey::of(&[study_instance_uid.as_bytes(), step_id.as_bytes()])
}

impl WorklistTables for PostgresWorklist<'_> {
    fn find(&mut self, by: WorklistBy<'_>) -> Result<Vec<WorklistRow>, Error> {
        match by {
            WorklistBy::Id(id) => self.items("id = $1", &[&id]),
            WorklistBy::Step(study, step) => self.items("step_key = $1", &[&step_key(study, step)]),
            WorklistBy::Order(order) => self.items("order_key = $1 AND order_key <> ''", &[&to_column(order)]),
            WorklistBy::Accession(number) => self.items("accession_number = $1", &[&to_column(number)]),
            WorklistBy::Study(study) => self.items("study_key = $1", &[&RowKey::of_uid(study)]),
            WorklistBy::Origin(source, origin) => {
                self.items("source = $1 AND origin = $2", &[&source_number(source), &to_column(origin)])
            }
            WorklistBy::OpenOfPatient(patient) => self.items("patient_id = $1 AND state <= 1", &[&to_column(patient)]),
        }
    }

    fn put(&mut self, row: &WorklistRow) -> Result<i64, Error> {
        let id = (row.id != 0).then_some(row.id);
        let has_same_study = id.is_some() && self.find(WorklistBy::Id(row.id))?.iter().any(|it| row.has_study_of(it));
        let study = row.value(WorklistColumn::StudyInstanceUid);
        let keys = (RowKey::of_uid(study), step_key(study, row.value(WorklistColumn::StepId)));
        let texts: Vec<String> = row.values.iter().map(|value| to_column(value)).collect();
        let more = [&row.item, &row.character_set, &row.order_key].map(|text| to_column(text));
        let lists = [&row.generated, &row.warnings].map(|texts| to_column(&texts_column(texts)));
        let (source, origin, state) = (source_number(row.source), to_column(&row.origin), state_number(row.state));
        let message_time = to_column(&row.message_time);
        let mut parameters: Vec<SqlParameter<'_>> = vec![&id];
        parameters.extend(texts.iter().map(|text| text as SqlParameter<'_>));
        parameters.extend(more.iter().map(|text| text as SqlParameter<'_>));
        parameters.extend([&source as SqlParameter<'_>, &origin, &lists[0], &lists[1], &state]);
        parameters.extend([&row.received_ms as SqlParameter<'_>, &row.changed_ms, &row.expires_ms, &message_time]);
        parameters.extend([&keys.0 as SqlParameter<'_>, &keys.1]);
        let numbers = (2..=parameters.len()).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ");
        let columns = COLUMNS.split_once(", ").map_or(COLUMNS, |(_id, columns)| columns);
        let columns = format!("{columns}, study_key, step_key");
        let sql = format!(
            "INSERT INTO worklist_item (id, {columns}) OVERRIDING SYSTEM VALUE \
             VALUES (coalesce($1, nextval(pg_get_serial_sequence('worklist_item', 'id'))), {numbers}) \
             ON CONFLICT (id) DO UPDATE SET ({columns}) = ROW ({numbers}) RETURNING id"
        );
        let written = self.query(&sql, &parameters, |row| Ok(row.try_get(0)?))?;
        let none = || Error::Malformed("an item of the worklist has no number".into());
        let id = written.first().copied().ok_or_else(none)?;
        if !has_same_study {
            self.note_present(id)?;
        }
        Ok(id)
    }

    fn remove(&mut self, id: i64) -> Result<bool, Error> {
        self.execute("DELETE FROM worklist_asked WHERE item = $1", &[&id])?;
        Ok(self.execute("DELETE FROM worklist_item WHERE id = $1", &[&id])? > 0)
    }

    fn note_problem(&mut self, problem: &WorklistProblem) -> Result<(), Error> {
        let WorklistProblem { source, origin, reason, noted_ms } = problem;
        if *source == WorklistSource::File {
            self.clear_problems(*source, origin)?;
        }
        let sql = "INSERT INTO worklist_problem (source, origin, reason, noted_ms) VALUES ($1, $2, $3, $4)";
        let parameters: [SqlParameter<'_>; 4] =
            [&source_number(*source), &to_column(origin), &to_column(reason), noted_ms];
        self.execute(sql, &parameters).map(drop)
    }

    fn clear_problems(&mut self, source: WorklistSource, origin: &str) -> Result<(), Error> {
        let sql = "DELETE FROM worklist_problem WHERE source = $1 AND origin = $2";
        self.execute(sql, &[&source_number(source), &to_column(origin)]).map(drop)
    }

    fn note_asked(&mut self, asked: &[WorklistAsked]) -> Result<(), Error> {
        // An item that is gone meanwhile gets no row.
        let sql = "INSERT INTO worklist_asked (item, ae_title, asked_ms) SELECT id, $2::text, $3::bigint FROM worklist_item \
             WHERE id = $1 ON CONFLICT (item) DO UPDATE SET ae_title = $2, asked_ms = $3 \
             WHERE worklist_asked.asked_ms <= $3";
        for WorklistAsked { item, ae_title, asked_ms } in asked {
            self.execute(sql, &[item, &to_column(ae_title), asked_ms])?;
        }
        Ok(())
    }

    fn performed_step(&mut self, sop_instance_uid: &str) -> Result<Option<PerformedStep>, Error> {
        let sql = format!("SELECT {STEP_COLUMNS} FROM performed_step WHERE uid_key = $1");
        Ok(self.query(&sql, &[&RowKey::of_uid(sop_instance_uid)], step_of)?.pop())
    }

    fn steps_in_progress(&mut self) -> Result<Vec<PerformedStep>, Error> {
        let sql = format!("SELECT {STEP_COLUMNS} FROM performed_step WHERE status = 'IN PROGRESS'");
        self.query(&sql, &[], step_of)
    }

    fn put_performed_step(&mut self, step: &PerformedStep) -> Result<(), Error> {
        let PerformedStep { sop_instance_uid, status, station_ae_title, attributes, sender, created_ms, changed_ms } =
            step;
        let texts = [sop_instance_uid, status, station_ae_title, attributes, sender].map(|text| to_column(text));
        let key = RowKey::of_uid(sop_instance_uid);
        let mut parameters: Vec<SqlParameter<'_>> = texts.iter().map(|text| text as SqlParameter<'_>).collect();
        parameters.extend([created_ms as SqlParameter<'_>, changed_ms, &key]);
        let sql = format!(
            "INSERT INTO performed_step ({STEP_COLUMNS}, uid_key) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
             ON CONFLICT (uid_key) DO UPDATE SET ({STEP_COLUMNS}) = ROW ($1, $2, $3, $4, $5, $6, $7)"
        );
        self.execute(&sql, &parameters).map(drop)
    }

    fn note_arrival(&mut self, item: i64, instances: u64, now_ms: i64) -> Result<(), Error> {
        let sql = "UPDATE worklist_item SET instances = $2, instances_ms = $3 WHERE id = $1";
        self.execute(sql, &[&item, &to_i64(instances), &now_ms]).map(drop)
    }

    fn set_state(&mut self, item: i64, state: WorklistState, now_ms: i64) -> Result<(), Error> {
        let sql = "UPDATE worklist_item SET state = $2, changed_ms = $3 WHERE id = $1 AND state <= 1 AND state <> $2";
        self.execute(sql, &[&item, &state_number(state), &now_ms]).map(drop)
    }

    fn file_origins(&mut self) -> Result<Vec<String>, Error> {
        let sql = "SELECT origin FROM worklist_item WHERE source = 0 \
                   UNION SELECT origin FROM worklist_problem WHERE source = 0";
        self.query(sql, &[], |row| text(row, 0))
    }

    fn forget_before(&mut self, before_ms: i64) -> Result<u64, Error> {
        let before_ms = before_ms.saturating_sub(ahead_ms(self.connection, self.now_ms).map_err(of_work)?);
        let over = "changed_ms < $1 AND (state > 1 OR expires_ms < $1)";
        let asked = format!("DELETE FROM worklist_asked WHERE item IN (SELECT id FROM worklist_item WHERE {over})");
        self.execute(&asked, &[&before_ms])?;
        let count = self.execute(&format!("DELETE FROM worklist_item WHERE {over}"), &[&before_ms])?;
        self.execute("DELETE FROM worklist_problem WHERE noted_ms < $1 AND source <> 0", &[&before_ms])?;
        self.execute("DELETE FROM performed_step WHERE changed_ms < $1", &[&before_ms])?;
        Ok(count)
    }
}

impl WorklistChanges for PostgresWriterHandle {
    fn change_worklist(&self, work: WorklistWork) -> Result<(), Error> {
        let mut work = Some(work);
        self.change_index(move |changer, now_ms| {
            changer.transaction(|connection, _| {
                let mut tables = PostgresWorklist::lock(connection, now_ms)?;
                // Work is done once. If the server is gone in the midst of it, its caller hears
                // that.
                let work = work.take().ok_or_else(|| ServerFailure::Other(Error::Locked))?;
                Ok(work(&mut tables)?)
            })
        })
    }

    fn has_other_folders(&self) -> bool {
        true
    }
}
