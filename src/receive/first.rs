//! The object that the index already names for an instance that arrives again.

use crate::archive::Archives;
use crate::db::{KnownLocation, StoreOutcome};
use crate::deliver::object::{Identity, StoredObject};
use crate::model::location::Place;
use crate::store;

/// Extent of the check of the object at the first location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstCheck {
    /// It has the same content. The whole object is compared, because the new one will be removed.
    Whole,
    /// It has other content. It must be there with its length.
    Length,
    /// It has other content, and both are kept. It must be there.
    Presence,
}

impl FirstCheck {
    /// Returns how thoroughly the first object is checked after this outcome.
    pub(super) fn at(outcome: &StoreOutcome, first: &KnownLocation) -> Self {
        match outcome {
            StoreOutcome::Identical { .. } | StoreOutcome::KeptCopy { differs: false } => Self::Whole,
            // Without a checksum, it may be a truncated copy of the new object.
            StoreOutcome::KeptCopy { differs: true } if first.checksum.is_some() => Self::Presence,
            StoreOutcome::KeptCopy { differs: true }
            | StoreOutcome::New
            | StoreOutcome::Completed
            | StoreOutcome::KeptFirst
            | StoreOutcome::Replaced { .. } => Self::Length,
        }
    }
}

/// The state of the object that the index names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstObject {
    /// It is still this instance.
    There,
    /// It is one of our own, and it is damaged.
    Damaged,
    /// It cannot be read, or it is another one. Only the new object is left.
    Gone,
}

impl FirstObject {
    /// Looks at the object at a location. A file in place must be as it was scanned: otherwise it
    /// could not be sent.
    pub(super) fn at(first: &KnownLocation, sop_instance_uid: &str, check: FirstCheck) -> Self {
        let KnownLocation { location, checksum, .. } = first;
        if location.place == Place::Managed
            && let Some(metadata) = location.path().and_then(|path| std::fs::metadata(path).ok())
            && metadata.is_file()
        {
            match check {
                FirstCheck::Presence => return Self::There,
                FirstCheck::Whole | FirstCheck::Length if metadata.len() != location.size => return Self::Damaged,
                FirstCheck::Whole | FirstCheck::Length => {}
            }
        }
        // Its SOP Class is compared together with the other values of the index.
        let identity = Identity { sop_instance_uid, sop_class_uid: None, transfer_syntax: None };
        if StoredObject::open(location, &identity, &Archives::default()).is_err() {
            return Self::Gone;
        }
        let is_whole = || store::checksum(location).is_ok_and(|found| found == *checksum);
        match checksum {
            Some(_) if check == FirstCheck::Whole && !is_whole() => Self::Damaged,
            _ => Self::There,
        }
    }
}
