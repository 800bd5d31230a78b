//! How names are compared, and what an index can use to find values.

/// How person names are compared (PS3.4 C.2.2.2.1 leaves it to the SCP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NameMatching {
    /// A name without wild cards and with fewer components also matches those with more: `SMITH` finds `SMITH^JOHN`.
    #[default]
    LeadingComponents,
    /// Only names with the same components.
    Exact,
    /// Fuzzy semantic matching, negotiated: each word of the key begins a word of the name or sounds like it, in any order.
    Fuzzy,
}

/// What an index can use to find the values that a [`super::Matching`] may accept. Every stored value in the form of
/// [`crate::model::record::InstanceRecord`] that it accepts fulfils the narrowing, or has a backslash in it where
/// [`super::Matching::looks_into_separated_values`]. The reverse need not hold unless [`Self::Equals`] says so, so
/// [`super::Matching::matches`] has the last word. No value at all is the empty text here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Narrowing {
    /// No help: every value has to be looked at.
    None,
    /// Exactly the stored values that are equal to one of these, byte for byte; needs no second look.
    Equals(Vec<String>),
    /// Stored values from the first up to and including the second, in byte order.
    Between(String, String),
    /// Stored values that begin with this, byte for byte.
    Prefix(String),
    /// Person names of which any component group, in [`crate::model::person_name::normal_form`], begins with this.
    NamePrefix(String),
    /// Person names that have a word (see [`crate::model::person_name::words`]) with this in it.
    NamePart(NamePart),
    /// Person names that have a word that begins with `prefix`, or one of these `sounds` (see [`crate::model::sound`]).
    NameWord {
        /// What the word begins with.
        prefix: String,
        /// Codes, of which the word has to have one.
        sounds: Vec<String>,
    },
}

/// A piece of a word of a person name.
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
    /// The greater, the fewer words there are likely to be: a letter more weighs more than an end.
    pub(super) fn promise(&self) -> usize {
        self.text.len() * 2 + usize::from(self.starts) + usize::from(self.ends)
    }
}

/// Universal by PS3.4 C.2.2.2.3, or by C.2.2.2.4 as a pattern that is the same.
pub(super) fn is_all_stars(key: &str) -> bool {
    key.bytes().all(|byte| matches!(byte, b'*' | b' '))
}
