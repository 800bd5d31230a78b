//! dcmdex: a DICOM network node that indexes.
//!
//! In reading order:
//!
//! - [`model`]: the words of the domain (UIDs, AE titles, levels, the attribute table, records, matching). Pure data.
//! - [`dimse`]: DIMSE messages: command sets, status codes, fragments. No sockets.
//! - [`ingest`]: one object (a file, a stream, an archive member) to an instance record, by one bounded header tokenizer.
//! - [`telemetry`]: log lines and the one table of metrics.
//! - [`config`]: file, environment and flags to one checked `Config`.

pub mod config;
pub mod dimse;
pub mod ingest;
pub mod model;
pub mod telemetry;
