//! Ledger of scans over several files.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::federation::Federation;
use super::part::FederatedPart;
use crate::db::{DeclaredCoverage, DirectorySnapshot, Error, KnownFile, LocatedInstance, ScanLedger};
use crate::model::location::Place;

impl<R: FederatedPart> ScanLedger for Federation<R> {
    /// A file that one index holds and another one only notes is indexed.
    fn directory_now(&mut self, directory: &Path) -> Result<DirectorySnapshot<'_>, Error> {
        if self.parts.len() == 1 {
            return self.main()?.directory_now(directory);
        }
        let of_files = self.parts.iter_mut().map(|part| part.directory_now(directory));
        let of_files: Vec<DirectorySnapshot<'_>> = of_files.collect::<Result<_, _>>()?;
        Ok(DirectorySnapshot::new(move || {
            let mut all: HashMap<OsString, KnownFile> = HashMap::new();
            for of_file in of_files {
                for (name, file) in of_file.files()? {
                    if file.is_indexed() || !all.contains_key(&name) {
                        all.insert(name, file);
                    }
                }
            }
            Ok(all)
        }))
    }

    fn archive_members(&mut self, archive: &Path, on_member: &mut dyn FnMut(OsString, KnownFile)) -> Result<(), Error> {
        self.parts.iter_mut().try_for_each(|part| part.archive_members(archive, on_member))
    }

    fn archive_summary(&mut self, archive: &Path) -> Result<(u64, Vec<(OsString, KnownFile)>), Error> {
        let (mut indexed, mut others) = (0, Vec::new());
        for part in &mut self.parts {
            let (of_part, others_of_part) = part.archive_summary(archive)?;
            indexed += of_part;
            others.extend(others_of_part);
        }
        Ok((indexed, others))
    }

    fn archive_is_without_declared(&mut self, archive: &Path) -> Result<bool, Error> {
        self.any(|part| part.archive_is_without_declared(archive))
    }

    fn without_declared_below(&mut self, place: Place, root: &Path) -> Result<u64, Error> {
        self.parts.iter_mut().map(|part| part.without_declared_below(place, root)).sum()
    }

    fn declared_coverage(&mut self) -> Result<DeclaredCoverage, Error> {
        let mut sum = DeclaredCoverage::default();
        for part in &mut self.parts {
            let DeclaredCoverage { lacking, all } = part.declared_coverage()?;
            sum = DeclaredCoverage { lacking: sum.lacking + lacking, all: sum.all + all };
        }
        Ok(sum)
    }

    fn directories_without_declared(&mut self, place: Place, root: &Path) -> Result<Vec<PathBuf>, Error> {
        let mut all = BTreeSet::new();
        for part in &mut self.parts {
            all.extend(part.directories_without_declared(place, root)?);
        }
        Ok(all.into_iter().collect())
    }

    /// First locations come first in each file, not among all files.
    fn located_instances(&mut self, place: Place, directory: &Path) -> Result<Vec<LocatedInstance>, Error> {
        let mut all = Vec::new();
        for part in &mut self.parts {
            all.extend(part.located_instances(place, directory)?);
        }
        Ok(all)
    }

    fn directories_below(
        &mut self,
        place: Place,
        root: &Path,
        after: &Path,
        limit: usize,
    ) -> Result<Vec<PathBuf>, Error> {
        if self.parts.len() == 1 {
            return self.main()?.directories_below(place, root, after, limit);
        }
        // Each file puts paths that are no text last, so a page of all has to.
        let mut all = BTreeSet::new();
        for part in &mut self.parts {
            let page = part.directories_below(place, root, after, limit)?;
            all.extend(page.into_iter().map(|path| (path.to_str().is_none(), path.into_os_string())));
        }
        Ok(all.into_iter().take(limit).map(|(_, path)| path.into()).collect())
    }

    fn mount_points(&mut self) -> Result<BTreeSet<PathBuf>, Error> {
        self.all_paths(R::mount_points)
    }

    fn exchanged_disks(&mut self) -> Result<BTreeSet<PathBuf>, Error> {
        self.all_paths(R::exchanged_disks)
    }

    fn named_roots(&self) -> BTreeSet<PathBuf> {
        self.parts.iter().flat_map(|part| part.named_roots()).collect()
    }
}

impl<R: FederatedPart> Federation<R> {
    /// The paths that some file has.
    fn all_paths(
        &mut self,
        of: impl Fn(&mut R) -> Result<BTreeSet<PathBuf>, Error>,
    ) -> Result<BTreeSet<PathBuf>, Error> {
        let mut all = BTreeSet::new();
        for part in &mut self.parts {
            all.extend(of(part)?);
        }
        Ok(all)
    }
}
