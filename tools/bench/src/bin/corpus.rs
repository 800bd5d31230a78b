//! Writes a large archive of DICOM files for benchmarks, the same bytes for the same seed.
//!
//! ```text
//! cargo run --release -p dcmdex-bench --bin corpus -- \
//!     --out DIR --files 100000 --seed 1 [--sparse 524288] [--manifest FILE]
//! ```
//!
//! - Folders are patient/study/series.
//! - Series: 70 % are explicit little endian, 10 % implicit little endian, 20 % encapsulated.
//! - SOP Instance UIDs: 40 % hold a time stamp, 30 % count, 30 % are random digits.
//! - File names: 60 % are UID.dcm, 20 % are like IM0001, 20 % like 00000001 without an extension.
//! - Instance number, position and three times differ from slice to slice. The times have six
//!   digits after the point in series whose UIDs hold a time stamp.
//! - Pixel data is a hole in the file, `--sparse` bytes long. A million files take the room of
//!   their headers.
//!
//! The manifest lists every SOP Instance UID, one per line.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for developers: it ends at the first fault, and says what it did"
)]

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use clap::Parser;
use rayon::prelude::*;

use dcmdex_bench::header::{self, InstanceFacts, InstanceUids, Random, Syntax, Template, UidStyle};

/// Writes a benchmark archive.
#[derive(Debug, Parser)]
struct Options {
    /// Folder to make; it must not exist yet.
    #[arg(long)]
    out: PathBuf,
    /// Number of files.
    #[arg(long)]
    files: u64,
    /// Same seed, same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Bytes of pixel data per file, as a hole; 0 leaves only headers.
    #[arg(long, default_value_t = 512 * 1024)]
    sparse: u32,
    /// Write the SOP Instance UIDs there, one per line.
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// Threads; default: one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

/// The series of one study, by the number of their files.
struct Study {
    number: u64,
    series: Vec<u64>,
}

fn plan(seed: u64, files: u64) -> Vec<Study> {
    let mut left = files;
    let mut studies = Vec::new();
    while left > 0 {
        let number = studies.len() as u64;
        let mut random = Random::new(seed, number * 2);
        let mut series = Vec::new();
        for _ in 0..random.within(1, 10) {
            let size = match random.within(0, 10) {
                0 | 1 => random.within(1, 5),
                2..=5 => random.within(15, 50),
                6..=8 => random.within(50, 200),
                _ => random.within(200, 420),
            };
            let size = size.min(left);
            if size > 0 {
                series.push(size);
                left -= size;
            }
        }
        studies.push(Study { number, series });
    }
    studies
}

#[derive(Default)]
struct Sum {
    files: u64,
    series: u64,
    header_bytes: u64,
}

fn main() {
    let options = Options::parse();
    rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global().unwrap();
    fs::create_dir(&options.out)
        .unwrap_or_else(|error| panic!("cannot make the folder {}: {error}", options.out.display()));
    let manifest = options.manifest.as_deref().map(|path| Mutex::new(BufWriter::new(File::create(path).unwrap())));
    let begun = Instant::now();
    let studies = plan(options.seed, options.files);
    let sum =
        studies.par_iter().map(|study| write_study(&options, study, manifest.as_ref())).reduce(Sum::default, |a, b| {
            Sum { files: a.files + b.files, series: a.series + b.series, header_bytes: a.header_bytes + b.header_bytes }
        });
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} files, {} series, {} studies, seed {}; header {} bytes on average; {seconds:.1} s, {:.0} files/s",
        sum.files,
        sum.series,
        studies.len(),
        options.seed,
        sum.header_bytes / sum.files.max(1),
        sum.files as f64 / seconds
    );
}

fn write_study(options: &Options, study: &Study, manifest: Option<&Mutex<BufWriter<File>>>) -> Sum {
    let mut random = Random::new(options.seed, study.number * 2);
    random.next_u64(); // so that the plan's first number is not the study's
    // Three studies to two patients.
    let patient = header::patient(options.seed, study.number * 2 / 3);
    let style = uid_style(&mut random);
    let facts = patient.with_study(&mut random, style, study.number);
    let folder = options.out.join(&facts.patient_id).join(format!("{}-{}", facts.study_date, study.number));
    let mut sum = Sum::default();
    let mut uids = String::new();
    for (number, &files) in (1..).zip(&study.series) {
        let style = uid_style(&mut random);
        let (mut facts, payload) = facts.clone().with_series(&mut random, style, number, options.sparse);
        facts.syntax = match random.within(0, 10) {
            0..7 => Syntax::Explicit,
            7 => Syntax::Implicit,
            _ => Syntax::Encapsulated,
        };
        let name = match random.within(0, 10) {
            0..6 => Naming::Uid,
            6 | 7 => Naming::Im,
            _ => Naming::Digits,
        };
        let folder = folder.join(format!("{number:03}"));
        fs::create_dir_all(&folder).unwrap();
        let template = Template::new(&facts);
        let mut instance_uids = InstanceUids::new(style, &mut random, &facts.study_date);
        let mut instance = InstanceFacts {
            seconds: random.within(7, 20) * 3_600,
            fractions: style == UidStyle::TimeStamped,
            ..InstanceFacts::default()
        };
        let mut content = Vec::with_capacity(8 * 1024);
        for number in 1..=files {
            instance_uids.next(&mut random, &mut instance.sop_uid);
            instance.number = number;
            instance.seconds += number % 2;
            content.clear();
            header::file_meta(&mut content, facts.sop_class, &instance.sop_uid, facts.syntax);
            template.write(&instance, &mut content);
            let mut after: &[u8] = &[];
            sum.header_bytes += content.len() as u64;
            if payload > 0 {
                after = header::pixel_data(&mut content, facts.syntax, payload);
            }
            write_file(&name.path(&folder, &instance), &content, payload, after);
            if manifest.is_some() {
                writeln!(uids, "{}", instance.sop_uid).unwrap();
            }
        }
        sum.files += files;
        sum.series += 1;
    }
    if let Some(manifest) = manifest {
        manifest.lock().unwrap().write_all(uids.as_bytes()).unwrap();
    }
    sum
}

fn write_file(path: &Path, content: &[u8], payload: u32, after: &[u8]) {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    file.write_all(content).unwrap();
    let end = content.len() as u64 + u64::from(payload);
    if !after.is_empty() {
        file.write_all_at(after, end).unwrap();
    } else if payload > 0 {
        file.set_len(end).unwrap();
    }
}

/// How the files of a series are called.
enum Naming {
    Uid,
    Im,
    Digits,
}

impl Naming {
    fn path(&self, folder: &Path, instance: &InstanceFacts) -> PathBuf {
        folder.join(match self {
            Self::Uid => format!("{}.dcm", instance.sop_uid),
            Self::Im => format!("IM{:04}", instance.number),
            Self::Digits => format!("{:08}", instance.number),
        })
    }
}

fn uid_style(random: &mut Random) -> UidStyle {
    match random.within(0, 10) {
        0..4 => UidStyle::TimeStamped,
        4..7 => UidStyle::Counter,
        _ => UidStyle::RandomDigits,
    }
}
