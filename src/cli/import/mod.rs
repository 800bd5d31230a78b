//! `dcmdex config import` turns the settings of another node into ours: those of Orthanc, and a
//! dcmqrscp.cfg of DCMTK.

mod dcmqrscp;
mod orthanc;
mod settings;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use self::settings::ImportedSettings;
use super::output::Shown;
use crate::cli::Exit;
use crate::cli::context::Context;
use crate::files::{FILE_MODE, write_new};

/// Largest file that is read, in bytes. Real ones have a few hundred kilobytes at most.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Reads the settings of another node and writes them as ours.
pub(super) fn run(from: &Path, to: Option<&Path>, context: &mut Context) -> anyhow::Result<Exit> {
    let text = read(from)?;
    let name = Shown(from);
    let settings = match form_of(&text) {
        ForeignForm::Json => orthanc::read(&text).with_context(|| format!("{name} is no configuration of Orthanc"))?,
        ForeignForm::Other => dcmqrscp::read(&text).with_context(|| format!("{name} is no dcmqrscp.cfg"))?,
    };
    let written = settings.to_toml(&name.to_string());
    match to {
        None => {
            context.output.bytes(written.as_bytes())?;
        }
        Some(to) => {
            let written = write_new(to, FILE_MODE, written.as_bytes());
            if written.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists) {
                bail!("{} exists and is not overwritten", to.display());
            }
            written.with_context(|| format!("cannot write {}", to.display()))?;
            context.output.line(format_args!("wrote {}", Shown(to)))?;
            tell(&settings, to, context)?;
        }
    }
    Ok(if settings.remarks.is_empty() { Exit::Done } else { Exit::Partly })
}

/// Says what needs the eyes of a person.
fn tell(settings: &ImportedSettings, to: &Path, context: &mut Context) -> anyhow::Result<()> {
    for remark in &settings.remarks {
        context.output.line(format_args!("note: {remark}"))?;
    }
    context.output.line(format_args!("check them with `dcmdex --config {} config check`", Shown(to)))?;
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > LARGEST {
        bail!("{} has more than {LARGEST} bytes", path.display());
    }
    String::from_utf8(bytes).ok().with_context(|| format!("{} is no UTF-8 text", path.display()))
}

/// The form of the settings of another node.
enum ForeignForm {
    Json,
    Other,
}

/// A file of Orthanc begins with a brace, perhaps after comments.
fn form_of(text: &str) -> ForeignForm {
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    loop {
        let after = match rest.get(..2) {
            Some("//") => rest.split_once('\n').map_or("", |(_, after)| after),
            Some("/*") => rest.split_once("*/").map_or("", |(_, after)| after),
            _ => break,
        };
        rest = after.trim_start();
    }
    if rest.starts_with('{') { ForeignForm::Json } else { ForeignForm::Other }
}
