//! SOP Classes of the Storage Service Class (PS3.4 annex B).

use dicom_core::dictionary::{UidDictionary, UidDictionaryEntry};
use dicom_dictionary_std::StandardSopClassDictionary;
use dicom_dictionary_std::uids;

use crate::model::uid::is_uid_shaped;

/// Root of the UIDs that the Standard itself assigns (PS3.5 9.2).
const DICOM_ROOT: &str = "1.2.840.10008.";

/// Root of the storage SOP Classes of the Standard. A newer edition than our dictionary may have
/// added some.
const STORAGE_ROOT: &str = "1.2.840.10008.5.1.4.1.1.";

/// SOP Classes that are named "Storage" but do not belong to the Storage Service Class of PS3.4
/// annex B.
///
/// Their objects have no patient, study and series (PS3.4 table GG.3-1), or exist only on media or
/// in print queues.
#[expect(deprecated, reason = "retired classes are still proposed by old peers")]
const NOT_STORAGE_SERVICE: &[&str] = &[
    uids::MEDIA_STORAGE_DIRECTORY_STORAGE,
    uids::STORAGE_COMMITMENT_PUSH_MODEL,
    uids::STORAGE_COMMITMENT_PULL_MODEL,
    uids::STORED_PRINT_STORAGE,
    uids::HANGING_PROTOCOL_STORAGE,
    uids::COLOR_PALETTE_STORAGE,
    uids::GENERIC_IMPLANT_TEMPLATE_STORAGE,
    uids::IMPLANT_ASSEMBLY_TEMPLATE_STORAGE,
    uids::IMPLANT_TEMPLATE_GROUP_STORAGE,
    uids::CT_DEFINED_PROCEDURE_PROTOCOL_STORAGE,
    uids::XA_DEFINED_PROCEDURE_PROTOCOL_STORAGE,
    uids::PROTOCOL_APPROVAL_STORAGE,
    uids::INVENTORY_STORAGE,
];

/// Whether a UID names a SOP Class of the Storage Service Class (PS3.4 annex B).
///
/// Every SOP Class that is not known to be something else is storage. So private SOP Classes, and
/// classes newer than the dictionary, are stored like any other.
#[must_use]
pub fn is_storage(uid: &str) -> bool {
    if !is_uid_shaped(uid) || NOT_STORAGE_SERVICE.contains(&uid) {
        return false;
    }
    if !uid.starts_with(DICOM_ROOT) {
        return true;
    }
    match StandardSopClassDictionary.by_uid(uid) {
        Some(entry) => entry.name().contains("Storage"),
        // The dictionary does not know the UID. It is a newer storage class, or a Meta SOP Class or
        // Well-known SOP Instance.
        None => uid.starts_with(STORAGE_ROOT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_classes_are_told_from_the_rest() {
        for storage in [
            uids::CT_IMAGE_STORAGE,
            uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
            "1.2.840.10008.5.1.4.1.1.6", // ultrasound, retired
            uids::RT_BEAMS_DELIVERY_INSTRUCTION_STORAGE,
            uids::CT_PERFORMED_PROCEDURE_PROTOCOL_STORAGE,
            "1.2.840.10008.5.1.4.1.1.999.1", // newer than the dictionary
            "1.3.12.2.1107.5.9.1",           // Siemens CSA Non-Image Storage
            "1.2.840.113619.4.26",           // GE private
        ] {
            assert!(is_storage(storage), "{storage}");
        }
        for other in [
            uids::VERIFICATION,
            uids::STORAGE_COMMITMENT_PUSH_MODEL,
            uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND,
            uids::COMPOSITE_INSTANCE_ROOT_RETRIEVE_GET,
            uids::MODALITY_WORKLIST_INFORMATION_MODEL_FIND,
            uids::MODALITY_PERFORMED_PROCEDURE_STEP,
            #[expect(deprecated, reason = "retired classes are still proposed by old peers")]
            uids::STORAGE_COMMITMENT_PULL_MODEL,
            uids::BASIC_GRAYSCALE_PRINT_MANAGEMENT_META,
            uids::MEDIA_STORAGE_DIRECTORY_STORAGE,
            uids::HANGING_PROTOCOL_STORAGE,
            uids::INVENTORY_FIND,
            uids::EXPLICIT_VR_LITTLE_ENDIAN,
            "1.2.840.10008.3.1.1.1",
            "",
            "../../etc/passwd",
        ] {
            assert!(!is_storage(other), "{other}");
        }
    }

    #[test]
    fn every_class_of_the_dictionary_below_the_storage_root_is_decided_by_its_name() {
        // The table lists classes whose names mislead. Each of them must exist.
        for uid in NOT_STORAGE_SERVICE {
            let entry =
                StandardSopClassDictionary.by_uid(uid).unwrap_or_else(|| panic!("{uid} is not in the dictionary"));
            assert!(entry.name().contains("Storage") || entry.name().contains("Stored"), "{uid}: {}", entry.name());
        }
    }
}
