//! Converts wanted sequences to the DICOM JSON Model (PS3.18 annex F).
//!
//! While the tokenizer reads a wanted sequence, its items and values are recorded as flat events
//! that do not depend on the transfer syntax. The text is written at the end, when the character
//! sets of the data set and of each item are known.

use dicom_core::{Tag, VR};

use crate::encoding::charset::CharacterSets;
use crate::model::declared::{KeptNode, SelectorStep, canonical_tag, creator_tag, is_private_creator};
use crate::model::dicom_json::{push_element, push_key};

use crate::encoding::tag::{SPECIFIC_CHARACTER_SET, tag_number, tag_of};
use crate::encoding::vr;

/// An item starts.
pub(super) const ITEM: u8 = 1;
/// The innermost item or nested sequence ends.
pub(super) const END: u8 = 2;
const SEQUENCE: u8 = 3;
const VALUE: u8 = 4;

/// Records the start of a nested sequence.
pub(super) fn push_sequence(raw: &mut Vec<u8>, tag: u32) {
    raw.push(SEQUENCE);
    raw.extend(tag.to_le_bytes());
}

/// Records an element. Its `length` bytes follow.
pub(super) fn push_value(raw: &mut Vec<u8>, tag: u32, vr: VR, big_endian: bool, length: usize) {
    raw.push(VALUE);
    raw.extend(tag.to_le_bytes());
    raw.extend(vr.to_string().as_bytes());
    raw.push(u8::from(big_endian));
    raw.extend((length as u32).to_le_bytes());
}

enum JsonEvent<'a> {
    Item,
    End,
    Sequence(u32),
    Value { tag: u32, vr: VR, big_endian: bool, bytes: &'a [u8] },
}

struct Events<'a>(&'a [u8]);

impl<'a> Iterator for Events<'a> {
    type Item = JsonEvent<'a>;

    fn next(&mut self) -> Option<JsonEvent<'a>> {
        let (kind, rest) = self.0.split_first()?;
        let (event, rest) = match *kind {
            ITEM => (JsonEvent::Item, rest),
            END => (JsonEvent::End, rest),
            SEQUENCE => {
                let (tag, rest) = rest.split_first_chunk()?;
                (JsonEvent::Sequence(u32::from_le_bytes(*tag)), rest)
            }
            _ => {
                let (tag, rest) = rest.split_first_chunk()?;
                let (vr, rest) = rest.split_first_chunk()?;
                let (big_endian, rest) = rest.split_first()?;
                let (length, rest) = rest.split_first_chunk()?;
                let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                let vr = vr::of(*vr).unwrap_or(VR::UN);
                (JsonEvent::Value { tag: u32::from_le_bytes(*tag), vr, big_endian: *big_endian != 0, bytes }, rest)
            }
        };
        self.0 = rest;
        Some(event)
    }
}

/// The part that an [`END`] closes.
enum Open {
    Item,
    Sequence,
    EmptySequence,
}

/// Copies the declared elements of the items of a wanted sequence. Private elements move to the
/// blocks of [`canonical_tag`], together with their creators.
pub(super) fn cut_down(raw: &[u8], wanted: &[KeptNode], sets: &CharacterSets, out: &mut Vec<u8>) {
    /// An open item or sequence. An empty `wanted` means that all of it is wanted. For an item,
    /// `creators` says which private creator reserves which block.
    struct Level<'w> {
        wanted: &'w [KeptNode],
        creators: Vec<(Tag, String)>,
        /// Canonical private creators that the item already has.
        written: Vec<Tag>,
    }
    let mut levels: Vec<Level<'_>> = Vec::new();
    let sequence = |wanted| Level { wanted, creators: Vec::new(), written: Vec::new() };
    // Number of sequences and items that are open inside an unwanted one.
    let mut unwanted = 0_usize;
    for event in Events(raw) {
        if unwanted > 0 {
            match event {
                JsonEvent::Item | JsonEvent::Sequence(_) => unwanted += 1,
                JsonEvent::End => unwanted -= 1,
                JsonEvent::Value { .. } => {}
            }
            continue;
        }
        match event {
            JsonEvent::Item => {
                out.push(ITEM);
                levels.push(sequence(levels.last().map_or(wanted, |level| level.wanted)));
            }
            JsonEvent::End => {
                out.push(END);
                levels.pop();
            }
            JsonEvent::Sequence(number) => {
                let Some(level) = levels.last_mut() else { continue };
                match find(level.wanted, &level.creators, number) {
                    None => unwanted = 1,
                    Some((number, creator, node)) => {
                        push_creator(out, &mut level.written, creator);
                        push_sequence(out, number);
                        levels.push(sequence(node.map_or(&[], |node| node.items.as_slice())));
                    }
                }
            }
            JsonEvent::Value { tag: number, vr, big_endian, bytes } => {
                let Some(level) = levels.last_mut() else { continue };
                let tag = tag_of(number);
                if is_private_creator(tag) && !level.wanted.is_empty() {
                    let mut creator = String::new();
                    crate::model::value::push_text(&mut creator, VR::LO, big_endian, bytes, sets);
                    level.creators.push((tag, creator));
                    continue;
                }
                if number == SPECIFIC_CHARACTER_SET {
                    push_value(out, number, vr, big_endian, bytes.len());
                    out.extend_from_slice(bytes);
                } else if let Some((number, creator, node)) = find(level.wanted, &level.creators, number) {
                    push_creator(out, &mut level.written, creator);
                    let vr = node.filter(|node| vr == VR::UN && node.vr != VR::SQ).map_or(vr, |node| node.vr);
                    push_value(out, number, vr, big_endian, bytes.len());
                    out.extend_from_slice(bytes);
                }
            }
        }
    }
}

/// Result of a search for an element of an item: the tag under which it is kept, the creator of its
/// block, and its node. `None` if the element is not wanted.
type WantedElement<'w> = (u32, Option<(Tag, &'w str)>, Option<&'w KeptNode>);

fn find<'w>(wanted: &'w [KeptNode], creators: &[(Tag, String)], number: u32) -> Option<WantedElement<'w>> {
    if wanted.is_empty() {
        return Some((number, None, None));
    }
    let tag = tag_of(number);
    let creator = creator_tag(tag).and_then(|tag| creators.iter().find(|(known, _)| *known == tag));
    let node = wanted.iter().find(|node| node.step.is(tag, creator.map(|(_, creator)| creator.as_str())))?;
    let (kept, block) = canonical_tag(wanted, &node.step);
    let creator = match &node.step {
        SelectorStep::Private { creator, .. } => block.map(|block| (block, creator.as_str())),
        SelectorStep::Public(_) => None,
    };
    Some((tag_number(kept), creator, Some(node)))
}

/// Records the creator of a block, once in each item.
fn push_creator(out: &mut Vec<u8>, written: &mut Vec<Tag>, creator: Option<(Tag, &str)>) {
    let Some((tag, creator)) = creator.filter(|(tag, _)| !written.contains(tag)) else { return };
    written.push(tag);
    push_value(out, tag_number(tag), VR::LO, false, creator.len());
    out.extend_from_slice(creator.as_bytes());
}

/// Appends the items of a wanted sequence as a JSON array. Without items it appends nothing, as for
/// any attribute without a value. Returns false if a character set could not decode some text.
pub(super) fn push_items(out: &mut String, raw: &[u8], root: &CharacterSets) -> bool {
    if raw.is_empty() {
        return true;
    }
    let mut faithful = true;
    // One entry for each open item: the character sets that it inherited (PS3.3 C.12.1.1.2). They
    // apply again after the item.
    let mut inherited: Vec<CharacterSets> = Vec::new();
    let mut sets = root.clone();
    let mut open = Vec::new();
    let mut comma = false;
    out.push('[');
    let mut events = Events(raw).peekable();
    while let Some(event) = events.next() {
        if comma && !matches!(event, JsonEvent::End) {
            out.push(',');
        }
        comma = true;
        match event {
            JsonEvent::Item => {
                out.push('{');
                inherited.push(sets.clone());
                open.push(Open::Item);
                comma = false;
            }
            JsonEvent::Sequence(tag) => {
                push_key(out, tag, VR::SQ);
                // A sequence without items has no Value member (PS3.18 F.2.5).
                let is_empty = matches!(events.peek(), Some(JsonEvent::End));
                out.push_str(if is_empty { "" } else { ",\"Value\":[" });
                open.push(if is_empty { Open::EmptySequence } else { Open::Sequence });
                comma = false;
            }
            JsonEvent::End => match open.pop() {
                Some(Open::Item) => {
                    out.push('}');
                    sets = inherited.pop().unwrap_or_else(|| root.clone());
                }
                Some(Open::Sequence) => out.push_str("]}"),
                Some(Open::EmptySequence) => out.push('}'),
                None => {}
            },
            JsonEvent::Value { tag, vr, big_endian, bytes } => {
                if tag == SPECIFIC_CHARACTER_SET {
                    sets = CharacterSets::new(&String::from_utf8_lossy(bytes));
                    faithful &= sets.recognised();
                }
                faithful &= push_element(out, tag, vr, big_endian, bytes, &sets);
            }
        }
    }
    out.push(']');
    faithful
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_has_its_own_character_set_and_only_it() {
        let mut raw = Vec::new();
        let value = |raw: &mut Vec<u8>, tag, vr, bytes: &[u8]| {
            push_value(raw, tag, vr, false, bytes.len());
            raw.extend(bytes);
        };
        raw.push(ITEM);
        value(&mut raw, SPECIFIC_CHARACTER_SET, VR::CS, b"ISO_IR 144");
        value(&mut raw, 0x0008_0104, VR::LO, b"\xbb");
        push_sequence(&mut raw, 0x0040_A730);
        raw.push(ITEM);
        value(&mut raw, 0x0008_0104, VR::LO, b"\xbb");
        raw.extend([END, END, END, ITEM]);
        value(&mut raw, 0x0008_0104, VR::LO, b"\xe9");
        raw.push(END);
        let mut out = String::new();
        assert!(push_items(&mut out, &raw, &CharacterSets::new("ISO_IR 100")));
        assert_eq!(
            out,
            concat!(
                r#"[{"00080005":{"vr":"CS","Value":["ISO_IR 144"]},"00080104":{"vr":"LO","Value":["Л"]},"#,
                r#""0040A730":{"vr":"SQ","Value":[{"00080104":{"vr":"LO","Value":["Л"]}}]}},"#,
                r#"{"00080104":{"vr":"LO","Value":["é"]}}]"#
            )
        );
    }
}
