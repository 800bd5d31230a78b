//! The audit trail of a node: its lines, its collector, and what becomes of it in trouble.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

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
    assert_eq!((&qido["service"], &qido["query"]["keys"][0]), (&"QIDO-RS".into(), &"PatientName=Secret Name".into()));
    let [refused] = of(&lines, "authentication-failed").try_into().unwrap();
    assert_eq!((&refused["by"]["name"], &refused["outcome"]), (&"STRANGER".into(), &"minor-failure".into()));
    assert!(log.iter().all(|line| !line.contains("Secret") && !line.contains("P*")), "{log:#?}");
    let mode = |path: &str| fs::metadata(place.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("audit"), mode("audit/audit-00000001.jsonl")), (0o700, 0o600));
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
    assert!(why.contains("the directory of the audit trail") && why.contains("cannot be written"), "{why}");
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
    assert_eq!(exported[0]["to"]["name"], "studies.csv");
    assert_eq!(exported[1]["query"]["keys"], serde_json::json!(["Modality=*"]));
    let [moved, back, restored] = of(&trail, "maintained").try_into().unwrap();
    let path = |inside| place.path(inside).display().to_string();
    let paths = |old, new| serde_json::json!([format!("old={}", path(old)), format!("new={}", path(new))]);
    assert_eq!(moved["query"]["keys"], paths("archive", "elsewhere"));
    assert_eq!(back["query"]["keys"], paths("elsewhere", "archive"));
    assert_eq!(restored["query"]["keys"], serde_json::json!(["backup=kept.db"]));
    let deleted = &of(&trail, "deleted")[0];
    assert!(deleted["by"]["name"].as_str().unwrap().starts_with("uid "), "{deleted}");
    let study = &deleted["studies"][0];
    assert!(!study["study_instance_uid"].as_str().unwrap().is_empty() && study["patient_id"].is_string(), "{deleted}");

    // A trail that cannot be written stops the command before it does anything.
    fs::write(place.path("dcmdex.toml"), "[audit]\ndirectory = \"archive/object/audit\"\n").unwrap();
    let refused = place.run(["remove", "PatientID=*", "--yes"]).expect(2);
    assert!(refused.stderr.contains("audit trail"), "{}", refused.stderr);
    assert_eq!(place.run(["find", "--level", "STUDY", "--count"]).expect(0).stdout.trim(), "1");
}
