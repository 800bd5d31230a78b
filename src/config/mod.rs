//! Builds one checked [`Config`] from file, environment and flags.
//!
//! A command line option overrides a variable, a variable overrides the file, and the file
//! overrides the default. Each effective value has its origin. `keys` is the table of all settings,
//! and the only place that names defaults.

mod access;
mod attributes;
mod audit;
mod check;
mod entries;
mod events;
mod example;
mod http;
mod index;
mod key;
mod keys;
mod layers;
mod load;
mod options;
mod peers;
mod reference;
mod setting;
mod sources;
mod watches;
mod worklist;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use access::{AccessHistory, AccessMode, Admitted};
pub use audit::AuditSettings;
pub use events::EventSettings;
pub use example::example;
pub use http::{Http, HttpAccess};
pub(crate) use key::parse_value;
pub use key::{CONFIG_VARIABLE, FlagForm, Key, KeyFlag, ValueKind};
pub use keys::KEYS;
pub use reference::{conformance_sections, reference};
pub use setting::{Origin, Setting, SettingProblem};
pub use sources::{DEFAULT_FILE, Error, Flag, Sources};
pub use watches::WatchSettings;
pub use worklist::WorklistSettings;

use crate::access::peers::Peers;
use crate::db::{Durability, ReceivePolicy};
use crate::model::declared::DeclaredSet;
use crate::scp::{self, FilesInPlace, RetrieveOptions};
use crate::telemetry::LogFormat;
use crate::ul::tls;
use crate::{qr, scanner};
use entries::{ATTRIBUTE_TABLE, EVENTS_TABLE, PEER_TABLE, ROOT_TABLE, WATCH_TABLE};
use layers::Layers;

/// Whether received objects are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Objects are kept in the storage directory.
    Objects,
    /// Only their index entries are kept.
    MetadataOnly,
}

/// The arrival journal of the storage directory (docs/adr/0039).
#[derive(Clone, Copy, Debug)]
pub struct JournalSettings {
    /// Bytes of the journal. 0: there is none.
    pub bytes: u64,
    /// Bytes of the largest object that goes into it.
    pub object_bytes: usize,
    /// Whether a setting asks for it. It is no mistake if a default cannot be had.
    pub is_asked_for: bool,
}

/// Settings of the scrub: objects in our own storage are read again to find damage.
#[derive(Clone, Copy, Debug)]
pub struct Integrity {
    /// Bytes that a scrub reads per second. `None` disables the scrub.
    pub scrub_bytes_per_second: Option<u64>,
    /// Time between two rounds.
    pub scrub_pause: Duration,
}

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether the file must have a last line that marks its end.
    pub require_end: bool,
    /// Absolute path of the index file, or the address of a database with the roots of this node.
    pub index: PathBuf,
    /// Paths of the roots of the index on this node, by name.
    pub roots: Vec<(String, PathBuf)>,
    /// Absolute path of the directory of managed objects.
    pub storage: PathBuf,
    /// Peers that may associate, as given by the setting. See [`Config::admitted`].
    pub access: AccessMode,
    /// Whether received objects are kept.
    pub keep: Keep,
    /// Certificates. `None` disables TLS.
    pub tls: Option<tls::Options>,
    /// Settings of the node: its AE title, ports, limits and timeouts.
    pub node: scp::Options,
    /// Settings of HTTP.
    pub http: Http,
    /// The audit trail. `None`: there is none.
    pub audit: Option<AuditSettings>,
    /// The log of events and its receivers.
    pub events: EventSettings,
    /// Address and port for supervisors. `None`: there is none.
    pub monitoring: Option<SocketAddr>,
    /// Guarantee of a success for objects that are received.
    pub durability: Durability,
    /// The arrival journal of the storage directory.
    pub journal: JournalSettings,
    /// Policy for objects of known instances.
    pub receive: ReceivePolicy,
    /// Settings of queries.
    pub find: qr::Options,
    /// Attributes that the index keeps in addition to its table.
    pub declared: Arc<DeclaredSet>,
    /// Settings for the sending of objects.
    pub retrieve: RetrieveOptions,
    /// Settings for the verification of objects.
    pub integrity: Integrity,
    /// Whether storage commitment counts files of an archive that is indexed in place.
    pub files_in_place: FilesInPlace,
    /// Bytes to leave free in the storage directory.
    pub min_free_bytes: u64,
    /// Bytes of memory for pages of the index.
    pub cache_bytes: u64,
    /// Whether the node checks a sample of the index before it opens its port.
    pub start_check: bool,
    /// Settings of a scan.
    pub scan: scanner::Options,
    /// Time for which a worker has a part of a shared scan.
    pub scan_lease: Duration,
    /// Watched directories.
    pub watches: Vec<WatchSettings>,
    /// Settings of the worklist.
    pub worklist: WorklistSettings,
    /// Peers that may associate, and the destinations of C-MOVE.
    pub peers: Peers,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Filter of log lines. If it is empty, each command has its own default.
    pub log_filter: String,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Variables for a warning: they have our prefix but are not settings.
    pub strange_variables: Vec<String>,
    layers: Layers,
}

impl Config {
    /// Returns all effective settings with their names, in the order of the table, then the peers.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &Setting)> {
        let peers = self.layers.iter().filter(|(path, _)| Key::by_path(path).is_none());
        KEYS.iter().map(|key| (key.path, self.layers.setting(key.path))).chain(peers)
    }

    /// Returns the entries of `[[peer]]`, `[[attribute]]`, `[[watch]]`, `[[events]]` and `[[root]]`
    /// as written in the file. Each has the name of its table and its line. Its fields are in the
    /// order of the shipped example.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &Origin, impl Iterator<Item = (&str, &Setting)>)> {
        let peers = self.layers.peer_table().unwrap_or_default();
        let (attributes, watches) = (self.layers.attributes(), self.layers.watches());
        let events = self.layers.receivers();
        let tables = [
            (&PEER_TABLE, peers),
            (&ATTRIBUTE_TABLE, attributes),
            (&WATCH_TABLE, watches),
            (&EVENTS_TABLE, events),
            (&ROOT_TABLE, self.layers.roots()),
        ];
        tables.into_iter().flat_map(|(table, entries)| {
            entries.iter().map(move |entry| (table.name, &entry.origin, entry.in_order(table)))
        })
    }

    /// Whether other machines can reach the node.
    #[must_use]
    pub fn is_reachable_from_outside(&self) -> bool {
        !self.node.bind.ip().is_loopback()
    }
}

#[cfg(test)]
mod tests;
