//! `dcmdex find` runs a query from the terminal, with the same code that answers C-FIND.

mod answers;

use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, bail};
use clap::Args;

use self::answers::{AnswerWriter, OutputFormat, SortKey, Terminal};
use super::keys::asked::{AskedColumn, FindKeys, KeyReader};
use super::keys::columns;
use super::keys::columns::{Column, FoundRow, of_table};
use super::keys::lists::ListTracker;
use super::keys::query::{LevelParser, at_hand, locate, nothing_matched, query, refuse_what_was_not_read};
use super::output::{Audience, Output, check_is_not, check_is_not_index, terminal_width};
use super::output_buffer::OutputBuffer;
use crate::cli::Exit;
use crate::cli::context::{Context, IndexArgs};
use crate::config::Config;
use crate::db::Search;
use crate::db::open::Reader;
use crate::model::attribute::AttributeId;
use crate::model::clock::Clock;
use crate::model::find::FindRequest;
use crate::model::level::QueryRetrieveLevel;
use crate::qr::{self, JsonWriter};

#[derive(Debug, Args)]
#[command(after_long_help = KEYS_AND_EXAMPLES)]
pub(super) struct FindArgs {
    /// Query level: PATIENT, STUDY, SERIES or IMAGE
    #[arg(long, value_parser = LevelParser, default_value = "STUDY", ignore_case = true)]
    level: QueryRetrieveLevel,
    /// Columns to show, with a comma between, instead of those of the keys
    #[arg(long, value_name = "KEY,...", value_delimiter = ',')]
    columns: Vec<String>,
    /// Order of the answers: KEY, or KEY:desc for the largest first. Several with a comma between
    #[arg(long, value_name = "KEY[:desc],...", value_delimiter = ',', allow_hyphen_values = true)]
    sort: Vec<String>,
    /// Show at most this many answers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Output format
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    format: OutputFormat,
    /// Write only the number of answers
    #[arg(long, conflicts_with_all = ["columns", "sort", "limit", "format"])]
    count: bool,
    /// Write the paths of the files of instances, each with a NUL after it, for `xargs -0`
    #[arg(long, conflicts_with_all = ["level", "columns", "format", "count"])]
    paths0: bool,
    /// Write the values of a list (KEY=@FILE) that nothing matched into this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["limit", "paths0"])]
    missing: Option<PathBuf>,
    #[command(flatten)]
    index: IndexArgs,
    /// Attributes to match and show: PatientName='SMITH*', StudyDate=2024-01..2024-06. Without a
    /// value, an attribute is only shown. `dcmdex find --help` explains the keys
    #[arg(value_name = "KEY[=VALUE]")]
    keys: Vec<String>,
}

const KEYS_AND_EXAMPLES: &str = "\
Keys:
  KEY is a keyword of DICOM (StudyDate), a tag (00080020 or 0008,0020), the name of a declared
  attribute, or a path into a sequence (ProcedureCodeSequence.CodeValue).
  KEY          shows the attribute
  KEY=VALUE    matches it, and shows it. If all keys have values, the usual columns follow
  path  size  mtime
               of the file of an instance (--level IMAGE); they are only shown

Values:
  PatientName='SMITH*'            * is any text, ? one character; names ignore case and accents
  'ModalitiesInStudy=CT\\MR'       any of several values
  'AccessionNumber=\"\"'            no value at all
  StudyDate=2024-01-31            also 20240131, 2024-01, 2024, today, yesterday, today-7d
  StudyDate=2024-01..2024-06      a range; an end may be missing: 2024.. or ..2024-06
  StudyDate=7d                    the last seven days; also 2w, 3m, 1y
  StudyTime=08:00..12:30          a range of times
  AccessionNumber=@list.csv       any value of a file: one in each line, or the column of that name.
                                  @list.csv:COLUMN names the column; @@x is the value @x
  received=today                  when it came into the index (UTC): also 24h, 7d, 2026-11-01,
                                  2026-11-01T08:00..2026-11-01T12:00. Days are exact,
                                  times within a day to an hour
  sender='CT*'                    the calling AE title that sent it
  since=4711                      what has changed, or lost something, after this change
                                  (`dcmdex status`)

Examples:
  dcmdex find PatientName='SMITH*' StudyDate=2024
  dcmdex find --level SERIES Modality=MR 'SeriesDescription=*t1*'
  dcmdex find Modality=CT --columns StudyDate,StudyDescription
  dcmdex find --level IMAGE PatientID=4711 path
  dcmdex find --sort NumberOfStudyRelatedInstances:desc --limit 10
  dcmdex find --format csv received=24h > last-day.csv
  dcmdex find AccessionNumber=@list.csv --missing missing.csv --format csv > there.csv
  dcmdex find Modality=CT --paths0 | xargs -0 -n 100 cp -t /data/ct --

On a terminal, a table is cut to its width. Through a pipe, all values are whole.
Exit codes: 0 something matched; 1 nothing matched; 2 failed.";

/// A query with the columns of its output.
struct FindPlan {
    query: qr::Query,
    columns: Vec<Column>,
    order: Vec<SortKey>,
    /// Position of SOP Instance UID in an answer, where a column says where the object lies.
    located_by: Option<usize>,
    limit: Option<u64>,
    format: OutputFormat,
    /// Notes which values of a list have matched.
    tracker: Option<ListTracker>,
}

pub(super) fn run(arguments: &FindArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    let reading = KeyReader { level: arguments.level(), declared: &config.declared, now_ms: Clock::System.now_ms() };
    let asked = asked(arguments, &reading)?;
    let mut plan = plan(arguments, &asked, &reading, &config)?;
    if let Some(missing) = &arguments.missing {
        check_is_not_index(missing, &config.index)?;
        asked.lists.iter().try_for_each(|list| check_is_not(missing, &list.path, "the list"))?;
    }
    let reader = Reader::open(&config.index)?;
    let sorted = arguments.sort_columns(&reading)?;
    let sorted: Vec<AskedColumn> = sorted.into_iter().map(|(wanted, _)| wanted).collect();
    let warning = refuse_what_was_not_read(&asked, &sorted, &config)?;
    let outlet = OutputBuffer::beside(&config.index, config.min_free_bytes);
    let terminal = terminal(context);
    let (asked_index, written) = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut output = Output::new(outlet.inlet());
            let found = answer_all(reader, &mut plan, terminal, &mut output);
            output.flush().context(CANNOT_BE_WRITTEN).and(found)
        });
        let written = outlet.pass_on(&mut context.output);
        // A panic in the query continues here.
        (asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), written)
    });
    written.context(CANNOT_BE_WRITTEN)?;
    let (found, without_path) = asked_index?;
    if without_path > 0 {
        context.tell(&format!(
            "{without_path} instances have no file of their own: they are members of archive files, or were not kept"
        ));
    }
    if let (Some(tracker), Some(path)) = (&plan.tracker, &arguments.missing) {
        let missing = tracker.write_missing(path)?;
        context.tell(&missing);
    }
    if let Some(warning) = warning {
        context.tell(&warning);
    }
    Ok(match found {
        FoundAny::Nothing => {
            context.tell(&nothing_matched(&asked, Reader::open(&config.index)?)?);
            Exit::Partly
        }
        FoundAny::Some => Exit::Done,
        FoundAny::More => {
            let limit = plan.limit.unwrap_or_default();
            context.tell(&format!("there are more than {limit}; a larger --limit shows them"));
            Exit::Done
        }
    })
}

/// Reads what the command line asks for, and adds the usual columns where it names none.
fn asked(arguments: &FindArgs, reading: &KeyReader<'_>) -> anyhow::Result<FindKeys> {
    let mut asked = reading.keys(&arguments.keys)?;
    if arguments.count || arguments.paths0 {
        asked.hide_all();
        if arguments.paths0 {
            asked.show(reading.column("path")?);
        }
        return Ok(asked);
    }
    if !arguments.columns.is_empty() {
        asked.hide_all();
        for name in &arguments.columns {
            asked.show(reading.column(name.trim())?);
        }
        return Ok(asked);
    }
    if !arguments.keys.iter().all(|key| key.contains('=')) {
        return Ok(asked);
    }
    if arguments.format() == OutputFormat::Table {
        let (always, with_room) = of_table(arguments.level());
        for name in always {
            asked.show(reading.column(name)?);
        }
        for name in with_room {
            asked.show(reading.column(name)?.that_yields());
        }
    } else {
        for attribute in qr::keys::default_return_keys(arguments.level()) {
            asked.show(reading.column(attribute.keyword)?);
        }
    }
    Ok(asked)
}

impl FindArgs {
    fn level(&self) -> QueryRetrieveLevel {
        if self.paths0 { QueryRetrieveLevel::Image } else { self.level }
    }

    fn format(&self) -> OutputFormat {
        match (self.count, self.paths0) {
            (true, _) => OutputFormat::Count,
            (_, true) => OutputFormat::Paths0,
            (false, false) => self.format,
        }
    }

    /// The columns to sort by, and whether the largest value comes first.
    fn sort_columns(&self, reading: &KeyReader<'_>) -> anyhow::Result<Vec<(AskedColumn, bool)>> {
        let read = |key: &String| {
            if let Some(name) = key.strip_prefix('-') {
                bail!("`--sort {key}`: hint: `--sort {name}:desc` has the largest first");
            }
            let (name, descending) = match key.split_once(':') {
                None => (key.as_str(), false),
                Some((name, "asc")) => (name, false),
                Some((name, "desc")) => (name, true),
                Some(_) => bail!("`--sort {key}`: write KEY, KEY:asc or KEY:desc"),
            };
            Ok((reading.column(name.trim())?, descending))
        };
        self.sort.iter().map(read).collect()
    }
}

fn plan(arguments: &FindArgs, asked: &FindKeys, reading: &KeyReader<'_>, config: &Config) -> anyhow::Result<FindPlan> {
    let sort = arguments.sort_columns(reading)?;
    let sorted: Vec<AskedColumn> = sort.iter().map(|(wanted, _)| wanted.clone()).collect();
    let listed = listed_column(arguments, asked, reading)?;
    let more: Vec<AskedColumn> = sorted.iter().chain(listed.as_ref()).cloned().collect();
    let mut keys = asked.query_keys(&more);
    let is_located = asked.shown.iter().chain(&sorted).any(AskedColumn::is_own);
    if is_located {
        if arguments.format() == OutputFormat::DicomJson
            && arguments.columns.iter().chain(&arguments.keys).any(|key| columns::OwnColumn::by_name(key).is_some())
        {
            bail!("path, size and mtime are no attributes of DICOM; hint: --format json or csv");
        }
        keys.push("SOPInstanceUID");
    }
    let mut query = query(arguments.level(), &keys, config)?;
    query.request.arrival = asked.arrival.clone();
    query.request.wants_location = is_located;
    // One more shows whether there are more. A sorted answer needs all of them.
    query.request.limit = if sort.is_empty() { arguments.limit.map(|limit| limit.saturating_add(1)) } else { None };
    let find =
        |wanted: &AskedColumn| wanted.column(&query, &config.declared).context("a column has no value in the answers");
    let columns = asked.shown.iter().map(find).collect::<anyhow::Result<Vec<_>>>()?;
    let order = sort.iter().map(|(wanted, descending)| Ok(SortKey { column: find(wanted)?, descending: *descending }));
    let order = order.collect::<anyhow::Result<Vec<_>>>()?;
    let tracker = match (&listed, asked.lists.as_slice()) {
        (Some(column), [list]) => Some(ListTracker::new(list, find(column)?)?),
        _ => None,
    };
    let located_by = is_located.then(|| position(&query.request, AttributeId::SOPInstanceUID)).flatten();
    Ok(FindPlan { query, columns, order, located_by, limit: arguments.limit, format: arguments.format(), tracker })
}

/// The column of the list whose values `--missing` looks for.
fn listed_column(
    arguments: &FindArgs,
    asked: &FindKeys,
    reading: &KeyReader<'_>,
) -> anyhow::Result<Option<AskedColumn>> {
    match (&arguments.missing, asked.lists.as_slice()) {
        (None, _) => Ok(None),
        (Some(_), [list]) => Ok(Some(reading.column(&list.name)?)),
        (Some(_), []) => bail!("--missing needs a list; hint: AccessionNumber=@list.csv"),
        (Some(_), _) => bail!("--missing is for one list"),
    }
}

fn position(request: &FindRequest, id: AttributeId) -> Option<usize> {
    request.return_keys.iter().position(|key| key.attribute == id)
}

/// The terminal that the output goes to, if it goes to one.
fn terminal(context: &Context) -> Option<Terminal> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    Some(Terminal { width: terminal_width(&stdout).unwrap_or(80), is_coloured: context.wants_colour() })
}

const CANNOT_BE_WRITTEN: &str = "cannot write to standard output";

/// Whether a query had answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FoundAny {
    Nothing,
    Some,
    /// More than the limit.
    More,
}

/// Runs the query and writes its answers. At the end the reader of the index is closed, even if
/// some answers were not read.
fn answer_all<W: io::Write>(
    mut reader: Reader,
    plan: &mut FindPlan,
    terminal: Option<Terminal>,
    output: &mut Output<W>,
) -> anyhow::Result<(FoundAny, u64)> {
    let mut tracker = plan.tracker.take();
    // The reader of the query is busy while answers come.
    let mut locator = plan.located_by.map(|_| reader.another()).transpose()?;
    let dicom_json = JsonWriter::new(&plan.query, "").without_retrieve_url();
    let mut writer = AnswerWriter::new(plan.format, &plan.columns, &dicom_json, terminal, output);
    let mut sorter = answers::Sorter::new(&plan.order, plan.limit);
    writer.begin().context(CANNOT_BE_WRITTEN)?;
    let mut answers = 0_u64;
    let stop = qr::QueryStop::new(&reader);
    let found = qr::try_run::<anyhow::Error>(&mut reader, &plan.query, &stop, |mut answer| {
        answers += 1;
        let mut location = locate(locator.as_mut(), plan.located_by, &mut answer)?;
        if let (OutputFormat::Paths0, Some(locator), Some(at)) = (plan.format, &mut locator, plan.located_by) {
            // Another program is about to read it.
            location = at_hand(locator, answer.values.text(at), location)?;
        }
        let row = FoundRow { answer, location };
        if let Some(tracker) = &mut tracker {
            tracker.see(&row);
        }
        if !plan.order.is_empty() {
            sorter.add(row);
        } else if plan.limit.is_none_or(|limit| answers <= limit)
            && writer.answer(&row).context(CANNOT_BE_WRITTEN)? == Audience::Gone
        {
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    });
    if found?.is_none() {
        // The reader of the output has closed it.
        return Ok((FoundAny::Some, 0));
    }
    for row in sorter.into_rows() {
        if writer.answer(&row).context(CANNOT_BE_WRITTEN)? == Audience::Gone {
            return Ok((FoundAny::Some, 0));
        }
    }
    writer.end().context(CANNOT_BE_WRITTEN)?;
    let without_path = writer.without_path();
    plan.tracker = tracker;
    let found = match plan.limit {
        _ if answers == 0 => FoundAny::Nothing,
        Some(limit) if answers > limit => FoundAny::More,
        _ => FoundAny::Some,
    };
    Ok((found, without_path))
}
