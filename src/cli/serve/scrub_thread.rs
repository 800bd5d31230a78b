//! The thread that reads all managed objects slowly, to find damage.

use std::ops::ControlFlow;
use std::sync::{Arc, Once};
use std::time::Duration;

use super::priority::give_way;
use super::repeating::RepeatingThreads;
use crate::config::Config;
use crate::deliver::scrub::{Scrub, ScrubTally};
use crate::store::Verified;

/// Minimum pause between two rounds of a scrub. Otherwise an empty storage directory would make the
/// thread query the index all the time.
const LEAST_SCRUB_PAUSE: Duration = Duration::from_secs(60);

/// Starts the thread, if the settings ask for a scrub.
pub(super) fn start(threads: &mut RepeatingThreads, config: &Config, verified: Arc<Verified>) -> anyhow::Result<()> {
    let Some(bytes_per_second) = config.integrity.scrub_bytes_per_second else { return Ok(()) };
    let scrub = Scrub { index: config.index.clone(), bytes_per_second, verified };
    let (pause, begun) = (config.integrity.scrub_pause.max(LEAST_SCRUB_PAUSE), Once::new());
    threads.start("scrub", move |ended| {
        begun.call_once(give_way);
        scrub_once(&scrub, &mut |time| ended.wait(time));
        pause
    })
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
