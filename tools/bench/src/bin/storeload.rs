//! Sends many objects to a node over several associations and prints how fast Success came back.
//!
//! ```text
//! cargo run --release -p dcmdex-bench --bin storeload -- --to 127.0.0.1:11112 --called DCMDEX \
//!     --associations 16 --count 20000 --size 16384
//! ```
//!
//! One request is outstanding per association, as with every common sender. Messages consist of a
//! header from a template and of pixel data from one shared buffer, so that the client costs
//! little.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for developers: it ends at the first fault, and says what it did"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;

use dcmdex_bench::client::{self, COMMAND, Client, DATA_SET, Kind};
use dcmdex_bench::header::{self, InstanceFacts, InstanceUids, Random, SeriesFacts, Template, UidStyle};

/// Measures C-STORE.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    node: client::Node,
    /// Acknowledge each segment at once (see client.rs).
    #[arg(long)]
    quick_ack: bool,
    /// Associations at the same time.
    #[arg(long, default_value_t = 1)]
    associations: u64,
    /// Objects in all.
    #[arg(long, default_value_t = 1_000)]
    count: u64,
    /// Objects per second of all associations together, at most. 0: as fast as possible.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Bytes of an object; its header alone has about 4,900.
    #[arg(long, default_value_t = 16 * 1024)]
    size: u32,
    /// Objects per series.
    #[arg(long, default_value_t = 100)]
    series: u64,
    /// Same seed, same objects: take another one for new objects.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write there the SOP Instance UIDs that were answered with Success, one per line.
    #[arg(long)]
    acknowledged: Option<PathBuf>,
    /// Print the figures as one line of JSON.
    #[arg(long)]
    json: bool,
}

const STORAGE_CLASSES: &[&str] =
    &["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128"];
/// About what the template writes; the rest of `--size` is pixel data.
const HEADER: u32 = 4_700;

#[derive(Default)]
struct Sent {
    times: Vec<Duration>,
    statuses: BTreeMap<u16, u64>,
    bytes: u64,
}

fn main() {
    let options = Options::parse();
    let acknowledged =
        options.acknowledged.as_deref().map(|path| Mutex::new(BufWriter::new(File::create(path).unwrap())));
    let start = Barrier::new(usize::try_from(options.associations).unwrap() + 1);
    let (all, elapsed) = thread::scope(|scope| {
        let (options, start, acknowledged) = (&options, &start, acknowledged.as_ref());
        let threads: Vec<_> = (0..options.associations)
            .map(|number| scope.spawn(move || send(options, number, start, acknowledged)))
            .collect();
        start.wait();
        let begun = Instant::now();
        let all: Vec<Sent> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        (all, begun.elapsed().as_secs_f64())
    });
    let mut times: Vec<_> = all.iter().flat_map(|sent| &sent.times).copied().collect();
    times.sort_unstable();
    let mut statuses = BTreeMap::new();
    for (&status, &count) in all.iter().flat_map(|sent| &sent.statuses) {
        *statuses.entry(status).or_insert(0) += count;
    }
    let success = statuses.remove(&0).unwrap_or(0);
    let bytes: u64 = all.iter().map(|sent| sent.bytes).sum();
    let [p50, p99, max] = [50, 99, 100].map(|percent| client::percentile(&times, percent));
    let (rate, mb) = (success as f64 / elapsed, bytes as f64 / elapsed / 1e6);
    if options.json {
        let sent = times.len();
        println!(
            "{}",
            json!({ "success": success, "sent": sent, "rate": rate, "mb": mb, "p50": p50, "p99": p99, "max": max })
        );
        return;
    }
    println!(
        "{success} Success of {}, {} associations, {} bytes each: {:.0} instances/s, {:.1} MB/s; p50 {:.3} ms, p99 {:.3} ms, \
         max {:.3} ms",
        times.len(),
        options.associations,
        bytes / (times.len() as u64).max(1),
        rate,
        mb,
        p50,
        p99,
        max,
    );
    for (status, count) in statuses {
        println!("status {status:04X}: {count}");
    }
}

fn send(options: &Options, number: u64, start: &Barrier, acknowledged: Option<&Mutex<BufWriter<File>>>) -> Sent {
    let mut client = Client::open(&options.node, STORAGE_CLASSES, options.quick_ack);
    let contexts: Vec<_> = (0..STORAGE_CLASSES.len()).map(|index| client.context(index)).collect();
    let max_pdu = client.max_pdu();
    let objects = share(options, number);
    let mut sent = Sent { times: Vec::with_capacity(objects as usize), ..Sent::default() };
    let mut random = Random::new(options.seed, number);
    let mut success = Vec::new();
    let mut left = objects;
    let mut message = Vec::new();
    let mut data_set = Vec::new();
    let pause = (options.rate > 0).then(|| Duration::from_secs(options.associations) / options.rate);
    start.wait();
    let mut due = Instant::now() + pause.unwrap_or_default().mul_f64(number as f64 / options.associations as f64);
    for study in 0.. {
        if left == 0 {
            break;
        }
        let study_number = study * options.associations + number;
        let (facts, payload) = series(options, study_number, &mut random);
        let context = contexts[STORAGE_CLASSES.iter().position(|&class| class == facts.sop_class).unwrap()];
        // The same for the whole series: the pixel data in its PDUs.
        let mut pixels = Vec::new();
        let pixel_bytes = vec![0x55; payload as usize];
        client::pdus(&mut pixels, context, max_pdu, DATA_SET, &pixel_bytes);
        let template = Template::new(&facts);
        let mut uids = InstanceUids::new(UidStyle::TimeStamped, &mut random, &facts.study_date);
        let mut instance = InstanceFacts { fractions: true, ..InstanceFacts::default() };
        for number in 1..=left.min(options.series) {
            uids.next(&mut random, &mut instance.sop_uid);
            instance.number = number;
            instance.seconds = 36_000 + number;
            data_set.clear();
            template.write(&instance, &mut data_set);
            if payload > 0 {
                header::pixel_data(&mut data_set, facts.syntax, payload);
            }
            let command = client::command(&[
                (0x0002, facts.sop_class.as_bytes()),
                (0x0100, &0x0001_u16.to_le_bytes()), // C-STORE-RQ
                (0x0110, &(number as u16).to_le_bytes()),
                (0x0700, &0_u16.to_le_bytes()),
                (0x0800, &0x0001_u16.to_le_bytes()),
                (0x1000, instance.sop_uid.as_bytes()),
            ]);
            message.clear();
            client::pdus(&mut message, context, max_pdu, COMMAND, &command);
            let head = Kind { is_command: false, ends_message: payload == 0 };
            client::pdus(&mut message, context, max_pdu, head, &data_set);
            let large = pixels.len() > 64 * 1024;
            if !large {
                message.extend_from_slice(&pixels);
            }
            if let Some(pause) = pause {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                due += pause;
            }
            let begun = Instant::now();
            client.send(&message);
            if large {
                client.send(&pixels);
            }
            let response = client.receive();
            sent.times.push(begun.elapsed());
            sent.bytes += data_set.len() as u64 + u64::from(payload);
            *sent.statuses.entry(response.status).or_insert(0) += 1;
            if response.status == 0 && acknowledged.is_some() {
                writeln!(success, "{}", instance.sop_uid).unwrap();
            }
            left -= 1;
        }
    }
    client.release();
    if let Some(file) = acknowledged {
        file.lock().unwrap().write_all(&success).unwrap();
    }
    sent
}

/// How many of the objects the association `number` sends.
fn share(options: &Options, number: u64) -> u64 {
    options.count / options.associations + u64::from(number < options.count % options.associations)
}

/// Series, each in a study of its own.
fn series(options: &Options, study: u64, random: &mut Random) -> (SeriesFacts, u32) {
    let style = UidStyle::TimeStamped;
    header::patient(options.seed, study * 2 / 3).with_study(random, style, study).with_series(
        random,
        style,
        1,
        options.size.saturating_sub(HEADER),
    )
}
