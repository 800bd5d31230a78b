//! New paths for files that were moved as a whole: what all engines do alike.

use std::path::{Path, PathBuf};

/// Paths that [`Relocation::taken`](super::Relocation) lists.
pub(in crate::db) const LISTED_PATHS: usize = 10;

/// A path below a directory. An empty one is the directory itself.
pub(in crate::db) fn joined(root: &Path, below: &Path) -> PathBuf {
    // `join` of nothing would add a slash.
    if below.as_os_str().is_empty() { root.to_owned() } else { root.join(below) }
}

/// Paths that are noted as a JSON array of texts, with their new paths. `None` if none of them
/// moves.
pub(in crate::db) fn moved_roots(roots: &str, from: &Path, to: &Path) -> Option<String> {
    let mut paths: Vec<String> = serde_json::from_str(roots).ok()?;
    let mut has_changed = false;
    for path in &mut paths {
        if let Ok(below) = Path::new(path.as_str()).strip_prefix(from) {
            let new = joined(to, below).to_string_lossy().into_owned();
            has_changed |= new != *path;
            *path = new;
        }
    }
    has_changed.then(|| serde_json::Value::from(paths).to_string())
}
