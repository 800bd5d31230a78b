//! Files without a name: for bytes that are read again, and for results that wait for a slow
//! reader.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::FreeSpace;
use crate::files::nameless_file;

/// Maximum share of the disk to leave free, as a divisor. It is twice what received objects leave.
const PART_FREE: u64 = 10;

/// A local directory for spools. All of them together leave part of the disk free.
#[derive(Clone, Debug)]
pub struct SpoolDirectory {
    path: PathBuf,
    space: Arc<FreeSpace>,
}

impl SpoolDirectory {
    /// Uses this directory. `min_free_bytes` of its disk stay free, or a tenth of the disk if that
    /// is less.
    #[must_use]
    pub fn new(path: PathBuf, min_free_bytes: u64) -> Self {
        let space = Arc::new(FreeSpace::new(&path, min_free_bytes, PART_FREE));
        Self { path, space }
    }

    /// Creates an empty file without a name.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn file(&self) -> io::Result<SpoolFile> {
        Ok(SpoolFile { file: nameless_file(&self.path)?, space: Arc::clone(&self.space), length: 0 })
    }

    /// Creates an empty spool.
    ///
    /// # Errors
    /// If its file cannot be created.
    pub fn spool(&self) -> io::Result<Spool> {
        Ok(Spool { file: self.file()?, pieces: VecDeque::new() })
    }

    /// Works as if the disk had no space left, for a second.
    #[cfg(test)]
    pub(crate) fn use_up(&self) {
        self.space.use_up();
    }
}

/// A file without a name. It goes away with its owner or with the process.
///
/// It is written from start to end, and can then be read at any offset.
#[derive(Debug)]
pub struct SpoolFile {
    file: File,
    space: Arc<FreeSpace>,
    length: u64,
}

impl SpoolFile {
    /// Appends bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] if too little space would stay free, or a write error. The
    /// length does not change then.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let count = bytes.len() as u64;
        if !self.space.take(count)? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(bytes, self.length)?;
        self.length += count;
        Ok(())
    }

    /// Reads bytes from an offset on. Returns how many were read. It is 0 at the end of the file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        self.file.read_at(buffer.get_mut(..count).unwrap_or_default(), offset)
    }

    /// Number of bytes that were appended.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// A queue of byte pieces on disk.
#[derive(Debug)]
pub struct Spool {
    file: SpoolFile,
    /// Offset and length of each waiting piece.
    pieces: VecDeque<(u64, usize)>,
}

impl Spool {
    /// Appends a piece.
    ///
    /// # Errors
    /// See [`SpoolFile::append`]. The spool does not change then.
    pub fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        let start = self.file.length();
        self.file.append(piece)?;
        self.pieces.push_back((start, piece.len()));
        Ok(())
    }

    /// Takes the oldest piece. `None` if the queue is empty.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn pop(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some((at, length)) = self.pieces.pop_front() else { return Ok(None) };
        let mut piece = vec![0; length];
        self.file.file.read_exact_at(&mut piece, at)?;
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn pieces_come_out_as_they_went_in_and_leave_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let spools = SpoolDirectory::new(directory.path().to_owned(), 0);
        let mut spool = spools.spool().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        spool.push(b"one").unwrap();
        spool.push(b"").unwrap();
        assert_eq!(spool.pop().unwrap().unwrap(), b"one");
        spool.push(b"three").unwrap();
        assert_eq!(spool.pop().unwrap().unwrap(), b"");
        assert_eq!(spool.pop().unwrap().unwrap(), b"three");
        assert_eq!(spool.pop().unwrap(), None);
    }

    #[test]
    fn what_has_to_stay_free_of_the_disk_is_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let spools = SpoolDirectory::new(directory.path().to_owned(), 0);
        let mut spool = spools.spool().unwrap();
        spool.push(b"one").unwrap();
        spools.use_up();
        assert_eq!(spool.push(b"two").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(spool.pop().unwrap().unwrap(), b"one");
        assert_eq!(spool.pop().unwrap(), None);
    }
}
