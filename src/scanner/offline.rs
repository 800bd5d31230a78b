//! Files whose content lies on tape. Storage management leaves a stub with a size and without
//! blocks. To read it calls the content back, which takes minutes and a tape drive.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fs::Stat;

use super::work::Marks;
use crate::model::clock::Clock;
use crate::model::file_system::{BlockCount, block_count};

/// Action of a scan for files whose content lies on tape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TapeFiles {
    /// It does not read them, and reports them as `offline`.
    #[default]
    Leave,
    /// It reads them, so that they are called back.
    Recall,
}

/// Size up to which a file may have no blocks and still be on disk. File systems keep small files
/// in the inode (up to 4 KiB), so that they have no blocks of their own.
const SMALL_BYTES: u64 = 8192;

/// Age up to which a file without blocks is on disk. Some file systems count blocks only when they
/// write them, and nothing moves to tape so soon.
const YOUNG_MS: i64 = 10 * 60 * 1000;

/// Tells files on tape from files on disk, as one scan sees them.
#[derive(Debug, Default)]
pub(super) struct TapeCheck {
    /// A device on which some file had blocks, plus one. 0 while there is none.
    device_with_blocks: AtomicU64,
}

impl TapeCheck {
    /// Whether the content of a file lies on tape. `file` is an open file, or the directory of it.
    pub(super) fn is_offline(&self, stat: &Stat, file: impl AsFd) -> bool {
        let marks = Marks::of(stat);
        #[allow(clippy::unnecessary_cast, reason = "the type differs between systems")]
        let device = (stat.st_dev as u64).wrapping_add(1);
        if stat.st_blocks > 0 {
            if self.device_with_blocks.load(Relaxed) != device {
                self.device_with_blocks.store(device, Relaxed);
            }
            return false;
        }
        if marks.size <= SMALL_BYTES || Clock::System.now_ms().saturating_sub(marks.mtime_ms) < YOUNG_MS {
            return false;
        }
        match kind_of(file) {
            BlockCount::Exact => true,
            BlockCount::OfOthers => self.device_with_blocks.load(Relaxed) == device,
            BlockCount::None => false,
        }
    }
}

/// Meaning of the block counts of a file system.
#[cfg(target_os = "linux")]
fn kind_of(file: impl AsFd) -> BlockCount {
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the field's type differs between targets")]
    rustix::fs::fstatfs(file).map_or(BlockCount::None, |it| block_count(it.f_type as i64))
}

/// This system does not say.
#[cfg(not(target_os = "linux"))]
fn kind_of(_file: impl AsFd) -> BlockCount {
    BlockCount::OfOthers
}
