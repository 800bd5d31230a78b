//! Events of an index: what happened, for programs that follow it.

use std::fmt;
use std::str::FromStr;

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
}

/// A word that names no kind of event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no kind of event; the kinds are study-complete, instance-stored, scan-finished, conflict and damaged"
)]
pub struct EventKindError(String);

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::StudyComplete, Self::InstanceStored, Self::ScanFinished, Self::Conflict, Self::Damaged];

    /// The word for it in the index, in settings and in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StudyComplete => "study-complete",
            Self::InstanceStored => "instance-stored",
            Self::ScanFinished => "scan-finished",
            Self::Conflict => "conflict",
            Self::Damaged => "damaged",
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

/// Which events a writer records in the transactions of their changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventRecording {
    /// None. Nobody follows the index.
    #[default]
    Off,
    /// Ends of scans, and conflicts.
    Rare,
    /// Those, and instances that were received.
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
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried again, in milliseconds since 1970 UTC.
    pub next_ms: i64,
    /// Until when it is tried, in milliseconds since 1970 UTC.
    pub until_ms: i64,
    /// Why the last attempt failed. Empty if there was none.
    pub failure: String,
    /// Whether nobody tries it any more.
    pub is_dead: bool,
}

/// What a round of deliveries to one receiver changed.
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

/// How many events stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimits {
    /// Settled events before this moment may go, in milliseconds since 1970 UTC.
    pub keep_after_ms: i64,
    /// Maximum number of events, settled or not.
    pub max_events: u64,
}
