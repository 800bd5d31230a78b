//! The limits that every length from outside meets.
//!
//! Real headers are a few kilobytes; each limit stands far above them and far below what would hurt.

/// Sequences and items that may lie in each other. Real objects have fewer than 20 (deep SR trees); DCMTK allows 64
/// sequences. Each level of a sequence counts twice here: the sequence and its item.
pub const MAX_DEPTH: usize = 2 * 64;

/// Bytes of one wanted value, or of one wanted sequence with all its items. The longest text that people write (LT) may
/// have 10,240 characters.
pub const MAX_VALUE: usize = 64 << 10;

/// Bytes of all wanted values of one object together. Nearly all objects have 2 KB. Past this, of values that stand twice the
/// ones that do not count are dropped; where more than half of it is left, the largest are left out until it is not.
pub const MAX_VALUES: usize = 4 * MAX_VALUE;

/// Bytes of header that are looked at before reading gives up: element headers and wanted values, not what is skipped.
pub const MAX_HEADER: u64 = 16 << 20;

/// Bytes that a deflated data set may inflate to before its last wanted element. Skipping costs inflating here, so this
/// counts all bytes.
pub const MAX_INFLATED: u64 = 16 << 20;

/// The farthest that an element without a valid VR is looked past to find out what it is.
pub(super) const MAX_LOOK_AHEAD: usize = 1 << 10;

/// Bytes of a value in the file meta information that is kept; a UID has at most 64.
pub(super) const MAX_META_VALUE: usize = 256;

/// The first read of a file. 8 KiB hold nearly every header up to its last wanted element; reading more costs more
/// (4 KiB: 165,000 files/s, 8: 142,000, 16: 123,000, 64: 111,000, warm).
pub(super) const FIRST_READ: usize = 8 << 10;
