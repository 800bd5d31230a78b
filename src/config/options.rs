//! Builds the options of each module from the settings.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Config, Duplicates, Keep, KeepKnown, StoreDurability};
use crate::access::policy::CalledAeTitle;
use crate::db::open::{WriterOptions, directory_beside};
use crate::db::{self, DuplicatePolicy, KnownPolicy, ReceivePolicy};
use crate::scanner::{self, BeforeListing, TapeFiles, Vanished};
use crate::scp;
use crate::store;

/// Maximum number of scan units that wait for the writer. Each holds up to [`scanner::UNIT_FILES`]
/// records. The writer takes a few thousand rows at once, so more units would only use memory.
const SCAN_QUEUE_LENGTH: usize = 12;

/// Maximum page cache of the writer of a scan. It writes at the end of each table and into the
/// small table of look-ups, so it needs no more. With twice as much it took 73 MB of memory at 1.6
/// million files.
const SCAN_CACHE_BYTES: u64 = 16 * 1024 * 1024;

impl Config {
    /// Returns the options of the network node.
    #[must_use]
    pub fn scp_options(&self) -> scp::Options {
        let network = &self.network;
        scp::Options {
            bind: network.bind,
            tls_bind: network.tls_bind,
            plain: self.plain,
            ae_title: self.ae_title.clone(),
            called_ae_title: match network.accept_any_called_ae {
                true => CalledAeTitle::Any,
                false => CalledAeTitle::OwnOnly,
            },
            max_associations: network.max_associations,
            max_associations_per_peer: network.max_associations_per_peer,
            max_unassociated_connections: network.max_unassociated_connections,
            artim_timeout: network.artim_timeout,
            idle_timeout: network.idle_timeout,
            read_timeout: network.read_timeout,
            write_timeout: network.write_timeout,
            query_time_limit: network.query_time_limit,
            drain_timeout: network.drain_timeout,
            preferred_transfer_syntaxes: network.preferred_transfer_syntaxes.clone(),
        }
    }

    /// Returns whether files of an archive that is indexed in place can be committed.
    #[must_use]
    pub fn files_in_place(&self) -> scp::FilesInPlace {
        if self.commit_in_place { scp::FilesInPlace::Count } else { scp::FilesInPlace::DoNotCount }
    }

    /// Returns the options of retrievals.
    #[must_use]
    pub fn retrieve_options(&self) -> scp::RetrieveOptions {
        scp::RetrieveOptions {
            hierarchy: self.find.hierarchy,
            assumed_character_set: self.find.assumed_character_set.clone(),
            max_instances: self.retrieve.max_instances,
            decompression: self.retrieve.decompression,
            response_timeout: self.retrieve.response_timeout,
            source_timeout: self.retrieve.source_timeout,
            verification_holds: self.integrity.verification_holds,
        }
    }

    /// Returns the options of the storage directory. `None` if no objects are kept.
    #[must_use]
    pub fn store_options(&self) -> Option<store::Options> {
        let options = |directory: PathBuf| store::Options {
            directory,
            sync: match self.durability {
                StoreDurability::Full => store::Sync::Disk,
                StoreDurability::Os => store::Sync::None,
            },
            min_free_bytes: self.min_free_bytes,
            beside: Some(directory_beside(&self.index)),
        };
        match self.keep {
            Keep::Objects => Some(options(self.storage.clone())),
            Keep::MetadataOnly => None,
        }
    }

    /// Returns the options of the node's index writer.
    #[must_use]
    pub fn node_writer_options(&self) -> WriterOptions {
        let durability = match self.durability {
            StoreDurability::Full => db::Durability::Full,
            StoreDurability::Os => db::Durability::Normal,
        };
        WriterOptions {
            durability,
            cache_bytes: self.cache_bytes,
            declared: Arc::clone(&self.declared),
            recording: self.events.recording,
            ..WriterOptions::default()
        }
    }

    /// Returns the options of a scan's index writer. Everything that it loses in a power cut is
    /// still in the archive.
    #[must_use]
    pub fn scan_writer_options(&self) -> WriterOptions {
        WriterOptions {
            durability: db::Durability::Normal,
            cache_bytes: self.cache_bytes.min(SCAN_CACHE_BYTES),
            queue_length: SCAN_QUEUE_LENGTH,
            declared: Arc::clone(&self.declared),
            recording: self.events.recording,
            ..WriterOptions::default()
        }
    }

    /// Returns how known instances are treated.
    #[must_use]
    pub fn receive_policy(&self) -> ReceivePolicy {
        ReceivePolicy {
            duplicates: match self.duplicates {
                Duplicates::KeepBoth => DuplicatePolicy::KeepBoth,
                Duplicates::KeepFirst => DuplicatePolicy::KeepFirst,
                Duplicates::Replace => DuplicatePolicy::Replace,
            },
            known: match self.keep_known {
                KeepKnown::Always => KnownPolicy::KeepOwn,
                KeepKnown::TrustArchive => KnownPolicy::TrustArchive,
            },
        }
    }

    /// Returns the options of scans.
    #[must_use]
    pub fn scanner_options(&self) -> scanner::Options {
        scanner::Options {
            jobs: self.scan_jobs,
            full: self.scan_full,
            filter: self.scan_filter.clone(),
            order: self.scan_order,
            throttle: self.scan_throttle,
            read_timeout: self.scan_read_timeout,
            settling: None,
            tape_files: if self.scan_recall { TapeFiles::Recall } else { TapeFiles::Leave },
            before_listing: BeforeListing::default(),
            vanished: match (self.scan_prune, self.scan_prune_emptied) {
                (false, _) => Vanished::Keep,
                (true, false) => Vanished::Prune,
                (true, true) => Vanished::PruneEmptied,
            },
            index: self.index.clone(),
            storage: self.storage.clone(),
            declared: Arc::clone(&self.declared),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Sources;

    #[test]
    fn the_defaults_of_the_table_are_those_of_the_modules() {
        let config = Config::load(&Sources::default(), Path::new("/nowhere")).unwrap();
        let of_module = scp::Options::new(config.ae_title.clone());
        assert_eq!(format!("{:?}", config.scp_options()), format!("{of_module:?}"));
        let beside = config.index.parent().map(Path::to_owned);
        let of_module = store::Options { beside, ..store::Options::new(config.storage.clone()) };
        assert_eq!(format!("{:?}", config.store_options().unwrap()), format!("{of_module:?}"));
        let of_module = crate::qr::Options {
            retrieve_ae_title: config.ae_title.to_string(),
            retrievable: crate::qr::Retrievable::KeptHere,
            ..crate::qr::Options::default()
        };
        assert_eq!(config.find, of_module);
        assert_eq!(config.retrieve_options(), scp::RetrieveOptions::default());
        assert_eq!(config.node_writer_options().durability, db::Durability::Full);
        assert_eq!(config.receive_policy(), ReceivePolicy::default());
    }
}
