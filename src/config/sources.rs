//! Sources of settings, and the errors of those that cannot be read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

use super::key::CONFIG_VARIABLE;
use super::setting::SettingProblem;

/// File in the current directory that is read if none is named.
pub const DEFAULT_FILE: &str = "dcmdex.toml";

/// Time for which a file must stay unchanged before a running node accepts it. Larger: a reload
/// takes longer. Smaller: a half-written file is read more often.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// Maximum number of attempts to read an unchanged file.
const SETTLING_ATTEMPTS: u32 = 10;

/// Maximum size of the file in bytes. A real one has a few kilobytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Errors of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("configuration file {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is far too long for a configuration file.
    #[error("{} is not a configuration file: it has {bytes} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Size of the file.
        bytes: u64,
    },
    /// The file keeps changing.
    #[error("configuration file {} is still being written", path.display())]
    Unsettled {
        /// The file.
        path: PathBuf,
    },
    /// All settings that cannot be used.
    #[error("{}", lines(.0))]
    Invalid(Vec<SettingProblem>),
}

fn lines(problems: &[SettingProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// One command line option.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The setting that it sets.
    pub path: String,
    /// The value.
    pub value: Value,
    /// The option as typed, for example `--port`.
    pub flag: &'static str,
}

/// Sources of settings.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// File named on the command line.
    pub file: Option<PathBuf>,
    /// Environment variables.
    pub environment: Vec<(OsString, OsString)>,
    /// Command line options.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// Returns the environment of this process, without a file and flags.
    #[must_use]
    pub fn from_process() -> Self {
        Self { environment: std::env::vars_os().collect(), ..Self::default() }
    }

    /// Returns the value of a variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&OsString> {
        self.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

pub(super) fn file_to_read(sources: &Sources, current_directory: &Path) -> Option<PathBuf> {
    let named = sources.file.clone().or_else(|| sources.variable(CONFIG_VARIABLE).map(PathBuf::from));
    match named {
        Some(path) => Some(path),
        None => current_directory.join(DEFAULT_FILE).exists().then(|| PathBuf::from(DEFAULT_FILE)),
    }
}

pub(super) fn read_file(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(Error::TooLong { path: path.to_owned(), bytes });
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Reads a file once it has stayed unchanged for a while.
pub(super) fn read_settled_file(path: &Path) -> Result<String, Error> {
    let mut text = read_file(path)?;
    for _ in 0..SETTLING_ATTEMPTS {
        std::thread::sleep(SETTLED_AFTER);
        let again = read_file(path)?;
        if again == text {
            return Ok(text);
        }
        text = again;
    }
    Err(Error::Unsettled { path: path.to_owned() })
}
