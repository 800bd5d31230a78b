//! Events: recorded with the changes of the index, and delivered to web servers and commands.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use super::faults::{SUCCESS, associated, store, uid};
use super::serve::Node;
use super::*;
use crate::util::certificates::Authority;
use crate::util::http::request;
use crate::util::{objects, peers};

/// A key, and the same for the receiver.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn configure(place: &Place, text: &str) {
    fs::write(place.path("dcmdex.toml"), format!("[event_log]\nquiet_seconds = 1\n{text}\n")).unwrap();
}

/// An entry of a receiver over HTTP.
fn post(name: &str, port: u16, more: &str) -> String {
    format!("[[events]]\nname = \"{name}\"\npost = \"http://127.0.0.1:{port}/hook\"\n{more}\n")
}

/// Takes events over HTTP. `answer` gives the status for each, or `None` for no answer at all.
fn receive(listener: TcpListener, answer: impl Fn(&Value) -> Option<u16> + Send + 'static) -> Receiver<Value> {
    let (taken, events) = channel();
    thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(body) = body_of(&mut stream) else { continue };
            match answer(&body) {
                // It stays open, and says nothing.
                None => silent.push(stream),
                Some(status) => {
                    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    // A node that was killed does not read it.
                    let _ = stream.write_all(head.as_bytes());
                    if status == 200 && taken.send(body).is_err() {
                        return;
                    }
                }
            }
        }
    });
    events
}

/// Reads a request. `None` if it ends early.
fn body_of(stream: &mut TcpStream) -> Option<Value> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(serde_json::from_slice(&body).unwrap())
}

fn free() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn store_all(node: &Node, numbers: std::ops::Range<usize>) {
    let mut peer = associated(node);
    for number in numbers {
        assert_eq!(store(&mut peer, number, 100), SUCCESS);
    }
    peer.release();
}

/// The next event of the study with this number of instances. A busy machine may pause for the
/// quiet time between two of them.
fn complete(events: &Receiver<Value>, instances: u64) -> Value {
    let is_complete = |event: &Value| event["kind"] == "study-complete" && event["instances"] == instances;
    events.iter().find(is_complete).unwrap()
}

/// The SOP Instance UIDs of an event of stored instances.
fn stored_in(event: &Value) -> Vec<String> {
    let series = event["series"].as_array().unwrap().iter();
    let uids = series.flat_map(|series| series["sop_instance_uids"].as_array().unwrap());
    uids.map(|uid| uid.as_str().unwrap().to_owned()).collect()
}

/// Scans files of studies `1.2.<study>`, two instances of each.
fn scan(place: &Place, directory: &str, studies: std::ops::Range<u32>) {
    for study in studies {
        for instance in 0..2 {
            objects::write(&place.path(format!("{directory}/{study}/{instance}")), study, 1, instance);
        }
    }
    place.run(["scan", directory]).expect(0);
}

fn a_study_is_told_once_when_it_is_quiet_and_again_when_it_has_changed(place: Place) {
    let ((one, one_port), (other, other_port)) = (free(), free());
    configure(&place, &(post("ris", one_port, "") + &post("emr", other_port, "identifiers = true")));
    let node = Node::start(&place, &[]);
    let (plain_events, identified_events) = (receive(one, |_| Some(200)), receive(other, |_| Some(200)));
    store_all(&node, 0..3);
    let (plain, identified) = (complete(&plain_events, 3), complete(&identified_events, 3));
    assert_eq!((&plain["kind"], &plain["study_instance_uid"]), (&"study-complete".into(), &"1.2.3".into()));
    assert_eq!((&plain["series"], &plain["node"]), (&1.into(), &"DCMDEX".into()));
    assert_eq!(plain["sources"], serde_json::json!(["c-store"]));
    assert!(plain["calling_ae_titles"].as_array().is_some_and(|titles| titles.len() == 1), "{plain}");
    assert!(plain["change"].as_u64().unwrap() > 0 && plain["accession_number"].is_null(), "{plain}");
    assert!(identified["patient_id"].is_string() && identified["accession_number"].is_string(), "{identified}");
    assert_eq!(identified["event"], plain["event"]);
    store_all(&node, 2..5);
    let again = complete(&plain_events, 5);
    assert!(again["change"].as_u64() > plain["change"].as_u64(), "{again}");
    complete(&identified_events, 5);
    let told = place.run(["events", "--json", "--kind", "study-complete"]).expect(0).json();
    let changes: BTreeSet<_> = told.iter().map(|event| event["change"].as_u64()).collect();
    assert_eq!(changes.len(), told.len(), "each change is told once: {told:?}");
    let (code, log) = node.stop(Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(!log.iter().any(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")), "{log:#?}");
}

#[test]
fn a_folder_tells_the_events_of_each_of_its_files() {
    let place = Place::new();
    let (listener, port) = free();
    place.run(["index", "new", "folder/main.db", "folder/2024.db"]).expect(0);
    configure(&place, &post("ris", port, ""));
    let node = Node::start(&place, &["--index", "folder"]);
    let events = receive(listener, |_| Some(200));
    store_all(&node, 0..3);
    let of_main = complete(&events, 3);
    assert_eq!(of_main["study_instance_uid"], "1.2.3");
    fs::create_dir(place.path("tree")).unwrap();
    fs::write(place.path("tree/1"), objects::file_with(7, &[(0x0008, 0x0020, b"DA", "20240131")])).unwrap();
    place.run(["scan", "--index", "folder", "tree"]).expect(0);
    let of_year = complete(&events, 1);
    assert_eq!(of_year["study_instance_uid"], "1.2.7");
    assert_ne!(of_main["index"], of_year["index"], "each file counts its events for itself");
    // Each file has its log.
    let told = ["events", "--json", "--kind", "study-complete"];
    let of_file = place.run(told.into_iter().chain(["--index", "folder/2024.db"])).expect(0).json();
    assert_eq!(of_file.iter().map(|event| &event["study_instance_uid"]).collect::<Vec<_>>(), ["1.2.7"]);
    let of_folder = place.run(told.into_iter().chain(["--index", "folder"])).expect(2);
    assert!(of_folder.stderr.contains("needs one file"), "{of_folder:?}");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

fn an_independent_receiver_finds_the_signature_right_over_tls(place: Place) {
    let authority = Authority::new("Hook CA");
    let identity = authority.identity("hook");
    let Some(mut python) = peers::python_peer("events.py") else { return };
    let mut receiver =
        python.arg(SECRET).arg(&identity.certificate).arg(&identity.key).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(receiver.stdout.take().unwrap()).lines().map(Result::unwrap);
    let port = lines.next().unwrap();
    fs::write(place.path("hook.secret"), format!("{SECRET}\n")).unwrap();
    let authorities = authority.file();
    configure(
        &place,
        &format!(
            "[[events]]\nname = \"ris\"\npost = \"https://127.0.0.1:{port}/hook?a=b\"\nsecret = \"hook.secret\"\n\
             authorities = {:?}\nkinds = [\"instance-stored\"]\n",
            authorities.to_str().unwrap()
        ),
    );
    let node = Node::start(&place, &[]);
    let (mut uids, mut ids, mut clients) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    store_all(&node, 0..5);
    while uids.len() < 5 {
        let seen: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        assert_eq!((&seen["signed"], &seen["path"]), (&true.into(), &"/hook?a=b".into()), "{seen}");
        assert_eq!(seen["type"], "application/json");
        ids.insert(seen["id"].to_string());
        clients.insert(seen["client"].to_string());
        uids.extend(stored_in(&seen["body"]));
    }
    assert_eq!(uids, (0..5).map(uid).collect::<Vec<_>>());
    assert_eq!(clients.len(), 1, "one connection for all");
    drop(node);
    receiver.kill().unwrap();
    receiver.wait().unwrap();
}

fn what_was_stored_is_told_in_order_over_kills_of_the_node_and_of_the_receiver(place: Place) {
    let (listener, port) = free();
    // Nobody listens there yet.
    drop(listener);
    configure(&place, &post("ris", port, "kinds = [\"instance-stored\", \"study-complete\"]"));
    let mut node = Node::start(&place, &[]);
    store_all(&node, 0..20);
    node.wait_for("a receiver of events cannot be reached");
    store_all(&node, 20..30);
    // All was acknowledged, so all is in the index.
    node.kill();
    let events = receive(TcpListener::bind(("127.0.0.1", port)).unwrap(), |_| Some(200));
    let node = Node::start(&place, &[]);
    let mut seen: Vec<Value> = (0..5).map(|_| events.recv().unwrap()).collect();
    node.kill();
    let node = Node::start(&place, &[]);
    // The event of the quiet study comes last, whatever was delivered twice.
    while seen.last().is_none_or(|event| event["kind"] != "study-complete" || event["instances"] != 30) {
        seen.push(events.recv().unwrap());
    }
    let (mut ids, mut uids) = (BTreeSet::new(), Vec::new());
    for event in seen.iter().filter(|event| event["kind"] == "instance-stored") {
        let id = event["event"].as_i64().unwrap();
        if ids.insert(id) {
            assert_eq!(ids.last(), Some(&id), "events of a study come in their order");
            uids.extend(stored_in(event));
        }
    }
    assert_eq!(uids, (0..30).map(uid).collect::<Vec<_>>());
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

fn a_refused_event_keeps_back_its_study_alone_and_becomes_a_dead_letter(place: Place) {
    let (listener, port) = free();
    let kinds = "kinds = [\"study-complete\", \"scan-finished\"]";
    configure(&place, &post("ris", port, &format!("{kinds}\ngive_up = \"2s\"")));
    let mut node = Node::start(&place, &[]);
    let (wanted, is_wanted) = channel();
    let answer = move |event: &Value| {
        // From the moment on at which the test says so, the receiver takes it.
        let takes_all = is_wanted.try_recv().is_ok();
        Some(if event["study_instance_uid"] == "1.2.1" && !takes_all { 500 } else { 200 })
    };
    let events = receive(listener, answer);
    scan(&place, "tree", 1..4);
    let seen: Vec<Value> = (0..3).map(|_| events.recv().unwrap()).collect();
    let studies: Vec<_> = seen.iter().filter(|event| event["kind"] == "study-complete").collect();
    assert_eq!(studies.iter().map(|event| &event["study_instance_uid"]).collect::<Vec<_>>(), ["1.2.2", "1.2.3"]);
    let scan = seen.iter().find(|event| event["kind"] == "scan-finished").unwrap();
    assert_eq!((&scan["indexed"], &scan["failed"]), (&6.into(), &0.into()), "{scan}");
    assert!(!scan.to_string().contains("tree"), "a path may hold a name: {scan}");
    node.wait_for("a receiver did not take an event in time");
    let failed = place.run(["events", "failed", "--json"]);
    assert_eq!(failed.code, 1);
    let [dead] = failed.json().try_into().unwrap();
    assert_eq!((&dead["study_instance_uid"], &dead["failure"]), (&"1.2.1".into(), &"HTTP status 500".into()));
    assert_eq!((&dead["dead"], &dead["receiver"]), (&true.into(), &"ris".into()));
    assert!(place.run(["events", "failed"]).expect(1).stdout.contains("dead letter"));
    wanted.send(()).unwrap();
    place.run(["events", "retry", "--receiver", "ris"]).expect(0);
    assert_eq!(events.recv().unwrap()["study_instance_uid"], "1.2.1");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert!(place.run(["events", "failed"]).expect(0).stdout.is_empty());
}

fn a_web_server_that_says_nothing_harms_nobody_and_gets_its_events_when_it_speaks_again(place: Place) {
    let ((silent, silent_port), (other, other_port)) = (free(), free());
    let kinds = "kinds = [\"study-complete\"]";
    let entry = post("silent", silent_port, &format!("{kinds}\ntimeout_seconds = 1"));
    configure(&place, &(entry + &post("other", other_port, kinds)));
    let mut node = Node::start(&place, &[]);
    let speaks = Arc::new(AtomicBool::new(false));
    let does_speak = Arc::clone(&speaks);
    let late = receive(silent, move |_| does_speak.load(Relaxed).then_some(200));
    let prompt = receive(other, |_| Some(200));
    scan(&place, "tree", 1..4);
    let assert_all_come = |events: &Receiver<Value>| {
        let mut left: BTreeSet<String> = ["1.2.1", "1.2.2", "1.2.3"].map(str::to_owned).into();
        while !left.is_empty() {
            left.remove(events.recv().unwrap()["study_instance_uid"].as_str().unwrap());
        }
    };
    assert_all_come(&prompt);
    assert_eq!(node.wait_for("a receiver did not take an event")["receiver"], "silent");
    store_all(&node, 0..1);
    speaks.store(true, Relaxed);
    assert_all_come(&late);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

fn a_command_gets_each_event_and_one_that_hangs_harms_nobody(place: Place) {
    configure(
        &place,
        "[[events]]\nname = \"hangs\"\nrun = [\"sleep\", \"1000\"]\ntimeout_seconds = 1\n\
         [[events]]\nname = \"lacks\"\nrun = [\"/nonexistent\"]\n\
         [[events]]\nname = \"file\"\nrun = [\"/bin/sh\", \"-c\", \"cat >> events; echo $DCMDEX_EVENT_KIND >> kinds\"]\n",
    );
    let mut node = Node::start(&place, &[]);
    // One instance makes one event, however slow the machine is.
    store_all(&node, 0..1);
    let mut left = vec!["a receiver of events cannot be reached", "a receiver did not take an event"];
    while !left.is_empty() {
        let told = node.wait_for_any(&left.clone());
        let receiver = told["receiver"].as_str().unwrap().to_owned();
        let message = told["message"].as_str().unwrap().to_owned();
        assert!(receiver == "hangs" || receiver == "lacks", "{told}");
        left.retain(|wanted| !message.starts_with(wanted));
    }
    let failed = place.run(["events", "failed", "--json"]).expect(0).json();
    assert!(failed[0]["failure"].as_str().unwrap().contains("longer than 1s"), "{failed:?}");
    // The command notes the event first, and its kind last.
    while !fs::read_to_string(place.path("kinds")).is_ok_and(|kinds| kinds == "study-complete\n") {
        thread::yield_now();
    }
    let (code, _) = node.stop(Signal::TERM);
    assert_eq!(code, Some(0));
    let event: Value = serde_json::from_str(&fs::read_to_string(place.path("events")).unwrap()).unwrap();
    assert_eq!((&event["kind"], &event["instances"]), (&"study-complete".into(), &1.into()));
}

#[test]
fn of_two_nodes_one_serves_a_receiver_and_the_other_goes_on_after_its_kill() {
    let place = Place::with_database();
    let (listener, port) = free();
    configure(&place, &post("ris", port, "kinds = [\"instance-stored\"]"));
    let [one, other] = ["a", "b"].map(|storage| Node::start(&place, &["--storage", storage]));
    let events = receive(listener, |_| Some(200));
    let (mut ids, mut uids) = (BTreeSet::new(), Vec::new());
    let mut take_until = |count: usize, may_repeat: bool| {
        while uids.len() < count {
            let event = events.recv().unwrap();
            let id = event["event"].as_i64().unwrap();
            if ids.insert(id) {
                assert_eq!(ids.last(), Some(&id), "events of a study come in their order");
                uids.extend(stored_in(&event));
            } else {
                assert!(may_repeat, "{event}");
            }
        }
        assert_eq!(uids, (0..count).map(uid).collect::<Vec<_>>());
    };
    store_all(&one, 0..10);
    store_all(&other, 10..20);
    take_until(20, false);
    // What the other one delivered last may come again, unless it has noted that.
    one.kill();
    store_all(&other, 20..30);
    take_until(30, true);
    let third = Node::start(&place, &["--storage", "a"]);
    assert_eq!(other.stop(Signal::TERM).0, Some(0));
    store_all(&third, 30..40);
    take_until(40, true);
    assert_eq!(third.stop(Signal::TERM).0, Some(0));
}

/// A `dcmdex events --follow --json` that is running.
struct Follower(Child, Box<dyn Iterator<Item = Value>>);

impl Follower {
    fn start(place: &Place, more: &[&str]) -> Self {
        let mut child =
            place.command().args(["events", "--follow", "--json"]).args(more).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        Self(child, Box::new(lines.map(|line| serde_json::from_str(&line).unwrap())))
    }

    /// The next event of this kind.
    fn next(&mut self, kind: &str) -> Value {
        self.1.find(|event| event["kind"] == kind).expect("it ended")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn conflicts_scans_and_damage_can_be_followed(place: Place) {
    configure(&place, "enabled = true\ninstances = true");
    let node = Node::start(&place, &["--http-port", "0"]);
    let mut follower = Follower::start(&place, &["--since", "0"]);
    store_all(&node, 0..1);
    assert_eq!(stored_in(&follower.next("instance-stored")), [uid(0)]);
    // The same SOP Instance UID with other content.
    let other = objects::file("OTHER", "1.2.3", "1.2.3.4", &uid(0));
    fs::create_dir(place.path("tree")).unwrap();
    fs::write(place.path("tree/other.dcm"), other).unwrap();
    place.run(["scan", "tree"]).expect(0);
    let conflict = follower.next("conflict");
    assert_eq!(conflict["study_instance_uid"], "1.2.3");
    assert!(conflict["count"] == 1 && conflict["sop_instance_uids"][0] == uid(0), "{conflict}");
    // A byte of a received object changes on the disk.
    let path = place.path(format!("dcmdex-data/objects/1.2.3/1.2.3.4/{}.dcm", uid(0)));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let web = node.listening["http_address"].as_str().unwrap().parse().unwrap();
    request(web, "GET", &format!("/dicom-web/studies/1.2.3/series/1.2.3.4/instances/{}", uid(0)), &[], b"");
    let damaged = follower.next("damaged");
    assert_eq!((&damaged["sop_instance_uid"], &damaged["study_instance_uid"]), (&uid(0).into(), &"1.2.3".into()));
    drop(follower);
    let kinds = place.run(["events", "--json", "--kind", "damaged", "--kind", "scan-finished"]).expect(0).json();
    assert_eq!(kinds.iter().map(|event| &event["kind"]).collect::<Vec<_>>(), ["scan-finished", "damaged"]);
    let after = damaged["event"].to_string();
    let later = place.run(["events", "--json", "--since", &after, "--kind", "damaged"]).expect(0);
    assert!(later.stdout.is_empty(), "{later:?}");
    assert!(place.run(["events"]).expect(0).stdout.contains("instance-with-other-content"));
    place.run(["events", "--kind", "nonsense"]).expect(2);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    place.run(["check"]).expect(0);
}

/// Stores instances, and returns the numbers of the last event and of the last change.
fn stored_until(place: &Place, numbers: std::ops::Range<usize>) -> [String; 2] {
    let node = Node::start(place, &[]);
    store_all(&node, numbers);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let event = place.run(["events", "--json"]).expect(0).json().pop().unwrap()["event"].to_string();
    [event, place.run(["status", "--json"]).expect(0).json()[0]["last_change"].to_string()]
}

/// Checks that programs that have followed the index up to these numbers see what came after them.
fn assert_told(place: &Place, [event, change]: &[String; 2], instance: usize, cause: &str) {
    let told = place.run(["events", "--json", "--since", event]).expect(0).json();
    let restored: Vec<_> = told.iter().filter(|event| event["kind"] == "index-restored").collect();
    assert!(restored.len() == 1 && restored[0]["cause"] == cause, "{told:#?}");
    // A rebuild tells of all objects once more.
    let mut stored = told.iter().filter(|event| event["kind"] == "instance-stored").flat_map(stored_in);
    assert!(stored.any(|stored| stored == uid(instance)), "{told:#?}");
    assert!(place.run(["find", &format!("since={change}"), "StudyInstanceUID"]).expect(0).stdout.contains("1.2.3"));
}

#[test]
fn no_number_is_given_again_after_a_restore_or_a_rebuild() {
    let place = Place::new();
    configure(&place, "enabled = true\ninstances = true");
    stored_until(&place, 0..1);
    place.run(["backup", "backup.db"]).expect(0);
    let seen = stored_until(&place, 1..3);
    place.run(["restore", "backup.db", "--yes"]).expect(0);
    let restored = stored_until(&place, 3..4);
    assert_told(&place, &seen, 3, "restore");
    let lose = || {
        for suffix in ["", "-turn"] {
            fs::remove_file(place.path(format!("dcmdex-data/index.db{suffix}"))).unwrap();
        }
    };
    lose();
    place.run(["rebuild"]).expect(0);
    let rebuilt = stored_until(&place, 4..5);
    assert_told(&place, &restored, 4, "rebuild");
    // There is no index whose numbers could be looked up.
    lose();
    place.run(["restore", "backup.db", "--yes"]).expect(0);
    stored_until(&place, 5..6);
    assert_told(&place, &rebuilt, 5, "restore");
    place.run(["check"]).expect(0);
}

fn an_index_without_events_says_how_to_have_some(place: Place) {
    scan(&place, "tree", 1..2);
    let none = place.run(["events"]).expect(0);
    assert!(none.stdout.is_empty() && none.stderr.contains("event_log.enabled"), "{none:?}");
    let unknown = place.run(["events", "retry", "--receiver", "ris"]).expect(2);
    assert!(unknown.stderr.contains("there is no receiver ris"), "{unknown:?}");
    assert!(place.run(["events", "retry"]).expect(1).stdout.starts_with("there are no dead letters"));
}

#[test]
fn a_receiver_without_its_key_keeps_the_node_from_starting() {
    let place = Place::new();
    configure(&place, &post("ris", 1, "secret = \"missing\""));
    let refused = place.run(["serve", "--port", "0"]).expect(2);
    assert!(refused.stderr.contains("receiver `ris` has no key") && refused.stderr.contains("missing"), "{refused:?}");
    fs::write(place.path("missing"), "password").unwrap();
    let refused = place.run(["serve", "--port", "0"]).expect(2);
    assert!(refused.stderr.contains("openssl rand -base64 32"), "{refused:?}");
}

on_each_engine! {
    a_study_is_told_once_when_it_is_quiet_and_again_when_it_has_changed,
    an_independent_receiver_finds_the_signature_right_over_tls,
    what_was_stored_is_told_in_order_over_kills_of_the_node_and_of_the_receiver,
    a_refused_event_keeps_back_its_study_alone_and_becomes_a_dead_letter,
    a_web_server_that_says_nothing_harms_nobody_and_gets_its_events_when_it_speaks_again,
    a_command_gets_each_event_and_one_that_hangs_harms_nobody,
    conflicts_scans_and_damage_can_be_followed,
    an_index_without_events_says_how_to_have_some,
}
