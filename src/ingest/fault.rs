//! Faults of a data set that do not prevent indexing it.

use std::fmt;

use dicom_core::Tag;

/// A fault of an object.
///
/// Everything before the fault is kept. If reading could go on, everything after it is kept too.
/// The text names tags and offsets but never values, because it appears in reports and in the
/// index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The bytes end inside an element, an item or a sequence.
    Truncated {
        /// Offset of the end, from the start of the object. For a deflated object, from the start
        /// of the inflated data set.
        offset: u64,
    },
    /// Sequences are nested deeper than [`MAX_DEPTH`](super::limits::MAX_DEPTH). Reading stopped
    /// there.
    NestingTooDeep {
        /// The first sequence that was not read.
        tag: Tag,
    },
    /// The header is longer than [`MAX_HEADER`](super::limits::MAX_HEADER). Reading stopped there.
    HeaderTooLong,
    /// The deflated data set inflates to more than [`MAX_INFLATED`](super::limits::MAX_INFLATED)
    /// before its last wanted element. Reading stopped there.
    InflatedTooLong,
    /// The deflated data set is damaged. Reading stopped there.
    Deflate,
    /// A wanted value was left out because it is too long.
    ///
    /// Either it is longer than [`MAX_VALUE`](super::limits::MAX_VALUE), or all values together are
    /// longer than [`MAX_VALUES`](super::limits::MAX_VALUES) and it is among the largest.
    ValueTooLong {
        /// The element.
        tag: Tag,
    },
    /// Two bytes are not a VR where a VR is required.
    BadVr {
        /// The element.
        tag: Tag,
    },
    /// An element, item or sequence is longer than its enclosing data set, item or sequence.
    LengthPastEnd {
        /// The element.
        tag: Tag,
    },
    /// An item or sequence delimiter is not allowed at this position.
    StrayDelimiter {
        /// Offset of the delimiter, counted as in [`Fault::Truncated`].
        offset: u64,
    },
    /// An item or sequence of undefined length has no delimiter at its end.
    MissingDelimiter {
        /// The sequence.
        tag: Tag,
    },
    /// Tags are not in ascending order.
    UnsortedTags {
        /// The first tag that is not greater than the one before.
        tag: Tag,
    },
    /// The data set is not encoded in its declared Transfer Syntax UID.
    WrongTransferSyntax,
    /// The File Meta Information has no Transfer Syntax UID. The reader found the encoding from the
    /// bytes.
    MissingTransferSyntax,
    /// The File Meta Information is not in Explicit VR Little Endian.
    MetaEncoding,
    /// Group 0002 is longer or shorter than (0002,0000) declares.
    MetaLength,
    /// An element of group 0000 or 0002 precedes the data set. It is not part of a message or of
    /// the File Meta Information.
    ForeignGroup {
        /// The element.
        tag: Tag,
    },
    /// A sequence contains something other than an item. It was left out.
    NotAnItem {
        /// The sequence.
        tag: Tag,
    },
    /// A term in Specific Character Set (0008,0005) is unknown, or not allowed at its position.
    CharacterSetUnknown,
    /// A text is invalid in its character set, and was decoded by the fallback (docs/conformance.md
    /// 4).
    TextNotInCharacterSet {
        /// The element.
        tag: Tag,
    },
    /// The data set lacks a UID. The UID of the File Meta Information was used.
    UidFromMeta {
        /// The missing attribute.
        tag: Tag,
    },
}

impl Fault {
    /// Returns a stable word for counting faults of one kind. Reports and the index depend on it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::NestingTooDeep { .. } => "nesting-too-deep",
            Self::HeaderTooLong => "header-too-long",
            Self::InflatedTooLong => "inflated-too-long",
            Self::Deflate => "bad-deflate",
            Self::ValueTooLong { .. } => "value-too-long",
            Self::BadVr { .. } => "bad-vr",
            Self::LengthPastEnd { .. } => "length-past-end",
            Self::StrayDelimiter { .. } => "stray-delimiter",
            Self::MissingDelimiter { .. } => "missing-delimiter",
            Self::UnsortedTags { .. } => "unsorted-tags",
            Self::WrongTransferSyntax => "wrong-transfer-syntax",
            Self::MissingTransferSyntax => "missing-transfer-syntax",
            Self::MetaEncoding => "meta-encoding",
            Self::MetaLength => "meta-length",
            Self::ForeignGroup { .. } => "foreign-group",
            Self::NotAnItem { .. } => "no-item",
            Self::CharacterSetUnknown => "unknown-character-set",
            Self::TextNotInCharacterSet { .. } => "text-not-in-character-set",
            Self::UidFromMeta { .. } => "uid-from-meta",
        }
    }

    /// Returns the text that a record keeps: the word, a colon, and the message.
    #[must_use]
    pub fn coded(self) -> String {
        format!("{}: {self}", self.code())
    }

    /// Whether reading stopped at this fault.
    #[must_use]
    pub fn ended_reading(self) -> bool {
        match self {
            Self::Truncated { .. }
            | Self::NestingTooDeep { .. }
            | Self::HeaderTooLong
            | Self::InflatedTooLong
            | Self::Deflate => true,
            Self::ValueTooLong { .. }
            | Self::BadVr { .. }
            | Self::LengthPastEnd { .. }
            | Self::StrayDelimiter { .. }
            | Self::MissingDelimiter { .. }
            | Self::UnsortedTags { .. }
            | Self::WrongTransferSyntax
            | Self::MissingTransferSyntax
            | Self::MetaEncoding
            | Self::MetaLength
            | Self::ForeignGroup { .. }
            | Self::NotAnItem { .. }
            | Self::CharacterSetUnknown
            | Self::TextNotInCharacterSet { .. }
            | Self::UidFromMeta { .. } => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { offset } => write!(f, "truncated at byte {offset}"),
            Self::NestingTooDeep { tag } => write!(f, "sequence {tag} is nested too deep"),
            Self::HeaderTooLong => f.write_str("header is too long"),
            Self::InflatedTooLong => f.write_str("inflated data set is too long"),
            Self::Deflate => f.write_str("deflated data set is damaged"),
            Self::ValueTooLong { tag } => write!(f, "value of {tag} is too long"),
            Self::BadVr { tag } => write!(f, "element {tag} has no valid VR"),
            Self::LengthPastEnd { tag } => write!(f, "length of {tag} exceeds its data set, item or sequence"),
            Self::StrayDelimiter { offset } => write!(f, "stray delimiter at byte {offset}"),
            Self::MissingDelimiter { tag } => write!(f, "sequence {tag} has no delimiter at its end"),
            Self::UnsortedTags { tag } => write!(f, "tag {tag} is out of order"),
            Self::WrongTransferSyntax => f.write_str("data set is not encoded as its transfer syntax says"),
            Self::MissingTransferSyntax => f.write_str("file meta information has no transfer syntax"),
            Self::MetaEncoding => f.write_str("file meta information is not explicit little endian"),
            Self::MetaLength => f.write_str("file meta information has a wrong group length"),
            Self::ForeignGroup { tag } => write!(f, "element {tag} is not part of a data set"),
            Self::NotAnItem { tag } => write!(f, "sequence {tag} contains something other than items"),
            Self::CharacterSetUnknown => f.write_str("Specific Character Set is not known"),
            Self::TextNotInCharacterSet { tag } => write!(f, "text of {tag} is not in its character set"),
            Self::UidFromMeta { tag } => write!(f, "UID {tag} taken from the file meta information"),
        }
    }
}

/// Maximum number of faults of one kind that are kept for one object. Three are enough to find the
/// cause. An object full of faults then takes no memory.
const MAX_PER_KIND: usize = 3;

/// Faults of one object in the order in which they were met, with a few of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault.
    pub fn add(&mut self, fault: Fault) {
        let kind = std::mem::discriminant(&fault);
        if self.0.iter().filter(|known| std::mem::discriminant(*known) == kind).count() < MAX_PER_KIND
            && !self.0.contains(&fault)
        {
            self.0.push(fault);
        }
    }

    /// Returns the faults in the order in which they were met.
    #[must_use]
    pub fn as_slice(&self) -> &[Fault] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_made_of_faults_keeps_a_few_of_each_kind() {
        let mut faults = Faults::default();
        for offset in 0..1_000_000 {
            faults.add(Fault::StrayDelimiter { offset });
        }
        faults.add(Fault::Truncated { offset: 7 });
        assert_eq!(faults.as_slice().len(), MAX_PER_KIND + 1);
        assert_eq!(faults.as_slice().last().map(ToString::to_string).as_deref(), Some("truncated at byte 7"));
    }
}
