//! The index: a path, or the address of a database.

use std::path::PathBuf;

use super::Config;
use super::check::Check;
use super::keys::settings;
use crate::db::EventRecording;
use crate::db::open::is_on_server;
use crate::db::postgres::PostgresAddress;

impl Check<'_> {
    /// Returns the index.
    pub(super) fn index(&mut self) -> PathBuf {
        let address = PathBuf::from(self.text(settings::INDEX));
        match PostgresAddress::of(&address) {
            Ok(None) => self.path(settings::INDEX),
            Ok(Some(_)) => address,
            Err(error) => {
                self.refuse(settings::INDEX.path(), error.to_string());
                address
            }
        }
    }

    /// Refuses what an index in a database does not have yet.
    pub(super) fn check_engine(&mut self, config: &Config) {
        if !is_on_server(&config.index) {
            return;
        }
        let mut refuse = |what: &str| {
            let message = format!("{what} want an SQLite index, and this one is in PostgreSQL");
            self.refuse(settings::INDEX.path(), message);
        };
        if config.events.recording != EventRecording::Off {
            refuse("events");
        }
        if config.worklist.enabled {
            refuse("worklists");
        }
        if config.journal_bytes > 0 {
            refuse("arrival journals");
        }
    }
}
