//! The differences as CSV, on standard output or in a file that an interrupted comparison goes on with.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::cli::output::{Audience, Output};
use crate::compare::difference::{ArchiveDifference, DifferenceKind};
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
    done_through: Option<Day>,
}

impl DifferenceJournal {
    /// Opens the file, and goes on with it if an interrupted comparison asked the same question.
    pub(super) fn open(path: Option<&Path>, question: &str) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self { file: None, found: BTreeMap::new(), has_header: false }) };
        let with = |end: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        let (partial, state) = (with(".partial"), with(".state"));
        if path.is_dir() {
            bail!("{} is a directory", path.display());
        }
        let known = fs::read(&state).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let known = known.filter(|known| known["question"] == question && !question.is_empty());
        // It has patient data. Whatever the umask, other users may not read it.
        let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o640).open(&partial);
        let mut file = opened.with_context(|| format!("cannot write {}", partial.display()))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("another comparison writes {}", path.display()))?;
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
        let done_through = known.filter(|_| length > 0).and_then(|known| Day::try_from(known["done"].as_u64()?).ok());
        let file =
            JournalFile { path: path.to_owned(), partial, state, file, question: question.to_owned(), done_through };
        Ok(Self { file: Some(file), found, has_header: length > 0 })
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
                    difference.what,
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
            file.file.sync_all()?;
            fs::rename(&file.partial, &file.path).with_context(|| format!("cannot write {}", file.path.display()))?;
            // Without differences of one day there is none.
            let _ = fs::remove_file(&file.state);
        }
        Ok(self.found)
    }
}

impl JournalFile {
    /// Notes how far the comparison is. The state is written anew under another name and renamed.
    fn note(&mut self, done_through: Option<Day>) -> anyhow::Result<()> {
        let Some(day) = done_through else { return Ok(()) };
        let state = json!({ "question": self.question, "done": day, "bytes": self.file.stream_position()? });
        let mut temporary = self.state.as_os_str().to_owned();
        temporary.push(".new");
        let written = fs::write(&temporary, state.to_string()).and_then(|()| fs::rename(&temporary, &self.state));
        written.with_context(|| format!("cannot write {}", self.state.display()))
    }
}
