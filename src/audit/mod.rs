//! The audit trail (PS3.15 A.5): who asked this node for what, and what became of it.
//!
//! Each event is one JSON line in a file that only its owner can read. A thread writes the lines,
//! and nobody waits for it. Another thread sends them as XML to a collector (syslog over TLS, RFC
//! 5424 and 5425). It reads them from the same files, so a collector that is away loses nothing.
//! What is not yet sent is known by a position that lies beside the files and survives the process.
//!
//! The trail is the only place that says who asked for whom. Logs and metrics do not.

mod record;
mod sender;
mod spool;
mod syslog;
mod trail;
mod xml;

pub use record::{AuditEvent, AuditOutcome, AuditRecord, AuditedQuery, AuditedStudies, AuditedStudy, Participant};
pub use spool::AuditSpool;
pub use syslog::{AuditCollector, CollectorError, CollectorOptions};
pub use trail::{AuditError, AuditOptions, AuditTrail, Auditor};
