//! The table of settings: name, default, unit, and the cost of a value that is too low or too high.
//!
//! The shipped example, the checks and `dcmdex config show` use this table.

use toml::Value;

/// Environment variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "DCMDEX_CONFIG";

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Dotted name in `dcmdex.toml`.
    pub path: &'static str,
    /// Default value, as written in TOML. Its type is the type of the setting.
    pub default: &'static str,
    /// Meaning, in a few sentences.
    pub help: &'static str,
    /// Unit, or the possible values.
    pub unit: &'static str,
    /// Cost of a value that is too low, or of the first choice. It is empty if there is none.
    pub too_low: &'static str,
    /// Cost of a value that is too high, or of the last choice. It is empty if there is none.
    pub too_high: &'static str,
}

impl Key {
    /// Returns the setting with this name.
    #[must_use]
    pub fn by_path(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// Returns the default as a value.
    #[must_use]
    pub fn default_value(&self) -> Value {
        parse_value(self.default).expect("the defaults of the table are valid TOML; a test reads them all")
    }

    /// Returns the environment variable that sets it. For `network.max_associations` it is
    /// `DCMDEX_NETWORK__MAX_ASSOCIATIONS`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.path.to_ascii_uppercase().replace('.', "__"))
    }
}

/// Prefix of our environment variables.
pub(super) const VARIABLE_PREFIX: &str = "DCMDEX_";

/// The table whose keys are AE titles instead of names of settings.
pub(super) const PEERS: &str = "peers";

/// Parses one TOML value.
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
        "Whether the last line of this file must be \"# end\". A truncated file lacks this line. \
         It is then refused at start and by SIGHUP.",
        unit: "true or false",
        low: "false: a truncated file may let in a new peer without its restrictions",
        high: "true: every file needs that line",
    }
    "index" = "\"dcmdex-data/index.db\"" {
        "The index: one SQLite file, with its -wal, -shm and -turn files beside it. It is created \
         if it does not exist.",
        unit: "path; in this file relative to the file; in flags, variables and the default \
               relative to the current directory",
    }
    "storage" = "\"dcmdex-data/objects\"" {
        "Directory for the objects that arrive by C-STORE. No other program may write there.",
        unit: "path, as for index",
    }
    "ae_title" = "\"DCMDEX\"" {
        "Application Entity title of this node. Peers must call it by this title.",
        unit: "1 to 16 characters",
    }
    "bind" = "\"127.0.0.1\"" {
        "Address to listen on. 0.0.0.0 (or ::) is every interface. In that case `access` or a \
         table of peers must say who may associate.",
        unit: "IP address",
    }
    "access" = "\"auto\"" {
        "Who may associate. The node logs it at start. SIGHUP never opens access; that needs a \
         restart.",
        unit: "\"auto\" (the table of peers, if there is one; without it, anyone on this machine, \
               and the node does not start on an address that others can reach), \"table\" or \
               \"anyone\"",
        low: "table: each peer that may associate needs a [[peer]] entry",
        high: "anyone: everyone who reaches the port can store, query and retrieve",
    }
    "port" = "11112" {
        "TCP port to listen on. Port 104, the classic one, needs privileges. 0 takes a free port \
         and logs its number.",
        unit: "0 to 65535",
    }
    "metadata_only" = "false" {
        "Index the objects that arrive by C-STORE, but keep no object. Their pixel data are \
         discarded.",
        unit: "true or false",
        low: "false: every object needs disk space",
        high: "true: received objects can never be retrieved from this node",
    }
    "accept_any_called_ae" = "false" {
        "Accept associations that call this node by another AE title.",
        unit: "true or false",
        low: "false: a peer with a wrong AE title for this node is rejected (called AE title not \
              recognized)",
        high: "true: a peer that wanted another node does not notice its mistake",
    }
    "tls.certificate" = "\"\"" {
        "Certificate of this node for DICOM over TLS, followed by the intermediate certificates up \
         to its authority. Empty means no TLS.",
        unit: "PEM file; path as for index",
    }
    "tls.key" = "\"\"" {
        "Private key of the certificate.",
        unit: "PEM file, not encrypted; path as for index",
    }
    "tls.authorities" = "\"\"" {
        "Authorities that may issue the certificates of peers. They apply to peers that call, and \
         to destinations of C-MOVE.",
        unit: "PEM file; path as for index",
    }
    "tls.client_certificates" = "\"required\"" {
        "Whether peers that call with TLS must present a certificate.",
        unit: "\"required\" or \"optional\"",
        low: "required: each peer needs a certificate, as PS3.15 B.12 demands",
        high: "optional: a caller is known only by its address and AE title, except peers with \
               `certificates`",
    }
    "tls.port" = "2762" {
        "TCP port for TLS, on the address of `bind`. 0 takes a free port and logs its number.",
        unit: "0 to 65535",
    }
    "tls.only" = "false" {
        "Whether `port` stays closed, so that nobody can call without TLS.",
        unit: "true or false",
        low: "false: others can read the traffic of `port` on its way",
        high: "true: peers without TLS cannot associate",
    }
    "network.max_associations" = "2000" {
        "Maximum number of associations at the same time. One more is rejected as transient.",
        unit: "associations",
        low: "modalities have to try again",
        high: "the node needs more memory and open files: some 20 KB (up to 100 KB while it sends, \
               and 64 MiB in all) and 3 files for each",
    }
    "network.max_associations_per_peer" = "128" {
        "Maximum number of associations of one peer at the same time. One more is rejected as \
         transient. A peer is an AE title of the table of peers or, without such a table, an \
         address. A peer never gets more associations than are then left for others.",
        unit: "associations",
        low: "busy workstations have to try again",
        high: "one peer can keep more memory and threads busy",
    }
    "network.max_unassociated_connections" = "2048" {
        "Maximum number of connections that have not yet requested an association.",
        unit: "connections",
        low: "port scanners keep real peers waiting",
        high: "the node needs more open files",
    }
    "network.artim_timeout_seconds" = "10" {
        "Time for a connection to send its A-ASSOCIATE-RQ, and to close after our last PDU (PS3.8 \
         9.1.5).",
        unit: "seconds",
        low: "peers on slow lines fail",
        high: "silent connections occupy places",
    }
    "network.idle_timeout_seconds" = "60" {
        "Time between two messages of an association.",
        unit: "seconds",
        low: "senders that fetch from tape are aborted",
        high: "dead peers occupy associations",
    }
    "network.read_timeout_seconds" = "30" {
        "Time for a PDU to arrive completely once it has begun, and for the next PDU of the same \
         message.",
        unit: "seconds",
        low: "peers on slow lines fail",
        high: "a peer that sends a byte now and then occupies an association",
    }
    "network.write_timeout_seconds" = "30" {
        "Time for the peer to accept what the node sends.",
        unit: "seconds",
        low: "viewers that read slowly are cut off",
        high: "dead peers occupy queries",
    }
    "network.query_time_limit_seconds" = "30" {
        "Time that the index may work on a C-FIND. The time in which the peer takes the answers \
         does not count. After that the query ends (out of resources).",
        unit: "seconds",
        low: "searches for part of a name in a huge archive fail",
        high: "one bad query keeps a processor busy",
    }
    "network.drain_timeout_seconds" = "10" {
        "Time to finish and commit messages in flight after the node is told to stop.",
        unit: "seconds",
        low: "senders have to send their current instance again",
        high: "stopping takes long, and the service manager may kill the node first",
    }
    "network.preferred_transfer_syntaxes" = "[]" {
        "Preferred transfer syntaxes for storage, best first. Others are accepted as well. If the \
         list is empty, the node takes the first one that the sender proposes, which is the one \
         that the sender holds.",
        unit: "list of UIDs",
    }
    "store.durability" = "\"full\"" {
        "What a C-STORE success promises.",
        unit: "\"full\" or \"os\"",
        low: "full: the object survives a power cut, but a single sender waits for the disk",
        high: "os: a power cut loses acknowledged objects that the operating system had not yet \
               written",
    }
    "store.duplicates" = "\"keep-both\"" {
        "What to do if a SOP Instance UID arrives again with other content. It is always recorded \
         as a conflict. keep-both: the new object is kept beside the first one, which answers \
         queries and retrievals.",
        unit: "\"keep-both\", \"keep-first\" or \"replace\"",
        low: "keep-first: the new object is refused (0111), even a corrected object that kept its \
              UID",
        high: "replace: the first object is removed, so everyone who can store can overwrite \
               objects",
    }
    "store.keep_known" = "\"always\"" {
        "Whether to keep a received object if a scan has already found the same content in an \
         archive.",
        unit: "\"always\" or \"trust-archive\"",
        low: "trust-archive: the node keeps no copy, so if the archive loses the file, a sender \
              that was told Success has lost its object",
        high: "always: objects of the archive take disk space a second time",
    }
    "store.min_free_mib" = "256" {
        "Space to leave free on the disk of the storage directory, at most a twentieth of the \
         disk. Below it, objects are refused as out of resources. Queries are still answered.",
        unit: "MiB",
        low: "the disk can become full for the index as well",
        high: "disk space stays unused",
    }
    "find.hierarchy" = "\"lenient\"" {
        "How to answer a query that did not negotiate relational queries and is not hierarchical. \
         Such a query omits unique keys of the levels above, or has keys of other levels (PS3.4 \
         C.4.1.2.1).",
        unit: "\"lenient\" or \"strict\"",
        low: "lenient: it is answered as a relational query, because viewers and scripts send such \
              queries",
        high: "strict: it is answered with A900",
    }
    "find.names" = "\"leading\"" {
        "Whether a person name without wild cards also finds names with more components: SMITH \
         finds SMITH^JOHN.",
        unit: "\"leading\" or \"exact\"",
        low: "leading: queries return more answers than PS3.4 C.2.2.2.1 literally says",
        high: "exact: clients that send only the family name find nothing",
    }
    "find.unknown_required" = "\"no-match\"" {
        "Whether a required key matches an entity that has no value for it.",
        unit: "\"no-match\" or \"match\"",
        low: "no-match: this differs from PS3.4 C.2.2.1.2, but every deployed node does it",
        high: "match: a search by accession number also returns every study without one",
    }
    "find.pending_status" = "\"as-supported\"" {
        "How a pending response reports that an optional key is not supported.",
        unit: "\"as-supported\" or \"ff00\"",
        low: "as-supported: it has the status FF01, as in PS3.4 table C.4-1, which some clients \
              take for a failure",
        high: "ff00: the client is not told",
    }
    "find.limit" = "0" {
        "Maximum number of answers to one C-FIND query. One more ends the query with A700. 0 means \
         no limit. Answers are not collected in memory, so many answers need no memory.",
        unit: "answers",
        low: "users see only part of the answers",
        high: "a careless query keeps an association and a reader busy",
    }
    "find.assumed_character_set" = "\"\"" {
        "Specific Character Set of queries that name none and are not ASCII, for example \"ISO_IR \
         100\". Empty means the default repertoire.",
        unit: "a defined term of PS3.3 C.12.1.1.2",
    }
    "find.retrieve_ae_title" = "\"\"" {
        "Retrieve AE Title (0008,0054) of answers: the node that can deliver the objects. Empty \
         means this node, in answers of which every instance is kept here. The title of another \
         node appears in every answer. `-` means no node.",
        unit: "AE title",
    }
    "retrieve.max_instances" = "200000" {
        "Maximum number of instances of one C-GET or C-MOVE. More are refused (A701).",
        unit: "instances",
        low: "a patient with many studies cannot be retrieved at once",
        high: "retrievals need more memory (some 70 bytes each)",
    }
    "retrieve.response_timeout_seconds" = "60" {
        "Time for a peer to answer a C-STORE-RQ of this node once the peer has received all of it.",
        unit: "seconds",
        low: "peers that store slowly are given up",
        high: "a peer that hangs occupies a retrieval",
    }
    "retrieve.source_timeout_seconds" = "60" {
        "Time for the file system to deliver the next bytes of an object that is being sent.",
        unit: "seconds",
        low: "retrievals from tape or a sleeping disk fail",
        high: "a file server that hangs occupies a retrieval",
    }
    "commitment.in_place" = "true" {
        "Whether storage commitment takes responsibility for files of an archive that is indexed \
         in place. Objects in our own storage are always included.",
        unit: "true or false",
        low: "false: an object that was not stored again because the archive had it is reported as \
              missing",
        high: "true: the promise is only as good as the archive, which others may change",
    }
    "integrity.verify_again_hours" = "24" {
        "How long an object of our own storage counts as intact after its checksum was verified \
         and while its file is unchanged. After that, the next commitment or retrieval reads it \
         again.",
        unit: "hours",
        low: "commitments of large studies read the disk again",
        high: "a byte that changes without a trace is found later",
    }
    "integrity.scrub_mib_per_second" = "0" {
        "How fast `serve` reads all objects of our own storage in the background to verify their \
         checksums. 0 disables this scrub.",
        unit: "MiB per second",
        low: "a round takes long (10 TB at 10 MiB/s: 12 days), and damage is found late",
        high: "retrievals wait for the same disk",
    }
    "integrity.scrub_pause_hours" = "168" {
        "Time between the end of one scrub round and the start of the next.",
        unit: "hours",
        low: "the disk is read all the time",
        high: "damage is found late",
    }
    "database.cache_mib" = "16" {
        "Memory in which the writer caches pages of the index.",
        unit: "MiB",
        low: "first loads of large archives are slower, since UIDs are scattered over the index",
        high: "the node needs more memory",
    }
    "database.start_check" = "true" {
        "Whether `serve` checks a sample of the index before it opens its port, for at most two \
         seconds. It does not start with an inconsistent index.",
        unit: "true or false",
        low: "false: a damaged index may give wrong answers",
        high: "true: a restart takes up to two seconds longer",
    }
    "scan.jobs" = "0" {
        "Number of files that a scan reads at the same time. 0 means four for each processor, and \
         at least 16.",
        unit: "threads",
        low: "disks and file servers are idle while they wait for the scan",
        high: "a single disk seeks more, and the scan needs more memory (a few hundred kilobytes \
               each)",
    }
    "scan.full" = "false" {
        "Read every file again, even if its size and time are unchanged. Index entries that differ \
         from the file are corrected.",
        unit: "true or false",
        low: "false: a change that keeps the size and time of a file goes unnoticed",
        high: "true: every scan takes as long as the first one",
    }
    "scan.include" = "[]" {
        "Globs of the files to scan. Empty means all files. `*` and `?` do not match a slash, but \
         `**` does. A glob without a slash is matched against names. A glob with a slash is \
         matched against the path below the scanned path. A glob that matches a directory covers \
         everything in it.",
        unit: "list of globs",
    }
    "scan.exclude" = "[]" {
        "Globs of files and directories to skip. They are written as in scan.include and override \
         it. Skipped files are counted, and their index entries stay.",
        unit: "list of globs",
    }
    "scan.order" = "\"name\"" {
        "Order in which subdirectories are scanned. If an instance has several copies, the first \
         one found is its first location.",
        unit: "\"name\" or \"newest-first\"",
        low: "name: recent studies are found only when their directory comes",
        high: "newest-first: each directory costs one more call to the file system",
    }
    "scan.throttle" = "\"\"" {
        "Maximum that a scan reads per second: files opened, as in \"500/s\", or bytes, as in \
         \"20MB/s\", or both with a comma between. Empty means no limit.",
        unit: "files or bytes per second",
        low: "the scan takes long",
        high: "other users of the same storage wait",
    }
    "scan.read_timeout_seconds" = "30" {
        "Time for the file system to answer a call about one file or directory. A file that takes \
         longer is reported, counts as failed (timed-out), and is tried again by the next scan. \
         The scan continues with the others.",
        unit: "seconds",
        low: "files on storage that wakes up slowly (tape, sleeping disks) are given up",
        high: "a scan waits long for a dead server",
    }
    "scan.prune" = "false" {
        "Drop files from the index if they are gone and a scan has read their directory \
         completely.",
        unit: "true or false",
        low: "false: the index still names files that are gone",
        high: "true: a file that is missing for a moment has to be read again",
    }
    "scan.prune_emptied" = "false" {
        "With scan.prune: also drop files below a directory that looks unmounted. Such a directory \
         is empty, or its file system is no longer mounted, or the index knows none of its \
         entries. A scanned path may then be missing itself.",
        unit: "true or false",
        low: "false: a directory that was emptied for good has to be named once",
        high: "true: everything on a disk that is temporarily not mounted is dropped",
    }
    "http.enabled" = "false" {
        "Whether the node opens a port for HTTP: for DICOMweb and for pages for the operator. The \
         option --http-port enables it too.",
        unit: "true or false",
    }
    "http.port" = "8080" {
        "TCP port for HTTP. 0 takes a free port and logs its number.",
        unit: "0 to 65535",
    }
    "http.bind" = "\"127.0.0.1\"" {
        "Address to listen on for HTTP. If others can reach the address, http.users or http.access \
         must say who may send requests.",
        unit: "IP address",
    }
    "http.tls" = "false" {
        "Whether the HTTP port accepts only TLS, with the certificate of [tls]. Clients need no \
         certificate.",
        unit: "true or false",
        low: "false: others can read passwords, tokens and images on their way",
        high: "true: browsers have to know the authority of the certificate",
    }
    "http.users" = "\"\"" {
        "File of users. Each line has a name, rights and a secret, as `dcmdex user` writes it. \
         SIGHUP reads the file again. Empty means no users.",
        unit: "path, as for index",
    }
    "http.access" = "\"auto\"" {
        "Who may send requests over HTTP.",
        unit: "\"auto\" (the users of the file, if there is one; without it, anyone on this \
               machine, and the node does not start on an address that others can reach), \
               \"users\" or \"anyone\"",
        low: "users: each client needs a name and a password, or a token",
        high: "anyone: everyone who reaches the port can search and retrieve, but only this \
               machine can store",
    }
    "http.public_url" = "\"\"" {
        "URL under which clients reach the node, if there is a proxy in front of it. If it is \
         empty, the node uses the URL of each request.",
        unit: "URL without a path of its own, as in \"https://pacs.example.org\"",
    }
    "http.hosts" = "[]" {
        "Host names by which clients may call the node, in addition to IP addresses, localhost and \
         the host of http.public_url. A request for another name is refused, because a stranger's \
         page may have pointed that name to this node.",
        unit: "list of host names",
    }
    "http.cors_origins" = "[]" {
        "Origins whose pages may use the node from a browser, as in \
         \"https://viewer.example.org\". \"*\" allows every origin, but without credentials.",
        unit: "list of origins",
    }
    "http.trusted_proxies" = "[]" {
        "Proxies whose Forwarded, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto and user header \
         the node trusts.",
        unit: "list of IP addresses",
    }
    "http.user_header" = "\"\"" {
        "Header in which a trusted proxy names the user, as in \"remote-user\". The file of users \
         needs a line for each user, with `proxy` as the secret. The name `*` stands for every \
         user. Empty means no header.",
        unit: "name of a header",
    }
    "http.oidc_issuer" = "\"\"" {
        "Issuer of access tokens (OpenID Connect), exactly as the claim `iss` has it. Callers with a \
         token of it need no line in the file of users. Empty means no such tokens.",
        unit: "URL, as in \"https://login.example.org/realms/hospital\"",
    }
    "http.oidc_audience" = "[]" {
        "Audiences that stand for this node. The claim `aud` of a token must have one of them.",
        unit: "list of names",
    }
    "http.oidc_keys" = "\"\"" {
        "File with the public keys of the issuer (JWK Set). It is what the issuer's `jwks_uri` gives. \
         The node reads it again when it changes, and does not fetch it.",
        unit: "path, as for index",
    }
    "http.oidc_algorithms" = "[\"RS256\", \"ES256\"]" {
        "Algorithms that may sign a token. Unsigned tokens and those with a shared secret are never \
         accepted.",
        unit: "list of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA",
    }
    "http.oidc_claim" = "\"roles\"" {
        "Claim with the roles of the caller: a list, or a text with spaces between the roles. Full \
         stops lead into objects, as in \"realm_access.roles\".",
        unit: "name of a claim",
    }
    "http.oidc_read_roles" = "[]" {
        "Roles that may search and retrieve.",
        unit: "list of roles",
    }
    "http.oidc_store_roles" = "[]" {
        "Roles that may store.",
        unit: "list of roles",
    }
    "http.oidc_leeway" = "60" {
        "Difference that the clocks of the issuer and of the node may have.",
        unit: "seconds",
        low: "a new token is refused if the clock of the node is behind",
        high: "a token is accepted longer after it has expired",
    }
    "http.ohif" = "\"\"" {
        "Folder of an OHIF build, which the node serves below /ohif/. It is `dist` of the npm package \
         @ohif/app. Empty means no viewer.",
        unit: "path, as for index",
    }
    "http.max_connections" = "512" {
        "Maximum number of HTTP connections at the same time. One more is closed.",
        unit: "connections",
        low: "clients have to try again",
        high: "the node needs more open files, and some 100 KB of memory for each connection",
    }
    "http.max_connections_per_address" = "64" {
        "Maximum number of HTTP connections of one address at the same time. One more is closed.",
        unit: "connections",
        low: "a proxy with many users is cut off",
        high: "one client can take the places of all others",
    }
    "http.max_results" = "0" {
        "Maximum number of results of one search. A Warning header says that there are more. 0 \
         means no limit. Results are not collected in memory, so many results need no memory.",
        unit: "results",
        low: "clients that do not request the next page miss results",
        high: "a careless search keeps a connection busy",
    }
    "http.metadata_cache_mib" = "64" {
        "Memory for finished metadata of DICOMweb (WADO-RS), compressed. They are used again as long \
         as neither the index nor a file has changed. 0 keeps none.",
        unit: "MiB",
        low: "viewers that open a series again wait until its objects are read again",
        high: "the node needs more memory",
    }
    "log.format" = "\"text\"" {
        "Format of the lines on standard error.",
        unit: "\"text\" or \"json\"",
    }
    "log.filter" = "\"\"" {
        "Which log lines are written: a level, or a level for each part as in \
         \"info,dcmdex::scp=debug\". Empty means info for `serve` and warn for the other commands. \
         -v and -q override it.",
        unit: "error, warn, info, debug or trace",
        low: "error: nobody sees why a peer is rejected",
        high: "debug: the log has UIDs and a line for each failed request; trace adds the messages \
               of libraries",
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
