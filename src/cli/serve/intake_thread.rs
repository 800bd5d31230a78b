//! What feeds the worklist of `dcmdex serve`: its folder, and the life of its items. Each has a
//! thread.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use crate::config::Config;
use crate::db::host_name;
use crate::db::open::Reader;
use crate::model::clock::Clock;
use crate::worklist::{Intake, LOOK_AFTER, LifeOptions, ROUND_AFTER, WorklistFolder, live};

/// The threads. They end when they are stopped.
pub(super) struct Feeding {
    /// Dropping these ends the threads.
    go_on: Vec<mpsc::Sender<()>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Feeding {
    /// Starts the threads, if peers can ask for the worklist.
    pub(super) fn start(config: &Config, intake: &Arc<Intake>) -> anyhow::Result<Self> {
        let mut feeding = Self { go_on: Vec::new(), threads: Vec::new() };
        if !config.worklist.enabled {
            return Ok(feeding);
        }
        if let Some(path) = &config.worklist.folder {
            let character_set = config.find.assumed_character_set.clone();
            let node = format!("{}@{}", config.node.ae_title, host_name());
            let mut folder = WorklistFolder::new(path.clone(), Arc::clone(intake), node, character_set, Clock::System);
            feeding.spawn("worklist folder", move || match folder.look() {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, "the index did not take files of the worklist; they are tried again");
                    LOOK_AFTER
                }
            })?;
        }
        let (index, options, intake) = (config.index.clone(), config.worklist.life, Arc::clone(intake));
        feeding.spawn("worklist life", move || {
            if let Err(error) = round(&index, options, &intake) {
                tracing::error!(%error, "the states of the worklist cannot be kept; the next round tries again");
            }
            ROUND_AFTER
        })?;
        Ok(feeding)
    }

    /// Starts a thread that does something again and again. It says how long to wait in between.
    fn spawn(&mut self, name: &str, mut work: impl FnMut() -> Duration + Send + 'static) -> anyhow::Result<()> {
        let (go_on, ended) = mpsc::channel();
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            loop {
                let pause = work();
                match ended.recv_timeout(pause) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        self.go_on.push(go_on);
        self.threads.push(thread.context("cannot start a thread of the worklist")?);
        Ok(())
    }

    /// Ends the threads, each after what it is doing.
    pub(super) fn stop(self) {
        drop(self.go_on);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a defect of dcmdex ended a thread of the worklist");
            }
        }
    }
}

fn round(index: &Path, options: LifeOptions, intake: &Intake) -> Result<(), crate::db::Error> {
    live(&mut Reader::open(index)?, intake, options, Clock::System.now_ms())
}
