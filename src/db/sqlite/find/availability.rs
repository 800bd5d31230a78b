//! Instance Availability (PS3.3 C.4.23.1.1). That of an instance follows from its locations, and
//! that of any other entity from its least available instance (PS3.4 C.4.1.1.3.2).
//!
//! Most archives have all objects, and then no answer looks at its instance groups. Otherwise a
//! group is tested by its directory. Its instances are tested only if files of that directory are
//! missing.

use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, ToSql};

use super::super::mounts::Mounts;
use super::super::sql_values::PathValue;
use super::parameters::Parameters;
use crate::db::paths::range_below;
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};

/// Reasons why some objects may not be available.
#[derive(Debug, Default)]
pub(super) struct Obstacles {
    /// The directory of metadata without objects, if some instance has its only location there.
    without_object: Option<i64>,
    /// Whether files were gone when a scan looked.
    some_are_missing: bool,
    /// Places where a file system is not mounted and scanned paths that are gone, each with where
    /// below it a file system is mounted.
    unmounted: Vec<(PathBuf, Vec<PathBuf>)>,
}

impl Obstacles {
    pub(super) fn of(connection: &Connection, mounts: &mut Mounts) -> rusqlite::Result<Self> {
        let without_object = connection
            .prepare_cached(
                "SELECT id FROM directory d WHERE path = '' AND place = 2 \
                 AND EXISTS (SELECT 1 FROM instance_group WHERE directory = d.id)",
            )?
            .query_row([], |row| row.get(0))
            .optional()?;
        let some_are_missing =
            connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM missing_file)")?.query_row([], |row| row.get(0))?;
        let (unmounted, mounted) = mounts.current(connection)?;
        let below = |path: &Path| mounted.iter().filter(|it| it.starts_with(path)).cloned().collect();
        let unmounted = unmounted.iter().map(|path| (path.clone(), below(path))).collect();
        Ok(Self { without_object, some_are_missing, unmounted })
    }
}

/// SQL for a row of `instance` and for that of its `instance_group`, by their names in the
/// statement.
#[derive(Clone, Copy)]
struct RowNames {
    instance: &'static str,
    group: &'static str,
}

/// Makes the SQL for the availability of entities.
pub(super) struct Availability<'a> {
    pub(super) obstacles: &'a Obstacles,
    /// Whether some study lies under more than one patient.
    pub(super) shared_studies: bool,
    pub(super) parameters: &'a mut Parameters,
}

impl Availability<'_> {
    /// SQL for the availability of an entity.
    pub(super) fn of(&mut self, level: QueryRetrieveLevel) -> String {
        let only_without_object = !self.obstacles.some_are_missing && self.obstacles.unmounted.is_empty();
        if only_without_object && self.obstacles.without_object.is_none() {
            return "'ONLINE'".to_owned();
        }
        let rank = if level == Image {
            self.rank_of_instance(RowNames { instance: "i", group: "h" })
        } else {
            let (from, own) = self.groups_below(level);
            if only_without_object {
                // The plus: a node that keeps no objects has nearly all instance groups in this
                // directory.
                let directory = self.obstacles.without_object.map(|id| self.parameters.add(id)).unwrap_or_default();
                return format!(
                    "CASE WHEN EXISTS (SELECT 1 FROM {from} WHERE {own} AND +c.directory = {directory}) THEN 'UNAVAILABLE' \
                     ELSE 'ONLINE' END"
                );
            }
            let rank = self.rank_of_group();
            format!("(SELECT max({rank}) FROM {from} WHERE {own})")
        };
        format!("CASE {rank} WHEN 2 THEN 'UNAVAILABLE' WHEN 1 THEN 'OFFLINE' ELSE 'ONLINE' END")
    }

    /// The instance groups `c` below an entity.
    fn groups_below(&self, level: QueryRetrieveLevel) -> (&'static str, &'static str) {
        match level {
            Patient if self.shared_studies => (
                "study a JOIN study_series b ON b.study = a.id JOIN instance_group c ON c.series = b.id",
                "(a.patient IN (SELECT p.id UNION ALL SELECT q.id FROM patient q WHERE q.person = p.person) \
                 OR a.id IN (SELECT x.study FROM study_patient x WHERE x.patient IN \
                 (SELECT p.id UNION ALL SELECT q.id FROM patient q WHERE q.person = p.person)))",
            ),
            Patient => (
                "study a JOIN study_series b ON b.study = a.id JOIN instance_group c ON c.series = b.id",
                "a.patient IN (SELECT p.id UNION ALL SELECT q.id FROM patient q WHERE q.person = p.person)",
            ),
            Study => ("study_series b JOIN instance_group c ON c.series = b.id", "b.study = s.id"),
            Series => ("instance_group c", "c.series = e.id"),
            Image => ("instance_group c", "c.id = h.id"),
        }
    }

    /// SQL for 2 if objects are gone, 1 if their disk is not mounted, and 0 if they are available.
    fn rank_of_group(&mut self) -> String {
        let is_offline = self.directory_is_offline("c.directory");
        let has_missing = if self.obstacles.some_are_missing {
            "EXISTS (SELECT 1 FROM missing_file m WHERE m.directory = c.directory)"
        } else {
            "0"
        };
        let rank = self.rank_of_instance(RowNames { instance: "j", group: "c" });
        let without_object = self.without_object("+c.directory");
        format!(
            "CASE WHEN {without_object} THEN 2 \
             WHEN {is_offline} AND NOT {has_missing} AND NOT EXISTS (SELECT 1 FROM copy k WHERE k.instance_group = c.id) THEN 1 \
             WHEN {is_offline} OR {has_missing} \
             THEN (SELECT max({rank}) FROM instance j WHERE j.instance_group = c.id) ELSE 0 END"
        )
    }

    fn rank_of_instance(&mut self, names: RowNames) -> String {
        let RowNames { instance, group } = names;
        let without_object = self.without_object(&format!("{group}.directory"));
        let is_offline = self.directory_is_offline(&format!("{group}.directory"));
        let is_missing = self.is_missing(
            &format!("{group}.directory"),
            &format!(
                "dcm_file_name({instance}.file_name, {instance}.uid_suffix, {group}.uid_prefix, {group}.file_prefix, \
                 {group}.file_suffix, {group}.file_digits)"
            ),
        );
        let copy_is_missing = self.is_missing("k.directory", "k.file_name");
        let copy_is_offline = self.directory_is_offline("k.directory");
        let copies = format!(
            "SELECT 1 FROM copy k JOIN directory kd ON kd.id = k.directory WHERE k.instance_group = {instance}.instance_group \
             AND k.uid_suffix = {instance}.uid_suffix AND NOT k.differs AND kd.place <> 2 AND NOT {copy_is_missing}"
        );
        let online_copy = format!("EXISTS ({copies} AND NOT {copy_is_offline})");
        format!(
            "CASE WHEN {without_object} THEN 2 \
             WHEN {is_missing} THEN CASE WHEN {online_copy} THEN 0 WHEN EXISTS ({copies}) THEN 1 ELSE 2 END \
             WHEN {is_offline} THEN CASE WHEN {online_copy} THEN 0 ELSE 1 END ELSE 0 END"
        )
    }

    fn without_object(&mut self, directory: &str) -> String {
        match self.obstacles.without_object {
            Some(id) => format!("{directory} = {}", self.parameters.add(id)),
            None => "0".to_owned(),
        }
    }

    fn is_missing(&self, directory: &str, name: &str) -> String {
        if self.obstacles.some_are_missing {
            format!("EXISTS (SELECT 1 FROM missing_file m WHERE m.directory = {directory} AND m.file_name = {name})")
        } else {
            "0".to_owned()
        }
    }

    /// Whether a directory lies where a file system is not mounted.
    fn directory_is_offline(&mut self, directory: &str) -> String {
        if self.obstacles.unmounted.is_empty() {
            return "0".to_owned();
        }
        let mut places = Vec::new();
        for (path, mounted_below) in &self.obstacles.unmounted {
            let mut place = self.is_at_or_below(path);
            for mounted in mounted_below {
                place = format!("({place} AND NOT {})", self.is_at_or_below(mounted));
            }
            places.push(place);
        }
        format!("EXISTS (SELECT 1 FROM directory o WHERE o.id = {directory} AND ({}))", places.join(" OR "))
    }

    fn is_at_or_below(&mut self, path: &Path) -> String {
        let (from, to) = range_below(path);
        let own = match PathValue::from(path).to_sql() {
            Ok(rusqlite::types::ToSqlOutput::Borrowed(value)) => Value::try_from(value).unwrap_or(Value::Null),
            Ok(rusqlite::types::ToSqlOutput::Owned(value)) => value,
            _ => Value::Null,
        };
        let (own, from, to) = (self.parameters.add(own), self.parameters.add(from), self.parameters.add(to));
        format!("(o.path = {own} OR (CAST(o.path AS BLOB) > {from} AND CAST(o.path AS BLOB) < {to}))")
    }
}
