//! The configuration of Orthanc: JSON with comments.

use anyhow::{Context as _, bail};
use json_comments::StripComments;
use serde_json::{Map, Value};

use super::settings::{ImportedPeer, ImportedSettings};

/// Keys that say nothing that a node of ours has to know.
const WITHOUT_MEANING: &[&str] = &["Name", "IndexDirectory", "Plugins", "HttpThreadsCount", "DicomThreadsCount"];

pub(super) fn read(text: &str) -> anyhow::Result<ImportedSettings> {
    let value: Value = serde_json::from_reader(StripComments::new(text.as_bytes())).context("it is no JSON")?;
    let Value::Object(mut given) = value else { bail!("it is no JSON object") };
    let mut settings = ImportedSettings::default();
    if text.contains("${") {
        settings.remark("Orthanc replaces ${...} by variables of the environment; such values are taken as they stand");
    }
    node(&mut given, &mut settings);
    http(&mut given, &mut settings);
    peers(&mut given, &mut settings);
    tls(&mut given, &mut settings);
    if let Some(directory) = given.remove("StorageDirectory").as_ref().and_then(Value::as_str) {
        settings.remark(format!(
            "the objects of Orthanc are in {directory}: `dcmdex scan` indexes them where they lie, unless StorageCompression \
             was on"
        ));
    }
    if given.remove("StorageCompression").is_some_and(|value| value == true) {
        settings.remark("StorageCompression was on: export the studies from Orthanc and send them to this node");
    }
    let mut others: Vec<String> =
        given.keys().filter(|key| !WITHOUT_MEANING.contains(&key.as_str())).cloned().collect();
    others.sort();
    if !others.is_empty() {
        settings.remark(format!("these settings of Orthanc are not taken over: {}", others.join(", ")));
    }
    Ok(settings)
}

fn text(given: &mut Map<String, Value>, name: &str) -> Option<String> {
    given.remove(name).as_ref().and_then(Value::as_str).map(str::to_owned)
}

fn port(given: &mut Map<String, Value>, name: &str) -> Option<u16> {
    given.remove(name).as_ref().and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok())
}

fn switch(given: &mut Map<String, Value>, name: &str) -> Option<bool> {
    given.remove(name).as_ref().and_then(Value::as_bool)
}

fn node(given: &mut Map<String, Value>, settings: &mut ImportedSettings) {
    settings.ae_title(&text(given, "DicomAet").unwrap_or_else(|| "ORTHANC".to_owned()));
    settings.value("port", port(given, "DicomPort").unwrap_or(4242));
    // Orthanc listens on every interface.
    settings.text("bind", "0.0.0.0");
    if switch(given, "DicomServerEnabled") == Some(false) {
        settings.remark("the DICOM server of Orthanc was off; that of dcmdex always listens");
    }
    if switch(given, "DicomCheckCalledAet") != Some(true) {
        settings.value("accept_any_called_ae", true);
    }
    if let Some(count) = given.remove("DicomScuTimeout").as_ref().and_then(Value::as_u64).filter(|count| *count > 0) {
        settings.value("retrieve.response_timeout_seconds", count.min(3600));
    }
}

fn tls(given: &mut Map<String, Value>, settings: &mut ImportedSettings) {
    let is_on = switch(given, "DicomTlsEnabled") == Some(true);
    let titles = settings.peers.iter().filter(|peer| peer.tls).map(|peer| peer.ae_title.clone());
    let destinations = titles.collect::<Vec<_>>().join(", ");
    for (theirs, ours) in [
        ("DicomTlsCertificate", "tls.certificate"),
        ("DicomTlsPrivateKey", "tls.key"),
        ("DicomTlsTrustedCertificates", "tls.authorities"),
    ] {
        if let Some(path) = text(given, theirs).filter(|_| is_on || !destinations.is_empty()) {
            settings.text(ours, &path);
        }
    }
    if !is_on && !destinations.is_empty() {
        settings.remark(format!(
            "Orthanc used TLS only to send to {destinations}: dcmdex listens for TLS too, on tls.port, and wants TLS of \
             these peers when they call"
        ));
    }
    if is_on {
        // Orthanc has one port, with TLS or without.
        settings.value("tls.only", true);
        if let Some((_, port)) = settings.values.iter().find(|(name, _)| *name == "port").cloned() {
            settings.value("tls.port", port);
        }
        if switch(given, "DicomTlsRemoteCertificateRequired") == Some(false) {
            settings.text("tls.client_certificates", "optional");
        }
    }
}

fn http(given: &mut Map<String, Value>, settings: &mut ImportedSettings) {
    let port = port(given, "HttpPort");
    if switch(given, "HttpServerEnabled") == Some(false) {
        return;
    }
    settings.value("http.enabled", true);
    settings.value("http.port", port.unwrap_or(8042));
    if switch(given, "RemoteAccessAllowed") == Some(true) {
        settings.remark(
            "Orthanc allowed HTTP from other machines: set http.bind, and http.users to a file that `dcmdex user` writes",
        );
    }
    if given.remove("RegisteredUsers").is_some() {
        settings.remark("users and passwords are not taken over: `dcmdex user` makes a line for each");
    }
    switch(given, "AuthenticationEnabled");
}

/// Services that an entry of `DicomModalities` may ask for, and the permissions that Orthanc wants
/// for them. All are given by default.
const PERMISSIONS: &[(&str, &[&str])] = &[
    ("echo", &["AllowEcho"]),
    ("store", &["AllowStore"]),
    ("find", &["AllowFind"]),
    ("get", &["AllowGet"]),
    ("move", &["AllowMove"]),
    ("commit", &["AllowStorageCommitment", "AllowNAction"]),
    ("worklist", &["AllowFindWorklist"]),
];

/// Other fields of an entry. This node sends no N-ACTION-RQ, so no peer has an event to report.
const OTHER_FIELDS: &[&str] = &["AET", "Host", "Port", "Manufacturer", "UseDicomTls", "AllowEventReport"];

fn peers(given: &mut Map<String, Value>, settings: &mut ImportedSettings) {
    // Orthanc answers C-ECHO and C-STORE of anyone, unless it is told otherwise.
    for (name, is_default, what) in [
        ("DicomAlwaysAllowEcho", true, "C-ECHO"),
        ("DicomAlwaysAllowStore", true, "C-STORE"),
        ("DicomAlwaysAllowFind", false, "C-FIND"),
        ("DicomAlwaysAllowFindWorklist", false, "worklist queries"),
        ("DicomAlwaysAllowGet", false, "C-GET"),
        ("DicomAlwaysAllowMove", false, "C-MOVE"),
    ] {
        if switch(given, name).unwrap_or(is_default) {
            settings.remark(format!(
                "Orthanc took {what} from anyone; with a table of peers dcmdex takes it from those in the table only"
            ));
        }
    }
    let checks_host = switch(given, "DicomCheckModalityHost") == Some(true);
    let modalities = given.remove("DicomModalities");
    switch(given, "DicomModalitiesInDatabase");
    let Some(modalities) = modalities else { return };
    let entries: Vec<(String, Value)> = match modalities {
        Value::Object(entries) => entries.into_iter().collect(),
        _ => {
            settings.remark("DicomModalities is not written as Orthanc expects it, and is not taken over");
            return;
        }
    };
    for (name, entry) in entries {
        let others = other_fields(&entry);
        if !others.is_empty() {
            settings
                .remark(format!("these settings of the modality {name:?} are not taken over: {}", others.join(", ")));
        }
        match peer(&entry) {
            Some(peer) => settings.peer(ImportedPeer { only_from_host: checks_host, ..peer }),
            None => settings.remark(format!("the modality {name:?} is not written as Orthanc expects it")),
        }
    }
}

/// Reads `["AET", "host", port, ...]` or `{"AET": ..., "Host": ..., "Port": ...}`.
fn peer(entry: &Value) -> Option<ImportedPeer> {
    let port = |value: &Value| {
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
        u16::try_from(number).ok().filter(|port| *port > 0)
    };
    match entry {
        Value::Array(parts) => Some(ImportedPeer {
            ae_title: parts.first()?.as_str()?.to_owned(),
            host: Some(parts.get(1)?.as_str()?.to_owned()),
            port: Some(port(parts.get(2)?)?),
            ..ImportedPeer::default()
        }),
        Value::Object(fields) => {
            let is_false = |name: &&str| fields.get(*name).is_some_and(|value| value == false);
            let allowed = PERMISSIONS.iter().filter(|(_, names)| !names.iter().any(is_false));
            let allowed: Vec<_> = allowed.map(|(service, _)| *service).collect();
            Some(ImportedPeer {
                ae_title: fields.get("AET")?.as_str()?.to_owned(),
                host: Some(fields.get("Host")?.as_str()?.to_owned()),
                port: Some(port(fields.get("Port")?)?),
                only_from_host: false,
                services: (allowed.len() < PERMISSIONS.len()).then_some(allowed),
                tls: fields.get("UseDicomTls").is_some_and(|value| value == true),
            })
        }
        _ => None,
    }
}

/// Fields of an entry that this node has nothing for.
fn other_fields(entry: &Value) -> Vec<&str> {
    let fields = entry.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let is_known =
        |name: &&str| OTHER_FIELDS.contains(name) || PERMISSIONS.iter().any(|(_, names)| names.contains(name));
    fields.filter(|name| !is_known(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modalities_are_read_in_both_forms() {
        let text = r#"{
            /* A configuration. */
            "DicomAet" : "MAIN", // ours
            "DicomPort" : 104, "DicomCheckCalledAet" : true, "DicomCheckModalityHost" : true,
            "DicomModalities" : {
                "ct" : [ "CT1", "10.1.2.3", 104 ],
                "viewer" : { "AET" : "VIEWER", "Host" : "viewer.example.org", "Port" : 11112, "AllowStore" : false },
                "odd" : 7
            },
            "OverwriteInstances" : true
        }"#;
        let settings = read(text).unwrap();
        assert!(settings.values.contains(&("ae_title", "\"MAIN\"".to_owned())));
        assert!(settings.values.contains(&("port", "104".to_owned())));
        assert_eq!(settings.peers.len(), 2);
        assert_eq!(settings.peers[0].host.as_deref(), Some("10.1.2.3"));
        assert_eq!(
            settings.peers[1].services.as_deref().unwrap(),
            ["echo", "find", "get", "move", "commit", "worklist"]
        );
        let told = settings.remarks.join("\n");
        assert!(told.contains("OverwriteInstances") && told.contains("\"odd\""), "{told}");
    }
}
