//! How far a retrieval is, and why sub-operations of it failed.

use tracing::debug;

use crate::deliver::error::DeliverError;
use crate::deliver::object::ObjectError;
use crate::dimse::Status;
use crate::dimse::message::SubOperations;
use crate::dimse::status::StatusClass;
use crate::telemetry::metrics;

/// How a retrieval ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Each sub-operation was tried.
    Complete,
    /// The peer said C-CANCEL.
    Cancelled,
}

/// Whether the number of remaining sub-operations has a meaning (PS3.7 9.3.3.2, 9.3.4.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Going {
    On,
    Ended,
}

/// How far a retrieval is.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    total: usize,
    completed: usize,
    warning: usize,
    /// Which ones failed.
    failed: Vec<usize>,
    /// Why the first of them did.
    first_failure: Option<String>,
    /// Failed because an object could not be had though the index names it.
    missing: usize,
    /// Which ones are over.
    over: Vec<bool>,
}

impl Tally {
    pub(super) fn new(total: usize) -> Self {
        Self {
            total,
            completed: 0,
            warning: 0,
            failed: Vec::new(),
            first_failure: None,
            missing: 0,
            over: vec![false; total],
        }
    }

    /// Sub-operations that are over.
    pub(super) fn over(&self) -> usize {
        self.completed + self.warning + self.failed.len()
    }

    /// Whether a sub-operation is over: they need not end in the order of the instances.
    pub(super) fn is_over(&self, at: usize) -> bool {
        self.over.get(at).copied().unwrap_or(false)
    }

    /// Those that are over.
    pub(super) fn all_over(&self) -> Vec<bool> {
        self.over.clone()
    }

    fn end(&mut self, at: usize) {
        if let Some(over) = self.over.get_mut(at) {
            *over = true;
        }
    }

    /// Sub-operations that left an object at the peer.
    pub(super) fn arrived(&self) -> usize {
        self.completed + self.warning
    }

    /// A sub-operation was answered.
    pub(super) fn answered(&mut self, at: usize, status: Status) {
        self.end(at);
        match status.class() {
            StatusClass::Success => {
                metrics::SUB_OPERATIONS_DONE.increment();
                self.completed += 1;
            }
            StatusClass::Warning => {
                metrics::SUB_OPERATIONS_DONE.increment();
                self.warning += 1;
            }
            StatusClass::Failure | StatusClass::Cancel | StatusClass::Pending => {
                self.fail(at, &SubOperationError::Refused(status))
            }
        }
    }

    /// A sub-operation failed.
    pub(super) fn fail(&mut self, at: usize, failure: &SubOperationError) {
        debug!("a sub-operation failed: {failure}");
        metrics::SUB_OPERATIONS_FAILED.increment();
        self.end(at);
        self.missing += usize::from(matches!(failure, SubOperationError::Object(_)));
        self.failed.push(at);
        if self.first_failure.is_none() {
            self.first_failure = Some(failure.to_string());
        }
    }

    /// Which ones failed, by their places in the list.
    pub(super) fn failed(&self) -> &[usize] {
        &self.failed
    }

    /// How many objects could not be had though the index names them.
    pub(super) fn missing(&self) -> usize {
        self.missing
    }

    /// The numbers of a pending response.
    pub(super) fn so_far(&self) -> SubOperations {
        self.numbers(Going::On)
    }

    pub(super) fn numbers(&self, going: Going) -> SubOperations {
        SubOperations {
            remaining: (going == Going::On).then(|| self.total.saturating_sub(self.over())),
            completed: self.completed,
            failed: self.failed.len(),
            warning: self.warning,
        }
    }

    /// PS3.4 C.4.2.3.1 and C.4.3.3.1: Success when all succeeded, a failure when all failed, a warning otherwise.
    pub(super) fn status(&self) -> Status {
        match (self.arrived(), self.failed.len(), self.warning) {
            (_, 0, 0) => Status::SUCCESS,
            (0, _, _) => Status::UNABLE_TO_PERFORM_SUB_OPERATIONS,
            _ => Status::SUB_OPERATIONS_WITH_FAILURES,
        }
    }

    pub(super) fn comment(&self) -> String {
        self.first_failure.clone().unwrap_or_default()
    }
}

/// Why a sub-operation failed. The texts end in Error Comments: no paths, no values.
#[derive(Debug, thiserror::Error)]
pub(super) enum SubOperationError {
    #[error(transparent)]
    Object(ObjectError),
    #[error("no presentation context for its SOP Class and transfer syntax")]
    NotAccepted,
    #[error("the index could not be asked where it lies")]
    Index,
    #[error("the peer answered {0}")]
    Refused(Status),
    #[error("an object could not be read in time")]
    SlowSource,
    #[error("{0}")]
    Destination(String),
}

impl From<DeliverError> for SubOperationError {
    fn from(error: DeliverError) -> Self {
        match error {
            DeliverError::Object(error) => Self::Object(error),
            DeliverError::NotAccepted => Self::NotAccepted,
            DeliverError::Index => Self::Index,
        }
    }
}
