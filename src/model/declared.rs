//! Attributes that the configuration declares in addition to the table.
//!
//! They are public attributes by keyword or tag, private ones by creator and element (PS3.5 7.8.1),
//! and attributes inside the items of sequences.
//!
//! A [`Unit`] holds what the index keeps of one declared root element. It holds the value of the
//! element. For a sequence, it holds the items, cut down to the declared attributes. The table
//! keeps some sequences as a whole. A path into such a sequence needs no unit: it only gives a name
//! to a value that is already kept.

use std::fmt;
use std::sync::{Arc, OnceLock};

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

use super::attribute::{AttributeId, LetterCase, Multiplicity};
use super::level::QueryRetrieveLevel;
use super::matching::Comparison;
use crate::encoding::padding::without_padding;

/// One step of a path. It names an element of a data set or of an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SelectorStep {
    /// An element of the Standard.
    Public(Tag),
    /// A private element. Its block differs from object to object (PS3.5 7.8.1).
    Private {
        /// Group of the element. It is odd.
        group: u16,
        /// Low byte of the element number.
        element: u8,
        /// Value of the private creator element that reserves the block.
        creator: String,
    },
}

impl fmt::Display for SelectorStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public(tag) => match StandardDataDictionary.by_tag(*tag) {
                Some(entry) if *tag == entry.tag() => f.write_str(entry.alias()),
                _ => write!(f, "{:04X},{:04X}", tag.0, tag.1),
            },
            Self::Private { group, element, .. } => write!(f, "{group:04X}xx{element:02X}"),
        }
    }
}

/// An element that is kept of each item of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptNode {
    /// The element.
    pub step: SelectorStep,
    /// Value representation.
    pub vr: VR,
    /// Elements that are kept of its items. If empty, the whole items are kept.
    pub items: Vec<KeptNode>,
}

/// A root element that is kept because it or something inside it is declared.
#[derive(Debug, PartialEq, Eq)]
pub struct Unit {
    /// Position in [`DeclaredSet::units`].
    pub number: usize,
    /// The element.
    pub root: SelectorStep,
    /// Level of the entity that has the attribute.
    pub level: QueryRetrieveLevel,
    /// Value representation.
    pub vr: VR,
    /// Value multiplicity.
    pub multiplicity: Multiplicity,
    /// For a sequence: the elements that are kept of its items. If empty, the whole items are kept.
    pub items: Vec<KeptNode>,
    /// Key under which the index keeps the values. Equal declarations give the same key in every
    /// index, and different declarations give different keys.
    pub key: String,
}

impl Unit {
    /// Returns how values of this unit are compared.
    #[must_use]
    pub fn comparison(&self) -> Comparison {
        Comparison { vr: self.vr, multiplicity: self.multiplicity, letter_case: LetterCase::of_vr(self.vr) }
    }
}

/// One declared attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Name of the attribute for `dcmdex find`.
    pub name: String,
    /// Steps from the root of the data set to the element. All but the last are sequences.
    pub path: Vec<SelectorStep>,
    /// Level of the entity that has the attribute.
    pub level: QueryRetrieveLevel,
    /// Value representation.
    pub vr: VR,
    /// Place where the value is kept.
    pub kept: DeclaredColumn,
}

/// Place where the value of a declared attribute is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclaredColumn {
    /// In the unit with this number.
    Unit(usize),
    /// In a sequence of the table, which is kept as a whole.
    InTable(AttributeId),
}

/// All declared attributes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DeclaredSet {
    attributes: Vec<Declared>,
    units: Vec<Arc<Unit>>,
    /// Sorted hashes of the keys, without duplicates. See [`Self::mark`].
    mark: String,
}

impl DeclaredSet {
    /// Returns an empty set.
    #[must_use]
    pub fn none() -> &'static Arc<Self> {
        static NONE: OnceLock<Arc<DeclaredSet>> = OnceLock::new();
        NONE.get_or_init(Arc::default)
    }

    pub(super) fn of_units(attributes: Vec<Declared>, units: Vec<Arc<Unit>>) -> Self {
        let mut hashes: Vec<&str> = units.iter().map(|unit| hash_of(&unit.key)).collect();
        hashes.sort_unstable();
        let mark = hashes.join(" ");
        Self { attributes, units, mark }
    }

    /// Whether the header reader has nothing to read for this set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Returns the attributes, in the order of the configuration.
    #[must_use]
    pub fn attributes(&self) -> &[Declared] {
        &self.attributes
    }

    /// Returns the units that keep the values.
    #[must_use]
    pub fn units(&self) -> &[Arc<Unit>] {
        &self.units
    }

    /// Returns a text that identifies the set. The index stores it beside what was read with the
    /// set: see [`Self::is_covered_by`].
    #[must_use]
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Whether an object that was read with the set of this mark already has every value that this
    /// set needs.
    #[must_use]
    pub fn is_covered_by(&self, mark: &str) -> bool {
        mark == self.mark || self.units.iter().all(|unit| mark.split(' ').any(|hash| hash == hash_of(&unit.key)))
    }

    /// Returns a set that keeps only some of the units. It is for questions about what was read
    /// with them ([`Self::is_covered_by`]) and has no attributes.
    #[must_use]
    pub fn with_units(&self, numbers: &[usize]) -> Self {
        Self::of_some(self.units.iter().filter(|unit| numbers.contains(&unit.number)).map(Arc::clone))
    }

    /// Returns a set of units of another one, each with its number there. It has no attributes.
    #[must_use]
    pub fn of_some(units: impl Iterator<Item = Arc<Unit>>) -> Self {
        Self::of_units(Vec::new(), units.collect())
    }

    /// Returns the mark of what this set and that of another mark have in common.
    #[must_use]
    pub fn common_mark(&self, mark: &str) -> String {
        let is_own = |hash: &&str| self.mark.split(' ').any(|own| own == *hash);
        mark.split(' ').filter(|hash| !hash.is_empty()).filter(is_own).collect::<Vec<_>>().join(" ")
    }

    /// Returns the unit of a root element. For a private element, `creator` is the value of its
    /// private creator.
    #[must_use]
    pub fn unit(&self, tag: Tag, creator: Option<&str>) -> Option<&Arc<Unit>> {
        self.units.iter().find(|unit| unit.root.is(tag, creator))
    }

    /// Returns the attribute with this name. Case does not matter.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Declared> {
        self.attributes.iter().find(|attribute| attribute.name.eq_ignore_ascii_case(name))
    }
}

impl SelectorStep {
    /// Whether this step names the element with the tag. For a private element, `creator` is the
    /// value of its private creator.
    #[must_use]
    pub fn is(&self, tag: Tag, creator: Option<&str>) -> bool {
        match self {
            Self::Public(own) => *own == tag,
            Self::Private { group, element, creator: own } => {
                *group == tag.group()
                    && tag.element() >= 0x1000
                    && tag.element() & 0xFF == u16::from(*element)
                    && creator.is_some_and(|creator| without_padding(creator) == own)
            }
        }
    }
}

/// Whether the tag is that of a private creator element (PS3.5 7.8.1).
#[must_use]
pub fn is_private_creator(tag: Tag) -> bool {
    tag.group() % 2 == 1 && (0x0010..=0x00FF).contains(&tag.element())
}

/// Returns the tag of the private creator element that reserves the block of a private element.
/// `None` for an element of the Standard.
#[must_use]
pub fn creator_tag(tag: Tag) -> Option<Tag> {
    (tag.group() % 2 == 1 && tag.element() >= 0x1000).then(|| Tag(tag.group(), tag.element() >> 8))
}

/// Returns the tag of an element in the items that the index keeps, and the tag of its private
/// creator element.
///
/// In these items, private blocks are numbered anew. The block of a creator is its position among
/// all creators of the group in the unit.
#[must_use]
pub fn canonical_tag(items: &[KeptNode], step: &SelectorStep) -> (Tag, Option<Tag>) {
    match step {
        SelectorStep::Public(tag) => (*tag, None),
        SelectorStep::Private { group, element, creator } => {
            let mut creators = Vec::new();
            for node in items {
                if let SelectorStep::Private { group: other, creator, .. } = &node.step
                    && other == group
                    && !creators.contains(&creator)
                {
                    creators.push(creator);
                }
            }
            let at = creators.iter().position(|known| *known == creator).unwrap_or_default();
            // At most 128 attributes are declared, and a group has 240 blocks.
            let block = 0x10 + u16::try_from(at).unwrap_or_default();
            (Tag(*group, block << 8 | u16::from(*element)), Some(Tag(*group, block)))
        }
    }
}

/// Returns the hash at the end of a key.
fn hash_of(key: &str) -> &str {
    key.rsplit('_').next().unwrap_or(key)
}
