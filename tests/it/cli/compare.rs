//! `dcmdex compare`: differences that were planted are found, all of them and no others.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::interop::compare::{dcmqrscp, orthanc_server};
use crate::util::node::TestNode;
use crate::util::objects;
use crate::util::peers::{self, dcmtk};

/// Writes an object: study, series and instance by number, the day of its study, and its patient.
fn write(place: &Place, directory: &str, (study, series, instance): (u32, u32, u32), date: &str, patient: &str) {
    let (study, series) = (format!("1.2.{study}"), format!("1.2.{study}.{series}"));
    let instance = format!("{series}.{instance}");
    let bytes = objects::file(patient, &study, &series, &instance);
    let bytes = match date {
        "" => bytes,
        date => objects::with_elements(&bytes, &[(0x0008, 0x0020, b"DA", date)]),
    };
    fs::create_dir_all(place.path(directory)).unwrap();
    fs::write(place.path(directory).join(format!("{instance}.dcm")), bytes).unwrap();
}

/// Two archives with known differences: `here` and `there`.
fn archives() -> Place {
    let place = Place::new();
    let both = ["here", "there"];
    for directory in both {
        write(&place, directory, (1, 1, 1), "20240101", "P1");
        write(&place, directory, (4, 1, 1), "20240104", "P4");
        write(&place, directory, (4, 2, 1), "20240104", "P4");
        write(&place, directory, (7, 1, 1), "", "P7");
    }
    write(&place, "here", (2, 1, 1), "20240102", "P2");
    write(&place, "there", (3, 1, 1), "20230503", "P3");
    // One instance and one series more on each side.
    write(&place, "here", (4, 1, 2), "20240104", "P4");
    write(&place, "there", (4, 3, 1), "20240104", "P4");
    write(&place, "there", (4, 3, 2), "20240104", "P4");
    write(&place, "here", (5, 1, 1), "20240105", "P5");
    write(&place, "there", (5, 1, 1), "20240105", "other");
    // Without a date, and another date there.
    write(&place, "here", (6, 1, 1), "", "P6");
    write(&place, "here", (8, 1, 1), "20240108", "P8");
    write(&place, "there", (8, 1, 1), "20220108", "P8");
    for directory in both {
        place.run(["scan", "--index", &format!("{directory}.db"), directory]).expect(0);
    }
    place
}

/// The planted differences: kind, level, UID, and attribute. Counts are told if the peer knows
/// them.
fn planted(with_counts: bool) -> BTreeSet<[String; 4]> {
    let mut planted = vec![
        ["only-here", "STUDY", "1.2.2", ""],
        ["only-there", "STUDY", "1.2.3", ""],
        ["only-here", "IMAGE", "1.2.4.1.2", ""],
        ["only-there", "SERIES", "1.2.4.3", ""],
        ["other-value", "STUDY", "1.2.5", "PatientID"],
        ["only-here", "STUDY", "1.2.6", ""],
        ["other-value", "STUDY", "1.2.8", "StudyDate"],
    ];
    if with_counts {
        planted.push(["other-count", "STUDY", "1.2.4", "NumberOfStudyRelatedInstances"]);
        planted.push(["other-count", "SERIES", "1.2.4.1", "NumberOfSeriesRelatedInstances"]);
    }
    planted.into_iter().map(|row| row.map(str::to_owned)).collect()
}

/// The rows of a comparison as [`planted`] has them.
fn rows(text: &str) -> BTreeSet<[String; 4]> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        let uid = [4, 3, 2].into_iter().map(|at| &row[at]).find(|uid| !uid.is_empty()).unwrap_or_default();
        [&row[0], &row[1], uid, &row[5]].map(str::to_owned)
    });
    rows.collect()
}

fn compare(place: &Place, arguments: &[&str]) -> Run {
    place.run(["compare", "--index", "here.db"].into_iter().chain(arguments.iter().copied()))
}

fn send(called: &str, port: u16, directory: &Path) -> Option<()> {
    let mut send = dcmtk("dcmsend")?;
    send.args(["-aec", called, "+sd", "+r", "127.0.0.1", &port.to_string()]);
    peers::run(send.arg(directory)).expect_success();
    Some(())
}

#[test]
fn another_index_is_compared() {
    let place = archives();
    let run = compare(&place, &["--with", "there.db"]).expect(1);
    assert_eq!(rows(&run.stdout), planted(true), "{run:?}");
    assert!(run.stderr.contains("3 only-here") || run.stderr.contains("4 only-here"), "{run:?}");
    let same = place.run(["compare", "--index", "here.db", "--with", "here.db"]).expect(0);
    assert_eq!(same.stdout.lines().count(), 1, "{same:?}");
}

/// Makes the indexes of `here` and `there`. A directory that is missing gives an empty one.
fn scan_both(place: &Place) {
    for directory in ["here", "there"] {
        fs::create_dir_all(place.path(directory)).unwrap();
        place.run(["scan", "--index", &format!("{directory}.db"), directory]).expect(0);
    }
}

#[test]
fn studies_of_any_year_are_compared() {
    let place = Place::new();
    write(&place, "here", (1, 1, 1), "00010101", "P1");
    write(&place, "here", (2, 1, 1), "09991231", "P2");
    write(&place, "there", (2, 1, 1), "09991231", "P2");
    // Only the other index has studies that are so new.
    write(&place, "there", (3, 1, 1), "99991231", "P3");
    scan_both(&place);
    let expected = [["only-here", "STUDY", "1.2.1", ""], ["only-there", "STUDY", "1.2.3", ""]];
    let expected: BTreeSet<_> = expected.map(|row| row.map(str::to_owned)).into();
    let run = compare(&place, &["--with", "there.db"]).expect(1);
    assert_eq!(rows(&run.stdout), expected, "{run:?}");
    // The oldest study may be in the other index.
    let expected = [["only-there", "STUDY", "1.2.1", ""], ["only-here", "STUDY", "1.2.3", ""]];
    let expected: BTreeSet<_> = expected.map(|row| row.map(str::to_owned)).into();
    let run = place.run(["compare", "--index", "there.db", "--with", "here.db"]).expect(1);
    assert_eq!(rows(&run.stdout), expected, "{run:?}");
}

#[test]
fn a_node_is_asked_about_studies_of_any_year() {
    let place = Place::new();
    write(&place, "here", (1, 1, 1), "00010101", "P1");
    write(&place, "there", (2, 1, 1), "09991231", "P2");
    scan_both(&place);
    let node = TestNode::start();
    if send("DCMDEX", node.address().port(), &place.path("there")).is_none() {
        return;
    }
    let run = compare(&place, &["--with", &format!("DCMDEX=127.0.0.1:{}", node.address().port())]).expect(1);
    let expected = [["only-here", "STUDY", "1.2.1", ""], ["only-there", "STUDY", "1.2.2", ""]];
    assert_eq!(rows(&run.stdout), expected.map(|row| row.map(str::to_owned)).into(), "{run:?}");
}

#[test]
fn a_study_with_two_dates_is_told_once() {
    let place = Place::new();
    write(&place, "here", (1, 1, 1), "20240101\\20240202", "P1");
    write(&place, "there", (2, 1, 1), "20240101\\20240202", "P2");
    scan_both(&place);
    let run = compare(&place, &["--with", "there.db"]).expect(1);
    assert_eq!(run.stdout.lines().count(), 3, "{run:?}");
    assert!(run.stderr.contains("1 only-here, 1 only-there"), "{run:?}");
}

#[test]
fn a_node_is_compared() {
    let place = archives();
    let node = TestNode::start();
    if send("DCMDEX", node.address().port(), &place.path("there")).is_none() {
        return;
    }
    let with = format!("DCMDEX=127.0.0.1:{}", node.address().port());
    let run = compare(&place, &["--with", &with, "--out", "out.csv"]).expect(1);
    assert_eq!(rows(&fs::read_to_string(place.path("out.csv")).unwrap()), planted(true), "{run:?}");
    assert!(!place.path("out.csv.partial").exists() && !place.path("out.csv.state").exists());
}

#[test]
fn orthanc_is_compared() {
    let place = archives();
    let Some((_server, port)) = orthanc_server(&place.path("")) else { return };
    if send("PEER", port, &place.path("there")).is_none() {
        return;
    }
    let run = compare(&place, &["--with", &format!("PEER=127.0.0.1:{port}")]).expect(1);
    assert_eq!(rows(&run.stdout), planted(true), "{run:?}");
}

#[test]
fn dcmqrscp_is_compared_although_it_counts_nothing() {
    let place = archives();
    let Some((_server, port)) = dcmqrscp(&place.path("")) else { return };
    if send("PEER", port, &place.path("there")).is_none() {
        return;
    }
    let run = compare(&place, &["--with", &format!("PEER=127.0.0.1:{port}"), "--from", "2022-01-01"]).expect(1);
    assert_eq!(rows(&run.stdout), planted(false), "{run:?}");
}

#[test]
fn a_comparison_goes_on_where_it_was_interrupted() {
    let place = archives();
    compare(&place, &["--with", "there.db", "--out", "whole.csv", "--from", "2020-01-01", "--to", "2024-12-31"])
        .expect(1);
    let whole = fs::read_to_string(place.path("whole.csv")).unwrap();
    // A state after which only the last days are left, with a row that no comparison would find.
    let earlier = format!("{}\r\nonly-here,STUDY,9.9.9,,,,,\r\n", whole.lines().next().unwrap().trim_end());
    let state = serde_json::json!({
        "question": "there.db 2020-01-01 2024-12-31", "first": 20_200_101, "last": 20_241_231,
        "done": 20_240_104, "bytes": earlier.len(),
    });
    fs::write(place.path("out.csv.partial"), format!("{earlier}only-here,STUDY,half")).unwrap();
    fs::write(place.path("out.csv.state"), state.to_string()).unwrap();
    let arguments = ["--with", "there.db", "--out", "out.csv", "--from", "2020-01-01", "--to", "2024-12-31"];
    let run = compare(&place, &arguments).expect(1);
    assert!(run.stderr.contains("goes on after 20240104"), "{run:?}");
    let found = rows(&fs::read_to_string(place.path("out.csv")).unwrap());
    let uids: Vec<&str> = found.iter().map(|row| row[2].as_str()).collect();
    assert!(uids.contains(&"9.9.9") && uids.contains(&"1.2.5") && !uids.contains(&"1.2.2"), "{found:?}");
    // Another question begins anew.
    fs::write(place.path("out.csv.partial"), &earlier).unwrap();
    fs::write(place.path("out.csv.state"), state.to_string()).unwrap();
    compare(&place, &["--with", "there.db", "--out", "out.csv"]).expect(1);
    assert_eq!(rows(&fs::read_to_string(place.path("out.csv")).unwrap()), planted(true));
}

#[test]
fn a_peer_that_does_not_answer_is_an_error_and_nothing_is_under_the_final_name() {
    let place = archives();
    let port = peers::free_port();
    let with = format!("PEER=127.0.0.1:{port}");
    let arguments = ["--with", &with, "--out", "out.csv", "--from", "2024-01-01", "--to", "2024-01-31"];
    let run = compare(&place, &arguments).expect(2);
    assert!(run.stderr.contains("the same command goes on") && !place.path("out.csv").exists(), "{run:?}");
    let reason = format!("PEER at 127.0.0.1:{port}, called by DCMDEX: no connection: ");
    assert!(run.stderr.contains(&reason) && run.stderr.contains("; the comparison is not complete; hint:"), "{run:?}");
    // A folder without index files is no index, whatever its name.
    std::fs::create_dir(place.path("FOLDER")).unwrap();
    for (missing, told) in [
        ("before.db", "there is no index at before.db"),
        ("NOBODY", "no configured address"),
        ("FOLDER", "no configured address"),
    ] {
        let refused = compare(&place, &["--with", missing]).expect(2);
        assert!(refused.stderr.contains(told), "{refused:?}");
    }
    assert!(compare(&place, &["--with", "there.db", "--from", "gestern"]).expect(2).stderr.contains("2024-01-31"));
}

/// The type of P-DATA-TF PDUs (PS3.8 9.3.5).
const P_DATA_TF: u8 = 4;

/// The type of A-RELEASE-RQ PDUs (PS3.8 9.3.6).
const A_RELEASE_RQ: u8 = 5;

/// A PACS that relays to another peer. It calls `asked` with what a caller sends, and `passes` with
/// the type of each PDU of an answer. If that is false, it aborts the association (PS3.8 9.3.8).
fn relay(
    to: SocketAddr,
    asked: impl Fn(&[u8]) + Clone + Send + 'static,
    passes: impl Fn(u8) -> bool + Send + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for caller in listener.incoming() {
            let (mut caller, mut peer) = (caller.unwrap(), TcpStream::connect(to).unwrap());
            let (mut from_caller, mut to_peer) = (caller.try_clone().unwrap(), peer.try_clone().unwrap());
            let asked = asked.clone();
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = from_caller.read(&mut bytes) {
                    asked(&bytes[..read]);
                    if to_peer.write_all(&bytes[..read]).is_err() {
                        break;
                    }
                }
            });
            let mut head = [0; 6];
            while peer.read_exact(&mut head).is_ok() {
                let mut rest = vec![0; u32::from_be_bytes(head[2..].try_into().unwrap()) as usize];
                peer.read_exact(&mut rest).unwrap();
                if !passes(head[0]) {
                    let _ = caller.write_all(&[7, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
                    break;
                }
                if caller.write_all(&[&head[..], &rest].concat()).is_err() {
                    break;
                }
            }
            let _ = (caller.shutdown(Shutdown::Both), peer.shutdown(Shutdown::Both));
        }
    });
    port
}

/// A PACS that answers half: it aborts the association after three P-DATA-TF PDUs that answer one
/// question. It does so while `aborts` is true.
fn half_pacs(to: SocketAddr, aborts: &Arc<AtomicBool>) -> u16 {
    let (answers, aborts) = (Arc::new(AtomicU32::new(0)), Arc::clone(aborts));
    let of_question = Arc::clone(&answers);
    let passes = move |kind| answers.fetch_add(u32::from(kind == P_DATA_TF), Relaxed) < 3 || !aborts.load(Relaxed);
    relay(to, move |_| of_question.store(0, Relaxed), passes)
}

#[test]
fn a_pacs_gets_each_question_after_a_pause() {
    const PAUSE: Duration = Duration::from_millis(20);
    let place = archives();
    let node = TestNode::start();
    if send("DCMDEX", node.address().port(), &place.path("there")).is_none() {
        return;
    }
    let last_answer: Arc<Mutex<Option<Instant>>> = Arc::default();
    let gaps: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let (answered, of_answers) = (Arc::clone(&last_answer), Arc::clone(&gaps));
    let asked = move |bytes: &[u8]| {
        // A question may need a new association. The end of one is no question.
        if let Some(before) = answered.lock().unwrap().take().filter(|_| bytes[0] != A_RELEASE_RQ) {
            of_answers.lock().unwrap().push(before.elapsed());
        }
    };
    let passes = move |kind| {
        if kind == P_DATA_TF {
            *last_answer.lock().unwrap() = Some(Instant::now());
        }
        true
    };
    let with = format!("DCMDEX=127.0.0.1:{}", relay(node.address(), asked, passes));
    let run = compare(&place, &["--with", &with, "--pause", &PAUSE.as_millis().to_string()]).expect(1);
    assert_eq!(rows(&run.stdout), planted(true), "{run:?}");
    // The PACS has no work in these times. A busy machine makes them longer, and never shorter.
    let gaps = gaps.lock().unwrap();
    assert!(gaps.len() > 3 && gaps.iter().all(|gap| *gap >= PAUSE), "{gaps:?}");
}

#[test]
fn a_pacs_that_answers_half_is_said_and_nothing_of_its_half_counts() {
    let place = archives();
    let node = TestNode::start();
    if send("DCMDEX", node.address().port(), &place.path("there")).is_none() {
        return;
    }
    let aborts = Arc::new(AtomicBool::new(true));
    let with = format!("DCMDEX=127.0.0.1:{}", half_pacs(node.address(), &aborts));
    let arguments = ["--with", &with, "--out", "out.csv", "--from", "2022-01-01"];
    let run = compare(&place, &arguments).expect(2);
    assert!(run.stderr.contains("not complete; hint: the same command goes on"), "{run:?}");
    assert!(!place.path("out.csv").exists());
    // Studies whose answers were cut off are not taken for studies that the PACS lacks.
    let so_far = rows(&fs::read_to_string(place.path("out.csv.partial")).unwrap());
    assert!(so_far.is_subset(&planted(true)) && so_far.len() < planted(true).len(), "{so_far:?}");
    let whole = fs::read_to_string(place.path("out.csv.state")).unwrap();
    fs::write(place.path("out.csv.state"), &whole[..whole.len() / 2]).unwrap();
    let refused = compare(&place, &arguments).expect(2).stderr;
    assert!(refused.contains("remove out.csv.state to begin anew"), "{refused}");
    assert_eq!(rows(&fs::read_to_string(place.path("out.csv.partial")).unwrap()), so_far);
    // A study that has come meanwhile may be newer than all, and the next day may have begun.
    let mut state: serde_json::Value = serde_json::from_str(&whole).unwrap();
    state["last"] = 20_260_101.into();
    fs::write(place.path("out.csv.state"), state.to_string()).unwrap();
    aborts.store(false, Relaxed);
    let run = compare(&place, &arguments).expect(1);
    assert!(run.stderr.contains("goes on after"), "{run:?}");
    assert_eq!(rows(&fs::read_to_string(place.path("out.csv")).unwrap()), planted(true));
}

#[test]
fn a_list_is_compared() {
    let place = archives();
    fs::write(place.path("list.csv"), "StudyInstanceUID\n1.2.1\n1.2.4\n1.2.5\n1.2.6\n1.2.7\n1.2.8\n1.2.99\n").unwrap();
    let run = compare(&place, &["--with", "@list.csv"]).expect(1);
    let expected = [["only-here", "STUDY", "1.2.2", ""], ["only-there", "STUDY", "1.2.99", ""]];
    assert_eq!(rows(&run.stdout), expected.map(|row| row.map(str::to_owned)).into(), "{run:?}");
}
