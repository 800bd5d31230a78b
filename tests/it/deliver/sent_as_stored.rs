//! An indexed object can be opened and is sent unchanged, whatever else is in the file.

use std::fs::{self, File};
use std::path::Path;

use dcmdex::archive::Archives;
use dcmdex::deliver::object::{Identity, StoredObject};
use dcmdex::ingest::{HeaderParser, Outcome, Wanted, read_file, read_stream};
use dcmdex::model::attribute::AttributeId;
use dcmdex::model::clock::unix_ms;
use dcmdex::model::location::{Location, Place};
use dcmdex::model::record::InstanceRecord;
use dcmdex::store::FileMeta;
use proptest::prelude::*;

use crate::ingest::headers::made::{
    DEFLATED, EBE, ELE, EXPLICIT_BE, EXPLICIT_LE, Encoding, ILE, IMPLICIT_LE, UNDEFINED, deflate,
};

/// A kind of oddity in an object.
#[derive(Debug, Clone)]
enum Part {
    /// A sequence contains text instead of items.
    Text { tag: u32, vr: &'static str },
    /// A sequence contains junk after an item, within its length.
    JunkBehindItem { tag: u32, junk: Vec<u8> },
    /// An item contains junk, within its length.
    JunkInItem { tag: u32, junk: Vec<u8> },
    /// UN of undefined length contains an implicit element whose length looks like a VR.
    Unknown { letters: [u8; 2] },
    /// Items are in the other VR encoding.
    OtherItems { tag: u32, defined: bool },
    /// A private value.
    Private(Vec<u8>),
    /// An element of group 0000.
    Command,
}

impl Part {
    fn encode(&self, encoding: Encoding) -> Vec<u8> {
        let item = |content: &[u8]| encoding.element(0xFFFE_E000, "", content);
        let name = encoding.element(0x0010_0010, "PN", b"Other^Name");
        match self {
            Self::Text { tag, vr } => encoding.element(*tag, vr, b"Test,Case19  "),
            Self::JunkBehindItem { tag, junk } => encoding.element(*tag, "SQ", &[item(&name), junk.clone()].concat()),
            Self::JunkInItem { tag, junk } => encoding.element(*tag, "SQ", &item(&[name, junk.clone()].concat())),
            Self::Unknown { letters } => {
                if !encoding.explicit {
                    return Vec::new();
                }
                let length = u32::from(u16::from_le_bytes(*letters));
                let long = [ILE.header(0x0009_1011, "", length), vec![b'x'; length as usize]].concat();
                [
                    encoding.header(0x0009_1010, "UN", UNDEFINED),
                    ILE.header(0xFFFE_E000, "", UNDEFINED),
                    long,
                    ILE.header(0xFFFE_E00D, "", 0),
                    ILE.header(0xFFFE_E0DD, "", 0),
                ]
                .concat()
            }
            Self::OtherItems { tag, defined } => {
                let other = Encoding { explicit: !encoding.explicit, ..encoding };
                let content = [
                    other.element(0x0008_1150, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
                    other.element(0x0008_1155, "UI", b"1.2.3.4\0"),
                ]
                .concat();
                if *defined {
                    return encoding.element(*tag, "SQ", &item(&content));
                }
                [
                    encoding.header(*tag, "SQ", UNDEFINED),
                    encoding.header(0xFFFE_E000, "", UNDEFINED),
                    content,
                    encoding.header(0xFFFE_E00D, "", 0),
                    encoding.header(0xFFFE_E0DD, "", 0),
                ]
                .concat()
            }
            Self::Private(value) => encoding.element(0x0009_1012, "UN", value),
            Self::Command => encoding.element(0x0000_0900, "US", &[0, 0]),
        }
    }
}

fn part() -> impl Strategy<Value = Part> {
    // Those that the index keeps, and those that it does not.
    let tag = || prop::sample::select(vec![0x0008_1032, 0x0008_1110, 0x0008_1140, 0x0008_9215_u32]);
    let junk = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 1..40),
            Just(b"\x09\0\x01\x10UN\0\0".to_vec()),
            Just(b"\x10\0\xff\x4fUN\0\0\0\0".to_vec()),
        ]
    };
    // Not a VR with two bytes that look like the begin of an explicit header with a 32-bit length.
    let letters = prop::sample::select(vec![*b"DA", *b"UI", *b"PN", *b"OB", *b"SQ", *b"LO"]);
    prop_oneof![
        (tag(), prop::sample::select(vec!["SQ", "UN", "CS"])).prop_map(|(tag, vr)| Part::Text { tag, vr }),
        (tag(), junk()).prop_map(|(tag, junk)| Part::JunkBehindItem { tag, junk }),
        (tag(), junk()).prop_map(|(tag, junk)| Part::JunkInItem { tag, junk }),
        letters.prop_map(|letters| Part::Unknown { letters }),
        (tag(), any::<bool>()).prop_map(|(tag, defined)| Part::OtherItems { tag, defined }),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Part::Private),
        Just(Part::Command),
    ]
}

/// Generates elements that appear before a data set but are not part of it.
fn foreign() -> impl Strategy<Value = (u32, &'static str, &'static [u8])> {
    prop::sample::select(vec![
        (0x0002_0010, "UI", b"1.2.840.10008.1.2.4.70".as_slice()),
        (0x0002_0010, "UI", b"1.2.840.10008.1.2\0".as_slice()),
        (0x0002_0016, "AE", b"OTHER ".as_slice()),
        (0x0002_0003, "UI", b"1.2.9\0".as_slice()),
        (0x0002_0102, "OB", b"\x01\x02".as_slice()),
        (0x0000_0002, "UI", b"1.2\0".as_slice()),
        (0x0000_0100, "US", b"\x01\x00".as_slice()),
    ])
}

#[derive(Debug, Clone)]
struct Odd {
    syntax: usize,
    foreign: Vec<(u32, &'static str, &'static [u8])>,
    parts: Vec<Part>,
    pixels: Vec<u8>,
    zeros: usize,
}

const SYNTAXES: [(&str, Encoding); 4] = [(EXPLICIT_LE, ELE), (IMPLICIT_LE, ILE), (EXPLICIT_BE, EBE), (DEFLATED, ELE)];

impl Odd {
    fn transfer_syntax(&self) -> &'static str {
        SYNTAXES[self.syntax].0
    }

    /// Returns the data set as sent.
    fn data_set(&self) -> Vec<u8> {
        let encoding = SYNTAXES[self.syntax].1;
        let whole = encoding.data_set();
        let name = encoding.header(0x0010_0010, "PN", 8);
        let at = whole.windows(4).position(|window| *window == name[..4]).unwrap();
        let mut bytes = Vec::new();
        if self.foreign.iter().any(|(tag, ..)| tag >> 16 == 0) {
            bytes.extend(encoding.element(0, "UL", if encoding.big { &[0, 0, 0, 10] } else { &[10, 0, 0, 0] }));
        }
        for (tag, vr, value) in &self.foreign {
            bytes.extend(encoding.element(*tag, vr, value));
        }
        bytes.extend(&whole[..at]);
        self.parts.iter().for_each(|part| bytes.extend(part.encode(encoding)));
        bytes.extend(&whole[at..]);
        bytes.extend(encoding.element(0x7FE0_0010, "OB", &self.pixels));
        bytes.extend(vec![0; self.zeros]);
        if self.transfer_syntax() == DEFLATED { deflate(&bytes) } else { bytes }
    }
}

fn odd() -> impl Strategy<Value = Odd> {
    let foreign = prop::collection::vec(foreign(), 0..4);
    let pixels = prop::collection::vec(any::<u8>(), 0..30);
    (0..4_usize, foreign, prop::collection::vec(part(), 0..3), pixels, 0..3_usize).prop_map(
        |(syntax, foreign, parts, pixels, zeros)| Odd { syntax, foreign, parts, pixels, zeros: [0, 8, 512][zeros] },
    )
}

fn meta(transfer_syntax: &str) -> Vec<u8> {
    FileMeta {
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid: "1.2.3.4.5.6",
        transfer_syntax,
        source_ae_title: "SENDER",
    }
    .encode()
}

fn assert_whole(record: &InstanceRecord, transfer_syntax: &str) {
    for (id, value) in [
        (AttributeId::SOPClassUID, "1.2.840.10008.5.1.4.1.1.2"),
        (AttributeId::SOPInstanceUID, "1.2.3.4.5.6"),
        (AttributeId::PatientName, "Müller^A"),
        (AttributeId::StudyInstanceUID, "1.2.3.4.5"),
        (AttributeId::SeriesInstanceUID, "1.2.3.4.5.1"),
        (AttributeId::Rows, "512"),
        (AttributeId::AvailableTransferSyntaxUID, transfer_syntax),
    ] {
        assert_eq!(record.value(id), value, "{id}: {:?}", record.faults());
    }
}

#[track_caller]
fn instance(outcome: Outcome) -> Box<InstanceRecord> {
    match outcome {
        Outcome::Instance(record) => record,
        other => panic!("not an instance: {other:?}"),
    }
}

/// Parses a data set that arrives in pieces.
fn received(data_set: &[u8], transfer_syntax: &str, piece: usize) -> Box<InstanceRecord> {
    let mut parser = HeaderParser::for_data_set(Wanted::index(), transfer_syntax);
    for piece in data_set.chunks(piece) {
        parser.feed(piece);
    }
    instance(Outcome::of(parser.finish()))
}

/// Returns the data set that a peer gets for a file.
fn sent(path: &Path, transfer_syntax: &str) -> Vec<u8> {
    let metadata = fs::metadata(path).unwrap();
    let location = Location {
        place: Place::InPlace,
        directory: path.parent().unwrap().to_owned(),
        file_name: path.file_name().unwrap().to_owned(),
        size: metadata.len(),
        mtime_ms: unix_ms(metadata.modified().unwrap()),
    };
    let identity = Identity {
        sop_instance_uid: "1.2.3.4.5.6",
        sop_class_uid: Some("1.2.840.10008.5.1.4.1.1.2"),
        transfer_syntax: Some(transfer_syntax),
    };
    let object = StoredObject::open(&location, &identity, &Archives::default()).unwrap();
    let mut data_set = object.as_stored().unwrap();
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 250];
    loop {
        let left = data_set.left();
        let filled = data_set.fill(&mut buffer).unwrap();
        // PS3.8 E.1
        assert_eq!(filled.count % 2, 0, "a fragment of odd length");
        assert!(left.is_none_or(|left| left >= filled.count as u64));
        bytes.extend_from_slice(&buffer[..filled.count]);
        if filled.is_last {
            return bytes;
        }
    }
}

fn even(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_stands_around_it_an_object_is_read_whole_and_sent_as_it_came(odd in odd(), piece in 1_usize..200) {
        let (transfer_syntax, data_set) = (odd.transfer_syntax(), odd.data_set());
        let record = received(&data_set, transfer_syntax, piece);
        assert_whole(&record, transfer_syntax);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("1.dcm");
        let file = [meta(transfer_syntax), data_set.clone()].concat();
        fs::write(&path, &file).unwrap();
        // A scan of what was stored says the same.
        let scanned = instance(read_file(&File::open(&path).unwrap(), Wanted::index()));
        prop_assert_eq!(&scanned, &record);
        prop_assert_eq!(&instance(read_stream(file.as_slice(), Wanted::index())), &record);
        prop_assert!(sent(&path, transfer_syntax) == even(data_set));
    }
}

#[test]
fn elements_in_another_encoding_than_the_data_set_are_not_sent_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("1.dcm");
    let commands = |encoding: Encoding| {
        let length = if encoding.big { [0, 0, 0, 10] } else { [10, 0, 0, 0] };
        [encoding.element(0, "UL", &length), encoding.element(0x0000_0100, "US", &[1, 0])].concat()
    };
    let more_meta = ELE.element(0x0002_0016, "AE", b"OTHER ");
    for (transfer_syntax, encoding, before) in [
        (EXPLICIT_LE, ELE, commands(ILE)),
        (EXPLICIT_BE, EBE, commands(ILE)),
        (IMPLICIT_LE, ILE, commands(ELE)),
        // The length of group 0002 is too small: PS3.10 7.1 has it in explicit VR.
        (IMPLICIT_LE, ILE, more_meta.clone()),
        (EXPLICIT_BE, EBE, more_meta),
    ] {
        fs::write(&path, [meta(transfer_syntax), before, encoding.data_set()].concat()).unwrap();
        let record = instance(read_file(&File::open(&path).unwrap(), Wanted::index()));
        assert_whole(&record, transfer_syntax);
        assert!(!record.faults().is_empty());
        assert!(sent(&path, transfer_syntax) == even(encoding.data_set()));
    }
}
