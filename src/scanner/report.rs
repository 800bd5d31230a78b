//! The reports of a scan: events while it runs, progress, and a summary.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::work::MemberCount;
use super::{Hang, NotPruned};
use crate::db::{REMOVED, Tally};

/// An event of a scan.
#[derive(Clone, Copy, Debug)]
pub enum ScanEvent<'a> {
    /// A file, or the content of a directory, could not be read.
    Failed {
        /// Its path.
        path: &'a Path,
        /// A short, stable name of the reason.
        reason: &'a str,
        /// The reason in words. It may be empty.
        detail: &'a str,
    },
    /// The file may still be written. A later look reads it.
    Pending {
        /// Its path.
        path: &'a Path,
    },
    /// A rule skipped the entry.
    Skipped {
        /// Its path.
        path: &'a Path,
        /// A short, stable name of the reason.
        reason: &'a str,
        /// The reason in words. It may be empty.
        detail: &'a str,
    },
    /// The file was indexed, and its content has faults.
    Faults {
        /// Its path.
        path: &'a Path,
        /// The faults. Each is a stable name, a colon and the fault in words.
        faults: &'a [String],
    },
    /// A file or directory does not answer, and the scan gave it up. Its [`ScanEvent::Failed`]
    /// follows later.
    Hangs(&'a Hang),
    /// Files are missing below a directory, and the scan kept their entries because the disk may
    /// not be mounted.
    NotPruned(&'a NotPruned),
    /// A DICOMDIR does not list a file in its folder. The file is indexed.
    Unlisted {
        /// The path of the DICOMDIR, then `!/`, then the path of the file in the folder.
        path: &'a Path,
    },
    /// The progress so far. It comes every [`PROGRESS_INTERVAL`] while files are read.
    Progress(&'a Summary),
}

/// Time between two [`ScanEvent::Progress`]. Short enough for a progress line on a terminal.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Number of files for each reason.
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

    fn to_json(&self) -> Value {
        self.iter().map(|(reason, count)| (reason.to_owned(), Value::from(count))).collect::<Map<_, _>>().into()
    }

    fn count_many(&mut self, reason: &str, many: u64) {
        if many > 0 {
            *self.0.entry(reason.to_owned()).or_default() += many;
        }
    }

    fn add(&mut self, others: &Self) {
        others.iter().for_each(|(reason, count)| self.count_many(reason, count));
    }

    fn take_back(&mut self, reason: &str) {
        if let Some(count) = self.0.get_mut(reason) {
            *count = count.saturating_sub(1);
        }
        self.0.retain(|_, count| *count > 0);
    }

    /// The reasons in alphabetical order, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(reason, count)| (reason.as_str(), *count))
    }
}

/// The counts of a scan. `found = indexed + updated + unchanged + skipped + failed + pending`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All entries that count: files, and directories that were skipped or could not be read.
    pub found: u64,
    /// Files that are newly in the index. Copies count too.
    pub indexed: u64,
    /// Files of the index that had changed and were read again.
    pub updated: u64,
    /// Files of the index that have not changed. The scan did not open them, except
    /// [`Self::reread`].
    pub unchanged: u64,
    /// Part of [`Self::unchanged`]: files that were read again with the same result. In a dry run,
    /// files that would be read again.
    pub reread: u64,
    /// Entries deleted from the index because their files are gone.
    pub removed: u64,
    /// Entries that a rule skipped.
    pub skipped: u64,
    /// Files and directories that could not be read. Unchanged failures of an earlier scan count
    /// too.
    pub failed: u64,
    /// Files that may still be written, and wait for a later look. Only watched directories have
    /// them.
    pub pending: u64,
    /// Files that are gone and whose entries stay in the index. Those of earlier scans count too.
    pub missing: u64,
    /// Part of [`Self::missing`]: entries that the scan kept because the disk may not be mounted.
    pub not_pruned: u64,
    /// Old locations of moved files. The instance has another location with the same content, and
    /// the index names only that one from now on. With [`super::Vanished::Prune`] they are part of
    /// [`Self::removed`].
    pub moved: u64,
    /// Part of [`Self::indexed`] and [`Self::updated`]: further files of an instance that the index
    /// already has.
    pub copies: u64,
    /// Conflicts that the scan recorded.
    pub conflicts: u64,
    /// Part of [`Self::indexed`] and [`Self::updated`]: files with faults.
    pub faulty: u64,
    /// Directories listed.
    pub directories: u64,
    /// Files that the DICOMDIR of their folder does not list. The counts above include them.
    pub unlisted: u64,
    /// Archive files. [`Self::found`] counts their members.
    pub archives: u64,
    /// Total size of the files that were indexed, updated or newly failed.
    pub bytes: u64,
    /// [`Self::skipped`] by reason.
    pub skipped_by_reason: Reasons,
    /// [`Self::failed`] by reason.
    pub failed_by_reason: Reasons,
    /// Number of files for each kind of fault. A file can have several, so the sum can exceed
    /// [`Self::faulty`].
    pub faults_by_reason: Reasons,
    /// Whether somebody requested a stop.
    pub interrupted: bool,
    /// Whether the scan wrote nothing.
    pub dry_run: bool,
    /// Duration of the scan.
    pub elapsed: Duration,
}

impl Summary {
    pub(super) fn add_tally(&mut self, tally: Tally) {
        self.copies += tally.copies;
        self.moved += tally.moved;
        self.removed += tally.removed;
        self.conflicts += tally.conflicts;
        // Only the writer knows these, after it has written the files.
        self.unchanged -= tally.corrected.min(self.unchanged);
        self.reread -= tally.corrected.min(self.reread);
        self.updated += tally.corrected;
        self.indexed -= tally.withheld.min(self.indexed);
        self.updated -= tally.withheld_updated.min(self.updated);
        let withheld = tally.withheld + tally.withheld_updated;
        self.skipped += withheld;
        self.skipped_by_reason.count_many(REMOVED, withheld);
    }

    /// Adds the counts of a scan of other directories.
    pub fn add_unit(&mut self, unit: &Self) {
        let Self { skipped_by_reason, failed_by_reason, faults_by_reason, .. } = unit;
        self.found += unit.found;
        self.indexed += unit.indexed;
        self.updated += unit.updated;
        self.unchanged += unit.unchanged;
        self.reread += unit.reread;
        self.removed += unit.removed;
        self.skipped += unit.skipped;
        self.failed += unit.failed;
        self.missing += unit.missing;
        self.not_pruned += unit.not_pruned;
        self.moved += unit.moved;
        self.copies += unit.copies;
        self.conflicts += unit.conflicts;
        self.faulty += unit.faulty;
        self.directories += unit.directories;
        self.unlisted += unit.unlisted;
        self.archives += unit.archives;
        self.bytes += unit.bytes;
        self.elapsed += unit.elapsed;
        self.skipped_by_reason.add(skipped_by_reason);
        self.failed_by_reason.add(failed_by_reason);
        self.faults_by_reason.add(faults_by_reason);
    }

    /// These counts without what was known before, and without what is counted again by each scan.
    #[must_use]
    pub fn without_known(&self) -> Self {
        let Self { indexed, updated, removed, missing, not_pruned, moved, copies, conflicts, bytes, .. } = *self;
        let (found, elapsed) = (indexed + updated, self.elapsed);
        let counts = Self { found, indexed, updated, removed, missing, not_pruned, moved, copies, ..Self::default() };
        Self { conflicts, bytes, elapsed, ..counts }
    }

    /// Subtracts a file that will be counted differently.
    pub(super) fn take_back(&mut self, counted: MemberCount) {
        let less = |count: &mut u64| *count = count.saturating_sub(1);
        less(&mut self.found);
        match counted {
            MemberCount::Indexed => less(&mut self.indexed),
            MemberCount::Updated => less(&mut self.updated),
            MemberCount::Unchanged => less(&mut self.unchanged),
            MemberCount::Reread => {
                less(&mut self.unchanged);
                less(&mut self.reread);
            }
            MemberCount::Failed(reason) => {
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

    /// The counts as `--json` writes them (docs/json.md).
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        // Only the writer knows these, and a dry run has none.
        let of_writer = |count: u64| if self.dry_run { Value::Null } else { count.into() };
        let object = json!({
            "found": self.found,
            "indexed": self.indexed,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "reread": self.reread,
            "removed": self.removed,
            "skipped": self.skipped,
            "failed": self.failed,
            "pending": self.pending,
            "missing": self.missing,
            "not_pruned": self.not_pruned,
            "moved": of_writer(self.moved),
            "copies": of_writer(self.copies),
            "conflicts": of_writer(self.conflicts),
            "with_faults": self.faulty,
            "directories": self.directories,
            "archives": self.archives,
            "unlisted": self.unlisted,
            "read_file_bytes": self.bytes,
            "skipped_by_reason": self.skipped_by_reason.to_json(),
            "failed_by_reason": self.failed_by_reason.to_json(),
            "faults_by_reason": self.faults_by_reason.to_json(),
            "interrupted": self.interrupted,
            "dry_run": self.dry_run,
            "elapsed_seconds": to_milliseconds(self.elapsed),
            "files_per_second": self.files_per_second().round(),
        });
        match object {
            Value::Object(object) => object,
            _ => Map::new(),
        }
    }

    /// Files found per second.
    #[must_use]
    pub fn files_per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        if seconds > 0.0 { self.found as f64 / seconds } else { 0.0 }
    }
}

/// Seconds, rounded to milliseconds.
#[must_use]
pub fn to_milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// The stable name at the start of a fault.
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
