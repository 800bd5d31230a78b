//! Headers as a CT or MR scanner writes them: encoded once per series, completed per instance.
//!
//! `corpus` writes them to files and `storeload` sends them in C-STORE messages. The encoder is our
//! own for two reasons. It costs little beside what is measured, and the program under test has no
//! part in making its own input.

use std::fmt::Write as _;

/// SplitMix64: small, and the same numbers everywhere for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream number `stream` of `seed`; streams are independent, so that work can be shared
    /// out in any order.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        Self(mixed.next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `low..high`.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next_u64() % (high - low)
    }

    /// One of `all`.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.within(0, all.len() as u64) as usize]
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.within(0, 100) < percent
    }
}

/// How a data set is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// Explicit VR Little Endian, pixel data as it is.
    Explicit,
    /// Implicit VR Little Endian, pixel data as it is.
    Implicit,
    /// Explicit VR Little Endian with the pixel data in fragments (here: JPEG 2000 by name, zeros
    /// by content).
    Encapsulated,
}

impl Syntax {
    /// The Transfer Syntax UID.
    pub fn uid(self) -> &'static str {
        match self {
            Self::Explicit => "1.2.840.10008.1.2.1",
            Self::Implicit => "1.2.840.10008.1.2",
            Self::Encapsulated => "1.2.840.10008.1.2.4.90",
        }
    }

    fn explicit(self) -> bool {
        self != Self::Implicit
    }
}

/// How the makers of devices form their UIDs: what compact storage of UIDs depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UidStyle {
    /// Long last component from date, time, noise and a counter that skips.
    TimeStamped,
    /// Short last component that counts.
    Counter,
    /// 37 random digits.
    RandomDigits,
}

/// The Study or Series Instance UID in a style.
pub fn group_uid(style: UidStyle, random: &mut Random, date: &str) -> String {
    match style {
        UidStyle::TimeStamped => format!("{}.0.0.0", time_stamped(random, date)),
        UidStyle::Counter => counter_root(random),
        UidStyle::RandomDigits => random_digits(random),
    }
}

/// The SOP Instance UIDs of one series, one after the other.
#[derive(Debug)]
pub struct InstanceUids {
    style: UidStyle,
    root: String,
    counter: u64,
}

impl InstanceUids {
    /// Begins a series.
    pub fn new(style: UidStyle, random: &mut Random, date: &str) -> Self {
        let root = match style {
            UidStyle::TimeStamped => time_stamped(random, date),
            UidStyle::Counter => counter_root(random) + ".",
            UidStyle::RandomDigits => String::new(),
        };
        let counter = random.within(0, 40_000);
        let counter = if style == UidStyle::TimeStamped { counter } else { 0 };
        Self { style, root, counter }
    }

    /// Writes the next UID into `uid`.
    pub fn next(&mut self, random: &mut Random, uid: &mut String) {
        uid.clear();
        match self.style {
            UidStyle::TimeStamped => {
                self.counter += random.within(1, 24);
                put(uid, format_args!("{}{:05}", self.root, self.counter));
            }
            UidStyle::Counter => {
                self.counter += 1;
                put(uid, format_args!("{}{}", self.root, self.counter));
            }
            UidStyle::RandomDigits => uid.push_str(&random_digits(random)),
        }
    }
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a String does not fail");
}

fn time_stamped(random: &mut Random, date: &str) -> String {
    let (model, serial) = (random.within(20, 64), random.within(10_000, 70_000));
    let (time, noise) = (time(random), random.within(0, 1_000_000_000));
    format!("1.3.12.2.1107.5.2.{model}.{serial}.{date}{time}{noise:09}")
}

fn counter_root(random: &mut Random) -> String {
    let (model, station) = (random.within(5, 400), random.within(100_000_000, 4_000_000_000));
    let (exam, stamp) = (random.within(1, 1_000), random.within(1_200_000_000, 1_700_000_000));
    format!("1.2.840.113619.2.{model}.3.{station}.{exam}.{stamp}.{}", random.within(1, 1_000))
}

fn random_digits(random: &mut Random) -> String {
    let (a, b, c) = (
        random.within(1_000_000_000_000_000_000, 10_000_000_000_000_000_000),
        random.within(0, 1_000_000_000),
        random.within(0, 1_000_000_000),
    );
    format!("1.2.826.0.1.3680043.8.498.{a}{b:09}{c:09}")
}

/// A date of the last decade, as DA.
pub fn date(random: &mut Random) -> String {
    format!("{}{:02}{:02}", random.within(2015, 2025), random.within(1, 13), random.within(1, 29))
}

/// A time of the working day, as TM without a fraction.
pub fn time(random: &mut Random) -> String {
    format!("{:02}{:02}{:02}", random.within(7, 21), random.within(0, 60), random.within(0, 60))
}

/// What all instances of a series have in common.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are named after their attributes")]
pub struct SeriesFacts {
    pub charset: &'static str,
    /// In the encoding of `charset`.
    pub patient_name: Vec<u8>,
    pub patient_id: String,
    pub birth_date: String,
    pub sex: &'static str,
    pub study_uid: String,
    pub study_date: String,
    pub study_time: String,
    pub accession: String,
    pub study_description: &'static str,
    pub series_uid: String,
    pub series_number: u64,
    pub series_description: &'static str,
    pub modality: &'static str,
    pub sop_class: &'static str,
    pub body_part: &'static str,
    pub rows: u16,
    pub columns: u16,
    pub syntax: Syntax,
}

/// What is particular to one instance.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "the fields are named after their attributes")]
pub struct InstanceFacts {
    pub sop_uid: String,
    pub number: u64,
    /// Seconds since midnight, at which the slice was acquired.
    pub seconds: u64,
    /// Whether its times have six digits after the point (some makers write them, some do not).
    pub fractions: bool,
}

/// The values of the table below.
#[derive(Clone, Copy, Debug)]
enum Value {
    Text(&'static str),
    Words(&'static [u16]),
    /// So many bytes that look like something binary.
    Noise(usize),
    /// A sequence, by the elements of its items.
    Items(&'static [&'static [Element]]),
    Series(fn(&SeriesFacts) -> &[u8]),
    SeriesNumber,
    Rows,
    Columns,
    Instance(InstanceValue),
}

/// Differs from slice to slice.
#[derive(Clone, Copy, Debug)]
enum InstanceValue {
    SopUid,
    Number,
    CreationTime,
    AcquisitionTime,
    ContentTime,
    Position,
    Location,
}

type Element = (u32, &'static str, Value);

use InstanceValue as I;
use Value::{Columns, Instance, Items, Noise, Rows, Series, SeriesNumber, Text, Words};

const CODE: &[Element] = &[
    (0x0008_0100, "SH", Text("CTTHORAX")),
    (0x0008_0102, "SH", Text("99HOSPITAL")),
    (0x0008_0104, "LO", Text("CT of the thorax with contrast medium")),
];
const REFERENCE: &[Element] = &[
    (0x0008_1150, "UI", Text("1.2.840.10008.5.1.4.1.1.2")),
    (0x0008_1155, "UI", Text("1.3.12.2.1107.5.2.32.35162.30000009121513341298400000123")),
];

/// The root elements up to the pixel data, in ascending order (PS3.5 7.1).
const ROOT: &[Element] = &[
    (0x0008_0005, "CS", Series(|s| s.charset.as_bytes())),
    (0x0008_0008, "CS", Text("ORIGINAL\\PRIMARY\\AXIAL\\NORM")),
    (0x0008_0012, "DA", Series(|s| s.study_date.as_bytes())),
    (0x0008_0013, "TM", Instance(I::CreationTime)),
    (0x0008_0016, "UI", Series(|s| s.sop_class.as_bytes())),
    (0x0008_0018, "UI", Instance(I::SopUid)),
    (0x0008_0020, "DA", Series(|s| s.study_date.as_bytes())),
    (0x0008_0021, "DA", Series(|s| s.study_date.as_bytes())),
    (0x0008_0022, "DA", Series(|s| s.study_date.as_bytes())),
    (0x0008_0023, "DA", Series(|s| s.study_date.as_bytes())),
    (0x0008_0030, "TM", Series(|s| s.study_time.as_bytes())),
    (0x0008_0031, "TM", Series(|s| s.study_time.as_bytes())),
    (0x0008_0032, "TM", Instance(I::AcquisitionTime)),
    (0x0008_0033, "TM", Instance(I::ContentTime)),
    (0x0008_0050, "SH", Series(|s| s.accession.as_bytes())),
    (0x0008_0060, "CS", Series(|s| s.modality.as_bytes())),
    (0x0008_0070, "LO", Text("Benchmark Medical Systems")),
    (0x0008_0080, "LO", Text("General Hospital")),
    (0x0008_0081, "ST", Text("1 Main Street, Springfield")),
    (0x0008_0090, "PN", Text("Referring^Robin^^Dr")),
    (0x0008_1010, "SH", Text("STATION01")),
    (0x0008_1030, "LO", Series(|s| s.study_description.as_bytes())),
    (0x0008_1032, "SQ", Items(&[CODE])),
    (0x0008_103E, "LO", Series(|s| s.series_description.as_bytes())),
    (0x0008_1040, "LO", Text("Radiology")),
    (0x0008_1050, "PN", Text("Performing^Pat")),
    (0x0008_1070, "PN", Text("Operator^Olli")),
    (0x0008_1090, "LO", Text("Scanner 3000")),
    (0x0008_1111, "SQ", Items(&[REFERENCE])),
    (0x0008_1140, "SQ", Items(&[REFERENCE, REFERENCE, REFERENCE])),
    (0x0009_0010, "LO", Text("BENCHMARK HEADER")),
    (0x0009_1001, "LO", Text("BENCHMARK STUDY")),
    (0x0009_1002, "SH", Text("PRIVATE")),
    (0x0009_1027, "SL", Words(&[0x1234, 0x5678])),
    (0x0009_1030, "OB", Noise(320)),
    (0x0010_0010, "PN", Series(|s| &s.patient_name)),
    (0x0010_0020, "LO", Series(|s| s.patient_id.as_bytes())),
    (0x0010_0030, "DA", Series(|s| s.birth_date.as_bytes())),
    (0x0010_0040, "CS", Series(|s| s.sex.as_bytes())),
    (0x0010_1010, "AS", Text("061Y")),
    (0x0010_1020, "DS", Text("1.76")),
    (0x0010_1030, "DS", Text("78.5")),
    (0x0010_21B0, "LT", Text("Cough for three weeks.")),
    (0x0018_0015, "CS", Series(|s| s.body_part.as_bytes())),
    (0x0018_0020, "CS", Text("SE")),
    (0x0018_0021, "CS", Text("SK\\SP")),
    (0x0018_0022, "CS", Text("HELICAL MODE")),
    (0x0018_0023, "CS", Text("2D")),
    (0x0018_0050, "DS", Text("5.0")),
    (0x0018_0060, "DS", Text("120")),
    (0x0018_0080, "DS", Text("500")),
    (0x0018_0081, "DS", Text("12")),
    (0x0018_0083, "DS", Text("1")),
    (0x0018_0084, "DS", Text("63.683")),
    (0x0018_0085, "SH", Text("1H")),
    (0x0018_0086, "IS", Text("1")),
    (0x0018_0087, "DS", Text("1.5")),
    (0x0018_0088, "DS", Text("6.0")),
    (0x0018_0090, "DS", Text("500.0")),
    (0x0018_0091, "IS", Text("3")),
    (0x0018_0093, "DS", Text("100")),
    (0x0018_0094, "DS", Text("80")),
    (0x0018_0095, "DS", Text("150")),
    (0x0018_1000, "LO", Text("35162")),
    (0x0018_1020, "LO", Text("syngo-like CT 2012B")),
    (0x0018_1030, "LO", Text("1_2_ThoraxRoutine (Adult)")),
    (0x0018_1100, "DS", Text("360")),
    (0x0018_1120, "DS", Text("0")),
    (0x0018_1130, "DS", Text("146")),
    (0x0018_1140, "CS", Text("CW")),
    (0x0018_1150, "IS", Text("500")),
    (0x0018_1151, "IS", Text("110")),
    (0x0018_1152, "IS", Text("68")),
    (0x0018_1160, "SH", Text("WEDGE_3")),
    (0x0018_1170, "IS", Text("13")),
    (0x0018_1190, "DS", Text("1.2")),
    (0x0018_1210, "SH", Text("B31f")),
    (0x0018_5100, "CS", Text("HFS")),
    (0x0019_0010, "LO", Text("BENCHMARK ACQUISITION")),
    (0x0019_1002, "IS", Text("888")),
    (0x0019_1010, "OB", Noise(640)),
    (0x0020_000D, "UI", Series(|s| s.study_uid.as_bytes())),
    (0x0020_000E, "UI", Series(|s| s.series_uid.as_bytes())),
    (0x0020_0010, "SH", Text("1")),
    (0x0020_0011, "IS", SeriesNumber),
    (0x0020_0012, "IS", Text("1")),
    (0x0020_0013, "IS", Instance(I::Number)),
    (0x0020_0032, "DS", Instance(I::Position)),
    (0x0020_0037, "DS", Text("1\\0\\0\\0\\1\\0")),
    (0x0020_0052, "UI", Series(|s| s.series_uid.as_bytes())),
    (0x0020_1040, "LO", Text("")),
    (0x0020_1041, "DS", Instance(I::Location)),
    (0x0028_0002, "US", Words(&[1])),
    (0x0028_0004, "CS", Text("MONOCHROME2")),
    (0x0028_0010, "US", Rows),
    (0x0028_0011, "US", Columns),
    (0x0028_0030, "DS", Text("0.703125\\0.703125")),
    (0x0028_0100, "US", Words(&[16])),
    (0x0028_0101, "US", Words(&[12])),
    (0x0028_0102, "US", Words(&[11])),
    (0x0028_0103, "US", Words(&[0])),
    (0x0028_1050, "DS", Text("40\\-600")),
    (0x0028_1051, "DS", Text("400\\1500")),
    (0x0028_1052, "DS", Text("-1024")),
    (0x0028_1053, "DS", Text("1")),
    (0x0029_0010, "LO", Text("BENCHMARK CSA HEADER")),
    (0x0029_1010, "OB", Noise(1_056)),
    (0x0032_1060, "LO", Text("CT thorax")),
    (0x0040_0244, "DA", Series(|s| s.study_date.as_bytes())),
    (0x0040_0253, "SH", Text("MPPS4711")),
    (
        0x0040_0275,
        "SQ",
        Items(&[&[
            (0x0040_0007, "LO", Text("CT thorax with contrast")),
            (0x0040_0008, "SQ", Items(&[CODE])),
            (0x0040_0009, "SH", Text("SPS0815")),
            (0x0040_1001, "SH", Text("RP4711")),
        ]]),
    ),
];

#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    Field(u32, &'static str, InstanceValue),
}

/// A data set without pixel data, encoded but for what differs from instance to instance.
#[derive(Debug)]
pub struct Template {
    parts: Vec<Part>,
    explicit: bool,
}

impl Template {
    /// Encodes what `series` says.
    pub fn new(series: &SeriesFacts) -> Self {
        let explicit = series.syntax.explicit();
        let mut parts = Vec::new();
        let mut bytes = Vec::new();
        for &(tag, vr, value) in ROOT {
            if let Instance(field) = value {
                parts.push(Part::Bytes(std::mem::take(&mut bytes)));
                parts.push(Part::Field(tag, vr, field));
            } else {
                encode(&mut bytes, explicit, (tag, vr, value), series);
            }
        }
        parts.push(Part::Bytes(bytes));
        Self { parts, explicit }
    }

    /// Appends the whole data set of `instance` up to the pixel data.
    pub fn write(&self, instance: &InstanceFacts, out: &mut Vec<u8>) {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => out.extend_from_slice(bytes),
                &Part::Field(tag, vr, field) => {
                    text.clear();
                    field.write(instance, &mut text);
                    element(out, self.explicit, tag, vr, text.as_bytes());
                }
            }
        }
    }
}

impl InstanceValue {
    fn write(self, instance: &InstanceFacts, text: &mut String) {
        let clock = |text: &mut String, delay: u64| {
            let seconds = instance.seconds + delay;
            put(text, format_args!("{:02}{:02}{:02}", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60));
            if instance.fractions {
                put(text, format_args!(".{:06}", instance.number * 7_919 % 1_000_000));
            }
        };
        match self {
            Self::SopUid => text.push_str(&instance.sop_uid),
            Self::Number => put(text, format_args!("{}", instance.number)),
            Self::AcquisitionTime => clock(text, 0),
            Self::ContentTime => clock(text, 2),
            Self::CreationTime => clock(text, 5),
            Self::Position => put(text, format_args!("-180\\-180\\{}", instance.number * 5)),
            Self::Location => put(text, format_args!("{}", instance.number * 5)),
        }
    }
}

fn encode(out: &mut Vec<u8>, explicit: bool, (tag, vr, value): Element, series: &SeriesFacts) {
    let words = |words: &[u16]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    match value {
        Text(text) => element(out, explicit, tag, vr, text.as_bytes()),
        Words(all) => element(out, explicit, tag, vr, &words(all)),
        Rows => element(out, explicit, tag, vr, &words(&[series.rows])),
        Columns => element(out, explicit, tag, vr, &words(&[series.columns])),
        Noise(length) => {
            let noise: Vec<u8> = (0..length).map(|i| (i * 31 + i / 7) as u8).collect();
            element(out, explicit, tag, vr, &noise);
        }
        Series(fact) => element(out, explicit, tag, vr, fact(series)),
        SeriesNumber => element(out, explicit, tag, vr, series.series_number.to_string().as_bytes()),
        Items(items) => {
            let mut body = Vec::new();
            for item in items {
                let mut content = Vec::new();
                for &inner in *item {
                    encode(&mut content, explicit, inner, series);
                }
                item_header(&mut body, content.len() as u32);
                body.extend_from_slice(&content);
            }
            element(out, explicit, tag, vr, &body);
        }
        Instance(_) => unreachable!("instance values stand at the root only"),
    }
}

fn tag_bytes(out: &mut Vec<u8>, tag: u32) {
    out.extend_from_slice(&((tag >> 16) as u16).to_le_bytes());
    out.extend_from_slice(&(tag as u16).to_le_bytes());
}

fn item_header(out: &mut Vec<u8>, length: u32) {
    tag_bytes(out, 0xFFFE_E000);
    out.extend_from_slice(&length.to_le_bytes());
}

/// One element with its value padded to even length (PS3.5 6.2 and 7.1).
pub fn element(out: &mut Vec<u8>, explicit: bool, tag: u32, vr: &str, value: &[u8]) {
    element_header(out, explicit, tag, vr, (value.len() + value.len() % 2) as u32);
    out.extend_from_slice(value);
    if value.len() % 2 == 1 {
        out.push(if matches!(vr, "UI" | "OB") { 0 } else { b' ' });
    }
}

fn element_header(out: &mut Vec<u8>, explicit: bool, tag: u32, vr: &str, length: u32) {
    tag_bytes(out, tag);
    if !explicit {
        out.extend_from_slice(&length.to_le_bytes());
        return;
    }
    out.extend_from_slice(vr.as_bytes());
    if matches!(vr, "OB" | "OW" | "SQ" | "UN" | "UT") {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&length.to_le_bytes());
    } else {
        out.extend_from_slice(&(length as u16).to_le_bytes());
    }
}

/// Appends the header of the pixel data with `payload` bytes to follow, and says what has to come
/// after them.
pub fn pixel_data(out: &mut Vec<u8>, syntax: Syntax, payload: u32) -> &'static [u8] {
    const PIXEL_DATA: u32 = 0x7FE0_0010;
    if syntax != Syntax::Encapsulated {
        element_header(out, syntax.explicit(), PIXEL_DATA, "OW", payload);
        return &[];
    }
    // PS3.5 A.4: an empty basic offset table, one fragment, the delimiter.
    element_header(out, true, PIXEL_DATA, "OB", u32::MAX);
    item_header(out, 0);
    item_header(out, payload);
    &[0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]
}

/// Appends preamble and file meta information (PS3.10 7.1).
pub fn file_meta(out: &mut Vec<u8>, sop_class: &str, sop_uid: &str, syntax: Syntax) {
    let mut meta = Vec::with_capacity(256);
    element(&mut meta, true, 0x0002_0001, "OB", &[0, 1]);
    element(&mut meta, true, 0x0002_0002, "UI", sop_class.as_bytes());
    element(&mut meta, true, 0x0002_0003, "UI", sop_uid.as_bytes());
    element(&mut meta, true, 0x0002_0010, "UI", syntax.uid().as_bytes());
    element(&mut meta, true, 0x0002_0012, "UI", b"2.25.271828182845904523536");
    element(&mut meta, true, 0x0002_0013, "SH", b"DCMDEX_CORPUS");
    out.extend_from_slice(&[0; 128]);
    out.extend_from_slice(b"DICM");
    element(out, true, 0x0002_0000, "UL", &(meta.len() as u32).to_le_bytes());
    out.extend_from_slice(&meta);
}

const MODALITIES: &[(&str, &str)] = &[
    ("CT", "1.2.840.10008.5.1.4.1.1.2"),
    ("CT", "1.2.840.10008.5.1.4.1.1.2"),
    ("MR", "1.2.840.10008.5.1.4.1.1.4"),
    ("MR", "1.2.840.10008.5.1.4.1.1.4"),
    ("PT", "1.2.840.10008.5.1.4.1.1.128"),
];
const FAMILIES: &[&str] = &[
    "Smith",
    "Johnson",
    "Garcia",
    "Nguyen",
    "Kowalski",
    "Rossi",
    "Dubois",
    "Jensen",
    "Novak",
    "Schmidt",
    "Silva",
    "Ivanov",
    "Hansen",
    "Goldsmith",
    "Yilmaz",
    "Peeters",
    "Andersson",
    "Popov",
];
const GIVEN: &[&str] = &[
    "John", "Mary", "Anna", "Peter", "Maria", "Ivan", "Luis", "Chen", "Olga", "Marc", "Sofia", "Emma", "Paul", "Lena",
    "Omar", "Nina",
];
const BODY_PARTS: &[&str] = &["CHEST", "HEAD", "ABDOMEN", "PELVIS", "SPINE", "KNEE"];
const STUDIES: &[&str] = &["CT Thorax", "MR Head plain", "Abdomen", "Whole body", "Spine"];
const SERIES: &[&str] = &["Axial 5.0", "T1 sag", "T2 tra", "Localizer", "Recon 1.0 B70f"];

/// A patient: name, identifier, birth date, sex; the character set depends on the name.
pub fn patient(seed: u64, number: u64) -> SeriesFacts {
    let mut random = Random::new(seed, number.wrapping_mul(2) + 1);
    let (family, given) = (random.one_of(FAMILIES), random.one_of(GIVEN));
    let middle = random.within(0, 100_000);
    let (charset, patient_name) = match random.within(0, 100) {
        0..10 => ("ISO_IR 192", format!("Yamada{middle}^{given}=山田^太郎=やまだ^たろう").into_bytes()),
        // ISO 8859-1: u and o with diaeresis.
        10..25 => ("ISO_IR 100", [b"M\xFCller-Sch\xF6n^" as &[u8], given.as_bytes()].concat()),
        _ => ("ISO_IR 100", format!("{family}^{given}^{middle}").into_bytes()),
    };
    SeriesFacts {
        charset,
        patient_name,
        patient_id: format!("P{number:07}"),
        birth_date: format!("{}0{}15", random.within(1930, 2010), random.within(1, 10)),
        sex: random.one_of(&["F", "M"]),
        study_uid: String::new(),
        study_date: String::new(),
        study_time: String::new(),
        accession: String::new(),
        study_description: "",
        series_uid: String::new(),
        series_number: 0,
        series_description: "",
        modality: "",
        sop_class: "",
        body_part: "",
        rows: 0,
        columns: 0,
        syntax: Syntax::Explicit,
    }
}

impl SeriesFacts {
    /// This patient with a study.
    pub fn with_study(mut self, random: &mut Random, style: UidStyle, number: u64) -> Self {
        self.study_date = date(random);
        self.study_time = time(random);
        self.study_uid = group_uid(style, random, &self.study_date);
        self.accession = format!("A{number:09}");
        self.study_description = random.one_of(STUDIES);
        (self.modality, self.sop_class) = random.one_of(MODALITIES);
        self.body_part = random.one_of(BODY_PARTS);
        self
    }

    /// This study with a series, whose images hold `payload` bytes of 16-bit pixels; the payload
    /// that fits the matrix.
    pub fn with_series(mut self, random: &mut Random, style: UidStyle, number: u64, payload: u32) -> (Self, u32) {
        self.series_uid = group_uid(style, random, &self.study_date);
        self.series_number = number;
        self.series_description = random.one_of(SERIES);
        self.columns = if payload >= 64 * 1024 { 512 } else { 64 };
        let row = u32::from(self.columns) * 2;
        self.rows = u16::try_from(payload / row).unwrap_or(u16::MAX);
        let payload = u32::from(self.rows) * row;
        (self, payload)
    }
}
