//! Events of an index: what happened, for programs that follow it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::error::Error;
use crate::model::clock::Clock;

/// The columns of a row `v` of `event`, as the engines read them.
pub(super) const EVENT_COLUMNS: &str = "v.id, v.at_ms, v.kind, v.study_instance_uid, v.change, v.content";

/// Events that one transaction drops. Larger: arrivals wait longer for it. Smaller: more
/// transactions.
pub(super) const DROPPED_AT_ONCE: i64 = 2000;

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// A study changed and was quiet after that.
    StudyComplete,
    /// Instances of a study were received and are kept.
    InstanceStored,
    /// A scan ended.
    ScanFinished,
    /// Two objects cannot both be right, or a UID breaks PS3.5 9.1.
    Conflict,
    /// A stored object is not what was received.
    Damaged,
    /// An older index or a new one has taken the place of the index.
    IndexRestored,
}

/// A word that names no kind of event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no kind of event; the kinds are study-complete, instance-stored, scan-finished, conflict, damaged and \
     index-restored"
)]
pub struct EventKindError(String);

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::StudyComplete,
        Self::InstanceStored,
        Self::ScanFinished,
        Self::Conflict,
        Self::Damaged,
        Self::IndexRestored,
    ];

    /// The word for it in the index, in settings and in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StudyComplete => "study-complete",
            Self::InstanceStored => "instance-stored",
            Self::ScanFinished => "scan-finished",
            Self::Conflict => "conflict",
            Self::Damaged => "damaged",
            Self::IndexRestored => "index-restored",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = EventKindError;

    fn from_str(text: &str) -> Result<Self, EventKindError> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| EventKindError(text.to_owned()))
    }
}

/// Events that a writer records in the transactions of their changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventRecording {
    /// None. Nobody follows the index.
    #[default]
    Off,
    /// Ends of scans, and conflicts.
    Rare,
    /// Events of `Rare`, and instances that were received.
    All,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEvent {
    /// Its number. A later event has a higher one.
    pub id: i64,
    /// When it was recorded, in milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// Its kind. An index of a later program may have others, as texts.
    pub kind: String,
    /// Study Instance UID, empty where it is not about one study.
    pub study_instance_uid: String,
    /// The number of the change that it tells of, or 0.
    pub change: u64,
    /// A JSON object with what the kind has.
    pub content: String,
}

/// Numbers of changes per millisecond that no index reaches for long (docs/adr/0070). Smaller: a
/// busy index could get ahead of the clock. Larger: numbers of events of a database would overflow.
const NUMBERS_PER_MS: i64 = 16;

/// Numbers that may be given between a look at an index and the moment in which it is replaced.
const GIVEN_MEANWHILE: u64 = 1 << 20;

/// The last numbers that may have been given before an index was restored or built anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenNumbers {
    /// Of a change.
    pub change: u64,
    /// Of an event.
    pub event: i64,
}

impl GivenNumbers {
    /// Last numbers of any index by this moment.
    #[must_use]
    pub fn by(now_ms: i64) -> Self {
        let event = now_ms.max(0).saturating_mul(NUMBERS_PER_MS);
        Self { change: event.unsigned_abs(), event }
    }

    /// Last numbers of an index that is about to be replaced.
    #[must_use]
    pub fn after(change: u64, event: i64) -> Self {
        Self { change: change.saturating_add(GIVEN_MEANWHILE), event: event.saturating_add_unsigned(GIVEN_MEANWHILE) }
    }
}

/// A study that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedStudy {
    /// The number of its row.
    pub study: i64,
    /// The number of its last change.
    pub change: u64,
    /// When that was, in milliseconds since 1970 UTC.
    pub changed_ms: i64,
}

/// Identifiers of a study that events have only for receivers that ask for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StudyIdentifiers {
    /// Patient ID.
    pub patient_id: String,
    /// Issuer of Patient ID.
    pub issuer_of_patient_id: String,
    /// Accession Number.
    pub accession_number: String,
}

/// An event that a receiver did not take yet, or one behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingEvent {
    /// Name of the receiver.
    pub receiver: String,
    /// The event.
    pub event: IndexEvent,
    /// Number of attempts.
    pub attempts: u32,
    /// When it is tried again, in milliseconds since 1970 UTC.
    pub next_ms: i64,
    /// Until when it is tried, in milliseconds since 1970 UTC.
    pub until_ms: i64,
    /// Reason why the last attempt failed. Empty if there was none.
    pub failure: String,
    /// Whether nobody tries it any more.
    pub is_dead: bool,
}

/// Changes by a round of deliveries to one receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryChanges {
    /// Every event up to this number is settled. `None` if that is as before.
    pub position: Option<i64>,
    /// Waiting events that were delivered.
    pub delivered: Vec<i64>,
    /// Events that wait from now on, or wait for longer.
    pub waiting: Vec<WaitingEvent>,
}

impl DeliveryChanges {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.position.is_none() && self.delivered.is_empty() && self.waiting.is_empty()
    }
}

/// Counts of a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    /// Events that are still to be delivered. Those of kinds that it does not take may be among
    /// them.
    pub waiting: u64,
    /// Dead letters.
    pub dead: u64,
}

/// Progress of receivers with the events of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventProgress {
    /// The receivers by name, each with the event up to which everything is settled.
    pub receivers: Vec<(String, i64)>,
    /// Events that they did not take yet, and those behind them.
    pub waiting: Vec<WaitingEvent>,
}

/// Limits for the events that stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimits {
    /// Settled events before this moment may go, in milliseconds since 1970 UTC.
    pub keep_after_ms: i64,
    /// Maximum number of events, settled or not.
    pub max_events: u64,
}

/// Tells what an index has recorded, and what receivers got of it. An index that never recorded
/// anything answers as an empty one.
pub trait EventSearch {
    /// A page of the events after a number, in their order.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn events_after(&mut self, after: i64, limit: usize) -> Result<Vec<IndexEvent>, Error>;

    /// The number of the last event, or 0.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn last_event(&mut self) -> Result<i64, Error>;

    /// The event up to which everything is settled for a receiver. `None` if it is new.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn event_position(&mut self, receiver: &str) -> Result<Option<i64>, Error>;

    /// Waiting events that a receiver is to get again by now: of each study the first one.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn due_events(&mut self, receiver: &str, now_ms: i64, limit: usize) -> Result<Vec<WaitingEvent>, Error>;

    /// Whether an event of this study waits for a receiver.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn event_waits(&mut self, receiver: &str, study_instance_uid: &str) -> Result<bool, Error>;

    /// All events that receivers did not take: dead letters, and those that are tried again.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn failed_events(&mut self) -> Result<Vec<WaitingEvent>, Error>;

    /// Progress of all receivers, ordered by receiver and event.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn event_progress(&mut self) -> Result<EventProgress, Error>;

    /// Counts what waits for a receiver.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn delivery_counts(&mut self, receiver: &str) -> Result<DeliveryCounts, Error>;

    /// The change up to which every study that was quiet has been told. `None` if nobody has told
    /// any.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn told_change(&mut self) -> Result<Option<u64>, Error>;

    /// All studies that changed after a change, or lost something after it, each with its last
    /// change, in no particular order. Those that are gone are not among them.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn studies_changed_after(&mut self, change: u64) -> Result<Vec<ChangedStudy>, Error>;

    /// Identifiers of a study. `None` if the index does not have it any more.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn identifiers_of_study(&mut self, study_instance_uid: &str) -> Result<Option<StudyIdentifiers>, Error>;
}

/// Records events that no single change makes, and what became of deliveries.
///
/// Several nodes may tell the events of one index. One of them serves a receiver at a time: see
/// [`EventChanges::hold_receiver`].
pub trait EventChanges: Send + Sync {
    /// Begins to tell studies with the next change, unless they are told already.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn begin_telling(&self) -> Result<(), Error>;

    /// Records that studies are complete, each unless it has changed meanwhile. Every study that
    /// changed before or with the change `told` has been told then.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn tell_studies(&self, studies: Vec<ChangedStudy>, told: u64, clock: Clock) -> Result<(), Error>;

    /// Records that objects are damaged. Returns those that the index does not know.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn tell_damaged(&self, sop_instance_uids: Vec<String>, clock: Clock) -> Result<Vec<String>, Error>;

    /// Keeps these receivers. Others are forgotten if nobody has served them for a week. A new one
    /// gets the events that come after this. Returns how many were forgotten.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn keep_receivers(&self, names: Vec<String>) -> Result<u64, Error>;

    /// Has `holder` serve a receiver for so long, unless somebody else holds it. Returns whether
    /// it does. No time at all ends it.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn hold_receiver(&self, receiver: &str, holder: &str, lease: Duration) -> Result<bool, Error>;

    /// Writes what a round of deliveries changed, if `holder` still holds the receiver. Returns
    /// whether it does. Otherwise the other holder delivers them again.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn note_deliveries(&self, receiver: String, holder: &str, changes: DeliveryChanges) -> Result<bool, Error>;

    /// Has dead letters tried again: all of them, or those of a receiver, or those with these
    /// numbers. They are due at `now_ms` and are tried until `until_ms`. Returns how many there
    /// are.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn retry_events(
        &self,
        receiver: Option<String>,
        events: Vec<i64>,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<u64, Error>;

    /// Drops events that are settled and old, and the oldest ones if there are too many. Returns
    /// how many went that were not settled.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of a transaction.
    fn drop_events(&self, limits: EventLimits) -> Result<u64, Error>;
}
