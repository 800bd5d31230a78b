//! Reads members of zip, tar and gzip files without unpacking them.
//!
//! [`walk()`] visits the members of an archive file, and the members of nested archives
//! ([`limits::MAX_NESTING`] deep). A callback reads as much of each member as it needs. [`open()`]
//! opens one member to read all of it. [`Archives`] opens many, one after the other. A stored
//! member is a range of the file. A deflated member is inflated only as far as somebody reads it.
//! No member is in memory as a whole. The central directory of a zip archive is read as a stream of
//! entries.
//!
//! The name of a member is never used as a path on the disk. Every length and count in an archive
//! meets one of the [`limits`]. The reader checks what an archive states against its bytes.

mod adapters;
mod found;
mod gzip;
mod inflate;
mod leavable;
pub mod limits;
mod look_up;
mod name;
mod object;
mod open;
mod problem;
mod range;
mod stream;
mod tar;
mod walk;
mod wanted;
mod zip;

use std::io::{self, Read};

pub use object::Object;
pub use open::{Archives, open};
pub use problem::ArchiveProblem;
pub use range::OnRead;
pub use walk::{Member, MemberAction, MemberKind, MemberSink, ReadMember, walk};
pub use wanted::WantedMembers;

/// Bytes needed to detect an archive. A tar header has 512.
pub const KIND_BYTES: usize = tar::BLOCK;

/// A kind of archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// zip.
    Zip,
    /// tar.
    Tar,
    /// gzip, with a tar archive or a single file in it.
    Gzip,
}

impl ArchiveKind {
    /// The kind of archive that begins with these bytes: [`KIND_BYTES`] of them, or fewer if the
    /// file is shorter.
    ///
    /// The preamble of a DICOM file may hold anything (PS3.10 7.1), even the beginning of an
    /// archive. So a file with the prefix `DICM` is no archive.
    ///
    /// # Errors
    /// [`ArchiveProblem::Unsupported`] for a kind of archive that this module cannot read.
    pub fn of(start: &[u8]) -> Result<Option<Self>, ArchiveProblem> {
        if start.get(128..132) == Some(b"DICM") {
            return Ok(None);
        }
        Ok(match start {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Self::Zip),
            // The first of several volumes, or a single volume made by a tool that can split
            // archives.
            [b'P', b'K', 7, 8, b'P', b'K', ..] => return Err(ArchiveProblem::Unsupported("multi-volume zip")),
            [0x1F, 0x8B, 8, ..] => Some(Self::Gzip),
            [b'7', b'z', 0xBC, 0xAF, 0x27, 0x1C, ..] => return Err(ArchiveProblem::Unsupported("7-Zip")),
            [b'R', b'a', b'r', b'!', 0x1A, 7, ..] => return Err(ArchiveProblem::Unsupported("RAR")),
            [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => return Err(ArchiveProblem::Unsupported("xz")),
            [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', b'S', b'Y', ..] => {
                return Err(ArchiveProblem::Unsupported("bzip2"));
            }
            [0x28, 0xB5, 0x2F, 0xFD, ..] => return Err(ArchiveProblem::Unsupported("Zstandard")),
            _ if tar::is_header(start) => Some(Self::Tar),
            _ => None,
        })
    }

    /// Its common name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zip => "zip",
            Self::Tar => "tar",
            Self::Gzip => "gzip",
        }
    }
}

/// The bytes of a member, for a reader of headers.
pub trait MemberBytes: Read {
    /// Skips `count` bytes without reading them. It seeks if the bytes lie uncompressed in the
    /// file. Returns the bytes skipped, which are fewer than `count` only at the end.
    ///
    /// # Errors
    /// Those of the file system, or a [`ArchiveProblem`].
    fn skip(&mut self, count: u64) -> io::Result<u64>;
}

impl<S: range::SkipRead> MemberBytes for S {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        range::SkipRead::skip(self, count)
    }
}
