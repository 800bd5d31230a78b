//! Measures the bound of a scanner: walk, open, read the first 8 KiB, close.
//!
//! ```text
//! cargo run --release -p dcmdex-bench --bin bound -- [--threads N] [--parse [--print]] DIR
//! ```
//!
//! With `--parse` it also goes over the root elements and takes the SOP Instance UID. It writes no
//! index.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for developers: it ends at the first fault, and says what it did"
)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use clap::Parser;

const FIRST_READ: usize = 8 * 1024;
/// What an index keeps: the values that `--parse` finds and touches, in ascending order.
const WANTED: &[u32] = &[
    0x0008_0005,
    0x0008_0016,
    0x0008_0018,
    0x0008_0020,
    0x0008_0030,
    0x0008_0050,
    0x0008_0060,
    0x0008_0090,
    0x0008_1030,
    0x0008_103E,
    0x0010_0010,
    0x0010_0020,
    0x0010_0030,
    0x0010_0040,
    0x0020_000D,
    0x0020_000E,
    0x0020_0010,
    0x0020_0011,
    0x0020_0013,
    0x0028_0010,
    0x0028_0011,
];
const SOP_INSTANCE_UID: u32 = 0x0008_0018;
const PIXEL_DATA: u32 = 0x7FE0_0010;

/// Walks and reads, and nothing more.
#[derive(Debug, Parser)]
struct Options {
    /// Folder to walk.
    folder: PathBuf,
    /// Threads that read; one more walks.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Tell the system not to read ahead.
    #[arg(long)]
    random: bool,
    /// Also parse the root elements.
    #[arg(long)]
    parse: bool,
    /// Print the SOP Instance UIDs.
    #[arg(long, requires = "parse")]
    print: bool,
}

#[derive(Default)]
struct Found {
    files: u64,
    values: u64,
    uids: Vec<u8>,
}

fn main() {
    let options = Options::parse();
    let begun = Instant::now();
    let (folders, work) = mpsc::sync_channel::<Folder>(1024);
    let work = std::sync::Mutex::new(work);
    let found = thread::scope(|scope| {
        let readers: Vec<_> = (0..options.threads.max(1))
            .map(|_| {
                scope.spawn(|| {
                    let mut found = Found::default();
                    let mut buffer = vec![0; FIRST_READ];
                    loop {
                        // The lock is held for the wait only: a folder is hundreds of files of
                        // work.
                        let Ok(folder) = work.lock().unwrap().recv() else {
                            return found;
                        };
                        read_folder(&folder, &options, &mut buffer, &mut found);
                    }
                })
            })
            .collect();
        walk(&options.folder, &folders);
        drop(folders);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    let seconds = begun.elapsed().as_secs_f64();
    if options.print {
        let mut out = BufWriter::new(io::stdout().lock());
        for part in &found {
            out.write_all(&part.uids).unwrap();
        }
        out.flush().unwrap();
        return;
    }
    let files: u64 = found.iter().map(|part| part.files).sum();
    let values: u64 = found.iter().map(|part| part.values).sum();
    println!("{files} files, {values} values, {seconds:.3} s, {:.0} files/s", files as f64 / seconds);
}

/// A folder and the names of the files in it.
type Folder = (PathBuf, Vec<OsString>);

/// Sends every folder that holds files.
fn walk(root: &Path, folders: &mpsc::SyncSender<Folder>) {
    let mut left = vec![root.to_owned()];
    while let Some(folder) = left.pop() {
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            } else {
                files.push(entry.file_name());
            }
        }
        if !files.is_empty() {
            folders.send((folder, files)).unwrap();
        }
    }
}

fn read_folder((folder, files): &Folder, options: &Options, buffer: &mut [u8], found: &mut Found) {
    for name in files {
        let file = File::open(folder.join(name)).unwrap();
        if options.random {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        }
        let length = file.read_at(buffer, 0).unwrap();
        found.files += 1;
        if options.parse {
            let uid = parse(&buffer[..length], &mut found.values);
            if options.print
                && let Some(uid) = uid
            {
                found.uids.extend_from_slice(uid);
                found.uids.push(b'\n');
            }
        }
    }
}

/// Does the least that any reader of a DICOM file does. It takes the transfer syntax from the meta
/// information. Then it goes from root element to root element. It only reads files as `corpus`
/// writes them, and returns `None` for others.
fn parse<'a>(file: &'a [u8], values: &mut u64) -> Option<&'a [u8]> {
    let mut rest = file.strip_prefix(&[0; 128])?.strip_prefix(b"DICM")?;
    let mut explicit = true;
    while le16(rest)? == 0x0002 {
        let (tag, value, after) = element(rest, true)?;
        if tag == 0x0002_0010 {
            explicit = value != b"1.2.840.10008.1.2\0";
        }
        rest = after;
    }
    let mut uid = None;
    let mut wanted = WANTED.iter().peekable();
    while let Some((tag, value, after)) = element(rest, explicit) {
        if tag == PIXEL_DATA {
            break;
        }
        while wanted.next_if(|&&next| next < tag).is_some() {}
        if wanted.next_if_eq(&&tag).is_some() {
            // Copied, as an index would have to.
            let text = String::from_utf8_lossy(value).trim_end().to_owned();
            *values += u64::from(!std::hint::black_box(text).is_empty());
            if tag == SOP_INSTANCE_UID {
                uid = Some(value.strip_suffix(b"\0").unwrap_or(value));
            }
        }
        rest = after;
    }
    uid
}

fn le16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.first_chunk()?))
}

fn le32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.first_chunk()?))
}

fn element(bytes: &[u8], explicit: bool) -> Option<(u32, &[u8], &[u8])> {
    let tag = u32::from(le16(bytes)?) << 16 | u32::from(le16(bytes.get(2..)?)?);
    let (length, header) = if !explicit {
        (le32(bytes.get(4..)?)?, 8)
    } else if matches!(bytes.get(4..6)?, b"OB" | b"OW" | b"SQ" | b"UN" | b"UT") {
        (le32(bytes.get(8..)?)?, 12)
    } else {
        (u32::from(le16(bytes.get(6..)?)?), 8)
    };
    if tag == PIXEL_DATA {
        return Some((tag, &[], &[]));
    }
    let (value, after) = bytes.get(header..)?.split_at_checked(length as usize)?;
    Some((tag, value, after))
}
