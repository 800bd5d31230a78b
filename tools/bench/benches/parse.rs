//! Measures how fast headers in memory become records, beside dicom-object on the same bytes.
//!
//! ```text
//! cargo bench -p dcmdex-bench --bench parse            # beside dicom-object
//! cargo bench -p dcmdex-bench --bench parse -- own     # alone, for a profiler
//! ```
//!
//! The headers are those of the benchmark corpus, each in 8 KiB as a scan reads them. No file
//! system is involved. Results must be equal before they are timed. The best of several rounds
//! counts.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for developers: it ends at the first fault, and says what it did"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use dcmdex::ingest::{HeaderParser, Outcome, Wanted};
use dcmdex::model::attribute::{ATTRIBUTES, ValueSource};
use dicom_core::VR;
use dicom_dictionary_std::tags;
use dicom_object::{FileDicomObject, InMemDicomObject, OpenFileOptions};

use dcmdex_bench::header::{self, InstanceFacts, InstanceUids, Random, Syntax, Template, UidStyle};

/// Few enough to stay in the cache, as what a read has just copied is.
const FILES: u64 = 40;
const ROUNDS: u32 = 200;

fn main() {
    let alone = std::env::args().any(|argument| argument == "own");
    let rounds = if alone { ROUNDS * 100 } else { ROUNDS };
    for syntax in [Syntax::Explicit, Syntax::Implicit, Syntax::Encapsulated] {
        let files = files(syntax);
        let length: usize = files.iter().map(|(header, _)| header).sum::<usize>() / files.len();
        for (_, bytes) in &files {
            check(bytes);
        }
        let tokens = best(rounds, &files, |bytes| {
            let mut parser = HeaderParser::for_file(Wanted::index());
            black_box(parser.feed(bytes));
        });
        let record = best(rounds, &files, |bytes| {
            let mut parser = HeaderParser::for_file(Wanted::index());
            parser.feed(bytes);
            black_box(Outcome::of(parser.finish()));
        });
        if alone {
            println!("{syntax:?}: tokens {:.2} us, record {:.2} us", micros(tokens), micros(record));
            continue;
        }
        let object = best(rounds, &files, |bytes| {
            let object = open(bytes);
            for attribute in ATTRIBUTES.iter().filter(|a| a.source == ValueSource::DataSet && a.vr != VR::SQ) {
                if let Some(value) = object.get(attribute.tag).and_then(|element| element.to_str().ok()) {
                    black_box(value.len());
                }
            }
            black_box(object);
        });
        println!(
            "{syntax:?}, {length} bytes up to the pixel data: tokens {:.2} us, record {:.2} us, dicom-object {:.2} us, {:.1} times",
            micros(tokens),
            micros(record),
            micros(object),
            object.as_secs_f64() / record.as_secs_f64()
        );
    }
}

fn open(bytes: &[u8]) -> FileDicomObject<InMemDicomObject> {
    OpenFileOptions::new().read_until(tags::PIXEL_DATA).from_reader(bytes).unwrap()
}

fn check(bytes: &[u8]) {
    let mut parser = HeaderParser::for_file(Wanted::index());
    parser.feed(bytes);
    let Outcome::Instance(record) = Outcome::of(parser.finish()) else { panic!("not an instance") };
    assert!(record.faults().is_empty());
    let object = open(bytes);
    for attribute in ATTRIBUTES.iter().filter(|a| a.source == ValueSource::DataSet && a.vr != VR::SQ) {
        let theirs = object.get(attribute.tag).map(|element| element.to_str().unwrap().into_owned());
        let theirs = theirs.unwrap_or_default();
        assert_eq!(record.value(attribute.id), theirs.trim(), "{}", attribute.keyword);
    }
}

/// The time for one file.
fn best(rounds: u32, files: &[(usize, Vec<u8>)], mut each: impl FnMut(&[u8])) -> Duration {
    let rounds = (0..rounds).map(|_| {
        let begun = Instant::now();
        for (_, bytes) in files {
            each(bytes);
        }
        begun.elapsed() / files.len() as u32
    });
    rounds.min().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The first 8 KiB of each file, and how much of it is header.
fn files(syntax: Syntax) -> Vec<(usize, Vec<u8>)> {
    let mut random = Random::new(1, 1);
    let mut files = Vec::new();
    for number in 0..FILES / 20 {
        let facts = header::patient(1, number).with_study(&mut random, UidStyle::TimeStamped, number);
        let (mut facts, payload) = facts.with_series(&mut random, UidStyle::TimeStamped, 1, 512 << 10);
        facts.syntax = syntax;
        let template = Template::new(&facts);
        let mut uids = InstanceUids::new(UidStyle::TimeStamped, &mut random, &facts.study_date);
        for number in 1..=20 {
            let mut instance = InstanceFacts { number, fractions: true, ..InstanceFacts::default() };
            uids.next(&mut random, &mut instance.sop_uid);
            let mut bytes = Vec::new();
            header::file_meta(&mut bytes, facts.sop_class, &instance.sop_uid, syntax);
            template.write(&instance, &mut bytes);
            let length = bytes.len();
            header::pixel_data(&mut bytes, syntax, payload);
            bytes.resize(8 << 10, 0);
            files.push((length, bytes));
        }
    }
    files
}
