//! Changes of a transaction that it has yet to write.

use std::collections::BTreeSet;

use foldhash::{HashMap, HashSet};
use rusqlite::Connection;

use super::losses::Losses;
use super::rows::{ParentRows, Result};
use crate::db::Tally;
use crate::db::event_notes::EventNotes;
use crate::model::record::InstanceRecord;

/// Changes of a transaction to the descriptions under one Patient ID and identity.
#[derive(Default)]
pub(super) struct Touched {
    pub(super) added: HashSet<i64>,
    pub(super) has_removed: bool,
    /// Issuers of those added and removed.
    pub(super) issuers: BTreeSet<String>,
}

/// When the values of a row are computed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recompute {
    /// Only if the objects that gave the row its values may be gone.
    IfLeft,
    /// In any case.
    Always,
}

/// Changes of the transaction to entities, and the entities that it has to look at again before it
/// ends.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) tally: Tally,
    /// Events for programs that follow the index.
    pub(super) events: EventNotes,
    pub(super) counts: Counts,
    /// Studies whose ModalitiesInStudy, SOPClassesInStudy and AnatomicRegionsInStudyCodeSequence
    /// have to be computed again.
    pub(super) studies_to_summarise: HashSet<i64>,
    /// Instance groups that may have become empty.
    pub(super) shrunk: HashSet<GroupOfStudy>,
    /// Series whose values may have to be computed anew.
    pub(super) series_to_recompute: HashMap<i64, Recompute>,
    /// Studies whose values and patients may have to be computed anew.
    pub(super) studies_to_recompute: HashMap<i64, Recompute>,
    /// Descriptions of patients to which perhaps no study leads any more.
    pub(super) patients_left: HashSet<i64>,
    /// Losses of entities.
    pub(super) losses: Losses,
    /// Descriptions of patients that were added or dropped, by Patient ID and identity.
    pub(super) touched_patients: HashMap<(String, String), Touched>,
    /// Whether the row of a study or series, or of its patient, is not what a cache says.
    pub(super) parents_changed: bool,
}

impl Changes {
    /// Counts a new conflict. `record` is that of the later object, where the conflict is about
    /// one.
    pub(super) fn note_conflict(&mut self, kind: &'static str, record: Option<&InstanceRecord>) {
        self.tally.conflicts += 1;
        self.events.note_conflict(kind, record);
    }

    /// Forgets what a transaction that was rolled back has changed.
    pub(super) fn roll_back(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        events.roll_back();
        *self = Self { events, ..Self::default() };
    }
}

/// An instance group with its series and study.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct GroupOfStudy {
    pub(super) instance_group: i64,
    pub(super) series: i64,
    pub(super) study: i64,
}

/// Changes of the counters that rows keep.
#[derive(Default)]
pub(super) struct Counts {
    /// Instances of each instance group.
    pub(super) instance_groups: HashMap<i64, i64>,
    series: HashMap<i64, i64>,
    studies: HashMap<i64, i64>,
    series_of_studies: HashMap<i64, i64>,
}

impl Counts {
    /// Counts new instances of an instance group.
    pub(super) fn add(&mut self, instance_group: i64, parents: &ParentRows, instances: i64) {
        self.add_to(GroupOfStudy { instance_group, series: parents.series, study: parents.study }, instances);
    }

    /// Counts an instance that is gone.
    pub(super) fn remove_one(&mut self, of: GroupOfStudy) {
        self.add_to(of, -1);
    }

    fn add_to(&mut self, of: GroupOfStudy, instances: i64) {
        *self.instance_groups.entry(of.instance_group).or_default() += instances;
        *self.series.entry(of.series).or_default() += instances;
        *self.studies.entry(of.study).or_default() += instances;
    }

    /// Counts a new series of a study.
    pub(super) fn add_series(&mut self, study: i64) {
        *self.series_of_studies.entry(study).or_default() += 1;
    }

    /// Writes the counters of series and studies.
    pub(super) fn write(&mut self, connection: &Connection) -> Result<()> {
        for (table, column, changes) in [
            ("study_series", "instance_count", &mut self.series),
            ("study", "instance_count", &mut self.studies),
            ("study", "series_count", &mut self.series_of_studies),
        ] {
            let sql = format!("UPDATE {table} SET {column} = {column} + ?2 WHERE id = ?1");
            let mut update = connection.prepare_cached(&sql)?;
            for (id, change) in changes.drain().filter(|(_, change)| *change != 0) {
                update.execute([id, change])?;
            }
        }
        Ok(())
    }
}
