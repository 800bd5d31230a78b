//! `dcmdex find`: the same engine as C-FIND, in five formats.

use std::fs;

use serde_json::json;

use super::declared::{sequence, write_file};
use super::*;
use crate::util::objects;
use crate::util::scripted::DataSet;

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
fn json_and_ndjson_say_the_same_with_keywords_in_the_order_asked() {
    let place = archive();
    let keys = ["--level", "STUDY", "StudyInstanceUID", "PatientName=Müller*", "00080020", "ProcedureCodeSequence"];
    let ndjson = find(&place, &[&["--format", "ndjson"][..], &keys].concat()).expect(0);
    let json = find(&place, &[&["--format", "json"][..], &keys].concat()).expect(0);
    let array: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(array.as_array().unwrap(), &ndjson.json());
    assert_eq!(ndjson.json().len(), 2);
    let names: Vec<_> = ndjson.json()[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["StudyInstanceUID", "PatientName", "StudyDate", "ProcedureCodeSequence"]);
    assert!(ndjson.json().iter().all(|study| study["PatientName"] == "Müller^Änne"));
    assert!(ndjson.json().iter().all(|study| study["ProcedureCodeSequence"].is_array()), "{ndjson:?}");
}

/// An object of series `1.2.1.NUMBER`. The bytes follow Series Instance UID.
fn of_series(number: u8, request_attributes: &[u8]) -> DataSet {
    let mut data_set = DataSet::default()
        .uid(0x0008, 0x0016, objects::SOP_CLASS)
        .uid(0x0008, 0x0018, &format!("1.2.1.{number}.1"))
        .text(0x0010, 0x0020, "P1")
        .uid(0x0020, 0x000D, "1.2.1")
        .uid(0x0020, 0x000E, &format!("1.2.1.{number}"));
    data_set.0.extend_from_slice(request_attributes);
    data_set
}

#[test]
fn a_study_has_one_sequence_with_the_items_of_all_its_series() {
    let place = Place::new();
    let steps = |steps: &[&str]| {
        let items: Vec<_> = steps.iter().map(|step| DataSet::default().text(0x0040, 0x0009, step)).collect();
        DataSet::default().bytes(0x0040, 0x0275, &sequence(&items)).0
    };
    write_file(&place, "1.dcm", &of_series(1, &steps(&["S2", "S1"])));
    write_file(&place, "2.dcm", &of_series(2, &steps(&["S1", "S3"])));
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    let item = |step: &str| json!({"00400009": {"vr": "SH", "Value": [step]}});
    let expected = json!([item("S1"), item("S2"), item("S3")]);
    for format in ["ndjson", "dicom-json"] {
        let found = find(&place, &["--format", format, "--columns", "RequestAttributesSequence"]).expect(0);
        let found = match format {
            "ndjson" => found.json()[0]["RequestAttributesSequence"].clone(),
            _ => serde_json::from_str::<serde_json::Value>(&found.stdout).unwrap()[0]["00400275"]["Value"].clone(),
        };
        assert_eq!(found, expected, "{format}");
    }
    let csv = find(&place, &["--format", "csv", "--columns", "RequestAttributesSequence"]).expect(0).stdout;
    let cell = csv::Reader::from_reader(csv.as_bytes()).records().next().unwrap().unwrap()[0].to_owned();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&cell).unwrap(), expected, "{cell}");
    let columns = ["export", "--index", "x.db", "--columns", "RequestAttributesSequence", "--format", "ndjson"];
    assert_eq!(place.run(columns).expect(0).json()[0]["request_attributes_sequence"], expected);
}

// PS3.5 7.5.2: both are sequences without items.
#[test]
fn an_empty_sequence_is_empty_in_either_encoding() {
    let place = Place::new();
    let of_undefined_length = b"\x40\0\x75\x02\xFF\xFF\xFF\xFF\xFE\xFF\xDD\xE0\0\0\0\0";
    write_file(&place, "1.dcm", &of_series(1, of_undefined_length));
    write_file(&place, "2.dcm", &of_series(2, &DataSet::default().bytes(0x0040, 0x0275, b"").0));
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    let found = find(
        &place,
        &["--level", "SERIES", "--format", "csv", "--columns", "SeriesInstanceUID,RequestAttributesSequence"],
    );
    assert_eq!(found.expect(0).stdout, "SeriesInstanceUID,RequestAttributesSequence\r\n1.2.1.1,\r\n1.2.1.2,\r\n");
}

// PS3.5 6.2: padding and old forms are those of the VR in PS3.6.
#[test]
fn values_under_another_vr_of_text_are_found_like_those_under_their_own() {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    let elements: &[(u16, u16, &[u8; 2], &str)] = &[
        (0x0008, 0x0020, b"LO", "1997.04.24"),
        (0x0008, 0x0030, b"SH", "10:15:00"),
        (0x0008, 0x0050, b"ST", "  ACC2"),
        (0x0008, 0x1030, b"LT", "  Thorax"),
        (0x0008, 0x0090, b"LO", "Doe^John^^"),
    ];
    fs::write(place.path("archive/1.dcm"), objects::file_with(1, elements)).unwrap();
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    for key in [
        "StudyDate=19970424",
        "StudyDate=19970101-19971231",
        "StudyTime=1015",
        "AccessionNumber=ACC2",
        "StudyDescription=Thorax",
        "ReferringPhysicianName=Doe^John",
    ] {
        assert_eq!(find(&place, &["--format", "ndjson", key]).expect(0).json().len(), 1, "{key}");
    }
    let shown = ["StudyDate", "StudyTime", "AccessionNumber", "StudyDescription", "ReferringPhysicianName"];
    let row = find(&place, &["--format", "csv", "--columns", &shown.join(",")]).expect(0).stdout;
    assert_eq!(row.lines().nth(1), Some("19970424,101500,ACC2,Thorax,Doe^John"));
}

#[test]
fn a_key_is_read_as_in_an_identifier() {
    let place = archive();
    let found = |key: &str| find(&place, &["--format", "ndjson", key]).stdout;
    let all = found("StudyDate=20230314");
    assert!(!all.is_empty());
    for key in ["StudyDate=2023/03/14", "StudyDate=2023.03.14", "StudyDate= 20230314 "] {
        assert_eq!(found(key), all, "{key}");
    }
}

#[test]
fn the_character_set_of_objects_is_refused_with_the_way_to_it() {
    let place = archive();
    for key in ["SpecificCharacterSet", "SpecificCharacterSet=ISO_IR 100"] {
        let run = find(&place, &["--level", "IMAGE", key]).expect(2);
        assert!(run.stderr.contains("SpecificCharacterSet") && run.stderr.contains("`instances`"), "{run:?}");
    }
}

#[test]
fn csv_is_rfc_4180() {
    let place = archive();
    let run = find(&place, &["--format", "csv", "StudyDescription", "PatientID=TK-2002"]).expect(0);
    let lines: Vec<_> = run.stdout.split("\r\n").collect();
    assert_eq!(lines[..2], ["StudyDescription,PatientID", "\"MR head, plain\",TK-2002"]);
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

/// Runs `find` with one key, which has to be refused.
fn refused(place: &Place, arguments: &[&str]) -> String {
    let run = find(place, arguments).expect(2);
    assert_eq!(run.stdout, "", "{run:?}");
    run.stderr
}

#[test]
fn a_key_with_two_values_is_refused_however_it_is_written() {
    let place = archive();
    for keys in [
        ["PatientID=A", "PatientID=B"],
        ["PatientID=A", "0010,0020=B"],
        ["StudyDate=2016-", "studydate=-2010"],
        ["ProcedureCodeSequence.CodeValue=A", "00081032.00080100=B"],
        ["received=today", "received=yesterday"],
    ] {
        assert!(refused(&place, &keys).contains("given twice"), "{keys:?}");
        let removed = place.run(["remove", "--index", "x.db", keys[0], keys[1]]).expect(2);
        assert!(removed.stderr.contains("given twice"), "{removed:?}");
    }
    // A second mention without a value, or with the same one, takes nothing away.
    find(&place, &["PatientID=A", "PatientID", "PatientID=A"]).expect(1);
}

#[test]
fn a_key_that_the_index_cannot_answer_is_refused_with_the_way_out() {
    let place = archive();
    for key in ["SliceThickness=1", "SliceThickness", "0018,0050=1", "WindowCenter=40"] {
        let said = refused(&place, &[key]);
        assert!(said.contains("the index does not keep") && said.contains("[[attribute]]"), "{key}: {said}");
    }
    assert!(refused(&place, &["SliceThickness=1"]).contains("SliceThickness"));
    let said = refused(&place, &["--level", "PATIENT", "StudyDescription"]);
    assert!(said.contains("StudyDescription belongs to STUDY; hint: --level STUDY"), "{said}");
    let said = refused(&place, &["SOPInstanceUID"]);
    assert!(said.contains("belongs to IMAGE"), "{said}");
    let said = refused(&place, &["path"]);
    assert!(said.contains("--level IMAGE"), "{said}");
    for key in ["StudyStatusID=X", "InstanceAvailability=ONLINE", "path=/x"] {
        let said = refused(&place, &["--level", "IMAGE", key]);
        assert!(said.contains("cannot be matched"), "{key}: {said}");
    }
    // Below the level it narrows the answers, and has no place in them.
    let run = find(&place, &["SOPClassUID=1.2.840.10008.5.1.4.1.1.2", "StudyInstanceUID"]).expect(0);
    assert!(run.stderr.is_empty() && run.stdout.starts_with("StudyInstanceUID\n"), "{run:?}");
}

#[test]
fn a_declared_attribute_that_no_scan_has_read_is_refused() {
    let place = Place::new();
    let scan = || place.run(["scan", "--index", "x.db", &fixtures("archive")]).expect(1);
    scan();
    let declared = "[[attribute]]\npath = \"SliceThickness\"\nlevel = \"SERIES\"\n";
    std::fs::write(place.path("dcmdex.toml"), declared).unwrap();
    for key in ["SliceThickness=5", "SliceThickness"] {
        let said = refused(&place, &["--level", "SERIES", key]);
        assert!(said.contains("has been read for SliceThickness") && said.contains("scan again"), "{said}");
    }
    let said = refused(&place, &["--level", "PATIENT", "SliceThickness"]);
    assert!(said.contains("belongs to SERIES"), "{said}");
    scan();
    let run = find(&place, &["--level", "SERIES", "SliceThickness", "--limit", "1"]).expect(0);
    assert!(run.stdout.starts_with("SliceThickness"), "{run:?}");
    // A part of the archive has been read before something else was declared.
    let more = format!("{declared}\n[[attribute]]\npath = \"KVP\"\nlevel = \"SERIES\"\n");
    std::fs::write(place.path("dcmdex.toml"), more).unwrap();
    place.run(["scan", "--index", "x.db", &fixtures("archive/2023")]);
    find(&place, &["--level", "SERIES", "SliceThickness"]).expect(0);
}

#[test]
fn what_is_probably_meant_is_told() {
    let place = archive();
    for (key, said) in [
        ("StudyDate>2004", "StudyDate=2004-"),
        ("x.db", "--index x.db"),
        ("a.db", "--index a.db"),
        ("received", "received=today"),
    ] {
        assert!(refused(&place, &[key]).contains(said), "{key}: {}", refused(&place, &[key]));
    }
    let said = refused(&place, &["StudyDate=2024-13-01-"]);
    assert!(said.contains("StudyDate: write a date as 2004-01-31") && !said.contains("2024-13"), "{said}");
}

#[test]
fn nothing_matched_is_said_with_a_hint_where_one_fits() {
    let place = archive();
    for (key, hint) in [
        ("PatientID=NOBODY-7", "with its case"),
        ("PatientAge=030Y-060Y", "no ranges"),
        ("ModalitiesInStudy=CT,MR", "backslash"),
        ("ModalitiesInStudy=ct", "in capitals"),
        ("StudyDate=gestern", "2004-01-31"),
        ("StudyDate=20241301", "2004-01-31"),
        ("StudyInstanceUID=1.2*", "no wild cards"),
    ] {
        let run = find(&place, &[key]).expect(1);
        assert!(run.stderr.starts_with("nothing matched; hint: ") && run.stderr.contains(hint), "{key}: {run:?}");
        assert_eq!((run.stdout.as_str(), run.stderr.lines().count()), ("", 1), "{key}");
        assert_eq!(find(&place, &["-q", key]).expect(1).stderr, "", "{key}");
    }
    let run = find(&place, &["StudyDate=2031", "Modality=CT"]).expect(1);
    assert_eq!(run.stderr, "nothing matched\n");
    let empty = Place::new();
    std::fs::create_dir(empty.path("nothing")).unwrap();
    empty.run(["scan", "--index", "x.db", "nothing"]).expect(0);
    assert!(find(&empty, &["StudyDate=2031"]).expect(1).stderr.contains("the index is empty"));
}

#[test]
fn dates_are_taken_as_people_write_them() {
    let place = archive();
    let dates = |keys: &[&str]| {
        let run = find(&place, &[&["--format", "csv", "--columns", "StudyDate", "--sort", "StudyDate"], keys].concat());
        run.stdout.split("\r\n").skip(1).filter(|date| !date.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let all = dates(&[]);
    assert!(all.len() > 3, "{all:?}");
    let within = |from: &str, to: &str| -> Vec<String> {
        all.iter().filter(|date| (from..=to).contains(&date.as_str())).cloned().collect()
    };
    let (year, day) = (&all[0][..4], &all[0]);
    let hyphens = format!("{}-{}-{}", &day[..4], &day[4..6], &day[6..]);
    assert_eq!(dates(&[&format!("StudyDate={hyphens}")]), within(day, day));
    assert_eq!(dates(&[&format!("StudyDate={}", &hyphens[..7])]), within(&day[..6], &format!("{}99", &day[..6])));
    assert_eq!(dates(&[&format!("StudyDate={year}")]), within(year, &format!("{year}9999")));
    assert_eq!(dates(&[&format!("StudyDate={hyphens}..")]), all);
    assert_eq!(dates(&[&format!("StudyDate=..{hyphens}")]), within("", day));
    assert_eq!(dates(&["StudyDate=1900-01-01..today"]), all);
    assert_eq!(dates(&["StudyDate=today-100y.."]), all);
    assert_eq!(dates(&["StudyDate=19000101-99999999"]), all);
}

#[test]
fn columns_come_as_asked_sorted_and_limited() {
    let place = archive();
    let lines = |arguments: &[&str]| {
        let run = find(&place, &[&["--format", "csv"], arguments].concat()).expect(0);
        (run.stdout.split("\r\n").filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>(), run.stderr)
    };
    let (all, said) = lines(&["NumberOfStudyRelatedInstances", "StudyInstanceUID"]);
    assert_eq!((all[0].as_str(), said.as_str()), ("NumberOfStudyRelatedInstances,StudyInstanceUID", ""));
    let number = |line: &String| line.split(',').next().unwrap().parse::<u64>().unwrap();
    let mut expected: Vec<u64> = all[1..].iter().map(number).collect();
    expected.sort_unstable_by(|one, other| other.cmp(one));
    let sort = ["--sort", "NumberOfStudyRelatedInstances:desc"];
    let (sorted, _) = lines(&[&sort[..], &["NumberOfStudyRelatedInstances"]].concat());
    assert_eq!(sorted[1..].iter().map(number).collect::<Vec<_>>(), expected);
    // The column that decides the order need not be shown.
    let (first, said) = lines(&[&sort[..], &["--limit", "2", "--columns", "StudyInstanceUID"]].concat());
    assert_eq!((first.len(), first[0].as_str()), (3, "StudyInstanceUID"));
    assert!(said.contains("more than 2") && said.contains("--limit"), "{said}");
    let (first, said) = lines(&["--limit", "6", "StudyInstanceUID"]);
    assert_eq!((first.len(), said.as_str()), (7, ""));
    assert_eq!(lines(&["--limit", "2", "StudyInstanceUID"]).0, first[..3]);
    assert!(refused(&place, &["--sort", "StudyDate:down"]).contains("KEY:desc"));
    assert!(refused(&place, &["--sort", "-StudyDate"]).contains("hint: `--sort StudyDate:desc`"));
    assert!(refused(&place, &["--columns", "SliceThickness"]).contains("does not keep"));
    find(&place, &["--limit", "0"]).expect(2);
}

#[test]
fn an_instance_is_answered_with_its_file() {
    let place = archive();
    let run = find(&place, &["--level", "IMAGE", "--format", "ndjson", "SOPInstanceUID", "path", "size", "mtime"]);
    let answers = run.expect(0).json();
    assert_eq!(answers.len(), 33);
    let mut paths = std::collections::BTreeSet::new();
    for answer in &answers {
        let path = answer["path"].as_str().unwrap();
        paths.insert(path.to_owned());
        // A member of an archive file has the size of the member.
        if !path.contains("!/") {
            assert_eq!(std::fs::metadata(path).unwrap().len(), answer["size"].as_u64().unwrap(), "{answer}");
        }
        assert!(answer["mtime"].as_str().unwrap().ends_with('Z'), "{answer}");
    }
    assert_eq!(paths.len(), 33);
    let run = find(&place, &["--level", "IMAGE", "--sort", "size:desc", "--format", "csv", "size"]).expect(0);
    let sizes: Vec<u64> = run.stdout.lines().skip(1).map(|line| line.trim().parse().unwrap()).collect();
    assert!(sizes.is_sorted_by(|one, other| one >= other) && sizes[0] > sizes[32], "{sizes:?}");
}

#[test]
fn dicom_json_is_that_of_the_standard() {
    let place = archive();
    let run = find(&place, &["--format", "dicom-json", "PatientName=Müller*", "ModalitiesInStudy"]).expect(0);
    let answers: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(answers.as_array().unwrap().len(), 2);
    assert_eq!(answers[0]["00100010"]["Value"][0]["Alphabetic"], "Müller^Änne");
    assert_eq!(answers[0]["00080061"]["vr"], "CS");
    assert!(answers[0].get("00081190").is_none(), "{run:?}");
    assert_eq!(find(&place, &["--format", "dicom-json", "StudyDate=2031"]).expect(1).stdout, "[]\n");
    let said = refused(&place, &["--format", "dicom-json", "--level", "IMAGE", "path"]);
    assert!(said.contains("--format json"), "{said}");
}

#[test]
fn a_table_fits_the_terminal() {
    let place = archive();
    for columns in [60, 80, 100, 200] {
        let arguments = ["find", "--index", "x.db"];
        let (code, shown) = crate::util::terminal::run(place.command().args(arguments), columns);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!((code, lines.len()), (0, 7), "{shown}");
        assert!(lines[0].contains("\x1b[1mStudyDate") && lines[0].contains("PatientName"), "{shown}");
        for line in &lines {
            let plain = line.replace("\x1b[1m", "").replace("\x1b[0m", "");
            let width = unicode_width::UnicodeWidthStr::width(plain.trim_end_matches('\r'));
            assert!(width <= usize::from(columns), "{width} in {columns}: {shown}");
        }
        let (_, plain) = crate::util::terminal::run(place.command().args(arguments).env("NO_COLOR", "1"), columns);
        assert!(!plain.contains('\x1b'), "{plain}");
    }
    // Through a pipe, values are whole and there are no colours.
    let run = find(&place, &["StudyInstanceUID", "StudyDescription"]).expect(0);
    assert!(!run.stdout.contains(['…', '\x1b']), "{run:?}");
}

#[test]
fn the_help_of_find_explains_the_keys() {
    let place = Place::new();
    let help = place.run(["find", "--help"]).expect(0).stdout;
    for part in ["KEY=VALUE", "today-7d", "Examples:", "--sort", r"CT\MR", "path  size  mtime"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn what_has_come_is_found_by_when_and_by_the_number_of_the_change() {
    let place = Place::new();
    place.run(["scan", "--index", "x.db", &fixtures("archive")]).expect(1);
    let find = |key: &str| place.run(["find", "--index", "x.db", key]);
    for key in ["received=24h", "received=2020-01-01..", "since=0"] {
        let run = find(key).expect(0);
        assert!(run.stdout.starts_with("StudyDate") && run.stdout.contains("PatientName"), "{run:?}");
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

#[test]
fn two_quotation_marks_find_what_has_no_value() {
    let place = archive();
    let parts = |key: &str| {
        let run = find(&place, &["--level", "SERIES", "--format", "csv", key]).expect(0);
        run.stdout.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let all = parts("BodyPartExamined");
    let without = parts("BodyPartExamined=\"\"");
    assert!(!without.is_empty() && without.len() < all.len(), "{without:?} of {all:?}");
    let series =
        |key: &str| find(&place, &["--level", "SERIES", "--columns", "BodyPartExamined", key]).expect(0).stdout;
    assert!(series("BodyPartExamined=\"\"").lines().skip(1).all(|line| line.trim().is_empty()));
}
