//! Columns of the output of `dcmdex find`, and what an answer has in each.

use std::borrow::Cow;
use std::path::PathBuf;

use dicom_core::{Tag, VR};

use crate::encoding::vr;
use crate::model::calendar::moment_text;
use crate::model::find::FindAnswer;
use crate::model::level::QueryRetrieveLevel;
use crate::model::location::Location;
use crate::qr;

/// A column that is no attribute: it says where the object of an instance lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum OwnColumn {
    /// Path of the file, or of the archive file and the member in it.
    Path,
    /// Size of the file in bytes.
    Size,
    /// Time of the last change of the file, in UTC.
    Mtime,
}

impl OwnColumn {
    /// All of them.
    pub(in crate::cli) const ALL: [Self; 3] = [Self::Path, Self::Size, Self::Mtime];

    /// The name of the column.
    pub(in crate::cli) const fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Size => "size",
            Self::Mtime => "mtime",
        }
    }

    pub(in crate::cli) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|own| own.name() == name)
    }
}

/// Source of the value of a column.
#[derive(Clone, Debug)]
pub(in crate::cli) enum ColumnSource {
    /// A value of the answer. The path leads through the items of a sequence. Empty shows the
    /// whole sequence.
    Value { at: usize, path: Vec<Tag> },
    /// The place of the object.
    Own(OwnColumn),
    /// Nothing: only a node knows its Retrieve AE Title.
    Empty,
}

/// A column of the output.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Column {
    pub(in crate::cli) name: String,
    pub(in crate::cli) source: ColumnSource,
    pub(in crate::cli) vr: VR,
    /// Whether it is left out where a table has no room for it.
    pub(in crate::cli) yields: bool,
}

/// One answer, with the place of its object where a column needs it.
#[derive(Debug)]
pub(in crate::cli) struct FoundRow {
    pub(in crate::cli) answer: FindAnswer,
    pub(in crate::cli) location: Option<Location>,
}

/// The value of a column.
pub(in crate::cli) enum CellValue<'r> {
    Text(Cow<'r, str>),
    Number(u64),
    Path(PathBuf),
}

impl Column {
    /// Whether it shows a whole sequence, as the text of a JSON array.
    pub(in crate::cli) fn is_whole_sequence(&self) -> bool {
        matches!(&self.source, ColumnSource::Value { path, .. } if path.is_empty()) && self.vr == VR::SQ
    }

    /// Whether its values are ordered as numbers.
    pub(in crate::cli) fn is_number(&self) -> bool {
        match self.source {
            ColumnSource::Own(own) => own == OwnColumn::Size,
            ColumnSource::Value { .. } => vr::is_number(self.vr),
            ColumnSource::Empty => false,
        }
    }

    pub(in crate::cli) fn cell<'r>(&self, row: &'r FoundRow) -> CellValue<'r> {
        let own = match &self.source {
            ColumnSource::Value { at, path } => {
                let value = row.answer.values.text(*at);
                return CellValue::Text(match path.as_slice() {
                    [] => value.into(),
                    path => qr::values_in_items(value, path).into(),
                });
            }
            ColumnSource::Own(own) => own,
            ColumnSource::Empty => return CellValue::Text("".into()),
        };
        match (own, &row.location) {
            (OwnColumn::Path, Some(location)) => location.path().map_or(CellValue::Text("".into()), CellValue::Path),
            (OwnColumn::Size, Some(location)) => CellValue::Number(location.size),
            (OwnColumn::Mtime, Some(location)) => CellValue::Text(moment_text(location.mtime_ms).into()),
            (_, None) => CellValue::Text("".into()),
        }
    }
}

impl CellValue<'_> {
    /// The text of the value. Empty for a number or a path.
    pub(in crate::cli) fn into_text(self) -> String {
        match self {
            Self::Text(text) => text.into_owned(),
            Self::Number(_) | Self::Path(_) => String::new(),
        }
    }

    /// The value in UTF-8. What a path has beside it is U+FFFD: no reader takes a table in two
    /// encodings.
    pub(in crate::cli) fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Text(text) => text.as_bytes().into(),
            Self::Number(number) => number.to_string().into_bytes().into(),
            Self::Path(path) => path.to_string_lossy().into_owned().into_bytes().into(),
        }
    }
}

/// The columns of a table that names none. The last ones are shown where there is room.
pub(in crate::cli) fn of_table(level: QueryRetrieveLevel) -> (&'static [&'static str], &'static [&'static str]) {
    match level {
        QueryRetrieveLevel::Patient => (
            &["PatientID", "PatientName", "PatientBirthDate", "PatientSex", "NumberOfPatientRelatedStudies"],
            &["NumberOfPatientRelatedInstances"],
        ),
        QueryRetrieveLevel::Study => (
            &["StudyDate", "PatientID", "PatientName", "ModalitiesInStudy", "StudyDescription"],
            &["NumberOfStudyRelatedInstances", "StudyInstanceUID"],
        ),
        QueryRetrieveLevel::Series => (
            &["StudyDate", "PatientID", "Modality", "SeriesNumber", "SeriesDescription"],
            &["NumberOfSeriesRelatedInstances", "SeriesInstanceUID"],
        ),
        QueryRetrieveLevel::Image => {
            (&["StudyDate", "PatientID", "Modality", "SeriesNumber", "InstanceNumber"], &["SOPInstanceUID", "path"])
        }
    }
}
