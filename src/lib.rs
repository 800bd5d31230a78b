//! dcmdex: a DICOM network node that indexes.
//!
//! In reading order:
//!
//! - [`model`]: the words of the domain (UIDs, AE titles, levels, the attribute table, records, matching). Pure data.
//! - [`db`]: all SQL: the schema, the one writer, the readers.
//! - [`dimse`]: DIMSE messages: command sets, status codes, fragments. No sockets.
//! - [`store`]: bytes at rest: objects that the node keeps.
//! - [`ingest`]: one object (a file, a stream, an archive member) to an instance record, by one bounded header tokenizer.
//! - [`scanner`]: what lies under a directory, into the index; every entry accounted for.
//! - [`qr`]: queries: Identifiers to `FindRequest`s, answers to response Identifiers.
//! - [`scp`]: the network node: listener, associations, the DIMSE services.
//! - [`telemetry`]: log lines and the one table of metrics.
//! - [`config`]: file, environment and flags to one checked `Config`.
//! - [`cli`]: the command line, one file for each command.

pub mod archive;
pub mod cli;
pub mod config;
pub mod db;
pub mod dimse;
pub mod ingest;
pub mod model;
pub mod qr;
pub mod scanner;
pub mod scp;
pub mod store;
pub mod telemetry;
