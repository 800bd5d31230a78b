//! Requests that no well-meaning client sends.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use super::*;

/// Asserts that the node still answers.
#[track_caller]
fn is_well(web: &TestWeb) {
    web.get("/studies?limit=1").expect(200);
}

#[test]
fn heads_that_are_too_long_or_broken_are_refused() {
    let web = TestWeb::start();
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(1 << 20));
    let header = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(500));
    for (request, statuses) in
        [(long, &[414, 431][..]), (header, &[431]), (many, &[431]), ("GET / HTTP/9.9\r\n\r\n".into(), &[400, 505])]
    {
        let mut stream = http::connect(web.address);
        let _ = stream.write_all(request.as_bytes());
        let mut answer = String::new();
        // A node that closes while we still write may have its answer lost on the way.
        if stream.read_to_string(&mut answer).is_ok() && !answer.is_empty() {
            let status: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
            assert!(statuses.contains(&status), "{answer}");
        }
        is_well(&web);
    }
}

#[test]
fn paths_lead_nowhere_but_to_resources() {
    let web = TestWeb::start();
    let up = ["..", "%2e%2e", "..%2f", "%2e%2e%2f", "....//", "..\\", "%5c..", "..;", "%00", "%c0%ae%c0%ae"];
    for root in ["/", "/dicom-web/", "/dicom-web/studies/", "/metrics/", "/healthz/", "//", "/./"] {
        for step in up {
            for target in ["etc/passwd", "index.db", "", "%2fetc%2fpasswd"] {
                let path = format!("{root}{}{target}", format!("{step}/").repeat(3));
                let answer = http::request(web.address, "GET", &path, &[], b"");
                assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
                assert!(!answer.text().contains("root:"));
            }
        }
    }
}

#[test]
fn nothing_of_a_request_comes_back() {
    let web = TestWeb::start();
    let evil = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E";
    for path in [
        format!("/studies?PatientID={evil}&limit={evil}"),
        format!("/studies?limit=1&fuzzymatching={evil}"),
        format!("/studies/{evil}/series"),
        format!("/studies?PatientName=%0d%0aSet-Cookie:%20a=b&StudyDate={evil}"),
    ] {
        let answer = web.get(&path);
        assert!(!answer.text().contains("script") && answer.header("set-cookie").is_empty(), "{path}");
        assert_ne!(answer.header("content-type"), "text/html");
    }
}

#[test]
fn wild_cards_by_the_thousand_cost_no_more_than_one() {
    let web = TestWeb::start();
    let stars = "*?".repeat(5_000);
    let answer = web.get(&format!("/studies?PatientName=a{stars}b"));
    assert!(matches!(answer.status, 204 | 400), "{}", answer.status);
    is_well(&web);
}

/// hyper uses Transfer-Encoding and ignores the length. A proxy in front of the node may do the
/// opposite, so the connection ends after the answer.
#[test]
fn a_request_with_two_lengths_is_the_last_of_its_connection() {
    let web = TestWeb::start();
    for lengths in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: +4\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        let smuggled = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let request =
            format!("POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\n0\r\n\r\n{smuggled}");
        let mut stream = http::connect(web.address);
        let _ = stream.write_all(request.as_bytes());
        let mut answers = String::new();
        let _ = stream.read_to_string(&mut answers);
        assert!(answers.matches("HTTP/1.1 ").count() <= 1 && !answers.contains("\r\n\r\nok"), "{lengths}: {answers}");
    }
    is_well(&web);
}

#[test]
fn silent_and_slow_heads_are_cut_off_and_others_are_served() {
    let quick = |options: &mut Options| options.head_timeout = Duration::from_millis(300);
    let web = TestWeb::with(&archive(), quick, None);
    let mut slow: Vec<TcpStream> = (0..40).map(|_| http::connect(web.address)).collect();
    for (number, stream) in slow.iter_mut().enumerate() {
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET /dicom-web/studies HTTP/1.1\r\nHo");
        }
    }
    is_well(&web);
    for mut stream in slow {
        let mut rest = Vec::new();
        // Closed, with or without a last word.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn one_address_does_not_get_all_connections() {
    let few = |options: &mut Options| options.max_connections_per_address = 3;
    let web = TestWeb::with(&archive(), few, None);
    let held: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = http::connect(web.address);
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut answer = [0; 16];
            stream.read_exact(&mut answer).unwrap();
            stream
        })
        .collect();
    let mut refused = http::connect(web.address);
    let mut rest = Vec::new();
    let _ = refused.read_to_end(&mut rest);
    assert!(rest.is_empty());
    drop(held);
}

#[test]
fn a_client_that_takes_nothing_is_cut_off() {
    let folder = TempDir::new().unwrap();
    for number in 0..1500 {
        crate::util::objects::write(&folder.path().join(format!("{number}.dcm")), 1, 1, number + 1);
    }
    let quick = |options: &mut Options| {
        options.write_timeout = Duration::from_millis(500);
        options.max_connections = 30;
        options.max_connections_per_address = 30;
    };
    let web = TestWeb::with(folder.path(), quick, None);
    let idle: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = http::connect(web.address);
            // Many answers on one connection, so that the buffers of the system do not hold them all.
            let ask = b"GET /dicom-web/instances?includefield=all HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20);
            stream.write_all(&ask).unwrap();
            stream
        })
        .collect();
    is_well(&web);
    for mut stream in idle {
        // More requests, until the node has closed: nothing is read of what it sends.
        stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let closed = (0..600).any(|_| {
            let written = stream.write(&b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1500));
            let is_waiting =
                |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            written.is_err_and(|error| !is_waiting(&error))
        });
        assert!(closed);
    }
    is_well(&web);
}
