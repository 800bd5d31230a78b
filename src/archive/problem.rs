//! Reasons why an archive or a member cannot be read.

use std::io;

use super::limits::{MAX_MEMBERS, MAX_NAME, MAX_NESTING};

/// A fault in an archive or a member.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveProblem {
    /// The member is encrypted.
    #[error("the member is encrypted")]
    Encrypted,
    /// The compression method is not deflate.
    #[error("compression method {0} is not supported")]
    Method(u16),
    /// The kind of archive is known, and this module cannot read it.
    #[error("{0} archives are not supported")]
    Unsupported(&'static str),
    /// The archive is one of several volumes.
    #[error("the archive is one of several volumes")]
    MultiVolume,
    /// A sparse file in a tar archive. Its holes are left out, so its bytes do not lie there one
    /// after the other.
    #[error("sparse files in tar archives are not supported")]
    Sparse,
    /// A zip archive is read from its start, and the size of a stored member follows its data. So
    /// the end of the member is unknown.
    #[error("the size of the member follows its data and cannot be found")]
    NoSize,
    /// The archive ends too early.
    #[error("the archive ends too early")]
    Truncated,
    /// The archive contradicts itself.
    #[error("the archive is damaged: {0}")]
    Damaged(&'static str),
    /// The compressed data is damaged.
    #[error("the compressed data is damaged")]
    Deflate,
    /// The checksum in the archive differs from that of the bytes.
    #[error("the checksum of the member is wrong")]
    Checksum,
    /// Several members use the same bytes. Somebody made the archive to look larger than it is.
    #[error("its members together are larger than the archive")]
    Overlapping,
    /// The archive inflates to more bytes than [`limits`](super::limits) allow.
    #[error("it inflates to more bytes than any real archive")]
    Inflation,
    /// The archive has more members than [`MAX_MEMBERS`].
    #[error("more than {MAX_MEMBERS} members")]
    TooManyMembers,
    /// Archives are nested deeper than [`MAX_NESTING`].
    #[error("archives are nested more than {MAX_NESTING} deep")]
    NestedTooDeep,
    /// A name is empty, has a NUL in it or is longer than [`MAX_NAME`].
    #[error("the name is empty, contains NUL or has more than {MAX_NAME} bytes")]
    Name,
    /// There is no such member.
    #[error("the archive has no such member")]
    Missing,
    /// The system could not read the file.
    #[error("{0}")]
    Io(io::Error),
}

impl ArchiveProblem {
    /// A short, stable name for counting. Reports and the index contain it.
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

    /// Converts an error from a reader of this module.
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
            // flate2 reports damaged data with these kinds.
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Self::Deflate,
            _ => Self::Io(error),
        }
    }

    /// Converts to the error that readers of this module return.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            Self::Truncated => io::Error::new(io::ErrorKind::UnexpectedEof, self),
            problem => io::Error::new(io::ErrorKind::InvalidData, problem),
        }
    }
}

impl From<io::Error> for ArchiveProblem {
    fn from(error: io::Error) -> Self {
        Self::of(error)
    }
}
