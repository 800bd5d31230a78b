//! Reads typed values from the layers, and collects the problems.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::access::AccessMode;
use super::key::{Boolean, Choice, Integer, KeyOf, Text, Texts, ValueKind};
use super::keys::settings;
use super::layers::Layers;
use super::setting::{Origin, Setting, SettingProblem};
use super::{Config, Integrity, JournalSettings, Keep, attributes, peers};
use crate::access::peers::{Grant, Security};
use crate::access::policy::CalledAeTitle;
use crate::db::{DuplicatePolicy, Durability, KnownPolicy, ReceivePolicy};
use crate::encoding::charset::CharacterSets;
use crate::model::ae_title::AeTitle;
use crate::model::declared::DeclaredSet;
use crate::model::matching::{NameMatching, UnknownRequired};
use crate::qr::{self, Hierarchy, PendingStatus, Retrievable};
use crate::scanner::{self, BeforeListing, Filter, Jobs, TapeFiles, Vanished, WalkOrder};
use crate::scp::{self, Decompression, FilesInPlace, Plain, RetrieveOptions};
use crate::telemetry;
use crate::ul::tls::{self, ClientCertificates};

/// Reads typed values from the layers and collects the problems.
///
/// An invalid value is replaced by a harmless one, so that all problems are reported together. The
/// caller never returns such a configuration.
pub(super) struct Check<'a> {
    pub(super) layers: &'a Layers,
    pub(super) problems: &'a mut Vec<SettingProblem>,
    pub(super) current_directory: &'a Path,
}

impl<'a> Check<'a> {
    pub(super) fn config(&mut self) -> Config {
        let declared = attributes::declared(self.layers, self.problems);
        let find = self.find(&declared);
        let index = self.index();
        let storage = self.path(settings::STORAGE);
        let node = self.node();
        let min_free_bytes = self.integer(settings::STORE_MIN_FREE_MIB) << 20;
        let commits_in_place = self.boolean(settings::COMMITMENT_IN_PLACE);
        let mut config = Config {
            require_end: self.boolean(settings::REQUIRE_END),
            access: self.choice(
                settings::ACCESS,
                [("auto", AccessMode::Auto), ("table", AccessMode::Table), ("anyone", AccessMode::Anyone)],
            ),
            keep: if self.boolean(settings::METADATA_ONLY) { Keep::MetadataOnly } else { Keep::Objects },
            tls: self.tls(),
            http: self.http(&node, &find, min_free_bytes),
            node,
            monitoring: self.monitoring(),
            audit: None,
            events: Default::default(),
            durability: self.choice(settings::STORE_DURABILITY, [("full", Durability::Full), ("os", Durability::Os)]),
            journal: self.journal(),
            receive: self.receive(),
            retrieve: self.retrieve(&find),
            find,
            files_in_place: if commits_in_place { FilesInPlace::Count } else { FilesInPlace::DoNotCount },
            integrity: self.integrity(),
            min_free_bytes,
            cache_bytes: self.integer(settings::DATABASE_CACHE_MIB) << 20,
            start_check: self.boolean(settings::DATABASE_START_CHECK),
            scan: self.scan((&index, &storage), &declared),
            scan_lease: self.seconds(settings::SCAN_LEASE_SECONDS),
            watches: Vec::new(),
            worklist: self.worklist(),
            peers: peers::peers(self.layers, self.problems),
            log_format: self.parsed(settings::LOG_FORMAT).unwrap_or_default(),
            log_filter: self.text(settings::LOG_FILTER).to_owned(),
            index,
            roots: Vec::new(),
            storage,
            declared,
            file: None,
            strange_variables: Vec::new(),
            layers: self.layers.clone(),
        };
        if let Some(tls) = &mut config.tls {
            tls.pinned = config.peers.pinned();
        }
        self.consistency(&config);
        config.watches = self.watches(&config.storage);
        self.roots(&mut config);
        config.audit = self.audit();
        config.events = self.events();
        config
    }

    /// Checks what more than one setting decides.
    pub(super) fn consistency(&mut self, config: &Config) {
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
        if real_path(&config.index).starts_with(real_path(&config.storage)) {
            self.refuse(settings::INDEX.path(), "the index must not be inside the storage directory".to_owned());
        }
        let (plain, tls) = (config.node.bind, config.node.tls_bind);
        if config.tls.is_some() && config.node.plain == Plain::Listen && plain == tls && plain.port() != 0 {
            self.refuse(
                settings::TLS_PORT.path(),
                format!("{} is already the port without TLS (`port`); only `tls.only` allows this", tls.port()),
            );
        }
        self.associations(config);
    }

    /// Checks that the limits of one peer fit the total limit.
    pub(super) fn associations(&mut self, config: &Config) {
        const ALL: &str = settings::NETWORK_MAX_ASSOCIATIONS.path();
        let all = config.node.max_associations;
        let of_one = settings::NETWORK_MAX_ASSOCIATIONS_PER_PEER.path();
        // A user who lowers the total need not know the limit of one peer. Its default means a
        // share of the total.
        let is_default = self.layers.setting(of_one).origin == Origin::Default;
        if !is_default && config.node.max_associations_per_peer > all {
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

    pub(super) fn node(&mut self) -> scp::Options {
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
        let takes_any_title = self.boolean(settings::ACCEPT_ANY_CALLED_AE);
        scp::Options {
            bind: SocketAddr::new(address, port),
            tls_bind: SocketAddr::new(address, tls_port),
            plain: if self.boolean(settings::TLS_ONLY) { Plain::Refuse } else { Plain::Listen },
            ae_title: self
                .parsed(settings::AE_TITLE)
                .unwrap_or_else(|| "DCMDEX".parse().expect("the default is an AE title")),
            called_ae_title: if takes_any_title { CalledAeTitle::Any } else { CalledAeTitle::OwnOnly },
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

    pub(super) fn receive(&mut self) -> ReceivePolicy {
        ReceivePolicy {
            duplicates: self.choice(
                settings::STORE_DUPLICATES,
                [
                    ("keep-both", DuplicatePolicy::KeepBoth),
                    ("keep-first", DuplicatePolicy::KeepFirst),
                    ("replace", DuplicatePolicy::Replace),
                ],
            ),
            known: self.choice(
                settings::STORE_KEEP_KNOWN,
                [("always", KnownPolicy::KeepOwn), ("trust-archive", KnownPolicy::TrustArchive)],
            ),
        }
    }

    pub(super) fn retrieve(&mut self, find: &qr::Options) -> RetrieveOptions {
        RetrieveOptions {
            hierarchy: find.hierarchy,
            assumed_character_set: find.assumed_character_set.clone(),
            max_instances: self.count(settings::RETRIEVE_MAX_INSTANCES),
            decompression: self.choice(
                settings::RETRIEVE_DECOMPRESS,
                [("all", Decompression::All), ("lossless", Decompression::Lossless), ("never", Decompression::Never)],
            ),
            response_timeout: self.seconds(settings::RETRIEVE_RESPONSE_TIMEOUT_SECONDS),
            source_timeout: self.seconds(settings::RETRIEVE_SOURCE_TIMEOUT_SECONDS),
            verification_holds: self.hours(settings::INTEGRITY_VERIFY_AGAIN_HOURS),
        }
    }

    pub(super) fn journal(&mut self) -> JournalSettings {
        let size = settings::STORE_JOURNAL_MIB;
        JournalSettings {
            bytes: self.integer(size) << 20,
            object_bytes: self.count(settings::STORE_JOURNAL_OBJECT_KIB) << 10,
            is_asked_for: self.layers.setting(size.path()).origin != Origin::Default,
        }
    }

    pub(super) fn integrity(&mut self) -> Integrity {
        let rate = self.integer(settings::INTEGRITY_SCRUB_MIB_PER_SECOND) << 20;
        let scrub_pause = self.hours(settings::INTEGRITY_SCRUB_PAUSE_HOURS);
        Integrity { scrub_bytes_per_second: (rate > 0).then_some(rate), scrub_pause }
    }

    pub(super) fn scan(&mut self, (index, storage): (&Path, &Path), declared: &Arc<DeclaredSet>) -> scanner::Options {
        scanner::Options {
            jobs: match self.count(settings::SCAN_JOBS) {
                0 => Jobs::growing_from(default_jobs()),
                jobs => Jobs::fixed(jobs),
            },
            full: self.boolean(settings::SCAN_FULL),
            read_before: Arc::default(),
            filter: self.filter(),
            order: self
                .choice(settings::SCAN_ORDER, [("name", WalkOrder::Name), ("newest-first", WalkOrder::NewestFirst)]),
            throttle: self.parsed(settings::SCAN_THROTTLE).unwrap_or_default(),
            read_timeout: self.seconds(settings::SCAN_READ_TIMEOUT_SECONDS),
            settling: None,
            tape_files: if self.boolean(settings::SCAN_RECALL) { TapeFiles::Recall } else { TapeFiles::Leave },
            before_listing: BeforeListing::default(),
            vanished: match (self.boolean(settings::SCAN_PRUNE), self.boolean(settings::SCAN_PRUNE_EMPTIED)) {
                (false, _) => Vanished::Keep,
                (true, false) => Vanished::Prune,
                (true, true) => Vanished::PruneEmptied,
            },
            index: index.to_owned(),
            storage: storage.to_owned(),
            declared: Arc::clone(declared),
        }
    }

    pub(super) fn tls(&mut self) -> Option<tls::Options> {
        const FILES: [KeyOf<Text>; 3] = [settings::TLS_CERTIFICATE, settings::TLS_KEY, settings::TLS_AUTHORITIES];
        let client_certificates = self.choice(
            settings::TLS_CLIENT_CERTIFICATES,
            [("required", ClientCertificates::Required), ("optional", ClientCertificates::Optional)],
        );
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

    pub(super) fn find(&mut self, declared: &Arc<DeclaredSet>) -> qr::Options {
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
            hierarchy: self
                .choice(settings::FIND_HIERARCHY, [("lenient", Hierarchy::Lenient), ("strict", Hierarchy::Strict)]),
            unknown_required: self.choice(
                settings::FIND_UNKNOWN_REQUIRED,
                [("no-match", UnknownRequired::NoMatch), ("match", UnknownRequired::Match)],
            ),
            names: self.choice(
                settings::FIND_NAMES,
                [("leading", NameMatching::LeadingComponents), ("exact", NameMatching::Exact)],
            ),
            pending: self.choice(
                settings::FIND_PENDING_STATUS,
                [("as-supported", PendingStatus::AsSupported), ("ff00", PendingStatus::AlwaysFf00)],
            ),
            limit: (limit > 0).then_some(limit),
            assumed_character_set,
            retrieve_ae_title,
            retrievable,
            declared: Arc::clone(declared),
        }
    }

    pub(super) fn filter(&mut self) -> Filter {
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

    pub(super) fn refuse(&mut self, path: &str, message: String) {
        let origin = self.layers.setting(path).origin.clone();
        self.problems.push(SettingProblem { origin, message: format!("`{path}`: {message}") });
    }

    pub(super) fn text(&self, key: KeyOf<Text>) -> &'a str {
        self.layers.value(key)
    }

    pub(super) fn boolean(&self, key: KeyOf<Boolean>) -> bool {
        self.layers.value(key)
    }

    /// Reads a number within the limits of its row.
    pub(super) fn integer(&mut self, key: KeyOf<Integer>) -> u64 {
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

    pub(super) fn count(&mut self, key: KeyOf<Integer>) -> usize {
        usize::try_from(self.integer(key)).unwrap_or(usize::MAX)
    }

    pub(super) fn seconds(&mut self, key: KeyOf<Integer>) -> Duration {
        Duration::from_secs(self.integer(key))
    }

    pub(super) fn hours(&mut self, key: KeyOf<Integer>) -> Duration {
        Duration::from_secs(self.integer(key) * 3600)
    }

    pub(super) fn parsed<T>(&mut self, key: KeyOf<Text>) -> Option<T>
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

    /// Reads a choice. `meanings` has the meaning of each name in the row of the setting.
    pub(super) fn choice<T: Copy, const N: usize>(&mut self, key: KeyOf<Choice<N>>, meanings: [(&str, T); N]) -> T {
        let first = meanings[0].1;
        let ValueKind::Choice(names) = key.kind() else { return first };
        debug_assert!(meanings.iter().all(|(name, _)| names.contains(name)), "{} has other names", key.path());
        let text = self.layers.value(key);
        if let Some((_, meaning)) = meanings.iter().find(|(name, _)| *name == text) {
            return *meaning;
        }
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        self.refuse(key.path(), format!("`{text}` is not one of {}", names.join(", ")));
        first
    }

    pub(super) fn uids(&mut self, key: KeyOf<Texts>) -> Vec<String> {
        let mut uids = Vec::new();
        for value in self.layers.value(key) {
            match value.as_str() {
                Some(uid) if crate::model::uid::is_valid_uid(uid) => uids.push(uid.to_owned()),
                _ => self.refuse(key.path(), format!("{value} is not a UID")),
            }
        }
        uids
    }

    /// `None` if the setting is empty.
    pub(super) fn optional_text(&self, key: KeyOf<Text>) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// Reads an absolute path, as [`Self::path`] does. `None` if the setting is empty.
    pub(super) fn optional_path(&mut self, key: KeyOf<Text>) -> Option<PathBuf> {
        (!self.text(key).is_empty()).then(|| self.path(key))
    }

    /// Reads a path. In a file it is relative to the file, so that a service finds it from any
    /// current directory.
    pub(super) fn path(&mut self, key: KeyOf<Text>) -> PathBuf {
        let setting = self.layers.setting(key.path());
        let text = self.text(key);
        if text.is_empty() {
            self.refuse(key.path(), "it is empty".to_owned());
            return self.current_directory.to_owned();
        }
        self.absolute(setting)
    }

    /// Returns the path that a setting names, as an absolute one.
    pub(super) fn absolute(&self, setting: &Setting) -> PathBuf {
        let base = match &setting.origin {
            Origin::File { path, .. } => self.current_directory.join(path.parent().unwrap_or(Path::new(""))),
            Origin::Default | Origin::Environment(_) | Origin::Flag(_) => self.current_directory.to_owned(),
        };
        base.join(setting.value.as_str().unwrap_or_default())
    }
}

/// Resolves `.`, `..` and links as far as the path exists. In the rest only `..` matters, and it
/// leads back.
pub(super) fn real_path(path: &Path) -> PathBuf {
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

/// Returns the number of readers with which a scan begins by default. Readers wait for the disk or
/// the file server more than for a processor. The best measured numbers are between 16 and 64.
fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(16, |cores| (cores.get() * 4).max(16))
}
