//! The entries of an arrival journal that a writer has met (docs/adr/0039).

use rusqlite::Connection;

use super::rows::Result;
use crate::db::JournalEntryId;

/// The entries of a journal that a writer has met.
#[derive(Debug, Default)]
pub(in super::super) struct JournalMark {
    journal: [u8; 16],
    /// The last entry that it met, also if it failed: none before it may be entered later.
    met: i64,
    /// Last of these entries that the index has.
    written: i64,
}

impl JournalMark {
    pub(in super::super) fn meet(&mut self, number: JournalEntryId) {
        let JournalEntryId { journal, number } = number;
        if self.journal != journal {
            *self = Self { journal, met: 0, written: 0 };
        }
        self.met = self.met.max(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Writes what it met as a part of the transaction that is open. Returns what the index has
    /// when that is committed.
    pub(in super::super) fn write(&self, connection: &Connection) -> Result<i64> {
        if self.met > self.written {
            let sql = "INSERT INTO arrival_journal (id, journal, decided) VALUES (0, ?1, ?2) \
                       ON CONFLICT (id) DO UPDATE SET journal = ?1, decided = ?2";
            connection.prepare_cached(sql)?.execute((self.journal, self.met))?;
        }
        Ok(self.met)
    }

    pub(in super::super) fn committed(&mut self, written: i64) {
        self.written = written;
    }
}
