//! What can be wrong with a data set that is read all the same.

use std::fmt;

use dicom_core::Tag;

/// A fault of the object. What was read before it (and, where reading could go on, after it) is kept.
///
/// The text names tags and offsets, never values: it ends in reports and in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The bytes end inside an element, an item or a sequence.
    Truncated {
        /// Where they end, counted from the start of the object (of the inflated data set when deflated).
        offset: u64,
    },
    /// Sequences lie deeper in each other than [`MAX_DEPTH`](super::limits::MAX_DEPTH). Reading stopped there.
    NestingTooDeep {
        /// The sequence that was not entered.
        tag: Tag,
    },
    /// More header than [`MAX_HEADER`](super::limits::MAX_HEADER). Reading stopped there.
    HeaderTooLong,
    /// The deflated data set inflates to more than [`MAX_INFLATED`](super::limits::MAX_INFLATED) before its last
    /// wanted element. Reading stopped there.
    InflatedTooLong,
    /// The deflated data set is damaged. Reading stopped there.
    Deflate,
    /// A wanted value is longer than [`MAX_VALUE`](super::limits::MAX_VALUE), or among the largest where all together are longer
    /// than [`MAX_VALUES`](super::limits::MAX_VALUES), and was left out.
    ValueTooLong {
        /// The element.
        tag: Tag,
    },
    /// Two bytes that are no VR where one should be.
    BadVr {
        /// The element.
        tag: Tag,
    },
    /// An element, item or sequence is longer than what it lies in.
    LengthPastEnd {
        /// The element.
        tag: Tag,
    },
    /// An item or sequence delimiter where none may be.
    StrayDelimiter {
        /// Where it stands, counted as in [`Fault::Truncated`].
        offset: u64,
    },
    /// An item or sequence of undefined length goes on past its end.
    MissingDelimiter {
        /// The sequence.
        tag: Tag,
    },
    /// Tags do not ascend.
    UnsortedTags {
        /// The first one that is not greater than the one before.
        tag: Tag,
    },
    /// The data set is not encoded as its Transfer Syntax UID says.
    WrongTransferSyntax,
    /// There is file meta information without Transfer Syntax UID; the encoding was found by looking.
    MissingTransferSyntax,
    /// The file meta information is not explicit VR little endian.
    MetaEncoding,
    /// Group 0002 is longer or shorter than (0002,0000) says.
    MetaLength,
    /// An element of group 0000 or 0002 stands before the data set, outside of a message and of the file meta information.
    ForeignGroup {
        /// The element.
        tag: Tag,
    },
    /// A sequence holds something else than items. It was left out.
    NoItem {
        /// The sequence.
        tag: Tag,
    },
    /// A term in Specific Character Set (0008,0005) is not known, or stands where it may not.
    CharacterSetUnknown,
    /// Text that its character set cannot explain; a fallback was taken.
    TextNotInCharacterSet {
        /// The element.
        tag: Tag,
    },
    /// The data set has no such UID; the one of the file meta information stands in.
    UidFromMeta {
        /// The attribute that is missing.
        tag: Tag,
    },
}

impl Fault {
    /// A stable word for counting faults of one kind; part of the interface of reports and of the index.
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
            Self::NoItem { .. } => "no-item",
            Self::CharacterSetUnknown => "unknown-character-set",
            Self::TextNotInCharacterSet { .. } => "text-not-in-character-set",
            Self::UidFromMeta { .. } => "uid-from-meta",
        }
    }

    /// The text that a record keeps: the word, a colon, and the fault in full.
    #[must_use]
    pub fn coded(self) -> String {
        format!("{}: {self}", self.code())
    }

    /// Whether reading could not go on past it.
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
            | Self::NoItem { .. }
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
            Self::LengthPastEnd { tag } => write!(f, "length of {tag} passes the end of what it lies in"),
            Self::StrayDelimiter { offset } => write!(f, "stray delimiter at byte {offset}"),
            Self::MissingDelimiter { tag } => write!(f, "sequence {tag} lacks a delimiter"),
            Self::UnsortedTags { tag } => write!(f, "tag {tag} is out of order"),
            Self::WrongTransferSyntax => f.write_str("data set is not encoded as its transfer syntax says"),
            Self::MissingTransferSyntax => f.write_str("file meta information has no transfer syntax"),
            Self::MetaEncoding => f.write_str("file meta information is not explicit little endian"),
            Self::MetaLength => f.write_str("file meta information has a wrong group length"),
            Self::ForeignGroup { tag } => write!(f, "element {tag} stands where none of its group may"),
            Self::NoItem { tag } => write!(f, "sequence {tag} holds something else than items"),
            Self::CharacterSetUnknown => f.write_str("specific character set is not known"),
            Self::TextNotInCharacterSet { tag } => write!(f, "text of {tag} is not in its character set"),
            Self::UidFromMeta { tag } => write!(f, "UID {tag} taken from the file meta information"),
        }
    }
}

/// How many faults of one kind are kept of one object: enough to find the place, few enough that an object made of
/// faults takes no memory.
const MAX_PER_KIND: usize = 3;

/// The faults of one object, in the order met, a few of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Notes a fault.
    pub fn add(&mut self, fault: Fault) {
        let kind = std::mem::discriminant(&fault);
        if self.0.iter().filter(|known| std::mem::discriminant(*known) == kind).count() < MAX_PER_KIND
            && !self.0.contains(&fault)
        {
            self.0.push(fault);
        }
    }

    /// The faults, in the order met.
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
