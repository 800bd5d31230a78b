//! Corrections of patient identifiers, as the index has them: asked by a [`SqliteReader`], changed
//! by the writer (docs/adr/0033).

use std::sync::Arc;

use super::reader::SqliteReader;
use super::write::{corrections_of, plan_correction, values_of_group};
use super::writer::SqliteWriterHandle;
use crate::db::{CorrectedValues, Correction, CorrectionChange, CorrectionEffect, Corrections, Error};

impl SqliteReader {
    /// All rules in the order of their numbers, those that were undone included.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn corrections(&mut self) -> Result<Vec<Correction>, Error> {
        Ok(corrections_of(&self.connection)?)
    }

    /// Whether any correction holds.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn has_corrections(&mut self) -> Result<bool, Error> {
        Ok(!self.current_corrections()?.is_empty())
    }

    /// The corrections that hold. They are read again when another process or thread has written.
    fn current_corrections(&mut self) -> rusqlite::Result<Arc<Corrections>> {
        let version = self.data_version()?;
        match &self.corrections {
            Some((known, corrections)) if *known == version => Ok(Arc::clone(corrections)),
            Some(_) | None => {
                let corrections = Arc::new(Corrections::new(corrections_of(&self.connection)?));
                self.corrections = Some((version, Arc::clone(&corrections)));
                Ok(corrections)
            }
        }
    }

    /// Values that corrections replace in the objects of an instance group.
    pub(super) fn corrected_values(&mut self, group: i64) -> rusqlite::Result<Option<Arc<CorrectedValues>>> {
        let corrections = self.current_corrections()?;
        if corrections.is_empty() {
            return Ok(None);
        }
        Ok(values_of_group(&self.connection, &corrections, group)?.map(Arc::new))
    }

    /// Says what [`SqliteWriterHandle::correct`] would do.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn plan_correction(&mut self, change: &CorrectionChange) -> Result<CorrectionEffect, Error> {
        let transaction = self.connection.unchecked_transaction()?;
        let effect = plan_correction(&transaction, change)?;
        transaction.finish()?;
        Ok(effect)
    }
}

impl SqliteWriterHandle {
    /// Changes the rules, and all answers with them. Returns the number of the rule.
    ///
    /// *Durability*: the change is committed when this returns, in one transaction.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    pub fn correct(&self, change: CorrectionChange) -> Result<(i64, CorrectionEffect), Error> {
        self.maintain(move |batch| batch.correct(&change))
    }
}
