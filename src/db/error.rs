//! Errors of an index.

use std::path::PathBuf;

/// The error of an engine's driver.
type DriverError = Box<dyn std::error::Error + Send + Sync>;

/// An error of an index.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no index at the path.
    #[error("there is no index at {}", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not an index of this program", path.display())]
    NotAnIndex {
        /// The file.
        path: PathBuf,
    },
    /// The path is that of a directory.
    #[error("the index {0} is a directory; name a file, such as {0}/index.db", path.display())]
    IsADirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Several files are one index, and something needs a single file.
    #[error("{what} needs one file, and the index has several; hint: name one, such as --index {}", file.display())]
    SeveralFiles {
        /// Function that needs a single file.
        what: &'static str,
        /// One of the files.
        file: PathBuf,
    },
    /// The index is frozen, and something wants to write it.
    #[error("the index {0} is frozen, and nobody writes it; hint: `dcmdex index thaw {0}`", path.display())]
    Frozen {
        /// The index.
        path: PathBuf,
    },
    /// The main file of a folder is frozen, and something wants to write the folder.
    #[error(
        "the main file of the folder, {}, is frozen, and keeps what belongs to no study; hint: {hint}", path.display()
    )]
    FrozenMain {
        /// The main file.
        path: PathBuf,
        /// Possible remedy.
        hint: String,
    },
    /// A frozen index is not the file that was frozen.
    #[error(
        "the frozen index {0} is not the file that was frozen; hint: put that back, or remove {0}-frozen if the change was meant",
        path.display()
    )]
    NotAsFrozen {
        /// The index.
        path: PathBuf,
    },
    /// This user may not read the index, or not write it.
    #[error(
        "{} is not {} this user (uid {user}): permission denied; hint: run dcmdex as the user of the node, or change the \
         owner of the index and of its directory", path.display(), wanted.as_str()
    )]
    NotPermitted {
        /// The index, or its directory.
        path: PathBuf,
        /// Permission that this process wants.
        wanted: Permission,
        /// Number of the user.
        user: u32,
    },
    /// The file is damaged.
    #[error(
        "the index {} is damaged ({detail}): keep the file, and restore the index from a backup; `dcmdex check` may say more",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Message of the driver.
        detail: String,
    },
    /// A newer program made the index.
    #[error("the index {} has schema {found}, and this program knows schemas up to {known}: use the newer program", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The schema version of this program.
        known: u32,
    },
    /// An older program made the index, and this access must not change it.
    #[error("the index {} has the older schema {found}; `dcmdex serve` or `dcmdex scan` brings it to schema {known}", path.display())]
    OlderSchema {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The schema version of this program.
        known: u32,
    },
    /// The index is on a file system that cannot share memory between processes.
    #[error("the index {} would lie on a network file system ({kind}), where its write-ahead log is not safe: put it on a local disk", path.display())]
    NetworkFileSystem {
        /// The file.
        path: PathBuf,
        /// The kind of file system.
        kind: &'static str,
    },
    /// Another process has the index open.
    #[error("the index {} is in use: end the node, and scans and queries that run", path.display())]
    InUse {
        /// The index.
        path: PathBuf,
    },
    /// Another index is being copied to this one, or that was broken off.
    #[error("the index {0} is an unfinished copy; hint: run `dcmdex copy-index` again, or drop it", path.display())]
    Unfinished {
        /// The index.
        path: PathBuf,
    },
    /// The target of a copy is not empty.
    #[error("there is something at {}; hint: name a new file or an empty database", path.display())]
    HasContent {
        /// The target.
        path: PathBuf,
    },
    /// The index has something that a copy in another engine must not lack.
    #[error("the index has {what}, and its copy cannot keep them yet")]
    NotCopied {
        /// Part of the index that the copy cannot keep.
        what: &'static str,
    },
    /// The copy would have paths that are none, because this process does not know some roots.
    #[error("the index has files below roots that the settings do not name: {}; hint: write a [[root]] for each, with its \
             path on this machine", names.join(", "))]
    UnknownRoots {
        /// Their names.
        names: Vec<String>,
    },
    /// A scan would enter files a second time, under another name.
    #[error("{detail}")]
    SecondName {
        /// Files with a second name, and the remedy.
        detail: String,
    },
    /// A copy does not say what the index says.
    #[error("the copy {} does not have what the index has ({detail}), and is not used", path.display())]
    OtherCopy {
        /// The copy.
        path: PathBuf,
        /// Difference from the index.
        detail: String,
    },
    /// An index file cannot be merged with another one.
    #[error("it has {what}, which a merge cannot take along")]
    NotMergeable {
        /// Part of the file that a merge cannot take along.
        what: &'static str,
    },
    /// The index could not be copied.
    #[error("could not copy the index to {}", to.display())]
    Copy {
        /// The new file.
        to: PathBuf,
        /// The error of the driver.
        source: DriverError,
    },
    /// The schema could not be migrated. The index is as it was.
    #[error("could not bring the index {} to the current schema", path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// The error of the driver.
        source: DriverError,
    },
    /// The file could not be opened.
    #[error("could not open the index {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of the driver.
        source: DriverError,
    },
    /// A file could not be reached.
    #[error("could not reach {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A statement failed.
    #[error("an SQL statement failed")]
    Statement(#[source] DriverError),
    /// The engine met damage in the middle of its work.
    #[error("the index is damaged ({0}): keep the file, and restore it from a backup; `dcmdex check` may say more")]
    Malformed(String),
    /// The index, its log or its shared memory no longer has the name by which it was opened.
    #[error(
        "the index {} is no longer the file that was opened: it, its -wal or its -shm was removed or replaced. Put the files back, \
         or end the node, restore the index and its -wal from one backup, and start the node", path.display()
    )]
    Replaced {
        /// The index.
        path: PathBuf,
    },
    /// The database is gone or empty, but its log holds commits.
    #[error(
        "the index {0} is gone, and its write-ahead log {0}-wal holds what was acknowledged; hint: put the index back, or move \
         the log and {0}-turn away and restore the index from a backup", path.display()
    )]
    DatabaseGone {
        /// The index.
        path: PathBuf,
    },
    /// The log beside the database belongs to another one.
    #[error(
        "the write-ahead log {} was written for another file than {}, and would destroy it; hint: move the log away if the \
         index is a restored backup. If both were copied here together, remove {}",
        log.display(), path.display(), record.display()
    )]
    ForeignLog {
        /// The index.
        path: PathBuf,
        /// The log.
        log: PathBuf,
        /// The file that says whose log it is.
        record: PathBuf,
    },
    /// The log is gone, but it held commits.
    #[error(
        "the write-ahead log {} is gone, and the index {} lacks what was acknowledged last; hint: put the log back, or restore \
         both from a backup. To go on without it, remove {}",
        log.display(), path.display(), record.display()
    )]
    LogGone {
        /// The index.
        path: PathBuf,
        /// The log.
        log: PathBuf,
        /// The file that says that the log is needed.
        record: PathBuf,
    },
    /// The disk failed during a commit or right after it.
    #[error("the disk of the index failed during a commit: what was written may be in the index or not")]
    InDoubt {
        /// Whether the commit itself was done.
        committed: bool,
        /// The error.
        source: DriverError,
    },
    /// Another process has kept the index locked for too long.
    #[error("another process keeps the index locked; it may have been stopped in the middle")]
    Locked,
    /// The address of a server cannot be used.
    #[error("the address of the index cannot be used: {detail}")]
    Address {
        /// Reason why it cannot be used, without its secrets.
        detail: String,
    },
    /// The server of the index cannot be reached, or ended in the midst.
    #[error("the server of the index, {server}, is not there: {detail}")]
    ServerGone {
        /// Its address without a password.
        server: String,
        /// Message of the driver.
        detail: String,
    },
    /// The server of the index is there, and does not let this user into this database.
    #[error("the server of the index, {server}, answered: {detail}")]
    ServerRefuses {
        /// Its address without a password.
        server: String,
        /// Answer of the server, and the remedy.
        detail: String,
    },
    /// The server of the index is too old.
    #[error("the server of the index, {server}, is PostgreSQL {found}, and {oldest} or newer is needed")]
    ServerTooOld {
        /// Its address without a password.
        server: String,
        /// Its version.
        found: i32,
        /// The oldest version that works.
        oldest: i32,
    },
    /// The server of the index takes no changes.
    #[error(
        "the server of the index takes no changes ({detail}); hint: name the primary, or all hosts with target_session_attrs=read-write"
    )]
    ReadOnlyServer {
        /// Message of the server.
        detail: String,
    },
    /// The connections to the server share its sessions.
    #[error(
        "the address of the index leads to a connection pooler that gives each transaction another session; hint: use the \
         address of the server itself, or pool_mode = session"
    )]
    SharedSession,
    /// A function that only an index in SQLite has.
    #[error("{what} wants an SQLite index, and {server} is in PostgreSQL")]
    WantsSqlite {
        /// Function that wants an SQLite index.
        what: &'static str,
        /// The address of the index without a password.
        server: String,
    },
    /// The disk of the index is full.
    #[error("no space left for the index")]
    Full,
    /// The writer has stopped. The text says why.
    #[error("the writer of the index has stopped: {0}")]
    WriterStopped(String),
    /// A defect of this program ended the transaction. Nothing of it is in the index, and the
    /// writer goes on.
    #[error("a defect of this program ended the transaction")]
    WriterPanicked,
    /// Something needs an index in a database.
    #[error("{what} wants an index in PostgreSQL, and this one is in files")]
    WantsServer {
        /// Function that needs an index in a database.
        what: &'static str,
    },
    /// Objects of a storage directory would be taken for those of another one.
    #[error("the storage directory {} cannot be used with this index: {detail}", path.display())]
    StorageRefused {
        /// The storage directory.
        path: PathBuf,
        /// Reason, and the remedy.
        detail: String,
    },
    /// Others scan the same paths together by other rules.
    #[error("other processes scan these paths by other rules: {}; hint: give each of them the same options, or wait until \
             that scan has ended", differing.join(", "))]
    OtherRules {
        /// Rules that differ, in words.
        differing: Vec<String>,
    },
    /// Another process has the unit of a shared scan. Nothing of it was changed.
    #[error("another worker has this part of the scan")]
    LeaseLost,
    /// The queue of the writer is full.
    #[error("the queue of the index is full")]
    Busy,
    /// The query was interrupted.
    #[error("interrupted")]
    Interrupted,
    /// A query has keys that the index does not hold.
    #[error("the index cannot answer this query: {0}")]
    Unsupported(String),
}

/// Permission that a process wants for an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It wants to ask.
    Read,
    /// It wants to write.
    Write,
}

impl Permission {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "readable for",
            Self::Write => "writable for",
        }
    }
}

impl Error {
    /// Whether the index may have the change, now or after its next start. SQLite may have written
    /// all of a commit before the disk fails. It then finds the commit when it recovers.
    #[must_use]
    pub const fn may_be_in_the_index(&self) -> bool {
        matches!(self, Self::InDoubt { .. } | Self::WriterStopped(_))
    }

    /// Whether the error is about the index, and not about the change. To try each instance alone
    /// would not help.
    pub(in crate::db) const fn is_of_the_index(&self) -> bool {
        matches!(
            self,
            Self::Locked
                | Self::Replaced { .. }
                | Self::ServerGone { .. }
                | Self::ServerRefuses { .. }
                | Self::ReadOnlyServer { .. }
        )
    }

    /// The same error for another instance, if it is about the index.
    pub(in crate::db) fn again(&self) -> Self {
        match self {
            Self::Replaced { path } => Self::Replaced { path: path.clone() },
            Self::ServerGone { server, detail } => Self::ServerGone { server: server.clone(), detail: detail.clone() },
            Self::ServerRefuses { server, detail } => {
                Self::ServerRefuses { server: server.clone(), detail: detail.clone() }
            }
            Self::ReadOnlyServer { detail } => Self::ReadOnlyServer { detail: detail.clone() },
            Self::InDoubt { committed, source } => {
                Self::InDoubt { committed: *committed, source: source.to_string().into() }
            }
            _ => Self::Locked,
        }
    }
}
