//! Answers of a query, made by looking at every entity, as PS3.4 C.2.2 and C.4.1.1.3 define an
//! answer.
//!
//! The index in memory looks at all of its studies. The PostgreSQL engine looks at those that its
//! indexes lead to. Both decide here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use dicom_core::VR;

use super::Error;
use super::plan::{PartedKeys, asks_for_patient, can_answer, can_answer_declared};
use super::rules::{self, Description, PatientOfStudy};
use crate::model::answer_values::AnswerValues;
use crate::model::attribute::AttributeId::{self, *};
use crate::model::attribute::{Attribute, ValueSource};
use crate::model::availability::ObjectAvailability;
use crate::model::declared::Unit;
use crate::model::find::{AnswerKey, AnswerOrder, DateTimeKey, DeclaredKey, FindAnswer, FindRequest, MatchingKey};
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};
use crate::model::location::Location;
use crate::model::record::InstanceRecord;

/// Instances of one series that say the same, apart from values of single instances.
pub(in crate::db) struct GroupView<'c> {
    pub(in crate::db) record: &'c InstanceRecord,
    /// Number of instances that it stands for.
    pub(in crate::db) count: u64,
    /// Availability of the least available one.
    pub(in crate::db) access: ObjectAvailability,
    /// Whether they came as the query says.
    pub(in crate::db) has_arrived: bool,
    /// Whether the entity that the query asks for has changed since it says. Of a patient, one
    /// study is enough.
    pub(in crate::db) has_changed: bool,
}

/// One instance of a study.
pub(in crate::db) struct InstanceView<'c> {
    pub(in crate::db) record: &'c InstanceRecord,
    /// Place of its instance group in [`StudyView::groups`].
    pub(in crate::db) group: usize,
    pub(in crate::db) access: ObjectAvailability,
    pub(in crate::db) location: Option<&'c Location>,
}

/// A study with the patients that its objects name.
pub(in crate::db) struct StudyView<'c> {
    groups: Vec<GroupView<'c>>,
    /// The instances that a query may be about. They may be fewer than the instance groups stand
    /// for.
    instances: Vec<InstanceView<'c>>,
    patients: Vec<PatientOfStudy>,
}

impl<'c> StudyView<'c> {
    pub(in crate::db) fn new(groups: Vec<GroupView<'c>>, instances: Vec<InstanceView<'c>>) -> Self {
        let said: Vec<Description> = groups.iter().map(|group| description_of(group.record)).collect();
        Self { patients: rules::patients_of_study(&said), groups, instances }
    }

    fn totals(&self) -> StudyTotals {
        StudyTotals {
            series: distinct(self.groups.iter().map(|group| group.record.value(SeriesInstanceUID))).len() as u64,
            instances: self.groups.iter().map(|group| group.count).sum(),
            access: ObjectAvailability::least(self.groups.iter().map(|group| group.access)),
        }
    }

    /// The patients that its objects name, each with what the study adds to its numbers.
    pub(in crate::db) fn persons(&self) -> impl Iterator<Item = (PersonKey, StudyTotals)> {
        let totals = self.totals();
        self.patients.iter().map(move |patient| (rules::key_of(&patient.values), totals))
    }
}

/// Description that an object gives of its patient.
pub(in crate::db) fn description_of(record: &InstanceRecord) -> Description {
    rules::patient_attributes().map(|id| record.value(id).to_owned()).collect()
}

/// An entity: a study under one of its patients, with what is below it down to the level of the
/// entity. A patient is represented by one of its studies.
#[derive(Clone, Copy)]
struct EntityView<'v, 'c> {
    study: &'v StudyView<'c>,
    patient: usize,
    series: Option<&'v str>,
    /// Place in [`StudyView::instances`].
    instance: Option<usize>,
}

/// Key that tells patients apart: Patient ID, replacement of a missing one, and issuer.
pub(in crate::db) type PersonKey = (String, String, String);

/// Numbers that a study adds to those of its patient.
#[derive(Clone, Copy)]
pub(in crate::db) struct StudyTotals {
    pub(in crate::db) series: u64,
    pub(in crate::db) instances: u64,
    pub(in crate::db) access: ObjectAvailability,
}

/// The numbers of a patient over all of its studies.
#[derive(Clone, Copy)]
struct PersonNumbers {
    studies: u64,
    series: u64,
    instances: u64,
    access: ObjectAvailability,
}

/// The patients that descriptions mean, with their numbers.
#[derive(Default)]
pub(in crate::db) struct PersonTotals {
    numbers: BTreeMap<PersonKey, PersonNumbers>,
    /// The first issuer of each Patient ID. Descriptions without an issuer mean it.
    first_issuers: BTreeMap<(String, String), String>,
}

impl PersonTotals {
    /// Adds up the patients of studies. All studies of a Patient ID have to be there.
    pub(in crate::db) fn of(studies: &[(PersonKey, StudyTotals)]) -> Self {
        let mut totals = Self::default();
        for ((id, identity, issuer), _) in studies {
            let first = totals.first_issuers.entry((id.clone(), identity.clone())).or_default();
            if !issuer.is_empty() && (first.is_empty() || issuer < first) {
                first.clone_from(issuer);
            }
        }
        for (key, of_study) in studies {
            let empty = PersonNumbers { studies: 0, series: 0, instances: 0, access: ObjectAvailability::Online };
            let numbers = totals.numbers.entry(totals.meant(key.clone())).or_insert(empty);
            numbers.studies += 1;
            numbers.series += of_study.series;
            numbers.instances += of_study.instances;
            numbers.access = numbers.access.max(of_study.access);
        }
        totals
    }

    /// The number of patients.
    pub(in crate::db) fn len(&self) -> u64 {
        self.numbers.len() as u64
    }

    fn meant(&self, (id, identity, issuer): PersonKey) -> PersonKey {
        let same = (id, identity);
        let issuer = match self.first_issuers.get(&same) {
            Some(first) if issuer.is_empty() => first.clone(),
            Some(_) | None => issuer,
        };
        (same.0, same.1, issuer)
    }

    fn person(&self, description: &[String]) -> PersonKey {
        self.meant(rules::key_of(description))
    }

    fn numbers(&self, description: &[String]) -> PersonNumbers {
        let none = PersonNumbers { studies: 0, series: 0, instances: 0, access: ObjectAvailability::Online };
        self.numbers.get(&self.person(description)).copied().unwrap_or(none)
    }
}

/// Studies with the patients that they name.
pub(in crate::db) struct ArchiveView<'c> {
    studies: Vec<StudyView<'c>>,
    persons: PersonTotals,
}

/// Refuses what answers from views cannot carry.
pub(in crate::db) fn check(request: &FindRequest) -> Result<(), Error> {
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
    Ok(())
}

/// The position of an answer: its key, its study, and number and UID of its series and of its
/// instance.
type EntityOrder = (AnswerOrder, String, (i64, String), (i64, String));

impl<'c> ArchiveView<'c> {
    /// All studies of an index.
    pub(in crate::db) fn whole(studies: Vec<StudyView<'c>>) -> Self {
        let persons: Vec<_> = studies.iter().flat_map(StudyView::persons).collect();
        Self { persons: PersonTotals::of(&persons), studies }
    }

    /// Some studies of an index, with the numbers of their patients if the query is about them.
    pub(in crate::db) fn part(studies: Vec<StudyView<'c>>, persons: PersonTotals) -> Self {
        Self { studies, persons }
    }

    /// The number of patients.
    pub(in crate::db) fn persons(&self) -> u64 {
        self.persons.len()
    }

    /// All answers that these studies give, in order. Of patients, those that `is_asked`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if a value of the index cannot be read.
    pub(in crate::db) fn answers(
        &self,
        request: &FindRequest,
        is_asked: &dyn Fn(&PersonKey) -> bool,
    ) -> Result<impl Iterator<Item = FindAnswer> + use<>, Error> {
        let keys = PartedKeys::of(request);
        let mut found = match request.level {
            Patient => self.patients(request, &keys, is_asked)?,
            Study | Series | Image => self.entities(request, &keys)?,
        };
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(found.into_iter().map(|(_, answer)| answer))
    }

    /// Returns one answer for each patient, from the first of its descriptions that match.
    fn patients(
        &self,
        request: &FindRequest,
        keys: &PartedKeys<'_>,
        is_asked: &dyn Fn(&PersonKey) -> bool,
    ) -> Result<Vec<(EntityOrder, FindAnswer)>, Error> {
        let mut by_description: BTreeMap<&Description, Vec<EntityView<'_, 'c>>> = BTreeMap::new();
        for study in &self.studies {
            for (patient, said) in study.patients.iter().enumerate() {
                let entity = EntityView { study, patient, series: None, instance: None };
                by_description.entry(&said.values).or_default().push(entity);
            }
        }
        let changed = self.changed_patients();
        let mut best: BTreeMap<PersonKey, (EntityView<'_, 'c>, FindAnswer)> = BTreeMap::new();
        for (description, entities) in by_description {
            let Some(&entity) = entities.first() else { continue };
            let key = rules::key_of(description);
            if !is_asked(&key) || !changed.contains(&(key.0, key.1)) {
                continue;
            }
            let fulfils_declared = keys.declared_above.iter().all(|key| {
                let Some(matching) = &key.matching else { return true };
                entities.iter().any(|entity| matching.matches(&entity.declared(&key.unit)))
            });
            let has_arrived = |entity: &EntityView<'_, 'c>| {
                let members = &entity.study.patients[entity.patient].members;
                entity.groups().any(|(at, group)| group.has_arrived && members.contains(&at))
            };
            let matches = fulfils_declared
                && entities.iter().any(has_arrived)
                && self.matches_own(entity, keys, Patient)?
                && (!keys.asks_below() || any(&entities, |entity| self.some_below(*entity, keys, Patient))?);
            if !matches {
                continue;
            }
            let person = self.persons.person(description);
            let is_better = best
                .get(&person)
                .is_none_or(|(known, _)| rules::compare_descriptions(description, known.description()).is_lt());
            if is_better {
                let declared = |key: &DeclaredKey| {
                    let values = entities.iter().map(|entity| entity.declared(&key.unit));
                    let fits = |value: &String| key.matching.as_ref().is_none_or(|m| m.matches(value));
                    Ok(most_complete(key.unit.vr, values.filter(fits)))
                };
                best.insert(person, (entity, self.answer(entity, request, declared)?));
            }
        }
        Ok(best.into_values().map(|(entity, answer)| (order(&entity, Patient), answer)).collect())
    }

    /// Patient ID and identity of those with a study that has changed. One answer stands for all
    /// studies of a Patient ID, and each of them changes it.
    fn changed_patients(&self) -> BTreeSet<(String, String)> {
        let changed = self.studies.iter().filter(|study| study.groups.iter().any(|group| group.has_changed));
        let patients = changed.flat_map(|study| &study.patients).map(|patient| rules::key_of(&patient.values));
        patients.map(|(id, identity, _)| (id, identity)).collect()
    }

    /// Returns one answer for each study, series or instance, under the first of its patients that
    /// match.
    fn entities(&self, request: &FindRequest, keys: &PartedKeys<'_>) -> Result<Vec<(EntityOrder, FindAnswer)>, Error> {
        let level = request.level;
        let may_be_under_others = asks_for_patient(request, level != Study);
        let fits = |entity: EntityView<'_, 'c>| -> Result<bool, Error> {
            Ok((!may_be_under_others || level == Study || entity.names_its_patient())
                && keys.declared_above.iter().all(|key| fits_declared(entity, key))
                && self.matches_own(entity, keys, level)?
                && (!keys.asks_below() || self.some_below(entity, keys, level)?))
        };
        let mut found = Vec::new();
        for study in &self.studies {
            let of_study = EntityView { study, patient: 0, series: None, instance: None };
            for entity in of_study.down_to(level) {
                let has_arrived = entity.groups().any(|(_, group)| group.has_arrived);
                if !has_arrived || !entity.groups().any(|(_, group)| group.has_changed) {
                    continue;
                }
                let patients = if may_be_under_others { study.patients.len() } else { 1 };
                for entity in (0..patients).map(|patient| EntityView { patient, ..entity }) {
                    if fits(entity)? {
                        let answer = self.answer(entity, request, |key| entity.declared_at(&key.unit, level))?;
                        found.push((order(&entity, level), answer));
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Whether an entity fulfils the keys of its level and of the levels above.
    fn matches_own(
        &self,
        entity: EntityView<'_, 'c>,
        keys: &PartedKeys<'_>,
        level: QueryRetrieveLevel,
    ) -> Result<bool, Error> {
        Ok(all(&keys.above, |key| self.fits(entity, key, level))?
            && all(&keys.moments_above, |key| self.fits_moment(entity, key, level))?)
    }

    /// Whether one descendant fulfils all keys below the level (C.4.1.3.1.2). What names another
    /// patient is no descendant of a patient.
    fn some_below(
        &self,
        entity: EntityView<'_, 'c>,
        keys: &PartedKeys<'_>,
        level: QueryRetrieveLevel,
    ) -> Result<bool, Error> {
        let declared = keys.declared_below.iter().filter(|key| key.matching.is_some()).map(|key| key.unit.level);
        let asked = keys.below.iter().map(|key| key.attribute).chain(keys.moments_below.iter().map(|key| key.date));
        let deepest = asked.map(|id| id.attribute().level).chain(declared).max().unwrap_or(Image);
        any(entity.down_to(deepest), |below| {
            Ok((level != Patient || below.names_its_patient())
                && keys.declared_below.iter().all(|key| fits_declared(below, key))
                && all(&keys.below, |key| self.fits(below, key, deepest))?
                && all(&keys.moments_below, |key| self.fits_moment(below, key, deepest))?)
        })
    }

    fn fits(&self, entity: EntityView<'_, 'c>, key: &MatchingKey, level: QueryRetrieveLevel) -> Result<bool, Error> {
        Ok(key.matching.matches(&self.value(entity, key.attribute, level)?))
    }

    fn fits_moment(
        &self,
        entity: EntityView<'_, 'c>,
        key: &DateTimeKey,
        level: QueryRetrieveLevel,
    ) -> Result<bool, Error> {
        Ok(key.condition.matches(&self.value(entity, key.date, level)?, &self.value(entity, key.time, level)?))
    }

    fn answer(
        &self,
        entity: EntityView<'_, 'c>,
        request: &FindRequest,
        declared: impl Fn(&DeclaredKey) -> Result<String, Error>,
    ) -> Result<FindAnswer, Error> {
        let level = request.level;
        let returned = request.return_keys.iter().map(|key| self.value(entity, key.attribute, level));
        let mut values = returned.collect::<Result<AnswerValues, Error>>()?;
        let declared_keys = request.declared.iter().filter(|key| key.is_answered);
        for key in declared_keys.filter(|key| can_answer_declared(&key.unit, level)) {
            values.extend([declared(key)?]);
        }
        let character_set =
            entity.records().next().map_or("", |(_, record)| record.value(SpecificCharacterSet)).to_owned();
        let key = request.wants_key.then(|| {
            let uids = [(Study, StudyInstanceUID), (Series, SeriesInstanceUID), (Image, SOPInstanceUID)];
            let uids = uids.into_iter().filter(|(of, _)| *of <= level);
            let uids = uids.map(|(_, id)| entity.own_value(id.attribute())).collect();
            Box::new(AnswerKey { order: entity.order(level), uids })
        });
        let located = entity.own_instance().filter(|_| request.wants_location && level == Image);
        let location = located.and_then(|instance| instance.location).map(|location| Box::new(location.clone()));
        Ok(FindAnswer { values, character_set, key, location, record: None })
    }

    /// The value of an attribute in an entity of this level.
    fn value(&self, entity: EntityView<'_, 'c>, id: AttributeId, level: QueryRetrieveLevel) -> Result<String, Error> {
        let attribute = id.attribute();
        let numbers = || self.persons.numbers(entity.description());
        let distinct = |id| distinct(entity.study.groups.iter().map(|group| group.record.value(id)));
        Ok(match (id, attribute.source) {
            (RetrieveAETitle, _) | (_, ValueSource::AlwaysEmpty) => String::new(),
            (InstanceAvailability, _) => self.availability(entity, level).to_owned(),
            (NumberOfPatientRelatedStudies, _) => numbers().studies.to_string(),
            (NumberOfPatientRelatedSeries, _) => numbers().series.to_string(),
            (NumberOfPatientRelatedInstances, _) => numbers().instances.to_string(),
            (NumberOfStudyRelatedSeries, _) => entity.study.totals().series.to_string(),
            (NumberOfStudyRelatedInstances, _) => entity.study.totals().instances.to_string(),
            (NumberOfSeriesRelatedInstances, _) => {
                let series = EntityView { instance: None, ..entity };
                series.groups().map(|(_, group)| group.count).sum::<u64>().to_string()
            }
            (ModalitiesInStudy, _) => rules::each_once(&entity.series_values(Modality)),
            (SOPClassesInStudy, _) => distinct(SOPClassUID).into_iter().collect::<Vec<_>>().join("\\"),
            (AnatomicRegionsInStudyCodeSequence, _) => rules::items(&entity.series_values(AnatomicRegionSequence))?,
            // A series attribute of a study has the values of all its series.
            _ if level == Study && attribute.level == Series => rules::joined(attribute.vr, &entity.series_values(id))?,
            _ if attribute.level == Patient => rules::value_of(entity.description(), id).to_owned(),
            _ => entity.own_value(attribute),
        })
    }

    /// The availability of an instance (PS3.3 C.4.23.1.1). For any other entity it is that of the
    /// least available instance (PS3.4 C.4.1.1.3.2).
    fn availability(&self, entity: EntityView<'_, 'c>, level: QueryRetrieveLevel) -> &'static str {
        let access = match level {
            Patient => self.persons.numbers(entity.description()).access,
            Study | Series => ObjectAvailability::least(entity.groups().map(|(_, group)| group.access)),
            Image => ObjectAvailability::least(entity.own_instance().map(|instance| instance.access).into_iter()),
        };
        access.as_str()
    }
}

impl<'v, 'c> EntityView<'v, 'c> {
    fn description(&self) -> &'v Description {
        &self.study.patients[self.patient].values
    }

    fn own_instance(&self) -> Option<&'v InstanceView<'c>> {
        self.study.instances.get(self.instance?)
    }

    /// The instance groups of the entity, with their places.
    fn groups(&self) -> impl Iterator<Item = (usize, &'v GroupView<'c>)> {
        let (series, of_instance) = (self.series, self.own_instance().map(|instance| instance.group));
        self.study.groups.iter().enumerate().filter(move |(at, group)| {
            series.is_none_or(|series| group.record.value(SeriesInstanceUID) == series)
                && of_instance.is_none_or(|of_instance| of_instance == *at)
        })
    }

    /// The records of the entity: that of its instance, or those of its instance groups.
    fn records(&self) -> impl Iterator<Item = (usize, &'c InstanceRecord)> {
        let own = self.own_instance();
        self.groups().map(move |(at, group)| (at, own.map_or(group.record, |instance| instance.record)))
    }

    /// Whether some object of the entity names its patient.
    fn names_its_patient(&self) -> bool {
        let members = &self.study.patients[self.patient].members;
        self.groups().any(|(at, _)| members.contains(&at))
    }

    /// The entities of a level at or below this one.
    fn down_to(self, level: QueryRetrieveLevel) -> Vec<Self> {
        match level {
            Patient | Study => vec![self],
            Series => {
                let uids: BTreeSet<&'c str> =
                    self.study.groups.iter().map(|group| group.record.value(SeriesInstanceUID)).collect();
                uids.into_iter().map(|series| Self { series: Some(series), ..self }).collect()
            }
            Image => {
                let instances = self.study.instances.iter().enumerate();
                let own = instances.filter_map(|(at, instance)| {
                    let series = instance.record.value(SeriesInstanceUID);
                    let is_below = self.series.is_none_or(|own| own == series);
                    (is_below && self.instance.is_none_or(|own| own == at)).then_some((at, series))
                });
                own.map(|(at, series)| Self { series: Some(series), instance: Some(at), ..self }).collect()
            }
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
        most_complete(attribute.vr, entity.records().map(|(_, record)| record.value(attribute.id).to_owned()))
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
        let names = |at: &usize| unit.level != Patient || members.contains(at);
        let records = entity.records().filter(|(at, _)| names(at));
        let values = records.map(|(_, record)| record.declared(unit.number).to_owned());
        most_complete(unit.vr, values)
    }

    fn declared_at(&self, unit: &Unit, level: QueryRetrieveLevel) -> Result<String, Error> {
        if unit.level <= level {
            return Ok(self.declared(unit));
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

fn order(entity: &EntityView<'_, '_>, level: QueryRetrieveLevel) -> EntityOrder {
    let text = |id: AttributeId, of| if of <= level { entity.own_value(id.attribute()) } else { String::new() };
    let series = (rules::leading_number(&text(SeriesNumber, Series)), text(SeriesInstanceUID, Series));
    let instance = (rules::leading_number(&text(InstanceNumber, Image)), text(SOPInstanceUID, Image));
    (entity.order(level), text(StudyInstanceUID, Study), series, instance)
}

/// Whether something fits all of these. Ends with the first that it does not fit.
fn all<T>(keys: impl IntoIterator<Item = T>, fits: impl Fn(T) -> Result<bool, Error>) -> Result<bool, Error> {
    any(keys, |key| fits(key).map(|fits| !fits)).map(|some_not| !some_not)
}

/// Whether one of these fits. Ends with the first that does.
fn any<T>(items: impl IntoIterator<Item = T>, fits: impl Fn(T) -> Result<bool, Error>) -> Result<bool, Error> {
    for item in items {
        if fits(item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn fits_declared(entity: EntityView<'_, '_>, key: &DeclaredKey) -> bool {
    key.matching.as_ref().is_none_or(|matching| {
        let value = entity.declared(&key.unit);
        match key.is_in_zone() {
            true => matching.matches_in_zone(&value, &entity.own_value(TimezoneOffsetFromUTC.attribute())),
            false => matching.matches(&value),
        }
    })
}

pub(in crate::db) fn most_complete(vr: VR, values: impl Iterator<Item = String>) -> String {
    values.fold(String::new(), |known, said| if rules::is_more_complete(vr, &said, &known) { said } else { known })
}

fn distinct<'t>(values: impl Iterator<Item = &'t str>) -> BTreeSet<&'t str> {
    values.filter(|value| !value.is_empty()).collect()
}
