//! Description of a patient by several files together.

use std::collections::BTreeSet;

use super::lookups::{EntityLookups, answers, describes, keys_of_patient, request_for, rows};
use super::part::FederatedPart;
use super::question::FederatedQuestion;
use crate::db::Error;
use crate::db::rules::{self, Description, PatientOfStudy};
use crate::db::view::PersonKey;
use crate::model::attribute::AttributeId::{self, StudyInstanceUID};
use crate::model::find::FindRequest;
use crate::model::level::QueryRetrieveLevel::{Patient, Study};

impl<R: FederatedPart> EntityLookups<'_, R> {
    /// The patients that the objects of a study name in all files, in order.
    pub(super) fn patients_of_study(&mut self, study: &str) -> Result<Vec<PatientOfStudy>, Error> {
        let mut said = Vec::new();
        for part in 0..self.parts.len() {
            said.extend(self.patients_in(part, study)?);
        }
        Ok(rules::patients_of_study(&said))
    }

    /// Descriptions that one file has of the patients of a study.
    pub(super) fn patients_in(&mut self, part: usize, study: &str) -> Result<Vec<Description>, Error> {
        let patient: Vec<AttributeId> = rules::patient_attributes().collect();
        rows(self.parts, part, Patient, &[(StudyInstanceUID, study)], &patient)
    }

    /// The description of a patient that a PATIENT answer has: the first by
    /// [`rules::compare_descriptions`] of those that match. `None` if each of its studies is in one
    /// file, so that the answers of the files have it. `known` is a description of the patient.
    pub(super) fn description_of(
        &mut self,
        question: &FederatedQuestion,
        person: &PersonKey,
        known: &[String],
    ) -> Result<Option<Description>, Error> {
        let first = self.first_issuer(&person.0, &person.1)?;
        let is_meant = describes(person, &first);
        let (mut found, mut shared) = (Vec::new(), BTreeSet::new());
        let asked = study_request(question, known);
        for part in 0..self.parts.len() {
            for answer in answers(self.parts, part, &asked)? {
                let mut values = answer.values.to_vec();
                let uid = values.pop().unwrap_or_default();
                if self.shared.files_of(&uid).is_some() {
                    shared.insert(uid);
                } else if is_meant(&values) {
                    found.push(values);
                } else {
                    // Its objects may name this patient besides.
                    found.extend(self.patients_in(part, &uid)?);
                }
            }
        }
        if shared.is_empty() {
            return Ok(None);
        }
        for study in shared {
            found.extend(self.patients_of_study(&study)?.into_iter().map(|patient| patient.values));
        }
        found.retain(|description| is_meant(description));
        if found.iter().any(|description| question.fits_patient(description)) {
            found.retain(|description| question.fits_patient(description));
        }
        Ok(found.into_iter().min_by(|one, other| rules::compare_descriptions(one, other)))
    }
}

/// Asks for the studies of a patient that match a PATIENT question: their patients and UIDs.
/// Studies of other patients can be among them.
fn study_request(question: &FederatedQuestion, known: &[String]) -> FindRequest {
    let returned: Vec<AttributeId> = rules::patient_attributes().chain([StudyInstanceUID]).collect();
    let mut asked = request_for(Study, &keys_of_patient(known), &returned);
    asked.matching_keys.extend(question.request.matching_keys.iter().cloned());
    let mut declared = question.request.declared.clone();
    declared.iter_mut().for_each(|key| key.is_answered = false);
    FindRequest {
        declared,
        date_time_keys: question.request.date_time_keys.clone(),
        arrival: question.request.arrival.clone(),
        ..asked
    }
}

/// The patient of a shared study that an answer is about, among all that the study names.
/// `described` has what the files say of the patient of the answer.
pub(super) fn patient_of_answer<'p>(
    question: &FederatedQuestion,
    patients: &'p [PatientOfStudy],
    described: &[Description],
) -> Option<&'p PatientOfStudy> {
    let named: BTreeSet<usize> =
        described.iter().filter_map(|description| place_among(patients, description)).collect();
    let fitting = |at: &usize| patients.get(*at).is_some_and(|patient| question.fits_patient(&patient.values));
    // A study is under the first of its patients that matches. A series or instance is under the
    // first that its own objects name.
    let of_study = (question.level == Study).then(|| (0..patients.len()).find(fitting)).flatten();
    let at = of_study.or_else(|| named.iter().copied().find(fitting)).or_else(|| named.first().copied())?;
    patients.get(at)
}

/// The place of the patient that a description of one file means.
fn place_among(patients: &[PatientOfStudy], description: &[String]) -> Option<usize> {
    let (id, identity, issuer) = rules::key_of(description);
    patients.iter().position(|patient| {
        let (own_id, own_identity, own) = rules::key_of(&patient.values);
        (own_id, own_identity) == (id.clone(), identity.clone()) && (issuer.is_empty() || own == issuer)
    })
}
