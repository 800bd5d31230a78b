//! Selects the instances of a C-MOVE or C-GET (PS3.4 C.4.2, C.4.3).

use std::collections::HashMap;
use std::ops::ControlFlow;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::Hierarchy;
use super::error::{Failure, FindError};
use super::identifier::Identifier;
use crate::db::{self, Search};
use crate::model::attribute::{ATTRIBUTES, Attribute, AttributeId, KeyType};
use crate::model::find::{FindRequest, MatchingKey, ReturnKey};
use crate::model::level::{InformationModel, QueryRetrieveLevel};
use crate::model::matching::{KeyValue, MatchPolicy, Matching, Narrowing};
use crate::model::status::Status;
use crate::qr::parse::level;

/// Reason why a retrieval cannot start. The message never contains a value of the Identifier.
#[derive(Debug, thiserror::Error)]
pub enum RetrieveError {
    /// The query for the instances failed.
    #[error(transparent)]
    Query(#[from] FindError),
    /// A required unique key is absent, empty, or has wild cards. It is the key of the level or of
    /// a level above.
    #[error("the unique key {0} needs a value without wild cards")]
    NoUniqueKey(Tag),
    /// A key has several values but may have only one. Only the UIDs of the level itself may be a
    /// list (PS3.4 C.4.2.1.4.1).
    #[error("{0} has several values but may have only one")]
    SeveralValues(Tag),
    /// Strict hierarchy only: a key is not a unique key of the level or of a level above.
    #[error("{0} is not a unique key of this level or above")]
    NoKeyOfRetrieval(Tag),
    /// There are more instances than the configured limit.
    #[error("there are more than {0} instances")]
    TooManyInstances(usize),
}

impl RetrieveError {
    /// Whether the operator of this node should act.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Query(error) if error.is_ours())
    }

    /// Returns the response for this error (PS3.4 tables C.4-2 and C.4-3).
    #[must_use]
    pub fn failure(&self) -> Failure {
        let tags = match self {
            Self::Query(error @ (FindError::TimeLimit | FindError::TooManyMatches(_))) => {
                return Failure { status: Status::UNABLE_TO_CALCULATE_MATCHES, ..error.failure() };
            }
            Self::Query(error @ FindError::NoRoom) => {
                return Failure { status: Status::UNABLE_TO_PERFORM_SUB_OPERATIONS, ..error.failure() };
            }
            Self::Query(error) => return error.failure(),
            Self::TooManyInstances(_) => Vec::new(),
            Self::NoUniqueKey(tag) | Self::SeveralValues(tag) | Self::NoKeyOfRetrieval(tag) => vec![*tag],
        };
        let status = if tags.is_empty() {
            Status::UNABLE_TO_CALCULATE_MATCHES
        } else {
            Status::IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS
        };
        Failure { status, offending_elements: tags, comment: self.to_string() }
    }
}

/// Checks the Identifier of a C-MOVE or C-GET, and builds the query for its instances.
///
/// Retrieval is relational if this was negotiated, and always with [`Hierarchy::Lenient`]. Then
/// only the unique key of the level is required, and those of the levels above narrow the result.
/// Other keys do not belong to a retrieval. They are refused if hierarchy is strict, and ignored
/// otherwise.
///
/// # Errors
/// Each error has a status: see [`RetrieveError::failure`].
pub fn parse_retrieval(
    model: InformationModel,
    identifier: &Identifier,
    relational: bool,
    hierarchy: Hierarchy,
) -> Result<FindRequest, RetrieveError> {
    let level = level(model, identifier)?;
    let strict = hierarchy == Hierarchy::Strict;
    let mut matching_keys = Vec::new();
    for unique in ATTRIBUTES.iter().filter(|attribute| attribute.key == KeyType::Unique) {
        if unique.level > level || !model.has_level(unique.level) {
            continue;
        }
        let text = identifier.text(unique.tag).unwrap_or_default();
        let is_own = unique.level == level;
        if text.split('\\').all(|value| value.trim().is_empty()) {
            if is_own || (strict && !relational) {
                return Err(RetrieveError::NoUniqueKey(unique.tag));
            }
            continue;
        }
        let matching = if unique.level == QueryRetrieveLevel::Patient {
            // The key has one value (PS3.4 C.4.2.2.1). Some objects have a backslash or a star in
            // it. They are retrieved by the value that was returned. `no_patient_id` handles a
            // value that was meant as a list or a pattern.
            Matching::whole(unique, text)
        } else if text.contains(['*', '?']) {
            return Err(RetrieveError::NoUniqueKey(unique.tag));
        } else if text.contains('\\') && !is_own && strict {
            return Err(RetrieveError::SeveralValues(unique.tag));
        } else {
            Matching::of_key(unique, &KeyValue::Text(text.to_owned()), &MatchPolicy::default())
                .map_err(|error| FindError::InvalidKey(unique.tag, error))?
        };
        matching_keys.push(MatchingKey { attribute: unique.id, matching });
    }
    if strict {
        let is_key = |tag: Tag| {
            let unique = Attribute::by_tag(tag).filter(|attribute| attribute.key == KeyType::Unique);
            unique.is_some_and(|attribute| attribute.level <= level)
                || matches!(tag, tags::QUERY_RETRIEVE_LEVEL | tags::SPECIFIC_CHARACTER_SET)
        };
        if let Some(other) = identifier.elements.iter().find(|element| !is_key(element.tag)) {
            return Err(RetrieveError::NoKeyOfRetrieval(other.tag));
        }
    }
    let returned = [AttributeId::SOPClassUID, AttributeId::SOPInstanceUID, AttributeId::AvailableTransferSyntaxUID];
    Ok(FindRequest { matching_keys, ..FindRequest::new(model, QueryRetrieveLevel::Image).returning(&returned) })
}

/// Extends the query for the instances of a retrieval: the study and the patient of each is asked
/// for as well.
#[must_use]
pub fn with_owners(mut request: FindRequest) -> FindRequest {
    // In the order of their tags.
    let owner = [AttributeId::PatientName, AttributeId::PatientID, AttributeId::StudyInstanceUID];
    request.return_keys.extend(owner.map(|attribute| ReturnKey { attribute, items: Vec::new() }));
    request
}

/// The study and the patient of instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceOwner {
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// Patient ID.
    pub patient_id: String,
    /// Patient's Name.
    pub patient_name: String,
}

/// Kind of an object. Each kind needs a presentation context.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKind {
    /// SOP Class UID.
    pub sop_class_uid: String,
    /// Transfer syntax of the stored object.
    pub transfer_syntax: String,
}

/// An instance of a retrieval.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RetrievedInstance<'a> {
    /// SOP Instance UID.
    pub sop_instance_uid: &'a str,
    /// Kind of the object.
    pub kind: &'a ObjectKind,
}

/// The instances of a retrieval, ordered by study, series and instance number. Each takes some 70
/// bytes.
#[derive(Clone, Default)]
pub struct Instances {
    uids: String,
    rows: Vec<RetrievalRow>,
    kinds: Vec<ObjectKind>,
    /// Studies with their patients, in the order of the instances. Empty if nobody asked for them.
    owners: Vec<InstanceOwner>,
}

#[derive(Clone, Copy)]
struct RetrievalRow {
    /// End of its UID in `uids`. The UID begins where the UID before it ends.
    end: usize,
    kind: u32,
    /// Number of its owner, from 1 on. 0 if nobody asked for it.
    owner: u32,
}

impl Instances {
    /// Returns the number of instances.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no instances.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the instance at this position.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<RetrievedInstance<'_>> {
        let row = self.rows.get(at)?;
        let start = at.checked_sub(1).and_then(|before| self.rows.get(before)).map_or(0, |before| before.end);
        Some(RetrievedInstance {
            sop_instance_uid: self.uids.get(start..row.end)?,
            kind: self.kinds.get(usize::try_from(row.kind).ok()?)?,
        })
    }

    /// Returns the study and the patient of the instance at this position, if [`with_owners`] asked
    /// for them.
    #[must_use]
    pub fn owner(&self, at: usize) -> Option<&InstanceOwner> {
        let number = usize::try_from(self.rows.get(at)?.owner).ok()?;
        self.owners.get(number.checked_sub(1)?)
    }

    /// Returns all instances from `at` on.
    pub fn iter_from(&self, at: usize) -> impl Iterator<Item = RetrievedInstance<'_>> {
        (at..self.len()).filter_map(|at| self.get(at))
    }
}

#[derive(Default)]
struct RetrievalGathering {
    instances: Instances,
    kinds: HashMap<ObjectKind, u32>,
}

impl RetrievalGathering {
    fn push(&mut self, uid: &str, kind: ObjectKind) {
        let Self { instances, kinds } = self;
        let number = match kinds.get(&kind) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(instances.kinds.len()).unwrap_or(u32::MAX);
                instances.kinds.push(kind.clone());
                kinds.insert(kind, number);
                number
            }
        };
        instances.uids.push_str(uid);
        let owner = u32::try_from(instances.owners.len()).unwrap_or(u32::MAX);
        instances.rows.push(RetrievalRow { end: instances.uids.len(), kind: number, owner });
    }

    /// Says of which study and patient the next instances are.
    fn owned_by(&mut self, [patient_name, patient_id, study_instance_uid]: [&str; 3]) {
        let owners = &mut self.instances.owners;
        let is_known = owners.last().is_some_and(|last| {
            last.study_instance_uid == study_instance_uid
                && last.patient_id == patient_id
                && last.patient_name == patient_name
        });
        if !is_known {
            let [study_instance_uid, patient_id, patient_name] =
                [study_instance_uid, patient_id, patient_name].map(str::to_owned);
            owners.push(InstanceOwner { study_instance_uid, patient_id, patient_name });
        }
    }
}

/// Collects SOP Instance UIDs and the kinds of their objects.
impl FromIterator<(String, ObjectKind)> for Instances {
    fn from_iter<I: IntoIterator<Item = (String, ObjectKind)>>(instances: I) -> Self {
        let mut gathering = RetrievalGathering::default();
        for (uid, kind) in instances {
            gathering.push(&uid, kind);
        }
        gathering.instances
    }
}

impl std::fmt::Debug for Instances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instances").field("len", &self.rows.len()).field("kinds", &self.kinds).finish()
    }
}

/// Queries the index for the instances.
///
/// # Errors
/// - [`RetrieveError::TooManyInstances`] if the limit is exceeded.
/// - [`RetrieveError::SeveralValues`] or [`RetrieveError::NoUniqueKey`] for a list or a pattern of
///   Patient IDs.
/// - [`FindError::TimeLimit`] if another thread interrupted the reader. A retrieval is only
///   interrupted when its time is up.
/// - [`FindError::Index`] if the index fails.
pub fn instances(reader: &mut impl Search, request: &FindRequest, limit: usize) -> Result<Instances, RetrieveError> {
    let mut found = RetrievalGathering::default();
    let mut too_many = false;
    let has_owners = request.return_keys.len() > 3;
    let answered = reader.find(request, |answer| {
        if found.instances.len() == limit {
            too_many = true;
            return ControlFlow::Break(());
        }
        let [sop_class_uid, uid, transfer_syntax] = [0, 1, 2].map(|at| answer.values.text(at));
        let kind = ObjectKind { sop_class_uid: sop_class_uid.to_owned(), transfer_syntax: transfer_syntax.to_owned() };
        if has_owners {
            found.owned_by([3, 4, 5].map(|at| answer.values.text(at)));
        }
        found.push(uid, kind);
        ControlFlow::Continue(())
    });
    match answered {
        Ok(_) if too_many => Err(RetrieveError::TooManyInstances(limit)),
        Ok(_) if found.instances.is_empty() => no_patient_id(request).map_or(Ok(Instances::default()), Err),
        Ok(_) => Ok(found.instances),
        Err(db::Error::Interrupted) => Err(FindError::TimeLimit.into()),
        Err(error) => Err(FindError::Index(error).into()),
    }
}

/// Returns the error for a Patient ID that no patient has, if it was probably meant as a list or a
/// pattern.
fn no_patient_id(request: &FindRequest) -> Option<RetrieveError> {
    let tag = AttributeId::PatientID.attribute().tag;
    let key = request.matching_keys.iter().find(|key| key.attribute == AttributeId::PatientID)?;
    let Narrowing::Equals(ids) = key.matching.narrowing() else { return None };
    let has = |special: &[char]| ids.iter().any(|id| id.contains(special));
    if has(&['*', '?']) {
        return Some(RetrieveError::NoUniqueKey(tag));
    }
    has(&['\\']).then_some(RetrieveError::SeveralValues(tag))
}

/// Answers a SOP Class Extended Negotiation Sub-Item of a MOVE or GET SOP Class (PS3.4 tables C.5-4
/// and C.5-5).
///
/// Byte 1, relational retrieval, is answered as requested. Byte 2, conversion of enhanced
/// multi-frame images, is always 0.
#[must_use]
pub fn retrieval_negotiation(requested: &[u8]) -> Vec<u8> {
    let relational = u8::from(requested.first() == Some(&1));
    [relational, 0].into_iter().take(requested.len()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;
    use InformationModel::{PatientRoot, PatientStudyOnly, StudyRoot};
    use QueryRetrieveLevel::{Image, Patient, Series, Study};

    fn keys_of(
        model: InformationModel,
        level: QueryRetrieveLevel,
        of: &[&str],
        hierarchy: Hierarchy,
    ) -> Result<Vec<AttributeId>, u16> {
        let identifier = keys::identifier(level, of.iter().copied()).unwrap();
        parse_retrieval(model, &identifier, false, hierarchy)
            .map(|request| request.matching_keys.iter().map(|key| key.attribute).collect())
            .map_err(|error| error.failure().status.0)
    }

    // PS3.4 C.4.2.2.1.
    #[test]
    fn the_unique_key_of_the_level_has_to_be_there() {
        let lenient = |model, level, of: &[&str]| keys_of(model, level, of, Hierarchy::Lenient);
        assert_eq!(lenient(StudyRoot, Study, &["StudyInstanceUID=1.2"]), Ok(vec![AttributeId::StudyInstanceUID]));
        assert_eq!(lenient(StudyRoot, Study, &["StudyInstanceUID=1.2\\1.3"]), Ok(vec![AttributeId::StudyInstanceUID]));
        for bad in
            [&[][..], &["StudyInstanceUID="], &["StudyInstanceUID=1.*"], &["PatientID=P1"], &["SeriesInstanceUID=1"]]
        {
            assert_eq!(lenient(StudyRoot, Study, bad), Err(0xA900), "{bad:?}");
        }
        assert_eq!(lenient(PatientRoot, Patient, &["PatientID=P1"]), Ok(vec![AttributeId::PatientID]));
        assert_eq!(lenient(PatientRoot, Patient, &["PatientID=A\\B"]), Ok(vec![AttributeId::PatientID]));
        assert_eq!(lenient(StudyRoot, Patient, &["PatientID=P1"]), Err(0xA900));
        assert_eq!(lenient(PatientStudyOnly, Series, &["SeriesInstanceUID=1"]), Err(0xA900));
        assert_eq!(
            lenient(PatientRoot, Image, &["SOPInstanceUID=1.2", "PatientName=X"]),
            Ok(vec![AttributeId::SOPInstanceUID])
        );
    }

    #[test]
    fn in_study_root_the_patient_id_does_not_narrow() {
        let of = &["StudyInstanceUID=1.2", "PatientID=P1"];
        assert_eq!(keys_of(StudyRoot, Study, of, Hierarchy::Lenient), Ok(vec![AttributeId::StudyInstanceUID]));
        let both = keys_of(PatientRoot, Study, of, Hierarchy::Lenient).unwrap();
        assert!(both.contains(&AttributeId::PatientID) && both.contains(&AttributeId::StudyInstanceUID));
    }

    #[test]
    fn strict_hierarchy_wants_the_keys_above_and_no_others() {
        let strict = |of: &[&str]| keys_of(StudyRoot, Series, of, Hierarchy::Strict);
        assert!(strict(&["StudyInstanceUID=1.2", "SeriesInstanceUID=1.3\\1.4"]).is_ok());
        assert_eq!(strict(&["SeriesInstanceUID=1.3"]), Err(0xA900));
        assert_eq!(strict(&["StudyInstanceUID=1.2\\1.5", "SeriesInstanceUID=1.3"]), Err(0xA900));
        assert_eq!(strict(&["StudyInstanceUID=1.2", "SeriesInstanceUID=1.3", "Modality=CT"]), Err(0xA900));
        let identifier = keys::identifier(Series, ["SeriesInstanceUID=1.3"]).unwrap();
        assert!(parse_retrieval(StudyRoot, &identifier, true, Hierarchy::Strict).is_ok(), "negotiated as relational");
    }

    #[test]
    fn only_relational_retrieval_is_agreed() {
        assert_eq!(retrieval_negotiation(&[1, 1]), [1, 0]);
        assert_eq!(retrieval_negotiation(&[1]), [1]);
        assert_eq!(retrieval_negotiation(&[2, 0, 1]), [0, 0]);
        assert!(retrieval_negotiation(&[]).is_empty());
    }

    #[test]
    fn comments_fit_into_an_error_comment() {
        let tag = Tag(0x0020, 0x000D);
        for error in [
            RetrieveError::NoUniqueKey(tag),
            RetrieveError::SeveralValues(tag),
            RetrieveError::NoKeyOfRetrieval(tag),
            RetrieveError::TooManyInstances(usize::MAX),
        ] {
            assert!(error.failure().comment.len() <= 64, "{error}");
        }
    }
}
