//! One file of a federation.

use std::ops::ControlFlow;

use crate::db::{Admin, Error, ScanLedger, Search};

/// A description of a patient who has a Patient ID.
#[derive(Clone, Debug)]
pub struct DescribedPatient {
    /// Patient ID.
    pub patient_id: String,
    /// Issuer of the Patient ID.
    pub issuer: String,
    /// The component groups of the name in normal form.
    pub names: [String; 3],
    /// Birth date.
    pub birth_date: String,
    /// Number of its row.
    pub row: i64,
}

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

    /// Calls `on_patient` with each description that has a Patient ID, in the order of their IDs,
    /// until it says to stop.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn each_described(&mut self, on_patient: &mut dyn FnMut(DescribedPatient) -> ControlFlow<()>) -> Result<(), Error>;

    /// UID of the first study that leads to the description with this row number.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn study_of_description(&mut self, row: i64) -> Result<Option<String>, Error>;

    /// Calls `on_series` with the UID of each series and the row number of its study, until it says
    /// to stop. The UIDs ascend.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn each_series(&mut self, on_series: &mut dyn FnMut(String, i64) -> ControlFlow<()>) -> Result<(), Error>;
}
