//! Comparison of two archives: which studies, series and instances are only here, only there, or
//! differ.
//!
//! Each side is behind [`ArchiveSide`]. Studies are asked for by date, in ranges that get
//! smaller where there are many. Series are asked for where the numbers of a study differ, and
//! instances where those of a series do.

pub mod difference;
pub mod index_side;
pub mod pacs_side;
pub mod walk;

use std::collections::BTreeMap;
use std::fmt;

use crate::model::datetime::{Day, day_text};
use crate::model::status::Status;

/// Reason why a side does not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer cannot be asked.
    #[error("{0}")]
    Peer(#[from] crate::ul::requestor::ScuError),
    /// The peer ended a question with a failure.
    #[error("the peer ends a query with status {0}")]
    Status(Status),
    /// The peer sent something that is no answer.
    #[error("the peer sent an answer that cannot be read: {0}")]
    Answer(String),
    /// The index cannot be asked.
    #[error(transparent)]
    Index(#[from] crate::db::Error),
    /// The question is not valid.
    #[error("{0}")]
    Query(String),
}

/// Days from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DayRange {
    /// The first day.
    pub first: Day,
    /// The last day.
    pub last: Day,
}

/// The range as a key of a query (PS3.4 C.2.2.2.5): one day or `FIRST-LAST`.
impl fmt::Display for DayRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&day_text(self.first))?;
        if self.first == self.last { Ok(()) } else { write!(formatter, "-{}", day_text(self.last)) }
    }
}

/// Studies that a side is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StudyQuestion {
    /// The studies of these days. An index leaves out those with several dates.
    Days(DayRange),
    /// The studies without a date, and those with several dates. Only an index can be asked for
    /// them.
    WithoutDate,
    /// One study.
    Uid(String),
}

/// A study, as one side says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComparedStudy {
    /// Values by keyword. One that the side does not say is not here, and an empty one is.
    pub values: BTreeMap<&'static str, String>,
    /// Number of series and of instances, if the side says it.
    pub counts: [Option<u64>; 2],
}

/// One of two archives.
pub trait ArchiveSide {
    /// The studies, by Study Instance UID. A study that the side does not have is not in the map.
    ///
    /// # Errors
    /// Fails with [`Error::Status`] if the peer ends with a failure, and otherwise if there is no
    /// complete answer.
    fn studies(&mut self, question: &StudyQuestion) -> Result<BTreeMap<String, ComparedStudy>, Error>;

    /// The series of a study with the number of their instances, if the side says it.
    ///
    /// # Errors
    /// Fails with [`Error::Status`] if the peer ends with a failure, and otherwise if there is no
    /// complete answer.
    fn series(&mut self, study: &str) -> Result<BTreeMap<String, Option<u64>>, Error>;

    /// The SOP Instance UIDs of a series.
    ///
    /// # Errors
    /// Fails with [`Error::Status`] if the peer ends with a failure, and otherwise if there is no
    /// complete answer.
    fn instances(&mut self, study: &str, series: &str) -> Result<Vec<String>, Error>;
}

/// Keys of a study that are compared, beside its date.
pub const COMPARED: &[&str] =
    &["PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber"];
