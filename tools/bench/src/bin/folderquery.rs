//! Times questions to an index in one process, without a network: a file or a folder of files.
//!
//! ```text
//! cargo run --release -p dcmdex-bench --bin folderquery -- INDEX [COUNT]
//! ```
//!
//! It opens the index, asks for the first of all studies, and then COUNT times for single studies,
//! patients and days. The opening is timed with the comparison of the studies of all files. Values
//! come from the index itself. The answers are counted, so that two indexes of the same objects can
//! be compared.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for measuring")]

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use dcmdex::db::Search as _;
use dcmdex::db::open::Reader;
use dcmdex::model::attribute::AttributeId::{self, *};
use dcmdex::model::find::{FindRequest, MatchingKey};
use dcmdex::model::level::InformationModel;
use dcmdex::model::level::QueryRetrieveLevel::Study;
use dcmdex::model::matching::{KeyValue, MatchPolicy, Matching};

fn request(key: Option<(AttributeId, &str)>) -> FindRequest {
    let returned = [StudyInstanceUID, PatientID, StudyDate, PatientName, NumberOfStudyRelatedInstances];
    let matching = |id: AttributeId, value: &str| {
        Matching::of_key(id.attribute(), &KeyValue::Text(value.to_owned()), &MatchPolicy::default()).unwrap()
    };
    FindRequest {
        matching_keys: key
            .map(|(attribute, value)| MatchingKey { attribute, matching: matching(attribute, value) })
            .into_iter()
            .collect(),
        ..FindRequest::new(InformationModel::StudyRoot, Study).returning(&returned)
    }
}

/// Asks, and returns the number of answers with the time to the first and to the last.
fn ask(reader: &mut Reader, request: &FindRequest) -> (u64, Duration, Duration) {
    let (started, mut first) = (Instant::now(), None);
    let answers = reader.find(request, |_| {
        first.get_or_insert_with(|| started.elapsed());
        ControlFlow::Continue(())
    });
    let all = started.elapsed();
    (answers.unwrap(), first.unwrap_or(all), all)
}

fn report(what: &str, mut times: Vec<Duration>, answers: u64) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1000.0;
    println!("{what}: p50 {:.3} ms, p95 {:.3} ms, {answers} answers", at(50), at(95));
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, index, more @ ..] = arguments.as_slice() else {
        println!("usage: folderquery INDEX [COUNT]");
        return;
    };
    let count: usize = more.first().map_or(1_000, |text| text.parse().unwrap());
    let started = Instant::now();
    let mut reader = Reader::open(Path::new(index)).unwrap();
    let opened = started.elapsed();
    let (_, _, with_comparison) = ask(&mut reader, &request(Some((StudyInstanceUID, "1.2.3"))));
    println!(
        "{} files: opened in {:.1} ms, studies compared in {:.1} ms",
        reader.files().len(),
        opened.as_secs_f64() * 1000.0,
        with_comparison.as_secs_f64() * 1000.0
    );
    let mut rows = Vec::new();
    let all = request(None);
    let found = reader.find(&all, |answer| {
        rows.push(answer.values.to_vec());
        ControlFlow::Continue(())
    });
    let studies = found.unwrap();
    let firsts = (0..20).map(|_| ask(&mut reader, &all).1).collect();
    report("first of all studies", firsts, studies);
    let alls = (0..5).map(|_| ask(&mut reader, &all).2).collect();
    report("all studies", alls, studies);
    let step = (rows.len() / count).max(1);
    for (what, id, at) in [
        ("study by UID", StudyInstanceUID, 0),
        ("studies of a patient", PatientID, 1),
        ("studies of a day", StudyDate, 2),
    ] {
        let (mut times, mut answers) = (Vec::new(), 0);
        for row in rows.iter().step_by(step).take(count) {
            let (found, _, time) = ask(&mut reader, &request(Some((id, &row[at]))));
            answers += found;
            times.push(time);
        }
        report(what, times, answers);
    }
}
