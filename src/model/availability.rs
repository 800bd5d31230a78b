//! Instance Availability (0008,0056), PS3.3 C.4.23.1.1.

use std::str::FromStr;

/// Availability of objects, the best first. NEARLINE is never used: the node knows no such storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectAvailability {
    /// Available at once.
    Online,
    /// Its disk is not mounted.
    Offline,
    /// The node cannot deliver it.
    Unavailable,
}

impl ObjectAvailability {
    /// Returns the availability of an object that is on the disk, or of one that is nowhere.
    #[must_use]
    pub fn of(is_online: bool) -> Self {
        if is_online { Self::Online } else { Self::Unavailable }
    }

    /// Returns that of the least available of several. An entity without objects lacks none.
    #[must_use]
    pub fn least(all: impl Iterator<Item = Self>) -> Self {
        all.max().unwrap_or(Self::Online)
    }

    /// Returns the Defined Term.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "ONLINE",
            Self::Offline => "OFFLINE",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// The text is none of the terms of [`ObjectAvailability`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no Instance Availability that this node gives")]
pub struct AvailabilityError;

impl FromStr for ObjectAvailability {
    type Err = AvailabilityError;

    fn from_str(text: &str) -> Result<Self, AvailabilityError> {
        let all = [Self::Online, Self::Offline, Self::Unavailable];
        all.into_iter().find(|one| one.as_str() == text).ok_or(AvailabilityError)
    }
}
