//! Questions to the worklist.

use std::ops::ControlFlow;
use std::rc::Rc;

use rusqlite::types::Value;
use rusqlite::vtab::array;
use rusqlite::{ToSql, params, params_from_iter};

use super::super::reader::SqliteReader;
use super::super::schema::WORKLIST;
use super::super::sql_values::to_u64;
use super::rows::{performed_step, row, source, state};
use crate::db::arrival::LONGEST_ARRIVAL_MS;
use crate::db::worklist_columns::{COLUMNS, STEP_COLUMNS, column_name};
use crate::db::{
    Error, PerformedStep, WorklistArrival, WorklistAsked, WorklistColumn, WorklistProblem, WorklistRequest,
    WorklistRow, WorklistSearch, WorklistState,
};
use crate::model::matching::Narrowing;

impl WorklistSearch for SqliteReader {
    fn worklist(
        &mut self,
        request: &WorklistRequest,
        on_row: &mut dyn FnMut(WorklistRow) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        if !WORKLIST.are_in(&self.connection)? {
            return Ok(());
        }
        let (sql, parameters) = statement(request);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(parameters.iter()))?;
        while let Some(found) = rows.next()? {
            if on_row(row(found)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn worklist_row(&mut self, id: i64) -> Result<Option<WorklistRow>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM worklist_item WHERE id = ?1");
        Ok(self.list(&sql, params![id], row)?.pop())
    }

    fn worklist_asked(&mut self) -> Result<Vec<WorklistAsked>, Error> {
        self.list("SELECT item, ae_title, asked_ms FROM worklist_asked ORDER BY item", params![], |row| {
            Ok(WorklistAsked { item: row.get(0)?, ae_title: row.get(1)?, asked_ms: row.get(2)? })
        })
    }

    fn worklist_problems(&mut self) -> Result<Vec<WorklistProblem>, Error> {
        let sql = "SELECT source, origin, reason, noted_ms FROM worklist_problem ORDER BY noted_ms DESC, id DESC";
        self.list(sql, params![], |row| {
            let (number, origin) = (row.get(0)?, row.get(1)?);
            Ok(WorklistProblem { source: source(number)?, origin, reason: row.get(2)?, noted_ms: row.get(3)? })
        })
    }

    fn worklist_arrivals(&mut self, unexpired_at: i64) -> Result<Vec<WorklistArrival>, Error> {
        let sql = counts_of_items("w.expires_ms > ?1", HAS_ARRIVED);
        self.list(&sql, params![unexpired_at], |row| {
            Ok(WorklistArrival {
                item: row.get(0)?,
                state: state(row.get(1)?)?,
                instances: to_u64(row.get(2)?),
                noted_instances: to_u64(row.get(3)?),
                noted_ms: row.get(4)?,
            })
        })
    }

    fn performed_steps(&mut self) -> Result<Vec<PerformedStep>, Error> {
        let sql = format!("SELECT {STEP_COLUMNS} FROM performed_step ORDER BY changed_ms DESC, id DESC");
        self.list(&sql, params![], performed_step)
    }

    fn worklist_counts(&mut self) -> Result<Vec<(WorklistState, u64)>, Error> {
        let sql = "SELECT state, count(*) FROM worklist_item WHERE state BETWEEN 0 AND 4 GROUP BY state ORDER BY state";
        self.list(sql, params![], |row| Ok((state(row.get(0)?)?, to_u64(row.get(1)?))))
    }
}

impl SqliteReader {
    fn list<T>(
        &self,
        sql: &str,
        parameters: &[&dyn ToSql],
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        if !WORKLIST.are_in(&self.connection)? {
            return Ok(Vec::new());
        }
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(parameters, read)?;
        rows.collect::<rusqlite::Result<_>>().map_err(Error::from)
    }
}

/// Condition for an item whose study got instances after the item came. An arrival that had begun
/// then may go on, so what it has brought is counted.
pub(super) const HAS_ARRIVED: &str =
    "w.instances_ms > 0 OR sum(g.instance_count) > w.instances OR max(r.first_ms) > w.received_ms";

/// The statement that counts the instances of the steps of these open items. Arrivals that had
/// ended when the item came do not count.
pub(super) fn counts_of_items(items: &str, having: &str) -> String {
    // CROSS JOIN: there are fewer items than studies. Without it the order is left to guesses.
    let of_item = format!(
        "CROSS JOIN study_series e ON e.study = s.id CROSS JOIN instance_group g ON g.series = e.id \
         LEFT JOIN arrival r ON r.id = g.arrival \
         WHERE {items} AND w.state <= 1 AND ifnull(r.first_ms, w.received_ms) + {LONGEST_ARRIVAL_MS} > w.received_ms \
         AND (NOT EXISTS (SELECT 1 FROM worklist_item o WHERE o.study_instance_uid = w.study_instance_uid \
         AND o.id <> w.id AND o.state <= 2) OR e.modality = w.modality \
         AND (instr(e.request_attributes_sequence, '00400009') = 0 \
         OR instr(e.request_attributes_sequence, '\"' || w.step_id || '\"') > 0))"
    );
    let columns = "w.id, w.state, sum(g.instance_count) AS counted, w.instances, w.instances_ms";
    format!(
        "SELECT {columns} \
         FROM worklist_item w CROSS JOIN study s ON s.study_instance_uid = w.study_instance_uid {of_item} \
         GROUP BY w.id HAVING {having} \
         UNION ALL \
         SELECT {columns} \
         FROM worklist_item w CROSS JOIN study s ON s.accession_number = w.accession_number \
         CROSS JOIN patient p ON p.id = s.patient AND p.patient_id = w.patient_id {of_item} \
         AND w.accession_number <> '' AND w.patient_id <> '' \
         AND NOT EXISTS (SELECT 1 FROM study o WHERE o.study_instance_uid = w.study_instance_uid) \
         GROUP BY w.id HAVING {having}"
    )
}

/// The statement of a request, and its parameters.
///
/// The index to use is named, because SQLite has no statistics of a table that changes all day.
fn statement(request: &WorklistRequest) -> (String, Vec<Box<dyn ToSql>>) {
    let mut parameters: Vec<Box<dyn ToSql>> = Vec::new();
    let mut conditions = Vec::new();
    if let Some(now) = request.open_at {
        parameters.push(Box::new(now));
        conditions.push("state <= 1 AND expires_ms > ?".to_owned());
    }
    for condition in &request.conditions {
        let column = column_name(condition.column);
        let Some(sql) = narrowed(column, &condition.narrowing, &mut parameters) else { continue };
        conditions.push(if condition.passes_several { format!("({sql} OR instr({column}, '\\') > 0)") } else { sql });
    }
    let by = index(request).map(|index| format!(" INDEXED BY {index}")).unwrap_or_default();
    let filter = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
    let sql = format!("SELECT {COLUMNS} FROM worklist_item{by} WHERE {filter} ORDER BY start_date, start_time, id");
    (sql, parameters)
}

/// The condition in SQL. `None` if SQL has none.
fn narrowed(column: &str, narrowing: &Narrowing, parameters: &mut Vec<Box<dyn ToSql>>) -> Option<String> {
    match narrowing {
        Narrowing::Equals(values) => Some(match values.as_slice() {
            [one] => {
                parameters.push(Box::new(one.clone()));
                format!("{column} = ?")
            }
            several => {
                let values: Vec<Value> = several.iter().cloned().map(Value::from).collect();
                parameters.push(Box::new(array::Array::from(Rc::new(values))));
                format!("{column} IN rarray(?)")
            }
        }),
        Narrowing::Between(first, last) => {
            parameters.push(Box::new(first.clone()));
            parameters.push(Box::new(last.clone()));
            Some(format!("{column} BETWEEN ? AND ?"))
        }
        Narrowing::Prefix(prefix) => {
            // Nothing sorts after this character but longer texts that begin with it.
            parameters.push(Box::new(prefix.clone()));
            parameters.push(Box::new(format!("{prefix}\u{10FFFF}")));
            Some(format!("{column} BETWEEN ? AND ?"))
        }
        Narrowing::None | Narrowing::NamePrefix(_) | Narrowing::NamePart(_) | Narrowing::NameWord { .. } => None,
    }
}

/// The index that leads to the rows. `None` leaves it to SQLite.
fn index(request: &WorklistRequest) -> Option<&'static str> {
    request.open_at?;
    let is_exact = |column: WorklistColumn| {
        request.conditions.iter().any(|condition| {
            condition.column == column
                && !condition.passes_several
                && matches!(condition.narrowing, Narrowing::Equals(_))
        })
    };
    let narrows = |column: WorklistColumn| {
        request.conditions.iter().any(|condition| {
            condition.column == column
                && matches!(condition.narrowing, Narrowing::Equals(_) | Narrowing::Between(..) | Narrowing::Prefix(_))
        })
    };
    Some(if is_exact(WorklistColumn::StudyInstanceUid) {
        "worklist_item_by_step"
    } else if is_exact(WorklistColumn::AccessionNumber) {
        "worklist_item_by_accession"
    } else if is_exact(WorklistColumn::PatientId) {
        "worklist_item_by_patient"
    } else if is_exact(WorklistColumn::Modality) && narrows(WorklistColumn::StartDate) {
        "worklist_item_by_modality"
    } else {
        "worklist_item_by_start"
    })
}
