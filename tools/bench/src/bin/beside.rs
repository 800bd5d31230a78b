//! Measures how long a commit of a received instance takes while another process writes the index.
//!
//! ```text
//! cargo run --release -p dcmdex-bench --bin beside -- INDEX SECONDS PER_SECOND
//! ```
//!
//! Run `dcmdex scan` or the generator `indexload` on the same index meanwhile. Each commit survives
//! a power cut, as in `dcmdex serve`. Neither network nor objects are involved.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for measuring")]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use dcmdex::db::open::{Writer, WriterOptions};
use dcmdex::db::{Arrivals, Received};
use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::location::{Location, Place};
use dcmdex::model::record::InstanceRecord;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, index, seconds, per_second] = arguments.as_slice() else {
        println!("usage: beside INDEX SECONDS PER_SECOND");
        return;
    };
    let (seconds, per_second): (u64, u64) = (seconds.parse().unwrap(), per_second.parse().unwrap());
    let writer = Writer::open(index.as_ref(), WriterOptions::default()).unwrap();
    let started = Instant::now();
    let mut took = Vec::new();
    for n in 0..seconds * per_second {
        // At its time, or as soon as the last one is answered: what had to wait counts from when it
        // was due.
        let due = started + Duration::from_micros(1_000_000 * n / per_second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut record = InstanceRecord::new();
        let (study, series) = (format!("1.2.826.0.1.7.{}", n / 1000), format!("1.2.826.0.1.7.{}.1", n / 1000));
        let uid = format!("{series}.{n}");
        for (id, value) in [
            (PatientID, "RECEIVED"),
            (StudyInstanceUID, &study),
            (SeriesInstanceUID, &series),
            (SOPInstanceUID, &uid),
            (SOPClassUID, "1.2.840.10008.5.1.4.1.1.2"),
            (AvailableTransferSyntaxUID, "1.2.840.10008.1.2.1"),
            (Modality, "CT"),
        ] {
            record.set(id, value);
        }
        let directory = format!("/objects/{study}/{series}").into();
        let file_name = format!("{uid}.dcm").into();
        let location = Location { place: Place::Managed, directory, file_name, size: 1000, mtime_ms: 0 };
        let (send, receive) = mpsc::channel();
        let done = move |result| send.send(result).unwrap();
        writer.handle().store(Received::new(Box::new(record), location), Box::new(done));
        let _committed = receive.recv().unwrap().unwrap();
        took.push(due.elapsed());
    }
    took.sort_unstable();
    let at = |share: usize| took.get((took.len() * share / 1000).min(took.len() - 1)).copied().unwrap_or_default();
    println!(
        "{} commits: p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
        took.len(),
        at(500),
        at(990),
        at(999),
        at(1000)
    );
}
