//! Runs inputs through the functions that the fuzzers call: inputs that fuzzing found, inputs of
//! kinds that crashed other nodes, and truncated files.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../../fuzz/harness.rs"]
mod harness;

fn inputs(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut left = vec![folder];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.push((path.clone(), fs::read(path).unwrap()));
            }
        }
    }
    assert!(found.len() > 3);
    found
}

/// Runs the inputs one after the other and names the one that failed.
fn replay(folder: &str, run: fn(&[u8])) {
    for (path, bytes) in inputs(folder) {
        let failed = std::panic::catch_unwind(|| run(&bytes)).is_err();
        assert!(!failed, "{}", path.display());
    }
}

#[test]
fn pdus() {
    replay("fuzz/regressions/pdu", harness::pdu);
}

#[test]
fn files() {
    replay("fuzz/regressions/file", harness::file);
}

#[test]
fn streams() {
    replay("fuzz/regressions/stream", harness::stream);
}

#[test]
fn identifiers() {
    replay("fuzz/regressions/identifier", harness::identifier);
}

#[test]
fn archives() {
    replay("fuzz/regressions/archive", harness::archive);
}

#[test]
fn dicomdirs() {
    replay("fuzz/regressions/dicomdir", harness::dicomdir);
}

#[test]
fn dicomweb_queries() {
    replay("fuzz/regressions/query", harness::query);
}

#[test]
fn accept_headers() {
    replay("fuzz/regressions/accept", harness::accept);
}

#[test]
fn frames() {
    replay("fuzz/regressions/render", harness::render);
}

#[test]
fn hl7_messages() {
    replay("fuzz/regressions/hl7", harness::hl7);
}

#[test]
fn multipart_bodies() {
    replay("fuzz/regressions/multipart", harness::multipart);
}

#[test]
fn real_files_cut_anywhere_in_their_header() {
    for (path, bytes) in inputs("fixtures/real") {
        for cut in (0..bytes.len().min(4096)).step_by(41) {
            let failed = std::panic::catch_unwind(|| harness::file(&bytes[..cut])).is_err();
            assert!(!failed, "{} cut at {cut}", path.display());
        }
    }
}
