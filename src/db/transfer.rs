//! Copies an index from one engine to another (docs/sites.md).

use std::ops::ControlFlow;
use std::path::Path;

use fail::fail_point;

use super::contents::Contents;
use super::open::{WriterOptions, only_file_of};
use super::pieces::{ContentsSum, OnPiece};
use super::postgres::{PostgresAddress, PostgresCopy, PostgresReader};
use super::sqlite::{SqliteCopy, SqliteReader};
use super::worklist::{
    PerformedStep, WorklistArrival, WorklistAsked, WorklistProblem, WorklistRequest, WorklistRow, WorklistSearch,
    WorklistWork,
};
use super::{Admin as _, Error, EventProgress, EventRecording, EventSearch as _, IndexEvent, IndexStatus};

/// Events that are copied at once. One may tell of a thousand instances.
const EVENTS_AT_ONCE: usize = 200;

/// Result of a copy.
#[derive(Debug)]
pub struct CopiedIndex {
    /// The copy in numbers.
    pub status: IndexStatus,
    /// Content that the copy lacks, in words.
    pub left_behind: Vec<&'static str>,
}

/// Copies an index to another engine as it is at one moment, while others write it. The copy is
/// read again, and counts only if it has all that was copied.
///
/// After a kill the copy is refused by each program, until it is made again or dropped.
///
/// # Errors
/// [`Error::HasContent`] if the target is not empty, [`Error::OtherCopy`] if the copy is not the
/// same, [`Error::NotCopied`], and those of both engines.
pub fn copy_to_engine(from: &Path, to: &Path, options: WriterOptions) -> Result<CopiedIndex, Error> {
    let mut source = IndexSource::open(from)?;
    // What is refused makes no target.
    source.left_behind()?;
    // A test changes the index here.
    fail_point!(&format!("copy {}", from.display()));
    // What a copy contains is no news. The events of the source are copied as they are.
    let options = WriterOptions { recording: EventRecording::Off, ..options };
    let mut target = IndexTarget::create(to, options)?;
    let mut copied = ContentsSum::default();
    let left_behind = source.give(&mut |piece| {
        copied.add(&piece);
        target.put(piece)
    })?;
    each_event(&mut |after| source.events_after(after), &mut |events| {
        copied.add_events(&events);
        target.put_events(events)
    })?;
    let mut written = ContentsSum::default();
    target.each_piece(&mut |piece| {
        written.add(&piece);
        Ok(())
    })?;
    let mut copy = target.reader()?;
    each_event(&mut |after| copy.events_after(after), &mut |events| {
        written.add_events(&events);
        Ok(())
    })?;
    let different = |detail: String| Error::OtherCopy { path: to.to_owned(), detail };
    let progress = source.event_progress()?;
    target.put_progress(progress.clone())?;
    if copy.event_progress()? != progress {
        return Err(different("receivers of events have got other ones".into()));
    }
    let worklist = CopiedWorklist::of(source.worklist())?;
    if worklist != CopiedWorklist::default() {
        target.change_worklist(worklist.clone().work())?;
    }
    if CopiedWorklist::of(copy.worklist())? != worklist {
        return Err(different("the worklist is another one".into()));
    }
    // Nobody may read a file when it gets its name.
    drop(copy);
    if written != copied {
        return Err(different(format!("{written}, and not {copied}")));
    }
    let (status, findings) = target.status()?;
    if findings > 0 {
        return Err(different(format!("{findings} rows disagree")));
    }
    target.finish()?;
    Ok(CopiedIndex { status, left_behind })
}

/// Calls `on_page` for all events, in pages that `page` gives after a number.
fn each_event(
    page: &mut dyn FnMut(i64) -> Result<Vec<IndexEvent>, Error>,
    on_page: &mut dyn FnMut(Vec<IndexEvent>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut after = 0;
    loop {
        let events = page(after)?;
        let Some(last) = events.last() else { return Ok(()) };
        after = last.id;
        on_page(events)?;
    }
}

enum IndexSource {
    Sqlite(Box<SqliteReader>),
    Postgres(Box<PostgresReader>),
}

impl IndexSource {
    fn open(index: &Path) -> Result<Self, Error> {
        Ok(match PostgresAddress::of(index)? {
            Some(address) => Self::Postgres(Box::new(PostgresReader::open(&address)?)),
            None => Self::Sqlite(Box::new(SqliteReader::open(&only_file_of(index, "a copy in a database")?)?)),
        })
    }

    fn left_behind(&mut self) -> Result<Vec<&'static str>, Error> {
        match self {
            Self::Sqlite(reader) => reader.left_behind(),
            Self::Postgres(reader) => reader.left_behind(),
        }
    }

    /// Gives away the index as it is at one moment. Returns what the copy lacks.
    fn give(&mut self, on_piece: OnPiece<'_>) -> Result<Vec<&'static str>, Error> {
        match self {
            Self::Sqlite(reader) => reader.give(on_piece),
            Self::Postgres(reader) => reader.give(on_piece),
        }
    }

    fn events_after(&mut self, after: i64) -> Result<Vec<IndexEvent>, Error> {
        match self {
            Self::Sqlite(reader) => reader.events_after(after, EVENTS_AT_ONCE),
            Self::Postgres(reader) => reader.copied_events_after(after, EVENTS_AT_ONCE),
        }
    }

    fn event_progress(&mut self) -> Result<EventProgress, Error> {
        match self {
            Self::Sqlite(reader) => reader.event_progress(),
            Self::Postgres(reader) => reader.event_progress(),
        }
    }

    fn worklist(&mut self) -> &mut dyn WorklistSearch {
        match self {
            Self::Sqlite(reader) => reader.as_mut(),
            Self::Postgres(reader) => reader.as_mut(),
        }
    }
}

/// A worklist as it is copied. It has 10,000 items at most, so it is held in memory.
#[derive(Clone, Default, PartialEq, Eq)]
struct CopiedWorklist {
    items: Vec<WorklistRow>,
    asked: Vec<WorklistAsked>,
    problems: Vec<WorklistProblem>,
    arrivals: Vec<WorklistArrival>,
    steps: Vec<PerformedStep>,
}

impl CopiedWorklist {
    fn of(source: &mut dyn WorklistSearch) -> Result<Self, Error> {
        let mut items = Vec::new();
        source.worklist(&WorklistRequest::default(), &mut |row| {
            items.push(row);
            ControlFlow::Continue(())
        })?;
        let mut arrivals = source.worklist_arrivals(i64::MIN)?;
        arrivals.sort_by_key(|arrival| arrival.item);
        let (asked, problems) = (source.worklist_asked()?, source.worklist_problems()?);
        Ok(Self { items, asked, problems, arrivals, steps: source.performed_steps()? })
    }

    /// Writes it to the tables of an empty worklist.
    fn work(self) -> WorklistWork {
        let Self { items, asked, problems, arrivals, steps } = self;
        Box::new(move |tables| {
            for item in &items {
                tables.put(item)?;
            }
            tables.note_asked(&asked)?;
            for WorklistArrival { item, noted_instances, noted_ms, .. } in arrivals {
                tables.note_arrival(item, noted_instances, noted_ms)?;
            }
            // The newest come first, and the last that is written counts as the newest.
            problems.iter().rev().try_for_each(|problem| tables.note_problem(problem))?;
            steps.iter().rev().try_for_each(|step| tables.put_performed_step(step))
        })
    }
}

enum IndexTarget {
    Sqlite(SqliteCopy),
    Postgres(Box<PostgresCopy>),
}

impl IndexTarget {
    fn create(index: &Path, options: WriterOptions) -> Result<Self, Error> {
        Ok(match PostgresAddress::of(index)? {
            Some(address) => Self::Postgres(Box::new(PostgresCopy::create(&address)?)),
            None => Self::Sqlite(SqliteCopy::create(index, options)?),
        })
    }

    fn put(&mut self, piece: Contents) -> Result<(), Error> {
        match self {
            Self::Sqlite(copy) => copy.put(piece),
            Self::Postgres(copy) => copy.put(&piece),
        }
    }

    fn each_piece(&mut self, on_piece: OnPiece<'_>) -> Result<(), Error> {
        match self {
            Self::Sqlite(copy) => copy.reader()?.each_piece(on_piece),
            Self::Postgres(copy) => copy.each_piece(on_piece),
        }
    }

    fn put_events(&mut self, events: Vec<IndexEvent>) -> Result<(), Error> {
        match self {
            Self::Sqlite(copy) => copy.put_events(events),
            Self::Postgres(copy) => copy.put_events(&events),
        }
    }

    fn put_progress(&mut self, progress: EventProgress) -> Result<(), Error> {
        match self {
            Self::Sqlite(copy) => copy.put_progress(progress),
            Self::Postgres(copy) => copy.put_progress(&progress),
        }
    }

    /// A reader of what was written.
    fn reader(&self) -> Result<IndexSource, Error> {
        Ok(match self {
            Self::Sqlite(copy) => IndexSource::Sqlite(Box::new(copy.reader()?)),
            Self::Postgres(copy) => IndexSource::Postgres(Box::new(copy.reader()?)),
        })
    }

    fn change_worklist(&mut self, work: WorklistWork) -> Result<(), Error> {
        match self {
            Self::Sqlite(copy) => copy.change_worklist(work),
            Self::Postgres(copy) => copy.change_worklist(work),
        }
    }

    /// Numbers of the copy, and the number of its rows that disagree.
    fn status(&mut self) -> Result<(IndexStatus, usize), Error> {
        match self {
            Self::Sqlite(copy) => {
                let mut reader = copy.reader()?;
                Ok((reader.status()?, reader.check()?.findings.len()))
            }
            Self::Postgres(copy) => copy.status(),
        }
    }

    fn finish(self) -> Result<(), Error> {
        match self {
            Self::Sqlite(copy) => copy.finish(),
            Self::Postgres(copy) => copy.finish(),
        }
    }
}
