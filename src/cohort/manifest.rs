//! The manifest: a CSV file that says of each file of a cohort where it came from.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use xxhash_rust::xxh3::xxh3_64;

use super::Error;
use super::names::path_key;
use crate::files::{open_locked, publish};

/// Name of the manifest in a folder.
pub const MANIFEST: &str = "manifest.csv";

/// Its name while files are being made.
const UNFINISHED: &str = "manifest.csv.partial";

/// Rows that are written at once. After a kill, the files of so many rows are compared byte by
/// byte.
const ROWS_AT_ONCE: usize = 256;

const HEADER: [&str; 8] =
    ["file", "source", "size", "how", "note", "study_instance_uid", "series_instance_uid", "sop_instance_uid"];

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRow<'a> {
    /// Path in the destination. Empty if there is no file.
    pub file: &'a Path,
    /// Path of the source, or of the archive file and its member.
    pub source: &'a Path,
    /// Size in bytes.
    pub size: u64,
    /// `hard-link`, `symbolic-link`, `reflink`, `copy`, or `failed`.
    pub how: &'a str,
    /// Reason why the name has a number, or why there is no file.
    pub note: &'a str,
    /// Study, Series and SOP Instance UID.
    pub uids: [&'a str; 3],
}

impl ManifestRow<'_> {
    /// The values under [`HEADER`], in UTF-8 whatever a path has. A carriage return of a source
    /// path becomes `?`: it would look like the end of a row after a kill.
    fn fields(&self) -> [Cow<'_, [u8]>; 8] {
        let source = self.source.to_string_lossy().replace('\r', "?").into_bytes();
        let note = match self.source.to_str() {
            Some(_) => Cow::Borrowed(self.note),
            None => {
                let hex = HEXLOWER.encode(self.source.as_os_str().as_bytes());
                let separator = if self.note.is_empty() { "" } else { "; " };
                Cow::Owned(format!("{}{separator}path_hex {hex}", self.note))
            }
        };
        let [study, series, instance] = self.uids.map(|uid| Cow::Borrowed(uid.as_bytes()));
        [
            self.file.to_string_lossy().into_owned().into_bytes().into(),
            source.into(),
            self.size.to_string().into_bytes().into(),
            self.how.as_bytes().into(),
            note.into_owned().into_bytes().into(),
            study,
            series,
            instance,
        ]
    }
}

/// A number for a SOP Instance UID.
#[must_use]
pub fn uid_key(sop_instance_uid: &str) -> u64 {
    xxh3_64(sop_instance_uid.as_bytes())
}

/// A manifest that rows are added to.
pub struct CohortManifest {
    directory: PathBuf,
    writer: csv::Writer<BufWriter<File>>,
    rows: usize,
    /// Results of earlier runs: the number of a path, and that of its instance.
    earlier: HashMap<u128, u64>,
}

impl CohortManifest {
    /// Opens the manifest of a folder, and reads what earlier runs have made. A row that a killed
    /// run left half written is dropped.
    ///
    /// # Errors
    /// If it cannot be read or written, or is none of ours.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let (finished, unfinished) = (directory.join(MANIFEST), directory.join(UNFINISHED));
        let failed = |source| Error::Write { path: unfinished.clone(), source };
        if finished.exists() && !unfinished.exists() {
            fs::rename(&finished, &unfinished).map_err(failed)?;
        }
        let mut file = open_locked(&unfinished).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::Busy { path: directory.to_owned() },
            _ => failed(error),
        })?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        // A row ends with CR LF, and a quoted value has no CR LF: see `row`.
        let end = text.windows(2).rposition(|pair| pair == b"\r\n").map_or(0, |at| at + 2);
        text.truncate(end);
        let earlier = read_rows(&text).map_err(|problem| Error::Manifest { path: unfinished.clone(), problem })?;
        file.set_len(end as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed)?;
        let writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(BufWriter::new(file));
        let mut manifest = Self { directory: directory.to_owned(), writer, rows: 0, earlier };
        if end == 0 {
            manifest.record(&HEADER.map(str::as_bytes))?;
        }
        Ok(manifest)
    }

    /// Takes the results of earlier runs.
    pub fn take_earlier(&mut self) -> HashMap<u128, u64> {
        std::mem::take(&mut self.earlier)
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn row(&mut self, row: &ManifestRow<'_>) -> Result<(), Error> {
        self.record(&row.fields().each_ref().map(|value| &**value))?;
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_AT_ONCE) { self.flush() } else { Ok(()) }
    }

    /// Writes the rows that wait.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.writer.flush().map_err(|source| Error::Write { path: self.directory.join(UNFINISHED), source })
    }

    /// Ends the manifest, and gives it its name.
    ///
    /// # Errors
    /// If it cannot be written or renamed.
    pub fn finish(mut self) -> Result<(), Error> {
        self.flush()?;
        let path = self.directory.join(MANIFEST);
        let synced = || -> io::Result<()> {
            // The files that it lists, all at once.
            rustix::fs::syncfs(File::open(&self.directory)?)?;
            let unfinished = self.directory.join(UNFINISHED);
            publish(&File::open(&unfinished)?, &unfinished, &path)
        };
        synced().map_err(|source| Error::Write { path: path.clone(), source })
    }

    fn record(&mut self, values: &[&[u8]]) -> Result<(), Error> {
        let written = self.writer.write_record(values);
        written.map_err(|error| Error::Write { path: self.directory.join(UNFINISHED), source: error.into() })
    }
}

/// Writes the manifest of a package into memory.
#[derive(Default)]
pub struct PackedManifest {
    bytes: Vec<u8>,
}

impl PackedManifest {
    /// Adds a row.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn row(&mut self, row: &ManifestRow<'_>) -> io::Result<()> {
        let is_first = self.bytes.is_empty();
        let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(&mut self.bytes);
        if is_first {
            writer.write_record(HEADER)?;
        }
        writer.write_record(row.fields())?;
        writer.flush()
    }

    /// The manifest.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn read_rows(text: &[u8]) -> Result<HashMap<u128, u64>, String> {
    let mut earlier = HashMap::new();
    if text.is_empty() {
        return Ok(earlier);
    }
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text);
    let header = reader.byte_headers().map_err(|error| error.to_string())?;
    if header.iter().ne(HEADER.map(str::as_bytes)) {
        return Err("it is no manifest of dcmdex; hint: name another folder".to_owned());
    }
    for record in reader.byte_records() {
        let record = record.map_err(|error| error.to_string())?;
        if let (Some(file), Some(uid)) = (record.get(0), record.get(7))
            && !file.is_empty()
        {
            let file = String::from_utf8_lossy(file);
            earlier.insert(path_key(Path::new(file.as_ref())), uid_key(&String::from_utf8_lossy(uid)));
        }
    }
    Ok(earlier)
}
