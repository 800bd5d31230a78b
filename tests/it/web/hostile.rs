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

// DNS rebinding and forged requests: `web/access.rs` has those with a wrong Host or Origin. Old
// browsers send no Origin with a form.
#[test]
fn a_form_stores_nothing() {
    let web = TestWeb::storing(|_| {}, None);
    let object = crate::util::objects::file("P1", "1.2.7", "1.2.7.1", "1.2.7.1.1");
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=b",
        "multipart/form-data; type=\"application/dicom\"; boundary=b",
        "",
    ] {
        let body = [
            b"--b\r\nContent-Disposition: form-data; name=a\r\nContent-Type: application/dicom\r\n\r\n",
            &object[..],
            b"\r\n--b--",
        ]
        .concat();
        for path in ["/dicom-web/studies", "/dicom-web/studies/1.2.7"] {
            http::request(web.address, "POST", path, &[("Content-Type", kind)], &body).expect(415);
        }
    }
    web.get("/studies").expect(204);
}

#[test]
fn no_other_page_embeds_an_answer_unless_it_is_listed() {
    let policy = "cross-origin-resource-policy";
    let web = TestWeb::start();
    for path in ["/studies", "/nowhere"] {
        assert_eq!(web.get(path).header(policy), "same-origin", "{path}");
    }
    let listed = |options: &mut Options| options.cors_origins = vec!["https://viewer.example".into()];
    assert_eq!(TestWeb::with(&archive(), listed, None).get("/studies").header(policy), "cross-origin");
}

#[test]
fn a_line_end_in_a_parameter_ends_no_header() {
    let web = TestWeb::start();
    let (break_, planted) = ("%0d%0aSet-Cookie:%20planted=1%0d%0a%0d%0a<b>", "planted");
    let clean = |what: &str, answer: &Answer| {
        assert!(answer.header("set-cookie").is_empty(), "{what}");
        assert!(!answer.text().contains(planted), "{what}: {}", answer.text());
        assert!(!answer.header("location").contains(planted) && !answer.header("warning").contains(planted), "{what}");
    };
    let parameters =
        ["limit", "offset", "fuzzymatching", "includefield", "accept", "PatientID", "00100020", "_", break_];
    for resource in ["/studies", "/series", "/instances", "/studies/1.2/series", "/studies/1.2/metadata"] {
        for parameter in parameters {
            clean(parameter, &web.get(&format!("{resource}?{parameter}={break_}")));
        }
    }
    for path in
        ["study/{}", "ohif/{}", "ohif%0d%0aX:%20planted", "?q={}", "?modality={}", "?from={}", "wado?objectUID={}"]
    {
        let path = format!("/{}", path.replace("{}", break_));
        clean(&path, &http::request(web.address, "GET", &path, &[], b""));
    }
    for template in dcmdex::web::METHODS_OF_RESOURCES.iter().map(|resource| resource.template) {
        let path = template.replace(['{', '}', '*'], break_);
        clean(template, &http::request(web.address, "GET", &path, &[], b""));
    }
}

// RFC 9110 5.5. What is not refused is at least no second header.
#[test]
fn a_bare_line_end_in_a_header_ends_no_header() {
    let web = TestWeb::start();
    let names = ["Accept", "Range", "If-None-Match", "Origin", "Content-Type", "Accept-Encoding", "Authorization", "X"];
    for name in names {
        for end in ["\r", "\n", "\r\n ", "\0", "\r\r\n"] {
            let request = format!(
                "GET /dicom-web/studies?limit=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{name}: a{end}Set-Cookie: planted=1\r\n\r\n"
            );
            let answer = http::raw(web.address, request.as_bytes());
            assert!(matches!(answer.status, 200 | 400 | 401 | 403), "{name} {end:?}: {}", answer.status);
            assert!(answer.header("set-cookie").is_empty() && !answer.text().contains("planted"), "{name} {end:?}");
        }
    }
}

// CVE-2011-3192 and those after it.
#[test]
fn overlapping_ranges_are_answered_with_one_body() {
    let web = TestWeb::start();
    let instances = web.get("/instances?Modality=CT&limit=1").json();
    let [study, series, instance] =
        ["0020000D", "0020000E", "00080018"].map(|tag| value(&instances[0], tag).as_str().unwrap().to_owned());
    let path = format!("/studies/{study}/series/{series}/instances/{instance}");
    for (path, accept) in
        [(path.clone(), "application/dicom"), (format!("{path}/frames/1"), "application/octet-stream")]
    {
        let whole = web.get_with(&path, &[("Accept", accept)]).expect(200);
        let ranges = [
            format!("bytes={}", "0-,".repeat(5_000) + "0-"),
            format!("bytes={}", (0..2_000).map(|at| format!("{at}-")).collect::<Vec<_>>().join(",")),
            "bytes=0-18446744073709551615,0-".to_owned(),
        ];
        for range in &ranges {
            let answer = web.get_with(&path, &[("Accept", accept), ("Range", range)]).expect(200);
            assert!(answer.is_whole && answer.body == whole.body);
        }
        web.get_with(&path, &[("Accept", accept), ("Range", "bytes=18446744073709551615-")]).expect(416);
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
        "Content-Length: 4, 4\r\n",
        "Content-Length: 4, 5\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length : 4\r\n",
        " Content-Length: 4\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity, chunked, identity\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
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
            // Many answers on one connection, so that the buffers of the system do not hold them
            // all.
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
