//! Hostile input on an open port, from many connections at once. The test limits the memory of the
//! process and checks that the node still answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use data_encoding::BASE64;
use dcmdex::access::users::{Rights, line_with_password};
use dcmdex::ul::pdu_io::{MAX_ASSOCIATE_RQ_LENGTH, OFFERED_MAX_LENGTH};
use dicom_ul::pdu::write_pdu;
use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::messages::permit;
use super::serve::Node;
use super::*;
use crate::util::http;
use crate::util::http2::{CANCEL, Connection, END_STREAM, PING, RST_STREAM, frame, head};
use crate::util::scripted::{
    DataSet, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION, connected, find_command, request, store_command,
};

const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const CONTEXTS: &[(&str, &[&str])] = &[
    (VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (STUDY_ROOT_FIND, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (SECONDARY_CAPTURE, &[DEFLATED]),
];

/// Memory that the process may take in addition to that of its first conversations.
const MEMORY: u64 = 64 << 20;

fn connect(node: &Node) -> TcpStream {
    connected(("127.0.0.1", node.port))
}

/// Returns the peak memory of the process.
fn peak(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Returns the peak memory after a usual conversation.
fn base(node: &Node) -> u64 {
    let mut peer = node.associate(CONTEXTS);
    peer.echo(1);
    let data_set = DataSet::instance(SECONDARY_CAPTURE, "1.2", "1.3", "1.4").bytes(0x7FE0, 0x0010, &vec![0; 1 << 20]);
    peer.send_message(3, &store_command(1, SECONDARY_CAPTURE, "1.4"), Some(&data_set.0));
    assert_eq!(peer.receive_message().status(), 0);
    peer.release();
    peak(node)
}

fn nested(levels: usize) -> Vec<u8> {
    let mut data_set = DataSet::default().uid(0x0008, 0x0016, SECONDARY_CAPTURE).uid(0x0008, 0x0018, "1.2.3");
    for _ in 0..levels {
        data_set = data_set.header(0x0008, 0x1140, u32::MAX).header(0xFFFE, 0xE000, u32::MAX);
    }
    data_set.0
}

/// Builds some 2 MB that inflate to 2 GB of one element.
fn bomb() -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let mut start = Vec::new();
    start.extend([8, 0, 0x16, 0, b'U', b'I', 26, 0]);
    start.extend(SECONDARY_CAPTURE.bytes().chain([0]).take(26));
    start.extend([8, 0, 0x18, 0, b'U', b'I', 6, 0]);
    start.extend(*b"1.2.3\0");
    // A sequence of undefined length, and in it nothing but what has to be looked at.
    start.extend([8, 0, 0x40, 0x11, b'S', b'Q', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    encoder.write_all(&start).unwrap();
    let items = [0xFE, 0xFF, 0, 0xE0, 0, 0, 0, 0].repeat(1 << 17);
    for _ in 0..2_000 {
        encoder.write_all(&items).unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn nothing_that_is_sent_takes_more_than_its_share_of_memory() {
    let place = Place::new();
    let node = Node::start(&place, &[]);
    let base = base(&node);
    let large = DataSet::instance(SECONDARY_CAPTURE, "1.2", "1.3", "1.2.3");
    let data_sets: Vec<(&str, u8, Vec<u8>)> = vec![
        ("100,000 nested sequences", 3, nested(100_000)),
        ("a value of 4 GiB", 3, large.clone().header(0x0020, 0x4000, 0xFFFF_FFFE).0),
        ("20 MB of backslashes", 3, large.clone().bytes(0x0008, 0x103E, &vec![b'\\'; 20 << 20]).0),
        ("a million empty items", 3, {
            let mut bytes = large.clone().header(0x0008, 0x1140, u32::MAX).0;
            bytes.extend([0xFE, 0xFF, 0, 0xE0, 0, 0, 0, 0].repeat(1_000_000));
            bytes
        }),
        ("a million empty elements", 3, [0x09, 0, 0x10, 0, 0, 0, 0, 0].repeat(1_000_000)),
        ("2 MB that inflate to 2 GB", 7, bomb()),
    ];
    for (name, context, data_set) in data_sets {
        let mut peer = node.associate(CONTEXTS);
        peer.send_message(context, &store_command(1, SECONDARY_CAPTURE, "1.2.3"), Some(&data_set));
        let status = peer.receive_message().status();
        assert!(status != 0x0110 && status != 0xA700, "{name}: {status:04X}");
        peer.echo(1);
        assert!(peak(&node) <= base + MEMORY, "{name}: {} above {base}", peak(&node) - base);
    }
    for (name, identifier) in [
        ("a nested Identifier", nested(100_000)),
        ("an Identifier of 32 MB", DataSet::default().bytes(0x0010, 0x0010, &vec![b'*'; 32 << 20]).0),
        (
            "a list of 100,000 UIDs",
            DataSet::default().text(0x0008, 0x0052, "STUDY").uid(0x0020, 0x000D, &["1.2"; 100_000].join("\\")).0,
        ),
        (
            "10,000 wild cards",
            DataSet::default().text(0x0008, 0x0052, "STUDY").text(0x0010, 0x0010, &"*?".repeat(5_000)).0,
        ),
    ] {
        let mut peer = node.associate(CONTEXTS);
        peer.send_message(5, &find_command(1, STUDY_ROOT_FIND), Some(&identifier));
        while matches!(peer.receive_message().status(), 0xFF00 | 0xFF01) {}
        peer.echo(1);
        assert!(peak(&node) <= base + MEMORY, "{name}: {} above {base}", peak(&node) - base);
    }
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
}

/// Sends a request over HTTP and returns the whole answer.
fn http(node: &Node, request: &[&[u8]]) -> String {
    let address = node.listening["http_address"].as_str().unwrap();
    let mut socket = connected(address);
    for piece in request {
        // A node that refuses early may close before it has read everything.
        let _ = socket.write_all(piece);
    }
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The head of a STOW-RS request with one part, up to the first byte of the part.
fn stow_head(more: &str, length: usize) -> Vec<u8> {
    format!(
        "POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\
         Content-Type: application/dicom\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}

/// A file with this data set.
fn file(transfer_syntax: &str, data_set: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    for (element, value) in [(2, SECONDARY_CAPTURE), (3, "1.2.3"), (0x10, transfer_syntax)] {
        let padded = format!("{value}{}", "\0".repeat(value.len() % 2));
        meta.extend([2, 0, element, 0, b'U', b'I', u8::try_from(padded.len()).unwrap(), 0]);
        meta.extend(padded.bytes());
    }
    let mut bytes = [&[0; 128][..], b"DICM", &[2, 0, 0, 0, b'U', b'L', 4, 0]].concat();
    bytes.extend(u32::try_from(meta.len()).unwrap().to_le_bytes());
    bytes.extend(meta);
    bytes.extend(data_set);
    bytes
}

/// A gzip member of some 1 MB that inflates to 1 GB of zeros.
fn gzip_bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..1_000 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn nothing_that_is_sent_over_http_takes_more_than_its_share_of_memory() {
    let place = Place::new();
    let node = Node::start(&place, &["--http-port", "0"]);
    let sound = crate::util::objects::file("P1", "1.2.7", "1.2.7.1", "1.2.7.1.1");
    assert!(http(&node, &[&stow_head("", sound.len()), &sound]).starts_with("HTTP/1.1 200"));
    let base = base(&node);
    let within = |name: &str, answer: &str, statuses: &[&str]| {
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(statuses.contains(&status), "{name}: {answer}");
        assert!(peak(&node) <= base + MEMORY, "{name}: {} above {base}", peak(&node) - base);
    };
    let bomb_of_gzip = gzip_bomb();
    let packed = stow_head("Content-Encoding: gzip\r\n", bomb_of_gzip.len());
    within("a gzip bomb", &http(&node, &[&packed, &bomb_of_gzip]), &["415"]);
    within("a gzip bomb for an object", &http(&node, &[&stow_head("", bomb_of_gzip.len()), &bomb_of_gzip]), &["409"]);
    let bomb = file(DEFLATED, &bomb());
    within("2 MB that inflate to 2 GB", &http(&node, &[&stow_head("", bomb.len()), &bomb]), &["409"]);
    let nested = file("1.2.840.10008.1.2", &nested(100_000));
    within("100,000 nested sequences", &http(&node, &[&stow_head("", nested.len()), &nested]), &["409"]);
    let long_meta = [&sound[..132], &[0; 32 << 20]].concat();
    within("32 MB before a data set", &http(&node, &[&stow_head("", long_meta.len()), &long_meta]), &["409"]);

    // A head of a part without an end, and two million parts.
    let multipart = |length: usize| {
        format!(
            "POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: \
             multipart/related; type=\"application/dicom\"; boundary=b\r\nContent-Length: {length}\r\n\r\n"
        )
        .into_bytes()
    };
    let head = [b"--b\r\nX: ".to_vec(), vec![b'a'; 64 << 20]].concat();
    within("a part whose head does not end", &http(&node, &[&multipart(head.len()), &head]), &["400"]);
    let parts = b"--b\r\n\r\n\r\n".repeat(2_000_000);
    within("two million parts", &http(&node, &[&multipart(parts.len()), &parts]), &["409", "413"]);

    // Fifty that announce 4 GiB and send the beginning of an object.
    let address = node.listening["http_address"].as_str().unwrap();
    let announced: Vec<_> = (0..50)
        .map(|_| {
            let mut socket = connected(address);
            socket.write_all(&[&stow_head("", 4 << 30)[..], &sound[..sound.len() - 2]].concat()).unwrap();
            socket
        })
        .collect();
    let query = b"GET /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    within("fifty announced bodies of 4 GiB", &http(&node, &[query]), &["200"]);
    drop(announced);
    let long = [b"GET /dicom-web/studies?PatientID=".to_vec(), vec![b'*'; 8 << 20]].concat();
    let _ = http(&node, &[&long]);
    within("a target of 8 MB", &http(&node, &[query]), &["200"]);
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
}

#[test]
fn passwords_of_clients_that_leave_at_once_are_not_all_checked_at_the_same_time() {
    let place = Place::new();
    std::fs::write(place.path("users"), line_with_password("anna", Rights::READ, "secret").unwrap()).unwrap();
    permit(&place.path("users"), 0o600);
    std::fs::write(place.path("dcmdex.toml"), "[http]\nusers = \"users\"\n").unwrap();
    let node = Node::start(&place, &["--http-port", "0"]);
    let base = base(&node);
    let basic = |credentials: &str| format!("Basic {}", BASE64.encode(credentials.as_bytes()));
    let address: SocketAddr = node.listening["http_address"].as_str().unwrap().parse().unwrap();
    let mut connection = Connection::open(address, &[]);
    for number in 0..100 {
        let stream = 2 * number + 1;
        let wrong = basic(&format!("anna:{number}"));
        let request = head(stream, END_STREAM, "GET", "/dicom-web/studies", &[("authorization", &wrong)]);
        connection.send(&request).unwrap();
        // The node has read the request when it answers this.
        connection.send(&frame(PING, 0, 0, &[0; 8])).unwrap();
        connection.receive_kind(PING);
        connection.send(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())).unwrap();
    }
    let right = basic("anna:secret");
    http::request(address, "GET", "/dicom-web/studies", &[("Authorization", &right)], b"").expect(200);
    assert!(peak(&node) <= base + MEMORY, "{} above {base}", peak(&node) - base);
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
}

#[test]
fn thousands_of_idle_and_half_open_connections_keep_nobody_out() {
    // This end of them needs open files, too.
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit }).unwrap();
    let place = Place::new();
    // All of them come from one address, which may have half.
    let settings = "[network]\nartim_timeout_seconds = 600\nidle_timeout_seconds = 600\nmax_associations = 2200\n\
                    max_associations_per_peer = 2200\nmax_unassociated_connections = 4200\n";
    std::fs::write(place.path("dcmdex.toml"), settings).unwrap();
    let node = Node::start(&place, &[]);
    let base = base(&node);
    let mut half = Vec::new();
    write_pdu(&mut half, &request(CONTEXTS).into()).unwrap();
    half.truncate(60);
    let mut connections: Vec<_> = (0..1_000).map(|_| connect(&node)).collect();
    for _ in 0..1_000 {
        let mut socket = connect(&node);
        socket.write_all(&half).unwrap();
        connections.push(socket);
    }
    // And associations that say nothing more.
    let silent: Vec<_> = (0..1_000).map(|_| node.associate(CONTEXTS)).collect();
    for _ in 0..5 {
        let mut peer = node.associate(CONTEXTS);
        peer.echo(1);
        peer.release();
    }
    assert!(peak(&node) <= base + MEMORY, "{} above {base}", peak(&node) - base);
    drop(silent);
    drop(connections);
    // The next ones are as welcome.
    node.associate(CONTEXTS).echo(1);
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
}

#[test]
fn lengths_that_are_only_declared_take_no_memory() {
    let place = Place::new();
    let settings = "[network]\nartim_timeout_seconds = 600\nread_timeout_seconds = 600\n\
                    max_associations_per_peer = 1000\n";
    std::fs::write(place.path("dcmdex.toml"), settings).unwrap();
    let node = Node::start(&place, &[]);
    let base = base(&node);
    let header = |kind: u8, length: u32| {
        let [l0, l1, l2, l3] = length.to_be_bytes();
        [kind, 0, l0, l1, l2, l3]
    };
    let mut connections: Vec<_> = (0..400).map(|_| connect(&node)).collect();
    for socket in &mut connections {
        socket.write_all(&header(0x01, MAX_ASSOCIATE_RQ_LENGTH)).unwrap();
    }
    let mut associations: Vec<_> = (0..400).map(|_| node.associate(CONTEXTS)).collect();
    for peer in &mut associations {
        peer.send(&header(0x04, OFFERED_MAX_LENGTH));
    }
    // The node has taken them in: a few turns of all that wait.
    for _ in 0..5 {
        let mut peer = node.associate(CONTEXTS);
        peer.echo(1);
        peer.release();
    }
    assert!(peak(&node) <= base + MEMORY / 2, "{} above {base}", peak(&node) - base);
    drop(associations);
    drop(connections);
    node.associate(CONTEXTS).echo(1);
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
}

#[test]
fn a_byte_now_and_then_does_not_hold_a_place() {
    let place = Place::new();
    std::fs::write(place.path("dcmdex.toml"), "[network]\nartim_timeout_seconds = 1\nread_timeout_seconds = 1\n")
        .unwrap();
    let node = Node::start(&place, &[]);
    let mut whole = Vec::new();
    write_pdu(&mut whole, &request(CONTEXTS).into()).unwrap();
    // Byte by byte, each as soon as the node has had a while to take it, until it hangs up.
    let mut socket = connect(&node);
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let sent = whole.iter().take_while(|byte| {
        let _closed = socket.write_all(std::slice::from_ref(byte));
        // An answer, an end or a reset: it has had enough.
        socket
            .read(&mut [0; 16])
            .is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    });
    assert!(sent.count() < whole.len(), "the node took a request that came byte by byte");
    node.associate(CONTEXTS).echo(1);
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
}
