//! Peers are added to the settings file, listed, and asked whether they answer. Settings of other
//! nodes become ours.

use std::fs;

use rustix::process::Signal;

use super::serve::Node;
use super::*;

const SETTINGS: &str = "# Ours.\nae_title = \"MAIN\" # the name\nrequire_end = true\n\n[[peer]]\nae_title = \"CT1\"\n\
    # Only this one.\naddresses = [\"10.1.2.3\"]\nservices = [\"echo\", \"store\"]\n\n# end\n";

#[test]
fn a_peer_is_added_and_comments_stay() {
    let place = Place::new();
    fs::write(place.path("dcmdex.toml"), SETTINGS).unwrap();
    let add = [
        "peer",
        "add",
        "WS1",
        "--host",
        "127.0.0.1",
        "--port",
        "104",
        "--from",
        "10.2.0.0/16",
        "--services",
        "find,move",
    ];
    place.run(add).expect(0);
    let text = fs::read_to_string(place.path("dcmdex.toml")).unwrap();
    for kept in ["# Ours.", "# the name", "# Only this one.", "services = [\"find\", \"move\"]"] {
        assert!(text.contains(kept), "{text}");
    }
    assert!(text.ends_with("\n# end\n") && text.matches("# end").count() == 1, "{text}");
    let listed = place.run(["peer", "list"]).expect(0).stdout;
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("C-MOVE sends to \"127.0.0.1\" port 104"), "{listed}");
    assert!(place.run(add).expect(2).stderr.contains("has a peer WS1"));
    let refused = place.run(["peer", "add", "WS2", "--from", "no-address"]).expect(2);
    assert!(refused.stderr.contains("nothing was changed"), "{refused:?}");
    assert_eq!(fs::read_to_string(place.path("dcmdex.toml")).unwrap(), text);
    // Nor is a table of peers added where anyone may associate.
    let open = Place::new();
    fs::write(open.path("dcmdex.toml"), "access = \"anyone\"\n").unwrap();
    let refused = open.run(["peer", "add", "WS1"]).expect(2);
    assert!(refused.stderr.contains("nothing was changed") && refused.stderr.contains("`access`"), "{refused:?}");
    assert_eq!(fs::read_to_string(open.path("dcmdex.toml")).unwrap(), "access = \"anyone\"\n");
    let missing = Place::new();
    assert!(missing.run(["peer", "add", "WS1"]).expect(2).stderr.contains("config init"));
}

#[test]
fn peers_are_asked_whether_they_answer() {
    let place = Place::new();
    let node = Node::start(&place, &[]);
    let asking = Place::new();
    let settings = format!(
        "[[peer]]\nae_title = \"DCMDEX\"\nhost = \"127.0.0.1\"\nport = {}\n\n[[peer]]\nae_title = \"GONE\"\nhost = \"127.0.0.1\"\nport = 1\n",
        node.port
    );
    fs::write(asking.path("dcmdex.toml"), settings).unwrap();
    let checked = asking.run(["peer", "check"]).expect(1).stdout;
    assert!(checked.contains("DCMDEX: answers at 127.0.0.1:"), "{checked}");
    assert!(checked.contains("GONE: DOES NOT ANSWER"), "{checked}");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn settings_of_other_nodes_become_ours() {
    let place = Place::new();
    let orthanc = "// Orthanc\n{ \"DicomAet\" : \"MAIN\", \"DicomPort\" : 104, \"StorageDirectory\" : \"/data/o\",\n\
        \"DicomModalities\" : { \"ct\" : [ \"CT1\", \"10.1.2.3\", 104 ] /* one */ } }\n";
    let dcmtk = "NetworkTCPPort = 104\nHostTable BEGIN\nct = (CT1, 10.1.2.3, 104)\nHostTable END\n\
        AETable BEGIN\nMAIN /data/q RW (9, 1gb) ct\nAETable END\n";
    for (name, text) in [("orthanc.json", orthanc), ("dcmqrscp.cfg", dcmtk)] {
        fs::write(place.path(name), text).unwrap();
        let to = format!("{name}.toml");
        let told = place.run(["config", "import", name, &to]).expect(1).stdout;
        assert!(told.contains("`dcmdex scan` indexes them where they lie"), "{told}");
        let shown = place.run(["--config", &to, "config", "show"]).expect(0).stdout;
        assert!(shown.contains("ae_title = \"MAIN\"") && shown.contains("port = 104"), "{shown}");
        assert!(place.run(["--config", &to, "peer", "list"]).expect(0).stdout.contains("\"CT1\": all services"));
        place.run(["--config", &to, "config", "check"]).expect(0);
        assert!(place.run(["config", "import", name, &to]).expect(2).stderr.contains("is not overwritten"));
        assert_eq!(place.run(["config", "import", name]).code, 1);
    }
    fs::write(place.path("broken.json"), "{ \"DicomAet\" : ").unwrap();
    assert!(place.run(["config", "import", "broken.json"]).expect(2).stderr.contains("is no JSON"));
    fs::write(place.path("odd.cfg"), "something\n").unwrap();
    assert!(place.run(["config", "import", "odd.cfg"]).expect(2).stderr.contains("is no dcmqrscp.cfg"));
}

#[test]
fn permissions_and_encryption_of_orthanc_become_ours() {
    let place = Place::new();
    let orthanc = r#"{ "DicomAet" : "MAIN", "DicomPort" : 104, "DicomTlsEnabled" : false,
        "DicomTlsCertificate" : "node.crt", "DicomTlsPrivateKey" : "node.key", "DicomTlsTrustedCertificates" : "ca.crt",
        "DicomModalities" : {
            "a" : { "AET" : "PACS", "Host" : "10.0.0.5", "Port" : 2762, "UseDicomTls" : true, "LocalAet" : "OTHER" },
            "b" : [ "CT1 ", "10.0.0.6", 104 ],
            "c" : [ "CT1", "10.0.0.7", 104, "GE" ],
            "d" : { "AET" : "V", "Host" : "10.0.0.9", "Port" : 11, "AllowStore" : false },
            "e" : { "AET" : "W", "Host" : "10.0.0.9", "Port" : 11, "AllowFindWorklist" : false, "AllowNAction" : false }
        } }"#;
    fs::write(place.path("orthanc.json"), orthanc).unwrap();
    let told = place.run(["config", "import", "orthanc.json", "ours.toml"]).expect(1).stdout;
    for note in
        ["CT1 has more than one address", "TLS only to send to PACS", "modality \"a\" are not taken over: LocalAet"]
    {
        assert!(told.contains(note), "{told}");
    }
    let text = fs::read_to_string(place.path("ours.toml")).unwrap();
    for line in ["certificate = \"node.crt\"", "key = \"node.key\"", "authorities = \"ca.crt\"", "tls = true"] {
        assert!(text.contains(line), "{text}");
    }
    let listed = place.run(["--config", "ours.toml", "peer", "list"]).expect(0).stdout;
    let of = |title: &str| listed.lines().filter(|line| line.contains(&format!("{title:?}"))).collect::<Vec<_>>();
    assert_eq!(of("CT1").len(), 1, "{listed}");
    assert!(of("V")[0].contains("worklist") && !of("V")[0].contains("store"), "{listed}");
    assert!(
        of("W")[0].contains("find") && !of("W")[0].contains("worklist") && !of("W")[0].contains("commit"),
        "{listed}"
    );
}
