//! Paths as an index compares them.

use std::path::Path;

/// The range of paths below a directory, as bytes. Its ends are not part of it.
pub(in crate::db) fn range_below(root: &Path) -> (Vec<u8>, Vec<u8>) {
    let from = root.join("").into_os_string().into_encoded_bytes();
    // '0' follows '/', so this is past everything below the root.
    let to = [from.strip_suffix(b"/").unwrap_or_default(), b"0"].concat();
    (from, to)
}

/// First character of the first component of a path that stands for a named root: `/@NAME`
/// (docs/adr/0048).
pub(in crate::db) const ROOT_MARK: char = '@';

/// Whether a database would take this path for one below a named root. No file there is indexed, so
/// that each index can be copied to a database.
#[must_use]
pub fn is_reserved(path: &Path) -> bool {
    let first = path.components().nth(1);
    path.has_root()
        && first.is_some_and(|first| first.as_os_str().as_encoded_bytes().first() == Some(&(ROOT_MARK as u8)))
}
