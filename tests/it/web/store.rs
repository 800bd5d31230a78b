//! STOW-RS: intact and broken requests, and the answer for each part.

use std::fs;
use std::io::Write as _;

use dcmdex::access::users::{line_with_password, line_with_token};
use serde_json::Value;

use super::*;
use crate::util::objects;

const MULTIPART: &str = "multipart/related; type=\"application/dicom\"; boundary=b";

fn body(parts: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(b"--b\r\nContent-Type: application/dicom\r\n\r\n");
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b--\r\n");
    body
}

fn file(number: u32) -> Vec<u8> {
    objects::file("P1", "1.2.7", "1.2.7.1", &format!("1.2.7.1.{number}"))
}

fn post(web: &TestWeb, path: &str, content_type: &str, body: &[u8]) -> Answer {
    let headers = [("Content-Type", content_type), ("Accept", "application/dicom+json")];
    http::request(web.address, "POST", &format!("/dicom-web{path}"), &headers, body)
}

fn store(web: &TestWeb, parts: &[&[u8]]) -> Answer {
    post(web, "/studies", MULTIPART, &body(parts))
}

/// Returns the Failure Reasons of a sequence of an answer.
fn reasons(answer: &Answer, sequence: &str) -> Vec<u64> {
    let json = answer.json();
    let items = json[sequence]["Value"].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| value(item, "00081197").as_u64().unwrap()).collect()
}

fn stored(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let items = json["00081199"]["Value"].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| value(item, "00081155").as_str().unwrap().to_owned()).collect()
}

/// Whether Retrieve URL is there and empty.
fn has_no_url(element: &Value) -> bool {
    element["00081190"] == serde_json::json!({ "vr": "UR" })
}

#[test]
fn what_is_stored_can_be_found_and_had_again_at_once() {
    let web = TestWeb::storing(|_| {}, None);
    let answer = store(&web, &[&file(1), &file(2)]).expect(200);
    assert_eq!(stored(&answer), ["1.2.7.1.1", "1.2.7.1.2"]);
    let json = answer.json();
    assert_eq!(value(&json, "00081190"), &Value::from(format!("http://{}/dicom-web/studies/1.2.7", web.address)));
    let url = value(&json["00081199"]["Value"][0], "00081190").as_str().unwrap().to_owned();
    assert!(url.ends_with("/studies/1.2.7/series/1.2.7.1/instances/1.2.7.1.1"), "{url}");
    assert_eq!(web.get("/studies/1.2.7/instances").expect(200).json().as_array().unwrap().len(), 2);
    let again = web.get_with("/studies/1.2.7/series/1.2.7.1/instances/1.2.7.1.1", &[("Accept", "application/dicom")]);
    let data_set = objects::data_set("P1", "1.2.7", "1.2.7.1", "1.2.7.1.1");
    assert!(again.expect(200).body.ends_with(&data_set));
    // The same again is no failure.
    assert_eq!(stored(&store(&web, &[&file(1)]).expect(200)), ["1.2.7.1.1"]);
}

#[test]
fn one_object_is_stored_without_parts_and_in_the_study_of_the_path() {
    let web = TestWeb::storing(|_| {}, None);
    post(&web, "/studies", "application/dicom", &file(1)).expect(200);
    assert_eq!(stored(&post(&web, "/studies/1.2.7", "application/dicom", &file(2)).expect(200)), ["1.2.7.1.2"]);
    let other = post(&web, "/studies/1.2.8", "application/dicom", &file(3)).expect(409);
    assert_eq!(reasons(&other, "00081198"), [0xA900]);
    web.get("/studies/1.2.7/series/1.2.7.1/instances?SOPInstanceUID=1.2.7.1.3").expect(204);
}

// PS3.18 10.5.3.
#[test]
fn the_answer_says_what_became_of_each_part() {
    let web = TestWeb::storing(|_| {}, None);
    let other_meta = {
        let mut bytes = file(3);
        let at = bytes.windows(9).rposition(|window| window == b"1.2.7.1.3").unwrap();
        bytes[at + 8] = b'4';
        bytes
    };
    let cut = &file(5)[..300];
    let mixed = store(&web, &[&file(1), b"no object", &other_meta, cut]).expect(202);
    // The data set says which object it is, as with C-STORE and a scan.
    assert_eq!(stored(&mixed), ["1.2.7.1.1", "1.2.7.1.4"]);
    assert_eq!(reasons(&mixed, "0008119A"), [0xC000]);
    let failed = reasons(&mixed, "00081198");
    assert_eq!(failed, [0xC000], "{}", mixed.text());
    let none = store(&web, &[b"no object", b""]).expect(409);
    assert_eq!(reasons(&none, "0008119A"), [0xC000, 0xC000]);
    let text = b"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b--";
    assert_eq!(reasons(&post(&web, "/studies", MULTIPART, text).expect(409), "0008119A"), [0xC000]);
    let packed = b"--b\r\nContent-Type: application/dicom\r\nContent-Encoding: gzip\r\n\r\nhello\r\n--b--";
    post(&web, "/studies", MULTIPART, packed).expect(409);
}

// PS3.18 table I.2-1: Retrieve URL is of type 2.
#[test]
fn an_answer_without_one_study_has_an_empty_url() {
    let web = TestWeb::storing(|_| {}, None);
    let other = objects::file("P1", "1.2.8", "1.2.8.1", "1.2.8.1.1");
    let two = store(&web, &[&file(1), &other]).expect(200).json();
    assert!(has_no_url(&two), "{two}");
    assert!(value(&two["00081199"]["Value"][1], "00081190").as_str().unwrap().contains("/studies/1.2.8/"));
    let none = store(&web, &[b"no object"]).expect(409).json();
    assert!(has_no_url(&none), "{none}");
    assert!(none["0008119A"]["Value"][0].get("00081190").is_none(), "{none}");
}

#[test]
fn a_body_that_is_none_is_refused() {
    let web = TestWeb::storing(|_| {}, None);
    post(&web, "/studies", MULTIPART, b"").expect(400);
    post(&web, "/studies", MULTIPART, b"--b--").expect(400);
    post(&web, "/studies", MULTIPART, b"--bx").expect(400);
    post(&web, "/studies", "multipart/related; type=\"application/dicom\"", &body(&[&file(1)])).expect(400);
    for wrong in [
        "text/plain",
        "application/dicom+json",
        "multipart/form-data; boundary=b",
        "multipart/related; type=\"application/dicom+json\"; boundary=b",
    ] {
        post(&web, "/studies", wrong, &body(&[&file(1)])).expect(415);
    }
    http::request(web.address, "POST", "/dicom-web/studies", &[], &file(1)).expect(415);
    let packed = [("Content-Type", MULTIPART), ("Content-Encoding", "gzip")];
    http::request(web.address, "POST", "/dicom-web/studies", &packed, &body(&[&file(1)])).expect(415);
    let html = [("Content-Type", MULTIPART), ("Accept", "text/html")];
    http::request(web.address, "POST", "/dicom-web/studies", &html, &body(&[&file(1)])).expect(406);
    // Cut off after the first part: what is stored is told.
    let whole = body(&[&file(1), &file(2)]);
    let cut = post(&web, "/studies", MULTIPART, &whole[..whole.len() - 100]).expect(202);
    assert_eq!((stored(&cut), reasons(&cut, "0008119A")), (vec!["1.2.7.1.1".to_owned()], vec![0xC000]));
    // Between the parts, or in the head of the second: its sender must not take it for stored.
    let web = TestWeb::storing(|_| {}, None);
    let first = body(&[&file(1)]).len() - "--b--\r\n".len();
    for more in ["--b", "--b\r\n", "--b\r\nContent-Ty"] {
        let cut = post(&web, "/studies", MULTIPART, &whole[..first + more.len()]).expect(202);
        assert_eq!((stored(&cut), reasons(&cut, "0008119A")), (vec!["1.2.7.1.1".to_owned()], vec![0xC000]), "{more}");
    }
}

#[test]
fn a_chunked_body_is_stored_like_any_other() {
    let web = TestWeb::storing(|_| {}, None);
    let mut stream = http::connect(web.address);
    let head = format!(
        "POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MULTIPART}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    for chunk in body(&[&file(1), &file(2)]).chunks(37) {
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).unwrap();
        stream.write_all(chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("1.2.7.1.2"), "{answer}");
}

#[test]
fn another_object_with_a_known_uid_is_kept_beside_the_first() {
    let web = TestWeb::storing(|_| {}, None);
    store(&web, &[&file(1)]).expect(200);
    let other = objects::file("P2", "1.2.7", "1.2.7.1", "1.2.7.1.1");
    let kept = store(&web, &[&other]).expect(200).json();
    // No URL leads to it.
    assert!(has_no_url(&kept) && has_no_url(&kept["00081199"]["Value"][0]), "{kept}");
    let found = web.get("/studies/1.2.7/instances?includefield=PatientID").expect(200).json();
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(value(&found[0], "00100020"), "P1");
}

#[test]
fn who_may_read_may_not_store_and_the_other_way_round() {
    let (token, storing) = line_with_token("ct1", Rights { read: false, store: true }).unwrap();
    let reading = line_with_password("anna", Rights::READ, "secret").unwrap();
    let web = TestWeb::storing(|_| {}, Some(&format!("{storing}\n{reading}")));
    let basic = format!("Basic {}", data_encoding::BASE64.encode(b"anna:secret"));
    let as_ct = format!("Bearer {token}");
    let send = |credentials: &str| {
        let headers = [("Content-Type", MULTIPART), ("Authorization", credentials)];
        http::request(web.address, "POST", "/dicom-web/studies", &headers, &body(&[&file(1)])).status
    };
    assert_eq!((send(&basic), send(&as_ct), send("Bearer x")), (403, 200, 401));
    assert_eq!(web.get_with("/studies", &[("Authorization", &as_ct)]).status, 403);
    let nobody = TestWeb::storing(|options| options.anyone = Rights::READ, None);
    store(&nobody, &[&file(1)]).expect(403);
}

#[test]
fn a_body_that_stops_coming_is_given_up() {
    let web = TestWeb::storing(|options| options.read_timeout = Duration::from_millis(200), None);
    let mut stream = http::connect(web.address);
    let head = format!(
        "POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MULTIPART}\r\nContent-Length: 4294967296\r\n\r\n--b\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = std::io::Read::read_to_string(&mut stream, &mut answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn in_metadata_only_mode_the_row_is_kept_and_no_url_is_given() {
    let web = TestWeb::storing_metadata();
    let answer = store(&web, &[&file(1)]).expect(200);
    let json = answer.json();
    assert!(has_no_url(&json) && has_no_url(&json["00081199"]["Value"][0]), "{json}");
    let found = web.get("/studies/1.2.7/instances").expect(200).json();
    assert_eq!(value(&found[0], "00080056"), "UNAVAILABLE");
    assert!(found[0].get("00081190").is_none());
    let path = "/studies/1.2.7/series/1.2.7.1/instances/1.2.7.1.1";
    assert!(web.get(path).expect(404).text().contains("kept elsewhere"));
    web.get(&format!("{path}/frames/1")).expect(404);
    let metadata = web.get(&format!("{path}/metadata")).expect(200);
    assert_eq!(metadata.json()[0]["00100010"]["Value"][0]["Alphabetic"], "Test^Person");
    assert!(metadata.header("warning").contains("only the indexed attributes"));
    assert!(fs::read_dir(web.directory.path()).unwrap().all(|entry| entry.unwrap().file_name() != "objects"));
}

#[test]
fn nothing_is_sent_of_an_object_that_is_known_to_be_damaged() {
    let web = TestWeb::storing(|_| {}, None);
    let object =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/real/syntaxes/MR_small_RLE.dcm")).unwrap();
    store(&web, &[&object]).expect(200);
    let found = web.get("/instances").expect(200).json();
    let uid = |tag: &str| value(&found[0], tag).as_str().unwrap().to_owned();
    let study = format!("/studies/{}", uid("0020000D"));
    let instance = format!("{study}/series/{}/instances/{}", uid("0020000E"), uid("00080018"));
    let kept = web.stored_file();
    let mut bytes = fs::read(&kept).unwrap();
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    fs::write(&kept, bytes).unwrap();
    let native = [("Accept", "application/dicom; transfer-syntax=1.2.840.10008.1.2.1")];
    web.get_with(&instance, &native).expect(500);
    for part in ["/frames/1", "/bulkdata/7FE00010", "/rendered", "/pixeldata", "/thumbnail"] {
        web.get_with(&format!("{instance}{part}"), &[("Accept", "*/*")]).expect(500);
    }
    web.get_with(&instance, &[("Accept", "application/dicom")]).expect(500);
    // What the index knows of it is true.
    let metadata = web.get(&format!("{instance}/metadata")).expect(200).json();
    assert_eq!(value(&metadata[0], "00080018").as_str().unwrap(), uid("00080018"));
    assert!(metadata[0].get("7FE00010").is_none(), "{metadata}");
    // Sent again, it is whole.
    store(&web, &[&object]).expect(200);
    for part in ["/frames/1", "/rendered", ""] {
        web.get_with(&format!("{instance}{part}"), &[("Accept", "*/*")]).expect(200);
    }
}
