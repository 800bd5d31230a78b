//! The DICOM network node: listener, association life cycle, and one file for each DIMSE service.
//!
//! In reading order:
//!
//! - [`Options`] are the settings.
//! - [`Node`] is the listener. Each association has a task of its own, so that none affects
//!   another.
//! - [`negotiation`] decides which presentation contexts are accepted.
//! - `association` is the state machine of PS3.8 9.2, as far as an acceptor needs it.
//! - `services` has C-ECHO, C-STORE, C-FIND, C-GET, C-MOVE, Storage Commitment, the worklist and
//!   MPPS.
//!
//! docs/architecture.md has the steps to a new service. Its [`ServiceClass`]
//! brings its SOP Classes, its answers in negotiation, the name that grants it, and its rows in the
//! conformance statement. The service itself is a `DimseService`.

mod association;
pub mod conformance;
mod listener;
pub mod negotiation;
mod node_context;
mod options;
mod pace;
mod service_class;
mod services;
mod shared;
mod storage_classes;

pub use listener::{Error, Node};
pub use options::{Options, Plain};
pub use service_class::{ListedSopClass, ServiceClass, SopClasses};
pub use services::commit::{Commitment, CommitmentLimits, FilesInPlace};
pub use services::find::Find;
pub use services::outbox::pending_reports;
pub use services::retrieve::retriever::{Decompression, Options as RetrieveOptions, Retrieve};
pub use services::worklist::Worklist;
pub use services::{NodeServices, service_classes};
