//! The index in an SQLite file.

mod backlog;
mod check;
mod files;
mod find;
mod functions;
mod guard;
mod mounts;
mod names;
mod open;
mod packing;
mod reader;
mod schema;
mod separated;
mod sql_values;
mod start_check;
mod status;
mod suspension;
mod write;
mod write_priority;
mod writer;

pub use backlog::Backlog;
pub use check::{CheckReport, Finding};
pub use files::IndexFiles;
pub use find::{Interrupt, can_answer, can_answer_declared};
pub use reader::{DirectorySnapshot, KnownFile, LocatedInstance, Note, Reader};
pub use schema::SCHEMA_VERSION;
pub use status::{ConflictEntry, FailureEntry, IndexStatus, ScanEntry};
pub use suspension::Suspension;
pub use writer::{Writer, WriterHandle, WriterOptions};
