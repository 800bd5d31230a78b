//! The worklist of a node as a process: folder, HL7, and what a kill leaves.

use std::fs;
use std::io::{Read as _, Write as _};

use rustix::process::Signal;

use super::serve::Node;
use super::*;
use crate::util::certificates::{Authority, Identity};
use crate::util::peers;
use crate::util::scripted::connected;

pub(super) const SETTINGS: &str = "index = \"index.db\"\nstorage = \"objects\"\n[worklist]\nenabled = true\n\
     hl7 = \"127.0.0.1:0\"\nfolder = \"wl\"\nstations = [\"CT=CT1\"]\n";

pub(crate) fn start(place: &Place) -> (Node, String) {
    start_with(place, &mut place.command())
}

fn start_with(place: &Place, command: &mut Command) -> (Node, String) {
    fs::create_dir_all(place.path("wl")).unwrap();
    fs::write(place.path("dcmdex.toml"), SETTINGS).unwrap();
    let node = Node::start_with(command.args(["serve", "--port", "0"]));
    let hl7 = hl7_address(&node);
    (node, hl7)
}

fn hl7_address(node: &Node) -> String {
    let mut lines = node.at_start.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let hl7 = lines.find(|line| line["message"] == "taking HL7 messages").unwrap();
    hl7["address"].as_str().unwrap().to_owned()
}

pub(crate) fn order(number: u32) -> String {
    format!(
        "MSH|^~\\&|RIS|SITE|||20261129100000||ORM^O01|{number}|P|2.3.1\rPID|||P{number}||Doe^Jane\rORC|NW|{number}\r\
         OBR|1|||X^Head||||||||||||||A{number}||||||CT\r"
    )
}

pub(crate) fn send(address: &str, message: &str) -> String {
    crate::worklist::hl7::send(&mut connected(address), message)
}

/// A node whose HL7 port and HTTP port want TLS.
fn start_with_tls(place: &Place, authority: &Authority) -> (Node, String) {
    fs::create_dir_all(place.path("wl")).unwrap();
    let Identity { certificate, key } = authority.identity("NODE");
    let tls = format!(
        "hl7_tls = true\n[http]\nenabled = true\nport = 0\ntls = true\n[tls]\nport = 0\n\
         certificate = {certificate:?}\nkey = {key:?}\nauthorities = {:?}\n",
        authority.file()
    );
    fs::write(place.path("dcmdex.toml"), format!("{SETTINGS}{tls}")).unwrap();
    let node = Node::start(place, &[]);
    let hl7 = hl7_address(&node);
    (node, hl7)
}

#[test]
fn the_log_says_why_a_sender_does_not_get_through_tls() {
    let (authority, place) = (Authority::new("ours"), Place::new());
    let (mut node, hl7) = start_with_tls(&place, &authority);
    let http = node.listening["http_address"].as_str().unwrap().to_owned();
    for (address, what) in [(hl7, "no HL7 messages"), (http, "no HTTP")] {
        let mut plain = connected(&address);
        plain.write_all(format!("\x0B{}\x1C\r", order(1)).as_bytes()).unwrap();
        let line = node.wait_for(&format!("{what}: TLS handshake failed: "));
        assert!(line["message"].as_str().unwrap().contains("the peer does not speak TLS"), "{line}");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["peer.addr"], "127.0.0.1");
    }
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_sender_that_is_refused_again_and_again_does_not_fill_the_log() {
    let place = Place::new();
    fs::create_dir_all(place.path("wl")).unwrap();
    fs::write(place.path("dcmdex.toml"), format!("{SETTINGS}hl7_senders = [\"10.0.0.0/8\"]\n")).unwrap();
    let node = Node::start(&place, &[]);
    let hl7 = hl7_address(&node);
    for _ in 0..40 {
        assert_eq!(connected(&hl7).read(&mut [0]).unwrap_or(0), 0);
    }
    let (code, log) = node.stop(Signal::TERM);
    assert_eq!(code, Some(0));
    assert_eq!(log.iter().filter(|line| line.contains("connection for HL7 refused")).count(), 10);
    assert!(log.iter().any(|line| line.contains("30 more not logged")), "{log:#?}");
}

fn an_order_that_was_acknowledged_is_there_after_a_kill(place: Place) {
    let (node, hl7) = start(&place);
    for number in 1..=5 {
        assert!(send(&hl7, &order(number)).contains(&format!("MSA|AA|{number}\r")));
    }
    node.kill();
    let list = place.run(["worklist", "list", "--json"]).expect(0).stdout;
    assert_eq!(list.lines().count(), 5, "{list}");
    assert!(list.contains("\"accession_number\":\"A5\""), "{list}");
    let checked = place.run(["check"]).expect(0).stdout;
    assert!(checked.contains("worklist: 5 scheduled\n"), "{checked}");
    let (node, _) = start(&place);
    let Some(said) = asked(&node, "ScheduledProcedureStepSequence[0].Modality=CT") else { return };
    assert!((1..=5).all(|number| said.contains(&format!("[A{number}"))), "{said}");
}

/// What findscu says of items that match this key.
fn asked(node: &Node, key: &str) -> Option<String> {
    let keys = ["-W", "-v", "-aec", "DCMDEX", "-k", "AccessionNumber", "-k", "StudyInstanceUID", "-k", "PatientName"];
    let port = node.port.to_string();
    let mut findscu = peers::dcmtk("findscu")?;
    Some(peers::run(findscu.args(keys).args(["-k", key, "127.0.0.1", &port])).expect_success())
}

#[test]
fn items_are_part_of_a_backup_and_of_the_check() {
    let place = Place::new();
    let (node, hl7) = start(&place);
    assert!(send(&hl7, &order(1)).contains("MSA|AA"));
    place.run(["backup", "saved.db"]).expect(0);
    assert!(send(&hl7, &order(2)).contains("MSA|AA"));
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    place.run(["restore", "saved.db", "--yes"]).expect(0);
    let list = place.run(["worklist", "list", "--json"]).expect(0).json();
    assert_eq!(list.iter().map(|item| item["accession_number"].clone()).collect::<Vec<_>>(), ["A1"]);
    let summary = place.run(["check", "--json"]).expect(0).json().remove(0);
    super::scan::assert_documented("check summary", &summary);
    assert_eq!(summary["worklist"], serde_json::json!({ "scheduled": 1 }));
    let change = |sql: &str| {
        let index = place.path("index.db").display().to_string();
        let done = Command::new("sqlite3").args([&index, sql]).status();
        assert!(done.expect("the sqlite3 shell is installed by scripts/peers").success());
    };
    change("UPDATE worklist_item SET patient_id = 'OTHER'; INSERT INTO worklist_asked VALUES (99, 'CT1', 0)");
    let found = place.run(["check"]).expect(1).stdout;
    assert!(found.contains("columns of worklist items: item 1\n"), "{found}");
    assert!(found.contains("references of the worklist: who asked for item 99"), "{found}");
    change("DELETE FROM worklist_asked; UPDATE worklist_item SET item = '{', source = 9");
    let found = place.run(["check"]).expect(1).stdout;
    assert!(found.contains("worklist items: item 1: it is no JSON\n"), "{found}");
}

#[test]
fn start_times_are_in_the_time_zone_of_the_node() {
    let place = Place::new();
    let (_node, hl7) = start_with(&place, place.command().env("TZ", "Asia/Tokyo"));
    let order = order(1).replace("||||||CT", "||||||CT|||^^^20261129200000+0000");
    assert!(send(&hl7, &order).contains("MSA|AA"));
    let list = place.run(["worklist", "list", "--json"]).expect(0).json();
    assert_eq!((&list[0]["start_date"], &list[0]["start_time"]), (&"20261130".into(), &"050000".into()), "{list:?}");
}

#[test]
fn which_message_is_newer_is_told_when_the_clock_of_the_node_goes_back() {
    let place = Place::new();
    let (_node, hl7) = start_with(&place, place.command().env("TZ", "Europe/Berlin"));
    for (number, (first, second, is_taken)) in (1..).zip([
        ("20261025025900+0200", "20261025020100+0100", true),
        ("20261025020100+0100", "20261025025900+0200", false),
        // Without an offset, nobody can tell which of the two hours it was.
        ("20261025025900", "20261025020100", true),
        ("20261025020100", "20261025015900", false),
        ("20261025033000", "20261025022900+0100", false),
        ("20261025033000", "20261025023000+0000", true),
    ]) {
        let ordered = |time: &str, name: &str| order(number).replace("20261129100000", time).replace("Doe^Jane", name);
        assert!(send(&hl7, &ordered(first, "First^N")).contains("MSA|AA"));
        assert!(send(&hl7, &ordered(second, "Second^N").replace("ORC|NW", "ORC|XO")).contains("MSA|AA"));
        let list = place.run(["worklist", "list", "--json"]).expect(0).json();
        let item = list.iter().find(|item| item["accession_number"] == format!("A{number}")).unwrap();
        let expected = if is_taken { "Second^N" } else { "First^N" };
        assert_eq!(item["patient_name"], expected, "{first}, then {second}");
    }
}

fn a_reload_changes_senders_stations_and_mapping(place: Place) {
    let (mut node, hl7) = start(&place);
    assert!(send(&hl7, &order(1)).contains("MSA|AA"));
    let mut reload = |more: &str| {
        let settings = SETTINGS.replace("[\"CT=CT1\"]", "[\"US=US9\"]") + more;
        fs::write(place.path("dcmdex.toml"), settings).unwrap();
        node.signal(Signal::HUP);
        node.wait_for("peers and certificates read again");
    };
    reload("hl7_map = [\"modality = OBR-21\"]\n");
    assert!(send(&hl7, &order(2).replace("||||||CT", "|||US|||CT")).contains("MSA|AA"));
    let list = place.run(["worklist", "list", "--json"]).expect(0).json();
    let second = list.iter().find(|item| item["accession_number"] == "A2").unwrap();
    assert_eq!((&second["modality"], &second["station_ae_title"]), (&"US".into(), &"US9".into()), "{second}");
    reload("hl7_senders = [\"10.0.0.0/8\"]\n");
    let mut stream = connected(&hl7);
    let _closed = stream.write_all(b"\x0BMSH|");
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "the address may not send any more");
    let log = node.stop(Signal::TERM).1;
    assert!(!log.iter().any(|line| line.contains("does not take over")), "{log:?}");
}

/// A worklist file as users of wlmscpfs have them.
const DUMP: &str = "(0008,0005) CS ISO_IR 100\n(0008,0050) SH W1\n(0010,0010) PN File^Frieda\n(0010,0020) LO PW1\n\
     (0020,000d) UI 1.2.3.4\n(0032,1060) LO Thorax\n(0040,0100) SQ\n(fffe,e000) na\n(0008,0060) CS CR\n(0040,0001) AE CR1\n\
     (0040,0002) DA 20991231\n(0040,0003) TM 120000\n(0040,0009) SH S1\n(fffe,e00d) na\n(fffe,e0dd) na\n\
     (0040,1001) SH R1\n";

#[test]
fn findscu_finds_orders_of_hl7_and_of_files_that_dump2dcm_wrote() {
    let (Some(mut dump2dcm), Some(_)) = (peers::dcmtk("dump2dcm"), peers::dcmtk("findscu")) else { return };
    let place = Place::new();
    let (node, hl7) = start(&place);
    assert!(send(&hl7, &order(1)).contains("MSA|AA"));
    let ask = |key: &str| asked(&node, key).unwrap();
    let said = ask("ScheduledProcedureStepSequence[0].Modality=CT");
    assert!(said.contains("[A1]") && said.contains("2.25."), "{said}");
    // It is written beside and moved in, as users of wlmscpfs do.
    fs::write(place.path("w1.dump"), DUMP).unwrap();
    let (dump, file) = (place.path("w1.dump"), place.path("w1.wl"));
    peers::run(dump2dcm.args([&dump, &file])).expect_success();
    fs::rename(file, place.path("wl/w1.wl")).unwrap();
    let said = loop {
        let said = ask("ScheduledProcedureStepSequence[0].ScheduledStationAETitle=CR1");
        if said.contains("[W1") {
            break said;
        }
    };
    assert!(said.contains("File^Frieda") && said.contains("1.2.3.4"), "{said}");
    fs::remove_file(place.path("wl/w1.wl")).unwrap();
    while ask("ScheduledProcedureStepSequence[0].Modality=CR").contains("[W1") {}
}

fn a_list_without_lines_says_so_on_standard_error(place: Place) {
    place.run(["scan", &fixtures("archive")]).expect(1);
    for (list, said) in [
        (&["list"][..], "the worklist has no open items; hint: --all"),
        (&["list", "--all"], "the worklist is empty"),
        (&["list", "--problems"], "no order had a problem"),
        (&["steps"], "no modality has reported a step"),
    ] {
        let run = place.run(["worklist"].iter().chain(list).copied()).expect(1);
        assert!(run.stdout.is_empty() && run.stderr.starts_with(said), "{run:?}");
    }
}

on_each_engine! {
    an_order_that_was_acknowledged_is_there_after_a_kill,
    a_reload_changes_senders_stations_and_mapping,
    a_list_without_lines_says_so_on_standard_error,
}
