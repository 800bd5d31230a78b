//! Which files a scan is asked for by globs.

use std::ffi::OsStr;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Globs of what to look at and what to pass over.
///
/// `*` and `?` stand for anything but a slash, `**` for any number of directories, `[ab]` and `{one,two}` for a choice. A glob
/// without a slash is held against the name of each file and directory; one with a slash against the path below the path
/// that is scanned. One that fits a directory goes for all that is in it. What is excluded is passed over though it be included.
/// A file that is scanned by its own path is looked at in any case.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `None`: everything.
    include: Option<Globs>,
    exclude: Option<Globs>,
}

/// A glob that is none.
#[derive(Debug, thiserror::Error)]
#[error("`{glob}` is no glob: {reason}")]
pub struct GlobError {
    /// As given.
    pub glob: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Where a directory lies in relation to a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Files in it have to be asked for themselves.
    Open,
    /// It was asked for with all that is in it.
    Included,
    /// It is passed over with all that is in it.
    Excluded,
}

#[derive(Clone, Debug)]
struct Globs {
    names: GlobSet,
    paths: GlobSet,
}

impl Filter {
    /// From globs; where `include` is empty everything is included.
    ///
    /// # Errors
    /// For the first that is no glob.
    pub fn new<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Self, GlobError> {
        Ok(Self { include: Globs::new(include)?, exclude: Globs::new(exclude)? })
    }

    /// Whether it lets everything pass.
    pub(super) const fn is_open(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// The standing of a directory at a path below the root.
    pub(super) fn directory(&self, inside: &Path) -> Standing {
        let mut standing = if self.include.is_none() { Standing::Included } else { Standing::Open };
        let above: Vec<_> = inside.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        for path in above.into_iter().rev() {
            if fits(self.exclude.as_ref(), path) {
                return Standing::Excluded;
            }
            if fits(self.include.as_ref(), path) {
                standing = Standing::Included;
            }
        }
        standing
    }

    /// Whether a directory is passed over that lies in one of this standing.
    pub(super) fn excludes_directory(&self, inside: &Path) -> bool {
        fits(self.exclude.as_ref(), inside)
    }

    /// Whether a file is passed over that lies in a directory of this standing.
    pub(super) fn excludes_file(&self, standing: Standing, inside: &Path) -> bool {
        match standing {
            Standing::Excluded => true,
            Standing::Included => fits(self.exclude.as_ref(), inside),
            Standing::Open => fits(self.exclude.as_ref(), inside) || !fits(self.include.as_ref(), inside),
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
    fn what_is_no_glob_is_told() {
        let error = Filter::new(&["ok", "[a"], &[]).unwrap_err().to_string();
        assert!(error.starts_with("`[a` is no glob: "), "{error}");
        assert!(Filter::new(&["/"], &[]).is_err());
    }
}
