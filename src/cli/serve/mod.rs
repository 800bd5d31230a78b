//! `dcmdex serve` runs the network node. It starts the tokio runtime that `scp` and `web` use.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use self::service_manager::{NOTIFY_SOCKET, ServiceManager};
use self::trash_thread::Trashing;
use crate::access::jwt::TokenCheck;
use crate::access::peers::SharedPeers;
use crate::access::peers::{Grant, Security};
use crate::audit::{AuditEvent, AuditRecord, AuditTrail, Auditor};
use crate::cli::context::{Chattiness, Context, Flags, IndexArgs, in_one_line, make_directory_of};
use crate::cli::http::{Callers, read_users};
use crate::cli::setting_args::{HasSettings, SettingArgs};
use crate::cli::{Exit, backup, storage_match, arrival_journal, directory_checks, unindexed, suspend};
use crate::config::{self, AccessHistory, Config, Keep};
use crate::db::Admin;
use crate::db::Finding;
use crate::db::ScanLedger;
use crate::db::Search;
use crate::db::open::{Reader, Writer, WriterHandle, may_exist};
use crate::deliver::delivery::Delivery;
use crate::deliver::scrub::{Scrub, ScrubTally};
use crate::events::{EventTarget, Telling};
use crate::ingest::{Outcome, Wanted, read_file};
use crate::model::attribute::AttributeId;
use crate::model::clock::Clock;
use crate::model::location::Place;
use crate::model::peer::Peer;
use crate::receive::journal::Journal;
use crate::receive::storage::Storage;
use crate::scp::{Commitment, Find, Node, NodeServices, Plain, Retrieve, Worklist};
use crate::store::{Objects, Recovered, Verified};
use crate::telemetry::metrics;
use crate::ul::tls::{self, ClientCertificates};
use crate::ul::tls::{SharedTls, Tls};
use crate::ul::tls_check;
use crate::watch::WatchControl;
use crate::web::{self, Monitor, MonitorSources, SharedUsers, Web};
use crate::worklist::Intake;

/// Pause between two looks at the note of the last backup.
const BACKUP_LOOK: Duration = Duration::from_secs(10);

/// Damaged objects whose events wait to be recorded.
const MAX_DAMAGED: usize = 1024;

/// Minimum pause between two rounds of a scrub.
const LEAST_SCRUB_PAUSE: Duration = Duration::from_secs(60);

/// The options of `serve` in the table of settings.
#[derive(Debug)]
struct Serve;

impl HasSettings for Serve {
    const COMMAND: &'static str = "serve";
}

const EXAMPLES: &str = "\
Examples:
  dcmdex serve                                              for this machine only
  dcmdex serve --http-port 8080                             with DICOMweb and a page
  dcmdex serve --bind 0.0.0.0                               with a [[peer]] for each caller in dcmdex.toml
  dcmdex serve --index archive.db --peer PACS=10.1.2.3:104  with a destination of C-MOVE

SIGHUP reads peers, certificates and orders' settings again. SIGTERM stops the node in order.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    settings: SettingArgs<Serve>,
    /// Another node, as a destination for C-MOVE. May be repeated
    #[arg(long, value_name = "AET=HOST:PORT")]
    peer: Vec<Peer>,
}

pub(super) fn run(arguments: &ServeArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = context.configure(flags(arguments)?, Chattiness::Service)?;
    let history = AccessHistory::of(&config)?;
    warn_when_open(&config);
    let tls = config.tls.as_ref().map(load_tls).transpose()?.map(SharedTls::new);
    if let Some(made) = make_directory_of(&config.index)? {
        tracing::info!(directory = %made.display(), "made the directory of the index");
    }
    if let Some(problem) = directory_checks::problems(&config).first() {
        bail!("{problem}");
    }
    let objects = config.store_options().map(|options| Objects::open(&options).map(Arc::new)).transpose()?;
    if let Some(objects) = &objects {
        storage_match::refuse_new_index(&config.index, objects)?;
    }
    // The sign of a wrong path, or of a disk that is not mounted.
    if !may_exist(&config.index) {
        tracing::warn!(
            index = %config.index.display(),
            "there is no index, so the node makes a new one that knows nothing. If there was one, its disk may not be \
             mounted: end the node, mount it, and start again"
        );
    }
    let options = config.node_writer_options();
    suspend::commit_before_stopping(&options.suspension)?;
    let writer = Writer::open(&config.index, options)?;
    check_index(&config)?;
    warn_of_lacking(&config)?;
    if let Some(objects) = &objects {
        storage_match::refuse_misfits(&config.index, objects, &writer.handle())?;
        recover(objects, &config)?;
        directory_checks::follow_storage(&config.index, objects.root(), &writer.handle())?;
        arrival_journal::empty(&config, objects, &writer.handle())?;
        warn_of_strays(objects, &config)?;
    }
    let journal = match &objects {
        Some(objects) => arrival_journal::start(&config, objects, &writer.handle())?,
        None => None,
    };
    let retrieve = Arc::new(Retrieve::new(config.index.clone(), config.retrieve.clone()));
    let scrubbing = Scrubbing::start(&config, Arc::clone(retrieve.delivery().verified()))?;
    let monitor = config.monitoring.map(|address| (address, monitor::sources(&config, writer.handle())));
    let watching = Watching::start(&config, writer.handle())?;
    let trail = config.audit_options().map(|options| AuditTrail::open(options, Clock::System)).transpose()?;
    let audit = trail.as_ref().map(AuditTrail::auditor).unwrap_or_default();
    let intake = Arc::new(Intake::new(Box::new(writer.handle()), config.worklist.intake.clone()));
    let feeding = Feeding::start(&config, &intake)?;
    let telling = tell_events(&config, writer.handle(), retrieve.delivery().verified())?;
    let offers =
        offers(&config, (objects, journal.clone()), (writer.handle(), Arc::clone(&intake)), retrieve, (tls, &audit))?;
    let trashing = offers.0.storage.as_ref().map(|storage| Trashing::start(&config, storage)).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("node")
        .enable_all()
        .build()
        .context("cannot start the network runtime")?;
    let manager = ServiceManager::at(context.sources.variable(NOTIFY_SOCKET).map(OsString::as_os_str));
    let again = Arc::new(context.reader_of_settings(&config)?);
    let beside = (watching.control(), WorklistControl::new(intake, offers.2.as_ref()), again);
    audit.note(AuditRecord::new(AuditEvent::Start, ""));
    let served = runtime.block_on(serve(config, history, (offers, monitor), beside, &manager));
    watching.stop();
    feeding.stop();
    scrubbing.stop();
    if let Some(telling) = telling {
        telling.stop();
    }
    if let Some(trashing) = trashing {
        trashing.stop();
    }
    if let Some(journal) = journal {
        journal.close();
    }
    // Dropping the runtime drops all handles of the writer. Closing the writer then commits its
    // queue.
    drop(runtime);
    audit.note(AuditRecord::new(AuditEvent::Stop, ""));
    if let Some(trail) = trail {
        trail.close();
    }
    writer.close().context("could not write the last changes to the index")?;
    served?;
    tracing::info!("stopped");
    Ok(Exit::Done)
}

/// Makes the services of the node: those of DIMSE, and those of HTTP if it is configured.
fn offers(
    config: &Config,
    (objects, journal): (Option<Arc<Objects>>, Option<Arc<Journal>>),
    (writer, intake): (WriterHandle, Arc<Intake>),
    retrieve: Arc<Retrieve>,
    (tls, audit): (Option<SharedTls>, &Auditor),
) -> anyhow::Result<Offers> {
    let storage = Arc::new(Storage { journal, ..arrival_journal::storage(config, objects, writer) });
    let find = Find::new(config.index.clone(), config.find.clone()).with_min_free(config.min_free_bytes);
    let peers = SharedPeers::new(config.peers.clone(), tls);
    let http = HttpStart::of(config, peers.tls(), (retrieve.delivery(), &storage), audit)?;
    let commitment = Commitment::new(Arc::clone(&retrieve), config.files_in_place);
    let services = NodeServices {
        storage: Some(Arc::clone(&storage)),
        find: Some(Arc::new(find)),
        retrieve: Some(retrieve),
        commitment: Some(Arc::new(commitment)),
        worklist: worklist_of(config, &intake),
        peers,
        audit: audit.clone(),
    };
    let hl7 = Hl7Start::of(config, intake, services.peers.tls());
    Ok((services, http, hl7))
}

/// What the node offers: DIMSE, HTTP, and a port for HL7 messages.
type Offers = (NodeServices, Option<HttpStart>, Option<Hl7Start>);

/// The worklist, if peers can ask for it.
fn worklist_of(config: &Config, intake: &Arc<Intake>) -> Option<Arc<Worklist>> {
    let worklist = Worklist::new(config.index.clone(), config.worklist_options(), Arc::clone(intake));
    config.worklist.enabled.then(|| Arc::new(worklist.with_min_free(config.min_free_bytes)))
}

/// The thread that reads all managed objects slowly, to find damage.
struct Scrubbing {
    /// Dropping it ends the thread.
    go_on: mpsc::Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Scrubbing {
    fn start(config: &Config, verified: Arc<Verified>) -> anyhow::Result<Self> {
        let (go_on, ended) = mpsc::channel();
        let Some(bytes_per_second) = config.integrity.scrub_bytes_per_second else {
            return Ok(Self { go_on, thread: None });
        };
        let scrub = Scrub { index: config.index.clone(), bytes_per_second, verified };
        let pause = config.integrity.scrub_pause;
        let thread = std::thread::Builder::new().name("scrub".into()).spawn(move || {
            let mut wait = |time| match ended.recv_timeout(time) {
                Err(RecvTimeoutError::Timeout) => ControlFlow::Continue(()),
                Ok(()) | Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(()),
            };
            loop {
                scrub_once(&scrub, &mut wait);
                // There is always a short pause. Otherwise an empty storage directory would make
                // the thread query the index all the time.
                if wait(pause.max(LEAST_SCRUB_PAUSE)).is_break() {
                    return;
                }
            }
        });
        Ok(Self { go_on, thread: Some(thread.context("cannot start the scrub thread")?) })
    }

    fn stop(self) {
        drop(self.go_on);
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a defect of dcmdex ended the scrub");
        }
    }
}

/// Begins to tell other programs what happens, if somebody wants to know.
fn tell_events(config: &Config, writer: WriterHandle, verified: &Verified) -> anyhow::Result<Option<Telling>> {
    let Some(options) = config.event_options() else { return Ok(None) };
    for receiver in &options.receivers {
        if let EventTarget::Webhook(target) = &receiver.target
            && !target.url.has_tls()
            && !is_this_machine(target.url.host())
        {
            let (receiver, url) = (&receiver.name, &target.url);
            tracing::warn!(receiver, %url, "others can read the events of this receiver on their way; https hides them");
        }
    }
    let (found, damaged) = crossbeam_channel::bounded(MAX_DAMAGED);
    verified.tell_damaged(found);
    Ok(Some(Telling::start(options, &writer, damaged)?))
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// Runs one round of the scrub and logs its result.
fn scrub_once(scrub: &Scrub, wait: &mut dyn FnMut(Duration) -> ControlFlow<()>) {
    match scrub.round(wait) {
        Ok(ScrubTally { sound, damaged, gone, bytes }) if damaged + gone > 0 => {
            tracing::error!(
                sound,
                damaged,
                gone,
                read_bytes = bytes,
                "scrub: stored objects are damaged or gone; `dcmdex check --files` names them"
            );
        }
        Ok(ScrubTally { sound, bytes, .. }) => {
            tracing::info!(sound, read_bytes = bytes, "scrub: all stored objects that were checked are sound");
        }
        Err(error) => tracing::error!(%error, "scrub: the index cannot be read; the next round tries again"),
    }
}

/// Checks a sample of the index.
fn check_index(config: &Config) -> anyhow::Result<()> {
    if !config.start_check {
        return Ok(());
    }
    let report = Reader::open(&config.index)?.start_check()?;
    let Some(Finding { check, detail }) = report.findings.first() else { return Ok(()) };
    // SQLite tells a hundred faults, after a line with the name of the database.
    let detail = detail.lines().find(|line| !line.starts_with("***")).unwrap_or(detail);
    bail!(
        "the index {} is damaged ({check}: {detail}): restore it from a backup, or inspect it with `dcmdex check`; \
         `database.start_check = false` starts the node without this check",
        config.index.display()
    )
}

/// Recovers objects after a crash. They had their place, and perhaps no row in the index.
fn recover(objects: &Objects, config: &Config) -> anyhow::Result<()> {
    let mut index = Reader::open(&config.index)?;
    let recovered = objects.recover(|file, path| {
        // An acknowledged object was durable before. So it can be read, and has the length that the
        // index says.
        let record = match read_file(file, Wanted::index()) {
            Outcome::Instance(record) => record,
            // A disk that cannot be read now does not prove that the object is unknown.
            Outcome::Unreadable { .. } => return true,
            _ => return false,
        };
        let size = file.metadata().map(|metadata| metadata.len()).ok();
        // Nor does an index that cannot be read now.
        index.known_locations(record.value(AttributeId::SOPInstanceUID)).ok().is_none_or(|known| {
            let mut locations = known.iter().map(|known| &known.location);
            locations.any(|it| it.path().as_deref() == Some(path) && Some(it.size) == size)
        })
    })?;
    if recovered != Recovered::default() {
        tracing::info!(
            kept = recovered.kept,
            removed = recovered.removed,
            "the last process ended while objects arrived; objects without a row in the index are removed"
        );
    }
    Ok(())
}

/// Warns about objects that the index lacks, as far as a short look finds them.
fn warn_of_strays(objects: &Objects, config: &Config) -> anyhow::Result<()> {
    if !config.start_check {
        return Ok(());
    }
    let found = unindexed::count_some(&mut Reader::open(&config.index)?, objects.root())?;
    if found.objects > 0 {
        tracing::warn!(
            objects = found.objects,
            "the storage directory holds objects that the index lacks; end the node and run `dcmdex rebuild` to index them"
        );
    }
    Ok(())
}

/// What the HTTP server needs to start.
struct HttpStart {
    options: web::Options,
    services: web::Services,
    /// The tokens of an identity provider.
    tokens: Option<TokenCheck>,
}

impl HttpStart {
    /// `None` if HTTP is off.
    fn of(
        config: &Config,
        tls: Option<&SharedTls>,
        (delivery, storage): (&Arc<Delivery>, &Arc<Storage>),
        audit: &Auditor,
    ) -> anyhow::Result<Option<Self>> {
        if !config.http.enabled {
            return Ok(None);
        }
        let callers = Callers::of(config)?;
        for warning in callers.warnings(config) {
            tracing::warn!("{warning}");
        }
        let tokens = callers.tokens.clone();
        let users = SharedUsers::new(callers.users, callers.tokens);
        let tls = match tls {
            Some(tls) if config.http.tls => {
                let tls = tls.clone();
                let source: web::TlsSource = Arc::new(move || tls.current().http());
                Some(source)
            }
            Some(_) | None => None,
        };
        let ohif = config.http.ohif.as_deref().map(open_ohif).transpose()?;
        let (index, delivery, storage) = (config.index.clone(), Arc::clone(delivery), Some(Arc::clone(storage)));
        let services = web::Services { index, delivery, storage, users, ohif, tls, audit: audit.clone() };
        Ok(Some(Self { options: config.web_options()?, services, tokens }))
    }
}

fn open_ohif(directory: &Path) -> anyhow::Result<Arc<web::Ohif>> {
    let (ohif, is_rebased) = web::Ohif::open(directory).context("OHIF cannot be served")?;
    if !is_rebased {
        tracing::warn!(
            path = %directory.display(),
            "the base of this build of OHIF was not found, so the viewer may not find its files below /ohif/"
        );
    }
    Ok(Arc::new(ohif))
}

/// Warns the operator about a node that is more open than it may seem.
fn warn_when_open(config: &Config) {
    if !config.is_reachable_from_outside() {
        return;
    }
    let address = config.node.bind;
    // A client without a certificate of our authorities cannot associate.
    let guarded = config.tls.as_ref().map(|tls| tls.client_certificates) == Some(ClientCertificates::Required)
        && config.node.plain == Plain::Refuse;
    let Some(table) = config.peers.table.as_ref() else {
        if guarded {
            return;
        }
        tracing::warn!(
            %address,
            "other machines can reach this address, and anyone may associate (access): they can store and query"
        );
        return;
    };
    let open = |grant: &&Grant| grant.addresses.is_empty() && grant.security == Security::Any;
    let from_anywhere = table.values().filter(open).count();
    if from_anywhere > 0 && !guarded {
        tracing::warn!(
            %address,
            peers = from_anywhere,
            "other machines can reach this address, and some peers may call from any address: their AE title is enough"
        );
    }
}

/// Warns about instances that were indexed before an attribute was declared.
fn warn_of_lacking(config: &Config) -> anyhow::Result<()> {
    if config.declared.is_empty() {
        return Ok(());
    }
    let mut reader = Reader::open(&config.index)?.with_declared(Arc::clone(&config.declared));
    let mut lacking = |place| reader.without_declared_below(place, Path::new(""));
    let (in_place, managed, metadata) =
        (lacking(Place::InPlace)? + lacking(Place::Archive)?, lacking(Place::Managed)?, lacking(Place::MetadataOnly)?);
    if in_place + managed > 0 {
        tracing::warn!(
            instances = in_place + managed,
            "instances lack declared attributes, because they were indexed earlier; `dcmdex scan` of their directories adds them"
        );
    }
    if metadata > 0 {
        tracing::warn!(
            instances = metadata,
            "instances can never get declared attributes, because their objects are not kept (metadata only)"
        );
    }
    Ok(())
}

fn flags(arguments: &ServeArgs) -> anyhow::Result<Vec<crate::config::Flag>> {
    let mut flags = Flags::default();
    arguments.index.add_to(&mut flags)?;
    flags.0.extend(arguments.settings.flags());
    for (at, peer) in arguments.peer.iter().enumerate() {
        if arguments.peer.iter().take(at).any(|earlier| earlier.ae_title == peer.ae_title) {
            bail!("option --peer: {} is named twice", peer.ae_title);
        }
        flags.text(&format!("peers.{}", peer.ae_title), "--peer", Some(&peer.address.to_string()));
    }
    Ok(flags.0)
}

async fn serve<F>(
    config: Config,
    history: AccessHistory,
    ((services, http, hl7), monitor): (Offers, Option<(SocketAddr, MonitorSources)>),
    (watch, worklist, again): (WatchControl, WorklistControl, Arc<F>),
    manager: &ServiceManager,
) -> anyhow::Result<()>
where
    F: Fn() -> Result<Config, config::Error> + Send + Sync + 'static,
{
    let shutdown = CancellationToken::new();
    stop_on_signals(&shutdown)?;
    let mut hang_ups = signal(SignalKind::hangup()).context("cannot handle signals")?;
    let peers = services.peers.clone();
    let node = Node::bind(config.node.clone(), services).await.map_err(with_port_hint)?;
    let users = http.as_ref().map(|http| http.services.users.clone());
    let tokens = http.as_ref().and_then(|http| http.tokens.clone());
    let web = match http {
        Some(HttpStart { options, services, .. }) => Some(Web::bind(options, services).await.map_err(with_port_hint)?),
        None => None,
    };
    let hl7 = match hl7 {
        Some(hl7) => Some(hl7.bind().await.map_err(with_port_hint)?),
        None => None,
    };
    let monitor = match monitor {
        Some((address, sources)) => Some(Monitor::bind(address, sources).await.map_err(with_port_hint)?),
        None => None,
    };
    tokio::spawn(follow_backups(config.index.clone()));
    log_listening(&config, &node, (web.as_ref(), monitor.as_ref()))?;
    manager.tell("READY=1");
    let web_shutdown = shutdown.clone();
    let web = async move {
        match web {
            Some(web) => web.run(web_shutdown).await,
            None => web_shutdown.cancelled().await,
        }
    };
    let hl7_shutdown = shutdown.clone();
    let hl7 = async move {
        if let Some(hl7) = hl7 {
            hl7.run(hl7_shutdown).await;
        }
    };
    let monitor = {
        let shutdown = shutdown.clone();
        async move {
            match monitor {
                Some(monitor) => monitor.run(shutdown).await,
                None => shutdown.cancelled().await,
            }
        }
    };
    let both = async {
        tokio::join!(node.run(shutdown.clone()), web, hl7, monitor);
    };
    let mut settings = InForce { config, history, peers, users, tokens, watch, worklist };
    run_and_reload(both, &shutdown, &mut settings, &mut hang_ups, again, manager).await;
    Ok(())
}

/// Runs the node until it has stopped. Each SIGHUP reads the settings again.
async fn run_and_reload<F>(
    node: impl Future<Output = ()>,
    shutdown: &CancellationToken,
    settings: &mut InForce,
    hang_ups: &mut Signal,
    again: Arc<F>,
    manager: &ServiceManager,
) where
    F: Fn() -> Result<Config, config::Error> + Send + Sync + 'static,
{
    let mut running = pin!(node);
    // Reading the settings takes a moment, because it waits until the file no longer changes. The
    // node runs meanwhile.
    let mut reading = None;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                manager.tell("STOPPING=1");
                settings.watch.stop();
                running.await;
                break;
            }
            () = &mut running => break,
            Some(read) = of(&mut reading) => {
                reading = None;
                match read.map_err(anyhow::Error::from).flatten().and_then(|(new, tls)| settings.replace(new, tls)) {
                    Ok(()) => {}
                    Err(error) => {
                        let error = in_one_line(&error);
                        tracing::error!(error, "the new settings cannot be used; the node keeps the old ones");
                    }
                }
            }
            // A signal during reading makes the node read once more.
            Some(()) = hang_ups.recv(), if reading.is_none() => {
                let again = Arc::clone(&again);
                reading = Some(spawn_blocking(move || read_again(again.as_ref())));
            }
        }
    }
}

/// Keeps the metric of the last backup up to date. `dcmdex backup` notes its success beside the
/// index.
async fn follow_backups(index: PathBuf) {
    loop {
        let index = index.clone();
        let noted = spawn_blocking(move || backup::last_success(&index)).await;
        if let Ok(Some(made_ms)) = noted {
            metrics::BACKUP_LAST_SUCCESS.set(made_ms.div_euclid(1000));
        }
        tokio::time::sleep(BACKUP_LOOK).await;
    }
}

/// Says what to do about a port that cannot be had.
fn with_port_hint(error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    let hint = match kind {
        Some(ErrorKind::AddrInUse) => "another process has the port, perhaps another dcmdex; `ss -ltnp` names it",
        Some(ErrorKind::PermissionDenied) => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE; systemd gives it with AmbientCapabilities="
        }
        Some(ErrorKind::AddrNotAvailable) => "this machine does not have the address; `ip address` lists those it has",
        _ => return error,
    };
    anyhow::anyhow!("{}; hint: {hint}", in_one_line(&error))
}

/// The result of a task. Waits for ever if there is none.
async fn of<T>(task: &mut Option<JoinHandle<T>>) -> Option<Result<T, JoinError>> {
    match task {
        Some(task) => Some(task.await),
        None => std::future::pending().await,
    }
}

/// What a running node uses.
struct InForce {
    config: Config,
    history: AccessHistory,
    peers: SharedPeers,
    /// The users of the HTTP server, if it needs them.
    users: Option<SharedUsers>,
    /// The tokens of an identity provider, if the HTTP server takes them.
    tokens: Option<TokenCheck>,
    watch: WatchControl,
    worklist: WorklistControl,
}

impl InForce {
    /// Uses new settings, unless they would admit more peers than allowed.
    fn replace(&mut self, new: Config, certificates: Option<Tls>) -> anyhow::Result<()> {
        let admitted = self.history.take(&new)?;
        let users = self.config.http.users.as_deref().filter(|_| self.users.is_some()).map(read_users).transpose()?;
        if let Some(tokens) = &self.tokens {
            tokens.read_again()?;
        }
        if let (Some(shared), Some(users)) = (&self.users, users) {
            shared.replace(users);
        }
        take(&new, certificates, &self.peers);
        self.watch.replace(new.watched());
        self.worklist.replace(&new);
        tracing::info!(
            access = admitted.as_str(),
            peers = new.peers.table.as_ref().map(BTreeMap::len),
            destinations = new.peers.destinations.len(),
            watches = new.watches.len(),
            "peers and certificates read again, and watched directories; open associations keep their old rights"
        );
        warn_of_restart(&self.config, &new, self.peers.tls().is_some());
        warn_when_open(&new);
        self.config = new;
        Ok(())
    }
}

fn read_again(again: &impl Fn() -> Result<Config, config::Error>) -> anyhow::Result<(Config, Option<Tls>)> {
    let config = again()?;
    let tls = config.tls.as_ref().map(load_tls).transpose()?;
    Ok((config, tls))
}

/// Reads the certificates. Logs a warning about each that peers will refuse.
fn load_tls(options: &tls::Options) -> Result<Tls, tls::Error> {
    for problem in tls_check::problems(options, Clock::System.now_ms())? {
        tracing::warn!("{problem}");
    }
    Tls::load(options)
}

/// Uses the new values of the settings that can change in a running node.
fn take(new: &Config, certificates: Option<Tls>, peers: &SharedPeers) {
    peers.replace(new.peers.clone());
    if let (Some(tls), Some(certificates)) = (peers.tls(), certificates) {
        tls.replace(certificates);
    }
}

/// Logs the changed settings that need a restart.
fn warn_of_restart(old: &Config, new: &Config, has_tls: bool) {
    /// The settings that SIGHUP reads again, besides the peers.
    const CERTIFICATES: [&str; 4] = ["tls.certificate", "tls.key", "tls.authorities", "tls.client_certificates"];
    // Otherwise a port would have to open or close.
    let certificates_taken = has_tls == new.tls.is_some();
    let before: HashMap<_, _> = old.settings().map(|(path, setting)| (path, &setting.value)).collect();
    let changed = new.settings().filter(|(path, setting)| before.get(path) != Some(&&setting.value));
    let is_taken = |path: &str| {
        // `AccessHistory::take` has already decided who may associate.
        path == "access"
            || path.starts_with("peers.")
            || WorklistControl::SETTINGS.contains(&path)
            || certificates_taken && CERTIFICATES.contains(&path)
    };
    let mut later: Vec<_> = changed.map(|(path, _)| path).filter(|path| !is_taken(path)).collect();
    if old.events.receivers != new.events.receivers {
        later.push("events");
    }
    if !later.is_empty() {
        tracing::warn!(
            settings = later.join(", "),
            "changed settings that a running node does not take over; restart the node"
        );
    }
}

fn log_listening(config: &Config, node: &Node, (web, monitor): (Option<&Web>, Option<&Monitor>)) -> anyhow::Result<()> {
    let keeps = match config.keep {
        Keep::Objects => "objects",
        Keep::MetadataOnly => "metadata only",
    };
    tracing::info!(
        address = node.local_addr().map(tracing::field::display),
        tls_address = node.tls_addr().map(tracing::field::display),
        http_address = web.map(Web::local_addr).map(tracing::field::display),
        monitoring_address = monitor.map(Monitor::local_addr).map(tracing::field::display),
        ae_title = %config.node.ae_title,
        access = config.admitted_in_words()?,
        index = %config.index.display(),
        keeps,
        peers = config.peers.table.as_ref().map(BTreeMap::len),
        destinations = config.peers.destinations.len(),
        "listening"
    );
    Ok(())
}

/// The first signal requests an orderly stop: the node finishes and commits what it is doing. The
/// second one ends the process at once. Everything acknowledged is already durable.
fn stop_on_signals(shutdown: &CancellationToken) -> anyhow::Result<()> {
    let stopping = Arc::new(AtomicBool::new(false));
    for (number, kind) in [(SIGINT, SignalKind::interrupt()), (SIGTERM, SignalKind::terminate())] {
        signal_hook::flag::register_conditional_shutdown(number, 130, Arc::clone(&stopping))
            .context("cannot handle signals")?;
        let mut signals = signal(kind).context("cannot handle signals")?;
        let (shutdown, stopping) = (shutdown.clone(), Arc::clone(&stopping));
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                tracing::info!("stopping after the work in progress; a second signal stops at once");
                stopping.store(true, Relaxed);
                shutdown.cancel();
            }
        });
    }
    Ok(())
}
