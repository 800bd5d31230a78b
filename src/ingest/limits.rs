//! Limits on every length from outside.
//!
//! Real headers are a few kilobytes. Each limit is far above them, and far below anything harmful.

/// Maximum nesting depth of sequences and items. Real objects have fewer than 20 levels (deep SR
/// trees), and DCMTK allows 64 sequences. Each sequence counts twice here: once for itself and once
/// for its item.
pub const MAX_DEPTH: usize = 2 * 64;

/// Maximum bytes of one wanted value, or of one wanted sequence with all its items. The longest
/// text of a user (LT) may have 10,240 characters.
pub const MAX_VALUE: usize = 64 << 10;

/// Maximum bytes of all wanted values of one object. Nearly all objects have 2 KB.
///
/// Above this limit, repeated values that are never used are dropped first. Then the largest values
/// are dropped until half the limit is reached.
pub const MAX_VALUES: usize = 4 * MAX_VALUE;

/// Maximum bytes of header that are read. Element headers and wanted values count, skipped values
/// do not.
pub const MAX_HEADER: u64 = 16 << 20;

/// Maximum bytes to which a deflated data set may inflate before its last wanted element. All bytes
/// count, because skipping means inflating here.
pub const MAX_INFLATED: u64 = 16 << 20;

/// Maximum length of an element without a valid VR for which the next element is examined to find
/// the VR.
pub(super) const MAX_LOOK_AHEAD: usize = 1 << 10;

/// Maximum bytes of a value in the File Meta Information that are kept. A UID has at most 64.
pub(super) const MAX_META_VALUE: usize = 256;

/// Bytes of the first read of a file. 8 KiB contain nearly every header up to its last wanted
/// element. A larger read costs more (4 KiB: 165,000 files/s, 8: 142,000, 16: 123,000, 64: 111,000,
/// warm).
pub(super) const FIRST_READ: usize = 8 << 10;
