//! An event as others get it.

use serde_json::{Map, Value};

use crate::db::{IndexEvent, StudyIdentifiers};
use crate::model::calendar::moment_text;

/// An event on its way to a receiver.
pub(super) struct OutgoingEvent {
    /// A name that no other event has.
    pub(super) id: String,
    /// Its kind.
    pub(super) kind: String,
    /// The JSON object.
    pub(super) body: Vec<u8>,
}

/// Source of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventSource {
    /// Name of the index, which sets its events apart from those of others.
    pub index: String,
    /// AE title of the node.
    pub node: String,
}

impl EventSource {
    /// Makes an event ready for a receiver.
    pub(super) fn outgoing(&self, event: &IndexEvent, identifiers: Option<&StudyIdentifiers>) -> OutgoingEvent {
        OutgoingEvent {
            id: format!("{}-{}", self.index, event.id),
            kind: event.kind.clone(),
            body: message(event, self, identifiers).to_string().into_bytes(),
        }
    }
}

/// Makes the JSON object of an event (docs/events.md).
#[must_use]
pub fn message(event: &IndexEvent, source: &EventSource, identifiers: Option<&StudyIdentifiers>) -> Value {
    let mut object = Map::from_iter([
        ("event".to_owned(), Value::from(event.id)),
        ("kind".to_owned(), event.kind.as_str().into()),
        ("time".to_owned(), moment_text(event.at_ms).into()),
        ("time_ms".to_owned(), event.at_ms.into()),
        ("node".to_owned(), source.node.as_str().into()),
        ("index".to_owned(), source.index.as_str().into()),
        ("change".to_owned(), event.change.into()),
    ]);
    if !event.study_instance_uid.is_empty() {
        object.insert("study_instance_uid".to_owned(), event.study_instance_uid.as_str().into());
    }
    if let Some(known) = identifiers {
        for (name, value) in [
            ("patient_id", &known.patient_id),
            ("issuer_of_patient_id", &known.issuer_of_patient_id),
            ("accession_number", &known.accession_number),
        ] {
            object.insert(name.to_owned(), value.as_str().into());
        }
    }
    if let Ok(Value::Object(content)) = serde_json::from_str(&event.content) {
        // What stands above is of the event itself.
        for (name, value) in content {
            object.entry(name).or_insert(value);
        }
    }
    Value::Object(object)
}
