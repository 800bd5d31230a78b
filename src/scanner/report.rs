//! What a scan tells: events while it runs, figures for a progress line, and a summary.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::work::Counted;
use super::{Hang, NotPruned};
use crate::db::Tally;

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// It (or, for a directory, what is in it) could not be read.
    Failed {
        /// Where it lies.
        path: &'a Path,
        /// A stable word.
        reason: &'a str,
        /// The reason in full; may be empty.
        detail: &'a str,
    },
    /// It was passed over by rule.
    Skipped {
        /// Where it lies.
        path: &'a Path,
        /// A stable word.
        reason: &'a str,
        /// The reason in full; may be empty.
        detail: &'a str,
    },
    /// It was indexed, and something is wrong with it.
    Faults {
        /// Where it lies.
        path: &'a Path,
        /// What: a stable word, a colon, the fault in full.
        faults: &'a [String],
    },
    /// Something does not answer and is given up; that it failed is told in its turn.
    Hangs(&'a Hang),
    /// Files of the index that are missing below a directory were not dropped, because it looks as if its disk were not
    /// mounted.
    NotPruned(&'a NotPruned),
    /// A file that is indexed is not listed by the DICOMDIR of its folder.
    Unlisted {
        /// The DICOMDIR, `!/`, and the path of the file in the folder.
        path: &'a Path,
    },
    /// How far the scan is. Comes every [`PROGRESS_INTERVAL`], as long as anything is read at all.
    Progress(&'a Summary),
}

/// Time between two [`Event::Progress`]: often enough for a line on a terminal.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Numbers of files by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    pub(super) fn count(&mut self, reason: &str) {
        match self.0.get_mut(reason) {
            Some(count) => *count += 1,
            None => {
                self.0.insert(reason.to_owned(), 1);
            }
        }
    }

    fn take_back(&mut self, reason: &str) {
        if let Some(count) = self.0.get_mut(reason) {
            *count = count.saturating_sub(1);
        }
        self.0.retain(|_, count| *count > 0);
    }

    /// The reasons in alphabetical order, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(reason, count)| (reason.as_str(), *count))
    }
}

/// What a scan did, in numbers of files. `found = indexed + updated + unchanged + skipped + failed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries that had to be accounted for: files, and what else is no directory that was entered. A directory that is
    /// passed over or cannot be read counts as one.
    pub found: u64,
    /// Files indexed that were not in the index, copies included.
    pub indexed: u64,
    /// Files in the index that had changed and were read again.
    pub updated: u64,
    /// Files in the index that had not changed and were not opened.
    pub unchanged: u64,
    /// Of those unchanged: files that were read all the same, and were as the index has them. In a dry run, those that would
    /// be read.
    pub reread: u64,
    /// Files dropped from the index because they are gone.
    pub removed: u64,
    /// Entries passed over by rule.
    pub skipped: u64,
    /// Files and directories that could not be read; those known from an earlier scan and unchanged included.
    pub failed: u64,
    /// Files in the index that are gone and were kept in it, from this scan or an earlier one.
    pub missing: u64,
    /// Of those missing: files that were to be dropped, below directories that look as if their disk were not mounted.
    pub not_pruned: u64,
    /// ScanRoots in the index where a file is gone, of instances that lie in another place with the same content: the index
    /// names only that one from now on. With [`super::Vanished::Prune`] a part of [`Self::removed`].
    pub moved: u64,
    /// Of the files indexed or updated: further files of an instance that has its place elsewhere.
    pub copies: u64,
    /// Contradictions newly recorded.
    pub conflicts: u64,
    /// Of the files indexed or updated: those with faults.
    pub faulty: u64,
    /// Directories listed.
    pub directories: u64,
    /// Files that the DICOMDIR of their folder does not list. They are counted above like any others.
    pub unlisted: u64,
    /// Archive files whose members are counted in [`Self::found`].
    pub archives: u64,
    /// Sizes of the files that were indexed, updated or newly failed.
    pub bytes: u64,
    /// [`Self::skipped`] by reason.
    pub skipped_by_reason: Reasons,
    /// [`Self::failed`] by reason.
    pub failed_by_reason: Reasons,
    /// Faults by kind: numbers of files that have one, so that they can add up to more than [`Self::faulty`].
    pub faults_by_reason: Reasons,
    /// Whether a stop was asked for.
    pub interrupted: bool,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// How long it took.
    pub elapsed: Duration,
}

impl Summary {
    pub(super) fn add_tally(&mut self, tally: Tally) {
        self.copies += tally.copies;
        self.moved += tally.moved;
        self.removed += tally.removed;
        self.conflicts += tally.conflicts;
        // Only the index can tell, once it has taken them.
        self.unchanged -= tally.corrected.min(self.unchanged);
        self.reread -= tally.corrected.min(self.reread);
        self.updated += tally.corrected;
    }

    /// Uncounts a file that will be counted as something else.
    pub(super) fn take_back(&mut self, counted: Counted) {
        let less = |count: &mut u64| *count = count.saturating_sub(1);
        less(&mut self.found);
        match counted {
            Counted::Indexed => less(&mut self.indexed),
            Counted::Updated => less(&mut self.updated),
            Counted::Unchanged => less(&mut self.unchanged),
            Counted::Reread => {
                less(&mut self.unchanged);
                less(&mut self.reread);
            }
            Counted::Failed(reason) => {
                less(&mut self.failed);
                self.failed_by_reason.take_back(reason);
            }
        }
    }

    pub(super) fn add_faults(&mut self, faults: &[String]) {
        self.faulty += 1;
        let mut words: Vec<&str> = faults.iter().map(|fault| word(fault)).collect();
        words.sort_unstable();
        words.dedup();
        for word in words {
            self.faults_by_reason.count(word);
        }
    }

    /// Files found for each second.
    #[must_use]
    pub fn files_per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        if seconds > 0.0 { self.found as f64 / seconds } else { 0.0 }
    }
}

/// The stable word at the beginning of a fault.
fn word(fault: &str) -> &str {
    fault.split(':').next().unwrap_or(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_once_for_each_kind_of_fault() {
        let mut summary = Summary::default();
        let faults = ["bad-vr: (0010,0010)", "truncated: at byte 7", "bad-vr: (0010,0020)"].map(str::to_owned);
        summary.add_faults(&faults);
        assert_eq!(summary.faulty, 1);
        assert_eq!(summary.faults_by_reason.iter().collect::<Vec<_>>(), [("bad-vr", 1), ("truncated", 1)]);
    }

    #[test]
    fn a_scan_of_no_time_has_no_rate() {
        assert!(Summary { found: 7, ..Summary::default() }.files_per_second().abs() < f64::EPSILON);
    }
}
