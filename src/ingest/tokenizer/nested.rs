//! Sequences and items: everything below the root of a data set.

use super::*;

impl Core<'_> {
    /// Opens the sequence of a header, at the first byte of its content. Returns false if the
    /// sequence is not read.
    pub(super) fn open_sequence(&mut self, header: ElementHeader, element: Option<Element>, here: u64) -> bool {
        let ElementHeader { tag, length, .. } = header;
        let parent = self.frames.last();
        let parent_syntax = parent.map_or(self.syntax, |frame| frame.syntax);
        let is_sequence =
            !header.explicit || matches!(&header.vr, b"SQ" | b"UN") || vr::form(header.vr) == Form::Unknown;
        if !is_sequence && length != UNDEFINED {
            return false;
        }
        if self.frames.len() + 2 > MAX_DEPTH {
            self.faults.add(Fault::NestingTooDeep { tag: tag_of(tag) });
            if length == UNDEFINED {
                // Its end is unknown without reading it.
                self.state = State::Done;
            }
            return false;
        }
        // The content of UN is Implicit VR Little Endian in every data set (PS3.5 6.2.2).
        let syntax = if header.explicit && header.vr == *b"UN" {
            IMPLICIT_LE
        } else {
            Syntax { explicit: parent_syntax.explicit && header.explicit, big_endian: parent_syntax.big_endian }
        };
        let kind = if is_sequence { FrameKind::Sequence } else { FrameKind::Fragments };
        let parent_end = parent.map_or(NO_END, |frame| frame.end);
        let end = if length == UNDEFINED { parent_end } else { here + u64::from(length) };
        if let Some(element) = element
            && element.vr == VR::SQ
            && is_sequence
        {
            // Its length is known only at its end.
            if self.raw.len() + MAX_VALUE > MAX_VALUES {
                self.make_room();
            }
            self.collecting = Some(Collecting { element, tag, vr: VR::SQ, big_endian: false, start: self.raw.len() });
        }
        self.frames.push(OpenItem { kind, end, defined: length != UNDEFINED, syntax, unsure: false, tag });
        true
    }

    /// Does one step inside a sequence.
    pub(super) fn nested(&mut self, rest: &[u8], at: &mut usize, is_last: bool) -> Step {
        let here = self.offset + *at as u64;
        let Some(frame) = self.frames.last().copied() else { return Step::Continue };
        if here >= frame.end {
            self.pop();
            return Step::Continue;
        }
        if !self.within_limit(*at) {
            return Step::More;
        }
        if frame.end - here < 8 {
            self.faults.add(Fault::LengthPastEnd { tag: tag_of(frame.tag) });
            self.body = ValueRest::Skip(frame.end - here);
            return Step::Continue;
        }
        if frame.unsure {
            let Some(syntax) = self.syntax_of_item(&frame, rest, here, is_last) else { return Step::More };
            if let Some(top) = self.frames.last_mut() {
                (top.syntax, top.unsure) = (syntax, false);
            }
            return Step::Continue;
        }
        let Some(ElementHeader { tag, vr, length, size, explicit }) = self.header(frame.syntax, rest, is_last) else {
            return Step::More;
        };
        let header = ElementHeader { tag, vr, length, size, explicit };
        if frame.end - here < size as u64 {
            self.faults.add(Fault::LengthPastEnd { tag: tag_of(frame.tag) });
            self.body = ValueRest::Skip(frame.end - here);
            return Step::Continue;
        }
        self.nested_header(&header, &frame, rest, here, at);
        Step::Continue
    }

    /// Handles a header inside a sequence.
    fn nested_header(&mut self, header: &ElementHeader, frame: &OpenItem, rest: &[u8], here: u64, at: &mut usize) {
        match (frame.kind, header.tag) {
            // A delimiter ends an item or sequence of undefined length (PS3.5 7.5.2). One of
            // defined length may have a delimiter at its end too.
            (FrameKind::Item, ITEM_DELIMITER) | (FrameKind::Sequence | FrameKind::Fragments, SEQUENCE_DELIMITER)
                if !frame.defined || here + 8 == frame.end =>
            {
                *at += 8;
                self.pop();
            }
            (FrameKind::Sequence, ITEM) => {
                *at += 8;
                self.item(header, frame, here + 8);
            }
            (FrameKind::Fragments, ITEM) if header.length != UNDEFINED => {
                *at += 8;
                self.body = ValueRest::Skip(u64::from(header.length).min(frame.end - here - 8));
            }
            // The delimiter of the item is missing. The sequence handles the header.
            (FrameKind::Item, ITEM | SEQUENCE_DELIMITER) if !frame.defined => {
                self.faults.add(Fault::MissingDelimiter { tag: tag_of(frame.tag) });
                self.pop();
            }
            (_, tag) if tag >> 16 == DELIMITER_GROUP => {
                self.faults.add(Fault::StrayDelimiter { offset: here });
                *at += 8;
            }
            (FrameKind::Item, _) => {
                *at += header.size;
                self.nested_element(header, frame, rest.get(header.size..).unwrap_or_default(), here, at);
            }
            (FrameKind::Sequence | FrameKind::Fragments, _) if frame.defined => {
                self.faults.add(Fault::NotAnItem { tag: tag_of(frame.tag) });
                self.drop_sequence();
                self.body = ValueRest::Skip(frame.end - here);
            }
            (FrameKind::Sequence | FrameKind::Fragments, tag) => {
                self.faults.add(Fault::MissingDelimiter { tag: tag_of(frame.tag) });
                if tag > frame.tag {
                    // The element follows the sequence. The parent handles the header.
                    self.pop();
                } else {
                    // The element cannot follow the sequence. So it is inside the sequence, but
                    // outside an item.
                    *at += header.size;
                    self.pass_no_item(header, frame, here + header.size as u64);
                }
            }
        }
    }

    /// Opens an item at the first byte of its content. If nothing in it is wanted, it is skipped.
    fn item(&mut self, header: &ElementHeader, frame: &OpenItem, start: u64) {
        let defined = header.length != UNDEFINED;
        let end = if defined { start + u64::from(header.length) } else { frame.end };
        if self.collecting.is_none() && defined && end <= frame.end {
            self.body = ValueRest::Skip(u64::from(header.length));
            return;
        }
        if end > frame.end {
            self.faults.add(Fault::LengthPastEnd { tag: tag_of(frame.tag) });
        }
        let end = end.min(frame.end);
        self.frames.push(OpenItem { kind: FrameKind::Item, end, defined, unsure: true, ..*frame });
        self.emit(|raw| raw.push(json::ITEM));
    }

    /// Skips an element inside a sequence of undefined length, after its header.
    fn pass_no_item(&mut self, header: &ElementHeader, frame: &OpenItem, start: u64) {
        let available = frame.end.saturating_sub(start);
        if header.length == UNDEFINED {
            self.drop_sequence();
            self.open_sequence(*header, None, start);
        } else if u64::from(header.length) > available {
            self.faults.add(Fault::LengthPastEnd { tag: tag_of(header.tag) });
            self.drop_sequence();
            self.body = ValueRest::Skip(available);
        } else {
            self.body = ValueRest::Skip(u64::from(header.length));
        }
    }

    /// Finds the encoding of an item from its first element. `None` if the deciding bytes are not
    /// there yet.
    ///
    /// Some writers put explicit items in an implicit data set or in UN. But the length of an
    /// implicit element may look like a VR. The right reading is the one that is followed by a
    /// plausible element.
    fn syntax_of_item(&mut self, frame: &OpenItem, rest: &[u8], here: u64, is_last: bool) -> Option<Syntax> {
        let start = rest.first_chunk::<8>()?;
        let explicit = Syntax { explicit: true, ..frame.syntax };
        if frame.syntax.explicit
            || tag_at(start, frame.syntax.big_endian) >> 16 == DELIMITER_GROUP
            || !sniff::is_explicit_element(start)
        {
            return Some(frame.syntax);
        }
        let Some(header) = read_plain_in(true, explicit.big_endian, rest) else {
            return is_last.then_some(frame.syntax);
        };
        let available = frame.end - here;
        let [.., l0, l1, l2, l3] = *start;
        let implicit_length = u32_of([l0, l1, l2, l3], explicit.big_endian);
        let is_explicit = match sniff::item_goes_on(rest, &header, explicit.big_endian, (available, is_last))? {
            Going::On => true,
            Going::Wrong => 8 + u64::from(implicit_length) > available,
            // With a short VR, the implicit reading would be a value of 64 MiB or more.
            Going::TooFar => header.size == 8 || dictionary_vr(header.tag, header.length).to_bytes() == header.vr,
        };
        if !is_explicit {
            return Some(frame.syntax);
        }
        if !self.syntax.explicit {
            self.faults.add(Fault::WrongTransferSyntax);
        }
        Some(explicit)
    }

    /// Handles an element in an item, after its header.
    pub(super) fn nested_element(
        &mut self,
        header: &ElementHeader,
        frame: &OpenItem,
        value: &[u8],
        here: u64,
        at: &mut usize,
    ) {
        let start = here + header.size as u64;
        let ElementHeader { tag, length, .. } = *header;
        let available = frame.end.saturating_sub(start);
        if length != UNDEFINED && u64::from(length) > available {
            self.faults.add(Fault::LengthPastEnd { tag: tag_of(tag) });
            self.drop_sequence();
            self.body = ValueRest::Skip(available);
            return;
        }
        let Some(collecting) = self.collecting else {
            if length == UNDEFINED {
                self.open_sequence(*header, None, start);
            } else {
                self.body = ValueRest::Skip(u64::from(length));
            }
            return;
        };
        let in_header = if header.explicit { header.vr } else { [0, 0] };
        let vr = match &in_header {
            b"\0\0" | b"UN" => dictionary_vr(tag, length),
            _ => vr::of(in_header).unwrap_or(VR::UN),
        };
        if length != UNDEFINED
            && let Some(filter) = self.wanted.filter(collecting.element.slot)
            && !filter.lets_through(tag)
        {
            // A sequence of undefined length must be read in any case. Its content is cut off
            // afterwards.
            self.body = ValueRest::Skip(u64::from(length));
            return;
        }
        if length == UNDEFINED || vr == VR::SQ {
            self.wanted_sequence(header, start);
            return;
        }
        let length = length as usize;
        if self.raw.len() - collecting.start + length > MAX_VALUE {
            self.faults.add(Fault::ValueTooLong { tag: tag_of(collecting.tag) });
            self.drop_sequence();
            self.body = ValueRest::Skip(length as u64);
            return;
        }
        let big_endian = frame.syntax.big_endian && in_header != *b"UN";
        self.emit(|raw| json::push_value(raw, tag, vr, big_endian, length));
        match value.get(..length) {
            Some(value) => {
                self.raw.extend_from_slice(value);
                *at += length;
            }
            None => self.body = ValueRest::Collect(length),
        }
    }

    /// Opens a sequence inside a wanted one, at the first byte of its content.
    fn wanted_sequence(&mut self, header: &ElementHeader, start: u64) {
        let is_fragments = header.explicit && matches!(&header.vr, b"OB" | b"OW");
        if self.open_sequence(*header, None, start) {
            if !is_fragments {
                self.emit(|raw| json::push_sequence(raw, header.tag));
            }
        } else {
            self.drop_sequence();
            if header.length != UNDEFINED {
                self.body = ValueRest::Skip(u64::from(header.length));
            }
        }
    }

    /// Appends to the wanted sequence that is being read, if there is one.
    pub(super) fn emit(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(collecting) = self.collecting else { return };
        write(&mut self.raw);
        if self.raw.len() - collecting.start > MAX_VALUE {
            self.faults.add(Fault::ValueTooLong { tag: tag_of(collecting.tag) });
            self.drop_sequence();
        }
    }

    /// Drops the wanted sequence. Reading goes on to its end.
    pub(super) fn drop_sequence(&mut self) {
        if let Some(collecting) = self.collecting.take() {
            self.raw.truncate(collecting.start);
        }
    }

    /// Closes the innermost sequence or item.
    pub(super) fn pop(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        if self.collecting.is_none() {
            return;
        }
        match frame.kind {
            FrameKind::Fragments => {}
            FrameKind::Sequence if self.frames.is_empty() => self.collected(),
            FrameKind::Sequence | FrameKind::Item => self.emit(|raw| raw.push(json::END)),
        }
    }
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
