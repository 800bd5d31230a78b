//! The header reader: it takes the bytes of an object and yields wanted elements.
//!
//! The same tokenizer reads files, archive members, and data sets that arrive PDV by PDV. Its input
//! comes in slices of any size. It copies only wanted values, says what may be skipped, and stops
//! after the last wanted element. It has no recursion. It takes no memory for a length that is only
//! declared.
//!
//! It reads everything that real archives hold: all uncompressed encodings (PS3.5 7, annex A),
//! deflated, and encapsulated. Preamble and File Meta Information (PS3.10 7.1) may be missing. The
//! transfer syntax may differ from the declared one. Damaged objects are read up to the damage, and
//! past it if that is safe. Each [`Fault`] is recorded.

use std::mem;

use dicom_core::VR;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_dictionary_std::StandardDataDictionary;
use flate2::{Decompress, FlushDecompress, Status};

use super::fault::{Fault, Faults};
use super::json;
use super::limits::{MAX_DEPTH, MAX_HEADER, MAX_INFLATED, MAX_META_VALUE, MAX_VALUE, MAX_VALUES};
use super::parsed::{Parsed, RawValue, Verdict};
use crate::encoding::header::{ElementHeader, read_plain, read_plain_in, tag_at, u32_of};
use crate::encoding::syntax;
use crate::encoding::tag::{DELIMITER_GROUP, ITEM, ITEM_DELIMITER, SEQUENCE_DELIMITER, UNDEFINED, tag_of};
use crate::encoding::vr::{self, Form};
use crate::ingest::parsed::Spare;
use crate::ingest::wanted::{ALL_IDENTIFYING, Element, Role, Wanted};

mod nested;
mod sniff;
mod state;

use sniff::Going;
use state::*;

const DIRECTORY_GROUP: u32 = 0x0004;
const PIXEL_DATA_GROUP: u32 = 0x7FE0;
const NO_END: u64 = u64::MAX;

const MEDIA_STORAGE_DIRECTORY: &str = dicom_dictionary_std::uids::MEDIA_STORAGE_DIRECTORY_STORAGE;

const PREAMBLE: usize = 128;
const PREFIX: &[u8; 4] = b"DICM";

/// Bytes of a new slice that are added to an unfinished header of the slice before.
const CARRY_STEP: usize = 64;

/// Initial capacity for wanted values. It suffices for most headers, so that the buffer is not
/// moved while it grows.
const RAW_CAPACITY: usize = 2 << 10;
const VALUES_CAPACITY: usize = 64;

/// Input of one call of the inflater. On damaged input the inflater drops output that it still
/// buffers. We feed so few bytes that their largest expansion (1,032 times) always fits the output.
const DEFLATED_STEP: usize = 16;

/// Output of one call of the inflater.
const INFLATE_CHUNK: usize = 32 << 10;

/// The next request of a [`HeaderParser`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It needs the following bytes.
    More,
    /// It does not need this many of the next bytes. The caller may skip them and report it by
    /// [`HeaderParser::skipped`], or feed them like any others.
    Skip(u64),
    /// It needs nothing more and ignores all following bytes.
    Done,
}

/// The rest of a value that was not complete in the slice.
#[derive(Debug, Clone, Copy)]
enum ValueRest {
    None,
    Skip(u64),
    /// A wanted value of the root, or a value in a wanted sequence.
    Collect(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameKind {
    Sequence,
    Item,
    /// Items without elements: encapsulated pixel data of an icon.
    Fragments,
}

/// An open sequence or item.
#[derive(Debug, Clone, Copy)]
struct OpenItem {
    kind: FrameKind,
    /// Offset of the first byte after it. With undefined length it is the end of the enclosing item
    /// or sequence, or [`NO_END`] at the root.
    end: u64,
    /// Its own length is defined. So its end is known, whatever it contains.
    defined: bool,
    /// Encoding of its content.
    syntax: Syntax,
    /// Its first element has not been examined yet. If that element is in the other VR encoding,
    /// the whole item is.
    unsure: bool,
    /// Tag of the sequence.
    tag: u32,
}

/// A wanted value that is not yet complete.
#[derive(Debug, Clone, Copy)]
struct Collecting {
    element: Element,
    tag: u32,
    vr: VR,
    big: bool,
    start: usize,
}

/// Result of one step of the tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Continue,
    /// The slice ends inside something that must be complete, or the state takes no more bytes.
    More,
}

/// Reads the header of one object from bytes that it is fed.
///
/// ```
/// use dcmdex::ingest::{HeaderParser, Need, Wanted};
/// use dicom_core::{Tag, VR};
///
/// let wanted = Wanted::new([(Tag(0x0010, 0x0020), VR::LO)]);
/// let mut parser = HeaderParser::for_data_set(&wanted, "1.2.840.10008.1.2.1");
/// assert_eq!(parser.feed(b"\x10\x00\x20\x00LO\x04\x00AB"), Need::More);
/// parser.feed(b"C ");
/// assert_eq!(parser.finish().text(0).as_deref(), Some("ABC"));
/// ```
#[derive(Debug)]
pub struct HeaderParser<'w> {
    core: Core<'w>,
    inflater: Option<Box<Inflater>>,
}

impl<'w> HeaderParser<'w> {
    /// Creates a parser for an object in a file (PS3.10). It starts with the preamble, or with the
    /// object if there is none.
    #[must_use]
    pub fn for_file(wanted: &'w Wanted) -> Self {
        Self::for_file_with(wanted, Spare::default())
    }

    /// Works as [`Self::for_file`], with the memory of an earlier parser.
    pub(super) fn for_file_with(wanted: &'w Wanted, spare: Spare) -> Self {
        Self { core: Core::new(wanted, State::Start, spare), inflater: None }
    }

    /// Creates a parser for a data set alone, as it arrives in a C-STORE. `transfer_syntax` is that
    /// of its presentation context.
    #[must_use]
    pub fn for_data_set(wanted: &'w Wanted, transfer_syntax: &str) -> Self {
        let mut core = Core::new(wanted, State::DataSetStart, Spare::default());
        core.declared.push_str(transfer_syntax.trim_end_matches(['\0', ' ']));
        Self { core, inflater: None }
    }

    /// Takes the next bytes of the object.
    pub fn feed(&mut self, bytes: &[u8]) -> Need {
        self.take(bytes, false);
        match (self.core.state, self.core.body) {
            (State::Done, _) => Need::Done,
            (_, ValueRest::Skip(length)) if self.inflater.is_none() => Need::Skip(length),
            _ => Need::More,
        }
    }

    /// Reports that the caller skipped the next `count` bytes of the stream. [`Need::Skip`] must
    /// have asked for as many or more.
    pub fn skipped(&mut self, count: u64) {
        if let ValueRest::Skip(length) = self.core.body
            && self.inflater.is_none()
        {
            let count = count.min(length);
            self.core.offset += count;
            self.core.passed += count;
            self.core.body = if length == count { ValueRest::None } else { ValueRest::Skip(length - count) };
        }
    }

    /// Ends the object, or the part of it that the caller has. Returns the result.
    #[must_use]
    pub fn finish(mut self) -> Parsed {
        self.take(&[], true);
        let cut = self.inflater.as_ref().is_some_and(|inflater| !inflater.ended);
        self.core.close(cut)
    }

    fn take(&mut self, bytes: &[u8], end: bool) {
        if self.inflater.is_none() {
            let rest = self.core.take(bytes, end);
            if self.core.state != State::Deflated {
                return;
            }
            let head = self.core.begin_inflated();
            self.inflater = Some(Box::new(Inflater::new()));
            self.inflate(&head);
            self.inflate(rest);
        } else {
            self.inflate(bytes);
        }
        if end {
            self.core.take(&[], true);
        }
    }

    fn inflate(&mut self, mut bytes: &[u8]) {
        let Some(inflater) = &mut self.inflater else { return };
        while self.core.state != State::Done && !inflater.ended {
            let before = inflater.stream.total_out();
            let at_end = bytes.is_empty();
            let (inflated, intact) = inflater.next(&mut bytes);
            if inflated.is_empty() && at_end {
                return;
            }
            let left = usize::try_from(MAX_INFLATED.saturating_sub(before)).unwrap_or(usize::MAX);
            let is_too_long = inflated.len() > left;
            self.core.take(inflated.get(..left).unwrap_or(inflated), false);
            if self.core.state == State::Done {
                return;
            }
            if is_too_long {
                self.core.stop(Fault::InflatedTooLong);
            } else if intact.is_err() {
                self.core.stop(Fault::Deflate);
            }
        }
    }
}

/// Decodes the deflated encoding (PS3.5 A.5).
#[derive(Debug)]
struct Inflater {
    stream: Decompress,
    out: Vec<u8>,
    ended: bool,
}

struct Damaged;

impl Inflater {
    fn new() -> Self {
        Self { stream: Decompress::new(false), out: vec![0; INFLATE_CHUNK], ended: false }
    }

    /// Inflates the next few bytes. Returns the output and whether the input is intact. Without
    /// input, it returns the remaining output.
    fn next(&mut self, bytes: &mut &[u8]) -> (&[u8], Result<(), Damaged>) {
        // Some writers use a zlib stream, although PS3.5 A.5 means the raw one of RFC 1951. In a
        // raw stream, 78 as the first byte would begin a stored block. Compressors do not write a
        // data set like that.
        if self.stream.total_in() == 0 && bytes.first() == Some(&0x78) {
            self.stream = Decompress::new(true);
        }
        let (read, written) = (self.stream.total_in(), self.stream.total_out());
        let step = bytes.get(..DEFLATED_STEP).unwrap_or(bytes);
        let status = self.stream.decompress(step, &mut self.out, FlushDecompress::None);
        let read = usize::try_from(self.stream.total_in() - read).unwrap_or(usize::MAX);
        let written = usize::try_from(self.stream.total_out() - written).unwrap_or(0);
        *bytes = bytes.get(read..).unwrap_or_default();
        self.ended = matches!(status, Ok(Status::StreamEnd));
        let intact = match status {
            // A further try would give nothing either.
            Ok(_) if read == 0 && written == 0 && !step.is_empty() && !self.ended => Err(Damaged),
            Ok(_) => Ok(()),
            Err(_) => Err(Damaged),
        };
        (self.out.get(..written).unwrap_or_default(), intact)
    }
}

/// Tokenizer of uncompressed bytes.
#[derive(Debug)]
struct Core<'w> {
    wanted: &'w Wanted,
    state: State,
    body: ValueRest,
    /// Encoding of the root of the data set. Inside group 0002 it is the encoding of that group.
    syntax: Syntax,
    /// Offset of the current slice, from the start of the object or of the inflated data set.
    offset: u64,
    /// Number of bytes that were skipped.
    passed: u64,
    /// Unfinished header of the slice before.
    carry: Vec<u8>,
    frames: Vec<OpenItem>,
    /// Position in the wanted list. All tags before it are less than the last tag.
    cursor: usize,
    last_tag: u32,
    /// The wanted value that is being copied, or the wanted sequence that is being read.
    collecting: Option<Collecting>,
    raw: Vec<u8>,
    values: Vec<RawValue>,
    identified: u8,
    /// Some tags were not in ascending order, so an element may occur twice.
    unsorted: bool,
    declared: String,
    inflated: bool,
    meta: Meta,
    verdict: Verdict,
    faults: Faults,
    /// There was no prefix. Until a UID is found, every element must be beyond doubt.
    doubtful: bool,
    has_preamble: bool,
    /// Offset of the data set from the start of the object.
    data_set_offset: u64,
    /// Start and encoding of elements of the groups 0000 and 0002 before the data set.
    foreign: Option<(u64, Syntax)>,
}

#[derive(Debug, Default)]
struct Meta {
    present: bool,
    /// Offset at which group 0002 ends according to (0002,0000).
    end: Option<u64>,
    sop_class: String,
    sop_instance: String,
}

impl<'w> Core<'w> {
    fn new(wanted: &'w Wanted, state: State, spare: Spare) -> Self {
        let Spare { mut raw, mut values } = spare;
        raw.reserve(RAW_CAPACITY);
        values.reserve(VALUES_CAPACITY.min(wanted.elements.len()));
        Self {
            wanted,
            state,
            body: ValueRest::None,
            syntax: EXPLICIT_LE,
            offset: 0,
            passed: 0,
            carry: Vec::new(),
            frames: Vec::new(),
            cursor: 0,
            last_tag: 0,
            collecting: None,
            raw,
            values,
            identified: 0,
            unsorted: false,
            declared: String::new(),
            inflated: false,
            meta: Meta::default(),
            verdict: Verdict::Object,
            faults: Faults::default(),
            doubtful: false,
            has_preamble: false,
            data_set_offset: 0,
            foreign: None,
        }
    }

    // ---- input ---------------------------------------------------------------------------------

    /// Takes bytes. With `end`, no more follow. Returns the bytes that the state does not take.
    fn take<'a>(&mut self, mut bytes: &'a [u8], end: bool) -> &'a [u8] {
        while !self.carry.is_empty() && self.takes_bytes() {
            let mut carry = mem::take(&mut self.carry);
            let old = carry.len();
            let (step, after) = bytes.split_at(bytes.len().min(CARRY_STEP));
            carry.extend_from_slice(step);
            let used = self.run(&carry, end && after.is_empty());
            if used >= old {
                bytes = bytes.get(used - old..).unwrap_or_default();
                carry.clear();
                self.carry = carry;
            } else {
                carry.drain(..used);
                self.carry = carry;
                bytes = after;
                if bytes.is_empty() {
                    return bytes;
                }
            }
        }
        if !self.takes_bytes() {
            return bytes;
        }
        let used = self.run(bytes, end);
        let rest = bytes.get(used..).unwrap_or_default();
        if !self.takes_bytes() {
            return rest;
        }
        self.carry.extend_from_slice(rest);
        &[]
    }

    fn takes_bytes(&self) -> bool {
        !matches!(self.state, State::Done | State::Deflated)
    }

    /// Switches to the inflated data set. Returns the first bytes of the deflated one.
    fn begin_inflated(&mut self) -> Vec<u8> {
        self.state = State::DataSetStart;
        self.inflated = true;
        self.syntax = EXPLICIT_LE;
        self.offset = 0;
        self.passed = 0;
        mem::take(&mut self.carry)
    }

    /// Processes as much of `buf` as possible and returns its length. The rest must be passed again
    /// with more bytes.
    fn run(&mut self, buf: &[u8], end: bool) -> usize {
        let mut at = 0;
        while self.takes_bytes() {
            let rest = buf.get(at..).unwrap_or_default();
            match self.body {
                ValueRest::None => {}
                ValueRest::Skip(length) => {
                    let here = length.min(rest.len() as u64);
                    at += here as usize;
                    self.passed += here;
                    if here < length {
                        self.body = ValueRest::Skip(length - here);
                        break;
                    }
                    self.body = ValueRest::None;
                    continue;
                }
                ValueRest::Collect(length) => {
                    let here = rest.get(..length).unwrap_or(rest);
                    at += here.len();
                    self.raw.extend_from_slice(here);
                    if here.len() < length {
                        self.body = ValueRest::Collect(length - here.len());
                        break;
                    }
                    self.body = ValueRest::None;
                    if self.frames.is_empty() {
                        self.collected();
                        if !self.within_limit(at) {
                            break;
                        }
                    }
                    continue;
                }
            }
            let step = match self.state {
                State::Start => self.start(rest, &mut at, end),
                State::Meta => self.meta(rest, &mut at, end),
                State::DataSetStart => self.data_set_start(rest, &mut at, end),
                State::DataSet if !self.frames.is_empty() => self.nested(rest, &mut at, end),
                State::DataSet => match self.syntax {
                    Syntax { explicit: true, big: false } => self.root::<true, false>(buf, &mut at, end),
                    Syntax { explicit: false, big: false } => self.root::<false, false>(buf, &mut at, end),
                    Syntax { explicit: true, big: true } => self.root::<true, true>(buf, &mut at, end),
                    Syntax { explicit: false, big: true } => self.root::<false, true>(buf, &mut at, end),
                },
                State::Deflated | State::Done => Step::More,
            };
            if step == Step::More {
                break;
            }
        }
        self.offset += at as u64;
        at
    }

    fn stop(&mut self, fault: Fault) {
        self.faults.add(fault);
        self.state = State::Done;
    }

    fn reject(&mut self, reason: &'static str) {
        self.verdict = Verdict::NotDicom(reason);
        self.state = State::Done;
    }

    /// Counts bytes against the header limit. Returns false if it is exceeded.
    fn within_limit(&mut self, at: usize) -> bool {
        if (self.offset + at as u64).saturating_sub(self.passed) > MAX_HEADER {
            self.stop(Fault::HeaderTooLong);
            return false;
        }
        true
    }

    // ---- before the data set -------------------------------------------------------------------

    fn start(&mut self, rest: &[u8], at: &mut usize, end: bool) -> Step {
        if rest.len() < PREAMBLE + PREFIX.len() && !end {
            return Step::More;
        }
        if rest.get(PREAMBLE..PREAMBLE + PREFIX.len()) == Some(PREFIX) {
            self.has_preamble = true;
            *at += PREAMBLE + PREFIX.len();
            self.state = State::Meta;
            return Step::Continue;
        }
        let behind = rest.strip_prefix(PREFIX).and_then(|behind| behind.first_chunk::<8>());
        if behind.is_some_and(|start| start.starts_with(&[2, 0]) || sniff::starts_command_set(start)) {
            *at += PREFIX.len();
            self.state = State::Meta;
            return Step::Continue;
        }
        match sniff::start(rest) {
            Ok(State::Meta) => {
                self.doubtful = true;
                self.state = State::Meta;
            }
            Ok(state) => {
                self.doubtful = true;
                self.state = state;
            }
            Err(reason) => self.reject(reason),
        }
        Step::Continue
    }

    /// Reads one element of group 0002 (PS3.10 7.1), or ends the group.
    fn meta(&mut self, rest: &[u8], at: &mut usize, end: bool) -> Step {
        let here = self.offset + *at as u64;
        if self.meta.end == Some(here) {
            match self.group_ends(rest, end) {
                Some(true) => return self.end_of_meta(here),
                Some(false) if self.declared.is_empty() => {}
                // These elements may belong to the data set. Then their encoding is that of the
                // following elements, as in a data set that arrives without File Meta Information.
                Some(false) => self.foreign = Some((here, EXPLICIT_LE)),
                None => return Step::More,
            }
        }
        let Some(start) = rest.first_chunk::<8>() else {
            if end && rest.is_empty() {
                return self.end_of_meta(here);
            }
            return Step::More;
        };
        if !self.meta.present
            && start.starts_with(&[0, 0])
            && let Some((header, _)) = sniff::foreign_element(start, rest, false)
        {
            // A command set belongs to a message (PS3.7 6.3.1). Some writers leave it at the start
            // of the file.
            return self.pass_foreign(&header, rest, at);
        }
        let big = start.starts_with(&[0, 2]) && (self.syntax.big || !self.meta.present);
        if !big && !start.starts_with(&[2, 0]) {
            return self.end_of_meta(here);
        }
        self.meta_element(rest, start, at, (big, end))
    }

    /// Whether group 0002 really ends at the offset that (0002,0000) declares. `None` if the
    /// deciding bytes are not there yet.
    ///
    /// A wrong length is ignored. The group goes on if it had no transfer syntax yet, or if its
    /// encoding differs from that of the data set.
    fn group_ends(&self, rest: &[u8], end: bool) -> Option<bool> {
        let Some(start) = rest.first_chunk::<8>() else { return end.then_some(true) };
        let is_meta = start.starts_with(&[2, 0]) || start.starts_with(&[0, 2]);
        let declares_explicit_little = match self.declared.as_str() {
            "" => return Some(!is_meta),
            syntax::IMPLICIT_VR_LITTLE_ENDIAN | syntax::EXPLICIT_VR_BIG_ENDIAN => false,
            declared => !syntax::is_deflated(declared),
        };
        let looks_like_meta = start.starts_with(&[2, 0]) && sniff::is_explicit_element(start);
        Some(declares_explicit_little || !looks_like_meta)
    }

    fn meta_element(&mut self, rest: &[u8], start: &[u8; 8], at: &mut usize, (big, end): (bool, bool)) -> Step {
        let here = self.offset + *at as u64;
        let letters = vr::is_letters([start[4], start[5]]);
        self.syntax = Syntax { explicit: letters, big };
        if self.syntax != EXPLICIT_LE {
            self.faults.add(Fault::MetaEncoding);
        }
        self.meta.present = true;
        let Some(header) = self.header(self.syntax, rest, end) else { return Step::More };
        let Ok(length) = usize::try_from(header.length) else { return Step::More };
        let kept = matches!(header.tag, 0x0002_0000 | 0x0002_0002 | 0x0002_0003 | 0x0002_0010);
        if !kept || length > MAX_META_VALUE {
            if header.length == UNDEFINED || kept {
                self.faults.add(Fault::ValueTooLong { tag: tag_of(header.tag) });
            }
            *at += header.size;
            self.body = ValueRest::Skip(u64::from(header.length));
            return Step::Continue;
        }
        let Some(value) = rest.get(header.size..header.size + length) else { return Step::More };
        *at += header.size + length;
        // The first value counts. A second one may belong to a data set that begins with elements
        // of group 0002.
        let set = |kept: &mut String| {
            if kept.is_empty() {
                String::from_utf8_lossy(value).trim_matches(['\0', ' ']).clone_into(kept);
            }
        };
        match header.tag {
            0x0002_0000 if self.meta.end.is_none() => {
                if let Some(bytes) = value.first_chunk::<4>() {
                    let length = u32_of(*bytes, big);
                    self.meta.end = Some(here + (header.size + value.len()) as u64 + u64::from(length));
                }
            }
            0x0002_0000 => {}
            0x0002_0002 => set(&mut self.meta.sop_class),
            0x0002_0003 => set(&mut self.meta.sop_instance),
            _ => set(&mut self.declared),
        }
        Step::Continue
    }

    fn end_of_meta(&mut self, here: u64) -> Step {
        self.state = State::DataSetStart;
        if self.meta.present && self.meta.end.is_some_and(|meta_end| meta_end != here) {
            self.faults.add(Fault::MetaLength);
        }
        if self.meta.present && self.declared.is_empty() {
            self.faults.add(Fault::MissingTransferSyntax);
        }
        if self.meta.sop_class == MEDIA_STORAGE_DIRECTORY {
            self.verdict = Verdict::Dicomdir;
            self.state = State::Done;
        }
        Step::Continue
    }

    /// Skips an element before the data set that cannot be part of it.
    fn pass_foreign(&mut self, header: &ElementHeader, rest: &[u8], at: &mut usize) -> Step {
        if header.size > rest.len() || !self.within_limit(*at) {
            return Step::More;
        }
        self.faults.add(Fault::ForeignGroup { tag: tag_of(header.tag) });
        *at += header.size;
        self.body = ValueRest::Skip(u64::from(header.length));
        Step::Continue
    }

    /// Examines the first element to find the encoding. Elements of the groups 0000 and 0002 may
    /// come before it. They reveal neither the encoding nor the transfer syntax.
    fn data_set_start(&mut self, rest: &[u8], at: &mut usize, end: bool) -> Step {
        let here = self.offset + *at as u64;
        let Some(start) = rest.first_chunk::<8>() else {
            if end {
                self.begin_data_set(here);
            }
            return Step::More;
        };
        let expected = self.expected_syntax();
        let is_deflated = syntax::is_deflated(&self.declared) && !self.inflated;
        let likely_big = self.foreign.map_or(expected.is_some_and(|expected| expected.big), |(_, syntax)| syntax.big);
        if let Some((header, syntax)) = sniff::foreign_element(start, rest, likely_big)
            // A deflated stream may begin with any bytes.
            && (!is_deflated || syntax.explicit || self.foreign.is_some() || sniff::starts_command_set(start))
        {
            // Elements in the encoding of the data set count as part of it, because they were sent
            // with it.
            if self.foreign.is_none_or(|(_, known)| known != syntax) {
                self.foreign = Some((here, syntax));
            }
            return self.pass_foreign(&header, rest, at);
        }
        if self.inflated {
            // Deflated data sets are in Explicit VR Little Endian (PS3.5 A.5).
            self.syntax = EXPLICIT_LE;
            self.begin_data_set(here);
            return Step::Continue;
        }
        let mut found = sniff::syntax(start);
        if let Some(implicit @ Syntax { explicit: false, .. }) = found
            && self.declared != syntax::IMPLICIT_VR_LITTLE_ENDIAN
            && let Some(first) = self.header(implicit, rest, end)
        {
            // One element without a VR does not prove that the data set is implicit. The second one
            // decides.
            match sniff::next(rest, &first, end) {
                FollowingBytes::Bytes(second) if sniff::is_explicit_element(second) => found = None,
                FollowingBytes::Wait => return Step::More,
                FollowingBytes::Bytes(_) | FollowingBytes::TooFar | FollowingBytes::End => {}
            }
        }
        if is_deflated && found != Some(EXPLICIT_LE) {
            self.data_set_offset = here;
            self.state = State::Deflated;
            return Step::More;
        }
        if is_deflated || found.zip(expected).is_some_and(|(found, expected)| found != expected) {
            self.faults.add(Fault::WrongTransferSyntax);
        }
        self.syntax = found.or(expected).unwrap_or(EXPLICIT_LE);
        self.begin_data_set(here);
        if tag_at(start, self.syntax.big) >> 16 == DIRECTORY_GROUP {
            self.verdict = Verdict::Dicomdir;
            self.state = State::Done;
        }
        Step::Continue
    }

    /// Returns the encoding of the declared transfer syntax.
    ///
    /// `None` if none is declared, or if the declared one does not tell: private transfer syntaxes
    /// exist in all encodings.
    fn expected_syntax(&self) -> Option<Syntax> {
        match self.declared.as_str() {
            syntax::IMPLICIT_VR_LITTLE_ENDIAN => Some(IMPLICIT_LE),
            syntax::EXPLICIT_VR_BIG_ENDIAN => Some(Syntax { explicit: true, big: true }),
            declared if !declared.starts_with("1.2.840.10008.1.2.") => None,
            _ => Some(EXPLICIT_LE),
        }
    }

    /// Starts the data set. Its first element is at `here`, after elements that do not belong to a
    /// data set.
    ///
    /// If these have the encoding of the data set, they are sent with it. Otherwise no reader could
    /// decode both.
    fn begin_data_set(&mut self, here: u64) {
        self.state = State::DataSet;
        if !self.inflated {
            let foreign = self.foreign.filter(|(_, syntax)| *syntax == self.syntax);
            self.data_set_offset = foreign.map_or(here, |(offset, _)| offset);
        }
    }

    // ---- the data set --------------------------------------------------------------------------

    /// Reads the elements of the root until one opens a sequence. A scan spends most of its time in
    /// this loop.
    fn root<const EXPLICIT: bool, const BIG: bool>(&mut self, buf: &[u8], position: &mut usize, end: bool) -> Step {
        // Kept in a register, because every step to the next element waits for it.
        let mut at = *position;
        let step = loop {
            let rest = buf.get(at..).unwrap_or_default();
            // The header is destructured at once. As a whole it would go through memory, which
            // costs more than everything else here.
            let ElementHeader { tag, vr: letters, length, size, explicit } = match read_plain::<EXPLICIT, BIG>(rest) {
                Some(header) => header,
                None => match self.header(Syntax { explicit: EXPLICIT, big: BIG }, rest, end) {
                    Some(header) => header,
                    None => break Step::More,
                },
            };
            if tag <= self.last_tag || tag > self.wanted.last || self.doubtful {
                match self.unusual(ElementHeader { tag, vr: letters, length, size, explicit }, at) {
                    Unusual::Read => {}
                    Unusual::PassDelimiter => {
                        at += 8;
                        if !self.within_limit(at) {
                            break Step::More;
                        }
                        continue;
                    }
                    Unusual::Stop => break Step::More,
                }
            }
            self.last_tag = tag;
            while self.wanted.tags.get(self.cursor).is_some_and(|wanted| *wanted < tag) {
                self.cursor += 1;
            }
            at += size;
            let element = match self.wanted.tags.get(self.cursor) {
                Some(wanted) if *wanted == tag => self.wanted.elements.get(self.cursor).copied(),
                _ => None,
            };
            if let Some(element) = element
                && length != UNDEFINED
                && length != 0
                && element.vr != VR::SQ
                && letters != *b"SQ"
            {
                let vr = vr::effective(if explicit { letters } else { [0, 0] }, element.vr);
                let big = BIG && letters != *b"UN";
                match self.root_value(Collecting { element, tag, vr, big, start: self.raw.len() }, buf, at, length) {
                    Some(behind) => at = behind,
                    None => break Step::Continue,
                }
            } else if length == UNDEFINED || element.is_some_and(|element| element.vr == VR::SQ && length != 0) {
                break self.root_sequence(ElementHeader { tag, vr: letters, length, size, explicit }, element, at);
            } else if buf.len().saturating_sub(at) >= length as usize {
                at += length as usize;
                self.passed += u64::from(length);
            } else {
                self.body = ValueRest::Skip(u64::from(length));
                break Step::Continue;
            }
            if !self.within_limit(at) {
                break Step::More;
            }
        };
        *position = at;
        step
    }

    /// Keeps the wanted value of a root element, which begins at `at`. Returns the place behind it.
    /// `None` if its bytes are not all there, or if there is no room for it.
    #[inline(always)]
    fn root_value(&mut self, value: Collecting, buf: &[u8], at: usize, length: u32) -> Option<usize> {
        let Collecting { element, tag, vr, big, start } = value;
        let length = length as usize;
        // One comparison covers both limits while all values together fit the limit of one value.
        if start + length > MAX_VALUE && !self.has_room(tag, length) {
            self.body = ValueRest::Skip(length as u64);
            return None;
        }
        // `has_room` may have dropped other values.
        let start = self.raw.len();
        let Some(bytes) = buf.get(at..at + length) else {
            self.collecting = Some(Collecting { element, tag, vr, big, start });
            self.body = ValueRest::Collect(length);
            return None;
        };
        self.raw.extend_from_slice(bytes);
        if element.role == Role::None {
            // The same as `keep`, inlined.
            let (start, length) = (start as u32, length as u32);
            self.values.push(RawValue { slot: element.slot, tag, vr, big, character_set: false, start, length });
        } else {
            self.keep(element, tag, vr, big, start);
        }
        Some(at + length)
    }

    /// Opens the sequence of a root element, whose content begins at `at`, or skips its value.
    fn root_sequence(&mut self, header: ElementHeader, element: Option<Element>, at: usize) -> Step {
        let length = header.length;
        if self.open_sequence(header, element, self.offset + at as u64) {
            return Step::Continue;
        }
        if self.state == State::Done {
            return Step::More;
        }
        self.body = ValueRest::Skip(u64::from(length));
        Step::Continue
    }

    /// Handles a root element that does not simply follow. It is out of order, or past the last
    /// wanted element, or it is not yet certain that this is a data set.
    #[cold]
    fn unusual(&mut self, header: ElementHeader, at: usize) -> Unusual {
        let tag = header.tag;
        let group = tag >> 16;
        if tag == 0 && header.length == 0 {
            // These are zeros after the data set. Some writers fill the last sector with them.
            self.state = State::Done;
            return Unusual::Stop;
        }
        if group == DELIMITER_GROUP {
            if self.doubtful {
                self.reject("no DICM prefix, and no data set");
                return Unusual::Stop;
            }
            self.faults.add(Fault::StrayDelimiter { offset: self.offset + at as u64 });
            return Unusual::PassDelimiter;
        }
        if self.doubtful && !sniff::beyond_doubt(&header, self.last_tag) {
            self.reject("no DICM prefix, and no data set");
            return Unusual::Stop;
        }
        if tag > self.wanted.last && (self.identified == ALL_IDENTIFYING || group >= PIXEL_DATA_GROUP) {
            self.state = State::Done;
            return Unusual::Stop;
        }
        if tag <= self.last_tag && self.last_tag != 0 {
            self.faults.add(Fault::UnsortedTags { tag: tag_of(tag) });
            self.cursor = 0;
            self.unsorted = true;
            if self.values.len() > 2 * self.wanted.elements.len() {
                self.forget_repeated();
            }
        }
        Unusual::Read
    }

    /// Drops repeated values. If an element occurs twice, the last value counts. An object may even
    /// consist of one repeated tag.
    fn forget_repeated(&mut self) {
        let mut seen = vec![false; self.wanted.elements.len()];
        let mut kept: Vec<_> = mem::take(&mut self.values);
        kept.reverse();
        kept.retain(|value| {
            let place = self.wanted.tags.binary_search(&value.tag).ok();
            let seen = place.and_then(|place| seen.get_mut(place));
            seen.is_some_and(|seen| !mem::replace(seen, true))
        });
        kept.reverse();
        self.values = kept;
    }

    /// Whether a wanted value of this length can be kept. Makes room for it if necessary.
    #[cold]
    fn has_room(&mut self, tag: u32, length: usize) -> bool {
        if length > MAX_VALUE {
            self.faults.add(Fault::ValueTooLong { tag: tag_of(tag) });
            return false;
        }
        if self.raw.len() + length > MAX_VALUES {
            self.make_room();
        }
        true
    }

    /// Frees at least half of the memory of wanted values. So the total bytes that are moved never
    /// exceed the bytes that arrived.
    ///
    /// Unused values are dropped first, then the largest. UIDs stay. No value may be incomplete at
    /// this time.
    fn make_room(&mut self) {
        if self.unsorted {
            self.forget_repeated();
        }
        let mut left: usize = self.values.iter().map(|value| value.length as usize).sum();
        let mut lengths: Vec<u32> = self.values.iter().map(|value| value.length).collect();
        lengths.sort_unstable();
        while left > MAX_VALUES / 2
            && let Some(length) = lengths.pop()
        {
            left -= length as usize;
        }
        let longest = lengths.last().copied().unwrap_or(0);
        let Self { raw, values, faults, .. } = self;
        let (mut end, mut equals) = (0, lengths.iter().filter(|length| **length == longest).count());
        values.retain_mut(|value| {
            let length = value.length as usize;
            let start = value.start as usize;
            // If several values have this length, as many stay as fit.
            let fits = value.length < longest || (value.length == longest && equals > 0);
            if !fits {
                faults.add(Fault::ValueTooLong { tag: tag_of(value.tag) });
                return false;
            }
            equals -= usize::from(value.length == longest);
            raw.copy_within(start..start + length, end);
            value.start = end as u32;
            end += length;
            true
        });
        raw.truncate(end);
    }

    /// Keeps the wanted root value that is now complete at the end of `raw`.
    fn collected(&mut self) {
        if let Some(Collecting { element, tag, vr, big, start }) = self.collecting.take() {
            self.keep(element, tag, vr, big, start);
        }
    }

    fn keep(&mut self, element: Element, tag: u32, vr: VR, big: bool, start: usize) {
        let length = self.raw.len() - start;
        if let Role::Identifying(bit) = element.role
            && (!self.doubtful || sniff::is_uid_like(self.raw.get(start..).unwrap_or_default()))
        {
            self.identified |= bit;
            self.doubtful = false;
        }
        // The header limit bounds both.
        let (start, length) = (start as u32, length as u32);
        let character_set = element.role == Role::CharacterSet;
        self.values.push(RawValue { slot: element.slot, tag, vr, big, character_set, start, length });
    }

    // ---- headers -------------------------------------------------------------------------------

    /// Parses the header at the start of `rest`. `None` if there are not enough bytes.
    fn header(&mut self, syntax: Syntax, rest: &[u8], end: bool) -> Option<ElementHeader> {
        read_plain_in(syntax.explicit, syntax.big, rest).or_else(|| self.odd_header(syntax, rest, end))
    }

    /// Parses the header of an element in an explicit data set whose VR field is invalid, or whose
    /// bytes are incomplete.
    ///
    /// It tries the possible forms. The right one is followed by a plausible element.
    #[cold]
    fn odd_header(&mut self, syntax: Syntax, rest: &[u8], end: bool) -> Option<ElementHeader> {
        let start = rest.first_chunk::<8>()?;
        let vr = [start[4], start[5]];
        if *start == [0; 8] {
            return Some(ElementHeader { tag: 0, vr, length: 0, size: 8, explicit: false });
        }
        let form = vr::form(vr);
        let reserved = [start[6], start[7]];
        if form == Form::Long && reserved == [0, 0] {
            return None; // only its length is missing
        }
        if rest.len() < 12 && !end {
            return None;
        }
        let tag = tag_at(start, syntax.big);
        let number = |bytes| u32_of(bytes, syntax.big);
        let short_length = if syntax.big { u16::from_be_bytes(reserved) } else { u16::from_le_bytes(reserved) };
        let short = ElementHeader { tag, vr, length: u32::from(short_length), size: 8, explicit: true };
        let implicit =
            ElementHeader { length: number([vr[0], vr[1], reserved[0], reserved[1]]), explicit: false, ..short };
        let long = rest.get(8..12).and_then(|bytes| bytes.first_chunk::<4>()).map(|bytes| ElementHeader {
            length: number(*bytes),
            size: 12,
            ..short
        });
        let candidates = match form {
            Form::Long => [Some(short), long, None],
            _ if vr::is_letters(vr) && reserved == [0, 0] => [long, Some(short), None],
            _ if vr::is_letters(vr) => [Some(short), None, None],
            _ => [Some(implicit), Some(short), long],
        };
        for candidate in candidates.into_iter().flatten() {
            match sniff::goes_on(rest, &candidate, syntax, end) {
                Some(true) => {
                    if form != Form::Long || candidate.size != 12 {
                        self.faults.add(Fault::BadVr { tag: tag_of(tag) });
                    }
                    return Some(candidate);
                }
                Some(false) => {}
                None => return None,
            }
        }
        self.faults.add(Fault::BadVr { tag: tag_of(tag) });
        candidates.into_iter().flatten().next()
    }

    // ---- the end -------------------------------------------------------------------------------

    fn close(mut self, cut: bool) -> Parsed {
        if self.state == State::Start {
            self.reject("too short");
        }
        if self.state != State::Done {
            let left = self.carry.iter().any(|byte| *byte != 0);
            if cut || left || !matches!(self.body, ValueRest::None) || !self.frames.is_empty() {
                self.faults.add(Fault::Truncated { offset: self.offset + self.carry.len() as u64 });
            }
        }
        // An incomplete value or sequence is dropped.
        self.drop_sequence();
        if self.unsorted {
            self.forget_repeated();
        }
        if self.doubtful && self.verdict == Verdict::Object {
            self.verdict = Verdict::NotDicom("no DICM prefix, and no UID where a data set has one");
        }
        Parsed {
            verdict: self.verdict,
            has_preamble: self.has_preamble,
            data_set_offset: self.data_set_offset,
            transfer_syntax: self.used_transfer_syntax(),
            media_storage_sop_class_uid: self.meta.sop_class,
            media_storage_sop_instance_uid: self.meta.sop_instance,
            faults: self.faults,
            raw: self.raw,
            values: self.values,
            declared: self.wanted.declared.clone(),
        }
    }

    fn used_transfer_syntax(&self) -> String {
        let deflated = syntax::is_deflated(&self.declared);
        let native =
            [syntax::IMPLICIT_VR_LITTLE_ENDIAN, syntax::EXPLICIT_VR_LITTLE_ENDIAN, syntax::EXPLICIT_VR_BIG_ENDIAN]
                .contains(&self.declared.as_str());
        // For an encapsulated transfer syntax, only the encoding of the header can be wrong. The
        // pixel data are encoded as declared.
        if self.declared.is_empty() || native || (deflated && !self.inflated) {
            match (self.syntax.explicit, self.syntax.big) {
                (false, _) => syntax::IMPLICIT_VR_LITTLE_ENDIAN,
                (true, false) => syntax::EXPLICIT_VR_LITTLE_ENDIAN,
                (true, true) => syntax::EXPLICIT_VR_BIG_ENDIAN,
            }
            .to_owned()
        } else {
            self.declared.clone()
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unusual {
    Read,
    PassDelimiter,
    Stop,
}

/// Returns the VR of a nested element in an implicit data set (PS3.6). An unknown element is UN, or
/// a sequence if its length is undefined.
fn dictionary_vr(tag: u32, length: u32) -> VR {
    match StandardDataDictionary.by_tag(tag_of(tag)).map(|entry| entry.vr()) {
        Some(VirtualVr::Exact(vr)) => vr,
        Some(vr) => vr.relaxed(),
        None if length == UNDEFINED => VR::SQ,
        None => VR::UN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::limits::MAX_VALUES;
    use dicom_core::Tag;

    const PATIENT_NAME: Tag = Tag(0x0010, 0x0010);
    const PATIENT_ID: Tag = Tag(0x0010, 0x0020);

    fn put(out: &mut Vec<u8>, Tag(group, element): Tag, value: &[u8]) {
        out.extend(group.to_le_bytes());
        out.extend(element.to_le_bytes());
        out.extend((value.len() as u32).to_le_bytes());
        out.extend(value);
    }

    /// Feeds an Implicit VR Little Endian data set in pieces. Returns the result and the peak
    /// memory.
    fn read(wanted: &Wanted, data_set: &[u8], piece: usize) -> (Parsed, usize) {
        let mut parser = HeaderParser::for_data_set(wanted, syntax::IMPLICIT_VR_LITTLE_ENDIAN);
        let mut most = 0;
        for piece in data_set.chunks(piece) {
            parser.feed(piece);
            most = most.max(parser.core.raw.capacity() + parser.core.carry.capacity());
        }
        (parser.finish(), most)
    }

    #[test]
    fn an_element_that_stands_a_thousand_times_is_held_a_few_times() {
        let wanted = Wanted::new([(PATIENT_NAME, VR::PN), (PATIENT_ID, VR::LO)]);
        // First one tag repeats, then two tags alternate.
        for by_turns in [false, true] {
            let mut data_set = Vec::new();
            put(&mut data_set, Tag(0x0008, 0x0018), b"1.2.3\0");
            for _ in 0..1_000 {
                put(&mut data_set, PATIENT_NAME, &[b'A'; 15_000]);
                if by_turns {
                    put(&mut data_set, PATIENT_ID, &[b'B'; 1_000]);
                }
            }
            put(&mut data_set, PATIENT_NAME, b"LAST");
            put(&mut data_set, PATIENT_ID, b"ID");
            for piece in [1_000, 16 << 10, data_set.len()] {
                let (mut parsed, most) = read(&wanted, &data_set, piece);
                assert!(most <= 2 * MAX_VALUES, "{most} in pieces of {piece}");
                assert_eq!((parsed.text(0).as_deref(), parsed.text(1).as_deref()), (Some("LAST"), Some("ID")));
                assert_eq!(parsed.faults().len(), 1, "{:?}", parsed.faults());
                assert!(matches!(parsed.faults(), [Fault::UnsortedTags { .. }]));
            }
        }
    }

    #[test]
    fn a_header_without_end_is_given_up_however_it_comes() {
        let wanted = Wanted::new([(PATIENT_NAME, VR::PN)]);
        let mut data_set = Vec::new();
        put(&mut data_set, Tag(0x0008, 0x0018), b"1.2.3\0");
        for _ in 0..300 {
            put(&mut data_set, PATIENT_NAME, &[b'A'; 60_000]);
        }
        // The smaller pieces are shorter than each value.
        for piece in [16 << 10, data_set.len()] {
            let (parsed, most) = read(&wanted, &data_set, piece);
            assert!(parsed.faults().contains(&Fault::HeaderTooLong), "{piece}: {:?}", parsed.faults());
            assert!(most <= 2 * MAX_VALUES, "{most} in pieces of {piece}");
        }
    }

    #[test]
    fn of_many_large_values_the_largest_are_left_out() {
        let tag = |at: u16| Tag(0x0018, 0x1000 + at);
        let wanted = Wanted::new((0..200).map(|at| (tag(at), if at == 150 { VR::SQ } else { VR::LT })));
        let mut data_set = Vec::new();
        put(&mut data_set, Tag(0x0008, 0x0018), b"1.2.3\0");
        for at in 0..200_u16 {
            let mut item = Vec::new();
            match at {
                // An item with one value.
                150 => {
                    put(&mut item, Tag(0x0008, 0x0104), &[b'm'; 50_000]);
                    let mut value = Vec::new();
                    put(&mut value, Tag(0xFFFE, 0xE000), &item);
                    put(&mut data_set, tag(at), &value);
                }
                at if at % 2 == 0 => put(&mut data_set, tag(at), &[b'x'; 60_000]),
                _ => put(&mut data_set, tag(at), at.to_string().as_bytes()),
            }
        }
        let (mut whole, _) = read(&wanted, &data_set, data_set.len());
        let (mut pieces, most) = read(&wanted, &data_set, 16 << 10);
        assert!(most <= 2 * MAX_VALUES, "{most}");
        assert!(matches!(pieces.faults(), [Fault::ValueTooLong { .. }, ..]), "{:?}", pieces.faults());
        assert_eq!(pieces.faults(), whole.faults());
        let mut kept = 0;
        for at in 0..200_u16 {
            let text = pieces.text(at);
            assert_eq!(text, whole.text(at), "{at}");
            if at % 2 == 1 {
                assert_eq!(text, Some(at.to_string()));
            }
            kept += text.map_or(0, |text| text.len());
        }
        // The last values fit again.
        assert!((60_000..=MAX_VALUES).contains(&kept), "{kept}");
        assert!(pieces.text(198).is_some());
    }
}
