//! Question to each file of a federation, so that the answers can be merged.

use std::ops::Range;

use super::shared::SharedStudies;
use crate::db::Error;
use crate::db::plan::{can_answer, names_few};
use crate::db::rules;
use crate::model::attribute::AttributeId;
use crate::model::find::{DeclaredKey, FindAnswer, FindRequest, MatchingKey, ReturnKey};
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};

/// The question to each file.
///
/// The values of its answers are those of the return keys, then further ones for the merge, then
/// the declared ones.
pub(super) struct FederatedQuestion {
    pub(super) request: FindRequest,
    pub(super) level: QueryRetrieveLevel,
    /// Places of the further values.
    further: Range<usize>,
    /// Places of the values of a patient: see [`rules::patient_attributes`].
    patient: Option<Range<usize>>,
    /// Places of the numbers of series and instance.
    pub(super) numbers: Range<usize>,
    /// Conditions on values that depend on all files, with the places of these values.
    late: Vec<(usize, MatchingKey)>,
    /// Places of the values that depend on all files of a patient.
    pub(super) of_person: Vec<(usize, AttributeId)>,
    /// Whether some descriptions of a patient may not match, although another one does.
    pub(super) narrows_patients: bool,
    /// Whether few answers are likely, because a key names them.
    pub(super) names_few: bool,
    /// Whether single entities may have to be looked up in other files.
    pub(super) looks_up: bool,
}

/// Whether the value depends on all studies of a patient.
fn is_of_person(id: AttributeId, level: QueryRetrieveLevel) -> bool {
    use AttributeId::{
        InstanceAvailability, NumberOfPatientRelatedInstances, NumberOfPatientRelatedSeries,
        NumberOfPatientRelatedStudies,
    };
    matches!(id, NumberOfPatientRelatedStudies | NumberOfPatientRelatedSeries | NumberOfPatientRelatedInstances)
        || (id == InstanceAvailability && level == Patient)
}

/// Whether the value is one of [`rules::patient_attributes`].
fn is_said_of_patient(id: AttributeId) -> bool {
    id.attribute().level == Patient && id.attribute().is_stored()
}

impl FederatedQuestion {
    pub(super) fn of(request: &FindRequest, shared: &SharedStudies) -> Result<Self, Error> {
        let level = request.level;
        if request.record.is_some() {
            return Err(Error::Unsupported("records of several files have no common order".into()));
        }
        let keys: Vec<AttributeId> = request.return_keys.iter().map(|key| key.attribute).collect();
        if let Some(id) = keys.iter().find(|id| !can_answer(id.attribute(), level)) {
            return Err(Error::Unsupported(format!("{id} is not answered at the {level} level")));
        }
        let mut asked = FindRequest { limit: None, offset: 0, wants_key: true, ..request.clone() };
        let (late, early) = std::mem::take(&mut asked.matching_keys)
            .into_iter()
            .partition(|key: &MatchingKey| is_of_person(key.attribute, level));
        asked.matching_keys = early;
        let mut ids = keys.clone();
        let late: Vec<_> = late.into_iter().map(|key| (place_of(&mut ids, key.attribute), key)).collect();
        let places = ids.iter().copied().enumerate();
        let of_person: Vec<_> = places.filter(|(_, id)| is_of_person(*id, level)).collect();
        let mut add = |more: &mut dyn Iterator<Item = AttributeId>| {
            let from = ids.len();
            ids.extend(more);
            from..ids.len()
        };
        let tells_patient = !shared.is_empty() && keys.iter().any(|id| id.attribute().level == Patient);
        let needs_patient = level == Patient || tells_patient || !of_person.is_empty();
        let patient = needs_patient.then(|| add(&mut rules::patient_attributes()));
        let numbers = match level {
            _ if shared.is_empty() => 0..0,
            Patient | Study => 0..0,
            Series => add(&mut [AttributeId::SeriesNumber].into_iter()),
            Image => add(&mut [AttributeId::SeriesNumber, AttributeId::InstanceNumber].into_iter()),
        };
        let further = keys.len()..ids.len();
        let more = ids.get(further.clone()).unwrap_or_default();
        asked.return_keys.extend(more.iter().map(|&attribute| ReturnKey { attribute, items: Vec::new() }));
        let narrows_patients = asked.matching_keys.iter().any(|key| key.attribute != AttributeId::PatientID)
            || !asked.date_time_keys.is_empty()
            || asked.declared.iter().any(|key| key.matching.is_some())
            || asked.arrival != Default::default();
        let looks_up = level == Patient || !shared.is_empty() || !of_person.is_empty();
        let names_few = asked.matching_keys.iter().any(names_few);
        let request = asked;
        Ok(Self { request, level, further, patient, numbers, late, of_person, narrows_patients, names_few, looks_up })
    }

    /// The kept values of the patient of an answer.
    pub(super) fn description(&self, answer: &FindAnswer) -> Vec<String> {
        self.patient.clone().map(|places| answer.values.texts(places)).unwrap_or_default()
    }

    /// Whether answers have values of patients.
    pub(super) fn tells_patient(&self) -> bool {
        self.patient.is_some()
    }

    /// Gives an answer these values of its patient.
    pub(super) fn set_patient(&self, answer: &mut FindAnswer, description: &[String]) {
        for (at, id) in self.places().filter(|(_, id)| is_said_of_patient(*id)) {
            answer.values.set(at, rules::value_of(description, id));
        }
    }

    /// Whether a description of a patient fulfils the conditions on it.
    pub(super) fn fits_patient(&self, description: &[String]) -> bool {
        let keys = self.request.matching_keys.iter().filter(|key| is_said_of_patient(key.attribute));
        keys.into_iter().all(|key| key.matching.matches(rules::value_of(description, key.attribute)))
    }

    /// Places of the values with their attributes, without the declared ones.
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, AttributeId)> + '_ {
        self.request.return_keys.iter().map(|key| key.attribute).enumerate()
    }

    /// Places of the declared values.
    pub(super) fn declared(&self) -> impl Iterator<Item = (usize, &DeclaredKey)> {
        let first = self.request.return_keys.len();
        self.request.declared.iter().filter(|key| key.is_answered).enumerate().map(move |(at, key)| (first + at, key))
    }

    /// Whether an answer fulfils the conditions on values that depend on all files.
    pub(super) fn fits_late(&self, answer: &FindAnswer) -> bool {
        self.late.iter().all(|(at, key)| answer.values.get(*at).is_some_and(|value| key.matching.matches(value)))
    }

    /// The answer without what only the merge needed.
    pub(super) fn finish(&self, mut answer: FindAnswer, wants_key: bool) -> FindAnswer {
        answer.values.remove(self.further.clone());
        answer.key = answer.key.filter(|_| wants_key);
        answer
    }
}

/// The place of an attribute among those that are returned. It is added if it is not there.
fn place_of(ids: &mut Vec<AttributeId>, id: AttributeId) -> usize {
    ids.iter().position(|known| *known == id).unwrap_or_else(|| {
        ids.push(id);
        ids.len() - 1
    })
}
