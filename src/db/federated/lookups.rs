//! Questions to all files about one entity.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::part::FederatedPart;
use super::question::FederatedQuestion;
use super::shared::SharedStudies;
use crate::db::view::PersonKey;
use crate::db::{Error, rules};
use crate::model::attribute::AttributeId::{self, *};
use crate::model::availability::ObjectAvailability;
use crate::model::datetime;
use crate::model::find::{FindAnswer, FindRequest, MatchingKey};
use crate::model::level::InformationModel;
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};
use crate::model::matching::{KeyValue, MatchPolicy, Matching};

/// The files, for questions about single entities.
pub(super) struct EntityLookups<'f, R> {
    pub(super) parts: &'f mut [R],
    pub(super) shared: &'f SharedStudies,
}

/// A description of a patient, with further values.
type DescribedValues = (rules::Description, Vec<String>);

impl<R: FederatedPart> EntityLookups<'_, R> {
    /// Descriptions of the patients with the Patient ID of a known one, or with its identity where
    /// there is none, with further values.
    fn descriptions(
        &mut self,
        (patient_id, identity): (&str, &str),
        known: &[String],
        further: &[AttributeId],
    ) -> Result<Vec<DescribedValues>, Error> {
        let patient: Vec<AttributeId> = rules::patient_attributes().collect();
        let returned = [&patient, further].concat();
        let mut found = Vec::new();
        for part in 0..self.parts.len() {
            for mut values in rows(self.parts, part, Patient, &keys_of_patient(known), &returned)? {
                let more = values.split_off(patient.len());
                let (id, own_identity, _) = rules::key_of(&values);
                if (&*id, &*own_identity) == (patient_id, identity) {
                    found.push((values, more));
                }
            }
        }
        Ok(found)
    }

    /// The issuer that descriptions without one mean: the first of all that this Patient ID has.
    /// Empty if there is none.
    pub(super) fn first_issuer(&mut self, patient_id: &str, identity: &str) -> Result<String, Error> {
        let patient: Vec<AttributeId> = rules::patient_attributes().collect();
        let mut first = String::new();
        for part in 0..self.parts.len() {
            let found =
                rows(self.parts, part, Patient, &[(PatientID, patient_id), (IssuerOfPatientID, "?*")], &patient)?;
            for (id, own_identity, issuer) in found.iter().map(|description| rules::key_of(description)) {
                if (&*id, &*own_identity) == (patient_id, identity) && (first.is_empty() || issuer < first) {
                    first = issuer;
                }
            }
        }
        Ok(first)
    }

    /// Values of a patient that depend on all of its studies. `known` is a description of it.
    pub(super) fn of_person(
        &mut self,
        person: &PersonKey,
        known: &[String],
        ids: &[AttributeId],
    ) -> Result<Vec<String>, Error> {
        let found = self.descriptions((&person.0, &person.1), known, ids)?;
        let first = self.first_issuer(&person.0, &person.1)?;
        let is_meant = describes(person, &first);
        let mut total = vec![String::new(); ids.len()];
        for (_, values) in found.iter().filter(|(description, _)| is_meant(description)) {
            for ((total, value), id) in total.iter_mut().zip(values).zip(ids) {
                add_of_person(*id, total, value);
            }
        }
        if !self.shared.is_empty() {
            let twice = self.counted_twice(known, &is_meant)?;
            for (total, id) in total.iter_mut().zip(ids) {
                if let Some(twice) = twice.get(id) {
                    *total = count_of(total).saturating_add_signed(twice.saturating_neg()).to_string();
                } else if *id == InstanceAvailability && total.as_str() != ObjectAvailability::Online.as_str() {
                    *total = self.availability_of_person(known, &is_meant)?;
                }
            }
        }
        Ok(total)
    }

    /// Availability of the least available study of a patient.
    fn availability_of_person(
        &mut self,
        known: &[String],
        is_meant: &dyn Fn(&[String]) -> bool,
    ) -> Result<String, Error> {
        let patient: Vec<AttributeId> = rules::patient_attributes().collect();
        let returned = [&patient[..], &[StudyInstanceUID, InstanceAvailability]].concat();
        let (mut least, mut shared) = (String::new(), BTreeSet::new());
        for part in 0..self.parts.len() {
            for mut values in rows(self.parts, part, Study, &keys_of_patient(known), &returned)? {
                let more = values.split_off(patient.len());
                let Ok([uid, availability]) = <[String; 2]>::try_from(more) else { continue };
                if !self.study_names(part, &uid, &values, is_meant)? {
                    continue;
                }
                if self.shared.files_of(&uid).is_some() {
                    shared.insert(uid);
                } else {
                    make_least(&mut least, &availability);
                }
            }
        }
        for study in shared {
            make_least(&mut least, &self.least_available(&[(StudyInstanceUID, &study)])?);
        }
        Ok(least)
    }

    /// Whether objects of a study in this file name a patient. The answer of the study describes
    /// the first of its patients only.
    fn study_names(
        &mut self,
        part: usize,
        study: &str,
        description: &[String],
        is_meant: &dyn Fn(&[String]) -> bool,
    ) -> Result<bool, Error> {
        Ok(is_meant(description) || self.patients_in(part, study)?.iter().any(|named| is_meant(named)))
    }

    /// Availability of the least available instance with these keys. Of several places of an
    /// instance, the one that is at hand counts.
    pub(super) fn least_available(&mut self, keys: &[(AttributeId, &str)]) -> Result<String, Error> {
        let mut of_instances: BTreeMap<String, String> = BTreeMap::new();
        for part in 0..self.parts.len() {
            let found = rows(self.parts, part, Image, keys, &[SOPInstanceUID, InstanceAvailability])?;
            for [uid, availability] in found.into_iter().filter_map(|row| <[String; 2]>::try_from(row).ok()) {
                make_most(of_instances.entry(uid).or_default(), &availability);
            }
        }
        let mut least = String::new();
        of_instances.values().for_each(|availability| make_least(&mut least, availability));
        Ok(least)
    }

    /// Amount in the sums of a patient that is counted more than once, because several files hold a
    /// part of a study. It is negative if a file has a part of such a study under other patients
    /// only.
    fn counted_twice(
        &mut self,
        known: &[String],
        is_meant: &dyn Fn(&[String]) -> bool,
    ) -> Result<BTreeMap<AttributeId, i64>, Error> {
        let patient: Vec<AttributeId> = rules::patient_attributes().collect();
        let counts = [StudyInstanceUID, NumberOfStudyRelatedSeries, NumberOfStudyRelatedInstances];
        let returned = [&patient[..], &counts].concat();
        let mut sums: BTreeMap<String, [u64; 3]> = BTreeMap::new();
        for part in 0..self.parts.len() {
            for mut values in rows(self.parts, part, Study, &keys_of_patient(known), &returned)? {
                let more = values.split_off(patient.len());
                if let [uid, series, instances] = more.as_slice()
                    && self.shared.files_of(uid).is_some()
                    && self.study_names(part, uid, &values, is_meant)?
                {
                    add(sums.entry(uid.clone()).or_default(), [1, count_of(series), count_of(instances)]);
                }
            }
        }
        let [studies, series, instances] = self.surplus(sums)?;
        Ok(BTreeMap::from([
            (NumberOfPatientRelatedStudies, studies),
            (NumberOfPatientRelatedSeries, series),
            (NumberOfPatientRelatedInstances, instances),
        ]))
    }

    /// Numbers of studies, series and instances that are counted more than once if the numbers of
    /// all files are added.
    pub(super) fn counted_twice_in_all(&mut self) -> Result<[u64; 3], Error> {
        let mut sums: BTreeMap<String, [u64; 3]> = BTreeMap::new();
        let counts = [NumberOfStudyRelatedSeries, NumberOfStudyRelatedInstances];
        for uid in self.shared.uids() {
            for part in 0..self.parts.len() {
                let rows = rows(self.parts, part, Study, &[(StudyInstanceUID, uid)], &counts)?;
                for [series, instances] in rows.into_iter().filter_map(|row| <[String; 2]>::try_from(row).ok()) {
                    add(sums.entry(uid.clone()).or_default(), [1, count_of(&series), count_of(&instances)]);
                }
            }
        }
        Ok(self.surplus(sums)?.map(|count| u64::try_from(count).unwrap_or(0)))
    }

    /// Surplus in sums of studies, series and instances, for each study over its files.
    fn surplus(&mut self, sums: BTreeMap<String, [u64; 3]>) -> Result<[i64; 3], Error> {
        let mut surplus = [0_i64; 3];
        for (uid, summed) in sums {
            let (series, instances) = self.distinct(&uid)?;
            for ((surplus, summed), own) in surplus.iter_mut().zip(summed).zip([1, series, instances]) {
                *surplus = surplus.saturating_add_unsigned(summed).saturating_sub_unsigned(own);
            }
        }
        Ok(surplus)
    }

    /// The numbers of series and instances of a study, each counted once.
    pub(super) fn distinct(&mut self, study: &str) -> Result<(u64, u64), Error> {
        let series = self.uids(Series, &[(StudyInstanceUID, study)], SeriesInstanceUID)?.len();
        let instances = self.uids(Image, &[(StudyInstanceUID, study)], SOPInstanceUID)?.len();
        Ok((series as u64, instances as u64))
    }

    /// The UIDs that the files have at this level, each once.
    pub(super) fn uids(
        &mut self,
        level: QueryRetrieveLevel,
        keys: &[(AttributeId, &str)],
        uid: AttributeId,
    ) -> Result<BTreeSet<String>, Error> {
        let mut found = BTreeSet::new();
        for part in 0..self.parts.len() {
            found.extend(rows(self.parts, part, level, keys, &[uid])?.into_iter().flatten());
        }
        Ok(found)
    }

    /// Gives an answer the values that depend on all files of its patient.
    pub(super) fn add_person(&mut self, question: &FederatedQuestion, answer: &mut FindAnswer) -> Result<(), Error> {
        let known = question.description(answer);
        let person = rules::key_of(&known);
        let ids: Vec<AttributeId> = question.of_person.iter().map(|(_, id)| *id).collect();
        for ((at, _), total) in question.of_person.iter().zip(self.of_person(&person, &known, &ids)?) {
            answer.values.set(*at, &total);
        }
        Ok(())
    }
}

/// Tells descriptions of a patient. `first` is the issuer that those without one mean.
pub(super) fn describes<'a>(person: &'a PersonKey, first: &'a str) -> impl Fn(&[String]) -> bool + 'a {
    let (patient_id, identity, issuer) = person;
    // Without a Patient ID, name and birth date tell patients apart.
    let issuer = if issuer.is_empty() { first } else { issuer };
    move |description| {
        let (own_id, own_identity, own) = rules::key_of(description);
        (&own_id, &own_identity) == (patient_id, identity) && (own == issuer || (own.is_empty() && issuer == first))
    }
}

/// The values that a file has for the entities with these keys.
pub(super) fn rows<R: FederatedPart>(
    parts: &mut [R],
    part: usize,
    level: QueryRetrieveLevel,
    keys: &[(AttributeId, &str)],
    returned: &[AttributeId],
) -> Result<Vec<Vec<String>>, Error> {
    Ok(answers(parts, part, &request_for(level, keys, returned))?
        .into_iter()
        .map(|answer| answer.values.to_vec())
        .collect())
}

/// All answers of a file.
pub(super) fn answers<R: FederatedPart>(
    parts: &mut [R],
    part: usize,
    request: &FindRequest,
) -> Result<Vec<FindAnswer>, Error> {
    let mut found = Vec::new();
    if let Some(part) = parts.get_mut(part) {
        part.find(request, |answer| {
            found.push(answer);
            ControlFlow::Continue(())
        })?;
    }
    Ok(found)
}

fn add(sum: &mut [u64; 3], added: [u64; 3]) {
    sum.iter_mut().zip(added).for_each(|(sum, added)| *sum += added);
}

/// Adds the value that another file has for a patient.
pub(super) fn add_of_person(id: AttributeId, total: &mut String, value: &str) {
    if id == InstanceAvailability {
        make_least(total, value);
    } else {
        *total = (count_of(total) + count_of(value)).to_string();
    }
}

/// Reads what a file answered with. Nothing is said of no objects.
fn availability(text: &str) -> Option<ObjectAvailability> {
    (!text.is_empty()).then(|| text.parse().unwrap_or(ObjectAvailability::Unavailable))
}

/// Keeps the less available of two Instance Availabilities.
pub(super) fn make_least(known: &mut String, other: &str) {
    if availability(other) > availability(known) {
        other.clone_into(known);
    }
}

/// Keeps the more available of two Instance Availabilities.
pub(super) fn make_most(known: &mut String, other: &str) {
    if known.is_empty() || (!other.is_empty() && availability(other) < availability(known)) {
        other.clone_into(known);
    }
}

/// A count that an index answered with.
fn count_of(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// Keys for the patient of this description, and perhaps for others.
pub(super) fn keys_of_patient(known: &[String]) -> Vec<(AttributeId, &str)> {
    let value = |id| rules::value_of(known, id);
    let mut keys = vec![(PatientID, value(PatientID))];
    if value(PatientID).is_empty() {
        // Many studies may have no Patient ID. Those of one name and birth date are few.
        let (name, birth_date) = (value(PatientName), value(PatientBirthDate));
        keys.extend((!name.contains(['*', '?', '\\', '"'])).then_some((PatientName, name)));
        let is_plain = birth_date.is_empty() || (birth_date.len() == 8 && datetime::one_day(birth_date).is_some());
        keys.extend(is_plain.then_some((PatientBirthDate, birth_date)));
    }
    keys
}

/// A question for the entities with these values. An empty value stands for none.
pub(super) fn request_for(
    level: QueryRetrieveLevel,
    keys: &[(AttributeId, &str)],
    returned: &[AttributeId],
) -> FindRequest {
    let matching = |id: AttributeId, value: &str| match value {
        "" => Some(Matching::EmptyValue),
        // A value that is no key finds all, and the caller looks at what it gets.
        value => Matching::of_key(id.attribute(), &KeyValue::Text(value.to_owned()), &MatchPolicy::default()).ok(),
    };
    let keys =
        keys.iter().filter_map(|(id, value)| Some(MatchingKey { attribute: *id, matching: matching(*id, value)? }));
    let matching_keys = keys.filter(|key| !matches!(key.matching, Matching::Universal)).collect();
    FindRequest { matching_keys, ..FindRequest::new(InformationModel::PatientRoot, level).returning(returned) }
}
