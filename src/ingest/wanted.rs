//! The elements that a header reader collects.

use std::sync::{Arc, OnceLock};

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use crate::encoding::tag::{SPECIFIC_CHARACTER_SET, tag_number, tag_of};
use crate::model::attribute::{ATTRIBUTE_COUNT, ATTRIBUTES, ValueSource};
use crate::model::declared::{DeclaredSet, KeptNode, SelectorStep};

/// Number of a wanted element: its position in the list given to [`Wanted::new`]. For
/// [`Wanted::index`] it is the number of the attribute in [`ATTRIBUTES`].
pub type Slot = u16;

/// The root elements that a header reader collects. Each has a VR for data sets without VRs.
#[derive(Debug)]
pub struct Wanted {
    /// Sorted. The last is [`u32::MAX`], so that the ascending search needs no bounds check.
    pub(super) tags: Vec<u32>,
    pub(super) elements: Vec<Element>,
    /// The greatest wanted tag. Reading can stop after it.
    pub(super) last: u32,
    /// For some sequences, by slot: the elements that are wanted of their items. All elements of
    /// other sequences are wanted.
    pub(super) filters: Vec<(Slot, ItemFilter)>,
    /// The declared attributes, if there are any.
    pub(super) declared: Option<Arc<DeclaredSet>>,
}

/// Elements that may be wanted anywhere in the items of a sequence. This filter is coarse, and its
/// result is cut down later.
#[derive(Debug, Default)]
pub(super) struct ItemFilter {
    tags: Vec<u32>,
    /// Groups of private elements, with the low bytes of their element numbers.
    private: Vec<(u16, u8)>,
}

impl ItemFilter {
    /// Returns `None` if whole items are wanted.
    fn of(nodes: &[KeptNode]) -> Option<Self> {
        // An item may have its own character set (PS3.3 C.12.1.1.2).
        let mut filter = Self { tags: vec![SPECIFIC_CHARACTER_SET], private: Vec::new() };
        filter.add(nodes).then_some(filter)
    }

    fn add(&mut self, nodes: &[KeptNode]) -> bool {
        nodes.iter().all(|node| {
            match &node.step {
                SelectorStep::Public(tag) => self.tags.push(tag_number(*tag)),
                SelectorStep::Private { group, element, .. } => self.private.push((*group, *element)),
            }
            if node.items.is_empty() { node.vr != VR::SQ } else { self.add(&node.items) }
        })
    }

    pub(super) fn lets_through(&self, tag: u32) -> bool {
        let Tag(group, element) = tag_of(tag);
        self.tags.contains(&tag)
            || self.private.iter().any(|(wanted, low)| {
                *wanted == group && (element & 0xFF == u16::from(*low) || (0x0010..=0x00FF).contains(&element))
            })
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Element {
    pub(super) slot: Slot,
    pub(super) vr: VR,
    pub(super) role: Role,
}

/// Purpose of an element for the reader itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    None,
    CharacterSet,
    /// SOP Class, SOP Instance, Study or Series Instance UID, one bit each.
    ///
    /// If one is missing, reading does not stop at the last wanted tag. If all are missing, bytes
    /// without the prefix are not taken for DICOM.
    Identifying(u8),
}

/// Slot of elements that only the reader itself needs.
const OWN: Slot = Slot::MAX;

/// Slot of private creators.
pub(super) const CREATOR: Slot = Slot::MAX - 1;

/// Slot of the first declared unit.
pub(super) const FIRST_DECLARED: Slot = ATTRIBUTE_COUNT as Slot;

const OWN_ELEMENTS: [(u32, VR, Role); 5] = [
    (SPECIFIC_CHARACTER_SET, VR::CS, Role::CharacterSet),
    (0x0008_0016, VR::UI, Role::Identifying(1)),
    (0x0008_0018, VR::UI, Role::Identifying(2)),
    (0x0020_000D, VR::UI, Role::Identifying(4)),
    (0x0020_000E, VR::UI, Role::Identifying(8)),
];

pub(super) const ALL_IDENTIFYING: u8 = 15;

impl Wanted {
    /// Collects the elements with these tags. The slot of each is its position in the list.
    pub fn new(list: impl IntoIterator<Item = (Tag, VR)>) -> Self {
        Self::with_slots(list.into_iter().zip(0..OWN).map(|((tag, vr), slot)| (tag, vr, slot)))
    }

    /// Collects the elements that the index keeps: all attributes of [`ATTRIBUTES`] that come from
    /// the data set.
    pub fn index() -> &'static Self {
        static INDEX: OnceLock<Wanted> = OnceLock::new();
        INDEX.get_or_init(|| Self::with_slots(in_table()))
    }

    /// Collects the UIDs that [`Parsed::sop_uids`](super::Parsed::sop_uids) returns.
    pub fn sop_uids() -> &'static Self {
        static SOP_UIDS: OnceLock<Wanted> = OnceLock::new();
        SOP_UIDS.get_or_init(|| Self::new([(tags::SOP_CLASS_UID, VR::UI), (tags::SOP_INSTANCE_UID, VR::UI)]))
    }

    /// Collects the elements that the index keeps and the declared ones. It is built once for a
    /// configuration and stays until the process ends.
    #[must_use]
    pub fn with_declared(declared: &Arc<DeclaredSet>) -> &'static Self {
        if declared.is_empty() {
            return Self::index();
        }
        let mut rows: Vec<(Tag, VR, Slot)> = in_table().collect();
        let mut filters = Vec::new();
        for unit in declared.units() {
            let slot = FIRST_DECLARED + unit.number as Slot;
            if !unit.items.is_empty()
                && let Some(filter) = ItemFilter::of(&unit.items)
            {
                filters.push((slot, filter));
            }
            match &unit.root {
                SelectorStep::Public(tag) => rows.push((*tag, unit.vr, slot)),
                SelectorStep::Private { group, element, .. } => {
                    // The element may be in any block (PS3.5 7.8.1). Two creators can have the same
                    // tag. The creator decides once everything is read.
                    for block in 0x10..=0xFF_u16 {
                        rows.push((Tag(*group, block), VR::LO, CREATOR));
                        rows.push((Tag(*group, block << 8 | u16::from(*element)), unit.vr, slot));
                    }
                }
            }
        }
        let wanted = Self { filters, declared: Some(Arc::clone(declared)), ..Self::with_slots(rows) };
        Box::leak(Box::new(wanted))
    }

    fn with_slots(list: impl IntoIterator<Item = (Tag, VR, Slot)>) -> Self {
        let mut rows: Vec<(u32, VR, Slot)> =
            list.into_iter().map(|(tag, vr, slot)| (tag_number(tag), vr, slot)).collect();
        for (tag, vr, _) in OWN_ELEMENTS {
            if !rows.iter().any(|row| row.0 == tag) {
                rows.push((tag, vr, OWN));
            }
        }
        rows.sort_by_key(|row| row.0);
        rows.dedup_by_key(|row| row.0);
        let role = |tag| OWN_ELEMENTS.iter().find(|own| own.0 == tag).map_or(Role::None, |own| own.2);
        let elements = rows.iter().map(|(tag, vr, slot)| Element { slot: *slot, vr: *vr, role: role(*tag) }).collect();
        let last = rows.last().map_or(0, |row| row.0);
        let tags = rows.into_iter().map(|row| row.0).chain([u32::MAX]).collect();
        Self { tags, elements, last, filters: Vec::new(), declared: None }
    }

    /// Returns the filter for the items of a sequence. `None` if whole items are wanted.
    pub(super) fn filter(&self, slot: Slot) -> Option<&ItemFilter> {
        self.filters.iter().find(|(own, _)| *own == slot).map(|(_, filter)| filter)
    }
}

fn in_table() -> impl Iterator<Item = (Tag, VR, Slot)> {
    let stored = ATTRIBUTES.iter().filter(|attribute| attribute.source == ValueSource::DataSet);
    stored.map(|attribute| (attribute.tag, attribute.vr, attribute.id as Slot))
}
