//! The question that a reader is asked, as other threads see it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use super::connection::Canceller;

/// State of a question that another thread may know.
#[derive(Default)]
pub(super) struct QuestionState {
    is_asked: AtomicBool,
    is_interrupted: AtomicBool,
    /// Cancels what the server does for the question. `None` while there is none.
    running: Mutex<Option<Canceller>>,
    /// Whether the server was asked to cancel. It may then cancel the next statement of the
    /// connection.
    was_cancelled: AtomicBool,
}

impl QuestionState {
    pub(super) fn begin(&self) {
        self.is_interrupted.store(false, SeqCst);
        self.is_asked.store(true, SeqCst);
    }

    /// Ends the question. Returns whether the connection must not be used any more.
    pub(super) fn end(&self) -> bool {
        self.is_asked.store(false, SeqCst);
        self.was_cancelled.swap(false, SeqCst)
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(SeqCst)
    }

    pub(super) fn set_running(&self, canceller: Option<Canceller>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = canceller;
    }

    /// Interrupts the question, if there is one.
    pub(super) fn interrupt(&self) {
        if !self.is_asked.load(SeqCst) {
            return;
        }
        self.is_interrupted.store(true, SeqCst);
        if let Some(canceller) = self.running.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            self.was_cancelled.store(true, SeqCst);
            canceller.cancel();
        }
    }
}
