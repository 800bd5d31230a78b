//! Answers of the port for supervisors about a node.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::health::{DiskSpace, Health, directory_of_objects, disks};
use crate::cli::status::counts_as_json;
use crate::cli::watch_report::WatchReport;
use crate::config::Config;
use crate::db::open::{IndexFiles, Reader, WriterHandle};
use crate::db::{Admin as _, Arrivals as _, IndexStatus};
use crate::model::clock::Clock;
use crate::store::{self, Objects};
use crate::telemetry::metrics;
use crate::web::MonitorSources;

/// Pause between two counts of the index, in durations of the last one. A count that takes a second
/// is made again after a hundred seconds. Larger: counts are older. Smaller: a supervisor keeps a
/// processor busy.
const REST_AFTER_COUNT: u32 = 100;

/// Makes the answers of the port.
struct NodeReport {
    config: Config,
    writer: WriterHandle,
    objects: Option<Arc<Objects>>,
    started_ms: i64,
    counted: Mutex<Option<Counted>>,
}

/// Counts of the index, and what it took to make them.
struct Counted {
    at: Instant,
    at_ms: i64,
    took: Duration,
    status: IndexStatus,
}

/// Returns what the port tells of a node.
pub(super) fn sources(config: &Config, objects: Option<&Arc<Objects>>, writer: WriterHandle) -> MonitorSources {
    let started_ms = Clock::System.now_ms();
    metrics::START_TIME.set(started_ms / 1000);
    let (objects, counted) = (objects.cloned(), Mutex::default());
    let report = Arc::new(NodeReport { config: config.clone(), writer, objects, started_ms, counted });
    let (of_refresh, of_problems) = (Arc::clone(&report), Arc::clone(&report));
    MonitorSources {
        refresh: Arc::new(move || of_refresh.refresh()),
        problems: Arc::new(move || of_problems.problems()),
        status: Arc::new(move || report.status()),
    }
}

impl NodeReport {
    /// Reasons why the node does not serve.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.writer.index_is_in_place() {
            problems.push("the index was removed or replaced".to_owned());
        }
        if let Err(error) = Reader::open(&self.config.index).and_then(|mut reader| reader.index_id()) {
            problems.push(error.to_string());
        }
        if self.objects.as_ref().is_some_and(|objects| !objects.is_in_place()) {
            problems.push(store::Error::NotInPlace.to_string());
        }
        for disk in disks(&self.config) {
            if let Some(why) = disk.refusal() {
                problems.push(format!("the disk of {} takes no files: {why}", disk.of));
            }
        }
        problems
    }

    /// Sets the gauges that nobody else keeps.
    fn refresh(&self) {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        if let Some(space) = DiskSpace::of(&directory_of_objects(&self.config), &self.config) {
            metrics::STORAGE_FREE_BYTES.set(bytes(space.free));
            metrics::STORAGE_MIN_FREE_BYTES.set(bytes(space.min_free));
        }
        if let Some(space) = self.config.index.parent().and_then(|directory| DiskSpace::of(directory, &self.config)) {
            metrics::INDEX_FREE_BYTES.set(bytes(space.free));
            metrics::INDEX_MIN_FREE_BYTES.set(bytes(space.min_free));
        }
        metrics::INDEX_BYTES.set(bytes(IndexFiles::bytes(&self.config.index)));
        metrics::READY.set(i64::from(self.problems().is_empty()));
    }

    /// The state of the node. Nothing in it is of a patient.
    fn status(&self) -> Result<Value, String> {
        let in_words = |error: &dyn std::fmt::Display| error.to_string();
        let now_ms = Clock::System.now_ms();
        let watches = Reader::open(&self.config.index).and_then(|mut reader| reader.watches());
        let watches: Vec<Value> = watches
            .map_err(|error| in_words(&error))?
            .iter()
            .map(|entry| WatchReport::of(entry).map(|watched| watched.as_json(now_ms)))
            .collect::<anyhow::Result<_>>()
            .map_err(|error| in_words(&error))?;
        let space = DiskSpace::of(&directory_of_objects(&self.config), &self.config);
        let problems = self.problems();
        let health = Health::of(&self.config, now_ms);
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ae_title": self.config.node.ae_title.as_str(),
            "started_ms": self.started_ms,
            "now_ms": now_ms,
            "ready": problems.is_empty(),
            "not_ready_because": problems,
            "grade": health.grade().to_string(),
            "problems": health.as_json(),
            "associations": metrics::ASSOCIATIONS_ACTIVE.value(),
            "http_connections": metrics::HTTP_CONNECTIONS_ACTIVE.value(),
            "free_bytes": space.map(|space| space.free),
            "min_free_bytes": space.map(|space| space.min_free),
            "index": self.counts().map_err(|error| in_words(&error))?,
            "watches": watches,
        }))
    }

    /// The counts of the index. To make them reads whole tables, so they are used again for a
    /// while.
    fn counts(&self) -> Result<Value, crate::db::Error> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |counted: &Counted| counted.at.elapsed() < counted.took * REST_AFTER_COUNT;
        if !counted.as_ref().is_some_and(holds) {
            let begun = Instant::now();
            let status = Reader::open(&self.config.index)?.status()?;
            let took = begun.elapsed();
            *counted = Some(Counted { at: Instant::now(), at_ms: Clock::System.now_ms(), took, status });
        }
        let Some(Counted { at_ms, status, .. }) = counted.as_ref() else { return Ok(Value::Null) };
        let mut counts = counts_as_json(status);
        counts.insert("counted_ms".to_owned(), (*at_ms).into());
        Ok(counts.into())
    }
}
