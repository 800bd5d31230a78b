//! `dcmdex serve` as a process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::util::certificates::Authority;
use crate::util::peers;
use crate::util::scripted::{IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, VERIFICATION};

/// A running node. It is killed if the test ends first.
pub(crate) struct Node {
    child: Child,
    /// Log lines. A separate thread reads them, so that none is lost.
    log: Receiver<String>,
    pub(crate) port: u16,
    /// The lines before it listened.
    pub(crate) at_start: Vec<String>,
    /// The line that reports that it listens.
    pub(crate) listening: serde_json::Value,
    tls_port: Option<u16>,
}

impl Node {
    pub(crate) fn start(place: &Place, more: &[&str]) -> Self {
        Self::start_with(place.command().args(["serve", "--port", "0"]).args(more))
    }

    pub(crate) fn start_with(command: &mut Command) -> Self {
        Self::try_start(command).expect("the node ended before it listened")
    }

    /// Associates with it. All contexts must be accepted.
    pub(crate) fn associate(&self, contexts: &[(&str, &[&str])]) -> ScriptedPeer {
        ScriptedPeer::associated(([127, 0, 0, 1], self.port).into(), contexts)
    }

    /// Starts the node. `None` if it ends before it listens.
    pub(crate) fn try_start(command: &mut Command) -> Option<Self> {
        command.env("DCMDEX_LOG__FORMAT", "json");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (taken, log) = channel();
        std::thread::spawn(move || {
            for line in lines {
                if taken.send(line).is_err() {
                    break;
                }
            }
        });
        let listening = serde_json::Value::Null;
        let mut node = Self { child, log, port: 0, at_start: Vec::new(), listening, tls_port: None };
        let is_listening =
            |line: &serde_json::Value| line["message"].as_str().is_some_and(|message| message.starts_with("listening"));
        let line = loop {
            let line = node.log.recv().ok()?;
            // What a program around the node says is no JSON.
            match serde_json::from_str(&line) {
                Ok(line) if is_listening(&line) => break line,
                _ => node.at_start.push(line),
            }
        };
        let port = |name: &str| line[name].as_str()?.rsplit(':').next()?.parse().ok();
        (node.port, node.tls_port) = (port("address").unwrap_or(0), port("tls_address"));
        node.listening = line;
        Some(node)
    }

    /// Waits for the next log line with this message.
    pub(crate) fn wait_for(&mut self, message: &str) -> serde_json::Value {
        self.next_with(message).expect("the node ended before it said so")
    }

    /// Waits for the next log line with one of these messages.
    pub(crate) fn wait_for_any(&mut self, messages: &[&str]) -> serde_json::Value {
        self.next_with_any(messages).expect("the node ended before it said so")
    }

    fn next_with(&mut self, message: &str) -> Option<serde_json::Value> {
        self.next_with_any(&[message])
    }

    fn next_with_any(&mut self, messages: &[&str]) -> Option<serde_json::Value> {
        self.log.iter().find_map(|line| {
            // What a program around the node says is no JSON.
            let line: serde_json::Value = serde_json::from_str(&line).ok()?;
            let said = line["message"].as_str()?;
            messages.iter().any(|message| said.starts_with(message)).then_some(line)
        })
    }

    /// Returns the process id. It may be that of a program that runs the node.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the node as a crash does, together with the program that runs it.
    pub(crate) fn kill(mut self) {
        // Of a program around it, too: strace lets go of a node that it is killed over, so the node
        // goes first.
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.id())).unwrap();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            let child = rustix::process::Pid::from_raw(child).unwrap();
            rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        }
        if children.is_empty() {
            self.child.kill().unwrap();
        }
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends a signal and waits for the end. Returns the exit code and all log lines until then.
    pub(crate) fn stop(mut self, signal: rustix::process::Signal) -> (Option<i32>, Vec<String>) {
        self.signal(signal);
        let log = self.log.iter().collect();
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
fn a_node_whose_log_nobody_reads_goes_on() {
    let place = Place::new();
    let mut command = place.command();
    // Every association has its lines.
    command.args(["serve", "--port", "0", "-v"]).env("DCMDEX_LOG__FORMAT", "json").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::with_capacity(256, child.stderr.take().unwrap());
    let port: u16 = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the node ended before it listened");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        if line["message"] == "listening" {
            break line["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        }
    };
    let associate = || {
        let mut peer =
            ScriptedPeer::associated(([127, 0, 0, 1], port).into(), &[(VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN])]);
        peer.echo(1);
        peer.release();
    };
    // A pipe holds 64 KiB.
    let mut associations = 0;
    while rustix::io::ioctl_fionread(log.get_ref()).unwrap() < 50_000 {
        associate();
        associations += 1;
    }
    (0..associations).for_each(|_| associate());
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
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
    let run = run(command.args(["serve", "--bind", "0.0.0.0", "--access", "anyone", "--port", &port])).expect(2);
    assert!(run.stderr.contains("anyone may associate"), "{run:?}");
    assert!(run.stderr.contains(&format!("error: cannot listen on 0.0.0.0:{port}: ")), "{run:?}");
    // A table helps, where it says from where.
    for (addresses, warned) in [("", true), ("addresses = [\"10.0.0.0/8\"]", false)] {
        let table = format!("[[peer]]\nae_title = \"CT1\"\n{addresses}\n");
        std::fs::write(place.path("dcmdex.toml"), table).unwrap();
        let run = super::run(place.command().args(["serve", "--bind", "0.0.0.0", "--port", &port])).expect(2);
        assert!(!run.stderr.contains("anyone may associate"), "{run:?}");
        assert_eq!(run.stderr.contains("their AE title is enough"), warned, "{run:?}");
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
fn a_hang_up_reads_peers_and_certificates_again_and_what_is_wrong_changes_nothing() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let place = Place::new();
    let settings = |authority: &Authority, title: &str, more: &str| {
        let identity = authority.identity("NODE");
        let text = format!(
            "{more}[tls]\nport = 0\ncertificate = {:?}\nkey = {:?}\nauthorities = {:?}\n[[peer]]\nae_title = \"{title}\"\n",
            identity.certificate,
            identity.key,
            authority.file()
        );
        std::fs::write(place.path("dcmdex.toml"), text).unwrap();
    };
    settings(&old, "OLD", "");
    place.run(["config", "check"]).expect(0);
    let mut node = Node::start(&place, &[]);
    let port = node.tls_port.unwrap().to_string();
    let echo = |authority: &Authority, title: &str| {
        let mut echoscu = peers::dcmtk("echoscu")?;
        echoscu.args(authority.identity(title).dcmtk(&authority.file()));
        let run = peers::run(echoscu.args(["-aet", title, "-aec", "DCMDEX", "127.0.0.1", &port]));
        Some(run.status.success())
    };
    let Some(accepted) = echo(&old, "OLD") else { return };
    assert!(accepted && echo(&old, "NEW") == Some(false));

    std::fs::write(place.path("dcmdex.toml"), "[[peer]]\nae_titel = \"NEW\"\n").unwrap();
    node.signal(rustix::process::Signal::HUP);
    let line = node.wait_for("the new settings cannot be used");
    assert!(line["error"].as_str().unwrap().contains("did you mean `ae_title`?"), "{line}");
    assert_eq!(echo(&old, "OLD"), Some(true));
    // Nobody named the file, but it kept somebody out.
    std::fs::remove_file(place.path("dcmdex.toml")).unwrap();
    node.signal(rustix::process::Signal::HUP);
    node.wait_for("the new settings cannot be used");
    assert_eq!((echo(&old, "OLD"), echo(&old, "NEW")), (Some(true), Some(false)));

    settings(&new, "NEW", "ae_title = \"OTHER\"\n");
    node.signal(rustix::process::Signal::HUP);
    node.wait_for("peers and certificates read again");
    assert_eq!(node.wait_for("changed settings that a running node does not take over")["settings"], "ae_title");
    assert_eq!((echo(&new, "NEW"), echo(&new, "OLD"), echo(&old, "NEW")), (Some(true), Some(false), Some(false)));
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
}

#[test]
fn a_peer_that_wants_tls_is_called_with_it_and_has_to_be_who_it_says() {
    let authority = Authority::new("ours");
    let tls = |name: &str| {
        let identity = authority.identity(name);
        let (certificate, key) = (&identity.certificate, &identity.key);
        format!("[tls]\nport = 0\ncertificate = {certificate:?}\nkey = {key:?}\nauthorities = {:?}\n", authority.file())
    };
    let place = Place::new();
    let caller = "[[peer]]\nae_title = \"CT1\"\ncertificates = [\"cn:CT1\"]\n";
    std::fs::write(place.path("dcmdex.toml"), tls("NODE") + caller).unwrap();
    let node = Node::start(&place, &[]);
    let echo = |tls: &str, certificate: &str| {
        let place = Place::new();
        let settings = format!(
            "ae_title = \"CT1\"\n{tls}[[peer]]\nae_title = \"DCMDEX\"\nhost = \"127.0.0.1\"\nport = {}\ncertificates = [\"{certificate}\"]\n",
            node.tls_port.unwrap()
        );
        std::fs::write(place.path("dcmdex.toml"), settings).unwrap();
        place.run(["echo", "DCMDEX"])
    };
    echo(&tls("CT1"), "cn:NODE").expect(0);
    echo(&tls("CT1"), "cn:OTHER").expect(2);
    let rejected = echo(&tls("CT2"), "cn:NODE").expect(2);
    assert!(rejected.stderr.contains("rejected"), "{rejected:?}");
    let without = echo("", "cn:NODE").expect(2);
    assert!(without.stderr.contains("peer `DCMDEX` must use TLS, but this node has no certificate"), "{without:?}");
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
}

#[test]
fn the_service_manager_is_told_when_the_node_is_there_and_when_it_stops() {
    let place = Place::new();
    let socket = std::os::unix::net::UnixDatagram::bind(place.path("notify")).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let told = || {
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut command = place.command();
    command.args(["serve", "--port", "0"]).env("NOTIFY_SOCKET", place.path("notify"));
    let node = Node::start_with(&mut command);
    assert_eq!(told(), "READY=1");
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
    assert_eq!(told(), "STOPPING=1");
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

/// Writes 2 GB of a multi-frame object that takes no space on the disk, because the file is sparse.
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
