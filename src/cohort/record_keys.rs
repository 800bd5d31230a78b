//! The keys of the directory record of an instance (PS3.3 F.5), and how they are read from it.

use std::collections::BTreeMap;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use crate::encoding::data_set::push_element;
use crate::encoding::structure::StructureError;
use crate::encoding::syntax::Encoding;
use crate::encoding::tag::{tag_number, tag_of};
use crate::encoding::walk::{Event, Input, Walk, WalkError};

const ENCODING: Encoding = Encoding::ExplicitLittle;

/// Longest value of a key, in bytes. A presentation state refers to each of its images in 100
/// bytes. Longer sequences are left out.
const MAX_KEY: usize = 1 << 20;

const RELATIONSHIP_TYPE: u32 = tag_number(tags::RELATIONSHIP_TYPE);
const MODIFIER: &[u8] = b"HAS CONCEPT MOD";
const VERIFYING_OBSERVERS: u32 = tag_number(tags::VERIFYING_OBSERVER_SEQUENCE);
const VERIFIED: u32 = tag_number(tags::VERIFICATION_DATE_TIME);

/// Treatment of a key without a value in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Without {
    /// It is Type 1 and gets a number that is free in the series.
    Number,
    /// It is Type 1 and gets the date of the study.
    StudyDate,
    /// It is Type 1 and gets the time of the study.
    StudyTime,
    /// It is Type 1 and gets this value.
    Word(&'static str),
    /// It is Type 1, and nothing can stand for its value. The DICOMDIR leaves the object out.
    LeaveOut,
    /// It is Type 2 and stays empty.
    Empty,
    /// It is Type 1C and is absent.
    Absent,
    /// It is the last verification of an SR document. It is absent unless the document is verified.
    Verification,
}

/// A key of a directory record.
#[derive(Clone, Copy, Debug)]
pub(super) struct DirectoryKey {
    pub(super) tag: Tag,
    pub(super) vr: VR,
    pub(super) without: Without,
}

const fn key(tag: Tag, vr: VR, without: Without) -> DirectoryKey {
    DirectoryKey { tag, vr, without }
}

/// A type of directory record of an instance.
#[derive(Debug)]
pub(super) struct RecordType {
    /// Directory Record Type (0004,1430).
    pub(super) name: &'static str,
    pub(super) keys: &'static [DirectoryKey],
}

const NUMBER: DirectoryKey = key(tags::INSTANCE_NUMBER, VR::IS, Without::Number);
const DATE: DirectoryKey = key(tags::CONTENT_DATE, VR::DA, Without::StudyDate);
const TIME: DirectoryKey = key(tags::CONTENT_TIME, VR::TM, Without::StudyTime);
const LABEL: DirectoryKey = key(tags::CONTENT_LABEL, VR::CS, Without::Word("UNKNOWN"));
const DESCRIPTION: DirectoryKey = key(tags::CONTENT_DESCRIPTION, VR::LO, Without::Empty);
const CREATOR: DirectoryKey = key(tags::CONTENT_CREATOR_NAME, VR::PN, Without::Empty);
const CONCEPT: DirectoryKey = key(tags::CONCEPT_NAME_CODE_SEQUENCE, VR::SQ, Without::LeaveOut);
const CONTENT: DirectoryKey = key(tags::CONTENT_SEQUENCE, VR::SQ, Without::Absent);

const NO_KEYS: &[DirectoryKey] = &[];
const NUMBER_ALONE: &[DirectoryKey] = &[NUMBER];
const DATED: &[DirectoryKey] = &[DATE, TIME, NUMBER];
const LABELLED: &[DirectoryKey] = &[DATE, TIME, NUMBER, LABEL, DESCRIPTION, CREATOR];

const RT_DOSE: &[DirectoryKey] = &[NUMBER, key(tags::DOSE_SUMMATION_TYPE, VR::CS, Without::LeaveOut)];
const RT_STRUCTURE_SET: &[DirectoryKey] = &[
    NUMBER,
    key(tags::STRUCTURE_SET_LABEL, VR::SH, Without::Word("UNKNOWN")),
    key(tags::STRUCTURE_SET_DATE, VR::DA, Without::Empty),
    key(tags::STRUCTURE_SET_TIME, VR::TM, Without::Empty),
];
const RT_PLAN: &[DirectoryKey] = &[
    NUMBER,
    key(tags::RT_PLAN_LABEL, VR::SH, Without::Word("UNKNOWN")),
    key(tags::RT_PLAN_DATE, VR::DA, Without::Empty),
    key(tags::RT_PLAN_TIME, VR::TM, Without::Empty),
];
const RT_TREATMENT: &[DirectoryKey] =
    &[NUMBER, key(tags::TREATMENT_DATE, VR::DA, Without::Empty), key(tags::TREATMENT_TIME, VR::TM, Without::Empty)];
const PRESENTATION: &[DirectoryKey] = &[
    key(tags::PRESENTATION_CREATION_DATE, VR::DA, Without::StudyDate),
    key(tags::PRESENTATION_CREATION_TIME, VR::TM, Without::StudyTime),
    NUMBER,
    LABEL,
    DESCRIPTION,
    CREATOR,
    key(tags::REFERENCED_SERIES_SEQUENCE, VR::SQ, Without::Absent),
    key(tags::BLENDING_SEQUENCE, VR::SQ, Without::Absent),
];
const SR_DOCUMENT: &[DirectoryKey] = &[
    NUMBER,
    key(tags::COMPLETION_FLAG, VR::CS, Without::Word("PARTIAL")),
    key(tags::VERIFICATION_FLAG, VR::CS, Without::Word("UNVERIFIED")),
    DATE,
    TIME,
    key(tags::VERIFICATION_DATE_TIME, VR::DT, Without::Verification),
    CONCEPT,
    CONTENT,
];
const KEY_OBJECT: &[DirectoryKey] = &[NUMBER, DATE, TIME, CONCEPT, CONTENT];
const SPECTROSCOPY: &[DirectoryKey] = &[
    key(tags::IMAGE_TYPE, VR::CS, Without::LeaveOut),
    DATE,
    TIME,
    NUMBER,
    key(tags::REFERENCED_IMAGE_EVIDENCE_SEQUENCE, VR::SQ, Without::Absent),
    key(tags::NUMBER_OF_FRAMES, VR::IS, Without::LeaveOut),
    key(tags::ROWS, VR::US, Without::LeaveOut),
    key(tags::COLUMNS, VR::US, Without::LeaveOut),
    key(tags::DATA_POINT_ROWS, VR::UL, Without::LeaveOut),
    key(tags::DATA_POINT_COLUMNS, VR::UL, Without::LeaveOut),
];
const ENCAPSULATED: &[DirectoryKey] = &[
    key(tags::CONTENT_DATE, VR::DA, Without::Empty),
    key(tags::CONTENT_TIME, VR::TM, Without::Empty),
    NUMBER,
    key(tags::DOCUMENT_TITLE, VR::ST, Without::Empty),
    key(tags::HL7_INSTANCE_IDENTIFIER, VR::ST, Without::Absent),
    key(tags::CONCEPT_NAME_CODE_SEQUENCE, VR::SQ, Without::Empty),
    key(tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT, VR::LO, Without::LeaveOut),
];
const ASSESSMENT: &[DirectoryKey] = &[
    NUMBER,
    key(tags::INSTANCE_CREATION_DATE, VR::DA, Without::StudyDate),
    key(tags::INSTANCE_CREATION_TIME, VR::TM, Without::Empty),
];
const RADIOTHERAPY: &[DirectoryKey] = &[
    NUMBER,
    key(tags::USER_CONTENT_LABEL, VR::SH, Without::Absent),
    key(tags::USER_CONTENT_LONG_LABEL, VR::LO, Without::Absent),
    DESCRIPTION,
    CREATOR,
];

macro_rules! record_types {
    ($($constant:ident $name:literal $keys:expr;)*) => {
        $(static $constant: RecordType = RecordType { name: $name, keys: $keys };)*
    };
}

record_types! {
    IMAGE_RECORD "IMAGE" NUMBER_ALONE;
    DOSE_RECORD "RT DOSE" RT_DOSE;
    STRUCTURE_RECORD "RT STRUCTURE SET" RT_STRUCTURE_SET;
    RT_PLAN_RECORD "RT PLAN" RT_PLAN;
    TREATMENT_RECORD "RT TREAT RECORD" RT_TREATMENT;
    PRESENTATION_RECORD "PRESENTATION" PRESENTATION;
    WAVEFORM_RECORD "WAVEFORM" DATED;
    SR_RECORD "SR DOCUMENT" SR_DOCUMENT;
    KEY_OBJECT_RECORD "KEY OBJECT DOC" KEY_OBJECT;
    SPECTROSCOPY_RECORD "SPECTROSCOPY" SPECTROSCOPY;
    RAW_RECORD "RAW DATA" DATED;
    REGISTRATION_RECORD "REGISTRATION" LABELLED;
    FIDUCIAL_RECORD "FIDUCIAL" LABELLED;
    ENCAPSULATED_RECORD "ENCAP DOC" ENCAPSULATED;
    VALUE_MAP_RECORD "VALUE MAP" LABELLED;
    STEREOMETRIC_RECORD "STEREOMETRIC" NO_KEYS;
    PLAN_RECORD "PLAN" NO_KEYS;
    MEASUREMENT_RECORD "MEASUREMENT" LABELLED;
    SURFACE_RECORD "SURFACE" LABELLED;
    SURFACE_SCAN_RECORD "SURFACE SCAN" &[DATE, TIME];
    TRACT_RECORD "TRACT" LABELLED;
    ASSESSMENT_RECORD "ASSESSMENT" ASSESSMENT;
    RADIOTHERAPY_RECORD "RADIOTHERAPY" RADIOTHERAPY;
    ANNOTATION_RECORD "ANNOTATION" LABELLED;
}

impl RecordType {
    /// The type of the record for a SOP Class (PS3.3 F.4). SOP Classes that nothing is known of are
    /// images. `None` for those that have no record of the fourth level.
    pub(super) fn of(sop_class_uid: &str) -> Option<&'static Self> {
        let class = match sop_class_uid.strip_prefix("1.2.840.10008.") {
            Some(class) => class,
            None => return Some(&IMAGE_RECORD),
        };
        if matches!(class, "5.1.4.34.7" | "5.1.4.34.10") {
            return Some(&PLAN_RECORD);
        }
        let class = class.strip_prefix("5.1.4.1.1.").unwrap_or_default();
        let (group, number) = class.split_once('.').unwrap_or((class, ""));
        Some(match (group, number) {
            ("4", "2") => &SPECTROSCOPY_RECORD,
            // Retired curves, overlays and look-up tables, and classes without a known type.
            ("8" | "9" | "10" | "11", "") | ("9", "100.1" | "100.2") | ("129", _) | ("200", _) => return None,
            ("9", _) => &WAVEFORM_RECORD,
            ("11" | "131", _) => &PRESENTATION_RECORD,
            ("66", "") => &RAW_RECORD,
            ("66", "1" | "3") => &REGISTRATION_RECORD,
            ("66", "2") => &FIDUCIAL_RECORD,
            ("66", "5") => &SURFACE_RECORD,
            ("66", "6") => &TRACT_RECORD,
            ("67", _) => &VALUE_MAP_RECORD,
            ("68", _) => &SURFACE_SCAN_RECORD,
            ("77", "1.5.3") => &STEREOMETRIC_RECORD,
            ("78", "6") | ("79", _) => &SR_RECORD,
            ("78" | "80", _) => &MEASUREMENT_RECORD,
            ("88", "59") => &KEY_OBJECT_RECORD,
            ("88", _) => &SR_RECORD,
            ("90", _) => &ASSESSMENT_RECORD,
            ("91", _) => &ANNOTATION_RECORD,
            ("104", _) => &ENCAPSULATED_RECORD,
            ("481", "2") => &DOSE_RECORD,
            ("481", "3") => &STRUCTURE_RECORD,
            ("481", "5" | "8") => &RT_PLAN_RECORD,
            ("481", "4" | "6" | "7" | "9") => &TREATMENT_RECORD,
            ("481", "1" | "23" | "24") => &IMAGE_RECORD,
            ("481", _) => &RADIOTHERAPY_RECORD,
            _ => &IMAGE_RECORD,
        })
    }
}

/// Values of an object for its directory record, in explicit VR little endian.
#[derive(Clone, Debug, Default)]
pub struct ObjectKeys {
    /// Specific Character Set, as it stands in the object.
    pub(super) character_set: Vec<u8>,
    values: BTreeMap<u32, Vec<u8>>,
    /// The greatest Verification DateTime of its Verifying Observer Sequence.
    pub(super) verified: Vec<u8>,
}

impl ObjectKeys {
    /// Reads the keys of an object, up to the last of them. Of an object that cannot be read to its
    /// end, what comes before is taken.
    pub(crate) fn read<R: Input>(sop_class_uid: &str, walk: &mut Walk<R>) -> Self {
        let mut read = Self::default();
        let Some(kind) = RecordType::of(sop_class_uid) else { return read };
        let last = kind.keys.iter().map(|key| tag_number(key.tag)).max().unwrap_or(0);
        // What comes before a fault is of use all the same.
        let _ = read.take(walk, kind, last);
        read
    }

    /// The value of a key. `None` if the object has none.
    pub(super) fn value(&self, tag: Tag) -> Option<&[u8]> {
        self.values.get(&tag_number(tag)).map(Vec::as_slice).filter(|value| !is_blank(value))
    }

    fn take<R: Input>(&mut self, walk: &mut Walk<R>, kind: &RecordType, last: u32) -> Result<(), WalkError> {
        loop {
            match walk.next()? {
                Event::End => return Ok(()),
                Event::Value { tag, .. } | Event::Sequence { tag } | Event::Fragments { tag, .. } if tag > last => {
                    return Ok(());
                }
                Event::Value { tag, length, .. } => {
                    let is_character_set = tag == tag_number(tags::SPECIFIC_CHARACTER_SET);
                    let is_wanted = kind.keys.iter().any(|key| tag_number(key.tag) == tag && key.vr != VR::SQ);
                    if (is_character_set || is_wanted) && length < u32::from(u16::MAX) {
                        let value = walk.value(tag, u64::from(length))?;
                        if is_character_set {
                            self.character_set = value;
                        } else {
                            self.values.entry(tag).or_insert(value);
                        }
                    }
                }
                Event::Sequence { tag } => {
                    if kind.keys.iter().any(|key| tag_number(key.tag) == tag) {
                        let items = self.read_items(walk, tag)?;
                        self.values.entry(tag).or_insert(items);
                    } else if tag == VERIFYING_OBSERVERS {
                        self.read_items(walk, tag)?;
                    } else {
                        while walk.depth() > 0 {
                            walk.next()?;
                        }
                    }
                }
                Event::Item | Event::ItemEnd | Event::SequenceEnd | Event::Fragments { .. } => {}
            }
        }
    }

    /// Reads the items of a sequence that begins. Of Content Sequence, only those that modify the
    /// concept name are kept (PS3.3 F.5.25). Returns nothing if they are too long.
    fn read_items<R: Input>(&mut self, walk: &mut Walk<R>, sequence: u32) -> Result<Vec<u8>, WalkError> {
        let depth = walk.depth();
        let mut items = KeyItems { keeps_all: sequence != tag_number(tags::CONTENT_SEQUENCE), ..KeyItems::default() };
        loop {
            let event = walk.next()?;
            if event == Event::SequenceEnd && walk.depth() < depth {
                return Ok(items.finish());
            }
            if event == Event::Item && walk.depth() == depth + 1 {
                items.begin();
            }
            event.push_structure(ENCODING, &mut items.out);
            match event {
                Event::ItemEnd => items.end(walk.depth() == depth),
                Event::Value { tag, vr, length, .. } => {
                    if items.out.len() + length as usize > MAX_KEY {
                        items.is_too_long = true;
                        continue;
                    }
                    let value = walk.value(tag, u64::from(length))?;
                    if walk.depth() == depth + 1 {
                        items.is_modifier |= tag == RELATIONSHIP_TYPE && value.trim_ascii_end() == MODIFIER;
                        if sequence == VERIFYING_OBSERVERS && tag == VERIFIED && value > self.verified {
                            self.verified.clone_from(&value);
                        }
                    }
                    push_element(ENCODING, &mut items.out, tag_of(tag), vr, &value);
                }
                Event::End => return Err(StructureError::Truncated.into()),
                Event::Item | Event::Sequence { .. } | Event::SequenceEnd | Event::Fragments { .. } => {}
            }
        }
    }
}

/// Items of a sequence, with delimiters in place of lengths.
#[derive(Default)]
struct KeyItems {
    out: Vec<u8>,
    /// Whether items other than those that modify a concept name are kept.
    keeps_all: bool,
    /// Start of the outermost item that is open.
    start: usize,
    is_modifier: bool,
    is_too_long: bool,
}

impl KeyItems {
    /// Begins an outermost item.
    fn begin(&mut self) {
        (self.start, self.is_modifier) = (self.out.len(), false);
    }

    fn end(&mut self, is_outermost: bool) {
        // Items without values take memory as well.
        self.is_too_long |= self.out.len() > MAX_KEY;
        let is_kept = self.keeps_all || self.is_modifier;
        if self.is_too_long || is_outermost && !is_kept {
            self.out.truncate(self.start);
        }
        if is_outermost && !is_kept {
            self.is_too_long = false;
        }
    }

    fn finish(self) -> Vec<u8> {
        if self.is_too_long { Vec::new() } else { self.out }
    }
}

/// Whether a value has nothing but padding.
fn is_blank(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b' ' | 0))
}
