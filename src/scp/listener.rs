//! The listening sockets: one task for each connection, a limit on connections, and an orderly end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::association;
use super::negotiation::{HeldSyntaxes, Policy};
use super::options::{Options, Plain};
use super::services::{self, NodeServices};
use crate::access::policy::AccessPolicy;
use crate::listening::Listened;
use crate::scp::shared::NodeShared;
use crate::shares::{MEMORY_BYTES, Shares};
use crate::telemetry::log_limit::{self, LogLimit};
use crate::telemetry::metrics;
use crate::ul::tls::SharedTls;

const LISTENED: Listened = Listened { one: "an association", many: "associations" };

/// The reason why a node cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node cannot listen on the address.
    #[error("cannot listen on {address}")]
    Bind {
        /// The requested address and port.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
}

/// A node that is bound to its ports but does not serve yet.
#[derive(Debug)]
pub struct Node {
    plain: Option<Listening>,
    tls: Option<Listening>,
    shared: Arc<NodeShared>,
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

/// Returns the next connection. Waits forever without a port.
async fn accept(listening: Option<&Listening>) -> io::Result<(TcpStream, SocketAddr)> {
    match listening {
        Some(listening) => listening.listener.accept().await,
        None => std::future::pending().await,
    }
}

impl Node {
    /// Binds the ports. Raises the limit on open files of the process to what that many connections
    /// may need. Nothing is accepted before [`Self::run`].
    ///
    /// # Errors
    /// When the node cannot listen on an address.
    pub async fn bind(options: Options, services: NodeServices) -> Result<Self, Error> {
        let (associations, connections) = make_room_for_open_files(&options);
        let plain = match options.plain {
            Plain::Listen => Some(Listening::at(options.bind).await?),
            Plain::Refuse => None,
        };
        let tls = match services.peers.tls() {
            Some(_) => Some(Listening::at(options.tls_bind).await?),
            None => None,
        };
        let access = AccessPolicy {
            own_ae_title: options.ae_title.clone(),
            called_ae_title: options.called_ae_title,
            peers: services.peers.clone(),
        };
        let audit = services.audit.clone();
        let services = services::list(&services);
        let mut policy = Policy {
            access,
            provided: services.iter().filter(|it| it.is_provided()).map(|it| it.class()).collect(),
            preferred_transfer_syntaxes: options.preferred_transfer_syntaxes.clone(),
            held: HeldSyntaxes::default(),
        };
        for service in &services {
            service.prepare(&mut policy).await;
        }
        let shared = NodeShared {
            policy,
            services: services.into(),
            associations: Shares::new(associations, LEAST_ASSOCIATIONS, &metrics::ASSOCIATIONS_REFUSED),
            connections: Shares::new(connections, LEAST_ASSOCIATIONS, &metrics::CONNECTIONS_REFUSED),
            memory: Shares::new(MEMORY_BYTES, 0, &metrics::MEMORY_REFUSED),
            log_limit: Arc::new(LogLimit::default()),
            next_association_id: AtomicU64::new(1),
            audit,
            options: Arc::new(options),
        };
        Ok(Self { plain, tls, shared: Arc::new(shared) })
    }

    /// Returns the address and port without TLS, if there is one.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.plain.as_ref().map(|listening| listening.address)
    }

    /// Returns the address and port for TLS, if there is one.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|listening| listening.address)
    }

    /// Serves until `shutdown` is cancelled. Then it accepts nothing more, finishes messages in
    /// flight, and aborts idle associations. After [`Options::drain_timeout`] it cuts off the rest.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { plain, tls, shared } = self;
        let node = shared.context(shutdown.clone());
        for service in shared.services.iter() {
            service.resume(&node).await;
        }
        let mut connections = JoinSet::new();
        let mut log = interval(log_limit::PERIOD);
        loop {
            let accepted = async {
                let (accepted, secured) = tokio::select! {
                    accepted = accept(plain.as_ref()) => (accepted, None),
                    accepted = accept(tls.as_ref()) => (accepted, shared.policy.access.peers.tls()),
                };
                accepted.map(|(stream, peer)| (stream, peer, secured.map(SharedTls::current)))
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = log.tick() => {
                    shared.log_limit.tell();
                    for limit in shared.services.iter().filter_map(|service| service.log_limit()) {
                        limit.tell();
                    }
                }
                Some(ended) = connections.join_next(), if !connections.is_empty() => LISTENED.ended(ended),
                accepted = accepted => match accepted {
                    Ok((stream, peer, tls)) => match shared.connection_of(peer.ip()) {
                        Some(place) => {
                            connections.spawn(association::serve(
                                stream, peer, tls, Arc::clone(&shared), place, shutdown.clone(),
                            ));
                        }
                        // It is closed at once. In the backlog of the kernel it would block other
                        // addresses.
                        None => debug!("connection closed: its address has its maximum of connections without an association"),
                    },
                    Err(error) => LISTENED.failed(&error, &shutdown).await,
                },
            }
        }
        drop((plain, tls));
        drain(&mut connections, &shared).await;
    }
}

/// Lets associations and services finish what they are doing. Cuts off the rest after
/// [`Options::drain_timeout`].
async fn drain(connections: &mut JoinSet<()>, shared: &NodeShared) {
    info!(connections = connections.len(), "no more connections accepted, finishing");
    LISTENED.drain(connections, shared.options.drain_timeout).await;
    shared.log_limit.tell_all();
    for limit in shared.services.iter().filter_map(|service| service.log_limit()) {
        limit.tell_all();
    }
    let idle = async {
        for service in shared.services.iter() {
            service.idle().await;
        }
    };
    if timeout(shared.options.drain_timeout, idle).await.is_err() {
        warn!("objects are still being stored; the next start settles what is left of them");
    }
}

/// Minimum of associations, and of connections without one, that each peer may have while any are
/// free.
const LEAST_ASSOCIATIONS: usize = 2;

/// Raises the limit on open files of this process, as far as its user may, if that many connections
/// could need it. The soft limit is 1,024 on most systems, for programs that use select(2). Returns
/// the maximum of associations, and of connections without one. With more of them, objects and the
/// index could not be opened.
fn make_room_for_open_files(options: &Options) -> (usize, usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted_of_both = (options.max_associations, options.max_unassociated_connections);
    let wanted = files_needed(wanted_of_both);
    let limit = getrlimit(Resource::Nofile);
    let (Some(current), maximum) = (limit.current, limit.maximum) else { return wanted_of_both };
    if current >= wanted {
        return wanted_of_both;
    }
    let mut raised = maximum.map_or(wanted, |maximum| maximum.min(wanted)).max(current);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        warn!(%error, limit = current, wanted, "the limit on open files cannot be raised");
        raised = current;
    }
    let (associations, connections) = fit_into_files(wanted_of_both, raised);
    if raised < wanted {
        warn!(
            limit = raised,
            wanted,
            associations,
            connections,
            "the limit on open files is too low for network.max_associations; hint: raise LimitNOFILE or ulimit -n"
        );
    }
    (associations, connections)
}

/// Open files of an association: a socket, the object that arrives or is sent, and its directory
/// while that is synced.
const FILES_PER_ASSOCIATION: u64 = 3;

/// Open files of the index, its log, its readers (three files each), and of the runtime.
const OTHER_FILES: u64 = 256;

fn files_needed((associations, connections): (usize, usize)) -> u64 {
    (associations as u64)
        .saturating_mul(FILES_PER_ASSOCIATION)
        .saturating_add(connections as u64)
        .saturating_add(OTHER_FILES)
}

/// Returns as many associations and connections, in the same proportion, as a limit on open files
/// allows. A limit that is only large enough for the index counts as twice that.
fn fit_into_files(wanted: (usize, usize), limit: u64) -> (usize, usize) {
    let needed = files_needed(wanted).saturating_sub(OTHER_FILES).max(1);
    let room = limit.saturating_sub(OTHER_FILES).max(OTHER_FILES.min(limit / 2)).min(needed);
    let part = |count: usize| {
        let part = u128::from(room) * count as u128 / u128::from(needed);
        usize::try_from(part).unwrap_or(count).max(count.min(1))
    };
    (part(wanted.0), part(wanted.1))
}

#[cfg(test)]
mod tests {
    use dicom_ul::pdu::{AssociationRQ, Pdu, PresentationContextProposed, UserVariableItem, write_pdu};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::scp::service_class::{ListedSopClass, ServiceClass, SopClasses};
    use crate::scp::services::find::Find;

    #[test]
    fn a_low_limit_on_open_files_means_fewer_connections() {
        assert_eq!(fit_into_files((2000, 2048), 100_000), (2000, 2048));
        assert_eq!(fit_into_files((2000, 2048), files_needed((2000, 2048))), (2000, 2048));
        for limit in [1024, 4096] {
            let (associations, connections) = fit_into_files((2000, 2048), limit);
            assert!(associations > 150 && connections > 150, "{associations} {connections}");
            assert!(files_needed((associations, connections)) <= limit);
        }
        assert_eq!(fit_into_files((2000, 0), 64).1, 0);
        assert!(fit_into_files((2000, 2048), 64).0 > 0);
    }

    #[test]
    fn a_panic_ends_its_own_association_and_no_other() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut options = Options::new("DCMDEX".parse().unwrap());
            options.bind.set_port(0);
            let services = NodeServices {
                find: Some(Arc::new(Find::new("/nowhere".into(), Default::default()))),
                ..NodeServices::default()
            };
            let mut node = Node::bind(options, services).await.unwrap();
            // Every request for extended negotiation meets the defect.
            static DEFECT: ServiceClass = ServiceClass {
                grant: "find",
                sop_classes: SopClasses::Listed(&[ListedSopClass::scp("1.2.840.10008.5.1.4.1.2.2.1")]),
                returned_by: None,
                extended_negotiation: |_| panic!("a defect"),
            };
            Arc::get_mut(&mut node.shared).unwrap().policy.provided = vec![&DEFECT];
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
