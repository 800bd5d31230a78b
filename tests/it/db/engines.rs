//! The engines of the index, and the suite that each of them passes.
//!
//! The suite tests the promises in the doc comments of the traits. After it, two engines at a time
//! get the same random histories and must have the same content. These are SQLite and memory, a
//! folder and memory, and PostgreSQL and SQLite.

use std::collections::BTreeSet;
use std::sync::Arc;

use dcmdex::db::memory::MemoryIndex;
use dcmdex::db::postgres::{PostgresAddress, PostgresReader, PostgresWriter, PostgresWriterHandle};
use dcmdex::db::{
    Correction, CorrectionChange, Error, FailureEntry, KnownLocation, REMOVED, Removal, RemovedFile, ScanLedger,
};
use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::declared::DeclaredSet;
use dcmdex::model::find::{AnswerKey, DateTimeKey, MatchingKey, MomentCondition};
use dcmdex::model::level::QueryRetrieveLevel::{Image, Patient, Series, Study};
use proptest::prelude::*;

use super::model_based::{Content, Step, World, step, step_or_correction, step_or_removal};
use super::*;
use crate::util::postgres;

/// An engine with its own index.
pub(crate) trait Engine {
    type Reader: Search + ScanLedger + Admin + RemovalSearch;
    type Arrivals: Arrivals + RemovalChanges;

    /// Creates an empty index.
    fn create() -> Self;
    fn reader(&self) -> Self::Reader;
    fn arrivals(&self) -> Self::Arrivals;
    /// Ends the writer and starts it again.
    fn restart(&mut self);
    /// Makes a correction, or ends it if it holds.
    fn toggle(&self, _correction: Correction) {
        unreachable!("a folder and the index in memory have no corrections")
    }
}

/// An index in an SQLite file.
pub(crate) struct Sqlite {
    // Before its directory: a writer whose index is gone leaves its files open.
    writer: Option<Writer>,
    dir: tempfile::TempDir,
}

impl Sqlite {
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("index.db")
    }
}

impl Engine for Sqlite {
    type Reader = Reader;
    type Arrivals = dcmdex::db::open::WriterHandle;

    fn create() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let writer = Some(writer(&dir.path().join("index.db")));
        Self { writer, dir }
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.path()).unwrap()
    }

    fn arrivals(&self) -> Self::Arrivals {
        self.writer.as_ref().unwrap().handle()
    }

    fn restart(&mut self) {
        drop(self.writer.take());
        self.writer = Some(writer(&self.path()));
    }

    fn toggle(&self, correction: Correction) {
        let change = toggled(self.reader().corrections().unwrap(), correction);
        let planned = self.reader().plan_correction(&change).unwrap();
        assert_eq!(self.arrivals().correct(change).unwrap().1, planned);
    }
}

/// The change that makes a correction, or ends it if it holds.
fn toggled(known: Vec<Correction>, correction: Correction) -> CorrectionChange {
    let holds = |known: &Correction| known.keys == correction.keys && known.undone_ms.is_none();
    match known.into_iter().find(holds) {
        Some(correction) => CorrectionChange::Undo { correction, undone_ms: 9 },
        None => CorrectionChange::Make(correction),
    }
}

/// A folder of SQLite files. Studies of 2024 have a file of their own.
pub(crate) struct Folder {
    writer: Option<Writer>,
    dir: tempfile::TempDir,
}

impl Engine for Folder {
    type Reader = Reader;
    type Arrivals = dcmdex::db::open::WriterHandle;

    fn create() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["main.db", "2024.db", "st-mary-s.db"] {
            drop(writer(&dir.path().join(name)));
        }
        let writer = Some(writer(dir.path()));
        Self { dir, writer }
    }

    fn reader(&self) -> Reader {
        Reader::open(self.dir.path()).unwrap()
    }

    fn arrivals(&self) -> Self::Arrivals {
        self.writer.as_ref().unwrap().handle()
    }

    fn restart(&mut self) {
        self.writer.take().unwrap().close().unwrap();
        self.writer = Some(writer(self.dir.path()));
    }
}

/// An index in memory.
pub(crate) struct Memory(MemoryIndex);

impl Engine for Memory {
    type Reader = MemoryIndex;
    type Arrivals = MemoryIndex;

    fn create() -> Self {
        Self(MemoryIndex::new(Arc::clone(DeclaredSet::none()), Clock::Fixed(1_000)))
    }

    fn reader(&self) -> MemoryIndex {
        self.0.another().unwrap()
    }

    fn arrivals(&self) -> MemoryIndex {
        self.0.clone()
    }

    fn restart(&mut self) {}
}

/// An index in a database of a PostgreSQL server.
pub(crate) struct Postgres {
    address: PostgresAddress,
    writer: Option<PostgresWriter>,
}

impl Postgres {
    /// An empty index in a database of this server.
    pub(crate) fn on(server: &postgres::PostgresServer) -> Self {
        let address = PostgresAddress::of(&server.database()).unwrap().unwrap();
        Self { writer: Self::writer(&address), address }
    }

    fn writer(address: &PostgresAddress) -> Option<PostgresWriter> {
        let options =
            WriterOptions { durability: Durability::Os, clock: Clock::Fixed(1_000), ..WriterOptions::default() };
        Some(PostgresWriter::open(address, options).unwrap())
    }
}

impl Engine for Postgres {
    type Reader = PostgresReader;
    type Arrivals = PostgresWriterHandle;

    fn create() -> Self {
        Self::on(postgres::server())
    }

    fn reader(&self) -> PostgresReader {
        PostgresReader::open(&self.address).unwrap()
    }

    fn arrivals(&self) -> PostgresWriterHandle {
        self.writer.as_ref().unwrap().handle()
    }

    fn restart(&mut self) {
        self.writer.take().unwrap().close().unwrap();
        self.writer = Self::writer(&self.address);
    }

    fn toggle(&self, correction: Correction) {
        let change = toggled(self.reader().corrections().unwrap(), correction);
        let planned = self.reader().plan_correction(&change).unwrap();
        assert_eq!(self.arrivals().correct(change).unwrap().1, planned);
    }
}

/// Stores a received object and waits for the outcome.
pub(crate) fn stored(arrivals: &impl Arrivals, received: Received) -> dcmdex::db::Stored {
    try_to_store(arrivals, received).unwrap()
}

/// Stores a received object, which may be refused.
pub(crate) fn try_to_store(arrivals: &impl Arrivals, received: Received) -> Result<dcmdex::db::Stored, Error> {
    let (send, receive) = std::sync::mpsc::channel();
    arrivals.store(received, Box::new(move |result| send.send(result).unwrap()));
    receive.recv().unwrap()
}

fn store_in(engine: &impl Engine, record: Box<InstanceRecord>, location: Location) -> StoreOutcome {
    stored(&engine.arrivals(), Received::new(record, location)).outcome
}

/// Returns the answers of a query, in order.
fn answers(engine: &impl Engine, request: &FindRequest) -> Vec<FindAnswer> {
    let mut answers = Vec::new();
    let count = engine.reader().find(request, |answer| {
        answers.push(answer);
        ControlFlow::Continue(())
    });
    assert_eq!(count.unwrap(), answers.len() as u64);
    answers
}

fn values(engine: &impl Engine, request: &FindRequest) -> Vec<Vec<String>> {
    answers(engine, request).into_iter().map(|answer| answer.values.to_vec()).collect()
}

fn keys(engine: &impl Engine, level: QueryRetrieveLevel) -> Vec<AnswerKey> {
    let asked = FindRequest { wants_key: true, ..request(level, &[]) };
    answers(engine, &asked).into_iter().map(|answer| *answer.key.unwrap()).collect()
}

/// Stores studies of these dates under two patients, with two series of two instances each.
fn fill(engine: &impl Engine, studies: &[(&str, &str)]) {
    for (study, date) in studies {
        for (at, series) in [(0, "1"), (1, "1"), (2, "2"), (3, "2")] {
            let (series, uid) = (format!("{study}.{series}"), format!("{study}.0.{at}"));
            let patient = format!("P{}", study.len() % 2);
            let more = [(PatientID, &*patient), (StudyDate, *date), (SeriesNumber, &series[series.len() - 1..])];
            let record = record(study, &series, &uid, &more);
            assert_eq!(store_in(engine, record, location(Place::Managed, "/objects", &uid)), StoreOutcome::New);
        }
    }
}

fn what_is_stored_is_found_at_once<E: Engine>() {
    let engine = E::create();
    let mut reader = engine.reader();
    assert_eq!(values(&engine, &request(Patient, &[PatientID])), Vec::<Vec<String>>::new());
    fill(&engine, &[("1.2", "20240101")]);
    let asked = request(Study, &[StudyInstanceUID, NumberOfStudyRelatedSeries, NumberOfStudyRelatedInstances]);
    assert_eq!(values(&engine, &asked), [["1.2", "2", "4"]]);
    // A reader that was there before sees it, too.
    assert_eq!(reader.locations("1.2.0.3").unwrap(), [location(Place::Managed, "/objects", "1.2.0.3")]);
    assert_eq!(reader.locations("1.2.0.4").unwrap(), []);
    let syntax = ("1.2.840.10008.5.1.4.1.1.2".to_owned(), "1.2.840.10008.1.2.1".to_owned());
    assert_eq!(reader.held_transfer_syntaxes().unwrap(), [syntax]);
}

fn the_version_changes_with_the_content<E: Engine>() {
    let engine = E::create();
    let mut reader = engine.reader();
    let empty = reader.version().unwrap();
    assert_eq!(reader.version().unwrap(), empty);
    fill(&engine, &[("1.2", "20240101")]);
    let filled = reader.version().unwrap();
    assert_ne!(filled, empty);
    assert_eq!(reader.find(&request(Study, &[StudyInstanceUID]), |_| ControlFlow::Continue(())).unwrap(), 1);
    assert_eq!(reader.version().unwrap(), filled, "a question changes nothing");
}

fn keys_at_any_level_narrow_the_answers<E: Engine>() {
    let engine = E::create();
    fill(&engine, &[("1.2", "20240101"), ("1.20", "20240102")]);
    let asked = |level, attribute, key: &str| {
        let matching_keys = vec![MatchingKey { attribute, matching: matching(attribute, key) }];
        values(&engine, &FindRequest { matching_keys, ..request(level, &[]) }).len()
    };
    assert_eq!(asked(Patient, PatientID, "P*"), 2);
    // Below the level that is asked for, and above it.
    assert_eq!(asked(Patient, SOPInstanceUID, "1.2.0.3"), 1);
    assert_eq!(asked(Image, StudyDate, "20240102-"), 4);
    assert_eq!(asked(Series, SOPInstanceUID, "1.2.0.3\\1.20.0.0\\9"), 2);
    assert_eq!(asked(Study, NumberOfStudyRelatedInstances, "4"), 2);
    assert_eq!(asked(Study, Modality, "MR"), 0);
}

// PS3.5 6.2: in ST a backslash separates nothing.
fn a_study_answers_with_the_values_of_its_series<E: Engine>() {
    let engine = E::create();
    let item = |code: &str| format!(r#"{{"00080100":{{"vr":"SH","Value":["{code}"]}}}}"#);
    let codes = [r"A\\B\\B", "A"].map(|code| format!("[{}]", item(code)));
    for (series, name, address, code) in
        [("1", "B\\A", "Street 2\\3", &codes[0]), ("2", "A", "Street 1", &codes[1]), ("3", "C", "", &codes[0])]
    {
        let (series, uid) = (format!("1.2.{series}"), format!("1.2.{series}.1"));
        let more = [
            (PatientID, "P1"),
            (StationName, name),
            (InstitutionAddress, address),
            (RequestAttributesSequence, code.as_str()),
        ];
        let record = record("1.2", &series, &uid, &more);
        assert_eq!(store_in(&engine, record, location(Place::Managed, "/objects", &uid)), StoreOutcome::New);
    }
    let asked = request(Study, &[StationName, InstitutionAddress, RequestAttributesSequence]);
    let of_codes = format!("[{},{}]", item("A"), item(r"A\\B\\B"));
    assert_eq!(values(&engine, &asked), [["A\\B\\C", "Street 1", &*of_codes]]);
    let matching_keys =
        vec![MatchingKey { attribute: InstitutionAddress, matching: matching(InstitutionAddress, "Street 2\\3") }];
    let asked = FindRequest { matching_keys, ..asked };
    assert_eq!(values(&engine, &asked).len(), 1, "a key matches the texts of all series");
}

// PS3.5 table 6.2-1, DT.
fn a_moment_without_an_offset_is_in_the_zone_of_its_study<E: Engine>() {
    let engine = E::create();
    for (study, zone) in [("1.2", "+0100"), ("1.3", "")] {
        let (series, uid) = (format!("{study}.1"), format!("{study}.1.1"));
        let more = [(PatientID, "P1"), (AcquisitionDateTime, "20240101003000"), (TimezoneOffsetFromUTC, zone)];
        let record = record(study, &series, &uid, &more);
        assert_eq!(store_in(&engine, record, location(Place::Managed, "/objects", &uid)), StoreOutcome::New);
    }
    for (key, found) in [
        ("20231231233000+0000", &["1.2"][..]),
        ("20231231232900+0000-20231231233100+0000", &["1.2"]),
        ("20240101003000+0000", &["1.3"]),
        ("20240101003000", &["1.2", "1.3"]),
        ("2023", &[]),
    ] {
        let date_time_keys = vec![DateTimeKey {
            date: AcquisitionDateTime,
            time: TimezoneOffsetFromUTC,
            condition: MomentCondition::InZone(matching(AcquisitionDateTime, key)),
        }];
        let asked = |level, id| {
            let mut answers =
                values(&engine, &FindRequest { date_time_keys: date_time_keys.clone(), ..request(level, &[id]) });
            answers.sort();
            answers.concat()
        };
        for level in [Study, Series, Image] {
            assert_eq!(asked(level, StudyInstanceUID), found, "{level} {key}");
        }
        assert_eq!(asked(Patient, PatientID).len(), found.len().min(1), "{key}");
    }
}

fn answers_come_in_order_and_in_pages<E: Engine>() {
    let engine = E::create();
    fill(&engine, &[("1.2", "20240101"), ("1.20", "20240301"), ("1.3", "20240201"), ("1.30", "")]);
    let asked = request(Study, &[StudyDate]);
    assert_eq!(values(&engine, &asked), [["20240301"], ["20240201"], ["20240101"], [""]]);
    let page = FindRequest { offset: 1, limit: Some(2), ..asked.clone() };
    assert_eq!(values(&engine, &page), [["20240201"], ["20240101"]]);
    assert_eq!(values(&engine, &FindRequest { limit: Some(0), ..asked }), Vec::<Vec<String>>::new());
    let of_series = values(&engine, &request(Series, &[StudyDate, SeriesNumber]));
    assert_eq!(of_series[..3], [["20240301", "1"], ["20240301", "2"], ["20240201", "1"]]);
    assert_eq!(values(&engine, &request(Patient, &[PatientID])), [["P0"], ["P1"]]);
}

fn an_instance_comes_with_its_location<E: Engine>() {
    let engine = E::create();
    fill(&engine, &[("1.2", "20240101"), ("1.20", "20240301")]);
    for wants_key in [false, true] {
        let asked = FindRequest { wants_location: true, wants_key, ..request(Image, &[SOPInstanceUID]) };
        let found = answers(&engine, &asked);
        assert_eq!(found.len(), 8);
        for answer in found {
            let expected = location(Place::Managed, "/objects", &answer.values[0]);
            assert_eq!(answer.location.as_deref(), Some(&expected));
            assert_eq!(answer.key.is_some(), wants_key);
        }
    }
    let of_studies = FindRequest { wants_location: true, ..request(Study, &[StudyInstanceUID]) };
    assert!(answers(&engine, &of_studies).iter().all(|answer| answer.location.is_none()));
}

fn answers_of_several_indexes_merge_by_their_keys<E: Engine>() {
    let studies = [("1.2", "20240101"), ("1.20", "20240301"), ("1.3", "20240201"), ("1.30", "20240301"), ("1.40", "")];
    let (whole, one, other) = (E::create(), E::create(), E::create());
    fill(&whole, &studies);
    fill(&one, &studies[..2]);
    fill(&other, &studies[2..]);
    for level in [Patient, Study, Series, Image] {
        let (of_whole, mut merged) = (keys(&whole, level), keys(&one, level));
        assert!(of_whole.is_sorted_by_key(|key| &key.order), "{level}");
        merged.extend(keys(&other, level));
        // A stable sort of sorted runs is a merge.
        merged.sort_by(|one, other| one.order.cmp(&other.order));
        if level == Patient {
            // A patient of both indexes: the keys say so.
            merged.dedup();
        }
        let orders = |keys: &[AnswerKey]| keys.iter().map(|key| key.order.clone()).collect::<Vec<_>>();
        assert_eq!(orders(&merged), orders(&of_whole), "{level}");
        let uids = |keys: &[AnswerKey]| keys.iter().map(|key| key.uids.clone()).collect::<BTreeSet<_>>();
        assert_eq!(uids(&merged), uids(&of_whole), "{level}");
        assert!(merged.iter().all(|key| key.uids.len() == level as usize));
    }
}

fn a_query_ends_when_it_is_told_to<E: Engine>() {
    let engine = E::create();
    fill(&engine, &[("1.2", "20240101"), ("1.20", "20240301")]);
    let mut reader = engine.reader();
    let asked = request(Image, &[SOPInstanceUID]);
    assert_ends_when_told(&mut reader, &asked, 8);
}

fn what_cannot_be_answered_is_an_error<E: Engine>() {
    let engine = E::create();
    fill(&engine, &[("1.2", "20240101")]);
    let asked = engine.reader().find(&request(Patient, &[StudyDate]), |_| ControlFlow::Continue(()));
    assert!(matches!(asked, Err(Error::Unsupported(_))), "{asked:?}");
}

fn the_policy_says_what_becomes_of_other_content<E: Engine>() {
    for (duplicates, outcome, of_first) in [
        (DuplicatePolicy::KeepBoth, StoreOutcome::KeptCopy { differs: true }, "1"),
        (DuplicatePolicy::KeepFirst, StoreOutcome::KeptFirst, "1"),
        (DuplicatePolicy::Replace, StoreOutcome::Replaced { previous: vec!["/objects/a".into()] }, "2"),
    ] {
        let engine = E::create();
        let of = |number: &str| record("1.2", "1.2.1", "1.2.3", &[(InstanceNumber, number)]);
        let receive = |number: &str, name: &str, compared| {
            let policy = ReceivePolicy { duplicates, ..ReceivePolicy::default() };
            let place = location(Place::Managed, "/objects", name);
            let received = Received { policy, compared, ..Received::new(of(number), place) };
            stored(&engine.arrivals(), received)
        };
        assert_eq!(receive("1", "a", Compared::Nothing).outcome, StoreOutcome::New);
        assert_eq!(receive("1", "a", Compared::Same).outcome, StoreOutcome::Identical { uncompared: None });
        let second = receive("2", "b", Compared::Other);
        assert_eq!(second.outcome, outcome);
        let names_first = !matches!(outcome, StoreOutcome::Replaced { .. });
        assert_eq!(second.first.is_some(), names_first, "{duplicates:?}");
        assert_eq!(values(&engine, &request(Image, &[InstanceNumber])), [[of_first]]);
        let known = engine.reader().known_locations("1.2.3").unwrap();
        let names: Vec<_> =
            known.iter().map(|known| (known.location.file_name.to_str().unwrap(), known.differs)).collect();
        let expected = match duplicates {
            DuplicatePolicy::KeepBoth => vec![("a", false), ("b", true)],
            DuplicatePolicy::KeepFirst => vec![("a", false)],
            DuplicatePolicy::Replace => vec![("b", false)],
        };
        assert_eq!(names, expected);
        let mut conflicts = Vec::new();
        let listed = engine.reader().conflicts(|conflict| {
            conflicts.push((conflict.kind, conflict.sop_instance_uid));
            ControlFlow::Continue(())
        });
        listed.unwrap();
        assert_eq!(conflicts, [("instance-with-other-content".to_owned(), "1.2.3".to_owned())], "{duplicates:?}");
    }
}

fn an_object_completes_what_was_received_without_one<E: Engine>() {
    let engine = E::create();
    let of = || record("1.2", "1.2.1", "1.2.3", &[]);
    let availability = request(Study, &[InstanceAvailability]);
    assert_eq!(store_in(&engine, of(), location(Place::MetadataOnly, "", "")), StoreOutcome::New);
    assert_eq!(values(&engine, &availability), [["UNAVAILABLE"]]);
    assert_eq!(engine.reader().status().unwrap().metadata_only, 1);
    assert_eq!(store_in(&engine, of(), location(Place::Managed, "/objects", "a")), StoreOutcome::Completed);
    assert_eq!(values(&engine, &availability), [["ONLINE"]]);
    assert_eq!(engine.reader().locations("1.2.3").unwrap(), [location(Place::Managed, "/objects", "a")]);
}

fn a_scan_is_accounted_for<E: Engine>() {
    let engine = E::create();
    let arrivals = engine.arrivals();
    let scan = arrivals.begin_scan("[\"/a\"]".into()).unwrap();
    let failed = FileOutcome::NotIndexed { kind: NotIndexed::Failed, reason: "not-dicom", detail: "no".into() };
    let odd = ScannedFile { outcome: failed, ..file("odd", record("9", "9", "9", &[])) };
    let of = |uid: &str| record("1.2", "1.2.1", uid, &[]);
    let files = vec![file("x", of("1.2.3")), file("y", of("1.2.4")), file("copy of x", of("1.2.3")), odd];
    arrivals.scanned(scanned("/a", files)).unwrap();
    arrivals
        .scanned(ScannedDirectory { place: Place::Archive, ..scanned("/a/z.zip", vec![file("m", of("1.2.5"))]) })
        .unwrap();
    let tally = arrivals.flush().unwrap();
    assert_eq!((tally.indexed, tally.copies, tally.conflicts), (3, 1, 0));
    assert_eq!(arrivals.flush().unwrap(), Default::default());
    arrivals.end_scan(scan, "{}".into()).unwrap();

    let mut reader = engine.reader();
    let known = reader.directory_files(Path::new("/a")).unwrap();
    let names: BTreeSet<_> = known.keys().map(|name| name.to_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["x", "y", "copy of x", "odd"]));
    assert_eq!(known[std::ffi::OsStr::new("odd")].note.as_ref().unwrap().reason, "not-dicom");
    let (indexed, notes) = reader.archive_summary(Path::new("/a/z.zip")).unwrap();
    assert_eq!((indexed, notes.len()), (1, 0));
    let mut members = Vec::new();
    reader.archive_members(Path::new("/a/z.zip"), &mut |name, _| members.push(name)).unwrap();
    assert_eq!(members, ["m"]);
    assert_eq!(reader.located_instances(Place::Archive, Path::new("/a/z.zip")).unwrap().len(), 1);
    let page = |reader: &mut E::Reader, place, after: &str| {
        reader.directories_below(place, Path::new("/"), Path::new(after), 9).unwrap()
    };
    assert_eq!(page(&mut reader, Place::InPlace, "/"), [Path::new("/a")]);
    assert_eq!(page(&mut reader, Place::Archive, "/"), [Path::new("/a/z.zip")]);
    assert!(page(&mut reader, Place::InPlace, "/a").is_empty());
    let status = reader.status().unwrap();
    assert_eq!((status.instances, status.copies, status.failed), (3, 1, vec![("not-dicom".to_owned(), 1)]));
    let [entry] = status.scans.as_slice() else { panic!("{:?}", status.scans) };
    assert_eq!((entry.scan, entry.finished_ms, entry.summary.as_deref()), (scan, Some(1_000), Some("{}")));
    let mut failures = Vec::new();
    let mut each = |failure: FailureEntry| {
        failures.push(failure.path);
        ControlFlow::Continue(())
    };
    reader.failures(&mut each).unwrap();
    assert_eq!(failures, [Path::new("/a/odd")]);
    assert_eq!(reader.check().unwrap().findings, []);
}

fn files_that_are_gone_are_missing_until_they_are_resolved<E: Engine>() {
    let engine = E::create();
    let arrivals = engine.arrivals();
    let of = |uid: &str| record("1.2", "1.2.1", uid, &[]);
    arrivals.scanned(scanned("/a", vec![file("x", of("1.2.3")), file("y", of("1.2.4"))])).unwrap();
    let gone = |names: &[&str]| ScannedDirectory {
        missing: names.iter().map(|name| name.into()).collect(),
        ..scanned("/a", Vec::new())
    };
    arrivals.scanned(gone(&["x", "y"])).unwrap();
    // One of them is elsewhere, with the same content.
    arrivals.scanned(scanned("/b", vec![file("x", of("1.2.3"))])).unwrap();
    assert_eq!(arrivals.flush().unwrap().moved, 1);
    let mut reader = engine.reader();
    assert_eq!(reader.locations("1.2.3").unwrap()[0].directory, Path::new("/b"));
    assert_eq!(reader.locations("1.2.4").unwrap()[0].directory, Path::new("/a"));
    assert_eq!(values(&engine, &request(Study, &[InstanceAvailability])), [["UNAVAILABLE"]]);
    let resolve = |root: &str, except: &[&str], prune| {
        let except = except.iter().map(|path| path.into()).collect();
        arrivals.resolve_missing(vec![root.into()], except, prune).unwrap()
    };
    assert_eq!((resolve("/b", &[], false), resolve("/", &["/a"], false), resolve("/a", &[], false)), (0, 0, 1));
    assert_eq!(resolve("/a/y", &[], true), 0);
    assert_eq!(arrivals.flush().unwrap().removed, 1);
    assert_eq!(reader.locations("1.2.4").unwrap(), []);
    assert_eq!(values(&engine, &request(Study, &[NumberOfStudyRelatedInstances])), [["1"]]);
    let back = ScannedDirectory { vanished: vec!["x".into()], ..scanned("/b", Vec::new()) };
    arrivals.scanned(back).unwrap();
    arrivals.flush().unwrap();
    assert!(values(&engine, &request(Patient, &[])).is_empty());
}

fn a_snapshot_is_of_its_moment<E: Engine>() {
    let engine = E::create();
    let arrivals = engine.arrivals();
    let write = |name: &str, uid: &str| {
        arrivals.scanned(scanned("/a", vec![file(name, record("1", "2", uid, &[]))])).unwrap();
        arrivals.flush().unwrap();
    };
    write("x", "3");
    let mut reader = engine.reader();
    let now = reader.directory_now(Path::new("/a")).unwrap();
    write("y", "4");
    assert_eq!(now.files().unwrap().into_keys().collect::<Vec<_>>(), ["x"]);
    assert_eq!(reader.directory_files(Path::new("/a")).unwrap().len(), 2);
}

fn an_index_keeps_its_name_and_its_mount_points<E: Engine>() {
    let mut engine = E::create();
    assert_eq!(engine.reader().index_id().unwrap(), None);
    assert!(engine.arrivals().index_is_in_place());
    assert_eq!(engine.arrivals().name_index(Some("one".into())).unwrap(), "one");
    engine.arrivals().mount_point("/disk".into(), dcmdex::db::Mounted::Yes).unwrap();
    engine.arrivals().mount_point("/other".into(), dcmdex::db::Mounted::Yes).unwrap();
    engine.arrivals().mount_point("/other".into(), dcmdex::db::Mounted::NoLonger).unwrap();
    assert!(engine.reader().exchanged_disks().unwrap().is_empty());
    for (path, exchanged) in [("/disk", true), ("/other", true), ("/other", false)] {
        use dcmdex::db::Mounted::{Exchanged, NotExchanged};
        engine.arrivals().mount_point(path.into(), if exchanged { Exchanged } else { NotExchanged }).unwrap();
    }
    engine.arrivals().flush().unwrap();
    engine.restart();
    assert_eq!(engine.arrivals().name_index(Some("two".into())).unwrap(), "one");
    assert_eq!(engine.reader().index_id().unwrap().as_deref(), Some("one"));
    assert_eq!(engine.reader().mount_points().unwrap(), BTreeSet::from(["/disk".into()]));
    assert_eq!(engine.reader().exchanged_disks().unwrap(), BTreeSet::from(["/disk".into()]));
}

fn received_objects_move_with_the_storage_directory<E: Engine>() {
    let engine = E::create();
    let arrivals = engine.arrivals();
    for (uid, directory) in [("1.2.3.1", "/old/objects/1/2"), ("1.2.3.2", "/old/objects2/1/2"), ("1.2.3.3", "/new/1/2")]
    {
        store_in(&engine, record("1.2", "1.2.3", uid, &[]), location(Place::Managed, directory, uid));
    }
    arrivals.scanned(scanned("/old/objects/9", vec![file("x", record("1.2", "1.2.3", "1.2.3.4", &[]))])).unwrap();
    arrivals.flush().unwrap();
    assert_eq!(arrivals.storage_moved("/old/objects".into(), "/moved".into()).unwrap(), 1);
    let place = |uid: &str| engine.reader().known_locations(uid).unwrap()[0].location.directory.clone();
    let directories = ["1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4"].map(place);
    let expected = ["/moved/1/2", "/old/objects2/1/2", "/new/1/2", "/old/objects/9"];
    assert_eq!(directories, expected.map(std::path::PathBuf::from), "and nothing that was found in place");
    // A directory that is known under the new path stays.
    assert_eq!(arrivals.storage_moved("/moved".into(), "/new".into()).unwrap(), 0);
    assert_eq!(place("1.2.3.1"), Path::new("/moved/1/2"));
    // What comes later lies in the same directory.
    store_in(&engine, record("1.2", "1.2.3", "1.2.3.5", &[]), location(Place::Managed, "/moved/1/2", "5"));
    assert!(engine.reader().check().unwrap().findings.is_empty());
}

/// Files of the same instances, as three kinds of places have them.
fn fill_for_removal(engine: &impl Engine) {
    let arrivals = engine.arrivals();
    let of = |uid: &str| record("1.2", "1.2.1", uid, &[]);
    for uid in ["1.2.3", "1.2.4"] {
        store_in(engine, of(uid), location(Place::Managed, "/objects", uid));
    }
    store_in(engine, of("1.2.5"), location(Place::MetadataOnly, "", ""));
    arrivals.scanned(scanned("/a", vec![file("x", of("1.2.3")), file("y", of("1.2.6"))])).unwrap();
    let note = FileOutcome::NotIndexed { kind: NotIndexed::Container, reason: "zip", detail: String::new() };
    let archive = ScannedFile { outcome: note, ..file("z.zip", of("1")) };
    arrivals.scanned(scanned("/b", vec![archive])).unwrap();
    let members = scanned("/b/z.zip", vec![file("m", of("1.2.7"))]);
    arrivals.scanned(ScannedDirectory { place: Place::Archive, ..members }).unwrap();
    arrivals.flush().unwrap();
}

fn uids_of(engine: &impl Engine) -> Vec<String> {
    let mut uids = values(engine, &request(Image, &[SOPInstanceUID])).concat();
    uids.sort();
    uids
}

/// Removes these instances. Returns the number of the removal.
fn remove_from(engine: &impl Engine, takes_objects: bool, uids: &[&str]) -> i64 {
    let removal = engine.arrivals().begin_removal(7, takes_objects).unwrap();
    let uids = uids.iter().map(|uid| (*uid).to_owned()).collect();
    engine.arrivals().remove(removal, takes_objects, uids).unwrap();
    removal
}

/// The files of a removal, page by page.
fn files_of_removal(engine: &impl Engine, removal: i64) -> Vec<RemovedFile> {
    let (mut reader, mut after, mut files) = (engine.reader(), String::new(), Vec::new());
    loop {
        let page = reader.files_of_removal(removal, &after, 2).unwrap();
        let Some(last) = page.last() else { return files };
        after.clone_from(&last.sop_instance_uid);
        files.extend(page);
    }
}

fn what_is_removed_stays_away_until_it_is_undone<E: Engine>() {
    let mut engine = E::create();
    fill_for_removal(&engine);
    let removal = engine.arrivals().begin_removal(7, true).unwrap();
    let all = ["1.2.3", "1.2.4", "1.2.5", "1.2.6", "1.2.7", "1.2.8"].map(str::to_owned).to_vec();
    let counts = engine.arrivals().remove(removal, true, all.clone()).unwrap();
    assert_eq!((counts.instances, counts.objects, counts.object_bytes, counts.in_place), (5, 2, 2000, 3));
    assert!(values(&engine, &request(Patient, &[])).is_empty());
    engine.restart();
    // No scan brings them back.
    let of = |uid: &str| record("1.2", "1.2.1", uid, &[]);
    let again = || [("x", "1.2.3"), ("y", "1.2.6"), ("elsewhere", "1.2.4")].map(|(name, uid)| file(name, of(uid)));
    engine.arrivals().scanned(scanned("/a", again().into())).unwrap();
    assert_eq!(engine.arrivals().flush().unwrap().withheld, 3);
    assert!(uids_of(&engine).is_empty());
    let mut reader = engine.reader();
    let known = reader.directory_files(Path::new("/a")).unwrap();
    assert!(known.values().all(|file| file.note.as_ref().unwrap().reason == REMOVED), "{known:?}");
    assert_eq!(
        reader.removals().unwrap(),
        [Removal { instances: 5, still_removed: 5, for_trash: 2, ..Removal::begun(removal, 7, true) }]
    );
    let among = reader.removed_among(vec!["1.2.7".to_owned(), "1.2.8".to_owned()]).unwrap();
    assert_eq!(among.into_iter().collect::<Vec<_>>(), [("1.2.7".to_owned(), 7)]);
    // One of the two objects goes to the trash.
    let first = reader.files_for_trash(None, 1).unwrap();
    let second = reader.files_for_trash(first.first(), 9).unwrap();
    assert_eq!((first.len(), second.len(), first[0].begun_ms), (1, 1, 7));
    engine.arrivals().trashed(first.clone()).unwrap();
    assert_eq!(reader.files_for_trash(None, 9).unwrap(), second);
    let files = files_of_removal(&engine, removal);
    let mut names: Vec<_> = files.iter().map(|file| file.location.file_name.to_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["1.2.3", "1.2.4", "elsewhere", "m", "x", "y"]);
    let records = reader.instances_of_removal(removal, "", 9).unwrap();
    let without_object: Vec<_> = records.iter().filter(|(_, record)| record.is_some()).collect();
    assert_eq!((records.len(), without_object.len(), &*without_object[0].0), (5, 1, "1.2.5"));
    assert_eq!(without_object[0].1.as_ref().unwrap().value(SOPInstanceUID), "1.2.5");
    // All of it comes back.
    engine.arrivals().lift_removed(all).unwrap();
    engine.arrivals().forget_removed(first).unwrap();
    engine.arrivals().end_removal(removal).unwrap();
    assert_eq!(reader.removals().unwrap(), []);
    assert!(reader.directory_files(Path::new("/a")).unwrap().is_empty());
    assert!(reader.directory_files(Path::new("/b")).unwrap().is_empty(), "the next scan reads the archive again");
    engine.arrivals().scanned(scanned("/a", again().into())).unwrap();
    engine.arrivals().flush().unwrap();
    assert_eq!(uids_of(&engine), ["1.2.3", "1.2.4", "1.2.6"]);
    assert_eq!(engine.reader().check().unwrap().findings, []);
}

fn what_is_received_again_is_no_longer_removed<E: Engine>() {
    let engine = E::create();
    fill_for_removal(&engine);
    let removal = remove_from(&engine, true, &["1.2.3", "1.2.6"]);
    let of = |uid: &str| record("1.2", "1.2.1", uid, &[]);
    assert_eq!(store_in(&engine, of("1.2.3"), location(Place::Managed, "/objects", "1.2.3")), StoreOutcome::New);
    assert_eq!(uids_of(&engine), ["1.2.3", "1.2.4", "1.2.5", "1.2.7"]);
    let mut reader = engine.reader();
    assert_eq!(
        reader.removals().unwrap(),
        [Removal { instances: 2, still_removed: 1, ..Removal::begun(removal, 7, true) }]
    );
    // Its file in place is found again, and that of the other one is not.
    let known = reader.directory_files(Path::new("/a")).unwrap();
    assert_eq!(known.keys().collect::<Vec<_>>(), ["y"]);
    // It can be removed once more.
    let second = remove_from(&engine, false, &["1.2.3"]);
    let files = files_of_removal(&engine, second);
    assert_eq!(files.iter().map(|file| &file.sop_instance_uid).collect::<Vec<_>>(), ["1.2.3"]);
    assert_eq!(reader.removals().unwrap()[0].id, second);
}

fn an_emptied_removal_holds_on<E: Engine>() {
    let engine = E::create();
    fill_for_removal(&engine);
    let removal = remove_from(&engine, true, &["1.2.3", "1.2.4"]);
    let arrivals = engine.arrivals();
    arrivals.trashed(engine.reader().files_for_trash(None, 9).unwrap()).unwrap();
    assert_eq!(engine.reader().removals().unwrap()[0].in_trash, 2);
    assert_eq!(arrivals.emptied(removal, Path::new("/objects"), 9).unwrap(), 0);
    let told = engine.reader().removals().unwrap();
    assert_eq!((told[0].in_trash, told[0].still_removed, told[0].emptied_ms), (0, 2, Some(9)));
    assert_eq!(arrivals.removal_of(7).unwrap(), removal);
    // An index that is built anew learns from the trash what was removed.
    let other = arrivals.removal_of(8).unwrap();
    arrivals.note_removed(other, vec!["1.2.9".into(), "1.2.6".into()]).unwrap();
    arrivals.scanned(scanned("/c", vec![file("x", record("1.2", "1.2.1", "1.2.9", &[]))])).unwrap();
    arrivals.flush().unwrap();
    assert_eq!(uids_of(&engine), ["1.2.5", "1.2.6", "1.2.7"], "what the index knows is not removed");
}

/// The tests for each engine.
macro_rules! index_test_suite {
    ($name:ident, $engine:ty) => {
        index_test_suite!(@tests $name, $engine: what_is_stored_is_found_at_once, keys_at_any_level_narrow_the_answers,
            a_moment_without_an_offset_is_in_the_zone_of_its_study, a_study_answers_with_the_values_of_its_series,
            the_version_changes_with_the_content, an_instance_comes_with_its_location,
            answers_come_in_order_and_in_pages, answers_of_several_indexes_merge_by_their_keys,
            a_query_ends_when_it_is_told_to, what_cannot_be_answered_is_an_error,
            the_policy_says_what_becomes_of_other_content, an_object_completes_what_was_received_without_one,
            a_scan_is_accounted_for, files_that_are_gone_are_missing_until_they_are_resolved,
            a_snapshot_is_of_its_moment, an_index_keeps_its_name_and_its_mount_points,
            received_objects_move_with_the_storage_directory);
    };
    (@removals $name:ident, $engine:ty) => {
        index_test_suite!(@tests $name, $engine: what_is_removed_stays_away_until_it_is_undone,
            what_is_received_again_is_no_longer_removed, an_emptied_removal_holds_on);
    };
    (@tests $name:ident, $engine:ty: $($test:ident),*) => {
        mod $name {
            $(
                #[test]
                fn $test() {
                    super::$test::<$engine>();
                }
            )*
        }
    };
}

index_test_suite!(sqlite, super::Sqlite);
index_test_suite!(memory, super::Memory);
index_test_suite!(folder, super::Folder);
index_test_suite!(in_postgres, super::Postgres);
index_test_suite!(@removals removals_from_sqlite, super::Sqlite);
index_test_suite!(@removals removals_from_memory, super::Memory);
index_test_suite!(@removals removals_from_postgres, super::Postgres);

/// Everything in an index that the histories of `model_based` produce, without row numbers.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    answers: Vec<Vec<String>>,
    locations: Vec<(String, Option<Location>, Vec<String>)>,
    files: Vec<(std::ffi::OsString, bool, bool)>,
    counts: [u64; 7],
    syntaxes: Vec<(String, String)>,
    removed: Vec<Vec<String>>,
}

pub(super) fn said(engine: &impl Engine) -> Said {
    let mut reader = engine.reader();
    let patient = [PatientID, IssuerOfPatientID, PatientName, PatientBirthDate, PatientSex, PatientComments];
    let of_patient = [&patient[..], &[NumberOfPatientRelatedStudies, NumberOfPatientRelatedInstances]].concat();
    let of_study = [StudyInstanceUID, StudyDescription, Modality, ModalitiesInStudy, NumberOfStudyRelatedInstances];
    let of_study = [&patient[..], &of_study, &[InstanceAvailability]].concat();
    let of_series = [StudyInstanceUID, SeriesInstanceUID, Modality, NumberOfSeriesRelatedInstances];
    let of_series = [&patient[..], &of_series, &[InstanceAvailability]].concat();
    let of_image = [StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, InstanceNumber, InstanceAvailability];
    let of_image = [&patient[..], &of_image].concat();
    let mut found = Vec::new();
    for (level, returned) in [(Patient, &of_patient), (Study, &of_study), (Series, &of_series), (Image, &of_image)] {
        let mut questions = vec![request(level, returned)];
        for (attribute, key) in [(PatientName, "SMI*"), (PatientID, "A"), (Modality, "MR"), (InstanceNumber, "2")] {
            let matching_keys = vec![MatchingKey { attribute, matching: matching(attribute, key) }];
            questions.push(FindRequest { matching_keys, ..request(level, returned) });
        }
        for (at, question) in questions.iter().enumerate() {
            let mut answers = values(engine, question);
            answers.sort();
            found.extend(answers.into_iter().map(|answer| [vec![format!("{level} {at}")], answer].concat()));
        }
    }
    let locations = (0..6).map(|instance| {
        let uid = Content::uid_of(instance);
        let known = reader.known_locations(&uid).unwrap();
        let text = |known: &KnownLocation| format!("{:?} {} {:?}", known.location, known.differs, known.checksum);
        let mut texts: Vec<String> = known.iter().map(text).collect();
        texts.sort();
        (uid, known.first().map(|known| known.location.clone()), texts)
    });
    let locations = locations.collect();
    let mut files = Vec::new();
    for directory in ["/d0", "/d1", "/d2"] {
        let known = reader.directory_files(Path::new(directory)).unwrap();
        files.extend(known.into_iter().map(|(name, file)| {
            let name = [directory.as_ref(), name.as_os_str()].join(std::ffi::OsStr::new("/"));
            (name, file.is_indexed(), file.missing)
        }));
    }
    files.sort();
    let status = reader.status().unwrap();
    let counts = [
        status.patients,
        status.studies,
        status.series,
        status.instances,
        status.copies,
        status.missing,
        status.metadata_only,
    ];
    let (syntaxes, removed) = (reader.held_transfer_syntaxes().unwrap(), removed_from(engine));
    Said { answers: found, locations, files, counts, syntaxes, removed }
}

/// What is removed from an engine, without row numbers.
fn removed_from(engine: &impl Engine) -> Vec<Vec<String>> {
    let mut reader = engine.reader();
    // A folder has none.
    let Ok(removals) = reader.removals() else { return Vec::new() };
    let of_removal = |removal: &Removal| {
        let files = files_of_removal(engine, removal.id);
        let files =
            files.iter().map(|RemovedFile { location, sop_instance_uid, checksum, differs, is_in_trash, .. }| {
                format!("{sop_instance_uid} {location:?} {checksum:?} {differs} {is_in_trash}")
            });
        let mut told: Vec<String> = files.collect();
        let instances = reader.instances_of_removal(removal.id, "", 99).unwrap();
        told.extend(instances.iter().map(|(uid, record)| format!("{uid} {record:?}")));
        told.sort();
        told.insert(0, format!("{:?}", Removal { id: 0, ..*removal }));
        told
    };
    removals.iter().map(of_removal).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn both_engines_know_the_same_after_any_history(steps in prop::collection::vec(step_or_removal(), 1..25)) {
        let (mut sqlite, mut memory) = (World::<Sqlite>::new(), World::<Memory>::new());
        for step in steps.into_iter().chain([Step::Scan { prune: false }, Step::Scan { prune: true }]) {
            sqlite.take(step.clone());
            memory.take(step);
            prop_assert_eq!(said(&sqlite.engine), said(&memory.engine));
        }
    }
}

proptest! {
    // Each case opens three files many times.
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 500, ..ProptestConfig::default() })]

    /// Each instance keeps its study: in a folder, one that has two studies can be in two files.
    #[test]
    fn a_folder_knows_the_same_after_any_history(steps in prop::collection::vec(step(), 1..25)) {
        let (mut folder, mut memory) = (World::<Folder>::new(), World::<Memory>::new());
        for step in steps.into_iter().chain([Step::Scan { prune: false }, Step::Scan { prune: true }]) {
            let step = step.in_one_study();
            folder.take(step.clone());
            memory.take(step);
            prop_assert_eq!(said(&folder.engine), said(&memory.engine));
        }
    }
}

proptest! {
    // Each case makes a database.
    #![proptest_config(ProptestConfig { cases: super::model_based::cases(8), max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn corrections_say_the_same_in_postgres_after_any_history(steps in prop::collection::vec(step_or_correction(), 1..25)) {
        let (mut server, mut sqlite) = (World::<Postgres>::new(), World::<Sqlite>::new());
        for step in steps {
            server.take(step.clone());
            sqlite.take(step);
            prop_assert_eq!(said(&server.engine), said(&sqlite.engine));
            prop_assert_eq!(server.engine.reader().check().unwrap().findings, []);
        }
    }
}

proptest! {
    // Each case makes a database.
    #![proptest_config(ProptestConfig { cases: super::model_based::cases(8), max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn postgres_knows_the_same_after_any_history(steps in prop::collection::vec(step_or_removal(), 1..25)) {
        // The index in memory changes by the same code, so SQLite is the independent one.
        let (mut server, mut sqlite) = (World::<Postgres>::new(), World::<Sqlite>::new());
        for step in steps.into_iter().chain([Step::Scan { prune: false }, Step::Scan { prune: true }]) {
            server.take(step.clone());
            sqlite.take(step);
            prop_assert_eq!(said(&server.engine), said(&sqlite.engine));
            prop_assert_eq!(server.engine.reader().check().unwrap().findings, []);
        }
    }
}
