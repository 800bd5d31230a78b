//! Runs a DICOM node on an index: C-ECHO, C-STORE, C-FIND, C-GET and C-MOVE.
//!
//! ```text
//! DCMDEX_INDEX=archive.db DCMDEX_STORAGE=objects cargo run --example run_a_node
//! ```

#![allow(clippy::print_stdout, reason = "the results of a program go to standard output")]

use std::net::SocketAddr;
use std::sync::Arc;

use dcmdex::access::peers::SharedPeers;
use dcmdex::config::{Config, Sources};
use dcmdex::db::open::Writer;
use dcmdex::ingest::Wanted;
use dcmdex::receive::storage::Storage;
use dcmdex::scp::{Find, Node, NodeServices, Retrieve};
use dcmdex::store::Objects;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // The settings of `dcmdex serve`, from dcmdex.toml and the variables DCMDEX_...
    let config = Config::load(&Sources::from_process(), &std::env::current_dir()?)?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move { tokio::signal::ctrl_c().await.map(|()| stop.cancel()) });
    run_a_node(&config, shutdown, |address| println!("listening on {address}; Ctrl-C ends it")).await
}

/// Serves until `shutdown` is cancelled.
pub(crate) async fn run_a_node(
    config: &Config,
    shutdown: CancellationToken,
    on_listening: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let writer = Writer::open(&config.index, config.node_writer_options())?;
    // Without objects, the node keeps the index entry of what arrives and nothing else.
    let objects = config.store_options().map(|options| Objects::open(&options)).transpose()?.map(Arc::new);
    let wanted = Wanted::with_declared(&config.declared);
    let storage = Storage { policy: config.receive, wanted, ..Storage::new(objects, writer.handle()) };
    let services = NodeServices {
        storage: Some(Arc::new(storage)),
        find: Some(Arc::new(Find::new(config.index.clone(), config.find.clone()))),
        retrieve: Some(Arc::new(Retrieve::new(config.index.clone(), config.retrieve.clone()))),
        worklist: None,
        commitment: None,
        peers: SharedPeers::new(config.peers.clone(), None),
        audit: dcmdex::audit::Auditor::default(),
    };
    let node = Node::bind(config.node.clone(), services).await?;
    node.local_addr().map(on_listening);
    node.run(shutdown).await;
    writer.close()?; // commits what is still queued
    Ok(())
}
