//! The audit trail of a node: its lines, its collector, and what becomes of it in trouble.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use dcmdex::access::users::{Rights, line_with_password};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use super::messages::permit;
use super::serve::Node;
use super::*;
use crate::util::certificates::{Authority, Identity};
use crate::util::http::request;
use crate::util::{objects, peers};

/// Lines of the trail.
fn trail(place: &Place) -> Vec<Value> {
    let text = fs::read_to_string(place.path("audit/audit-00000001.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of<'a>(trail: &'a [Value], event: &str) -> Vec<&'a Value> {
    trail.iter().filter(|line| line["event"] == event).collect()
}

fn configure(place: &Place, more: &str) {
    let text = format!("[audit]\ndirectory = \"audit\"\n{more}\n");
    fs::write(place.path("dcmdex.toml"), text).unwrap();
}

/// Asks over HTTP and by C-FIND, stores and retrieves.
fn use_node(place: &Place, node: &Node) -> bool {
    let (Some(mut store), Some(mut find)) = (peers::dcmtk("storescu"), peers::dcmtk("findscu")) else { return false };
    objects::write(&place.path("object"), 1, 1, 1);
    let port = node.port.to_string();
    peers::run(store.args(["-aet", "CT1", "-aec", "DCMDEX", "127.0.0.1", &port]).arg(place.path("object")))
        .expect_success();
    let arguments = ["-S", "-aet", "WS7", "-aec", "DCMDEX", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=P*"];
    peers::run(find.args(arguments).args(["-k", "StudyInstanceUID", "127.0.0.1", &port])).expect_success();
    let web = node.listening["http_address"].as_str().unwrap().parse().unwrap();
    request(web, "GET", "/dicom-web/studies?PatientName=Secret%20Name", &[], b"").expect(204);
    true
}

#[test]
fn the_trail_says_who_asked_for_what_and_the_log_does_not() {
    let place = Place::new();
    configure(&place, "[log]\nfilter = \"trace\"");
    let node = Node::start(&place, &["--http-port", "0"]);
    if !use_node(&place, &node) {
        return;
    }
    // Another title of the node is refused.
    let wrong = peers::run(peers::dcmtk("echoscu").unwrap().args([
        "-aet",
        "STRANGER",
        "-aec",
        "OTHER",
        "127.0.0.1",
        &node.port.to_string(),
    ]));
    assert!(!wrong.status.success());
    let (code, log) = node.stop(Signal::TERM);
    assert_eq!(code, Some(0));
    let lines = trail(&place);
    assert_eq!(lines.first().unwrap()["event"], "start");
    assert_eq!(lines.last().unwrap()["event"], "stop");
    let [stored] = of(&lines, "stored").try_into().unwrap();
    assert_eq!((&stored["by"]["name"], &stored["by"]["address"]), (&"CT1".into(), &"127.0.0.1".into()));
    let study = &stored["studies"][0];
    assert!(study["study_instance_uid"].as_str().unwrap().starts_with("1.") && study["patient_id"] != "", "{stored}");
    assert_eq!(study["instances"].as_object().unwrap().values().collect::<Vec<_>>(), [1]);
    let [find, qido] = of(&lines, "query").try_into().unwrap();
    assert_eq!((&find["by"]["name"], &find["service"]), (&"WS7".into(), &"C-FIND".into()));
    assert_eq!(find["query"]["keys"], serde_json::json!(["QueryRetrieveLevel=STUDY", "PatientID=P*"]));
    // PS3.15 A.5.3.10: the data set of the query, with keys that have no value.
    let syntax = find["query"]["transfer_syntax"].as_str().unwrap();
    let data_set = data_encoding::BASE64.decode(find["query"]["data_set"].as_str().unwrap().as_bytes()).unwrap();
    assert!(syntax.starts_with("1.2.840.10008.1.2"), "{syntax}");
    let study_instance_uid = [0x20, 0, 0x0D, 0];
    assert!(
        data_set.windows(2).any(|bytes| bytes == b"P*") && data_set.windows(4).any(|bytes| bytes == study_instance_uid)
    );
    assert_eq!((&qido["service"], &qido["query"]["keys"][0]), (&"QIDO-RS".into(), &"PatientName=Secret Name".into()));
    let [refused] = of(&lines, "authentication-failed").try_into().unwrap();
    assert_eq!((&refused["by"]["name"], &refused["outcome"]), (&"STRANGER".into(), &"minor-failure".into()));
    assert!(log.iter().all(|line| !line.contains("Secret") && !line.contains("P*")), "{log:#?}");
    let mode = |path: &str| fs::metadata(place.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("audit"), mode("audit/audit-00000001.jsonl")), (0o700, 0o600));
}

#[test]
fn a_wrong_password_is_told_with_the_name_that_was_claimed() {
    let place = Place::new();
    fs::write(place.path("users"), line_with_password("anna", Rights::READ, "secret").unwrap()).unwrap();
    permit(&place.path("users"), 0o600);
    configure(&place, "[http]\nusers = \"users\"");
    let mut node = Node::start(&place, &["--http-port", "0"]);
    let web = node.listening["http_address"].as_str().unwrap().parse().unwrap();
    request(web, "GET", "/dicom-web/studies", &[], b"").expect(401);
    for credentials in ["anna:wrong", "bob:secret"] {
        let basic = format!("Basic {}", data_encoding::BASE64.encode(credentials.as_bytes()));
        request(web, "GET", "/dicom-web/studies", &[("Authorization", &basic)], b"").expect(401);
    }
    let line = node.wait_for("a request over HTTP was denied");
    assert_eq!((&line["level"], &line["peer.addr"]), (&"INFO".into(), &"127.0.0.1".into()));
    assert!(!line.to_string().contains("anna"), "a text that stands for a name may be a password");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let lines = trail(&place);
    let told = of(&lines, "authentication-failed").into_iter().map(|line| [&line["by"]["name"], &line["reason"]]);
    let wrong = "wrong name or password";
    let expected = [["", "HTTP status 401"], ["anna", wrong], ["bob", wrong]];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[test]
fn what_goes_out_is_told_by_patients_and_sop_classes() {
    let place = Place::new();
    configure(&place, "");
    fs::create_dir(place.path("archive")).unwrap();
    for (file, patient, study) in [("1", "PA", "1.2.1"), ("2", "PA", "1.2.1"), ("3", "PB", "1.2.2")] {
        let object = objects::file(patient, study, &format!("{study}.1"), &format!("{study}.1.{file}"));
        fs::write(place.path(format!("archive/{file}.dcm")), object).unwrap();
    }
    let node = Node::start(&place, &["--http-port", "0"]);
    let (Some(mut store), Some(mut get)) = (peers::dcmtk("storescu"), peers::dcmtk("getscu")) else { return };
    let port = node.port.to_string();
    let files = ["1", "2", "3"].map(|file| place.path(format!("archive/{file}.dcm")));
    peers::run(store.args(["-aet", "CT1", "-aec", "DCMDEX", "127.0.0.1", &port]).args(files)).expect_success();
    fs::create_dir(place.path("got")).unwrap();
    let keys = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.1\\1.2.2\\1.2.3"];
    let to = ["-aet", "WS7", "-aec", "DCMDEX", "127.0.0.1", &port];
    peers::run(get.args(["-od", place.path("got").to_str().unwrap()]).args(keys).args(to)).expect_success();
    let web = node.listening["http_address"].as_str().unwrap().parse().unwrap();
    let of_web = |path: &str| request(web, "GET", &format!("/dicom-web/{path}"), &[], b"");
    of_web("studies/1.2.1").expect(200);
    of_web("studies/1.2.1/metadata").expect(200);
    of_web("studies/1.2.1/metadata").expect(200);
    of_web("studies/1.2.99").expect(404);
    of_web("studies?PatientID=PA&includefield=all").expect(200);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let lines = trail(&place);
    let told = |line: &Value| {
        let studies = line["studies"].as_array().cloned().unwrap_or_default();
        let of = |study: &Value| {
            let text = |name: &str| study[name].as_str().unwrap().to_owned();
            (text("patient_id"), text("study_instance_uid"), study["instances"][objects::SOP_CLASS].as_u64())
        };
        (line["service"].as_str().unwrap().to_owned(), studies.iter().map(of).collect::<Vec<_>>())
    };
    let all = |event: &str| of(&lines, event).into_iter().map(told).collect::<Vec<_>>();
    let one = |patient: &str, study: &str, count| vec![(patient.to_owned(), study.to_owned(), Some(count))];
    let (first, second) = (one("PA", "1.2.1", 2), one("PB", "1.2.2", 1));
    let by = |service: &str, studies: &Vec<_>| (service.to_owned(), studies.clone());
    assert_eq!(all("stored"), [by("C-STORE", &first), by("C-STORE", &second)]);
    let expected = [
        by("C-GET", &first),
        by("C-GET", &second),
        by("WADO-RS", &first),
        by("WADO-RS", &first),
        by("WADO-RS", &first),
    ];
    let retrieved = all("retrieved");
    assert_eq!(retrieved[..5], expected);
    assert_eq!(retrieved[5..], [by("WADO-RS", &Vec::new())], "an unknown study is nobody's");
    assert_eq!(of(&lines, "retrieved")[0]["studies"][0]["patient_name"], "Test^Person");
    let qido = of(&lines, "query")[0];
    assert_eq!(qido["query"]["target"], "/dicom-web/studies?PatientID=PA&includefield=all");
    assert!(qido["query"].get("sop_class_uid").is_none(), "{qido}");
}

/// A collector with TLS. It gives each message that comes, and ends when its connection does.
fn collect(listener: TcpListener, identity: &Identity) -> Receiver<String> {
    let chain = CertificateDer::pem_file_iter(&identity.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let (sender, messages) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut reader = BufReader::new(StreamOwned::new(connection, stream.unwrap()));
            loop {
                let mut length = Vec::new();
                // The node may end its connection without saying so to TLS.
                if reader.read_until(b' ', &mut length).unwrap_or(0) == 0 {
                    break;
                }
                let length: usize = String::from_utf8(length).unwrap().trim_end().parse().unwrap();
                let mut message = vec![0; length];
                reader.read_exact(&mut message).unwrap();
                if sender.send(String::from_utf8(message).unwrap()).is_err() {
                    return;
                }
            }
        }
    });
    messages
}

#[test]
fn a_collector_that_was_away_gets_everything_as_xml_over_tls() {
    let place = Place::new();
    let authority = Authority::new("Syslog CA");
    let identity = authority.identity("siem");
    let port = peers::free_port();
    let authorities = authority.file();
    configure(
        &place,
        &format!("collector = \"tls://127.0.0.1:{port}\"\nauthorities = {:?}", authorities.to_str().unwrap()),
    );
    // Nobody collects. The node works all the same, and says so once.
    let mut node = Node::start(&place, &["--http-port", "0"]);
    node.wait_for("the audit trail cannot be sent");
    if !use_node(&place, &node) {
        return;
    }
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let events = trail(&place).len();
    assert!(events >= 5, "{events}");
    // A second process sends what the first one could not.
    let messages = collect(TcpListener::bind(("127.0.0.1", port)).unwrap(), &identity);
    let node = Node::start(&place, &["--http-port", "0"]);
    let mut xml = Vec::new();
    while xml.len() < events {
        let message = messages.recv().unwrap();
        let (head, body) = message.split_once('\u{FEFF}').unwrap();
        let fields: Vec<_> = head.split(' ').collect();
        assert_eq!((fields[0], fields[3], fields[5], fields[6]), ("<85>1", "dcmdex", "DICOM+RFC3881", "-"), "{head}");
        xml.push(body.to_owned());
    }
    let codes: BTreeSet<&str> =
        xml.iter().filter_map(|xml| xml.split("EventID csd-code=\"").nth(1)?.split('"').next()).collect();
    assert_eq!(codes, BTreeSet::from(["110100", "110104", "110112"]));
    if let Some(mut python) = peers::python_peer("audit_messages.py") {
        fs::write(place.path("messages"), xml.join("\n")).unwrap();
        peers::run(python.arg(place.path("messages"))).expect_success();
    }
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_trail_that_cannot_be_kept_is_told_before_the_node_serves() {
    let place = Place::new();
    let refused = |text: &str| {
        fs::write(place.path("dcmdex.toml"), text).unwrap();
        place.run(["serve", "--port", "0"]).expect(2).stderr
    };
    let why = refused("[audit]\ncollector = \"tls://siem:6514\"\n");
    assert!(why.contains("it needs `audit.directory`"), "{why}");
    let why = refused("[audit]\ndirectory = \"a\"\ncollector = \"siem:6514\"\n");
    assert!(why.contains("it is tls://HOST:PORT or tcp://HOST:PORT"), "{why}");
    let why = refused("[audit]\ndirectory = \"a\"\ncollector = \"tls://siem\"\n");
    assert!(why.contains("it is needed for a collector with TLS"), "{why}");
    fs::write(place.path("a"), "").unwrap();
    let why = refused("[audit]\ndirectory = \"a\"\n");
    assert!(why.contains("the directory of the audit trail") && why.contains("is a file, not a directory"), "{why}");
}

#[test]
fn what_commands_delete_and_give_away_is_in_the_trail_before_it_is_done() {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    objects::write(&place.path("archive/object"), 1, 1, 1);
    place.run(["scan", "archive"]).expect(0);
    configure(&place, "");
    place.run(["export", "--level", "STUDY", "--out", "studies.csv"]).expect(0);
    place.run(["copy", "Modality=*", "--to", "cohort"]).expect(0);
    // What only says what it would do leaves no line.
    place.run(["remove", "PatientID=*"]).expect(0);
    place.run(["remove", "PatientID=*", "--yes"]).expect(0);
    place.run(["remove", "--undo", "1", "--yes"]).expect(0);
    place.run(["relocate", "archive", "elsewhere", "--unseen", "--dry-run"]).expect(0);
    place.run(["relocate", "archive", "elsewhere", "--unseen"]).expect(0);
    place.run(["relocate", "elsewhere", "archive"]).expect(0);
    place.run(["backup", "kept.db"]).expect(0);
    place.run(["restore", "kept.db"]).expect(0);
    place.run(["restore", "kept.db", "--yes"]).expect(0);
    let trail = trail(&place);
    let services: Vec<_> = trail.iter().map(|line| line["service"].as_str().unwrap()).collect();
    assert_eq!(services, ["export", "copy", "remove", "remove --undo", "relocate", "relocate", "backup", "restore"]);
    let exported = of(&trail, "exported");
    for (line, to) in [(exported[0], "studies.csv"), (exported[1], "cohort"), (exported[2], "kept.db")] {
        assert_eq!(line["to"]["name"], place.path(to).display().to_string(), "a path that can be found later");
    }
    assert_eq!(exported[1]["query"]["keys"], serde_json::json!(["Modality=*"]));
    for line in &exported[..2] {
        assert_eq!(
            (&line["studies"][0]["study_instance_uid"], &line["studies"][0]["patient_id"]),
            (&"1.2.1".into(), &"P1".into())
        );
    }
    assert_eq!(exported[1]["studies"][0]["instances"], serde_json::json!({ objects::SOP_CLASS: 1 }));
    let [moved, back, restored] = of(&trail, "maintained").try_into().unwrap();
    let path = |inside| place.path(inside).display().to_string();
    let paths = |old, new| serde_json::json!([format!("old={}", path(old)), format!("new={}", path(new))]);
    assert_eq!(moved["query"]["keys"], paths("archive", "elsewhere"));
    assert_eq!(back["query"]["keys"], paths("elsewhere", "archive"));
    assert_eq!(restored["query"]["keys"], serde_json::json!([format!("backup={}", path("kept.db"))]));
    let deleted = &of(&trail, "deleted")[0];
    assert!(deleted["query"]["keys"].as_array().is_some_and(|keys| !keys.is_empty()), "{deleted}");
    assert!(deleted["by"]["name"].as_str().unwrap().starts_with("uid "), "{deleted}");
    let study = &deleted["studies"][0];
    assert!(!study["study_instance_uid"].as_str().unwrap().is_empty() && study["patient_id"].is_string(), "{deleted}");

    // A trail that cannot be written stops the command before it does anything.
    fs::write(place.path("dcmdex.toml"), "[audit]\ndirectory = \"archive/object/audit\"\n").unwrap();
    let refused = place.run(["remove", "PatientID=*", "--yes"]).expect(2);
    assert!(refused.stderr.contains("audit trail"), "{}", refused.stderr);
    assert_eq!(place.run(["find", "--level", "STUDY", "--count"]).expect(0).stdout.trim(), "1");
}
