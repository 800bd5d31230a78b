//! The bytes of an arrival journal. All numbers are little endian.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use ring::rand::{SecureRandom as _, SystemRandom};
use xxhash_rust::xxh3::xxh3_128;

use super::JournalError;

/// Groups begin at multiples of this, so that a search for groups need not look at each byte.
pub(super) const BLOCK: u64 = 4096;

/// Length of the head. A disk writes so few bytes whole or not at all.
pub(super) const HEAD_BYTES: usize = 512;

/// Length of the head of a group.
pub(super) const GROUP_HEAD_BYTES: usize = 64;

/// Longest name of an index in the head.
const MAX_INDEX_ID: usize = 128;

/// Mark at the beginning of a journal.
const MAGIC: &[u8; 8] = b"dcmdexaj";

/// The version of the format.
const VERSION: u32 = 1;

/// A random number that tells the groups of a journal from all other bytes. No peer knows it, so no
/// object can pass for a group. A journal whose objects are all in their places gets a new one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct JournalId([u8; 16]);

impl JournalId {
    /// Makes a new one.
    pub(super) fn random() -> Option<Self> {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).ok().map(|()| Self(bytes))
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The first bytes of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JournalHead {
    pub(super) id: JournalId,
    /// Length of the ring behind the first block.
    pub(super) ring_bytes: u64,
    /// Number of the first group that is still needed.
    pub(super) first_needed: u64,
    /// Offset at which that group lies in the ring, or will lie.
    pub(super) offset: u64,
    /// The index that knows the objects.
    pub(super) index_id: String,
}

impl JournalHead {
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.id.0);
        for number in [self.ring_bytes, self.first_needed, self.offset] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let index_id = &self.index_id.as_bytes()[..self.index_id.len().min(MAX_INDEX_ID)];
        bytes.extend_from_slice(&(index_id.len() as u32).to_le_bytes());
        bytes.extend_from_slice(index_id);
        bytes.resize(HEAD_BYTES - 16, 0);
        bytes.extend_from_slice(&xxh3_128(&bytes).to_le_bytes());
        let mut head = [0; HEAD_BYTES];
        head.copy_from_slice(&bytes);
        head
    }

    /// Reads a head, and says of one that cannot be used what is wrong.
    pub(super) fn decode(bytes: &[u8; HEAD_BYTES], path: &Path) -> Result<Self, JournalError> {
        let damaged = |detail: &str| JournalError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
        let mut fields = Fields(bytes);
        if fields.take(MAGIC.len()) != Some(MAGIC) {
            return Err(damaged("it does not begin as a journal does"));
        }
        let found = fields.u32().unwrap_or_default();
        if found != VERSION {
            return Err(JournalError::OtherVersion { path: path.to_owned(), found, known: VERSION });
        }
        let (content, checksum) = bytes.split_at(HEAD_BYTES - 16);
        if xxh3_128(content).to_le_bytes() != checksum {
            return Err(damaged("the checksum of its head is wrong"));
        }
        let mut read = || {
            let id = JournalId(fields.array()?);
            let (ring_bytes, first_needed, offset) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let length = fields.u32()? as usize;
            let index_id = String::from_utf8(fields.take(length)?.to_vec()).ok()?;
            Some(Self { id, ring_bytes, first_needed, offset, index_id })
        };
        read().ok_or_else(|| damaged("its head cannot be read"))
    }
}

/// Head of a group, before its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupHead {
    pub(super) id: JournalId,
    pub(super) number: u64,
    pub(super) first_entry: u64,
    /// Length of the entries.
    pub(super) length: u64,
    checksum: u128,
}

impl GroupHead {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let id = JournalId(fields.array()?);
        let (number, first_entry, length) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let _reserved = fields.u64()?;
        Some(Self { id, number, first_entry, length, checksum: u128::from_le_bytes(fields.array()?) })
    }

    /// Bytes of the group with its head, up to the next block.
    pub(super) fn padded(&self) -> Option<u64> {
        self.length.checked_add(GROUP_HEAD_BYTES as u64)?.checked_next_multiple_of(BLOCK)
    }

    /// Whether a group is what was written. `bytes` begin with the head.
    pub(super) fn is_whole(&self, bytes: &[u8]) -> bool {
        checksum_of(bytes) == self.checksum
    }
}

/// The checksum of a group, which leaves itself out.
fn checksum_of(group: &[u8]) -> u128 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(group.get(..GROUP_HEAD_BYTES - 16).unwrap_or_default());
    hash.update(group.get(GROUP_HEAD_BYTES..).unwrap_or_default());
    hash.digest128()
}

/// A small object in the journal, with what its row needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalEntry<'a> {
    /// Number of the name of the object's file, among the names of its instance.
    pub name_number: u32,
    /// The calling AE title of the sender.
    pub calling_ae_title: &'a str,
    /// The address of the sender.
    pub address: Option<IpAddr>,
    /// The file of the object: File Meta Information and data set.
    pub object: &'a [u8],
}

impl<'a> JournalEntry<'a> {
    /// Upper limit of the space that an entry takes in the ring, also if its group has no other.
    #[must_use]
    pub fn room_of(object_bytes: usize, calling_ae_title: &str) -> u64 {
        const LONGEST_ADDRESS: usize = 64;
        let entry = 4 * 4 + calling_ae_title.len() + LONGEST_ADDRESS + object_bytes;
        ((GROUP_HEAD_BYTES + entry) as u64).next_multiple_of(BLOCK)
    }

    fn decode(fields: &mut Fields<'a>) -> Option<Self> {
        let name_number = fields.u32()?;
        let calling_ae_title = std::str::from_utf8(fields.counted()?).ok()?;
        let address = match std::str::from_utf8(fields.counted()?).ok()? {
            "" => None,
            text => Some(text.parse().ok()?),
        };
        Some(Self { name_number, calling_ae_title, address, object: fields.counted()? })
    }
}

/// Objects that are made durable by one flush.
#[derive(Debug, Default)]
pub struct JournalGroup {
    /// Room for the head, and the entries.
    bytes: Vec<u8>,
}

impl JournalGroup {
    /// Adds an object.
    pub fn push(&mut self, entry: &JournalEntry<'_>) {
        if self.bytes.is_empty() {
            self.bytes.resize(GROUP_HEAD_BYTES, 0);
        }
        let address = entry.address.map(|address| address.to_string()).unwrap_or_default();
        self.bytes.extend_from_slice(&entry.name_number.to_le_bytes());
        for part in [entry.calling_ae_title.as_bytes(), address.as_bytes(), entry.object] {
            self.bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            self.bytes.extend_from_slice(part);
        }
    }

    /// Bytes so far.
    #[must_use]
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Removes all objects, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The bytes for the disk. They end with a block.
    pub(super) fn finish(&mut self, id: JournalId, number: u64, first_entry: u64) -> &[u8] {
        let length = self.bytes.len().saturating_sub(GROUP_HEAD_BYTES) as u64;
        let mut head = Vec::with_capacity(GROUP_HEAD_BYTES);
        head.extend_from_slice(&id.0);
        for field in [number, first_entry, length, 0] {
            head.extend_from_slice(&field.to_le_bytes());
        }
        if let Some(start) = self.bytes.get_mut(..head.len()) {
            start.copy_from_slice(&head);
        }
        let checksum = checksum_of(&self.bytes).to_le_bytes();
        if let Some(place) = self.bytes.get_mut(head.len()..GROUP_HEAD_BYTES) {
            place.copy_from_slice(&checksum);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK as usize), 0);
        &self.bytes
    }
}

/// The entries of a group that was read from the disk, with their numbers. `None` in place of one
/// that cannot be read, and then nothing follows.
pub fn entries_of(group: &[u8]) -> impl Iterator<Item = Option<(u64, JournalEntry<'_>)>> {
    let head = GroupHead::decode(group);
    let mut number = head.map_or(0, |head| head.first_entry);
    let mut left = head.map(|head| {
        let entries = group.get(GROUP_HEAD_BYTES..).unwrap_or_default();
        Fields(usize::try_from(head.length).ok().and_then(|length| entries.get(..length)).unwrap_or_default())
    });
    std::iter::from_fn(move || {
        let fields = left.as_mut().filter(|fields| !fields.0.is_empty())?;
        let entry = JournalEntry::decode(fields).map(|entry| (number, entry));
        number += 1;
        if entry.is_none() {
            left = None;
        }
        Some(entry)
    })
}

/// Bytes that are read from their start.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(length)?;
        self.0 = left;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes behind their count.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }
}
