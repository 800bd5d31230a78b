//! One study from the parts of it that several files hold.

use std::collections::{BTreeMap, BTreeSet};

use super::described::patient_of_answer;
use super::lookups::{EntityLookups, answers, make_least, make_most, request_for, rows};
use super::part::FederatedPart;
use super::question::FederatedQuestion;
use crate::db::{Error, rules};
use crate::model::attribute::AttributeId::{self, *};
use crate::model::availability::ObjectAvailability;
use crate::model::find::{FindAnswer, FindRequest};
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};

impl<R: FederatedPart> EntityLookups<'_, R> {
    /// The answers of a study of which several files hold a part. `own` are those of the file with
    /// this number.
    ///
    /// A study, series or instance matches if it does in one file. Its values are those of all
    /// files.
    pub(super) fn of_shared_study(
        &mut self,
        question: &FederatedQuestion,
        study: &str,
        at: usize,
        own: Vec<FindAnswer>,
    ) -> Result<Vec<FindAnswer>, Error> {
        let files: Vec<usize> = self.shared.files_of(study).into_iter().flatten().copied().collect();
        let matching_keys = request_for(question.level, &[(StudyInstanceUID, study)], &[]).matching_keys;
        let mut asked = question.request.clone();
        if question.level == Study {
            // The part in another file counts although it does not match.
            asked = FindRequest { date_time_keys: Vec::new(), matching_keys, arrival: Default::default(), ..asked };
        } else {
            asked.matching_keys.extend(matching_keys);
        }
        let mut found = own;
        let own_described = described(question, &found);
        for file in files.into_iter().filter(|file| *file != at) {
            found.extend(answers(self.parts, file, &asked)?);
        }
        let described = match question.level {
            // The other parts were asked whether they match or not.
            Study => own_described,
            _ => described(question, &found),
        };
        let mut answers = once_each(question, found)?;
        let (series, instances) = self.distinct(study)?;
        let of_study = match question.level {
            Study => Vec::new(),
            _ => self.common(question, Study, &[(StudyInstanceUID, study)])?,
        };
        let patients = match question.tells_patient() {
            true => self.patients_of_study(study)?,
            false => Vec::new(),
        };
        for answer in &mut answers {
            let own = described.get(uids_of(answer)).map_or(&[][..], Vec::as_slice);
            if let Some(patient) = patient_of_answer(question, &patients, own) {
                question.set_patient(answer, &patient.values);
            }
            set(answer, of_study.iter().cloned());
            let counts = [(NumberOfStudyRelatedSeries, series), (NumberOfStudyRelatedInstances, instances)];
            for (at, count) in question.places().filter_map(|(at, id)| Some((at, counts.iter().find(|c| c.0 == id)?.1)))
            {
                set(answer, [(at, count.to_string())]);
            }
            self.add_series(question, study, answer)?;
            self.add_availability(question, study, answer)?;
        }
        Ok(answers)
    }

    /// Gives a study or series the availability of its least available instance, over all places
    /// that files have for it.
    fn add_availability(
        &mut self,
        question: &FederatedQuestion,
        study: &str,
        answer: &mut FindAnswer,
    ) -> Result<(), Error> {
        let Some((at, _)) = question.places().find(|(_, id)| *id == InstanceAvailability) else { return Ok(()) };
        if question.level == Image || answer.values.get(at) == Some(ObjectAvailability::Online.as_str()) {
            return Ok(());
        }
        let series = answer.key.as_ref().and_then(|key| key.uids.get(1)).cloned();
        let mut keys = vec![(StudyInstanceUID, study)];
        keys.extend(series.as_deref().map(|series| (SeriesInstanceUID, series)));
        let least = self.least_available(&keys)?;
        set(answer, [(at, least)]);
        Ok(())
    }

    /// Gives an answer the values that its series has in all files.
    fn add_series(&mut self, question: &FederatedQuestion, study: &str, answer: &mut FindAnswer) -> Result<(), Error> {
        let uid = answer.key.as_ref().and_then(|key| key.uids.get(1)).cloned();
        let Some(series) = uid else { return Ok(()) };
        let keys = [(StudyInstanceUID, study), (SeriesInstanceUID, &*series)];
        if question.level == Image {
            let of_series = self.common(question, Series, &keys)?;
            set(answer, of_series);
        }
        if let Some((at, _)) = question.places().find(|(_, id)| *id == NumberOfSeriesRelatedInstances) {
            let instances = self.uids(Image, &keys, SOPInstanceUID)?.len();
            set(answer, [(at, instances.to_string())]);
        }
        Ok(())
    }

    /// The values that a study or series has in all files, of attributes of its own level, with
    /// their places.
    fn common(
        &mut self,
        question: &FederatedQuestion,
        level: QueryRetrieveLevel,
        keys: &[(AttributeId, &str)],
    ) -> Result<Vec<(usize, String)>, Error> {
        let places: Vec<_> = question.places().filter(|(_, id)| id.attribute().level == level).collect();
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<AttributeId> = places.iter().map(|(_, id)| *id).collect();
        let common = self.in_all_files(level, keys, &ids, |known, values| {
            for ((known, value), id) in known.iter_mut().zip(&values).zip(&ids) {
                combine(level, *id, known, value)?;
            }
            Ok(())
        })?;
        Ok(places.into_iter().map(|(at, _)| at).zip(common.unwrap_or_default()).collect())
    }

    /// The values of an entity in all files: those of the first row, to which `add` adds each
    /// further one. `None` if no file has the entity.
    fn in_all_files(
        &mut self,
        level: QueryRetrieveLevel,
        keys: &[(AttributeId, &str)],
        ids: &[AttributeId],
        mut add: impl FnMut(&mut [String], Vec<String>) -> Result<(), Error>,
    ) -> Result<Option<Vec<String>>, Error> {
        let mut common: Option<Vec<String>> = None;
        for part in 0..self.parts.len() {
            for values in rows(self.parts, part, level, keys, ids)? {
                match &mut common {
                    Some(known) => add(known, values)?,
                    None => common = Some(values),
                }
            }
        }
        Ok(common)
    }
}

/// Descriptions that files have of the patients of answers, by the UIDs of the answers.
fn described(question: &FederatedQuestion, found: &[FindAnswer]) -> BTreeMap<Vec<String>, Vec<rules::Description>> {
    let mut described: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for answer in found {
        described.entry(uids_of(answer).to_vec()).or_default().push(question.description(answer));
    }
    described
}

fn uids_of(answer: &FindAnswer) -> &[String] {
    answer.key.as_ref().map_or(&[], |key| &key.uids)
}

fn set(answer: &mut FindAnswer, values: impl IntoIterator<Item = (usize, String)>) {
    for (at, value) in values {
        answer.values.set(at, &value);
    }
}

/// Puts together what several files say of the same entity, and sorts by the numbers of series and
/// instances.
fn once_each(question: &FederatedQuestion, found: Vec<FindAnswer>) -> Result<Vec<FindAnswer>, Error> {
    let mut by_uids: BTreeMap<Vec<String>, FindAnswer> = BTreeMap::new();
    for answer in found {
        let uids = uids_of(&answer).to_vec();
        match by_uids.get_mut(&uids) {
            None => drop(by_uids.insert(uids, answer)),
            // Of two places of one instance the first file's counts, and it is at hand if one is.
            Some(known) if question.level == Image => {
                for (at, _) in question.places().filter(|(_, id)| *id == InstanceAvailability) {
                    let mut most = known.values.text(at).to_owned();
                    make_most(&mut most, answer.values.text(at));
                    known.values.set(at, &most);
                }
            }
            Some(known) => combine_answers(question, known, &answer)?,
        }
    }
    let mut answers: Vec<FindAnswer> = by_uids.into_values().collect();
    let number = |answer: &FindAnswer, at: usize| {
        let at = question.numbers.start + at;
        answer.values.get(at).filter(|_| question.numbers.contains(&at)).map_or(0, rules::leading_number)
    };
    answers.sort_by_cached_key(|answer| {
        let mut uids = uids_of(answer).iter().skip(1).cloned();
        (number(answer, 0), uids.next(), number(answer, 1), uids.next())
    });
    Ok(answers)
}

fn combine_answers(question: &FederatedQuestion, known: &mut FindAnswer, other: &FindAnswer) -> Result<(), Error> {
    for (at, id) in question.places() {
        let mut value = known.values.text(at).to_owned();
        combine(question.level, id, &mut value, other.values.text(at))?;
        known.values.set(at, &value);
    }
    add_declared(question, known, other);
    Ok(())
}

/// Of a declared value, the most complete one counts.
pub(super) fn add_declared(question: &FederatedQuestion, known: &mut FindAnswer, other: &FindAnswer) {
    for (at, key) in question.declared() {
        let other = other.values.text(at);
        if rules::is_more_complete(key.unit.vr, other, known.values.text(at)) {
            known.values.set(at, other);
        }
    }
}

/// Adds what another file says of an attribute of the same study or series.
fn combine(level: QueryRetrieveLevel, id: AttributeId, known: &mut String, other: &str) -> Result<(), Error> {
    let attribute = id.attribute();
    let both = || [known.clone(), other.to_owned()].into_iter().filter(|text| !text.is_empty()).collect();
    let is_of_series = level == Study && attribute.level == Series;
    match id {
        InstanceAvailability => make_least(known, other),
        AnatomicRegionsInStudyCodeSequence => *known = rules::items(&both())?,
        ModalitiesInStudy | SOPClassesInStudy => *known = values_in_order(&both()),
        _ if is_of_series => *known = rules::joined(attribute.vr, &both())?,
        // What is said of a patient is put together for all objects of the study.
        _ if attribute.level != Patient && rules::is_more_complete(attribute.vr, other, known) => {
            other.clone_into(known);
        }
        _ => {}
    }
    Ok(())
}

/// The values of several texts, each once and sorted.
fn values_in_order(texts: &BTreeSet<String>) -> String {
    let values: BTreeSet<&str> = texts.iter().flat_map(|text| text.split('\\')).collect();
    values.into_iter().collect::<Vec<_>>().join("\\")
}
