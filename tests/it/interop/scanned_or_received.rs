//! Scanning a file and receiving the same file from a real peer give the same index content.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use dcmdex::db::Search;
use dcmdex::db::open::Reader;
use dcmdex::ingest::{Outcome, Wanted, read_file};
use dcmdex::model::attribute::{ATTRIBUTES, AttributeId, ValueSource};
use dcmdex::model::find::{FindRequest, ReturnKey};
use dcmdex::model::level::{InformationModel, QueryRetrieveLevel};

use crate::util::node::TestNode;
use crate::util::peers::{dcmtk, run};

/// Returns everything in an index, one line for each entity of each level.
fn content(index: &Path) -> Vec<String> {
    let mut reader = Reader::open(index).unwrap();
    let mut lines = Vec::new();
    for level in QueryRetrieveLevel::ALL {
        // Not the transfer syntax: dcmsend proposes all uncompressed ones at once and writes big
        // endian objects in another.
        let left_out = [AttributeId::RetrieveAETitle, AttributeId::AvailableTransferSyntaxUID];
        let attributes = ATTRIBUTES
            .iter()
            .filter(|a| a.level <= level && a.source != ValueSource::AlwaysEmpty && !left_out.contains(&a.id));
        let return_keys: Vec<_> = attributes.map(|a| ReturnKey { attribute: a.id, items: Vec::new() }).collect();
        let request =
            FindRequest { return_keys: return_keys.clone(), ..FindRequest::new(InformationModel::PatientRoot, level) };
        let collect = |answer: dcmdex::model::find::FindAnswer| {
            let values = return_keys.iter().zip(answer.values.iter()).filter(|(_, value)| !value.is_empty());
            let values: Vec<_> = values.map(|(key, value)| format!("{}={value}", key.attribute)).collect();
            lines.push(format!("{level} {}", values.join(" | ")));
            ControlFlow::Continue(())
        };
        reader.find(&request, collect).unwrap();
    }
    lines.sort();
    lines
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

/// A file that dcmsend cannot send. It takes the UIDs of its C-STORE-RQ from the data set, cannot
/// read them if their VR is UN, and sends others.
const NOT_FOR_DCMSEND: &str = "explicit_VR-UN.dcm";

/// Returns one intact file with preamble for each SOP Instance UID of the fixtures. Files that
/// dcmsend cannot read are left out.
fn sendable() -> BTreeMap<String, PathBuf> {
    let mut files = Vec::new();
    for directory in ["fixtures/real", "fixtures/archive"] {
        files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut files);
    }
    let mut by_uid = BTreeMap::new();
    for path in files {
        let head = std::fs::read(&path).unwrap();
        if head.get(128..132) != Some(b"DICM") {
            continue;
        }
        if let Outcome::Instance(record) = read_file(&File::open(&path).unwrap(), Wanted::index())
            && record.faults().is_empty()
            && !path.components().any(|part| part.as_os_str() == "odd" || part.as_os_str() == NOT_FOR_DCMSEND)
        {
            by_uid.entry(record.value(AttributeId::SOPInstanceUID).to_owned()).or_insert(path);
        }
    }
    by_uid
}

#[test]
fn a_scanned_file_and_the_same_file_sent_are_the_same_to_the_index() {
    let Some(mut dcmsend) = dcmtk("dcmsend") else { return };
    let files = sendable();
    assert!(files.len() > 80, "only {} fixtures to send", files.len());
    let archive = tempfile::tempdir().unwrap();
    for (number, path) in files.values().enumerate() {
        std::fs::copy(path, archive.path().join(format!("{number:03}"))).unwrap();
    }

    let node = TestNode::start();
    let report = archive.path().join("report.txt");
    run(dcmsend
        .args(["--no-halt", "--no-uid-checks", "--decompress-never", "--scan-directories", "--create-report-file"])
        .arg(&report)
        .args(["--call", "DCMDEX", "127.0.0.1", &node.port()])
        .arg(archive.path()))
    .expect_success();
    std::fs::remove_file(&report).unwrap();
    let received = node.index();

    let scanned = tempfile::tempdir().unwrap();
    let index = scanned.path().join("index.db");
    assert_cmd::Command::cargo_bin("dcmdex")
        .unwrap()
        .args(["scan", "--quiet", "--index"])
        .args([&index, &archive.path().to_owned()])
        .assert()
        .success();

    let (by_scan, by_network) = (content(&index), content(&received));
    assert_eq!(by_scan.iter().filter(|line| line.starts_with("IMAGE")).count(), files.len());
    for (scanned, received) in by_scan.iter().zip(&by_network) {
        assert_eq!(scanned, received);
    }
    assert_eq!(by_scan.len(), by_network.len());
}
