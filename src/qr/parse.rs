//! Turns an Identifier into a query that the index can answer (PS3.4 C.4.1).

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::error::FindError;
use super::identifier::Identifier;
use super::items::{KeptElements, creators, item_keys, supported};
use super::negotiation::NegotiatedOptions;
use super::{Hierarchy, Options, PendingStatus, Retrievable};
use crate::db::{can_answer, can_answer_declared};
use crate::model::attribute::{ATTRIBUTES, Attribute, AttributeId, KeyType, ValueSource};
use crate::model::declared::{DeclaredSet, Unit, creator_tag, is_private_creator};
use crate::model::find::{DateTimeKey, DeclaredKey, FindRequest, MatchingKey, MomentCondition, ReturnKey};
use crate::model::level::{InformationModel, QueryRetrieveLevel};
use crate::model::matching::{
    DateTimeRange, KeyElement, KeyValue, MatchPolicy, Matching, MatchingError, NameMatching, QuotationMarks,
    SeveralValues, UnknownRequired,
};
use crate::model::status::Status;

/// A checked query, with the rules for its answers.
#[derive(Clone, Debug)]
pub struct Query {
    /// The request to the index.
    pub request: FindRequest,
    /// Keys that are neither matched nor returned (PS3.4 C.2.2.1.3), or that are matched and not
    /// returned.
    pub unsupported: Vec<Tag>,
    /// Specific Character Set of the request.
    pub character_set: String,
    /// Maximum number of answers. One more is an error, so that no answer is lost silently.
    pub limit: Option<u64>,
    /// Attributes that are requested from the index only for the answers of others.
    pub(super) hidden: Vec<AttributeId>,
    pub(super) retrievable: Retrievable,
    /// Elements for the declared attributes of the request, in the same order.
    pub(super) declared: Vec<AnsweredAs>,
    pending: PendingStatus,
    /// Keys of a Repository Query, if it is one.
    pub(super) repository: Option<RepositoryKeys>,
}

/// Keys that only a Repository Query has (PS3.4 table C.6.4.1-1).
#[derive(Clone, Copy, Debug)]
pub(super) struct RepositoryKeys {
    /// Whether Record Key is returned.
    pub(super) record_key: bool,
    /// Whether File Access Sequence is returned.
    pub(super) file_access: bool,
}

/// The element of a request that is a declared attribute.
#[derive(Clone, Debug)]
pub(super) struct AnsweredAs {
    pub(super) tag: Tag,
    /// For a private element: the tag of its private creator element, and the creator.
    pub(super) creator: Option<(Tag, String)>,
}

/// Pairs each date with its time. Their keywords differ only in the ending (StudyDate, StudyTime).
fn dates_with_times() -> impl Iterator<Item = (&'static Attribute, &'static Attribute)> {
    ATTRIBUTES.iter().filter(|date| date.vr == VR::DA).filter_map(|date| {
        let stem = date.keyword.strip_suffix("Date")?;
        let goes_with = |time: &&Attribute| {
            time.vr == VR::TM && time.level == date.level && time.keyword.strip_suffix("Time") == Some(stem)
        };
        Some((date, ATTRIBUTES.iter().find(goes_with)?))
    })
}

impl Query {
    /// Whether the value of this key narrows the answers.
    #[must_use]
    pub fn is_matched(&self, tag: Tag) -> bool {
        let of_moments = self.request.date_time_keys.iter().flat_map(|key| [key.date, key.time]);
        let mut of_table = self.request.matching_keys.iter().map(|key| key.attribute).chain(of_moments);
        let mut declared = self.request.declared.iter().zip(&self.declared);
        of_table.any(|id| id.attribute().tag == tag)
            || declared.any(|(key, answered_as)| key.matching.is_some() && answered_as.tag == tag)
    }

    /// Returns the status of its Pending responses: FF00, or FF01 if an optional key is not
    /// supported (PS3.4 table C.4-1).
    #[must_use]
    pub fn pending_status(&self) -> Status {
        match self.pending {
            PendingStatus::AlwaysFf00 => Status::PENDING,
            PendingStatus::AsSupported if self.unsupported.is_empty() => Status::PENDING,
            PendingStatus::AsSupported => Status::PENDING_WITHOUT_OPTIONAL_KEYS,
        }
    }
}

/// Checks an Identifier against the Information Model and builds a query from it.
///
/// # Errors
/// Each error has a status: see [`FindError::failure`].
pub fn parse(
    model: InformationModel,
    identifier: &Identifier,
    negotiated: NegotiatedOptions,
    options: &Options,
) -> Result<Query, FindError> {
    let level = level(model, identifier)?;
    let keys = IdentifierKeys::new(&identifier.elements, &options.declared);
    let is_strict = options.hierarchy == Hierarchy::Strict && !negotiated.relational_queries;
    if is_strict {
        keys.check_hierarchy(model, level)?;
    }

    let policy = policy(negotiated, options);
    let StandardKeys { mut matching_keys, mut return_keys, mut unsupported } =
        standard_keys(&keys, (model, level), is_strict, &policy)?;
    let (declared, answered_as) = declared_keys(&keys, level, &policy, &mut unsupported)?;
    let mut date_time_keys = Vec::new();
    if negotiated.combined_date_time {
        date_time_keys = keys.combined(&policy);
        // The date still narrows the answers. The time alone no longer has a meaning.
        matching_keys.retain(|matching| date_time_keys.iter().all(|key| key.time != matching.attribute));
    }
    date_time_keys.extend(take_keys_with_offset(&mut matching_keys));
    let mut hidden = Vec::new();
    if needs_zone(&date_time_keys, &return_keys, &declared) {
        hidden.push(AttributeId::TimezoneOffsetFromUTC);
    }
    let retrievable = if options.retrieve_ae_title.is_empty() { Retrievable::All } else { options.retrievable };
    if retrievable == Retrievable::KeptHere {
        hidden.push(AttributeId::InstanceAvailability);
    }
    hidden.retain(|id| !return_keys.iter().any(|key| key.attribute == *id));
    return_keys.extend(hidden.iter().map(|&attribute| ReturnKey { attribute, items: Vec::new() }));
    add_unique_keys(model, level, &keys, &mut return_keys);
    return_keys.sort_by_key(|key| key.attribute.attribute().tag);

    // One more answer than the limit shows that there are more.
    let limit = options.limit.map(|limit| limit.saturating_add(1));
    Ok(Query {
        request: FindRequest {
            matching_keys,
            date_time_keys,
            return_keys,
            declared,
            limit,
            ..FindRequest::new(model, level)
        },
        unsupported,
        character_set: identifier.character_set.clone(),
        limit: options.limit,
        hidden,
        retrievable,
        declared: answered_as,
        pending: options.pending,
        repository: None,
    })
}

/// Returns how keys are matched after extended negotiation.
fn policy(negotiated: NegotiatedOptions, options: &Options) -> MatchPolicy {
    MatchPolicy {
        several_values: if negotiated.multiple_value { SeveralValues::AllOf } else { SeveralValues::AnyOf },
        quotation_marks: if negotiated.empty_value { QuotationMarks::EmptyValue } else { QuotationMarks::Literal },
        names: if negotiated.fuzzy_names { NameMatching::Fuzzy } else { options.names },
        unknown_required: options.unknown_required,
    }
}

/// The keys of the attribute table, as the query needs them.
struct StandardKeys {
    matching_keys: Vec<MatchingKey>,
    return_keys: Vec<ReturnKey>,
    /// Tags of keys that are not matched or not answered.
    unsupported: Vec<Tag>,
}

/// Compiles the keys of the attribute table.
fn standard_keys(
    keys: &IdentifierKeys<'_>,
    (model, level): (InformationModel, QueryRetrieveLevel),
    is_strict: bool,
    policy: &MatchPolicy,
) -> Result<StandardKeys, FindError> {
    let mut compiled =
        StandardKeys { matching_keys: Vec::new(), return_keys: Vec::new(), unsupported: keys.unsupported.clone() };
    for (attribute, key) in &keys.known {
        // In Study Root, Patient ID is no unique key (PS3.4 table C.6-5).
        let is_unique = attribute.key == KeyType::Unique && model.has_level(attribute.level);
        let names_one = is_strict && is_unique && attribute.level < level;
        let matching = match &**key {
            KeyValue::Text(text) if names_one => Some(Matching::whole(attribute, text)),
            key => key_matching(attribute, key, policy)?,
        };
        let is_matched = match matching {
            Some(Matching::Universal) => true,
            Some(matching) => {
                compiled.matching_keys.push(MatchingKey { attribute: attribute.id, matching });
                true
            }
            None => false,
        };
        if can_answer(attribute, level) {
            compiled.return_keys.push(ReturnKey { attribute: attribute.id, items: item_keys(key) });
        }
        if !is_matched || !can_answer(attribute, level) || is_in_vain(attribute.id, key) {
            compiled.unsupported.push(attribute.tag);
        }
    }
    Ok(compiled)
}

/// Takes out the keys with an offset from UTC. Values without an offset are in the zone of their
/// data set (PS3.5 table 6.2-1, DT). No data set is that of a patient.
fn take_keys_with_offset(matching_keys: &mut Vec<MatchingKey>) -> impl Iterator<Item = DateTimeKey> {
    let is_in_zone = |key: &mut MatchingKey| {
        key.attribute.attribute().level > QueryRetrieveLevel::Patient && key.matching.names_offset()
    };
    matching_keys.extract_if(.., is_in_zone).map(|MatchingKey { attribute, matching }| {
        let condition = MomentCondition::InZone(matching);
        DateTimeKey { date: attribute, time: AttributeId::TimezoneOffsetFromUTC, condition }
    })
}

/// Whether the items that are answered depend on the time zone of their data set.
fn needs_zone(date_time_keys: &[DateTimeKey], return_keys: &[ReturnKey], declared: &[DeclaredKey]) -> bool {
    let is_answered = |id: AttributeId| return_keys.iter().any(|key| key.attribute == id);
    date_time_keys.iter().any(|key| key.date.attribute().vr == VR::SQ && is_answered(key.date))
        || declared.iter().any(|key| key.is_answered && key.unit.vr == VR::SQ && key.is_in_zone())
}

/// Compiles the keys of declared attributes. Returns them, and how each is answered.
fn declared_keys(
    keys: &IdentifierKeys<'_>,
    level: QueryRetrieveLevel,
    policy: &MatchPolicy,
    unsupported: &mut Vec<Tag>,
) -> Result<(Vec<DeclaredKey>, Vec<AnsweredAs>), FindError> {
    let (mut declared, mut answered_as) = (Vec::new(), Vec::new());
    for key in &keys.declared {
        let matching = declared_matching(key, policy)?;
        let is_answered = can_answer_declared(&key.unit, level);
        if !is_answered {
            unsupported.push(key.answered_as.tag);
        }
        declared.push(DeclaredKey { unit: Arc::clone(&key.unit), matching, is_answered, items: item_keys(&key.value) });
        answered_as.push(key.answered_as.clone());
    }
    Ok((declared, answered_as))
}

/// Adds the unique keys of all levels above (PS3.4 C.4.1.1.3.2).
///
/// A query that asks for nothing of its own level also returns its own unique key. By PS3.4
/// C.4.1.3.1.1 its answers would be empty.
fn add_unique_keys(
    model: InformationModel,
    level: QueryRetrieveLevel,
    keys: &IdentifierKeys<'_>,
    return_keys: &mut Vec<ReturnKey>,
) {
    let asks_for_level =
        keys.known.iter().any(|(attribute, _)| level_in(model, attribute) == level && !is_only_answered(attribute.id))
            || keys.declared.iter().any(|key| own_level(model, key.unit.level) == level);
    for attribute in ATTRIBUTES.iter().filter(|attribute| attribute.key == KeyType::Unique) {
        let is_above = attribute.level < level && model.has_level(attribute.level);
        let is_own = attribute.level == level && !asks_for_level;
        if (is_above || is_own) && !return_keys.iter().any(|key| key.attribute == attribute.id) {
            return_keys.push(ReturnKey { attribute: attribute.id, items: Vec::new() });
        }
    }
}

/// Reads and checks Query/Retrieve Level (PS3.4 C.4.1.1.3.1).
pub(super) fn level(model: InformationModel, identifier: &Identifier) -> Result<QueryRetrieveLevel, FindError> {
    let text = identifier.text(tags::QUERY_RETRIEVE_LEVEL).unwrap_or_default();
    if text.is_empty() {
        return Err(FindError::MissingLevel);
    }
    let level = QueryRetrieveLevel::parse(text).ok_or(FindError::UnknownLevel)?;
    if model.has_level(level) { Ok(level) } else { Err(FindError::LevelNotInModel { level, model }) }
}

/// Returns the level of an attribute in a model. In Study Root, patient attributes belong to the
/// study (PS3.4 C.6.2.1).
pub(super) fn level_in(model: InformationModel, attribute: &Attribute) -> QueryRetrieveLevel {
    own_level(model, attribute.level)
}

fn own_level(model: InformationModel, level: QueryRetrieveLevel) -> QueryRetrieveLevel {
    match level {
        QueryRetrieveLevel::Patient if !model.has_level(QueryRetrieveLevel::Patient) => QueryRetrieveLevel::Study,
        level => level,
    }
}

/// Whether an attribute may be requested at every level and never narrows the answers.
pub(super) fn is_only_answered(id: AttributeId) -> bool {
    matches!(
        id,
        // These describe the answering node (PS3.4 C.4.1.1.3.2).
        AttributeId::InstanceAvailability
            | AttributeId::RetrieveAETitle
            // It says how to read the dates and times of the request (PS3.4 C.4.1.1.3.1).
            | AttributeId::TimezoneOffsetFromUTC
    )
}

/// Whether a key has a value that would narrow the answers, and its attribute never does.
fn is_in_vain(id: AttributeId, key: &KeyValue) -> bool {
    let is_universal = |text: &str| text.bytes().all(|byte| byte == b'*');
    is_only_answered(id)
        && id != AttributeId::TimezoneOffsetFromUTC
        && matches!(key, KeyValue::Text(text) if !is_universal(text))
}

/// The keys of an Identifier. Each attribute occurs once.
struct IdentifierKeys<'a> {
    known: Vec<(&'static Attribute, Cow<'a, KeyValue>)>,
    declared: Vec<KeyOfUnit>,
    unsupported: Vec<Tag>,
}

/// A key that is a declared attribute.
struct KeyOfUnit {
    unit: Arc<Unit>,
    value: KeyValue,
    answered_as: AnsweredAs,
}

impl<'a> IdentifierKeys<'a> {
    fn new(elements: &'a [KeyElement], declared: &DeclaredSet) -> Self {
        let mut keys = Self { known: Vec::new(), declared: Vec::new(), unsupported: Vec::new() };
        let creators = creators(elements);
        let mut seen = HashSet::new();
        for element in elements {
            let tag = element.tag;
            // Elements of groups below 0008 and group lengths are not keys (PS3.4 C.4.1.1.3).
            // Private creator elements are not keys either (PS3.5 7.8.1). Query/Retrieve View has a
            // meaning only with byte 5 of the extended negotiation, which is never agreed.
            let is_no_key = tag.group() < 0x0008
                || tag.element() == 0
                || is_private_creator(tag)
                || matches!(tag, tags::QUERY_RETRIEVE_LEVEL | tags::QUERY_RETRIEVE_VIEW | tags::SPECIFIC_CHARACTER_SET);
            if is_no_key || !seen.insert(tag) {
                continue;
            }
            match Attribute::by_tag(tag) {
                // Every answer has it anyway.
                Some(attribute) if attribute.id == AttributeId::RetrieveAETitle => {
                    keys.unsupported.extend(is_in_vain(attribute.id, &element.value).then_some(tag));
                }
                Some(attribute) => {
                    let value = match &element.value {
                        KeyValue::Items(_) => {
                            Cow::Owned(supported(&element.value, KeptElements::All, &mut keys.unsupported))
                        }
                        KeyValue::Text(_) => Cow::Borrowed(&element.value),
                    };
                    keys.known.push((attribute, value));
                }
                None => {
                    let creator = creator_tag(tag).and_then(|tag| creators.iter().find(|(known, _)| *known == tag));
                    let unit = declared.unit(tag, creator.map(|(_, creator)| creator.as_str()));
                    match unit.filter(|unit| !keys.declared.iter().any(|key| key.unit.number == unit.number)) {
                        None => keys.unsupported.push(tag),
                        Some(unit) => keys.declared.push(KeyOfUnit {
                            unit: Arc::clone(unit),
                            value: supported(&element.value, KeptElements::of(&unit.items), &mut keys.unsupported),
                            answered_as: AnsweredAs { tag, creator: creator.cloned() },
                        }),
                    }
                }
            }
        }
        keys
    }

    /// Checks that the unique key of each level above has one value, and that no other levels have
    /// keys (PS3.4 C.4.1.2.1).
    fn check_hierarchy(&self, model: InformationModel, level: QueryRetrieveLevel) -> Result<(), FindError> {
        for unique in ATTRIBUTES.iter().filter(|attribute| attribute.key == KeyType::Unique) {
            if unique.level >= level || !model.has_level(unique.level) {
                continue;
            }
            let value = self.known.iter().find(|(attribute, _)| attribute.id == unique.id).map(|(_, value)| &**value);
            // Some objects have a backslash in Patient ID, against PS3.5. The patient has no other
            // identifier.
            let special: &[char] = if unique.vr == VR::UI { &['\\', '*', '?'] } else { &['*', '?'] };
            let is_one_value =
                matches!(value, Some(KeyValue::Text(text)) if !text.is_empty() && !text.contains(special));
            if !is_one_value {
                return Err(FindError::UniqueKeyAbove(unique.tag));
            }
        }
        let other = self.known.iter().find(|(attribute, _)| {
            let own = level_in(model, attribute);
            own != level && !is_only_answered(attribute.id) && !(own < level && attribute.key == KeyType::Unique)
        });
        other.map_or(Ok(()), |(attribute, _)| Err(FindError::KeyOfOtherLevel(attribute.tag)))?;
        let declared = self.declared.iter().find(|key| own_level(model, key.unit.level) != level);
        declared.map_or(Ok(()), |key| Err(FindError::KeyOfOtherLevel(key.answered_as.tag)))
    }

    /// Returns the pairs of ranges that form one range of date and time (PS3.4 C.2.2.2.5.4).
    fn combined(&self, policy: &MatchPolicy) -> Vec<DateTimeKey> {
        let text = |wanted: &Attribute| {
            self.known.iter().find(|(attribute, _)| attribute.id == wanted.id).and_then(|(_, value)| match &**value {
                KeyValue::Text(text) => Some(text.as_str()),
                KeyValue::Items(_) => None,
            })
        };
        dates_with_times()
            .filter_map(|(date, time)| {
                let mut range = DateTimeRange::new(text(date)?, text(time)?)?;
                if date.key == KeyType::Required && policy.unknown_required == UnknownRequired::Match {
                    range = range.or_unknown();
                }
                Some(DateTimeKey { date: date.id, time: time.id, condition: MomentCondition::Range(range) })
            })
            .collect()
    }
}

/// Compiles the condition of a key. `None` if the key has a value that cannot be matched.
fn key_matching(attribute: &Attribute, key: &KeyValue, policy: &MatchPolicy) -> Result<Option<Matching>, FindError> {
    if is_only_answered(attribute.id) {
        return Ok(Some(Matching::Universal));
    }
    match Matching::of_key(attribute, key, policy) {
        Ok(Matching::Universal) => Ok(Some(Matching::Universal)),
        Ok(_) if attribute.source == ValueSource::AlwaysEmpty => Ok(None),
        Ok(matching) => Ok(Some(matching)),
        Err(MatchingError::NotMatched(_)) => Ok(None),
        Err(error) => Err(FindError::InvalidKey(attribute.tag, error)),
    }
}

/// Compiles the condition of a declared attribute. `None` for universal matching.
fn declared_matching(key: &KeyOfUnit, policy: &MatchPolicy) -> Result<Option<Matching>, FindError> {
    let vr = key.unit.vr;
    let matching = match &key.value {
        KeyValue::Text(text) if text.is_empty() => Ok(Matching::Universal),
        KeyValue::Text(text) => Matching::compile(key.unit.comparison(), text, policy),
        KeyValue::Items(items) if vr == VR::SQ => Matching::of_items(items, policy),
        KeyValue::Items(_) => Err(MatchingError::WrongKind(vr)),
    };
    match matching {
        Ok(Matching::Universal) => Ok(None),
        Ok(matching) => Ok(Some(matching)),
        Err(error) => Err(FindError::InvalidKey(key.answered_as.tag, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;
    use crate::model::find::ItemKey;

    fn ask(model: InformationModel, level: QueryRetrieveLevel, of: &[&str]) -> Result<Query, FindError> {
        ask_with(model, level, of, NegotiatedOptions::default(), &Options::default())
    }

    fn ask_with(
        model: InformationModel,
        level: QueryRetrieveLevel,
        of: &[&str],
        negotiated: NegotiatedOptions,
        options: &Options,
    ) -> Result<Query, FindError> {
        parse(model, &keys::identifier(level, of.iter().copied()).unwrap(), negotiated, options)
    }

    fn returned(query: &Query) -> Vec<&'static str> {
        query.request.return_keys.iter().map(|key| key.attribute.attribute().keyword).collect()
    }

    fn matched(query: &Query) -> Vec<(&'static str, &'static str)> {
        let keys = query.request.matching_keys.iter();
        keys.map(|key| (key.attribute.attribute().keyword, key.matching.type_name())).collect()
    }

    use InformationModel::{PatientRoot, PatientStudyOnly, StudyRoot};
    use QueryRetrieveLevel::{Image, Series, Study};

    // PS3.4 C.4.1.1.3.1, C.6.
    #[test]
    fn the_level_has_to_be_one_of_the_model() {
        let level = |model, text: &str| {
            let value = KeyValue::Text(text.into());
            let elements = vec![KeyElement { tag: tags::QUERY_RETRIEVE_LEVEL, vr: VR::CS, value }];
            let identifier = Identifier { elements, character_set: String::new() };
            parse(model, &identifier, NegotiatedOptions::default(), &Options::default())
                .map(|query| query.request.level)
        };
        assert_eq!(level(StudyRoot, "study").unwrap(), Study);
        assert_eq!(level(StudyRoot, "INSTANCE").unwrap(), Image);
        assert!(matches!(level(StudyRoot, ""), Err(FindError::MissingLevel)));
        assert!(matches!(level(StudyRoot, "FRAME"), Err(FindError::UnknownLevel)));
        assert!(matches!(level(StudyRoot, "PATIENT"), Err(FindError::LevelNotInModel { .. })));
        assert!(matches!(level(PatientStudyOnly, "SERIES"), Err(FindError::LevelNotInModel { .. })));
        let none = Identifier::default();
        let refused = parse(StudyRoot, &none, NegotiatedOptions::default(), &Options::default()).unwrap_err().failure();
        assert_eq!(
            (refused.status, refused.offending_elements),
            (Status::IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, vec![Tag(0x0008, 0x0052)])
        );
    }

    // PS3.4 C.4.1.1.3.2.
    #[test]
    fn answers_have_what_is_asked_for_and_the_unique_keys_above() {
        let query = ask(PatientRoot, Series, &["StudyInstanceUID=1.2", "Modality", "SeriesNumber"]).unwrap();
        assert_eq!(returned(&query), ["Modality", "PatientID", "StudyInstanceUID", "SeriesNumber"]);
        assert_eq!(matched(&query), [("StudyInstanceUID", "list of UID")]);
        assert_eq!(query.pending_status(), Status::PENDING);
        let query = ask(StudyRoot, Series, &["Modality=CT"]).unwrap();
        assert_eq!(returned(&query), ["Modality", "StudyInstanceUID"]);
    }

    #[test]
    fn a_query_without_a_key_of_its_level_gets_the_unique_one() {
        assert_eq!(
            returned(&ask(PatientRoot, Study, &["PatientName=X"]).unwrap()),
            ["PatientName", "PatientID", "StudyInstanceUID"]
        );
        assert_eq!(
            returned(&ask(StudyRoot, Study, &["PatientName=X"]).unwrap()),
            ["PatientName"],
            "a study's in Study Root"
        );
        assert_eq!(
            returned(&ask(StudyRoot, Image, &[]).unwrap()),
            ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
        );
    }

    // PS3.4 C.4.1.1.3, PS3.5 7.8.
    #[test]
    fn command_groups_group_lengths_and_private_creators_are_no_keys() {
        let query =
            ask(StudyRoot, Study, &["00020010=X", "00080000=X", "00090010=ACME", "00080005=ISO_IR 100"]).unwrap();
        assert_eq!((matched(&query), query.unsupported.len()), (vec![], 0));
    }

    // PS3.4 C.2.2.1.3, table C.4-1.
    #[test]
    fn an_unsupported_key_is_not_answered_and_makes_pending_ff01() {
        for key in ["00091001=X", "PatientSexNeutered", "ImageType", "StudyStatusID=X"] {
            let query = ask(StudyRoot, Study, &["StudyInstanceUID", key]).unwrap();
            assert_eq!(
                (query.pending_status(), query.unsupported.len()),
                (Status::PENDING_WITHOUT_OPTIONAL_KEYS, 1),
                "{key}"
            );
        }
        let always = Options { pending: PendingStatus::AlwaysFf00, ..Options::default() };
        let query = ask_with(StudyRoot, Study, &["ImageType"], NegotiatedOptions::default(), &always).unwrap();
        assert_eq!(query.pending_status(), Status::PENDING);
        let retired = ask(StudyRoot, Study, &["StudyStatusID"]).unwrap();
        assert_eq!((returned(&retired), retired.pending_status()), (vec!["StudyStatusID"], Status::PENDING));
    }

    #[test]
    fn keys_of_other_levels_are_matched_by_default() {
        let query = ask(PatientRoot, Study, &["PatientName=X", "Modality=CT", "SOPClassUID=1.2"]).unwrap();
        assert_eq!(
            matched(&query),
            [("PatientName", "single value"), ("Modality", "single value"), ("SOPClassUID", "list of UID")]
        );
        assert_eq!(returned(&query), ["Modality", "PatientName", "PatientID", "StudyInstanceUID"]);
        assert_eq!(
            query.pending_status(),
            Status::PENDING_WITHOUT_OPTIONAL_KEYS,
            "the SOP Class of a study is matched, not answered"
        );
    }

    // PS3.4 C.4.1.2.1.
    #[test]
    fn strict_hierarchical_queries_have_one_value_for_each_unique_key_above_and_no_other_keys() {
        let strict = Options { hierarchy: Hierarchy::Strict, ..Options::default() };
        let strictly = |model, level, of: &[&str]| ask_with(model, level, of, NegotiatedOptions::default(), &strict);
        assert!(strictly(PatientRoot, Study, &["PatientID=P1", "StudyDate"]).is_ok());
        assert!(strictly(StudyRoot, Study, &["PatientName=X*", "StudyDate"]).is_ok());
        // It is one Patient ID, although it has a backslash.
        let odd = strictly(PatientRoot, Study, &["PatientID=A\\B"]).unwrap();
        let matching = &odd.request.matching_keys[0].matching;
        assert!(matching.matches("A\\B") && !matching.matches("A"));
        for key in ["PatientID", "PatientID=P*", "StudyDate"] {
            let refused = strictly(PatientRoot, Study, &[key]).unwrap_err().failure();
            assert_eq!(
                (refused.status, refused.offending_elements),
                (Status::IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, vec![Tag(0x0010, 0x0020)]),
                "{key}"
            );
        }
        for key in ["PatientName", "Modality=CT"] {
            let refused = strictly(PatientRoot, Study, &["PatientID=P1", key]).unwrap_err();
            assert!(matches!(refused, FindError::KeyOfOtherLevel(_)), "{key}");
        }
        assert!(strictly(StudyRoot, Series, &["StudyInstanceUID=1.2", "InstanceAvailability"]).is_ok());
        let empty = strictly(StudyRoot, Study, &["PatientID", "AccessionNumber=A1"]).unwrap();
        assert_eq!(matched(&empty), [("AccessionNumber", "single value")]);
        let several = strictly(StudyRoot, Study, &["PatientID=M*"]).unwrap();
        assert_eq!(matched(&several), [("PatientID", "wild card")]);
        let above = strictly(StudyRoot, Series, &["StudyInstanceUID=1.2", "PatientID"]).unwrap();
        assert_eq!(matched(&above).len(), 1);
        let relational = NegotiatedOptions { relational_queries: true, ..NegotiatedOptions::default() };
        assert!(ask_with(PatientRoot, Study, &["PatientName"], relational, &strict).is_ok());
    }

    #[test]
    fn a_value_that_means_nothing_is_refused_with_its_tag() {
        let refused = ask(StudyRoot, Study, &["StudyDate=SECRET-X"]).unwrap_err();
        assert_eq!(refused.failure().offending_elements, [Tag(0x0008, 0x0020)]);
        assert_eq!(refused.failure().status, Status::IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS);
        assert!(!refused.to_string().contains("SECRET"));
    }

    #[test]
    fn what_belongs_to_the_node_never_narrows_the_answers() {
        let query =
            ask(StudyRoot, Study, &["InstanceAvailability=X", "RetrieveAETitle=X", "TimezoneOffsetFromUTC=+0100"]);
        let query = query.unwrap();
        assert_eq!(matched(&query), []);
        assert_eq!(returned(&query), ["InstanceAvailability", "TimezoneOffsetFromUTC", "StudyInstanceUID"]);
        assert_eq!(query.pending_status(), Status::PENDING_WITHOUT_OPTIONAL_KEYS);
        let query = ask(StudyRoot, Study, &["InstanceAvailability", "RetrieveAETitle", "TimezoneOffsetFromUTC=+0100"]);
        assert_eq!(query.unwrap().pending_status(), Status::PENDING);
    }

    #[test]
    fn items_of_sequences_are_asked_for_by_attribute() {
        let query = ask(
            StudyRoot,
            Study,
            &["ProcedureCodeSequence.CodeMeaning", "ProcedureCodeSequence.CodeValue=A", "ReferencedStudySequence"],
        )
        .unwrap();
        assert_eq!(matched(&query), [("ProcedureCodeSequence", "sequence")]);
        let items: Vec<_> = query.request.return_keys.iter().map(|key| key.items.clone()).collect();
        let item = |tag| ItemKey { tag, items: vec![] };
        assert_eq!(items, [vec![item(Tag(0x0008, 0x0100)), item(Tag(0x0008, 0x0104))], vec![]]);
    }

    /// A query with one item in Request Attributes Sequence.
    fn ask_for_request(item: Vec<KeyElement>) -> Query {
        let mut identifier = keys::identifier(Series, ["SeriesInstanceUID"]).unwrap();
        let value = KeyValue::Items(vec![item]);
        identifier.elements.push(KeyElement { tag: Tag(0x0040, 0x0275), vr: VR::SQ, value });
        parse(StudyRoot, &identifier, NegotiatedOptions::default(), &Options::default()).unwrap()
    }

    // PS3.4 C.2.2.1.3, C.2.2.2.
    #[test]
    fn in_an_item_unsupported_elements_and_the_character_set_do_not_narrow() {
        let text = |tag, vr, text: &str| KeyElement { tag, vr, value: KeyValue::Text(text.into()) };
        let step = text(Tag(0x0040, 0x0009), VR::SH, "S1");
        let stored = r#"[{"00400009":{"vr":"SH","Value":["S1"]},"00091001":{"vr":"LO","Value":["y"]}}]"#;
        for (other, unsupported) in [
            (text(Tag(0x0009, 0x1001), VR::UN, "x"), 1),
            (text(Tag(0x0009, 0x1001), VR::LO, "x"), 1),
            (text(Tag(0x0009, 0x0010), VR::LO, "ACME"), 0),
            (text(Tag(0x0008, 0x0005), VR::CS, "ISO_IR 192"), 0),
            (text(Tag(0x0040, 0x0000), VR::UL, "4"), 0),
            (text(Tag(0x0009, 0x1001), VR::UN, ""), 0),
        ] {
            let query = ask_for_request(vec![other.clone(), step.clone()]);
            let matching = &query.request.matching_keys[0].matching;
            assert!(matching.matches(stored), "{}", other.tag);
            assert!(!matching.matches(&stored.replace("S1", "S2")), "{}", other.tag);
            assert_eq!(query.unsupported.len(), unsupported, "{}", other.tag);
            assert!(matched(&ask_for_request(vec![other])).is_empty());
        }
    }

    // PS3.4 C.2.2.2.5.4.
    #[test]
    fn ranges_of_date_and_time_are_combined_when_negotiated() {
        let of = ["StudyDate=20060705-20060707", "StudyTime=1000-1800", "StudyInstanceUID"];
        let negotiated = NegotiatedOptions { combined_date_time: true, ..NegotiatedOptions::default() };
        let query = ask_with(StudyRoot, Study, &of, negotiated, &Options::default()).unwrap();
        assert_eq!(matched(&query), [("StudyDate", "range")]);
        assert_eq!(query.request.date_time_keys.len(), 1);
        assert_eq!(matched(&ask(StudyRoot, Study, &of).unwrap()), [("StudyDate", "range"), ("StudyTime", "range")]);
        let one_open = ["StudyDate=20060705-", "StudyTime=1000-1800"];
        let query = ask_with(StudyRoot, Study, &one_open, negotiated, &Options::default()).unwrap();
        assert_eq!(query.request.date_time_keys.len(), 0);
        // The keys may be of any level.
        let below = ["AcquisitionDate=2024-2025", "AcquisitionTime=10-11", "StudyInstanceUID"];
        let query = ask_with(StudyRoot, Study, &below, negotiated, &Options::default()).unwrap();
        assert_eq!(query.request.date_time_keys.len(), 1);
    }

    // PS3.5 table 6.2-1, DT.
    #[test]
    fn a_moment_with_an_offset_is_matched_in_the_zone_of_the_data_set() {
        let asked =
            |key: &str| ask(StudyRoot, Image, &[&format!("AcquisitionDateTime={key}"), "SOPInstanceUID"]).unwrap();
        let query = asked("20231231232900+0000-20231231233100+0000");
        assert_eq!((query.request.matching_keys.len(), query.request.date_time_keys.len()), (0, 1));
        assert!(query.request.date_time_keys[0].condition.matches("20240101003000", "+0100"));
        assert!(query.is_matched(Tag(0x0008, 0x002A)));
        assert_eq!(asked("20240101003000").request.date_time_keys.len(), 0, "it is compared as it is written");
    }

    #[test]
    fn a_date_goes_with_the_time_of_the_same_name() {
        let pairs: Vec<_> = dates_with_times().map(|(date, _)| date.keyword).collect();
        for date in [
            "StudyDate",
            "SeriesDate",
            "PatientBirthDate",
            "PerformedProcedureStepStartDate",
            "AcquisitionDate",
            "ContentDate",
            "InstanceCreationDate",
        ] {
            assert!(pairs.contains(&date), "{date}");
        }
        assert!(dates_with_times().all(|(date, time)| date.level == time.level));
    }

    #[test]
    fn the_first_of_two_elements_with_one_tag_counts() {
        let mut identifier = keys::identifier(Study, ["PatientID=A"]).unwrap();
        identifier.elements.extend(keys::identifier(Study, ["PatientID=B"]).unwrap().elements);
        let query = parse(StudyRoot, &identifier, NegotiatedOptions::default(), &Options::default()).unwrap();
        assert_eq!(query.request.matching_keys.len(), 1);
        assert!(query.request.matching_keys[0].matching.matches("A"));
    }
}
