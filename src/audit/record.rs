//! Record that the trail keeps of an event. Its JSON form is one line of the files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Kind of an event. The names are those of the JSON lines.
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

/// Outcome of an event (EventOutcomeIndicator).
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

/// Query of the event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditedQuery {
    /// SOP Class UID of the Information Model. Empty for a search that is none of DIMSE.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sop_class_uid: String,
    /// The keys with their values, as in `PatientID=4711`.
    pub keys: Vec<String>,
    /// The Identifier as it came, in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data_set: String,
    /// Transfer syntax of the Identifier.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub transfer_syntax: String,
    /// Path and query of a search over HTTP, as they came.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Number of objects that a retrieval has brought to whoever asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrived: Option<u64>,
}

/// The objects of one study that an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditedStudy {
    /// Study Instance UID. Empty for a patient without the studies.
    pub study_instance_uid: String,
    /// Patient ID. Empty if it is not known.
    pub patient_id: String,
    /// Patient's Name. Empty if it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub patient_name: String,
    /// Number of instances, by SOP Class UID.
    pub instances: BTreeMap<String, u64>,
}

/// Studies of objects that come one after the other. A study whose objects name two patients counts
/// twice.
#[derive(Clone, Debug, Default)]
pub struct AuditedStudies(BTreeMap<(String, String), AuditedStudy>);

impl AuditedStudies {
    /// Counts an object of this study and Patient ID.
    pub fn add(&mut self, of: (String, String), patient_name: &str, sop_class_uid: &str) {
        let study = self.0.entry(of).or_insert_with_key(|(study, patient_id)| AuditedStudy {
            study_instance_uid: study.clone(),
            patient_id: patient_id.clone(),
            patient_name: patient_name.to_owned(),
            instances: BTreeMap::new(),
        });
        match study.instances.get_mut(sop_class_uid) {
            Some(count) => *count += 1,
            None => drop(study.instances.insert(sop_class_uid.to_owned(), 1)),
        }
    }

    /// Number of studies.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the studies.
    #[must_use]
    pub fn into_studies(self) -> Vec<AuditedStudy> {
        self.0.into_values().collect()
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When it ended, in milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// Kind of the event.
    pub event: AuditEvent,
    /// Outcome of the event.
    #[serde(default)]
    pub outcome: AuditOutcome,
    /// Reason, if it did not end as asked for. It has no values of a patient.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// AE title of this node.
    #[serde(default)]
    pub node: String,
    /// Service by which it was asked for, as in `C-FIND` or `QIDO-RS`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Participant who asked for it. `None` for what the node did by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Participant>,
    /// Receiver of the data, if it is not who asked.
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

    /// Returns one event for each patient, where the Standard allows only one in a message (PS3.15
    /// A.5.3.6, A.5.3.7, A.5.3.8).
    #[must_use]
    pub fn of_one_patient_each(mut self) -> Vec<Self> {
        use AuditEvent::{Corrected, Deleted, Retrieved, Stored};
        let patient = |study: &AuditedStudy| (study.patient_id.clone(), study.patient_name.clone());
        let is_of_one = match self.studies.first().map(patient) {
            Some(first) => self.studies.iter().all(|study| patient(study) == first),
            None => true,
        };
        if is_of_one || !matches!(self.event, Stored | Retrieved | Deleted | Corrected) {
            return vec![self];
        }
        let mut patients: BTreeMap<_, Vec<AuditedStudy>> = BTreeMap::new();
        for study in std::mem::take(&mut self.studies) {
            patients.entry(patient(&study)).or_default().push(study);
        }
        let of_patient = |studies: Vec<AuditedStudy>| {
            let mut record = Self { studies, ..self.clone() };
            if let Some(arrived) = record.query.as_mut().and_then(|query| query.arrived.as_mut()) {
                *arrived = record.studies.iter().flat_map(|study| study.instances.values()).sum();
            }
            record
        };
        patients.into_values().map(of_patient).collect()
    }

    /// The line of the file, with its end.
    pub(super) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("texts and numbers can be written as JSON");
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // PS3.15 A.5.3.7.
    #[test]
    fn what_went_to_somebody_makes_one_event_for_each_patient() {
        let mut studies = AuditedStudies::default();
        // The second study has objects of two patients.
        for (study, patient) in [("1", "A"), ("2", "A"), ("2", "B"), ("1", "A")] {
            studies.add((study.to_owned(), patient.to_owned()), "", "1.2.840");
        }
        let query = Some(AuditedQuery { arrived: Some(4), ..AuditedQuery::default() });
        let studies = studies.into_studies();
        let record = AuditRecord { query, studies, ..AuditRecord::new(AuditEvent::Retrieved, "C-GET") };
        let told: Vec<_> = record
            .clone()
            .of_one_patient_each()
            .into_iter()
            .map(|record| {
                let of = |study: AuditedStudy| (study.patient_id, study.study_instance_uid);
                (record.query.unwrap().arrived, record.studies.into_iter().map(of).collect::<Vec<_>>())
            })
            .collect();
        let of = |patient: &str, study: &str| (patient.to_owned(), study.to_owned());
        assert_eq!(told, [(Some(3), vec![of("A", "1"), of("A", "2")]), (Some(1), vec![of("B", "2")])]);
        let export = AuditRecord { event: AuditEvent::Exported, ..record };
        assert_eq!(export.clone().of_one_patient_each(), [export], "an export may be about several");
    }
}
