//! The DICOM network node: listener, access control, association life cycle, and one file for each DIMSE service.
//!
//! tokio lives here and nowhere below. In reading order: [`Options`] (what can be set), [`Node`] (the listener: one task
//! for each association, so that nothing that happens in one touches another), [`negotiation`] (A-ASSOCIATE), [`peers`] (who
//! may ask for what), `wire` (PDUs
//! over TCP, with a limit on every length and every wait), `association` (the state machine of PS3.8 9.2 as far as an
//! acceptor needs it), `services` (C-ECHO, C-STORE, C-FIND), `shares` (what one peer may have of all that).

pub mod access;
mod association;
pub mod certificates;
mod items;
mod listener;
mod log_limit;
pub mod negotiation;
mod options;
pub mod peers;
pub mod scu;
mod services;
pub mod sop_class;
pub mod tls;
pub mod tls_check;
mod wire;
mod x509;

pub use listener::{Error, Node, Services};
pub use options::{Options, Plain};
pub use peers::{Destination, Peers, SharedPeers};
pub use services::commit::{Commitment, CommitmentLimits, FilesInPlace};
pub use services::find::Find;
pub use services::outbox::pending_reports;
pub use services::retrieve::{Options as RetrieveOptions, Retrieve};
pub use tls::{SharedTls, Tls};
