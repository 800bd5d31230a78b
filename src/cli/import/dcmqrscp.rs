//! A dcmqrscp.cfg of DCMTK: lines of settings, a table of hosts, and a table of AE titles.

use std::collections::BTreeMap;

use anyhow::bail;

use super::settings::{ImportedPeer, ImportedSettings};

/// Settings of DCMTK that a node of ours does not need.
const WITHOUT_MEANING: &[&str] = &["MaxPDUSize", "UserName", "GroupName", "NetworkType", "Display"];

/// A host of the host table.
#[derive(Clone, Debug)]
struct Host {
    ae_title: String,
    host: String,
    port: Option<u16>,
}

pub(super) fn read(text: &str) -> anyhow::Result<ImportedSettings> {
    let mut settings = ImportedSettings::default();
    let mut hosts: BTreeMap<String, Vec<Host>> = BTreeMap::new();
    let mut table = None;
    let mut titles = 0;
    let mut known = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match (table, words.as_slice()) {
            (None, [name, "BEGIN"]) => {
                table = Some(*name);
                known = true;
            }
            (Some(open), [name, "END"]) if open == *name => table = None,
            (Some("HostTable"), _) => match host_entry(line, &hosts) {
                Some((name, entry)) => drop(hosts.insert(name, entry)),
                None => settings.remark(format!("line {} of the host table is not understood", number + 1)),
            },
            (Some("AETable"), _) => {
                titles += 1;
                title_entry(line, titles, &hosts, &mut settings);
            }
            // Vendors name hosts for menus.
            (Some(_), _) => {}
            (None, _) => known |= setting(line, &mut settings),
        }
    }
    if !known {
        bail!("it has no line that is known");
    }
    if let Some(open) = table {
        bail!("{open} has no end");
    }
    if titles == 0 {
        settings.remark("it has no AE title with peers: write a [[peer]] for each system that may call");
    } else {
        settings.text("bind", "0.0.0.0");
    }
    if titles > 1 {
        settings.remark("it has several AE titles; dcmdex has one, and the first one is taken over");
    }
    Ok(settings)
}

/// Reads a line such as `NetworkTCPPort = 104`. Returns whether it is one.
fn setting(line: &str, settings: &mut ImportedSettings) -> bool {
    let Some((name, value)) = line.split_once('=') else { return false };
    let (name, value) = (name.trim(), value.trim());
    let number = value.parse::<u64>().ok();
    match (name, number) {
        ("NetworkTCPPort", Some(port)) if (1..=65_535).contains(&port) => settings.value("port", port),
        ("MaxAssociations", Some(count)) if (1..=100_000).contains(&count) => {
            settings.value("network.max_associations", count);
        }
        (name, _) if WITHOUT_MEANING.contains(&name) => {}
        (name, _) => settings.remark(format!("{name} is not taken over")),
    }
    true
}

/// Reads `name = (AET, host, port)`, or a group: `name = other, another`.
fn host_entry(line: &str, known: &BTreeMap<String, Vec<Host>>) -> Option<(String, Vec<Host>)> {
    let (name, value) = line.split_once('=')?;
    let hosts = host_list(value, known)?;
    Some((name.trim().to_owned(), hosts))
}

/// Reads hosts with a comma between: `(AET, host, port)`, or names of hosts and groups.
fn host_list(text: &str, known: &BTreeMap<String, Vec<Host>>) -> Option<Vec<Host>> {
    let mut rest = text.trim();
    let mut found = Vec::new();
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('(') {
            let (triple, after) = inside.split_once(')')?;
            let parts: Vec<&str> = triple.split(',').map(str::trim).collect();
            let [ae_title, host, port] = parts.as_slice() else { return None };
            // Some write * or 0 where the node never calls back.
            let port = port.parse::<u16>().ok().filter(|port| *port > 0);
            found.push(Host { ae_title: (*ae_title).to_owned(), host: (*host).to_owned(), port });
            rest = after.trim().trim_start_matches(',').trim();
        } else {
            let (name, after) = rest.split_once(',').unwrap_or((rest, ""));
            found.extend(known.get(name.trim())?.iter().cloned());
            rest = after.trim();
        }
    }
    Some(found)
}

/// Reads `AET directory R|W|RW (quota) ANY|peers`.
fn title_entry(line: &str, number: usize, hosts: &BTreeMap<String, Vec<Host>>, settings: &mut ImportedSettings) {
    let mut parts = line.splitn(2, char::is_whitespace);
    let (title, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default().trim());
    let mut parts = rest.splitn(2, char::is_whitespace);
    let (directory, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default().trim());
    let mut parts = rest.splitn(2, |c: char| c.is_whitespace() || c == '(');
    let access = parts.next().unwrap_or_default();
    let after_quota = rest.split_once(')').map_or("", |(_, after)| after.trim());
    let services = match access {
        "RW" | "rw" => None,
        "R" | "r" => Some(vec!["echo", "find", "get", "move"]),
        "W" | "w" => Some(vec!["echo", "store"]),
        other => {
            settings.remark(format!("the access {other:?} of {title} is not understood"));
            return;
        }
    };
    if number == 1 {
        settings.ae_title(title);
    }
    settings.remark(format!("the objects of {title} are in {directory}: `dcmdex scan` indexes them where they lie"));
    let allowed = if after_quota.eq_ignore_ascii_case("ANY") {
        settings.remark(format!("any peer could use {title}; only those of the host table are taken over"));
        hosts.values().flatten().cloned().collect()
    } else {
        match host_list(after_quota, hosts) {
            Some(allowed) => allowed,
            None => {
                settings.remark(format!("the peers of {title} are not understood"));
                return;
            }
        }
    };
    for Host { ae_title, host, port } in allowed {
        // Without a port it is nobody to send to.
        let services = services.clone();
        let host = Some(host).filter(|_| port.is_some());
        settings.peer(ImportedPeer { ae_title, host, port, services, ..ImportedPeer::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_groups_and_rights_are_read() {
        let text = "NetworkTCPPort  = 104\nMaxPDUSize = 16384\nMaxAssociations = 16\n\
            HostTable BEGIN\nct = (CT1, 10.1.2.3, 104)\nws = (WS1, ws.example.org, 11112)\nall = ct, ws\nHostTable END\n\
            VendorTable BEGIN\n\"Acme\" = all\nVendorTable END\n\
            AETable BEGIN\nCOMMON /data/common R (200, 1024mb) ANY\nSTORE /data/store W (9, 1gb) (CT1, 10.1.2.3, 104), ws\n\
            AETable END\n";
        let settings = read(text).unwrap();
        assert!(settings.values.contains(&("port", "104".to_owned())));
        assert!(settings.values.contains(&("ae_title", "\"COMMON\"".to_owned())));
        assert_eq!(settings.peers.len(), 2);
        let ct = settings.peers.iter().find(|peer| peer.ae_title == "CT1").unwrap();
        assert_eq!(ct.services.as_deref().unwrap(), ["echo", "find", "get", "move", "store"]);
        assert_eq!((ct.host.as_deref(), ct.port), (Some("10.1.2.3"), Some(104)));
        assert!(settings.remarks.iter().any(|remark| remark.contains("/data/common")), "{:?}", settings.remarks);
        assert!(read("something else").is_err() && read("HostTable BEGIN\n").is_err());
    }
}
