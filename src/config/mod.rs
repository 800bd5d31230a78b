//! Builds one checked [`Config`] from file, environment and flags.
//!
//! A command line option overrides a variable, a variable overrides the file, and the file
//! overrides the default. Each effective value has its origin. `keys` is the table of all settings,
//! and the only place that names defaults.

mod access;
mod attributes;
mod audit;
mod entries;
mod events;
mod example;
mod http;
mod index;
mod keys;
mod layers;
mod options;
mod peers;
mod reference;
mod setting;
mod watches;
mod worklist;

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use toml::Value;

pub use access::{AccessHistory, AccessMode, Admitted};
pub use audit::AuditSettings;
pub use events::EventSettings;
pub use example::example;
pub use http::{Http, HttpAccess};
pub(crate) use keys::parse_value;
pub use keys::{CONFIG_VARIABLE, FlagForm, KEYS, Key, KeyFlag, ValueKind};
pub use reference::{conformance_sections, reference};
pub use setting::{Origin, Setting, SettingProblem};
pub use watches::WatchSettings;
pub use worklist::WorklistSettings;

use crate::access::peers::{Grant, Peers, Security};
use crate::encoding::charset::CharacterSets;
use crate::model::ae_title::AeTitle;
use crate::model::declared::DeclaredSet;
use crate::model::matching::{NameMatching, UnknownRequired};
use crate::qr::{self, Hierarchy, PendingStatus, Retrievable};
use crate::scanner::{Filter, Rate, WalkOrder};
use crate::scp::{Decompression, Plain};
use crate::telemetry::{self, LogFormat};
use crate::ul::tls::{self, ClientCertificates};
use entries::{ATTRIBUTE_TABLE, EVENTS_TABLE, PEER_TABLE, WATCH_TABLE};
use keys::{Boolean, Choice, Integer, KeyOf, Text, Texts, settings};
use layers::Layers;

/// File in the current directory that is read if none is named.
pub const DEFAULT_FILE: &str = "dcmdex.toml";

/// Required last line of the file if `require_end` is true.
const END: &str = "# end";

/// Time for which a file must stay unchanged before a running node accepts it. Larger: a reload
/// takes longer. Smaller: a half-written file is read more often.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// Maximum number of attempts to read an unchanged file.
const SETTLING_ATTEMPTS: u32 = 10;

/// Maximum size of the file in bytes. A real one has a few kilobytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Errors of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("configuration file {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is far too long for a configuration file.
    #[error("{} is not a configuration file: it has {bytes} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Size of the file.
        bytes: u64,
    },
    /// The file keeps changing.
    #[error("configuration file {} is still being written", path.display())]
    Unsettled {
        /// The file.
        path: PathBuf,
    },
    /// All settings that cannot be used.
    #[error("{}", lines(.0))]
    Invalid(Vec<SettingProblem>),
}

fn lines(problems: &[SettingProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// One command line option.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The setting that it sets.
    pub path: String,
    /// The value.
    pub value: Value,
    /// The option as typed, for example `--port`.
    pub flag: &'static str,
}

/// Sources of settings.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// File named on the command line.
    pub file: Option<PathBuf>,
    /// Environment variables.
    pub environment: Vec<(OsString, OsString)>,
    /// Command line options.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// Returns the environment of this process, without a file and flags.
    #[must_use]
    pub fn from_process() -> Self {
        Self { environment: std::env::vars_os().collect(), ..Self::default() }
    }

    /// Returns the value of a variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&OsString> {
        self.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

/// Whether received objects are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Objects are kept in the storage directory.
    Objects,
    /// Only their index entries are kept.
    MetadataOnly,
}

/// Guarantee of a success for objects that are received (C-STORE, STOW-RS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreDurability {
    /// The object survives a power cut.
    Full,
    /// The object survives the end of this process.
    Os,
}

/// Which of two different objects with the same SOP Instance UID is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// Both are kept.
    KeepBoth,
    /// The first is kept.
    KeepFirst,
    /// The last is kept.
    Replace,
}

/// Whether a received object is kept if an archive already has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepKnown {
    /// It is kept.
    Always,
    /// It is not kept, because the archive is trusted to keep it.
    TrustArchive,
}

/// Limits and timeouts of the network. Their rows in [`KEYS`] say what a value costs that is too low
/// or too high.
#[derive(Clone, Debug)]
pub struct Network {
    /// Address and port to listen on.
    pub bind: SocketAddr,
    /// Address and port to listen on for TLS.
    pub tls_bind: SocketAddr,
    /// Whether any called AE title is accepted.
    pub accept_any_called_ae: bool,
    /// Maximum number of associations.
    pub max_associations: usize,
    /// Maximum number of associations of one peer.
    pub max_associations_per_peer: usize,
    /// Maximum number of connections without association.
    pub max_unassociated_connections: usize,
    /// Time for the A-ASSOCIATE-RQ, and for closing.
    pub artim_timeout: Duration,
    /// Time between messages.
    pub idle_timeout: Duration,
    /// Time within a message.
    pub read_timeout: Duration,
    /// Time for the peer to accept data.
    pub write_timeout: Duration,
    /// Time that the index may work on a query, for all of its answers.
    pub query_time_limit: Duration,
    /// Time for messages in flight after the order to stop.
    pub drain_timeout: Duration,
    /// UIDs, best first.
    pub preferred_transfer_syntaxes: Vec<String>,
}

/// Settings of checksum verification for objects in our own storage.
#[derive(Clone, Copy, Debug)]
pub struct Integrity {
    /// How long a result of verification stays valid.
    pub verification_holds: Duration,
    /// Bytes that a scrub reads per second. `None` disables the scrub.
    pub scrub_bytes_per_second: Option<u64>,
    /// Time between two rounds.
    pub scrub_pause: Duration,
}

/// Limits and timeouts of C-GET and C-MOVE.
#[derive(Clone, Debug)]
pub struct RetrieveSettings {
    /// Maximum number of instances of one retrieval.
    pub max_instances: usize,
    /// What is decompressed for a peer.
    pub decompression: Decompression,
    /// Time for the answer to a C-STORE-RQ of this node.
    pub response_timeout: Duration,
    /// Time for the file system.
    pub source_timeout: Duration,
}

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether the file must have a last line that marks its end.
    pub require_end: bool,
    /// Absolute path of the index file.
    pub index: PathBuf,
    /// Absolute path of the directory of managed objects.
    pub storage: PathBuf,
    /// AE title of this node.
    pub ae_title: AeTitle,
    /// Who may associate, as given by the setting. See [`Config::admitted`].
    pub access: AccessMode,
    /// Whether received objects are kept.
    pub keep: Keep,
    /// Certificates. `None` disables TLS.
    pub tls: Option<tls::Options>,
    /// Whether there is a port without TLS.
    pub plain: Plain,
    /// Network limits.
    pub network: Network,
    /// Settings of HTTP.
    pub http: Http,
    /// The audit trail. `None`: there is none.
    pub audit: Option<AuditSettings>,
    /// The log of events and its receivers.
    pub events: EventSettings,
    /// Address and port for supervisors. `None`: there is none.
    pub monitoring: Option<SocketAddr>,
    /// Guarantee of a success for objects that are received.
    pub durability: StoreDurability,
    /// Bytes of the arrival journal. 0: there is none.
    pub journal_bytes: u64,
    /// Bytes of the largest object that goes into it.
    pub journal_object_bytes: usize,
    /// Which of two different objects with the same UID is kept.
    pub duplicates: Duplicates,
    /// Whether an object is kept if an archive already has it.
    pub keep_known: KeepKnown,
    /// How queries are answered.
    pub find: qr::Options,
    /// Attributes that the index keeps in addition to its table.
    pub declared: Arc<DeclaredSet>,
    /// How objects are sent.
    pub retrieve: RetrieveSettings,
    /// How objects are verified.
    pub integrity: Integrity,
    /// Whether storage commitment counts files of an archive that is indexed in place.
    pub commit_in_place: bool,
    /// Bytes to leave free in the storage directory.
    pub min_free_bytes: u64,
    /// Bytes of memory for pages of the index.
    pub cache_bytes: u64,
    /// Whether the node checks a sample of the index before it opens its port.
    pub start_check: bool,
    /// Number of files that a scan reads at the same time.
    pub scan_jobs: usize,
    /// Whether a scan reads unchanged files again.
    pub scan_full: bool,
    /// Files that a scan examines.
    pub scan_filter: Filter,
    /// Order in which a scan enters directories.
    pub scan_order: WalkOrder,
    /// Maximum that a scan may read per second.
    pub scan_throttle: Rate,
    /// Time for the file system to answer a scan.
    pub scan_read_timeout: Duration,
    /// Whether a scan drops index entries of missing files.
    pub scan_prune: bool,
    /// Whether it also drops them below directories that look unmounted.
    pub scan_prune_emptied: bool,
    /// Whether a scan reads files whose content lies on tape.
    pub scan_recall: bool,
    /// Watched directories.
    pub watches: Vec<WatchSettings>,
    /// Settings of the worklist.
    pub worklist: WorklistSettings,
    /// Who may associate, and the destinations of C-MOVE.
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
    /// Reads all sources and checks everything.
    ///
    /// # Errors
    /// Fails if the file cannot be read. Fails with all values that cannot be used.
    pub fn load(sources: &Sources, current_directory: &Path) -> Result<Self, Error> {
        Self::load_by(sources, current_directory, read_file)
    }

    /// Works as [`Self::load`], for a running node whose file may be in the middle of being
    /// written. It waits until the file stays unchanged.
    ///
    /// # Errors
    /// Fails as [`Self::load`] does, and with [`Error::Unsettled`].
    pub fn load_again(sources: &Sources, current_directory: &Path) -> Result<Self, Error> {
        Self::load_by(sources, current_directory, read_settled_file)
    }

    fn load_by(
        sources: &Sources,
        current_directory: &Path,
        read: impl FnOnce(&Path) -> Result<String, Error>,
    ) -> Result<Self, Error> {
        let mut layers = Layers::new();
        let mut problems = Vec::new();
        let file = file_to_read(sources, current_directory);
        let text = file.as_deref().map(read).transpose()?;
        if let (Some(path), Some(text)) = (&file, &text) {
            layers.add_file(path, text, &mut problems);
        }
        let strange_variables = layers.add_environment(sources.environment.iter().cloned(), &mut problems);
        for flag in &sources.flags {
            layers.add_flag(&flag.path, flag.value.clone(), flag.flag, &mut problems);
        }
        if let (Some(path), Some(text)) = (&file, &text)
            && layers.value(settings::REQUIRE_END)
            && text.lines().next_back().map(str::trim_end) != Some(END)
        {
            let origin = Origin::File { path: path.clone(), line: text.lines().count().max(1) };
            let message =
                format!("the last line is not `{END}`: the file is truncated, or `require_end` should be false");
            problems.push(SettingProblem { origin, message });
        }
        let mut config = Check { layers: &layers, problems: &mut problems, current_directory }.config();
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        config.layers = layers;
        config.file = file;
        config.strange_variables = strange_variables;
        Ok(config)
    }

    /// Returns all effective settings with their names, in the order of the table, then the peers.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &Setting)> {
        let peers = self.layers.iter().filter(|(path, _)| Key::by_path(path).is_none());
        KEYS.iter().map(|key| (key.path, self.layers.setting(key.path))).chain(peers)
    }

    /// Returns the entries of `[[peer]]`, `[[attribute]]`, `[[watch]]` and `[[events]]` as written in
    /// the file. Each has the name of its table and its line. Its fields are in the order of the shipped
    /// example.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &Origin, impl Iterator<Item = (&str, &Setting)>)> {
        let peers = self.layers.peer_table().unwrap_or_default();
        let (attributes, watches) = (self.layers.attributes(), self.layers.watches());
        let events = self.layers.receivers();
        let tables =
            [(&PEER_TABLE, peers), (&ATTRIBUTE_TABLE, attributes), (&WATCH_TABLE, watches), (&EVENTS_TABLE, events)];
        tables.into_iter().flat_map(|(table, entries)| {
            entries.iter().map(move |entry| (table.name, &entry.origin, entry.in_order(table)))
        })
    }

    /// Whether other machines can reach the node.
    #[must_use]
    pub fn is_reachable_from_outside(&self) -> bool {
        !self.network.bind.ip().is_loopback()
    }
}

fn file_to_read(sources: &Sources, current_directory: &Path) -> Option<PathBuf> {
    let named = sources.file.clone().or_else(|| sources.variable(CONFIG_VARIABLE).map(PathBuf::from));
    match named {
        Some(path) => Some(path),
        None => current_directory.join(DEFAULT_FILE).exists().then(|| PathBuf::from(DEFAULT_FILE)),
    }
}

fn read_file(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(Error::TooLong { path: path.to_owned(), bytes });
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Reads a file once it has stayed unchanged for a while.
fn read_settled_file(path: &Path) -> Result<String, Error> {
    let mut text = read_file(path)?;
    for _ in 0..SETTLING_ATTEMPTS {
        std::thread::sleep(SETTLED_AFTER);
        let again = read_file(path)?;
        if again == text {
            return Ok(text);
        }
        text = again;
    }
    Err(Error::Unsettled { path: path.to_owned() })
}

/// Reads typed values from the layers and collects the problems.
///
/// An invalid value is replaced by a harmless one, so that all problems are reported together. The
/// caller never returns such a configuration.
struct Check<'a> {
    layers: &'a Layers,
    problems: &'a mut Vec<SettingProblem>,
    current_directory: &'a Path,
}

impl<'a> Check<'a> {
    fn config(&mut self) -> Config {
        let declared = attributes::declared(self.layers, self.problems);
        let mut config = Config {
            require_end: self.boolean(settings::REQUIRE_END),
            index: self.index(),
            storage: self.path(settings::STORAGE),
            ae_title: self
                .parsed(settings::AE_TITLE)
                .unwrap_or_else(|| "DCMDEX".parse().expect("the default is an AE title")),
            access: self.choice(settings::ACCESS, [AccessMode::Auto, AccessMode::Table, AccessMode::Anyone]),
            keep: if self.boolean(settings::METADATA_ONLY) { Keep::MetadataOnly } else { Keep::Objects },
            tls: self.tls(),
            plain: if self.boolean(settings::TLS_ONLY) { Plain::Refuse } else { Plain::Listen },
            network: self.network(),
            http: self.http(),
            monitoring: self.monitoring(),
            audit: None,
            events: EventSettings::default(),
            durability: self.choice(settings::STORE_DURABILITY, [StoreDurability::Full, StoreDurability::Os]),
            journal_bytes: self.integer(settings::STORE_JOURNAL_MIB) << 20,
            journal_object_bytes: self.count(settings::STORE_JOURNAL_OBJECT_KIB) << 10,
            duplicates: self
                .choice(settings::STORE_DUPLICATES, [Duplicates::KeepBoth, Duplicates::KeepFirst, Duplicates::Replace]),
            keep_known: self.choice(settings::STORE_KEEP_KNOWN, [KeepKnown::Always, KeepKnown::TrustArchive]),
            find: self.find(&declared),
            declared,
            commit_in_place: self.boolean(settings::COMMITMENT_IN_PLACE),
            retrieve: RetrieveSettings {
                max_instances: self.count(settings::RETRIEVE_MAX_INSTANCES),
                decompression: self.choice(
                    settings::RETRIEVE_DECOMPRESS,
                    [Decompression::All, Decompression::Lossless, Decompression::Never],
                ),
                response_timeout: self.seconds(settings::RETRIEVE_RESPONSE_TIMEOUT_SECONDS),
                source_timeout: self.seconds(settings::RETRIEVE_SOURCE_TIMEOUT_SECONDS),
            },
            integrity: self.integrity(),
            min_free_bytes: self.integer(settings::STORE_MIN_FREE_MIB) << 20,
            cache_bytes: self.integer(settings::DATABASE_CACHE_MIB) << 20,
            start_check: self.boolean(settings::DATABASE_START_CHECK),
            scan_jobs: match self.count(settings::SCAN_JOBS) {
                0 => default_jobs(),
                jobs => jobs,
            },
            scan_full: self.boolean(settings::SCAN_FULL),
            scan_filter: self.filter(),
            scan_order: self.choice(settings::SCAN_ORDER, [WalkOrder::Name, WalkOrder::NewestFirst]),
            scan_throttle: self.parsed(settings::SCAN_THROTTLE).unwrap_or_default(),
            scan_read_timeout: self.seconds(settings::SCAN_READ_TIMEOUT_SECONDS),
            scan_prune: self.boolean(settings::SCAN_PRUNE),
            scan_prune_emptied: self.boolean(settings::SCAN_PRUNE_EMPTIED),
            scan_recall: self.boolean(settings::SCAN_RECALL),
            watches: Vec::new(),
            worklist: self.worklist(),
            peers: peers::peers(self.layers, self.problems),
            log_format: self.parsed(settings::LOG_FORMAT).unwrap_or_default(),
            log_filter: self.text(settings::LOG_FILTER).to_owned(),
            file: None,
            strange_variables: Vec::new(),
            layers: self.layers.clone(),
        };
        if let Some(tls) = &mut config.tls {
            tls.pinned = config.peers.pinned();
        }
        self.consistency(&config);
        config.watches = self.watches(&config.storage);
        config.audit = self.audit();
        config.events = self.events();
        config
    }

    /// Checks what more than one setting decides.
    fn consistency(&mut self, config: &Config) {
        if let Err(error) = telemetry::check_filter(&config.log_filter) {
            self.refuse(settings::LOG_FILTER.path(), error.to_string());
        }
        if config.tls.is_none() {
            let wants_tls = |grant: &Grant| grant.security != Security::Any;
            for title in
                config.peers.table.iter().flatten().filter(|(_, grant)| wants_tls(grant)).map(|(title, _)| title)
            {
                let message = format!("peer `{title}` must use TLS, but this node has no certificate");
                self.refuse(settings::TLS_CERTIFICATE.path(), message);
            }
        }
        self.check_engine(config);
        if real_path(&config.index).starts_with(real_path(&config.storage)) {
            self.refuse(settings::INDEX.path(), "the index must not be inside the storage directory".to_owned());
        }
        let (plain, tls) = (config.network.bind, config.network.tls_bind);
        if config.tls.is_some() && config.plain == Plain::Listen && plain == tls && plain.port() != 0 {
            self.refuse(
                settings::TLS_PORT.path(),
                format!("{} is already the port without TLS (`port`); only `tls.only` allows this", tls.port()),
            );
        }
        self.associations(config);
    }

    /// Checks that the limits of one peer fit the total limit.
    fn associations(&mut self, config: &Config) {
        const ALL: &str = settings::NETWORK_MAX_ASSOCIATIONS.path();
        let all = config.network.max_associations;
        let of_one = settings::NETWORK_MAX_ASSOCIATIONS_PER_PEER.path();
        // A user who lowers the total need not know the limit of one peer. Its default means a
        // share of the total.
        let is_default = self.layers.setting(of_one).origin == Origin::Default;
        if !is_default && config.network.max_associations_per_peer > all {
            self.refuse(of_one, format!("it is more than `{ALL}` ({all})"));
        }
        for entry in self.layers.peer_table().unwrap_or_default() {
            let Some(setting) = entry.fields.get("max_associations") else { continue };
            if setting.value.as_integer().and_then(|count| usize::try_from(count).ok()).is_some_and(|count| count > all)
            {
                let message = format!("`max_associations` of a peer is more than `{ALL}` ({all})");
                self.problems.push(SettingProblem { origin: setting.origin.clone(), message });
            }
        }
    }

    fn network(&mut self) -> Network {
        let text = self.text(settings::BIND);
        let address = match text {
            "localhost" => IpAddr::from(Ipv4Addr::LOCALHOST),
            text => text.parse().unwrap_or_else(|_| {
                let message = format!(
                    "`{text}` is no IP address; name the address and not the interface or host, or 0.0.0.0 for \
                     every interface"
                );
                self.refuse(settings::BIND.path(), message);
                IpAddr::from(Ipv4Addr::LOCALHOST)
            }),
        };
        let port = u16::try_from(self.integer(settings::PORT)).unwrap_or_default();
        let tls_port = u16::try_from(self.integer(settings::TLS_PORT)).unwrap_or_default();
        Network {
            bind: SocketAddr::new(address, port),
            tls_bind: SocketAddr::new(address, tls_port),
            accept_any_called_ae: self.boolean(settings::ACCEPT_ANY_CALLED_AE),
            max_associations: self.count(settings::NETWORK_MAX_ASSOCIATIONS),
            max_associations_per_peer: self.count(settings::NETWORK_MAX_ASSOCIATIONS_PER_PEER),
            max_unassociated_connections: self.count(settings::NETWORK_MAX_UNASSOCIATED_CONNECTIONS),
            artim_timeout: self.seconds(settings::NETWORK_ARTIM_TIMEOUT_SECONDS),
            idle_timeout: self.seconds(settings::NETWORK_IDLE_TIMEOUT_SECONDS),
            read_timeout: self.seconds(settings::NETWORK_READ_TIMEOUT_SECONDS),
            write_timeout: self.seconds(settings::NETWORK_WRITE_TIMEOUT_SECONDS),
            query_time_limit: self.seconds(settings::NETWORK_QUERY_TIME_LIMIT_SECONDS),
            drain_timeout: self.seconds(settings::NETWORK_DRAIN_TIMEOUT_SECONDS),
            preferred_transfer_syntaxes: self.uids(settings::NETWORK_PREFERRED_TRANSFER_SYNTAXES),
        }
    }

    fn integrity(&mut self) -> Integrity {
        let mut hours = |key| Duration::from_secs(self.integer(key) * 3600);
        let verification_holds = hours(settings::INTEGRITY_VERIFY_AGAIN_HOURS);
        let scrub_pause = hours(settings::INTEGRITY_SCRUB_PAUSE_HOURS);
        let rate = self.integer(settings::INTEGRITY_SCRUB_MIB_PER_SECOND) << 20;
        Integrity { verification_holds, scrub_bytes_per_second: (rate > 0).then_some(rate), scrub_pause }
    }

    fn tls(&mut self) -> Option<tls::Options> {
        const FILES: [KeyOf<Text>; 3] = [settings::TLS_CERTIFICATE, settings::TLS_KEY, settings::TLS_AUTHORITIES];
        let client_certificates = self
            .choice(settings::TLS_CLIENT_CERTIFICATES, [ClientCertificates::Required, ClientCertificates::Optional]);
        let (given, missing): (Vec<_>, Vec<_>) = FILES.into_iter().partition(|key| !self.text(*key).is_empty());
        match given[..] {
            [] => {
                if self.boolean(settings::TLS_ONLY) {
                    self.refuse(settings::TLS_ONLY.path(), "TLS needs `tls.certificate`".to_owned());
                }
                None
            }
            [_, _, _] => Some(tls::Options {
                certificate: self.path(settings::TLS_CERTIFICATE),
                key: self.path(settings::TLS_KEY),
                authorities: self.path(settings::TLS_AUTHORITIES),
                client_certificates,
                pinned: Vec::new(),
            }),
            [one, ..] => {
                let missing: Vec<_> = missing.iter().map(|key| key.path()).collect();
                self.refuse(one.path(), format!("it also needs `{}`", missing.join("` and `")));
                None
            }
        }
    }

    fn find(&mut self, declared: &Arc<DeclaredSet>) -> qr::Options {
        let assumed_character_set = self.text(settings::FIND_ASSUMED_CHARACTER_SET).to_owned();
        if !CharacterSets::new(&assumed_character_set).recognised() {
            self.refuse(
                settings::FIND_ASSUMED_CHARACTER_SET.path(),
                format!("`{assumed_character_set}` is not a character set of PS3.3"),
            );
        }
        let limit = self.integer(settings::FIND_LIMIT);
        let retrieve_ae_title = match self.text(settings::FIND_RETRIEVE_AE_TITLE) {
            "-" => String::new(),
            "" => self.text(settings::AE_TITLE).trim().to_owned(),
            _ => self
                .parsed::<AeTitle>(settings::FIND_RETRIEVE_AE_TITLE)
                .map_or_else(String::new, |title| title.to_string()),
        };
        // Our own title promises only objects that are kept here.
        let retrievable = if retrieve_ae_title == self.text(settings::AE_TITLE).trim() {
            Retrievable::KeptHere
        } else {
            Retrievable::All
        };
        qr::Options {
            hierarchy: self.choice(settings::FIND_HIERARCHY, [Hierarchy::Lenient, Hierarchy::Strict]),
            unknown_required: self
                .choice(settings::FIND_UNKNOWN_REQUIRED, [UnknownRequired::NoMatch, UnknownRequired::Match]),
            names: self.choice(settings::FIND_NAMES, [NameMatching::LeadingComponents, NameMatching::Exact]),
            pending: self
                .choice(settings::FIND_PENDING_STATUS, [PendingStatus::AsSupported, PendingStatus::AlwaysFf00]),
            limit: (limit > 0).then_some(limit),
            assumed_character_set,
            retrieve_ae_title,
            retrievable,
            declared: Arc::clone(declared),
        }
    }

    fn filter(&mut self) -> Filter {
        let mut checked = [Vec::new(), Vec::new()];
        for (globs, key) in checked.iter_mut().zip([settings::SCAN_INCLUDE, settings::SCAN_EXCLUDE]) {
            for value in self.layers.value(key) {
                match value.as_str().map(|glob| Filter::new(&[glob], &[]).map(|_| glob.to_owned())) {
                    Some(Ok(glob)) => globs.push(glob),
                    Some(Err(error)) => self.refuse(key.path(), error.to_string()),
                    None => self.refuse(key.path(), format!("{value} is not a text")),
                }
            }
        }
        Filter::new(&checked[0], &checked[1]).unwrap_or_default()
    }

    fn refuse(&mut self, path: &str, message: String) {
        let origin = self.layers.setting(path).origin.clone();
        self.problems.push(SettingProblem { origin, message: format!("`{path}`: {message}") });
    }

    fn text(&self, key: KeyOf<Text>) -> &'a str {
        self.layers.value(key)
    }

    fn boolean(&self, key: KeyOf<Boolean>) -> bool {
        self.layers.value(key)
    }

    /// Reads a number within the limits of its row.
    fn integer(&mut self, key: KeyOf<Integer>) -> u64 {
        let ValueKind::Integer(from, to) = key.kind() else { return 0 };
        let value = self.layers.value(key);
        match u64::try_from(value) {
            Ok(value) if (from..=to).contains(&value) => value,
            _ => {
                self.refuse(key.path(), format!("{value} is not from {from} to {to}"));
                from
            }
        }
    }

    fn count(&mut self, key: KeyOf<Integer>) -> usize {
        usize::try_from(self.integer(key)).unwrap_or(usize::MAX)
    }

    fn seconds(&mut self, key: KeyOf<Integer>) -> Duration {
        Duration::from_secs(self.integer(key))
    }

    fn parsed<T>(&mut self, key: KeyOf<Text>) -> Option<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let text = self.text(key);
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(key.path(), format!("`{text}`: {error}"));
                None
            }
        }
    }

    /// Reads a choice. `values` are in the order of the names in the row.
    fn choice<T: Copy, const N: usize>(&mut self, key: KeyOf<Choice<N>>, values: [T; N]) -> T {
        let ValueKind::Choice(names) = key.kind() else { return values[0] };
        let text = self.layers.value(key);
        if let Some((_, value)) = names.iter().zip(values).find(|(name, _)| **name == text) {
            return value;
        }
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        self.refuse(key.path(), format!("`{text}` is not one of {}", names.join(", ")));
        values[0]
    }

    fn uids(&mut self, key: KeyOf<Texts>) -> Vec<String> {
        let mut uids = Vec::new();
        for value in self.layers.value(key) {
            match value.as_str() {
                Some(uid) if crate::model::uid::is_valid_uid(uid) => uids.push(uid.to_owned()),
                _ => self.refuse(key.path(), format!("{value} is not a UID")),
            }
        }
        uids
    }

    /// Reads a path. In a file it is relative to the file, so that a service finds it from any
    /// current directory.
    fn path(&mut self, key: KeyOf<Text>) -> PathBuf {
        let setting = self.layers.setting(key.path());
        let text = self.text(key);
        if text.is_empty() {
            self.refuse(key.path(), "it is empty".to_owned());
            return self.current_directory.to_owned();
        }
        self.absolute(setting)
    }

    /// Returns the path that a setting names, as an absolute one.
    fn absolute(&self, setting: &Setting) -> PathBuf {
        let base = match &setting.origin {
            Origin::File { path, .. } => self.current_directory.join(path.parent().unwrap_or(Path::new(""))),
            Origin::Default | Origin::Environment(_) | Origin::Flag(_) => self.current_directory.to_owned(),
        };
        base.join(setting.value.as_str().unwrap_or_default())
    }
}

/// Resolves `.`, `..` and links as far as the path exists. In the rest only `..` matters, and it
/// leads back.
fn real_path(path: &Path) -> PathBuf {
    let mut real = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                real.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => real.push(component),
        }
        // Each component is resolved in turn, because `..` means the parent of a link's target.
        if let Ok(target) = real.canonicalize() {
            real = target;
        }
    }
    real
}

/// Returns the default number of readers. Readers wait for the disk or the file server more than
/// for a processor. The best measured numbers are between 16 and 64.
fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(16, |cores| (cores.get() * 4).max(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads a settings file with this text.
    pub(super) fn load_text(text: &str) -> Result<Config, Vec<SettingProblem>> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(DEFAULT_FILE);
        std::fs::write(&file, text).unwrap();
        Config::load(&Sources { file: Some(file), ..Sources::default() }, Path::new("/nowhere")).map_err(|error| {
            let Error::Invalid(problems) = error else { panic!("{error}") };
            problems
        })
    }

    fn with_flags(flags: &[(&str, Value)]) -> Result<Config, Error> {
        let flags = flags
            .iter()
            .map(|(path, value)| Flag { path: (*path).to_owned(), value: value.clone(), flag: "--flag" })
            .collect();
        Config::load(&Sources { flags, ..Sources::default() }, Path::new("/nowhere"))
    }

    fn problems(flags: &[(&str, Value)]) -> Vec<String> {
        match with_flags(flags) {
            Err(Error::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_work_with_no_file() {
        let config = with_flags(&[]).unwrap();
        assert_eq!(config.index, Path::new("/nowhere/dcmdex-data/index.db"));
        assert_eq!(config.storage, Path::new("/nowhere/dcmdex-data/objects"));
        assert_eq!(config.ae_title.as_str(), "DCMDEX");
        assert_eq!(config.network.bind.to_string(), "127.0.0.1:11112");
        assert!(!config.is_reachable_from_outside());
        assert!(config.scan_jobs >= 16);
        assert!(config.settings().all(|(_, setting)| setting.origin == Origin::Default));
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let told = problems(&[
            ("port", Value::Integer(70_000)),
            ("bind", "everywhere".into()),
            ("ae_title", "MUCH_TOO_LONG_A_TITLE".into()),
            ("store.durability", "some".into()),
            ("log.filter", "dcmdex=loud".into()),
            ("peers.ARCHIVE", "pacs".into()),
            ("find.assumed_character_set", "latin".into()),
            ("find.names", "fuzzy".into()),
        ]);
        assert_eq!(told.len(), 8, "{told:#?}");
        assert!(told.iter().all(|line| line.starts_with("option --flag: ")), "{told:#?}");
        assert!(told.iter().any(|line| line.contains("`some` is not one of `full`, `os`")), "{told:#?}");
    }

    #[test]
    fn an_index_inside_the_storage_directory_is_refused() {
        let told = problems(&[("storage", "data".into()), ("index", "data/index.db".into())]);
        assert_eq!(told, ["option --flag: `index`: the index must not be inside the storage directory"]);
    }

    #[test]
    fn an_index_inside_the_storage_directory_is_found_by_any_name() {
        let directory = tempfile::tempdir().unwrap();
        let inside = |path: &str| directory.path().join(path).to_str().unwrap().to_owned();
        std::fs::create_dir_all(inside("storage/below")).unwrap();
        std::os::unix::fs::symlink("storage/below", inside("link")).unwrap();
        for (index, storage, refused) in [
            ("storage/index.db", "storage", true),
            ("other/../storage/index.db", "storage", true),
            ("storage/not/yet/../index.db", "./storage/", true),
            ("link/index.db", "storage", true),
            ("link/../index.db", "storage", true),
            ("storage/below/index.db", "link", true),
            ("not/yet/index.db", "other/../not", true),
            ("link/../../index.db", "storage", false),
            ("storage/../index.db", "storage", false),
            ("storage/index.db", "link", false),
            ("storage-of-index/index.db", "storage", false),
        ] {
            let config = with_flags(&[("storage", inside(storage).into()), ("index", inside(index).into())]);
            assert_eq!(config.is_err(), refused, "{index} {storage}: {config:?}");
        }
    }

    #[test]
    fn one_port_cannot_be_with_and_without_tls() {
        let files = [("tls.certificate", "c".into()), ("tls.key", "k".into()), ("tls.authorities", "a".into())];
        let with = |more: &[(&str, Value)]| with_flags(&[&files[..], more].concat());
        let both = [("port", Value::Integer(104)), ("tls.port", Value::Integer(104))];
        let Err(Error::Invalid(told)) = with(&both) else { panic!("not refused") };
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["option --flag: `tls.port`: 104 is already the port without TLS (`port`); only `tls.only` allows this"]
        );
        // The node listens on one of them only.
        with(&[&both[..], &[("tls.only", true.into())]].concat()).unwrap();
        with_flags(&both).unwrap();
        // Each takes a free port.
        with(&[("port", Value::Integer(0)), ("tls.port", Value::Integer(0))]).unwrap();
    }

    #[test]
    fn one_peer_may_not_have_more_associations_than_there_are() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dcmdex.toml");
        let told = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let told = Config::load(&Sources { file: Some(file.clone()), ..Sources::default() }, Path::new("/nowhere"));
            told.err()
                .map(|error| error.to_string().replace(directory.path().to_str().unwrap(), ""))
                .unwrap_or_default()
        };
        assert_eq!(
            told("[network]\nmax_associations = 10\nmax_associations_per_peer = 11\n"),
            "/dcmdex.toml:3: `network.max_associations_per_peer`: it is more than `network.max_associations` (10)"
        );
        assert_eq!(
            told("[[peer]]\nae_title = \"A\"\nmax_associations = 11\n[network]\nmax_associations = 10\n"),
            "/dcmdex.toml:3: `max_associations` of a peer is more than `network.max_associations` (10)"
        );
        // An equal limit is allowed, and so is an unchanged default.
        assert_eq!(told("[network]\nmax_associations = 10\nmax_associations_per_peer = 10\n"), "");
        assert_eq!(told("[network]\nmax_associations = 10\n"), "");
    }

    #[test]
    fn paths_in_a_file_are_relative_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dcmdex.toml");
        std::fs::write(&file, "index = \"x.db\"\n").unwrap();
        let sources = Sources { file: Some(file), ..Sources::default() };
        let config = Config::load(&sources, Path::new("/nowhere")).unwrap();
        assert_eq!(config.index, directory.path().join("x.db"));
        assert_eq!(config.storage, Path::new("/nowhere/dcmdex-data/objects"));
    }

    #[test]
    fn a_named_file_that_is_not_there_is_an_error() {
        let sources = Sources { file: Some("/nowhere/dcmdex.toml".into()), ..Sources::default() };
        assert!(matches!(Config::load(&sources, Path::new("/nowhere")), Err(Error::Read { .. })));
    }
}
