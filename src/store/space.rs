//! Free space on a disk, and what has to stay free of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long what was found holds: what arrives meanwhile is small against what stays free.
const HOLDS: Duration = Duration::from_millis(500);

/// What may be used of a disk.
#[derive(Debug)]
pub struct FreeSpace {
    directory: PathBuf,
    min_free_bytes: u64,
    /// The part of the file system that is enough to leave free: a twentieth is 20.
    part: u64,
    /// When it was looked, and how much may still be used.
    known: Mutex<Option<(Instant, u64)>>,
}

impl FreeSpace {
    /// Of the disk of a directory, leaving so many bytes free, or this part of it where that is less.
    #[must_use]
    pub fn new(directory: &Path, min_free_bytes: u64, part: u64) -> Self {
        Self { directory: directory.to_owned(), min_free_bytes, part: part.max(1), known: Mutex::new(None) }
    }

    /// Takes so many bytes of it, if they may be used; of none whether anything may.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    pub fn take(&self, bytes: u64) -> io::Result<bool> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.filter(|(when, _)| when.elapsed() < HOLDS);
        let (when, usable) = match fresh {
            Some(fresh) => fresh,
            None => {
                let space = rustix::fs::statvfs(&self.directory)?;
                let part = space.f_blocks.saturating_mul(space.f_frsize) / self.part;
                let free = space.f_bavail.saturating_mul(space.f_frsize);
                (Instant::now(), free.saturating_sub(self.min_free_bytes.min(part)))
            }
        };
        let left = usable.checked_sub(bytes).filter(|_| usable > 0);
        // That there is none is not remembered: it is asked again at once when something goes.
        *known = left.map(|left| (when, left));
        Ok(left.is_some())
    }

    /// From now on there is none.
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
        // As much as the whole disk.
        assert!(!FreeSpace::new(directory.path(), u64::MAX, 1).take(0).unwrap());
        assert!(!FreeSpace::new(directory.path(), 0, 20).take(u64::MAX).unwrap());
        // What is taken meanwhile counts, and what is found to be full is looked at again.
        let space = FreeSpace::new(directory.path(), 0, 20);
        *space.known.lock().unwrap() = Some((Instant::now() + Duration::from_hours(1), 10));
        assert!(space.take(6).unwrap() && !space.take(6).unwrap());
        assert!(space.take(6).unwrap());
        assert!(FreeSpace::new(Path::new("/nowhere"), 0, 20).take(1).is_err());
    }
}
