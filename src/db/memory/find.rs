//! Queries of an index in memory. Each looks at every entity, as PS3.4 C.2.2 and C.4.1.1.3 define
//! an answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use dicom_core::VR;

use super::contents::{Contents, StoredFile};
use crate::db::Error;
use crate::db::plan::{PartedKeys, asks_for_patient, can_answer, can_answer_declared};
use crate::db::rules::{self, Description, PatientOfStudy};
use crate::model::attribute::AttributeId::{self, *};
use crate::model::attribute::{Attribute, ValueSource};
use crate::model::declared::Unit;
use crate::model::find::{AnswerKey, AnswerOrder, DateTimeKey, DeclaredKey, FindAnswer, FindRequest, MatchingKey};
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// A study with the patients that its objects name.
struct StudyView<'c> {
    instances: Vec<&'c StoredFile>,
    patients: Vec<PatientOfStudy>,
}

/// An entity: a study under one of its patients, with what is below it down to the level of the
/// entity. A patient is represented by one of its studies.
#[derive(Clone, Copy)]
struct MemoryEntity<'v, 'c> {
    study: &'v StudyView<'c>,
    patient: usize,
    series: Option<&'v str>,
    instance: Option<&'c StoredFile>,
}

/// What tells patients apart: Patient ID, what replaces a missing one, and issuer.
type Person = (String, String, String);

struct ContentsView<'c> {
    contents: &'c Contents,
    studies: Vec<StudyView<'c>>,
    /// The first issuer of each Patient ID. Descriptions without an issuer mean it.
    first_issuers: BTreeMap<(String, String), String>,
}

/// The number of patients.
pub(super) fn persons(contents: &Contents) -> u64 {
    let view = ContentsView::of(contents);
    let patients = view.studies.iter().flat_map(|study| &study.patients);
    patients.map(|patient| view.person(&patient.values)).collect::<BTreeSet<_>>().len() as u64
}

/// Answers a query, in order.
pub(super) fn answers(contents: &Contents, request: &FindRequest) -> Result<Vec<FindAnswer>, Error> {
    if request.arrival != Default::default() {
        return Err(Error::Unsupported("this index does not know how instances came".into()));
    }
    if request.record.is_some() {
        return Err(Error::Unsupported("this index has no record keys".into()));
    }
    for key in &request.return_keys {
        let attribute = key.attribute.attribute();
        if !can_answer(attribute, request.level) {
            return Err(Error::Unsupported(format!(
                "{} is not answered at the {} level",
                attribute.keyword, request.level
            )));
        }
    }
    let view = ContentsView::of(contents);
    let keys = PartedKeys::of(request);
    let mut found = match request.level {
        Patient => view.patients(request, &keys),
        Study | Series | Image => view.entities(request, &keys),
    };
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    let rest = found.into_iter().map(|(_, answer)| answer).skip(usize::try_from(request.offset).unwrap_or(usize::MAX));
    Ok(rest.take(request.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))).collect())
}

/// The position of an answer: its key, its study, and number and UID of its series and of its
/// instance.
type EntityOrder = (AnswerOrder, String, (i64, String), (i64, String));

impl<'c> ContentsView<'c> {
    fn of(contents: &'c Contents) -> Self {
        let mut by_study: BTreeMap<&str, Vec<&StoredFile>> = BTreeMap::new();
        for first in contents.instances.values().filter_map(|held| held.first()) {
            by_study.entry(first.record.value(StudyInstanceUID)).or_default().push(first);
        }
        let studies: Vec<StudyView<'c>> = by_study
            .into_values()
            .map(|instances| {
                let said: Vec<Description> = instances
                    .iter()
                    .map(|held| rules::patient_attributes().map(|id| held.record.value(id).to_owned()).collect())
                    .collect();
                StudyView { patients: rules::patients_of_study(&said), instances }
            })
            .collect();
        let mut first_issuers: BTreeMap<(String, String), String> = BTreeMap::new();
        for patient in studies.iter().flat_map(|study| &study.patients) {
            let (id, identity, issuer) = rules::key_of(&patient.values);
            let first = first_issuers.entry((id, identity)).or_default();
            if !issuer.is_empty() && (first.is_empty() || issuer < *first) {
                *first = issuer;
            }
        }
        Self { contents, studies, first_issuers }
    }

    fn person(&self, description: &[String]) -> Person {
        let (id, identity, issuer) = rules::key_of(description);
        let same = (id, identity);
        let issuer = match self.first_issuers.get(&same) {
            Some(first) if issuer.is_empty() => first.clone(),
            Some(_) | None => issuer,
        };
        (same.0, same.1, issuer)
    }

    /// The studies of a person. Each has a description of that person.
    fn studies_of(&self, person: &Person) -> impl Iterator<Item = &StudyView<'c>> {
        self.studies.iter().filter(move |study| study.patients.iter().any(|p| self.person(&p.values) == *person))
    }

    /// Returns one answer for each patient, from the first of its descriptions that match.
    fn patients(&self, request: &FindRequest, keys: &PartedKeys<'_>) -> Vec<(EntityOrder, FindAnswer)> {
        let mut best: BTreeMap<Person, (MemoryEntity<'_, 'c>, FindAnswer)> = BTreeMap::new();
        for study in &self.studies {
            for (at, patient) in study.patients.iter().enumerate() {
                let entity = MemoryEntity { study, patient: at, series: None, instance: None };
                let of_description: Vec<MemoryEntity<'_, 'c>> = self
                    .studies
                    .iter()
                    .flat_map(|study| {
                        (0..study.patients.len()).map(move |patient| MemoryEntity { study, patient, ..entity })
                    })
                    .filter(|other| other.description() == &patient.values)
                    .collect();
                let fulfils_declared = keys.declared_above.iter().all(|key| {
                    let Some(matching) = &key.matching else { return true };
                    of_description.iter().any(|entity| matching.matches(&entity.declared(&key.unit)))
                });
                let matches = self.matches_own(entity, keys, Patient)
                    && fulfils_declared
                    && (!keys.asks_below() || of_description.iter().any(|entity| self.some_below(*entity, keys)));
                if !matches {
                    continue;
                }
                let person = self.person(&patient.values);
                let is_better = best
                    .get(&person)
                    .is_none_or(|(known, _)| rules::compare_descriptions(&patient.values, known.description()).is_lt());
                if is_better {
                    let declared = |key: &&DeclaredKey| {
                        let values = of_description.iter().map(|entity| entity.declared(&key.unit));
                        let fits = |value: &String| key.matching.as_ref().is_none_or(|m| m.matches(value));
                        most_complete(key.unit.vr, values.filter(fits))
                    };
                    best.insert(person, (entity, self.answer(entity, request, declared)));
                }
            }
        }
        best.into_values().map(|(entity, answer)| (order(&entity, Patient), answer)).collect()
    }

    /// Returns one answer for each study, series or instance, under the first of its patients that
    /// match.
    fn entities(&self, request: &FindRequest, keys: &PartedKeys<'_>) -> Vec<(EntityOrder, FindAnswer)> {
        let level = request.level;
        let may_be_under_others =
            self.studies.iter().any(|study| study.patients.len() > 1) && asks_for_patient(request, level != Study);
        let mut found = Vec::new();
        for study in &self.studies {
            let of_study = MemoryEntity { study, patient: 0, series: None, instance: None };
            for entity in of_study.down_to(level) {
                let patients = if may_be_under_others { study.patients.len() } else { 1 };
                let under = (0..patients).map(|patient| MemoryEntity { patient, ..entity }).find(|entity| {
                    (!may_be_under_others || level == Study || entity.names_its_patient())
                        && self.matches_own(*entity, keys, level)
                        && keys.declared_above.iter().all(|key| fits_declared(*entity, key))
                        && (!keys.asks_below() || self.some_below(*entity, keys))
                });
                if let Some(entity) = under {
                    let answer = self.answer(entity, request, |key| entity.declared_at(&key.unit, level));
                    found.push((order(&entity, level), answer));
                }
            }
        }
        found
    }

    /// Whether an entity fulfils the keys of its level and of the levels above.
    fn matches_own(&self, entity: MemoryEntity<'_, 'c>, keys: &PartedKeys<'_>, level: QueryRetrieveLevel) -> bool {
        let fits = |key: &&MatchingKey| key.matching.matches(&self.value(entity, key.attribute, level));
        keys.above.iter().all(fits) && keys.moments_above.iter().all(|key| self.fits_moment(entity, key, level))
    }

    /// Whether one descendant fulfils all keys below the level (C.4.1.3.1.2).
    fn some_below(&self, entity: MemoryEntity<'_, 'c>, keys: &PartedKeys<'_>) -> bool {
        let declared = keys.declared_below.iter().filter(|key| key.matching.is_some()).map(|key| key.unit.level);
        let asked = keys.below.iter().map(|key| key.attribute).chain(keys.moments_below.iter().map(|key| key.date));
        let deepest = asked.map(|id| id.attribute().level).chain(declared).max().unwrap_or(Image);
        entity.down_to(deepest).into_iter().any(|below| {
            keys.below.iter().all(|key| key.matching.matches(&self.value(below, key.attribute, deepest)))
                && keys.moments_below.iter().all(|key| self.fits_moment(below, key, deepest))
                && keys.declared_below.iter().all(|key| fits_declared(below, key))
        })
    }

    fn fits_moment(&self, entity: MemoryEntity<'_, 'c>, key: &DateTimeKey, level: QueryRetrieveLevel) -> bool {
        key.range.contains(&self.value(entity, key.date, level), &self.value(entity, key.time, level))
    }

    fn answer(
        &self,
        entity: MemoryEntity<'_, 'c>,
        request: &FindRequest,
        declared: impl Fn(&&DeclaredKey) -> String,
    ) -> FindAnswer {
        let level = request.level;
        let mut values: Vec<String> =
            request.return_keys.iter().map(|key| self.value(entity, key.attribute, level)).collect();
        let declared_keys = request.declared.iter().filter(|key| key.is_answered);
        values.extend(declared_keys.filter(|key| can_answer_declared(&key.unit, level)).map(|key| declared(&key)));
        let records = entity.records();
        let character_set = records.first().map_or("", |record| record.value(SpecificCharacterSet)).to_owned();
        let key = request.wants_key.then(|| {
            let mut uids = Vec::new();
            for (of, id) in [(Study, StudyInstanceUID), (Series, SeriesInstanceUID), (Image, SOPInstanceUID)] {
                uids.extend((of <= level).then(|| self.value(entity, id, level)));
            }
            Box::new(AnswerKey { order: entity.order(level), uids })
        });
        let located = entity.instance.filter(|_| request.wants_location && level == Image);
        let location = located.map(|file| Box::new(file.location.clone()));
        FindAnswer { values, character_set, key, location, record: None }
    }

    /// The value of an attribute in an entity of this level.
    fn value(&self, entity: MemoryEntity<'_, 'c>, id: AttributeId, level: QueryRetrieveLevel) -> String {
        let attribute = id.attribute();
        let person = || self.person(entity.description());
        let records = || entity.study.instances.iter().map(|held| &held.record);
        let distinct = |id| distinct(records().map(|record| record.value(id)));
        let series_of = |study: &StudyView<'_>| {
            self::distinct(study.instances.iter().map(|held| held.record.value(SeriesInstanceUID))).len()
        };
        match (id, attribute.source) {
            (RetrieveAETitle, _) | (_, ValueSource::AlwaysEmpty) => String::new(),
            (InstanceAvailability, _) => self.availability(entity, level).to_owned(),
            (NumberOfPatientRelatedStudies, _) => self.studies_of(&person()).count().to_string(),
            (NumberOfPatientRelatedSeries, _) => self.studies_of(&person()).map(series_of).sum::<usize>().to_string(),
            (NumberOfPatientRelatedInstances, _) => {
                self.studies_of(&person()).map(|study| study.instances.len()).sum::<usize>().to_string()
            }
            (NumberOfStudyRelatedSeries, _) => series_of(entity.study).to_string(),
            (NumberOfStudyRelatedInstances, _) => entity.study.instances.len().to_string(),
            (NumberOfSeriesRelatedInstances, _) => {
                MemoryEntity { instance: None, ..entity }.records().len().to_string()
            }
            (ModalitiesInStudy, _) => rules::each_once(&entity.series_values(Modality)),
            (SOPClassesInStudy, _) => distinct(SOPClassUID).into_iter().collect::<Vec<_>>().join("\\"),
            (AnatomicRegionsInStudyCodeSequence, _) => rules::items(&entity.series_values(AnatomicRegionSequence)),
            // A series attribute of a study has the values of all its series.
            _ if level == Study && attribute.level == Series => rules::joined(attribute.vr, &entity.series_values(id)),
            _ if attribute.level == Patient => rules::value_of(entity.description(), id).to_owned(),
            _ => entity.own_value(attribute),
        }
    }

    /// The availability of an instance (PS3.3 C.4.23.1.1). For any other entity it is that of the
    /// least available instance (PS3.4 C.4.1.1.3.2).
    fn availability(&self, entity: MemoryEntity<'_, 'c>, level: QueryRetrieveLevel) -> &'static str {
        let is_online = |first: &StoredFile| {
            let held = self.contents.instances.get(first.record.value(SOPInstanceUID));
            let copies = held.iter().flat_map(|held| held.iter().skip(1));
            let is_elsewhere = copies.filter(|copy| !copy.differs).any(|copy| self.contents.is_there(copy));
            first.location.place != Place::MetadataOnly && (self.contents.is_there(first) || is_elsewhere)
        };
        let all_online = match level {
            Patient => {
                let person = self.person(entity.description());
                self.studies_of(&person).all(|study| study.instances.iter().all(|held| is_online(held)))
            }
            Study | Series | Image => entity.instances().all(is_online),
        };
        if all_online { "ONLINE" } else { "UNAVAILABLE" }
    }
}

impl<'v, 'c> MemoryEntity<'v, 'c> {
    fn description(&self) -> &'v Description {
        &self.study.patients[self.patient].values
    }

    fn instances(&self) -> impl Iterator<Item = &'c StoredFile> + use<'_, 'v, 'c> {
        self.study.instances.iter().copied().filter(|held| {
            self.series.is_none_or(|series| held.record.value(SeriesInstanceUID) == series)
                && self.instance.is_none_or(|instance| std::ptr::eq(*held, instance))
        })
    }

    fn records(&self) -> Vec<&'c InstanceRecord> {
        self.instances().map(|held| &held.record).collect()
    }

    /// Whether some object of the entity names its patient.
    fn names_its_patient(&self) -> bool {
        let members = &self.study.patients[self.patient].members;
        members
            .iter()
            .filter_map(|&at| self.study.instances.get(at))
            .any(|held| self.instances().any(|own| std::ptr::eq(own, *held)))
    }

    /// The entities of a level at or below this one.
    fn down_to(self, level: QueryRetrieveLevel) -> Vec<Self> {
        let instances = || self.study.instances.iter().copied();
        let of_series = |held: &'c StoredFile| held.record.value(SeriesInstanceUID);
        match level {
            Patient | Study => vec![self],
            Series => {
                let uids: BTreeSet<&'c str> = instances().map(of_series).collect();
                uids.into_iter().map(|series| Self { series: Some(series), ..self }).collect()
            }
            Image => self
                .instances()
                .map(|held| Self { series: Some(of_series(held)), instance: Some(held), ..self })
                .collect(),
        }
    }

    /// The most complete value among the objects of the entity that has the attribute's level
    /// (docs/adr/0008).
    fn own_value(&self, attribute: &Attribute) -> String {
        let entity = match attribute.level {
            Patient | Study => Self { series: None, instance: None, ..*self },
            Series => Self { instance: None, ..*self },
            Image => *self,
        };
        most_complete(attribute.vr, entity.instances().map(|held| held.record.value(attribute.id).to_owned()))
    }

    /// The values of an attribute in the series of the study, in order.
    fn series_values(&self, id: AttributeId) -> BTreeSet<String> {
        let series = Self { series: None, instance: None, ..*self }.down_to(Series);
        series.iter().map(|series| series.own_value(id.attribute())).filter(|value| !value.is_empty()).collect()
    }

    /// The value of a declared attribute at its own level.
    fn declared(&self, unit: &Unit) -> String {
        let entity = match unit.level {
            Patient | Study => Self { series: None, instance: None, ..*self },
            Series => Self { instance: None, ..*self },
            Image => *self,
        };
        let members = &self.study.patients[self.patient].members;
        let names = |held: &StoredFile| {
            unit.level != Patient
                || members
                    .iter()
                    .any(|&at| self.study.instances.get(at).is_some_and(|other| std::ptr::eq(*other, held)))
        };
        let values =
            entity.instances().filter(|held| names(held)).map(|held| held.record.declared(unit.number).to_owned());
        most_complete(unit.vr, values)
    }

    fn declared_at(&self, unit: &Unit, level: QueryRetrieveLevel) -> String {
        if unit.level <= level {
            return self.declared(unit);
        }
        let series = self.down_to(Series);
        rules::joined(
            unit.vr,
            &series.iter().map(|series| series.declared(unit)).filter(|value| !value.is_empty()).collect(),
        )
    }

    fn order(&self, level: QueryRetrieveLevel) -> AnswerOrder {
        if level == Patient {
            let (patient_id, identity, issuer) = rules::key_of(self.description());
            return AnswerOrder::Patient { patient_id, identity, issuer };
        }
        let value = |id: AttributeId| Reverse(self.own_value(id.attribute()));
        AnswerOrder::Study { date: value(StudyDate), time: value(StudyTime) }
    }
}

fn order(entity: &MemoryEntity<'_, '_>, level: QueryRetrieveLevel) -> EntityOrder {
    let text = |id: AttributeId, of| if of <= level { entity.own_value(id.attribute()) } else { String::new() };
    let series = (rules::leading_number(&text(SeriesNumber, Series)), text(SeriesInstanceUID, Series));
    let instance = (rules::leading_number(&text(InstanceNumber, Image)), text(SOPInstanceUID, Image));
    (entity.order(level), text(StudyInstanceUID, Study), series, instance)
}

fn fits_declared(entity: MemoryEntity<'_, '_>, key: &DeclaredKey) -> bool {
    key.matching.as_ref().is_none_or(|matching| matching.matches(&entity.declared(&key.unit)))
}

fn most_complete(vr: VR, values: impl Iterator<Item = String>) -> String {
    values.fold(String::new(), |known, said| if rules::is_more_complete(vr, &said, &known) { said } else { known })
}

fn distinct<'t>(values: impl Iterator<Item = &'t str>) -> BTreeSet<&'t str> {
    values.filter(|value| !value.is_empty()).collect()
}
