//! The decisions of the index, as functions of values: whose value counts, whose objects a study holds, and which
//! descriptions of a patient cannot be of one person. None of them looks at a database.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use dicom_core::VR;

use super::name_words;
use super::types::{Compared, DuplicatePolicy, KnownPolicy, ReceivePolicy};
use crate::model::attribute::{ATTRIBUTES, AttributeId};
use crate::model::checksum::Checksum;
use crate::model::level::QueryRetrieveLevel;
use crate::model::location::Place;
use crate::model::record::InstanceRecord;
use crate::model::uid::is_valid_uid;
use crate::model::{datetime, person_name};

/// Whether `said` counts before `known` where two objects disagree about their patient, study or series (docs/adr/0008,
/// docs/adr/0014).
///
/// A value counts before none. A value that is valid for its VR counts before one that is not. Of two such values the longer
/// text counts, of two as long the one that sorts first. So any order of arrival comes to the same.
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
/// The greatest length of a VR is left out on purpose: where two values differ in length alone, the shorter one is often the
/// longer one cut off.
pub(super) fn is_valid(vr: VR, text: &str) -> bool {
    match vr {
        // A backslash is a character like any other here (PS3.5 6.1.2.3).
        VR::ST | VR::LT | VR::UT | VR::UR => is_valid_value(vr, text),
        // The array of items is ours, and so is always valid.
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
        // PS3.5 6.1.3: these may have lines and pages.
        VR::ST | VR::LT | VR::UT => value.chars().all(|c| is_text(c) || matches!(c, '\t' | '\n' | '\r' | '\u{C}')),
        _ => value.chars().all(is_text),
    }
}

/// Whether a character stands for itself: no control character, and not the mark of bytes that could not be decoded.
fn is_text(c: char) -> bool {
    !c.is_control() && c != char::REPLACEMENT_CHARACTER
}

/// The kept attributes of a patient, in the order of a [`Description`].
pub(super) fn patient_attributes() -> impl Iterator<Item = AttributeId> {
    ATTRIBUTES.iter().filter(|a| a.level == QueryRetrieveLevel::Patient && a.is_stored()).map(|a| a.id)
}

/// All that is said of a patient: the values of [`patient_attributes`].
pub(super) type Description = Vec<String>;

/// A value of a description.
pub(super) fn value_of(description: &[String], id: AttributeId) -> &str {
    patient_attributes().position(|own| own == id).and_then(|at| description.get(at)).map_or("", String::as_str)
}

/// What keeps patients apart who have no Patient ID: name and birth date. Empty where there is an ID.
pub(super) fn identity_of(patient_id: &str, name: &str, birth_date: &str) -> String {
    if !patient_id.is_empty() {
        return String::new();
    }
    let [name, ideographic, phonetic] = person_name::normal_groups(name);
    format!("{name}={ideographic}={phonetic}|{birth_date}")
}

/// By what patients are ordered and told apart: Patient ID, identity and issuer.
pub(super) fn key_of(description: &[String]) -> (String, String, String) {
    let value = |id| value_of(description, id);
    let id = value(AttributeId::PatientID);
    let identity = identity_of(id, value(AttributeId::PatientName), value(AttributeId::PatientBirthDate));
    (id.to_owned(), identity, value(AttributeId::IssuerOfPatientID).to_owned())
}

/// Lets a description take account of another one of the same patient; whether it has changed.
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

/// One of the patients whom the objects of a study name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PatientOfStudy {
    /// What these objects say together.
    pub(super) values: Description,
    /// Which of the descriptions are of this patient, by their place.
    pub(super) members: Vec<usize>,
}

/// The patients whom the objects of a study name, in order; the study is kept under the first. Objects that do not name the
/// issuer of their Patient ID mean the patient of that ID whose issuer sorts first.
pub(super) fn patients_of_study(said: &[Description]) -> Vec<PatientOfStudy> {
    let mut by_key: BTreeMap<(String, String, String), Vec<usize>> = BTreeMap::new();
    for (at, description) in said.iter().enumerate() {
        by_key.entry(key_of(description)).or_default().push(at);
    }
    let mut found: Vec<PatientOfStudy> = Vec::new();
    let mut without_issuer: Option<((String, String), Vec<usize>)> = None;
    for ((id, identity, issuer), mut members) in by_key {
        let same = (id, identity);
        // Those without an issuer come first of their Patient ID, and the first issuer follows.
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

/// The order in which a PATIENT answer takes one of several matching descriptions of a patient: the one with most values, of
/// two with as many the one that sorts first.
pub(super) fn compare_descriptions(one: &[String], other: &[String]) -> Ordering {
    let count = |values: &[String]| values.iter().filter(|value| !value.is_empty()).count();
    count(other).cmp(&count(one)).then_with(|| one.cmp(other))
}

/// The descriptions of one patient that are held against each other for [`two_people`]: from each end of the order of birth
/// dates, and of those without one. A Patient ID that 100,000 descriptions share, such as `0`, then costs each of them no more than this.
pub(super) const COMPARED_FROM_EACH_END: usize = 50;

/// Name and birth date of a description, as [`two_people`] looks at them.
#[derive(Clone, Debug)]
pub(super) struct NameAndBirth {
    /// The component groups of the name in normal form.
    pub(super) names: [String; 3],
    pub(super) birth_date: String,
}

/// The first two of these descriptions that seem to be of two people: names that share no word, and birth dates that do not
/// agree. A birth date that only one of them has is not agreed on. A missing name says nothing.
pub(super) fn two_people(descriptions: &[NameAndBirth]) -> Option<(usize, usize)> {
    let told: Vec<(usize, BTreeSet<&str>, String)> = descriptions
        .iter()
        .enumerate()
        .map(|(at, d)| (at, name_words::words(&d.names.each_ref().map(String::as_str)), digits(&d.birth_date)))
        .filter(|(_, words, _)| !words.is_empty() && !words.contains(name_words::ANY_WORD))
        .collect();
    // Where all share a word, or a date, there is nothing to be compared.
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

fn digits(date: &str) -> String {
    date.chars().filter(char::is_ascii_digit).collect()
}

/// A date that says less (`1960`) agrees with one that goes on from there (`19600504`). No date agrees with no date alone.
fn dates_disagree(one: &str, other: &str) -> bool {
    one.is_empty() != other.is_empty() || (!one.starts_with(other) && !other.starts_with(one))
}

/// Whether two records are of the same object as far as an index keeps it. An object in another transfer syntax is another:
/// nothing but decoding both could tell that it holds the same.
pub(super) fn is_same_object(one: &InstanceRecord, other: &InstanceRecord) -> bool {
    ATTRIBUTES
        .iter()
        .filter(|attribute| attribute.is_stored())
        .all(|attribute| one.value(attribute.id) == other.value(attribute.id))
}

/// Whether two objects that are the same have the same number of bytes in places of these kinds. A member of an archive is a
/// file like any other; a received object has meta information of ours.
pub(super) fn sizes_comparable(one: Place, other: Place) -> bool {
    let is_file = |place| matches!(place, Place::InPlace | Place::Archive);
    one == other || (is_file(one) && is_file(other))
}

/// What an object is compared by.
#[derive(Clone, Copy)]
pub(super) struct ObjectContent<'a> {
    pub(super) record: &'a InstanceRecord,
    pub(super) place: Place,
    pub(super) size: u64,
    pub(super) checksum: Option<Checksum>,
}

impl ObjectContent<'_> {
    /// Whether another object is another one, as far as can be told without their bytes.
    pub(super) fn differs_from(&self, other: &ObjectContent<'_>) -> bool {
        !is_same_object(self.record, other.record)
            // A received object has a file of our own making, of another size.
            || (sizes_comparable(self.place, other.place) && self.size != other.size)
            || self.checksum.zip(other.checksum).is_some_and(|(one, other)| one != other)
    }
}

/// An object that was received, whose instance is known.
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

/// What [`ArrivingObject::decide`] asks of an index, at most once each. Most objects need few of the answers.
pub(super) trait KnownInstance {
    type Error;

    /// Whether a further location is this very file.
    fn is_further(&mut self) -> Result<bool, Self::Error>;
    /// Whether the record, or the size of the file, differs from what is known of the first location.
    fn differs(&mut self) -> Result<bool, Self::Error>;
    /// Whether the first location is a file that no scan has missed.
    fn first_is_there(&mut self) -> Result<bool, Self::Error>;
    /// Whether a further location is an object of our own.
    fn has_own(&mut self) -> Result<bool, Self::Error>;
    /// What was received of the instance without its object, and is kept beside its file.
    fn kept_metadata(&mut self) -> Result<KeptMetadata, Self::Error>;
}

/// What was received of an instance before without its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeptMetadata {
    Nothing,
    /// The same record.
    Same,
    /// Another record, or that of the first location.
    Other,
}

/// What becomes of an object whose instance is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The index names this very file already.
    SameFile,
    /// It is known; nothing changes.
    Known,
    /// It seems to be known. Only comparing its bytes with those at the first location can tell.
    Undecided,
    /// It takes the place of an object that is gone, or never was there.
    Complete,
    /// It becomes a further location.
    KeepCopy { differs: bool },
    /// What it says is kept beside the file, for when that goes.
    KeepMetadata { differs: bool },
    /// It is refused, which is a conflict.
    Refuse,
    /// It takes the place of the first location, which is a conflict.
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

    /// Whether the index goes on naming another file after this decision. Before the new object is thrown away, somebody has
    /// to see that the other file is still there.
    pub(super) fn names_first(&self, decision: Decision) -> bool {
        let keeps_first = match decision {
            Decision::Known | Decision::Undecided | Decision::KeepCopy { .. } | Decision::Refuse => true,
            Decision::SameFile | Decision::Complete | Decision::KeepMetadata { .. } | Decision::Replace => false,
        };
        keeps_first && self.place == Place::Managed && self.first_place != Place::MetadataOnly && !self.is_first
    }

    /// Whether the index names no object, or none that is there: then this one takes its place.
    fn object_was_missing(&self) -> bool {
        match self.place {
            Place::MetadataOnly => false,
            Place::InPlace | Place::Archive => self.first_place == Place::MetadataOnly,
            Place::Managed => {
                self.first_place == Place::MetadataOnly
                    || match self.compared {
                        // Where its object should have been, there was none.
                        Compared::Nothing | Compared::Other => self.is_first,
                        Compared::FirstIsGone => !self.is_first,
                        Compared::Same | Compared::FirstIsSame | Compared::FirstIsOther => false,
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

    /// A record without an object. It is kept for when the file goes, unless there is an object that does not go.
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
            // It has come before.
            KeptMetadata::Same => Decision::Known,
            KeptMetadata::Nothing | KeptMetadata::Other if differs => Decision::Refuse,
            KeptMetadata::Nothing | KeptMetadata::Other => Decision::Known,
        })
    }

    /// Whether the object differs from the one at the first location; `None` where only the bytes can tell.
    fn differs_from_first<K: KnownInstance>(&self, known: &mut K) -> Result<Option<bool>, K::Error> {
        if self.compared == Compared::FirstIsOther || known.differs()? {
            return Ok(Some(true));
        }
        if self.compared == Compared::FirstIsSame || self.is_first {
            return Ok(Some(false));
        }
        if let (Some(first), Some(own)) = (self.first_checksum, self.checksum) {
            return Ok(Some(first != own));
        }
        // Of names in one directory it was compared with all before its own.
        let was_compared = self.first_place == Place::Managed && self.in_first_directory;
        Ok(match self.compared {
            Compared::Other if was_compared => Some(true),
            // There is nothing to compare with.
            _ if self.place != Place::Managed || self.first_place == Place::MetadataOnly => Some(false),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            // Both are valid, or neither is: the longer one, of two as long the one that sorts first.
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
        // A married name, another order, other letters, another script beside the first.
        assert_eq!(found(&[("SMITH^ANNE", "19800101"), ("MILLER^ANNE", "19500101")]), None);
        assert_eq!(found(&[("Anne Müller", "19800101"), ("MULLER^A", "19500101")]), None);
        assert_eq!(found(&[("Yamada^Tarou=山田^太郎", "19800101"), ("=山田", "19500101")]), None);
        // Dates that agree, or that neither has; a name that is not there.
        assert_eq!(found(&[("SMITH^ANNE", "19800101"), ("MILLER^BOB", "1980.01.01")]), None);
        assert_eq!(found(&[("SMITH^ANNE", "19800101"), ("MILLER^BOB", "1980")]), None);
        assert_eq!(found(&[("SMITH^ANNE", ""), ("MILLER^BOB", "")]), None);
        assert_eq!(found(&[("SMITH^ANNE", "19800101"), ("", "19500101")]), None);
        // A date that only one has does not confirm that they are one.
        assert_eq!(found(&[("GAMMA^GUS", "19600101"), ("DELTA^DIANA", "")]), Some((0, 1)));
        // Not the first of them with the second.
        assert_eq!(found(&[("A^B", "1960"), ("A", "1970"), ("B", "1980")]), Some((1, 2)));
    }

    /// An instance that the tests below know: what is asked and not given is a failure of the test.
    #[derive(Default)]
    struct Known {
        is_further: Option<bool>,
        differs: Option<bool>,
        first_is_there: Option<bool>,
        has_own: Option<bool>,
        kept_metadata: Option<KeptMetadata>,
    }

    impl KnownInstance for Known {
        type Error = ();

        fn is_further(&mut self) -> Result<bool, ()> {
            self.is_further.take().ok_or(())
        }
        fn differs(&mut self) -> Result<bool, ()> {
            self.differs.take().ok_or(())
        }
        fn first_is_there(&mut self) -> Result<bool, ()> {
            self.first_is_there.take().ok_or(())
        }
        fn has_own(&mut self) -> Result<bool, ()> {
            self.has_own.take().ok_or(())
        }
        fn kept_metadata(&mut self) -> Result<KeptMetadata, ()> {
            self.kept_metadata.take().ok_or(())
        }
    }

    /// A received object that was compared with nothing, where a scan found its instance.
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
        // Checksums tell without the bytes.
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
        let same = ArrivingObject { compared: Compared::FirstIsSame, ..arriving() };
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
