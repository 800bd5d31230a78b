//! A setting says who may associate, and a running node never opens access by itself.

use std::fs;

use rustix::process::Signal;

use super::serve::Node;
use super::*;
use crate::util::certificates::Authority;
use crate::util::scripted::{IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, VERIFICATION, request};
use dicom_ul::pdu::Pdu;

/// Whether the node accepts an association of this AE title.
fn lets_in(node: &Node, title: &str) -> bool {
    let mut request = request(&[(VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN])]);
    request.calling_ae_title = title.into();
    let mut peer = ScriptedPeer::connect(([127, 0, 0, 1], node.port).into());
    peer.send_pdu(&request.into());
    match peer.receive() {
        Some(Pdu::AssociationAC(_)) => true,
        Some(Pdu::AssociationRJ(_)) => false,
        other => panic!("{other:?}"),
    }
}

/// Makes the node reload its settings. Returns the error if it refuses them.
fn hang_up(node: &mut Node) -> Option<String> {
    node.signal(Signal::HUP);
    let line = node.wait_for_any(&["the new settings cannot be used", "peers and certificates read again"]);
    line["error"].as_str().map(str::to_owned)
}

fn write(place: &Place, text: &str) {
    fs::write(place.path("dcmdex.toml"), text).unwrap();
}

#[test]
fn a_node_that_others_reach_starts_only_when_it_is_said_who_may_associate() {
    let place = Place::new();
    let refused = run(place.command().args(["serve", "--bind", "0.0.0.0", "--port", "0"])).expect(2);
    assert!(refused.stderr.contains("nothing says who may associate"), "{refused:?}");
    assert!(refused.stderr.contains("[[peer]]") && refused.stderr.contains("--access anyone"), "{refused:?}");
    assert!(!place.path("dcmdex-data").exists());
    run(place.command().args(["config", "check"]).env("DCMDEX_BIND", "0.0.0.0")).expect(2);
    let anyone =
        run(place.command().args(["config", "check"]).envs([("DCMDEX_BIND", "::"), ("DCMDEX_ACCESS", "anyone")]));
    assert!(anyone.expect(0).stdout.contains("anyone who reaches [::]:11112"));
    for (settings, said) in [
        ("", "anyone on this machine"),
        ("access = \"anyone\"\n", "anyone on this machine"),
        ("[[peer]]\nae_title = \"CT1\"\n", "table"),
    ] {
        write(&place, settings);
        let node = Node::start(&place, &[]);
        assert_eq!(node.listening["access"], said, "{settings}");
        assert_eq!(lets_in(&node, "STRANGER"), said != "table");
        assert_eq!(node.stop(Signal::TERM).0, Some(0));
    }
}

#[test]
fn a_reload_that_would_let_in_anyone_changes_nothing() {
    let place = Place::new();
    let whole = "[[peer]]\nae_title = \"CT1\"\n[[peer]]\nae_title = \"CT2\"\n";
    write(&place, whole);
    let mut node = Node::start(&place, &[]);
    for cut in ["", "# nothing\n", "port = 1", "access = \"anyone\"\n", "[peers]\nCT1 = \"h:104\"\n"] {
        write(&place, cut);
        let refused = hang_up(&mut node).unwrap_or_else(|| panic!("taken: {cut}"));
        assert!(refused.contains("restart the node"), "{cut}: {refused}");
        assert!(!lets_in(&node, "STRANGER") && lets_in(&node, "CT1") && lets_in(&node, "CT2"), "{cut}");
    }
    // Single peers come and go.
    write(&place, "[[peer]]\nae_title = \"CT1\"\n[[peer]]\nae_title = \"CT3\"\n");
    assert_eq!(hang_up(&mut node), None);
    assert_eq!(["CT1", "CT2", "CT3", "STRANGER"].map(|title| lets_in(&node, title)), [true, false, true, false]);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_node_that_let_in_anyone_takes_a_table_and_keeps_it() {
    let place = Place::new();
    write(&place, "");
    let mut node = Node::start(&place, &[]);
    assert!(lets_in(&node, "STRANGER"));
    write(&place, "[[peer]]\nae_title = \"CT1\"\n");
    assert_eq!(hang_up(&mut node), None);
    assert!(!lets_in(&node, "STRANGER") && lets_in(&node, "CT1"));
    write(&place, "");
    assert!(hang_up(&mut node).is_some());
    assert!(!lets_in(&node, "STRANGER"));
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_file_that_is_written_line_by_line_never_lets_in_a_stranger_nor_a_bound_title_without_tls() {
    let place = Place::new();
    let authority = Authority::new("ours");
    let identity = authority.identity("NODE");
    let whole = format!(
        "[tls]\nport = 0\ncertificate = {:?}\nkey = {:?}\nauthorities = {:?}\n[[peer]]\nae_title = \"OPEN\"\n\
         [[peer]]\nae_title = \"BOUND\"\nservices = [\"echo\"]\ncertificates = [\"cn:BOUND\"]\n",
        identity.certificate,
        identity.key,
        authority.file()
    );
    write(&place, &whole);
    let mut node = Node::start(&place, &[]);
    let (mut taken, mut refused) = (0, 0);
    let lines: Vec<_> = whole.lines().collect();
    for end in (0..=lines.len()).rev().chain(0..=lines.len()) {
        write(&place, &lines[..end].iter().map(|line| format!("{line}\n")).collect::<String>());
        match hang_up(&mut node) {
            None => taken += 1,
            Some(_) => refused += 1,
        }
        assert!(!lets_in(&node, "STRANGER") && !lets_in(&node, "BOUND"), "{end} lines");
        assert!(lets_in(&node, "OPEN"), "{end} lines");
    }
    assert!(taken > 1 && refused > 1, "{taken} {refused}");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_file_that_says_that_it_has_an_end_is_refused_without() {
    let place = Place::new();
    let whole = "require_end = true\n[[peer]]\nae_title = \"CT1\"\nservices = [\"echo\"]\n# end\n";
    write(&place, whole);
    let mut node = Node::start(&place, &[]);
    // A new title, cut off before what binds it: nothing but the missing end tells.
    write(&place, "require_end = true\n[[peer]]\nae_title = \"NEW\"\n");
    let refused = hang_up(&mut node).unwrap();
    assert!(refused.contains("dcmdex.toml:3: the last line is not `# end`"), "{refused}");
    assert!(!lets_in(&node, "NEW"));
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    place.run(["serve", "--port", "0"]).expect(2);
    place.run(["config", "check"]).expect(2);
    write(&place, whole);
    place.run(["config", "check"]).expect(0);
}
