//! Opening one member.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::limits::{MAX_MEMBERS, MAX_NESTING, inflated_limit};
use super::problem::Problem;
use super::source::{Ahead, Budget, Checked, Forward, Inflate, Limited, Metered, Streamed, Window, WindowReader};
use super::tar::{self, EntryKind};
use super::zip::{self, Directory};
use super::{Kind, LOOK, name};

const BUFFER: usize = 64 << 10;

/// The bytes of a member, from the first to the last.
///
/// Reading fails at the end where the archive states another size or checksum.
pub struct Object {
    reader: Box<dyn Read + Send>,
    length: Option<u64>,
}

impl Object {
    /// A file as it is.
    ///
    /// # Errors
    /// When the system does not say how long it is.
    pub fn of_file(file: File) -> io::Result<Self> {
        let window = Window::whole(file, Arc::new(|_| ()))?;
        let length = window.length();
        let reader = Checked::new(WindowReader::new(window), length, None);
        Ok(Self { reader: Box::new(reader), length: Some(length) })
    }

    /// How many bytes there are, where the archive says so before them.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.length
    }
}

impl Read for Object {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Opens a member of an archive file by its path, as [`walk`](super::walk()) has given it.
///
/// What it costs: for a zip archive, reading its central directory up to the member; for tar, the headers up to it; for what
/// lies in something compressed, inflating all that precedes it there.
///
/// # Errors
/// [`Problem::Missing`] where there is no such member (any more), and whatever else prevents it.
pub fn open(file: File, member: &OsStr) -> Result<Object, Problem> {
    let names = name::split(member.as_bytes());
    if names.len() > MAX_NESTING {
        return Err(Problem::NestedTooDeep);
    }
    let window = Window::whole(file, Arc::new(|_| ()))?;
    let budget = Budget::new(inflated_limit(window.length()));
    let mut found = Found { length: Some(window.length()), bytes: Bytes::Window(window), checksum: None };
    for (depth, name) in names.iter().enumerate() {
        // The file itself is an archive, or was one when it was indexed: one that nothing at its start tells is a zip archive
        // behind a program that unpacks it.
        let otherwise = (depth == 0).then_some(Kind::Zip);
        found = step(found.bytes, otherwise, name, &budget)?;
    }
    let Found { bytes, length, checksum } = found;
    let reader: Box<dyn Read + Send> = match bytes {
        Bytes::Window(window) => Box::new(WindowReader::new(window)),
        Bytes::Stream(stream) => stream,
    };
    Ok(match length {
        Some(length) => Object { reader: Box::new(Checked::new(reader, length, checksum)), length: Some(length) },
        None => Object { reader, length: None },
    })
}

enum Bytes {
    Window(Window),
    Stream(Box<dyn Forward>),
}

struct Found {
    bytes: Bytes,
    length: Option<u64>,
    checksum: Option<u32>,
}

/// From an archive to a member of it. `otherwise` is what it is if its first bytes do not tell.
fn step(archive: Bytes, otherwise: Option<Kind>, name: &[u8], budget: &Budget) -> Result<Found, Problem> {
    match archive {
        Bytes::Window(window) => {
            let mut start = [0; LOOK];
            let read = window.read_at(&mut start, 0)?;
            match Kind::of(start.get(..read).unwrap_or_default())?.or(otherwise) {
                Some(Kind::Zip) => match Directory::find(&window)? {
                    Some(directory) => in_zip(directory, name, budget),
                    None => in_zip_stream(Box::new(WindowReader::new(window)), name, budget),
                },
                Some(Kind::Tar) => in_tar(Box::new(WindowReader::new(window)), name),
                Some(Kind::Gzip) => in_gzip(Box::new(WindowReader::new(window)), name, budget),
                None => Err(Problem::Missing),
            }
        }
        Bytes::Stream(stream) => {
            let ahead = Ahead::look(stream, LOOK)?;
            match Kind::of(ahead.head())? {
                Some(Kind::Zip) => in_zip_stream(Box::new(ahead), name, budget),
                Some(Kind::Tar) => in_tar(Box::new(ahead), name),
                Some(Kind::Gzip) => in_gzip(Box::new(ahead), name, budget),
                None => Err(Problem::Missing),
            }
        }
    }
}

fn in_zip(mut directory: Directory, name: &[u8], budget: &Budget) -> Result<Found, Problem> {
    for _ in 0..=MAX_MEMBERS {
        let Some(entry) = directory.next()? else { break };
        if entry.name != name {
            continue;
        }
        entry.check()?;
        let mut header = [0; zip::LOCAL_HEADER];
        let (window, ..) = directory.data(&entry, &mut header)?;
        let bytes = match entry.method {
            zip::STORED => Bytes::Window(window),
            _ => Bytes::Stream(inflated(WindowReader::new(window), budget)),
        };
        return Ok(Found { bytes, length: Some(entry.size), checksum: Some(entry.checksum) });
    }
    Err(Problem::Missing)
}

fn in_zip_stream(mut source: Box<dyn Forward>, name: &[u8], budget: &Budget) -> Result<Found, Problem> {
    for _ in 0..=MAX_MEMBERS {
        let Some(entry) = zip::next_local(&mut source)? else { break };
        let after = entry.is_described_after();
        if after && entry.method != zip::DEFLATED {
            return Err(Problem::NoSize);
        }
        if entry.name == name {
            entry.check()?;
            let data = Limited::new(source, if after { u64::MAX } else { entry.compressed });
            let stream = match entry.method {
                zip::STORED => Box::new(data),
                _ => inflated(data, budget),
            };
            let known = (!after).then_some(());
            return Ok(Found {
                bytes: Bytes::Stream(stream),
                length: known.map(|()| entry.size),
                checksum: known.map(|()| entry.checksum),
            });
        }
        if after {
            Forward::pass(&mut inflated(&mut source, budget), u64::MAX)?;
        } else if source.pass(entry.compressed)? < entry.compressed {
            return Err(Problem::Truncated);
        }
        if entry.has_descriptor() {
            zip::pass_descriptor(&mut source)?;
        }
    }
    Err(Problem::Missing)
}

fn inflated<'a>(source: impl Forward + 'a, budget: &Budget) -> Box<dyn Forward + 'a> {
    let inflate = Inflate::new(source, None, budget.clone());
    Box::new(Streamed(BufReader::with_capacity(BUFFER, inflate)))
}

fn in_tar(mut source: Box<dyn Forward>, name: &[u8]) -> Result<Found, Problem> {
    for _ in 0..=MAX_MEMBERS {
        let Some(entry) = tar::next(&mut source)? else { break };
        if entry.kind == EntryKind::File && entry.name == name {
            let bytes = match source.window(entry.size) {
                Some(window) => Bytes::Window(window),
                None => Bytes::Stream(Box::new(Limited::new(source, entry.size))),
            };
            return Ok(Found { bytes, length: Some(entry.size), checksum: None });
        }
        if source.pass(entry.padded())? < entry.padded() {
            return Err(Problem::Truncated);
        }
    }
    Err(Problem::Missing)
}

fn in_gzip(source: Box<dyn Forward>, name: &[u8], budget: &Budget) -> Result<Found, Problem> {
    let metered = Metered { inner: MultiGzDecoder::new(source), budget: budget.clone() };
    let ahead = Ahead::look(Streamed(BufReader::with_capacity(BUFFER, metered)), LOOK)?;
    if tar::is_header(ahead.head()) {
        return in_tar(Box::new(ahead), name);
    }
    Ok(Found { bytes: Bytes::Stream(Box::new(ahead)), length: None, checksum: None })
}
