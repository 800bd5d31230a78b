//! A dcmdex node inside the test process, on a free port.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::engine::index_at;
use super::scripted::ScriptedPeer;
use dcmdex::access::peers::{Peers, SharedPeers};
use dcmdex::db::open::{Reader, Writer, WriterOptions};
use dcmdex::db::{Arrivals, ReceivePolicy};
use dcmdex::ingest::Wanted;
use dcmdex::qr;
use dcmdex::receive::journal::Journal;
use dcmdex::receive::storage::Storage;
use dcmdex::scp::{
    Commitment, CommitmentLimits, FilesInPlace, Find, Node, NodeServices, Options, Retrieve, RetrieveOptions, Worklist,
};
use dcmdex::store::{self, ArrivalJournal, Objects};
use dcmdex::ul::tls::SharedTls;
use dcmdex::worklist::{Intake, IntakeOptions, WorklistOptions};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

/// A timeout that no test reaches, however slow the machine is. A test of a timeout sets its own.
const UNREACHED: Duration = Duration::from_secs(300);

/// A running node on 127.0.0.1 with its own index and storage directory. It is stopped when
/// dropped.
#[derive(Debug)]
pub(crate) struct TestNode {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    shutdown: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
    directory: Arc<TempDir>,
    peers: SharedPeers,
}

/// Settings of a [`TestNode`] that a test can change.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) options: Options,
    pub(crate) peers: Peers,
    pub(crate) tls: Option<SharedTls>,
    pub(crate) keep: Keep,
    /// Bytes of the arrival journal. 0: there is none.
    pub(crate) journal_bytes: u64,
    /// Bytes of the largest object that goes into it.
    pub(crate) journal_object: usize,
    pub(crate) policy: ReceivePolicy,
    pub(crate) writer: WriterOptions,
    pub(crate) query: qr::Options,
    pub(crate) retrieve: RetrieveOptions,
    pub(crate) commitment: CommitmentLimits,
    pub(crate) worklist: WorklistOptions,
    /// Number of blocking threads. If peers can occupy them, a small number shows it.
    pub(crate) blocking_threads: usize,
    /// Directory of index and objects. A node that gets the directory of another continues with its
    /// content.
    pub(crate) directory: Arc<TempDir>,
    /// Directory of the objects, if it is not `directory`.
    pub(crate) storage: Option<PathBuf>,
}

/// The part of an instance that the node keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Objects,
    MetadataOnly,
}

impl TestNode {
    /// Starts a node with the title `DCMDEX` that keeps objects and never reaches a timeout.
    /// Everything else is the default.
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// Starts a node with changed settings.
    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut options = Options::new("DCMDEX".parse().unwrap());
        options.bind = SocketAddr::from(([127, 0, 0, 1], 0));
        options.tls_bind = options.bind;
        for limit in [
            &mut options.artim_timeout,
            &mut options.idle_timeout,
            &mut options.read_timeout,
            &mut options.write_timeout,
            &mut options.query_time_limit,
            &mut options.drain_timeout,
        ] {
            *limit = UNREACHED;
        }
        let mut settings = Settings {
            options,
            peers: Peers::default(),
            tls: None,
            keep: Keep::Objects,
            journal_bytes: 4 << 20,
            journal_object: 256 << 10,
            policy: ReceivePolicy::default(),
            writer: WriterOptions::default(),
            query: qr::Options::default(),
            retrieve: RetrieveOptions::default(),
            commitment: CommitmentLimits::default(),
            worklist: WorklistOptions::default(),
            blocking_threads: 512,
            directory: Arc::new(TempDir::new().unwrap()),
            storage: None,
        };
        change(&mut settings);
        let Settings { options, peers, tls, keep, journal_bytes, policy, writer, query, retrieve, .. } = settings;
        let Settings { commitment, worklist, blocking_threads, directory, storage, journal_object, .. } = settings;
        let writer = WriterOptions { declared: Arc::clone(&query.declared), ..writer };
        let index = index_at(directory.path());
        let writer = Writer::open(&index, writer).unwrap();
        let objects = match keep {
            Keep::Objects => {
                let storage = storage.unwrap_or_else(|| directory.path().join("objects"));
                Some(Arc::new(Objects::open(&store::Options::new(storage)).unwrap()))
            }
            Keep::MetadataOnly => None,
        };
        let wanted = Wanted::with_declared(&query.declared);
        let has_journal = journal_bytes > 0 && writer.handle().takes_journal();
        let journal = objects.as_ref().filter(|_| has_journal).map(|objects| {
            let id = writer.handle().name_index(None).unwrap();
            objects.set_index_id(&id).unwrap();
            let opened = ArrivalJournal::open(&objects.journal(), &id).unwrap();
            let file =
                opened.unwrap_or_else(|| ArrivalJournal::create(&objects.journal(), journal_bytes, &id).unwrap());
            assert!(file.groups().next().is_none(), "only the program stores again what a crash left");
            Arc::new(Journal::start(file, journal_object, (objects, &writer.handle())).unwrap())
        });
        let storage = Storage { policy, wanted, journal, ..Storage::new(objects, writer.handle()) };
        let find = Find::new(index.clone(), query);
        let peers = SharedPeers::new(peers, tls);
        let retrieve = Arc::new(Retrieve::new(index.clone(), retrieve));
        let intake = Intake::new(Box::new(writer.handle()), IntakeOptions::default());
        let commitment = Commitment::new(Arc::clone(&retrieve), FilesInPlace::Count).with_limits(commitment);
        let services = NodeServices {
            storage: Some(Arc::new(storage)),
            find: Some(Arc::new(find)),
            retrieve: Some(retrieve),
            commitment: Some(Arc::new(commitment)),
            worklist: Some(Arc::new(Worklist::new(index, worklist, Arc::new(intake)))),
            peers: peers.clone(),
            audit: dcmdex::audit::Auditor::default(),
        };
        let shutdown = CancellationToken::new();
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(blocking_threads)
            .enable_all()
            .build()
            .unwrap();
        let node = runtime.block_on(Node::bind(options, services)).unwrap();
        let (address, tls_address) = (node.local_addr().unwrap(), node.tls_addr());
        let stop = shutdown.clone();
        let thread = thread::spawn(move || {
            runtime.block_on(node.run(stop));
            drop(runtime);
            writer.close().unwrap();
        });
        Self { address, tls_address, shutdown, thread: Some(thread), directory, peers }
    }

    /// Associates with it. All contexts must be accepted.
    pub(crate) fn associate(&self, contexts: &[(&str, &[&str])]) -> ScriptedPeer {
        ScriptedPeer::associated(self.address, contexts)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address for TLS, if the node has one.
    pub(crate) fn tls_address(&self) -> SocketAddr {
        self.tls_address.expect("a node with certificates")
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }

    pub(crate) fn index(&self) -> PathBuf {
        index_at(self.directory.path())
    }

    /// Waits until the incoming links of stored objects are gone, which is soon after the
    /// responses.
    pub(crate) fn wait_for_incoming_links(&self) {
        let is_incoming_link = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().contains(',');
        while std::fs::read_dir(self.storage().join(".incoming"))
            .is_ok_and(|entries| entries.filter_map(Result::ok).any(|entry| is_incoming_link(&entry)))
        {
            std::thread::yield_now();
        }
    }

    pub(crate) fn storage(&self) -> PathBuf {
        self.directory.path().join("objects")
    }

    /// Returns the directory, for the next node.
    pub(crate) fn directory(&self) -> Arc<TempDir> {
        Arc::clone(&self.directory)
    }

    /// Returns the table of peers, so that a test can replace it.
    pub(crate) fn peers(&self) -> &SharedPeers {
        &self.peers
    }

    /// Opens a reader of its index.
    pub(crate) fn reader(&self) -> Reader {
        Reader::open(&self.index()).unwrap()
    }

    /// Tells it to stop and does not wait.
    pub(crate) fn order_to_stop(&self) {
        self.shutdown.cancel();
    }

    /// Stops it as SIGTERM does, and waits until it has stopped.
    pub(crate) fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(thread::panicking() || ended.is_ok(), "the node panicked");
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.finish();
    }
}
