//! The index in a PostgreSQL database (docs/adr/0044).
//!
//! An *instance group* holds what instances of one series and directory say alike, and its
//! instances hold the rest in a few packed bytes. All that a study answers follows from its
//! instance groups (`view`). So the row of a study has only what leads to it and orders it.
//!
//! A transaction locks its studies in one order. It loads what it is about as
//! [`Contents`](super::contents::Contents), changes that as the index in memory does, and writes
//! back what differs.
//!
//! In reading order:
//!
//! - `schema` makes the tables. `address`, `connection`, `flight`, `tls` and `error` reach the
//!   server.
//! - `keys` has the forms of columns. `shelves`, `body`, `studies`, `directories` and `marks` are
//!   the rows.
//! - `writer` is the thread that commits, by transactions of `changer`. Each of them does `load`,
//!   changes the contents, and does `save`. `remembered` has what it need not load again.
//!   `maintenance` has the changes that need no contents.
//! - `reader` answers, one `question` at a time: `lead` finds studies that may match, and `find`
//!   decides. `ledger`, `admin`, `report` and `contradictions` are the questions of scans and
//!   operators.
//! - `losses` is what entities lost that stay.
//! - `corrections` has the rules of operators, and `correcting` changes them.
//! - `events` is what programs that follow the index are told. `event_rows` writes it.
//! - `worklist` has what is scheduled.
//! - `removals` is what operators remove. `removed_rows` has its rows.
//! - `relocation` gives directories new paths.
//! - `root_names` finds files that would have two paths.
//! - `nodes` is who runs, and `storage_claims` whose objects are where.
//! - `promises` compares what the server promises with the durability that is asked for.
//! - `pieces` is one side of a copy to or from another engine.

mod address;
mod admin;
mod away;
mod body;
mod changer;
mod connection;
mod contradictions;
mod correcting;
mod corrections;
mod directories;
mod error;
mod event_rows;
mod events;
mod find;
mod flight;
mod held_unit;
mod keys;
mod lead;
mod leases;
mod ledger;
mod load;
mod losses;
mod maintenance;
mod marks;
mod nodes;
mod pieces;
mod promises;
mod question;
mod reader;
mod relocation;
mod remembered;
mod removals;
mod removed_rows;
mod report;
mod root_names;
mod roots;
mod save;
mod schema;
mod shelves;
mod storage_claims;
mod studies;
mod tls;
mod worklist;
mod writer;

pub use address::PostgresAddress;
pub(super) use address::is_address;
pub(super) use pieces::PostgresCopy;
pub use reader::PostgresReader;
pub use writer::{PostgresWriter, PostgresWriterHandle};
