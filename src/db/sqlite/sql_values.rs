//! Values of the index as SQL has them: paths, and kinds of places.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use rusqlite::ToSql;
use rusqlite::types::{FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};

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
pub(super) fn place_from_number(number: i64) -> FromSqlResult<Place> {
    match number {
        0 => Ok(Place::InPlace),
        1 => Ok(Place::Managed),
        2 => Ok(Place::MetadataOnly),
        3 => Ok(Place::Archive),
        other => Err(FromSqlError::OutOfRange(other)),
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
pub(super) fn path_from_sql(value: ValueRef<'_>) -> FromSqlResult<OsString> {
    match value {
        ValueRef::Text(bytes) => Ok(OsString::from(String::from_utf8_lossy(bytes).into_owned())),
        #[cfg(unix)]
        ValueRef::Blob(bytes) => Ok(std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())),
        #[cfg(not(unix))]
        ValueRef::Blob(bytes) => Ok(OsString::from(String::from_utf8_lossy(bytes).into_owned())),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Err(FromSqlError::InvalidType),
    }
}

/// The text of a value; numbers are kept as such where that is shorter. NULL is no value, and so an empty text.
pub(super) fn text_of(value: ValueRef<'_>) -> FromSqlResult<String> {
    match value {
        ValueRef::Integer(number) => Ok(number.to_string()),
        ValueRef::Null => Ok(String::new()),
        other => other.as_str().map(str::to_owned),
    }
}

/// The JSON object in a column; an empty one for NULL.
pub(super) fn json_object(text: Option<&str>) -> rusqlite::Result<serde_json::Map<String, serde_json::Value>> {
    let Some(text) = text else { return Ok(serde_json::Map::new()) };
    serde_json::from_str(text).map_err(|error| FromSqlError::Other(Box::new(error)).into())
}

/// A number that is not negative in a sound index.
pub(super) fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
