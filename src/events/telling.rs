//! The threads that tell events while a node runs.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::courier::{Courier, EventCaller};
use super::error::Error;
use super::lease::ReceiverLease;
use super::message::EventSource;
use super::receiver::EventReceiver;
use super::recorder::{EventRecorder, RecorderOptions};
use crate::db::open::WriterHandle;
use crate::db::{Arrivals as _, EventChanges as _};
use crate::model::clock::Clock;

/// Time for deliveries under way when the node stops. What takes longer is made again by the next
/// one.
const LAST_DELIVERIES: Duration = Duration::from_secs(2);

/// Damaged objects that wait until the next file is asked for them.
const WAITING_DAMAGED: usize = 1024;

/// Options of the delivery of events.
#[derive(Clone, Debug)]
pub struct EventOptions {
    /// AE title of the node.
    pub node: String,
    /// Settings for the events that are recorded.
    pub recorder: RecorderOptions,
    /// Receivers of these events.
    pub receivers: Vec<EventReceiver>,
}

impl EventOptions {
    /// Reads the keys and certificates of all receivers, as a start does. Returns what is wrong.
    #[must_use]
    pub fn problems(&self) -> Vec<Error> {
        self.receivers.iter().filter_map(|receiver| EventCaller::new(receiver).err()).collect()
    }
}

/// The threads: one that records, and one for each receiver.
pub struct Telling {
    /// Dropping these ends the threads.
    go_on: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    /// It ends when all threads have.
    running: Receiver<()>,
}

impl Telling {
    /// Starts the threads, for each file of the index. `damaged` gives the SOP Instance UIDs of
    /// objects that are found damaged.
    ///
    /// # Errors
    /// If a receiver's key or certificates cannot be read, or if the index fails.
    pub fn start(options: &EventOptions, writer: &WriterHandle, mut damaged: Receiver<String>) -> Result<Self, Error> {
        let (runs, running) = bounded(0);
        let mut telling = Self { go_on: Vec::new(), threads: Vec::new(), running };
        let mut files = writer.files().into_iter().peekable();
        while let Some((index, file)) = files.next() {
            let (next, of_next) = bounded(WAITING_DAMAGED);
            let next = files.peek().map(|_| next);
            let recorder = EventRecorder {
                index,
                writer: file,
                options: options.recorder.clone(),
                damaged: std::mem::replace(&mut damaged, of_next),
                next,
                clock: Clock::System,
                leases: options.receivers.iter().map(|one| Arc::new(ReceiverLease::new(one.name.clone()))).collect(),
            };
            telling.tell(options, recorder, &runs)?;
        }
        Ok(telling)
    }

    /// Starts the threads of one file.
    fn tell(&mut self, options: &EventOptions, recorder: EventRecorder, runs: &Sender<()>) -> Result<(), Error> {
        let (index, writer, clock) = (recorder.index.clone(), recorder.writer.clone(), recorder.clock);
        let source = EventSource { index: writer.name_index(None)?, node: options.node.clone() };
        let receivers = options.receivers.iter().cloned().zip(recorder.leases.iter().cloned());
        let couriers: Vec<_> = receivers
            .map(|(receiver, lease)| {
                Courier::new(receiver, lease, (index.clone(), writer.clone()), source.clone(), clock)
            })
            .collect::<Result<_, Error>>()?;
        let names = options.receivers.iter().map(|receiver| receiver.name.clone()).collect();
        let forgotten = writer.keep_receivers(names)?;
        if forgotten > 0 {
            tracing::warn!(
                receivers = forgotten,
                "receivers of events that the settings do not name were forgotten, with the events that waited for them"
            );
        }
        self.spawn(runs, "events", |ended| recorder.run(ended))?;
        for courier in couriers {
            self.spawn(runs, "event receiver", |ended| courier.run(ended))?;
        }
        Ok(())
    }

    fn spawn(
        &mut self,
        runs: &Sender<()>,
        name: &str,
        work: impl FnOnce(&Receiver<()>) + Send + 'static,
    ) -> Result<(), Error> {
        let (go_on, ended) = bounded(0);
        let runs = runs.clone();
        let run = move || {
            let _runs = runs;
            work(&ended);
        };
        self.threads.push(thread::Builder::new().name(name.into()).spawn(run).map_err(Error::Thread)?);
        self.go_on.push(go_on);
        Ok(())
    }

    /// Ends the threads. A delivery that takes too long is left behind, and ends with the process.
    pub fn stop(self) {
        drop(self.go_on);
        let deadline = Instant::now() + LAST_DELIVERIES;
        if self.running.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            tracing::info!("a receiver of events is slow; the event is delivered again after the next start");
            return;
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a defect of dcmdex ended a thread of events");
            }
        }
    }
}
