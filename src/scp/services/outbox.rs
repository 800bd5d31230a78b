//! Storage commitment requests on disk, beside the index, whose reports are not delivered yet. A
//! peer that was told Success gets its report even if the node is killed in between (PS3.4
//! J.3.2.1.2).
//!
//! Each request has a file. The file is written before the request is answered, and removed when
//! the peer has its report. It names UIDs and the AE title, but no result. After a start, the
//! objects of each remaining request are verified again.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tracing::warn;

use crate::db::open::{directory_beside, is_on_server};
use crate::files::{PRIVATE_MODE, UnfinishedFile, parent_of, sync_directory, with_suffix};
use crate::model::ae_title::AeTitle;
use crate::model::clock::Clock;
use crate::model::uid::is_acceptable_uid;

/// Maximum time that a report waits for its peer, restarts included. Larger: peers that are away
/// for days get their reports, and the disk fills. Smaller: a peer that is off overnight has to ask
/// again.
pub(super) const MAX_AGE: Duration = Duration::from_hours(24);

/// Maximum bytes of a file that is read. It suffices for a request with the maximum of instances.
const MAX_FILE_LENGTH: u64 = 16 << 20;

/// The directory for the requests, beside an index.
fn directory_of(index: &Path) -> PathBuf {
    match is_on_server(index) {
        true => directory_beside(index).join("dcmdex-commitments"),
        false => with_suffix(index, "-commitments"),
    }
}

/// Returns how many storage commitment requests of the index at this path wait for the delivery of
/// their report.
///
/// # Errors
/// When the directory beside it cannot be read.
pub fn pending_reports(index: &Path) -> io::Result<u64> {
    match fs::read_dir(directory_of(index)) {
        Ok(entries) => Ok(entries.flatten().filter(|entry| is_request(&entry.path())).count() as u64),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn is_request(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// The requests that wait.
#[derive(Debug)]
pub(super) struct Outbox {
    directory: PathBuf,
    next: AtomicU64,
    clock: Clock,
}

/// A request as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The receiver of the report.
    pub(super) ae_title: AeTitle,
    /// Transaction UID (0008,1195).
    pub(super) transaction_uid: String,
    /// SOP Class and Instance UIDs.
    pub(super) references: Vec<(String, String)>,
}

/// A request on disk.
#[derive(Debug)]
pub(super) struct KeptRequest {
    path: PathBuf,
    asked_ms: i64,
    clock: Clock,
}

impl KeptRequest {
    /// Whether it has waited too long.
    pub(super) fn is_old(&self) -> bool {
        let age = u64::try_from(self.clock.now_ms().saturating_sub(self.asked_ms)).unwrap_or(0);
        Duration::from_millis(age) > MAX_AGE
    }

    /// Removes the request. It does not wait until the removal is durable, because a report that
    /// comes twice does no harm.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "a storage commitment request that was reported cannot be removed");
        }
    }
}

impl Outbox {
    /// Returns the directory beside an index.
    pub(super) fn beside(index: &Path) -> Self {
        Self { directory: directory_of(index), next: AtomicU64::new(0), clock: Clock::System }
    }

    /// Keeps a request. It is durable when this returns.
    pub(super) fn keep(&self, request: &Request) -> io::Result<KeptRequest> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Ok(()) => sync_directory(parent_of(&self.directory))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let asked_ms = self.clock.now_ms();
        let references = request.references.iter().map(|(class, instance)| json!([class, instance]));
        let text = json!({
            "peer": request.ae_title.as_str(),
            "asked_ms": asked_ms,
            "transaction_uid": request.transaction_uid,
            "references": references.collect::<Vec<_>>(),
        })
        .to_string();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("{asked_ms}-{}-{number}.json", std::process::id()));
        let written = (|| {
            let mut file = UnfinishedFile::under(path.with_extension("tmp"), &path, PRIVATE_MODE)?;
            file.write_all(text.as_bytes())?;
            file.finish()
        })();
        if let Err(error) = written {
            // Otherwise the file would be answered, although its request is refused.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(KeptRequest { path, asked_ms, clock: self.clock })
    }

    /// Returns the requests of an earlier process. Those that are too old or cannot be read are
    /// removed.
    pub(super) fn left_over(&self) -> Vec<(Arc<KeptRequest>, Request)> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let mut left_over = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            let read = if is_request(&path) { read(&path) } else { None };
            let (asked_ms, request) = read.map_or((0, None), |(asked_ms, request)| (asked_ms, Some(request)));
            let kept = KeptRequest { path, asked_ms, clock: self.clock };
            match request {
                Some(request) if !kept.is_old() => left_over.push((Arc::new(kept), request)),
                _ => {
                    warn!("a storage commitment request of an earlier process is given up: too old, or damaged");
                    kept.remove();
                }
            }
        }
        left_over.sort_by_key(|(kept, _)| kept.asked_ms);
        left_over
    }
}

fn read(path: &Path) -> Option<(i64, Request)> {
    if fs::metadata(path).ok()?.len() > MAX_FILE_LENGTH {
        return None;
    }
    let value: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let uid = |value: &Value| value.as_str().filter(|uid| is_acceptable_uid(uid)).map(str::to_owned);
    let reference = |value: &Value| Some((uid(value.get(0)?)?, uid(value.get(1)?)?));
    let references: Option<Vec<_>> = value.get("references")?.as_array()?.iter().map(reference).collect();
    let request = Request {
        ae_title: value.get("peer")?.as_str()?.parse().ok()?,
        transaction_uid: uid(value.get("transaction_uid")?)?,
        references: references.filter(|references| !references.is_empty())?,
    };
    Some((value.get("asked_ms")?.as_i64()?, request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_there_after_a_restart_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let index = directory.path().join("index.db");
        assert_eq!(pending_reports(&index).unwrap(), 0);
        let request = Request {
            ae_title: "CT1".parse().unwrap(),
            transaction_uid: "1.2.3".into(),
            references: vec![("1.2".into(), "1.2.3.4".into()), ("1.2".into(), "1.2.3.5".into())],
        };
        Outbox::beside(&index).keep(&request).unwrap();
        // A file that was being written when the process was killed, a file that the disk damaged,
        // and a request that waited for days.
        let beside = directory.path().join("index.db-commitments");
        fs::write(beside.join("1.tmp"), "{").unwrap();
        fs::write(beside.join("2.json"), "{\"peer\": 1}").unwrap();
        let written = fs::read_dir(&beside)
            .unwrap()
            .flatten()
            .map(|it| it.path())
            .find(|path| is_request(path) && !path.ends_with("2.json"));
        let text = fs::read_to_string(written.unwrap()).unwrap();
        let mut old: Value = serde_json::from_str(&text).unwrap();
        old["asked_ms"] = 1.into();
        fs::write(beside.join("3.json"), old.to_string()).unwrap();
        let left_over = Outbox::beside(&index).left_over();
        assert_eq!(left_over.len(), 1);
        assert_eq!(left_over[0].1, request);
        assert_eq!(pending_reports(&index).unwrap(), 1);
        left_over[0].0.remove();
        assert_eq!(pending_reports(&index).unwrap(), 0);
        assert!(Outbox::beside(&index).left_over().is_empty());
    }
}
