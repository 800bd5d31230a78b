//! Values of the index as SQL has them: paths, kinds of places, and texts by name.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
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

/// A path or file name as a value of SQL: TEXT if it is UTF-8, otherwise BLOB, so that nothing of
/// it is lost.
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

/// The text of a value. A column may keep a number as such, if that is shorter. NULL stands for the
/// empty text.
pub(super) fn text_of(value: ValueRef<'_>) -> FromSqlResult<String> {
    let mut text = String::new();
    put_text_of(&mut text, value)?;
    Ok(text)
}

/// Appends the text of a value, as [`text_of`] returns it.
pub(super) fn put_text_of(text: &mut String, value: ValueRef<'_>) -> FromSqlResult<()> {
    match value {
        // Writing into a text does not fail.
        ValueRef::Integer(number) => {
            let _ = write!(text, "{number}");
        }
        ValueRef::Null => {}
        other => text.push_str(other.as_str()?),
    }
    Ok(())
}

/// Texts by name, which a column keeps as a JSON object. They keep their order.
#[derive(Default)]
pub(super) struct JsonTexts(serde_json::Map<String, serde_json::Value>);

impl JsonTexts {
    /// Reads the texts of a column. NULL stands for none. A value that is no text is an error.
    pub(super) fn read(text: Option<&str>) -> FromSqlResult<Self> {
        let Some(text) = text else { return Ok(Self::default()) };
        let texts = serde_json::from_str(text).map_err(|error| FromSqlError::Other(Box::new(error)))?;
        let this = Self(texts);
        if this.0.values().all(serde_json::Value::is_string) { Ok(this) } else { Err(FromSqlError::InvalidType) }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    pub(super) fn insert(&mut self, name: &str, text: &str) {
        self.0.insert(name.to_owned(), text.into());
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, text)| Some((name.as_str(), text.as_str()?)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text for the column.
    pub(super) fn into_text(self) -> String {
        serde_json::Value::Object(self.0).to_string()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for JsonTexts {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(texts: I) -> Self {
        Self(texts.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect())
    }
}

/// A number that is never negative in a sound index.
pub(super) fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_of_the_wrong_type_is_an_error() {
        assert!(path_from_sql(ValueRef::Integer(1)).is_err());
        assert!(place_from_number(7).is_err());
        assert!(text_of(ValueRef::Blob(b"A")).is_err());
        for text in ["", "[]", r#"{"a": 1}"#, r#"{"a": null}"#] {
            assert!(JsonTexts::read(Some(text)).is_err(), "{text}");
        }
        let texts = JsonTexts::read(Some(r#"{"b": "1", "a": "2"}"#)).unwrap();
        assert_eq!(texts.iter().collect::<Vec<_>>(), [("b", "1"), ("a", "2")]);
        assert!(JsonTexts::read(None).unwrap().is_empty());
    }
}
