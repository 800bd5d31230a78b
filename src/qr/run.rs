//! Runs a query against the index.

use std::ops::ControlFlow;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::error::FindError;
use super::parse::Query;
use crate::db::{self, Search};
use crate::model::find::FindAnswer;

/// Stops one query from another thread: after C-CANCEL, a lost peer, or a time limit.
#[derive(Debug)]
pub struct QueryStop {
    state: Mutex<QueryState>,
    interrupt: db::Interrupt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueryState {
    Going,
    Cancelled,
    TimedOut,
    /// The query has ended. The reader may run another one, so it must not be interrupted.
    Ended,
}

impl QueryStop {
    /// Creates the stop for the next query of this reader.
    #[must_use]
    pub fn new(reader: &impl Search) -> Self {
        Self { state: Mutex::new(QueryState::Going), interrupt: reader.interrupt() }
    }

    /// Stops the query, which ends with [`FindError::Cancelled`]. It has no effect once the query
    /// has ended.
    ///
    /// SQLite notices an interrupt only while a statement runs. To be sure, a caller repeats the
    /// call until the query has ended.
    pub fn cancel(&self) {
        self.stop(QueryState::Cancelled);
    }

    /// Stops the query as [`Self::cancel`] does. It ends with [`FindError::TimeLimit`].
    pub fn time_out(&self) {
        self.stop(QueryState::TimedOut);
    }

    fn stop(&self, reason: QueryState) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == QueryState::Going {
            *state = reason;
        }
        if *state != QueryState::Ended {
            self.interrupt.interrupt();
        }
    }

    fn state(&self) -> QueryState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the query as ended. Returns the reason if it was stopped.
    fn end(&self) -> Option<FindError> {
        match std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), QueryState::Ended) {
            QueryState::Going | QueryState::Ended => None,
            QueryState::Cancelled => Some(FindError::Cancelled),
            QueryState::TimedOut => Some(FindError::TimeLimit),
        }
    }
}

/// Stops a query from outside from its first moment on, also before it has a reader.
#[derive(Debug, Default)]
pub struct QueryControl {
    stop: OnceLock<QueryStop>,
    /// The first order. Later ones change nothing.
    order: OnceLock<StopOrder>,
}

/// Reason why a query has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOrder {
    /// The query ends with [`FindError::Cancelled`].
    Cancel,
    /// The query ends with [`FindError::TimeLimit`].
    TimeOut,
}

impl StopOrder {
    /// The error with which the query ends.
    #[must_use]
    pub const fn error(self) -> FindError {
        match self {
            Self::Cancel => FindError::Cancelled,
            Self::TimeOut => FindError::TimeLimit,
        }
    }
}

impl QueryControl {
    /// The query of this reader begins. An order that came before applies.
    pub fn begin(&self, reader: &impl Search) -> &QueryStop {
        let stop = self.stop.get_or_init(|| QueryStop::new(reader));
        self.repeat();
        stop
    }

    /// Stops the query now, or as soon as it begins.
    ///
    /// SQLite may not notice it, so a caller calls [`Self::repeat`] until the query has ended.
    pub fn stop(&self, order: StopOrder) {
        // The order is stored before the query is looked up. The query is stored before it looks
        // for an order.
        self.order.get_or_init(|| order);
        self.repeat();
    }

    /// The first order.
    #[must_use]
    pub fn order(&self) -> Option<StopOrder> {
        self.order.get().copied()
    }

    /// Repeats the first order.
    pub fn repeat(&self) {
        match (self.stop.get(), self.order.get()) {
            (Some(stop), Some(StopOrder::Cancel)) => stop.cancel(),
            (Some(stop), Some(StopOrder::TimeOut)) => stop.time_out(),
            (None, _) | (_, None) => {}
        }
    }
}

/// Answers a query. It calls `on_answer` for each matching entity, in a fixed order, until there
/// are no more or `on_answer` stops it. Returns the number of answers.
///
/// # Errors
/// - [`FindError::TooManyMatches`] once the limit of answers is reached and there are more.
/// - [`FindError::Cancelled`] if `stop` or `on_answer` ended the query.
/// - [`FindError::TimeLimit`] if the time limit passed.
/// - [`FindError::Index`] if the index fails.
pub fn run(
    reader: &mut impl Search,
    query: &Query,
    stop: &QueryStop,
    on_answer: impl FnMut(FindAnswer) -> ControlFlow<()>,
) -> Result<u64, FindError> {
    run_by(stop, query.limit, |each| reader.find(&query.request, each).map(drop), on_answer)
}

/// Works as [`run`], for an `on_answer` that may fail. Its error ends the query, and is returned.
/// `None` if the query was cancelled, by `stop` or since `on_answer` wanted no more.
///
/// # Errors
/// Fails with the error of `on_answer`, and otherwise as [`run`] does.
pub fn try_run<E: From<FindError>>(
    reader: &mut impl Search,
    query: &Query,
    stop: &QueryStop,
    mut on_answer: impl FnMut(FindAnswer) -> Result<ControlFlow<()>, E>,
) -> Result<Option<u64>, E> {
    let mut failure = None;
    let found = run(reader, query, stop, |answer| {
        on_answer(answer).unwrap_or_else(|error| {
            failure = Some(error);
            ControlFlow::Break(())
        })
    });
    match (failure, found) {
        (Some(error), _) => Err(error),
        (None, Err(FindError::Cancelled)) => Ok(None),
        (None, found) => Ok(Some(found?)),
    }
}

/// Works as [`run`], for a question that `ask` puts to the index. `ask` gets a callback. It calls
/// it once for each answer, until the callback returns `Break`.
///
/// # Errors
/// Fails as [`run`] does.
pub fn run_by<A>(
    stop: &QueryStop,
    limit: Option<u64>,
    ask: impl FnOnce(&mut dyn FnMut(A) -> ControlFlow<()>) -> Result<(), db::Error>,
    mut on_answer: impl FnMut(A) -> ControlFlow<()>,
) -> Result<u64, FindError> {
    let mut answered = 0;
    let mut refused = false;
    let mut too_many = false;
    let mut each = |answer: A| {
        if stop.state() != QueryState::Going {
            return ControlFlow::Break(());
        }
        if limit == Some(answered) {
            too_many = true;
            return ControlFlow::Break(());
        }
        answered += 1;
        refused = on_answer(answer).is_break();
        if refused { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let outcome = match stop.state() {
        QueryState::Going => ask(&mut each),
        QueryState::Cancelled | QueryState::TimedOut | QueryState::Ended => Ok(()),
    };
    let stopped = stop.end();
    match outcome {
        Ok(()) if too_many => Err(FindError::TooManyMatches(answered)),
        Ok(()) if refused => Err(FindError::Cancelled),
        Ok(()) => stopped.map_or(Ok(answered), Err),
        Err(db::Error::Interrupted) => Err(stopped.unwrap_or(FindError::Cancelled)),
        Err(error) => Err(FindError::Index(error)),
    }
}
