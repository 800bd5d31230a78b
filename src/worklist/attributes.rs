//! Attributes of an item that the program treats in a way of their own (PS3.4 table K.6-1).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

/// Attributes that an item has in Scheduled Procedure Step Sequence only.
pub(super) const STEP_ATTRIBUTES: &[Tag] = &[
    tags::MODALITY,
    tags::SCHEDULED_STATION_AE_TITLE,
    tags::SCHEDULED_PROCEDURE_STEP_START_DATE,
    tags::SCHEDULED_PROCEDURE_STEP_START_TIME,
    tags::SCHEDULED_PERFORMING_PHYSICIAN_NAME,
    tags::SCHEDULED_PROCEDURE_STEP_DESCRIPTION,
    tags::SCHEDULED_PROCEDURE_STEP_ID,
    tags::SCHEDULED_STATION_NAME,
    tags::SCHEDULED_PROCEDURE_STEP_LOCATION,
    tags::SCHEDULED_PROCEDURE_STEP_STATUS,
];

/// Attributes with one value, which the index keeps for searching.
pub(super) const SINGLE_VALUES: &[Tag] = &[
    tags::ACCESSION_NUMBER,
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::STUDY_INSTANCE_UID,
    tags::MODALITY,
    tags::SCHEDULED_PROCEDURE_STEP_START_DATE,
    tags::SCHEDULED_PROCEDURE_STEP_START_TIME,
    tags::SCHEDULED_PERFORMING_PHYSICIAN_NAME,
    tags::SCHEDULED_PROCEDURE_STEP_ID,
];
