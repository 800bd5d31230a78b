//! The DICOM network node: listener, association life cycle, and one file for each DIMSE service.
//!
//! In reading order: [`Options`] (the settings), [`Node`] (the listener, with one task for each
//! association, so that no association affects another), [`negotiation`] (which contexts are
//! accepted), `association` (the state machine of PS3.8 9.2, as far as an acceptor needs it),
//! `services` (C-ECHO, C-STORE, C-FIND, C-GET, C-MOVE, Storage Commitment).
//!
//! A new service is one file in `services/` and one line in `services::list`. Its
//! [`ServiceClass`] brings its SOP Classes, its answers in negotiation, the name that grants it, and
//! its rows in the conformance statement. The service itself is a `DimseService`.

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

pub use listener::{Error, Node};
pub use options::{Options, Plain};
pub use service_class::{ServiceClass, SopClasses, StatementRow};
pub use services::commit::{Commitment, CommitmentLimits, FilesInPlace};
pub use services::find::Find;
pub use services::outbox::pending_reports;
pub use services::retrieve::retriever::{Options as RetrieveOptions, Retrieve};
pub use services::{NodeServices, service_classes};
