//! An index in numbers, and what is wrong with it.

use std::path::PathBuf;

/// The contents of an index in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexStatus {
    /// Schema version of the file.
    pub schema_version: u64,
    /// Number of patients.
    pub patients: u64,
    /// Number of studies.
    pub studies: u64,
    /// Number of series.
    pub series: u64,
    /// Number of instances.
    pub instances: u64,
    /// Further files of instances.
    pub copies: u64,
    /// Locations whose file was gone when a scan looked.
    pub missing: u64,
    /// Instances whose object is not kept.
    pub metadata_only: u64,
    /// Files that were indexed in spite of their faults.
    pub files_with_faults: u64,
    /// The number of the last change (docs/adr/0015).
    pub last_change: u64,
    /// Bytes of the index with its write-ahead log.
    pub size_bytes: u64,
    /// Files that could not be read, by reason, the most frequent reason first.
    pub failed: Vec<(String, u64)>,
    /// Files that do not belong in the index, by reason, the most frequent reason first.
    pub skipped: Vec<(String, u64)>,
    /// Conflicts by kind.
    pub conflicts: Vec<(String, u64)>,
    /// The last scans, the newest first.
    pub scans: Vec<ScanEntry>,
}

/// A scan in the ledger, the running one included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanEntry {
    /// Its number.
    pub scan: i64,
    /// Begin in milliseconds since 1970 UTC.
    pub started_ms: i64,
    /// End in milliseconds since 1970 UTC. `None` while the scan runs, or if it was killed.
    pub finished_ms: Option<i64>,
    /// The scanned paths as a JSON array.
    pub roots: String,
    /// Its summary as a JSON object.
    pub summary: Option<String>,
}

/// A watched directory, and what the last look at it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEntry {
    /// The watched paths as a JSON array.
    pub roots: String,
    /// The state as a JSON object.
    pub state: String,
}

/// A file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureEntry {
    /// Its path.
    pub path: PathBuf,
    /// A stable word for counting.
    pub reason: String,
    /// The reason in full.
    pub detail: String,
}

/// A conflict in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictEntry {
    /// `study-under-two-patients`, `series-under-two-studies`, `patient-id-of-two-people`,
    /// `instance-with-other-content` or `invalid-uid`.
    pub kind: String,
    /// Study of the conflicting object. This object is the further file of an instance, or an
    /// object of the further patient or in the further study. For other kinds it is an object of
    /// the second person, or the object with invalid UIDs.
    pub study_instance_uid: String,
    /// Study of the first person, if one Patient ID is that of two people. Empty for other kinds.
    pub other_study_instance_uid: String,
    /// Series of the conflicting object.
    pub series_instance_uid: String,
    /// SOP Instance UID of the conflicting object.
    pub sop_instance_uid: String,
    /// Path of the object, or of one of them. Empty if its bytes are not kept.
    pub path: PathBuf,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Every disagreement. A sound index has none.
    pub findings: Vec<Finding>,
}

/// A disagreement of what the index says of itself with its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule that was checked, as `dcmdex check` prints it. `db/sqlite/check.rs` has the list.
    pub check: &'static str,
    /// The disagreement, with row numbers and without patient data.
    pub detail: String,
}
