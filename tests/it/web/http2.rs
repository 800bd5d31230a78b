//! HTTP/2, and clients that abuse it.

use std::io::ErrorKind;

use super::*;
use crate::util::http2::{
    CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE, PING, REFUSED_STREAM, RST_STREAM, SETTINGS, fields, frame, head,
};

/// The first byte of the field `:status: 200` (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

const STOW: &[(&str, &str)] = &[("content-type", "multipart/related; type=\"application/dicom\"; boundary=b")];

/// Asserts that the node still answers, over both versions.
#[track_caller]
fn is_well(web: &TestWeb) {
    web.get("/studies?limit=1").expect(200);
    let mut connection = Connection::open(web.address, &[]);
    connection.send(&head(1, END_STREAM, "GET", "/dicom-web/studies?limit=1", &[])).unwrap();
    assert_eq!(connection.receive_kind(HEADERS).payload[0], STATUS_200);
    assert!(connection.receive_kind(DATA).payload.starts_with(b"[{"));
}

/// Sends until the node has closed the connection; whether it did before so many bytes.
fn is_closed_within(connection: &mut Connection, bytes: &[u8], limit: usize) -> bool {
    (0..limit / bytes.len()).any(|_| match connection.send(bytes) {
        Ok(()) => false,
        Err(error) => matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
    })
}

#[test]
fn a_connection_has_as_many_streams_as_it_was_told() {
    let web = TestWeb::storing(|_| {}, None);
    let mut connection = Connection::open(web.address, &[]);
    let settings = connection.receive_kind(SETTINGS);
    let streams = settings.setting(MAX_CONCURRENT_STREAMS).unwrap();
    assert!((100..=256).contains(&streams), "OHIF has 100 requests in flight");
    assert!(settings.setting(MAX_HEADER_LIST_SIZE).unwrap() <= 64 << 10);
    // Uploads whose bodies do not come yet.
    for number in 0..=streams {
        connection.send(&head(2 * number + 1, 0, "POST", "/dicom-web/studies", STOW)).unwrap();
    }
    let refused = connection.receive_kind(RST_STREAM);
    assert_eq!((refused.stream, refused.error_code()), (2 * streams + 1, REFUSED_STREAM));
    // The others are still there.
    connection.send(&frame(DATA, END_STREAM, 1, b"--b--")).unwrap();
    assert_eq!(connection.receive_kind(HEADERS).stream, 1);
    web.get("/studies").expect(204);
}

#[test]
fn heads_that_are_too_long_or_never_end_are_refused() {
    let web = TestWeb::start();
    let mut connection = Connection::open(web.address, &[]);
    // In frames of 16 KiB: one field of 100 KiB.
    let long = fields("GET", "/healthz", &[("x", &"a".repeat(100 << 10))]);
    let (first, rest) = long.split_at(16 << 10);
    let mut bytes = frame(HEADERS, END_STREAM, 1, first);
    let pieces: Vec<_> = rest.chunks(16 << 10).collect();
    for (number, piece) in pieces.iter().enumerate() {
        let flags = if number + 1 == pieces.len() { END_HEADERS } else { 0 };
        bytes.extend(frame(CONTINUATION, flags, 1, piece));
    }
    let _ = connection.send(&bytes);
    let answer = std::iter::from_fn(|| connection.receive())
        .find(|frame| matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY))
        .unwrap();
    assert!(answer.kind != HEADERS || answer.payload[0] != STATUS_200, "{answer:?}");
    is_well(&web);

    // Fields without an end, and frames with nothing in them.
    for piece in [frame(CONTINUATION, 0, 1, &fields("", "", &[("x", &"a".repeat(10_000))])[50..]), {
        frame(CONTINUATION, 0, 1, b"")
    }] {
        let mut connection = Connection::open(web.address, &[]);
        connection.send(&frame(HEADERS, END_STREAM, 1, &fields("GET", "/healthz", &[]))).unwrap();
        assert!(is_closed_within(&mut connection, &piece.repeat(100), 64 << 20));
        is_well(&web);
    }
}

// CVE-2023-44487.
#[test]
fn a_client_that_opens_and_resets_streams_is_cut_off() {
    let web = TestWeb::start();
    let mut connection = Connection::open(web.address, &[]);
    let cancel = 8_u32.to_be_bytes();
    let flood: Vec<u8> = (0..20_000)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            let mut bytes = head(stream, END_STREAM, "GET", "/dicom-web/instances?includefield=all", &[]);
            bytes.extend(frame(RST_STREAM, 0, stream, &cancel));
            bytes
        })
        .collect();
    // It may be cut off before it has sent everything.
    let _ = connection.send(&flood);
    let mut end = std::iter::from_fn(|| connection.receive()).filter(|frame| frame.kind == GOAWAY);
    // The node's last word can be lost where it closes while we still send.
    if let Some(end) = end.next() {
        assert_eq!(end.error_code(), ENHANCE_YOUR_CALM);
    }
    assert!(is_closed_within(&mut connection, &frame(PING, 0, 0, &[0; 8]), 1 << 20));
    is_well(&web);
}

#[test]
fn a_client_that_lets_nothing_through_its_window_is_cut_off() {
    let quick = |options: &mut Options| options.write_timeout = Duration::from_millis(500);
    let web = TestWeb::with(&archive(), quick, None);
    let mut connection = Connection::open(web.address, &[(INITIAL_WINDOW_SIZE, 0)]);
    for number in 0..100 {
        connection.send(&head(2 * number + 1, END_STREAM, "GET", "/dicom-web/instances", &[])).unwrap();
    }
    // Its socket takes everything, so that only the responses stand still.
    let frames: Vec<_> = std::iter::from_fn(|| connection.receive()).collect();
    assert!(frames.iter().any(|frame| frame.kind == HEADERS && frame.payload[0] == STATUS_200));
    assert!(frames.iter().all(|frame| frame.kind != DATA || frame.payload.is_empty()), "{frames:?}");
    is_well(&web);
}

#[test]
fn a_client_that_has_everything_confirmed_and_reads_nothing_is_cut_off() {
    let quick = |options: &mut Options| options.write_timeout = Duration::from_millis(500);
    let web = TestWeb::with(&archive(), quick, None);
    for flood in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xFF, 0xFF])] {
        let mut connection = Connection::open(web.address, &[]);
        assert!(is_closed_within(&mut connection, &flood.repeat(1_000), 1 << 30));
        is_well(&web);
    }
}
