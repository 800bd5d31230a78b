//! Finds members where an archive lies uncompressed in its file: by the central directory of a zip,
//! or by the headers of a tar.

use super::adapters::Limited;
use super::found::{FoundMember, MemberData, Passed, PassedPlace, Reached, inflated};
use super::inflate::Budget;
use super::name::PathStep;
use super::problem::ArchiveProblem;
use super::range::{RangeReader, SkipRead as _};
use super::tar::{self, EntryKind};
use super::zip::{self, CentralDirectory};

pub(super) fn in_zip(
    directory: &mut CentralDirectory,
    passed: &mut Passed,
    step: &PathStep,
    limit: u64,
) -> Result<Reached, ArchiveProblem> {
    match passed.place_of(step) {
        PassedPlace::At(place) => {
            let entry = directory.at(place)?;
            let is_it = entry.name == step.name;
            return Ok(if is_it { member_of_zip(directory, &entry, limit).into() } else { Reached::Unknown });
        }
        PassedPlace::Unknown => return Ok(Reached::Unknown),
        PassedPlace::Ahead => {}
    }
    let mut met = passed.met(&step.name);
    while passed.goes_on() {
        let place = directory.position();
        let Some(entry) = directory.next()? else {
            passed.ended = true;
            break;
        };
        passed.pass(&entry.name, place);
        met += u32::from(entry.name == step.name);
        if entry.name == step.name && met == step.occurrence {
            return Ok(member_of_zip(directory, &entry, limit).into());
        }
    }
    Ok(passed.not_met())
}

fn member_of_zip(
    directory: &CentralDirectory,
    entry: &zip::ZipEntry,
    limit: u64,
) -> Result<FoundMember, ArchiveProblem> {
    entry.check()?;
    let mut header = [0; zip::LOCAL_HEADER];
    let (range, ..) = directory.members.data(entry, &mut header)?;
    let budget = Budget::new(limit);
    let bytes = match entry.method {
        zip::STORED => MemberData::Range(range),
        _ => MemberData::Stream(Box::new(inflated(RangeReader::new(range), &budget))),
    };
    Ok(FoundMember { bytes, length: Some(entry.size), checksum: Some(entry.checksum), budget })
}

pub(super) fn in_tar(
    headers: &mut RangeReader,
    data: &mut u64,
    passed: &mut Passed,
    step: &PathStep,
    limit: u64,
) -> Result<Reached, ArchiveProblem> {
    match passed.place_of(step) {
        PassedPlace::At(place) => {
            let mut header = RangeReader::at(headers.whole(), place, 2 * tar::BLOCK)?;
            let entry = tar::next(&mut header)?.filter(|entry| entry.kind == EntryKind::File);
            let entry = entry.filter(|entry| entry.name == step.name);
            return Ok(entry.map_or(Reached::Unknown, |entry| Reached::Member(member_of_tar(header, &entry, limit))));
        }
        PassedPlace::Unknown => return Ok(Reached::Unknown),
        PassedPlace::Ahead => {}
    }
    let mut met = passed.met(&step.name);
    while passed.goes_on() {
        if headers.skip(*data)? < *data {
            return Err(ArchiveProblem::Truncated);
        }
        *data = 0;
        let place = headers.position();
        let Some(entry) = tar::next(headers)? else {
            passed.ended = true;
            break;
        };
        *data = entry.padded();
        passed.pass(&entry.name, place);
        met += u32::from(entry.name == step.name);
        if entry.kind == EntryKind::File && entry.name == step.name && met == step.occurrence {
            let at = RangeReader::at(headers.whole(), headers.position(), 0)?;
            return Ok(Reached::Member(member_of_tar(at, &entry, limit)));
        }
    }
    Ok(passed.not_met())
}

fn member_of_tar(source: RangeReader, entry: &tar::TarEntry, limit: u64) -> FoundMember {
    let bytes = match source.as_range(entry.size) {
        Some(range) => MemberData::Range(range),
        // The member is cut off. The reader gets the bytes that exist, then an error.
        None => MemberData::Stream(Box::new(Limited::new(source, entry.size))),
    };
    FoundMember { bytes, length: Some(entry.size), checksum: None, budget: Budget::new(limit) }
}
