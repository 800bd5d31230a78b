//! Why an archive or a member of it is not read.

use std::io;

use super::limits::{MAX_MEMBERS, MAX_NAME, MAX_NESTING};

/// What is wrong with an archive or a member.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The member is encrypted.
    #[error("the member is encrypted")]
    Encrypted,
    /// The member is compressed by a method other than deflate.
    #[error("compression method {0} is not supported")]
    Method(u16),
    /// A kind of archive that is known and not read.
    #[error("{0} archives are not supported")]
    Unsupported(&'static str),
    /// One of several volumes.
    #[error("one volume of several")]
    MultiVolume,
    /// A sparse file of a tar archive, whose bytes do not stand there as they are.
    #[error("sparse files in tar archives are not supported")]
    Sparse,
    /// A member of a zip archive that is read from its start, where only the end tells how long the member is.
    #[error("the size of the member stands behind it, where it cannot be found")]
    NoSize,
    /// It ends too early.
    #[error("the archive ends too early")]
    Truncated,
    /// It contradicts itself.
    #[error("the archive is damaged: {0}")]
    Damaged(&'static str),
    /// The compressed data is damaged.
    #[error("the compressed data is damaged")]
    Deflate,
    /// The bytes are not those whose checksum the archive holds.
    #[error("the checksum of the member does not hold")]
    Checksum,
    /// Members lie in the same bytes: an archive made to look larger than anything.
    #[error("its members are larger together than the archive")]
    Overlapping,
    /// More comes out by inflating than any real archive holds.
    #[error("it inflates to more than any real archive")]
    Inflation,
    /// More members than [`MAX_MEMBERS`].
    #[error("more than {MAX_MEMBERS} members")]
    TooManyMembers,
    /// Archives deeper in each other than [`MAX_NESTING`].
    #[error("archives lie in each other more than {MAX_NESTING} deep")]
    NestedTooDeep,
    /// A name that is empty, has a NUL in it or is longer than [`MAX_NAME`].
    #[error("a name that is empty, has a NUL in it or more than {MAX_NAME} bytes")]
    Name,
    /// There is no such member.
    #[error("the archive has no such member")]
    Missing,
    /// The system could not read the file.
    #[error("{0}")]
    Io(io::Error),
}

impl Problem {
    /// A stable word for counting; part of the interface of reports and of the index.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Encrypted => "archive-encrypted",
            Self::Method(_) => "archive-method",
            Self::Unsupported(_) => "archive-unsupported",
            Self::MultiVolume => "archive-multi-volume",
            Self::Sparse => "archive-sparse",
            Self::NoSize => "archive-no-size",
            Self::Truncated => "archive-truncated",
            Self::Damaged(_) | Self::Deflate | Self::Checksum | Self::Missing => "archive-damaged",
            Self::Overlapping => "archive-overlapping",
            Self::Inflation => "archive-inflates-too-far",
            Self::TooManyMembers => "archive-too-many-members",
            Self::NestedTooDeep => "archive-nested-too-deep",
            Self::Name => "archive-name",
            Self::Io(_) => "unreadable",
        }
    }

    /// What an error of a reader of this module means.
    #[must_use]
    pub fn of(error: io::Error) -> Self {
        if error.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            return match error.into_inner().map(|inner| inner.downcast::<Self>()) {
                Some(Ok(problem)) => *problem,
                Some(Err(_)) | None => Self::Damaged("unknown error"),
            };
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            // What flate2 says of compressed data.
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Self::Deflate,
            _ => Self::Io(error),
        }
    }

    /// The error of a reader of this module.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            Self::Truncated => io::Error::new(io::ErrorKind::UnexpectedEof, self),
            problem => io::Error::new(io::ErrorKind::InvalidData, problem),
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::of(error)
    }
}
