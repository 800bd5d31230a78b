//! The values of a statement, which are never part of its text.

use std::rc::Rc;

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::vtab::array::Array;

use super::super::packing::UidSuffix;

/// A value of a statement, or a list of values for `rarray`.
pub(super) enum Parameter {
    One(Value),
    List(Array),
}

impl ToSql for Parameter {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::One(value) => value.to_sql(),
            Self::List(values) => values.to_sql(),
        }
    }
}

/// The values of a statement while its text grows.
#[derive(Default)]
pub(super) struct Parameters(Vec<Parameter>);

impl Parameters {
    /// Adds a value, and returns the SQL that stands for it.
    pub(super) fn add(&mut self, value: impl Into<Value>) -> String {
        self.push(Parameter::One(value.into()))
    }

    /// Adds a list, and returns SQL for a subquery with its values.
    pub(super) fn add_list<T: Into<Value>>(&mut self, values: impl IntoIterator<Item = T>) -> String {
        let list = Rc::new(values.into_iter().map(Into::into).collect::<Vec<Value>>());
        format!("(SELECT value FROM rarray({}))", self.push(Parameter::List(list)))
    }

    /// Adds keys of instances, and returns SQL for a subquery with their instance groups and
    /// suffixes.
    pub(super) fn add_keys(&mut self, keys: impl IntoIterator<Item = InstanceKey>) -> String {
        let list = Rc::new(keys.into_iter().map(|key| Value::Blob(key.to_bytes())).collect::<Vec<_>>());
        let list = self.push(Parameter::List(list));
        format!("(SELECT dcm_key_group(value), dcm_key_suffix(value) FROM rarray({list}))")
    }

    /// Returns the values so far. The next statement begins without any.
    pub(super) fn take(&mut self) -> Vec<Parameter> {
        std::mem::take(&mut self.0)
    }

    fn push(&mut self, parameter: Parameter) -> String {
        self.0.push(parameter);
        format!("?{}", self.0.len())
    }
}

/// The primary key of an instance row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::db::sqlite) struct InstanceKey {
    pub(in crate::db::sqlite) instance_group: i64,
    pub(in crate::db::sqlite) suffix: UidSuffix,
}

impl InstanceKey {
    /// The key as one value of a list: number of the group, whether the suffix is text, and suffix.
    fn to_bytes(&self) -> Vec<u8> {
        let (is_text, suffix) = match &self.suffix {
            UidSuffix::Packed(packed) => (0, packed.as_slice()),
            UidSuffix::Text(text) => (1, text.as_bytes()),
        };
        [self.instance_group.to_le_bytes().as_slice(), &[is_text], suffix].concat()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (group, rest) = bytes.split_first_chunk()?;
        let (is_text, suffix) = rest.split_first()?;
        let suffix = match is_text {
            0 => UidSuffix::Packed(suffix.to_vec()),
            _ => UidSuffix::Text(String::from_utf8(suffix.to_vec()).ok()?),
        };
        Some(Self { instance_group: i64::from_le_bytes(*group), suffix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_as_it_was() {
        for suffix in [UidSuffix::Packed(vec![1, 2, 255]), UidSuffix::Text("1.2.x".to_owned())] {
            let key = InstanceKey { instance_group: -7, suffix };
            assert_eq!(InstanceKey::from_bytes(&key.to_bytes()), Some(key));
        }
        assert_eq!(InstanceKey::from_bytes(&[1, 2, 3]), None);
    }
}
