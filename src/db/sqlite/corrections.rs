//! Corrections of patient identifiers, as the index has them: asked by a [`SqliteReader`], changed
//! by the writer (docs/adr/0033).

use super::reader::SqliteReader;
use super::write::{corrections_of, plan_correction};
use super::writer::SqliteWriterHandle;
use crate::db::{Correction, CorrectionChange, CorrectionEffect, Error};

impl SqliteReader {
    /// All rules in the order of their numbers, those that were undone included.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn corrections(&mut self) -> Result<Vec<Correction>, Error> {
        Ok(corrections_of(&self.connection)?)
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
