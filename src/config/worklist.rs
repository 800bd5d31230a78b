//! Settings of the worklist.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::check::Check;
use super::keys::settings;
use crate::mllp;
use crate::model::ae_title::AeTitle;
use crate::model::calendar::DAY_SECONDS;
use crate::model::peer::AddressRange;
use crate::worklist::{Hl7Map, IntakeOptions, LifeOptions, WorklistOptions};

/// Settings of the worklist, checked.
#[derive(Clone, Debug)]
pub struct WorklistSettings {
    /// Whether peers can ask for it.
    pub enabled: bool,
    /// Settings by which orders become items.
    pub intake: IntakeOptions,
    /// Settings of the life of items.
    pub life: LifeOptions,
    /// Folder of items.
    pub folder: Option<PathBuf>,
    /// Address and port for HL7 messages.
    pub hl7: Option<SocketAddr>,
    /// Addresses that may send them.
    pub hl7_senders: Vec<AddressRange>,
    /// Whether they come over TLS only.
    pub hl7_tls: bool,
    /// Map of their fields to attributes.
    pub hl7_map: Hl7Map,
}

impl Check<'_> {
    pub(super) fn worklist(&mut self) -> WorklistSettings {
        let hl7 = self.hl7_address();
        let hl7_senders = self.hl7_senders();
        let hl7_tls = self.boolean(settings::WORKLIST_HL7_TLS);
        if hl7.is_some_and(|address| !address.ip().is_loopback()) && hl7_senders.is_empty() {
            let message =
                "others can reach the address, and `worklist.hl7_senders` does not say who may send".to_owned();
            self.refuse(settings::WORKLIST_HL7.path(), message);
        }
        if hl7.is_some() && hl7_tls && self.text(settings::TLS_CERTIFICATE).is_empty() {
            self.refuse(settings::WORKLIST_HL7_TLS.path(), "TLS needs `tls.certificate`".to_owned());
        }
        let has_folder = !self.text(settings::WORKLIST_FOLDER).is_empty();
        WorklistSettings {
            life: LifeOptions {
                quiet: Duration::from_secs(self.integer(settings::WORKLIST_QUIET_MINUTES) * 60),
                remove_after: Duration::from_secs(self.integer(settings::WORKLIST_REMOVE_DAYS) * DAY_SECONDS),
            },
            folder: has_folder.then(|| self.path(settings::WORKLIST_FOLDER)),
            hl7,
            hl7_senders,
            hl7_tls,
            hl7_map: self.hl7_map(),
            enabled: self.boolean(settings::WORKLIST_ENABLED),
            intake: IntakeOptions {
                stations: self.stations(),
                keep: Duration::from_secs(self.integer(settings::WORKLIST_KEEP_HOURS) * 3600),
            },
        }
    }

    fn hl7_address(&mut self) -> Option<SocketAddr> {
        if self.text(settings::WORKLIST_HL7).is_empty() {
            return None;
        }
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 2575));
        Some(self.parsed(settings::WORKLIST_HL7).unwrap_or(nowhere))
    }

    fn hl7_senders(&mut self) -> Vec<AddressRange> {
        let mut ranges = Vec::new();
        for text in self.texts(settings::WORKLIST_HL7_SENDERS) {
            match text.parse() {
                Ok(range) => ranges.push(range),
                Err(error) => self.refuse(settings::WORKLIST_HL7_SENDERS.path(), format!("`{text}`: {error}")),
            }
        }
        ranges
    }

    fn hl7_map(&mut self) -> Hl7Map {
        let mut map = Hl7Map::default();
        map.set_patient_authority(self.text(settings::WORKLIST_PATIENT_AUTHORITY).trim());
        for text in self.texts(settings::WORKLIST_HL7_MAP) {
            if let Err(error) = map.replace(&text) {
                self.refuse(settings::WORKLIST_HL7_MAP.path(), error.to_string());
            }
        }
        map
    }

    /// Reads pairs of modality and AE title, as in `CT=CT1`.
    fn stations(&mut self) -> Vec<(String, String)> {
        let mut stations = Vec::new();
        for text in self.texts(settings::WORKLIST_STATIONS) {
            match text.split_once('=').map(|(modality, title)| (modality.trim(), title.trim().parse::<AeTitle>())) {
                Some((modality, Ok(title))) if is_code_string(modality) => {
                    stations.push((modality.to_owned(), title.to_string()));
                }
                Some((_, Err(error))) => self.refuse(settings::WORKLIST_STATIONS.path(), format!("`{text}`: {error}")),
                Some(_) | None => {
                    let message = format!("`{text}` is not written as in \"CT=CT1\", a modality and an AE title");
                    self.refuse(settings::WORKLIST_STATIONS.path(), message);
                }
            }
        }
        stations
    }
}

/// Whether a text is a value of VR CS (PS3.5 6.2).
fn is_code_string(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b' ' | b'_');
    (1..=16).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Connections for HL7 at one time. A site has a handful of senders, each with a few.
const HL7_CONNECTIONS: usize = 200;

/// Connections of one sender.
const HL7_CONNECTIONS_OF_ONE: usize = 20;

/// Time between two messages of a sender. Senders keep their connection, and are silent at night.
const HL7_IDLE: Duration = Duration::from_secs(24 * 3600);

impl Config {
    /// Returns the options of the listener for HL7 messages. `None` if there is none.
    #[must_use]
    pub fn mllp_options(&self) -> Option<mllp::Options> {
        let node = &self.node;
        Some(mllp::Options {
            bind: self.worklist.hl7.filter(|_| self.worklist.enabled)?,
            senders: self.worklist.hl7_senders.clone().into(),
            max_connections: HL7_CONNECTIONS,
            max_connections_of_one: HL7_CONNECTIONS_OF_ONE,
            idle_timeout: HL7_IDLE,
            read_timeout: node.read_timeout,
            write_timeout: node.write_timeout,
            drain_timeout: node.drain_timeout,
        })
    }

    /// Returns the options of questions to the worklist. Names and character sets are as in
    /// queries.
    #[must_use]
    pub fn worklist_options(&self) -> WorklistOptions {
        WorklistOptions {
            names: self.find.names,
            pending: self.find.pending,
            limit: self.find.limit,
            assumed_character_set: self.find.assumed_character_set.clone(),
        }
    }
}
