//! Paths that have changed and wait for a look.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Most paths that wait. More of them lead to a look at everything, which costs about as much.
const MOST_PATHS: usize = 20_000;

/// Time for which changes may go on before there is a look.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// Delay of a look after its files have settled, because file times are coarse.
const MARGIN: Duration = Duration::from_millis(200);

/// Reason for a look at everything in place of the changed paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhyAll {
    /// The system dropped events.
    Overflow,
    /// Something was removed.
    Removed,
    /// There are too many changes.
    TooMany,
}

impl WhyAll {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "the system dropped events",
            Self::Removed => "something was removed",
            Self::TooMany => "there were too many changes",
        }
    }
}

/// Paths that have changed since the last look.
#[derive(Debug, Default)]
pub(super) struct PathChanges {
    paths: BTreeSet<PathBuf>,
    /// The first and the last change.
    times: Option<(Instant, Instant)>,
    /// Reason why everything has to be looked at.
    pub(super) all: Option<WhyAll>,
}

impl PathChanges {
    /// Adds a path that changed now.
    pub(super) fn add(&mut self, path: PathBuf) {
        let now = Instant::now();
        self.times = Some(self.times.map_or((now, now), |(first, _)| (first, now)));
        if self.paths.len() >= MOST_PATHS && !self.paths.contains(&path) {
            self.add_all(WhyAll::TooMany);
            return;
        }
        self.paths.insert(path);
    }

    /// Everything has to be looked at.
    pub(super) fn add_all(&mut self, why: WhyAll) {
        // A removal can wait, and an overflow must not.
        if self.all.is_none_or(|known| known == WhyAll::Removed) {
            self.all = Some(why);
        }
    }

    /// When the changed paths should be looked at: when they have settled, but not much later than
    /// the first of them.
    pub(super) fn due(&self, settled_after: Duration) -> Option<Instant> {
        let (first, last) = self.times?;
        Some((last + settled_after + MARGIN).min(first + settled_after.max(LONGEST_WAIT)))
    }

    /// Takes the paths, without those below another one.
    pub(super) fn take(&mut self) -> Vec<PathBuf> {
        self.times = None;
        let mut paths: Vec<PathBuf> = Vec::new();
        // A set is in the order of the components, so what lies below a path follows it.
        for path in std::mem::take(&mut self.paths) {
            if !paths.last().is_some_and(|last: &PathBuf| path.starts_with(last)) {
                paths.push(path);
            }
        }
        paths
    }

    /// Forgets what a look at everything has seen. Changes during the look stay.
    pub(super) fn begin_all(&mut self) -> Option<WhyAll> {
        self.take();
        self.all.take()
    }

    /// Whether a path waits.
    #[cfg(test)]
    fn has(&self, path: &std::path::Path) -> bool {
        self.paths.contains(path)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_lies_below_a_changed_directory_is_looked_at_with_it() {
        let mut changes = PathChanges::default();
        for path in ["/a/b/2", "/a/b", "/a/b/1/x", "/a/bc", "/a/c/1"] {
            changes.add(path.into());
        }
        assert_eq!(changes.take(), ["/a/b", "/a/bc", "/a/c/1"].map(PathBuf::from));
        assert_eq!(changes.due(Duration::ZERO), None);
    }

    #[test]
    fn a_look_waits_for_changes_to_end_but_not_for_ever() {
        let mut changes = PathChanges::default();
        changes.add("/a".into());
        let (first, _) = changes.times.unwrap();
        let settled_after = Duration::from_secs(5);
        assert_eq!(changes.due(settled_after), Some(first + settled_after + MARGIN));
        changes.times = Some((first, first + Duration::from_secs(60)));
        assert_eq!(changes.due(settled_after), Some(first + LONGEST_WAIT));
    }

    #[test]
    fn too_many_changes_lead_to_a_look_at_everything() {
        let mut changes = PathChanges::default();
        for number in 0..=MOST_PATHS {
            changes.add(format!("/a/{number}").into());
        }
        assert_eq!(changes.all, Some(WhyAll::TooMany));
        assert!(!changes.has(Path::new(&format!("/a/{MOST_PATHS}"))));
        changes.add_all(WhyAll::Removed);
        assert_eq!(changes.begin_all(), Some(WhyAll::TooMany));
        assert!(changes.take().is_empty() && changes.all.is_none());
    }
}
