//! An event as XML (PS3.15 A.5.1), for collectors.

use std::fmt::Write as _;

use super::record::{AuditEvent, AuditOutcome, AuditRecord, AuditedQuery, AuditedStudy, Participant};
use crate::model::calendar::moment_text;
use crate::model::location::uri_path;
use data_encoding::BASE64;

/// A code with its meaning. It is one of DCM (PS3.16 annex D), with the exception of [`QIDO`].
type Code = (&'static str, &'static str);

/// A search that is none of DIMSE. The Standard has no code for it.
const QIDO: Code = ("QIDO-RS", "QIDO-RS Query");

const APPLICATION: Code = ("110150", "Application");
const APPLICATION_LAUNCHER: Code = ("110151", "Application Launcher");
const SOURCE: Code = ("110153", "Source Role ID");
const DESTINATION: Code = ("110152", "Destination Role ID");
const STUDY: Code = ("110180", "Study Instance UID");
const SOP_CLASS: Code = ("110181", "SOP Class UID");
const NODE: Code = ("110182", "Node ID");
const DESTINATION_MEDIA: Code = ("110154", "Destination Media");
/// PS3.16 CID 405: a medium that is named by a URI.
const URI_MEDIUM: Code = ("110037", "URI");

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
    // PS3.15 A.5.3.4, A.5.3.7: what was transferred stands for the question. One without an answer
    // is told all the same.
    let is_told_by_studies = matches!(record.event, AuditEvent::Retrieved | AuditEvent::Exported);
    if let Some(query) = record.query.as_ref().filter(|_| !is_told_by_studies || record.studies.is_empty()) {
        searched(&mut xml, query, &record.node);
    }
    if record.event == AuditEvent::AuthenticationFailed
        && let Some(by) = &record.by
    {
        let id = [&by.name, &by.address].map(String::as_str).join(" ");
        object(&mut xml, ("2", "3", NODE), &id, &object_name(&by.name));
    }
    for study in record.studies.iter().filter(|study| !study.study_instance_uid.is_empty()) {
        studied(&mut xml, study);
    }
    // Only an export is about several patients (PS3.15 A.5.3.4).
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

/// Writes the participants, each in its role.
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
        // PS3.15 A.5.3.4: process and user export, and the destination is a medium.
        AuditEvent::Exported => {
            active(xml, &node, record.by.is_none(), Some(SOURCE));
            if let Some(by) = &record.by {
                active(xml, by, true, Some(SOURCE));
            }
            if let Some(to) = &record.to {
                medium(xml, &to.name);
            }
            return;
        }
        // PS3.15 A.5.3.10: the source of a query is who asks.
        AuditEvent::Query | AuditEvent::Stored => false,
        AuditEvent::Retrieved => true,
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

/// The medium of an export. A path is written as a URI.
fn medium(xml: &mut String, name: &str) {
    let id = if name.starts_with('/') { format!("file://{}", uri_path(name.as_bytes())) } else { name.to_owned() };
    let _ = write!(xml, "<ActiveParticipant UserID=\"{}\" UserIsRequestor=\"false\">", escaped(&id));
    code(xml, "RoleIDCode", DESTINATION_MEDIA);
    xml.push_str("<MediaIdentifier>");
    code(xml, "MediaType", URI_MEDIUM);
    xml.push_str("</MediaIdentifier></ActiveParticipant>");
}

/// PS3.15 A.5.3.10: the query of a SOP Class is its data set in base64, with the transfer syntax.
/// Another one stands as it was asked.
fn searched(xml: &mut String, query: &AuditedQuery, node: &str) {
    let in_base64 = |text: &str| BASE64.encode(text.as_bytes());
    let asked = |query: &str| format!("<ParticipantObjectQuery>{query}</ParticipantObjectQuery>");
    if !query.data_set.is_empty() {
        let syntax = in_base64(&query.transfer_syntax);
        let detail = format!("<ParticipantObjectDetail type=\"TransferSyntax\" value=\"{syntax}\"/>");
        let inside = asked(&query.data_set) + &detail;
        return object(xml, ("2", "3", SOP_CLASS), &query.sop_class_uid, &inside);
    }
    if !query.target.is_empty() {
        let path = query.target.split('?').next().unwrap_or_default();
        return object(xml, ("2", "3", QIDO), path, &asked(&in_base64(&query.target)));
    }
    let inside = asked(&in_base64(&query.keys.join("\n")));
    match query.sop_class_uid.as_str() {
        "" => object(xml, ("2", "3", NODE), node, &inside),
        sop_class => object(xml, ("2", "3", SOP_CLASS), sop_class, &inside),
    }
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
    let scheme = if code == QIDO.0 { "99DCMDEX" } else { "DCM" };
    let _ = write!(xml, "<{element} csd-code=\"{code}\" codeSystemName=\"{scheme}\" originalText=\"{meaning}\"/>");
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
        record.query = Some(AuditedQuery {
            sop_class_uid: "1.2.3".into(),
            keys: vec!["PatientID=4711".into()],
            data_set: "UGF0aWVudElEPTQ3MTE=".into(),
            transfer_syntax: "1.2.840.10008.1.2".into(),
            ..AuditedQuery::default()
        });
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
             <ParticipantObjectQuery>UGF0aWVudElEPTQ3MTE=</ParticipantObjectQuery><ParticipantObjectDetail \
             type=\"TransferSyntax\" value=\"MS4yLjg0MC4xMDAwOC4xLjI=\"/></ParticipantObjectIdentification>\
             </AuditMessage>"
        );
    }

    #[test]
    fn a_search_over_http_stands_as_it_was_sent() {
        let mut record = AuditRecord::new(AuditEvent::Query, "QIDO-RS");
        let target = "/dicom-web/studies?PatientID=4711".to_owned();
        record.query = Some(AuditedQuery { target: target.clone(), ..AuditedQuery::default() });
        let message = message(&record);
        assert!(message.contains("ParticipantObjectID=\"/dicom-web/studies\""), "{message}");
        assert!(message.contains("csd-code=\"QIDO-RS\" codeSystemName=\"99DCMDEX\""), "{message}");
        let query = format!("<ParticipantObjectQuery>{}</ParticipantObjectQuery>", BASE64.encode(target.as_bytes()));
        assert!(message.contains(&query) && !message.contains("110181"), "{message}");
    }

    /// PS3.15 A.5.3.4.
    #[test]
    fn an_export_names_its_medium_studies_and_patients() {
        let mut record = AuditRecord::new(AuditEvent::Exported, "copy");
        record.to = Some(Participant { name: "/media/a stick".into(), address: String::new() });
        record.query = Some(AuditedQuery { keys: vec!["Modality=CT".into()], ..AuditedQuery::default() });
        let study = |uid: &str, patient: &str| AuditedStudy {
            study_instance_uid: uid.into(),
            patient_id: patient.into(),
            instances: [("1.2.840".to_owned(), 3)].into(),
            ..AuditedStudy::default()
        };
        record.studies = vec![study("1.2", "P1"), study("1.3", "P2")];
        let message = message(&record);
        let medium = "UserID=\"file:///media/a%20stick\" UserIsRequestor=\"false\"><RoleIDCode csd-code=\"110154\" \
                      codeSystemName=\"DCM\" originalText=\"Destination Media\"/><MediaIdentifier><MediaType \
                      csd-code=\"110037\" codeSystemName=\"DCM\" originalText=\"URI\"/></MediaIdentifier>";
        assert!(message.contains(medium), "{message}");
        for id in ["1.2", "1.3", "P1", "P2"] {
            assert!(message.contains(&format!("ParticipantObjectID=\"{id}\"")), "{message}");
        }
        assert!(!message.contains("ParticipantObjectQuery") && !message.contains("110152"), "{message}");
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
                    "ActiveParticipant" => {
                        elements.iter().all(|name| *name == "RoleIDCode")
                            || elements == ["RoleIDCode", "MediaIdentifier"]
                    }
                    "AuditSourceIdentification" => elements.is_empty(),
                    _ => {
                        let [code, text, ref more @ ..] = elements[..] else { panic!("{message}") };
                        code == "ParticipantObjectIDTypeCode"
                            && ["ParticipantObjectName", "ParticipantObjectQuery"].contains(&text)
                            && (more.is_empty()
                                || more == ["ParticipantObjectDescription"]
                                || more == ["ParticipantObjectDetail"])
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
