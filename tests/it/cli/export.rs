//! `dcmdex export`: typed tables, as programs for tables read them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::declared::{sequence, write_file};
use super::*;
use crate::util::objects;
use crate::util::peers::python_peer;
use crate::util::scripted::DataSet;

/// An index over a few studies, one of them with values that do not fit their types.
fn place() -> Place {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    for (number, date, time, description) in
        [(1, "20240131", "103000.5", "=1+1"), (2, "20231224", "1030", "Thorax, nativ"), (3, "202413", "99", "")]
    {
        let elements: &[(u16, u16, &[u8; 2], &str)] =
            &[(0x0008, 0x0020, b"DA", date), (0x0008, 0x0030, b"TM", time), (0x0008, 0x1030, b"LO", description)];
        let file = place.path(format!("archive/{number}.dcm"));
        fs::write(file, objects::file_with(number, elements)).unwrap();
    }
    place.run(["scan", "--index", "x.db", "archive"]);
    place
}

fn export<'a>(place: &Place, arguments: impl IntoIterator<Item = &'a str>) -> Run {
    place.run(["export", "--index", "x.db"].into_iter().chain(arguments))
}

/// Reads a table with DuckDB, pandas and polars. `None` if they are not installed.
fn read(place: &Place, file: &str, columns: &str) -> Option<Value> {
    let script = place.path("have.py");
    fs::write(&script, "import duckdb, pandas, polars").unwrap();
    if !run(&mut python_peer(&script)?).stderr.is_empty() {
        println!("SKIPPED: no duckdb, pandas and polars");
        return None;
    }
    let read = run(python_peer("tables.py")?.current_dir(place.path("")).args([file, columns])).expect(0);
    Some(serde_json::from_str(&read.stdout).unwrap())
}

const COLUMNS: &str =
    "study_date,study_time,study_description,modalities_in_study,number_of_study_related_instances,_raw";

#[test]
fn programs_read_parquet_with_the_right_types() {
    let place = place();
    export(&place, ["--out", "studies.parquet"]).expect(0);
    let Some(read) = read(&place, "studies.parquet", COLUMNS) else { return };
    assert_eq!(read["duckdb"]["types"], json!(["DATE", "TIME", "VARCHAR", "VARCHAR[]", "BIGINT", "VARCHAR"]));
    assert_eq!(
        read["duckdb"]["rows"],
        json!([
            ["2023-12-24", "10:30:00", "Thorax, nativ", "['CT']", "1", "{\"study_time\":\"1030\"}"],
            ["2024-01-31", "10:30:00.500000", "=1+1", "['CT']", "1", "None"],
            ["None", "None", "None", "['CT']", "1", "{\"study_date\":\"202413\",\"study_time\":\"99\"}"],
        ])
    );
    assert_eq!(read["polars"]["types"], json!(["Date", "Time", "String", "List(String)", "Int64", "String"]));
    let types = read["pandas"]["types"].as_array().unwrap();
    assert_eq!(types[0], "date32[day][pyarrow]");
    assert!(types[1].as_str().unwrap().starts_with("time64[us]") && types[4] == "int64[pyarrow]", "{types:?}");
    assert!(types[3].as_str().unwrap().starts_with("list<"), "{types:?}");
}

#[test]
fn programs_read_csv_and_ndjson_with_the_right_types() {
    let place = place();
    export(&place, ["--out", "studies.csv"]).expect(0);
    export(&place, ["--out", "studies.ndjson"]).expect(0);
    let columns = "study_date,study_time,study_description,number_of_study_related_instances";
    let Some(csv) = read(&place, "studies.csv", columns) else { return };
    assert_eq!(csv["duckdb"]["types"], json!(["DATE", "TIME", "VARCHAR", "BIGINT"]));
    assert_eq!(csv["polars"]["types"], json!(["Date", "Time", "String", "Int64"]));
    assert!(csv["pandas"]["types"][0].as_str().unwrap().starts_with("datetime64"), "{csv}");
    let ndjson = read(&place, "studies.ndjson", &format!("{columns},modalities_in_study,_raw")).unwrap();
    assert_eq!(ndjson["duckdb"]["types"][0], "DATE");
    assert_eq!(ndjson["polars"]["types"][3], "Int64");
    assert_eq!(ndjson["polars"]["types"][4], "List(String)");
    assert_eq!(ndjson["pandas"]["rows"], 3);
}

#[test]
fn each_level_has_its_attributes_and_an_instance_has_its_path() {
    let place = place();
    for (level, column) in [("PATIENT", "number_of_patient_related_studies"), ("SERIES", "series_instance_uid")] {
        let rows = export(&place, ["--level", level, "--format", "ndjson"]).expect(0).json();
        assert!(!rows.is_empty() && rows.iter().all(|row| !row[column].is_null()), "{level}: {rows:?}");
    }
    let rows = export(&place, ["--level", "IMAGE", "--format", "ndjson", "StudyInstanceUID=1.2.1"]).expect(0).json();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let path = place.path("archive/1.dcm");
    assert_eq!(row["path"], path.to_str().unwrap());
    assert_eq!(row["size"], fs::metadata(path).unwrap().len());
    assert_eq!(row["instance_number"], 1);
    assert!(row["mtime"].as_str().unwrap().ends_with('Z'), "{row}");
}

#[test]
fn a_sequence_is_json_in_each_format() {
    let place = Place::new();
    let request = DataSet::default().text(0x0032, 0x1060, "Thorax, \"PA\"").text(0x0040, 0x0009, "SPS1");
    let object = DataSet::default()
        .uid(0x0008, 0x0016, objects::SOP_CLASS)
        .uid(0x0008, 0x0018, "1.2.1.1.1")
        .text(0x0008, 0x0060, "CT")
        .text(0x0010, 0x0020, "P1")
        .uid(0x0020, 0x000D, "1.2.1")
        .uid(0x0020, 0x000E, "1.2.1.1")
        .bytes(0x0040, 0x0275, &sequence(&[request]));
    write_file(&place, "1.dcm", &object);
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    let expected = json!([{
        "00321060": {"vr": "LO", "Value": ["Thorax, \"PA\""]}, "00400009": {"vr": "SH", "Value": ["SPS1"]},
    }]);
    let columns = ["--level", "SERIES", "--columns", "SeriesInstanceUID,RequestAttributesSequence"];
    let table = |more: [&'static str; 2]| export(&place, columns.into_iter().chain(more)).expect(0);
    let row = &table(["--format", "ndjson"]).json()[0];
    assert_eq!(row["request_attributes_sequence"], expected, "JSON, and no text of it");
    let text = table(["--format", "csv"]).stdout;
    let of_csv = csv::Reader::from_reader(text.as_bytes()).records().next().unwrap().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&of_csv[1]).unwrap(), expected, "{text}");
    table(["--out", "series.parquet"]);
    let Some(read) = read(&place, "series.parquet", "series_instance_uid,request_attributes_sequence") else { return };
    let of_parquet = read["duckdb"]["rows"][0][1].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(of_parquet).unwrap(), expected);
    assert_eq!(read["polars"]["types"], json!(["String", "String"]));
}

// PS3.5 table 6.2-1, DT.
#[test]
fn a_moment_is_as_the_clock_showed_it_and_in_utc() {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    for (number, moment, zone) in [
        (1, "20240101120000.5+0530", "+0100"),
        (2, "20240101003000", "+0100"),
        (3, "20240101003000", ""),
        (4, "2024", "+0100"),
    ] {
        let elements: &[(u16, u16, &[u8; 2], &str)] = &[(0x0008, 0x002A, b"DT", moment), (0x0008, 0x0201, b"SH", zone)];
        fs::write(place.path(format!("archive/{number}.dcm")), objects::file_with(number, elements)).unwrap();
    }
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    let columns = ["--level", "IMAGE", "--columns", "StudyInstanceUID,AcquisitionDateTime"];
    let table = |more: [&'static str; 2]| export(&place, columns.into_iter().chain(more)).expect(0);
    let mut rows = table(["--format", "ndjson"]).json();
    rows.sort_by_key(|row| row["study_instance_uid"].to_string());
    let of = |name: &str| rows.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
    let local = [json!("2024-01-01T12:00:00.500000"), json!("2024-01-01T00:30:00"), json!("2024-01-01T00:30:00")];
    assert_eq!(of("acquisition_date_time"), [&local[..], &[Value::Null]].concat());
    let in_utc = [json!("2024-01-01T06:30:00.500Z"), json!("2023-12-31T23:30:00Z"), Value::Null, Value::Null];
    assert_eq!(of("acquisition_date_time_utc"), in_utc);
}

#[test]
fn a_copy_that_is_still_there_has_the_path() {
    let place = place();
    fs::create_dir(place.path("archive/second")).unwrap();
    fs::copy(place.path("archive/1.dcm"), place.path("archive/second/1.dcm")).unwrap();
    place.run(["scan", "--index", "x.db", "archive"]);
    fs::remove_file(place.path("archive/1.dcm")).unwrap();
    place.run(["scan", "--index", "x.db", "archive"]);
    let rows = export(&place, ["--level", "IMAGE", "--format", "ndjson", "StudyInstanceUID=1.2.1"]).expect(0).json();
    assert_eq!(rows[0]["path"], place.path("archive/second/1.dcm").to_str().unwrap());
}

#[test]
fn named_columns_are_the_only_ones_and_formulas_are_defused_on_request() {
    let place = place();
    let columns = ["--columns", "StudyDescription,StudyDate", "StudyDate=2024"];
    let csv = export(&place, columns).expect(0).stdout;
    assert_eq!(csv, "study_description,study_date,_raw\r\n=1+1,2024-01-31,\r\n");
    let defused = export(&place, columns.into_iter().chain(["--defuse-formulas"])).expect(0).stdout;
    assert_eq!(defused, "study_description,study_date,_raw\r\n'=1+1,2024-01-31,\r\n");
    let other = export(&place, ["--defuse-formulas", "--format", "ndjson"]).expect(2);
    assert!(other.stderr.contains("CSV"), "{other:?}");
}

#[test]
fn a_name_that_is_that_of_another_format_is_refused() {
    let place = place();
    let refused = export(&place, ["--out", "studies.xlsx"]).expect(2);
    assert!(refused.stderr.contains("--format csv") && !place.path("studies.xlsx").exists(), "{refused:?}");
    export(&place, ["--out", "studies.xlsx", "--format", "csv"]).expect(0);
    export(&place, ["--out", "studies"]).expect(0);
}

#[test]
fn an_export_goes_on_where_the_last_one_ended() {
    let place = place();
    let first = export(&place, ["--format", "ndjson"]).expect(0);
    let number = first.stderr.split("--since ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let nothing = export(&place, ["--format", "csv", "--since", &number]).expect(1);
    assert_eq!(nothing.stdout.lines().count(), 1, "{nothing:?}");
    objects::write(&place.path("archive/new.dcm"), 9, 1, 1);
    place.run(["scan", "--index", "x.db", "archive"]);
    let next = export(&place, ["--format", "ndjson", "--since", &number]).expect(0).json();
    assert_eq!(next.iter().map(|row| row["study_instance_uid"].as_str().unwrap()).collect::<Vec<_>>(), ["1.2.9"]);
}

#[test]
fn partitions_are_directories_that_hold_every_row_once() {
    let place = place();
    for (by, name) in [("study-year", "years"), ("study-month", "months"), ("StudyInstanceUID", "uids")] {
        export(&place, ["--out", name, "--partition-by", by, "--format", "parquet"]).expect(0);
    }
    let names = |directory: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(place.path(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let years = ["study_year=2023", "study_year=2024", "study_year=__HIVE_DEFAULT_PARTITION__"];
    assert_eq!(names("years"), years.map(str::to_owned).into());
    assert!(names("months").contains("study_month=2024-01"));
    assert_eq!(names("uids").len(), 3);
    assert!(names("").iter().all(|name| !name.contains("partial")));
    let again = export(&place, ["--out", "years", "--partition-by", "study-year"]).expect(2);
    assert!(again.stderr.contains("not an empty directory"), "{again:?}");
    if let Some(read) = read(&place, "years/*/*.parquet", "study_instance_uid,study_date") {
        assert_eq!(read["duckdb"]["rows"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn a_pseudonym_is_stable_and_says_nothing_of_the_patient() {
    let place = place();
    let arguments = ["--level", "IMAGE", "--format", "ndjson", "--pseudonymise", "key"];
    let one = export(&place, arguments).expect(0);
    assert_eq!(fs::metadata(place.path("key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(one.stdout, export(&place, arguments).expect(0).stdout);
    for secret in
        ["P1", "Test", "\"1.2.1", "2024-01-31", "2023-12-24", "103000", "10:30", "Thorax", "archive", "202413"]
    {
        assert!(!one.stdout.contains(secret), "{secret}: {}", one.stdout);
    }
    // The days between two studies of a patient stay.
    let days: Vec<i64> = one.json().iter().filter_map(|row| row["study_date"].as_str().map(day_number)).collect();
    assert_eq!(days[0] - days[1], 38, "{days:?}");
    let ids: BTreeSet<String> = one.json().iter().map(|row| row["patient_id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    // Each level has the same pseudonyms.
    let series = export(&place, ["--level", "SERIES", "--format", "ndjson", "--pseudonymise", "key"]).expect(0);
    assert_eq!(series.json()[0]["series_instance_uid"], one.json()[0]["series_instance_uid"]);
    let other = export(&place, ["--level", "IMAGE", "--format", "ndjson", "--pseudonymise", "other"]).expect(0);
    assert_ne!(one.stdout, other.stdout);
}

/// Days since 1970 of `2024-01-31`.
fn day_number(text: &str) -> i64 {
    let part = |range: std::ops::Range<usize>| text[range].parse().unwrap();
    dcmdex::model::calendar::days_before(part(0..4), part(5..7), part(8..10))
}

#[test]
fn a_column_that_may_identify_needs_to_be_named_as_plain() {
    let place = place();
    let refused = export(&place, ["--columns", "StudyDescription", "--pseudonymise", "key"]).expect(2);
    assert!(refused.stderr.contains("--plain StudyDescription"), "{refused:?}");
    let plain = export(&place, ["--pseudonymise", "key", "--plain", "StudyDescription", "StudyDate=2023"]).expect(0);
    assert!(plain.stdout.contains("Thorax, nativ") && !plain.stdout.contains("2023-12-24"), "{plain:?}");
    fs::set_permissions(place.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let open = export(&place, ["--pseudonymise", "key"]).expect(2);
    assert!(open.stderr.contains("chmod 600"), "{open:?}");
}

#[test]
fn what_cannot_be_written_leaves_nothing_under_the_final_name() {
    let place = place();
    fs::write(place.path("old.csv"), "old").unwrap();
    fs::create_dir(place.path("old.csv.partial")).unwrap();
    let failed = export(&place, ["--out", "old.csv"]).expect(2);
    assert!(failed.stderr.contains("old.csv"), "{failed:?}");
    assert_eq!(fs::read_to_string(place.path("old.csv")).unwrap(), "old");
    export(&place, ["--out", "none/x.csv"]).expect(2);
    assert!(export(&place, ["--out", "x.db"]).expect(2).stderr.contains("is the index"));
    let full = run(place.command().args(["export", "--index", "x.db"]).stdout(fs::File::create("/dev/full").unwrap()));
    assert!(full.code == 2 && full.stderr.contains("standard output"), "{full:?}");
    // One that was killed left its file. The next one overwrites it.
    fs::write(place.path("new.csv.partial"), vec![b'x'; 100_000]).unwrap();
    export(&place, ["--out", "new.csv"]).expect(0);
    assert!(fs::read_to_string(place.path("new.csv")).unwrap().starts_with("patient_name"));
    assert!(!place.path("new.csv.partial").exists());
}
