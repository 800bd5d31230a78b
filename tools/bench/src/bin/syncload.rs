//! Measures the bound of receiving: what the disk alone makes durable.
//!
//! Network, index and lasting names are left out. The first command writes a file for each piece
//! and calls fdatasync on each. The second writes all pieces to one file and calls fdatasync once.
//! The third overwrites one file and calls fdatasync after each group of pieces.
//!
//! ```text
//! cargo run --release -p dcmdex-bench --bin syncload -- --threads 16 --count 4000 --size 16384 DIR
//! cargo run --release -p dcmdex-bench --bin syncload -- --sequential --count 400 --size 524288 DIR
//! cargo run --release -p dcmdex-bench --bin syncload -- --group 16 --count 4000 --size 16384 DIR
//! ```

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for developers: it ends at the first fault, and says what it did"
)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use clap::Parser;
use serde_json::json;

/// Writes what has to be on disk, and nothing more.
#[derive(Debug, Parser)]
struct Options {
    /// Folder to write to; it is made, and what is written stays in it.
    folder: PathBuf,
    /// Threads that write, each to files of its own.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Pieces in all.
    #[arg(long, default_value_t = 1_000)]
    count: u64,
    /// Bytes of a piece.
    #[arg(long, default_value_t = 16 * 1024)]
    size: usize,
    /// All pieces into one file, made durable once at the end.
    #[arg(long, conflicts_with = "threads")]
    sequential: bool,
    /// All pieces into one file that is there already, made durable after each so many.
    #[arg(long, conflicts_with_all = ["threads", "sequential"])]
    group: Option<u64>,
    /// Print the figures as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Bytes of the file that groups of pieces overwrite.
const GROUPS_FILE: u64 = 64 << 20;

fn main() {
    let options = Options::parse();
    fs::create_dir_all(&options.folder).unwrap();
    // Not all the same, should the disk be clever.
    let piece: Vec<u8> =
        (0..options.size as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
    let seconds = match options.group {
        Some(group) => grouped(&options, group, &piece),
        None if options.sequential => sequential(&options, &piece),
        None => parallel(&options, &piece),
    };
    let rate = options.count as f64 / seconds;
    let mb = rate * options.size as f64 / 1e6;
    if options.json {
        println!("{}", json!({ "rate": rate, "mb": mb }));
        return;
    }
    println!("{} pieces of {} bytes, {seconds:.3} s: {rate:.0} pieces/s, {:.1} MB/s", options.count, options.size, mb);
}

fn sequential(options: &Options, piece: &[u8]) -> f64 {
    let mut file = new_file(&options.folder, "sequential");
    let begun = Instant::now();
    for _ in 0..options.count {
        file.write_all(piece).unwrap();
    }
    file.sync_data().unwrap();
    begun.elapsed().as_secs_f64()
}

fn grouped(options: &Options, group: u64, piece: &[u8]) -> f64 {
    let mut file = new_file(&options.folder, "groups");
    let zeros = vec![0; 1 << 20];
    for _ in 0..GROUPS_FILE >> 20 {
        file.write_all(&zeros).unwrap();
    }
    file.sync_all().unwrap();
    let begun = Instant::now();
    let mut at = 0;
    for number in 1..=options.count {
        if at + piece.len() as u64 > GROUPS_FILE {
            at = 0;
        }
        file.write_all_at(piece, at).unwrap();
        at += piece.len() as u64;
        if number % group == 0 || number == options.count {
            file.sync_data().unwrap();
        }
    }
    begun.elapsed().as_secs_f64()
}

fn parallel(options: &Options, piece: &[u8]) -> f64 {
    let start = Barrier::new(usize::try_from(options.threads).unwrap() + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads)
            .map(|thread| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    for number in (thread..options.count).step_by(usize::try_from(options.threads).unwrap()) {
                        let mut file = new_file(&options.folder, &format!("{number}"));
                        file.write_all(piece).unwrap();
                        file.sync_data().unwrap();
                    }
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        for thread in threads {
            thread.join().unwrap();
        }
        begun.elapsed().as_secs_f64()
    })
}

fn new_file(folder: &Path, name: &str) -> File {
    OpenOptions::new().write(true).create_new(true).open(folder.join(name)).unwrap()
}
