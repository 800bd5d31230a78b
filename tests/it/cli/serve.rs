//! `dcmdex serve` as a process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use super::*;
use crate::util::peers;

/// A running node; killed when the test ends before it.
struct Node {
    child: Child,
    log: std::io::Lines<BufReader<std::process::ChildStderr>>,
    port: u16,
}

impl Node {
    fn start(place: &Place, more: &[&str]) -> Self {
        let mut command = place.command();
        command.args(["serve", "--port", "0"]).args(more).env("DCMDEX_LOG__FORMAT", "json");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut node = Self { child, log, port: 0 };
        while node.port == 0 {
            let line = node.log.next().expect("the node ended before it listened").unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line["message"] == "listening" {
                node.port = line["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
            }
        }
        node
    }

    /// Sends a signal and waits for the end: the exit code, and what was logged until then.
    fn stop(mut self, signal: rustix::process::Signal) -> (Option<i32>, Vec<String>) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
        let log = self.log.by_ref().map(Result::unwrap).collect();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Gone already when the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_node_with_no_settings_works_and_stops_in_order_on_either_signal() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let place = Place::new();
        let node = Node::start(&place, &[]);
        assert!(place.path("dcmdex-data/index.db").exists() && place.path("dcmdex-data/objects").is_dir());
        if let Some(mut echoscu) = peers::dcmtk("echoscu") {
            peers::run(echoscu.args(["-aec", "DCMDEX", "127.0.0.1", &node.port.to_string()])).expect_success();
        }
        let (code, log) = node.stop(signal);
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")), "{log:#?}");
    }
}

#[test]
fn what_was_received_is_in_the_status_of_the_same_index() {
    let place = Place::new();
    let Some(mut storescu) = peers::dcmtk("storescu") else { return };
    let node = Node::start(&place, &["--index", "x.db", "--storage", "kept", "--ae-title", "ARCHIVE"]);
    let file = fixtures("real/modalities/CT_small.dcm");
    peers::run(storescu.args(["-aec", "ARCHIVE", "127.0.0.1", &node.port.to_string(), &file])).expect_success();
    // While the node runs: the index can be read beside it.
    let status = place.run(["status", "--json", "--index", "x.db"]).expect(0).json().remove(0);
    assert_eq!((&status["instances"], &status["metadata_only"]), (&1.into(), &0.into()));
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
}

#[test]
fn in_metadata_only_mode_no_storage_directory_is_made() {
    let place = Place::new();
    let node = Node::start(&place, &["--metadata-only"]);
    if let Some(mut storescu) = peers::dcmtk("storescu") {
        let file = fixtures("real/modalities/CT_small.dcm");
        peers::run(storescu.args(["-aec", "DCMDEX", "127.0.0.1", &node.port.to_string(), &file])).expect_success();
        let status = place.run(["status", "--json"]).expect(0).json().remove(0);
        assert_eq!((&status["instances"], &status["metadata_only"]), (&1.into(), &1.into()));
    }
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
    assert!(!place.path("dcmdex-data/objects").exists());
}

#[test]
fn a_scan_beside_a_running_node_writes_the_same_index() {
    let place = Place::new();
    let node = Node::start(&place, &[]);
    place.run(["scan", &fixtures("archive")]).expect(1);
    let (code, _) = node.stop(rustix::process::Signal::TERM);
    assert_eq!(code, Some(0));
    let status = place.run(["status", "--json"]).expect(0).json().remove(0);
    assert_eq!(status["instances"], 33);
}

#[test]
fn an_address_that_others_reach_is_warned_about() {
    let place = Place::new();
    let mut command = place.command();
    // A port that is taken: the node says what it has to say and ends.
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let run = run(command.args(["serve", "--bind", "0.0.0.0", "--port", &port])).expect(2);
    assert!(run.stderr.contains("neither an AE table nor TLS guards it"), "{run:?}");
    assert!(run.stderr.contains(&format!("error: cannot listen on 0.0.0.0:{port}: ")), "{run:?}");
    // A table helps, where it says from where.
    for (addresses, warned) in [("[]", true), ("[\"10.0.0.0/8\"]", false)] {
        let table = format!("[[peer]]\nae_title = \"CT1\"\naddresses = {addresses}\n");
        std::fs::write(place.path("dcmdex.toml"), table).unwrap();
        let run = super::run(place.command().args(["serve", "--bind", "0.0.0.0", "--port", &port])).expect(2);
        assert!(!run.stderr.contains("neither an AE table"), "{run:?}");
        assert_eq!(run.stderr.contains("who knows their AE title can"), warned, "{run:?}");
    }
}

#[test]
fn a_table_of_peers_in_the_file_guards_the_node() {
    let place = Place::new();
    std::fs::write(place.path("dcmdex.toml"), "[[peer]]\nae_title = \"CT1\"\nservices = [\"echo\"]\n").unwrap();
    let Some(mut echoscu) = peers::dcmtk("echoscu") else { return };
    let node = Node::start(&place, &["--peer", "PACS=pacs.example:104"]);
    let port = node.port.to_string();
    let to_node = |title| ["-aet".to_owned(), title, "-aec".into(), "DCMDEX".into(), "127.0.0.1".into(), port.clone()];
    peers::run(echoscu.args(to_node("CT1".into()))).expect_success();
    // A destination is not thereby let in.
    for stranger in ["PACS", "CT2"] {
        let refused = peers::run(peers::dcmtk("echoscu").unwrap().args(to_node(stranger.into())));
        assert!(refused.stderr.contains("Calling AE Title Not Recognized"), "{refused:?}");
    }
    let (code, log) = node.stop(rustix::process::Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(log.iter().any(|line| line.contains("the calling AE title is not in the table of peers")), "{log:#?}");
}

#[test]
fn wrong_options_are_usage_errors_and_make_nothing() {
    let place = Place::new();
    for (wrong, said) in [
        (["--ae-title", "A_TITLE_THAT_IS_TOO_LONG"], "at most 16 characters"),
        (["--port", "70000"], "70000"),
        (["--bind", "here"], "`bind`"),
        (["--peer", "PACS"], "AET=HOST:PORT"),
        (["--peer", "PACS=host"], "HOST:PORT"),
    ] {
        let run = run(place.command().arg("serve").args(wrong)).expect(2);
        assert!(run.stderr.contains(said), "{wrong:?}: {run:?}");
    }
    assert!(!place.path("dcmdex-data").exists());
}

#[test]
fn what_was_scanned_is_answered_and_settings_of_queries_reach_the_node() {
    let place = Place::new();
    place.run(["scan", "--index", "x.db", &fixtures("archive")]).expect(1);
    std::fs::write(place.path("dcmdex.toml"), "[find]\nretrieve_ae_title = \"KEEPER\"\nlimit = 4\n").unwrap();
    let Some(mut findscu) = peers::dcmtk("findscu") else { return };
    let node = Node::start(&place, &["--index", "x.db"]);
    let port = node.port.to_string();
    let to_node = ["-v", "-S", "-aec", "DCMDEX", "127.0.0.1", &port, "-k", "QueryRetrieveLevel=STUDY"];
    let keys = ["-k", "PatientID=TK-2002", "-k", "NumberOfStudyRelatedInstances", "-k", "RetrieveAETitle"];
    let said = peers::run(findscu.args(to_node).args(keys)).expect_success();
    assert!(said.contains("[12]") && said.contains("[KEEPER]"), "{said}");
    // Six studies are more than four: the answer says so, and the terminal is not bound by it.
    let mut findscu = peers::dcmtk("findscu").unwrap();
    let said = peers::run(findscu.args(to_node).args(["-k", "StudyInstanceUID"])).expect_success();
    assert!(said.contains("OutOfResources") || said.contains("0xa700"), "{said}");
    assert_eq!(place.run(["find", "--index", "x.db", "StudyInstanceUID"]).expect(0).stdout.lines().count(), 7);
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
}

/// 2 GB of a multi-frame that takes no room on the disk: the file is sparse.
fn write_large_object(path: &Path) -> u64 {
    const PIXELS: u32 = 2_000_000_000;
    let mut bytes = crate::util::objects::file("P1", "1.2.1", "1.2.1.1", "1.2.1.1.1");
    bytes.extend([0xE0, 0x7F, 0x10, 0, b'O', b'W', 0, 0]);
    bytes.extend(PIXELS.to_le_bytes());
    std::fs::write(path, &bytes).unwrap();
    let length = bytes.len() as u64 + u64::from(PIXELS);
    std::fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
    length
}

#[cfg(target_os = "linux")]
#[test]
fn an_object_of_2_gb_is_sent_in_little_memory() {
    use crate::util::scripted::{
        DataSet, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, request, retrieve_command,
    };
    use dcmdex::dimse::pdata::Pdv;
    use dicom_ul::pdu::{RequestorRoles, UserVariableItem};
    const STUDY_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";
    let place = Place::new();
    std::fs::create_dir(place.path("tree")).unwrap();
    let length = write_large_object(&place.path("tree/large.dcm"));
    place.run(["scan", "tree"]).expect(0);
    let node = Node::start(&place, &[]);
    let peak = |node: &Node| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", node.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before = peak(&node);
    let class = crate::util::objects::SOP_CLASS;
    let mut association = request(&[(STUDY_GET, &[IMPLICIT_VR_LITTLE_ENDIAN]), (class, &[EXPLICIT_VR_LITTLE_ENDIAN])]);
    association.user_variables[0] = UserVariableItem::MaxLength(0);
    let roles = RequestorRoles { scu: false, scp: true };
    association.user_variables.push(UserVariableItem::ScuScpRoleSelectionSubItem(class.into(), roles));
    let mut peer = ScriptedPeer::connect(([127, 0, 0, 1], node.port).into());
    peer.associate(&association);
    let identifier = DataSet::default().text(0x0008, 0x0052, "STUDY").uid(0x0020, 0x000D, "1.2.1");
    peer.send_message(1, &retrieve_command(9, STUDY_GET, None), Some(&identifier.0));
    let mut received = 0;
    loop {
        let bytes = peer.receive_bytes().expect("an object of 2 GB, not the end of the connection");
        let (pdv, _) = Pdv::split_first(&bytes[6..]).unwrap();
        if pdv.kind == dcmdex::dimse::pdata::FragmentKind::Command {
            continue;
        }
        received += pdv.fragment.len() as u64;
        if pdv.is_last {
            break;
        }
    }
    // Preamble, prefix and file meta information stay behind.
    assert!(received > 2_000_000_000 && received < length, "{received}");
    let grown = peak(&node) - before;
    assert!(grown < 32 * 1024, "{grown} KiB more than before");
}
