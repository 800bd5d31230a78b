//! Records of the audit trail about an association.

use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use dicom_core::dictionary::{DataDictionary as _, DataDictionaryEntry as _};
use dicom_dictionary_std::StandardDataDictionary;

use crate::audit::{AuditEvent, AuditRecord, AuditedQuery, AuditedStudies, Auditor, Participant};
use crate::db::ReceivedFrom;
use crate::dimse::message::CFindRequest;
use crate::encoding::syntax::Encoding;
use crate::model::matching::{KeyElement, KeyValue};
use crate::qr::Identifier;

/// Studies of one event about received objects. Larger: longer lines. Smaller: more of them.
const STUDIES_OF_ONE_EVENT: usize = 64;

/// Longest time for which received objects wait for their event.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Most keys of one query that the trail keeps, and the longest text of one.
const KEYS: usize = 64;
const KEY_CHARACTERS: usize = 1024;

/// Longest Identifier that the trail keeps as it came. A longer one is told by its keys.
const QUERY_BYTES: usize = 32 << 10;

/// The peer of an association.
pub(in crate::scp) fn peer(sender: &ReceivedFrom) -> Participant {
    let address = sender.address.map(|address| address.to_string()).unwrap_or_default();
    Participant { name: sender.calling_ae_title.clone(), address }
}

/// The keys of an Identifier that have a value, as in `PatientID=4711`.
pub(in crate::scp) fn keys(identifier: &Identifier) -> Vec<String> {
    let mut keys = Vec::new();
    add_keys(&identifier.elements, "", &mut keys);
    keys
}

fn add_keys(elements: &[KeyElement], above: &str, keys: &mut Vec<String>) {
    for element in elements {
        if keys.len() >= KEYS {
            return;
        }
        let name = StandardDataDictionary.by_tag(element.tag).map(|entry| entry.alias().to_owned());
        let name = format!("{above}{}", name.unwrap_or_else(|| element.tag.to_string()));
        match &element.value {
            KeyValue::Text(text) if text.trim().is_empty() => {}
            KeyValue::Text(text) => keys.push(format!("{name}={text}").chars().take(KEY_CHARACTERS).collect()),
            KeyValue::Items(items) => {
                for item in items {
                    add_keys(item, &format!("{name}."), keys);
                }
            }
        }
    }
}

/// Tells the audit trail of a query, before it is answered. `data_set` is the Identifier as it
/// came.
pub(in crate::scp) fn note_query(
    (audit, sender): &(Auditor, Arc<ReceivedFrom>),
    request: &CFindRequest,
    identifier: &Identifier,
    (data_set, encoding): (&[u8], Encoding),
) {
    if !audit.is_on() {
        return;
    }
    let mut record = AuditRecord::new(AuditEvent::Query, "C-FIND");
    record.by = Some(peer(sender));
    let is_kept = data_set.len() <= QUERY_BYTES;
    record.query = Some(AuditedQuery {
        sop_class_uid: request.affected_sop_class_uid.clone(),
        keys: keys(identifier),
        data_set: if is_kept { BASE64.encode(data_set) } else { String::new() },
        transfer_syntax: if is_kept { encoding.uid().to_owned() } else { String::new() },
        ..AuditedQuery::default()
    });
    audit.note(record);
}

/// Objects that an association has brought, until they make an event.
#[derive(Debug, Default)]
pub(in crate::scp) struct ReceivedStudies {
    since: Option<Instant>,
    studies: AuditedStudies,
}

impl ReceivedStudies {
    /// Counts an object. Returns an event if there are enough for one.
    pub(in crate::scp) fn add(
        &mut self,
        sender: &ReceivedFrom,
        study_and_patient: (String, String),
        sop_class: &str,
    ) -> Option<AuditRecord> {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.studies.add(study_and_patient, "", sop_class);
        let is_enough = self.studies.len() >= STUDIES_OF_ONE_EVENT || since.elapsed() >= LONGEST_WAIT;
        if is_enough { self.event(sender) } else { None }
    }

    /// Returns the event of what was received so far. The trail makes one for each patient of it.
    pub(in crate::scp) fn event(&mut self, sender: &ReceivedFrom) -> Option<AuditRecord> {
        self.since = None;
        let studies = std::mem::take(&mut self.studies);
        if studies.is_empty() {
            return None;
        }
        let mut record = AuditRecord::new(AuditEvent::Stored, "C-STORE");
        record.by = Some(peer(sender));
        record.studies = studies.into_studies();
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_objects_make_one_event_for_each_association() {
        let sender = ReceivedFrom { calling_ae_title: "CT1".into(), address: None };
        let mut received = ReceivedStudies::default();
        for _ in 0..3 {
            assert_eq!(received.add(&sender, ("1.2".into(), "4711".into()), "1.2.840"), None);
        }
        let event = received.event(&sender).unwrap();
        assert_eq!(event.studies.len(), 1);
        assert_eq!((event.studies[0].instances["1.2.840"], event.studies[0].patient_id.as_str()), (3, "4711"));
        assert_eq!(received.event(&sender), None);
        let mut events = 0;
        for study in 0..STUDIES_OF_ONE_EVENT {
            events += usize::from(received.add(&sender, (format!("1.{study}"), String::new()), "1.2").is_some());
        }
        assert_eq!(events, 1);
    }
}
