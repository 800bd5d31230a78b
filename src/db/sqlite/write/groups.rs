//! Instance groups: what instances of one series in one directory share.

use std::rc::Rc;
use std::sync::Arc;

use foldhash::HashMap;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use xxhash_rust::xxh3::xxh3_64;

use super::super::columns::{shared, shared_columns_sql};
use super::super::packing::Naming;
use super::super::sql_values::JsonTexts;
use super::changes::Changes;
use super::origins::Origins;
use super::rows::{InstanceGroup, InstanceGroupKey, InstanceRow, NewInstance, ParentRows, Result, to_i64};
use crate::db::FileOutcome;
use crate::model::attribute::AttributeId;
use crate::model::declared::DeclaredSet;
use crate::model::level::QueryRetrieveLevel;
use crate::model::record::InstanceRecord;

/// Instance groups that are remembered between transactions. A group with its values takes some 2
/// KB. Scans go from series to series, and there are fewer associations than this.
const REMEMBERED_GROUPS: usize = 1024;

/// The rows of `instance_group`.
pub(super) struct Groups<'c> {
    connection: &'c Connection,
    declared: Arc<DeclaredSet>,
    by_key: HashMap<InstanceGroupKey, Rc<InstanceGroup>>,
    by_id: HashMap<i64, Rc<InstanceGroup>>,
}

/// The declared values of a record.
struct DeclaredTexts {
    /// Attributes that were declared when the record was read. Empty if it was made from the index.
    set: String,
    /// Values of patient, study and series. They are the same for all instances of a group.
    above: Option<String>,
    /// Values of the instance.
    own: Option<String>,
}

impl<'c> Groups<'c> {
    pub(super) fn new(connection: &'c Connection, declared: Arc<DeclaredSet>) -> Self {
        Self { connection, declared, by_key: HashMap::default(), by_id: HashMap::default() }
    }

    pub(super) fn cache_is_large(&self) -> bool {
        self.by_id.len() > REMEMBERED_GROUPS
    }

    pub(super) fn forget(&mut self) {
        self.by_key.clear();
        self.by_id.clear();
    }

    /// Finds or makes the instance group of a new instance.
    pub(super) fn group_of(
        &mut self,
        new: &NewInstance<'_>,
        parents: &ParentRows,
        origins: &mut Origins<'_>,
        changes: &mut Changes,
    ) -> Result<Rc<InstanceGroup>> {
        let class = new.record.value(AttributeId::SOPClassUID);
        let syntax = new.record.value(AttributeId::AvailableTransferSyntaxUID);
        let declared = (!self.declared.is_empty()).then(|| DeclaredTexts::of(new.record, &self.declared));
        let key = InstanceGroupKey {
            series: parents.series,
            directory: new.file.directory,
            values: parents.values,
            class_and_syntax: xxh3_64(class.as_bytes()) ^ xxh3_64(syntax.as_bytes()).rotate_left(1),
            declared: declared.as_ref().map_or(0, |declared| {
                let above = declared.above.as_deref().unwrap_or_default();
                xxh3_64(declared.set.as_bytes()) ^ xxh3_64(above.as_bytes()).rotate_left(1)
            }),
            arrival: origins.arrival()?,
        };
        if let Some(group) = self.by_key.get(&key) {
            return Ok(Rc::clone(group));
        }
        let id = match self.find(new, parents, declared.as_ref(), key.arrival)? {
            Some(id) => id,
            None => {
                let id = self.insert(new, parents, declared.as_ref(), origins)?;
                changes.studies_to_summarise.insert(parents.study);
                id
            }
        };
        let group = self.by_id(id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        self.by_key.insert(key, Rc::clone(&group));
        Ok(group)
    }

    fn find(
        &self,
        new: &NewInstance<'_>,
        parents: &ParentRows,
        declared: Option<&DeclaredTexts>,
        arrival: Option<i64>,
    ) -> Result<Option<i64>> {
        let [patient_values, study_values, series_values] = parents.said;
        self.connection
            .prepare_cached(
                "SELECT id FROM instance_group WHERE series = ?1 AND directory = ?2 AND sop_class_uid = ?3 \
                 AND available_transfer_syntax_uid = ?4 AND patient IS ?5 AND patient_values IS ?6 \
                 AND study_values IS ?7 AND series_values IS ?8 AND declared_set = ?9 AND declared_above IS ?10 \
                 AND arrival IS ?11 ORDER BY id LIMIT 1",
            )?
            .query_row(
                params![
                    parents.series,
                    new.file.directory,
                    new.record.value(AttributeId::SOPClassUID),
                    new.record.value(AttributeId::AvailableTransferSyntaxUID),
                    parents.patient,
                    patient_values,
                    study_values,
                    series_values,
                    declared.map_or("", |declared| &declared.set),
                    declared.and_then(|declared| declared.above.as_deref()),
                    arrival
                ],
                |row| row.get(0),
            )
            .optional()
    }

    fn insert(
        &self,
        new: &NewInstance<'_>,
        parents: &ParentRows,
        declared: Option<&DeclaredTexts>,
        origins: &mut Origins<'_>,
    ) -> Result<i64> {
        let NewInstance { record, file, .. } = new;
        let uid = record.value(AttributeId::SOPInstanceUID);
        let naming = Naming::of(file.name, uid);
        let file_digits = naming.digits.and_then(|digits| i64::try_from(digits).ok());
        let texts: Vec<&str> = shared().iter().map(|&id| record.value(id)).collect();
        let size = to_i64(file.size);
        let (arrival, (change, change_block)) = (origins.arrival()?, origins.change()?);
        let fixed: [&dyn rusqlite::ToSql; 20] = [
            &parents.series,
            &file.directory,
            &record.value(AttributeId::SOPClassUID),
            &record.value(AttributeId::AvailableTransferSyntaxUID),
            &common_prefix(new),
            &naming.prefix,
            &naming.suffix,
            &file_digits,
            &file.mtime_ms,
            &size,
            &parents.patient,
            &parents.said[0],
            &parents.said[1],
            &parents.said[2],
            &declared.map_or("", |declared| &declared.set),
            &declared.and_then(|declared| declared.above.as_deref()),
            &declared.and_then(|declared| declared.own.as_deref()),
            &arrival,
            &change,
            &change_block,
        ];
        let marks = vec!["?"; fixed.len() + texts.len()].join(", ");
        self.connection
            .prepare_cached(&format!(
                "INSERT INTO instance_group (series, directory, sop_class_uid, available_transfer_syntax_uid, \
                 uid_prefix, file_prefix, file_suffix, file_digits, mtime_base, size_base, patient, patient_values, \
                 study_values, series_values, declared_set, declared_above, declared, arrival, change, change_block, {}) \
                 VALUES ({marks})",
                shared_columns_sql()
            ))?
            .execute(params_from_iter(fixed.into_iter().chain(texts.iter().map(|text| text as &dyn rusqlite::ToSql))))?;
        let id = self.connection.last_insert_rowid();
        origins.note_new_group(id);
        Ok(id)
    }

    /// Reads the instance group with this row number.
    pub(super) fn by_id(&mut self, id: i64) -> Result<Option<Rc<InstanceGroup>>> {
        if let Some(group) = self.by_id.get(&id) {
            return Ok(Some(Rc::clone(group)));
        }
        let sql = format!(
            "SELECT series, directory, uid_prefix, file_prefix, file_suffix, file_digits, mtime_base, size_base, \
             declared_set, declared, arrival, {} FROM instance_group WHERE id = ?1",
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
                declared: JsonTexts::read(row.get_ref(9)?.as_str_or_null()?)?,
                arrival: row.get(10)?,
                shared: (0..shared().len()).map(|at| row.get(11 + at)).collect::<Result<_>>()?,
            })
        };
        let found = self.connection.prepare_cached(&sql)?.query_row([id], read).optional()?;
        let Some(group) = found.map(Rc::new) else { return Ok(None) };
        self.by_id.insert(id, Rc::clone(&group));
        Ok(Some(group))
    }

    /// Whether all that is declared now was declared when the instances of a group were read.
    pub(super) fn knows_declared(&self, group: &InstanceGroup) -> bool {
        self.declared.is_covered_by(&group.declared_set)
    }

    /// Sets the declared values of an instance into a record, if all of them are known.
    pub(super) fn set_declared(&self, existing: &InstanceRow, record: &mut InstanceRecord) -> Result<()> {
        let group = &existing.instance_group;
        if self.declared.is_empty() || !self.knows_declared(group) {
            return Ok(());
        }
        let above = self
            .connection
            .prepare_cached("SELECT declared_above FROM instance_group WHERE id = ?1")?
            .query_row([group.id], |row| Ok(JsonTexts::read(row.get_ref(0)?.as_str_or_null()?)?))?;
        let diff = JsonTexts::read(existing.diff.as_deref())?;
        record.note_declared();
        for unit in self.declared.units() {
            let value = match unit.level {
                QueryRetrieveLevel::Image => diff.get(&unit.key).or_else(|| group.declared.get(&unit.key)),
                QueryRetrieveLevel::Patient | QueryRetrieveLevel::Study | QueryRetrieveLevel::Series => {
                    above.get(&unit.key)
                }
            };
            record.set_declared_with(unit.number, |text| text.push_str(value.unwrap_or("")));
        }
        Ok(())
    }

    /// Whether the declared values of an instance differ from those of a record of another file of
    /// it.
    pub(super) fn declares_otherwise(&self, existing: &InstanceRow, record: &InstanceRecord) -> Result<bool> {
        let mut known = InstanceRecord::new();
        self.set_declared(existing, &mut known)?;
        let differs = |number| known.declared(number) != record.declared(number);
        Ok(known.has_declared() && self.declared.units().iter().any(|unit| differs(unit.number)))
    }

    /// Attributes that are declared.
    pub(super) fn declared(&self) -> &DeclaredSet {
        &self.declared
    }

    /// Attributes that are declared, for others that need them.
    pub(super) fn declared_set(&self) -> &Arc<DeclaredSet> {
        &self.declared
    }
}

impl DeclaredTexts {
    fn of(record: &InstanceRecord, declared: &DeclaredSet) -> Self {
        if !record.has_declared() {
            return Self { set: String::new(), above: None, own: None };
        }
        let values = |is_own: bool| {
            let units = declared.units().iter().filter(|unit| (unit.level == QueryRetrieveLevel::Image) == is_own);
            let values = units.map(|unit| (unit.key.as_str(), record.declared(unit.number)));
            let values: JsonTexts = values.filter(|(_, value)| !value.is_empty()).collect();
            (!values.is_empty()).then(|| values.into_text())
        };
        Self { set: declared.mark().to_owned(), above: values(false), own: values(true) }
    }
}

/// The prefix that the SOP Instance UIDs of a new instance group probably share. For a complete
/// unit it is the common prefix of its UIDs. Otherwise it is all but the last component.
fn common_prefix<'r>(new: &NewInstance<'r>) -> &'r str {
    let uid = new.record.value(AttributeId::SOPInstanceUID);
    // An even length has suffixes sort as whole UIDs do: see `scans::scanned`.
    let up_to_last_component = || &uid[..uid.rfind('.').map_or(0, |at| at + 1) / 2 * 2];
    if !uid.is_ascii() {
        return "";
    }
    if !new.is_complete {
        return up_to_last_component();
    }
    let series = new.record.value(AttributeId::SeriesInstanceUID);
    let siblings = new.following.iter().filter_map(|file| match &file.outcome {
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
