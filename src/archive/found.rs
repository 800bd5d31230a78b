//! A member that a search has found, and what the search has passed on its way.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufReader, Read};

use super::adapters::{Checked, Streamed};
use super::inflate::{Budget, Inflate};
use super::limits::{MAX_MEMBERS, MAX_REMEMBERED};
use super::name::PathStep;
use super::object::Object;
use super::problem::ArchiveProblem;
use super::range::{FileRange, RangeReader, SkipRead};

/// Bytes of the buffer before inflated data.
pub(super) const BUFFER: usize = 64 << 10;

pub(super) enum MemberData {
    Range(FileRange),
    Stream(Box<dyn SkipRead>),
}

pub(super) struct FoundMember {
    pub(super) bytes: MemberData,
    pub(super) length: Option<u64>,
    pub(super) checksum: Option<u32>,
    /// Maximum bytes to inflate from it, if it is itself an archive.
    pub(super) budget: Budget,
}

impl FoundMember {
    pub(super) fn into_object(self) -> Object {
        let reader: Box<dyn Read + Send> = match self.bytes {
            MemberData::Range(range) => Box::new(RangeReader::new(range)),
            MemberData::Stream(stream) => stream,
        };
        match self.length {
            Some(length) => {
                Object { reader: Box::new(Checked::new(reader, length, self.checksum)), length: Some(length) }
            }
            None => Object { reader, length: None },
        }
    }
}

/// The result of a search for a member.
pub(super) enum Reached {
    Member(FoundMember),
    /// The member exists and cannot be read.
    Refused(ArchiveProblem),
    /// The member does not exist.
    Missing,
    /// A search from the start is necessary.
    Unknown,
}

impl From<Result<FoundMember, ArchiveProblem>> for Reached {
    fn from(found: Result<FoundMember, ArchiveProblem>) -> Self {
        found.map_or_else(Self::Refused, Self::Member)
    }
}

/// Positions of the members already passed. The key is a hash of the name and the number of the
/// occurrence.
#[derive(Default)]
pub(super) struct Passed {
    places: HashMap<u64, u64>,
    /// Number of members of one name, by its hash, if there is more than one.
    again: HashMap<u64, u32>,
    hasher: RandomState,
    count: u64,
    pub(super) ended: bool,
}

/// Place of a member, as far as the passed ones tell.
pub(super) enum PassedPlace {
    /// At this position, unless another name has the same hash.
    At(u64),
    /// Not among those passed.
    Ahead,
    /// Not all that were passed are recorded.
    Unknown,
}

impl Passed {
    /// Looks up a member.
    pub(super) fn place_of(&self, step: &PathStep) -> PassedPlace {
        if !self.is_whole() {
            return PassedPlace::Unknown;
        }
        let place = self.places.get(&self.hash(&step.name, step.occurrence));
        place.map_or(PassedPlace::Ahead, |place| PassedPlace::At(*place))
    }

    /// Whether a member is among those recorded.
    pub(super) fn has(&self, step: &PathStep) -> bool {
        self.places.contains_key(&self.hash(&step.name, step.occurrence))
    }

    fn hash(&self, name: &[u8], occurrence: u32) -> u64 {
        self.hasher.hash_one((name, occurrence))
    }

    /// Number of members of this name that were passed.
    pub(super) fn met(&self, name: &[u8]) -> u32 {
        let first = self.hash(name, 1);
        if !self.places.contains_key(&first) { 0 } else { self.again.get(&first).copied().unwrap_or(1) }
    }

    /// Records a member. Returns its number among the members of its name, while that is known.
    pub(super) fn pass(&mut self, name: &[u8], place: u64) -> u32 {
        self.count += 1;
        if !self.is_whole() {
            (self.places, self.again) = (HashMap::new(), HashMap::new());
            return 1;
        }
        let first = self.hash(name, 1);
        match self.places.entry(first) {
            Entry::Vacant(vacant) => {
                vacant.insert(place);
                1
            }
            Entry::Occupied(_) => {
                let again = self.again.entry(first).or_insert(1);
                *again += 1;
                let occurrence = *again;
                self.places.insert(self.hash(name, occurrence), place);
                occurrence
            }
        }
    }

    /// Whether every passed member is recorded.
    pub(super) fn is_whole(&self) -> bool {
        self.count <= MAX_REMEMBERED as u64
    }

    pub(super) fn goes_on(&self) -> bool {
        !self.ended && self.count <= MAX_MEMBERS
    }

    /// The result if the search reached the end without the member.
    pub(super) fn not_met(&self) -> Reached {
        if self.is_whole() { Reached::Missing } else { Reached::Unknown }
    }
}

pub(super) fn inflated<S: SkipRead>(source: S, budget: &Budget) -> Inflated<S> {
    Streamed(BufReader::with_capacity(BUFFER, Inflate::new(source, None, budget.clone())))
}

pub(super) type Inflated<S> = Streamed<BufReader<Inflate<S>>>;
