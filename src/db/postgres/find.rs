//! Answers a query: finds studies that may match, reads them, and lets `view` decide.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio_postgres::types::Type;

use super::away::{AwayInstances, NodePlaces};
use super::body::{InstanceBody, OWN};
use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::flight::SqlParameter;
use super::keys::{RowKey, to_u64};
use super::lead::{Lead, LeadCondition, arrived_groups, instance_keys, lead};
use super::load::{self, flags};
use super::losses::changed_groups;
use super::question::QuestionState;
use super::shelves::GroupRow;
use super::studies::person_key;
use crate::db::Error;
use crate::db::contents::StoredFile;
use crate::db::plan::is_computed_everywhere;
use crate::db::view::{self, ArchiveView, GroupView, InstanceView, PersonKey, PersonTotals, StudyTotals, StudyView};
use crate::model::attribute::AttributeId::{self, *};
use crate::model::availability::ObjectAvailability;
use crate::model::declared::DeclaredSet;
use crate::model::find::{FindAnswer, FindRequest};
use crate::model::level::QueryRetrieveLevel::{Image, Patient};

/// Studies, or patients, that are read at once: few for the first answers, and more later.
const CHUNKS: [usize; 4] = [8, 32, 128, 512];

/// The same where instances are read, of which a study may have thousands.
const CHUNKS_WITH_INSTANCES: [usize; 4] = [1, 4, 16, 64];

/// Names of cursors.
const PATIENTS: &str = "found_patients";
const STUDIES: &str = "found_studies";

/// Answers a query: see [`Search::find`](crate::db::Search::find).
pub(super) fn run(
    connection: &mut ServerConnection,
    request: &FindRequest,
    (state, places): (&QuestionState, NodePlaces<'_>),
    on_answer: &mut dyn FnMut(FindAnswer) -> ControlFlow<()>,
) -> Result<u64, ServerFailure> {
    view::check(request)?;
    let mut outlet = ServerOutlet { request, state, places, skip: request.offset, answered: 0, on_answer };
    if request.limit == Some(0) {
        return Ok(0);
    }
    connection.declared = Arc::new(DeclaredSet::of_some(request.declared.iter().map(|key| Arc::clone(&key.unit))));
    let lead = lead(connection, request)?;
    let mut numbers = RowNumbers::open(connection, request, lead)?;
    let chunks = match InstanceNeed::of(request) {
        InstanceNeed::Each => CHUNKS_WITH_INSTANCES,
        InstanceNeed::None | InstanceNeed::ByGroup => CHUNKS,
    };
    for turn in 0.. {
        let at_once = chunks.get(turn).or(chunks.last()).copied().unwrap_or(1);
        let chunk = numbers.next(connection, at_once)?;
        if chunk.is_empty() {
            break;
        }
        if outlet.give(connection, &chunk)?.is_break() {
            break;
        }
    }
    Ok(outlet.answered)
}

/// Numbers of studies, or keys of patients, in the order of the answers.
enum RowNumbers {
    Known(std::vec::IntoIter<ChunkRow>),
    /// A cursor of this name may have more.
    Cursor(&'static str),
}

/// Row of a chunk.
#[derive(Clone, Copy)]
enum ChunkRow {
    Study(i64),
    Person(RowKey),
}

impl RowNumbers {
    fn none() -> Self {
        Self::Known(Vec::new().into_iter())
    }

    fn open(connection: &mut ServerConnection, request: &FindRequest, lead: Lead) -> Result<Self, ServerFailure> {
        let of_patients = request.level == Patient;
        let order = match of_patients {
            true => "GROUP BY patient_id, identity, person_key ORDER BY patient_id, identity, person_key",
            false => "ORDER BY s.study_date DESC, s.study_time DESC, s.study_instance_uid",
        };
        let from = match of_patients {
            true => "SELECT person_key FROM study_patient WHERE",
            false => "SELECT s.id FROM study s WHERE",
        };
        match lead {
            Lead::Few(ids) if ids.is_empty() => Ok(Self::none()),
            // One study needs no order.
            Lead::Few(ids) if ids.len() == 1 && !of_patients => {
                let found: Vec<_> = ids.into_iter().map(ChunkRow::Study).collect();
                Ok(Self::Known(found.into_iter()))
            }
            Lead::Few(ids) => {
                let column = if of_patients { "study" } else { "s.id" };
                let rows = connection.query(&format!("{from} {column} = ANY($1) {order}"), &[&ids])?;
                let found = rows.iter().map(|row| ChunkRow::of(row, of_patients));
                Ok(Self::Known(found.collect::<Result<Vec<_>, _>>()?.into_iter()))
            }
            Lead::Many(conditions) => {
                let (condition, parameters) = condition_of(&conditions);
                let condition = match of_patients {
                    true if conditions.is_empty() => "true".to_owned(),
                    true => format!("study IN (SELECT s.id FROM study s WHERE {condition})"),
                    false => condition,
                };
                let name = if of_patients { PATIENTS } else { STUDIES };
                let sql = format!("DECLARE {name} NO SCROLL CURSOR FOR {from} {condition} {order}");
                connection.open_cursor(&sql, &parameters)?;
                Ok(Self::Cursor(name))
            }
        }
    }

    fn next(&mut self, connection: &mut ServerConnection, at_once: usize) -> Result<Vec<ChunkRow>, ServerFailure> {
        match self {
            Self::Known(known) => Ok(known.take(at_once).collect()),
            Self::Cursor(name) => {
                let name = *name;
                let rows = connection.fetch(at_once, name)?;
                if rows.len() < at_once {
                    *self = Self::none();
                }
                rows.iter().map(|row| ChunkRow::of(row, name == PATIENTS)).collect()
            }
        }
    }
}

impl ChunkRow {
    fn of(row: &tokio_postgres::Row, of_patients: bool) -> Result<Self, ServerFailure> {
        Ok(if of_patients { Self::Person(row.try_get(0)?) } else { Self::Study(row.try_get(0)?) })
    }
}

/// The conditions of a cursor, with their parameters.
fn condition_of(conditions: &[LeadCondition]) -> (String, Vec<(SqlParameter<'_>, Type)>) {
    let (mut sql, mut parameters): (Vec<String>, Vec<(SqlParameter<'_>, Type)>) = (vec!["true".to_owned()], Vec::new());
    for condition in conditions {
        let number = parameters.len() + 1;
        match condition {
            LeadCondition::In(subquery, parameter) => {
                sql.push(format!("s.id IN ({})", subquery.replace("$1", &format!("${number}"))));
                parameters.push(parameter.value());
            }
            LeadCondition::Dates(from, to) => {
                sql.push(format!("s.study_date >= ${number} AND s.study_date <= ${}", number + 1));
                parameters.extend([(from as SqlParameter<'_>, Type::TEXT), (to as SqlParameter<'_>, Type::TEXT)]);
            }
        }
    }
    (sql.join(" AND "), parameters)
}

/// Gives answers to the caller, from the offset up to the limit.
struct ServerOutlet<'q> {
    request: &'q FindRequest,
    state: &'q QuestionState,
    places: NodePlaces<'q>,
    skip: u64,
    answered: u64,
    on_answer: &'q mut dyn FnMut(FindAnswer) -> ControlFlow<()>,
}

impl ServerOutlet<'_> {
    /// Answers from some studies or patients.
    fn give(
        &mut self,
        connection: &mut ServerConnection,
        chunk: &[ChunkRow],
    ) -> Result<ControlFlow<()>, ServerFailure> {
        let persons: Vec<RowKey> = chunk
            .iter()
            .filter_map(|row| match row {
                ChunkRow::Person(key) => Some(*key),
                ChunkRow::Study(_) => None,
            })
            .collect();
        let studies: Vec<i64> = match persons.is_empty() {
            true => {
                chunk.iter().filter_map(|row| if let ChunkRow::Study(id) = row { Some(*id) } else { None }).collect()
            }
            false => {
                let sql = "SELECT DISTINCT study FROM study_patient WHERE person_key = ANY($1)";
                let rows = connection.query(sql, &[&persons])?;
                rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?
            }
        };
        let loaded = LoadedStudies::load(connection, self.request, self.places, &studies)?;
        let views = loaded.views();
        let archive = match persons.is_empty() {
            true => {
                let totals = totals(connection, self.request, &views)?;
                ArchiveView::part(views, totals)
            }
            false => ArchiveView::whole(views),
        };
        let persons: BTreeSet<RowKey> = persons.into_iter().collect();
        let is_asked = |(id, identity, _): &PersonKey| persons.contains(&person_key(id, identity));
        for answer in archive.answers(self.request, &is_asked)? {
            if self.state.is_interrupted() {
                return Err(Error::Interrupted.into());
            }
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            self.answered += 1;
            let go_on = (self.on_answer)(answer);
            if go_on.is_break() || self.request.limit == Some(self.answered) {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Studies with what the query is about.
struct LoadedStudies {
    /// The instance groups of each study.
    studies: Vec<Vec<GroupRow>>,
    /// The instances of each study, with the places of their instance groups and the flags of their
    /// rows.
    instances: Vec<Vec<(usize, i16, StoredFile)>>,
    /// Whether instance groups stand for their instances.
    by_group: bool,
    /// The instance groups whose instances came as the query says. `None`: all.
    arrived: Option<HashSet<i64>>,
    /// The instance groups of what has changed since the query says. `None`: all.
    changed: Option<HashSet<i64>>,
    away: AwayInstances,
}

fn asks_availability(request: &FindRequest) -> bool {
    let keys = request.matching_keys.iter().map(|key| key.attribute);
    keys.chain(request.return_keys.iter().map(|key| key.attribute)).any(|id| id == InstanceAvailability)
}

/// Way in which a query looks at instances.
enum InstanceNeed {
    None,
    /// Values that are the same for all instances of an instance group.
    ByGroup,
    Each,
}

impl InstanceNeed {
    fn of(request: &FindRequest) -> Self {
        if request.level == Image {
            return Self::Each;
        }
        let keys = request.matching_keys.iter().map(|key| key.attribute);
        let asked = keys.chain(request.date_time_keys.iter().flat_map(|key| [key.date, key.time]));
        let of_instances: Vec<AttributeId> =
            asked.filter(|id| id.attribute().level == Image && !is_computed_everywhere(*id)).collect();
        let asks_own_declared = request.declared.iter().any(|key| key.matching.is_some() && key.unit.level == Image);
        if asks_own_declared || of_instances.iter().any(|id| *id == SOPInstanceUID || OWN.contains(id)) {
            return Self::Each;
        }
        if of_instances.is_empty() { Self::None } else { Self::ByGroup }
    }
}

impl LoadedStudies {
    fn load(
        connection: &mut ServerConnection,
        request: &FindRequest,
        places: NodePlaces<'_>,
        ids: &[i64],
    ) -> Result<Self, ServerFailure> {
        let numbers: HashMap<i64, usize> = ids.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        let mut studies: Vec<Vec<GroupRow>> = ids.iter().map(|_| Vec::new()).collect();
        let mut found = load::groups(connection, "s.study", ids)?;
        found.iter_mut().for_each(|group| group.correct(&connection.corrections));
        let mut away = AwayInstances::of(places, &found);
        if asks_availability(request) {
            away.find_copies(connection, places, &found)?;
        }
        for group in found {
            if let Some(of_study) = numbers.get(&group.study).and_then(|at| studies.get_mut(*at)) {
                of_study.push(group);
            }
        }
        let need = InstanceNeed::of(request);
        let mut instances: Vec<Vec<(usize, i16, StoredFile)>> = ids.iter().map(|_| Vec::new()).collect();
        if matches!(need, InstanceNeed::Each) {
            add_instances(connection, request, &studies, &mut instances)?;
        }
        let arrived = arrived_groups(connection, &request.arrival, ids)?;
        let changed = changed_groups(connection, request.arrival.since, request.level, ids)?;
        Ok(Self { studies, instances, by_group: matches!(need, InstanceNeed::ByGroup), arrived, changed, away })
    }

    fn views(&self) -> Vec<StudyView<'_>> {
        let studies = self.studies.iter().zip(&self.instances).filter(|(groups, _)| !groups.is_empty());
        studies.map(|(groups, instances)| self.view(groups, instances)).collect()
    }

    fn view<'s>(&self, groups: &'s [GroupRow], instances: &'s [(usize, i16, StoredFile)]) -> StudyView<'s> {
        let of_groups = groups.iter().map(|group| GroupView {
            record: &group.record,
            count: to_u64(group.instances),
            access: self.away.of_group(group),
            has_arrived: self.arrived.as_ref().is_none_or(|arrived| arrived.contains(&group.id)),
            has_changed: self.changed.as_ref().is_none_or(|changed| changed.contains(&group.id)),
        });
        let by_group = (0..).zip(groups).map(|(group, own)| InstanceView {
            record: &own.record,
            group,
            access: ObjectAvailability::Online,
            location: None,
        });
        let views = match self.by_group {
            true => by_group.collect(),
            false => {
                instances.iter().map(|(at, flags, file)| self.instance_view((*at, groups), *flags, file)).collect()
            }
        };
        StudyView::new(of_groups.collect(), views)
    }

    fn instance_view<'s>(
        &self,
        (at, groups): (usize, &[GroupRow]),
        row_flags: i16,
        file: &'s StoredFile,
    ) -> InstanceView<'s> {
        let group = groups.get(at);
        let is_there =
            row_flags & flags::FIRST_IS_MISSING == 0 && group.is_some_and(|group| self.away.has_files_here(group));
        InstanceView {
            record: &file.record,
            group: at,
            access: group
                .map_or(ObjectAvailability::Unavailable, |group| self.away.of_instance(group, row_flags, file)),
            location: is_there.then_some(&file.location),
        }
    }
}

fn add_instances(
    connection: &mut ServerConnection,
    request: &FindRequest,
    studies: &[Vec<GroupRow>],
    instances: &mut [Vec<(usize, i16, StoredFile)>],
) -> Result<(), ServerFailure> {
    let mut groups: HashMap<i64, (usize, usize, &GroupRow)> = HashMap::new();
    // Instances of other series cannot match.
    let of_series: Vec<_> = request.matching_keys.iter().filter(|key| key.attribute == SeriesInstanceUID).collect();
    let may_match =
        |group: &GroupRow| of_series.iter().all(|key| key.matching.matches(group.record.value(SeriesInstanceUID)));
    for (study, of_study) in studies.iter().enumerate() {
        let asked = of_study.iter().enumerate().filter(|(_, group)| may_match(group));
        groups.extend(asked.map(|(at, group)| (group.id, (study, at, group))));
    }
    let ids: Vec<i64> = groups.keys().copied().collect();
    let rows = match instance_keys(request) {
        Some(keys) => connection.query(
            "SELECT shelf, flags, body FROM instance WHERE uid_key = ANY($2) AND shelf = ANY($1) \
             UNION SELECT shelf, flags, body FROM instance WHERE flags & 4 <> 0 AND shelf = ANY($1)",
            &[&ids, &keys],
        )?,
        None => connection.query("SELECT shelf, flags, body FROM instance WHERE shelf = ANY($1)", &[&ids])?,
    };
    for row in rows {
        let Some((study, at, group)) = groups.get(&row.try_get(0)?) else { continue };
        let file = group.file(InstanceBody::unpack(row.try_get(2)?, group.base())?)?;
        if let Some(of_study) = instances.get_mut(*study) {
            of_study.push((*at, row.try_get(1)?, file));
        }
    }
    Ok(())
}

/// The numbers of the patients of these studies, if the query is about them.
fn totals(
    connection: &mut ServerConnection,
    request: &FindRequest,
    views: &[StudyView<'_>],
) -> Result<PersonTotals, ServerFailure> {
    let counts = [NumberOfPatientRelatedStudies, NumberOfPatientRelatedSeries, NumberOfPatientRelatedInstances];
    let matched = request.matching_keys.iter().map(|key| key.attribute);
    if !matched.chain(request.return_keys.iter().map(|key| key.attribute)).any(|id| counts.contains(&id)) {
        return Ok(PersonTotals::default());
    }
    let mut persons: HashMap<RowKey, (String, String)> = HashMap::new();
    for ((id, identity, _), _) in views.iter().flat_map(StudyView::persons) {
        persons.insert(person_key(&id, &identity), (id, identity));
    }
    let keys: Vec<RowKey> = persons.keys().copied().collect();
    let sql = "SELECT p.person_key, p.issuer, s.series_count, s.instance_count, s.offline_count \
               FROM study_patient p JOIN study s ON s.id = p.study WHERE p.person_key = ANY($1)";
    let mut found = Vec::new();
    for row in connection.query(sql, &[&keys])? {
        let Some((id, identity)) = persons.get(&row.try_get(0)?) else { continue };
        let issuer = super::keys::from_column(row.try_get(1)?);
        let (series, instances) = (to_u64(row.try_get(2)?), to_u64(row.try_get(3)?));
        let access = ObjectAvailability::of(row.try_get::<_, i64>(4)? == 0);
        found.push(((id.clone(), identity.clone(), issuer), StudyTotals { series, instances, access }));
    }
    Ok(PersonTotals::of(&found))
}
