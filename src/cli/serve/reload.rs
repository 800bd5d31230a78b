//! SIGHUP: a running node reads its settings again.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::hl7::WorklistControl;
use super::service_manager::ServiceManager;
use super::warnings::{warn_of_restart, warn_when_open};
use crate::access::jwt::TokenCheck;
use crate::access::peers::SharedPeers;
use crate::cli::context::in_one_line;
use crate::cli::http::read_users;
use crate::config::{self, AccessHistory, Config};
use crate::model::clock::Clock;
use crate::ul::tls::{self, Tls};
use crate::ul::tls_check;
use crate::watch::WatchControl;
use crate::web::SharedUsers;

/// Runs the node until it has stopped. Each SIGHUP reads the settings again.
pub(super) async fn run_and_reload<F>(
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

/// The result of a task. Waits for ever if there is none.
async fn of<T>(task: &mut Option<JoinHandle<T>>) -> Option<Result<T, JoinError>> {
    match task {
        Some(task) => Some(task.await),
        None => std::future::pending().await,
    }
}

/// Settings and shared state that a running node uses.
pub(super) struct InForce {
    pub(super) config: Config,
    pub(super) history: AccessHistory,
    pub(super) peers: SharedPeers,
    /// The users of the HTTP server, if it needs them.
    pub(super) users: Option<SharedUsers>,
    /// The tokens of an identity provider, if the HTTP server takes them.
    pub(super) tokens: Option<TokenCheck>,
    pub(super) watch: WatchControl,
    pub(super) worklist: WorklistControl,
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
pub(super) fn load_tls(options: &tls::Options) -> Result<Tls, tls::Error> {
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
