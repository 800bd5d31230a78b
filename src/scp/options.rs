//! The settings of the node.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::access::policy::CalledAeTitle;
use crate::model::ae_title::AeTitle;
use crate::ul::requestor::Waits;

/// Whether there is a port for peers without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plain {
    /// The port is open.
    #[default]
    Listen,
    /// There is no such port.
    Refuse,
}

/// Settings of the node. Each names the cost of a value that is too low or too high.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address and port to listen on. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// Address and port to listen on for TLS, if the node has certificates. Port 0 takes a free
    /// one.
    pub tls_bind: SocketAddr,
    /// Whether peers may call without TLS.
    pub plain: Plain,
    /// The AE title of this node.
    pub ae_title: AeTitle,
    /// Called AE titles that are accepted.
    pub called_ae_title: CalledAeTitle,
    /// Maximum associations at one time. One more is rejected as transient. A silent association
    /// takes some 20 KB. A sending one takes up to 100 KB and its share of 64 MiB. A limit on open
    /// files that is too small for them lowers the number. Too low: modalities have to try again.
    /// Too high: the node needs more memory and open files.
    pub max_associations: usize,
    /// Maximum associations of one peer at one time, unless the table of peers has another number.
    /// One more is rejected as transient. A peer is an AE title of the table or, without a table,
    /// an address. A peer never gets more associations than are then left for others. Too low: busy
    /// workstations have to try again. Too high: one peer can keep more memory and threads busy.
    pub max_associations_per_peer: usize,
    /// Maximum connections at one time without an association. Too low: port scanners keep real
    /// peers waiting. Too high: the node needs more open files.
    pub max_unassociated_connections: usize,
    /// Time for a connection to send its A-ASSOCIATE-RQ, and to close after the last PDU of this
    /// node (the ARTIM timer, PS3.8 9.1.5). Too low: peers on slow lines fail. Too high: silent
    /// connections occupy a slot.
    pub artim_timeout: Duration,
    /// Time between two messages of an association. Too low: senders that read from tape are
    /// aborted. Too high: dead peers occupy an association.
    pub idle_timeout: Duration,
    /// Time for a PDU to be complete once it has begun, and for the next PDU of the same message.
    /// Too low: peers on slow lines fail. Too high: a peer that sends a byte now and then occupies
    /// an association.
    pub read_timeout: Duration,
    /// Time for the peer to take what the node sends. Too low: viewers that read slowly are cut
    /// off. Too high: dead peers occupy a query.
    pub write_timeout: Duration,
    /// Time that the index may work on a query. The time in which the peer takes answers does not
    /// count. After that the query ends with A700. Too low: searches for part of a name in a huge
    /// archive fail. Too high: one bad query keeps a processor busy.
    pub query_time_limit: Duration,
    /// Time to finish messages in flight after the node is told to stop.
    pub drain_timeout: Duration,
    /// Transfer syntaxes preferred for storage, best first. If the list is empty, the node takes
    /// the first one that the sender proposes.
    pub preferred_transfer_syntaxes: Vec<String>,
}

impl Options {
    /// Returns the defaults for a node with this AE title, on the loopback address and port 11112.
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

    /// Returns the time limits for a peer that this node calls.
    #[must_use]
    pub fn waits(&self) -> Waits {
        Waits::as_acceptor(self.artim_timeout, self.read_timeout, self.write_timeout)
    }
}
