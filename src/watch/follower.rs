//! One watched directory: what is due, and the looks at it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use serde_json::Value;

use super::WatchedRoots;
use super::changes::{PathChanges, WhyAll};
#[cfg(target_os = "linux")]
use super::events::{FileEvents, why_silent};
#[cfg(not(target_os = "linux"))]
use super::no_events::{NoFileEvents as FileEvents, why_silent};
use super::state::{LookFigures, WatchState};
use crate::db::open::{Reader, WriterHandle};
use crate::db::{Arrivals as _, WatchEntry};
use crate::model::calendar::DAY_MS;
use crate::model::clock::Clock;
use crate::scanner::{self, BeforeListing, Roots, ScanEvent, ScanTarget, Stop, Summary};

/// Times that a look is repeated after a removal was told, in durations of the last look. So a tree
/// that is taken down file by file does not keep the disk busy.
const REST_AFTER_REMOVAL: u32 = 10;

/// The same for changes that single looks cannot follow.
const REST_AFTER_FLOOD: u32 = 3;

/// Shortest time between two looks at everything that changes ask for.
const SHORTEST_REST: Duration = Duration::from_secs(5);

/// Longest time by which a wall clock may be ahead of a look at a time of day. Beyond it the clock
/// was set back.
const LONGEST_AHEAD_MS: i64 = 2 * DAY_MS;

/// Parts that a look needs.
#[derive(Clone, Debug)]
pub struct WatchContext {
    /// The command that watches: `serve` or `scan`.
    pub by: &'static str,
    /// The index.
    pub index: PathBuf,
    /// Its writer.
    pub writer: WriterHandle,
    /// Source of the time of day.
    pub clock: Clock,
}

/// Paths that a look covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookKind {
    /// Everything below the watched paths.
    All,
    /// The paths that have changed.
    Changes,
}

/// A watched directory at work.
pub(super) struct Follower {
    pub(super) watch: WatchedRoots,
    /// The watched paths as the index names them.
    pub(super) roots: String,
    pub(super) state: WatchState,
    changes: Arc<Mutex<PathChanges>>,
    events: Option<Arc<FileEvents>>,
    /// The number of the scan that the looks of a day are passes of, and when it began.
    scan: Option<(i64, i64)>,
    /// The summary of the last look at everything, for the row of the scan.
    summary: Option<String>,
    passes: u64,
    /// The next look by interval.
    next: Option<Instant>,
    /// The next look by time of day.
    next_at_ms: Option<i64>,
    /// End and duration of the last look at everything.
    last: Option<(Instant, Duration)>,
}

impl Follower {
    /// Begins to watch. The first look by interval is due at once. A look by time of day is due if
    /// the last one was missed.
    pub(super) fn begin(watch: WatchedRoots, known: &[WatchEntry], context: &WatchContext) -> Self {
        let roots = watch.roots_json();
        // A state that this program does not understand is replaced by the first look.
        let entry = known.iter().find(|entry| entry.roots == roots);
        let mut state = entry.and_then(|entry| WatchState::from_json(&entry.state).ok()).unwrap_or_default();
        (state.by, state.plan) = (context.by.to_owned(), watch.plan.to_string());
        let now_ms = context.clock.now_ms();
        let next_at_ms = watch.plan.at.map(|at| {
            let zone = TimeZone::system();
            let last_ms = state.last.as_ref().map(|last| last.started_ms);
            match last_ms.is_some_and(|last| last >= at.last_before(now_ms, &zone)) {
                true => at.next_after(now_ms, &zone),
                false => now_ms,
            }
        });
        let next = watch.plan.every.map(|_| Instant::now());
        let changes = Arc::default();
        Self {
            watch,
            roots,
            state,
            changes,
            events: None,
            scan: None,
            summary: None,
            passes: 0,
            next,
            next_at_ms,
            last: None,
        }
    }

    /// Takes changed settings.
    pub(super) fn replace(&mut self, watch: WatchedRoots, context: &WatchContext) {
        let state = std::mem::take(&mut self.state);
        let known = [WatchEntry { roots: self.roots.clone(), state: state.to_json() }];
        let scan = self.scan;
        *self = Self { scan, last: self.last, ..Self::begin(watch, &known, context) };
    }

    fn changes(&self) -> MutexGuard<'_, PathChanges> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time until the next look at everything by plan.
    fn until_planned(&self, now: Instant, now_ms: i64) -> Option<Duration> {
        let by_interval = self.next.map(|next| next.saturating_duration_since(now));
        let by_clock =
            self.next_at_ms.map(|at| Duration::from_millis(u64::try_from(at.saturating_sub(now_ms)).unwrap_or(0)));
        by_interval.into_iter().chain(by_clock).min()
    }

    /// Time until the next look, and what it covers.
    pub(super) fn due(&mut self, now: Instant, now_ms: i64) -> Option<(Duration, LookKind)> {
        if self.next_at_ms.is_some_and(|at| at - now_ms > LONGEST_AHEAD_MS) {
            self.plan_by_clock(now_ms);
        }
        let changes = self.changes();
        let for_changes = changes.due(self.settling_time()).map(|due| due.saturating_duration_since(now));
        let for_all = changes.all.map(|why| {
            let (end, elapsed) = self.last.unwrap_or((now, Duration::ZERO));
            let rest = match why {
                WhyAll::Removed => elapsed * REST_AFTER_REMOVAL,
                WhyAll::Overflow | WhyAll::TooMany => elapsed * REST_AFTER_FLOOD,
            };
            (end + rest.max(SHORTEST_REST)).saturating_duration_since(now)
        });
        drop(changes);
        let all = self.until_planned(now, now_ms).into_iter().chain(for_all).min();
        let looks = all.map(|wait| (wait, LookKind::All)).into_iter();
        looks.chain(for_changes.map(|wait| (wait, LookKind::Changes))).min_by_key(|(wait, _)| *wait)
    }

    fn settling_time(&self) -> Duration {
        self.watch.options.settling.as_ref().map_or(Duration::ZERO, scanner::Settling::after)
    }

    fn plan_by_clock(&mut self, now_ms: i64) {
        self.next_at_ms = self.watch.plan.at.map(|at| at.next_after(now_ms, &TimeZone::system()));
    }

    /// Looks at everything. Returns the figures, and the usual duration if it was far slower.
    pub(super) fn look_at_all(
        &mut self,
        context: &WatchContext,
        stop: &Stop,
        on_event: &mut dyn FnMut(&ScanEvent<'_>),
    ) -> (Result<Summary, scanner::Error>, Option<Duration>) {
        let (begun, started_ms) = (Instant::now(), context.clock.now_ms());
        let why = self.changes().begin_all();
        tracing::debug!(because = why.map(WhyAll::as_str), "looks at a watched directory");
        self.listen();
        let looked = Roots::find(&self.watch.paths, &self.watch.options)
            .and_then(|roots| self.scan(&roots, context, stop, on_event));
        let (ended, finished_ms) = (Instant::now(), context.clock.now_ms());
        let figures = match &looked {
            Ok(summary) => LookFigures::of(summary, started_ms, finished_ms),
            Err(error) => LookFigures {
                started_ms,
                finished_ms,
                elapsed_seconds: begun.elapsed().as_secs_f64(),
                error: Some(with_causes(error)),
                ..LookFigures::default()
            },
        };
        let slower_than = self.state.take(figures);
        let elapsed = ended - begun;
        self.last = Some((ended, elapsed));
        // A look that takes longer than the interval must not follow itself without a rest.
        self.next = self.watch.plan.every.map(|every| (begun + every.time()).max(ended + elapsed.min(every.time())));
        self.plan_by_clock(finished_ms);
        self.state.next_due_ms = self
            .until_planned(ended, finished_ms)
            .map(|wait| finished_ms.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)));
        (looked, slower_than)
    }

    /// Looks at the paths that have changed. `None` if nothing is left to look at.
    pub(super) fn look_at_changes(
        &mut self,
        context: &WatchContext,
        stop: &Stop,
        on_event: &mut dyn FnMut(&ScanEvent<'_>),
    ) -> Option<Result<Summary, scanner::Error>> {
        let paths = self.changes().take();
        self.state.pending = 0;
        let looked = match Roots::changed(&paths, &self.watch.paths, &self.watch.options) {
            Ok(Some(roots)) => self.scan(&roots, context, stop, on_event),
            Ok(None) => return None,
            Err(error) => Err(error),
        };
        match &looked {
            Ok(summary) => self.state.indexed_since += summary.indexed + summary.updated,
            // A look at everything finds what this one could not.
            Err(_) => self.changes().add_all(WhyAll::TooMany),
        }
        Some(looked)
    }

    fn scan(
        &mut self,
        roots: &Roots,
        context: &WatchContext,
        stop: &Stop,
        on_event: &mut dyn FnMut(&ScanEvent<'_>),
    ) -> Result<Summary, scanner::Error> {
        let now_ms = context.clock.now_ms();
        let known = self.scan.filter(|(_, begun_ms)| (0..DAY_MS).contains(&(now_ms - begun_ms)));
        let number = context.writer.begin_pass(self.roots.clone(), known.map(|(number, _)| number))?;
        if self.scan.is_none_or(|(before, _)| before != number) {
            (self.scan, self.passes, self.summary) = (Some((number, now_ms)), 0, None);
        }
        self.passes += 1;
        let mut options = self.watch.options.clone();
        if let Some(events) = self.events.clone() {
            options.before_listing = BeforeListing(Some(Arc::new(move |directory| events.admit(directory))));
        }
        let target = ScanTarget::Index { known: Reader::open(&context.index)?, writer: &context.writer };
        let (changes, pending) = (Arc::clone(&self.changes), &mut self.state.pending);
        *pending = 0;
        let summary = scanner::scan(roots, &options, target, stop, &mut |event| {
            if let ScanEvent::Pending { path } = event {
                *pending += 1;
                changes.lock().unwrap_or_else(PoisonError::into_inner).add(path.to_owned());
            }
            on_event(&event);
        })?;
        if roots.is_whole() || self.summary.is_none() {
            let mut object = summary.to_json();
            object.insert("by".to_owned(), "watch".into());
            object.insert("passes".to_owned(), self.passes.into());
            self.summary = Some(Value::Object(object).to_string());
        }
        context.writer.end_scan(number, self.summary.clone().unwrap_or_default())?;
        Ok(summary)
    }

    /// Begins to listen for changes, where the kernel tells them.
    fn listen(&mut self) {
        if !self.watch.events {
            "polling (events = off)".clone_into(&mut self.state.events);
            self.events = None;
            return;
        }
        if self.events.is_some() {
            return;
        }
        let bases: Vec<PathBuf> = self.watch.paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
        if bases.len() < self.watch.paths.len() {
            // A path that is not there now may be mounted later, as another file system.
            "polling (not there)".clone_into(&mut self.state.events);
            return;
        }
        if let Some(silent) = bases.iter().find_map(|base| why_silent(base)) {
            self.state.events = format!("polling ({silent})");
            return;
        }
        match FileEvents::start(bases, &self.changes) {
            Ok(events) => {
                self.events = Some(Arc::new(events));
                "inotify".clone_into(&mut self.state.events);
            }
            Err(error) => self.state.events = format!("polling ({error})"),
        }
    }

    /// Number of directories that the kernel tells about, and whether there are more.
    pub(super) fn coverage(&self) -> Option<(usize, bool)> {
        self.events.as_ref().map(|events| events.coverage())
    }

    /// Keeps the state in the index.
    pub(super) fn note(&self, context: &WatchContext) {
        if let Err(error) = context.writer.note_watch(self.roots.clone(), Some(self.state.to_json())) {
            tracing::error!(%error, "the state of a watched directory could not be written to the index");
        }
    }
}

fn with_causes(error: &scanner::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
