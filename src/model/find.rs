//! A parsed and checked query. `qr` makes it from an Identifier, and `db` answers it.

use std::cmp::Reverse;
use std::sync::Arc;

use dicom_core::Tag;

use super::answer_values::AnswerValues;
use super::attribute::{AttributeId, KeyType};
use super::declared::Unit;
use super::level::{InformationModel, QueryRetrieveLevel};
use super::location::Location;
use super::matching::{DateTimeRange, Matching, Narrowing};
use super::record_key::{RecordKey, RecordOrder};

/// One query to the index. C-FIND, QIDO-RS, the search page and the command line all use this form.
#[derive(Clone, Debug)]
pub struct FindRequest {
    /// Information Model of the SOP Class. A local query implies one.
    pub model: InformationModel,
    /// Query level. Each matching entity of this level gives one answer (PS3.4 C.4.1.3.1.2).
    pub level: QueryRetrieveLevel,
    /// Keys that narrow the answers. All of them must match.
    ///
    /// Keys above and below the query level are allowed. A key above is matched on the ancestors of
    /// the entity. A key below matches if any descendant matches.
    pub matching_keys: Vec<MatchingKey>,
    /// Conditions on two attributes together. The entity of the level of each must fulfil it, and
    /// that may be any level.
    pub date_time_keys: Vec<DateTimeKey>,
    /// Attributes to return, in order of their tags and without duplicates.
    pub return_keys: Vec<ReturnKey>,
    /// Declared attributes that are matched, returned, or both.
    pub declared: Vec<DeclaredKey>,
    /// Conditions on how and when instances came into the index.
    pub arrival: ArrivalKeys,
    /// Maximum number of answers. `None` returns all of them.
    pub limit: Option<u64>,
    /// Number of answers to skip at the start.
    pub offset: u64,
    /// Whether each answer carries its [`AnswerKey`]. Only code that merges the answers of several
    /// indexes needs it.
    pub wants_key: bool,
    /// Whether each answer at the IMAGE level carries [`FindAnswer::location`].
    pub wants_location: bool,
    /// Order by the keys of records, in place of the usual one (PS3.4 C.6.4).
    pub record: Option<RecordOrder>,
}

impl FindRequest {
    /// A query for all entities of a level, which returns no attributes. Callers add what they
    /// want.
    #[must_use]
    pub fn new(model: InformationModel, level: QueryRetrieveLevel) -> Self {
        Self {
            model,
            level,
            matching_keys: Vec::new(),
            date_time_keys: Vec::new(),
            return_keys: Vec::new(),
            declared: Vec::new(),
            arrival: ArrivalKeys::default(),
            limit: None,
            offset: 0,
            wants_key: false,
            wants_location: false,
            record: None,
        }
    }

    /// Returns these attributes.
    #[must_use]
    pub fn returning(self, attributes: &[AttributeId]) -> Self {
        let return_keys = attributes.iter().map(|&attribute| ReturnKey { attribute, items: Vec::new() }).collect();
        Self { return_keys, ..self }
    }

    /// Whether the unique key of the level has one value. Then there is one answer, or few.
    #[must_use]
    pub fn names_one(&self) -> bool {
        self.matching_keys.iter().any(|key| {
            let attribute = key.attribute.attribute();
            let is_unique = attribute.level == self.level && attribute.key == KeyType::Unique;
            is_unique && matches!(key.matching.narrowing(), Narrowing::Equals(values) if values.len() == 1)
        })
    }
}

/// Conditions on how and when instances came into the index, and on what has changed since. One
/// instance group of the entity must fulfil all of them but `since`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArrivalKeys {
    /// Time of arrival in milliseconds since 1970 UTC. The first bound is included, the second is
    /// not. Midnight UTC is an exact bound. Within a day an instance counts with the time at which
    /// its peer began to send, which is up to an hour earlier (docs/adr/0015).
    pub received_ms: Option<(i64, i64)>,
    /// Change number. After it, the entity must have come, or changed in a value of its own level,
    /// or lost something below it. Of a patient, anything under its Patient ID counts. So whoever
    /// keeps the answers of `since` has all that the index has, and perhaps what is gone.
    pub since: Option<i64>,
    /// Calling AE title of the peer that sent the instances by C-STORE. `*` and `?` are wild cards.
    pub sender: Option<String>,
}

/// One attribute and the condition on it.
#[derive(Clone, Debug)]
pub struct MatchingKey {
    /// The attribute. It is never [`super::attribute::ValueSource::AlwaysEmpty`].
    pub attribute: AttributeId,
    /// The condition on its value. It is never [`Matching::Universal`].
    pub matching: Matching,
}

/// A condition on two attributes that together name a moment.
#[derive(Clone, Debug)]
pub struct DateTimeKey {
    /// The date, or the date and time.
    pub date: AttributeId,
    /// The attribute that completes it. It has the same level or one above.
    pub time: AttributeId,
    /// The condition on both.
    pub condition: MomentCondition,
}

/// The condition of a [`DateTimeKey`].
#[derive(Clone, Debug)]
pub enum MomentCondition {
    /// A date and a time are in one range (PS3.4 C.2.2.2.5.4).
    Range(DateTimeRange),
    /// A date and time (DT), or one in an item, matches a key with an offset from UTC, in its time
    /// zone (0008,0201).
    InZone(Matching),
}

impl MomentCondition {
    /// Whether two stored values fulfil the condition.
    #[must_use]
    pub fn matches(&self, date: &str, time: &str) -> bool {
        match self {
            Self::Range(range) => range.contains(date, time),
            Self::InZone(matching) => matching.matches_in_zone(date, time),
        }
    }
}

/// One attribute to return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnKey {
    /// The attribute.
    pub attribute: AttributeId,
    /// For a sequence: the attributes to return of its items. If empty, whole items are returned
    /// (PS3.4 C.2.2.2.6).
    pub items: Vec<ItemKey>,
}

/// A declared attribute as a key.
#[derive(Clone, Debug)]
pub struct DeclaredKey {
    /// The unit that keeps it.
    pub unit: Arc<Unit>,
    /// The condition on its value. It is never [`Matching::Universal`].
    pub matching: Option<Matching>,
    /// Whether it is returned.
    pub is_answered: bool,
    /// For a sequence: the attributes to return of its items, as in [`ReturnKey::items`].
    pub items: Vec<ItemKey>,
}

impl DeclaredKey {
    /// Whether the condition compares moments in the time zone of their data set. No data set is
    /// that of a patient.
    #[must_use]
    pub fn is_in_zone(&self) -> bool {
        self.unit.level > QueryRetrieveLevel::Patient && self.matching.as_ref().is_some_and(Matching::names_offset)
    }
}

/// An attribute to return of a sequence item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemKey {
    /// Tag.
    pub tag: Tag,
    /// For a sequence: the attributes to return of its items.
    pub items: Vec<ItemKey>,
}

/// One answer: the values of [`FindRequest::return_keys`], in the same order.
///
/// The values have the form of [`super::record::InstanceRecord`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FindAnswer {
    /// One value for each return key, then one for each declared attribute that is returned. A
    /// value is empty if the entity has none.
    pub values: AnswerValues,
    /// Character sets of the objects of the entity, in the form of (0008,0005). It is empty for the
    /// default repertoire.
    pub character_set: String,
    /// Sort key and UIDs of the answer, if [`FindRequest::wants_key`] asks for them.
    pub key: Option<Box<AnswerKey>>,
    /// First location of the instance, if [`FindRequest::wants_location`] asks for it. `None` if
    /// its file was gone when a scan looked. `Search::locations` then has the others.
    pub location: Option<Box<Location>>,
    /// Key of the record, if [`FindRequest::record`] asks for it.
    pub record: Option<Box<RecordKey>>,
}

/// Position of an answer among the answers of other indexes.
///
/// One index returns its answers in ascending order of [`AnswerKey::order`]. To merge several
/// indexes, always take the smallest of their next answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerKey {
    /// Sort key of the answer, without the parts that mean something in one index only.
    pub order: AnswerOrder,
    /// Study, Series and SOP Instance UID, down to the query level. Answers with the same UIDs
    /// describe the same entity.
    pub uids: Vec<String>,
}

/// Sort key of an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnswerOrder {
    /// Order of patients.
    Patient {
        /// Patient ID.
        patient_id: String,
        /// Name and birth date of a patient without Patient ID.
        identity: String,
        /// Issuer of Patient ID.
        issuer: String,
    },
    /// Order of studies, series and instances: newest study first.
    Study {
        /// Study Date.
        date: Reverse<String>,
        /// Study Time.
        time: Reverse<String>,
    },
}
