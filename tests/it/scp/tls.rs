//! DICOM over TLS (PS3.15 B.12).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dcmdex::access::peers::Peers;
use dcmdex::access::peers::{Grant, Security, ServiceSet};
use dcmdex::ul::certificates::CertificateId;
use dcmdex::ul::destination::Destination;
use dcmdex::ul::tls::{ClientCertificates, Options};
use dcmdex::ul::tls::{SharedTls, Tls};
use dcmdex::ul::tls_check::{self, Severity};
use dicom_ul::pdu::write_pdu;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};

use crate::util::certificates::{Authority, Identity, SelfSigned};
use crate::util::node::TestNode;
use crate::util::peers;
use crate::util::scripted::{IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, VERIFICATION, connected, request};

const ECHO: &[(&str, &[&str])] = &[(VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN])];

/// Starts a node whose certificate is from this authority. It requires certificates of the same
/// authority from its peers.
pub(crate) fn node_of(authority: &Authority, peers: Peers) -> TestNode {
    node_with(authority.options(&authority.identity("NODE")), peers)
}

fn node_with(options: Options, peers: Peers) -> TestNode {
    TestNode::with(|settings| {
        settings.tls = Some(SharedTls::new(Tls::load(&options).unwrap()));
        settings.peers = peers;
    })
}

/// Builds a table that binds this title to one of these certificates.
pub(crate) fn bound(title: &str, certificates: &[&str]) -> Peers {
    let security = Security::Certificates(certificates.iter().map(|text| text.parse().unwrap()).collect());
    let grant = Grant {
        addresses: Vec::new(),
        services: ServiceSet::ALL,
        max_associations: None,
        security,
        worklist: Default::default(),
    };
    Peers { table: Some([(title.parse().unwrap(), grant)].into()), ..Peers::default() }
}

/// Returns the first byte that the node sends after the handshake: the PDU type of its response to
/// an association request. `None` if TLS prevents the association.
fn first_answer(node: &TestNode, authority: &Authority, identity: Option<&Identity>) -> Option<u8> {
    let mut stream = tls_stream(node.tls_address(), authority, identity);
    let mut bytes = Vec::new();
    write_pdu(&mut bytes, &request(ECHO).into()).unwrap();
    let mut first = [0];
    // In TLS 1.3 the client learns that its certificate was refused when it reads.
    stream.write_all(&bytes).and_then(|()| stream.read_exact(&mut first)).ok().map(|()| first[0])
}

/// Connects to a port that trusts this authority, with an identity of its own or without. The
/// handshake comes with the first bytes.
pub(crate) fn tls_stream(
    address: SocketAddr,
    authority: &Authority,
    identity: Option<&Identity>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        Some(Identity { certificate, key }) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            let key = crypto::ring::default_provider().key_provider.load_private_key(key).unwrap();
            // Whether the key is that of the certificate is for the node to find out.
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))))
        }
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let socket = connected(address);
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
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
    assert!(why(&Options { certificate: good.key.clone(), ..good.clone() }).ends_with("has no readable certificate"));
    assert!(why(&Options { key: good.certificate.clone(), ..good.clone() }).ends_with("has no readable private key"));
    assert!(
        why(&Options { authorities: "/nowhere".into(), ..good.clone() })
            .starts_with("/nowhere has no readable certificate")
    );
    let mixed = Options { key: other.identity("NODE").key, ..good };
    assert!(why(&mixed).contains("is not that of the first certificate in"), "{}", why(&mixed));
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
        let mut socket = connected(node.tls_address());
        socket.write_all(bytes).unwrap();
        // To its end; an alert may come before. A reset is an end as well: the node did not read
        // all that came.
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
    let silent: Vec<_> = (0..300).map(|_| connected(node.tls_address())).collect();
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

/// Builds the options of a node whose file of authorities has these certificates.
fn listing(ours: &Authority, listed: &[&Identity]) -> Options {
    let options = ours.options(&ours.identity("NODE"));
    let list = options.certificate.with_extension("list");
    let texts: Vec<_> = listed.iter().map(|identity| std::fs::read(&identity.certificate).unwrap()).collect();
    std::fs::write(&list, texts.concat()).unwrap();
    Options { authorities: list, ..options }
}

#[test]
fn a_self_signed_certificate_is_taken_when_it_is_itself_in_the_list() {
    let ours = Authority::new("ours");
    let (listed, other) = (SelfSigned::as_openssl("CT1"), SelfSigned::as_openssl("CT1"));
    let plain = SelfSigned::made("CT2", |_| {});
    let expired = SelfSigned::made("CT3", |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let options = listing(&ours, &[&listed.identity, &plain.identity, &expired.identity]);
    let node = node_with(options, bound("SCRIPT", &["cn:CT1", "cn:CT2", "cn:CT3"]));
    assert_eq!(first_answer(&node, &ours, Some(&listed.identity)), ACCEPTED);
    assert_eq!(first_answer(&node, &ours, Some(&plain.identity)), ACCEPTED);
    assert_eq!(first_answer(&node, &ours, Some(&other.identity)), None, "the same name, and other bytes");
    assert_eq!(first_answer(&node, &ours, Some(&expired.identity)), None, "expired");
    assert_eq!(first_answer(&node, &ours, Some(&plain.signs("CT1"))), None, "signed by one that is no authority");
    // The certificate, and not the key to it.
    let stolen = Identity { certificate: listed.identity.certificate.clone(), key: other.identity.key.clone() };
    assert_eq!(first_answer(&node, &ours, Some(&stolen)), None, "the key has to be proven");
}

#[test]
fn a_pinned_certificate_needs_no_authority_and_is_good_for_its_title_only() {
    let ours = Authority::new("ours");
    let (pinned, other) = (SelfSigned::as_openssl("ANY NAME"), SelfSigned::as_openssl("ANY NAME"));
    let digest: String = ring::digest::digest(&ring::digest::SHA256, &pinned.der)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let pin = format!("sha256:{digest}");
    let options = |peers: &Peers| Options { pinned: peers.pinned(), ..ours.options(&ours.identity("NODE")) };
    let peers = bound("SCRIPT", &[&pin]);
    let node = node_with(options(&peers), peers);
    assert_eq!(first_answer(&node, &ours, Some(&pinned.identity)), ACCEPTED);
    assert_eq!(first_answer(&node, &ours, Some(&other.identity)), None, "another one of that name");
    // The title that is called by here is bound to a name, and another one to the certificate.
    let mut peers = bound("SCRIPT", &["cn:ANY NAME"]);
    peers.table.as_mut().unwrap().extend(bound("OTHER", &[&pin]).table.unwrap());
    let node = node_with(options(&peers), peers);
    assert_eq!(first_answer(&node, &ours, Some(&pinned.identity)), REJECTED);
    assert_eq!(first_answer(&node, &ours, Some(&ours.identity("ANY NAME"))), ACCEPTED);
}

#[test]
fn a_destination_may_show_a_self_signed_certificate_that_is_trusted_itself() {
    let ours = Authority::new("ours");
    let own = SelfSigned::as_openssl("DEST");
    let expired = SelfSigned::made("DEST", |params| params.not_after = rcgen::date_time_ymd(2002, 1, 1));
    let connect = |shown: &SelfSigned, listed: &[&Identity], host: &str, pins: &[&SelfSigned]| {
        // The destination takes who calls.
        let node = node_with(
            Options {
                certificate: shown.identity.certificate.clone(),
                key: shown.identity.key.clone(),
                ..ours.options(&ours.identity("NODE"))
            },
            Peers::default(),
        );
        let listed = listed.to_vec();
        let options = match listed[..] {
            [] => ours.options(&ours.identity("MOVER")),
            _ => listing(&ours, &listed),
        };
        let tls = Tls::load(&options).unwrap();
        let address = format!("{host}:{}", node.tls_address().port()).parse().unwrap();
        let certificates = pins
            .iter()
            .map(|pin| {
                let digest = ring::digest::digest(&ring::digest::SHA256, &pin.der);
                CertificateId::Sha256(digest.as_ref().try_into().unwrap())
            })
            .collect();
        let destination = Destination { address, tls: true, certificates };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(node.tls_address()).await.unwrap();
            tls.connect(&destination, stream).await.map(drop).map_err(|error| error.to_string())
        })
    };
    assert_eq!(connect(&own, &[&own.identity], "127.0.0.1", &[]), Ok(()));
    assert_eq!(connect(&own, &[], "elsewhere", &[&own]), Ok(()), "pinned");
    assert!(connect(&own, &[&own.identity], "elsewhere", &[]).is_err(), "another host");
    assert!(connect(&own, &[], "127.0.0.1", &[]).is_err(), "not trusted");
    assert!(connect(&own, &[], "127.0.0.1", &[&expired]).is_err(), "another one is pinned");
    assert!(connect(&expired, &[], "127.0.0.1", &[&expired]).is_err(), "expired");
}

#[test]
fn what_will_not_work_is_found_before_a_peer_finds_it() {
    let ours = Authority::new("ours");
    let now_ms = 1_767_225_600_000; // 2026
    let told = |options: &Options| -> Vec<_> {
        let problems = tls_check::problems(options, now_ms).unwrap();
        problems.into_iter().map(|problem| (problem.severity, problem.to_string())).collect()
    };
    let good = ours.options(&ours.identity("NODE"));
    assert_eq!(told(&good), []);
    let own = SelfSigned::as_openssl("NODE");
    let with = |identity: &Identity| Options {
        certificate: identity.certificate.clone(),
        key: identity.key.clone(),
        ..good.clone()
    };
    let of_authority = told(&with(&own.identity));
    assert!(matches!(&of_authority[..], [(Severity::Doubtful, text)] if text.contains("CA:TRUE")), "{of_authority:?}");
    let expired = told(&with(&ours.expired("NODE")));
    assert!(matches!(&expired[..], [(Severity::Broken, text)] if text.contains("it has expired")), "{expired:?}");
    let nameless = SelfSigned::made("NODE", |params| params.subject_alt_names.clear());
    let nameless = told(&with(&nameless.identity));
    assert!(matches!(&nameless[..], [(Severity::Doubtful, text)] if text.contains("names no host")), "{nameless:?}");
    for (arguments, expected) in
        [(["-newkey", "rsa:2048", "-sha1"], "SHA-1"), (["-newkey", "rsa:1024", "-sha256"], "less than 2048 bits")]
    {
        let Some(mut openssl) = peers::program("/usr/bin/openssl") else { return };
        let place = good.certificate.parent().unwrap();
        let identity = Identity { certificate: place.join("weak.crt"), key: place.join("weak.key") };
        openssl.args(["req", "-x509", "-nodes", "-subj", "/CN=NODE", "-days", "3650"]).args(arguments);
        openssl.arg("-out").arg(&identity.certificate).arg("-keyout").arg(&identity.key);
        peers::run(&mut openssl).expect_success();
        match tls_check::problems(&with(&identity), now_ms) {
            Ok(problems) => {
                let broken = problems.iter().find(|problem| problem.severity == Severity::Broken).unwrap();
                assert!(broken.to_string().contains(expected) && broken.to_string().contains("hint: "), "{broken}");
            }
            // A key that cannot even be loaded.
            Err(error) => assert_eq!(expected, "less than 2048 bits", "{error}"),
        }
    }
}

#[test]
fn files_that_tls_cannot_use_are_told_with_the_way_out() {
    let ours = Authority::new("ours");
    let good = ours.options(&ours.identity("NODE"));
    let place = good.certificate.parent().unwrap().to_owned();
    let made = |arguments: &[&str], input: &Path, output: &str| -> Option<PathBuf> {
        let mut openssl = peers::program("/usr/bin/openssl")?;
        let output = place.join(output);
        openssl.args(arguments).arg("-in").arg(input).arg("-out").arg(&output);
        peers::run(&mut openssl).expect_success();
        Some(output)
    };
    let said = |certificate: &Path, key: &Path| {
        let options = Options { certificate: certificate.to_owned(), key: key.to_owned(), ..good.clone() };
        Tls::load(&options).unwrap_err().to_string()
    };
    let Some(encrypted) = made(&["pkey", "-aes128", "-passout", "pass:x"], &good.key, "encrypted.key") else { return };
    let encrypted = said(&good.certificate, &encrypted);
    assert!(
        encrypted.contains("encrypted.key has no readable private key") && encrypted.contains("openssl pkey"),
        "{encrypted}"
    );
    let der = made(&["x509", "-outform", "der"], &good.certificate, "node.der").unwrap();
    let der = said(&der, &good.key);
    assert!(der.contains("node.der has no readable certificate") && der.contains("it is DER"), "{der}");
    // PEM, but another thing.
    let swapped = said(&good.key, &good.key);
    assert!(swapped.ends_with("has no readable certificate"), "{swapped}");
    let request = place.join("node.csr");
    let mut openssl = peers::program("/usr/bin/openssl").unwrap();
    openssl.args(["req", "-new", "-subj", "/CN=NODE", "-key"]).arg(&good.key).arg("-out").arg(&request);
    peers::run(&mut openssl).expect_success();
    let key = good.key.to_str().unwrap();
    let first = made(&["x509", "-req", "-days", "9", "-signkey", key], &request, "first.crt").unwrap();
    let first = said(&first, &good.key);
    assert!(first.contains("first.crt is of X.509 version 1") && first.contains("-extfile"), "{first}");
}
