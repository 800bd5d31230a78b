//! An event as XML (PS3.15 A.5.1), for collectors.

use std::fmt::Write as _;

use super::record::{AuditEvent, AuditOutcome, AuditRecord, AuditedQuery, AuditedStudy, Participant};
use crate::model::calendar::moment_text;
use data_encoding::BASE64;

/// A code of DCM (PS3.16 annex D) with its meaning.
type Code = (&'static str, &'static str);

const APPLICATION: Code = ("110150", "Application");
const APPLICATION_LAUNCHER: Code = ("110151", "Application Launcher");
const SOURCE: Code = ("110153", "Source Role ID");
const DESTINATION: Code = ("110152", "Destination Role ID");
const STUDY: Code = ("110180", "Study Instance UID");
const SOP_CLASS: Code = ("110181", "SOP Class UID");
const NODE: Code = ("110182", "Node ID");

/// RFC 3881: the identifier of a patient.
const PATIENT_NUMBER: Code = ("2", "Patient Number");

/// The code of an event, its type if it has one, and what it does (C, R, U, D or E).
fn event(record: &AuditRecord) -> (Code, Option<Code>, char) {
    match record.event {
        AuditEvent::Start => (("110100", "Application Activity"), Some(("110120", "Application Start")), 'E'),
        AuditEvent::Stop => (("110100", "Application Activity"), Some(("110121", "Application Stop")), 'E'),
        AuditEvent::AuthenticationFailed => {
            (("110113", "Security Alert"), Some(("110126", "Node Authentication")), 'E')
        }
        AuditEvent::Query => (("110112", "Query"), None, 'E'),
        AuditEvent::Stored => (("110104", "DICOM Instances Transferred"), None, 'C'),
        AuditEvent::Retrieved => (("110104", "DICOM Instances Transferred"), None, 'R'),
        AuditEvent::Deleted => (("110105", "DICOM Study Deleted"), None, 'D'),
        AuditEvent::Corrected => (("110103", "DICOM Instances Accessed"), None, 'U'),
        AuditEvent::Maintained => (("110113", "Security Alert"), Some(("110131", "Software Configuration")), 'E'),
        AuditEvent::Exported => (("110106", "Export"), None, 'R'),
    }
}

/// Returns the message.
pub(super) fn message(record: &AuditRecord) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><AuditMessage>");
    let (id, kind, action) = event(record);
    let outcome = match record.outcome {
        AuditOutcome::Success => 0,
        AuditOutcome::MinorFailure => 4,
        AuditOutcome::SeriousFailure => 8,
    };
    // Writing to a text does not fail.
    let _ = write!(
        xml,
        "<EventIdentification EventActionCode=\"{action}\" EventDateTime=\"{}\" EventOutcomeIndicator=\"{outcome}\">",
        date_time(record.time_ms)
    );
    code(&mut xml, "EventID", id);
    if let Some(kind) = kind {
        code(&mut xml, "EventTypeCode", kind);
    }
    if !record.reason.is_empty() {
        let _ = write!(xml, "<EventOutcomeDescription>{}</EventOutcomeDescription>", escaped(&record.reason));
    }
    xml.push_str("</EventIdentification>");
    participants(&mut xml, record);
    let _ = write!(xml, "<AuditSourceIdentification AuditSourceID=\"{}\"/>", escaped(&record.node));
    if let Some(query) = &record.query {
        searched(&mut xml, query);
    }
    if record.event == AuditEvent::AuthenticationFailed
        && let Some(by) = &record.by
    {
        let id = [&by.name, &by.address].map(String::as_str).join(" ");
        object(&mut xml, ("2", "3", NODE), &id, &object_name(&by.name));
    }
    for study in &record.studies {
        studied(&mut xml, study);
    }
    // PS3.15 A.5.3: one object for each patient.
    let mut patients: Vec<(&str, &str)> = record
        .studies
        .iter()
        .map(|study| (study.patient_id.as_str(), study.patient_name.as_str()))
        .filter(|(id, name)| !id.is_empty() || !name.is_empty())
        .collect();
    patients.sort_unstable();
    patients.dedup();
    for (id, name) in patients {
        patient(&mut xml, id, &object_name(name));
    }
    xml.push_str("</AuditMessage>");
    xml
}

/// Who took part, and in which role.
fn participants(xml: &mut String, record: &AuditRecord) {
    let node = Participant { name: record.node.clone(), address: String::new() };
    let is_sent_by_node = match record.event {
        AuditEvent::Start | AuditEvent::Stop => {
            active(xml, &node, false, Some(APPLICATION));
            if let Some(by) = &record.by {
                active(xml, by, true, Some(APPLICATION_LAUNCHER));
            }
            return;
        }
        AuditEvent::AuthenticationFailed | AuditEvent::Deleted | AuditEvent::Corrected | AuditEvent::Maintained => {
            active(xml, &node, record.by.is_none(), None);
            if let Some(by) = &record.by {
                active(xml, by, true, None);
            }
            return;
        }
        // PS3.15 A.5.3.10: the source of a query is who asks.
        AuditEvent::Query | AuditEvent::Stored => false,
        AuditEvent::Retrieved | AuditEvent::Exported => true,
    };
    let (of_node, of_other) = if is_sent_by_node { (SOURCE, DESTINATION) } else { (DESTINATION, SOURCE) };
    active(xml, &node, record.by.is_none(), Some(of_node));
    if let Some(by) = &record.by {
        active(xml, by, true, if record.to.is_some() { None } else { Some(of_other) });
    }
    if let Some(to) = &record.to {
        active(xml, to, false, Some(of_other));
    }
}

fn active(xml: &mut String, participant: &Participant, is_requestor: bool, role: Option<Code>) {
    let Participant { name, address } = participant;
    // UserID must not be empty.
    let id = if name.is_empty() { if address.is_empty() { "unknown" } else { address } } else { name };
    let _ = write!(xml, "<ActiveParticipant UserID=\"{}\" UserIsRequestor=\"{is_requestor}\"", escaped(id));
    if !address.is_empty() {
        let kind = if address.parse::<std::net::IpAddr>().is_ok() { 2 } else { 1 };
        let _ = write!(xml, " NetworkAccessPointID=\"{}\" NetworkAccessPointTypeCode=\"{kind}\"", escaped(address));
    }
    match role {
        Some(role) => {
            xml.push('>');
            code(xml, "RoleIDCode", role);
            xml.push_str("</ActiveParticipant>");
        }
        None => xml.push_str("/>"),
    }
}

/// PS3.15 A.5.3.10: the query stands as it was asked, in base64.
fn searched(xml: &mut String, query: &AuditedQuery) {
    let asked = BASE64.encode(query.keys.join("\n").as_bytes());
    let inside = format!("<ParticipantObjectQuery>{asked}</ParticipantObjectQuery>");
    object(xml, ("2", "3", SOP_CLASS), &query.sop_class_uid, &inside);
}

fn studied(xml: &mut String, study: &AuditedStudy) {
    // A name is required, and a study has none.
    let mut inside = object_name("");
    if !study.instances.is_empty() {
        inside.push_str("<ParticipantObjectDescription>");
        for (sop_class, instances) in &study.instances {
            let _ = write!(inside, "<SOPClass UID=\"{}\" NumberOfInstances=\"{instances}\"/>", escaped(sop_class));
        }
        inside.push_str("</ParticipantObjectDescription>");
    }
    object(xml, ("2", "3", STUDY), &study.study_instance_uid, &inside);
}

fn object_name(name: &str) -> String {
    format!("<ParticipantObjectName>{}</ParticipantObjectName>", escaped(name))
}

fn patient(xml: &mut String, id: &str, inside: &str) {
    let _ = write!(
        xml,
        "<ParticipantObjectIdentification ParticipantObjectID=\"{}\" ParticipantObjectTypeCode=\"1\" \
         ParticipantObjectTypeCodeRole=\"1\"><ParticipantObjectIDTypeCode csd-code=\"{}\" \
         codeSystemName=\"RFC-3881\" originalText=\"{}\"/>{inside}</ParticipantObjectIdentification>",
        escaped(id),
        PATIENT_NUMBER.0,
        PATIENT_NUMBER.1
    );
}

fn object(xml: &mut String, (kind, role, id_type): (&str, &str, Code), id: &str, inside: &str) {
    let _ = write!(
        xml,
        "<ParticipantObjectIdentification ParticipantObjectID=\"{}\" ParticipantObjectTypeCode=\"{kind}\" \
         ParticipantObjectTypeCodeRole=\"{role}\">",
        escaped(id)
    );
    code(xml, "ParticipantObjectIDTypeCode", id_type);
    xml.push_str(inside);
    xml.push_str("</ParticipantObjectIdentification>");
}

fn code(xml: &mut String, element: &str, (code, meaning): Code) {
    let _ = write!(xml, "<{element} csd-code=\"{code}\" codeSystemName=\"DCM\" originalText=\"{meaning}\"/>");
}

/// A moment with its milliseconds, as xsd:dateTime and RFC 5424 want it.
pub(super) fn date_time(ms: i64) -> String {
    let seconds = moment_text(ms);
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), ms.rem_euclid(1000))
}

/// Text for an attribute or an element. Characters that XML does not have become U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\t' | '\n' | '\r' => out.push(' '),
            '\0'..'\u{20}' | '\u{FFFE}' | '\u{FFFF}' => out.push('\u{FFFD}'),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_written_as_the_standard_has_it() {
        let mut record = AuditRecord::new(AuditEvent::Query, "C-FIND");
        record.time_ms = 951_827_696_007;
        record.node = "DCMDEX".into();
        record.by = Some(Participant { name: "WS & 1".into(), address: "10.0.0.7".into() });
        record.query =
            Some(AuditedQuery { sop_class_uid: "1.2.3".into(), keys: vec!["PatientID=4711".into()], arrived: None });
        assert_eq!(
            message(&record),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><AuditMessage><EventIdentification EventActionCode=\"E\" \
             EventDateTime=\"2000-02-29T12:34:56.007Z\" EventOutcomeIndicator=\"0\"><EventID csd-code=\"110112\" \
             codeSystemName=\"DCM\" originalText=\"Query\"/></EventIdentification><ActiveParticipant \
             UserID=\"DCMDEX\" UserIsRequestor=\"false\"><RoleIDCode csd-code=\"110152\" codeSystemName=\"DCM\" \
             originalText=\"Destination Role ID\"/></ActiveParticipant><ActiveParticipant UserID=\"WS &amp; 1\" \
             UserIsRequestor=\"true\" NetworkAccessPointID=\"10.0.0.7\" NetworkAccessPointTypeCode=\"2\"><RoleIDCode \
             csd-code=\"110153\" codeSystemName=\"DCM\" originalText=\"Source Role ID\"/></ActiveParticipant>\
             <AuditSourceIdentification AuditSourceID=\"DCMDEX\"/><ParticipantObjectIdentification \
             ParticipantObjectID=\"1.2.3\" ParticipantObjectTypeCode=\"2\" ParticipantObjectTypeCodeRole=\"3\">\
             <ParticipantObjectIDTypeCode csd-code=\"110181\" codeSystemName=\"DCM\" originalText=\"SOP Class UID\"/>\
             <ParticipantObjectQuery>UGF0aWVudElEPTQ3MTE=</ParticipantObjectQuery></ParticipantObjectIdentification>\
             </AuditMessage>"
        );
    }

    /// The elements in an element, in their order. No element of a message contains one of its own
    /// name.
    fn children(xml: &str) -> Vec<(&str, &str)> {
        let (mut rest, mut found) = (xml, Vec::new());
        while let Some(begun) = rest.strip_prefix('<') {
            let tag_end = begun.find('>').unwrap();
            let tag = &begun[..tag_end];
            let name = tag.split([' ', '/']).next().unwrap();
            let behind = &begun[tag_end + 1..];
            let (inside, after) = match tag.ends_with('/') {
                true => ("", behind),
                false => behind.split_once(&format!("</{name}>")).unwrap(),
            };
            found.push((name, inside));
            rest = after;
        }
        assert!(rest.is_empty() || found.is_empty(), "{rest}");
        found
    }

    fn names(xml: &str) -> Vec<&str> {
        children(xml).into_iter().map(|(name, _)| name).collect()
    }

    /// PS3.15 A.5.1: each object has the code of its ID, then a name or a query, then perhaps a
    /// description.
    #[test]
    fn every_event_has_the_elements_of_the_schema_in_their_order() {
        use AuditEvent::*;
        for kind in [Start, Stop, AuthenticationFailed, Query, Stored, Retrieved, Deleted, Maintained, Exported] {
            let mut record = AuditRecord::new(kind, "test");
            record.reason = "why".into();
            record.by = Some(Participant { name: "WS1".into(), address: "10.0.0.7".into() });
            record.to = Some(Participant { name: "WS2".into(), address: "host".into() });
            record.query = Some(AuditedQuery { keys: vec!["PatientID=1".into()], ..AuditedQuery::default() });
            let study =
                AuditedStudy { study_instance_uid: "1.2".into(), patient_id: "1".into(), ..AuditedStudy::default() };
            let with_classes = AuditedStudy { instances: [("1.3".to_owned(), 2)].into(), ..study.clone() };
            record.studies = vec![study, with_classes];
            let message = message(&record);
            let (_, body) = message.split_once("?>").unwrap();
            let [("AuditMessage", inside)] = children(body)[..] else { panic!("{message}") };
            let order = [
                "EventIdentification",
                "ActiveParticipant",
                "AuditSourceIdentification",
                "ParticipantObjectIdentification",
            ];
            let places: Vec<_> =
                names(inside).iter().map(|name| order.iter().position(|known| known == name).unwrap()).collect();
            assert!(places.is_sorted() && (0..4).all(|place| places.contains(&place)), "{message}");
            for (name, inside) in children(inside) {
                let elements = names(inside);
                let fits = match name {
                    "EventIdentification" => {
                        elements == ["EventID", "EventOutcomeDescription"]
                            || elements == ["EventID", "EventTypeCode", "EventOutcomeDescription"]
                    }
                    "ActiveParticipant" => elements.iter().all(|name| *name == "RoleIDCode"),
                    "AuditSourceIdentification" => elements.is_empty(),
                    _ => {
                        let [code, text, ref more @ ..] = elements[..] else { panic!("{message}") };
                        code == "ParticipantObjectIDTypeCode"
                            && ["ParticipantObjectName", "ParticipantObjectQuery"].contains(&text)
                            && (more.is_empty() || more == ["ParticipantObjectDescription"])
                    }
                };
                assert!(fits, "{kind:?} {name}: {elements:?}");
            }
        }
    }

    #[test]
    fn what_xml_does_not_have_is_replaced() {
        assert_eq!(escaped("a\0<b>\u{1b}\"'&\n\u{FFFE}é"), "a\u{FFFD}&lt;b&gt;\u{FFFD}&quot;&apos;&amp; \u{FFFD}é");
    }
}
