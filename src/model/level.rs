//! Query/Retrieve Levels and Information Models (PS3.4 C.3, C.6).

use std::fmt;

use crate::encoding::padding::without_padding;

/// The level of an entity in the Query/Retrieve Information Model (PS3.4 C.3.1). It is the value of
/// (0008,0052).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueryRetrieveLevel {
    /// `PATIENT`
    Patient,
    /// `STUDY`
    Study,
    /// `SERIES`
    Series,
    /// `IMAGE`: Composite Object Instances of any kind, not only images.
    Image,
}

impl QueryRetrieveLevel {
    /// All levels, from the top of the hierarchy to the bottom.
    pub const ALL: [Self; 4] = [Self::Patient, Self::Study, Self::Series, Self::Image];

    /// Returns the defined term on the wire (PS3.4 C.4.1.1.3.1).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Patient => "PATIENT",
            Self::Study => "STUDY",
            Self::Series => "SERIES",
            Self::Image => "IMAGE",
        }
    }

    /// Parses the value of Query/Retrieve Level. It accepts padding, lower case, and `INSTANCE` for
    /// `IMAGE`, because deployed clients send them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = without_padding(text);
        if text.eq_ignore_ascii_case("INSTANCE") {
            return Some(Self::Image);
        }
        Self::ALL.into_iter().find(|level| text.eq_ignore_ascii_case(level.as_str()))
    }
}

impl fmt::Display for QueryRetrieveLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A Query/Retrieve Information Model (PS3.4 C.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InformationModel {
    /// Patient Root (PS3.4 C.6.1).
    PatientRoot,
    /// Study Root (PS3.4 C.6.2). Patient attributes belong to the study level.
    StudyRoot,
    /// Patient/Study Only. It is retired in PS3.4, but old clients still send it.
    PatientStudyOnly,
}

impl InformationModel {
    /// Whether a query at this level is defined in the model (PS3.4 C.6.1.1, C.6.2.1).
    #[must_use]
    pub const fn has_level(self, level: QueryRetrieveLevel) -> bool {
        match self {
            Self::PatientRoot => true,
            Self::StudyRoot => !matches!(level, QueryRetrieveLevel::Patient),
            Self::PatientStudyOnly => matches!(level, QueryRetrieveLevel::Patient | QueryRetrieveLevel::Study),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_as_clients_send_them() {
        assert_eq!(QueryRetrieveLevel::parse("STUDY "), Some(QueryRetrieveLevel::Study));
        assert_eq!(QueryRetrieveLevel::parse("image"), Some(QueryRetrieveLevel::Image));
        assert_eq!(QueryRetrieveLevel::parse("INSTANCE"), Some(QueryRetrieveLevel::Image));
        assert_eq!(QueryRetrieveLevel::parse("FRAME"), None);
        assert_eq!(QueryRetrieveLevel::parse(""), None);
    }

    #[test]
    fn study_root_has_no_patient_level() {
        assert!(!InformationModel::StudyRoot.has_level(QueryRetrieveLevel::Patient));
        assert!(InformationModel::PatientRoot.has_level(QueryRetrieveLevel::Patient));
        assert!(!InformationModel::PatientStudyOnly.has_level(QueryRetrieveLevel::Series));
    }
}
