//! dcmdex is a DICOM network node that indexes: one process around one index. The index is an
//! SQLite file, or a folder of them, or a PostgreSQL database.
//!
//! Two things fill the index. [`scanner`] reads folders and archives where they lie, and the node
//! ([`scp`], [`web`]) receives objects by C-STORE and STOW-RS. [`qr`] answers queries from it, for
//! C-FIND, QIDO-RS and the terminal alike. The program `dcmdex` is a thin layer over this library.
//!
//! # First steps
//!
//! This indexes a folder and asks for the studies of one patient:
//!
//! ```
//! use std::ops::ControlFlow;
//! use dcmdex::config::{Config, Sources};
//! use dcmdex::db::open::{Reader, Writer};
//! use dcmdex::model::level::{InformationModel, QueryRetrieveLevel};
//! use dcmdex::qr::{self, NegotiatedOptions, keys};
//! use dcmdex::scanner::{Roots, ScanTarget, Stop, scan};
//!
//! # fn main() -> anyhow::Result<()> {
//! # let directory = tempfile::tempdir()?;
//! # let index = directory.path().join("index.db");
//! let environment = vec![("DCMDEX_INDEX".into(), index.into())];
//! let sources = Sources { environment, ..Sources::default() };
//! let config = Config::load(&sources, &std::env::current_dir()?)?;
//!
//! let options = config.scan.clone();
//! let roots = Roots::find(&["fixtures/archive".into()], &options)?;
//! let writer = Writer::open(&config.index, config.scan_writer_options())?;
//! let handle = writer.handle();
//! let target = ScanTarget::Index { known: Reader::open(&config.index)?, writer: &handle };
//! let summary = scan(&roots, &options, target, &Stop::default(), &mut |_event| {})?;
//! assert!(summary.indexed > 0);
//!
//! let study = QueryRetrieveLevel::Study;
//! let identifier = keys::identifier(study, ["PatientName=M*", "StudyDate"])?;
//! let negotiated = NegotiatedOptions { relational_queries: true, ..Default::default() };
//! let query =
//!     qr::parse(InformationModel::StudyRoot, &identifier, negotiated, &qr::Options::default())?;
//! let mut reader = Reader::open(&config.index)?;
//! let stop = qr::QueryStop::new(&reader);
//! let found = qr::run(&mut reader, &query, &stop, |study| {
//!     println!("{:?}", study.values);
//!     ControlFlow::Continue(())
//! })?;
//! assert!(found > 0);
//! # Ok(())
//! # }
//! ```
//!
//! Four programs in `examples/` show more: `index_a_folder`, `query_an_index`, `write_a_table` and
//! `run_a_node`.
//!
//! # The modules, in reading order
//!
//! 1. [`encoding`] holds what PS3.5 says about bytes: element headers, VRs, transfer syntaxes,
//!    character sets. [`model`] holds the words of the domain: UIDs, AE titles, query levels, the
//!    table of attributes, records, matching. Both are pure data. [`files`] writes files that get
//!    their name when they are whole. [`pixels`] finds and decompresses frames.
//! 2. [`archive`] reads the members of zip, tar and gzip files without unpacking them.
//! 3. [`ingest`] reads one object (a file, a stream, an archive member) into an instance record.
//! 4. [`store`] keeps the objects that the node receives, and opens any object of the index.
//! 5. [`db`] is the index. It holds all SQL: the schema, the one writer, the readers.
//! 6. [`scanner`] brings the index up to date with a folder and accounts for every entry.
//!    [`watch`] does that again and again.
//! 7. [`qr`] turns an Identifier into a query, and answers into response Identifiers. [`worklist`]
//!    completes orders, and matches the questions of modalities. [`mllp`] receives orders as HL7
//!    messages.
//! 8. [`receive`] takes an object that arrives: file, place, row. [`deliver`] reads the objects
//!    that are sent.
//! 9. [`dimse`] holds DIMSE messages: command sets, requests, fragments. It has no sockets.
//!    [`ul`] holds PDUs, TLS and requested associations, [`access`] the table of peers. `shares`
//!    counts memory, threads and places for each peer. `listening` is what all listeners do.
//! 10. [`scp`] is the network node: listener, associations, the DIMSE services.
//! 11. [`web`] is the HTTP side: DICOMweb, access, health and metrics.
//!     [`audit`] keeps who asked for what. [`events`] tells other programs what happened.
//! 12. [`export`] writes answers as typed tables: CSV, NDJSON, Parquet. [`cohort`] makes files of
//!     objects under names of a template. [`compare`] tells how two archives differ.
//! 13. [`telemetry`] holds log lines and the one table of metrics.
//! 14. [`config`] reads file, environment and flags into one checked
//!     [`Config`](config::Config), which makes the options of every other module.
//! 15. [`cli`] is the command line, one file for each command.
//!
//! # Rules that hold everywhere
//!
//! - Files and peers are not trusted. Every length from outside meets a limit before memory is
//!   taken.
//! - tokio is in [`ul`], [`scp`], [`web`], [`mllp`], [`receive`], [`deliver`], `shares`,
//!   [`listening`], `events::webhook`, `db::postgres` and the `serve` command. All other modules
//!   are plain synchronous code.
//! - Only [`db`] writes the index. Several processes may use one index at the same time.
//! - Errors, logs and metrics hold no patient data.
//!
//! `docs/architecture.md` in the repository follows one object and one query through these modules.

pub mod access;
pub mod archive;
pub mod audit;
pub mod cli;
pub mod cohort;
pub mod compare;
pub mod config;
pub mod db;
pub mod deliver;
pub mod dimse;
pub mod encoding;
pub mod events;
pub mod export;
pub mod files;
pub mod ingest;
pub mod listening;
pub mod mllp;
pub mod model;
pub mod pixels;
pub mod qr;
pub mod receive;
pub mod scanner;
pub mod scp;
mod shares;
pub mod store;
pub mod telemetry;
pub mod ul;
pub mod watch;
pub mod web;
pub mod worklist;
