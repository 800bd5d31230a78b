//! Values of the index as SQL has them: paths, and kinds of places.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::model::location::Place;

/// The number of a kind of place in `directory.place`.
pub(super) const fn place_number(place: Place) -> i64 {
    match place {
        Place::InPlace => 0,
        Place::Managed => 1,
        Place::MetadataOnly => 2,
        Place::Archive => 3,
    }
}

/// The kind of place that [`place_number`] gives this number.
pub(super) const fn place_from_number(number: i64) -> Place {
    match number {
        0 => Place::InPlace,
        1 => Place::Managed,
        3 => Place::Archive,
        _ => Place::MetadataOnly,
    }
}

/// The paths below a directory, as bytes: those after the first and before the second.
pub(super) fn range_below(root: &Path) -> (Vec<u8>, Vec<u8>) {
    let from = root.join("").into_os_string().into_encoded_bytes();
    // '0' follows '/': this is past everything below the root.
    let to = [from.strip_suffix(b"/").unwrap_or_default(), b"0"].concat();
    (from, to)
}

/// A path or file name as a SQL value: TEXT where it is UTF-8, BLOB otherwise, so that nothing of it is lost.
pub(super) struct PathValue<'a>(pub(super) &'a OsStr);

impl<'a> From<&'a Path> for PathValue<'a> {
    fn from(path: &'a Path) -> Self {
        Self(path.as_os_str())
    }
}

impl ToSql for PathValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let bytes = self.0.as_encoded_bytes();
        Ok(ToSqlOutput::Borrowed(match self.0.to_str() {
            Some(_) => ValueRef::Text(bytes),
            None => ValueRef::Blob(bytes),
        }))
    }
}

/// The path or file name of a SQL value that [`PathValue`] made.
pub(super) fn path_from_sql(value: ValueRef<'_>) -> OsString {
    match value {
        ValueRef::Text(bytes) => OsString::from(String::from_utf8_lossy(bytes).into_owned()),
        #[cfg(unix)]
        ValueRef::Blob(bytes) => std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec()),
        #[cfg(not(unix))]
        ValueRef::Blob(bytes) => OsString::from(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => OsString::new(),
    }
}

/// A number that is not negative in a sound index.
pub(super) fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
