//! The members of an archive file that somebody still needs.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::name;

/// The members of one archive file that the caller still wants.
#[derive(Clone, Debug, Default)]
pub struct WantedMembers {
    pub(super) members: HashSet<Vec<u8>>,
    /// Number of wanted members at or below each path, their own and those of the archives around
    /// them.
    pub(super) paths: HashMap<Vec<u8>, usize>,
}

impl WantedMembers {
    /// Adds a member by its path in the archive file (`archive/name.rs`). To add it again changes
    /// nothing.
    pub fn add(&mut self, member: &OsStr) {
        if !self.members.insert(member.as_bytes().to_vec()) {
            return;
        }
        for path in path_prefixes(member) {
            *self.paths.entry(path).or_default() += 1;
        }
    }

    /// Removes a member. Nothing changes if it is not wanted.
    pub fn remove(&mut self, member: &OsStr) {
        if !self.members.remove(member.as_bytes()) {
            return;
        }
        for path in path_prefixes(member) {
            if let Entry::Occupied(mut number) = self.paths.entry(path) {
                *number.get_mut() = number.get().saturating_sub(1);
                if *number.get() == 0 {
                    number.remove();
                }
            }
        }
    }
}

/// The paths of the archives around a member, and its own path.
fn path_prefixes(member: &OsStr) -> impl Iterator<Item = Vec<u8>> {
    name::steps(member.as_bytes()).into_iter().scan(Vec::new(), |path, step| {
        *path = step.below(path);
        Some(path.clone())
    })
}
