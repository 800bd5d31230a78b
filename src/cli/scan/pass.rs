//! One pass of a scan, which is reported while it runs.

use super::progress::Progress;
use super::report::Report;
use crate::scanner::{self, Roots, ScanEvent, ScanTarget, Stop, Summary};

/// Scans, and tells what comes of it.
pub(super) fn scan(
    roots: &Roots,
    options: &scanner::Options,
    target: ScanTarget<'_>,
    stop: &Stop,
    report: &mut Report<'_>,
    progress: &mut Progress,
) -> Result<Summary, scanner::Error> {
    let summary = scanner::scan(roots, options, target, stop, &mut |event| match event {
        ScanEvent::Progress(summary) => {
            report.progress(summary, progress.expected());
            progress.around(|| report.flush());
            progress.update(summary);
        }
        event => report.event(&event),
    });
    progress.finish();
    summary
}
