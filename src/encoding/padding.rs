//! Padding of values (PS3.5 6.2): spaces and NULs that fill a value up to an even length.

const PADDING: [char; 2] = [' ', '\0'];

/// A value without its padding, and without such characters in front. Some writers pad there too.
#[must_use]
pub(crate) fn without_padding(value: &str) -> &str {
    value.trim_matches(PADDING)
}

/// A value without its padding, for VRs in which spaces in front mean something.
#[must_use]
pub(crate) fn without_trailing_padding(value: &str) -> &str {
    value.trim_end_matches(PADDING)
}
