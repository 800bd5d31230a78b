//! HTTP clients of other vendors: curl over HTTP/1.1, HTTP/2 and TLS, and dicomweb-client for
//! Python.

use std::process::Command;
use std::sync::Arc;

use dcmdex::listening::TlsSource;
use dcmdex::ul::tls::{SharedTls, Tls};

use crate::util::certificates::Authority;
use crate::util::peers;
use crate::web::{TestWeb, archive};

/// Returns curl, set to print the version and the status of each response.
fn curl() -> Option<Command> {
    let mut curl = peers::program("/usr/bin/curl")?;
    curl.args(["--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_version} %{http_code}"]);
    Some(curl)
}

#[test]
fn curl_speaks_both_versions_of_http() {
    let web = TestWeb::start();
    let url = format!("http://{}/dicom-web/studies", web.address);
    for (flag, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let Some(mut curl) = curl() else { return };
        assert_eq!(peers::run(curl.args([flag, &url])).expect_success(), format!("{version} 200"));
    }
}

#[test]
fn over_tls_http_2_is_agreed_and_no_certificate_asked_for() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let tls = SharedTls::new(Tls::load(&old.options(&old.identity("NODE"))).unwrap());
    let shared = tls.clone();
    let source: TlsSource = Arc::new(move || shared.current().http());
    let web = TestWeb::with_services(&archive(), |_| {}, None, |services| services.tls = Some(source));
    let url = format!("https://{}/healthz", web.address);
    let Some(mut curl_of_old) = curl() else { return };
    assert_eq!(peers::run(curl_of_old.arg("--cacert").arg(old.file()).arg(&url)).expect_success(), "2 200");
    // New certificates hold from the next handshake on, as they do for DIMSE.
    tls.replace(Tls::load(&new.options(&new.identity("NODE"))).unwrap());
    let Some(mut curl_of_new) = curl() else { return };
    assert_eq!(peers::run(curl_of_new.arg("--cacert").arg(new.file()).arg(&url)).expect_success(), "2 200");
    // The certificate of the node is not of the old authority any more.
    assert_eq!(peers::run(&mut curl_of_old).status.code(), Some(60));
}

#[test]
fn dicomweb_client_searches_retrieves_and_stores() {
    let web = TestWeb::storing(|_| {}, None);
    let Some(mut client) = peers::python_peer("dicomweb.py") else { return };
    let url = format!("http://{}/dicom-web", web.address);
    let said = peers::run(client.arg(url).arg(archive())).expect_success();
    let said: serde_json::Value =
        serde_json::from_str(said.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
    if said["missing"] == true {
        // An environment from before it was needed: `scripts/peers` makes it anew. Missing peers
        // are told there.
        assert!(peers::program("/dicomweb-client").is_none());
        return;
    }
    assert_eq!(said["stored"], 32, "{said}");
    assert_eq!(said["studies"], 6, "{said}");
    assert_eq!(said["pages"], 6, "{said}");
    assert_eq!(said["mueller"], 2, "{said}");
    assert_eq!(said["same"], true, "{said}");
    assert!(said["followed"].as_u64().unwrap() > 10, "{said}");
    assert_eq!(said["frames"], serde_json::json!([1, 3, 2]), "{said}");
    assert_eq!(said["refused"], 404, "{said}");
}
