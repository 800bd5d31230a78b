//! The differences as CSV, on standard output or in a file that an interrupted comparison goes on
//! with.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::cli::output::{Audience, Output};
use crate::compare::DayRange;
use crate::compare::difference::{ArchiveDifference, DifferenceKind};
use crate::files::{FILE_MODE, open_locked, publish, replace, with_suffix};
use crate::model::datetime::Day;

const HEADER: [&str; 8] =
    ["kind", "level", "study_instance_uid", "series_instance_uid", "sop_instance_uid", "attribute", "here", "there"];

/// Writes differences, and notes through which day all are written.
pub(super) struct DifferenceJournal {
    file: Option<JournalFile>,
    found: BTreeMap<DifferenceKind, u64>,
    has_header: bool,
}

struct JournalFile {
    path: PathBuf,
    partial: PathBuf,
    state: PathBuf,
    file: File,
    question: String,
    days: Option<DayRange>,
    done_through: Option<Day>,
}

impl DifferenceJournal {
    /// Opens the file, and goes on with it if an interrupted comparison asked the same question.
    /// The days of that comparison then count: without `--to`, those of today are others.
    pub(super) fn open(path: Option<&Path>, question: &str, days: Option<DayRange>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self { file: None, found: BTreeMap::new(), has_header: false }) };
        let (partial, state) = (with_suffix(path, ".partial"), with_suffix(path, ".state"));
        if path.is_dir() {
            bail!("{} is a directory", path.display());
        }
        let known = known_state(&state, question)?;
        let mut file = open_locked(&partial).map_err(|error| {
            let told = match error.kind() {
                io::ErrorKind::WouldBlock => format!("another comparison writes {}", path.display()),
                _ => format!("cannot write {}", partial.display()),
            };
            anyhow::Error::new(error).context(told)
        })?;
        let length = known.as_ref().and_then(|known| known["bytes"].as_u64()).unwrap_or(0);
        let length = if file.metadata()?.len() >= length { length } else { 0 };
        file.set_len(length)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        file.seek(SeekFrom::End(0))?;
        let mut found = BTreeMap::new();
        for record in csv::Reader::from_reader(text.as_slice()).records() {
            let record = record.with_context(|| format!("cannot read {}", partial.display()))?;
            if let Some(kind) = DifferenceKind::ALL.into_iter().find(|kind| Some(kind.as_str()) == record.get(0)) {
                *found.entry(kind).or_default() += 1;
            }
        }
        let known = known.filter(|_| length > 0);
        let day = |name: &str| Day::try_from(known.as_ref()?[name].as_u64()?).ok();
        let days = day("first").zip(day("last")).map(|(first, last)| DayRange { first, last }).or(days);
        let (path, question, done_through) = (path.to_owned(), question.to_owned(), day("done"));
        let file = JournalFile { path, partial, state, file, question, days, done_through };
        Ok(Self { file: Some(file), found, has_header: length > 0 })
    }

    /// The days to compare, if an earlier run has begun with them.
    pub(super) fn days(&self) -> Option<DayRange> {
        self.file.as_ref().and_then(|file| file.days)
    }

    /// The last day whose differences an earlier run has written.
    pub(super) fn done_through(&self) -> Option<Day> {
        self.file.as_ref().and_then(|file| file.done_through)
    }

    /// Writes differences, and notes that all through this day are written.
    pub(super) fn write<W: io::Write>(
        &mut self,
        found: &[ArchiveDifference],
        done_through: Option<Day>,
        output: &mut Output<W>,
    ) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        {
            let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(&mut bytes);
            if !self.has_header {
                writer.write_record(HEADER)?;
                self.has_header = true;
            }
            for difference in found {
                let uid = |at: usize| difference.uids.get(at).map_or("", String::as_str);
                writer.write_record([
                    difference.kind.as_str(),
                    difference.level(),
                    uid(0),
                    uid(1),
                    uid(2),
                    difference.attribute,
                    &difference.here,
                    &difference.there,
                ])?;
                *self.found.entry(difference.kind).or_default() += 1;
            }
            writer.flush()?;
        }
        match &mut self.file {
            None => {
                if output.bytes(&bytes)? == Audience::Gone || output.flush()? == Audience::Gone {
                    bail!("nobody reads the output");
                }
                Ok(())
            }
            Some(file) => {
                let written = file.file.write_all(&bytes);
                written.with_context(|| format!("cannot write {}", file.partial.display()))?;
                file.note(done_through)
            }
        }
    }

    /// Keeps what is written, for the next run.
    pub(super) fn keep(&mut self) -> anyhow::Result<()> {
        match &mut self.file {
            Some(file) => Ok(file.file.sync_all()?),
            None => Ok(()),
        }
    }

    /// Ends the differences, and gives the file its name. Returns how many of each kind there are.
    pub(super) fn finish<W: io::Write>(
        mut self,
        output: &mut Output<W>,
    ) -> anyhow::Result<BTreeMap<DifferenceKind, u64>> {
        if !self.has_header {
            self.write(&[], None, output)?;
        }
        if let Some(file) = self.file {
            let published = publish(&file.file, &file.partial, &file.path);
            published.with_context(|| format!("cannot write {}", file.path.display()))?;
            // Without differences of one day there is none.
            let _ = fs::remove_file(&file.state);
        }
        Ok(self.found)
    }
}

/// State that an interrupted comparison has noted. `None` if there was none with this question.
fn known_state(state: &Path, question: &str) -> anyhow::Result<Option<Value>> {
    let hint = format!("remove {} to begin anew", state.display());
    let text = match fs::read(state) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}; hint: {hint}", state.display())),
    };
    let known = serde_json::from_slice::<Value>(&text);
    let known = known.with_context(|| format!("cannot read {}; hint: {hint}", state.display()))?;
    Ok(Some(known).filter(|known| known["question"] == question))
}

impl JournalFile {
    /// Notes how far the comparison is.
    fn note(&mut self, done_through: Option<Day>) -> anyhow::Result<()> {
        let Some(day) = done_through else { return Ok(()) };
        let state = json!({
            "question": self.question,
            "first": self.days.map(|days| days.first),
            "last": self.days.map(|days| days.last),
            "done": day,
            "bytes": self.file.stream_position()?,
        });
        let written = replace(&self.state, FILE_MODE, state.to_string().as_bytes());
        written.with_context(|| format!("cannot write {}", self.state.display()))
    }
}
