//! Reads a file, a stream or a parsed data set and makes the record of an instance.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;

use super::delta::DeltaParser;
use super::parsed::Parsed;
use super::tokenizer::{HeaderParser, Need};
use super::wanted::Wanted;
use crate::ingest::Outcome;
use crate::ingest::limits::FIRST_READ;

/// Bytes of each further read of a file with a long header.
const NEXT_READ: usize = 64 << 10;

/// Reads the header of a file ([`Wanted::index`] or more). It uses positioned reads and reads only
/// the needed parts.
#[must_use]
pub fn read_file(file: &File, wanted: &Wanted) -> Outcome {
    read_file_of_length(file, u64::MAX, wanted)
}

/// Works as [`read_file`], and says if a file of this many bytes ends too early, as far as this is
/// known without reading more.
#[must_use]
pub fn read_file_of_length(file: &File, length: u64, wanted: &Wanted) -> Outcome {
    with_delta(|delta| {
        let mut parser = HeaderParser::for_file_with(wanted, delta.spare()).looking_behind();
        match feed_file(file, &mut parser, delta.buffer()) {
            Ok(()) => {
                let mut parsed = parser.finish();
                parsed.note_length(length);
                delta.outcome(parsed)
            }
            Err(error) => Outcome::Unreadable { error },
        }
    })
}

thread_local! {
    /// Objects that this thread read before. The next object is mostly of the same series. They
    /// affect only the speed, never the result: 100,000 files took 1.75 s of processor time with
    /// them and 2.20 s without (86665501).
    static DELTA: Cell<Option<Box<DeltaParser>>> = const { Cell::new(None) };
}

fn with_delta(work: impl FnOnce(&mut DeltaParser) -> Outcome) -> Outcome {
    // The value is taken out. If reading panics, it is lost and cannot stay half changed.
    let mut delta = DELTA.take().unwrap_or_default();
    let outcome = work(&mut delta);
    DELTA.set(Some(delta));
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
                // Never skip past the end. So a file that ends too early is recognised as
                // truncated.
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
    /// Bytes that this thread has read from files. Readers are deep below the thread that limits
    /// the rate, and archives have readers of their own on the way.
    static BYTES_READ: Cell<u64> = const { Cell::new(0) };
}

/// Returns the number of bytes that this thread has read from files since the last call.
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

/// Reads the header of an object from a stream. Bytes after the header are not read.
#[must_use]
pub fn read_stream(mut stream: impl Read, wanted: &Wanted) -> Outcome {
    read_stream_with(&mut stream, u64::MAX, wanted, |_, _| Ok(0))
}

/// Works as [`read_stream`], for streams that can skip bytes (a member of an archive). `pass` skips
/// up to the given number of bytes and returns how many it skipped. `length` is the stated length
/// of the stream, and `u64::MAX` if none is stated: see [`read_file_of_length`].
///
/// A gzip file states only the length of its last member. So if the object seems to end too early,
/// the stream is read to its end.
#[must_use]
pub fn read_stream_with<R: Read + ?Sized>(
    stream: &mut R,
    length: u64,
    wanted: &Wanted,
    mut pass: impl FnMut(&mut R, u64) -> io::Result<u64>,
) -> Outcome {
    match feed_stream(stream, HeaderParser::for_file(wanted).looking_behind(), &mut pass) {
        Ok((mut parsed, read)) => {
            let rest = parsed.end_fault(length).and_then(|_| pass(stream, u64::MAX).ok());
            parsed.note_length(rest.map_or(length, |rest| read.saturating_add(rest)));
            with_delta(|delta| delta.outcome(parsed))
        }
        Err(error) => Outcome::Unreadable { error },
    }
}

/// Parses the header of an object in a stream. `pass` works as in [`read_stream_with`].
pub(crate) fn parse_stream<R: Read + ?Sized>(
    stream: &mut R,
    wanted: &Wanted,
    pass: impl FnMut(&mut R, u64) -> io::Result<u64>,
) -> io::Result<Parsed> {
    feed_stream(stream, HeaderParser::for_file(wanted), pass).map(|(parsed, _)| parsed)
}

/// Feeds a parser. Returns the number of bytes that were taken from the stream as well.
fn feed_stream<R: Read + ?Sized>(
    stream: &mut R,
    mut parser: HeaderParser<'_>,
    mut pass: impl FnMut(&mut R, u64) -> io::Result<u64>,
) -> io::Result<(Parsed, u64)> {
    let mut buffer = [0; FIRST_READ];
    let mut taken = 0;
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        taken += read as u64;
        match parser.feed(buffer.get(..read).unwrap_or_default()) {
            Need::Done => break,
            Need::More => {}
            Need::Skip(length) => {
                let passed = pass(stream, length)?;
                taken += passed;
                parser.skipped(passed);
            }
        }
    }
    Ok((parser.finish(), taken))
}
