//! Parts that a split and a merge of index files have in common.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::cli::output::Shown;
use crate::db::Error;
use crate::db::open::{compact, frozen, remove_index_files};
use crate::files::with_suffix;
use crate::model::calendar::moment_text;
use crate::model::clock::Clock;

/// Refuses a path that is no index file, or one that is frozen.
pub(super) fn check_is_writable(file: &Path) -> anyhow::Result<()> {
    if !file.is_file() {
        bail!("there is no index file {}", Shown(file));
    }
    if frozen(file)?.is_some() {
        bail!("{0} is frozen; hint: `dcmdex index thaw {0}`", Shown(file));
    }
    Ok(())
}

/// The end of the name under which a former index is kept. A folder does not take it for an index.
pub(super) fn set_aside_suffix() -> String {
    format!(".before-{}", moment_text(Clock::System.now_ms()).replace(['-', ':'], ""))
}

/// An index while it is made: a copy of one that is changed, and the same without free pages. Both
/// go when this is dropped.
pub(super) struct PartInWork {
    pub(super) copy: PathBuf,
    pub(super) compact: PathBuf,
}

impl PartInWork {
    /// Names the files, and removes those that a killed command left.
    pub(super) fn beside(index: &Path, suffix: &str) -> Result<Self, Error> {
        let part = Self { copy: with_suffix(index, suffix), compact: with_suffix(index, &format!("{suffix}-compact")) };
        part.remove()?;
        Ok(part)
    }

    /// Makes the compact file of the copy.
    pub(super) fn compact(&self) -> Result<(), Error> {
        compact(&self.copy, &self.compact)
    }

    fn remove(&self) -> Result<(), Error> {
        for path in [&self.copy, &self.compact] {
            remove_index_files(path)?;
        }
        Ok(())
    }
}

impl Drop for PartInWork {
    fn drop(&mut self) {
        let _gone = self.remove();
    }
}
