//! Stores generated records in an index in PostgreSQL, as several nodes do.
//!
//! ```text
//! cargo run --release -p dcmdex-bench --bin serverload -- ADDRESS NODES ASSOCIATIONS SECONDS [STUDIES]
//! ```
//!
//! - Each node is a writer with a connection of its own. Each of its associations stores one record
//!   after the other, and waits for the commit.
//! - With STUDIES, all of them store into so many studies. Without, each association has studies of
//!   its own, with 100 instances.
//! - At the end it prints the rate, the waits, and whether the counters of the studies agree with
//!   what was acknowledged.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for measuring")]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dcmdex::db::open::{Reader, Writer, WriterHandle, WriterOptions};
use dcmdex::db::{Admin, Arrivals, Durability, Received, Search};
use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::find::{FindAnswer, FindRequest};
use dcmdex::model::level::{InformationModel, QueryRetrieveLevel};
use dcmdex::model::location::{Location, Place};
use dcmdex::model::record::InstanceRecord;

/// Instances in a study of one association.
const PER_STUDY: u64 = 100;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, index, nodes, associations, seconds, more @ ..] = arguments.as_slice() else {
        println!("usage: serverload ADDRESS NODES ASSOCIATIONS SECONDS [STUDIES]");
        return;
    };
    let index = Path::new(index);
    let (nodes, associations): (u64, u64) = (nodes.parse().unwrap(), associations.parse().unwrap());
    let seconds = Duration::from_secs(seconds.parse().unwrap());
    let studies: Option<u64> = more.first().map(|studies| studies.parse().unwrap());
    let options = || WriterOptions { durability: Durability::Full, queue_length: 4096, ..WriterOptions::default() };
    let writers: Vec<Writer> = (0..nodes).map(|_| Writer::open(index, options()).unwrap()).collect();
    let before = Reader::open(index).unwrap().status().unwrap().instances;
    let started = Instant::now();
    let mut waits: Vec<Duration> = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (node, writer) in writers.iter().enumerate() {
            for association in 0..associations {
                let (handle, number) = (writer.handle(), node as u64 * associations + association);
                running.push(scope.spawn(move || store(&handle, number, studies, started + seconds)));
            }
        }
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let taken = started.elapsed().as_secs_f64();
    writers.into_iter().for_each(|writer| writer.close().unwrap());
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!(
        "{nodes} nodes x {associations} associations: {} rows in {taken:.1} s, {:.0} rows/s, p50 {:.1} ms, p99 {:.1} ms",
        waits.len(),
        waits.len() as f64 / taken,
        at(50),
        at(99)
    );
    let instances = Reader::open(index).unwrap().status().unwrap().instances - before;
    println!("acknowledged {}, in the index {instances}, by the counters of studies {}", waits.len(), counted(index));
}

/// Stores until the end. Returns how long each commit was waited for.
fn store(handle: &WriterHandle, number: u64, studies: Option<u64>, end: Instant) -> Vec<Duration> {
    let mut waits = Vec::new();
    for at in 0.. {
        let begun = Instant::now();
        if begun >= end {
            break;
        }
        let study = studies.map_or_else(|| format!("1.2.{number}.{}", at / PER_STUDY), |n| format!("1.3.{}", at % n));
        let mut record = InstanceRecord::new();
        let uid = format!("{study}.1.{number}.{at}");
        for (id, value) in [
            (PatientID, study.as_str()),
            (PatientName, "Test^Person"),
            (StudyInstanceUID, &study),
            (StudyDate, "20240101"),
            (SeriesInstanceUID, &format!("{study}.1")),
            (SOPInstanceUID, &uid),
            (SOPClassUID, "1.2.840.10008.5.1.4.1.1.2"),
            (AvailableTransferSyntaxUID, "1.2.840.10008.1.2.1"),
            (Modality, "CT"),
            (InstanceNumber, &at.to_string()),
        ] {
            record.set(id, value);
        }
        let location = Location {
            place: Place::Managed,
            directory: format!("/objects/{study}").into(),
            file_name: uid.into(),
            size: 524_288,
            mtime_ms: 1_700_000_000_000,
        };
        let (done, is_done) = mpsc::sync_channel(1);
        handle.store(Received::new(Box::new(record), location), Box::new(move |stored| done.send(stored).unwrap()));
        is_done.recv().unwrap().unwrap();
        waits.push(begun.elapsed());
    }
    waits
}

/// Instances by the counters of all studies.
fn counted(index: &Path) -> u64 {
    let request = FindRequest::new(InformationModel::StudyRoot, QueryRetrieveLevel::Study);
    let request = request.returning(&[NumberOfStudyRelatedInstances]);
    let mut sum = 0;
    let mut add = |answer: FindAnswer| {
        sum += answer.values[0].parse::<u64>().unwrap();
        ControlFlow::Continue(())
    };
    Reader::open(index).unwrap().find(&request, &mut add).unwrap();
    sum
}
