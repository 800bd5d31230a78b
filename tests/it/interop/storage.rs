//! C-STORE from software of other vendors.

use crate::scp::storage::{files, fixture, status};
use crate::util::node::TestNode;
use crate::util::peers;

#[test]
fn storescu_and_dcmsend_of_dcmtk_are_served() {
    let Some(mut storescu) = peers::dcmtk("storescu") else { return };
    let node = TestNode::start();
    let arguments = ["-aec", "DCMDEX", "127.0.0.1", &node.port()];
    peers::run(storescu.arg("-v").args(arguments).arg(fixture("modalities/CT_small.dcm"))).expect_success();
    assert_eq!(status(&node).instances, 1);
    let mut dcmsend = peers::dcmtk("dcmsend").unwrap();
    peers::run(dcmsend.args(arguments).args(["+sd", "+r"]).arg(fixture("fileset/98892003"))).expect_success();
    assert!(status(&node).instances > 1);
    assert_eq!(status(&node).instances, files(&node).len() as u64);
}

#[test]
fn pynetdicom_is_served() {
    let node = TestNode::start();
    let Some(mut store) = peers::python_peer("store.py") else { return };
    let arguments = ["127.0.0.1", &node.port(), "DCMDEX"];
    let files = ["modalities/CT_small.dcm", "modalities/MR_small.dcm"].map(fixture);
    let said = peers::run(store.args(arguments).args(&files)).expect_success();
    assert_eq!(said.lines().collect::<Vec<_>>(), ["0000", "0000"]);
    assert_eq!(status(&node).instances, 2);
}
