//! Paths as an index compares them.

use std::path::Path;

/// The range of paths below a directory, as bytes. Its ends are not part of it.
pub(in crate::db) fn range_below(root: &Path) -> (Vec<u8>, Vec<u8>) {
    let from = root.join("").into_os_string().into_encoded_bytes();
    // '0' follows '/', so this is past everything below the root.
    let to = [from.strip_suffix(b"/").unwrap_or_default(), b"0"].concat();
    (from, to)
}
