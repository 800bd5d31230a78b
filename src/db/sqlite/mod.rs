//! The index in an SQLite file.

mod admin;
mod check;
mod columns;
mod copying;
mod error;
mod files;
mod find;
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
pub use files::IndexFiles;
pub use reader::Reader;
pub use schema::SCHEMA_VERSION;
pub use writer::{Writer, WriterHandle, WriterOptions};
