//! Lists of values in files, and output for other programs.

use std::fs;

use super::*;
use crate::util::archives::{Keep, Zip};
use crate::util::objects;

fn place() -> Place {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    for number in 1..=4 {
        let elements: &[(u16, u16, &[u8; 2], &str)] = &[
            (0x0008, 0x0020, b"DA", &format!("2024010{number}")),
            (0x0008, 0x0050, b"SH", &format!("A{number}")),
            (0x0008, 0x1030, b"LO", &format!("Kopf {number}")),
        ];
        fs::write(place.path(format!("archive/{number}.dcm")), objects::file_with(number, elements)).unwrap();
    }
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    place
}

fn find<'a>(place: &Place, arguments: impl IntoIterator<Item = &'a str>) -> Run {
    place.run(["find", "--index", "x.db"].into_iter().chain(arguments))
}

#[test]
fn a_key_takes_its_values_from_a_file_and_says_which_are_missing() {
    let place = place();
    fs::write(place.path("list.csv"), "name,AccessionNumber\r\nx,A1\r\ny,A3\r\nz,A9\r\nz,=B\r\n").unwrap();
    let found =
        find(&place, ["--format", "csv", "--columns", "StudyDate", "AccessionNumber=@list.csv", "--missing", "m.csv"]);
    assert_eq!(found.expect(0).stdout, "StudyDate\r\n20240103\r\n20240101\r\n");
    assert_eq!(fs::read_to_string(place.path("m.csv")).unwrap(), "AccessionNumber\r\nA9\r\n=B\r\n");
    let told = find(&place, ["AccessionNumber=@list.csv", "--missing", "m.csv"]).expect(0).stderr;
    assert!(told.contains("2 of 4 values of AccessionNumber"), "{told}");
    // The column of another name, and values in the form that people write.
    fs::write(place.path("dates.csv"), "Tag;Ort\n2024-01-02;x\n2023-01-01;y\n").unwrap();
    let dates = find(
        &place,
        ["--format", "csv", "--columns", "AccessionNumber", "StudyDate=@dates.csv:tag", "--missing", "m.csv"],
    );
    assert_eq!(dates.expect(0).stdout, "AccessionNumber\r\nA2\r\n");
    assert_eq!(fs::read_to_string(place.path("m.csv")).unwrap(), "StudyDate\r\n20230101\r\n");
    // Case does not matter in a description.
    fs::write(place.path("words"), "kopf 1\nKOPF*\nHerz\n").unwrap();
    find(&place, ["StudyDescription=@words", "--missing", "m.csv"]).expect(0);
    assert_eq!(fs::read_to_string(place.path("m.csv")).unwrap(), "StudyDescription\r\nHerz\r\n");
}

#[test]
fn a_list_that_cannot_be_used_is_an_error_and_two_signs_are_a_value() {
    let place = place();
    for (arguments, told) in [
        (vec!["AccessionNumber=@none.csv"], "none.csv"),
        (vec!["AccessionNumber=@empty"], "no values"),
        (vec!["AccessionNumber=@list:Other"], "no column `Other`"),
        (vec!["StudyComments=@list"], "cannot be matched with a list"),
        (vec!["StudyDate", "--missing", "m.csv"], "needs a list"),
        (vec!["SOPInstanceUID=@list", "--missing", "m.csv"], "--level IMAGE"),
        (vec!["AccessionNumber=@list", "--missing", "./list"], "is the list; hint: name another file"),
    ] {
        fs::write(place.path("empty"), "\n\n").unwrap();
        fs::write(place.path("list"), "A1\n").unwrap();
        let refused = find(&place, arguments).expect(2);
        assert!(refused.stderr.contains(told), "{refused:?}");
    }
    find(&place, ["AccessionNumber=@@list"]).expect(1);
    assert!(!place.path("m.csv").exists());
}

#[test]
fn five_thousand_values_are_one_question() {
    let place = place();
    let list: String = (0..5000).map(|number| format!("A{number}\n")).collect();
    fs::write(place.path("list"), list).unwrap();
    let count = find(&place, ["--count", "AccessionNumber=@list", "--missing", "m.csv"]).expect(0);
    assert_eq!(count.stdout, "4\n");
    assert_eq!(fs::read_to_string(place.path("m.csv")).unwrap().lines().count(), 4997);
}

#[test]
fn other_programs_get_a_number_or_paths() {
    let place = place();
    assert_eq!(find(&place, ["--count"]).expect(0).stdout, "4\n");
    assert_eq!(find(&place, ["--count", "--level", "SERIES", "AccessionNumber=A2"]).expect(0).stdout, "1\n");
    assert_eq!(find(&place, ["--count", "AccessionNumber=none"]).expect(1).stdout, "0\n");
    let odd = place.path("archive/new\nline.dcm");
    fs::rename(place.path("archive/1.dcm"), &odd).unwrap();
    place.run(["scan", "--index", "x.db", "--prune", "archive"]).expect(0);
    let paths = find(&place, ["--paths0", "AccessionNumber=A1"]).expect(0).stdout;
    assert_eq!(paths, format!("{}\0", odd.to_str().unwrap()));
}

#[test]
fn a_member_of_an_archive_file_has_no_path_for_other_programs() {
    let place = Place::new();
    let zip = Zip::default().with("a.dcm", &objects::file("P", "1.2", "1.2.1", "1.2.1.1"), Keep::Deflated).finish();
    fs::write(place.path("a.zip"), zip).unwrap();
    place.run(["scan", "--index", "x.db", "a.zip"]).expect(0);
    let paths = find(&place, ["--paths0"]).expect(0);
    assert!(paths.stdout.is_empty() && paths.stderr.contains("1 instances have no file of their own"), "{paths:?}");
}
