//! Entries of the tables `[[peer]]`, `[[attribute]]`, `[[watch]]`, `[[events]]` and `[[root]]`, as
//! written in the file. A file may have any number of them.

use std::collections::BTreeMap;

use toml::Value;

use super::SettingProblem;
use super::key::parse_value;
use crate::config::setting::{Origin, Setting};

/// One key of an entry.
#[derive(Debug)]
pub(super) struct EntryKey {
    /// Name.
    pub(super) name: &'static str,
    /// An example value, as written in TOML.
    pub(super) example: &'static str,
    /// Meaning, and the effect of leaving it out.
    pub(super) help: &'static str,
}

impl EntryKey {
    fn has_type_of(&self, value: &Value) -> bool {
        parse_value(self.example).is_some_and(|example| example.same_type(value))
    }
}

/// A table of entries: its keys, and its names in messages.
#[derive(Debug)]
pub(super) struct EntryTable {
    /// Name in the file.
    pub(super) name: &'static str,
    /// Keys of an entry, in the order of the shipped example.
    pub(super) keys: &'static [EntryKey],
    /// Name of one entry, with its article.
    pub(super) one: &'static str,
    /// Message that says how the table is written.
    pub(super) form: &'static str,
}

/// An entry as written in the file.
#[derive(Clone, Debug)]
pub(super) struct FileEntry {
    pub(super) origin: Origin,
    pub(super) fields: BTreeMap<String, Setting>,
}

impl FileEntry {
    /// Returns the fields in the order of the keys.
    pub(super) fn in_order<'a>(&'a self, table: &'static EntryTable) -> impl Iterator<Item = (&'a str, &'a Setting)> {
        table.keys.iter().filter_map(|key| Some((key.name, self.fields.get(key.name)?)))
    }
}

/// Reads the fields of an entry that have a known name and the right type.
pub(super) fn entry(
    table: &EntryTable,
    origin: Origin,
    fields: impl IntoIterator<Item = (String, Option<Value>, Origin)>,
    problems: &mut Vec<SettingProblem>,
) -> FileEntry {
    let mut known = BTreeMap::new();
    for (name, value, origin) in fields {
        let Some(key) = table.keys.iter().find(|key| key.name == name) else {
            let near = table.keys.iter().map(|key| (strsim::damerau_levenshtein(&name, key.name), key.name)).min();
            let hint = match near {
                Some((0..=2, near)) => format!("did you mean `{near}`?"),
                Some(_) | None => known_settings(table.keys.iter().map(|key| key.name)),
            };
            let message = format!("unknown setting `{name}` of {}; {hint}", table.one);
            problems.push(SettingProblem { origin, message });
            continue;
        };
        match value {
            Some(value) if key.has_type_of(&value) => {
                known.insert(name, Setting { value, origin });
            }
            _ => {
                problems.push(SettingProblem { origin, message: format!("`{name}` is written as in {}", key.example) })
            }
        }
    }
    FileEntry { origin, fields: known }
}

/// The names that a table knows, for whoever wrote another one.
pub(super) fn known_settings<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    format!("it can be {}", names.join(", "))
}

/// The table of declarations.
pub(super) static ATTRIBUTE_TABLE: EntryTable = EntryTable {
    name: "attribute",
    keys: ATTRIBUTE_KEYS,
    one: "an attribute",
    form: "attributes are declared as [[attribute]], one for each",
};

/// Keys of a declaration, in the order of the shipped example. Each value is a text.
static ATTRIBUTE_KEYS: &[EntryKey] = &[
    EntryKey {
        name: "path",
        example: "\"0019xx10\"",
        help: "Keyword or tag: gggg,eeee, or ggggxxee for a private element in any block. A path into sequences is \
               written as \"ReferencedImageSequence[*].ReferencedSOPInstanceUID\".",
    },
    EntryKey {
        name: "creator",
        example: "\"ACME 1.1\"",
        help: "Private creator of the private elements in the path. Other paths have none.",
    },
    EntryKey {
        name: "level",
        example: "\"SERIES\"",
        help: "Level of the entity that has it: PATIENT, STUDY, SERIES or IMAGE.",
    },
    EntryKey {
        name: "vr",
        example: "\"DS\"",
        help: "Value representation. Without it, that of the dictionary applies. Private elements are not in the dictionary.",
    },
    EntryKey {
        name: "name",
        example: "\"AcmeDose\"",
        help: "Its name for `dcmdex find`. Without it, the keywords of the path are the name.",
    },
];

/// The table of roots.
pub(super) static ROOT_TABLE: EntryTable =
    EntryTable { name: "root", keys: ROOT_KEYS, one: "a root", form: "roots are written as [[root]], one for each" };

/// Keys of a root, in the order of the shipped example.
static ROOT_KEYS: &[EntryKey] = &[
    EntryKey {
        name: "name",
        example: "\"ct-archive\"",
        help: "Its name, the same on each node: up to 64 letters, digits, dots, hyphens and underscores.",
    },
    EntryKey {
        name: "path",
        example: "\"/mnt/ct\"",
        help: "Where this node has the directory, relative to the file. While it is not there or empty, what lies below \
               it is UNAVAILABLE here.",
    },
];

/// The table of watched directories.
pub(super) static WATCH_TABLE: EntryTable = EntryTable {
    name: "watch",
    keys: WATCH_KEYS,
    one: "a watched directory",
    form: "watched directories are written as [[watch]], one for each",
};

/// Keys of a watched directory, in the order of the shipped example.
static WATCH_KEYS: &[EntryKey] = &[
    EntryKey {
        name: "path",
        example: "\"/archive\"",
        help: "The directory, relative to the file. Everything below it is watched. It need not be mounted at start.",
    },
    EntryKey {
        name: "every",
        example: "\"15m\"",
        help: "Time between two looks: a number with s, m, h or d. An unchanged file costs about two microseconds. \
               Every entry has this key, the next one, or both.",
    },
    EntryKey {
        name: "at",
        example: "\"02:00\"",
        help: "Time of day of a look, in the time zone of the machine. A look that was missed is made at start.",
    },
    EntryKey {
        name: "events",
        example: "true",
        help: "Whether to look early at what the kernel reports as changed. Without it, this is true. It has no effect on \
               NFS, SMB, FUSE and overlay file systems.",
    },
    EntryKey {
        name: "prune",
        example: "true",
        help: "Whether files that are gone leave the index, with the guards of `scan --prune`. Without it, this is true.",
    },
    EntryKey { name: "include", example: "[\"*.dcm\"]", help: "As scan.include, which applies without it." },
    EntryKey { name: "exclude", example: "[\"old\"]", help: "As scan.exclude, which applies without it." },
    EntryKey { name: "order", example: "\"newest-first\"", help: "As scan.order, which applies without it." },
    EntryKey { name: "throttle", example: "\"500/s\"", help: "As scan.throttle, which applies without it." },
    EntryKey { name: "jobs", example: "4", help: "As scan.jobs, which applies without it." },
    EntryKey {
        name: "read_timeout_seconds",
        example: "30",
        help: "As scan.read_timeout_seconds, which applies without it.",
    },
    EntryKey { name: "recall", example: "false", help: "As scan.recall, which applies without it." },
];

/// The table of receivers of events.
pub(super) static EVENTS_TABLE: EntryTable = EntryTable {
    name: "events",
    keys: EVENTS_KEYS,
    one: "a receiver of events",
    form: "receivers of events are written as [[events]], one for each",
};

/// Keys of a receiver of events, in the order of the shipped example.
static EVENTS_KEYS: &[EntryKey] = &[
    EntryKey {
        name: "name",
        example: "\"ris\"",
        help: "Its name. The index remembers under it what was delivered. A new name begins with the events that come then.",
    },
    EntryKey {
        name: "post",
        example: "\"https://ris.example.org/hook\"",
        help: "Address to which each event is posted as JSON. Every entry has this key or the next one.",
    },
    EntryKey {
        name: "run",
        example: "[\"/usr/local/bin/on-study\", \"--quiet\"]",
        help: "Program that gets each event as JSON on its standard input, and its arguments. No shell reads them. Exit code \
               0 means that it took the event.",
    },
    EntryKey {
        name: "kinds",
        example: "[\"study-complete\", \"scan-finished\", \"conflict\", \"damaged\"]",
        help: "Kinds of events that it gets; \"instance-stored\" is one, too. Without it, only study-complete.",
    },
    EntryKey {
        name: "secret",
        example: "\"ris.secret\"",
        help: "File of the key that signs what is posted: whsec_ and 24 to 64 bytes in base64. Without it, nothing is signed.",
    },
    EntryKey {
        name: "authorities",
        example: "\"ca.pem\"",
        help: "Authorities that may issue the certificate of an https address. Without it, those of the system.",
    },
    EntryKey { name: "timeout_seconds", example: "10", help: "Time for it to take one event. Without it, 10." },
    EntryKey {
        name: "give_up",
        example: "\"3d\"",
        help: "Time for which an event is tried: a number with s, m, h or d. After it the event is a dead letter, which \
               `dcmdex events failed` lists. Without it, 3d.",
    },
    EntryKey {
        name: "identifiers",
        example: "false",
        help: "Whether events of a study have Patient ID and accession number. Without it, they have none.",
    },
];

/// The table of peers.
pub(super) static PEER_TABLE: EntryTable =
    EntryTable { name: "peer", keys: PEER_KEYS, one: "a peer", form: "peers are written as [[peer]], one for each" };

/// Keys of a peer, in the order of the shipped example.
static PEER_KEYS: &[EntryKey] = &[
    EntryKey { name: "ae_title", example: "\"CT1\"", help: "Its AE title. Every entry has one." },
    EntryKey {
        name: "addresses",
        example: "[\"10.1.2.3\", \"10.2.0.0/16\"]",
        help: "Addresses and networks from which it may call, at least one. Without it, any address is allowed. AE titles \
               are not secret, so set it.",
    },
    EntryKey {
        name: "services",
        example: "[\"echo\", \"store\", \"find\", \"get\", \"move\", \"commit\", \"worklist\", \"mpps\"]",
        help: "Services that it may use. Without it, all are allowed. With an empty list the peer is only a C-MOVE \
               destination.",
    },
    EntryKey {
        name: "max_associations",
        example: "10",
        help: "Maximum number of its associations. Without it, network.max_associations_per_peer applies.",
    },
    EntryKey {
        name: "host",
        example: "\"10.1.2.3\"",
        help: "Host to which C-MOVE sends. Without host and port the peer is not a destination.",
    },
    EntryKey {
        name: "tls",
        example: "true",
        help: "Whether it must use TLS when it calls, and whether C-MOVE uses TLS to it. Without it, TLS is optional (false).",
    },
    EntryKey {
        name: "certificates",
        example: "[\"cn:CT1\", \"dns:ct1.example.org\"]",
        help: "Certificates of its AE title: sha256: of the whole, cn: of the subject, or dns: of an alternative name. The \
               peer must present one of them, so tls is true. Without it, any certificate of our authorities is accepted, \
               but C-MOVE requires that of the host.",
    },
    EntryKey { name: "port", example: "104", help: "Port to which C-MOVE sends." },
    EntryKey {
        name: "worklist_of",
        example: "\"own-station\"",
        help: "What it sees of the worklist: \"all\" (the default), or \"own-station\" for items that are scheduled at its AE \
               title. Many devices ask for all stations.",
    },
    EntryKey {
        name: "character_set",
        example: "\"ISO_IR 100\"",
        help: "Specific Character Set of all answers from the worklist, for a device that reads no other. Characters that it \
               lacks become question marks. Without it, the set of the request comes first.",
    },
];
