//! The DICOM network node: listener, association life cycle, and one file for each DIMSE service.
//!
//! In reading order: [`Options`] (what can be set), [`Node`] (the listener: one task for each
//! association, so that nothing that happens in one touches another), [`negotiation`] (which contexts
//! are accepted), `association` (the state machine of PS3.8 9.2 as far as an acceptor needs it),
//! `services` (C-ECHO, C-STORE, C-FIND, C-GET, C-MOVE, Storage Commitment).

mod association;
mod listener;
mod log_limit;
pub mod negotiation;
mod options;
mod services;
mod shared;

pub use listener::{Error, Node};
pub use options::{Options, Plain};
pub use services::commit::{Commitment, CommitmentLimits, FilesInPlace};
pub use services::find::Find;
pub use services::outbox::pending_reports;
pub use services::retrieve::{Options as RetrieveOptions, Retrieve};
pub use shared::Services;
