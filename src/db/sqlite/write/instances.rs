//! The rows of instances: found, read, inserted and deleted.

use std::rc::Rc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::super::columns::{UPPER, is_packed_time, shared, stored_at};
use super::super::packing::{Packed, UidSuffix, pack_number, pack_time, stored_time, uid_hash, unpack_time};
use super::super::sql_values::{JsonTexts, text_of};
use super::asserted_values::AssertedValues;
use super::entities::values_of;
use super::groups::Groups;
use super::lookups::Lookups;
use super::rows::{File, InstanceGroup, InstanceRow, Result, shared_value, to_i64};
use super::run::Differences;
use crate::model::attribute::AttributeId;
use crate::model::checksum::Checksum;
use crate::model::declared::DeclaredSet;
use crate::model::record::InstanceRecord;

/// The rows of `instance`.
pub(super) struct InstanceRows<'c> {
    connection: &'c Connection,
    asserted: AssertedValues<'c>,
    /// Prepared once, because they run for each instance: finding a statement by its text took as
    /// long as running it.
    find: Statement<'c>,
    insert: Statement<'c>,
    /// Differences of the last record from its instance group in the values that it shares with
    /// others.
    differences: Option<Differences>,
}

impl<'c> InstanceRows<'c> {
    pub(super) fn new(connection: &'c Connection) -> Result<Self> {
        Ok(Self {
            connection,
            asserted: AssertedValues::new(connection),
            find: connection.prepare(
                "SELECT size, file_name, instance_number, diff, checksum FROM instance \
                 WHERE instance_group = ?1 AND uid_suffix = ?2",
            )?,
            insert: connection.prepare(
                "INSERT INTO instance (instance_group, uid_suffix, instance_number, size, mtime, file_name, \
                 acquisition_number, acquisition_time, content_time, instance_creation_time, diff, checksum) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?,
            differences: None,
        })
    }

    /// Finds the row of an instance by its SOP Instance UID.
    pub(super) fn find(
        &mut self,
        uid: &str,
        lookups: &mut Lookups<'_>,
        groups: &mut Groups<'_>,
    ) -> Result<Option<InstanceRow>> {
        lookups.find(uid_hash(uid))?;
        let mut at = 0;
        while let Some(id) = lookups.candidate(at) {
            at += 1;
            // Other UIDs have the same hash, so the row itself has the last word.
            let Some(instance_group) = groups.by_id(id)? else { continue };
            let suffix = UidSuffix::pack(uid, &instance_group.uid_prefix);
            let found = self
                .find
                .query_row(params![id, suffix], |row| {
                    Ok((
                        instance_group.size_base.saturating_add(row.get(0)?),
                        instance_group.naming.unpack(row.get_ref(1)?, uid)?,
                        text_of(row.get_ref(2)?)?,
                        row.get(3)?,
                        row.get::<_, Option<_>>(4)?.map(Checksum::from_bytes),
                    ))
                })
                .optional()?;
            if let Some((size, file_name, number, diff, checksum)) = found {
                return Ok(Some(InstanceRow { instance_group, suffix, size, file_name, number, diff, checksum }));
            }
        }
        Ok(None)
    }

    /// Reads all that the index keeps of an instance.
    pub(super) fn record_of(&self, existing: &InstanceRow) -> Result<InstanceRecord> {
        let mut record = InstanceRecord::new();
        record.set(AttributeId::SOPInstanceUID, &existing.uid());
        record.set(AttributeId::InstanceNumber, &existing.number);
        let diff = JsonTexts::read(existing.diff.as_deref())?;
        for (&id, shared) in shared().iter().zip(&existing.instance_group.shared) {
            record.set(id, diff.get(id.attribute().column).unwrap_or(shared));
        }
        self.set_own(existing, &mut record)?;
        self.set_above(&existing.instance_group, &mut record)?;
        Ok(record)
    }

    /// Sets the values for which an instance has columns of its own into a record.
    fn set_own(&self, existing: &InstanceRow, record: &mut InstanceRecord) -> Result<()> {
        let group = &existing.instance_group;
        self.connection
            .prepare_cached(
                "SELECT acquisition_number, acquisition_time, content_time, instance_creation_time FROM instance \
                 WHERE instance_group = ?1 AND uid_suffix = ?2",
            )?
            .query_row(params![group.id, existing.suffix], |row| {
                for (at, id) in OWN.into_iter().enumerate() {
                    match stored_time(row.get_ref(at)?, row.get_ref(ACQUISITION_TIME)?) {
                        ValueRef::Null => {}
                        ValueRef::Integer(packed) if is_packed_time(id) => {
                            record.set_with(id, |text| unpack_time(packed, shared_value(group, id), text));
                        }
                        own => record.set(id, &text_of(own)?),
                    }
                }
                Ok(())
            })
    }

    /// Sets what the instances of a group state of SOP class, patient, study and series into a
    /// record.
    fn set_above(&self, group: &InstanceGroup, record: &mut InstanceRecord) -> Result<()> {
        let sql = "SELECT h.sop_class_uid, h.available_transfer_syntax_uid, ifnull(h.patient, s.patient), s.id, \
                   h.patient_values, h.study_values, h.series_values FROM instance_group h \
                   JOIN study_series e ON e.id = h.series JOIN study s ON s.id = e.study WHERE h.id = ?1";
        let (rows, said) = self.connection.prepare_cached(sql)?.query_row([group.id], |row| {
            record.set(AttributeId::SOPClassUID, &text_of(row.get_ref(0)?)?);
            record.set(AttributeId::AvailableTransferSyntaxUID, &text_of(row.get_ref(1)?)?);
            let said: [Option<i64>; 3] = [row.get(4)?, row.get(5)?, row.get(6)?];
            Ok(([row.get(2)?, row.get(3)?, group.series], said))
        })?;
        for ((level, row), said) in UPPER.into_iter().zip(rows).zip(said) {
            match said {
                Some(said) => self.asserted.set_into(record, level, said)?,
                None => {
                    let values = values_of(self.connection, level, row)?;
                    for (&id, value) in stored_at(level).iter().zip(&values) {
                        record.set(id, value);
                    }
                }
            }
        }
        Ok(())
    }

    /// Inserts the row of a new instance. Returns what tells it apart in its instance group.
    pub(super) fn insert(
        &mut self,
        record: &InstanceRecord,
        file: &File<'_>,
        group: &Rc<InstanceGroup>,
        declared: &DeclaredSet,
    ) -> Result<UidSuffix> {
        let uid = record.value(AttributeId::SOPInstanceUID);
        let suffix = UidSuffix::pack(uid, &group.uid_prefix);
        let [acquisition_number, acquisition_time, mut content_time, mut creation_time] =
            OWN.map(|id| own_value(record, group, id));
        if matches!(acquisition_time, Some(Packed::Number(_))) {
            for time in [&mut content_time, &mut creation_time].into_iter().filter(|time| **time == acquisition_time) {
                *time = Some(Packed::AsAcquisition);
            }
        }
        self.insert.execute(params![
            group.id,
            suffix,
            pack_number(record.value(AttributeId::InstanceNumber)),
            to_i64(file.size).saturating_sub(group.size_base),
            file.mtime_ms.saturating_sub(group.mtime_base),
            group.naming.pack(file.name, uid),
            acquisition_number,
            acquisition_time,
            content_time,
            creation_time,
            Differences::diff_of(&mut self.differences, record, group, declared),
            file.checksum.map(Checksum::to_bytes),
        ])?;
        Ok(suffix)
    }

    /// Deletes the row of an instance. Returns the study that it belonged to.
    pub(super) fn delete(&self, existing: &InstanceRow) -> Result<i64> {
        let group = &existing.instance_group;
        self.connection
            .prepare_cached("DELETE FROM instance WHERE instance_group = ?1 AND uid_suffix = ?2")?
            .execute(params![group.id, existing.suffix])?;
        self.connection
            .prepare_cached("SELECT study FROM study_series WHERE id = ?1")?
            .query_row([group.series], |row| row.get(0))
    }
}

/// The attributes for which an instance has a column of its own, in the order of those columns.
const OWN: [AttributeId; 4] = [
    AttributeId::AcquisitionNumber,
    AttributeId::AcquisitionTime,
    AttributeId::ContentTime,
    AttributeId::InstanceCreationTime,
];

/// The place of the acquisition time in [`OWN`].
const ACQUISITION_TIME: usize = 1;

/// The value for the column that an instance has for `id`. None if the instance group has the same.
fn own_value<'r>(record: &'r InstanceRecord, group: &InstanceGroup, id: AttributeId) -> Option<Packed<'r>> {
    let value = record.value(id);
    if value == shared_value(group, id) {
        return None;
    }
    Some(if is_packed_time(id) { pack_time(value, shared_value(group, id)) } else { pack_number(value) })
}
