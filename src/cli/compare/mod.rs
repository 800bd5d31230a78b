//! `dcmdex compare` tells how this archive differs from a PACS, from another index, or from a list.

mod journal;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use self::journal::DifferenceJournal;
use super::keys::asked::KeyReader;
use super::keys::columns::FoundRow;
use super::keys::lists;
use super::keys::query::query;
use super::output::{Grouped, check_is_not_index};
use crate::cli::Exit;
use crate::cli::context::{Context, IndexArgs, in_one_line};
use crate::cli::peer_name::configured_peer;
use crate::compare::difference::{ArchiveDifference, DifferenceKind};
use crate::compare::index_side::IndexSide;
use crate::compare::pacs_side::PacsSide;
use crate::compare::walk::{compare_days, compare_undated, ranges};
use crate::compare::{ArchiveSide, DayRange, Error};
use crate::config::Config;
use crate::db::Search as _;
use crate::db::open::{Reader, files_of, is_on_server};
use crate::model::calendar::DAY_MS;
use crate::model::clock::Clock;
use crate::model::datetime::{self, Day};
use crate::model::level::QueryRetrieveLevel;
use crate::model::written_time;
use crate::ul::query_scu::QueryScu;

/// Days that are asked for at once, before the number of answers is known.
const DAYS_AT_ONCE: i64 = 31;

/// The day that a comparison begins with, unless an index has older studies.
const FIRST_DAY: Day = 19_900_101;

#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct CompareArgs {
    /// AE title of a configured peer, AET=HOST:PORT, the file of another index, or @LIST.csv
    #[arg(long, value_name = "PEER|INDEX|@LIST")]
    with: String,
    /// First study date [default: 1990-01-01, or that of the oldest study in an index]
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// Last study date [default: today, or that of the newest study in an index]
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
    /// File for the differences [default: standard output]. After an interruption, the same command
    /// goes on
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Milliseconds to wait before each question to a peer
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pause: u64,
    /// Attribute of the values in the list
    #[arg(long, value_name = "KEY", default_value = "StudyInstanceUID")]
    key: String,
    #[command(flatten)]
    index: IndexArgs,
}

const AFTER_HELP: &str = "\
Differences (CSV):
  only-here     a study, series or instance that the other side does not have
  only-there    one that this index does not have
  other-count   another number of series or instances
  other-value   another Patient ID, name, birth date, sex, study date or accession number
  unanswered    a day that the peer did not answer completely

A peer is asked for studies by date, in ranges that get smaller where there are many. It is asked for \
series where the numbers of a study differ, and for instances where those of a series do. Studies without \
a date that only the peer has are not found: C-FIND cannot ask for them.

Examples:
  dcmdex compare --with PACS --from 2024-01-01 --pause 50 --out differences.csv
  dcmdex compare --with PACS=pacs.example.org:104
  dcmdex compare --with before.db
  dcmdex compare --with @migrated.csv --key AccessionNumber

Exit codes: 0 no difference; 1 differences; 2 failed, or the other side did not answer wholly.";

pub(super) fn run(arguments: &CompareArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    if let Some(out) = &arguments.out {
        check_is_not_index(out, &config.index)?;
    }
    let mut reader = Reader::open(&config.index)?;
    if let Some(list) = arguments.with.strip_prefix('@') {
        return with_list(list, arguments, reader, &config, context);
    }
    let found = if let Some(index) = other_index(&arguments.with)? {
        let mut other = Reader::open(index)?;
        let days = days(arguments, &mut [&mut reader, &mut other])?;
        compare(&mut IndexSide(reader), &mut IndexSide(other), days, arguments, context)?
    } else {
        let days = days(arguments, &mut [&mut reader])?;
        let (ae_title, route) = configured_peer(&arguments.with, &config)?;
        let (waits, address) = (config.node.waits(), route.destination.address.clone());
        let scu = QueryScu::new(&config.node.ae_title, &ae_title, route, waits)?;
        let mut there = PacsSide::new(scu, Duration::from_millis(arguments.pause));
        let compared = compare(&mut IndexSide(reader), &mut there, days, arguments, context);
        compared.with_context(|| format!("{ae_title} at {address}, called by {}", config.node.ae_title))?
    };
    Ok(tell_end(&found, context))
}

/// The other index that a name means. `None` if it is the name of a peer.
fn other_index(name: &str) -> anyhow::Result<Option<&Path>> {
    let path = Path::new(name);
    // A folder without index files may have the name of a peer by chance.
    let is_folder = path.is_dir() && files_of(path).is_ok();
    if path.is_file() || is_folder || is_on_server(path) {
        return Ok(Some(path));
    }
    let is_path = name.contains('/') || path.extension().is_some_and(|extension| extension == "db");
    if !is_path || name.contains('=') {
        return Ok(None);
    }
    if !path.exists() {
        bail!("there is no index at {}; hint: a peer is named as AET or AET=HOST:PORT", path.display());
    }
    Ok(Some(path))
}

/// Differences by kind.
type DifferenceCounts = BTreeMap<DifferenceKind, u64>;

fn compare(
    here: &mut impl ArchiveSide,
    there: &mut impl ArchiveSide,
    days: DayRange,
    arguments: &CompareArgs,
    context: &mut Context,
) -> anyhow::Result<DifferenceCounts> {
    let [from, to] = [&arguments.from, &arguments.to].map(|day| day.as_deref().unwrap_or("-"));
    let question = format!("{} {from} {to}", arguments.with);
    let mut journal = DifferenceJournal::open(arguments.out.as_deref(), &question, Some(days))?;
    let days = journal.days().unwrap_or(days);
    let done = journal.done_through();
    let mut waiting: VecDeque<DayRange> = first_questions(days);
    if let Some(done) = done {
        context.tell(&format!("goes on after {}", datetime::day_text(done)));
        let next = datetime::day_of(datetime::days_since_1970(done) + 1);
        waiting.retain(|range| range.last > done);
        waiting.iter_mut().for_each(|range| range.first = range.first.max(next));
    }
    let mut found = Vec::new();
    while let Some(range) = waiting.pop_front() {
        found.clear();
        match compare_days(here, there, range, &mut found) {
            Ok(None) => {}
            Ok(Some([one, other])) => {
                waiting.push_front(other);
                waiting.push_front(one);
                continue;
            }
            Err(Error::Status(status)) => found.push(unanswered(range, &status.to_string())),
            Err(error) => {
                journal.keep()?;
                return Err(with_resume_hint(error, arguments));
            }
        }
        journal.write(&found, Some(range.last), &mut context.output)?;
    }
    found.clear();
    match compare_undated(here, there, &mut found) {
        Ok(()) => {}
        Err(Error::Status(status)) => found.push(unanswered(days, &status.to_string())),
        Err(error) => {
            journal.keep()?;
            return Err(with_resume_hint(error, arguments));
        }
    }
    journal.write(&found, None, &mut context.output)?;
    journal.finish(&mut context.output)
}

/// The error, with what to do.
fn with_resume_hint(error: Error, arguments: &CompareArgs) -> anyhow::Error {
    let hint = if arguments.out.is_some() { "the same command goes on" } else { "with --out FILE it can go on" };
    let reason = in_one_line(&error.into());
    anyhow!("{reason}; the comparison is not complete; hint: {hint}")
}

/// The ranges that are asked for first. Days before [`FIRST_DAY`] are one range: they have few
/// studies, and wrong dates such as 0001-01-01 make many days.
fn first_questions(days: DayRange) -> VecDeque<DayRange> {
    let first = FIRST_DAY.clamp(days.first, days.last);
    let before = DayRange { last: datetime::day_of(datetime::days_since_1970(first) - 1), ..days };
    let before = (days.first < first).then_some(before);
    before.into_iter().chain(ranges(DayRange { first, ..days }, DAYS_AT_ONCE)).collect()
}

fn unanswered(range: DayRange, status: &str) -> ArchiveDifference {
    ArchiveDifference {
        kind: DifferenceKind::Unanswered,
        uids: Vec::new(),
        attribute: "StudyDate",
        here: range.to_string(),
        there: format!("status {status}"),
    }
}

/// The days to compare. The indexes say how old and new their studies are.
fn days(arguments: &CompareArgs, indexes: &mut [&mut Reader]) -> anyhow::Result<DayRange> {
    let today = Clock::System.now_ms().div_euclid(DAY_MS);
    let given = |text: &Option<String>, option: &str| -> anyhow::Result<Option<Day>> {
        let Some(text) = text else { return Ok(None) };
        let day = written_time::day(text, today);
        Ok(Some(day.with_context(|| format!("{option} {text}: write a date as 2024-01-31"))?))
    };
    let (from, to) = (given(&arguments.from, "--from")?, given(&arguments.to, "--to")?);
    let mut usual = DayRange { first: FIRST_DAY, last: datetime::day_of(today) };
    if from.is_none() || to.is_none() {
        for index in indexes {
            usual = with_all_studies(usual, index)?;
        }
    }
    let days = DayRange { first: from.unwrap_or(usual.first), last: to.unwrap_or(usual.last) };
    if days.first > days.last {
        bail!("the first study date comes after the last one");
    }
    Ok(days)
}

/// The range, made larger until it has all studies of an index.
fn with_all_studies(mut days: DayRange, index: &mut Reader) -> anyhow::Result<DayRange> {
    let identifier = crate::qr::keys::identifier(QueryRetrieveLevel::Study, ["StudyDate"])?;
    let asked = crate::qr::parse(
        crate::model::level::InformationModel::StudyRoot,
        &identifier,
        crate::qr::NegotiatedOptions::default(),
        &crate::qr::Options::default(),
    )?;
    let at = asked.request.return_keys.iter().position(|key| key.attribute.attribute().keyword == "StudyDate");
    index.find(&asked.request, |answer| {
        let date = at.map(|at| answer.values.text(at)).unwrap_or_default();
        if let Some(day) = datetime::one_day(date) {
            days = DayRange { first: days.first.min(day), last: days.last.max(day) };
        }
        ControlFlow::Continue(())
    })?;
    Ok(days)
}

/// Compares with a list of one attribute.
fn with_list(
    list: &str,
    arguments: &CompareArgs,
    mut reader: Reader,
    config: &Config,
    context: &mut Context,
) -> anyhow::Result<Exit> {
    let level = QueryRetrieveLevel::Study;
    let reading = KeyReader { level, declared: &config.declared, now_ms: Clock::System.now_ms() };
    let asked = reading.column(&arguments.key)?;
    let values = lists::read(list, &[&arguments.key, &crate::export::table::snake_case(&arguments.key)])?;
    let uid = reading.column("StudyInstanceUID")?;
    let query = query(level, &[&arguments.key, "StudyInstanceUID"], config)?;
    let column = asked.column(&query, &config.declared).context("the key of the list has no value in the answers")?;
    let uid = uid.column(&query, &config.declared).context("a study has no UID")?;
    let mut journal = DifferenceJournal::open(arguments.out.as_deref(), "", None)?;
    let mut there: BTreeSet<String> = values.into_iter().collect();
    let mut matched = BTreeSet::new();
    let mut written = Ok(());
    reader.find(&query.request, |answer| {
        let row = FoundRow { answer, location: None };
        let text = |column: &super::keys::columns::Column| column.cell(&row).into_text();
        let value = text(&column);
        if there.contains(&value) {
            matched.insert(value);
            return ControlFlow::Continue(());
        }
        let difference = ArchiveDifference {
            kind: DifferenceKind::OnlyHere,
            uids: vec![text(&uid)],
            attribute: "",
            here: value,
            there: String::new(),
        };
        written = journal.write(&[difference], None, &mut context.output);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written?;
    there.retain(|value| !matched.contains(value));
    for value in there {
        let uids = if arguments.key == "StudyInstanceUID" { vec![value.clone()] } else { Vec::new() };
        let difference = ArchiveDifference {
            kind: DifferenceKind::OnlyThere,
            uids,
            attribute: "",
            here: String::new(),
            there: value,
        };
        journal.write(&[difference], None, &mut context.output)?;
    }
    let found = journal.finish(&mut context.output)?;
    Ok(tell_end(&found, context))
}

/// Prints the counts, and returns the exit code.
fn tell_end(found: &DifferenceCounts, context: &Context) -> Exit {
    if found.is_empty() {
        context.tell("no difference");
        return Exit::Done;
    }
    let kinds: Vec<String> =
        found.iter().map(|(kind, count)| format!("{} {}", Grouped(*count), kind.as_str())).collect();
    context.tell(&kinds.join(", "));
    if found.contains_key(&DifferenceKind::Unanswered) { Exit::Failed } else { Exit::Partly }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_questions_have_each_day_once_and_are_few() {
        for (first, last) in [(10_101, 20_240_301), (18_990_101, 19_001_231), (20_240_101, 20_240_101)] {
            let asked = first_questions(DayRange { first, last });
            assert!(asked.len() < 500, "{}", asked.len());
            assert_eq!((asked[0].first, asked[asked.len() - 1].last), (first, last));
            for (one, other) in asked.iter().zip(asked.iter().skip(1)) {
                assert_eq!(datetime::days_since_1970(one.last) + 1, datetime::days_since_1970(other.first));
            }
        }
    }
}
