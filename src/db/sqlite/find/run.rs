//! Answering a query.

use std::ops::ControlFlow;

use rusqlite::{Connection, params_from_iter};

use super::super::mounts::Mounts;
use super::answers::{Further, RowAnswers};
use super::compile::{Statement, compile};
use super::functions::{Matchers, is_end_of_sample};
use super::lookup::statement_of;
use crate::db::Error;
use crate::db::plan::{LookUp, PlanEffort};
use crate::model::find::{FindAnswer, FindRequest};

/// Answers a query: see [`Search::find`](crate::db::Search::find).
pub(in crate::db::sqlite) fn run(
    connection: &Connection,
    matchers: &Matchers,
    mounts: &mut Mounts,
    request: &FindRequest,
    on_answer: impl FnMut(FindAnswer) -> ControlFlow<()>,
) -> Result<u64, Error> {
    if request.limit == Some(0) {
        return Ok(0);
    }
    // One transaction has the answers of one moment, even with several statements.
    let transaction = connection.unchecked_transaction()?;
    let compiled = compile(connection, matchers, mounts, request, PlanEffort::Little)?;
    let mut answers = RowAnswers::new(connection, request, compiled.has_order, on_answer)?;
    let mut give = || -> Result<(), Error> {
        let mut further =
            compiled.further.as_ref().map(|further| connection.prepare_cached(&further.sql)).transpose()?;
        let mut further = match (&mut further, &compiled.further) {
            (Some(prepared), Some(further)) => {
                Some(Further::new(prepared.query(params_from_iter(&further.parameters))?))
            }
            (Some(_) | None, _) => None,
        };
        // Rows already given by the sampling statement. The final statement returns them again, in
        // the same order, so they are skipped.
        let mut sampled = 0;
        let mut each = |statement: &Statement, further: Option<&mut Further<'_>>, sampled: &mut u64| {
            let again = std::mem::take(sampled);
            give_rows(connection, statement, &mut answers, further, (again, sampled))
        };
        match each(&compiled.first, further.as_mut(), &mut sampled) {
            Err(end) if compiled.is_sample && is_end_of_sample(&end, matchers) => {}
            // There were no more rows than the sample, so that was all of them.
            ended => return ended.map_err(Error::from),
        }
        let all = compile(connection, matchers, mounts, request, PlanEffort::All)?;
        each(&all.first, further.as_mut(), &mut sampled).map_err(Error::from)
    };
    give()?;
    transaction.finish()?;
    Ok(answers.answered())
}

/// Gives the answers of a statement, without the first rows that were taken before. Counts those
/// that it takes.
fn give_rows<F: FnMut(FindAnswer) -> ControlFlow<()>>(
    connection: &Connection,
    statement: &Statement,
    answers: &mut RowAnswers<'_, F>,
    mut further: Option<&mut Further<'_>>,
    (mut again, taken): (u64, &mut u64),
) -> rusqlite::Result<()> {
    let mut prepared = connection.prepare_cached(&statement.sql)?;
    let mut rows = prepared.query(params_from_iter(&statement.parameters))?;
    while let Some(row) = rows.next()? {
        if again > 0 {
            again -= 1;
            continue;
        }
        *taken += 1;
        if answers.take(row, further.as_deref_mut())?.is_break() {
            return Ok(());
        }
    }
    answers.finish(further).map(|_| ())
}

/// The statements of a query and their plans.
pub(in crate::db::sqlite) fn explain(
    connection: &Connection,
    matchers: &Matchers,
    mounts: &mut Mounts,
    request: &FindRequest,
) -> Result<String, Error> {
    let mut text = String::new();
    let look_ups = request.matching_keys.iter().filter_map(|key| statement_of(&LookUp::of(key, false)?));
    let mut statements: Vec<_> =
        look_ups.map(|sql| Statement { sql: sql.to_owned(), parameters: Vec::new() }).collect();
    let compiled = compile(connection, matchers, mounts, request, PlanEffort::All)?;
    statements.push(compiled.first);
    statements.extend(compiled.further);
    for statement in statements {
        let plan = || -> rusqlite::Result<Vec<String>> {
            let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", statement.sql))?;
            // A value that is not bound is NULL. A plan does not depend on values.
            for (at, value) in statement.parameters.iter().enumerate() {
                explained.raw_bind_parameter(at + 1, value)?;
            }
            let mut rows = explained.raw_query();
            let mut steps = Vec::new();
            while let Some(row) = rows.next()? {
                steps.push(row.get(3)?);
            }
            Ok(steps)
        };
        text.push_str(&statement.sql);
        for line in plan()? {
            text.push_str("\n  ");
            text.push_str(&line);
        }
        text.push('\n');
    }
    Ok(text)
}
