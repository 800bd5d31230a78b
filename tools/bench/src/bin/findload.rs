//! Asks a node the same kind of question many times and prints how long the answers took.
//!
//! ```text
//! cargo run --release -p dcmdex-bench --bin findload -- --to 127.0.0.1:11112 --called DCMDEX \
//!     --level STUDY --key StudyInstanceUID={} --key PatientName --values uids.txt --count 10000
//! ```
//!
//! Associations stay open. Each request replaces `{}` in a key by the next line of the `--values`
//! file. Requests are encoded before the clock starts.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for developers: it ends at the first fault, and says what it did"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;

use dcmdex_bench::client::{self, COMMAND, Client, DATA_SET};
use dcmdex_bench::header::element;

/// Measures C-FIND.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    node: client::Node,
    /// Information model: study or patient root.
    #[arg(long, default_value = "study")]
    model: String,
    /// PATIENT, STUDY, SERIES or IMAGE.
    #[arg(long, default_value = "STUDY")]
    level: String,
    /// KEYWORD or KEYWORD=VALUE; repeatable.
    #[arg(long = "key")]
    keys: Vec<String>,
    /// Lines to take the place of `{}` in the keys.
    #[arg(long)]
    values: Option<PathBuf>,
    /// Queries per association.
    #[arg(long, default_value_t = 1_000)]
    count: usize,
    /// Acknowledge each segment at once (see client.rs).
    #[arg(long)]
    quick_ack: bool,
    /// Associations at the same time.
    #[arg(long, default_value_t = 1)]
    associations: usize,
    /// Send C-CANCEL so many milliseconds after each query, and tell how long the node goes on.
    #[arg(long)]
    cancel_after: Option<u64>,
    /// Print one JSON object, times in milliseconds.
    #[arg(long)]
    json: bool,
    /// A name for the line that is printed.
    #[arg(long, default_value = "")]
    name: String,
}

impl Options {
    fn sop_class(&self) -> &'static str {
        match self.model.as_str() {
            "study" => "1.2.840.10008.5.1.4.1.2.2.1",
            "patient" => "1.2.840.10008.5.1.4.1.2.1.1",
            other => panic!("no such model: {other} (study or patient)"),
        }
    }

    fn identifier(&self, value: &str) -> Vec<u8> {
        let mut elements = BTreeMap::new();
        elements.insert(0x0008_0005, ("CS", "ISO_IR 192".to_owned()));
        elements.insert(0x0008_0052, ("CS", self.level.clone()));
        for key in &self.keys {
            let (keyword, matching) = key.split_once('=').unwrap_or((key, ""));
            let entry =
                StandardDataDictionary.by_name(keyword).unwrap_or_else(|| panic!("no such attribute: {keyword}"));
            let tag = entry.tag();
            elements.insert(
                u32::from(tag.group()) << 16 | u32::from(tag.element()),
                (entry.vr().relaxed().to_string(), matching.replace("{}", value)),
            );
        }
        let mut identifier = Vec::new();
        for (tag, (vr, value)) in elements {
            element(&mut identifier, true, tag, vr, value.as_bytes());
        }
        identifier
    }
}

struct Times {
    first: Vec<Duration>,
    last: Vec<Duration>,
    /// From C-CANCEL to the last response.
    cancel: Vec<Duration>,
    matches: u64,
    cancelled: u64,
    failures: u64,
}

fn main() {
    let options = Options::parse();
    let values: Vec<String> = match &options.values {
        Some(file) => fs::read_to_string(file).unwrap().lines().take(20_000).map(str::to_owned).collect(),
        None => vec![String::new()],
    };
    let identifiers: Vec<_> = values.iter().map(|value| options.identifier(value)).collect();
    let start = Barrier::new(options.associations + 1);
    let (all, elapsed) = thread::scope(|scope| {
        let (options, identifiers, start) = (&options, &identifiers, &start);
        let threads: Vec<_> = (0..options.associations)
            .map(|number| scope.spawn(move || ask(options, identifiers, number, start)))
            .collect();
        start.wait();
        let begun = Instant::now();
        let all: Vec<Times> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        (all, begun.elapsed())
    });
    let collect = |pick: fn(&Times) -> &Vec<Duration>| {
        let mut times: Vec<_> = all.iter().flat_map(pick).copied().collect();
        times.sort_unstable();
        times
    };
    let (first, last) = (collect(|times| &times.first), collect(|times| &times.last));
    let cancel = collect(|times| &times.cancel);
    let sum = |pick: fn(&Times) -> u64| all.iter().map(pick).sum::<u64>();
    if options.json {
        let percentiles = |times: &[Duration]| {
            let [p50, p90, p99, max] = [50, 90, 99, 100].map(|percent| client::percentile(times, percent));
            serde_json::json!({ "p50": p50, "p90": p90, "p99": p99, "max": max })
        };
        let got = serde_json::json!({
            "queries": last.len(),
            "matches": sum(|times| times.matches),
            "cancelled": sum(|times| times.cancelled),
            "failures": sum(|times| times.failures),
            "seconds": elapsed.as_secs_f64(),
            "first": percentiles(&first),
            "last": percentiles(&last),
            "cancel": percentiles(&cancel),
        });
        println!("{got}");
        return;
    }
    println!(
        "{}{} queries, {} matches, {} failures, {:.0} queries/s; first response p50 {:.3} ms; last response p50 {:.3} ms, \
         p90 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
        if options.name.is_empty() { String::new() } else { format!("{}: ", options.name) },
        last.len(),
        sum(|times| times.matches),
        sum(|times| times.failures),
        last.len() as f64 / elapsed.as_secs_f64(),
        client::percentile(&first, 50),
        client::percentile(&last, 50),
        client::percentile(&last, 90),
        client::percentile(&last, 99),
        client::percentile(&last, 100),
    );
}

fn ask(options: &Options, identifiers: &[Vec<u8>], number: usize, start: &Barrier) -> Times {
    let mut client = Client::open(&options.node, &[options.sop_class()], options.quick_ack);
    let (context, max_pdu) = (client.context(0), client.max_pdu());
    let command = client::command(&[
        (0x0002, options.sop_class().as_bytes()),
        (0x0100, &0x0020_u16.to_le_bytes()), // C-FIND-RQ
        (0x0110, &1_u16.to_le_bytes()),
        (0x0700, &0_u16.to_le_bytes()),
        (0x0800, &0x0001_u16.to_le_bytes()),
    ]);
    let queries: Vec<Vec<u8>> = identifiers
        .iter()
        .map(|identifier| {
            let mut message = Vec::new();
            client::pdus(&mut message, context, max_pdu, COMMAND, &command);
            client::pdus(&mut message, context, max_pdu, DATA_SET, identifier);
            message
        })
        .collect();
    let mut times = Times {
        first: Vec::with_capacity(options.count),
        last: Vec::with_capacity(options.count),
        cancel: Vec::new(),
        matches: 0,
        cancelled: 0,
        failures: 0,
    };
    let cancel = client::command(&[
        (0x0100, &0x0FFF_u16.to_le_bytes()), // C-CANCEL-RQ
        (0x0120, &1_u16.to_le_bytes()),
        (0x0800, &0x0101_u16.to_le_bytes()),
    ]);
    let mut cancel_message = Vec::new();
    client::pdus(&mut cancel_message, context, max_pdu, COMMAND, &cancel);
    // Each association starts elsewhere in the list.
    let from = number * queries.len() / options.associations;
    start.wait();
    for query in queries.iter().cycle().skip(from).take(options.count) {
        let sent = Instant::now();
        client.send(query);
        let cancelled = options.cancel_after.map(|after| {
            thread::sleep(Duration::from_millis(after));
            client.send(&cancel_message);
            Instant::now()
        });
        let mut response = client.receive();
        times.first.push(sent.elapsed());
        while response.is_pending() {
            times.matches += 1;
            response = client.receive();
        }
        times.last.push(sent.elapsed());
        times.cancel.extend(cancelled.map(|sent| sent.elapsed()));
        times.cancelled += u64::from(response.status == 0xFE00);
        times.failures += u64::from(!matches!(response.status, 0 | 0xFE00));
    }
    client.release();
    times
}
