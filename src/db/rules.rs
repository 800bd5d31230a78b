//! The decisions of the index as pure functions. They say which value wins, which patients a study
//! has, which descriptions cannot be of one person, and what becomes of a file. No decision looks
//! at a database.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use dicom_core::VR;

use super::error::Error;
use super::name_words;
use super::types::{Compared, DuplicatePolicy, FileOutcome, KnownPolicy, ReceivePolicy, ScannedFile};
use crate::model::attribute::{ATTRIBUTES, AttributeId};
use crate::model::checksum::Checksum;
use crate::model::dicom_json::read_items;
use crate::model::level::QueryRetrieveLevel;
use crate::model::location::Place;
use crate::model::matching::separates_values;
use crate::model::record::InstanceRecord;
use crate::model::uid::is_valid_uid;
use crate::model::{datetime, person_name};

/// Whether `said` wins over `known` if two objects disagree about their patient, study or series
/// (docs/adr/0008, docs/adr/0014).
///
/// Any value wins over none. A value that is valid for its VR wins over one that is not. Of two
/// such values the longer text wins, and of two as long the one that sorts first. So any order of
/// arrival has the same result.
pub(super) fn is_more_complete(vr: VR, said: &str, known: &str) -> bool {
    if said == known || said.is_empty() || known.is_empty() {
        return known.is_empty() && !said.is_empty();
    }
    match (is_valid(vr, said), is_valid(vr, known)) {
        (true, false) => true,
        (false, true) => false,
        (true, true) | (false, false) => said.len() > known.len() || (said.len() == known.len() && said < known),
    }
}

/// Whether each value of a text has the form that PS3.5 6.2 gives to its VR.
///
/// The maximum length of a VR is not checked, on purpose. If two values differ in length alone, the
/// shorter one is often the longer one cut off.
pub(super) fn is_valid(vr: VR, text: &str) -> bool {
    match vr {
        // A backslash is an ordinary character here (PS3.5 6.1.2.3).
        VR::ST | VR::LT | VR::UT | VR::UR => is_valid_value(vr, text),
        // The array of items is made by us, so it is always valid.
        VR::SQ => true,
        _ => text.split('\\').all(|value| value.is_empty() || is_valid_value(vr, value)),
    }
}

fn is_valid_value(vr: VR, value: &str) -> bool {
    let only = |allowed: fn(u8) -> bool| value.bytes().all(allowed);
    match vr {
        VR::AS => {
            let bytes = value.as_bytes();
            bytes.len() == 4
                && bytes.iter().take(3).all(u8::is_ascii_digit)
                && matches!(bytes.last(), Some(b'D' | b'W' | b'M' | b'Y'))
        }
        VR::CS => only(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'_')),
        VR::DA => value.len() == 8 && datetime::days(value).is_some(),
        VR::TM => !value.contains(':') && datetime::times(value).is_some(),
        VR::DT => datetime::moments(value).is_some(),
        VR::DS => {
            only(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
                && value.parse::<f64>().is_ok_and(f64::is_finite)
        }
        VR::IS => value.parse::<i32>().is_ok(),
        VR::UI => is_valid_uid(value),
        // PS3.5 6.1.3 allows lines and pages here.
        VR::ST | VR::LT | VR::UT => value.chars().all(|c| is_text(c) || matches!(c, '\t' | '\n' | '\r' | '\u{C}')),
        _ => value.chars().all(is_text),
    }
}

/// Whether a character stands for itself. It is neither a control character nor the mark of bytes
/// that could not be decoded.
fn is_text(c: char) -> bool {
    !c.is_control() && c != char::REPLACEMENT_CHARACTER
}

/// The kept attributes of a patient, in the order of a [`Description`].
pub(super) fn patient_attributes() -> impl Iterator<Item = AttributeId> {
    ATTRIBUTES.iter().filter(|a| a.level == QueryRetrieveLevel::Patient && a.is_stored()).map(|a| a.id)
}

/// All values of a patient: those of [`patient_attributes`].
pub(super) type Description = Vec<String>;

/// A value of a description.
pub(super) fn value_of(description: &[String], id: AttributeId) -> &str {
    patient_attributes().position(|own| own == id).and_then(|at| description.get(at)).map_or("", String::as_str)
}

/// Replaces a value of a description.
pub(super) fn set_value(description: &mut [String], id: AttributeId, value: &str) {
    let at = patient_attributes().position(|own| own == id);
    if let Some(own) = at.and_then(|at| description.get_mut(at)) {
        value.clone_into(own);
    }
}

/// Tells patients without a Patient ID apart, by name and birth date. Empty if there is an ID.
pub(super) fn identity_of(patient_id: &str, name: &str, birth_date: &str) -> String {
    if !patient_id.is_empty() {
        return String::new();
    }
    let [name, ideographic, phonetic] = person_name::normal_groups(name);
    format!("{name}={ideographic}={phonetic}|{birth_date}")
}

/// Key that orders patients and tells them apart: Patient ID, identity and issuer.
pub(super) fn key_of(description: &[String]) -> (String, String, String) {
    let value = |id| value_of(description, id);
    let id = value(AttributeId::PatientID);
    let identity = identity_of(id, value(AttributeId::PatientName), value(AttributeId::PatientBirthDate));
    (id.to_owned(), identity, value(AttributeId::IssuerOfPatientID).to_owned())
}

/// Merges another description of the same patient. Returns whether the known one has changed.
pub(super) fn merge(known: &mut [String], said: &[String]) -> bool {
    let mut changed = false;
    for ((known, said), id) in known.iter_mut().zip(said).zip(patient_attributes()) {
        if is_more_complete(id.attribute().vr, said, known) {
            said.clone_into(known);
            changed = true;
        }
    }
    changed
}

/// A patient that the objects of a study name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PatientOfStudy {
    /// Values that these objects state together.
    pub(super) values: Description,
    /// The places of the descriptions that are of this patient.
    pub(super) members: Vec<usize>,
}

/// The patients that the objects of a study name, in order. The study is kept under the first one.
/// Objects without an issuer of the Patient ID mean the patient of that ID whose issuer sorts
/// first.
pub(super) fn patients_of_study(said: &[Description]) -> Vec<PatientOfStudy> {
    let mut by_key: BTreeMap<(String, String, String), Vec<usize>> = BTreeMap::new();
    for (at, description) in said.iter().enumerate() {
        by_key.entry(key_of(description)).or_default().push(at);
    }
    let mut found: Vec<PatientOfStudy> = Vec::new();
    let mut without_issuer: Option<((String, String), Vec<usize>)> = None;
    for ((id, identity, issuer), mut members) in by_key {
        let same = (id, identity);
        // Descriptions without an issuer come first of their Patient ID, and the first issuer
        // follows.
        if let Some((whose, waiting)) = without_issuer.take() {
            if whose == same {
                members.extend(waiting);
            } else {
                found.push(merged(said, waiting));
            }
        }
        if issuer.is_empty() {
            without_issuer = Some((same, members));
        } else {
            found.push(merged(said, members));
        }
    }
    found.extend(without_issuer.map(|(_, waiting)| merged(said, waiting)));
    found
}

fn merged(said: &[Description], members: Vec<usize>) -> PatientOfStudy {
    let mut values = vec![String::new(); patient_attributes().count()];
    for description in members.iter().filter_map(|&member| said.get(member)) {
        merge(&mut values, description);
    }
    PatientOfStudy { values, members }
}

/// The order in which a PATIENT answer chooses among matching descriptions of a patient. The
/// description with most values comes first, and of two with as many the one that sorts first.
pub(super) fn compare_descriptions(one: &[String], other: &[String]) -> Ordering {
    let count = |values: &[String]| values.iter().filter(|value| !value.is_empty()).count();
    count(other).cmp(&count(one)).then_with(|| one.cmp(other))
}

/// Descriptions of one patient that [`two_people`] compares. They are taken from each end of the
/// order of birth dates, and from those without one. So a Patient ID such as `0`, which 100,000
/// descriptions share, costs no more than this.
pub(super) const COMPARED_FROM_EACH_END: usize = 50;

/// Name and birth date of a description, for [`two_people`].
#[derive(Clone, Debug)]
pub(super) struct NameAndBirth {
    /// The component groups of the name in normal form.
    pub(super) names: [String; 3],
    pub(super) birth_date: String,
}

/// The first two of these descriptions that seem to be of two people. Their names share no word,
/// and their birth dates do not agree. A birth date that only one of them has does not agree. A
/// missing name says nothing.
pub(super) fn two_people(descriptions: &[NameAndBirth]) -> Option<(usize, usize)> {
    let told: Vec<(usize, BTreeSet<&str>, String)> = descriptions
        .iter()
        .enumerate()
        .map(|(at, d)| (at, name_words::words(&d.names.each_ref().map(String::as_str)), digits(&d.birth_date)))
        .filter(|(_, words, _)| !words.is_empty() && !words.contains(name_words::ANY_WORD))
        .collect();
    // If all share a word or a date, there is nothing to compare.
    let (_, first_words, first_birth) = told.first()?;
    let some_word_is_in_all = first_words.iter().any(|word| told.iter().all(|(_, words, _)| words.contains(word)));
    if some_word_is_in_all || told.iter().all(|(_, _, birth)| birth == first_birth) {
        return None;
    }
    for (n, (one, words, birth)) in told.iter().enumerate() {
        for (other, other_words, other_birth) in told.iter().skip(n + 1) {
            if dates_disagree(birth, other_birth) && words.is_disjoint(other_words) {
                return Some((*one, *other));
            }
        }
    }
    None
}

/// The two of these descriptions of one patient that seem to be of two people: see [`two_people`].
pub(super) fn two_people_of<D>(said: &[D], name_and_birth: impl Fn(&D) -> NameAndBirth) -> Option<[&D; 2]> {
    let (one, other) = two_people(&said.iter().map(name_and_birth).collect::<Vec<_>>())?;
    Some([said.get(one)?, said.get(other)?])
}

/// Descriptions of one Patient ID by the issuer that they mean. Those without an issuer mean the
/// first one (docs/adr/0014).
pub(super) fn by_meant_issuer<D>(
    said: impl IntoIterator<Item = D>,
    issuer: impl Fn(&D) -> &str,
) -> BTreeMap<String, Vec<D>> {
    let mut by_issuer: BTreeMap<String, Vec<D>> = BTreeMap::new();
    for description in said {
        by_issuer.entry(issuer(&description).to_owned()).or_default().push(description);
    }
    if by_issuer.len() > 1
        && let Some(without) = by_issuer.remove("")
        && let Some(first) = by_issuer.values_mut().next()
    {
        first.extend(without);
    }
    by_issuer
}

fn digits(date: &str) -> String {
    date.chars().filter(char::is_ascii_digit).collect()
}

/// Whether two dates disagree. A shorter date (`1960`) agrees with one that it begins (`19600504`).
/// A missing date agrees only with a missing date.
fn dates_disagree(one: &str, other: &str) -> bool {
    one.is_empty() != other.is_empty() || (!one.starts_with(other) && !other.starts_with(one))
}

/// Whether two records are of the same object, as far as an index keeps it. An object in another
/// transfer syntax is another object. Only decoding both could tell that they hold the same.
pub(super) fn is_same_object(one: &InstanceRecord, other: &InstanceRecord) -> bool {
    ATTRIBUTES
        .iter()
        .filter(|attribute| attribute.is_stored())
        .all(|attribute| one.value(attribute.id) == other.value(attribute.id))
}

/// Whether the same object has the same number of bytes in places of these kinds. A member of an
/// archive is a file like any other. A received object has File Meta Information of ours.
pub(super) fn sizes_comparable(one: Place, other: Place) -> bool {
    let is_file = |place| matches!(place, Place::InPlace | Place::Archive);
    one == other || (is_file(one) && is_file(other))
}

/// Content by which an object is compared.
#[derive(Clone, Copy)]
pub(super) struct ObjectContent<'a> {
    pub(super) record: &'a InstanceRecord,
    pub(super) place: Place,
    pub(super) size: u64,
    pub(super) checksum: Option<Checksum>,
}

impl ObjectContent<'_> {
    /// Whether another object differs, as far as can be told without the bytes.
    pub(super) fn differs_from(&self, other: &ObjectContent<'_>) -> bool {
        !is_same_object(self.record, other.record)
            // The file of a received object is written by us, and has another size.
            || (sizes_comparable(self.place, other.place) && self.size != other.size)
            || self.checksum.zip(other.checksum).is_some_and(|(one, other)| one != other)
    }
}

/// Whether a further location differs from a new first one. If only its bytes told that it differs
/// from the former one (`differed`), it is held to differ until something tells otherwise.
pub(super) fn differs_from_new_first(
    copy: &ObjectContent<'_>,
    differed: bool,
    former: &ObjectContent<'_>,
    first: &ObjectContent<'_>,
) -> bool {
    let only_bytes_told = differed && !copy.differs_from(former);
    let is_alike = copy.checksum.is_some() && copy.checksum == first.checksum;
    (only_bytes_told && !is_alike) || copy.differs_from(first)
}

/// A further location of an instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct FurtherLocation {
    pub(super) place: Place,
    /// Whether its file was gone when a scan looked.
    pub(super) is_missing: bool,
    /// Whether its object differs from the first one.
    pub(super) differs: bool,
}

impl FurtherLocation {
    /// Whether the instance has moved here if its first location is gone.
    pub(super) fn can_replace_first(self) -> bool {
        self.place != Place::MetadataOnly && !self.is_missing && !self.differs
    }

    /// Whether it is dropped, because its file is gone and the first location has the same content.
    pub(super) fn is_spare(self) -> bool {
        self.place != Place::MetadataOnly && self.is_missing && !self.differs
    }
}

/// Returns the files of a unit in the order in which every engine takes them: by Series Instance
/// UID, after those that are not indexed. So the location in the lower series comes first if an
/// instance is in two.
///
/// Within a series they go by SOP Instance UID, in the order of the packed rows of SQLite. There,
/// full stops come after digits, and the end of a UID of odd length after both. Files of one
/// instance and one series keep their order.
pub(super) fn in_order_of_series(files: &[ScannedFile]) -> Vec<&ScannedFile> {
    const FULL_STOP: u8 = b'9' + 1;
    const ODD_END: u8 = b'9' + 2;
    let packed_order = |uid: &str| -> Vec<u8> {
        let places = uid.bytes().map(|byte| if byte == b'.' { FULL_STOP } else { byte });
        places.chain((uid.len() % 2 == 1).then_some(ODD_END)).collect()
    };
    let mut ordered: Vec<&ScannedFile> = files.iter().collect();
    ordered.sort_by_cached_key(|file| match &file.outcome {
        FileOutcome::Instance(record) => {
            let uid = packed_order(record.value(AttributeId::SOPInstanceUID));
            Some((record.value(AttributeId::SeriesInstanceUID), uid))
        }
        FileOutcome::NotIndexed { .. } => None,
    });
    ordered
}

/// A file that a scan found, whose instance is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundFile {
    /// Whether it is the first location of the instance.
    pub(super) is_first: bool,
    /// Kind of the place of the first location.
    pub(super) first_place: Place,
}

/// Decision about a file that a scan found, whose instance is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundDecision {
    /// The instance has its first location here, and the file has changed.
    Update,
    /// The instance was known without its object, which lies here.
    Complete,
    /// The file of the first location is gone, and the same object lies here.
    Move,
    /// The file is a further location.
    KeepCopy,
}

impl FoundFile {
    /// Decides what becomes of the file.
    pub(super) fn decide<K: FirstLocation>(self, known: &mut K) -> Result<FoundDecision, K::Error> {
        Ok(if self.is_first {
            FoundDecision::Update
        } else if self.first_place == Place::MetadataOnly {
            FoundDecision::Complete
        } else if !known.first_is_there()? && !known.differs()? {
            FoundDecision::Move
        } else {
            FoundDecision::KeepCopy
        })
    }
}

/// A received object whose instance is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArrivingObject {
    pub(super) place: Place,
    pub(super) checksum: Option<Checksum>,
    pub(super) compared: Compared,
    pub(super) policy: ReceivePolicy,
    /// Kind of the place of the first location.
    pub(super) first_place: Place,
    /// Checksum of the object at the first location.
    pub(super) first_checksum: Option<Checksum>,
    /// Whether the first location is this very file.
    pub(super) is_first: bool,
    /// Whether the first location is in the directory of this file.
    pub(super) in_first_directory: bool,
}

/// Questions of decisions about the first location of an instance, each asked at most once.
pub(super) trait FirstLocation {
    type Error;

    /// Whether the record, or the size of the file, differs from what is known of the first
    /// location.
    fn differs(&mut self) -> Result<bool, Self::Error>;
    /// Whether the first location is a file that no scan has missed.
    fn first_is_there(&mut self) -> Result<bool, Self::Error>;
}

/// Further questions of a decision about an instance, each asked at most once. Most objects need
/// few of the answers.
pub(super) trait KnownInstance: FirstLocation {
    /// Whether a further location is this very file.
    fn is_further(&mut self) -> Result<bool, Self::Error>;
    /// Whether a further location is an object of our own.
    fn has_own(&mut self) -> Result<bool, Self::Error>;
    /// Metadata that were received of the instance without its object, and are kept beside its
    /// file.
    fn kept_metadata(&mut self) -> Result<KeptMetadata, Self::Error>;
}

/// Metadata of an instance that were received before without its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeptMetadata {
    Nothing,
    /// The same record.
    Same,
    /// Another record, or that of the first location.
    Other,
}

/// Decision about an object whose instance is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The index already names this very file.
    SameFile,
    /// The object is known, and nothing changes.
    Known,
    /// The object seems to be known. Only comparing its bytes with those at the first location can
    /// tell.
    Undecided,
    /// The object replaces one that is gone or was never there.
    Complete,
    /// The object becomes a further location.
    KeepCopy { differs: bool },
    /// The record is kept beside the file, for when that goes.
    KeepMetadata { differs: bool },
    /// The object is refused, which is a conflict.
    Refuse,
    /// The object replaces the first location, which is a conflict.
    Replace,
}

impl ArrivingObject {
    /// Decides what becomes of the object.
    pub(super) fn decide<K: KnownInstance>(&self, known: &mut K) -> Result<Decision, K::Error> {
        match self.place {
            _ if self.object_was_missing() => Ok(Decision::Complete),
            Place::MetadataOnly => self.decide_metadata(known),
            Place::InPlace | Place::Archive | Place::Managed => self.decide_object(known),
        }
    }

    /// Whether the index still names another file after this decision. Before the new object is
    /// discarded, somebody must check that the other file is still there.
    pub(super) fn names_first(&self, decision: Decision) -> bool {
        let keeps_first = match decision {
            Decision::Known | Decision::Undecided | Decision::KeepCopy { .. } | Decision::Refuse => true,
            Decision::SameFile | Decision::Complete | Decision::KeepMetadata { .. } | Decision::Replace => false,
        };
        keeps_first && self.place == Place::Managed && self.first_place != Place::MetadataOnly && !self.is_first
    }

    /// Whether the index names no object, or none that is there. The new object then takes its
    /// place.
    fn object_was_missing(&self) -> bool {
        match self.place {
            Place::MetadataOnly => false,
            Place::InPlace | Place::Archive => self.first_place == Place::MetadataOnly,
            Place::Managed => {
                self.first_place == Place::MetadataOnly
                    || match self.compared {
                        // There was no object where one should have been.
                        Compared::Nothing | Compared::Other => self.is_first,
                        Compared::FirstIsGone => !self.is_first,
                        Compared::Same | Compared::FirstIsNotOther | Compared::FirstIsOther => false,
                    }
            }
        }
    }

    fn decide_object<K: KnownInstance>(&self, known: &mut K) -> Result<Decision, K::Error> {
        if self.compared == Compared::Same && (self.is_first || known.is_further()?) {
            return Ok(Decision::SameFile);
        }
        let Some(differs) = self.differs_from_first(known)? else { return Ok(Decision::Undecided) };
        let in_place = matches!(self.first_place, Place::InPlace | Place::Archive);
        Ok(match (differs, self.policy.duplicates, self.policy.known) {
            (false, _, KnownPolicy::KeepOwn) if in_place => match known.first_is_there()? {
                true => Decision::KeepCopy { differs: false },
                false => Decision::Complete,
            },
            (false, _, KnownPolicy::KeepOwn | KnownPolicy::TrustArchive) => Decision::Known,
            (true, DuplicatePolicy::KeepBoth, _) => Decision::KeepCopy { differs: true },
            (true, DuplicatePolicy::KeepFirst, _) => Decision::Refuse,
            (true, DuplicatePolicy::Replace, _) => Decision::Replace,
        })
    }

    /// Decides about a record without an object. It is kept for when the file goes, unless there is
    /// an object that stays.
    fn decide_metadata<K: KnownInstance>(&self, known: &mut K) -> Result<Decision, K::Error> {
        let policy = self.policy.duplicates;
        let differs = self.differs_from_first(known)?.unwrap_or(false);
        if differs && policy == DuplicatePolicy::Replace {
            return Ok(Decision::Replace);
        }
        let may_be_kept = match self.first_place {
            Place::MetadataOnly | Place::Managed => false,
            Place::InPlace | Place::Archive => (!differs || policy == DuplicatePolicy::KeepBoth) && !known.has_own()?,
        };
        Ok(match known.kept_metadata()? {
            KeptMetadata::Nothing if may_be_kept => Decision::KeepMetadata { differs },
            // It has arrived before.
            KeptMetadata::Same => Decision::Known,
            KeptMetadata::Nothing | KeptMetadata::Other if differs => Decision::Refuse,
            KeptMetadata::Nothing | KeptMetadata::Other => Decision::Known,
        })
    }

    /// Whether the object differs from the one at the first location. `None` if only the bytes can
    /// tell.
    fn differs_from_first<K: KnownInstance>(&self, known: &mut K) -> Result<Option<bool>, K::Error> {
        if self.compared == Compared::FirstIsOther || known.differs()? {
            return Ok(Some(true));
        }
        if self.compared == Compared::FirstIsNotOther || self.is_first {
            return Ok(Some(false));
        }
        if let (Some(first), Some(own)) = (self.first_checksum, self.checksum) {
            return Ok(Some(first != own));
        }
        // In one directory it was compared with the objects of all names before its own.
        let was_compared = self.first_place == Place::Managed && self.in_first_directory;
        Ok(match self.compared {
            Compared::Other if was_compared => Some(true),
            // There is nothing to compare with.
            _ if self.place != Place::Managed || self.first_place == Place::MetadataOnly => Some(false),
            _ => None,
        })
    }
}

/// One value for a study of the texts that its series have.
///
/// Each of their values stands only where it first occurs. If a backslash separates nothing in the
/// VR, the text that sorts first stands for all: readers would take several for one text. Sequences
/// become one with the items of all.
///
/// # Errors
/// [`Error::Malformed`] if the text of one of several sequences is no JSON array.
pub(super) fn joined(vr: VR, texts: &BTreeSet<String>) -> Result<String, Error> {
    match vr {
        VR::SQ if texts.len() > 1 => items(texts),
        _ if vr != VR::SQ && separates_values(vr) => Ok(each_once(texts)),
        _ => Ok(texts.first().cloned().unwrap_or_default()),
    }
}

/// The values of several texts, each where it first occurs.
pub(super) fn each_once(texts: &BTreeSet<String>) -> String {
    let mut seen = BTreeSet::new();
    let values = texts.iter().flat_map(|text| text.split('\\')).filter(|value| seen.insert(*value));
    values.collect::<Vec<_>>().join("\\")
}

/// The items of several sequences, each once, in order.
///
/// # Errors
/// [`Error::Malformed`] if the text of a sequence is no JSON array.
pub(super) fn items(texts: &BTreeSet<String>) -> Result<String, Error> {
    let mut distinct = BTreeSet::new();
    for text in texts {
        let items = read_items(text).map_err(|_| Error::Malformed("the items of a sequence cannot be read".into()))?;
        distinct.extend(items.iter().map(ToString::to_string));
    }
    if distinct.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("[{}]", distinct.into_iter().collect::<Vec<_>>().join(",")))
}

/// The number with which a text begins, for an order by number. 0 if there is none.
pub(super) fn leading_number(text: &str) -> i64 {
    let text = text.trim_start();
    let digits = text.trim_start_matches(['+', '-']);
    let length = text.len() - digits.len() + digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    text.get(..length).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::types::NotIndexed;

    #[test]
    fn items_of_sequences_stand_once_and_a_text_that_is_no_sequence_is_an_error() {
        let of = |texts: &[&str]| items(&texts.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(of(&[r#"[{"b":1}, {"a":2}]"#, r#"[{"a":2}]"#]).unwrap(), r#"[{"a":2},{"b":1}]"#);
        assert_eq!(of(&[]).unwrap(), "");
        for broken in ["", "[{]", r#"{"a":2}"#] {
            assert!(matches!(of(&["[]", broken]), Err(Error::Malformed(_))), "{broken}");
        }
    }

    #[test]
    fn a_study_has_the_values_of_its_series_each_once() {
        let of = |vr, texts: &[&str]| joined(vr, &texts.iter().map(|text| (*text).to_owned()).collect()).unwrap();
        assert_eq!(of(VR::LO, &["B\\A", "A\\C"]), "A\\C\\B");
        assert_eq!(of(VR::ST, &["Street 2\\3", "Street 1"]), "Street 1");
        assert_eq!(of(VR::ST, &[]), "");
        let [one, other] = [r#"[{"a":"x\\y\\y]\\["}]"#, r#"[{"b":"x\"y\"y"}]"#];
        assert_eq!(of(VR::SQ, &[other, one]), r#"[{"a":"x\\y\\y]\\["},{"b":"x\"y\"y"}]"#);
        assert_eq!(of(VR::SQ, &[r#"[{"c":1},{"a":2}]"#]), r#"[{"c":1},{"a":2}]"#, "in the order of the object");
        let deep = format!("{}{}", r#"[{"a":"#.repeat(300), "1".to_owned() + &"}]".repeat(300));
        assert_eq!(of(VR::SQ, &[&deep, "[]"]), deep);
    }

    #[test]
    fn a_value_that_is_valid_counts_before_a_longer_one_that_is_not() {
        let counts = [
            (VR::DA, "20200131", "20200131 000"),
            (VR::DA, "20200131", "2020-01-31"),
            (VR::DA, "20200131", "20201331"),
            (VR::DA, "20200131", "2020"),
            (VR::TM, "1030", "10:30:00.00"),
            (VR::TM, "103000.5", "103000"),
            (VR::DT, "2020013110", "2020-01-31T10:00:00"),
            (VR::AS, "042Y", "42 years"),
            (VR::CS, "F", "female"),
            (VR::CS, "HEAD\\NECK", "Head\\Neck\\Chest"),
            (VR::DS, "1.5", "1,5 metres"),
            (VR::DS, "1.5", "1e400000"),
            (VR::IS, "7", "7.0000"),
            (VR::UI, "1.2.3", "1.2.3.04"),
            (VR::PN, "Müller", "M\u{FFFD}ller^Eva"),
            (VR::LO, "CT", "CT\nChest"),
            // Both are valid, or neither is. The longer text wins, or the one that sorts first.
            (VR::PN, "SMITH^JOHN", "SMITH"),
            (VR::LT, "one\r\ntwo", "one two"),
            (VR::SH, "A", "B"),
            (VR::SH, "12345678901234567890", "1234567890123456"),
            (VR::DA, "nonsense", "none"),
            (VR::SQ, "[{\"a\":1}]", "[]"),
            (VR::DA, "?", ""),
        ];
        for (vr, first, second) in counts {
            assert!(is_more_complete(vr, first, second), "{vr} {first} before {second}");
            assert!(!is_more_complete(vr, second, first), "{vr} {second} before {first}");
            assert!(!is_more_complete(vr, first, first));
        }
    }

    fn description(values: &[(AttributeId, &str)]) -> Description {
        let value = |id| values.iter().find(|(own, _)| *own == id).map_or("", |(_, value)| value);
        patient_attributes().map(|id| value(id).to_owned()).collect()
    }

    use AttributeId::{IssuerOfPatientID, PatientBirthDate, PatientID, PatientName, PatientSex};

    #[test]
    fn objects_without_an_issuer_mean_the_first_one_of_their_patient_id() {
        let said = [
            description(&[(PatientID, "B"), (IssuerOfPatientID, "X")]),
            description(&[(PatientID, "B"), (PatientSex, "F")]),
            description(&[(PatientID, "B"), (IssuerOfPatientID, "W"), (PatientName, "A")]),
            description(&[(PatientID, "A")]),
            description(&[(PatientID, "C")]),
            description(&[(PatientID, "C"), (PatientName, "C")]),
        ];
        let patients = patients_of_study(&said);
        let members: Vec<_> = patients.iter().map(|patient| patient.members.clone()).collect();
        assert_eq!(members, [vec![3], vec![2, 1], vec![0], vec![4, 5]]);
        let together = [(PatientID, "B"), (IssuerOfPatientID, "W"), (PatientName, "A"), (PatientSex, "F")];
        assert_eq!(patients[1].values, description(&together));
    }

    #[test]
    fn without_a_patient_id_name_and_birth_date_keep_patients_apart() {
        let said = [
            description(&[(PatientName, "Anonymized")]),
            description(&[(PatientName, "ANONYMIZED"), (PatientSex, "M")]),
            description(&[(PatientName, "Anonymized"), (PatientBirthDate, "19700101")]),
        ];
        let members: Vec<_> = patients_of_study(&said).into_iter().map(|patient| patient.members).collect();
        assert_eq!(members, [vec![0, 1], vec![2]]);
    }

    #[test]
    fn a_description_with_more_values_comes_first() {
        let more = description(&[(PatientID, "1"), (PatientName, "B"), (PatientSex, "F")]);
        let less = description(&[(PatientID, "1"), (PatientName, "A")]);
        assert_eq!(compare_descriptions(&more, &less), Ordering::Less);
        let other = description(&[(PatientID, "1"), (PatientName, "B")]);
        assert_eq!(compare_descriptions(&other, &less), Ordering::Greater);
    }

    fn found(told: &[(&str, &str)]) -> Option<(usize, usize)> {
        let of = |(name, birth): &(&str, &str)| NameAndBirth {
            names: person_name::normal_groups(name),
            birth_date: (*birth).to_owned(),
        };
        two_people(&told.iter().map(of).collect::<Vec<_>>())
    }

    #[test]
    fn names_without_a_common_word_and_other_birth_dates_are_two_people() {
        assert_eq!(found(&[("SMITH^ANNE", "19800101"), ("MILLER^BOB", "19500101")]), Some((0, 1)));
        // A married name, another order, other letters, and another script beside the first.
        assert_eq!(found(&[("SMITH^ANNE", "19800101"), ("MILLER^ANNE", "19500101")]), None);
        assert_eq!(found(&[("Anne Müller", "19800101"), ("MULLER^A", "19500101")]), None);
        assert_eq!(found(&[("Yamada^Tarou=山田^太郎", "19800101"), ("=山田", "19500101")]), None);
        // Dates that agree or are both missing, and a missing name.
        assert_eq!(found(&[("SMITH^ANNE", "19800101"), ("MILLER^BOB", "1980.01.01")]), None);
        assert_eq!(found(&[("SMITH^ANNE", "19800101"), ("MILLER^BOB", "1980")]), None);
        assert_eq!(found(&[("SMITH^ANNE", ""), ("MILLER^BOB", "")]), None);
        assert_eq!(found(&[("SMITH^ANNE", "19800101"), ("", "19500101")]), None);
        // A date that only one has does not confirm that they are one person.
        assert_eq!(found(&[("GAMMA^GUS", "19600101"), ("DELTA^DIANA", "")]), Some((0, 1)));
        // The first two are not two people.
        assert_eq!(found(&[("A^B", "1960"), ("A", "1970"), ("B", "1980")]), Some((1, 2)));
    }

    #[test]
    fn descriptions_without_an_issuer_are_of_the_first_one() {
        let by = |issuers: &[&'static str]| by_meant_issuer(issuers.to_vec(), |issuer| issuer);
        let owned = |issuer: &str, members: &[&'static str]| (issuer.to_owned(), members.to_vec());
        assert_eq!(by(&["", "X", "W"]), BTreeMap::from([owned("W", &["W", ""]), owned("X", &["X"])]));
        assert_eq!(by(&["", ""]), BTreeMap::from([owned("", &["", ""])]));
    }

    /// A known instance for the tests below. A question without a given answer is a failure of the
    /// test.
    #[derive(Default)]
    struct Known {
        is_further: Option<bool>,
        differs: Option<bool>,
        first_is_there: Option<bool>,
        has_own: Option<bool>,
        kept_metadata: Option<KeptMetadata>,
    }

    impl FirstLocation for Known {
        type Error = ();

        fn differs(&mut self) -> Result<bool, ()> {
            self.differs.take().ok_or(())
        }
        fn first_is_there(&mut self) -> Result<bool, ()> {
            self.first_is_there.take().ok_or(())
        }
    }

    impl KnownInstance for Known {
        fn is_further(&mut self) -> Result<bool, ()> {
            self.is_further.take().ok_or(())
        }
        fn has_own(&mut self) -> Result<bool, ()> {
            self.has_own.take().ok_or(())
        }
        fn kept_metadata(&mut self) -> Result<KeptMetadata, ()> {
            self.kept_metadata.take().ok_or(())
        }
    }

    /// A received object that was compared with nothing. A scan has found its instance.
    fn arriving() -> ArrivingObject {
        ArrivingObject {
            place: Place::Managed,
            checksum: None,
            compared: Compared::Nothing,
            policy: ReceivePolicy::default(),
            first_place: Place::InPlace,
            first_checksum: None,
            is_first: false,
            in_first_directory: false,
        }
    }

    #[test]
    fn an_object_whose_bytes_were_not_compared_is_undecided() {
        let object = arriving();
        let decided = object.decide(&mut Known { differs: Some(false), ..Known::default() });
        assert_eq!(decided, Ok(Decision::Undecided));
        assert!(object.names_first(Decision::Undecided));
        // Checksums can tell without the bytes.
        let sum = |byte| Some(Checksum::from_bytes([byte; 16]));
        let object = ArrivingObject { checksum: sum(1), first_checksum: sum(2), ..arriving() };
        let decided = object.decide(&mut Known { differs: Some(false), ..Known::default() });
        assert_eq!(decided, Ok(Decision::KeepCopy { differs: true }));
    }

    #[test]
    fn the_policy_decides_what_becomes_of_other_content() {
        for (duplicates, decision) in [
            (DuplicatePolicy::KeepBoth, Decision::KeepCopy { differs: true }),
            (DuplicatePolicy::KeepFirst, Decision::Refuse),
            (DuplicatePolicy::Replace, Decision::Replace),
        ] {
            let policy = ReceivePolicy { duplicates, ..ReceivePolicy::default() };
            let object = ArrivingObject { policy, compared: Compared::FirstIsOther, ..arriving() };
            assert_eq!(object.decide(&mut Known::default()), Ok(decision));
        }
    }

    #[test]
    fn the_same_content_is_kept_once_more_only_where_the_archive_is_not_trusted() {
        let same = ArrivingObject { compared: Compared::FirstIsNotOther, ..arriving() };
        let there = |first_is_there| Known { differs: Some(false), first_is_there, ..Known::default() };
        assert_eq!(same.decide(&mut there(Some(true))), Ok(Decision::KeepCopy { differs: false }));
        // Its file is gone.
        assert_eq!(same.decide(&mut there(Some(false))), Ok(Decision::Complete));
        let policy = ReceivePolicy { known: KnownPolicy::TrustArchive, ..ReceivePolicy::default() };
        assert_eq!(ArrivingObject { policy, ..same }.decide(&mut there(None)), Ok(Decision::Known));
    }

    #[test]
    fn an_object_completes_an_instance_whose_object_is_not_there() {
        let none = ArrivingObject { first_place: Place::MetadataOnly, ..arriving() };
        assert_eq!(none.decide(&mut Known::default()), Ok(Decision::Complete));
        let gone = ArrivingObject { compared: Compared::FirstIsGone, ..arriving() };
        assert_eq!(gone.decide(&mut Known::default()), Ok(Decision::Complete));
        // The very file that the index names was not there.
        let empty = ArrivingObject { first_place: Place::Managed, is_first: true, ..arriving() };
        assert_eq!(empty.decide(&mut Known::default()), Ok(Decision::Complete));
        let there = ArrivingObject { compared: Compared::Same, ..empty };
        assert_eq!(there.decide(&mut Known::default()), Ok(Decision::SameFile));
        assert!(!there.names_first(Decision::SameFile));
    }

    #[test]
    fn files_of_a_unit_are_taken_in_the_order_of_their_series() {
        let file = |name: &str, series: &str, uid: &str| {
            let mut record = InstanceRecord::new();
            record.set(AttributeId::SeriesInstanceUID, series);
            record.set(AttributeId::SOPInstanceUID, uid);
            scanned(name, FileOutcome::Instance(Box::new(record)))
        };
        let detail = String::new();
        let text = scanned("text", FileOutcome::NotIndexed { kind: NotIndexed::Skipped, reason: "not-dicom", detail });
        let of_one = [file("b", "1.1", "8.1"), file("e", "1.1", "81"), file("a", "1.1", "7"), file("d", "1.1", "7")];
        let files: Vec<_> = [file("c", "1.2", "9")].into_iter().chain(of_one).chain([text]).collect();
        let ordered = in_order_of_series(&files);
        let names: Vec<_> = ordered.iter().map(|file| &*file.file_name).collect();
        assert_eq!(names, ["text", "a", "d", "e", "b", "c"]);
    }

    fn scanned(name: &str, outcome: FileOutcome) -> ScannedFile {
        ScannedFile { file_name: name.into(), size: 1, mtime_ms: 0, known: false, reread: false, outcome }
    }

    #[test]
    fn a_file_that_a_scan_finds_is_an_update_a_move_or_a_further_location() {
        let elsewhere = FoundFile { is_first: false, first_place: Place::InPlace };
        let known = |first_is_there, differs| Known { first_is_there, differs, ..Known::default() };
        assert_eq!(elsewhere.decide(&mut known(Some(true), None)), Ok(FoundDecision::KeepCopy));
        assert_eq!(elsewhere.decide(&mut known(Some(false), Some(true))), Ok(FoundDecision::KeepCopy));
        assert_eq!(elsewhere.decide(&mut known(Some(false), Some(false))), Ok(FoundDecision::Move));
        let metadata = FoundFile { first_place: Place::MetadataOnly, ..elsewhere };
        assert_eq!(metadata.decide(&mut known(None, None)), Ok(FoundDecision::Complete));
        assert_eq!(FoundFile { is_first: true, ..elsewhere }.decide(&mut known(None, None)), Ok(FoundDecision::Update));
    }

    #[test]
    fn what_only_the_bytes_told_holds_until_something_tells_otherwise() {
        let record = InstanceRecord::new();
        let content = |sum: Option<u8>| ObjectContent {
            record: &record,
            place: Place::Managed,
            size: 1,
            checksum: sum.map(|byte| Checksum::from_bytes([byte; 16])),
        };
        let (copy, former) = (content(None), content(None));
        assert!(differs_from_new_first(&copy, true, &former, &content(None)));
        assert!(!differs_from_new_first(&copy, false, &former, &content(None)));
        assert!(!differs_from_new_first(&content(Some(1)), true, &former, &content(Some(1))));
        // Their checksums told before, and tell now.
        assert!(!differs_from_new_first(&content(Some(1)), true, &content(Some(2)), &content(None)));
        assert!(differs_from_new_first(&content(Some(1)), false, &former, &content(Some(2))));
    }

    #[test]
    fn metadata_are_kept_beside_a_file_that_may_go() {
        let metadata = ArrivingObject { place: Place::MetadataOnly, ..arriving() };
        let known = |has_own, kept| Known {
            differs: Some(false),
            has_own: Some(has_own),
            kept_metadata: Some(kept),
            ..Known::default()
        };
        let keep = Decision::KeepMetadata { differs: false };
        assert_eq!(metadata.decide(&mut known(false, KeptMetadata::Nothing)), Ok(keep));
        assert_eq!(metadata.decide(&mut known(false, KeptMetadata::Same)), Ok(Decision::Known));
        assert_eq!(metadata.decide(&mut known(true, KeptMetadata::Nothing)), Ok(Decision::Known));
    }
}
