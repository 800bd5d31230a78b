//! Objects leave the node with the corrected identifiers of their patient, and with the former ones
//! in the Original Attributes Sequence. The files stay as they are.

use std::fs;
use std::net::SocketAddr;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::TransferSyntaxIndex;
use dicom_object::{DefaultDicomObject, InMemDicomObject, open_file};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use rustix::process::Signal;

use super::serve::Node;
use super::*;
use crate::util::http::request;
use crate::util::{objects, peers};

const NAME: &str = "Corrected^Name";

/// Patients of `fixtures/archive`. One has objects in five transfer syntaxes.
const PATIENTS: [&str; 4] = ["4004", "HD-1001", "SE-3003", "TK-2002"];

/// Scans the bundled archive and corrects all its patients.
fn corrected_archive(place: Place) -> Place {
    // 1: the archive has files that nobody can read.
    place.run(["scan", &fixtures("archive")]).expect(1);
    for patient in PATIENTS {
        let (key, id, name) =
            (format!("PatientID={patient}"), format!("PatientID=NEW-{patient}"), format!("PatientName={NAME}"));
        place.run(["correct", &key, "--set", &id, "--set", &name, "--yes"]).expect(0);
    }
    place
}

/// Instances of the index: path of the file, and the path of the resource.
fn instances(place: &Place) -> Vec<(String, String)> {
    let keys = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "path"];
    let find = ["find", "--level", "IMAGE", "--format", "ndjson"];
    let found = place.run(find.into_iter().chain(keys)).expect(0).json();
    let instance = |line: &serde_json::Value| {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let [study, series, instance, path] = keys.map(text);
        (path, format!("/dicom-web/studies/{study}/series/{series}/instances/{instance}"))
    };
    // A file that was cut off cannot be corrected, and one lacks File Meta Information.
    let is_whole = |path: &str| !path.contains("/odd/") && open_file(path).is_ok();
    found.iter().map(instance).filter(|(path, _)| is_whole(path)).collect()
}

fn text(object: &InMemDicomObject, tag: Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().trim_end().to_owned()
}

/// All elements that a correction leaves alone, as bytes.
fn rest(object: &InMemDicomObject) -> Vec<u8> {
    let mut rest = object.clone();
    for tag in [tags::PATIENT_ID, tags::PATIENT_NAME, tags::ORIGINAL_ATTRIBUTES_SEQUENCE] {
        rest.remove_element(tag);
    }
    let groups: Vec<Tag> = rest.iter().map(|element| element.header().tag).filter(|tag| tag.element() == 0).collect();
    for group_length in groups {
        rest.remove_element(group_length);
    }
    let mut bytes = Vec::new();
    rest.write_dataset_with_ts(&mut bytes, TransferSyntaxRegistry.get("1.2.840.10008.1.2.1").unwrap()).unwrap();
    bytes
}

/// Asserts that an object is the one in the file, with the corrected values.
#[track_caller]
fn assert_corrected(sent: &DefaultDicomObject, path: &str) {
    let file = open_file(path).unwrap();
    let old = file
        .element_opt(tags::PATIENT_ID)
        .unwrap()
        .map_or(String::new(), |element| element.to_str().unwrap().trim_end().to_owned());
    assert_eq!(text(sent, tags::PATIENT_ID), format!("NEW-{old}"), "{path}");
    assert_eq!(text(sent, tags::PATIENT_NAME), NAME, "{path}");
    let items = sent.element(tags::ORIGINAL_ATTRIBUTES_SEQUENCE).unwrap().items().unwrap();
    let [item] = items else { panic!("{path}: {items:?}") };
    assert_eq!(text(item, tags::REASON_FOR_THE_ATTRIBUTE_MODIFICATION), "CORRECT");
    assert_eq!(text(item, tags::MODIFYING_SYSTEM), "DCMDEX");
    assert!(text(item, tags::ATTRIBUTE_MODIFICATION_DATE_TIME).ends_with("+0000"));
    assert_eq!(item.element(tags::SOURCE_OF_PREVIOUS_VALUES).unwrap().vr(), VR::LO);
    let [previous] = item.element(tags::MODIFIED_ATTRIBUTES_SEQUENCE).unwrap().items().unwrap() else {
        panic!("{path}")
    };
    assert_eq!(text(previous, tags::PATIENT_ID), old, "{path}");
    assert!(text(previous, tags::PATIENT_NAME) == text(&file, tags::PATIENT_NAME), "{path}");
    assert!(rest(sent) == rest(&file), "{path}");
}

fn object(file: &[u8]) -> DefaultDicomObject {
    dicom_object::from_reader(file.get(128..).unwrap()).unwrap()
}

fn web(node: &Node) -> SocketAddr {
    node.listening["http_address"].as_str().unwrap().parse().unwrap()
}

fn objects_of_all_transfer_syntaxes_go_out_corrected_over_http(place: Place) {
    let place = corrected_archive(place);
    let before: Vec<(String, Vec<u8>)> =
        instances(&place).into_iter().map(|(path, _)| (path.clone(), fs::read(path).unwrap())).collect();
    let node = Node::start(&place, &["--http-port", "0"]);
    let as_stored = [("Accept", "application/dicom; transfer-syntax=*")];
    let mut syntaxes = std::collections::BTreeSet::new();
    for (path, resource) in instances(&place) {
        let answer = request(web(&node), "GET", &resource, &as_stored, b"").expect(200);
        assert!(answer.is_whole, "{path}");
        let sent = object(&answer.body);
        syntaxes.insert(sent.meta().transfer_syntax().to_owned());
        assert_corrected(&sent, &path);
        let metadata = request(web(&node), "GET", &format!("{resource}/metadata"), &[], b"").expect(200).json();
        let values = |tag: &str| metadata[0][tag]["Value"][0].clone();
        assert_eq!(values("00100010")["Alphabetic"], NAME, "{path}");
        assert!(values("00100020").as_str().unwrap().starts_with("NEW-"), "{path}");
        assert_eq!(values("04000561")["04000565"]["Value"][0], "CORRECT", "{path}");
    }
    // RLE, deflated, and the others in Explicit VR Little Endian.
    assert_eq!(syntaxes.len(), 3, "{syntaxes:?}");
    // Rewritten and decompressed objects are corrected as well.
    let plain = [("Accept", "application/dicom; transfer-syntax=1.2.840.10008.1.2.1")];
    let mut rewritten = 0;
    for (path, resource) in instances(&place) {
        let answer = request(web(&node), "GET", &resource, &plain, b"");
        if answer.status == 200 {
            assert_eq!(text(&object(&answer.body), tags::PATIENT_NAME), NAME, "{path}");
            rewritten += 1;
        }
    }
    assert!(rewritten > 20, "{rewritten}");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert!(before.iter().all(|(path, bytes)| fs::read(path).unwrap() == *bytes), "a file was changed");
}

#[test]
fn metadata_that_a_client_has_are_new_after_a_correction() {
    let place = Place::new();
    place.run(["scan", &fixtures("archive")]).expect(1);
    let node = Node::start(&place, &["--http-port", "0"]);
    let (_, resource) = instances(&place).remove(0);
    let resource = format!("{resource}/metadata");
    let tag = request(web(&node), "GET", &resource, &[], b"").expect(200).header("etag");
    let known = [("If-None-Match", tag.as_str())];
    request(web(&node), "GET", &resource, &known, b"").expect(304);
    for patient in PATIENTS {
        let key = format!("PatientID={patient}");
        place.run(["correct", &key, "--set", "PatientSex=O", "--yes"]).expect(0);
    }
    let changed = request(web(&node), "GET", &resource, &known, b"").expect(200).json();
    assert_eq!(changed[0]["00100040"]["Value"][0], "O");
    for number in 1..=PATIENTS.len() {
        place.run(["correct", "--undo", &number.to_string(), "--yes"]).expect(0);
    }
    request(web(&node), "GET", &resource, &known, b"").expect(304);
}

#[test]
fn the_answer_says_that_the_character_set_of_an_object_lacks_a_character() {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    let elements: &[(u16, u16, &[u8; 2], &str)] = &[(0x0008, 0x0005, b"CS", "ISO_IR 138")];
    let file = objects::with_elements(&objects::file("P1", "1.2.1", "1.2.1.1", "1.2.1.1.1"), elements);
    // Specific Character Set comes before the UIDs.
    let class = file.windows(4).position(|window| window == [8, 0, 0x16, 0]).unwrap();
    let set = file.windows(4).position(|window| window == [8, 0, 5, 0]).unwrap();
    let file = [&file[..class], &file[set..set + 18], &file[class..set], &file[set + 18..]].concat();
    fs::write(place.path("archive/1.dcm"), file).unwrap();
    place.run(["scan", "archive"]).expect(0);
    place.run(["correct", "PatientID=P1", "--set", "PatientName=Müller^A", "--yes"]).expect(0);
    let node = Node::start(&place, &["--http-port", "0"]);
    let instance = "/dicom-web/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1";
    let answer = request(web(&node), "GET", instance, &[], b"").expect(406);
    let told = String::from_utf8(answer.body.clone()).unwrap();
    assert!(told.contains("the character set of the object cannot express"), "{told}");
    assert!(!told.contains("ller"), "{told}");
}

#[test]
fn the_last_value_of_an_element_that_occurs_twice_counts_on_each_way_out() {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    let file = objects::file("P1", "1.2.1", "1.2.1.1", "1.2.1.1.1");
    let first = b"\x10\0\x20\0LO\x02\0P1";
    let at = file.windows(first.len()).position(|window| window == first).unwrap() + first.len();
    let more = b"\x10\0\x20\0LO\x02\0P2\x10\0\x20\0LO\0\0\x08\0\x50\0SH\x02\0A ";
    let file = [&file[..at], more, &file[at..]].concat();
    fs::write(place.path("archive/1.dcm"), file).unwrap();
    place.run(["scan", "archive"]).expect(0);
    let found = place.run(["find", "--format", "csv", "PatientID"]).expect(0).stdout;
    assert_eq!(found.lines().last(), Some("P2"));
    let node = Node::start(&place, &["--http-port", "0"]);
    let answer = request(web(&node), "GET", "/dicom-web/studies/1.2.1/metadata", &[], b"").expect(200);
    assert_eq!(answer.json()[0]["00100020"]["Value"][0], "P2");
    let texts: Vec<&str> = std::str::from_utf8(&answer.body).unwrap().split("\":{\"vr\"").collect();
    let written: Vec<&str> = texts[..texts.len() - 1].iter().map(|text| &text[text.len() - 8..]).collect();
    assert!(written.is_sorted(), "{written:?}");
    drop(node);
    place.run(["correct", "PatientID=P2", "--set", "PatientID=P3", "--yes"]).expect(0);
    place.run(["copy", "PatientID=P3", "--to", "out", "--as", "{PatientID}.dcm"]).expect(0);
    let object = open_file(place.path("out/P3.dcm")).unwrap();
    let item = &object.element(tags::ORIGINAL_ATTRIBUTES_SEQUENCE).unwrap().items().unwrap()[0];
    let previous = &item.element(tags::MODIFIED_ATTRIBUTES_SEQUENCE).unwrap().items().unwrap()[0];
    assert_eq!([text(previous, tags::PATIENT_ID), text(&object, tags::PATIENT_ID)], ["P2", "P3"]);
}

fn getscu_gets_corrected_objects_and_their_checksums_are_still_those_of_the_files(place: Place) {
    let place = corrected_archive(place);
    let node = Node::start(&place, &[]);
    let Some(mut getscu) = peers::dcmtk("getscu") else { return };
    let directory = place.path("got");
    fs::create_dir(&directory).unwrap();
    let keys = ["-k", "QueryRetrieveLevel=PATIENT", "-k", "PatientID=NEW-TK-2002"];
    getscu.args(["-P", "-aec", "DCMDEX", "-od"]).arg(&directory).args(keys);
    peers::run(getscu.args(["127.0.0.1", &node.port.to_string()])).expect_success();
    let got: Vec<_> =
        fs::read_dir(&directory).unwrap().map(|entry| open_file(entry.unwrap().path()).unwrap()).collect();
    assert!(!got.is_empty());
    for object in &got {
        assert_eq!([tags::PATIENT_ID, tags::PATIENT_NAME].map(|tag| text(object, tag)), ["NEW-TK-2002", NAME]);
        let item = &object.element(tags::ORIGINAL_ATTRIBUTES_SEQUENCE).unwrap().items().unwrap()[0];
        let previous = &item.element(tags::MODIFIED_ATTRIBUTES_SEQUENCE).unwrap().items().unwrap()[0];
        assert_eq!(text(previous, tags::PATIENT_ID), "TK-2002");
    }
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    place.run(["check", "--files"]).expect(0);
}

#[test]
fn a_copy_of_a_cohort_has_corrected_objects_in_place_of_links() {
    let place = corrected_archive(Place::new());
    let found = instances(&place);
    for (to, more) in [("linked", &["--by", "hard-link"][..]), ("copied", &[])] {
        let arguments = ["copy", "PatientID=NEW-TK-2002\\NEW-HD-1001", "--to", to, "--as", "{SOPInstanceUID}.dcm"];
        place.run(arguments.into_iter().chain(more.iter().copied())).expect(0);
        let mut count = 0;
        for (path, resource) in &found {
            let copy = place.path(to).join(format!("{}.dcm", resource.rsplit('/').next().unwrap()));
            if copy.exists() {
                let (copy, file) = (open_file(&copy).unwrap(), open_file(path).unwrap());
                assert_corrected(&copy, path);
                assert_eq!(copy.meta().transfer_syntax(), file.meta().transfer_syntax(), "{path}");
                count += 1;
            }
        }
        assert!(count > 10, "{count}");
        let manifest = fs::read_to_string(place.path(to).join("manifest.csv")).unwrap();
        assert_eq!(manifest.matches("its patient is corrected").count(), count, "{manifest}");
        // The same command goes on where the other one ended.
        let again = place.run(arguments.into_iter().chain(more.iter().copied())).expect(0).stderr;
        assert!(again.contains("were there from an earlier run"), "{again}");
    }
    place.run(["copy", "PatientID=NEW-SE-3003", "--to", "cohort.zip"]).expect(0);
    // 1: the manifest in it is no DICOM.
    place.run(["scan", "--index", "other.db", "cohort.zip"]).expect(1);
    let patients =
        place.run(["find", "--index", "other.db", "--level", "PATIENT", "--format", "csv", "PatientID", "PatientName"]);
    assert_eq!(patients.expect(0).stdout.lines().skip(1).collect::<Vec<_>>(), [format!("NEW-SE-3003,{NAME}")]);
}

on_each_engine!(
    objects_of_all_transfer_syntaxes_go_out_corrected_over_http,
    getscu_gets_corrected_objects_and_their_checksums_are_still_those_of_the_files,
);
