//! Contradictions that no single object has: between the patients, studies and series of a database
//! (docs/schema.md).

use std::collections::{BTreeMap, BTreeSet};

use super::body::InstanceBody;
use super::connection::ServerConnection;
use super::corrections::read_rules;
use super::error::ServerFailure;
use super::load;
use super::shelves::GroupRow;
use crate::db::contents::StoredFile;
use crate::db::rules::{
    Description, NameAndBirth, by_meant_issuer, key_of, patients_of_study, two_people_of, value_of,
};
use crate::db::view::description_of;
use crate::model::attribute::AttributeId::{PatientBirthDate, PatientName, SeriesInstanceUID, StudyInstanceUID};
use crate::model::person_name::normal_groups;

/// Studies whose instance groups are read at once.
const STUDIES_AT_ONCE: usize = 64;

/// The kinds of contradictions, in the order in which they are listed.
pub(super) const KINDS: [&str; 3] =
    ["series-under-two-studies", "study-under-two-patients", "patient-id-of-two-people"];

/// Series that several studies have.
const SERIES: &str = "SELECT s.id FROM shelf s WHERE s.series_key IN \
     (SELECT series_key FROM shelf GROUP BY 1 HAVING count(DISTINCT study) > 1)";

/// Studies whose objects name several patients.
const STUDIES: &str = "SELECT DISTINCT study FROM study_patient WHERE position > 0";

/// Studies of Patient IDs that have several names. Two people have different ones.
const OF_SEVERAL_NAMES: &str = "SELECT DISTINCT p.study FROM study_patient p JOIN (SELECT patient_id \
     FROM study_patient WHERE patient_id <> '' GROUP BY 1 HAVING count(DISTINCT name) > 1) t USING (patient_id)";

/// An instance group that contradicts others.
pub(super) struct ContradictingGroup {
    pub(super) kind: &'static str,
    /// Study of the first person, if one Patient ID is that of two people.
    pub(super) other_study: String,
    pub(super) group: GroupRow,
}

/// All contradictions between instance groups.
pub(super) fn between_groups(connection: &mut ServerConnection) -> Result<Vec<ContradictingGroup>, ServerFailure> {
    read_rules(connection)?;
    let mut found = series_of_two_studies(connection)?;
    found.extend(studies_of_two_patients(connection)?);
    found.extend(ids_of_two_people(connection)?);
    Ok(found)
}

/// An instance of an instance group, to name one.
pub(super) fn first_object(
    connection: &mut ServerConnection,
    group: &GroupRow,
) -> Result<Option<StoredFile>, ServerFailure> {
    let rows = connection.query("SELECT body FROM instance WHERE shelf = $1", &[&group.id])?;
    let bodies = rows.iter().map(|row| Ok(InstanceBody::unpack(row.try_get(0)?, group.base())?));
    let first =
        bodies.collect::<Result<Vec<_>, ServerFailure>>()?.into_iter().min_by(|one, other| one.uid.cmp(&other.uid));
    Ok(first.map(|body| group.file(body)).transpose()?)
}

fn of_kind(kind: &'static str, group: GroupRow) -> ContradictingGroup {
    ContradictingGroup { kind, other_study: String::new(), group }
}

fn ids_of(connection: &mut ServerConnection, sql: &str) -> Result<Vec<i64>, ServerFailure> {
    connection.query(sql, &[])?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The study that the objects of an instance group name.
fn study_of(group: &GroupRow) -> String {
    group.record.value(StudyInstanceUID).to_owned()
}

fn series_of_two_studies(connection: &mut ServerConnection) -> Result<Vec<ContradictingGroup>, ServerFailure> {
    let ids = ids_of(connection, SERIES)?;
    let mut series: BTreeMap<(String, String), GroupRow> = BTreeMap::new();
    for group in load::groups(connection, "s.id", &ids)? {
        let key = (group.record.value(SeriesInstanceUID).to_owned(), study_of(&group));
        let first = series.entry(key).or_insert_with(|| group.clone());
        if group.id < first.id {
            *first = group;
        }
    }
    let mut seen = BTreeSet::new();
    let further = series.into_iter().filter(|((uid, _), _)| !seen.insert(uid.clone()));
    Ok(further.map(|(_, group)| of_kind(KINDS[0], group)).collect())
}

/// A patient of a study, with the first instance group that names it.
struct ContradictingPatient {
    values: Description,
    group: GroupRow,
}

/// Calls `on_study` with the patients of each of these studies, as the rules have them.
fn each_study(
    connection: &mut ServerConnection,
    sql: &str,
    on_study: &mut dyn FnMut(String, Vec<ContradictingPatient>),
) -> Result<(), ServerFailure> {
    for some in ids_of(connection, sql)?.chunks(STUDIES_AT_ONCE) {
        let mut studies: BTreeMap<i64, Vec<GroupRow>> = BTreeMap::new();
        for mut group in load::groups(connection, "s.study", some)? {
            group.correct(&connection.corrections);
            studies.entry(group.study).or_default().push(group);
        }
        for mut of_study in studies.into_values() {
            of_study.sort_by_key(|group| group.id);
            let said: Vec<Description> = of_study.iter().map(|group| description_of(&group.record)).collect();
            let named = |members: &[usize]| members.iter().min().and_then(|first| of_study.get(*first)).cloned();
            let patients = patients_of_study(&said).into_iter().filter_map(|patient| {
                Some(ContradictingPatient { group: named(&patient.members)?, values: patient.values })
            });
            let patients: Vec<ContradictingPatient> = patients.collect();
            if let Some(first) = patients.first() {
                on_study(study_of(&first.group), patients);
            }
        }
    }
    Ok(())
}

fn studies_of_two_patients(connection: &mut ServerConnection) -> Result<Vec<ContradictingGroup>, ServerFailure> {
    let mut found = BTreeMap::new();
    each_study(connection, STUDIES, &mut |study, patients| {
        let further = patients.into_iter().skip(1).map(|patient| of_kind(KINDS[1], patient.group));
        found.insert(study, further.collect::<Vec<_>>());
    })?;
    Ok(found.into_values().flatten().collect())
}

/// Birth date, names and issuer of a patient.
type DescriptionKey = (String, [String; 3], String);

/// The first study that says so, and one of its instance groups.
type FirstGroup = (String, GroupRow);

/// Descriptions that studies have of the patients of one ID.
type DescriptionsOfPatients = BTreeMap<DescriptionKey, FirstGroup>;

fn ids_of_two_people(connection: &mut ServerConnection) -> Result<Vec<ContradictingGroup>, ServerFailure> {
    let mut said: BTreeMap<String, DescriptionsOfPatients> = BTreeMap::new();
    each_study(connection, OF_SEVERAL_NAMES, &mut |study, patients| {
        for ContradictingPatient { values, group } in patients {
            let (id, _, issuer) = key_of(&values);
            if id.is_empty() {
                continue;
            }
            let names = normal_groups(value_of(&values, PatientName));
            let birth_date = value_of(&values, PatientBirthDate).to_owned();
            let of_id = said.entry(id).or_default();
            let first = of_id.entry((birth_date, names, issuer)).or_insert_with(|| (study.clone(), group.clone()));
            if study < first.0 {
                *first = (study.clone(), group);
            }
        }
    })?;
    let by_issuer = said.values().flat_map(|of_id| by_meant_issuer(of_id, |((_, _, issuer), _)| issuer).into_values());
    Ok(by_issuer.filter_map(of_two_people).collect())
}

fn of_two_people(mut said: Vec<(&DescriptionKey, &FirstGroup)>) -> Option<ContradictingGroup> {
    // Those without an issuer are among the others, and of two that say the same the first study is
    // told.
    said.sort_by(|((one_birth, one_names, _), (one_study, _)), ((other_birth, other_names, _), (other_study, _))| {
        (one_birth, one_names, one_study).cmp(&(other_birth, other_names, other_study))
    });
    let [one, other] = two_people_of(&said, |((birth_date, names, _), _)| NameAndBirth {
        names: names.clone(),
        birth_date: birth_date.clone(),
    })?;
    let ((_, (first_study, _)), (_, (_, group))) = (one, other);
    Some(ContradictingGroup { kind: KINDS[2], other_study: first_study.clone(), group: group.clone() })
}
