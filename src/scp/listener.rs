//! The listening socket: one task for each connection, bounded numbers of them, and an orderly end.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::access::AccessPolicy;
use super::association;
use super::negotiation::{HeldSyntaxes, Policy, Provided};
use super::options::{Options, Plain};
use super::peers::{CountedAs, SharedPeers};
use super::services;
use super::services::commit::Commitment;
use super::services::find::Find;
use super::services::retrieve::Retrieve;
use super::services::store::Storage;
use super::tls::SharedTls;

/// How long to wait before accepting again when the process has no open files left: others have to end first.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// Address and port asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// The services of a node besides Verification.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// C-STORE; refused without.
    pub storage: Option<Arc<Storage>>,
    /// C-FIND; refused without.
    pub find: Option<Arc<Find>>,
    /// C-GET and C-MOVE; refused without.
    pub retrieve: Option<Arc<Retrieve>>,
    /// Storage Commitment; refused without.
    pub commitment: Option<Arc<Commitment>>,
    /// Who may associate and for what, and where C-MOVE may send to; can be replaced while the node runs.
    pub peers: SharedPeers,
}

/// A node that is bound to its port and not yet serving.
#[derive(Debug)]
pub struct Node {
    plain: Option<Listening>,
    tls: Option<Listening>,
    shared: Arc<Shared>,
}

/// An open port.
#[derive(Debug)]
struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listening {
    async fn at(address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }
}

/// The next connection; for ever without a port.
async fn accept(listening: Option<&Listening>) -> io::Result<(TcpStream, SocketAddr)> {
    match listening {
        Some(listening) => listening.listener.accept().await,
        None => std::future::pending().await,
    }
}

/// What all associations of a node have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) policy: Policy,
    pub(super) services: Services,
    /// One permit for each association.
    pub(super) associations: Arc<Semaphore>,
    /// How many of them each peer has.
    pub(super) by_peer: Arc<ByPeer>,
    /// One permit for each connection that has no association.
    pub(super) waiting: Arc<Semaphore>,
    next_association_id: AtomicU64,
}

impl Shared {
    /// A number for the log, unique in this process.
    pub(super) fn next_association_id(&self) -> u64 {
        self.next_association_id.fetch_add(1, Ordering::Relaxed)
    }
}

/// How many associations each peer has.
#[derive(Debug, Default)]
pub(super) struct ByPeer(Mutex<HashMap<CountedAs, usize>>);

/// One association of a peer, counted until it is dropped.
#[derive(Debug)]
pub(super) struct OfPeer {
    all: Arc<ByPeer>,
    peer: CountedAs,
}

impl ByPeer {
    /// One more; `None` when the peer has as many as it may.
    pub(super) fn take(self: &Arc<Self>, peer: CountedAs, maximum: usize) -> Option<OfPeer> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(peer.clone()).or_default();
        if *count >= maximum {
            return None;
        }
        *count += 1;
        Some(OfPeer { all: Arc::clone(self), peer })
    }
}

impl Drop for OfPeer {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.peer);
            }
        }
    }
}

impl Node {
    /// Binds the port, and raises the process's limit on open files to what that many connections may need. Nothing is accepted before [`Self::run`].
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(options: Options, services: Services) -> Result<Self, Error> {
        make_room_for_open_files(&options);
        let plain = match options.plain {
            Plain::Listen => Some(Listening::at(options.bind).await?),
            Plain::Refuse => None,
        };
        let tls = match services.peers.tls() {
            Some(_) => Some(Listening::at(options.tls_bind).await?),
            None => None,
        };
        let policy = Policy {
            access: AccessPolicy {
                own_ae_title: options.ae_title.clone(),
                called_ae_title: options.called_ae_title,
                peers: services.peers.clone(),
            },
            provided: Provided {
                storage: services.storage.is_some(),
                find: services.find.is_some(),
                retrieve: services.retrieve.is_some(),
                commitment: services.commitment.is_some(),
            },
            preferred_transfer_syntaxes: options.preferred_transfer_syntaxes.clone(),
            extended_negotiation: services::extended_negotiation,
            held: match &services.retrieve {
                Some(retrieve) => retrieve.held_before_first_association().await,
                None => HeldSyntaxes::default(),
            },
        };
        let shared = Shared {
            policy,
            services,
            by_peer: Arc::default(),
            associations: Arc::new(Semaphore::new(options.max_associations)),
            waiting: Arc::new(Semaphore::new(options.max_unassociated_connections)),
            next_association_id: AtomicU64::new(1),
            options,
        };
        Ok(Self { plain, tls, shared: Arc::new(shared) })
    }

    /// The address and port that it listens on without TLS, if it does.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.plain.as_ref().map(|listening| listening.address)
    }

    /// The address and port that it listens on with TLS, if it does.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|listening| listening.address)
    }

    /// Serves until `shutdown` is cancelled. Then nothing more is accepted, messages in flight are finished, idle
    /// associations aborted, and what is not done after [`Options::drain_timeout`] is cut off.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { plain, tls, shared } = self;
        let mut connections = JoinSet::new();
        loop {
            // The permit first: when there is none, new connections wait in the backlog of the kernel.
            let accepted = async {
                let permit = Arc::clone(&shared.waiting).acquire_owned().await;
                let (accepted, secured) = tokio::select! {
                    accepted = accept(plain.as_ref()) => (accepted, None),
                    accepted = accept(tls.as_ref()) => (accepted, shared.services.peers.tls()),
                };
                (permit, accepted.map(|(stream, peer)| (stream, peer, secured.map(SharedTls::current))))
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => report_panic(ended),
                (permit, accepted) = accepted => match (permit, accepted) {
                    (Ok(permit), Ok((stream, peer, tls))) => {
                        connections.spawn(association::serve(
                            stream, peer, tls, Arc::clone(&shared), permit, shutdown.clone(),
                        ));
                    }
                    (_, Err(error)) if is_the_connections_fault(&error) => {}
                    (_, Err(error)) => {
                        warn!(%error, "cannot accept a connection, trying again");
                        tokio::select! {
                            () = shutdown.cancelled() => break,
                            () = sleep(ACCEPT_BACK_OFF) => {}
                        }
                    }
                    // The semaphore is never closed.
                    (Err(_), _) => break,
                },
            }
        }
        drop((plain, tls));
        info!(connections = connections.len(), "no more connections accepted, finishing");
        let drain = async {
            while let Some(ended) = connections.join_next().await {
                report_panic(ended);
            }
        };
        if timeout(shared.options.drain_timeout, drain).await.is_err() {
            warn!(connections = connections.len(), "associations cut off: not finished in time");
            connections.shutdown().await;
        }
        // What they had sent whole gets its row, or goes.
        if let Some(storage) = &shared.services.storage
            && timeout(shared.options.drain_timeout, storage.under_way.ended()).await.is_err()
        {
            warn!("objects are still being stored; the next start settles what is left of them");
        }
    }
}

/// Raises the limit on open files of this process as far as its user may, if that many connections could need it: the soft
/// limit is 1,024 on most systems, for the sake of programs that use select(2).
fn make_room_for_open_files(options: &Options) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// A socket, the object that arrives, and its directory while that is synchronised.
    const FILES_PER_ASSOCIATION: u64 = 3;
    /// Index, log, readers (three files each), and what the runtime has.
    const OTHER_FILES: u64 = 256;
    let associations = (options.max_associations as u64).saturating_mul(FILES_PER_ASSOCIATION);
    let wanted = associations.saturating_add(options.max_unassociated_connections as u64).saturating_add(OTHER_FILES);
    let limit = getrlimit(Resource::Nofile);
    let (Some(current), maximum) = (limit.current, limit.maximum) else { return };
    if current >= wanted {
        return;
    }
    let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted)).max(current);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        warn!(%error, limit = current, wanted, "the limit on open files cannot be raised");
    } else if raised < wanted {
        warn!(limit = raised, wanted, "fewer open files allowed than this many connections may need");
    }
}

/// Errors of accept(2) that concern one connection that is already gone, not the listener.
fn is_the_connections_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        // The message of the panic went to stderr; it may hold anything, so it is not repeated here.
        error!("an association ended by a defect of this program; the others go on");
    }
}

#[cfg(test)]
mod tests {
    use dicom_ul::pdu::{AssociationRQ, Pdu, PresentationContextProposed, UserVariableItem, write_pdu};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_panic_ends_its_own_association_and_no_other() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut options = Options::new("DCMDEX".parse().unwrap());
            options.bind.set_port(0);
            let services = Services {
                find: Some(Arc::new(Find::new("/nowhere".into(), Default::default()))),
                ..Services::default()
            };
            let mut node = Node::bind(options, services).await.unwrap();
            // The defect: whoever asks for extended negotiation meets it.
            Arc::get_mut(&mut node.shared).unwrap().policy.extended_negotiation = |_, _| panic!("a defect");
            let (address, shutdown) = (node.local_addr().unwrap(), CancellationToken::new());
            let running = tokio::spawn(node.run(shutdown.clone()));
            let find = "1.2.840.10008.5.1.4.1.2.2.1".to_owned();
            let answer = async |more: Vec<UserVariableItem>| {
                let request = AssociationRQ {
                    protocol_version: 1,
                    calling_ae_title: "TEST".into(),
                    called_ae_title: "DCMDEX".into(),
                    application_context_name: "1.2.840.10008.3.1.1.1".into(),
                    presentation_contexts: vec![PresentationContextProposed {
                        id: 1,
                        abstract_syntax: find.clone(),
                        transfer_syntaxes: vec!["1.2.840.10008.1.2".into()],
                    }],
                    user_variables: more,
                };
                let mut bytes = Vec::new();
                write_pdu(&mut bytes, &Pdu::AssociationRQ(request)).unwrap();
                let mut socket = TcpStream::connect(address).await.unwrap();
                socket.write_all(&bytes).await.unwrap();
                socket.read_u8().await.ok()
            };
            let extended = || vec![UserVariableItem::SopClassExtendedNegotiationSubItem(find.clone(), vec![1])];
            for _ in 0..3 {
                assert_eq!(answer(extended()).await, None);
                assert_eq!(answer(Vec::new()).await, Some(2));
            }
            shutdown.cancel();
            running.await.unwrap();
        });
    }
}
