//! Events that a transaction records for programs that follow the index (docs/adr/0042).
//!
//! Events are rows of the same transaction as the change that they tell of. Instances that are
//! received together share a row for each study, so that an instance costs some 70 bytes and no
//! row.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{EventKind, EventRecording, ReceivedFrom};
use crate::model::attribute::AttributeId;
use crate::model::record::InstanceRecord;

/// Most instances that an event of conflicts names. It counts all of them.
const NAMED_INSTANCES: usize = 100;

/// The events of a transaction.
#[derive(Default)]
pub(in crate::db) struct EventNotes {
    recording: EventRecording,
    /// By study, in the order in which they came.
    stored: Vec<StoredInstances>,
    /// By kind of conflict and Study Instance UID.
    conflicts: BTreeMap<(&'static str, String), ConflictNote>,
    /// Content of ends of scans.
    ends: Vec<String>,
}

/// Instances of one study that one sender has stored.
struct StoredInstances {
    study_instance_uid: String,
    sender: Arc<ReceivedFrom>,
    series: Vec<StoredSeries>,
}

/// Instances of one series and SOP class.
#[derive(Serialize)]
struct StoredSeries {
    series_instance_uid: String,
    sop_class_uid: String,
    sop_instance_uids: Vec<String>,
}

/// The content of an event of stored instances. It is written as it is, since a tree of values
/// would copy each UID once more.
#[derive(Serialize)]
struct StoredContent<'a> {
    calling_ae_title: &'a str,
    address: Option<String>,
    instances: usize,
    series: &'a [StoredSeries],
}

#[derive(Default)]
struct ConflictNote {
    count: u64,
    series_instance_uid: String,
    sop_instance_uids: Vec<String>,
}

impl EventNotes {
    pub(in crate::db) fn new(recording: EventRecording) -> Self {
        Self { recording, ..Self::default() }
    }

    /// Forgets the events of a transaction that was rolled back.
    pub(in crate::db) fn roll_back(&mut self) {
        *self = Self::new(self.recording);
    }

    /// Notes that a received instance is kept.
    pub(in crate::db) fn note_stored(&mut self, record: &InstanceRecord, sender: &Arc<ReceivedFrom>) {
        if self.recording != EventRecording::All {
            return;
        }
        let [study, series, class, instance] = [
            AttributeId::StudyInstanceUID,
            AttributeId::SeriesInstanceUID,
            AttributeId::SOPClassUID,
            AttributeId::SOPInstanceUID,
        ]
        .map(|id| record.value(id));
        // Objects of a series come one after the other, so the last one is mostly the right one.
        let is_same = |known: &&mut StoredInstances| known.study_instance_uid == study && known.sender == *sender;
        let of_study = match self.stored.iter_mut().rev().find(is_same) {
            Some(known) => known,
            None => self.stored.push_mut(StoredInstances {
                study_instance_uid: study.to_owned(),
                sender: Arc::clone(sender),
                series: Vec::new(),
            }),
        };
        let is_same = |known: &&mut StoredSeries| known.series_instance_uid == series && known.sop_class_uid == class;
        let of_series = match of_study.series.iter_mut().rev().find(is_same) {
            Some(known) => known,
            None => of_study.series.push_mut(StoredSeries {
                series_instance_uid: series.to_owned(),
                sop_class_uid: class.to_owned(),
                sop_instance_uids: Vec::new(),
            }),
        };
        of_series.sop_instance_uids.push(instance.to_owned());
    }

    /// Notes a new conflict. `record` is that of the later object, where the conflict is about one.
    pub(in crate::db) fn note_conflict(&mut self, kind: &'static str, record: Option<&InstanceRecord>) {
        if self.recording == EventRecording::Off {
            return;
        }
        let value = |id| record.map_or_else(String::new, |record| record.value(id).to_owned());
        let note = self.conflicts.entry((kind, value(AttributeId::StudyInstanceUID))).or_default();
        note.count += 1;
        if record.is_some() && note.sop_instance_uids.len() < NAMED_INSTANCES {
            note.series_instance_uid = value(AttributeId::SeriesInstanceUID);
            note.sop_instance_uids.push(value(AttributeId::SOPInstanceUID));
        }
    }

    /// Notes the end of a scan. Its summary may hold paths, which the event has not.
    pub(in crate::db) fn note_scan(&mut self, scan: i64, summary: &str) {
        if self.recording == EventRecording::Off {
            return;
        }
        let mut content = Map::from_iter([("scan".to_owned(), Value::from(scan))]);
        if let Ok(Value::Object(summary)) = serde_json::from_str(summary) {
            content.extend(summary.into_iter().filter(|(_, value)| value.is_number() || value.is_boolean()));
        }
        self.ends.push(Value::Object(content).to_string());
    }

    /// Takes the events.
    pub(in crate::db) fn take(&mut self) -> serde_json::Result<Vec<NewEvent>> {
        let mut events = Vec::new();
        for StoredInstances { study_instance_uid, sender, series } in self.stored.drain(..) {
            let count: usize = series.iter().map(|series| series.sop_instance_uids.len()).sum();
            let address = sender.address.map(|address| address.to_string());
            let content = StoredContent {
                calling_ae_title: &sender.calling_ae_title,
                address,
                instances: count,
                series: &series,
            };
            let content = serde_json::to_string(&content)?;
            events.push(NewEvent { kind: EventKind::InstanceStored, study_instance_uid, content });
        }
        for ((kind, study_instance_uid), note) in std::mem::take(&mut self.conflicts) {
            let ConflictNote { count, series_instance_uid, sop_instance_uids } = note;
            let content = json!({
                "conflict": kind, "count": count, "series_instance_uid": series_instance_uid,
                "sop_instance_uids": sop_instance_uids,
            });
            events.push(NewEvent { kind: EventKind::Conflict, study_instance_uid, content: content.to_string() });
        }
        let ends = self.ends.drain(..);
        let (kind, study_instance_uid) = (EventKind::ScanFinished, String::new());
        events.extend(ends.map(|content| NewEvent { kind, study_instance_uid: study_instance_uid.clone(), content }));
        Ok(events)
    }
}

/// An event before it has a number.
pub(in crate::db) struct NewEvent {
    pub(in crate::db) kind: EventKind,
    /// Empty where it is not about one study.
    pub(in crate::db) study_instance_uid: String,
    /// A JSON object with what the kind has.
    pub(in crate::db) content: String,
}

/// Contents of a study when it is complete.
pub(in crate::db) struct CompleteStudy {
    pub(in crate::db) study_instance_uid: String,
    pub(in crate::db) series: i64,
    pub(in crate::db) instances: i64,
    pub(in crate::db) modalities: Vec<String>,
    /// Kinds and AE titles of the arrivals of its instances, sorted, each pair once.
    pub(in crate::db) senders: Vec<(String, String)>,
}

impl CompleteStudy {
    /// The event that tells of it.
    pub(in crate::db) fn event(self) -> NewEvent {
        let titles: Vec<&str> =
            self.senders.iter().map(|(_, title)| title.as_str()).filter(|title| !title.is_empty()).collect();
        let mut sources: Vec<&str> = self.senders.iter().map(|(kind, _)| kind.as_str()).collect();
        sources.dedup();
        let content = json!({
            "series": self.series, "instances": self.instances, "modalities": self.modalities, "sources": sources,
            "calling_ae_titles": titles,
        });
        let kind = EventKind::StudyComplete;
        NewEvent { kind, study_instance_uid: self.study_instance_uid, content: content.to_string() }
    }
}

/// The event of an object that is damaged.
pub(in crate::db) fn damaged(
    study_instance_uid: String,
    series_instance_uid: &str,
    sop_instance_uid: &str,
) -> NewEvent {
    let content = json!({ "series_instance_uid": series_instance_uid, "sop_instance_uid": sop_instance_uid });
    NewEvent { kind: EventKind::Damaged, study_instance_uid, content: content.to_string() }
}

/// The event of an index that was restored or built anew, with its last change.
pub(in crate::db) fn index_restored(cause: &str, last_change: i64) -> NewEvent {
    let content = json!({ "cause": cause, "last_change": last_change });
    NewEvent { kind: EventKind::IndexRestored, study_instance_uid: String::new(), content: content.to_string() }
}

/// Whether the summary of a scan says that the index has changed.
pub(in crate::db) fn has_news(summary: &str) -> serde_json::Result<bool> {
    let summary: Value = serde_json::from_str(summary)?;
    Ok(["indexed", "updated", "removed", "moved", "copies"].iter().any(|count| summary[*count].as_u64() != Some(0)))
}
