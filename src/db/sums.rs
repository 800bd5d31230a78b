//! Sums of hashes, by which two sets of entries are compared without keeping either.

use std::fmt;

use xxhash_rust::xxh3::Xxh3;

/// Number of entries of a set, and the sum of their hashes. The order of the entries is no part of
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetSum {
    entries: u64,
    hashes: u128,
}

impl SetSum {
    /// Adds an entry.
    pub fn add(&mut self, entry: &EntryHash) {
        self.entries += 1;
        self.hashes = self.hashes.wrapping_add(entry.0.digest128());
    }

    /// Number of entries that were added.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }
}

impl fmt::LowerHex for SetSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.hashes, f)
    }
}

/// The hash of an entry, part by part. Its state of some 600 bytes is on the stack.
pub struct EntryHash(Xxh3);

impl fmt::Debug for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EntryHash")
    }
}

impl EntryHash {
    /// Begins the hash of an entry of some kind.
    #[must_use]
    pub fn of(kind: &str) -> Self {
        Self(Xxh3::new()).text(kind)
    }

    /// Adds bytes and their number, so that two parts are not taken for one.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, number: i64) -> Self {
        self.bytes(&number.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of(entries: &[&[&str]]) -> SetSum {
        let mut sum = SetSum::default();
        for parts in entries {
            sum.add(&parts.iter().fold(EntryHash::of("entry"), |hash, part| hash.text(part)));
        }
        sum
    }

    #[test]
    fn only_the_order_of_entries_does_not_count() {
        let sum = sum_of(&[&["a", "bc"], &["d"]]);
        assert_eq!(sum, sum_of(&[&["d"], &["a", "bc"]]));
        for other in [&[&["ab", "c"][..], &["d"]][..], &[&["a", "bc"]], &[&["a", "bc"], &["d"], &["d"]]] {
            assert_ne!(sum, sum_of(other));
        }
    }
}
