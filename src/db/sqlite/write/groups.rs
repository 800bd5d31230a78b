//! Instance groups: what instances of one series in one directory share.

use std::rc::Rc;

use rusqlite::{OptionalExtension, Row, params, params_from_iter};
use xxhash_rust::xxh3::xxh3_64;

use super::super::columns::{shared, shared_columns_sql};
use super::super::packing::Naming;
use super::super::sql_values::json_object;
use super::batch::Batch;
use super::rows::{DeclaredColumn, File, InstanceGroup, InstanceGroupKey, InstanceRow, ParentRows, Result, to_i64};
use crate::db::{FileOutcome, ScannedFile};
use crate::model::attribute::AttributeId;
use crate::model::declared::DeclaredSet;
use crate::model::level::QueryRetrieveLevel;
use crate::model::record::InstanceRecord;

/// What a record says that is declared.
struct Said {
    /// What was declared when it was read; nothing where it was put together from what the index knows.
    set: String,
    /// Of patient, study and series: these are the same for all instances of an instance group.
    above: Option<String>,
    /// Of the instance.
    own: Option<String>,
}

impl Batch<'_> {
    pub(super) fn instance_group(
        &mut self,
        record: &InstanceRecord,
        file: &File<'_>,
        parents: &ParentRows,
        following: &[&ScannedFile],
        complete: bool,
    ) -> Result<Rc<InstanceGroup>> {
        let class = record.value(AttributeId::SOPClassUID);
        let syntax = record.value(AttributeId::AvailableTransferSyntaxUID);
        let said = (!self.declared.is_empty()).then(|| Said::of(record, &self.declared));
        let key = InstanceGroupKey {
            series: parents.series,
            directory: file.directory,
            values: parents.values,
            class_and_syntax: xxh3_64(class.as_bytes()) ^ xxh3_64(syntax.as_bytes()).rotate_left(1),
            declared: said.as_ref().map_or(0, |said| {
                let above = said.above.as_deref().unwrap_or_default();
                xxh3_64(said.set.as_bytes()) ^ xxh3_64(above.as_bytes()).rotate_left(1)
            }),
            arrival: self.arrival()?,
        };
        if let Some(instance_group) = self.groups.by_key.get(&key) {
            return Ok(Rc::clone(instance_group));
        }
        let [patient_values, study_values, series_values] = parents.said;
        let found: Option<i64> = self
            .statement(
                "SELECT id FROM instance_group WHERE series = ?1 AND directory = ?2 AND sop_class_uid = ?3 \
                 AND available_transfer_syntax_uid = ?4 AND patient IS ?5 AND patient_values IS ?6 AND study_values IS ?7 \
                 AND series_values IS ?8 AND declared_set = ?9 AND declared_above IS ?10 AND arrival IS ?11 ORDER BY id LIMIT 1",
            )?
            .query_row(
                params![
                    parents.series,
                    file.directory,
                    class,
                    syntax,
                    parents.patient,
                    patient_values,
                    study_values,
                    series_values,
                    said.as_ref().map_or("", |said| &said.set),
                    said.as_ref().and_then(|said| said.above.as_deref()),
                    key.arrival
                ],
                |row| row.get(0),
            )
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                let id = self.insert_instance_group(record, file, parents, said.as_ref(), following, complete)?;
                self.changes.studies_to_summarise.insert(parents.study);
                id
            }
        };
        let instance_group = self.instance_group_by_id(id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        self.groups.by_key.insert(key, Rc::clone(&instance_group));
        Ok(instance_group)
    }

    fn insert_instance_group(
        &mut self,
        record: &InstanceRecord,
        file: &File<'_>,
        parents: &ParentRows,
        said: Option<&Said>,
        following: &[&ScannedFile],
        complete: bool,
    ) -> Result<i64> {
        let uid = record.value(AttributeId::SOPInstanceUID);
        let naming = Naming::of(file.name, uid);
        let file_digits = naming.digits.and_then(|digits| i64::try_from(digits).ok());
        let texts: Vec<&str> = shared().iter().map(|&id| record.value(id)).collect();
        let prefix = common_prefix(record, following, complete);
        let size = to_i64(file.size);
        let (arrival, change, change_block) = (self.arrival()?, self.change()?, self.change_block()?);
        let fixed: [&dyn rusqlite::ToSql; 20] = [
            &parents.series,
            &file.directory,
            &record.value(AttributeId::SOPClassUID),
            &record.value(AttributeId::AvailableTransferSyntaxUID),
            &prefix,
            &naming.prefix,
            &naming.suffix,
            &file_digits,
            &file.mtime_ms,
            &size,
            &parents.patient,
            &parents.said[0],
            &parents.said[1],
            &parents.said[2],
            &said.map_or("", |said| &said.set),
            &said.and_then(|said| said.above.as_deref()),
            &said.and_then(|said| said.own.as_deref()),
            &arrival,
            &change,
            &change_block,
        ];
        let marks = vec!["?"; fixed.len() + texts.len()].join(", ");
        self.statement(&format!(
            "INSERT INTO instance_group (series, directory, sop_class_uid, available_transfer_syntax_uid, uid_prefix, file_prefix, \
             file_suffix, file_digits, mtime_base, size_base, patient, patient_values, study_values, series_values, declared_set, \
             declared_above, declared, arrival, change, change_block, {}) VALUES ({marks})",
            shared_columns_sql()
        ))?
        .execute(params_from_iter(fixed.into_iter().chain(texts.iter().map(|text| text as &dyn rusqlite::ToSql))))?;
        let id = self.connection.last_insert_rowid();
        self.origin.has_block_of_change(id);
        Ok(id)
    }

    pub(super) fn instance_group_by_id(&mut self, id: i64) -> Result<Option<Rc<InstanceGroup>>> {
        if let Some(instance_group) = self.groups.by_id.get(&id) {
            return Ok(Some(Rc::clone(instance_group)));
        }
        let sql = format!(
            "SELECT series, directory, uid_prefix, file_prefix, file_suffix, file_digits, mtime_base, size_base, declared_set, declared, arrival, {} \
             FROM instance_group WHERE id = ?1",
            shared_columns_sql()
        );
        let read = |row: &Row<'_>| {
            Ok(InstanceGroup {
                id,
                series: row.get(0)?,
                directory: row.get(1)?,
                uid_prefix: row.get(2)?,
                naming: Naming {
                    prefix: row.get(3)?,
                    suffix: row.get(4)?,
                    digits: row.get::<_, Option<i64>>(5)?.and_then(|digits| usize::try_from(digits).ok()),
                },
                mtime_base: row.get(6)?,
                size_base: row.get(7)?,
                declared_set: row.get(8)?,
                declared: json_object(row.get_ref(9)?.as_str_or_null()?)?,
                arrival: row.get(10)?,
                shared: (0..shared().len()).map(|at| row.get(11 + at)).collect::<Result<_>>()?,
            })
        };
        let Some(instance_group) = self.statement(&sql)?.query_row([id], read).optional()? else { return Ok(None) };
        let instance_group = Rc::new(instance_group);
        self.groups.by_id.insert(id, Rc::clone(&instance_group));
        Ok(Some(instance_group))
    }
}

impl Batch<'_> {
    /// Sets into a record what an instance says that is declared, where all of that is known.
    pub(super) fn set_declared(&self, existing: &InstanceRow, record: &mut InstanceRecord) -> Result<()> {
        let group = &existing.instance_group;
        if self.declared.is_empty() || !self.declared.is_covered_by(&group.declared_set) {
            return Ok(());
        }
        let above = self
            .statement("SELECT declared_above FROM instance_group WHERE id = ?1")?
            .query_row([group.id], |row| json_object(row.get_ref(0)?.as_str_or_null()?))?;
        let diff = json_object(existing.diff.as_deref())?;
        record.note_declared();
        for unit in self.declared.units() {
            let value = match unit.level {
                QueryRetrieveLevel::Image => diff.get(&unit.key).or_else(|| group.declared.get(&unit.key)),
                QueryRetrieveLevel::Patient | QueryRetrieveLevel::Study | QueryRetrieveLevel::Series => {
                    above.get(&unit.key)
                }
            };
            let value = value.and_then(serde_json::Value::as_str).unwrap_or_default();
            record.set_declared_with(unit.number, |text| text.push_str(value));
        }
        Ok(())
    }

    /// Whether an instance says something else that is declared than a record of another file of it.
    pub(super) fn declares_otherwise(&self, existing: &InstanceRow, record: &InstanceRecord) -> Result<bool> {
        let mut known = InstanceRecord::new();
        self.set_declared(existing, &mut known)?;
        let differs = |number| known.declared(number) != record.declared(number);
        Ok(known.has_declared() && self.declared.units().iter().any(|unit| differs(unit.number)))
    }
}

impl Said {
    fn of(record: &InstanceRecord, declared: &DeclaredSet) -> Self {
        if !record.has_declared() {
            return Self { set: String::new(), above: None, own: None };
        }
        let values = |is_own: bool| {
            let units = declared.units().iter().filter(|unit| (unit.level == QueryRetrieveLevel::Image) == is_own);
            let values: DeclaredColumn = units
                .map(|unit| (unit.key.clone(), record.declared(unit.number)))
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| (key, value.into()))
                .collect();
            (!values.is_empty()).then(|| serde_json::Value::Object(values).to_string())
        };
        Self { set: declared.mark().to_owned(), above: values(false), own: values(true) }
    }
}

/// What the SOP Instance UIDs of a new instance group are expected to begin with: what those that come with it have in common, or,
/// where more may follow, all up to the last component.
fn common_prefix<'r>(record: &'r InstanceRecord, following: &[&ScannedFile], complete: bool) -> &'r str {
    let uid = record.value(AttributeId::SOPInstanceUID);
    // Of even length, so that suffixes sort as whole UIDs do: see `Batch::scanned`.
    let up_to_last_component = || &uid[..uid.rfind('.').map_or(0, |at| at + 1) / 2 * 2];
    if !uid.is_ascii() {
        return "";
    }
    if !complete {
        return up_to_last_component();
    }
    let series = record.value(AttributeId::SeriesInstanceUID);
    let siblings = following.iter().filter_map(|file| match &file.outcome {
        FileOutcome::Instance(other) if other.value(AttributeId::SeriesInstanceUID) == series => {
            Some(other.value(AttributeId::SOPInstanceUID))
        }
        FileOutcome::Instance(_) | FileOutcome::NotIndexed { .. } => None,
    });
    let mut length = None;
    for other in siblings {
        let common = uid.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        length = Some(length.unwrap_or(uid.len()).min(common));
    }
    length.map_or_else(up_to_last_component, |length| uid.get(..length / 2 * 2).unwrap_or(""))
}
