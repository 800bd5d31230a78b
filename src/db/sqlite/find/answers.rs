//! Turns rows into answers. Each patient gets one answer. The answer of an entity under a further
//! patient is sorted into its position among the others.

use std::cell::Cell;
use std::cmp::Reverse;
use std::ops::ControlFlow;

use rusqlite::{Connection, Row, Rows};

use super::super::sql_values::{put_text_of, text_of};
use super::located::{LOCATION_COLUMNS, LocationColumns};
use super::records::record_key;
use crate::db::rules;
use crate::model::answer_values::AnswerValues;
use crate::model::find::{AnswerKey, AnswerOrder, FindAnswer, FindRequest};
use crate::model::level::QueryRetrieveLevel;

/// Gives the answers of a query to the caller. Its rows have the character set, the answered
/// values, and then the columns of [`order_columns`].
pub(super) struct RowAnswers<'c, F> {
    connection: &'c Connection,
    level: QueryRetrieveLevel,
    values: usize,
    /// Bytes of the values of the answer before: most have about as many.
    bytes: Cell<usize>,
    skip: u64,
    limit: Option<u64>,
    /// First column of the key, if a key is wanted.
    key_at: Option<usize>,
    /// If locations are wanted.
    located: Option<LocationColumns<'c>>,
    /// First column of the record key, if it is wanted.
    record_at: Option<usize>,
    answered: u64,
    on_answer: F,
    /// The patient whose descriptions are coming, with the best answer so far.
    waiting: Option<Waiting>,
}

struct Waiting {
    person: i64,
    row: i64,
    /// Read as soon as there is another description to compare with.
    description: Option<rules::Description>,
    answer: FindAnswer,
}

/// The position of an answer: date and time of the study, then row numbers and the numbers of
/// series and instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct AnswerPosition(Reverse<String>, Reverse<String>, Vec<i64>);

/// The columns after the answered values, which decide the position of an answer.
pub(super) const fn order_columns(level: QueryRetrieveLevel) -> &'static [&'static str] {
    match level {
        QueryRetrieveLevel::Patient => &["p.person", "p.id"],
        QueryRetrieveLevel::Study => &["s.study_date", "s.study_time", "s.patient", "s.id"],
        QueryRetrieveLevel::Series => {
            &["s.study_date", "s.study_time", "s.patient", "s.id", "CAST(e.series_number AS INTEGER)", "e.id"]
        }
        QueryRetrieveLevel::Image => &[
            "s.study_date",
            "s.study_time",
            "s.patient",
            "s.id",
            "CAST(e.series_number AS INTEGER)",
            "e.id",
            "CAST(i.instance_number AS INTEGER)",
            "i.instance_group",
        ],
    }
}

/// The columns after those, if the key of an answer is wanted.
pub(super) const fn key_columns(level: QueryRetrieveLevel) -> &'static [&'static str] {
    match level {
        QueryRetrieveLevel::Patient => &["p.patient_id", "p.identity", "p.issuer_of_patient_id"],
        QueryRetrieveLevel::Study => &["s.study_date", "s.study_time", "s.study_instance_uid"],
        QueryRetrieveLevel::Series => {
            &["s.study_date", "s.study_time", "s.study_instance_uid", "e.series_instance_uid"]
        }
        QueryRetrieveLevel::Image => &[
            "s.study_date",
            "s.study_time",
            "s.study_instance_uid",
            "e.series_instance_uid",
            "dcm_uid(i.uid_suffix, h.uid_prefix)",
        ],
    }
}

/// Answers under further patients of a study, in the same order as the others.
pub(super) struct Further<'s> {
    rows: Rows<'s>,
    next: Option<(AnswerPosition, FindAnswer)>,
    last: Option<AnswerPosition>,
    has_ended: bool,
}

impl<'s> Further<'s> {
    pub(super) const fn new(rows: Rows<'s>) -> Self {
        Self { rows, next: None, last: None, has_ended: false }
    }
}

impl<'c, F: FnMut(FindAnswer) -> ControlFlow<()>> RowAnswers<'c, F> {
    /// Makes the receiver of rows. `has_order` says whether they have the columns of
    /// [`order_columns`].
    pub(super) fn new(
        connection: &'c Connection,
        request: &FindRequest,
        has_order: bool,
        on_answer: F,
    ) -> rusqlite::Result<Self> {
        let declared = request.declared.iter().filter(|declared| declared.is_answered).count();
        let values = request.return_keys.len() + declared;
        let order = if has_order { order_columns(request.level).len() } else { 0 };
        let key = if request.wants_key { key_columns(request.level).len() } else { 0 };
        let located = if request.wants_location && request.level == QueryRetrieveLevel::Image {
            Some(LocationColumns::new(connection, 1 + values + order + key)?)
        } else {
            None
        };
        let location = if located.is_some() { LOCATION_COLUMNS.len() } else { 0 };
        let record_at = request.record.is_some().then_some(1 + values + order + key + location);
        Ok(Self {
            connection,
            level: request.level,
            values,
            bytes: Cell::default(),
            key_at: request.wants_key.then_some(1 + values + order),
            located,
            record_at,
            skip: request.offset,
            limit: request.limit,
            answered: 0,
            on_answer,
            waiting: None,
        })
    }

    /// The number of answers so far.
    pub(super) const fn answered(&self) -> u64 {
        self.answered
    }

    /// Takes a row. Break means that nobody wants any more.
    pub(super) fn take(
        &mut self,
        row: &Row<'_>,
        further: Option<&mut Further<'_>>,
    ) -> rusqlite::Result<ControlFlow<()>> {
        let answer = self.answer(row)?;
        if self.level == QueryRetrieveLevel::Patient {
            return self.take_patient(row, answer);
        }
        if let Some(further) = further.filter(|further| !further.has_ended) {
            let place = self.position(row)?;
            if self.hand_out_before(Some(&place), further)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(self.hand_out(answer))
    }

    /// Gives the answers that have waited for more rows, when there are no more.
    pub(super) fn finish(&mut self, further: Option<&mut Further<'_>>) -> rusqlite::Result<ControlFlow<()>> {
        if let Some(waiting) = self.waiting.take() {
            return Ok(self.hand_out(waiting.answer));
        }
        match further {
            Some(further) if !further.has_ended => self.hand_out_before(None, further),
            Some(_) | None => Ok(ControlFlow::Continue(())),
        }
    }

    fn answer(&self, row: &Row<'_>) -> rusqlite::Result<FindAnswer> {
        let values = AnswerValues::with_capacity(self.values, self.bytes.get());
        let mut answer = FindAnswer { values, ..FindAnswer::default() };
        answer.character_set = text_of(row.get_ref(0)?)?;
        for at in 0..self.values {
            let value = row.get_ref(at + 1)?;
            answer.values.try_push_with(|text| put_text_of(text, value))?;
        }
        self.bytes.set(answer.values.bytes());
        if let Some(at) = self.key_at {
            answer.key = Some(Box::new(self.key(row, at)?));
        }
        if let Some(located) = &self.located {
            answer.location = located.read(row)?;
        }
        if let Some(at) = self.record_at {
            answer.record = Some(Box::new(record_key(row, at, self.level)?));
        }
        Ok(answer)
    }

    fn key(&self, row: &Row<'_>, at: usize) -> rusqlite::Result<AnswerKey> {
        let text = |column: usize| row.get::<_, String>(at + column);
        let (order, uids) = match self.level {
            QueryRetrieveLevel::Patient => {
                (AnswerOrder::Patient { patient_id: text(0)?, identity: text(1)?, issuer: text(2)? }, 3..3)
            }
            level => {
                let order = AnswerOrder::Study { date: Reverse(text(0)?), time: Reverse(text(1)?) };
                (order, 2..key_columns(level).len())
            }
        };
        Ok(AnswerKey { order, uids: uids.map(text).collect::<rusqlite::Result<_>>()? })
    }

    fn position(&self, row: &Row<'_>) -> rusqlite::Result<AnswerPosition> {
        let first = self.values + 1;
        let numbers = (first + 2..first + order_columns(self.level).len()).map(|at| row.get(at));
        let (date, time) = (text_of(row.get_ref(first)?)?, text_of(row.get_ref(first + 1)?)?);
        Ok(AnswerPosition(Reverse(date), Reverse(time), numbers.collect::<rusqlite::Result<_>>()?))
    }

    fn hand_out(&mut self, answer: FindAnswer) -> ControlFlow<()> {
        if self.skip > 0 {
            self.skip -= 1;
            return ControlFlow::Continue(());
        }
        self.answered += 1;
        let go_on = (self.on_answer)(answer);
        if self.limit == Some(self.answered) { ControlFlow::Break(()) } else { go_on }
    }

    /// Gives one answer for each patient: of the descriptions that match, the first one by
    /// [`rules::compare_descriptions`]. The descriptions of a patient come one after the other.
    fn take_patient(&mut self, row: &Row<'_>, answer: FindAnswer) -> rusqlite::Result<ControlFlow<()>> {
        let (person, row) = (row.get::<_, Option<i64>>(self.values + 1)?, row.get(self.values + 2)?);
        if let Some(mut waiting) = self.waiting.take() {
            if Some(waiting.person) == person {
                let known = match waiting.description.take() {
                    Some(known) => known,
                    None => self.description(waiting.row)?,
                };
                let description = self.description(row)?;
                let is_better = rules::compare_descriptions(&description, &known).is_lt();
                self.waiting = Some(if is_better {
                    Waiting { row, description: Some(description), answer, ..waiting }
                } else {
                    Waiting { description: Some(known), ..waiting }
                });
                return Ok(ControlFlow::Continue(()));
            }
            if self.hand_out(waiting.answer).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        match person {
            Some(person) => {
                self.waiting = Some(Waiting { person, row, description: None, answer });
                Ok(ControlFlow::Continue(()))
            }
            None => Ok(self.hand_out(answer)),
        }
    }

    fn description(&self, row: i64) -> rusqlite::Result<rules::Description> {
        let columns: Vec<_> = rules::patient_attributes().map(|id| id.attribute().column).collect();
        let mut statement =
            self.connection.prepare_cached(&format!("SELECT {} FROM patient WHERE id = ?1", columns.join(", ")))?;
        statement.query_row([row], |row| (0..columns.len()).map(|at| row.get(at)).collect())
    }

    /// Gives the answers under further patients that come before this position. A study or series
    /// that was answered under one patient is not answered again under another.
    fn hand_out_before(
        &mut self,
        place: Option<&AnswerPosition>,
        further: &mut Further<'_>,
    ) -> rusqlite::Result<ControlFlow<()>> {
        let once = self.level != QueryRetrieveLevel::Image;
        loop {
            let (next, answer) = match further.next.take() {
                Some(next) => next,
                None => match further.rows.next()? {
                    Some(row) => (self.position(row)?, self.answer(row)?),
                    None => {
                        further.has_ended = true;
                        return Ok(ControlFlow::Continue(()));
                    }
                },
            };
            if once && (further.last.as_ref() == Some(&next) || place == Some(&next)) {
                continue;
            }
            if place.is_some_and(|place| *place < next) {
                further.next = Some((next, answer));
                return Ok(ControlFlow::Continue(()));
            }
            further.last = Some(next);
            if self.hand_out(answer).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
}
