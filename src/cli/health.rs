//! Whether all is well with a node, as far as its index and its disks show: for `status --check`
//! and for the port for supervisors.

use std::cmp::Reverse;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::output::Grouped;
use super::watch_report::WatchReport;
use crate::cli::backup;
use crate::config::{Config, Keep};
use crate::db::Admin as _;
use crate::db::open::{Reader, directory_beside, is_on_server};
use crate::files::FileSystemSpace;
use crate::model::calendar::{DAY_MS, HOUR_MS};
use crate::store::PART_FREE;

/// Time after the last success of a watched directory at which its state is critical.
const WATCH_IS_OLD_MS: i64 = 2 * DAY_MS;

/// Age of the last backup that is a warning, once there was one.
const BACKUP_IS_OLD_MS: i64 = 36 * HOUR_MS;

/// Free bytes that are a warning, in multiples of those that stay free.
const FEW_FREE: u64 = 5;

/// Severity of a state, in the order of the exit codes of supervisors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    /// All is well.
    Ok,
    /// Somebody should look.
    Warning,
    /// Something does not work.
    Critical,
    /// Nobody knows.
    Unknown,
}

impl Grade {
    /// The exit code.
    pub(super) const fn code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// The state of a node.
#[derive(Debug)]
pub(super) struct Health {
    problems: Vec<(Grade, String)>,
    /// Counts for people and for graphs.
    figures: Vec<(&'static str, u64)>,
}

/// The space on a disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskSpace {
    /// Bytes that this user may still write.
    pub(super) free: u64,
    /// Bytes that stay free.
    pub(super) min_free: u64,
    has_inode: bool,
}

impl DiskSpace {
    /// The space on the disk of a directory, or of the nearest one above that exists.
    pub(super) fn of(directory: &Path, config: &Config) -> Option<Self> {
        let space = FileSystemSpace::at(nearest(directory)?).ok()?;
        let min_free = space.min_free(config.min_free_bytes, PART_FREE);
        Some(Self { free: space.free, min_free, has_inode: space.has_inode })
    }
}

/// The directory, or the nearest one above that exists.
fn nearest(directory: &Path) -> Option<&Path> {
    directory.ancestors().find(|path| path.exists())
}

/// Reason why the file system of a directory takes no files. A file system that has met an error is
/// read-only from then on, and its mount options need not say so. The probe has no name and leaves
/// nothing.
fn refusal(directory: &Path) -> Option<Errno> {
    let probe =
        rustix::fs::open(directory, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    // Other errors say nothing: whoever asks may have no right to write, or the file system has no
    // such files.
    probe.err().filter(|error| matches!(*error, Errno::ROFS | Errno::IO))
}

/// A disk that a node writes to.
pub(super) struct NodeDisk {
    /// Contents of the disk, as in "the disk of …".
    pub(super) of: &'static str,
    /// `None` if it does not say what is free.
    pub(super) space: Option<DiskSpace>,
    directory: PathBuf,
}

impl NodeDisk {
    fn of(of: &'static str, directory: PathBuf, config: &Config) -> Self {
        Self { of, space: DiskSpace::of(&directory, config), directory }
    }

    /// Reason why it takes nothing although there is room, in words.
    pub(super) fn refusal(&self) -> Option<String> {
        match self.space {
            Some(space) if !space.has_inode => Some("no inode is free".to_owned()),
            Some(_) => refusal(nearest(&self.directory)?).map(|error| error.to_string()),
            None => None,
        }
    }
}

/// The disks that a node writes to: that of received objects, and that of the index if it is
/// another one.
pub(super) fn disks(config: &Config) -> Vec<NodeDisk> {
    let objects = NodeDisk::of("received objects", directory_of_objects(config), config);
    let index = NodeDisk::of("the index", directory_beside(&config.index), config);
    let device = |disk: &NodeDisk| nearest(&disk.directory)?.metadata().ok().map(|metadata| metadata.dev());
    let is_another = !is_on_server(&config.index) && index.space.is_some() && device(&index) != device(&objects);
    let mut disks = vec![objects];
    if is_another {
        disks.push(index);
    }
    disks
}

/// The directory whose disk received objects need.
pub(super) fn directory_of_objects(config: &Config) -> PathBuf {
    match config.keep {
        Keep::Objects => config.storage.clone(),
        Keep::MetadataOnly => directory_beside(&config.index),
    }
}

impl Health {
    /// Looks at the index, the watched directories, the disks and the last backup. It is cheap: no
    /// table of the index is counted.
    pub(super) fn of(config: &Config, now_ms: i64) -> Self {
        let mut this = Self { problems: Vec::new(), figures: Vec::new() };
        this.index(config, now_ms);
        this.disks(config);
        if let Some(made_ms) = backup::last_success(&config.index)
            && now_ms.saturating_sub(made_ms) > BACKUP_IS_OLD_MS
        {
            let hours = u64::try_from((now_ms - made_ms) / HOUR_MS).unwrap_or(0);
            this.problems.push((Grade::Warning, format!("the last backup is {hours} hours old")));
        }
        this.problems.sort_by_key(|(grade, _)| Reverse(*grade));
        this
    }

    fn index(&mut self, config: &Config, now_ms: i64) {
        let watches = Reader::open(&config.index).and_then(|mut reader| reader.watches());
        let watches = match watches {
            Ok(watches) => watches,
            Err(error) => {
                self.problems.push((Grade::Critical, error.to_string()));
                return;
            }
        };
        self.figures.push(("watches", watches.len() as u64));
        for entry in &watches {
            match WatchReport::of(entry) {
                Ok(watched) => self.watched(&watched, now_ms),
                Err(error) => self.problems.push((Grade::Unknown, error.to_string())),
            }
        }
    }

    fn watched(&mut self, watched: &WatchReport, now_ms: i64) {
        let (paths, state) = (watched.paths.join(", "), &watched.state);
        let is_old = state.last_success_ms.is_some_and(|success| now_ms.saturating_sub(success) > WATCH_IS_OLD_MS);
        let error = state.last.as_ref().and_then(|last| last.error.as_deref());
        match error {
            _ if is_old => self.problems.push((Grade::Critical, format!("{paths} was not looked at for two days"))),
            Some(error) => self.problems.push((Grade::Warning, error.to_owned())),
            None if state.is_overdue(now_ms) => {
                self.problems.push((Grade::Warning, format!("the next look at {paths} is overdue")));
            }
            None if state.is_slow => {
                self.problems
                    .push((Grade::Warning, format!("the last look at {paths} took far longer than those before")));
            }
            None => {}
        }
    }

    fn disks(&mut self, config: &Config) {
        for disk in disks(config) {
            let of = disk.of;
            let Some(space) = disk.space else {
                self.problems.push((Grade::Unknown, format!("the disk of {of} does not say what is free")));
                continue;
            };
            if self.figures.iter().all(|(name, _)| *name != "free") {
                self.figures.push(("free", space.free));
            }
            let free = format!("{} MiB are free for {of}", Grouped(space.free >> 20));
            if let Some(why) = disk.refusal() {
                self.problems.push((Grade::Critical, format!("the disk of {of} takes no files: {why}")));
            } else if space.free <= space.min_free {
                self.problems.push((Grade::Critical, format!("{free}, so objects are refused")));
            } else if space.free < FEW_FREE * space.min_free {
                self.problems.push((Grade::Warning, free));
            }
        }
    }

    /// The worst problem.
    pub(super) fn grade(&self) -> Grade {
        self.problems.first().map_or(Grade::Ok, |(grade, _)| *grade)
    }

    /// One line for a supervisor, with figures after a bar.
    pub(super) fn line(&self) -> String {
        let what = match self.problems.as_slice() {
            [] => "no problem known".to_owned(),
            problems => problems.iter().map(|(_, what)| what.as_str()).collect::<Vec<_>>().join("; "),
        };
        // A bar or a new line would end the text for the supervisor.
        let what = what.replace(['|', '\n'], " ");
        let unit = |name: &str| if name == "free" { "B" } else { "" };
        let figures = self.figures.iter().map(|(name, value)| format!("{name}={value}{}", unit(name)));
        format!("DCMDEX {} - {what} | {}", self.grade(), figures.collect::<Vec<_>>().join(" "))
    }

    /// The problems for programs.
    pub(super) fn as_json(&self) -> Value {
        let problem = |(grade, what): &(Grade, String)| json!({ "grade": grade.to_string(), "what": what });
        self.problems.iter().map(problem).collect::<Vec<_>>().into()
    }
}
