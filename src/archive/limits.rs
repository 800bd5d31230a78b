//! The limits for every archive. Real archives stay far below each limit, and what a limit allows
//! does no harm.

/// Maximum depth of nested archives, such as a zip in a zip in a tar. An exported study has one
/// level. A backup of such exports has two.
pub const MAX_NESTING: usize = 3;

/// Maximum members of one archive file, with the members of nested archives. A hash of each name is
/// in memory, 9 bytes for each. No real archive of images has more members.
pub const MAX_MEMBERS: u64 = 1_000_000;

/// Maximum members whose positions are kept in memory, 20 bytes for each. In a larger archive, each
/// search for a member begins at the start.
pub const MAX_REMEMBERED: usize = 450_000;

/// Maximum bytes of a member's path, with the names of the archives around it. Linux allows 4,095
/// for a path.
pub const MAX_NAME: usize = 4_096;

/// Maximum ratio of inflated bytes to the size of the archive file, over all members and levels. It
/// applies above [`INFLATED_FLOOR`]. Images compress to a third or a tenth. One deflate stream can
/// reach 1,032.
pub const MAX_INFLATION: u64 = 200;

/// Bytes that any archive may inflate to, whatever its size. Small segmentation masks compress by
/// more than [`MAX_INFLATION`].
pub const INFLATED_FLOOR: u64 = 1 << 30;

/// Maximum bytes inflated from one archive file. That is about two days of work.
pub const MAX_INFLATED: u64 = 64 << 40;

/// Maximum bytes of an extended header in a tar archive, which holds a long name or a list of pax
/// records.
pub const MAX_EXTENDED_HEADER: u64 = 64 << 10;

/// Maximum bytes to inflate from an archive file of this size.
pub(crate) fn inflated_limit(archive_bytes: u64) -> u64 {
    archive_bytes.saturating_mul(MAX_INFLATION).clamp(INFLATED_FLOOR, MAX_INFLATED)
}
