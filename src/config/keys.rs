//! The table of settings: name, default, unit, and the cost of a value that is too low or too high.
//!
//! The shipped example, the checks and `dcmdex config show` use this table.

use super::key::{Key, KeyFlag};

/// Returns the first of several optional parts of a row.
const fn first<T: Copy, const N: usize>(parts: [Option<T>; N]) -> Option<T> {
    parts[0]
}

/// A longer timeout is as good as none, and a timeout cannot be disabled.
const LONGEST_TIMEOUT: u64 = crate::model::calendar::DAY_SECONDS;

/// A hundred years are as good as no limit.
const CENTURY_HOURS: u64 = 876_600;

const UNLIMITED: u64 = i64::MAX.unsigned_abs();

impl Key {
    /// Returns the setting with this name.
    #[must_use]
    pub fn by_path(path: &str) -> Option<&'static Self> {
        KEYS.iter().copied().find(|key| key.path == path)
    }

    /// Returns the settings with an option of this command.
    pub fn with_flag_of(command: &str) -> impl Iterator<Item = (&'static Self, KeyFlag)> {
        let flag = move |key: &&'static Self| Some((*key, key.flag.filter(|flag| flag.command == command)?));
        KEYS.iter().filter_map(flag)
    }
}

macro_rules! kind {
    (Boolean) => { ValueKind::Boolean };
    (Integer ($from:expr, $to:expr)) => { ValueKind::Integer($from, $to) };
    (Choice [$($name:literal),+]) => { ValueKind::Choice(&[$($name),+]) };
    (Text) => { ValueKind::Text };
    (Texts) => { ValueKind::Texts };
}

macro_rules! key_type {
    (Boolean) => { Boolean };
    (Integer ($from:expr, $to:expr)) => { Integer };
    (Choice [$($name:literal),+]) => { Choice<{ [$($name),+].len() }> };
    (Text) => { Text };
    (Texts) => { Texts };
}

macro_rules! keys {
    ($($name:ident: $kind:ident $(($($range:tt)*))? $([$($choice:literal),+])? = $path:literal = $default:literal {
        $help:literal, unit: $unit:literal $(, low: $low:literal)? $(, high: $high:literal)? $(,)?
        $(flag: $command:literal $option:literal $value:literal $flag_help:literal
            $(, also: $also:literal = $also_value:literal)? $(,)?)?
        $(switch: $switch_command:literal $switch:literal $sets:literal $switch_help:literal
            $(, also: $switch_also:literal = $switch_also_value:literal)? $(,)?)?
    })+) => {
        mod rows {
            use crate::config::key::{FlagForm, Key, KeyFlag, ValueKind};
            use crate::config::keys::{CENTURY_HOURS, LONGEST_TIMEOUT, UNLIMITED, first};

            $(pub(super) static $name: Key = Key {
                path: $path,
                kind: kind!($kind $(($($range)*))? $([$($choice),+])?),
                default: $default,
                help: $help,
                unit: $unit,
                too_low: concat!($($low)?),
                too_high: concat!($($high)?),
                flag: first([
                    $(Some(KeyFlag {
                        command: $command,
                        option: $option,
                        form: FlagForm::Value($value),
                        help: $flag_help,
                        also: first([$(Some(($also, $also_value)),)? None]),
                    }),)?
                    $(Some(KeyFlag {
                        command: $switch_command,
                        option: $switch,
                        form: FlagForm::Switch($sets),
                        help: $switch_help,
                        also: first([$(Some(($switch_also, $switch_also_value)),)? None]),
                    }),)?
                    None,
                ]),
            };)+
        }

        /// The rows by name, with the types of their values.
        pub(super) mod settings {
            use crate::config::key::{Boolean, Choice, Integer, KeyOf, Text, Texts};
            use crate::config::keys::rows;

            $(pub(in crate::config) const $name: KeyOf<key_type!($kind $(($($range)*))? $([$($choice),+])?)> =
                KeyOf::new(&rows::$name);)+
        }

        /// All settings, in the order of the shipped example.
        pub static KEYS: &[&Key] = &[$(&rows::$name),+];
    };
}

keys! {
    REQUIRE_END: Boolean = "require_end" = "false" {
        "Whether the last line of this file must be \"# end\". A truncated file lacks this line. \
         It is then refused at start and by SIGHUP.",
        unit: "true or false",
        low: "false: a truncated file may let in a new peer without its restrictions",
        high: "true: every file needs that line",
    }
    INDEX: Text = "index" = "\"dcmdex-data/index.db\"" {
        "The index: one SQLite file, with its -wal, -shm and -turn files beside it. It is created \
         if it does not exist. Or a folder of such files, which answer as one, or the address of a \
         PostgreSQL database, `postgresql://user@host/database` (docs/sites.md).",
        unit: "path or address; in this file relative to the file; in flags, variables and the default \
               relative to the current directory",
    }
    STORAGE: Text = "storage" = "\"dcmdex-data/objects\"" {
        "Directory for objects that are received (C-STORE, STOW-RS). No other program may write there.",
        unit: "path, as for index",
        flag: "serve" "--storage" "DIR" "Directory for received objects [default: dcmdex-data/objects]",
    }
    AE_TITLE: Text = "ae_title" = "\"DCMDEX\"" {
        "Application Entity title of this node. Peers must call it by this title, unless \
         accept_any_called_ae is true.",
        unit: "1 to 16 characters",
        flag: "serve" "--ae-title" "AET" "AE title of this node [default: DCMDEX]",
    }
    BIND: Text = "bind" = "\"127.0.0.1\"" {
        "Address to listen on. 0.0.0.0 (or ::) is every interface. In that case `access` or a \
         table of peers must say who may associate.",
        unit: "IP address",
        flag: "serve" "--bind" "ADDR" "IP address to listen on. 0.0.0.0 means every interface [default: 127.0.0.1]",
    }
    ACCESS: Choice["auto", "table", "anyone"] = "access" = "\"auto\"" {
        "Who may associate. The node logs it at start. SIGHUP never opens access; that needs a \
         restart.",
        unit: "\"table\", \"anyone\" or \"auto\". auto: the table of peers, if there is one. Without it, \
               anyone on this machine. The node then does not start on an address that others can reach",
        low: "table: each peer that may associate needs a [[peer]] entry",
        high: "anyone: everyone who reaches the port can store, query and retrieve",
        flag: "serve" "--access" "WHO" "Who may associate: the peers in the table, or anyone who reaches the port [default: the table, if there is one]",
    }
    PORT: Integer(0, 65_535) = "port" = "11112" {
        "TCP port to listen on. Port 104, the classic one, needs privileges. 0 takes a free port \
         and logs its number.",
        unit: "0 to 65535",
        flag: "serve" "--port" "N" "TCP port to listen on. 0 takes a free port [default: 11112]",
    }
    METADATA_ONLY: Boolean = "metadata_only" = "false" {
        "Index objects that are received (C-STORE, STOW-RS), but keep none. Their pixel data are \
         discarded.",
        unit: "true or false",
        low: "false: every object needs disk space",
        high: "true: received objects can never be retrieved from this node",
        switch: "serve" "--metadata-only" "true" "Index received objects without keeping them",
    }
    ACCEPT_ANY_CALLED_AE: Boolean = "accept_any_called_ae" = "false" {
        "Accept associations that call this node by another AE title.",
        unit: "true or false",
        low: "false: a peer with a wrong AE title for this node is rejected (called AE title not \
              recognized)",
        high: "true: a peer that wanted another node does not notice its mistake",
    }
    TLS_CERTIFICATE: Text = "tls.certificate" = "\"\"" {
        "Certificate of this node for DICOM over TLS, followed by the intermediate certificates up \
         to its authority. Empty means no TLS.",
        unit: "PEM file; path as for index",
    }
    TLS_KEY: Text = "tls.key" = "\"\"" {
        "Private key of the certificate.",
        unit: "PEM file, not encrypted; path as for index",
    }
    TLS_AUTHORITIES: Text = "tls.authorities" = "\"\"" {
        "Authorities that may issue the certificates of peers. They apply to peers that call, and \
         to destinations of C-MOVE.",
        unit: "PEM file; path as for index",
    }
    TLS_CLIENT_CERTIFICATES: Choice["required", "optional"] = "tls.client_certificates" = "\"required\"" {
        "Whether peers that call with TLS must present a certificate.",
        unit: "\"required\" or \"optional\"",
        low: "required: each peer needs a certificate, as PS3.15 B.12 demands",
        high: "optional: a caller is known only by its address and AE title, except peers with \
               `certificates`",
    }
    TLS_PORT: Integer(0, 65_535) = "tls.port" = "2762" {
        "TCP port for TLS, on the address of `bind`. 0 takes a free port and logs its number.",
        unit: "0 to 65535",
    }
    TLS_ONLY: Boolean = "tls.only" = "false" {
        "Whether `port` stays closed, so that nobody can call without TLS.",
        unit: "true or false",
        low: "false: others can read the traffic of `port` on its way",
        high: "true: peers without TLS cannot associate",
    }
    NETWORK_MAX_ASSOCIATIONS: Integer(1, 100_000) = "network.max_associations" = "2000" {
        "Maximum number of associations at the same time. One more is rejected as transient.",
        unit: "associations",
        low: "modalities have to try again",
        high: "the node needs more memory and open files. Each association has 3 files and some 20 KB, or \
               up to 100 KB while it sends, with 64 MiB in all",
    }
    NETWORK_MAX_ASSOCIATIONS_PER_PEER: Integer(1, 100_000) = "network.max_associations_per_peer" = "128" {
        "Maximum number of associations of one peer at the same time. One more is rejected as \
         transient. A peer is an AE title of the table of peers or, without such a table, an \
         address. A peer never gets more associations than are then left for others.",
        unit: "associations",
        low: "busy workstations have to try again",
        high: "one peer can keep more memory and threads busy",
    }
    NETWORK_MAX_UNASSOCIATED_CONNECTIONS: Integer(1, 1_000_000) = "network.max_unassociated_connections" = "2048" {
        "Maximum number of connections that have not yet requested an association.",
        unit: "connections",
        low: "port scanners keep real peers waiting",
        high: "the node needs more open files",
    }
    NETWORK_ARTIM_TIMEOUT_SECONDS: Integer(1, LONGEST_TIMEOUT) = "network.artim_timeout_seconds" = "10" {
        "Time for a connection to send its A-ASSOCIATE-RQ, and to close after our last PDU (PS3.8 \
         9.1.5).",
        unit: "seconds",
        low: "peers on slow lines fail",
        high: "silent connections occupy places",
    }
    NETWORK_IDLE_TIMEOUT_SECONDS: Integer(1, LONGEST_TIMEOUT) = "network.idle_timeout_seconds" = "60" {
        "Time between two messages of an association.",
        unit: "seconds",
        low: "senders that fetch from tape are aborted",
        high: "dead peers occupy associations",
    }
    NETWORK_READ_TIMEOUT_SECONDS: Integer(1, LONGEST_TIMEOUT) = "network.read_timeout_seconds" = "30" {
        "Time for a PDU to arrive completely once it has begun, and for the next PDU of the same \
         message.",
        unit: "seconds",
        low: "peers on slow lines fail",
        high: "a peer that sends a byte now and then occupies an association",
    }
    NETWORK_WRITE_TIMEOUT_SECONDS: Integer(1, LONGEST_TIMEOUT) = "network.write_timeout_seconds" = "30" {
        "Time for the peer to accept what the node sends.",
        unit: "seconds",
        low: "viewers that read slowly are cut off",
        high: "dead peers occupy queries",
    }
    NETWORK_QUERY_TIME_LIMIT_SECONDS: Integer(1, LONGEST_TIMEOUT) = "network.query_time_limit_seconds" = "30" {
        "Time that the index may work on a C-FIND. The time in which the peer takes the answers \
         does not count. After that the query ends (out of resources).",
        unit: "seconds",
        low: "searches for part of a name in a huge archive fail",
        high: "one bad query keeps a processor busy",
    }
    NETWORK_DRAIN_TIMEOUT_SECONDS: Integer(1, LONGEST_TIMEOUT) = "network.drain_timeout_seconds" = "10" {
        "Time to finish and commit messages in flight after the node is told to stop.",
        unit: "seconds",
        low: "senders have to send their current instance again",
        high: "stopping takes long, and the service manager may kill the node first",
    }
    NETWORK_PREFERRED_TRANSFER_SYNTAXES: Texts = "network.preferred_transfer_syntaxes" = "[]" {
        "Preferred transfer syntaxes for storage, best first. Others are accepted as well. If the \
         list is empty, the node takes the first one that the sender proposes, which is the one \
         that the sender holds.",
        unit: "list of UIDs",
    }
    STORE_DURABILITY: Choice["full", "os"] = "store.durability" = "\"full\"" {
        "What a success promises for objects that are received (C-STORE, STOW-RS).",
        unit: "\"full\" or \"os\"",
        low: "full: the object survives a power cut, but a single sender waits for the disk",
        high: "os: a power cut loses acknowledged objects that the operating system had not yet \
               written",
    }
    STORE_JOURNAL_MIB: Integer(0, 65_536) = "store.journal_mib" = "128" {
        "Size of the arrival journal in the storage directory. Small objects of all senders become \
         durable in it by one flush. 0 means none: each object is flushed by itself.",
        unit: "MiB",
        low: "objects that come faster than the disk takes them find no room, and are flushed by \
              themselves",
        high: "it takes that room on the disk, and a start after a crash takes longer: it writes the \
               objects of the journal again",
    }
    STORE_JOURNAL_OBJECT_KIB: Integer(1, 4_096) = "store.journal_object_kib" = "256" {
        "Largest object that goes into the arrival journal, at most a quarter of it. A larger one is \
         flushed by itself. Where a flush takes 2 ms or more, objects four times as large go into it. \
         An object stays in memory until it is complete.",
        unit: "KiB",
        low: "more objects wait for several flushes",
        high: "more bytes are written twice, and each association takes more memory",
    }
    STORE_DUPLICATES: Choice["keep-both", "keep-first", "replace"] = "store.duplicates" = "\"keep-both\"" {
        "What to do if a SOP Instance UID arrives again with other content. It is always recorded \
         as a conflict. keep-both: the new object is kept beside the first one, which answers \
         queries and retrievals.",
        unit: "\"keep-both\", \"keep-first\" or \"replace\"",
        low: "keep-first: the new object is refused (0111), even a corrected object that kept its \
              UID",
        high: "replace: the first object is removed, so everyone who can store can overwrite \
               objects",
    }
    STORE_KEEP_KNOWN: Choice["always", "trust-archive"] = "store.keep_known" = "\"always\"" {
        "Whether to keep a received object if a scan has already found the same content in an \
         archive.",
        unit: "\"always\" or \"trust-archive\"",
        low: "trust-archive: the node keeps no copy, so if the archive loses the file, a sender \
              that was told Success has lost its object",
        high: "always: objects of the archive take disk space a second time",
    }
    STORE_MIN_FREE_MIB: Integer(0, 1 << 30) = "store.min_free_mib" = "256" {
        "Space to leave free on the disk of the storage directory, at most a twentieth of the \
         disk. Below it, objects are refused as out of resources. Queries are still answered.",
        unit: "MiB",
        low: "the disk can become full for the index as well",
        high: "disk space stays unused",
    }
    FIND_HIERARCHY: Choice["lenient", "strict"] = "find.hierarchy" = "\"lenient\"" {
        "How to answer a query that did not negotiate relational queries and is not hierarchical. \
         Such a query omits unique keys of the levels above, or has keys of other levels (PS3.4 \
         C.4.1.2.1).",
        unit: "\"lenient\" or \"strict\"",
        low: "lenient: it is answered as a relational query, because viewers and scripts send such \
              queries",
        high: "strict: it is answered with A900",
    }
    FIND_NAMES: Choice["leading", "exact"] = "find.names" = "\"leading\"" {
        "Whether a person name without wild cards also finds names with more components: SMITH \
         finds SMITH^JOHN.",
        unit: "\"leading\" or \"exact\"",
        low: "leading: queries return more answers than PS3.4 C.2.2.2.1 literally says",
        high: "exact: clients that send only the family name find nothing",
    }
    FIND_UNKNOWN_REQUIRED: Choice["no-match", "match"] = "find.unknown_required" = "\"no-match\"" {
        "Whether a required key matches an entity that has no value for it.",
        unit: "\"no-match\" or \"match\"",
        low: "no-match: this differs from PS3.4 C.2.2.1.2, but every deployed node does it",
        high: "match: a search by accession number also returns every study without one",
    }
    FIND_PENDING_STATUS: Choice["as-supported", "ff00"] = "find.pending_status" = "\"as-supported\"" {
        "How a pending response reports that an optional key is not supported.",
        unit: "\"as-supported\" or \"ff00\"",
        low: "as-supported: it has the status FF01, as in PS3.4 table C.4-1, which some clients \
              take for a failure",
        high: "ff00: the client is not told",
    }
    FIND_LIMIT: Integer(0, UNLIMITED) = "find.limit" = "0" {
        "Maximum number of answers to one C-FIND query. One more ends the query with A700. 0 means \
         no limit. Answers are not collected in memory, so many answers need no memory.",
        unit: "answers",
        low: "users see only part of the answers",
        high: "a careless query keeps an association and a reader busy",
    }
    FIND_ASSUMED_CHARACTER_SET: Text = "find.assumed_character_set" = "\"\"" {
        "Specific Character Set of queries that name none and are not ASCII, for example \"ISO_IR \
         100\". Empty means the default repertoire.",
        unit: "a defined term of PS3.3 C.12.1.1.2",
    }
    FIND_RETRIEVE_AE_TITLE: Text = "find.retrieve_ae_title" = "\"\"" {
        "Retrieve AE Title (0008,0054) of answers: the node that can deliver the objects. Empty \
         means this node, in answers of which every instance is kept here. The title of another \
         node appears in every answer. `-` means no node.",
        unit: "AE title",
    }
    WORKLIST_ENABLED: Boolean = "worklist.enabled" = "false" {
        "Whether peers can ask for the modality worklist (PS3.4 annex K) and report performed steps. Its folder, HL7 messages \
         and `dcmdex worklist add` fill it.",
        unit: "true or false",
    }
    WORKLIST_FOLDER: Text = "worklist.folder" = "\"\"" {
        "Folder of items: *.wl and *.dcm (Part 10 or a bare data set) and *.json. It is read every two seconds. A \
         deleted file removes its item. Folders in it are read too. Empty means no folder.",
        unit: "path, as for index",
    }
    WORKLIST_HL7: Text = "worklist.hl7" = "\"\"" {
        "Address and port for orders as HL7 version 2 messages (MLLP), for example \"127.0.0.1:2575\". If others can \
         reach it, worklist.hl7_senders must say who may send. Empty means none.",
        unit: "address:port",
    }
    WORKLIST_HL7_SENDERS: Texts = "worklist.hl7_senders" = "[]" {
        "Addresses and networks that may send HL7 messages. Without any, everyone who reaches the port.",
        unit: "list of addresses and networks",
    }
    WORKLIST_HL7_TLS: Boolean = "worklist.hl7_tls" = "false" {
        "Whether HL7 messages come over TLS only, with the certificate of [tls]. Senders need certificates as \
         tls.client_certificates says.",
        unit: "true or false",
    }
    WORKLIST_HL7_MAP: Texts = "worklist.hl7_map" = "[]" {
        "Lines of the mapping that differ from that of IHE, as \"modality = IPC-5, OBR-24\". The first of the \
         fields that has a value counts. docs/worklist.md has all lines.",
        unit: "list of lines",
    }
    WORKLIST_PATIENT_AUTHORITY: Text = "worklist.patient_authority" = "\"\"" {
        "Assigning authority whose identifier counts if an HL7 message gives a patient several: its name or universal ID \
         (PID-3.4). Without it, or without one of it, a medical record number (type MR) counts, then type PI, then the first.",
        unit: "text",
    }
    WORKLIST_QUIET_MINUTES: Integer(1, 100_000) = "worklist.quiet_minutes" = "30" {
        "How long no object of a study must arrive until its item is done.",
        unit: "minutes",
        low: "the item of a long examination leaves the list before its end",
        high: "items of examinations that are over stay in the list",
    }
    WORKLIST_REMOVE_DAYS: Integer(1, 36_500) = "worklist.remove_days" = "30" {
        "After how many days without a change items that are over, performed steps and refused messages are removed.",
        unit: "days",
    }
    WORKLIST_STATIONS: Texts = "worklist.stations" = "[]" {
        "Stations of orders that name none, as \"CT=CT1\": a modality and the AE title of its device. A modality \
         may have several.",
        unit: "list of modality=AE title",
    }
    WORKLIST_KEEP_HOURS: Integer(1, CENTURY_HOURS) = "worklist.keep_hours" = "24" {
        "How long after its scheduled start an item of the worklist is still found.",
        unit: "hours",
        low: "an examination that is late is no longer in the list",
        high: "lists hold what nobody will examine any more",
    }
    RETRIEVE_MAX_INSTANCES: Integer(1, 100_000_000) = "retrieve.max_instances" = "200000" {
        "Maximum number of instances of one C-GET or C-MOVE. More are refused (A701).",
        unit: "instances",
        low: "a patient with many studies cannot be retrieved at once",
        high: "retrievals need more memory (some 70 bytes each)",
    }
    RETRIEVE_DECOMPRESS: Choice["all", "lossless", "never"] = "retrieve.decompress" = "\"all\"" {
        "Which compressed objects are decompressed for a peer that does not take them as they are \
         stored. Lossy ones say that they were lossy.",
        unit: "\"all\", \"lossless\" or \"never\"",
        low: "all: old viewers get lossy images several times as long as their files",
        high: "never: the sub-operation for such an object fails",
    }
    RETRIEVE_RESPONSE_TIMEOUT_SECONDS: Integer(1, LONGEST_TIMEOUT) = "retrieve.response_timeout_seconds" = "60" {
        "Time for a peer to answer a C-STORE-RQ of this node once the peer has received all of it.",
        unit: "seconds",
        low: "peers that store slowly are given up",
        high: "a peer that hangs occupies a retrieval",
    }
    RETRIEVE_SOURCE_TIMEOUT_SECONDS: Integer(1, LONGEST_TIMEOUT) = "retrieve.source_timeout_seconds" = "60" {
        "Time for the file system to deliver the next bytes of an object that is being sent.",
        unit: "seconds",
        low: "retrievals from tape or a sleeping disk fail",
        high: "a file server that hangs occupies a retrieval",
    }
    COMMITMENT_IN_PLACE: Boolean = "commitment.in_place" = "true" {
        "Whether storage commitment takes responsibility for files of an archive that is indexed \
         in place. Objects in our own storage are always included.",
        unit: "true or false",
        low: "false: an object that was not stored again because the archive had it is reported as \
              missing",
        high: "true: the promise is only as good as the archive, which others may change",
    }
    INTEGRITY_VERIFY_AGAIN_HOURS: Integer(0, CENTURY_HOURS) = "integrity.verify_again_hours" = "24" {
        "How long an object of our own storage counts as intact after its checksum was verified \
         and while its file is unchanged. After that, the next commitment or retrieval reads it \
         again.",
        unit: "hours",
        low: "commitments of large studies read the disk again",
        high: "a byte that changes without a trace is found later",
    }
    INTEGRITY_SCRUB_MIB_PER_SECOND: Integer(0, 1 << 20) = "integrity.scrub_mib_per_second" = "0" {
        "How fast `serve` reads all objects of our own storage in the background to verify their \
         checksums. 0 disables this scrub.",
        unit: "MiB per second",
        low: "a round takes long (10 TB at 10 MiB/s: 12 days), and damage is found late",
        high: "retrievals wait for the same disk",
    }
    INTEGRITY_SCRUB_PAUSE_HOURS: Integer(0, CENTURY_HOURS) = "integrity.scrub_pause_hours" = "168" {
        "Time between the end of one scrub round and the start of the next.",
        unit: "hours",
        low: "the disk is read all the time",
        high: "damage is found late",
    }
    DATABASE_CACHE_MIB: Integer(1, 1 << 20) = "database.cache_mib" = "16" {
        "Memory in which the writer caches pages of the index.",
        unit: "MiB",
        low: "first loads of large archives are slower, since UIDs are scattered over the index",
        high: "the node needs more memory",
    }
    DATABASE_START_CHECK: Boolean = "database.start_check" = "true" {
        "Whether `serve` checks a sample of the index before it opens its port, for at most two \
         seconds. It does not start with an inconsistent index.",
        unit: "true or false",
        low: "false: a damaged index may give wrong answers",
        high: "true: a restart takes up to two seconds longer",
    }
    SCAN_JOBS: Integer(0, 1024) = "scan.jobs" = "0" {
        "Number of files that a scan reads at the same time. With 0 it begins with four for each \
         processor, and at least 16. It takes up to 128 while a slow disk or file server gives more \
         files for that. Where it does not, the scan goes back, and tries again after a minute.",
        unit: "threads",
        low: "disks and file servers are idle while they wait for the scan",
        high: "a single disk seeks more, and the scan needs more memory (a few hundred kilobytes \
               each)",
        flag: "scan" "--jobs" "N" "Number of files to read at the same time [default: four for each processor, at least 16; more while that helps]",
    }
    SCAN_FULL: Boolean = "scan.full" = "false" {
        "Read every file again, even if its size and time are unchanged. Index entries that differ \
         from the file are corrected.",
        unit: "true or false",
        low: "false: a change that keeps the size and time of a file goes unnoticed",
        high: "true: every scan takes as long as the first one",
        switch: "scan" "--full" "true" "Read all files again, even if their size and time have not changed",
    }
    SCAN_INCLUDE: Texts = "scan.include" = "[]" {
        "Globs of the files to scan. Empty means all files. `*` and `?` do not match a slash, but \
         `**` does. A glob without a slash is matched against names. A glob with a slash is \
         matched against the path below the scanned path. A glob that matches a directory covers \
         everything in it.",
        unit: "list of globs",
        flag: "scan" "--include" "GLOB" "Scan only files that match this glob. With a slash it is compared with the path below PATH, else with the name. May be repeated",
    }
    SCAN_EXCLUDE: Texts = "scan.exclude" = "[]" {
        "Globs of files and directories to skip. They are written as in scan.include and override \
         it. Skipped files are counted, and their index entries stay.",
        unit: "list of globs",
        flag: "scan" "--exclude" "GLOB" "Exclude files and directories that match this glob. May be repeated. Wins over --include",
    }
    SCAN_ORDER: Choice["name", "newest-first"] = "scan.order" = "\"name\"" {
        "Order in which subdirectories are scanned. If an instance has several copies, the first \
         one found is its first location.",
        unit: "\"name\" or \"newest-first\"",
        low: "name: recent studies are found only when their directory comes",
        high: "newest-first: each directory costs one more call to the file system",
        switch: "scan" "--newest-first" "\"newest-first\"" "Scan the most recently changed directories first",
    }
    SCAN_THROTTLE: Text = "scan.throttle" = "\"\"" {
        "Maximum that a scan reads per second: files opened, as in \"500/s\", or bytes, as in \
         \"20MB/s\", or both with a comma between. Empty means no limit.",
        unit: "files or bytes per second",
        low: "the scan takes long",
        high: "other users of the same storage wait",
        flag: "scan" "--throttle" "RATE" "Read at most this much per second: 500/s (files), 20MB/s, or both with a comma between",
    }
    SCAN_READ_TIMEOUT_SECONDS: Integer(1, LONGEST_TIMEOUT) = "scan.read_timeout_seconds" = "30" {
        "Time for the file system to answer a call about one file or directory. A file that takes \
         longer is reported, counts as failed (timed-out), and is tried again by the next scan. \
         The scan continues with the others.",
        unit: "seconds",
        low: "files on storage that wakes up slowly (tape, sleeping disks) are given up",
        high: "a scan waits long for a dead server",
        flag: "scan" "--read-timeout" "SECONDS" "Give up a file or directory that does not answer for this time. It counts as failed, and the scan goes on [default: 30]",
    }
    SCAN_LEASE_SECONDS: Integer(1, LONGEST_TIMEOUT) = "scan.lease_seconds" = "30" {
        "Time for which a worker of a shared scan (`scan --shared`) has a part of it. It renews that \
         three times as often. When it ends without an answer, others take the part.",
        unit: "seconds",
        low: "a worker that waits for its storage or for the server does its part in vain",
        high: "the part of a worker that was killed waits long",
    }
    SCAN_PRUNE: Boolean = "scan.prune" = "false" {
        "Drop files from the index if they are gone and a scan has read their directory \
         completely.",
        unit: "true or false",
        low: "false: the index still names files that are gone",
        high: "true: a file that is missing for a moment has to be read again",
        switch: "scan" "--prune" "true" "Delete entries of files that are gone from the index, except below directories whose disk may not be mounted",
    }
    SCAN_PRUNE_EMPTIED: Boolean = "scan.prune_emptied" = "false" {
        "With scan.prune: also drop files below a directory that looks unmounted. Such a directory \
         is empty, or its file system is no longer mounted, or a scan found other \
         files there than those of the index. A scanned path may then be missing itself.",
        unit: "true or false",
        low: "false: a directory that was emptied for good has to be named once",
        high: "true: everything on a disk that is temporarily not mounted is dropped",
        switch: "scan" "--prune-emptied" "true" "Like --prune, and also below directories that are empty, no longer mounted or gone themselves", also: "scan.prune" = "true",
    }
    SCAN_RECALL: Boolean = "scan.recall" = "false" {
        "Whether to read files whose content lies on tape. Such a file has a size and no blocks on \
         the disk. Without it they are skipped, with the reason `offline`.",
        unit: "true or false",
        low: "false: files that were moved to tape before they were indexed stay out of the index",
        high: "true: a scan calls back whole archives from tape, which takes days and fills the disk",
        switch: "scan" "--recall" "true" "Read files whose content lies on tape, which calls them back",
    }
    AUDIT_DIRECTORY: Text = "audit.directory" = "\"\"" {
        "Directory of the audit trail (PS3.15 A.5): JSON lines that say who asked for what. Only its \
         owner can read them. Empty means no trail.",
        unit: "path, as for index",
    }
    AUDIT_MAX_MIB: Integer(16, 1 << 20) = "audit.max_mib" = "4096" {
        "Maximum size of all files of the trail. Above it the oldest are deleted, sent or not. The \
         metric dcmdex_audit_dropped_total counts events that were deleted unsent.",
        unit: "MiB",
        low: "events are lost when the collector is away for long",
        high: "the disk has less room for objects",
    }
    AUDIT_KEEP_DAYS: Integer(1, 36_500) = "audit.keep_days" = "365" {
        "Time for which events are kept. Events that were not sent yet are kept for longer.",
        unit: "days",
        low: "the trail cannot answer who asked in May",
        high: "the files grow up to audit.max_mib",
    }
    AUDIT_COLLECTOR: Text = "audit.collector" = "\"\"" {
        "Collector of the events as XML: syslog over TLS (RFC 5425), or over TCP for a relay on this \
         machine. It needs audit.directory, where events wait while the collector is away. Empty means \
         none.",
        unit: "\"tls://HOST:6514\" or \"tcp://HOST:601\"",
    }
    AUDIT_AUTHORITIES: Text = "audit.authorities" = "\"\"" {
        "Authorities that may issue the certificate of the collector. The node presents the \
         certificate of [tls], if the collector asks for one.",
        unit: "PEM file; path as for index",
    }
    EVENT_LOG_ENABLED: Boolean = "event_log.enabled" = "false" {
        "Whether the node records events for `dcmdex events`. A receiver ([[events]]) enables it too.",
        unit: "true or false",
    }
    EVENT_LOG_INSTANCES: Boolean = "event_log.instances" = "false" {
        "Whether the event log has received instances (instance-stored). A receiver of that kind \
         enables it too.",
        unit: "true or false",
        low: "false: `dcmdex events` shows no single instances",
        high: "true: the index grows by some 70 bytes for each received instance, until its event is old",
    }
    EVENT_LOG_QUIET_SECONDS: Integer(1, LONGEST_TIMEOUT) = "event_log.quiet_seconds" = "60" {
        "Time without a change after which a study is complete (study-complete).",
        unit: "seconds",
        low: "a slow modality makes several events for one study",
        high: "receivers hear of a study later",
    }
    EVENT_LOG_KEEP_DAYS: Integer(1, 36_500) = "event_log.keep_days" = "7" {
        "Time for which events stay after they were delivered. Dead letters stay as long.",
        unit: "days",
        low: "a program that was away for longer misses events",
        high: "the index is larger",
    }
    EVENT_LOG_MAX_EVENTS: Integer(1000, 1_000_000_000) = "event_log.max_events" = "1000000" {
        "Maximum number of events. Above it the oldest are dropped, delivered or not. The metric \
         dcmdex_events_dropped_total counts those that were not.",
        unit: "events",
        low: "events are lost when a receiver is away for long",
        high: "the index is larger while a receiver is away",
    }
    MONITORING_ENABLED: Boolean = "monitoring.enabled" = "false" {
        "Whether the node opens a port for supervisors: /metrics, /healthz, /readyz and /status. It \
         has no users, and tells nothing of a patient. The option --monitoring-port enables it too.",
        unit: "true or false",
    }
    MONITORING_PORT: Integer(0, 65_535) = "monitoring.port" = "9104" {
        "TCP port for supervisors. 0 takes a free port and logs its number.",
        unit: "0 to 65535",
        flag: "serve" "--monitoring-port" "N" "TCP port for supervisors (metrics, health and state). 0 takes a free port [default: none]", also: "monitoring.enabled" = "true",
    }
    MONITORING_BIND: Text = "monitoring.bind" = "\"127.0.0.1\"" {
        "Address to listen on for supervisors. Whoever reaches it sees counts and paths of watched \
         directories.",
        unit: "IP address",
    }
    HTTP_ENABLED: Boolean = "http.enabled" = "false" {
        "Whether the node opens a port for HTTP: for DICOMweb and for pages for the operator. The \
         option --http-port enables it too.",
        unit: "true or false",
    }
    HTTP_PORT: Integer(0, 65_535) = "http.port" = "8080" {
        "TCP port for HTTP. 0 takes a free port and logs its number.",
        unit: "0 to 65535",
        flag: "serve" "--http-port" "N" "TCP port for HTTP (DICOMweb, health and metrics). 0 takes a free port [default: no HTTP]", also: "http.enabled" = "true",
    }
    HTTP_BIND: Text = "http.bind" = "\"127.0.0.1\"" {
        "Address to listen on for HTTP. If others can reach the address, http.users or http.access \
         must say who may send requests.",
        unit: "IP address",
        flag: "serve" "--http-bind" "ADDR" "IP address to listen on for HTTP [default: 127.0.0.1]",
    }
    HTTP_TLS: Boolean = "http.tls" = "false" {
        "Whether the HTTP port accepts only TLS, with the certificate of [tls]. Clients need no \
         certificate.",
        unit: "true or false",
        low: "false: others can read passwords, tokens and images on their way",
        high: "true: browsers have to know the authority of the certificate",
    }
    HTTP_USERS: Text = "http.users" = "\"\"" {
        "File of users. Each line has a name, rights and a secret, as `dcmdex user` writes it. \
         SIGHUP reads the file again. Empty means no users.",
        unit: "path, as for index",
        flag: "serve" "--http-users" "FILE" "File with the users of the HTTP server. See `dcmdex user`",
    }
    HTTP_ACCESS: Choice["auto", "users", "anyone"] = "http.access" = "\"auto\"" {
        "Who may send requests over HTTP.",
        unit: "\"users\", \"anyone\" or \"auto\". auto: the users of the file, if there is one. Without \
               it, anyone on this machine. The node then does not start on an address that others can reach",
        low: "users: each client needs a name and a password, or a token",
        high: "anyone: everyone who reaches the port can search and retrieve, but only this \
               machine can store",
    }
    HTTP_PUBLIC_URL: Text = "http.public_url" = "\"\"" {
        "URL under which clients reach the node, if there is a proxy in front of it. If it is \
         empty, the node uses the URL of each request.",
        unit: "URL without a path of its own, as in \"https://pacs.example.org\"",
    }
    HTTP_HOSTS: Texts = "http.hosts" = "[]" {
        "Host names by which clients may call the node, in addition to IP addresses, localhost and \
         the host of http.public_url. A request for another name is refused, because a stranger's \
         page may have pointed that name to this node.",
        unit: "list of host names",
    }
    HTTP_CORS_ORIGINS: Texts = "http.cors_origins" = "[]" {
        "Origins whose pages may use the node from a browser, as in \
         \"https://viewer.example.org\". \"*\" allows every origin, but without credentials.",
        unit: "list of origins",
    }
    HTTP_TRUSTED_PROXIES: Texts = "http.trusted_proxies" = "[]" {
        "Proxies whose Forwarded, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto and user header \
         the node trusts.",
        unit: "list of IP addresses",
    }
    HTTP_USER_HEADER: Text = "http.user_header" = "\"\"" {
        "Header in which a trusted proxy names the user, as in \"remote-user\". The file of users \
         needs a line for each user, with `proxy` as the secret. The name `*` stands for every \
         user. Empty means no header.",
        unit: "name of a header",
    }
    HTTP_OIDC_ISSUER: Text = "http.oidc_issuer" = "\"\"" {
        "Issuer of access tokens (OpenID Connect), exactly as the claim `iss` has it. Callers with a \
         token of it need no line in the file of users. Empty means no such tokens.",
        unit: "URL, as in \"https://login.example.org/realms/hospital\"",
    }
    HTTP_OIDC_AUDIENCE: Texts = "http.oidc_audience" = "[]" {
        "Audiences that stand for this node. The claim `aud` of a token must have one of them.",
        unit: "list of names",
    }
    HTTP_OIDC_KEYS: Text = "http.oidc_keys" = "\"\"" {
        "File with the public keys of the issuer (JWK Set). It is what the issuer's `jwks_uri` gives. \
         The node reads it again when it changes, and does not fetch it.",
        unit: "path, as for index",
    }
    HTTP_OIDC_ALGORITHMS: Texts = "http.oidc_algorithms" = "[\"RS256\", \"ES256\"]" {
        "Algorithms that may sign a token. Unsigned tokens and those with a shared secret are never \
         accepted.",
        unit: "list of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA",
    }
    HTTP_OIDC_CLAIM: Text = "http.oidc_claim" = "\"roles\"" {
        "Claim with the roles of the caller: a list, or a text with spaces between the roles. Full \
         stops lead into objects, as in \"realm_access.roles\".",
        unit: "name of a claim",
    }
    HTTP_OIDC_READ_ROLES: Texts = "http.oidc_read_roles" = "[]" {
        "Roles that may search and retrieve.",
        unit: "list of roles",
    }
    HTTP_OIDC_STORE_ROLES: Texts = "http.oidc_store_roles" = "[]" {
        "Roles that may store.",
        unit: "list of roles",
    }
    HTTP_OIDC_LEEWAY: Integer(0, 3_600) = "http.oidc_leeway" = "60" {
        "Difference that the clocks of the issuer and of the node may have.",
        unit: "seconds",
        low: "a new token is refused if the clock of the node is behind",
        high: "a token is accepted longer after it has expired",
    }
    HTTP_OHIF: Text = "http.ohif" = "\"\"" {
        "Folder of an OHIF build, which the node serves below /ohif/. It is `dist` of the npm package \
         @ohif/app. Empty means no viewer.",
        unit: "path, as for index",
        flag: "serve" "--ohif" "DIR" "Folder of an OHIF build, served below /ohif/ of the HTTP port",
    }
    HTTP_MAX_CONNECTIONS: Integer(1, 100_000) = "http.max_connections" = "512" {
        "Maximum number of HTTP connections at the same time. One more is closed.",
        unit: "connections",
        low: "clients have to try again",
        high: "the node needs more open files, and some 100 KB of memory for each connection",
    }
    HTTP_MAX_CONNECTIONS_PER_ADDRESS: Integer(1, 100_000) = "http.max_connections_per_address" = "64" {
        "Maximum number of HTTP connections of one address at the same time. One more is closed.",
        unit: "connections",
        low: "a proxy with many users is cut off",
        high: "one client can take the places of all others",
    }
    HTTP_MAX_RESULTS: Integer(0, UNLIMITED) = "http.max_results" = "0" {
        "Maximum number of results of one search. A Warning header says that there are more. 0 \
         means no limit. Results are not collected in memory, so many results need no memory.",
        unit: "results",
        low: "clients that do not request the next page miss results",
        high: "a careless search keeps a connection busy",
    }
    HTTP_METADATA_CACHE_MIB: Integer(0, 1 << 20) = "http.metadata_cache_mib" = "64" {
        "Memory for finished metadata of DICOMweb (WADO-RS), compressed or plain, as clients asked for \
         them. They are used again as long as neither the index nor a file has changed. 0 keeps none.",
        unit: "MiB",
        low: "viewers that open a series again wait until its objects are read again",
        high: "the node needs more memory",
    }
    LOG_FORMAT: Text = "log.format" = "\"text\"" {
        "Format of the lines on standard error.",
        unit: "\"text\" or \"json\"",
    }
    LOG_FILTER: Text = "log.filter" = "\"\"" {
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
    use toml::Value;

    use crate::config::key::ValueKind;

    use super::*;

    #[test]
    fn each_default_has_the_type_of_its_row_and_each_name_occurs_once() {
        for (at, key) in KEYS.iter().enumerate() {
            match (key.kind, key.default_value()) {
                (ValueKind::Boolean, Value::Boolean(_))
                | (ValueKind::Text, Value::String(_))
                | (ValueKind::Texts, Value::Array(_)) => {}
                (ValueKind::Integer(from, to), Value::Integer(value)) => {
                    assert!((from..=to).contains(&u64::try_from(value).unwrap()), "{}", key.path);
                }
                (ValueKind::Choice(names), Value::String(value)) => {
                    assert!(names.contains(&value.as_str()), "{}", key.path)
                }
                other => panic!("{}: {other:?}", key.path),
            }
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
