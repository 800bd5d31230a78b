//! One file of a federation.

use crate::db::{Admin, Error, ScanLedger, Search};

/// An index that can be one file of several.
pub trait FederatedPart: Search + ScanLedger + Admin + Send {
    /// Calls `on_study` with row number and UID of each study whose row number is above `after`, in
    /// no particular order.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn each_study(&mut self, after: Option<i64>, on_study: &mut dyn FnMut(i64, &str)) -> Result<(), Error>;

    /// UID of the study with this row number.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn study_at(&mut self, row: i64) -> Result<Option<String>, Error>;

    /// Row number and UID of the study that has the highest row number.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn last_study(&mut self) -> Result<Option<(i64, String)>, Error>;

    /// Whether a study is in this file.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn has_study(&mut self, study_instance_uid: &str) -> Result<bool, Error>;
}
