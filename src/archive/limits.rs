//! The limits that every archive meets. Each stands far above what real archives hold and far below what would hurt.

/// Archives that may lie in each other: a zip in a zip in a tar. A file of an exported study has one, a backup of such
/// exports two.
pub const MAX_NESTING: usize = 3;

/// Members of one archive file, those of archives in it included. Their names are told apart by a hash in memory, 9 bytes
/// for each; more members than this are found in no real archive of images.
pub const MAX_MEMBERS: u64 = 1_000_000;

/// Members of an archive whose places are remembered while more of them may be wanted, 20 bytes for each. Of larger archives each
/// member is looked for from the start.
pub const MAX_REMEMBERED: usize = 450_000;

/// Bytes of the name of a member, with the names of the archives that it lies in. Linux takes 4,095 for a path.
pub const MAX_NAME: usize = 4_096;

/// How many times the size of an archive file may come out of it by inflating, over all members and levels, once it is more
/// than [`INFLATED_FLOOR`]. Images compress to a third or a tenth; 1,032 is the most that one deflate stream can do.
pub const MAX_INFLATION: u64 = 200;

/// Bytes that may be inflated whatever the size of the archive: small masks compress by more than [`MAX_INFLATION`].
pub const INFLATED_FLOOR: u64 = 1 << 30;

/// Bytes that may be inflated of one archive file at all, about two days of work.
pub const MAX_INFLATED: u64 = 64 << 40;

/// Bytes that an extended header of a tar archive may have: a long name, or a list of pax records.
pub const MAX_EXTENDED_HEADER: u64 = 64 << 10;

/// Bytes that are inflated of an archive file of this size before it counts as made to fill disks.
pub(crate) fn inflated_limit(archive_bytes: u64) -> u64 {
    archive_bytes.saturating_mul(MAX_INFLATION).clamp(INFLATED_FLOOR, MAX_INFLATED)
}
