//! `dcmdex serve` runs the network node. It starts the tokio runtime that `scp` and `web` use.

mod hl7;
mod http_start;
mod index_start;
mod intake_thread;
mod monitor;
mod priority;
mod reload;
mod repeating;
mod scrub_thread;
mod service_manager;
mod trash_thread;
mod warnings;
mod watch_thread;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::hl7::{Hl7Start, WorklistControl};
use self::http_start::HttpStart;
use self::index_start::{open_index, open_storage};
use self::reload::{InForce, load_tls, run_and_reload};
use self::repeating::RepeatingThreads;
use self::service_manager::{NOTIFY_SOCKET, ServiceManager};
use self::warnings::warn_when_open;
use self::watch_thread::Watching;
use crate::access::peers::SharedPeers;
use crate::audit::{AuditEvent, AuditRecord, AuditTrail, Auditor};
use crate::cli::context::{Chattiness, Context, Flags, IndexArgs, in_one_line};
use crate::cli::setting_args::{HasSettings, SettingArgs};
use crate::cli::{Exit, arrival_journal, backup, other_programs};
use crate::config::{self, AccessHistory, Config, Keep};
use crate::db::open::WriterHandle;
use crate::events::Telling;
use crate::model::clock::Clock;
use crate::model::peer::Peer;
use crate::receive::journal::Journal;
use crate::receive::storage::Storage;
use crate::scp::{Commitment, Find, Node, NodeServices, Retrieve, Worklist};
use crate::store::{Objects, Verified};
use crate::telemetry::metrics;
use crate::ul::tls::SharedTls;
use crate::watch::WatchControl;
use crate::web::{Monitor, MonitorSources, Web};
use crate::worklist::Intake;

/// Pause between two reads of the note of the last backup.
const BACKUP_POLL: Duration = Duration::from_secs(10);

/// Damaged objects whose events wait to be recorded.
const MAX_DAMAGED: usize = 1024;

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
    let objects = open_storage(&config)?;
    let writer = open_index(&config, objects.as_ref())?;
    let journal = objects.as_ref().map(|objects| arrival_journal::start(&config, objects, &writer.handle()));
    let journal = journal.transpose()?.flatten();
    let retrieve = Arc::new(Retrieve::new(config.index.clone(), config.retrieve.clone()));
    let trail = config.audit_options().map(|options| AuditTrail::open(options, Clock::System)).transpose()?;
    let audit = trail.as_ref().map(AuditTrail::auditor).unwrap_or_default();
    let intake = Arc::new(Intake::new(Box::new(writer.handle()), config.worklist.intake.clone()));
    let mut threads = Threads::start(&config, &writer.handle(), &intake, retrieve.delivery().verified())?;
    let monitor =
        config.monitoring.map(|address| (address, monitor::sources(&config, objects.as_ref(), writer.handle())));
    let offers =
        offers(&config, (objects, journal.clone()), (writer.handle(), Arc::clone(&intake)), retrieve, (tls, &audit))?;
    if let Some(storage) = &offers.0.storage {
        trash_thread::start(&mut threads.repeating, &config, storage)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("node")
        .enable_all()
        .build()
        .context("cannot start the network runtime")?;
    let manager = ServiceManager::at(context.sources.variable(NOTIFY_SOCKET).map(OsString::as_os_str));
    let again = Arc::new(context.reader_of_settings(&config)?);
    let beside = (threads.watch.control(), WorklistControl::new(intake, offers.2.as_ref()), again);
    audit.note(AuditRecord::new(AuditEvent::Start, ""));
    let served = runtime.block_on(serve(config, history, (offers, monitor), beside, &manager));
    threads.stop();
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

/// The threads of a node that work beside its connections.
struct Threads {
    watch: Watching,
    events: Option<Telling>,
    /// Threads of the worklist, the scrub and the trash.
    repeating: RepeatingThreads,
}

impl Threads {
    /// Starts those that need no storage directory.
    fn start(
        config: &Config,
        writer: &WriterHandle,
        intake: &Arc<Intake>,
        verified: &Arc<Verified>,
    ) -> anyhow::Result<Self> {
        let mut repeating = RepeatingThreads::default();
        scrub_thread::start(&mut repeating, config, Arc::clone(verified))?;
        let watch = Watching::start(config, writer.clone())?;
        intake_thread::start(&mut repeating, config, intake)?;
        Ok(Self { watch, events: tell_events(config, writer.clone(), verified)?, repeating })
    }

    /// Stops all, and waits until each has done what it began.
    fn stop(self) {
        self.watch.stop();
        self.repeating.stop();
        if let Some(events) = self.events {
            events.stop();
        }
    }
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

/// Services that the node offers: DIMSE, HTTP, and a port for HL7 messages.
type Offers = (NodeServices, Option<HttpStart>, Option<Hl7Start>);

/// The worklist, if peers can ask for it.
fn worklist_of(config: &Config, intake: &Arc<Intake>) -> Option<Arc<Worklist>> {
    let worklist = Worklist::new(config.index.clone(), config.worklist_options(), Arc::clone(intake));
    config.worklist.enabled.then(|| Arc::new(worklist.with_min_free(config.min_free_bytes)))
}

/// Begins to tell other programs what happens, if somebody wants to know.
fn tell_events(config: &Config, writer: WriterHandle, verified: &Verified) -> anyhow::Result<Option<Telling>> {
    let Some(options) = config.event_options() else { return Ok(None) };
    for warning in other_programs::of_receivers(&options.receivers) {
        tracing::warn!("{warning}");
    }
    let (found, damaged) = crossbeam_channel::bounded(MAX_DAMAGED);
    verified.tell_damaged(found);
    Ok(Some(Telling::start(&options, &writer, damaged)?))
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

/// Keeps the metric of the last backup up to date. `dcmdex backup` notes its success beside the
/// index.
async fn follow_backups(index: PathBuf) {
    loop {
        let index = index.clone();
        let noted = spawn_blocking(move || backup::last_success(&index)).await;
        if let Ok(Some(made_ms)) = noted {
            metrics::BACKUP_LAST_SUCCESS.set(made_ms.div_euclid(1000));
        }
        tokio::time::sleep(BACKUP_POLL).await;
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
        index = %config.shown_index().display(),
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
