//! From a file, a stream or a parsed data set to the record of an instance.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;

use dicom_dictionary_std::uids;

use crate::model::attribute::{ATTRIBUTES, AttributeId};
use crate::model::record::InstanceRecord;
use crate::model::uid::is_acceptable_uid;

use super::fault::Fault;
use super::neighbours::Neighbours;
use super::parsed::{Parsed, Verdict};
use super::tokenizer::{HeaderParser, Need};
use super::wanted::Wanted;

/// The first read of a file. 8 KiB hold nearly every header up to its last wanted element; reading more costs more
/// (4 KiB: 165,000 files/s, 8: 142,000, 16: 123,000, 64: 111,000, warm).
pub(super) const FIRST_READ: usize = 8 << 10;

/// Further reads, of files with long headers.
const NEXT_READ: usize = 64 << 10;

/// What an object turned out to be.
#[derive(Debug)]
pub enum Outcome {
    /// An instance; [`InstanceRecord::faults`] says what is wrong with it.
    Instance(Box<InstanceRecord>),
    /// A DICOM object without one of the UIDs that identify an instance.
    Incomplete {
        /// The UIDs that it lacks.
        missing: Vec<AttributeId>,
    },
    /// A DICOMDIR (PS3.10 8.6).
    Dicomdir,
    /// Something else.
    NotDicom {
        /// What it is, or why it is not DICOM.
        reason: &'static str,
    },
    /// It is damaged before its UIDs.
    Damaged {
        /// The fault that ended reading.
        fault: Fault,
    },
    /// It could not be read: the file system's or the stream's fault, not the object's.
    Unreadable {
        /// What went wrong.
        error: io::Error,
    },
}

/// The attributes without which there is no instance to index (PS3.4 C.6.1.1: the unique keys below the patient; and
/// the class, without which no peer can be offered it).
pub(super) const IDENTIFYING: [AttributeId; 4] = [
    AttributeId::StudyInstanceUID,
    AttributeId::SeriesInstanceUID,
    AttributeId::SOPInstanceUID,
    AttributeId::SOPClassUID,
];

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

impl Outcome {
    /// What an object is whose header was parsed with [`Wanted::index`] or [`Wanted::with_declared`].
    #[must_use]
    pub fn of(mut parsed: Parsed) -> Self {
        Self::decoded(&mut parsed)
    }

    pub(super) fn decoded(parsed: &mut Parsed) -> Self {
        match parsed.verdict() {
            Verdict::Object => {}
            Verdict::Dicomdir => return Self::Dicomdir,
            Verdict::NotDicom(reason) => return Self::NotDicom { reason },
        }
        let mut record = Box::new(InstanceRecord::new());
        parsed.decode(|slot, push| {
            if let Some(attribute) = ATTRIBUTES.get(usize::from(slot)) {
                record.set_with(attribute.id, |text| push(text));
            }
        });
        // Without file meta information the data set tells. As a file that it is received as, it would be no instance.
        if record.value(AttributeId::SOPClassUID) == uids::MEDIA_STORAGE_DIRECTORY_STORAGE {
            return Self::Dicomdir;
        }
        if parsed.declared.is_some() {
            record.note_declared();
        }
        parsed.decode_declared(|unit, push| record.set_declared_with(unit, |text| push(text)));
        record.set(AttributeId::AvailableTransferSyntaxUID, parsed.transfer_syntax());
        for fault in parsed.faults() {
            record.add_fault(fault.coded());
        }
        let from_meta = [
            (AttributeId::SOPClassUID, parsed.media_storage_sop_class_uid()),
            (AttributeId::SOPInstanceUID, parsed.media_storage_sop_instance_uid()),
        ];
        for (id, uid) in from_meta {
            if record.value(id).is_empty() && !uid.is_empty() {
                record.set(id, uid);
                record.add_fault(Fault::UidFromMeta { tag: id.attribute().tag }.coded());
            }
        }
        let missing: Vec<_> = IDENTIFYING.into_iter().filter(|id| !is_acceptable_uid(record.value(*id))).collect();
        if missing.is_empty() {
            record.shrink_to_fit();
            return Self::Instance(record);
        }
        match parsed.faults().iter().find(|fault| fault.ended_reading()) {
            Some(fault) => Self::Damaged { fault: *fault },
            None => Self::Incomplete { missing },
        }
    }
}
