//! Files of a cohort in one zip or tar file, with the manifest as the last member.

use std::collections::HashSet;
use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Error;
use super::folder::{CopiedObject, CopyError, copy_bytes};
use super::manifest::{MANIFEST, ManifestRow, PackedManifest};
use super::names::{numbered, path_key};
use crate::archive::Archives;
use crate::files::{FILE_MODE, UnfinishedFile, nameless_file, parent_of};
use crate::model::location::Location;

/// Numbers that are tried for one name.
const MAX_NUMBER: u32 = 100_000;

/// The file of a zip. The writer of a zip ends it when it is dropped, and complains on standard
/// error if it cannot. After the package was given up, only the position moves.
struct ZipFile {
    file: BufWriter<UnfinishedFile>,
    is_given_up: Arc<AtomicBool>,
    position: u64,
    length: u64,
}

impl ZipFile {
    fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }
}

impl io::Write for ZipFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = if self.is_given_up() { bytes.len() } else { self.file.write(bytes)? };
        self.position = self.position.saturating_add(written as u64);
        self.length = self.length.max(self.position);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_given_up() { Ok(()) } else { self.file.flush() }
    }
}

impl io::Seek for ZipFile {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.position = if self.is_given_up() {
            // The writer of the zip computes lengths from positions.
            match to {
                io::SeekFrom::Start(position) => position,
                io::SeekFrom::Current(by) => self.position.saturating_add_signed(by),
                io::SeekFrom::End(by) => self.length.saturating_add_signed(by),
            }
        } else {
            self.file.seek(to)?
        };
        Ok(self.position)
    }
}

/// Kind of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageKind {
    /// zip, without compression: pixel data are compressed already or hardly get smaller.
    Zip,
    /// tar.
    Tar,
}

/// A package that is being written under a temporary name.
pub struct CohortPackage {
    path: PathBuf,
    writer: PackageWriter,
    taken: HashSet<u128>,
    archives: Archives,
    manifest: PackedManifest,
    is_given_up: Arc<AtomicBool>,
}

enum PackageWriter {
    Zip(Box<zip::ZipWriter<ZipFile>>),
    Tar(Box<tar::Builder<BufWriter<UnfinishedFile>>>),
    Closed,
}

impl CohortPackage {
    /// Begins a package. What a killed run left under the temporary name is overwritten.
    ///
    /// # Errors
    /// [`Error::Exists`] and [`Error::Write`].
    pub fn create(path: &Path, kind: PackageKind) -> Result<Self, Error> {
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let file = UnfinishedFile::create(path).map_err(|error| Error::locked_or_write(path, error))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let is_given_up = Arc::new(AtomicBool::new(false));
        let writer = match kind {
            PackageKind::Zip => PackageWriter::Zip(Box::new(zip::ZipWriter::new(ZipFile {
                file,
                is_given_up: Arc::clone(&is_given_up),
                position: 0,
                length: 0,
            }))),
            PackageKind::Tar => PackageWriter::Tar(Box::new(tar::Builder::new(file))),
        };
        Ok(Self {
            path: path.to_owned(),
            writer,
            taken: HashSet::new(),
            archives: Archives::default(),
            manifest: PackedManifest::default(),
            is_given_up,
        })
    }

    /// Adds the object of an instance. Returns its name and the number in it.
    ///
    /// # Errors
    /// [`Error::Object`] if the source cannot be read. Any other error is one of the destination.
    pub fn add(&mut self, name: &Path, object: CopiedObject<'_>) -> Result<(PathBuf, u32), Error> {
        let location = object.location;
        let (mut source, left) = object.open(&self.archives)?;
        // The length stands in front of the bytes. An object that cannot be read whole is left out,
        // so a member is read into a file without a name first.
        let length = match left {
            Some(length) => length,
            None => {
                let mut spooled = nameless_file(parent_of(&self.path)).map_err(|error| self.failed(error))?;
                let length = copy_bytes(&mut source, &mut spooled).map_err(|error| self.copy_failed(error))?;
                io::Seek::rewind(&mut spooled).map_err(|error| self.failed(error))?;
                return self.add_bytes(name, spooled, length, location);
            }
        };
        self.add_bytes(name, source, length, location)
    }

    fn add_bytes(
        &mut self,
        name: &Path,
        bytes: impl Read,
        length: u64,
        location: &Location,
    ) -> Result<(PathBuf, u32), Error> {
        let number = (1..MAX_NUMBER).find(|number| !self.taken.contains(&path_key(&numbered(name, *number))));
        let number = number.ok_or_else(|| self.failed(io::Error::other("too many files have this name")))?;
        let file = numbered(name, number);
        self.put(&file, bytes, length, location.mtime_ms / 1000)?;
        self.taken.insert(path_key(&file));
        Ok((file, number))
    }

    fn put(&mut self, file: &Path, bytes: impl Read, length: u64, mtime: i64) -> Result<(), Error> {
        let mut bytes = bytes.take(length);
        let written = match &mut self.writer {
            PackageWriter::Zip(writer) => {
                let options = zip::write::SimpleFileOptions::default()
                    .compression_method(zip::CompressionMethod::Stored)
                    .large_file(length >= u64::from(u32::MAX))
                    .unix_permissions(FILE_MODE);
                let name = file.to_string_lossy();
                writer
                    .start_file(name, options)
                    .map_err(io::Error::from)
                    .map_err(CopyError::Write)
                    .and_then(|()| copy_bytes(&mut bytes, writer.as_mut()))
            }
            PackageWriter::Tar(writer) => {
                let mut header = tar::Header::new_gnu();
                header.set_size(length);
                header.set_mode(FILE_MODE);
                header.set_mtime(u64::try_from(mtime).unwrap_or_default());
                writer.append_data(&mut header, file, &mut bytes).map(|()| length).map_err(CopyError::Write)
            }
            PackageWriter::Closed => Ok(length),
        };
        match written {
            Ok(copied) if copied == length => Ok(()),
            Ok(_) => Err(self.failed(io::Error::other(format!("{} became shorter while it was read", file.display())))),
            // Half of a member stands in the package, so the package cannot go on.
            Err(CopyError::Read(error) | CopyError::Write(error)) => Err(self.failed(error)),
        }
    }

    /// Adds a row to the manifest.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn note(&mut self, row: &ManifestRow<'_>) -> Result<(), Error> {
        let noted = self.manifest.row(row);
        noted.map_err(|error| self.failed(error))
    }

    /// Ends the package, and gives it its name.
    ///
    /// # Errors
    /// If it cannot be written or renamed.
    pub fn finish(mut self) -> Result<(), Error> {
        let manifest = std::mem::take(&mut self.manifest).into_bytes();
        self.put(Path::new(MANIFEST), manifest.as_slice(), manifest.len() as u64, 0)?;
        let finished = (|| -> io::Result<()> {
            let file = match std::mem::replace(&mut self.writer, PackageWriter::Closed) {
                PackageWriter::Zip(writer) => writer.finish().map_err(io::Error::from)?.file,
                PackageWriter::Tar(writer) => writer.into_inner()?,
                PackageWriter::Closed => return Ok(()),
            };
            file.into_inner().map_err(io::IntoInnerError::into_error)?.finish()
        })();
        finished.map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Write { path: self.path.clone(), source }
    }

    fn copy_failed(&self, error: CopyError) -> Error {
        match error {
            CopyError::Read(error) => Error::Object(error.to_string()),
            CopyError::Write(error) => self.failed(error),
        }
    }
}

impl Drop for CohortPackage {
    fn drop(&mut self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }
}
