//! The link of an object in `.incoming/`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files::rename_without_replacing;

/// A link in `.incoming/`. It is removed on drop, unless the file has been renamed.
#[derive(Debug)]
pub(super) struct Temporary(pub(super) Option<PathBuf>);

impl Temporary {
    /// Renames the file to its [`incoming_name`](super::names::incoming_name), which says where its
    /// final link will be.
    pub(super) fn say_where(&mut self, name: &str) -> io::Result<()> {
        let Some(from) = &self.0 else { return Err(io::ErrorKind::NotFound.into()) };
        let to = from.with_file_name(name);
        if *from != to {
            fs::rename(from, &to)?;
            self.0 = Some(to);
        }
        Ok(())
    }

    /// Renames the file. It fails if the name exists.
    pub(super) fn rename(&mut self, to: &Path) -> io::Result<()> {
        let Some(from) = &self.0 else { return Err(io::ErrorKind::NotFound.into()) };
        match rename_without_replacing(from, to) {
            Ok(()) => {
                self.0 = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(%error, "a half received object could not be removed; the next start will try again");
        }
    }
}
