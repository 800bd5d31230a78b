//! Scans the members of archive files.
//!
//! The index has a row of kind `container` for an archive, with its size and time. While these stay
//! the same, the scan does not open the archive. The members are files with [`Place::Archive`].
//! Each has the time of the archive. So after an interrupted scan, the next one reads only the
//! members that are still missing. If an archive has changed, the scan reads all of it again.
//!
//! If a known archive must be read again, the scan holds some 40 bytes in memory for each member.
//! It holds names only for members that are gone.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::dicomdir::{self, DicomdirFinding};
use super::known_members::{KnownMembers, MemberSummary};
use super::settings::ReadSettings;
use super::watchdog::{ReaderSlot, ReaderState, UpTo};
use super::work::{
    DICOMDIR, EntryReport, KnownAs, MAY_PASS, Marks, MemberCount, RESULT_TEXT_BYTES, SPECIAL_FILE, UnitResult,
    WorkDirectory, failed, note, to_outcome,
};
use super::{UNIT_FILES, skip};
use crate::archive::{self, ArchiveKind, ArchiveProblem, Member, MemberAction, MemberBytes, MemberKind, MemberSink};
use crate::db::{self, FileOutcome, KnownFile, NotIndexed, Note, ScanLedger, ScannedFile};
use crate::ingest::{self, Outcome, Wanted};
use crate::model::location::Place;

/// Maximum threads for one large zip archive. Reading it mostly costs processor time.
const MAX_THREADS: usize = 8;

/// The reason for not indexing a member that a later member of the same name replaces.
const REPLACED: &str = "archive-duplicate-name";

/// An archive file, or a file that was one.
#[derive(Debug)]
pub(super) enum ArchiveFile {
    /// An archive file to read.
    File { name: OsString, marks: Marks, file: File, kind: ArchiveKind, otherwise: FileOutcome },
    /// An archive that has not changed, with what the index knows of its members.
    Unchanged { name: OsString, members: Result<MemberSummary, db::Error> },
    /// A DICOMDIR. Every scan compares it with its folder, since the folder may have changed.
    Dicomdir { name: OsString },
    /// A file that was an archive in an earlier scan and is none now.
    Former { name: OsString },
}

/// The kind of archive that a file is, if it is one.
pub(super) fn kind_of(file: &File, name: &OsStr) -> Result<Option<ArchiveKind>, ArchiveProblem> {
    let mut start = [0; archive::KIND_BYTES];
    let read = file.read_at(&mut start, 0)?;
    let kind = ArchiveKind::of(start.get(..read).unwrap_or_default())?;
    // A self-extracting zip archive begins with the program, so only the name tells.
    let is_called_zip = name.len() > 4 && name.as_bytes().to_ascii_lowercase().ends_with(b".zip");
    Ok(kind.or_else(|| is_called_zip.then_some(ArchiveKind::Zip)))
}

/// Whether a note is about an archive file or a DICOMDIR. Only these may have rows for members.
pub(super) fn is_archive(note: &Note) -> bool {
    note.kind == NotIndexed::Container || note.reason.starts_with("archive-") || note.reason == DICOMDIR
}

/// The reader was given up, so nobody takes its results.
#[derive(Debug)]
pub(super) struct Unwanted;

/// Sends the results of an archive.
#[derive(Clone, Copy)]
pub(super) struct Out<'a> {
    pub(super) slot: &'a Arc<ReaderSlot>,
    /// The position of the archive file in its unit.
    pub(super) entry: usize,
}

impl Out<'_> {
    pub(super) fn hand_over(&self, result: UnitResult) -> Result<(), Unwanted> {
        // The archive file itself stays open in the unit. If it hangs later, the watchdog reports
        // that.
        match self.slot.hand_over(result, UpTo::Entry(self.entry)) {
            ReaderState::Working => {
                self.slot.turns_to(self.entry);
                Ok(())
            }
            ReaderState::GivenUp => Err(Unwanted),
        }
    }
}

/// Counts the members of an archive file and sends their results.
pub(super) fn read(
    found: ArchiveFile,
    directory: &Arc<WorkDirectory>,
    settings: &ReadSettings,
    out: &Out<'_>,
) -> Result<(), Unwanted> {
    let known = settings.members.as_ref();
    match found {
        ArchiveFile::Unchanged { name, members } => out.hand_over(unchanged(directory, &name, members)),
        ArchiveFile::Dicomdir { name } => out.hand_over(dicomdir(directory, &name, known)),
        ArchiveFile::Former { name } => {
            let path = directory.path.join(name);
            let mut gone = HashMap::new();
            let asked = known.ask(|reader| {
                reader.archive_members(&path, &mut |name, file| {
                    gone.insert(name, file);
                })
            });
            let vanished = names_of(&gone);
            match asked {
                Ok(()) => out.hand_over(UnitResult { vanished, ..UnitResult::of(&archive_directory(&path, gone)) }),
                Err(error) => out.hand_over(index_failed(directory, &path, &error)),
            }
        }
        ArchiveFile::File { name, marks, file, kind, otherwise } => {
            let path = directory.path.join(&name);
            let mut members = MemberCollector {
                parent: directory,
                path: &path,
                name: &name,
                kind,
                marks,
                unfinished: unfinished_marks(directory.known.get(&name), marks),
                settings,
                out,
                bytes_read: Arc::new(AtomicU64::new(0)),
                hasher: RandomState::new(),
                known: HashMap::new(),
                failures: HashMap::new(),
                result: UnitResult::of(directory),
                result_known: HashMap::new(),
                text_bytes: 0,
                is_begun: false,
                is_stopped: false,
                may_pass: false,
                single_failed: false,
            };
            match members.ask(known) {
                Ok(()) => members.run(file, known, otherwise),
                Err(error) => out.hand_over(index_failed(directory, &path, &error)),
            }
        }
    }
}

fn archive_directory(path: &Path, known: HashMap<OsString, KnownFile>) -> Arc<WorkDirectory> {
    Arc::new(WorkDirectory { place: Place::Archive, path: path.to_owned(), handle: None, known })
}

fn unchanged(directory: &Arc<WorkDirectory>, name: &OsStr, members: Result<MemberSummary, db::Error>) -> UnitResult {
    let path = directory.path.join(name);
    let MemberSummary { unchanged, others } = match members {
        Ok(members) => members,
        Err(error) => return index_failed(directory, &path, &error),
    };
    let (mut reports, mut missing) = (Vec::new(), HashMap::new());
    for (name, file) in others {
        match &file.note {
            Some(note) => {
                let (reason, detail) = (note.reason.clone().into(), note.detail.clone().into());
                reports.push(EntryReport { name, kind: note.kind, reason, detail });
            }
            None => drop(missing.insert(name, file)),
        }
    }
    let vanished = names_of(&missing);
    UnitResult { unchanged, reports, vanished, archives: 1, ..UnitResult::of(&archive_directory(&path, missing)) }
}

/// Compares a DICOMDIR with its folder, then the findings with the notes in the index.
fn dicomdir(directory: &Arc<WorkDirectory>, name: &OsStr, known: &KnownMembers) -> UnitResult {
    let path = directory.path.join(name);
    let findings = dicomdir::check(&path).unwrap_or_else(|error| {
        let finding = DicomdirFinding { kind: NotIndexed::Failed, reason: "unreadable", detail: error.to_string() };
        BTreeMap::from([("(records)".into(), finding)])
    });
    let mut before = HashMap::new();
    let asked = known.ask(|reader| {
        reader.archive_members(&path, &mut |name, file| {
            before.insert(name, file);
        })
    });
    if let Err(error) = asked {
        return index_failed(directory, &path, &error);
    }
    let mut result = UnitResult::of(directory);
    for (name, DicomdirFinding { kind, reason, detail }) in findings {
        let known = before.remove(&name);
        let is_known_so = known.as_ref().and_then(|known| known.note.as_ref()).is_some_and(|note| {
            (note.kind, note.reason.as_str(), note.detail.as_str()) == (kind, reason, detail.as_str())
        });
        if is_known_so {
            result.reports.push(EntryReport { name, kind, reason: reason.into(), detail: detail.into() });
        } else {
            let outcome = FileOutcome::NotIndexed { kind, reason, detail };
            result.files.push(ScannedFile {
                file_name: name,
                size: 0,
                mtime_ms: 0,
                known: known.is_some(),
                reread: false,
                outcome,
            });
        }
    }
    result.vanished = names_of(&before);
    UnitResult { directory: archive_directory(&path, before), ..result }
}

/// The names of these files, sorted, with what the index had for each.
fn names_of(files: &HashMap<OsString, KnownFile>) -> Vec<(OsString, KnownAs)> {
    let mut names: Vec<_> = files.iter().map(|(name, file)| (name.clone(), KnownAs::of(file))).collect();
    names.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    names
}

/// The result for an archive whose members the index could not return. The next scan reads the
/// archive.
fn index_failed(directory: &Arc<WorkDirectory>, path: &Path, error: &db::Error) -> UnitResult {
    let mut result = UnitResult::of(directory);
    let name = path.file_name().unwrap_or_default().to_owned();
    note(&mut result, name, Marks::NONE, failed("unreadable", format!("the index: {error}")));
    result
}

/// Entry of a member in the index.
struct KnownMember {
    size: u64,
    mtime_ms: i64,
    indexed: bool,
    /// Whether an earlier scan recorded it as missing.
    missing: bool,
    lacks_declared: bool,
    /// Whether the archive still has it.
    seen: bool,
    /// Whether this scan left it unread, because it has not changed.
    passed: bool,
    /// Whether this scan read it again although it has not changed.
    reread: bool,
}

/// Receives the members of one archive file and sends them on to the index.
struct MemberCollector<'a> {
    parent: &'a Arc<WorkDirectory>,
    path: &'a Path,
    name: &'a OsStr,
    kind: ArchiveKind,
    /// Size and time of the archive file.
    marks: Marks,
    /// Size and time in its row until it has been read to its end.
    unfinished: Marks,
    settings: &'a ReadSettings,
    out: &'a Out<'a>,
    /// Bytes read since the last call of the throttle.
    bytes_read: Arc<AtomicU64>,
    hasher: RandomState,
    /// By the hash of the member's path.
    known: HashMap<u64, KnownMember>,
    /// The reason why a member was not indexed, by the hash of its path. `None` if a rule skips the
    /// member.
    failures: HashMap<u64, Option<&'static str>>,
    result: UnitResult,
    /// Entries of the index for the files in `result`.
    result_known: HashMap<OsString, KnownFile>,
    text_bytes: usize,
    /// Whether a result has been sent.
    is_begun: bool,
    is_stopped: bool,
    /// Whether a failure may be transient.
    may_pass: bool,
    /// Whether the archive is a gzip file whose content is not DICOM.
    single_failed: bool,
}

impl MemberCollector<'_> {
    fn ask(&mut self, index: &KnownMembers) -> Result<(), db::Error> {
        let (known, hasher) = (&mut self.known, &self.hasher);
        index.ask(|reader| {
            reader.archive_members(self.path, &mut |name, file| {
                let indexed = file.is_indexed();
                let KnownFile { size, mtime_ms, missing, lacks_declared, .. } = file;
                let member = KnownMember {
                    size,
                    mtime_ms,
                    indexed,
                    missing,
                    lacks_declared,
                    seen: false,
                    passed: false,
                    reread: false,
                };
                known.insert(hasher.hash_one(name.as_bytes()), member);
            })
        })
    }

    fn run(mut self, file: File, index: &KnownMembers, otherwise: FileOutcome) -> Result<(), Unwanted> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let (kind, name) = (self.kind, self.name);
        // The throttle can hold back one thread, not several.
        let threads = if self.settings.throttle.counts_bytes() { 1 } else { threads };
        let (bytes_read, slot) = (Arc::clone(&self.bytes_read), Arc::clone(self.out.slot));
        let on_read: archive::OnRead = Arc::new(move |bytes| {
            bytes_read.fetch_add(bytes, Relaxed);
            slot.goes_on();
        });
        let wanted = self.settings.wanted;
        let read = move |bytes: &mut dyn MemberBytes, size: Option<u64>| read_member(bytes, size, wanted);
        let walked = archive::walk(file, name, kind, threads, on_read, &read, &mut self);
        if self.is_stopped {
            // Only some members were read. The next scan reads the rest.
            return self.send();
        }
        let mut outcome =
            FileOutcome::NotIndexed { kind: NotIndexed::Container, reason: kind.name(), detail: String::new() };
        match walked {
            Ok(()) if self.single_failed => outcome = otherwise,
            Ok(()) => self.result.archives = 1,
            // The name ends in .zip, and the file is something else.
            Err(ArchiveProblem::Truncated | ArchiveProblem::Damaged(_))
                if kind == ArchiveKind::Zip
                    && !self.is_begun
                    && self.result.files.is_empty()
                    && is_no_zip(&otherwise) =>
            {
                outcome = otherwise;
            }
            Err(problem) => {
                self.may_pass |= matches!(problem, ArchiveProblem::Io(_));
                self.result.archives = 1;
                outcome = failed(problem.code(), problem.to_string());
            }
        }
        // What lies behind a cut or damage is gone. A disk that cannot be read now says nothing.
        if !self.may_pass {
            let gone = self.vanished(index);
            self.result.vanished = gone.iter().map(|(name, file)| (name.clone(), KnownAs::of(file))).collect();
            self.result_known.extend(gone);
        }
        self.result.ends_directory = true;
        let marks = if self.may_pass { self.unfinished } else { self.marks };
        let (out, parent, name) = (self.out, self.parent, self.name);
        let is_empty = self.result.files.is_empty()
            && self.result.reports.is_empty()
            && self.result.vanished.is_empty()
            && self.result.unchanged + self.result.archives == 0;
        if !is_empty {
            self.send_members()?;
        }
        let is_begun = self.is_begun;
        let mut last = UnitResult::of(parent);
        // The first row replaced any earlier note. So even the same note is written again.
        if is_begun || matches!(outcome, FileOutcome::NotIndexed { kind: NotIndexed::Container, .. }) {
            last.files.push(container(parent, name, marks, outcome));
        } else {
            note(&mut last, name.to_owned(), marks, outcome);
        }
        out.hand_over(last)
    }

    /// The members that the index has and the archive no longer has.
    fn vanished(&self, index: &KnownMembers) -> Vec<(OsString, KnownFile)> {
        let mut vanished = Vec::new();
        if self.known.values().all(|member| member.seen) {
            return vanished;
        }
        let asked = index.ask(|reader| {
            reader.archive_members(self.path, &mut |name, file| {
                let member = self.known.get(&self.hasher.hash_one(name.as_bytes()));
                if member.is_some_and(|member| !member.seen) {
                    vanished.push((name, file));
                }
            })
        });
        if asked.is_err() {
            // The scan's own reader of the index will report the error.
            return Vec::new();
        }
        vanished.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        vanished
    }

    /// Sends the result, unless it is empty.
    fn send(&mut self) -> Result<(), Unwanted> {
        let UnitResult { files, reports, returned, unchanged, .. } = &self.result;
        if files.is_empty() && reports.is_empty() && returned.is_empty() && *unchanged == 0 {
            return Ok(());
        }
        self.send_members()
    }

    fn send_members(&mut self) -> Result<(), Unwanted> {
        if !self.is_begun {
            self.is_begun = true;
            // The row of the archive goes before its members. If the scan stops here, the next one
            // knows that this is an archive.
            let outcome = FileOutcome::NotIndexed {
                kind: NotIndexed::Container,
                reason: self.kind.name(),
                detail: String::new(),
            };
            let mut begin = UnitResult::of(self.parent);
            begin.files.push(container(self.parent, self.name, self.unfinished, outcome));
            self.out.hand_over(begin)?;
        }
        self.text_bytes = 0;
        let result = std::mem::replace(&mut self.result, UnitResult::of(self.parent));
        let directory = archive_directory(self.path, std::mem::take(&mut self.result_known));
        self.out.hand_over(UnitResult { directory, ..result })
    }

    /// The outcome of a member that a later one of the same name replaces.
    fn replaced_outcome() -> FileOutcome {
        let detail = "a later member of the archive has the same name".to_owned();
        FileOutcome::NotIndexed { kind: NotIndexed::Skipped, reason: REPLACED, detail }
    }

    /// Category under which a member was counted whose result was sent already. `None` if a rule
    /// skipped it.
    fn counted(&self, hash: u64) -> Option<MemberCount> {
        if let Some(failure) = self.failures.get(&hash) {
            return failure.map(MemberCount::Failed);
        }
        Some(match self.known.get(&hash) {
            Some(known) if known.passed => MemberCount::Unchanged,
            Some(known) if known.reread => MemberCount::Reread,
            Some(known) if known.indexed => MemberCount::Updated,
            Some(_) | None => MemberCount::Indexed,
        })
    }

    fn push(&mut self, path: Vec<u8>, size: u64, outcome: FileOutcome) -> ControlFlow<()> {
        self.text_bytes += match &outcome {
            FileOutcome::Instance(record) => record.text_bytes(),
            FileOutcome::NotIndexed { detail, reason, .. } => {
                self.may_pass |= MAY_PASS.contains(reason);
                detail.len()
            }
        };
        let hash = self.hasher.hash_one(path.as_slice());
        if let FileOutcome::NotIndexed { reason, .. } = &outcome {
            self.failures.insert(hash, Some(reason));
        }
        let mut known = self.known.get_mut(&hash);
        if let Some(known) = &mut known {
            // Not before: the archive may end in the middle of the member.
            known.seen = true;
        }
        let file_name = OsString::from_vec(path);
        if let Some(known) = &known
            && known.indexed
        {
            let KnownMember { size, mtime_ms, missing, lacks_declared, .. } = **known;
            let file = KnownFile { size, mtime_ms, note: None, missing, lacks_declared };
            self.result_known.insert(file_name.clone(), file);
        }
        let mtime_ms = self.marks.mtime_ms;
        // With --full the member is read again although it has not changed.
        let is_known = known.is_some();
        let reread = known.is_some_and(|known| {
            known.reread = known.indexed && (known.size, known.mtime_ms) == (size, mtime_ms);
            if known.reread && known.missing {
                self.result.returned.push(file_name.clone());
            }
            known.reread
        });
        self.result.files.push(ScannedFile { file_name, size, mtime_ms, known: is_known, reread, outcome });
        self.send_if_full()
    }

    fn send_if_full(&mut self) -> ControlFlow<()> {
        if self.result.files.len() < UNIT_FILES && self.text_bytes < RESULT_TEXT_BYTES {
            return ControlFlow::Continue(());
        }
        match self.send_members() {
            Ok(()) => ControlFlow::Continue(()),
            Err(Unwanted) => self.stopped(),
        }
    }

    fn stopped(&mut self) -> ControlFlow<()> {
        self.is_stopped = true;
        ControlFlow::Break(())
    }

    fn skip(&mut self, path: &[u8], reason: &'static str) -> MemberAction {
        self.failures.insert(self.hasher.hash_one(path), None);
        let name = OsString::from_vec(path.to_vec());
        let (reason, detail) = (Cow::Borrowed(reason), Cow::Borrowed(""));
        self.result.reports.push(EntryReport { name, kind: NotIndexed::Skipped, reason, detail });
        if self.result.reports.len() >= UNIT_FILES && self.send_members().is_err() {
            self.is_stopped = true;
            return MemberAction::Stop;
        }
        MemberAction::Skip
    }
}

impl MemberSink<Outcome> for MemberCollector<'_> {
    fn action_for(&mut self, member: &Member) -> MemberAction {
        if self.settings.throttle.counts_bytes() {
            self.settings.throttle.bytes(self.bytes_read.swap(0, Relaxed), &self.settings.stop);
        }
        if self.settings.stop.is_asked() {
            self.is_stopped = true;
            return MemberAction::Stop;
        }
        let reason = match member.kind {
            MemberKind::Link => Some("archive-link"),
            MemberKind::Special => Some(SPECIAL_FILE),
            MemberKind::File | MemberKind::SingleFile => skip_reason(member.plain_path()),
        };
        if let Some(reason) = reason {
            return self.skip(&member.path, reason);
        }
        if let Some(known) = self.known.get_mut(&self.hasher.hash_one(member.path.as_slice())) {
            // If several members have the same name, the row may belong to another of them. So only
            // the first can count as unchanged.
            if self.unfinished == Marks::NONE
                && known.indexed
                && member.occurrence == 1
                && !self.settings.reads_all_in(self.path)
                && !known.lacks_declared
                && known.mtime_ms == self.marks.mtime_ms
                && member.size.is_none_or(|size| size == known.size)
            {
                self.result.unchanged += 1;
                (known.seen, known.passed) = (true, true);
                if known.missing {
                    self.result.returned.push(OsString::from_vec(member.path.clone()));
                }
                return MemberAction::Skip;
            }
        }
        self.settings.throttle.file(&self.settings.stop);
        MemberAction::Read
    }

    fn replaces(&self, value: &Outcome) -> bool {
        // A member that cannot be read replaces no other.
        !matches!(value, Outcome::Unreadable { .. })
    }

    fn needs_size(&self, value: &Outcome) -> bool {
        matches!(value, Outcome::Instance(_))
    }

    fn replaced(&mut self, path: Vec<u8>) -> ControlFlow<()> {
        let hash = self.hasher.hash_one(path.as_slice());
        let file_name = OsString::from_vec(path);
        // Usually it has not been sent yet.
        let waiting = self.result.files.iter_mut().rev().find(|file| file.file_name == file_name);
        if let Some(file) = waiting {
            (file.size, file.reread, file.outcome) = (0, false, Self::replaced_outcome());
            self.failures.insert(hash, None);
            return ControlFlow::Continue(());
        }
        let Some(counted) = self.counted(hash) else { return ControlFlow::Continue(()) };
        self.failures.insert(hash, None);
        self.result.replaced.push(counted);
        let (mtime_ms, outcome) = (self.marks.mtime_ms, Self::replaced_outcome());
        self.result.files.push(ScannedFile { file_name, size: 0, mtime_ms, known: true, reread: false, outcome });
        self.send_if_full()
    }

    fn read(&mut self, member: Member, value: Outcome) -> ControlFlow<()> {
        let outcome = match value {
            Outcome::Unreadable { error } => {
                let problem = ArchiveProblem::of(error);
                if matches!(problem, ArchiveProblem::Inflation) {
                    // It ends the archive, so the archive reports it.
                    return ControlFlow::Continue(());
                }
                failed(problem.code(), problem.to_string())
            }
            value => to_outcome(value),
        };
        if member.kind == MemberKind::SingleFile && !matches!(outcome, FileOutcome::Instance(_)) {
            self.single_failed = true;
            // The former content of the gzip file is gone.
            self.known.values_mut().for_each(|known| known.seen = false);
            return ControlFlow::Continue(());
        }
        self.push(member.path, member.size.unwrap_or(0), outcome)
    }

    fn refused(&mut self, path: Vec<u8>, problem: ArchiveProblem) -> ControlFlow<()> {
        let (path, reason) = (tellable(path, &problem), problem.code());
        self.push(path, 0, failed(reason, problem.to_string()))
    }
}

/// Size and time for the row of an archive until it has been read to its end. They differ from
/// those of the file. If the index has another size, all members must be read, also after an
/// interruption. So the row keeps the former size until then.
fn unfinished_marks(known: Option<&KnownFile>, marks: Marks) -> Marks {
    match known.map_or(0, |known| known.size) {
        size if size == marks.size => Marks::NONE,
        size => Marks { size, ..Marks::NONE },
    }
}

/// The row of an archive file in its directory.
fn container(parent: &WorkDirectory, name: &OsStr, marks: Marks, outcome: FileOutcome) -> ScannedFile {
    // The new note replaces an old one. Only an instance at this path must be removed.
    let known = parent.known.get(name).is_some_and(KnownFile::is_indexed);
    ScannedFile {
        file_name: name.to_owned(),
        size: marks.size,
        mtime_ms: marks.mtime_ms,
        known,
        reread: false,
        outcome,
    }
}

fn read_member(bytes: &mut dyn MemberBytes, size: Option<u64>, wanted: &Wanted) -> Outcome {
    let length = size.unwrap_or(u64::MAX);
    // If the parser panics, the scan loses this member and goes on.
    let read = || ingest::read_stream_with(bytes, length, wanted, |bytes, count| bytes.skip(count));
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_panic| Outcome::Unreadable {
        error: std::io::Error::other("reading this member failed inside dcmdex; please report it"),
    })
}

/// Whether a file named .zip does not begin like a zip archive. `otherwise` is its outcome as a
/// DICOM file.
fn is_no_zip(otherwise: &FileOutcome) -> bool {
    !matches!(otherwise, FileOutcome::NotIndexed { detail, .. } if detail == "zip archive")
}

/// The reason to skip a member of this path.
fn skip_reason(path: &[u8]) -> Option<&'static str> {
    let mut components = path.split(|&byte| byte == b'/').map(OsStr::from_bytes);
    let name = components.next_back()?;
    skip::file(name).or_else(|| components.find_map(skip::directory))
}

/// A name for a member whose own name the index cannot hold. It has no NUL, is not too long, and
/// differs from every other member.
fn tellable(mut path: Vec<u8>, problem: &ArchiveProblem) -> Vec<u8> {
    match problem {
        ArchiveProblem::Name => {
            path.truncate(archive::limits::MAX_NAME);
            let told = String::from_utf8_lossy(&path).replace('\0', "\u{FFFD}");
            let told = if told.is_empty() { "(no name)".to_owned() } else { told };
            format!("{told}!").into_bytes()
        }
        _ => path,
    }
}
