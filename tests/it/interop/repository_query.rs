//! Repository Query by pynetdicom: in pages, cut off twice, and each record once.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::util::archives::{Keep, Zip};
use crate::util::node::TestNode;
use crate::util::objects;
use crate::util::peers::{self, python_peer};

/// A node over an archive in place: files, and a zip with a member.
fn node(limit: Option<u64>) -> (TestNode, std::path::PathBuf) {
    let node = TestNode::with(|settings| settings.query.limit = limit);
    let archive = node.directory().path().canonicalize().unwrap().join("archive");
    for (study, instances) in [(1, 5), (2, 4), (3, 2)] {
        for instance in 1..=instances {
            objects::write(&archive.join(format!("{study}/{instance} \u{e4}.dcm")), study, 1, instance);
        }
    }
    let member = objects::file("P9", "1.2.9", "1.2.9.1", "1.2.9.1.1");
    fs::write(archive.join("a.zip"), Zip::default().with("in/m.dcm", &member, Keep::Deflated).finish()).unwrap();
    let mut scan = std::process::Command::new(env!("CARGO_BIN_EXE_dcmdex"));
    scan.current_dir(node.directory().path()).args(["scan", "--quiet", "--index"]).arg(node.index()).arg(&archive);
    assert!(scan.status().unwrap().success());
    (node, archive)
}

fn ask(node: &TestNode, level: &str, maximum: &str, cut_after: &str) -> Option<Value> {
    let mut program = python_peer("repository.py")?;
    program.args(["127.0.0.1", &node.port(), "DCMDEX", level, maximum, cut_after]);
    Some(serde_json::from_str(&peers::run(&mut program).expect_success()).unwrap())
}

/// The values of a member of all answers.
fn texts<'a>(found: &'a Value, member: &str) -> Vec<&'a str> {
    found["answers"].as_array().unwrap().iter().map(|answer| answer[member].as_str().unwrap()).collect()
}

#[test]
fn a_repository_query_is_paged_and_goes_on_after_it_was_cut_off() {
    let (node, archive) = node(None);
    for (level, count) in [("IMAGE", 12), ("SERIES", 4), ("STUDY", 4)] {
        for maximum in ["0", "1", "3", "5"] {
            let Some(found) = ask(&node, level, maximum, "2") else { return };
            let uids: BTreeSet<&str> = texts(&found, "uid").into_iter().collect();
            assert_eq!((uids.len(), texts(&found, "uid").len()), (count, count), "{level} {maximum}: {found}");
            assert_eq!(found["invalid"], serde_json::json!(["A710"]));
            assert_eq!(found["statuses"].as_array().unwrap().last().unwrap(), "0000", "{found}");
        }
    }
    // Each file has its URI, and a member its container.
    let Some(found) = ask(&node, "IMAGE", "0", "2") else { return };
    let archive = archive.to_str().unwrap();
    for answer in found["answers"].as_array().unwrap() {
        let file = &answer["files"][0];
        let uri = file["FileAccessURI"].as_str().unwrap();
        if answer["uid"] == "1.2.9.1.1" {
            assert_eq!(uri, format!("file://{archive}/a.zip"));
            assert_eq!((&file["ContainerFileType"], &file["FilenameInContainer"]), (&"ZIP".into(), &"in/m.dcm".into()));
        } else {
            assert!(uri.ends_with("%20%C3%A4.dcm"), "{uri}");
        }
    }
}

#[test]
fn a_limit_of_the_node_ends_a_page_with_a_warning_and_nothing_is_lost() {
    let (node, _) = node(Some(5));
    let Some(found) = ask(&node, "IMAGE", "0", "99") else { return };
    assert_eq!(found["statuses"], serde_json::json!(["B001", "B001", "0000"]));
    assert_eq!(texts(&found, "uid").into_iter().collect::<BTreeSet<_>>().len(), 12);
    // What comes meanwhile does not repeat what was sent.
    assert!(texts(&found, "key").iter().all(|key| key.starts_with('I')));
}
