//! The elements that all answers to a query have, in whatever form they are written.

use dicom_core::{Tag, VR};

use crate::model::attribute::AttributeId;
use crate::model::find::{FindAnswer, ItemKey, MomentCondition};
use crate::model::matching::{ItemMatching, Matching, SequenceMatching};
use crate::qr::parse::Query;

/// An element of each answer.
pub(super) struct AnsweredElement {
    pub(super) tag: Tag,
    pub(super) content: AnsweredContent,
}

/// Source of the value of an element.
pub(super) enum AnsweredContent {
    /// A private creator, the same in each answer.
    Creator(String),
    /// The value of the return key with this number.
    Value { at: usize, vr: VR },
    /// Items that the index keeps.
    Sequence(AnsweredSequence),
}

/// A sequence of each answer.
#[derive(Debug)]
pub(super) struct AnsweredSequence {
    /// Number of the return key.
    pub(super) at: usize,
    /// The elements of each item that are answered. None means all of them.
    pub(super) wanted: Vec<ItemKey>,
    /// Only items that fulfil it are answered.
    pub(super) condition: Option<AnsweredItems>,
}

/// The condition on the items of a sequence.
#[derive(Clone, Debug)]
pub(super) struct AnsweredItems {
    sequence: SequenceMatching,
    /// Number of the return key with the time zone of the data set, where it counts.
    zone_at: Option<usize>,
}

impl AnsweredItems {
    /// The condition on the items of an answer.
    pub(super) fn on<'a>(&'a self, answer: &'a FindAnswer) -> ItemMatching<'a> {
        self.sequence.in_zone(self.zone_at.map_or("", |at| answer.values.text(at)))
    }
}

impl Query {
    /// The elements that have values of the index, with the creators of private ones.
    pub(super) fn answered_elements(&self) -> Vec<AnsweredElement> {
        let mut elements = Vec::new();
        for (at, key) in self.request.return_keys.iter().enumerate() {
            let attribute = key.attribute.attribute();
            if !self.hidden.contains(&attribute.id) {
                let content = content(at, attribute.vr, &key.items, self.item_condition(key.attribute));
                elements.push(AnsweredElement { tag: attribute.tag, content });
            }
        }
        let declared = self.request.declared.iter().zip(&self.declared).filter(|(key, _)| key.is_answered);
        for (at, (key, answered_as)) in (self.request.return_keys.len()..).zip(declared) {
            let content = content(at, key.unit.vr, &key.items, self.condition_of(key.matching.as_ref()));
            elements.push(AnsweredElement { tag: answered_as.tag, content });
            let creator = answered_as.creator.clone();
            elements
                .extend(creator.map(|(tag, name)| AnsweredElement { tag, content: AnsweredContent::Creator(name) }));
        }
        elements
    }

    /// The condition on the items of a sequence, if there is one. Only items that fulfil it are
    /// answered.
    fn item_condition(&self, id: AttributeId) -> Option<AnsweredItems> {
        let of_items = self.request.matching_keys.iter().map(|key| (key.attribute, &key.matching));
        let in_zone = self.request.date_time_keys.iter().filter_map(|key| match &key.condition {
            MomentCondition::InZone(matching) => Some((key.date, matching)),
            MomentCondition::Range(_) => None,
        });
        let found = of_items.chain(in_zone).find(|(attribute, _)| *attribute == id);
        self.condition_of(found.map(|(_, matching)| matching))
    }

    /// The same for a condition that is known.
    fn condition_of(&self, matching: Option<&Matching>) -> Option<AnsweredItems> {
        let Some(Matching::Sequence(sequence)) = matching else { return None };
        let mut returned = self.request.return_keys.iter();
        let zone_at = returned.position(|key| key.attribute == AttributeId::TimezoneOffsetFromUTC);
        Some(AnsweredItems { sequence: sequence.clone(), zone_at })
    }
}

fn content(at: usize, vr: VR, wanted: &[ItemKey], condition: Option<AnsweredItems>) -> AnsweredContent {
    match vr {
        VR::SQ => AnsweredContent::Sequence(AnsweredSequence { at, wanted: wanted.to_vec(), condition }),
        vr => AnsweredContent::Value { at, vr },
    }
}
