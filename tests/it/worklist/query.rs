//! C-FIND of the worklist (PS3.4 K.4.1).

use std::collections::BTreeMap;

use dcmdex::access::peers::{Grant, Peers, ServiceSet, WorklistGrant};
use dicom_ul::pdu::{PresentationContextResultReason, UserVariableItem};

use super::*;
use crate::util::engine::with_each_index;
use crate::util::scripted::{cancel_command, request};

fn days() -> Vec<Value> {
    vec![
        order(1, step("CT", "CT1", "20991231", "0900")),
        order(2, step("CT", "CT2", "20991231", "1000")),
        order(3, step("MR", "MR1", "20991231", "110000")),
        order(4, step("CT", "CT1", "21000101", "0830")),
        order(5, step("CT", "CT1\\CT2", "21000102", "2359")),
    ]
}

fn items_are_found_by_station_modality_and_day() {
    let node = node_with(&days(), |_| {});
    let mut peer = node.associate(CONTEXTS);
    let modality = |value| ((0x0008, 0x0060), value);
    let station = |value| ((0x0040, 0x0001), value);
    let date = |value| ((0x0040, 0x0002), value);
    let time = |value| ((0x0040, 0x0003), value);
    for (step, numbers) in [
        (vec![], "A001 A002 A003 A004 A005"),
        (vec![modality("CT"), date("20991231")], "A001 A002"),
        (vec![modality("CT"), station("CT1"), date("20991231")], "A001"),
        (vec![station("CT2")], "A002 A005"),
        (vec![modality("C*")], "A001 A002 A004 A005"),
        (vec![modality("CT\\MR"), date("20991231")], "A001 A002 A003"),
        (vec![date("20991231"), time("0930-")], "A002 A003"),
        (vec![date("-21000101")], "A001 A002 A003 A004"),
        // Both ranges are one: PS3.4 table K.6-1.
        (vec![date("20991231-21000101"), time("1030-0830")], "A003 A004"),
        (vec![date("20991231-"), time("1030-")], "A003 A004 A005"),
        (vec![modality("US")], ""),
    ] {
        assert_eq!(found(&mut peer, &[], &step).join(" "), numbers, "{step:?}");
    }
    let name = |value| ((0x0010, 0x0010), value);
    assert_eq!(found(&mut peer, &[name("patient^00?")], &[]).len(), 5);
    assert_eq!(found(&mut peer, &[name("PATIENT^003")], &[]), ["A003"]);
    assert_eq!(found(&mut peer, &[((0x0010, 0x0020), "P004")], &[]), ["A004"]);
    assert_eq!(found(&mut peer, &[((0x0008, 0x0050), "A002")], &[]), ["A002"]);
    // Every attribute that is returned can be matched.
    assert_eq!(found(&mut peer, &[((0x0032, 0x1060), "Head")], &[modality("MR")]), ["A003"]);
    assert_eq!(found(&mut peer, &[((0x0032, 0x1060), "Foot")], &[]), [""; 0]);
    peer.release();
}

// An order is kept for a day after its step should have begun, or after it came.
fn an_item_that_nobody_started_in_time_is_found_no_more() {
    const HOUR: i64 = 3_600_000;
    let node = node_with(&[order(3, step("CT", "CT1", "20991231", "0900"))], |_| {});
    let now = Clock::System.now_ms();
    fill_at(&node.index(), &[order(1, step("CT", "CT1", "20200101", "0900"))], now - 25 * HOUR);
    fill_at(&node.index(), &[order(2, step("CT", "CT1", "20200101", "0900"))], now - 23 * HOUR);
    let mut peer = node.associate(CONTEXTS);
    assert_eq!(found(&mut peer, &[], &[]), ["A002", "A003"]);
    assert_eq!(found(&mut peer, &[((0x0008, 0x0050), "A001")], &[]), [""; 0]);
    peer.release();
    let listed = |arguments: &[&str]| {
        let (_, text, _) = worklist(&node, arguments, b"");
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        let words = |line: Value| format!("{} {}", line["accession_number"], line["state"]).replace('"', "");
        text.lines().map(line).map(words).collect::<Vec<_>>()
    };
    assert_eq!(listed(&["list", "--json"]), ["A002 scheduled", "A003 scheduled"]);
    assert_eq!(listed(&["list", "--all", "--json"]), ["A001 expired", "A002 scheduled", "A003 scheduled"]);
}

// PS3.4 table K.6-1: attributes of type 1 always have a value.
fn an_answer_has_the_attributes_of_the_request_and_those_of_type_1_have_a_value() {
    let node = node_with(&[json!({ "PatientID": "P1", "AccessionNumber": "A1" })], |_| {});
    let mut peer = node.associate(CONTEXTS);
    let root: Vec<_> =
        [(8, 0x50), (0x10, 0x10), (0x10, 0x20), (0x10, 0x30), (0x20, 0xD), (0x32, 0x1060), (0x40, 0x1001)]
            .map(|tag| (tag, ""))
            .into();
    let step: Vec<_> =
        [(8, 0x60), (0x40, 1), (0x40, 2), (0x40, 3), (0x40, 7), (0x40, 9), (0x40, 0x20)].map(|tag| (tag, "")).into();
    let (pending, last) = ask(&mut peer, &identifier(&root, &step));
    assert_eq!((pending.len(), last.status()), (1, 0));
    let answer = decoded(&pending[0]);
    let tags: Vec<_> = answer.elements.iter().map(|element| (element.tag.group(), element.tag.element())).collect();
    let mut asked: Vec<_> = root.iter().map(|(tag, _)| *tag).chain([(0x40, 0x100)]).collect();
    asked.sort_unstable();
    assert_eq!(tags, asked);
    for ((group, element), _) in root {
        let value = text(&answer.elements, group, element);
        assert_eq!(value.is_empty(), (group, element) == (0x10, 0x30), "({group:04X},{element:04X}) {value}");
    }
    let inner = step_of(&answer);
    assert!(step.iter().all(|((group, element), _)| !text(&inner, *group, *element).is_empty()), "{inner:?}");
    assert_eq!(text(&inner, 0x40, 0x20), "SCHEDULED");
    // A sequence of zero length asks for all of it.
    let (pending, _) = ask(&mut peer, &DataSet::default().bytes(0x0040, 0x0100, &[]).0);
    assert!(step_of(&decoded(&pending[0])).len() >= 6);
}

fn without_keys_there_are_no_matches() {
    let node = node_with(&days(), |_| {});
    let mut peer = node.associate(CONTEXTS);
    // PS3.4 K.4.1.3.1.
    let (pending, last) = ask(&mut peer, &[]);
    assert_eq!((pending.len(), last.status()), (0, 0));
    let (pending, last) = ask(&mut peer, &DataSet::default().text(0x0008, 0x0005, "ISO_IR 100").0);
    assert_eq!((pending.len(), last.status()), (0, 0));
}

fn what_cannot_be_answered_gets_its_status_and_comment() {
    let node = node_with(&days(), |settings| settings.worklist.limit = Some(2));
    let mut peer = node.associate(CONTEXTS);
    let mut refused = |identifier: &[u8]| {
        let (pending, last) = ask(&mut peer, identifier);
        (pending.len(), last.status(), last.error_comment().to_owned())
    };
    let one = DataSet::default().text(0x0008, 0x0060, "CT");
    let item = DataSet::default().bytes(0xFFFE, 0xE000, &one.0);
    let two = DataSet::default().bytes(0x0040, 0x0100, &[item.0.clone(), item.0].concat());
    assert_eq!(refused(&two.0), (0, 0xA900, "key (0040,0100): the sequence key has more than one item".into()));
    let range = identifier(&[], &[((0x0040, 0x0002), "2026-13-x")]);
    let (count, status, comment) = refused(&range);
    assert_eq!((count, status), (0, 0xA900));
    assert!(comment.starts_with("key (0040,0002): not a range of DA"), "{comment}");
    assert_eq!(refused(&[0x10, 0]).1, 0xC001);
    let (count, status, comment) = refused(&identifier(&[], &[((0x0008, 0x0060), "")]));
    assert_eq!((count, status, comment.as_str()), (2, 0xA700, "more than 2 matches; these are the first"));
    peer.echo(3);
}

fn a_key_that_cannot_be_matched_is_told_by_the_status() {
    let node = node_with(&days()[..1], |_| {});
    let mut peer = node.associate(CONTEXTS);
    let private = DataSet::default().text(0x0008, 0x0050, "").text(0x0009, 0x0010, "ACME").text(0x0009, 0x1001, "x");
    let (pending, last) = ask(&mut peer, &private.0);
    assert_eq!((pending.len(), last.status()), (1, 0));
    assert_eq!(pending[0].status(), 0xFF01);
}

fn a_cancelled_question_ends_with_its_status() {
    let many: Vec<_> = (0..3000)
        .map(|number| {
            let mut item = order(number, step("CT", "CT1", "20991231", "0900"));
            item["PatientComments"] = "x".repeat(9000).into();
            item
        })
        .collect();
    let node = node_with(&many, |_| {});
    let mut peer = node.associate(CONTEXTS);
    let all = DataSet::default().text(0x0008, 0x0050, "").text(0x0010, 0x4000, "");
    peer.send_message(1, &find_command(7, WORKLIST), Some(&all.0));
    let first = peer.receive_message();
    assert_eq!(first.status(), 0xFF00);
    peer.send_message(1, &cancel_command(7), None);
    let mut count = 1;
    let last = loop {
        match peer.receive_message() {
            pending if pending.status() == 0xFF00 => count += 1,
            last => break last,
        }
    };
    assert_eq!(last.status(), 0xFE00);
    assert!(count < 3000);
    peer.echo(3);
}

fn a_peer_may_see_only_its_own_station() {
    let grant = |own_station_only, services: ServiceSet| Grant {
        services,
        worklist: WorklistGrant { own_station_only, character_set: None },
        ..Grant::default()
    };
    let table = BTreeMap::from([
        ("CT2".parse().unwrap(), grant(true, ServiceSet::ALL)),
        ("RIS".parse().unwrap(), grant(false, ["worklist"].into_iter().collect())),
        ("PACS".parse().unwrap(), grant(false, ["find"].into_iter().collect())),
    ]);
    let node = node_with(&days(), |settings| settings.peers = Peers { table: Some(table), ..Peers::default() });
    let as_title = |title: &str| {
        let mut rq = request(CONTEXTS);
        rq.calling_ae_title = title.to_owned();
        let mut peer = ScriptedPeer::connect(node.address());
        let accepted = peer.associate(&rq);
        (accepted.presentation_contexts[0].reason.clone(), peer)
    };
    let (reason, mut peer) = as_title("CT2");
    assert_eq!(reason, PresentationContextResultReason::Acceptance);
    assert_eq!(found(&mut peer, &[], &[((0x0040, 0x0001), "")]), ["A002", "A005"]);
    assert_eq!(found(&mut peer, &[], &[((0x0040, 0x0001), "CT1")]), ["A005"], "of its own, those that it asks for");
    assert_eq!(found(&mut as_title("RIS").1, &[], &[]).len(), 5);
    assert_eq!(as_title("PACS").0, PresentationContextResultReason::UserRejection);
    // The list tells the operator who asked. It is written some seconds later.
    let asked = loop {
        let (_, list, _) = worklist(&node, &["list", "--json"], b"");
        let asked: Vec<Value> = list.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
        if asked[0]["asked_by"] == "RIS" && asked[1]["asked_by"] == "RIS" {
            break asked;
        }
        std::thread::yield_now();
    };
    assert!(asked.iter().all(|item| item["asked_ms"].as_i64().is_some()), "{asked:?}");
}

fn names_come_in_the_character_set_of_the_request_or_in_that_of_the_peer() {
    let item = |name: &str| {
        let mut item = order(1, step("CT", "CT1", "20991231", "0900"));
        item["PatientName"] = name.into();
        item
    };
    let title: dcmdex::model::ae_title::AeTitle = "OLD".parse().unwrap();
    let grant = Grant {
        worklist: WorklistGrant { own_station_only: false, character_set: Some("ISO_IR 100".into()) },
        ..Grant::default()
    };
    let other = Grant { worklist: WorklistGrant::default(), ..grant.clone() };
    let table = BTreeMap::from([(title, grant), ("NEW".parse().unwrap(), other)]);
    let node = node_with(&[item("Müller^Łukasz=山田")], |settings| {
        settings.peers = Peers { table: Some(table), ..Peers::default() };
    });
    let ask_as = |title: &str, set: &str| {
        let mut rq = request(CONTEXTS);
        rq.calling_ae_title = title.to_owned();
        let mut peer = ScriptedPeer::connect(node.address());
        peer.associate(&rq);
        let asked = DataSet::default().text(0x0008, 0x0005, set).text(0x0010, 0x0010, "");
        let (pending, _) = ask(&mut peer, &asked.0);
        let answer = decoded(&pending[0]);
        (answer.character_set.clone(), text(&answer.elements, 0x0010, 0x0010))
    };
    assert_eq!(ask_as("NEW", "ISO_IR 192"), ("ISO_IR 192".into(), "Müller^Łukasz=山田".into()));
    assert_eq!(ask_as("NEW", "ISO_IR 100"), ("ISO_IR 192".into(), "Müller^Łukasz=山田".into()), "nothing is lost");
    assert_eq!(ask_as("OLD", "ISO_IR 192"), ("ISO_IR 100".into(), "Müller^?ukasz".into()), "it reads nothing else");
    assert_eq!(ask_as("NEW", "utf-8").0, "ISO_IR 192", "a device may know no other spelling");
}

// PS3.4 K.5.1.
fn fuzzy_names_are_negotiated() {
    let node = node_with(&days(), |_| {});
    let mut peer = ScriptedPeer::connect(node.address());
    let mut rq = request(CONTEXTS);
    rq.user_variables.push(UserVariableItem::SopClassExtendedNegotiationSubItem(WORKLIST.into(), vec![1, 1, 1]));
    let accepted = peer.associate(&rq);
    let answer = accepted.user_variables.iter().find_map(|item| match item {
        UserVariableItem::SopClassExtendedNegotiationSubItem(uid, answer) if uid == WORKLIST => Some(answer.clone()),
        _ => None,
    });
    assert_eq!(answer, Some(vec![1, 1, 1]));
    assert_eq!(found(&mut peer, &[((0x0010, 0x0010), "003 PATIENT")], &[]), ["A003"]);
    let mut plain = node.associate(CONTEXTS);
    assert_eq!(found(&mut plain, &[((0x0010, 0x0010), "003 PATIENT")], &[]), [""; 0]);
}

with_each_index! {
    items_are_found_by_station_modality_and_day,
    an_item_that_nobody_started_in_time_is_found_no_more,
    an_answer_has_the_attributes_of_the_request_and_those_of_type_1_have_a_value,
    without_keys_there_are_no_matches,
    what_cannot_be_answered_gets_its_status_and_comment,
    a_key_that_cannot_be_matched_is_told_by_the_status,
    a_cancelled_question_ends_with_its_status,
    a_peer_may_see_only_its_own_station,
    names_come_in_the_character_set_of_the_request_or_in_that_of_the_peer,
    fuzzy_names_are_negotiated,
}
