//! Tables: answers of the index as typed rows in CSV, NDJSON and Parquet.
//!
//! A [`Column`](table::TableColumn) has a type that follows from its VR. A value that does not fit
//! the type is null in its column, and its text stands in the column `_raw`. A table is written
//! under another name and renamed when it is whole. Memory does not grow with the number of rows.

pub mod csv_table;
pub mod destination;
pub mod ndjson;
#[cfg(feature = "parquet")]
pub mod parquet_table;
pub mod partition;
pub mod pseudonym;
pub mod table;
pub mod value;

use std::io;
use std::path::PathBuf;

/// Reason why a table cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be made, written or renamed.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The reader of standard output has closed it.
    #[error("nobody reads the output")]
    Gone,
    /// Standard output could not be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// Another process writes the same file.
    #[error("another export writes {}", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The destination of a partitioned table exists.
    #[error("{} exists and is not an empty directory; hint: name a new one", path.display())]
    NotEmpty {
        /// The destination.
        path: PathBuf,
    },
    /// Two columns have one name.
    #[error("two columns would have the name {0}")]
    SameName(String),
    /// The key file of pseudonyms cannot be used.
    #[error("{}: {problem}", path.display())]
    KeyFile {
        /// The key file.
        path: PathBuf,
        /// Reason why it cannot be used.
        problem: String,
    },
    /// The Parquet encoder refused something.
    #[cfg(feature = "parquet")]
    #[error("cannot encode Parquet")]
    Parquet(#[from] parquet::errors::ParquetError),
}
