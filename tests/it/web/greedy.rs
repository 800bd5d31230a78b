//! Hundreds of slow clients beside one that is honest, and slow clients that are honest too.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use data_encoding::BASE64;
use dcmdex::access::users::line_with_password;

use super::*;
use crate::util::http2::{Connection, END_STREAM, INITIAL_WINDOW_SIZE, PING, frame, head};
use crate::util::objects;

/// Slow clients of each kind.
const OF_EACH_KIND: usize = 200;

/// Addresses that they come from. Each is within the limit of one address.
const ADDRESSES: usize = 5;

/// One study whose objects are larger than what the system keeps for a client.
fn large_study(folder: &TempDir) {
    for number in 1..=32 {
        let mut file = objects::file("P1", "1.2.7", "1.2.7.1", &format!("1.2.7.1.{number}"));
        file.extend([0xE1, 0x7F, 0x10, 0, b'U', b'N', 0, 0]);
        file.extend((512_u32 << 10).to_le_bytes());
        file.resize(file.len() + (512 << 10), 7);
        std::fs::write(folder.path().join(format!("{number}.dcm")), file).unwrap();
    }
}

/// Opens connections that each send this and then stand still.
fn stalled(web: &TestWeb, network: u8, request: &[u8]) -> Vec<TcpStream> {
    let connections = (0..OF_EACH_KIND).map(|number| {
        let source = [127, 0, network, u8::try_from(number % ADDRESSES + 1).unwrap()];
        let mut stream = http::connect_from(source, web.address);
        stream.write_all(request).unwrap();
        stream
    });
    connections.collect()
}

/// Asserts that the connection is still open and that nothing came.
#[track_caller]
fn is_open(stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let mut byte = [0];
    let error = stream.peek(&mut byte).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

/// What an honest client does, with each kind of request.
#[track_caller]
fn is_answered(web: &TestWeb, of: &str) {
    let path = "/studies/1.2.7/series/1.2.7.1/instances/1.2.7.1.1";
    assert_eq!(web.get("/studies").expect(200).json()[0]["0020000D"]["Value"][0], "1.2.7", "beside {of}");
    web.get(&format!("{path}/metadata")).expect(200);
    let object = web.get_with(path, &[("Accept", "application/dicom")]).expect(200);
    assert!(object.is_whole && object.body.len() > 512 << 10);
    web.get(&format!("{path}/frames/1")).expect(404);
    http::request(web.address, "GET", "/", &[], b"").expect(200);
    http::request(web.address, "GET", "/healthz", &[], b"").expect(200);
    let empty = [("Content-Type", "multipart/related; type=\"application/dicom\"; boundary=b")];
    http::request(web.address, "POST", "/dicom-web/studies", &empty, b"--b--").expect(400);
}

#[test]
fn six_hundred_slow_clients_keep_nobody_out() {
    let folder = TempDir::new().unwrap();
    large_study(&folder);
    let web = TestWeb::storing_over(folder.path(), |options| options.max_connections = 1_000);
    let head = b"GET /dicom-web/studies HTTP/1.1\r\nHost: loc";
    let slow_heads = stalled(&web, 1, head);
    is_answered(&web, "slow heads");
    let upload = b"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\n\
        Content-Type: multipart/related; type=\"application/dicom\"; boundary=b\r\nContent-Length: 4294967296\r\n\r\n\
        --b\r\nContent-Type: application/dicom\r\n\r\n";
    let begun = objects::file("P1", "1.2.8", "1.2.8.1", "1.2.8.1.1");
    let slow_uploads = stalled(&web, 2, &[upload, &begun[..begun.len() - 10]].concat());
    is_answered(&web, "slow uploads");
    let study = b"GET /dicom-web/studies/1.2.7 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let never_reading = stalled(&web, 3, study);
    is_answered(&web, "clients that read nothing");
    for stream in slow_heads.iter().chain(&slow_uploads) {
        is_open(stream);
    }
    // They only had to read.
    let mut one = never_reading.into_iter().next().unwrap();
    one.set_read_timeout(Some(UNREACHED)).unwrap();
    let mut byte = [0];
    one.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"H");
}

/// An answer of one object is written by a thread, which waits for its client.
#[test]
fn streams_that_read_nothing_leave_threads_to_others() {
    let folder = TempDir::new().unwrap();
    large_study(&folder);
    let web = TestWeb::storing_over(folder.path(), |_| {});
    let path = "/dicom-web/studies/1.2.7/series/1.2.7.1/instances/1.2.7.1.1";
    let held: Vec<Connection> = (0..6)
        .map(|_| {
            let mut connection = Connection::open(web.address, &[(INITIAL_WINDOW_SIZE, 0)]);
            for stream in 0..100 {
                let request = head(2 * stream + 1, END_STREAM, "GET", path, &[("accept", "application/dicom")]);
                connection.send(&request).unwrap();
            }
            // The node has read what came before.
            connection.send(&frame(PING, 0, 0, &[0; 8])).unwrap();
            connection.receive_kind(PING);
            connection
        })
        .collect();
    web.get("/studies").expect(200);
    web.get("/studies/1.2.7/series/1.2.7.1/instances/1.2.7.1.1/metadata").expect(200);
    let object = objects::file("P1", "1.2.8", "1.2.8.1", "1.2.8.1.1");
    let body = [b"--b\r\nContent-Type: application/dicom\r\n\r\n", &object[..], b"\r\n--b--"].concat();
    let stow = [("Content-Type", "multipart/related; type=\"application/dicom\"; boundary=b")];
    http::request(web.address, "POST", "/dicom-web/studies", &stow, &body).expect(200);
    drop(held);
}

#[test]
fn clients_that_read_no_results_keep_no_search_waiting() {
    let folder = TempDir::new().unwrap();
    for number in 1..=1_000 {
        objects::write(&folder.path().join(format!("{number}.dcm")), 1, 1, number);
    }
    let web = TestWeb::with(folder.path(), |options| options.max_connections = 1_000, None);
    let ask = b"GET /dicom-web/instances?includefield=all HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let _held = stalled(&web, 1, ask);
    let ask = b"GET /dicom-web/studies/1.2.1/metadata HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let _held = (_held, stalled(&web, 2, ask));
    assert_eq!(web.get("/instances").expect(200).json().as_array().unwrap().len(), 1_000);
    assert_eq!(web.get("/studies/1.2.1/metadata").expect(200).json().as_array().unwrap().len(), 1_000);
}

/// A password takes the memory of its hash, so few are checked at a time.
#[test]
fn wrong_passwords_of_others_hold_up_a_login_by_one_check_of_each_address() {
    let users = line_with_password("anna", Rights::READ, "secret").unwrap();
    let web = TestWeb::with(&archive(), |options| options.max_connections = 1_000, Some(&users));
    let basic = |credentials: &str| format!("Basic {}", BASE64.encode(credentials.as_bytes()));
    let wrong = basic("anna:wrong");
    let wrong = format!("GET /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nAuthorization: {wrong}\r\n\r\n");
    let flood = stalled(&web, 1, wrong.as_bytes());
    web.get_with("/studies", &[("Authorization", &basic("anna:secret"))]).expect(200);
    let answered = flood.iter().filter(|stream| {
        stream.set_nonblocking(true).unwrap();
        stream.peek(&mut [0]).is_ok()
    });
    let answered = answered.count();
    assert!(answered < OF_EACH_KIND / 2, "{answered} wrong passwords were checked before the right one");
}

/// The last bytes of a response are in the hands of the system, or of HTTP, when the node has made
/// all of it. A client on a slow line is not idle then.
#[test]
fn a_client_that_is_slow_and_goes_on_is_not_idle() {
    let build = TempDir::new().unwrap();
    // A file that the node rewrites, and so has as a whole in memory.
    let bundle = format!("__webpack_require__.p = \"/\";{}", "/* 16 MiB */".repeat((16 << 20) / 12));
    std::fs::write(build.path().join("index.html"), "<script>window.PUBLIC_URL = '/';</script>").unwrap();
    std::fs::write(build.path().join("app.bundle.0a1b2c3d.js"), &bundle).unwrap();
    let (ohif, _) = dcmdex::web::Ohif::open(build.path()).unwrap();
    let impatient = |options: &mut Options| options.idle_timeout = Duration::from_secs(4);
    let web = TestWeb::with_services(&archive(), impatient, None, |services| services.ohif = Some(Arc::new(ohif)));
    let mut stream = http::connect_from([127, 0, 0, 1], web.address);
    stream.set_read_timeout(Some(UNREACHED)).unwrap();
    stream
        .write_all(b"GET /ohif/app.bundle.0a1b2c3d.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let (mut taken, mut piece) = (0, vec![0; 256 << 10]);
    loop {
        match stream.read(&mut piece).unwrap() {
            0 => break,
            bytes => taken += bytes,
        }
        // The line of this client, which is what is tested: the whole takes longer than the node
        // waits for a request.
        thread::sleep(Duration::from_millis(2));
    }
    assert!(taken > bundle.len(), "{taken}");
}
