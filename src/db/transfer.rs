//! Copies an index from one engine to another (docs/sites.md).

use std::path::Path;

use fail::fail_point;

use super::contents::Contents;
use super::open::{WriterOptions, only_file_of};
use super::pieces::{ContentsSum, OnPiece};
use super::postgres::{PostgresAddress, PostgresCopy, PostgresReader};
use super::sqlite::{SqliteCopy, SqliteReader};
use super::{Admin as _, Error, IndexStatus};

/// What was copied.
#[derive(Debug)]
pub struct CopiedIndex {
    /// The copy in numbers.
    pub status: IndexStatus,
    /// What it does not have, in words.
    pub left_behind: Vec<&'static str>,
}

/// Copies an index to another engine as it is at one moment, while others write it. The copy is
/// read again, and counts only if it has all that was copied.
///
/// After a kill the copy is refused by each program, until it is made again or dropped.
///
/// # Errors
/// [`Error::HasContent`] if the target is not empty, [`Error::OtherCopy`] if the copy is not the
/// same, [`Error::NotCopied`], and those of both engines.
pub fn copy_to_engine(from: &Path, to: &Path, options: WriterOptions) -> Result<CopiedIndex, Error> {
    let mut source = IndexSource::open(from)?;
    // What is refused makes no target.
    source.left_behind()?;
    // A test changes the index here.
    fail_point!(&format!("copy {}", from.display()));
    let mut target = IndexTarget::create(to, options)?;
    let mut copied = ContentsSum::default();
    let left_behind = source.give(&mut |piece| {
        copied.add(&piece);
        target.put(piece)
    })?;
    let mut written = ContentsSum::default();
    target.each_piece(&mut |piece| {
        written.add(&piece);
        Ok(())
    })?;
    let different = |detail: String| Error::OtherCopy { path: to.to_owned(), detail };
    if written != copied {
        return Err(different(format!("{written}, and not {copied}")));
    }
    let (status, findings) = target.status()?;
    if findings > 0 {
        return Err(different(format!("{findings} rows disagree")));
    }
    target.finish()?;
    Ok(CopiedIndex { status, left_behind })
}

enum IndexSource {
    Sqlite(Box<SqliteReader>),
    Postgres(Box<PostgresReader>),
}

impl IndexSource {
    fn open(index: &Path) -> Result<Self, Error> {
        Ok(match PostgresAddress::of(index)? {
            Some(address) => Self::Postgres(Box::new(PostgresReader::open(&address)?)),
            None => Self::Sqlite(Box::new(SqliteReader::open(&only_file_of(index, "a copy in a database")?)?)),
        })
    }

    fn left_behind(&mut self) -> Result<Vec<&'static str>, Error> {
        match self {
            Self::Sqlite(reader) => reader.left_behind(),
            Self::Postgres(reader) => reader.left_behind(),
        }
    }

    /// Gives away the index as it is at one moment. Returns what the copy lacks.
    fn give(&mut self, on_piece: OnPiece<'_>) -> Result<Vec<&'static str>, Error> {
        match self {
            Self::Sqlite(reader) => reader.give(on_piece),
            Self::Postgres(reader) => reader.give(on_piece),
        }
    }
}

enum IndexTarget {
    Sqlite(SqliteCopy),
    Postgres(Box<PostgresCopy>),
}

impl IndexTarget {
    fn create(index: &Path, options: WriterOptions) -> Result<Self, Error> {
        Ok(match PostgresAddress::of(index)? {
            Some(address) => Self::Postgres(Box::new(PostgresCopy::create(&address)?)),
            None => Self::Sqlite(SqliteCopy::create(index, options)?),
        })
    }

    fn put(&mut self, piece: Contents) -> Result<(), Error> {
        match self {
            Self::Sqlite(copy) => copy.put(piece),
            Self::Postgres(copy) => copy.put(&piece),
        }
    }

    fn each_piece(&mut self, on_piece: OnPiece<'_>) -> Result<(), Error> {
        match self {
            Self::Sqlite(copy) => copy.reader()?.each_piece(on_piece),
            Self::Postgres(copy) => copy.each_piece(on_piece),
        }
    }

    /// What the copy has in numbers, and how many of its rows disagree.
    fn status(&mut self) -> Result<(IndexStatus, usize), Error> {
        match self {
            Self::Sqlite(copy) => {
                let mut reader = copy.reader()?;
                Ok((reader.status()?, reader.check()?.findings.len()))
            }
            Self::Postgres(copy) => copy.status(),
        }
    }

    fn finish(self) -> Result<(), Error> {
        match self {
            Self::Sqlite(copy) => copy.finish(),
            Self::Postgres(copy) => copy.finish(),
        }
    }
}
