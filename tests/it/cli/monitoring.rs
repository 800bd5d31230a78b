//! The port for supervisors, and `status --check`.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use super::scan::assert_documented;
use super::serve::Node;
use super::*;
use crate::util::http::{connect_from, request};
use crate::util::objects;

fn monitored(place: &Place) -> (Node, SocketAddr) {
    let node = Node::start(place, &["--monitoring-port", "0"]);
    let address = node.listening["monitoring_address"].as_str().unwrap().parse().unwrap();
    (node, address)
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let response = request(address, "GET", path, &[], b"");
    (response.status, String::from_utf8(response.body).unwrap())
}

#[test]
fn a_supervisor_learns_whether_the_node_serves_and_nothing_of_a_patient() {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    objects::write(&place.path("archive/1"), 1, 1, 1);
    place.run(["scan", "archive"]).expect(0);
    let (node, address) = monitored(&place);
    assert_eq!(get(address, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(address, "/readyz"), (200, "ready\n".to_owned()));
    let (code, text) = get(address, "/status");
    assert_eq!(code, 200, "{text}");
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_documented("/status", &status);
    assert_documented("/status index", &status["index"]);
    assert_eq!((&status["index"]["instances"], &status["grade"]), (&1.into(), &"OK".into()));
    let found = place.run(["find", "--format", "ndjson", "PatientName", "PatientID"]).expect(0).json();
    for value in found[0].as_object().unwrap().values() {
        let value = value.as_str().unwrap();
        assert!(value.len() > 1 && !text.contains(value), "{value}");
    }
    assert_eq!(get(address, "/dicom-web/studies").0, 404);
    assert_eq!(request(address, "POST", "/metrics", &[], b"").status, 405);
    assert_eq!(request(address, "GET", "/status", &[("Origin", "http://evil.example")], b"").status, 403);
    // Without its index the node serves nothing.
    fs::remove_file(place.path("dcmdex-data/index.db")).unwrap();
    let (code, why) = get(address, "/readyz");
    assert!(code == 503 && why.contains("index"), "{code} {why}");
    assert!(get(address, "/metrics").1.contains("\ndcmdex_ready 0\n"));
    drop(node);
}

#[test]
fn a_client_that_never_ends_its_requests_keeps_no_supervisor_out() {
    let place = Place::new();
    let (node, address) = monitored(&place);
    let connect = |_| {
        let mut stream = connect_from([127, 0, 0, 9], address);
        // Those above its share are closed at once.
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc");
        stream
    };
    let held: Vec<_> = (0..40).map(connect).collect();
    for path in ["/healthz", "/readyz", "/metrics", "/status"] {
        assert_eq!(get(address, path).0, 200, "{path}");
    }
    drop((held, node));
}

#[test]
fn prometheus_takes_the_metrics() {
    let place = Place::new();
    let (node, address) = monitored(&place);
    let (code, text) = get(address, "/metrics");
    assert_eq!(code, 200);
    for name in ["dcmdex_ready 1", "dcmdex_storage_free_bytes ", "dcmdex_watches 0"] {
        assert!(text.contains(&format!("\n{name}")), "{name}: {text}");
    }
    let promtool = Command::new("/usr/bin/promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    match promtool {
        Ok(mut promtool) => {
            promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            let output = promtool.wait_with_output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && told.is_empty(), "{told}");
        }
        Err(_) => println!("skipped: promtool is not installed (scripts/peers)"),
    }
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_check_is_one_line_with_the_exit_code_of_supervisors() {
    let place = Place::new();
    let none = place.run(["status", "--check"]).expect(2);
    assert!(none.stdout.starts_with("DCMDEX CRITICAL - there is no index") && none.stdout.lines().count() == 1);
    fs::create_dir(place.path("archive")).unwrap();
    place.run(["scan", "archive"]).expect(0);
    let sound = place.run(["status", "--check"]).expect(0).stdout;
    assert!(sound.starts_with("DCMDEX OK - no problem known | watches=0 free="), "{sound}");

    fs::write(place.path("dcmdex.toml"), "[store]\nmin_free_mib = 1073741824\n").unwrap();
    // A twentieth of the disk stays free at most, and five times that is little.
    let space = rustix::fs::statvfs(place.path("")).unwrap();
    let (free, part) = (space.f_bavail, space.f_blocks / 20);
    let (code, word) = if free <= part {
        (2, "CRITICAL")
    } else if free < 5 * part {
        (1, "WARNING")
    } else {
        (0, "OK")
    };
    let run = place.run(["status", "--check"]).expect(code);
    assert!(run.stdout.starts_with(&format!("DCMDEX {word} - ")), "{run:?}");

    fs::write(place.path("dcmdex.toml"), "[[watch]]\npath = \"gone\"\nevery = \"1s\"\n").unwrap();
    let node = Node::start(&place, &[]);
    // The first look may come before the node listens.
    while !place.run(["status", "--check"]).stdout.contains("it does not exist") {}
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let failing = place.run(["status", "--check"]).expect(1).stdout;
    assert!(failing.contains("WARNING") && failing.contains("gone: it does not exist"), "{failing}");

    fs::write(place.path("dcmdex.toml"), "prot = 1\n").unwrap();
    let unknown = place.run(["status", "--check"]).expect(3).stdout;
    assert!(unknown.starts_with("DCMDEX UNKNOWN - ") && unknown.lines().count() == 1, "{unknown}");
}
