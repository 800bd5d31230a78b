//! The files of the trail: numbered segments of JSON lines, and the position up to which they were
//! sent.
//!
//! Every process appends to the newest segment, in single writes. Only the node begins segments,
//! sends them and deletes them.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::AuditRecord;
use crate::files::{PRIVATE_MODE, replace};

/// Bytes after which a new segment begins. Larger: less is deleted at a time, later. Smaller: more
/// files.
const SEGMENT_BYTES: u64 = 8 << 20;

/// Longest line that is read. A line holds the studies of one association.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Name of the file with the position.
const POSITION_FILE: &str = "sent.json";

/// A place in the trail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct TrailPosition {
    /// Number of the segment. 0 is before the first one.
    pub(super) segment: u64,
    /// Bytes of it.
    pub(super) offset: u64,
}

/// The directory of a trail.
#[derive(Clone, Debug)]
pub struct AuditSpool {
    directory: PathBuf,
}

impl AuditSpool {
    /// Opens a directory, and makes it if it is not there. Only its owner can read it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// The numbers of the segments, the oldest first.
    pub(super) fn segments(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let number: Option<u64> =
                name.to_str().and_then(|name| name.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn path(&self, segment: u64) -> PathBuf {
        self.directory.join(format!("audit-{segment:08}.jsonl"))
    }

    /// The newest segment, to append to.
    pub(super) fn newest(&self) -> io::Result<(u64, File)> {
        let number = self.segments()?.last().copied().unwrap_or(1);
        self.append_to(number).map(|file| (number, file))
    }

    fn append_to(&self, segment: u64) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let file = options.append(true).read(true).create(true).mode(PRIVATE_MODE).open(self.path(segment))?;
        // A process that was killed, or a full disk, may have left half a line.
        let length = file.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            file.read_exact_at(&mut last, length - 1)?;
        }
        if last != [b'\n'] {
            (&file).write_all(b"\n")?;
        }
        Ok(file)
    }

    /// Begins the next segment if this one is large enough.
    pub(super) fn after(&self, segment: u64, file: &File) -> io::Result<Option<(u64, File)>> {
        if file.metadata()?.len() < SEGMENT_BYTES {
            return Ok(None);
        }
        self.append_to(segment + 1).map(|file| Some((segment + 1, file)))
    }

    /// Appends one event, for a process other than the node. It is on disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&self, record: &AuditRecord) -> io::Result<()> {
        let (_, mut file) = self.newest()?;
        file.write_all(record.line().as_bytes())?;
        file.sync_data()
    }

    /// Position of the next event to send.
    pub(super) fn position(&self) -> io::Result<TrailPosition> {
        match std::fs::read_to_string(self.directory.join(POSITION_FILE)) {
            Ok(text) => serde_json::from_str(&text).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(TrailPosition::default()),
            Err(error) => Err(error),
        }
    }

    /// Keeps the position. A process that is killed meanwhile leaves the old one or the new one.
    pub(super) fn keep_position(&self, position: TrailPosition) -> io::Result<()> {
        let text = serde_json::to_string(&position).map_err(io::Error::other)?;
        replace(&self.directory.join(POSITION_FILE), PRIVATE_MODE, text.as_bytes())
    }

    /// Reads lines from a position on, at most so many. Returns them, each with the position after
    /// it. A line that is no event gives `None` in its place.
    pub(super) fn lines(
        &self,
        from: TrailPosition,
        most: usize,
    ) -> io::Result<Vec<(Option<Box<AuditRecord>>, TrailPosition)>> {
        let mut found = Vec::new();
        for segment in self.segments()?.into_iter().filter(|segment| *segment >= from.segment) {
            let mut file = match File::open(self.path(segment)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let mut offset = if segment == from.segment { from.offset } else { 0 };
            file.seek(SeekFrom::Start(offset))?;
            let mut reader = BufReader::new(file);
            while found.len() < most {
                let mut line = Vec::new();
                let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
                let is_whole = line.last() == Some(&b'\n');
                // The end of the newest segment may be half a line that is being written.
                if read == 0 || !is_whole && (read as u64) < MAX_LINE_BYTES {
                    break;
                }
                offset += read as u64;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                found.push((serde_json::from_slice(&line).ok(), TrailPosition { segment, offset }));
            }
            if found.len() >= most {
                break;
            }
        }
        Ok(found)
    }

    /// Bytes after a position.
    pub(super) fn bytes_after(&self, position: TrailPosition) -> io::Result<u64> {
        let mut bytes = 0;
        for segment in self.segments()?.into_iter().filter(|segment| *segment >= position.segment) {
            let length = std::fs::metadata(self.path(segment)).map_or(0, |metadata| metadata.len());
            bytes += if segment == position.segment { length.saturating_sub(position.offset) } else { length };
        }
        Ok(bytes)
    }

    /// Deletes segments that are too old, and the oldest ones while all are too large. The newest
    /// stays. `sent` is `None` if nothing is sent. Returns the events that were deleted unsent.
    pub(super) fn tidy(&self, sent: Option<TrailPosition>, limits: &SpoolLimits) -> io::Result<u64> {
        let mut segments = self.segments()?;
        let _newest = segments.pop();
        let mut total = self.bytes_after(TrailPosition::default())?;
        let mut lost = 0;
        for segment in segments {
            let path = self.path(segment);
            let metadata = std::fs::metadata(&path)?;
            let is_sent = sent.is_none_or(|sent| segment < sent.segment);
            let age = metadata.modified()?.elapsed().unwrap_or_default();
            let is_old = is_sent && age > limits.keep;
            if !is_old && total <= limits.bytes {
                continue;
            }
            if !is_sent {
                let from = TrailPosition { segment, offset: 0 }.max(sent.unwrap_or_default());
                let lines = self.lines(from, usize::MAX)?;
                lost += lines.iter().filter(|(_, position)| position.segment == segment).count() as u64;
            }
            std::fs::remove_file(&path)?;
            total = total.saturating_sub(metadata.len());
        }
        Ok(lost)
    }
}

/// Limits for the part of a trail that is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpoolLimits {
    /// Bytes of all segments.
    pub(super) bytes: u64,
    /// Time for which sent events are kept.
    pub(super) keep: Duration,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::audit::AuditEvent;

    fn record(service: &str) -> AuditRecord {
        AuditRecord::new(AuditEvent::Query, service)
    }

    fn services(lines: &[(Option<Box<AuditRecord>>, TrailPosition)]) -> Vec<String> {
        lines.iter().map(|(record, _)| record.as_ref().map_or("?".into(), |record| record.service.clone())).collect()
    }

    #[test]
    fn lines_are_read_in_order_from_a_position_and_only_their_owner_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let spool = AuditSpool::open(&directory.path().join("audit")).unwrap();
        for service in ["a", "b", "c"] {
            spool.append(&record(service)).unwrap();
        }
        let lines = spool.lines(TrailPosition::default(), 2).unwrap();
        assert_eq!(services(&lines), ["a", "b"]);
        spool.keep_position(lines[1].1).unwrap();
        assert_eq!(services(&spool.lines(spool.position().unwrap(), 9).unwrap()), ["c"]);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&spool.path(1)), mode(&directory.path().join("audit"))), (0o600, 0o700));
        assert_eq!(mode(&directory.path().join("audit/sent.json")), 0o600);
    }

    #[test]
    fn half_a_line_costs_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let spool = AuditSpool::open(directory.path()).unwrap();
        spool.append(&record("a")).unwrap();
        OpenOptions::new().append(true).open(spool.path(1)).unwrap().write_all(b"{\"half").unwrap();
        assert_eq!(services(&spool.lines(TrailPosition::default(), 9).unwrap()), ["a"]);
        spool.append(&record("b")).unwrap();
        assert_eq!(services(&spool.lines(TrailPosition::default(), 9).unwrap()), ["a", "?", "b"]);
    }

    #[test]
    fn what_was_not_sent_is_deleted_only_for_want_of_room_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let spool = AuditSpool::open(directory.path()).unwrap();
        for segment in 1..=3 {
            let mut file = spool.append_to(segment).unwrap();
            file.write_all((record("x").line() + &record("y").line()).as_bytes()).unwrap();
        }
        let one = std::fs::metadata(spool.path(1)).unwrap().len();
        let room = SpoolLimits { bytes: 3 * one, keep: Duration::ZERO };
        let nothing_sent = Some(TrailPosition { segment: 1, offset: 0 });
        assert_eq!(spool.tidy(nothing_sent, &room).unwrap(), 0);
        assert_eq!(spool.segments().unwrap(), [1, 2, 3]);
        let after_first = spool.lines(TrailPosition::default(), 1).unwrap()[0].1;
        assert_eq!(spool.tidy(Some(after_first), &SpoolLimits { bytes: 2 * one, ..room }).unwrap(), 1);
        assert_eq!(spool.segments().unwrap(), [2, 3]);
        assert_eq!(spool.tidy(Some(TrailPosition { segment: 3, offset: 0 }), &room).unwrap(), 0);
        assert_eq!(spool.segments().unwrap(), [3], "what was sent is not kept");
    }
}
