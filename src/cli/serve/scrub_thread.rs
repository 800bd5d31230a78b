//! The thread that reads all managed objects slowly, to find damage.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use super::priority::give_way;
use crate::config::Config;
use crate::deliver::scrub::{Scrub, ScrubTally};
use crate::store::Verified;

/// Minimum pause between two rounds of a scrub.
const LEAST_SCRUB_PAUSE: Duration = Duration::from_secs(60);

/// The thread that reads all managed objects slowly, to find damage.
pub(super) struct Scrubbing {
    /// Dropping it ends the thread.
    go_on: mpsc::Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Scrubbing {
    pub(super) fn start(config: &Config, verified: Arc<Verified>) -> anyhow::Result<Self> {
        let (go_on, ended) = mpsc::channel();
        let Some(bytes_per_second) = config.integrity.scrub_bytes_per_second else {
            return Ok(Self { go_on, thread: None });
        };
        let scrub = Scrub { index: config.index.clone(), bytes_per_second, verified };
        let pause = config.integrity.scrub_pause;
        let thread = thread::Builder::new().name("scrub".into()).spawn(move || {
            give_way();
            let mut wait = |time| match ended.recv_timeout(time) {
                Err(RecvTimeoutError::Timeout) => ControlFlow::Continue(()),
                Ok(()) | Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(()),
            };
            loop {
                scrub_once(&scrub, &mut wait);
                // There is always a short pause. Otherwise an empty storage directory would make
                // the thread query the index all the time.
                if wait(pause.max(LEAST_SCRUB_PAUSE)).is_break() {
                    return;
                }
            }
        });
        Ok(Self { go_on, thread: Some(thread.context("cannot start the scrub thread")?) })
    }

    pub(super) fn stop(self) {
        drop(self.go_on);
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a defect of dcmdex ended the scrub");
        }
    }
}

/// Runs one round of the scrub and logs its result.
fn scrub_once(scrub: &Scrub, wait: &mut dyn FnMut(Duration) -> ControlFlow<()>) {
    match scrub.round(wait) {
        Ok(ScrubTally { sound, damaged, gone, bytes }) if damaged + gone > 0 => {
            tracing::error!(
                sound,
                damaged,
                gone,
                read_bytes = bytes,
                "scrub: stored objects are damaged or gone; `dcmdex check --files` names them"
            );
        }
        Ok(ScrubTally { sound, bytes, .. }) => {
            tracing::info!(sound, read_bytes = bytes, "scrub: all stored objects that were checked are sound");
        }
        Err(error) => tracing::error!(%error, "scrub: the index cannot be read; the next round tries again"),
    }
}
