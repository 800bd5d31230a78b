//! The engine that the program uses. Only this file chooses it.

pub use super::sqlite::{
    IndexFiles, IndexHold, Reader, SCHEMA_VERSION, Writer, WriterHandle, WriterOptions, copy_index,
};
