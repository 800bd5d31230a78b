//! C-GET, C-MOVE and storage commitment with software of other vendors, on the bundled real files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use dcmdex::ul::destination::Destination;
use dicom_core::VR;
use dicom_dictionary_std::tags;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::util::known::known;
use crate::util::node::TestNode;
use crate::util::peers::{self, Server, dcmtk, free_port, python_peer};
use crate::web::decode::{convert, real};

const STUDY_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";
const STUDY_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
const IMPLICIT: &str = "1.2.840.10008.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";

/// Starts a node on the index of a folder of the fixtures, with a destination.
fn node(folder: &str, destination: Option<(&str, u16)>) -> TestNode {
    let directory = Arc::new(TempDir::new().unwrap());
    let scan = Command::new(env!("CARGO_BIN_EXE_dcmdex"))
        .args(["scan", "--index"])
        .arg(directory.path().join("index.db"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder))
        .output()
        .unwrap();
    assert!(matches!(scan.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&scan.stderr));
    TestNode::with(|settings| {
        settings.directory = directory;
        if let Some((title, port)) = destination {
            let address = format!("127.0.0.1:{port}").parse().unwrap();
            settings.peers.destinations.insert(title.parse().unwrap(), Destination::plain(address));
        }
    })
}

/// Returns the SHA-256 of the data set in a file with preamble and explicit File Meta Information.
/// The data set is padded to even length.
fn data_set_sha256(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[128..140], b"DICM\x02\0\0\0UL\x04\0", "{}", path.display());
    let length = u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
    let mut data_set = bytes[144 + length..].to_vec();
    if data_set.len() % 2 == 1 {
        // PS3.8 E.1.
        data_set.push(0);
    }
    Sha256::digest(&data_set).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Splits JSON lines into those of objects and those of responses.
fn lines(said: &str) -> (Vec<Value>, Vec<Value>) {
    let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.partition(|line| line.get("instance").is_some())
}

#[test]
fn pynetdicom_gets_every_kind_of_object_byte_for_byte() {
    let node = node("real/syntaxes", None);
    let known = known(&node);
    let mut storage: Vec<_> =
        known.values().map(|known| (known.class.clone(), vec![known.transfer_syntax.clone()])).collect();
    storage.sort();
    storage.dedup();
    let uids: Vec<_> = known.keys().cloned().collect();
    let question = json!({
        "class": STUDY_GET, "storage": storage,
        "keys": {"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": uids},
    });
    let Some(mut peer) = python_peer("retrieve.py") else { return };
    let peer = peer.args(["127.0.0.1", &node.port(), "DCMDEX", &question.to_string()]);
    let (objects, responses) = lines(&peers::run(peer).expect_success());
    assert_eq!(responses.last().unwrap()["status"], "0000", "{responses:?}");
    assert_eq!(objects.len(), known.len());
    for object in &objects {
        let of = &known[object["instance"].as_str().unwrap()];
        assert_eq!(object["syntax"], of.transfer_syntax.as_str());
        assert_eq!(object["sha256"], data_set_sha256(&of.path), "{}", of.path.display());
    }
}

#[test]
fn pynetdicom_as_a_destination_gets_them_as_well() {
    let port = free_port();
    let node = node("real/syntaxes", Some(("PYDEST", port)));
    let known = known(&node);
    let uids: Vec<_> = known.keys().cloned().collect();
    let ask = |accept: Value| {
        let question = json!({
            "class": STUDY_MOVE, "destination": "PYDEST", "listen": port, "accept": accept,
            "keys": {"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": uids},
        });
        let mut peer = python_peer("retrieve.py")?;
        let peer = peer.args(["127.0.0.1", &node.port(), "DCMDEX", &question.to_string()]);
        Some(lines(&peers::run(peer).expect_success()))
    };
    let Some((objects, responses)) = ask(Value::Null) else { return };
    assert_eq!(responses.last().unwrap()["status"], "0000", "{responses:?}");
    assert_eq!(objects.len(), known.len());
    for object in &objects {
        let of = &known[object["instance"].as_str().unwrap()];
        assert_eq!(object["sha256"], data_set_sha256(&of.path), "{}", of.path.display());
        assert_eq!(object["originator"], "PYNETDICOM");
    }
    // One that takes explicit little endian only gets all that can be rewritten or decompressed.
    let (objects, responses) = ask(json!([EXPLICIT])).unwrap();
    // Nothing here decompresses JPEG of 12 bits.
    let last = responses.last().unwrap();
    assert_eq!((last["status"].as_str(), last["failed"].as_u64()), (Some("B000"), Some(1)), "{last}");
    let failed = &known[last["failed_list"][0].as_str().unwrap()].path;
    assert!(failed.ends_with("JPEG-lossy.dcm"), "{}", failed.display());
    assert_eq!(objects.len(), known.len() - 1);
    assert!(objects.iter().all(|object| object["syntax"] == EXPLICIT));
}

/// Copies compressed objects, each with a SOP Instance UID of its own.
fn compressed_archive() -> TempDir {
    let archive = TempDir::new().unwrap();
    let names = [
        "MR_small_RLE",
        "JPGLosslessP14SV1_1s_1f_8b",
        "MR_small_jp2klossless",
        "MR_small_jpeg_ls_lossless",
        "JPEG2000",
    ];
    for (number, name) in names.into_iter().enumerate() {
        let mut object = dicom_object::open_file(real(&format!("syntaxes/{name}.dcm"))).unwrap();
        let uid = format!("1.2.9.{number}");
        object.put_str(tags::SOP_INSTANCE_UID, VR::UI, uid.as_str());
        object.update_meta(|meta| meta.media_storage_sop_instance_uid = uid);
        object.write_to_file(archive.path().join(format!("{name}.dcm"))).unwrap();
    }
    archive
}

#[test]
fn pynetdicom_takes_implicit_little_endian_only_and_gets_the_samples_that_pydicom_decompresses() {
    let archive = compressed_archive();
    let node = node(archive.path().to_str().unwrap(), None);
    let known = known(&node);
    let mut storage: Vec<_> = known.values().map(|known| (known.class.clone(), vec![IMPLICIT])).collect();
    storage.sort();
    storage.dedup();
    let uids: Vec<_> = known.keys().cloned().collect();
    let files: BTreeMap<_, _> = known.iter().map(|(uid, known)| (uid, &known.path)).collect();
    let question = json!({
        "class": STUDY_GET, "storage": storage, "files": files,
        "keys": {"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": uids},
    });
    let Some(mut peer) = python_peer("retrieve.py") else { return };
    let peer = peer.args(["127.0.0.1", &node.port(), "DCMDEX", &question.to_string()]);
    let (objects, responses) = lines(&peers::run(peer).expect_success());
    assert_eq!(responses.last().unwrap()["status"], "0000", "{responses:?}");
    assert_eq!(objects.len(), 5);
    let mut compared = 0;
    for object in &objects {
        assert_eq!(object["syntax"], IMPLICIT);
        let Some(apart) = object.get("apart").filter(|apart| !apart.is_null()) else { continue };
        let of = &known[object["instance"].as_str().unwrap()];
        // Decoders of lossy JPEG 2000 may round differently.
        let allowed = u64::from(of.path.ends_with("JPEG2000.dcm"));
        assert!(apart.as_u64().is_some_and(|apart| apart <= allowed), "{}: {apart}", of.path.display());
        compared += 1;
    }
    assert!(compared >= 3, "{compared}");
}

/// Programs of DCMTK and GDCM that decompress, by transfer syntax.
const DECOMPRESSORS: [(&str, &str, &str); 4] = [
    ("1.2.840.10008.1.2.5", "dcmdrle", ""),
    ("1.2.840.10008.1.2.4.70", "dcmdjpeg", ""),
    ("1.2.840.10008.1.2.4.80", "dcmdjpls", ""),
    ("1.2.840.10008.1.2.4.90", "gdcmconv", "--raw"),
];

#[test]
fn getscu_and_storescp_without_codecs_get_what_dcmtk_and_gdcm_decompress() {
    let port = free_port();
    let archive = compressed_archive();
    let node = node(archive.path().to_str().unwrap(), Some(("STORESCP", port)));
    let known = known(&node);
    let work = TempDir::new().unwrap();
    let pixels = |path: &Path| {
        let object = dicom_object::open_file(path).unwrap();
        object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().into_owned()
    };
    let mut expected = BTreeMap::new();
    for (uid, known) in &known {
        let by = DECOMPRESSORS.iter().find(|(syntax, ..)| known.transfer_syntax == *syntax);
        let Some((_, program, options)) = by else { continue };
        let native = work.path().join(uid);
        if convert(program, options, &known.path, &native).is_none() {
            return peers::skipped(program);
        }
        expected.insert(uid.clone(), pixels(&native));
    }
    assert_eq!(expected.len(), DECOMPRESSORS.len());
    let (Some(mut getscu), Some(mut storescp), Some(mut movescu)) =
        (dcmtk("getscu"), dcmtk("storescp"), dcmtk("movescu"))
    else {
        return;
    };
    let uids: Vec<_> = expected.keys().map(String::as_str).collect();
    let keys = ["-k".to_owned(), "0008,0052=IMAGE".into(), "-k".into(), format!("0008,0018={}", uids.join("\\"))];
    let (got, moved) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let getscu = getscu.args(["-S", "-xi", "+B", "-aec", "DCMDEX", "-od"]).arg(got.path()).args(&keys);
    peers::run(getscu.args(["127.0.0.1", &node.port()])).expect_success();
    let storescp = storescp.args(["+B", "+xi", "-aet", "STORESCP", "-od"]).arg(moved.path()).arg(port.to_string());
    let _storescp = Server::start(storescp, &[port]);
    let movescu = movescu.args(["-S", "-aec", "DCMDEX", "-aem", "STORESCP"]).args(&keys);
    peers::run(movescu.args(["127.0.0.1", &node.port()])).expect_success();
    for folder in [got, moved] {
        let arrived = received(folder.path());
        assert!(arrived.keys().eq(expected.keys()), "{arrived:?}");
        for (uid, path) in arrived {
            let syntax = dicom_object::open_file(&path).unwrap().meta().transfer_syntax().to_owned();
            // getscu proposes Explicit VR Little Endian too, whatever it is told.
            assert!([IMPLICIT, EXPLICIT].contains(&syntax.trim_end_matches('\0')), "{syntax}");
            assert!(pixels(&path) == expected[&uid], "{}", known[&uid].path.display());
        }
    }
}

/// Returns the files that DCMTK wrote, by SOP Instance UID.
fn received(directory: &Path) -> BTreeMap<String, PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| (dicom_object::open_file(&path).unwrap().meta().media_storage_sop_instance_uid().to_owned(), path))
        .map(|(uid, path)| (uid.trim_end_matches('\0').to_owned(), path))
        .collect()
}

#[test]
fn getscu_gets_a_study_bit_for_bit() {
    let node = node("real/modalities", None);
    let known = known(&node);
    let output = TempDir::new().unwrap();
    let Some(mut getscu) = dcmtk("getscu") else { return };
    // Its own list of storage classes, and explicit little endian; written as it comes.
    let uids: Vec<_> =
        known.iter().filter(|(_, known)| known.transfer_syntax == EXPLICIT).map(|(uid, _)| uid.as_str()).collect();
    let getscu = getscu.args(["-S", "+B", "--prefer-little", "-aec", "DCMDEX", "-od"]).arg(output.path()).args([
        "-k",
        "0008,0052=IMAGE",
        "-k",
        &format!("0008,0018={}", uids.join("\\")),
        "127.0.0.1",
        &node.port(),
    ]);
    peers::run(getscu).expect_success();
    let received = received(output.path());
    assert!(received.len() > 8 && received.len() == uids.len(), "{} of {}", received.len(), uids.len());
    for (uid, path) in received {
        assert_eq!(data_set_sha256(&path), data_set_sha256(&known[&uid].path), "{}", known[&uid].path.display());
    }
}

#[test]
fn movescu_moves_to_storescp_bit_for_bit() {
    let port = free_port();
    let node = node("real/syntaxes", Some(("STORESCP", port)));
    let known = known(&node);
    let output = TempDir::new().unwrap();
    let (Some(mut storescp), Some(mut movescu)) = (dcmtk("storescp"), dcmtk("movescu")) else { return };
    let storescp = storescp.args(["+B", "+xa", "-aet", "STORESCP", "-od"]).arg(output.path()).arg(port.to_string());
    let _storescp = Server::start(storescp, &[port]);
    let uids: Vec<_> = known.keys().map(String::as_str).collect();
    let movescu = movescu.args(["-v", "-S", "-aec", "DCMDEX", "-aem", "STORESCP", "-k", "0008,0052=IMAGE"]).args([
        "-k",
        &format!("0008,0018={}", uids.join("\\")),
        "127.0.0.1",
        &node.port(),
    ]);
    let said = peers::run(movescu).expect_success();
    assert!(said.contains("Success") || said.contains("0x0000"), "{said}");
    let received = received(output.path());
    assert_eq!(received.len(), known.len());
    for (uid, path) in received {
        assert_eq!(data_set_sha256(&path), data_set_sha256(&known[&uid].path), "{}", known[&uid].path.display());
    }
}

/// Creates a file whose pixel data have an odd length.
fn odd_archive() -> TempDir {
    let archive = TempDir::new().unwrap();
    let pixels = crate::ingest::headers::made::ELE.element(0x7FE0_0010, "OB", &[1; 19]);
    let whole = crate::util::objects::file("P1", "1.2.1", "1.2.1.1", "1.2.1.1.1");
    fs::write(archive.path().join("1.dcm"), [whole, pixels].concat()).unwrap();
    archive
}

#[test]
fn dcmtk_takes_an_object_of_odd_length() {
    let archive = odd_archive();
    let port = free_port();
    let (Some(mut getscu), Some(mut storescp), Some(mut movescu)) =
        (dcmtk("getscu"), dcmtk("storescp"), dcmtk("movescu"))
    else {
        return;
    };
    let node = node(archive.path().to_str().unwrap(), Some(("STORESCP", port)));
    let keys = ["-k", "0008,0052=STUDY", "-k", "0020,000D=1.2.1"];
    let output = TempDir::new().unwrap();
    let getscu = getscu.args(["-S", "+B", "-aec", "DCMDEX", "-od"]).arg(output.path()).args(keys);
    peers::run(getscu.args(["127.0.0.1", &node.port()])).expect_success();
    let got = received(output.path());
    let lies = data_set_sha256(&archive.path().join("1.dcm"));
    assert_eq!(got.into_values().map(|path| data_set_sha256(&path)).collect::<Vec<_>>(), [lies]);

    let output = TempDir::new().unwrap();
    let storescp = storescp.args(["-od"]).arg(output.path()).arg(port.to_string());
    let _storescp = Server::start(storescp, &[port]);
    let movescu = movescu.args(["-v", "-S", "-aec", "DCMDEX", "-aem", "STORESCP"]).args(keys);
    peers::run(movescu.args(["127.0.0.1", &node.port()])).expect_success();
    let moved: Vec<_> = fs::read_dir(output.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [moved] = moved.as_slice() else { panic!("{moved:?}") };
    let mut dcmdump = dcmtk("dcmdump").unwrap();
    let dumped = peers::run(dcmdump.args(["+P", "7fe0,0010", "+P", "0008,0018"]).arg(moved)).expect_success();
    assert!(dumped.contains("01\\01\\01") && dumped.contains("1.2.1.1.1"), "{dumped}");
}

#[test]
fn orthanc_takes_what_is_moved_to_it() {
    let (dicom_port, http_port) = (free_port(), free_port());
    let directory = TempDir::new().unwrap();
    let configuration = json!({
        "Name": "test", "DicomAet": "ORTHANC", "DicomPort": dicom_port, "HttpPort": http_port,
        "StorageDirectory": directory.path().join("storage"), "IndexDirectory": directory.path().join("index"),
        "RemoteAccessAllowed": false, "AuthenticationEnabled": false, "DicomAlwaysAllowStore": true,
        "UnknownSopClassAccepted": true, "Plugins": [],
    });
    let file = directory.path().join("orthanc.json");
    fs::write(&file, configuration.to_string()).unwrap();
    let (Some(mut orthanc), Some(mut movescu)) = (peers::orthanc(), dcmtk("movescu")) else { return };
    let orthanc = orthanc.arg(&file).current_dir(directory.path());
    let _orthanc = Server::start(orthanc, &[dicom_port, http_port]);
    let node = node("real/charsets", Some(("ORTHANC", dicom_port)));
    let known = known(&node);
    let uids: Vec<_> = known.keys().map(String::as_str).collect();
    let movescu = movescu.args(["-v", "-S", "-aec", "DCMDEX", "-aem", "ORTHANC", "-k", "0008,0052=IMAGE"]).args([
        "-k",
        &format!("0008,0018={}", uids.join("\\")),
        "127.0.0.1",
        &node.port(),
    ]);
    let said = peers::run(movescu).expect_success();
    let statistics = http_get(http_port, "/statistics");
    assert_eq!(statistics["CountInstances"], known.len(), "{said}");
}

/// Gets a JSON document with a minimal HTTP request.
fn http_get(port: u16, path: &str) -> Value {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn pynetdicom_gets_a_commitment_on_the_same_association_and_on_a_new_one() {
    let port = free_port();
    let node = node("real/charsets", Some(("PYNETDICOM", port)));
    let known = known(&node);
    let mut references: Vec<_> = known.iter().map(|(uid, known)| format!("{}={uid}", known.class)).collect();
    for place in ["same", "new"] {
        let Some(mut peer) = python_peer("commit.py") else { return };
        let peer = peer.args(["127.0.0.1", &node.port(), "DCMDEX", &port.to_string(), place]).args(&references);
        let said = peers::run(peer).expect_success();
        // Two lines. What may follow is pynetdicom complaining of a report that crossed its
        // A-RELEASE-RQ; it then comes again, on an association of its own.
        let mut lines = said.lines();
        assert_eq!(lines.next(), Some("0000"));
        let report: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!((report["event"].as_u64(), report["transaction"].as_str()), (Some(1), Some("1.2.3.4.5.6")));
        assert_eq!(report["committed"].as_array().unwrap().len(), known.len());
    }
    references.push("1.2.840.10008.5.1.4.1.1.7=1.2.3.999".into());
    let Some(mut peer) = python_peer("commit.py") else { return };
    let peer = peer.args(["127.0.0.1", &node.port(), "DCMDEX", &port.to_string(), "same"]).args(&references);
    let said = peers::run(peer).expect_success();
    let report: Value = serde_json::from_str(said.lines().nth(1).unwrap()).unwrap();
    assert_eq!(report["event"], 2);
    assert_eq!(report["failed"], json!([["1.2.3.999", "0112"]]));
    assert_eq!(report["committed"].as_array().unwrap().len(), known.len());
}
