//! The trail of a node: where its services leave events, and the threads that write and send them.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::record::AuditRecord;
use super::sender::AuditSender;
use super::spool::{AuditSpool, SpoolLimits};
use super::syslog::{CollectorCaller, CollectorOptions};
use crate::model::clock::Clock;
use crate::telemetry::metrics;

/// Events in memory that wait for the disk. One more is dropped and counted. An event takes a few
/// hundred bytes.
const QUEUE: usize = 16_384;

/// Most events in one write.
const BATCH: usize = 1024;

/// Time between two syncs, and between two attempts on a disk that is full.
const SYNC: Duration = Duration::from_secs(1);

/// Settings of a trail.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// Directory of its files.
    pub directory: PathBuf,
    /// Bytes of all files.
    ///
    /// Larger: a collector may be away for longer. Smaller: less disk.
    pub max_bytes: u64,
    /// Time for which events are kept. Events that are not sent yet stay for longer.
    pub keep: Duration,
    /// Collector to which they are sent. `None`: they are not sent.
    pub collector: Option<CollectorOptions>,
    /// AE title of the node.
    pub node: String,
}

impl AuditOptions {
    /// Reads the certificates for the collector, as a start does.
    ///
    /// # Errors
    /// [`AuditError::Collector`].
    pub fn check_collector(&self) -> Result<(), AuditError> {
        let caller = self.collector.clone().map(CollectorCaller::new).transpose();
        caller.map(drop).map_err(AuditError::Collector)
    }
}

/// Reason why there is no trail.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The directory cannot be written.
    #[error("the directory of the audit trail, {}, cannot be written", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The certificates for the collector cannot be used.
    #[error("the collector of the audit trail cannot be called")]
    Collector(#[source] io::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Takes events. Clones belong to the same trail. Without a trail it takes nothing.
#[derive(Clone, Default)]
pub struct Auditor(Option<Arc<AuditQueue>>);

struct AuditQueue {
    node: String,
    clock: Clock,
    queue: Sender<AuditRecord>,
}

impl std::fmt::Debug for Auditor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Auditor").field(&self.is_on()).finish()
    }
}

impl Auditor {
    /// Whether there is a trail. Without one, nobody needs to make an event.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Takes an event, and returns at once. One about several patients becomes one for each, where
    /// the Standard wants it so.
    pub fn note(&self, mut record: AuditRecord) {
        let Some(trail) = &self.0 else { return };
        record.time_ms = trail.clock.now_ms();
        record.node.clone_from(&trail.node);
        for record in record.of_one_patient_each() {
            match trail.queue.try_send(record) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => metrics::AUDIT_DROPPED.increment(),
            }
        }
    }
}

/// The threads of a trail. They end when it is closed.
pub struct AuditTrail {
    auditor: Auditor,
    end: Sender<()>,
    writer: JoinHandle<()>,
    sender: JoinHandle<()>,
    end_sender: Sender<()>,
}

impl AuditTrail {
    /// Opens a trail.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn open(options: AuditOptions, clock: Clock) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Directory { path: options.directory.clone(), source };
        let spool = AuditSpool::open(&options.directory).map_err(failed)?;
        let newest = spool.newest().map_err(failed)?;
        let caller = options.collector.map(CollectorCaller::new).transpose().map_err(AuditError::Collector)?;
        let limits = SpoolLimits { bytes: options.max_bytes, keep: options.keep };
        let (queue, events) = bounded(QUEUE);
        let (end, ended) = bounded::<()>(0);
        let (end_sender, sender_ended) = bounded::<()>(0);
        let lines = LineWriter { spool: spool.clone(), newest, pending: Vec::new(), is_unsynced: false, told: false };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let writer = thread("audit writer").spawn(move || lines.run(&events, &ended)).map_err(AuditError::Thread)?;
        let sending = AuditSender { spool, caller, limits };
        let sender = thread("audit sender").spawn(move || sending.run(&sender_ended)).map_err(AuditError::Thread)?;
        let auditor = Auditor(Some(Arc::new(AuditQueue { node: options.node, clock, queue })));
        Ok(Self { auditor, end, writer, sender, end_sender })
    }

    /// Returns what takes events.
    #[must_use]
    pub fn auditor(&self) -> Auditor {
        self.auditor.clone()
    }

    /// Writes what was taken, tries once to send it, and ends.
    pub fn close(self) {
        drop(self.end);
        if self.writer.join().is_err() {
            tracing::error!("a defect of dcmdex ended the audit trail");
        }
        drop(self.end_sender);
        if self.sender.join().is_err() {
            tracing::error!("a defect of dcmdex ended the sending of the audit trail");
        }
    }
}

/// The thread that writes lines.
struct LineWriter {
    spool: AuditSpool,
    newest: (u64, std::fs::File),
    /// Lines that a full disk did not take.
    pending: Vec<u8>,
    is_unsynced: bool,
    told: bool,
}

impl LineWriter {
    fn run(mut self, events: &Receiver<AuditRecord>, ended: &Receiver<()>) {
        let mut synced = Instant::now();
        loop {
            let is_ending = ended.try_recv() == Err(crossbeam_channel::TryRecvError::Disconnected);
            let batch = self.batch(events, is_ending);
            if batch == 0 && is_ending && self.pending.is_empty() && !self.is_unsynced {
                return;
            }
            let written = self.write(synced.elapsed() >= SYNC || is_ending);
            if self.is_unsynced && (synced.elapsed() >= SYNC || is_ending) {
                synced = Instant::now();
                self.is_unsynced = false;
            }
            match written {
                Ok(()) if std::mem::replace(&mut self.told, false) => {
                    tracing::info!("the audit trail is written again")
                }
                Ok(()) => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.told, true) {
                        tracing::error!(%error, "the audit trail cannot be written; it waits in memory");
                    }
                    if is_ending {
                        let lost = self.pending.iter().filter(|byte| **byte == b'\n').count() + events.len();
                        metrics::AUDIT_DROPPED.add(lost as u64);
                        tracing::error!(events = lost, "events of the audit trail are lost");
                        return;
                    }
                    std::thread::sleep(SYNC);
                }
            }
        }
    }

    /// Takes what waits, up to a batch. While the disk is full, nothing is taken, so that the queue
    /// bounds the memory.
    fn batch(&mut self, events: &Receiver<AuditRecord>, is_ending: bool) -> usize {
        if !self.pending.is_empty() {
            return 0;
        }
        let first = match is_ending {
            true => events.try_recv().ok(),
            false => events.recv_timeout(SYNC / 4).ok(),
        };
        let mut count = 0;
        for event in first.into_iter().chain(events.try_iter()).take(BATCH) {
            self.pending.extend_from_slice(event.line().as_bytes());
            count += 1;
        }
        count
    }

    fn write(&mut self, sync: bool) -> io::Result<()> {
        if !self.pending.is_empty() {
            let length = self.newest.1.metadata()?.len();
            if let Err(error) = self.newest.1.write_all(&self.pending) {
                // Half a line must not stay, since the whole of it is written again.
                self.newest.1.set_len(length)?;
                return Err(error);
            }
            metrics::AUDIT_EVENTS.add(self.pending.iter().filter(|byte| **byte == b'\n').count() as u64);
            self.pending.clear();
            self.is_unsynced = true;
            if let Some(next) = self.spool.after(self.newest.0, &self.newest.1)? {
                self.newest.1.sync_data()?;
                self.newest = next;
            }
        }
        if sync && self.is_unsynced { self.newest.1.sync_data() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::AuditEvent;

    #[test]
    fn events_are_on_disk_when_the_trail_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let options = AuditOptions {
            directory: directory.path().join("audit"),
            max_bytes: 1 << 20,
            keep: Duration::from_secs(3600),
            collector: None,
            node: "NODE".into(),
        };
        let trail = AuditTrail::open(options, Clock::Fixed(7)).unwrap();
        for _ in 0..3000 {
            trail.auditor().note(AuditRecord::new(AuditEvent::Query, "C-FIND"));
        }
        trail.close();
        let text = std::fs::read_to_string(directory.path().join("audit/audit-00000001.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 3000);
        let record: AuditRecord = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((record.time_ms, record.node.as_str(), record.service.as_str()), (7, "NODE", "C-FIND"));
    }

    #[test]
    fn without_a_trail_nothing_is_taken() {
        let auditor = Auditor::default();
        assert!(!auditor.is_on());
        auditor.note(AuditRecord::new(AuditEvent::Start, ""));
    }
}
