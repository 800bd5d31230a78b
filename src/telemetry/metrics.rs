//! The table of all metrics.
//!
//! Each row of the table is a static of this module and a line of [`ALL`]. All units are base units
//! (seconds, bytes). Labels come only from the fixed values in this file, never from peers or
//! files. Counting is one relaxed atomic addition, cheap enough for each file of a scan.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that only grows while the process lives.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Starts at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// The current value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Starts at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// The current value.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }

    /// Counts one more until the returned guard is dropped.
    pub fn hold(&'static self) -> GaugeGuard {
        self.add(1);
        GaugeGuard(self)
    }
}

/// A number of seconds that goes up and down.
#[derive(Debug, Default)]
pub struct Seconds(AtomicU64);

impl Seconds {
    /// Starts at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Sets the value.
    pub fn set_seconds(&self, seconds: f64) {
        self.0.store(seconds.to_bits(), Relaxed);
    }

    /// The current value.
    #[must_use]
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// Counts one thing until it is dropped. See [`Gauge::hold`].
#[derive(Debug)]
pub struct GaugeGuard(&'static Gauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// Upper bounds of the buckets of histograms, in seconds. They range from 100 µs (a warm query by
/// UID) to 10 s (a full disk queue).
pub const BUCKET_SECONDS: [f64; 14] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// A distribution of durations.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKET_SECONDS.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Starts empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKET_SECONDS.len() + 1], sum_ns: AtomicU64::new(0) }
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = BUCKET_SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKET_SECONDS.len());
        self.buckets[at].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// For each of [`BUCKET_SECONDS`], the number of durations up to it. The last number counts all
    /// durations.
    #[must_use]
    pub fn cumulative(&self) -> [u64; BUCKET_SECONDS.len() + 1] {
        let mut total = 0;
        std::array::from_fn(|at| {
            total += self.buckets[at].load(Relaxed);
            total
        })
    }

    /// The sum of all durations, in seconds.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_nanos(self.sum_ns.load(Relaxed)).as_secs_f64()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The value of a metric.
#[derive(Clone, Copy, Debug)]
pub enum Cell {
    /// Only grows.
    Counter(&'static Counter),
    /// Goes up and down.
    Gauge(&'static Gauge),
    /// Seconds that go up and down.
    Seconds(&'static Seconds),
    /// Durations.
    Histogram(&'static Histogram),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, with the unit as suffix. Rows of one name differ in their label.
    pub name: &'static str,
    /// The name and the value of its label, if it has one.
    pub label: Option<(&'static str, &'static str)>,
    /// Description of its count, in one sentence.
    pub help: &'static str,
    /// Its value.
    pub cell: Cell,
}

macro_rules! metrics {
    ($($kind:ident $name:literal, $help:literal { $($identifier:ident $(: $label:ident = $value:literal)?),+ $(,)? })+) => {
        $($(
            #[doc = concat!($help, " `", $name, "`", $(", ", stringify!($label), " `", $value, "`",)? ".")]
            pub static $identifier: $kind = $kind::new();
        )+)+

        /// All metrics, in the order of the table. Rows of one name follow each other.
        pub static ALL: &[Metric] = &[$($(
            Metric {
                name: $name,
                label: metrics!(@label $($label $value)?),
                help: $help,
                cell: Cell::$kind(&$identifier),
            },
        )+)+];
    };
    (@label) => { None };
    (@label $label:ident $value:literal) => { Some((stringify!($label), $value)) };
}

metrics! {
    Counter "dcmdex_scan_files_total", "Files that scans handled, by outcome." {
        SCAN_FILES_READ: outcome = "read",
        SCAN_FILES_UNCHANGED: outcome = "unchanged",
        SCAN_FILES_SKIPPED: outcome = "skipped",
        SCAN_FILES_FAILED: outcome = "failed",
    }
    Counter "dcmdex_scan_read_file_bytes_total", "Total size of the files that scans opened, in bytes." {
        SCAN_READ_FILE_BYTES,
    }
    Counter "dcmdex_scan_directories_total", "Directories that scans listed." { SCAN_DIRECTORIES }
    Gauge "dcmdex_watches", "Watched directories." { WATCHES }
    Gauge "dcmdex_watches_overdue", "Watched directories whose next look is late by 15 minutes." { WATCHES_OVERDUE }
    Gauge "dcmdex_watches_failing", "Watched directories whose last look failed." { WATCHES_FAILING }
    Gauge "dcmdex_watches_slow", "Watched directories whose last look was far slower than those before." { WATCHES_SLOW }
    Gauge "dcmdex_watch_pending_files", "Files of watched directories that may still be written." { WATCH_PENDING_FILES }
    Gauge "dcmdex_watch_last_success_timestamp_seconds",
        "End of the last successful look at the watched directory that waits longest, in seconds since 1970." {
        WATCH_LAST_SUCCESS,
    }
    Seconds "dcmdex_watch_last_duration_seconds", "Longest of the last looks at watched directories, in seconds." {
        WATCH_LAST_DURATION,
    }
    Gauge "dcmdex_watch_files_per_second", "Files that the last look at a whole watched directory found per second." {
        WATCH_FILES_PER_SECOND,
    }
    Counter "dcmdex_watch_looks_total", "Looks at watched directories, by result." {
        WATCH_LOOKS_DONE: result = "done",
        WATCH_LOOKS_AT_CHANGES: result = "changes",
        WATCH_LOOKS_INTERRUPTED: result = "interrupted",
        WATCH_LOOKS_FAILED: result = "failed",
    }
    Gauge "dcmdex_associations_active", "Associations open now." { ASSOCIATIONS_ACTIVE }
    Counter "dcmdex_associations_total", "Associations requested, by result." {
        ASSOCIATIONS_ACCEPTED: result = "accepted",
        ASSOCIATIONS_REJECTED: result = "rejected",
        ASSOCIATIONS_FAILED: result = "failed",
    }
    Counter "dcmdex_instances_received_total", "Instances received by C-STORE, by kind of status." {
        INSTANCES_STORED: status = "success",
        INSTANCES_OUT_OF_RESOURCES: status = "out-of-resources",
        INSTANCES_NOT_UNDERSTOOD: status = "not-understood",
        INSTANCES_FAILED: status = "failed",
    }
    Counter "dcmdex_received_data_set_bytes_total", "Data sets received by C-STORE, in bytes." { RECEIVED_DATA_SET_BYTES }
    Histogram "dcmdex_store_seconds", "Time from the last byte of a C-STORE-RQ to its response, in seconds." {
        STORE_SECONDS,
    }
    Counter "dcmdex_journaled_objects_total", "Objects that the arrival journal made durable." { JOURNALED_OBJECTS }
    Counter "dcmdex_journal_flushes_total", "Flushes of the arrival journal, each for a group of objects." { JOURNAL_FLUSHES }
    Counter "dcmdex_find_requests_total", "C-FIND requests, by result." {
        FIND_ANSWERED: result = "answered",
        FIND_CANCELLED: result = "cancelled",
        FIND_REFUSED: result = "refused",
        FIND_FAILED: result = "failed",
    }
    Counter "dcmdex_find_matches_total", "Pending responses sent to C-FIND requests." { FIND_MATCHES }
    Histogram "dcmdex_find_seconds", "Time from a C-FIND-RQ to its last response, in seconds." { FIND_SECONDS }
    Counter "dcmdex_hl7_messages_total", "HL7 messages for the worklist, by result." {
        HL7_ACCEPTED: result = "accepted",
        HL7_REFUSED: result = "refused",
    }
    Counter "dcmdex_hl7_connections_refused_total", "Connections for HL7 messages that were refused." {
        HL7_CONNECTIONS_REFUSED,
    }
    Counter "dcmdex_performed_steps_total", "N-CREATE and N-SET requests for performed procedure steps, by result." {
        PERFORMED_STEPS_ACCEPTED: result = "accepted",
        PERFORMED_STEPS_REFUSED: result = "refused",
    }
    Counter "dcmdex_worklist_answers_total", "Items of the worklist sent to peers." { WORKLIST_ANSWERS }
    Counter "dcmdex_retrievals_total", "C-GET and C-MOVE requests, by result." {
        RETRIEVALS_COMPLETE: result = "complete",
        RETRIEVALS_CANCELLED: result = "cancelled",
        RETRIEVALS_REFUSED: result = "refused",
    }
    Counter "dcmdex_sub_operations_total", "C-STORE sub-operations of C-GET and C-MOVE, by result." {
        SUB_OPERATIONS_DONE: result = "done",
        SUB_OPERATIONS_FAILED: result = "failed",
    }
    Counter "dcmdex_objects_decompressed_total", "Objects that were decompressed for a peer that does not take them as stored." {
        OBJECTS_DECOMPRESSED,
    }
    Counter "dcmdex_sent_data_set_bytes_total", "Data sets sent by C-STORE, with the headers of their PDUs, in bytes." {
        SENT_DATA_SET_BYTES,
    }
    Histogram "dcmdex_retrieve_seconds", "Time from a C-GET-RQ or C-MOVE-RQ to its last response, in seconds." {
        RETRIEVE_SECONDS,
    }
    Counter "dcmdex_commitment_instances_total", "Instances of storage commitment requests, by result reported." {
        COMMITMENT_INSTANCES_COMMITTED: result = "committed",
        COMMITMENT_INSTANCES_FAILED: result = "failed",
    }
    Gauge "dcmdex_commitment_reports_waiting", "Storage commitment reports that wait for delivery now." {
        COMMITMENT_REPORTS_WAITING,
    }
    Counter "dcmdex_commitment_reports_total", "Storage commitment reports that peers answered." { COMMITMENT_REPORTS }
    Counter "dcmdex_share_refusals_total", "Requests refused to keep resources for other peers, by kind of resource." {
        ASSOCIATIONS_REFUSED: share = "associations",
        CONNECTIONS_REFUSED: share = "connections",
        MEMORY_REFUSED: share = "memory",
        SPOOL_REFUSED: share = "spool",
        STORING_REFUSED: share = "storing",
        RETRIEVALS_REFUSED_A_SHARE: share = "retrievals",
        COMMITMENT_REFUSED: share = "commitment",
    }
    Counter "dcmdex_objects_verified_total", "Managed objects compared with their checksums, by result." {
        OBJECTS_SOUND: result = "sound",
        OBJECTS_DAMAGED: result = "damaged",
    }
    Gauge "dcmdex_index_replaced", "1 while another file has replaced the open index and nothing is stored; else 0." {
        INDEX_REPLACED,
    }
    Gauge "dcmdex_backup_last_success_timestamp_seconds", "When `dcmdex backup` last succeeded, as Unix time; 0 if never." {
        BACKUP_LAST_SUCCESS,
    }
    Gauge "dcmdex_ready", "1 if the node serves; 0 if its index is gone, or a disk takes no files." { READY }
    Gauge "dcmdex_start_timestamp_seconds", "When the node started, in seconds since 1970." { START_TIME }
    Gauge "dcmdex_storage_free_bytes", "Free bytes on the disk of received objects." { STORAGE_FREE_BYTES }
    Gauge "dcmdex_storage_min_free_bytes", "Free bytes at which received objects are refused." { STORAGE_MIN_FREE_BYTES }
    Gauge "dcmdex_index_free_bytes", "Free bytes on the disk of the index." { INDEX_FREE_BYTES }
    Gauge "dcmdex_index_min_free_bytes", "Bytes that stay free on the disk of the index (`store.min_free_mib`)." {
        INDEX_MIN_FREE_BYTES
    }
    Gauge "dcmdex_index_bytes", "Size of the index with its write-ahead log, in bytes." { INDEX_BYTES }
    Counter "dcmdex_audit_events_total", "Events that were written to the audit trail." { AUDIT_EVENTS }
    Counter "dcmdex_audit_sent_total", "Events that were sent to the collector of the audit trail; some twice." { AUDIT_SENT }
    Counter "dcmdex_audit_dropped_total", "Events that the audit trail has lost, or lost before they were sent." { AUDIT_DROPPED }
    Gauge "dcmdex_audit_waiting_bytes", "Bytes of the audit trail that wait to be sent." { AUDIT_WAITING_BYTES }
    Gauge "dcmdex_audit_collector_down", "1 while the collector of the audit trail cannot be reached." { AUDIT_COLLECTOR_DOWN }
    Counter "dcmdex_event_deliveries_total", "Attempts to deliver an event to a receiver, by result." {
        EVENT_DELIVERIES_DONE: result = "delivered",
        EVENT_DELIVERIES_FAILED: result = "failed",
    }
    Counter "dcmdex_event_dead_letters_total", "Events that a receiver did not take in time." { EVENT_DEAD_LETTERS }
    Counter "dcmdex_events_dropped_total", "Events that were dropped before receivers got them." { EVENTS_DROPPED }
    Gauge "dcmdex_events_waiting", "Events that are to be delivered, over all receivers." { EVENTS_WAITING }
    Gauge "dcmdex_events_dead", "Dead letters that wait for an operator." { EVENTS_DEAD }
    Gauge "dcmdex_event_receivers_down", "Receivers of events that cannot be reached." { EVENT_RECEIVERS_DOWN }
    Gauge "dcmdex_http_connections_active", "HTTP connections open now." { HTTP_CONNECTIONS_ACTIVE }
    Counter "dcmdex_http_connections_refused_total", "HTTP connections closed because too many were open." {
        HTTP_CONNECTIONS_REFUSED,
    }
    Counter "dcmdex_http_requests_total", "HTTP requests, by result." {
        HTTP_ANSWERED: result = "answered",
        HTTP_DENIED: result = "denied",
        HTTP_REFUSED: result = "refused",
        HTTP_FAILED: result = "failed",
    }
    Histogram "dcmdex_http_seconds", "Time from the head of an HTTP request to the head of its response, in seconds." {
        HTTP_SECONDS,
    }
    Counter "dcmdex_echo_requests_total", "C-ECHO requests answered." { ECHO_REQUESTS }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn names_follow_the_conventions_for_units_and_kinds() {
        for metric in ALL {
            assert!(metric.name.starts_with("dcmdex_"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            match metric.cell {
                Cell::Counter(_) => assert!(metric.name.ends_with("_total"), "{}", metric.name),
                Cell::Histogram(_) => assert!(metric.name.ends_with("_seconds"), "{}", metric.name),
                Cell::Seconds(_) => assert!(metric.name.ends_with("_seconds"), "{}", metric.name),
                Cell::Gauge(_) => assert!(!metric.name.ends_with("_total"), "{}", metric.name),
            }
        }
    }

    #[test]
    fn no_row_stands_twice() {
        let mut seen = HashMap::new();
        for metric in ALL {
            assert!(seen.insert((metric.name, metric.label), ()).is_none(), "{} {:?}", metric.name, metric.label);
        }
    }

    #[test]
    fn a_histogram_counts_up_to_and_including_its_bounds() {
        let histogram = Histogram::new();
        histogram.observe(Duration::from_micros(100));
        histogram.observe(Duration::from_micros(101));
        histogram.observe(Duration::from_secs(60));
        let counts = histogram.cumulative();
        assert_eq!((counts[0], counts[1], counts[13], counts[14]), (1, 2, 2, 3));
        assert!((histogram.sum_seconds() - 60.000_201).abs() < 1e-9);
    }

    #[test]
    fn a_held_gauge_goes_back_when_the_guard_is_dropped() {
        static GAUGE: Gauge = Gauge::new();
        let held = GAUGE.hold();
        assert_eq!(GAUGE.value(), 1);
        drop(held);
        assert_eq!(GAUGE.value(), 0);
    }
}
