//! Access and TLS with software of other vendors.

use crate::scp::access::table;
use crate::scp::tls::{bound, node_of};
use crate::util::certificates::Authority;
use crate::util::node::TestNode;
use crate::util::peers;

#[test]
fn dcmtk_is_told_why_it_is_not_let_in() {
    let node = TestNode::with(|settings| settings.peers = table(&[("CT1", &[], &["echo"], None)]));
    let echo = |title| {
        Some(peers::run(peers::dcmtk("echoscu")?.args(["-aet", title, "-aec", "DCMDEX", "127.0.0.1", &node.port()])))
    };
    let Some(stranger) = echo("CT2") else { return };
    assert!(stranger.stderr.contains("Calling AE Title Not Recognized"), "{stranger:?}");
    echo("CT1").unwrap().expect_success();
    let find = ["-S", "-aet", "CT1", "-aec", "DCMDEX", "127.0.0.1", &node.port(), "-k", "QueryRetrieveLevel=STUDY"];
    let refused = peers::run(peers::dcmtk("findscu").unwrap().args(find));
    assert!(refused.stderr.contains("No Acceptable Presentation Contexts"), "{refused:?}");
}

#[test]
fn dcmtk_verifies_stores_and_queries_over_tls() {
    let ours = Authority::new("ours");
    let node = node_of(&ours, bound("CT1", &["cn:CT1"]));
    let identity = ours.identity("CT1");
    let port = node.tls_address().port().to_string();
    let to_node = ["-aet", "CT1", "-aec", "DCMDEX", "127.0.0.1", &port];
    let run = |program: &str, before: &[&str], after: &[&str]| {
        let mut command = peers::dcmtk(program)?;
        command.args(identity.dcmtk(&ours.file())).args(before).args(to_node).args(after);
        Some(peers::run(&mut command))
    };
    let Some(echoed) = run("echoscu", &[], &[]) else { return };
    echoed.expect_success();
    let file = format!("{}/fixtures/real/modalities/CT_small.dcm", env!("CARGO_MANIFEST_DIR"));
    run("storescu", &[], &[&file]).unwrap().expect_success();
    let keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=1CT1"];
    let found = run("findscu", &["-v", "-S"], &keys).unwrap().expect_success();
    assert!(found.contains("[1CT1"), "{found}");
    // The same without TLS, and with somebody else's certificate.
    let plain = ["-aet", "CT1", "-aec", "DCMDEX", "127.0.0.1", &node.port()];
    assert!(!peers::run(peers::dcmtk("echoscu").unwrap().args(plain)).status.success());
    let mut other = peers::dcmtk("echoscu").unwrap();
    let refused = peers::run(other.args(ours.identity("CT2").dcmtk(&ours.file())).args(to_node));
    assert!(refused.stderr.contains("Calling AE Title Not Recognized"), "{refused:?}");
}
