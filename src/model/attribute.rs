//! The table of attributes: what the index keeps, at which level, and how it is matched.
//!
//! [`ATTRIBUTES`] is the only such table. The header reader takes its list of wanted tags from it,
//! and the index takes its columns. The checks of an Identifier, the query compiler, the answers
//! and the conformance tables use it as well. PS3.4 C.6.1.1 and C.6.2.1 name the unique and
//! required keys. The optional keys are those that real clients send.

use std::fmt;

use dicom_core::{Tag, VR};

use super::level::QueryRetrieveLevel;

/// Allowed use of an attribute as a key (PS3.4 C.2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// Identifies the entity of its level (PS3.4 C.2.2.1.1).
    Unique,
    /// Matched and returned by every SCP (PS3.4 C.2.2.1.2).
    Required,
    /// Matched and returned by this SCP, but not by every one (PS3.4 C.2.2.1.3).
    Optional,
}

/// Source of the value in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// Read from the data set and kept in the column named by [`Attribute::column`].
    DataSet,
    /// Kept like [`ValueSource::DataSet`], but taken from the File Meta Information or the
    /// presentation context.
    TransferSyntax,
    /// Computed from the index or from the configuration.
    Computed,
    /// Retired. The key is accepted, has no effect, and is always answered with zero length.
    AlwaysEmpty,
}

/// Whether case matters when text is compared.
///
/// PS3.4 C.2.2.2.1 leaves this to the SCP for PN only. For descriptive text, users of a search
/// field expect folding. The conformance statement says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterCase {
    /// `a` and `A` are different.
    Sensitive,
    /// `a` and `A` are equal. Accents and character width are ignored as well.
    Folded,
}

impl LetterCase {
    /// Returns how values of an attribute that is not in the table are compared. As in the table,
    /// text is folded, and codes are not.
    #[must_use]
    pub fn of_vr(vr: VR) -> Self {
        match vr {
            VR::PN | VR::LT | VR::ST | VR::UT | VR::UC => Self::Folded,
            _ => Self::Sensitive,
        }
    }
}

/// Number of values that the dictionary allows (PS3.6 column VM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multiplicity {
    /// Exactly one. Some objects break this rule. If the text has a backslash, it is matched as a
    /// whole and as the values between the backslashes.
    One,
    /// Several, separated by a backslash. A key matches if it matches any of them (PS3.4 C.2.2.3).
    Many,
}

/// One row of the table.
#[derive(Debug)]
pub struct Attribute {
    /// Number of the attribute: its position in [`ATTRIBUTES`].
    pub id: AttributeId,
    /// Tag (PS3.6).
    pub tag: Tag,
    /// Keyword (PS3.6).
    pub keyword: &'static str,
    /// Column in the index: the keyword in snake case.
    pub column: &'static str,
    /// Value representation (PS3.6). If the dictionary allows several, it is the first.
    pub vr: VR,
    /// Value multiplicity.
    pub multiplicity: Multiplicity,
    /// Level of the entity that has the attribute.
    pub level: QueryRetrieveLevel,
    /// Allowed use of the attribute as a key.
    pub key: KeyType,
    /// Source of the value.
    pub source: ValueSource,
    /// Comparison of text of the attribute.
    pub letter_case: LetterCase,
}

impl Attribute {
    /// Returns the attribute with this tag, if it is in the table.
    #[must_use]
    pub fn by_tag(tag: Tag) -> Option<&'static Self> {
        BY_TAG.get_or_init(sorted_by_tag).binary_search_by_key(&tag, |id| id.attribute().tag).ok().map(|at| {
            let sorted = BY_TAG.get_or_init(sorted_by_tag);
            sorted[at].attribute()
        })
    }

    /// Returns the attribute with this keyword. The spelling must be that of PS3.6.
    #[must_use]
    pub fn by_keyword(keyword: &str) -> Option<&'static Self> {
        ATTRIBUTES.iter().find(|attribute| attribute.keyword == keyword)
    }

    /// Returns the attribute that is kept in this column.
    #[must_use]
    pub fn by_column(column: &str) -> Option<&'static Self> {
        ATTRIBUTES.iter().find(|attribute| attribute.column == column)
    }

    /// Whether the value is kept in a column of the index.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self.source, ValueSource::DataSet | ValueSource::TransferSyntax)
    }
}

static BY_TAG: std::sync::OnceLock<Vec<AttributeId>> = std::sync::OnceLock::new();

fn sorted_by_tag() -> Vec<AttributeId> {
    let mut ids: Vec<_> = ATTRIBUTES.iter().map(|attribute| attribute.id).collect();
    ids.sort_by_key(|id| id.attribute().tag);
    ids
}

impl AttributeId {
    /// Returns the row of the table.
    #[must_use]
    pub fn attribute(self) -> &'static Attribute {
        &ATTRIBUTES[self as usize]
    }
}

impl fmt::Display for AttributeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.attribute().keyword)
    }
}

/// Number of attributes in the table.
pub const ATTRIBUTE_COUNT: usize = ATTRIBUTES.len();

macro_rules! attributes {
    ($($keyword:ident $column:literal ($group:literal, $element:literal) $vr:ident $vm:ident $level:ident $key:ident $source:ident $case:ident;)*) => {
        /// Number of an attribute: its position in [`ATTRIBUTES`]. It may change between versions,
        /// so it is never stored.
        #[allow(clippy::upper_case_acronyms)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "each is the keyword of PS3.6")]
        pub enum AttributeId { $($keyword),* }

        /// All attributes that the index keeps.
        pub const ATTRIBUTES: &[Attribute] = &[$(Attribute {
            id: AttributeId::$keyword,
            tag: Tag($group, $element),
            keyword: stringify!($keyword),
            column: $column,
            vr: VR::$vr,
            multiplicity: Multiplicity::$vm,
            level: QueryRetrieveLevel::$level,
            key: KeyType::$key,
            source: ValueSource::$source,
            letter_case: LetterCase::$case,
        }),*];
    };
}

attributes! {
    // keyword                        column                             tag               VR VM
    // level   key      source         case PS3.4 table C.6-1
    PatientName                       "patient_name"                     (0x0010, 0x0010) PN One  Patient Required DataSet        Folded;
    PatientID                         "patient_id"                       (0x0010, 0x0020) LO One  Patient Unique   DataSet        Sensitive;
    IssuerOfPatientID                 "issuer_of_patient_id"             (0x0010, 0x0021) LO One  Patient Optional DataSet        Sensitive;
    PatientBirthDate                  "patient_birth_date"               (0x0010, 0x0030) DA One  Patient Optional DataSet        Sensitive;
    PatientBirthTime                  "patient_birth_time"               (0x0010, 0x0032) TM One  Patient Optional DataSet        Sensitive;
    PatientSex                        "patient_sex"                      (0x0010, 0x0040) CS One  Patient Optional DataSet        Sensitive;
    OtherPatientIDs                   "other_patient_ids"                (0x0010, 0x1000) LO Many Patient Optional DataSet        Sensitive;
    OtherPatientNames                 "other_patient_names"              (0x0010, 0x1001) PN Many Patient Optional DataSet        Folded;
    OtherPatientIDsSequence           "other_patient_ids_sequence"       (0x0010, 0x1002) SQ One  Patient Optional DataSet        Sensitive;
    EthnicGroup                       "ethnic_group"                     (0x0010, 0x2160) SH One  Patient Optional DataSet        Folded;
    PatientComments                   "patient_comments"                 (0x0010, 0x4000) LT One  Patient Optional DataSet        Folded;
    ReferencedPatientSequence         "referenced_patient_sequence"      (0x0008, 0x1120) SQ One  Patient Optional DataSet        Sensitive;
    NumberOfPatientRelatedStudies     "number_of_patient_related_studies"   (0x0020, 0x1200) IS One  Patient Optional Computed    Sensitive;
    NumberOfPatientRelatedSeries      "number_of_patient_related_series"    (0x0020, 0x1202) IS One  Patient Optional Computed    Sensitive;
    NumberOfPatientRelatedInstances   "number_of_patient_related_instances" (0x0020, 0x1204) IS One  Patient Optional Computed    Sensitive;

    // PS3.4 tables C.6-2 and C.6-5
    StudyInstanceUID                  "study_instance_uid"               (0x0020, 0x000D) UI One  Study   Unique   DataSet        Sensitive;
    StudyDate                         "study_date"                       (0x0008, 0x0020) DA One  Study   Required DataSet        Sensitive;
    StudyTime                         "study_time"                       (0x0008, 0x0030) TM One  Study   Required DataSet        Sensitive;
    AccessionNumber                   "accession_number"                 (0x0008, 0x0050) SH One  Study   Required DataSet        Sensitive;
    StudyID                           "study_id"                         (0x0020, 0x0010) SH One  Study   Required DataSet        Sensitive;
    StudyDescription                  "study_description"                (0x0008, 0x1030) LO One  Study   Optional DataSet        Folded;
    ReferringPhysicianName            "referring_physician_name"         (0x0008, 0x0090) PN One  Study   Optional DataSet        Folded;
    PhysiciansOfRecord                "physicians_of_record"             (0x0008, 0x1048) PN Many Study   Optional DataSet        Folded;
    NameOfPhysiciansReadingStudy      "name_of_physicians_reading_study" (0x0008, 0x1060) PN Many Study   Optional DataSet        Folded;
    AdmittingDiagnosesDescription     "admitting_diagnoses_description"  (0x0008, 0x1080) LO Many Study   Optional DataSet        Folded;
    IssuerOfAccessionNumberSequence   "issuer_of_accession_number_sequence" (0x0008, 0x0051) SQ One  Study Optional DataSet       Sensitive;
    ProcedureCodeSequence             "procedure_code_sequence"          (0x0008, 0x1032) SQ One  Study   Optional DataSet        Sensitive;
    ReferencedStudySequence           "referenced_study_sequence"        (0x0008, 0x1110) SQ One  Study   Optional DataSet        Sensitive;
    PatientAge                        "patient_age"                      (0x0010, 0x1010) AS One  Study   Optional DataSet        Sensitive;
    PatientSize                       "patient_size"                     (0x0010, 0x1020) DS One  Study   Optional DataSet        Sensitive;
    PatientWeight                     "patient_weight"                   (0x0010, 0x1030) DS One  Study   Optional DataSet        Sensitive;
    Occupation                        "occupation"                       (0x0010, 0x2180) SH One  Study   Optional DataSet        Folded;
    AdditionalPatientHistory          "additional_patient_history"       (0x0010, 0x21B0) LT One  Study   Optional DataSet        Folded;
    AdmissionID                       "admission_id"                     (0x0038, 0x0010) LO One  Study   Optional DataSet        Sensitive;
    OtherStudyNumbers                 "other_study_numbers"              (0x0020, 0x1070) IS Many Study   Optional DataSet        Sensitive;
    RequestedProcedureDescription     "requested_procedure_description"  (0x0032, 0x1060) LO One  Study   Optional DataSet        Folded;
    StudyComments                     "study_comments"                   (0x0032, 0x4000) LT One  Study   Optional DataSet        Folded;
    TimezoneOffsetFromUTC             "timezone_offset_from_utc"         (0x0008, 0x0201) SH One  Study   Optional DataSet        Sensitive;
    StudyStatusID                     "study_status_id"                  (0x0032, 0x000A) CS One  Study   Optional AlwaysEmpty    Sensitive;
    InterpretationStatusID            "interpretation_status_id"         (0x4008, 0x0212) CS One  Study   Optional AlwaysEmpty    Sensitive;
    ModalitiesInStudy                 "modalities_in_study"              (0x0008, 0x0061) CS Many Study   Optional Computed       Sensitive;
    SOPClassesInStudy                 "sop_classes_in_study"             (0x0008, 0x0062) UI Many Study   Optional Computed       Sensitive;
    AnatomicRegionsInStudyCodeSequence "anatomic_regions_in_study_code_sequence" (0x0008, 0x0063) SQ One Study Optional Computed   Sensitive;
    NumberOfStudyRelatedSeries        "number_of_study_related_series"   (0x0020, 0x1206) IS One  Study   Optional Computed       Sensitive;
    NumberOfStudyRelatedInstances     "number_of_study_related_instances" (0x0020, 0x1208) IS One  Study  Optional Computed       Sensitive;

    // PS3.4 table C.6-3
    SeriesInstanceUID                 "series_instance_uid"              (0x0020, 0x000E) UI One  Series  Unique   DataSet        Sensitive;
    Modality                          "modality"                         (0x0008, 0x0060) CS One  Series  Required DataSet        Sensitive;
    SeriesNumber                      "series_number"                    (0x0020, 0x0011) IS One  Series  Required DataSet        Sensitive;
    SeriesDescription                 "series_description"               (0x0008, 0x103E) LO One  Series  Optional DataSet        Folded;
    SeriesDate                        "series_date"                      (0x0008, 0x0021) DA One  Series  Optional DataSet        Sensitive;
    SeriesTime                        "series_time"                      (0x0008, 0x0031) TM One  Series  Optional DataSet        Sensitive;
    BodyPartExamined                  "body_part_examined"               (0x0018, 0x0015) CS One  Series  Optional DataSet        Sensitive;
    AnatomicRegionSequence            "anatomic_region_sequence"         (0x0008, 0x2218) SQ One  Series  Optional DataSet        Sensitive;
    Laterality                        "laterality"                       (0x0020, 0x0060) CS One  Series  Optional DataSet        Sensitive;
    PatientPosition                   "patient_position"                 (0x0018, 0x5100) CS One  Series  Optional DataSet        Sensitive;
    ProtocolName                      "protocol_name"                    (0x0018, 0x1030) LO One  Series  Optional DataSet        Folded;
    StationName                       "station_name"                     (0x0008, 0x1010) SH One  Series  Optional DataSet        Folded;
    InstitutionName                   "institution_name"                 (0x0008, 0x0080) LO One  Series  Optional DataSet        Folded;
    InstitutionAddress                "institution_address"              (0x0008, 0x0081) ST One  Series  Optional DataSet        Folded;
    InstitutionCodeSequence           "institution_code_sequence"        (0x0008, 0x0082) SQ One  Series  Optional DataSet        Sensitive;
    InstitutionalDepartmentName       "institutional_department_name"    (0x0008, 0x1040) LO One  Series  Optional DataSet        Folded;
    Manufacturer                      "manufacturer"                     (0x0008, 0x0070) LO One  Series  Optional DataSet        Folded;
    ManufacturerModelName             "manufacturer_model_name"          (0x0008, 0x1090) LO One  Series  Optional DataSet        Folded;
    DeviceSerialNumber                "device_serial_number"             (0x0018, 0x1000) LO One  Series  Optional DataSet        Sensitive;
    SoftwareVersions                  "software_versions"                (0x0018, 0x1020) LO Many Series  Optional DataSet        Sensitive;
    PerformingPhysicianName           "performing_physician_name"        (0x0008, 0x1050) PN Many Series  Optional DataSet        Folded;
    OperatorsName                     "operators_name"                   (0x0008, 0x1070) PN Many Series  Optional DataSet        Folded;
    FrameOfReferenceUID               "frame_of_reference_uid"           (0x0020, 0x0052) UI One  Series  Optional DataSet        Sensitive;
    PerformedProcedureStepStartDate   "performed_procedure_step_start_date" (0x0040, 0x0244) DA One Series Optional DataSet       Sensitive;
    PerformedProcedureStepStartTime   "performed_procedure_step_start_time" (0x0040, 0x0245) TM One Series Optional DataSet       Sensitive;
    PerformedProcedureStepID          "performed_procedure_step_id"      (0x0040, 0x0253) SH One  Series  Optional DataSet        Sensitive;
    PerformedProcedureStepDescription "performed_procedure_step_description" (0x0040, 0x0254) LO One Series Optional DataSet      Folded;
    RequestAttributesSequence         "request_attributes_sequence"      (0x0040, 0x0275) SQ One  Series  Optional DataSet        Sensitive;
    NumberOfSeriesRelatedInstances    "number_of_series_related_instances" (0x0020, 0x1209) IS One Series Optional Computed       Sensitive;

    // PS3.4 table C.6-4
    SOPInstanceUID                    "sop_instance_uid"                 (0x0008, 0x0018) UI One  Image   Unique   DataSet        Sensitive;
    InstanceNumber                    "instance_number"                  (0x0020, 0x0013) IS One  Image   Required DataSet        Sensitive;
    SOPClassUID                       "sop_class_uid"                    (0x0008, 0x0016) UI One  Image   Optional DataSet        Sensitive;
    AvailableTransferSyntaxUID        "available_transfer_syntax_uid"    (0x0008, 0x3002) UI One  Image   Optional TransferSyntax Sensitive;
    RelatedGeneralSOPClassUID         "related_general_sop_class_uid"    (0x0008, 0x001A) UI Many Image   Optional DataSet        Sensitive;
    SpecificCharacterSet              "specific_character_set"           (0x0008, 0x0005) CS Many Image   Optional DataSet        Sensitive;
    ImageType                         "image_type"                       (0x0008, 0x0008) CS Many Image   Optional DataSet        Sensitive;
    InstanceCreationDate              "instance_creation_date"           (0x0008, 0x0012) DA One  Image   Optional DataSet        Sensitive;
    InstanceCreationTime              "instance_creation_time"           (0x0008, 0x0013) TM One  Image   Optional DataSet        Sensitive;
    AcquisitionDate                   "acquisition_date"                 (0x0008, 0x0022) DA One  Image   Optional DataSet        Sensitive;
    AcquisitionTime                   "acquisition_time"                 (0x0008, 0x0032) TM One  Image   Optional DataSet        Sensitive;
    AcquisitionDateTime               "acquisition_date_time"            (0x0008, 0x002A) DT One  Image   Optional DataSet        Sensitive;
    AcquisitionNumber                 "acquisition_number"               (0x0020, 0x0012) IS One  Image   Optional DataSet        Sensitive;
    ContentDate                       "content_date"                     (0x0008, 0x0023) DA One  Image   Optional DataSet        Sensitive;
    ContentTime                       "content_time"                     (0x0008, 0x0033) TM One  Image   Optional DataSet        Sensitive;
    ImageLaterality                   "image_laterality"                 (0x0020, 0x0062) CS One  Image   Optional DataSet        Sensitive;
    ViewPosition                      "view_position"                    (0x0018, 0x5101) CS One  Image   Optional DataSet        Sensitive;
    NumberOfFrames                    "number_of_frames"                 (0x0028, 0x0008) IS One  Image   Optional DataSet        Sensitive;
    Rows                              "rows"                             (0x0028, 0x0010) US One  Image   Optional DataSet        Sensitive;
    Columns                           "columns"                          (0x0028, 0x0011) US One  Image   Optional DataSet        Sensitive;
    BitsAllocated                     "bits_allocated"                   (0x0028, 0x0100) US One  Image   Optional DataSet        Sensitive;
    PhotometricInterpretation         "photometric_interpretation"       (0x0028, 0x0004) CS One  Image   Optional DataSet        Sensitive;
    AlternateRepresentationSequence   "alternate_representation_sequence" (0x0008, 0x3001) SQ One Image   Optional DataSet        Sensitive;
    ConceptNameCodeSequence           "concept_name_code_sequence"       (0x0040, 0xA043) SQ One  Image   Optional DataSet        Sensitive;
    CompletionFlag                    "completion_flag"                  (0x0040, 0xA491) CS One  Image   Optional DataSet        Sensitive;
    VerificationFlag                  "verification_flag"                (0x0040, 0xA493) CS One  Image   Optional DataSet        Sensitive;
    ContentTemplateSequence           "content_template_sequence"        (0x0040, 0xA504) SQ One  Image   Optional DataSet        Sensitive;
    ContainerIdentifier               "container_identifier"             (0x0040, 0x0512) LO One  Image   Optional DataSet        Sensitive;
    SpecimenDescriptionSequence       "specimen_description_sequence"    (0x0040, 0x0560) SQ One  Image   Optional DataSet        Sensitive;

    // PS3.4 C.4.1.1.3.2: the same for every level, because these describe the answering node
    InstanceAvailability              "instance_availability"            (0x0008, 0x0056) CS One  Image   Optional Computed       Sensitive;
    RetrieveAETitle                   "retrieve_ae_title"                (0x0008, 0x0054) AE Many Image   Optional Computed       Sensitive;
}

#[cfg(test)]
mod tests {
    use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
    use dicom_dictionary_std::StandardDataDictionary;

    use super::*;

    #[test]
    fn every_row_agrees_with_the_data_dictionary() {
        for (at, attribute) in ATTRIBUTES.iter().enumerate() {
            let entry = StandardDataDictionary.by_tag(attribute.tag).expect("the dictionary knows the tag");
            assert_eq!(entry.alias, attribute.keyword, "{}", attribute.tag);
            assert_eq!(entry.vr().relaxed(), attribute.vr, "{}", attribute.keyword);
            assert_eq!(attribute.id as usize, at);
        }
    }

    #[test]
    fn the_column_is_the_keyword_in_snake_case() {
        for attribute in ATTRIBUTES {
            let squeezed: String = attribute.column.chars().filter(|c| *c != '_').collect();
            assert_eq!(squeezed, attribute.keyword.to_lowercase());
        }
    }

    #[test]
    fn tags_and_columns_are_unique() {
        let tags: std::collections::HashSet<_> = ATTRIBUTES.iter().map(|attribute| attribute.tag).collect();
        let columns: std::collections::HashSet<_> = ATTRIBUTES.iter().map(|attribute| attribute.column).collect();
        assert_eq!((tags.len(), columns.len()), (ATTRIBUTE_COUNT, ATTRIBUTE_COUNT));
    }

    #[test]
    fn each_level_has_one_unique_key() {
        for level in QueryRetrieveLevel::ALL {
            let unique = ATTRIBUTES.iter().filter(|a| a.level == level && a.key == KeyType::Unique).count();
            assert_eq!(unique, 1, "{level}");
        }
    }

    #[test]
    fn an_attribute_is_found_by_tag_keyword_and_column() {
        for attribute in ATTRIBUTES {
            assert_eq!(Attribute::by_tag(attribute.tag).map(|found| found.id), Some(attribute.id));
            assert_eq!(Attribute::by_keyword(attribute.keyword).map(|found| found.id), Some(attribute.id));
            assert_eq!(Attribute::by_column(attribute.column).map(|found| found.id), Some(attribute.id));
        }
        assert!(Attribute::by_tag(Tag(0x0009, 0x0010)).is_none());
    }
}
