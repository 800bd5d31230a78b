//! Builds one checked [`Config`] from file, environment and flags.
//!
//! A command line option overrides a variable, a variable overrides the file, and the file
//! overrides the default. Each effective value has its origin. `keys` is the table of all settings,
//! and the only place that names defaults.

mod access;
mod attributes;
mod entries;
mod example;
mod http;
mod keys;
mod layers;
mod options;
mod peers;
mod setting;

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use toml::Value;

pub use access::{AccessHistory, AccessMode, Admitted};
pub use example::example;
pub use http::{Http, HttpAccess};
pub use keys::{CONFIG_VARIABLE, KEYS, Key};
pub use setting::{Origin, Setting, SettingProblem};

use crate::access::peers::{Grant, Peers, Security};
use crate::encoding::charset::CharacterSets;
use crate::model::ae_title::AeTitle;
use crate::model::declared::DeclaredSet;
use crate::model::matching::{NameMatching, UnknownRequired};
use crate::qr::{self, Hierarchy, PendingStatus, Retrievable};
use crate::scanner::{Filter, Rate, WalkOrder};
use crate::scp::Plain;
use crate::telemetry::{self, LogFormat};
use crate::ul::tls::{self, ClientCertificates};
use entries::{ATTRIBUTE_TABLE, PEER_TABLE};
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

/// Guarantee of a C-STORE success.
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

/// Limits and timeouts of the network.
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
    /// Time that the index may take for the next answer to a query.
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
    /// Guarantee of a C-STORE success.
    pub durability: StoreDurability,
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
            && layers.setting("require_end").value.as_bool().unwrap_or(true)
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

    /// Returns the entries of `[[peer]]` and `[[attribute]]` as written in the file: the name of
    /// the table, the line, and the fields in the order of the shipped example.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &Origin, impl Iterator<Item = (&str, &Setting)>)> {
        let peers = self.layers.peer_table().unwrap_or_default();
        [(&PEER_TABLE, peers), (&ATTRIBUTE_TABLE, self.layers.attributes())].into_iter().flat_map(|(table, entries)| {
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

impl Check<'_> {
    fn config(&mut self) -> Config {
        let declared = attributes::declared(self.layers, self.problems);
        let mut config = Config {
            require_end: self.boolean("require_end"),
            index: self.path("index"),
            storage: self.path("storage"),
            ae_title: self.parsed("ae_title").unwrap_or_else(|| "DCMDEX".parse().expect("the default is an AE title")),
            access: self.choice(
                "access",
                &[("auto", AccessMode::Auto), ("table", AccessMode::Table), ("anyone", AccessMode::Anyone)],
            ),
            keep: if self.boolean("metadata_only") { Keep::MetadataOnly } else { Keep::Objects },
            tls: self.tls(),
            plain: if self.boolean("tls.only") { Plain::Refuse } else { Plain::Listen },
            network: self.network(),
            http: self.http(),
            durability: self
                .choice("store.durability", &[("full", StoreDurability::Full), ("os", StoreDurability::Os)]),
            duplicates: self.choice(
                "store.duplicates",
                &[
                    ("keep-both", Duplicates::KeepBoth),
                    ("keep-first", Duplicates::KeepFirst),
                    ("replace", Duplicates::Replace),
                ],
            ),
            keep_known: self.choice(
                "store.keep_known",
                &[("always", KeepKnown::Always), ("trust-archive", KeepKnown::TrustArchive)],
            ),
            find: self.find(&declared),
            declared,
            commit_in_place: self.boolean("commitment.in_place"),
            retrieve: RetrieveSettings {
                max_instances: self.count("retrieve.max_instances", 1, 100_000_000),
                response_timeout: self.seconds("retrieve.response_timeout_seconds"),
                source_timeout: self.seconds("retrieve.source_timeout_seconds"),
            },
            integrity: self.integrity(),
            min_free_bytes: self.integer("store.min_free_mib", 0, 1 << 30) << 20,
            cache_bytes: self.integer("database.cache_mib", 1, 1 << 20) << 20,
            start_check: self.boolean("database.start_check"),
            scan_jobs: match self.count("scan.jobs", 0, 1024) {
                0 => default_jobs(),
                jobs => jobs,
            },
            scan_full: self.boolean("scan.full"),
            scan_filter: self.filter(),
            scan_order: self
                .choice("scan.order", &[("name", WalkOrder::Name), ("newest-first", WalkOrder::NewestFirst)]),
            scan_throttle: self.parsed("scan.throttle").unwrap_or_default(),
            scan_read_timeout: self.seconds("scan.read_timeout_seconds"),
            scan_prune: self.boolean("scan.prune"),
            scan_prune_emptied: self.boolean("scan.prune_emptied"),
            peers: peers::peers(self.layers, self.problems),
            log_format: self.parsed("log.format").unwrap_or_default(),
            log_filter: self.text("log.filter").to_owned(),
            file: None,
            strange_variables: Vec::new(),
            layers: self.layers.clone(),
        };
        if let Err(error) = telemetry::check_filter(&config.log_filter) {
            self.refuse("log.filter", error.to_string());
        }
        if let Some(tls) = &mut config.tls {
            tls.pinned = config.peers.pinned();
        }
        if config.tls.is_none() {
            let wants_tls = |grant: &Grant| grant.security != Security::Any;
            for title in
                config.peers.table.iter().flatten().filter(|(_, grant)| wants_tls(grant)).map(|(title, _)| title)
            {
                let message = format!("peer `{title}` must use TLS, but this node has no certificate");
                self.refuse("tls.certificate", message);
            }
        }
        if real_path(&config.index).starts_with(real_path(&config.storage)) {
            self.refuse("index", "the index must not be inside the storage directory".to_owned());
        }
        let (plain, tls) = (config.network.bind, config.network.tls_bind);
        if config.tls.is_some() && config.plain == Plain::Listen && plain == tls && plain.port() != 0 {
            self.refuse(
                "tls.port",
                format!("{} is already the port without TLS (`port`); only `tls.only` allows this", tls.port()),
            );
        }
        self.associations(&config);
        config
    }

    /// Checks that the limits of one peer fit the total limit.
    fn associations(&mut self, config: &Config) {
        const ALL: &str = "network.max_associations";
        let all = config.network.max_associations;
        let of_one = "network.max_associations_per_peer";
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
        let text = self.text("bind").to_owned();
        let address = match text.as_str() {
            "localhost" => IpAddr::from(Ipv4Addr::LOCALHOST),
            text => text.parse().unwrap_or_else(|_| {
                let message = format!(
                    "`{text}` is no IP address; name the address and not the interface or host, or 0.0.0.0 for \
                     every interface"
                );
                self.refuse("bind", message);
                IpAddr::from(Ipv4Addr::LOCALHOST)
            }),
        };
        let port = u16::try_from(self.integer("port", 0, u64::from(u16::MAX))).unwrap_or_default();
        let tls_port = u16::try_from(self.integer("tls.port", 0, u64::from(u16::MAX))).unwrap_or_default();
        Network {
            bind: SocketAddr::new(address, port),
            tls_bind: SocketAddr::new(address, tls_port),
            accept_any_called_ae: self.boolean("accept_any_called_ae"),
            max_associations: self.count("network.max_associations", 1, 100_000),
            max_associations_per_peer: self.count("network.max_associations_per_peer", 1, 100_000),
            max_unassociated_connections: self.count("network.max_unassociated_connections", 1, 1_000_000),
            artim_timeout: self.seconds("network.artim_timeout_seconds"),
            idle_timeout: self.seconds("network.idle_timeout_seconds"),
            read_timeout: self.seconds("network.read_timeout_seconds"),
            write_timeout: self.seconds("network.write_timeout_seconds"),
            query_time_limit: self.seconds("network.query_time_limit_seconds"),
            drain_timeout: self.seconds("network.drain_timeout_seconds"),
            preferred_transfer_syntaxes: self.uids("network.preferred_transfer_syntaxes"),
        }
    }

    fn integrity(&mut self) -> Integrity {
        // A hundred years are as good as no limit.
        let mut hours = |path| Duration::from_secs(self.integer(path, 0, 876_600) * 3600);
        let (verification_holds, scrub_pause) =
            (hours("integrity.verify_again_hours"), hours("integrity.scrub_pause_hours"));
        let rate = self.integer("integrity.scrub_mib_per_second", 0, 1 << 20) << 20;
        Integrity { verification_holds, scrub_bytes_per_second: (rate > 0).then_some(rate), scrub_pause }
    }

    fn tls(&mut self) -> Option<tls::Options> {
        const FILES: [&str; 3] = ["tls.certificate", "tls.key", "tls.authorities"];
        let client_certificates = self.choice(
            "tls.client_certificates",
            &[("required", ClientCertificates::Required), ("optional", ClientCertificates::Optional)],
        );
        let given: Vec<_> = FILES.into_iter().filter(|path| !self.text(path).is_empty()).collect();
        match given[..] {
            [] => {
                if self.boolean("tls.only") {
                    self.refuse("tls.only", "TLS needs `tls.certificate`".to_owned());
                }
                None
            }
            [_, _, _] => Some(tls::Options {
                certificate: self.path("tls.certificate"),
                key: self.path("tls.key"),
                authorities: self.path("tls.authorities"),
                client_certificates,
                pinned: Vec::new(),
            }),
            [one, ..] => {
                let missing: Vec<_> = FILES.into_iter().filter(|path| !given.contains(path)).collect();
                self.refuse(one, format!("it also needs `{}`", missing.join("` and `")));
                None
            }
        }
    }

    fn find(&mut self, declared: &Arc<DeclaredSet>) -> qr::Options {
        let assumed_character_set = self.text("find.assumed_character_set").to_owned();
        if !CharacterSets::new(&assumed_character_set).recognised() {
            self.refuse(
                "find.assumed_character_set",
                format!("`{assumed_character_set}` is not a character set of PS3.3"),
            );
        }
        let limit = self.integer("find.limit", 0, i64::MAX.unsigned_abs());
        let retrieve_ae_title = match self.text("find.retrieve_ae_title") {
            "-" => String::new(),
            "" => self.text("ae_title").trim().to_owned(),
            _ => self.parsed::<AeTitle>("find.retrieve_ae_title").map_or_else(String::new, |title| title.to_string()),
        };
        // Our own title promises only objects that are kept here.
        let retrievable =
            if retrieve_ae_title == self.text("ae_title").trim() { Retrievable::KeptHere } else { Retrievable::All };
        qr::Options {
            hierarchy: self.choice("find.hierarchy", &[("lenient", Hierarchy::Lenient), ("strict", Hierarchy::Strict)]),
            unknown_required: self.choice(
                "find.unknown_required",
                &[("no-match", UnknownRequired::NoMatch), ("match", UnknownRequired::Match)],
            ),
            names: self
                .choice("find.names", &[("leading", NameMatching::LeadingComponents), ("exact", NameMatching::Exact)]),
            pending: self.choice(
                "find.pending_status",
                &[("as-supported", PendingStatus::AsSupported), ("ff00", PendingStatus::AlwaysFf00)],
            ),
            limit: (limit > 0).then_some(limit),
            assumed_character_set,
            retrieve_ae_title,
            retrievable,
            declared: Arc::clone(declared),
        }
    }

    fn filter(&mut self) -> Filter {
        let mut checked = [Vec::new(), Vec::new()];
        for (globs, path) in checked.iter_mut().zip(["scan.include", "scan.exclude"]) {
            for value in self.layers.setting(path).value.as_array().cloned().unwrap_or_default() {
                let text = value.as_str().map(str::to_owned);
                match text.map(|glob| Filter::new(&[&glob], &[]).map(|_| glob)) {
                    Some(Ok(glob)) => globs.push(glob),
                    Some(Err(error)) => self.refuse(path, error.to_string()),
                    None => self.refuse(path, format!("{value} is not a text")),
                }
            }
        }
        Filter::new(&checked[0], &checked[1]).unwrap_or_default()
    }

    fn refuse(&mut self, path: &str, message: String) {
        let origin = self.layers.setting(path).origin.clone();
        self.problems.push(SettingProblem { origin, message: format!("`{path}`: {message}") });
    }

    fn text(&self, path: &str) -> &str {
        self.layers.setting(path).value.as_str().expect("the layers only take values of the default's type")
    }

    fn boolean(&self, path: &str) -> bool {
        self.layers.setting(path).value.as_bool().expect("the layers only take values of the default's type")
    }

    fn integer(&mut self, path: &str, from: u64, to: u64) -> u64 {
        let value = self.layers.setting(path).value.as_integer();
        let value = value.expect("the layers only take values of the default's type");
        match u64::try_from(value) {
            Ok(value) if (from..=to).contains(&value) => value,
            _ => {
                self.refuse(path, format!("{value} is not from {from} to {to}"));
                from
            }
        }
    }

    fn count(&mut self, path: &str, from: u64, to: u64) -> usize {
        usize::try_from(self.integer(path, from, to)).unwrap_or(usize::MAX)
    }

    fn seconds(&mut self, path: &str) -> Duration {
        // One day: a longer timeout is as good as none, and a timeout cannot be disabled.
        Duration::from_secs(self.integer(path, 1, 86_400))
    }

    fn parsed<T>(&mut self, path: &str) -> Option<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        match self.text(path).parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let message = format!("`{}`: {error}", self.text(path));
                self.refuse(path, message);
                None
            }
        }
    }

    fn choice<T: Copy>(&mut self, path: &str, choices: &[(&str, T)]) -> T {
        let text = self.text(path);
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return *value;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
        let message = format!("`{text}` is not one of {}", names.join(", "));
        self.refuse(path, message);
        choices[0].1
    }

    fn uids(&mut self, path: &str) -> Vec<String> {
        let values = self.layers.setting(path).value.as_array().cloned().unwrap_or_default();
        let mut uids = Vec::new();
        for value in values {
            match value.as_str() {
                Some(uid) if crate::model::uid::is_valid_uid(uid) => uids.push(uid.to_owned()),
                _ => self.refuse(path, format!("{value} is not a UID")),
            }
        }
        uids
    }

    /// Reads a path. In a file it is relative to the file, so that a service finds it from any
    /// current directory.
    fn path(&mut self, path: &str) -> PathBuf {
        let setting = self.layers.setting(path);
        let text = self.text(path);
        if text.is_empty() {
            self.refuse(path, "it is empty".to_owned());
            return self.current_directory.to_owned();
        }
        let base = match &setting.origin {
            Origin::File { path, .. } => self.current_directory.join(path.parent().unwrap_or(Path::new(""))),
            Origin::Default | Origin::Environment(_) | Origin::Flag(_) => self.current_directory.to_owned(),
        };
        base.join(text)
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
