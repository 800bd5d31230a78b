//! Problems of a study.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::datetime;

/// Reason for not indexing a file that a DICOMDIR lists and that does not exist.
pub const LISTED_AND_MISSING: &str = "dicomdir-file-missing";

/// The words for such a file of a study that is known. Its UID follows.
pub(super) const LISTED_AND_MISSING_OF: &str = "the DICOMDIR lists a file that does not exist, of study ";

/// Text that is kept about a file that a DICOMDIR lists and that does not exist. The study is empty
/// if the DICOMDIR does not say it.
#[must_use]
pub fn listed_and_missing(study_instance_uid: &str) -> String {
    match study_instance_uid {
        "" => "the DICOMDIR lists a file that does not exist".to_owned(),
        uid => format!("{LISTED_AND_MISSING_OF}{uid}"),
    }
}

/// Something that is wrong with a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StudyProblem {
    /// Objects with other content under the SOP Instance UID of another one.
    OtherContent,
    /// Objects name further patients.
    SeveralPatients,
    /// Its Patient ID is that of two people.
    TwoPeople,
    /// Studies of its patient have other names, birth dates or sexes.
    PatientDescribedDifferently,
    /// A Series Instance UID that another study has too.
    SeriesInTwoStudies,
    /// A UID that breaks PS3.5 9.1.
    InvalidUid,
    /// No Patient ID.
    NoPatientId,
    /// No Patient's Name.
    NoPatientName,
    /// No Study Date.
    NoStudyDate,
    /// No Accession Number.
    NoAccessionNumber,
    /// A series without a modality.
    NoModality,
    /// A date that is none.
    InvalidDate,
    /// A file that ends too early.
    Truncated,
    /// A file with another fault.
    Faults,
    /// A file that was gone when a scan looked.
    Missing,
    /// A file that a DICOMDIR lists and that does not exist.
    ListedAndMissing,
    /// A file that the DICOMDIR of its folder does not list.
    NotInDicomdir,
    /// Instance numbers between the first and the last of a series that no instance has.
    Gaps,
    /// Further files with the same content.
    Copies,
}

impl StudyProblem {
    /// All of them, the gravest first.
    pub const ALL: [Self; 19] = [
        Self::OtherContent,
        Self::SeveralPatients,
        Self::TwoPeople,
        Self::PatientDescribedDifferently,
        Self::SeriesInTwoStudies,
        Self::InvalidUid,
        Self::NoPatientId,
        Self::NoPatientName,
        Self::NoStudyDate,
        Self::NoAccessionNumber,
        Self::NoModality,
        Self::InvalidDate,
        Self::Truncated,
        Self::Faults,
        Self::Missing,
        Self::ListedAndMissing,
        Self::NotInDicomdir,
        Self::Gaps,
        Self::Copies,
    ];

    /// Values of a study or its patient that are missing.
    const OF_WHAT_IS_MISSING: [Self; 4] =
        [Self::NoPatientId, Self::NoPatientName, Self::NoStudyDate, Self::NoAccessionNumber];

    /// A stable word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtherContent => "other-content",
            Self::SeveralPatients => "several-patients",
            Self::TwoPeople => "patient-id-of-two-people",
            Self::PatientDescribedDifferently => "patient-described-differently",
            Self::SeriesInTwoStudies => "series-in-two-studies",
            Self::InvalidUid => "invalid-uid",
            Self::NoPatientId => "no-patient-id",
            Self::NoPatientName => "no-patient-name",
            Self::NoStudyDate => "no-study-date",
            Self::NoAccessionNumber => "no-accession-number",
            Self::NoModality => "no-modality",
            Self::InvalidDate => "invalid-date",
            Self::Truncated => "truncated",
            Self::Faults => "faulty-file",
            Self::Missing => "missing-file",
            Self::ListedAndMissing => LISTED_AND_MISSING,
            Self::NotInDicomdir => "not-in-dicomdir",
            Self::Gaps => "instance-number-gap",
            Self::Copies => "copies",
        }
    }
}

/// A study and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StudyReport {
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// Patient ID.
    pub patient_id: String,
    /// Patient's Name.
    pub patient_name: String,
    /// Patient's Birth Date.
    pub patient_birth_date: String,
    /// Study Date.
    pub study_date: String,
    /// Accession Number.
    pub accession_number: String,
    /// Modalities in Study, with a backslash between.
    pub modalities: String,
    /// Study Description.
    pub study_description: String,
    /// Number of series.
    pub series: u64,
    /// Number of instances.
    pub instances: u64,
    /// Problems, with the number of objects, series, patients or instance numbers that each is
    /// about.
    pub problems: BTreeMap<StudyProblem, u64>,
}

impl StudyReport {
    /// The report of a study from those of its parts. A value that one of them has is a value of
    /// the study. The numbers of series and instances are sums.
    pub(super) fn of_parts(parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().reduce(Self::with).unwrap_or_default()
    }

    /// Adds the problems that its values show.
    pub(super) fn add_of_values(&mut self) {
        let is_no_date = |text: &str| !text.is_empty() && datetime::one_day(text).is_none();
        for (is_so, problem) in [
            (self.patient_id.is_empty(), StudyProblem::NoPatientId),
            (self.patient_name.is_empty(), StudyProblem::NoPatientName),
            (self.study_date.is_empty(), StudyProblem::NoStudyDate),
            (self.accession_number.is_empty(), StudyProblem::NoAccessionNumber),
            (is_no_date(&self.study_date) || is_no_date(&self.patient_birth_date), StudyProblem::InvalidDate),
        ] {
            if is_so {
                self.problems.insert(problem, 1);
            }
        }
    }

    fn with(mut self, other: Self) -> Self {
        let lacks = |own: &Self, problem| own.problems.contains_key(&problem);
        for problem in StudyProblem::OF_WHAT_IS_MISSING {
            // A part that has the value says it for the other one.
            if lacks(&self, problem) != lacks(&other, problem) {
                self.problems.remove(&problem);
            }
        }
        for (problem, count) in other.problems {
            let is_missing = StudyProblem::OF_WHAT_IS_MISSING.contains(&problem);
            match self.problems.get_mut(&problem) {
                Some(own) if !is_missing => *own += count,
                None if !is_missing => drop(self.problems.insert(problem, count)),
                Some(_) | None => {}
            }
        }
        let modalities = self.modalities.split('\\').chain(other.modalities.split('\\'));
        let modalities: BTreeSet<&str> = modalities.filter(|modality| !modality.is_empty()).collect();
        self.modalities = modalities.into_iter().collect::<Vec<_>>().join("\\");
        for (own, other) in [
            (&mut self.patient_id, other.patient_id),
            (&mut self.patient_name, other.patient_name),
            (&mut self.patient_birth_date, other.patient_birth_date),
            (&mut self.study_date, other.study_date),
            (&mut self.accession_number, other.accession_number),
            (&mut self.study_description, other.study_description),
        ] {
            if own.is_empty() {
                *own = other;
            }
        }
        self.series += other.series;
        self.instances += other.instances;
        self
    }
}
