//! Archives: zip, tar and gzip files, read where they lie.
//!
//! [`walk()`] goes through the members of an archive file, and of archives in it ([`limits::MAX_NESTING`] deep), and has each read as
//! far as the reader cares to; [`open()`] opens one member for reading from start to end, [`Archives`] one after the other. Nothing is unpacked: a stored member
//! is a range of the file, a deflated one is inflated as far as it is read, and no member is in memory as a whole. The central
//! directory of a zip archive is read as a stream of entries.
//!
//! Names of members are names and nothing else: no path on the disk is ever made of one. Every length and number that an
//! archive states meets one of the [`limits`]; what an archive says of itself is believed only where the bytes agree.

pub mod limits;
mod name;
mod open;
mod problem;
mod source;
mod tar;
mod walk;
mod zip;

use std::io::{self, Read};

pub use open::{Archives, Object, Wanted, open};
pub use problem::Problem;
pub use source::OnRead;
pub use walk::{Member, MemberAction, MemberKind, ReadMember, Sink, walk};

/// Bytes that have to be looked at to tell an archive: a tar header is a block of 512.
pub const LOOK: usize = tar::BLOCK;

/// A kind of archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// zip.
    Zip,
    /// tar.
    Tar,
    /// gzip: of a tar archive, or of a single file.
    Gzip,
}

impl Kind {
    /// The kind of archive that begins with these bytes ([`LOOK`] of them, where there are as many).
    ///
    /// A preamble of a DICOM file may hold anything (PS3.10 7.1), the beginning of an archive too: the prefix `DICM` counts
    /// first.
    ///
    /// # Errors
    /// [`Problem::Unsupported`] for an archive of a kind that is not read.
    pub fn of(start: &[u8]) -> Result<Option<Self>, Problem> {
        if start.get(128..132) == Some(b"DICM") {
            return Ok(None);
        }
        Ok(match start {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Self::Zip),
            // The first volume of several, or what once was to become one.
            [b'P', b'K', 7, 8, b'P', b'K', ..] => return Err(Problem::Unsupported("multi-volume zip")),
            [0x1F, 0x8B, 8, ..] => Some(Self::Gzip),
            [b'7', b'z', 0xBC, 0xAF, 0x27, 0x1C, ..] => return Err(Problem::Unsupported("7-Zip")),
            [b'R', b'a', b'r', b'!', 0x1A, 7, ..] => return Err(Problem::Unsupported("RAR")),
            [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => return Err(Problem::Unsupported("xz")),
            [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', b'S', b'Y', ..] => {
                return Err(Problem::Unsupported("bzip2"));
            }
            [0x28, 0xB5, 0x2F, 0xFD, ..] => return Err(Problem::Unsupported("Zstandard")),
            _ if tar::is_header(start) => Some(Self::Tar),
            _ => None,
        })
    }

    /// As people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zip => "zip",
            Self::Tar => "tar",
            Self::Gzip => "gzip",
        }
    }
}

/// The bytes of a member on their way to a reader of headers.
pub trait MemberBytes: Read {
    /// Goes forward without looking, by a seek where the bytes stand in the file as they are; how far that was, less than
    /// asked only at the end.
    ///
    /// # Errors
    /// That of the file system, or a [`Problem`].
    fn pass(&mut self, count: u64) -> io::Result<u64>;
}

impl<S: source::SkipRead> MemberBytes for S {
    fn pass(&mut self, count: u64) -> io::Result<u64> {
        source::SkipRead::pass(self, count)
    }
}
