//! Builds the options of each module from the settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::settings;
use super::{Config, Keep};
use crate::db::Durability;
use crate::db::open::{WriterOptions, directory_beside};
use crate::store;

/// Maximum number of scan units that wait for the writer. Each holds up to
/// [`UNIT_FILES`](crate::scanner::UNIT_FILES) records. The writer takes a few thousand rows at
/// once, so more units would only use memory.
const SCAN_QUEUE_LENGTH: usize = 12;

/// Maximum page cache of the writer of a scan. It writes at the end of each table and into the
/// small table of look-ups, so it needs no more. With twice as much it took 73 MB of memory at 1.6
/// million files.
const SCAN_CACHE_BYTES: u64 = 16 * 1024 * 1024;

impl Config {
    /// Returns the options of the storage directory. `None` if no objects are kept.
    #[must_use]
    pub fn store_options(&self) -> Option<store::Options> {
        (self.keep == Keep::Objects).then(|| self.options_of_storage())
    }

    /// Returns the same for a command. In metadata-only mode too, there may be objects that were
    /// kept before.
    #[must_use]
    pub fn kept_store_options(&self) -> Option<store::Options> {
        (self.keep == Keep::Objects || self.storage.is_dir()).then(|| self.options_of_storage())
    }

    fn options_of_storage(&self) -> store::Options {
        store::Options {
            directory: self.storage.clone(),
            sync: match self.durability {
                Durability::Full => store::Sync::Disk,
                Durability::Os => store::Sync::None,
            },
            min_free_bytes: self.min_free_bytes,
            beside: Some(directory_beside(&self.index)),
        }
    }

    /// Returns the options of the node's index writer.
    #[must_use]
    pub fn node_writer_options(&self) -> WriterOptions {
        WriterOptions {
            durability: self.durability,
            cache_bytes: self.cache_bytes,
            declared: Arc::clone(&self.declared),
            recording: self.events.recording,
            ..WriterOptions::default()
        }
    }

    /// Returns the settings that decide what a scan finds, with their names. All processes of a
    /// shared scan need the same.
    #[must_use]
    pub fn scan_rules(&self) -> BTreeMap<String, String> {
        let keys = [
            settings::SCAN_FULL.path(),
            settings::SCAN_INCLUDE.path(),
            settings::SCAN_EXCLUDE.path(),
            settings::SCAN_PRUNE.path(),
            settings::SCAN_PRUNE_EMPTIED.path(),
            settings::SCAN_RECALL.path(),
        ];
        let rule = |path: &str| (path.to_owned(), self.layers.setting(path).value.to_string());
        let mut rules: BTreeMap<String, String> = keys.into_iter().map(rule).collect();
        rules.insert("[[attribute]]".into(), self.declared.mark().to_owned());
        rules
    }

    /// Returns the options of a scan's index writer. Everything that it loses in a power cut is
    /// still in the archive.
    #[must_use]
    pub fn scan_writer_options(&self) -> WriterOptions {
        WriterOptions {
            durability: Durability::Os,
            cache_bytes: self.cache_bytes.min(SCAN_CACHE_BYTES),
            queue_length: SCAN_QUEUE_LENGTH,
            declared: Arc::clone(&self.declared),
            recording: self.events.recording,
            ..WriterOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Sources;
    use crate::db::ReceivePolicy;
    use crate::scp;

    #[test]
    fn the_defaults_of_the_table_are_those_of_the_modules() {
        let config = Config::load(&Sources::default(), Path::new("/nowhere")).unwrap();
        let of_module = scp::Options::new(config.node.ae_title.clone());
        assert_eq!(format!("{:?}", config.node), format!("{of_module:?}"));
        let beside = config.index.parent().map(Path::to_owned);
        let of_module = store::Options { beside, ..store::Options::new(config.storage.clone()) };
        assert_eq!(format!("{:?}", config.store_options().unwrap()), format!("{of_module:?}"));
        let of_module = crate::qr::Options {
            retrieve_ae_title: config.node.ae_title.to_string(),
            retrievable: crate::qr::Retrievable::KeptHere,
            ..crate::qr::Options::default()
        };
        assert_eq!(config.find, of_module);
        assert_eq!(config.retrieve, scp::RetrieveOptions::default());
        assert_eq!(config.node_writer_options().durability, Durability::Full);
        assert_eq!(config.receive, ReceivePolicy::default());
    }
}
