//! Fills an index with generated records through the real writer, without files.
//!
//! It shows what a row costs in time and in bytes.
//!
//! ```text
//! cargo run --release -p dcmdex-bench --bin indexload -- INDEX INSTANCES \
//!     [PER_SERIES [SERIES_PER_STUDY [STUDIES_PER_PATIENT]]]
//! ```
//!
//! - Each series has a directory of its own. Defaults: 76 instances in a series, 5 series in a
//!   study, 3 studies for a patient. `1000000 1 1 1` makes a million patients.
//! - SOP Instance UIDs: 40 % count at the end, 30 % hold a time as Siemens writes them, 30 % are
//!   random digits.
//! - 60 % of the file names follow from the UID.
//! - Content and acquisition times differ from slice to slice.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for measuring")]

use std::path::Path;
use std::time::Instant;

use dcmdex::db::open::{Reader, Writer, WriterOptions};
use dcmdex::db::{Admin, Arrivals, Durability, FileOutcome, ScannedDirectory, ScannedFile};
use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::location::Place;
use dcmdex::model::record::InstanceRecord;

const FAMILY_NAMES: &[&str] =
    &["Smith", "Müller", "Garcia", "Kowalski", "Nguyen", "Okafor", "Rossi", "Ivanova", "山田", "Kim"];
const GIVEN_NAMES: &[&str] = &["John", "Änne", "Maria", "Jan", "Linh", "Chidi", "Luca", "Olga", "太郎", "Min-jun"];

/// xorshift64*: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, index, instances, more @ ..] = arguments.as_slice() else {
        println!("usage: indexload INDEX INSTANCES [PER_SERIES [SERIES_PER_STUDY [STUDIES_PER_PATIENT]]]");
        return;
    };
    let instances: u64 = instances.parse().unwrap();
    let number = |at: usize, default: u64| more.get(at).map_or(default, |text: &String| text.parse().unwrap());
    let (per_series, shape) =
        (number(0, 76), Shape { series_per_study: number(1, 5), studies_per_patient: number(2, 3) });
    let index = Path::new(index);
    let options = WriterOptions { durability: Durability::Os, queue_length: 16, ..WriterOptions::default() };
    let writer = Writer::open(index, options).unwrap();
    let handle = writer.handle();
    let mut random = Random(0x00DC_DE5C);
    let started = Instant::now();
    let mut done = 0;
    let mut series = 0;
    let mut next_report = 1_000_000;
    while done < instances {
        let count = per_series.min(instances - done);
        handle.scanned(one_series(&mut random, shape, series, count)).unwrap();
        done += count;
        series += 1;
        if done >= next_report {
            handle.flush().unwrap();
            let size = size_of(index);
            let seconds = started.elapsed().as_secs_f64();
            println!(
                "{done} instances, {:.0} rows/s so far, {:.1} bytes each",
                done as f64 / seconds,
                size as f64 / done as f64
            );
            next_report += 1_000_000;
        }
    }
    handle.flush().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    writer.close().unwrap();
    let size = size_of(index);
    println!(
        "{instances} instances, {series} series: {seconds:.2} s, {:.0} rows/s, {:.1} bytes each",
        instances as f64 / seconds,
        size as f64 / instances as f64
    );
}

/// Bytes of an index file, or of the tables in a database.
fn size_of(index: &Path) -> u64 {
    std::fs::metadata(index)
        .map_or_else(|_| Reader::open(index).unwrap().status().unwrap().size_bytes, |file| file.len())
}

#[derive(Clone, Copy)]
struct Shape {
    series_per_study: u64,
    studies_per_patient: u64,
}

fn one_series(random: &mut Random, shape: Shape, series: u64, count: u64) -> ScannedDirectory {
    let study = series / shape.series_per_study;
    let patient = study / shape.studies_per_patient;
    let modality = ["CT", "MR", "CR", "US", "MR"][usize::try_from(series % 5).unwrap()];
    let pick = |list: &[&'static str], number: u64| list[usize::try_from(number % list.len() as u64).unwrap()];
    let name = format!(
        "{}{}^{}",
        pick(FAMILY_NAMES, patient * 7 + patient / 11),
        patient % 3571,
        pick(GIVEN_NAMES, patient * 3 + patient / 7)
    );
    let study_uid = format!("1.2.826.0.1.3680043.9.{}.{}", 1000 + patient, 20_000_000 + study);
    let kind = random.below(10);
    let series_uid = match kind {
        0..4 => format!("{study_uid}.{}", 1 + series % 5),
        4..7 => {
            format!("1.3.12.2.1107.5.1.4.{}.30000019{:012}", 50_000 + patient % 90, random.below(1_000_000_000_000))
        }
        _ => format!("2.25.{}{:018}", (random.next() >> 1) | 1 << 60, random.below(1_000_000_000_000_000_000)),
    };
    // 6,048 days.
    let date = format!("{}{:02}{:02}", 2005 + study % 18, 1 + study / 18 % 12, 1 + study / 216 % 28);
    let named_by_uid = random.below(10) < 6;
    let directory = format!("/archive/{}/{patient:07}/{study:08}/{}", 2005 + study % 18, 1 + series % 5);
    let files = (0..count).map(|n| {
        let uid = match kind {
            0..4 => format!("{series_uid}.{}", n + 1),
            4..7 => format!(
                "1.3.12.2.1107.5.1.4.{}.30000019{:012}{:05}",
                50_000 + patient % 90,
                random.below(1_000_000_000_000),
                n
            ),
            _ => format!("2.25.{}{:018}", (random.next() >> 1) | 1 << 60, random.below(1_000_000_000_000_000_000)),
        };
        let mut record = InstanceRecord::new();
        let seconds = 36_000 + n * 2;
        let time = |offset: u64| {
            let at = seconds + offset;
            format!("{:02}{:02}{:02}.{:06}", at / 3600 % 24, at / 60 % 60, at % 60, (at * 7919) % 1_000_000)
        };
        record.set(PatientID, &format!("PAT{patient:07}"));
        record.set(PatientName, &name);
        record.set(PatientBirthDate, &format!("{}0{}1{}", 1930 + patient % 80, 1 + patient % 9, patient % 10));
        record.set(PatientSex, if patient.is_multiple_of(2) { "F" } else { "M" });
        record.set(StudyInstanceUID, &study_uid);
        record.set(StudyDate, &date);
        record.set(StudyTime, "101500.000000");
        record.set(AccessionNumber, &format!("ACC{study:08}"));
        record.set(StudyID, &study.to_string());
        record.set(StudyDescription, pick(&["CHEST W/O", "Abdomen", "Knee left", "Head"], study));
        record.set(ReferringPhysicianName, "House^Gregory");
        record.set(SeriesInstanceUID, &series_uid);
        record.set(Modality, modality);
        record.set(SeriesNumber, &(1 + series % 5).to_string());
        record.set(SeriesDescription, pick(&["ax 5mm", "cor", "sag t2", "scout"], series));
        record.set(Manufacturer, "ACME Imaging");
        record.set(InstitutionName, "General Hospital");
        record.set(SOPInstanceUID, &uid);
        record.set(SOPClassUID, "1.2.840.10008.5.1.4.1.1.2");
        record.set(AvailableTransferSyntaxUID, "1.2.840.10008.1.2.1");
        record.set(SpecificCharacterSet, "ISO_IR 192");
        record.set(InstanceNumber, &(n + 1).to_string());
        record.set(ImageType, "ORIGINAL\\PRIMARY\\AXIAL");
        record.set(ContentDate, &date);
        record.set(ContentTime, &time(0));
        record.set(AcquisitionDate, &date);
        record.set(AcquisitionTime, &time(1));
        record.set(AcquisitionNumber, "1");
        record.set(Rows, "512");
        record.set(Columns, "512");
        record.set(BitsAllocated, "16");
        record.set(PhotometricInterpretation, "MONOCHROME2");
        let file_name = if named_by_uid { format!("{uid}.dcm") } else { format!("IM{:05}", n + 1) };
        ScannedFile {
            file_name: file_name.into(),
            size: 526_000 + random.below(400),
            mtime_ms: 1_600_000_000_000 + i64::try_from(series * 600_000 + n * 450).unwrap(),
            known: false,
            reread: false,
            outcome: FileOutcome::Instance(Box::new(record)),
        }
    });
    ScannedDirectory {
        place: Place::InPlace,
        directory: directory.into(),
        files: files.collect(),
        complete: true,
        vanished: Vec::new(),
        missing: Vec::new(),
        returned: Vec::new(),
    }
}
