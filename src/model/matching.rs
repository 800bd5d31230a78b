//! Attribute matching: PS3.4 C.2.2.2.

/// A condition on the value of an attribute, one variant for each matching type of PS3.4 C.2.2.2.
#[derive(Clone, Debug)]
pub enum Matching {
    /// Matches every entity (PS3.4 C.2.2.2.3).
    Universal,
}

/// What an index can use to find the values that a [`Matching`] may accept. Every value that it accepts fulfils the
/// narrowing; the reverse need not hold unless [`Self::Equals`] says so, so [`Matching::matches`] has the last word.
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
    /// Person names of which any component group, in normal form, begins with this.
    NamePrefix(String),
}

impl Matching {
    /// Whether a stored value (in the form of [`super::record::InstanceRecord`]) fulfils the condition.
    #[must_use]
    pub fn matches(&self, _stored: &str) -> bool {
        match self {
            Self::Universal => true,
        }
    }

    /// What an index can use to find what this may accept.
    #[must_use]
    pub fn narrowing(&self) -> Narrowing {
        match self {
            Self::Universal => Narrowing::None,
        }
    }
}
