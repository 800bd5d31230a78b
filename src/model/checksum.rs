//! Checksum of a data set, which tells a damaged object from an intact one, and SHA-256.

use std::fmt;

use ring::digest::{SHA256, digest};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Computes the SHA-256 of bytes, for certificates and tokens.
#[must_use]
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// The xxh3-128 hash of a data set as it was received, without File Meta Information
/// (docs/adr/0016).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum(u128);

impl Checksum {
    /// Computes the checksum of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxh3_128(bytes))
    }

    /// Restores a checksum from the result of [`Self::to_bytes`].
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// Returns the 16 bytes of the canonical form, most significant byte first.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Computes a checksum of bytes that arrive in pieces. Its state of some 600 bytes is on the heap.
#[derive(Default)]
pub struct ChecksumBuilder(Box<Xxh3>);

impl ChecksumBuilder {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the checksum of all bytes added so far.
    #[must_use]
    pub fn finish(&self) -> Checksum {
        Checksum(self.0.digest128())
    }
}

impl fmt::Debug for ChecksumBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChecksumBuilder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_depends_on_the_bytes_and_not_on_the_pieces_they_come_in() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for piece in [1, 7, 256, 240, 4096, bytes.len()] {
            let mut builder = ChecksumBuilder::default();
            bytes.chunks(piece).for_each(|piece| builder.update(piece));
            assert_eq!(builder.finish(), Checksum::of(&bytes), "{piece}");
        }
        assert_eq!(ChecksumBuilder::default().finish(), Checksum::of(b""));
        let checksum = Checksum::of(&bytes);
        assert_eq!(Checksum::from_bytes(checksum.to_bytes()), checksum);
        // The reference implementation gives this value for an empty input.
        assert_eq!(format!("{:?}", Checksum::of(b"")), "99aa06d3014798d86001c324468d497f");
    }
}
