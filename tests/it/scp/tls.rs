//! DICOM over TLS (PS3.15 B.12).

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dcmdex::scp::peers::{Destination, Grant, Security, ServiceSet};
use dcmdex::scp::tls::{ClientCertificates, Options};
use dcmdex::scp::{Peers, SharedTls, Tls};
use dicom_ul::pdu::write_pdu;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};

use crate::util::certificates::{Authority, Identity};
use crate::util::node::TestNode;
use crate::util::peers;
use crate::util::scripted::{IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, VERIFICATION, request};

const ECHO: &[(&str, &[&str])] = &[(VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN])];

/// A node that has its certificate, and wants those of its peers, from this authority.
fn node_of(authority: &Authority, peers: Peers) -> TestNode {
    node_with(authority.options(&authority.identity("NODE")), peers)
}

fn node_with(options: Options, peers: Peers) -> TestNode {
    TestNode::with(|settings| {
        settings.tls = Some(SharedTls::new(Tls::load(&options).unwrap()));
        settings.peers = peers;
    })
}

/// A table in which this title is bound to one of these certificates.
fn bound(title: &str, certificates: &[&str]) -> Peers {
    let security = Security::Certificates(certificates.iter().map(|text| text.parse().unwrap()).collect());
    let grant = Grant { addresses: Vec::new(), services: ServiceSet::ALL, max_associations: None, security };
    Peers { table: Some([(title.parse().unwrap(), grant)].into()), ..Peers::default() }
}

/// The first byte that the node sends after the handshake, to a request for an association: the type of its PDU. `None` when there is
/// no association because of TLS.
fn first_answer(node: &TestNode, authority: &Authority, identity: Option<&Identity>) -> Option<u8> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        Some(Identity { certificate, key }) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let socket = TcpStream::connect(node.tls_address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket);
    let mut bytes = Vec::new();
    write_pdu(&mut bytes, &request(ECHO).into()).unwrap();
    let mut first = [0];
    // In TLS 1.3 the client learns that its certificate was refused when it reads.
    stream.write_all(&bytes).and_then(|()| stream.read_exact(&mut first)).ok().map(|()| first[0])
}

const ACCEPTED: Option<u8> = Some(2);
const REJECTED: Option<u8> = Some(3);

#[test]
fn only_a_certificate_of_the_authority_that_is_good_now_is_let_in() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let node = node_of(&ours, Peers::default());
    assert_eq!(first_answer(&node, &ours, Some(&ours.identity("CT1"))), ACCEPTED);
    assert_eq!(first_answer(&node, &ours, None), None, "no certificate");
    assert_eq!(first_answer(&node, &ours, Some(&other.identity("CT1"))), None, "another authority");
    assert_eq!(first_answer(&node, &ours, Some(&ours.expired("CT1"))), None, "expired");
    assert_eq!(first_answer(&node, &ours, Some(&ours.identity("CT1"))), ACCEPTED);
}

#[test]
fn where_certificates_are_optional_only_bound_titles_need_one() {
    let ours = Authority::new("ours");
    let options = ours.options(&ours.identity("NODE"));
    let options = Options { client_certificates: ClientCertificates::Optional, ..options };
    assert_eq!(first_answer(&node_with(options.clone(), Peers::default()), &ours, None), ACCEPTED);
    let node = node_with(options, bound("SCRIPT", &["cn:SCRIPT"]));
    assert_eq!(first_answer(&node, &ours, None), REJECTED);
    assert_eq!(first_answer(&node, &ours, Some(&ours.identity("SCRIPT"))), ACCEPTED);
}

#[test]
fn a_title_that_is_bound_to_a_certificate_needs_it() {
    let ours = Authority::new("ours");
    let (right, wrong) = (ours.identity("CT1"), ours.identity("CT2"));
    for known in ["cn:CT1", "dns:ct1.example"] {
        let node = node_of(&ours, bound("SCRIPT", &["cn:SOMEBODY", known]));
        assert_eq!(first_answer(&node, &ours, Some(&right)), ACCEPTED, "{known}");
        assert_eq!(first_answer(&node, &ours, Some(&wrong)), REJECTED, "{known}");
        // Without TLS there is none to show.
        let mut plain = ScriptedPeer::connect(node.address());
        plain.send_pdu(&request(ECHO).into());
        assert_eq!(plain.receive_bytes().unwrap()[0], 3, "{known}");
    }
}

#[test]
fn new_certificates_hold_from_the_next_handshake_on() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let tls = SharedTls::new(Tls::load(&old.options(&old.identity("NODE"))).unwrap());
    let node = TestNode::with(|settings| settings.tls = Some(tls.clone()));
    assert_eq!(first_answer(&node, &old, Some(&old.identity("CT1"))), ACCEPTED);
    tls.replace(Tls::load(&new.options(&new.identity("NODE"))).unwrap());
    assert_eq!(first_answer(&node, &new, Some(&old.identity("CT1"))), None);
    assert_eq!(first_answer(&node, &new, Some(&new.identity("CT1"))), ACCEPTED);
}

#[test]
fn what_is_no_certificate_or_does_not_fit_is_refused() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let good = ours.options(&ours.identity("NODE"));
    let why = |options: &Options| Tls::load(options).unwrap_err().to_string();
    assert!(
        why(&Options { certificate: good.key.clone(), ..good.clone() })
            .ends_with("has no certificate that can be read")
    );
    assert!(
        why(&Options { key: good.certificate.clone(), ..good.clone() })
            .ends_with("has no private key that can be read")
    );
    assert!(
        why(&Options { authorities: "/nowhere".into(), ..good.clone() }).starts_with("/nowhere has no certificate")
    );
    let mixed = Options { key: other.identity("NODE").key, ..good };
    assert_eq!(why(&mixed), "certificate and key cannot be used");
}

#[test]
fn who_does_not_speak_tls_is_closed_and_the_next_peer_served() {
    let ours = Authority::new("ours");
    let tls = SharedTls::new(Tls::load(&ours.options(&ours.identity("NODE"))).unwrap());
    let node = TestNode::with(|settings| {
        settings.tls = Some(tls);
        settings.options.artim_timeout = Duration::from_millis(200);
    });
    let closed = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(node.tls_address()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.write_all(bytes).unwrap();
        // To its end; an alert may come before. A reset is an end as well: the node did not read all that came.
        match socket.read_to_end(&mut Vec::new()) {
            Ok(count) => assert!(count < 100),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    };
    let mut associate = Vec::new();
    write_pdu(&mut associate, &request(ECHO).into()).unwrap();
    closed(&associate);
    closed(b"GET / HTTP/1.1\r\n\r\n");
    closed(b""); // silent
    closed(&[0x16, 3, 1, 2, 0, 1]); // a hello that does not go on
    // Many of them keep nobody out.
    let silent: Vec<_> = (0..300).map(|_| TcpStream::connect(node.tls_address()).unwrap()).collect();
    assert_eq!(first_answer(&node, &ours, Some(&ours.identity("CT1"))), ACCEPTED);
    drop(silent);
}

#[test]
fn versions_before_1_2_are_refused() {
    let ours = Authority::new("ours");
    let (node, identity) = (node_of(&ours, Peers::default()), ours.identity("CT1"));
    let connect = |mut openssl: Command, version: &str| {
        let at = node.tls_address().to_string();
        openssl.args(["s_client", "-connect", &at, version, "-cipher", "ALL:@SECLEVEL=0", "-CAfile"]).arg(ours.file());
        openssl.arg("-cert").arg(&identity.certificate).arg("-key").arg(&identity.key);
        peers::run(&mut openssl)
    };
    let openssl = || peers::program("/usr/bin/openssl");
    for version in ["-tls1", "-tls1_1"] {
        let Some(openssl) = openssl() else { return };
        let refused = connect(openssl, version);
        assert!(!refused.status.success(), "{version}: {refused:?}");
    }
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let accepted = connect(openssl().unwrap(), version).expect_success();
        assert!(accepted.contains(name), "{version}: {accepted}");
    }
}

#[test]
fn a_destination_has_to_show_the_certificate_of_its_host_or_its_title() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let node = node_of(&ours, Peers::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connect = |of: &Authority, host: &str, certificates: &[&str]| {
        let tls = Tls::load(&of.options(&of.identity("MOVER"))).unwrap();
        let address = format!("{host}:{}", node.tls_address().port()).parse().unwrap();
        let certificates = certificates.iter().map(|text| text.parse().unwrap()).collect();
        let destination = Destination { address, tls: true, certificates };
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(node.tls_address()).await.unwrap();
            tls.connect(&destination, stream).await.map(drop).map_err(|error| error.to_string())
        })
    };
    assert_eq!(connect(&ours, "127.0.0.1", &[]), Ok(()));
    assert_eq!(connect(&ours, "elsewhere", &["cn:NODE"]), Ok(()));
    assert!(connect(&ours, "elsewhere", &[]).is_err());
    assert!(connect(&ours, "127.0.0.1", &["cn:OTHER"]).is_err());
    assert!(connect(&other, "127.0.0.1", &[]).is_err());
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
