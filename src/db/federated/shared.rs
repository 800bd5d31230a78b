//! Studies of which several files hold a part.
//!
//! Two files that were scanned on their own may both have objects of a study. All studies are
//! compared once, by hash. After that only studies that are new in a file are looked up in the
//! others.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::part::FederatedPart;
use crate::db::Error;

/// A study by its UID, with the numbers of the files that hold a part of it.
type StudyFiles = BTreeMap<String, BTreeSet<usize>>;

/// The studies that several files hold, as of the last look.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedStudies {
    studies: Arc<StudyFiles>,
    /// For each file, row number and UID of its last study at that time.
    seen: Vec<Option<(i64, String)>>,
    /// For each file, its version before that look. It means something to one reader only.
    versions: Vec<Option<i64>>,
}

impl SharedStudies {
    pub(super) fn is_empty(&self) -> bool {
        self.studies.is_empty()
    }

    /// The numbers of the files with a part of this study. `None` if only one file can have it.
    pub(super) fn files_of(&self, study_instance_uid: &str) -> Option<&BTreeSet<usize>> {
        self.studies.get(study_instance_uid)
    }

    /// All of them.
    pub(super) fn uids(&self) -> impl Iterator<Item = &String> {
        self.studies.keys()
    }

    /// The same, for other readers of the files.
    pub(super) fn for_others(&self) -> Self {
        Self { versions: vec![None; self.versions.len()], ..self.clone() }
    }

    /// Looks at what is new in the files. A study that is gone from a file stays in the list, where
    /// it does no harm.
    pub(super) fn update<R: FederatedPart>(&mut self, parts: &mut [R]) -> Result<(), Error> {
        if self.seen.len() != parts.len() {
            return self.compare_all(parts);
        }
        for at in 0..parts.len() {
            let version = Some(parts[at].version()?);
            // Most questions come while nothing has changed.
            if version == self.versions[at] {
                continue;
            }
            let last = parts[at].last_study()?;
            if last == self.seen[at] {
                self.versions[at] = version;
                continue;
            }
            if let Some((row, uid)) = &self.seen[at]
                && parts[at].study_at(*row)?.as_ref() != Some(uid)
            {
                // Rows are gone, so row numbers may have been given again.
                return self.compare_all(parts);
            }
            let mut new = Vec::new();
            let after = self.seen[at].as_ref().map(|(row, _)| *row);
            parts[at].each_study(after, &mut |_, uid| new.push(uid.to_owned()))?;
            for uid in new {
                self.look_up(parts, at, uid)?;
            }
            (self.seen[at], self.versions[at]) = (last, version);
        }
        Ok(())
    }

    fn look_up<R: FederatedPart>(&mut self, parts: &mut [R], at: usize, uid: String) -> Result<(), Error> {
        let mut files = BTreeSet::from([at]);
        for (other, part) in parts.iter_mut().enumerate().filter(|(other, _)| *other != at) {
            if part.has_study(&uid)? {
                files.insert(other);
            }
        }
        if files.len() > 1 {
            Arc::make_mut(&mut self.studies).insert(uid, files);
        }
        Ok(())
    }

    /// Compares the studies of all files.
    fn compare_all<R: FederatedPart>(&mut self, parts: &mut [R]) -> Result<(), Error> {
        let versions = parts.iter_mut().map(|part| part.version().map(Some)).collect::<Result<_, _>>()?;
        self.seen = parts.iter_mut().map(FederatedPart::last_study).collect::<Result<_, _>>()?;
        let of_files: Vec<Result<Vec<(u64, i64)>, Error>> = std::thread::scope(|scope| {
            let threads: Vec<_> = parts.iter_mut().map(|part| scope.spawn(|| hashes(part))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        let mut all = Vec::new();
        for (at, of_file) in of_files.into_iter().enumerate() {
            all.extend(of_file?.into_iter().map(|(hash, row)| (hash, at, row)));
        }
        all.sort_unstable();
        let mut studies = StudyFiles::new();
        for same in all.chunk_by(|(one, ..), (other, ..)| one == other).filter(|same| same.len() > 1) {
            for &(_, at, row) in same {
                if let Some(uid) = parts[at].study_at(row)? {
                    studies.entry(uid).or_default().insert(at);
                }
            }
        }
        studies.retain(|_, files| files.len() > 1);
        (self.studies, self.versions) = (Arc::new(studies), versions);
        Ok(())
    }
}

fn hashes<R: FederatedPart>(part: &mut R) -> Result<Vec<(u64, i64)>, Error> {
    let mut found = Vec::new();
    part.each_study(None, &mut |row, uid| found.push((xxh3_64(uid.as_bytes()), row)))?;
    Ok(found)
}
