//! Pseudonyms: a closed list of attributes, with UIDs and IDs replaced by keyed hashes. Dates are
//! shifted by a number of days that each patient has for itself (ADR 0034).
//!
//! The same key file gives the same pseudonyms, so that exports can be joined. Who has the key file
//! can find out which pseudonym is whose.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::Error;
use crate::files::{PRIVATE_MODE, write_new};
use crate::model::attribute::AttributeId::{self, *};

/// First word of a key file.
const KEY_FILE_MARK: &str = "dcmdex-pseudonym-key-1";

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Dates move into the past by 1 to this many days.
const LONGEST_SHIFT: u64 = 3650;

/// Treatment of the values of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// They stay.
    Keep,
    /// A UID becomes another UID.
    HashUid,
    /// An identifier becomes another one.
    HashId,
    /// A date moves by the days of its patient. A value that is no date goes.
    Shift,
}

/// Treatment of an attribute. `None` if it is not in the list, and must be left out.
#[must_use]
pub fn treatment(id: AttributeId) -> Option<Treatment> {
    Some(match id {
        PatientID | AccessionNumber | StudyID => Treatment::HashId,
        StudyInstanceUID | SeriesInstanceUID | SOPInstanceUID | FrameOfReferenceUID => Treatment::HashUid,
        PatientBirthDate
        | StudyDate
        | SeriesDate
        | AcquisitionDate
        | ContentDate
        | InstanceCreationDate
        | PerformedProcedureStepStartDate => Treatment::Shift,
        PatientSex
        | PatientAge
        | PatientSize
        | PatientWeight
        | NumberOfPatientRelatedStudies
        | NumberOfPatientRelatedSeries
        | NumberOfPatientRelatedInstances
        | ModalitiesInStudy
        | SOPClassesInStudy
        | NumberOfStudyRelatedSeries
        | NumberOfStudyRelatedInstances
        | Modality
        | SeriesNumber
        | BodyPartExamined
        | Laterality
        | PatientPosition
        | Manufacturer
        | ManufacturerModelName
        | SoftwareVersions
        | NumberOfSeriesRelatedInstances
        | InstanceNumber
        | SOPClassUID
        | AvailableTransferSyntaxUID
        | RelatedGeneralSOPClassUID
        | ImageType
        | AcquisitionNumber
        | ImageLaterality
        | ViewPosition
        | NumberOfFrames
        | Rows
        | Columns
        | BitsAllocated
        | PhotometricInterpretation
        | CompletionFlag
        | VerificationFlag => Treatment::Keep,
        _ => return None,
    })
}

/// Makes pseudonyms with a key.
pub struct Pseudonyms {
    key: hmac::Key,
}

impl Pseudonyms {
    /// Reads a key file. If there is none, it is made with a random key, for its owner alone.
    ///
    /// # Errors
    /// [`Error::KeyFile`] if the file is none, or if other users may read it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let refused = |problem: String| Error::KeyFile { path: path.to_owned(), problem };
        let text = match File::open(path) {
            Ok(file) => read_key(file).map_err(refused)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                make_key(path).map_err(|error| refused(format!("cannot make the key file: {error}")))?
            }
            Err(error) => return Err(refused(error.to_string())),
        };
        let key = text.trim().strip_prefix(KEY_FILE_MARK).map(str::trim);
        let key = key.and_then(|key| HEXLOWER.decode(key.as_bytes()).ok()).filter(|key| key.len() == KEY_BYTES);
        let key = key.ok_or_else(|| refused("is no key file of pseudonyms; hint: name a new file".to_owned()))?;
        Ok(Self::with_key(&key))
    }

    fn with_key(key: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// A UID for this UID, below 2.25 (PS3.5 B.2).
    #[must_use]
    pub fn uid(&self, uid: &str) -> String {
        let hash = self.hash("uid", uid);
        let number = hash.iter().take(16).fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
        format!("2.25.{number}")
    }

    /// An identifier of 16 characters for this identifier.
    #[must_use]
    pub fn id(&self, keyword: &str, id: &str) -> String {
        let hash = self.hash(keyword, id);
        BASE32_NOPAD.encode(hash.get(..10).unwrap_or_default())
    }

    /// The number of days by which the dates of a patient move into the past.
    #[must_use]
    pub fn shift_days(&self, patient: &str) -> i32 {
        let hash = self.hash("shift", patient);
        let number = hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        i32::try_from(1 + number % LONGEST_SHIFT).unwrap_or(1)
    }

    fn hash(&self, purpose: &str, value: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(purpose.as_bytes());
        // No purpose has this byte, so no two pairs give the same text.
        context.update(&[0]);
        context.update(value.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }
}

fn read_key(file: File) -> Result<String, String> {
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if metadata.mode() & 0o077 != 0 {
        return Err("other users may read the key file; hint: chmod 600".to_owned());
    }
    let mut text = String::new();
    file.take(256).read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

fn make_key(path: &Path) -> std::io::Result<String> {
    let mut key = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut key).map_err(|_| std::io::Error::other("there is no source of random numbers"))?;
    let text = format!("{KEY_FILE_MARK} {}\n", HEXLOWER.encode(&key));
    write_new(path, PRIVATE_MODE, text.as_bytes())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::attribute::ATTRIBUTES;

    #[test]
    fn the_same_key_gives_the_same_pseudonyms_and_another_key_others() {
        let (one, other) = (Pseudonyms::with_key(&[1; 32]), Pseudonyms::with_key(&[2; 32]));
        assert_eq!(one.uid("1.2.3"), Pseudonyms::with_key(&[1; 32]).uid("1.2.3"));
        assert_ne!(one.uid("1.2.3"), one.uid("1.2.4"));
        assert_ne!(one.uid("1.2.3"), other.uid("1.2.3"));
        assert_ne!(one.id("PatientID", "1"), one.id("AccessionNumber", "1"));
        assert!(one.uid("1.2.3").len() <= 64 && one.id("PatientID", "1").len() == 16);
        assert!((1..=3650).contains(&one.shift_days("4711")));
    }

    #[test]
    fn no_name_time_or_free_text_is_in_the_list() {
        use dicom_core::VR;
        for attribute in ATTRIBUTES.iter().filter(|attribute| treatment(attribute.id) == Some(Treatment::Keep)) {
            let is_free = matches!(attribute.vr, VR::PN | VR::LT | VR::ST | VR::UT | VR::DA | VR::DT | VR::TM | VR::SQ);
            assert!(!is_free, "{}", attribute.keyword);
        }
    }

    #[test]
    fn a_key_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = Pseudonyms::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(made.uid("1"), Pseudonyms::open(&path).unwrap().uid("1"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Pseudonyms::open(&path).is_err());
        let other = directory.path().join("other");
        std::fs::write(&other, "x").unwrap();
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Pseudonyms::open(&other).is_err());
    }
}
