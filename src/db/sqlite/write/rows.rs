//! The rows that a transaction has found or made.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::rc::Rc;

use rusqlite::types::ValueRef;

use super::super::columns::place_in_shared;
use super::super::packing::{Naming, UidSuffix};
use crate::model::attribute::AttributeId;
use crate::model::checksum::Checksum;
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// What the functions of a transaction return: the writer classifies the error once, at the end.
pub(super) type Result<T> = rusqlite::Result<T>;

/// Faults of one file that are kept, in characters.
const MAX_FAULT_TEXT: usize = 1000;

/// The kind of conflict that an object with a known SOP Instance UID and other content is.
pub(super) const OTHER_CONTENT: &str = "instance-with-other-content";

/// A file that holds an instance, and where.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) place: Place,
    pub(super) directory: i64,
    pub(super) name: &'a OsStr,
    pub(super) size: u64,
    pub(super) mtime_ms: i64,
    /// Of the data set, where the object was received.
    pub(super) checksum: Option<Checksum>,
}

/// Which instances lie in a directory, read when that is first asked.
pub(super) struct DirectoryRows {
    pub(super) directory: i64,
    /// File name to SOP Instance UID.
    pub(super) instances: Option<HashMap<OsString, String>>,
}

impl DirectoryRows {
    pub(super) const fn new(directory: i64) -> Self {
        Self { directory, instances: None }
    }
}

/// What is kept of the faults of a file.
pub(super) fn fault_text(record: &InstanceRecord) -> String {
    record.faults().join("; ").chars().take(MAX_FAULT_TEXT).collect()
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct InstanceGroupKey {
    pub(super) series: i64,
    pub(super) directory: i64,
    pub(super) class_and_syntax: u64,
    /// [`ParentRows::values`].
    pub(super) values: u64,
    /// What was declared, and what is said of patient, study and series that is.
    pub(super) declared: u64,
    pub(super) arrival: Option<i64>,
}

pub(super) struct InstanceGroup {
    pub(super) id: i64,
    pub(super) series: i64,
    pub(super) directory: i64,
    /// How its instances came.
    pub(super) arrival: Option<i64>,
    pub(super) uid_prefix: String,
    pub(super) naming: Naming,
    pub(super) mtime_base: i64,
    pub(super) size_base: i64,
    /// The values of `shared`, in its order.
    pub(super) shared: Vec<String>,
    /// What was declared when its instances were read.
    pub(super) declared_set: String,
    /// The declared values that hold unless an instance says otherwise.
    pub(super) declared: DeclaredColumn,
}

/// What stands in a column of declared values.
pub(super) type DeclaredColumn = serde_json::Map<String, serde_json::Value>;

pub(super) fn shared_value(instance_group: &InstanceGroup, id: AttributeId) -> &str {
    place_in_shared(id).and_then(|at| instance_group.shared.get(at)).map_or("", String::as_str)
}

/// An instance row that exists.
pub(super) struct InstanceRow {
    pub(super) instance_group: Rc<InstanceGroup>,
    pub(super) suffix: UidSuffix,
    pub(super) size: i64,
    pub(super) file_name: OsString,
    pub(super) number: String,
    pub(super) diff: Option<String>,
    pub(super) checksum: Option<Checksum>,
}

impl InstanceRow {
    /// Whether this file is its first location.
    pub(super) fn lies_at(&self, directory: i64, name: &OsStr) -> bool {
        self.instance_group.directory == directory && self.file_name == name
    }

    /// Its SOP Instance UID.
    pub(super) fn uid(&self) -> String {
        uid_of(&self.instance_group, &self.suffix)
    }
}

pub(super) fn uid_of(instance_group: &InstanceGroup, suffix: &UidSuffix) -> String {
    let stored = match suffix {
        UidSuffix::Packed(packed) => ValueRef::Blob(packed),
        UidSuffix::Text(text) => ValueRef::Text(text.as_bytes()),
    };
    let mut uid = String::new();
    UidSuffix::unpack(stored, &instance_group.uid_prefix, &mut uid);
    uid
}

/// Where a record belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParentRows {
    pub(super) series: i64,
    pub(super) study: i64,
    /// The patient that it names, where that is not the study's.
    pub(super) patient: Option<i64>,
    /// What it says of patient, study and series, where that is not what their rows say.
    pub(super) said: [Option<i64>; 3],
    /// A hash of all that it says of them.
    pub(super) values: u64,
}

/// The patient whom a record names in its study.
#[derive(Clone, Copy, Debug)]
pub(super) struct NamedPatient {
    /// The patient under whom the study is kept.
    pub(super) first: i64,
    /// The one whom the record names: the same, mostly.
    pub(super) own: i64,
    /// What the record says of that one, where it is not what the row says.
    pub(super) said: Option<i64>,
}

pub(super) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
