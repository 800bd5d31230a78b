//! A cohort as files: objects of the index under names that a template makes, in a folder, a zip or
//! a tar.
//!
//! A name never leaves the folder. No file is overwritten. A manifest says what came from where,
//! and a run that was killed goes on from it (ADR 0035).

pub mod dicomdir;
pub mod folder;
pub mod manifest;
pub mod names;
pub mod package;
pub mod record_keys;
pub mod template;

use std::io;
use std::path::{Path, PathBuf};

/// Reason why a cohort cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The template is not valid.
    #[error("the template `{template}`: {problem}")]
    Template {
        /// The template.
        template: String,
        /// Reason why it is not valid.
        problem: String,
    },
    /// A file of the destination could not be made or written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The manifest of an earlier run cannot be read.
    #[error("cannot read the manifest {}: {problem}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Reason why it cannot be read.
        problem: String,
    },
    /// The file system cannot make this kind of link between source and destination.
    #[error("{} cannot be made from its source: {hint}", path.display())]
    Link {
        /// The file of the destination.
        path: PathBuf,
        /// Advice on what to do.
        hint: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Another process writes the same destination.
    #[error("another copy writes {}", path.display())]
    Busy {
        /// The destination.
        path: PathBuf,
    },
    /// The destination exists.
    #[error("{} exists; hint: name a new file", path.display())]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// An object could not be read. Others may be.
    #[error("cannot read the object: {0}")]
    Object(String),
}

impl Error {
    /// The error of opening a file that another process may have locked.
    fn locked_or_write(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::WouldBlock => Self::Busy { path: path.to_owned() },
            _ => Self::Write { path: path.to_owned(), source },
        }
    }
}
