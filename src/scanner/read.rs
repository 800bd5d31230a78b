//! The readers. A reader stats a file, compares it with the index, opens it and reads its header.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use fail::fail_point;
use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags, Stat, fadvise, fstat, openat, statat};

use super::archives::{self, Out};
use super::offline::TapeFiles;
use super::settings::ReadSettings;
use super::watchdog::{First, ReaderPool, ReaderSlot, ReaderState, UpTo};
use super::work::{
    DICOMDIR, EntryReport, KnownAs, MAY_PASS, Marks, OFFLINE, RESULT_TEXT_BYTES, SPECIAL_FILE, TIMED_OUT, UNIT_FILES,
    UnitResult, WorkDirectory, WorkEntry, WorkUnit, failed, note, to_outcome,
};
use crate::db::{Backlog, FileOutcome, KnownFile, NotIndexed, Note};
use crate::ingest::{self, Wanted};

/// The readers of a scan, with their queue of units and their settings.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) to_read: Receiver<(WorkUnit, Sender<UnitResult>)>,
    /// The files between the walk and the collector.
    pub(super) backlog: Arc<Backlog>,
    pub(super) settings: ReadSettings,
    /// Readers that are to end.
    pub(super) surplus: Arc<AtomicUsize>,
}

impl ReaderPool for Pool {
    fn run(&self, slot: &Arc<ReaderSlot>, first: Option<First>) -> ReaderState {
        slot.own();
        let next = || if self.is_surplus() { None } else { self.to_read.recv().ok() };
        for (unit, results) in first.into_iter().chain(std::iter::from_fn(next)) {
            if self.unit(slot, unit, results) == ReaderState::GivenUp {
                return ReaderState::GivenUp;
            }
        }
        ReaderState::Working
    }

    fn drop_waiting(&self) {
        while self.to_read.try_recv().is_ok() {}
    }

    fn has_waiting(&self) -> bool {
        !self.to_read.is_empty()
    }

    fn grown_by(&self, readers: usize) {
        self.backlog.raise_limit(readers * UNIT_FILES);
    }

    fn shrink_by(&self, readers: usize) {
        self.backlog.lower_limit(readers * UNIT_FILES);
        self.surplus.fetch_add(readers, Relaxed);
    }
}

impl Pool {
    /// Whether this reader is one of those that are to end.
    fn is_surplus(&self) -> bool {
        self.surplus.fetch_update(Relaxed, Relaxed, |surplus| surplus.checked_sub(1)).is_ok()
    }

    fn unit(&self, slot: &Arc<ReaderSlot>, unit: WorkUnit, results: Sender<UnitResult>) -> ReaderState {
        let directory = Arc::clone(&unit.directory);
        let entries = slot.begin(unit, results);
        let mut result = UnitResult::of(&directory);
        let mut text_bytes = 0;
        for (number, entry) in entries.iter().enumerate() {
            if self.settings.stop.is_asked() {
                return slot.break_off(result);
            }
            slot.turns_to(number);
            match self.read_entry(&mut result, entry) {
                FileRead::File(bytes) => text_bytes += bytes,
                FileRead::Archive(found) => {
                    text_bytes = 0;
                    let out = Out { slot, entry: number };
                    let before = std::mem::replace(&mut result, UnitResult::of(&directory));
                    let read =
                        out.hand_over(before).and_then(|()| archives::read(*found, &directory, &self.settings, &out));
                    if read.is_err()
                        || slot.hand_over(UnitResult::of(&directory), UpTo::Entry(number + 1)) == ReaderState::GivenUp
                    {
                        return ReaderState::GivenUp;
                    }
                }
            }
            if text_bytes > RESULT_TEXT_BYTES {
                text_bytes = 0;
                let next = UnitResult::of(&directory);
                if slot.hand_over(std::mem::replace(&mut result, next), UpTo::Entry(number + 1)) == ReaderState::GivenUp
                {
                    return ReaderState::GivenUp;
                }
            }
        }
        slot.hand_over(result, UpTo::End)
    }

    /// Looks at one file.
    fn read_entry(&self, result: &mut UnitResult, entry: &WorkEntry) -> FileRead {
        let directory = Arc::clone(&result.directory);
        let Some(handle) = directory.handle.as_ref() else { return FileRead::File(0) };
        // Cloned only when needed: an unchanged file needs no copy of its name.
        let name = &entry.name;
        if let Some(waited) = entry.waited_for {
            return does_not_answer(result, name.clone(), waited);
        }
        // Tests make this file hang, or change it.
        fail_point!(&format!("scan {}", directory.path.join(name).display()));
        let known = directory.known.get(name);
        // A new file is opened in any case. `fstat` on the open file costs half as much as `stat`
        // by name. If opening fails, the code below finds the reason.
        if entry.is_file
            && known.is_none()
            && let Ok(file) = self.open(handle, name)
            && let Ok(stat) = fstat(&file)
        {
            return match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => match self.waits(result, name, &stat, &file) {
                    true => FileRead::File(0),
                    false => self.read(result, name.clone(), &stat, file),
                },
                _ => skipped(result, name.clone(), SPECIAL_FILE),
            };
        }
        // Stat comes before reading. If the file changes while it is read, the next scan sees the
        // change.
        let stat = match statat(handle, name, AtFlags::empty()) {
            Ok(stat) => stat,
            Err(error) => return cannot_stat(result, name.clone(), error.into(), handle),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            kind => {
                // What is no file any more is as gone as one that is not listed.
                result.vanished.extend(known.map(|known| (name.clone(), KnownAs::of(known))));
                let is_directory = kind == FileType::Directory;
                return skipped(result, name.clone(), if is_directory { "directory-link" } else { SPECIAL_FILE });
            }
        }
        let marks = Marks::of(&stat);
        if let Some(known) = known
            && known.missing
            && (known.size, known.mtime_ms) == (marks.size, marks.mtime_ms)
        {
            result.returned.push(name.clone());
        }
        if let Some(known) = known
            && (known.size, known.mtime_ms) == (marks.size, marks.mtime_ms)
            && !self.must_read_again(known, &directory, name)
        {
            let Some(note) = &known.note else {
                result.unchanged += 1;
                return FileRead::File(0);
            };
            if let Some(read) = self.known_note(result, name, known, note) {
                return read;
            }
        }
        if self.waits(result, name, &stat, handle) {
            return FileRead::File(0);
        }
        match self.open(handle, name) {
            Ok(file) => self.read(result, name.clone(), &stat, file),
            Err(error) => {
                let outcome = failed("unreadable", error.to_string());
                note(result, name.clone(), marks, outcome);
                FileRead::File(0)
            }
        }
    }

    /// Takes a file with a note in the index that has not changed since. `None` if it is an archive
    /// that must be read, because its missing members may be back.
    fn known_note(&self, result: &mut UnitResult, name: &OsStr, known: &KnownFile, note: &Note) -> Option<FileRead> {
        let name = name.to_owned();
        let below = match note.reason == DICOMDIR {
            true => Some(archives::ArchiveFile::Dicomdir { name: name.clone() }),
            false if archives::is_archive(note) => {
                let members = self.settings.members.summary(&result.directory.path.join(&name));
                if members.as_ref().is_ok_and(|members| members.may_be_back(known.mtime_ms)) {
                    return None;
                }
                Some(archives::ArchiveFile::Unchanged { name: name.clone(), members })
            }
            false => None,
        };
        if note.kind != NotIndexed::Container {
            let (reason, detail) = (note.reason.clone().into(), note.detail.clone().into());
            result.reports.push(EntryReport { name, kind: note.kind, reason, detail });
        }
        Some(below.map_or(FileRead::File(0), |found| FileRead::Archive(Box::new(found))))
    }

    /// Whether a file must be read although its size and time are those of the index.
    fn must_read_again(&self, known: &KnownFile, directory: &WorkDirectory, name: &OsStr) -> bool {
        may_have_passed(known)
            || self.settings.reads_all_in(&directory.path)
            || known.lacks_declared
            || known
                .note
                .as_deref()
                .is_some_and(|note| self.settings.members.lack_declared(&directory.path, name, note))
    }

    /// Whether a file is not to be read now, because it may still be written or lies on tape. Notes
    /// it in the result. `file` is the file or its directory.
    fn waits(&self, result: &mut UnitResult, name: &OsStr, stat: &Stat, file: impl AsFd) -> bool {
        let path = || result.directory.path.join(name);
        if self.settings.settling.as_ref().is_some_and(|settling| settling.is_changing(path, stat)) {
            result.pending.push(name.to_owned());
            return true;
        }
        if self.settings.tape_check.is_offline(stat, file) && self.settings.tape_files == TapeFiles::Leave {
            let outcome = FileOutcome::NotIndexed { kind: NotIndexed::Skipped, reason: OFFLINE, detail: String::new() };
            note(result, name.to_owned(), Marks::of(stat), outcome);
            return true;
        }
        false
    }

    fn open(&self, directory: impl AsFd, name: &OsStr) -> io::Result<File> {
        self.settings.throttle.file(&self.settings.stop);
        // NONBLOCK: since the stat, a FIFO may have replaced the file.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(openat(directory, name, flags, Mode::empty())?);
        // The reader needs only the header. Without this advice the system reads twice as much
        // ahead. A cold scan then takes twice the time. The page cache also needs twice the room,
        // so the headers are gone from it before the next scan. A file system that ignores the
        // advice does no harm.
        let _unheeded = fadvise(&file, 0, None, Advice::Random);
        Ok(file)
    }

    /// Reads a file and adds its outcome to the result, unless it is an archive.
    fn read(&self, result: &mut UnitResult, name: OsString, stat: &Stat, file: File) -> FileRead {
        let marks = Marks::of(stat);
        let mut outcome = if marks.size == 0 {
            failed(ingest::EMPTY, String::new())
        } else {
            outcome_of(&file, marks.size, self.settings.wanted)
        };
        if self.settings.throttle.counts_bytes() {
            self.settings.throttle.bytes(ingest::take_bytes_read(), &self.settings.stop);
        }
        // DICOM comes first: a DICOM file may begin like an archive.
        if let FileOutcome::NotIndexed { kind: NotIndexed::Failed, .. } = outcome {
            match archives::kind_of(&file, &name) {
                Ok(Some(kind)) => {
                    let found = archives::ArchiveFile::File { name, marks, file, kind, otherwise: outcome };
                    return FileRead::Archive(Box::new(found));
                }
                Ok(None) => {}
                Err(problem) => outcome = failed(problem.code(), problem.to_string()),
            }
            let path = || result.directory.path.join(&name);
            if self.settings.settling.as_ref().is_some_and(|settling| settling.wants_second_read(path, stat)) {
                result.pending.push(name);
                return FileRead::File(0);
            }
        }
        if let FileOutcome::NotIndexed { reason: DICOMDIR, .. } = outcome {
            note(result, name.clone(), marks, outcome);
            return FileRead::Archive(Box::new(archives::ArchiveFile::Dicomdir { name }));
        }
        let was = result.directory.known.get(&name).and_then(|known| known.note.as_deref());
        if was.is_some_and(archives::is_archive) {
            note(result, name.clone(), marks, outcome);
            return FileRead::Archive(Box::new(archives::ArchiveFile::Former { name }));
        }
        let text_bytes = match &outcome {
            FileOutcome::Instance(record) => record.text_bytes(),
            FileOutcome::NotIndexed { detail, .. } => detail.len(),
        };
        note(result, name, marks, outcome);
        FileRead::File(text_bytes)
    }
}

/// Kind of file that a reader found.
enum FileRead {
    /// One file. Its outcome is in the result and holds this many bytes of text.
    File(usize),
    /// An archive file, or a file that was an archive in the last scan. Its members come next.
    Archive(Box<archives::ArchiveFile>),
}

fn outcome_of(file: &File, size: u64, wanted: &Wanted) -> FileOutcome {
    // No known input makes the parser panic. If one does, the scan loses one file and goes on.
    match catch_unwind(AssertUnwindSafe(|| ingest::read_file_of_length(file, size, wanted))) {
        Ok(outcome) => to_outcome(outcome),
        Err(_panic) => failed("internal-error", "reading this file failed inside dcmdex; please report it".to_owned()),
    }
}

fn may_have_passed(known: &KnownFile) -> bool {
    known.note.as_ref().is_some_and(|note| MAY_PASS.contains(&note.reason.as_str()))
}

fn does_not_answer(result: &mut UnitResult, name: OsString, waited: Duration) -> FileRead {
    let detail = format!("did not answer for {:.1} s", waited.as_secs_f64());
    note(result, name, Marks::NONE, failed(TIMED_OUT, detail));
    FileRead::File(0)
}

fn cannot_stat(result: &mut UnitResult, name: OsString, error: io::Error, directory: impl AsFd) -> FileRead {
    let outcome = if error.kind() != io::ErrorKind::NotFound {
        failed("unreadable", error.to_string())
    } else if statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        failed("broken-link", "the target of the symbolic link does not exist".to_owned())
    } else {
        // The directory listed it, and it was deleted since. The next scan will see that.
        return skipped(result, name, "vanished");
    };
    note(result, name, Marks::NONE, outcome);
    FileRead::File(0)
}

fn skipped(result: &mut UnitResult, name: OsString, reason: &'static str) -> FileRead {
    let (reason, detail) = (Cow::Borrowed(reason), Cow::Borrowed(""));
    result.reports.push(EntryReport { name, kind: NotIndexed::Skipped, reason, detail });
    FileRead::File(0)
}
