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
    /// Whether an entry was refused since the last commit that survives a power cut. A later object
    /// may take its place only if such a commit says so.
    has_refused: bool,
}

impl JournalMark {
    pub(in super::super) fn meet(&mut self, number: JournalEntryId) {
        let JournalEntryId { journal, number } = number;
        if self.journal != journal {
            *self = Self { journal, ..Self::default() };
        }
        self.met = self.met.max(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Meets an entry that is refused.
    pub(in super::super) fn refuse(&mut self, number: JournalEntryId) {
        self.meet(number);
        self.has_refused = true;
    }

    /// Whether the next commit must survive a power cut.
    pub(in super::super) fn has_refused(&self) -> bool {
        self.has_refused
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

    pub(in super::super) fn committed(&mut self, written: i64, is_flushed: bool) {
        self.written = written;
        self.has_refused &= !is_flushed;
    }
}
