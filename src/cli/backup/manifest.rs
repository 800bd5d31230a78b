//! The manifest of a backup: what was copied, when, and from where. It is a JSON file beside the
//! copy.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::output::Grouped;
use crate::config::Config;
use crate::db::Admin as _;
use crate::db::open::{Reader, SCHEMA_VERSION, checksum_of};
use crate::model::calendar::moment_text;

/// Longest manifest that is read, in bytes. A real one has a few kilobytes, and the settings file
/// in it has at most a megabyte.
const LONGEST: u64 = 4 * 1024 * 1024;

/// The form of the manifest.
const FORMAT: u32 = 1;

/// Contents of the manifest of a copy.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Manifest {
    format: u32,
    program: String,
    /// When the copy was made, in milliseconds since 1970 UTC.
    pub(super) made_ms: i64,
    /// The same for people.
    #[serde(default)]
    made: String,
    /// Name of the copy.
    pub(super) file: String,
    size_bytes: u64,
    /// The xxh3-128 hash of the copy.
    xxh3_128: String,
    pub(in crate::cli) schema_version: u64,
    /// The index that was copied.
    index: String,
    index_id: Option<String>,
    ae_title: String,
    /// The storage directory. `None` if no objects were kept.
    pub(in crate::cli) storage: Option<String>,
    patients: u64,
    studies: u64,
    series: u64,
    pub(in crate::cli) instances: u64,
    pub(in crate::cli) last_change: u64,
    /// Paths that were scanned in place. Their files are not in the backup.
    roots: Vec<String>,
    /// The received objects that lie beside the copy. `None` if there are none.
    pub(super) objects: Option<BackedUpObjects>,
    /// The settings file as it was.
    settings: Option<String>,
}

/// Received objects in the directory `objects` beside a copy.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct BackedUpObjects {
    /// Objects in the storage directory.
    pub(super) files: u64,
    /// Objects that were linked or copied this time, because the backup directory lacked them.
    pub(super) added: u64,
    /// Size of all objects in bytes.
    pub(super) bytes: u64,
}

/// The result of checking a backup.
#[derive(Debug)]
pub(in crate::cli) enum BackupVerdict {
    /// It is what its manifest says.
    Sound(Box<Manifest>),
    /// It must not be restored, for this reason.
    Refused(String),
}

impl BackupVerdict {
    /// The reason why the backup must not be restored.
    pub(in crate::cli) fn problem(&self) -> Option<&str> {
        match self {
            Self::Sound(_) => None,
            Self::Refused(reason) => Some(reason),
        }
    }
}

impl Manifest {
    /// Describes a copy that was made with these settings.
    pub(super) fn of(copy: &Path, config: &Config) -> anyhow::Result<Self> {
        let (size_bytes, xxh3_128) = hash(copy)?;
        let mut reader = open_copy(copy)?;
        let status = reader.status()?;
        let mut roots: Vec<String> = reader.scan_roots()?;
        roots.sort();
        roots.dedup();
        let settings = config.file.as_ref().and_then(|file| fs::read_to_string(file).ok());
        Ok(Self {
            format: FORMAT,
            program: format!("dcmdex {}", env!("CARGO_PKG_VERSION")),
            made_ms: 0,
            made: String::new(),
            file: String::new(),
            size_bytes,
            xxh3_128,
            schema_version: status.schema_version,
            index: config.index.to_string_lossy().into_owned(),
            index_id: reader.index_id()?,
            ae_title: config.node.ae_title.to_string(),
            storage: config.kept_store_options().map(|options| options.directory.to_string_lossy().into_owned()),
            patients: status.patients,
            studies: status.studies,
            series: status.series,
            instances: status.instances,
            last_change: status.last_change,
            roots,
            objects: None,
            settings,
        })
    }

    /// The manifest as it is written.
    pub(super) fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value["made"] = moment_text(self.made_ms).into();
        value
    }

    pub(in crate::cli) fn made_ms(&self) -> i64 {
        self.made_ms
    }

    /// Whether a file has the size and the checksum that the manifest says.
    pub(in crate::cli) fn describes(&self, copy: &Path) -> anyhow::Result<bool> {
        Ok(hash(copy)? == (self.size_bytes, self.xxh3_128.clone()))
    }

    /// One line for people.
    pub(in crate::cli) fn in_words(&self) -> String {
        let counts = counts_in_words(self.patients, self.studies, self.series, self.instances);
        let mut text = format!("{}, {counts}, {} bytes", moment_text(self.made_ms), Grouped(self.size_bytes));
        if let Some(BackedUpObjects { files, added, bytes }) = self.objects {
            let (files, added, bytes) = (Grouped(files), Grouped(added), Grouped(bytes));
            text.push_str(&format!("; {files} objects of {bytes} bytes, {added} of them new"));
        }
        text
    }

    fn counts(&self) -> [u64; 5] {
        [self.patients, self.studies, self.series, self.instances, self.last_change]
    }
}

/// The manifest of a copy.
pub(in crate::cli) fn path_beside(copy: &Path) -> PathBuf {
    copy.with_extension("json")
}

/// Reads the manifest of a copy. Says in words why it cannot be used.
fn read(copy: &Path) -> Result<Manifest, String> {
    let path = path_beside(copy);
    let mut text = String::new();
    let file = File::open(&path).map_err(|error| format!("its manifest {} cannot be read: {error}", path.display()))?;
    let length = file.take(LONGEST).read_to_string(&mut text);
    length.map_err(|error| format!("its manifest {} cannot be read: {error}", path.display()))?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| format!("its manifest {} is none: {error}", path.display()))?;
    match manifest.format {
        FORMAT => Ok(manifest),
        other => Err(format!("its manifest has format {other}, and this program knows format {FORMAT}")),
    }
}

/// Checks a backup: the copy against its manifest, and the copy with itself.
///
/// # Errors
/// If the copy cannot be read.
pub(in crate::cli) fn verify(copy: &Path) -> anyhow::Result<BackupVerdict> {
    if !copy.is_file() {
        anyhow::bail!("there is no backup {}", copy.display());
    }
    let manifest = match read(copy) {
        Ok(manifest) => manifest,
        Err(reason) => return Ok(BackupVerdict::Refused(reason)),
    };
    verify_as(copy, manifest)
}

/// Checks a file against a manifest.
fn verify_as(copy: &Path, manifest: Manifest) -> anyhow::Result<BackupVerdict> {
    let refused = |reason: String| Ok(BackupVerdict::Refused(reason));
    if manifest.schema_version > u64::from(SCHEMA_VERSION) {
        return refused(format!(
            "it has schema {}, and this program knows schemas up to {SCHEMA_VERSION}: use the newer program",
            manifest.schema_version
        ));
    }
    let (size_bytes, xxh3_128) = hash(copy)?;
    if size_bytes != manifest.size_bytes {
        return refused(format!("it has {size_bytes} bytes, and its manifest says {}", manifest.size_bytes));
    }
    if xxh3_128 != manifest.xxh3_128 {
        return refused("its checksum is not that of its manifest: the file was damaged or changed".to_owned());
    }
    let checked = open_copy(copy).and_then(|mut reader| Ok((reader.status()?, reader.check()?)));
    let (status, report) = match checked {
        Ok(checked) => checked,
        Err(error) => return refused(format!("{error:#}")),
    };
    if let Some(finding) = report.findings.first() {
        return refused(format!("the index in it disagrees with itself ({}: {})", finding.check, finding.detail));
    }
    let counts = [status.patients, status.studies, status.series, status.instances, status.last_change];
    if counts != manifest.counts() || status.schema_version != manifest.schema_version {
        return refused("it does not hold what its manifest says".to_owned());
    }
    Ok(BackupVerdict::Sound(Box::new(manifest)))
}

/// Size and xxh3-128 hash of a file.
fn hash(path: &Path) -> anyhow::Result<(u64, String)> {
    let (size, checksum) = checksum_of(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((size, format!("{checksum:?}")))
}

/// The counts of an index or a copy, in words.
pub(in crate::cli) fn counts_in_words(patients: u64, studies: u64, series: u64, instances: u64) -> String {
    format!(
        "{} patients, {} studies, {} series, {} instances",
        Grouped(patients),
        Grouped(studies),
        Grouped(series),
        Grouped(instances)
    )
}

/// Opens a copy for questions.
pub(in crate::cli) fn open_copy(path: &Path) -> anyhow::Result<Reader> {
    Reader::open_copy(path).with_context(|| format!("cannot open {}", path.display()))
}
