//! Indexes a folder of DICOM files where they lie, as `dcmdex scan` does.
//!
//! ```text
//! cargo run --example index_a_folder -- archive.db fixtures/archive
//! ```

#![allow(clippy::print_stdout, reason = "the results of a program go to standard output")]

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use dcmdex::config::{Config, Sources};
use dcmdex::db::open::{Reader, Writer};
use dcmdex::scanner::{Roots, ScanEvent, ScanTarget, Stop, Summary, scan};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let index = arguments.next().context("usage: index_a_folder INDEX FOLDER")?;
    let folder = arguments.next().context("usage: index_a_folder INDEX FOLDER")?;
    let summary = index_a_folder(&index, &folder)?;
    println!("{} found, {} indexed, {} unchanged", summary.found, summary.indexed, summary.unchanged);
    Ok(())
}

/// Brings the index up to date with the folder. The files themselves are only read.
pub(crate) fn index_a_folder(index: &Path, folder: &Path) -> anyhow::Result<Summary> {
    // The settings are those of the program: this one is set here, all others have their defaults.
    let environment = vec![("DCMDEX_INDEX".into(), index.into())];
    let config = Config::load(&Sources { environment, ..Sources::default() }, &std::env::current_dir()?)?;
    let options = config.scan.clone();
    let roots = Roots::find(&[folder.to_owned()], &options)?;

    // One thread writes the index. It creates the file if there is none.
    let writer = Writer::open(&config.index, config.scan_writer_options())?;
    let handle = writer.handle();
    let target = ScanTarget::Index { known: Reader::open(&config.index)?, writer: &handle };
    // A file that cannot be read never ends a scan. It is an event.
    let summary = scan(&roots, &options, target, &Stop::default(), &mut |event| {
        if let ScanEvent::Failed { path, reason, .. } = event {
            println!("{}: {reason}", path.display());
        }
    })?;
    drop(handle);
    writer.close()?;
    Ok(summary)
}
