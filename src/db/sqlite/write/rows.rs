//! The rows that a transaction has found or made.

use std::ffi::{OsStr, OsString};
use std::rc::Rc;

use super::super::columns::place_in_shared;
use super::super::packing::{Naming, UidSuffix};
use super::super::sql_values::{JsonTexts, to_u64};
use crate::db::ScannedFile;
use crate::db::rules::ObjectContent;
use crate::model::attribute::AttributeId;
use crate::model::checksum::Checksum;
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// The result of a step of a transaction. The writer classifies the error once, at its end.
pub(super) type Result<T> = rusqlite::Result<T>;

/// Faults of one file that are kept, in characters.
const MAX_FAULT_TEXT: usize = 1000;

/// A file that holds an instance, and where.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) place: Place,
    pub(super) directory: i64,
    pub(super) name: &'a OsStr,
    pub(super) size: u64,
    pub(super) mtime_ms: i64,
    /// Checksum of the data set, if the object was received.
    pub(super) checksum: Option<Checksum>,
}

/// An instance that enters the index.
#[derive(Clone, Copy)]
pub(super) struct NewInstance<'a> {
    pub(super) record: &'a InstanceRecord,
    pub(super) file: File<'a>,
    /// Files that follow in its unit.
    pub(super) following: &'a [&'a ScannedFile],
    /// Whether its unit is all that is new in the directory.
    pub(super) is_complete: bool,
}

impl<'a> NewInstance<'a> {
    /// An instance that comes alone.
    pub(super) const fn alone(record: &'a InstanceRecord, file: File<'a>) -> Self {
        Self { record, file, following: &[], is_complete: false }
    }
}

/// The faults of a file as the index keeps them.
pub(super) fn fault_text(record: &InstanceRecord) -> String {
    record.faults().join("; ").chars().take(MAX_FAULT_TEXT).collect()
}

/// Key that tells instance groups apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct InstanceGroupKey {
    pub(super) series: i64,
    pub(super) directory: i64,
    pub(super) class_and_syntax: u64,
    /// [`ParentRows::values`].
    pub(super) values: u64,
    /// A hash of what was declared, and of the declared values of patient, study and series.
    pub(super) declared: u64,
    pub(super) arrival: Option<i64>,
}

/// An instance group as its row has it.
pub(super) struct InstanceGroup {
    pub(super) id: i64,
    pub(super) series: i64,
    pub(super) directory: i64,
    /// The arrival of its instances.
    pub(super) arrival: Option<i64>,
    pub(super) uid_prefix: String,
    pub(super) naming: Naming,
    pub(super) mtime_base: i64,
    pub(super) size_base: i64,
    /// The values that its instances share, in the order of
    /// [`shared`](super::super::columns::shared).
    pub(super) shared: Vec<String>,
    /// Attributes that were declared when its instances were read.
    pub(super) declared_set: String,
    /// The declared values of its instances, unless one of them has its own.
    pub(super) declared: JsonTexts,
}

pub(super) fn shared_value(instance_group: &InstanceGroup, id: AttributeId) -> &str {
    place_in_shared(id).and_then(|at| instance_group.shared.get(at)).map_or("", String::as_str)
}

/// The row of an instance that the index knows.
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

    /// Record, size and checksum by which its first location is compared. That location must have
    /// this record and this kind of place.
    pub(super) fn content<'a>(&self, record: &'a InstanceRecord, place: Place) -> ObjectContent<'a> {
        ObjectContent { record, place, size: to_u64(self.size), checksum: self.checksum }
    }

    /// Its SOP Instance UID.
    pub(super) fn uid(&self) -> String {
        self.suffix.uid(&self.instance_group.uid_prefix)
    }
}

/// The rows above the instance of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParentRows {
    pub(super) series: i64,
    pub(super) study: i64,
    /// The patient that the record names, if that is not the study's.
    pub(super) patient: Option<i64>,
    /// Asserted values of patient, study and series, each if the record does not agree with the
    /// row.
    pub(super) said: [Option<i64>; 3],
    /// A hash of all that the record states of patient, study and series.
    pub(super) values: u64,
}

/// The patient that a record names in its study.
#[derive(Clone, Copy, Debug)]
pub(super) struct NamedPatient {
    /// The patient under whom the study is kept.
    pub(super) first: i64,
    /// The patient that the record names. It is mostly the same.
    pub(super) own: i64,
    /// Asserted values of that patient, if the record does not agree with the row.
    pub(super) said: Option<i64>,
}

pub(super) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
