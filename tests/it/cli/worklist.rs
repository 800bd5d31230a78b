//! The worklist of a node as a process: folder, HL7, and what a kill leaves.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::serve::Node;
use super::*;
use crate::util::peers;

const SETTINGS: &str = "index = \"index.db\"\nstorage = \"objects\"\n[worklist]\nenabled = true\n\
     hl7 = \"127.0.0.1:0\"\nfolder = \"wl\"\nstations = [\"CT=CT1\"]\n";

fn start(place: &Place) -> (Node, String) {
    fs::create_dir_all(place.path("wl")).unwrap();
    fs::write(place.path("dcmdex.toml"), SETTINGS).unwrap();
    let node = Node::start(place, &[]);
    let lines = node.at_start.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let hl7 = lines.into_iter().find(|line| line["message"] == "taking HL7 messages").unwrap();
    (node, hl7["address"].as_str().unwrap().to_owned())
}

fn order(number: u32) -> String {
    format!(
        "MSH|^~\\&|RIS|SITE|||20261129100000||ORM^O01|{number}|P|2.3.1\rPID|||P{number}||Doe^Jane\rORC|NW|{number}\r\
         OBR|1|||X^Head||||||||||||||A{number}||||||CT\r"
    )
}

fn send(address: &str, message: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&[b"\x0B", message.as_bytes(), b"\x1C\r"].concat()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\x1C\r") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "the connection ended");
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn an_order_that_was_acknowledged_is_there_after_a_kill() {
    let place = Place::new();
    let (node, hl7) = start(&place);
    for number in 1..=5 {
        assert!(send(&hl7, &order(number)).contains(&format!("MSA|AA|{number}\r")));
    }
    node.kill();
    let list = place.run(["worklist", "list", "--json"]).expect(0).stdout;
    assert_eq!(list.lines().count(), 5, "{list}");
    assert!(list.contains("\"accession_number\":\"A5\""), "{list}");
    assert_eq!(place.run(["check"]).code, 0);
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
    let ask = |key: &str| {
        let keys =
            ["-W", "-v", "-aec", "DCMDEX", "-k", "AccessionNumber", "-k", "StudyInstanceUID", "-k", "PatientName"];
        let port = node.port.to_string();
        let mut findscu = peers::dcmtk("findscu").unwrap();
        peers::run(findscu.args(keys).args(["-k", key, "127.0.0.1", &port])).expect_success()
    };
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
