//! `dcmdex find`: the same engine as C-FIND, in four formats.

use super::*;

fn archive() -> Place {
    let place = Place::new();
    place.run(["scan", "--index", "x.db", &fixtures("archive")]).expect(1);
    place
}

fn find(place: &Place, arguments: &[&str]) -> Run {
    run(place.command().args(["find", "--index", "x.db"]).args(arguments))
}

#[test]
fn a_table_is_aligned_by_what_the_terminal_shows() {
    let place = archive();
    let run = find(&place, &["--level", "STUDY", "PatientName", "StudyDescription", "NumberOfStudyRelatedInstances"])
        .expect(0);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 7);
    // Where the last column begins, in columns of the terminal: Han, kana and hangul take two.
    let columns = |text: &str| unicode_width::UnicodeWidthStr::width(text);
    let begin = columns(&lines[0][..lines[0].find("NumberOfStudyRelatedInstances").unwrap()]);
    for line in &lines[1..] {
        let last = line.rsplit(' ').next().unwrap();
        assert_eq!(columns(&line[..line.len() - last.len()]), begin, "{line}");
        assert!(last.parse::<u32>().is_ok(), "{line}");
    }
    assert!(run.stdout.contains("Yamada^Tarou=山田^太郎=やまだ^たろう"));
}

#[test]
fn without_keys_the_usual_columns_of_the_level_are_shown() {
    let place = archive();
    for (level, rows, column) in [
        ("PATIENT", 4, "PatientID"),
        ("study", 6, "ModalitiesInStudy"),
        ("SERIES", 11, "SeriesNumber"),
        ("IMAGE", 33, "InstanceNumber"),
    ] {
        let run = find(&place, &["--level", level]).expect(0);
        assert_eq!(run.stdout.lines().count(), 1 + rows, "{level}: {run:?}");
        assert!(run.stdout.lines().next().unwrap().contains(column), "{level}: {run:?}");
    }
}

#[test]
fn json_and_ndjson_say_the_same_with_keywords_in_the_order_of_the_tags() {
    let place = archive();
    let keys = ["--level", "STUDY", "StudyInstanceUID", "PatientName=Müller*", "00080020", "ProcedureCodeSequence"];
    let ndjson = find(&place, &[&["--format", "ndjson"][..], &keys].concat()).expect(0);
    let json = find(&place, &[&["--format", "json"][..], &keys].concat()).expect(0);
    let array: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(array.as_array().unwrap(), &ndjson.json());
    assert_eq!(ndjson.json().len(), 2);
    let names: Vec<_> = ndjson.json()[0].as_object().unwrap().keys().cloned().collect();
    let position = |name: &str| names.iter().position(|other| other == name).unwrap_or_else(|| panic!("{names:?}"));
    assert!(position("StudyDate") < position("ProcedureCodeSequence"));
    assert!(position("PatientName") < position("StudyInstanceUID"));
    assert!(ndjson.json().iter().all(|study| study["PatientName"] == "Müller^Änne"));
    assert!(ndjson.json().iter().all(|study| study["ProcedureCodeSequence"].is_array()), "{ndjson:?}");
}

#[test]
fn csv_is_rfc_4180() {
    let place = archive();
    let run = find(&place, &["--format", "csv", "StudyDescription", "PatientID=TK-2002"]).expect(0);
    let lines: Vec<_> = run.stdout.split("\r\n").collect();
    assert!(lines[0].starts_with("StudyDescription,PatientID"), "{run:?}");
    assert!(lines[1].starts_with("\"MR head, plain\",TK-2002"), "{run:?}");
    assert_eq!(lines[2..], [""]);
}

#[test]
fn nothing_found_ends_with_1_and_an_answer_of_its_format() {
    let place = archive();
    for (format, expected) in [("table", ""), ("json", "[]\n"), ("ndjson", ""), ("csv", "PatientName\r\n")] {
        let run = find(&place, &["--format", format, "--level", "PATIENT", "PatientName=NOBODY", "PatientID"]);
        let run = run.expect(1);
        if format == "csv" {
            assert_eq!(run.stdout.lines().count(), 1);
        } else {
            assert_eq!(run.stdout, expected, "{format}");
        }
    }
}

#[test]
fn matching_is_that_of_c_find() {
    let place = archive();
    let uids = |keys: &[&str]| {
        let run = find(&place, &[&["--format", "ndjson", "StudyInstanceUID"][..], keys].concat());
        run.json().iter().map(|study| study["StudyInstanceUID"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(uids(&["PatientName=yamada*"]), ["2.25.111313367017381155386423402561990279758"]);
    assert_eq!(uids(&["PatientName=*山田*"]).len(), 1);
    assert_eq!(uids(&["StudyDate=20230301-20230318"]), ["2.25.222357566655179818184128349088455852959"]);
    assert_eq!(uids(&["ModalitiesInStudy=CT\\MR"]).len(), 2);
    assert_eq!(uids(&["Modality=RTPLAN"]).len(), 1);
    let [one, other] = ["2.25.111313367017381155386423402561990279758", "2.25.80108823371274739048107111158826196270"];
    assert_eq!(uids(&[&format!("StudyInstanceUID={one}\\{other}")]).len(), 2);
}

#[test]
fn a_key_that_is_none_is_told_without_its_value() {
    let place = archive();
    let run = find(&place, &["PatientNam=Secret"]).expect(2);
    assert!(run.stderr.contains("did you mean `PatientName`?") && !run.stderr.contains("Secret"), "{run:?}");
    let run = find(&place, &["--level", "FRAME"]).expect(2);
    assert!(run.stderr.contains("PATIENT, STUDY, SERIES or IMAGE"), "{run:?}");
}

#[test]
fn an_attribute_that_is_not_kept_is_warned_about() {
    let place = archive();
    let run = find(&place, &["StudyInstanceUID", "WindowCenter=40"]).expect(0);
    assert!(run.stderr.contains("(0028,1050)"), "{run:?}");
    assert_eq!(run.stdout.lines().count(), 7);
}

#[test]
fn what_has_come_is_found_by_when_and_by_the_number_of_the_change() {
    let place = Place::new();
    place.run(["scan", "--index", "x.db", &fixtures("archive")]).expect(1);
    let find = |key: &str| place.run(["find", "--index", "x.db", key]);
    for key in ["received=24h", "received=2020-01-01..", "since=0"] {
        let run = find(key).expect(0);
        assert!(run.stdout.starts_with("PatientName") || run.stdout.contains("StudyInstanceUID"), "{run:?}");
    }
    for key in ["received=..2020-01-01", "since=99", "sender=*"] {
        assert_eq!(find(key).expect(1).stdout, "", "{key}");
    }
    for key in ["received=some day", "since=now"] {
        assert!(find(key).expect(2).stderr.contains("cannot parse") || key.starts_with("since"), "{key}");
    }
    let status: serde_json::Value =
        serde_json::from_str(&place.run(["status", "--index", "x.db", "--json"]).expect(0).stdout).unwrap();
    assert!(status["last_change"].as_u64().unwrap() > 0);
}
