//! What the trail keeps of an event. Its JSON form is one line of the files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What happened. The names are those of the JSON lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditEvent {
    /// The node began to serve (PS3.15 A.5.3.1, Application Start).
    Start,
    /// The node ended (Application Stop).
    Stop,
    /// Somebody was turned away (A.5.3.11, Node Authentication).
    AuthenticationFailed,
    /// Somebody searched (A.5.3.10).
    Query,
    /// Objects came (A.5.3.7, DICOM Instances Transferred).
    Stored,
    /// Objects went out (A.5.3.7).
    Retrieved,
    /// Objects or entries were deleted (A.5.3.8).
    Deleted,
    /// An operator corrected the patient of objects (A.5.3.6, DICOM Instances Accessed).
    Corrected,
    /// An operator changed what the index is, or where its files are (A.5.3.11, Security Alert).
    Maintained,
    /// Data left the system on a medium or in a file (A.5.3.4).
    Exported,
}

/// How it ended (EventOutcomeIndicator).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditOutcome {
    /// As asked for.
    #[default]
    Success,
    /// Not, or not wholly. The peer or its request was the reason.
    MinorFailure,
    /// Not. This node was the reason.
    SeriousFailure,
}

/// Somebody who took part: a peer, a user of the HTTP server, or a user of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Participant {
    /// AE title, or name of a user. Empty if nobody said one.
    pub name: String,
    /// IP address, or host name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
}

/// What somebody searched for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditedQuery {
    /// SOP Class UID of the Information Model.
    pub sop_class_uid: String,
    /// The keys with their values, as in `PatientID=4711`.
    pub keys: Vec<String>,
    /// Number of objects that a retrieval has brought to whoever asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrived: Option<u64>,
}

/// The objects of one study that an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditedStudy {
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// Patient ID. Empty if it is not known.
    pub patient_id: String,
    /// Patient's Name. Empty if it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub patient_name: String,
    /// Number of instances, by SOP Class UID.
    pub instances: BTreeMap<String, u64>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When it ended, in milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// What happened.
    pub event: AuditEvent,
    /// How it ended.
    #[serde(default)]
    pub outcome: AuditOutcome,
    /// Why, if it did not end as asked for. Without values of a patient.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// AE title of this node.
    #[serde(default)]
    pub node: String,
    /// How it was asked for, as in `C-FIND` or `QIDO-RS`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Who asked for it. `None` for what the node did by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Participant>,
    /// Who received the data, if that is another than who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Participant>,
    /// The search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<AuditedQuery>,
    /// The studies that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub studies: Vec<AuditedStudy>,
}

impl AuditRecord {
    /// An event that ended as asked for. The trail adds time and node.
    #[must_use]
    pub fn new(event: AuditEvent, service: &str) -> Self {
        Self {
            time_ms: 0,
            event,
            outcome: AuditOutcome::Success,
            reason: String::new(),
            node: String::new(),
            service: service.to_owned(),
            by: None,
            to: None,
            query: None,
            studies: Vec::new(),
        }
    }

    /// The line of the file, with its end.
    pub(super) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("texts and numbers can be written as JSON");
        line.push('\n');
        line
    }
}
