//! C-FIND from findscu of DCMTK. [`super::find`] has whole conversations.

use crate::scp::query::node_with;
use crate::util::peers;

#[test]
fn findscu_of_dcmtk_is_answered() {
    let Some(mut findscu) = peers::dcmtk("findscu") else { return };
    let node = node_with(12, |_| {});
    let arguments = ["-v", "-S", "-aec", "DCMDEX", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=TEST*"];
    let counters = ["-k", "StudyInstanceUID", "-k", "NumberOfStudyRelatedInstances"];
    let said = peers::run(findscu.args(arguments).args(counters).args(["127.0.0.1", &node.port()])).expect_success();
    assert!(said.contains("Test^Person") && said.contains("[12"), "{said}");
    assert!(said.contains("Received Final Find Response (Success)"), "{said}");
}

#[test]
fn findscu_that_cancels_is_told_so() {
    let Some(mut findscu) = peers::dcmtk("findscu") else { return };
    let node = node_with(5000, |_| {});
    let arguments = ["-v", "-S", "--cancel", "3", "-aec", "DCMDEX", "-k", "QueryRetrieveLevel=IMAGE"];
    let keys = [
        "-k",
        "StudyInstanceUID=1.2.3",
        "-k",
        "SeriesInstanceUID=1.2.3.4",
        "-k",
        "SOPInstanceUID",
        "-k",
        "PatientComments",
    ];
    let said = peers::run(findscu.args(arguments).args(keys).args(["127.0.0.1", &node.port()])).expect_success();
    assert!(said.contains("Received Final Find Response (Cancel"), "{}", &said[said.len().saturating_sub(2000)..]);
}
