//! Decides who may associate. A setting says it, and a reload never widens it.
//!
//! A configuration file can be read while it is being written, and a full disk can leave it
//! truncated. Such a file lacks its end. So a missing entry never lets in more than before. To let
//! in more, the file must say so (docs/adr/0020).

use std::collections::BTreeMap;

use super::Config;
use super::entries::FileEntry;
use super::setting::SettingProblem;
use super::sources::Error;
use crate::access::peers::{Grant, Security};
use crate::config::keys::settings;
use crate::config::setting::Origin;
use crate::model::ae_title::AeTitle;

/// Peers that may associate, as given by the setting `access`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessMode {
    /// The peers of the table. Without a table it is anyone, if only this machine reaches the port.
    Auto,
    /// The peers of the table.
    Table,
    /// Anyone who reaches the port.
    Anyone,
}

/// Peers that may really associate, as decided from all settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The peers of the table.
    Table,
    /// Anyone who reaches the port.
    Anyone,
}

impl Admitted {
    /// Returns the value as written in the setting.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Anyone => "anyone",
        }
    }
}

impl Config {
    /// Decides who may associate.
    ///
    /// # Errors
    /// Fails if the settings contradict each other, or if others reach the port and no setting says
    /// who may associate.
    pub fn admitted(&self) -> Result<Admitted, Error> {
        let message = match (self.access, &self.peers.table) {
            (AccessMode::Auto | AccessMode::Table, Some(_)) => return Ok(Admitted::Table),
            (AccessMode::Anyone, None) => return Ok(Admitted::Anyone),
            (AccessMode::Auto, None) if !self.is_reachable_from_outside() => return Ok(Admitted::Anyone),
            (AccessMode::Auto, None) => format!(
                "others can reach {}, and nothing says who may associate; hint: write a [[peer]] for each node that may, or \
                 `access = \"anyone\"` (--access anyone) to let in everyone who reaches the port",
                self.node.bind
            ),
            (AccessMode::Table, None) => {
                "`access` is \"table\", and there is no table: write a [[peer]] for each node that \
                                          may associate (`peer = []`: nobody)"
                    .to_owned()
            }
            (AccessMode::Anyone, Some(_)) => "`access` is \"anyone\", and there is a table of peers, [[peer]]: remove \
                                              one of the two"
                .to_owned(),
        };
        let origin = match self.access {
            AccessMode::Auto => self.layers.setting(settings::BIND.path()).origin.clone(),
            AccessMode::Table | AccessMode::Anyone => self.layers.setting(settings::ACCESS.path()).origin.clone(),
        };
        Err(Error::Invalid(vec![SettingProblem { origin, message }]))
    }

    /// Says who may associate, for the log.
    ///
    /// # Errors
    /// That of [`Self::admitted`].
    pub fn admitted_in_words(&self) -> Result<&'static str, Error> {
        Ok(match self.admitted()? {
            Admitted::Anyone if !self.is_reachable_from_outside() => "anyone on this machine",
            admitted => admitted.as_str(),
        })
    }
}

/// Records who was let in since the start of the node, and what each AE title was bound to.
///
/// A removed title is still remembered. A file that is written in pieces may lack the title for a
/// moment, and then have half of its entry.
#[derive(Debug)]
pub struct AccessHistory {
    admitted: Admitted,
    bound: BTreeMap<AeTitle, Bound>,
    /// Whether only some addresses may send HL7 messages.
    hl7_senders_named: bool,
}

/// Restrictions in an entry of the table. Without them the entry would let in more.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    addresses: bool,
    services: bool,
    security: Security,
}

impl AccessHistory {
    /// Creates the history of a node that starts.
    ///
    /// # Errors
    /// Fails as [`Config::admitted`] does.
    pub fn of(config: &Config) -> Result<Self, Error> {
        let bound = entries(config).map(|(title, grant, entry)| (title.clone(), Bound::of(grant, entry))).collect();
        let hl7_senders_named = !config.worklist.hl7_senders.is_empty();
        Ok(Self { admitted: config.admitted()?, bound, hl7_senders_named })
    }

    /// Accepts the new peers of a running node and remembers them.
    ///
    /// # Errors
    /// Fails if they would let in more than before without saying so. The error lists all such
    /// entries.
    pub fn take(&mut self, new: &Config) -> Result<Admitted, Error> {
        let admitted = new.admitted()?;
        let mut problems = Vec::new();
        if (self.admitted, admitted) == (Admitted::Table, Admitted::Anyone) {
            let origin = new.layers.setting(settings::ACCESS.path()).origin.clone();
            let message =
                "the table of peers is gone, and anyone would be let in, but a running node does not open itself; \
                 hint: put the table back, or restart the node"
                    .to_owned();
            problems.push(SettingProblem { origin, message });
        }
        let hl7_senders_named = !new.worklist.hl7_senders.is_empty();
        if self.hl7_senders_named && !hl7_senders_named {
            let origin = new.layers.setting(settings::WORKLIST_HL7_SENDERS.path()).origin.clone();
            let message = "the addresses that may send HL7 messages are gone, so that anyone could: a truncated file \
                           looks the same; if this is intended, write \
                           `worklist.hl7_senders = [\"0.0.0.0/0\", \"::/0\"]`"
                .to_owned();
            problems.push(SettingProblem { origin, message });
        }
        let mut bound = self.bound.clone();
        for (title, grant, entry) in entries(new) {
            let now = Bound::of(grant, entry);
            let lost = self.bound.get(title).map(|before| before.lost(&now, entry)).unwrap_or_default();
            problems.extend(lost.into_iter().map(|lost| lost.problem(title, &entry.origin)));
            bound.insert(title.clone(), now);
        }
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        *self = Self { admitted, bound, hl7_senders_named };
        Ok(admitted)
    }
}

/// Returns the entries of the table, with the permissions that they grant.
fn entries(config: &Config) -> impl Iterator<Item = (&AeTitle, &Grant, &FileEntry)> {
    let table = config.peers.table.iter().flatten();
    table.filter_map(|(title, grant)| {
        let is_of = |entry: &&FileEntry| {
            let text = entry.fields.get("ae_title").and_then(|setting| setting.value.as_str());
            text.and_then(|text| text.parse::<AeTitle>().ok()).as_ref() == Some(title)
        };
        let entry = config.layers.peer_table().unwrap_or_default().iter().find(is_of)?;
        Some((title, grant, entry))
    })
}

/// A restriction that an entry no longer has.
struct Lost {
    key: &'static str,
    lets_in: &'static str,
    instead: &'static str,
}

impl Lost {
    fn problem(self, title: &AeTitle, origin: &Origin) -> SettingProblem {
        let Self { key, lets_in, instead } = self;
        let message = format!(
            "peer `{title}` no longer has `{key}`, {lets_in}: a truncated file looks the same; if this is intended, write \
             {instead}"
        );
        SettingProblem { origin: origin.clone(), message }
    }
}

impl Bound {
    fn of(grant: &Grant, entry: &FileEntry) -> Self {
        let has = |key| entry.fields.contains_key(key);
        Self { addresses: has("addresses"), services: has("services"), security: grant.security.clone() }
    }

    /// Returns the restrictions that the entry had before and no longer has.
    fn lost(&self, now: &Self, entry: &FileEntry) -> Vec<Lost> {
        let mut lost = Vec::new();
        if self.addresses && !now.addresses {
            lost.push(Lost {
                key: "addresses",
                lets_in: "so that it may call from anywhere",
                instead: "`addresses = [\"0.0.0.0/0\", \"::/0\"]`",
            });
        }
        if self.services && !now.services {
            lost.push(Lost { key: "services", lets_in: "so that it may ask for everything", instead: "each service" });
        }
        let says_tls = entry.fields.contains_key("tls");
        match (&self.security, &now.security) {
            (Security::Tls | Security::Certificates(_), Security::Any) if !says_tls => lost.push(Lost {
                key: "tls` or `certificates",
                lets_in: "so that it may call without TLS",
                instead: "`tls = false`",
            }),
            (Security::Certificates(_), Security::Tls) => lost.push(Lost {
                key: "certificates",
                lets_in: "so that any certificate would do",
                instead: "nothing, and restart the node",
            }),
            (Security::Any | Security::Tls | Security::Certificates(_), _) => {}
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Flag, Sources};

    fn config(directory: &Path, text: &str) -> Config {
        let file = directory.join("dcmdex.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&Sources { file: Some(file), ..Sources::default() }, directory).unwrap()
    }

    fn admitted(text: &str, flags: Vec<Flag>) -> Result<Admitted, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dcmdex.toml");
        std::fs::write(&file, text).unwrap();
        let config =
            Config::load(&Sources { file: Some(file), flags, ..Sources::default() }, directory.path()).unwrap();
        config.admitted().map_err(|error| error.to_string())
    }

    const PEER: &str = "[[peer]]\nae_title = \"CT1\"\n";

    #[test]
    fn who_may_associate_is_said_or_follows_from_the_table_and_the_address() {
        let with_peer = |text: &str| format!("{text}{PEER}");
        assert_eq!(admitted("", vec![]), Ok(Admitted::Anyone));
        assert_eq!(admitted(&with_peer(""), vec![]), Ok(Admitted::Table));
        assert_eq!(admitted(&with_peer("bind = \"0.0.0.0\"\n"), vec![]), Ok(Admitted::Table));
        assert_eq!(admitted(&with_peer("access = \"table\"\n"), vec![]), Ok(Admitted::Table));
        assert_eq!(admitted("access = \"table\"\npeer = []\n", vec![]), Ok(Admitted::Table));
        assert_eq!(admitted("bind = \"0.0.0.0\"\naccess = \"anyone\"\n", vec![]), Ok(Admitted::Anyone));
        for (text, expected) in [
            ("bind = \"0.0.0.0\"\n".to_owned(), "others can reach 0.0.0.0:11112, and nothing says who may associate"),
            ("bind = \"::\"\n[peers]\nA = \"a:104\"\n".to_owned(), "nothing says who may associate"),
            ("access = \"table\"\n".to_owned(), "there is no table"),
            (with_peer("access = \"anyone\"\n"), "remove one of the two"),
        ] {
            let refused = admitted(&text, vec![]).unwrap_err();
            assert!(refused.contains(expected) && refused.contains("dcmdex.toml:1: "), "{text}: {refused}");
        }
        let flag = Flag { path: "access".into(), value: "anyone".into(), flag: "--access" };
        assert!(admitted(PEER, vec![flag]).unwrap_err().starts_with("option --access: "));
    }

    #[test]
    fn a_running_node_never_opens_itself() {
        let directory = tempfile::tempdir().unwrap();
        let mut history = AccessHistory::of(&config(directory.path(), PEER)).unwrap();
        for text in ["", "port = 104\n", "access = \"anyone\"\n"] {
            let refused = history.take(&config(directory.path(), text)).unwrap_err().to_string();
            assert!(refused.contains("anyone would be let in"), "{text}: {refused}");
        }
        // Fewer peers or none are stricter, and adding other peers is the purpose of a reload.
        for text in ["peer = []\n", PEER, "[[peer]]\nae_title = \"CT2\"\n", "access = \"table\"\npeer = []\n"] {
            assert_eq!(history.take(&config(directory.path(), text)).unwrap(), Admitted::Table, "{text}");
        }
        let mut open = AccessHistory::of(&config(directory.path(), "")).unwrap();
        assert_eq!(open.take(&config(directory.path(), PEER)).unwrap(), Admitted::Table);
        assert!(open.take(&config(directory.path(), "")).is_err());
    }

    const TLS: &str = "tls.certificate = \"c\"\ntls.key = \"k\"\ntls.authorities = \"a\"\n";

    #[test]
    fn a_title_is_let_in_by_more_ways_only_where_that_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let with = |more: &str| config(directory.path(), &format!("{TLS}{PEER}{more}"));
        let (addresses, services) = ("addresses = [\"10.0.0.0/8\"]\n", "services = [\"echo\"]\n");
        for (before, after, key) in [
            (addresses, "", Some("`addresses`")),
            (addresses, "addresses = [\"0.0.0.0/0\", \"::/0\"]\n", None),
            (services, "", Some("`services`")),
            (services, "services = [\"echo\", \"store\"]\n", None),
            ("tls = true\n", "", Some("`tls` or `certificates`")),
            ("tls = true\n", "tls = false\n", None),
            ("tls = true\n", "certificates = [\"cn:CT1\"]\n", None),
            ("certificates = [\"cn:CT1\"]\n", "", Some("`tls` or `certificates`")),
            ("certificates = [\"cn:CT1\"]\n", "tls = true\n", Some("`certificates`")),
            ("certificates = [\"cn:CT1\"]\n", "tls = false\n", None),
            ("certificates = [\"cn:CT1\"]\n", "certificates = [\"cn:CT2\"]\n", None),
            ("tls = false\n", "", None),
            ("max_associations = 1\n", "", None),
        ] {
            let mut history = AccessHistory::of(&with(before)).unwrap();
            let taken = history.take(&with(after)).map_err(|error| error.to_string());
            match key {
                None => assert_eq!(taken, Ok(Admitted::Table), "{before} {after}"),
                Some(key) => assert!(taken.clone().is_err_and(|it| it.contains(key)), "{before} {after}: {taken:?}"),
            }
        }
    }

    #[test]
    fn the_port_for_hl7_messages_is_not_opened_by_what_a_file_lacks() {
        let directory = tempfile::tempdir().unwrap();
        let with = |worklist: &str| config(directory.path(), &format!("{worklist}{PEER}"));
        let named = "[worklist]\nhl7 = \"127.0.0.1:0\"\nhl7_senders = [\"10.0.0.5\"]\n";
        let mut history = AccessHistory::of(&with(named)).unwrap();
        for lacking in ["", "[worklist]\n", "[worklist]\nhl7 = \"127.0.0.1:0\"\n", "[worklist]\nhl7_senders = []\n"] {
            let refused = history.take(&with(lacking)).unwrap_err().to_string();
            assert!(refused.contains("may send HL7 messages are gone"), "{lacking}: {refused}");
        }
        for said in ["[\"10.0.0.6\"]", "[\"10.0.0.0/8\", \"::1\"]", "[\"0.0.0.0/0\", \"::/0\"]"] {
            let text = format!("[worklist]\nhl7_senders = {said}\n");
            assert_eq!(history.take(&with(&text)).unwrap(), Admitted::Table, "{said}");
        }
        // Where anyone on this machine could send from the start, nothing is lost.
        let mut open = AccessHistory::of(&with("")).unwrap();
        for text in ["", named] {
            open.take(&with(text)).unwrap();
        }
        assert!(open.take(&with("")).is_err());
    }

    /// Tries each prefix of a file in turn, as an editor may write it. No title may gain a
    /// permission.
    #[test]
    fn no_beginning_of_a_file_lets_in_more_than_the_whole() {
        let directory = tempfile::tempdir().unwrap();
        let whole = format!(
            "{TLS}{PEER}addresses = [\"10.1.0.0/16\"]\nservices = [\"echo\"]\ncertificates = [\"cn:CT1\"]\n\
             [[peer]]\nae_title = \"CT2\"\ntls = true\naddresses = [\"10.2.0.0/16\"]\nservices = []\n"
        );
        let full = config(directory.path(), &whole);
        let mut history = AccessHistory::of(&full).unwrap();
        let mut taken = 0;
        for end in 0..=whole.len() {
            let file = directory.path().join("dcmdex.toml");
            std::fs::write(&file, &whole[..end]).unwrap();
            let Ok(cut) = Config::load(&Sources { file: Some(file), ..Sources::default() }, directory.path()) else {
                continue;
            };
            if history.take(&cut).is_err() {
                continue;
            }
            taken += 1;
            let (cut, full) = (cut.peers.table.unwrap(), full.peers.table.as_ref().unwrap());
            assert!(cut.iter().all(|(title, grant)| full.get(title) == Some(grant)), "{end}: {cut:?}");
        }
        assert!(taken > 0);
    }
}
