//! Settings that were read from another node, and how they are written as ours.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::model::ae_title::AeTitle;

/// Settings in our words.
#[derive(Debug, Default)]
pub(super) struct ImportedSettings {
    /// Dotted names and values, as written in TOML.
    pub(super) values: Vec<(&'static str, String)>,
    pub(super) peers: Vec<ImportedPeer>,
    /// Decisions that are left to a person, in sentences.
    pub(super) remarks: Vec<String>,
}

/// A peer of the other node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ImportedPeer {
    pub(super) ae_title: String,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    /// Whether it may call from the address of `host` only.
    pub(super) only_from_host: bool,
    /// Services that it may use. `None` is all of them.
    pub(super) services: Option<Vec<&'static str>>,
    pub(super) tls: bool,
}

impl ImportedSettings {
    /// Adds a value, which is written as text.
    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        self.values.push((name, toml::Value::from(value).to_string()));
    }

    pub(super) fn value(&mut self, name: &'static str, value: impl ToString) {
        self.values.push((name, value.to_string()));
    }

    pub(super) fn remark(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.remarks.contains(&text) {
            self.remarks.push(text);
        }
    }

    /// Sets the AE title, if it is one.
    pub(super) fn ae_title(&mut self, title: &str) {
        match title.trim().parse::<AeTitle>() {
            Ok(title) => self.text("ae_title", title.as_str()),
            Err(error) => self.remark(format!("the AE title is not taken over: {error}")),
        }
    }

    /// Adds a peer. One that is there already gets the services of both.
    pub(super) fn peer(&mut self, mut peer: ImportedPeer) {
        let Ok(title) = peer.ae_title.trim().parse::<AeTitle>() else {
            self.remark(format!("the peer {:?} has no valid AE title and is not taken over", peer.ae_title));
            return;
        };
        peer.ae_title = title.to_string();
        let Some(known) = self.peers.iter_mut().find(|known| known.ae_title == peer.ae_title) else {
            self.peers.push(peer);
            return;
        };
        known.services = match (known.services.take(), peer.services) {
            (Some(mut one), Some(other)) => {
                one.extend(other);
                one.sort_unstable();
                one.dedup();
                Some(one)
            }
            _ => None,
        };
        let is_other =
            (known.host.is_some() && peer.host.is_some()) && (&known.host, known.port) != (&peer.host, peer.port);
        let title = known.ae_title.clone();
        if known.host.is_none() {
            (known.host, known.port) = (peer.host, peer.port);
        }
        if is_other {
            self.remark(format!("{title} has more than one address; the first one is taken over"));
        }
    }

    /// The settings file.
    pub(super) fn to_toml(&self, from: &str) -> String {
        let mut out = format!("# Made by `dcmdex config import` from {from}.\n");
        for remark in &self.remarks {
            let _ = writeln!(out, "# Note: {}", remark.replace(['\n', '\r'], " "));
        }
        out.push_str("require_end = true\n");
        let table = |name: &str| name.split_once('.').map(|(table, _)| table.to_owned());
        let mut values: Vec<_> = self.values.iter().collect();
        values.sort_by_key(|(name, _)| table(name));
        let mut section = None;
        for (name, value) in values {
            let of = table(name);
            if of != section {
                let _ = writeln!(out, "\n[{}]", of.as_deref().unwrap_or_default());
                section = of;
            }
            let key = name.split_once('.').map_or(*name, |(_, key)| key);
            let _ = writeln!(out, "{key} = {value}");
        }
        for peer in &self.peers {
            out.push('\n');
            out.push_str(&peer.to_toml());
        }
        out.push_str("\n# end\n");
        out
    }
}

impl ImportedPeer {
    fn to_toml(&self) -> String {
        let text = |value: &str| toml::Value::from(value).to_string();
        let mut out = format!("[[peer]]\nae_title = {}\n", text(&self.ae_title));
        if let Some(services) = &self.services {
            let list: Vec<_> = services.iter().map(|service| text(service)).collect();
            let _ = writeln!(out, "services = [{}]", list.join(", "));
        }
        if let Some(host) = &self.host {
            match host.parse::<IpAddr>() {
                Ok(address) if self.only_from_host => {
                    let _ = writeln!(out, "addresses = [{}]", text(&address.to_string()));
                }
                Err(_) if self.only_from_host => {
                    out.push_str(
                        "# Only numbers are compared with the address of a caller:\n#addresses = [\"10.1.2.3\"]\n",
                    );
                }
                Ok(_) | Err(_) => {}
            }
            let _ = writeln!(out, "host = {}", text(host));
        }
        if let Some(port) = self.port {
            let _ = writeln!(out, "port = {port}");
        }
        if self.tls {
            out.push_str("tls = true\n");
        }
        out
    }
}
