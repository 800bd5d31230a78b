//! The header reader compared with real files and with dicom-object, and its behaviour on damaged
//! objects.

use std::fs::File;
use std::path::{Path, PathBuf};

use dcmdex::ingest::{HeaderParser, Need, Outcome, Wanted, read_file, read_file_of_length, read_stream};
use dcmdex::model::attribute::{ATTRIBUTES, AttributeId, ValueSource};
use dcmdex::model::record::InstanceRecord;

fn real() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/real")
}

/// Returns the rows of the table in fixtures/real/README.md: the file, and the expected result of
/// reading it.
fn table() -> Vec<(PathBuf, String)> {
    let readme = std::fs::read_to_string(real().join("README.md")).unwrap();
    let rows: Vec<_> = readme
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.first().is_some_and(|file| real().join(file).is_file()))
        .collect();
    assert!(rows.len() > 80, "the table is read");
    let reading = |cells: &Vec<&str>| {
        let known = ["instance", "damaged", "incomplete", "dicomdir", "other"];
        (*cells.iter().rev().find(|cell| known.contains(*cell)).unwrap()).to_owned()
    };
    rows.iter().map(|cells| (real().join(cells[0]), reading(cells))).collect()
}

fn whole(bytes: &[u8]) -> Outcome {
    let mut parser = HeaderParser::for_file(Wanted::index());
    parser.feed(bytes);
    Outcome::of(parser.finish())
}

#[track_caller]
fn instance(outcome: Outcome) -> Box<InstanceRecord> {
    match outcome {
        Outcome::Instance(record) => record,
        other => panic!("not an instance: {other:?}"),
    }
}

/// Returns the faults without the words for counting.
fn faults(record: &InstanceRecord) -> Vec<String> {
    record.faults().iter().map(|fault| fault.split_once(": ").unwrap().1.to_owned()).collect()
}

/// An object with another element before the one of this tag.
fn with_element_before(tag: [u8; 4], element: &[u8]) -> Vec<u8> {
    let mut bytes = crate::util::objects::file("P1", "1.2.1", "1.2.1.1", "1.2.1.1.1");
    let at = bytes.windows(4).position(|window| window == tag).unwrap();
    bytes.splice(at..at, element.iter().copied());
    bytes
}

// PS3.5 7.1: elements are in ascending order of tags.
#[test]
fn what_stands_behind_the_place_where_reading_ends_is_told() {
    const PIXEL_DATA: &[u8] = b"\xE0\x7F\x10\0OB\0\0\x04\0\0\0\x01\x02\x03\x04";
    const HIGH: &[u8] = b"\x00\x54\x10\x10LO\x04\0ABCD";
    let (study, instance_number) = ([0x20, 0, 0x0D, 0], [0x20, 0, 0x13, 0]);
    let read = |bytes: Vec<u8>| read_stream(&mut bytes.as_slice(), Wanted::index());
    for element in [PIXEL_DATA, HIGH] {
        let record = instance(read(with_element_before(instance_number, element)));
        assert_eq!(record.value(AttributeId::InstanceNumber), "");
        assert_eq!(faults(&record), ["tag (0020,0013) is out of order"]);
    }
    let outcome = read(with_element_before(study, PIXEL_DATA));
    let Outcome::Incomplete { missing, read_up_to } = outcome else { panic!("{outcome:?}") };
    assert_eq!(missing, [AttributeId::StudyInstanceUID, AttributeId::SeriesInstanceUID]);
    assert_eq!(read_up_to.map(|tag| tag.to_string()).as_deref(), Some("(7FE0,0010)"));
    // Other bytes behind the data set are no elements.
    let mut bytes = with_element_before([0; 4], &[]);
    bytes.extend_from_slice(PIXEL_DATA);
    bytes.extend_from_slice(b"\x08\0\x01\0LO\x04\0ABCD");
    assert!(instance(read(bytes)).faults().is_empty());
}

#[test]
fn every_real_file_is_what_its_table_says() {
    for (path, reading) in table() {
        let file = File::open(&path).unwrap();
        let outcome = read_file_of_length(&file, file.metadata().unwrap().len(), Wanted::index());
        let agrees = match &outcome {
            Outcome::Instance(record) => reading == "instance" && record.faults().is_empty() || reading == "damaged",
            Outcome::Incomplete { .. } => reading == "incomplete",
            Outcome::Dicomdir => reading == "dicomdir",
            Outcome::NotDicom { .. } => reading == "other",
            Outcome::Damaged { .. } => reading == "damaged",
            Outcome::Unreadable { .. } => false,
        };
        println!("{} {reading}: {outcome:?}", path.display());
        assert!(agrees, "{} is {reading}, read as {outcome:?}", path.display());
    }
}

#[test]
fn a_file_that_ends_inside_its_pixel_data_is_truncated() {
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/real");
    let read = |path: &str, cut: u64| {
        let file = File::open(real.join(path)).unwrap();
        let length = file.metadata().unwrap().len() - cut;
        faults(&instance(read_file_of_length(&file, length, Wanted::index())))
    };
    assert_eq!(read("odd/MR_truncated.dcm", 0), ["truncated at byte 9630"]);
    assert_eq!(read("modalities/MR_small.dcm", 0), [""; 0]);
    assert_eq!(read("modalities/MR_small.dcm", 1000), ["truncated at byte 8830"]);
}

#[test]
fn a_file_that_ends_behind_the_wanted_elements_is_truncated() {
    // It ends inside a sequence that nobody wants.
    let path = real().join("odd/rtplan_truncated.dcm");
    let file = File::open(&path).unwrap();
    let record = instance(read_file_of_length(&file, file.metadata().unwrap().len(), Wanted::index()));
    assert_eq!(faults(&record), ["truncated at byte 2129"]);
}

#[test]
fn a_file_in_one_piece_in_single_bytes_and_as_a_stream_gives_the_same_record() {
    for (path, _) in table() {
        let bytes = std::fs::read(&path).unwrap();
        let at_once = format!("{:?}", Shown(whole(&bytes)));
        let from_file = format!("{:?}", Shown(read_file(&File::open(&path).unwrap(), Wanted::index())));
        let from_stream = format!("{:?}", Shown(read_stream(bytes.as_slice(), Wanted::index())));
        let mut parser = HeaderParser::for_file(Wanted::index());
        for byte in &bytes {
            if parser.feed(std::slice::from_ref(byte)) == Need::Done {
                break;
            }
        }
        let byte_by_byte = format!("{:?}", Shown(Outcome::of(parser.finish())));
        assert_eq!(from_file, at_once, "{}", path.display());
        assert_eq!(from_stream, at_once, "{}", path.display());
        assert_eq!(byte_by_byte, at_once, "{}", path.display());
    }
}

/// An outcome with all its values, for comparison.
struct Shown(Outcome);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Outcome::Instance(record) => {
                let values: Vec<_> =
                    ATTRIBUTES.iter().map(|attribute| (attribute.keyword, record.value(attribute.id))).collect();
                write!(f, "{values:?} {:?}", record.faults())
            }
            other => write!(f, "{other:?}"),
        }
    }
}

mod differential;

pub(crate) mod made;

mod wild;

mod hostile;

mod damage;
