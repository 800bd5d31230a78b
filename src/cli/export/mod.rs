//! `dcmdex export` writes answers as typed tables: CSV, NDJSON or Parquet.

mod shape;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use self::shape::{PatientColumns, RowMaker, WantedColumns};
use super::keys::asked::{AskedColumn, FindKeys, KeyReader};
use super::keys::columns::{FoundRow, OwnColumn};
use super::keys::query::{LevelParser, query, refuse_what_was_not_read};
use super::keys::stream::each_batch;
use super::output::{Grouped, check_is_not_index};
use super::output_buffer::OutputBuffer;
use crate::cli::Exit;
use crate::cli::audited::{CommandAudit, STANDARD_OUTPUT};
use crate::cli::context::{Context, IndexArgs};
use crate::config::Config;
use crate::db::Admin;
use crate::db::open::Reader;
use crate::export;
use crate::export::csv_table::{CsvTable, Formulas};
use crate::export::destination::TableDestination;
use crate::export::ndjson::NdjsonTable;
use crate::export::partition::PartitionedTable;
use crate::export::pseudonym::{Pseudonyms, treatment};
use crate::export::table::{TableSchema, TableWriter};
use crate::model::attribute::{ATTRIBUTES, AttributeId, KeyType, ValueSource};
use crate::model::clock::Clock;
use crate::model::level::QueryRetrieveLevel;
use crate::qr;

#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct ExportArgs {
    /// One row for each PATIENT, STUDY, SERIES or IMAGE
    #[arg(long, value_parser = LevelParser, default_value = "STUDY", ignore_case = true)]
    level: QueryRetrieveLevel,
    /// Format [default: that of the name of --out, otherwise csv]
    #[arg(long, value_enum)]
    format: Option<TableFormat>,
    /// File to write, or directory with --partition-by [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Columns, with a comma between, instead of all attributes of the level
    #[arg(long, value_name = "KEY,...", value_delimiter = ',')]
    columns: Vec<String>,
    /// Columns whose values are lists, where the index does not know it (declared attributes)
    #[arg(long, value_name = "KEY,...", value_delimiter = ',')]
    list: Vec<String>,
    /// Only what came, changed or lost something after this change. Each export says the number for
    /// the next one. What is gone has no row
    #[arg(long, value_name = "CHANGE")]
    since: Option<u64>,
    /// One directory for each study-year, study-month, or value of a column such as Modality
    #[arg(long, value_name = "BY", requires = "out")]
    partition_by: Option<String>,
    /// Replace identities with the key in this file; the file is made if it is not there
    #[arg(long, value_name = "KEYFILE")]
    pseudonymise: Option<PathBuf>,
    /// Columns that stay as they are with --pseudonymise
    #[arg(long, value_name = "KEY,...", value_delimiter = ',', requires = "pseudonymise")]
    plain: Vec<String>,
    /// CSV: put an apostrophe before texts that a spreadsheet would run
    #[arg(long)]
    defuse_formulas: bool,
    #[command(flatten)]
    index: IndexArgs,
    /// Attributes to match: see `dcmdex find --help`. Those without a value are columns
    #[arg(value_name = "KEY[=VALUE]")]
    keys: Vec<String>,
}

const AFTER_HELP: &str = "\
Types:
  DA is a date, TM a time, DT a date with time, IS and US are integers, DS and FD are floating point
  numbers. Attributes with several values are lists, sequences are JSON, all else is text. A value
  that does not fit its type is null, and stands in the column _raw, which is a JSON object.

Examples:
  dcmdex export --level SERIES --out series.parquet
  dcmdex export --level IMAGE Modality=CT StudyDate=2024 --out ct.parquet --partition-by study-month
  dcmdex export --columns StudyDate,PatientID,StudyDescription --defuse-formulas > studies.csv
  dcmdex export --since 4711 --out new.ndjson
  dcmdex export --level SERIES --pseudonymise study.key --out research.parquet

A table gets its name when it is whole.
Exit codes: 0 written; 1 written, but nothing matched; 2 failed.";

/// Format of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TableFormat {
    /// Comma-separated values with a header line (RFC 4180)
    Csv,
    /// One JSON object per line
    Ndjson,
    /// Apache Parquet
    #[cfg(feature = "parquet")]
    Parquet,
}

impl TableFormat {
    const fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            #[cfg(feature = "parquet")]
            Self::Parquet => "parquet",
        }
    }

    /// The format that a file name ends with, and CSV if it ends with none.
    fn of_name(path: &Path) -> anyhow::Result<Self> {
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        let known = Self::value_variants().iter().copied().find(|format| format.extension() == extension);
        match (extension, known) {
            (_, Some(format)) => Ok(format),
            ("jsonl", None) => Ok(Self::Ndjson),
            // A directory may be called `ct.2024`.
            (other, None) if other.starts_with(|first: char| first.is_ascii_alphabetic()) => {
                bail!(
                    "{} ends like no format of a table; hint: --format csv writes CSV under this name",
                    path.display()
                )
            }
            (_, None) => Ok(Self::Csv),
        }
    }
}

/// The answers of a query and how they become a table.
struct ExportPlan {
    query: qr::Query,
    rows: RowMaker,
    schema: TableSchema,
    located_by: Option<usize>,
    partition: Option<String>,
    format: TableFormat,
    formulas: Formulas,
    last_change: u64,
}

pub(super) fn run(arguments: &ExportArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    if let Some(out) = &arguments.out {
        check_is_not_index(out, &config.index)?;
    }
    let mut reader = Reader::open(&config.index)?;
    // What changes while the export runs is exported by the next one, perhaps once more.
    let last_change = reader.last_change()?;
    let (plan, warning) = plan(arguments, &config, last_change)?;
    let to = arguments.out.as_deref().unwrap_or(Path::new(STANDARD_OUTPUT));
    let exported = Some((config.index.as_path(), &plan.query.request));
    CommandAudit::open(&config, "export")?.exported(&arguments.keys, to, exported)?;
    let outcome = match &arguments.out {
        Some(out) => write_files(reader, &plan, out)?,
        None => write_output(reader, &plan, context, &config)?,
    };
    let Some(outcome) = outcome else { return Ok(Exit::Done) };
    if let Some(warning) = warning {
        context.tell(&warning);
    }
    let files = if outcome.files > 1 { format!(" in {} files", Grouped(outcome.files)) } else { String::new() };
    context.tell(&format!(
        "{} rows{files}; the last change is {last_change}: --since {last_change} exports what comes after it",
        Grouped(outcome.rows)
    ));
    Ok(if outcome.rows == 0 { Exit::Partly } else { Exit::Done })
}

fn plan(arguments: &ExportArgs, config: &Config, last_change: u64) -> anyhow::Result<(ExportPlan, Option<String>)> {
    let format = match (arguments.format, &arguments.out) {
        (Some(format), _) => format,
        (None, Some(out)) => TableFormat::of_name(out)?,
        (None, None) => TableFormat::Csv,
    };
    let formulas = match (arguments.defuse_formulas, format) {
        (false, _) => Formulas::Keep,
        (true, TableFormat::Csv) => Formulas::Defuse,
        (true, _) => bail!("--defuse-formulas is for CSV: other formats do not run text"),
    };
    let reading = KeyReader { level: arguments.level, declared: &config.declared, now_ms: Clock::System.now_ms() };
    let asked = asked(arguments, &reading)?;
    let patient = arguments.pseudonymise.as_ref().map(|_| PatientColumns::read(&reading)).transpose()?;
    // A patient has no data set, so no time zone.
    let zone: Option<AskedColumn> = match arguments.level > QueryRetrieveLevel::Patient && patient.is_none() {
        true => Some(reading.column(AttributeId::TimezoneOffsetFromUTC.attribute().keyword)?),
        false => None,
    };
    let of_patient: Vec<AskedColumn> = patient.iter().flat_map(PatientColumns::iter).cloned().collect();
    let beside: Vec<AskedColumn> = of_patient.iter().chain(&zone).cloned().collect();
    let is_located = asked.shown.iter().any(AskedColumn::is_own);
    let mut keys = asked.query_keys(&beside);
    if is_located {
        keys.push("SOPInstanceUID");
    }
    let mut query = query(arguments.level, &keys, config)?;
    query.request.arrival = asked.arrival.clone();
    query.request.wants_location = is_located;
    let warning = refuse_what_was_not_read(&asked, &of_patient, config)?;
    let pseudonyms = arguments.pseudonymise.as_deref().map(Pseudonyms::open).transpose()?;
    let wanted = WantedColumns {
        level: arguments.level,
        shown: &asked.shown,
        lists: &arguments.list,
        plain: &arguments.plain,
        zone: zone.as_ref(),
        query: &query,
        declared: &config.declared,
    };
    let mut rows = RowMaker::new(&wanted, pseudonyms, patient.as_ref())?;
    let partition = arguments.partition_by.as_deref().map(|by| rows.partition_by(by)).transpose()?;
    let schema = rows.schema()?;
    let located_by = is_located
        .then(|| query.request.return_keys.iter().position(|key| key.attribute == AttributeId::SOPInstanceUID));
    let located_by = located_by.flatten();
    Ok((ExportPlan { query, rows, schema, located_by, partition, format, formulas, last_change }, warning))
}

/// Reads the keys, and adds all columns of the level if none are named.
fn asked(arguments: &ExportArgs, reading: &KeyReader<'_>) -> anyhow::Result<FindKeys> {
    let mut keys = arguments.keys.clone();
    if let Some(since) = arguments.since {
        keys.push(format!("since={since}"));
    }
    let mut asked = reading.keys(&keys)?;
    let names_columns = !arguments.columns.is_empty() || arguments.keys.iter().any(|key| !key.contains('='));
    if arguments.pseudonymise.is_some() || !arguments.columns.is_empty() || !names_columns {
        // A key with a value narrows the rows. Its column would tell the value.
        asked.hide_all();
    }
    for name in &arguments.columns {
        asked.show(reading.column(name.trim())?);
    }
    for key in arguments.keys.iter().filter(|key| !key.contains('=')) {
        asked.show(reading.column(key.trim())?);
    }
    if !names_columns {
        let pseudonymous = arguments.pseudonymise.is_some();
        for name in usual_columns(arguments.level, pseudonymous) {
            asked.show(reading.column(name)?);
        }
        for name in &arguments.plain {
            asked.show(reading.column(name.trim())?);
        }
    }
    Ok(asked)
}

/// All attributes of the level, and the unique and required keys above it.
fn usual_columns(level: QueryRetrieveLevel, pseudonymous: bool) -> Vec<&'static str> {
    let is_usual = |attribute: &&crate::model::attribute::Attribute| {
        let is_own = attribute.level == level
            && !matches!(attribute.source, ValueSource::AlwaysEmpty)
            && !matches!(
                attribute.id,
                // The first two describe the node. The text of a table is always UTF-8.
                AttributeId::InstanceAvailability | AttributeId::RetrieveAETitle | AttributeId::SpecificCharacterSet
            );
        let is_above = attribute.level < level && matches!(attribute.key, KeyType::Unique | KeyType::Required);
        (is_own || is_above) && (!pseudonymous || treatment(attribute.id).is_some())
    };
    let mut columns: Vec<_> = ATTRIBUTES.iter().filter(is_usual).map(|attribute| attribute.keyword).collect();
    if level == QueryRetrieveLevel::Image {
        let own: &[_] = if pseudonymous { &[OwnColumn::Size] } else { &OwnColumn::ALL };
        columns.extend(own.iter().map(|column| column.name()));
    }
    columns
}

/// Numbers of rows and files that were written.
struct Written {
    rows: u64,
    files: u64,
}

/// Writes into a file, or into a directory with a file for each partition.
fn write_files(reader: Reader, plan: &ExportPlan, out: &Path) -> anyhow::Result<Option<Written>> {
    let Some(partition) = &plan.partition else {
        let destination = TableDestination::file(out)?;
        let mut table = make_table(plan, destination)?;
        let rows = write_rows(reader, plan, |_, values| table.row(values))?;
        table.finish()?;
        return Ok(Some(Written { rows, files: 1 }));
    };
    let make = Box::new(|destination: TableDestination<'static>| make_table(plan, destination));
    let mut table = PartitionedTable::new(out, partition, plan.format.extension(), make)?;
    let rows = write_rows(reader, plan, |partition, values| table.row(partition, values))?;
    let files = table.finish()?;
    Ok(Some(Written { rows, files }))
}

/// Writes to standard output. `None` if its reader has gone.
fn write_output(
    reader: Reader,
    plan: &ExportPlan,
    context: &mut Context,
    config: &Config,
) -> anyhow::Result<Option<Written>> {
    let outlet = OutputBuffer::beside(&config.index, config.min_free_bytes);
    let (written, passed_on) = thread::scope(|scope| {
        let writing = scope.spawn(|| -> anyhow::Result<Option<Written>> {
            let write = || -> Result<u64, anyhow::Error> {
                let mut table = make_table(plan, TableDestination::output(Box::new(outlet.inlet())))?;
                let rows = write_rows(reader, plan, |_, values| table.row(values))?;
                table.finish()?;
                Ok(rows)
            };
            match write() {
                Ok(rows) => Ok(Some(Written { rows, files: 1 })),
                Err(error) if matches!(error.downcast_ref(), Some(export::Error::Gone)) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let passed_on = outlet.pass_on(&mut context.output);
        // A panic in the query continues here.
        (writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), passed_on)
    });
    passed_on.context("cannot write to standard output")?;
    written
}

fn make_table<'o>(
    plan: &ExportPlan,
    destination: TableDestination<'o>,
) -> Result<Box<dyn TableWriter + 'o>, export::Error> {
    let schema = plan.schema.clone();
    Ok(match plan.format {
        TableFormat::Csv => Box::new(CsvTable::new(schema, plan.formulas, destination)?),
        TableFormat::Ndjson => Box::new(NdjsonTable::new(schema, destination)),
        #[cfg(feature = "parquet")]
        TableFormat::Parquet => {
            let notes = [
                ("dcmdex.version", env!("CARGO_PKG_VERSION").to_owned()),
                ("dcmdex.last_change", plan.last_change.to_string()),
            ];
            Box::new(export::parquet_table::ParquetTable::new(&schema, &notes, destination)?)
        }
    })
}

/// Asks the index in one thread and writes in this one. Returns the number of rows.
fn write_rows(
    reader: Reader,
    plan: &ExportPlan,
    mut write: impl FnMut(&str, &[export::value::TableValue<'_>]) -> Result<(), export::Error>,
) -> anyhow::Result<u64> {
    each_batch(reader, &plan.query, plan.located_by, |batch| write_batch(plan, batch, &mut write))
}

fn write_batch(
    plan: &ExportPlan,
    batch: &[FoundRow],
    write: &mut impl FnMut(&str, &[export::value::TableValue<'_>]) -> Result<(), export::Error>,
) -> Result<(), export::Error> {
    let mut values = Vec::new();
    for row in batch {
        let partition = plan.rows.values(row, &mut values);
        write(&partition, &values)?;
    }
    Ok(())
}
