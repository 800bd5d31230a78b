//! `dcmdex serve`: the network node. The one place outside of `scp` where tokio is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Context as _;
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Chattiness, Context, Exit, Flags, IndexArgs, make_directory_of};
use crate::config::{Config, Keep};
use crate::db::{Reader, Writer};
use crate::ingest::Wanted;
use crate::model::ae_title::AeTitle;
use crate::model::clock::Clock;
use crate::model::location::Place;
use crate::model::peer::Peer;
use crate::scp::{Commitment, Find, Node, Retrieve, Services, SharedPeers, Storage};
use crate::store::Objects;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Directory for the objects that arrive [default: dcmdex-data/objects]
    #[arg(long, value_name = "DIR")]
    storage: Option<PathBuf>,
    /// Our AE title [default: DCMDEX]
    #[arg(long, value_name = "AET")]
    ae_title: Option<AeTitle>,
    /// IP address to listen on; 0.0.0.0 is every interface [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    bind: Option<String>,
    /// TCP port to listen on; 0 takes a free one [default: 11112]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Index what arrives and let its pixel data go: no object is kept
    #[arg(long)]
    metadata_only: bool,
    /// Another node, as a destination for C-MOVE; may be given several times
    #[arg(long, value_name = "AET=HOST:PORT")]
    peer: Vec<Peer>,
}

pub(super) fn run(arguments: &ServeArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = context.configure(flags(arguments)?, Chattiness::Service)?;
    warn_when_open(&config);
    make_directory_of(&config.index)?;
    let writer = Writer::open(&config.index, config.node_writer_options())?;
    warn_of_lacking(&config)?;
    let objects = config.store_options().map(|options| Objects::open(&options)).transpose()?;
    let storage = Storage {
        objects: objects.map(Arc::new),
        writer: writer.handle(),
        duplicates: config.duplicate_policy(),
        clock: Clock::System,
        wanted: Wanted::with_declared(&config.declared),
    };
    let find = Find::new(config.index.clone(), config.find.clone());
    let peers = SharedPeers::new(config.peers.clone());
    let retrieve = Arc::new(Retrieve::new(config.index.clone(), config.retrieve_options()));
    let commitment = Commitment::new(Arc::clone(&retrieve), config.files_in_place());
    let services = Services {
        storage: Some(Arc::new(storage)),
        find: Some(Arc::new(find)),
        retrieve: Some(retrieve),
        commitment: Some(Arc::new(commitment)),
        peers,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("node")
        .enable_all()
        .build()
        .context("the network runtime cannot be started")?;
    let served = runtime.block_on(serve(&config, services));
    // What is left of the associations lets go of its way to the writer; then all that was queued is committed.
    drop(runtime);
    writer.close().context("the last of the index could not be written")?;
    served?;
    tracing::info!("stopped");
    Ok(Exit::Done)
}

/// Says what an operator may not have thought of.
fn warn_when_open(config: &Config) {
    if !config.is_reachable_from_outside() {
        return;
    }
    let address = config.network.bind;
    let Some(table) = &config.peers.table else {
        tracing::warn!(
            %address,
            "others can reach this address, and neither an AE table nor TLS guards it: whoever does can store and query"
        );
        return;
    };
    let from_anywhere = table.values().filter(|grant| grant.addresses.is_empty()).count();
    if from_anywhere > 0 {
        tracing::warn!(
            %address,
            peers = from_anywhere,
            "others can reach this address, and some peers may call from any address: who knows their AE title can"
        );
    }
}

/// Says how much of the index was read before something was declared.
fn warn_of_lacking(config: &Config) -> anyhow::Result<()> {
    if config.declared.is_empty() {
        return Ok(());
    }
    let mut reader = Reader::open(&config.index)?.with_declared(Arc::clone(&config.declared));
    let mut lacking = |place| reader.lacking_below(place, Path::new(""));
    let (in_place, managed, metadata) =
        (lacking(Place::InPlace)? + lacking(Place::Archive)?, lacking(Place::Managed)?, lacking(Place::MetadataOnly)?);
    if in_place + managed > 0 {
        tracing::warn!(
            instances = in_place + managed,
            "instances lack declared attributes: they were indexed before; `dcmdex scan` of their directories reads them again"
        );
    }
    if metadata > 0 {
        tracing::warn!(
            instances = metadata,
            "instances lack declared attributes for good: their objects are not kept (metadata only)"
        );
    }
    Ok(())
}

fn flags(arguments: &ServeArgs) -> anyhow::Result<Vec<crate::config::Flag>> {
    let mut flags = Flags::default();
    arguments.index.add_to(&mut flags)?;
    flags.path("storage", "--storage", arguments.storage.as_ref())?;
    flags.text("ae_title", "--ae-title", arguments.ae_title.as_ref().map(AeTitle::as_str));
    flags.text("bind", "--bind", arguments.bind.as_deref());
    flags.integer("port", "--port", arguments.port.map(i64::from));
    flags.switch("metadata_only", "--metadata-only", arguments.metadata_only);
    for peer in &arguments.peer {
        flags.text(&format!("peers.{}", peer.ae_title), "--peer", Some(&peer.address.to_string()));
    }
    Ok(flags.0)
}

async fn serve(config: &Config, services: Services) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    stop_on_signals(&shutdown)?;
    let node = Node::bind(config.scp_options(), services).await?;
    told(config, node.local_addr());
    node.run(shutdown).await;
    Ok(())
}

fn told(config: &Config, address: SocketAddr) {
    let keeps = match config.keep {
        Keep::Objects => "objects",
        Keep::MetadataOnly => "metadata only",
    };
    tracing::info!(
        %address,
        ae_title = %config.ae_title,
        index = %config.index.display(),
        keeps,
        peers = config.peers.table.as_ref().map(BTreeMap::len),
        destinations = config.peers.destinations.len(),
        "listening"
    );
}

/// The first signal asks for an orderly stop: what is in flight is finished and committed. The second one ends the process
/// at once; whatever was acknowledged is durable already.
fn stop_on_signals(shutdown: &CancellationToken) -> anyhow::Result<()> {
    let stopping = Arc::new(AtomicBool::new(false));
    for (number, kind) in [(SIGINT, SignalKind::interrupt()), (SIGTERM, SignalKind::terminate())] {
        signal_hook::flag::register_conditional_shutdown(number, 130, Arc::clone(&stopping))
            .context("signals cannot be handled")?;
        let mut signals = signal(kind).context("signals cannot be handled")?;
        let (shutdown, stopping) = (shutdown.clone(), Arc::clone(&stopping));
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                tracing::info!("stopping: finishing what is in flight; once more stops at once");
                stopping.store(true, Relaxed);
                shutdown.cancel();
            }
        });
    }
    Ok(())
}
