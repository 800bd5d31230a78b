//! The threads that feed the worklist of `dcmdex serve`: from its folder, and by the life of its
//! items.

use std::path::Path;
use std::sync::Arc;

use super::repeating::RepeatingThreads;
use crate::config::Config;
use crate::db::host_name;
use crate::db::open::Reader;
use crate::model::clock::Clock;
use crate::worklist::{Intake, LOOK_AFTER, LifeOptions, ROUND_AFTER, WorklistFolder, live};

/// Starts the threads, if peers can ask for the worklist.
pub(super) fn start(threads: &mut RepeatingThreads, config: &Config, intake: &Arc<Intake>) -> anyhow::Result<()> {
    if !config.worklist.enabled {
        return Ok(());
    }
    if let Some(path) = &config.worklist.folder {
        let character_set = config.find.assumed_character_set.clone();
        let node = format!("{}@{}", config.node.ae_title, host_name());
        let mut folder = WorklistFolder::new(path.clone(), Arc::clone(intake), node, character_set, Clock::System);
        threads.start("worklist folder", move |_| match folder.look() {
            Ok(pause) => pause,
            Err(error) => {
                tracing::error!(%error, "the index did not take files of the worklist; they are tried again");
                LOOK_AFTER
            }
        })?;
    }
    let (index, options, intake) = (config.index.clone(), config.worklist.life, Arc::clone(intake));
    threads.start("worklist life", move |_| {
        if let Err(error) = round(&index, options, &intake) {
            tracing::error!(%error, "the states of the worklist cannot be kept; the next round tries again");
        }
        ROUND_AFTER
    })
}

fn round(index: &Path, options: LifeOptions, intake: &Intake) -> Result<(), crate::db::Error> {
    live(&mut Reader::open(index)?, intake, options, Clock::System.now_ms())
}
