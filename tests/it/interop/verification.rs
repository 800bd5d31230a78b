//! C-ECHO from software of other vendors.

use crate::util::node::TestNode;
use crate::util::peers;

#[test]
fn echoscu_of_dcmtk_is_answered() {
    let Some(mut echoscu) = peers::dcmtk("echoscu") else { return };
    let node = TestNode::start();
    let said = peers::run(echoscu.args(["-v", "--repeat", "3", "-aec", "DCMDEX", "127.0.0.1", &node.port()]));
    let said = said.expect_success();
    assert_eq!(said.matches("Received Echo Response (Success)").count(), 3, "{said}");
}

#[test]
fn echoscu_with_128_contexts_of_four_syntaxes_is_answered() {
    let Some(mut echoscu) = peers::dcmtk("echoscu") else { return };
    let node = TestNode::start();
    let arguments = ["-ppc", "128", "-pts", "4", "-aec", "DCMDEX", "127.0.0.1", &node.port()];
    peers::run(echoscu.args(arguments)).expect_success();
}

#[test]
fn echoscu_that_calls_somebody_else_is_told_so() {
    let Some(mut echoscu) = peers::dcmtk("echoscu") else { return };
    let node = TestNode::start();
    let said = peers::run(echoscu.args(["-aec", "SOMEBODY", "127.0.0.1", &node.port()]));
    assert!(!said.status.success());
    assert!(said.stderr.contains("Called AE Title Not Recognized"), "{}", said.stderr);
}

#[test]
fn echoscu_that_aborts_does_no_harm() {
    let Some(mut echoscu) = peers::dcmtk("echoscu") else { return };
    let node = TestNode::start();
    peers::run(echoscu.args(["--abort", "-aec", "DCMDEX", "127.0.0.1", &node.port()])).expect_success();
    let mut echoscu = peers::dcmtk("echoscu").unwrap();
    peers::run(echoscu.args(["-aec", "DCMDEX", "127.0.0.1", &node.port()])).expect_success();
}

#[test]
fn pynetdicom_is_answered() {
    let node = TestNode::start();
    let Some(mut echo) = peers::python_peer("echo.py") else { return };
    let said = peers::run(echo.args(["127.0.0.1", &node.port(), "DCMDEX"])).expect_success();
    assert_eq!(said.trim(), "0000");
}
