//! Checks that enough space stays free on a disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::files::FileSystemSpace;

/// Time for which a result of `statvfs` is used. The bytes that arrive meanwhile are few against
/// those that stay free.
const HOLDS: Duration = Duration::from_millis(500);

/// The space on a disk that may still be used.
#[derive(Debug)]
pub(super) struct FreeSpace {
    directory: PathBuf,
    min_free_bytes: u64,
    /// Maximum share of the file system to keep free, as a divisor. 20 means a twentieth.
    part: u64,
    /// Time of the last `statvfs`, and the bytes that may still be used.
    known: Mutex<Option<(Instant, u64)>>,
}

impl FreeSpace {
    /// For the disk of a directory. `min_free_bytes` must stay free, or this part of the disk if
    /// that is less.
    #[must_use]
    pub(super) fn new(directory: &Path, min_free_bytes: u64, part: u64) -> Self {
        Self { directory: directory.to_owned(), min_free_bytes, part, known: Mutex::new(None) }
    }

    /// Takes bytes from the usable space. Returns false if there are not enough. `take(0)` asks
    /// whether any space is left.
    ///
    /// # Errors
    /// If the file system does not answer.
    pub(super) fn take(&self, bytes: u64) -> io::Result<bool> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.filter(|(when, _)| when.elapsed() < HOLDS);
        let (when, usable) = match fresh {
            Some(fresh) => fresh,
            None => {
                let space = FileSystemSpace::at(&self.directory)?;
                (Instant::now(), space.free.saturating_sub(space.min_free(self.min_free_bytes, self.part)))
            }
        };
        let left = usable.checked_sub(bytes).filter(|_| usable > 0);
        // A full disk is not remembered, so the next call sees at once that space became free.
        *known = left.map(|left| (when, left));
        Ok(left.is_some())
    }

    /// Makes the disk look full.
    #[cfg(test)]
    pub(super) fn use_up(&self) {
        *self.known.lock().unwrap() = Some((Instant::now() + Duration::from_hours(1), 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_stay_free_is_not_given_away() {
        let directory = tempfile::tempdir().unwrap();
        assert!(FreeSpace::new(directory.path(), 0, 20).take(0).unwrap());
        // The whole disk must stay free.
        assert!(!FreeSpace::new(directory.path(), u64::MAX, 1).take(0).unwrap());
        assert!(!FreeSpace::new(directory.path(), 0, 20).take(u64::MAX).unwrap());
        // Bytes taken since the last look count. After a refusal the disk is checked again.
        let space = FreeSpace::new(directory.path(), 0, 20);
        *space.known.lock().unwrap() = Some((Instant::now() + Duration::from_hours(1), 10));
        assert!(space.take(6).unwrap() && !space.take(6).unwrap());
        assert!(space.take(6).unwrap());
        assert!(FreeSpace::new(Path::new("/nowhere"), 0, 20).take(1).is_err());
    }
}
