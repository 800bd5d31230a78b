//! Where a table goes: a file that gets its name when it is whole, or standard output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Error;

/// Bytes that wait before they are written.
const BUFFERED: usize = 256 * 1024;

/// Opens no symbolic link.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// The bytes of a table.
pub enum TableDestination<'o> {
    /// Standard output, or what stands for it.
    Output(BufWriter<Box<dyn Write + Send + 'o>>),
    /// A file.
    File(UnfinishedFile),
}

impl<'o> TableDestination<'o> {
    /// Writes to this output.
    #[must_use]
    pub fn output(output: Box<dyn Write + Send + 'o>) -> Self {
        Self::Output(BufWriter::with_capacity(BUFFERED, output))
    }

    /// Writes all bytes.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Write::write_all(self, bytes).map_err(|error| self.error(error))
    }

    /// Ends the bytes. A file gets its final name.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn finish(mut self) -> Result<(), Error> {
        if let Self::Output(output) = &mut self {
            let flushed = output.flush();
            return flushed.map_err(|error| self.error(error));
        }
        match self {
            Self::File(file) => file.finish(),
            Self::Output(_) => Ok(()),
        }
    }

    /// The file, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Output(_) => None,
            Self::File(file) => Some(&file.path),
        }
    }

    /// The error with the place where it happened.
    #[must_use]
    pub fn error(&self, source: io::Error) -> Error {
        match self {
            Self::Output(_) if source.kind() == io::ErrorKind::BrokenPipe => Error::Gone,
            Self::Output(_) => Error::Output(source),
            Self::File(file) => Error::Write { path: file.path.clone(), source },
        }
    }
}

impl Write for TableDestination<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Output(output) => output.write(bytes),
            Self::File(file) => file.writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Output(output) => output.flush(),
            Self::File(file) => file.writer.flush(),
        }
    }
}

/// A file under a temporary name: its own with `.partial` at the end. It goes if it is not finished.
pub struct UnfinishedFile {
    path: PathBuf,
    temporary: PathBuf,
    writer: BufWriter<File>,
    is_finished: bool,
}

impl UnfinishedFile {
    /// Begins a file. One that a killed process left under the temporary name is overwritten.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process writes it now, and [`Error::Write`].
    pub fn create(path: &Path) -> Result<Self, Error> {
        let failed = |source: io::Error| Error::Write { path: path.to_owned(), source };
        if path.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".partial");
        let temporary = PathBuf::from(temporary);
        // A table has patient data. Whatever the umask, other users may not read it.
        let mut options = OpenOptions::new();
        // A link under the temporary name would lead to a file of somebody else.
        options.create(true).truncate(false).write(true).mode(0o640).custom_flags(NO_FOLLOW);
        let file = options.open(&temporary).map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::Busy { path: path.to_owned() });
        }
        file.set_len(0).map_err(failed)?;
        let writer = BufWriter::with_capacity(BUFFERED, file);
        Ok(Self { path: path.to_owned(), temporary, writer, is_finished: false })
    }

    fn finish(mut self) -> Result<(), Error> {
        let finished = (|| {
            self.writer.flush()?;
            self.writer.get_ref().sync_all()?;
            fs::rename(&self.temporary, &self.path)?;
            self.is_finished = true;
            sync_directory_of(&self.path)
        })();
        finished.map_err(|source| Error::Write { path: self.path.clone(), source })
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        if !self.is_finished {
            // The error that ended the table is the one to tell.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Makes a rename in a directory durable.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
