//! HTTP, as clients see it.

mod access;
pub(crate) mod decode;
mod greedy;
mod hostile;
mod http2;
mod page;
mod retrieve;
mod search;
#[path = "store.rs"]
mod storing;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use dcmdex::access::users::{Rights, Users};
use dcmdex::config::{Config, Sources};
use dcmdex::db::open::{Reader, Writer, WriterOptions};
use dcmdex::deliver::delivery::{Delivery, DeliveryOptions};
use dcmdex::receive::storage::Storage;
use dcmdex::scanner::{Roots, ScanTarget, Stop, scan};
use dcmdex::store::{self, Objects};
use dcmdex::web::{Options, Services, SharedUsers, Web};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::util::http::{self, Answer};

/// A timeout that no test reaches, however slow the machine is. A test of a timeout sets its own.
const UNREACHED: Duration = Duration::from_secs(300);

/// The HTTP side over an index of a folder, on a free port of 127.0.0.1. It is stopped when
/// dropped.
pub(crate) struct TestWeb {
    pub(crate) address: SocketAddr,
    pub(crate) users: SharedUsers,
    directory: TempDir,
    shutdown: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

/// Indexes a folder.
pub(crate) fn index_of(folder: &Path, index: &Path) {
    let environment = vec![("DCMDEX_INDEX".into(), index.into())];
    let config = Config::load(&Sources { environment, ..Sources::default() }, Path::new("/nowhere")).unwrap();
    let options = config.scan.clone();
    let roots = Roots::find(&[folder.to_owned()], &options).unwrap();
    let writer = Writer::open(index, config.scan_writer_options()).unwrap();
    let handle = writer.handle();
    let target = ScanTarget::Index { known: Reader::open(index).unwrap(), writer: &handle };
    scan(&roots, &options, target, &Stop::default(), &mut |_event| {}).unwrap();
    writer.close().unwrap();
}

/// Returns the bundled folder of four patients.
pub(crate) fn archive() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/archive")
}

impl TestWeb {
    /// Starts it over the fixtures, open to anyone.
    pub(crate) fn start() -> Self {
        Self::with(&archive(), |_| {}, None)
    }

    /// Starts it over a folder, with other options and these users.
    pub(crate) fn with(folder: &Path, change: impl FnOnce(&mut Options), users: Option<&str>) -> Self {
        Self::with_services(folder, change, users, |_| {})
    }

    /// Starts it with other services too.
    pub(crate) fn with_services(
        folder: &Path,
        change: impl FnOnce(&mut Options),
        users: Option<&str>,
        serve: impl FnOnce(&mut Services),
    ) -> Self {
        let directory = TempDir::new().unwrap();
        let index = directory.path().join("index.db");
        index_of(folder, &index);
        // As the node does. Without a writer, the last thread of the scan may remove files of the
        // index that a reader has seen.
        let writer = Writer::open(&index, WriterOptions::default()).unwrap();
        Self::over(directory, change, users, serve, writer)
    }

    /// Starts it with an empty index that accepts objects.
    pub(crate) fn storing(change: impl FnOnce(&mut Options), users: Option<&str>) -> Self {
        Self::with_writer(change, users, true)
    }

    /// The file of the only object that was stored.
    pub(crate) fn stored_file(&self) -> PathBuf {
        let mut path = self.directory.path().join("objects");
        while path.is_dir() {
            let mut entries = path.read_dir().unwrap().map(|entry| entry.unwrap().path());
            path = entries.find(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.')).unwrap();
        }
        path
    }

    /// Starts it with an empty index, in metadata-only mode.
    pub(crate) fn storing_metadata() -> Self {
        Self::with_writer(|_| {}, None, false)
    }

    /// Starts it over a folder that was indexed, with other options, and accepts objects.
    pub(crate) fn storing_over(folder: &Path, change: impl FnOnce(&mut Options)) -> Self {
        let directory = TempDir::new().unwrap();
        index_of(folder, &directory.path().join("index.db"));
        Self::with_writer_in(directory, change, None, true)
    }

    fn with_writer(change: impl FnOnce(&mut Options), users: Option<&str>, keeps: bool) -> Self {
        Self::with_writer_in(TempDir::new().unwrap(), change, users, keeps)
    }

    fn with_writer_in(directory: TempDir, change: impl FnOnce(&mut Options), users: Option<&str>, keeps: bool) -> Self {
        let writer = Writer::open(&directory.path().join("index.db"), WriterOptions::default()).unwrap();
        let objects = || Objects::open(&store::Options::new(directory.path().join("objects"))).unwrap();
        let storage = Storage::new(keeps.then(|| Arc::new(objects())), writer.handle());
        let serve = |services: &mut Services| services.storage = Some(Arc::new(storage));
        Self::over(directory, change, users, serve, writer)
    }

    fn over(
        directory: TempDir,
        change: impl FnOnce(&mut Options),
        users: Option<&str>,
        serve: impl FnOnce(&mut Services),
        writer: Writer,
    ) -> Self {
        let index = directory.path().join("index.db");
        let mut options = Options::new();
        options.bind.set_port(0);
        for limit in [
            &mut options.head_timeout,
            &mut options.idle_timeout,
            &mut options.read_timeout,
            &mut options.write_timeout,
            &mut options.query_time_limit,
            &mut options.drain_timeout,
        ] {
            *limit = UNREACHED;
        }
        if users.is_some() {
            options.anyone = Rights::NONE;
        }
        change(&mut options);
        let users = SharedUsers::new(users.map(|text| Users::parse(text).unwrap()), None).unwrap();
        let delivery = DeliveryOptions {
            max_instances: 100_000,
            source_timeout: UNREACHED,
            verification_holds: store::DEFAULT_HOLDS,
        };
        let delivery = Arc::new(Delivery::new(index.clone(), delivery));
        let mut services = Services {
            index,
            delivery,
            storage: None,
            users: users.clone(),
            ohif: None,
            tls: None,
            audit: dcmdex::audit::Auditor::default(),
        };
        serve(&mut services);
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let web = runtime.block_on(Web::bind(options, services)).unwrap();
        let (address, shutdown) = (web.local_addr(), CancellationToken::new());
        let stop = shutdown.clone();
        let thread = thread::spawn(move || {
            runtime.block_on(web.run(stop));
            drop(runtime);
            writer.close().unwrap();
        });
        Self { address, users, directory, shutdown, thread: Some(thread) }
    }

    /// Returns the path of its index.
    pub(crate) fn index(&self) -> PathBuf {
        self.directory.path().join("index.db")
    }

    /// Sends GET for a path of the DICOMweb service.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    /// Sends GET with headers.
    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        http::request(self.address, "GET", &format!("/dicom-web{path}"), headers, b"")
    }
}

impl Drop for TestWeb {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(thread::panicking() || ended.is_ok(), "the HTTP side panicked");
        }
    }
}

/// Returns the first value of an attribute of an answer.
pub(crate) fn value<'a>(entity: &'a serde_json::Value, tag: &str) -> &'a serde_json::Value {
    &entity[tag]["Value"][0]
}
