//! Problems of each study, from the whole index at one moment.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::packing::{UidSuffix, naming};
use super::sql_values::{PathValue, path_from_sql, place_number, text_of};
use crate::db::report::LISTED_AND_MISSING_OF;
use crate::db::{LISTED_AND_MISSING, StudyProblem, StudyReport};
use crate::model::location::Place;

/// Problems that one statement counts: each gives the row of a study and a number.
const COUNTED: &[(StudyProblem, &str)] = &[
    (
        StudyProblem::OtherContent,
        "SELECT e.study, count(*) FROM copy c JOIN instance_group h ON h.id = c.instance_group \
         JOIN study_series e ON e.id = h.series WHERE c.differs GROUP BY e.study",
    ),
    (
        StudyProblem::OtherContent,
        "SELECT s.id, count(*) FROM conflict c JOIN study s ON s.study_instance_uid = c.study_instance_uid \
         WHERE c.kind = 'instance-with-other-content' GROUP BY s.id",
    ),
    (
        StudyProblem::Copies,
        "SELECT e.study, count(*) FROM copy c JOIN directory d ON d.id = c.directory \
         JOIN instance_group h ON h.id = c.instance_group JOIN study_series e ON e.id = h.series \
         WHERE NOT c.differs AND d.place <> 2 GROUP BY e.study",
    ),
    (StudyProblem::SeveralPatients, "SELECT study, count(*) FROM study_patient GROUP BY study"),
    (
        StudyProblem::TwoPeople,
        "SELECT s.id, 1 FROM two_people t JOIN patient p ON p.patient_id = t.patient_id JOIN study s ON s.patient = p.id \
         GROUP BY s.id",
    ),
    (
        StudyProblem::PatientDescribedDifferently,
        "SELECT s.id, 1 FROM patient p JOIN study s ON s.patient = p.id WHERE p.person IN (SELECT person FROM patient \
         WHERE person IS NOT NULL GROUP BY person HAVING count(DISTINCT nullif(patient_name_norm, '')) > 1 \
         OR count(DISTINCT nullif(patient_birth_date, '')) > 1 OR count(DISTINCT nullif(patient_sex, '')) > 1)",
    ),
    (
        StudyProblem::SeriesInTwoStudies,
        "SELECT e.study, count(*) FROM study_series e WHERE e.series_instance_uid IN (SELECT series_instance_uid \
         FROM study_series GROUP BY series_instance_uid HAVING count(*) > 1) GROUP BY e.study",
    ),
    (
        StudyProblem::InvalidUid,
        "SELECT s.id, count(*) FROM conflict c JOIN study s ON s.study_instance_uid = c.study_instance_uid \
         WHERE c.kind = 'invalid-uid' GROUP BY s.id",
    ),
    (StudyProblem::NoModality, "SELECT study, count(*) FROM study_series WHERE modality = '' GROUP BY study"),
];

/// Numbers of instances that a series lacks between its first and its last. A series with
/// more gaps than instances is left out: its numbers do not count up. `02` is a text and means 2.
const GAPS: &str = "SELECT study, sum(lacking), count(*) FROM (SELECT e.study AS study, \
     max(CAST(i.instance_number AS INTEGER)) - min(CAST(i.instance_number AS INTEGER)) + 1 \
     - count(DISTINCT CAST(i.instance_number AS INTEGER)) AS lacking, count(*) AS n \
     FROM study_series e CROSS JOIN instance_group h ON h.series = e.id CROSS JOIN instance i ON i.instance_group = h.id \
     WHERE typeof(i.instance_number) = 'integer' OR length(i.instance_number) BETWEEN 1 AND 12 \
     AND i.instance_number NOT GLOB '*[^0-9]*' GROUP BY e.id) WHERE lacking > 0 AND lacking <= n GROUP BY study";

/// Files of which something is noted: directory, name, and what.
const NOTED_FILES: &str = "SELECT directory, file_name, CASE WHEN instr(faults, 'truncated') THEN 't' ELSE 'f' END FROM file_fault \
     UNION ALL SELECT directory, file_name, 'm' FROM missing_file ORDER BY 1";

/// Files that a DICOMDIR does not list: the path of the DICOMDIR, and that of the file in its
/// folder.
const UNLISTED: &str = "SELECT d.path, u.file_name FROM unindexed_file u JOIN directory d ON d.id = u.directory \
     WHERE u.kind = 'unlisted'";

/// Files that a DICOMDIR lists and that do not exist, by study. The study may have no row.
const LISTED_AND_MISSING_FILES: &str = "SELECT s.id, m.uid, m.count FROM (SELECT substr(detail, ?2 + 1) AS uid, \
     count(*) AS count FROM unindexed_file WHERE kind = 'failed' AND reason = ?1 AND length(detail) > ?2 GROUP BY 1) m \
     LEFT JOIN study s ON s.study_instance_uid = m.uid ORDER BY m.uid";

const STUDIES: &str = "SELECT s.id, s.study_instance_uid, p.patient_id, p.patient_name, p.patient_birth_date, s.study_date, \
     s.accession_number, s.modalities_in_study, s.study_description, s.series_count, s.instance_count \
     FROM study s JOIN patient p ON p.id = s.patient ORDER BY s.study_date DESC, s.study_time DESC, s.id";

type Problems = HashMap<i64, BTreeMap<StudyProblem, u64>>;

/// Calls `on_study` for each study, the newest first, until it says to stop.
pub(super) fn studies(connection: &Connection, on_study: &mut dyn FnMut(StudyReport) -> ControlFlow<()>) -> Result<()> {
    // One transaction has the studies of one moment.
    let transaction = connection.unchecked_transaction()?;
    let mut problems = Problems::new();
    for (problem, sql) in COUNTED {
        add_counted(&mut problems, connection, *problem, sql)?;
    }
    add_counted(&mut problems, connection, StudyProblem::Gaps, GAPS)?;
    add_noted_files(&mut problems, connection)?;
    add_unlisted(&mut problems, connection)?;
    let lost = add_listed_and_missing(&mut problems, connection)?;
    if each_study(connection, problems, on_study)?.is_continue() {
        // Nobody has the other values of a study without any file.
        let _ended = lost.into_iter().try_for_each(on_study);
    }
    transaction.finish()
}

/// Calls `on_study` for each study with a row.
fn each_study(
    connection: &Connection,
    mut problems: Problems,
    on_study: &mut dyn FnMut(StudyReport) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let mut statement = connection.prepare(STUDIES)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text = |at: usize| -> Result<String> { Ok(text_of(row.get_ref(at)?)?) };
        let number = |at: usize| -> Result<u64> { Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0)) };
        let mut study = StudyReport {
            study_instance_uid: text(1)?,
            patient_id: text(2)?,
            patient_name: text(3)?,
            patient_birth_date: text(4)?,
            study_date: text(5)?,
            accession_number: text(6)?,
            modalities: text(7)?,
            study_description: text(8)?,
            series: number(9)?,
            instances: number(10)?,
            problems: problems.remove(&row.get(0)?).unwrap_or_default(),
        };
        study.add_of_values();
        if on_study(study).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Adds the files that a DICOMDIR lists and that do not exist. Returns the studies of which the
/// index knows nothing else.
fn add_listed_and_missing(problems: &mut Problems, connection: &Connection) -> Result<Vec<StudyReport>> {
    let mut lost = Vec::new();
    let mut statement = connection.prepare(LISTED_AND_MISSING_FILES)?;
    let mut rows = statement.query(params![LISTED_AND_MISSING, LISTED_AND_MISSING_OF.len() as i64])?;
    while let Some(row) = rows.next()? {
        let count = u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
        let problem = (StudyProblem::ListedAndMissing, count);
        match row.get(0)? {
            Some(study) => problems.entry(study).or_default().extend([problem]),
            None => lost.push(StudyReport {
                study_instance_uid: row.get(1)?,
                problems: [problem].into(),
                ..StudyReport::default()
            }),
        }
    }
    Ok(lost)
}

fn add_counted(problems: &mut Problems, connection: &Connection, problem: StudyProblem, sql: &str) -> Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let count = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
        *problems.entry(row.get(0)?).or_default().entry(problem).or_default() += count;
    }
    Ok(())
}

/// Finds the studies of files that a DICOMDIR does not list.
fn add_unlisted(problems: &mut Problems, connection: &Connection) -> Result<()> {
    let mut of_directories: BTreeMap<PathBuf, HashMap<OsString, Vec<StudyProblem>>> = BTreeMap::new();
    let mut statement = connection.prepare(UNLISTED)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let dicomdir = PathBuf::from(path_from_sql(row.get_ref(0)?)?);
        let file = dicomdir.with_file_name(path_from_sql(row.get_ref(1)?)?);
        if let (Some(directory), Some(name)) = (file.parent(), file.file_name()) {
            let noted = of_directories.entry(directory.to_owned()).or_default();
            noted.insert(name.to_owned(), vec![StudyProblem::NotInDicomdir]);
        }
    }
    let mut known = connection.prepare("SELECT id FROM directory WHERE path = ?1 AND place = ?2")?;
    let place = place_number(Place::InPlace);
    for (directory, noted) in of_directories {
        let parameters = params![PathValue::from(directory.as_path()), place];
        let directory = known.query_row(parameters, |row| row.get(0)).optional()?;
        add_noted_of(problems, connection, directory, &noted)?;
    }
    Ok(())
}

/// Finds the studies of files with faults, and of missing files.
fn add_noted_files(problems: &mut Problems, connection: &Connection) -> Result<()> {
    let mut statement = connection.prepare(NOTED_FILES)?;
    let mut rows = statement.query([])?;
    let mut directory = None;
    let mut noted: HashMap<OsString, Vec<StudyProblem>> = HashMap::new();
    while let Some(row) = rows.next()? {
        let of = row.get::<_, i64>(0)?;
        if directory.is_some_and(|directory| directory != of) {
            add_noted_of(problems, connection, directory, &noted)?;
            noted.clear();
        }
        directory = Some(of);
        let problem = match row.get_ref(2)?.as_str()? {
            "t" => StudyProblem::Truncated,
            "m" => StudyProblem::Missing,
            _ => StudyProblem::Faults,
        };
        noted.entry(path_from_sql(row.get_ref(1)?)?).or_default().push(problem);
    }
    add_noted_of(problems, connection, directory, &noted)
}

fn add_noted_of(
    problems: &mut Problems,
    connection: &Connection,
    directory: Option<i64>,
    noted: &HashMap<OsString, Vec<StudyProblem>>,
) -> Result<()> {
    let Some(directory) = directory else { return Ok(()) };
    let mut seen: HashSet<OsString> = HashSet::new();
    let mut note = |study: i64, name: OsString| {
        for problem in noted.get(&name).into_iter().flatten() {
            *problems.entry(study).or_default().entry(*problem).or_default() += 1;
        }
        seen.insert(name);
    };
    let mut first = connection.prepare_cached(
        "SELECT e.study, i.file_name, i.uid_suffix, h.uid_prefix, h.file_prefix, h.file_suffix, h.file_digits \
         FROM instance_group h JOIN study_series e ON e.id = h.series JOIN instance i ON i.instance_group = h.id \
         WHERE h.directory = ?1",
    )?;
    let mut rows = first.query([directory])?;
    while let Some(row) = rows.next()? {
        let mut uid = String::new();
        UidSuffix::unpack(row.get_ref(2)?, row.get_ref(3)?.as_str()?, &mut uid)?;
        let name = naming(row, 4)?.unpack(row.get_ref(1)?, &uid)?;
        if noted.contains_key(&name) {
            note(row.get(0)?, name);
        }
    }
    let mut copies = connection.prepare_cached(
        "SELECT e.study, c.file_name FROM copy c JOIN instance_group h ON h.id = c.instance_group \
         JOIN study_series e ON e.id = h.series WHERE c.directory = ?1",
    )?;
    let mut rows = copies.query([directory])?;
    while let Some(row) = rows.next()? {
        let name = path_from_sql(row.get_ref(1)?)?;
        if noted.contains_key(&name) {
            note(row.get(0)?, name);
        }
    }
    Ok(())
}
