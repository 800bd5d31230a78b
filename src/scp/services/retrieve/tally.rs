//! Counts the sub-operations of a retrieval, and keeps the reason of the first failure.

use tracing::debug;

use crate::deliver::error::DeliverError;
use crate::deliver::object::ObjectError;
use crate::dimse::message::SubOperations;
use crate::model::status::{Status, StatusClass};
use crate::telemetry::metrics;

/// Outcome of a retrieval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Each sub-operation was tried.
    Complete,
    /// The peer sent a C-CANCEL-RQ.
    Cancelled,
}

/// Whether the number of remaining sub-operations has a meaning (PS3.7 9.3.3.2, 9.3.4.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RemainingCount {
    On,
    Ended,
}

/// The counts of a retrieval.
#[derive(Clone, Debug)]
pub(super) struct RetrievalTally {
    total: usize,
    completed: usize,
    warning: usize,
    /// Positions of the failed ones.
    failed: Vec<usize>,
    /// The reason of the first failure.
    first_failure: Option<String>,
    /// Number of objects that the index names but that could not be read.
    missing: usize,
    /// Whether each of them is over.
    over: Vec<bool>,
}

impl RetrievalTally {
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

    /// Returns the number of sub-operations.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Returns the number of sub-operations that are over.
    pub(super) fn over(&self) -> usize {
        self.completed + self.warning + self.failed.len()
    }

    /// Whether a sub-operation is over. They need not end in the order of the instances.
    pub(super) fn is_over(&self, at: usize) -> bool {
        self.over.get(at).copied().unwrap_or(false)
    }

    /// Returns which sub-operations are over.
    pub(super) fn all_over(&self) -> Vec<bool> {
        self.over.clone()
    }

    fn end(&mut self, at: usize) {
        if let Some(over) = self.over.get_mut(at) {
            *over = true;
        }
    }

    /// Returns the number of sub-operations that left an object at the peer.
    pub(super) fn arrived(&self) -> usize {
        self.completed + self.warning
    }

    /// Counts the answer to a sub-operation.
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

    /// Counts a failed sub-operation.
    pub(super) fn fail(&mut self, at: usize, failure: &SubOperationError) {
        debug!("a sub-operation failed: {failure}");
        metrics::SUB_OPERATIONS_FAILED.increment();
        self.end(at);
        let is_missing = matches!(failure, SubOperationError::Object(error) if !error.is_of_form());
        self.missing += usize::from(is_missing);
        self.failed.push(at);
        if self.first_failure.is_none() {
            self.first_failure = Some(failure.to_string());
        }
    }

    /// Returns the positions of the failed ones in the list.
    pub(super) fn failed(&self) -> &[usize] {
        &self.failed
    }

    /// Returns the number of objects that the index names but that could not be read.
    pub(super) fn missing(&self) -> usize {
        self.missing
    }

    /// Returns the numbers of a pending response.
    pub(super) fn so_far(&self) -> SubOperations {
        self.numbers(RemainingCount::On)
    }

    pub(super) fn numbers(&self, going: RemainingCount) -> SubOperations {
        SubOperations {
            remaining: (going == RemainingCount::On).then(|| self.total.saturating_sub(self.over())),
            completed: self.completed,
            failed: self.failed.len(),
            warning: self.warning,
        }
    }

    /// Returns the last status (PS3.4 C.4.2.3.1, C.4.3.3.1): Success if all succeeded, a failure if
    /// all failed, otherwise a warning.
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

/// The reason why a sub-operation failed. The texts go into Error Comments, so they have no paths
/// and no values.
#[derive(Debug, thiserror::Error)]
pub(super) enum SubOperationError {
    #[error(transparent)]
    Object(ObjectError),
    #[error("no presentation context for its SOP Class and transfer syntax")]
    NotAccepted,
    #[error("the index could not be queried for its location")]
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
