//! The index, through its public interface.

mod arrivals;
mod beside;
mod defects;
mod engines;
mod federated;
mod following;
mod frozen;
mod identity;
mod migrating;
mod model_based;
mod names;
mod plans;
mod receivers;
mod records;
mod remembered;
mod server;
mod server_gone;
mod several_nodes;
mod transferred;
mod views;
mod writing;

use std::ops::ControlFlow;
use std::path::Path;

pub(crate) use model_based::cases;

use dcmdex::db::open::{Reader, Writer, WriterOptions};
use dcmdex::db::{
    Admin, Arrivals, Compared, DuplicatePolicy, Durability, Error, FileOutcome, KnownPolicy, NotIndexed, ReceivePolicy,
    Received, RemovalChanges, RemovalSearch, ScannedDirectory, ScannedFile, Search, StoreOutcome,
};
use dcmdex::ingest::{Outcome, Wanted, read_file};
use dcmdex::model::attribute::AttributeId;
use dcmdex::model::clock::{Clock, unix_ms};
use dcmdex::model::find::{FindAnswer, FindRequest};
use dcmdex::model::level::{InformationModel, QueryRetrieveLevel};
use dcmdex::model::location::{Location, Place};
use dcmdex::model::matching::{KeyValue, MatchPolicy, Matching};
use dcmdex::model::record::InstanceRecord;

pub(crate) fn writer(index: &Path) -> Writer {
    let options = WriterOptions { durability: Durability::Os, clock: Clock::Fixed(1_000), ..WriterOptions::default() };
    Writer::open(index, options).unwrap()
}

/// Builds a record with the required UIDs and the given values.
pub(crate) fn record(study: &str, series: &str, instance: &str, more: &[(AttributeId, &str)]) -> Box<InstanceRecord> {
    let mut record = InstanceRecord::new();
    record.set(AttributeId::PatientID, "P1");
    record.set(AttributeId::PatientName, "Test^Person");
    record.set(AttributeId::StudyInstanceUID, study);
    record.set(AttributeId::SeriesInstanceUID, series);
    record.set(AttributeId::SOPInstanceUID, instance);
    record.set(AttributeId::SOPClassUID, "1.2.840.10008.5.1.4.1.1.2");
    record.set(AttributeId::AvailableTransferSyntaxUID, "1.2.840.10008.1.2.1");
    record.set(AttributeId::Modality, "CT");
    record.set(AttributeId::InstanceNumber, "1");
    for (id, value) in more {
        record.set(*id, value);
    }
    Box::new(record)
}

/// Asks until it has three answers, then with an interruption, and then to the end.
pub(crate) fn assert_ends_when_told(reader: &mut impl Search, asked: &FindRequest, all: u64) {
    let mut seen = 0;
    let stopped = reader.find(asked, |_| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((stopped.unwrap(), seen), (3, 3));
    let interrupt = reader.interrupt();
    // Nothing is asked: it does nothing.
    interrupt.interrupt();
    let interrupted = reader.find(asked, |_| {
        interrupt.interrupt();
        ControlFlow::Continue(())
    });
    assert!(matches!(interrupted, Err(Error::Interrupted)), "{interrupted:?}");
    assert_eq!(reader.find(asked, |_| ControlFlow::Continue(())).unwrap(), all);
}

pub(crate) fn file(name: &str, record: Box<InstanceRecord>) -> ScannedFile {
    ScannedFile {
        file_name: name.into(),
        size: 1000,
        mtime_ms: 5_000,
        known: false,
        reread: false,
        outcome: FileOutcome::Instance(record),
    }
}

/// Describes a file on disk as a scan reads it.
pub(crate) fn file_on_disk(path: &Path) -> ScannedFile {
    let opened = std::fs::File::open(path).unwrap();
    let metadata = opened.metadata().unwrap();
    let Outcome::Instance(record) = read_file(&opened, Wanted::index()) else { panic!("{path:?}") };
    ScannedFile {
        size: metadata.len(),
        mtime_ms: unix_ms(metadata.modified().unwrap()),
        ..file(path.file_name().unwrap().to_str().unwrap(), record)
    }
}

/// Adds these files of a directory to an index.
pub(crate) fn scan_on_disk(index: &Path, directory: &Path, names: &[&str]) {
    let writer = writer(index);
    let files = names.iter().map(|name| file_on_disk(&directory.join(name))).collect();
    writer.handle().scanned(scanned(directory.to_str().unwrap(), files)).unwrap();
    writer.close().unwrap();
}

pub(crate) fn scanned(directory: &str, files: Vec<ScannedFile>) -> ScannedDirectory {
    ScannedDirectory { files, complete: true, ..ScannedDirectory::new(Place::InPlace, directory) }
}

pub(crate) fn location(place: Place, directory: &str, name: &str) -> Location {
    Location { place, directory: directory.into(), file_name: name.into(), size: 1000, mtime_ms: 5_000 }
}

pub(crate) fn store(writer: &Writer, record: Box<InstanceRecord>, location: Location) -> StoreOutcome {
    store_with(writer, record, location, DuplicatePolicy::KeepFirst, Compared::Same)
}

pub(crate) fn store_with(
    writer: &Writer,
    record: Box<InstanceRecord>,
    location: Location,
    duplicates: DuplicatePolicy,
    compared: Compared,
) -> StoreOutcome {
    let (send, receive) = std::sync::mpsc::channel();
    let on_done = move |result| send.send(result).unwrap();
    let policy = ReceivePolicy { duplicates, known: KnownPolicy::TrustArchive };
    writer.handle().store(Received { policy, compared, ..Received::new(record, location) }, Box::new(on_done));
    receive.recv().unwrap().unwrap().outcome
}

pub(crate) fn request(level: QueryRetrieveLevel, returned: &[AttributeId]) -> FindRequest {
    FindRequest::new(InformationModel::PatientRoot, level).returning(returned)
}

pub(crate) fn find(index: &Path, request: &FindRequest) -> Vec<Vec<String>> {
    found_by(&mut Reader::open(index).unwrap(), request)
}

pub(crate) fn found_by(reader: &mut Reader, request: &FindRequest) -> Vec<Vec<String>> {
    let mut answers = Vec::new();
    let mut collect = |answer: FindAnswer| {
        answers.push(answer.values.to_vec());
        ControlFlow::Continue(())
    };
    reader.find(request, &mut collect).unwrap();
    answers
}

pub(crate) fn assert_sound(index: &Path) {
    let report = Reader::open(index).unwrap().check().unwrap();
    assert_eq!(report.findings, [], "the index contradicts itself");
}

/// Compiles the condition of a key text.
pub(crate) fn matching(attribute: AttributeId, key: &str) -> Matching {
    Matching::of_key(attribute.attribute(), &KeyValue::Text(key.into()), &MatchPolicy::default()).unwrap()
}
