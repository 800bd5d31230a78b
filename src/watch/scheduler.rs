//! The scheduler: one thread looks at one directory at a time, the most urgent first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::WatchedRoots;
use super::follower::{Follower, LookKind, WatchContext};
use crate::db::open::Reader;
use crate::db::{self, Admin as _, Arrivals as _};
use crate::scanner::{self, ScanEvent, Stop, Summary};
use crate::telemetry::metrics;

/// Longest wait between two checks of what is due. Changes are told by another thread, and clocks
/// may jump.
const NAP: Duration = Duration::from_millis(250);

/// Event of a watch.
#[derive(Debug)]
pub enum WatchEvent<'a> {
    /// An event of a look.
    Scan(&'a ScanEvent<'a>),
    /// It was found out for the first time, or anew, how changes are noticed.
    Listens {
        /// The watched paths.
        watch: &'a WatchedRoots,
        /// `inotify`, or `polling` with the reason.
        events: &'a str,
        /// Directories that the kernel tells about, and whether there are more.
        coverage: Option<(usize, bool)>,
    },
    /// A look is over.
    Looked {
        /// The watched paths.
        watch: &'a WatchedRoots,
        /// Paths that it covered.
        kind: LookKind,
        /// Result of the look.
        summary: &'a Summary,
        /// The usual duration of a look, if this one was far slower.
        slower_than: Option<Duration>,
    },
    /// A look failed. The next one is due as planned.
    Failed {
        /// The watched paths.
        watch: &'a WatchedRoots,
        /// Reason why it failed.
        error: &'a scanner::Error,
        /// Whether the look before failed in the same way.
        again: bool,
    },
}

enum WatchCommand {
    Replace(Vec<WatchedRoots>),
    Stop,
}

/// The look under way: the watched paths, and how to stop it.
type RunningLook = Arc<Mutex<Option<(String, Stop)>>>;

/// Gives orders to a [`Scheduler`].
#[derive(Clone)]
pub struct WatchControl {
    commands: Sender<WatchCommand>,
    under_way: RunningLook,
}

impl WatchControl {
    /// Watches these directories from now on, and no others.
    pub fn replace(&self, watches: Vec<WatchedRoots>) {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((roots, stop)) = under_way.as_ref()
            && !watches.iter().any(|watch| watch.roots_json() == *roots)
        {
            stop.ask();
        }
        // A scheduler that has ended takes no orders.
        let _ended = self.commands.send(WatchCommand::Replace(watches));
    }

    /// Ends the scheduler. A look under way stops, and keeps what it has done.
    pub fn stop(&self) {
        let _ended = self.commands.send(WatchCommand::Stop);
        if let Some((_, stop)) = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            stop.ask();
        }
    }
}

/// Looks at watched directories when they are due.
pub struct Scheduler {
    context: WatchContext,
    followers: Vec<Follower>,
    commands: Receiver<WatchCommand>,
    under_way: RunningLook,
}

impl Scheduler {
    /// Prepares to watch. [`Self::run`] begins.
    ///
    /// # Errors
    /// Fails if the index cannot be read or written.
    pub fn new(watches: Vec<WatchedRoots>, context: WatchContext) -> Result<(Self, WatchControl), db::Error> {
        let (orders, commands) = unbounded();
        let under_way = RunningLook::default();
        let control = WatchControl { commands: orders, under_way: Arc::clone(&under_way) };
        let mut this = Self { context, followers: Vec::new(), commands, under_way };
        this.replace(watches)?;
        Ok((this, control))
    }

    /// Runs until it is told to stop.
    pub fn run(mut self, on_event: &mut dyn FnMut(WatchEvent<'_>)) {
        loop {
            self.count();
            let (now, now_ms) = (Instant::now(), self.context.clock.now_ms());
            let due = self.followers.iter_mut().enumerate().filter_map(|(at, follower)| {
                let (wait, kind) = follower.due(now, now_ms)?;
                Some((wait, kind != LookKind::Changes, at, kind))
            });
            // Of two looks that are due the short one comes first.
            let next = due.min_by_key(|(wait, is_long, at, _)| (*wait, *is_long, *at));
            let wait = next.map_or(NAP, |(wait, ..)| wait.min(NAP));
            match self.commands.recv_timeout(wait) {
                Ok(WatchCommand::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(WatchCommand::Replace(watches)) => {
                    if let Err(error) = self.replace(watches) {
                        tracing::error!(%error, "the index cannot be read; watched directories stay as they were");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some((Duration::ZERO, _, at, kind)) = next {
                        self.look(at, kind, on_event);
                    }
                }
            }
        }
    }

    fn replace(&mut self, watches: Vec<WatchedRoots>) -> Result<(), db::Error> {
        let known = Reader::open(&self.context.index)?.watches()?;
        let mut before = std::mem::take(&mut self.followers);
        for watch in watches {
            let roots = watch.roots_json();
            let follower = match before.iter().position(|follower| follower.roots == roots) {
                Some(at) => {
                    let mut follower = before.swap_remove(at);
                    if !follower.watch.is_same(&watch) {
                        follower.replace(watch, &self.context);
                    }
                    follower
                }
                None => Follower::begin(watch, &known, &self.context),
            };
            follower.note(&self.context);
            self.followers.push(follower);
        }
        for entry in known {
            let is_ours =
                serde_json::from_str::<super::WatchState>(&entry.state).is_ok_and(|state| state.by == self.context.by);
            if is_ours && !self.followers.iter().any(|follower| follower.roots == entry.roots) {
                self.context.writer.note_watch(entry.roots, None)?;
            }
        }
        Ok(())
    }

    fn look(&mut self, at: usize, kind: LookKind, on_event: &mut dyn FnMut(WatchEvent<'_>)) {
        let Some(follower) = self.followers.get_mut(at) else { return };
        let stop = Stop::default();
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = Some((follower.roots.clone(), stop.clone()));
        // An order to stop may have come before the look could be stopped.
        if !self.commands.is_empty() {
            *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return;
        }
        let heard = (follower.state.events.clone(), follower.coverage().map(|(_, is_full)| is_full));
        let failed_before = follower.state.last.as_ref().and_then(|last| last.error.clone());
        let mut of_scan = |event: &ScanEvent<'_>| on_event(WatchEvent::Scan(event));
        let (looked, slower_than) = match kind {
            LookKind::All => {
                let (looked, slower_than) = follower.look_at_all(&self.context, &stop, &mut of_scan);
                (Some(looked), slower_than)
            }
            LookKind::Changes => (follower.look_at_changes(&self.context, &stop, &mut of_scan), None),
        };
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let Some(looked) = looked else { return };
        follower.note(&self.context);
        let (watch, events, coverage) = (&follower.watch, follower.state.events.as_str(), follower.coverage());
        if heard != (events.to_owned(), coverage.map(|(_, is_full)| is_full)) {
            on_event(WatchEvent::Listens { watch, events, coverage });
        }
        count_look(kind, &looked);
        match &looked {
            Ok(summary) => on_event(WatchEvent::Looked { watch, kind, summary, slower_than }),
            Err(error) => {
                let now = follower.state.last.as_ref().and_then(|last| last.error.as_ref());
                let again = now.is_some() && now == failed_before.as_ref();
                on_event(WatchEvent::Failed { watch, error, again });
            }
        }
    }

    /// Sets the gauges.
    fn count(&self) {
        let states = || self.followers.iter().map(|follower| &follower.state);
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let now_ms = self.context.clock.now_ms();
        metrics::WATCHES.set(number(self.followers.len()));
        metrics::WATCHES_OVERDUE.set(number(states().filter(|state| state.is_overdue(now_ms)).count()));
        metrics::WATCHES_SLOW.set(number(states().filter(|state| state.is_slow).count()));
        let is_failing = |state: &&super::WatchState| state.last.as_ref().is_some_and(|last| last.error.is_some());
        metrics::WATCHES_FAILING.set(number(states().filter(is_failing).count()));
        metrics::WATCH_PENDING_FILES.set(states().map(|state| i64::try_from(state.pending).unwrap_or(0)).sum());
        let longest_ago = states().map(|state| state.last_success_ms.unwrap_or(0)).min().unwrap_or(0);
        metrics::WATCH_LAST_SUCCESS.set(longest_ago / 1000);
        let longest = states().filter_map(|state| state.last.as_ref()).map(|last| last.elapsed_seconds);
        metrics::WATCH_LAST_DURATION.set_seconds(longest.fold(0.0, f64::max));
    }
}

fn count_look(kind: LookKind, looked: &Result<Summary, scanner::Error>) {
    match (kind, looked) {
        (_, Err(_)) => metrics::WATCH_LOOKS_FAILED.increment(),
        (_, Ok(summary)) if summary.interrupted => metrics::WATCH_LOOKS_INTERRUPTED.increment(),
        (LookKind::All, Ok(summary)) => {
            metrics::WATCH_LOOKS_DONE.increment();
            #[expect(clippy::cast_possible_truncation, reason = "a rate for people")]
            metrics::WATCH_FILES_PER_SECOND.set(summary.files_per_second() as i64);
        }
        (LookKind::Changes, Ok(_)) => metrics::WATCH_LOOKS_AT_CHANGES.increment(),
    }
}
