//! Destination of a table: a file that gets its name when it is whole, or standard output.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::Error;
use crate::files::UnfinishedFile;

/// Bytes that wait before they are written.
const BUFFERED: usize = 256 * 1024;

/// The bytes of a table.
pub enum TableDestination<'o> {
    /// Standard output, or what stands for it.
    Output(BufWriter<Box<dyn Write + Send + 'o>>),
    /// A file.
    File(BufWriter<UnfinishedFile>),
}

impl<'o> TableDestination<'o> {
    /// Writes to this output.
    #[must_use]
    pub fn output(output: Box<dyn Write + Send + 'o>) -> Self {
        Self::Output(BufWriter::with_capacity(BUFFERED, output))
    }

    /// Begins a file. One that a killed process left under the temporary name is overwritten.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process writes it now, and [`Error::Write`].
    pub fn file(path: &Path) -> Result<Self, Error> {
        match UnfinishedFile::create(path) {
            Ok(file) => Ok(Self::File(BufWriter::with_capacity(BUFFERED, file))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Error::Busy { path: path.to_owned() }),
            Err(source) => Err(Error::Write { path: path.to_owned(), source }),
        }
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
        let flushed = self.flush();
        flushed.map_err(|error| self.error(error))?;
        let Self::File(file) = self else { return Ok(()) };
        let path = file.get_ref().path().to_owned();
        let finished = file.into_inner().map_err(io::IntoInnerError::into_error).and_then(UnfinishedFile::finish);
        finished.map_err(|source| Error::Write { path, source })
    }

    /// The file, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Output(_) => None,
            Self::File(file) => Some(file.get_ref().path()),
        }
    }

    /// The error with the place where it happened.
    #[must_use]
    pub fn error(&self, source: io::Error) -> Error {
        match self {
            Self::Output(_) if source.kind() == io::ErrorKind::BrokenPipe => Error::Gone,
            Self::Output(_) => Error::Output(source),
            Self::File(file) => Error::Write { path: file.get_ref().path().to_owned(), source },
        }
    }
}

impl Write for TableDestination<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Output(output) => output.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Output(output) => output.flush(),
            Self::File(file) => file.flush(),
        }
    }
}
