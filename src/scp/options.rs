//! What can be set about the node.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::access::policy::CalledAeTitle;
use crate::model::ae_title::AeTitle;
use crate::ul::requestor::Waits;

/// Whether there is a port for peers without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plain {
    /// There is.
    #[default]
    Listen,
    /// There is not.
    Refuse,
}

/// Settings of the node. The cost of too high and too low is said at each.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address and port to listen on. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// Address and port to listen on for TLS, where there are certificates. Port 0 takes a free one.
    pub tls_bind: SocketAddr,
    /// Whether peers may call without TLS.
    pub plain: Plain,
    /// Our AE title.
    pub ae_title: AeTitle,
    /// Which called AE titles are accepted.
    pub called_ae_title: CalledAeTitle,
    /// Maximum associations at one time; one more is rejected as transient. A silent one takes some 20 KB, one that sends up to
    /// 100 KB and its share of 64 MiB. A limit on open files that has no room for them lowers it. Too low: modalities have to
    /// try again. Too high: memory and open files.
    pub max_associations: usize,
    /// Maximum associations of one peer at one time, where the table of peers does not say otherwise; one more is rejected as
    /// transient. A peer is an AE title of the table, or, without a table, an address. It never gets more than are left over
    /// for others then. Too low: busy workstations have to try again. Too high: the memory and the threads that one peer
    /// keeps busy.
    pub max_associations_per_peer: usize,
    /// Connections at one time that have no association (yet). Too low: scanners of the network keep real peers waiting.
    /// Too high: open files.
    pub max_unassociated_connections: usize,
    /// Time for a connection to send its A-ASSOCIATE-RQ, and to close after our last PDU (the ARTIM timer, PS3.8 9.1.5).
    /// Too low: peers on slow lines fail. Too high: silent connections hold on to a slot.
    pub artim_timeout: Duration,
    /// Time between two messages of an association. Too low: senders that read from tape are aborted. Too high: dead peers
    /// hold on to an association.
    pub idle_timeout: Duration,
    /// Time for a PDU to be complete once it has begun, and for the next of the same message. Too low: slow lines fail. Too
    /// high: a peer that sends a byte now and then holds on to an association.
    pub read_timeout: Duration,
    /// Time for the peer to take what we send. Too low: viewers that read slowly are cut off. Too high: dead peers hold on to
    /// a query.
    pub write_timeout: Duration,
    /// Time that the index may work on a query, without what the peer takes; then the query ends with A700. Too low: searches for a
    /// part of a name in a huge archive fail. Too high: one bad query keeps a processor busy.
    pub query_time_limit: Duration,
    /// After the order to stop: time for messages in flight to be finished.
    pub drain_timeout: Duration,
    /// Transfer syntaxes preferred for storage, best first; empty: the first that the sender proposes.
    pub preferred_transfer_syntaxes: Vec<String>,
}

impl Options {
    /// The defaults, for a node with this AE title on the loopback address and port 11112.
    #[must_use]
    pub fn new(ae_title: AeTitle) -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 11112)),
            tls_bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 2762)),
            plain: Plain::Listen,
            ae_title,
            called_ae_title: CalledAeTitle::OwnOnly,
            max_associations: 2000,
            max_associations_per_peer: 128,
            max_unassociated_connections: 2048,
            artim_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            query_time_limit: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            preferred_transfer_syntaxes: Vec::new(),
        }
    }

    /// How long to wait for a peer that we call.
    pub(super) fn waits(&self) -> Waits {
        Waits::as_acceptor(self.artim_timeout, self.read_timeout, self.write_timeout)
    }
}
