//! Objects that break the rules: receiving, sending, committing and checking them.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::commitment::{COMMITMENT, commit};
use super::retrieval::{Retrieved, SECONDARY_CAPTURE, STUDY_GET, get, getter, node_on, study};
use crate::ingest::headers::made::{
    DEFLATED, EBE, ELE, EXPLICIT_BE, EXPLICIT_LE, Encoding, ILE, IMPLICIT_LE, deflate, file,
};
use crate::util::node::TestNode;
use crate::util::scripted::{IMPLICIT_VR_LITTLE_ENDIAN, store_command};

const SUCCESS: u16 = 0;
const INSTANCE: &str = "1.2.3.4.5";

/// Builds a data set with `before` at its start, `middle` inside, and pixel data of `pixels` bytes.
fn data_set(encoding: Encoding, before: &[u8], middle: &[u8], pixels: usize) -> Vec<u8> {
    [
        before.to_vec(),
        encoding.element(0x0008_0016, "UI", b"1.2.840.10008.5.1.4.1.1.7\0"),
        encoding.element(0x0008_0018, "UI", b"1.2.3.4.5\0"),
        middle.to_vec(),
        encoding.element(0x0010_0010, "PN", b"Test^Person "),
        encoding.element(0x0020_000D, "UI", b"1.2.3\0"),
        encoding.element(0x0020_000E, "UI", b"1.2.3.4\0"),
        encoding.element(0x7FE0_0010, "OB", &vec![1; pixels]),
    ]
    .concat()
}

fn even(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

/// Stores a data set, commits and checks it, and retrieves it.
fn stored_and_got(transfer_syntax: &str, data_set: &[u8]) -> Retrieved {
    let directory = Arc::new(TempDir::new().unwrap());
    let node = TestNode::with(|settings| settings.directory = Arc::clone(&directory));
    let contexts: &[(&str, &[&str])] =
        &[(COMMITMENT, &[IMPLICIT_VR_LITTLE_ENDIAN]), (SECONDARY_CAPTURE, &[transfer_syntax])];
    let mut peer = node.associate(contexts);
    peer.send_message(3, &store_command(7, SECONDARY_CAPTURE, INSTANCE), Some(data_set));
    assert_eq!(peer.receive_message().status(), SUCCESS);
    let committed = commit(&mut peer, &[(SECONDARY_CAPTURE, INSTANCE)]);
    assert_eq!(committed, (1, vec![INSTANCE.to_owned()], vec![]));
    peer.release();
    let check = Command::new(env!("CARGO_BIN_EXE_dcmdex"))
        .args(["check", "--files", "--index"])
        .arg(directory.path().join("index.db"))
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(0), "{}", String::from_utf8_lossy(&check.stdout));
    let mut peer = getter(&node, STUDY_GET, &[(SECONDARY_CAPTURE, &[transfer_syntax])]);
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.3"), |_| SUCCESS);
    peer.release();
    retrieved
}

#[test]
fn what_was_acknowledged_can_be_fetched_as_it_was_sent() {
    for (transfer_syntax, encoding) in [(EXPLICIT_LE, ELE), (IMPLICIT_LE, ILE), (EXPLICIT_BE, EBE), (DEFLATED, ELE)] {
        let other_syntax = encoding.element(0x0002_0010, "UI", b"1.2.840.10008.1.2.4.70");
        let sender = encoding.element(0x0002_0016, "AE", b"OTHER ");
        let text = encoding.element(0x0008_1110, "SQ", b"Test,Case19  ");
        let commands = encoding.element(0, "UL", &[0; 4]);
        for (before, middle, pixels) in [
            (other_syntax.clone(), vec![], 20),
            ([other_syntax, sender.clone()].concat(), vec![], 19),
            (sender, text, 20),
            (commands, vec![], 20),
        ] {
            let mut sent = data_set(encoding, &before, &middle, pixels);
            if transfer_syntax == DEFLATED {
                sent = deflate(&sent);
            }
            let retrieved = stored_and_got(transfer_syntax, &sent);
            assert_eq!(retrieved.status, SUCCESS, "{transfer_syntax}: {}", retrieved.comment);
            assert!(retrieved.objects[0].2 == even(sent), "{transfer_syntax}");
        }
    }
}

#[test]
fn an_object_with_two_groups_of_file_meta_information_is_in_the_first_transfer_syntax() {
    let archive = TempDir::new().unwrap();
    let second = ELE.element(0x0002_0010, "UI", b"1.2.840.10008.1.2.4.70");
    let whole = data_set(ELE, &second, b"", 20);
    fs::write(archive.path().join("1.dcm"), file(EXPLICIT_LE, &whole)).unwrap();
    let node = node_on(archive.path(), |_| {});
    let mut peer = getter(&node, STUDY_GET, &[(SECONDARY_CAPTURE, &[EXPLICIT_LE])]);
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.3"), |_| SUCCESS);
    assert_eq!(retrieved.status, SUCCESS, "{}", retrieved.comment);
    assert!(retrieved.objects[0].2 == whole);
    peer.release();
    // Rewritten, it has no second transfer syntax.
    let mut peer = getter(&node, STUDY_GET, &[(SECONDARY_CAPTURE, &[IMPLICIT_LE])]);
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.3"), |_| SUCCESS);
    assert!(retrieved.objects[0].2 == data_set(ILE, b"", b"", 20));
    peer.release();
}

#[test]
fn a_value_of_odd_length_is_padded_when_its_object_is_sent() {
    let archive = TempDir::new().unwrap();
    let lies = data_set(ELE, b"", b"", 19);
    fs::write(archive.path().join("1.dcm"), file(EXPLICIT_LE, &lies)).unwrap();
    let node = node_on(archive.path(), |_| {});
    let got = |transfer_syntax: &str| {
        let mut peer = getter(&node, STUDY_GET, &[(SECONDARY_CAPTURE, &[transfer_syntax])]);
        let mut retrieved = get(&mut peer, STUDY_GET, &study("1.2.3"), |_| SUCCESS);
        peer.release();
        retrieved.objects.remove(0).2
    };
    assert!(got(EXPLICIT_LE) == [lies, vec![0]].concat());
    for (transfer_syntax, encoding) in [(IMPLICIT_LE, ILE), (EXPLICIT_BE, EBE)] {
        let pixels = encoding.element(0x7FE0_0010, "OB", &[&[1; 19][..], &[0]].concat());
        let whole = data_set(encoding, b"", b"", 0);
        let header = encoding.element(0x7FE0_0010, "OB", b"").len();
        assert!(got(transfer_syntax) == [&whole[..whole.len() - header], &pixels].concat());
    }
}

/// The length says where such a sequence ends, so it costs nobody the object.
#[test]
fn a_sequence_of_something_other_than_items_is_empty_where_its_object_is_rewritten() {
    for (stored_as, encoding) in [(EXPLICIT_LE, ELE), (IMPLICIT_LE, ILE), (DEFLATED, ELE)] {
        let junk = |tag: u32, text: &[u8]| encoding.element(0x0008_0000 | tag, "SQ", text);
        // The second one has an item before what is none.
        let item = *b"\xFE\xFF\0\xE0\0\0\0\0some more junk";
        let middle = [junk(0x1110, b"Test,Case19 "), junk(0x1120, &item)].concat();
        let archive = TempDir::new().unwrap();
        let lies = data_set(encoding, b"", &middle, 20);
        let lies = if stored_as == DEFLATED { deflate(&lies) } else { lies };
        fs::write(archive.path().join("1.dcm"), file(stored_as, &lies)).unwrap();
        let node = node_on(archive.path(), |_| {});
        for (transfer_syntax, to) in [(EXPLICIT_LE, ELE), (IMPLICIT_LE, ILE), (EXPLICIT_BE, EBE)] {
            if transfer_syntax == stored_as {
                continue;
            }
            let mut peer = getter(&node, STUDY_GET, &[(SECONDARY_CAPTURE, &[transfer_syntax])]);
            let retrieved = get(&mut peer, STUDY_GET, &study("1.2.3"), |_| SUCCESS);
            peer.release();
            assert_eq!(retrieved.status, SUCCESS, "{stored_as} {transfer_syntax}: {}", retrieved.comment);
            let empty = |tag: u32| to.element(0x0008_0000 | tag, "SQ", b"");
            let mut expected = data_set(to, b"", &[empty(0x1110), empty(0x1120)].concat(), 20);
            if stored_as == IMPLICIT_LE {
                // Without a VR it is the one of the dictionary.
                let at = expected.windows(2).rposition(|two| two == b"OB").unwrap();
                expected[at + 1] = b'W';
            }
            assert!(retrieved.objects[0].2 == expected, "{stored_as} {transfer_syntax}");
        }
    }
}
