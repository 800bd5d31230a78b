//! Comparison of names, and conditions that an index can use to find values.

/// Comparison of person names (PS3.4 C.2.2.2.1 leaves it to the SCP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NameMatching {
    /// A name without wild cards also matches names with more components: `SMITH` finds
    /// `SMITH^JOHN`.
    #[default]
    LeadingComponents,
    /// Only names with the same components match.
    Exact,
    /// Fuzzy semantic matching, which is negotiated. Each word of the key begins a word of the name
    /// or sounds like it. The order is free.
    Fuzzy,
}

/// A condition that an index can use to find candidates for a [`super::Matching`].
///
/// Every stored value that the matching accepts fulfils this condition. Values are in the form of
/// [`crate::model::record::InstanceRecord`], and a missing value is the empty text. The exception
/// is a value with a backslash, if [`super::Matching::looks_into_separated_values`] is true. A
/// candidate need not match, except for [`Self::Equals`], so [`super::Matching::matches`] decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Narrowing {
    /// No condition: every value must be tested.
    None,
    /// Stored values that are equal to one of these, byte for byte. They need no further test.
    Equals(Vec<String>),
    /// Stored values between these two in byte order, both included.
    Between(String, String),
    /// Stored values that begin with this, byte for byte.
    Prefix(String),
    /// Person names with a component group whose [`crate::model::person_name::normal_form`] begins
    /// with this.
    NamePrefix(String),
    /// Person names with a word (see [`crate::model::person_name::words`]) that contains this part.
    NamePart(NamePart),
    /// Person names with a word that begins with `prefix` or has one of these `sounds` (see
    /// [`crate::model::metaphone`]).
    NameWord {
        /// Beginning of the word.
        prefix: String,
        /// Sound codes. The word must have one of them.
        sounds: Vec<String>,
    },
}

/// Part of a word of a person name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePart {
    /// In normal form.
    pub text: String,
    /// Whether the word begins with it.
    pub starts: bool,
    /// Whether the word ends with it.
    pub ends: bool,
}

impl NamePart {
    /// Estimated selectivity: a higher number means fewer matching words. One more letter counts
    /// more than an anchored end.
    pub(super) fn selectivity(&self) -> usize {
        self.text.len() * 2 + usize::from(self.starts) + usize::from(self.ends)
    }
}

/// Whether a key is universal: it is empty (PS3.4 C.2.2.2.3), or it has only stars (C.2.2.2.4).
pub(super) fn is_all_stars(key: &str) -> bool {
    key.bytes().all(|byte| matches!(byte, b'*' | b' '))
}
