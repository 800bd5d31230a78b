//! From a file, a stream or a parsed data set to the record of an instance.

use crate::ingest::Outcome;
use crate::ingest::limits::FIRST_READ;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;

use super::neighbours::Neighbours;
use super::parsed::Parsed;
use super::tokenizer::{HeaderParser, Need};
use super::wanted::Wanted;

/// Further reads, of files with long headers.
const NEXT_READ: usize = 64 << 10;

/// Reads the header of a file ([`Wanted::index`] or more), with positioned reads of what is needed of it and no more.
#[must_use]
pub fn read_file(file: &File, wanted: &Wanted) -> Outcome {
    with_neighbours(|neighbours| {
        let mut parser = HeaderParser::for_file_with(wanted, neighbours.spare());
        match feed_file(file, &mut parser, neighbours.buffer()) {
            Ok(()) => neighbours.outcome(parser.finish()),
            Err(error) => Outcome::Unreadable { error },
        }
    })
}

thread_local! {
    /// The objects that this thread read before: mostly the next one is of the same series. What comes of an object does
    /// not depend on them, only how long it takes.
    static NEIGHBOURS: Cell<Option<Box<Neighbours>>> = const { Cell::new(None) };
}

fn with_neighbours(work: impl FnOnce(&mut Neighbours) -> Outcome) -> Outcome {
    // Taken out: should reading panic, they are lost and cannot be half of what they were.
    let mut neighbours = NEIGHBOURS.take().unwrap_or_default();
    let outcome = work(&mut neighbours);
    NEIGHBOURS.set(Some(neighbours));
    outcome
}

fn feed_file(file: &File, parser: &mut HeaderParser<'_>, first: &mut [u8; FIRST_READ]) -> io::Result<()> {
    let read = read_at(file, first, 0)?;
    let mut need = parser.feed(first.get(..read).unwrap_or_default());
    let mut offset = read as u64;
    let mut next = Vec::new();
    loop {
        match need {
            Need::Done => return Ok(()),
            Need::More => {}
            Need::Skip(length) => {
                // Not past the end: a file that ends before what it declares is known to be cut.
                let left = file.metadata()?.len().saturating_sub(offset);
                parser.skipped(length.min(left));
                offset += length.min(left);
            }
        }
        next.resize(NEXT_READ, 0);
        let read = read_at(file, &mut next, offset)?;
        if read == 0 {
            return Ok(());
        }
        offset += read as u64;
        need = parser.feed(next.get(..read).unwrap_or_default());
    }
}

thread_local! {
    static BYTES_READ: Cell<u64> = const { Cell::new(0) };
}

/// The bytes that this thread has read from files since the last call.
pub fn take_bytes_read() -> u64 {
    BYTES_READ.take()
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => {
                BYTES_READ.set(BYTES_READ.get() + result.as_ref().map_or(0, |read| *read as u64));
                return result;
            }
        }
    }
}

/// Reads the header of an object from a stream. What follows the header is not read.
#[must_use]
pub fn read_stream(mut stream: impl Read, wanted: &Wanted) -> Outcome {
    read_stream_with(&mut stream, wanted, |_, _| Ok(0))
}

/// As [`read_stream`], where bytes can be passed over (a member of an archive): `pass` goes forward by as many bytes as it
/// is told, or fewer, and says by how many.
#[must_use]
pub fn read_stream_with<R: Read + ?Sized>(
    stream: &mut R,
    wanted: &Wanted,
    pass: impl FnMut(&mut R, u64) -> io::Result<u64>,
) -> Outcome {
    match parse_stream(stream, wanted, pass) {
        Ok(parsed) => with_neighbours(|neighbours| neighbours.outcome(parsed)),
        Err(error) => Outcome::Unreadable { error },
    }
}

/// The header of an object in a stream; `pass` as for [`read_stream_with`].
pub(crate) fn parse_stream<R: Read + ?Sized>(
    stream: &mut R,
    wanted: &Wanted,
    mut pass: impl FnMut(&mut R, u64) -> io::Result<u64>,
) -> io::Result<Parsed> {
    let mut parser = HeaderParser::for_file(wanted);
    let mut buffer = [0; FIRST_READ];
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match parser.feed(buffer.get(..read).unwrap_or_default()) {
            Need::Done => break,
            Need::More => {}
            Need::Skip(length) => parser.skipped(pass(stream, length)?),
        }
    }
    Ok(parser.finish())
}
