//! Records the events that no single change makes: studies that are quiet, and damaged objects. It
//! also drops old events.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::lease::ReceiverLease;
use super::quiet::QuietStudies;
use crate::db::open::{Reader, WriterHandle};
use crate::db::{Error, EventChanges as _, EventLimits, EventSearch as _};
use crate::model::clock::Clock;
use crate::telemetry::metrics;

/// Longest pause between two looks at the index. Larger: studies are told later. Smaller: more
/// queries for nothing.
const POLL: Duration = Duration::from_secs(1);

/// Pause between two looks for events that may go.
const TIDY: Duration = Duration::from_secs(60);

/// Damaged objects that are recorded at once.
const DAMAGED_AT_ONCE: usize = 256;

/// Settings for the events that are recorded, and for the time that they stay.
#[derive(Clone, Debug)]
pub struct RecorderOptions {
    /// Time without a change after which a study is complete.
    pub quiet: Duration,
    /// Time for which settled events stay.
    pub keep: Duration,
    /// Maximum number of events.
    pub max_events: u64,
}

/// The thread that records.
pub(super) struct EventRecorder {
    pub(super) index: PathBuf,
    pub(super) writer: WriterHandle,
    pub(super) options: RecorderOptions,
    /// SOP Instance UIDs of objects that were found damaged.
    pub(super) damaged: Receiver<String>,
    /// Takes those that this file does not know. `None` for the last file.
    pub(super) next: Option<Sender<String>>,
    pub(super) clock: Clock,
    /// Leases of the receivers, which a delivery may outlast.
    pub(super) leases: Vec<Arc<ReceiverLease>>,
}

impl EventRecorder {
    /// Runs until the other end of `ended` is dropped.
    pub(super) fn run(self, ended: &Receiver<()>) {
        let pause = POLL.min(self.options.quiet / 4);
        let mut studies = None;
        let mut told = false;
        let mut tidied: Option<Instant> = None;
        loop {
            let done = self.renew_leases().and_then(|()| self.poll(&mut studies)).and_then(|()| {
                if tidied.is_none_or(|last| last.elapsed() >= TIDY) {
                    tidied = Some(Instant::now());
                    self.tidy()?;
                }
                Ok(())
            });
            match done {
                Ok(()) => told = false,
                // It begins again with what the index says.
                Err(error) => {
                    studies = None;
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(%error, "events cannot be recorded; the next look tries again");
                    }
                }
            }
            if !matches!(ended.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                return;
            }
        }
    }

    /// Keeps the receivers that this node serves.
    fn renew_leases(&self) -> Result<(), Error> {
        self.leases.iter().filter(|lease| lease.is_valid()).try_for_each(|lease| lease.renew(&self.writer).map(drop))
    }

    fn poll(&self, studies: &mut Option<(Reader, QuietStudies)>) -> Result<(), Error> {
        let (reader, studies) = match studies {
            Some(known) => known,
            None => {
                self.writer.begin_telling()?;
                let mut reader = Reader::open(&self.index)?;
                let told = reader.told_change()?.unwrap_or(0);
                studies.insert((reader, QuietStudies::new(self.options.quiet, told)))
            }
        };
        let changed = reader.studies_changed_after(studies.seen())?;
        studies.note(&changed, (Instant::now(), self.clock.now_ms()));
        let (quiet, told) = studies.take(Instant::now());
        if !quiet.is_empty() {
            self.writer.tell_studies(quiet, told, self.clock)?;
        }
        let damaged: Vec<String> = self.damaged.try_iter().take(DAMAGED_AT_ONCE).collect();
        if !damaged.is_empty() {
            for unknown in self.writer.tell_damaged(damaged, self.clock)? {
                // An object that no file knows any more is nobody's.
                let _taken = self.next.as_ref().map(|next| next.try_send(unknown));
            }
        }
        Ok(())
    }

    fn tidy(&self) -> Result<(), Error> {
        let keep_ms = i64::try_from(self.options.keep.as_millis()).unwrap_or(i64::MAX);
        let keep_after_ms = self.clock.now_ms().saturating_sub(keep_ms);
        let limits = EventLimits { keep_after_ms, max_events: self.options.max_events };
        let lost = self.writer.drop_events(limits)?;
        if lost > 0 {
            metrics::EVENTS_DROPPED.add(lost);
            tracing::error!(
                events = lost,
                "events were dropped that receivers did not get, because there are too many"
            );
        }
        Ok(())
    }
}
