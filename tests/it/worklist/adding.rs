//! `dcmdex worklist add`, `list`, `show` and `remove`.

use super::*;
use crate::util::engine::with_each_index;

fn an_item_that_was_added_is_found_listed_shown_and_removed() {
    let node = TestNode::start();
    let order = r#"{"PatientName": "Doe^Jane", "PatientID": "P7", "AccessionNumber": "A7", "Modality": "CT",
        "ScheduledStationAETitle": "CT1", "ScheduledProcedureStepStartDate": "20991231"}"#;
    let (code, told, errors) = worklist(&node, &["add", "-"], order.as_bytes());
    assert_eq!((code, errors.as_str()), (0, ""), "{told}");
    assert!(told.starts_with("-: added; made here: ") && told.contains("StudyInstanceUID"), "{told}");
    let mut peer = node.associate(CONTEXTS);
    assert_eq!(found(&mut peer, &[], &[((0x0008, 0x0060), "CT")]), ["A7"], "while the node runs");
    // The same again is one item.
    let (code, told, _) = worklist(&node, &["add", "-"], order.as_bytes());
    assert_eq!((code, told.split(';').next()), (0, Some("-: was there already")), "{told}");
    let changed = order.replace("20991231", "21000101");
    assert!(worklist(&node, &["add", "-"], changed.as_bytes()).1.starts_with("-: changed"));
    assert_eq!(found(&mut peer, &[], &[((0x0040, 0x0002), "21000101")]), ["A7"]);
    let (code, list, _) = worklist(&node, &["list", "--json"], b"");
    let item: Value = serde_json::from_str(list.trim()).unwrap();
    assert_eq!((code, &item["state"], &item["source"]), (0, &json!("scheduled"), &json!("command")));
    assert_eq!(item["station_ae_title"], "CT1");
    let number = item["item"].to_string();
    let (code, shown, _) = worklist(&node, &["show", &number], b"");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &shown["00100010"]["Value"][0]["Alphabetic"]), (0, &json!("Doe^Jane")));
    let (code, text, _) = worklist(&node, &["list"], b"");
    assert!(code == 0 && text.contains("CT1") && text.contains("A7"), "{text}");
    assert_eq!(worklist(&node, &["remove", &number], b"").0, 0);
    assert_eq!(worklist(&node, &["remove", &number], b"").0, 1);
    assert_eq!(found(&mut peer, &[], &[]), [""; 0]);
    assert_eq!(worklist(&node, &["list"], b"").0, 1, "nothing matched");
}

fn what_is_no_item_is_named_and_the_others_are_added() {
    let node = TestNode::start();
    let place = TempDir::new().unwrap();
    let file = |name: &str, content: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = file("good.json", r#"{"PatientID": "P1", "AccessionNumber": "A1"}"#);
    let nobody = file("nobody.json", r#"{"AccessionNumber": "A2", "PatientName": "Secret^Name", "Modality": "CT"}"#);
    let torn = file("torn.json", r#"{"PatientID": "#);
    let none = place.path().join("none.json").to_str().unwrap().to_owned();
    let (code, told, errors) = worklist(&node, &["add", &good, &nobody, &torn, &none], b"");
    assert_eq!(code, 1, "{errors}");
    assert!(told.contains("good.json: added"), "{told}");
    for reason in ["names no patient", "is no JSON: line 1", "No such file"] {
        assert!(errors.contains(reason), "{reason}: {errors}");
    }
    assert!(!errors.contains("Secret"), "{errors}");
}

with_each_index! {
    an_item_that_was_added_is_found_listed_shown_and_removed,
    what_is_no_item_is_named_and_the_others_are_added,
}
