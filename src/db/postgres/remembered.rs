//! Rows that a connection remembers of the transaction before.

use std::collections::HashMap;

use super::keys::DirectoryIds;
use super::shelves::GroupRow;

/// Directories whose numbers are kept in memory. There may be millions.
const MOST_DIRECTORIES: usize = 100_000;

/// Instance groups that are kept in memory, of some 2 KB each. Larger: more memory. Smaller: groups
/// of studies that arrive slowly are read again.
const MOST_GROUPS: usize = 4096;

/// Known rows of an index. They are forgotten with each transaction that fails.
#[derive(Default)]
pub(super) struct RememberedRows {
    pub(super) directories: DirectoryIds,
    studies: HashMap<String, RememberedStudy>,
    groups: usize,
    /// Whether another writer had changed one of the studies of the last transaction.
    pub(super) is_shared: bool,
}

/// A study with all of its instance groups. They are those of the index as long as the study has
/// this number and revision.
pub(super) struct RememberedStudy {
    pub(super) id: i64,
    pub(super) revision: i64,
    pub(super) groups: Vec<GroupRow>,
}

impl RememberedRows {
    /// Makes room for more.
    pub(super) fn limit(&mut self) {
        if self.directories.len() > MOST_DIRECTORIES {
            self.directories.clear();
        }
        if self.groups > MOST_GROUPS {
            (self.studies, self.groups) = (HashMap::new(), 0);
        }
    }

    pub(super) fn study(&self, uid: &str) -> Option<&RememberedStudy> {
        self.studies.get(uid)
    }

    /// Takes a study out, because it is about to change.
    pub(super) fn take_study(&mut self, uid: &str) -> Option<RememberedStudy> {
        let study = self.studies.remove(uid)?;
        self.groups -= study.groups.len();
        Some(study)
    }

    pub(super) fn keep_study(&mut self, uid: &str, study: RememberedStudy) {
        self.take_study(uid);
        self.groups += study.groups.len();
        self.studies.insert(uid.to_owned(), study);
    }
}
