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
//!
//! Functions that may need more bytes take `is_last`: the bytes reach to the end of the object, so
//! no more will come.

use std::mem;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

use super::fault::{Fault, Faults};
use super::json;
use super::limits::{MAX_DEPTH, MAX_HEADER, MAX_INFLATED, MAX_META_VALUE, MAX_VALUE, MAX_VALUES};
use super::parsed::{Parsed, RawValue, Verdict};
use crate::encoding::header::{ElementHeader, read_plain, read_plain_in, tag_at, u32_of};
use crate::encoding::padding::without_trailing_padding;
use crate::encoding::syntax;
use crate::encoding::tag::{DELIMITER_GROUP, ITEM, ITEM_DELIMITER, SEQUENCE_DELIMITER, UNDEFINED, tag_of};
use crate::encoding::vr::{self, Form};
use crate::ingest::parsed::Spare;
use crate::ingest::wanted::{ALL_IDENTIFYING, Element, Role, Wanted};

mod behind;
mod inflate;
mod nested;
mod odd;
mod sniff;
mod start;
mod state;

use inflate::Inflater;
use sniff::Going;
use state::*;

const PIXEL_DATA_GROUP: u32 = 0x7FE0;
const NO_END: u64 = u64::MAX;

/// Bytes of a new slice that are added to an unfinished header of the slice before.
const CARRY_STEP: usize = 64;

/// Initial capacity for wanted values. It suffices for most headers, so that the buffer is not
/// moved while it grows.
const RAW_CAPACITY: usize = 2 << 10;
const VALUES_CAPACITY: usize = 64;

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
    big_endian: bool,
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
        core.declared.push_str(without_trailing_padding(transfer_syntax));
        Self { core, inflater: None }
    }

    /// Looks at the bytes that come together with the last wanted element as well, for
    /// [`Parsed::note_length`]. No further bytes are needed for that.
    #[must_use]
    pub(super) fn looking_behind(mut self) -> Self {
        self.core.behind = BehindWanted::AtHand;
        self
    }

    /// Looks at all bytes behind the last wanted element, for [`Parsed::note_length`].
    #[must_use]
    pub(crate) fn reading_to_the_end(mut self) -> Self {
        self.core.behind = BehindWanted::Everything;
        self
    }

    /// Whether it keeps nothing of the following bytes.
    pub(crate) fn has_all_wanted(&self) -> bool {
        self.core.state == State::Done || self.core.faults_of_wanted.is_some()
    }

    /// Takes the next bytes of the object.
    pub fn feed(&mut self, bytes: &[u8]) -> Need {
        if !self.core.is_past_what_is_at_hand() {
            self.take(bytes, false);
        }
        if self.core.is_past_what_is_at_hand() {
            return Need::Done;
        }
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
        if !self.core.is_past_what_is_at_hand() {
            self.take(&[], true);
        }
        let cut = self.inflater.as_ref().is_some_and(|inflater| !inflater.ended);
        self.core.close(cut)
    }

    fn take(&mut self, bytes: &[u8], is_last: bool) {
        if self.inflater.is_none() {
            let rest = self.core.take(bytes, is_last);
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
        if is_last {
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
    behind: BehindWanted,
    /// Faults up to the last wanted element, if something is read behind it.
    faults_of_wanted: Option<Faults>,
    /// The element behind the last wanted one at which wanted values end.
    first_behind: Option<Tag>,
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
            behind: BehindWanted::Nothing,
            faults_of_wanted: None,
            first_behind: None,
        }
    }

    // ---- input ---------------------------------------------------------------------------------

    /// Takes bytes. With `is_last`, no more follow. Returns the bytes that the state does not take.
    fn take<'a>(&mut self, mut bytes: &'a [u8], is_last: bool) -> &'a [u8] {
        while !self.carry.is_empty() && self.takes_bytes() {
            let mut carry = mem::take(&mut self.carry);
            let old = carry.len();
            let (step, after) = bytes.split_at(bytes.len().min(CARRY_STEP));
            carry.extend_from_slice(step);
            let used = self.run(&carry, is_last && after.is_empty());
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
        let used = self.run(bytes, is_last);
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
    fn run(&mut self, buf: &[u8], is_last: bool) -> usize {
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
                State::Start => self.start(rest, &mut at, is_last),
                State::Meta => self.meta(rest, &mut at, is_last),
                State::DataSetStart => self.data_set_start(rest, &mut at, is_last),
                State::DataSet if !self.frames.is_empty() => self.nested(rest, &mut at, is_last),
                State::DataSet => match self.syntax {
                    Syntax { explicit: true, big_endian: false } => self.root::<true, false>(buf, &mut at, is_last),
                    Syntax { explicit: false, big_endian: false } => self.root::<false, false>(buf, &mut at, is_last),
                    Syntax { explicit: true, big_endian: true } => self.root::<true, true>(buf, &mut at, is_last),
                    Syntax { explicit: false, big_endian: true } => self.root::<false, true>(buf, &mut at, is_last),
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

    // ---- the data set --------------------------------------------------------------------------

    /// Reads the elements of the root until one opens a sequence. A scan spends most of its time in
    /// this loop.
    fn root<const EXPLICIT: bool, const BIG: bool>(&mut self, buf: &[u8], position: &mut usize, is_last: bool) -> Step {
        // Kept in a register, because every step to the next element waits for it.
        let mut at = *position;
        let step = loop {
            let rest = buf.get(at..).unwrap_or_default();
            // The header is destructured at once. As a whole it would go through memory, which
            // costs more than everything else here.
            let ElementHeader { tag, vr: letters, length, size, explicit } = match read_plain::<EXPLICIT, BIG>(rest) {
                Some(header) => header,
                None => match self.header(Syntax { explicit: EXPLICIT, big_endian: BIG }, rest, is_last) {
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
                let big_endian = BIG && letters != *b"UN";
                match self.root_value(
                    Collecting { element, tag, vr, big_endian, start: self.raw.len() },
                    buf,
                    at,
                    length,
                ) {
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
        let Collecting { element, tag, vr, big_endian, start } = value;
        let length = length as usize;
        // One comparison covers both limits while all values together fit the limit of one value.
        if start + length > MAX_VALUE && !self.has_room(tag, length) {
            self.body = ValueRest::Skip(length as u64);
            return None;
        }
        // `has_room` may have dropped other values.
        let start = self.raw.len();
        let Some(bytes) = buf.get(at..at + length) else {
            self.collecting = Some(Collecting { element, tag, vr, big_endian, start });
            self.body = ValueRest::Collect(length);
            return None;
        };
        self.raw.extend_from_slice(bytes);
        if element.role == Role::None {
            // The same as `keep`, inlined.
            let (start, length) = (start as u32, length as u32);
            self.values.push(RawValue { slot: element.slot, tag, vr, big_endian, character_set: false, start, length });
        } else {
            self.keep(element, tag, vr, big_endian, start);
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

    /// Keeps the wanted root value that is now complete at the end of `raw`.
    fn collected(&mut self) {
        if let Some(Collecting { element, tag, vr, big_endian, start }) = self.collecting.take() {
            self.keep(element, tag, vr, big_endian, start);
        }
    }

    fn keep(&mut self, element: Element, tag: u32, vr: VR, big_endian: bool, start: usize) {
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
        self.values.push(RawValue { slot: element.slot, tag, vr, big_endian, character_set, start, length });
    }

    // ---- headers -------------------------------------------------------------------------------

    /// Parses the header at the start of `rest`. `None` if there are not enough bytes.
    fn header(&mut self, syntax: Syntax, rest: &[u8], is_last: bool) -> Option<ElementHeader> {
        read_plain_in(syntax.explicit, syntax.big_endian, rest).or_else(|| self.odd_header(syntax, rest, is_last))
    }

    // ---- the end -------------------------------------------------------------------------------

    fn close(mut self, cut: bool) -> Parsed {
        if self.state == State::Start {
            self.reject("too short");
        }
        let is_behind = self.faults_of_wanted.is_some();
        let least_end = self.least_end();
        if self.state != State::Done && !is_behind {
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
            encoding: self.syntax.encoding(),
            least_end,
            first_behind: self.first_behind,
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
            self.syntax.encoding().uid().to_owned()
        } else {
            self.declared.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::limits::MAX_VALUES;
    use dicom_dictionary_std::tags;

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
        let wanted = Wanted::new([(tags::PATIENT_NAME, VR::PN), (tags::PATIENT_ID, VR::LO)]);
        // First one tag repeats, then two tags alternate.
        for by_turns in [false, true] {
            let mut data_set = Vec::new();
            put(&mut data_set, Tag(0x0008, 0x0018), b"1.2.3\0");
            for _ in 0..1_000 {
                put(&mut data_set, tags::PATIENT_NAME, &[b'A'; 15_000]);
                if by_turns {
                    put(&mut data_set, tags::PATIENT_ID, &[b'B'; 1_000]);
                }
            }
            put(&mut data_set, tags::PATIENT_NAME, b"LAST");
            put(&mut data_set, tags::PATIENT_ID, b"ID");
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
        let wanted = Wanted::new([(tags::PATIENT_NAME, VR::PN)]);
        let mut data_set = Vec::new();
        put(&mut data_set, Tag(0x0008, 0x0018), b"1.2.3\0");
        for _ in 0..300 {
            put(&mut data_set, tags::PATIENT_NAME, &[b'A'; 60_000]);
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
