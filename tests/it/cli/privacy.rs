//! No patient data in the log, whatever arrives and however it fails.

use super::serve::Node;
use super::*;
use crate::util::scripted::{
    DataSet, IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, VERIFICATION, cancel_command, find_command, store_command,
};

const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const CONTEXTS: &[(&str, &[&str])] = &[
    (VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (STUDY_ROOT_FIND, &[IMPLICIT_VR_LITTLE_ENDIAN]),
];

/// What is planted: a name, an ID, a birth date, an accession number, a description.
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

fn statuses(filter: &str) -> String {
    let place = Place::new();
    std::fs::write(place.path("dcmdex.toml"), format!("[log]\nfilter = \"{filter}\"\n")).unwrap();
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
        peer.receive_message();
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
        while matches!(peer.receive_message().status(), 0xFF00 | 0xFF01) {}
    }
    peer.send_message(5, &cancel_command(1), None);
    // A response from a peer, an unknown command, a text as a UID of a class: each ends or refuses with a text of ours.
    peer.send_message(3, &store_command(1, "PLANTEDNAME", "PLANTEDID"), Some(&whole("1.9").0));
    peer.receive_message();
    peer.send(b"PLANTEDNAME");
    peer.shut_down_sending();
    while peer.receive().is_some() {}
    // When the disk fails, in the middle.
    let mut peer = ScriptedPeer::associated(address, CONTEXTS);
    std::fs::remove_dir_all(place.path("dcmdex-data/objects/.incoming")).unwrap();
    peer.send_message(3, &store_command(1, SECONDARY_CAPTURE, "1.10"), Some(&whole("1.10").0));
    assert_eq!(peer.receive_message().status(), 0xA700);
    peer.release();
    let (code, log) = node.stop(rustix::process::Signal::TERM);
    assert_eq!(code, Some(0));
    log.join("\n")
}

#[test]
fn the_log_has_a_line_for_each_association_and_no_patient() {
    for filter in ["info", "trace"] {
        let log = statuses(filter);
        for planted in PLANTED {
            let found: Vec<_> = log.lines().filter(|line| line.contains(planted)).collect();
            assert!(found.is_empty(), "{filter}: {found:#?}");
        }
    }
    let log = statuses("info");
    let ended: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| {
            line["message"].as_str().is_some_and(|it| it.starts_with("association ended"))
        })
        .collect();
    let [first, second] = &ended[..] else { panic!("{log}") };
    assert_eq!((first["span"]["peer.ae"].as_str(), second["called_ae"].as_str()), (Some("SCRIPT"), Some("DCMDEX")));
    assert!(first["span"]["peer.addr"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(first["received_bytes"].as_u64().unwrap() > 3_000 && first["sent_bytes"].as_u64().unwrap() > 1_000);
    assert!(first["elapsed_ms"].is_u64());
    assert!(first["answered"].as_str().unwrap().contains(" x C-STORE-RSP 0000"), "{first}");
    assert!(second["answered"].as_str().unwrap().contains("1 x C-STORE-RSP A700"), "{second}");
}
