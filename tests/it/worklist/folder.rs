//! The folder of the worklist, and the life of items.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::util::engine::{index_at, with_databases, with_each_index};
use dcmdex::db::open::{Reader, Writer, WriterHandle, WriterOptions};
use dcmdex::db::{
    Arrivals, Correction, CorrectionChange, Durability, FileOutcome, ScannedDirectory, ScannedFile, WorklistColumn,
    WorklistRow, WorklistSearch, WorklistState,
};
use dcmdex::model::attribute::AttributeId;
use dcmdex::model::clock::Clock;
use dcmdex::model::location::Place;
use dcmdex::model::record::InstanceRecord;
use dcmdex::worklist::{
    AckCode, Hl7Intake, Hl7Map, Intake, IntakeOptions, LOOK_AFTER, LOOK_SOON_AFTER, LifeOptions, WorklistFolder, live,
};
use tempfile::TempDir;

struct Site {
    directory: TempDir,
    writer: Writer,
    intake: Arc<Intake>,
}

impl Site {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("wl")).unwrap();
        let writer = Writer::open(&index_at(directory.path()), WriterOptions::default()).unwrap();
        let intake = Arc::new(Intake::new(Box::new(writer.handle()), IntakeOptions::default()));
        Self { directory, writer, intake }
    }

    fn folder(&self) -> WorklistFolder {
        self.folder_of("ONE@here")
    }

    /// The folder as a node has it.
    fn folder_of(&self, node: &str) -> WorklistFolder {
        let (path, intake) = (self.directory.path().join("wl"), Arc::clone(&self.intake));
        WorklistFolder::new(path, intake, node.to_owned(), String::new(), Clock::System)
    }

    fn reader(&self) -> Reader {
        Reader::open(&index_at(self.directory.path())).unwrap()
    }

    fn rows(&self) -> Vec<WorklistRow> {
        super::rows_of(&mut self.reader())
    }

    fn accessions(&self) -> Vec<String> {
        self.rows().iter().map(|row| row.value(WorklistColumn::AccessionNumber).to_owned()).collect()
    }

    /// Writes a file that looks as if it had been there for a minute.
    fn write(&self, name: &str, content: &str) {
        let path = self.directory.path().join("wl").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        age(&path);
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.directory.path().join("wl").join(name)).unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "a file gets a time in the past")]
fn age(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
}

/// Gives a file a time that is never old, however slow the machine is.
#[expect(clippy::disallowed_methods, reason = "a file gets a time in the future")]
fn renew(path: &Path, seconds: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(3600 + seconds)).unwrap();
}

fn item(number: u32) -> String {
    format!(r#"{{"PatientID": "P{number}", "AccessionNumber": "A{number}", "Modality": "CT"}}"#)
}

fn files_are_items_and_a_file_that_goes_is_an_item_that_goes() {
    let site = Site::new();
    let mut folder = site.folder();
    site.write("one.json", &item(1));
    site.write("CT1/two.json", &item(2));
    site.write("CT1/lockfile", "");
    site.write(".hidden.json", &item(9));
    site.write("note.txt", "no item");
    assert_eq!(folder.look().unwrap(), LOOK_AFTER);
    assert_eq!(site.accessions().len(), 2);
    // Another content is another item.
    site.write("one.json", &item(3).replace('}', r#", "PatientSex": "F"}"#));
    folder.look().unwrap();
    let mut found = site.accessions();
    found.sort_unstable();
    assert_eq!(found, ["A2", "A3"]);
    site.remove("one.json");
    folder.look().unwrap();
    assert_eq!(site.accessions(), ["A2"]);
    // A file that goes while no node runs.
    site.remove("CT1/two.json");
    site.folder().look().unwrap();
    assert_eq!(site.accessions(), [""; 0]);
}

fn a_file_that_is_being_written_waits() {
    let site = Site::new();
    let mut folder = site.folder();
    let path = site.directory.path().join("wl/slow.json");
    fs::write(&path, r#"{"PatientID": "#).unwrap();
    renew(&path, 0);
    assert_eq!(folder.look().unwrap(), LOOK_SOON_AFTER);
    fs::write(&path, item(5)).unwrap();
    renew(&path, 5);
    assert_eq!(folder.look().unwrap(), LOOK_SOON_AFTER, "it has changed");
    assert!(site.rows().is_empty() && site.reader().worklist_problems().unwrap().is_empty());
    assert_eq!(folder.look().unwrap(), LOOK_AFTER);
    assert_eq!(site.accessions(), ["A5"]);
}

fn a_file_that_is_no_item_is_listed_until_it_is_one_or_goes() {
    let site = Site::new();
    let mut folder = site.folder();
    site.write("torn.wl", "this is nothing");
    site.write("nobody.json", r#"{"AccessionNumber": "A1", "Modality": "CT"}"#);
    site.write("good.json", &item(1));
    folder.look().unwrap();
    let problems = site.reader().worklist_problems().unwrap();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().any(|it| it.origin.ends_with("torn.wl") && it.reason.contains("neither a DICOM data set")));
    assert!(problems.iter().any(|it| it.origin.ends_with("nobody.json") && it.reason.contains("no patient")));
    assert_eq!(site.accessions(), ["A1"]);
    site.write("nobody.json", &item(2));
    site.remove("torn.wl");
    folder.look().unwrap();
    assert_eq!(site.reader().worklist_problems().unwrap(), []);
    assert_eq!(site.accessions().len(), 2);
}

/// Two files with one order of accession number `A1`. The one that was taken last comes first.
fn files_of_one_order(site: &Site, folder: &mut WorklistFolder) -> [&'static str; 2] {
    let of = |sex: &str| item(1).replace('}', &format!(r#", "PatientSex": "{sex}"}}"#));
    site.write("first.json", &of("F"));
    site.write("second.json", &of("M"));
    folder.look().unwrap();
    let [row] = &site.rows()[..] else { panic!("not one item") };
    if row.origin.ends_with("first.json") { ["first.json", "second.json"] } else { ["second.json", "first.json"] }
}

fn an_order_of_two_files_goes_with_the_last_of_them() {
    for goes in ["is removed", "has another order", "is no item"] {
        let site = Site::new();
        let mut folder = site.folder();
        let [last, other] = files_of_one_order(&site, &mut folder);
        let number = site.rows()[0].id;
        site.intake.change(move |tables| tables.set_state(number, WorklistState::Started, 1)).unwrap();
        match goes {
            "is removed" => site.remove(last),
            "has another order" => site.write(last, &item(2)),
            _ => site.write(last, "this is nothing"),
        }
        folder.look().unwrap();
        folder.look().unwrap();
        let rows = site.rows();
        let row = rows.iter().find(|row| row.value(WorklistColumn::AccessionNumber) == "A1").expect(goes);
        assert_eq!((row.id, row.state), (number, WorklistState::Started), "{goes}");
        assert!(row.origin.ends_with(other), "{goes}");
        let sex = if other == "first.json" { r#"["F"]"# } else { r#"["M"]"# };
        assert!(row.item.contains(sex), "{goes}: {}", row.item);
        site.remove(other);
        site.write("note.txt", "no item");
        folder.look().unwrap();
        assert!(!site.accessions().contains(&"A1".to_owned()), "{goes}");
    }
}

fn a_cancelled_order_of_two_files_stays_cancelled_when_one_goes() {
    let site = Site::new();
    let mut folder = site.folder();
    let [last, other] = files_of_one_order(&site, &mut folder);
    let number = site.rows()[0].id;
    site.intake.change(move |tables| tables.set_state(number, WorklistState::Cancelled, 1)).unwrap();
    site.remove(last);
    folder.look().unwrap();
    folder.look().unwrap();
    assert_eq!(site.rows().iter().map(|row| row.state).collect::<Vec<_>>(), [WorklistState::Cancelled]);
    site.remove(other);
    site.write("note.txt", "no item");
    folder.look().unwrap();
    assert_eq!(site.accessions(), [""; 0]);
}

fn an_order_that_came_by_hl7_too_stays_when_its_file_goes() {
    let order = "MSH|^~\\&|RIS|SITE|||20261129100000||ORM^O01|1|P|2.3.1\rPID|||P1\rORC|NW|1\r\
                 OBR|1|||X^Head||||||||||||||A1||||||CT\r";
    for hl7_is_first in [true, false] {
        let site = Site::new();
        let mut folder = site.folder();
        let hl7 = Hl7Intake::new(Arc::clone(&site.intake), Hl7Map::default(), Clock::System);
        let send = |message: &str| assert_eq!(hl7.take(message.as_bytes(), "test").code, AckCode::Accept);
        if hl7_is_first {
            send(order);
        }
        site.write("one.json", &item(1));
        folder.look().unwrap();
        if !hl7_is_first {
            send(order);
        }
        assert_eq!(site.accessions(), ["A1"]);
        site.remove("one.json");
        site.write("note.txt", "no item");
        folder.look().unwrap();
        assert_eq!(site.accessions(), ["A1"], "HL7 first: {hl7_is_first}");
        // After its cancellation, a file gives the order anew, and takes it along.
        send(&order.replace("|NW|", "|CA|"));
        assert_eq!(site.rows()[0].state, WorklistState::Cancelled);
        site.write("one.json", &item(1));
        folder.look().unwrap();
        assert_eq!(site.rows()[0].state, WorklistState::Scheduled);
        site.remove("one.json");
        folder.look().unwrap();
        assert_eq!(site.accessions(), [""; 0]);
    }
}

fn a_folder_that_is_gone_for_a_moment_takes_no_items_with_it() {
    let site = Site::new();
    let mut folder = site.folder();
    site.write("one.json", &item(1));
    folder.look().unwrap();
    let (path, away) = (site.directory.path().join("wl"), site.directory.path().join("away"));
    fs::rename(&path, &away).unwrap();
    folder.look().unwrap();
    assert_eq!(site.accessions(), ["A1"]);
    fs::rename(&away, &path).unwrap();
    folder.look().unwrap();
    assert_eq!(site.accessions(), ["A1"]);
}

fn the_mount_point_of_a_share_that_is_gone_takes_no_items_with_it() {
    let site = Site::new();
    let mut folder = site.folder();
    site.write("one.json", &item(1));
    site.write("two.json", &item(2));
    folder.look().unwrap();
    let row = site.rows().remove(0);
    site.intake.change(move |tables| tables.set_state(row.id, WorklistState::Done, 1)).unwrap();
    let states = || site.rows().iter().map(|row| row.state).collect::<Vec<_>>();
    let before = [WorklistState::Done, WorklistState::Scheduled];
    // Where a share was mounted, there is an empty directory then.
    let (path, away) = (site.directory.path().join("wl"), site.directory.path().join("away"));
    fs::rename(&path, &away).unwrap();
    fs::create_dir(&path).unwrap();
    folder.look().unwrap();
    assert_eq!(states(), before);
    // A node that starts before the share is mounted.
    let mut early = site.folder();
    early.look().unwrap();
    assert_eq!(states(), before);
    fs::remove_dir(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    for folder in [&mut folder, &mut early] {
        folder.look().unwrap();
        assert_eq!(states(), before, "nothing is taken as new");
    }
    // Files that are removed are gone, also the last ones.
    site.remove("one.json");
    site.remove("two.json");
    folder.look().unwrap();
    assert_eq!(states(), []);
}

#[test]
fn a_node_removes_no_items_of_another_one_with_a_folder_of_the_same_path() {
    with_databases(|| {
        let site = Site::new();
        let sorted = || {
            let mut found = site.accessions();
            found.sort_unstable();
            found
        };
        site.write("one.json", &item(1));
        site.write("same.json", &item(2));
        site.folder().look().unwrap();
        // Another machine has another folder there.
        let (path, away) = (site.directory.path().join("wl"), site.directory.path().join("away"));
        fs::rename(&path, &away).unwrap();
        site.write("same.json", &item(3));
        site.folder_of("ONE@there").look().unwrap();
        assert_eq!(sorted(), ["A1", "A2", "A3"]);
        site.remove("same.json");
        // With nothing in it, it would look like a share that is not mounted.
        site.write("note.txt", "no item");
        site.folder_of("ONE@there").look().unwrap();
        assert_eq!(sorted(), ["A1", "A2"], "only what it took itself is gone");
        fs::remove_dir_all(&path).unwrap();
        fs::rename(&away, &path).unwrap();
        site.remove("one.json");
        site.folder().look().unwrap();
        assert_eq!(sorted(), ["A2"]);
    });
}

fn an_item_starts_with_the_first_object_of_its_study_and_is_done_when_that_is_quiet() {
    let site = Site::new();
    let mut folder = site.folder();
    site.write("one.json", &item(1).replace('}', r#", "StudyInstanceUID": "1.2.3"}"#));
    folder.look().unwrap();
    let options = LifeOptions { quiet: Duration::from_secs(600), remove_after: Duration::from_secs(86_400) };
    let now = Clock::System.now_ms();
    let after = |minutes: i64| {
        live(&mut site.reader(), &site.intake, options, now + minutes * 60_000).unwrap();
        site.rows().first().map(|row| row.state)
    };
    assert_eq!(after(0), Some(WorklistState::Scheduled));
    arrive(&site, 1);
    assert_eq!(after(1), Some(WorklistState::Started));
    assert_eq!(after(5), Some(WorklistState::Started));
    arrive(&site, 2);
    assert_eq!(after(12), Some(WorklistState::Started), "another object came");
    assert_eq!(after(21), Some(WorklistState::Started));
    assert_eq!(after(22), Some(WorklistState::Done));
    assert_eq!(after(60 * 25), None, "it is forgotten");
}

fn only_what_comes_after_an_item_and_belongs_to_its_step_starts_it() {
    let site = Site::new();
    let mut folder = site.folder();
    let next_moment = || {
        let now = Clock::System.now_ms();
        while Clock::System.now_ms() == now {
            std::thread::yield_now();
        }
    };
    arrive(&site, 1);
    next_moment();
    site.write("one.json", &item(1).replace('}', r#", "StudyInstanceUID": "1.2.3"}"#));
    let second = r#", "StudyInstanceUID": "1.2.3", "ScheduledProcedureStepID": "S2"}"#;
    site.write("two.json", &item(1).replace("CT", "MR").replace('}', second));
    folder.look().unwrap();
    let options = LifeOptions { quiet: Duration::from_secs(600), remove_after: Duration::from_secs(86_400) };
    let states = |minutes: i64| {
        live(&mut site.reader(), &site.intake, options, Clock::System.now_ms() + minutes * 60_000).unwrap();
        ["CT", "MR"].map(|modality| {
            let rows = site.rows();
            rows.iter().find(|row| row.value(WorklistColumn::Modality) == modality).unwrap().state
        })
    };
    assert_eq!(states(0), [WorklistState::Scheduled; 2], "the object was there before");
    assert_eq!(states(20), [WorklistState::Scheduled; 2]);
    next_moment();
    arrive(&site, 2);
    assert_eq!(states(0), [WorklistState::Started, WorklistState::Scheduled]);
    assert_eq!(states(20), [WorklistState::Done, WorklistState::Scheduled]);
}

fn what_an_old_study_loses_starts_no_item() {
    let site = Site::new();
    let clock = Clock::Fixed(Clock::System.now_ms() - 2 * 3_600_000);
    let options = WriterOptions { durability: Durability::Os, clock, ..WriterOptions::default() };
    let before = Writer::open(&index_at(site.directory.path()), options).unwrap();
    before.handle().begin_scan("[]".to_owned()).unwrap();
    (1..=2).for_each(|number| bring(&before.handle(), number));
    before.close().unwrap();
    let mut folder = site.folder();
    site.write("one.json", &item(1).replace('}', r#", "StudyInstanceUID": "1.2.3"}"#));
    folder.look().unwrap();
    let next = Clock::System.now_ms() + 1;
    while Clock::System.now_ms() < next {
        std::thread::yield_now();
    }
    let handle = site.writer.handle();
    handle.scanned(ScannedDirectory { missing: vec!["1.dcm".into()], ..found_in_archive(Vec::new()) }).unwrap();
    handle.flush().unwrap();
    let options = LifeOptions { quiet: Duration::from_secs(600), remove_after: Duration::from_secs(86_400) };
    live(&mut site.reader(), &site.intake, options, Clock::System.now_ms()).unwrap();
    assert_eq!(site.rows()[0].state, WorklistState::Scheduled, "nothing came");
    arrive(&site, 3);
    live(&mut site.reader(), &site.intake, options, Clock::System.now_ms()).unwrap();
    assert_eq!(site.rows()[0].state, WorklistState::Started);
}

fn a_correction_of_a_study_starts_no_item() {
    let site = Site::new();
    arrive(&site, 1);
    let mut folder = site.folder();
    site.write("one.json", &item(1).replace('}', r#", "StudyInstanceUID": "1.2.3"}"#));
    folder.look().unwrap();
    std::thread::sleep(Duration::from_millis(2));
    let rule = Correction {
        number: 0,
        made_ms: 7,
        system: String::new(),
        keys: vec![(AttributeId::PatientID, "P1".into())],
        values: vec![(AttributeId::PatientSex, "O".into())],
        undone_ms: None,
    };
    assert_eq!(site.writer.handle().correct(CorrectionChange::Make(rule)).unwrap().1.instances, 1);
    let options = LifeOptions { quiet: Duration::from_secs(600), remove_after: Duration::from_secs(86_400) };
    let state = |minutes: i64| {
        live(&mut site.reader(), &site.intake, options, Clock::System.now_ms() + minutes * 60_000).unwrap();
        site.rows()[0].state
    };
    assert_eq!([state(0), state(20)], [WorklistState::Scheduled; 2], "nothing came");
    // The item changes, and what comes of the same source belongs to the same arrival.
    let changed = r#", "StudyInstanceUID": "1.2.3", "ScheduledProcedureStepDescription": "other"}"#;
    arrive(&site, 2);
    site.write("one.json", &item(1).replace('}', changed));
    folder.look().unwrap();
    assert_eq!([state(0), state(20)], [WorklistState::Started, WorklistState::Done]);
}

/// Brings an instance of the study into the index.
fn arrive(site: &Site, number: u32) {
    bring(&site.writer.handle(), number);
}

fn bring(handle: &WriterHandle, number: u32) {
    let mut record = InstanceRecord::new();
    let instance = format!("1.2.3.4.{number}");
    for (id, value) in [
        (AttributeId::PatientID, "P1"),
        (AttributeId::StudyInstanceUID, "1.2.3"),
        (AttributeId::SeriesInstanceUID, "1.2.3.4"),
        (AttributeId::Modality, "CT"),
        (AttributeId::SOPInstanceUID, instance.as_str()),
        (AttributeId::SOPClassUID, "1.2.840.10008.5.1.4.1.1.2"),
    ] {
        record.set(id, value);
    }
    let file = ScannedFile {
        file_name: format!("{number}.dcm").into(),
        size: 1,
        mtime_ms: 1,
        known: false,
        reread: false,
        outcome: FileOutcome::Instance(Box::new(record)),
    };
    handle.scanned(found_in_archive(vec![file])).unwrap();
    handle.flush().unwrap();
}

fn found_in_archive(files: Vec<ScannedFile>) -> ScannedDirectory {
    ScannedDirectory { files, complete: true, ..ScannedDirectory::new(Place::InPlace, "/archive") }
}

with_each_index! {
    files_are_items_and_a_file_that_goes_is_an_item_that_goes,
    a_file_that_is_being_written_waits,
    a_file_that_is_no_item_is_listed_until_it_is_one_or_goes,
    an_order_of_two_files_goes_with_the_last_of_them,
    a_cancelled_order_of_two_files_stays_cancelled_when_one_goes,
    an_order_that_came_by_hl7_too_stays_when_its_file_goes,
    a_folder_that_is_gone_for_a_moment_takes_no_items_with_it,
    the_mount_point_of_a_share_that_is_gone_takes_no_items_with_it,
    an_item_starts_with_the_first_object_of_its_study_and_is_done_when_that_is_quiet,
    only_what_comes_after_an_item_and_belongs_to_its_step_starts_it,
    what_an_old_study_loses_starts_no_item,
    a_correction_of_a_study_starts_no_item,
}
