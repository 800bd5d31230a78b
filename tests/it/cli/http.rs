//! Who may send requests over HTTP, as `config check` and `serve` say it.

use std::fs;

use dcmdex::access::users::{Rights, line_with_password};
use rustix::process::Signal;

use super::messages::permit;
use super::serve::Node;
use super::*;

/// Runs `config check` with these settings of `[http]`.
fn check(place: &Place, settings: &str) -> Run {
    fs::write(place.path("dcmdex.toml"), format!("[http]\n{settings}")).unwrap();
    place.run(["config", "check"])
}

fn write_users(place: &Place) {
    let line = line_with_password("anna", Rights::READ, "secret").unwrap();
    fs::write(place.path("users"), format!("{line}\n")).unwrap();
    permit(&place.path("users"), 0o600);
}

/// A file of keys with one that can verify.
fn write_keys(place: &Place) {
    let zeros = "A".repeat(43);
    let keys = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{zeros}","y":"{zeros}"}}]}}"#);
    fs::write(place.path("keys.json"), keys).unwrap();
}

const OIDC: &str = "enabled = true\noidc_issuer = \"https://login.example\"\noidc_audience = [\"dcmdex\"]\n\
                    oidc_keys = \"keys.json\"\noidc_read_roles = [\"radiologist\"]\n";

#[test]
fn the_check_says_who_may_send_requests_and_names_an_open_port() {
    let place = Place::new();
    let said = |settings: &str| check(&place, settings).expect(0).stdout;
    assert!(!said("").contains("HTTP"), "there is none");
    assert!(said("enabled = true").contains("over HTTP: anyone on this machine\n"));
    let open = said("enabled = true\nbind = \"0.0.0.0\"\naccess = \"anyone\"");
    assert!(open.contains("over HTTP: anyone who reaches 0.0.0.0:8080, to search and retrieve\n"), "{open}");
    assert!(open.contains("warning: other machines can reach 0.0.0.0:8080"), "{open}");
    write_users(&place);
    let local = said("enabled = true\nusers = \"users\"");
    assert!(local.contains("over HTTP: the users of the file (1)\n") && !local.contains("warning"), "{local}");
    permit(&place.path("users"), 0o644);
    assert!(said("enabled = true\nusers = \"users\"").contains("warning: not only its owner can read or write "));
    permit(&place.path("users"), 0o600);
    let plain = said("enabled = true\nbind = \"0.0.0.0\"\nusers = \"users\"");
    assert!(plain.contains("warning: HTTP on 0.0.0.0:8080 runs without TLS"), "{plain}");
    write_keys(&place);
    let both = said(&format!("{OIDC}users = \"users\""));
    assert!(both.contains("the users of the file (1), and those with a token of https://login.example\n"), "{both}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let place = Place::new();
    let said = |settings: &str| check(&place, settings).expect(2).stderr;
    assert!(said("enabled = true\nusers = \"nowhere\"").contains("nowhere"));
    assert!(said(OIDC).contains("cannot read the keys of the issuer"));
    fs::write(place.path("keys.json"), "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}]}").unwrap();
    assert!(said(OIDC).contains("no public key that can verify"));
    assert!(said("enabled = true\nbind = \"0.0.0.0\"").contains("nothing says who may ask over HTTP"));
    let refused = check(&place, "enabled = true\nbind = \"0.0.0.0\"").expect(2);
    assert!(!refused.stdout.contains("valid"), "{refused:?}");
}

#[test]
fn a_node_warns_of_an_open_port_and_reads_users_and_keys_again() {
    let place = Place::new();
    let open = ["--http-port", "0", "--http-bind", "0.0.0.0"];
    fs::write(place.path("dcmdex.toml"), "[http]\naccess = \"anyone\"\n").unwrap();
    let (code, log) = Node::start(&place, &open).stop(Signal::TERM);
    assert_eq!(code, Some(0));
    // The warning comes before the line that the node listens, which the start has taken.
    drop(log);
    let refused = {
        fs::write(place.path("dcmdex.toml"), "").unwrap();
        place.run(["serve", "--port", "0", "--http-port", "0", "--http-bind", "0.0.0.0"])
    };
    assert!(refused.expect(2).stderr.contains("nothing says who may ask over HTTP"));
    write_keys(&place);
    fs::write(place.path("dcmdex.toml"), format!("[http]\n{OIDC}")).unwrap();
    let mut node = Node::start(&place, &["--http-port", "0"]);
    fs::write(place.path("keys.json"), "{").unwrap();
    node.signal(Signal::HUP);
    let refused = node.wait_for("the new settings cannot be used");
    assert!(refused["error"].as_str().unwrap().contains("is not a JWK Set"), "{refused}");
    write_keys(&place);
    node.signal(Signal::HUP);
    node.wait_for("peers and certificates read again");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}
