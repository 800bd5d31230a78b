//! File systems by the number that Linux gives them (`statfs`), and what may be expected of each.

const OVERLAY: i64 = 0x794C_7630;
const FUSE: i64 = 0x6573_5546;
const NFS: i64 = 0x6969;
const CIFS: i64 = 0xFF53_4D42;
const SMB2: i64 = 0xFE53_4D42;
const LUSTRE: i64 = 0x0BD0_0BD0;

/// File systems whose files other machines can change.
const NETWORK: &[(i64, &str)] = &[
    (NFS, "NFS"),
    (CIFS, "CIFS"),
    (SMB2, "SMB2"),
    (0x517B, "SMB"),
    (0x0102_1997, "9P"),
    (0x00C3_6400, "Ceph"),
    (LUSTRE, "Lustre"),
    (0x5346_414F, "AFS"),
];

/// Further file systems that change without telling inotify.
const SILENT: &[(i64, &str)] =
    &[(FUSE, "FUSE"), (OVERLAY, "overlay"), (0x4750_4653, "GPFS"), (0x786F_4256, "vboxsf"), (0xBACB_ACBC, "vmhgfs")];

/// File systems that count the blocks of each file: ext, XFS, Btrfs, F2FS, ZFS, GPFS, Lustre, NFS,
/// CIFS, SMB2, overlay.
const WITH_BLOCKS: &[i64] =
    &[0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x2FC1_2FC1, 0x4750_4653, LUSTRE, NFS, CIFS, SMB2, OVERLAY];

/// File systems without a tape behind them: tmpfs, ramfs, proc, sysfs, SquashFS, ISO 9660, UDF,
/// EROFS, FAT, exFAT.
const NEVER_ON_TAPE: &[i64] = &[
    0x0102_1994,
    0x8584_58F6,
    0x9FA0,
    0x6265_6572,
    0x7371_7368,
    0x9660,
    0x1501_3346,
    0xE0F5_E1E2,
    0x4D44,
    0x2011_BAB0,
];

/// File systems of which `syncfs` makes all of it durable and reports what failed: ext, XFS, Btrfs,
/// F2FS, and tmpfs, where nothing is durable.
const FLUSHED_WHOLE: &[i64] = &[0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x0102_1994];

/// Meaning of a large file without blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockCount {
    /// Its content is not on the disk.
    Exact,
    /// Its content is not on the disk, provided that other files there have blocks.
    OfOthers,
    /// Nothing.
    None,
}

/// Returns the name of a network file system. SQLite cannot work on one, and inotify does not see
/// what other machines do there.
#[must_use]
pub fn network_name(number: i64) -> Option<&'static str> {
    name_in(NETWORK, number)
}

/// Returns the name of a file system that may change without telling inotify.
#[must_use]
pub fn silent_name(number: i64) -> Option<&'static str> {
    name_in(SILENT, number).or_else(|| network_name(number))
}

/// Whether one call makes all of a file system durable.
#[must_use]
pub fn is_flushed_whole(number: i64) -> bool {
    FLUSHED_WHOLE.contains(&(number & 0xFFFF_FFFF))
}

/// Returns what the block counts of a file system say.
#[must_use]
pub fn block_count(number: i64) -> BlockCount {
    let number = number & 0xFFFF_FFFF;
    match number {
        _ if WITH_BLOCKS.contains(&number) => BlockCount::Exact,
        _ if NEVER_ON_TAPE.contains(&number) => BlockCount::None,
        _ => BlockCount::OfOthers,
    }
}

fn name_in(list: &[(i64, &'static str)], number: i64) -> Option<&'static str> {
    list.iter().find(|(known, _)| *known == number & 0xFFFF_FFFF).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_extended_with_its_sign_is_known() {
        assert_eq!(network_name(0xFF53_4D42), Some("CIFS"));
        assert_eq!(network_name(i64::from(0xFF53_4D42_u32.cast_signed())), Some("CIFS"));
        assert_eq!(silent_name(0x6969), Some("NFS"));
        assert_eq!((network_name(FUSE), silent_name(FUSE)), (None, Some("FUSE")));
        assert_eq!((network_name(0xEF53), silent_name(0xEF53)), (None, None));
        assert_eq!((is_flushed_whole(0xEF53), is_flushed_whole(FUSE)), (true, false));
    }

    #[test]
    fn a_file_in_memory_is_never_on_tape() {
        assert_eq!(block_count(0x0102_1994), BlockCount::None);
        assert_eq!(block_count(0xEF53), BlockCount::Exact);
        assert_eq!(block_count(FUSE), BlockCount::OfOthers);
    }
}
