//! The object that the index names already for an instance that arrives again.

use crate::archive::Archives;
use crate::db::{KnownLocation, StoreOutcome};
use crate::deliver::object::{Identity, ObjectError, StoredObject};
use crate::model::location::Place;
use crate::store;

/// How closely the object is looked at that the index names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstLook {
    /// It holds the same as what has come: all of it, for the new one is going to be thrown away.
    Whole,
    /// It holds something else: whether it is there and as long as it was.
    Length,
    /// It holds something else, and both are kept: whether it is there.
    Presence,
}

impl FirstLook {
    pub(super) fn at(outcome: &StoreOutcome, first: &KnownLocation) -> Self {
        match outcome {
            StoreOutcome::Identical { .. } | StoreOutcome::KeptCopy { differs: false } => Self::Whole,
            // Without a checksum it may be what has come, cut short.
            StoreOutcome::KeptCopy { differs: true } if first.checksum.is_some() => Self::Presence,
            StoreOutcome::KeptCopy { differs: true }
            | StoreOutcome::New
            | StoreOutcome::Completed
            | StoreOutcome::KeptFirst
            | StoreOutcome::Replaced { .. } => Self::Length,
        }
    }
}

/// What became of the object that the index names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstObject {
    /// It is this instance still.
    There,
    /// It is one of ours, and is damaged.
    Damaged,
    /// It cannot be read, or is another one: what came now is all that is left.
    Gone,
}

impl FirstObject {
    pub(super) fn at(first: &KnownLocation, sop_instance_uid: &str, look: FirstLook) -> Self {
        let KnownLocation { location, checksum, .. } = first;
        if location.place == Place::Managed
            && let Some(metadata) = location.path().and_then(|path| std::fs::metadata(path).ok())
            && metadata.is_file()
        {
            match look {
                FirstLook::Presence => return Self::There,
                FirstLook::Whole | FirstLook::Length if metadata.len() != location.size => return Self::Damaged,
                FirstLook::Whole | FirstLook::Length => {}
            }
        }
        // Its class is compared along with all else that the index has of it.
        let identity = Identity { sop_instance_uid, sop_class_uid: "", transfer_syntax: None };
        match StoredObject::open(location, &identity, &Archives::default()) {
            Ok(_) | Err(ObjectError::OtherClass) => {}
            Err(_) => return Self::Gone,
        }
        let is_whole = || store::checksum(location).is_ok_and(|found| found == *checksum);
        match checksum {
            Some(_) if look == FirstLook::Whole && !is_whole() => Self::Damaged,
            _ => Self::There,
        }
    }
}
