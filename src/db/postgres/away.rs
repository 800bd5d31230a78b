//! Instances that this node can read. Others may lie on roots that it does not have, or on disks
//! that are not mounted.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::keys::{RowKey, path_from};
use super::load::flags;
use super::roots::NamedRoots;
use super::shelves::GroupRow;
use crate::db::contents::StoredFile;
use crate::db::mounts::MountLook;
use crate::model::attribute::AttributeId;
use crate::model::availability::ObjectAvailability;
use crate::model::location::Place;

/// The places on this node where scans have seen a file system mounted.
pub(super) fn mount_points(
    connection: &mut ServerConnection,
    roots: &NamedRoots,
) -> Result<Vec<PathBuf>, ServerFailure> {
    noted_disks(connection, roots, "mount_point")
}

/// The places on this node that a table of disks has.
pub(super) fn noted_disks(
    connection: &mut ServerConnection,
    roots: &NamedRoots,
    table: &str,
) -> Result<Vec<PathBuf>, ServerFailure> {
    let rows = connection.query(&format!("SELECT path FROM {table} ORDER BY path"), &[])?;
    let kept = rows.iter().map(|row| Ok(path_from(row.try_get(0)?)));
    kept.filter_map(|kept| kept.map(|kept| roots.local_mount_point(&kept)).transpose()).collect()
}

/// Places where this node has files.
#[derive(Clone, Copy)]
pub(super) struct NodePlaces<'n> {
    pub(super) roots: &'n NamedRoots,
    pub(super) mounts: &'n MountLook,
}

impl NodePlaces<'_> {
    /// Availability of the files of a directory, by the path that the index keeps.
    fn access(self, kept: &Path) -> ObjectAvailability {
        if !self.roots.is_there(kept) {
            ObjectAvailability::Unavailable
        } else if self.mounts.has_away(&self.roots.local(kept)) {
            ObjectAvailability::Offline
        } else {
            ObjectAvailability::Online
        }
    }

    /// Whether some copy may lie where this node cannot read it.
    fn may_lack_some(self) -> bool {
        !self.roots.is_empty() || !self.mounts.found().0.is_empty()
    }
}

/// Instances that this node cannot read, of some instance groups.
#[derive(Default)]
pub(super) struct AwayInstances {
    /// Availability of the files of a directory, by its instance groups. Those that can be read are
    /// not here.
    directories: HashMap<i64, ObjectAvailability>,
    /// Availability of instances that have copies, if their first file cannot be read.
    instances: HashMap<RowKey, ObjectAvailability>,
    /// Availability of the least available instance of an instance group, of those that have
    /// copies.
    with_copies: HashMap<i64, (i64, ObjectAvailability)>,
}

impl AwayInstances {
    /// Finds the directories that cannot be read.
    pub(super) fn of(places: NodePlaces<'_>, groups: &[GroupRow]) -> Self {
        let kept = groups.iter().filter(|group| group.place != Place::MetadataOnly);
        let found = kept.map(|group| (group.id, places.access(&group.path)));
        let directories = found.filter(|(_, access)| *access != ObjectAvailability::Online).collect();
        Self { directories, ..Self::default() }
    }

    /// Looks for copies that can be read instead.
    pub(super) fn find_copies(
        &mut self,
        connection: &mut ServerConnection,
        places: NodePlaces<'_>,
        groups: &[GroupRow],
    ) -> Result<(), ServerFailure> {
        let away: Vec<i64> = self.directories.keys().copied().collect();
        let all: Vec<i64> = groups.iter().map(|group| group.id).collect();
        if away.is_empty() && !places.may_lack_some() {
            return Ok(());
        }
        // If the first file of an instance is gone, its copies count wherever it was.
        let sql = "SELECT i.shelf, i.uid_key, i.flags, d.path FROM (\
                   SELECT shelf, uid_key, flags FROM instance WHERE shelf = ANY($1) AND flags & 1 = 0 \
                   UNION SELECT shelf, uid_key, flags FROM instance WHERE shelf = ANY($2) AND flags & 3 = 2 \
                   AND (SELECT EXISTS (SELECT FROM file_mark WHERE mark = 'missing'))) i \
                   JOIN copy c ON c.uid_key = i.uid_key AND NOT c.differs \
                   JOIN directory d ON d.id = c.directory AND d.place <> 2 \
                   WHERE NOT EXISTS (SELECT FROM file_mark m WHERE m.mark = 'missing' AND m.directory_key = d.path_key \
                   AND m.is_archive = (d.place = 3) AND m.file_name = c.file_name)";
        let mut found: HashMap<(i64, RowKey), ObjectAvailability> = HashMap::new();
        for row in connection.query(sql, &[&away, &all])? {
            let (group, row_flags): (i64, i16) = (row.try_get(0)?, row.try_get(2)?);
            let first = self.directories.get(&group).filter(|_| row_flags & flags::FIRST_IS_MISSING == 0);
            let copy = places.access(&path_from(row.try_get(3)?));
            let best = first.map_or(copy, |first| copy.min(*first));
            let known = found.entry((group, row.try_get(1)?)).or_insert(best);
            *known = best.min(*known);
        }
        for ((group, uid), access) in found {
            let (count, least) = self.with_copies.entry(group).or_insert((0, ObjectAvailability::Online));
            (*count, *least) = (*count + 1, access.max(*least));
            self.instances.insert(uid, access);
        }
        Ok(())
    }

    /// Availability of the least available instance of an instance group.
    pub(super) fn of_group(&self, group: &GroupRow) -> ObjectAvailability {
        let of_row = ObjectAvailability::of(group.offline == 0);
        let (count, least) = self.with_copies.get(&group.id).copied().unwrap_or((0, ObjectAvailability::Online));
        let directory = self.directories.get(&group.id).filter(|_| count < group.instances);
        directory.copied().unwrap_or(ObjectAvailability::Online).max(least).max(of_row)
    }

    /// Availability of an instance of an instance group, by the flags of its row.
    pub(super) fn of_instance(&self, group: &GroupRow, row_flags: i16, file: &StoredFile) -> ObjectAvailability {
        if row_flags & flags::OFFLINE != 0 {
            return ObjectAvailability::Unavailable;
        }
        let with_copies = self.instances.get(&RowKey::of_uid(file.record.value(AttributeId::SOPInstanceUID)));
        with_copies.or(self.directories.get(&group.id)).copied().unwrap_or(ObjectAvailability::Online)
    }

    /// Whether the files of this instance group can be read here.
    pub(super) fn has_files_here(&self, group: &GroupRow) -> bool {
        !self.directories.contains_key(&group.id)
    }
}
