//! `dcmdex echo`.

use std::fs;
use std::net::TcpListener;

use super::*;
use crate::util::node::TestNode;

#[test]
fn a_peer_that_answers_is_told_with_its_times() {
    let (node, place) = (TestNode::start(), Place::new());
    let peer = format!("DCMDEX=127.0.0.1:{}", node.port());
    let run = place.run(["echo", &peer]).expect(0);
    assert!(run.stdout.starts_with(&format!("DCMDEX at 127.0.0.1:{} answers 0000 (", node.port())), "{run:?}");
    let told = &place.run(["echo", &peer, "--json"]).expect(0).json()[0];
    assert_eq!((told["answered"].as_bool(), told["status"].as_str()), (Some(true), Some("0000")));
    assert!(told["association_ms"].is_f64() && told["response_ms"].is_f64(), "{told}");
}

#[test]
fn a_configured_peer_goes_by_its_title() {
    let (node, place) = (TestNode::start(), Place::new());
    let settings = format!("[peers]\nDCMDEX = \"127.0.0.1:{}\"\n", node.port());
    fs::write(place.path("dcmdex.toml"), settings).unwrap();
    place.run(["echo", "DCMDEX"]).expect(0);
    let run = place.run(["echo", "NOBODY"]).expect(2);
    assert!(run.stderr.contains("hint: name it as NOBODY=HOST:PORT"), "{run:?}");
}

#[test]
fn a_peer_that_refuses_or_is_not_there_is_an_error_that_says_so() {
    let (node, place) = (TestNode::start(), Place::new());
    let run = place.run(["echo", &format!("OTHER=127.0.0.1:{}", node.port())]).expect(2);
    assert!(run.stderr.contains("association rejected"), "{run:?}");
    assert!(run.stderr.contains("hint: the peer has another AE title"), "{run:?}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let told = &place.run(["echo", &format!("X={nobody}"), "--json"]).expect(2).json()[0];
    assert_eq!(told["answered"], false);
    assert!(told["error"].as_str().unwrap().starts_with("no connection"), "{told}");
}

#[test]
fn a_port_for_tls_is_recognised() {
    let (listener, place) = (TcpListener::bind("127.0.0.1:0").unwrap(), Place::new());
    let peer = format!("X={}", listener.local_addr().unwrap());
    // As a TLS server answers an A-ASSOCIATE-RQ: a fatal alert.
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, &[0x15, 3, 1, 0, 2, 2, 10]).unwrap();
        stream
    });
    let run = place.run(["echo", &peer]).expect(2);
    assert!(run.stderr.contains("speaks TLS") && run.stderr.contains("hint: name its port without TLS"), "{run:?}");
    drop(server.join().unwrap());
}

#[test]
fn a_peer_that_does_not_know_this_node_is_told_with_what_to_do() {
    let (listener, place) = (TcpListener::bind("127.0.0.1:0").unwrap(), Place::new());
    let peer = format!("X={}", listener.local_addr().unwrap());
    // A-ASSOCIATE-RJ: permanent, by the service user, calling AE title not recognized.
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, &[3, 0, 0, 0, 0, 4, 0, 1, 1, 3]).unwrap();
        stream
    });
    let run = place.run(["echo", &peer]).expect(2);
    assert!(run.stderr.contains("hint: the peer has to know the AE title of this node"), "{run:?}");
    drop(server.join().unwrap());
}
