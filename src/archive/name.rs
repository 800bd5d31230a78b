//! Paths of members: the names of the archives in the archive file, outermost first, and of the member in the last of them,
//! joined by `!/`.
//!
//! A name may hold `!/` itself. In a path, exclamation marks that stand before a slash (or before the separator) are doubled:
//! an odd number of them before a slash is a separator with half of the others before it. So every name has one path, and
//! every path one meaning.

/// Adds the name of a member to the path of the archive that it lies in; an empty path is the archive file itself.
pub(crate) fn join(archive: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(archive.len() + 2 + name.len());
    if !archive.is_empty() {
        path.extend_from_slice(archive);
        // The last name of `archive` was the end of a path so far, where exclamation marks mean themselves.
        path.extend(std::iter::repeat_n(b'!', marks_before(archive, archive.len())));
        path.extend_from_slice(b"!/");
    }
    for (at, &byte) in name.iter().enumerate() {
        if byte == b'/' {
            path.extend(std::iter::repeat_n(b'!', marks_before(name, at)));
        }
        path.push(byte);
    }
    path
}

/// The names in a path, outermost archive first.
pub(crate) fn split(path: &[u8]) -> Vec<Vec<u8>> {
    let mut names = vec![Vec::new()];
    for (at, &byte) in path.iter().enumerate() {
        let Some(name) = names.last_mut() else { break };
        if byte != b'/' {
            name.push(byte);
            continue;
        }
        let marks = marks_before(path, at);
        name.truncate(name.len() - marks.div_ceil(2).min(name.len()));
        if marks % 2 == 1 {
            names.push(Vec::new());
        } else {
            name.push(byte);
        }
    }
    names
}

/// Exclamation marks directly before a place.
fn marks_before(bytes: &[u8], at: usize) -> usize {
    bytes.get(..at).unwrap_or_default().iter().rev().take_while(|&&byte| byte == b'!').count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn archives_in_archives_are_joined_by_a_separator() {
        assert_eq!(join(b"", b"a/b.dcm"), b"a/b.dcm");
        assert_eq!(join(b"in.zip", b"a/b.dcm"), b"in.zip!/a/b.dcm");
        assert_eq!(join(b"in.zip", b"/etc/passwd"), b"in.zip!//etc/passwd");
        assert_eq!(join(b"", b"not!/nested"), b"not!!/nested");
        assert_eq!(join(b"ends with !", b"b"), b"ends with !!!/b");
    }

    proptest! {
        #[test]
        fn every_path_has_one_meaning(names in prop::collection::vec("[!/a]{1,6}", 1..4)) {
            let path = names.iter().fold(Vec::new(), |path, name| join(&path, name.as_bytes()));
            let names: Vec<_> = names.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(split(&path), names);
        }
    }
}
