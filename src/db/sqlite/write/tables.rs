//! The tables of an index with what the writer remembers of them, and the steps that need several
//! of them.

use std::ffi::OsString;
use std::sync::Arc;
use std::{collections::HashMap, rc::Rc};

use rusqlite::Connection;

use super::super::packing::{UidSuffix, uid_hash};
use super::changes::{Changes, GroupOfStudy};
use super::copies::Copies;
use super::files::Files;
use super::groups::Groups;
use super::instances::InstanceRows;
use super::lookups::Lookups;
use super::origins::Origins;
use super::parents::Parents;
use super::removals::Removals;
use super::rows::{InstanceGroup, InstanceRow, NewInstance, Result};
use super::run::{Run, decides_instance_group};
use crate::db::EventRecording;
use crate::db::event_notes::EventNotes;
use crate::model::attribute::AttributeId;
use crate::model::clock::Clock;
use crate::model::declared::DeclaredSet;
use crate::model::record::InstanceRecord;
use crate::model::uid::is_valid_uid;

/// All tables of an index. Each field knows its own tables and none of the others.
pub(super) struct Tables<'c> {
    pub(super) connection: &'c Connection,
    pub(super) clock: Clock,
    pub(super) parents: Parents<'c>,
    pub(super) groups: Groups<'c>,
    pub(super) instances: InstanceRows<'c>,
    pub(super) lookups: Lookups<'c>,
    pub(super) files: Files<'c>,
    pub(super) copies: Copies<'c>,
    pub(super) origins: Origins<'c>,
    pub(super) removals: Removals<'c>,
    pub(super) changes: Changes,
    /// The instance group of the last record.
    run: Option<Run>,
}

impl<'c> Tables<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        clock: Clock,
        declared: Arc<DeclaredSet>,
        recording: EventRecording,
    ) -> Result<Self> {
        Ok(Self {
            connection,
            clock,
            parents: Parents::new(connection),
            groups: Groups::new(connection, declared),
            instances: InstanceRows::new(connection)?,
            lookups: Lookups::new(connection)?,
            files: Files::new(connection, clock),
            copies: Copies::new(connection),
            origins: Origins::new(connection, clock),
            removals: Removals::new(connection),
            changes: Changes { events: EventNotes::new(recording), ..Changes::default() },
            run: None,
        })
    }

    /// Whether so much is remembered that it is better to begin anew.
    pub(super) fn cache_is_large(&self) -> bool {
        self.parents.cache_is_large() || self.groups.cache_is_large() || self.files.cache_is_large()
    }

    /// Forgets what is remembered of rows.
    pub(super) fn forget(&mut self) {
        self.forget_parents();
        self.parents.patients.forget_corrections();
        self.groups.forget();
        self.files.forget();
        self.removals.forget();
    }

    /// Forgets where records belong.
    pub(super) fn forget_parents(&mut self) {
        self.end_run();
        self.parents.forget();
        self.changes.parents_changed = false;
    }

    /// Forgets what a transaction that was rolled back has changed.
    pub(super) fn roll_back(&mut self) {
        self.forget();
        self.changes.roll_back();
        self.origins.roll_back();
        self.lookups.roll_back();
    }

    /// Finds the row of an instance by its SOP Instance UID.
    pub(super) fn find_instance(&mut self, uid: &str) -> Result<Option<InstanceRow>> {
        self.instances.find(uid, &mut self.lookups, &mut self.groups)
    }

    /// Finds the row of an instance by its instance group and what tells it apart there.
    pub(super) fn instance_row(&mut self, instance_group: i64, suffix: &UidSuffix) -> Result<Option<InstanceRow>> {
        let Some(group) = self.groups.by_id(instance_group)? else { return Ok(None) };
        self.find_instance(&suffix.uid(&group.uid_prefix))
    }

    /// The instances whose first location is in a directory: file name to SOP Instance UID.
    pub(super) fn instances_in(&mut self, directory: i64) -> Result<HashMap<OsString, String>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT i.instance_group, i.uid_suffix, i.file_name FROM instance_group h \
             JOIN instance i ON i.instance_group = h.id WHERE h.directory = ?1",
        )?;
        let mut found = HashMap::new();
        let mut rows = statement.query([directory])?;
        while let Some(row) = rows.next()? {
            let Some(group) = self.groups.by_id(row.get(0)?)? else { continue };
            let mut uid = String::new();
            UidSuffix::unpack(row.get_ref(1)?, &group.uid_prefix, &mut uid)?;
            let name = group.naming.unpack(row.get_ref(2)?, &uid)?;
            found.insert(name, uid);
        }
        Ok(found)
    }

    /// Inserts a new instance. Returns its instance group and what tells it apart there.
    pub(super) fn insert_instance(&mut self, new: &NewInstance<'_>) -> Result<(i64, UidSuffix)> {
        let NewInstance { record, file, .. } = new;
        let arrival = self.origins.arrival()?;
        let (group, upper_uids_are_valid) = match &mut self.run {
            Some(run) if run.instance_group.arrival == arrival && run.takes(record, file) => {
                run.instances += 1;
                (Rc::clone(&run.instance_group), run.upper_uids_are_valid)
            }
            _ => self.begin_run(new)?,
        };
        let suffix = self.instances.insert(record, file, &group, self.groups.declared())?;
        let uid = record.value(AttributeId::SOPInstanceUID);
        self.lookups.add(uid_hash(uid), group.id)?;
        if !upper_uids_are_valid || !is_valid_uid(uid) {
            self.files.note_invalid_uids(record, file, &mut self.changes)?;
        }
        Ok((group.id, suffix))
    }

    /// Finds the instance group of a new instance, which is counted there. Also returns whether the
    /// UIDs of its study and series are valid.
    fn begin_run(&mut self, new: &NewInstance<'_>) -> Result<(Rc<InstanceGroup>, bool)> {
        let NewInstance { record, file, .. } = new;
        let parents = self.parents.rows(record, &mut self.changes)?;
        // The cache of parents is up to date, and the run ends here.
        self.changes.parents_changed = false;
        let instance_group = self.groups.group_of(new, &parents, &mut self.origins, &mut self.changes)?;
        let uids = [AttributeId::SeriesInstanceUID, AttributeId::StudyInstanceUID];
        let upper_uids_are_valid = uids.into_iter().all(|id| is_valid_uid(record.value(id)));
        self.end_run();
        let common = record.common().and_then(|(common, mut own)| (!own.any(decides_instance_group)).then_some(common));
        match common.cloned() {
            Some(common) => {
                let (directory, instance_group) = (file.directory, Rc::clone(&instance_group));
                self.run = Some(Run { common, directory, parents, instance_group, upper_uids_are_valid, instances: 1 });
            }
            None => self.changes.counts.add(instance_group.id, &parents, 1),
        }
        Ok((instance_group, upper_uids_are_valid))
    }

    /// Counts the instances of the run so far.
    pub(super) fn count_run(&mut self) {
        if let Some(run) = &mut self.run {
            self.changes.counts.add(run.instance_group.id, &run.parents, std::mem::take(&mut run.instances));
        }
    }

    /// Has the next record search for its instance group.
    fn end_run(&mut self) {
        self.count_run();
        self.run = None;
    }

    /// Deletes the row of an instance.
    pub(super) fn delete_instance(&mut self, existing: &InstanceRow) -> Result<()> {
        let group = &existing.instance_group;
        let study = self.instances.delete(existing)?;
        let of = GroupOfStudy { instance_group: group.id, series: group.series, study };
        self.changes.counts.remove_one(of);
        self.changes.shrunk.insert(of);
        self.lookups.remove(uid_hash(&existing.uid()), group.id);
        Ok(())
    }

    /// Reads all that the index keeps of an instance, declared values included if they are known.
    pub(super) fn whole_record_of(&self, existing: &InstanceRow) -> Result<InstanceRecord> {
        let mut record = self.instances.record_of(existing)?;
        self.groups.set_declared(existing, &mut record)?;
        Ok(record)
    }
}
