//! A flush of a whole file system.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::file_system::is_flushed_whole;

/// The first version of Linux whose `syncfs` reports that something could not be written.
const REPORTS_FAILURES: (u32, u32) = (5, 8);

/// Makes all files of a file system durable, with one call.
#[derive(Debug)]
pub(super) struct WholeFlush {
    /// A file there. The kernel reports failures to whoever opened a file before them.
    file: File,
    /// The kernel reports a failure once, so it is remembered.
    has_failed: AtomicBool,
}

impl WholeFlush {
    /// For the file system of an open file.
    pub(super) fn of(file: File) -> Self {
        Self { file, has_failed: AtomicBool::new(false) }
    }

    /// Whether a success means that everything is durable.
    pub(super) fn is_reliable(&self) -> bool {
        let Ok(file_system) = rustix::fs::fstatfs(&self.file) else { return false };
        #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the field's type differs between targets")]
        let number = file_system.f_type as i64;
        let release = rustix::system::uname();
        is_flushed_whole(number) && version_of(&release.release().to_string_lossy()) >= Some(REPORTS_FAILURES)
    }

    /// Makes durable whatever was written before the call, also by others.
    ///
    /// # Errors
    /// If something could not be written. All later calls fail then, because nobody knows what it
    /// was.
    pub(super) fn flush(&self) -> io::Result<()> {
        let flushed = rustix::fs::syncfs(&self.file).map_err(io::Error::from);
        if flushed.is_err() {
            self.has_failed.store(true, Ordering::SeqCst);
        }
        match self.has_failed.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(flushed.err().unwrap_or_else(|| io::Error::other("an earlier flush failed"))),
        }
    }
}

/// The first two numbers of a kernel release such as `6.1.0-18-amd64`.
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_known_by_their_release() {
        assert!(version_of("5.8.0") >= Some(REPORTS_FAILURES));
        assert!(version_of("6.1.0-18-amd64") >= Some(REPORTS_FAILURES));
        assert!(version_of("5.4.0-42-generic") < Some(REPORTS_FAILURES));
        assert_eq!(version_of("unknown"), None);
    }
}
