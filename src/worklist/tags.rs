//! The attributes of an item that the program itself looks at (PS3.4 table K.6-1).

use dicom_core::Tag;

pub(super) const SPECIFIC_CHARACTER_SET: Tag = Tag(0x0008, 0x0005);
pub(super) const ACCESSION_NUMBER: Tag = Tag(0x0008, 0x0050);
pub(super) const QUERY_RETRIEVE_LEVEL: Tag = Tag(0x0008, 0x0052);
pub(super) const QUERY_RETRIEVE_VIEW: Tag = Tag(0x0008, 0x0053);
pub(super) const MODALITY: Tag = Tag(0x0008, 0x0060);
pub(super) const CODE_MEANING: Tag = Tag(0x0008, 0x0104);
pub(super) const TIMEZONE_OFFSET_FROM_UTC: Tag = Tag(0x0008, 0x0201);
pub(super) const PATIENT_NAME: Tag = Tag(0x0010, 0x0010);
pub(super) const PATIENT_ID: Tag = Tag(0x0010, 0x0020);
pub(super) const ISSUER_OF_PATIENT_ID: Tag = Tag(0x0010, 0x0021);
pub(super) const STUDY_INSTANCE_UID: Tag = Tag(0x0020, 0x000D);
pub(super) const REQUESTED_PROCEDURE_DESCRIPTION: Tag = Tag(0x0032, 0x1060);
pub(super) const REQUESTED_PROCEDURE_CODE_SEQUENCE: Tag = Tag(0x0032, 0x1064);
pub(super) const SCHEDULED_STATION_AE_TITLE: Tag = Tag(0x0040, 0x0001);
pub(super) const START_DATE: Tag = Tag(0x0040, 0x0002);
pub(super) const START_TIME: Tag = Tag(0x0040, 0x0003);
pub(super) const PERFORMING_PHYSICIAN_NAME: Tag = Tag(0x0040, 0x0006);
pub(super) const STEP_DESCRIPTION: Tag = Tag(0x0040, 0x0007);
pub(super) const PROTOCOL_CODE_SEQUENCE: Tag = Tag(0x0040, 0x0008);
pub(super) const STEP_ID: Tag = Tag(0x0040, 0x0009);
pub(super) const STATION_NAME: Tag = Tag(0x0040, 0x0010);
pub(super) const STEP_LOCATION: Tag = Tag(0x0040, 0x0011);
pub(super) const STEP_STATUS: Tag = Tag(0x0040, 0x0020);
pub(super) const STEP_SEQUENCE: Tag = Tag(0x0040, 0x0100);
pub(super) const REQUESTED_PROCEDURE_ID: Tag = Tag(0x0040, 0x1001);
pub(super) const REFERRING_PHYSICIAN_NAME: Tag = Tag(0x0008, 0x0090);
pub(super) const CODE_VALUE: Tag = Tag(0x0008, 0x0100);
pub(super) const CODING_SCHEME_DESIGNATOR: Tag = Tag(0x0008, 0x0102);
pub(super) const PATIENT_BIRTH_DATE: Tag = Tag(0x0010, 0x0030);
pub(super) const PATIENT_SEX: Tag = Tag(0x0010, 0x0040);
pub(super) const PATIENT_SIZE: Tag = Tag(0x0010, 0x1020);
pub(super) const PATIENT_WEIGHT: Tag = Tag(0x0010, 0x1030);
pub(super) const MEDICAL_ALERTS: Tag = Tag(0x0010, 0x2000);
pub(super) const ALLERGIES: Tag = Tag(0x0010, 0x2110);
pub(super) const PREGNANCY_STATUS: Tag = Tag(0x0010, 0x21C0);
pub(super) const REQUESTING_PHYSICIAN: Tag = Tag(0x0032, 0x1032);
pub(super) const ISSUER_OF_ADMISSION_ID_SEQUENCE: Tag = Tag(0x0038, 0x0014);
pub(super) const ORDER_PLACER_IDENTIFIER_SEQUENCE: Tag = Tag(0x0040, 0x0026);
pub(super) const ORDER_FILLER_IDENTIFIER_SEQUENCE: Tag = Tag(0x0040, 0x0027);
pub(super) const LOCAL_NAMESPACE_ENTITY_ID: Tag = Tag(0x0040, 0x0031);
pub(super) const UNIVERSAL_ENTITY_ID: Tag = Tag(0x0040, 0x0032);
pub(super) const UNIVERSAL_ENTITY_ID_TYPE: Tag = Tag(0x0040, 0x0033);
pub(super) const REASON_FOR_REQUESTED_PROCEDURE_CODE_SEQUENCE: Tag = Tag(0x0040, 0x100A);
pub(super) const ADMISSION_ID: Tag = Tag(0x0038, 0x0010);
pub(super) const CURRENT_PATIENT_LOCATION: Tag = Tag(0x0038, 0x0300);
pub(super) const PATIENT_STATE: Tag = Tag(0x0038, 0x0500);
pub(super) const REASON_FOR_REQUESTED_PROCEDURE: Tag = Tag(0x0040, 0x1002);
pub(super) const REQUESTED_PROCEDURE_PRIORITY: Tag = Tag(0x0040, 0x1003);
pub(super) const PATIENT_TRANSPORT_ARRANGEMENTS: Tag = Tag(0x0040, 0x1004);
pub(super) const PLACER_ORDER_NUMBER: Tag = Tag(0x0040, 0x2016);
pub(super) const FILLER_ORDER_NUMBER: Tag = Tag(0x0040, 0x2017);
pub(super) const CONFIDENTIALITY_CONSTRAINT: Tag = Tag(0x0040, 0x3001);

/// Attributes that an item has in Scheduled Procedure Step Sequence only.
pub(super) const STEP_ATTRIBUTES: &[Tag] = &[
    MODALITY,
    SCHEDULED_STATION_AE_TITLE,
    START_DATE,
    START_TIME,
    PERFORMING_PHYSICIAN_NAME,
    STEP_DESCRIPTION,
    STEP_ID,
    STATION_NAME,
    STEP_LOCATION,
    STEP_STATUS,
];

/// Attributes with one value, which the index keeps for searching.
pub(super) const SINGLE_VALUES: &[Tag] = &[
    ACCESSION_NUMBER,
    PATIENT_NAME,
    PATIENT_ID,
    STUDY_INSTANCE_UID,
    MODALITY,
    START_DATE,
    START_TIME,
    PERFORMING_PHYSICIAN_NAME,
    STEP_ID,
];
