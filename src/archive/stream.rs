//! Finds members of an archive in a stream that only goes forward, such as a compressed tar.

use std::io::{self, BufRead, Read};
use std::sync::{Arc, Mutex, PoisonError};

use super::adapters::Limited;
use super::found::{FoundMember, Inflated, MemberData, Passed, Reached, inflated};
use super::inflate::Budget;
use super::leavable::{LeavableStream, MemberStream};
use super::name::PathStep;
use super::problem::ArchiveProblem;
use super::range::{FileRange, SkipRead};
use super::tar::{self, EntryKind};
use super::zip;

#[derive(Clone, Copy)]
pub(super) enum StreamKind {
    Zip,
    Tar,
}

/// An archive in a stream that only goes forward.
pub(super) struct StreamArchive {
    kind: StreamKind,
    /// The current position. `None` while somebody reads a member.
    place: SharedPosition,
    passed: Passed,
    budget: Budget,
}

type SharedPosition = Arc<Mutex<Option<StreamPosition>>>;

enum StreamPosition {
    AtHeader(Box<dyn SkipRead>),
    /// After the header of a member, with its data still unread. The number is that of the
    /// occurrence.
    AtData(StreamHeader, u32, Box<dyn SkipRead>),
    /// Within the data of a member, or directly after it.
    InMember(Box<dyn MemberStream>),
}

/// A header, the number of the occurrence, and the stream after the header.
type AtData = (StreamHeader, u32, Box<dyn SkipRead>);

enum StreamHeader {
    Zip(zip::ZipEntry),
    Tar(tar::TarEntry),
}

impl StreamHeader {
    fn name(&self) -> &[u8] {
        match self {
            Self::Zip(entry) => &entry.name,
            Self::Tar(entry) => &entry.name,
        }
    }
}

impl StreamArchive {
    pub(super) fn new(kind: StreamKind, source: Box<dyn SkipRead>, budget: Budget) -> Self {
        let place = Arc::new(Mutex::new(Some(StreamPosition::AtHeader(source))));
        Self { kind, place, passed: Passed::default(), budget }
    }

    pub(super) fn member(&mut self, step: &PathStep) -> Result<Reached, ArchiveProblem> {
        if !self.passed.is_whole() {
            return Ok(Reached::Unknown);
        }
        let mut standing = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(StreamPosition::AtData(header, occurrence, source)) = standing {
            if header.name() == step.name && occurrence == step.occurrence {
                return Ok(self.member_here(header, source));
            }
            standing = Some(StreamPosition::AtData(header, occurrence, source));
        }
        if self.passed.has(step) {
            return Ok(Reached::Unknown);
        }
        if !self.passed.goes_on() {
            return Ok(Reached::Missing);
        }
        let Some(standing) = standing else { return Ok(Reached::Unknown) };
        let mut met = self.passed.met(&step.name);
        let mut is_it = |other: &PathStep| {
            met += u32::from(other.name == step.name);
            other.name == step.name && met == step.occurrence
        };
        Ok(match self.go_to(standing, &mut is_it)? {
            Some((header, _, source)) => self.member_here(header, source),
            None => self.passed.not_met(),
        })
    }

    /// Searches forward for the next needed member. It stops before the data.
    pub(super) fn look_for(
        &mut self,
        is_wanted: &mut dyn FnMut(&PathStep) -> bool,
    ) -> Result<Option<PathStep>, ArchiveProblem> {
        let standing = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(standing) = standing else { return Ok(None) };
        let Some((header, occurrence, source)) = self.go_to(standing, is_wanted)? else { return Ok(None) };
        let name = header.name().to_vec();
        self.put(StreamPosition::AtData(header, occurrence, source));
        Ok(Some(PathStep { name, occurrence }))
    }

    /// Goes to the data of the next member for which `is_wanted` returns true. `None` at the end.
    /// It calls `is_wanted` for every member, in order.
    fn go_to(
        &mut self,
        standing: StreamPosition,
        is_wanted: &mut dyn FnMut(&PathStep) -> bool,
    ) -> Result<Option<AtData>, ArchiveProblem> {
        let mut source = match standing {
            StreamPosition::AtHeader(source) => source,
            StreamPosition::AtData(header, _, source) => self.pass(&header, source)?,
            StreamPosition::InMember(data) => data.leave()?,
        };
        while self.passed.goes_on() {
            let header = match self.kind {
                StreamKind::Zip => zip::next_local(&mut source)?.map(StreamHeader::Zip),
                StreamKind::Tar => tar::next(&mut source)?.map(StreamHeader::Tar),
            };
            let Some(header) = header else {
                self.passed.ended = true;
                break;
            };
            let is_file = match &header {
                StreamHeader::Tar(entry) => entry.kind == EntryKind::File,
                StreamHeader::Zip(entry) if entry.is_described_after() && entry.method != zip::DEFLATED => {
                    return Err(ArchiveProblem::NoSize);
                }
                StreamHeader::Zip(_) => true,
            };
            let occurrence = self.passed.pass(header.name(), 0);
            let step = PathStep { name: header.name().to_vec(), occurrence };
            if is_wanted(&step) && is_file {
                return Ok(Some((header, step.occurrence, source)));
            }
            source = self.pass(&header, source)?;
        }
        Ok(None)
    }

    /// Skips to the next header.
    fn pass(&self, header: &StreamHeader, mut source: Box<dyn SkipRead>) -> Result<Box<dyn SkipRead>, ArchiveProblem> {
        match header {
            StreamHeader::Tar(entry) => {
                let padded = entry.padded();
                if source.skip(padded)? < padded { Err(ArchiveProblem::Truncated) } else { Ok(source) }
            }
            // Only a deflate stream marks its own end.
            StreamHeader::Zip(entry) => self.in_zip(entry, source, entry.is_described_after()).leave(),
        }
    }

    /// The member whose data begins at the current position.
    fn member_here(&self, header: StreamHeader, source: Box<dyn SkipRead>) -> Reached {
        match header {
            StreamHeader::Tar(entry) => self.member_of_tar(&entry, source),
            StreamHeader::Zip(entry) => self.member_of_zip(&entry, source),
        }
    }

    fn member_of_tar(&self, entry: &tar::TarEntry, source: Box<dyn SkipRead>) -> Reached {
        let range = source.as_range(entry.size);
        let padding = entry.padded() - entry.size;
        let data = LeavableStream {
            data: Limited::new(source, entry.size),
            leave: move |data: Limited<Box<dyn SkipRead>>| {
                let left = data.left().saturating_add(padding);
                let mut source = data.into_inner();
                if source.skip(left)? < left { Err(ArchiveProblem::Truncated) } else { Ok(source) }
            },
        };
        let bytes = match range {
            Some(range) => {
                self.put(StreamPosition::InMember(Box::new(data)));
                MemberData::Range(range)
            }
            None => self.lend(Box::new(data)),
        };
        Reached::Member(FoundMember { bytes, length: Some(entry.size), checksum: None, budget: self.budget.clone() })
    }

    fn member_of_zip(&self, entry: &zip::ZipEntry, source: Box<dyn SkipRead>) -> Reached {
        let data = self.in_zip(entry, source, entry.method == zip::DEFLATED);
        if let Err(problem) = entry.check() {
            self.put(StreamPosition::InMember(data));
            return Reached::Refused(problem);
        }
        let known = (!entry.is_described_after()).then_some(());
        Reached::Member(FoundMember {
            bytes: self.lend(data),
            length: known.map(|()| entry.size),
            checksum: known.map(|()| entry.checksum),
            budget: self.budget.clone(),
        })
    }

    /// The data of a member, inflated or as stored.
    fn in_zip(&self, entry: &zip::ZipEntry, source: Box<dyn SkipRead>, inflate: bool) -> Box<dyn MemberStream> {
        let (after, described) = (entry.is_described_after(), entry.has_descriptor());
        let limited = Limited::new(source, if after { u64::MAX } else { entry.compressed });
        if !inflate {
            return Box::new(LeavableStream {
                data: limited,
                leave: move |limited: Limited<Box<dyn SkipRead>>| leave_zip_member(limited, after, described),
            });
        }
        Box::new(LeavableStream {
            data: inflated(limited, &self.budget),
            leave: move |mut data: Inflated<Limited<Box<dyn SkipRead>>>| {
                if after {
                    data.skip(u64::MAX)?;
                }
                let (limited, _state) = data.0.into_inner().into_parts();
                leave_zip_member(limited, after, described)
            },
        })
    }

    fn put(&self, standing: StreamPosition) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(standing);
    }

    /// Lends out the data of a member. When the borrower drops it, the stream comes back here.
    fn lend(&self, data: Box<dyn MemberStream>) -> MemberData {
        MemberData::Stream(Box::new(Borrowed { data: Some(data), home: Arc::clone(&self.place) }))
    }
}

/// Skips the rest of a member and its data descriptor.
fn leave_zip_member(
    limited: Limited<Box<dyn SkipRead>>,
    after: bool,
    described: bool,
) -> Result<Box<dyn SkipRead>, ArchiveProblem> {
    let left = if after { 0 } else { limited.left() };
    let mut source = limited.into_inner();
    if source.skip(left)? < left {
        return Err(ArchiveProblem::Truncated);
    }
    if described {
        zip::pass_descriptor(&mut source)?;
    }
    Ok(source)
}

/// The data of a member that somebody reads. Dropping it returns the stream to the archive.
struct Borrowed {
    /// `Some` until it is dropped.
    data: Option<Box<dyn MemberStream>>,
    home: SharedPosition,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.data.take().map(StreamPosition::InMember);
    }
}

impl Read for Borrowed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.data.as_mut().map_or(Ok(0), |data| data.read(out))
    }
}

impl BufRead for Borrowed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.data.as_mut().map_or(Ok(&[]), |data| data.fill_buf())
    }

    fn consume(&mut self, count: usize) {
        if let Some(data) = &mut self.data {
            data.consume(count);
        }
    }
}

impl SkipRead for Borrowed {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        self.data.as_mut().map_or(Ok(0), |data| data.skip(count))
    }

    fn as_range(&self, length: u64) -> Option<FileRange> {
        self.data.as_ref().and_then(|data| data.as_range(length))
    }
}
