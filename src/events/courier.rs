//! Brings events to one receiver: at least once, and those of a study in their order.
//!
//! If a receiver refuses an event or is silent, that event and the later ones of its study wait.
//! They are tried again after growing pauses. A receiver that cannot be reached costs nothing:
//! nothing is tried until it can be reached, or until its events are too old.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::command::CommandCaller;
use super::delivery_failure::DeliveryFailure;
use super::error::Error;
use super::lease::ReceiverLease;
use super::message::EventSource;
use super::receiver::{EventReceiver, EventTarget};
use super::webhook::WebhookCaller;
use crate::db::open::{Reader, WriterHandle};
use crate::db::{
    self, DeliveryChanges, DeliveryCounts, EventChanges as _, EventSearch as _, IndexEvent, Search as _, WaitingEvent,
};
use crate::model::clock::Clock;
use crate::telemetry::metrics;

/// Events of one round. After a crash, at most these come again. Larger: more come again. Smaller:
/// more transactions.
const ROUND: usize = 64;

/// Pause between two looks for new events. In an index without changes, a look asks for its version
/// only.
const POLL: Duration = Duration::from_millis(250);

/// Pause after the index failed.
const INDEX_PAUSE: Duration = Duration::from_secs(5);

/// Shortest and longest pause before a receiver that cannot be reached is called again.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Longest pause before an event that was refused is tried again, in milliseconds.
const LONGEST_RETRY_MS: i64 = 15 * 60 * 1000;

/// Consecutive timeouts after which a receiver counts as unreachable.
const SILENCES: u32 = 2;

/// Pause after which a node asks again whether it serves a receiver.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Pause between two counts of what waits.
const COUNT: Duration = Duration::from_secs(5);

/// Brings events to a receiver.
pub(super) struct Courier {
    receiver: EventReceiver,
    caller: EventCaller,
    index: PathBuf,
    writer: WriterHandle,
    source: EventSource,
    clock: Clock,
    /// Deliveries without an answer, one after the other.
    silences: u32,
    is_down: bool,
    counts: DeliveryCounts,
    counted: Option<Instant>,
    /// The version of the index at the last count.
    counted_version: Option<i64>,
    /// The version of the index for which nothing is left to do.
    settled_version: Option<i64>,
    lease: Arc<ReceiverLease>,
    /// When it asked last whether it serves the receiver.
    asked: Option<Instant>,
}

/// Caller of a receiver.
pub(super) enum EventCaller {
    Webhook(Box<WebhookCaller>),
    Command(CommandCaller),
}

impl EventCaller {
    /// Reads what the receiver is called with.
    pub(super) fn new(receiver: &EventReceiver) -> Result<Self, Error> {
        Ok(match &receiver.target {
            EventTarget::Webhook(target) => Self::Webhook(Box::new(WebhookCaller::new(receiver, target)?)),
            EventTarget::Command(command) => {
                Self::Command(CommandCaller { command: command.clone(), timeout: receiver.timeout })
            }
        })
    }
}

/// Result of a round of deliveries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RoundEnd {
    /// There may be more.
    More,
    /// Nothing for now.
    Done,
    /// The receiver cannot be reached.
    Down,
}

impl Courier {
    /// Reads what the receiver is called with.
    pub(super) fn new(
        receiver: EventReceiver,
        lease: Arc<ReceiverLease>,
        (index, writer): (PathBuf, WriterHandle),
        source: EventSource,
        clock: Clock,
    ) -> Result<Self, Error> {
        let caller = EventCaller::new(&receiver)?;
        Ok(Self {
            receiver,
            caller,
            index,
            writer,
            source,
            clock,
            silences: 0,
            is_down: false,
            counts: DeliveryCounts::default(),
            counted: None,
            counted_version: None,
            settled_version: None,
            lease,
            asked: None,
        })
    }

    /// Runs until the other end of `ended` is dropped.
    pub(super) fn run(mut self, ended: &Receiver<()>) {
        let mut reader = None;
        let mut back_off = BACK_OFF.0;
        let mut told = false;
        loop {
            let pause = match self.poll(&mut reader, ended) {
                Ok(RoundEnd::Down) => {
                    let pause = back_off;
                    back_off = (back_off * 2).min(BACK_OFF.1);
                    pause
                }
                Ok(end) => {
                    (told, back_off) = (false, BACK_OFF.0);
                    if end == RoundEnd::More { Duration::ZERO } else { POLL }
                }
                Err(error) => {
                    reader = None;
                    if !std::mem::replace(&mut told, true) {
                        let receiver = &self.receiver.name;
                        tracing::error!(receiver, %error, "the index does not give events; the next look tries again");
                    }
                    INDEX_PAUSE
                }
            };
            if !matches!(ended.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                break;
            }
        }
        if self.is_down {
            // Whether it can be reached now, nobody knows.
            metrics::EVENT_RECEIVERS_DOWN.add(-1);
        }
        self.show(DeliveryCounts::default());
        self.lease.end(&self.writer);
    }

    /// Whether this node serves the receiver.
    fn has_turn(&mut self) -> Result<bool, db::Error> {
        if self.lease.is_valid() {
            return Ok(true);
        }
        if self.asked.is_some_and(|asked| asked.elapsed() < ASK_AGAIN) {
            return Ok(false);
        }
        self.asked = Some(Instant::now());
        self.lease.renew(&self.writer)
    }

    fn poll(&mut self, reader: &mut Option<Reader>, ended: &Receiver<()>) -> Result<RoundEnd, db::Error> {
        if !self.has_turn()? {
            self.show(DeliveryCounts::default());
            return Ok(RoundEnd::Done);
        }
        let reader = match reader {
            Some(reader) => reader,
            None => {
                // A version means something to one reader only.
                (self.counted_version, self.settled_version) = (None, None);
                reader.insert(Reader::open(&self.index)?)
            }
        };
        let version = Some(reader.version()?);
        if version == self.settled_version {
            return Ok(RoundEnd::Done);
        }
        let end = self.round(reader, ended)?;
        if self.counted.is_none_or(|counted| counted.elapsed() >= COUNT) {
            self.counted = Some(Instant::now());
            self.counted_version = version;
            let counts = reader.delivery_counts(&self.receiver.name)?;
            self.show(counts);
        }
        // What waits is due by the clock.
        let is_settled = end == RoundEnd::Done && version == self.counted_version && self.counts.waiting == 0;
        self.settled_version = version.filter(|_| is_settled);
        Ok(end)
    }

    /// Delivers what is due, and then what is new. It ends with the lease: whoever had it meanwhile
    /// may have delivered what this round has read.
    fn round(&mut self, reader: &mut Reader, ended: &Receiver<()>) -> Result<RoundEnd, db::Error> {
        let mut changes = DeliveryChanges::default();
        let mut end = self.deliver_due(reader, &mut changes, ended)?;
        if end != RoundEnd::Down {
            let of_new = self.deliver_new(reader, &mut changes, ended)?;
            end = if of_new == RoundEnd::Done { end } else { of_new };
        }
        if end != RoundEnd::Down {
            self.set_down(None);
        }
        if !changes.is_empty() {
            let waiting = changes.waiting.clone();
            if self.writer.note_deliveries(self.receiver.name.clone(), self.lease.holder(), changes)? {
                // Only now does `dcmdex events failed` list them.
                waiting.iter().for_each(tell_of);
            }
        }
        Ok(end)
    }

    fn deliver_due(
        &mut self,
        reader: &mut Reader,
        changes: &mut DeliveryChanges,
        ended: &Receiver<()>,
    ) -> Result<RoundEnd, db::Error> {
        let due = reader.due_events(&self.receiver.name, self.clock.now_ms(), ROUND)?;
        let is_some = !due.is_empty();
        for waiting in due {
            if is_ended(ended) || !self.lease.is_valid() {
                break;
            }
            match self.deliver(reader, &waiting.event)? {
                Ok(()) => changes.delivered.push(waiting.event.id),
                Err(DeliveryFailure::Unreachable(why)) if self.clock.now_ms() < waiting.until_ms => {
                    self.set_down(Some(&why));
                    return Ok(RoundEnd::Down);
                }
                Err(failure) => changes.waiting.push(self.failed(waiting, &failure)),
            }
        }
        Ok(if is_some { RoundEnd::More } else { RoundEnd::Done })
    }

    fn deliver_new(
        &mut self,
        reader: &mut Reader,
        changes: &mut DeliveryChanges,
        ended: &Receiver<()>,
    ) -> Result<RoundEnd, db::Error> {
        let Some(position) = reader.event_position(&self.receiver.name)? else { return Ok(RoundEnd::Done) };
        let events = reader.events_after(position, ROUND)?;
        let is_full = events.len() == ROUND;
        for event in events {
            if is_ended(ended) || !self.lease.is_valid() {
                break;
            }
            let id = event.id;
            if self.receiver.kinds.iter().any(|kind| kind.as_str() == event.kind) {
                let waiting = self.waiting(event);
                if self.has_to_wait(reader, &waiting.event, changes)? {
                    changes.waiting.push(waiting);
                } else {
                    match self.deliver(reader, &waiting.event)? {
                        Ok(()) => {}
                        Err(failure) if self.blocks(&failure) && self.clock.now_ms() < self.until(&waiting.event) => {
                            self.set_down(Some(&failure.to_string()));
                            return Ok(RoundEnd::Down);
                        }
                        Err(failure) => changes.waiting.push(self.failed(waiting, &failure)),
                    }
                }
            }
            changes.position = Some(id);
        }
        Ok(if is_full { RoundEnd::More } else { RoundEnd::Done })
    }

    /// Whether an earlier event of the same study waits.
    fn has_to_wait(
        &self,
        reader: &mut Reader,
        event: &IndexEvent,
        changes: &DeliveryChanges,
    ) -> Result<bool, db::Error> {
        let study = &event.study_instance_uid;
        let waits = |waiting: &WaitingEvent| !waiting.is_dead && waiting.event.study_instance_uid == *study;
        Ok(!study.is_empty()
            && (changes.waiting.iter().any(waits) || reader.event_waits(&self.receiver.name, study)?))
    }

    /// Whether a failure keeps other events from being tried.
    fn blocks(&self, failure: &DeliveryFailure) -> bool {
        match failure {
            DeliveryFailure::Refused(_) => false,
            DeliveryFailure::Silent(_) => self.silences >= SILENCES,
            DeliveryFailure::Unreachable(_) => true,
        }
    }

    fn deliver(&mut self, reader: &mut Reader, event: &IndexEvent) -> Result<Result<(), DeliveryFailure>, db::Error> {
        let identifiers = match self.receiver.identifiers && !event.study_instance_uid.is_empty() {
            true => reader.identifiers_of_study(&event.study_instance_uid)?,
            false => None,
        };
        let outgoing = self.source.outgoing(event, identifiers.as_ref());
        let done = match &mut self.caller {
            EventCaller::Webhook(caller) => caller.deliver(&outgoing),
            EventCaller::Command(caller) => caller.deliver(&outgoing),
        };
        self.silences = match &done {
            Err(DeliveryFailure::Silent(_)) => self.silences.saturating_add(1),
            Ok(()) | Err(DeliveryFailure::Refused(_) | DeliveryFailure::Unreachable(_)) => 0,
        };
        let counter = if done.is_ok() { &metrics::EVENT_DELIVERIES_DONE } else { &metrics::EVENT_DELIVERIES_FAILED };
        counter.increment();
        Ok(done)
    }

    /// Until when an event is tried, if it was never tried before.
    fn until(&self, event: &IndexEvent) -> i64 {
        event.at_ms.saturating_add(i64::try_from(self.receiver.give_up.as_millis()).unwrap_or(i64::MAX))
    }

    /// A new event that waits from now on.
    fn waiting(&self, event: IndexEvent) -> WaitingEvent {
        let (now_ms, receiver) = (self.clock.now_ms(), self.receiver.name.clone());
        let until_ms = now_ms.max(self.until(&event));
        WaitingEvent { receiver, event, attempts: 0, next_ms: now_ms, until_ms, failure: String::new(), is_dead: false }
    }

    /// Returns the event as it waits after a failed attempt.
    fn failed(&self, waiting: WaitingEvent, failure: &DeliveryFailure) -> WaitingEvent {
        let (now_ms, attempts, failure) =
            (self.clock.now_ms(), waiting.attempts.saturating_add(1), failure.to_string());
        let is_dead = now_ms >= waiting.until_ms;
        WaitingEvent { attempts, failure, is_dead, next_ms: now_ms.saturating_add(retry_ms(attempts)), ..waiting }
    }

    /// Notes that the receiver cannot be reached, and why, or that it can.
    fn set_down(&mut self, why: Option<&str>) {
        let receiver = &self.receiver.name;
        match (why, self.is_down) {
            (Some(failure), false) => {
                metrics::EVENT_RECEIVERS_DOWN.add(1);
                tracing::warn!(receiver, failure, "a receiver of events cannot be reached; its events wait");
            }
            (None, true) => {
                metrics::EVENT_RECEIVERS_DOWN.add(-1);
                tracing::info!(receiver, "a receiver of events can be reached again");
            }
            (Some(_), true) | (None, false) => {}
        }
        self.is_down = why.is_some();
    }

    /// Shows what waits in the metrics, which have the sum of all receivers.
    fn show(&mut self, counts: DeliveryCounts) {
        let difference = |new: u64, old: u64| new.cast_signed().wrapping_sub(old.cast_signed());
        metrics::EVENTS_WAITING.add(difference(counts.waiting, self.counts.waiting));
        metrics::EVENTS_DEAD.add(difference(counts.dead, self.counts.dead));
        self.counts = counts;
    }
}

/// Says that an event has become a dead letter, or was not taken for the first time.
fn tell_of(waiting: &WaitingEvent) {
    let WaitingEvent { receiver, event, attempts, failure, .. } = waiting;
    if waiting.is_dead {
        metrics::EVENT_DEAD_LETTERS.increment();
        tracing::error!(
            receiver,
            event = event.id,
            attempts,
            failure,
            "a receiver did not take an event in time; `dcmdex events failed` lists it"
        );
    } else if *attempts == 1 {
        tracing::warn!(receiver, event = event.id, failure, "a receiver did not take an event; it is tried again");
    }
}

/// Whether the thread has to end.
fn is_ended(ended: &Receiver<()>) -> bool {
    matches!(ended.try_recv(), Err(TryRecvError::Disconnected))
}

/// Pause after a number of failed attempts, in milliseconds.
fn retry_ms(attempts: u32) -> i64 {
    1000_i64.saturating_mul(1 << attempts.saturating_sub(1).min(20)).min(LONGEST_RETRY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_their_limit() {
        let pauses: Vec<_> = [1, 2, 3, 10, 11, 30, u32::MAX].map(retry_ms).to_vec();
        assert_eq!(pauses, [1000, 2000, 4000, 512_000, 900_000, 900_000, 900_000]);
    }
}
