//! Which elements of a data set are collected.

use std::sync::OnceLock;

use dicom_core::{Tag, VR};

use crate::model::attribute::{ATTRIBUTES, Source};

/// The number of a wanted element: its place in the list that [`Wanted::new`] was given. For [`Wanted::index`] this is
/// the number of the attribute in [`ATTRIBUTES`].
pub type Slot = u16;

/// The root elements that a header reader collects, and the VR that each has where the data set does not say.
#[derive(Debug)]
pub struct Wanted {
    /// Sorted; the last is [`u32::MAX`], so that the search in ascending order needs no bounds.
    pub(super) tags: Vec<u32>,
    pub(super) elements: Vec<Element>,
    /// The greatest wanted tag: past it, reading can stop.
    pub(super) last: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Element {
    pub(super) slot: Slot,
    pub(super) vr: VR,
    pub(super) role: Role,
}

/// What the reader itself needs an element for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    None,
    CharacterSet,
    /// SOP Class, SOP Instance, Study or Series Instance UID, as a bit each: without all of them reading does not stop
    /// at the last wanted tag, and without any of them bytes that lack the prefix are not taken for DICOM.
    Identifying(u8),
}

/// The slot of elements that only the reader itself wants.
const OWN: Slot = Slot::MAX;

const OWN_ELEMENTS: [(u32, VR, Role); 5] = [
    (0x0008_0005, VR::CS, Role::CharacterSet),
    (0x0008_0016, VR::UI, Role::Identifying(1)),
    (0x0008_0018, VR::UI, Role::Identifying(2)),
    (0x0020_000D, VR::UI, Role::Identifying(4)),
    (0x0020_000E, VR::UI, Role::Identifying(8)),
];

pub(super) const ALL_IDENTIFYING: u8 = 15;

pub(super) fn tag_number(tag: Tag) -> u32 {
    u32::from(tag.0) << 16 | u32::from(tag.1)
}

pub(super) fn tag_of(number: u32) -> Tag {
    Tag((number >> 16) as u16, number as u16)
}

impl Wanted {
    /// The elements with these tags; a slot of each is its place in the list.
    pub fn new(list: impl IntoIterator<Item = (Tag, VR)>) -> Self {
        Self::with_slots(list.into_iter().zip(0..OWN).map(|((tag, vr), slot)| (tag, vr, slot)))
    }

    /// What the index keeps: all attributes of [`ATTRIBUTES`] that come from the data set.
    pub fn index() -> &'static Self {
        static INDEX: OnceLock<Wanted> = OnceLock::new();
        INDEX.get_or_init(|| {
            let stored = ATTRIBUTES.iter().filter(|attribute| attribute.source == Source::DataSet);
            Self::with_slots(stored.map(|attribute| (attribute.tag, attribute.vr, attribute.id as Slot)))
        })
    }

    fn with_slots(list: impl IntoIterator<Item = (Tag, VR, Slot)>) -> Self {
        let mut rows: Vec<(u32, VR, Slot)> =
            list.into_iter().map(|(tag, vr, slot)| (tag_number(tag), vr, slot)).collect();
        for (tag, vr, _) in OWN_ELEMENTS {
            if !rows.iter().any(|row| row.0 == tag) {
                rows.push((tag, vr, OWN));
            }
        }
        rows.sort_unstable_by_key(|row| row.0);
        rows.dedup_by_key(|row| row.0);
        let role = |tag| OWN_ELEMENTS.iter().find(|own| own.0 == tag).map_or(Role::None, |own| own.2);
        let elements = rows.iter().map(|(tag, vr, slot)| Element { slot: *slot, vr: *vr, role: role(*tag) }).collect();
        let last = rows.last().map_or(0, |row| row.0);
        let tags = rows.into_iter().map(|row| row.0).chain([u32::MAX]).collect();
        Self { tags, elements, last }
    }
}
