//! The index in a PostgreSQL database (docs/adr/0044).
//!
//! A *shelf* holds what instances of one series and directory say alike, and its instances hold the
//! rest in a few packed bytes. All that a study answers follows from its shelves (`view`), so the
//! row of a study has only what leads to it and orders it.
//!
//! A transaction locks its studies in one order. It loads what it is about as
//! [`Contents`](super::contents::Contents), changes that as the index in memory does, and writes
//! back what differs.

mod address;
mod admin;
mod body;
mod connection;
mod error;
mod find;
mod group;
mod keys;
mod lead;
mod ledger;
mod load;
mod maintenance;
mod marks;
mod pieces;
mod promises;
mod question;
mod reader;
mod save;
mod schema;
mod shelves;
mod studies;
mod tls;
mod writer;

pub use address::PostgresAddress;
pub(super) use address::is_address;
pub(super) use pieces::PostgresCopy;
pub use reader::PostgresReader;
pub use writer::{PostgresWriter, PostgresWriterHandle};
