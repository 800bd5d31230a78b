//! The DICOMDIR of a cohort in a folder (PS3.3 F, PS3.10 8).

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use data_encoding::BASE32_NOPAD;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use xxhash_rust::xxh3::xxh3_128;

use super::Error;
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
}

/// Keywords of the values, in their order.
pub const KEYWORDS: [&str; 16] = [
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
];

/// A File ID (PS3.10 8.2) for an instance: four parts of eight characters. `number` tells files
/// apart whose other parts are the same.
#[must_use]
pub fn file_id(patient: &str, study: &str, series: &str, instance: &str, number: u32) -> PathBuf {
    let part = |prefix: &str, text: &str| {
        let hash = xxh3_128(text.as_bytes()).to_be_bytes();
        let letters = BASE32_NOPAD.encode(hash.get(..5).unwrap_or_default());
        format!("{prefix}{}", letters.get(..6).unwrap_or_default())
    };
    let instance = if number <= 1 { instance.to_owned() } else { format!("{instance}~{number}") };
    [part("PA", patient), part("ST", study), part("SE", series), part("IM", &instance)].iter().collect()
}

/// Directory records of a cohort.
#[derive(Default)]
pub struct MediaDirectory {
    patients: BTreeMap<String, PatientRecord>,
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
    /// instance that was added before is replaced.
    pub fn add(&mut self, instance: MediaInstance) {
        let value = |at: usize| instance.values.get(at).cloned().unwrap_or_default();
        let patient = self.patients.entry(value(0)).or_default();
        if patient.values.is_empty() {
            patient.values.clone_from(&instance.values);
        }
        let study = patient.studies.entry(value(2)).or_default();
        if study.values.is_empty() {
            study.values.clone_from(&instance.values);
        }
        let place = (value(12).parse().unwrap_or(u64::MAX), value(11));
        study.series.entry(value(8)).or_default().insert(place, instance);
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
                for series in study.series.values() {
                    let values = series.values().next().map(|instance| instance.values.as_slice()).unwrap_or_default();
                    records.record(2, "SERIES", None, |out| series_keys(out, values))?;
                    for instance in series.values() {
                        let class = instance.values.get(13).map_or("", String::as_str);
                        records.record(3, record_type(class), Some(instance), |out| {
                            instance_keys(out, &instance.values);
                        })?;
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
            let value = |at: usize| instance.values.get(at).map_or("", String::as_str);
            let parts: Vec<_> = instance.file.iter().map(|part| part.to_string_lossy()).collect();
            text(&mut self.out, tags::REFERENCED_FILE_ID, VR::CS, &parts.join("\\"));
            text(&mut self.out, tags::REFERENCED_SOP_CLASS_UID_IN_FILE, VR::UI, value(13));
            text(&mut self.out, tags::REFERENCED_SOP_INSTANCE_UID_IN_FILE, VR::UI, value(11));
            text(&mut self.out, tags::REFERENCED_TRANSFER_SYNTAX_UID_IN_FILE, VR::UI, value(14));
        }
        text(&mut self.out, tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
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

fn series_keys(out: &mut Vec<u8>, values: &[String]) {
    let keys = [(tags::MODALITY, VR::CS, 9), (tags::SERIES_INSTANCE_UID, VR::UI, 8), (tags::SERIES_NUMBER, VR::IS, 10)];
    put_keys(out, values, &keys);
}

fn instance_keys(out: &mut Vec<u8>, values: &[String]) {
    put_keys(out, values, &[(tags::INSTANCE_NUMBER, VR::IS, 12)]);
}

/// The type of the record of an instance (PS3.3 F.4).
fn record_type(sop_class_uid: &str) -> &'static str {
    match sop_class_uid.strip_prefix("1.2.840.10008.5.1.4.1.1.").unwrap_or_default() {
        "88.59" => "KEY OBJECT DOC",
        class if class.starts_with("88.") => "SR DOCUMENT",
        class if class.starts_with("11.") => "PRESENTATION",
        class if class.starts_with("9.") => "WAVEFORM",
        class if class.starts_with("104.") => "ENCAP DOC",
        "481.2" => "RT DOSE",
        "481.3" => "RT STRUCTURE SET",
        "481.5" | "481.8" => "RT PLAN",
        "481.4" | "481.6" | "481.7" | "481.9" => "RT TREAT RECORD",
        "66" => "RAW DATA",
        "66.1" | "66.3" => "REGISTRATION",
        "66.2" => "FIDUCIAL",
        "67" => "VALUE MAP",
        "4.2" => "SPECTROSCOPY",
        _ => "IMAGE",
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
        ];
        let values = values.map(str::to_owned).to_vec();
        let file = file_id(patient, study, series, &uid, 1);
        MediaInstance { values, file }
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
