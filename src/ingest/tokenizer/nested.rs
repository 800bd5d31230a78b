//! Sequences and items: what lies below the root of a data set.

use super::*;

impl Core<'_> {
    /// Opens the sequence of a header, at its first content byte; false when it is not entered.
    pub(super) fn open_sequence(&mut self, header: Header, element: Option<Element>, here: u64) -> bool {
        let Header { tag, length, .. } = header;
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
                // Where it ends is only known to who goes through it.
                self.state = State::Done;
            }
            return false;
        }
        let unsure = header.explicit && header.vr == *b"UN";
        let syntax = if unsure {
            IMPLICIT_LE
        } else {
            Syntax { explicit: parent_syntax.explicit && header.explicit, big: parent_syntax.big }
        };
        let kind = if is_sequence { FrameKind::Sequence } else { FrameKind::Fragments };
        let parent_end = parent.map_or(NO_END, |frame| frame.end);
        let end = if length == UNDEFINED { parent_end } else { here + u64::from(length) };
        if let Some(element) = element
            && element.vr == VR::SQ
            && is_sequence
        {
            // How long it gets shows only at its end.
            if self.raw.len() + MAX_VALUE > MAX_VALUES {
                self.make_room();
            }
            self.collecting = Some(Collecting { element, tag, vr: VR::SQ, big: false, start: self.raw.len() });
        }
        self.frames.push(Frame { kind, end, syntax, unsure, tag });
        true
    }

    /// One step inside a sequence.
    pub(super) fn nested(&mut self, rest: &[u8], at: &mut usize, end: bool) -> Step {
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
            self.body = Body::Skip(frame.end - here);
            return Step::Continue;
        }
        if frame.unsure && frame.kind == FrameKind::Item {
            let Some(start) = rest.first_chunk::<8>() else { return Step::More };
            if let Some(top) = self.frames.last_mut() {
                top.unsure = false;
                if sniff::is_explicit_element(start) {
                    top.syntax = EXPLICIT_LE;
                }
            }
            return Step::Continue;
        }
        let Some(Header { tag, vr, length, size, explicit }) = self.header(frame.syntax, rest, end) else {
            return Step::More;
        };
        let header = Header { tag, vr, length, size, explicit };
        match (frame.kind, tag) {
            (FrameKind::Sequence | FrameKind::Fragments, SEQUENCE_DELIMITER) => {
                *at += 8;
                self.pop();
            }
            (FrameKind::Sequence, ITEM) => {
                *at += 8;
                let start = here + 8;
                let item_end = if header.length == UNDEFINED { frame.end } else { start + u64::from(header.length) };
                if self.collecting.is_none() && header.length != UNDEFINED && item_end <= frame.end {
                    self.body = Body::Skip(u64::from(header.length));
                    return Step::Continue;
                }
                if item_end > frame.end {
                    self.faults.add(Fault::LengthPastEnd { tag: tag_of(frame.tag) });
                }
                self.frames.push(Frame { kind: FrameKind::Item, end: item_end.min(frame.end), ..frame });
                self.emit(|raw| raw.push(json::ITEM));
            }
            (FrameKind::Fragments, ITEM) if header.length != UNDEFINED => {
                *at += 8;
                self.body = Body::Skip(u64::from(header.length).min(frame.end - here - 8));
            }
            (FrameKind::Item, ITEM_DELIMITER) => {
                *at += 8;
                self.pop();
            }
            // The item's delimiter is missing; the sequence takes the header up.
            (FrameKind::Item, ITEM | SEQUENCE_DELIMITER) => {
                self.faults.add(Fault::MissingDelimiter { tag: tag_of(frame.tag) });
                self.pop();
            }
            (_, tag) if tag >> 16 == DELIMITER_GROUP => {
                self.faults.add(Fault::StrayDelimiter { offset: here });
                *at += 8;
            }
            (FrameKind::Item, _) => {
                *at += header.size;
                self.nested_element(&header, &frame, rest.get(header.size..).unwrap_or_default(), here, at);
            }
            (FrameKind::Sequence | FrameKind::Fragments, tag) => {
                self.faults.add(Fault::MissingDelimiter { tag: tag_of(frame.tag) });
                if tag > frame.tag {
                    // What follows the sequence; its parent takes the header up.
                    self.pop();
                } else {
                    // It cannot stand after the sequence, so it stands in it, outside an item.
                    *at += header.size;
                    if header.length == UNDEFINED {
                        self.state = State::Done;
                    } else {
                        self.body = Body::Skip(u64::from(header.length));
                    }
                }
            }
        }
        Step::Continue
    }

    /// An element in an item, after its header.
    pub(super) fn nested_element(&mut self, header: &Header, frame: &Frame, value: &[u8], here: u64, at: &mut usize) {
        let start = here + header.size as u64;
        let Header { tag, length, .. } = *header;
        let available = frame.end.saturating_sub(start);
        if length != UNDEFINED && u64::from(length) > available {
            self.faults.add(Fault::LengthPastEnd { tag: tag_of(tag) });
            self.drop_sequence();
            self.body = Body::Skip(available);
            return;
        }
        let Some(collecting) = self.collecting else {
            if length == UNDEFINED {
                self.open_sequence(*header, None, start);
            } else {
                self.body = Body::Skip(u64::from(length));
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
            // Sequences of undefined length are gone through in any case; what is in them is cut away afterwards.
            self.body = Body::Skip(u64::from(length));
            return;
        }
        if length == UNDEFINED || vr == VR::SQ {
            let is_fragments = header.explicit && matches!(&header.vr, b"OB" | b"OW");
            if self.open_sequence(*header, None, start) {
                if !is_fragments {
                    self.emit(|raw| json::push_sequence(raw, tag));
                }
            } else {
                self.drop_sequence();
                if length != UNDEFINED {
                    self.body = Body::Skip(u64::from(length));
                }
            }
            return;
        }
        let length = length as usize;
        if self.raw.len() - collecting.start + length > MAX_VALUE {
            self.faults.add(Fault::ValueTooLong { tag: tag_of(collecting.tag) });
            self.drop_sequence();
            self.body = Body::Skip(length as u64);
            return;
        }
        let big = frame.syntax.big && in_header != *b"UN";
        self.emit(|raw| json::push_value(raw, tag, vr, big, length));
        match value.get(..length) {
            Some(value) => {
                self.raw.extend_from_slice(value);
                *at += length;
            }
            None => self.body = Body::Collect(length),
        }
    }

    /// Appends to the wanted sequence that is being walked, if there is one.
    pub(super) fn emit(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(collecting) = self.collecting else { return };
        write(&mut self.raw);
        if self.raw.len() - collecting.start > MAX_VALUE {
            self.faults.add(Fault::ValueTooLong { tag: tag_of(collecting.tag) });
            self.drop_sequence();
        }
    }

    /// Gives the wanted sequence up; it is walked on to its end.
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
