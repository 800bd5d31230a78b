//! The worklist in an index: its rows, and what may be asked and changed.
//!
//! [`WorklistSearch`] asks, and [`WorklistChanges`] is the way in. All changes of one call are made
//! in one transaction of the writer. The module `worklist` decides what they do.

use std::ops::ControlFlow;

use super::error::Error;
use crate::model::matching::Narrowing;

/// State of a scheduled procedure step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum WorklistState {
    /// It is scheduled, and queries find it.
    #[default]
    Scheduled,
    /// It has started, and queries find it.
    Started,
    /// It is done.
    Done,
    /// The modality ended it before it was done.
    Discontinued,
    /// Its order was cancelled.
    Cancelled,
}

impl WorklistState {
    /// All states, in the order of their numbers in the index.
    pub const ALL: [Self; 5] = [Self::Scheduled, Self::Started, Self::Done, Self::Discontinued, Self::Cancelled];

    /// Whether queries find it, as long as it has not expired.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Scheduled | Self::Started)
    }

    /// Returns its word in lists.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Started => "started",
            Self::Done => "done",
            Self::Discontinued => "discontinued",
            Self::Cancelled => "cancelled",
        }
    }
}

/// By which way an item came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorklistSource {
    /// A file of the folder.
    File,
    /// An HL7 message.
    Hl7,
    /// The command line.
    Command,
}

impl WorklistSource {
    /// All sources, in the order of their numbers in the index.
    pub const ALL: [Self; 3] = [Self::File, Self::Hl7, Self::Command];

    /// Returns its word in lists.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Hl7 => "hl7",
            Self::Command => "command",
        }
    }
}

/// One scheduled procedure step in the index.
#[derive(Clone, PartialEq, Eq)]
pub struct WorklistRow {
    /// Its number. 0 for a row that is not in the index yet.
    pub id: i64,
    /// The values of [`WorklistColumn`], in the order of [`WorklistColumn::ALL`].
    pub values: [String; WorklistColumn::ALL.len()],
    /// The whole item in the DICOM JSON Model.
    pub item: String,
    /// Specific Character Set of what it came from.
    pub character_set: String,
    /// Key that tells its order apart from all others. Empty if the order has no number.
    pub order_key: String,
    /// By which way it came.
    pub source: WorklistSource,
    /// The file, or who sent the message.
    pub origin: String,
    /// Keywords of the values that were made at intake.
    pub generated: Vec<String>,
    /// Corrections that intake made, as texts.
    pub warnings: Vec<String>,
    /// State of its step.
    pub state: WorklistState,
    /// When it came, in milliseconds since 1970 UTC.
    pub received_ms: i64,
    /// When it changed last.
    pub changed_ms: i64,
    /// From when on no query finds it.
    pub expires_ms: i64,
    /// When its last message was made, as the sender says: a DT value, which is a local time if it
    /// has no offset. If a later one was about the patient alone, `|` and its time follow.
    pub message_time: String,
}

impl WorklistRow {
    /// Returns the value of a column.
    #[must_use]
    pub fn value(&self, column: WorklistColumn) -> &str {
        self.values.get(column as usize).map_or("", String::as_str)
    }

    /// Whether this row and another one name the same study.
    pub(in crate::db) fn has_study_of(&self, other: &Self) -> bool {
        [WorklistColumn::StudyInstanceUid, WorklistColumn::AccessionNumber]
            .iter()
            .all(|column| self.value(*column) == other.value(*column))
    }
}

/// Without the values, which are of a patient.
impl std::fmt::Debug for WorklistRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorklistRow").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

/// A value of an item that the index can search for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorklistColumn {
    /// Study Instance UID.
    StudyInstanceUid,
    /// Scheduled Procedure Step ID.
    StepId,
    /// Scheduled Station AE Title.
    StationAeTitle,
    /// Scheduled Procedure Step Start Date.
    StartDate,
    /// Scheduled Procedure Step Start Time.
    StartTime,
    /// Modality.
    Modality,
    /// Scheduled Performing Physician's Name.
    PerformingPhysicianName,
    /// Patient's Name.
    PatientName,
    /// Patient ID.
    PatientId,
    /// Accession Number.
    AccessionNumber,
}

impl WorklistColumn {
    /// All columns. The number of a column is its place here.
    pub const ALL: [Self; 10] = [
        Self::StudyInstanceUid,
        Self::StepId,
        Self::StationAeTitle,
        Self::StartDate,
        Self::StartTime,
        Self::Modality,
        Self::PerformingPhysicianName,
        Self::PatientName,
        Self::PatientId,
        Self::AccessionNumber,
    ];
}

/// A condition that narrows the rows. A row that fulfils it need not match.
#[derive(Clone, Debug)]
pub struct WorklistCondition {
    /// The column.
    pub column: WorklistColumn,
    /// The condition on its value.
    pub narrowing: Narrowing,
    /// Whether a row with several values passes without a look.
    pub passes_several: bool,
}

/// Selection of the rows to read.
#[derive(Clone, Debug, Default)]
pub struct WorklistRequest {
    /// Only rows that queries find at this moment (milliseconds since 1970 UTC).
    pub open_at: Option<i64>,
    /// All of these must hold.
    pub conditions: Vec<WorklistCondition>,
}

/// Peer that asked last for an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorklistAsked {
    /// The number of the item.
    pub item: i64,
    /// AE title of the peer.
    pub ae_title: String,
    /// When, in milliseconds since 1970 UTC.
    pub asked_ms: i64,
}

/// An open item whose step got instances after the item came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorklistArrival {
    /// The number of the item.
    pub item: i64,
    /// State of its step so far.
    pub state: WorklistState,
    /// Number of instances of the step, without arrivals that had ended when the item came.
    pub instances: u64,
    /// Number of instances when that was noted last. It is noted first when the item comes.
    pub noted_instances: u64,
    /// When that was, in milliseconds since 1970 UTC. 0 if no arrival was noted since the item
    /// came.
    pub noted_ms: i64,
}

/// Input that could not become an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorklistProblem {
    /// By which way it came.
    pub source: WorklistSource,
    /// The file, or who sent the message.
    pub origin: String,
    /// Problem of the input, without values of the patient.
    pub reason: String,
    /// When, in milliseconds since 1970 UTC.
    pub noted_ms: i64,
}

/// A Modality Performed Procedure Step.
#[derive(Clone, PartialEq, Eq)]
pub struct PerformedStep {
    /// SOP Instance UID.
    pub sop_instance_uid: String,
    /// Performed Procedure Step Status.
    pub status: String,
    /// Performed Station AE Title.
    pub station_ae_title: String,
    /// All attributes in the DICOM JSON Model.
    pub attributes: String,
    /// AE title of the peer that made it.
    pub sender: String,
    /// When it was made, in milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// When it changed last.
    pub changed_ms: i64,
}

/// Without the attributes, which are of a patient.
impl std::fmt::Debug for PerformedStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PerformedStep").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Asks for the worklist. An index that has none yet answers as an empty one.
pub trait WorklistSearch {
    /// Calls `on_row` for each row, ordered by start date, start time and number, until there are
    /// no more or it says to stop. [`super::Search::interrupt`] ends it.
    ///
    /// # Errors
    /// [`Error::Interrupted`], or that of the engine.
    fn worklist(
        &mut self,
        request: &WorklistRequest,
        on_row: &mut dyn FnMut(WorklistRow) -> ControlFlow<()>,
    ) -> Result<(), Error>;

    /// Returns the row with this number, if there is one.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn worklist_row(&mut self, id: i64) -> Result<Option<WorklistRow>, Error>;

    /// Last peer that asked for each item that a peer has asked for, ordered by item.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn worklist_asked(&mut self) -> Result<Vec<WorklistAsked>, Error>;

    /// Input that could not become an item, newest first.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn worklist_problems(&mut self) -> Result<Vec<WorklistProblem>, Error>;

    /// The open items that had not expired at this moment (milliseconds since 1970 UTC) and whose
    /// study got instances after the item came. What came before does not count, although it was
    /// corrected or lost after. The study has the Study Instance UID of the item, or else its
    /// accession number and Patient ID. If other items have the study too, the instances have the
    /// modality of the item, and name no other step.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn worklist_arrivals(&mut self, unexpired_at: i64) -> Result<Vec<WorklistArrival>, Error>;

    /// The performed steps, newest first.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn performed_steps(&mut self) -> Result<Vec<PerformedStep>, Error>;

    /// The number of items in each state.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn worklist_counts(&mut self) -> Result<Vec<(WorklistState, u64)>, Error>;
}

/// Key by which a change finds rows.
#[derive(Clone, Copy, Debug)]
pub enum WorklistBy<'a> {
    /// Its number.
    Id(i64),
    /// Study Instance UID and Scheduled Procedure Step ID.
    Step(&'a str, &'a str),
    /// Its order.
    Order(&'a str),
    /// Its accession number.
    Accession(&'a str),
    /// Its study.
    Study(&'a str),
    /// By which way it came, and from where.
    Origin(WorklistSource, &'a str),
    /// Its patient, if it is open.
    OpenOfPatient(&'a str),
}

/// The tables of the worklist within a transaction. Moments are in milliseconds since 1970 UTC.
pub trait WorklistTables {
    /// Returns the rows that are found so, ordered by number.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn find(&mut self, by: WorklistBy<'_>) -> Result<Vec<WorklistRow>, Error>;

    /// Writes a row. A row without a number gets one, which is returned.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn put(&mut self, row: &WorklistRow) -> Result<i64, Error>;

    /// Removes a row for good. Returns whether it was there.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn remove(&mut self, id: i64) -> Result<bool, Error>;

    /// Notes a problem in place of older ones of the same origin. A message keeps the older ones.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn note_problem(&mut self, problem: &WorklistProblem) -> Result<(), Error>;

    /// Forgets the problems of an origin.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn clear_problems(&mut self, source: WorklistSource, origin: &str) -> Result<(), Error>;

    /// Notes who asked for items.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn note_asked(&mut self, asked: &[WorklistAsked]) -> Result<(), Error>;

    /// Returns a performed step.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn performed_step(&mut self, sop_instance_uid: &str) -> Result<Option<PerformedStep>, Error>;

    /// Returns the performed steps with the status IN PROGRESS.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn steps_in_progress(&mut self) -> Result<Vec<PerformedStep>, Error>;

    /// Writes a performed step.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn put_performed_step(&mut self, step: &PerformedStep) -> Result<(), Error>;

    /// Notes that the study of an item has so many instances now. An item that is unknown is passed
    /// over.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn note_arrival(&mut self, item: i64, instances: u64, now_ms: i64) -> Result<(), Error>;

    /// Gives a row another state, if it is open. Nothing happens to any other row.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn set_state(&mut self, item: i64, state: WorklistState, now_ms: i64) -> Result<(), Error>;

    /// The files that items or problems came from.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn file_origins(&mut self) -> Result<Vec<String>, Error>;

    /// Removes items that are over, problems and performed steps that did not change since this
    /// moment. Returns how many items there were.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn forget_before(&mut self, before_ms: i64) -> Result<u64, Error>;
}

/// Work on the tables of the worklist in one transaction.
pub type WorklistWork = Box<dyn FnOnce(&mut dyn WorklistTables) -> Result<(), Error> + Send>;

/// The way into the worklist of an index.
pub trait WorklistChanges: Send + Sync {
    /// Does this work in one transaction of the writer, and waits for its commit. After an error
    /// nothing of it remains.
    ///
    /// # Errors
    /// That of the work, [`Error::WriterStopped`], or that of the transaction.
    fn change_worklist(&self, work: WorklistWork) -> Result<(), Error>;

    /// Whether other nodes may feed it from folders of theirs.
    fn has_other_folders(&self) -> bool {
        false
    }
}
