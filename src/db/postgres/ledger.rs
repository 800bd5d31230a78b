//! Ledger of scans.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::away;
use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::keys::{RowKey, name_from, path_from, place_number, to_u64};
use super::load::{self, IN_DIRECTORY, flags};
use super::marks::{FileMarks, MARK_COLUMNS};
use super::reader::PostgresReader;
use super::roots::RootPart;
use crate::db::contents::{FileKey, StoredFile};
use crate::db::paths::range_below;
use crate::db::{DeclaredCoverage, DirectorySnapshot, Error, KnownFile, LocatedInstance, ScanLedger};
use crate::model::attribute::AttributeId;
use crate::model::declared::DeclaredSet;
use crate::model::location::Place;

/// Condition that keeps other roots out of a part: see [`RootPart::outside`].
const OUTSIDE: &str = "(d.path < $5 OR d.path >= $6)";

/// The files that an index knows in a directory or archive file.
fn files_of(
    connection: &mut ServerConnection,
    is_archive: bool,
    directory: &Path,
    declared: &DeclaredSet,
) -> Result<Vec<(OsString, KnownFile)>, ServerFailure> {
    let mut marks = FileMarks::default();
    let sql = format!("SELECT {MARK_COLUMNS} FROM file_mark WHERE directory_key = $1 AND is_archive = $2");
    let rows = connection.query(&sql, &[&RowKey::of_path(directory), &is_archive])?;
    rows.iter().try_for_each(|row| marks.add(row))?;
    let mut found = Vec::new();
    let known = |size, mtime_ms, missing| KnownFile { size, mtime_ms, note: None, missing, lacks_declared: false };
    load::each_instance_in(connection, is_archive, directory, &mut |file, row_flags| {
        let location = file.location;
        let is_missing = row_flags & flags::FIRST_IS_MISSING != 0;
        let lacks_declared = !declared.is_empty() && !declared.is_covered_by(&file.declared);
        let known = KnownFile { lacks_declared, ..known(location.size, location.mtime_ms, is_missing) };
        found.push((location.file_name, known));
    })?;
    let sql = format!(
        "SELECT c.file_name, c.size, c.mtime_ms FROM directory d JOIN copy c ON c.directory = d.id \
         WHERE {IN_DIRECTORY}"
    );
    let archive = place_number(Place::Archive);
    for row in connection.query(&sql, &[&RowKey::of_path(directory), &archive, &is_archive])? {
        let name = name_from(row.try_get(0)?);
        let key = FileKey { is_archive, directory: directory.to_owned(), name: name.clone() };
        found.push((name, known(to_u64(row.try_get(1)?), row.try_get(2)?, marks.missing.contains(&key))));
    }
    for (key, file) in marks.unindexed {
        let note = Some(Arc::new(file.note));
        found.push((key.name, KnownFile { note, ..known(file.size, file.mtime_ms, false) }));
    }
    Ok(found)
}

impl PostgresReader {
    fn files_in(&mut self, is_archive: bool, directory: &Path) -> Result<Vec<(OsString, KnownFile)>, Error> {
        let (declared, roots) = (Arc::clone(&self.declared), self.roots());
        let directory = roots.kept(directory);
        self.ask_for_scan(|connection| files_of(connection, is_archive, &directory, &declared))
    }

    /// The directories of this kind at or below `root` with instances that were read without a
    /// declared attribute, and how many.
    fn without_declared(&mut self, place: Place, root: &Path) -> Result<BTreeMap<PathBuf, u64>, Error> {
        let declared = Arc::clone(&self.declared);
        if declared.is_empty() {
            return Ok(BTreeMap::new());
        }
        let parts = self.roots().parts(root);
        self.ask_for_scan(|connection| {
            let sql = format!(
                "SELECT d.path, s.declared, sum(s.instance_count)::bigint FROM directory d \
                 JOIN shelf s ON s.directory = d.id \
                 WHERE d.place = $1 AND (d.path = $2 OR d.path > $3 AND d.path < $4 AND {OUTSIDE}) GROUP BY 1, 2"
            );
            let mut found = BTreeMap::new();
            for part in &parts {
                let (own, (from, to)) = (part.kept.as_os_str().as_encoded_bytes(), range_below(&part.kept));
                let (above, below) = part.outside();
                for row in connection.query(&sql, &[&place_number(place), &own, &from, &to, &above, &below])? {
                    if !declared.is_covered_by(row.try_get(1)?) {
                        *found.entry(part.local_of(&path_from(row.try_get(0)?))).or_default() +=
                            to_u64(row.try_get(2)?);
                    }
                }
            }
            Ok(found)
        })
    }

    /// Directories below a part that come after a path of this node, as paths of this node in their
    /// order.
    fn below_part(&mut self, place: Place, part: &RootPart, after: &Path, limit: usize) -> Result<Vec<PathBuf>, Error> {
        let (from, to) = range_below(&part.kept);
        let after = match after.strip_prefix(&part.local) {
            Ok(rest) => part.kept.join(rest).into_os_string().into_encoded_bytes(),
            Err(_) if after.as_os_str() < part.local.join("").as_os_str() => Vec::new(),
            Err(_) => return Ok(Vec::new()),
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (above, below) = part.outside();
        self.ask_for_scan(|connection| {
            let sql = format!(
                "SELECT path FROM directory d WHERE place = $1 AND path > $2 AND path > $3 AND path < $4 AND {OUTSIDE} \
                 ORDER BY path LIMIT $7"
            );
            let rows = connection.query(&sql, &[&place_number(place), &after, &from, &to, &above, &below, &limit])?;
            rows.iter().map(|row| Ok(part.local_of(&path_from(row.try_get(0)?)))).collect()
        })
    }

    /// Whether the index has a directory of just this path.
    fn has_directory(&mut self, place: Place, kept: &Path) -> Result<bool, Error> {
        self.ask_for_scan(|connection| {
            let sql = "SELECT EXISTS (SELECT FROM directory WHERE path_key = $1 AND place = $2)";
            Ok(connection.query_one(sql, &[&RowKey::of_path(kept), &place_number(place)])?.try_get(0)?)
        })
    }
}

impl ScanLedger for PostgresReader {
    fn directory_now(&mut self, directory: &Path) -> Result<DirectorySnapshot<'_>, Error> {
        let files: HashMap<_, _> = self.files_in(false, directory)?.into_iter().collect();
        Ok(DirectorySnapshot::new(move || Ok(files)))
    }

    fn archive_members(&mut self, archive: &Path, on_member: &mut dyn FnMut(OsString, KnownFile)) -> Result<(), Error> {
        self.files_in(true, archive)?.into_iter().for_each(|(name, file)| on_member(name, file));
        Ok(())
    }

    fn archive_summary(&mut self, archive: &Path) -> Result<(u64, Vec<(OsString, KnownFile)>), Error> {
        let files = self.files_in(true, archive)?;
        let (indexed, others): (Vec<_>, _) =
            files.into_iter().partition(|(_, file)| file.is_indexed() && !file.missing);
        Ok((indexed.len() as u64, others))
    }

    fn archive_is_without_declared(&mut self, archive: &Path) -> Result<bool, Error> {
        Ok(self.files_in(true, archive)?.iter().any(|(_, file)| file.lacks_declared))
    }

    fn without_declared_below(&mut self, place: Place, root: &Path) -> Result<u64, Error> {
        Ok(self.without_declared(place, root)?.into_values().sum())
    }

    fn declared_coverage(&mut self) -> Result<DeclaredCoverage, Error> {
        let declared = Arc::clone(&self.declared);
        self.ask_for_scan(|connection| {
            let (mut lacking, mut all) = (0, 0);
            let sql = "SELECT declared, sum(instance_count)::bigint FROM shelf GROUP BY declared";
            for row in connection.query(sql, &[])? {
                let count = to_u64(row.try_get(1)?);
                all += count;
                lacking += if declared.is_covered_by(row.try_get(0)?) { 0 } else { count };
            }
            Ok(DeclaredCoverage { lacking, all })
        })
    }

    fn directories_without_declared(&mut self, place: Place, root: &Path) -> Result<Vec<PathBuf>, Error> {
        Ok(self.without_declared(place, root)?.into_keys().collect())
    }

    fn located_instances(&mut self, place: Place, directory: &Path) -> Result<Vec<LocatedInstance>, Error> {
        let (is_archive, roots) = (place == Place::Archive, self.roots());
        let directory = roots.kept(directory);
        let (files, copies) = self.ask_for_scan(|connection| {
            let mut files = Vec::new();
            load::each_instance_in(connection, is_archive, &directory, &mut |file, _| files.push(file))?;
            let copies = load::copies_in(connection, is_archive, &directory)?;
            Ok((files, copies))
        })?;
        let located = |mut held: StoredFile| {
            roots.localize(&mut held.location);
            let value = |id| held.record.value(id).to_owned();
            LocatedInstance {
                sop_instance_uid: value(AttributeId::SOPInstanceUID),
                sop_class_uid: value(AttributeId::SOPClassUID),
                transfer_syntax: value(AttributeId::AvailableTransferSyntaxUID),
                differs: held.differs,
                checksum: held.checksum,
                location: held.location,
            }
        };
        Ok(files.into_iter().chain(copies).map(located).collect())
    }

    fn directories_below(
        &mut self,
        place: Place,
        root: &Path,
        after: &Path,
        limit: usize,
    ) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        for part in self.roots().parts(root) {
            found.extend(self.below_part(place, &part, after, limit)?);
            // The directory of a root below is one of those.
            let is_due = part.local != root && part.local.as_os_str() > after.as_os_str();
            if is_due && self.has_directory(place, &part.kept)? {
                found.push(part.local);
            }
        }
        found.sort_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
        found.truncate(limit);
        Ok(found)
    }

    fn mount_points(&mut self) -> Result<BTreeSet<PathBuf>, Error> {
        let roots = self.roots();
        self.ask_for_scan(|connection| Ok(away::mount_points(connection, &roots)?.into_iter().collect()))
    }

    fn exchanged_disks(&mut self) -> Result<BTreeSet<PathBuf>, Error> {
        let roots = self.roots();
        self.ask_for_scan(|connection| {
            Ok(away::noted_disks(connection, &roots, "exchanged_disk")?.into_iter().collect())
        })
    }

    fn named_roots(&self) -> BTreeSet<PathBuf> {
        self.roots().directories().map(Path::to_owned).collect()
    }
}
