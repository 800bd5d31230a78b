//! The one table of settings: name, default, unit, and what too low and too high cost. The shipped example, the checks and
//! `dcmdex config show` derive from it.

use toml::Value;

/// The variable that names the file.
pub const CONFIG_VARIABLE: &str = "DCMDEX_CONFIG";

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Dotted name in `dcmdex.toml`.
    pub path: &'static str,
    /// The default, as written in TOML; its type is the type of the setting.
    pub default: &'static str,
    /// What it is, in one or two sentences.
    pub help: &'static str,
    /// The unit, or the values to choose from.
    pub unit: &'static str,
    /// What a value that is too low (or the first choice) costs; empty where there is no such thing.
    pub too_low: &'static str,
    /// What a value that is too high (or the last choice) costs; empty where there is no such thing.
    pub too_high: &'static str,
}

impl Key {
    /// The setting with this name.
    #[must_use]
    pub fn by_path(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// Its default as a value.
    #[must_use]
    pub fn default_value(&self) -> Value {
        parse_value(self.default).expect("the defaults of the table are valid TOML; a test reads them all")
    }

    /// The environment variable that sets it: `network.max_associations` is `DCMDEX_NETWORK__MAX_ASSOCIATIONS`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.path.to_ascii_uppercase().replace('.', "__"))
    }
}

/// How the names of our environment variables begin.
pub(super) const VARIABLE_PREFIX: &str = "DCMDEX_";

/// The table whose keys are AE titles rather than names of this table.
pub(super) const PEERS: &str = "peers";

/// Reads one TOML value.
pub(super) fn parse_value(text: &str) -> Option<Value> {
    let mut table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    table.remove("value")
}

macro_rules! keys {
    ($($path:literal = $default:literal { $help:literal, unit: $unit:literal
        $(, low: $low:literal)? $(, high: $high:literal)? $(,)? })+) => {
        /// All settings, in the order of the shipped example.
        pub static KEYS: &[Key] = &[$(Key {
            path: $path,
            default: $default,
            help: $help,
            unit: $unit,
            too_low: concat!($($low)?),
            too_high: concat!($($high)?),
        }),+];
    };
}

keys! {
    "require_end" = "false" {
        "Whether the last line of this file has to be \"# end\". A file that was cut off lacks it, and is refused at start and by \
         SIGHUP.",
        unit: "true or false",
        low: "false: a file that was cut off may let in a new peer without what binds it",
        high: "true: every file needs that line",
    }
    "index" = "\"dcmdex-data/index.db\"" {
        "The index: one SQLite file (and its -wal, -shm and -turn beside it). It is made when it is not there.",
        unit: "path; in this file relative to the file; in flags, variables and the default to the current directory",
    }
    "storage" = "\"dcmdex-data/objects\"" {
        "Directory for the objects that arrive by C-STORE. Nothing else may write there.",
        unit: "path, as for index",
    }
    "ae_title" = "\"DCMDEX\"" {
        "Our Application Entity title. Peers have to call us by it.",
        unit: "1 to 16 characters",
    }
    "bind" = "\"127.0.0.1\"" {
        "Address to listen on. 0.0.0.0 (or ::) is every interface; then it has to be said who may associate (access).",
        unit: "IP address",
    }
    "access" = "\"auto\"" {
        "Who may associate. The node says it at start, and SIGHUP never opens it: that takes a restart.",
        unit: "\"auto\" (the table of peers, where there is one; without it anyone on this machine, and no start on an address \
               that others reach), \"table\" or \"anyone\"",
        low: "table: each node that may associate needs a [[peer]]",
        high: "anyone: whoever reaches the port can store, query and retrieve",
    }
    "port" = "11112" {
        "TCP port to listen on. 104, the classic one, needs privileges; 0 takes a free one and logs which.",
        unit: "0 to 65535",
    }
    "metadata_only" = "false" {
        "Index what arrives by C-STORE and let its pixel data go: no object is kept.",
        unit: "true or false",
        low: "false: needs disk space for every object",
        high: "true: what was received cannot be retrieved from here, ever",
    }
    "accept_any_called_ae" = "false" {
        "Accept associations that call us by another AE title than ours.",
        unit: "true or false",
        low: "false: a peer with a wrong entry is rejected (called AE title not recognized)",
        high: "true: a peer that wanted another node does not notice",
    }
    "tls.certificate" = "\"\"" {
        "Our certificate for DICOM over TLS, followed by those between it and its authority. Empty: no TLS.",
        unit: "PEM file; path as for index",
    }
    "tls.key" = "\"\"" {
        "The private key of our certificate.",
        unit: "PEM file, not encrypted; path as for index",
    }
    "tls.authorities" = "\"\"" {
        "The authorities from which peers may have their certificates, when they call and when C-MOVE calls them.",
        unit: "PEM file; path as for index",
    }
    "tls.client_certificates" = "\"required\"" {
        "Whether peers that call with TLS have to show a certificate.",
        unit: "\"required\" or \"optional\"",
        low: "required: as PS3.15 B.12 has it; each peer needs one",
        high: "optional: who calls is known by its address and AE title only, save for peers with `certificates`",
    }
    "tls.port" = "2762" {
        "TCP port for TLS, on the address of `bind`; 0 takes a free one and logs which.",
        unit: "0 to 65535",
    }
    "tls.only" = "false" {
        "Whether `port` stays closed, so that nobody calls without TLS.",
        unit: "true or false",
        low: "false: what is sent to `port` can be read on its way",
        high: "true: peers without TLS are shut out",
    }
    "network.max_associations" = "2000" {
        "Associations at one time; one more is rejected as transient.",
        unit: "associations",
        low: "modalities have to try again",
        high: "memory (some 20 KB each, up to 100 KB while it sends, and 64 MiB in all) and open files (3 each)",
    }
    "network.max_associations_per_peer" = "128" {
        "Associations of one peer at one time; one more is rejected as transient. A peer is an AE title of the table of peers or, \
         without such a table, an address. It never gets more than are left over for others then.",
        unit: "associations",
        low: "busy workstations have to try again",
        high: "memory and threads that one peer keeps busy",
    }
    "network.max_unassociated_connections" = "2048" {
        "Connections at one time that have not asked for an association.",
        unit: "connections",
        low: "port scanners keep real peers waiting",
        high: "open files",
    }
    "network.artim_timeout_seconds" = "10" {
        "Time for a connection to send its A-ASSOCIATE-RQ, and to close after our last PDU (PS3.8 9.1.5).",
        unit: "seconds",
        low: "peers on slow lines fail",
        high: "silent connections hold on to their place",
    }
    "network.idle_timeout_seconds" = "60" {
        "Time between two messages of an association.",
        unit: "seconds",
        low: "senders that fetch from tape are aborted",
        high: "dead peers hold on to an association",
    }
    "network.read_timeout_seconds" = "30" {
        "Time for a PDU to be complete once it has begun, and for the next one of the same message.",
        unit: "seconds",
        low: "slow lines fail",
        high: "a peer that sends a byte now and then holds on to an association",
    }
    "network.write_timeout_seconds" = "30" {
        "Time for the peer to take what we send.",
        unit: "seconds",
        low: "viewers that read slowly are cut off",
        high: "dead peers hold on to a query",
    }
    "network.query_time_limit_seconds" = "30" {
        "Time that the index may work on a C-FIND, without what the peer takes; then the query ends (out of resources).",
        unit: "seconds",
        low: "searches for a part of a name in a huge archive fail",
        high: "one bad query keeps a processor busy",
    }
    "network.drain_timeout_seconds" = "10" {
        "After the order to stop: time to finish and commit the messages in flight.",
        unit: "seconds",
        low: "senders have to send their current instance again",
        high: "stopping takes long; the service manager may kill us first",
    }
    "network.preferred_transfer_syntaxes" = "[]" {
        "Transfer syntaxes preferred for storage, best first; what is none of them is accepted as well. Empty: the first \
         that the sender proposes, which is what it holds.",
        unit: "list of UIDs",
    }
    "store.durability" = "\"full\"" {
        "What a C-STORE success promises.",
        unit: "\"full\" or \"os\"",
        low: "full: waits for the disk, so a single sender is slower; it survives a power cut",
        high: "os: a power cut loses what the operating system had not written yet, though it was acknowledged",
    }
    "store.duplicates" = "\"keep-both\"" {
        "What to do with an instance whose SOP Instance UID is known with other content. It is recorded as a conflict. \
         keep-both: the new object is kept beside the first, which answers queries and retrievals.",
        unit: "\"keep-both\", \"keep-first\" or \"replace\"",
        low: "keep-first: the new object is refused (0111), and a corrected object that kept its UID is not taken",
        high: "replace: the first object is removed, so whoever can store can overwrite",
    }
    "store.keep_known" = "\"always\"" {
        "Whether a received object is kept that a scan has found in an archive before, with the same content.",
        unit: "\"always\" or \"trust-archive\"",
        low: "trust-archive: no object of our own; when the archive loses the file, a sender that was told Success has lost it",
        high: "always: disk space for what the archive has as well",
    }
    "store.min_free_mib" = "256" {
        "Space to leave free on the disk of the storage directory, at most a twentieth of it. Below it objects are refused as \
         out of resources, and queries go on being answered.",
        unit: "MiB",
        low: "the disk is full for the index as well",
        high: "room that is not used",
    }
    "find.hierarchy" = "\"lenient\"" {
        "What becomes of a query without negotiated relational queries that leaves out the unique keys of the levels above, \
         or has keys of other levels (PS3.4 C.4.1.2.1).",
        unit: "\"lenient\" or \"strict\"",
        low: "lenient: it is answered as if relational queries had been negotiated; viewers and scripts send such queries",
        high: "strict: it is answered with A900",
    }
    "find.names" = "\"leading\"" {
        "Whether a person name without wild cards also finds those with more components: SMITH finds SMITH^JOHN.",
        unit: "\"leading\" or \"exact\"",
        low: "leading: more answers than the letter of PS3.4 C.2.2.2.1",
        high: "exact: clients that send the family name alone find nothing",
    }
    "find.unknown_required" = "\"no-match\"" {
        "Whether a required key matches what has no value for it.",
        unit: "\"no-match\" or \"match\"",
        low: "no-match: not as PS3.4 C.2.2.1.2 has it; as every deployed node does it",
        high: "match: a search by accession number also answers every study without one",
    }
    "find.pending_status" = "\"as-supported\"" {
        "How a pending response says that an optional key is not supported.",
        unit: "\"as-supported\" or \"ff00\"",
        low: "as-supported: FF01, as PS3.4 table C.4-1 has it; some clients take it for a failure",
        high: "ff00: the client is not told",
    }
    "find.limit" = "0" {
        "The most answers to one query by network; one more ends it with A700. 0 is no limit: answers are not gathered, so \
         that many of them take no memory.",
        unit: "answers",
        low: "users see a part of what they asked for",
        high: "a careless query keeps an association and a reader busy",
    }
    "find.assumed_character_set" = "\"\"" {
        "The Specific Character Set of queries that name none and are not ASCII, as in \"ISO_IR 100\". Empty: the default \
         repertoire.",
        unit: "a defined term of PS3.3 C.12.1.1.2",
    }
    "find.retrieve_ae_title" = "\"\"" {
        "Retrieve AE Title (0008,0054) of answers: who can be asked for the objects. Empty: we, for answers of which every \
         instance is kept here. Another node's title stands in every answer. `-`: nobody.",
        unit: "AE title",
    }
    "retrieve.max_instances" = "200000" {
        "Instances of one C-GET or C-MOVE; more are refused (A701).",
        unit: "instances",
        low: "a patient with many studies cannot be retrieved at once",
        high: "memory (some 70 bytes each)",
    }
    "retrieve.response_timeout_seconds" = "60" {
        "Time for a peer to answer a C-STORE-RQ of ours once it has all of it.",
        unit: "seconds",
        low: "peers that are slow to store are given up",
        high: "a peer that hangs holds on to a retrieval",
    }
    "retrieve.source_timeout_seconds" = "60" {
        "Time for the file system to give the next bytes of an object that is being sent.",
        unit: "seconds",
        low: "retrievals from tape or a sleeping disk fail",
        high: "a file server that hangs holds on to a retrieval",
    }
    "commitment.in_place" = "true" {
        "Whether storage commitment takes responsibility for files of an archive that is indexed in place, as for objects of our own storage.",
        unit: "true or false",
        low: "false: an object that the archive had already, so that it was not stored again, is answered as missing",
        high: "true: the promise is as good as the archive, which somebody else may change",
    }
    "integrity.verify_again_hours" = "24" {
        "How long an object of our own that was held against its checksum counts as sound, while its file is untouched. After \
         that the next commitment or retrieval reads it again.",
        unit: "hours",
        low: "commitments of large studies read the disk again",
        high: "a byte that changes without a trace is found later",
    }
    "integrity.scrub_mib_per_second" = "0" {
        "How much `serve` reads in a second to hold all objects of our own against their checksums, one after the other, in the \
         background. 0: it does not.",
        unit: "MiB each second",
        low: "a round takes long (10 TB at 10 MiB/s: 12 days), and damage is found late",
        high: "retrievals wait for the same disk",
    }
    "integrity.scrub_pause_hours" = "168" {
        "Time between the end of a round of that and the next one.",
        unit: "hours",
        low: "the disk is read all the time",
        high: "damage is found late",
    }
    "database.cache_mib" = "16" {
        "Memory in which the writer keeps pages of the index.",
        unit: "MiB",
        low: "first loads of large archives slow down, since UIDs lie scattered over the index",
        high: "memory",
    }
    "database.start_check" = "true" {
        "Whether `serve` looks at a sample of the index before it opens its port, for two seconds at most. It does not start on an \
         index that disagrees with itself.",
        unit: "true or false",
        low: "false: a damaged index may give wrong answers",
        high: "true: a restart takes up to two seconds longer",
    }
    "scan.jobs" = "0" {
        "Files that a scan reads at one time; 0 is four for each processor, and at least 16.",
        unit: "threads",
        low: "disks and file servers wait for us",
        high: "seeks on a single disk; memory (a few hundred kilobytes each)",
    }
    "scan.full" = "false" {
        "Read every file again, also those whose size and time are as the index knows them; what is not as the index has it is \
         corrected.",
        unit: "true or false",
        low: "false: a file that was changed with its size and time kept goes unnoticed",
        high: "true: every scan takes as long as the first one",
    }
    "scan.include" = "[]" {
        "Globs of the files to look at. Empty: all. `*` and `?` do not stand for a slash, `**` does; one without a slash is held \
         against names, one with a slash against the path below the path scanned; one that fits a directory goes for all \
         that is in it.",
        unit: "list of globs",
    }
    "scan.exclude" = "[]" {
        "Globs of files and directories to pass over, as for scan.include, and stronger. They are counted as skipped, and what the \
         index knows of them stays.",
        unit: "list of globs",
    }
    "scan.order" = "\"name\"" {
        "In which order the directories of a directory are entered. Of a copied instance the place that is found first counts \
         as its first.",
        unit: "\"name\" or \"newest-first\"",
        low: "name: recent studies come when their turn comes",
        high: "newest-first: one more question to the file system for each directory",
    }
    "scan.throttle" = "\"\"" {
        "The most that a scan reads in a second: files opened as in \"500/s\", bytes as in \"20MB/s\", or both with a comma \
         between. Empty: no limit.",
        unit: "files or bytes each second",
        low: "the scan takes long",
        high: "others who need the same storage wait",
    }
    "scan.read_timeout_seconds" = "30" {
        "How long the file system may take for an answer about one file or directory. What takes longer is named, counts as failed \
         (timed-out), and is tried again by the next scan; the others go on.",
        unit: "seconds",
        low: "files on storage that is slow to wake up (tape, sleeping disks) are given up",
        high: "a scan waits long for a server that is gone",
    }
    "scan.prune" = "false" {
        "Drop files from the index that are gone from directories which a scan has seen to their end.",
        unit: "true or false",
        low: "false: the index keeps naming files that are gone",
        high: "true: a file that is missing for a moment has to be read again",
    }
    "scan.prune_emptied" = "false" {
        "With scan.prune: also drop what is gone below directories that are empty, or in which a file system is no longer mounted, \
         or of whose entries the index knows none. A path to scan may then be gone itself.",
        unit: "true or false",
        low: "false: a directory that was emptied for good has to be named once",
        high: "true: everything on a disk that is not mounted just now is dropped",
    }
    "http.enabled" = "false" {
        "Whether there is a port for HTTP: DICOMweb, and what an operator looks at. The option --http-port switches it on.",
        unit: "true or false",
    }
    "http.port" = "8080" {
        "TCP port for HTTP; 0 takes a free one and logs which.",
        unit: "0 to 65535",
    }
    "http.bind" = "\"127.0.0.1\"" {
        "Address to listen on for HTTP. On an address that others reach it has to be said who may ask (http.users, http.access).",
        unit: "IP address",
    }
    "http.tls" = "false" {
        "Whether the HTTP port speaks TLS only, with the certificate of [tls]. Clients need no certificate.",
        unit: "true or false",
        low: "false: passwords, tokens and images can be read on their way",
        high: "true: browsers have to know the authority of the certificate",
    }
    "http.users" = "\"\"" {
        "The file of users: a line for each, with name, rights and secret, as `dcmdex user` writes it. SIGHUP reads it again. \
         Empty: there are none.",
        unit: "path, as for index",
    }
    "http.access" = "\"auto\"" {
        "Who may ask over HTTP.",
        unit: "\"auto\" (the users of the file, where there is one; without it anyone on this machine, and no start on an \
               address that others reach), \"users\" or \"anyone\"",
        low: "users: each client needs a name and a password, or a token",
        high: "anyone: whoever reaches the port can search and retrieve; storing is for this machine only",
    }
    "http.public_url" = "\"\"" {
        "The URL under which clients reach the node, where a proxy stands before it. Empty: what each request was sent to.",
        unit: "URL without a path of its own, as in \"https://pacs.example.org\"",
    }
    "http.hosts" = "[]" {
        "Names by which clients may call the node, besides IP addresses, localhost and the host of http.public_url. A request \
         for another name is refused: a stranger's page may have pointed that name here.",
        unit: "list of host names",
    }
    "http.cors_origins" = "[]" {
        "Origins whose pages may use the node from a browser, as in \"https://viewer.example.org\". \"*\" is every one, without \
         credentials.",
        unit: "list of origins",
    }
    "http.trusted_proxies" = "[]" {
        "Proxies whose X-Forwarded-Proto, X-Forwarded-Host and user header are believed.",
        unit: "list of IP addresses",
    }
    "http.user_header" = "\"\"" {
        "The header in which a trusted proxy says who the user is, as in \"remote-user\". The file of users has a line for each, \
         with `proxy` as the secret; the name `*` is everyone. Empty: none.",
        unit: "name of a header",
    }
    "http.ohif" = "\"\"" {
        "The folder of an OHIF build, `dist` of the npm package @ohif/app, to be served below /ohif/. Empty: none.",
        unit: "path, as for index",
    }
    "http.max_connections" = "512" {
        "HTTP connections at one time; one more is closed.",
        unit: "connections",
        low: "clients have to try again",
        high: "open files, and some 100 KB of memory each",
    }
    "http.max_connections_per_address" = "64" {
        "HTTP connections of one address at one time; one more is closed.",
        unit: "connections",
        low: "a proxy with many users is cut off",
        high: "one client takes the places of all",
    }
    "http.max_results" = "0" {
        "The most results of one search; a Warning says that there are more. 0 is no limit: results are not gathered, so that \
         many of them take no memory.",
        unit: "results",
        low: "clients that do not ask for the next page miss results",
        high: "a careless search keeps a connection busy",
    }
    "log.format" = "\"text\"" {
        "Form of the lines on standard error.",
        unit: "\"text\" or \"json\"",
    }
    "log.filter" = "\"\"" {
        "Which lines: a level, or a level for each part as in \"info,dcmdex::scp=debug\". Empty: info for `serve`, warn for \
         the other commands. -v and -q go before it.",
        unit: "error, warn, info, debug or trace",
        low: "error: nobody sees why a peer is rejected",
        high: "debug: UIDs stand in it, and a line for each request that fails; trace: that, and what libraries say",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_default_is_a_value_and_each_name_stands_once() {
        for (at, key) in KEYS.iter().enumerate() {
            let _ = key.default_value();
            assert!(KEYS[..at].iter().all(|other| other.path != key.path), "{} stands twice", key.path);
            assert!(key.path.matches('.').count() <= 1, "{}: one level of tables is enough", key.path);
        }
    }

    #[test]
    fn variables_nest_by_two_underscores() {
        assert_eq!(Key::by_path("port").unwrap().variable(), "DCMDEX_PORT");
        assert_eq!(Key::by_path("scan.jobs").unwrap().variable(), "DCMDEX_SCAN__JOBS");
    }
}
