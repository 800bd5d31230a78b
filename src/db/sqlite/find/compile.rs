//! From a [`FindRequest`] to SQL.
//!
//! A matching key becomes two kinds of condition. SQLite can use an index for the first (see
//! [`Narrowing`]), and so finds the candidates. The second calls `Matching::matches` through the
//! function `dcm_matches`, and has the last word. So each rule of PS3.4 C.2.2.2 is written once, in
//! `model::matching`. Values of a query are always parameters, and never text of a statement.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use rusqlite::Connection;

use super::super::columns::{has_own_column, is_packed_time};
use super::super::mounts::Mounts;
use super::super::packing::uid_hash;
use super::super::separated;
use super::answers::{key_columns, order_columns};
use super::arrival_keys::arrival_conditions;
use super::availability::{Availability, Obstacles};
use super::fragments::{
    UNDER_THIS_PATIENT, character_set, declared_of_patient, declared_value, from_clause, instance_group_join,
    is_availability, is_instance_group_key, joined, most_complete_first, names_this_patient, order_clause,
};
use super::functions::{Matcher, Matchers};
use super::located::LOCATION_COLUMNS;
use super::lookup::{KeyLookup, instance_key, look_up};
use super::parameters::{Parameter, Parameters};
use super::records::{after_record, record_columns, record_tables};
use crate::db::Error;
use crate::db::plan::{
    LookUp, PartedKeys, PatientLink, PlanEffort, after_prefix, asks_for_patient, can_answer_declared,
    is_computed_everywhere, is_selective_below_study, names_few, names_uids,
};
use crate::model::attribute::{Attribute, AttributeId, ValueSource};
use crate::model::find::{DateTimeKey, DeclaredKey, FindRequest, MatchingKey, MomentCondition};
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};
use crate::model::matching::Narrowing;

/// Rows that a statement visits before a key on names is looked up in the index.
///
/// A name that one patient in ten has is likely to be among these. Its first answer then does not
/// wait for 100,000 row numbers, which take ten milliseconds. The sample costs half a millisecond.
const SAMPLE: u32 = 100;

/// A statement with its values.
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) parameters: Vec<Parameter>,
}

/// Collects parameters and matchers while the text of a statement grows.
struct Compiler<'a> {
    connection: &'a Connection,
    parameters: Parameters,
    matchers: Vec<Matcher>,
    /// Whether some study lies under more than one patient.
    shared_studies: bool,
    /// Reasons why objects may not be available.
    obstacles: Obstacles,
    effort: PlanEffort,
    /// Way to look up each key that leaves a choice.
    access: HashMap<AttributeId, KeyLookup>,
    /// Whether the statement goes from study to study. The row number of the patient is then known
    /// before its row is read.
    in_study_order: bool,
}

/// The statements of a query.
pub(super) struct Compiled {
    pub(super) first: Statement,
    /// Whether the first may end early. It is then compiled again with all [`PlanEffort`].
    pub(super) is_sample: bool,
    /// Answers under further patients, if there may be some.
    pub(super) further: Option<Statement>,
    /// Whether the rows have the columns of their order.
    pub(super) has_order: bool,
}

/// Makes the statements of a query, and notes their matchers.
pub(super) fn compile(
    connection: &Connection,
    matchers: &Matchers,
    mounts: &mut Mounts,
    request: &FindRequest,
    effort: PlanEffort,
) -> Result<Compiled, Error> {
    let shared_studies = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM study_patient)")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))?;
    let keys = request.matching_keys.iter().map(|key| key.attribute);
    let obstacles = match keys.chain(request.return_keys.iter().map(|key| key.attribute)).any(is_availability) {
        true => Obstacles::of(connection, mounts)?,
        false => Obstacles::default(),
    };
    let mut compiler = Compiler {
        connection,
        parameters: Parameters::default(),
        matchers: match effort {
            PlanEffort::Little => Vec::new(),
            // A statement with the numbers of these may be at work.
            PlanEffort::All => std::mem::take(&mut matchers.lock().unwrap_or_else(PoisonError::into_inner)),
        },
        shared_studies,
        obstacles,
        effort,
        access: HashMap::new(),
        in_study_order: false,
    };
    compiler.choose_access(request)?;
    let first = compiler.statement(request, PatientLink::FirstPatient)?;
    let further = match compiler.may_answer_under_further_patients(request) {
        true => Some(compiler.statement(request, PatientLink::FurtherPatient)?),
        false => None,
    };
    let is_sample = compiler.matchers.iter().any(|matcher| matches!(matcher, Matcher::Sample { .. }));
    *matchers.lock().unwrap_or_else(PoisonError::into_inner) = compiler.matchers;
    Ok(Compiled { has_order: further.is_some() || request.level == Patient, first, is_sample, further })
}

impl Compiler<'_> {
    /// Whether there may be answers under further patients of a study. A study is answered under a
    /// further patient if the first one does not match. Series and instances are answered under the
    /// patients that their objects name.
    fn may_answer_under_further_patients(&self, request: &FindRequest) -> bool {
        self.shared_studies
            && request.level != Patient
            // Each record has one answer.
            && request.record.is_none()
            && asks_for_patient(request, request.level != Study)
    }

    /// Decides for each key that an index could serve whether it is used. The key may match a large
    /// part of the archive.
    fn choose_access(&mut self, request: &FindRequest) -> rusqlite::Result<()> {
        let pinned = request.matching_keys.iter().any(names_few);
        for key in &request.matching_keys {
            if let Some(found) = LookUp::of(key, pinned) {
                let access = look_up(self.connection, self.effort, &found, &key.matching)?;
                self.access.insert(key.attribute, access);
            }
        }
        Ok(())
    }

    /// Whether a key is to be looked up in an index.
    fn uses_index(&self, key: &MatchingKey) -> bool {
        !matches!(self.access.get(&key.attribute), Some(KeyLookup::None | KeyLookup::Unknown))
    }

    /// Makes the statement for the answers under the first patients of studies, or under further
    /// ones.
    fn statement(&mut self, request: &FindRequest, under: PatientLink) -> Result<Statement, Error> {
        let keys = PartedKeys::of(request);
        let from_patient = self.leads_from_patient(&keys);
        self.in_study_order = request.level != Patient && under == PatientLink::FirstPatient && !from_patient;
        let columns = self.columns(request)?;
        // Few rows are found by their keys, and sorted. All others come in the order of records.
        let by_record = request.record.is_some() && !request.matching_keys.iter().any(names_few);
        let from = match record_tables(request).filter(|_| by_record) {
            Some(tables) => tables,
            None => from_clause(request, &keys, under, from_patient),
        };
        let conditions = self.conditions(request, &keys, under)?;
        let mut sql = format!("SELECT {} FROM {from}", columns.join(", "));
        if !conditions.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&conditions.join(" AND "));
        }
        match request.record {
            Some(_) => sql.push_str(&format!(" ORDER BY {}", record_columns(request.level).join(", "))),
            None => sql.push_str(order_clause(request.level)),
        }
        if under == PatientLink::FurtherPatient && request.level != Image {
            // The first of the further patients that match comes first.
            sql.push_str(", p.patient_id, p.identity, p.issuer_of_patient_id");
        }
        Ok(Statement { sql, parameters: self.parameters.take() })
    }

    /// Whether patients are found first, and then their studies. Otherwise studies come in the
    /// order of the answers.
    fn leads_from_patient(&self, keys: &PartedKeys<'_>) -> bool {
        keys.above.iter().any(|key| match key.attribute {
            AttributeId::PatientID => self.uses_index(key) && key.matching.narrowing() != Narrowing::None,
            AttributeId::PatientName => matches!(self.access.get(&key.attribute), Some(KeyLookup::Rows(_))),
            _ => false,
        })
    }

    /// The columns of an answer.
    fn columns(&mut self, request: &FindRequest) -> Result<Vec<String>, Error> {
        let level = request.level;
        let mut columns = vec![character_set(level).to_owned()];
        for key in &request.return_keys {
            columns.push(self.answer(key.attribute.attribute(), level)?);
        }
        for key in request.declared.iter().filter(|key| key.is_answered) {
            columns.push(self.declared_answer(key, level)?);
        }
        if level == Patient || self.may_answer_under_further_patients(request) {
            columns.extend(order_columns(level).iter().map(|&column| column.to_owned()));
        }
        if request.wants_key {
            columns.extend(key_columns(level).iter().map(|&column| column.to_owned()));
        }
        if request.wants_location && level == Image {
            columns.extend(LOCATION_COLUMNS.iter().map(|&column| column.to_owned()));
        }
        if request.record.is_some() {
            columns.extend(record_columns(level).iter().map(|&column| column.to_owned()));
        }
        Ok(columns)
    }

    /// The conditions on an answer.
    fn conditions(
        &mut self,
        request: &FindRequest,
        keys: &PartedKeys<'_>,
        under: PatientLink,
    ) -> Result<Vec<String>, Error> {
        let level = request.level;
        let mut conditions = Vec::new();
        let is_unknown = |access: &KeyLookup| matches!(access, KeyLookup::Unknown);
        if under == PatientLink::FirstPatient && self.access.values().any(is_unknown) {
            // It must be the first condition, so that it counts every row visited.
            let row = if level == Patient { "p.id" } else { "s.id" };
            let number = self.matcher(Matcher::Sample { left: SAMPLE, is_over: false });
            conditions.push(format!("dcm_sample({number}, {row})"));
        }
        for key in &keys.above {
            conditions.push(self.condition(key, level)?);
        }
        for key in &keys.moments_above {
            conditions.push(self.date_time_condition(key, level)?);
        }
        for key in &keys.declared_above {
            conditions.extend(self.declared_condition(key, level)?);
        }
        if keys.asks_below() {
            conditions.push(self.below(level, keys)?);
        }
        conditions.extend(arrival_conditions(self.connection, &mut self.parameters, &request.arrival, level)?);
        if let Some(after) = request.record.as_ref().and_then(|record| record.after.as_ref()) {
            conditions.push(after_record(&mut self.parameters, after));
        }
        if self.may_answer_under_further_patients(request) {
            conditions.extend(names_this_patient(level, under).map(str::to_owned));
        }
        Ok(conditions)
    }

    /// The condition of one key on the row of the level that is asked for, or on one of its
    /// ancestors.
    fn condition(&mut self, key: &MatchingKey, level: QueryRetrieveLevel) -> Result<String, Error> {
        let attribute = key.attribute.attribute();
        if attribute.id == AttributeId::SOPInstanceUID
            && let Narrowing::Equals(uids) = key.matching.narrowing()
        {
            return self.sop_instances(&uids);
        }
        let mut value = self.value(attribute, level)?;
        if !self.uses_index(key) {
            // The plus keeps SQLite from using the index.
            value.insert(0, '+');
        }
        let plain_column = attribute.is_stored() && (attribute.level != Image || is_instance_group_key(attribute.id));
        let separated = if plain_column && key.matching.looks_into_separated_values() {
            separated::rows(self.connection, attribute)?
        } else {
            None
        };
        let narrowed = match key.matching.narrowing() {
            Narrowing::Equals(values) if plain_column => {
                let equals = match values.as_slice() {
                    [one] => format!("{value} = {}", self.parameters.add(one.clone())),
                    many => format!("{value} IN {}", self.parameters.add_list(many.iter().cloned())),
                };
                if separated.is_none() {
                    return Ok(equals);
                }
                Some(equals)
            }
            Narrowing::Between(from, to) if plain_column => {
                Some(format!("{value} BETWEEN {} AND {}", self.parameters.add(from), self.parameters.add(to)))
            }
            Narrowing::Prefix(prefix) if plain_column => Some(self.prefix(&value, &prefix)),
            Narrowing::NamePrefix(_) | Narrowing::NamePart(_) | Narrowing::NameWord { .. } => {
                let row = if self.in_study_order { "s.patient" } else { "p.id" };
                self.patient_rows(attribute.id, row)
            }
            Narrowing::Equals(_) | Narrowing::Between(..) | Narrowing::Prefix(_) | Narrowing::None => None,
        };
        let narrowed = match separated {
            Some(rows) => narrowed.map(|narrowed| format!("({narrowed} OR {rows})")),
            None => narrowed,
        };
        let number = self.matcher(Matcher::One(key.matching.clone()));
        let last_word = format!("dcm_matches({number}, {value})");
        Ok(narrowed.map_or_else(|| last_word.clone(), |narrowed| format!("{narrowed} AND {last_word}")))
    }

    /// The condition of a declared attribute, if it has one.
    fn declared_condition(&mut self, key: &DeclaredKey, level: QueryRetrieveLevel) -> Result<Option<String>, Error> {
        let Some(matching) = key.matching.clone() else { return Ok(None) };
        if key.is_in_zone() {
            let zone = self.value(AttributeId::TimezoneOffsetFromUTC.attribute(), level)?;
            let number = self.matcher(Matcher::Moment(MomentCondition::InZone(matching)));
            return Ok(Some(format!("dcm_matches({number}, {}, {zone})", declared_value(&key.unit))));
        }
        let number = self.matcher(Matcher::One(matching));
        if level == Patient && key.unit.level == Patient {
            // What the objects of any one study say.
            return Ok(Some(format!(
                "EXISTS (SELECT 1 FROM study a WHERE {UNDER_THIS_PATIENT} AND dcm_matches({number}, {}))",
                declared_of_patient(&key.unit, "a")
            )));
        }
        Ok(Some(format!("dcm_matches({number}, {})", declared_value(&key.unit))))
    }

    /// The parameter that names a matcher.
    fn matcher(&mut self, matcher: Matcher) -> String {
        let number = i64::try_from(self.matchers.len()).unwrap_or(i64::MAX);
        self.matchers.push(matcher);
        self.parameters.add(number)
    }

    fn date_time_condition(&mut self, key: &DateTimeKey, level: QueryRetrieveLevel) -> Result<String, Error> {
        let date = self.value(key.date.attribute(), level)?;
        let time = self.value(key.time.attribute(), level)?;
        let number = self.matcher(Matcher::Moment(key.condition.clone()));
        Ok(format!("dcm_matches({number}, {date}, {time})"))
    }

    fn prefix(&mut self, column: &str, prefix: &str) -> String {
        let from = self.parameters.add(prefix.to_owned());
        match after_prefix(prefix) {
            Some(after) => format!("{column} >= {from} AND {column} < {}", self.parameters.add(after)),
            None => format!("{column} >= {from}"),
        }
    }

    /// The patients that were found for a key on their names. `patient` is SQL for the number of
    /// the row.
    fn patient_rows(&mut self, id: AttributeId, patient: &str) -> Option<String> {
        match self.access.get(&id)? {
            KeyLookup::Rows(rows) => Some(format!("{patient} IN {}", self.parameters.add_list(rows.iter().copied()))),
            KeyLookup::Among(rows) => {
                let rows = Matcher::Rows(Arc::clone(rows));
                Some(format!("dcm_has({}, {patient})", self.matcher(rows)))
            }
            KeyLookup::Index | KeyLookup::None | KeyLookup::Unknown => None,
        }
    }

    /// SOP Instance UIDs, by the rows that they lead to.
    fn sop_instances(&mut self, uids: &[String]) -> Result<String, Error> {
        let mut keys = Vec::new();
        for uid in uids {
            keys.extend(instance_key(self.connection, uid, uid_hash(uid))?);
        }
        if let [key] = keys.as_slice() {
            return Ok(format!(
                "i.instance_group = {} AND i.uid_suffix = {}",
                self.parameters.add(key.instance_group),
                self.parameters.add(key.suffix.to_value())
            ));
        }
        Ok(format!("(i.instance_group, i.uid_suffix) IN {}", self.parameters.add_keys(keys)))
    }

    /// Keys below the level that is asked for: some one descendant fulfils all of them.
    fn below(&mut self, level: QueryRetrieveLevel, keys: &PartedKeys<'_>) -> Result<String, Error> {
        let PartedKeys { below: keys, moments_below: moments, declared_below: declared, .. } = keys;
        let asked = keys.iter().map(|key| key.attribute).chain(moments.iter().map(|key| key.date));
        let declared_levels = declared.iter().filter(|key| key.matching.is_some()).map(|key| key.unit.level);
        let deepest = asked.map(|id| id.attribute().level).chain(declared_levels.clone()).max().unwrap_or(level);
        let mut levels = keys.iter().map(|key| key.attribute.attribute().level).chain(declared_levels);
        let needs_study = level == Patient && levels.any(|level| level == Study);
        let mut conditions = Vec::new();
        let mut selective = false;
        for key in keys {
            selective |=
                is_selective_below_study(key) || (key.attribute == AttributeId::StudyInstanceUID && names_uids(key));
            conditions.push(self.condition(key, deepest)?);
        }
        for key in moments {
            conditions.push(self.date_time_condition(key, deepest)?);
        }
        for key in declared {
            conditions.extend(self.declared_condition(key, deepest)?);
        }
        let (parent, from) = match (level, deepest) {
            (Patient, Study) => ("s.patient", "study s".to_owned()),
            (Patient, _) => {
                ("s.patient", format!("study s JOIN study_series e ON e.study = s.id{}", instance_group_join(deepest)))
            }
            (Study, _) => ("e.study", format!("study_series e{}", instance_group_join(deepest))),
            (Series | Image, _) => {
                ("h.series", "instance_group h JOIN instance i ON i.instance_group = h.id".to_owned())
            }
        };
        debug_assert!(!needs_study || from.contains("study s"), "the study is joined where it is asked for");
        let own = match level {
            Patient => "p.id",
            Study => "s.id",
            Series | Image => "e.id",
        };
        let conditions = conditions.join(" AND ");
        if level == Patient && self.shared_studies {
            // What names another patient is no descendant of this one.
            let [first, further] = [PatientLink::FirstPatient, PatientLink::FurtherPatient]
                .map(|under| names_this_patient(deepest, under).unwrap_or("1"));
            return Ok(format!(
                "EXISTS (SELECT 1 FROM {from} WHERE (s.patient = p.id AND {first} OR {further} AND s.id IN \
                 (SELECT study FROM study_patient WHERE patient = p.id)) AND {conditions})"
            ));
        }
        Ok(if selective {
            // Few rows below: find them first, then their ancestors.
            format!("{own} IN (SELECT {parent} FROM {from} WHERE {conditions})")
        } else {
            format!("EXISTS (SELECT 1 FROM {from} WHERE {parent} = {own} AND {conditions})")
        })
    }

    /// SQL for the value of an attribute at its own level or below it.
    fn value(&mut self, attribute: &Attribute, level: QueryRetrieveLevel) -> Result<String, Error> {
        let column = attribute.column;
        let sql = match (attribute.id, attribute.source) {
            (_, ValueSource::AlwaysEmpty) | (AttributeId::RetrieveAETitle, _) => "''".to_owned(),
            (AttributeId::InstanceAvailability, _) => {
                let Self { obstacles, shared_studies, parameters, .. } = self;
                Availability { obstacles, shared_studies: *shared_studies, parameters }.of(level)
            }
            (AttributeId::SOPInstanceUID, _) => "dcm_uid(i.uid_suffix, h.uid_prefix)".to_owned(),
            (AttributeId::InstanceNumber, _) => "CAST(i.instance_number AS TEXT)".to_owned(),
            (AttributeId::NumberOfPatientRelatedStudies, _) => self.of_person("count(*)"),
            (AttributeId::NumberOfPatientRelatedSeries, _) => self.of_person("ifnull(sum(c.series_count), 0)"),
            (AttributeId::NumberOfPatientRelatedInstances, _) => self.of_person("ifnull(sum(c.instance_count), 0)"),
            (AttributeId::ModalitiesInStudy, _) => "s.modalities_in_study".to_owned(),
            (AttributeId::AnatomicRegionsInStudyCodeSequence, _) => {
                "s.anatomic_regions_in_study_code_sequence".to_owned()
            }
            (AttributeId::SOPClassesInStudy, _) => "s.sop_classes_in_study".to_owned(),
            (AttributeId::NumberOfStudyRelatedSeries, _) => "s.series_count".to_owned(),
            (AttributeId::NumberOfStudyRelatedInstances, _) => "s.instance_count".to_owned(),
            (AttributeId::NumberOfSeriesRelatedInstances, _) => "e.instance_count".to_owned(),
            (id, ValueSource::Computed) => return Err(Error::Unsupported(format!("{id} is not computed"))),
            (_, ValueSource::DataSet | ValueSource::TransferSyntax) => match attribute.level {
                Patient => format!("p.{column}"),
                Study => format!("s.{column}"),
                Series => format!("e.{column}"),
                Image if is_instance_group_key(attribute.id) => format!("h.{column}"),
                Image if is_packed_time(attribute.id) => {
                    format!("dcm_time(i.{column}, h.{column}, i.acquisition_time)")
                }
                Image if has_own_column(attribute.id) => format!("CAST(ifnull(i.{column}, h.{column}) AS TEXT)"),
                Image => format!(
                    "CASE WHEN i.diff IS NULL THEN h.\"{column}\" ELSE ifnull(i.diff ->> '$.{column}', h.\"{column}\") END"
                ),
            },
        };
        Ok(sql)
    }

    /// A sum over the studies `c` of all descriptions of a patient. No study is under two of them.
    fn of_person(&self, sum: &str) -> String {
        let mut one = format!("(SELECT {sum} FROM study c WHERE c.patient = p.id)");
        let mut several =
            format!("(SELECT {sum} FROM patient q JOIN study c ON c.patient = q.id WHERE q.person = p.person)");
        if self.shared_studies {
            one = format!(
                "({one} + (SELECT {sum} FROM study_patient x JOIN study c ON c.id = x.study WHERE x.patient = p.id))"
            );
            several = format!(
                "({several} + (SELECT {sum} FROM patient q JOIN study_patient x ON x.patient = q.id \
                 JOIN study c ON c.id = x.study WHERE q.person = p.person))"
            );
        }
        format!("(CASE WHEN p.person IS NULL THEN {one} ELSE {several} END)")
    }

    /// SQL for a declared attribute in an answer at a level.
    fn declared_answer(&mut self, key: &DeclaredKey, level: QueryRetrieveLevel) -> Result<String, Error> {
        let unit = &key.unit;
        if level == Patient && unit.level == Patient {
            // A patient gets the most complete value of its matching studies.
            let matches = match &key.matching {
                Some(matching) => format!("AND dcm_matches({}, w)", self.matcher(Matcher::One(matching.clone()))),
                None => String::new(),
            };
            return Ok(format!(
                "ifnull((SELECT w FROM (SELECT {} AS w FROM study a WHERE {UNDER_THIS_PATIENT}) WHERE w <> '' {matches} \
                 ORDER BY {} LIMIT 1), '')",
                declared_of_patient(unit, "a"),
                most_complete_first(unit.vr, "w")
            ));
        }
        if unit.level <= level {
            return Ok(declared_value(unit));
        }
        if !can_answer_declared(unit, level) {
            return Err(Error::Unsupported(format!("{} is not answered at the {level} level", unit.root)));
        }
        // A study answers for its series.
        let values = format!(
            "SELECT DISTINCT {} AS v FROM study_series e WHERE e.study = s.id AND v <> '' ORDER BY v",
            declared_value(unit)
        );
        Ok(joined(unit.vr, &values))
    }

    /// SQL for an attribute in an answer at a level.
    fn answer(&mut self, attribute: &Attribute, level: QueryRetrieveLevel) -> Result<String, Error> {
        if attribute.level <= level || is_computed_everywhere(attribute.id) {
            return self.value(attribute, level);
        }
        let column = attribute.column;
        // A series attribute of a study: the values that its series have.
        match (level, attribute.level, attribute.source) {
            (Study, Series, ValueSource::DataSet) => Ok(joined(
                attribute.vr,
                &format!(
                    "SELECT DISTINCT {column} AS v FROM study_series WHERE study = s.id AND {column} <> '' \
                     ORDER BY {column}"
                ),
            )),
            (Patient | Study | Series | Image, ..) => {
                Err(Error::Unsupported(format!("{} is not answered at the {level} level", attribute.keyword)))
            }
        }
    }
}
