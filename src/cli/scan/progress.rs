//! The progress of a scan on standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::report::{bytes_text, eta};
use crate::cli::output::{Grouped, terminal_width};
use crate::scanner::{FilesAhead, Roots, Summary};

/// Time between two progress lines, if standard error is no terminal.
const PROGRESS_LINES: Duration = Duration::from_secs(10);

/// Progress on standard error: one line that changes on a terminal, single lines at intervals
/// elsewhere.
pub(super) struct Progress {
    /// Expected number of files, from the last scan of the same paths.
    known: Option<u64>,
    /// The count of a first scan.
    ahead: Option<FilesAhead>,
    shown: ShownAs,
}

pub(super) enum ShownAs {
    Quiet,
    Bar(ProgressBar),
    Lines { last: Duration },
}

impl Progress {
    /// `known` is the number of files of the last scan. Without it, files are counted ahead.
    pub(super) fn new(quiet: bool, known: Option<u64>, roots: &Roots) -> Self {
        let shown = if quiet {
            ShownAs::Quiet
        } else if io::stderr().is_terminal() {
            ShownAs::Bar(Self::bar())
        } else {
            ShownAs::Lines { last: Duration::ZERO }
        };
        let counts = known.is_none() && !quiet;
        let ahead = counts.then(|| FilesAhead::below(roots.paths().into_iter().filter(|path| path.is_dir()).collect()));
        Self { known, ahead, shown }
    }

    pub(super) fn bar() -> ProgressBar {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        // A wide message is cut where the terminal ends, so that the line never wraps.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        bar
    }

    /// Expected number of files, as far as it is known.
    pub(super) fn expected(&self) -> Option<u64> {
        self.known.or_else(|| self.ahead.as_ref()?.total())
    }

    pub(super) fn update(&mut self, summary: &Summary) {
        let expected = self.expected();
        match &mut self.shown {
            ShownAs::Quiet => {}
            ShownAs::Bar(bar) => {
                let width = terminal_width(&io::stderr()).unwrap_or(80);
                bar.set_message(line_within(width.saturating_sub(SPINNER_WIDTH), summary, expected));
            }
            ShownAs::Lines { last } => {
                if summary.elapsed.saturating_sub(*last) >= PROGRESS_LINES {
                    *last = summary.elapsed;
                    // If standard error is closed, the scan goes on.
                    let _unread = writeln!(io::stderr().lock(), "{}", line(summary, expected));
                }
            }
        }
    }

    /// Runs a function that may write to the terminal.
    pub(super) fn around(&self, write: impl FnOnce()) {
        match &self.shown {
            ShownAs::Bar(bar) => bar.suspend(write),
            ShownAs::Quiet | ShownAs::Lines { .. } => write(),
        }
    }

    pub(super) fn finish(&self) {
        if let ShownAs::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// Columns of the terminal before the message: the spinner and a space.
pub(super) const SPINNER_WIDTH: usize = 2;

/// The whole progress line.
pub(super) fn line(summary: &Summary, expected: Option<u64>) -> String {
    line_within(usize::MAX, summary, expected)
}

/// The parts of the progress line that have room, the most important ones first.
pub(super) fn line_within(width: usize, summary: &Summary, expected: Option<u64>) -> String {
    let found = match expected.filter(|expected| *expected >= summary.found) {
        Some(expected) => format!("{} of about {} files", Grouped(summary.found), Grouped(expected)),
        None => format!("{} files", Grouped(summary.found)),
    };
    // Without data there is no estimate.
    let eta = match eta(summary, expected) {
        Some(eta) => format!("ETA {}", HumanDuration(eta)),
        None => "ETA unknown".to_owned(),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
    let rate = Grouped(summary.files_per_second() as u64);
    let parts = [
        eta,
        format!("{} failed", Grouped(summary.failed)),
        format!("{rate} files/s"),
        bytes_text(summary),
        format!("after {}", HumanDuration(summary.elapsed)),
    ];
    let mut line = found;
    for part in parts {
        if line.len() + part.len() + 2 > width {
            break;
        }
        line.push_str(", ");
        line.push_str(&part);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_line_has_what_there_is_room_for() {
        let summary =
            Summary { found: 12_345_678, failed: 99_999, elapsed: Duration::from_secs(5000), ..Summary::default() };
        for width in [58, 78, 98, 118, 198] {
            let line = line_within(width, &summary, Some(98_765_432));
            assert!(line.len() <= width, "{line}");
            assert!(line.starts_with("12,345,678 of about 98,765,432 files"), "{line}");
            assert!(width < 78 || line.contains("ETA"), "{line}");
        }
        let whole = line(&summary, None);
        assert!(whole.contains("12,345,678 files, ETA unknown, 99,999 failed") && whole.contains("after"), "{whole}");
    }
}
