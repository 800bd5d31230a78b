//! Paths of members. A path joins the names of the nested archives, outermost first, and the name
//! of the member. The separator is `!/`.
//!
//! A name may itself hold `!/`. So in a path, exclamation marks before a slash or before the
//! separator are doubled. An odd number of them before a slash is a separator, and half of the
//! others belong to the name. So every name has one path, and every path has one meaning.
//!
//! Several members of one archive may have the same name. The path of the second is that of the
//! first with `!/!/2` added. No name is empty, so the empty name in between cannot be that of an
//! archive.

/// Adds the name of a member to the path of its archive. An empty path is the archive file itself.
pub(crate) fn join(archive: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(archive.len() + 2 + name.len());
    if !archive.is_empty() {
        path.extend_from_slice(archive);
        // So far the last name of `archive` was the end of a path, where exclamation marks are not
        // doubled.
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

/// The path of another member with the same name. `occurrence` counts from 1, which is the first.
pub(crate) fn again(path: &[u8], occurrence: u32) -> Vec<u8> {
    if occurrence <= 1 {
        return path.to_vec();
    }
    join(&join(path, b""), occurrence.to_string().as_bytes())
}

/// A member within the archive that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathStep {
    pub(crate) name: Vec<u8>,
    /// Its number among the members of this name, from 1.
    pub(crate) occurrence: u32,
}

impl PathStep {
    /// The path of this member, if its archive is at `path`.
    pub(crate) fn below(&self, path: &[u8]) -> Vec<u8> {
        again(&join(path, &self.name), self.occurrence)
    }
}

/// The nested archives on a path and the member at its end, outermost first.
pub(crate) fn steps(path: &[u8]) -> Vec<PathStep> {
    let mut steps: Vec<PathStep> = Vec::new();
    let mut names = split(path).into_iter().peekable();
    while let Some(name) = names.next() {
        let occurrence = if name.is_empty() { names.peek().and_then(|number| occurrence(number)) } else { None };
        match (steps.last_mut(), occurrence) {
            (Some(step), Some(occurrence)) if step.occurrence == 1 => {
                step.occurrence = occurrence;
                names.next();
            }
            _ => steps.push(PathStep { name, occurrence: 1 }),
        }
    }
    steps
}

/// Parses a number that [`again`] wrote.
fn occurrence(digits: &[u8]) -> Option<u32> {
    let number: u32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number > 1 && number.to_string().as_bytes() == digits).then_some(number)
}

/// Number of exclamation marks directly before position `at`.
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

    #[test]
    fn further_members_of_a_name_have_a_number() {
        assert_eq!(again(b"a.dcm", 1), b"a.dcm");
        assert_eq!(again(b"a.dcm", 2), b"a.dcm!/!/2");
        assert_eq!(join(&again(b"in.zip", 3), b"a.dcm"), b"in.zip!/!/3!/a.dcm");
        // A member's own name is never read as an occurrence number.
        assert_eq!(join(b"", b"a.dcm!/!/2"), b"a.dcm!!/!!/2");
        assert_eq!(steps(b"a.dcm!/!/1").len(), 3);
    }

    proptest! {
        #[test]
        fn every_path_with_numbers_has_one_meaning(
            steps in prop::collection::vec(("[!/a2]{1,6}", prop_oneof![Just(1), 1..12_u32]), 1..4)
        ) {
            let steps: Vec<_> =
                steps.into_iter().map(|(name, occurrence)| PathStep { name: name.into_bytes(), occurrence }).collect();
            let path = steps.iter().fold(Vec::new(), |path, step| step.below(&path));
            prop_assert_eq!(super::steps(&path), steps);
        }

        #[test]
        fn every_path_has_one_meaning(names in prop::collection::vec("[!/a]{1,6}", 1..4)) {
            let path = names.iter().fold(Vec::new(), |path, name| join(&path, name.as_bytes()));
            let names: Vec<_> = names.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(split(&path), names);
        }
    }
}
