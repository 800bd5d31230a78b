//! `dcmdex report`: what is wrong with each study.

use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::util::archives::{Keep, Zip};
use crate::util::objects;

/// A file of a study with these elements of group 0008.
fn study(place: &Place, name: &str, number: u32, elements: &[(u16, u16, &[u8; 2], &str)]) {
    let path = place.path("archive").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, objects::file_with(number, elements)).unwrap();
}

fn report(place: &Place, arguments: &[&str]) -> Run {
    place.run(["report", "--index", "index.db"].into_iter().chain(arguments.iter().copied()))
}

/// The problems of each study in a CSV report.
fn problems(text: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().unwrap().clone();
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        let counts = names.iter().zip(row.iter()).skip(10).filter(|(_, count)| !count.is_empty());
        (row[0].to_owned(), counts.map(|(name, count)| (name.replace('_', "-"), count.parse().unwrap())).collect())
    });
    rows.collect()
}

const SOUND: &[(u16, u16, &[u8; 2], &str)] = &[(0x0008, 0x0020, b"DA", "20240131"), (0x0008, 0x0050, b"SH", "A")];

fn each_problem_is_told_with_its_study(place: Place) {
    study(&place, "1.dcm", 1, SOUND);
    study(&place, "empty.dcm", 2, &[]);
    study(&place, "date.dcm", 3, &[(0x0008, 0x0020, b"DA", "20241340"), (0x0008, 0x0050, b"SH", "A")]);
    // Other content under the UID of the first, and a copy of the third.
    study(
        &place,
        "z/other.dcm",
        1,
        &[(0x0008, 0x0020, b"DA", "20240131"), (0x0008, 0x0023, b"DA", "20240101"), (0x0008, 0x0050, b"SH", "A")],
    );
    fs::copy(place.path("archive/date.dcm"), place.path("archive/z/date.dcm")).unwrap();
    // A file that ends in its last value.
    let whole = objects::file_with(4, SOUND);
    fs::write(place.path("archive/cut.dcm"), &whole[..whole.len() - 1]).unwrap();
    // Two patients in one study.
    for (patient, instance) in [("PA", "1.2.5.1.1"), ("PB", "1.2.5.1.2")] {
        fs::write(place.path(format!("archive/{patient}.dcm")), objects::file(patient, "1.2.5", "1.2.5.1", instance))
            .unwrap();
    }
    study(&place, "gone.dcm", 6, SOUND);
    study(&place, "kept.dcm", 7, SOUND);
    place.run(["scan", "--index", "index.db", "archive"]);
    fs::remove_file(place.path("archive/gone.dcm")).unwrap();
    place.run(["scan", "--index", "index.db", "archive"]);
    let told = report(&place, &["--csv", "r.csv", "--html", "r.html"]).expect(1);
    assert_eq!(told.stdout, "6 studies of 7 need work\n");
    let found = problems(&fs::read_to_string(place.path("r.csv")).unwrap());
    let of = |study: &str| found[study].keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("1.2.1"), ["other-content"]);
    assert_eq!(of("1.2.2"), ["no-accession-number", "no-study-date"]);
    assert_eq!(of("1.2.3"), ["copies", "invalid-date"]);
    assert_eq!(of("1.2.4"), ["truncated"]);
    assert_eq!(of("1.2.5"), ["no-accession-number", "no-study-date", "several-patients"]);
    assert_eq!(of("1.2.6"), ["missing-file"]);
    assert!(!found.contains_key("1.2.7"));
    let html = fs::read_to_string(place.path("r.html")).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
    for study in found.keys() {
        assert!(html.contains(&format!("<td class=uid>{study}</td>")), "{study}");
    }
    assert!(html.contains("<svg") && html.contains("other-content"));
    let without =
        report(&place, &["--csv", "r.csv", "--without", "no-accession-number,no-study-date,copies"]).expect(1);
    assert_eq!(without.stdout, "5 studies of 7 need work\n");
    assert!(report(&place, &["--without", "nonsense"]).expect(2).stderr.contains("`nonsense`"));
}

#[test]
fn objects_that_end_too_early_are_told_as_files_and_as_members() {
    let odd = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/real/odd");
    for is_zip in [false, true] {
        let place = Place::new();
        fs::create_dir(place.path("archive")).unwrap();
        let mut zip = Zip::default();
        for (name, keep) in [("MR_truncated.dcm", Keep::Stored), ("rtplan_truncated.dcm", Keep::Deflated)] {
            let bytes = fs::read(odd.join(name)).unwrap();
            match is_zip {
                true => zip.add(name.as_bytes(), &bytes, keep),
                false => fs::write(place.path("archive").join(name), bytes).unwrap(),
            }
        }
        if is_zip {
            fs::write(place.path("archive/a.zip"), zip.finish()).unwrap();
        }
        let scanned = place.run(["scan", "--index", "index.db", "archive"]).expect(0);
        assert!(scanned.stdout.contains("with faults 2: truncated 2"), "{}", scanned.stdout);
        report(&place, &["--csv", "r.csv"]).expect(1);
        let found = problems(&fs::read_to_string(place.path("r.csv")).unwrap());
        assert!(found.len() == 2 && found.values().all(|study| study["truncated"] == 1), "{found:?}");
    }
}

fn a_series_with_a_gap_is_told_and_one_that_is_numbered_in_another_way_is_not(place: Place) {
    fs::create_dir(place.path("archive")).unwrap();
    for (study, numbers) in [
        ("1.2.1", &["1", "2", "5"][..]),
        ("1.2.2", &["1", "2", "3"]),
        ("1.2.3", &["1", "1001"]),
        ("1.2.4", &["1", "02", "3"]),
        ("1.2.5", &["01", "02", "04"]),
    ] {
        for number in numbers {
            let instance = format!("{study}.1.{}", number.trim_start_matches('0'));
            let bytes = objects::file_numbered("P", study, &format!("{study}.1"), &instance, number);
            fs::write(place.path(format!("archive/{instance}.dcm")), bytes).unwrap();
        }
    }
    place.run(["scan", "--index", "index.db", "archive"]).expect(0);
    report(&place, &["--csv", "r.csv", "--without", "no-study-date,no-accession-number"]).expect(1);
    let found = problems(&fs::read_to_string(place.path("r.csv")).unwrap());
    assert_eq!(found.len(), 2);
    assert_eq!(found["1.2.1"]["instance-number-gap"], 2);
    assert_eq!(found["1.2.5"]["instance-number-gap"], 1);
}

fn differences_between_a_dicomdir_and_its_files_are_told_with_their_study(place: Place) {
    fs::create_dir(place.path("archive")).unwrap();
    // Two objects of one study, of which one is left; and a study of which nothing is left.
    let objects = [("1.2.5", "1.2.5.1.1"), ("1.2.5", "1.2.5.1.2"), ("1.2.6", "1.2.6.1.1")];
    for (study, instance) in objects {
        let bytes = objects::file("P", study, &format!("{study}.1"), instance);
        fs::write(place.path(format!("archive/{instance}.dcm")), bytes).unwrap();
    }
    place.run(["scan", "--index", "first.db", "archive"]).expect(0);
    place.run(["copy", "--index", "first.db", "--to", "cd", "--dicomdir", "--by", "copy"]).expect(0);
    let manifest = fs::read_to_string(place.path("cd/manifest.csv")).unwrap();
    for gone in ["1.2.5.1.2", "1.2.6.1.1"] {
        let line = manifest.lines().find(|line| line.contains(gone)).unwrap();
        fs::remove_file(place.path("cd").join(line.split(',').next().unwrap())).unwrap();
    }
    fs::create_dir(place.path("cd/EXTRA")).unwrap();
    for (name, study) in [("MORE", "1.2.7"), ("EXTRA/MORE", "1.2.8")] {
        let bytes = objects::file("P", study, &format!("{study}.1"), &format!("{study}.1.1"));
        fs::write(place.path("cd").join(name), bytes).unwrap();
    }
    place.run(["scan", "--index", "index.db", "cd"]).expect(1);
    let without = "no-study-date,no-accession-number";
    let told = report(&place, &["--csv", "r.csv", "--html", "r.html", "--without", without]).expect(1);
    assert_eq!(told.stdout, "4 studies of 4 need work\n");
    let told = [
        ("1.2.5", "dicomdir-file-missing"),
        ("1.2.6", "dicomdir-file-missing"),
        ("1.2.7", "not-in-dicomdir"),
        ("1.2.8", "not-in-dicomdir"),
    ];
    let told = told.map(|(study, problem)| (study.to_owned(), BTreeMap::from([(problem.to_owned(), 1)])));
    assert_eq!(problems(&fs::read_to_string(place.path("r.csv")).unwrap()), BTreeMap::from(told));
    let html = fs::read_to_string(place.path("r.html")).unwrap();
    assert!(html.contains("<span class=grave>dicomdir-file-missing</span>"), "{html}");
}

fn a_page_needs_nothing_from_elsewhere_and_runs_nothing(place: Place) {
    let evil = "<script>alert(1)</script><img onerror=y>";
    study(&place, "1.dcm", 1, &[(0x0008, 0x1030, b"LO", evil)]);
    study(&place, "2.dcm", 2, &[(0x0008, 0x1030, b"LO", "=cmd|' /C calc'!A0")]);
    place.run(["scan", "--index", "index.db", "archive"]).expect(0);
    report(&place, &["--csv", "r.csv", "--html", "r.html", "--defuse-formulas"]).expect(1);
    let html = fs::read_to_string(place.path("r.html")).unwrap();
    let lower = html.to_lowercase();
    for forbidden in ["<script", "<img", "http://", "https://", "src=", "@import", "url(", "<link"] {
        let allowed = lower.matches(forbidden).count();
        assert_eq!(allowed, 0, "{forbidden}");
    }
    assert!(html.contains("&lt;script&gt;alert(1)"), "{html}");
    assert!(fs::read_to_string(place.path("r.csv")).unwrap().contains("'=cmd"));
}

fn a_sound_archive_has_nothing_to_tell(place: Place) {
    study(&place, "1.dcm", 1, SOUND);
    place.run(["scan", "--index", "index.db", "archive"]).expect(0);
    assert_eq!(report(&place, &[]).expect(0).stdout, "0 studies of 1 need work\n");
}

on_each_engine! {
    each_problem_is_told_with_its_study,
    a_series_with_a_gap_is_told_and_one_that_is_numbered_in_another_way_is_not,
    differences_between_a_dicomdir_and_its_files_are_told_with_their_study,
    a_page_needs_nothing_from_elsewhere_and_runs_nothing,
    a_sound_archive_has_nothing_to_tell,
}
