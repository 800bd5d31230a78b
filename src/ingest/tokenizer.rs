//! The header reader: bytes of an object in, wanted elements out.
//!
//! One tokenizer for files, archive members and data sets that arrive PDV by PDV. It is fed slices of any size, copies
//! only wanted values, says what may be skipped, and stops after the last wanted element. It has no recursion, and takes
//! no memory for a length that was only declared.
//!
//! Everything that real archives hold is read: all uncompressed encodings (PS3.5 7, annex A), deflated, encapsulated;
//! with and without preamble and file meta information (PS3.10 7.1); with a transfer syntax that is not the one
//! declared. What is damaged is read up to the damage, and past it where that is safe; each [`Fault`] is noted.

use std::mem;

use dicom_core::VR;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_dictionary_std::StandardDataDictionary;
use flate2::{Decompress, FlushDecompress, Status};

use super::fault::{Fault, Faults};
use super::json;
use super::limits::{MAX_DEPTH, MAX_HEADER, MAX_INFLATED, MAX_META_VALUE, MAX_VALUE, MAX_VALUES};
use super::parsed::{Parsed, RawValue, Verdict};
use crate::encoding::syntax;
use crate::encoding::tag::{DELIMITER_GROUP, ITEM, ITEM_DELIMITER, SEQUENCE_DELIMITER, UNDEFINED, tag_of};
use crate::encoding::vr::{self, Form};
use crate::ingest::parsed::Spare;
use crate::ingest::wanted::{ALL_IDENTIFYING, Element, Role, Wanted};

mod header;
mod nested;
mod sniff;

use header::*;
use sniff::Going;

const DIRECTORY_GROUP: u32 = 0x0004;
const PIXEL_DATA_GROUP: u32 = 0x7FE0;
const NO_END: u64 = u64::MAX;

const MEDIA_STORAGE_DIRECTORY: &str = dicom_dictionary_std::uids::MEDIA_STORAGE_DIRECTORY_STORAGE;

const PREAMBLE: usize = 128;
const PREFIX: &[u8; 4] = b"DICM";

/// How much of a fed slice is joined to the unfinished header that was left of the slice before.
const CARRY_STEP: usize = 64;

/// Room for what most headers hold that is wanted, so that it is not moved while it grows.
const RAW_CAPACITY: usize = 2 << 10;
const VALUES_CAPACITY: usize = 64;

/// Input of one call of the inflater. Where the stream is damaged, an inflater keeps back what it has not handed over yet: so it
/// gets no more at a time than its output has room for, at the most that a byte can become (1,032), and a few that it holds.
const DEFLATED_STEP: usize = 16;

/// Output of one call of the inflater.
const INFLATE_CHUNK: usize = 32 << 10;

/// What a [`HeaderParser`] wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The bytes that follow.
    More,
    /// Not the next so many bytes of the stream: they may be passed over and reported by [`HeaderParser::skipped`], or
    /// fed like any others.
    Skip(u64),
    /// Nothing; what follows is not looked at.
    Done,
}

/// The bytes of a value that did not all stand in the slice.
#[derive(Debug, Clone, Copy)]
enum Body {
    None,
    Skip(u64),
    /// A wanted root value, or one in a wanted sequence.
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
struct Frame {
    kind: FrameKind,
    /// Offset of the first byte after it; when of undefined length that of what it lies in, [`NO_END`] at the root.
    end: u64,
    /// Its own length is defined: where it ends is known, whatever stands in it.
    defined: bool,
    /// Encoding of its content.
    syntax: Syntax,
    /// Its first element was not looked at yet: where it is in the other VR encoding, the whole item is.
    unsure: bool,
    /// The tag of the sequence.
    tag: u32,
}

/// A wanted value on its way.
#[derive(Debug, Clone, Copy)]
struct Collecting {
    element: Element,
    tag: u32,
    vr: VR,
    big: bool,
    start: usize,
}

/// What a step of the tokenizer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Continue,
    /// The slice ends within something that is looked at as a whole, or the state takes no more bytes.
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
    /// A parser for an object as it stands in a file (PS3.10): from the preamble, or from where the object starts
    /// without one.
    #[must_use]
    pub fn for_file(wanted: &'w Wanted) -> Self {
        Self::for_file_with(wanted, Spare::default())
    }

    /// The same, in memory that another one has used.
    pub(super) fn for_file_with(wanted: &'w Wanted, spare: Spare) -> Self {
        Self { core: Core::new(wanted, State::Start, spare), inflater: None }
    }

    /// A parser for a data set alone, as it arrives in a C-STORE, in the transfer syntax of its presentation context.
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
            (_, Body::Skip(length)) if self.inflater.is_none() => Need::Skip(length),
            _ => Need::More,
        }
    }

    /// Reports that the next `count` bytes of the stream were passed over, after [`Need::Skip`] asked for as many or
    /// more.
    pub fn skipped(&mut self, count: u64) {
        if let Body::Skip(length) = self.core.body
            && self.inflater.is_none()
        {
            let count = count.min(length);
            self.core.offset += count;
            self.core.passed += count;
            self.core.body = if length == count { Body::None } else { Body::Skip(length - count) };
        }
    }

    /// The end of the object, or of what the caller has of it: what was read.
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

/// Undoes the deflated encoding (PS3.5 A.5).
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

    /// What the next few bytes inflate to, and whether they are sound. Without any, what is still to come of those before.
    fn next(&mut self, bytes: &mut &[u8]) -> (&[u8], Result<(), Damaged>) {
        // Some writers put a zlib stream there, where PS3.5 A.5 means the bare one of RFC 1951. As the first byte of
        // a bare stream 78 would begin a stored block, which compressors do not make of a data set.
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
            // Nothing would come of trying again.
            Ok(_) if read == 0 && written == 0 && !step.is_empty() && !self.ended => Err(Damaged),
            Ok(_) => Ok(()),
            Err(_) => Err(Damaged),
        };
        (self.out.get(..written).unwrap_or_default(), intact)
    }
}

/// The tokenizer of plain bytes.
#[derive(Debug)]
struct Core<'w> {
    wanted: &'w Wanted,
    state: State,
    body: Body,
    /// Encoding of the root of the data set (of group 0002 while in it).
    syntax: Syntax,
    /// Start of the slice at hand, counted from the start of the object, or of the inflated data set.
    offset: u64,
    /// Bytes passed over without a look.
    passed: u64,
    /// An unfinished header, left of the slice before.
    carry: Vec<u8>,
    frames: Vec<Frame>,
    /// The place in the wanted list; all before it are less than the last tag.
    cursor: usize,
    last_tag: u32,
    /// The wanted value that is being copied, or the wanted sequence that is being walked.
    collecting: Option<Collecting>,
    raw: Vec<u8>,
    values: Vec<RawValue>,
    identified: u8,
    /// Some tags did not ascend, so some may stand twice.
    unsorted: bool,
    declared: String,
    inflated: bool,
    meta: Meta,
    verdict: Verdict,
    faults: Faults,
    /// There was no prefix: every element must be beyond doubt until a UID is found.
    doubtful: bool,
    has_preamble: bool,
    /// Where the data set begins, counted from the start of the object.
    data_set_offset: u64,
    /// Where elements of the groups 0000 and 0002 in one encoding begin that stand before the data set.
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
            body: Body::None,
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

    // ---- bytes to steps ------------------------------------------------------------------------------------------

    /// Takes bytes; with `end`, no more will come. Returns those that were not taken because the state takes none.
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

    /// Turns to the inflated data set; returns the first bytes of the deflated one.
    fn begin_inflated(&mut self) -> Vec<u8> {
        self.state = State::DataSetStart;
        self.inflated = true;
        self.syntax = EXPLICIT_LE;
        self.offset = 0;
        self.passed = 0;
        mem::take(&mut self.carry)
    }

    /// Takes what it can of `buf` and returns how much that is; the rest must come again with more behind it.
    fn run(&mut self, buf: &[u8], end: bool) -> usize {
        let mut at = 0;
        while self.takes_bytes() {
            let rest = buf.get(at..).unwrap_or_default();
            match self.body {
                Body::None => {}
                Body::Skip(length) => {
                    let here = length.min(rest.len() as u64);
                    at += here as usize;
                    self.passed += here;
                    if here < length {
                        self.body = Body::Skip(length - here);
                        break;
                    }
                    self.body = Body::None;
                    continue;
                }
                Body::Collect(length) => {
                    let here = rest.get(..length).unwrap_or(rest);
                    at += here.len();
                    self.raw.extend_from_slice(here);
                    if here.len() < length {
                        self.body = Body::Collect(length - here.len());
                        break;
                    }
                    self.body = Body::None;
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

    /// Counts against the header limit; false when it is passed.
    fn within_limit(&mut self, at: usize) -> bool {
        if (self.offset + at as u64).saturating_sub(self.passed) > MAX_HEADER {
            self.stop(Fault::HeaderTooLong);
            return false;
        }
        true
    }

    // ---- before the data set -------------------------------------------------------------------------------------

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

    /// One element of group 0002 (PS3.10 7.1), or the end of the group.
    fn meta(&mut self, rest: &[u8], at: &mut usize, end: bool) -> Step {
        let here = self.offset + *at as u64;
        if self.meta.end == Some(here) {
            match self.group_ends(rest, end) {
                Some(true) => return self.end_of_meta(here),
                Some(false) => {}
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
            // PS3.7 6.3.1: a command set belongs into a message. Some writers leave it in front of the file.
            return self.pass_foreign(&header, rest, at);
        }
        let big = start.starts_with(&[0, 2]) && (self.syntax.big || !self.meta.present);
        if !big && !start.starts_with(&[2, 0]) {
            return self.end_of_meta(here);
        }
        self.meta_element(rest, start, at, (big, end))
    }

    /// Whether group 0002 ends here, where (0002,0000) says that it does. A wrong length is passed over: the group
    /// goes on where it had no transfer syntax yet, or where its encoding differs from that of the data set. `None`
    /// when the bytes that tell have not come yet.
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
            self.body = Body::Skip(u64::from(header.length));
            return Step::Continue;
        }
        let Some(value) = rest.get(header.size..header.size + length) else { return Step::More };
        *at += header.size + length;
        // The first one counts: a second one may belong to a data set that begins with elements of group 0002.
        let set = |kept: &mut String| {
            if kept.is_empty() {
                String::from_utf8_lossy(value).trim_matches(['\0', ' ']).clone_into(kept);
            }
        };
        match header.tag {
            0x0002_0000 if self.meta.end.is_none() => {
                if let Some(bytes) = value.first_chunk::<4>() {
                    let length = if big { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) };
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

    /// Passes over an element that stands before a data set, and that no data set has.
    fn pass_foreign(&mut self, header: &Header, rest: &[u8], at: &mut usize) -> Step {
        if header.size > rest.len() || !self.within_limit(*at) {
            return Step::More;
        }
        self.faults.add(Fault::ForeignGroup { tag: tag_of(header.tag) });
        *at += header.size;
        self.body = Body::Skip(u64::from(header.length));
        Step::Continue
    }

    /// Looks at the first element to find the encoding. Before it may stand elements of the groups 0000 and 0002, which
    /// tell nothing: neither about the encoding, nor about the transfer syntax.
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
            // A deflated stream begins with any bytes.
            && (!is_deflated || syntax.explicit || self.foreign.is_some() || sniff::starts_command_set(start))
        {
            // Those in the encoding of the data set are a part of what was sent as one.
            if self.foreign.is_none_or(|(_, known)| known != syntax) {
                self.foreign = Some((here, syntax));
            }
            return self.pass_foreign(&header, rest, at);
        }
        if self.inflated {
            // PS3.5 A.5
            self.syntax = EXPLICIT_LE;
            self.begin_data_set(here);
            return Step::Continue;
        }
        let mut found = sniff::syntax(start);
        if let Some(implicit @ Syntax { explicit: false, .. }) = found
            && self.declared != syntax::IMPLICIT_VR_LITTLE_ENDIAN
            && let Some(first) = self.header(implicit, rest, end)
        {
            // One element without a VR does not make an implicit data set of an explicit one: look at the second.
            match sniff::next(rest, &first, end) {
                Look::Bytes(second) if sniff::is_explicit_element(second) => found = None,
                Look::Wait => return Step::More,
                Look::Bytes(_) | Look::TooFar | Look::End => {}
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
        if sniff::tag(start, self.syntax.big) >> 16 == DIRECTORY_GROUP {
            self.verdict = Verdict::Dicomdir;
            self.state = State::Done;
        }
        Step::Continue
    }

    /// The encoding that the transfer syntax says. `None` where nothing is declared, or something that says nothing:
    /// private syntaxes exist in all encodings.
    fn expected_syntax(&self) -> Option<Syntax> {
        match self.declared.as_str() {
            syntax::IMPLICIT_VR_LITTLE_ENDIAN => Some(IMPLICIT_LE),
            syntax::EXPLICIT_VR_BIG_ENDIAN => Some(Syntax { explicit: true, big: true }),
            declared if !declared.starts_with("1.2.840.10008.1.2.") => None,
            _ => Some(EXPLICIT_LE),
        }
    }

    /// Its first element stands at `here`, behind elements that no data set has. They are sent with it where they are in
    /// its encoding; where they are not, nobody could read both.
    fn begin_data_set(&mut self, here: u64) {
        self.state = State::DataSet;
        if !self.inflated {
            let foreign = self.foreign.filter(|(_, syntax)| *syntax == self.syntax);
            self.data_set_offset = foreign.map_or(here, |(offset, _)| offset);
        }
    }

    // ---- the data set --------------------------------------------------------------------------------------------

    /// The elements of the root, until one opens a sequence. This loop is what a scan spends its time in.
    fn root<const EXPLICIT: bool, const BIG: bool>(&mut self, buf: &[u8], position: &mut usize, end: bool) -> Step {
        // In a register: from one element to the next everything waits for it.
        let mut at = *position;
        let step = loop {
            let rest = buf.get(at..).unwrap_or_default();
            // Taken apart at once: as a whole it would go through memory, which costs more than all the rest here.
            let Header { tag, vr: letters, length, size, explicit } = match fast_header::<EXPLICIT, BIG>(rest) {
                Some(header) => header,
                None => match self.header(Syntax { explicit: EXPLICIT, big: BIG }, rest, end) {
                    Some(header) => header,
                    None => break Step::More,
                },
            };
            if tag <= self.last_tag || tag > self.wanted.last || self.doubtful {
                match self.unusual(Header { tag, vr: letters, length, size, explicit }, at) {
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
                let length = length as usize;
                // One comparison for both limits, as long as all values together take no more than one may.
                if self.raw.len() + length > MAX_VALUE && !self.has_room(tag, length) {
                    self.body = Body::Skip(length as u64);
                    break Step::Continue;
                }
                let vr = vr::effective(if explicit { letters } else { [0, 0] }, element.vr);
                let big = BIG && letters != *b"UN";
                let Some(value) = buf.get(at..at + length) else {
                    self.collecting = Some(Collecting { element, tag, vr, big, start: self.raw.len() });
                    self.body = Body::Collect(length);
                    break Step::Continue;
                };
                let start = self.raw.len();
                self.raw.extend_from_slice(value);
                if element.role == Role::None {
                    // As `keep` does, without a call.
                    let (start, length) = (start as u32, length as u32);
                    let slot = element.slot;
                    self.values.push(RawValue { slot, tag, vr, big, character_set: false, start, length });
                } else {
                    self.keep(element, tag, vr, big, start);
                }
                at += length;
            } else if length == UNDEFINED || element.is_some_and(|element| element.vr == VR::SQ && length != 0) {
                let here = self.offset + at as u64;
                if self.open_sequence(Header { tag, vr: letters, length, size, explicit }, element, here) {
                    break Step::Continue;
                }
                if self.state == State::Done {
                    break Step::More;
                }
                self.body = Body::Skip(u64::from(length));
                break Step::Continue;
            } else if buf.len().saturating_sub(at) >= length as usize {
                at += length as usize;
                self.passed += u64::from(length);
            } else {
                self.body = Body::Skip(u64::from(length));
                break Step::Continue;
            }
            if !self.within_limit(at) {
                break Step::More;
            }
        };
        *position = at;
        step
    }

    /// Elements of the root that do not simply follow: out of order, past the last wanted one, or where it is not yet
    /// sure that this is a data set.
    #[cold]
    fn unusual(&mut self, header: Header, at: usize) -> Unusual {
        let tag = header.tag;
        let group = tag >> 16;
        if tag == 0 && header.length == 0 {
            // Zeros behind the data set: sectors are filled up with them.
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

    /// Of an element that stands twice the last value counts; an object may consist of nothing but one tag.
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

    /// Whether a wanted value of this length may be collected; makes room for it where there is none.
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

    /// Frees half of what wanted values may take, or more: so the bytes that are moved for it are no more than those that came.
    /// Values that do not count are dropped first, then the largest: UIDs stay. None may be on its way.
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
            // Of those of one length, as many as there is room for.
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

    /// The wanted root value that was being collected stands whole at the end of `raw`.
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
        // Both are bounded by the header limit.
        let (start, length) = (start as u32, length as u32);
        let character_set = element.role == Role::CharacterSet;
        self.values.push(RawValue { slot: element.slot, tag, vr, big, character_set, start, length });
    }

    // ---- headers -------------------------------------------------------------------------------------------------

    /// The header at the start of `rest`; `None` when there are not enough bytes to know.
    fn header(&mut self, syntax: Syntax, rest: &[u8], end: bool) -> Option<Header> {
        let fast = match syntax {
            Syntax { explicit: true, big: false } => fast_header::<true, false>(rest),
            Syntax { explicit: false, big: false } => fast_header::<false, false>(rest),
            Syntax { explicit: true, big: true } => fast_header::<true, true>(rest),
            Syntax { explicit: false, big: true } => fast_header::<false, true>(rest),
        };
        fast.or_else(|| self.odd_header(syntax, rest, end))
    }

    /// The header of an element in an explicit data set whose VR field makes no sense (or whose bytes are not all
    /// there): of the forms that it may have, the one after which the next element makes sense.
    #[cold]
    fn odd_header(&mut self, syntax: Syntax, rest: &[u8], end: bool) -> Option<Header> {
        let start = rest.first_chunk::<8>()?;
        let vr = [start[4], start[5]];
        if *start == [0; 8] {
            return Some(Header { tag: 0, vr, length: 0, size: 8, explicit: false });
        }
        let form = vr::form(vr);
        let reserved = [start[6], start[7]];
        if form == Form::Long && reserved == [0, 0] {
            return None; // only its length is still to come
        }
        if rest.len() < 12 && !end {
            return None;
        }
        let tag = sniff::tag(start, syntax.big);
        let number = |bytes: [u8; 4]| if syntax.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        let short_length = if syntax.big { u16::from_be_bytes(reserved) } else { u16::from_le_bytes(reserved) };
        let short = Header { tag, vr, length: u32::from(short_length), size: 8, explicit: true };
        let implicit = Header { length: number([vr[0], vr[1], reserved[0], reserved[1]]), explicit: false, ..short };
        let long = rest.get(8..12).and_then(|bytes| bytes.first_chunk::<4>()).map(|bytes| Header {
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

    // ---- the end -------------------------------------------------------------------------------------------------

    fn close(mut self, cut: bool) -> Parsed {
        if self.state == State::Start {
            self.reject("too short");
        }
        if self.state != State::Done {
            let left = self.carry.iter().any(|byte| *byte != 0);
            if cut || left || !matches!(self.body, Body::None) || !self.frames.is_empty() {
                self.faults.add(Fault::Truncated { offset: self.offset + self.carry.len() as u64 });
            }
        }
        // A value or a sequence that is not whole is none.
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
        // Of an encapsulated syntax only the encoding of the header can be wrong: the pixel data are what it says.
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

/// The header at the start of `rest` if all its bytes are there and its VR is one of the Standard.
#[inline(always)]
fn fast_header<const EXPLICIT: bool, const BIG: bool>(rest: &[u8]) -> Option<Header> {
    let start = rest.first_chunk::<8>()?;
    let [g0, g1, e0, e1, v0, v1, l0, l1] = *start;
    let (group, element) = if BIG {
        (u16::from_be_bytes([g0, g1]), u16::from_be_bytes([e0, e1]))
    } else {
        (u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1]))
    };
    let tag = u32::from(group) << 16 | u32::from(element);
    let word = [v0, v1, l0, l1];
    if !EXPLICIT || u32::from(group) == DELIMITER_GROUP {
        let length = if BIG { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
        return Some(Header { tag, vr: [0, 0], length, size: 8, explicit: false });
    }
    let vr = [v0, v1];
    match vr::form(vr) {
        Form::Short => {
            let length = if BIG { u16::from_be_bytes([l0, l1]) } else { u16::from_le_bytes([l0, l1]) };
            Some(Header { tag, vr, length: u32::from(length), size: 8, explicit: true })
        }
        Form::Long if [l0, l1] == [0, 0] => {
            let word = rest.get(8..12)?.first_chunk::<4>()?;
            let length = if BIG { u32::from_be_bytes(*word) } else { u32::from_le_bytes(*word) };
            Some(Header { tag, vr, length, size: 12, explicit: true })
        }
        Form::Long | Form::Unknown => None,
    }
}

/// The VR of a nested element in an implicit data set (PS3.6); what is not in the dictionary is UN, or a sequence when
/// of undefined length.
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

    /// Feeds an implicit little endian data set in pieces; what was read, and the most memory that it took meanwhile.
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
        // With one that comes again and again, and with two by turns.
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
        // In pieces that are smaller than each value, too.
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
        // The last ones have room again.
        assert!((60_000..=MAX_VALUES).contains(&kept), "{kept}");
        assert!(pieces.text(198).is_some());
    }
}
