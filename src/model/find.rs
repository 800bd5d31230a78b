//! A query, parsed and checked: what `qr` makes of an Identifier and `db` answers.

use std::cmp::Reverse;
use std::sync::Arc;

use dicom_core::Tag;

use super::attribute::AttributeId;
use super::declared::Unit;
use super::level::{InformationModel, QueryRetrieveLevel};
use super::matching::{DateTimeRange, Matching};

/// One question to the index. C-FIND, QIDO-RS, the page and the command line all ask in this form.
#[derive(Clone, Debug)]
pub struct FindRequest {
    /// The Information Model of the SOP Class, or the one that a local question implies.
    pub model: InformationModel,
    /// The level whose entities are the answers: one answer for each (PS3.4 C.4.1.3.1.2).
    pub level: QueryRetrieveLevel,
    /// The keys that narrow the answers; all have to match. Keys above and below the level are allowed: those above are
    /// matched on the entity's ancestors, those below match when any descendant does.
    pub matching_keys: Vec<MatchingKey>,
    /// Ranges of dates and times together; the entity of their level has to lie in each. As keys, they may be of any level.
    pub date_time_keys: Vec<DateTimeKey>,
    /// The attributes to answer, in order of their tags and without repetition.
    pub return_keys: Vec<ReturnKey>,
    /// Declared attributes that are matched, answered, or both.
    pub declared: Vec<DeclaredKey>,
    /// What is asked of how instances came into the index.
    pub arrival: ArrivalKeys,
    /// The most answers wanted, or all.
    pub limit: Option<u64>,
    /// How many answers to leave out first.
    pub offset: u64,
    /// Whether each answer carries its [`AnswerKey`]. Only who merges the answers of several indexes needs it.
    pub wants_key: bool,
}

/// What is asked of how instances came into the index; some one group of instances of the entity has to fulfil all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArrivalKeys {
    /// When they came: from the first moment to before the second, milliseconds since 1970 UTC. It is known to the hour, and
    /// the day exactly.
    pub received_ms: Option<(i64, i64)>,
    /// The number of a change: something has come or changed after it.
    pub since: Option<i64>,
    /// The calling AE title of who sent them by C-STORE, with the wild cards `*` and `?`.
    pub sender: Option<String>,
}

/// One attribute and the condition on it.
#[derive(Clone, Debug)]
pub struct MatchingKey {
    /// The attribute; never one that is [`super::attribute::Source::AlwaysEmpty`].
    pub attribute: AttributeId,
    /// What its value has to fulfil; never [`Matching::Universal`].
    pub matching: Matching,
}

/// A date and a time that are one range (PS3.4 C.2.2.2.5.4).
#[derive(Clone, Debug)]
pub struct DateTimeKey {
    /// The date.
    pub date: AttributeId,
    /// The time that goes with it; of the same level.
    pub time: AttributeId,
    /// What they have to lie in.
    pub range: DateTimeRange,
}

/// One attribute to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnKey {
    /// The attribute.
    pub attribute: AttributeId,
    /// For a sequence: the attributes asked for in its items; empty asks for whole items (PS3.4 C.2.2.2.6).
    pub items: Vec<ItemKey>,
}

/// A declared attribute as a key.
#[derive(Clone, Debug)]
pub struct DeclaredKey {
    /// What keeps it.
    pub unit: Arc<Unit>,
    /// The condition on its value; never [`Matching::Universal`].
    pub matching: Option<Matching>,
    /// Whether it is answered.
    pub is_answered: bool,
    /// For a sequence: the attributes asked for in its items, as [`ReturnKey::items`].
    pub items: Vec<ItemKey>,
}

/// An attribute asked for inside a sequence item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemKey {
    /// Its tag.
    pub tag: Tag,
    /// For a sequence: the attributes asked for in its items.
    pub items: Vec<ItemKey>,
}

/// One answer: the values of [`FindRequest::return_keys`], in their order, as kept in the index (see
/// [`super::record::InstanceRecord`] for their form).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FindAnswer {
    /// One for each return key, then one for each declared attribute that is answered; empty where the entity has no value.
    pub values: Vec<String>,
    /// The character sets that the entity's objects were written in, as (0008,0005) has it; empty for the default.
    pub character_set: String,
    /// Where the answer stands in the order, and which entity it is, if [`FindRequest::wants_key`] asks for it.
    pub key: Option<Box<AnswerKey>>,
}

/// The place of an answer among those of other indexes.
///
/// The answers of one index come in ascending order of [`AnswerKey::order`]. So a merge that takes the least of the next
/// answers of each index gives all of them in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerKey {
    /// What the answers are ordered by, as far as that means the same in each index.
    pub order: AnswerOrder,
    /// Study, Series and SOP Instance UID, as far down as the level goes. Answers with the same UIDs are of one entity.
    pub uids: Vec<String>,
}

/// What answers are ordered by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnswerOrder {
    /// Patients.
    Patient {
        /// Patient ID.
        patient_id: String,
        /// Name and birth date of a patient who has no Patient ID.
        identity: String,
        /// Issuer of Patient ID.
        issuer: String,
    },
    /// Studies, and what is below them: the newest first.
    Study {
        /// Study Date.
        date: Reverse<String>,
        /// Study Time.
        time: Reverse<String>,
    },
}
