//! Reading of odd objects: elements out of order, values that are too large, and headers whose
//! form has to be guessed.

use super::*;

impl Core<'_> {
    /// Handles a root element that does not simply follow. It is out of order, or past the last
    /// wanted element, or it is not yet certain that this is a data set.
    #[cold]
    pub(super) fn unusual(&mut self, header: ElementHeader, at: usize) -> Unusual {
        let tag = header.tag;
        let group = tag >> 16;
        if tag == 0 && header.length == 0 {
            // These are zeros after the data set. Some writers fill the last sector with them.
            self.state = State::Done;
            return Unusual::Stop;
        }
        if self.faults_of_wanted.is_some() {
            return self.element_behind(tag);
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
            self.first_behind = Some(tag_of(tag));
            return self.pass_last_wanted();
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
    pub(super) fn forget_repeated(&mut self) {
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
    pub(super) fn has_room(&mut self, tag: u32, length: usize) -> bool {
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
    pub(super) fn make_room(&mut self) {
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

    /// Parses the header of an element in an explicit data set whose VR field is invalid, or whose
    /// bytes are incomplete.
    ///
    /// It tries the possible forms. The right one is followed by a plausible element.
    #[cold]
    pub(super) fn odd_header(&mut self, syntax: Syntax, rest: &[u8], is_last: bool) -> Option<ElementHeader> {
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
        if rest.len() < 12 && !is_last {
            return None;
        }
        let tag = tag_at(start, syntax.big_endian);
        let number = |bytes| u32_of(bytes, syntax.big_endian);
        let short_length = if syntax.big_endian { u16::from_be_bytes(reserved) } else { u16::from_le_bytes(reserved) };
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
            match sniff::goes_on(rest, &candidate, syntax, is_last) {
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
}
