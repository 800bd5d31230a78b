//! A query to its answers.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use super::error::FindError;
use super::parse::Query;
use crate::db::{self, Search};
use crate::model::find::FindAnswer;

/// Stops one query from another thread: for C-CANCEL, a peer that went away, a time limit.
#[derive(Debug)]
pub struct Stop {
    state: Mutex<State>,
    interrupt: db::Interrupt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Going,
    Cancelled,
    TimedOut,
    /// The reader may be at another query: do not touch it.
    Ended,
}

impl Stop {
    /// For the next query of this reader.
    #[must_use]
    pub fn new(reader: &impl Search) -> Self {
        Self { state: Mutex::new(State::Going), interrupt: reader.interrupt() }
    }

    /// Stops the query; it ends with [`FindError::Cancelled`]. Does nothing once it has ended.
    ///
    /// SQLite only hears this while a statement runs. A caller that wants to be sure says it again until the query has ended.
    pub fn cancel(&self) {
        self.stop(State::Cancelled);
    }

    /// Stops the query; it ends with [`FindError::TimeLimit`]. Otherwise as [`Self::cancel`].
    pub fn time_out(&self) {
        self.stop(State::TimedOut);
    }

    fn stop(&self, reason: State) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Going {
            *state = reason;
        }
        if *state != State::Ended {
            self.interrupt.interrupt();
        }
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, and says why it was stopped, if it was.
    fn end(&self) -> Option<FindError> {
        match std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Ended) {
            State::Going | State::Ended => None,
            State::Cancelled => Some(FindError::Cancelled),
            State::TimedOut => Some(FindError::TimeLimit),
        }
    }
}

/// Answers a query: calls `on_answer` for each matching entity, in a fixed order, until there are no more or it says to
/// stop. Returns how many answers there were.
///
/// # Errors
/// [`FindError::TooManyMatches`] after as many answers as the limit allows, [`FindError::Cancelled`] when `stop` or
/// `on_answer` said so, [`FindError::TimeLimit`], or [`FindError::Index`].
pub fn run(
    reader: &mut impl Search,
    query: &Query,
    stop: &Stop,
    mut on_answer: impl FnMut(FindAnswer) -> ControlFlow<()>,
) -> Result<u64, FindError> {
    let mut answered = 0;
    let mut refused = false;
    let mut too_many = false;
    let mut each = |answer: FindAnswer| {
        if stop.state() != State::Going {
            return ControlFlow::Break(());
        }
        if query.limit == Some(answered) {
            too_many = true;
            return ControlFlow::Break(());
        }
        answered += 1;
        refused = on_answer(answer).is_break();
        if refused { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let outcome = match stop.state() {
        State::Going => reader.find(&query.request, &mut each),
        State::Cancelled | State::TimedOut | State::Ended => Ok(0),
    };
    let stopped = stop.end();
    match outcome {
        Ok(_) if too_many => Err(FindError::TooManyMatches(answered)),
        Ok(_) if refused => Err(FindError::Cancelled),
        Ok(_) => stopped.map_or(Ok(answered), Err),
        Err(db::Error::Interrupted) => Err(stopped.unwrap_or(FindError::Cancelled)),
        Err(error) => Err(FindError::Index(error)),
    }
}
