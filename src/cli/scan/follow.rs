//! `dcmdex scan --follow` goes on after the first scan, and looks again at what it scanned.

use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::report::{Report, ReportFormat};
use crate::cli::Exit;
use crate::cli::output::Shown;
use crate::config::Config;
use crate::db::open::Writer;
use crate::model::clock::Clock;
use crate::scanner::{self, Settling, Stop, Vanished};
use crate::watch::{Interval, LookKind, SETTLED_AFTER, Scheduler, WatchContext, WatchEvent, WatchPlan, WatchedRoots};

/// Time between two checks for a signal.
const NAP: Duration = Duration::from_millis(100);

/// Follows the paths until a signal comes.
pub(super) fn follow(
    (paths, every): (Vec<PathBuf>, Interval),
    mut options: scanner::Options,
    config: &Config,
    stop: &Stop,
    report: &mut Report<'_>,
) -> anyhow::Result<Exit> {
    options.settling = Some(Settling::new(SETTLED_AFTER, Clock::System));
    if options.vanished == Vanished::PruneEmptied {
        // That is for one scan after which somebody looks, not for ever.
        options.vanished = Vanished::Prune;
    }
    let plan = WatchPlan { every: Some(every), at: None };
    let watch = WatchedRoots { paths, plan, events: true, options };
    let writer = Writer::open(&config.index, config.scan_writer_options())?;
    let context =
        WatchContext { by: "scan", index: config.index.clone(), writer: writer.handle(), clock: Clock::System };
    let (scheduler, control) = Scheduler::new(vec![watch], context)?;
    let flag = stop.flag();
    std::thread::Builder::new()
        .name("follow".into())
        .spawn(move || {
            while !flag.load(Relaxed) {
                std::thread::sleep(NAP);
            }
            control.stop();
        })
        .context("cannot start a thread")?;
    let mut said_first = false;
    scheduler.run(&mut |event| {
        tell(&event, report, &mut said_first);
        report.flush();
        if report.failure.is_some() {
            // Nobody reads the report any more.
            stop.ask();
        }
    });
    writer.close().context("could not write the last changes to the index")?;
    Ok(Exit::Done)
}

fn tell(event: &WatchEvent<'_>, report: &mut Report<'_>, said_first: &mut bool) {
    match event {
        WatchEvent::Scan(event) => report.event(event),
        WatchEvent::Listens { events, .. } => match report.format {
            ReportFormat::Json => report.line(json!({ "event": "listens", "events": events })),
            ReportFormat::Text => report.line(format_args!("changes are noticed by {events}")),
        },
        WatchEvent::Looked { kind, summary, slower_than, .. } => {
            let has_news = summary.indexed + summary.updated + summary.removed + summary.failed > 0;
            let is_first = !std::mem::replace(said_first, true);
            match report.format {
                ReportFormat::Json => report.summary(summary),
                // A look every minute that finds nothing new is no news.
                ReportFormat::Text if *kind == LookKind::All && (is_first || has_news) => report.summary(summary),
                ReportFormat::Text if has_news => report.line(format_args!(
                    "changes: indexed {}, updated {}, removed {}, failed {}",
                    summary.indexed, summary.updated, summary.removed, summary.failed
                )),
                ReportFormat::Text => {}
            }
            if let Some(usual) = slower_than {
                tracing::warn!(
                    elapsed_ms = summary.elapsed.as_millis(),
                    usual_ms = usual.as_millis(),
                    "this look took far longer than those before"
                );
            }
        }
        WatchEvent::Failed { watch, error, again } => {
            if !again {
                let paths: Vec<_> = watch.paths.iter().map(|path| Shown(path).to_string()).collect();
                tracing::error!(paths = paths.join(", "), %error, "a look failed; the next one is made as planned");
            }
        }
    }
}
