//! The threads that tell events while a node runs.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::courier::Courier;
use super::error::Error;
use super::message::EventSource;
use super::receiver::EventReceiver;
use super::recorder::{EventRecorder, RecorderOptions};
use crate::db::Arrivals as _;
use crate::db::open::WriterHandle;
use crate::model::clock::Clock;

/// Time for deliveries under way when the node stops. What takes longer is made again by the next
/// one.
const LAST_DELIVERIES: Duration = Duration::from_secs(2);

/// What is told, and to whom.
#[derive(Clone, Debug)]
pub struct EventOptions {
    /// The index.
    pub index: PathBuf,
    /// AE title of the node.
    pub node: String,
    /// What is recorded.
    pub recorder: RecorderOptions,
    /// Who gets it.
    pub receivers: Vec<EventReceiver>,
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
    /// Starts the threads. `damaged` gives the SOP Instance UIDs of objects that are found damaged.
    ///
    /// # Errors
    /// If a receiver's key or certificates cannot be read, or if the index fails.
    pub fn start(options: EventOptions, writer: &WriterHandle, damaged: Receiver<String>) -> Result<Self, Error> {
        let EventOptions { index, node, recorder, receivers } = options;
        let clock = Clock::System;
        let source = EventSource { index: writer.name_index(None)?, node };
        let couriers: Vec<_> = receivers
            .into_iter()
            .map(|receiver| {
                let name = receiver.name.clone();
                Ok((name, Courier::new(receiver, (index.clone(), writer.clone()), source.clone(), clock)?))
            })
            .collect::<Result<_, Error>>()?;
        writer.keep_receivers(couriers.iter().map(|(name, _)| name.clone()).collect())?;
        let (runs, running) = bounded(0);
        let mut telling = Self { go_on: Vec::new(), threads: Vec::new(), running };
        let recorder = EventRecorder { index, writer: writer.clone(), options: recorder, damaged, clock };
        telling.spawn(&runs, "events", |ended| recorder.run(ended))?;
        for (_, courier) in couriers {
            telling.spawn(&runs, "event receiver", |ended| courier.run(ended))?;
        }
        Ok(telling)
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
