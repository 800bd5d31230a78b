//! Keys of rows, and texts and paths as columns have them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use tokio_postgres::Row;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};
use xxhash_rust::xxh3::Xxh3;

use crate::db::contents::{FileKey, kind};
use crate::model::checksum::Checksum;
use crate::model::location::{Location, Place};

/// Most characters of a text that leads to rows. A key of a b-tree holds 2,704 bytes at most.
const MAX_LEADING: usize = 256;

/// Numbers of directories, by kind of place and path.
pub(super) type DirectoryIds = HashMap<(i16, PathBuf), i64>;

/// Stands for a text or a path of any length: its 128-bit hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RowKey([u8; 16]);

impl RowKey {
    /// The key of several texts in this order.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Xxh3::new();
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.digest128().to_be_bytes())
    }

    pub(super) fn of_uid(uid: &str) -> Self {
        Self::of(&[uid.as_bytes()])
    }

    pub(super) fn of_path(path: &Path) -> Self {
        Self::of(&[path.as_os_str().as_bytes()])
    }

    pub(super) fn of_file(key: &FileKey) -> Self {
        Self::of(&[&[u8::from(key.is_archive)], key.directory.as_os_str().as_bytes(), key.name.as_bytes()])
    }
}

impl ToSql for RowKey {
    fn to_sql(&self, _type: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    accepts!(UUID);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for RowKey {
    fn from_sql(_type: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    accepts!(UUID);
}

/// A text for a column. PostgreSQL takes no U+0000, so U+0001 begins a pair that stands for one of
/// the two. The order of texts stays.
pub(super) fn to_column(text: &str) -> String {
    if !text.contains(['\0', '\u{1}']) {
        return text.to_owned();
    }
    text.replace('\u{1}', "\u{1}\u{2}").replace('\0', "\u{1}\u{1}")
}

/// The text that [`to_column`] made this of.
pub(super) fn from_column(column: &str) -> String {
    if !column.contains('\u{1}') {
        return column.to_owned();
    }
    let mut text = String::with_capacity(column.len());
    let mut rest = column.chars();
    while let Some(next) = rest.next() {
        match next {
            '\u{1}' if rest.next() == Some('\u{1}') => text.push('\0'),
            next => text.push(next),
        }
    }
    text
}

/// The beginning of a text, for a column that leads to rows.
pub(super) fn leading(text: &str) -> String {
    let column = to_column(text);
    match column.char_indices().nth(MAX_LEADING) {
        Some((end, _)) => column.get(..end).unwrap_or_default().to_owned(),
        None => column,
    }
}

/// The number of a kind of place in a column.
pub(super) fn place_number(place: Place) -> i16 {
    i16::from(kind(place))
}

/// The kind of place with this number.
pub(super) fn place_from(number: i16) -> Place {
    let all = [Place::InPlace, Place::Managed, Place::MetadataOnly, Place::Archive];
    all.into_iter().find(|place| place_number(*place) == number).unwrap_or(Place::InPlace)
}

pub(super) fn path_from(bytes: &[u8]) -> PathBuf {
    PathBuf::from(name_from(bytes))
}

pub(super) fn name_from(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// The location in columns 1 to 5 of a row: place, directory, file name, size and time.
pub(super) fn location_of(row: &Row) -> Result<Location, tokio_postgres::Error> {
    Ok(Location {
        place: place_from(row.try_get(1)?),
        directory: path_from(row.try_get(2)?),
        file_name: name_from(row.try_get(3)?),
        size: to_u64(row.try_get(4)?),
        mtime_ms: row.try_get(5)?,
    })
}

/// The checksum in a column. `None` if there is none.
pub(super) fn checksum_of(row: &Row, column: usize) -> Result<Option<Checksum>, tokio_postgres::Error> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    Ok(bytes.and_then(|bytes| bytes.first_chunk()).map(|bytes| Checksum::from_bytes(*bytes)))
}

/// A number that is never negative in a sound index.
pub(super) fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Number of rows of a page.
pub(super) fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A number that fits into the column of a sound index.
pub(super) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_with_control_characters_come_back_and_keep_their_order() {
        let texts = ["", "\0", "\0\0", "\0a", "\u{1}", "\u{1}\0", "\u{1}\u{1}", "\u{1}\u{2}", "\u{2}", "a\0b", "ab"];
        for pair in texts.windows(2) {
            assert!(to_column(pair[0]) < to_column(pair[1]), "{pair:?}");
        }
        for text in texts {
            assert_eq!(from_column(&to_column(text)), text);
            assert!(!to_column(text).contains('\0'));
        }
        assert_eq!(leading(&"é".repeat(9_000)).chars().count(), MAX_LEADING);
    }

    #[test]
    fn a_key_depends_on_where_its_parts_end() {
        assert_ne!(RowKey::of(&[b"a", b"b"]), RowKey::of(&[b"ab", b""]));
    }
}
