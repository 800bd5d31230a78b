//! Tables that a file may have any number of, `[[peer]]` and `[[attribute]]`: their entries as they stand in the file.

use std::collections::BTreeMap;

use toml::Value;

use super::Problem;
use super::keys::parse_value;
use crate::config::setting::{Origin, Setting};

/// One key of an entry.
#[derive(Debug)]
pub(super) struct EntryKey {
    /// Its name.
    pub(super) name: &'static str,
    /// A value, as written in TOML.
    pub(super) example: &'static str,
    /// What it is, and what leaving it out means.
    pub(super) help: &'static str,
}

impl EntryKey {
    fn has_type_of(&self, value: &Value) -> bool {
        parse_value(self.example).is_some_and(|example| example.same_type(value))
    }
}

/// A table of entries: what may stand in it, and how messages call it.
#[derive(Debug)]
pub(super) struct EntryTable {
    /// Its name in the file.
    pub(super) name: &'static str,
    /// The keys of an entry, in the order of the shipped example.
    pub(super) keys: &'static [EntryKey],
    /// One entry, with its article.
    pub(super) one: &'static str,
    /// How the table is written.
    pub(super) form: &'static str,
}

/// An entry as it stands in the file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    pub(super) fields: BTreeMap<String, Setting>,
}

impl Entry {
    /// Its fields in the order of the keys.
    pub(super) fn in_order<'a>(&'a self, table: &'static EntryTable) -> impl Iterator<Item = (&'a str, &'a Setting)> {
        table.keys.iter().filter_map(|key| Some((key.name, self.fields.get(key.name)?)))
    }
}

/// Takes the fields of an entry that have a known name and the right type.
pub(super) fn entry(
    table: &EntryTable,
    origin: Origin,
    fields: impl IntoIterator<Item = (String, Option<Value>, Origin)>,
    problems: &mut Vec<Problem>,
) -> Entry {
    let mut known = BTreeMap::new();
    for (name, value, origin) in fields {
        let Some(key) = table.keys.iter().find(|key| key.name == name) else {
            let near = table.keys.iter().map(|key| (strsim::damerau_levenshtein(&name, key.name), key.name)).min();
            let hint = near.filter(|(distance, _)| *distance <= 2).map(|(_, name)| format!("; did you mean `{name}`?"));
            let hint = hint.unwrap_or_default();
            problems.push(Problem { origin, message: format!("unknown setting `{name}` of {}{hint}", table.one) });
            continue;
        };
        match value {
            Some(value) if key.has_type_of(&value) => {
                known.insert(name, Setting { value, origin });
            }
            _ => problems.push(Problem { origin, message: format!("`{name}` is written as in {}", key.example) }),
        }
    }
    Entry { origin, fields: known }
}

/// The table of declarations.
pub(super) static ATTRIBUTE_TABLE: EntryTable = EntryTable {
    name: "attribute",
    keys: ATTRIBUTE_KEYS,
    one: "an attribute",
    form: "attributes are declared as [[attribute]], one for each",
};

/// The keys of a declaration, in the order of the shipped example. Each is a text.
static ATTRIBUTE_KEYS: &[EntryKey] = &[
    EntryKey {
        name: "path",
        example: "\"0019xx10\"",
        help: "Keyword or tag (gggg,eeee; private: ggggxxee, whatever its block); into sequences: \
               \"ReferencedImageSequence[*].ReferencedSOPInstanceUID\".",
    },
    EntryKey {
        name: "creator",
        example: "\"ACME 1.1\"",
        help: "Private creator of the private elements in the path. Only for those.",
    },
    EntryKey { name: "level", example: "\"SERIES\"", help: "What it belongs to: PATIENT, STUDY, SERIES or IMAGE." },
    EntryKey {
        name: "vr",
        example: "\"DS\"",
        help: "Value representation. Without: that of the dictionary, which private elements are not in.",
    },
    EntryKey {
        name: "name",
        example: "\"AcmeDose\"",
        help: "What `dcmdex find` calls it. Without: the keywords of the path.",
    },
];

/// The table of peers.
pub(super) static PEER_TABLE: EntryTable =
    EntryTable { name: "peer", keys: PEER_KEYS, one: "a peer", form: "peers are written as [[peer]], one for each" };

/// The keys of a peer, in the order of the shipped example.
static PEER_KEYS: &[EntryKey] = &[
    EntryKey { name: "ae_title", example: "\"CT1\"", help: "Its AE title. Every entry has one." },
    EntryKey {
        name: "addresses",
        example: "[\"10.1.2.3\", \"10.2.0.0/16\"]",
        help: "Addresses and networks that it may call from, at least one. Without: any; AE titles are no secret, so say it.",
    },
    EntryKey {
        name: "services",
        example: "[\"echo\", \"store\", \"find\", \"get\", \"move\", \"commit\"]",
        help: "What it may ask for. Without: everything. An empty list: nothing, it is a C-MOVE destination only.",
    },
    EntryKey {
        name: "max_associations",
        example: "10",
        help: "Its associations at one time. Without: network.max_associations_per_peer.",
    },
    EntryKey {
        name: "host",
        example: "\"10.1.2.3\"",
        help: "Where C-MOVE finds it. Without host and port it is no destination.",
    },
    EntryKey {
        name: "tls",
        example: "true",
        help: "Whether it has to use TLS when it calls, and C-MOVE when it sends there. Without: false, and it may.",
    },
    EntryKey {
        name: "certificates",
        example: "[\"cn:CT1\", \"dns:ct1.example.org\"]",
        help: "Certificates that belong to its AE title, by sha256: of the whole, cn: of the subject or dns: of an alternative \
               name; one of them has to be shown. Says tls = true. Without: any of our authorities; C-MOVE wants that of the host.",
    },
    EntryKey { name: "port", example: "104", help: "Where C-MOVE finds it." },
];
