//! The thread of `serve` that looks at watched directories.

use std::thread;

use anyhow::Context as _;

use super::priority::give_way;
use crate::config::Config;
use crate::db::open::WriterHandle;
use crate::model::clock::Clock;
use crate::scanner::ScanEvent;
use crate::watch::{LookKind, Scheduler, WatchContext, WatchControl, WatchEvent, WatchedRoots};

/// The thread that looks at watched directories.
pub(super) struct Watching {
    control: WatchControl,
    thread: thread::JoinHandle<()>,
}

impl Watching {
    /// Begins to watch. Without watched directories the thread waits for some.
    pub(super) fn start(config: &Config, writer: WriterHandle) -> anyhow::Result<Self> {
        let context = WatchContext { by: "serve", index: config.index.clone(), writer, clock: Clock::System };
        let (scheduler, control) = Scheduler::new(config.watched(), context)?;
        let run = move || {
            give_way();
            scheduler.run(&mut |event| log(&event));
        };
        let thread = thread::Builder::new().name("watch".into()).spawn(run).context("cannot start the watch thread")?;
        Ok(Self { control, thread })
    }

    /// Returns a handle that takes new settings.
    pub(super) fn control(&self) -> WatchControl {
        self.control.clone()
    }

    /// Stops the look under way, which keeps what it has done.
    pub(super) fn stop(self) {
        self.control.stop();
        if self.thread.join().is_err() {
            tracing::error!("a defect of dcmdex ended the watch of directories");
        }
    }
}

fn shown(watch: &WatchedRoots) -> String {
    watch.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Logs a look. The level of a line has to be known when the program is compiled.
macro_rules! looked {
    ($level:ident, $watch:ident, $kind:ident, $summary:ident, $elapsed_ms:ident) => {
        tracing::$level!(
            path = shown($watch),
            found = $summary.found,
            indexed = $summary.indexed,
            updated = $summary.updated,
            removed = $summary.removed,
            failed = $summary.failed,
            pending = $summary.pending,
            elapsed_ms = $elapsed_ms,
            interrupted = $summary.interrupted.then_some(true),
            "{}",
            if *$kind == LookKind::All { "looked at a watched directory" } else { "looked at changes" }
        )
    };
}

fn log(event: &WatchEvent<'_>) {
    match event {
        // A path may hold the name of a patient. `dcmdex scan` names it.
        WatchEvent::Scan(ScanEvent::NotPruned(not_pruned)) => tracing::warn!(
            files = not_pruned.files,
            reason = not_pruned.why.as_str(),
            "files below a watched directory are missing, and stay in the index because a disk may not be mounted"
        ),
        WatchEvent::Scan(ScanEvent::Hangs(hang)) => {
            tracing::warn!(waited_ms = hang.waited.as_millis(), "a file or directory that is watched does not answer")
        }
        WatchEvent::Scan(_) => {}
        WatchEvent::Listens { watch, events, coverage } => match coverage {
            Some((directories, true)) => tracing::warn!(
                path = shown(watch),
                events,
                directories,
                plan = %watch.plan,
                "only the directories that changed last are under inotify, because their number is limited \
                 (fs.inotify.max_user_watches); what changes elsewhere is found as planned"
            ),
            Some(_) | None => tracing::info!(path = shown(watch), events, plan = %watch.plan, "watches a directory"),
        },
        WatchEvent::Looked { watch, kind, summary, slower_than } => {
            let elapsed_ms = u64::try_from(summary.elapsed.as_millis()).unwrap_or(u64::MAX);
            // A watch that is looked at every second would otherwise fill the log.
            let has_changed = summary.indexed + summary.updated + summary.removed > 0 || summary.interrupted;
            if has_changed {
                looked!(info, watch, kind, summary, elapsed_ms);
            } else {
                looked!(debug, watch, kind, summary, elapsed_ms);
            }
            if let Some(usual) = slower_than {
                tracing::warn!(
                    path = shown(watch),
                    elapsed_ms,
                    usual_ms = u64::try_from(usual.as_millis()).unwrap_or(u64::MAX),
                    "this look at a watched directory took far longer than those before"
                );
            }
        }
        WatchEvent::Failed { watch, error, again: false } => tracing::error!(
            path = shown(watch),
            %error,
            "a watched directory cannot be looked at; the next look is made as planned"
        ),
        WatchEvent::Failed { again: true, .. } => {}
    }
}
