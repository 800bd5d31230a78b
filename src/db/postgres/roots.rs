//! Named roots: directories that each node has at a place of its own (docs/adr/0048).
//!
//! An index keeps the path of a file below a root as `/@NAME/rest`. Only what enters the engine and
//! what leaves it has the paths of this node.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::keys::path_from;
use crate::db::contents::{Contents, FileKey, StoredFile};
use crate::db::mounts::{HOLDS, has_entries, host_name};
use crate::db::paths::{ROOT_MARK, is_reserved};
use crate::db::probe::PathProbe;
use crate::model::location::Location;

/// The probe of this process for directories of roots.
static PROBE: PathProbe = PathProbe::new();

/// A directory of an index, and where this node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RootPart {
    /// The path that the index keeps: `/@NAME` for a root.
    pub(super) kept: PathBuf,
    pub(super) local: PathBuf,
}

impl RootPart {
    /// The path on this node of what lies at or below it.
    pub(super) fn local_of(&self, kept: &Path) -> PathBuf {
        moved(kept, std::iter::once((&*self.kept, &*self.local))).into_owned()
    }

    /// The bounds of paths below it that are no part of it. All roots lie at the top of the index.
    pub(super) fn outside(&self) -> (&'static [u8], &'static [u8]) {
        // 'A' is the byte after the mark.
        if self.kept.parent().is_none() { (b"/@", b"/A") } else { (b"", b"") }
    }
}

/// The roots that this node has.
#[derive(Debug, Default)]
pub(super) struct NamedRoots {
    /// A root inside of another one comes before it.
    roots: Vec<RootPart>,
    /// The beginning of kept paths that are of this machine alone: its name and a colon.
    own: OsString,
    look: Mutex<RootLook>,
}

#[derive(Debug, Default)]
struct RootLook {
    since: Option<Instant>,
    /// Kept paths of roots that are not there.
    gone: Vec<PathBuf>,
    changes: i64,
}

impl NamedRoots {
    /// Roots by name.
    pub(super) fn new(roots: Vec<(String, PathBuf)>) -> Self {
        let mut roots: Vec<RootPart> = roots
            .into_iter()
            .map(|(name, local)| RootPart { kept: PathBuf::from(format!("/{ROOT_MARK}{name}")), local })
            .collect();
        roots.sort_by_key(|root| std::cmp::Reverse(root.local.components().count()));
        Self { roots, own: format!("{}:", host_name()).into(), look: Mutex::default() }
    }

    /// The path that the index keeps.
    pub(super) fn kept<'p>(&self, path: &'p Path) -> Cow<'p, Path> {
        moved(path, self.roots.iter().map(|root| (&*root.local, &*root.kept)))
    }

    /// The path on this node. It does not exist if this node does not have the root.
    pub(super) fn local<'p>(&self, kept: &'p Path) -> Cow<'p, Path> {
        moved(kept, self.roots.iter().map(|root| (&*root.kept, &*root.local)))
    }

    /// The parts of the index that lie at or below a path of this node: the directory itself, and
    /// roots below it. A root that is not there is none of them, because nobody can tell what is
    /// gone there.
    pub(super) fn parts(&self, local: &Path) -> Vec<RootPart> {
        let own = RootPart { kept: self.kept(local).into_owned(), local: local.to_owned() };
        let parts = std::iter::once(own).chain(self.below(local).cloned());
        parts.filter(|part| self.is_there(&part.kept)).collect()
    }

    fn below<'s>(&'s self, local: &'s Path) -> impl Iterator<Item = &'s RootPart> {
        self.roots.iter().filter(move |root| root.local.starts_with(local) && root.local != local)
    }

    /// The kept paths of the parts at or below these paths of this node.
    pub(super) fn kept_parts(&self, local: &[PathBuf]) -> Vec<PathBuf> {
        local.iter().flat_map(|path| self.parts(path)).map(|part| part.kept).collect()
    }

    /// The kept paths of what lies at or below these paths of this node, there or not.
    pub(super) fn all_kept(&self, local: &[PathBuf]) -> Vec<PathBuf> {
        let own = local.iter().map(|path| self.kept(path).into_owned());
        own.chain(local.iter().flat_map(|path| self.below(path)).map(|root| root.kept.clone())).collect()
    }

    /// The kept paths of roots that lie in another root here, and what those would be without their
    /// name.
    pub(super) fn nested(&self) -> impl Iterator<Item = (PathBuf, PathBuf)> {
        self.roots.iter().filter_map(|root| {
            let outer = self.roots.iter().find(|outer| root.local.starts_with(&outer.local) && root != *outer)?;
            Some((root.kept.clone(), moved(&root.local, std::iter::once((&*outer.local, &*outer.kept))).into_owned()))
        })
    }

    /// The kept paths of roots, each with a path that the index would have without that name.
    pub(super) fn other_names(&self) -> Vec<(PathBuf, PathBuf)> {
        let unnamed = self.roots.iter().map(|root| (root.kept.clone(), root.local.clone()));
        unnamed.chain(self.nested()).collect()
    }

    /// The names of roots that are not among those of this node, by their kept paths.
    pub(super) fn unknown(&self, kept: impl Iterator<Item = PathBuf>) -> Vec<String> {
        let unknown = kept.filter(|root| !self.roots.iter().any(|known| known.kept == *root));
        unknown.map(|root| root.to_string_lossy().chars().skip(2).collect()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The directories of the roots on this node.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().map(|root| &*root.local)
    }

    /// The path that the index keeps of a mount point. That of a root itself is of this machine
    /// alone, because another one may have the root without a mount of its own.
    pub(super) fn kept_mount_point(&self, local: &Path) -> PathBuf {
        if self.directories().any(|directory| directory == local) {
            let mut kept = self.own.clone();
            kept.push(local);
            return kept.into();
        }
        self.kept(local).into_owned()
    }

    /// The path on this node of a mount point. `None` if it is none here.
    pub(super) fn local_mount_point(&self, kept: &Path) -> Option<PathBuf> {
        if !kept.is_absolute() {
            let local = kept.as_os_str().as_encoded_bytes().strip_prefix(self.own.as_encoded_bytes())?;
            return Some(path_from(local));
        }
        match root_of(kept) {
            Some(root) if root == kept || !self.roots.iter().any(|known| known.kept == root) => None,
            Some(_) | None => Some(self.local(kept).into_owned()),
        }
    }

    pub(super) fn localize(&self, location: &mut Location) {
        if let Cow::Owned(local) = self.local(&location.directory) {
            location.directory = local;
        }
    }

    /// Whether what lies below this kept path can be read on this node.
    pub(super) fn is_there(&self, kept: &Path) -> bool {
        let Some(root) = root_of(kept) else { return true };
        self.roots.iter().any(|known| known.kept == root) && !self.look(|look| look.gone.contains(&root))
    }

    /// Number of looks that found other roots than the one before. An answer depends on that as on
    /// the index.
    pub(super) fn changes(&self) -> i64 {
        self.look(|look| look.changes)
    }

    fn look<T>(&self, ask: impl FnOnce(&RootLook) -> T) -> T {
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.roots.is_empty() && look.since.is_none_or(|since| since.elapsed() >= HOLDS) {
            let locals: Vec<PathBuf> = self.roots.iter().map(|root| root.local.clone()).collect();
            // A root that does not answer counts as not there.
            let failing = PROBE.not_there(locals.clone(), has_entries).unwrap_or(locals);
            let gone: Vec<PathBuf> =
                self.roots.iter().filter(|root| failing.contains(&root.local)).map(|root| root.kept.clone()).collect();
            look.changes += i64::from(look.since.is_some() && gone != look.gone);
            (look.gone, look.since) = (gone, Some(Instant::now()));
        }
        ask(&look)
    }

    /// A piece of an index with the paths that the index keeps.
    pub(super) fn kept_piece(&self, piece: &Contents) -> Contents {
        moved_piece(piece, &|path| self.kept(path).into_owned(), &|path| Some(self.kept_mount_point(path)))
    }

    /// A piece of an index with the paths of this node.
    pub(super) fn local_piece(&self, piece: &Contents) -> Contents {
        moved_piece(piece, &|path| self.local(path).into_owned(), &|path| self.local_mount_point(path))
    }
}

/// Whether a kept path is that of a root, or lies below one.
pub(super) fn is_below_root(kept: &Path) -> bool {
    root_of(kept).is_some()
}

/// A kept path as an operator reads it.
pub(super) fn shown_kept(kept: &Path) -> String {
    let of_root = root_of(kept).and_then(|root| Some((kept.strip_prefix(&root).ok()?, root)));
    let Some((rest, root)) = of_root else { return kept.display().to_string() };
    let name = root.display().to_string().split_off(2);
    if rest.as_os_str().is_empty() { format!("root {name}") } else { format!("{} of root {name}", rest.display()) }
}

/// `/@NAME` of a kept path below a root.
fn root_of(kept: &Path) -> Option<PathBuf> {
    is_reserved(kept).then(|| kept.components().take(2).collect())
}

fn moved<'p, 'r>(path: &'p Path, mut roots: impl Iterator<Item = (&'r Path, &'r Path)>) -> Cow<'p, Path> {
    let found = roots.find_map(|(from, to)| Some((path.strip_prefix(from).ok()?, to)));
    match found {
        // `join` of nothing would add a slash.
        Some((rest, to)) if rest.as_os_str().is_empty() => Cow::Owned(to.to_owned()),
        Some((rest, to)) => Cow::Owned(to.join(rest)),
        None => Cow::Borrowed(path),
    }
}

fn moved_piece(
    piece: &Contents,
    to: &dyn Fn(&Path) -> PathBuf,
    to_mount_point: &dyn Fn(&Path) -> Option<PathBuf>,
) -> Contents {
    let key = |key: &FileKey| FileKey { directory: to(&key.directory), ..key.clone() };
    let file = |file: &StoredFile| {
        let location = Location { directory: to(&file.location.directory), ..file.location.clone() };
        StoredFile { location, ..file.clone() }
    };
    let conflict = |((kind, uid, at), object): (&(&'static str, String, FileKey), &StoredFile)| {
        ((*kind, uid.clone(), key(at)), file(object))
    };
    // Removals are not copied: see `PostgresReader::left_behind`. The rest is no part of a piece.
    let Contents {
        instances,
        unindexed,
        missing,
        faults,
        conflicts,
        directories,
        removed: _,
        removed_files: _,
        removals: _,
        removed_counts: _,
        mount_points,
        exchanged_disks,
        scans,
        watches,
        id,
        arrival: _,
        arrivals: _,
        arrival_entries,
        last_change,
        tally: _,
        events: _,
        undone_removal: _,
        version: _,
    } = piece;
    let disks = |paths: &BTreeSet<PathBuf>| paths.iter().filter_map(|path| to_mount_point(path)).collect();
    Contents {
        instances: instances.iter().map(|(uid, held)| (uid.clone(), held.iter().map(file).collect())).collect(),
        unindexed: unindexed.iter().map(|(at, file)| (key(at), file.clone())).collect(),
        missing: missing.iter().map(key).collect(),
        faults: faults.iter().map(|(at, fault)| (key(at), fault.clone())).collect(),
        conflicts: conflicts.iter().map(conflict).collect(),
        directories: directories.iter().map(|(place, path)| (*place, to(path))).collect(),
        mount_points: disks(mount_points),
        exchanged_disks: disks(exchanged_disks),
        scans: scans.clone(),
        watches: watches.clone(),
        id: id.clone(),
        arrival_entries: arrival_entries.clone(),
        last_change: *last_change,
        ..Contents::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots() -> NamedRoots {
        let of = |name: &str, path: &str| (name.to_owned(), PathBuf::from(path));
        NamedRoots::new(vec![of("ct", "/mnt/ct"), of("old", "/mnt/ct/old"), of("mr", "/data")])
    }

    #[test]
    fn a_path_below_a_root_is_kept_relative_to_the_nearest_one() {
        let roots = roots();
        for (local, kept) in [
            ("/mnt/ct", "/@ct"),
            ("/mnt/ct/1/2", "/@ct/1/2"),
            ("/mnt/ct/old/7", "/@old/7"),
            ("/mnt/ct2/1", "/mnt/ct2/1"),
            ("", ""),
            ("/@other/1", "/@other/1"),
        ] {
            assert_eq!(roots.kept(Path::new(local)), Path::new(kept));
            assert_eq!(roots.local(Path::new(kept)), Path::new(local));
        }
        let paths = ["/mnt", "/data/1"].map(PathBuf::from);
        assert_eq!(roots.kept_parts(&paths), [Path::new("/mnt")], "the roots are not there");
        assert_eq!(roots.all_kept(&paths), ["/mnt", "/@mr/1", "/@old", "/@ct"].map(PathBuf::from));
        let mount_points =
            ["/@ct", "/@ct/disk", "/@other/disk", "/mnt"].map(|kept| roots.local_mount_point(Path::new(kept)));
        assert_eq!(mount_points, [None, Some("/mnt/ct/disk".into()), None, Some("/mnt".into())]);
        // The mount of a root is that of this machine alone.
        let kept = roots.kept_mount_point(Path::new("/mnt/ct"));
        assert_eq!(roots.local_mount_point(&kept), Some("/mnt/ct".into()));
        assert_eq!(roots.local_mount_point(Path::new("another.machine:/mnt/ct")), None);
        assert_eq!(roots.kept_mount_point(Path::new("/mnt/ct/disk")), Path::new("/@ct/disk"));
    }

    #[test]
    fn a_root_is_there_if_its_directory_has_something_in_it() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["full/1", "empty"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let of = |name: &str| (name.to_owned(), dir.path().join(name));
        let roots = NamedRoots::new(vec![of("full"), of("empty"), of("none")]);
        let found =
            ["/@full/1", "/@empty/1", "/@none/1", "/@unknown/1", "/etc"].map(|path| roots.is_there(Path::new(path)));
        assert_eq!(found, [true, false, false, false, true]);
        assert_eq!(roots.kept_parts(&[dir.path().to_owned()]), [dir.path(), Path::new("/@full")]);
    }
}
