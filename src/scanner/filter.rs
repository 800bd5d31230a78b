//! Globs that include files in a scan or exclude them from it.

use std::ffi::OsStr;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Globs that include or exclude files and directories.
///
/// `*` and `?` match anything but a slash. `**` matches any number of directories. `[ab]` and
/// `{one,two}` match one of the choices. A glob without a slash is compared with the name of each
/// file and directory. A glob with a slash is compared with the path below the root of the scan. A
/// glob that matches a directory applies to everything in it. An exclude glob wins over an include
/// glob. A file that is itself a root is always read.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `None` includes everything.
    include: Option<Globs>,
    exclude: Option<Globs>,
}

/// A glob that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("`{glob}` is not a valid glob: {reason}")]
pub struct GlobError {
    /// The glob as given.
    pub glob: String,
    /// Reason why it is not valid.
    pub reason: String,
}

/// State of the filter for the files of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilterState {
    /// A file must match an include glob itself.
    Open,
    /// An include glob matches the directory, so all its files are included.
    Included,
    /// An exclude glob matches the directory, so all its files are excluded.
    Excluded,
}

#[derive(Clone, Debug)]
struct Globs {
    names: GlobSet,
    paths: GlobSet,
}

impl Filter {
    /// Compiles the globs. If `include` is empty, everything is included.
    ///
    /// # Errors
    /// For the first glob that cannot be parsed.
    pub fn new<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Self, GlobError> {
        Ok(Self { include: Globs::new(include)?, exclude: Globs::new(exclude)? })
    }

    /// Whether there are no globs at all.
    pub(super) const fn is_open(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// State of the filter for a directory. `inside` is its path below the root.
    pub(super) fn directory(&self, inside: &Path) -> FilterState {
        let mut standing = if self.include.is_none() { FilterState::Included } else { FilterState::Open };
        let above: Vec<_> = inside.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        for path in above.into_iter().rev() {
            if fits(self.exclude.as_ref(), path) {
                return FilterState::Excluded;
            }
            if fits(self.include.as_ref(), path) {
                standing = FilterState::Included;
            }
        }
        standing
    }

    /// Whether an exclude glob matches a directory. The directory above it is not excluded.
    pub(super) fn excludes_directory(&self, inside: &Path) -> bool {
        fits(self.exclude.as_ref(), inside)
    }

    /// Whether a file is excluded. `standing` is that of its directory.
    pub(super) fn excludes_file(&self, standing: FilterState, inside: &Path) -> bool {
        match standing {
            FilterState::Excluded => true,
            FilterState::Included => fits(self.exclude.as_ref(), inside),
            FilterState::Open => fits(self.exclude.as_ref(), inside) || !fits(self.include.as_ref(), inside),
        }
    }
}

fn fits(globs: Option<&Globs>, inside: &Path) -> bool {
    globs.is_some_and(|globs| {
        globs.names.is_match(inside.file_name().map_or(OsStr::new(""), |name| name)) || globs.paths.is_match(inside)
    })
}

impl Globs {
    fn new<S: AsRef<str>>(globs: &[S]) -> Result<Option<Self>, GlobError> {
        if globs.is_empty() {
            return Ok(None);
        }
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        let mut last = "";
        let failed =
            |glob: &str, error: &globset::Error| GlobError { glob: glob.to_owned(), reason: error.kind().to_string() };
        for glob in globs {
            last = glob.as_ref();
            let inner = last.trim_end_matches('/');
            if inner.is_empty() {
                return Err(GlobError { glob: last.to_owned(), reason: "it is empty".to_owned() });
            }
            let built = GlobBuilder::new(inner.trim_start_matches('/')).literal_separator(true).build();
            let built = built.map_err(|error| failed(last, &error))?;
            if inner.contains('/') { &mut paths } else { &mut names }.add(built);
        }
        let build = |set: GlobSetBuilder| set.build().map_err(|error| failed(last, &error));
        Ok(Some(Self { names: build(names)?, paths: build(paths)? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(include: &[&str], exclude: &[&str], inside: &str) -> bool {
        let filter = Filter::new(include, exclude).unwrap();
        let path = Path::new(inside);
        !filter.excludes_file(filter.directory(path.parent().unwrap()), path)
    }

    #[test]
    fn a_glob_without_a_slash_is_held_against_names() {
        assert!(passes(&["*.dcm"], &[], "a/b/1.dcm"));
        assert!(!passes(&["*.dcm"], &[], "a/b/1.jpg"));
        assert!(!passes(&[], &["*.jpg"], "a/b/1.jpg"));
        assert!(!passes(&[], &["tmp"], "a/tmp/b/1"));
        assert!(passes(&["CT*"], &[], "a/CT7/1"), "an included directory goes for what is in it");
        assert!(!passes(&["CT*"], &["*.jpg"], "a/CT7/1.jpg"));
    }

    #[test]
    fn a_glob_with_a_slash_is_held_against_the_path() {
        assert!(!passes(&[], &["/1"], "1"));
        assert!(passes(&[], &["/1"], "a/1"));
        assert!(!passes(&[], &["a/*/1"], "a/b/1"));
        assert!(passes(&[], &["a/*/1"], "a/b/c/1"));
        assert!(!passes(&[], &["a/**/1"], "a/b/c/1"));
        assert!(!passes(&[], &["a/b/"], "a/b/c/1"));
    }

    #[test]
    fn an_invalid_glob_is_an_error() {
        let error = Filter::new(&["ok", "[a"], &[]).unwrap_err().to_string();
        assert!(error.starts_with("`[a` is not a valid glob: "), "{error}");
        assert!(Filter::new(&["/"], &[]).is_err());
    }
}
