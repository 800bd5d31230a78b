//! The table of peers, `[[peer]]`: who may associate, and for which services.
//!
//! Only a file has this table. `[peers]` and `--peer` only name destinations of C-MOVE.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::SettingProblem;
use super::entries::FileEntry;
use crate::access::peers::{Grant, Peers, Security, ServiceSet, WorklistGrant};
use crate::config::layers::Layers;
use crate::config::setting::{Origin, Setting};
use crate::encoding::charset::CharacterSets;
use crate::model::ae_title::AeTitle;
use crate::model::peer::{AddressRange, PeerAddress};
use crate::scp::service_classes;
use crate::ul::certificates::CertificateId;
use crate::ul::destination::Destination;

const EMPTY_ADDRESSES: &str =
    "`addresses` is empty: leave it out to allow any address; `services = []` is for a peer that may request nothing";

const CONTRADICTION: &str = "`certificates` needs TLS, but `tls` is false";

/// Builds the peers from all sources.
pub(super) fn peers(layers: &Layers, problems: &mut Vec<SettingProblem>) -> Peers {
    let mut peers = Peers::default();
    if let Some(entries) = layers.peer_table() {
        let mut table = BTreeMap::new();
        for entry in entries {
            let Some((title, grant, destination)) = (PeersReader { entry, problems }).read() else { continue };
            if let Some(destination) = destination {
                peers.destinations.insert(title.clone(), destination);
            }
            if table.insert(title.clone(), grant).is_some() {
                let origin = entry.origin.clone();
                problems.push(SettingProblem { origin, message: format!("peer `{title}` is listed twice") });
            }
        }
        peers.table = Some(table);
    }
    for (path, setting) in layers.iter() {
        let Some(title) = path.strip_prefix("peers.") else { continue };
        let address = setting.value.as_str().unwrap_or_default();
        let refused = |error: &dyn fmt::Display| SettingProblem {
            origin: setting.origin.clone(),
            message: format!("peer `{title}` = `{address}`: {error}"),
        };
        match (title.parse::<AeTitle>(), address.parse::<PeerAddress>()) {
            (Ok(title), Ok(address)) => {
                // The option or variable is stronger than the entry of the table, but it changes
                // only the address.
                match peers.destinations.get_mut(&title) {
                    Some(destination) => destination.address = address,
                    None => {
                        peers.destinations.insert(title, Destination::plain(address));
                    }
                }
            }
            (Err(error), _) => problems.push(refused(&error)),
            (_, Err(error)) => problems.push(refused(&error)),
        }
    }
    peers
}

struct PeersReader<'a> {
    entry: &'a FileEntry,
    problems: &'a mut Vec<SettingProblem>,
}

impl PeersReader<'_> {
    fn read(&mut self) -> Option<(AeTitle, Grant, Option<Destination>)> {
        if !self.entry.fields.contains_key("ae_title") {
            self.refuse(self.entry.origin.clone(), "a peer needs an `ae_title`".to_owned());
        }
        let title = self.parsed::<AeTitle>("ae_title");
        let addresses = self.list("addresses", |text| text.parse::<AddressRange>().map_err(|error| error.to_string()));
        if let Some(Setting { value, origin }) = self.entry.fields.get("addresses")
            && value.as_array().is_some_and(Vec::is_empty)
        {
            // `services = []` allows nothing. So an empty `addresses` must not allow every address.
            self.refuse(origin.clone(), EMPTY_ADDRESSES.to_owned());
        }
        let services = self.list("services", |text| {
            let names = || service_classes().into_iter().map(|class| class.grant);
            names()
                .find(|name| *name == text)
                .ok_or_else(|| format!("it is not one of {}", names().collect::<Vec<_>>().join(", ")))
        });
        let services = services.map_or(ServiceSet::ALL, |services| services.into_iter().collect());
        let max_associations = self.integer("max_associations", 1, 100_000);
        let max_associations = max_associations.and_then(|count| usize::try_from(count).ok());
        let certificates = self.list("certificates", |text| text.parse::<CertificateId>().map_err(|it| it.to_string()));
        let tls = self.entry.fields.get("tls");
        let security = match (certificates, tls.and_then(|tls| tls.value.as_bool())) {
            (Some(_), Some(false)) => {
                self.refuse(
                    tls.map_or_else(|| self.entry.origin.clone(), |it| it.origin.clone()),
                    CONTRADICTION.to_owned(),
                );
                Security::Tls
            }
            (Some(certificates), _) => Security::Certificates(certificates),
            (None, Some(true)) => Security::Tls,
            (None, _) => Security::Any,
        };
        let destination = self.destination().map(|address| Destination {
            address,
            tls: security != Security::Any,
            certificates: match &security {
                Security::Certificates(certificates) => certificates.clone(),
                Security::Any | Security::Tls => Vec::new(),
            },
        });
        let grant = Grant {
            addresses: addresses.unwrap_or_default(),
            services,
            max_associations,
            security,
            worklist: self.worklist(),
        };
        Some((title?, grant, destination))
    }

    /// Reads what it sees of the worklist.
    fn worklist(&mut self) -> WorklistGrant {
        let own_station_only = match self.entry.fields.get("worklist_of") {
            None => false,
            Some(Setting { value, origin }) => match value.as_str() {
                Some("own-station") => true,
                Some("all") => false,
                _ => {
                    self.refuse(
                        origin.clone(),
                        format!("`worklist_of`: {value} is neither \"all\" nor \"own-station\""),
                    );
                    false
                }
            },
        };
        let character_set =
            self.entry.fields.get("character_set").map(|setting| (setting.clone(), setting.value.as_str()));
        let character_set = character_set.and_then(|(setting, text)| {
            let text = text.unwrap_or_default();
            if text.is_empty() || CharacterSets::defined_terms(text).is_none() {
                self.refuse(setting.origin, format!("`character_set`: `{text}` is not a character set of PS3.3"));
                return None;
            }
            Some(text.to_owned())
        });
        WorklistGrant { own_station_only, character_set }
    }

    fn destination(&mut self) -> Option<PeerAddress> {
        let port = self.integer("port", 1, u64::from(u16::MAX));
        match (self.entry.fields.get("host"), port) {
            (None, None) => None,
            (Some(host), Some(port)) => {
                let text = host.value.as_str().unwrap_or_default();
                // An IPv6 address needs no brackets here, because the port is a separate key.
                let host_and_port = match text.contains(':') && !text.starts_with('[') {
                    true => format!("[{text}]:{port}"),
                    false => format!("{text}:{port}"),
                };
                match host_and_port.parse() {
                    Ok(address) => Some(address),
                    Err(_) => {
                        self.refuse(host.origin.clone(), format!("`host`: `{text}` is not a host name or address"));
                        None
                    }
                }
            }
            (Some(Setting { origin, .. }), None) if !self.entry.fields.contains_key("port") => {
                self.refuse(origin.clone(), "`host` needs a `port`".to_owned());
                None
            }
            (Some(_), None) => None, // an invalid port, already reported
            (None, Some(_)) => {
                self.refuse(self.entry.origin.clone(), "`port` needs a `host`".to_owned());
                None
            }
        }
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let setting = self.entry.fields.get(name)?;
        let text = setting.value.as_str()?;
        text.parse()
            .inspect_err(|error| self.refuse(setting.origin.clone(), format!("`{name}`: `{text}`: {error}")))
            .ok()
    }

    /// Returns the valid items. `None` if the key is missing.
    fn list<T>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<Vec<T>> {
        let setting = self.entry.fields.get(name)?;
        let mut parts = Vec::new();
        for value in setting.value.as_array()? {
            match value.as_str().ok_or_else(|| "it is not a text".to_owned()).and_then(&read) {
                Ok(part) => parts.push(part),
                Err(error) => self.refuse(setting.origin.clone(), format!("`{name}`: {value}: {error}")),
            }
        }
        Some(parts)
    }

    fn integer(&mut self, name: &str, from: u64, to: u64) -> Option<u64> {
        let setting = self.entry.fields.get(name)?;
        let value = setting.value.as_integer()?;
        let checked = u64::try_from(value).ok().filter(|value| (from..=to).contains(value));
        if checked.is_none() {
            self.refuse(setting.origin.clone(), format!("`{name}`: {value} is not from {from} to {to}"));
        }
        checked
    }

    fn refuse(&mut self, origin: Origin, message: String) {
        self.problems.push(SettingProblem { origin, message });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(text: &str) -> (Peers, Vec<String>) {
        let (mut layers, mut problems) = (Layers::new(), Vec::new());
        layers.add_file(Path::new("f"), text, &mut problems);
        let peers = peers(&layers, &mut problems);
        (peers, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_entry_says_who_may_call_from_where_for_what_and_where_it_is() {
        let (peers, problems) = read(
            "[[peer]]\nae_title = \"CT1\"\naddresses = [\"10.0.0.0/8\"]\nservices = [\"echo\", \"store\"]\n\
             max_associations = 4\n[[peer]]\nae_title = \"PACS\"\nhost = \"::1\"\nport = 104\n",
        );
        assert!(problems.is_empty(), "{problems:?}");
        let table = peers.table.unwrap();
        let ct = &table[&"CT1".parse().unwrap()];
        assert!(ct.services.contains("store") && !ct.services.contains("find"));
        assert_eq!((ct.addresses.len(), ct.max_associations), (1, Some(4)));
        assert_eq!(table[&"PACS".parse().unwrap()].services, ServiceSet::ALL);
        assert_eq!(peers.destinations.len(), 1);
        assert_eq!(peers.destinations[&"PACS".parse().unwrap()].address.to_string(), "[::1]:104");
    }

    #[test]
    fn destinations_alone_are_no_table_and_go_before_its_addresses() {
        let (peers, problems) = read("[peers]\nPACS = \"pacs:104\"\n");
        assert!(problems.is_empty() && peers.table.is_none() && peers.destinations.len() == 1);
        let (peers, problems) =
            read("[peers]\nPACS = \"new:105\"\n[[peer]]\nae_title = \"PACS\"\nhost = \"old\"\nport = 104\n");
        assert!(problems.is_empty());
        assert_eq!(peers.destinations[&"PACS".parse().unwrap()].address.to_string(), "new:105");
    }

    #[test]
    fn an_empty_table_is_one() {
        assert_eq!(read("peer = []\n").0.table, Some(BTreeMap::new()));
        assert_eq!(read("").0.table, None);
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_line() {
        for (text, expected) in [
            ("[[peer]]\nport = 1\nhost = \"h\"\n", "f:1: a peer needs an `ae_title`"),
            (
                "[[peer]]\nae_title = \"A\"\nadresses = []\n",
                "f:3: unknown setting `adresses` of a peer; did you mean `addresses`?",
            ),
            (
                "[[peer]]\nae_title = \"A\"\ncolour = 1\n",
                "f:3: unknown setting `colour` of a peer; it can be `ae_title`, `addresses`, `services`, \
                 `max_associations`, `host`, `tls`, `certificates`, `port`, `worklist_of`, `character_set`",
            ),
            ("[[peer]]\nae_title = 1\n", "f:2: `ae_title` is written as in \"CT1\"\nf:1: a peer needs an `ae_title`"),
            (
                "[[peer]]\nae_title = \"A\\\\B\"\n",
                "f:2: `ae_title`: `A\\B`: an AE title holds printable ASCII characters only, and no backslash",
            ),
            (
                "[[peer]]\nae_title = \"A\"\naddresses = [\"10.0.0.1/8\"]\n",
                "f:3: `addresses`: \"10.0.0.1/8\": the address has bits set after the prefix of the network",
            ),
            (
                "[[peer]]\nae_title = \"A\"\naddresses = []\n",
                "f:3: `addresses` is empty: leave it out to allow any address; `services = []` is for a peer that may request nothing",
            ),
            (
                "[[peer]]\nae_title = \"A\"\nservices = [\"stow\"]\n",
                "f:3: `services`: \"stow\": it is not one of echo, store, find, get, move, commit, worklist, mpps",
            ),
            (
                "[[peer]]\nae_title = \"A\"\nmax_associations = 0\n",
                "f:3: `max_associations`: 0 is not from 1 to 100000",
            ),
            ("[[peer]]\nae_title = \"A\"\nhost = \"h\"\n", "f:3: `host` needs a `port`"),
            ("[[peer]]\nae_title = \"A\"\nport = 104\n", "f:1: `port` needs a `host`"),
            (
                "[[peer]]\nae_title = \"A\"\nhost = \"a/b\"\nport = 104\n",
                "f:3: `host`: `a/b` is not a host name or address",
            ),
            ("[[peer]]\nae_title = \"A\"\n[[peer]]\nae_title = \"A\"\n", "f:3: peer `A` is listed twice"),
            (
                "[[peer]]\nae_title = \"A\"\ncertificates = [\"CT1\"]\n",
                "f:3: `certificates`: \"CT1\": a certificate is named as sha256:… (64 hexadecimal digits), cn:… or dns:…",
            ),
            (
                "[[peer]]\nae_title = \"A\"\ntls = false\ncertificates = [\"cn:CT1\"]\n",
                "f:3: `certificates` needs TLS, but `tls` is false",
            ),
            ("peer = 1\n", "f:1: peers are written as [[peer]], one for each"),
            ("[peer]\nae_title = \"A\"\n", "f:1: peers are written as [[peer]], one for each"),
            ("peer = [1]\n", "f:1: peers are written as [[peer]], one for each"),
        ] {
            assert_eq!(read(text).1.join("\n"), expected, "{text}");
        }
    }
}
