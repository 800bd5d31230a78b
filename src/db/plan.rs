//! The plan of a query, as far as it depends on the query and not on the engine.

use crate::model::attribute::{Attribute, AttributeId, ValueSource};
use crate::model::declared::Unit;
use crate::model::find::{DateTimeKey, DeclaredKey, FindRequest, MatchingKey};
use crate::model::level::QueryRetrieveLevel::{self, Patient, Series, Study};
use crate::model::matching::{NamePart, Narrowing};

/// Whether an answer at `level` can carry the attribute. It can if the attribute is of this level
/// or above. A study can also carry the values of its series.
#[must_use]
pub fn can_answer(attribute: &Attribute, level: QueryRetrieveLevel) -> bool {
    attribute.level <= level
        || is_computed_everywhere(attribute.id)
        || (level == Study && attribute.level == Series && attribute.source == ValueSource::DataSet)
}

/// Whether an answer at `level` can carry a declared attribute: see [`can_answer`].
#[must_use]
pub fn can_answer_declared(unit: &Unit, level: QueryRetrieveLevel) -> bool {
    unit.level <= level || (level == Study && unit.level == Series)
}

/// Whether an attribute is answered and matched at every level, whatever its own level is.
pub(in crate::db) fn is_computed_everywhere(id: AttributeId) -> bool {
    matches!(id, AttributeId::InstanceAvailability | AttributeId::RetrieveAETitle)
}

/// The keys of a query in two parts: those of the query level and above, and those below.
pub(in crate::db) struct PartedKeys<'r> {
    pub(in crate::db) above: Vec<&'r MatchingKey>,
    pub(in crate::db) below: Vec<&'r MatchingKey>,
    pub(in crate::db) moments_above: Vec<&'r DateTimeKey>,
    pub(in crate::db) moments_below: Vec<&'r DateTimeKey>,
    pub(in crate::db) declared_above: Vec<&'r DeclaredKey>,
    pub(in crate::db) declared_below: Vec<&'r DeclaredKey>,
}

impl<'r> PartedKeys<'r> {
    pub(in crate::db) fn of(request: &'r FindRequest) -> Self {
        let level = request.level;
        let (above, below) = request
            .matching_keys
            .iter()
            .partition(|key| key.attribute.attribute().level <= level || is_computed_everywhere(key.attribute));
        let (moments_above, moments_below) =
            request.date_time_keys.iter().partition(|key| key.date.attribute().level <= level);
        let (declared_above, declared_below) = request.declared.iter().partition(|key| key.unit.level <= level);
        Self { above, below, moments_above, moments_below, declared_above, declared_below }
    }

    /// Whether some descendant of an answer has to fulfil keys.
    pub(in crate::db) fn asks_below(&self) -> bool {
        !self.below.is_empty()
            || !self.moments_below.is_empty()
            || self.declared_below.iter().any(|key| key.matching.is_some())
    }

    /// Whether a key names a few series or instances. They are then found first, and their studies
    /// after them.
    pub(in crate::db) fn lead_from_below_study(&self) -> bool {
        self.above.iter().any(|key| is_selective_below_study(key))
    }

    /// Whether a key gives values of an attribute that few entities share.
    pub(in crate::db) fn name_few(&self) -> bool {
        self.above.iter().any(|key| names_few(key))
    }
}

/// Whether a key of the patient level is matched or answered.
pub(in crate::db) fn asks_for_patient(request: &FindRequest, answered: bool) -> bool {
    let matched = request.matching_keys.iter().map(|key| key.attribute);
    let moments = request.date_time_keys.iter().map(|key| key.date);
    let is_of_patient = |id: AttributeId| id.attribute().level == Patient;
    matched.chain(moments).any(is_of_patient)
        || (answered && request.return_keys.iter().any(|key| is_of_patient(key.attribute)))
        || request.declared.iter().any(|key| key.unit.level == Patient && (answered || key.matching.is_some()))
}

/// The patient of a study that is meant. Nearly all studies have only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::db) enum PatientLink {
    /// The patient of the row of the study.
    FirstPatient,
    /// A further patient under whom the study was found.
    FurtherPatient,
}

pub(in crate::db) fn names_uids(key: &MatchingKey) -> bool {
    matches!(key.matching.narrowing(), Narrowing::Equals(_))
}

/// Whether a key gives values of an attribute that few entities share.
pub(in crate::db) fn names_few(key: &MatchingKey) -> bool {
    let is_indexed = matches!(
        key.attribute,
        AttributeId::PatientID
            | AttributeId::AccessionNumber
            | AttributeId::StudyInstanceUID
            | AttributeId::SeriesInstanceUID
            | AttributeId::SOPInstanceUID
    );
    is_indexed && matches!(key.matching.narrowing(), Narrowing::Equals(values) if !values.iter().any(String::is_empty))
}

/// Whether a key names series or instances by their UIDs.
pub(in crate::db) fn is_selective_below_study(key: &MatchingKey) -> bool {
    matches!(key.attribute, AttributeId::SeriesInstanceUID | AttributeId::SOPInstanceUID) && names_uids(key)
}

/// The effort for look-ups before the first statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::db) enum PlanEffort {
    /// Look up beginnings of names if they are few. For others there is a sample first.
    Little,
    /// Look up all that may help.
    All,
}

/// Access path of a key that may match a large part of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::db) enum LookUp {
    /// Nothing leads there. Rows are tested in the order of the answers.
    Scan,
    /// The words of patients' names.
    Names(NameLookUp),
    /// The values of an attribute from one text up to before another one.
    Range { attribute: AttributeId, from: String, to: Option<String> },
}

/// The names that a key may match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::db) enum NameLookUp {
    /// Names with a component group that begins with this text.
    Prefix(String),
    /// Names with a word that has this part.
    Part(NamePart),
    /// Names with a word that begins with this text, or that sounds like one of these codes.
    Word { prefix: String, sounds: Vec<String> },
}

impl LookUp {
    /// The look-up for a key. `None` if the condition on its column is enough. `pinned` says that
    /// another key of the query leads to few entities.
    pub(in crate::db) fn of(key: &MatchingKey, pinned: bool) -> Option<Self> {
        use AttributeId::{AccessionNumber, PatientID, PatientName};
        let found = match (key.attribute, key.matching.narrowing()) {
            (PatientName, Narrowing::NamePrefix(prefix)) => Self::Names(NameLookUp::Prefix(prefix)),
            (PatientName, Narrowing::NamePart(part)) => Self::Names(NameLookUp::Part(part)),
            (PatientName, Narrowing::NameWord { prefix, sounds }) => Self::Names(NameLookUp::Word { prefix, sounds }),
            (attribute @ (PatientID | AccessionNumber), Narrowing::Prefix(from)) => {
                Self::Range { attribute, to: after_prefix(&from), from }
            }
            // Half of an archive can have none.
            (attribute @ (PatientID | AccessionNumber), Narrowing::Equals(values))
                if values.iter().any(String::is_empty) =>
            {
                Self::Range { attribute, from: String::new(), to: Some("\u{1}".to_owned()) }
            }
            _ => return None,
        };
        Some(if pinned { Self::Scan } else { found })
    }
}

/// Most rows for which a key is looked up first (or one in [`FEW_OF`] of all rows). They are found
/// and sorted before the first answer. If more rows match, the first answer soon comes up in the
/// order of the answers.
///
/// PostgreSQL has a limit of its own in `postgres/lead.rs`. There a row is a whole study, and a
/// round trip to the server costs more than a row.
const FEW: usize = 1_000;

/// See [`FEW`].
const FEW_OF: usize = 200;

/// Build a row set only if at most one in so many patients matches. Testing a bit replaces reading
/// a row, at 200,000 rows a second for a million patients. Gathering 100,000 rows takes ten
/// milliseconds.
const SOME_OF: usize = 4;

/// Most rows of a row set.
const MOST: usize = 500_000;

/// Number of rows that are few in a table of this size.
pub(in crate::db) fn few_of(rows: usize) -> usize {
    (rows / FEW_OF).max(FEW)
}

/// Maximum number of patients that a look-up of names may gather among so many. `None` if a sample
/// comes first.
pub(in crate::db) fn most_names(effort: PlanEffort, names: &NameLookUp, patients: usize) -> Option<usize> {
    let few = few_of(patients);
    match (effort, names) {
        (PlanEffort::All, _) => Some((patients / SOME_OF).clamp(few, MOST.max(few))),
        (PlanEffort::Little, NameLookUp::Prefix(_)) => Some(FEW),
        // All words would have to be tested first.
        (PlanEffort::Little, NameLookUp::Part(_) | NameLookUp::Word { .. }) => None,
    }
}

/// The first text in byte order after all texts that begin with this one. `None` if there is none.
pub(in crate::db) fn after_prefix(prefix: &str) -> Option<String> {
    let kept = prefix.trim_end_matches(char::MAX);
    let last = kept.chars().next_back()?;
    // The range leaves out surrogates.
    let next = (last..=char::MAX).nth(1)?;
    Some(format!("{}{next}", kept.strip_suffix(last)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::level::InformationModel;
    use crate::model::matching::{KeyValue, MatchPolicy, Matching};

    fn key(attribute: AttributeId, value: &str) -> MatchingKey {
        let value = KeyValue::Text(value.to_owned());
        let matching = Matching::of_key(attribute.attribute(), &value, &MatchPolicy::default()).unwrap();
        MatchingKey { attribute, matching }
    }

    fn request(level: QueryRetrieveLevel, matching_keys: Vec<MatchingKey>) -> FindRequest {
        FindRequest { matching_keys, ..FindRequest::new(InformationModel::StudyRoot, level) }
    }

    #[test]
    fn keys_part_at_the_level_that_is_asked_for() {
        let keys = vec![
            key(AttributeId::PatientID, "1"),
            key(AttributeId::Modality, "CT"),
            key(AttributeId::InstanceAvailability, "ONLINE"),
        ];
        let request = request(Study, keys);
        let keys = PartedKeys::of(&request);
        let ids = |keys: &[&MatchingKey]| keys.iter().map(|key| key.attribute).collect::<Vec<_>>();
        assert_eq!(ids(&keys.above), [AttributeId::PatientID, AttributeId::InstanceAvailability]);
        assert_eq!(ids(&keys.below), [AttributeId::Modality]);
        assert!(keys.asks_below() && keys.name_few() && !keys.lead_from_below_study());
        assert!(asks_for_patient(&request, false));
    }

    #[test]
    fn a_key_that_names_few_leads_and_the_others_are_looked_at() {
        let name = key(AttributeId::PatientName, "SMI*");
        assert_eq!(LookUp::of(&name, false), Some(LookUp::Names(NameLookUp::Prefix("smi".to_owned()))));
        assert_eq!(LookUp::of(&name, true), Some(LookUp::Scan));
        assert!(names_few(&key(AttributeId::StudyInstanceUID, "1.2\\1.3")));
        assert!(!names_few(&key(AttributeId::StudyDate, "20240101")));
        assert!(!names_few(&key(AttributeId::PatientID, "1*")));
        assert_eq!(LookUp::of(&key(AttributeId::StudyDate, "20240101"), false), None);
    }

    #[test]
    fn a_prefix_is_a_range_that_ends_before_the_next_text() {
        let id = AttributeId::PatientID;
        let range = |from: &str, to: Option<&str>| {
            Some(LookUp::Range { attribute: id, from: from.to_owned(), to: to.map(str::to_owned) })
        };
        assert_eq!(LookUp::of(&key(id, "AB*"), false), range("AB", Some("AC")));
        assert_eq!(after_prefix("a\u{D7FF}").as_deref(), Some("a\u{E000}"));
        assert_eq!(after_prefix("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(after_prefix("\u{10FFFF}"), None);
        assert_eq!(after_prefix(""), None);
    }

    #[test]
    fn the_more_patients_there_are_the_more_names_may_be_gathered() {
        let prefix = NameLookUp::Prefix("a".to_owned());
        let word = NameLookUp::Word { prefix: "a".to_owned(), sounds: Vec::new() };
        assert_eq!(most_names(PlanEffort::Little, &prefix, 10_000_000), Some(1_000));
        assert_eq!(most_names(PlanEffort::Little, &word, 10), None);
        assert_eq!(most_names(PlanEffort::All, &word, 10), Some(1_000));
        assert_eq!(most_names(PlanEffort::All, &word, 1_000_000), Some(250_000));
        assert_eq!(most_names(PlanEffort::All, &word, 10_000_000), Some(500_000));
        assert_eq!(few_of(1_000_000), 5_000);
    }
}
