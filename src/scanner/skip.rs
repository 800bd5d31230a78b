//! Names of files and directories that the scan skips. Operating systems leave them everywhere, and
//! they are never DICOM objects.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// The reason to skip a file of this name. `None` if the scan must look at it.
pub(super) fn file(name: &OsStr) -> Option<&'static str> {
    let name = name.as_bytes();
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    // The first byte rules out most names.
    match name.first()? {
        // AppleDouble stores the resource fork of a file beside it. Its name may end in .dcm, but
        // it is no DICOM object.
        b'.' if name.starts_with(b"._") || is(".DS_Store") || is(".localized") || is(".apdisk") => Some("macos-litter"),
        b'I' | b'i' if is("Icon\r") => Some("macos-litter"),
        b'T' | b't' if is("Thumbs.db") => Some("windows-litter"),
        b'E' | b'e' if is("ehthumbs.db") => Some("windows-litter"),
        b'D' | b'd' if is("desktop.ini") => Some("windows-litter"),
        b'.' if name.starts_with(b".nfs") || is(".directory") => Some("unix-litter"),
        _ => None,
    }
}

/// The reason to skip a directory of this name. `None` if the walk must enter it.
pub(super) fn directory(name: &OsStr) -> Option<&'static str> {
    let name = name.as_bytes();
    let is_any = |others: &[&str]| others.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()));
    match name.first()? {
        b'_' if is_any(&["__MACOSX"]) => Some("macos-litter"),
        b'.' if is_any(&[
            ".AppleDouble",
            ".Trashes",
            ".Spotlight-V100",
            ".fseventsd",
            ".DocumentRevisions-V100",
            ".TemporaryItems",
        ]) =>
        {
            Some("macos-litter")
        }
        b'$' | b'S' | b's' | b'R' | b'r'
            if is_any(&["$RECYCLE.BIN", "System Volume Information", "RECYCLER", "RECYCLED"]) =>
        {
            Some("windows-litter")
        }
        // A snapshot holds every file of the archive once more.
        b'.' | b'@' | b'~' | b'#'
            if is_any(&[".snapshot", ".snapshots", ".zfs", "~snapshot", "@eaDir", "#recycle", "#snapshot"]) =>
        {
            Some("nas-litter")
        }
        b'.' | b'l' if is_any(&[".Trash", "lost+found"]) || name.starts_with(b".Trash-") => Some("unix-litter"),
        b'.' if is_any(&[".git", ".svn", ".hg"]) => Some("version-control"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn litter_is_known_by_name() {
        for name in ["._IM0001", "._1.dcm", ".DS_Store", "Thumbs.db", "THUMBS.DB", "desktop.ini", ".nfs0000000000ab"] {
            assert!(file(OsStr::new(name)).is_some(), "{name}");
        }
        for name in [
            "__MACOSX",
            "$RECYCLE.BIN",
            "System Volume Information",
            "@eaDir",
            ".snapshot",
            "lost+found",
            ".Trash-1000",
        ] {
            assert!(directory(OsStr::new(name)).is_some(), "{name}");
        }
    }

    #[test]
    fn what_only_resembles_litter_is_looked_at() {
        for name in ["IM0001", ".hidden", "_1.dcm", "Thumbs", "1.2.840.1", "DICOMDIR", "icon", ""] {
            assert_eq!(file(OsStr::new(name)), None, "{name}");
        }
        for name in ["MACOSX", "recycle", "1.2.3", ".dicom", "snapshot", ""] {
            assert_eq!(directory(OsStr::new(name)), None, "{name}");
        }
    }
}
