//! `dcmdex report` says of each study what is wrong with it: as a page to hand over, or as CSV.

mod page;
mod totals;

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use self::page::ReportPage;
use self::totals::ReportTotals;
use super::output::{Grouped, check_is_not_index};
use crate::cli::Exit;
use crate::cli::context::{Context, IndexArgs};
use crate::db::open::Reader;
use crate::db::{Admin, StudyProblem, StudyReport};
use crate::export::csv_table::{CsvTable, Formulas};
use crate::export::destination::TableDestination;
use crate::export::table::{TableColumn, TableSchema, TableWriter};
use crate::export::value::{ColumnType, TableValue, typed};

#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct ReportArgs {
    /// Write a page: one HTML file that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write CSV: one line for each study with problems
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Leave these problems out, with a comma between, such as no-accession-number
    #[arg(long, value_name = "PROBLEM,...", value_delimiter = ',')]
    without: Vec<String>,
    /// CSV: put an apostrophe before texts that a spreadsheet would run
    #[arg(long, requires = "csv")]
    defuse_formulas: bool,
    #[command(flatten)]
    index: IndexArgs,
}

const AFTER_HELP: &str = "\
Problems:
  other-content                  objects with other content under the same SOP Instance UID
  several-patients               objects of the study name more than one patient
  patient-id-of-two-people       one Patient ID, names and birth dates that cannot be of one person
  patient-described-differently  studies of one patient with other names, birth dates or sexes
  series-in-two-studies          one Series Instance UID in two studies
  invalid-uid                    a UID that breaks PS3.5 9.1
  no-patient-id  no-patient-name  no-study-date  no-accession-number  no-modality
  invalid-date                   a Study Date or birth date that is none
  truncated  faulty-file         files that end too early, or have another fault
  missing-file                   files that were gone when a scan looked
  dicomdir-file-missing          files that a DICOMDIR lists and that do not exist
  not-in-dicomdir                files that the DICOMDIR of their folder does not list
  instance-number-gap            numbers that a series lacks between its first and last instance
  copies                         further files with the same content

Without --html and --csv, the totals go to standard output.
Exit codes: 0 no study has a problem; 1 some have; 2 failed.";

pub(super) fn run(arguments: &ReportArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    let without = arguments.without.iter().map(|word| problem(word.trim())).collect::<anyhow::Result<Vec<_>>>()?;
    for path in arguments.html.iter().chain(&arguments.csv) {
        check_is_not_index(path, &config.index)?;
    }
    let mut reader = Reader::open(&config.index)?;
    let status = reader.status()?;
    let mut page = arguments.html.as_deref().map(ReportPage::begin).transpose()?;
    let mut csv = arguments.csv.as_deref().map(|path| csv_table(path, arguments.defuse_formulas)).transpose()?;
    let mut totals = ReportTotals::default();
    let mut written: anyhow::Result<()> = Ok(());
    reader.studies_with_problems(|mut study| {
        study.problems.retain(|problem, _| !without.contains(problem));
        totals.add(&study);
        if study.problems.is_empty() {
            return ControlFlow::Continue(());
        }
        written = (|| {
            if let Some(page) = &mut page {
                page.row(&study)?;
            }
            if let Some(csv) = &mut csv {
                csv.row(&csv_row(&study))?;
            }
            Ok(())
        })();
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written?;
    if let Some(page) = page {
        page.finish(&totals, &status).context("the page")?;
    }
    if let Some(csv) = csv {
        Box::new(csv).finish()?;
    }
    if arguments.html.is_none() && arguments.csv.is_none() {
        for (problem, (studies, count)) in &totals.by_problem {
            context.output.line(format_args!(
                "{:>9} studies  {:<30} {:>9}",
                Grouped(*studies),
                problem.as_str(),
                Grouped(*count)
            ))?;
        }
    }
    context.output.line(format_args!(
        "{} studies of {} need work",
        Grouped(totals.with_problems),
        Grouped(totals.studies)
    ))?;
    Ok(if totals.with_problems > 0 { Exit::Partly } else { Exit::Done })
}

fn problem(word: &str) -> anyhow::Result<StudyProblem> {
    let known = StudyProblem::ALL.into_iter().find(|problem| problem.as_str() == word);
    known.with_context(|| format!("`{word}` is no problem of a report; hint: `dcmdex report --help` lists them"))
}

/// Columns of the CSV file, with their types.
const COLUMNS: &[(&str, ColumnType, bool)] = &[
    ("study_instance_uid", ColumnType::Text, false),
    ("patient_id", ColumnType::Text, false),
    ("patient_name", ColumnType::Text, false),
    ("patient_birth_date", ColumnType::Date, false),
    ("study_date", ColumnType::Date, false),
    ("accession_number", ColumnType::Text, false),
    ("modalities_in_study", ColumnType::Text, true),
    ("study_description", ColumnType::Text, false),
    ("number_of_study_related_series", ColumnType::Integer, false),
    ("number_of_study_related_instances", ColumnType::Integer, false),
];

fn csv_table(path: &std::path::Path, defuse: bool) -> anyhow::Result<CsvTable<'static>> {
    let column = |name: &str, kind, is_list| TableColumn { name: name.to_owned(), kind, is_list };
    let columns = COLUMNS.iter().map(|(name, kind, is_list)| column(name, *kind, *is_list));
    let problems =
        StudyProblem::ALL.iter().map(|problem| column(&problem.as_str().replace('-', "_"), ColumnType::Integer, false));
    let schema = TableSchema::new(columns.chain(problems).collect(), false)?;
    let formulas = if defuse { Formulas::Defuse } else { Formulas::Keep };
    Ok(CsvTable::new(schema, formulas, TableDestination::file(path)?)?)
}

fn csv_row(study: &StudyReport) -> Vec<TableValue<'_>> {
    let (series, instances) = (study.series.to_string(), study.instances.to_string());
    let texts = [
        &study.study_instance_uid,
        &study.patient_id,
        &study.patient_name,
        &study.patient_birth_date,
        &study.study_date,
        &study.accession_number,
        &study.modalities,
        &study.study_description,
        &series,
        &instances,
    ];
    let mut row: Vec<TableValue<'_>> = COLUMNS
        .iter()
        .zip(texts)
        .map(|((_, kind, is_list), text)| typed(*kind, *is_list, text).0.into_owned())
        .collect();
    row.extend(StudyProblem::ALL.iter().map(|problem| match study.problems.get(problem) {
        Some(count) => TableValue::Integer(i64::try_from(*count).unwrap_or(i64::MAX)),
        None => TableValue::Null,
    }));
    row
}
