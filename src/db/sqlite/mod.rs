//! The index in an SQLite file.

mod admin;
mod check;
mod columns;
mod copying;
mod error;
mod federated;
mod files;
mod find;
mod frozen;
mod functions;
mod guard;
mod ledger;
mod limits;
mod mounts;
mod names;
mod open;
mod packing;
mod reader;
mod relocation;
mod removals;
mod report;
mod schema;
mod separated;
mod sql_values;
mod start_check;
mod status;
mod worklist;
mod write;
mod write_priority;
mod writer;

pub use copying::{IndexHold, copy_index};
pub use files::DatabaseFiles;
pub use frozen::{FrozenIndex, checksum_of, freeze, frozen, thaw};
pub use reader::SqliteReader;
pub use schema::SCHEMA_VERSION;
pub use writer::{SqliteWriter, SqliteWriterHandle, WriterOptions};
