//! Threads of `dcmdex serve` that do something again and again.

use std::ops::ControlFlow;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

/// Whether a thread must end.
pub(super) struct Ended(mpsc::Receiver<()>);

impl Ended {
    /// Waits for this time, or until the thread must end. It must end on `Break`.
    pub(super) fn wait(&self, time: Duration) -> ControlFlow<()> {
        match self.0.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => ControlFlow::Continue(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(()),
        }
    }
}

/// Threads that end when they are stopped.
#[derive(Default)]
pub(super) struct RepeatingThreads {
    /// Dropping these ends the threads.
    go_on: Vec<mpsc::Sender<()>>,
    threads: Vec<(&'static str, thread::JoinHandle<()>)>,
}

impl RepeatingThreads {
    /// Starts a thread. It works, waits for the time that the work returns, and works again.
    pub(super) fn start(
        &mut self,
        name: &'static str,
        mut work: impl FnMut(&Ended) -> Duration + Send + 'static,
    ) -> anyhow::Result<()> {
        let (go_on, ended) = mpsc::channel();
        let ended = Ended(ended);
        let run = move || while ended.wait(work(&ended)).is_continue() {};
        let thread = thread::Builder::new().name(name.into()).spawn(run);
        self.threads.push((name, thread.with_context(|| format!("cannot start the thread `{name}`"))?));
        self.go_on.push(go_on);
        Ok(())
    }

    /// Ends the threads, each after what it is doing.
    pub(super) fn stop(self) {
        drop(self.go_on);
        for (name, thread) in self.threads {
            if thread.join().is_err() {
                tracing::error!("a defect of dcmdex ended the thread `{name}`");
            }
        }
    }
}
