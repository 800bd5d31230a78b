//! The thread that sends the trail to a collector.
//!
//! A collector does not acknowledge. What was sent counts as received only when the connection has
//! stood for longer than the kernel waits for the other end. If it breaks before, all of that is
//! sent again. So an event may come twice, and none is lost.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::spool::{AuditSpool, SpoolLimits, TrailPosition};
use super::syslog::{CollectorCaller, CollectorLink, UNACKNOWLEDGED};
use crate::telemetry::metrics;

/// Time after which what was sent counts as received.
const RECEIVED_AFTER: Duration = UNACKNOWLEDGED.saturating_add(Duration::from_secs(5));

/// Events that are sent at once.
const BATCH: usize = 256;

/// Pause between two looks at the files.
const NAP: Duration = Duration::from_millis(250);

/// Shortest and longest pause before the collector is called again.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Pause between two looks at the size of the files.
const TIDY: Duration = Duration::from_secs(60);

/// Sends the trail, and keeps its files within their limits.
pub(super) struct AuditSender {
    pub(super) spool: AuditSpool,
    pub(super) caller: Option<CollectorCaller>,
    pub(super) limits: SpoolLimits,
}

/// Events that were sent and may not have been received.
#[derive(Default)]
struct SentEvents(VecDeque<(Instant, TrailPosition)>);

impl AuditSender {
    /// Runs until the other end of `ended` is dropped. Then it tries once more to send the rest.
    pub(super) fn run(self, ended: &Receiver<()>) {
        let mut tidied: Option<Instant> = None;
        let mut link: Option<(CollectorLink, SentEvents)> = None;
        let mut next = None;
        let mut back_off = BACK_OFF.0;
        let mut told = false;
        loop {
            let is_ending = !matches!(ended.recv_timeout(NAP), Err(RecvTimeoutError::Timeout));
            let done = self.step(&mut link, &mut next);
            match &done {
                Ok(()) => {
                    if link.is_some() && std::mem::replace(&mut told, false) {
                        tracing::info!("the collector of the audit trail answers again");
                    }
                    back_off = BACK_OFF.0;
                }
                Err(error) => {
                    (link, next) = (None, None);
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(%error, "the audit trail cannot be sent; it waits on disk");
                    }
                }
            }
            metrics::AUDIT_COLLECTOR_DOWN.set(i64::from(done.is_err()));
            if tidied.is_none_or(|last| last.elapsed() >= TIDY) || is_ending {
                tidied = Some(Instant::now());
                self.tidy();
            }
            if is_ending {
                return;
            }
            if done.is_err() {
                if !matches!(ended.recv_timeout(back_off), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
                back_off = (back_off * 2).min(BACK_OFF.1);
            }
        }
    }

    /// Sends what there is, and keeps the position of what counts as received.
    fn step(&self, link: &mut Option<(CollectorLink, SentEvents)>, next: &mut Option<TrailPosition>) -> io::Result<()> {
        let Some(caller) = &self.caller else { return Ok(()) };
        let from = match *next {
            Some(next) => next,
            None => self.spool.position()?,
        };
        *next = Some(from);
        let mut at = from;
        loop {
            if let Some((connection, in_flight)) = link {
                connection.check()?;
                if let Some(received) = in_flight.received() {
                    self.spool.keep_position(received)?;
                }
            }
            let lines = self.spool.lines(at, BATCH)?;
            let Some((_, last)) = lines.last() else { return Ok(()) };
            let last = *last;
            let (connection, in_flight) = match link {
                Some(link) => link,
                None => link.insert((caller.call()?, SentEvents::default())),
            };
            let mut frames = Vec::new();
            let mut sent = 0;
            for record in lines.iter().filter_map(|(record, _)| record.as_ref()) {
                frames.extend(caller.frame(record));
                sent += 1;
            }
            connection.send(&frames)?;
            metrics::AUDIT_SENT.add(sent);
            metrics::AUDIT_DROPPED.add(lines.len() as u64 - sent);
            in_flight.0.push_back((Instant::now(), last));
            (at, *next) = (last, Some(last));
        }
    }

    fn tidy(&self) {
        let sent = match self.caller {
            Some(_) => self.spool.position().map(Some),
            None => Ok(None),
        };
        let tidied = sent.and_then(|sent| {
            let waiting = sent.map_or(Ok(0), |sent| self.spool.bytes_after(sent))?;
            metrics::AUDIT_WAITING_BYTES.set(i64::try_from(waiting).unwrap_or(i64::MAX));
            self.spool.tidy(sent, &self.limits)
        });
        match tidied {
            Ok(0) => {}
            Ok(lost) => {
                metrics::AUDIT_DROPPED.add(lost);
                tracing::error!(
                    events = lost,
                    "events of the audit trail were deleted unsent, because its files are full"
                );
            }
            Err(error) => tracing::error!(%error, "the files of the audit trail cannot be read"),
        }
    }
}

impl SentEvents {
    /// The last position that counts as received by now.
    fn received(&mut self) -> Option<TrailPosition> {
        let mut received = None;
        while let Some((sent, position)) = self.0.front()
            && sent.elapsed() >= RECEIVED_AFTER
        {
            received = Some(*position);
            self.0.pop_front();
        }
        received
    }
}
