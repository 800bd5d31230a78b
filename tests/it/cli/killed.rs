//! A scan that is killed at any moment and started again ends in the same index as an undisturbed
//! one.
//!
//! `DCMDEX_TEST_KILLS` sets the number of kills (docs/reliability.md has a long run).
//! `DCMDEX_TEST_SEED` sets the seed.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::*;
use crate::util::archives::{self, Keep, Zip};
use crate::util::objects;

/// Rows in one transaction of a scan, and rows on their way to it when the process ends. A kill may
/// lose this many. `scanner::again` tests on a larger archive that it loses no more.
const BATCH: u64 = 20_000;

/// Number of files of the archive, in directories of [`PER_DIRECTORY`].
const FILES: u32 = 2000;
const PER_DIRECTORY: u32 = 40;

struct Random(u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn number(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a switch of this test, no setting of the program")]
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn inside(file: u32) -> String {
    format!("tree/{:03}/{:05}.dcm", file / PER_DIRECTORY, file)
}

/// Writes a file: part of a study in several directories, a copy, or an unreadable file.
fn write(place: &Place, file: u32, version: u32) {
    let path = place.path(inside(file));
    match file % 50 {
        7 => fs::write(&path, "x".repeat(20 + version as usize)).unwrap(),
        // A copy of the one before.
        8 => objects::write(&path, (file - 2) / 500, (file - 2) / 100, file - 2 + version * 100_000),
        // The same UID with other content.
        9 => {
            let (study, series) = (format!("1.2.{}", file / 500), format!("1.2.{}.{}", file / 500, file / 100));
            fs::write(&path, objects::file("OTHER", &study, &series, &format!("{series}.{}", file - 5))).unwrap();
        }
        _ => objects::write(&path, file / 500, file / 100, file + version * 100_000),
    }
}

/// Writes archive files: one inside another, members that also lie elsewhere, and members that are
/// not objects.
fn write_archives(place: &Place, version: u32) {
    let member = |file: u32| {
        let (study, series) = (format!("1.2.{}", file / 500), format!("1.2.{}.{}", file / 500, file / 100));
        objects::file(&format!("P{}", file / 500), &study, &series, &format!("{series}.{file}"))
    };
    let mut inner = Zip::default().with("notes.txt", b"no object", Keep::Stored);
    for file in 0..150 {
        inner.add(format!("b/{file}").as_bytes(), &member(400_000 + file), Keep::Deflated);
    }
    let mut outer = Zip::default().with("inner.zip", &inner.finish(), Keep::Stored);
    // The second half changes with the version, and some lie in the tree as well.
    for file in 0..300 {
        let content = if file % 20 == 0 { file } else { 300_000 + file + file / 150 * version * 1000 };
        outer.add(format!("a/{file:03}.dcm").as_bytes(), &member(content), Keep::Stored);
    }
    fs::write(place.path("tree/archives/whole.zip"), outer.finish()).unwrap();
    let objects: Vec<_> = (0..200).map(|file| (format!("{file}"), member(500_000 + file + version))).collect();
    let members: Vec<_> = objects.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    fs::write(place.path("tree/archives/whole.tar.gz"), archives::gzip(&archives::tar(&members))).unwrap();
}

/// Changes the tree. Files come, change, go and move, and archive files get other members.
fn change(place: &Place, random: &mut Random) {
    if random.below(2) == 0 {
        write_archives(place, u32::try_from(random.below(3)).unwrap());
    }
    for _ in 0..60 {
        let file = u32::try_from(random.below(u64::from(FILES))).unwrap();
        let path = place.path(inside(file));
        match random.below(4) {
            0 => {
                let _gone = fs::remove_file(&path);
            }
            1 => {
                let to =
                    place.path(inside(u32::try_from(random.below(u64::from(FILES))).unwrap())).with_extension("moved");
                // Not over another one: files that were written in one millisecond look the same
                // where they are of one size.
                if !to.exists() {
                    let _gone = fs::rename(&path, to);
                }
            }
            2 => write(place, file, 1 + u32::try_from(random.below(3)).unwrap()),
            _ => {
                let path = path.with_extension("new");
                objects::write(&path, 77, 78, 200_000 + file);
            }
        }
    }
}

/// Returns everything in the index, without row numbers and times of day.
fn content(index: &Path) -> BTreeSet<String> {
    let queries = [
        "SELECT 'patient', patient_id, patient_name, number_of_patient_related_studies, number_of_patient_related_series, \
         number_of_patient_related_instances FROM patients",
        "SELECT 'study', study_instance_uid, patient_id, modalities_in_study, sop_classes_in_study, \
         number_of_study_related_series, number_of_study_related_instances FROM studies",
        "SELECT 'series', study_instance_uid, series_instance_uid, modality, number_of_series_related_instances FROM series",
        "SELECT 'instance', sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid, instance_number, path, size, \
         mtime FROM instances",
        "SELECT 'copy', d.path, c.file_name, c.size, c.mtime_ms, c.differs, hex(c.uid_suffix), h.sop_class_uid FROM copy c \
         JOIN directory d ON d.id = c.directory JOIN instance_group h ON h.id = c.instance_group",
        "SELECT 'unindexed', d.path, f.file_name, f.size, f.mtime_ms, f.kind, f.reason, f.detail FROM unindexed_file f \
         JOIN directory d ON d.id = f.directory",
        "SELECT 'fault', d.path, f.file_name, f.faults FROM file_fault f JOIN directory d ON d.id = f.directory",
        "SELECT 'conflict', c.kind, c.study_instance_uid, c.series_instance_uid, c.sop_instance_uid, d.path, c.file_name \
         FROM conflict c JOIN directory d ON d.id = c.directory",
    ];
    let output = Command::new("sqlite3")
        .args(["-readonly", "-quote"])
        .arg(index)
        .args(queries)
        .output()
        .expect("the sqlite3 shell is installed by scripts/peers");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: BTreeSet<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(rows.len() > 1000);
    rows
}

/// Starts a scan and kills it after a time. Returns its summary if it ended before.
fn kill_after(place: &Place, time: Duration) -> Ended {
    forget_reads(place);
    let mut command = place.command();
    command.args(["scan", "-q", "--json", "--prune", "--jobs", "4", "--index", "x.db", "tree"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    // A reader of its own, so that the scan never waits for us.
    let mut output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text).map(|_| text)
    });
    // The moment is what is being tested, not something that is waited for.
    std::thread::sleep(time);
    let _ended = child.kill();
    child.wait().unwrap();
    let text = reader.join().unwrap().unwrap();
    let was_killed = !text.lines().last().is_some_and(|last| last.contains("\"event\":\"summary\""));
    Ended { was_killed, read: files_read(place) }
}

/// End of a scan that should be killed.
struct Ended {
    was_killed: bool,
    /// Number of files that it had opened and read. It is 0 if the file system does not keep the
    /// access time.
    read: u64,
}

/// A time long before any file was written.
const UNREAD: SystemTime = SystemTime::UNIX_EPOCH;

fn each_file(place: &Place, mut work: impl FnMut(&Path)) {
    for directory in fs::read_dir(place.path("tree")).unwrap() {
        for file in fs::read_dir(directory.unwrap().path()).unwrap() {
            work(&file.unwrap().path());
        }
    }
}

fn forget_reads(place: &Place) {
    let times = fs::FileTimes::new().set_accessed(UNREAD);
    each_file(place, |path| fs::File::options().write(true).open(path).unwrap().set_times(times).unwrap());
}

fn files_read(place: &Place) -> u64 {
    let mut read = 0;
    each_file(place, |path| read += u64::from(path.metadata().unwrap().accessed().is_ok_and(|time| time > UNREAD)));
    read
}

fn scan(place: &Place, index: &str) -> Value {
    let run = run(place.command().args(["scan", "-q", "--json", "--prune", "--index", index, "tree"])).expect(1);
    run.json().pop().unwrap()
}

/// Scans until nothing changes.
///
/// If the location of an instance is gone, its files with other content are forgotten, and the next
/// scan classifies them again. This takes one more scan, with or without a kill.
fn come_to_rest(place: &Place, index: &str) {
    for _ in 0..5 {
        let again = scan(place, index);
        if ["indexed", "updated", "removed"].iter().all(|key| again[key] == 0) {
            return;
        }
    }
    panic!("{index} does not come to rest");
}

/// Returns the number of files that the index knows. They need not be read again.
fn files_in(place: &Place) -> u64 {
    let status = place.run(["status", "--json", "--index", "x.db"]);
    // Killed before there was an index.
    if status.code != 0 {
        return 0;
    }
    let status = status.json().remove(0);
    ["instances", "copies", "failed"].iter().map(|key| status[key].as_u64().unwrap()).sum()
}

#[test]
fn a_scan_that_is_killed_ends_in_the_index_of_one_that_was_not() {
    let wanted = number("DCMDEX_TEST_KILLS", 40);
    let mut random = Random(number("DCMDEX_TEST_SEED", 7));
    let place = Place::new();
    for directory in 0..FILES / PER_DIRECTORY {
        fs::create_dir_all(place.path(format!("tree/{directory:03}"))).unwrap();
    }
    for file in 0..FILES {
        write(&place, file, 0);
    }
    fs::create_dir(place.path("tree/archives")).unwrap();
    write_archives(&place, 0);
    let (mut kills, mut rounds, mut lost, mut most_lost) = (0, 0, 0, 0);
    while kills < wanted {
        let is_first = !place.path("x.db").exists();
        let begun = Instant::now();
        // An undisturbed scan beside it, with the same history.
        let undisturbed = scan(&place, "whole.db");
        let time = begun.elapsed();
        for _ in 0..1 + random.below(8) {
            let before = files_in(&place);
            let moment = time.mul_f64(random.below(1000) as f64 / 800.0);
            let ended = kill_after(&place, moment);
            kills += u64::from(ended.was_killed);
            if is_first && ended.was_killed {
                let loss = ended.read.saturating_sub(files_in(&place) - before);
                lost += loss;
                most_lost = most_lost.max(loss);
            }
            if place.path("x.db").exists() {
                let sound = run(place.command().args(["check", "--index", "x.db"]));
                assert!(sound.code == 0 || sound.stderr.contains("there is no index"), "{sound:?}");
            }
        }
        let last = scan(&place, "x.db");
        for index in ["x.db", "whole.db"] {
            come_to_rest(&place, index);
        }
        assert_eq!(last["found"], undisturbed["found"]);
        let (whole, killed) = (content(&place.path("whole.db")), content(&place.path("x.db")));
        let only_whole: Vec<_> = whole.difference(&killed).take(5).collect();
        let only_killed: Vec<_> = killed.difference(&whole).take(5).collect();
        assert!(
            only_whole.is_empty() && only_killed.is_empty(),
            "round {rounds}: only undisturbed {only_whole:#?}, only killed {only_killed:#?}"
        );
        place.run(["check", "--index", "x.db", "--files"]).expect(0);
        assert!(most_lost <= BATCH, "{most_lost} files had to be read again");
        rounds += 1;
        if rounds % 4 == 0 {
            for entry in fs::read_dir(place.path(".")).unwrap().map(Result::unwrap) {
                if entry.file_name().to_string_lossy().contains(".db") {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        } else {
            change(&place, &mut random);
        }
    }
    println!(
        "{kills} kills in {rounds} rounds; {lost} files read again after kills of first scans, at most {most_lost} at once"
    );
}

/// At its end a process copies the log back, empties it, notes that, and removes it. A kill after
/// the second step leaves an empty log that the note calls needed.
#[test]
fn an_index_whose_writer_was_killed_when_it_had_emptied_the_log_is_opened() {
    let place = Place::new();
    fs::create_dir(place.path("tree")).unwrap();
    objects::write(&place.path("tree/1"), 1, 1, 1);
    let scan = || place.run(["scan", "-q", "--index", "x.db", "tree"]).expect(0);
    scan();
    let record = place.path("x.db-turn");
    let noted = fs::read_to_string(&record).unwrap();
    let needed = noted.replacen('-', "+", 1);
    assert_ne!(noted, needed);
    fs::write(&record, needed).unwrap();
    fs::write(place.path("x.db-wal"), "").unwrap();
    for _ in 0..2 {
        place.run(["status", "--index", "x.db"]).expect(0);
    }
    scan();
    assert_eq!(fs::read_to_string(&record).unwrap(), noted);
    // Threads of the scan that close the index in the same moment may leave the empty file.
    assert_eq!(fs::metadata(place.path("x.db-wal")).map_or(0, |log| log.len()), 0);
    place.run(["check", "--index", "x.db", "--files"]).expect(0);
}
