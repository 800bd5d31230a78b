//! Problems of each study: see [`Admin::studies_with_problems`](crate::db::Admin).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::away::NodePlaces;
use super::body::InstanceBody;
use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::find;
use super::keys::{RowKey, from_column, to_u64};
use super::load;
use super::marks::{FileMarks, MARK_COLUMNS};
use super::question::QuestionState;
use super::shelves::GroupRow;
use crate::db::contents::{FileKey, StoredFile};
use crate::db::report::LISTED_AND_MISSING_OF;
use crate::db::rules::{
    Description, NameAndBirth, by_meant_issuer, identity_of, key_of, patients_of_study, two_people_of, value_of,
};
use crate::db::view::description_of;
use crate::db::{LISTED_AND_MISSING, NotIndexed, StudyProblem, StudyReport};
use crate::model::attribute::AttributeId::*;
use crate::model::find::FindRequest;
use crate::model::level::{InformationModel, QueryRetrieveLevel};
use crate::model::person_name::normal_groups;

/// Studies whose instances are read at once.
const STUDIES_AT_ONCE: usize = 64;

/// Problems that one statement counts: each gives a Study Instance UID and a number.
const COUNTED: [(StudyProblem, &str); 6] = [
    (
        StudyProblem::OtherContent,
        "SELECT s.study_instance_uid, count(*) FROM copy c JOIN instance i ON i.uid_key = c.uid_key \
         JOIN shelf h ON h.id = i.shelf JOIN study s ON s.id = h.study WHERE c.differs GROUP BY 1",
    ),
    (
        StudyProblem::OtherContent,
        "SELECT study_instance_uid, count(*) FROM conflict WHERE kind = 'instance-with-other-content' GROUP BY 1",
    ),
    (
        StudyProblem::Copies,
        "SELECT s.study_instance_uid, count(*) FROM copy c JOIN directory d ON d.id = c.directory \
         JOIN instance i ON i.uid_key = c.uid_key JOIN shelf h ON h.id = i.shelf JOIN study s ON s.id = h.study \
         WHERE NOT c.differs AND d.place <> 2 GROUP BY 1",
    ),
    (
        StudyProblem::SeveralPatients,
        "SELECT s.study_instance_uid, count(*) FROM study_patient p JOIN study s ON s.id = p.study \
         WHERE p.position > 0 GROUP BY 1",
    ),
    (
        StudyProblem::SeriesInTwoStudies,
        "SELECT s.study_instance_uid, count(DISTINCT h.series_key) FROM shelf h JOIN study s ON s.id = h.study \
         WHERE h.series_key IN (SELECT series_key FROM shelf GROUP BY 1 HAVING count(DISTINCT study) > 1) GROUP BY 1",
    ),
    (
        StudyProblem::InvalidUid,
        "SELECT study_instance_uid, count(*) FROM conflict WHERE kind = 'invalid-uid' GROUP BY 1",
    ),
];

/// By Study Instance UID.
#[derive(Default)]
struct FoundProblems(HashMap<String, BTreeMap<StudyProblem, u64>>);

impl FoundProblems {
    fn add(&mut self, study: &str, problem: StudyProblem, count: u64) {
        if count > 0 {
            *self.0.entry(study.to_owned()).or_default().entry(problem).or_default() += count;
        }
    }
}

/// Calls `on_study` for each study, the newest first, until it says to stop.
pub(super) fn studies(
    connection: &mut ServerConnection,
    (state, places): (&QuestionState, NodePlaces<'_>),
    on_study: &mut dyn FnMut(StudyReport) -> ControlFlow<()>,
) -> Result<(), ServerFailure> {
    let mut found = FoundProblems::default();
    for (problem, sql) in COUNTED {
        for row in connection.query(sql, &[])? {
            found.add(&from_column(row.try_get(0)?), problem, to_u64(row.try_get(1)?));
        }
    }
    add_of_series(connection, &mut found)?;
    add_of_files(connection, &mut found)?;
    let mut people = People::default();
    let _to_the_end = each_study(connection, (state, places), &mut |study, person| {
        people.add(&study, person);
        ControlFlow::Continue(())
    })?;
    add_further_people(connection, &mut people)?;
    let people = people.told();
    let lost = listed_and_missing(connection, &mut found)?;
    let ended = each_study(connection, (state, places), &mut |mut study, person| {
        study.problems = found.0.remove(&study.study_instance_uid).unwrap_or_default();
        people.add_to(&mut study, &person);
        study.add_of_values();
        on_study(study)
    })?;
    if ended.is_continue() {
        // Nobody has the other values of a study without any file.
        let _ended = lost.into_iter().try_for_each(on_study);
    }
    Ok(())
}

/// Values that a study has of its patient, besides those of a report.
struct SaidOfPerson {
    issuer: String,
    sex: String,
}

/// Calls `on_study` for each study, the newest first, without its problems.
fn each_study(
    connection: &mut ServerConnection,
    (state, places): (&QuestionState, NodePlaces<'_>),
    on_study: &mut dyn FnMut(StudyReport, SaidOfPerson) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, ServerFailure> {
    let returned = [
        StudyInstanceUID,
        PatientID,
        PatientName,
        PatientBirthDate,
        StudyDate,
        AccessionNumber,
        ModalitiesInStudy,
        StudyDescription,
        NumberOfStudyRelatedSeries,
        NumberOfStudyRelatedInstances,
        IssuerOfPatientID,
        PatientSex,
    ];
    let request = FindRequest::new(InformationModel::StudyRoot, QueryRetrieveLevel::Study).returning(&returned);
    let mut ended = ControlFlow::Continue(());
    find::run(connection, &request, (state, places), &mut |answer| {
        let mut values = answer.values.iter();
        let mut next = || values.next().unwrap_or_default().to_owned();
        let study = StudyReport {
            study_instance_uid: next(),
            patient_id: next(),
            patient_name: next(),
            patient_birth_date: next(),
            study_date: next(),
            accession_number: next(),
            modalities: next(),
            study_description: next(),
            series: next().parse().unwrap_or(0),
            instances: next().parse().unwrap_or(0),
            problems: BTreeMap::new(),
        };
        ended = on_study(study, SaidOfPerson { issuer: next(), sex: next() });
        ended
    })?;
    connection.run("CLOSE ALL")?;
    Ok(ended)
}

/// Finds series without a modality, and series with gaps between the numbers of their instances.
fn add_of_series(connection: &mut ServerConnection, found: &mut FoundProblems) -> Result<(), ServerFailure> {
    let rows = connection.query("SELECT id FROM study ORDER BY id", &[])?;
    let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
    for some in ids.chunks(STUDIES_AT_ONCE) {
        let groups: HashMap<i64, GroupRow> =
            load::groups(connection, "s.study", some)?.into_iter().map(|group| (group.id, group)).collect();
        let mut of_series: BTreeMap<(&str, &str), SeriesNumbers> = BTreeMap::new();
        for group in groups.values() {
            let series = of_series.entry(series_of(group)).or_default();
            series.has_modality |= !group.record.value(Modality).is_empty();
        }
        let of_groups: Vec<i64> = groups.keys().copied().collect();
        for row in connection.query("SELECT shelf, body FROM instance WHERE shelf = ANY($1)", &[&of_groups])? {
            let Some(group) = groups.get(&row.try_get(0)?) else { continue };
            let file = group.file(InstanceBody::unpack(row.try_get(1)?, group.base())?)?;
            of_series.entry(series_of(group)).or_default().add(file.record.value(InstanceNumber));
        }
        for ((study, _), series) in of_series {
            found.add(study, StudyProblem::NoModality, u64::from(!series.has_modality));
            found.add(study, StudyProblem::Gaps, series.gaps());
        }
    }
    Ok(())
}

/// The UIDs of the study and the series of a group.
fn series_of(group: &GroupRow) -> (&str, &str) {
    (group.record.value(StudyInstanceUID), group.record.value(SeriesInstanceUID))
}

/// Facts known of a series.
#[derive(Default)]
struct SeriesNumbers {
    has_modality: bool,
    numbers: BTreeSet<i64>,
    /// Number of instances that have a number.
    count: u64,
}

impl SeriesNumbers {
    fn add(&mut self, number: &str) {
        // `02` means 2 (PS3.5 6.2, IS).
        if let Ok(parsed) = number.parse::<i64>()
            && (parsed.to_string() == number || number.len() <= 12 && number.bytes().all(|byte| byte.is_ascii_digit()))
        {
            self.numbers.insert(parsed);
            self.count += 1;
        }
    }

    /// Numbers that it lacks between its first and its last. More gaps than instances are none: its
    /// numbers do not count up.
    fn gaps(&self) -> u64 {
        let (Some(first), Some(last)) = (self.numbers.first(), self.numbers.last()) else { return 0 };
        let lacking = last.abs_diff(*first).saturating_add(1) - self.numbers.len() as u64;
        if lacking <= self.count { lacking } else { 0 }
    }
}

/// Notes on the files of a directory or archive file.
type NotedNames = HashMap<OsString, Vec<StudyProblem>>;

/// Finds the studies of files of which something is noted.
fn add_of_files(connection: &mut ServerConnection, found: &mut FoundProblems) -> Result<(), ServerFailure> {
    for ((is_archive, directory), noted) in noted_files(connection)? {
        let mut files: Vec<StoredFile> = Vec::new();
        load::each_instance_in(connection, is_archive, &directory, &mut |file, _| files.push(file))?;
        files.extend(load::copies_in(connection, is_archive, &directory)?);
        for file in files {
            for problem in noted.get(&file.location.file_name).into_iter().flatten() {
                found.add(file.record.value(StudyInstanceUID), *problem, 1);
            }
        }
    }
    Ok(())
}

/// The files of which something is noted, by whether they are in an archive file, and by their
/// directory or archive file.
fn noted_files(connection: &mut ServerConnection) -> Result<BTreeMap<(bool, PathBuf), NotedNames>, ServerFailure> {
    let mut marks = FileMarks::default();
    let sql = format!("SELECT {MARK_COLUMNS} FROM file_mark WHERE mark IN ('fault', 'missing') OR kind = 'unlisted'");
    connection.query(&sql, &[])?.iter().try_for_each(|row| marks.add(row))?;
    let mut noted: BTreeMap<(bool, PathBuf), NotedNames> = BTreeMap::new();
    let mut note = |key: FileKey, problem| {
        let of_directory = noted.entry((key.is_archive, key.directory)).or_default();
        of_directory.entry(key.name).or_default().push(problem);
    };
    for (key, faults) in marks.faults {
        let is_truncated = faults.contains("truncated");
        note(key, if is_truncated { StudyProblem::Truncated } else { StudyProblem::Faults });
    }
    marks.missing.into_iter().for_each(|key| note(key, StudyProblem::Missing));
    for (key, file) in marks.unindexed {
        // The row has the path of the DICOMDIR, and that of the file in its folder.
        let path = key.directory.with_file_name(&key.name);
        if file.note.kind == NotIndexed::Unlisted
            && let (Some(directory), Some(name)) = (path.parent(), path.file_name())
        {
            let key = FileKey { is_archive: false, directory: directory.to_owned(), name: name.to_owned() };
            note(key, StudyProblem::NotInDicomdir);
        }
    }
    Ok(noted)
}

/// Adds the files that a DICOMDIR lists and that do not exist. Returns the studies of which the
/// index knows nothing else.
fn listed_and_missing(
    connection: &mut ServerConnection,
    found: &mut FoundProblems,
) -> Result<Vec<StudyReport>, ServerFailure> {
    let sql = "SELECT detail, count(*) FROM file_mark WHERE mark = 'unindexed' AND kind = 'failed' AND reason = $1 \
               GROUP BY detail ORDER BY detail COLLATE \"C\"";
    let mut counts: Vec<(String, u64)> = Vec::new();
    for row in connection.query(sql, &[&LISTED_AND_MISSING])? {
        let detail = from_column(row.try_get(0)?);
        if let Some(uid) = detail.strip_prefix(LISTED_AND_MISSING_OF) {
            counts.push((uid.to_owned(), to_u64(row.try_get(1)?)));
        }
    }
    let keys: Vec<RowKey> = counts.iter().map(|(uid, _)| RowKey::of_uid(uid)).collect();
    let rows = connection.query("SELECT uid_key FROM study WHERE uid_key = ANY($1)", &[&keys])?;
    let known = rows.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<RowKey>, _>>()?;
    let mut lost = Vec::new();
    for (study_instance_uid, count) in counts {
        let problem = StudyProblem::ListedAndMissing;
        if known.contains(&RowKey::of_uid(&study_instance_uid)) {
            found.add(&study_instance_uid, problem, count);
        } else {
            lost.push(StudyReport { study_instance_uid, problems: [(problem, count)].into(), ..Default::default() });
        }
    }
    Ok(lost)
}

/// Adds what studies of several patients say of each of them.
fn add_further_people(connection: &mut ServerConnection, people: &mut People) -> Result<(), ServerFailure> {
    let rows = connection.query("SELECT DISTINCT study FROM study_patient WHERE position > 0", &[])?;
    let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
    for some in ids.chunks(STUDIES_AT_ONCE) {
        let mut said: BTreeMap<i64, Vec<Description>> = BTreeMap::new();
        for mut group in load::groups(connection, "s.study", some)? {
            group.correct(&connection.corrections);
            said.entry(group.study).or_default().push(description_of(&group.record));
        }
        for patient in said.values().flat_map(|said| patients_of_study(said)) {
            let value = |id| value_of(&patient.values, id);
            let (id, identity, _) = key_of(&patient.values);
            let said = [IssuerOfPatientID, PatientName, PatientBirthDate, PatientSex].map(value);
            people.add_said((id, identity), said);
        }
    }
    Ok(())
}

/// Patient ID, and what replaces a missing one.
type IdOrIdentity = (String, String);

/// Descriptions of patients by studies: issuer, names in normal form, birth date and sex.
#[derive(Default)]
struct People(HashMap<IdOrIdentity, BTreeSet<SaidOfPatient>>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct SaidOfPatient {
    issuer: String,
    birth_date: String,
    names: [String; 3],
    sex: String,
}

/// The Patient ID of a study, and what replaces a missing one.
fn id_or_identity(study: &StudyReport) -> IdOrIdentity {
    let identity = identity_of(&study.patient_id, &study.patient_name, &study.patient_birth_date);
    (study.patient_id.clone(), identity)
}

impl People {
    fn add(&mut self, study: &StudyReport, said: SaidOfPerson) {
        let SaidOfPerson { issuer, sex } = said;
        self.add_said(id_or_identity(study), [&issuer, &study.patient_name, &study.patient_birth_date, &sex]);
    }

    /// Adds issuer, name, birth date and sex.
    fn add_said(&mut self, of: IdOrIdentity, [issuer, name, birth_date, sex]: [&str; 4]) {
        let (issuer, birth_date, sex) = (issuer.to_owned(), birth_date.to_owned(), sex.to_owned());
        let said = SaidOfPatient { issuer, birth_date, names: normal_groups(name), sex };
        self.0.entry(of).or_default().insert(said);
    }

    fn told(self) -> ToldPeople {
        let mut told = ToldPeople::default();
        for (of, said) in self.0 {
            let first = said.iter().map(|said| said.issuer.as_str()).find(|issuer| !issuer.is_empty());
            if let Some(first) = first {
                told.first_issuers.insert(of.clone(), first.to_owned());
            }
            for (issuer, mut said) in by_meant_issuer(said, |said| &said.issuer) {
                said.sort_by(|one, other| one.birth_date.cmp(&other.birth_date));
                let name_and_birth = |said: &SaidOfPatient| NameAndBirth {
                    names: said.names.clone(),
                    birth_date: said.birth_date.clone(),
                };
                if two_people_of(&said, name_and_birth).is_some() {
                    told.two.insert(of.clone());
                }
                let differs = |value: fn(&SaidOfPatient) -> &str| {
                    said.iter().map(value).filter(|value| !value.is_empty()).collect::<BTreeSet<_>>().len() > 1
                };
                if differs(|said| &said.names[0]) || differs(|said| &said.birth_date) || differs(|said| &said.sex) {
                    told.differently.insert((of.clone(), issuer));
                }
            }
        }
        told
    }
}

/// Problems of patients.
#[derive(Default)]
struct ToldPeople {
    /// Patient IDs of two people.
    two: HashSet<IdOrIdentity>,
    /// Patients that studies describe differently, by issuer.
    differently: HashSet<(IdOrIdentity, String)>,
    /// The issuer whose patient those without an issuer are.
    first_issuers: HashMap<IdOrIdentity, String>,
}

impl ToldPeople {
    fn add_to(&self, study: &mut StudyReport, said: &SaidOfPerson) {
        let of = id_or_identity(study);
        let issuer = match said.issuer.is_empty() {
            true => self.first_issuers.get(&of).cloned().unwrap_or_default(),
            false => said.issuer.clone(),
        };
        let is_of_two = self.two.contains(&of);
        let problems = [
            (StudyProblem::TwoPeople, is_of_two),
            (StudyProblem::PatientDescribedDifferently, self.differently.contains(&(of, issuer))),
        ];
        study.problems.extend(problems.into_iter().filter(|(_, is_so)| *is_so).map(|(problem, _)| (problem, 1)));
    }
}
