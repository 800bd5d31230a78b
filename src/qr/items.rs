//! Sequence keys: which elements of their items are supported (PS3.4 C.2.2.1.3), and which are
//! returned for each item (C.2.2.2.6).

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use crate::model::declared::{KeptNode, canonical_tag, creator_tag, is_private_creator};
use crate::model::find::ItemKey;
use crate::model::matching::{KeyElement, KeyValue, is_matched_in_item};

/// The elements of a sequence item that the index keeps.
#[derive(Clone, Copy)]
pub(super) enum KeptElements<'n> {
    /// All elements. Private elements cannot be told apart, because their blocks differ from object
    /// to object (PS3.5 7.8.1).
    All,
    /// Only the declared elements.
    Declared(&'n [KeptNode]),
}

impl<'n> KeptElements<'n> {
    /// Returns the elements kept of a declared sequence. No nodes means all elements.
    pub(super) fn of(nodes: &'n [KeptNode]) -> Self {
        if nodes.is_empty() { Self::All } else { Self::Declared(nodes) }
    }
}

/// Returns the private creators of a data set or an item, with the tag of the block that each
/// reserves.
pub(super) fn creators(elements: &[KeyElement]) -> Vec<(Tag, String)> {
    let creators = elements.iter().filter(|element| is_private_creator(element.tag));
    creators
        .filter_map(|element| match &element.value {
            KeyValue::Text(text) => Some((element.tag, text.trim_matches(' ').to_owned())),
            KeyValue::Items(_) => None,
        })
        .collect()
}

/// Returns the part of a key that the index can answer.
///
/// In the items of a sequence, unsupported elements are noted and lose their values, so that they
/// become universal. Declared private elements move to the block where the index keeps them: see
/// [`canonical_tag`].
pub(super) fn supported(value: &KeyValue, kept: KeptElements<'_>, unsupported: &mut Vec<Tag>) -> KeyValue {
    let KeyValue::Items(items) = value else { return value.clone() };
    KeyValue::Items(items.iter().map(|item| supported_item(item, kept, unsupported)).collect())
}

/// The keys of a request without levels, whose attributes are all kept in items of the DICOM JSON
/// Model: a worklist.
pub(crate) struct ItemRequest {
    /// The keys that can be matched, as those of one item.
    pub(crate) keys: Vec<KeyElement>,
    /// The attributes to return.
    pub(crate) wanted: Vec<ItemKey>,
    /// Keys with a value that cannot be matched.
    pub(crate) unsupported: Vec<Tag>,
}

impl ItemRequest {
    /// Sorts out the keys of a request.
    pub(crate) fn new(elements: &[KeyElement]) -> Self {
        let mut unsupported = Vec::new();
        let keys = supported_item(elements, KeptElements::All, &mut unsupported);
        let value = KeyValue::Items(vec![keys]);
        let wanted = item_keys(&value);
        let keys = match value {
            KeyValue::Items(mut items) => items.pop().unwrap_or_default(),
            KeyValue::Text(_) => Vec::new(),
        };
        Self { keys, wanted, unsupported }
    }
}

fn supported_item(item: &[KeyElement], kept: KeptElements<'_>, unsupported: &mut Vec<Tag>) -> Vec<KeyElement> {
    let creators = creators(item);
    let mut elements: Vec<KeyElement> = Vec::new();
    for element in item {
        let tag = element.tag;
        // Specific Character Set says how the item is encoded, and is not a key (PS3.4 C.2.2.2).
        // Group lengths carry no information.
        if tag == tags::SPECIFIC_CHARACTER_SET || tag.element() == 0 {
            continue;
        }
        if is_private_creator(tag) {
            // It is never matched. For declared elements, it is added below, at the tag that the
            // index uses.
            if matches!(kept, KeptElements::All) {
                elements.push(without_value(element));
            }
            continue;
        }
        let creator = creator_tag(tag).and_then(|tag| creators.iter().find(|(known, _)| *known == tag));
        let creator = creator.map(|(_, creator)| creator.as_str());
        let node = match kept {
            KeptElements::All => None,
            KeptElements::Declared(nodes) => {
                nodes.iter().find(|node| node.step.is(tag, creator)).map(|node| (nodes, node))
            }
        };
        let supported = match (kept, node) {
            (_, Some((nodes, node))) => {
                let (tag, block) = canonical_tag(nodes, &node.step);
                if let Some(block) = block.filter(|block| !elements.iter().any(|element| element.tag == *block)) {
                    // The private creator is requested so that the answer has it. It is never
                    // matched.
                    elements.push(KeyElement { tag: block, vr: VR::LO, value: KeyValue::Text(String::new()) });
                }
                let vr = if element.vr == VR::UN { node.vr } else { element.vr };
                let value = supported(&element.value, KeptElements::of(&node.items), unsupported);
                Some(KeyElement { tag, vr, value })
            }
            (KeptElements::All, None) if tag.group().is_multiple_of(2) => {
                let value = supported(&element.value, KeptElements::All, unsupported);
                Some(KeyElement { tag, vr: element.vr, value })
            }
            (KeptElements::All | KeptElements::Declared(_), None) => None,
        };
        let has_value = element.value.has_text();
        elements.push(match supported.filter(|element| !has_value || is_matched_in_item(element)) {
            Some(supported) => supported,
            None => {
                unsupported.extend(has_value.then_some(tag));
                without_value(element)
            }
        });
    }
    elements
}

fn without_value(element: &KeyElement) -> KeyElement {
    let value = match &element.value {
        KeyValue::Text(_) => KeyValue::Text(String::new()),
        KeyValue::Items(_) => KeyValue::Items(Vec::new()),
    };
    KeyElement { tag: element.tag, vr: element.vr, value }
}

/// Returns the attributes to return of the items of a sequence (PS3.4 C.2.2.2.6).
pub(super) fn item_keys(key: &KeyValue) -> Vec<ItemKey> {
    let KeyValue::Items(items) = key else { return Vec::new() };
    let mut keys: Vec<ItemKey> =
        items.iter().flatten().map(|element| ItemKey { tag: element.tag, items: item_keys(&element.value) }).collect();
    keys.sort_by_key(|key| key.tag);
    keys.dedup_by_key(|key| key.tag);
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::declared::SelectorStep;

    // PS3.4 C.2.2.1.3, PS3.5 7.8.1.
    #[test]
    fn of_declared_items_only_what_is_declared_is_matched() {
        let text = |tag, vr, text: &str| KeyElement { tag, vr, value: KeyValue::Text(text.into()) };
        let step = SelectorStep::Private { group: 0x0009, element: 0x01, creator: "ACME".into() };
        let nodes = [
            KeptNode { step, vr: VR::LO, items: Vec::new() },
            KeptNode { step: SelectorStep::Public(Tag(0x0008, 0x0100)), vr: VR::SH, items: Vec::new() },
        ];
        let item = vec![
            text(Tag(0x0008, 0x0005), VR::CS, "ISO_IR 192"),
            text(Tag(0x0008, 0x0100), VR::SH, "A"),
            text(Tag(0x0008, 0x0104), VR::LO, "not declared"),
            text(Tag(0x0009, 0x0020), VR::LO, "OTHER"),
            text(Tag(0x0009, 0x0030), VR::LO, "ACME"),
            text(Tag(0x0009, 0x2001), VR::LO, "of another"),
            text(Tag(0x0009, 0x3001), VR::UN, "x"),
        ];
        let mut unsupported = Vec::new();
        let key = supported(&KeyValue::Items(vec![item]), KeptElements::of(&nodes), &mut unsupported);
        let KeyValue::Items(items) = key else { panic!("a sequence stays one") };
        let values: Vec<_> = items[0]
            .iter()
            .map(|element| match &element.value {
                KeyValue::Text(text) => (element.tag, element.vr, text.as_str()),
                KeyValue::Items(_) => (element.tag, element.vr, "items"),
            })
            .collect();
        assert_eq!(
            values,
            [
                (Tag(0x0008, 0x0100), VR::SH, "A"),
                (Tag(0x0008, 0x0104), VR::LO, ""),
                (Tag(0x0009, 0x2001), VR::LO, ""),
                (Tag(0x0009, 0x0010), VR::LO, ""),
                (Tag(0x0009, 0x1001), VR::LO, "x"),
            ]
        );
        assert_eq!(unsupported, [Tag(0x0008, 0x0104), Tag(0x0009, 0x2001)]);
    }
}
