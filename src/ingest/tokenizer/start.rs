//! Everything before the data set: preamble, prefix, group 0002, and the encoding of the data set.
//! It runs a few times for each object.

use super::*;
use crate::encoding::padding::without_padding;

const DIRECTORY_GROUP: u32 = 0x0004;

const MEDIA_STORAGE_DIRECTORY: &str = dicom_dictionary_std::uids::MEDIA_STORAGE_DIRECTORY_STORAGE;

const PREAMBLE: usize = 128;

const PREFIX: &[u8; 4] = b"DICM";

impl Core<'_> {
    pub(super) fn start(&mut self, rest: &[u8], at: &mut usize, is_last: bool) -> Step {
        if rest.len() < PREAMBLE + PREFIX.len() && !is_last {
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
    pub(super) fn meta(&mut self, rest: &[u8], at: &mut usize, is_last: bool) -> Step {
        let here = self.offset + *at as u64;
        if self.meta.end == Some(here) {
            match self.group_ends(rest, is_last) {
                Some(true) => return self.end_of_meta(here),
                Some(false) if self.declared.is_empty() => {}
                // These elements may belong to the data set. Then their encoding is that of the
                // following elements, as in a data set that arrives without File Meta Information.
                Some(false) => self.foreign = Some((here, EXPLICIT_LE)),
                None => return Step::More,
            }
        }
        let Some(start) = rest.first_chunk::<8>() else {
            if is_last && rest.is_empty() {
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
        let big_endian = start.starts_with(&[0, 2]) && (self.syntax.big_endian || !self.meta.present);
        if !big_endian && !start.starts_with(&[2, 0]) {
            return self.end_of_meta(here);
        }
        self.meta_element(rest, start, at, (big_endian, is_last))
    }

    /// Whether group 0002 really ends at the offset that (0002,0000) declares. `None` if the
    /// deciding bytes are not there yet.
    ///
    /// A wrong length is ignored. The group goes on if it had no transfer syntax yet, or if its
    /// encoding differs from that of the data set.
    pub(super) fn group_ends(&self, rest: &[u8], is_last: bool) -> Option<bool> {
        let Some(start) = rest.first_chunk::<8>() else { return is_last.then_some(true) };
        let is_meta = start.starts_with(&[2, 0]) || start.starts_with(&[0, 2]);
        let declares_explicit_little = match self.declared.as_str() {
            "" => return Some(!is_meta),
            syntax::IMPLICIT_VR_LITTLE_ENDIAN | syntax::EXPLICIT_VR_BIG_ENDIAN => false,
            declared => !syntax::is_deflated(declared),
        };
        let looks_like_meta = start.starts_with(&[2, 0]) && sniff::is_explicit_element(start);
        Some(declares_explicit_little || !looks_like_meta)
    }

    pub(super) fn meta_element(
        &mut self,
        rest: &[u8],
        start: &[u8; 8],
        at: &mut usize,
        (big_endian, is_last): (bool, bool),
    ) -> Step {
        let here = self.offset + *at as u64;
        let letters = vr::is_letters([start[4], start[5]]);
        self.syntax = Syntax { explicit: letters, big_endian };
        if self.syntax != EXPLICIT_LE {
            self.faults.add(Fault::MetaEncoding);
        }
        self.meta.present = true;
        let Some(header) = self.header(self.syntax, rest, is_last) else { return Step::More };
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
                without_padding(&String::from_utf8_lossy(value)).clone_into(kept);
            }
        };
        match header.tag {
            0x0002_0000 if self.meta.end.is_none() => {
                if let Some(bytes) = value.first_chunk::<4>() {
                    let length = u32_of(*bytes, big_endian);
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

    pub(super) fn end_of_meta(&mut self, here: u64) -> Step {
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
    pub(super) fn pass_foreign(&mut self, header: &ElementHeader, rest: &[u8], at: &mut usize) -> Step {
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
    pub(super) fn data_set_start(&mut self, rest: &[u8], at: &mut usize, is_last: bool) -> Step {
        let here = self.offset + *at as u64;
        let Some(start) = rest.first_chunk::<8>() else {
            if is_last {
                self.begin_data_set(here);
            }
            return Step::More;
        };
        let expected = self.expected_syntax();
        let is_deflated = syntax::is_deflated(&self.declared) && !self.inflated;
        let likely_big =
            self.foreign.map_or(expected.is_some_and(|expected| expected.big_endian), |(_, syntax)| syntax.big_endian);
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
            && let Some(first) = self.header(implicit, rest, is_last)
        {
            // One element without a VR does not prove that the data set is implicit. The second one
            // decides.
            match sniff::next(rest, &first, is_last) {
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
        if tag_at(start, self.syntax.big_endian) >> 16 == DIRECTORY_GROUP {
            self.verdict = Verdict::Dicomdir;
            self.state = State::Done;
        }
        Step::Continue
    }

    /// Returns the encoding of the declared transfer syntax.
    ///
    /// `None` if none is declared, or if the declared one does not tell: private transfer syntaxes
    /// exist in all encodings.
    pub(super) fn expected_syntax(&self) -> Option<Syntax> {
        match self.declared.as_str() {
            syntax::IMPLICIT_VR_LITTLE_ENDIAN => Some(IMPLICIT_LE),
            syntax::EXPLICIT_VR_BIG_ENDIAN => Some(Syntax { explicit: true, big_endian: true }),
            declared if !syntax::is_of_standard(declared) => None,
            _ => Some(EXPLICIT_LE),
        }
    }

    /// Starts the data set. Its first element is at `here`, after elements that do not belong to a
    /// data set.
    ///
    /// If these have the encoding of the data set, they are sent with it. Otherwise no reader could
    /// decode both.
    pub(super) fn begin_data_set(&mut self, here: u64) {
        self.state = State::DataSet;
        if !self.inflated {
            let foreign = self.foreign.filter(|(_, syntax)| *syntax == self.syntax);
            self.data_set_offset = foreign.map_or(here, |(offset, _)| offset);
        }
    }
}
