//! The log has no patient data, whatever arrives and however it fails.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use dicom_dictionary_std::tags;

use dcmdex::dimse::command_set::{self, CommandField, CommandSet};
use dicom_ul::pdu::{RequestorRoles, UserVariableItem};

use super::serve::Node;
use super::*;
use crate::util::http;
use crate::util::http2::{Connection, DATA, END_STREAM, GOAWAY, frame, head};
use crate::util::objects;
use crate::util::scripted::{
    DataSet, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, Received, ScriptedPeer, VERIFICATION,
    cancel_command, find_command, request, retrieve_command, store_command,
};

const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const STUDY_ROOT_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
const STUDY_ROOT_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";
const COMMITMENT: &str = "1.2.840.10008.1.20.1";
const CONTEXTS: &[(&str, &[&str])] = &[
    (VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (STUDY_ROOT_FIND, &[IMPLICIT_VR_LITTLE_ENDIAN]),
];

/// Planted patient data: a name, an ID, a birth date, an accession number, a description.
const PLANTED: [&str; 5] = ["PLANTEDNAME", "PLANTEDID", "18470203", "PLANTEDACCESSION", "PLANTEDTEXT"];

fn patient(instance: &str) -> DataSet {
    DataSet::default()
        .uid(0x0008, 0x0016, SECONDARY_CAPTURE)
        .uid(0x0008, 0x0018, instance)
        .text(0x0008, 0x0050, "PLANTEDACCESSION")
        .text(0x0008, 0x1030, "PLANTEDTEXT")
        .text(0x0010, 0x0010, "PLANTEDNAME^ANNA")
        .text(0x0010, 0x0020, "PLANTEDID")
        .text(0x0010, 0x0030, "18470203")
}

fn whole(instance: &str) -> DataSet {
    patient(instance).uid(0x0020, 0x000D, "1.2.3").uid(0x0020, 0x000E, "1.2.3.4")
}

/// Error Comments that a node has sent.
#[derive(Default)]
struct Comments(Vec<String>);

impl Comments {
    /// Receives the next message and records its comment.
    fn receive(&mut self, peer: &mut ScriptedPeer) -> Received {
        let message = peer.receive_message();
        self.0.extend(message.command.optional_text(tags::ERROR_COMMENT).unwrap().map(str::to_owned));
        message
    }
}

/// Builds an archive whose directories have the names of patients. Some files that the index knows
/// are gone or have changed.
fn archive_of_patients(place: &Place) {
    let directory = place.path("archive/PLANTEDNAME^ANNA 18470203");
    fs::create_dir_all(&directory).unwrap();
    for number in 1..=2 {
        let file = objects::file("PLANTEDID", "1.2.9", "1.2.9.1", &format!("1.2.9.1.{number}"));
        fs::write(directory.join(format!("PLANTEDID {number}.dcm")), file).unwrap();
    }
    place.run(["scan", "archive"]).expect(0);
    fs::remove_file(directory.join("PLANTEDID 1.dcm")).unwrap();
    fs::write(directory.join("PLANTEDID 2.dcm"), objects::file("PLANTEDID", "1.2.9", "1.2.9.1", "1.2.9.1.3")).unwrap();
}

/// Retrieves the files, also to an unknown destination, and requests their commitment.
fn ask_for_files_that_are_gone(address: SocketAddr, comments: &mut Comments) {
    let implicit: &[&str] = &[IMPLICIT_VR_LITTLE_ENDIAN];
    let mut association = request(&[
        (STUDY_ROOT_GET, implicit),
        (STUDY_ROOT_MOVE, implicit),
        (COMMITMENT, implicit),
        (objects::SOP_CLASS, &[EXPLICIT_VR_LITTLE_ENDIAN]),
    ]);
    let roles = RequestorRoles { scu: false, scp: true };
    association.user_variables.push(UserVariableItem::ScuScpRoleSelectionSubItem(objects::SOP_CLASS.into(), roles));
    let mut peer = ScriptedPeer::connect(address);
    peer.associate(&association);
    let study = DataSet::default().text(0x0008, 0x0052, "STUDY").uid(0x0020, 0x000D, "1.2.9");
    let by_name = DataSet::default().text(0x0008, 0x0052, "STUDY").uid(0x0020, 0x000D, "PLANTEDNAME*");
    for (identifier, status) in [(study.clone(), 0xA702), (by_name, 0xA900)] {
        peer.send_message(1, &retrieve_command(1, STUDY_ROOT_GET, None), Some(&identifier.0));
        let last = std::iter::repeat_with(|| comments.receive(&mut peer).status()).find(|status| *status != 0xFF00);
        assert_eq!(last, Some(status));
    }
    peer.send_message(3, &retrieve_command(1, STUDY_ROOT_MOVE, Some("PLANTEDNAME")), Some(&study.0));
    assert_eq!(comments.receive(&mut peer).status(), 0xA801);
    let mut action = CommandSet::new();
    action.set_uid(tags::REQUESTED_SOP_CLASS_UID, COMMITMENT);
    action.set_unsigned_short(tags::COMMAND_FIELD, CommandField::N_ACTION_RQ.0);
    action.set_unsigned_short(tags::MESSAGE_ID, 5);
    action.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::DATA_SET_PRESENT);
    action.set_uid(tags::REQUESTED_SOP_INSTANCE_UID, "1.2.840.10008.1.20.1.1");
    action.set_unsigned_short(tags::ACTION_TYPE_ID, 1);
    let mut items = DataSet::default();
    for instance in ["1.2.9.1.1", "1.2.9.1.2", "PLANTEDNAME^ANNA"] {
        let item = DataSet::default().uid(0x0008, 0x1150, objects::SOP_CLASS).uid(0x0008, 0x1155, instance);
        items = items.bytes(0xFFFE, 0xE000, &item.0);
    }
    let nothing = DataSet::default().text(0x0008, 0x1195, "1.2.3.77").text(0x0010, 0x0010, "PLANTEDNAME");
    peer.send_message(5, &action, Some(&nothing.0));
    assert_eq!(comments.receive(&mut peer).status(), 0x0115);
    let transaction = DataSet::default().uid(0x0008, 0x1195, "1.2.3.77").bytes(0x0008, 0x1199, &items.0);
    peer.send_message(5, &action, Some(&transaction.0));
    assert_eq!(comments.receive(&mut peer).status(), 0);
    // The report: all was looked at.
    assert_eq!(peer.receive_message().field(), CommandField::N_EVENT_REPORT_RQ);
}

/// Returns everything that a node logs, and the Error Comments that it sends.
fn statuses(filter: &str) -> (String, Comments) {
    let place = Place::new();
    let mut comments = Comments::default();
    archive_of_patients(&place);
    fs::write(place.path("dcmdex.toml"), format!("[log]\nfilter = \"{filter}\"\n")).unwrap();
    let node = Node::start(&place, &[]);
    let address = ([127, 0, 0, 1], node.port).into();
    let mut peer = ScriptedPeer::associated(address, CONTEXTS);
    let stores: Vec<(&str, &str, Vec<u8>)> = vec![
        ("good", "1.1", whole("1.1").0),
        ("again", "1.1", whole("1.1").0),
        ("other content", "1.1", whole("1.1").text(0x0020, 0x4000, "PLANTEDTEXT").0),
        ("no study", "1.2", patient("1.2").0),
        ("another UID", "1.3", whole("1.4").0),
        ("cut", "1.5", whole("1.5").0[..150].to_vec()),
        ("not a data set", "1.6", b"PLANTEDNAME PLANTEDID ".repeat(50)),
        ("a name for a UID", "PLANTEDNAME^ANNA", whole("PLANTEDNAME^ANNA").0),
        (
            "a name for a study",
            "1.7",
            patient("1.7").uid(0x0020, 0x000D, "PLANTEDNAME").uid(0x0020, 0x000E, "PLANTEDID").0,
        ),
        (
            "bad value length",
            "1.8",
            whole("1.8").header(0x0020, 0x4000, 0xFFFF_FFF0).text(0x0020, 0x4000, "PLANTEDTEXT").0,
        ),
    ];
    for (_, instance, data_set) in &stores {
        peer.send_message(3, &store_command(1, SECONDARY_CAPTURE, instance), Some(data_set));
        comments.receive(&mut peer);
    }
    let finds = [
        DataSet::default().text(0x0008, 0x0052, "STUDY").text(0x0010, 0x0010, "PLANTEDNAME*").text(
            0x0010,
            0x0020,
            "PLANTEDID",
        ),
        DataSet::default().text(0x0008, 0x0052, "PLANTEDTEXT").text(0x0010, 0x0010, "PLANTEDNAME"),
        DataSet::default().text(0x0010, 0x0010, "PLANTEDNAME"),
        DataSet::default().text(0x0008, 0x0020, "18470203-PLANTEDTEXT").text(0x0008, 0x0052, "STUDY"),
        DataSet::default().text(0x0008, 0x0005, "PLANTEDTEXT").text(0x0008, 0x0052, "STUDY").text(
            0x0010,
            0x0010,
            "PLANTEDNAME\u{e4}",
        ),
        DataSet(b"PLANTEDNAME PLANTEDID ".repeat(5)),
    ];
    for identifier in &finds {
        peer.send_message(5, &find_command(1, STUDY_ROOT_FIND), Some(&identifier.0));
        while matches!(comments.receive(&mut peer).status(), 0xFF00 | 0xFF01) {}
    }
    peer.send_message(5, &cancel_command(1), None);
    // A response from a peer, an unknown command, a text as a UID of a class: each ends or refuses
    // with a text of ours.
    peer.send_message(3, &store_command(1, "PLANTEDNAME", "PLANTEDID"), Some(&whole("1.9").0));
    comments.receive(&mut peer);
    peer.send(b"PLANTEDNAME");
    peer.shut_down_sending();
    while peer.receive().is_some() {}
    // When the disk fails, in the middle.
    let mut peer = ScriptedPeer::associated(address, CONTEXTS);
    fs::remove_dir_all(place.path("dcmdex-data/objects/.incoming")).unwrap();
    peer.send_message(3, &store_command(1, SECONDARY_CAPTURE, "1.10"), Some(&whole("1.10").0));
    assert_eq!(comments.receive(&mut peer).status(), 0xA700);
    peer.release();
    ask_for_files_that_are_gone(address, &mut comments);
    let (code, log) = node.stop(rustix::process::Signal::TERM);
    assert_eq!(code, Some(0));
    (log.join("\n"), comments)
}

/// Asserts that the lines have no planted text.
#[track_caller]
fn assert_no_patient<'a>(what: &str, lines: impl Iterator<Item = &'a str>) {
    let found: Vec<_> = lines.filter(|line| PLANTED.iter().any(|planted| line.contains(planted))).collect();
    assert!(found.is_empty(), "{what}: {found:#?}");
}

#[test]
fn the_log_has_a_line_for_each_association_and_no_patient() {
    for filter in ["info", "trace"] {
        let (log, comments) = statuses(filter);
        assert_no_patient(filter, log.lines());
        assert!(comments.0.len() > 12, "{:#?}", comments.0);
        assert_no_patient("Error Comments", comments.0.iter().map(String::as_str));
        // Who looks for the reason finds it, by the UID.
        for said in ["an object cannot be had from where the index says", "an object cannot be committed"] {
            let lines: Vec<_> = log.lines().filter(|line| line.contains(said)).collect();
            assert_eq!(lines.iter().any(|line| line.contains("1.2.9.1.1")), filter == "trace", "{lines:#?}");
        }
    }
    let (log, _) = statuses("info");
    let ended: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| {
            line["message"].as_str().is_some_and(|it| it.starts_with("association ended"))
        })
        .collect();
    let [first, second, _] = &ended[..] else { panic!("{log}") };
    assert_eq!((first["span"]["peer.ae"].as_str(), second["called_ae"].as_str()), (Some("SCRIPT"), Some("DCMDEX")));
    assert!(first["span"]["peer.addr"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(first["received_bytes"].as_u64().unwrap() > 3_000 && first["sent_bytes"].as_u64().unwrap() > 1_000);
    assert!(first["elapsed_ms"].is_u64());
    assert!(first["answered"].as_str().unwrap().contains(" x C-STORE-RSP 0000"), "{first}");
    assert!(second["answered"].as_str().unwrap().contains("1 x C-STORE-RSP A700"), "{second}");
}

/// Requests over HTTP, with patient data in each place that a client can put it.
fn requests_with_patients() -> Vec<Vec<u8>> {
    const HOSTILE_VALUE: &str = "PLANTEDNAME^ANNA%20PLANTEDID";
    let get = |target: &str, more: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n").into_bytes()
    };
    let mut requests: Vec<Vec<u8>> = Vec::new();
    for resource in ["/dicom-web/studies", "/dicom-web/instances", "/dicom-web/nowhere", "/"] {
        for parameter in
            ["PatientName", "PatientID", "00100030", "StudyDate", "limit", "includefield", "q", "PLANTEDNAME", "accept"]
        {
            requests.push(get(&format!("{resource}?{parameter}={HOSTILE_VALUE}"), ""));
        }
    }
    for template in dcmdex::web::METHODS_OF_RESOURCES.iter().map(|resource| resource.template) {
        requests.push(get(&template.replace(['{', '}', '*'], "PLANTEDNAME"), ""));
    }
    let names = [
        "Accept",
        "Authorization",
        "Cookie",
        "Content-Type",
        "If-None-Match",
        "Origin",
        "PLANTEDNAME",
        "Range",
        "Referer",
        "User-Agent",
        "X-Forwarded-Host",
        "Forwarded",
        "Remote-User",
    ];
    for name in names {
        for value in
            ["PLANTEDNAME^ANNA", "Basic UExBTlRFRE5BTUU6UExBTlRFRElE", "Bearer PLANTEDID", "https://PLANTEDNAME"]
        {
            requests.push(get("/dicom-web/studies", &format!("{name}: {value}\r\n")));
        }
    }
    // Broken in each part.
    for broken in [
        "PLANTEDNAME /PLANTEDID HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /dicom-web/studies?PatientName=PLANTEDNAME PLANTEDID HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /dicom-web/studies HTTP/1.1\r\nHost: PLANTEDNAME\r\n\r\n",
        "GET /dicom-web/studies HTTP/1.1\r\nHost: PLANTEDNAME\r\nHost: PLANTEDID\r\n\r\n",
        "GET /dicom-web/studies HTTP/1.1\r\nPLANTEDNAME\r\n\r\n",
        "GET http://PLANTEDNAME/PLANTEDID HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PLANTEDNAME",
    ] {
        requests.push(broken.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").into_bytes());
    }
    let sound = objects::file("PLANTEDID", "1.2.8", "1.2.8.1", "1.2.8.1.1");
    let damaged = objects::file("PLANTEDID", "PLANTEDNAME", "PLANTEDNAME^ANNA", "PLANTEDTEXT");
    let bodies: [(&str, &[u8]); 5] = [
        ("application/dicom", &sound),
        ("application/dicom", &damaged),
        ("application/dicom", &sound[..sound.len() - 5]),
        ("application/dicom", b"PLANTEDNAME PLANTEDID"),
        (
            "multipart/related; type=\"application/dicom\"; boundary=b",
            b"--b\r\nPLANTEDNAME: PLANTEDID\r\n\r\nPLANTEDTEXT\r\n--b--",
        ),
    ];
    for (kind, body) in bodies {
        let head = format!(
            "POST /dicom-web/studies?PatientName=PLANTEDNAME HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: {kind}; name=PLANTEDNAME\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        requests.push([head.as_bytes(), body].concat());
    }
    requests.push(get("/dicom-web/studies/1.2.8/metadata", ""));
    requests.push(get("/dicom-web/studies/1.2.9/metadata", ""));
    requests.push(get("/dicom-web/studies/1.2.9", ""));
    requests.push(get("/study/1.2.9", ""));
    requests
}

#[test]
fn the_log_of_http_has_no_target_and_no_value() {
    for filter in ["info", "trace", "trace,dcmdex=trace,h2=trace"] {
        let place = Place::new();
        archive_of_patients(&place);
        fs::write(place.path("dcmdex.toml"), format!("[log]\nfilter = \"{filter}\"\n")).unwrap();
        let node = Node::start(&place, &["--http-port", "0"]);
        let address: SocketAddr = node.listening["http_address"].as_str().unwrap().parse().unwrap();
        for request in requests_with_patients() {
            let mut stream = http::connect(address);
            stream.write_all(&request).unwrap();
            // The node gives up a request whose client is gone.
            if !request.windows(4).any(|window| window == b"\r\n\r\n") {
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let mut answer = Vec::new();
            // A node that refuses a request before it has read it may reset the connection.
            let _ = stream.read_to_end(&mut answer);
        }
        // HTTP/2, with fields that it takes and fields that it does not.
        let mut connection = Connection::open(address, &[]);
        let fields =
            [("PLANTEDNAME", "PLANTEDID"), ("cookie", "PLANTEDNAME"), ("a b", "PLANTEDTEXT"), ("x", "\0PLANTEDID")];
        for (stream, field) in (1..).step_by(2).zip(fields) {
            let target = "/dicom-web/studies?PatientName=PLANTEDNAME PLANTEDID";
            let _ = connection.send(&head(stream, END_STREAM, "PLANTEDNAME", target, &[field]));
            let _ = connection.send(&frame(DATA, 0, stream + 100, b"PLANTEDTEXT"));
        }
        let _ = connection.send(&frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0PLANTEDNAME"));
        while connection.receive().is_some() {}
        let (code, log) = node.stop(rustix::process::Signal::TERM);
        assert_eq!(code, Some(0));
        assert!(filter == "info" || log.iter().any(|line| line.contains("/dicom-web/studies/{study}/metadata")));
        assert_no_patient(filter, log.iter().map(String::as_str));
        assert_no_patient(
            filter,
            log.iter().filter(|line| line.contains("UExBTlRFRE5BTUU6UExBTlRFRElE")).map(|_| "PLANTEDNAME"),
        );
    }
}

#[test]
fn what_tools_say_beside_their_result_names_no_patient() {
    let place = Place::new();
    let archive = place.path("archive");
    fs::create_dir(&archive).unwrap();
    let sound = objects::file("PLANTEDID", "1.2.9", "1.2.9.1", "1.2.9.1.1");
    let other_patient = objects::file("PLANTEDACCESSION", "1.2.9", "1.2.9.1", "1.2.9.1.2");
    let contents: [(&str, Vec<u8>); 8] = [
        ("sound", sound.clone()),
        ("of another patient", other_patient),
        ("other content", objects::file("PLANTEDID 2", "1.2.9", "1.2.9.1", "1.2.9.1.1")),
        ("cut", sound[..sound.len() - 5].to_vec()),
        ("without study", [&sound[..sound.len() / 2], &patient("1.2").0].concat()),
        ("without preamble", whole("1.3").0),
        ("name for a UID", objects::file("PLANTEDID", "PLANTEDNAME", "PLANTEDNAME^ANNA", "PLANTEDTEXT")),
        ("text", b"PLANTEDNAME PLANTEDID ".repeat(50)),
    ];
    for (name, bytes) in &contents {
        fs::write(archive.join(name), bytes).unwrap();
    }
    let say_all = |arguments: &[&str]| run(place.command().args(arguments).arg("-vv"));
    let scanned = say_all(&["scan", "archive"]).expect(1);
    assert_no_patient("report of scan", scanned.stdout.lines());
    fs::write(archive.join("sound"), whole("1.4").0).unwrap();
    let runs = [
        scanned,
        say_all(&["status"]),
        say_all(&["check"]),
        say_all(&["check", "--files"]),
        say_all(&["scan", "archive"]),
    ];
    for run in runs {
        assert!([0, 1].contains(&run.code), "{run:?}");
        assert_no_patient("standard error", run.stderr.lines());
    }
}
