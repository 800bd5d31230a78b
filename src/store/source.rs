//! Reads the bytes of an object from any location.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;

use super::known::change_of;
use super::meta::{START_LENGTH, data_set_offset};
use super::objects::{open_file, open_through};
use crate::archive::{Archives, Object};
use crate::encoding::walk::Input;
use crate::files::FileMark;
use crate::model::location::{Location, Place};
use crate::store::Error;

/// Maximum bytes to keep from the beginning of a member of an archive. Going back to them needs no
/// new inflating from the start.
const KEPT: usize = 64 << 10;

/// The same if the caller will read the whole member twice.
const KEPT_WHOLE: usize = 8 << 20;

/// Reads the bytes of an object from start to end. It can also go back.
#[derive(Debug)]
pub struct Source {
    location: Location,
    bytes: SourceBytes,
    position: u64,
    /// Difference between the file and what the index knows.
    change: Option<&'static str>,
}

#[derive(Debug)]
enum SourceBytes {
    File {
        file: File,
        length: u64,
        mark: FileMark,
    },
    /// A member of an archive.
    Member {
        object: Object,
        /// Bytes of it that were read.
        read: u64,
        /// Its first bytes.
        kept: Vec<u8>,
        /// Maximum of `kept`.
        most: usize,
        archives: Archives,
    },
}

impl Source {
    /// Opens the object at a location. `None` if the index keeps no bytes for it. To read several
    /// members of one archive fast, use the same `archives`. Drop each source before you open the
    /// next one.
    ///
    /// # Errors
    /// If the object does not exist or cannot be read.
    pub fn open(location: &Location, archives: &Archives) -> Result<Option<Self>, Error> {
        let change;
        let bytes = match location.place {
            Place::MetadataOnly => return Ok(None),
            Place::InPlace | Place::Managed => {
                let path = location.directory.join(&location.file_name);
                let opened = open_file(&path).and_then(|file| Ok((file.metadata()?, file)));
                let (metadata, file) = opened.map_err(Error::object("opened"))?;
                change = change_of(location, &metadata);
                SourceBytes::File { file, length: metadata.len(), mark: FileMark::of(&metadata) }
            }
            Place::Archive => {
                let Some(object) = open_through(location, archives)? else { return Ok(None) };
                let metadata = location.directory.metadata();
                change = metadata.map_or(Some("another modification time"), |metadata| change_of(location, &metadata));
                SourceBytes::Member { object, read: 0, kept: Vec::new(), most: KEPT, archives: archives.clone() }
            }
        };
        Ok(Some(Self { location: location.clone(), bytes, position: 0, change }))
    }

    /// Difference between the file, when it was opened, and what the index knows: see
    /// [`change_of`].
    #[must_use]
    pub const fn is_not_as_known(&self) -> Option<&'static str> {
        self.change
    }

    /// The mark of the file. `None` for a member of an archive.
    #[must_use]
    pub fn mark(&self) -> Option<FileMark> {
        match &self.bytes {
            SourceBytes::File { mark, .. } => Some(*mark),
            SourceBytes::Member { .. } => None,
        }
    }

    /// Number of bytes left. `None` for a member of an archive, because its size is only checked at
    /// its end.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match &self.bytes {
            SourceBytes::File { length, .. } => Some(length.saturating_sub(self.position)),
            SourceBytes::Member { .. } => None,
        }
    }

    /// Skips up to `count` bytes without reading them. It skips none if the number of bytes left is
    /// unknown. Returns the bytes skipped.
    ///
    /// # Errors
    /// If the object cannot be read.
    pub fn skip(&mut self, count: u64) -> io::Result<u64> {
        let count = self.left().map_or(0, |left| left.min(count));
        self.position += count;
        Ok(count)
    }

    /// Goes to the start of the data set of a managed object, after our File Meta Information.
    /// Returns that offset. `None` if the file does not begin with our File Meta Information.
    ///
    /// # Errors
    /// If the object cannot be read.
    pub fn go_behind_our_meta(&mut self) -> io::Result<Option<u64>> {
        self.go_to(0)?;
        let mut start = Vec::with_capacity(START_LENGTH);
        self.by_ref().take(START_LENGTH as u64).read_to_end(&mut start)?;
        let Some(offset) = data_set_offset(&start) else { return Ok(None) };
        self.go_to(offset)?;
        Ok(Some(offset))
    }

    /// Keeps more bytes from now on, because the caller will read the whole object twice.
    pub fn keep(&mut self) {
        if let SourceBytes::Member { most, .. } = &mut self.bytes {
            *most = KEPT_WHOLE;
        }
    }

    /// Goes to an offset from the start.
    ///
    /// # Errors
    /// If the object must be read again from the start, and that fails.
    pub fn go_to(&mut self, offset: u64) -> io::Result<()> {
        match &mut self.bytes {
            SourceBytes::File { length, .. } => {
                self.position = offset.min(*length);
                return Ok(());
            }
            SourceBytes::Member { read, kept, .. } if *read == kept.len() as u64 => self.position = 0,
            SourceBytes::Member { read, .. } if self.position == *read && offset >= *read => {}
            SourceBytes::Member { object, read, kept, archives, .. } => {
                // The bytes before are no longer kept. The open object is dropped first, because
                // the new one needs its stream.
                *object = Object::nothing();
                *object = open_through(&self.location, archives).map_err(into_io)?.ok_or(ErrorKind::NotFound)?;
                (*read, self.position) = (0, 0);
                kept.clear();
            }
        }
        let before = offset - self.position;
        io::copy(&mut self.by_ref().take(before), &mut io::sink()).map(drop)
    }
}

impl Input for Source {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let passed = Source::skip(self, count)?;
        io::copy(&mut self.take(count - passed), &mut io::sink()).map(|read| passed + read)
    }
}

fn into_io(error: Error) -> io::Error {
    match error {
        Error::Object { source, .. } => source,
        other => io::Error::other(other),
    }
}

/// Reads up to the length that the object had when it was opened. If the file has become shorter,
/// reading fails.
impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.bytes {
            SourceBytes::File { file, length, .. } => {
                let left = length.saturating_sub(self.position);
                let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
                if wanted == 0 {
                    return Ok(0);
                }
                match file.read_at(buffer.get_mut(..wanted).unwrap_or_default(), self.position)? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    read => read,
                }
            }
            SourceBytes::Member { object, read, kept, most, .. } => {
                let again = usize::try_from(self.position).ok().and_then(|position| kept.get(position..));
                match again.filter(|again| !again.is_empty()) {
                    Some(again) => {
                        let count = again.len().min(buffer.len());
                        buffer.iter_mut().zip(again).for_each(|(to, from)| *to = *from);
                        count
                    }
                    None => {
                        let count = object.read(buffer)?;
                        if *read == kept.len() as u64 && kept.len() + count <= *most {
                            kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
                        }
                        *read += count as u64;
                        count
                    }
                }
            }
        };
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A gzip file of these bytes, and the location of its only member.
    fn member(bytes: &[u8]) -> (tempfile::TempDir, Location) {
        let directory = tempfile::TempDir::new().unwrap();
        let archive = directory.path().join("object.dcm.gz");
        let mut encoder = flate2::write::GzEncoder::new(File::create(&archive).unwrap(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap();
        let location = Location {
            place: Place::Archive,
            directory: archive,
            file_name: "object.dcm".into(),
            size: 0,
            mtime_ms: 0,
        };
        (directory, location)
    }

    #[test]
    fn a_member_is_read_from_any_offset_as_often_as_wanted() {
        let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let (_directory, location) = member(&bytes);
        let mut source = Source::open(&location, &Archives::default()).unwrap().unwrap();
        assert_eq!(source.left(), None);
        let mut buffer = vec![0; 10_000];
        for offset in [0, 5, 70_000, 20, 300_000, 300_001, 0, 799_000, 64 << 10] {
            source.go_to(offset as u64).unwrap();
            let wanted = buffer.len().min(bytes.len() - offset);
            source.read_exact(&mut buffer[..wanted]).unwrap();
            assert!(buffer[..wanted] == bytes[offset..offset + wanted], "at {offset}");
        }
        source.go_to(0).unwrap();
        let mut all = Vec::new();
        source.read_to_end(&mut all).unwrap();
        assert!(all == bytes);
    }
}
