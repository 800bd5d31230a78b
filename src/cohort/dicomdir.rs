//! The DICOMDIR of a cohort in a folder (PS3.3 F, PS3.10 8).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use data_encoding::BASE32_NOPAD;
use dicom_core::dictionary::{DataDictionary as _, DataDictionaryEntry as _};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags, uids};
use xxhash_rust::xxh3::xxh3_128;

use super::Error;
use super::record_keys::{DirectoryKey, ObjectKeys, RecordType, Without};
use crate::encoding::data_set::push_element;
use crate::encoding::syntax::{self, Encoding};
use crate::encoding::tag::ITEM;
use crate::files::UnfinishedFile;
use crate::store::FileMeta;

/// Name of the file.
pub const DICOMDIR: &str = "DICOMDIR";

const ENCODING: Encoding = Encoding::ExplicitLittle;

/// Bytes of a directory. Offsets in it are 32 bits, and all of it is in memory once.
const MAX_BYTES: usize = 1 << 30;

/// Values of an instance that a directory has (PS3.3 F.5).
#[derive(Clone, Debug, Default)]
pub struct MediaInstance {
    /// Values in the order of [`KEYWORDS`].
    pub values: Vec<String>,
    /// Path in the folder.
    pub file: PathBuf,
    /// Values for its own record.
    pub keys: ObjectKeys,
}

/// Keywords of the values, in their order.
pub const KEYWORDS: [&str; 19] = [
    "PatientID",
    "PatientName",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "StudyID",
    "AccessionNumber",
    "SeriesInstanceUID",
    "Modality",
    "SeriesNumber",
    "SOPInstanceUID",
    "InstanceNumber",
    "SOPClassUID",
    "AvailableTransferSyntaxUID",
    "NumberOfFrames",
    "SeriesDate",
    "AcquisitionDate",
    "ContentDate",
];

// Places in the list.
const PATIENT_ID: usize = 0;
const STUDY_UID: usize = 2;
const STUDY_DATE: usize = 3;
const STUDY_TIME: usize = 4;
const STUDY_ID: usize = 6;
const SERIES_UID: usize = 8;
const MODALITY: usize = 9;
const SERIES_NUMBER: usize = 10;
const INSTANCE_UID: usize = 11;
const INSTANCE_NUMBER: usize = 12;
const SOP_CLASS: usize = 13;
const OTHER_DATES: std::ops::Range<usize> = 16..19;

/// The date of a study that has none in any of its objects.
const NO_DATE: &str = "19000101";

/// Listing of an instance in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaListing {
    /// It has a record.
    Listed {
        /// Keys of Type 1 that have no value in the object, and got one (PS3.3 F.5).
        made: Vec<&'static str>,
    },
    /// It has no record, for this reason.
    LeftOut(String),
}

/// A File ID (PS3.10 8.2) for an instance: four parts of eight characters. `number` tells files
/// apart whose other parts are the same.
#[must_use]
pub fn file_id(patient: &str, study: &str, series: &str, instance: &str, number: u32) -> PathBuf {
    let instance = if number <= 1 { instance.to_owned() } else { format!("{instance}~{number}") };
    [part("PA", patient), part("ST", study), part("SE", series), part("IM", &instance)].iter().collect()
}

/// Eight characters that stand for a text.
fn part(prefix: &str, text: &str) -> String {
    let hash = xxh3_128(text.as_bytes()).to_be_bytes();
    let letters = BASE32_NOPAD.encode(hash.get(..5).unwrap_or_default());
    format!("{prefix}{}", letters.get(..6).unwrap_or_default())
}

/// Directory records of a cohort.
#[derive(Default)]
pub struct MediaDirectory {
    patients: BTreeMap<String, PatientRecord>,
    /// The patient of each study. A study has one record (PS3.3 F.5.2).
    patient_of: HashMap<String, String>,
}

#[derive(Default)]
struct PatientRecord {
    values: Vec<String>,
    studies: BTreeMap<String, StudyRecord>,
}

#[derive(Default)]
struct StudyRecord {
    values: Vec<String>,
    series: BTreeMap<String, BTreeMap<(u64, String), MediaInstance>>,
}

impl MediaDirectory {
    /// Adds an instance. Its values stand in the order of [`KEYWORDS`].
    ///
    /// Patient ID, Study, Series and SOP Instance UID choose its place among the directory records
    /// (PS3.3 F.4). The first instance of a patient or a study gives the values of that record. An
    /// instance that was added before is replaced. Keys of Type 1 that have no value get one, where
    /// one can be made. Otherwise the instance is left out.
    pub fn add(&mut self, mut instance: MediaInstance) -> MediaListing {
        let class = instance.value(SOP_CLASS);
        let Some(kind) = RecordType::of(class) else {
            return MediaListing::LeftOut("its SOP Class has no type of directory record".to_owned());
        };
        let lacking =
            kind.keys.iter().find(|key| key.without == Without::LeaveOut && instance.keys.value(key.tag).is_none());
        if let Some(key) = lacking {
            return MediaListing::LeftOut(format!("it has no {}", keyword(key.tag)));
        }
        let made = instance.complete(kind);
        let value = |at: usize| instance.value(at).to_owned();
        let patient = self.patient_of.entry(value(STUDY_UID)).or_insert_with(|| value(PATIENT_ID));
        let patient = self.patients.entry(patient.clone()).or_default();
        if patient.values.is_empty() {
            patient.values.clone_from(&instance.values);
        }
        let study = patient.studies.entry(value(STUDY_UID)).or_default();
        if study.values.is_empty() {
            study.values.clone_from(&instance.values);
        }
        let place = (value(INSTANCE_NUMBER).parse().unwrap_or(u64::MAX), value(INSTANCE_UID));
        study.series.entry(value(SERIES_UID)).or_default().insert(place, instance);
        MediaListing::Listed { made }
    }

    /// Writes the file into a folder, under another name first.
    ///
    /// # Errors
    /// If it cannot be written, or has more bytes than its offsets can say.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(DICOMDIR);
        let failed = |source| Error::Write { path: path.clone(), source };
        let bytes = self.encode().ok_or_else(|| failed(io::Error::other("there are too many records")))?;
        let mut file = UnfinishedFile::create(&path).map_err(|error| Error::locked_or_write(&path, error))?;
        file.write_all(&bytes).and_then(|()| file.finish()).map_err(failed)
    }

    fn encode(&self) -> Option<Vec<u8>> {
        let meta = FileMeta {
            sop_class_uid: uids::MEDIA_STORAGE_DIRECTORY_STORAGE,
            sop_instance_uid: &self.uid(),
            transfer_syntax: syntax::EXPLICIT_VR_LITTLE_ENDIAN,
            source_ae_title: "",
        };
        let mut out = meta.encode();
        text(&mut out, tags::FILE_SET_ID, VR::CS, "DCMDEX");
        let offsets_at = out.len();
        long(&mut out, tags::OFFSET_OF_THE_FIRST_DIRECTORY_RECORD_OF_THE_ROOT_DIRECTORY_ENTITY, 0);
        long(&mut out, tags::OFFSET_OF_THE_LAST_DIRECTORY_RECORD_OF_THE_ROOT_DIRECTORY_ENTITY, 0);
        push_element(ENCODING, &mut out, tags::FILE_SET_CONSISTENCY_FLAG, VR::US, &[0, 0]);
        let mut records = RecordWriter { out, last_of_level: Vec::new() };
        let sequence_at = records.begin_sequence();
        let mut first = None;
        let mut last = 0;
        for patient in self.patients.values() {
            let at = records.record(0, "PATIENT", None, |out| patient_keys(out, &patient.values))?;
            first.get_or_insert(at);
            last = at;
            for study in patient.studies.values() {
                records.record(1, "STUDY", None, |out| study_keys(out, &study.values))?;
                let mut of_series =
                    FreeNumbers::of(study.series.values().flat_map(|series| series.values()), SERIES_NUMBER);
                for series in study.series.values() {
                    let Some(first) = series.values().next() else { continue };
                    let number = of_series.number_of(first);
                    records.record(2, "SERIES", None, |out| series_keys(out, &first.values, &number))?;
                    let mut of_instances = FreeNumbers::of(series.values(), INSTANCE_NUMBER);
                    for instance in series.values() {
                        let Some(kind) = RecordType::of(instance.value(SOP_CLASS)) else { continue };
                        let number = of_instances.number_of(instance);
                        let keys = |out: &mut Vec<u8>| instance.put_record_keys(out, kind, &number);
                        records.record(3, kind.name, Some(instance), keys)?;
                    }
                }
            }
        }
        records.end_sequence(sequence_at)?;
        let mut out = records.out;
        // The value stands after the tag, VR and length of 8 bytes.
        put_offset(&mut out, offsets_at + 8, first.unwrap_or(0));
        put_offset(&mut out, offsets_at + 12 + 8, last);
        Some(out)
    }

    /// A UID for this content.
    fn uid(&self) -> String {
        let mut all = String::new();
        for patient in self.patients.values() {
            for series in patient.studies.values().flat_map(|study| study.series.values()) {
                for (_, uid) in series.keys() {
                    all.push_str(uid);
                    all.push('\\');
                }
            }
        }
        format!("2.25.{}", xxh3_128(all.as_bytes()))
    }
}

/// Writes directory records, and links each with the one before it on its level and with the first
/// one below it (PS3.3 F.2.2.2).
struct RecordWriter {
    out: Vec<u8>,
    /// Of each level that is open: where the last record begins.
    last_of_level: Vec<usize>,
}

/// Bytes of an item from its beginning to the value of its offset to the next record, and to that
/// of the first record below.
const NEXT_VALUE: usize = 8 + 8;
const LOWER_VALUE: usize = NEXT_VALUE + 4 + 10 + 8;

impl RecordWriter {
    fn begin_sequence(&mut self) -> usize {
        push_element(ENCODING, &mut self.out, tags::DIRECTORY_RECORD_SEQUENCE, VR::SQ, &[]);
        self.out.len()
    }

    fn end_sequence(&mut self, at: usize) -> Option<()> {
        let length = u32::try_from(self.out.len() - at).ok()?;
        self.out.get_mut(at - 4..at)?.copy_from_slice(&length.to_le_bytes());
        Some(())
    }

    /// Writes a record of a level. Returns where it begins, or `None` if the file is too long.
    fn record(
        &mut self,
        level: usize,
        kind: &str,
        instance: Option<&MediaInstance>,
        keys: impl FnOnce(&mut Vec<u8>),
    ) -> Option<u32> {
        let begin = self.out.len();
        let at = u32::try_from(begin).ok().filter(|_| begin < MAX_BYTES)?;
        let is_first = self.last_of_level.len() <= level;
        self.last_of_level.truncate(level + 1);
        match self.last_of_level.get(level).copied() {
            Some(before) if !is_first => put_offset(&mut self.out, before + NEXT_VALUE, at),
            _ => {}
        }
        if is_first {
            if let Some(above) = level.checked_sub(1).and_then(|above| self.last_of_level.get(above)).copied() {
                put_offset(&mut self.out, above + LOWER_VALUE, at);
            }
            self.last_of_level.push(begin);
        } else if let Some(last) = self.last_of_level.get_mut(level) {
            *last = begin;
        }
        ENCODING.push_marker(&mut self.out, ITEM, 0);
        long(&mut self.out, tags::OFFSET_OF_THE_NEXT_DIRECTORY_RECORD, 0);
        push_element(ENCODING, &mut self.out, tags::RECORD_IN_USE_FLAG, VR::US, &[0xFF, 0xFF]);
        long(&mut self.out, tags::OFFSET_OF_REFERENCED_LOWER_LEVEL_DIRECTORY_ENTITY, 0);
        text(&mut self.out, tags::DIRECTORY_RECORD_TYPE, VR::CS, kind);
        if let Some(instance) = instance {
            let value = |at: usize| instance.value(at);
            let parts: Vec<_> = instance.file.iter().map(|part| part.to_string_lossy()).collect();
            text(&mut self.out, tags::REFERENCED_FILE_ID, VR::CS, &parts.join("\\"));
            text(&mut self.out, tags::REFERENCED_SOP_CLASS_UID_IN_FILE, VR::UI, value(13));
            text(&mut self.out, tags::REFERENCED_SOP_INSTANCE_UID_IN_FILE, VR::UI, value(11));
            text(&mut self.out, tags::REFERENCED_TRANSFER_SYNTAX_UID_IN_FILE, VR::UI, value(14));
        }
        // Values of the index are in UTF-8, and those of an object in its own character sets.
        let of_index: &[u8] = b"ISO_IR 192";
        let sets = instance.map_or(of_index, |instance| instance.keys.character_set.as_slice());
        if !sets.is_empty() {
            push_element(ENCODING, &mut self.out, tags::SPECIFIC_CHARACTER_SET, VR::CS, sets);
        }
        keys(&mut self.out);
        let length = u32::try_from(self.out.len() - begin - 8).ok()?;
        self.out.get_mut(begin + 4..begin + 8)?.copy_from_slice(&length.to_le_bytes());
        Some(at)
    }
}

fn text(out: &mut Vec<u8>, tag: Tag, vr: VR, value: &str) {
    push_element(ENCODING, out, tag, vr, value.as_bytes());
}

fn long(out: &mut Vec<u8>, tag: Tag, value: u32) {
    push_element(ENCODING, out, tag, VR::UL, &value.to_le_bytes());
}

fn put_offset(out: &mut [u8], at: usize, offset: u32) {
    if let Some(bytes) = out.get_mut(at..at + 4) {
        bytes.copy_from_slice(&offset.to_le_bytes());
    }
}

/// Appends these elements with the values at these places of [`KEYWORDS`].
fn put_keys(out: &mut Vec<u8>, values: &[String], keys: &[(Tag, VR, usize)]) {
    for (tag, vr, at) in keys {
        text(out, *tag, *vr, values.get(*at).map_or("", String::as_str));
    }
}

fn patient_keys(out: &mut Vec<u8>, values: &[String]) {
    put_keys(out, values, &[(tags::PATIENT_NAME, VR::PN, 1), (tags::PATIENT_ID, VR::LO, 0)]);
}

fn study_keys(out: &mut Vec<u8>, values: &[String]) {
    put_keys(
        out,
        values,
        &[
            (tags::STUDY_DATE, VR::DA, 3),
            (tags::STUDY_TIME, VR::TM, 4),
            (tags::ACCESSION_NUMBER, VR::SH, 7),
            (tags::STUDY_DESCRIPTION, VR::LO, 5),
            (tags::STUDY_INSTANCE_UID, VR::UI, 2),
            (tags::STUDY_ID, VR::SH, 6),
        ],
    );
}

fn series_keys(out: &mut Vec<u8>, values: &[String], number: &str) {
    put_keys(out, values, &[(tags::MODALITY, VR::CS, MODALITY), (tags::SERIES_INSTANCE_UID, VR::UI, SERIES_UID)]);
    text(out, tags::SERIES_NUMBER, VR::IS, number);
}

fn keyword(tag: Tag) -> &'static str {
    StandardDataDictionary.by_tag(tag).map_or("a key", |entry| entry.alias())
}

/// Gives numbers to series or instances that have none.
struct FreeNumbers {
    at: usize,
    used: HashSet<u64>,
    next: u64,
}

impl FreeNumbers {
    fn of<'i>(all: impl Iterator<Item = &'i MediaInstance>, at: usize) -> Self {
        Self { at, used: all.filter_map(|instance| instance.value(at).parse().ok()).collect(), next: 1 }
    }

    /// The number of an instance or its series.
    fn number_of(&mut self, instance: &MediaInstance) -> String {
        let own = instance.value(self.at);
        if !own.is_empty() {
            return own.to_owned();
        }
        while self.used.contains(&self.next) {
            self.next += 1;
        }
        self.next += 1;
        (self.next - 1).to_string()
    }
}

impl MediaInstance {
    fn value(&self, at: usize) -> &str {
        self.values.get(at).map_or("", |value| value.trim())
    }

    /// Gives values to the keys of Type 1 that have none. Returns their keywords.
    fn complete(&mut self, kind: &RecordType) -> Vec<&'static str> {
        let date = OTHER_DATES.map(|at| self.value(at)).find(|date| !date.is_empty()).unwrap_or(NO_DATE);
        let study = self.value(STUDY_UID);
        let values = [
            (PATIENT_ID, part("NONE-", study)),
            (STUDY_DATE, date.to_owned()),
            (STUDY_TIME, "000000".to_owned()),
            (STUDY_ID, part("ST", study)),
            (MODALITY, "OT".to_owned()),
            // The numbers come later, when all of them are known.
            (SERIES_NUMBER, String::new()),
            (INSTANCE_NUMBER, String::new()),
        ];
        let mut made = Vec::new();
        for (at, value) in values {
            let is_wanted = at != INSTANCE_NUMBER || kind.keys.iter().any(|key| key.without == Without::Number);
            if is_wanted && self.value(at).is_empty() {
                made.extend(KEYWORDS.get(at));
                if let Some(place) = self.values.get_mut(at) {
                    *place = value;
                }
            }
        }
        let is_made = |key: &&DirectoryKey| {
            let is_made = matches!(key.without, Without::StudyDate | Without::StudyTime | Without::Word(_));
            is_made && self.keys.value(key.tag).is_none()
        };
        made.extend(kind.keys.iter().filter(is_made).map(|key| keyword(key.tag)));
        made
    }

    /// Appends the keys of its own record, in ascending order.
    fn put_record_keys(&self, out: &mut Vec<u8>, kind: &RecordType, number: &str) {
        let mut keys: Vec<&DirectoryKey> = kind.keys.iter().collect();
        keys.sort_by_key(|key| key.tag);
        for key in keys {
            let value = match (self.keys.value(key.tag), key.without) {
                (_, Without::Number) => number.as_bytes().to_vec(),
                (_, Without::Verification) => match self.verification() {
                    Some(moment) => moment,
                    None => continue,
                },
                (Some(value), _) => value.to_vec(),
                (None, Without::StudyDate) => self.value(STUDY_DATE).as_bytes().to_vec(),
                (None, Without::StudyTime) => self.value(STUDY_TIME).as_bytes().to_vec(),
                (None, Without::Word(word)) => word.as_bytes().to_vec(),
                (None, Without::Empty | Without::LeaveOut) => Vec::new(),
                (None, Without::Absent) => continue,
            };
            push_element(ENCODING, out, key.tag, key.vr, &value);
        }
    }

    /// The last verification of a verified SR document (PS3.3 F.5.25). A document that says no
    /// moment has that of its content.
    fn verification(&self) -> Option<Vec<u8>> {
        let flag = self.keys.value(tags::VERIFICATION_FLAG)?;
        if flag.trim_ascii_end() != b"VERIFIED" {
            return None;
        }
        if !self.keys.verified.is_empty() {
            return Some(self.keys.verified.clone());
        }
        let of_content = |tag, at| match self.keys.value(tag) {
            Some(value) => value.trim_ascii().to_vec(),
            None => self.value(at).as_bytes().to_vec(),
        };
        Some([of_content(tags::CONTENT_DATE, STUDY_DATE), of_content(tags::CONTENT_TIME, STUDY_TIME)].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(patient: &str, study: &str, series: &str, number: u32) -> MediaInstance {
        let uid = format!("{series}.{number}");
        let number = number.to_string();
        let values = [
            patient,
            "Müller^A",
            study,
            "20240101",
            "10",
            "",
            "1",
            "A",
            series,
            "CT",
            "1",
            &uid,
            &number,
            "1.2.840.10008.5.1.4.1.1.2",
            "1.2.840.10008.1.2.1",
            "",
            "",
            "",
            "",
        ];
        let values = values.map(str::to_owned).to_vec();
        let file = file_id(patient, study, series, &uid, 1);
        MediaInstance { values, file, keys: ObjectKeys::default() }
    }

    #[test]
    fn file_ids_have_the_letters_that_media_allow() {
        let id = file_id("ä/..", "1.2", "1.2.3", "1.2.3.4", 1);
        let parts: Vec<_> = id.iter().map(|part| part.to_str().unwrap()).collect();
        assert_eq!(parts.len(), 4);
        let allowed =
            |part: &str| part.len() <= 8 && part.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        assert!(parts.iter().all(|part| allowed(part)), "{parts:?}");
        assert_ne!(id, file_id("ä/..", "1.2", "1.2.3", "1.2.3.4", 2));
    }

    #[test]
    fn our_own_reader_finds_every_file() {
        let mut directory = MediaDirectory::default();
        let all =
            [("1", "1.2", "1.2.1", 1), ("1", "1.2", "1.2.1", 2), ("1", "1.2", "1.2.2", 1), ("2", "1.3", "1.3.1", 1)];
        for (patient, study, series, number) in all {
            directory.add(instance(patient, study, series, number));
        }
        let bytes = directory.encode().unwrap();
        let object = dicom_object::from_reader(&bytes[128..]).unwrap();
        let records = object.element(tags::DIRECTORY_RECORD_SEQUENCE).unwrap().items().unwrap();
        let kinds: Vec<String> = records
            .iter()
            .map(|record| record.element(tags::DIRECTORY_RECORD_TYPE).unwrap().to_str().unwrap().into_owned())
            .collect();
        assert_eq!(
            kinds,
            ["PATIENT", "STUDY", "SERIES", "IMAGE", "IMAGE", "SERIES", "IMAGE", "PATIENT", "STUDY", "SERIES", "IMAGE"]
        );
        // Each offset leads to an item, the roots are linked, and the last of a level leads
        // nowhere.
        let offset = |record: usize, tag| records[record].element(tag).unwrap().to_int::<u32>().unwrap() as usize;
        let is_item = |at: usize| bytes[at..at + 4] == [0xFE, 0xFF, 0x00, 0xE0];
        for record in 0..records.len() {
            for tag in
                [tags::OFFSET_OF_THE_NEXT_DIRECTORY_RECORD, tags::OFFSET_OF_REFERENCED_LOWER_LEVEL_DIRECTORY_ENTITY]
            {
                let at = offset(record, tag);
                assert!(at == 0 || is_item(at), "{record} {tag}");
            }
        }
        let first = object
            .element(tags::OFFSET_OF_THE_FIRST_DIRECTORY_RECORD_OF_THE_ROOT_DIRECTORY_ENTITY)
            .unwrap()
            .to_int::<u32>()
            .unwrap() as usize;
        let last = object
            .element(tags::OFFSET_OF_THE_LAST_DIRECTORY_RECORD_OF_THE_ROOT_DIRECTORY_ENTITY)
            .unwrap()
            .to_int::<u32>()
            .unwrap() as usize;
        assert!(is_item(first) && is_item(last));
        assert_eq!(offset(0, tags::OFFSET_OF_THE_NEXT_DIRECTORY_RECORD), last);
        assert_eq!(offset(3, tags::OFFSET_OF_REFERENCED_LOWER_LEVEL_DIRECTORY_ENTITY), 0);
        assert_ne!(offset(3, tags::OFFSET_OF_THE_NEXT_DIRECTORY_RECORD), 0);
        assert_eq!(offset(4, tags::OFFSET_OF_THE_NEXT_DIRECTORY_RECORD), 0);
    }
}
